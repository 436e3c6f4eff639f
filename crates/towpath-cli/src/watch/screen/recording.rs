//! `w`: the segments of one connection, or of all that passes the filter, into a pcapng file, until `w` comes again.
//!
//! A thread captures and writes. The kernel picks by port and host; what it cannot tell apart is told apart here.

#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{self, ErrorKind};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime};

use jiff::Zoned;
use towpath_capture::live::{Capture, Event, OpenError};
use towpath_capture::{Frame, Timestamp};
use towpath_diag::State;

use super::super::filter::{Filter, Subject};
use super::super::table::Ends;
use crate::exit::{Exit, Failure, reason};
use crate::trace::Saver;

/// How often the thread looks whether it is to stop, and writes what it holds.
const LOOK: Duration = Duration::from_millis(100);

/// Which segments.
#[derive(Debug, Clone)]
pub(super) enum Wanted {
    /// Of one connection, or of a listener's port.
    Of(Ends),
    /// What the filter lets pass by its addresses.
    Passing(Filter),
}

/// A capture that goes on.
#[derive(Debug)]
pub(super) struct Recording {
    path: PathBuf,
    /// It is to stop.
    stopping: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
    thread: JoinHandle<Result<u64, Failure>>,
}

/// What a capture came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Recorded {
    pub(super) path: PathBuf,
    pub(super) segments: u64,
    pub(super) dropped: u64,
}

impl Recording {
    /// Begins. The first segment bears `comment`.
    ///
    /// # Errors
    /// Why it cannot, and what to do about it, in words.
    pub(super) fn start(wanted: Wanted, comment: String) -> Result<Recording, String> {
        let capture = wanted.open().map_err(|error| explain(&error))?;
        let (path, file) = create().map_err(|e| format!("create a file here: {}", reason(&e)))?;
        let saver = Saver::new(file, &path).map_err(|failure| failure.what)?;
        let (stopping, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let work =
            Work { wanted, capture, saver, comment, stopping: Arc::clone(&stopping), written: Arc::clone(&written) };
        let thread = thread::Builder::new().name("capture".into()).spawn(move || work.run());
        let thread = thread.map_err(|e| format!("start a thread: {}", reason(&e)))?;
        Ok(Recording { path, stopping, written, thread })
    }

    /// What it has come to by now, in a few words.
    pub(super) fn progress(&self) -> String {
        let segments = self.written.load(Ordering::Relaxed);
        format!("writing {} ({segments})", self.path.display())
    }

    /// Ends it.
    pub(super) fn stop(self) -> Result<Recorded, String> {
        self.stopping.store(true, Ordering::Relaxed);
        let panicked = |_| format!("write {}: the thread that writes has panicked", self.path.display());
        let dropped = self.thread.join().map_err(panicked)?.map_err(|failure| failure.what)?;
        Ok(Recorded { path: self.path, segments: self.written.load(Ordering::Relaxed), dropped })
    }

    /// Whether it has come to its end by itself, by an error.
    pub(super) fn has_failed(&self) -> bool {
        self.thread.is_finished()
    }
}

impl Wanted {
    fn open(&self) -> Result<Capture, OpenError> {
        let builder = Capture::builder();
        let (ports, hosts): (Vec<u16>, Vec<IpAddr>) = match self {
            Wanted::Of((local, None)) => (vec![local.port()], vec![]),
            // The kernel takes what has either port. That of a client is the one that others hardly have.
            Wanted::Of((local, Some(peer))) => (vec![local.port().max(peer.port())], vec![local.ip()]),
            Wanted::Passing(filter) => {
                let kernels = filter.kernels();
                let whole = |length: u8, address: IpAddr| length == if address.is_ipv4() { 32 } else { 128 };
                let hosts = filter.addresses();
                let exact = hosts.iter().all(|prefix| whole(prefix.length(), prefix.address()));
                (kernels.ports, if exact { hosts.iter().map(|prefix| prefix.address()).collect() } else { vec![] })
            }
        };
        let builder = ports.into_iter().fold(builder, |builder, port| builder.port(port));
        hosts.into_iter().fold(builder, |builder, host| builder.host(host)).open()
    }

