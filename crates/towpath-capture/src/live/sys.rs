//! The system calls of an AF_PACKET socket, which no library has in whole; nothing else here is unsafe.

use std::io;
use std::mem::{self, MaybeUninit};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

use super::bpf::Code;
use crate::Timestamp;

/// What the kernel says of a packet beside its bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Meta {
    pub(super) time: Timestamp,
    /// Its length before the filter cut it.
    pub(super) original_len: u32,
    /// How much of it is in the buffer.
    pub(super) len: usize,
    pub(super) interface: u32,
    /// An EtherType.
    pub(super) protocol: u16,
    /// ARPHRD_LOOPBACK and its like.
    pub(super) hardware: u16,
    /// PACKET_OUTGOING and its like.
    pub(super) direction: u8,
    pub(super) addr_len: u8,
    pub(super) addr: [u8; 8],
    pub(super) vlan: Option<Vlan>,
}

/// A VLAN's tag that was taken off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Vlan {
    /// 802.1Q or 802.1ad.
    pub(super) protocol: u16,
    pub(super) tag: u16,
}

/// How many packets one call takes: eight are a fifth cheaper each than one, and more no cheaper (examples/speed.rs).
pub(super) const BATCH: usize = 16;

/// Room for the two control messages that are asked for.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Control([u8; 96]);

/// A socket that sends nothing, and receives nothing before it is bound: its protocol is zero.
pub(super) fn socket() -> io::Result<OwnedFd> {
    // SAFETY: no memory is involved.
    let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded, so the descriptor is open, and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Has the kernel drop what the program does not want.
pub(super) fn attach(socket: BorrowedFd<'_>, program: impl Iterator<Item = Code>) -> io::Result<()> {
    let mut program: Vec<_> =
        program.map(|op| libc::sock_filter { code: op.code, jt: op.jt, jf: op.jf, k: op.k }).collect();
    let len = u16::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let filter = libc::sock_fprog { len, filter: program.as_mut_ptr() };
    set(socket, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &filter)
}

/// Has the kernel say when each packet passed, and what it knows of it.
pub(super) fn ask_for_details(socket: BorrowedFd<'_>) -> io::Result<()> {
    let on: libc::c_int = 1;
    set(socket, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, &on)?;
    set(socket, libc::SOL_PACKET, libc::PACKET_AUXDATA, &on)
}

/// Asks for so many bytes of buffer; without CAP_NET_ADMIN it gets no more than net.core.rmem_max.
pub(super) fn set_buffer(socket: BorrowedFd<'_>, bytes: usize) -> io::Result<()> {
    // The kernel doubles it, and counts what a packet costs, not what it holds.
    let bytes = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX / 2);
    set(socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, &bytes)
        .or_else(|_| set(socket, libc::SOL_SOCKET, libc::SO_RCVBUF, &bytes))
}

/// Has the kernel not show what is sent (Linux 4.20).
pub(super) fn ignore_outgoing(socket: BorrowedFd<'_>) -> io::Result<()> {
    const PACKET_IGNORE_OUTGOING: libc::c_int = 23;
    let on: libc::c_int = 1;
    set(socket, libc::SOL_PACKET, PACKET_IGNORE_OUTGOING, &on)
}

