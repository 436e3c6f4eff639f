//! Tasks: spawning and joining, names and numbers, stacks, yielding, sleeping, where they run and stay, what a dump says
//! of them, and what many of them cost. Panics are in `panics.rs`, overflowing stacks in `overflow.rs`.

mod common;
mod watching;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io::{Read, Write};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, ThreadId};

use towpath::net::TcpListener;
use towpath::sync::channel;
use towpath::task::{self, Builder, JoinHandle, spawn_local, yield_now};
use towpath::time::{Duration, Instant, sleep, sleep_until};
use towpath::{Runtime, spawn};

use common::{alone, on_each_poller, on_tasks_and_threads, on_thread, pair, skip, until, watchdog};
use watching::{memory, until_parked};

fn here() -> ThreadId {
    thread::current().id()
}

/// A log that several tasks write to.
type Log<T> = Arc<Mutex<Vec<T>>>;

fn log<T>() -> Log<T> {
    Arc::default()
}

fn taken<T>(log: &Log<T>) -> Vec<T> {
    std::mem::take(&mut log.lock().unwrap())
}

#[test]
fn join_returns_what_the_task_returned() {
    on_tasks_and_threads(|| {
        let handles: Vec<_> = (0..100).map(|i| spawn(move || vec![i; i])).collect();
        for (i, handle) in handles.into_iter().enumerate() {
            assert_eq!(handle.join().unwrap(), vec![i; i]);
        }
        let nested = spawn(|| spawn(|| spawn(|| 7).join().unwrap() + 1).join().unwrap() + 1);
        assert_eq!(nested.join().unwrap(), 9);
    });
}

#[test]
fn join_waits_for_the_end() {
    on_tasks_and_threads(|| {
        let (end, ends) = channel::bounded(1);
        let task = spawn(move || ends.recv());
        until_parked(&task, "recv");
        assert!(!task.is_finished());
        let joining = spawn(|| task.join().unwrap());
        until_parked(&joining, "join");
        end.send("now").unwrap();
        assert_eq!(joining.join().unwrap(), Ok("now"));
    });
}

#[test]
fn a_finished_task_is_joined_later_and_by_anybody() {
    on_tasks_and_threads(|| {
        let task = spawn(|| 1);
        until(|| task.is_finished());
        assert_eq!(on_thread(|| task.join().unwrap()).join().unwrap(), 1);
        let task = spawn(|| 2);
        assert_eq!(thread::scope(|s| s.spawn(|| 3).join().unwrap()), 3);
        assert_eq!(spawn(|| task.join().unwrap()).join().unwrap(), 2);
    });
}

#[test]
fn tasks_of_one_worker_start_in_the_order_they_were_spawned_in() {
    fn in_order(spawn_one: impl Fn(Box<dyn FnOnce() + Send>) -> JoinHandle<()>) {
        let order = log();
        let note = |i| {
            let order = order.clone();
            spawn_one(Box::new(move || order.lock().unwrap().push(i)))
        };
        let spawned: Vec<_> = (0..1000).map(note).collect();
        spawned.into_iter().for_each(|task| task.join().unwrap());
        assert!(taken(&order).into_iter().eq(0..1000));
    }
    let _watchdog = watchdog();
    let runtime = Runtime::builder().workers(1).build().unwrap();
    in_order(|f| runtime.spawn(f));
    runtime.run(|| in_order(spawn));
    runtime.run(|| in_order(|f| spawn_local(f)));
}

#[test]
fn a_task_has_a_number_and_the_name_it_was_given() {
    on_tasks_and_threads(|| {
        let ids = |task: &JoinHandle<_>| task.task().id();
        let named = Builder::new().name("reader".to_owned()).spawn(|| task::current().unwrap()).unwrap();
        let unnamed = spawn(|| task::current().unwrap());
        assert!(ids(&named) < ids(&unnamed));
        assert_eq!(named.task().name(), Some("reader"));
        assert_eq!(unnamed.task().name(), None);
        assert!(named.task().id().to_string().starts_with('#'));
        assert!(format!("{named:?}").contains("reader"), "{named:?}");
        for handle in [named, unnamed] {
            let (id, name) = (ids(&handle), handle.task().name().map(str::to_owned));
            let inside = handle.join().unwrap();
            assert_eq!((inside.id(), inside.name()), (id, name.as_deref()));
        }
    });
    assert!(task::current().is_none());
}

