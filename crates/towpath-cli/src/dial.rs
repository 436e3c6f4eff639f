//! `towpath dial`: connects, and is done or does it again.
//!
//! A conversation is `talk`'s, what stdin has to say `input`'s; here is what comes before and after one.

#![forbid(unsafe_code)]

mod expect;
mod input;
mod line;
mod talk;

use std::time::Duration;

use towpath::net::{Dialer, TcpStream};
use towpath::sync::channel::{self, Receiver};
use towpath::time::Instant;

use crate::args::{self, Repeat};
use crate::exit::{Exit, Failure};
use crate::output::event::Event;
use crate::output::{self, Output};
use input::Input;
use talk::Talk;

/// What every step of a dial needs.
#[derive(Debug, Clone, Copy)]
struct Context<'a> {
    options: &'a args::Dial,
    out: &'a Output,
    /// Ctrl-C.
    stop: &'a Receiver<i32>,
}

/// How one dial came to its end, when it did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Done {
    /// As it should.
    Good,
    /// With Ctrl-C: do not begin another.
    Interrupted,
    /// Nobody reads our stdout any more: likewise.
    Unread,
}

/// Dials once, or as often as `--repeat` says.
pub(crate) fn run(options: &args::Dial, out: &Output, stop: &Receiver<i32>) -> Result<Exit, Failure> {
    let context = Context { options, out, stop };
    let done = match options.repeat {
        None => {
            // Before stdin is read: what is typed while nobody is there is for the next command.
            let stream = connect(context)?;
            match stream {
                Ok(stream) => Talk::new(context, stream)?.hold(Input::of_stdin()),
                Err(done) => Ok(done),
            }
        }
        Some(repeat) => return run_repeated(context, repeat),
    };
    done.map(exit)
}

fn exit(done: Done) -> Exit {
    match done {
        Done::Good | Done::Unread => Exit::Done,
        Done::Interrupted => Exit::Interrupted,
    }
}

/// Dials again and again; each failure is told when it happens, and the first decides the exit code.
fn run_repeated(context: Context<'_>, repeat: Repeat) -> Result<Exit, Failure> {
    let mut reading = Some(Input::whole_stdin());
    let input = towpath::select! {
        join(reading) -> read => read.unwrap_or_else(|_| Err(Failure::new(Exit::Other, "read stdin: panicked")))?,
        recv(context.stop) -> _ => return Ok(Exit::Interrupted),
    };
    let (mut dials, mut failed, mut first) = (0, 0, None);
    let mut next = Instant::now();
    let end = loop {
        dials += 1;
        let done = connect(context).and_then(|connected| match connected {
            Ok(stream) => Talk::new(context, stream)?.hold(Input::of(&input)),
            Err(done) => Ok(done),
        });
        match done {
            Ok(Done::Good) => {}
            Ok(done) => break exit(done),
            Err(failure) => {
                context.out.event(&output::failure_event(&failure));
                failed += 1;
                first = first.or(Some(failure.exit));
            }
        }
        next += repeat.every;
        if dials == repeat.times {
            break first.unwrap_or(Exit::Done);
        }
        if let Some(done) = pause(context, next)? {
            break exit(done);
        }
    };
    context.out.event(&Event::Repeated { dials, failed });
    Ok(end)
}

/// Waits for `moment`, unless it is time to end before.
fn pause(context: Context<'_>, moment: Instant) -> Result<Option<Done>, Failure> {
    let wait = moment.saturating_duration_since(Instant::now());
    let lost = towpath::select! {
        recv(context.stop) -> _ => return Ok(Some(Done::Interrupted)),
        recv(context.out.lost()) -> why => why.ok(),
        timeout(wait) => return Ok(None),
    };
    output::stdout_lost(lost).map(|_| Some(Done::Unread))
}

/// Connects, unless Ctrl-C comes first.
fn connect(context: Context<'_>) -> Result<Result<TcpStream, Done>, Failure> {
    let args::Dial { addr, wait, .. } = context.options;
    let (addr, wait): (&str, Duration) = (addr, *wait);
    let started = Instant::now();
    let (connected, connection) = channel::bounded(1);
    let address = addr.to_owned();
    drop(towpath::spawn(move || {
        // Nobody receives it after Ctrl-C.
        let _ = connected.send(Dialer::new().timeout(wait).dial(address.as_str()));
    }));
    let stream = towpath::select! {
        recv(context.stop) -> _ => None,
        recv(connection) -> stream => Some(stream),
    };
    let stream = match stream {
        None => return Ok(Err(Done::Interrupted)),
        Some(Ok(stream)) => stream.map_err(|e| Failure::dial(addr, wait, &e))?,
        Some(Err(_)) => return Err(Failure::new(Exit::Other, format!("dial tcp {addr}: panicked"))),
    };
    let took = Instant::now().duration_since(started);
    let (local, peer) = talk::ends(&stream)?;
    context.out.event(&Event::Dialled { local, peer, took });
    Ok(Ok(stream))
}
