//! Works inside one process, as a user of may writes them.
//!
//! May's channels hold any number of messages: `hop` goes to and fro between two of them, and each message counts.
//! There is no `round-trip`: a coroutine that is woken runs on its waker's worker, so it never goes to another one.

use clap::Parser;
use may::go;
use may::sync::{SyncFlag, mpsc};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use towpath_bench::Result;
use towpath_bench::inproc::{Args, NEVER, Work, parked, timed};

fn main() -> Result<()> {
    let work = Args::parse().work;
    may::config().set_workers(work.workers()).set_worker_pin(false); // they stay where this program is put
    match work {
        Work::Spawn => timed(|count| run(move || (0..count).for_each(|_| go!(|| ()).join().unwrap()))),
        Work::Yield => timed(|count| {
            run(move || {
                let other = go!(move || (0..count / 2).for_each(|_| may::coroutine::yield_now()));
                (0..count / 2).for_each(|_| may::coroutine::yield_now());
                other.join().unwrap();
            });
        }),
        Work::Hop => timed(|count| hop(count, |receiver| receiver.recv().unwrap())),
        Work::HopTimeout => timed(|count| hop(count, |receiver| receiver.recv_timeout(NEVER).unwrap())),
        Work::RoundTrip => Err("may leaves both on one worker".into()),
        Work::Parked { tasks, .. } => parked(
            || run(move || park_all(tasks)),
            |(go_on, handles)| {
                run(move || {
                    go_on.fire();
                    handles.into_iter().for_each(|handle| handle.join().unwrap());
                });
            },
        ),
    }
}

fn run<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> T {
    go!(f).join().unwrap()
}

fn hop(count: u64, receive: fn(&mpsc::Receiver<u64>) -> u64) {
    run(move || {
        let ((ask, asked), (answer, answered)) = (mpsc::channel(), mpsc::channel());
        let other = go!(move || {
            for number in 0..count / 2 {
                assert_eq!(receive(&asked), number);
                answer.send(number).unwrap();
            }
        });
        for number in 0..count / 2 {
            ask.send(number).unwrap();
            assert_eq!(receive(&answered), number);
        }
        other.join().unwrap();
    });
}

/// Returns when all wait for the flag.
fn park_all(tasks: usize) -> (Arc<SyncFlag>, Vec<may::coroutine::JoinHandle<()>>) {
    let go_on = Arc::new(SyncFlag::new());
    let (all, are_there) = mpsc::channel();
    let count = Arc::new(AtomicUsize::new(0));
    let task = |_| {
        let (go_on, all, count) = (go_on.clone(), all.clone(), count.clone());
        go!(move || {
            if count.fetch_add(1, Ordering::Relaxed) + 1 == tasks {
                all.send(()).unwrap();
            }
            go_on.wait();
        })
    };
    let handles = (0..tasks).map(task).collect();
    are_there.recv().unwrap();
    (go_on, handles)
}
