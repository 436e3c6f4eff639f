//! What a segment says and how a connection ended, in words: the same in a ladder, in lines and under `watch`'s keys.
//! Pure functions over what `towpath-capture` found out; where a word goes, the renderers decide.

#![forbid(unsafe_code)]

use std::fmt::{Display, Write as _};
use std::iter;
use std::net::SocketAddr;
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use towpath_capture::flow::{Counts, Flow, Notes, Side, Sides, Step, Verdict};
use towpath_capture::segment::{Flags, Segment};

use super::fit;
use crate::output::look::Look;
use crate::output::units;

/// Which connection: the eye follows it down the lines.
pub(crate) const NUMBER: Style = AnsiColor::Cyan.on_default();
/// What one need not read.
pub(crate) const ASIDE: Style = Style::new().dimmed();
/// What went wrong.
pub(crate) const TROUBLE: Style = AnsiColor::Red.on_default().bold();
/// What may be a sign of trouble.
pub(crate) const DOUBT: Style = AnsiColor::Yellow.on_default();
/// All the rest.
pub(crate) const PLAIN: Style = Style::new();

/// Pieces of text, in one string.
#[derive(Debug)]
pub(crate) struct Pieces {
    text: String,
    /// Where each ends.
    ends: Vec<usize>,
}

impl Pieces {
    fn new() -> Pieces {
        Pieces { text: String::with_capacity(fit::LINE), ends: Vec::with_capacity(8) }
    }

    pub(crate) fn say(&mut self, piece: impl Display) {
        let _ = write!(self.text, "{piece}");
        self.ends.push(self.text.len());
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &str> {
        let begins = iter::once(0).chain(self.ends.iter().copied());
        begins.zip(&self.ends).map(|(begin, &end)| &self.text[begin..end])
    }

    fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }
}

/// A segment with what it meant, as the renderers take it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Told<'a> {
    pub(crate) segment: &'a Segment<'a>,
    pub(crate) step: &'a Step,
    /// What the capture says of it beside its bytes: whose it is. Empty: nothing.
    pub(crate) comment: &'a str,
}

impl Told<'_> {
    /// The addresses of both ends.
    pub(crate) fn ends(&self) -> Sides<SocketAddr> {
        ends(self.segment, self.step)
    }

    /// The pieces of what it says, the first ones first in importance. A line may end after any of them.
    pub(crate) fn pieces(&self, ascii: bool) -> Pieces {
        let (segment, step) = (self.segment, self.step);
        let mut pieces = Pieces::new();
        // PSH says nothing that matters here, and ACK is said by its number.
        let marks = segment.flags - Flags::PSH;
        let shown = if marks.intersects(Flags::SYN | Flags::RST) { marks } else { marks - Flags::ACK };
        if !shown.is_empty() {
            pieces.say(shown);
        }
        if step.len > 0 {
            pieces.say(format_args!("{} B", step.len));
            pieces.say(format_args!("seq {}..{}", step.seq, step.seq + i64::from(step.len)));
        } else if !shown.is_empty() {
            pieces.say(format_args!("seq {}", step.seq));
        }
        if let Some(ack) = step.ack {
            let name = if pieces.is_empty() { "ACK" } else { "ack" };
            pieces.say(format_args!("{name} {ack}"));
        } else if pieces.is_empty() {
            // A segment without a flag, which nobody sends but to see what happens.
            pieces.say(format_args!("no flags seq {}", step.seq));
        }
        if marks.contains(Flags::URG) {
            pieces.say(format_args!("urgent to {}", step.seq + i64::from(segment.urgent)));
        }
        self.blocks().into_iter().chain(options(segment)).for_each(|piece| pieces.say(piece));
        for note in step.notes.words() {
            // The blocks themselves say it.
            if note != "sack" || segment.options.sack.is_empty() {
                pieces.say(format_args!("{} {note}", bullet(ascii)));
            }
        }
        pieces
    }

    /// `sack 101..201`, on the scale of the acknowledgement.
    fn blocks(&self) -> Option<String> {
        let ack = self.step.ack?;
        let relative = |number: u32| ack + i64::from(number.wrapping_sub(self.segment.ack).cast_signed());
        let blocks = self.segment.options.sack.iter();
        let blocks: Vec<_> = blocks.map(|&(from, to)| format!("{}..{}", relative(from), relative(to))).collect();
        (!blocks.is_empty()).then(|| format!("sack {}", blocks.join(",")))
    }

    /// How much of it is trouble.
    pub(crate) fn tone(&self) -> Style {
        let trouble = Notes::RETRANSMISSION
            | Notes::OUT_OF_ORDER
            | Notes::GAP
            | Notes::UNSEEN_ACKED
            | Notes::ZERO_WINDOW
            | Notes::WINDOW_FULL
            | Notes::STRAY;
        let doubt = Notes::DUPLICATE_ACK
            | Notes::SACK
            | Notes::DUPLICATE_SACK
            | Notes::KEEP_ALIVE
            | Notes::WINDOW_PROBE
            | Notes::PORT_REUSED;
        if self.step.notes.intersects(trouble) || self.segment.flags.contains(Flags::RST) {
            TROUBLE
        } else if self.step.notes.intersects(doubt) {
            DOUBT
        } else {
            PLAIN
        }
    }
}

