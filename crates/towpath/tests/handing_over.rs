//! Sockets that come from std and go back to it: in the mode that their user had set, with no trace of our own.

mod common;

use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, IntoRawFd, OwnedFd};

use common::{
    CALLERS, Caller, has_event, on_each_poller, on_tasks_and_threads, pair, pair_with_std, until, until_waiting,
};
use rustix::fs::OFlags;
use towpath::net::{TcpListener, TcpStream};
use towpath::time::{Duration, Instant};

fn is_nonblocking(fd: &impl AsFd) -> bool {
    rustix::fs::fcntl_getfl(fd).unwrap().contains(OFlags::NONBLOCK)
}

#[test]
fn the_mode_that_the_user_had_comes_back() {
    on_tasks_and_threads(|| {
        let (stream, _peer) = pair();
        assert!(is_nonblocking(&stream), "while it is ours it never blocks");
        assert!(!is_nonblocking(&stream.into_std().unwrap()));

        let (stream, _peer) = pair();
        stream.set_nonblocking(true).unwrap();
        let stream = stream.into_std().unwrap();
        assert!(is_nonblocking(&stream));

        // And so it is read off what comes in.
        let stream = TcpStream::from(stream);
        assert_eq!((&stream).read(&mut [0; 8]).unwrap_err().kind(), ErrorKind::WouldBlock);
        stream.set_nonblocking(false).unwrap();
        let stream = stream.into_std().unwrap();
        assert!(!is_nonblocking(&stream));
        let stream = TcpStream::from(stream);
        assert!(is_nonblocking(&stream));
        assert!(!is_nonblocking(&stream.into_std().unwrap()));

        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(is_nonblocking(&listener));
        let listener = listener.into_std().unwrap();
        assert!(!is_nonblocking(&listener));
        listener.set_nonblocking(true).unwrap();
        let listener = TcpListener::from(listener);
        assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
        assert!(is_nonblocking(&listener.into_std().unwrap()));
    });
}

#[test]
fn a_socket_with_clones_is_not_given_away() {
    on_tasks_and_threads(|| {
        let (stream, mut peer) = pair();
        let mut clone = stream.try_clone().unwrap();
        assert_eq!(stream.into_std().unwrap_err().kind(), ErrorKind::ResourceBusy);
        // It stays the clone's, and as it was.
        assert!(is_nonblocking(&clone));
        peer.write_all(b"hello").unwrap();
        assert_eq!(clone.read(&mut [0; 8]).unwrap(), 5);
        clone.into_std().unwrap();

        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let clone = listener.try_clone().unwrap();
        assert_eq!(listener.into_std().unwrap_err().kind(), ErrorKind::ResourceBusy);
        let _connected = TcpStream::connect(clone.local_addr().unwrap()).unwrap();
        clone.accept().unwrap();
        clone.into_std().unwrap();

        let (stream, _peer) = pair();
        let clone = stream.try_clone().unwrap();
        assert_eq!(OwnedFd::try_from(stream).unwrap_err().kind(), ErrorKind::ResourceBusy);
        OwnedFd::try_from(clone).unwrap();
    });
}

#[test]
fn a_socket_goes_to_std_and_back_and_works_each_time() {
    on_tasks_and_threads(|| {
        for caller in CALLERS {
            let (stream, mut peer) = pair_with_std();
            let mut stream = std::sync::Arc::new(stream);
            for _ in 0..3 {
                // With us: it waits, so that it is registered.
                let clone = stream.clone();
                let reader = caller.wait_in("read", &*stream, move || (&*clone).read(&mut [0; 8]).unwrap());
                peer.write_all(b"hello").unwrap();
                assert_eq!(reader.join().unwrap(), 5);
                // With std, in blocking mode, which the peer's bytes end.
                let ours = std::sync::Arc::into_inner(stream).expect("the reader has ended");
                let std_stream = ours.into_std().unwrap();
                peer.write_all(b"hello").unwrap();
                assert_eq!((&std_stream).read(&mut [0; 8]).unwrap(), 5);
                (&std_stream).write_all(b"x").unwrap();
                assert_eq!(peer.read(&mut [0; 8]).unwrap(), 1);
                stream = std::sync::Arc::new(TcpStream::from(std_stream));
            }
        }
    });
}

#[test]
fn a_listener_goes_to_std_and_back_and_works_each_time() {
    on_tasks_and_threads(|| {
        let mut listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        for _ in 0..3 {
            let acceptor = Caller::Task.run(move || {
                listener.accept().unwrap();
                listener
            });
            TcpStream::connect(addr).unwrap();
            let std_listener = acceptor.join().unwrap().into_std().unwrap();
            let connected = TcpStream::connect(addr).unwrap();
            assert_eq!(std_listener.accept().unwrap().1, connected.local_addr().unwrap());
            listener = std_listener.into();
        }
    });
}

