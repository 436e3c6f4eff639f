//! `--fail-if`: a condition on what is watched, checked with every look at the sockets.
//!
//! ```text
//!   count(state:close-wait) > 0     how many sockets pass the filter
//!   age(state:syn-sent) > 5s        how long one of them has been in its state, at most
//!   recvq(port:8330) >= 1000        bytes in a receive queue, at most; a listener's: connections that wait
//!   sendq(port:8330) >= 1000        bytes in a send queue that nobody has acknowledged, at most
//!   close-wait > 5s                 short for age(state:close-wait) > 5s
//! ```

#![forbid(unsafe_code)]

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::filter::{self, Filter, Subject};
use crate::args::duration;
use crate::output::units;

/// What a check looks at of one socket.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Figures<'a> {
    pub(crate) subject: Subject<'a>,
    /// How long it has been in its state, as far as we have seen.
    pub(crate) age: Duration,
    pub(crate) recv_queue: u32,
    pub(crate) send_queue: u32,
}

/// A condition that is not to hold.
#[derive(Debug, Clone)]
pub(crate) struct Check {
    text: String,
    measure: Measure,
    filter: Filter,
    compare: Compare,
    bound: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Measure {
    Count,
    /// In microseconds.
    Age,
    RecvQueue,
    SendQueue,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Compare {
    Above,
    AtLeast,
    Below,
    AtMost,
    Equal,
    NotEqual,
}

/// A check over one look at the sockets, which are shown to it one by one.
#[derive(Debug)]
pub(crate) struct Checking<'a> {
    check: &'a Check,
    /// The number of those that passed, or the greatest value among them.
    value: Option<u64>,
    /// Whose value that is, in words.
    whose: Option<String>,
}

impl Check {
    /// Begins a look at the sockets.
    pub(crate) fn begin(&self) -> Checking<'_> {
        Checking { check: self, value: (self.measure == Measure::Count).then_some(0), whose: None }
    }

    /// Whether one has to know who has a socket.
    pub(crate) fn needs_owners(&self) -> bool {
        self.filter.needs_owners()
    }

    /// Whether one look is not enough, because times count from the first.
    pub(crate) fn needs_time(&self) -> bool {
        self.measure == Measure::Age
    }
}

impl Checking<'_> {
    /// Counts one socket, if it passes.
    pub(crate) fn see(&mut self, figures: &Figures<'_>) {
        if !self.check.filter.passes(&figures.subject) {
            return;
        }
        let value = match self.check.measure {
            Measure::Count => {
                self.value = self.value.map(|count| count + 1);
                return;
            }
            Measure::Age => u64::try_from(figures.age.as_micros()).unwrap_or(u64::MAX),
            Measure::RecvQueue => figures.recv_queue.into(),
            Measure::SendQueue => figures.send_queue.into(),
        };
        if self.value.is_none_or(|most| value > most) {
            self.value = Some(value);
            let Subject { state, local, peer, .. } = figures.subject;
            let peer = peer.map(|peer| format!(" with {peer}")).unwrap_or_default();
            self.whose = Some(format!("{} {local}{peer}", state.short()));
        }
    }

    /// What came out, if the condition holds: then the check has failed.
    pub(crate) fn failed(self) -> Option<String> {
        let value = self.value?;
        let bound = self.check.bound;
        let holds = match self.check.compare {
            Compare::Above => value > bound,
            Compare::AtLeast => value >= bound,
            Compare::Below => value < bound,
            Compare::AtMost => value <= bound,
            Compare::Equal => value == bound,
            Compare::NotEqual => value != bound,
        };
        let shown = match self.check.measure {
            Measure::Count if value == 1 => "1 socket".to_owned(),
            Measure::Count => format!("{value} sockets"),
            Measure::Age => units::time(Duration::from_micros(value), true),
            Measure::RecvQueue | Measure::SendQueue => value.to_string(),
        };
        let whose = self.whose.map(|whose| format!(" ({whose})")).unwrap_or_default();
        holds.then(|| format!("--fail-if '{}': {shown}{whose}", self.check.text))
    }
}

impl FromStr for Check {
    type Err = String;

    fn from_str(typed: &str) -> Result<Check, String> {
        let text = typed.trim();
        // Behind the filter, which may have these signs in a pattern.
        let from = text.rfind(')').unwrap_or(0);
        let at = text[from..]
            .find(['<', '>', '=', '!'])
            .map(|at| from + at)
            .ok_or_else(|| format!("nothing is compared in it; write e.g. {EXAMPLES}"))?;
        let (left, rest) = (text[..at].trim(), &text[at..]);
        let (compare, bound) = compare(rest)?;
        let (measure, filter) = measured(left)?;
        let bound = match measure {
            Measure::Age => u64::try_from(duration(bound)?.as_micros()).unwrap_or(u64::MAX),
            _ => bound.parse().map_err(|_| format!("{bound:?} is no whole number"))?,
        };
        Ok(Check { text: text.to_owned(), measure, filter, compare, bound })
    }
}

const EXAMPLES: &str = "count(state:close-wait)>0 or close-wait>5s";

fn measured(typed: &str) -> Result<(Measure, Filter), String> {
    let Some((name, rest)) = typed.split_once('(') else {
        let state = filter::state(typed).map_err(|_| {
            format!("{typed:?} is neither a state nor count(FILTER), age(FILTER), recvq(FILTER), sendq(FILTER)")
        })?;
        let filter = format!("state:{state}").parse::<Filter>().map_err(|e| e.to_string())?;
        return Ok((Measure::Age, filter));
    };
    let inner = rest.strip_suffix(')').ok_or("a bracket is not closed")?;
    let measure = match name.trim() {
        "count" => Measure::Count,
        "age" => Measure::Age,
        "recvq" => Measure::RecvQueue,
        "sendq" => Measure::SendQueue,
        other => return Err(format!("nothing is called {other:?}; there are count, age, recvq and sendq")),
    };
    Ok((measure, inner.parse::<Filter>().map_err(|e| e.to_string())?))
}

fn compare(typed: &str) -> Result<(Compare, &str), String> {
    let signs = [
        (">=", Compare::AtLeast),
        ("<=", Compare::AtMost),
        ("!=", Compare::NotEqual),
        ("==", Compare::Equal),
        (">", Compare::Above),
        ("<", Compare::Below),
        ("=", Compare::Equal),
    ];
    let found = signs.into_iter().find_map(|(sign, compare)| Some((compare, typed.strip_prefix(sign)?.trim())));
    match found {
        Some((_, "")) => Err("there is nothing to compare with".into()),
        Some(found) => Ok(found),
        None => Err("the signs are > >= < <= = !=".into()),
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests;
