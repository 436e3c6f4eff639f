//! What a task dump tells: what each task waits on, for how long and until when, how deep its stack is, and by which calls
//! it came there; also of tasks whose worker does not answer, and without anybody noticing.

mod common;

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use rustix::net::sockopt;
use tinyjson::JsonValue;
use towpath::net::{TcpListener, TcpStream};
use towpath::sync::channel;
use towpath::task::{self, JoinHandle, TaskDump, TaskId, TaskInfo, TaskState, WaitsOn};
use towpath::time::{Duration, Instant, sleep};
use towpath::{Runtime, select, spawn};

use common::{alone, narrow_pair, on_each_poller, pair, pattern, until, watchdog};

fn find(dump: &TaskDump, id: TaskId) -> Option<&TaskInfo> {
    dump.tasks().iter().find(|task| task.id() == id)
}

/// What a dump says of a task once that waits in `operation`.
#[track_caller]
fn waiting_in(operation: &str, id: TaskId) -> TaskInfo {
    waiting_in_of(|| whole(task::dump), operation, id)
}

/// A dump to which all workers have answered: on a busy machine one may be given no processor for so long that it is not
/// waited for.
fn whole(dump: impl Fn() -> TaskDump) -> TaskDump {
    loop {
        let dump = dump();
        if dump.silent().next().is_none() {
            return dump;
        }
    }
}

fn waiting_in_of(dump: impl Fn() -> TaskDump, operation: &str, id: TaskId) -> TaskInfo {
    let found = std::cell::OnceCell::new();
    until(|| {
        let dump = dump();
        let task = find(&dump, id).unwrap_or_else(|| panic!("{id} was to wait in {operation}, and has ended"));
        task.operation() == Some(operation) && found.set(task.clone()).is_ok()
    });
    found.into_inner().unwrap()
}

/// What a dump says of the socket that a task waits on: descriptor, own address, the other's, cookie.
#[track_caller]
fn socket_of(task: &TaskInfo) -> (i32, Option<SocketAddr>, Option<SocketAddr>, Option<u64>) {
    match task.waits_on() {
        Some(WaitsOn::Socket(socket)) => (socket.fd, socket.local, socket.peer, socket.cookie),
        other => panic!("not a socket: {other:?}"),
    }
}

#[track_caller]
fn assert_on(task: &TaskInfo, socket: &impl AsFd, local: SocketAddr, peer: Option<SocketAddr>) {
    let cookie = sockopt::socket_cookie(socket).unwrap();
    assert_eq!(socket_of(task), (socket.as_fd().as_raw_fd(), Some(local), peer, Some(cookie)));
}

#[test]
fn a_wait_on_a_stream_names_both_ends() {
    on_each_poller(|| {
        let (a, b) = narrow_pair();
        let (local, peer) = (b.local_addr().unwrap(), b.peer_addr().unwrap());
        let read = spawn({
            let mut b = b.try_clone().unwrap();
            move || b.read(&mut [0; 8])
        });
        assert_on(&waiting_in("read", read.task().id()), &b, local, Some(peer));

        let writes = |a: &TcpStream| {
            let mut a = a.try_clone().unwrap();
            spawn(move || a.write_all(&[0; 300_000]))
        };
        let first = writes(&a);
        assert_on(&waiting_in("write", first.task().id()), &a, peer, Some(local));
        let second = writes(&a);
        assert_on(&waiting_in("write (another write first)", second.task().id()), &a, peer, Some(local));
        assert_eq!(waiting_in("write", first.task().id()).deadline(), None);

        a.close().unwrap();
        b.close().unwrap();
        drop((read.join(), first.join(), second.join()));
    });
}

#[test]
fn a_wait_to_accept_names_the_listener() {
    on_each_poller(|| {
        for addr in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(addr).unwrap();
            let accept = spawn({
                let listener = listener.try_clone().unwrap();
                move || drop(listener.accept())
            });
            let task = waiting_in("accept", accept.task().id());
            assert_on(&task, &listener, listener.local_addr().unwrap(), None);
            listener.close().unwrap();
            accept.join().unwrap();
        }
    });
}

