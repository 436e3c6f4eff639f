//! Runs the works inside one process, by turns, and prints what they cost: see `bench/inproc`.
//!
//! What needs one worker runs on one CPU, the last one; what needs two is not pinned. Each round starts each peer anew.
//! Where others use that CPU too, time tells little: the CPU time beside it leaves out what they took.
//! The work `parked` is measured from outside, before its tasks are spawned and while they all wait.

use clap::{Parser, ValueEnum};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::env;
use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;
use towpath_bench::Result;
use towpath_bench::figures::circumstances;
use towpath_bench::process::{Memory, Usage, pin_this_thread};

/// How long a program may take for a line.
const PATIENCE: Duration = Duration::from_secs(120);

#[derive(Parser)]
#[command(about = "What tasks cost inside one process")]
struct Cli {
    /// What to measure; everything if nothing is named
    #[arg(long = "work")]
    works: Vec<Work>,
    /// Whom to measure; everybody if nobody is named
    #[arg(long = "peer")]
    peers: Vec<Peer>,
    /// Times each is run
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Tasks parked at once, where a peer can have so many
    #[arg(long, default_value_t = 1_000_000)]
    tasks: usize,
    /// One round, and a tenth of the tasks
    #[arg(long, conflicts_with_all = ["rounds", "tasks"])]
    quick: bool,
    /// Append JSON lines to inproc.jsonl in this directory
    #[arg(long)]
    results: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Work {
    Spawn,
    Yield,
    Hop,
    HopTimeout,
    RoundTrip,
    Parked,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Peer {
    Towpath,
    #[value(name = "towpath-64k")]
    Towpath64k,
    Tokio,
    May,
    Go,
    Threads,
}

impl Work {
    fn name(self) -> String {
        self.to_possible_value().expect("no work is hidden").get_name().into()
    }

    /// Its rows of the table: the figure's name in JSON lines, what the table says, and the digits after the point.
    fn rows(self) -> &'static [(&'static str, &'static str, usize)] {
        match self {
            Work::Spawn => &[("ns", "spawn and join, ns", 0), ("cpu_ns", "  CPU time, ns", 0)],
            Work::Yield => &[("ns", "yield, ns", 0), ("cpu_ns", "  CPU time, ns", 0)],
            Work::Hop => &[("ns", "channel hop, ns", 0), ("cpu_ns", "  CPU time, ns", 0)],
            Work::HopTimeout => &[("ns", "hop with timeout, ns", 0), ("cpu_ns", "  CPU time, ns", 0)],
            Work::RoundTrip => &[("ns", "to another worker and back, ns", 0), ("cpu_ns", "  CPU time, ns", 0)],
            Work::Parked => &[
                ("tasks", "parked tasks", 0),
                ("bytes_per_task", "bytes each", 0),
                ("megabytes", "all memory, MB", 0),
                ("page_table_megabytes", "page tables of that, MB", 0),
                ("maps", "lines of maps", 0),
                ("spawn_seconds", "until all are parked, s", 2),
                ("spawn_cpu_seconds", "  CPU time, s", 2),
                ("join_seconds", "until all are joined, s", 2),
            ],
        }
    }
}

impl Peer {
    fn name(self) -> String {
        self.to_possible_value().expect("no peer is hidden").get_name().into()
    }

    fn program(self) -> Result<PathBuf> {
        let name = match self {
            Peer::Towpath64k => Peer::Towpath.name(),
            _ => self.name(),
        };
        Ok(env::current_exe()?.with_file_name(format!("inproc_{name}")))
    }

    fn has(self, work: Work) -> bool {
        match self {
            Peer::Towpath64k => work == Work::Parked, // nothing else depends on the size of a stack
            Peer::May => work != Work::RoundTrip,     // a coroutine runs on the worker of who wakes it
            _ => true,
        }
    }

