//! The command line in two stages: [`typed`] is what one may type, as clap reads it; this file is what it means, and
//! refuses what cannot be meant. Nothing after this sees an option.

#![forbid(unsafe_code)]

mod tour;
mod trace;
mod typed;
mod watch;

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::net::Ipv6Addr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory as _, Parser as _};
use clap_complete::Shell;
use regex::bytes::{Regex, RegexBuilder};
use serde::Serialize;

use crate::exit::{Exit, Failure};
use crate::output::Form;
use crate::output::look::Look;
use crate::watch::filter::Filter;
pub(crate) use tour::Tour;
pub(crate) use trace::{Origin, Trace};
use typed::Typed;
pub(crate) use typed::watch::KEYS;
pub(crate) use watch::{View, Watch};

/// What is to be done, and how it is to be told.
#[derive(Debug)]
pub(crate) struct Invocation {
    pub(crate) form: Form,
    pub(crate) command: Command,
}

/// The subcommand.
#[derive(Debug)]
pub(crate) enum Command {
    Serve(Serve),
    Dial(Dial),
    Watch(Watch),
    Trace(Trace),
    Tour(Tour),
    Tasks(Tasks),
    /// Pages or completions, made of the arguments themselves.
    Generate(Generate),
}

/// `towpath serve`
#[derive(Debug, Clone)]
pub(crate) struct Serve {
    pub(crate) addr: String,
    pub(crate) mode: Mode,
    /// How many conversations at once; the kernel queues the rest.
    pub(crate) max: Option<NonZeroUsize>,
    /// How long nothing may arrive.
    pub(crate) idle: Option<Duration>,
    pub(crate) hex: bool,
    /// How long open conversations may take to finish once we are to stop.
    pub(crate) drain: Duration,
}

/// What `serve` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Mode {
    /// The current time to each newcomer; what it sends is printed.
    Time,
    /// What it hears.
    Echo,
    /// Nothing.
    Discard,
    /// Characters without end.
    Chargen,
}

/// `towpath dial`
#[derive(Debug, Clone)]
pub(crate) struct Dial {
    pub(crate) addr: String,
    /// How long connecting may take, lookup included.
    pub(crate) wait: Duration,
    /// How long nothing may arrive.
    pub(crate) idle: Option<Duration>,
    /// To stay after the server's FIN.
    pub(crate) hold: bool,
    /// To send FIN when stdin ends.
    pub(crate) half_close: bool,
    pub(crate) crlf: bool,
    pub(crate) hex: bool,
    /// What the server is to say.
    pub(crate) expect: Option<Regex>,
    pub(crate) repeat: Option<Repeat>,
}

/// `towpath tasks`
#[derive(Debug, Clone)]
pub(crate) struct Tasks {
    /// Which program; without it, the only one there is.
    pub(crate) target: Option<Target>,
    pub(crate) backtrace: bool,
    /// How long the program may take to answer.
    pub(crate) wait: Duration,
}

/// A program that is to be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    Process(u32),
    Socket(PathBuf),
}

/// `towpath man`, `towpath completions`
#[derive(Debug)]
pub(crate) enum Generate {
    /// One page, to stdout: of a subcommand, or of the whole.
    Page(Option<String>),
    /// All pages, into this folder.
    Pages(PathBuf),
    Completions(Shell),
}

/// To do it more than once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Repeat {
    pub(crate) times: u32,
    /// From one start to the next.
    pub(crate) every: Duration,
}

/// A command line that leads to nothing more to do.
#[derive(Debug)]
pub(crate) enum NotMeant {
    /// Help or the version was asked for, or clap explains what is wrong. It prints and exits by itself.
    Clap(clap::Error),
    /// What was typed cannot be meant.
    Failure(Form, Failure),
}

