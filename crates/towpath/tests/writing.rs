//! Writing: short writes and whole ones, whose bytes stay together, and what a write to nobody says. Deadlines and closing
//! are in `deadlines.rs` and `close.rs`.

mod common;

use std::io::{ErrorKind, IoSlice, Read, Write};
use std::net::Shutdown;

use common::{
    CALLERS, Caller, alone, fill, narrow_pair, on_tasks_and_threads, pair, pair_with_std, pattern, reset, until,
    until_waiting,
};
use towpath::net::TcpStream;
use towpath::time::Duration;

#[test]
fn a_write_may_be_short() {
    on_tasks_and_threads(|| {
        let (mut stream, _peer) = narrow_pair();
        let written = stream.write(&vec![0; 64 << 20]).unwrap();
        assert!(written > 0 && written < 64 << 20, "{written}");
        let piece = vec![0; 1 << 20];
        let (mut stream, _peer) = narrow_pair();
        let written = stream.write_vectored(&[IoSlice::new(&piece), IoSlice::new(&piece)]).unwrap();
        assert!(written > 0 && written < 2 << 20, "{written}");
    });
}

#[test]
fn a_write_waits_for_room() {
    on_tasks_and_threads(|| {
        for caller in CALLERS {
            const LEN: usize = 200_000;
            let (stream, mut peer) = narrow_pair();
            let clone = stream.try_clone().unwrap();
            let writer = caller.wait_in("write", &stream, move || {
                let all = pattern(LEN, 2);
                let mut sent = 0;
                while sent < LEN {
                    sent += (&clone).write(&all[sent..]).unwrap();
                }
            });
            let mut found = vec![0; LEN];
            peer.read_exact(&mut found).unwrap();
            writer.join().unwrap();
            assert!(found == pattern(LEN, 2));
        }
    });
}

#[test]
fn write_all_writes_all() {
    on_tasks_and_threads(|| {
        const LEN: usize = 64 << 20;
        let (mut stream, mut peer) = pair();
        let writer = towpath::spawn(move || {
            stream.write_all(&pattern(LEN, 1)).unwrap();
            stream.write_all(&[]).unwrap();
        });
        let mut found = Vec::with_capacity(LEN);
        peer.read_to_end(&mut found).unwrap();
        writer.join().unwrap();
        assert!(found == pattern(LEN, 1));
    });
}

#[test]
fn the_bytes_of_each_write_all_stay_together() {
    on_tasks_and_threads(|| {
        const PIECE: usize = 30_000;
        const PIECES: usize = 40;
        let (stream, mut peer) = narrow_pair();
        let write = |(id, caller): (usize, Caller)| {
            let clone = stream.try_clone().unwrap();
            caller.run(move || {
                for _ in 0..PIECES {
                    (&clone).write_all(&vec![id as u8; PIECE]).unwrap();
                }
            })
        };
        let callers = [CALLERS, CALLERS].concat();
        let writers: Vec<_> = callers.into_iter().enumerate().map(write).collect();
        drop(stream);
        let mut counts = [0; 4];
        let mut piece = vec![0; PIECE];
        for _ in 0..4 * PIECES {
            peer.read_exact(&mut piece).unwrap();
            assert!(piece.iter().all(|byte| *byte == piece[0]), "two calls are mixed");
            counts[usize::from(piece[0])] += 1;
        }
        assert_eq!(counts, [PIECES; 4]);
        assert_eq!(peer.read(&mut piece).unwrap(), 0);
        writers.into_iter().for_each(|writer| writer.join().unwrap());
    });
}

#[test]
fn no_other_write_comes_into_a_write_all_or_a_formatted_one() {
    on_tasks_and_threads(|| {
        const LEN: usize = 200_000;
        for caller in CALLERS {
            let (stream, mut peer) = narrow_pair();
            let clone = stream.try_clone().unwrap();
            let half = "a".repeat(LEN / 2);
            let whole = caller.wait_in("write", &stream, move || write!(&clone, "{half}{half}").unwrap());
            // Each of these waits for its turn, which comes when the first is done.
            let short = stream.try_clone().unwrap();
            let short = towpath::spawn(move || (&short).write(b"b").unwrap());
            until_waiting("write (another write first)", &stream);
            let vectored = stream.try_clone().unwrap();
            let vectored = Caller::Thread.run(move || (&vectored).write_vectored(&[IoSlice::new(b"b")]).unwrap());
            let mut found = vec![0; LEN];
            peer.read_exact(&mut found).unwrap();
            assert!(found.iter().all(|byte| *byte == b'a'));
            let mut rest = [0; 2];
            peer.read_exact(&mut rest).unwrap();
            assert_eq!(&rest, b"bb");
            whole.join().unwrap();
            assert_eq!((short.join().unwrap(), vectored.join().unwrap()), (1, 1));
        }
    });
}

