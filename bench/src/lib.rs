//! What the programs of `bench/` share: see `README.md` for how to use them.
//!
//! The servers know nothing of being measured, and the load generator (`load`) nothing of the server it talks to;
//! [`service`] is what they agree on. `measure` starts both and watches the server from outside. The modules:
//!
//! - [`service`] says what a server does and which arguments it takes, [`blocking`] does it over `Read` and `Write`,
//!   and [`edge`] by hand, for the limits;
//! - [`process`] starts and ends programs, and reads what `/proc` knows of them;
//! - [`perf`] attaches the kernel's counters to a running server;
//! - [`wrapped`] counts under callgrind or strace what those counters do not offer on a machine;
//! - [`spell`] tells which rounds of a moody machine may be compared;
//! - [`figures`] turns rounds of figures into JSON lines and tables, [`plot`] into pictures.
//!
//! [`inproc`] is for the programs whose work needs no server: `inproc_towpath` and its peers, run by `inproc`.

pub mod blocking;
pub mod edge;
pub mod figures;
pub mod inproc;
pub mod perf;
pub mod plot;
pub mod process;
pub mod service;
pub mod spell;
pub mod wrapped;

/// An error that ends the program with a line of text.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;