/// Takes up about `kib` of stack, page by page.
fn dig(kib: usize) -> usize {
    let page = std::hint::black_box([0u8; 2048]);
    if kib <= 2 { page.len() } else { dig(kib - 2) + usize::from(page[kib % 2048]) }
}

#[test]
fn a_stack_is_as_large_as_was_asked_for() {
    on_tasks_and_threads(|| {
        let deep = Builder::new().stack_size(4 << 20).spawn(|| dig(1 << 10)).unwrap();
        let small = Builder::new().stack_size(32 << 10).spawn(|| dig(4)).unwrap();
        let usual = spawn(|| dig(100));
        assert_eq!((deep.join().unwrap(), small.join().unwrap(), usual.join().unwrap()), (2048, 2048, 2048));
    });
}

#[test]
fn a_task_that_gets_no_stack_ends_as_if_it_had_panicked_and_drops_what_it_captured() {
    // The limit is the process's.
    alone("a_task_that_gets_no_stack_ends_as_if_it_had_panicked_and_drops_what_it_captured", || {
        let pages: u64 =
            std::fs::read_to_string("/proc/self/statm").unwrap().split(' ').next().unwrap().parse().unwrap();
        let most = Some(pages * rustix::param::page_size() as u64 + (512 << 20));
        let limit = rustix::process::Rlimit { current: most, maximum: most };
        rustix::process::setrlimit(rustix::process::Resource::As, limit).unwrap();
        let captured = Arc::new(());
        let held = captured.clone();
        let large = Builder::new().stack_size(1 << 30).spawn(move || drop(held)).unwrap();
        let id = large.task().id();
        let panic = large.join().unwrap_err().into_panic();
        let message = panic.downcast_ref::<String>().unwrap();
        assert!(message.starts_with(&format!("no stack for task {id}: mmap of 1048576 KiB")), "{message}");
        assert_eq!(Arc::strong_count(&captured), 1);
        spawn(|| ()).join().unwrap(); // its worker goes on
    });
}

#[test]
fn a_stack_size_out_of_range_is_invalid_input() {
    on_tasks_and_threads(|| {
        for (size, said) in [
            (0, "a stack of 0 bytes is too small: the least is 32 KiB"),
            ((32 << 10) - 1, "a stack of 32767 bytes is too small: the least is 32 KiB"),
            ((1 << 30) + 1, "a stack of 1073741825 bytes is too large: the most is 1024 MiB"),
        ] {
            let error = Builder::new().stack_size(size).spawn(|| ()).unwrap_err();
            assert_eq!((error.kind(), error.to_string().as_str()), (std::io::ErrorKind::InvalidInput, said));
        }
    });
    on_each_poller(|| {
        let error = Builder::new().stack_size(1).spawn_local(|| ()).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
    });
}

#[test]
fn spawn_local_takes_and_returns_what_may_not_leave_its_thread() {
    on_each_poller(|| {
        let shared = Rc::new(RefCell::new(vec![0]));
        let tasks: Vec<JoinHandle<Rc<RefCell<Vec<i32>>>>> = (1..4)
            .map(|i| {
                let shared = shared.clone();
                spawn_local(move || {
                    yield_now();
                    shared.borrow_mut().push(i);
                    shared
                })
            })
            .collect();
        for task in tasks {
            assert!(Rc::ptr_eq(&task.join().unwrap(), &shared));
        }
        assert_eq!(*shared.borrow(), [0, 1, 2, 3]);
        assert_eq!(Rc::strong_count(&shared), 1);

        let thread = here();
        let named = Builder::new().name("local".to_owned()).stack_size(64 << 10);
        let same = named.spawn_local(move || (here() == thread, task::current().unwrap().name().map(str::to_owned)));
        assert_eq!(same.unwrap().join().unwrap(), (true, Some("local".to_owned())));
    });
}

#[test]
fn what_a_local_task_leaves_is_dropped_on_its_own_thread() {
    struct Here {
        born: ThreadId,
        _alive: Rc<()>,
    }
    impl Drop for Here {
        fn drop(&mut self) {
            assert_eq!(self.born, here());
        }
    }
    on_each_poller(|| {
        let alive = Rc::new(());
        let value = |alive: &Rc<()>| Here { born: here(), _alive: alive.clone() };
        // The handle goes first, or last.
        for first in [true, false] {
            let here = value(&alive);
            let task = spawn_local(move || here);
            if first {
                drop(task);
            } else {
                until(|| task.is_finished());
                drop(task);
            }
            until(|| Rc::strong_count(&alive) == 1);
        }
    });
}

