//! The two system calls of the tour that are unsafe to make: leaving a namespace, and a child that is a copy of us.

use std::io::{self, Read as _, Write as _};
use std::panic::{self, AssertUnwindSafe};

use rustix::io::Errno;
use rustix::process::{Pid, WaitOptions, waitpid};

/// Which namespaces to leave for new ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// The network's, which needs CAP_SYS_ADMIN.
    Network,
    /// The user's first, which may be open to everybody and gives all capabilities over the new network.
    UserAndNetwork,
}

/// More than a report is, and less than a pipe takes at once: the child never waits for its reader.
const ROOM: u64 = 1024;

/// Leaves namespaces for new ones (unshare(2)).
pub(super) fn unshare(way: Way) -> io::Result<()> {
    let flags = match way {
        Way::Network => libc::CLONE_NEWNET,
        Way::UserAndNetwork => libc::CLONE_NEWUSER | libc::CLONE_NEWNET,
    };
    // SAFETY: these namespaces have nothing to do with memory or descriptors, which stay what they are.
    let status = unsafe { libc::unshare(flags) };
    if status == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// What `work` makes, a few bytes, done in a child: whatever it does to its process is undone.
///
/// To be called while there is one thread: then the child is a whole process, and may do what this one may.
pub(super) fn in_a_child(work: impl FnOnce() -> Vec<u8>) -> io::Result<Vec<u8>> {
    let (result, mut of_child) = io::pipe()?;
    // SAFETY: the process has one thread, as is asked for above, so that no lock can be held by one that the child lacks.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            // A panic would go on in `main`, of which there are two now. It has told of itself already.
            let made = panic::catch_unwind(AssertUnwindSafe(work)).unwrap_or_default();
            let _ = of_child.write_all(&made);
            // SAFETY: ends the child here and now, running nothing that the parent left to be run at its own exit.
            unsafe { libc::_exit(0) }
        }
        child => {
            drop(of_child);
            let mut made = Vec::new();
            let read = result.take(ROOM).read_to_end(&mut made);
            // It is ours, and nobody else waits for it.
            while let Err(Errno::INTR) = waitpid(Pid::from_raw(child), WaitOptions::empty()) {}
            read.map(|_| made)
        }
    }
}