/// The addresses of both ends.
pub(crate) fn ends(segment: &Segment<'_>, step: &Step) -> Sides<SocketAddr> {
    let Segment { from, to, .. } = *segment;
    match step.from {
        Side::Client => Sides { client: from, server: to },
        Side::Server => Sides { client: to, server: from },
    }
}

/// The options of a SYN, each a piece. Others carry what was agreed on by then.
fn options(segment: &Segment<'_>) -> Vec<String> {
    if !segment.flags.contains(Flags::SYN) {
        return Vec::new();
    }
    let mut pieces: Vec<String> = Vec::new();
    for word in segment.options.to_string().split(' ').filter(|word| !word.is_empty()) {
        match pieces.last_mut() {
            // A number belongs to the word before it.
            Some(piece) if word.bytes().all(|b| b.is_ascii_digit()) => *piece += &format!(" {word}"),
            _ => pieces.push(word.to_owned()),
        }
    }
    pieces
}

/// What stands between two things said.
pub(crate) fn bullet(ascii: bool) -> &'static str {
    if ascii { "-" } else { "·" }
}

/// The time since a connection's first segment, at most ten characters long: `+14 µs`, `+400.5 ms`, `+1m02.3s`.
pub(crate) fn elapsed(since: Duration, ascii: bool) -> String {
    let micros = u64::try_from(since.as_micros()).unwrap_or(u64::MAX);
    let seconds = since.as_secs();
    match micros {
        0..1_000 => format!("+{micros} {}", if ascii { "us" } else { "µs" }),
        1_000..1_000_000 => format!("+{}.{} ms", micros / 1_000, micros / 100 % 10),
        1_000_000..60_000_000 => format!("+{}.{:03} s", seconds, micros / 1_000 % 1_000),
        60_000_000..3_600_000_000 => {
            format!("+{}m{:02}.{}s", seconds / 60, seconds % 60, micros / 100_000 % 10)
        }
        _ => format!("+{}h{:02}m{:02}s", seconds / 3600, seconds / 60 % 60, seconds % 60),
    }
}

/// What a connection came to, piece by piece: `handshake 34 µs`, `49 B data`, `closed first by :8330`, `clean`,
/// `0 retransmitted`, `0 dropped`. `dropped` is how many packets the capture has lost, where it says.
pub(crate) fn summary(flow: &Flow, dropped: Option<u64>, ascii: bool) -> Vec<(Style, String)> {
    let mut pieces = Vec::new();
    if let Some(handshake) = flow.handshake {
        pieces.push((PLAIN, format!("handshake {}", units::time(handshake, ascii))));
    }
    pieces.push((PLAIN, format!("{} data", units::bytes(flow.bytes()))));
    if flow.simultaneous_close {
        pieces.push((PLAIN, "closed by both at once".to_owned()));
    } else if let Some(side) = flow.closed_first {
        pieces.push((PLAIN, format!("closed first by {}", short_end(flow, side))));
    }
    pieces.push(verdict(flow, ascii));
    let sum = |count: fn(&Counts) -> u64| count(&flow.ends.client.sent) + count(&flow.ends.server.sent);
    let retransmitted = (flow.retransmissions(), "retransmitted");
    let troubles = [
        (sum(|sent| sent.out_of_order), "out of order"),
        (sum(|sent| sent.zero_windows), "zero windows"),
        (sum(|sent| sent.strays), "strays"),
        (sum(|sent| sent.gaps + sent.unseen_acked), "not captured"),
    ];
    let troubles = troubles.into_iter().filter(|(count, _)| *count > 0);
    let dropped = dropped.map(|dropped| (dropped, "dropped"));
    for (count, noun) in iter::once(retransmitted).chain(troubles).chain(dropped) {
        pieces.push((if count > 0 { TROUBLE } else { PLAIN }, format!("{count} {noun}")));
    }
    pieces
}

/// The same on one line.
pub(crate) fn summary_line(flow: &Flow, dropped: Option<u64>, look: Look) -> String {
    let pieces = summary(flow, dropped, look.ascii);
    let pieces: Vec<_> = pieces.iter().map(|(style, piece)| look.paint(*style, piece).to_string()).collect();
    pieces.join(&format!(" {} ", bullet(look.ascii)))
}

/// The verdict, with who is to blame where one side is.
fn verdict(flow: &Flow, ascii: bool) -> (Style, String) {
    let text = match flow.verdict {
        Verdict::Reset { by } => format!("reset by {}", short_end(flow, by)),
        Verdict::HalfOpen { gone } => format!("half-open: {} is gone", short_end(flow, gone)),
        other => other.to_string(),
    };
    let style = match flow.verdict {
        Verdict::Clean | Verdict::StillOpen | Verdict::Middle | Verdict::Unfinished => PLAIN,
        _ => TROUBLE,
    };
    (style, if ascii { text.replace('×', "x") } else { text })
}

/// An end by its port, if that tells the two apart.
fn short_end(flow: &Flow, side: Side) -> String {
    let (this, other) = (flow.ends[side].addr, flow.ends[side.other()].addr);
    if this.port() == other.port() { this.to_string() } else { format!(":{}", this.port()) }
}
