//! `--events`: a line for each change of a socket's state.

#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::io;

use jiff::{SignedDuration, Timestamp};
use towpath::sync::channel::{self, Receiver};
use towpath::time::Instant;
use towpath_diag::{Event, Source, Want, monotonic};

use super::Ended;
use super::feed::{Batch, Feed};
use super::lives::Step;
use super::table::{Ends, Moment};
use super::wait::{Calls, Woken};
use super::watcher::Watcher;
use crate::args::Watch;
use crate::exit::{Exit, Failure, reason};
use crate::output::Output;
use crate::output::event;

/// Prints what happens, until it is told to stop.
pub(super) fn run(options: &Watch, out: &Output, stop: &Receiver<i32>) -> Result<Ended, Failure> {
    let mut watcher = Watcher::new(options)?;
    let mut kernels = options.filter.kernels();
    kernels.states = options.filter.states();
    let (send, batches) = channel::bounded::<Batch>(64);
    let feed = Feed::start(&kernels, send).map_err(|e| broken(&e))?;
    tell_source(options, out, feed.source());
    let calls = Calls { out, stop, batches: &batches };
    let deadline = options.limit.map(|limit| Instant::now() + limit);
    let mut owned = Owned::default();
    let mut next_look = Instant::now();
    loop {
        let now = Instant::now();
        if !options.checks.is_empty() && now >= next_look {
            next_look = now + options.interval;
            watcher.look()?;
            if let Some(why) = watcher.failed_check() {
                return Err(Failure::new(Exit::CheckFailed, why));
            }
        }
        let look = (!options.checks.is_empty()).then_some(next_look);
        let due = [look, deadline].into_iter().flatten().min();
        match calls.wait(due) {
            Woken::Due if deadline.is_some_and(|deadline| Instant::now() >= deadline) => {
                return Ok(Ended::With(Exit::Done));
            }
            Woken::Due => {}
            Woken::Batch(batch) => {
                for event in batch.map_err(|e| broken(&e))? {
                    tell(&mut watcher, &mut owned, out, &event);
                }
            }
            Woken::Stop(signal) => return Ok(Ended::Signal(signal)),
            Woken::Lost(why) => return crate::output::stdout_lost(why).map(Ended::With),
        }
    }
}

fn broken(error: &io::Error) -> Failure {
    Failure::new(Exit::of(error), format!("follow changes of state: {}", reason(error)))
}

fn tell_source(options: &Watch, out: &Output, source: &Source) {
    let filter = options.filter.to_string();
    let (source, interval, why) = match source {
        Source::Sampled { interval, why } => (event::From::Sampled, Some(*interval), Some(why.as_str())),
        _ => (event::From::Exact, None, None),
    };
    out.event(&event::Event::Watching { filter: &filter, source, interval, why });
}

fn tell(watcher: &mut Watcher, owned: &mut Owned, out: &Output, event: &Event) {
    if let Event::Lost(changes) = event {
        return out.event(&event::Event::Lost { changes: *changes });
    }
    let Some(step) = watcher.hear(event) else { return };
    if !owned.passes(watcher, &step) {
        return;
    }
    out.event(&event::Event::State {
        at: wall_time(step.at),
        exact: step.exact,
        local: step.ends.0,
        peer: step.ends.1,
        old: step.old,
        new: step.new,
        after: step.since.map(|since| step.at.saturating_sub(since)),
    });
}

/// The time of day at `moment`.
pub(crate) fn wall_time(moment: Moment) -> Timestamp {
    let ago = monotonic().saturating_sub(moment);
    let ago = SignedDuration::try_from(ago).unwrap_or(SignedDuration::MAX);
    Timestamp::now().checked_sub(ago).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// Which connections belong to a process that the filter names. Only while a program has it can a socket tell.
#[derive(Debug, Default)]
struct Owned {
    known: HashMap<Ends, bool>,
}

impl Owned {
    fn passes(&mut self, watcher: &mut Watcher, step: &Step) -> bool {
        if !watcher.filter.needs_owners() {
            return true;
        }
        if step.old == towpath_diag::State::Closed {
            self.known.remove(&step.ends);
        }
        let passes = match self.known.get(&step.ends) {
            Some(&passes) => passes,
            None => match watcher.is_owned(&step.ends, Want::empty()) {
                Some(passes) => *self.known.entry(step.ends).or_insert(passes),
                None => false,
            },
        };
        if step.new == towpath_diag::State::Closed {
            self.known.remove(&step.ends);
        }
        passes
    }
}
