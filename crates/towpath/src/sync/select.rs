//! What [`select!`](crate::select) expands to: waiting for the first of several operations.
//!
//! First every arm is tried, from a random one on. If none can go ahead, each is queued where it would wait, all with the one
//! `Waiter`, and whoever ends one wait ends the select. An arm that becomes ready while the others are being queued
//! shows when it is queued itself; then the wait is called off and all are tried again.

#![allow(missing_debug_implementations, missing_docs, reason = "public for the macro alone")]

use std::cell::{Cell, RefCell};

use super::channel::{MustWait, Receiver, RecvError, SendError, Sender, wake};
use crate::runtime::park::{self, Cancelled};
use crate::runtime::wait::{Describe, On, Op, Subject, Wait};
use crate::runtime::wait_queue::{Ended, Node, Waiter};
use crate::shim::lock;
use crate::task::{JoinError, JoinHandle};
use crate::time::{Duration, Instant};

/// Waits for the first of several operations, does that one, and evaluates its arm.
///
/// ```
/// use towpath::sync::channel;
/// use towpath::time::Duration;
///
/// let (words, received) = channel::unbounded();
/// let mut task = Some(towpath::spawn(move || words.send("hello")));
/// let word = towpath::select! {
///     recv(received) -> word => word,
///     timeout(Duration::from_secs(5)) => panic!("nobody spoke"),
/// };
/// assert_eq!(word, Ok("hello"));
/// towpath::select! {
///     join(task) -> result => result.unwrap().unwrap(),
/// }
/// assert!(task.is_none());
/// ```
///
/// | arm | what happens, and what the pattern gets |
/// |---|---|
/// | `recv(receiver) -> pattern => …` | a message is received: `Result<T, RecvError>` |
/// | `send(sender, message) -> pattern => …` | `message`, a place of type `Option<T>`, is taken and sent: `Result<(), SendError<T>>` |
/// | `join(handle) -> pattern => …` | the task in `handle`, a place of type `Option<JoinHandle<T>>`, has ended: `Result<T, JoinError<T>>` |
/// | `timeout(duration) => …` | none of the others could go ahead in time |
/// | `default => …` | none of the others can go ahead now |
///
/// What an arm did not need stays where it was: the message and the handle of an arm that was not chosen are still in
/// their places. An arm whose place is `None` never goes ahead. If several arms can, one is chosen at random. If the caller
/// may not wait, the first arm whose place is not empty gets [`Cancelled`](crate::Cancelled) in the form of its own error.
///
/// # Panics
/// If the caller may not wait and there is nobody to tell: the places of all arms are `None`, and there is neither
/// `timeout` nor `default`. (Where it may, such a select waits for ever.)
///
/// Patterns must match every result, as in a `let`. One of `timeout` and `default` may stand among the arms.
#[macro_export]
macro_rules! select {
    // An arm: its form becomes `[name] constructor (arguments) pattern => body`. With and without a comma behind it.
    (@arm [$($arms:tt)*] [$($rest:tt)*] recv($receiver:expr) -> $pattern:pat => $body:expr, $($more:tt)*) => {
        $crate::select!(@arm [$($arms)* {case recv ($crate::sync::select::RecvArm { receiver: &$receiver }) ($pattern) ($body)}] [$($rest)*] $($more)*)
    };
    (@arm [$($arms:tt)*] [$($rest:tt)*] send($sender:expr, $message:expr) -> $pattern:pat => $body:expr, $($more:tt)*) => {
        $crate::select!(@arm [$($arms)* {case send ($crate::sync::select::SendArm { sender: &$sender, message: &mut $message }) ($pattern) ($body)}] [$($rest)*] $($more)*)
    };
    (@arm [$($arms:tt)*] [$($rest:tt)*] join($handle:expr) -> $pattern:pat => $body:expr, $($more:tt)*) => {
        $crate::select!(@arm [$($arms)* {case join ($crate::sync::select::JoinArm { handle: &mut $handle }) ($pattern) ($body)}] [$($rest)*] $($more)*)
    };
    (@arm [$($arms:tt)*] [] timeout($duration:expr) => $body:expr, $($more:tt)*) => {
        $crate::select!(@arm [$($arms)*] [($crate::sync::select::Limit::After($duration)) ($body)] $($more)*)
    };
    (@arm [$($arms:tt)*] [] default => $body:expr, $($more:tt)*) => {
        $crate::select!(@arm [$($arms)*] [($crate::sync::select::Limit::Now) ($body)] $($more)*)
    };
    (@arm $arms:tt $rest:tt $kind:ident $(($($arguments:tt)*) $(-> $pattern:pat)?)? => $body:block $($more:tt)+) => {
        $crate::select!(@arm $arms $rest $kind $(($($arguments)*) $(-> $pattern)?)? => $body, $($more)*)
    };
    (@arm $arms:tt $rest:tt $kind:ident $(($($arguments:tt)*) $(-> $pattern:pat)?)? => $body:expr) => {
        $crate::select!(@arm $arms $rest $kind $(($($arguments)*) $(-> $pattern)?)? => $body,)
    };
    // All arms are read.
    (@arm $arms:tt []) => {
        $crate::select!(@wait $arms ($crate::sync::select::Limit::Never) (::std::unreachable!("a select without a limit ends by an arm")))
    };
    (@arm $arms:tt [$limit:tt $otherwise:tt]) => {
        $crate::select!(@wait $arms $limit $otherwise)
    };
    (@wait [$({$case:ident $make:ident $arguments:tt $pattern:tt $body:tt})*] $limit:tt $otherwise:tt) => {{
        // What each arm came to: `Some` for the one that went ahead. The cases end here, and their borrows with them.
        #[allow(clippy::unused_unit, reason = "a limit may be all there is")]
        let ($($case,)*) = {
            $(let $case = $arguments; let mut $case = $crate::sync::select::$make($case);)*
            $crate::sync::select::wait(&mut [$(&mut $case as &mut dyn $crate::sync::select::Case),*], $limit);
            ($($crate::sync::select::Outcome::outcome($case),)*)
        };
        $crate::select!(@chosen $otherwise $({$case $pattern $body})*)
    }};
    (@chosen ($otherwise:expr)) => { $otherwise };
    (@chosen $otherwise:tt {$case:ident ($pattern:pat) ($body:expr)} $($more:tt)*) => {
        match $case {
            // A match, not a `let` and the body behind it: there rustc would call the braces of a short body unnecessary.
            ::std::option::Option::Some(outcome) => match outcome { $pattern => $body },
            ::std::option::Option::None => $crate::select!(@chosen $otherwise $($more)*),
        }
    };
    (@ $($wrong:tt)*) => {
        ::std::compile_error!("select! takes recv(r) -> p => e, send(s, m) -> p => e, join(h) -> p => e, and one of timeout(d) => e, default => e")
    };
    () => { ::std::compile_error!("select! needs an arm") };
    ($($arms:tt)+) => { $crate::select!(@arm [] [] $($arms)+) };
}

