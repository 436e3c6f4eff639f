//! Timeouts, which each call has anew, and deadlines, which stay, can be moved at any time by anybody, and cover the calls
//! that wait already.

mod common;

use std::io::{ErrorKind, IoSlice, IoSliceMut, Read, Write};

use common::{
    CALLERS, Caller, PATIENCE, has_event, narrow_pair, on_each_poller, on_tasks_and_threads, pair, pair_with_std,
    until, until_waiting,
};
use towpath::net::{TcpListener, TcpStream};
use towpath::time::{Duration, Instant, sleep_until};

const SHORT: Duration = Duration::from_millis(10);

fn kind<T: std::fmt::Debug>(result: std::io::Result<T>) -> ErrorKind {
    result.unwrap_err().kind()
}

/// A moment that is over.
fn past() -> Option<Instant> {
    Some(Instant::now())
}

/// A moment that no test lives to see.
fn far() -> Option<Instant> {
    Some(Instant::now() + PATIENCE * 100)
}

fn soon() -> Option<Instant> {
    Some(Instant::now() + SHORT)
}

#[test]
fn a_late_read_times_out_and_the_next_one_has_its_time_again() {
    on_tasks_and_threads(|| {
        let (mut stream, mut peer) = pair();
        stream.set_read_timeout(Some(SHORT)).unwrap();
        assert_eq!(stream.read_timeout().unwrap(), Some(SHORT));
        for _ in 0..3 {
            let start = Instant::now();
            let error = stream.read(&mut [0; 8]).unwrap_err();
            assert!(start.elapsed() >= SHORT, "not before its time");
            assert_eq!(error.kind(), ErrorKind::TimedOut);
            assert_eq!(error.raw_os_error(), None, "it is not the kernel's");
        }
        assert_eq!(kind(stream.peek(&mut [0; 8])), ErrorKind::TimedOut);
        assert_eq!(kind(stream.read_vectored(&mut [IoSliceMut::new(&mut [0; 8])])), ErrorKind::TimedOut);

        // Data that is there needs no time, and a timeout does not reach into the other direction.
        peer.write_all(b"hello").unwrap();
        until(|| has_event(&stream));
        assert_eq!(stream.read(&mut [0; 8]).unwrap(), 5);
        stream.set_read_timeout(None).unwrap();
        assert_eq!(stream.read_timeout().unwrap(), None);
        let clone = stream.try_clone().unwrap();
        let reader = Caller::Task.wait_in("read", &stream, move || (&clone).read(&mut [0; 8]).unwrap());
        peer.write_all(b"x").unwrap();
        assert_eq!(reader.join().unwrap(), 1);
    });
}

#[test]
fn a_late_write_times_out() {
    on_tasks_and_threads(|| {
        let (mut stream, _peer) = narrow_pair();
        stream.set_write_timeout(Some(SHORT)).unwrap();
        assert_eq!(stream.write_timeout().unwrap(), Some(SHORT));
        let piece = [0; 1024];
        for _ in 0..2 {
            let start = Instant::now();
            assert_eq!(kind(stream.write_all(&[0; 200_000])), ErrorKind::TimedOut);
            assert!(start.elapsed() >= SHORT, "not before its time");
            let written = std::iter::repeat_with(|| stream.write(&piece)).find(Result::is_err);
            assert_eq!(kind(written.expect("it ends")), ErrorKind::TimedOut);
            let written =
                std::iter::repeat_with(|| stream.write_vectored(&[IoSlice::new(&piece)])).find(Result::is_err);
            assert_eq!(kind(written.expect("it ends")), ErrorKind::TimedOut);
        }
        assert_eq!(stream.read_timeout().unwrap(), None);
    });
}

