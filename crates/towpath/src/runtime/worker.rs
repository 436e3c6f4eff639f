//! A worker: a thread that runs tasks, fires their timers, and waits on its poller when none is ready.
//!
//! ```text
//! loop   run ready tasks, at most 256          ┐
//!        take what other threads left          │ one turn
//!        fire timers that are due              │
//!        wait for reports (not, if some task   │
//!        is ready), unpark who waits for them  ┘
//! ```
//!
//! [`Worker`] is the thread's own half, reached through a thread-local and never shared; [`Remote`] is what other threads
//! see of it. Everything a worker owns stays on its thread: fibers, stacks, timers, the poller, the registrations.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::BorrowedFd;
use std::ptr;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use slab::Slab;

use super::blocking;
use super::fiber::{self, Fiber, Step};
use super::inbox::{Inbox, Sent};
use super::overflow::{self, Running};
use super::park::{Cancelled, Parked, Wait, fork, may_wait};
use super::sources::Sources;
use super::stack::{Pool, Stack};
use super::task::Task;
use super::timer::Timers;
use super::{Settings, Shared};
use crate::poller::{Event, Poller, Ready, Token, Waker};
use crate::time::Instant;

/// Tasks run in one turn, at most.
const TURN: u32 = 256;
/// Calls that a task may make in a row without waiting before it lets others run.
const BUDGET: u32 = 64;
/// How long pages that deep calls touched stay with a stack that has been given back.
const TRIM_AFTER: Duration = Duration::from_secs(1);

/// Something whose readiness a worker's poller reports: a socket.
pub(crate) trait Source: Send + Sync {
    /// Registers with the worker, which calls this on its own thread because somebody sent [`Message::Attach`].
    fn attach(self: Arc<Self>, worker: &Worker);
    /// Ends its registration with the worker and sends [`Message::Attach`] to `to`, for somebody sent [`Message::Move`].
    fn move_to(self: Arc<Self>, worker: &Worker, to: &Arc<Remote>);
    /// Ends its registration with the worker, for somebody sent [`Message::Detach`].
    fn detach_from(self: Arc<Self>, worker: &Worker);
    /// Takes note of a report.
    fn reported(&self, ready: Ready);
    /// Takes note that its worker has gone, or goes before it could attach.
    fn orphaned(&self);
}

/// What a task runs that never leaves its thread.
type LocalJob = Box<dyn FnOnce(&Arc<Task>)>;

/// What other threads ask of a worker.
pub(crate) enum Message {
    /// Run this task: it was just placed here, or unparked.
    Run(Arc<Task>),
    Attach(Weak<dyn Source>),
    Move(Weak<dyn Source>, Arc<Remote>),
    Detach(Weak<dyn Source>),
    /// The registration's descriptor is about to be closed, or has been.
    Forget(Token),
    /// Look whether the runtime is shutting down.
    Stop,
}

/// What other threads see of a worker.
pub(crate) struct Remote {
    /// Unique in the process, never 0.
    pub(crate) id: u32,
    /// Tasks placed here that have not ended.
    pub(crate) live: AtomicUsize,
    /// The same tasks, by slot.
    pub(crate) tasks: Mutex<Slab<Arc<Task>>>,
    inbox: Inbox<Message>,
    waker: Waker,
}

impl Remote {
    /// Leaves a message and sees to it that the worker looks. Hands it back if the worker has gone.
    pub(crate) fn send(&self, message: Message) -> Result<(), Message> {
        match self.inbox.send(message) {
            Sent::Seen => Ok(()),
            Sent::Wake => {
                self.waker.wake();
                Ok(())
            }
            Sent::Gone(message) => Err(message),
        }
    }

    /// Reserves a place for one more task, unless the runtime is stopping: then this worker may be about to end.
    /// The flag is read after the count has been raised, and the worker reads them the other way round, so that one of
    /// the two sees the other.
    pub(super) fn reserve(&self, runtime: &Shared) -> bool {
        self.live.fetch_add(1, Ordering::SeqCst);
        let reserved = !runtime.is_stopping();
        if !reserved {
            self.live.fetch_sub(1, Ordering::SeqCst);
            _ = self.send(Message::Stop); // it may have counted this task and gone to sleep; one that has gone is no loss
        }
        reserved
    }

    /// Gives the task a slot, in a place that has been reserved. The caller then sends or queues it.
    pub(super) fn adopt(self: &Arc<Remote>, task: &Arc<Task>) {
        let slot = self.tasks.lock().expect("no code of the user's runs under this lock").insert(task.clone());
        task.place(self.clone(), slot);
    }