/// How long to wait for an arm.
#[derive(Clone, Copy, Debug)]
pub enum Limit {
    Never,
    Now,
    After(Duration),
}

/// One arm while the select waits.
///
/// # Safety
/// A case that `enlist` has queued stays where it is until `settle`, and then is queued no more: queues point into it.
/// [`wait`], which borrows its cases, sees to both for those of this file. Being `unsafe` keeps other code from
/// implementing the trait, and thereby from getting hold of a [`Ticket`].
pub unsafe trait Case {
    /// Drops an outcome.
    fn reset(&self);
    /// Does the operation if that needs no waiting.
    fn attempt(&self) -> bool;
    /// Queues the arm as number `index`; false, and not queued, if it could go ahead.
    fn enlist(&self, ticket: Ticket<'_>, index: usize) -> bool;
    /// Takes the arm out of its queue. `woken`: it was the one that ended the wait.
    fn settle(&self, woken: bool);
    /// What the arm waits for; `None` if it is queued nowhere. Called while the select is parked.
    fn arm(&self) -> Option<Arm>;
    /// Ends the select by this arm, with an error; false if its place is empty, so that it has nobody to tell.
    fn refuse(&self, cancelled: Cancelled) -> bool;
}

/// The wait that cases are queued for.
#[derive(Clone, Copy, Debug)]
pub struct Ticket<'a>(&'a Waiter);

