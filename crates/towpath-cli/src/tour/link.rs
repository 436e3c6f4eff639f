//! Taking the loopback interface up: in a network namespace that is new it is there, and down. One message of
//! rtnetlink(7) and its answer.

#![forbid(unsafe_code)]

use std::io;

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netdevice};

/// Its name.
pub(super) const LOOPBACK: &str = "lo";

/// struct nlmsghdr and struct ifinfomsg, of sixteen bytes each (netlink(7), rtnetlink(7)).
const REQUEST: usize = 32;

/// Takes the loopback interface of the network namespace that we are in up.
pub(super) fn take_up() -> io::Result<()> {
    let (kind, flags) = (SocketType::RAW, SocketFlags::CLOEXEC);
    // NETLINK_ROUTE is the protocol number zero.
    let socket = rustix::net::socket_with(AddressFamily::NETLINK, kind, flags, None)?;
    rustix::net::connect(&socket, &SocketAddrNetlink::new(0, 0))?;
    let index = netdevice::name_to_index(&socket, LOOPBACK)?;
    rustix::net::send(&socket, &request(index), SendFlags::empty())?;
    // The kernel answers within the call that asks.
    let mut answer = [0; 1024];
    let (length, _) = rustix::net::recv(&socket, &mut answer, RecvFlags::DONTWAIT)?;
    outcome(&answer[..length])
}

/// RTM_NEWLINK: the interface with this index is to have the flag IFF_UP.
fn request(index: u32) -> [u8; REQUEST] {
    let mut request = [0; REQUEST];
    let mut put = |at: usize, bytes: &[u8]| request[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &(REQUEST as u32).to_ne_bytes());
    put(4, &libc::RTM_NEWLINK.to_ne_bytes());
    put(6, &((libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u16).to_ne_bytes());
    put(20, &index.to_ne_bytes());
    let up = (libc::IFF_UP as u32).to_ne_bytes();
    put(24, &up);
    // Which flags are meant, for there are others.
    put(28, &up);
    request
}

/// What an answer says: NLMSG_ERROR with a number, which is zero if all is well.
fn outcome(answer: &[u8]) -> io::Result<()> {
    let kind = answer.get(4..6).and_then(|bytes| Some(u16::from_ne_bytes(bytes.try_into().ok()?)));
    let error = answer.get(16..20).and_then(|bytes| Some(i32::from_ne_bytes(bytes.try_into().ok()?)));
    match (kind, error) {
        (Some(kind), Some(0)) if i32::from(kind) == libc::NLMSG_ERROR => Ok(()),
        (Some(kind), Some(error)) if i32::from(kind) == libc::NLMSG_ERROR => {
            Err(io::Error::from_raw_os_error(error.saturating_neg()))
        }
        _ => Err(Errno::BADMSG.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_is_none_is_refused() {
        let mut answer = [0; 20];
        answer[4..6].copy_from_slice(&(libc::NLMSG_ERROR as u16).to_ne_bytes());
        assert!(outcome(&answer).is_ok());
        answer[16..20].copy_from_slice(&(-libc::EPERM).to_ne_bytes());
        assert_eq!(outcome(&answer).unwrap_err().raw_os_error(), Some(libc::EPERM));
        assert_eq!(outcome(&answer[..19]).unwrap_err().raw_os_error(), Some(libc::EBADMSG));
        answer[4] = 9;
        assert_eq!(outcome(&answer).unwrap_err().raw_os_error(), Some(libc::EBADMSG));
    }
}
