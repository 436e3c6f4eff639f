//! Which sockets are looked at: the filter language of `watch`.
//!
//! A filter is words, each a key and what may stand there: `port:8330 state:close-wait`. Words of different keys all
//! hold; what is said several times of one key is a choice. What the kernel can pick by itself (`kernel`) it picks
//! before it tells us anything; `passes` is the whole truth, also for what the kernel knows nothing of, such as
//! processes and sockets that are gone.

#![forbid(unsafe_code)]

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::str::FromStr;

use regex::Regex;
use towpath_diag::{Owner, Prefix, PrefixError, State};

/// What a filter looks at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Subject<'a> {
    pub(crate) state: State,
    pub(crate) local: SocketAddr,
    pub(crate) peer: Option<SocketAddr>,
    /// The processes that have the socket; none where that is not known.
    pub(crate) owners: &'a [Owner],
}

/// Which sockets pass. The default: all.
#[derive(Debug, Clone, Default)]
pub(crate) struct Filter {
    /// As it was typed, with single spaces.
    text: String,
    ports: Vec<RangeInclusive<u16>>,
    addresses: Vec<Prefix>,
    /// One end with this address and this port.
    ends: Vec<SocketAddr>,
    states: Vec<State>,
    processes: Vec<Process>,
}

#[derive(Debug, Clone)]
enum Process {
    Id(u32),
    /// In its command.
    Word(String),
    Pattern(Regex),
}

impl Filter {
    /// Whether `subject` is one of those that are looked at.
    pub(crate) fn passes(&self, subject: &Subject<'_>) -> bool {
        (self.states.is_empty() || self.states.contains(&subject.state))
            && self.passes_by_address(subject)
            && self.passes_by_process(subject.owners)
    }

    /// Whether one of `owners` is such as is looked at, or any is.
    pub(crate) fn passes_by_process(&self, owners: &[Owner]) -> bool {
        self.processes.is_empty() || owners.iter().any(|owner| self.has_process(owner))
    }

    /// Whether the addresses and ports of `subject` are such as are looked at, whatever its state and its process.
    pub(crate) fn passes_by_address(&self, subject: &Subject<'_>) -> bool {
        let ends = || std::iter::once(subject.local).chain(subject.peer);
        (self.ports.is_empty() || ends().any(|end| self.ports.iter().any(|ports| ports.contains(&end.port()))))
            && (self.addresses.is_empty() || self.addresses.iter().any(|prefix| has_address(prefix, subject)))
            && (self.ends.is_empty() || self.ends.iter().any(|end| is_end(*end, subject)))
    }

    /// Whether one has to know who has a socket to know whether it passes.
    pub(crate) fn needs_owners(&self) -> bool {
        !self.processes.is_empty()
    }

    /// The states that it names; none: any.
    pub(crate) fn named_states(&self) -> &[State] {
        &self.states
    }

    /// Whether every socket passes.
    pub(crate) fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// The ports of which one end must have one; empty: any. An end that is typed with its address has its port here.
    pub(crate) fn ports(&self) -> Vec<RangeInclusive<u16>> {
        if self.ports.is_empty() {
            return self.ends.iter().map(|end| end.port()..=end.port()).collect();
        }
        self.ports.clone()
    }

    /// The addresses of which one end must have one; empty: any.
    pub(crate) fn addresses(&self) -> Vec<Prefix> {
        if self.addresses.is_empty() {
            return self.ends.iter().map(|end| Prefix::from(end.ip())).collect();
        }
        self.addresses.clone()
    }

    fn has_process(&self, owner: &Owner) -> bool {
        self.processes.iter().any(|process| match process {
            Process::Id(id) => *id == owner.pid,
            Process::Word(word) => owner.command.contains(word.as_str()),
            Process::Pattern(pattern) => pattern.is_match(&owner.command),
        })
    }
}

