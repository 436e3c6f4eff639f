//! A server that is made to do the same each time: stopped while it is sent to, and left alone until it sleeps.

use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};
use towpath_bench::Result;
use towpath_bench::process::Server;

/// How long the server may take for anything. Under callgrind, beside other load, that can be long.
const PATIENCE: Duration = Duration::from_secs(60);
/// Bytes in a message.
const SIZE: usize = 64;

/// A server, by its process.
pub(crate) struct Paced {
    server: Server,
    pid: Pid,
}

impl Paced {
    pub(crate) fn new(server: Server) -> Paced {
        let pid = Pid::from_raw(server.pid() as i32).expect("a child's number is not 0");
        Paced { server, pid }
    }

    fn addr(&self) -> SocketAddr {
        self.server.addr()
    }

    /// Ends the server, which must not be stopped.
    pub(crate) fn end(self) -> Result<()> {
        self.server.terminate()
    }

    /// Does something that the server sees all at once: it is stopped asleep, and goes on when `f` is done.
    pub(crate) fn while_stopped<T>(&self, f: impl FnOnce() -> Result<T>) -> Result<T> {
        self.wait_until_quiet()?;
        kill_process(self.pid, Signal::STOP)?;
        self.wait_for(|before, _| before.iter().all(|thread| thread.state == 'T'))?;
        let done = f();
        kill_process(self.pid, Signal::CONT)?;
        done
    }

    /// Waits until all threads sleep. Looked at twice: a thread that was awake between has switched since.
    pub(crate) fn wait_until_quiet(&self) -> Result<()> {
        self.wait_for(|before, after| before == after && before.iter().all(|thread| thread.state == 'S'))
    }

    /// Waits for something to be true of the threads as they are, and as they are a moment later.
    fn wait_for(&self, is_so: impl Fn(&[Thread], &[Thread]) -> bool) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let mut before = self.threads()?;
        loop {
            let after = self.threads()?;
            if is_so(&before, &after) {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(format!("the server does not come to rest: {after:?}").into());
            }
            thread::sleep(Duration::from_micros(50));
            before = after;
        }
    }

    fn threads(&self) -> Result<Vec<Thread>> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.server.pid()))?;
        let thread =
            |task: std::io::Result<fs::DirEntry>| Thread::read(&fs::read_to_string(task?.path().join("status"))?);
        tasks.map(thread).collect()
    }
}

/// What `/proc` says of a thread.
#[derive(Debug, PartialEq, Eq)]
struct Thread {
    /// `S`: it sleeps; `T`: it is stopped; `R`: it runs or would.
    state: char,
    switches: u64,
}

impl Thread {
    fn read(status: &str) -> Result<Thread> {
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let state = field("State:").and_then(|state| state.chars().next());
        let switches = field("voluntary_ctxt_switches:").and_then(|count| count.parse().ok());
        let (state, switches) = state.zip(switches).ok_or("no state in /proc")?;
        Ok(Thread { state, switches })
    }
}

/// Connections to a server that are used together.
pub(crate) struct Batch {
    connections: Vec<TcpStream>,
    /// Messages sent on each.
    sent: Vec<u64>,
}

impl Batch {
    /// Connects.
    pub(crate) fn connect(server: &Paced, count: usize) -> Result<Batch> {
        let connect = |_| -> Result<TcpStream> {
            let connection = TcpStream::connect(server.addr())?;
            connection.set_nodelay(true)?;
            connection.set_read_timeout(Some(PATIENCE))?;
            Ok(connection)
        };
        Ok(Batch { connections: (0..count).map(connect).collect::<Result<_>>()?, sent: vec![0; count] })
    }

    /// Connects, and has each connection answer once.
    pub(crate) fn open(server: &Paced, count: usize) -> Result<Batch> {
        let mut batch = Batch::connect(server, count)?;
        batch.send()?;
        batch.receive()?;
        Ok(batch)
    }

    /// Sends a message on each.
    pub(crate) fn send(&mut self) -> Result<()> {
        (0..self.connections.len()).try_for_each(|index| self.send_on(index))
    }

    /// Receives each one's message again.
    pub(crate) fn receive(&mut self) -> Result<()> {
        (0..self.connections.len()).try_for_each(|index| self.receive_on(index, index))
    }

    /// Sends a message on one.
    pub(crate) fn send_on(&mut self, index: usize) -> Result<()> {
        self.sent[index] += 1;
        let message = self.message(index);
        Ok(self.connections[index].write_all(&message)?)
    }

    /// Receives, on one, the message last sent on `from`.
    pub(crate) fn receive_on(&mut self, index: usize, from: usize) -> Result<()> {
        let mut message = [0; SIZE];
        self.connections[index].read_exact(&mut message)?;
        match message == self.message(from) {
            true => Ok(()),
            false => Err(format!("connection {index}: what came is not what was sent").into()),
        }
    }

    /// What was last sent on a connection: different from all else that was sent.
    fn message(&self, index: usize) -> [u8; SIZE] {
        let mut message = [index as u8; SIZE];
        message[..8].copy_from_slice(&self.sent[index].to_le_bytes());
        message
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_read_from_its_status() {
        let status = "Name:\tx\nState:\tS (sleeping)\nvoluntary_ctxt_switches:\t7\nnonvoluntary_ctxt_switches:\t5\n";
        assert_eq!(Thread::read(status).unwrap(), Thread { state: 'S', switches: 7 });
        assert!(Thread::read("State:\tS\n").is_err());
    }
}