#[test]
fn spawn_local_outside_a_task_panics() {
    let panic = thread::spawn(|| drop(spawn_local(|| ()))).join().unwrap_err();
    let message = panic.downcast_ref::<&str>().copied().or(panic.downcast_ref::<String>().map(String::as_str));
    assert_eq!(message, Some("spawn_local is for tasks: on a plain thread there is no worker to stay on"));
    thread::spawn(|| drop(Builder::new().spawn_local(|| ()))).join().unwrap_err();
}

#[test]
fn yielding_lets_each_ready_task_run_once() {
    on_each_poller(|| {
        let order = log();
        let tasks = [0, 1, 2].map(|i| {
            let order = order.clone();
            spawn_local(move || {
                for _ in 0..100 {
                    order.lock().unwrap().push(i);
                    yield_now();
                }
            })
        });
        tasks.into_iter().for_each(|task| task.join().unwrap());
        assert_eq!(taken(&order), [0, 1, 2].repeat(100));
    });
    yield_now(); // on a plain thread as well
}

/// Makes `call` 1,000 times, and returns how often another task of this worker ran meanwhile, and after how many calls in
/// a row at most.
fn turns_of_others(mut call: impl FnMut()) -> (usize, usize) {
    let (turns, over) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(false)));
    let other = spawn_local({
        let (turns, over) = (turns.clone(), over.clone());
        move || {
            while !over.get() {
                turns.set(turns.get() + 1);
                yield_now();
            }
        }
    });
    yield_now();
    let first = turns.get();
    let (mut seen, mut in_a_row, mut longest) = (first, 0, 0);
    for _ in 0..1000 {
        call();
        in_a_row = if turns.get() == seen { in_a_row + 1 } else { 0 };
        seen = turns.get();
        longest = longest.max(in_a_row);
    }
    over.set(true);
    other.join().unwrap();
    (seen - first, longest)
}

/// Sees to it that others run in the midst of calls none of which has to wait.
fn is_fair(what: &str, call: impl FnMut()) {
    let (turns, in_a_row) = turns_of_others(call);
    assert!(turns >= 1000 / 65 && in_a_row <= 64, "{what}: others ran {turns} times, after {in_a_row} calls at most");
}

#[test]
fn a_task_that_never_has_to_wait_does_not_starve_the_others() {
    on_each_poller(|| {
        let (stream, mut peer) = pair();
        peer.write_all(&[b'.'; 2000]).unwrap();
        until(|| stream.peek(&mut [0; 2000]).unwrap() == 2000);
        is_fair("read", || assert_eq!((&stream).read(&mut [0]).unwrap(), 1));
        is_fair("peek", || assert_eq!(stream.peek(&mut [0]).unwrap(), 1));
        is_fair("write", || assert_eq!((&stream).write(b".").unwrap(), 1));
        is_fair("write_all", || (&stream).write_all(b".").unwrap());
        stream.set_nonblocking(true).unwrap();
        (&stream).read_exact(&mut [0; 1000]).unwrap();
        is_fair("read that would block", || assert!((&stream).read(&mut [0; 2]).is_err()));

        let (sender, receiver) = channel::unbounded();
        is_fair("send", || sender.send(()).unwrap());
        is_fair("recv", || receiver.recv().unwrap());
        is_fair("select", || {
            let mut message = Some(());
            towpath::select! {
                send(sender, message) -> sent => sent.unwrap(),
            }
        });
    });
}

#[test]
fn a_task_that_computes_and_yields_does_not_keep_the_poller_waiting() {
    on_each_poller(|| {
        let (mut stream, mut peer) = pair();
        let reader = spawn_local(move || stream.read(&mut [0]).unwrap());
        until_parked(&reader, "read");
        peer.write_all(b".").unwrap();
        let mut yields = 0;
        while !reader.is_finished() {
            let began = Instant::now();
            while began.elapsed() < Duration::from_millis(1) {}
            yield_now();
            yields += 1;
        }
        // The clock is read after the 64th task of a turn.
        assert!(yields <= 70, "{yields}");
    });
}

