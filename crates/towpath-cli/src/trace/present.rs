//! Happenings to text, in the form that was asked for: objects, lines, or ladders. Ladders of the wire are drawn as it
//! happens, with a heading whenever another connection has its turn; of a file, one after the other.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::mem;
use std::net::IpAddr;

use jiff::Timestamp;
use towpath::sync::channel::Receiver;
use towpath_capture::flow::{Flow, FlowId};

use super::ends::Ends;
use super::ladder::Ladder;
use super::words::{ASIDE, Told};
use super::{lines, object};
use crate::output::event::Event;
use crate::output::look::Look;
use crate::output::{Form, json};

/// How much text of other connections is held back at most while the first one's ladder is drawn.
const HELD: usize = 64 << 20;

/// In which form it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    Lines,
    /// As it happens.
    Ladders,
    /// One after the other.
    LadderByLadder,
}

/// Makes text of what happens.
#[derive(Debug)]
pub(crate) struct Presenter {
    form: Form,
    shape: Shape,
    data: bool,
    ends: Ends,
    ladder: Ladder,
    queue: Queue,
}

/// Ladders of which only the first is drawn, until it is complete.
#[derive(Debug)]
struct Queue {
    /// Whose ladder is being drawn.
    head: Option<FlowId>,
    /// The last that is complete; those before it are too.
    complete: Option<FlowId>,
    waiting: BTreeMap<FlowId, Waiting>,
    /// How much text waits, and how much may.
    held: usize,
    most: usize,
    /// Something was drawn.
    begun: bool,
}

#[derive(Debug)]
struct Waiting {
    ladder: Ladder,
    text: String,
    over: bool,
}

impl Presenter {
    pub(crate) fn new(form: Form, shape: Shape, data: bool, ends: Ends) -> Presenter {
        let look = match form {
            Form::Human { stdout, .. } => stdout,
            Form::Json => Look { color: false, ascii: true },
        };
        Presenter { form, shape, data, ends, ladder: Ladder::new(look, data), queue: Queue::new(HELD) }
    }

    /// Waits a little for the names of these addresses, if there are to be names; or returns the signal that comes first.
    pub(crate) fn learn(&mut self, addresses: impl Iterator<Item = IpAddr>, stop: &Receiver<i32>) -> Option<i32> {
        self.ends.learn(addresses, stop)
    }

    /// The text for a segment, on a terminal of `width` columns.
    pub(crate) fn segment(&mut self, told: &Told<'_>, width: usize, text: &mut String) {
        let Form::Human { stdout: look, .. } = self.form else {
            let segment = object::Segment::new(told, self.data);
            let time = jiff_time(told.segment.time);
            return text.push_str(&json::line(&Event::Segment(Box::new(segment)), time));
        };
        match self.shape {
            Shape::Lines => {
                lines::segment(text, told, &self.ends, self.data.then_some(width), look);
            }
            Shape::Ladders => self.ladder.segment(text, told, &self.ends, width),
            Shape::LadderByLadder => {
                let ends = &self.ends;
                let draw = |ladder: &mut Ladder, text: &mut String| ladder.segment(text, told, ends, width);
                self.queue.draw(told.step.flow, &mut self.ladder, text, draw);
            }
        }
    }

    /// The text for a connection that is over, or that will not be told of any more.
    pub(crate) fn over(&mut self, flow: &Flow, dropped: Option<u64>, width: usize, text: &mut String) {
        let Form::Human { stdout: look, .. } = self.form else {
            let connection = object::Connection::new(flow, dropped);
            return text.push_str(&json::line(&Event::Connection(Box::new(connection)), jiff_time(flow.latest)));
        };
        match self.shape {
            Shape::Lines => *text += &lines::ended(flow, dropped, look),
            Shape::Ladders => self.ladder.ended(text, flow, dropped, &self.ends, width),
            Shape::LadderByLadder => {
                let ends = &self.ends;
                let draw = |ladder: &mut Ladder, text: &mut String| ladder.ended(text, flow, dropped, ends, width);
                self.queue.draw(flow.id, &mut self.ladder, text, draw);
                self.queue.over(flow.id, &mut self.ladder, text);
            }
        }
    }

    /// The text where segments are left out.
    pub(crate) fn left_out(&mut self, segments: u64, text: &mut String) {
        match self.form {
            Form::Json => text.push_str(&json::line(&Event::NotShown { segments }, Timestamp::now())),
            Form::Human { stdout: look, .. } => {
                let words = format!("{segments} segments are not shown: the output does not take them fast enough");
                let _ = writeln!(text, "    {}", look.paint(ASIDE, &words));
            }
        }
    }

    /// The text of what was held back.
    pub(crate) fn finish(&mut self, text: &mut String) {
        self.queue.spill(text);
    }
}

impl Queue {
    fn new(most: usize) -> Queue {
        Queue { head: None, complete: None, waiting: BTreeMap::new(), held: 0, most, begun: false }
    }

    fn draw(
        &mut self,
        id: FlowId,
        current: &mut Ladder,
        text: &mut String,
        draw: impl FnOnce(&mut Ladder, &mut String),
    ) {
        // What comes after a connection's end goes where it happens.
        let late = self.complete.is_some_and(|complete| id <= complete);
        if self.head.is_none() || self.head == Some(id) || late {
            if !late {
                self.head = Some(id);
            }
            self.begun = true;
            return draw(current, text);
        }
        let fresh = || Waiting { ladder: current.another(), text: String::new(), over: false };
        let waiting = self.waiting.entry(id).or_insert_with(fresh);
        self.held -= waiting.text.len();
        draw(&mut waiting.ladder, &mut waiting.text);
        self.held += waiting.text.len();
        if self.held > self.most {
            self.spill(text);
        }
    }

    /// This ladder is complete: those after it, up to one that is not, can be drawn.
    fn over(&mut self, id: FlowId, current: &mut Ladder, text: &mut String) {
        if self.head != Some(id) {
            if let Some(waiting) = self.waiting.get_mut(&id) {
                waiting.over = true;
            }
            return;
        }
        self.head = None;
        self.complete = Some(id);
        while let Some((id, next)) = self.waiting.pop_first() {
            self.held -= next.text.len();
            self.put(text, &next.text);
            *current = next.ladder;
            if !next.over {
                self.head = Some(id);
                break;
            }
            self.complete = Some(id);
        }
    }

    /// Draws all that waits; the ladders go on waiting.
    fn spill(&mut self, text: &mut String) {
        let mut waiting = mem::take(&mut self.waiting);
        for waiting in waiting.values_mut() {
            if !waiting.text.is_empty() {
                self.put(text, &mem::take(&mut waiting.text));
                waiting.ladder.interrupted();
            }
        }
        self.waiting = waiting;
        self.held = 0;
    }

    fn put(&mut self, text: &mut String, ladder: &str) {
        if mem::replace(&mut self.begun, true) && !ladder.is_empty() {
            text.push('\n');
        }
        text.push_str(ladder);
    }
}

/// The time of a segment as the objects have it.
fn jiff_time(time: towpath_capture::Timestamp) -> Timestamp {
    Timestamp::from_nanosecond(time.as_nanos().into()).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests;
