//! Reading: what comes back, when a read waits and when it does not, and how the end of a connection reads. Deadlines
//! and closing are in `deadlines.rs` and `close.rs`; the last tests look at the system calls themselves.

mod common;

use std::io::{ErrorKind, IoSliceMut, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::{
    CALLERS, Caller, alone, has_event, on_each_poller, on_tasks_and_threads, pair, pair_with_std, pattern, reset,
    traced, until, until_waiting, watchdog,
};
use rustix::net::{SendFlags, send};
use towpath::net::{TcpListener, TcpStream};
use towpath::time::Duration;

#[test]
fn the_end_of_the_stream_is_zero_bytes_for_ever() {
    on_tasks_and_threads(|| {
        let (mut stream, mut peer) = pair();
        peer.write_all(b"bye").unwrap();
        drop(peer);
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        assert_eq!(text, "bye");
        for _ in 0..3 {
            assert_eq!(stream.read(&mut [0; 8]).unwrap(), 0);
        }
    });
}

#[test]
fn a_read_into_nothing_does_not_wait() {
    on_tasks_and_threads(|| {
        let (mut stream, _peer) = pair();
        assert_eq!(stream.read(&mut []).unwrap(), 0);
        assert_eq!(stream.read_vectored(&mut []).unwrap(), 0);
        assert_eq!(stream.read_vectored(&mut [IoSliceMut::new(&mut []), IoSliceMut::new(&mut [])]).unwrap(), 0);
        assert_eq!(stream.peek(&mut []).unwrap(), 0);
    });
}

#[test]
fn a_read_waits_for_data_and_returns_what_there_is() {
    on_tasks_and_threads(|| {
        for caller in CALLERS {
            let (stream, mut peer) = pair();
            let clone = stream.try_clone().unwrap();
            let reader = caller.wait_in("read", &stream, move || {
                let mut buf = [0; 64];
                let n = (&clone).read(&mut buf).unwrap();
                buf[..n].to_vec()
            });
            peer.write_all(b"hello").unwrap();
            assert_eq!(reader.join().unwrap(), b"hello");
        }
    });
}

#[test]
fn every_byte_arrives_in_order_whatever_the_sizes() {
    on_tasks_and_threads(|| {
        const LEN: usize = 1 << 20;
        let (mut stream, mut peer) = pair();
        let writer = towpath::spawn(move || {
            for (i, piece) in pattern(LEN, 0).chunks(1000).enumerate() {
                let (head, tail) = piece.split_at(i % piece.len());
                peer.write_all(head).unwrap();
                peer.write_all(tail).unwrap();
            }
        });
        let mut found = Vec::new();
        let mut buf = [0; 4096];
        for size in (0..).map(|i| i * 37 % 4096 + 1) {
            match stream.read(&mut buf[..size]).unwrap() {
                0 => break,
                n => found.extend_from_slice(&buf[..n]),
            }
        }
        writer.join().unwrap();
        assert!(found == pattern(LEN, 0));
    });
}

#[test]
fn a_vectored_read_fills_its_buffers_in_order() {
    on_tasks_and_threads(|| {
        let (mut stream, mut peer) = pair();
        peer.write_all(b"abcde").unwrap();
        let (mut first, mut second) = ([0; 2], [0; 8]);
        let n = stream.read_vectored(&mut [IoSliceMut::new(&mut first), IoSliceMut::new(&mut second)]).unwrap();
        assert_eq!((n, &first, &second[..3]), (5, b"ab", &b"cde"[..]));

        // More buffers than the kernel takes in one call (IOV_MAX) are a short read, not an error.
        peer.write_all(&[b'x'; 2000]).unwrap();
        until(|| stream.peek(&mut [0; 2000]).unwrap() == 2000);
        let mut bytes = [[0; 1]; 2000];
        let mut slices: Vec<_> = bytes.iter_mut().map(|byte| IoSliceMut::new(byte)).collect();
        assert_eq!(stream.read_vectored(&mut slices).unwrap(), 1024);
    });
}

#[test]
fn peeking_takes_nothing() {
    on_tasks_and_threads(|| {
        for caller in CALLERS {
            let (mut stream, mut peer) = pair();
            let clone = stream.try_clone().unwrap();
            let peeker = caller.wait_in("read", &stream, move || clone.peek(&mut [0; 64]).unwrap());
            peer.write_all(b"hello").unwrap();
            assert_eq!(peeker.join().unwrap(), 5);
            let mut buf = [0; 64];
            assert_eq!(stream.peek(&mut buf[..2]).unwrap(), 2);
            assert_eq!(stream.peek(&mut buf).unwrap(), 5);
            assert_eq!(stream.read(&mut buf).unwrap(), 5);
            assert_eq!(&buf[..5], b"hello");
        }
    });
}

#[test]
fn a_nonblocking_read_that_finds_nothing_would_block_and_later_ones_may_not() {
    on_tasks_and_threads(|| {
        let (stream, mut peer) = pair();
        let mut clone = stream.try_clone().unwrap();
        stream.set_nonblocking(true).unwrap();
        let mut buf = [0; 8];
        assert_eq!((&stream).read(&mut buf).unwrap_err().kind(), ErrorKind::WouldBlock);
        assert_eq!(clone.read(&mut buf).unwrap_err().kind(), ErrorKind::WouldBlock);
        assert_eq!(clone.peek(&mut buf).unwrap_err().kind(), ErrorKind::WouldBlock);
        peer.write_all(b"abc").unwrap();
        until(|| has_event(&stream));
        assert_eq!(clone.read(&mut buf).unwrap(), 3);
        // After a short read as well the kernel is asked: nobody waits for it to say so.
        peer.write_all(b"de").unwrap();
        until(|| has_event(&stream));
        assert_eq!(clone.read(&mut buf).unwrap(), 2);

        stream.set_nonblocking(false).unwrap();
        let reader = Caller::Task.wait_in("read", &stream, move || clone.read(&mut [0; 8]).unwrap());
        peer.write_all(b"f").unwrap();
        assert_eq!(reader.join().unwrap(), 1);
    });
}

#[test]
fn shutting_down_reading_wakes_who_reads_with_the_end() {
    on_tasks_and_threads(|| {
        for caller in CALLERS {
            let (stream, peer) = pair();
            let clone = stream.try_clone().unwrap();
            let reader = caller.wait_in("read", &stream, move || (&clone).read(&mut [0; 8]));
            stream.shutdown(Shutdown::Read).unwrap();
            assert_eq!(reader.join().unwrap().unwrap(), 0);
            assert_eq!((&stream).read(&mut [0; 8]).unwrap(), 0);
            // The other direction goes on.
            (&stream).write_all(b"hello").unwrap();
            let mut buf = [0; 5];
            (&peer).read_exact(&mut buf).unwrap();
            assert_eq!(&buf, b"hello");
        }
    });
}

#[test]
fn shutting_down_reading_wakes_all_who_read() {
    on_tasks_and_threads(|| {
        let (stream, _peer) = pair();
        let read = |caller: Caller| {
            let clone = stream.try_clone().unwrap();
            caller.wait_in("read", &stream, move || (&clone).read(&mut [0; 8]).unwrap())
        };
        let readers = [CALLERS, CALLERS].concat().into_iter().map(read).collect::<Vec<_>>();
        stream.shutdown(Shutdown::Read).unwrap();
        for reader in readers {
            assert_eq!(reader.join().unwrap(), 0);
        }
    });
}

#[test]
fn after_a_half_close_the_rest_is_still_read_and_answered() {
    on_tasks_and_threads(|| {
        let (mut client, mut server) = pair();
        let echo = towpath::spawn(move || {
            let mut all = Vec::new();
            server.read_to_end(&mut all).unwrap();
            server.write_all(&all).unwrap();
        });
        client.write_all(b"the last words").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut text = String::new();
        client.read_to_string(&mut text).unwrap();
        assert_eq!(text, "the last words");
        echo.join().unwrap();
    });
}

#[test]
fn a_reset_is_an_error_once_and_the_end_from_then_on() {
    on_tasks_and_threads(|| {
        for caller in CALLERS {
            let (stream, peer) = pair_with_std();
            let clone = stream.try_clone().unwrap();
            let reader = caller.wait_in("read", &stream, move || (&clone).read(&mut [0; 8]));
            reset(peer);
            let error = reader.join().unwrap().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionReset);
            assert_eq!(error.raw_os_error(), Some(libc::ECONNRESET));
            for _ in 0..3 {
                assert_eq!((&stream).read(&mut [0; 8]).unwrap(), 0);
            }
        }
    });
}

