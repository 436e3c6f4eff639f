//! Panics: one in a task reaches `join` and touches nothing else; and what a call comes to that a task makes while it
//! unwinds. Such a call may not park, or other tasks of its thread would look as if they panicked: it fails where it
//! would have to wait, and hands back what it was given. The tasks here unwind without a word (`resume_unwind`), but for
//! one.

mod common;
mod watching;

use std::any::Any;
use std::io::{self, Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;

use towpath::net::{Dialer, Server, TcpListener, TcpStream};
use towpath::sync::channel::{self, RecvError, RecvTimeoutError, SendError, SendTimeoutError};
use towpath::task::{self, Builder, JoinError, JoinHandle, spawn_local, unblock, yield_now};
use towpath::time::{Duration, sleep};
use towpath::{Cancelled, Runtime, is_cancelled, select, spawn};

use common::{PATIENCE, alone, fill, narrow_pair, on_each_poller, on_tasks_and_threads, pair, until, watchdog};
use watching::until_parked;

fn panic_with(payload: impl Any + Send) -> ! {
    resume_unwind(Box::new(payload))
}

/// Calls its closure when it is dropped.
struct OnDrop<F: FnOnce()>(Option<F>);

impl<F: FnOnce()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        let f = self.0.take().expect("dropped once");
        f();
    }
}

/// What `f` returns in the destructor of a task that unwinds. A panic in it would abort: it is for its caller to assert.
fn while_panicking<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> T {
    let (tell, told) = mpsc::channel();
    let task = spawn(move || {
        let _on_drop = OnDrop(Some(move || tell.send((thread::panicking(), f())).unwrap_or_default()));
        panic_with("unwinding");
    });
    let panic = task.join().map(|never: ()| never).unwrap_err().into_panic();
    assert_eq!(panic.downcast_ref(), Some(&"unwinding"));
    let (panicking, value) = told.recv().unwrap();
    assert!(panicking);
    value
}

#[test]
fn a_panic_reaches_join_with_what_it_was_made_of() {
    on_tasks_and_threads(|| {
        let join = |task: JoinHandle<()>| task.join().unwrap_err();
        let text = join(spawn(|| panic_with("a text")));
        assert_eq!(text.to_string(), "the task panicked: a text");
        assert_eq!(format!("{text:?}"), "Panicked(\"a text\")");
        assert_eq!(text.into_panic().downcast_ref(), Some(&"a text"));
        let string = join(spawn(|| panic_with("text".to_owned())));
        assert_eq!(string.to_string(), "the task panicked: text");
        let number = join(spawn(|| panic_with(7)));
        assert_eq!(number.to_string(), "the task panicked");
        assert_eq!(number.into_panic().downcast_ref(), Some(&7));
    });
    on_each_poller(|| {
        let local = spawn_local(|| panic_with("here")).join().map(|never: ()| never).unwrap_err();
        assert_eq!(local.to_string(), "the task panicked: here");
    });
}

#[test]
fn a_panic_is_printed_as_that_of_a_thread_is() {
    const NAME: &str = "a_panic_is_printed_as_that_of_a_thread_is";
    if common::is_alone(NAME) {
        let task = spawn(|| {
            if task::current().is_some() {
                panic!("out of luck")
            }
        });
        assert_eq!(task.join().unwrap_err().into_panic().downcast_ref(), Some(&"out of luck"));
        return;
    }
    let mut child = common::child(NAME, &[]);
    child.env("RUST_BACKTRACE", "0");
    let text = common::must_pass(child);
    assert!(text.contains("panicked at ") && text.contains("panics.rs") && text.contains("out of luck"), "{text}");
}

#[test]
fn a_panic_touches_no_other_task() {
    on_each_poller(|| {
        let counter = Arc::new(Mutex::new(0));
        let tasks: Vec<_> = (0..20)
            .map(|n| {
                let counter = counter.clone();
                spawn_local(move || {
                    for i in 0..50 {
                        assert!(!thread::panicking());
                        *counter.lock().expect("nobody panics while holding it") += 1;
                        yield_now();
                        if n % 2 == 0 && i == n {
                            panic_with(n);
                        }
                    }
                    n
                })
            })
            .collect();
        for (n, task) in tasks.into_iter().enumerate() {
            match task.join() {
                Ok(value) => assert_eq!((value, n % 2), (n, 1)),
                Err(error) => assert_eq!(error.into_panic().downcast_ref(), Some(&n)),
            }
        }
        assert_eq!(*counter.lock().unwrap(), 10 * 50 + (0..20).step_by(2).map(|n| n + 1).sum::<usize>());
    });
}

