//! What an actor does: the library's calls, each noted for the watchdog, counted, and its bytes checked.

use std::cell::RefCell;
use std::hint::black_box;
use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::thread::{self, ThreadId};

use towpath::net::{Shutdown, SocketAddr, TcpListener, TcpStream, is_closed};
use towpath::time::{Duration, Instant};

use crate::rng::{Pattern, Rng};
use crate::tally::{Did, did};
use crate::watch::Record;

/// An actor.
#[derive(Debug)]
pub(crate) struct Me {
    record: Arc<Record>,
    rng: RefCell<Rng>,
    thread: ThreadId,
}

/// One direction of a connection, as far as it has got.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Course {
    pattern: Pattern,
    pub(crate) at: u64,
}

impl Course {
    pub(crate) fn new(rng: &mut Rng) -> Course {
        Course { pattern: Pattern(rng.next()), at: 0 }
    }

    /// The next bytes, to be sent together with others.
    pub(crate) fn append(&mut self, to: &mut Vec<u8>, count: usize) {
        to.extend(self.pattern.bytes(self.at, count));
        self.at += count as u64;
    }
}

impl Me {
    pub(crate) fn new(record: Arc<Record>, rng: RefCell<Rng>) -> Me {
        Me { record, rng, thread: thread::current().id() }
    }

    /// A task that has started stays on its worker.
    pub(crate) fn check_pinned(&self) {
        assert_eq!(thread::current().id(), self.thread, "an actor has been moved to another thread");
    }

    pub(crate) fn does(&self, what: &'static str) {
        self.record.does(what, None);
    }

    fn calls(&self, what: &'static str, socket: &impl AsRawFd) {
        self.record.does(what, Some(socket.as_raw_fd()));
    }

    pub(crate) fn below(&self, n: usize) -> usize {
        self.rng.borrow_mut().below(n)
    }

    pub(crate) fn chance(&self, percent: usize) -> bool {
        self.rng.borrow_mut().chance(percent)
    }

    pub(crate) fn rng(&self) -> Rng {
        self.rng.borrow_mut().fork()
    }

    /// Some nanoseconds each of `n` times.
    pub(crate) fn spin(&self, n: usize) {
        (0..n).for_each(|i| _ = black_box(i));
    }

    /// Lets others go first, or not, for a time that differs.
    pub(crate) fn dawdle(&self) {
        match self.below(64) {
            0..8 => towpath::task::yield_now(),
            8..24 => self.spin(self.below(5_000)),
            24 => self.sleep(Duration::from_micros(self.below(1_500) as u64)),
            _ => {}
        }
    }

    pub(crate) fn sleep(&self, time: Duration) {
        self.does("sleep");
        let begun = Instant::now();
        towpath::time::sleep(time).expect("nobody cancels it");
        assert!(begun.elapsed() >= time, "a sleep of {time:?} took {:?}", begun.elapsed());
        did(Did::Slept);
        self.record.says("after sleep");
    }

    pub(crate) fn read(&self, stream: &TcpStream, buf: &mut [u8]) -> io::Result<usize> {
        self.calls("read", stream);
        let result = (&*stream).read(buf);
        self.has_read(&result, buf.len());
        result
    }

    pub(crate) fn read_vectored(&self, stream: &TcpStream, buf: &mut [u8]) -> io::Result<usize> {
        self.calls("read_vectored", stream);
        let len = buf.len();
        let (first, second) = buf.split_at_mut(self.below(len + 1));
        let result = (&*stream).read_vectored(&mut [IoSliceMut::new(first), IoSliceMut::new(second)]);
        did(Did::VectoredRead);
        self.has_read(&result, len);
        result
    }

    fn has_read(&self, result: &io::Result<usize>, len: usize) {
        match result {
            Ok(n) => {
                did(Did::Read);
                match *n {
                    0 if len > 0 => did(Did::EndOfFile),
                    n if n < len => did(Did::ShortRead),
                    _ => {}
                }
                if len == 1 {
                    did(Did::OneByteRead);
                }
            }
            Err(e) => self.has_failed(e, [Did::ReadTimedOut, Did::ReadClosed, Did::ReadReset]),
        }
        self.record.says("after read");
    }

