//! The thread that takes packets in. It follows connections, writes the file and hands on what there is to tell, over a
//! queue of a fixed length. From an interface it never waits for whoever prints: what the queue has no room for is
//! counted and left out, and only there. From a file it waits, and leaves out nothing.

#![forbid(unsafe_code)]

use std::collections::VecDeque;

use towpath::sync::channel::{Sender, TrySendError};
use towpath_capture::Frame;
use towpath_capture::file::Interface;
use towpath_capture::flow::{Flow, Step};
use towpath_capture::segment::Segment;

use super::packets::FilePackets;
use super::save::Saver;
use super::stop::Stop;
use super::tracer::{Seen, Tally, Tracer};
use super::words::Told;
use crate::exit::Failure;

/// Something to tell.
#[derive(Debug)]
pub(super) enum Happening {
    Segment(Box<Passed>),
    /// A connection is over, or will not be told of any more; and how many packets had been dropped by then.
    Over(Box<Flow>, Option<u64>),
}

/// A segment that passed.
#[derive(Debug)]
pub(super) struct Passed {
    /// Without what it carried.
    segment: Segment<'static>,
    payload: Vec<u8>,
    step: Step,
    comment: String,
    /// How many segments before it were left out.
    pub(super) left_out: u64,
}

/// What it came to.
#[derive(Debug, Default)]
pub(super) struct Account {
    pub(super) tally: Tally,
    /// How many packets were lost before they came here, where that is known.
    pub(super) dropped: Option<u64>,
    /// How many segments were left out for want of room in the queue.
    pub(super) left_out: u64,
    /// How many ends of connections were.
    pub(super) ends_left_out: u64,
    /// Why it ended before its time.
    pub(super) failure: Option<Failure>,
}

/// What the thread needs.
pub(super) struct Pump {
    pub(super) tracer: Tracer,
    pub(super) saver: Option<Saver>,
    pub(super) queue: Queue,
    pub(super) stop: Stop,
    /// How many segments are to be told of.
    pub(super) count: Option<u64>,
    /// What segments carry is to be shown.
    pub(super) data: bool,
}

/// Whether to go on.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    On,
    Enough,
}

impl Passed {
    /// As renderers take it; `segment` is room for what it is made of.
    pub(super) fn told<'a>(&'a self, segment: &'a mut Segment<'a>) -> Told<'a> {
        *segment = self.segment;
        segment.payload = &self.payload;
        Told { segment, step: &self.step, comment: &self.comment }
    }

    pub(super) fn segment(&self) -> Segment<'_> {
        self.segment
    }
}

impl Pump {
    /// Takes in a file.
    pub(super) fn run_file(mut self, mut packets: FilePackets) -> Account {
        let failure = self.take_file(&mut packets).err().filter(|_| !self.stop.is_raised());
        self.end(packets.dropped(), failure)
    }

    /// Takes in frames up to the end. The order to stop may come as an error.
    fn take_file(&mut self, packets: &mut FilePackets) -> Result<(), Failure> {
        let mut described = 0;
        while !self.stop.is_raised() {
            let dropped = packets.dropped();
            let Some(frame) = packets.read()? else { break };
            let next = if self.saver.is_some() && frame.interface as usize >= described {
                let (data, comment) = (frame.data.to_vec(), frame.comment.to_owned());
                let Frame { time, link, interface, original_len, .. } = frame;
                self.describe(described, packets.interfaces())?;
                described = packets.interfaces().len();
                let frame = Frame { time, link, interface, data: &data, original_len, comment: &comment };
                self.take(&frame, &comment, dropped)?
            } else {
                self.take(&frame, frame.comment, dropped)?
            };
            if next == Next::Enough {
                break;
            }
        }
        Ok(())
    }

    /// Has the file that is written know the interfaces of the one that is read, from this one on.
    fn describe(&mut self, from: usize, interfaces: &[Interface]) -> Result<(), Failure> {
        let Some(saver) = &mut self.saver else { return Ok(()) };
        interfaces.iter().enumerate().skip(from).try_for_each(|(place, interface)| saver.describe(place as u32, interface))
    }