#[test]
fn a_timeout_of_zero_is_invalid_and_changes_nothing() {
    on_tasks_and_threads(|| {
        let (stream, _peer) = pair();
        stream.set_read_timeout(Some(SHORT)).unwrap();
        stream.set_write_timeout(Some(SHORT * 2)).unwrap();
        assert_eq!(kind(stream.set_read_timeout(Some(Duration::ZERO))), ErrorKind::InvalidInput);
        assert_eq!(kind(stream.set_write_timeout(Some(Duration::ZERO))), ErrorKind::InvalidInput);
        assert_eq!(stream.read_timeout().unwrap(), Some(SHORT));
        assert_eq!(stream.write_timeout().unwrap(), Some(SHORT * 2));
    });
}

#[test]
fn a_deadline_stays_until_it_is_changed() {
    on_tasks_and_threads(|| {
        let (mut stream, _peer) = pair();
        let deadline = soon();
        stream.set_deadline(deadline).unwrap();
        assert_eq!(kind(stream.read(&mut [0; 8])), ErrorKind::TimedOut);
        assert_eq!(kind(stream.write(b"x")), ErrorKind::TimedOut);
        assert!(Instant::now() >= deadline.unwrap(), "not before its time");
        for _ in 0..3 {
            assert_eq!(kind(stream.read(&mut [0; 8])), ErrorKind::TimedOut);
            assert_eq!(kind(stream.peek(&mut [0; 8])), ErrorKind::TimedOut);
            assert_eq!(kind(stream.write(b"x")), ErrorKind::TimedOut);
            assert_eq!(kind(stream.write_all(b"x")), ErrorKind::TimedOut);
        }
    });
}

#[test]
fn a_deadline_that_is_over_fails_reads_although_data_waits_and_loses_none() {
    on_tasks_and_threads(|| {
        let (mut stream, mut peer) = pair();
        peer.write_all(b"hello").unwrap();
        until(|| has_event(&stream));
        stream.set_read_deadline(past()).unwrap();
        assert_eq!(kind(stream.read(&mut [0; 8])), ErrorKind::TimedOut);
        assert_eq!(kind(stream.peek(&mut [0; 8])), ErrorKind::TimedOut);
        peer.write_all(b" and more").unwrap();
        stream.set_nonblocking(true).unwrap();
        assert_eq!(kind(stream.read(&mut [0; 8])), ErrorKind::TimedOut);
        stream.set_nonblocking(false).unwrap();

        stream.set_read_deadline(None).unwrap();
        let mut buf = [0; 14];
        stream.read_exact(&mut buf).unwrap();
        assert_eq!(&buf, b"hello and more");
    });
}

#[test]
fn a_deadline_that_is_over_fails_writes_although_there_is_room_and_writes_nothing() {
    on_tasks_and_threads(|| {
        let (mut stream, mut peer) = pair();
        stream.set_write_deadline(past()).unwrap();
        assert_eq!(kind(stream.write(b"never")), ErrorKind::TimedOut);
        assert_eq!(kind(stream.write_all(b"never")), ErrorKind::TimedOut);
        assert_eq!(kind(stream.write_vectored(&[IoSlice::new(b"never")])), ErrorKind::TimedOut);
        stream.set_write_deadline(None).unwrap();
        stream.write_all(b"now").unwrap();
        drop(stream);
        let mut text = String::new();
        peer.read_to_string(&mut text).unwrap();
        assert_eq!(text, "now");
    });
}

#[test]
fn a_deadline_that_is_over_fails_accept_although_a_connection_waits_and_loses_none() {
    on_tasks_and_threads(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let connected = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        until(|| has_event(&listener));
        listener.set_deadline(past()).unwrap();
        for _ in 0..2 {
            assert_eq!(kind(listener.accept()), ErrorKind::TimedOut);
        }
        listener.set_deadline(None).unwrap();
        assert_eq!(listener.accept().unwrap().1, connected.local_addr().unwrap());
    });
}