    fn has_failed(&self, error: &io::Error, [timed_out, closed, reset]: [Did; 3]) {
        match error.kind() {
            _ if is_closed(error) => did(closed),
            ErrorKind::TimedOut if error.raw_os_error().is_none() => did(timed_out),
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::ConnectionAborted => did(reset),
            ErrorKind::WouldBlock => did(Did::WouldBlock),
            _ => panic!("an error that nobody caused: {error:?}"),
        }
    }

    pub(crate) fn peek(&self, stream: &TcpStream, buf: &mut [u8]) -> io::Result<usize> {
        self.calls("peek", stream);
        let result = stream.peek(buf);
        match &result {
            Ok(_) => did(Did::Peek),
            Err(e) => self.has_failed(e, [Did::ReadTimedOut, Did::ReadClosed, Did::ReadReset]),
        }
        self.record.says("after peek");
        result
    }

    pub(crate) fn write(&self, stream: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
        self.calls("write", stream);
        let result = match self.chance(80) {
            true => (&*stream).write(bytes),
            false => {
                did(Did::VectoredWrite);
                let (first, second) = bytes.split_at(self.below(bytes.len() + 1));
                (&*stream).write_vectored(&[IoSlice::new(first), IoSlice::new(second)])
            }
        };
        match &result {
            Ok(n) => {
                did(Did::Write);
                if *n < bytes.len() {
                    did(Did::ShortWrite);
                }
                if bytes.len() == 1 {
                    did(Did::OneByteWrite);
                }
            }
            Err(e) => self.has_failed(e, [Did::WriteTimedOut, Did::WriteClosed, Did::WriteReset]),
        }
        self.record.says("after write");
        result
    }

    pub(crate) fn write_all(&self, stream: &TcpStream, bytes: &[u8]) -> io::Result<()> {
        self.calls("write_all", stream);
        let result = (&*stream).write_all(bytes);
        match &result {
            Ok(()) => {
                did(Did::WholeWrite);
                if bytes.len() == 1 {
                    did(Did::OneByteWrite);
                }
            }
            Err(e) => self.has_failed(e, [Did::WriteTimedOut, Did::WriteClosed, Did::WriteReset]),
        }
        self.record.says("after write_all");
        result
    }

    pub(crate) fn accept(&self, listener: &TcpListener) -> io::Result<TcpStream> {
        self.calls("accept", listener);
        let result = listener.accept();
        match &result {
            Ok(_) => did(Did::Accept),
            Err(e) => self.has_failed(e, [Did::AcceptTimedOut, Did::AcceptClosed, Did::ReadReset]),
        }
        self.record.says("after accept");
        result.map(|(stream, _)| stream)
    }

    pub(crate) fn connect(&self, addr: SocketAddr) -> io::Result<TcpStream> {
        self.does("connect");
        let result = match self.chance(50) {
            true => TcpStream::connect(addr),
            false => TcpStream::connect_timeout(&addr, Duration::from_secs(30)),
        };
        if result.is_ok() {
            did(Did::Connect);
        }
        self.record.says("after connect");
        result
    }

