//! The segments as they pass, from a thread that takes them in.

#![forbid(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::io::Errno;
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

/// What the thread says.
#[derive(Debug)]
pub(super) enum Heard {
    Passed(Passed),
    /// All that had passed when this was asked for has come.
    CaughtUp,
}

/// The thread, as seen from elsewhere. It ends with the process, or once nobody takes anything any more.
#[derive(Debug)]
pub(super) struct Wire {
    pub(super) heard: Receiver<io::Result<Heard>>,
    /// Readable while somebody asks.
    asked: Arc<OwnedFd>,
}

impl Wire {
    /// Has the thread say so once it has caught up.
    pub(super) fn ask(&self) {
        // It can only fail when it was asked very many times before.
        let _ = rustix::io::write(&self.asked, &1_u64.to_ne_bytes());
    }
}

/// Has what passes to and from `ports` on the loopback interface come, from now on.
pub(super) fn tap(ports: &[u16]) -> Result<Wire, OpenError> {
    let mut builder = Capture::builder().interface(LOOPBACK);
    for &port in ports {
        builder = builder.port(port);
    }
    let capture = builder.open()?;
    let asked = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
    let asked = Arc::new(asked.map_err(|e| OpenError::Io("eventfd", e.into()))?);
    let (send, heard) = channel::unbounded();
    let theirs = asked.clone();
    let started = thread::Builder::new().name("wire".into()).spawn(move || {
        if let Err(error) = take_in(capture, &theirs, &send) {
            let _ = send.send(Err(error));
        }
    });
    started.map_err(|e| OpenError::Io("start a thread", e))?;
    Ok(Wire { heard, asked })
}

fn take_in(mut capture: Capture, asked: &OwnedFd, to: &Sender<io::Result<Heard>>) -> io::Result<()> {
    loop {
        let mut fds = [PollFd::from_borrowed_fd(capture.as_fd(), PollFlags::IN), PollFd::new(asked, PollFlags::IN)];
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
        // Taken first: what has passed by now is there to be read.
        let asked = rustix::io::read(asked, &mut [0; 8]).is_ok();
        while let Some(passed) = next(&mut capture)? {
            if to.send(Ok(Heard::Passed(passed))).is_err() {
                return Ok(());
            }
        }
        if asked && to.send(Ok(Heard::CaughtUp)).is_err() {
            return Ok(());
        }
    }
}

/// What has passed next, if anything is there.
fn next(capture: &mut Capture) -> io::Result<Option<Passed>> {
    let mut passed = loop {
        match capture.read(Some(Duration::ZERO))? {
            Some(Event::Frame(frame)) => {
                let Frame { time, link, interface, data, original_len, .. } = frame;
                break Passed { time, link, interface, data: data.to_vec(), original_len, dropped: 0 };
            }
            Some(Event::Down) => return Err(io::ErrorKind::NetworkDown.into()),
            Some(_) => {}
            None => return Ok(None),
        }
    };
    passed.dropped = capture.stats()?.dropped;
    Ok(Some(passed))
}
