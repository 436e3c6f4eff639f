//! Closing: whom it wakes and with what, what the peer sees, what becomes of the descriptor's number, and that it waits for
//! nobody.

mod common;

use std::fs::File;
use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;

use common::{
    CALLERS, Caller, alone, descriptors, fill, has_event, listen_again, narrow_pair, on_each_poller,
    on_tasks_and_threads, pair, until,
};
use towpath::net::{TcpListener, TcpStream, is_closed};
use towpath::sync::channel::{self, TryRecvError};
use towpath::time::{Duration, Instant};

fn assert_closed<T: std::fmt::Debug>(result: io::Result<T>) {
    let error = result.unwrap_err();
    assert!(is_closed(&error), "{error:?}");
    assert_eq!(error.kind(), ErrorKind::NotConnected);
    assert_eq!(error.raw_os_error(), None);
}

/// Who waits, and who closes.
fn pairs_of_callers() -> impl Iterator<Item = (Caller, Caller)> {
    CALLERS.into_iter().flat_map(|waits| CALLERS.map(|closes| (waits, closes)))
}

#[test]
fn closing_wakes_a_blocked_reader() {
    on_tasks_and_threads(|| {
        for (waits, closes) in pairs_of_callers() {
            let calls: [fn(&TcpStream) -> io::Result<usize>; 3] = [
                |mut stream| stream.read(&mut [0; 8]),
                |mut stream| stream.read_vectored(&mut [IoSliceMut::new(&mut [0; 8])]),
                |stream| stream.peek(&mut [0; 8]),
            ];
            for call in calls {
                let (stream, _peer) = pair();
                let clone = stream.try_clone().unwrap();
                let reader = waits.wait_in("read", &stream, move || call(&clone));
                closes.run(move || stream.close().unwrap()).join().unwrap();
                assert_closed(reader.join().unwrap());
            }
        }
    });
}

#[test]
fn closing_wakes_a_blocked_writer_and_who_waits_for_its_turn() {
    on_tasks_and_threads(|| {
        for (waits, closes) in pairs_of_callers() {
            let (stream, _peer) = narrow_pair();
            let clone = stream.try_clone().unwrap();
            let writer = waits.wait_in("write", &stream, move || (&clone).write_all(&[0; 200_000]));
            let clone = stream.try_clone().unwrap();
            let next = waits.wait_in("write (another write first)", &stream, move || (&clone).write(b"x"));
            closes.run(move || stream.close().unwrap()).join().unwrap();
            assert_closed(writer.join().unwrap());
            assert_closed(next.join().unwrap());
        }
    });
}

#[test]
fn closing_wakes_a_blocked_acceptor() {
    on_tasks_and_threads(|| {
        for (waits, closes) in pairs_of_callers() {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let clone = listener.try_clone().unwrap();
            let acceptor = waits.wait_in("accept", &listener, move || clone.accept());
            closes.run(move || listener.close().unwrap()).join().unwrap();
            assert_closed(acceptor.join().unwrap());
        }
    });
}

#[test]
fn closing_wakes_all_who_wait_in_any_clone() {
    on_tasks_and_threads(|| {
        let (stream, _peer) = narrow_pair();
        let mut waiting = Vec::new();
        for caller in [CALLERS, CALLERS].concat() {
            let clone = stream.try_clone().unwrap();
            waiting.push(caller.wait_in("read", &stream, move || (&clone).read(&mut [0; 8])));
        }
        let clone = stream.try_clone().unwrap();
        let write = move || (&clone).write_all(&[0; 200_000]).map(|()| 0);
        waiting.push(Caller::Task.wait_in("write", &stream, write));
        stream.close().unwrap();
        for call in waiting {
            assert_closed(call.join().unwrap());
        }
    });
}

#[test]
fn closing_with_a_deadline_set_is_still_closing() {
    on_tasks_and_threads(|| {
        for caller in CALLERS {
            let (stream, _peer) = pair();
            stream.set_deadline(Some(Instant::now() + common::PATIENCE * 10)).unwrap();
            let clone = stream.try_clone().unwrap();
            let reader = caller.wait_in("read", &stream, move || (&clone).read(&mut [0; 8]));
            stream.set_deadline(Some(Instant::now() + common::PATIENCE * 20)).unwrap();
            stream.close().unwrap();
            assert_closed(reader.join().unwrap());

            // That it is closed is said before that it is late.
            let (mut stream, _peer) = pair();
            stream.set_deadline(Some(Instant::now())).unwrap();
            assert_eq!(stream.read(&mut [0; 8]).unwrap_err().kind(), ErrorKind::TimedOut);
            stream.close().unwrap();
            assert_closed(stream.read(&mut [0; 8]));
            assert_closed(stream.write(b"x"));
        }
    });
}

