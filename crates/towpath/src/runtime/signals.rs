//! Keeps signals off the threads that the library starts. Relies on pthread_sigmask(3); what the program does about
//! its signals is left to the threads it started itself.

use std::mem::MaybeUninit;
use std::ptr;

/// The signals that a thread brings upon itself, which no other thread could take. The kernel kills a process whose
/// thread has blocked the one that it must take, and the handler that names an overflowing task would not run.
const SYNCHRONOUS: [libc::c_int; 7] =
    [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGTRAP, libc::SIGABRT, libc::SIGSYS];

/// Has every signal that could as well go to another thread go there: the first thing that a thread of ours does.
///
/// Until then it has its parent's mask. A handler that runs in between does so on an ordinary stack and in no call
/// that it could interrupt, so the spawning thread need not block anything for it.
pub(crate) fn block_signals() {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigfillset(3) initialises the whole set that it is given, and this one is ours to write.
    unsafe { libc::sigfillset(set.as_mut_ptr()) };
    for signal in SYNCHRONOUS {
        // SAFETY: the set was initialised above, and the numbers are the system's own.
        unsafe { libc::sigdelset(set.as_mut_ptr(), signal) };
    }
    // SAFETY: the set is initialised, it outlives the call, and the old mask is not asked for.
    let status = unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), ptr::null_mut()) };
    assert_eq!(status, 0, "pthread_sigmask(3) fails only on a wrong `how`");
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_thread_keeps_its_synchronous_signals_and_no_other() {
        let status = std::thread::spawn(|| {
            block_signals();
            std::fs::read_to_string("/proc/thread-self/status")
        });
        let status = status.join().unwrap().unwrap();
        let mask = status.lines().find_map(|l| l.strip_prefix("SigBlk:"));
        let mask = u64::from_str_radix(mask.expect("proc(5) has it").trim(), 16).unwrap();

        let blocked = |signal: libc::c_int| mask & (1 << (signal - 1)) != 0;
        for signal in SYNCHRONOUS {
            assert!(!blocked(signal), "signal {signal}");
        }
        for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGCHLD, libc::SIGPROF, libc::SIGUSR1] {
            assert!(blocked(signal), "signal {signal}");
        }
    }
}
