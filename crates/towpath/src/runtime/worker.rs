//! A worker: a thread that runs tasks, fires their timers, and waits on its poller when none is ready.
//!
//! ```text
//! loop   run ready tasks, at most 256          ┐
//!        take what other threads left          │ one turn
//!        fire timers that are due              │
//!        with nothing to run: take from others │
//!        tasks that have not started (`idle`)  │
//!        wait for reports (not, if some task   │
//!        is ready), unpark who waits for them  ┘
//! ```
//!
//! [`Worker`] is the thread's own half, reached through a thread-local and never shared; [`Remote`] is what other threads
//! see of it. Everything a worker owns stays on its thread: fibers, stacks, timers, the poller, the registrations.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::iter;
use std::os::fd::BorrowedFd;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use super::blocking;
use super::fiber::{self, Step};
use super::idle::{self, Idle};
use super::inbox::{Inbox, Sent};
use super::inspect::{Inquiry, Which};
use super::overflow;
use super::park::{fork, may_wait};
use super::record::Record;
use super::run_queue::RunQueue;
use super::sources::Sources;
use super::stack::{Pool, Stack};
use super::table::Table;
use super::task::{Task, TaskRef};
use super::timer::Timers;
use super::trim::Trimming;
use super::wait::Wait;
use super::wait_queue::Waiter;
use super::{Settings, Shared};
use crate::poller::{Interest, Poller, Ready, Token, Waker};
use crate::shim::{Mutex, MutexGuard, lock};
use crate::time::Instant;

/// Tasks run in one turn, at most, before the worker looks what else there is: messages, timers, the poller.
const TURN: u32 = 256;
/// Tasks that run for so long each, on average, have a turn be cut short,
const LONG: Duration = Duration::from_micros(200);
/// and the next one be of as many as run in this time.
const SPELL: Duration = Duration::from_millis(1);
/// So many run until the clock is read, at most.
const STRIDE: u32 = 64;
/// Calls that a task may make in a row without waiting before it lets others run.
const BUDGET: u32 = 64;

/// Something whose readiness a worker's poller reports: a socket.
pub(crate) trait Source: Send + Sync {
    /// Registers with the worker, or for more than before, on the worker's own thread, for somebody sent
    /// [`Message::Attach`].
    fn attach(self: Arc<Self>, worker: &Worker);
    /// Ends its registration with the worker and sends [`Message::Attach`] to `to`, for somebody sent [`Message::Move`].
    fn move_to(self: Arc<Self>, worker: &Worker, to: &Arc<Remote>);
    /// Ends its registration with the worker, for somebody sent [`Message::Detach`].
    fn detach_from(self: Arc<Self>, worker: &Worker);
    /// Takes note of a report. Runs none of the user's code, and registers nothing: the poller is in use.
    fn reported(&self, ready: Ready);
    /// Takes note that its worker has gone, or goes before it could attach.
    fn orphaned(&self);
}

/// What other threads ask of a worker.
pub(crate) enum Message {
    /// Run this task, which was unparked, or is new and to stay here.
    Run(TaskRef),
    /// Start a task: one was placed here.
    Start,
    Attach(Arc<dyn Source>),
    Move(Arc<dyn Source>, Arc<Remote>),
    Detach(Arc<dyn Source>),
    /// The registration's descriptor is about to be closed, or has been. The sender goes once it is forgotten.
    Forget(Token, Option<mpsc::Sender<()>>),
    /// Tell of the tasks, from this slot on.
    Look(Arc<Inquiry>, Which),
    /// Look whether the runtime is shutting down.
    Stop,
}

/// What other threads see of a worker.
pub(crate) struct Remote {
    /// Unique in the process, never 0.
    pub(crate) id: u32,
    /// The name of its thread.
    pub(crate) name: Arc<str>,
    /// The task that runs on its fiber; null while the worker itself does. Others only compare it.
    pub(super) running: AtomicPtr<Task>,
    /// Tasks placed here that have not ended.
    pub(crate) live: AtomicUsize,
    pub(crate) tasks: Mutex<Tasks>,
    /// What other workers look at before they take tasks from here, and before they hand one on.
    pub(super) idle: idle::State,
    inbox: Inbox<Message>,
    waker: Waker,
}

/// The tasks of one worker.
#[derive(Default)]
pub(crate) struct Tasks {
    /// Those that have not ended, by slot.
    pub(crate) live: Table,
    /// Those of them that have not started, in the order in which they came: any worker may.
    pub(super) unstarted: VecDeque<TaskRef>,
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

