//! One work under callgrind: a run with few operations is subtracted from one with many.

use crate::Work;
use crate::paced::{Batch, Paced};
use std::path::Path;
use std::process::Command;
use std::{env, fs, process};
use towpath_bench::Result;
use towpath_bench::process::Server;

/// Connections of an echo and of a batch of churn.
const CONNECTIONS: usize = 64;

/// Instructions per operation of `work`: towpath's, or the raw loop's.
pub(crate) fn per_operation(work: Work, raw: bool) -> Result<f64> {
    let (few, many) = match work {
        // Rounds, of 64 operations each.
        Work::Echo => (5, 45),
        Work::Churn => (5, 25),
        Work::Shared | Work::Wake => (200, 1_200),
        Work::Spawn | Work::Yield | Work::Hop => (2_000, 22_000),
    };
    let each = if matches!(work, Work::Echo | Work::Churn) { CONNECTIONS } else { 1 };
    let counted = |times| run(work, raw, times).map_err(|e| format!("{}: {e}", work.name()));
    let (low, high) = (counted(few)?, counted(many)?);
    Ok((high as f64 - low as f64) / ((many - few) * each) as f64)
}

/// Instructions of a whole run.
fn run(work: Work, raw: bool, times: usize) -> Result<u64> {
    let out = env::temp_dir().join(format!("towpath-gate.{}.{}.{times}", process::id(), work.name()));
    let program = match (work, raw) {
        (Work::Echo | Work::Churn, false) => "towpath_echo",
        (Work::Echo | Work::Churn, true) => "raw_epoll",
        _ => "gate_towpath",
    };
    let mut command = wrapped(program, &out)?;
    match work {
        Work::Echo => paced(&command, |server| {
            let mut batch = Batch::open(server, CONNECTIONS)?;
            (0..times).try_for_each(|_| server.while_stopped(|| batch.send()).and_then(|()| batch.receive()))?;
            Ok(batch)
        }),
        Work::Churn => paced(&command, |server| {
            for _ in 0..times {
                let mut batch = server.while_stopped(|| {
                    let mut batch = Batch::connect(server, CONNECTIONS)?;
                    batch.send()?;
                    Ok(batch)
                })?;
                batch.receive()?;
                server.while_stopped(|| {
                    drop(batch);
                    Ok(())
                })?;
            }
            Ok(())
        }),
        Work::Shared | Work::Wake => {
            command.push(work.name());
            paced(&command, |server| {
                let mut pair = Batch::connect(server, 2)?;
                for time in 0..times {
                    server.wait_until_quiet()?;
                    // A message goes in at one connection and comes out at the other; with `shared` both ways.
                    let from = if work == Work::Shared { time % 2 } else { 0 };
                    pair.send_on(from)?;
                    pair.receive_on(1 - from, from)?;
                }
                Ok(pair)
            })
        }
        Work::Spawn | Work::Yield | Work::Hop => {
            command.extend([work.name(), times.to_string()]);
            let output = Command::new(&command[0]).args(&command[1..]).output()?;
            match output.status.success() {
                true => Ok(()),
                false => Err(String::from_utf8_lossy(&output.stderr).into()),
            }
        }
    }?;
    let report = fs::read_to_string(&out)?;
    fs::remove_file(&out)?;
    // `totals: 123`
    let total = report.lines().find_map(|line| line.strip_prefix("totals: ")?.trim().parse().ok());
    total.ok_or_else(|| "callgrind reports no total".into())
}

/// The command that runs a program of this directory under callgrind.
fn wrapped(program: &str, out: &Path) -> Result<Vec<String>> {
    let program = env::current_exe()?.with_file_name(program);
    let out = format!("--callgrind-out-file={}", out.display());
    let command = ["valgrind", "--quiet", "--tool=callgrind", "--fair-sched=yes", &out, &program.display().to_string()];
    Ok(command.map(String::from).to_vec())
}

/// Drives a server, and ends it once it is quiet, while `drive`'s connections are still open: closing is not counted.
fn paced<T>(command: &[String], drive: impl FnOnce(&Paced) -> Result<T>) -> Result<()> {
    let server = Paced::new(Server::start(command, None)?);
    let connections = drive(&server)?;
    server.wait_until_quiet()?;
    server.end()?;
    drop(connections);
    Ok(())
}
