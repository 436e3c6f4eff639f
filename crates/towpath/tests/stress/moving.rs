//! Scenarios in which sockets change hands: from worker to worker, to plain threads, to std and back, and out of
//! runtimes that end.

use std::io::{Read, Write};
use std::sync::Arc;

use towpath::net::{Server, Shutdown, TcpStream, is_closed};
use towpath::sync::channel;
use towpath::time::Duration;

use crate::house::{self, Place, Scene};
use crate::ops::{Course, Me};
use crate::tally::{Did, did};

/// Both ends of a connection go from actor to actor; each has some rounds of one byte with whoever has the other end.
pub(crate) fn handoff(me: &Me, scene: &mut Scene) {
    let legs = scene.rng.between(2, 12);
    let rounds = scene.rng.between(1, 60);
    let both = scene.rng.chance(50);
    scene.note("legs", (legs, rounds, both));
    let (here, there) = me.pair();
    let courses = (Course::new(&mut scene.rng), Course::new(&mut scene.rng));
    relay(scene, here, courses, true, legs, rounds);
    let (legs, rounds) = if both { (legs, rounds) } else { (1, legs * rounds) };
    relay(scene, there, courses, false, legs, rounds);
}

fn relay(scene: &mut Scene, stream: TcpStream, courses: (Course, Course), first: bool, legs: usize, rounds: usize) {
    let (mut pass, receive) = channel::bounded(1);
    pass.send((stream, courses)).expect("there is room");
    let mut from = receive;
    for leg in 0..legs {
        let (next_pass, next_receive) = channel::bounded(1);
        let receive = std::mem::replace(&mut from, next_receive);
        pass = next_pass;
        let pass = pass.clone();
        scene.start("has it", move |me| {
            me.does("recv the socket");
            let (mut stream, (mut to, mut fro)) = receive.recv().expect("the last leg sends it");
            for _ in 0..rounds {
                if first {
                    me.give_whole(&stream, &mut to, 1);
                    me.take(&stream, &mut fro, 1);
                } else {
                    me.take(&stream, &mut to, 1);
                    me.give_whole(&stream, &mut fro, 1);
                }
            }
            did(Did::Handed);
            stream = transform(me, stream);
            if leg + 1 == legs {
                me.shut_down(&stream, Shutdown::Write);
                return me.expect_end(&stream);
            }
            me.does("send the socket");
            pass.send((stream, (to, fro))).expect("the next leg waits");
        });
    }
}

/// Takes the socket apart and puts it together again, or not.
fn transform(me: &Me, stream: TcpStream) -> TcpStream {
    match me.below(4) {
        0 => {
            did(Did::IntoStd);
            me.does("into_std");
            let stream = stream.into_std().expect("it has no clones");
            me.does("from std");
            stream.into()
        }
        1 => {
            did(Did::Split);
            let (read, write) = stream.into_split();
            read.reunite(write).expect("halves of one stream")
        }
        2 => {
            did(Did::Busy);
            let clone = me.clone_of(&stream);
            me.does("into_std with a clone");
            let error = stream.into_std().expect_err("it has a clone");
            assert_eq!(error.kind(), std::io::ErrorKind::ResourceBusy);
            clone
        }
        _ => stream,
    }
}

