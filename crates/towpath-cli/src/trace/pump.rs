//! The thread that takes packets in: it follows connections, writes the file, and hands on what there is to tell.

#![forbid(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant, SystemTime};

use rustix::net::netdevice;
use towpath_capture::file::Interface;
use towpath_capture::flow::Flow;
use towpath_capture::live::{Capture, Event};
use towpath_capture::{Frame, Timestamp};

use super::packets::FilePackets;
use super::queue::{Passed, Queue};
use super::save::Saver;
use super::stop::Stop;
use super::tracer::{Seen, Tally, Tracer};
use super::who::Clerk;
use super::words;
use crate::exit::{Exit, Failure, reason};

/// How often one looks whether an interface that is down still exists: of that the kernel tells nothing.
const LOOK: Duration = Duration::from_millis(200);

/// How long packets gather where many come. Nobody sees the difference, and the kernel has room for them.
const GATHER: Duration = Duration::from_millis(1);

/// What the thread needs.
pub(super) struct Pump {
    pub(super) tracer: Tracer,
    pub(super) saver: Option<Saver>,
    /// Knows whose connections are; of a file, the file does.
    pub(super) clerk: Option<Clerk>,
    pub(super) queue: Queue,
    pub(super) stop: Stop,
    /// How many segments are to be told of.
    pub(super) count: Option<u64>,
    /// What segments carry is to be shown.
    pub(super) data: bool,
}

/// What it came to.
#[derive(Debug, Default)]
pub(super) struct Account {
    pub(super) tally: Tally,
    /// How many packets were lost before they came here, where that is known.
    pub(super) dropped: Option<u64>,
    /// How many segments, and how many ends of connections, were left out because nobody took them fast enough.
    pub(super) left_out: u64,
    pub(super) ends_left_out: u64,
    /// Why it ended before its time.
    pub(super) failure: Option<Failure>,
}

impl Pump {
    /// Takes in a file to its end, unless it is told to stop.
    pub(super) fn run_file(mut self, mut packets: FilePackets) -> Account {
        // The order to stop may come as an error.
        let failure = self.take_file(&mut packets).err().filter(|_| !self.stop.is_raised());
        self.end(packets.dropped(), failure)
    }

    fn take_file(&mut self, packets: &mut FilePackets) -> Result<(), Failure> {
        while !self.is_enough() && !self.stop.is_raised() {
            let dropped = packets.dropped();
            let Some(frame) = packets.read()? else { break };
            let over = if self.saver.as_ref().is_some_and(|saver| !saver.knows(frame.interface)) {
                // The interface is to be looked at amid its first packet.
                let (data, comment) = (frame.data.to_vec(), frame.comment.to_owned());
                let Frame { time, link, interface, original_len, .. } = frame;
                self.describe(interface, &packets.interfaces()[interface as usize])?;
                self.take(&Frame { time, link, interface, original_len, data: &data, comment: &comment }, dropped)?
            } else {
                self.take(&frame, dropped)?
            };
            if let Some(flow) = over {
                self.queue.over(flow, dropped);
            }
        }
        Ok(())
    }

    /// Takes in what passes, until it is told to stop.
    pub(super) fn run_live(mut self, mut capture: Capture, interface: &str) -> Account {
        let began = Timestamp::from(SystemTime::now());
        let mut failure = self.take_live(&mut capture, interface).err();
        let stats = capture.stats().unwrap_or_default();
        if let Some(saver) = &mut self.saver
            && failure.is_none()
        {
            failure = saver.count(began, stats.received, stats.dropped).err();
        }
        self.end(Some(stats.dropped), failure)
    }

