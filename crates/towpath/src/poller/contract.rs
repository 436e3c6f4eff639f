//! The contract, tested on each poller that this system has.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);
const TOKEN: Token = Token { index: 3, generation: 5 };

pub(super) fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let stream = TcpStream::connect(listener.local_addr().expect("its address")).expect("a connection");
    let (peer, _) = listener.accept().expect("its other end");
    stream.set_nonblocking(true).expect("a mode");
    peer.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    (stream, peer)
}

fn on_each(body: impl Fn(Poller, Waker)) {
    for wish in [PollerKind::Os, PollerKind::Uring] {
        let (kind, refusal) = available(wish);
        if let Some(why) = refusal {
            assert!(std::env::var_os("TOWPATH_NO_SKIP").is_none(), "{wish}: {why}");
            continue;
        }
        let (poller, waker) = Poller::new(kind).expect("a poller");
        body(poller, waker);
    }
}

fn wait(poller: &mut Poller, timeout: Option<Duration>, events: &mut Vec<Event>) {
    poller.wait(timeout).expect("a wait");
    poller.take(|event| events.push(event));
}

/// Waits until the poller has reported all of `wanted`, and returns all that it reported.
fn report(poller: &mut Poller, wanted: Ready) -> Ready {
    let (mut events, mut ready) = (Vec::new(), Ready::empty());
    let deadline = Instant::now() + PATIENCE;
    while !ready.contains(wanted) {
        assert!(Instant::now() < deadline, "{poller:?} reports {ready:?} in place of {wanted:?}");
        wait(poller, Some(PATIENCE), &mut events);
        for event in events.drain(..) {
            assert_eq!(event.token, TOKEN);
            ready |= event.ready;
        }
    }
    ready
}

/// What the poller reports without waiting.
fn reports(poller: &mut Poller) -> Vec<Event> {
    let mut events = Vec::new();
    wait(poller, Some(Duration::ZERO), &mut events);
    events
}

#[test]
fn what_is_ready_when_it_is_added_is_reported() {
    on_each(|mut poller, _waker| {
        let (stream, mut peer) = pair();
        peer.write_all(b"hello").expect("room");
        while stream.peek(&mut [0]).is_err() {}
        poller.add(stream.as_fd(), TOKEN, Interest::Both).expect("room");
        report(&mut poller, Ready::READABLE | Ready::WRITABLE);
    });
}

#[test]
fn each_change_is_reported_and_nothing_again() {
    on_each(|mut poller, _waker| {
        let (stream, mut peer) = pair();
        poller.add(stream.as_fd(), TOKEN, Interest::Both).expect("room");
        assert_eq!(report(&mut poller, Ready::WRITABLE), Ready::WRITABLE);
        for _ in 0..10 {
            // Not read between: it is the change that counts.
            peer.write_all(b"hello").expect("room");
            report(&mut poller, Ready::READABLE);
            assert!(reports(&mut poller).is_empty(), "{poller:?}");
        }
    });
}

#[test]
fn writing_is_reported_from_when_that_was_asked_for() {
    on_each(|mut poller, _waker| {
        let (mut stream, mut peer) = pair();
        poller.add(stream.as_fd(), TOKEN, Interest::Reading).expect("room");
        peer.write_all(b"hello").expect("room");
        let ready = report(&mut poller, Ready::READABLE);
        assert!(matches!(poller, Poller::Uring(..)) || !ready.contains(Ready::WRITABLE), "{poller:?}: {ready:?}");
        for filled in [false, true] {
            if filled {
                while stream.write(&[0; 65_536]).is_ok() {}
            }
            reports(&mut poller);
            poller.add_writing(stream.as_fd(), TOKEN).expect("a registration");
            if filled {
                let ready = reports(&mut poller).iter().fold(Ready::empty(), |all, event| all | event.ready);
                assert!(!ready.contains(Ready::WRITABLE), "{poller:?}: {ready:?}");
                let drained = std::thread::spawn(move || while peer.read(&mut [0; 65_536]).is_ok_and(|n| n > 0) {});
                report(&mut poller, Ready::WRITABLE);
                stream.shutdown(std::net::Shutdown::Both).expect("a connection");
                drained.join().expect("it only reads");
                return;
            } else if matches!(poller, Poller::Os(_)) {
                report(&mut poller, Ready::WRITABLE);
            }
        }
    });
}

#[test]
fn urgent_data_is_reported_and_no_other_is_taken_for_it() {
    on_each(|mut poller, _waker| {
        let (mut stream, mut peer) = pair();
        poller.add(stream.as_fd(), TOKEN, Interest::Both).expect("room");
        for _ in 0..10 {
            peer.write_all(b"hello").expect("room");
            let ready = report(&mut poller, Ready::READABLE);
            assert!(!ready.contains(Ready::URGENT), "{poller:?}: {ready:?}");
            assert_eq!(stream.read(&mut [0; 8]).expect("what was reported"), 5);
        }
        rustix::net::send(&peer, b"!", rustix::net::SendFlags::OOB).expect("room");
        report(&mut poller, Ready::URGENT);
    });
}

