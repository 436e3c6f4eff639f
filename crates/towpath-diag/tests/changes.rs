//! Changes of state are told one by one and in order to root, and found by looking for others.

mod common;

use std::collections::HashMap;
use std::io::Read;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use common::{PLACES, Pair, WATCHDOG, is_root, unprivileged};
use rustix::net::{AddressFamily, SocketType, sockopt};
use towpath_diag::State::{
    CloseWait, Closed, Established, FinWait1, FinWait2, LastAck, Listen, SynReceived, SynSent, TimeWait,
};
use towpath_diag::{Change, Changes, Event, Filter, Key, Source, State, monotonic};

const INTERVAL: Duration = Duration::from_millis(20);

/// What was told so far.
struct Told {
    changes: Changes,
    all: Vec<Change>,
}

impl Told {
    fn of(changes: Changes) -> Told {
        Told { changes, all: Vec::new() }
    }

    fn exact(filter: &Filter) -> Told {
        let changes = Changes::open(filter, INTERVAL).unwrap();
        assert_eq!(*changes.source(), Source::Exact);
        Told::of(changes)
    }

    /// Takes changes until one is like this.
    fn until(&mut self, what: &str, is: impl Fn(&Change) -> bool) -> Change {
        let started = Instant::now();
        loop {
            let left = WATCHDOG.checked_sub(started.elapsed());
            let left = left.unwrap_or_else(|| panic!("waited in vain for {what}: {:#?}", self.all));
            if let Some(Event::Change(change)) = self.changes.next(Some(left)).unwrap() {
                self.all.push(change);
                if is(&change) {
                    return change;
                }
            }
        }
    }

    /// The states that the sockets went through, by their local ports; each must begin where the last one ended.
    fn lives(&self) -> HashMap<(u16, Key), Vec<State>> {
        let mut lives = HashMap::new();
        for change in &self.all {
            let states: &mut Vec<State> = lives.entry((change.local.port(), change.key)).or_default();
            assert!(states.last().is_none_or(|last| *last == change.old), "{change:?} after {states:?}");
            if states.is_empty() {
                states.push(change.old);
            }
            states.push(change.new);
        }
        lives
    }

    fn life(&self, port: u16, first: State) -> Vec<State> {
        let lives = self.lives();
        let mut lives = lives.iter().filter(|((of, _), states)| *of == port && states[1] == first);
        let states = lives.next().unwrap_or_else(|| panic!("{port}: {:#?}", self.all)).1.clone();
        assert!(lives.next().is_none(), "two lives of {port}: {:#?}", self.all);
        states
    }
}

/// A socket that has a port, and does not listen yet.
fn bound((bind, _): (&str, &str)) -> TcpListener {
    let here: SocketAddr = bind.parse().unwrap();
    let family = if here.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let fd = rustix::net::socket(family, SocketType::STREAM, None).unwrap();
    rustix::net::bind(&fd, &here).unwrap();
    fd.into()
}

/// From listen to TIME-WAIT: the client closes first.
fn whole_life(listener: TcpListener, connect: &str) -> (u16, u16) {
    rustix::net::listen(&listener, 1).unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut client = TcpStream::connect(SocketAddr::new(connect.parse().unwrap(), port)).unwrap();
    let mut server = listener.accept().unwrap().0;
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(server.read(&mut [0]).unwrap(), 0);
    drop(server);
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
    (port, client.local_addr().unwrap().port())
}

#[test]
fn each_state_of_a_life_is_told_in_order_from_both_ends() {
    if !is_root("each_state_of_a_life_is_told_in_order_from_both_ends") {
        return;
    }
    for place in PLACES {
        let listener = bound(place);
        let here = listener.local_addr().unwrap().port();
        let (mut told, before) = (Told::exact(&Filter::new().port(here)), monotonic());
        let (here, there) = whole_life(listener, place.1);
        told.until("the listener's close", |change| change.old == Listen && change.new == Closed);

        assert_eq!(told.life(here, Listen), [Closed, Listen, Closed]);
        assert_eq!(told.life(there, SynSent), [Closed, SynSent, Established, FinWait1, FinWait2, TimeWait]);
        assert_eq!(told.life(here, SynReceived), [Listen, SynReceived, Established, CloseWait, LastAck, Closed]);

        let ip = place.1.parse::<std::net::IpAddr>().unwrap().to_canonical();
        for change in told.all.iter().filter(|change| change.old != Listen || change.new != Closed) {
            assert!((before..=monotonic()).contains(&change.at), "{before:?} {change:?}");
            assert_eq!(change.exact, change.new != TimeWait);
            if let Some(peer) = change.peer {
                assert_eq!((change.local.ip(), peer.ip()), (ip, ip));
                assert!([here, there].contains(&change.local.port()) && [here, there].contains(&peer.port()));
            } else {
                assert_eq!((change.old, change.new), (Closed, Listen));
            }
        }
        assert!(told.all.is_sorted_by_key(|change| change.at), "{:#?}", told.all);
    }
}

