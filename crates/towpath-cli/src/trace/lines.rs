//! A line a segment (`--lines`): for `grep`, and for many connections at once.

#![forbid(unsafe_code)]

use std::fmt::Write as _;

use towpath_capture::flow::{Flow, Side};

use super::data;
use super::ends::Ends;
use super::words::{self, ASIDE, NUMBER, Told};
use crate::output::look::Look;
use crate::output::text::escape;

/// Where data goes below a line.
const INDENT: usize = 4;

/// The line for a segment; and below it what it carries, if `data` says on how many columns.
pub(crate) fn segment(text: &mut String, told: &Told<'_>, ends: &Ends, data: Option<usize>, look: Look) {
    let (segment, step) = (told.segment, told.step);
    let number = look.paint(NUMBER, step.flow);
    let time = look.paint(ASIDE, words::elapsed(step.since, look.ascii));
    let arrow = if look.ascii { "->" } else { "→" };
    let (from, to) = (ends.show(segment.from), ends.show(segment.to));
    let pieces = told.pieces(look.ascii);
    let is_note = |piece: &&str| piece.starts_with(words::bullet(look.ascii));
    let mut words = String::new();
    for piece in pieces.iter().take_while(|piece| !is_note(piece)) {
        let _ = write!(words, "{piece} ");
    }
    // What a ladder shows only when it is trouble.
    let _ = match step.window {
        Some(window) => write!(words, "win {window}"),
        // Its scale was agreed on before the capture.
        None => write!(words, "win {}<<?", segment.window),
    };
    for piece in pieces.iter().skip_while(|piece| !is_note(piece)) {
        let _ = write!(words, " {piece}");
    }
    let words = look.paint(told.tone(), &words);
    let _ = write!(text, "{number} {time:<10} {from} {arrow} {to}  {words}");
    for side in [Side::Client, Side::Server] {
        if step.before[side] != step.after[side] {
            let _ = write!(text, " {} {side} {}", words::bullet(look.ascii), step.after[side]);
        }
    }
    if !told.comment.is_empty() {
        let comment = escape(told.comment.as_bytes(), look.ascii);
        let _ = write!(text, " {}", look.paint(ASIDE, format_args!("{} {comment}", words::bullet(look.ascii))));
    }
    text.push('\n');
    if let Some(width) = data
        && !segment.payload.is_empty()
    {
        let missing = (step.len as usize).saturating_sub(segment.payload.len());
        let offset = u64::try_from(step.seq - 1).unwrap_or(0);
        *text += &data::below(segment.payload, offset, missing, INDENT, width, look);
    }
}

/// The line for the end of a connection, or for where it stands when the capture ends.
pub(crate) fn ended(flow: &Flow, dropped: Option<u64>, look: Look) -> String {
    let number = look.paint(NUMBER, flow.id);
    format!("{number} {}\n", words::summary_line(flow, dropped, look))
}
