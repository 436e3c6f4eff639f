//! A direction as loom explores it: the library's own [`Direction::operate`] over a kernel's buffer, and another thread in
//! the part of the poller.
//!
//! What the kernel promises, and no more, is modelled with relaxed atomics: what has arrived before a report can be read by
//! whoever has seen the report. A reader that waits with no report to come is a deadlock, and loom reports it.

use std::rc::Rc;
use std::sync::Arc;

use loom::thread;

use super::super::error::is_closed;
use super::*;
use crate::runtime::wait::Op;
use crate::shim::{AtomicBool, UnsafeCell, explore};

/// The peer has finished.
const END: usize = 1 << 16;

/// A stream as a reader sees it.
struct Stream {
    direction: Direction,
    /// How much has arrived and not been read, and [`END`] once nothing will come behind it.
    arrived: AtomicUsize,
}

impl Stream {
    /// A stream of which nothing is known, with so much to read.
    fn new(arrived: usize) -> Arc<Stream> {
        Arc::new(Stream { direction: Direction::new(), arrived: AtomicUsize::new(arrived) })
    }

    /// A stream that a read before has found empty.
    fn empty() -> Arc<Stream> {
        let stream = Stream::new(0);
        stream.direction.clear(stream.direction.look());
        stream
    }

    /// recv(2): takes up to `most`.
    fn receive(&self, most: usize) -> Result<Progress<usize>, Errno> {
        let mut there = self.arrived.load(Ordering::Relaxed);
        loop {
            let taken = (there % END).min(most);
            if taken == 0 {
                return if there == END { Ok(Progress::Done(0)) } else { Err(Errno::AGAIN) };
            }
            match self.arrived.compare_exchange(there, there - taken, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) if taken < most => return Ok(Progress::Drained(taken)),
                Ok(_) => return Ok(Progress::Done(taken)),
                Err(now) => there = now,
            }
        }
    }

    fn read(&self, most: usize) -> io::Result<usize> {
        self.read_until(most, None)
    }

    fn read_until(&self, most: usize, limit: Option<Instant>) -> io::Result<usize> {
        self.direction.operate(Op::Read.into(), Mode::Wait, limit, || Ok(()), || self.receive(most))
    }

    fn arrive(&self, count: usize) {
        self.arrived.fetch_add(count, Ordering::Relaxed);
        self.direction.report(Force::Nothing);
    }

    fn spawn<T: 'static>(self: &Arc<Self>, f: impl FnOnce(&Stream) -> T + 'static) -> thread::JoinHandle<T> {
        let stream = self.clone();
        thread::spawn(move || f(&stream))
    }
}

/// A time that is over: a wait with this deadline ends at once, unless somebody is quicker.
fn over() -> Option<Instant> {
    Some(Instant::from_nanos(1))
}

#[test]
fn what_arrives_while_a_read_finds_nothing_ends_its_wait() {
    explore(None, || {
        let stream = Stream::new(0);
        let poller = stream.spawn(|stream| stream.arrive(1));
        assert_eq!(stream.read(1).unwrap(), 1);
        poller.join().unwrap();
    });
}

#[test]
fn what_arrives_during_a_short_read_is_not_noted_as_read() {
    explore(None, || {
        let stream = Stream::new(1);
        let poller = stream.spawn(|stream| stream.arrive(1));
        let mut read = 0;
        while read < 2 {
            read += stream.read(3).unwrap();
        }
        poller.join().unwrap();
        assert_eq!(read, 2);
    });
}

#[test]
fn one_report_is_enough_for_two_readers() {
    explore(Some(2), || {
        let stream = Stream::new(0);
        let readers = [(); 2].map(|()| stream.spawn(|stream| stream.read(1).unwrap()));
        stream.arrive(2);
        for reader in readers {
            assert_eq!(reader.join().unwrap(), 1);
        }
    });
}

#[test]
fn a_reader_that_leaves_late_takes_no_wake_up_along() {
    explore(Some(2), || {
        let stream = Stream::empty();
        let late = stream.spawn(|stream| stream.read_until(1, over()));
        let patient = stream.spawn(|stream| stream.read(1).unwrap());
        stream.arrive(1);
        match late.join().unwrap() {
            Ok(read) => {
                assert_eq!(read, 1);
                stream.arrive(1);
            }
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::TimedOut),
        }
        assert_eq!(patient.join().unwrap(), 1);
    });
}

