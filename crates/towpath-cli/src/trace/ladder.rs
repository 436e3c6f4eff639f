//! Connections as ladders: a column for each end, its states as they change, and an arrow a segment between them. A pure
//! function of steps and a width, so that the wire, a file and a lesson look alike.
//!
//! ```text
//! #1         127.0.0.1:39792                                        127.0.0.1:8330
//!            CLOSED                                                     LISTEN
//! +0 µs      SYN-SENT   ───── SYN seq 0 mss 65495 ws 10 sack ts ────▶ SYN-RECV
//! +14 µs     ESTAB      ◀ SYN,ACK seq 0 ack 1 mss 65495 ws 10 sack ts ─
//! time       client's   an arrow as wide as the terminal lets it be   server's
//! ```
//!
//! What an arrow has no room for stands below it. A terminal too narrow for arrows gets the same words without columns.

#![forbid(unsafe_code)]

use std::fmt::{Display, Write as _};
use std::iter;

use anstyle::Style;
use towpath_capture::flow::{Flow, FlowId, Side, Sides, State};

use super::ends::Ends;
use super::words::{self, ASIDE, NUMBER, Told};
use super::{data, fit};
use crate::output::look::Look;
use crate::output::text::escape;

/// The columns of a time and a space.
const TIME: usize = 11;
/// The columns of a state.
const STATE: usize = 10;
/// Where arrows begin.
const ARROW: usize = TIME + STATE + 1;
/// Below this there are no arrows: the longest word would not fit on one.
const NARROWEST: usize = 72;
/// A longer arrow is hard to follow.
const WIDEST: usize = 120;

/// Draws segments one after the other, of any number of connections.
#[derive(Debug)]
pub(crate) struct Ladder {
    look: Look,
    /// To show what segments carry.
    data: bool,
    /// Whose ladder was drawn last.
    last: Option<FlowId>,
}

impl Ladder {
    pub(crate) fn new(look: Look, data: bool) -> Ladder {
        Ladder { look, data, last: None }
    }

    /// One that looks the same, with nothing drawn yet.
    pub(crate) fn another(&self) -> Ladder {
        Ladder::new(self.look, self.data)
    }

    /// The lines for a segment, on a terminal of `width` columns: with the connection's heading if the segment before was
    /// another's.
    pub(crate) fn segment(&mut self, text: &mut String, told: &Told<'_>, ends: &Ends, width: usize) {
        let drawing = Drawing { look: self.look, width: width.min(WIDEST) };
        if self.last != Some(told.step.flow) {
            let addrs = told.ends().map(|end| ends.show(*end));
            let states = told.step.first.then_some(told.step.before);
            self.heading(text, drawing, told.step.flow, &addrs, states);
        }
        if drawing.is_narrow() {
            drawing.words(text, told);
        } else {
            drawing.rung(text, told);
        }
        let indent = if drawing.is_narrow() { 2 } else { ARROW + 1 };
        if !told.comment.is_empty() {
            let comment = escape(told.comment.as_bytes(), self.look.ascii);
            for line in fit::lines(comment.split(' '), drawing.width.saturating_sub(indent)) {
                drawing.line(text, indent, ASIDE, &line);
            }
        }
        if self.data && !told.segment.payload.is_empty() {
            let missing = told.step.len as usize - told.segment.payload.len().min(told.step.len as usize);
            let offset = u64::try_from(told.step.seq - 1).unwrap_or(0);
            *text += &data::below(told.segment.payload, offset, missing, indent, drawing.width, self.look);
        }
    }

    /// The lines for the end of a connection, or for where it stands when the capture ends.
    pub(crate) fn ended(&mut self, text: &mut String, flow: &Flow, dropped: Option<u64>, ends: &Ends, width: usize) {
        let drawing = Drawing { look: self.look, width: width.min(WIDEST) };
        if self.last != Some(flow.id) {
            let addrs = flow.ends.map(|end| ends.show(end.addr));
            self.heading(text, drawing, flow.id, &addrs, None);
        }
        drawing.summary(text, &words::summary(flow, dropped, self.look.ascii));
    }

    /// Other lines came between: what is drawn next says again whose it is.
    pub(crate) fn interrupted(&mut self) {
        self.last = None;
    }

    /// Whose ladder follows. The states are those before its first segment, and left out when a ladder goes on.
    fn heading(
        &mut self,
        text: &mut String,
        drawing: Drawing,
        id: FlowId,
        ends: &Sides<String>,
        states: Option<Sides<State>>,
    ) {
        if self.last.replace(id).is_some() {
            text.push('\n');
        }
        let name = id.to_string();
        let number = self.look.paint(NUMBER, &name);
        let Sides { client, server } = ends;
        if drawing.is_narrow() {
            let pieces = [&**client, drawing.arrow(Side::Client), server];
            let room = drawing.width.saturating_sub(3 + name.len());
            let _ = writeln!(text, "{number} {}", fit::lines(pieces, room).join("\n   "));
            return;
        }
        let gap = TIME.saturating_sub(name.len()).max(1);
        let _ = write!(text, "{number}{:gap$}{client}", "");
        let used = TIME + fit::width(client);
        // Both on one line, if there is an end to each.
        let room = if used + 2 + fit::width(server) > drawing.width {
            text.push('\n');
            drawing.width
        } else {
            drawing.width - used
        };
        let gap = room.saturating_sub(fit::width(server));
        let _ = writeln!(text, "{:gap$}{server}", "");
        if let Some(states) = states.filter(|states| *states != Sides::default()) {
            let room = drawing.room();
            drawing.row(text, "", states.client.name(), format_args!("{:room$}", ""), states.server.name());
        }
    }
}

