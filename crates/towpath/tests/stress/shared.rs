//! Scenarios in which several actors use one direction of one socket: readers, writers, acceptors.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use towpath::net::{Shutdown, TcpStream, is_closed};
use towpath::sync::channel;

use crate::house::Scene;
use crate::ops::{Course, Me};
use crate::tally::{Did, did};

/// Several readers of one direction: each byte reaches one of them, and each burst is waited for.
pub(crate) fn readers(me: &Me, scene: &mut Scene) {
    let readers = scene.rng.between(2, 5);
    let bursts = scene.rng.between(20, 400);
    let most = scene.rng.pick(&[1, 4, 40]);
    let room = scene.rng.pick(&[1, 1, 2, 16]);
    scene.note("readers", (readers, bursts, most, room));
    let (here, there) = me.pair();
    let sum = Arc::new(AtomicUsize::new(0));
    for _ in 0..readers {
        let (stream, sum) = (me.clone_of(&there), sum.clone());
        scene.start("reads", move |me| {
            let mut buf = vec![0; room];
            loop {
                let n = me.read(&stream, &mut buf).expect("reading");
                if n == 0 {
                    break;
                }
                sum.fetch_add(buf[..n].iter().map(|&byte| usize::from(byte)).sum(), Ordering::Relaxed);
                me.dawdle();
                me.write_all(&stream, &buf[..n]).expect("answering");
            }
        });
    }
    let mut there = Some(there);
    scene.start("writes", move |me| {
        let mut total = 0;
        for _ in 0..bursts {
            let bytes: Vec<u8> = (0..1 + me.below(most)).map(|_| me.below(256) as u8).collect();
            let burst: usize = bytes.iter().map(|&byte| usize::from(byte)).sum();
            total += burst;
            for piece in bytes.chunks(1 + me.below(bytes.len())) {
                me.write_all(&here, piece).expect("writing");
                me.spin(me.below(2_000));
            }
            let (mut back, mut answered) = (0, 0);
            while back < bytes.len() {
                let mut buf = [0; 64];
                let n = me.read(&here, &mut buf).expect("an answer");
                assert!(n > 0, "no answer");
                back += n;
                answered += buf[..n].iter().map(|&byte| usize::from(byte)).sum::<usize>();
            }
            assert_eq!((back, answered), (bytes.len(), burst), "the bytes of a burst");
        }
        me.shut_down(&here, Shutdown::Write);
        me.expect_end(&here);
        assert_eq!(sum.load(Ordering::Relaxed), total);
    });
    there.take();
}

const HEAD: usize = 9;

/// Several writers of one direction: the bytes of one `write_all` stay together, and each writer's come in order.
pub(crate) fn writers(me: &Me, scene: &mut Scene) {
    let writers = scene.rng.between(2, 6);
    let frames = scene.rng.between(5, 60) as u32;
    let most = scene.rng.pick(&[10, 1_000, 300_000]);
    let frames = if most > 1_000 { frames.min(8) } else { frames };
    let courses: Vec<_> = (0..writers).map(|_| Course::new(&mut scene.rng)).collect();
    scene.note("writers", (writers, frames, most));
    let (here, there) = me.pair();
    for (writer, course) in courses.iter().enumerate() {
        let stream = me.clone_of(&here);
        let mut course = *course;
        scene.start("writes frames", move |me| {
            for number in 0..frames {
                let len = 1 + me.below(most);
                let mut frame = vec![writer as u8];
                frame.extend(number.to_be_bytes());
                frame.extend((len as u32).to_be_bytes());
                course.append(&mut frame, len);
                me.write_all(&stream, &frame).expect("writing a frame");
                me.dawdle();
            }
        });
    }
    let mut courses = courses;
    scene.start("reads frames", move |me| {
        let mut next = vec![0; writers];
        for _ in 0..writers as u32 * frames {
            let mut head = [0; HEAD];
            fill(me, &there, &mut head);
            let [writer, n0, n1, n2, n3, l0, l1, l2, l3] = head;
            let writer = usize::from(writer);
            assert!(writer < writers, "a frame's head: {head:?}");
            assert_eq!(u32::from_be_bytes([n0, n1, n2, n3]), next[writer], "the frames of writer {writer}");
            next[writer] += 1;
            let len = u32::from_be_bytes([l0, l1, l2, l3]) as usize;
            assert!((1..=most).contains(&len), "a frame's head: {head:?}");
            me.take(&there, &mut courses[writer], len);
        }
        me.write_all(&there, b"!").expect("answering");
        me.expect_end(&there);
    });
    scene.start("ends", move |me| {
        assert_eq!(me.read(&here, &mut [0; 4]).expect("an answer"), 1);
        me.shut_down(&here, Shutdown::Write);
    });
}

fn fill(me: &Me, stream: &TcpStream, buf: &mut [u8]) {
    let mut filled = 0;
    while filled < buf.len() {
        let n = me.read(stream, &mut buf[filled..]).expect("reading");
        assert!(n > 0, "the stream ends early");
        filled += n;
    }
}

/// Several acceptors of one listener and several connectors: each connection is accepted once, answered, and ends.
pub(crate) fn acceptors(me: &Me, scene: &mut Scene) {
    let acceptors = scene.rng.between(1, 4);
    let connectors = scene.rng.between(1, 4);
    let each = scene.rng.between(1, 20);
    scene.note("acceptors", (acceptors, connectors, each));
    let listener = me.listen();
    let addr = listener.local_addr().expect("its address");
    let accepted = Arc::new(AtomicUsize::new(0));
    for _ in 0..acceptors {
        let listener = listener.try_clone().expect("open");
        let accepted = accepted.clone();
        scene.start("accepts", move |me| {
            let mut handlers = Vec::new();
            loop {
                let stream = match me.accept(&listener) {
                    Ok(stream) => stream,
                    Err(error) => break assert!(is_closed(&error), "accepting: {error:?}"),
                };
                accepted.fetch_add(1, Ordering::Relaxed);
                if me.chance(50) {
                    answer(me, &stream);
                    continue;
                }
                // A handler as servers have it: a task of the acceptor's runtime, of which nobody keeps a record.
                handlers.push(towpath::spawn(move || {
                    let mut byte = [0];
                    while std::io::Read::read(&mut &stream, &mut byte).expect("reading") == 1 {
                        std::io::Write::write_all(&mut &stream, &byte).expect("answering");
                    }
                }));
            }
            for handler in handlers {
                me.does("join");
                handler.join().expect("a handler");
                did(Did::Joined);
            }
        });
    }
    let (done, finished) = channel::bounded(0);
    for _ in 0..connectors {
        let done = done.clone();
        scene.start("connects", move |me| {
            for _ in 0..each {
                let stream = me.connect(addr).expect("connecting");
                let byte = me.below(256) as u8;
                for byte in [byte, !byte] {
                    me.write_all(&stream, &[byte]).expect("writing");
                    let mut back = [0; 2];
                    assert_eq!(me.read(&stream, &mut back).expect("an answer"), 1);
                    assert_eq!(back[0], byte);
                }
                me.dawdle();
            }
            me.does("send done");
            done.send(()).expect("somebody listens");
        });
    }
    me.does("recv done");
    for _ in 0..connectors {
        finished.recv().expect("connectors end");
    }
    assert_eq!(accepted.load(Ordering::Relaxed), connectors * each);
    listener.close().expect("closing once");
}

fn answer(me: &Me, stream: &TcpStream) {
    let mut byte = [0];
    while me.read(stream, &mut byte).expect("reading") == 1 {
        me.write_all(stream, &byte).expect("answering");
    }
}
