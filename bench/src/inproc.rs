//! What the programs with works inside one process share: their arguments, and what they print.
//!
//! A program does one work and prints JSON lines. A work that is timed prints one, `{"ns": 12.3, "cpu_ns": 12.2,
//! "operations": 400000}`: an operation's time, and what the process used of a CPU.
//! The work `parked` is watched from outside while it stands still: it prints `ready`, spawns when a line arrives, prints
//! `{"spawn_seconds": 0.5}` once all tasks wait, and when the next line arrives, or the end of its input, wakes them,
//! joins them all, and prints `{"join_seconds": 0.4}`. `go/inproc` does the same.

use crate::Result;
use clap::{Parser, Subcommand};
use rustix::time::{ClockId, clock_gettime};
use serde_json::json;
use std::fmt::Display;
use std::io::{self, Write};
use std::time::{Duration, Instant};

/// A measured run takes at least so long.
const LONG_ENOUGH: Duration = Duration::from_millis(250);
/// A timeout that never fires.
pub const NEVER: Duration = Duration::from_secs(3600);

/// One work of one program.
#[derive(Debug, Parser)]
pub struct Args {
    /// What to do
    #[command(subcommand)]
    pub work: Work,
}

/// What there is to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Subcommand)]
pub enum Work {
    /// A task spawned and joined, on one worker
    Spawn,
    /// Two tasks that yield by turns, on one worker: per yield
    Yield,
    /// A message from one task to another through a channel that holds nothing, on one worker
    Hop,
    /// The same, with a timeout on each receive that does not fire
    HopTimeout,
    /// A message to a task on another worker, and one back
    RoundTrip,
    /// Many tasks that wait at once
    Parked {
        /// How many
        tasks: usize,
        /// On so many workers
        #[arg(default_value_t = 1)]
        workers: usize,
    },
}

impl Work {
    /// The workers that it needs.
    pub fn workers(self) -> usize {
        match self {
            Work::Parked { workers, .. } => workers,
            Work::RoundTrip => 2,
            _ => 1,
        }
    }
}

/// Times `run`, which does as many operations as it is told, and prints how long each took. It does more of them each
/// time, until it takes long enough; all but the last serve to warm up.
///
/// # Errors
/// When nobody reads what is printed.
pub fn timed(mut run: impl FnMut(u64)) -> Result<()> {
    let mut operations = 1000;
    loop {
        let (start, cpu_start) = (Instant::now(), cpu_time());
        run(operations);
        let (took, cpu) = (start.elapsed(), cpu_time() - cpu_start);
        if took >= LONG_ENOUGH {
            let each = |all: Duration| all.as_nanos() as f64 / operations as f64;
            return say(json!({ "ns": each(took), "cpu_ns": each(cpu), "operations": operations }));
        }
        operations *= 2;
    }
}

/// Spawns tasks that wait, and joins them: see above. `spawn` returns when all wait, with what `join` needs.
///
/// # Errors
/// When nobody reads what is printed.
pub fn parked<T>(spawn: impl FnOnce() -> T, join: impl FnOnce(T)) -> Result<()> {
    say("ready")?;
    wait_for_line()?;
    let start = Instant::now();
    let spawned = spawn();
    say(json!({ "spawn_seconds": start.elapsed().as_secs_f64() }))?;
    wait_for_line()?;
    let start = Instant::now();
    join(spawned);
    say(json!({ "join_seconds": start.elapsed().as_secs_f64() }))
}

/// What all threads of this process have used of CPUs.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn say(line: impl Display) -> Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

fn wait_for_line() -> Result<()> {
    io::stdin().read_line(&mut String::new())?;
    Ok(())
}
