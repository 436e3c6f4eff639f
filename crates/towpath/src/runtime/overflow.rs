//! What happens when a task runs off its stack: one line that names the task, then abort.
//!
//! ```text
//!   the fault ─► kernel ─► on_fault, on the thread's alternate stack (the task's own is full)
//!                        │  in the guard of the task that runs here?
//!                        ├─ yes ─► "task 'parse' (#7) has overflowed its stack …" ─► abort
//!                        └─ no ──► whoever handled the signal before (std, a crash reporter)
//! ```
//!
//! This relies on the guard that `stack` lays under each task, on the worker saying through
//! [`set_running`] whose stack it is on, and on an alternate stack for each worker's thread
//! ([`AltStack`]; threads that std started have one). A plain thread's overflow, and every other
//! fault, is left to the handler before ours.
//!
//! A signal handler may interrupt anything, so what runs in it neither allocates nor locks nor
//! panics, and calls nothing that does.

use std::fmt::{self, Write};
use std::io;
use std::marker::PhantomData;
use std::mem::{self, MaybeUninit};
use std::ops::Range;
use std::process;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicPtr, Ordering, compiler_fence};
use std::sync::{Once, OnceLock};

use libc::{c_int, c_void, siginfo_t};

use super::stack::{self, Pool, Stack};

/// What the handler says of a task. A fiber keeps one, and hands it to [`set_running`].
#[derive(Debug)]
pub(crate) struct Running {
    guard: Range<usize>,
    stack_size: usize,
    id: u64,
    /// Borrowed, as `set_running` has it.
    name: Option<NonNull<str>>,
}

impl Running {
    /// Of the task that runs on `stack`.
    pub(crate) fn new(stack: &Stack, id: u64, name: Option<&str>) -> Self {
        let name = name.map(NonNull::from);
        Self { guard: stack.guard(), stack_size: stack.size(), id, name }
    }

    /// The part of its stack that can be used.
    pub(super) fn usable(&self) -> Range<usize> {
        self.guard.end..self.guard.start + self.stack_size
    }
}

thread_local! {
    /// The task on whose stack this thread is; null on the thread's own. An atomic because the
    /// handler may interrupt the store, and to the compiler is another thread; it costs the same.
    /// It has no destructor and nothing to initialise, so the handler may read it at any time.
    static RUNNING: AtomicPtr<Running> = const { AtomicPtr::new(ptr::null_mut()) };
}

/// Says on whose stack this thread is about to run: a worker calls it before it switches to a
/// fiber, and with `None` when it is back. One store.
///
/// # Safety
///
/// Until this thread's next call, `running` and the name that it was made with stay where they are
/// and unchanged.
#[inline]
pub(crate) unsafe fn set_running(running: Option<&Running>) {
    let running = running.map_or(ptr::null(), ptr::from_ref);
    // What it points to is written before the handler can see it.
    compiler_fence(Ordering::Release);
    RUNNING.with(|cell| cell.store(running.cast_mut(), Ordering::Relaxed));
}

/// Catches, once a process, the faults by which a guard shows itself: SIGSEGV on Linux, SIGBUS on
/// macOS and some others.
pub(crate) fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        for signal in [libc::SIGSEGV, libc::SIGBUS] {
            if let Err(error) = catch(signal) {
                log::warn!("a task that overflows its stack will not be named: sigaction: {error}");
            }
        }
    });
}

/// Who handled the signal before us. Set once, before `on_fault` can run, so that reading it takes
/// no lock.
fn previous(signal: c_int) -> &'static OnceLock<libc::sigaction> {
    static SEGV: OnceLock<libc::sigaction> = OnceLock::new();
    static BUS: OnceLock<libc::sigaction> = OnceLock::new();
    if signal == libc::SIGSEGV { &SEGV } else { &BUS }
}