/// Reads a command line, program name first.
pub(crate) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Invocation, NotMeant> {
    let mut arguments: Vec<OsString> = arguments.into_iter().collect();
    // For those who type it as a word.
    if arguments.get(1).is_some_and(|word| word == "help") {
        arguments.remove(1);
        arguments.push("--help".into());
    }
    let typed = Typed::try_parse_from(&arguments).map_err(|e| refusal(e, &arguments))?;
    let form = form(&typed.common);
    let command = match typed.command {
        typed::Command::Serve(serve) => Ok(Command::Serve(serve.into())),
        typed::Command::Dial(dial) => meant_dial(dial).map(Command::Dial),
        typed::Command::Watch(watch) => Watch::meant(watch, form).map(Command::Watch),
        typed::Command::Trace(trace) => Trace::meant(trace).map(Command::Trace),
        typed::Command::Tour(tour) => Tour::meant(&tour).map(Command::Tour),
        typed::Command::Tasks(tasks) => Ok(Command::Tasks(tasks.into())),
        typed::Command::Man(man) => meant_man(man).map(Command::Generate),
        typed::Command::Completions(typed) => Ok(Command::Generate(Generate::Completions(typed.shell))),
    };
    match command {
        Ok(command) => Ok(Invocation { form, command }),
        Err(failure) => Err(NotMeant::Failure(form, failure)),
    }
}

fn form(common: &typed::Common) -> Form {
    if common.json {
        return Form::Json;
    }
    Form::Human {
        stdout: Look::choose(common.color, common.ascii, &io::stdout()),
        stderr: Look::choose(common.color, common.ascii, &io::stderr()),
    }
}

/// Programs get an object also for a command line that clap refuses; people get clap's own explanation.
fn refusal(mut error: clap::Error, arguments: &[OsString]) -> NotMeant {
    use ErrorKind::{DisplayHelp, DisplayHelpOnMissingArgumentOrSubcommand, DisplayVersion};
    let asked = matches!(error.kind(), DisplayHelp | DisplayHelpOnMissingArgumentOrSubcommand | DisplayVersion);
    let whole = host_and_port(&error, arguments);
    if asked || !arguments.iter().any(|a| a == "--json") {
        if let Some(whole) = whole {
            let tip = vec![format!("try {whole}").into()];
            error.insert(ContextKind::Suggested, ContextValue::StyledStrs(tip));
        }
        return NotMeant::Clap(error);
    }
    let text = error.render().to_string();
    let first: Vec<_> = text.lines().map(str::trim).take_while(|line| !line.is_empty()).collect();
    let first = first.join(" ");
    let what = first.strip_prefix("error: ").unwrap_or(&first);
    let known = Typed::command();
    let name = arguments.iter().skip(1).find_map(|a| known.find_subcommand(a)).map(clap::Command::get_name);
    let hint = match (whole, name) {
        (Some(whole), _) => format!("Try {whole}"),
        (None, Some(name)) => format!("For the options: towpath {name} --help"),
        (None, None) => "For the options: towpath --help".to_owned(),
    };
    let failure = Failure::new(Exit::Usage, what).hint(hint);
    NotMeant::Failure(Form::Json, failure)
}

/// The address that was typed in two words, as netcat takes it: `127.0.0.1 8330`.
fn host_and_port(error: &clap::Error, arguments: &[OsString]) -> Option<String> {
    let Some(ContextValue::String(port)) = error.get(ContextKind::InvalidArg) else { return None };
    let takes_one = arguments.iter().any(|a| a == "dial" || a == "serve");
    if error.kind() != ErrorKind::UnknownArgument || !takes_one || port.starts_with('-') || port.contains(':') {
        return None;
    }
    let at = arguments.iter().rposition(|a| a == port.as_str())?;
    let host = arguments[at.checked_sub(1)?].to_str()?;
    if host.parse::<Ipv6Addr>().is_ok() {
        return Some(format!("[{host}]:{port}"));
    }
    let is_host = !host.starts_with('-') && !host.contains(':') && !host.bytes().all(|b| b.is_ascii_digit());
    is_host.then(|| format!("{host}:{port}"))
}

impl From<typed::Serve> for Serve {
    fn from(typed: typed::Serve) -> Serve {
        let mode = if typed.mode.echo {
            Mode::Echo
        } else if typed.mode.discard {
            Mode::Discard
        } else if typed.mode.chargen {
            Mode::Chargen
        } else {
            Mode::Time
        };
        Serve { addr: typed.addr, mode, max: typed.max, idle: typed.idle, hex: typed.hex, drain: typed.drain }
    }
}

impl From<typed::Tasks> for Tasks {
    fn from(typed: typed::Tasks) -> Tasks {
        Tasks { target: typed.target, backtrace: typed.backtrace, wait: typed.wait }
    }
}

fn meant_dial(typed: typed::Dial) -> Result<Dial, Failure> {
    let expect = typed.expect.as_deref().map(expectation).transpose()?;
    let repeat = typed.repeat.map(|times| Repeat { times: times.get(), every: typed.every });
    Ok(Dial {
        addr: typed.addr,
        wait: typed.wait,
        idle: typed.idle,
        hold: typed.hold,
        half_close: !typed.no_half_close,
        crlf: typed.crlf,
        hex: typed.hex,
        expect,
        repeat,
    })
}

