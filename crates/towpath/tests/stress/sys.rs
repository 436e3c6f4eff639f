//! What the stress needs of the system that neither std nor the library has.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Sends one urgent byte (tcp(7)).
pub(crate) fn send_urgent(socket: &impl AsRawFd, byte: u8) -> io::Result<()> {
    let flags = libc::MSG_OOB | libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: the pointer and the length are those of one byte that lives until the call returns.
    let sent = unsafe { libc::send(socket.as_raw_fd(), (&raw const byte).cast(), 1, flags) };
    if sent == 1 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Reads the urgent byte, if there is one.
pub(crate) fn read_urgent(socket: &impl AsRawFd) -> Option<u8> {
    let mut byte = 0u8;
    let flags = libc::MSG_OOB | libc::MSG_DONTWAIT;
    // SAFETY: the pointer and the length are those of one byte that lives until the call returns.
    let read = unsafe { libc::recv(socket.as_raw_fd(), (&raw mut byte).cast(), 1, flags) };
    (read == 1).then_some(byte)
}

/// How many bytes a read would find, up to 99: what shows whether a reader that waits should. An urgent mark ends it.
pub(crate) fn unread(fd: i32) -> io::Result<usize> {
    let mut bytes = [0u8; 99];
    let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT;
    // SAFETY: the pointer and the length are those of an array that lives until the call returns; a wrong descriptor is
    // an error and no harm.
    let count = unsafe { libc::recv(fd, bytes.as_mut_ptr().cast(), bytes.len(), flags) };
    usize::try_from(count).map_err(|_| io::Error::last_os_error())
}

/// What poll(2) says of a descriptor, and the state of its connection as tcp(7) numbers it: whether a caller that waits
/// should.
pub(crate) fn readiness(fd: i32) -> String {
    let events = libc::POLLIN | libc::POLLOUT | libc::POLLPRI | libc::POLLRDHUP;
    let mut poll = libc::pollfd { fd, events, revents: 0 };
    // SAFETY: the pointer is to the one entry that the count says.
    let status = unsafe { libc::poll(&raw mut poll, 1, 0) };
    let mut state = 0_u8;
    let mut len = 1;
    // SAFETY: the pointer and the length are those of one byte, the first of a `tcp_info`, and nothing more is written.
    let told =
        unsafe { libc::getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_INFO, (&raw mut state).cast(), &raw mut len) };
    let names = [
        (libc::POLLIN, "in"),
        (libc::POLLOUT, "out"),
        (libc::POLLPRI, "pri"),
        (libc::POLLRDHUP, "rdhup"),
        (libc::POLLHUP, "hup"),
        (libc::POLLERR, "err"),
    ];
    let ready: Vec<_> = names.iter().filter(|(bit, _)| status > 0 && poll.revents & bit != 0).map(|n| n.1).collect();
    format!("ready {}, state {}", ready.join("+"), if told == 0 { i32::from(state) } else { -1 })
}

/// Has a listener hold one connection that nobody has accepted, and leave later ones waiting.
pub(crate) fn shrink_backlog(listener: &impl AsRawFd) {
    // SAFETY: it takes no pointers; the descriptor is borrowed for the call.
    let status = unsafe { libc::listen(listener.as_raw_fd(), 0) };
    assert_eq!(status, 0, "listen: {}", io::Error::last_os_error());
}

/// A port that refuses connections as long as the descriptor lives: bound, and not listening.
pub(crate) fn refusing_port() -> (OwnedFd, SocketAddr) {
    // SAFETY: it takes no pointers.
    let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
    assert!(fd >= 0, "socket: {}", io::Error::last_os_error());
    // SAFETY: the descriptor was made above and is nobody else's.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let mut addr = libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: 0,
        sin_addr: libc::in_addr { s_addr: u32::from(Ipv4Addr::LOCALHOST).to_be() },
        sin_zero: [0; 8],
    };
    let mut len = size_of_val(&addr) as libc::socklen_t;
    // SAFETY: the pointer and the length are those of `addr`.
    let bound = unsafe { libc::bind(fd.as_raw_fd(), (&raw const addr).cast(), len) };
    assert_eq!(bound, 0, "bind: {}", io::Error::last_os_error());
    // SAFETY: as above; the length is a place of its own.
    let named = unsafe { libc::getsockname(fd.as_raw_fd(), (&raw mut addr).cast(), &raw mut len) };
    assert_eq!(named, 0, "getsockname: {}", io::Error::last_os_error());
    (fd, SocketAddr::from((Ipv4Addr::LOCALHOST, u16::from_be(addr.sin_port))))
}

/// The open descriptors, each with what it refers to.
pub(crate) fn descriptors() -> Vec<String> {
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else { return Vec::new() };
    let links = entries.flatten().map(|entry| (entry.file_name(), std::fs::read_link(entry.path())));
    // The directory itself is open while it is read, and gone by the time that its entry is.
    links.filter_map(|(name, link)| Some(format!("{} {}", name.display(), link.ok()?.display()))).collect()
}

/// The names of the process's threads, but for the library's blocking pools, which last some seconds after their work.
pub(crate) fn threads() -> Vec<String> {
    let Ok(entries) = std::fs::read_dir("/proc/self/task") else { return Vec::new() };
    let names = entries.flatten().filter_map(|entry| std::fs::read_to_string(entry.path().join("comm")).ok());
    let names = names.map(|name| name.trim_end().to_owned());
    names.filter(|name| !name.starts_with("towpath-block") && !name.starts_with("towpath-look")).collect()
}

/// How many mappings there are, and how many bytes of address space the stacks of tasks have: these are all that has
/// MADV_NOHUGEPAGE ("nh" in proc_pid_smaps(5)).
pub(crate) fn mappings() -> (usize, usize) {
    let Ok(smaps) = std::fs::read_to_string("/proc/self/smaps") else { return (0, 0) };
    let (mut count, mut size, mut stacks) = (0, 0, 0);
    for line in smaps.lines() {
        if let Some(kilobytes) = line.strip_prefix("Size:") {
            count += 1;
            size = kilobytes.trim().trim_end_matches(" kB").parse().unwrap_or(0) * 1024;
        } else if line.starts_with("VmFlags:") && line.split_whitespace().any(|flag| flag == "nh") {
            stacks += size;
        }
    }
    (count, stacks)
}

/// A number of kilobytes from proc_pid_status(5), in bytes.
pub(crate) fn status(field: &str) -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    line.and_then(|kilobytes| kilobytes.trim().trim_end_matches(" kB").parse::<usize>().ok()).unwrap_or(0) * 1024
}
