//! What the kernel knows of a connection beyond what `std` asks it: the options in the peer's SYN, the round-trip time, the
//! retransmissions, and who listens at a Unix socket. See tcp(7), linux/tcp.h and unix(7). Nothing here needs a privilege.
//!
//! The command's only unsafe code is here: one socket option in, three out.

use std::io;
use std::mem::{self, MaybeUninit};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;
use std::{fmt, ptr};

use serde::Serialize;
use towpath_capture::{LinkType, Timestamp, segment};
use towpath_diag::TcpInfo;

/// The options of a SYN that say what its sender can do. `None` and `false`: the option was not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub(crate) struct SynOptions {
    /// The longest segment the sender takes, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) mss: Option<u16>,
    /// The power of two by which its windows are to be multiplied.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) wscale: Option<u8>,
    /// It understands selective acknowledgements.
    pub(crate) sack: bool,
    /// It sends timestamps.
    pub(crate) ts: bool,
}

/// How the network treated a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Path {
    /// The smoothed round-trip time; none before the kernel has measured one.
    #[serde(rename = "rtt_us", serialize_with = "micros")]
    pub(crate) rtt: Option<Duration>,
    /// How many segments were sent again.
    pub(crate) retrans: u32,
}

/// Who is at the other end of a Unix socket's connection; for who connected, whoever called listen(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Peer {
    /// None: a process that has no number here, because it is in another PID namespace.
    pub(crate) pid: Option<u32>,
    pub(crate) uid: u32,
}

/// Has the kernel keep the SYN of every connection that `listener` accepts from now on (Linux 4.3).
pub(crate) fn save_syn(listener: &impl AsFd) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the descriptor is borrowed, hence open; `on` is an int, as tcp(7) wants, and outlives the call.
    let status = unsafe {
        libc::setsockopt(
            listener.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_SAVE_SYN,
            ptr::from_ref(&on).cast(),
            mem::size_of_val(&on) as libc::socklen_t,
        )
    };
    if status == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// What the SYN that began `stream` offered. The kernel gives it away once.
pub(crate) fn saved_syn(stream: &impl AsFd) -> Option<SynOptions> {
    // Headers only: an IPv6 header with extensions and the longest TCP header fit many times.
    let mut packet = [MaybeUninit::<u8>::uninit(); 512];
    let headers = option(stream.as_fd(), libc::IPPROTO_TCP, libc::TCP_SAVED_SYN, &mut packet)?;
    syn_options(headers)
}

/// How the connection has fared so far.
pub(crate) fn path(stream: &impl AsFd) -> Option<Path> {
    // More than any kernel fills; what lies beyond the fields that `TcpInfo` knows is not asked for.
    let mut bytes = [MaybeUninit::<u8>::uninit(); 512];
    let info = TcpInfo::new(option(stream.as_fd(), libc::IPPROTO_TCP, libc::TCP_INFO, &mut bytes)?);
    Some(Path { rtt: info.rtt(), retrans: info.total_retrans()? })
}

/// Who is at the other end of `stream`, a Unix socket (SO_PEERCRED).
pub(crate) fn peer(stream: &impl AsFd) -> Option<Peer> {
    // `struct ucred`: pid, uid and gid. Read as plain numbers, for the first may be 0, which is no process's.
    let mut bytes = [MaybeUninit::<u8>::uninit(); mem::size_of::<libc::ucred>()];
    let ucred = option(stream.as_fd(), libc::SOL_SOCKET, libc::SO_PEERCRED, &mut bytes)?;
    let (&pid, rest) = ucred.split_first_chunk()?;
    let (&uid, _) = rest.split_first_chunk()?;
    Some(Peer { pid: Some(u32::from_ne_bytes(pid)).filter(|&pid| pid != 0), uid: u32::from_ne_bytes(uid) })
}

/// The value of an option, as far as the kernel filled `buffer`.
fn option<'a>(
    socket: BorrowedFd<'_>,
    level: libc::c_int,
    name: libc::c_int,
    buffer: &'a mut [MaybeUninit<u8>],
) -> Option<&'a [u8]> {
    let mut length = buffer.len() as libc::socklen_t;
    // SAFETY: the descriptor is borrowed, hence open; the kernel writes at most `length` bytes, all of `buffer`.
    let status =
        unsafe { libc::getsockopt(socket.as_raw_fd(), level, name, buffer.as_mut_ptr().cast(), &raw mut length) };
    if status != 0 {
        return None;
    }
    let filled = buffer.get(..length as usize)?;
    // SAFETY: getsockopt(2) succeeded, so it wrote the `length` bytes that it reports.
    Some(unsafe { filled.assume_init_ref() })
}