#[test]
fn a_wait_to_connect_names_the_peer_it_has_not_got() {
    on_each_poller(|| {
        let silent = common::Silent::at(Ipv4Addr::LOCALHOST.into(), 0).unwrap();
        let addr = silent.addr;
        let connect = spawn(move || TcpStream::connect_timeout(&addr, Duration::from_secs(20)));
        let task = waiting_in("connect", connect.task().id());
        let (_, local, peer, cookie) = socket_of(&task);
        assert!(local.is_some_and(|local| local.ip() == addr.ip()) && cookie.is_some());
        assert_eq!(peer, None, "getpeername(2) has none before the connection is there");
        assert!(task.deadline().is_some());
        drop(silent.speak());
        drop(connect.join());
    });
}

#[test]
fn a_deadline_is_told_of_any_wait() {
    on_each_poller(|| {
        let begun = Instant::now();
        let (a, mut b) = pair();
        let deadline = begun + Duration::from_secs(600);
        b.set_read_deadline(Some(deadline)).unwrap();
        let read = spawn(move || b.read(&mut [0; 8]).unwrap());
        assert_eq!(waiting_in("read", read.task().id()).deadline(), Some(deadline));

        let (end, ends) = channel::bounded::<()>(0);
        let over = Arc::new(AtomicBool::new(false));
        let awake = over.clone();
        let asleep = spawn(move || {
            while !awake.load(Ordering::Relaxed) {
                sleep(Duration::from_secs(1)).unwrap();
            }
        });
        let task = waiting_in("sleep", asleep.task().id());
        assert!(task.waits_on().is_none());
        assert!(task.deadline().unwrap() >= begun + Duration::from_secs(1));
        // By the clock of the turn in which it began, which may have come before this test did.
        assert!(task.waiting_for().unwrap() < Duration::from_secs(600));
        let receive = spawn(move || ends.recv_deadline(deadline));
        assert_eq!(waiting_in("recv", receive.task().id()).deadline(), Some(deadline));
        drop((a, end));
        over.store(true, Ordering::Relaxed);
        assert_eq!(read.join().unwrap(), 0);
        drop((asleep.join(), receive.join()));
    });
}

#[test]
fn a_wait_on_a_channel_names_it_and_tells_how_full_it_is() {
    on_each_poller(|| {
        let (full, other) = channel::bounded(2);
        (0..2).for_each(|n| full.send(n).unwrap());
        let sends = |full: &channel::Sender<i32>| {
            let full = full.clone();
            spawn(move || full.send(2))
        };
        let channel_of = |operation, task: &JoinHandle<_>| match waiting_in(operation, task.task().id()).waits_on() {
            Some(WaitsOn::Channel(channel)) => (channel.id, channel.len, channel.capacity),
            other => panic!("not a channel: {other:?}"),
        };
        let senders = [sends(&full), sends(&full)];
        let [first, second] = [0, 1].map(|i| channel_of("send", &senders[i]));
        assert_eq!((first.1, first.2), (Some(2), Some(2)));
        assert_eq!(first, second);

        let (unbounded, empty) = channel::unbounded::<i32>();
        let receive = spawn(move || empty.recv().map_err(|_| channel::SendError::Disconnected(0)).map(drop));
        let third = channel_of("recv", &receive);
        assert_eq!((third.1, third.2), (Some(0), None));
        assert_ne!(first.0, third.0);
        drop((other, unbounded));
        senders.into_iter().for_each(|sender| drop(sender.join()));
        drop(receive.join());
    });
}

