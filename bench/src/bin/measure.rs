//! Runs servers under one load, by turns, and prints what they cost.
//!
//! Each round starts each server anew, so that a slow spell of the machine meets all of them. The server has one
//! CPU and the load another one, unless `--unpinned`. Figures come from outside the server: see
//! `towpath_bench`. JSON lines go to a file of `--results`, else to stdout before the table.

use clap::{Args, Parser, Subcommand};
use serde_json::{Value, json};
use std::env;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;
use towpath_bench::Result;
use towpath_bench::figures::{ECHO, Figure, IDLE, Round, Row, circumstances, table};
use towpath_bench::perf::{Counters, HARDWARE, Kind, system_calls};
use towpath_bench::process::{Load, Memory, Server, Usage};
use towpath_bench::wrapped::{self, Wrapper};

/// Seconds of echoes before anything is counted.
const WARMUP: &str = "0.3";
/// What is measured unless `--server` says otherwise. Ratios are to the first one.
const SERVERS: [&str; 2] = ["raw_epoll=raw_epoll", "towpath=towpath_echo --workers 1"];

#[derive(Parser)]
#[command(about = "Runs servers under one load, by turns, and prints what they cost")]
struct Cli {
    #[command(subcommand)]
    work: Work,
}

#[derive(Subcommand)]
enum Work {
    /// Cost of a request: closed loop of echoes
    Echo {
        /// Connections at once; several numbers make several tables
        #[arg(long, value_delimiter = ',', default_value = "64,1000")]
        conns: Vec<u32>,
        /// Bytes in a message
        #[arg(long, default_value_t = 64)]
        size: u32,
        /// Length of a measured run
        #[arg(long, default_value_t = 2.0)]
        seconds: f64,
        /// Leave out what is counted under a wrapper, which takes seconds for each server
        #[arg(long)]
        no_wrappers: bool,
        #[command(flatten)]
        common: Common,
    },
    /// Memory of a connection that is open and says nothing
    Idle {
        /// Connections at once
        #[arg(long, value_delimiter = ',', default_value = "10000")]
        conns: Vec<u32>,
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Args)]
struct Common {
    /// NAME=COMMAND, again for each; programs are looked for beside this one first
    #[arg(long = "server", value_parser = parse_server, default_values = SERVERS)]
    servers: Vec<Named>,
    /// Times each server is run
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// CPU of the server
    #[arg(long, default_value_t = 1)]
    server_cpu: usize,
    /// CPU of the load
    #[arg(long, default_value_t = 0)]
    load_cpu: usize,
    /// Let both run on every CPU
    #[arg(long)]
    unpinned: bool,
    /// Append JSON lines to WORK.jsonl in this directory
    #[arg(long)]
    results: Option<PathBuf>,
}

#[derive(Clone)]
struct Named {
    name: String,
    command: Vec<String>,
}

fn parse_server(text: &str) -> std::result::Result<Named, &'static str> {
    let (name, command) = text.split_once('=').ok_or("not NAME=COMMAND")?;
    let mut command: Vec<_> = command.split_whitespace().map(String::from).collect();
    let program = command.first_mut().ok_or("not NAME=COMMAND")?;
    if let Ok(here) = beside(program)
        && here.exists()
    {
        *program = here.display().to_string();
    }
    Ok(Named { name: name.into(), command })
}

/// A program in this one's directory.
fn beside(program: &str) -> Result<PathBuf> {
    Ok(env::current_exe()?.with_file_name(program))
}

fn main() -> Result<()> {
    match Cli::parse().work {
        Work::Echo { conns, size, seconds, no_wrappers, common } => {
            let available = Available::look(no_wrappers);
            for conns in conns {
                let title = format!("echo of {size} B × {conns} connections, {}: per request", common.placement());
                let about = json!({ "work": "echo", "connections": conns, "size": size, "seconds": seconds });
                let rows = common.rounds(|server, first| {
                    Echo { conns, size, seconds, available: &available }.round(&common, server, first)
                })?;
                common.report(&title, "echo", &about, &rows, &ECHO)?;
            }
            for note in &available.notes {
                println!("{note}");
            }
        }
        Work::Idle { conns, common } => {
            for conns in conns {
                let title = format!("{conns} idle connections: bytes per connection in the server's process");
                let about = json!({ "work": "idle", "connections": conns });
                let rows = common.rounds(|server, _| idle(&common, server, conns))?;
                common.report(&title, "idle", &about, &rows, &IDLE)?;
            }
        }
    }
    Ok(())
}