#[test]
fn deadlines_and_timeouts_stay_behind() {
    on_tasks_and_threads(|| {
        let (mut stream, mut peer) = pair();
        stream.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        assert_eq!(stream.read(&mut [0; 8]).unwrap_err().kind(), ErrorKind::TimedOut); // so that it is registered
        stream.set_deadline(Some(Instant::now())).unwrap();
        let stream = TcpStream::from(stream.into_std().unwrap());
        assert_eq!(stream.read_timeout().unwrap(), None);
        let clone = stream.try_clone().unwrap();
        let reader = towpath::spawn(move || (&clone).read(&mut [0; 8]).unwrap());
        until_waiting("read", &stream);
        peer.write_all(b"hello").unwrap();
        assert_eq!(reader.join().unwrap(), 5);
    });
}

#[test]
fn a_socket_is_given_away_from_a_thread_that_is_not_its_home() {
    on_each_poller(|| {
        for _ in 0..50 {
            let (mut stream, mut peer) = pair_with_std();
            stream.set_read_timeout(Some(Duration::from_micros(1))).unwrap();
            assert_eq!(stream.read(&mut [0; 8]).unwrap_err().kind(), ErrorKind::TimedOut);
            let given = Caller::Thread.run(move || stream.into_std().unwrap()).join().unwrap();
            peer.write_all(b"hello").unwrap();
            assert_eq!((&given).read(&mut [0; 8]).unwrap(), 5);

            // From a thread to a task: here the home is the default runtime.
            let stream = TcpStream::from(given);
            stream.set_read_timeout(Some(Duration::from_micros(1))).unwrap();
            let stream = Caller::Thread
                .run(move || {
                    assert_eq!((&stream).read(&mut [0; 8]).unwrap_err().kind(), ErrorKind::TimedOut);
                    stream
                })
                .join()
                .unwrap();
            let given = stream.into_std().unwrap();
            peer.write_all(b"hello").unwrap();
            assert_eq!((&given).read(&mut [0; 8]).unwrap(), 5);
        }
    });
}

#[test]
fn a_descriptor_becomes_a_socket_and_again_one() {
    on_tasks_and_threads(|| {
        let (stream, mut peer) = pair();
        let number = stream.as_raw_fd();
        let fd = OwnedFd::try_from(stream).unwrap();
        assert_eq!(fd.as_raw_fd(), number, "it is the same descriptor");
        let stream = TcpStream::from(fd);
        let raw = std::net::TcpStream::try_from(stream).unwrap().into_raw_fd();
        // SAFETY: the number was just let go of by its owner.
        let mut stream = unsafe { TcpStream::from_raw_fd(raw) };
        peer.write_all(b"hello").unwrap();
        assert_eq!(stream.read(&mut [0; 8]).unwrap(), 5);
        assert_eq!(stream.as_raw_fd(), number);
        assert_eq!(stream.as_fd().as_raw_fd(), number);

        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let listener = TcpListener::from(OwnedFd::try_from(listener).unwrap());
        let raw = std::net::TcpListener::try_from(listener).unwrap().into_raw_fd();
        // SAFETY: the number was just let go of by its owner.
        let listener = unsafe { TcpListener::from_raw_fd(raw) };
        let _connected = TcpStream::connect(addr).unwrap();
        listener.accept().unwrap();
    });
}

#[test]
fn a_short_read_of_a_socket_that_is_not_tcp_does_not_hide_what_is_left() {
    on_tasks_and_threads(|| {
        for caller in CALLERS {
            // Of two messages a read of a seqpacket socket takes one, whatever the room, and no event tells of the other.
            let kind = rustix::net::SocketType::SEQPACKET;
            let flags = rustix::net::SocketFlags::CLOEXEC;
            let (ours, theirs) = rustix::net::socketpair(rustix::net::AddressFamily::UNIX, kind, flags, None).unwrap();
            let stream = TcpStream::from(ours);
            let clone = stream.try_clone().unwrap();
            let send = |text: &[u8]| rustix::net::send(&theirs, text, rustix::net::SendFlags::empty()).unwrap();
            let reader = caller.wait_in("read", &stream, move || {
                let mut buf = [0; 64];
                let first = (&clone).read(&mut buf).unwrap();
                until(|| has_event(&clone));
                (first, (&clone).read(&mut buf).unwrap())
            });
            send(b"one");
            send(b"three");
            assert_eq!(reader.join().unwrap(), (3, 5));
        }
    });
}