#[test]
fn a_handler_that_panics_closes_its_own_connection_only() {
    on_tasks_and_threads(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let server = Server::new(listener);
        let stopper = server.stopper();
        let serving = spawn(move || {
            server.serve(|mut stream, _| {
                let mut buf = [0; 1];
                while let Ok(1) = stream.read(&mut buf) {
                    if buf == *b"!" {
                        panic_with("asked to");
                    }
                    stream.write_all(&buf).unwrap();
                }
            })
        });
        let mut streams = [0; 4].map(|_| TcpStream::connect(addr).unwrap());
        let mut echo = |stream: &mut TcpStream| {
            stream.write_all(b"x").unwrap();
            stream.read_exact(&mut [0]).unwrap();
        };
        streams.iter_mut().for_each(&mut echo);
        streams[1].write_all(b"!").unwrap();
        assert_eq!(streams[1].read(&mut [0]).unwrap(), 0);
        for n in [0, 2, 3] {
            echo(&mut streams[n]);
        }
        echo(&mut TcpStream::connect(addr).unwrap());
        drop(streams);
        assert_eq!(stopper.drain(PATIENCE).cut, 0);
        serving.join().unwrap().unwrap();
    });
}

/// Panics when it is dropped, and counts that.
struct Bomb(Arc<AtomicUsize>);

impl Drop for Bomb {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
        panic_with("dropped");
    }
}

#[test]
fn what_a_task_leaves_may_panic_when_it_is_dropped() {
    on_tasks_and_threads(|| {
        let dropped = Arc::new(AtomicUsize::new(0));
        let bomb = || Bomb(dropped.clone());
        // Its handle is gone when it ends: its value, or its panic, is dropped by the task.
        for panics in [false, true] {
            let (go, gone) = channel::bounded::<()>(0);
            let bomb = bomb();
            let task = spawn(move || {
                gone.recv().unwrap();
                if panics { panic_with(bomb) } else { bomb }
            });
            drop(task);
            go.send(()).unwrap();
            until(|| dropped.swap(0, Ordering::SeqCst) == 1);
        }
        // It has ended when its handle goes: whoever drops that drops it.
        for panics in [false, true] {
            let bomb = bomb();
            let task = spawn(move || if panics { panic_with(bomb) } else { bomb });
            until(|| task.is_finished());
            let panic = catch_unwind(AssertUnwindSafe(|| drop(task))).unwrap_err();
            assert_eq!(panic.downcast_ref(), Some(&"dropped"));
            assert_eq!(dropped.swap(0, Ordering::SeqCst), 1);
        }
        // Or it is joined.
        let bomb = bomb();
        let payload = spawn(move || panic_with(bomb)).join().map(|never: ()| never).unwrap_err().into_panic();
        assert_eq!(dropped.load(Ordering::SeqCst), 0);
        std::mem::forget(payload);
        // Every worker has lived through that.
        let tasks: Vec<_> = (0..20).map(|n| spawn(move || n)).collect();
        assert!(tasks.into_iter().map(|task| task.join().unwrap()).eq(0..20));
    });
}

#[test]
fn a_task_that_catches_its_panic_goes_on_waiting() {
    on_tasks_and_threads(|| {
        let (sender, receiver) = channel::bounded(0);
        let task = spawn(move || {
            assert!(catch_unwind(|| panic_with("caught")).is_err());
            let received = receiver.recv();
            sleep(Duration::from_millis(1)).unwrap();
            received
        });
        until_parked(&task, "recv");
        sender.send(7).unwrap();
        assert_eq!(task.join().unwrap(), Ok(7));
    });
}

/// Whether a call on a socket was refused because its task panics.
fn is_refused<T: std::fmt::Debug>(result: &io::Result<T>) -> bool {
    let error = result.as_ref().expect_err("it would have had to wait");
    is_cancelled(error) && error.raw_os_error() == Some(libc::ECANCELED)
}

