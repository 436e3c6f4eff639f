//! Runtimes: `run`, how they start and with what, the default one, the environment, shutting down, and the signals that
//! workers keep off. What many tests below look at belongs to the whole process, so they run in one of their own.

mod common;
mod watching;

use std::io::{self, ErrorKind, Read, Write};
use std::mem::MaybeUninit;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI32, Ordering};
use std::thread;

use towpath::net::{TcpListener, TcpStream};
use towpath::sync::channel;
use towpath::task;
use towpath::time::{Duration, Instant, sleep};
use towpath::{PollerKind, Runtime, spawn};

use common::{PATIENCE, alone, child, descriptors, is_alone, must_pass, on_tasks_and_threads, pair, until, watchdog};
use watching::{threads_named, until_parked};

/// A runtime whose threads can be told from those of other tests.
fn named(name: &str, workers: usize) -> Runtime {
    Runtime::builder().name(name).workers(workers).build().unwrap()
}

fn thread_name() -> String {
    thread::current().name().unwrap_or_default().to_owned()
}

#[test]
fn run_runs_a_task_and_returns_its_value() {
    on_tasks_and_threads(|| {
        let runtime = named("apart", 1);
        let (inside, thread) = runtime.run(|| (task::current().is_some(), thread_name()));
        assert_eq!((inside, thread.as_str()), (true, "apart-0"));
        assert_eq!(runtime.run(|| vec![1, 2, 3]), [1, 2, 3]);
    });
}

#[test]
fn a_panic_comes_out_of_run() {
    on_tasks_and_threads(|| {
        let runtime = named("apart", 1);
        let run = || runtime.run(|| resume_unwind(Box::new(7)));
        let panic = catch_unwind(AssertUnwindSafe(run)).unwrap_err();
        assert_eq!(panic.downcast_ref(), Some(&7));
        assert_eq!(runtime.run(|| 8), 8);
    });
}

#[test]
fn tasks_stay_with_the_runtime_of_the_task_that_spawns_them() {
    let _watchdog = watchdog();
    let (first, second) = (named("first", 1), named("second", 1));
    let thread = || spawn(|| spawn(thread_name).join().unwrap()).join().unwrap();
    assert_eq!(first.run(thread), "first-0");
    assert_eq!(second.run(thread), "second-0");
    assert!(thread().starts_with("towpath-"), "a plain thread's are the default runtime's");
    // `Runtime::spawn` is for its own runtime, whoever calls it.
    assert_eq!(first.run(move || second.spawn(thread_name).join().unwrap()), "second-0");
}

#[test]
fn tasks_of_two_runtimes_and_threads_share_sockets_and_channels() {
    let _watchdog = watchdog();
    let (first, second) = (named("first", 1), named("second", 1));
    let (mut stream, mut peer) = pair();
    let (sender, receiver) = channel::bounded(0);
    let echo = second.spawn(move || {
        let mut buf = [0; 16];
        loop {
            match peer.read(&mut buf).unwrap() {
                0 => return sender.send("over").unwrap(),
                n => peer.write_all(&buf[..n]).unwrap(),
            }
        }
    });
    let reader = stream.try_clone().unwrap();
    let read = first.spawn(move || (&reader).read_exact(&mut [0; 9]).map(|()| thread_name()));
    for _ in 0..9 {
        stream.write_all(b"x").unwrap();
    }
    assert_eq!(read.join().unwrap().unwrap(), "first-0");
    drop(stream);
    assert_eq!(receiver.recv(), Ok("over"));
    echo.join().unwrap();
}

#[test]
fn a_runtime_has_the_workers_it_was_given_and_their_names() {
    let _watchdog = watchdog();
    let runtime = named("mine", 3);
    until(|| threads_named("mine-") == 3);
    for worker in 0..3 {
        assert_eq!(threads_named(&format!("mine-{worker}")), 1);
    }
    runtime.shutdown(PATIENCE).unwrap();
    until(|| threads_named("mine-") == 0);
}

#[test]
fn a_runtimes_stack_size_is_that_of_its_tasks() {
    fn dig(kib: usize) -> usize {
        let page = std::hint::black_box([0u8; 2048]);
        if kib <= 2 { page.len() } else { dig(kib - 2) + usize::from(page[kib % 2048]) }
    }
    let _watchdog = watchdog();
    let runtime = Runtime::builder().stack_size(4 << 20).workers(1).build().unwrap();
    assert_eq!(runtime.run(|| spawn(|| dig(1 << 10)).join().unwrap()), 2048);
}

