//! What `watch` costs with ten thousand sockets, beside `ss`, in one run:
//!
//! ```sh
//! cargo test --release -p towpath-cli --test watch_cost -- --nocapture
//! ```
//!
//! CPU time, not time: another's load on the machine delays both, and makes neither dearer than the other.

mod common;

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::terminal::on_terminal;
use common::{missing, skipped};
use rustix::process::{Resource, Rlimit, WaitId, WaitIdOptions, getrlimit, setrlimit, waitid};

/// Connections; each is two sockets here.
const CONNECTIONS: usize = 5_000;
/// How many refreshes are measured, one a second.
const REFRESHES: u32 = 12;

/// The CPU time that a process has used, in all its threads, those that have ended aside.
fn cpu(pid: u32) -> Duration {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    // The first number: nanoseconds on a processor (the kernel's Documentation/scheduler/sched-stats.rst).
    let used = threads.filter_map(|thread| {
        let text = fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?; // unless it has just ended
        Some(text.split(' ').next().unwrap().parse::<u64>().unwrap())
    });
    Duration::from_nanos(used.sum())
}

/// What one `ss -tinm` takes.
fn ss() -> Duration {
    let mut child = Command::new("ss").arg("-tinm").stdout(Stdio::null()).spawn().unwrap();
    let pid = rustix::process::Pid::from_child(&child);
    // While nobody has waited for it, its figures are there.
    waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT).unwrap();
    let used = cpu(child.id());
    assert!(child.wait().unwrap().success());
    used
}

/// The time of day in the first line.
fn clock(screen: &str) -> Option<&str> {
    screen.lines().next()?.split_whitespace().find(|word| word.len() == 8 && word.matches(':').count() == 2)
}

#[test]
fn a_refresh_takes_a_fifth_of_what_ss_takes_and_little_of_a_processor() {
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.unwrap_or(u64::MAX);
    let few = most < 2 * CONNECTIONS as u64 + 200;
    if skipped(missing("ss").as_deref()) || skipped(few.then_some("too few descriptors are allowed (ulimit -Hn)")) {
        return;
    }
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let connect = |_| (TcpStream::connect(addr).unwrap(), listener.accept().unwrap().0);
    let _kept: Vec<_> = (0..CONNECTIONS).map(connect).collect();

    ss();
    let mut theirs: Vec<Duration> = (0..3).map(|_| ss()).collect();
    let mut watch = on_terminal(&["watch", "-n", "1s", &addr.to_string()], (120, 50));
    let mut screen = watch.wait_until("all sockets, and their owners", |screen| {
        screen.contains(&format!("{addr}")) && screen.contains("ESTAB") && screen.contains("watch_cost")
    });
    let (before, start) = (cpu(watch.id()), Instant::now());
    for _ in 0..REFRESHES {
        let last = clock(&screen).map(str::to_owned);
        screen = watch.wait_until("the next refresh", |screen| clock(screen).map(str::to_owned) != last);
    }
    let (used, elapsed) = (cpu(watch.id()).saturating_sub(before), start.elapsed());
    watch.press("q");
    assert!(watch.finish().0.success());
    theirs.extend((0..3).map(|_| ss()));

    // On a busy machine we may have missed some.
    let ours = used.div_f64(elapsed.as_secs_f64().max(REFRESHES.into()));
    theirs.sort();
    let median = theirs[theirs.len() / 2];
    let ratio = ours.as_secs_f64() / median.as_secs_f64();
    // By default, one refresh in two seconds.
    let share = ours.as_secs_f64() / 2.0;
    println!(
        "{} sockets: a refresh takes {ours:.1?}, ss -tinm {median:.1?} (from {:.1?} to {:.1?}): {ratio:.3} of it; \
         {:.2} % of a processor with -n 1s ({:.1?}), {:.2} % by default",
        2 * CONNECTIONS,
        theirs[0],
        theirs[theirs.len() - 1],
        100.0 * used.as_secs_f64() / elapsed.as_secs_f64(),
        elapsed,
        100.0 * share,
    );
    // Without the optimiser our own part takes two to three times as long: then this only tells when all is lost.
    let slower = if cfg!(debug_assertions) { 4.0 } else { 1.0 };
    assert!(ratio <= slower * 0.2, "{ratio:.3} of what ss takes");
    assert!(share <= slower * 0.05, "{:.1} % of a processor", 100.0 * share);
}