#[test]
fn a_socket_call_that_would_wait_while_panicking_is_refused() {
    on_tasks_and_threads(|| {
        let (stream, mut peer) = pair();
        let clone = stream.try_clone().unwrap();
        let (read, peeked) = while_panicking(move || ((&clone).read(&mut [0; 16]), clone.peek(&mut [0; 16])));
        assert!(is_refused(&read) && is_refused(&peeked));
        // Nothing is lost by it, nobody is left in a queue.
        peer.write_all(b"hello").unwrap();
        let mut buf = [0; 16];
        assert_eq!((&stream).read(&mut buf).unwrap(), 5);

        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let clone = listener.try_clone().unwrap();
        assert!(is_refused(&while_panicking(move || clone.accept())));
        let connected = TcpStream::connect(addr).unwrap();
        assert_eq!(listener.accept().unwrap().1, connected.local_addr().unwrap());

        let (full, mut peer) = narrow_pair();
        let sent = fill(&full);
        let clone = full.try_clone().unwrap();
        let (wrote, wrote_all) = while_panicking(move || ((&clone).write(b"x"), (&clone).write_all(b"x")));
        assert!(is_refused(&wrote) && is_refused(&wrote_all));
        drop(full);
        assert_eq!(io::copy(&mut peer, &mut io::sink()).unwrap(), sent as u64);
    });
}

#[test]
fn a_write_whose_turn_has_not_come_while_panicking_is_refused() {
    on_each_poller(|| {
        let (stream, mut peer) = narrow_pair();
        let writing = spawn({
            let stream = stream.try_clone().unwrap();
            move || (&stream).write_all(&vec![b'.'; 1 << 20])
        });
        until_parked(&writing, "write");
        let clone = stream.try_clone().unwrap();
        let result = while_panicking(move || (&clone).write_all(b"x"));
        assert!(is_refused(&result));
        drop(stream);
        assert_eq!(io::copy(&mut peer, &mut io::sink()).unwrap(), 1 << 20);
        writing.join().unwrap().unwrap();
    });
}

#[test]
fn dialling_and_serving_while_panicking_are_refused() {
    on_tasks_and_threads(|| {
        let silent = common::Silent::at([127, 0, 0, 1].into(), 0).unwrap();
        let addr = silent.addr;
        assert!(is_refused(&while_panicking(move || TcpStream::connect(addr))));
        assert!(is_refused(&while_panicking(move || TcpStream::connect_timeout(&addr, PATIENCE))));
        assert!(is_refused(&while_panicking(move || Dialer::new().timeout(PATIENCE).dial(addr))));
        // Two families, and a name to look up.
        let both = [addr, "[::1]:1".parse().unwrap()];
        assert!(is_refused(&while_panicking(move || TcpStream::connect(&both[..]))));
        let looked_up = while_panicking(|| TcpStream::connect("localhost:1"));
        assert!(is_cancelled(looked_up.as_ref().unwrap_err()), "{looked_up:?}");
        let looked_up = while_panicking(|| Dialer::new().timeout(PATIENCE).dial("localhost:1"));
        assert!(is_cancelled(looked_up.as_ref().unwrap_err()), "{looked_up:?}");

        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Server::new(listener);
        assert!(is_refused(&while_panicking(move || server.serve(|_, _| ()))));
    });
}

#[test]
fn a_channel_call_that_would_wait_while_panicking_is_refused_and_hands_its_message_back() {
    fn panicking(cancelled: Cancelled) -> bool {
        cancelled.is_panicking()
    }
    on_tasks_and_threads(|| {
        let (sender, receiver) = channel::bounded(0);
        let clone = sender.clone();
        let sent = while_panicking(move || (clone.send("a"), clone.send_timeout("b", PATIENCE)));
        assert!(matches!(sent.0, Err(SendError::Cancelled("a", cancelled)) if panicking(cancelled)));
        assert!(matches!(sent.1, Err(SendTimeoutError::Cancelled("b", cancelled)) if panicking(cancelled)));
        let clone = receiver.clone();
        let received = while_panicking(move || (clone.recv(), clone.recv_timeout(PATIENCE), clone.iter().next()));
        assert!(matches!(received.0, Err(RecvError::Cancelled(cancelled)) if panicking(cancelled)));
        assert!(matches!(received.1, Err(RecvTimeoutError::Cancelled(cancelled)) if panicking(cancelled)));
        assert_eq!(received.2, None);
        // Nobody is left in a queue.
        sender.try_send("c").unwrap_err();
        receiver.try_recv().unwrap_err();
        let task = spawn(move || sender.send("d"));
        assert_eq!(receiver.recv(), Ok("d"));
        task.join().unwrap().unwrap();
        let text = while_panicking(|| sleep(Duration::from_millis(1)).unwrap_err().to_string());
        assert_eq!(text, "the call would have to wait, and its task is panicking");
    });
}

