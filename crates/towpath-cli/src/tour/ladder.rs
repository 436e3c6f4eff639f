//! The segments of a step: what they were, and how they are drawn.

#![forbid(unsafe_code)]

use std::time::Duration;

use towpath_capture::Frame;
use towpath_capture::flow::{Notes, Side, Sides, State, Verdict};
use towpath_capture::segment::Flags;

use crate::output::Form;
use crate::trace::{Ends, Presenter, Shape, Told, Tracer, columns};

/// Of a step that takes more segments than both together, the first and the last are drawn.
const FIRST: usize = 14;
const LAST: usize = 6;

/// What a segment was.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    pub(super) from: Side,
    pub(super) flags: Flags,
    pub(super) after: Sides<State>,
    pub(super) notes: Notes,
    pub(super) verdict: Option<Verdict>,
    /// Since the connection's first.
    pub(super) since: Duration,
}

/// Follows connections, and draws what passes.
#[derive(Debug)]
pub(super) struct Ladder {
    form: Form,
    tracer: Tracer,
    presenter: Presenter,
    /// How far each side has sent, and how far it has been acknowledged.
    sent: Sides<i64>,
    acked: Sides<i64>,
    /// The segments since they were last taken, and what each looks like.
    pub(super) seen: Vec<Seen>,
    drawn: Vec<String>,
    /// How many segments there were in all.
    pub(super) count: u64,
}

impl Ladder {
    pub(super) fn new(form: Form) -> Ladder {
        Ladder {
            form,
            tracer: Tracer::default(),
            presenter: presenter(form),
            sent: Sides::default(),
            acked: Sides::default(),
            seen: Vec::new(),
            drawn: Vec::new(),
            count: 0,
        }
    }

    /// Takes in what passed.
    pub(super) fn take(&mut self, frame: &Frame<'_>) {
        let Some(passed) = self.tracer.push(frame) else { return };
        let (segment, step) = (passed.segment, passed.step);
        if step.first {
            (self.sent, self.acked) = (Sides::default(), Sides::default());
        }
        let end = step.seq + i64::from(segment.seq_len());
        self.sent[step.from] = self.sent[step.from].max(end);
        if let Some(ack) = step.ack {
            self.acked[step.from.other()] = self.acked[step.from.other()].max(ack);
        }
        let width = columns().saturating_sub(2);
        let mut text = String::new();
        let told = Told { segment: &segment, step: &step, comment: "" };
        self.presenter.segment(&told, width, &mut text);
        if let Some(flow) = passed.over {
            self.presenter.over(&flow, None, width, &mut text);
        }
        self.count += 1;
        self.drawn.push(text);
        self.seen.push(Seen {
            from: step.from,
            flags: segment.flags,
            after: step.after,
            notes: step.notes,
            verdict: step.verdict,
            since: step.since,
        });
    }

    /// Whether everything that was sent is acknowledged.
    pub(super) fn is_settled(&self) -> bool {
        self.sent == self.acked
    }

    /// Whether there was a segment of `from` with these flags, after which its sender and its receiver were in these states.
    pub(super) fn has(&self, from: Side, flags: Flags, sender: State, receiver: State) -> bool {
        self.seen.iter().any(|seen| {
            seen.from == from
                && seen.flags.contains(flags)
                && seen.after[from] == sender
                && seen.after[from.other()] == receiver
        })
    }

    /// What there is to draw since the last time. What is left out of a long ladder is counted in it; of objects nothing is.
    pub(super) fn draw(&mut self) -> String {
        let drawn = std::mem::take(&mut self.drawn);
        self.seen.clear();
        // The next one begins with its ends again.
        self.presenter = presenter(self.form);
        let left_out = drawn.len().saturating_sub(FIRST + LAST);
        let Form::Human { stdout: look, .. } = self.form else { return drawn.concat() };
        if left_out < 2 {
            return drawn.concat();
        }
        let aside = look.paint(anstyle::Style::new().dimmed(), format!("and {left_out} more like these, then"));
        format!("{}           {aside}\n{}", drawn[..FIRST].concat(), drawn[drawn.len() - LAST..].concat())
    }
}

fn presenter(form: Form) -> Presenter {
    Presenter::new(form, Shape::Ladders, false, Ends::numeric())
}