#[test]
fn each_direction_has_its_own_deadline() {
    on_tasks_and_threads(|| {
        let (mut stream, mut peer) = pair();
        stream.set_read_deadline(past()).unwrap();
        stream.write_all(b"x").unwrap();
        assert_eq!(kind(stream.read(&mut [0; 8])), ErrorKind::TimedOut);
        stream.set_read_deadline(None).unwrap();
        stream.set_write_deadline(past()).unwrap();
        peer.write_all(b"y").unwrap();
        assert_eq!(stream.read(&mut [0; 8]).unwrap(), 1);
        assert_eq!(kind(stream.write(b"x")), ErrorKind::TimedOut);
        // The one for both replaces both.
        stream.set_deadline(None).unwrap();
        stream.write_all(b"x").unwrap();
    });
}

#[test]
fn a_deadline_covers_reads_that_wait_already() {
    on_tasks_and_threads(|| {
        for (reads, sets) in pairs_of_callers() {
            for deadline in [past, soon] {
                let (stream, _peer) = pair();
                let clone = stream.try_clone().unwrap();
                let reader = reads.wait_in("read", &stream, move || (&clone).read(&mut [0; 8]));
                let clone = stream.try_clone().unwrap();
                sets.run(move || clone.set_read_deadline(deadline()).unwrap()).join().unwrap();
                assert_eq!(kind(reader.join().unwrap()), ErrorKind::TimedOut);
            }
        }
    });
}

/// Who waits, and who moves the deadline.
fn pairs_of_callers() -> impl Iterator<Item = (Caller, Caller)> {
    CALLERS.into_iter().flat_map(|waits| CALLERS.map(|moves| (waits, moves)))
}

#[test]
fn a_deadline_covers_all_who_wait() {
    on_tasks_and_threads(|| {
        let (stream, _peer) = narrow_pair();
        let wait = |operation: &str, caller: Caller, call: fn(&TcpStream) -> std::io::Result<usize>| {
            let clone = stream.try_clone().unwrap();
            caller.wait_in(operation, &stream, move || call(&clone))
        };
        let mut waiting = Vec::new();
        for caller in CALLERS {
            waiting.push(wait("read", caller, |mut stream| stream.read(&mut [0; 8])));
            waiting.push(wait("read", caller, |stream| stream.peek(&mut [0; 8])));
        }
        // The first to come has the turn, and the others wait for it.
        waiting.push(wait("write", Caller::Task, |mut stream| stream.write_all(&[0; 200_000]).map(|()| 0)));
        for caller in CALLERS {
            waiting.push(wait("write (another write first)", caller, |mut stream| stream.write(b"x")));
        }
        stream.set_deadline(past()).unwrap();
        for call in waiting {
            assert_eq!(kind(call.join().unwrap()), ErrorKind::TimedOut);
        }
    });
}

#[test]
fn a_deadline_covers_writes_that_wait_already() {
    on_tasks_and_threads(|| {
        for (writes, sets) in pairs_of_callers() {
            for deadline in [past, soon] {
                let (stream, _peer) = narrow_pair();
                let clone = stream.try_clone().unwrap();
                let writer = writes.wait_in("write", &stream, move || (&clone).write_all(&[0; 200_000]));
                let clone = stream.try_clone().unwrap();
                sets.run(move || clone.set_write_deadline(deadline()).unwrap()).join().unwrap();
                assert_eq!(kind(writer.join().unwrap()), ErrorKind::TimedOut);
            }
        }
    });
}

#[test]
fn a_deadline_covers_accepts_that_wait_already() {
    on_tasks_and_threads(|| {
        for (accepts, sets) in pairs_of_callers() {
            for deadline in [past, soon] {
                let listener = TcpListener::bind("127.0.0.1:0").unwrap();
                let clone = listener.try_clone().unwrap();
                let acceptor = accepts.wait_in("accept", &listener, move || clone.accept());
                let clone = listener.try_clone().unwrap();
                sets.run(move || clone.set_deadline(deadline()).unwrap()).join().unwrap();
                assert_eq!(kind(acceptor.join().unwrap()), ErrorKind::TimedOut);
            }
        }
    });
}