    #[inline]
    pub(crate) fn lock(&self) -> MutexGuard<'_, Tasks> {
        lock(&self.tasks)
    }

    /// Gives a task that has not started a slot, in a place that has been reserved. The caller then queues it.
    pub(super) fn adopt(task: Record, tasks: &mut Tasks) -> TaskRef {
        // SAFETY: it is placed with the next step, and whom we hand it to asks for no more than that it has not ended.
        let placed = unsafe { TaskRef::new(&task) };
        placed.place(tasks.live.insert(task));
        placed
    }

    /// Takes tasks in that have not started, in places that have been reserved. For each the caller sends or queues a
    /// start; whichever worker comes to it first starts it.
    pub(super) fn take_in(&self, new: impl IntoIterator<Item = Record>) {
        let tasks = &mut *self.lock();
        for task in new {
            let task = Remote::adopt(task, tasks);
            tasks.unstarted.push_back(task);
        }
        self.idle.says(tasks.unstarted.len());
    }

    /// The task that has waited longest for its start, if no other worker has taken it.
    fn next_unstarted(&self) -> Option<TaskRef> {
        let mut tasks = self.lock();
        let next = tasks.unstarted.pop_front();
        self.idle.says(tasks.unstarted.len());
        next
    }

    pub(super) fn wake(&self) {
        self.waker.wake();
    }

    fn release(&self, slot: usize) {
        let task = self.lock().live.remove(slot);
        drop(task); // not under the lock
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
    ready: RunQueue,
    /// Whether there are other workers, to take tasks from and to lose them to.
    pub(super) has_others: bool,
    timers: RefCell<Timers>,
    poller: RefCell<Poller>,
    sources: RefCell<Sources>,
    pub(super) stacks: RefCell<Pool>,
    /// What its last look at the others left there.
    pub(super) seen: Cell<Option<idle::Seen>>,
    /// Calls that the running task may still make without waiting.
    budget: Cell<u32>,
    /// Whether it has told of its tasks in this turn.
    pub(super) has_looked: Cell<bool>,
    /// How many tasks may run until the clock is read.
    stride: Cell<u32>,
    /// The time when this turn's reports came in.
    pub(super) now: Cell<Instant>,
}

thread_local! {
    /// This thread's worker while it works; null on every other thread.
    static CURRENT: Cell<*const Worker> = const { Cell::new(ptr::null()) };
}

/// The worker whose task calls this; `None` on a plain thread.
#[inline]
pub(crate) fn current<'a>() -> Option<&'a Worker> {
    let worker = CURRENT.get();
    // SAFETY: it is set while `run` holds the worker, which ends only after the last of its tasks. Whoever calls this is one
    // of them, or the worker's own loop, and keeps the reference on its stack: neither outlives the worker.
    unsafe { worker.as_ref() }
}

/// Puts a task that is nowhere else, and has started, on its worker's queue.
#[inline]
pub(super) fn enqueue(task: TaskRef) {
    // SAFETY: it has started, for it was parked.
    let remote = unsafe { task.settled() }.remote();
    match current() {
        Some(worker) if ptr::eq(&*worker.remote, remote) => worker.push(task),
        _ => enqueue_elsewhere(task),
    }
}

#[cold]
fn enqueue_elsewhere(task: TaskRef) {
    // SAFETY: as above. Counted, for the task may have ended before `send` returns.
    let remote = unsafe { task.settled() }.remote_counted();
    let sent = remote.send(Message::Run(task));
    assert!(sent.is_ok(), "a worker stays until its last task has ended");
}

impl Worker {
    /// A worker for the calling thread.
    pub(super) fn new(settings: &Settings, runtime: Arc<Shared>) -> io::Result<Worker> {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let (poller, waker) = Poller::new(settings.poller)?;
        let remote = Remote {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            name: thread::current().name().unwrap_or_default().into(),
            running: AtomicPtr::new(ptr::null_mut()),
            live: AtomicUsize::new(0),
            tasks: Mutex::default(),
            idle: idle::State::default(),
            inbox: Inbox::new(),
            waker,
        };
        Ok(Worker {
            remote: Arc::new(remote),
            runtime,
            ready: RunQueue::default(),
            has_others: settings.workers > 1,
            timers: RefCell::default(),
            poller: RefCell::new(poller),
            sources: RefCell::default(),
            stacks: RefCell::new(Pool::new(settings.stack_size)),
            seen: Cell::new(None),
            budget: Cell::new(BUDGET),
            has_looked: Cell::new(false),
            stride: Cell::new(STRIDE),
            now: Cell::new(Instant::now()),
        })
    }