#[test]
fn a_call_that_never_waits_never_lets_others_run() {
    on_each_poller(|| {
        let (sender, receiver) = channel::bounded(2);
        let mut finished = spawn(|| ());
        until(|| finished.is_finished());
        let turns = turns_of_others(|| {
            sender.try_send(()).unwrap();
            let mut message = Some(());
            towpath::select! {
                send(sender, message) -> sent => sent.unwrap(),
                default => panic!("there is room"),
            }
            sender.try_send(()).unwrap_err();
            assert_eq!(receiver.try_iter().count(), 2);
            receiver.try_recv().unwrap_err();
            finished = spawn(|| ());
            finished.is_finished();
        });
        assert_eq!(turns, (0, 1000));
    });
}

#[test]
fn a_listener_that_always_has_a_connection_does_not_starve_the_others() {
    on_each_poller(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        // The peers are std's: to connect does not park.
        is_fair("accept", || {
            let _peer = std::net::TcpStream::connect(addr).unwrap();
            listener.accept().unwrap();
        });
    });
}

#[test]
fn sleep_is_never_early() {
    on_tasks_and_threads(|| {
        for micros in [0, 1, 300, 999, 1000, 1001, 2500, 7999] {
            let (start, asked) = (std::time::Instant::now(), Duration::from_micros(micros));
            sleep(asked).unwrap();
            assert!(start.elapsed() >= asked, "asked for {asked:?}, slept {:?}", start.elapsed());
        }
        let deadline = Instant::now() + Duration::from_millis(3);
        sleep_until(deadline).unwrap();
        assert!(Instant::now() >= deadline);
        sleep_until(deadline).unwrap(); // past: at once
    });
}

#[test]
fn sleepers_wake_in_the_order_of_their_deadlines() {
    on_each_poller(|| {
        // All have to be asleep by the first deadline: on a busy machine that may take more than one attempt.
        let in_time = [20, 100, 500, 2_500, 12_500].into_iter().any(|lead| {
            let order = log();
            let start = Instant::now() + Duration::from_millis(lead);
            // Each time a new one, and each number below 101 once: 101 is a prime.
            let numbers = (1..101).map(|i| i * 37 % 101);
            let tasks: Vec<_> = numbers
                .map(|i| {
                    let order = order.clone();
                    spawn_local(move || {
                        sleep_until(start + Duration::from_micros(100 * i)).unwrap();
                        order.lock().unwrap().push(i);
                    })
                })
                .collect();
            let in_time = spawn_local(move || Instant::now() < start).join().unwrap(); // they are all asleep when it starts
            tasks.into_iter().for_each(|task| task.join().unwrap());
            assert!(!in_time || taken(&order).into_iter().eq(1..101));
            in_time
        });
        assert!(in_time);
    });
}

#[test]
fn a_task_whose_handle_is_dropped_runs_on() {
    on_tasks_and_threads(|| {
        let (tell, told) = channel::bounded(0);
        let task = spawn(move || {
            tell.send("alive").unwrap();
            tell.send("well").unwrap();
        });
        until_parked(&task, "send");
        drop(task);
        assert_eq!((told.recv(), told.recv()), (Ok("alive"), Ok("well")));
    });
}

/// Tells, when it is dropped, in which task that was.
struct Told(channel::Sender<Option<task::TaskId>>);

impl Drop for Told {
    fn drop(&mut self) {
        self.0.send(task::current().map(|task| task.id())).unwrap();
    }
}

