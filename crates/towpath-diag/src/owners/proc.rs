//! `/proc`, as far as it tells who has which socket (proc(5)). Processes come and go while it is read, and those of others may be
//! closed to us: what cannot be read is passed over.
#![forbid(unsafe_code)]

use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags, RawDir, openat, readlinkat_raw};

/// Room for the names of some hundred entries at a time.
const ENTRIES: usize = 8 << 10;

/// Longer than `socket:[4294967295]`; what is longer is no socket.
const LINK: usize = 32;

/// Calls `each` with every descriptor of a socket that may be seen: process, descriptor, inode.
pub(super) fn for_each_socket(mut each: impl FnMut(u32, u32, u32)) {
    let Some(proc) = open(CWD, c"/proc") else { return };
    for_each_number(&proc, |pid, name| {
        let Some(process) = open(&proc, name) else { return };
        let Some(descriptors) = open(&process, c"fd") else { return };
        for_each_number(&descriptors, |fd, name| {
            let mut link = [MaybeUninit::uninit(); LINK];
            if let Ok((link, _)) = readlinkat_raw(&descriptors, name, &mut link)
                && let Some(inode) = socket(link)
            {
                each(pid, fd, inode);
            }
        });
    });
}

fn open(at: impl AsFd, name: &CStr) -> Option<OwnedFd> {
    openat(at, name, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).ok()
}

/// The entries of a folder whose names are numbers.
fn for_each_number(folder: &OwnedFd, mut each: impl FnMut(u32, &CStr)) {
    let mut room = [MaybeUninit::uninit(); ENTRIES];
    let mut entries = RawDir::new(folder, &mut room);
    while let Some(Ok(entry)) = entries.next() {
        if let Some(number) = number(entry.file_name().to_bytes()) {
            each(number, entry.file_name());
        }
    }
}

/// The inode in `socket:[123]`.
fn socket(link: &[u8]) -> Option<u32> {
    number(link.strip_prefix(b"socket:[")?.strip_suffix(b"]")?)
}

fn number(digits: &[u8]) -> Option<u32> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// What tells a process from a later one of the same number, and the name of its program.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Stat {
    pub(super) started: u64,
    pub(super) command: String,
}

/// None if the process is gone.
pub(super) fn stat(pid: u32) -> Option<Stat> {
    parse(&std::fs::read(format!("/proc/{pid}/stat")).ok()?)
}

/// `123 (name) S …`, where the name may have spaces and parentheses of its own, and the start is the 22nd field.
pub(super) fn parse(stat: &[u8]) -> Option<Stat> {
    let open = stat.iter().position(|&byte| byte == b'(')?;
    let close = stat.iter().rposition(|&byte| byte == b')')?;
    let command = String::from_utf8_lossy(stat.get(open + 1..close)?).into_owned();
    let after = std::str::from_utf8(&stat[close + 1..]).ok()?;
    Some(Stat { started: after.split_ascii_whitespace().nth(19)?.parse().ok()?, command })
}

#[cfg(test)]
mod tests {
    use super::{Stat, parse, socket};

    #[test]
    fn a_program_may_have_any_name() {
        let stat = b"7 (a) S (b) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4242 9 9 9\n";
        assert_eq!(parse(stat), Some(Stat { started: 4242, command: "a) S (b".into() }));
        assert_eq!(parse(b"7 )( S 1"), None);
        assert_eq!(parse(b""), None);
    }

    #[test]
    fn only_a_socket_has_a_sockets_inode() {
        assert_eq!(socket(b"socket:[4294967295]"), Some(u32::MAX));
        assert_eq!(socket(b"pipe:[12]"), None);
        assert_eq!(socket(b"socket:[12"), None);
        assert_eq!(socket(b"socket:[99999999999]"), None);
    }
}
