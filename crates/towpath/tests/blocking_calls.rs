//! Work that blocks: `unblock` and `spawn_blocking` run it on threads of their own, and the worker goes on meanwhile. How
//! the pool bounds and recycles its threads is tested beside it, in `runtime/blocking.rs`.

mod common;
mod watching;

use std::io::{Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;

use towpath::net::TcpListener;
use towpath::sync::channel;
use towpath::task::{self, spawn_blocking, spawn_local, unblock};
use towpath::time::{Duration, sleep};
use towpath::{select, spawn};

use common::{on_each_poller, on_tasks_and_threads, pair, until, watchdog};
use watching::{threads_named, until_parked};

fn thread_name() -> String {
    thread::current().name().unwrap_or_default().to_owned()
}

#[test]
fn unblock_runs_on_a_thread_of_its_own_and_returns_the_value() {
    on_each_poller(|| {
        let worker = thread::current().id();
        let (name, thread, inside) = unblock(|| (thread_name(), thread::current().id(), task::current().is_some()));
        assert_eq!(name, "towpath-blocking");
        assert!(thread != worker && !inside);
        assert_eq!(thread::current().id(), worker, "the task is back on its own thread");
        assert_eq!(unblock(|| vec![1, 2]), [1, 2]);
    });
}

#[test]
fn unblock_on_a_plain_thread_runs_where_it_is() {
    let me = thread::current().id();
    assert_eq!(unblock(|| thread::current().id()), me);
    // Also where that is one of the blocking threads: it needs no other.
    let _watchdog = watchdog();
    let same = spawn_blocking(|| unblock(|| thread::current().id()) == thread::current().id());
    assert!(same.join().unwrap());
}

#[test]
fn the_worker_goes_on_while_one_of_its_tasks_blocks() {
    on_each_poller(|| {
        let (go, gone) = mpsc::channel::<&str>();
        let (tell, told) = mpsc::channel();
        let blocking = spawn_local(move || {
            unblock(move || {
                tell.send(()).unwrap();
                gone.recv().unwrap()
            })
        });
        let other = spawn_local(move || {
            // The blocking call has begun, and waits for this very task.
            until(|| told.try_recv().is_ok());
            go.send("from the same worker").unwrap();
        });
        other.join().unwrap();
        assert_eq!(blocking.join().unwrap(), "from the same worker");
    });
}

#[test]
fn a_panic_comes_out_of_unblock() {
    on_tasks_and_threads(|| {
        let call = || unblock(|| resume_unwind(Box::new(7)));
        let panic = catch_unwind(AssertUnwindSafe(call)).unwrap_err();
        assert_eq!(panic.downcast_ref(), Some(&7));
        assert_eq!(unblock(|| 8), 8);
    });
}

#[test]
fn spawn_blocking_is_joined_as_a_task_is() {
    on_tasks_and_threads(|| {
        let work = spawn_blocking(|| (thread_name(), task::current().is_none()));
        assert_eq!(work.join().unwrap(), ("towpath-blocking".to_owned(), true));
        let panic = spawn_blocking(|| resume_unwind(Box::new("over"))).join().map(|never: ()| never).unwrap_err();
        assert_eq!(panic.into_panic().downcast_ref(), Some(&"over"));

        let (go, gone) = mpsc::channel::<()>();
        let mut work = Some(spawn_blocking(move || gone.recv().unwrap_err()));
        select! {
            join(work) -> _ => panic!("it blocks"),
            default => {}
        }
        assert!(!work.as_ref().unwrap().is_finished());
        drop(go);
        select! {
            join(work) -> result => drop(result.unwrap()),
        }
    });
}

#[test]
fn what_runs_on_a_blocking_thread_may_use_the_library_and_blocks_that_thread() {
    on_tasks_and_threads(|| {
        let (stream, mut peer) = pair();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let (sender, receiver) = channel::bounded(0);
        let work = spawn_blocking(move || {
            sender.send("ready").unwrap();
            let mut buf = [0; 5];
            (&stream).read_exact(&mut buf).unwrap();
            sleep(Duration::from_millis(1)).unwrap();
            let (mut accepted, _) = listener.accept().unwrap();
            accepted.write_all(&buf).unwrap();
            spawn(|| thread_name().starts_with("towpath-")).join().unwrap()
        });
        assert_eq!(receiver.recv(), Ok("ready"));
        peer.write_all(b"hello").unwrap();
        let mut text = String::new();
        towpath::net::TcpStream::connect(addr).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello");
        assert!(work.join().unwrap());
    });
}

#[test]
fn more_calls_than_threads_wait_for_their_turn_and_all_are_done() {
    common::alone("more_calls_than_threads_wait_for_their_turn_and_all_are_done", || {
        const CALLS: usize = 200;
        let (go, gone) = mpsc::channel::<()>();
        let gone = Arc::new(std::sync::Mutex::new(gone));
        let begun = Arc::new(AtomicUsize::new(0));
        let tasks: Vec<_> = (0..CALLS)
            .map(|n| {
                let (gone, begun) = (gone.clone(), begun.clone());
                spawn(move || {
                    unblock(move || {
                        begun.fetch_add(1, Ordering::SeqCst);
                        // One of them waits for the word, and the others for the lock.
                        _ = gone.lock().unwrap().recv();
                        n
                    })
                })
            })
            .collect();
        tasks.iter().for_each(|task| until_parked(task, "join"));
        until(|| begun.load(Ordering::SeqCst) == 64);
        assert_eq!(threads_named("towpath-blockin"), 64);
        drop(go);
        assert!(tasks.into_iter().map(|task| task.join().unwrap()).eq(0..CALLS));
        assert_eq!(begun.load(Ordering::SeqCst), CALLS);
        assert!(threads_named("towpath-blockin") <= 64);
    });
}

#[test]
fn names_are_looked_up_though_every_blocking_thread_is_taken() {
    common::alone("names_are_looked_up_though_every_blocking_thread_is_taken", || {
        let (go, gone) = mpsc::channel::<()>();
        let gone = Arc::new(std::sync::Mutex::new(gone));
        let calls: Vec<_> = (0..100)
            .map(|_| {
                let gone = gone.clone();
                spawn_blocking(move || _ = gone.lock().unwrap().recv())
            })
            .collect();
        until(|| threads_named("towpath-blockin") == 64);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let dial = spawn(move || towpath::net::TcpStream::connect(("localhost", port)));
        dial.join().unwrap().unwrap();
        drop(go);
        calls.into_iter().for_each(|call| call.join().unwrap());
    });
}