#[test]
fn a_result_that_nobody_wants_is_dropped_by_its_task() {
    on_tasks_and_threads(|| {
        let (tell, told) = channel::unbounded();
        let (go, gone) = channel::bounded::<()>(0);
        let result = Told(tell);
        let task = spawn(move || {
            gone.recv().unwrap();
            result
        });
        let id = task.task().id();
        drop(task);
        go.send(()).unwrap();
        assert_eq!(told.recv(), Ok(Some(id)));

        // A destructor may wait, for it runs in its task.
        let (go, gone) = channel::bounded::<()>(0);
        struct Waits(channel::Receiver<()>, channel::Sender<&'static str>);
        impl Drop for Waits {
            fn drop(&mut self) {
                self.0.recv().unwrap();
                self.1.send("dropped").unwrap();
            }
        }
        let (tell, told) = channel::bounded(1);
        drop(spawn(move || {
            gone.recv().unwrap(); // the handle is dropped first
            Waits(gone, tell)
        }));
        go.send(()).unwrap();
        go.send(()).unwrap();
        assert_eq!(told.recv(), Ok("dropped"));
    });
}

#[test]
fn a_result_that_is_not_joined_is_dropped_with_the_handle() {
    on_tasks_and_threads(|| {
        let (tell, told) = channel::unbounded();
        let result = Told(tell);
        let task = spawn(move || result);
        until(|| task.is_finished());
        assert!(told.is_empty());
        let dropper = task::current().map(|task| task.id());
        drop(task);
        assert_eq!(told.recv(), Ok(dropper));
    });
}

#[test]
fn a_task_that_has_started_stays_on_its_thread() {
    let _watchdog = watchdog();
    let runtime = Runtime::builder().workers(2).build().unwrap();
    runtime.run(|| {
        // A worker that is given no processor for a while may lose its tasks to the other before they have started.
        assert!((0..5).any(|_| on_each(tempted()).len() == 2), "both workers had tasks");
    });
}

/// Tasks whose partners on both workers and on plain threads tempt each of them to move: the wake-ups come from all over.
fn tempted() -> Vec<JoinHandle<ThreadId>> {
    let (sender, receiver) = channel::bounded(0);
    let mut tasks = Vec::new();
    for _ in 0..8 {
        let (sender, receiver, (mut stream, mut peer)) = (sender.clone(), receiver.clone(), pair());
        tasks.push(spawn(move || {
            let thread = here();
            for n in 0..100 {
                sender.send(n).unwrap();
                assert_eq!(here(), thread);
                stream.write_all(b"x").unwrap();
                stream.read_exact(&mut [0]).unwrap();
                assert_eq!(here(), thread);
                if n % 10 == 0 {
                    sleep(Duration::from_micros(100)).unwrap();
                    assert_eq!(here(), thread);
                }
                spawn(yield_now).join().unwrap();
                assert_eq!(here(), thread);
                on_thread(yield_now).join().unwrap();
                assert_eq!(here(), thread);
            }
            thread
        }));
        tasks.push(spawn(move || {
            let thread = here();
            for _ in 0..100 {
                receiver.recv().unwrap();
                assert_eq!(here(), thread);
                peer.read_exact(&mut [0]).unwrap();
                assert_eq!(here(), thread);
                peer.write_all(b"y").unwrap();
                yield_now();
                assert_eq!(here(), thread);
            }
            thread
        }));
    }
    tasks
}

/// Asserts that of 200 tasks each of two workers has its half, give or take 10 %, in one of a few attempts: a worker that is
/// given no processor for a while looks as if it computed, and then the other takes what it has not started.
fn assert_balanced(mut attempt: impl FnMut() -> Vec<JoinHandle<ThreadId>>) {
    let mut uneven = Vec::new();
    for _ in 0..5 {
        let on_each = on_each(attempt());
        if on_each.len() == 2 && on_each.values().all(|n| (90..=110).contains(n)) {
            return;
        }
        uneven.push(on_each);
    }
    panic!("{uneven:?}");
}

/// How many tasks each thread has run.
fn on_each(tasks: Vec<JoinHandle<ThreadId>>) -> HashMap<ThreadId, usize> {
    let mut on_each = HashMap::new();
    tasks.into_iter().for_each(|task| *on_each.entry(task.join().unwrap()).or_default() += 1);
    on_each
}

/// 200 tasks that have parked and then end, spawned as `spawn_all` does it.
fn parked(
    spawn_all: impl FnOnce(&dyn Fn() -> JoinHandle<ThreadId>) -> Vec<JoinHandle<ThreadId>>,
) -> Vec<JoinHandle<ThreadId>> {
    let (_end, ends) = channel::bounded::<()>(0);
    let arrived = Arc::new(AtomicUsize::new(0));
    let park = || {
        let (ends, arrived) = (ends.clone(), arrived.clone());
        spawn(move || {
            arrived.fetch_add(1, Ordering::Relaxed);
            ends.recv().unwrap_err();
            here()
        })
    };
    let tasks = spawn_all(&park);
    until(|| arrived.load(Ordering::Relaxed) == 200);
    tasks
}

#[test]
fn long_lived_tasks_spread_over_the_workers_also_if_one_task_spawns_them_all() {
    let _watchdog = watchdog();
    let runtime = Runtime::builder().workers(2).build().unwrap();
    runtime.run(|| assert_balanced(|| parked(|park| (0..200).map(|_| park()).collect())));
    // Also with pauses in which the spawned ones run.
    runtime.run(|| {
        assert_balanced(|| {
            parked(|park| {
                let park_and_yield = |_| {
                    let task = park();
                    yield_now();
                    task
                };
                (0..200).map(park_and_yield).collect()
            })
        });
    });
    runtime.shutdown(Duration::from_secs(20)).unwrap();
}

#[test]
fn connections_spread_over_the_workers_though_one_task_accepts_them_all() {
    let _watchdog = watchdog();
    let runtime = Runtime::builder().workers(2).build().unwrap();
    runtime.run(|| {
        assert_balanced(|| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let addr = listener.local_addr().unwrap();
            let clients =
                on_thread(move || (0..200).map(|_| std::net::TcpStream::connect(addr).unwrap()).collect::<Vec<_>>());
            let started = Arc::new(AtomicUsize::new(0));
            let accept = || {
                let (mut stream, _) = listener.accept().unwrap();
                let started = started.clone();
                spawn(move || {
                    let thread = here();
                    started.fetch_add(1, Ordering::Relaxed);
                    assert_eq!(stream.read(&mut [0; 16]).unwrap(), 0);
                    assert_eq!(here(), thread);
                    thread
                })
            };
            let tasks: Vec<_> = (0..200).map(|_| accept()).collect();
            until(|| started.load(Ordering::Relaxed) == 200); // one that starts when others have ended may do so elsewhere
            drop(clients.join().unwrap());
            tasks
        });
    });
}

