//! Scenarios of a connection whose bytes all arrive: one byte to and fro, two bytes that race a short read, bulk in
//! both directions with two tasks at each end, urgent bytes in between.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use towpath::net::{Shutdown, TcpStream};
use towpath::time::{Duration, Instant};

use crate::house::Scene;
use crate::ops::{Course, Me};
use crate::rng::Rng;
use crate::sys;
use crate::tally::{Did, did};

/// One end sends some bytes, the other sends as many back, many times.
pub(crate) fn echo(me: &Me, scene: &mut Scene) {
    let rounds = scene.rng.between(50, 1_000);
    let most = scene.rng.pick(&[1, 1, 1, 2, 16, 5_000]);
    scene.note("rounds", rounds);
    scene.note("most", most);
    let (here, there) = me.pair();
    let (mut to, mut fro) = (Course::new(&mut scene.rng), Course::new(&mut scene.rng));
    let mut sizes = scene.rng.fork();
    let mut same_sizes = sizes.clone();
    let (mut far_to, mut far_fro) = (to, fro);
    let polls = scene.rng.chance(15);
    scene.note("polls", polls);
    scene.start("asks", move |me| {
        here.set_nonblocking(polls).expect("open");
        for _ in 0..rounds {
            let count = sizes.between(1, most);
            me.give(&here, &mut to, count);
            me.take(&here, &mut fro, count);
        }
        here.set_nonblocking(false).expect("open");
        me.shut_down(&here, Shutdown::Write);
        me.expect_end(&here);
    });
    scene.start("answers", move |me| {
        for _ in 0..rounds {
            let count = same_sizes.between(1, most);
            me.take(&there, &mut far_to, count);
            me.give(&there, &mut far_fro, count);
        }
        me.expect_end(&there);
        me.shut_down(&there, Shutdown::Write);
    });
}

/// The classic race, again and again: a short read takes one byte just as the next one arrives and is reported.
pub(crate) fn race(me: &Me, scene: &mut Scene) {
    let rounds = scene.rng.between(200, 4_000);
    let spin = scene.rng.pick(&[100, 1_000, 5_000, 20_000]);
    let burst = scene.rng.between(2, 4) as u64;
    scene.note("rounds", rounds);
    scene.note("spin", spin);
    scene.note("burst", burst);
    let (here, there) = me.pair();
    let course = Course::new(&mut scene.rng);
    scene.start("sends", move |me| {
        let mut course = course;
        for _ in 0..rounds {
            for _ in 0..burst {
                me.give_whole(&here, &mut course, 1);
                me.spin(me.below(spin));
            }
            assert_eq!(me.read(&here, &mut [0; 8]).expect("an answer"), 1);
        }
    });
    scene.start("takes", move |me| {
        let mut course = course;
        for _ in 0..rounds {
            let mut got = 0;
            while got < burst {
                got += read_some(me, &there, &mut course);
            }
            assert_eq!(got, burst);
            me.write_all(&there, b"!").expect("answering");
        }
    });
}

fn read_some(me: &Me, stream: &TcpStream, course: &mut Course) -> u64 {
    let before = course.at;
    me.read_checked(stream, course, 8);
    course.at - before
}

/// Both directions at once with two actors at each end, while others move deadlines.
pub(crate) fn bulk(me: &Me, scene: &mut Scene) {
    let counts = [0, 1].map(|_| scene.rng.pick(&[0, 1, 1_000, 100_000, 1_000_000]));
    let meddled = scene.rng.chance(60);
    scene.note("counts", counts);
    scene.note("meddled", meddled);
    let (here, there) = me.pair();
    let over = Arc::new(AtomicBool::new(false));
    let courses = [0, 1].map(|_| Course::new(&mut scene.rng));
    for (end, ours, theirs) in [(here, 0, 1), (there, 1, 0)] {
        let reader = me.clone_of(&end);
        let meddler = meddled.then(|| me.clone_of(&end));
        let (out, back) = (courses[ours], courses[theirs]);
        scene.start("writes", move |me| {
            let mut course = out;
            me.give(&end, &mut course, counts[ours]);
            me.shut_down(&end, Shutdown::Write);
        });
        let ended = over.clone();
        scene.start("reads", move |me| {
            let mut course = back;
            me.take(&reader, &mut course, counts[theirs]);
            me.expect_end(&reader);
            ended.store(true, Ordering::Relaxed);
        });
        if let Some(meddler) = meddler {
            let over = over.clone();
            scene.start("meddles", move |me| meddle(me, &meddler, &over));
        }
    }
}

