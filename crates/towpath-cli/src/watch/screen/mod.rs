//! The table on the whole terminal, with keys.
//!
//! One thread runs all of it: it takes keys, changes of state, tasks and signals as they come (`run`), lets `app` say what
//! they mean, and draws (`draw`) what `app` shows. `terminal` has the terminal as long as it is ours, `keys` reads it.
//! `prompt` is the line in which a filter is typed, `detail` all about one socket, `limits` what keeps that from sending
//! faster; `recording` writes segments to a file.

#![forbid(unsafe_code)]

mod app;
mod detail;
mod draw;
mod keys;
mod limits;
mod prompt;
mod recording;
pub(crate) mod terminal;

use std::{fs, io, thread};

use rustix::process::getppid;
use signal_hook::consts::{SIGCONT, SIGHUP, SIGINT, SIGTERM, SIGTSTP, SIGWINCH};
use signal_hook::low_level::emulate_default_handler;
use towpath::sync::channel::{self, Receiver, Sender, TrySendError};
use towpath::time::Instant;

use self::app::{App, Wish};
use self::keys::{Key, Typed};
use self::recording::{Recorded, Recording, Wanted};
use self::terminal::Screen;
use super::columns::Tone;
use super::feed::{Batch, Feed};
use super::table::Ends;
use super::tasks::Tasks;
use super::watcher::Watcher;
use super::{Ended, endpoints};
use crate::args::Watch;
use crate::exit::{Exit, Failure, reason};
use crate::output::Output;
use crate::output::event::Event;
use crate::output::look::Look;

/// The signals that a screen has to know of.
pub(crate) const SIGNALS: &[i32] = &[SIGINT, SIGTERM, SIGHUP, SIGTSTP, SIGCONT, SIGWINCH];

/// How much news waits at most.
const NEWS: usize = 256;

/// What comes to the screen.
#[derive(Debug)]
enum News {
    Typed(Typed),
    Batch(Batch),
    Tasks(Tasks),
}

impl From<Typed> for News {
    fn from(typed: Typed) -> News {
        News::Typed(typed)
    }
}

impl From<Batch> for News {
    fn from(batch: Batch) -> News {
        News::Batch(batch)
    }
}

/// What is to be done next.
enum Next {
    Look,
    News(News),
    Signal(i32),
}

/// Shows the table until it is told to stop.
pub(super) fn run(options: &Watch, out: &Output, look: Look, signals: &Receiver<i32>) -> Result<Ended, Failure> {
    let watcher = Watcher::new(options)?;
    let (send, news) = channel::bounded(NEWS);
    keys::start(send.clone()).map_err(|e| failed("read the terminal", &e))?;
    let screen = Screen::take().map_err(|e| failed("take the terminal", &e))?;
    let size = screen.size().unwrap_or((80, 24));
    let mut show = Show {
        options,
        app: App::new(watcher, look, options.interval, size),
        screen,
        feed: None,
        inspect: start_inspecting(send.clone()).map_err(|e| failed("start a thread", &e))?,
        send,
        recording: None,
        recorded: vec![],
        limit: options.limit.map(|limit| Instant::now() + limit),
        next_look: Instant::now(),
        stale: true,
    };
    show.follow();
    let ended = show.run(&news, signals);
    // What waits for room among the news waits no longer.
    drop(news);
    let files = show.end();
    drop(show);
    for recorded in files {
        let Recorded { path, segments, dropped } = recorded;
        out.event(&Event::Recorded { file: path.display().to_string(), segments, dropped });
    }
    ended
}

/// Whether who started us belongs to the same terminal, as a shell does that takes over when we stop.
fn has_shell() -> bool {
    let Some(parent) = getppid() else { return false };
    let ours = controlling_terminal("self");
    ours.is_some() && ours == controlling_terminal(&parent.as_raw_nonzero().to_string())
}

/// The device that is the controlling terminal of a process: field 7 of proc_pid_stat(5). It belongs to one session, whose
/// number does not tell them apart: it is 0 for every session that began outside our PID namespace.
fn controlling_terminal(process: &str) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name, in brackets, is anything at all.
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_ascii_whitespace().nth(4)?.parse().ok().filter(|&device| device != 0)
}