#[test]
fn a_dump_says_what_each_task_waits_for() {
    on_tasks_and_threads(|| {
        let (stream, _peer) = pair();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (fd, listening) = (std::os::fd::AsRawFd::as_raw_fd(&stream), std::os::fd::AsRawFd::as_raw_fd(&listener));
        let (sender, receiver) = channel::bounded::<()>(0);
        let (reads, accepts) = (stream.try_clone().unwrap(), listener.try_clone().unwrap());
        let (other, others) = channel::bounded::<()>(0);

        let read = Builder::new().name("r".to_owned()).spawn(move || drop((&reads).read(&mut [0; 16]))).unwrap();
        let accept = spawn(move || drop(accepts.accept()));
        let recv = spawn(move || _ = receiver.recv());
        let send = spawn(move || _ = other.send(()));
        let over = Arc::new(AtomicBool::new(false));
        let sleeping = over.clone();
        let late = spawn(move || {
            while !sleeping.load(Ordering::Relaxed) {
                sleep(Duration::from_millis(20)).unwrap();
            }
        });
        let (end, ends) = channel::bounded::<()>(0);
        let select = spawn(move || {
            towpath::select! {
                recv(ends) -> end => end.unwrap_err(),
                timeout(common::PATIENCE) => panic!("nobody ended it"),
            };
        });
        let ids = [&read, &accept, &recv, &send, &late, &select].map(|task| task.task().id());
        let join = spawn(move || [late, select].into_iter().for_each(|task| task.join().unwrap()));
        let expected = [
            ("read", Some(fd)),
            ("accept", Some(listening)),
            ("recv", None),
            ("send", None),
            ("sleep", None),
            ("select", None),
            ("join", None),
        ];
        for (id, (operation, fd)) in ids.into_iter().chain([join.task().id()]).zip(expected) {
            until(|| {
                let dump = task::dump();
                let info = dump.tasks().iter().find(|task| task.id() == id);
                info.is_some_and(|task| task.operation() == Some(operation) && task.fd() == fd)
            });
        }
        let dump = task::dump();
        let info = dump.tasks().iter().find(|task| task.name() == Some("r")).unwrap();
        assert_eq!(info.id(), read.task().id());
        assert!(info.spawned_at().file().ends_with("tasks.rs"));
        assert!(info.waiting_for().is_some());
        let line = info.to_string();
        assert!(line.starts_with(&format!("{} r waiting read {fd} ", info.id())), "{line}");
        assert!(line.contains("tasks.rs:"), "{line}");
        assert!(dump.tasks().is_sorted_by_key(|task| task.id()));
        assert_eq!(dump.to_string().lines().count(), 1 + dump.tasks().len() + dump.silent().count());

        stream.close().unwrap();
        listener.close().unwrap();
        over.store(true, Ordering::Relaxed);
        drop((sender, others, end));
        [read, accept, recv, send, join].into_iter().for_each(|task| task.join().unwrap());
    });
}

