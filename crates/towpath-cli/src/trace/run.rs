//! A trace from its beginning to its end: the thread that takes packets in, this one that shows what happens, and what
//! ends it: a signal, the time, the reader of our output, or that there is no more.

#![forbid(unsafe_code)]

use std::io::IsTerminal as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::{fs, io};

use signal_hook::consts::SIGINT;
use signal_hook::low_level::emulate_default_handler;
use towpath::sync::channel::{self, Receiver, TryRecvError};
use towpath::time::Instant;

use super::ends::Ends;
use super::packets;
use super::packets::FilePackets;
use super::present::Presenter;
use super::pump::{Account, Pump};
use super::queue::{Happening, Queue};
use super::save::Saver;
use super::stop::Stop;
use super::tracer::Tracer;
use super::who::Clerk;
use crate::args::{Origin, Trace};
use crate::exit::{Exit, Failure, reason};
use crate::output::event::Event;
use crate::output::{self, Output};

/// How many segments wait to be shown at most; fewer where what they carry is kept too.
const QUEUE: usize = 16_384;
const QUEUE_WITH_DATA: usize = 1_024;
/// How many happenings become text at once at most, and how many bytes most of them take.
const BATCH: usize = 128;
const SEGMENT: usize = 256;

/// What ended it.
enum Ended {
    /// There is no more, or enough.
    AtItsEnd,
    /// This signal.
    Signal(i32),
    /// Nobody reads our stdout any more, or it takes no more.
    Unread(Option<io::Error>),
}

/// Shows what passes until it ends or is told to.
pub(super) fn run(options: &Trace, out: &Output, stop: &Receiver<i32>) -> Result<Exit, Failure> {
    let order = Stop::new().map_err(|e| Failure::new(Exit::Other, format!("start: {}", reason(&e))))?;
    let ends = if options.resolve { Ends::resolved() } else { Ok(Ends::numeric()) };
    let ends = ends.map_err(|e| Failure::new(Exit::Other, format!("start: {}", reason(&e))))?;

    let capacity = if options.data { QUEUE_WITH_DATA } else { QUEUE };
    let (send, happenings) = channel::bounded(capacity);
    let mut pump = Pump {
        tracer: Tracer::new(options.wanted.clone()),
        saver: None,
        clerk: None,
        queue: Queue::new(send, !matches!(options.from, Origin::Interface(_))),
        stop: order.clone(),
        count: options.count.map(Into::into),
        data: options.data,
    };
    // The file to write is emptied only when there is something to read.
    let create = || options.write.as_deref().map(|path| create(path, &options.from)).transpose();
    let account = match &options.from {
        Origin::Interface(name) => {
            let filter = &options.wanted.filter;
            let capture = packets::listen(name, filter, options.data || options.write.is_some())?;
            pump.saver = create()?;
            pump.clerk = Clerk::start();
            out.event(&Event::Tracing { interface: name, filter: &filter.to_string() });
            let name = name.clone();
            towpath::task::spawn_blocking(move || pump.run_live(capture, &name))
        }
        from => {
            let packets = match from {
                Origin::File(path) => FilePackets::open(path, &order)?,
                _ => FilePackets::stdin(&order)?,
            };
            pump.saver = create()?;
            towpath::task::spawn_blocking(move || pump.run_file(packets))
        }
    };
    let file = options.write.as_ref().map(|path| path.display().to_string());

    let presenter = Presenter::new(out.form(), options.shape, options.data, ends);
    let ended = Show { presenter, out, stop, order, happenings }.run(options.limit.map(|limit| Instant::now() + limit));
    let account = account.join().unwrap_or_else(|_| Account {
        failure: Some(Failure::new(Exit::Other, "the thread that takes packets in has panicked")),
        ..Account::default()
    });
    conclude(ended, account, file.as_deref(), options, out)
}

/// Creates the file to write, unless it is the one to read.
fn create(path: &Path, from: &Origin) -> Result<Saver, Failure> {
    let identity = |path: &Path| fs::metadata(path).ok().map(|file| (file.dev(), file.ino()));
    if let Origin::File(read) = from
        && identity(path).is_some_and(|file| identity(read) == Some(file))
    {
        let what = format!("-w {}: it is the file that is read", path.display());
        return Err(Failure::new(Exit::Usage, what).hint("Name another file"));
    }
    Saver::create(path)
}