    fn release(&self, slot: usize) {
        self.tasks.lock().expect("no code of the user's runs under this lock").remove(slot);
        self.live.fetch_sub(1, Ordering::SeqCst);
    }
}

impl std::fmt::Debug for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Remote").field("id", &self.id).field("live", &self.live).finish_non_exhaustive()
    }
}

pub(crate) struct Worker {
    pub(crate) remote: Arc<Remote>,
    pub(super) runtime: Arc<Shared>,
    running: RefCell<Option<Arc<Task>>>,
    ready: RefCell<VecDeque<Arc<Task>>>,
    /// What only this thread may touch of its tasks, by slot.
    residents: RefCell<Vec<Resident>>,
    timers: RefCell<Timers>,
    poller: RefCell<Poller>,
    sources: RefCell<Sources>,
    stacks: RefCell<Pool>,
    /// Calls that the running task may still make without waiting.
    budget: Cell<u32>,
    /// The time when this turn's reports came in.
    now: Cell<Instant>,
}

#[derive(Default)]
struct Resident {
    /// Its fiber, unless it runs or has not started.
    fiber: Option<(Fiber, Running)>,
    /// The deadline of its present park, by [`Instant::as_nanos`]; 0 for none.
    deadline: u64,
}

thread_local! {
    /// This thread's worker while it works; null on every other thread.
    static CURRENT: Cell<*const Worker> = const { Cell::new(ptr::null()) };
}

/// The worker whose task calls this; `None` on a plain thread.
pub(crate) fn current<'a>() -> Option<&'a Worker> {
    let worker = CURRENT.get();
    // SAFETY: it is set while `run` holds the worker, which ends only after the last of its tasks. Whoever calls this is one
    // of them, or the worker's own loop, and keeps the reference on its stack: neither outlives the worker.
    unsafe { worker.as_ref() }
}

/// Puts an unparked task on its worker's queue.
pub(super) fn enqueue(task: Arc<Task>) {
    match current().filter(|worker| Arc::ptr_eq(&worker.remote, task.remote())) {
        Some(worker) => worker.ready.borrow_mut().push_back(task),
        None => {
            let remote = task.remote().clone();
            let sent = remote.send(Message::Run(task));
            assert!(sent.is_ok(), "a worker stays until its last task has ended");
        }
    }
}

impl Worker {
    /// A worker for the calling thread.
    pub(super) fn new(settings: &Settings, runtime: Arc<Shared>) -> io::Result<Worker> {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let (poller, waker) = Poller::new(settings.poller)?;
        let remote = Remote {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            live: AtomicUsize::new(0),
            tasks: Mutex::default(),
            inbox: Inbox::new(),
            waker,
        };
        Ok(Worker {
            remote: Arc::new(remote),
            runtime,
            running: RefCell::default(),
            ready: RefCell::default(),
            residents: RefCell::default(),
            timers: RefCell::default(),
            poller: RefCell::new(poller),
            sources: RefCell::default(),
            stacks: RefCell::new(Pool::new(settings.stack_size)),
            budget: Cell::new(BUDGET),
            now: Cell::new(Instant::now()),
        })
    }

    /// Works until the runtime shuts down and the last task here has ended.
    pub(super) fn run(self) {
        let worker = &self;
        CURRENT.set(worker);
        let (mut messages, mut events) = (Vec::new(), Vec::new());
        let mut trim_at = None;
        loop {
            worker.run_ready();
            worker.remote.inbox.take(&mut messages);
            messages.drain(..).for_each(|message| worker.obey(message));
            worker.fire_timers();
            worker.trim(&mut trim_at);
            let timeout = if !worker.ready.borrow().is_empty() {
                Some(Duration::ZERO)
            } else if worker.has_ended() {
                break;
            } else if worker.remote.inbox.fall_asleep() {
                worker.until_due(trim_at)
            } else {
                continue;
            };
            let waited = worker.poller.borrow_mut().wait(timeout, &mut events);
            waited.expect("waiting on a poller of our own");
            worker.remote.inbox.wake_up();
            worker.now.set(Instant::now());
            events.drain(..).for_each(|event| worker.deliver(event));
        }
        let orphans: Vec<_> = worker.sources.borrow_mut().drain().collect();
        orphans.iter().filter_map(Weak::upgrade).for_each(|source| source.orphaned());
        CURRENT.set(ptr::null());
    }

    fn run_ready(&self) {
        for _ in 0..TURN {
            let Some(task) = self.ready.borrow_mut().pop_front() else { return };
            self.step(task);
        }
    }

