//! A task that runs off its stack is named on stderr, with its stack's size and the knobs to turn, and the process
//! aborts; every other fault is still left to whoever handled it before. Each test is a process of its own that dies.

mod common;

use std::mem::MaybeUninit;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};
use std::ptr;
use std::thread;

use rustix::process::{Resource, Rlimit, setrlimit};
use towpath::sync::channel;
use towpath::task::{Builder, JoinHandle, spawn_local, yield_now};
use towpath::time::{Duration, sleep};
use towpath::{Runtime, spawn};

use common::{child, is_alone, watchdog};

const KNOBS: &str = "give it more with task::Builder::stack_size, Runtime::builder().stack_size or TOWPATH_STACK";

/// Runs the test of that name again, in a process that is to die by `act`, and returns what it wrote to stdout and stderr
/// and how it ended. In that process it does not return.
fn dies(name: &str, set: impl FnOnce(&mut Command), act: impl FnOnce()) -> (String, String, ExitStatus) {
    if is_alone(name) {
        let _watchdog = watchdog();
        // It is meant to die: nobody wants its core.
        setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }).unwrap();
        act();
        println!("it has lived on");
        std::process::exit(77);
    }
    let mut command = child(name, &[]);
    set(&mut command);
    let output = command.output().unwrap();
    let [stdout, stderr] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    assert_ne!(output.status.code(), Some(77), "{stdout}\n{stderr}");
    (stdout, stderr, output.status)
}

/// Says of a task which one it is, lets it go on, and waits for it in vain.
fn overflows(spawn: impl FnOnce(channel::Receiver<()>) -> JoinHandle<u64>) {
    let (go, gone) = channel::bounded(0);
    let task = spawn(gone);
    println!("it is task {}", task.task().id());
    go.send(()).unwrap();
    _ = task.join();
}

/// Asserts that a process died of an overflow, and returns the line that says so, with `#N` for the task's number.
fn overflow_line((stdout, stderr, status): &(String, String, ExitStatus)) -> String {
    assert_eq!(status.signal(), Some(libc::SIGABRT), "{stdout}\n{stderr}");
    let id = stdout.lines().find_map(|line| line.split_once("it is task ")).expect("it says which task").1;
    let lines: Vec<_> = stderr.lines().filter(|line| line.contains("overflow")).collect();
    assert_eq!(lines.len(), 1, "{stderr}");
    assert!(stderr.ends_with('\n'));
    assert!(lines[0].contains(id), "{id}: {stderr}");
    lines[0].replace(id, "#N")
}

#[inline(never)]
fn recurse(n: u64) -> u64 {
    let frame = std::hint::black_box([n; 16]);
    if n == u64::MAX { 0 } else { recurse(n + 1) + frame[(n % 16) as usize] }
}

/// Waits for the word and then overflows.
fn then_recurse(gone: channel::Receiver<()>) -> impl FnOnce() -> u64 {
    move || {
        gone.recv().unwrap();
        recurse(0)
    }
}

#[test]
fn an_overflow_names_the_task_and_its_stack() {
    let died = dies(
        "an_overflow_names_the_task_and_its_stack",
        |_| (),
        || {
            overflows(|gone| Builder::new().name("parse".to_owned()).spawn(then_recurse(gone)).unwrap());
        },
    );
    assert_eq!(overflow_line(&died), format!("task 'parse' (#N) has overflowed its stack of 256 KiB; {KNOBS}"));
}

#[test]
fn an_overflow_of_a_task_without_a_name_gives_its_number() {
    let died = dies(
        "an_overflow_of_a_task_without_a_name_gives_its_number",
        |_| (),
        || {
            overflows(|gone| spawn(then_recurse(gone)));
        },
    );
    assert_eq!(overflow_line(&died), format!("task #N has overflowed its stack of 256 KiB; {KNOBS}"));
}

#[test]
fn an_overflow_gives_the_size_of_the_tasks_own_stack() {
    let died = dies(
        "an_overflow_gives_the_size_of_the_tasks_own_stack",
        |_| (),
        || {
            overflows(|gone| Builder::new().stack_size(1 << 20).spawn(then_recurse(gone)).unwrap());
        },
    );
    assert_eq!(overflow_line(&died), format!("task #N has overflowed its stack of 1024 KiB; {KNOBS}"));
}

#[test]
fn an_overflow_gives_the_size_that_the_environment_set() {
    let name = "an_overflow_gives_the_size_that_the_environment_set";
    let set = |command: &mut Command| _ = command.env("TOWPATH_STACK", "64K");
    let died = dies(name, set, || overflows(|gone| spawn(then_recurse(gone))));
    assert_eq!(overflow_line(&died), format!("task #N has overflowed its stack of 64 KiB; {KNOBS}"));
}

#[test]
fn an_overflow_is_that_of_the_task_that_runs() {
    let died = dies(
        "an_overflow_is_that_of_the_task_that_runs",
        |_| (),
        || {
            let runtime = Runtime::builder().workers(1).build().unwrap();
            runtime.run(|| {
                // Those around it run as well, in turn, and have names of their own.
                let other = |name: &str| {
                    let turns = || {
                        // Until the process ends.
                        loop {
                            yield_now();
                        }
                    };
                    drop(Builder::new().name(name.to_owned()).spawn(turns).unwrap());
                };
                other("before");
                overflows(|gone| {
                    let task = Builder::new().name("between".to_owned()).spawn_local(move || {
                        gone.recv().unwrap();
                        (0..10).for_each(|_| yield_now());
                        sleep(Duration::from_millis(2)).unwrap();
                        spawn_local(|| drop(spawn(|| ()))).join().unwrap();
                        recurse(0)
                    });
                    other("after");
                    task.unwrap()
                });
            });
        },
    );
    assert_eq!(overflow_line(&died), format!("task 'between' (#N) has overflowed its stack of 256 KiB; {KNOBS}"));
}