/// Runs `round` with a deadline that is to be moved away before it passes: on a machine that stops in between, `round` says
/// that it came too late, and is run again with more time.
fn in_time(round: impl Fn(Instant) -> bool) {
    let more_and_more = (4..).map(|i| Duration::from_millis(1 << i));
    more_and_more.map(|time| round(Instant::now() + time)).find(|in_time| *in_time);
}

/// Has `moves` move the deadline away, and returns once `old` has passed. False if that was too late.
fn move_away(moves: Caller, old: Instant, set: impl FnOnce() + Send + 'static) -> bool {
    moves.run(set).join().unwrap();
    let in_time = Instant::now() < old;
    sleep_until(old + Duration::from_millis(5)).unwrap();
    in_time
}

#[test]
fn a_deadline_can_be_moved_away_while_a_read_waits() {
    on_tasks_and_threads(|| {
        for (reads, moves) in pairs_of_callers() {
            for to in [far, || None] {
                in_time(|old| {
                    let (stream, mut peer) = pair();
                    stream.set_read_deadline(Some(old)).unwrap();
                    let clone = stream.try_clone().unwrap();
                    let reader = reads.wait_or_end_in("read", &stream, move || (&clone).read(&mut [0; 8]));
                    let clone = stream.try_clone().unwrap();
                    let in_time = move_away(moves, old, move || clone.set_read_deadline(to()).unwrap());
                    if in_time {
                        assert!(!reader.is_finished(), "it keeps to the old one");
                        peer.write_all(b"hello").unwrap();
                        assert_eq!(reader.join().unwrap().unwrap(), 5);
                    }
                    in_time
                });
            }
        }
    });
}

#[test]
fn a_deadline_can_be_moved_away_while_a_write_waits() {
    on_tasks_and_threads(|| {
        for (writes, moves) in pairs_of_callers() {
            in_time(|old| {
                let (stream, mut peer) = narrow_pair();
                stream.set_write_deadline(Some(old)).unwrap();
                let clone = stream.try_clone().unwrap();
                let writer = writes.wait_or_end_in("write", &stream, move || (&clone).write_all(&[0; 200_000]));
                let clone = stream.try_clone().unwrap();
                let in_time = move_away(moves, old, move || clone.set_write_deadline(far()).unwrap());
                if in_time {
                    assert!(!writer.is_finished(), "it keeps to the old one");
                    peer.read_exact(&mut vec![0; 200_000]).unwrap();
                    writer.join().unwrap().unwrap();
                }
                in_time
            });
        }
    });
}

#[test]
fn a_deadline_can_be_moved_away_while_an_accept_waits() {
    on_tasks_and_threads(|| {
        for (accepts, moves) in pairs_of_callers() {
            in_time(|old| {
                let listener = TcpListener::bind("127.0.0.1:0").unwrap();
                listener.set_deadline(Some(old)).unwrap();
                let clone = listener.try_clone().unwrap();
                let accept = move || clone.accept().map(|(_, peer)| peer);
                let acceptor = accepts.wait_or_end_in("accept", &listener, accept);
                let clone = listener.try_clone().unwrap();
                let in_time = move_away(moves, old, move || clone.set_deadline(None).unwrap());
                if in_time {
                    assert!(!acceptor.is_finished(), "it keeps to the old one");
                    let connected = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
                    assert_eq!(acceptor.join().unwrap().unwrap(), connected.local_addr().unwrap());
                }
                listener.close().unwrap();
                in_time
            });
        }
    });
}

#[test]
fn a_deadline_can_be_brought_forward_while_a_call_waits() {
    on_tasks_and_threads(|| {
        for (reads, moves) in pairs_of_callers() {
            let (stream, _peer) = pair();
            stream.set_read_deadline(far()).unwrap();
            let clone = stream.try_clone().unwrap();
            let reader = reads.wait_in("read", &stream, move || (&clone).read(&mut [0; 8]));
            let clone = stream.try_clone().unwrap();
            let new = moves.run(move || {
                let new = soon();
                clone.set_read_deadline(new).unwrap();
                new.unwrap()
            });
            let new = new.join().unwrap();
            assert_eq!(kind(reader.join().unwrap()), ErrorKind::TimedOut);
            assert!(Instant::now() >= new, "not before its time");
        }
    });
}