#[test]
fn a_join_names_the_task_and_a_select_its_arms() {
    on_each_poller(|| {
        let (end, ends) = channel::bounded::<()>(0);
        let last = spawn({
            let ends = ends.clone();
            move || until_end(&ends)
        });
        let awaited = last.task().id();
        let join = spawn(move || drop(last.join()));
        assert_eq!(waiting_in("join", join.task().id()).waits_on(), Some(&WaitsOn::Task(awaited)));

        let awaited = join.task().id();
        let (full, left) = channel::bounded::<u8>(0);
        let selects = spawn(move || {
            let (mut message, mut nothing, mut join) = (Some(1), None, Some(join));
            select! {
                recv(ends) -> _ => {}
                send(full, message) -> _ => {}
                send(full, nothing) -> _ => {}
                join(join) -> _ => {}
                timeout(Duration::from_secs(600)) => {}
            }
        });
        let task = waiting_in("select", selects.task().id());
        let Some(WaitsOn::Select(arms)) = task.waits_on() else { panic!("not a select: {task}") };
        let told: Vec<_> = arms.iter().map(|arm| arm.operation).collect();
        assert_eq!(told, ["recv", "send", "join"], "an arm that cannot go ahead is none");
        assert!(matches!(&arms[0].on, Some(WaitsOn::Channel(channel)) if channel.capacity == Some(0)));
        assert!(matches!(&arms[1].on, Some(WaitsOn::Channel(channel)) if channel.len == Some(0)));
        assert_eq!(arms[2].on, Some(WaitsOn::Task(awaited)));
        assert!(task.deadline().is_some_and(|deadline| deadline > Instant::now() + Duration::from_secs(500)));
        drop((end, left));
        selects.join().unwrap();
    });
}

#[test]
fn a_task_that_does_not_wait_runs_or_is_ready() {
    on_each_poller(|| {
        let over = Arc::new(AtomicBool::new(false));
        let yields = spawn({
            let over = over.clone();
            move || {
                while !over.load(Ordering::Relaxed) {
                    task::yield_now();
                }
            }
        });
        let me = task::current().unwrap().id();
        let fresh = spawn(|| ());
        let dump = task::dump();
        assert_eq!(find(&dump, me).unwrap().state(), TaskState::Running);
        assert_eq!(find(&dump, me).unwrap().stack().in_use, None);
        // The other two may be on another worker, which runs them. On this one they are ready.
        let here = find(&dump, me).unwrap().worker();
        for id in [yields.task().id(), fresh.task().id()] {
            if let Some(task) = find(&dump, id).filter(|task| task.worker() == here) {
                assert_eq!(task.state(), TaskState::Ready, "{task}");
                assert_eq!(task.operation(), None);
            }
        }
        over.store(true, Ordering::Relaxed);
        drop((yields.join(), fresh.join()));
    });
}

#[test]
fn a_task_that_an_idle_worker_takes_meanwhile_is_not_missed() {
    on_each_poller(|| {
        let missed = (0..2_000).filter(|_| {
            let (end, ends) = channel::bounded::<()>(1);
            let task = spawn(move || until_end(&ends));
            let missed = find(&task::dump(), task.task().id()).is_none();
            drop(end);
            task.join().unwrap();
            missed
        });
        assert_eq!(missed.count(), 0);
    });
}

/// Stacks go from one task to the next as quickly as can be, while a worker tells of more than it has time for at once: of
/// two tasks in one dump, one may have ended before the other was looked at, and left it its stack.
#[test]
fn a_stack_that_changes_hands_is_told_of_both() {
    on_each_poller(|| {
        const DUMPS: usize = 200;
        let (end, ends) = channel::bounded::<()>(1);
        let (end_early, ends_early) = channel::bounded::<()>(1);
        let parks = |n: usize| {
            let ends = if n.is_multiple_of(50) { &ends_early } else { &ends };
            let ends = ends.clone();
            spawn(move || until_end(&ends))
        };
        let (early, late): (Vec<_>, Vec<_>) =
            (0..6_000).map(|n| (n, parks(n))).partition(|(n, _)| n.is_multiple_of(50));
        drop(end_early);
        early.into_iter().for_each(|(_, task)| task.join().unwrap()); // the slots that are free now lie all over the table
        let over = Arc::new(AtomicBool::new(false));
        let spawns = || {
            let over = over.clone();
            spawn(move || {
                for turn in (0..).take_while(|_| !over.load(Ordering::Relaxed)) {
                    let yields = |n: usize| spawn(move || (0..(turn + n) % 5).for_each(|_| task::yield_now()));
                    let tasks: Vec<_> = (0..1 + turn % 14).map(yields).collect();
                    tasks.into_iter().for_each(|task| task.join().unwrap());
                }
            })
        };
        let spawners: Vec<_> = (0..4).map(|_| spawns()).collect();
        for _ in 0..DUMPS {
            let dump = task::dump();
            assert!(dump.tasks().len() > late.len());
            for task in dump.tasks() {
                let stack = task.stack();
                let within = stack.in_use <= stack.high_water && stack.high_water.is_none_or(|most| most <= stack.size);
                assert!(within, "{task}: {stack:?}");
            }
            task::yield_now();
        }
        over.store(true, Ordering::Relaxed);
        drop(end);
        spawners.into_iter().for_each(|spawner| spawner.join().unwrap());
        late.into_iter().for_each(|(_, task)| task.join().unwrap());
    });
}

