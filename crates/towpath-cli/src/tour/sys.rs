//! The two system calls of the tour that are unsafe to make: leaving a namespace, and a child that is a copy of us.

use std::io;

/// Leaves the namespaces that `flags` names (CLONE_NEW…, unshare(2)) for new ones.
pub(super) fn unshare(flags: libc::c_int) -> io::Result<()> {
    // SAFETY: namespaces are no memory, and no flag that is given here has anything to do with descriptors.
    let status = unsafe { libc::unshare(flags) };
    if status == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// What `work` makes, done in a child: whatever it does to its process is undone. At most [`ROOM`] bytes of it.
///
/// To be called while there is one thread: then the child is a whole process, and may do what this one may.
pub(super) fn in_a_child(work: impl FnOnce() -> Vec<u8>) -> io::Result<Vec<u8>> {
    use std::io::{Read as _, Write as _};
    let (mut result, mut of_child) = io::pipe()?;
    // SAFETY: the process has one thread, as is asked for above, so that no lock can be held by one that the child lacks.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            let _ = of_child.write_all(&work());
            // SAFETY: ends the child here and now, running nothing that the parent left to be run at its own exit.
            unsafe { libc::_exit(0) }
        }
        child => {
            drop(of_child);
            let mut made = Vec::new();
            let read = result.by_ref().take(ROOM).read_to_end(&mut made);
            let child = rustix::process::Pid::from_raw(child);
            // It is ours, and nobody else waits for it.
            while let Err(rustix::io::Errno::INTR) =
                rustix::process::waitpid(child, rustix::process::WaitOptions::empty()).map(drop)
            {}
            read.map(|_| made)
        }
    }
}

/// Less than a pipe takes at once, so that the child never waits for its reader.
const ROOM: u64 = 1024;
