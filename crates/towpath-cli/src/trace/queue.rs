//! What the thread that takes packets in hands on to the one that shows them. From an interface it never waits: what there
//! is no room for is counted and left out. From a file it waits, and leaves out nothing.

#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::net::IpAddr;

use towpath::sync::channel::{Sender, TrySendError};
use towpath_capture::flow::{Flow, Step};
use towpath_capture::segment::Segment;

use super::words::Told;

/// How many ends of connections wait for room at most.
const MOST_OVERS: usize = 16_384;

/// Something to tell.
#[derive(Debug)]
pub(super) enum Happening {
    Segment(Box<Passed>),
    /// A connection is over, or will not be told of any more; and how many packets had been dropped by then.
    Over(Box<Flow>, Option<u64>),
    /// The interface has been taken down.
    Down,
}

impl Happening {
    /// Both ends of the connection that it is about.
    pub(super) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        let ends = match self {
            Happening::Segment(passed) => Some([passed.segment.from, passed.segment.to]),
            Happening::Over(flow, _) => Some([flow.ends.client.addr, flow.ends.server.addr]),
            Happening::Down => None,
        };
        ends.into_iter().flatten().map(|end| end.ip())
    }
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

impl Passed {
    /// `segment` with what it meant, and, if `data`, with what it carried.
    pub(super) fn new(segment: &Segment<'_>, step: Step, comment: &str, data: bool) -> Passed {
        let payload = if data { segment.payload.to_vec() } else { Vec::new() };
        Passed { segment: bare(segment), payload, step, comment: comment.to_owned(), left_out: 0 }
    }

    /// It, for as long as `look` looks.
    pub(super) fn tell<T>(&self, look: impl FnOnce(&Told<'_>) -> T) -> T {
        let mut segment: Segment<'_> = self.segment;
        segment.payload = &self.payload;
        look(&Told { segment: &segment, step: &self.step, comment: &self.comment })
    }
}

/// The same without a payload, and so without a lifetime.
fn bare(segment: &Segment<'_>) -> Segment<'static> {
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

/// The sending end.
#[derive(Debug)]
pub(super) struct Queue {
    send: Sender<Happening>,
    /// Waits for room instead of leaving something out.
    patient: bool,
    /// Ends of connections that had no room, to be handed on when there is some.
    overs: VecDeque<Happening>,
    /// How many segments were left out since the last that was not.
    missing: u64,
    /// How many were in all, and how many ends of connections because too many of them had no room.
    pub(super) left_out: u64,
    pub(super) ends_left_out: u64,
    /// Nobody takes anything any more.
    pub(super) is_deaf: bool,
}

impl Queue {
    /// To `send`, waiting for room there or not.
    pub(super) fn new(send: Sender<Happening>, patient: bool) -> Queue {
        Queue { send, patient, overs: VecDeque::new(), missing: 0, left_out: 0, ends_left_out: 0, is_deaf: false }
    }

    pub(super) fn segment(&mut self, mut passed: Passed) {
        self.catch_up();
        passed.left_out = self.missing;
        if self.offer(Happening::Segment(Box::new(passed))).is_some() {
            self.missing += 1;
            self.left_out += 1;
        } else {
            self.missing = 0;
        }
    }

    pub(super) fn over(&mut self, flow: Flow, dropped: Option<u64>) {
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

    pub(super) fn down(&mut self) {
        // Whoever is behind by a whole queue has other troubles.
        drop(self.offer(Happening::Down));
    }

    /// From now on, waits for room.
    pub(super) fn wait(&mut self) {
        self.patient = true;
        self.catch_up();
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
            self.is_deaf |= self.send.send(happening).is_err();
            return None;
        }
        match self.send.try_send(happening) {
            Ok(()) => None,
            Err(TrySendError::Full(happening)) => Some(happening),
            Err(_) => {
                self.is_deaf = true;
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use towpath::sync::channel;
    use towpath_capture::Timestamp;
    use towpath_capture::flow::Flows;
    use towpath_capture::segment::Flags;

    use super::*;

    #[test]
    fn what_has_no_room_is_counted_and_ends_of_connections_come_later() {
        let (send, receive) = channel::bounded(2);
        let mut queue = Queue::new(send, false);
        let mut flows = Flows::new();
        let (client, server) = ("10.0.0.1:40000".parse().unwrap(), "10.0.0.2:80".parse().unwrap());
        let mut pass = |queue: &mut Queue, seq| {
            let segment = Segment::new(Timestamp::from_nanos(1), client, server, seq, 0, Flags::ACK);
            let step = flows.push(&segment);
            let flow = flows.flow(step.flow).unwrap().clone();
            queue.segment(Passed::new(&segment, step, "", false));
            flow
        };
        for seq in 0..5 {
            let flow = pass(&mut queue, seq);
            if seq == 4 {
                queue.over(flow, Some(7));
            }
        }
        assert_eq!((queue.left_out, queue.overs.len()), (3, 1));
        assert_eq!(receive.try_iter().take(2).count(), 2);
        pass(&mut queue, 5);
        assert!(matches!(receive.try_recv(), Ok(Happening::Over(_, Some(7)))), "the end first");
        match receive.try_recv() {
            Ok(Happening::Segment(passed)) => assert_eq!(passed.left_out, 3),
            other => panic!("{other:?}"),
        }
        drop(receive);
        pass(&mut queue, 6);
        assert!(queue.is_deaf);
    }
}