/// Descriptors' numbers go from one task to the next as quickly as can be. Whatever is told of a task's socket must be of
/// the socket that this task waits on, which it always binds to an address of its own.
#[test]
fn a_number_that_changes_hands_is_never_told_with_a_wrong_address() {
    on_each_poller(|| {
        const TASKS: u8 = 6;
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let over = Arc::new(AtomicBool::new(false));
        let accepts = spawn({
            let listener = listener.try_clone().unwrap();
            move || while listener.accept().is_ok() {}
        });
        let connects = |n: u8| {
            let over = over.clone();
            let own = SocketAddr::new(IpAddr::from([127, 0, 7, n]), 0);
            spawn(move || {
                let mut rounds = 0;
                while !over.load(Ordering::Relaxed) {
                    let fd =
                        rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::STREAM, None);
                    let fd = fd.unwrap();
                    rustix::net::bind(&fd, &own).unwrap();
                    rustix::net::connect(&fd, &addr).unwrap(); // to this machine, and the queue is long
                    let mut stream = TcpStream::from(std::net::TcpStream::from(fd));
                    assert!(stream.read(&mut [0; 1]).is_ok_and(|n| n == 0)); // the other end is dropped as soon as accepted
                    rounds += 1;
                }
                rounds
            })
        };
        let tasks: Vec<_> = (1..=TASKS).map(connects).collect();
        let ids: Vec<_> = tasks.iter().map(|task| task.task().id()).collect();
        let (mut told, mut seen) = (0, [false; TASKS as usize]);
        let begun = Instant::now();
        while told < 200 || seen.contains(&false) || begun.elapsed() < Duration::from_millis(200) {
            let dump = task::dump();
            for (id, n) in ids.iter().zip(1..) {
                let task = find(&dump, *id).unwrap();
                if let Some(WaitsOn::Socket(socket)) = task.waits_on()
                    && let Some(local) = socket.local
                {
                    assert_eq!(local.ip(), IpAddr::from([127, 0, 7, n]), "{task}");
                    told += 1;
                    seen[usize::from(n) - 1] = true;
                }
            }
            task::yield_now();
        }
        over.store(true, Ordering::Relaxed);
        tasks.into_iter().for_each(|task| assert!(task.join().unwrap() > 0));
        listener.close().unwrap();
        drop(accepts.join());
    });
}

#[test]
fn a_worker_that_a_task_holds_up_is_named_and_holds_up_no_dump() {
    for poller in common::pollers() {
        let _watchdog = watchdog();
        let runtime = Runtime::builder().workers(1).poller(poller).name("held").build().unwrap();
        let (a, mut b) = runtime.run(pair);
        let (local, peer) = (b.local_addr().unwrap(), b.peer_addr().unwrap());
        let read = runtime.spawn(move || b.read(&mut [0; 8]).unwrap());
        let deadline = Instant::now() + Duration::from_secs(600);
        let (sender, receiver) = channel::bounded::<()>(1);
        let receive = runtime.spawn(move || receiver.recv_deadline(deadline));
        let join = runtime.spawn({
            let joined = runtime.spawn(move || receive.join());
            move || drop(joined.join())
        });
        let dump = || runtime.dump();
        waiting_in_of(dump, "read", read.task().id());
        waiting_in_of(dump, "join", join.task().id());
        let over = Arc::new(AtomicBool::new(false));
        let (tell, told) = std::sync::mpsc::channel();
        let hog = runtime.spawn({
            let over = over.clone();
            move || {
                tell.send(()).unwrap();
                while !over.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            }
        });
        told.recv().unwrap();

        let begun = Instant::now();
        let dump = runtime.dump().with_backtraces();
        assert!(begun.elapsed() < Duration::from_secs(10));
        assert_eq!(dump.silent().collect::<Vec<_>>(), ["held-0"]);
        assert_eq!(dump.workers(), 1);
        assert_eq!(find(&dump, hog.task().id()).unwrap().state(), TaskState::Running);
        assert_eq!(dump.tasks().iter().filter(|task| task.state() == TaskState::Running).count(), 1);
        let (_, told_local, told_peer, _) = socket_of(find(&dump, read.task().id()).unwrap());
        assert_eq!((told_local, told_peer), (Some(local), Some(peer)));
        let channel = dump.tasks().iter().find(|task| task.operation() == Some("recv")).unwrap();
        assert_eq!(channel.deadline(), Some(deadline));
        assert!(matches!(channel.waits_on(), Some(WaitsOn::Channel(channel)) if channel.len.is_none()));
        assert!(dump.to_string().contains("held-0 does not answer"));
        over.store(true, Ordering::Relaxed);
        hog.join().unwrap();
        until(|| runtime.dump().silent().next().is_none());
        drop((a, sender));
        assert_eq!(read.join().unwrap(), 0);
        join.join().unwrap();
    }
}