#[test]
fn every_call_on_a_closed_stream_says_so() {
    on_tasks_and_threads(|| {
        let (stream, mut peer) = pair();
        peer.write_all(b"hello").unwrap();
        until(|| has_event(&stream));
        let clone = stream.try_clone().unwrap();
        clone.close().unwrap();
        for mut stream in [&stream, &clone] {
            assert_closed(stream.read(&mut [0; 8]));
            assert_closed(stream.read_vectored(&mut [IoSliceMut::new(&mut [0; 8])]));
            assert_closed(stream.peek(&mut [0; 8]));
            assert_closed(stream.write(b"x"));
            assert_closed(stream.write_all(b"x"));
            assert_closed(stream.write_vectored(&[IoSlice::new(b"x")]));
            assert_closed(write!(stream, "{}", 1));
            assert_closed(stream.local_addr());
            assert_closed(stream.peer_addr());
            assert_closed(stream.shutdown(Shutdown::Both));
            assert_closed(stream.try_clone());
            assert_closed(stream.set_read_timeout(None));
            assert_closed(stream.set_write_timeout(None));
            assert_closed(stream.read_timeout());
            assert_closed(stream.write_timeout());
            assert_closed(stream.set_deadline(None));
            assert_closed(stream.set_read_deadline(None));
            assert_closed(stream.set_write_deadline(None));
            assert_closed(stream.set_nodelay(true));
            assert_closed(stream.nodelay());
            assert_closed(stream.set_ttl(9));
            assert_closed(stream.ttl());
            assert_closed(stream.set_linger(None));
            assert_closed(stream.linger());
            assert_closed(stream.take_error());
            assert_closed(stream.set_nonblocking(true));
            assert_closed(stream.close());
        }
        assert!(!format!("{stream:?}").is_empty());
        drop(clone);
        assert_closed(stream.into_std());
    });
}

#[test]
fn every_call_on_a_closed_listener_says_so() {
    on_tasks_and_threads(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let clone = listener.try_clone().unwrap();
        clone.close().unwrap();
        for listener in [&listener, &clone] {
            assert_closed(listener.accept());
            assert!(listener.incoming().next().is_none());
            assert_closed(listener.local_addr());
            assert_closed(listener.try_clone());
            assert_closed(listener.set_ttl(9));
            assert_closed(listener.ttl());
            assert_closed(listener.take_error());
            assert_closed(listener.set_nonblocking(true));
            assert_closed(listener.set_deadline(None));
            assert_closed(listener.close());
        }
        // The port is free although handles are left.
        listen_again(addr);
        drop(clone);
        assert_closed(listener.into_std());
    });
}

#[test]
fn a_loop_that_accepts_ends_when_its_listener_is_closed() {
    on_tasks_and_threads(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let clone = listener.try_clone().unwrap();
        let server = Caller::Task.wait_in("accept", &listener, move || clone.incoming().count());
        listener.close().unwrap();
        assert_eq!(server.join().unwrap(), 0);
    });
}

#[test]
fn the_peer_reads_the_end_although_clones_are_left() {
    on_tasks_and_threads(|| {
        let (stream, mut peer) = pair();
        let _clone = stream.try_clone().unwrap();
        (&stream).write_all(b"bye").unwrap();
        stream.close().unwrap();
        let mut text = String::new();
        peer.read_to_string(&mut text).unwrap();
        assert_eq!(text, "bye");
    });
}

#[test]
fn dropping_a_clone_closes_nothing_and_dropping_the_last_one_does() {
    on_tasks_and_threads(|| {
        let (stream, mut peer) = pair();
        let mut clone = stream.try_clone().unwrap();
        drop(stream);
        clone.write_all(b"hello").unwrap();
        let mut buf = [0; 5];
        peer.read_exact(&mut buf).unwrap();
        drop(clone);
        assert_eq!(peer.read(&mut buf).unwrap(), 0);
    });
}

#[test]
fn closing_with_unread_data_resets_the_connection() {
    on_tasks_and_threads(|| {
        let closes: [fn(TcpStream); 2] = [|stream| stream.close().unwrap(), drop];
        for close in closes {
            let (mut stream, mut peer) = pair();
            stream.write_all(b"the last words").unwrap();
            peer.write_all(b"not listened to").unwrap();
            until(|| has_event(&stream));
            close(stream);
            // The last words came before the reset, and the kernel still has them.
            let mut buf = [0; 64];
            assert_eq!(peer.read(&mut buf).unwrap(), 14);
            assert_eq!(peer.read(&mut buf).unwrap_err().kind(), ErrorKind::ConnectionReset);
        }
    });
}

