//! The runtime: workers, what they run, and how anything waits.
//!
//! Public are [`Runtime`] and its [`Builder`]; the rest is the library's own. From the bottom up: `stack` and `fiber` (what
//! a task runs on), `task`, `record`, `completion`, `origin` and `table` (what it is, what it leaves, whence it comes, where
//! it is found), `wait`, `park` and `wait_queue` (how it waits), `timer`, `inbox`, `sources` (what a worker keeps), `worker`
//! (the loop), `idle` (how workers share what has not started), `trim` (how memory comes back), `inspect`, `moves`, `frames`
//! and `resident` (what a task dump asks), `blocking` (threads for what cannot park), `overflow` (the signal handler).

pub(crate) mod blocking;
mod builder;
pub(crate) mod completion;
mod fiber;
pub(crate) mod frames;
mod idle;
mod inbox;
pub(crate) mod inspect;
mod moves;
pub(crate) mod origin;
mod overflow;
pub(crate) mod park;
pub(crate) mod record;
pub(crate) mod resident;
mod run_queue;
mod signals;
mod sources;
mod stack;
mod table;
pub(crate) mod task;
mod timer;
mod trim;
pub(crate) mod wait;
pub(crate) mod wait_queue;
pub(crate) mod worker;

use std::any::Any;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, mpsc};
use std::time::Duration;

pub use builder::Builder;
pub(crate) use signals::block_signals;
pub(crate) use stack::check_size as check_stack_size;

use crate::inspect as inspect_endpoint;
use crate::poller::{self, PollerKind};
use crate::shim;
use crate::task::{JoinHandle, TaskDump};
use crate::time::Instant;
use moves::Moves;
use record::Record;
use wait::Op;
use wait_queue::{Node, WaitQueue, Waiter};
use worker::{Message, Remote, Worker};

/// How long dropping a [`Runtime`] waits for its tasks.
const DROP_GRACE: Duration = Duration::from_millis(100);
/// A worker keeps the tasks that its own tasks spawn until it has this many more than the emptiest one, and a part more.
const BIAS: usize = 4;
const BIAS_PART: usize = 16;

/// How many more tasks than the emptiest worker one that has `there` of them may have.
fn bias(there: usize) -> usize {
    BIAS + there / BIAS_PART
}

/// Workers and the tasks that run on them.
///
/// A program needs none of its own: [`spawn`](crate::spawn) and every call that waits use a default runtime, which starts
/// by itself at the first need and lives as long as the process. Make one to choose its size, or to shut it down.
///
/// ```
/// let runtime = towpath::Runtime::builder().workers(2).build()?;
/// let sum = runtime.run(|| {
///     let other = towpath::spawn(|| 20);
///     other.join().unwrap() + 22
/// });
/// assert_eq!(sum, 42);
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// Dropping a runtime shuts it down as [`shutdown`](Runtime::shutdown) with a tenth of a second does.
#[derive(Debug)]
pub struct Runtime {
    shared: Arc<Shared>,
}

/// What the workers of one runtime share.
#[derive(Debug)]
pub(crate) struct Shared {
    remotes: OnceLock<Vec<Arc<Remote>>>,
    poller: PollerKind,
    /// The stack of a task that has no size of its own, in bytes.
    pub(crate) stack_size: usize,
    stopping: AtomicBool,
    /// Where the next task from outside is placed if all workers have as many.
    next: AtomicUsize,
    /// How many workers are idle.
    idle: AtomicUsize,
    moves: Moves,
    running: shim::Mutex<Running>,
}

/// The workers that have not ended, and who waits for the last one.
#[derive(Debug, Default)]
struct Running {
    workers: usize,
    waiting: WaitQueue<()>,
}

#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) workers: usize,
    pub(crate) stack_size: usize,
    pub(crate) poller: PollerKind,
    pub(crate) name: String,
    pub(crate) inspect: Inspect,
}

/// Whether the tasks may be asked for at the inspect endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Inspect {
    No,
    /// The environment says so: a program that cannot have it runs all the same.
    Wished,
    /// The program itself does.
    Required,
}