#[test]
fn a_wrong_setting_is_an_error_that_names_it() {
    for (builder, said) in [
        (Runtime::builder().workers(0), "workers=0: a number from 1 to 1024"),
        (Runtime::builder().workers(1025), "workers=1025: a number from 1 to 1024"),
        (Runtime::builder().stack_size(100), "stack_size=100: a stack of 100 bytes is too small: the least is 32 KiB"),
    ] {
        let error = builder.build().unwrap_err();
        assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::InvalidInput, said));
    }
}

#[test]
fn a_wrong_variable_is_an_error_that_names_it() {
    const NAME: &str = "a_wrong_variable_is_an_error_that_names_it";
    const CASES: [(&str, &str, &str); 6] = [
        ("TOWPATH_WORKERS", "many", "TOWPATH_WORKERS=many: a number from 1 to 1024"),
        ("TOWPATH_WORKERS", "0", "TOWPATH_WORKERS=0: a number from 1 to 1024"),
        ("TOWPATH_STACK", "huge", "TOWPATH_STACK=huge: a size such as 256K"),
        ("TOWPATH_STACK", "1K", "TOWPATH_STACK=1K: a stack of 1024 bytes is too small: the least is 32 KiB"),
        (
            "TOWPATH_STACK",
            "2048M",
            "TOWPATH_STACK=2048M: a stack of 2147483648 bytes is too large: the most is 1024 MiB",
        ),
        (
            "TOWPATH_POLLER",
            "kqueue",
            "TOWPATH_POLLER=kqueue: unknown poller \"kqueue\": there are \"os\" and \"uring\"",
        ),
    ];
    if !is_alone(NAME) {
        for (variable, value, _) in CASES {
            let mut child = child(NAME, &[]);
            child.env(variable, value);
            must_pass(child);
        }
        return;
    }
    let _watchdog = common::watchdog();
    let is_set = |case: &(&str, &str, &str)| std::env::var(case.0).is_ok_and(|value| value == case.1);
    let (.., said) = CASES.into_iter().find(is_set).unwrap();
    let error = Runtime::builder().build().unwrap_err();
    assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::InvalidInput, said));
    // The default runtime has nobody to return an error to. Each call that needs it says so, not just the first.
    for _ in 0..2 {
        let panic = catch_unwind(|| drop(spawn(|| ()))).unwrap_err();
        let message = panic.downcast_ref::<String>().unwrap();
        assert_eq!(*message, format!("towpath's default runtime cannot start: {said}"));
    }
    // What the program says itself wins, and the variable is not looked at.
    let runtime = Runtime::builder().workers(1).stack_size(64 << 10).poller(PollerKind::Os).build();
    assert_eq!(runtime.unwrap().run(|| 1), 1);
}

/// Has the kernel refuse the calling thread, and those that it starts, to make an io_uring, as many containers do.
fn forbid_io_uring() {
    let instruction = |code: u32, value: u32| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k: value };
    let number = std::mem::offset_of!(libc::seccomp_data, nr) as u32;
    let unless =
        libc::sock_filter { jf: 1, ..instruction(libc::BPF_JMP | libc::BPF_JEQ, libc::SYS_io_uring_setup as u32) };
    let mut filter = [
        instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, number),
        unless,
        instruction(libc::BPF_RET, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        instruction(libc::BPF_RET, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: the call sets a flag of this thread, which seccomp(2) asks for.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }, 0);
    // SAFETY: the kernel copies the program, which is complete.
    let status = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
    assert_eq!(status, 0, "{}", io::Error::last_os_error());
}

