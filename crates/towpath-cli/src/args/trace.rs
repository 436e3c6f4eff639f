//! What was meant by `towpath trace`.

#![forbid(unsafe_code)]

use std::num::NonZeroU64;
use std::path::PathBuf;
use std::time::Duration;

use super::typed;
use crate::exit::{Exit, Failure};
use crate::trace::{Shape, Wanted};
use crate::watch::filter::{Filter, Unclear};

/// `towpath trace`
#[derive(Debug, Clone)]
pub(crate) struct Trace {
    pub(crate) from: Origin,
    pub(crate) wanted: Wanted,
    pub(crate) shape: Shape,
    /// Shows what segments carry.
    pub(crate) data: bool,
    /// Where to write the packets of what is told.
    pub(crate) write: Option<PathBuf>,
    /// How many segments to tell of.
    pub(crate) count: Option<NonZeroU64>,
    /// How long to go on.
    pub(crate) limit: Option<Duration>,
    /// Shows names instead of addresses.
    pub(crate) resolve: bool,
}

/// Where packets come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    /// An interface's name, or `any`.
    Interface(String),
    File(PathBuf),
    Stdin,
}

impl Trace {
    pub(super) fn meant(typed: typed::trace::Trace) -> Result<Trace, Failure> {
        let from = match typed.read {
            None => Origin::Interface(typed.interface),
            Some(path) if path.as_os_str() == "-" => Origin::Stdin,
            Some(path) => Origin::File(path),
        };
        if typed.write.as_ref().is_some_and(|path| path.as_os_str() == "-") {
            let failure = Failure::new(Exit::Usage, "-w -: stdout is for the trace itself");
            return Err(failure.hint("Name a file, or a named pipe (mkfifo)"));
        }
        Ok(Trace {
            wanted: Wanted { filter: filter(&typed.filter)?, conn: typed.conn.map(NonZeroU64::get) },
            shape: match from {
                _ if typed.lines => Shape::Lines,
                Origin::File(_) => Shape::LadderByLadder,
                Origin::Interface(_) | Origin::Stdin => Shape::Ladders,
            },
            from,
            data: typed.data,
            write: typed.write,
            count: typed.count,
            limit: typed.for_time,
            resolve: typed.resolve,
        })
    }
}

/// What a filter may look like here.
const FORMS: &str = "A filter is 8330, 127.0.0.1:8330, or port:8330 addr:10.0.0.0/8";

/// Ports and addresses, which segments have; they have no state, and their process is known too late.
fn filter(words: &[String]) -> Result<Filter, Failure> {
    let unclear = |e: Unclear| Failure::new(Exit::Usage, format!("filter {}", e.why)).hint(FORMS);
    let filter = words.join(" ").parse::<Filter>().map_err(unclear)?;
    if !filter.named_states().is_empty() || filter.needs_owners() {
        let what = format!("filter {filter}: segments are chosen by port: and addr: alone");
        return Err(Failure::new(Exit::Usage, what).hint("For states and processes: towpath watch"));
    }
    Ok(filter)
}
