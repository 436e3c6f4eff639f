//! One conversation of `dial`. A task reads and prints, another sends what stdin has (`line`), and both report over a
//! channel; this side waits for their reports, for Ctrl-C and for the end of stdout, and decides when it is over.
//!
//! The server's FIN ends the conversation also while stdin is open. Our own, when stdin ends, does not: the answer may
//! come late.

#![forbid(unsafe_code)]

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;

use towpath::net::TcpStream;
use towpath::sync::channel::{self, Receiver, RecvTimeoutError};
use towpath::time::{Duration, Instant};

use super::input::{Input, unreadable};
use super::line::{Heard, Line, SayError};
use super::{Context, Done};
use crate::exit::{Exit, Failure};
use crate::output::event::{Event, HungUp, Totals};
use crate::output::{self, units};

/// How long nothing may be sent before we end because nobody reads our stdout.
const QUIET: Duration = Duration::from_millis(500);

/// A connection, and what was said on it so far.
pub(super) struct Talk<'a> {
    context: Context<'a>,
    line: Arc<Line>,
    since: Instant,
    /// Both ends, for messages.
    path: String,
}

/// What happens next, as far as this side is concerned.
enum Next {
    /// There is no more to read.
    Heard(io::Result<Heard>),
    /// There is no more to send.
    Said(Result<(), SayError>),
    /// Ctrl-C.
    Interrupted,
    /// Nobody reads our stdout, or it takes no more.
    Unread(Option<io::Error>),
    /// A task of ours is gone without a report.
    Lost,
}

/// The addresses of both ends.
pub(super) fn ends(stream: &TcpStream) -> Result<(SocketAddr, SocketAddr), Failure> {
    let ends = stream.local_addr().and_then(|local| Ok((local, stream.peer_addr()?)));
    // The peer may have reset the connection already.
    ends.map_err(|e| Failure::talk("use", "connection", &e))
}

impl<'a> Talk<'a> {
    pub(super) fn new(context: Context<'a>, stream: TcpStream) -> Result<Self, Failure> {
        let (local, peer) = ends(&stream)?;
        Ok(Talk { context, line: Arc::new(Line::new(stream)), since: Instant::now(), path: format!("{local}->{peer}") })
    }

    /// Talks to the end.
    pub(super) fn hold(self, input: Input) -> Result<Done, Failure> {
        let done = self.listen_and_say(input);
        // A dial that is repeated leaves nothing behind: no connection, and no task that writes to it.
        self.line.close();
        done
    }

    fn listen_and_say(&self, input: Input) -> Result<Done, Failure> {
        let reports = self.begin(input)?;
        let mut said = None;
        let heard = loop {
            match self.next(&reports) {
                Next::Heard(heard) => break heard,
                Next::Said(Err(SayError::Input(e))) => return Err(unreadable(&e)),
                // If the connection broke, the reading side sees how it ended, perhaps after a last answer.
                Next::Said(outcome) => said = Some(outcome),
                Next::Interrupted => return Ok(self.interrupted()),
                Next::Unread(why) => return self.unread(why, &reports, said.is_some()),
                Next::Lost => return Err(Failure::new(Exit::Other, "a task panicked")),
            }
        };
        match heard {
            Ok(Heard::EndOfFile) => self.server_closed(&reports, said),
            Ok(Heard::Expected) => {
                self.tell(HungUp::Matched);
                self.line.see_off();
                Ok(Done::Good)
            }
            // Our own timeouts have no number, the kernel's have.
            Err(e) if e.kind() == ErrorKind::TimedOut && e.raw_os_error().is_none() => Err(self.idle()),
            Err(e) => Err(Failure::talk("read", &self.path, &e)),
        }
    }

    /// Starts both tasks; each reports once, at its end.
    fn begin(&self, input: Input) -> Result<Receiver<Next>, Failure> {
        let options = self.context.options;
        self.line.set_idle(options.idle).map_err(|e| Failure::talk("use", &self.path, &e))?;
        // Room for both reports: neither task waits with its own.
        let (report, reports) = channel::bounded(2);

        let (line, to_reader) = (Arc::clone(&self.line), report.clone());
        let (out, hex, expect) = (self.context.out.clone(), options.hex, options.expect.clone());
        drop(towpath::spawn(move || {
            let _ = to_reader.send(Next::Heard(line.listen(&out, hex, expect)));
        }));

        let line = Arc::clone(&self.line);
        let (crlf, half_close) = (options.crlf, options.half_close);
        drop(towpath::spawn(move || {
            let _ = report.send(Next::Said(line.say(&input, crlf, half_close)));
        }));
        Ok(reports)
    }