#[test]
fn a_poller_that_is_forbidden_is_told_of_once_and_done_without() {
    const NAME: &str = "a_poller_that_is_forbidden_is_told_of_once_and_done_without";
    const SAID: &str = "the poller is \"os\", for \"uring\" cannot be had: forbidden here, by kernel.io_uring_disabled or by \
                        a container's seccomp filter: Operation not permitted (os error 1)";
    static LOGGED: Mutex<Vec<String>> = Mutex::new(Vec::new());
    struct Logger;
    impl log::Log for Logger {
        fn enabled(&self, _: &log::Metadata<'_>) -> bool {
            true
        }
        fn log(&self, record: &log::Record<'_>) {
            if !record.target().starts_with("towpath") {
                return; // other crates trace what they do
            }
            // One that sends its lines through what has just been started.
            let line = format!("{} {}", record.level(), record.args());
            spawn(|| LOGGED.lock().unwrap().push(line)).join().unwrap();
        }
        fn flush(&self) {}
    }
    if !is_alone(NAME) {
        let mut child = child(NAME, &[]);
        child.env("TOWPATH_POLLER", "uring").env("TOWPATH_WORKERS", "3");
        must_pass(child);
        return;
    }
    let _watchdog = watchdog();
    log::set_logger(&Logger).unwrap();
    log::set_max_level(log::LevelFilter::Trace);
    forbid_io_uring();
    let talk = || {
        let (mut stream, mut peer) = pair();
        let read = spawn(move || peer.read(&mut [0; 16]).unwrap());
        stream.write_all(b"hello").unwrap();
        assert_eq!(read.join().unwrap(), 5);
    };
    talk(); // on the default runtime
    assert_eq!(*LOGGED.lock().unwrap(), [format!("WARN {SAID}")]);
    let runtime = Runtime::builder().workers(2).poller(PollerKind::Uring).build().unwrap();
    assert_eq!(runtime.poller(), PollerKind::Os);
    runtime.run(talk);
    assert_eq!(*LOGGED.lock().unwrap(), [(); 2].map(|()| format!("WARN {SAID}")));
    // Who does not wish for it is told nothing.
    Runtime::builder().workers(1).poller(PollerKind::Os).build().unwrap().run(talk);
    assert_eq!(LOGGED.lock().unwrap().len(), 2);
}

#[test]
fn variables_are_honoured() {
    const NAME: &str = "variables_are_honoured";
    if !is_alone(NAME) {
        for (workers, stack) in [("1", "4M"), ("3", "4194304"), ("", "4096K")] {
            let mut child = child(NAME, &[]);
            child.env("TOWPATH_WORKERS", workers).env("TOWPATH_STACK", stack).env("TOWPATH_POLLER", "os");
            must_pass(child);
        }
        return;
    }
    let _watchdog = watchdog();
    let cores = thread::available_parallelism().unwrap().get();
    let expected = std::env::var("TOWPATH_WORKERS").unwrap().parse().unwrap_or(cores); // an empty one is none
    // It starts by itself, at the first need.
    assert_eq!(threads_named("towpath"), 0);
    fn dig(kib: usize) -> usize {
        let page = std::hint::black_box([0u8; 2048]);
        if kib <= 2 { page.len() } else { dig(kib - 2) + usize::from(page[kib % 2048]) }
    }
    assert_eq!(spawn(|| dig(1 << 10)).join().unwrap(), 2048);
    assert_eq!(threads_named("towpath-"), expected);
}

#[test]
fn the_default_runtime_starts_by_itself_when_a_thread_first_has_to_wait() {
    alone("the_default_runtime_starts_by_itself_when_a_thread_first_has_to_wait", || {
        // Sockets that std has waited for.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut peer = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut stream = towpath::net::TcpStream::from(listener.accept().unwrap().0);
        peer.write_all(b"x").unwrap();
        while !common::has_event(&stream) {}
        stream.read_exact(&mut [0]).unwrap();
        assert_eq!(threads_named("towpath"), 0, "nothing has had to wait");
        let read = thread::spawn(move || stream.read(&mut [0]).unwrap());
        until(|| threads_named("towpath-") > 0);
        peer.write_all(b"x").unwrap();
        assert_eq!(read.join().unwrap(), 1);
    });
}

#[test]
fn shutting_down_waits_for_the_tasks() {
    on_tasks_and_threads(|| {
        let runtime = named("down", 2);
        let (end, ends) = channel::bounded::<()>(0);
        let (tell, told) = channel::unbounded();
        for n in 0..10 {
            let (ends, tell) = (ends.clone(), tell.clone());
            drop(runtime.spawn(move || {
                ends.recv().unwrap_err();
                // A task that is left may still spawn.
                drop(spawn(move || tell.send(n).unwrap()));
            }));
        }
        let shutdown = spawn(move || runtime.shutdown(PATIENCE));
        until_parked(&shutdown, "shutdown");
        assert!(told.is_empty());
        drop((end, tell));
        assert_eq!(shutdown.join().unwrap(), Ok(()));
        let mut numbers: Vec<i32> = told.try_iter().collect();
        numbers.sort();
        assert_eq!(numbers, (0..10).collect::<Vec<_>>());
    });
}