/// Moves deadlines both ways until a direction has ended, at most some hundred times.
fn meddle(me: &Me, stream: &TcpStream, over: &AtomicBool) {
    for _ in 0..200 {
        if over.load(Ordering::Relaxed) {
            break;
        }
        move_deadline(me, stream);
        match me.below(4) {
            0 => me.sleep(Duration::from_micros(me.below(2_000) as u64)),
            _ => me.dawdle(),
        }
    }
    stream.set_deadline(None).expect("the stream is open");
    stream.set_read_timeout(None).expect("the stream is open");
    stream.set_write_timeout(None).expect("the stream is open");
}

fn move_deadline(me: &Me, stream: &TcpStream) {
    let now = Instant::now();
    let soon = |n| Some(now + Duration::from_micros(n as u64));
    let set = |deadline| match me.below(3) {
        0 => stream.set_read_deadline(deadline),
        1 => stream.set_write_deadline(deadline),
        _ => stream.set_deadline(deadline),
    };
    let timeout = |n| Some(Duration::from_micros(1 + n as u64));
    let result = match me.below(8) {
        0 => {
            did(Did::DeadlinePast);
            set(Some(now))
        }
        1..4 => {
            did(Did::DeadlineEarlier);
            set(soon(me.below(3_000)))
        }
        4 | 5 => {
            did(Did::DeadlineLater);
            set(soon(1_000_000 + me.below(1_000_000)))
        }
        6 => {
            did(Did::DeadlineCleared);
            set(None)
        }
        _ => stream
            .set_read_timeout(timeout(me.below(5_000)))
            .and_then(|()| stream.set_write_timeout(timeout(me.below(5_000)))),
    };
    result.expect("the stream is open");
}

/// Bytes, an urgent one, more bytes: reads stop at the mark, and what is behind it makes no report of its own.
pub(crate) fn urgent(me: &Me, scene: &mut Scene) {
    let rounds = scene.rng.between(20, 300);
    scene.note("rounds", rounds);
    let (here, there) = me.pair();
    let course = Course::new(&mut scene.rng);
    let mut sizes = scene.rng.fork();
    let mut same_sizes = sizes.clone();
    let plan = |rng: &mut Rng| (rng.between(0, 5), rng.between(1, 5));
    scene.start("sends", move |me| {
        let mut course = course;
        for _ in 0..rounds {
            let (before, after) = plan(&mut sizes);
            if before > 0 {
                me.give_whole(&here, &mut course, before);
            }
            me.dawdle();
            sys::send_urgent(&here, 0xee).expect("an urgent byte");
            did(Did::Urgent);
            me.dawdle();
            me.give_whole(&here, &mut course, after);
            assert_eq!(me.read(&here, &mut [0; 8]).expect("an answer"), 1);
        }
        sys::send_urgent(&here, 0xef).expect("an urgent byte");
        assert_eq!(me.read(&here, &mut [0; 8]).expect("an answer"), 1);
    });
    scene.start("takes", move |me| {
        let mut course = course;
        for _ in 0..rounds {
            let (before, after) = plan(&mut same_sizes);
            let end = course.at + (before + after) as u64;
            while course.at < end {
                let most = if me.chance(50) { 1 + me.below((end - course.at) as usize) } else { 64 };
                me.read_checked(&there, &mut course, most);
            }
            me.write_all(&there, b"!").expect("answering");
        }
        // Not before: a mark whose byte was read behind the library's back is not reported, and yet splits reads.
        let byte = loop {
            match sys::read_urgent(&there) {
                Some(byte) => break byte,
                None => towpath::task::yield_now(),
            }
        };
        assert_eq!(byte, 0xef);
        did(Did::UrgentRead);
        me.write_all(&there, b"!").expect("answering");
    });
}