    fn next(&self, reports: &Receiver<Next>) -> Next {
        towpath::select! {
            recv(reports) -> report => report.unwrap_or(Next::Lost),
            recv(self.context.stop) -> _ => Next::Interrupted,
            recv(self.context.out.lost()) -> why => Next::Unread(why.ok()),
        }
    }

    /// The server sends no more; `said` is how sending ended, if it has.
    fn server_closed(&self, reports: &Receiver<Next>, said: Option<Result<(), SayError>>) -> Result<Done, Failure> {
        let options = self.context.options;
        // While our FIN is not sent the connection is in CLOSE-WAIT. After it there is nothing to hold.
        let held = options.hold
            && match said {
                None => true,
                Some(Ok(())) => !options.half_close,
                Some(Err(_)) => false,
            };
        let totals = self.totals();
        self.context.out.event(&Event::ServerClosed { totals, held });
        match said {
            _ if options.expect.is_some() => Err(self.not_expected("the server closed")),
            // The kernel told the sending side of the reset, and the reading side of the end alone.
            Some(Err(e)) => Err(self.unsaid(&e)),
            _ if !held => Ok(Done::Good),
            _ => self.stay(reports, said.is_some()),
        }
    }

    /// Holds the connection in CLOSE-WAIT until all is said, or with no FIN to send until Ctrl-C.
    fn stay(&self, reports: &Receiver<Next>, mut said: bool) -> Result<Done, Failure> {
        while !said {
            match self.next(reports) {
                Next::Said(Ok(())) if self.context.options.half_close => {
                    self.tell(HungUp::EndOfInput);
                    return Ok(Done::Good);
                }
                Next::Said(Ok(())) => said = true,
                Next::Said(Err(e)) => return Err(self.unsaid(&e)),
                Next::Unread(why) => return self.unread(why, reports, true),
                Next::Interrupted | Next::Heard(_) | Next::Lost => return Ok(self.interrupted()),
            }
        }
        let _ = self.context.stop.recv();
        Ok(self.interrupted())
    }

    /// Nobody reads our stdout: there is no reason to go on, but for an upload that is under way.
    fn unread(&self, why: Option<io::Error>, reports: &Receiver<Next>, mut said: bool) -> Result<Done, Failure> {
        output::stdout_lost(why)?;
        while !said {
            let before = self.line.bytes_out();
            said = match reports.recv_timeout(QUIET) {
                Ok(Next::Said(_)) => true,
                Ok(_) => false,
                Err(RecvTimeoutError::Timeout) => self.line.bytes_out() == before && !self.line.is_writing(),
                Err(_) => true,
            };
        }
        Ok(Done::Unread)
    }

    fn interrupted(&self) -> Done {
        self.tell(HungUp::Interrupt);
        Done::Interrupted
    }

    fn idle(&self) -> Failure {
        let idle = units::option(self.context.options.idle.unwrap_or_default());
        if self.context.options.expect.is_some() {
            return self.not_expected(&format!("nothing more came for {idle}"));
        }
        Failure::new(Exit::TimedOut, format!("read tcp {}: nothing came for {idle}", self.path))
            .hint("To wait as long as it takes, leave out --idle")
    }

    fn not_expected(&self, end: &str) -> Failure {
        let expect = self.context.options.expect.as_ref().map_or("", |e| e.as_str());
        let seen = units::bytes(self.totals().bytes_in);
        Failure::new(Exit::CheckFailed, format!("--expect {expect}: not found in {seen} when {end}"))
    }

    fn unsaid(&self, error: &SayError) -> Failure {
        match error {
            SayError::Input(e) => unreadable(e),
            SayError::Write(e) => Failure::talk("write", &self.path, e),
        }
    }

    fn tell(&self, by: HungUp) {
        let totals = self.totals();
        self.context.out.event(&Event::HungUp { by, totals });
    }

    fn totals(&self) -> Totals {
        Totals {
            after: Instant::now().duration_since(self.since),
            bytes_in: self.line.bytes_in(),
            bytes_out: self.line.bytes_out(),
        }
    }
}
