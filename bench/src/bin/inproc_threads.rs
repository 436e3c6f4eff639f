//! Works inside one process, with nothing but std: a task is a thread.

use clap::Parser;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle, spawn, yield_now};
use towpath_bench::Result;
use towpath_bench::inproc::{Args, NEVER, Work, parked, timed};

fn main() -> Result<()> {
    match Args::parse().work {
        Work::Spawn => timed(|count| (0..count).for_each(|_| spawn(|| ()).join().unwrap())),
        Work::Yield => timed(|count| {
            thread::scope(|scope| {
                scope.spawn(|| (0..count / 2).for_each(|_| yield_now()));
                (0..count / 2).for_each(|_| yield_now());
            });
        }),
        Work::Hop => timed(|count| hop(count, |receiver| receiver.recv().unwrap())),
        Work::HopTimeout => timed(|count| hop(count, |receiver| receiver.recv_timeout(NEVER).unwrap())),
        Work::RoundTrip => timed(round_trip),
        Work::Parked { tasks, .. } => parked(
            || park_all(tasks),
            |(go_on, handles)| {
                let (flag, changed) = &*go_on;
                *flag.lock().unwrap() = true;
                changed.notify_all();
                handles.into_iter().for_each(|handle| handle.join().unwrap());
            },
        ),
    }
}

fn hop(count: u64, receive: fn(&Receiver<u64>) -> u64) {
    let (sender, receiver) = mpsc::sync_channel(0);
    let other = spawn(move || (0..count).for_each(|number| sender.send(number).unwrap()));
    (0..count).for_each(|number| assert_eq!(receive(&receiver), number));
    other.join().unwrap();
}

fn round_trip(count: u64) {
    let ((ask, asked), (answer, answered)) = (mpsc::sync_channel(0), mpsc::sync_channel(0));
    let other = spawn(move || asked.iter().for_each(|number: u64| answer.send(number).unwrap()));
    for number in 0..count {
        ask.send(number).unwrap();
        assert_eq!(answered.recv(), Ok(number));
    }
    drop(ask);
    other.join().unwrap();
}

type Flag = (Mutex<bool>, Condvar);

/// Returns when all wait for the flag.
fn park_all(tasks: usize) -> (Arc<Flag>, Vec<JoinHandle<()>>) {
    let go_on = Arc::new(Flag::default());
    let (all, are_there) = mpsc::channel();
    let count = Arc::new(AtomicUsize::new(0));
    let task = |_| {
        let (go_on, all, count) = (go_on.clone(), all.clone(), count.clone());
        spawn(move || {
            if count.fetch_add(1, Ordering::Relaxed) + 1 == tasks {
                all.send(()).unwrap();
            }
            let (flag, changed) = &*go_on;
            drop(changed.wait_while(flag.lock().unwrap(), |flag| !*flag).unwrap());
        })
    };
    let handles = (0..tasks).map(task).collect();
    are_there.recv().unwrap();
    (go_on, handles)
}
