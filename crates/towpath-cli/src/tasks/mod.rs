//! `towpath tasks`: the tasks of a running program, and what each of them waits for.
//!
//! `endpoint` finds programs and asks them, `table` lays out what they answer; here it is decided which program is meant.

#![forbid(unsafe_code)]

pub(crate) mod endpoint;
mod table;

use std::fs;
use std::io::{self, IsTerminal as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::process::geteuid;
use towpath::sync::channel::Receiver;

use crate::args::{self, Target};
use crate::exit::{Exit, Failure};
use crate::output::event::Event;
use crate::output::{Form, Output};
use endpoint::{Dump, Endpoint, OPT_IN, TARGETS, endpoint_of, endpoints};

/// Asks, and prints the answer.
pub(crate) fn run(options: args::Tasks, form: Form, out: &Output, stop: &Receiver<i32>) -> Result<Exit, Failure> {
    let mut asking = Some(towpath::task::spawn_blocking(move || {
        let endpoint = meant(options.target.as_ref())?;
        endpoint.ask(options.backtrace, options.wait)
    }));
    let dump = towpath::select! {
        join(asking) -> asked => asked.unwrap_or_else(|_| Err(Failure::new(Exit::Other, "asking failed")))?,
        recv(stop) -> _ => return Ok(Exit::Interrupted),
    };
    print(&dump, form, out);
    Ok(Exit::Done)
}

fn print(dump: &Dump, form: Form, out: &Output) {
    match form {
        Form::Human { stdout, .. } => {
            let room = io::stdout().is_terminal().then(crate::trace::columns);
            out.text(table::text(dump, stdout, room));
        }
        Form::Json => {
            let Dump { pid, program, workers, silent, tasks } = dump;
            out.event(&Event::Program { pid: *pid, program, workers: *workers, silent, tasks: tasks.len() });
            tasks.iter().for_each(|task| out.event(&Event::Task { pid: *pid, task }));
        }
    }
}

/// The program that is meant.
fn meant(target: Option<&Target>) -> Result<Endpoint, Failure> {
    match target {
        Some(Target::Socket(path)) => Ok(Endpoint::named(path.clone())),
        Some(Target::Process(pid)) => endpoint_of(*pid).ok_or_else(|| not_found(*pid)),
        None => the_one(),
    }
}

/// The only program there is to ask.
fn the_one() -> Result<Endpoint, Failure> {
    let mut alive: Vec<_> = endpoints().into_iter().filter(Endpoint::is_alive).collect();
    match (alive.pop(), &alive[..]) {
        (None, _) => {
            let what = "no program of yours that runs lets itself be asked for its tasks";
            Err(Failure::new(Exit::Refused, what).hint(format!("towpath serve lets itself be asked. {OPT_IN}")))
        }
        (Some(only), []) => Ok(only),
        (Some(last), [first, ..]) => {
            let names: Vec<_> = alive.iter().chain([&last]).filter_map(|endpoint| endpoint.pid).map(name).collect();
            let what = format!("there are {} programs to ask: {}", names.len(), names.join(", "));
            let example = first.pid.map(|pid| format!("Name one; try: towpath tasks {pid}"));
            Err(Failure { hint: example, ..Failure::new(Exit::Usage, what) })
        }
    }
}

/// A process as a person knows it: `8808 (demo)`.
fn name(pid: u32) -> String {
    match fs::read_to_string(format!("/proc/{pid}/comm")) {
        Ok(name) => format!("{pid} ({})", crate::output::text::escape(name.trim_end().as_bytes(), false)),
        Err(_) => pid.to_string(),
    }
}

/// Why there is no endpoint of that process's.
fn not_found(pid: u32) -> Failure {
    let Ok(process) = fs::metadata(Path::new("/proc").join(pid.to_string())) else {
        let what = format!("ask process {pid}: there is no such process");
        return Failure::new(Exit::Refused, what).hint(TARGETS);
    };
    if process.uid() != geteuid().as_raw() && !geteuid().is_root() {
        let what = format!("ask process {pid}: it is another user's ({})", process.uid());
        return Failure::new(Exit::NoPermission, what)
            .hint(format!("Only its own user and root may ask a program; try: sudo towpath tasks {pid}"));
    }
    Failure::new(Exit::Refused, format!("ask process {}: it has no endpoint", name(pid))).hint(OPT_IN)
}