/// What one arm waits for, for a task dump.
#[derive(Debug)]
pub struct Arm(Op, On);

/// The arms of a select that waits.
#[repr(C)]
struct Arms<'a, 'b> {
    subject: Subject,
    cases: &'a [&'b mut dyn Case],
}

// SAFETY: it is `repr(C)`, and begins with a `Subject` of it.
unsafe impl Describe for Arms<'_, '_> {
    fn describe(&self) -> On {
        On::Arms(self.cases.iter().filter_map(|case| case.arm()).map(|Arm(op, on)| (op, on)).collect())
    }
}

/// Waits until one of the cases has an outcome, or the limit is over and none has.
///
/// The cases are borrowed for itself alone: nobody else can queue, settle or move one meanwhile.
pub fn wait(cases: &mut [&mut dyn Case], limit: Limit) {
    // An outcome that is left from an earlier wait is dropped now: its destructor is the user's, and none may run later on.
    cases.iter().for_each(|case| case.reset());
    let cases = &*cases;
    let deadline = match limit {
        Limit::After(duration) => Some(Instant::after(duration)),
        Limit::Now | Limit::Never => None,
    };
    loop {
        let first = random_below(cases.len());
        if cases[first..].iter().chain(&cases[..first]).any(|case| case.attempt()) {
            if !matches!(limit, Limit::Now) {
                park::spend();
            }
            return;
        }
        if matches!(limit, Limit::Now) {
            return;
        }
        let waiter = match Waiter::new() {
            Ok(waiter) => waiter,
            Err(cancelled) => return refuse(cases, cancelled),
        };
        let unwinding = AbortOnUnwind;
        let queued = cases.iter().enumerate().take_while(|(index, case)| case.enlist(Ticket(&waiter), *index)).count();
        let again = queued < cases.len() && waiter.abort();
        let arms = Arms { subject: Subject::of::<Arms<'_, '_>>(), cases };
        let wait = Wait::on_subject(Op::Select, &arms);
        let ended = if again { Ended::TimedOut } else { waiter.wait(wait, deadline) };
        for (index, case) in cases[..queued].iter().enumerate() {
            case.settle(ended == Ended::Woken(index));
        }
        std::mem::forget(unwinding);
        if !again {
            return;
        }
    }
}

/// Nothing between queueing and settling panics; were it to, queues would point into a stack that is gone.
struct AbortOnUnwind;

impl Drop for AbortOnUnwind {
    fn drop(&mut self) {
        eprintln!("towpath: a select has panicked while it was queued; this is a bug in towpath");
        std::process::abort();
    }
}

fn refuse(cases: &[&mut dyn Case], cancelled: Cancelled) {
    _ = cases.iter().any(|case| case.refuse(cancelled));
}

/// A number below `n` (0 if that is 0), differing from call to call: which of several ready arms comes first.
fn random_below(n: usize) -> usize {
    thread_local!(static STATE: Cell<u64> = const { Cell::new(0x9e37_79b9_7f4a_7c15) });
    let mut x = STATE.get();
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    STATE.set(x);
    ((x >> 32) as usize).checked_rem(n).unwrap_or(0)
}

/// What an arm came to.
pub trait Outcome {
    /// What the arm's pattern gets.
    type Of;
    /// `Some` if the arm went ahead.
    fn outcome(self) -> Option<Self::Of>;
}

/// `recv(receiver)`.
pub struct Recv<'a, T> {
    receiver: &'a Receiver<T>,
    node: RefCell<Option<Node<Option<T>>>>,
    outcome: Cell<Option<Result<T, RecvError>>>,
}

/// What a `recv` arm names. A literal of it, and no call, lets the arm name a temporary, and a reference as well.
pub struct RecvArm<'a, T> {
    pub receiver: &'a Receiver<T>,
}

