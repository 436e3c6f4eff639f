//! Where the tour takes place, and all that one sees of it: what tasks tell, segments, sockets, parked tasks. Each wait
//! is for something to be seen, and says what it waited for when it does not come.

#![forbid(unsafe_code)]

use std::io;
use std::time::Duration;

use towpath::sync::channel::{self, Receiver, Sender};
use towpath::task::{TaskDump, TaskInfo};
use towpath::time::Instant;
use towpath_diag::{Diag, Filter, Socket, Want};

use super::keys::{Key, Keys};
use super::ladder::Ladder;
use super::told::{Deed, Said};
use super::wire::{Heard, Wire};
use crate::exit::{Exit, Failure, reason};
use crate::output::Output;
use crate::output::event::Event;

/// After this a wait is in vain. On one machine everything takes milliseconds, unless it is very busy.
const PATIENCE: Duration = Duration::from_secs(20);

/// How often to look at what tells nobody when it changes: states, to those without privilege, and parked tasks. A
/// segment, or a task that tells something, is an occasion too.
const LOOK: Duration = Duration::from_millis(10);

/// What has been as it is for so long is not about to change.
const STILL: Duration = Duration::from_millis(50);

/// Why the tour ends before its end.
#[derive(Debug)]
pub(super) enum Halt {
    Failed(Failure),
    Signal(i32),
    /// Nobody reads our stdout any more, or it takes no more.
    Lost(Option<io::Error>),
    /// `q` was pressed.
    Quit,
}

impl From<Failure> for Halt {
    fn from(failure: Failure) -> Halt {
        Halt::Failed(failure)
    }
}

/// What there is to see.
pub(super) struct Stage<'a> {
    pub(super) out: &'a Output,
    pub(super) stop: &'a Receiver<i32>,
    pub(super) said: Receiver<Said>,
    /// Segments, where one may see them.
    pub(super) wire: Option<Wire>,
    /// Whether all that had passed when it was last asked for has come.
    caught_up: bool,
    pub(super) keys: Option<Keys>,
    /// What comes instead of segments where one may not see any: nothing, ever, for its sender is here too.
    silence: (Sender<io::Result<Heard>>, Receiver<io::Result<Heard>>),
    diag: Diag,
    filter: Filter,
    /// The sockets when we last looked.
    looked: Vec<Socket>,
    /// What was told since it was last taken.
    pub(super) deeds: Vec<Said>,
    pub(super) ladder: Ladder,
}