fn catch(signal: c_int) -> io::Result<()> {
    let mut old = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: only asks, and `old` has room for the answer.
    succeeded(unsafe { libc::sigaction(signal, ptr::null(), old.as_mut_ptr()) })?;
    // SAFETY: the call succeeded, so it has been written.
    let old = unsafe { old.assume_init() };

    // On the alternate stack, for the task's own is full. The mask stays: the previous handler, when
    // its turn comes, finds the same signals blocked as if we were not there.
    let mut new = old;
    new.sa_sigaction = on_fault as *const () as libc::sighandler_t;
    new.sa_flags = old.sa_flags & (libc::SA_NODEFER | libc::SA_RESTART);
    new.sa_flags |= libc::SA_SIGINFO | libc::SA_ONSTACK;
    previous(signal).get_or_init(|| old);
    // SAFETY: `on_fault` has the signature that SA_SIGINFO asks for, and does only what a signal
    // handler may.
    succeeded(unsafe { libc::sigaction(signal, &new, ptr::null_mut()) })
}

fn succeeded(status: c_int) -> io::Result<()> {
    if status == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

extern "C" fn on_fault(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: with SA_SIGINFO the kernel passes a pointer to what it says of the signal.
    let said = unsafe { &*info };
    // sigaction(2): only what the kernel raises has a code above 0. What kill(2) sends has no address.
    let sent = said.si_code <= 0;
    // SAFETY: SIGSEGV and SIGBUS have this field; for one that was sent, nobody looks at it.
    let address = unsafe { said.si_addr() }.addr();
    let running = RUNNING.with(|cell| cell.load(Ordering::Relaxed));
    // SAFETY: null, or kept as it was by whoever called `set_running`.
    match unsafe { running.as_ref() } {
        Some(running) if !sent && running.guard.contains(&address) => {
            report(running);
            process::abort();
        }
        _ => chain(signal, info, context, sent),
    }
}

fn report(running: &Running) {
    let mut line = Line { bytes: [0; 512], len: 0 };
    let (id, kib) = (running.id, running.stack_size / 1024);
    // fmt allocates nothing of its own, and what the line has no room for is left out: no error here
    // needs an answer.
    let _ = match running.name {
        Some(name) => {
            // SAFETY: `set_running` has the name kept like the rest.
            let name = unsafe { name.as_ref() };
            // Not so much of it that no room is left for the advice.
            write!(line, "task '{}' (#{id})", &name[..name.floor_char_boundary(256)])
        }
        None => write!(line, "task #{id}"),
    };
    let _ = writeln!(
        line,
        " has overflowed its stack of {kib} KiB; give it more with task::Builder::stack_size, \
         Runtime::builder().stack_size or TOWPATH_STACK"
    );
    let mut rest = &line.bytes[..line.len];
    while !rest.is_empty() {
        // SAFETY: `rest` is readable for its length.
        let written = unsafe { libc::write(libc::STDERR_FILENO, rest.as_ptr().cast(), rest.len()) };
        match usize::try_from(written) {
            Ok(written) if written > 0 => rest = &rest[written..],
            Err(_) if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => {}
            _ => return, // Nobody reads stderr.
        }
    }
}

/// A line of text, put together without allocating.
struct Line {
    bytes: [u8; 512],
    len: usize,
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = &mut self.bytes[self.len..];
        let fits = text.len().min(room.len());
        room[..fits].copy_from_slice(&text.as_bytes()[..fits]);
        self.len += fits;
        Ok(())
    }
}

/// Does what would have been done had we not caught the signal. `errno` is what it was: nothing
/// before this makes a call that could fail.
fn chain(signal: c_int, info: *mut siginfo_t, context: *mut c_void, sent: bool) {
    let Some(previous) = previous(signal).get() else {
        process::abort(); // `catch` sets it before it installs the handler.
    };
    let handler = previous.sa_sigaction;
    if handler == libc::SIG_DFL || handler == libc::SIG_IGN {
        // On return the instruction faults again, and the kernel ends the process, also where such
        // faults are "ignored".
        // SAFETY: puts back what was in force before us.
        unsafe { libc::sigaction(signal, previous, ptr::null_mut()) };
        if sent {
            // This one does not come again by itself.
            // SAFETY: only a signal, and blocked until the handler returns.
            unsafe { libc::raise(signal) };
        }
    } else if previous.sa_flags & libc::SA_SIGINFO != 0 {
        type Handler = extern "C" fn(c_int, *mut siginfo_t, *mut c_void);
        // SAFETY: with SA_SIGINFO, whatever is neither SIG_DFL nor SIG_IGN is such a function.
        let handler = unsafe { mem::transmute::<libc::sighandler_t, Handler>(handler) };
        handler(signal, info, context);
    } else {
        type Handler = extern "C" fn(c_int);
        // SAFETY: without SA_SIGINFO, whatever is neither SIG_DFL nor SIG_IGN is such a function.
        let handler = unsafe { mem::transmute::<libc::sighandler_t, Handler>(handler) };
        handler(signal);
    }
}

