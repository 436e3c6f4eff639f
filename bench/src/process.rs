//! The server and the load as child processes, and what `/proc` tells of them.
//!
//! Both are killed when their value here is dropped, and by the kernel when `measure` itself dies.

use crate::Result;
use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};
use rustix::thread::{CpuSet, sched_setaffinity};
use serde_json::Value;
use std::collections::BTreeMap;
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

/// What a process has used up to now.
#[derive(Clone, Debug)]
pub struct Usage {
    /// Nanoseconds on a CPU, user and kernel, by all threads, also those that have ended.
    pub cpu_ns: u64,
    /// Nanoseconds on a CPU and context switches of each present thread, by its number.
    threads: BTreeMap<String, (u64, u64)>,
}

/// What a process has used between two looks.
#[derive(Clone, Copy, Debug)]
pub struct Used {
    /// Nanoseconds on a CPU, user and kernel, by all threads, also those that have ended.
    pub cpu_ns: u64,
    /// Context switches, voluntary or not; unknown where threads have come or gone.
    pub switches: Option<u64>,
    /// The busiest thread's part of the time of those that are still there.
    pub busiest: f64,
}

impl Usage {
    /// Reads it; most useful while the process waits, for the kernel accounts at switches and ticks.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn of(pid: u32) -> Result<Usage> {
        let mut threads = BTreeMap::new();
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            let task = task?;
            // A thread may end while we look at it.
            let Ok(schedstat) = fs::read_to_string(task.path().join("schedstat")) else { continue };
            let Ok(status) = fs::read_to_string(task.path().join("status")) else { continue };
            let cpu_ns = schedstat.split(' ').next().unwrap_or_default().parse()?;
            let switches = field(&status, "voluntary_ctxt_switches:")? + field(&status, "nonvoluntary_ctxt_switches:")?;
            threads.insert(task.file_name().to_string_lossy().into(), (cpu_ns, switches));
        }
        Ok(Usage { cpu_ns: cpu_time(pid)?, threads })
    }

    /// What was used since an `earlier` look.
    pub fn since(&self, earlier: &Usage) -> Used {
        let pairs = self.threads.iter().filter_map(|(id, now)| Some((*now, *earlier.threads.get(id)?)));
        let pairs: Vec<_> = pairs.map(|(now, then)| (now.0 - then.0, now.1 - then.1)).collect();
        let same = pairs.len() == self.threads.len() && pairs.len() == earlier.threads.len();
        let total: u64 = pairs.iter().map(|pair| pair.0).sum();
        let busiest = pairs.iter().map(|pair| pair.0).max().unwrap_or(0);
        Used {
            cpu_ns: self.cpu_ns - earlier.cpu_ns,
            switches: same.then(|| pairs.iter().map(|pair| pair.1).sum()),
            busiest: busiest as f64 / total.max(1) as f64,
        }
    }
}

/// Nanoseconds on a CPU by all threads of a process that there have been: exact, unlike the ticks of `/proc/PID/stat`.
fn cpu_time(pid: u32) -> io::Result<u64> {
    // How clock_getcpuclockid(3) makes the number: the process's, inverted, and 2 for time as the scheduler sees it.
    let clock = !(pid as libc::clockid_t) << 3 | 2;
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid place for the result and lives through the call.
    if unsafe { libc::clock_gettime(clock, &mut time) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
}

/// What a process holds in memory.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// Bytes of pages present: `Rss` of `smaps_rollup`, which unlike `VmRSS` counts them one by one.
    pub resident: u64,
    /// Bytes of page tables.
    pub page_tables: u64,
    /// How many mappings there are.
    pub mappings: u64,
}

impl Memory {
    /// Reads them.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn of(pid: u32) -> Result<Memory> {
        let maps = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        Ok(Memory {
            resident: field(&maps, "Rss:")? * 1024,
            page_tables: field(&status, "VmPTE:")? * 1024,
            mappings: fs::read_to_string(format!("/proc/{pid}/maps"))?.lines().count() as u64,
        })
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
    fn time_and_threads_are_read_from_a_process() {
        let before = Usage::of(std::process::id()).unwrap();
        let begin = Instant::now();
        // Other programs may have the processor for a while.
        let used = loop {
            let used = Usage::of(std::process::id()).unwrap().since(&before);
            if used.cpu_ns > 1_000_000 || begin.elapsed() > Duration::from_secs(30) {
                break used;
            }
        };
        assert!(used.cpu_ns > 1_000_000, "{used:?}");
        assert!(used.busiest > 0.0 && used.busiest <= 1.0, "{used:?}");
    }

    #[test]
    fn a_field_is_found_by_its_whole_name() {
        let status = "nonvoluntary_ctxt_switches:\t7\nvoluntary_ctxt_switches:\t5\nVmPTE:\t  44 kB\n";
        assert_eq!(field(status, "voluntary_ctxt_switches:").unwrap(), 5);
        assert_eq!(field(status, "VmPTE:").unwrap(), 44);
        assert!(field(status, "VmRSS:").is_err());
    }
}
