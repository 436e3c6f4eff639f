//! The one system call that rustix has no function for.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Has the kernel put words to its errors on this netlink socket (NETLINK_EXT_ACK, since Linux 4.12).
pub(crate) fn explain_errors(fd: BorrowedFd<'_>) -> io::Result<()> {
    let on: libc::c_int = 1;
    let length = size_of_val(&on) as libc::socklen_t;
    let value = (&raw const on).cast();
    // SAFETY: the kernel reads `length` bytes at `value`, which are those of `on`, and keeps nothing of them.
    let failed = unsafe { libc::setsockopt(fd.as_raw_fd(), libc::SOL_NETLINK, libc::NETLINK_EXT_ACK, value, length) };
    if failed == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
