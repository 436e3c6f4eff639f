//! Runs servers under one load, by turns, and prints what they cost.
//!
//! Each round starts each server anew, so that a slow spell of the machine meets all of them; how long a cache line
//! takes between CPUs is measured before and after, and rounds of another spell than most are left out. Figures come
//! from outside the server: see `towpath_bench`. JSON lines go to the files of `--results`, if it is given.

mod available;
mod round;
mod servers;
mod strace;
mod works;

use available::Available;
use clap::Parser;
use round::Setting;
use serde_json::{Value, json};
use servers::Named;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use towpath_bench::Result;
use towpath_bench::figures::{Round, Row, circumstances, columns, rank, round_as_json, table};
use towpath_bench::spell::{Spell, crossing_ns, in_title, majority};
use works::Work;

#[derive(Parser)]
#[command(about = "Runs servers under one load, by turns, and prints what they cost")]
struct Cli {
    /// echo, large, open, pipeline, shared, churn, bulk, proxy or idle; all of them if none is named
    works: Vec<String>,
    /// NAME=COMMAND, again for each, instead of those that are built here; programs are looked for beside this one first
    #[arg(long = "server", value_parser = servers::parse)]
    servers: Vec<Named>,
    /// Only works with so many connections
    #[arg(long, value_delimiter = ',')]
    conns: Vec<u32>,
    /// Times each server is run; once more where rounds had to be left out
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Length of a measured run
    #[arg(long, default_value_t = 0.6)]
    seconds: f64,
    /// Seconds of the same before anything is counted
    #[arg(long, default_value_t = 0.2)]
    warmup: f64,
    /// Requests per second in the open loop
    #[arg(long, default_value_t = 20_000.0)]
    rate: f64,
    /// Leave out what is counted under a wrapper, which takes seconds for each server
    #[arg(long)]
    no_wrappers: bool,
    /// CPU of a server with one worker
    #[arg(long, default_value_t = 1)]
    server_cpu: usize,
    /// CPU of the load beside it
    #[arg(long, default_value_t = 0)]
    load_cpu: usize,
    /// Append JSON lines to WORK.jsonl in this directory
    #[arg(long)]
    results: Option<PathBuf>,
    /// Print the system calls that the epoll loop makes for three requests, and nothing else
    #[arg(long)]
    strace: bool,
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    if cli.strace {
        return strace::print();
    }
    let works = works::all(cli.rate);
    if let Some(unknown) = cli.works.iter().find(|name| works.iter().all(|work| work.name != **name)) {
        return Err(format!("there is no work {unknown}; see --help").into());
    }
    let chosen = |work: &&Work| {
        (cli.works.is_empty() || cli.works.iter().any(|name| name == work.name))
            && (cli.conns.is_empty() || cli.conns.contains(&work.connections))
    };
    let mut servers = if cli.servers.is_empty() { servers::all() } else { cli.servers.clone() };
    let mut available = Available::look(cli.no_wrappers);
    for missing in servers.extract_if(.., |server| server.is_missing()) {
        available.notes.push(format!("Missing, because it was not built: {}.", missing.name));
    }
    let run = Run { cli: &cli, about: circumstances(), available, servers };
    for work in works.iter().filter(chosen) {
        run.measure(work)?;
    }
    for note in &run.available.notes {
        println!("{note}");
    }
    Ok(())
}

/// All of one start of this program.
struct Run<'a> {
    cli: &'a Cli,
    about: Value,
    available: Available,
    servers: Vec<Named>,
}

/// A server's rounds in one work.
struct Rounds<'a> {
    server: &'a Named,
    /// What was counted once.
    once: Round,
    rounds: Vec<(Round, Spell)>,
    failed: Option<String>,
}

