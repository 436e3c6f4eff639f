//! Counting under a wrapper what the kernel's counters do not offer: slow, but the same for every server.
//!
//! The server runs under valgrind's callgrind (instructions in user space) or strace (system calls), and answers a
//! fixed number of requests; then another one answers more of them. What the second counted above the first,
//! divided by the requests it answered above the first, is the figure: starting, opening and ending drop out.

use crate::Result;
use crate::process::{Load, Server};
use std::path::Path;
use std::process::Command;
use std::{env, fs, process};

/// A program that runs another one and counts.
#[derive(Clone, Copy, Debug)]
pub enum Wrapper {
    /// `valgrind --tool=callgrind`: instructions in user space.
    Callgrind,
    /// `strace -f -c`: system calls.
    Strace,
}

impl Wrapper {
    /// Whether the program is installed.
    pub fn is_installed(self) -> bool {
        let program = match self {
            Wrapper::Callgrind => "valgrind",
            Wrapper::Strace => "strace",
        };
        Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success())
    }

    fn command(self, out: &Path) -> Vec<String> {
        let out = out.display();
        let command = match self {
            Wrapper::Callgrind => {
                format!("valgrind --quiet --max-threads=2000 --tool=callgrind --callgrind-out-file={out}")
            }
            Wrapper::Strace => format!("strace --quiet=all -f -c -o {out}"),
        };
        command.split(' ').map(String::from).collect()
    }

    /// The count in what the wrapper wrote.
    fn count(self, report: &str) -> Option<u64> {
        match self {
            // `totals: 123`
            Wrapper::Callgrind => report.lines().find_map(|line| line.strip_prefix("totals: "))?.trim().parse().ok(),
            // `100.00    0.016263           4      3715        12 total`
            Wrapper::Strace => {
                let line = report.lines().find(|line| line.ends_with(" total"))?;
                line.split_whitespace().nth(3)?.parse().ok()
            }
        }
    }
}

/// What the wrapper counts per request of `load`, a program with its arguments, at `server`: from how `many` requests
/// cost more than `few`.
///
/// # Errors
/// When the server does not run under the wrapper, or the load gives up.
pub fn per_request(
    wrapper: Wrapper,
    server: &[String],
    load: (&Path, &[String]),
    (few, many): (u64, u64),
) -> Result<f64> {
    let count = |requests: u64| -> Result<u64> {
        let out = env::temp_dir().join(format!("towpath-bench.{}.{requests}", process::id()));
        let mut command = wrapper.command(&out);
        command.extend_from_slice(server);
        let server = Server::start(&command, None)?;
        let own = format!("--addr {} --requests {requests} --gate", server.addr());
        let arguments: Vec<_> = own.split(' ').map(String::from).chain(load.1.iter().cloned()).collect();
        let mut load = Load::start(load.0, &arguments, None)?;
        load.run_once()?;
        server.terminate()?; // While the load still holds its connections: closing is not counted.
        let report = fs::read_to_string(&out)?;
        fs::remove_file(&out)?;
        wrapper.count(&report).ok_or_else(|| format!("no count from {wrapper:?}").into())
    };
    let (low, high) = (count(few)?, count(many)?);
    Ok((high as f64 - low as f64) / (many - few) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_is_found_in_each_report() {
        let callgrind = "events: Ir\nfn=(1) main\n0 7\n\ntotals: 123456\n";
        assert_eq!(Wrapper::Callgrind.count(callgrind), Some(123_456));
        let strace = "% time     seconds  usecs/call     calls    errors syscall\n\
                      100.00    0.016263           4      3715        12 total\n";
        assert_eq!(Wrapper::Strace.count(strace), Some(3715));
        assert_eq!(Wrapper::Strace.count(""), None);
    }
}
