//! Who is at the other end of a Unix socket.

use std::io;
use std::mem;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

/// The user who connected (SO_PEERCRED, unix(7)). The process is not told: of one outside our PID namespace the kernel gives 0,
/// for which `rustix::process::Pid`, and so its call for this, has no room.
pub(super) fn user(stream: &UnixStream) -> io::Result<libc::uid_t> {
    let mut peer = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut length = mem::size_of_val(&peer) as libc::socklen_t;
    // SAFETY: the descriptor is open, and the kernel writes at most `length` bytes, all of `peer`, for which every bit pattern
    // is valid.
    let status = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut peer).cast(),
            &raw mut length,
        )
    };
    if status == 0 { Ok(peer.uid) } else { Err(io::Error::last_os_error()) }
}
