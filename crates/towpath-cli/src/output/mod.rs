//! What the command prints. An [`Event`] becomes a line (`human`) or an object (`json`) where it happens, and the text
//! goes through a channel to one printer (`printer`), so that a stopped terminal or a slow pipe parks the tasks that
//! have something to say, and never blocks a worker.
//!
//! Data goes to stdout and commentary to stderr: `serve`'s data are its lines about connections, `dial`'s are the bytes
//! that it receives. With `--json` everything is an object on stdout, errors too.

#![forbid(unsafe_code)]

pub(crate) mod event;
mod human;
pub(crate) mod json;
pub(crate) mod look;
mod printer;
pub(crate) mod text;
pub(crate) mod units;

use std::io;

use jiff::Timestamp;
use towpath::sync::channel::{self, Receiver, Sender};

use self::event::{Data, Event};
use self::look::Look;
use self::printer::Piece;
use self::text::Characters;
use crate::exit::{Exit, Failure};

/// How events are written.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Form {
    /// For people; the streams differ when one of them is no terminal.
    Human { stdout: Look, stderr: Look },
    /// For programs.
    Json,
}

/// Where events go. Clones go to the same place.
#[derive(Debug, Clone)]
pub(crate) struct Output {
    form: Form,
    pieces: Sender<Piece>,
    lost: Receiver<io::Error>,
}

impl Output {
    /// Starts the printer, on a thread where it may block.
    pub(crate) fn start(form: Form) -> Output {
        // Few: each is a line or a read's worth of data, and whoever has more to say waits for the terminal.
        let (pieces, to_print) = channel::bounded(64);
        let (losing, lost) = channel::bounded(1);
        // It ends with the process: `finish` is what waits for it.
        drop(towpath::task::spawn_blocking(move || printer::run(&to_print, losing)));
        Output { form, pieces, lost }
    }

    /// Tells of `event`.
    pub(crate) fn event(&self, event: &Event<'_>) {
        self.print(render(self.form, event));
    }

    /// How events are written.
    pub(crate) fn form(&self) -> Form {
        self.form
    }

    /// Shows text for people, which is data: a table.
    pub(crate) fn text(&self, text: String) {
        self.print(Piece::Stdout(text.into()));
    }

    /// Says something to people only, beside the data.
    pub(crate) fn remark(&self, text: String) {
        self.print(Piece::Stderr(text.into()));
    }

    /// Shows bytes that `dial` received: as they are, or as a dump that begins at `hex`.
    pub(crate) fn received(&self, chunk: &[u8], hex: Option<u64>, characters: &mut Characters) {
        match (self.form, hex) {
            (Form::Human { .. }, None) => self.print(Piece::Stdout(chunk.to_vec())),
            (Form::Human { .. }, Some(offset)) => {
                self.print(Piece::Stdout(text::hex_dump(chunk, offset, "").into()));
            }
            (Form::Json, Some(_)) => self.event(&Event::Data { data: Data { bytes: chunk.len(), shown: chunk, hex } }),
            (Form::Json, None) => {
                self.event(&Event::Data { data: Data { bytes: chunk.len(), shown: &characters.push(chunk), hex } })
            }
        }
    }

    /// Shows what was held back of what `dial` received: a character whose end never came.
    pub(crate) fn received_rest(&self, characters: &mut Characters) {
        let rest = characters.finish();
        if !rest.is_empty() {
            let data = Data { bytes: 0, shown: &rest, hex: None };
            self.event(&Event::Data { data });
        }
    }

    /// Disconnected once nobody reads our stdout any more; another error of stdout's arrives as a message first.
    pub(crate) fn lost(&self) -> &Receiver<io::Error> {
        &self.lost
    }

    /// Waits until all that was said before is written, or cannot be.
    pub(crate) fn finish(&self) {
        let (written, done) = channel::bounded(1);
        self.print(Piece::Mark(written));
        let _ = done.recv();
    }

    fn print(&self, piece: Piece) {
        // The printer outlives every command.
        let _ = self.pieces.send(piece);
    }
}

/// What follows from the end of stdout: nothing when its reader just went away, as `head` does.
pub(crate) fn stdout_lost(why: Option<io::Error>) -> Result<Exit, Failure> {
    match why {
        None => Ok(Exit::Done),
        Some(e) => {
            let reason = crate::exit::reason(&e);
            Err(Failure::new(Exit::Other, format!("write stdout: {reason}")))
        }
    }
}

/// Writes all of `bytes` to stdout, past the printer: for who has the whole terminal.
pub(crate) fn write_stdout(bytes: &[u8]) -> io::Result<()> {
    printer::write_all(io::stdout(), bytes).map_err(Into::into)
}

/// Tells of `failure` while there is no printer, at once.
pub(crate) fn print_failure(form: Form, failure: &Failure) {
    print_now(form, &failure_event(failure));
}

/// Tells of `event` while there is no printer, at once.
pub(crate) fn print_now(form: Form, event: &Event<'_>) {
    printer::print(render(form, event));
}

/// The event that `failure` is.
pub(crate) fn failure_event(failure: &Failure) -> Event<'_> {
    Event::Error { error: &failure.what, hint: failure.hint.as_deref(), exit: failure.exit }
}

fn render(form: Form, event: &Event<'_>) -> Piece {
    match form {
        Form::Json => Piece::Stdout(json::line(event, Timestamp::now()).into()),
        Form::Human { stdout, .. } if event.is_data() => Piece::Stdout(human::lines(event, stdout).into()),
        Form::Human { stderr, .. } => Piece::Stderr(human::lines(event, stderr).into()),
    }
}
