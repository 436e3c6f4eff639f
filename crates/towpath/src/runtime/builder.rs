//! [`Builder`]: what a runtime starts with, from the program, the environment, or the machine, in this order.

use std::env;
use std::io;
use std::thread;

use super::{Inspect, Runtime, Settings, stack};
use crate::poller::PollerKind;

/// More workers than any machine has cores; a larger number is a slip.
const MAX_WORKERS: usize = 1024;

/// Settings of a new [`Runtime`].
///
/// What is not set here comes from the environment (`TOWPATH_WORKERS`, `TOWPATH_STACK`, `TOWPATH_POLLER`,
/// `TOWPATH_INSPECT`), and what is
/// not there either has a default.
///
/// ```
/// let runtime = towpath::Runtime::builder().workers(1).stack_size(64 * 1024).name("echo").build()?;
/// # drop(runtime);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "a builder does nothing until `build`"]
pub struct Builder {
    workers: Option<usize>,
    stack_size: Option<usize>,
    poller: Option<PollerKind>,
    name: Option<String>,
    inspect: Option<bool>,
}

impl Builder {
    /// The number of workers, 1 to 1,024. By default `TOWPATH_WORKERS`, or one for each core that the process may use.
    pub fn workers(mut self, workers: usize) -> Builder {
        self.workers = Some(workers);
        self
    }

    /// The address space of each task's stack in bytes, guard included, rounded up to whole pages; only pages that are
    /// touched cost memory. By default `TOWPATH_STACK` (bytes, or with K or M), or 256 KiB; at least 32 KiB.
    pub fn stack_size(mut self, bytes: usize) -> Builder {
        self.stack_size = Some(bytes);
        self
    }

    /// The poller that workers wait on. By default `TOWPATH_POLLER` (`os` or `uring`), or the operating system's. Where
    /// the one asked for cannot be had, that is logged, and it is the operating system's; see [`Runtime::poller`].
    pub fn poller(mut self, kind: PollerKind) -> Builder {
        self.poller = Some(kind);
        self
    }

    /// The first part of the names of the worker threads: `towpath` unless set, as in `towpath-0`.
    pub fn name(mut self, name: impl Into<String>) -> Builder {
        self.name = Some(name.into());
        self
    }

    /// Whether this program's user, and root, may ask for the runtime's tasks while it runs, as `towpath tasks` does. By
    /// default `TOWPATH_INSPECT` (1 or 0), or not.
    ///
    /// They ask at a Unix socket, `PID.sock` in `$XDG_RUNTIME_DIR/towpath` or, where that variable names no folder of this
    /// user's, in `towpath-UID` in the temporary folder; the folder must be this user's and closed to others (mode 700). A
    /// line `{"v":1,"dump":{"backtrace":false}}` is answered as [`TaskDump::write_json`] writes, or by a line
    /// `{"v":1,"error":"…"}`. A thread of its own answers, so that no task can hold it up. Several runtimes of a process
    /// share one socket, which goes when the last of them shuts down or the process exits.
    ///
    /// [`TaskDump::write_json`]: crate::task::TaskDump::write_json
    pub fn inspect(mut self, on: bool) -> Builder {
        self.inspect = Some(on);
        self
    }

    /// Starts the runtime.
    ///
    /// # Errors
    /// `InvalidInput` for a setting out of range, naming the variable if it came from the environment; otherwise what the
    /// system answered when a worker's thread or poller was made. Also why there can be no socket for
    /// [`inspect`](Builder::inspect), if that was asked for here; if the environment asked, the reason is logged.
    pub fn build(self) -> io::Result<Runtime> {
        let (runtime, refusals) = self.start()?;
        refusals.iter().for_each(|refusal| log::warn!("{refusal}"));
        Ok(runtime)
    }

    /// The same, and what to log.
    pub(super) fn start(self) -> io::Result<(Runtime, Vec<String>)> {
        Runtime::start(self.settings(|name| env::var(name).ok())?)
    }