    /// Runs one task until it parks, yields or ends.
    fn step(&self, task: Arc<Task>) {
        let slot = task.slot();
        let resident = self.residents.borrow_mut().get_mut(slot).and_then(|resident| resident.fiber.take());
        let Some((fiber, running)) = resident.or_else(|| self.start(&task)) else { return };
        self.budget.set(BUDGET);
        self.running.replace(Some(task));
        // SAFETY: `running` stays in this frame until it is taken back below, and this thread runs only the fiber between.
        unsafe { overflow::set_running(Some(&running)) };
        let step = fiber.resume();
        // SAFETY: as above.
        unsafe { overflow::set_running(None) };
        if fork::check().is_err() {
            // A task forked, and this is the child, in which its closure has returned or would be waited for: the other
            // tasks are the parent's. A thread that ends as a process's last ends that as well, with 0.
            // SAFETY: it ends the process, and nothing else.
            unsafe { libc::_exit(0) };
        }
        let task = self.running.take();
        match step {
            Step::Suspended(fiber) => self.residents.borrow_mut()[slot].fiber = Some((fiber, running)),
            Step::Finished(stack) => {
                self.stacks.borrow_mut().give(stack);
                self.timers.borrow_mut().remove(slot);
                self.remote.release(slot);
            }
        }
        drop(task);
    }

    /// Gives a new task its fiber. `None`, and the task has ended, if there is no memory for its stack.
    fn start(&self, task: &Arc<Task>) -> Option<(Fiber, Running)> {
        let job = task.take_job().expect("a task that is resumed has a fiber or has yet to start");
        let stack = match self.stack_for(task) {
            Ok(stack) => stack,
            Err(error) => {
                let message = format!("no stack for task #{}: {error}", task.id);
                task.completion.finish(Err(Box::new(message.clone())));
                // Neither a logger nor a destructor of the user's may run on the worker's own stack, where nothing can
                // wait. With no thread to be had, the closure leaks.
                let job = ManuallyDrop::new(job);
                _ = blocking::spawn(Box::new(move || {
                    log::error!("{message}");
                    drop(ManuallyDrop::into_inner(job));
                }));
                self.remote.release(task.slot());
                return None;
            }
        };
        let task = task.clone();
        Some(self.settle(&task.clone(), stack, move || job(&task)))
    }

    fn stack_for(&self, task: &Task) -> io::Result<Stack> {
        let mut stacks = self.stacks.borrow_mut();
        match task.stack_size {
            Some(size) => stacks.take_sized(size),
            None => stacks.take(),
        }
    }

    /// Makes the fiber of a task that was placed here, and room for what this thread keeps of it.
    fn settle(&self, task: &Arc<Task>, stack: Stack, entry: impl FnOnce() + 'static) -> (Fiber, Running) {
        let mut residents = self.residents.borrow_mut();
        if residents.len() <= task.slot() {
            residents.resize_with(task.slot() + 1, Resident::default);
        }
        let running = Running::new(&stack, task.id, task.name.as_deref());
        (Fiber::new(stack, entry), running)
    }

    /// Starts a task that may not leave this thread, after those that are ready.
    pub(crate) fn spawn_local(&self, task: &Arc<Task>, job: LocalJob) -> io::Result<()> {
        let stack = self.stack_for(task)?;
        self.remote.live.fetch_add(1, Ordering::SeqCst);
        self.remote.adopt(task);
        let started = self.settle(task, stack, {
            let task = task.clone();
            move || job(&task)
        });
        self.residents.borrow_mut()[task.slot()].fiber = Some(started);
        self.ready.borrow_mut().push_back(task.clone());
        Ok(())
    }

    /// Places a new task here: its own worker is there for it as long as the task that spawns it is.
    pub(super) fn keep(&self, task: Arc<Task>) {
        self.remote.live.fetch_add(1, Ordering::SeqCst);
        self.remote.adopt(&task);
        self.push(task);
    }

    fn push(&self, task: Arc<Task>) {
        self.ready.borrow_mut().push_back(task);
    }

    pub(crate) fn running_task(&self) -> Arc<Task> {
        self.running.borrow().clone().expect("only a task calls this: a worker itself never waits")
    }