#[test]
fn tasks_that_are_left_at_shutdown_are_counted_and_go_on() {
    let _watchdog = watchdog();
    let runtime = named("left", 2);
    let (end, ends) = channel::bounded::<()>(0);
    let tasks: Vec<_> = (0..3)
        .map(|n| {
            let ends = ends.clone();
            runtime.spawn(move || {
                ends.recv().unwrap_err();
                sleep(Duration::from_millis(1)).unwrap();
                n
            })
        })
        .collect();
    let start = Instant::now();
    let left = runtime.shutdown(Duration::from_millis(50)).unwrap_err();
    assert!(start.elapsed() >= Duration::from_millis(50));
    assert_eq!(left.tasks(), 3);
    assert_eq!(left.to_string(), "3 tasks were still running when the time to shut down was over");
    assert!(threads_named("left-") > 0);
    drop(end);
    assert!(tasks.into_iter().map(|task| task.join().unwrap()).eq(0..3));
    until(|| threads_named("left-") == 0);
}

#[test]
fn a_task_that_shuts_its_own_runtime_down_is_told_that_it_is_left() {
    let _watchdog = watchdog();
    let runtime = named("own", 2);
    let (give, take) = channel::bounded::<Runtime>(1);
    let task = runtime.spawn(move || take.recv().unwrap().shutdown(Duration::from_millis(10)).unwrap_err().tasks());
    give.send(runtime).unwrap();
    assert_eq!(task.join().unwrap(), 1);
    until(|| threads_named("own-") == 0);
}

#[test]
fn dropping_a_runtime_does_not_wait_for_ever() {
    on_tasks_and_threads(|| {
        let runtime = named("dropped", 1);
        let (end, ends) = channel::bounded::<()>(0);
        let task = runtime.spawn(move || ends.recv().unwrap_err());
        drop(runtime);
        assert!(!task.is_finished());
        drop(end);
        task.join().unwrap();
    });
    until(|| threads_named("dropped-") == 0);
}

#[test]
fn a_runtime_that_has_ended_leaves_nothing_behind() {
    alone("a_runtime_that_has_ended_leaves_nothing_behind", || {
        drop(spawn(|| ())); // the default runtime, which stays
        named("once", 2).run(|| drop(pair())); // what is made once
        until(|| threads_named("once-") == 0);
        let (before, mut mapped) = (descriptors(), None);
        for round in 0..50 {
            let runtime = named("come", 2);
            runtime.run(|| {
                let (mut stream, mut peer) = pair();
                let read = spawn(move || peer.read(&mut [0; 16]).unwrap());
                stream.write_all(b"hello").unwrap();
                assert_eq!(read.join().unwrap(), 5);
            });
            runtime.shutdown(PATIENCE).unwrap();
            until(|| threads_named("come-") == 0);
            assert_eq!(descriptors(), before);
            if round == 10 {
                mapped = Some(watching::memory("VmSize"));
            }
        }
        let (mapped, now) = (mapped.unwrap(), watching::memory("VmSize"));
        assert!(now <= mapped + 1024, "{mapped} KiB of address space after 10 rounds, {now} after 50");
    });
}

#[test]
fn sockets_outlive_the_runtime_that_they_waited_in() {
    on_tasks_and_threads(|| {
        let (mut stream, mut peer) = pair();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let first = named("first", 1);
        let (mut stream, listener) = {
            let task = first.spawn(move || {
                stream.read_exact(&mut [0; 5]).unwrap();
                listener.accept().unwrap();
                (stream, listener)
            });
            peer.write_all(b"hello").unwrap();
            TcpStream::connect(addr).unwrap();
            task.join().unwrap()
        };
        first.shutdown(PATIENCE).unwrap();
        // Whoever waits next has them registered anew.
        let second = named("second", 1);
        let task = second.spawn(move || {
            stream.read_exact(&mut [0; 5]).unwrap();
            listener.accept().unwrap();
            stream
        });
        peer.write_all(b"again").unwrap();
        TcpStream::connect(addr).unwrap();
        let mut stream = task.join().unwrap();
        drop(second);
        let task = spawn(move || stream.read_exact(&mut [0; 5]));
        peer.write_all(b"still").unwrap();
        task.join().unwrap().unwrap();
    });
}