/// Whether one end of `subject` has one of these addresses; also if it listens at every address, and so there.
fn has_address(prefix: &Prefix, subject: &Subject<'_>) -> bool {
    let mut ends = std::iter::once(subject.local).chain(subject.peer);
    ends.any(|end| prefix.contains(end.ip()))
        || (subject.state == State::Listen && serves(subject.local, prefix.address()))
}

/// Whether one end of `subject` is at `end`; also if it listens at every address, and so at that one.
fn is_end(end: SocketAddr, subject: &Subject<'_>) -> bool {
    let same = |other: SocketAddr| (other.ip().to_canonical(), other.port()) == (end.ip(), end.port());
    same(subject.local)
        || subject.peer.is_some_and(same)
        || (subject.state == State::Listen && subject.local.port() == end.port() && serves(subject.local, end.ip()))
}

/// Whether a listener at `local` is one at every address, of `address`'s kind. (One that keeps to IPv6 looks the same
/// here, and is shown too: rather one row too many.)
fn serves(local: SocketAddr, address: IpAddr) -> bool {
    local.ip().is_unspecified() && (local.is_ipv6() || address.is_ipv4())
}

/// What is wrong with a filter: what was typed and why it cannot be meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unclear {
    /// Of any filter.
    pub(crate) why: String,
    /// What else there may be, where sockets are filtered.
    or: String,
}

impl fmt::Display for Unclear {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.why, self.or)
    }
}

impl FromStr for Filter {
    type Err = Unclear;

