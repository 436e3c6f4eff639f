//! Scenarios of tasks: joins, panics, local tasks, sleeps, blocking calls, deep stacks.

use std::cell::Cell;
use std::io::Read;
use std::panic::panic_any;
use std::rc::Rc;

use towpath::net::TcpStream;
use towpath::sync::channel;
use towpath::task::{self, JoinError};
use towpath::time::Duration;

use crate::house::{Intended, Scene};
use crate::ops::Me;
use crate::tally::{Did, did};

/// A tree of tasks, of which each joins its children.
pub(crate) fn tree(_me: &Me, scene: &mut Scene) {
    let depth = scene.rng.between(1, 5) as u32;
    let actors = scene.rng.between(1, 3);
    scene.note("depth", (depth, actors));
    for _ in 0..actors {
        scene.start("grows", move |me| {
            me.does("join a tree");
            assert_eq!(grow(depth), 3_u64.pow(depth));
            did(Did::Joined);
        });
    }
}

fn grow(depth: u32) -> u64 {
    if depth == 0 {
        return 1;
    }
    let children: Vec<_> = (0..3).map(|_| towpath::spawn(move || grow(depth - 1))).collect();
    children.into_iter().map(|child| child.join().expect("it does not panic")).sum()
}

/// Tasks that panic, some while they hold what waits when it is dropped.
pub(crate) fn panics(me: &Me, scene: &mut Scene) {
    let actors = scene.rng.between(1, 3);
    let each = scene.rng.between(1, 20);
    scene.note("actors", (actors, each));
    for _ in 0..actors {
        let (here, there) = me.pair();
        scene.start("joins what panics", move |me| {
            for _ in 0..each {
                let stream = me.clone_of(&here);
                let waits = me.chance(50);
                let task = towpath::spawn(move || {
                    let _reads = waits.then(|| ReadsWhenDropped(stream));
                    task::yield_now();
                    panic_any(Intended);
                });
                did(Did::Panicked);
                me.does("join what panics");
                match task.join() {
                    Err(JoinError::Panicked(payload)) => assert!(payload.is::<Intended>()),
                    other => panic!("a task that panicked: {other:?}"),
                }
            }
            // None of them has taken anything with it.
            me.write_all(&there, b"x").expect("writing");
            assert_eq!(me.read(&here, &mut [0; 4]).expect("reading"), 1);
        });
    }
}

struct ReadsWhenDropped(TcpStream);

impl Drop for ReadsWhenDropped {
    fn drop(&mut self) {
        let error = (&self.0).read(&mut [0]).expect_err("it may not wait");
        if towpath::is_cancelled(&error) {
            did(Did::Refusal);
        }
        let (_sender, receiver) = channel::bounded::<()>(0);
        assert!(matches!(receiver.recv(), Err(channel::RecvError::Cancelled(_))));
    }
}

/// Tasks that stay on their worker and share what is not Send.
pub(crate) fn locals(_me: &Me, scene: &mut Scene) {
    let actors = scene.rng.between(1, 3);
    let each = scene.rng.between(1, 30);
    scene.note("actors", (actors, each));
    for _ in 0..actors {
        scene.start("has local tasks", move |me| {
            let rng = me.rng();
            let act = move || local_tasks(each, rng.clone().next());
            me.does("join local tasks");
            // On a plain thread there is no worker to stay on.
            if task::current().is_some() { act() } else { towpath::spawn(act).join().expect("it does not panic") }
        });
    }
}

fn local_tasks(count: usize, seed: u64) {
    let sum = Rc::new(Cell::new(0));
    let (sender, receiver) = channel::bounded(seed as usize % 3);
    let tasks: Vec<_> = (0..count)
        .map(|i| {
            did(Did::Local);
            let (sum, sender, receiver) = (sum.clone(), sender.clone(), receiver.clone());
            task::spawn_local(move || {
                if i % 2 == 0 && i + 1 < count {
                    sender.send(i).expect("its partner listens");
                } else if i % 2 == 1 {
                    sum.set(sum.get() + receiver.recv().expect("its partner sends"));
                }
                task::yield_now();
                sum.clone() // a result that is not Send either
            })
        })
        .collect();
    for task in tasks {
        task.join().expect("it does not panic");
    }
    assert_eq!(sum.get(), (0..count).filter(|i| i % 2 == 0 && i + 1 < count).sum::<usize>());
}

/// Sleeps, calls on the blocking pool, deep calls on stacks of many sizes.
pub(crate) fn errands(_me: &Me, scene: &mut Scene) {
    let actors = scene.rng.between(1, 6);
    let each = scene.rng.between(1, 10);
    scene.note("actors", (actors, each));
    for _ in 0..actors {
        scene.start("runs errands", move |me| {
            for _ in 0..each {
                errand(me);
            }
        });
    }
}

fn errand(me: &Me) {
    match me.below(4) {
        0 => me.sleep(Duration::from_micros(me.below(5_000) as u64)),
        1 => {
            me.does("unblock");
            let n = me.below(1_000_000);
            assert_eq!(task::unblock(move || n + 1), n + 1);
            did(Did::Unblocked);
        }
        2 => {
            me.does("join a blocking call");
            let result = task::spawn_blocking(|| std::thread::sleep(std::time::Duration::from_micros(200))).join();
            result.expect("it does not panic");
            did(Did::Unblocked);
        }
        _ => {
            let kilobytes = [32, 64, 100, 256, 1_024][me.below(5)];
            let builder = task::Builder::new().name(format!("deep {kilobytes}")).stack_size(kilobytes * 1024);
            let deep = builder.spawn(move || dig(kilobytes * 1024 / 4)).expect("a good size");
            me.does("join a deep call");
            assert!(deep.join().expect("it does not panic") > 0);
            did(Did::Deep);
        }
    }
}

/// Touches about so many bytes of the stack, a frame at a time, and parks at the bottom.
#[inline(never)]
fn dig(bytes: usize) -> usize {
    let frame = std::hint::black_box([1_u8; 2_048]);
    let deeper = match bytes.checked_sub(frame.len()) {
        Some(left) => dig(left),
        None => {
            towpath::time::sleep(Duration::from_micros(50)).expect("nobody cancels it");
            1
        }
    };
    deeper + usize::from(frame[bytes % frame.len()])
}