    /// Reads `count` bytes of a course in pieces of any size. Timeouts of the stream's are waited out, and its deadline
    /// is cleared at times.
    pub(crate) fn take(&self, stream: &TcpStream, course: &mut Course, count: usize) {
        let end = course.at + count as u64;
        while course.at < end {
            let left = (end - course.at) as usize;
            let mut buf = vec![0; self.size(left)];
            let result = match self.below(16) {
                0 => {
                    if let Ok(n) = self.peek(stream, &mut buf) {
                        assert!(n > 0, "the stream ends {left} bytes early, as a peek says");
                        course.pattern.check(course.at, &buf[..n]);
                    }
                    continue;
                }
                1 | 2 => self.read_vectored(stream, &mut buf),
                _ => self.read(stream, &mut buf),
            };
            match result {
                Ok(n) => {
                    assert!(n > 0, "the stream ends {left} bytes early");
                    course.pattern.check(course.at, &buf[..n]);
                    course.at += n as u64;
                }
                Err(e) if e.kind() == ErrorKind::TimedOut && !is_closed(&e) => {
                    if self.chance(50) {
                        self.clear_deadline(stream);
                    }
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => towpath::task::yield_now(),
                Err(e) => panic!("reading with {left} bytes left: {e:?}"),
            }
            self.dawdle();
        }
    }

    /// Reads up to `most` bytes of a course, in one call.
    pub(crate) fn read_checked(&self, stream: &TcpStream, course: &mut Course, most: usize) {
        let mut buf = vec![0; most];
        let n = self.read(stream, &mut buf).expect("reading");
        assert!(n > 0, "the stream ends early");
        course.pattern.check(course.at, &buf[..n]);
        course.at += n as u64;
    }

    fn clear_deadline(&self, stream: &TcpStream) {
        did(Did::DeadlineCleared);
        stream.set_deadline(None).expect("the stream is open");
    }

    /// Writes `count` bytes of a course in pieces of any size. Timeouts as with `take`.
    pub(crate) fn give(&self, stream: &TcpStream, course: &mut Course, count: usize) {
        let end = course.at + count as u64;
        while course.at < end {
            let left = (end - course.at) as usize;
            let bytes = course.pattern.bytes(course.at, self.size(left));
            match self.write(stream, &bytes) {
                Ok(n) => {
                    assert!(n > 0, "a write of nothing");
                    course.at += n as u64;
                }
                Err(e) if e.kind() == ErrorKind::TimedOut && !is_closed(&e) => {
                    if self.chance(50) {
                        self.clear_deadline(stream);
                    }
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => towpath::task::yield_now(),
                Err(e) => panic!("writing with {left} bytes left: {e:?}"),
            }
            self.dawdle();
        }
    }

    /// As `give`, in one call that nothing may end early.
    pub(crate) fn give_whole(&self, stream: &TcpStream, course: &mut Course, count: usize) {
        self.write_all(stream, &course.pattern.bytes(course.at, count)).expect("writing the whole");
        course.at += count as u64;
    }

    /// A piece of what is left: one byte, a few, or many.
    fn size(&self, left: usize) -> usize {
        let most = match self.below(8) {
            0 | 1 => 1,
            2..5 => 1 + self.below(64),
            _ => 1 + self.below(100_000),
        };
        most.min(left)
    }

    /// The peer has ended its direction, and nothing more comes.
    pub(crate) fn expect_end(&self, stream: &TcpStream) {
        loop {
            match self.read(stream, &mut [0; 16]) {
                Ok(n) => return assert_eq!(n, 0, "bytes after the end"),
                Err(e) if e.kind() == ErrorKind::TimedOut && !is_closed(&e) => self.clear_deadline(stream),
                Err(e) => panic!("reading the end: {e:?}"),
            }
        }
    }

    pub(crate) fn shut_down(&self, stream: &TcpStream, how: Shutdown) {
        did(Did::HalfClose);
        stream.shutdown(how).expect("the stream is connected");
    }

    pub(crate) fn clone_of(&self, stream: &TcpStream) -> TcpStream {
        did(Did::Clone);
        stream.try_clone().expect("the stream is open")
    }

    /// A listener at one of the loopback addresses.
    pub(crate) fn listen(&self) -> TcpListener {
        let ip = Ipv4Addr::new(127, 0, 0, 1 + self.below(250) as u8);
        TcpListener::bind(SocketAddr::from((ip, 0))).expect("binding to a loopback address")
    }

    /// Both ends of a connection.
    pub(crate) fn pair(&self) -> (TcpStream, TcpStream) {
        let listener = self.listen();
        let addr = listener.local_addr().expect("its address");
        let there = match self.chance(20) {
            false => self.connect(addr).expect("connecting"),
            true => {
                did(Did::IntoStd);
                std::net::TcpStream::connect(addr).expect("connecting by std").into()
            }
        };
        let here = self.accept(&listener).expect("accepting");
        for end in [&here, &there] {
            end.set_nodelay(true).expect("TCP_NODELAY");
        }
        (here, there)
    }
}