#[test]
fn a_stack_is_told_in_use_and_at_its_deepest() {
    on_each_poller(|| {
        const KIB: usize = 1024;
        let (end, ends) = channel::bounded::<()>(0);
        let parks = |kept: usize, deepest: usize| {
            let ends = ends.clone();
            let park = move || until_end(&ends);
            // Whole stacks of its own, so that nobody was as deep there before.
            let builder = task::Builder::new().stack_size(512 * KIB);
            builder.spawn(move || {
                deep(deepest, &|| ());
                deep(kept, &park);
            })
        };
        let tasks = [(0, 0), (100, 0), (0, 200), (100, 200)];
        let handles: Vec<_> = tasks.iter().map(|&(kept, deepest)| parks(kept, deepest).unwrap()).collect();
        for (handle, (kept, deepest)) in handles.iter().zip(tasks) {
            let stack = waiting_in("recv", handle.task().id()).stack();
            let (in_use, high_water) = (stack.in_use.unwrap() / KIB, stack.high_water.unwrap() / KIB);
            assert_eq!(stack.size, 512 * KIB);
            assert!((kept..kept * 3 / 2 + 16).contains(&in_use), "{in_use} KiB in use, {kept} kept");
            let most = kept.max(deepest);
            assert!((most..most * 3 / 2 + 24).contains(&high_water), "{high_water} KiB at most, {most} used");
        }
        drop(end);
        handles.into_iter().for_each(|handle| handle.join().unwrap());
    });
}

/// Waits until the channel's sender goes.
fn until_end(ends: &channel::Receiver<()>) {
    ends.recv().unwrap_err();
}

/// Calls `f` with so many KiB, and a little more, on the stack.
#[inline(never)]
fn deep(kib: usize, f: &dyn Fn()) {
    match kib {
        0 => f(),
        _ => {
            let mut kept = [kib as u8; 1024];
            std::hint::black_box(&mut kept);
            deep(kib - 1, f);
            std::hint::black_box(&mut kept);
        }
    }
}

#[inline(never)]
fn outer_of_three(receiver: &channel::Receiver<u32>) -> u32 {
    1 + std::hint::black_box(middle_of_three(receiver))
}

#[inline(never)]
fn middle_of_three(receiver: &channel::Receiver<u32>) -> u32 {
    1 + std::hint::black_box(inner_of_three(receiver))
}

#[inline(never)]
fn inner_of_three(receiver: &channel::Receiver<u32>) -> u32 {
    1 + std::hint::black_box(receiver.recv().unwrap())
}