/// A runtime ends while others wait on sockets that are at home there; then it is somebody else's turn to tell them.
pub(crate) fn orphans(me: &Me, scene: &mut Scene) {
    let workers = scene.rng.between(1, 3);
    let rounds = scene.rng.between(1, 20);
    let after = scene.rng.between(1, 50);
    scene.note("workers", (workers, rounds, after));
    let doomed = house::runtime(scene.house.poller, workers);
    let (here, there) = me.pair();
    let (mut to, mut fro) = (Course::new(&mut scene.rng), Course::new(&mut scene.rng));
    let (mut far_to, mut far_fro) = (to, fro);
    let rest = rounds + after;
    let (pass, receive) = channel::bounded(1);
    let keeper = me.clone_of(&here);
    scene.start_at(Place::Of(doomed.clone()), "settles", move |me| {
        for _ in 0..rounds {
            me.give_whole(&here, &mut to, 1);
            me.take(&here, &mut fro, 1);
        }
        pass.send((here, to, fro)).expect("there is room");
    });
    scene.start("answers", move |me| {
        for _ in 0..rest {
            me.take(&there, &mut far_to, 1);
            me.dawdle();
            me.give_whole(&there, &mut far_fro, 1);
        }
        me.expect_end(&there);
    });
    scene.start("goes on", move |me| {
        me.does("recv the socket");
        let (here, mut to, mut fro) = receive.recv().expect("it is sent");
        for _ in 0..after {
            me.give_whole(&here, &mut to, 1);
            me.take(&here, &mut fro, 1);
        }
        did(Did::Orphaned);
        me.shut_down(&here, Shutdown::Write);
        // `answers` now ends, and this reader with it, wherever the runtime that it was at home in has got to.
        me.expect_end(&here);
    });
    scene.start("shuts down", move |me| {
        me.dawdle();
        me.does("shutdown");
        house::shut_down(doomed);
        drop(keeper);
    });
}

/// A server on a runtime: clients talk, and some stay, when it drains.
pub(crate) fn server(me: &Me, scene: &mut Scene) {
    let clients = scene.rng.between(1, 6);
    let stay = scene.rng.below(clients + 1);
    let most = scene.rng.pick(&[1, 2, 100]);
    let drain = scene.rng.pick(&[0, 1, 20]);
    scene.note("clients", (clients, stay, most, drain));
    let listener = me.listen();
    let addr = listener.local_addr().expect("its address");
    // Those that stay hold a place each, and the others need one.
    let server = Server::new(listener).max_connections(most.max(stay + 1));
    let stopper = server.stopper();
    scene.start("serves", move |me| {
        me.does("serve");
        server
            .serve(|mut stream, _| {
                let mut byte = [0];
                while let Ok(1) = stream.read(&mut byte) {
                    if stream.write_all(&byte).is_err() {
                        break;
                    }
                }
            })
            .expect("serving until it is stopped");
    });
    let (done, finished) = channel::unbounded();
    for client in 0..clients {
        let done = done.clone();
        scene.start("is a client", move |me| {
            let stream = me.connect(addr).expect("connecting");
            for _ in 0..1 + me.below(20) {
                me.write_all(&stream, b"x").expect("writing");
                assert_eq!(me.read(&stream, &mut [0; 4]).expect("an answer"), 1);
            }
            done.send(()).expect("there is room");
            if client < stay {
                _ = me.read(&stream, &mut [0; 4]); // until the server cuts it: a reset, or the end
            }
        });
    }
    me.does("recv done");
    for _ in 0..clients {
        finished.recv().expect("clients end");
    }
    me.does("drain");
    let drained = stopper.drain(Duration::from_millis(drain));
    did(Did::Drained);
    // Those that have gone may or may not have been noticed by then.
    assert!(drained.cut >= stay, "{drained:?} of {clients}, of which {stay} stayed");
    assert!(drained.finished + drained.cut <= clients, "{drained:?} of {clients}");
}

/// Sockets that are closed while they are handed on: whoever has them finds out.
pub(crate) fn closed_on_the_way(me: &Me, scene: &mut Scene) {
    let takers = scene.rng.between(1, 4);
    let close_after = scene.rng.below(200);
    scene.note("takers", (takers, close_after));
    let (here, there) = me.pair();
    let here = Arc::new(here);
    for _ in 0..takers {
        let here = here.clone();
        scene.start("reads until closed", move |me| {
            loop {
                match me.read(&here, &mut [0; 3]) {
                    Ok(0) => break, // it has written all it had
                    Ok(_) => {}
                    Err(error) => break assert!(is_closed(&error), "{error:?}"),
                }
                me.dawdle();
            }
        });
    }
    scene.start("writes until closed", move |me| {
        let mut left = 100_000;
        while me.write(&there, &[1]).is_ok() && left > 0 {
            me.dawdle();
            left -= 1;
        }
    });
    scene.start("closes", move |me| {
        (0..close_after).for_each(|_| me.dawdle());
        here.close().expect("closing once");
    });
}
