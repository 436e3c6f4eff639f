//! Scenarios in which calls end without data: by a close, a reset, the end of a direction, a deadline, a refusal.

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use towpath::net::{Shutdown, TcpStream, is_closed};
use towpath::time::{Duration, Instant};

use crate::house::Scene;
use crate::ops::{Course, Me};
use crate::sys;
use crate::tally::{Did, did};

/// How one end of a connection ends everything.
#[derive(Clone, Copy, Debug)]
enum End {
    Close,
    /// With what has not been sent thrown away: the peer gets a reset.
    Reset,
    Shutdown,
    /// The last handle goes.
    Drop,
}

/// Readers and writers of both ends wait; then one end is closed, reset, shut down, or dropped, and all calls end.
pub(crate) fn ending(me: &Me, scene: &mut Scene) {
    let end = scene.rng.pick(&[End::Close, End::Close, End::Reset, End::Shutdown, End::Drop]);
    let (near, far) = (scene.rng.between(0, 3), scene.rng.between(1, 3));
    let (writers, delay) = (scene.rng.chance(50), scene.rng.below(3_000));
    let closers = scene.rng.between(1, 2);
    scene.note("end", (end, near, far, writers, delay, closers));
    let (here, there) = me.pair();
    if matches!(end, End::Drop) {
        drop(me.clone_of(&here)); // nobody else may hold it
    } else {
        crowd(me, scene, &here, near, writers);
    }
    crowd(me, scene, &there, far, writers);
    let linger = matches!(end, End::Reset).then_some(Duration::ZERO);
    here.set_linger(linger).expect("SO_LINGER");
    let here = Arc::new(here);
    for _ in 0..closers {
        let (here, far_end) = (here.clone(), me.clone_of(&there));
        let far_end = matches!(end, End::Shutdown).then_some(far_end);
        scene.start("ends it", move |me| {
            wait_a_little(me, delay);
            match end {
                End::Close | End::Reset => match here.close() {
                    Ok(()) if matches!(end, End::Reset) => did(Did::Reset),
                    Ok(()) => {}
                    Err(error) => assert!(is_closed(&error), "closing again: {error:?}"),
                },
                End::Shutdown => {
                    did(Did::HalfClose);
                    let result = here.shutdown(Shutdown::Both);
                    assert!(result.is_ok() || closers > 1, "shutting down both: {result:?}");
                }
                End::Drop => drop(here),
            }
            // Linux sends no window updates for a direction that was shut down: writers at the far end that found the
            // window shut would wait until the orphan goes, a minute later (tcp_fin_timeout).
            if let Some(far_end) = far_end {
                me.sleep(Duration::from_millis(20));
                _ = far_end.close(); // the other closer may have been first
            }
        });
    }
    drop(here);
    drop(there);
}

fn wait_a_little(me: &Me, micros: usize) {
    match micros % 3 {
        0 => me.sleep(Duration::from_micros(micros as u64)),
        1 => me.spin(micros * 10),
        _ => {}
    }
}

/// Readers, and perhaps writers, of clones of `stream`, that go on until their calls fail or there is no more.
fn crowd(me: &Me, scene: &mut Scene, stream: &TcpStream, readers: usize, writers: bool) {
    for _ in 0..readers {
        let stream = me.clone_of(stream);
        scene.start("reads to the end", move |me| {
            let mut buf = vec![0; 1 + me.below(1_000)];
            while me.read(&stream, &mut buf).is_ok_and(|n| n > 0) {}
            me.dawdle();
        });
    }
    if writers {
        for _ in 0..1 + readers / 2 {
            let stream = me.clone_of(stream);
            scene.start("writes to the end", move |me| {
                let bytes = vec![0; 1 + me.below(100_000)];
                // A bound, so that readers that never let it wait cannot keep it going.
                for _ in 0..1_000 {
                    if me.write(&stream, &bytes).is_err() {
                        break;
                    }
                }
            });
        }
    }
}

/// Writers that wait, and others that wait for their turn, when the stream is closed.
pub(crate) fn closed_writers(me: &Me, scene: &mut Scene) {
    let writers = scene.rng.between(1, 4);
    let delay = scene.rng.below(3_000);
    let by_peer = scene.rng.chance(40);
    scene.note("writers", (writers, by_peer, delay));
    let (here, there) = me.pair();
    for _ in 0..writers {
        let here = me.clone_of(&here);
        scene.start("fills", move |me| {
            let bytes = vec![1; 1 + me.below(300_000)];
            let error = loop {
                match me.write_all(&here, &bytes) {
                    Ok(()) => {}
                    Err(error) => break error,
                }
            };
            assert!(by_peer || is_closed(&error), "a write that a close has ended: {error:?}");
        });
    }
    scene.start("ends it", move |me| {
        wait_a_little(me, delay);
        if by_peer {
            // What it has not read makes this a reset, if anything has come.
            did(Did::Reset);
            there.close().expect("closing once");
        } else {
            here.close().expect("closing once");
        }
        scene_end(me, (here, there));
    });
}

fn scene_end(me: &Me, ends: (TcpStream, TcpStream)) {
    me.dawdle();
    drop(ends);
}

