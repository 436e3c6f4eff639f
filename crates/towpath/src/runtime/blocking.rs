//! Threads for work that blocks: bounded pools that start a thread when a job finds none idle, and let it go when no
//! job has come for a while.
//!
//! Relies on std's threads alone, and knows neither tasks nor workers: whoever hands a job in waits for its result by
//! a channel. Name lookups have a pool of their own (`net/lookup.rs`), so that neither they nor the user's blocking
//! calls can starve the other.

#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use super::signals;

pub(crate) type Job = Box<dyn FnOnce() + Send>;

/// How many of the user's blocking calls run at once; the rest wait for their turn.
const LIMIT: usize = 64;

/// How long a thread stays without a job.
const IDLE: Duration = Duration::from_secs(10);

static USERS: Pool = Pool::new("towpath-blocking", LIMIT);

/// Has `job` run on a thread that may block, as soon as one of the [`LIMIT`] is free.
pub(crate) fn spawn(job: Job) -> io::Result<()> {
    USERS.spawn(job)
}

/// A bounded pool of threads; it never ends, so it lives in a `static`.
#[derive(Debug)]
pub(crate) struct Pool {
    name: &'static str,
    limit: usize,
    idle: Duration,
    /// Starts one more thread. A field so that a test can have it fail.
    start: fn(&'static Pool) -> io::Result<()>,
    state: Mutex<State>,
    /// There is a job in the queue that no thread on its way to the lock will take.
    work: Condvar,
}

struct State {
    queue: VecDeque<Job>,
    threads: usize,
    /// The threads that wait for a job, or were woken for one and have not taken it yet. While the queue is no longer
    /// than this, every job in it has its thread.
    idle: usize,
}

impl Pool {
    pub(crate) const fn new(name: &'static str, limit: usize) -> Self {
        let state = State { queue: VecDeque::new(), threads: 0, idle: 0 };
        Pool { name, limit, idle: IDLE, start: start_thread, state: Mutex::new(state), work: Condvar::new() }
    }

    /// Has `job` run on one of the pool's threads. A panic in it ends there, after the panic hook has told of it.
    ///
    /// # Errors
    /// If there is no thread and none can be started; with some alive, the job waits for one of them.
    pub(crate) fn spawn(&'static self, job: Job) -> io::Result<()> {
        let mut state = self.lock();
        if state.queue.len() < state.idle {
            state.queue.push_back(job);
            self.work.notify_one();
            return Ok(());
        }
        if state.threads < self.limit {
            // The lock is held meanwhile: were it not, others could count on a thread that then does not come to be.
            match (self.start)(self) {
                Ok(()) => state.threads += 1,
                Err(e) if state.threads == 0 => return Err(cannot_start(e)),
                Err(_) => {}
            }
        }
        state.queue.push_back(job);
        Ok(())
    }

    /// What a thread of the pool does.
    fn work(&self) {
        let mut state = self.lock();
        loop {
            if let Some(job) = state.queue.pop_front() {
                drop(state);
                if let Err(payload) = panic::catch_unwind(AssertUnwindSafe(job)) {
                    // Its destructor may panic as well, and would take the thread with it. Whoever wants the payload
                    // of a panic catches it in the job.
                    mem::forget(payload);
                }
                state = self.lock();
                continue;
            }
            state.idle += 1;
            let woken = self.work.wait_timeout(state, self.idle);
            let (lock, timeout) = woken.unwrap_or_else(PoisonError::into_inner);
            state = lock;
            state.idle -= 1;
            if timeout.timed_out() && state.queue.is_empty() {
                state.threads -= 1;
                return;
            }
        }
    }

