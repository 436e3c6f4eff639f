//! Works inside one process, as a user of towpath writes them.

use clap::Parser;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use towpath::sync::channel::{self, Receiver, Sender};
use towpath::task::{JoinHandle, yield_now};
use towpath::{Runtime, spawn};
use towpath_bench::Result;
use towpath_bench::inproc::{Args, NEVER, Work, parked, timed};

fn main() -> Result<()> {
    let work = Args::parse().work;
    let runtime = Runtime::builder().workers(work.workers()).build()?;
    match work {
        Work::Spawn => timed(|count| {
            runtime.run(move || (0..count).for_each(|_| spawn(|| ()).join().unwrap()));
        }),
        Work::Yield => timed(|count| {
            runtime.run(move || {
                let other = spawn(move || (0..count / 2).for_each(|_| yield_now()));
                (0..count / 2).for_each(|_| yield_now());
                other.join().unwrap();
            });
        }),
        Work::Hop => timed(|count| hop(&runtime, count, |receiver| receiver.recv().unwrap())),
        Work::HopTimeout => timed(|count| hop(&runtime, count, |receiver| receiver.recv_timeout(NEVER).unwrap())),
        Work::RoundTrip => round_trip(),
        Work::Parked { tasks, .. } => parked(
            || runtime.run(move || park_all(tasks)),
            |(go_on, handles)| {
                runtime.run(move || {
                    drop(go_on);
                    handles.into_iter().for_each(|handle| handle.join().unwrap());
                });
            },
        ),
    }
}

fn hop(runtime: &Runtime, count: u64, receive: fn(&Receiver<u64>) -> u64) {
    runtime.run(move || {
        let (sender, receiver) = channel::bounded(0);
        let other = spawn(move || (0..count).for_each(|number| sender.send(number).unwrap()));
        (0..count).for_each(|number| assert_eq!(receive(&receiver), number));
        other.join().unwrap();
    });
}

/// On two runtimes, for of one alone both tasks might be placed on the same worker.
fn round_trip() -> Result<()> {
    let one_worker = || Runtime::builder().workers(1).build();
    let (here, there) = (one_worker()?, one_worker()?);
    timed(|count| {
        let ((ask, asked), (answer, answered)) = (channel::bounded(0), channel::bounded(0));
        let other = there.spawn(move || asked.iter().for_each(|number: u64| answer.send(number).unwrap()));
        here.run(move || {
            for number in 0..count {
                ask.send(number).unwrap();
                assert_eq!(answered.recv(), Ok(number));
            }
        });
        other.join().unwrap();
    })
}

/// Returns when all wait for the sender to go.
fn park_all(tasks: usize) -> (Sender<()>, Vec<JoinHandle<()>>) {
    let (go_on, waits) = channel::bounded::<()>(0);
    let (all, are_there) = channel::bounded(1);
    let count = Arc::new(AtomicUsize::new(0));
    let task = |_| {
        let (waits, all, count) = (waits.clone(), all.clone(), count.clone());
        spawn(move || {
            if count.fetch_add(1, Ordering::Relaxed) + 1 == tasks {
                all.send(()).unwrap();
            }
            assert!(waits.recv().is_err());
        })
    };
    let handles = (0..tasks).map(task).collect();
    are_there.recv().unwrap();
    (go_on, handles)
}
