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

use anstyle::Style;
use towpath_capture::flow::{Flow, FlowId, Side, Sides, State};

use super::ends::Ends;
use super::words::{self, ASIDE, NUMBER, PLAIN, Told};
use super::{data, fit};
use crate::output::look::Look;
use crate::output::text;

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
    pub(crate) fn segment(&mut self, told: &Told<'_>, ends: &mut Ends, width: usize) -> String {
        let drawing = Drawing { look: self.look, width: width.min(WIDEST) };
        let mut text = String::new();
        if self.last != Some(told.step.flow) {
            let addrs = told.ends().map(|end| ends.show(*end));
            let states = told.step.first.then_some(told.step.before);
            text += &self.heading(drawing, told.step.flow, &addrs, states);
        }
        if drawing.is_narrow() {
            drawing.words(&mut text, told);
        } else {
            drawing.rung(&mut text, told);
        }
        let indent = if drawing.is_narrow() { 2 } else { ARROW + 1 };
        if !told.comment.is_empty() {
            let comment = text::escape(told.comment.as_bytes(), self.look.ascii);
            let comment: Vec<_> = comment.split(' ').map(str::to_owned).collect();
            for line in fit::lines(&comment, drawing.width.saturating_sub(indent)) {
                drawing.line(&mut text, indent, ASIDE, &line);
            }
        }
        if self.data && !told.segment.payload.is_empty() {
            let missing = told.step.len as usize - told.segment.payload.len().min(told.step.len as usize);
            let offset = u64::try_from(told.step.seq - 1).unwrap_or(0);
            text += &data::below(told.segment.payload, offset, missing, indent, drawing.width, self.look);
        }
        text
    }

    /// The lines for the end of a connection, or for where it stands when the capture ends.
    pub(crate) fn ended(&mut self, flow: &Flow, dropped: Option<u64>, ends: &mut Ends, width: usize) -> String {
        let drawing = Drawing { look: self.look, width: width.min(WIDEST) };
        let mut text = String::new();
        if self.last != Some(flow.id) {
            let addrs = flow.ends.map(|end| ends.show(end.addr));
            text += &self.heading(drawing, flow.id, &addrs, None);
        }
        drawing.summary(&mut text, &words::summary(flow, dropped, self.look.ascii));
        text
    }

    /// Other lines came between: what is drawn next says again whose it is.
    pub(crate) fn interrupted(&mut self) {
        self.last = None;
    }

    /// Whose ladder follows. The states are those before its first segment, and left out when a ladder goes on.
    fn heading(&mut self, drawing: Drawing, id: FlowId, ends: &Sides<String>, states: Option<Sides<State>>) -> String {
        let mut text = String::new();
        if self.last.replace(id).is_some() {
            text.push('\n');
        }
        let number = self.look.paint(NUMBER, &id.to_string());
        let Sides { client, server } = ends;
        if drawing.is_narrow() {
            let pieces = [client.clone(), drawing.arrow(Side::Client).to_owned(), server.clone()];
            let room = drawing.width.saturating_sub(3 + id.to_string().len());
            text += &format!("{number} {}\n", fit::lines(&pieces, room).join("\n   "));
            return text;
        }
        let gap = TIME.saturating_sub(id.to_string().len()).max(1);
        text += &format!("{number}{:gap$}{client}", "");
        let used = TIME + fit::width(client);
        // Both on one line, if there is an end to each.
        if used + 2 + fit::width(server) > drawing.width {
            text.push('\n');
            text += &" ".repeat(drawing.width.saturating_sub(fit::width(server)));
        } else {
            text += &" ".repeat(drawing.width - used - fit::width(server));
        }
        text += server;
        text.push('\n');
        if let Some(states) = states.filter(|states| *states != Sides::default()) {
            drawing.row(
                &mut text,
                "",
                states.client.name(),
                (PLAIN, &" ".repeat(drawing.room())),
                states.server.name(),
            );
        }
        text
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
        let mut said = fit::lines(&told.pieces(self.look.ascii), self.room() - 4).into_iter();
        let shaft = self.shaft(step.from, &said.next().unwrap_or_default());
        let time = words::elapsed(step.since, self.look.ascii);
        self.row(text, &time, changed(Side::Client), (tone, &shaft), changed(Side::Server));
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

    fn row(self, text: &mut String, time: &str, client: &str, arrow: (Style, &str), server: &str) {
        let time_room = TIME - 1;
        let time = self.look.paint(ASIDE, &format!("{time:<time_room$}"));
        let arrow = self.look.paint(arrow.0, arrow.1);
        let row = format!("{time} {client:<STATE$} {arrow} {server}");
        text.push_str(row.trim_end());
        text.push('\n');
    }

    fn line(self, text: &mut String, indent: usize, style: Style, line: &str) {
        *text += &format!("{:indent$}{}\n", "", self.look.paint(style, line));
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
                *text += &format!("{}{:indent$}", if used > 0 { "\n" } else { "" }, "");
                used = indent + fit::width(piece);
            }
            text.push_str(&self.look.paint(*style, piece));
        }
        text.push('\n');
    }

    /// The same segment in words, for a terminal without room for arrows.
    fn words(self, text: &mut String, told: &Told<'_>) {
        let step = told.step;
        let mut pieces = vec![format!("{} {}", words::elapsed(step.since, self.look.ascii), self.arrow(step.from))];
        pieces.extend(told.pieces(self.look.ascii));
        for side in [Side::Client, Side::Server] {
            if step.before[side] != step.after[side] {
                pieces.push(format!("{} {side} {}", words::bullet(self.look.ascii), step.after[side]));
            }
        }
        for (count, line) in fit::lines(&pieces, self.width.saturating_sub(2)).into_iter().enumerate() {
            self.line(text, if count == 0 { 0 } else { 2 }, told.tone(), &line);
        }
    }
}

#[cfg(test)]
mod tests;
