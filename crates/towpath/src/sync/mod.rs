//! Between tasks, and between tasks and threads: [`channel`] and [`select!`](crate::select).
//!
//! Every call here is made from tasks and from plain threads alike, on the same objects at the same time: a task parks, a
//! thread blocks.

pub mod channel;
#[doc(hidden)]
pub mod select;