/// Says what it came to, and decides what that means.
fn conclude(
    ended: Ended,
    account: Account,
    file: Option<&str>,
    options: &Trace,
    out: &Output,
) -> Result<Exit, Failure> {
    let Account { tally, dropped, left_out, ends_left_out, failure } = account;
    // Who has read enough is told no more.
    if !matches!(ended, Ended::Unread(None)) || file.is_some() {
        out.event(&Event::Traced {
            segments: tally.segments,
            connections: tally.connections,
            dropped,
            not_shown: left_out,
            ends_not_shown: ends_left_out,
            unreadable: tally.unreadable,
            why: tally.why.map(|why| why.to_string()),
            file: file.filter(|_| failure.is_none()),
        });
    }
    if let Some(failure) = failure {
        return Err(failure);
    }
    match ended {
        Ended::AtItsEnd => match (&options.from, options.wanted.conn) {
            (Origin::File(path), Some(conn)) if tally.connections == 0 => {
                Err(no_connection(&path.display().to_string(), conn, tally.numbered))
            }
            (Origin::Stdin, Some(conn)) if tally.connections == 0 => Err(no_connection("stdin", conn, tally.numbered)),
            _ => Ok(Exit::Done),
        },
        Ended::Unread(why) => output::stdout_lost(why),
        Ended::Signal(SIGINT) => Ok(Exit::Interrupted),
        Ended::Signal(signal) => {
            // Everything is put away, and so we end as whoever sent it expects: by it.
            out.finish();
            let _ = emulate_default_handler(signal);
            Ok(Exit::Interrupted)
        }
    }
}

/// Of a file with so many connections that pass the filter, none was the one that was asked for.
fn no_connection(name: &str, conn: u64, there_are: u64) -> Failure {
    let what = format!("read {name}: there is no connection {conn}");
    Failure::new(Exit::Other, what).hint(match there_are {
        0 => "There is none that passes the filter".to_owned(),
        1 => "There is 1 only; try: --conn 1".to_owned(),
        most => format!("There are 1 to {most}"),
    })
}

/// The side that shows.
struct Show<'a> {
    presenter: Presenter,
    out: &'a Output,
    stop: &'a Receiver<i32>,
    order: Stop,
    happenings: Receiver<Happening>,
}

impl Show<'_> {
    /// Shows all that happens, and has the other side stop when it is to end.
    fn run(mut self, deadline: Option<Instant>) -> Ended {
        let ended = loop {
            match self.next(deadline) {
                Ok(happening) => {
                    let batch = self.batch(happening);
                    let signal = self.presenter.learn(batch.iter().flat_map(Happening::addresses), self.stop);
                    self.show(batch);
                    if let Some(signal) = signal {
                        break Ended::Signal(signal);
                    }
                }
                Err(ended) => break ended,
            }
        };
        self.order.raise();
        // What was taken in by then, and how the connections stand that are open.
        while let Ok(happening) = self.happenings.recv() {
            if !matches!(ended, Ended::Unread(_)) {
                self.show(self.batch(happening));
            }
        }
        let mut rest = String::new();
        self.presenter.finish(&mut rest);
        self.out.text(rest);
        // Nobody may have read the last of it.
        self.out.finish();
        match (ended, self.out.lost().try_recv()) {
            (Ended::AtItsEnd, Ok(why)) => Ended::Unread(Some(why)),
            (Ended::AtItsEnd, Err(TryRecvError::Disconnected)) => Ended::Unread(None),
            (ended, _) => ended,
        }
    }

    fn next(&self, deadline: Option<Instant>) -> Result<Happening, Ended> {
        let Some(deadline) = deadline else {
            return towpath::select! {
                recv(self.happenings) -> happening => happening.map_err(|_| Ended::AtItsEnd),
                recv(self.stop) -> signal => Err(Ended::Signal(signal.unwrap_or(SIGINT))),
                recv(self.out.lost()) -> why => Err(Ended::Unread(why.ok())),
            };
        };
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            // Also if there is always something to show.
            return Err(Ended::AtItsEnd);
        }
        towpath::select! {
            recv(self.happenings) -> happening => happening.map_err(|_| Ended::AtItsEnd),
            recv(self.stop) -> signal => Err(Ended::Signal(signal.unwrap_or(SIGINT))),
            recv(self.out.lost()) -> why => Err(Ended::Unread(why.ok())),
            timeout(left) => Err(Ended::AtItsEnd),
        }
    }

    /// This and what has happened meanwhile.
    fn batch(&self, first: Happening) -> Vec<Happening> {
        std::iter::once(first).chain(self.happenings.try_iter()).take(BATCH).collect()
    }

    fn show(&mut self, batch: Vec<Happening>) {
        let width = columns();
        let mut text = String::with_capacity(BATCH * SEGMENT);
        for happening in batch {
            match happening {
                Happening::Segment(passed) => {
                    if passed.left_out > 0 {
                        self.presenter.left_out(passed.left_out, &mut text);
                    }
                    passed.tell(|told| self.presenter.segment(told, width, &mut text));
                }
                Happening::Over(flow, dropped) => self.presenter.over(&flow, dropped, width, &mut text),
                Happening::Down => self.out.event(&Event::Down),
            }
        }
        if !text.is_empty() {
            self.out.text(text);
        }
    }
}

/// How wide the terminal is that stdout is; or COLUMNS, or 100.
pub(crate) fn columns() -> usize {
    let stdout = io::stdout();
    let terminal = stdout.is_terminal().then(|| rustix::termios::tcgetwinsize(&stdout).ok()).flatten();
    let columns = terminal.map(|size| usize::from(size.ws_col)).filter(|&columns| columns > 0);
    columns.or_else(|| std::env::var("COLUMNS").ok()?.parse().ok()).unwrap_or(100)
}
