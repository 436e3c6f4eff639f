//! One socket, many users: what clones share, tasks of several workers and plain threads in the same socket at once, and
//! sockets that outlive the runtime that knew them.

mod common;

use std::io::{ErrorKind, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::{
    CALLERS, Caller, PATIENCE, has_event, narrow_pair, on_each_poller, on_tasks_and_threads, on_thread, pair,
    pair_with_std, until, until_waiters, until_waiting, watchdog,
};
use rustix::net::sockopt;
use towpath::Runtime;
use towpath::net::{TcpListener, TcpStream, is_closed};
use towpath::time::{Duration, Instant};

/// Two tasks and three threads.
const FIVE: [Caller; 5] = [Caller::Task, Caller::Task, Caller::Thread, Caller::Thread, Caller::Thread];

#[test]
fn clones_share_modes_options_timeouts_and_deadlines() {
    on_tasks_and_threads(|| {
        let (stream, _peer) = pair();
        let mut clone = stream.try_clone().unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        assert_eq!(clone.read_timeout().unwrap(), Some(Duration::from_millis(1)));
        assert_eq!(clone.read(&mut [0; 8]).unwrap_err().kind(), ErrorKind::TimedOut);
        stream.set_read_timeout(None).unwrap();

        stream.set_deadline(Some(Instant::now())).unwrap();
        assert_eq!(clone.read(&mut [0; 8]).unwrap_err().kind(), ErrorKind::TimedOut);
        assert_eq!(clone.write(b"x").unwrap_err().kind(), ErrorKind::TimedOut);
        stream.set_deadline(None).unwrap();

        stream.set_nonblocking(true).unwrap();
        assert_eq!(clone.read(&mut [0; 8]).unwrap_err().kind(), ErrorKind::WouldBlock);
        stream.set_nodelay(true).unwrap();
        assert!(clone.nodelay().unwrap());
        assert_eq!(clone.local_addr().unwrap(), stream.local_addr().unwrap());
    });
}

#[test]
fn clones_of_a_listener_share_its_deadline_and_its_connections() {
    on_tasks_and_threads(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let clone = listener.try_clone().unwrap();
        listener.set_deadline(Some(Instant::now())).unwrap();
        assert_eq!(clone.accept().unwrap_err().kind(), ErrorKind::TimedOut);
        clone.set_deadline(None).unwrap();
        let addr = clone.local_addr().unwrap();
        let (first, second) = (TcpStream::connect(addr).unwrap(), TcpStream::connect(addr).unwrap());
        let accepted = [listener.accept().unwrap().1, clone.accept().unwrap().1];
        assert_eq!(accepted, [first.local_addr().unwrap(), second.local_addr().unwrap()]);
    });
}

#[test]
fn each_byte_goes_to_one_of_many_readers() {
    on_tasks_and_threads(|| {
        const BYTES: usize = 20_000;
        let (stream, mut peer) = pair();
        let read = |caller: Caller| {
            let clone = stream.try_clone().unwrap();
            caller.run(move || {
                let mut found = [0; 256];
                let mut byte = [0];
                while (&clone).read(&mut byte).unwrap() == 1 {
                    found[usize::from(byte[0])] += 1;
                }
                found
            })
        };
        let readers: Vec<_> = FIVE.into_iter().map(read).collect();
        let bytes: Vec<u8> = (0..BYTES).map(|i| i as u8).collect();
        for piece in bytes.chunks(701) {
            peer.write_all(piece).unwrap();
            towpath::task::yield_now();
        }
        drop(peer);
        let mut found = [0; 256];
        for reader in readers {
            reader.join().unwrap().iter().zip(&mut found).for_each(|(n, sum)| *sum += n);
        }
        let sent: Vec<usize> = (0..=255).map(|value| bytes.iter().filter(|byte| **byte == value).count()).collect();
        assert_eq!(found[..], sent);
    });
}

#[test]
fn one_report_is_enough_for_all_who_wait() {
    on_tasks_and_threads(|| {
        let (stream, mut peer) = pair();
        let tasks = 4;
        let read = |caller: Caller| {
            let clone = stream.try_clone().unwrap();
            caller.wait_in("read", &stream, move || (&clone).read(&mut [0]).unwrap())
        };
        let mut readers: Vec<_> = vec![Caller::Task; tasks].into_iter().map(read).collect();
        readers.extend([Caller::Thread; 3].map(read));
        until_waiters(tasks, "read", &stream);
        // One segment, one edge: a reader that leaves some of it wakes the next.
        peer.write_all(b"1234567").unwrap();
        for reader in readers {
            assert_eq!(reader.join().unwrap(), 1);
        }
    });
}