#[test]
fn a_backtrace_names_the_users_calls_in_order() {
    on_each_poller(|| {
        let (sender, receiver) = channel::bounded(0);
        let task = spawn(move || outer_of_three(&receiver));
        let id = task.task().id();
        waiting_in("recv", id);
        let dump = whole(|| task::dump().with_backtraces());
        let text = find(&dump, id).unwrap().backtrace().expect("a parked task has one").to_string();
        let place = |name: &str| text.find(name).unwrap_or_else(|| panic!("no {name} in\n{text}"));
        let order = ["inner_of_three", "middle_of_three", "outer_of_three"].map(place);
        assert!(order.is_sorted(), "{text}");
        assert!(text.contains("dump.rs:"), "{text}");
        // Of the library, the call that was made, and nothing of what starts a task.
        assert!(text.lines().next().unwrap().contains("recv"), "{text}");
        assert!(!text.contains("fiber") && !text.contains("catch_unwind") && !text.contains("record::"), "{text}");
        assert!(dump.to_string().contains("inner_of_three"));

        // The one that asks runs: it is on no parked stack.
        assert!(find(&dump, task::current().unwrap().id()).unwrap().backtrace().is_none());
        assert!(task::dump().tasks().iter().all(|task| task.backtrace().is_none()), "it was not asked for");
        sender.send(39).unwrap();
        assert_eq!(task.join().unwrap(), 42);
    });
}

#[test]
fn a_stack_with_no_room_for_looking_has_no_backtrace() {
    on_each_poller(|| {
        let (end, ends) = channel::bounded::<()>(0);
        let parks = |kib: usize| {
            let ends = ends.clone();
            let builder = task::Builder::new().stack_size(96 * 1024); // 80 KiB beside the guard
            builder.spawn(move || deep(kib, &|| until_end(&ends))).unwrap()
        };
        // Each KiB takes a little more than that.
        let (roomy, narrow) = (parks(40), parks(67));
        let left = |task: &JoinHandle<()>| 80 * 1024 - waiting_in("recv", task.task().id()).stack().in_use.unwrap();
        assert!(left(&roomy) > 12 * 1024 && left(&narrow) < 10 * 1024, "{} {}", left(&roomy), left(&narrow));
        let dump = whole(|| task::dump().with_backtraces());
        assert!(find(&dump, roomy.task().id()).unwrap().backtrace().is_some());
        assert!(find(&dump, narrow.task().id()).unwrap().backtrace().is_none());
        drop(end);
        drop((roomy.join(), narrow.join()));
    });
}

#[test]
fn tasks_that_are_looked_at_all_the_time_go_on_unharmed() {
    on_each_poller(|| {
        const LEN: usize = 60_000;
        let over = Arc::new(AtomicBool::new(false));
        let looked = Arc::new(AtomicUsize::new(0));
        let looks = spawn({
            let (over, looked) = (over.clone(), looked.clone());
            move || {
                while !over.load(Ordering::Relaxed) {
                    let dump = whole(|| task::dump().with_backtraces());
                    looked.fetch_add(
                        dump.tasks().iter().filter(|task| task.backtrace().is_some()).count(),
                        Ordering::Relaxed,
                    );
                    task::yield_now();
                }
            }
        });
        let echoes: Vec<_> = (0..4)
            .map(|seed| {
                let (a, b) = narrow_pair();
                let (mut a_in, mut a_out) = a.into_split();
                let (mut b_in, mut b_out) = b.into_split();
                let echo = spawn(move || std::io::copy(&mut b_in, &mut b_out)); // whose end goes with it, and says so
                let write = spawn(move || a_out.write_all(&pattern(LEN, seed)));
                let read = spawn(move || {
                    let mut got = Vec::new();
                    a_in.read_to_end(&mut got).map(|_| got)
                });
                (seed, echo, write, read)
            })
            .collect();
        for (seed, echo, write, read) in echoes {
            write.join().unwrap().unwrap();
            assert_eq!(echo.join().unwrap().unwrap(), LEN as u64);
            assert!(read.join().unwrap().unwrap() == pattern(LEN, seed), "what came back is not what was sent");
        }
        until(|| looked.load(Ordering::Relaxed) > 0); // this task at least, which waits now
        over.store(true, Ordering::Relaxed);
        looks.join().unwrap();
    });
}

