//! Asking programs for their tasks: every program that lets itself be inspected and admits us.

#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::io;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::geteuid;
use towpath::sync::channel::{self, Receiver};
use towpath_diag::monotonic;

use super::tasks::{Task, Tasks};
use crate::tasks::endpoint::{self, Endpoint, Room, endpoints};

/// How long all programs together may take. Those that are stopped hold up the others; the table does not wait.
const PATIENCE: Duration = Duration::from_millis(500);
/// How many are asked at once.
const AT_ONCE: usize = 16;
/// What their tasks may take in memory.
const ROOM: usize = 1 << 30;

/// The tasks of all of them that wait on a socket. Who does not answer has none.
pub(super) fn ask() -> Tasks {
    let until = Instant::now() + PATIENCE;
    let mut there = endpoints();
    there.retain(|endpoint| Instant::now() < until && endpoint.has_process());
    ask_all(in_turn(there, geteuid().as_raw()), until)
}

/// Has a thread do that, whose answer comes here. It may stay away where looking for the programs takes long.
pub(super) fn asked() -> io::Result<Receiver<Tasks>> {
    let (send, asked) = channel::bounded(1);
    thread::Builder::new().name("tasks".into()).spawn(move || _ = send.send(ask()))?;
    Ok(asked)
}

/// How long to wait for what [`asked`] gives.
pub(super) const LONGEST: Duration = PATIENCE.saturating_mul(2);

/// One of each user's, then another of each; our own first. One user's are not asked after all of another's.
fn in_turn(there: Vec<Endpoint>, own: u32) -> Vec<Endpoint> {
    let mut turns = HashMap::new();
    let mut queue: Vec<_> = there
        .into_iter()
        .map(|endpoint| {
            let turn = turns.entry(endpoint.owner).and_modify(|turn| *turn += 1).or_insert(0_usize);
            (endpoint.owner != Some(own), *turn, endpoint)
        })
        .collect();
    queue.sort_by_key(|&(foreign, turn, _)| (foreign, turn));
    queue.into_iter().map(|(_, _, endpoint)| endpoint).collect()
}

fn ask_all(queue: Vec<Endpoint>, until: Instant) -> Tasks {
    let threads = queue.len().min(AT_ONCE);
    let room = Room::new(ROOM);
    let queue = Mutex::new(queue.into_iter());
    let tasks = Mutex::new(Tasks::default());
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next().filter(|_| Instant::now() < until);
    let work = || {
        while let Some(endpoint) = next() {
            let Ok(dump) = endpoint.ask_for_sockets(until, &room) else { continue };
            let mut tasks = tasks.lock().unwrap_or_else(PoisonError::into_inner);
            for task in dump.tasks {
                if let Some(cookie) = task.cookie {
                    tasks.add(cookie, known(dump.pid, endpoint.owner, task));
                }
            }
        }
    };
    thread::scope(|scope| {
        // As many as can be had; this thread is one.
        for _ in 1..threads {
            _ = thread::Builder::new().name("tasks".into()).spawn_scoped(scope, work);
        }
        work();
    });
    tasks.into_inner().unwrap_or_else(PoisonError::into_inner)
}

fn known(pid: u32, uid: Option<u32>, task: endpoint::Task) -> Task {
    let waited = task.since_us.map(Duration::from_micros).unwrap_or_default();
    Task {
        pid,
        uid,
        id: task.id,
        name: task.name,
        state: task.state,
        op: task.op,
        since: monotonic().saturating_sub(waited),
        spawned_at: task.spawned_at,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::os::unix::net::UnixListener;
    use std::path::PathBuf;

    use super::*;

    fn endpoint(folder: &str, pid: u32, owner: u32) -> Endpoint {
        Endpoint::found(format!("{folder}/{pid}.sock").into(), owner).unwrap()
    }

    #[test]
    fn ones_own_programs_are_asked_first_and_no_user_pushes_another_back() {
        let there = [(1, 7), (2, 7), (3, 7), (4, 8), (5, 0), (6, 8), (7, 0)];
        let there = there.map(|(pid, owner)| endpoint("/x", pid, owner)).to_vec();
        let queue: Vec<_> = in_turn(there, 0).iter().map(|endpoint| endpoint.pid.unwrap()).collect();
        assert_eq!(queue, [5, 7, 1, 4, 2, 6, 3]);
    }

    #[test]
    fn programs_that_say_nothing_take_no_longer_together_than_one() {
        let process = std::process::id();
        let root = std::env::temp_dir().join(format!("tps-{process}"));
        let listeners: Vec<(UnixListener, PathBuf)> = (0..60)
            .map(|number| {
                let folder = root.join(number.to_string());
                fs::create_dir_all(&folder).unwrap();
                let path = folder.join(format!("{process}.sock"));
                (UnixListener::bind(&path).unwrap(), path)
            })
            .collect();
        let uid = geteuid().as_raw();
        let queue = listeners.iter().map(|(_, path)| Endpoint::found(path.clone(), uid).unwrap()).collect();
        // The tenth answers.
        let answering = listeners[9].0.try_clone().unwrap();
        let answers = thread::spawn(move || {
            let (mut stream, _) = answering.accept().unwrap();
            BufReader::new(&stream).read_line(&mut String::new()).unwrap();
            stream.write_all(b"{\"v\":1,\"pid\":1,\"tasks\":2}\n{\"cookie\":5,\"id\":3}\n{\"id\":4}\n").unwrap();
        });
        let begun = Instant::now();
        let tasks = ask_all(queue, begun + Duration::from_secs(2));
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
        let told: Vec<_> = tasks.of(5, uid, &[]).iter().map(|task| (task.pid, task.id)).collect();
        assert_eq!(told, [(process, 3)]);
        answers.join().unwrap();
        fs::remove_dir_all(root).unwrap();
    }
}