#[test]
fn a_dump_says_running_of_a_task_that_does_not_wait() {
    on_each_poller(|| {
        sleep(Duration::from_millis(1)).unwrap(); // it has waited, and does no more
        let dump = task::dump();
        let me = task::current().unwrap().id();
        let info = dump.tasks().iter().find(|task| task.id() == me).unwrap();
        assert_eq!((info.operation(), info.fd(), info.waiting_for()), (None, None, None));
        assert!(info.to_string().starts_with(&format!("{me} - running - ")), "{info}");
        // One that has ended is not in it.
        let task = spawn(|| ());
        let id = task.task().id();
        task.join().unwrap();
        until(|| task::dump().tasks().iter().all(|task| task.id() != id));
    });
}

/// Whether a guard costs no mapping of its own: `MADV_GUARD_INSTALL`, Linux 6.13.
fn has_cheap_guards() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (6, 13)
}

#[test]
fn a_hundred_thousand_tasks_park_at_once() {
    const TASKS: usize = 100_000;
    if !has_cheap_guards() {
        return skip("before Linux 6.13 a process can have no more than 32,750 stacks");
    }
    alone("a_hundred_thousand_tasks_park_at_once", || {
        let runtime = Runtime::builder().workers(2).build().unwrap();
        runtime.run(|| {
            let (end, ends) = channel::bounded::<()>(0);
            let before = memory("VmRSS");
            let tasks: Vec<_> = (0..TASKS)
                .map(|n| {
                    let ends = ends.clone();
                    spawn(move || {
                        let buf = std::hint::black_box([n as u8; 1024]);
                        ends.recv().unwrap_err();
                        usize::from(std::hint::black_box(buf)[n % 1024])
                    })
                })
                .collect();
            until(|| tasks_in("recv") == TASKS);
            let each = (memory("VmRSS") - before) * 1024 / TASKS;
            let maps = std::fs::read_to_string("/proc/self/maps").unwrap().lines().count();
            println!("{TASKS} parked tasks: {each} bytes resident each, {maps} mappings");
            assert!(memory("VmSize") > TASKS * 256, "each has 256 KiB of address space");
            let page = rustix::param::page_size();
            assert!(each < 2 * page, "a parked task has {each} bytes resident");
            assert!(maps < 1000, "{maps} mappings");
            drop(end);
            let sum: usize = tasks.into_iter().map(|task| task.join().unwrap()).sum();
            assert_eq!(sum, (0..TASKS).map(|n| usize::from(n as u8)).sum());
            // What they held comes back by itself, a second after the last has ended.
            until(|| memory("VmRSS") < before + each * TASKS / 1024 / 5);
        });
    });
}

#[test]
fn what_a_deep_call_left_comes_back_while_the_task_is_parked() {
    const TASKS: usize = 100;
    alone("what_a_deep_call_left_comes_back_while_the_task_is_parked", || {
        let runtime = Runtime::builder().workers(1).build().unwrap();
        runtime.run(|| {
            let before = memory("VmRSS");
            let (end, ends) = channel::bounded::<()>(0);
            let tasks: Vec<_> = (0..TASKS)
                .map(|n| {
                    let ends = ends.clone();
                    spawn(move || {
                        let kept = std::hint::black_box([n as u8; 8000]);
                        assert_eq!(dig(200), 2048);
                        ends.recv().unwrap_err();
                        assert_eq!(std::hint::black_box(kept), [n as u8; 8000]);
                        dig(200)
                    })
                })
                .collect();
            until(|| tasks_in("recv") == TASKS);
            // Of 200 KiB each, a few pages are left, and of the program what it has run meanwhile.
            until(|| memory("VmRSS") < before + TASKS * 60);
            drop(end);
            tasks.into_iter().for_each(|task| assert_eq!(task.join().unwrap(), 2048));
        });
    });
}