#[test]
fn a_join_while_panicking_is_refused_and_hands_its_handle_back() {
    on_tasks_and_threads(|| {
        let (end, ends) = channel::bounded(0);
        let task = spawn(move || ends.recv().unwrap());
        let id = task.task().id();
        let error = while_panicking(move || task.join()).unwrap_err();
        assert_eq!(error.to_string(), "the call would have to wait, and its task is panicking");
        let JoinError::Cancelled(cancelled, task) = error else { panic!("{error:?}") };
        assert!(cancelled.is_panicking());
        assert_eq!(task.task().id(), id);
        end.send(7).unwrap();
        assert_eq!(task.join().unwrap(), 7);

        // One that has finished needs no waiting.
        let task = spawn(|| 8);
        until(|| task.is_finished());
        assert_eq!(while_panicking(move || task.join()).unwrap(), 8);
    });
}

#[test]
fn a_select_while_panicking_is_refused_by_its_first_arm() {
    on_tasks_and_threads(|| {
        let (sender, receiver) = channel::bounded::<u32>(0);
        let (other, others) = channel::bounded::<u32>(0);
        let clone = others.clone();
        let received = while_panicking(move || {
            select! {
                recv(clone) -> message => message,
                timeout(PATIENCE) => Ok(0),
            }
        });
        assert!(matches!(received, Err(RecvError::Cancelled(cancelled)) if cancelled.is_panicking()));

        let clone = sender.clone();
        let (sent, message) = while_panicking(move || {
            let mut message = Some(7);
            let sent = select! {
                send(clone, message) -> sent => sent,
                recv(others) -> _ => Ok(()),
            };
            (sent, message)
        });
        assert!(matches!(sent, Err(SendError::Cancelled(7, _))));
        assert_eq!(message, None);

        let (end, ends) = channel::bounded::<()>(0);
        let task = spawn(move || ends.recv().unwrap_err());
        let (joined, place) = while_panicking(move || {
            let mut task = Some(task);
            let joined = select! {
                join(task) -> joined => joined,
            };
            (joined, task.is_some())
        });
        let Err(JoinError::Cancelled(_, task)) = joined else { panic!("{joined:?}") };
        assert!(!place, "the arm has the handle");
        drop(end);
        task.join().unwrap();

        // What is ready is done.
        let (ready, message) = channel::unbounded();
        ready.send(9).unwrap();
        let received = while_panicking(move || {
            let mut never = None;
            select! {
                send(other, never) -> _ => Ok(0),
                recv(message) -> message => message,
            }
        });
        assert_eq!(received, Ok(9));
        let defaulted = while_panicking(move || {
            select! {
                recv(receiver) -> _ => false,
                default => true,
            }
        });
        assert!(defaulted);
    });
}

#[test]
fn an_arm_whose_place_is_empty_leaves_the_refusal_to_the_next() {
    on_tasks_and_threads(|| {
        let received = while_panicking(|| {
            let (sender, receiver) = channel::bounded::<u32>(0);
            let mut nothing = None;
            select! {
                send(sender, nothing) -> _ => Ok(0),
                recv(receiver) -> message => message,
            }
        });
        assert!(matches!(received, Err(RecvError::Cancelled(cancelled)) if cancelled.is_panicking()));
    });
}

#[test]
fn what_needs_no_waiting_is_done_while_panicking() {
    on_tasks_and_threads(|| {
        let (stream, mut peer) = pair();
        peer.write_all(b"hello").unwrap();
        until(|| stream.peek(&mut [0; 16]).unwrap() == 5);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let _queued = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (sender, receiver) = channel::bounded(1);
        let spawned = Arc::new(AtomicBool::new(false));
        let clone = spawned.clone();
        let done = while_panicking(move || {
            let mut buf = [0; 16];
            let read = (&stream).read(&mut buf).ok();
            let wrote = (&stream).write(b"bye").ok();
            let accepted = listener.accept().is_ok();
            let sent = sender.send(1).is_ok();
            let received = receiver.recv().ok();
            drop(spawn(move || clone.store(!thread::panicking(), Ordering::SeqCst)));
            let named = Builder::new().name("late".to_owned()).spawn(|| ()).is_ok();
            (read, wrote, accepted, sent, received, named, unblock(|| thread::current().id() == thread::current().id()))
        });
        assert_eq!(done, (Some(5), Some(3), true, true, Some(1), true, true));
        let mut text = String::new();
        peer.read_to_string(&mut text).unwrap();
        assert_eq!(text, "bye");
        until(|| spawned.load(Ordering::SeqCst));
    });
}