/// From now on packets come: of the interface with this index, or of all if it is zero.
pub(super) fn bind(socket: BorrowedFd<'_>, interface: u32) -> io::Result<()> {
    let index = libc::c_int::try_from(interface).map_err(|_| io::ErrorKind::InvalidInput)?;
    let addr = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: (libc::ETH_P_ALL as u16).to_be(),
        sll_ifindex: index,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let len = mem::size_of_val(&addr) as libc::socklen_t;
    // SAFETY: the descriptor is borrowed, hence open; the address is a whole one, and outlives the call.
    let status = unsafe { libc::bind(socket.as_raw_fd(), ptr::from_ref(&addr).cast(), len) };
    if status == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The interface that the socket is bound to: its index, which is negative once it has been deleted, and its kind.
pub(super) fn bound_to(socket: BorrowedFd<'_>) -> io::Result<(i32, u16)> {
    let mut addr = MaybeUninit::<libc::sockaddr_ll>::zeroed();
    let mut len = mem::size_of_val(&addr) as libc::socklen_t;
    // SAFETY: the descriptor is borrowed, hence open; the kernel writes at most `len` bytes, all of `addr`.
    let status = unsafe { libc::getsockname(socket.as_raw_fd(), addr.as_mut_ptr().cast(), &raw mut len) };
    if status != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: all its fields are integers, for which any bytes will do, and those not written are zero.
    let addr = unsafe { addr.assume_init() };
    Ok((addr.sll_ifindex, addr.sll_hatype))
}

/// How many packets the filter let through, and how many of them found no room, since the last call.
pub(super) fn statistics(socket: BorrowedFd<'_>) -> io::Result<(u32, u32)> {
    let mut stats = libc::tpacket_stats { tp_packets: 0, tp_drops: 0 };
    let mut len = mem::size_of_val(&stats) as libc::socklen_t;
    let value = ptr::from_mut(&mut stats).cast();
    // SAFETY: the descriptor is borrowed, hence open; the kernel writes at most `len` bytes, all of `stats`.
    let status =
        unsafe { libc::getsockopt(socket.as_raw_fd(), libc::SOL_PACKET, libc::PACKET_STATISTICS, value, &raw mut len) };
    if status == 0 { Ok((stats.tp_packets, stats.tp_drops)) } else { Err(io::Error::last_os_error()) }
}

/// Takes what is there, one packet into each slot, after its first `room` bytes; what it says of them goes into `metas`.
pub(super) fn receive(
    socket: BorrowedFd<'_>,
    slots: &mut [Box<[u8]>],
    room: usize,
    metas: &mut [Meta; BATCH],
) -> io::Result<usize> {
    let mut addrs = [MaybeUninit::<libc::sockaddr_ll>::zeroed(); BATCH];
    let mut controls = [Control([0; 96]); BATCH];
    let mut parts = [libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 }; BATCH];
    let mut messages = [MaybeUninit::<libc::mmsghdr>::zeroed(); BATCH];
    let count = slots.len().min(BATCH);
    for index in 0..count {
        let slot = &mut slots[index][room..];
        parts[index] = libc::iovec { iov_base: slot.as_mut_ptr().cast(), iov_len: slot.len() };
        // SAFETY: it is zeroed, and its fields are integers and pointers, which may all be zero.
        let message = unsafe { messages[index].assume_init_mut() };
        message.msg_hdr.msg_name = addrs[index].as_mut_ptr().cast();
        message.msg_hdr.msg_namelen = mem::size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        message.msg_hdr.msg_iov = &raw mut parts[index];
        message.msg_hdr.msg_iovlen = 1;
        message.msg_hdr.msg_control = controls[index].0.as_mut_ptr().cast();
        message.msg_hdr.msg_controllen = mem::size_of::<Control>() as _;
    }
    let flags = libc::MSG_DONTWAIT as _;
    // SAFETY: the descriptor is borrowed, hence open; each of the first `count` messages points to a slot, an address and
    // a control buffer of its own with their true lengths, which all outlive the call.
    let taken = unsafe {
        libc::recvmmsg(socket.as_raw_fd(), messages.as_mut_ptr().cast(), count as libc::c_uint, flags, ptr::null_mut())
    };
    let taken = usize::try_from(taken).map_err(|_| io::Error::last_os_error())?;
    for index in 0..taken {
        // SAFETY: zeroed above, then written by the kernel.
        let message = unsafe { messages[index].assume_init_ref() };
        // SAFETY: all its fields are integers, for which any bytes will do, and those not written are zero.
        let addr = unsafe { addrs[index].assume_init_ref() };
        let control = &controls[index].0;
        let meta = &mut metas[index];
        *meta = Meta {
            time: Timestamp::default(),
            original_len: message.msg_len,
            len: (message.msg_len as usize).min(parts[index].iov_len),
            interface: addr.sll_ifindex as u32,
            protocol: u16::from_be(addr.sll_protocol),
            hardware: addr.sll_hatype,
            direction: addr.sll_pkttype,
            addr_len: addr.sll_halen,
            addr: addr.sll_addr,
            vlan: None,
        };
        // What the kernel has not filled is zero, which ends it.
        read_control(control, meta);
    }
    Ok(taken)
}

/// Reads the control messages: each a length that counts all of it, a level, a kind, then its value, at the next word.
fn read_control(mut rest: &[u8], meta: &mut Meta) {
    const WORD: usize = mem::size_of::<usize>();
    const HEADER: usize = WORD + 8;
    while let Some((header, _)) = rest.split_at_checked(HEADER) {
        let len = usize::from_ne_bytes(header[..WORD].try_into().expect("a word"));
        let number = |at: usize| i32::from_ne_bytes(header[at..at + 4].try_into().expect("four bytes"));
        let Some(value) = rest.get(HEADER..len) else { return };
        match (number(WORD), number(WORD + 4)) {
            (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) => read_time(value, meta),
            (libc::SOL_PACKET, libc::PACKET_AUXDATA) => read_aux(value, meta),
            _ => {}
        }
        rest = rest.get(len.next_multiple_of(WORD)..).unwrap_or_default();
    }
}

/// A `struct timespec`.
fn read_time(value: &[u8], meta: &mut Meta) {
    const HALF: usize = mem::size_of::<libc::c_long>();
    let half = |at: usize| Some(libc::c_long::from_ne_bytes(value.get(at..at + HALF)?.try_into().ok()?));
    if let (Some(seconds), Some(nanos)) = (half(0), half(HALF)) {
        let seconds = u64::try_from(seconds).unwrap_or(0);
        meta.time = Timestamp::from_nanos(seconds.saturating_mul(1_000_000_000).saturating_add(nanos as u64));
    }
}

/// A `struct tpacket_auxdata`: four words (the first two count), then four halves, the last of which are the VLAN's.
fn read_aux(value: &[u8], meta: &mut Meta) {
    const VLAN_VALID: u32 = 1 << 4;
    const VLAN_PROTOCOL_VALID: u32 = 1 << 6;
    let word = |at: usize| value.get(at..at + 4).map(|bytes| u32::from_ne_bytes(bytes.try_into().expect("four bytes")));
    let half = |at: usize| value.get(at..at + 2).map(|bytes| u16::from_ne_bytes(bytes.try_into().expect("two bytes")));
    let (Some(status), Some(len), Some(tag), Some(protocol)) = (word(0), word(4), half(16), half(18)) else { return };
    meta.original_len = len;
    if status & VLAN_VALID != 0 {
        let protocol = if status & VLAN_PROTOCOL_VALID != 0 { protocol } else { 0x8100 };
        meta.vlan = Some(Vlan { protocol, tag });
    }
}

fn set<T>(socket: BorrowedFd<'_>, level: libc::c_int, name: libc::c_int, value: &T) -> io::Result<()> {
    let len = mem::size_of::<T>() as libc::socklen_t;
    // SAFETY: the descriptor is borrowed, hence open; the kernel reads `len` bytes, all of `value`, and what that points to,
    // which is in the caller's hands until the call returns.
    let status = unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, ptr::from_ref(value).cast(), len) };
    if status == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