#[test]
fn what_came_before_a_reset_is_read_before_it() {
    on_tasks_and_threads(|| {
        let (mut stream, mut peer) = pair_with_std();
        peer.write_all(b"hello").unwrap();
        until(|| has_event(&stream));
        reset(peer);
        let mut buf = [0; 8];
        assert_eq!(stream.read(&mut buf).unwrap(), 5);
        assert_eq!(stream.read(&mut buf).unwrap_err().kind(), ErrorKind::ConnectionReset);
        assert_eq!(stream.read(&mut buf).unwrap(), 0);
    });
}

#[test]
fn an_urgent_byte_splits_what_comes_and_holds_up_nothing() {
    on_tasks_and_threads(|| {
        for caller in CALLERS {
            let (mut stream, mut peer) = pair_with_std();
            // Before the first read, while it waits, and after it has been noted that the stream is empty.
            for (before, waits) in [(b"aaa", true), (b"bbb", false), (b"ccc", true)] {
                let send_all = |peer: &mut std::net::TcpStream| {
                    peer.write_all(before).unwrap();
                    assert_eq!(send(&*peer, b"!", SendFlags::OOB).unwrap(), 1);
                    peer.write_all(b"ddd").unwrap();
                };
                if !waits {
                    send_all(&mut peer);
                }
                let read = {
                    let clone = stream.try_clone().unwrap();
                    move || {
                        let mut found = Vec::new();
                        let mut buf = [0; 64];
                        while found.len() < 6 {
                            let n = (&clone).read(&mut buf).unwrap();
                            found.extend_from_slice(&buf[..n]);
                        }
                        found
                    }
                };
                let reader = match waits {
                    true => caller.wait_in("read", &stream, read),
                    false => caller.run(read),
                };
                if waits {
                    send_all(&mut peer);
                }
                assert_eq!(reader.join().unwrap(), [&before[..], b"ddd"].concat());
            }
            drop(peer);
            assert_eq!(stream.read(&mut [0; 8]).unwrap(), 0);
        }
    });
}

