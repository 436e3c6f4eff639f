//! `towpath watch`: TCP sockets as they live.
//!
//! ```text
//!   filter, check      what was asked for: which sockets, and what must not hold
//!   source ──▶ table ──┐
//!   feed   ──▶ lives ──┼──▶ watcher ──▶ columns ──▶ plain  (snapshots)   ┐
//!   endpoints ▶ tasks ─┤       │               └──▶ screen (keys, draw) ├ the three views
//!   names ─────────────┘     order, object ───────▶ JSON   (snapshots)   │
//!                                                   events (a line each) ┘
//! ```
//!
//! `source` asks the kernel for sockets, `feed` has it tell of changes, `endpoints` asks programs for their tasks. `table` and
//! `lives` keep what is known, without a clock or a kernel of their own; `watcher` joins them. All of it runs on plain
//! threads, for it calls the kernel and the terminal, which may take their time; tasks only wait for its end.

pub(crate) mod check;
pub(crate) mod columns;
mod endpoints;
mod events;
mod feed;
pub(crate) mod filter;
mod lives;
pub(crate) mod names;
pub(crate) mod object;
mod order;
pub(crate) mod plain;
pub(crate) mod screen;
mod snapshots;
mod source;
mod table;
pub(crate) mod tasks;
mod wait;
pub(crate) mod watcher;

use signal_hook::consts::SIGINT;
use signal_hook::low_level::emulate_default_handler;
use towpath::sync::channel::Receiver;

use crate::args::{View, Watch};
use crate::exit::{Exit, Failure};
use crate::output::{Form, Output};

/// How a view ended.
#[derive(Debug)]
enum Ended {
    With(Exit),
    /// By this signal.
    Signal(i32),
}

/// Shows what was asked for until it is told to stop.
pub(crate) fn run(options: &Watch, out: &Output, stop: &Receiver<i32>) -> Result<Exit, Failure> {
    let ended = towpath::task::unblock({
        let (options, out, stop) = (options.clone(), out.clone(), stop.clone());
        move || match (options.view, out.form()) {
            (View::Events, _) => events::run(&options, &out, &stop),
            (View::Screen, Form::Human { stdout, .. }) => screen::run(&options, &out, stdout, &stop),
            (View::Screen | View::Snapshots, _) => snapshots::run(&options, &out, &stop),
        }
    });
    match ended? {
        Ended::With(exit) => Ok(exit),
        Ended::Signal(SIGINT) => Ok(Exit::Interrupted),
        Ended::Signal(signal) => {
            // Everything is put away, and so we end as whoever sent it expects: by it.
            out.finish();
            let _ = emulate_default_handler(signal);
            Ok(Exit::Interrupted)
        }
    }
}