#[test]
fn a_long_name_is_cut_and_the_advice_is_not() {
    let died = dies(
        "a_long_name_is_cut_and_the_advice_is_not",
        |_| (),
        || {
            let name = format!("x{}", "ü".repeat(1000));
            overflows(|gone| Builder::new().name(name).spawn(then_recurse(gone)).unwrap());
        },
    );
    // 256 bytes hold the x and 127 of the others, each two bytes.
    let name = format!("x{}", "ü".repeat(127));
    assert_eq!(overflow_line(&died), format!("task '{name}' (#N) has overflowed its stack of 256 KiB; {KNOBS}"));
}

#[test]
fn a_plain_threads_overflow_is_still_stds_to_tell() {
    let (_, stderr, status) = dies(
        "a_plain_threads_overflow_is_still_stds_to_tell",
        |_| (),
        || {
            spawn(|| ()).join().unwrap();
            let plain = thread::Builder::new().name("plain".to_owned()).spawn(|| recurse(0)).unwrap();
            _ = plain.join();
        },
    );
    assert_eq!(status.signal(), Some(libc::SIGABRT), "{stderr}");
    assert!(stderr.contains("thread 'plain'") && stderr.contains("has overflowed its stack"), "{stderr}");
    assert!(!stderr.contains("task"), "{stderr}");
}

/// Reads from where nothing is, and nobody's guard.
fn fault() {
    let nowhere = ptr::without_provenance::<u8>(8);
    // SAFETY: it is not: the process is to die of it.
    unsafe { nowhere.read_volatile() };
}

#[test]
fn a_fault_in_a_task_that_is_no_overflow_ends_the_process_as_ever() {
    let (_, stderr, status) = dies(
        "a_fault_in_a_task_that_is_no_overflow_ends_the_process_as_ever",
        |_| (),
        || {
            spawn(fault).join().unwrap();
        },
    );
    assert_eq!(status.signal(), Some(libc::SIGSEGV), "{stderr}");
    assert!(!stderr.contains("overflow"), "{stderr}");
}

extern "C" fn exit_42(_: libc::c_int) {
    // SAFETY: the call ends the process, and may be made in a handler.
    unsafe { libc::_exit(42) }
}

/// Has SIGSEGV handled by something else than std, before a runtime starts.
fn handle_faults() {
    // SAFETY: all zeros is a sigaction without flags and with an empty mask.
    let mut action: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
    action.sa_sigaction = exit_42 as *const () as libc::sighandler_t;
    action.sa_flags = libc::SA_ONSTACK;
    // SAFETY: the handler ends the process, which one may.
    assert_eq!(unsafe { libc::sigaction(libc::SIGSEGV, &action, ptr::null_mut()) }, 0);
}

#[test]
fn a_fault_that_is_no_overflow_reaches_the_handler_before_ours() {
    let (_, stderr, status) = dies(
        "a_fault_that_is_no_overflow_reaches_the_handler_before_ours",
        |_| (),
        || {
            handle_faults();
            spawn(fault).join().unwrap();
        },
    );
    assert_eq!(status.code(), Some(42), "{stderr}");
}

#[test]
fn a_fault_of_a_plain_thread_reaches_the_handler_before_ours() {
    let (_, stderr, status) = dies(
        "a_fault_of_a_plain_thread_reaches_the_handler_before_ours",
        |_| (),
        || {
            handle_faults();
            spawn(|| ()).join().unwrap();
            fault();
        },
    );
    assert_eq!(status.code(), Some(42), "{stderr}");
}

#[test]
fn a_signal_that_somebody_sent_reaches_the_handler_before_ours() {
    let (_, stderr, status) = dies(
        "a_signal_that_somebody_sent_reaches_the_handler_before_ours",
        |_| (),
        || {
            handle_faults();
            spawn(|| {
                // SAFETY: a signal for which there is a handler.
                unsafe { libc::raise(libc::SIGSEGV) }
            })
            .join()
            .unwrap();
        },
    );
    assert_eq!(status.code(), Some(42), "{stderr}");
}

#[test]
fn a_signal_that_somebody_sent_does_what_it_does_to_any_program_of_stds() {
    let name = "a_signal_that_somebody_sent_does_what_it_does_to_any_program_of_stds";
    let (stdout, stderr, status) = dies(
        name,
        |_| (),
        || {
            spawn(|| {
                // SAFETY: a signal for which there is a handler. std's puts the default action back, and waits for the fault
                // to come again.
                unsafe { libc::raise(libc::SIGSEGV) };
                println!("once");
                // SAFETY: a signal that ends the process.
                unsafe { libc::raise(libc::SIGSEGV) };
            })
            .join()
            .unwrap();
        },
    );
    assert!(stdout.contains("once"));
    assert_eq!(status.signal(), Some(libc::SIGSEGV), "{stderr}");
}

#[test]
fn an_overflow_is_told_also_where_faults_have_a_handler() {
    let died = dies(
        "an_overflow_is_told_also_where_faults_have_a_handler",
        |_| (),
        || {
            handle_faults();
            overflows(|gone| spawn(then_recurse(gone)));
        },
    );
    assert_eq!(overflow_line(&died), format!("task #N has overflowed its stack of 256 KiB; {KNOBS}"));
}