/// Counts the signals that [`signal_is_counted`] has handled.
static SIGNALS: AtomicUsize = AtomicUsize::new(0);

extern "C" fn signal_is_counted(_: libc::c_int) {
    SIGNALS.fetch_add(1, Ordering::Relaxed);
}

#[test]
fn a_signal_does_not_end_a_call_of_a_plain_thread() {
    alone("a_signal_does_not_end_a_call_of_a_plain_thread", || {
        // SAFETY: a zeroed sigaction is one without flags (SA_RESTART among them) and with an empty mask.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = signal_is_counted as *const () as libc::sighandler_t;
        // SAFETY: the handler adds to an atomic and does nothing else.
        let status = unsafe { libc::sigaction(libc::SIGUSR1, &raw const action, std::ptr::null_mut()) };
        assert_eq!(status, 0);

        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let (tell, told) = std::sync::mpsc::channel();
        // Not `on_thread`: the library's own threads take no signals.
        let thread = std::thread::spawn(move || {
            // SAFETY: the call takes nothing and only answers.
            tell.send((common::this_thread(), unsafe { libc::pthread_self() })).unwrap();
            let (mut stream, _) = listener.accept().unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).unwrap();
            stream.write_all(&vec![b'.'; 1 << 24]).unwrap();
            text
        });
        let (number, pthread) = told.recv().unwrap();
        let interrupt = || {
            for _ in 0..20 {
                common::until_blocked(number);
                let before = SIGNALS.load(Ordering::Relaxed);
                // SAFETY: the thread has not been joined, so its handle is good.
                assert_eq!(unsafe { libc::pthread_kill(pthread, libc::SIGUSR1) }, 0);
                until(|| SIGNALS.load(Ordering::Relaxed) > before);
            }
        };
        interrupt();
        let mut client = TcpStream::connect(addr).unwrap();
        client.write_all(b"hello").unwrap();
        interrupt();
        client.shutdown(Shutdown::Write).unwrap();
        until(|| has_event(&client));
        interrupt();
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).unwrap();
        assert_eq!(rest.len(), 1 << 24);
        assert_eq!(thread.join().unwrap(), "hello");
    });
}

