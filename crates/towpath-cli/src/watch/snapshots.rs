//! The table without a screen: once, or with each look for as long as was asked.

#![forbid(unsafe_code)]

use signal_hook::consts::SIGTERM;
use towpath::sync::channel::{self, Receiver};
use towpath::time::Instant;
use towpath_diag::Want;

use super::feed::{Batch, Feed};
use super::object::Object;
use super::tasks::Tasks;
use super::wait::{Calls, Woken};
use super::watcher::Watcher;
use super::{Ended, columns, endpoints, plain};
use crate::args::Watch;
use crate::exit::{Exit, Failure};
use crate::output::event::Event;
use crate::output::{Form, Output};

/// How many batches of changes wait at most.
const BATCHES: usize = 64;
/// How long the resolver may take for the names of one table.
const RESOLVING: std::time::Duration = std::time::Duration::from_secs(5);

/// Prints what is to be seen.
pub(super) fn run(options: &Watch, out: &Output, stop: &Receiver<i32>) -> Result<Ended, Failure> {
    let mut watcher = Watcher::new(options)?;
    let (send, batches) = channel::bounded::<Batch>(BATCHES);
    // Between looks, it knows better than they do when a state began.
    let _feed = options.limit.and_then(|_| Feed::start(&options.filter.kernels(), send.clone()).ok());
    let calls = Calls { out, stop, batches: &batches };
    let deadline = options.limit.map(|limit| Instant::now() + limit);
    for number in 0.. {
        let next = Instant::now() + options.interval;
        if let Some(ended) = print(&mut watcher, &calls, number > 0, deadline.is_none())? {
            return Ok(ended);
        }
        if let Some(why) = watcher.failed_check() {
            return Err(Failure::new(Exit::CheckFailed, why));
        }
        let Some(deadline) = deadline.filter(|&deadline| Instant::now() < deadline) else { break };
        loop {
            match calls.wait(Some(next.min(deadline))) {
                Woken::Due => {
                    for event in batches.try_iter().take(BATCHES).flatten().flatten() {
                        watcher.hear(&event);
                    }
                    break;
                }
                Woken::Batch(batch) => {
                    for event in batch.into_iter().flatten() {
                        watcher.hear(&event);
                    }
                }
                Woken::Stop(signal) => return Ok(Ended::Signal(signal)),
                Woken::Lost(why) => return crate::output::stdout_lost(why).map(Ended::With),
            }
        }
    }
    Ok(Ended::With(Exit::Done))
}

/// Prints the table as it is now, and if it is the only one, that there is nothing in it, unless a signal comes before that is known.
fn print(watcher: &mut Watcher, calls: &Calls<'_>, again: bool, once: bool) -> Result<Option<Ended>, Failure> {
    let out = calls.out;
    let want = if matches!(out.form(), Form::Json) { Want::all() } else { Want::INFO };
    let sockets = watcher.look_at_all(want)?;
    match asked_tasks(calls) {
        Ok(tasks) => watcher.tasks = tasks,
        Err(signal) => return Ok(Some(Ended::Signal(signal))),
    }
    if let Some(names) = &mut watcher.names {
        names.ask(
            sockets.values().flat_map(|socket| std::iter::once(socket.local).chain(socket.peer)).map(|end| end.ip()),
        );
        if let Some(signal) = names.wait(RESOLVING, calls.stop) {
            return Ok(Some(Ended::Signal(signal)));
        }
    }
    let wholes = watcher.shown().iter().filter_map(|&number| watcher.whole(number));
    match out.form() {
        Form::Json => {
            for whole in wholes {
                // One that has just gone has a row and no socket.
                let Some(socket) = sockets.get(&whole.row.cookie) else { continue };
                let object = Object::new(socket, watcher.now(), whole.since, whole.owners, whole.tasks);
                out.event(&Event::Socket(&object));
            }
        }
        Form::Human { stdout, .. } => {
            let style = columns::Style { now: watcher.now(), ascii: stdout.ascii, names: watcher.names.as_ref() };
            let gap = if again { "\n" } else { "" };
            out.text(format!("{gap}{}", plain::table(wholes, style, stdout)));
            if once && watcher.shown().is_empty() {
                out.remark(format!("{}\n", watcher.nothing()));
            }
        }
    }
    Ok(None)
}

/// What programs tell within the time that they have, or the signal that came before.
fn asked_tasks(calls: &Calls<'_>) -> Result<Tasks, i32> {
    let Ok(asked) = endpoints::asked() else { return Ok(Tasks::default()) };
    towpath::select! {
        recv(asked) -> tasks => Ok(tasks.unwrap_or_default()),
        recv(calls.stop) -> signal => Err(signal.unwrap_or(SIGTERM)),
        timeout(endpoints::LONGEST) => Ok(Tasks::default()),
    }
}