#[test]
fn connections_that_nobody_accepted_are_reset_with_their_listener() {
    on_tasks_and_threads(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let _clone = listener.try_clone().unwrap();
        listener.close().unwrap();
        assert_eq!(client.read(&mut [0; 8]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    });
}

#[test]
fn the_descriptors_number_is_nobody_elses_while_a_handle_lives() {
    alone("the_descriptors_number_is_nobody_elses_while_a_handle_lives", || {
        on_tasks_and_threads(|| {
            let (mut stream, _peer) = pair();
            let number = stream.as_raw_fd();
            stream.close().unwrap();
            let others: Vec<File> = (0..100).map(|_| File::open("/dev/zero").unwrap()).collect();
            assert!(others.iter().all(|other| other.as_raw_fd() != number));
            assert_closed(stream.read(&mut [0; 8]));
            assert_closed(stream.write(b"x"));
            // Not even past the library.
            let past = common::recv_now(&stream, 8).unwrap_err();
            assert!(matches!(past.raw_os_error(), Some(libc::EBADF | libc::ENOTSOCK)), "{past}");
            drop(others);
            drop(stream);
            // Now it is free: of so many descriptors one gets it, for each gets the lowest that is.
            let others: Vec<File> = (0..100).map(|_| File::open("/dev/zero").unwrap()).collect();
            assert!(others.iter().any(|other| other.as_raw_fd() == number));
        });
    });
}

#[test]
fn an_old_handle_never_reaches_a_new_file_while_others_open_and_close() {
    alone("an_old_handle_never_reaches_a_new_file_while_others_open_and_close", || {
        on_tasks_and_threads(|| {
            for caller in CALLERS {
                let (stream, peer) = pair();
                let clone = stream.try_clone().unwrap();
                let user = caller.run(move || {
                    let mut calls = 0;
                    loop {
                        // It would read the zeros of another's file.
                        match (&clone).write(b"x").and_then(|_| common::recv_now(&clone, 8)) {
                            Ok(bytes) => panic!("nobody has sent {bytes:?}"),
                            Err(error) if is_closed(&error) => return calls,
                            Err(_) => calls += 1,
                        }
                        towpath::task::yield_now();
                    }
                });
                until(|| has_event(&peer));
                stream.close().unwrap();
                for _ in 0..100 {
                    drop(File::open("/dev/zero").unwrap());
                }
                assert!(user.join().unwrap() > 0);
            }
        });
    });
}

#[test]
fn no_descriptor_is_left_behind() {
    alone("no_descriptor_is_left_behind", || {
        let round = || {
            let (stream, peer) = pair();
            let clone = stream.try_clone().unwrap();
            let reader = Caller::Task.wait_in("read", &stream, move || (&clone).read(&mut [0; 8]));
            stream.close().unwrap();
            assert_closed(reader.join().unwrap());
            drop(peer);

            let (stream, peer) = pair();
            let (mut read, write) = stream.into_split();
            drop(write);
            drop(peer);
            _ = read.read(&mut [0; 8]);

            let (stream, _peer) = pair();
            stream.set_linger(Some(Duration::from_secs(1))).unwrap();
            drop(stream);

            let (stream, _peer) = pair();
            drop(stream.into_std().unwrap());
        };
        let runtime = towpath::Runtime::builder().workers(2).build().unwrap();
        runtime.run(move || {
            round(); // what is opened once and stays
            let before = descriptors().len();
            (0..20).for_each(|_| round());
            // Some are closed by another thread.
            until(|| descriptors().len() <= before);
        });
        let before_drop = descriptors().len();
        runtime.shutdown(common::PATIENCE).unwrap();
        assert!(descriptors().len() < before_drop, "the pollers are closed");
    });
}

#[test]
fn closing_never_waits_for_data_that_nobody_reads() {
    on_tasks_and_threads(|| {
        // A kernel that blocks in close(2) does so for as long as this, for the peer reads only afterwards.
        const LINGER: Duration = Duration::from_secs(15);
        let closes: [fn(TcpStream); 2] = [|stream| stream.close().unwrap(), drop];
        for close in closes {
            let (stream, mut peer) = narrow_pair();
            let sent = fill(&stream);
            stream.set_linger(Some(LINGER)).unwrap();
            assert_eq!(stream.linger().unwrap(), Some(LINGER));
            let start = Instant::now();
            close(stream);
            assert!(start.elapsed() < LINGER, "it has waited");
            let mut rest = Vec::new();
            peer.read_to_end(&mut rest).unwrap();
            assert_eq!(rest.len(), sent, "nothing of it is lost");
        }
    });
}

#[test]
fn a_peer_hears_of_the_end_whoever_ends_it() {
    on_tasks_and_threads(|| {
        let ends: [fn(TcpStream); 3] = [|stream| stream.close().unwrap(), drop, |stream| drop(stream.into_std())];
        for (waits, closes) in pairs_of_callers() {
            for end in ends {
                for busy in [false, true] {
                    let (stream, mut peer) = pair();
                    // Somebody has waited, and with that a poller watches the socket.
                    stream.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
                    let waited = move || {
                        assert_eq!((&stream).read(&mut [0; 8]).unwrap_err().kind(), ErrorKind::TimedOut);
                        stream
                    };
                    let stream = waits.run(waited).join().unwrap();
                    // A worker that sleeps, and one that always has something else to do.
                    let (stop, stopped) = channel::bounded::<()>(0);
                    let other = towpath::spawn(move || {
                        while busy && stopped.try_recv() == Err(TryRecvError::Empty) {
                            towpath::task::yield_now();
                        }
                    });
                    closes.run(move || end(stream)).join().unwrap();
                    assert_eq!(peer.read(&mut [0; 8]).unwrap(), 0);
                    drop(stop);
                    other.join().unwrap();
                }
            }
        }
    });
}

#[test]
fn closing_elsewhere_has_no_worker_wait_for_data_that_nobody_reads() {
    on_each_poller(|| {
        const LINGER: Duration = Duration::from_secs(15);
        let home = towpath::Runtime::builder().workers(1).build().unwrap();
        let (stream, mut peer) = narrow_pair();
        stream.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        let stream = home.run(move || {
            assert_eq!((&stream).read(&mut [0; 8]).unwrap_err().kind(), ErrorKind::TimedOut);
            stream
        });
        let sent = fill(&stream);
        stream.set_linger(Some(LINGER)).unwrap();
        let (tell, told) = channel::bounded(1);
        let busy = home.spawn(move || {
            tell.send(()).unwrap();
            let start = Instant::now();
            while start.elapsed() < Duration::from_millis(20) {} // whoever is in a hurry closes meanwhile
        });
        told.recv().unwrap();
        let start = Instant::now();
        drop(stream);
        busy.join().unwrap();
        home.run(|| ()); // the worker has seen by now that the socket was closed
        assert!(start.elapsed() < LINGER, "the worker has waited");
        let mut rest = Vec::new();
        peer.read_to_end(&mut rest).unwrap();
        assert_eq!(rest.len(), sent, "nothing of it is lost");
    });
}

#[test]
fn a_linger_set_elsewhere_is_known_and_not_waited_for() {
    on_tasks_and_threads(|| {
        const LINGER: Duration = Duration::from_secs(15);
        let (stream, mut peer) = narrow_pair();
        let sent = fill(&stream);
        let stream = stream.into_std().unwrap();
        rustix::net::sockopt::set_socket_linger(&stream, Some(LINGER)).unwrap();
        let stream = TcpStream::from(stream);
        let start = Instant::now();
        drop(stream);
        assert!(start.elapsed() < LINGER, "it has waited");
        let mut rest = Vec::new();
        peer.read_to_end(&mut rest).unwrap();
        assert_eq!(rest.len(), sent);
    });
}

#[test]
fn a_linger_of_zero_resets_the_connection() {
    on_tasks_and_threads(|| {
        let (stream, mut peer) = pair();
        stream.set_linger(Some(Duration::ZERO)).unwrap();
        drop(stream);
        assert_eq!(peer.read(&mut [0; 8]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    });
}

#[test]
fn only_one_of_many_closers_closes() {
    on_each_poller(|| {
        for _ in 0..50 {
            let (stream, mut peer) = pair();
            let clone = |caller: Caller| (caller, stream.try_clone().unwrap());
            let clones: Vec<_> = [CALLERS, CALLERS].concat().into_iter().map(clone).collect();
            let close = |(caller, clone): (Caller, TcpStream)| caller.run(move || clone.close());
            let closers: Vec<_> = clones.into_iter().map(close).collect();
            let results: Vec<_> = closers.into_iter().map(|closer| closer.join().unwrap()).collect();
            assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
            results.into_iter().filter(io::Result::is_err).for_each(assert_closed);
            assert_eq!(peer.read(&mut [0; 8]).unwrap(), 0);
        }
    });
}