#[test]
fn the_end_of_the_peer_is_reported() {
    on_each(|mut poller, _waker| {
        let (stream, peer) = pair();
        poller.add(stream.as_fd(), TOKEN, Interest::Both).expect("room");
        report(&mut poller, Ready::WRITABLE);
        peer.shutdown(std::net::Shutdown::Write).expect("a connection");
        let ready = report(&mut poller, Ready::READABLE | Ready::READ_CLOSED);
        assert!(!ready.contains(Ready::HANGUP), "{poller:?}: {ready:?}");
        stream.shutdown(std::net::Shutdown::Write).expect("a connection");
        drop(peer);
        report(&mut poller, Ready::HANGUP);
    });
}

#[test]
fn a_reset_is_reported() {
    on_each(|mut poller, _waker| {
        let (stream, peer) = pair();
        poller.add(stream.as_fd(), TOKEN, Interest::Both).expect("room");
        report(&mut poller, Ready::WRITABLE);
        rustix::net::sockopt::set_socket_linger(&peer, Some(Duration::ZERO)).expect("an option");
        drop(peer);
        report(&mut poller, Ready::ERROR | Ready::HANGUP);
    });
}

#[test]
fn what_is_removed_is_reported_no_more_and_can_be_added_anew() {
    on_each(|mut poller, _waker| {
        let (stream, mut peer) = pair();
        poller.add(stream.as_fd(), TOKEN, Interest::Both).expect("room");
        report(&mut poller, Ready::WRITABLE);
        poller.remove(stream.as_fd(), TOKEN);
        peer.write_all(b"hello").expect("room");
        while stream.peek(&mut [0]).is_err() {}
        assert!(reports(&mut poller).is_empty(), "{poller:?}");
        let token = Token { generation: TOKEN.generation + 2, ..TOKEN };
        poller.add(stream.as_fd(), token, Interest::Both).expect("room");
        let mut events = Vec::new();
        wait(&mut poller, Some(PATIENCE), &mut events);
        assert!(events.iter().all(|event| event.token == token), "{poller:?}: {events:?}");
        assert!(events.iter().any(|event| event.ready.contains(Ready::READABLE)), "{poller:?}: {events:?}");
    });
}

#[test]
fn a_closed_descriptor_that_is_forgotten_is_closed_for_its_peer() {
    for forgotten_first in [true, false] {
        // While it is armed, while it has yet to be, and while a report is under way.
        for waits in [true, false] {
            for writes in [true, false] {
                on_each(|mut poller, _waker| {
                    let (stream, mut peer) = pair();
                    poller.add(stream.as_fd(), TOKEN, Interest::Both).expect("room");
                    if waits {
                        report(&mut poller, Ready::WRITABLE);
                    }
                    if writes {
                        peer.write_all(b"hello").expect("room");
                        while stream.peek(&mut [0]).is_err() {}
                        (&stream).read_exact(&mut [0; 5]).expect("what came"); // else it is a reset
                    }
                    if forgotten_first {
                        poller.forget(TOKEN);
                        drop(stream);
                    } else {
                        drop(stream);
                        poller.forget(TOKEN);
                    }
                    assert_eq!(peer.read(&mut [0]).expect("an end, and in time"), 0, "{poller:?}");
                });
            }
        }
    }
}

#[test]
fn a_poller_that_goes_lets_go_of_its_files() {
    on_each(|mut poller, _waker| {
        let (stream, mut peer) = pair();
        poller.add(stream.as_fd(), TOKEN, Interest::Both).expect("room");
        report(&mut poller, Ready::WRITABLE);
        drop(poller);
        let began = Instant::now();
        drop(stream);
        assert_eq!(peer.read(&mut [0]).expect("an end, and in time"), 0);
        assert!(began.elapsed() < PATIENCE / 2);
    });
}

#[test]
fn a_wake_ends_a_wait_and_comes_before_it_as_well() {
    on_each(|mut poller, waker| {
        for _ in 0..100 {
            waker.wake();
            waker.wake();
            let mut events = Vec::new();
            wait(&mut poller, None, &mut events);
            let thread = std::thread::spawn({
                let waker = waker.clone();
                move || waker.wake()
            });
            wait(&mut poller, None, &mut events);
            assert!(events.is_empty(), "{poller:?}: {events:?}");
            thread.join().expect("it only wakes");
        }
    });
}

#[test]
fn a_wait_ends_when_its_time_is_over() {
    on_each(|mut poller, _waker| {
        assert!(reports(&mut poller).is_empty());
        let began = Instant::now();
        let mut events = Vec::new();
        wait(&mut poller, Some(Duration::from_millis(20)), &mut events);
        assert!(began.elapsed() >= Duration::from_millis(20), "{poller:?} has nothing to return early for");
        assert!(events.is_empty());
    });
}

#[test]
fn an_unknown_name_is_refused_and_a_known_one_is_what_it_says() {
    for kind in [PollerKind::Os, PollerKind::Uring] {
        assert_eq!(kind.to_string().parse::<PollerKind>().expect("its own name"), kind);
    }
    let error = "kqueue".parse::<PollerKind>().expect_err("no such poller");
    assert_eq!(error.to_string(), "unknown poller \"kqueue\": there are \"os\" and \"uring\"");
}