#[test]
fn a_turn_that_was_waited_for_in_vain_is_not_lost() {
    on_tasks_and_threads(|| {
        for caller in CALLERS {
            let (stream, mut peer) = narrow_pair();
            let clone = stream.try_clone().unwrap();
            let first = caller.wait_in("write", &stream, move || (&clone).write_all(&[b'a'; 200_000]).unwrap());
            stream.set_write_timeout(Some(Duration::from_millis(5))).unwrap();
            for _ in 0..3 {
                assert_eq!((&stream).write_all(b"never").unwrap_err().kind(), ErrorKind::TimedOut);
            }
            stream.set_write_timeout(None).unwrap();
            let clone = stream.try_clone().unwrap();
            let second = towpath::spawn(move || (&clone).write_all(b"b").unwrap());
            drop(stream);
            let mut found = Vec::new();
            peer.read_to_end(&mut found).unwrap();
            assert_eq!(found.len(), 200_001);
            assert_eq!(found[200_000], b'b');
            first.join().unwrap();
            second.join().unwrap();
        }
    });
}

#[test]
fn a_vectored_write_sends_its_buffers_in_order() {
    on_tasks_and_threads(|| {
        let (mut stream, mut peer) = pair();
        let written = stream.write_vectored(&[IoSlice::new(b"ab"), IoSlice::new(b""), IoSlice::new(b"cde")]).unwrap();
        assert_eq!(written, 5);
        // More buffers than the kernel takes in one call (IOV_MAX) are a short write, not an error.
        assert_eq!(stream.write_vectored(&vec![IoSlice::new(b"x"); 2000]).unwrap(), 1024);
        drop(stream);
        let mut text = String::new();
        peer.read_to_string(&mut text).unwrap();
        assert_eq!(text, format!("abcde{}", "x".repeat(1024)));
    });
}

#[test]
fn a_nonblocking_write_that_finds_no_room_would_block() {
    on_tasks_and_threads(|| {
        let (stream, mut peer) = narrow_pair();
        let sent = fill(&stream); // this is how it knows
        stream.set_nonblocking(true).unwrap();
        let mut found = vec![0; sent];
        peer.read_exact(&mut found).unwrap();
        until(|| (&stream).write(b"x").is_ok());
    });
}

#[test]
fn after_shutting_down_writing_a_write_is_a_broken_pipe_and_reads_go_on() {
    on_tasks_and_threads(|| {
        let (mut stream, mut peer) = pair();
        stream.write_all(b"ping").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        for _ in 0..2 {
            let error = stream.write(b"x").unwrap_err();
            assert_eq!(error.kind(), ErrorKind::BrokenPipe);
            assert_eq!(error.raw_os_error(), Some(libc::EPIPE));
            assert_eq!(stream.write_all(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
        }
        let mut text = String::new();
        peer.read_to_string(&mut text).unwrap();
        assert_eq!(text, "ping");
        peer.write_all(b"pong").unwrap();
        drop(peer);
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        assert_eq!(text, "pong");
    });
}

#[test]
fn shutting_down_writing_wakes_who_writes() {
    on_tasks_and_threads(|| {
        for caller in CALLERS {
            let (stream, _peer) = narrow_pair();
            let clone = stream.try_clone().unwrap();
            let writer = caller.wait_in("write", &stream, move || (&clone).write_all(&[0; 200_000]).unwrap_err());
            stream.shutdown(Shutdown::Write).unwrap();
            assert_eq!(writer.join().unwrap().kind(), ErrorKind::BrokenPipe);
        }
    });
}

#[test]
fn a_reset_wakes_who_writes() {
    on_tasks_and_threads(|| {
        for caller in CALLERS {
            let (stream, peer) = pair_with_std();
            let clone = stream.try_clone().unwrap();
            let writer = caller.wait_in("write", &stream, move || (&clone).write_all(&vec![0; 64 << 20]).unwrap_err());
            reset(peer);
            let error = writer.join().unwrap();
            assert_eq!(error.kind(), ErrorKind::ConnectionReset);
            assert_eq!((&stream).write(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
        }
    });
}

#[test]
fn a_write_to_nobody_raises_no_signal() {
    alone("a_write_to_nobody_raises_no_signal", || {
        // Rust programs ignore it from the start; a library in one of C finds it as it is there.
        // SAFETY: the default action runs no code of ours.
        let before = unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
        assert_ne!(before, libc::SIG_ERR);
        on_tasks_and_threads(|| {
            let (mut stream, _peer) = pair();
            stream.shutdown(Shutdown::Write).unwrap();
            assert_eq!(stream.write(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
            let slices = [IoSlice::new(b"x")];
            assert_eq!(stream.write_vectored(&slices).unwrap_err().kind(), ErrorKind::BrokenPipe);
        });
    });
}

#[test]
fn one_who_reads_and_one_who_writes_do_not_wait_for_each_other() {
    on_tasks_and_threads(|| {
        for caller in CALLERS {
            let (stream, mut peer) = narrow_pair();
            let clone = stream.try_clone().unwrap();
            let writer = caller.wait_in("write", &stream, move || (&clone).write_all(&[0; 200_000]));
            let reader = {
                let clone = stream.try_clone().unwrap();
                caller.wait_in("read", &stream, move || (&clone).read(&mut [0; 8]).unwrap())
            };
            peer.write_all(b"hello").unwrap();
            assert_eq!(reader.join().unwrap(), 5);
            assert!(!writer.is_finished());
            drain(peer);
            writer.join().unwrap().unwrap();
        }
    });
}

/// Reads in the background until the stream ends.
fn drain(mut stream: TcpStream) {
    drop(towpath::spawn(move || std::io::copy(&mut stream, &mut std::io::sink())));
}
