//! `--events`: a line for each change of a socket's state.

#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::io;

use jiff::{SignedDuration, Timestamp};
use towpath::sync::channel::{self, Receiver};
use towpath::time::Instant;
use towpath_diag::{Event, Source, State, monotonic};

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

/// Of how many connections it is known at most whose they are.
const MOST: usize = 50_000;

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
        if deadline.is_some_and(|deadline| now >= deadline) {
            return Ok(Ended::With(Exit::Done));
        }
        if !options.checks.is_empty() && now >= next_look {
            next_look = now + options.interval;
            watcher.look()?;
            if let Some(why) = watcher.failed_check() {
                return Err(Failure::new(Exit::CheckFailed, why));
            }
        }
        let look = (!options.checks.is_empty()).then_some(next_look);
        let due = [look, deadline].into_iter().flatten().min();
        let batch = match calls.wait(due) {
            // One also where looks are always due.
            Woken::Due => batches.try_recv().ok(),
            Woken::Batch(batch) => Some(batch),
            Woken::Stop(signal) => return Ok(Ended::Signal(signal)),
            Woken::Lost(why) => return crate::output::stdout_lost(why).map(Ended::With),
        };
        if let Some(batch) = batch {
            tell(&mut watcher, &mut owned, out, &batch.map_err(|e| broken(&e))?);
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

fn tell(watcher: &mut Watcher, owned: &mut Owned, out: &Output, events: &[Event]) {
    let steps: Vec<Option<Step>> = events.iter().map(|event| watcher.hear(event)).collect();
    let named = watcher.filter.needs_owners();
    if named {
        owned.learn(watcher, steps.iter().flatten());
    }
    for (event, step) in events.iter().zip(steps) {
        if let Event::Lost(changes) = event {
            out.event(&event::Event::Lost { changes: *changes });
        }
        let Some(step) = step else { continue };
        if named && !owned.passes(watcher, &step) {
            continue;
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
    /// By connection: its inode, and whether it does.
    known: HashMap<Ends, (u32, bool)>,
    /// The inodes that were asked for lately, for those that are not known.
    found: HashMap<Ends, Option<u32>>,
}

impl Owned {
    /// Looks for the owners of all whose `steps` these are, at once: that is dear.
    fn learn<'a>(&mut self, watcher: &mut Watcher, steps: impl Iterator<Item = &'a Step>) {
        if self.known.len() >= MOST {
            // The end of some was never told.
            self.known.clear();
        }
        self.found.clear();
        for step in steps {
            if step.old == State::Closed || !self.known.contains_key(&step.ends) {
                self.found.entry(step.ends).or_insert_with_key(|ends| watcher.inode_of(ends));
            }
        }
        let needed: Vec<u32> = self.found.values().copied().flatten().collect();
        if !needed.is_empty() {
            watcher.learn_owners_of(&needed, self.known.values().map(|&(inode, _)| inode));
        }
    }

    fn passes(&mut self, watcher: &Watcher, step: &Step) -> bool {
        if step.old == State::Closed {
            self.known.remove(&step.ends);
        }
        let found = self.found.get(&step.ends).copied().flatten();
        let known = self.known.get(&step.ends).copied();
        let known = known.or_else(|| found.map(|inode| (inode, watcher.has_wanted_owner(inode))));
        match known {
            Some(known) if step.new != State::Closed => drop(self.known.insert(step.ends, known)),
            _ => drop(self.known.remove(&step.ends)),
        }
        known.is_some_and(|(_, passes)| passes)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    use super::*;
    use crate::args::View;

    fn watcher(filter: &str) -> Watcher {
        let (filter, interval, view) = (filter.parse().unwrap(), Duration::from_secs(1), View::Events);
        let (limit, checks, cumulative, resolve) = (None, vec![], false, false);
        Watcher::new(&Watch { filter, interval, view, limit, checks, cumulative, resolve }).unwrap()
    }

    fn step(stream: &TcpStream, old: State, new: State) -> Step {
        let ends = (stream.local_addr().unwrap(), Some(stream.peer_addr().unwrap()));
        Step { at: monotonic(), exact: true, ends, old, new, since: None }
    }

    #[test]
    fn who_has_a_connection_stays_known_while_others_come() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let [first, second] = [(); 2].map(|()| TcpStream::connect(listener.local_addr().unwrap()).unwrap());
        let mut watcher = watcher(&format!("process:{}", std::process::id()));
        let mut owned = Owned::default();
        for stream in [&first, &second] {
            let step = step(stream, State::Closed, State::SynSent);
            owned.learn(&mut watcher, std::iter::once(&step));
            assert!(owned.passes(&watcher, &step));
        }
        let inode = watcher.inode_of(&step(&first, State::Closed, State::SynSent).ends).unwrap();
        assert!(watcher.has_wanted_owner(inode));
        // What is known needs no socket any more.
        let closed = step(&first, State::SynSent, State::Closed);
        drop(first);
        owned.learn(&mut watcher, std::iter::once(&closed));
        assert!(owned.passes(&watcher, &closed));
        assert_eq!(owned.known.len(), 1);
    }

    #[test]
    fn one_batch_may_tell_of_several_lives_at_the_same_addresses() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut watcher = watcher(&format!("process:{}", std::process::id()));
        let mut owned = Owned::default();
        let ends = step(&stream, State::Closed, State::SynSent).ends;
        // Another's had these addresses before.
        owned.known.insert(ends, (1, false));
        let steps = [(State::Established, State::Closed), (State::Closed, State::SynSent)];
        let steps = steps.map(|(old, new)| step(&stream, old, new));
        owned.learn(&mut watcher, steps.iter());
        assert_eq!(steps.map(|step| owned.passes(&watcher, &step)), [false, true]);
    }
}
