//! The server and the load as child processes, and what `/proc` tells of them.
//!
//! Both are killed when their value here is dropped, and by the kernel when `measure` itself dies.

use crate::Result;
use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};
use rustix::thread::{CpuSet, sched_setaffinity};
use serde_json::Value;
use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

/// How long a child may take to answer: callgrind needs seconds to start.
const PATIENCE: Duration = Duration::from_secs(60);

/// Confines the calling thread, and what it starts from now on, to one CPU.
///
/// # Errors
/// When the machine has no such CPU.
pub fn pin_this_thread(cpu: usize) -> io::Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu);
    Ok(sched_setaffinity(None, &set)?)
}

/// Starts `command`, on one CPU if asked, to be killed when this process dies.
fn start(command: &[String], cpu: Option<usize>, stdin: Stdio) -> Result<Child> {
    let mut starting = Command::new(&command[0]);
    starting.args(&command[1..]).stdin(stdin).stdout(Stdio::piped());
    let prepare = move || {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        cpu.map_or(Ok(()), pin_this_thread)
    };
    // SAFETY: between fork and exec it makes two system calls; it neither allocates nor locks.
    unsafe { starting.pre_exec(prepare) };
    starting.spawn().map_err(|e| format!("{}: {e}", command[0]).into())
}

/// A child's stdout, line by line, read by a thread so that waiting for a line can end.
struct Lines(Receiver<String>);

impl Lines {
    fn of(stdout: ChildStdout) -> Lines {
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(io::Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Lines(receiver)
    }

    fn next(&self, who: &str, patience: Duration) -> Result<String> {
        self.0.recv_timeout(patience).map_err(|e| format!("the {who} printed no further line: {e}").into())
    }
}

/// A server that listens.
#[expect(missing_debug_implementations, reason = "a process, not a value")]
pub struct Server {
    child: Child,
    addr: SocketAddr,
    _lines: Lines,
}

impl Server {
    /// Starts `command` and waits until it has printed `listening ADDRESS`.
    ///
    /// # Errors
    /// When it cannot be started, or prints something else, or nothing for a minute.
    pub fn start(command: &[String], cpu: Option<usize>) -> Result<Server> {
        let mut child = start(command, cpu, Stdio::null())?;
        let lines = Lines::of(child.stdout.take().expect("stdout is piped"));
        let line = lines.next("server", PATIENCE);
        let mut server = Server { child, addr: SocketAddr::from(([0; 4], 0)), _lines: lines };
        let line = line?; // Not before there is a value whose drop ends the child.
        let addr = line.strip_prefix("listening ").and_then(|addr| addr.parse().ok());
        server.addr = addr.ok_or(format!("the server printed {line:?}, not `listening ADDRESS`"))?;
        Ok(server)
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The process that was started: under a wrapper that forks, the wrapper.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends SIGTERM to the server itself, and waits until the process that was started has ended.
    ///
    /// # Errors
    /// When it still runs after a minute.
    pub fn terminate(mut self) -> Result<()> {
        self.signal(Signal::TERM);
        let deadline = Instant::now() + PATIENCE;
        while self.child.try_wait()?.is_none() {
            if Instant::now() > deadline {
                return Err("the server does not end on SIGTERM".into());
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Signals the child, or its own child if it has one: strace has, valgrind has not.
    fn signal(&self, signal: Signal) {
        let own = self.child.id();
        let children = fs::read_to_string(format!("/proc/{own}/task/{own}/children"));
        let inner = children.ok().and_then(|list| list.split_whitespace().next()?.parse().ok());
        if let Some(pid) = Pid::from_raw(inner.unwrap_or(own as i32)) {
            let _ = kill_process(pid, signal); // It may have ended by itself.
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            self.signal(Signal::KILL);
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// The load generator, with its connections open.
#[expect(missing_debug_implementations, reason = "a process, not a value")]
pub struct Load {
    child: Child,
    lines: Lines,
    patience: Duration,
}

impl Load {
    /// Starts `program` and waits for its first line: everything is open, and warm if so asked.
    ///
    /// # Errors
    /// When the program cannot be started or gives up; it says why on stderr.
    pub fn start(program: &Path, arguments: &[String], cpu: Option<usize>) -> Result<Load> {
        let mut command = vec![program.display().to_string()];
        command.extend_from_slice(arguments);
        let mut child = start(&command, cpu, Stdio::piped())?;
        let lines = Lines::of(child.stdout.take().expect("stdout is piped"));
        let load = Load { child, lines, patience: Duration::from_secs(600) };
        load.lines.next("load", load.patience)?;
        Ok(load)
    }

    /// One measured run (of a load started with `--gate`), and what it reports.
    ///
    /// Nothing is under way before it and after it, and the connections stay open.
    ///
    /// # Errors
    /// When the load gives up: a wrong byte, a closed connection, no progress.
    pub fn run_once(&mut self) -> Result<Value> {
        self.child.stdin.as_mut().expect("stdin is piped").write_all(b"\n")?;
        Ok(serde_json::from_str(&self.lines.next("load", self.patience)?)?)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a process has used up to now, by all its present threads.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    /// Nanoseconds on a CPU, user and kernel: exact, unlike the ticks of `/proc/PID/stat`.
    pub cpu_ns: u64,
    /// Context switches, voluntary or not.
    pub switches: u64,
}

impl Usage {
    /// Reads them; most useful while the process waits, for the kernel accounts at switches and ticks.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn of(pid: u32) -> Result<Usage> {
        let mut usage = Usage { cpu_ns: 0, switches: 0 };
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            let task = task?.path();
            let schedstat = fs::read_to_string(task.join("schedstat"))?;
            usage.cpu_ns += schedstat.split(' ').next().unwrap_or_default().parse::<u64>()?;
            let status = fs::read_to_string(task.join("status"))?;
            usage.switches += field(&status, "voluntary_ctxt_switches:")?;
            usage.switches += field(&status, "nonvoluntary_ctxt_switches:")?;
        }
        Ok(usage)
    }
}

/// What a process holds in memory.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// Bytes of pages present: `Rss` of `smaps_rollup`, which unlike `VmRSS` counts them one by one.
    pub resident: u64,
    /// Bytes of page tables.
    pub page_tables: u64,
}

impl Memory {
    /// Reads both.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn of(pid: u32) -> Result<Memory> {
        let maps = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        Ok(Memory { resident: field(&maps, "Rss:")? * 1024, page_tables: field(&status, "VmPTE:")? * 1024 })
    }
}

/// The number after `name` in a file of lines like `VmPTE:      44 kB`.
fn field(text: &str, name: &str) -> Result<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name));
    let number = rest.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    number.ok_or_else(|| format!("no {name} in /proc").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_found_by_its_whole_name() {
        let status = "nonvoluntary_ctxt_switches:\t7\nvoluntary_ctxt_switches:\t5\nVmPTE:\t  44 kB\n";
        assert_eq!(field(status, "voluntary_ctxt_switches:").unwrap(), 5);
        assert_eq!(field(status, "VmPTE:").unwrap(), 44);
        assert!(field(status, "VmRSS:").is_err());
    }
}