/// The error of [`Runtime::shutdown`]: some tasks had not ended in time. They go on, and end their workers when they end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StillRunning {
    tasks: usize,
}

impl StillRunning {
    /// How many tasks had not ended.
    pub fn tasks(&self) -> usize {
        self.tasks
    }
}

impl std::fmt::Display for StillRunning {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} tasks were still running when the time to shut down was over", self.tasks)
    }
}

impl std::error::Error for StillRunning {}

impl Runtime {
    /// What to start a runtime with.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Starts the workers. Besides, what to log once nothing is locked: why something is not as it was wished for.
    fn start(mut settings: Settings) -> io::Result<(Runtime, Vec<String>)> {
        overflow::install();
        park::fork::watch();
        let wish = settings.poller;
        let (kind, refusal) = poller::available(wish);
        settings.poller = kind;
        let refusal = refusal.map(|why| format!("the poller is \"{kind}\", for \"{wish}\" cannot be had: {why}"));
        let mut refusals: Vec<String> = refusal.into_iter().collect();
        let shared = Arc::new(Shared {
            remotes: OnceLock::new(),
            poller: kind,
            stack_size: settings.stack_size,
            stopping: AtomicBool::new(false),
            next: AtomicUsize::new(0),
            idle: AtomicUsize::new(0),
            moves: Moves::default(),
            running: shim::Mutex::default(),
        });
        // Each worker makes its poller on its own thread, and reports the half of it that others see.
        let (report, reports) = mpsc::channel();
        let mut failure = None;
        for index in 0..settings.workers {
            let (settings, shared, report) = (settings.clone(), shared.clone(), report.clone());
            let thread = std::thread::Builder::new().name(format!("{}-{index}", settings.name));
            if let Err(error) = thread.spawn(move || worker_main(&settings, &shared, report)) {
                failure = Some(explain(&error, "starting a worker thread"));
                break;
            }
        }
        drop(report);
        let mut remotes = Vec::new();
        for started in reports {
            match started {
                Ok(remote) => remotes.push(remote),
                Err(error) => failure = Some(explain(&error, "making a worker's poller")),
            }
        }
        if let Some(failure) = failure {
            shared.stop(&remotes);
            return Err(failure);
        }
        shared.remotes.set(remotes).expect("set once");
        let runtime = Runtime { shared };
        if settings.inspect != Inspect::No {
            match inspect_endpoint::join(&runtime.shared) {
                Err(error) if settings.inspect == Inspect::Required => return Err(error),
                joined => refusals.extend(joined.err().map(|why| format!("tasks cannot be asked for: {why}"))),
            }
        }
        Ok((runtime, refusals))
    }

    /// The poller that the workers wait on: the one set, or [`Os`](PollerKind::Os) where that cannot be had.
    pub fn poller(&self) -> PollerKind {
        self.shared.poller
    }

    /// Runs `f` as a task of this runtime and returns its value; the caller waits.
    ///
    /// # Panics
    /// If `f` panics, with its panic. If the caller may not wait (see [`Cancelled`](crate::Cancelled)).
    #[track_caller]
    pub fn run<T: Send + 'static>(&self, f: impl FnOnce() -> T + Send + 'static) -> T {
        match self.spawn(f).join() {
            Ok(value) => value,
            Err(error) => error.resume(),
        }
    }

    /// Spawns a task on this runtime, whichever the caller runs on; see [`spawn`](crate::spawn).
    #[track_caller]
    pub fn spawn<T: Send + 'static>(&self, f: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
        crate::task::Builder::new().spawn_on(&self.shared, f)
    }

    /// Lists the live tasks of this runtime, whichever the caller runs on; see [`task::dump`](crate::task::dump).
    pub fn dump(&self) -> TaskDump {
        TaskDump::take(vec![self.shared.clone()])
    }

    /// Waits up to `timeout` for all tasks to end, then for the workers, and ends the runtime. Nothing is cut short:
    /// tell your tasks to end before, for instance by closing their sockets and channels.
    ///
    /// # Errors
    /// [`StillRunning`] if tasks were left when the time was over, or the caller may not wait. They keep their workers
    /// until they end.
    pub fn shutdown(self, timeout: Duration) -> Result<(), StillRunning> {
        self.shared.shut_down(timeout)
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        if !self.shared.is_stopping() {
            _ = self.shared.shut_down(DROP_GRACE); // who wants to know of tasks that are left calls `shutdown`
        }
    }
}

