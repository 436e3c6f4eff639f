//! towpath: blocking-looking TCP at the price of an event loop.
//!
//! Code reads like `std::net` with threads; underneath, each task is a stackful coroutine and every wait parks the task,
//! not the thread.
pub mod net;
mod poller;
mod runtime;
mod shim;
pub mod sync;
pub mod task;
pub mod time;

pub use poller::PollerKind;
pub use runtime::park::{Cancelled, is_cancelled};
pub use runtime::{Builder, Runtime, StillRunning};
pub use task::spawn;
