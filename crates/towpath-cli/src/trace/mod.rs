//! `towpath trace`: TCP connections as ladders, from the wire or from a file.
//!
//! ```text
//!   packets ─────▶ pump ──────── queue ───────▶ run ──▶ present ──▶ ladder  ┐
//!   (interface     │ tracer (flows, wanted)            │            lines   ├ text
//!    or file)      │ who (process, task)               │            object  ┘
//!                  └─▶ save (pcapng)                   └ ends (names)
//! ```
//!
//! `pump` is a thread of its own that takes packets in, follows connections and writes the file; `run` shows what it hands
//! on, and decides when it is over. `tracer`, `words`, `fit`, `data`, `ladder` and `lines` know no clock, no kernel and no
//! terminal: the wire, a file and a lesson look alike.

mod data;
mod ends;
pub(crate) mod fit;
mod ladder;
mod lines;
pub(crate) mod object;
mod packets;
mod present;
mod pump;
mod queue;
mod run;
mod save;
mod stop;
mod tracer;
mod who;
mod words;

use towpath::sync::channel::Receiver;

use crate::args::Trace;
use crate::exit::{Exit, Failure};
use crate::output::Output;
pub(crate) use ends::Ends;
pub(crate) use present::{Presenter, Shape};
pub(crate) use run::columns;
pub(crate) use save::Saver;
pub(crate) use tracer::{Tracer, Wanted};
pub(crate) use words::Told;

/// Shows what was asked for until it is told to stop.
pub(crate) fn run(options: &Trace, out: &Output, stop: &Receiver<i32>) -> Result<Exit, Failure> {
    let (options, out, stop) = (options.clone(), out.clone(), stop.clone());
    towpath::task::unblock(move || run::run(&options, &out, &stop))
}