fn failed(what: &str, error: &io::Error) -> Failure {
    let failure = Failure::new(Exit::Other, format!("{what}: {}", reason(error)));
    failure.hint("Without a terminal: towpath watch --once, or --events")
}

struct Show<'a> {
    options: &'a Watch,
    app: App,
    screen: Screen,
    feed: Option<Feed>,
    /// Has the tasks asked for.
    inspect: Sender<()>,
    send: Sender<News>,
    recording: Option<Recording>,
    /// Files that were written.
    recorded: Vec<Recorded>,
    limit: Option<Instant>,
    next_look: Instant,
    /// Whether the screen is behind. Changes of state by themselves wait for the next look: they may be many.
    stale: bool,
}

impl Show<'_> {
    fn run(&mut self, news: &Receiver<News>, signals: &Receiver<i32>) -> Result<Ended, Failure> {
        loop {
            if self.limit.is_some_and(|limit| Instant::now() >= limit) {
                return Ok(Ended::With(Exit::Done));
            }
            if Instant::now() >= self.next_look {
                self.next_look = Instant::now() + self.options.interval;
                self.stale = true;
                if !self.app.is_paused() {
                    self.look()?;
                }
            }
            if std::mem::take(&mut self.stale)
                && let Some(ended) = self.draw()?
            {
                return Ok(ended);
            }
            let ended = match self.wait(news, signals) {
                Next::Look => None,
                Next::News(news) => self.take(news)?,
                Next::Signal(signal) => self.signal(signal)?,
            };
            if let Some(ended) = ended {
                return Ok(ended);
            }
            // All that has come is taken in before it is drawn, so that much of it costs no more than a little; but not what
            // keeps coming meanwhile.
            for news in news.try_iter().take(NEWS) {
                if let Some(ended) = self.take(news)? {
                    return Ok(ended);
                }
            }
        }
    }

    fn wait(&self, news: &Receiver<News>, signals: &Receiver<i32>) -> Next {
        let due = self.limit.map_or(self.next_look, |limit| limit.min(self.next_look));
        let left = due.saturating_duration_since(Instant::now());
        if left.is_zero() {
            // Also if there is always news.
            return signals.try_recv().map_or(Next::Look, Next::Signal);
        }
        towpath::select! {
            recv(news) -> news => news.map_or(Next::Look, Next::News),
            recv(signals) -> signal => signal.map_or(Next::Look, Next::Signal),
            timeout(left) => Next::Look,
        }
    }

    fn look(&mut self) -> Result<(), Failure> {
        self.app.look()?;
        if let Some(why) = self.app.watcher.failed_check() {
            return Err(Failure::new(Exit::CheckFailed, why));
        }
        if self.app.wants_tasks() {
            // One that has not answered yet answers for this look too.
            match self.inspect.try_send(()) {
                Ok(()) | Err(TrySendError::Full(())) => {}
                Err(_) => self.app.say("the thread that asks for tasks has ended", Tone::Alarm),
            }
        }
        Ok(())
    }

    /// Draws what there is; where that cannot be, the terminal is gone, and with it the reason to go on.
    fn draw(&mut self) -> Result<Option<Ended>, Failure> {
        if !terminal::is_ours() {
            return Err(Failure::new(Exit::Other, "another thread has panicked"));
        }
        let Ok(size) = self.screen.size() else { return Ok(Some(Ended::With(Exit::Done))) };
        self.app.set_size(size);
        if self.recording.as_ref().is_some_and(Recording::has_failed) {
            self.capture(None);
        }
        self.app.set_recording(self.recording.as_ref().map(Recording::progress));
        let scene = self.app.scene();
        let drawn = self.screen.draw(|frame| draw::draw(frame, &scene));
        Ok(drawn.is_err().then_some(Ended::With(Exit::Done)))
    }

    fn take(&mut self, news: News) -> Result<Option<Ended>, Failure> {
        match news {
            News::Typed(Typed::Gone) => return Ok(Some(Ended::With(Exit::Done))),
            News::Typed(Typed::Key(key)) => return self.key(key),
            News::Batch(Ok(events)) => events.iter().for_each(|event| self.app.hear(event)),
            News::Batch(Err(e)) => {
                self.feed = None;
                self.stale = true;
                self.app.set_source(Err(&reason(&e)));
            }
            News::Tasks(tasks) => {
                self.stale |= !tasks.is_empty();
                self.app.watcher.tasks = tasks;
            }
        }
        Ok(None)
    }

    fn key(&mut self, key: Key) -> Result<Option<Ended>, Failure> {
        self.stale = true;
        match self.app.key(key) {
            None => {}
            Some(Wish::Quit(exit)) => return Ok(Some(Ended::With(exit))),
            Some(Wish::Suspend) if has_shell() => return self.signal(SIGTSTP),
            Some(Wish::Suspend) => self.app.say("there is no shell here that could bring us back", Tone::Plain),
            Some(Wish::Redraw) => self.screen.forget().map_err(|e| failed("draw", &e))?,
            Some(Wish::Filter) => {
                self.follow();
                self.look()?;
            }
            Some(Wish::Capture(ends)) => self.capture(ends),
        }
        Ok(None)
    }

    fn signal(&mut self, signal: i32) -> Result<Option<Ended>, Failure> {
        self.stale = true;
        match signal {
            // What is on it may have been cut, though its size be the same again by now.
            SIGWINCH => self.screen.forget().map_err(|e| failed("draw", &e))?,
            SIGTSTP => {
                terminal::give_back();
                // Returns when we are to go on.
                let _ = emulate_default_handler(SIGTSTP);
                self.take_again()?;
            }
            // We were stopped by what cannot be caught, and who stopped us may have used the terminal.
            SIGCONT => self.take_again()?,
            _ => return Ok(Some(Ended::Signal(signal))),
        }
        Ok(None)
    }

    fn take_again(&mut self) -> Result<(), Failure> {
        self.next_look = Instant::now();
        self.screen.take_again().map_err(|e| failed("take the terminal", &e))
    }

    /// Ends what still goes on, and says which files were written.
    fn end(&mut self) -> Vec<Recorded> {
        if let Some(recording) = self.recording.take() {
            // An error cannot be told any better than by a file that lacks its end.
            self.recorded.extend(recording.stop());
        }
        std::mem::take(&mut self.recorded)
    }

    /// Begins to write segments to a file, or ends it.
    fn capture(&mut self, ends: Option<Ends>) {
        match self.recording.take() {
            Some(recording) => match recording.stop() {
                Ok(recorded) => {
                    let (path, Recorded { segments, dropped, .. }) = (recorded.path.display(), &recorded);
                    let lost = if *dropped > 0 { format!(", {dropped} were dropped") } else { String::new() };
                    let tone = if *dropped > 0 { Tone::Alarm } else { Tone::Plain };
                    self.app.say(format!("{segments} segments are in {path}{lost}"), tone);
                    self.recorded.push(recorded);
                }
                Err(why) => self.app.say(why, Tone::Alarm),
            },
            None => {
                let wanted = ends.map_or_else(|| Wanted::Passing(self.app.watcher.filter.clone()), Wanted::Of);
                match Recording::start(wanted, self.app.owner_of_chosen()) {
                    Ok(recording) => self.recording = Some(recording),
                    Err(why) => self.app.say(why, Tone::Alarm),
                }
            }
        }
        self.app.set_recording(self.recording.as_ref().map(Recording::progress));
    }

    /// Follows the changes of the sockets that the filter lets pass, from now on.
    fn follow(&mut self) {
        // The one before first gives back what it has of the kernel.
        self.feed = None;
        match Feed::start(&self.app.watcher.filter.kernels(), self.send.clone()) {
            Ok(feed) => {
                self.app.set_source(Ok(feed.source()));
                self.feed = Some(feed);
            }
            Err(e) => self.app.set_source(Err(&reason(&e))),
        }
    }
}

/// A thread that asks programs for their tasks, each time that it is told to: one that does not answer holds up only that.
fn start_inspecting(to: Sender<News>) -> io::Result<Sender<()>> {
    let (ask, asked) = channel::bounded::<()>(1);
    let inspect = move || {
        while asked.recv().is_ok() {
            if to.send(News::Tasks(endpoints::ask())).is_err() {
                return;
            }
        }
    };
    thread::Builder::new().name("tasks".into()).spawn(inspect)?;
    Ok(ask)
}