#[test]
fn a_read_goes_on_when_the_socket_s_home_ends_meanwhile() {
    let _watchdog = watchdog();
    let home = named("home", 1);
    let (stream, mut peer) = pair();
    let first = stream.try_clone().unwrap();
    let task = home.spawn(move || (&first).read(&mut [0; 1]).unwrap());
    peer.write_all(b"x").unwrap();
    assert_eq!(task.join().unwrap(), 1);
    // This one waits on the default runtime, and the socket is registered with the other.
    let reading = spawn(move || (&stream).read(&mut [0; 16]).unwrap());
    until_parked(&reading, "read");
    home.shutdown(PATIENCE).unwrap();
    peer.write_all(b"hello").unwrap();
    assert_eq!(reading.join().unwrap(), 5);
}

/// The kernel's number of the thread that the handler last ran on.
static HANDLED_BY: AtomicI32 = AtomicI32::new(0);

extern "C" fn note(_: libc::c_int) {
    // SAFETY: the call takes nothing and only answers.
    HANDLED_BY.store(unsafe { libc::gettid() }, Ordering::SeqCst);
}

#[test]
fn signals_of_the_process_do_not_come_to_workers() {
    alone("signals_of_the_process_do_not_come_to_workers", || {
        // SAFETY: all zeros is a sigaction without flags and with an empty mask.
        let mut action: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
        action.sa_sigaction = note as *const () as libc::sighandler_t;
        // SAFETY: the handler does what one may: it stores to an atomic.
        assert_eq!(unsafe { libc::sigaction(libc::SIGUSR1, &action, ptr::null_mut()) }, 0);
        let thread = || {
            // SAFETY: the call takes nothing and only answers.
            unsafe { libc::gettid() }
        };
        let runtime = Runtime::builder().workers(2).build().unwrap();
        let masks = || {
            let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
            let mask = status.lines().find_map(|line| line.strip_prefix("SigBlk:")).unwrap().trim().to_owned();
            u64::from_str_radix(&mask, 16).unwrap()
        };
        for mask in [runtime.run(masks), runtime.run(move || task::spawn_blocking(masks).join().unwrap())] {
            let blocked = |signal: i32| mask & 1 << (signal - 1) != 0;
            for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGCHLD, libc::SIGUSR1, libc::SIGPROF] {
                assert!(blocked(signal), "signal {signal} would come to a worker");
            }
            for signal in [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGABRT] {
                assert!(!blocked(signal), "signal {signal} would end the process unhandled");
            }
        }
        // With all plain threads but this one out of the way, it comes here, also while the workers are busy.
        let me = thread();
        for _ in 0..20 {
            let busy = runtime.spawn(|| until(|| HANDLED_BY.load(Ordering::SeqCst) != 0));
            let pid = std::process::id().cast_signed();
            // SAFETY: a signal for which there is a handler.
            assert_eq!(unsafe { libc::kill(pid, libc::SIGUSR1) }, 0);
            busy.join().unwrap();
            let handler = HANDLED_BY.swap(0, Ordering::SeqCst);
            let comm = std::fs::read_to_string(format!("/proc/self/task/{handler}/comm")).unwrap_or_default();
            assert!(!comm.starts_with("towpath"), "thread {handler} ({comm}), this is {me}");
        }
    });
}

#[test]
fn a_runtime_that_cannot_start_says_why_and_leaves_nothing() {
    alone("a_runtime_that_cannot_start_says_why_and_leaves_nothing", || {
        let before = descriptors();
        common::limit_descriptors(before.len() as u64 + 3);
        let error = Runtime::builder().name("none").workers(8).build().unwrap_err();
        assert_eq!(error.to_string(), "making a worker's poller: Too many open files (os error 24)");
        common::limit_descriptors(1024);
        until(|| threads_named("none-") == 0);
        assert_eq!(descriptors(), before);
        let runtime: io::Result<Runtime> = Runtime::builder().workers(1).build();
        assert_eq!(runtime.unwrap().run(|| 1), 1);
    });
}