    fn take_live(&mut self, capture: &mut Capture, interface: &str) -> Result<(), Failure> {
        let failed = |e: &io::Error| Failure::new(Exit::Other, format!("trace {interface}: {}", reason(e)));
        let socket = capture.as_fd().try_clone_to_owned().map_err(|e| failed(&e))?;
        let index = netdevice::name_to_index(&socket, interface).unwrap_or(0);
        let mut is_down = false;
        // The kernel counts on; it is asked when a connection is over.
        let mut dropped = 0;
        let mut woken = None;
        // Once the order has come, what has passed by then is taken in.
        let mut stopping = false;
        while !self.is_enough() {
            if !stopping && self.stop.is_raised() {
                capture.stop().map_err(|e| failed(&e))?;
                stopping = true;
            }
            let frame = match capture.read(Some(Duration::ZERO)).map_err(|e| failed(&e))? {
                Some(Event::Frame(frame)) => frame,
                Some(Event::Down) => {
                    is_down = true;
                    self.queue.down();
                    continue;
                }
                Some(_) => continue,
                None if stopping => break,
                None => {
                    if is_down && netdevice::index_to_name(&socket, index).is_err() {
                        return Err(Failure::new(Exit::Other, format!("trace {interface}: it has been deleted")));
                    }
                    self.pause(&socket, is_down.then_some(LOOK), woken)?;
                    woken = Some(Instant::now());
                    continue;
                }
            };
            is_down = false;
            if let Some(saver) = &mut self.saver {
                saver.describe_passed(&frame)?;
            }
            if let Some(flow) = self.take(&frame, Some(dropped))? {
                dropped = capture.stats().map_or(dropped, |stats| stats.dropped);
                self.queue.over(flow, Some(dropped));
            }
        }
        Ok(())
    }

    /// Nothing has come for now: others may read what was written, and we wait. If that was so just before too, and many
    /// packets come one by one, they are left to gather: each time that somebody is woken costs as much as some packets do.
    fn pause(&mut self, socket: &OwnedFd, timeout: Option<Duration>, woken: Option<Instant>) -> Result<(), Failure> {
        if let Some(saver) = &mut self.saver {
            saver.flush()?;
        }
        let wait = || {
            if woken.is_some_and(|woken| woken.elapsed() < GATHER) && !self.stop.wait(GATHER)? {
                return Ok(());
            }
            self.stop.wait_readable(socket.as_fd(), timeout).map(drop)
        };
        wait().map_err(|e| Failure::new(Exit::Other, format!("trace: poll: {}", reason(&e))))
    }

    fn describe(&mut self, number: u32, interface: &Interface) -> Result<(), Failure> {
        self.saver.as_mut().map_or(Ok(()), |saver| saver.describe(number, interface))
    }

    fn is_enough(&self) -> bool {
        self.queue.is_deaf || self.count.is_some_and(|count| self.tracer.tally().segments >= count)
    }

    /// Takes in one frame; gives the connection that is over by it.
    fn take(&mut self, frame: &Frame<'_>, dropped: Option<u64>) -> Result<Option<Flow>, Failure> {
        let Some(seen) = self.tracer.push(frame) else { return Ok(None) };
        let Seen { segment, step, forgotten, over } = seen;
        let ends = words::ends(&segment, &step);
        let found = self.clerk.as_mut().and_then(|clerk| clerk.comment(step.flow, step.first, ends));
        let comment = found.as_deref().unwrap_or(frame.comment);
        if let Some(saver) = &mut self.saver {
            saver.write(&Frame { comment, ..*frame })?;
        }
        for flow in forgotten {
            self.queue.over(flow, dropped);
        }
        self.queue.segment(Passed::new(&segment, step, comment, self.data));
        Ok(over)
    }

    fn end(self, dropped: Option<u64>, mut failure: Option<Failure>) -> Account {
        let Pump { tracer, saver, mut queue, .. } = self;
        if let Some(Err(e)) = saver.map(Saver::finish) {
            failure.get_or_insert(e);
        }
        let tally = tracer.tally();
        // Nothing passes us any more: there is time.
        queue.wait();
        for flow in tracer.finish() {
            queue.over(flow, dropped);
        }
        Account { tally, dropped, left_out: queue.left_out, ends_left_out: queue.ends_left_out, failure }
    }
}