impl Common {
    /// All rounds of all servers, by turns: A B A B.
    fn rounds(&self, mut round: impl FnMut(&Named, bool) -> Result<Round>) -> Result<Vec<Row>> {
        let row = |server: &Named| Row { server: server.name.clone(), rounds: Vec::new() };
        let mut rows: Vec<_> = self.servers.iter().map(row).collect();
        for number in 0..self.rounds {
            for (server, row) in self.servers.iter().zip(&mut rows) {
                let figures = round(server, number == 0).map_err(|e| format!("{}: {e}", server.name))?;
                row.rounds.push(figures);
            }
        }
        Ok(rows)
    }

    fn report(&self, title: &str, work: &str, about: &Value, rows: &[Row], figures: &[Figure]) -> Result<()> {
        let mut about = about.clone();
        let context = circumstances();
        for (name, value) in context.as_object().expect("an object") {
            about[name] = value.clone();
        }
        about["placement"] = json!(self.placement());
        for (row, server) in rows.iter().zip(&self.servers) {
            about["command"] = json!(server.shown());
            let line = row.as_json(&about, figures);
            match &self.results {
                None => println!("{line}"),
                Some(directory) => {
                    fs::create_dir_all(directory)?;
                    let path = directory.join(work).with_extension("jsonl");
                    let file = OpenOptions::new().create(true).append(true).open(&path);
                    writeln!(file.map_err(|e| format!("{}: {e}", path.display()))?, "{line}")?;
                }
            }
        }
        println!("{}", table(title, rows, figures));
        Ok(())
    }

    fn placement(&self) -> String {
        match self.unpinned {
            true => "unpinned".into(),
            false => format!("server on CPU {}, load on CPU {}", self.server_cpu, self.load_cpu),
        }
    }

    fn start_server(&self, server: &Named) -> Result<Server> {
        Server::start(&server.command, (!self.unpinned).then_some(self.server_cpu))
    }

    /// The load, once its first line says that its connections are open.
    fn start_load(&self, server: &Server, arguments: &[&str]) -> Result<Load> {
        let addr = server.addr().to_string();
        let arguments: Vec<_> = ["--addr", &addr].iter().chain(arguments).map(|s| s.to_string()).collect();
        Load::start(&beside("load")?, &arguments, (!self.unpinned).then_some(self.load_cpu))
    }
}

impl Named {
    /// The command without the directory of its program.
    fn shown(&self) -> String {
        let program = PathBuf::from(&self.command[0]);
        let mut shown = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        for argument in &self.command[1..] {
            shown = format!("{shown} {argument}");
        }
        shown
    }
}

/// What this machine lets us count, found out once.
struct Available {
    hardware: bool,
    system_calls: Option<Kind>,
    wrappers: Vec<(Wrapper, &'static str)>,
    /// What to know when reading the tables.
    notes: Vec<String>,
}

impl Available {
    fn look(no_wrappers: bool) -> Available {
        let mut found = Available { hardware: true, system_calls: None, wrappers: Vec::new(), notes: Vec::new() };
        if let Err(e) = Counters::open(std::process::id(), &HARDWARE) {
            found.hardware = false;
            let text = "Instructions and cycles are not counted: this machine offers no such counters";
            found.notes.push(format!("{text} (perf_event_open: {e})."));
            let text = "* instructions in user space under callgrind, in a run of its own";
            found.wrap(Wrapper::Callgrind, "callgrind_instructions_user", text, no_wrappers);
        }
        let kind = system_calls().and_then(|kind| Ok((kind, Counters::open(std::process::id(), &[kind])?)));
        match kind {
            Ok((kind, _)) => found.system_calls = Some(kind),
            Err(e) => {
                let text = format!("System calls are counted under strace, in a run of its own ({e})");
                found.wrap(Wrapper::Strace, "system_calls", &text, no_wrappers);
            }
        }
        found
    }