/// A reader whose deadline is moved to and fro ends no sooner than the earliest, and what comes after it is not lost.
pub(crate) fn deadlines(me: &Me, scene: &mut Scene) {
    let moves = scene.rng.between(1, 40);
    let readers = scene.rng.between(1, 3);
    let last = scene.rng.pick(&[0, 500, 3_000]);
    scene.note("moves", (moves, readers, last));
    let (here, there) = me.pair();
    let here = Arc::new(here);
    let far = Duration::from_secs(3_600);
    let earliest = Arc::new(AtomicU64::new(u64::MAX));
    let begun = Instant::now();
    here.set_deadline(Some(begun + far)).expect("open");
    for _ in 0..readers {
        let (here, earliest) = (here.clone(), earliest.clone());
        scene.start("waits", move |me| {
            let error = me.read(&here, &mut [0; 4]).expect_err("nothing is sent yet");
            assert_eq!(error.kind(), ErrorKind::TimedOut);
            let earliest = Duration::from_nanos(earliest.load(Ordering::SeqCst));
            assert!(begun.elapsed() >= earliest, "a timeout before any deadline");
        });
    }
    let mover = here.clone();
    scene.start("moves", move |me| {
        for _ in 0..moves {
            match me.below(3) {
                0 => did(Did::DeadlineCleared),
                1 => did(Did::DeadlineLater),
                _ => did(Did::DeadlineEarlier),
            }
            let later = Instant::now() + Duration::from_secs(60 + me.below(1_000) as u64);
            mover.set_deadline(me.chance(80).then_some(later)).expect("open");
            me.dawdle();
        }
        let end = begun.elapsed() + Duration::from_micros(last);
        earliest.store(end.as_nanos() as u64, Ordering::SeqCst);
        mover.set_deadline(Some(begun + end)).expect("open");
    });
    scene.wait();
    // The deadline stands; cleared, it has lost nothing.
    assert_eq!(me.write(&there, b"late").expect("writing"), 4);
    let error = me.read(&here, &mut [0; 4]).expect_err("the deadline has passed");
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    let again = here.clone();
    scene.start("clears", move |me| {
        me.dawdle();
        did(Did::DeadlineCleared);
        again.set_deadline(None).expect("open");
    });
    let mut course = Course::new(&mut scene.rng);
    scene.wait();
    let mut got = [0; 4];
    let mut filled = 0;
    while filled < 4 {
        filled += me.read(&here, &mut got[filled..]).expect("what came meanwhile");
    }
    assert_eq!(&got, b"late");
    me.give(&there, &mut course.clone(), 10);
    me.take(&here, &mut course, 10);
    full(me, &here, &there);
}

/// Writes until there is no room: the deadline ends the write, and later the rest arrives.
fn full(me: &Me, here: &TcpStream, there: &TcpStream) {
    let bytes = vec![7; 200_000];
    let mut sent = 0;
    here.set_write_deadline(Some(Instant::now() + Duration::from_millis(2))).expect("open");
    let error = loop {
        match me.write(here, &bytes) {
            Ok(n) => sent += n,
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    here.shutdown(Shutdown::Write).expect("connected");
    let mut buf = vec![0; 100_000];
    loop {
        match me.read(there, &mut buf).expect("reading what was sent") {
            0 => break,
            n => sent -= n,
        }
    }
    assert_eq!(sent, 0, "bytes lost or made up");
}

/// Acceptors that wait when the listener is closed or late, and connects that wait for, or lose, a listener.
pub(crate) fn listeners(me: &Me, scene: &mut Scene) {
    let acceptors = scene.rng.between(1, 4);
    let delay = scene.rng.below(3_000);
    let by_deadline = scene.either(30);
    scene.note("acceptors", (acceptors, by_deadline, delay));
    let listener = Arc::new(me.listen());
    for _ in 0..acceptors {
        let listener = listener.clone();
        scene.start("accepts", move |me| {
            let error = me.accept(&listener).expect_err("nobody connects");
            assert_eq!(is_closed(&error), !by_deadline, "{error:?}");
        });
    }
    scene.start("ends it", move |me| {
        wait_a_little(me, delay);
        match by_deadline {
            true => listener.set_deadline(Some(Instant::now() + Duration::from_micros(delay as u64))).expect("open"),
            false => listener.close().expect("closing once"),
        }
    });
    let (_bound, refusing) = sys::refusing_port();
    let error = me.connect(refusing).expect_err("nobody listens");
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    did(Did::Refused);
}

/// Connects to a listener whose backlog is full: they are late, get in once it has room, or are refused once it goes.
pub(crate) fn backlog(me: &Me, scene: &mut Scene) {
    let listener = me.listen();
    sys::shrink_backlog(&listener);
    let addr = listener.local_addr().expect("its address");
    let mut filled = Vec::new();
    loop {
        me.does("connect_timeout to a full listener");
        match TcpStream::connect_timeout(&addr, Duration::from_millis(30)) {
            Ok(stream) => filled.push(stream),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::TimedOut);
                did(Did::ConnectTimedOut);
                break;
            }
        }
    }
    let closes = scene.either(50);
    scene.note("closes", closes);
    let end = listener.try_clone().expect("open");
    scene.start("connects", move |me| match me.connect(addr) {
        Ok(stream) => {
            assert!(me.read(&stream, &mut [0; 4]).is_ok_and(|n| n == 1));
            did(Did::LateConnect);
            end.close().expect("closing once");
        }
        Err(error) => {
            assert!(closes, "connecting: {error:?}");
            did(Did::ConnectClosed);
        }
    });
    scene.start("accepts", move |me| {
        me.sleep(Duration::from_millis(1));
        if closes {
            return listener.close().expect("closing once");
        }
        while let Ok(stream) = me.accept(&listener) {
            _ = me.write(&stream, b"."); // one that was late may have gone
            filled.push(stream);
        }
    });
}
