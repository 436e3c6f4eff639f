//! What the tests of this crate share: connections to look at, what the kernel and `ss` say of them by other ways, and ways to be
//! somebody else.
#![allow(dead_code, unreachable_pub)]

pub mod ss;

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use rustix::process::geteuid;
use rustix::thread::{Uid, set_thread_res_uid};
use towpath_diag::{Diag, Socket, Want};

/// How long anything may take, on a machine that is busy.
pub const WATCHDOG: Duration = Duration::from_secs(30);

/// Both families, and IPv4 on sockets of IPv6.
pub const PLACES: [(&str, &str); 3] =
    [("127.0.0.1:0", "127.0.0.1"), ("[::1]:0", "::1"), ("[::]:0", "::ffff:127.0.0.1")];

/// A connection within this process.
pub struct Pair {
    pub listener: TcpListener,
    pub client: TcpStream,
    pub server: TcpStream,
}

impl Pair {
    pub fn new() -> Pair {
        Pair::at(PLACES[0])
    }

    pub fn at((bind, connect): (&str, &str)) -> Pair {
        let listener = TcpListener::bind(bind).unwrap();
        let port = listener.local_addr().unwrap().port();
        let client = TcpStream::connect(SocketAddr::new(connect.parse().unwrap(), port)).unwrap();
        let server = listener.accept().unwrap().0;
        Pair { listener, client, server }
    }

    /// Those of these sockets that are of this pair: another connection may have the same port at its other end.
    pub fn own(&self, sockets: Vec<Socket>) -> Vec<Socket> {
        let own = [cookie(&self.listener), cookie(&self.client), cookie(&self.server)];
        sockets.into_iter().filter(|socket| own.contains(&socket.cookie)).collect()
    }

    pub fn port(&self) -> u16 {
        self.listener.local_addr().unwrap().port()
    }
}

/// The socket of a stream, by its addresses.
pub fn look(stream: &TcpStream) -> Socket {
    let (local, peer) = (stream.local_addr().unwrap(), stream.peer_addr().unwrap());
    Diag::open().unwrap().find(local, peer, Want::all()).unwrap().expect("the socket is there")
}

pub fn inode(fd: impl AsFd) -> u32 {
    u32::try_from(rustix::fs::fstat(fd).unwrap().st_ino).unwrap()
}

pub fn cookie(fd: impl AsFd) -> u64 {
    rustix::net::sockopt::socket_cookie(fd).unwrap()
}

/// Tries until there is an answer; for what the kernel does a little later, and tells nobody.
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(answer) = look() {
            return answer;
        }
        assert!(started.elapsed() < WATCHDOG, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Whether this is root. Says so if not, since a test is left out then.
pub fn is_root(test: &str) -> bool {
    let root = geteuid().is_root();
    if !root {
        println!("{test}: left out, needs root");
    }
    root
}

/// Does this as a user who may do nothing special: on a thread of its own, since each has its own user.
pub fn unprivileged<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let nobody = Uid::from_raw(65534);
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            if geteuid().is_root() {
                set_thread_res_uid(nobody, nobody, nobody).unwrap();
            }
            work()
        });
        thread.join().unwrap()
    })
}

/// TCP_INFO as getsockopt(2) gives it.
pub fn tcp_info(fd: impl AsFd) -> Vec<u8> {
    let mut room = vec![0_u8; 512];
    let mut length = room.len() as libc::socklen_t;
    let (fd, value) = (fd.as_fd().as_raw_fd(), room.as_mut_ptr().cast());
    // SAFETY: the kernel writes at most `length` bytes to `value`, which has that many.
    let failed = unsafe { libc::getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_INFO, value, &raw mut length) };
    assert_eq!(failed, 0, "{}", io::Error::last_os_error());
    room.truncate(length as usize);
    room
}

/// Sets an option whose value is a number.
pub fn set_option(fd: impl AsFd, level: i32, name: i32, value: i32) {
    let length = size_of_val(&value) as libc::socklen_t;
    let (fd, value) = (fd.as_fd().as_raw_fd(), (&raw const value).cast());
    // SAFETY: the kernel reads `length` bytes at `value`, which are those of a number that outlives the call.
    let failed = unsafe { libc::setsockopt(fd, level, name, value, length) };
    assert_eq!(failed, 0, "{}", io::Error::last_os_error());
}