    /// The most tasks at once with the kernel's default settings. Of vm.max_map_count's 65,530 mappings, a
    /// coroutine of may's takes two (its stack and the guard) and a thread four (it has a stack for signals as well).
    fn most_tasks(self) -> usize {
        match self {
            Peer::May => 30_000,
            Peer::Threads => 10_000,
            _ => usize::MAX,
        }
    }
}

fn main() -> Result<()> {
    let mut cli = Cli::parse();
    if cli.quick {
        (cli.rounds, cli.tasks) = (1, cli.tasks / 10);
    }
    let named = |peers: &[Peer]| if peers.is_empty() { Peer::value_variants().to_vec() } else { peers.to_vec() };
    let (peers, missing): (Vec<_>, Vec<_>) =
        named(&cli.peers).into_iter().partition(|peer| peer.program().is_ok_and(|program| program.exists()));
    let works = if cli.works.is_empty() { Work::value_variants() } else { &cli.works };

    let mut lines = vec![vec![String::new()]];
    lines[0].extend(peers.iter().map(|peer| peer.name()));
    for work in works {
        let rounds = rounds(&cli, *work, &peers)?;
        if let Some(directory) = &cli.results {
            record(directory, *work, &peers, &rounds)?;
        }
        for (figure, shown, digits) in work.rows() {
            let cell = |rounds: &Vec<Round>| best(rounds, figure).map_or("–".into(), |best| cell(best, *digits));
            lines.push([shown.to_string()].into_iter().chain(rounds.iter().map(cell)).collect());
        }
    }
    println!("{}", aligned(&lines));
    println!("The best of {} rounds; ± is how far the worst one is from it.", cli.rounds);
    for peer in missing {
        println!("Not there, so left out: {}.", peer.name());
    }
    Ok(())
}

/// The figures of one run, by name.
type Round = BTreeMap<&'static str, f64>;

/// All rounds of each peer, which take turns.
fn rounds(cli: &Cli, work: Work, peers: &[Peer]) -> Result<Vec<Vec<Round>>> {
    let mut all = vec![Vec::new(); peers.len()];
    for _ in 0..cli.rounds {
        for (peer, rounds) in peers.iter().zip(&mut all).filter(|(peer, _)| peer.has(work)) {
            let round = match work {
                Work::Parked => parked(*peer, cli.tasks.min(peer.most_tasks())),
                _ => timed(*peer, work),
            };
            rounds.push(round.map_err(|e| format!("{}, {}: {e}", peer.name(), work.name()))?);
        }
    }
    Ok(all)
}

fn timed(peer: Peer, work: Work) -> Result<Round> {
    let mut program = Program::start(peer, &[&work.name()], work != Work::RoundTrip)?;
    let line = program.line()?;
    program.end()?;
    Ok(Round::from([("ns", number(&line, "ns")?), ("cpu_ns", number(&line, "cpu_ns")?)]))
}

fn parked(peer: Peer, tasks: usize) -> Result<Round> {
    let mut program = Program::start(peer, &["parked", &tasks.to_string()], true)?;
    let pid = program.child.id();
    program.line()?; // `ready`
    let (before, cpu_before) = (Memory::of(pid)?, Usage::of(pid)?.cpu_ns);
    program.go_on()?;
    let spawn_seconds = number(&program.line()?, "spawn_seconds")?;
    let after = Memory::of(pid)?;
    let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?.lines().count();
    let cpu_ns = Usage::of(pid)?.cpu_ns - cpu_before;
    program.go_on()?;
    let join_seconds = number(&program.line()?, "join_seconds")?;
    program.end()?;
    let bytes = |memory: Memory| (memory.resident + memory.page_tables) as f64;
    Ok(Round::from([
        ("tasks", tasks as f64),
        ("bytes_per_task", (bytes(after) - bytes(before)) / tasks as f64),
        ("megabytes", bytes(after) / 1e6),
        ("page_table_megabytes", after.page_tables as f64 / 1e6),
        ("maps", maps as f64),
        ("spawn_seconds", spawn_seconds),
        ("join_seconds", join_seconds),
        ("spawn_cpu_seconds", cpu_ns as f64 / 1e9),
    ]))
}

/// A peer's program, doing one work. It is killed when this is dropped.
struct Program {
    child: Child,
    stdin: ChildStdin,
    /// What it prints, read by a thread so that waiting for a line can end.
    lines: Receiver<String>,
}

impl Program {
    /// Starts it: on the last CPU alone, or wherever it likes.
    fn start(peer: Peer, arguments: &[&str], pinned: bool) -> Result<Program> {
        let mut command = Command::new(peer.program()?);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        if peer == Peer::Towpath64k {
            command.env("TOWPATH_STACK", "64K");
        }
        let last_cpu = thread::available_parallelism()?.get() - 1;
        // Started from a thread that is pinned itself, for a child inherits that.
        let start = move || {
            if pinned {
                pin_this_thread(last_cpu)?;
            }
            command.spawn()
        };
        let mut child = thread::spawn(start).join().expect("it does not panic")?;
        let stdin = child.stdin.take().expect("it is piped");
        let stdout = BufReader::new(child.stdout.take().expect("it is piped"));
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || stdout.lines().map_while(std::io::Result::ok).try_for_each(|line| sender.send(line)));
        Ok(Program { child, stdin, lines })
    }