#[test]
fn a_task_that_has_not_started_is_taken_by_an_idle_worker() {
    let _watchdog = watchdog();
    let runtime = Runtime::builder().workers(2).build().unwrap();
    runtime.run(|| {
        for count in [1, 2, 50] {
            let me = here();
            let ran = Arc::new(AtomicUsize::new(0));
            let tasks: Vec<_> = (0..count)
                .map(|_| {
                    let ran = ran.clone();
                    spawn(move || {
                        assert_ne!(here(), me, "that worker has never come to it");
                        ran.fetch_add(1, Ordering::Relaxed);
                    })
                })
                .collect();
            // This worker is held up until the other has done it all.
            until_without_waiting(|| ran.load(Ordering::Relaxed) == count);
            tasks.into_iter().for_each(|task| task.join().unwrap());
        }
    });
}

#[test]
fn also_by_one_that_has_more_tasks_already() {
    let _watchdog = watchdog();
    let runtime = Runtime::builder().workers(2).build().unwrap();
    runtime.run(|| {
        let me = here();
        let (end, ends) = channel::bounded::<()>(0);
        let started = Arc::new(AtomicUsize::new(0));
        let tasks: Vec<_> = (1..=30)
            .map(|count| {
                let (ends, counts) = (ends.clone(), started.clone());
                let stays = spawn(move || {
                    counts.fetch_add(1, Ordering::Relaxed);
                    ends.recv().unwrap_err();
                    here()
                });
                // Held up each time, this worker has one task, and the other ever more.
                until_without_waiting(|| started.load(Ordering::Relaxed) == count);
                stays
            })
            .collect();
        drop(end);
        tasks.into_iter().for_each(|task| assert_ne!(task.join().unwrap(), me));
    });
}

/// Holds the worker up until it is so.
fn until_without_waiting(mut is_so: impl FnMut() -> bool) {
    while !is_so() {
        thread::yield_now();
    }
}

fn tasks_in(operation: &str) -> usize {
    task::dump().tasks().iter().filter(|task| task.operation() == Some(operation)).count()
}

#[test]
fn rounds_of_tasks_that_come_and_go_leave_nothing_behind() {
    alone("rounds_of_tasks_that_come_and_go_leave_nothing_behind", || {
        let runtime = Runtime::builder().workers(2).build().unwrap();
        let round = || {
            let tasks: Vec<_> = (0..100).map(|n| runtime.spawn(move || dig(n % 50) + vec![1u8; 1000].len())).collect();
            tasks.into_iter().for_each(|task| assert_eq!(task.join().unwrap(), 3048));
        };
        (0..100).for_each(|_| round());
        let (before, size) = (memory("VmRSS"), memory("VmSize"));
        (0..1000).for_each(|_| round());
        let (after, size_after) = (memory("VmRSS"), memory("VmSize"));
        println!("resident: {before} KiB after 100 rounds, {after} after 1,100; mapped: {size}, {size_after}");
        // A leaked record is 200 bytes at least, times 100,000: 20 MB. A stack is 4 KiB.
        assert!(after < before + (5 << 10), "{before} KiB, then {after}");
        assert!(size_after < size + (64 << 10), "{size} KiB, then {size_after}");
    });
}

#[test]
fn a_task_that_blocks_its_worker_holds_up_that_one_only() {
    let _watchdog = watchdog();
    let runtime = Runtime::builder().workers(2).build().unwrap();
    runtime.run(|| {
        let (stop, stopped) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        // One of them is placed on the other worker, and blocks it until the rest has run here.
        let (tell, told) = std::sync::mpsc::channel::<()>();
        let me = here();
        let told = Arc::new(Mutex::new(Some(told)));
        let tasks: Vec<_> = (0..40)
            .map(|_| {
                let (told, stop, stopped) = (told.clone(), stop.clone(), stopped.clone());
                spawn(move || {
                    if here() != me {
                        let told = told.lock().unwrap().take();
                        told.into_iter().for_each(|told| {
                            told.recv().unwrap();
                            assert!(stop.load(Ordering::Relaxed));
                        });
                    }
                    stopped.fetch_add(1, Ordering::Relaxed);
                })
            })
            .collect();
        until(|| stopped.load(Ordering::Relaxed) >= 18);
        stop.store(true, Ordering::Relaxed);
        tell.send(()).unwrap();
        tasks.into_iter().for_each(|task| task.join().unwrap());
    });
}