#[test]
fn an_interrupted_system_call_is_made_again() {
    for call in ["recvfrom", "sendto"] {
        let inject = format!("inject={call}:error=EINTR:when=1..3");
        let trace =
            traced("an_interrupted_system_call_is_made_again", &["-e", "trace=recvfrom,sendto", "-e", &inject], || {
                on_tasks_and_threads(|| {
                    let (mut stream, mut peer) = pair();
                    assert_eq!(peer.write(b"hello").unwrap(), 5);
                    assert_eq!(stream.read(&mut [0; 8]).unwrap(), 5);
                });
            });
        let Some(trace) = trace else { return };
        assert!(trace.lines().filter(|line| line.contains("(INJECTED)")).count() >= 9, "{trace}");
    }
}

/// What strace saw of `call` on the descriptor that the traced test named.
fn calls<'a>(trace: &'a str, call: &str, fd: &str) -> Vec<&'a str> {
    let call = format!("{call}({fd},");
    // An unfinished call is told again when it is resumed, without its arguments.
    trace.lines().filter(|line| line.contains(&call)).collect()
}

/// The descriptor that the traced test named: it closed that number, which nobody has, so that it stands in the trace.
fn named_fd(trace: &str) -> String {
    let (_, rest) = trace.split_once(&format!("close_range({NAMES_FD}, ")).expect("the test has named it");
    rest.chars().take_while(char::is_ascii_digit).collect()
}

/// Marks a line of the trace as one that names a descriptor.
const NAMES_FD: u32 = 987_654;

fn name_fd(socket: &impl AsRawFd) {
    // The range's end is below its start: the kernel refuses (EINVAL), and strace prints it.
    // SAFETY: a call that is refused closes nothing.
    let status = unsafe { libc::syscall(libc::SYS_close_range, NAMES_FD, socket.as_raw_fd(), 0) };
    assert_eq!(status, -1);
}

#[test]
fn a_read_that_finds_data_is_one_call_and_one_that_knows_of_none_parks_without() {
    const ROUNDS: usize = 10;
    let name = "a_read_that_finds_data_is_one_call_and_one_that_knows_of_none_parks_without";
    let trace = traced(name, &["-e", "trace=recvfrom,epoll_wait,epoll_pwait,close_range"], || {
        let runtime = towpath::Runtime::builder().workers(1).build().unwrap();
        runtime.run(|| {
            let (mut stream, mut peer) = pair_with_std();
            name_fd(&stream);
            peer.write_all(b"hello").unwrap();
            until(|| has_event(&stream));
            let clone = stream.try_clone().unwrap();
            let reader = towpath::spawn(move || {
                let mut buf = [0; 64];
                for _ in 0..ROUNDS {
                    assert_eq!(stream.read(&mut buf).unwrap(), 5);
                }
            });
            for _ in 1..ROUNDS {
                until_waiting("read", &clone);
                peer.write_all(b"hello").unwrap();
                // It has had this one before the next is sent.
                until(|| !has_event(&clone));
            }
            reader.join().unwrap();
        });
    });
    let Some(trace) = trace else { return };
    let reads = calls(&trace, "recvfrom", &named_fd(&trace));
    assert_eq!(reads.len(), ROUNDS, "each read is one call:\n{}", reads.join("\n"));
}