    /// Works until the runtime shuts down and the last task here has ended.
    pub(super) fn run(self) {
        let worker = &self;
        CURRENT.set(worker);
        let mut messages = Vec::new();
        let mut trimming = Trimming::default();
        loop {
            worker.run_ready();
            worker.remote.inbox.take(&mut messages);
            worker.has_looked.set(false);
            messages.drain(..).for_each(|message| worker.obey(message));
            worker.fire_timers();
            worker.trim(&mut trimming);
            let timeout = if !worker.ready.is_empty() {
                Some(Duration::ZERO)
            } else if worker.has_ended() {
                break;
            } else {
                let idle = if worker.has_others { worker.look_around() } else { Idle::Nothing };
                if matches!(idle, Idle::Taken) || !worker.remote.inbox.fall_asleep() {
                    worker.runtime.busy(&worker.remote);
                    continue;
                }
                worker.until_due(trimming.due().chain(idle.look_again()))
            };
            let waited = worker.poller.borrow_mut().wait(timeout);
            waited.expect("waiting on a poller of our own");
            worker.remote.inbox.wake_up();
            if worker.has_others {
                worker.runtime.busy(&worker.remote);
            }
            worker.now.set(Instant::now());
            worker.deliver();
        }
        let orphans: Vec<_> = worker.sources.borrow_mut().drain().collect();
        orphans.iter().for_each(|source| source.orphaned());
        CURRENT.set(ptr::null());
    }

    fn run_ready(&self) {
        let mut until = self.stride.get();
        for done in 1.. {
            let Some(next) = self.ready.pop() else { return };
            if let Some(task) = next.or_else(|| self.remote.next_unstarted()) {
                self.step(task);
            }
            if done == until {
                match self.go_on(done) {
                    Some(next) => until = next,
                    None => return,
                }
            }
        }
    }

    /// So many tasks have run in this turn: until how many it is to go on, if it is.
    #[cold]
    fn go_on(&self, done: u32) -> Option<u32> {
        // The clock was last read when the poller had been asked, or the timers were fired: the turn began after that.
        let took = self.now.get().elapsed();
        if took >= LONG * done {
            let fit = SPELL.as_nanos() * u128::from(done) / took.as_nanos();
            self.stride.set(fit.max(1) as u32);
            return None;
        }
        let stride = (2 * self.stride.get()).min(STRIDE);
        self.stride.set(stride);
        (done < TURN).then_some(done + stride)
    }

    /// Runs one task until it parks, yields or ends.
    #[inline]
    fn step(&self, task: TaskRef) {
        // SAFETY: the task is on this worker, whose thread this is.
        let resident = match unsafe { task.resident() } {
            None if !self.start(task) => {
                self.remote.release(task.slot()); // without a stack it ends here
                return;
            }
            // SAFETY: as above, and it has just started.
            None => unsafe { task.settled() },
            Some(resident) => resident,
        };
        // SAFETY: nothing else in here reaches a fiber, and a task that runs is not stepped.
        let (fiber, running) = unsafe { &mut *resident.fiber.get() };
        self.budget.set(BUDGET);
        self.remote.idle.step();
        self.remote.running.store(task.as_ptr(), Ordering::Relaxed);
        // SAFETY: `running` stays in the task's record until the fiber has ended, and this thread runs only the fiber until
        // it is taken back below.
        unsafe { overflow::set_running(Some(running)) };
        let step = fiber.resume();
        // SAFETY: as above.
        unsafe { overflow::set_running(None) };
        self.remote.running.store(ptr::null_mut(), Ordering::Relaxed);
        if step == Step::Finished {
            if fork::check().is_err() {
                // The task forked, and this is the child, in which its closure has returned: the other tasks are the
                // parent's. A thread that ends as a process's last ends that as well, with 0. In a child no task comes
                // here otherwise, for `may_wait` lets none suspend.
                // SAFETY: it ends the process, and nothing else.
                unsafe { libc::_exit(0) };
            }
            let slot = task.slot();
            // SAFETY: this is its worker's thread, and its fiber has ended.
            let stack = unsafe { task.leave() };
            self.timers.borrow_mut().remove(slot);
            self.remote.release(slot);
            self.stacks.borrow_mut().give(stack);
        }
    }