#[test]
fn who_leaves_what_it_was_woken_for_wakes_the_next() {
    on_tasks_and_threads(|| {
        for caller in CALLERS {
            let (stream, mut peer) = pair();
            // They are woken in this order, and only the last one takes anything.
            let peek = |caller: Caller| {
                let clone = stream.try_clone().unwrap();
                caller.wait_in("read", &stream, move || clone.peek(&mut [0; 8]).unwrap())
            };
            let peekers = [CALLERS, CALLERS].concat().into_iter().map(peek).collect::<Vec<_>>();
            let clone = stream.try_clone().unwrap();
            let reader = caller.wait_in("read", &stream, move || (&clone).read(&mut [0; 8]).unwrap());
            peer.write_all(b"hello").unwrap();
            for call in peekers {
                assert_eq!(call.join().unwrap(), 5);
            }
            assert_eq!(reader.join().unwrap(), 5);
        }
    });
}

#[test]
fn two_tasks_and_three_threads_read_write_and_close_one_socket_at_once() {
    on_tasks_and_threads(|| {
        for closer in 0..FIVE.len() {
            let (stream, mut peer) = pair();
            let echo = towpath::spawn(move || {
                let mut buf = [0; 1024];
                while let Ok(n @ 1..) = peer.read(&mut buf) {
                    if peer.write_all(&buf[..n]).is_err() {
                        break;
                    }
                }
            });
            let read = Arc::new(AtomicUsize::new(0));
            let clones: Vec<_> = FIVE.iter().map(|_| stream.try_clone().unwrap()).collect();
            let user = |(i, (caller, clone)): (usize, (Caller, TcpStream))| {
                let read = read.clone();
                caller.run(move || {
                    let mut buf = [0; 100];
                    loop {
                        let result = (&clone).write_all(&[i as u8; 64]).and_then(|()| (&clone).read(&mut buf));
                        match result {
                            Ok(n) => assert_ne!(n, 0, "nobody has ended the stream"),
                            Err(error) => return error,
                        }
                        if read.fetch_add(1, Ordering::Relaxed) >= 200 && i == closer {
                            _ = clone.close();
                        }
                    }
                })
            };
            let users: Vec<_> = FIVE.into_iter().zip(clones).enumerate().map(user).collect();
            for user in users {
                let error = user.join().unwrap();
                assert!(is_closed(&error), "{error:?}");
            }
            assert!(is_closed(&(&stream).read(&mut [0]).unwrap_err()));
            echo.join().unwrap();
        }
    });
}

#[test]
fn a_socket_is_read_by_one_worker_and_written_by_another() {
    on_each_poller(|| {
        let (stream, mut peer) = narrow_pair();
        let clone = stream.try_clone().unwrap();
        let writer = Caller::Task.wait_in("write", &stream, move || (&clone).write_all(&[0; 200_000]).unwrap());
        // Many tasks, so that some are placed on each worker.
        let read = |_| {
            let clone = stream.try_clone().unwrap();
            Caller::Task.wait_in("read", &stream, move || (&clone).read(&mut [0]).unwrap())
        };
        let readers: Vec<_> = (0..20).map(read).collect();
        peer.write_all(&[0; 20]).unwrap();
        readers.into_iter().for_each(|reader| assert_eq!(reader.join().unwrap(), 1));
        drop(stream);
        let drained = std::io::copy(&mut peer, &mut std::io::sink()).unwrap();
        assert_eq!(drained, 200_000);
        writer.join().unwrap();
    });
}

/// Waits to read `stream`, then to write to it, each as it is told, and sees both come to an end.
fn read_then_write(reads: Caller, writes: Caller, (stream, mut peer): (TcpStream, impl Read + Write)) {
    const LEN: usize = 200_000;
    let (reading, writing) = (stream.try_clone().unwrap(), stream.try_clone().unwrap());
    let reader = reads.wait_in("read", &stream, move || (&reading).read_exact(&mut [0; 5]).unwrap());
    for _ in 0..2 {
        let writing = writing.try_clone().unwrap();
        let writer = writes.wait_in("write", &stream, move || (&writing).write_all(&[0; LEN]).unwrap());
        peer.read_exact(&mut [0; LEN]).unwrap();
        writer.join().unwrap();
    }
    peer.write_all(b"hello").unwrap();
    reader.join().unwrap();
}