#[test]
fn a_task_that_unwinds_lets_no_other_run() {
    on_each_poller(|| {
        let turns = Arc::new(AtomicUsize::new(0));
        let over = Arc::new(AtomicBool::new(false));
        // As many of them as it takes for one to be on the same worker.
        let others: Vec<_> = (0..4)
            .map(|_| {
                let (turns, over) = (turns.clone(), over.clone());
                let turn = move || {
                    while !over.load(Ordering::Relaxed) {
                        assert!(!thread::panicking());
                        turns.fetch_add(1, Ordering::Relaxed);
                        yield_now();
                    }
                };
                spawn_local(turn)
            })
            .collect();
        let task = spawn_local({
            let (mine, (sender, receiver)) = (thread::current().id(), channel::unbounded());
            let turns = turns.clone();
            move || {
                let _on_drop = OnDrop(Some(move || {
                    let before = turns.load(Ordering::Relaxed);
                    for n in 0..1000 {
                        _ = sender.send(n);
                        _ = receiver.recv();
                        yield_now();
                    }
                    // A panic here would abort the process, and the test with it.
                    assert_eq!(turns.load(Ordering::Relaxed), before);
                    assert_eq!(thread::current().id(), mine);
                }));
                panic_with("unwinding");
            }
        });
        task.join().map(|never: ()| never).unwrap_err();
        let seen = turns.load(Ordering::Relaxed);
        until(|| turns.load(Ordering::Relaxed) > seen);
        over.store(true, Ordering::Relaxed);
        others.into_iter().for_each(|task| task.join().unwrap());
    });
}

#[test]
fn what_a_task_holds_when_it_panics_is_dropped_and_wakes_who_waits() {
    on_tasks_and_threads(|| {
        let (stream, mut peer) = pair();
        let (sender, receiver) = channel::bounded::<()>(0);
        let (other, others) = channel::bounded::<()>(0);
        let (go, gone) = channel::bounded::<()>(0);
        let holder = spawn(move || {
            let _held = (stream, sender, others);
            gone.recv().unwrap();
            panic_with("with its hands full")
        });
        let read = spawn(move || peer.read(&mut [0; 16]));
        let receive = spawn(move || receiver.recv());
        let send = spawn(move || other.send(()));
        until_parked(&read, "read");
        until_parked(&receive, "recv");
        until_parked(&send, "send");
        go.send(()).unwrap();
        holder.join().map(|never: ()| never).unwrap_err();
        assert_eq!(read.join().unwrap().unwrap(), 0);
        assert_eq!(receive.join().unwrap(), Err(RecvError::Disconnected));
        assert_eq!(send.join().unwrap(), Err(SendError::Disconnected(())));
    });
}

#[test]
fn a_plain_thread_may_wait_while_it_panics() {
    let _watchdog = watchdog();
    let (sender, receiver) = channel::bounded(0);
    let (tell, told) = mpsc::channel();
    let panicking = thread::spawn(move || {
        let _on_drop = OnDrop(Some(move || tell.send(receiver.recv()).unwrap()));
        panic_with("unwinding");
    });
    sender.send(7).unwrap();
    panicking.join().map(|never: ()| never).unwrap_err();
    assert_eq!(told.recv().unwrap(), Ok(7));
}

#[test]
fn a_runtime_that_is_shut_down_while_panicking_does_not_wait_for_its_tasks() {
    alone("a_runtime_that_is_shut_down_while_panicking_does_not_wait_for_its_tasks", || {
        let runtime = Runtime::builder().workers(1).build().unwrap();
        let (end, ends) = channel::bounded::<()>(0);
        let task = runtime.spawn(move || ends.recv().unwrap_err());
        let left = while_panicking(move || runtime.shutdown(PATIENCE)).unwrap_err();
        assert_eq!(left.tasks(), 1);
        drop(end);
        task.join().unwrap();
        while_panicking(move || drop(Runtime::builder().workers(1).build()));
    });
}
