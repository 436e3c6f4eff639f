//! One server's round: it is started, loaded, and watched from outside.

use crate::available::Available;
use crate::servers::{Named, beside};
use crate::works::Work;
use serde_json::Value;
use std::thread;
use std::time::Duration;
use towpath_bench::Result;
use towpath_bench::figures::Round;
use towpath_bench::perf::{Counters, HARDWARE, Kind};
use towpath_bench::process::{Load, Memory, Server, Usage};
use towpath_bench::wrapped::{self, Wrapper};

/// Where and for how long.
pub(crate) struct Setting<'a> {
    pub(crate) server_cpu: usize,
    pub(crate) load_cpu: usize,
    pub(crate) seconds: f64,
    pub(crate) warmup: f64,
    pub(crate) available: &'a Available,
}

/// A server, with what it goes to if it is a proxy.
struct Started {
    server: Server,
    _behind: Option<Server>,
}

impl Setting<'_> {
    fn cpu(&self, work: &Work, cpu: usize) -> Option<usize> {
        (work.workers == 1).then_some(cpu)
    }

    /// The server's command; a proxy goes to an echo server that shares the load's CPU.
    fn command(&self, work: &Work, named: &Named) -> Result<(Vec<String>, Option<Server>)> {
        let mut command = named.command(work);
        if work.service != "proxy" {
            return Ok((command, None));
        }
        let behind = Server::start(&[beside("raw_epoll")?.display().to_string()], self.cpu(work, self.load_cpu))?;
        command.extend(["--to".into(), behind.addr().to_string()]);
        Ok((command, Some(behind)))
    }

    fn start(&self, work: &Work, named: &Named) -> Result<Started> {
        let (command, behind) = self.command(work, named)?;
        Ok(Started { server: Server::start(&command, self.cpu(work, self.server_cpu))?, _behind: behind })
    }

    fn load(&self, work: &Work, server: &Server, arguments: Vec<String>) -> Result<Load> {
        let addr = ["--addr".to_string(), server.addr().to_string()];
        let arguments: Vec<_> = addr.into_iter().chain(arguments).collect();
        Load::start(&beside("load")?, &arguments, self.cpu(work, self.load_cpu))
    }

    /// What a request costs.
    pub(crate) fn requests(&self, work: &Work, named: &Named) -> Result<Round> {
        let started = self.start(work, named)?;
        let pid = started.server.pid();
        let mut arguments = work.load_arguments();
        let own = format!("--seconds {} --warmup {} --gate", self.seconds, self.warmup);
        arguments.extend(own.split(' ').map(String::from));
        let mut load = self.load(work, &started.server, arguments)?;

        let kinds: &[Kind] = if self.available.hardware { &HARDWARE } else { &[] };
        let before = Usage::of(pid)?;
        let (mut figures, report) = counted_run(work, pid, &mut load, kinds)?;
        let used = Usage::of(pid)?.since(&before);

        let number = |name: &str| report[name].as_f64().ok_or(format!("the load reports no {name}"));
        let units = number("requests")? * work.units;
        let cpu_us = used.cpu_ns as f64 / 1e3 / units;
        if let Some(switches) = used.switches {
            figures.insert("switches", switches as f64 / units);
        }
        if let (Some(user), Some(kernel)) = (figures.get("instructions_user"), figures.get("instructions_kernel")) {
            figures.insert("instructions", user + kernel);
        }
        let per_second = units / number("seconds")?;
        if work.name == "bulk" {
            let units_per_gb = 1e9 / f64::from(1 << 20);
            figures.insert("cpu_ms_per_gb", cpu_us * units_per_gb / 1e3);
            figures.insert("gb_per_second", per_second / units_per_gb);
        } else {
            figures.insert("cpu_us", cpu_us);
            figures.insert("requests_per_second", per_second);
            figures.insert("requests_per_cpu_second", 1e6 / cpu_us);
            for name in ["p50_us", "p99_us", "p99_9_us", "max_us"] {
                figures.insert(name, number(name)?);
            }
            if work.workers > 1 && work.connections > 1 {
                figures.insert("busiest_percent", used.busiest * 100.0);
            }
        }
        if let Some(kind) = self.available.system_calls {
            figures.extend(counted_run(work, pid, &mut load, &[kind])?.0);
        }
        Ok(figures)
    }

    /// Counts under wrappers, each in a run of its own; they repeat within 1 %, so once is enough.
    pub(crate) fn wrapped(&self, work: &Work, named: &Named) -> Round {
        let mut figures = Round::new();
        let Some(requests) = work.wrapped else { return figures };
        let few = u64::from(work.connections) * 2;
        let range = (few, few + requests.max(u64::from(work.connections) * 4));
        for (wrapper, figure) in &self.available.wrappers {
            if matches!(wrapper, Wrapper::Callgrind) && !named.valgrind {
                continue;
            }
            let count = || {
                let (command, _behind) = self.command(work, named)?;
                wrapped::per_request(*wrapper, &command, (&beside("load")?, &work.load_arguments()), range)
            };
            match count() {
                Ok(count) => drop(figures.insert(figure, count)),
                // Not every program runs under them: the other figures are still good.
                Err(e) => eprintln!("{}: not counted: {figure}: {e}", named.name),
            }
        }
        figures
    }

    /// Memory per connection: with them all, less with one, which has started everything.
    pub(crate) fn idle(&self, work: &Work, named: &Named) -> Result<Round> {
        let started = self.start(work, named)?;
        let pid = started.server.pid();
        let one = ["--conns", "1", "--idle"].map(String::from);
        drop(self.load(work, &started.server, one.to_vec())?);
        thread::sleep(Duration::from_millis(200)); // The server notices that it has gone.
        let before = Memory::of(pid)?;
        let _load = self.load(work, &started.server, work.load_arguments())?;
        let after = Memory::of(pid)?;
        let each = |after: u64, before: u64| (after as f64 - before as f64) / f64::from(work.connections);
        let resident = each(after.resident, before.resident);
        let page_tables = each(after.page_tables, before.page_tables);
        Ok(Round::from([
            ("resident_bytes", resident),
            ("page_table_bytes", page_tables),
            ("memory_bytes", resident + page_tables),
            ("mappings", after.mappings as f64),
        ]))
    }
}

/// One run of the load with these counters on the server: their counts per unit, and the load's report.
fn counted_run(work: &Work, pid: u32, load: &mut Load, kinds: &[Kind]) -> Result<(Round, Value)> {
    let mut counters = Counters::open(pid, kinds)?;
    let before = counters.read()?;
    let report = load.run_once()?;
    let after = counters.read()?;
    let requests = report["requests"].as_f64().ok_or("the load reports no requests")?;
    let counts = before.iter().zip(&after);
    let units = requests * work.units;
    let per_unit = counts.map(|((name, before), (_, after))| (*name, (after - before) / units)).collect();
    Ok((per_unit, report))
}
