//! The inspect endpoint: a Unix socket at which the same user, and root, may ask a running program for its tasks.
//!
//! ```text
//! Runtime::start ── join ──▶ Endpoint ── folder   where the socket lies, and who else might reach it
//! shutdown ─────── leave ──▶    │
//! exit(3), fork(2) ────────▶    └─────── serve    a plain thread: a task that holds up a worker does not hold it up
//! ```
//!
//! A process has one, however many of its runtimes opt in: the first opens it and the last to shut down takes it away. What
//! is said there: one line, `{"v":1,"dump":{"backtrace":false}}`; what comes back is [`TaskDump::write_json`]'s, or one
//! line `{"v":1,"error":"…"}`.
//!
//! [`TaskDump::write_json`]: crate::task::TaskDump::write_json

mod folder;
mod peer;
mod serve;

use std::ffi::CString;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::process;
use std::sync::atomic::{AtomicI32, AtomicPtr, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError, Weak};
use std::{fs, ptr};

use crate::runtime::Shared;
use serve::Server;

/// The process's endpoint.
struct Endpoint {
    path: PathBuf,
    server: Arc<Server>,
    runtimes: Arc<Mutex<Vec<Weak<Shared>>>>,
}

static ENDPOINT: Mutex<Option<Endpoint>> = Mutex::new(None);

/// The process that opened the endpoint, the descriptor that it listens on, and the path of its socket: for handlers that
/// may take no lock. 0, -1 and null while there is none.
static OWNER: AtomicU32 = AtomicU32::new(0);
static LISTENING: AtomicI32 = AtomicI32::new(-1);
static PATH: AtomicPtr<libc::c_char> = AtomicPtr::new(ptr::null_mut());

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner) // none of the user's code runs under these
}

/// Lets a runtime's tasks be asked for, and opens the endpoint if it is the first.
pub(crate) fn join(runtime: &Arc<Shared>) -> io::Result<()> {
    let mut endpoint = lock(&ENDPOINT);
    match &mut *endpoint {
        Some(endpoint) if OWNER.load(Ordering::Relaxed) == process::id() => {
            lock(&endpoint.runtimes).push(Arc::downgrade(runtime));
        }
        _ => *endpoint = Some(Endpoint::open(runtime)?), // a forked child's copy of its parent's is of no use
    }
    Ok(())
}

/// Ends that, and closes the endpoint if it was the last.
pub(crate) fn leave(runtime: &Arc<Shared>) {
    if OWNER.load(Ordering::Relaxed) != process::id() {
        return; // there is none, or it is a parent's
    }
    let mut place = lock(&ENDPOINT);
    let Some(endpoint) = &*place else { return };
    let mut runtimes = lock(&endpoint.runtimes);
    runtimes.retain(|other| !ptr::eq(other.as_ptr(), Arc::as_ptr(runtime)));
    let last = runtimes.is_empty();
    drop(runtimes);
    if last {
        let endpoint = place.take();
        drop(place);
        endpoint.iter().for_each(Endpoint::close);
    }
}

impl Endpoint {
    fn open(runtime: &Arc<Shared>) -> io::Result<Endpoint> {
        let folder = folder::open()?;
        let (listener, path) = folder::listen(&folder)?;
        let runtimes = Arc::new(Mutex::new(vec![Arc::downgrade(runtime)]));
        let descriptor = listener.as_raw_fd();
        let server = Server::start(listener, runtimes.clone()).inspect_err(|_| _ = fs::remove_file(&path))?;
        let in_c = CString::new(path.as_os_str().as_bytes()).expect("a path that was bound to has no NUL");
        // Never freed: a handler may be reading it.
        PATH.store(in_c.into_raw(), Ordering::Release);
        LISTENING.store(descriptor, Ordering::Release);
        OWNER.store(process::id(), Ordering::Release);
        remove_at_exit();
        Ok(Endpoint { path, server, runtimes })
    }

    fn close(&self) {
        OWNER.store(0, Ordering::Release);
        LISTENING.store(-1, Ordering::Release);
        _ = fs::remove_file(&self.path); // somebody else may have
        self.server.stop();
    }
}

/// Sees to it that a process that ends by exit(3) leaves no socket behind.
fn remove_at_exit() {
    static ONCE: Once = Once::new();
    extern "C" fn remove() {
        if OWNER.load(Ordering::Acquire) == process::id() {
            // SAFETY: a string that was made for this and is never freed.
            unsafe { libc::unlink(PATH.load(Ordering::Acquire)) };
        }
    }
    // SAFETY: the handler makes one system call, with what lives for ever.
    ONCE.call_once(|| _ = unsafe { libc::atexit(remove) });
}

/// In a forked child: lets go of the parent's socket, or whoever connects once the parent has gone would wait for an answer.
/// Does what a handler of fork(2) may.
pub(crate) fn in_child() {
    let descriptor = LISTENING.swap(-1, Ordering::AcqRel);
    if descriptor >= 0 {
        // SAFETY: the descriptor is the child's copy, of which nothing in the child makes use: `OWNER` is another.
        unsafe { libc::close(descriptor) };
    }
}