#[test]
fn a_refused_connection_is_told_with_its_port() {
    if !is_root("a_refused_connection_is_told_with_its_port") {
        return;
    }
    let nobody = bound(PLACES[0]);
    let there = nobody.local_addr().unwrap();
    let mut told = Told::exact(&Filter::new().port(there.port()));
    TcpStream::connect(there).unwrap_err();
    let end = told.until("the close", |change| change.new == Closed);
    assert_eq!(told.life(end.local.port(), SynSent), [Closed, SynSent, Closed]);
}

#[test]
fn a_connection_that_nobody_answers_is_told_with_its_port() {
    if !is_root("a_connection_that_nobody_answers_is_told_with_its_port") {
        return;
    }
    let listener = bound(PLACES[0]);
    rustix::net::listen(&listener, 0).unwrap();
    let there = listener.local_addr().unwrap();
    let mut told = Told::exact(&Filter::new().port(there.port()));
    // The accept queue is full with one, and further ones get no answer.
    let _queued = TcpStream::connect(there).unwrap();
    told.until("the first one's acceptance", |change| change.old == SynReceived);
    for _ in 0..2 {
        let fd =
            rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, rustix::net::SocketFlags::NONBLOCK, None);
        let fd = fd.unwrap();
        rustix::net::connect(&fd, &there).unwrap_err();
        let local = SocketAddr::try_from(rustix::net::getsockname(&fd).unwrap()).unwrap();
        let sent = told.until("the SYN", |change| change.new == SynSent);
        assert_eq!((sent.local, sent.peer), (local, Some(there)));
        // It is still on its way while the next one is made.
        std::mem::forget(fd);
    }
}