#[test]
fn a_read_that_filled_its_buffer_does_not_make_the_next_one_wait() {
    let name = "a_read_that_filled_its_buffer_does_not_make_the_next_one_wait";
    let trace = traced(name, &["-e", "trace=recvfrom,close_range"], || {
        let runtime = towpath::Runtime::builder().workers(1).build().unwrap();
        runtime.run(|| {
            let (mut stream, mut peer) = pair_with_std();
            name_fd(&stream);
            peer.write_all(b"0123456789").unwrap();
            until(|| stream.peek(&mut [0; 10]).unwrap() == 10);
            for _ in 0..5 {
                assert_eq!(stream.read(&mut [0; 2]).unwrap(), 2);
            }
        });
    });
    let Some(trace) = trace else { return };
    let reads = calls(&trace, "recvfrom", &named_fd(&trace));
    let taken = reads.iter().filter(|read| !read.contains("MSG_PEEK")).count();
    assert_eq!(taken, 5, "{}", reads.join("\n"));
}

#[test]
fn a_registration_is_made_once_and_not_before_somebody_waits() {
    let name = "a_registration_is_made_once_and_not_before_somebody_waits";
    let trace = traced(name, &["-E", "TOWPATH_POLLER=os", "-e", "trace=epoll_ctl,close_range"], || {
        on_each_poller(|| {
            let (mut stream, mut peer) = pair_with_std();
            name_fd(&stream);
            peer.write_all(b"hello").unwrap();
            until(|| has_event(&stream));
            assert_eq!(stream.read(&mut [0; 8]).unwrap(), 5);
            let clone = stream.try_clone().unwrap();
            let reader = towpath::spawn(move || {
                for _ in 0..10 {
                    assert_eq!(stream.read(&mut [0; 8]).unwrap(), 5);
                }
            });
            for _ in 0..10 {
                until_waiting("read", &clone);
                peer.write_all(b"hello").unwrap();
                until(|| !has_event(&clone));
            }
            reader.join().unwrap();
        });
    });
    let Some(trace) = trace else { return };
    let runs: Vec<&str> = trace.split("close_range(").skip(1).collect();
    assert_eq!(runs.len(), 2);
    for run in runs {
        let fd = named_fd(&format!("close_range({run}"));
        // Urgent data is of interest on sockets alone; pollers register their wakers as well.
        let of_socket = |line: &&str| line.contains("EPOLLPRI") && line.contains(&format!(", {fd}, "));
        let added = run.lines().filter(|line| line.contains("EPOLL_CTL_ADD")).filter(of_socket);
        assert_eq!(added.count(), 1, "{run}");
        assert!(!run.contains("EPOLL_CTL_MOD"), "{run}");
    }
}

#[test]
fn a_peer_that_is_never_read_harms_no_other() {
    on_each_poller(|| {
        let (flooder, unread) = pair();
        let flood = towpath::spawn(move || (&flooder).write_all(&vec![0; 64 << 20]));
        let (mut client, mut server) = pair();
        let echo = towpath::spawn(move || {
            let mut buf = [0; 64];
            while let n @ 1.. = server.read(&mut buf).unwrap() {
                server.write_all(&buf[..n]).unwrap();
            }
        });
        let mut buf = [0; 64];
        for _ in 0..1000 {
            client.write_all(&[7; 64]).unwrap();
            client.read_exact(&mut buf).unwrap();
        }
        assert!(!flood.is_finished(), "it cannot have been taken in");
        drop(client);
        echo.join().unwrap();
        drop(unread);
        assert!(flood.join().unwrap().is_err());
    });
}

#[test]
fn plain_threads_alone_need_no_runtime_of_their_own() {
    alone("plain_threads_alone_need_no_runtime_of_their_own", || {
        let _watchdog = watchdog();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut all = Vec::new();
            stream.read_to_end(&mut all).unwrap();
            stream.write_all(&all).unwrap();
        });
        let mut client = TcpStream::connect(addr).unwrap();
        client.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        assert_eq!(client.read(&mut [0; 8]).unwrap_err().kind(), ErrorKind::TimedOut);
        client.set_read_timeout(None).unwrap();
        client.write_all(b"hello").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut text = String::new();
        client.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello");
        server.join().unwrap();
    });
}
