//! What the programs of `bench/` share: see `README.md` for how to use them.
//!
//! The servers (`raw_epoll`, `towpath_echo`) know nothing of being measured, and the load generator
//! (`load`) nothing of the server it talks to. `measure` starts both and watches the server from
//! outside, with the modules here:
//!
//! - [`process`] starts and ends them, and reads what `/proc` knows of them;
//! - [`perf`] attaches the kernel's counters to a running server;
//! - [`wrapped`] counts under callgrind or strace what those counters do not offer on a machine;
//! - [`figures`] turns rounds of figures into JSON lines and tables.

pub mod blocking;
pub mod edge;
pub mod figures;
pub mod perf;
pub mod plot;
pub mod process;
pub mod service;
pub mod spell;
pub mod wrapped;

/// An error that ends the program with a line of text.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;