    fn settings(self, variable: impl Fn(&str) -> Option<String>) -> io::Result<Settings> {
        let environment = |name: &str| variable(name).filter(|value| !value.is_empty());
        let workers = match (self.workers, environment("TOWPATH_WORKERS")) {
            (Some(workers), _) => workers_in_range(Some(workers)).ok_or_else(|| wrong("workers", workers, WORKERS))?,
            (None, Some(text)) => {
                workers_in_range(text.parse().ok()).ok_or_else(|| wrong("TOWPATH_WORKERS", text, WORKERS))?
            }
            (None, None) => thread::available_parallelism().map_or(1, usize::from).min(MAX_WORKERS),
        };
        let stack_size = match (self.stack_size, environment("TOWPATH_STACK")) {
            (Some(bytes), _) => stack::check_size(bytes).map_err(|why| wrong("stack_size", bytes, why))?,
            (None, Some(text)) => {
                let bytes = parse_size(&text).ok_or_else(|| wrong("TOWPATH_STACK", &text, "a size such as 256K"))?;
                stack::check_size(bytes).map_err(|why| wrong("TOWPATH_STACK", &text, why))?
            }
            (None, None) => stack::DEFAULT_SIZE,
        };
        let poller = match (self.poller, environment("TOWPATH_POLLER")) {
            (Some(kind), _) => kind,
            (None, Some(text)) => text.parse().map_err(|why| wrong("TOWPATH_POLLER", &text, why))?,
            (None, None) => PollerKind::default(),
        };
        let inspect = match (self.inspect, environment("TOWPATH_INSPECT").as_deref()) {
            (Some(true), _) => Inspect::Required,
            (None, Some("1")) => Inspect::Wished,
            (Some(false), _) | (None, None | Some("0")) => Inspect::No,
            (None, Some(text)) => return Err(wrong("TOWPATH_INSPECT", text, "1 or 0")),
        };
        Ok(Settings { workers, stack_size, poller, name: self.name.unwrap_or_else(|| "towpath".to_owned()), inspect })
    }
}

const WORKERS: &str = "a number from 1 to 1024";

fn workers_in_range(workers: Option<usize>) -> Option<usize> {
    workers.filter(|workers| (1..=MAX_WORKERS).contains(workers))
}

fn wrong(what: &str, value: impl std::fmt::Display, wanted: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("{what}={value}: {wanted}"))
}

/// Bytes, or with a K or an M behind it KiB or MiB.
fn parse_size(text: &str) -> Option<usize> {
    let (digits, unit) = match text.as_bytes().last()? {
        b'k' | b'K' => (&text[..text.len() - 1], 1 << 10),
        b'm' | b'M' => (&text[..text.len() - 1], 1 << 20),
        _ => (text, 1),
    };
    digits.parse::<usize>().ok()?.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(builder: Builder, variables: &[(&str, &str)]) -> io::Result<Settings> {
        builder.settings(|name| variables.iter().find(|v| v.0 == name).map(|v| v.1.to_owned()))
    }

    #[test]
    fn what_the_program_sets_wins_over_the_environment() {
        let builder = Runtime::builder().workers(3).stack_size(64 << 10);
        let set = settings(builder, &[("TOWPATH_WORKERS", "5"), ("TOWPATH_STACK", "1M")]).expect("good settings");
        assert_eq!((set.workers, set.stack_size), (3, 64 << 10));
        let set =
            settings(Builder::default(), &[("TOWPATH_WORKERS", "5"), ("TOWPATH_STACK", "1M")]).expect("good settings");
        assert_eq!((set.workers, set.stack_size), (5, 1 << 20));
    }

    #[test]
    fn a_wrong_setting_is_named() {
        let text = |variables: &[(&str, &str)]| settings(Builder::default(), variables).expect_err("bad").to_string();
        assert_eq!(text(&[("TOWPATH_WORKERS", "many")]), "TOWPATH_WORKERS=many: a number from 1 to 1024");
        assert_eq!(text(&[("TOWPATH_WORKERS", "0")]), "TOWPATH_WORKERS=0: a number from 1 to 1024");
        assert_eq!(text(&[("TOWPATH_STACK", "x")]), "TOWPATH_STACK=x: a size such as 256K");
        assert!(text(&[("TOWPATH_STACK", "1K")]).starts_with("TOWPATH_STACK=1K: a stack of 1024 bytes is too small"));
        assert!(text(&[("TOWPATH_POLLER", "kqueue")]).starts_with("TOWPATH_POLLER=kqueue: unknown poller"));
        assert_eq!(text(&[("TOWPATH_INSPECT", "yes")]), "TOWPATH_INSPECT=yes: 1 or 0");
        let zero = settings(Runtime::builder().workers(0), &[]).expect_err("none").to_string();
        assert_eq!(zero, "workers=0: a number from 1 to 1024");
    }
}