    fn from_str(typed: &str) -> Result<Filter, Unclear> {
        let mut filter = Filter::default();
        let words = words(typed);
        for word in &words {
            filter.add(word)?;
        }
        filter.text = words.join(" ");
        Ok(filter)
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Filter {
    fn add(&mut self, word: &str) -> Result<(), Unclear> {
        let name = word.strip_suffix(':').filter(|name| !name.is_empty()).unwrap_or(word);
        let unclear = |why: String| Unclear { why: format!("{name}: {why}"), or: String::new() };
        // An address, with its port or alone, is one whatever colons it has.
        if let Ok(end) = word.parse::<SocketAddr>() {
            self.ends.push(SocketAddr::new(end.ip().to_canonical(), end.port()));
            return Ok(());
        }
        if let Ok(prefix) = prefix(word) {
            self.addresses.push(prefix);
            return Ok(());
        }
        match word.split_once(':') {
            None if !word.contains(|c: char| c.is_ascii_digit()) => {
                let why = format!("{word:?} is no port, and names are not looked up: write its number");
                return Err(Unclear { or: format!(", or process:{word} for a program"), ..unclear(why) });
            }
            None | Some(("", _)) => self.ports.push(ports(word.trim_start_matches(':')).map_err(unclear)?),
            Some(("port", values)) => self.ports.extend(each(values, ports).map_err(unclear)?),
            Some(("state", values)) => self.states.extend(each(values, state).map_err(unclear)?),
            Some(("addr", values)) => self.addresses.extend(each(values, prefix).map_err(unclear)?),
            // A pattern may have commas of its own.
            Some(("process", value)) if value.starts_with('/') || value.is_empty() => {
                self.processes.push(process(value).map_err(unclear)?);
            }
            Some(("process", values)) => self.processes.extend(each(values, process).map_err(unclear)?),
            Some((key, port)) if port.parse::<u16>().is_ok() => {
                return Err(unclear(format!(
                    "no key is called {key}, and names of hosts are not looked up: write the address, as 127.0.0.1:{port}"
                )));
            }
            Some((key, _)) => {
                return Err(unclear(format!("no key is called {key}; there are port: state: addr: process:")));
            }
        }
        Ok(())
    }
}

/// The words of a filter: what is between spaces, but for those between the slashes of a pattern.
fn words(typed: &str) -> Vec<&str> {
    let mut words = Vec::new();
    let mut rest = typed.trim_start();
    while !rest.is_empty() {
        let spaces = || rest.match_indices(char::is_whitespace).map(|(at, _)| at).chain([rest.len()]);
        // A pattern ends with the first slash that ends a word.
        let pattern = rest.starts_with("process:/");
        let closed = |&end: &usize| !pattern || (end > "process:/".len() && rest[..end].ends_with('/'));
        let end = spaces().find(closed).or_else(|| spaces().next()).unwrap_or(rest.len());
        words.push(&rest[..end]);
        rest = rest[end..].trim_start();
    }
    words
}

/// What each of some values with commas between is.
fn each<T>(values: &str, read: impl Fn(&str) -> Result<T, String>) -> Result<Vec<T>, String> {
    let read = |value| if str::is_empty(value) { Err("something is missing".into()) } else { read(value) };
    values.split(',').map(read).collect()
}

/// `8330`, `8000-8100`.
fn ports(typed: &str) -> Result<RangeInclusive<u16>, String> {
    let port = |digits: &str| {
        let port = digits.parse::<u16>().ok().filter(|&port| port > 0);
        port.ok_or_else(|| format!("{digits:?} is no port; write 1 to 65535, or two of them as 8000-8100"))
    };
    let (from, to) = typed.split_once('-').unwrap_or((typed, typed));
    let ports = port(from)?..=port(to)?;
    if ports.is_empty() { Err("the first port is above the last".into()) } else { Ok(ports) }
}

/// The name of a state, as RFC 9293 has it or as the table shows it, in either case, with its dashes or without.
pub(crate) fn state(typed: &str) -> Result<State, String> {
    let bare = |name: &str| name.replace(['-', '_'], "");
    let name = bare(&typed.to_ascii_uppercase());
    let known = STATES.into_iter().find(|state| name == bare(&state.to_string()) || name == bare(state.short()));
    known.or(other_name(&name)).ok_or_else(|| {
        let names: Vec<_> = STATES.iter().map(|state| state.short().to_ascii_lowercase()).collect();
        format!("no state is called {typed}; there are {}", names.join(" "))
    })
}

/// What else people call a state, without dashes.
fn other_name(name: &str) -> Option<State> {
    Some(match name {
        "SYNRECEIVED" | "SYNRECV" | "SYNRCVD" => State::SynReceived,
        "LISTENING" => State::Listen,
        "CLOSE" => State::Closed,
        _ => return None,
    })
}

/// Every state that a row can have, in the order of a life.
pub(crate) const STATES: [State; 11] = [
    State::Listen,
    State::SynSent,
    State::SynReceived,
    State::Established,
    State::FinWait1,
    State::FinWait2,
    State::CloseWait,
    State::Closing,
    State::LastAck,
    State::TimeWait,
    State::Closed,
];

/// `8808`, `demo`, `/de.o/`.
fn process(typed: &str) -> Result<Process, String> {
    if typed.is_empty() {
        return Err("which process? write its number, a part of its name, or /a pattern/".into());
    }
    if let Ok(id) = typed.parse() {
        return Ok(Process::Id(id));
    }
    let Some(pattern) = typed.strip_prefix('/') else {
        return Ok(Process::Word(typed.to_owned()));
    };
    let pattern = pattern.strip_suffix('/').ok_or("the pattern has no second slash")?;
    let wrong =
        |e: regex::Error| e.to_string().lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
    Regex::new(pattern).map(Process::Pattern).map_err(wrong)
}

/// `127.0.0.1`, `10.0.0.0/8`, `::1`, `[::1]`, `fe80::/10`.
fn prefix(typed: &str) -> Result<Prefix, String> {
    let bare = typed.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(typed);
    bare.parse().map_err(|e| match e {
        PrefixError::Address(_) => {
            format!(
                "{bare:?} is no address; write 127.0.0.1, ::1, or a prefix such as 10.0.0.0/8 (names are not looked up)"
            )
        }
        other => other.to_string(),
    })
}

#[cfg(test)]
mod tests;
