//! `towpath`: serve and dial TCP, and see it, on the towpath library.
//!
//! A byte's way through this crate: `args` says what was meant, `serve` or `dial` does it in tasks, `output` prints what
//! happened, and `exit` says how it ended. `watch` shows what the kernel knows of all that, `trace` what passes on the
//! wire, and `tour` all of it in turn; `tasks` asks other programs; `generate` prints pages and completions. `kernel` asks
//! what `towpath::net` does not, `counted` writes and counts, `signals` makes messages of signals.

mod args;
mod counted;
mod dial;
mod exit;
mod generate;
mod kernel;
mod output;
mod serve;
mod signals;
mod tasks;
mod tour;
mod trace;
mod watch;

use std::io;
use std::process;
use std::time::Duration;

use towpath::Runtime;
use towpath::sync::channel::Receiver;

use crate::args::{Command, Invocation, NotMeant, View};
use crate::exit::{Exit, Failure};
use crate::output::event::Event;
use crate::output::{Form, Output};

fn main() {
    let exit = match args::parse(std::env::args_os()) {
        Ok(Invocation { form, command }) => start(form, command).unwrap_or_else(|failure| refuse(form, &failure)),
        Err(NotMeant::Clap(e)) => e.exit(),
        Err(NotMeant::Failure(form, failure)) => refuse(form, &failure),
    };
    // Not by returning: a thread still waits for stdin, and tasks for peers that we are done with.
    process::exit(exit.code().into());
}

/// Runs `command` as a task, on a runtime of its own so that a wrong setting is told as one.
fn start(form: Form, mut command: Command) -> Result<Exit, Failure> {
    if let Command::Tour(tour) = &mut command {
        // While there is no second thread.
        tour.place = tour::enter()?;
    }
    let stop = match &command {
        Command::Serve(_) => signals::first_of(signals::STOP),
        Command::Dial(_) => signals::first_of(signals::INTERRUPT),
        Command::Watch(watch) if watch.view == View::Screen => {
            signals::every(watch::screen::SIGNALS, watch::screen::terminal::give_back)
        }
        Command::Tour(_) => signals::every(signals::STOP, tour::give_back),
        Command::Watch(_) | Command::Trace(_) => signals::first_of(signals::STOP),
        Command::Tasks(_) | Command::Generate(_) => signals::first_of(signals::INTERRUPT),
    };
    let stop = stop.map_err(|e| Failure::new(Exit::Other, format!("catch signals: {}", exit::reason(&e))))?;
    let runtime = runtime(form, matches!(command, Command::Serve(_))).map_err(|e| no_runtime(&e))?;
    let exit = runtime.run(move || run(form, command, &stop));
    // Nor by dropping the runtime, which would wait for them a while. What is left is of no use any more.
    _ = runtime.shutdown(Duration::ZERO);
    Ok(exit)
}

/// A runtime that `towpath tasks` may ask, if it is a server's: one that cannot be asked serves all the same.
fn runtime(form: Form, is_server: bool) -> io::Result<Runtime> {
    let builder = Runtime::builder();
    if !is_server {
        return builder.inspect(false).build();
    }
    match std::env::var_os("TOWPATH_INSPECT") {
        Some(value) if !value.is_empty() && value != "1" => return builder.build(), // which knows what else there may be
        _ => {}
    }
    builder.clone().inspect(true).build().or_else(|why| {
        let runtime = builder.inspect(false).build()?;
        output::print_now(form, &Event::NoInspect { error: &exit::reason(&why) });
        Ok(runtime)
    })
}

fn run(form: Form, command: Command, stop: &Receiver<i32>) -> Exit {
    let out = Output::start(form);
    let done = match command {
        Command::Serve(serve) => serve::run(&serve, &out, stop),
        Command::Dial(dial) => dial::run(&dial, &out, stop),
        Command::Watch(watch) => watch::run(&watch, &out, stop),
        Command::Trace(trace) => trace::run(&trace, &out, stop),
        Command::Tour(tour) => tour::run(&tour, &out, stop),
        Command::Tasks(tasks) => tasks::run(tasks, form, &out, stop),
        Command::Generate(what) => towpath::task::unblock(move || generate::run(&what)),
    };
    let exit = done.unwrap_or_else(|failure| {
        out.event(&output::failure_event(&failure));
        failure.exit
    });
    out.finish();
    // What could not be written at the end, nobody has told yet.
    match out.lost().try_recv().map(|why| output::stdout_lost(Some(why))) {
        Ok(Err(failure)) if exit == Exit::Done => {
            out.event(&output::failure_event(&failure));
            out.finish();
            failure.exit
        }
        _ => exit,
    }
}

fn no_runtime(error: &io::Error) -> Failure {
    let reason = exit::reason(error);
    match error.kind() {
        io::ErrorKind::InvalidInput => Failure::new(Exit::Usage, reason).hint("For what it may be: towpath --help"),
        _ => Failure::new(Exit::Other, format!("start: {reason}")),
    }
}

/// Says why nothing was begun.
fn refuse(form: Form, failure: &Failure) -> Exit {
    output::print_failure(form, failure);
    failure.exit
}