    fn wrap(&mut self, wrapper: Wrapper, figure: &'static str, note: &str, no_wrappers: bool) {
        if no_wrappers {
            self.notes.push(format!("Not counted, because of --no-wrappers: {figure}."));
        } else if wrapper.is_installed() {
            self.wrappers.push((wrapper, figure));
            self.notes.push(format!("{note}."));
        } else {
            self.notes.push(format!("Not counted, for {wrapper:?} is not installed: {figure}."));
        }
    }
}

struct Echo<'a> {
    conns: u32,
    size: u32,
    seconds: f64,
    available: &'a Available,
}

impl Echo<'_> {
    /// One server's round. What runs under a wrapper is counted in the first one only: it repeats within 1 %.
    fn round(&self, common: &Common, named: &Named, first: bool) -> Result<Round> {
        let server = common.start_server(named)?;
        let (conns, size, seconds) = (self.conns.to_string(), self.size.to_string(), self.seconds.to_string());
        let arguments = ["--conns", &conns, "--size", &size, "--seconds", &seconds, "--warmup", WARMUP, "--gate"];
        let mut load = common.start_load(&server, &arguments)?;

        let kinds: &[Kind] = if self.available.hardware { &HARDWARE } else { &[] };
        let before = Usage::of(server.pid())?;
        let (mut figures, report) = counted_run(&server, &mut load, kinds)?;
        let after = Usage::of(server.pid())?;

        let number = |name: &str| report[name].as_f64().ok_or(format!("the load reports no {name}"));
        let requests = number("requests")?;
        figures.insert("cpu_us", (after.cpu_ns - before.cpu_ns) as f64 / 1e3 / requests);
        figures.insert("switches", (after.switches - before.switches) as f64 / requests);
        figures.insert("requests_per_second", requests / number("seconds")?);
        for name in ["p50_us", "p99_us", "p99_9_us", "max_us"] {
            figures.insert(name, number(name)?);
        }
        if let (Some(user), Some(kernel)) = (figures.get("instructions_user"), figures.get("instructions_kernel")) {
            figures.insert("instructions", user + kernel);
        }
        if let Some(kind) = self.available.system_calls {
            figures.extend(counted_run(&server, &mut load, &[kind])?.0);
        }
        drop((load, server));

        for (wrapper, figure) in self.available.wrappers.iter().filter(|_| first) {
            let load = beside("load")?;
            match wrapped::per_request(*wrapper, &named.command, &load, self.conns, self.size) {
                Ok(count) => drop(figures.insert(figure, count)),
                // Not every program runs under them: the other figures are still good.
                Err(e) => eprintln!("{}: not counted: {figure}: {e}", named.name),
            }
        }
        Ok(figures)
    }
}

/// One run of the load with these counters on the server: their counts per request, and the load's report.
fn counted_run(server: &Server, load: &mut Load, kinds: &[Kind]) -> Result<(Round, Value)> {
    let mut counters = Counters::open(server.pid(), kinds)?;
    let before = counters.read()?;
    let report = load.run_once()?;
    let after = counters.read()?;
    let requests = report["requests"].as_f64().ok_or("the load reports no requests")?;
    let counts = before.iter().zip(&after);
    let per_request = counts.map(|((name, before), (_, after))| (*name, (after - before) / requests)).collect();
    Ok((per_request, report))
}

/// One server's memory per connection: with them all, less with one, which has started everything.
fn idle(common: &Common, named: &Named, conns: u32) -> Result<Round> {
    let server = common.start_server(named)?;
    drop(common.start_load(&server, &["--conns", "1", "--idle"])?);
    thread::sleep(Duration::from_millis(200)); // The server notices that it has gone.
    let before = Memory::of(server.pid())?;
    let _load = common.start_load(&server, &["--conns", &conns.to_string(), "--idle"])?;
    let after = Memory::of(server.pid())?;
    let each = |after: u64, before: u64| (after as f64 - before as f64) / f64::from(conns);
    let resident = each(after.resident, before.resident);
    let page_tables = each(after.page_tables, before.page_tables);
    Ok(Round::from([
        ("resident_bytes", resident),
        ("page_table_bytes", page_tables),
        ("memory_bytes", resident + page_tables),
    ]))
}