fn meant_man(typed: typed::Man) -> Result<Generate, Failure> {
    let Some(name) = typed.subcommand else {
        return Ok(typed.out.map_or(Generate::Page(None), Generate::Pages));
    };
    let whole = description();
    match whole.find_subcommand(&name) {
        Some(_) => Ok(Generate::Page(Some(name))),
        None => {
            let names: Vec<_> = whole.get_subcommands().map(clap::Command::get_name).collect();
            let what = format!("man {name}: there is no such subcommand");
            Err(Failure::new(Exit::Usage, what).hint(format!("There are {}", names.join(", "))))
        }
    }
}

/// All that one may type, for those who describe it.
pub(crate) fn description() -> clap::Command {
    let mut command = Typed::command();
    command.build();
    command
}

/// `^` and `$` mean the beginning and the end of any line, for a server's banner is one.
fn expectation(pattern: &str) -> Result<Regex, Failure> {
    let regex = RegexBuilder::new(pattern).multi_line(true).build();
    regex.map_err(|e| {
        let what = format!("--expect {pattern}: {}", last_line(&e.to_string()));
        Failure::new(Exit::Usage, what).hint("The syntax: https://docs.rs/regex/#syntax")
    })
}

/// What a multi-line explanation comes to, without the word that clap would say too.
fn last_line(text: &str) -> &str {
    let line = text.lines().last().unwrap_or_default();
    line.strip_prefix("error: ").unwrap_or(line)
}

/// `8330` alone is our own short form of `:8330`. What else an address can be, `towpath::net` knows.
fn address(typed: &str) -> Result<String, String> {
    let port_alone = !typed.is_empty() && typed.bytes().all(|b| b.is_ascii_digit());
    let colon = if port_alone { ":" } else { "" };
    Ok(format!("{colon}{typed}"))
}

/// How many: one or more.
fn count<N: FromStr>(typed: &str) -> Result<N, String> {
    let is_number = !typed.is_empty() && typed.bytes().all(|b| b.is_ascii_digit());
    typed.parse().map_err(|_| match is_number {
        true if typed.bytes().all(|b| b == b'0') => "it must be at least 1".to_owned(),
        true => "it is too large".to_owned(),
        false => "it is no whole number".to_owned(),
    })
}

/// A word of a filter, which clap refuses by itself when it cannot be meant.
fn filter(typed: &str) -> Result<String, String> {
    typed.parse::<Filter>().map(|_| typed.to_owned()).map_err(|e| e.to_string())
}

/// The same of one that chooses segments.
fn segment_filter(typed: &str) -> Result<String, String> {
    typed.parse::<Filter>().map(|_| typed.to_owned()).map_err(|e| e.why)
}

/// A number is a process; what has a slash in it, or is anything else, a path.
fn target(typed: &str) -> Result<Target, String> {
    if !typed.is_empty() && typed.bytes().all(|b| b.is_ascii_digit()) {
        return typed.parse().map(Target::Process).map_err(|_| "no process has such a number".to_owned());
    }
    Ok(Target::Socket(typed.into()))
}

/// `200ms`, `5s`, `1m30s`.
pub(crate) fn duration(typed: &str) -> Result<Duration, String> {
    if !typed.is_empty() && typed.bytes().all(|b| b.is_ascii_digit()) {
        return Err(format!("it has no unit; try {typed}s, {typed}ms or {typed}m"));
    }
    let time: jiff::SignedDuration = typed.parse().map_err(|_| "it is no time; write 200ms, 5s or 1m30s".to_owned())?;
    let time = Duration::try_from(time).map_err(|_| "a time cannot be negative".to_owned())?;
    // So that it can be added to any clock.
    Ok(time.min(LONGEST))
}

/// A century, for somebody who means never.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// A duration in which something is to happen, which in no time it cannot.
fn positive_duration(typed: &str) -> Result<Duration, String> {
    match duration(typed)? {
        Duration::ZERO => Err("it must be more than nothing".to_owned()),
        time => Ok(time),
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Mode::Time => "time",
            Mode::Echo => "echo",
            Mode::Discard => "discard",
            Mode::Chargen => "chargen",
        })
    }
}

#[cfg(test)]
mod tests;