#[test]
fn a_reader_that_fails_wakes_the_next() {
    explore(Some(2), || {
        let stream = Stream::new(0);
        // The error goes to one of them, and what has arrived with it to the other.
        let failure = Arc::new(AtomicBool::new(false));
        let readers = [(); 2].map(|()| {
            let failure = failure.clone();
            stream.spawn(move |stream| {
                let take_failure = || failure.compare_exchange(true, false, Ordering::Relaxed, Ordering::Relaxed);
                let attempt = || match take_failure() {
                    Ok(_) => Err(Errno::CONNRESET),
                    Err(_) => stream.receive(1),
                };
                stream.direction.operate(Op::Read.into(), Mode::Wait, None, || Ok(()), attempt).is_err()
            })
        });
        failure.store(true, Ordering::Relaxed);
        stream.arrive(1);
        let failed = readers.map(|reader| reader.join().unwrap());
        assert!(failed[0] != failed[1], "{failed:?}");
    });
}

#[test]
fn a_read_that_stops_at_a_mark_is_not_noted_as_the_last() {
    explore(None, || {
        let stream = Stream::new(0);
        let poller = stream.spawn(|stream| {
            stream.arrived.fetch_add(2, Ordering::Relaxed);
            stream.direction.report(Force::Once);
        });
        // Urgent data splits what has arrived: a read is short, and no report comes for what lies behind the mark.
        let mut read_to_mark = || match stream.receive(1)? {
            Progress::Done(count) | Progress::Drained(count) => Ok(Progress::Drained(count)),
        };
        for _ in 0..2 {
            let read = stream.direction.operate(Op::Read.into(), Mode::Wait, None, || Ok(()), &mut read_to_mark);
            assert_eq!(read.unwrap(), 1);
        }
        poller.join().unwrap();
    });
}

#[test]
fn the_end_of_the_stream_outlasts_a_short_read() {
    explore(None, || {
        let stream = Stream::new(0);
        let poller = stream.spawn(|stream| {
            stream.arrived.fetch_add(END + 1, Ordering::Relaxed);
            stream.direction.report(Force::Always);
        });
        assert_eq!(stream.read(2).unwrap(), 1);
        assert_eq!(stream.read(2).unwrap(), 0);
        poller.join().unwrap();
    });
}

#[test]
fn closing_ends_every_wait() {
    explore(Some(3), || {
        let stream = Stream::empty();
        let readers = [(); 2].map(|()| stream.spawn(|stream| stream.read(1)));
        assert!(stream.direction.close());
        for reader in readers {
            assert!(is_closed(&reader.join().unwrap().unwrap_err()));
        }
    });
}

#[test]
fn a_deadline_that_is_set_meanwhile_ends_every_wait() {
    explore(Some(3), || {
        let stream = Stream::empty();
        let readers = [(); 2].map(|()| stream.spawn(|stream| stream.read(1)));
        stream.direction.set_deadline(over());
        for reader in readers {
            assert_eq!(reader.join().unwrap().unwrap_err().kind(), io::ErrorKind::TimedOut);
        }
    });
}

#[test]
fn a_registration_that_moves_has_every_reader_look_again() {
    explore(Some(2), || {
        let stream = Stream::empty();
        let readers = [(); 2].map(|()| stream.spawn(|stream| stream.read(1).unwrap()));
        // Nobody reports while the registration is between two pollers.
        stream.arrived.fetch_add(2, Ordering::Relaxed);
        stream.direction.forget();
        for reader in readers {
            assert_eq!(reader.join().unwrap(), 1);
        }
    });
}

#[test]
fn the_turn_is_one_writers_at_a_time() {
    explore(Some(3), || {
        let turn = Arc::new(Direction::new());
        let written = Rc::new(UnsafeCell::new(0)); // loom runs its threads by turns, on one of the system's
        let write = {
            let (turn, written) = (turn.clone(), written.clone());
            move || {
                if !turn.take() {
                    let take = || if turn.take() { Ok(Progress::Done(())) } else { Err(Errno::AGAIN) };
                    turn.operate(Op::WriteTurn.into(), Mode::Wait, None, || Ok(()), take).unwrap();
                }
                // SAFETY: it is our turn. loom says so if another thread thinks the same.
                written.with_mut(|written| unsafe { *written += 1 });
                turn.give_back();
            }
        };
        let others = [thread::spawn(write.clone()), thread::spawn(write.clone())];
        write();
        others.into_iter().for_each(|other| other.join().unwrap());
        // SAFETY: the others have ended.
        assert_eq!(written.with_mut(|written| unsafe { *written }), 3);
    });
}