    /// Gives a new task its stack. False if there is no memory for one.
    fn start(&self, task: TaskRef) -> bool {
        match self.stack_for(&task) {
            Ok(stack) => {
                // SAFETY: it is new, and was placed here.
                unsafe { task.settle(stack, &self.remote) };
                true
            }
            Err(error) => {
                give_up(task.to_record(), format!("no stack for task #{}: {error}", task.id));
                false
            }
        }
    }

    fn stack_for(&self, task: &Task) -> io::Result<Stack> {
        let mut stacks = self.stacks.borrow_mut();
        match task.stack_size() {
            Some(size) => stacks.take_sized(size.get()),
            None => stacks.take(),
        }
    }

    /// Starts a task that may not leave this thread, after those that are ready.
    pub(crate) fn spawn_local(&self, task: Record) -> io::Result<()> {
        if fork::check().is_err() {
            std::mem::forget(task); // as in `Shared::place_near`
            return Ok(());
        }
        let stack = self.stack_for(&task)?;
        self.remote.live.fetch_add(1, Ordering::SeqCst);
        let task = Remote::adopt(task, &mut self.remote.lock());
        // SAFETY: it is new, and was placed here.
        unsafe { task.settle(stack, &self.remote) };
        self.push(task);
        Ok(())
    }

    /// Places a new task here: its own worker is there for it as long as the task that spawns it is.
    pub(super) fn keep(&self, task: Record) {
        self.remote.live.fetch_add(1, Ordering::SeqCst);
        if self.has_others {
            self.remote.take_in(iter::once(task));
            self.start_one();
            self.runtime.wake_idle();
        } else {
            let task = Remote::adopt(task, &mut self.remote.lock());
            self.push(task);
        }
    }

    /// Queues the start of a task that was taken in.
    pub(super) fn start_one(&self) {
        self.ready.push(None);
    }

    #[inline]
    fn push(&self, task: TaskRef) {
        self.ready.push(Some(task));
    }

    #[inline]
    pub(crate) fn running_task(&self) -> TaskRef {
        let running = NonNull::new(self.remote.running.load(Ordering::Relaxed));
        let task = running.expect("only a task calls this: a worker itself never waits");
        // SAFETY: `step` put it there, and takes it back before the task can end.
        unsafe { TaskRef::from_raw(task) }
    }

    /// Parks the running task, whose own `waiter` this is; see [`super::park::Owner::park`].
    #[inline]
    pub(super) fn park(&self, waiter: &Waiter, wait: Wait<'_>, deadline: Option<Instant>) {
        let task = self.running_task();
        // SAFETY: the task runs, on this worker.
        let resident = unsafe { task.settled() };
        resident.begin_park(wait.what, self.now.get());
        match deadline {
            None => fiber::suspend(),
            Some(deadline) => self.park_until(task, waiter, deadline),
        }
        resident.end_park();
    }

    #[inline(never)]
    fn park_until(&self, task: TaskRef, waiter: &Waiter, deadline: Instant) {
        // SAFETY: the task runs, on this worker.
        let resident = unsafe { task.settled() };
        resident.waiter.set(waiter);
        resident.deadline.store(deadline.as_nanos(), Ordering::Relaxed);
        // An entry that is due before the deadline stays as it is, and moves on when it comes due.
        let mut timers = self.timers.borrow_mut();
        if timers.armed(task.slot()).is_none_or(|armed| armed > deadline.as_nanos()) {
            timers.set(task.slot(), deadline.as_nanos());
        }
        drop(timers);
        fiber::suspend();
        resident.deadline.store(0, Ordering::Relaxed);
    }

    /// Lets the other ready tasks run first.
    pub(crate) fn yield_now(&self) {
        if may_wait().is_ok() {
            self.push(self.running_task());
            fiber::suspend();
        }
    }

    /// Counts a call of the running task that did not wait; after a number of them, lets others run.
    #[inline]
    pub(super) fn spend(&self) {
        match self.budget.get() {
            0 => self.yield_now(),
            left => self.budget.set(left - 1),
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
            self.due(slot, now);
        }
    }