#[test]
fn who_writes_is_woken_on_a_socket_that_has_been_waited_on_to_read_alone() {
    on_each_poller(|| {
        for reads in CALLERS {
            for writes in CALLERS {
                read_then_write(reads, writes, narrow_pair());
            }
        }
    });
}

#[test]
fn writing_is_registered_once_somebody_waits_to_write() {
    let name = "writing_is_registered_once_somebody_waits_to_write";
    let trace = common::traced(name, &["-E", "TOWPATH_POLLER=os", "-e", "trace=epoll_ctl"], || {
        // Accepted ones, for connecting waits to write.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        sockopt::set_socket_send_buffer_size(&listener, 4096).unwrap();
        let peer = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        sockopt::set_socket_recv_buffer_size(&peer, 4096).unwrap();
        read_then_write(Caller::Task, Caller::Task, (listener.accept().unwrap().0, peer));
    });
    let Some(trace) = trace else { return };
    // Urgent data is of interest on sockets alone.
    let lines = |what: &str| trace.lines().filter(|line| line.contains(what)).collect::<Vec<_>>();
    let widened = lines("EPOLL_CTL_MOD");
    assert!(lines("EPOLL_CTL_ADD").iter().any(|line| line.contains("EPOLLPRI")), "{trace}");
    assert!(lines("EPOLL_CTL_ADD").iter().all(|line| !line.contains("EPOLLOUT")), "{trace}");
    assert!(widened.len() == 1 && widened[0].contains("EPOLLOUT"), "{trace}");
}

#[test]
fn a_socket_follows_its_only_reader_from_worker_to_worker() {
    on_each_poller(|| {
        let (mut stream, mut peer) = pair();
        // Each reader is the only one, for long enough that the socket moves to its worker; then comes the next.
        for round in 0..20 {
            let reads = move |mut stream: TcpStream| {
                for _ in 0..8 {
                    // What was written may arrive later than that, and then two at a time.
                    stream.read_exact(&mut [0; 5]).unwrap();
                }
                stream
            };
            let clone = stream.try_clone().unwrap();
            let reader =
                if round % 3 == 2 { on_thread(move || reads(stream)) } else { towpath::spawn(move || reads(stream)) };
            for _ in 0..8 {
                peer.write_all(b"hello").unwrap();
                until(|| !has_event(&clone));
            }
            stream = reader.join().unwrap();
        }
    });
}

#[test]
fn a_registration_moves_to_the_worker_of_its_only_waiter() {
    let name = "a_registration_moves_to_the_worker_of_its_only_waiter";
    let trace = common::traced(name, &["-E", "TOWPATH_POLLER=os", "-e", "trace=epoll_ctl"], || {
        // Two runtimes, that the workers be two for certain.
        let (first, second) =
            (Runtime::builder().workers(1).build().unwrap(), Runtime::builder().workers(1).build().unwrap());
        // Nobody has waited for it yet.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut peer = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut stream = TcpStream::from(listener.accept().unwrap().0);
        let mut read_some = |runtime: &Runtime, mut stream: TcpStream| {
            let clone = stream.try_clone().unwrap();
            let reader = runtime.spawn(move || {
                for _ in 0..10 {
                    stream.read_exact(&mut [0; 5]).unwrap();
                }
                stream
            });
            for _ in 0..10 {
                let clone = clone.try_clone().unwrap();
                let waits = clone.try_clone().unwrap();
                runtime.run(move || until_waiting("read", &waits));
                peer.write_all(b"hello").unwrap();
                until(|| !has_event(&clone));
            }
            reader.join().unwrap()
        };
        stream = read_some(&first, stream);
        stream = read_some(&second, stream);
        stream = read_some(&first, stream);
        drop(stream);
    });
    let Some(trace) = trace else { return };
    // Registered, moved, and moved back; urgent data is of interest on sockets alone.
    let added = trace.lines().filter(|line| line.contains("EPOLL_CTL_ADD") && line.contains("EPOLLPRI")).count();
    let removed = trace.lines().filter(|line| line.contains("EPOLL_CTL_DEL")).count();
    assert_eq!((added, removed), (3, 2), "{trace}");
}

