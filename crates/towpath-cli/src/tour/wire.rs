//! The segments as they pass, from a thread that takes them in.

#![forbid(unsafe_code)]

use std::io;
use std::thread;

use towpath::sync::channel::{self, Receiver, Sender};
use towpath_capture::live::{Capture, Event, OpenError};
use towpath_capture::{Frame, LinkType, Timestamp};

use super::link::LOOPBACK;

/// A frame that passed, kept.
#[derive(Debug)]
pub(super) struct Passed {
    time: Timestamp,
    link: LinkType,
    interface: u32,
    data: Vec<u8>,
    original_len: u32,
    /// How many the kernel had dropped by then.
    pub(super) dropped: u64,
}

impl Passed {
    pub(super) fn frame(&self) -> Frame<'_> {
        Frame {
            time: self.time,
            link: self.link,
            interface: self.interface,
            data: &self.data,
            original_len: self.original_len,
            comment: "",
        }
    }
}

/// Has what passes to and from `ports` on the loopback interface come, from now on.
pub(super) fn tap(ports: &[u16]) -> Result<Receiver<io::Result<Passed>>, OpenError> {
    let mut builder = Capture::builder().interface(LOOPBACK);
    for &port in ports {
        builder = builder.port(port);
    }
    let capture = builder.open()?;
    let (send, frames) = channel::unbounded();
    // It ends with the process, or once nobody takes anything any more.
    let started = thread::Builder::new().name("wire".into()).spawn(move || take_in(capture, &send));
    started.map_err(|e| OpenError::Io("start a thread", e))?;
    Ok(frames)
}

fn take_in(mut capture: Capture, to: &Sender<io::Result<Passed>>) {
    loop {
        let passed = next(&mut capture);
        let last = passed.is_err();
        if to.send(passed).is_err() || last {
            return;
        }
    }
}

fn next(capture: &mut Capture) -> io::Result<Passed> {
    let mut passed = loop {
        match capture.read(None)? {
            Some(Event::Frame(frame)) => {
                let Frame { time, link, interface, data, original_len, .. } = frame;
                break Passed { time, link, interface, data: data.to_vec(), original_len, dropped: 0 };
            }
            Some(Event::Down) => return Err(io::ErrorKind::NetworkDown.into()),
            _ => {}
        }
    };
    passed.dropped = capture.stats()?.dropped;
    Ok(passed)
}