    fn has(&self, frame: &Frame<'_>) -> bool {
        let Ok(Some(segment)) = frame.segment() else { return false };
        let (from, to) = (segment.from, segment.to);
        match self {
            Wanted::Of((local, None)) => from.port() == local.port() || to.port() == local.port(),
            Wanted::Of((local, Some(peer))) => (from, to) == (*local, *peer) || (from, to) == (*peer, *local),
            Wanted::Passing(filter) => filter.passes_by_address(&Subject {
                state: State::Established,
                local: from,
                peer: Some(to),
                owners: &[],
            }),
        }
    }
}

struct Work {
    wanted: Wanted,
    capture: Capture,
    saver: Saver,
    comment: String,
    stopping: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
}

impl Work {
    /// Captures until it is to stop, and what has passed by then. Returns how many segments were dropped.
    fn run(mut self) -> Result<u64, Failure> {
        let failed = |e: io::Error| Failure::new(Exit::Other, format!("capture: {}", reason(&e)));
        let began = Timestamp::from(SystemTime::now());
        let mut stopping = false;
        loop {
            if !stopping && self.stopping.load(Ordering::Relaxed) {
                self.capture.stop().map_err(failed)?;
                stopping = true;
            }
            let wait = if stopping { Duration::ZERO } else { LOOK };
            match self.capture.read(Some(wait)).map_err(failed)? {
                Some(Event::Frame(frame)) if self.wanted.has(&frame) => {
                    self.saver.describe_passed(&frame)?;
                    let comment = std::mem::take(&mut self.comment);
                    self.saver.write(&Frame { comment: &comment, ..frame })?;
                    self.written.fetch_add(1, Ordering::Relaxed);
                }
                Some(_) => {}
                None if stopping => break,
                None => self.saver.flush()?,
            }
        }
        let stats = self.capture.stats().map_err(failed)?;
        self.saver.count(began, stats.received, stats.dropped)?;
        self.saver.finish()?;
        Ok(stats.dropped)
    }
}

/// A new file in the current folder, named after the time of day.
fn create() -> io::Result<(PathBuf, File)> {
    let name = Zoned::now().strftime("towpath-%Y%m%d-%H%M%S").to_string();
    for attempt in 1.. {
        let path =
            PathBuf::from(if attempt == 1 { format!("{name}.pcapng") } else { format!("{name}-{attempt}.pcapng") });
        match File::create_new(&path) {
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
            created => return created.map(|file| (path, file)),
        }
    }
    unreachable!("there are more names than files")
}

fn explain(error: &OpenError) -> String {
    match error {
        OpenError::NotPermitted(_) => {
            let program = std::env::current_exe().map_or_else(|_| "towpath".into(), |path| path.display().to_string());
            // The middle is what is cut where there is no room.
            format!("w needs root: sudo towpath watch; or once: sudo setcap cap_net_raw+ep {program}")
        }
        other => format!("w: {other}"),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn what_comes_after_the_stop_is_not_waited_for() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let wanted = Wanted::Of((addr, None));
        let capture = match wanted.open() {
            Err(OpenError::NotPermitted(_)) => return println!("skipped: only root may capture"),
            capture => capture.unwrap(),
        };
        let mut client = TcpStream::connect(addr).unwrap();
        let mut server = listener.accept().unwrap().0;
        // What has arrived has been captured.
        let mut send = |text: &[u8]| {
            client.write_all(text).unwrap();
            server.read_exact(&mut vec![0; text.len()]).unwrap();
        };
        let path = std::env::temp_dir().join(format!("towpath-recording-{}", std::process::id()));
        let (file, written) = (File::create(&path).unwrap(), Arc::new(AtomicU64::new(0)));
        let (stopping, comment) = (Arc::new(AtomicBool::new(true)), String::new());
        let saver = Saver::new(file, &path).unwrap();
        let work = Work { wanted, capture, saver, comment, stopping, written };

        send(b"before");
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    send(b"meanwhile");
                }
            });
            let done = work.run();
            over.store(true, Ordering::Relaxed);
            done.unwrap();
        });
        let mut reader = towpath_capture::file::Reader::open(&path).unwrap();
        let mut payloads = vec![];
        while let Some(frame) = reader.read_frame().unwrap() {
            payloads.extend_from_slice(frame.segment().unwrap().unwrap().payload);
        }
        assert!(payloads.starts_with(b"before"));
        std::fs::remove_file(&path).unwrap();
    }
}