/// Reads the options out of a SYN's headers, which begin with the IP header and hold no data, though they may count that
/// of a fast open.
fn syn_options(headers: &[u8]) -> Option<SynOptions> {
    let segment = segment::parse(LinkType::RAW, Timestamp::default(), headers, headers.len() as u32).ok()??;
    let options = segment.options;
    (!options.malformed).then_some(SynOptions {
        mss: options.mss,
        wscale: options.window_scale,
        sack: options.sack_permitted,
        ts: options.timestamps.is_some(),
    })
}

impl fmt::Display for SynOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = [
            self.mss.map(|mss| format!("mss {mss}")),
            self.wscale.map(|shift| format!("wscale {shift}")),
            self.sack.then(|| "sack".to_owned()),
            self.ts.then(|| "ts".to_owned()),
        ];
        let words: Vec<_> = words.into_iter().flatten().collect();
        if words.is_empty() {
            return f.write_str("no options");
        }
        f.write_str(&words.join(" "))
    }
}

fn micros<S: serde::Serializer>(time: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    time.map(|time| u64::try_from(time.as_micros()).unwrap_or(u64::MAX)).serialize(serializer)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::UnixStream;

    use super::*;

    /// A SYN over IPv4 with these options, whose length is a multiple of four.
    fn syn(options: &[u8]) -> Vec<u8> {
        let total = 40 + options.len() as u8;
        let mut packet = vec![0x45, 0, 0, total, 0, 0, 0x40, 0, 64, 6, 0, 0, 127, 0, 0, 1, 127, 0, 0, 1];
        let words = (20 + options.len() as u8) / 4;
        packet.extend([0x9b, 0x70, 0x20, 0x8a, 0, 0, 0, 1, 0, 0, 0, 0, words << 4, 2, 0xff, 0xd7, 0, 0, 0, 0]);
        packet.extend(options);
        packet
    }

    #[test]
    fn linux_options_are_read() {
        let options = [2, 4, 0xff, 0xd7, 4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 1, 3, 3, 10];
        let found = syn_options(&syn(&options)).unwrap();
        assert_eq!(found.to_string(), "mss 65495 wscale 10 sack ts");
    }

    #[test]
    fn unknown_options_are_passed_over_and_none_is_said() {
        let found = syn_options(&syn(&[254, 4, 0, 0, 4, 2, 1, 0])).unwrap();
        assert_eq!(found.to_string(), "sack");
        assert_eq!(syn_options(&syn(&[])).unwrap().to_string(), "no options");
    }

    #[test]
    fn broken_headers_are_refused_and_never_read_past() {
        let whole = syn(&[2, 4, 0xff, 0xd7, 3, 3, 10, 0]);
        for end in 0..whole.len() {
            assert_eq!(syn_options(&whole[..end]), None, "cut at {end}");
        }
        assert_eq!(syn_options(&syn(&[2, 200, 0, 0])), None);
        assert_eq!(syn_options(&syn(&[2, 0, 0, 0])), None);
        assert_eq!(syn_options(&syn(&[1, 1, 1, 2])), None);
    }

    #[test]
    fn the_kernel_tells_who_is_at_the_other_end() {
        let (one, _other) = UnixStream::pair().unwrap();
        let uid = rustix::process::geteuid().as_raw();
        assert_eq!(peer(&one), Some(Peer { pid: Some(std::process::id()), uid }));
    }

    #[test]
    fn the_kernel_tells_of_a_connection() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            // A machine without IPv6 has nothing to say about it.
            let Ok(listener) = TcpListener::bind(address) else { continue };
            save_syn(&listener).unwrap();
            let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (stream, _) = listener.accept().unwrap();

            let syn = saved_syn(&stream).expect("the option was set before the SYN came");
            assert!(syn.mss.is_some(), "{syn:?}");
            assert_eq!(saved_syn(&stream), None, "given away once");
            let path = path(&stream).unwrap();
            assert_eq!(path.retrans, 0);
            assert!(path.rtt.is_some());
        }
    }
}