#[test]
fn a_deadline_can_be_moved_to_and_fro() {
    on_tasks_and_threads(|| {
        for (reads, moves) in pairs_of_callers() {
            let (stream, mut peer) = pair();
            let clone = stream.try_clone().unwrap();
            let reader = reads.wait_in("read", &stream, move || (&clone).read(&mut [0; 8]));
            let clone = stream.try_clone().unwrap();
            moves
                .run(move || {
                    for i in 0..200 {
                        let deadline = if i % 3 == 0 { None } else { Some(Instant::now() + PATIENCE * (i % 7 + 1)) };
                        clone.set_read_deadline(deadline).unwrap();
                    }
                })
                .join()
                .unwrap();
            assert!(!reader.is_finished());
            peer.write_all(b"hello").unwrap();
            assert_eq!(reader.join().unwrap().unwrap(), 5);
        }
    });
}

#[test]
fn of_a_timeout_and_a_deadline_the_one_that_comes_first_ends_the_call() {
    on_tasks_and_threads(|| {
        let (mut stream, _peer) = pair();
        stream.set_read_timeout(Some(SHORT)).unwrap();
        stream.set_read_deadline(far()).unwrap();
        assert_eq!(kind(stream.read(&mut [0; 8])), ErrorKind::TimedOut);

        stream.set_read_timeout(Some(PATIENCE * 100)).unwrap();
        stream.set_read_deadline(soon()).unwrap();
        assert_eq!(kind(stream.read(&mut [0; 8])), ErrorKind::TimedOut);
    });
}

#[test]
fn what_came_in_time_is_read_although_its_worker_was_busy() {
    on_each_poller(|| {
        in_time(|end| {
            let (mut stream, mut peer) = pair_with_std();
            // With its first wait the socket is this worker's.
            stream.set_read_timeout(Some(Duration::from_micros(1))).unwrap();
            assert_eq!(kind(stream.read(&mut [0; 8])), ErrorKind::TimedOut);
            let timeout = end.duration_since(Instant::now()).max(Duration::from_millis(1));
            stream.set_read_timeout(Some(timeout)).unwrap();
            let clone = stream.try_clone().unwrap();
            let reader = Caller::Thread.wait_or_end_in("read", &stream, move || (&clone).read(&mut [0; 8]));
            peer.write_all(b"hello").unwrap();
            let in_time = Instant::now() < end && !reader.is_finished();
            // Not the library's sleep: this holds the worker up, until the time is over and the bytes are there.
            std::thread::sleep(timeout * 2);
            let read = reader.join().unwrap();
            if in_time {
                assert_eq!(read.unwrap(), 5);
            }
            in_time
        });
    });
}

#[test]
fn stds_instants_are_deadlines_too() {
    on_tasks_and_threads(|| {
        let (mut stream, _peer) = pair();
        let deadline = std::time::Instant::now() + SHORT;
        stream.set_read_deadline(Some(deadline.into())).unwrap();
        assert_eq!(kind(stream.read(&mut [0; 8])), ErrorKind::TimedOut);
        assert!(std::time::Instant::now() >= deadline);
    });
}

#[test]
fn a_timeout_of_for_ever_is_no_overflow() {
    on_tasks_and_threads(|| {
        let (stream, mut peer) = pair();
        stream.set_read_timeout(Some(Duration::MAX)).unwrap();
        let clone = stream.try_clone().unwrap();
        let reader = Caller::Task.run(move || (&clone).read(&mut [0; 8]).unwrap());
        until_waiting("read", &stream);
        peer.write_all(b"hello").unwrap();
        assert_eq!(reader.join().unwrap(), 5);
    });
}
