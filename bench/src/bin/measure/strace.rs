//! What the epoll loop asks of the kernel for a request, to be seen: one `recv` and one `send`, with one connection a
//! wait for each.

use crate::servers::beside;
use std::{env, fs, process};
use towpath_bench::Result;
use towpath_bench::process::{Load, Server};

/// Prints the system calls of three requests on one connection, under strace.
pub(crate) fn print() -> Result<()> {
    let out = env::temp_dir().join(format!("towpath-bench.{}.strace", process::id()));
    let command = ["strace".into(), "-o".into(), out.display().to_string(), beside("raw_epoll")?.display().to_string()];
    let server = Server::start(&command, None)?;
    let arguments = format!("--addr {} --conns 1 --requests 3 --gate", server.addr());
    let arguments: Vec<_> = arguments.split(' ').map(String::from).collect();
    let mut load = Load::start(&beside("load")?, &arguments, None)?;
    let before = fs::read_to_string(&out)?.len();
    load.run_once()?;
    let calls = fs::read_to_string(&out)?;
    drop((load, server));
    fs::remove_file(&out)?;
    // Whole lines only: from the wait in which the load found it to the last that has returned.
    let first = calls[..before].rfind('\n').map_or(0, |end| end + 1);
    let last = calls.rfind('\n').map_or(calls.len(), |end| end + 1);
    print!("raw_epoll, three echoes of 64 B:\n{}", &calls[first..last]);
    Ok(())
}
