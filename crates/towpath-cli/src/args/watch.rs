//! What was meant by `towpath watch`.

#![forbid(unsafe_code)]

use std::io::{IsTerminal as _, stdout};
use std::time::Duration;

use super::typed;
use crate::exit::{Exit, Failure};
use crate::output::Form;
use crate::watch::check::Check;
use crate::watch::filter::Filter;

/// `towpath watch`
#[derive(Debug, Clone)]
pub(crate) struct Watch {
    pub(crate) filter: Filter,
    /// From one look to the next.
    pub(crate) interval: Duration,
    pub(crate) view: View,
    /// How long to go on.
    pub(crate) limit: Option<Duration>,
    /// None of these may hold.
    pub(crate) checks: Vec<Check>,
    /// Highlights what has ever changed.
    pub(crate) cumulative: bool,
    /// Shows names instead of addresses.
    pub(crate) resolve: bool,
}

/// How to show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum View {
    /// On the whole terminal, with keys.
    Screen,
    /// A table, or an object a socket, with each look: one, unless there is a limit in time.
    Snapshots,
    /// A line or an object for each change.
    Events,
}

impl Watch {
    pub(super) fn meant(typed: typed::watch::Watch, form: Form) -> Result<Watch, Failure> {
        let filter = typed.filter.join(" ").parse::<Filter>();
        let filter = filter.map_err(|e| Failure::new(Exit::Usage, format!("filter {e}")).hint(FILTER_FORMS))?;
        let view = if typed.events {
            View::Events
        } else if typed.once || matches!(form, Form::Json) || !stdout().is_terminal() || is_dumb() {
            View::Snapshots
        } else {
            View::Screen
        };
        let one_look = view == View::Snapshots && typed.for_time.is_none();
        if let Some(check) = typed.fail_if.iter().find(|check| one_look && check.needs_time()) {
            let what = format!("--fail-if '{check}': one look does not tell how long a state lasts");
            return Err(Failure::new(Exit::Usage, what).hint("To look for longer: --for 10s"));
        }
        Ok(Watch {
            filter,
            interval: typed.interval,
            view,
            limit: typed.for_time,
            checks: typed.fail_if,
            cumulative: typed.cumulative,
            resolve: typed.resolve,
        })
    }
}

/// Whether the terminal can do nothing but print.
fn is_dumb() -> bool {
    std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb")
}

/// What a filter may look like, for those who wrote another.
const FILTER_FORMS: &str =
    "A filter is 8330, 127.0.0.1:8330, or port:8330 state:close-wait addr:10.0.0.0/8 process:demo";