/// Makes the case of a `recv` arm.
pub fn recv<T>(RecvArm { receiver }: RecvArm<'_, T>) -> Recv<'_, T> {
    Recv { receiver, node: RefCell::default(), outcome: Cell::default() }
}

// SAFETY: the node is inside the case, and `settle` takes it out of its queue.
unsafe impl<T> Case for Recv<'_, T> {
    fn reset(&self) {
        self.outcome.take();
    }

    fn attempt(&self) -> bool {
        let received = lock(&self.receiver.core.state).receive();
        match received {
            Err(MustWait(())) => return false,
            Ok(Some((message, unparker))) => {
                self.outcome.set(Some(Ok(message)));
                wake(unparker);
            }
            Ok(None) => self.outcome.set(Some(Err(RecvError::Disconnected))),
        }
        true
    }

    fn enlist(&self, Ticket(waiter): Ticket<'_>, index: usize) -> bool {
        let mut slot = self.node.borrow_mut();
        let node = slot.insert(Node::new(waiter, index, None));
        let mut state = lock(&self.receiver.core.state);
        let waits = !state.can_receive(waiter);
        if waits {
            // SAFETY: the node stays where it is, inside a case that does not move, until `settle` removes it.
            unsafe { state.receiving.push(node) };
        }
        waits
    }

    fn settle(&self, woken: bool) {
        if let Some(node) = &*self.node.borrow() {
            // SAFETY: `enlist` pushed it to this queue.
            unsafe { lock(&self.receiver.core.state).receiving.remove(node) };
        }
        let message = self.node.take().and_then(Node::into_payload);
        if woken || message.is_some() {
            self.outcome.set(Some(message.ok_or(RecvError::Disconnected)));
        }
    }

    fn arm(&self) -> Option<Arm> {
        Some(Arm(Op::Receive, self.receiver.core.describe()))
    }

    fn refuse(&self, cancelled: Cancelled) -> bool {
        self.outcome.set(Some(Err(RecvError::Cancelled(cancelled))));
        true
    }
}

impl<T> Outcome for Recv<'_, T> {
    type Of = Result<T, RecvError>;

    fn outcome(self) -> Option<Self::Of> {
        self.outcome.into_inner()
    }
}

/// `send(sender, message)`.
pub struct Send<'a, T> {
    sender: &'a Sender<T>,
    message: RefCell<&'a mut Option<T>>,
    node: RefCell<Option<Node<Option<T>>>>,
    outcome: Cell<Option<Result<(), SendError<T>>>>,
}

/// What a `send` arm names.
pub struct SendArm<'a, T> {
    pub sender: &'a Sender<T>,
    pub message: &'a mut Option<T>,
}

/// Makes the case of a `send` arm.
pub fn send<T>(SendArm { sender, message }: SendArm<'_, T>) -> Send<'_, T> {
    Send { sender, message: RefCell::new(message), node: RefCell::default(), outcome: Cell::default() }
}

// SAFETY: the node is inside the case, and `settle` takes it out of its queue.
unsafe impl<T> Case for Send<'_, T> {
    fn reset(&self) {
        self.outcome.take();
    }

    fn attempt(&self) -> bool {
        let mut place = self.message.borrow_mut();
        let Some(message) = place.take() else { return false };
        let sent = lock(&self.sender.core.state).send(message);
        match sent {
            Err(MustWait(message)) => {
                **place = Some(message);
                return false;
            }
            Ok(Ok(unparker)) => {
                self.outcome.set(Some(Ok(())));
                wake(unparker);
            }
            Ok(Err(message)) => self.outcome.set(Some(Err(SendError::Disconnected(message)))),
        }
        true
    }

    fn enlist(&self, Ticket(waiter): Ticket<'_>, index: usize) -> bool {
        let mut place = self.message.borrow_mut();
        if place.is_none() {
            return true; // queued nowhere, this arm never goes ahead
        }
        let mut state = lock(&self.sender.core.state);
        let waits = !state.can_send(waiter);
        if waits {
            let mut slot = self.node.borrow_mut();
            let node = slot.insert(Node::new(waiter, index, place.take()));
            // SAFETY: the node stays where it is, inside a case that does not move, until `settle` removes it.
            unsafe { state.sending.push(node) };
        }
        waits
    }

    fn settle(&self, woken: bool) {
        if let Some(node) = &*self.node.borrow() {
            // SAFETY: `enlist` pushed it to this queue.
            unsafe { lock(&self.sender.core.state).sending.remove(node) };
        }
        let Some(node) = self.node.take() else { return };
        match node.into_payload() {
            None => self.outcome.set(Some(Ok(()))),
            Some(message) if woken => self.outcome.set(Some(Err(SendError::Disconnected(message)))),
            message => **self.message.borrow_mut() = message,
        }
    }

    fn arm(&self) -> Option<Arm> {
        self.node.borrow().as_ref().map(|_| Arm(Op::Send, self.sender.core.describe()))
    }

    fn refuse(&self, cancelled: Cancelled) -> bool {
        let message = self.message.borrow_mut().take();
        let refused = message.map(|message| Err(SendError::Cancelled(message, cancelled)));
        let told = refused.is_some();
        self.outcome.set(refused);
        told
    }
}