    /// Parks the running task; see [`super::park::park`].
    pub(super) fn park(&self, wait: Wait, deadline: Option<Instant>) -> Result<Parked, Cancelled> {
        may_wait()?;
        let task = self.running_task();
        if task.begin_park(wait, self.now.get()) {
            if let Some(deadline) = deadline {
                self.arm(task.slot(), deadline.as_nanos());
            }
            fiber::suspend();
            if deadline.is_some() {
                self.residents.borrow_mut()[task.slot()].deadline = 0;
            }
        }
        task.end_park();
        match deadline {
            Some(deadline) if deadline <= self.now.get() => Ok(Parked::TimedOut),
            _ => Ok(Parked::Unparked),
        }
    }

    /// Lets the other ready tasks run first.
    pub(crate) fn yield_now(&self) {
        if may_wait().is_ok() {
            self.ready.borrow_mut().push_back(self.running_task());
            fiber::suspend();
        }
    }

    /// Counts a call of the running task that did not wait; after a number of them, lets others run.
    pub(super) fn spend(&self) {
        match self.budget.get() {
            0 => self.yield_now(),
            left => self.budget.set(left - 1),
        }
    }

    /// Sees to it that the task in `slot` is unparked at `deadline`. An entry that is due before it stays as it is, and
    /// moves on when it comes due.
    fn arm(&self, slot: usize, deadline: u64) {
        self.residents.borrow_mut()[slot].deadline = deadline;
        let mut timers = self.timers.borrow_mut();
        if timers.armed(slot).is_none_or(|armed| armed > deadline) {
            timers.set(slot, deadline);
        }
    }

    fn fire_timers(&self) {
        if self.timers.borrow().next().is_none() {
            return;
        }
        let now = Instant::now();
        self.now.set(now);
        loop {
            let Some(slot) = self.timers.borrow_mut().pop_due(now.as_nanos()) else { return };
            let deadline = self.residents.borrow()[slot].deadline;
            if deadline > now.as_nanos() {
                self.timers.borrow_mut().set(slot, deadline);
            } else if deadline != 0 {
                let tasks = self.remote.tasks.lock().expect("no code of the user's runs under this lock");
                let task = tasks[slot].clone();
                drop(tasks);
                task.unpark();
            }
        }
    }

    /// How long until the next timer, or trimming, is due.
    fn until_due(&self, trim_at: Option<Instant>) -> Option<Duration> {
        let timer = self.timers.borrow().next().map(Instant::from_nanos);
        let due = timer.into_iter().chain(trim_at).min()?;
        Some(due.duration_since(Instant::now()))
    }

    /// Gives back pages of stacks that have been free for a while.
    fn trim(&self, trim_at: &mut Option<Instant>) {
        let mut stacks = self.stacks.borrow_mut();
        if !stacks.needs_trim() {
            *trim_at = None; // tasks have taken the stacks again
            return;
        }
        let now = self.now.get();
        match *trim_at {
            None => *trim_at = Some(now + TRIM_AFTER),
            Some(at) if at <= now => {
                stacks.trim();
                if !stacks.needs_trim() {
                    *trim_at = None;
                }
            }
            Some(_) => {}
        }
    }

    fn has_ended(&self) -> bool {
        self.runtime.is_stopping() && self.remote.live.load(Ordering::SeqCst) == 0 && self.remote.inbox.close()
    }

    fn obey(&self, message: Message) {
        match message {
            Message::Run(task) => self.push(task),
            Message::Attach(source) => source.upgrade().into_iter().for_each(|source| source.attach(self)),
            Message::Move(source, to) => source.upgrade().into_iter().for_each(|source| source.move_to(self, &to)),
            Message::Detach(source) => source.upgrade().into_iter().for_each(|source| source.detach_from(self)),
            Message::Forget(token) => self.forget(token),
            Message::Stop => {}
        }
    }

    fn deliver(&self, event: Event) {
        let source = self.sources.borrow().find(event.token).and_then(Weak::upgrade);
        if let Some(source) = source {
            source.reported(event.ready);
        }
    }

    /// Begins reports on `fd` to `source`.
    pub(crate) fn register(&self, fd: BorrowedFd<'_>, source: Weak<dyn Source>) -> io::Result<Token> {
        let token = self.sources.borrow_mut().insert(source);
        let added = self.poller.borrow_mut().add(fd, token);
        added.inspect_err(|_| self.forget(token)).map(|()| token)
    }

    /// Ends reports on `fd`.
    pub(crate) fn deregister(&self, fd: BorrowedFd<'_>, token: Token) {
        self.poller.borrow_mut().remove(fd);
        self.forget(token);
    }

    /// Ends the registration of a descriptor whose closing ends its reports.
    pub(crate) fn forget(&self, token: Token) {
        self.sources.borrow_mut().remove(token);
    }
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker").field("remote", &self.remote).finish_non_exhaustive()
    }
}