#[test]
fn a_task_that_is_panicking_gets_a_dump_without_waiting() {
    struct Dumps(std::sync::mpsc::Sender<TaskDump>);
    impl Drop for Dumps {
        fn drop(&mut self) {
            self.0.send(task::dump()).unwrap();
        }
    }
    on_each_poller(|| {
        let (end, ends) = channel::bounded::<()>(0);
        let others: Vec<_> = (0..8)
            .map(|_| {
                spawn({
                    let ends = ends.clone();
                    move || until_end(&ends)
                })
            })
            .collect();
        others.iter().for_each(|task| drop(waiting_in("recv", task.task().id())));
        let (tell, told) = std::sync::mpsc::channel();
        let panics = spawn(move || {
            let _dumps = Dumps(tell);
            std::panic::resume_unwind(Box::new(()));
        });
        let id = panics.task().id();
        assert!(panics.join().is_err());
        let dump = told.recv().unwrap();
        assert_eq!(find(&dump, id).unwrap().state(), TaskState::Running);
        assert_eq!(dump.tasks().iter().filter(|task| task.operation() == Some("recv")).count(), others.len());
        assert_eq!(dump.silent().count(), 0, "nobody was asked");
        drop(end);
        others.into_iter().for_each(|task| task.join().unwrap());
    });
}

#[test]
fn a_table_has_aligned_columns() {
    on_each_poller(|| {
        let (end, ends) = channel::bounded::<()>(0);
        let tasks: Vec<_> = ["a", "a longer name", "ä\n"]
            .map(|name| {
                task::Builder::new().name(name.to_owned()).spawn({
                    let ends = ends.clone();
                    move || until_end(&ends)
                })
            })
            .into_iter()
            .map(Result::unwrap)
            .collect();
        tasks.iter().for_each(|task| drop(waiting_in("recv", task.task().id())));
        let table = whole(task::dump).to_string();
        let lines: Vec<Vec<char>> = table.lines().map(|line| line.chars().collect()).collect();
        assert_eq!(lines.len(), 1 + 4, "a name with a line end stays on its line: {table}");
        let header: String = lines[0].iter().collect();
        for column in ["NAME", "STATE", "OPERATION", "ON ", "SINCE", "STACK", "WORKER", "SPAWNED AT"] {
            let at =
                header.find(&format!(" {column}")).map(|at| at + 1).unwrap_or_else(|| panic!("no {column}: {table}"));
            let aligned = |line: &Vec<char>| line[at - 1] == ' ' && line[at] != ' ';
            assert!(lines[1..].iter().all(aligned), "{column}: {table}");
        }
        drop(end);
        tasks.into_iter().for_each(|task| task.join().unwrap());
    });
}

#[test]
fn json_says_the_same_in_a_line_a_task() {
    on_each_poller(|| {
        let (a, mut b) = pair();
        let (local, peer, fd) = (b.local_addr().unwrap(), b.peer_addr().unwrap(), b.as_raw_fd());
        let cookie = sockopt::socket_cookie(&b).unwrap();
        let read = task::Builder::new().name("\"r\"".to_owned()).spawn(move || b.read(&mut [0; 8])).unwrap();
        let id = read.task().id();
        waiting_in("read", id);
        let dump = whole(|| task::dump().with_backtraces());
        let mut json = Vec::new();
        dump.write_json(&mut json).unwrap();
        let text = String::from_utf8(json).unwrap();
        let lines: Vec<JsonValue> = text.lines().map(|line| line.parse().unwrap()).collect();
        let number = |of: &JsonValue, name: &str| *of[name].get::<f64>().unwrap_or_else(|| panic!("{name}: {text}"));
        let string = |of: &JsonValue, name: &str| of[name].get::<String>().cloned().unwrap();
        assert_eq!(lines.len(), 1 + dump.tasks().len());
        assert_eq!(number(&lines[0], "v"), 1.0);
        assert_eq!(number(&lines[0], "pid"), f64::from(std::process::id()));
        assert_eq!(number(&lines[0], "tasks"), dump.tasks().len() as f64);
        let found = lines[1..].iter().find(|line| format!("#{}", number(line, "id")) == id.to_string()).unwrap();
        assert_eq!(string(found, "name"), "\"r\"");
        assert_eq!((string(found, "state"), string(found, "op")), ("waiting".to_owned(), "read".to_owned()));
        assert_eq!((string(found, "local"), string(found, "peer")), (local.to_string(), peer.to_string()));
        assert_eq!((number(found, "fd"), number(found, "cookie")), (f64::from(fd), cookie as f64));
        assert_eq!(number(found, "stack_size"), 262_144.0);
        assert!(
            number(found, "stack_in_use") > 0.0 && number(found, "stack_high_water") >= number(found, "stack_in_use")
        );
        assert!(found["backtrace"][0].get::<String>().is_some_and(|frame| frame.contains("towpath")), "{text}");
        assert!(string(found, "spawned_at").contains("dump.rs:"));
        drop(a);
        assert_eq!(read.join().unwrap().unwrap(), 0);
    });
}