impl<T> Outcome for Send<'_, T> {
    type Of = Result<(), SendError<T>>;

    fn outcome(self) -> Option<Self::Of> {
        self.outcome.into_inner()
    }
}

/// `join(handle)`.
pub struct Join<'a, T> {
    handle: RefCell<&'a mut Option<JoinHandle<T>>>,
    node: RefCell<Option<Node<()>>>,
    outcome: Cell<Option<Result<T, JoinError<T>>>>,
}

/// What a `join` arm names.
pub struct JoinArm<'a, T> {
    pub handle: &'a mut Option<JoinHandle<T>>,
}

/// Makes the case of a `join` arm.
pub fn join<T: 'static>(JoinArm { handle }: JoinArm<'_, T>) -> Join<'_, T> {
    Join { handle: RefCell::new(handle), node: RefCell::default(), outcome: Cell::default() }
}

// SAFETY: the node is inside the case, and `settle` takes it out of its queue.
unsafe impl<T: 'static> Case for Join<'_, T> {
    fn reset(&self) {
        self.outcome.take();
    }

    fn attempt(&self) -> bool {
        let handle = self.handle.borrow_mut().take_if(|handle| handle.is_finished());
        let finished = handle.is_some();
        if let Some(handle) = handle {
            self.outcome.set(Some(handle.join()));
        }
        finished
    }

    fn enlist(&self, Ticket(waiter): Ticket<'_>, index: usize) -> bool {
        let place = self.handle.borrow();
        let Some(handle) = place.as_ref() else { return true };
        let mut slot = self.node.borrow_mut();
        let node = slot.insert(Node::new(waiter, index, ()));
        // SAFETY: the node stays where it is, inside a case that does not move, until `settle` removes it.
        unsafe { handle.completion().enlist(node) }
    }

    fn settle(&self, woken: bool) {
        if let (Some(handle), Some(node)) = (&**self.handle.borrow(), &*self.node.borrow()) {
            // SAFETY: `enlist` queued it there.
            unsafe { handle.completion().delist(node) };
        }
        self.node.take();
        if woken {
            self.attempt();
        }
    }

    fn arm(&self) -> Option<Arm> {
        let handle = self.handle.borrow();
        handle.as_ref().map(|handle| Arm(Op::Join, On::Task(handle.task().id().number())))
    }

    fn refuse(&self, cancelled: Cancelled) -> bool {
        let handle = self.handle.borrow_mut().take();
        let refused = handle.map(|handle| Err(JoinError::Cancelled(cancelled, handle)));
        let told = refused.is_some();
        self.outcome.set(refused);
        told
    }
}

impl<T: 'static> Outcome for Join<'_, T> {
    type Of = Result<T, JoinError<T>>;

    fn outcome(self) -> Option<Self::Of> {
        self.outcome.into_inner()
    }
}