impl Run<'_> {
    fn measure(&self, work: &Work) -> Result<()> {
        let setting = Setting {
            server_cpu: self.cli.server_cpu,
            load_cpu: self.cli.load_cpu,
            seconds: self.cli.seconds,
            warmup: self.cli.warmup,
            available: &self.available,
        };
        let takes_part = |server: &&Named| server.takes_part(work);
        let of = |server| Rounds { server, once: Round::new(), rounds: Vec::new(), failed: None };
        let mut all: Vec<_> = self.servers.iter().filter(takes_part).map(of).collect();
        // Memory comes out the same each time.
        let planned = if work.name == "idle" { self.cli.rounds.min(2) } else { self.cli.rounds };
        for number in 0..planned {
            for rounds in &mut all {
                if number == 0 {
                    rounds.once = setting.wrapped(work, rounds.server);
                }
                self.round(&setting, work, rounds)?;
            }
        }
        if planned > 1 && work.name != "idle" {
            let counts = counting(&all).1;
            for (rounds, _) in all.iter_mut().zip(counts).filter(|(_, counts)| counts.contains(&false)) {
                self.round(&setting, work, rounds)?;
            }
        }
        self.report(work, &all)
    }

    /// One more round of a server, unless it has failed before.
    fn round(&self, setting: &Setting<'_>, work: &Work, rounds: &mut Rounds<'_>) -> Result<()> {
        if rounds.failed.is_some() {
            return Ok(());
        }
        let cpus = [self.cli.load_cpu, self.cli.server_cpu];
        let before = crossing_ns(cpus)?;
        let figures = match work.name {
            "idle" => setting.idle(work, rounds.server),
            _ => setting.requests(work, rounds.server),
        };
        let spell = Spell { before, after: crossing_ns(cpus)? };
        match figures {
            Ok(figures) => rounds.rounds.push((figures, spell)),
            Err(e) => {
                eprintln!("{}: {}: {e}", work.title, rounds.server.name);
                rounds.failed = Some(e.to_string());
            }
        }
        Ok(())
    }

    fn report(&self, work: &Work, all: &[Rounds<'_>]) -> Result<()> {
        let figures = columns(work.name);
        let placement = match work.workers {
            1 => format!("one worker on CPU {}, load on CPU {}", self.cli.server_cpu, self.cli.load_cpu),
            workers => format!("{workers} workers, load beside them"),
        };
        let (crossing, counts) = counting(all);
        let title = format!("{}; {placement}", work.title);
        let mut rows = Vec::new();
        for (rounds, counts) in all.iter().zip(counts) {
            let mut counted: Vec<_> = rounds.rounds.iter().zip(&counts).filter(|(_, counts)| **counts).collect();
            if counted.is_empty() {
                counted = rounds.rounds.iter().zip(&counts).collect(); // Better than nothing; the line says so.
            }
            let counted = counted.iter().map(|((round, _), _)| round);
            let row = Row::new(
                &rounds.server.name,
                rounds.server.limit,
                &counted.chain([&rounds.once]).collect::<Vec<_>>(),
                figures,
            );
            if let Some(directory) = &self.cli.results {
                let mut line = json!({ "work": work.name, "title": title });
                line.as_object_mut().expect("an object").extend(self.about.as_object().expect("an object").clone());
                line["connections"] = json!(work.connections);
                line["workers"] = json!(work.workers);
                line["seconds"] = json!(self.cli.seconds);
                line["command"] = json!(servers::shown(&rounds.server.command(work)));
                line["crossing_ns"] = json!(crossing.round());
                row.add_to(&mut line);
                let as_json = |((round, spell), counts): (&(Round, Spell), &bool)| {
                    let mut round = round_as_json(round);
                    round["crossing_ns"] = spell.as_json();
                    round["counts"] = json!(counts);
                    round
                };
                line["rounds"] = rounds.rounds.iter().zip(&counts).map(as_json).collect();
                line["failed"] = json!(rounds.failed);
                line["notes"] = json!(self.available.notes);
                append(directory, work.name, &line)?;
            }
            rows.push(row);
        }
        rank(&mut rows);
        println!("{}", table(&(title + &in_title(Some(crossing))), &rows, figures));
        Ok(())
    }
}

/// The spell of most rounds, and for each server which of its rounds were in it.
fn counting(all: &[Rounds<'_>]) -> (f64, Vec<Vec<bool>>) {
    let spells: Vec<_> = all.iter().flat_map(|rounds| &rounds.rounds).map(|(_, spell)| *spell).collect();
    let (crossing, counts) = majority(&spells);
    let mut counts = counts.into_iter();
    (crossing, all.iter().map(|rounds| counts.by_ref().take(rounds.rounds.len()).collect()).collect())
}

fn append(directory: &Path, work: &str, line: &Value) -> Result<()> {
    fs::create_dir_all(directory)?;
    let path = directory.join(work).with_extension("jsonl");
    let file = OpenOptions::new().create(true).append(true).open(&path);
    Ok(writeln!(file.map_err(|e| format!("{}: {e}", path.display()))?, "{line}")?)
}