#[test]
fn a_socket_outlives_the_runtime_that_it_was_used_on() {
    let _watchdog = watchdog();
    for workers in [1, 2] {
        let (stream, mut peer) = pair_with_std();
        let stream = Arc::new(stream);
        let read = |stream: &Arc<TcpStream>| {
            let stream = stream.clone();
            move || (&*stream).read(&mut [0; 8]).unwrap()
        };
        let mut read_on = |runtime: Runtime| {
            let reader = runtime.spawn(read(&stream));
            let waits = stream.clone();
            runtime.run(move || until_waiting("read", &*waits));
            peer.write_all(b"hello").unwrap();
            assert_eq!(reader.join().unwrap(), 5);
            runtime.shutdown(PATIENCE).unwrap();
        };
        for _ in 0..3 {
            read_on(Runtime::builder().workers(workers).build().unwrap());
        }
        // And on a thread, which the default runtime serves.
        let reader = Caller::Thread.wait_in("read", &*stream, read(&stream));
        peer.write_all(b"hello").unwrap();
        assert_eq!(reader.join().unwrap(), 5);
    }
}

#[test]
fn a_thread_that_waits_goes_on_waiting_when_the_sockets_runtime_goes() {
    let _watchdog = watchdog();
    for _ in 0..20 {
        let (stream, mut peer) = pair_with_std();
        let runtime = Runtime::builder().workers(1).build().unwrap();
        let stream = Arc::new(stream);
        let clone = stream.clone();
        runtime.run(move || {
            // It waits once, and with that the socket is this worker's.
            clone.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
            assert_eq!((&*clone).read(&mut [0; 8]).unwrap_err().kind(), ErrorKind::TimedOut);
            clone.set_read_timeout(None).unwrap();
        });
        let clone = stream.clone();
        let reader = Caller::Thread.wait_in("read", &*stream, move || (&*clone).read(&mut [0; 8]).unwrap());
        runtime.shutdown(PATIENCE).unwrap();
        peer.write_all(b"hello").unwrap();
        assert_eq!(reader.join().unwrap(), 5);
    }
}

#[test]
fn a_socket_of_one_runtime_is_handed_over_between_tasks_of_two() {
    let _watchdog = watchdog();
    let runtimes = [1, 2].map(|workers| Arc::new(Runtime::builder().workers(workers).build().unwrap()));
    let (left, right) = pair();
    let count = 2000;
    let bounce = move |mut stream: TcpStream| {
        let mut byte = [0];
        for _ in 0..count {
            stream.write_all(&byte).unwrap();
            stream.read_exact(&mut byte).unwrap();
        }
    };
    let (left, right) = (runtimes[0].spawn(move || bounce(left)), runtimes[1].spawn(move || bounce(right)));
    left.join().unwrap();
    right.join().unwrap();
}

#[test]
fn tasks_and_threads_wait_in_one_listener_together() {
    on_tasks_and_threads(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let accept = |caller: Caller| {
            let clone = listener.try_clone().unwrap();
            caller.wait_in("accept", &listener, move || clone.accept().unwrap().1)
        };
        let acceptors: Vec<_> = FIVE.into_iter().map(accept).collect();
        let clients: Vec<_> = FIVE.iter().map(|_| TcpStream::connect(addr).unwrap()).collect();
        let mut accepted: Vec<_> = acceptors.into_iter().map(|acceptor| acceptor.join().unwrap()).collect();
        let mut connected: Vec<_> = clients.iter().map(|client| client.local_addr().unwrap()).collect();
        accepted.sort_unstable();
        connected.sort_unstable();
        assert_eq!(accepted, connected);
    });
}

#[test]
fn a_poller_that_takes_no_more_sockets_fails_the_call_that_waits_and_no_other() {
    // Each worker's second registration fails (the first is its waker), as it would beyond the system's
    // `fs.epoll.max_user_watches`.
    let inject = ["-E", "TOWPATH_POLLER=os", "-e", "trace=epoll_ctl", "-e", "inject=epoll_ctl:error=ENOSPC:when=2"];
    let name = "a_poller_that_takes_no_more_sockets_fails_the_call_that_waits_and_no_other";
    _ = common::traced(name, &inject, || {
        on_tasks_and_threads(|| {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let connected = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (mut peer, _) = listener.accept().unwrap();
            let mut stream = TcpStream::from(connected);
            let failed = |error: std::io::Error| error.raw_os_error() == Some(libc::ENOSPC);
            assert!(failed(stream.read(&mut [0; 8]).unwrap_err()));
            // Another worker may be asked next.
            stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
            while failed(stream.read(&mut [0; 8]).unwrap_err()) {}
            stream.set_read_timeout(None).unwrap();
            let reader = towpath::spawn(move || stream.read(&mut [0; 8]).or_else(|_| stream.read(&mut [0; 8])));
            peer.write_all(b"hello").unwrap();
            assert_eq!(reader.join().unwrap().unwrap(), 5);
        });
    });
}