    fn line(&mut self) -> Result<String> {
        self.lines.recv_timeout(PATIENCE).map_err(|e| format!("it printed no further line: {e}").into())
    }

    fn go_on(&mut self) -> Result<()> {
        Ok(self.stdin.write_all(b"\n")?)
    }

    fn end(mut self) -> Result<()> {
        let status = self.child.wait()?;
        if status.success() { Ok(()) } else { Err(status.to_string().into()) }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill(); // It may have ended by itself.
        let _ = self.child.wait();
    }
}

fn number(line: &str, name: &str) -> Result<f64> {
    let value: Value = serde_json::from_str(line)?;
    value[name].as_f64().ok_or_else(|| format!("no {name} in {line}").into())
}

/// The lowest of the rounds, and how far the highest is above it, as a fraction.
fn best(rounds: &[Round], figure: &str) -> Option<(f64, f64)> {
    let values = || rounds.iter().filter_map(|round| round.get(figure).copied());
    let (low, high) = (values().reduce(f64::min)?, values().reduce(f64::max)?);
    Some((low, if low == 0.0 { 0.0 } else { high / low - 1.0 }))
}

fn cell((value, spread): (f64, f64), digits: usize) -> String {
    let shown = format!("{value:.digits$}");
    if spread < 0.005 { shown } else { format!("{shown} ±{:.0}%", spread * 100.0) }
}

fn aligned(lines: &[Vec<String>]) -> String {
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max();
    let widths: Vec<_> = (0..lines[0].len()).filter_map(width).collect();
    let mut text = String::new();
    for line in lines {
        text += &format!("{:1$}", line[0], widths[0]);
        for (cell, width) in line.iter().zip(&widths).skip(1) {
            text += &format!("  {cell:>width$}");
        }
        text.push('\n');
    }
    text
}

/// Appends a JSON line for each peer: the machine, the date, every round.
fn record(directory: &Path, work: Work, peers: &[Peer], rounds: &[Vec<Round>]) -> Result<()> {
    fs::create_dir_all(directory)?;
    let path = directory.join("inproc.jsonl");
    let mut file = OpenOptions::new().create(true).append(true).open(&path)?;
    let context = circumstances();
    for (peer, rounds) in peers.iter().zip(rounds).filter(|(_, rounds)| !rounds.is_empty()) {
        let mut line = json!({ "work": work.name() });
        for (name, value) in context.as_object().expect("an object") {
            line[name] = value.clone();
        }
        line["peer"] = json!(peer.name());
        for (figure, _, _) in work.rows() {
            if let Some((value, spread)) = best(rounds, figure) {
                line["best"][figure] = json!(rounded(value));
                line["spread"][figure] = json!(rounded(spread));
            }
        }
        let rounded = |round: &Round| round.iter().map(|(name, value)| (*name, rounded(*value))).collect();
        line["rounds"] = json!(rounds.iter().map(rounded).collect::<Vec<BTreeMap<_, _>>>());
        writeln!(file, "{line}")?;
    }
    Ok(())
}

/// To four digits after the point.
fn rounded(value: f64) -> f64 {
    (value * 1e4).round() / 1e4
}