    /// No job runs under the lock, so there is nothing that a panic could leave half done.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn start_thread(pool: &'static Pool) -> io::Result<()> {
    let thread = thread::Builder::new().name(pool.name.to_owned());
    let handle = thread.spawn(|| {
        signals::block_signals();
        pool.work();
    })?;
    drop(handle);
    Ok(())
}

/// pthread_create(3) says EAGAIN, whose kind is WouldBlock: an invitation to try again at once that callers would take.
fn cannot_start(source: io::Error) -> io::Error {
    io::Error::other(format!(
        "cannot start a thread for blocking work: {source}; raise `ulimit -u` or the control group's pids.max"
    ))
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State")
            .field("queued", &self.queue.len())
            .field("threads", &self.threads)
            .field("idle", &self.idle)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::sync::{Arc, Barrier, mpsc};

    /// Long enough that a test which waits in vain fails rather than hangs.
    const PATIENCE: Duration = Duration::from_secs(20);

    fn pool(limit: usize) -> Pool {
        Pool::new("towpath-test", limit)
    }

    fn leak(pool: Pool) -> &'static Pool {
        Box::leak(Box::new(pool))
    }

    /// Runs `job` in the pool and waits for what it returns.
    fn run<T: Send + 'static>(pool: &'static Pool, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (sender, receiver) = mpsc::channel();
        let job = move || sender.send(job()).expect("the test waits for it");
        pool.spawn(Box::new(job)).unwrap();
        receiver.recv_timeout(PATIENCE).expect("the job ran")
    }

    #[test]
    fn jobs_beyond_the_limit_wait_and_all_of_them_run() {
        const LIMIT: usize = 3;
        let pool = leak(pool(LIMIT));
        let (started, starts) = mpsc::channel();
        let (finished, ends) = mpsc::channel();
        let gate = Arc::new(Mutex::new(()));
        let closed = gate.lock().unwrap();
        for n in 0..10 {
            let (started, finished, gate) = (started.clone(), finished.clone(), gate.clone());
            let job = move || {
                started.send(n).unwrap();
                drop(gate.lock());
                finished.send(n).unwrap();
            };
            pool.spawn(Box::new(job)).unwrap();
        }
        let mut running: Vec<i32> = starts.iter().take(LIMIT).collect();
        running.sort_unstable();
        assert_eq!(running, [0, 1, 2], "first come, first served");
        {
            let state = pool.lock();
            assert_eq!((state.threads, state.queue.len()), (LIMIT, 7));
        }
        drop(closed);
        let mut done: Vec<i32> = ends.iter().take(10).collect();
        done.sort_unstable();
        assert_eq!(done, (0..10).collect::<Vec<_>>());
        assert!(pool.lock().threads <= LIMIT);
    }

    #[test]
    fn as_many_jobs_as_the_limit_run_at_the_same_time() {
        let pool = leak(pool(4));
        let barrier = Arc::new(Barrier::new(5));
        for _ in 0..4 {
            let barrier = barrier.clone();
            let job = move || {
                barrier.wait();
            };
            pool.spawn(Box::new(job)).unwrap();
        }
        barrier.wait();
    }

    #[test]
    fn a_thread_serves_one_job_after_another() {
        let pool = leak(pool(1));
        let first = run(pool, || thread::current().id());
        let second = run(pool, || thread::current().id());
        assert_eq!(first, second);
    }

    #[test]
    fn an_idle_thread_is_taken_before_a_new_one_is_started() {
        let pool = leak(pool(8));
        run(pool, || ());
        while pool.lock().idle == 0 {
            thread::yield_now();
        }
        run(pool, || ());
        assert_eq!(pool.lock().threads, 1);
    }

    #[test]
    fn a_panicking_job_takes_neither_its_thread_nor_the_next_job_along() {
        struct Bomb;
        impl Drop for Bomb {
            fn drop(&mut self) {
                panic!("the payload's destructor ran");
            }
        }
        let pool = leak(pool(1));
        let before = run(pool, || thread::current().id());
        // resume_unwind: a panic without the hook's message.
        let job = || panic::resume_unwind(Box::new(Bomb));
        pool.spawn(Box::new(job)).unwrap();
        assert_eq!(run(pool, || thread::current().id()), before);
    }

    #[test]
    fn threads_leave_when_no_job_has_come_for_the_idle_time_and_new_ones_start() {
        struct Leaving(mpsc::Sender<()>);
        impl Drop for Leaving {
            fn drop(&mut self) {
                self.0.send(()).expect("the test waits for it");
            }
        }
        thread_local!(static LEAVING: std::cell::OnceCell<Leaving> = const { std::cell::OnceCell::new() });

        let pool = leak(Pool { idle: Duration::from_millis(1), ..pool(2) });
        for _ in 0..2 {
            let (leaving, left) = mpsc::channel();
            run(pool, || LEAVING.with(|l| drop(l.set(Leaving(leaving)))));
            left.recv_timeout(PATIENCE).expect("the thread ended");
            assert_eq!(pool.lock().threads, 0);
        }
    }

    #[test]
    fn a_thread_about_to_leave_takes_the_job_that_counted_on_it() {
        let pool = leak(Pool { idle: Duration::from_millis(1), ..pool(1) });
        let (sender, receiver) = mpsc::channel();
        let job = move || sender.send(()).expect("the test waits for it");
        let mut state = loop {
            run(pool, || ());
            let state = pool.lock();
            if state.idle == 1 {
                break state;
            }
        };
        // By now the thread's time is over and it waits for the lock, when the job comes as `spawn` hands it in.
        thread::sleep(Duration::from_millis(10));
        state.queue.push_back(Box::new(job));
        pool.work.notify_one();
        drop(state);
        receiver.recv_timeout(PATIENCE).expect("it ran");
    }

    #[test]
    fn the_threads_have_their_name_and_signals_go_elsewhere() {
        let (name, status) = run(leak(pool(1)), || {
            let name = thread::current().name().map(str::to_owned);
            (name, std::fs::read_to_string("/proc/thread-self/status"))
        });
        assert_eq!(name.as_deref(), Some("towpath-test"));
        let Ok(status) = status else { return };
        let mask = status.lines().find_map(|l| l.strip_prefix("SigBlk:"));
        let mask = u64::from_str_radix(mask.expect("proc(5) has it").trim(), 16).unwrap();
        assert_ne!(mask & 1 << (libc::SIGINT - 1), 0, "{mask:x}");
    }

    #[test]
    fn without_any_thread_the_failure_to_start_one_is_the_callers_error() {
        let pool = leak(Pool { start: |_| Err(io::Error::from_raw_os_error(libc::EAGAIN)), ..pool(2) });
        let error = pool.spawn(Box::new(|| ())).unwrap_err();
        assert_ne!(error.kind(), io::ErrorKind::WouldBlock);
        assert!(error.to_string().contains("ulimit -u"), "{error}");
        assert!(pool.lock().queue.is_empty(), "the job was not kept");
    }

    #[test]
    fn with_a_thread_alive_the_failure_to_start_another_makes_the_job_wait() {
        static STARTED: AtomicBool = AtomicBool::new(false);
        let pool = leak(Pool {
            start: |pool| match STARTED.swap(true, Ordering::Relaxed) {
                false => start_thread(pool),
                true => Err(io::Error::from_raw_os_error(libc::EAGAIN)),
            },
            ..pool(2)
        });
        let barrier = Arc::new(Barrier::new(2));
        let held = barrier.clone();
        let first = move || {
            held.wait();
            held.wait();
        };
        pool.spawn(Box::new(first)).unwrap();
        barrier.wait();
        let (sender, receiver) = mpsc::channel();
        let second = move || sender.send(()).expect("the test waits for it");
        pool.spawn(Box::new(second)).unwrap();
        assert_eq!(pool.lock().queue.len(), 1);
        barrier.wait();
        receiver.recv_timeout(PATIENCE).expect("it had its turn");
    }

    #[test]
    fn no_job_is_lost_when_threads_leave_as_jobs_come() {
        const JOBS: usize = 2_000;
        static RAN: AtomicUsize = AtomicUsize::new(0);
        let pool = leak(Pool { idle: Duration::from_nanos(1), ..pool(4) });
        let senders: Vec<_> = (0..4)
            .map(|_| {
                thread::spawn(|| {
                    for _ in 0..JOBS / 4 {
                        let (sender, receiver) = mpsc::channel();
                        let job = move || {
                            RAN.fetch_add(1, Ordering::Relaxed);
                            sender.send(()).expect("the test waits for it");
                        };
                        pool.spawn(Box::new(job)).unwrap();
                        receiver.recv_timeout(PATIENCE).expect("it ran");
                    }
                })
            })
            .collect();
        senders.into_iter().for_each(|s| s.join().unwrap());
        assert_eq!(RAN.load(Ordering::Relaxed), JOBS);
    }
}