#[test]
fn what_is_left_of_a_closed_socket_is_followed() {
    if !is_root("what_is_left_of_a_closed_socket_is_followed") {
        return;
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut told = Told::exact(&Filter::new().port(port));
    let here = listener.local_addr().unwrap();
    // From an address of which nobody else takes a port meanwhile.
    let connect = |from: SocketAddr| {
        let fd = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        rustix::net::bind(&fd, &from).unwrap();
        rustix::net::connect(&fd, &here).unwrap();
        TcpStream::from(fd)
    };
    let client = connect(SocketAddr::from(([127, 0, 0, 77], 0)));
    let there = client.local_addr().unwrap();
    // Nobody has it any more, and it is in FIN-WAIT-2 until the peer closes, too.
    drop(listener.accept().unwrap());
    told.until("FIN-WAIT-2", |change| change.new == FinWait2);
    drop(client);
    let end = told.until("TIME-WAIT", |change| change.new == TimeWait);
    assert!(!end.exact);
    assert_eq!(told.life(port, SynReceived), [Listen, SynReceived, Established, FinWait1, FinWait2, TimeWait]);
    // The same two ports again: what was left gives way.
    let _again = connect(there);
    let end = told.until("the end of TIME-WAIT", |change| change.old == TimeWait);
    assert_eq!((end.new, end.local, end.peer), (Closed, here, Some(there)));
    let new = told.until("the new connection", |change| change.local == here && change.new == Established);
    assert_ne!(new.key, end.key);
}

#[test]
fn only_what_the_filter_admits_is_told() {
    if !is_root("only_what_the_filter_admits_is_told") {
        return;
    }
    let listener = bound(PLACES[0]);
    let here = listener.local_addr().unwrap().port();
    let mut told = Told::exact(&Filter::new().port(here).states(State::FinWait2));
    let other = bound(PLACES[0]);
    whole_life(other, PLACES[0].1);
    let (here, there) = whole_life(listener, PLACES[0].1);
    told.until("the end of FIN-WAIT-2", |change| change.old == FinWait2);
    assert_eq!(told.all.len(), 2, "{:#?}", told.all);
    assert!(told.all.iter().all(|change| change.local.port() == there && change.peer.unwrap().port() == here));
}

#[test]
fn what_happens_on_several_processors_is_told_in_order() {
    if !is_root("what_happens_on_several_processors_is_told_in_order") {
        return;
    }
    let listeners = [(); 4].map(|()| bound(PLACES[0]));
    let filter = listeners.iter().fold(Filter::new(), |filter, of| filter.port(of.local_addr().unwrap().port()));
    let mut told = Told::exact(&filter);
    std::thread::scope(|scope| {
        for listener in &listeners {
            scope.spawn(move || {
                for _ in 0..200 {
                    whole_life(listener.try_clone().unwrap(), PLACES[0].1);
                }
            });
        }
        let mut ended = 0;
        while ended < 4 * 200 {
            told.until("a server's end", |change| change.old == LastAck);
            ended += 1;
        }
    });
    let exact: Vec<_> = told.all.iter().filter(|change| change.exact).collect();
    let mut last = HashMap::new();
    for change in &exact {
        let before = last.insert(change.key, change);
        assert!(before.is_none_or(|before| before.at <= change.at), "{before:?} came before {change:?}");
    }
    // A processor that is held up while it writes one down is rare.
    let late = exact.windows(2).filter(|two| two[1].at < two[0].at).count();
    assert!(late * 100 < exact.len(), "{late} of {} came late", exact.len());
    assert!(told.lives().len() >= 4 * 200 * 2);
}

#[test]
fn changes_that_come_too_fast_are_counted() {
    if !is_root("changes_that_come_too_fast_are_counted") {
        return;
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let here = listener.local_addr().unwrap();
    let mut changes = Changes::open(&Filter::new().port(here.port()), INTERVAL).unwrap();
    // Six changes each, of which there is room for some thirteen thousand a processor.
    let enough = 3500 * std::thread::available_parallelism().unwrap().get();
    for _ in 0..enough {
        let client = TcpStream::connect(here).unwrap();
        sockopt::set_socket_linger(&client, Some(Duration::ZERO)).unwrap();
        drop((client, listener.accept().unwrap()));
    }
    let (mut told, mut lost) = (0, 0);
    while let Some(event) = changes.next(Some(Duration::from_millis(100))).unwrap() {
        match event {
            Event::Change(_) => told += 1,
            Event::Lost(some) => lost += some,
            other => panic!("{other:?}"),
        }
    }
    assert!(told > 10_000 && lost > 0, "{told} told, {lost} lost");
    // Each is accounted for. Those of others that might be of this port are lost with them.
    assert!(told + lost >= 6 * enough as u64, "{told} told, {lost} lost, of {enough} connections");
}

/// The folder of tracing instances, through a mount of our own if need be.
fn instances() -> PathBuf {
    use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};
    let context = fsopen("tracefs", FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
    fsconfig_create(&context).unwrap();
    let mount = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).unwrap();
    let path = format!("/proc/self/fd/{}/instances", std::os::fd::IntoRawFd::into_raw_fd(mount));
    path.into()
}

fn ours() -> Vec<String> {
    let prefix = format!("towpath-{}", std::process::id());
    let names = std::fs::read_dir(instances()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| *name == prefix || name.starts_with(&format!("{prefix}-"))).collect()
}

/// Alone in its process, so that the others' instances do not count.
#[test]
fn an_instance_is_removed_on_drop_and_a_dead_ones_by_the_next() {
    if is_root("an_instance_is_removed_on_drop_and_a_dead_ones_by_the_next") {
        alone("instances_come_and_go", "exec \"$0\" \"$@\"");
    }
}

#[test]
#[ignore = "run by another test, in a process of its own"]
fn instances_come_and_go() {
    let mut dead = Command::new("true").spawn().unwrap();
    dead.wait().unwrap();
    let left = instances().join(format!("towpath-{}", dead.id()));
    std::fs::create_dir(&left).unwrap();

    let changes = [(); 2].map(|()| Changes::open(&Filter::new(), INTERVAL).unwrap());
    assert!(!left.exists());
    assert_eq!(ours().len(), 2);
    // So that the times compare with those of others.
    let clock = std::fs::read_to_string(instances().join(&ours()[0]).join("trace_clock")).unwrap();
    assert!(clock.contains("[mono]"), "{clock}");
    drop(changes);
    assert_eq!(ours(), [""; 0]);
}

#[test]
fn tracefs_is_mounted_where_nobody_else_sees_it() {
    if is_root("tracefs_is_mounted_where_nobody_else_sees_it") {
        let unmount = "umount -l /sys/kernel/tracing; umount -l /sys/kernel/debug; exec \"$0\" \"$@\"";
        alone("exact_without_a_mounted_tracefs", unmount);
    }
}

#[test]
#[ignore = "run by another test, in a mount namespace of its own"]
fn exact_without_a_mounted_tracefs() {
    let before = std::fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!before.contains("tracefs"), "{before}");
    let changes = Changes::open(&Filter::new(), INTERVAL).unwrap();
    assert_eq!((changes.source(), changes.place()), (&Source::Exact, Some("a mount of tracefs of our own")));
    assert_eq!(std::fs::read_to_string("/proc/self/mounts").unwrap(), before);
}