/// One piece of a drawing: how it looks and how wide it may be.
#[derive(Debug, Clone, Copy)]
struct Drawing {
    look: Look,
    width: usize,
}

impl Drawing {
    fn is_narrow(self) -> bool {
        self.width < NARROWEST
    }

    /// How long arrows are.
    fn room(self) -> usize {
        self.width - ARROW - 1 - STATE
    }

    /// The head of what `from` sends.
    fn arrow(self, from: Side) -> &'static str {
        match (from, self.look.ascii) {
            (Side::Client, false) => "▶",
            (Side::Server, false) => "◀",
            (Side::Client, true) => ">",
            (Side::Server, true) => "<",
        }
    }

    /// A segment as an arrow between the states that it leads to.
    fn rung(self, text: &mut String, told: &Told<'_>) {
        let (step, tone) = (told.step, told.tone());
        let changed = |side: Side| {
            let (before, after) = (step.before[side], step.after[side]);
            if before == after { "" } else { after.name() }
        };
        let mut said = fit::lines(told.pieces(self.look.ascii).iter(), self.room() - 4).into_iter();
        let first = said.next().unwrap_or_default();
        let shaft = self.look.paint(tone, self.shaft(step.from, &first));
        let time = words::elapsed(step.since, self.look.ascii);
        self.row(text, &time, changed(Side::Client), shaft, changed(Side::Server));
        for rest in said {
            let indent = ARROW + (self.room() - fit::width(&rest)) / 2;
            self.line(text, indent, tone, &rest);
        }
    }

    /// The arrow itself, with what it says in its middle.
    fn shaft(self, from: Side, said: &str) -> String {
        let dash = if self.look.ascii { "-" } else { "─" };
        let dashes = self.room() - fit::width(said) - 2;
        let (left, right) = (dashes / 2, dashes - dashes / 2);
        let head = self.arrow(from);
        match from {
            Side::Client => format!("{} {said} {}{head}", dash.repeat(left), dash.repeat(right - 1)),
            Side::Server => format!("{head}{} {said} {}", dash.repeat(left - 1), dash.repeat(right)),
        }
    }

    fn row(self, text: &mut String, time: &str, client: &str, arrow: impl Display, server: &str) {
        let (begun, time_room) = (text.len(), TIME - 1);
        let time = self.look.paint(ASIDE, time);
        let _ = write!(text, "{time:<time_room$} {client:<STATE$} {arrow} {server}");
        text.truncate(begun + text[begun..].trim_end().len());
        text.push('\n');
    }

    fn line(self, text: &mut String, indent: usize, style: Style, line: &str) {
        let _ = writeln!(text, "{:indent$}{}", "", self.look.paint(style, line));
    }

    /// The last line, or as many as are needed.
    fn summary(self, text: &mut String, pieces: &[(Style, String)]) {
        let between = format!(" {} ", words::bullet(self.look.ascii));
        let indent = if self.is_narrow() { 2 } else { 4 };
        let mut used = 0;
        for (style, piece) in pieces {
            let needed = fit::width(&between) + fit::width(piece);
            if used > 0 && used + needed <= self.width {
                text.push_str(&between);
                used += needed;
            } else {
                let _ = write!(text, "{}{:indent$}", if used > 0 { "\n" } else { "" }, "");
                used = indent + fit::width(piece);
            }
            let _ = write!(text, "{}", self.look.paint(*style, piece));
        }
        text.push('\n');
    }

    /// The same segment in words, for a terminal without room for arrows.
    fn words(self, text: &mut String, told: &Told<'_>) {
        let step = told.step;
        let head = format!("{} {}", words::elapsed(step.since, self.look.ascii), self.arrow(step.from));
        let mut pieces = told.pieces(self.look.ascii);
        for side in [Side::Client, Side::Server] {
            if step.before[side] != step.after[side] {
                pieces.say(format_args!("{} {side} {}", words::bullet(self.look.ascii), step.after[side]));
            }
        }
        let pieces = iter::once(&*head).chain(pieces.iter());
        for (count, line) in fit::lines(pieces, self.width.saturating_sub(2)).into_iter().enumerate() {
            self.line(text, if count == 0 { 0 } else { 2 }, told.tone(), &line);
        }
    }
}

#[cfg(test)]
mod tests;