fn worker_main(settings: &Settings, shared: &Arc<Shared>, report: mpsc::Sender<io::Result<Arc<Remote>>>) {
    signals::block_signals();
    let alt_stack = overflow::AltStack::new();
    let worker =
        alt_stack.and_then(|alt_stack| Worker::new(settings, shared.clone()).map(|worker| (alt_stack, worker)));
    let (_alt_stack, worker) = match worker {
        Ok(both) => both,
        Err(error) => {
            _ = report.send(Err(error));
            return;
        }
    };
    shim::lock(&shared.running).workers += 1;
    _ = report.send(Ok(worker.remote.clone()));
    drop(report); // whoever starts us listens until all have reported
    let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| worker.run()));
    if ended.is_err() {
        // Its tasks cannot go on, and what they hold on their stacks may be borrowed by others.
        eprintln!("towpath: a worker's own code has panicked; this is a bug in towpath");
        std::process::abort();
    }
    let mut running = shim::lock(&shared.running);
    running.workers -= 1;
    while running.workers == 0 {
        let Some(unparker) = running.waiting.claim(|()| ()) else { break };
        unparker.unpark();
    }
}

fn explain(error: &io::Error, what: &str) -> io::Error {
    // A thread that cannot be had (EAGAIN) is not a socket that would block.
    let kind = match error.kind() {
        io::ErrorKind::WouldBlock => io::ErrorKind::Other,
        kind => kind,
    };
    io::Error::new(kind, format!("{what}: {error}"))
}

/// The runtime of the calling task, or the default one, started now if need be.
///
/// # Panics
/// If it cannot start: a variable of the environment is wrong, or the system gives no threads or descriptors.
pub(crate) fn current() -> Arc<Shared> {
    match worker::current() {
        Some(worker) => worker.runtime.clone(),
        None => default().unwrap_or_else(|error| panic!("{error}")),
    }
}

/// Gives a new task to the runtime of the calling task, or to the default one, as [`current`] finds them.
#[inline]
pub(crate) fn place(task: Record) {
    match worker::current() {
        Some(worker) => worker.runtime.place_near(worker, task),
        None => current().place(task),
    }
}

/// Sees to it that [`current`] does not panic.
pub(crate) fn ensure() -> io::Result<()> {
    match worker::current() {
        Some(_) => Ok(()),
        None => default().map(drop),
    }
}

/// The runtime that starts by itself. What keeps it from starting may be over the next time.
pub(crate) fn default() -> io::Result<Arc<Shared>> {
    static DEFAULT: OnceLock<Runtime> = OnceLock::new();
    static STARTING: Mutex<()> = Mutex::new(());
    if DEFAULT.get().is_none() {
        let one_at_a_time = STARTING.lock();
        if DEFAULT.get().is_none() {
            let built = Runtime::builder().start();
            let (runtime, refusals) =
                built.map_err(|error| explain(&error, "towpath's default runtime cannot start"))?;
            _ = DEFAULT.set(runtime); // nobody else does so while we hold the lock
            drop(one_at_a_time); // a logger may use what we start here
            refusals.iter().for_each(|refusal| log::warn!("{refusal}"));
        }
    }
    Ok(DEFAULT.get().expect("it has just been set").shared.clone())
}

