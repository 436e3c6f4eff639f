//! Which task uses a socket: what programs tell that let themselves be inspected, by the socket's cookie.

#![forbid(unsafe_code)]

use std::collections::HashMap;

use towpath_diag::Owner;

use super::table::Moment;

/// A task, as far as a socket is concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Task {
    pub(crate) pid: u32,
    /// The user of its program, as far as that is known.
    pub(crate) uid: Option<u32>,
    pub(crate) id: u64,
    pub(crate) name: Option<String>,
    /// `running`, `ready` or `waiting`.
    pub(crate) state: String,
    /// What it waits in, such as `read`.
    pub(crate) op: Option<String>,
    /// Since when.
    pub(crate) since: Moment,
    /// `file:line`.
    pub(crate) spawned_at: String,
}

/// All tasks that use a socket.
#[derive(Debug, Default)]
pub(crate) struct Tasks {
    by_cookie: HashMap<u64, Vec<Task>>,
}

/// The tasks that use one socket: of those that say so, who may. A program can tell of any cookie.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Users<'a> {
    told: &'a [Task],
    uid: u32,
    owners: &'a [Owner],
}

impl<'a> Users<'a> {
    /// Those of `told` whose process has the socket; where no process is known to have it, those of the socket's user.
    pub(crate) fn among(told: &'a [Task], uid: u32, owners: &'a [Owner]) -> Users<'a> {
        Users { told, uid, owners }
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = &'a Task> {
        self.told.iter().filter(move |task| {
            if self.owners.is_empty() {
                task.uid == Some(self.uid)
            } else {
                self.owners.iter().any(|owner| owner.pid == task.pid)
            }
        })
    }
}

impl Tasks {
    /// Those that use the socket with this cookie, which is this user's and which these processes have.
    pub(crate) fn of<'a>(&'a self, cookie: u64, uid: u32, owners: &'a [Owner]) -> Users<'a> {
        Users::among(self.by_cookie.get(&cookie).map_or(&[], Vec::as_slice), uid, owners)
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.by_cookie.is_empty()
    }

    /// Adds one.
    pub(crate) fn add(&mut self, cookie: u64, task: Task) {
        self.by_cookie.entry(cookie).or_default().push(task);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_the_socket_or_is_its_user_may_say_that_it_uses_it() {
        let task = |pid, uid| Task {
            pid,
            uid: Some(uid),
            id: 1,
            name: None,
            state: "waiting".to_owned(),
            op: None,
            since: Moment::default(),
            spawned_at: String::new(),
        };
        let mut tasks = Tasks::default();
        for (pid, uid) in [(10, 7), (11, 8), (12, 0)] {
            tasks.add(5, task(pid, uid));
        }
        let pids = |uid, owners: &[Owner]| tasks.of(5, uid, owners).iter().map(|task| task.pid).collect::<Vec<_>>();
        assert_eq!(pids(7, &[]), [10]);
        assert_eq!(pids(0, &[]), [12]);
        // Whoever opened this test's listener has it.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let inode = std::os::unix::fs::MetadataExt::ino(
            &std::fs::metadata(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&listener))).unwrap(),
        );
        let mut owners = towpath_diag::Owners::new();
        let owners = owners.find(u32::try_from(inode).unwrap()).to_vec();
        assert!(!owners.is_empty());
        assert!(pids(7, &owners).is_empty());
        tasks.add(6, task(std::process::id(), 9));
        assert_eq!(tasks.of(6, 7, &owners).iter().count(), 1);
    }
}