/// Runs one test of this file by way of a shell, in a mount namespace of its own.
fn alone(test: &str, shell: &str) {
    let ours = std::env::current_exe().unwrap();
    let output = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", shell])
        .arg(ours)
        .args(["--exact", "--ignored", "--nocapture", test])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn without_privilege_changes_are_sampled_and_say_why() {
    let listener = bound(PLACES[0]);
    let filter = Filter::new().port(listener.local_addr().unwrap().port());
    let changes = unprivileged(|| Changes::open(&filter, INTERVAL).unwrap());
    let Source::Sampled { interval, why } = changes.source() else { panic!("{:?}", changes.source()) };
    assert_eq!(*interval, INTERVAL);
    assert!(why.contains("root"), "{why}");
    assert_eq!(changes.place(), None);
    sampled_life(Told::of(changes), listener, PLACES[0].1);
}

#[test]
fn a_life_is_sampled_in_every_family() {
    for place in PLACES {
        let listener = bound(place);
        let filter = Filter::new().port(listener.local_addr().unwrap().port());
        sampled_life(Told::of(Changes::sampled(&filter, INTERVAL).unwrap()), listener, place.1);
    }
}

/// A life that stays in each state until that was seen.
fn sampled_life(mut told: Told, listener: TcpListener, connect: &str) {
    rustix::net::listen(&listener, 1).unwrap();
    let here = listener.local_addr().unwrap().port();
    let seen = |change: &Change, port: u16, new: State| change.local.port() == port && change.new == new;
    told.until("the listener", |change| seen(change, here, Listen));
    let mut client = TcpStream::connect(SocketAddr::new(connect.parse().unwrap(), here)).unwrap();
    let there = client.local_addr().unwrap().port();
    told.until("the connection", |change| seen(change, there, Established));
    let mut server = listener.accept().unwrap().0;
    client.shutdown(Shutdown::Write).unwrap();
    told.until("half a close", |change| seen(change, there, FinWait2));
    assert_eq!(server.read(&mut [0]).unwrap(), 0);
    drop(server);
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
    told.until("TIME-WAIT", |change| seen(change, there, TimeWait));
    drop(listener);
    told.until("the listener's close", |change| change.old == Listen && change.new == Closed);

    assert!(told.all.iter().all(|change| !change.exact));
    let client = told.life(there, Established);
    assert!(
        [client.first(), client.last()] == [Some(&Closed), Some(&TimeWait)] && client.contains(&FinWait2),
        "{client:?}"
    );
    assert_eq!(told.life(here, Listen), [Closed, Listen, Closed]);
    let server = told.life(here, Established);
    assert!(server.starts_with(&[Closed, Established, CloseWait]) && server.last() == Some(&Closed), "{server:?}");
}

#[test]
fn a_socket_that_was_there_is_not_told() {
    let pair = Pair::new();
    let mut changes = vec![Changes::sampled(&Filter::new().port(pair.port()), INTERVAL).unwrap()];
    if is_root("a_socket_that_was_there_is_not_told") {
        changes.push(Changes::open(&Filter::new().port(pair.port()), INTERVAL).unwrap());
    }
    for mut changes in changes {
        let started = Instant::now();
        assert_eq!(changes.next(Some(5 * INTERVAL)).unwrap(), None);
        assert!(started.elapsed() >= 5 * INTERVAL);
    }
}

#[test]
fn the_descriptor_is_readable_when_there_is_something_to_tell() {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let listener = bound(PLACES[0]);
    let filter = Filter::new().port(listener.local_addr().unwrap().port());
    let changes = [Changes::open(&filter, INTERVAL).unwrap(), Changes::sampled(&filter, INTERVAL).unwrap()];
    rustix::net::listen(&listener, 1).unwrap();
    for mut changes in changes {
        let event = common::until("the listener", || {
            let patience = Timespec { tv_sec: 10, tv_nsec: 0 };
            let ready = poll(&mut [PollFd::new(&changes.as_fd(), PollFlags::IN)], Some(&patience)).unwrap();
            assert_eq!(ready, 1, "{:?}", changes.source());
            changes.next(Some(Duration::ZERO)).unwrap()
        });
        assert!(matches!(event, Event::Change(change) if change.new == Listen), "{event:?}");
    }
}

#[test]
fn the_time_is_heeded_however_often_one_looks() {
    let pair = Pair::new();
    for interval in [Duration::ZERO, Duration::MAX] {
        let mut changes = Changes::sampled(&Filter::new().port(pair.port()), interval).unwrap();
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let told = [0, 50].map(|ms| changes.next(Some(Duration::from_millis(ms))).unwrap());
            let _ = tell.send(told); // somebody has given up otherwise
        });
        let told = told.recv_timeout(WATCHDOG).unwrap_or_else(|_| panic!("every {interval:?} it does not return"));
        assert_eq!(told, [None, None]);
    }
}
