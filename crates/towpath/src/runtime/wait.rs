//! What a parked task waits for, in a form that a task dump can read: the operation, and what it is on.
//!
//! ```text
//! What      operation │ number       one word in the task's record: read at any time, from any thread
//!                         │
//!                         └─▶ Subject    of some operations: the address of what lies in the waiting frame, or is kept by it,
//!                                        and can say more; asked by the task's own worker while the task is parked
//! ```
//!
//! A primitive that waits names its [`Op`] and the number of what it is on: one that has more to say than that is
//! [`Describe`]. To add one is to add an [`Op`], and an [`On`] if no other fits. Nothing here waits; `park` does.

use std::marker::PhantomData;
use std::os::fd::RawFd;
use std::ptr;

/// What a parked task waits for.
#[derive(Clone, Copy)]
pub(crate) struct Wait<'a> {
    pub(super) what: What,
    subject: PhantomData<&'a ()>,
}

impl<'a> Wait<'a> {
    #[inline]
    fn new(op: Op, number: u64) -> Wait<'a> {
        Wait { what: What::new(op, number), subject: PhantomData }
    }

    /// A wait on a socket.
    #[inline]
    pub(crate) fn on_descriptor(op: Op, fd: RawFd) -> Wait<'static> {
        Wait::new(op, u64::from(fd as u32))
    }

    /// A wait for a task to end.
    pub(crate) fn on_task(op: Op, id: u64) -> Wait<'static> {
        Wait::new(op, id)
    }

    /// A wait on something that can say how it stands.
    #[inline]
    pub(crate) fn on_subject<D: Describe>(op: Op, subject: &'a D) -> Wait<'a> {
        debug_assert!(op.has_subject());
        Wait::new(op, ptr::from_ref(subject).expose_provenance() as u64)
    }
}

impl From<Op> for Wait<'static> {
    #[inline]
    fn from(op: Op) -> Wait<'static> {
        debug_assert!(!op.has_subject());
        Wait::new(op, 0)
    }
}

/// Something that tasks wait on and that can say how it stands.
///
/// # Safety
/// It is `repr(C)`, and its first field is [`Subject::of`] it: by that it is known when nothing but its address is.
pub(crate) unsafe trait Describe {
    /// Called on the worker of a task that is parked on it. Runs none of the user's code, and never waits.
    fn describe(&self) -> On;
}

/// The beginning of everything that is [`Describe`].
pub(crate) struct Subject {
    describe: unsafe fn(*const Subject) -> On,
}

impl Subject {
    pub(crate) fn of<D: Describe>() -> Subject {
        /// # Safety
        /// A `D` lies there.
        unsafe fn describe<D: Describe>(subject: *const Subject) -> On {
            // SAFETY: the caller's promise.
            unsafe { &*subject.cast::<D>() }.describe()
        }
        Subject { describe: describe::<D> }
    }
}

impl std::fmt::Debug for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subject").finish_non_exhaustive()
    }
}

/// An operation, and the number of what it is on: a descriptor, a task, or an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct What(u64);

/// The bits of the number. Descriptors, task numbers and addresses have fewer.
const NUMBER: u32 = 56;

impl What {
    #[inline]
    fn new(op: Op, number: u64) -> What {
        debug_assert!(number >> NUMBER == 0, "a number that does not fit");
        What((op as u64) << NUMBER | number)
    }

    #[inline]
    pub(super) fn bits(self) -> u64 {
        self.0
    }

    /// `None` for 0, which says that nothing is waited for.
    pub(super) fn from_bits(bits: u64) -> Option<What> {
        (bits != 0).then_some(What(bits))
    }

    pub(crate) fn op(self) -> Op {
        let op = Op::ALL.into_iter().find(|op| u64::from(*op as u8) == self.0 >> NUMBER);
        op.expect("every wait has an operation")
    }

    fn number(self) -> u64 {
        self.0 & ((1 << NUMBER) - 1)
    }

    /// All that can be told of what a parked task waits on.
    ///
    /// # Safety
    /// The task whose word this is stays parked in that wait meanwhile.
    pub(super) unsafe fn describe(self) -> On {
        if !self.op().has_subject() {
            return self.on();
        }
        let subject = ptr::with_exposed_provenance::<Subject>(self.number() as usize);
        // SAFETY: `on_subject` had a reference to it, which the wait keeps, and it begins with a `Subject`.
        let describe = unsafe { (*subject).describe };
        // SAFETY: it is a `Subject` of what lies there.
        unsafe { describe(subject) }
    }

    /// What the number alone tells.
    pub(crate) fn on(self) -> On {
        let number = self.number();
        match self.op() {
            Op::Read | Op::Write | Op::WriteTurn | Op::Accept | Op::Connect => On::Descriptor(number as RawFd),
            Op::Receive | Op::Send => On::Channel { id: number, fill: None },
            Op::Join => On::Task(number),
            Op::Select => On::Arms(Vec::new()),
            Op::Sleep | Op::Shutdown | Op::Dump => On::Nothing,
        }
    }
}

/// What an operation is on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum On {
    Nothing,
    Descriptor(RawFd),
    Channel {
        /// Its address.
        id: u64,
        /// Unknown where the worker was not asked.
        fill: Option<Fill>,
    },
    Task(u64),
    /// A select's arms that can still go ahead.
    Arms(Vec<(Op, On)>),
}

/// How full a channel is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fill {
    pub(crate) len: usize,
    /// `None`: unbounded.
    pub(crate) capacity: Option<usize>,
}

/// An operation that can wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Op {
    Sleep = 1,
    Read,
    Write,
    WriteTurn,
    Accept,
    Connect,
    Receive,
    Send,
    Select,
    Join,
    Shutdown,
    Dump,
}

impl Op {
    const ALL: [Op; 12] = {
        use Op::*;
        [Sleep, Read, Write, WriteTurn, Accept, Connect, Receive, Send, Select, Join, Shutdown, Dump]
    };

    /// Whether the number is the address of a [`Subject`].
    fn has_subject(self) -> bool {
        matches!(self, Op::Receive | Op::Send | Op::Select)
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Op::Sleep => "sleep",
            Op::Read => "read",
            Op::Write => "write",
            Op::WriteTurn => "write (another write first)",
            Op::Accept => "accept",
            Op::Connect => "connect",
            Op::Receive => "recv",
            Op::Send => "send",
            Op::Select => "select",
            Op::Join => "join",
            Op::Shutdown => "shutdown",
            Op::Dump => "dump",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_holds_the_operation_and_its_number() {
        for op in Op::ALL {
            assert_eq!(What::new(op, 0).op(), op);
            assert_eq!(What::new(op, (1 << NUMBER) - 1).op(), op);
            assert_eq!(What::from_bits(What::new(op, 7).bits()), Some(What::new(op, 7)));
        }
        assert_eq!(What::new(Op::Read, 0).on(), On::Descriptor(0));
        assert_eq!(What::new(Op::Accept, 1_048_576).on(), On::Descriptor(1_048_576));
        assert_eq!(What::new(Op::Send, 0x7fff_ffff_fff0).on(), On::Channel { id: 0x7fff_ffff_fff0, fill: None });
        assert_eq!(What::new(Op::Join, 12).on(), On::Task(12));
        assert_eq!(What::from_bits(0), None);
    }
}