/// An alternate signal stack for this thread, for as long as this lives. It mostly finds one that is
/// large enough, for std gives its threads one, and does nothing.
pub(crate) struct AltStack {
    own: Option<Own>,
    /// The kernel keeps one for each thread: not `Send`.
    of_this_thread: PhantomData<*const ()>,
}

struct Own {
    pool: Pool,
    stack: Stack,
    /// In force before, and again afterwards.
    previous: libc::stack_t,
}

impl AltStack {
    /// # Errors
    ///
    /// This thread has none, and no memory can be had for one.
    pub(crate) fn new() -> io::Result<Self> {
        /// What `on_fault` and `report` need, generously: unoptimised they use 2 KiB.
        const HANDLER: usize = 4 * 1024;
        /// What a previous handler may need, which perhaps walks the stack and writes a report.
        const OTHERS: usize = 64 * 1024;

        let previous = current()?;
        let off = previous.ss_flags & libc::SS_DISABLE != 0;
        if !off && previous.ss_size >= signal_frame() + HANDLER {
            return Ok(Self { own: None, of_this_thread: PhantomData });
        }
        // A pool maps nothing until asked, and a stack from it has a guard.
        let mut pool = Pool::new(stack::DEFAULT_SIZE);
        let stack = pool.take_sized(signal_frame() + HANDLER + OTHERS)?;
        let usable = stack.guard().end..stack.bounds().end;
        let new =
            libc::stack_t { ss_sp: ptr::with_exposed_provenance_mut(usable.start), ss_flags: 0, ss_size: usable.len() };
        // SAFETY: the memory is ours alone, and `drop` takes it out of force before it is unmapped.
        succeeded(unsafe { libc::sigaltstack(&new, ptr::null_mut()) })?;
        let own = Own { pool, stack, previous };
        Ok(Self { own: Some(own), of_this_thread: PhantomData })
    }
}

impl Drop for AltStack {
    fn drop(&mut self) {
        let Some(Own { mut pool, stack, previous }) = self.own.take() else {
            return;
        };
        let Ok(now) = current() else { return };
        if now.ss_sp.addr() == stack.guard().end {
            // SAFETY: whoever put it in force has it outlive this thread's work, as std does.
            let restored = unsafe { libc::sigaltstack(&previous, ptr::null_mut()) };
            if restored != 0 {
                return; // Still in force: what is not given back stays mapped.
            }
        }
        pool.give(stack);
    }
}

/// This thread's alternate stack.
fn current() -> io::Result<libc::stack_t> {
    let mut current = MaybeUninit::<libc::stack_t>::zeroed();
    // SAFETY: only asks, and `current` has room for the answer.
    succeeded(unsafe { libc::sigaltstack(ptr::null(), current.as_mut_ptr()) })?;
    // SAFETY: the call succeeded, so it has been written.
    Ok(unsafe { current.assume_init() })
}

/// What the kernel itself puts on the stack before the handler runs: all registers. With AVX-512 or
/// AMX that is more than `MINSIGSTKSZ`, and Linux says how much (`AT_MINSIGSTKSZ`, 5.14 on x86).
fn signal_frame() -> usize {
    #[cfg(target_os = "linux")]
    return rustix::param::linux_minsigstksz().max(libc::MINSIGSTKSZ);
    #[cfg(not(target_os = "linux"))]
    return libc::MINSIGSTKSZ;
}