    /// Takes in one frame.
    fn take(&mut self, frame: &Frame<'_>, comment: &str, dropped: Option<u64>) -> Result<Next, Failure> {
        let Some(seen) = self.tracer.push(frame) else { return Ok(Next::On) };
        if let Some(saver) = &mut self.saver {
            saver.write(&Frame { comment, ..*frame })?;
        }
        let Seen { segment, step, forgotten, over } = seen;
        for flow in forgotten {
            self.queue.over(flow, dropped);
        }
        let payload = if self.data { segment.payload.to_vec() } else { Vec::new() };
        self.queue.segment(segment, payload, step, comment.to_owned());
        if let Some(flow) = over {
            self.queue.over(flow, dropped);
        }
        let enough = self.queue.is_deaf() || self.count.is_some_and(|count| self.tracer.tally().segments >= count);
        Ok(if enough { Next::Enough } else { Next::On })
    }

    fn end(self, dropped: Option<u64>, mut failure: Option<Failure>) -> Account {
        let Pump { tracer, saver, mut queue, .. } = self;
        if let Some(saver) = saver
            && let Err(e) = saver.finish()
        {
            failure.get_or_insert(e);
        }
        let tally = tracer.tally();
        queue.patient = true;
        for flow in tracer.finish() {
            queue.over(flow, dropped);
        }
        Account { tally, dropped, left_out: queue.left_out, ends_left_out: queue.ends_left_out, failure }
    }
}

/// How many ends of connections wait for room at most.
const MOST_OVERS: usize = 16_384;

/// What is handed on.
#[derive(Debug)]
pub(super) struct Queue {
    send: Sender<Happening>,
    /// Waits for room instead of leaving something out.
    patient: bool,
    /// Ends of connections that had no room, to be handed on when there is some.
    overs: VecDeque<Happening>,
    /// How many segments were left out, and how many since the last that was not.
    left_out: u64,
    missing: u64,
    /// How many ends of connections were, because too many of them had no room.
    ends_left_out: u64,
    /// Nobody takes anything any more.
    deaf: bool,
}

impl Queue {
    /// To `send`, waiting for room there or not.
    pub(super) fn new(send: Sender<Happening>, patient: bool) -> Queue {
        Queue { send, patient, overs: VecDeque::new(), left_out: 0, missing: 0, ends_left_out: 0, deaf: false }
    }

    fn is_deaf(&self) -> bool {
        self.deaf
    }

    fn segment(&mut self, mut segment: Segment<'_>, payload: Vec<u8>, step: Step, comment: String) {
        segment.payload = &[];
        let passed = Passed { segment: bare(segment), payload, step, comment, left_out: self.missing };
        self.catch_up();
        if self.offer(Happening::Segment(Box::new(passed))).is_some() {
            self.missing += 1;
            self.left_out += 1;
        } else {
            self.missing = 0;
        }
    }

    fn over(&mut self, flow: Flow, dropped: Option<u64>) {
        self.catch_up();
        let over = Happening::Over(Box::new(flow), dropped);
        let waiting = if self.overs.is_empty() { self.offer(over) } else { Some(over) };
        let Some(over) = waiting else { return };
        if self.overs.len() < MOST_OVERS {
            self.overs.push_back(over);
        } else {
            self.ends_left_out += 1;
        }
    }

    /// Hands on what had no room.
    fn catch_up(&mut self) {
        while let Some(over) = self.overs.pop_front() {
            if let Some(over) = self.offer(over) {
                self.overs.push_front(over);
                break;
            }
        }
    }

    /// Hands something on; gives it back if there is no room.
    fn offer(&mut self, happening: Happening) -> Option<Happening> {
        if self.patient {
            self.deaf |= self.send.send(happening).is_err();
            return None;
        }
        match self.send.try_send(happening) {
            Ok(()) => None,
            Err(TrySendError::Full(happening)) => Some(happening),
            Err(_) => {
                self.deaf = true;
                None
            }
        }
    }
}

/// The same without a payload, and so without a lifetime.
fn bare(segment: Segment<'_>) -> Segment<'static> {
    let mut bare = Segment::new(segment.time, segment.from, segment.to, segment.seq, segment.ack, segment.flags);
    bare.window = segment.window;
    bare.urgent = segment.urgent;
    bare.options = segment.options;
    bare.payload_len = segment.payload_len;
    bare.ecn = segment.ecn;
    bare.ttl = segment.ttl;
    bare.ip_id = segment.ip_id;
    bare.vlan = segment.vlan;
    bare.interface = segment.interface;
    bare
}