    /// Ends the park of the task in `slot` if its deadline has passed.
    fn due(&self, slot: usize, now: Instant) {
        let task = {
            let tasks = self.remote.lock();
            let Some(task) = tasks.live.get(slot) else { return }; // it has ended
            // SAFETY: it is used only if it waits, so that it has not ended.
            unsafe { TaskRef::new(task) }
        };
        // SAFETY: the task is on this worker, whose thread this is.
        let Some(resident) = (unsafe { task.resident() }) else { return }; // it has not started
        match resident.deadline() {
            None => {} // it waits without one, or runs
            Some(deadline) if deadline > now => self.timers.borrow_mut().set(slot, deadline.as_nanos()),
            Some(_) => {
                let waiter = resident.waiter.get();
                // SAFETY: the waiter stays on the task's stack while the task is parked, and it is: it has a deadline.
                let late = unsafe { &*waiter }.abort();
                if late {
                    self.push(task); // otherwise whoever has claimed it does so
                }
            }
        }
    }

    /// How long until the next timer, or one of `others`, is due. Those may be as late as this turn has taken, and save
    /// a look at the clock.
    fn until_due(&self, others: impl Iterator<Item = Instant>) -> Option<Duration> {
        let other = others.min().map(|due| due.duration_since(self.now.get()));
        let timer = self.timers.borrow().next().map(|due| Instant::from_nanos(due).duration_since(Instant::now()));
        timer.into_iter().chain(other).min()
    }

    fn has_ended(&self) -> bool {
        self.runtime.is_stopping() && self.remote.live.load(Ordering::SeqCst) == 0 && self.remote.inbox.close()
    }

    fn obey(&self, message: Message) {
        match message {
            Message::Run(task) => self.push(task),
            Message::Start => self.start_one(),
            Message::Attach(source) => source.attach(self),
            Message::Move(source, to) => source.move_to(self, &to),
            Message::Detach(source) => source.detach_from(self),
            Message::Forget(token, _done) => self.forget(token),
            Message::Look(inquiry, which) => self.answer(inquiry, which),
            Message::Stop => {}
        }
    }

    /// Hands out what the poller has to report.
    #[inline]
    fn deliver(&self) {
        let sources = self.sources.borrow();
        self.poller.borrow_mut().take(|event| {
            if let Some(source) = sources.find(event.token) {
                source.reported(event.ready);
            }
        });
    }

    /// Begins reports on `fd` to `source`.
    pub(crate) fn register(
        &self,
        fd: BorrowedFd<'_>,
        source: Arc<dyn Source>,
        interest: Interest,
    ) -> io::Result<Token> {
        fork::check()?; // the poller is the parent's
        let token = self.sources.borrow_mut().insert(source);
        let added = self.poller.borrow_mut().add(fd, token, interest);
        added.inspect_err(|_| self.forget(token)).map(|()| token)
    }

    /// Has reports on `fd`, registered for reading, tell of writing as well.
    pub(crate) fn register_writing(&self, fd: BorrowedFd<'_>, token: Token) -> io::Result<()> {
        fork::check()?;
        self.poller.borrow_mut().add_writing(fd, token)
    }

    /// Ends reports on `fd`.
    pub(crate) fn deregister(&self, fd: BorrowedFd<'_>, token: Token) {
        if fork::check().is_ok() {
            self.poller.borrow_mut().remove(fd, token);
        }
        self.sources.borrow_mut().remove(token);
    }

    /// Ends the registration of a descriptor that is about to be closed, or has been.
    pub(crate) fn forget(&self, token: Token) {
        if fork::check().is_ok() {
            self.poller.borrow_mut().forget(token);
        }
        self.sources.borrow_mut().remove(token);
    }
}

/// Ends a task that cannot start with a panic. Neither a logger nor a destructor of the user's may run on the worker's own
/// stack, where nothing can wait. With no thread to be had, the closure leaks.
fn give_up(task: Record, message: String) {
    let (there, told) = (task.clone(), message.clone());
    let gone = blocking::spawn(Box::new(move || {
        log::error!("{told}");
        // SAFETY: nobody else comes to run it, and what is not Send has its stack before it is placed.
        let dropped = catch_unwind(AssertUnwindSafe(|| unsafe { there.drop_job() }));
        // SAFETY: as above.
        unsafe { there.fail(Box::new(told)) };
        dropped.unwrap_or_else(|panic| resume_unwind(panic));
    }));
    if gone.is_err() {
        // SAFETY: as above: the thread that was to do so does not exist.
        unsafe { task.fail(Box::new(message)) };
    }
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker").field("remote", &self.remote).finish_non_exhaustive()
    }
}