impl<'a> Stage<'a> {
    /// To see what happens at `port`.
    pub(super) fn new(
        (out, stop): (&'a Output, &'a Receiver<i32>),
        said: Receiver<Said>,
        wire: Option<Wire>,
        keys: Option<Keys>,
        port: u16,
    ) -> Result<Stage<'a>, Halt> {
        let diag = Diag::open().map_err(|e| failed("ask the kernel for sockets", &e))?;
        let mut filter = Filter::new();
        filter.ports.push(port);
        let ladder = Ladder::new(out.form());
        Ok(Stage {
            out,
            stop,
            said,
            wire,
            caught_up: true,
            keys,
            silence: channel::unbounded(),
            diag,
            filter,
            looked: Vec::new(),
            deeds: Vec::new(),
            ladder,
        })
    }

    /// Waits until a task has told of this.
    pub(super) fn deed(&mut self, what: &str, is_it: impl Fn(&Deed) -> bool) -> Result<(), Halt> {
        self.until(what, |stage| Ok(stage.deeds.iter().any(|said| is_it(&said.deed))))
    }

    /// Waits until the kernel's sockets are like this.
    pub(super) fn sockets(&mut self, what: &str, are_they: impl Fn(&[Socket]) -> bool) -> Result<(), Halt> {
        self.until(what, |stage| {
            stage.look()?;
            Ok(are_they(&stage.looked))
        })
    }

    /// Waits until the task of this name has waited in this operation for a while, and the sockets have been like this
    /// all the time, with nothing that moves.
    pub(super) fn stuck(
        &mut self,
        (name, operation): (&str, &str),
        are_they: impl Fn(&[Socket]) -> bool,
    ) -> Result<TaskInfo, Halt> {
        let mut found = None;
        let mut still: Option<Still> = None;
        self.until(&format!("the task '{name}' to be stuck in {operation}"), |stage| {
            stage.look()?;
            found = find(&towpath::task::dump(), name, operation);
            if found.is_none() || !are_they(&stage.looked) {
                still = None;
                return Ok(false);
            }
            let now = Still::of(stage);
            if still.as_ref().is_none_or(|before| !before.is_like(&now)) {
                still = Some(now);
            }
            Ok(still.as_ref().is_some_and(|still| still.since.elapsed() >= STILL))
        })?;
        Ok(found.expect("that was waited for"))
    }

    /// Has `looked` be the sockets as they are now.
    fn look(&mut self) -> Result<(), Halt> {
        let sockets = self.diag.sockets(&self.filter, Want::INFO);
        self.looked = sockets.map_err(|e| failed("ask the kernel for sockets", &e))?;
        Ok(())
    }

    /// Waits until the segments that were seen are like this, if one sees them at all.
    pub(super) fn segments(&mut self, what: &str, are_they: impl Fn(&Ladder) -> bool) -> Result<(), Halt> {
        if self.wire.is_none() {
            return Ok(());
        }
        self.until(what, |stage| Ok(are_they(&stage.ladder)))
    }

    /// Waits until every segment that has passed by now is here.
    pub(super) fn catch_up(&mut self) -> Result<(), Halt> {
        let Some(wire) = &self.wire else { return Ok(()) };
        wire.ask();
        self.caught_up = false;
        self.until("the segments that have passed", |stage| Ok(stage.caught_up))
    }

    /// Waits until the task of this name waits in this operation, and returns it.
    pub(super) fn parked(&mut self, name: &str, operation: &str) -> Result<TaskInfo, Halt> {
        let mut found = None;
        self.until(&format!("the task '{name}' to wait in {operation}"), |_| {
            found = find(&towpath::task::dump(), name, operation);
            Ok(found.is_some())
        })?;
        Ok(found.expect("that was waited for"))
    }

    /// Waits for a key, if that was asked for.
    pub(super) fn key(&mut self, next: &str) -> Result<(), Halt> {
        let Some(keys) = &self.keys else { return Ok(()) };
        // Dropped on the way out, whichever that is: the terminal is as it was.
        let single = keys.want();
        self.out.event(&Event::Key { next, single: single.0 });
        let key = towpath::select! {
            recv(self.stop) -> signal => return Err(stopped(signal.ok())),
            recv(self.out.lost()) -> why => return Err(Halt::Lost(why.ok())),
            recv(keys.pressed) -> key => key,
        };
        match key {
            Ok(Ok(Key::Any)) => Ok(()),
            // The thread that reads keys lasts as long as we do.
            Ok(Ok(Key::Quit)) | Err(_) => Err(Halt::Quit),
            Ok(Err(e)) => Err(failed("read a key", &e)),
        }
    }

    /// Waits until `done`, for no longer than [`PATIENCE`].
    fn until(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> Result<bool, Halt>) -> Result<(), Halt> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.take_in()?;
            if done(self)? {
                return Ok(());
            }
            if Instant::now() >= deadline {
                let waited = crate::output::units::option(PATIENCE);
                let what = format!("tour: waited {waited} in vain for {what}; {}", self.known());
                return Err(Failure::new(Exit::TimedOut, what).hint("Is this machine very busy? try again").into());
            }
            self.wait()?;
        }
    }

    /// What has been seen, for whoever wonders what has not.
    fn known(&self) -> String {
        let deeds = self.deeds.iter().map(|said| format!("{}: {}", said.who, said.deed.words(true)));
        let tasks = towpath::task::dump();
        let waiting =
            tasks.tasks().iter().filter_map(|task| Some(format!("{} in {}", task.name()?, task.operation()?)));
        let sockets = self
            .looked
            .iter()
            .map(|socket| format!("{} {} {}/{}", socket.local, socket.state, socket.receive_queue, socket.send_queue));
        let list = |items: Vec<String>| if items.is_empty() { "none".to_owned() } else { items.join(", ") };
        format!(
            "told: {}; tasks that wait: {}; sockets: {}; segments: {}",
            list(deeds.collect()),
            list(waiting.collect()),
            list(sockets.collect()),
            self.ladder.count,
        )
    }

    /// Waits for an occasion to look.
    fn wait(&mut self) -> Result<(), Halt> {
        let wire = self.wire.as_ref().map_or(&self.silence.1, |wire| &wire.heard);
        let (said, heard) = towpath::select! {
            recv(self.stop) -> signal => return Err(stopped(signal.ok())),
            recv(self.out.lost()) -> why => return Err(Halt::Lost(why.ok())),
            recv(self.said) -> said => (said.ok(), None),
            recv(wire) -> heard => (None, heard.ok()),
            timeout(LOOK) => (None, None),
        };
        said.map_or(Ok(()), |said| self.hear(said))?;
        heard.map_or(Ok(()), |heard| self.see(heard))
    }

    /// Takes in what is there, without waiting.
    fn take_in(&mut self) -> Result<(), Halt> {
        while let Ok(said) = self.said.try_recv() {
            self.hear(said)?;
        }
        while let Some(Ok(heard)) = self.wire.as_ref().map(|wire| wire.heard.try_recv()) {
            self.see(heard)?;
        }
        Ok(())
    }

    fn hear(&mut self, said: Said) -> Result<(), Halt> {
        if let Deed::Failed { error } = &said.deed {
            return Err(Failure::new(Exit::Other, format!("tour: {}: {error}", said.who)).into());
        }
        self.deeds.push(said);
        Ok(())
    }

    fn see(&mut self, heard: io::Result<Heard>) -> Result<(), Halt> {
        let Heard::Passed(passed) = heard.map_err(|e| failed("capture", &e))? else {
            self.caught_up = true;
            return Ok(());
        };
        if passed.dropped > 0 {
            let what = format!("tour: {} segments were dropped before we saw them", passed.dropped);
            return Err(Failure::new(Exit::Other, what).hint("This machine is very busy; try again").into());
        }
        self.ladder.take(&passed.frame());
        Ok(())
    }
}

/// What would change if anything moved.
struct Still {
    since: Instant,
    deeds: usize,
    queues: Vec<(u32, u32)>,
}

impl Still {
    fn of(stage: &Stage<'_>) -> Still {
        let queues = stage.looked.iter().map(|socket| (socket.receive_queue, socket.send_queue)).collect();
        Still { since: Instant::now(), deeds: stage.deeds.len(), queues }
    }

    fn is_like(&self, other: &Still) -> bool {
        (self.deeds, &self.queues) == (other.deeds, &other.queues)
    }
}

/// The task of this name that waits in this operation.
fn find(dump: &TaskDump, name: &str, operation: &str) -> Option<TaskInfo> {
    let is_it = |task: &&TaskInfo| task.name() == Some(name) && task.operation() == Some(operation);
    dump.tasks().iter().find(is_it).cloned()
}

fn stopped(signal: Option<i32>) -> Halt {
    // The thread that waits for signals lasts as long as the process.
    Halt::Signal(signal.unwrap_or(signal_hook::consts::SIGTERM))
}

pub(super) fn failed(doing: &str, error: &io::Error) -> Halt {
    Failure::new(Exit::of(error), format!("{doing}: {}", reason(error))).into()
}