impl Shared {
    pub(crate) fn remotes(&self) -> &[Arc<Remote>] {
        self.remotes.get().expect("a runtime is handed out once its workers are there")
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// Gives a new task to the worker that has the fewest; a spawning worker of this runtime keeps it unless it has markedly
    /// more.
    pub(crate) fn place(self: &Arc<Shared>, task: Record) {
        if let Some(own) = worker::current().filter(|worker| Arc::ptr_eq(&worker.runtime, self)) {
            return self.place_near(own, task);
        }
        if park::fork::check().is_err() {
            return std::mem::forget(task); // as in `place_near`
        }
        let remote = self.emptiest();
        let reserved = remote.reserve(self);
        assert!(reserved, "who spawns from outside holds the runtime");
        self.hand_to(remote, task);
    }

    /// The same for a task of one of our own workers.
    #[inline]
    fn place_near(&self, own: &Worker, task: Record) {
        if park::fork::check().is_err() {
            // In a forked child nobody would run it, and who held the lock of a worker's tasks may have stayed behind.
            return std::mem::forget(task);
        }
        if !own.has_others {
            return own.keep(task);
        }
        let remote = self.emptiest();
        let (here, there) = (own.remote.live.load(Ordering::Relaxed), remote.live.load(Ordering::Relaxed));
        if here <= there + bias(there) || !remote.reserve(self) {
            return own.keep(task);
        }
        self.hand_to(remote, task);
    }

    /// Gives a new task to a worker that has reserved a place for it.
    fn hand_to(&self, remote: &Remote, task: Record) {
        remote.take_in([task]);
        let sent = remote.send(Message::Start);
        assert!(sent.is_ok(), "a worker stays while a place is reserved");
        self.wake_idle();
    }

    /// Gives a new task to that worker of this runtime, where it stays: it is not among the unstarted that others take.
    /// False if the runtime is stopping, and the worker may have gone.
    pub(crate) fn place_on(&self, remote: &Arc<Remote>, task: Record) -> bool {
        let reserved = remote.reserve(self);
        if reserved {
            let task = Remote::adopt(task, &mut remote.lock());
            let sent = remote.send(Message::Run(task));
            assert!(sent.is_ok(), "a worker stays while a place is reserved");
        }
        reserved
    }

    /// The worker with the fewest live tasks; in turn, where several have as few.
    pub(crate) fn emptiest(&self) -> &Arc<Remote> {
        let remotes = self.remotes();
        let first = self.next.fetch_add(1, Ordering::Relaxed) % remotes.len();
        let in_turn = (0..remotes.len()).map(|i| &remotes[(first + i) % remotes.len()]);
        in_turn.min_by_key(|remote| remote.live.load(Ordering::Relaxed)).expect("a runtime has a worker")
    }

    /// Has each worker look whether it can end.
    fn stop(&self, remotes: &[Arc<Remote>]) {
        self.stopping.store(true, Ordering::SeqCst);
        for remote in remotes {
            _ = remote.send(Message::Stop); // one that has gone need not be told
        }
    }

    fn shut_down(self: &Arc<Self>, timeout: Duration) -> Result<(), StillRunning> {
        inspect_endpoint::leave(self);
        self.stop(self.remotes());
        let deadline = Instant::after(timeout);
        if let Ok(waiter) = Waiter::new() {
            let node = Node::new(&waiter, 0, ());
            {
                let mut running = shim::lock(&self.running);
                if running.workers == 0 {
                    return Ok(());
                }
                // SAFETY: it is removed below, before it goes.
                unsafe { running.waiting.push(&node) };
            }
            waiter.wait(Op::Shutdown.into(), Some(deadline));
            // SAFETY: it was pushed here.
            unsafe { shim::lock(&self.running).waiting.remove(&node) };
        }
        match shim::lock(&self.running).workers {
            0 => Ok(()),
            _ => Err(StillRunning { tasks: self.remotes().iter().map(|r| r.live.load(Ordering::Relaxed)).sum() }),
        }
    }
}

/// Goes on with a panic that was caught in a task.
pub(crate) fn resume_panic(panic: Box<dyn Any + Send>) -> ! {
    std::panic::resume_unwind(panic)
}