/// What the calling thread has had of a processor: a task and what its worker does between two turns of it.
fn thread_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

#[test]
fn a_dump_of_a_hundred_thousand_tasks_lets_others_run_meanwhile() {
    alone("a_dump_of_a_hundred_thousand_tasks_lets_others_run_meanwhile", || {
        const TASKS: usize = 100_000;
        let runtime = Runtime::builder().workers(1).stack_size(32 * 1024).build().unwrap();
        let (end, ends) = channel::bounded::<()>(0);
        let tasks: Vec<_> = (0..TASKS)
            .map(|_| {
                runtime.spawn({
                    let ends = ends.clone();
                    move || until_end(&ends)
                })
            })
            .collect();
        let count = |dump: &TaskDump| dump.tasks().iter().filter(|task| task.operation() == Some("recv")).count();
        until(|| count(&runtime.dump()) == TASKS);
        let (over, longest) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let held_up = Arc::new(AtomicUsize::new(0));
        let (begins, begun) = std::sync::mpsc::channel();
        let other = runtime.spawn({
            let (over, longest, held_up) = (over.clone(), longest.clone(), held_up.clone());
            move || {
                begins.send(()).unwrap();
                while !over.load(Ordering::Relaxed) {
                    let before = thread_time();
                    task::yield_now();
                    let micros = (thread_time() - before).as_micros() as usize;
                    longest.fetch_max(micros, Ordering::Relaxed);
                    held_up.fetch_add(usize::from(micros > 100), Ordering::Relaxed);
                }
            }
        });
        begun.recv().unwrap();
        let begun = Instant::now();
        let dump = runtime.dump();
        let held_up = held_up.load(Ordering::Relaxed);
        let (longest, took) = (Duration::from_micros(longest.load(Ordering::Relaxed) as u64), begun.elapsed());
        assert_eq!((count(&dump), dump.silent().count()), (TASKS, 0));
        assert!(dump.tasks().iter().filter(|task| task.stack().high_water.is_some()).count() >= TASKS);
        println!("a dump of {TASKS} tasks took {took:?}; its worker ran nothing else for {longest:?} at most");
        // It takes the worker 30 ms and more, a quarter of one at a time: in one go it would hold up the other task once.
        assert!(held_up >= 20, "held up {held_up} times");
        // The bound is for busy machines and unoptimised code.
        assert!(took < Duration::from_secs(5), "{took:?}");
        over.store(true, Ordering::Relaxed);
        drop(end);
        other.join().unwrap();
        tasks.into_iter().for_each(|task| task.join().unwrap());
    });
}

#[test]
fn a_plain_thread_may_ask_a_runtime_of_its_choice() {
    let _watchdog = watchdog();
    let runtimes = [1, 2].map(|workers| Runtime::builder().workers(workers).build().unwrap());
    let (end, ends) = channel::bounded::<()>(0);
    let tasks: Vec<_> = runtimes
        .iter()
        .map(|runtime| {
            runtime.spawn({
                let ends = ends.clone();
                move || until_end(&ends)
            })
        })
        .collect();
    for (runtime, task) in runtimes.iter().zip(&tasks) {
        waiting_in_of(|| runtime.dump(), "recv", task.task().id());
        assert_eq!(whole(|| runtime.dump()).tasks().len(), 1);
    }
    // And a task of another runtime.
    let dump = thread::scope(|scope| scope.spawn(|| whole(|| runtimes[0].dump())).join().unwrap());
    assert_eq!(dump.tasks()[0].id(), tasks[0].task().id());
    drop(end);
    tasks.into_iter().for_each(|task| task.join().unwrap());
}
