//! What the command tells its user, before anybody decided how it looks: `human` makes lines of it, `json` objects.
//!
//! The names of variants and fields are those of the JSON objects (`ev` and its fields), which scripts rely on: they
//! are added to, never changed.

#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Serialize, Serializer};
use towpath_diag::State as TcpState;

use super::text;
use crate::args::Mode;
use crate::exit::Exit;
use crate::kernel::{Path, SynOptions};
use crate::tasks::endpoint::Task;
use crate::watch::object::{Object, shown};
use crate::{tour, trace};

/// Something that happened.
#[derive(Debug, Serialize)]
#[serde(tag = "ev", rename_all = "kebab-case")]
pub(crate) enum Event<'a> {
    /// `serve` will not be found by `tasks`, and serves all the same.
    NoInspect { error: &'a str },
    /// `serve` waits for connections.
    Listening { addr: SocketAddr, mode: Mode },
    /// `serve`: connection `conn` was accepted.
    #[serde(rename = "connected")]
    Accepted {
        conn: u64,
        peer: SocketAddr,
        #[serde(skip_serializing_if = "Option::is_none")]
        syn: Option<SynOptions>,
    },
    /// `serve` wrote to `conn`.
    Send {
        conn: u64,
        #[serde(flatten)]
        data: Data<'a>,
    },
    /// `serve` read from `conn`.
    Read {
        conn: u64,
        #[serde(flatten)]
        data: Data<'a>,
    },
    /// `serve`: `conn` is over.
    Closed {
        conn: u64,
        #[serde(flatten)]
        why: &'a Ending,
        #[serde(flatten)]
        totals: Totals,
        #[serde(flatten)]
        path: Option<Path>,
    },
    /// `serve` could not accept; it tries again after `wait`.
    AcceptFailed {
        error: String,
        #[serde(rename = "wait_us", serialize_with = "micros")]
        wait: Duration,
        /// How many more failures there were since the last such event: at most one a second is told.
        untold: u64,
    },
    /// `serve` was asked to stop: `open` conversations may take `drain` to finish.
    Draining {
        open: usize,
        #[serde(rename = "drain_us", serialize_with = "micros")]
        drain: Duration,
    },
    /// `serve` has stopped.
    Drained { finished: usize, cut: usize },

    /// `dial` has a connection.
    #[serde(rename = "connected")]
    Dialled {
        local: SocketAddr,
        peer: SocketAddr,
        #[serde(rename = "took_us", serialize_with = "micros")]
        took: Duration,
    },
    /// `dial` received this. Only in JSON: a person gets the bytes themselves.
    Data {
        #[serde(flatten)]
        data: Data<'a>,
    },
    /// `dial`: the server has sent all it will ever send, and we read all of it.
    ServerClosed {
        #[serde(flatten)]
        totals: Totals,
        /// The connection stays open on our side (`--hold`).
        held: bool,
    },
    /// `dial` ended the connection itself.
    #[serde(rename = "closed")]
    HungUp {
        by: HungUp,
        #[serde(flatten)]
        totals: Totals,
    },
    /// `dial --repeat`: how it went.
    Repeated { dials: u32, failed: u32 },

    /// `watch`: a socket, with each look.
    Socket(&'a Object<'a>),
    /// `watch --events`: what will be told of, and how it is learnt.
    Watching {
        #[serde(skip_serializing_if = "str::is_empty")]
        filter: &'a str,
        source: From,
        #[serde(rename = "interval_us", serialize_with = "some_micros", skip_serializing_if = "Option::is_none")]
        interval: Option<Duration>,
        /// Why it is not exact.
        #[serde(skip_serializing_if = "Option::is_none")]
        why: Option<&'a str>,
    },
    /// `watch --events`: a socket changed its state.
    State {
        /// When that was (RFC 3339, UTC); `time` is when it is told.
        at: Timestamp,
        /// Whether it happened then; else it was only seen then.
        exact: bool,
        local: SocketAddr,
        #[serde(skip_serializing_if = "Option::is_none")]
        peer: Option<SocketAddr>,
        #[serde(serialize_with = "shown")]
        old: TcpState,
        #[serde(serialize_with = "shown")]
        new: TcpState,
        /// How long it had been in the old state.
        #[serde(rename = "after_us", serialize_with = "some_micros", skip_serializing_if = "Option::is_none")]
        after: Option<Duration>,
    },
    /// `watch`: segments were written to a file.
    Recorded { file: String, segments: u64, dropped: u64 },
    /// `watch --events`: so many changes, at least, came too fast to be told.
    Lost { changes: u64 },

    /// `trace` begins.
    Tracing {
        interface: &'a str,
        #[serde(skip_serializing_if = "str::is_empty")]
        filter: &'a str,
    },
    /// `trace`: the interface has been taken down; if it comes up again, the trace goes on.
    Down,
    /// `trace`: a segment; `time` is when it passed.
    Segment(Box<trace::object::Segment<'a>>),
    /// `trace`: a connection is over, or the capture is and this is where it stands; `time` is its latest segment's.
    Connection(Box<trace::object::Connection>),
    /// `trace`: so many segments were left out, for the output is too slow.
    NotShown { segments: u64 },
    /// `trace` ends.
    Traced {
        segments: u64,
        connections: u64,
        /// Packets that the kernel could not keep for us.
        #[serde(skip_serializing_if = "Option::is_none")]
        dropped: Option<u64>,
        #[serde(skip_serializing_if = "is_zero")]
        not_shown: u64,
        /// Connections whose end was left out.
        #[serde(skip_serializing_if = "is_zero")]
        ends_not_shown: u64,
        /// Packets that could not be read, and why the first could not.
        #[serde(skip_serializing_if = "is_zero")]
        unreadable: u64,
        #[serde(skip_serializing_if = "Option::is_none")]
        why: Option<String>,
        /// What was written.
        #[serde(skip_serializing_if = "Option::is_none")]
        file: Option<&'a str>,
    },
    /// `tasks`: the program that was asked. Only in JSON: a person gets a table.
    Program {
        pid: u32,
        program: &'a str,
        workers: usize,
        /// Workers that a task holds up, so that they told nothing of theirs.
        #[serde(skip_serializing_if = "<[_]>::is_empty")]
        silent: &'a [String],
        tasks: usize,
    },
    /// `tasks`: a task of the program `pid`. Only in JSON.
    Task {
        pid: u32,
        #[serde(flatten)]
        task: &'a Task,
    },

    /// `tour` begins.
    Touring {
        /// Nobody else is in its network.
        own_network: bool,
        /// Segments can be seen.
        segments: bool,
        /// Why it has no network of its own.
        #[serde(skip_serializing_if = "Option::is_none")]
        why: Option<&'a str>,
    },
    /// `tour`: a step begins; what will happen, in words.
    Step { step: u32, name: &'a str, text: &'a str },
    /// `tour`: what a task did.
    Deed {
        step: u32,
        #[serde(skip_serializing_if = "Option::is_none")]
        task: Option<u64>,
        /// The task's name.
        name: &'a str,
        #[serde(flatten)]
        deed: &'a tour::Deed,
    },
    /// `tour`: a task that cannot go on, and what it waits for.
    Parked {
        task: u64,
        name: &'a str,
        op: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        local: Option<SocketAddr>,
        #[serde(skip_serializing_if = "Option::is_none")]
        peer: Option<SocketAddr>,
        #[serde(rename = "waited_us", serialize_with = "micros")]
        waited: Duration,
        spawned_at: String,
    },
    /// `tour`: what there was to see in a step, in words.
    Remark { step: u32, text: &'a str },
    /// `tour --step`: a key is waited for, or a line.
    Key { next: &'a str, single: bool },
    /// `tour` is over, and all that could be seen was.
    Toured { segments: u64, next: &'a [&'a str] },

    /// The command fails, or one dial of several does.
    Error {
        error: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        hint: Option<&'a str>,
        #[serde(serialize_with = "code")]
        exit: Exit,
    },
}

impl Event<'_> {
    /// Whether this is what the command was run for, and goes to stdout, or commentary on it.
    pub(crate) fn is_data(&self) -> bool {
        matches!(
            self,
            Event::Accepted { .. }
                | Event::Send { .. }
                | Event::Read { .. }
                | Event::Closed { .. }
                | Event::Data { .. }
                | Event::Socket(_)
                | Event::State { .. }
                | Event::Segment(_)
                | Event::Connection(_)
                | Event::Toured { .. }
                | Event::Program { .. }
                | Event::Task { .. }
        )
    }
}

/// Bytes that passed, in one read or write.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Data<'a> {
    /// How many bytes the call moved.
    pub(crate) bytes: usize,
    /// What to show for it: without a character that is not whole yet, with what was held back before.
    pub(crate) shown: &'a [u8],
    /// The offset of the first byte shown, if a hex dump was asked for.
    pub(crate) hex: Option<u64>,
}

impl Serialize for Data<'_> {
    /// `bytes`, and `text` where that loses nothing, else `hex`: put together, the fields of all events are the stream.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct as _;
        let mut fields = serializer.serialize_struct("Data", 2)?;
        fields.serialize_field("bytes", &self.bytes)?;
        match std::str::from_utf8(self.shown) {
            Ok(text) if self.hex.is_none() => fields.serialize_field("text", text)?,
            _ => fields.serialize_field("hex", &text::hex(self.shown))?,
        }
        fields.end()
    }
}

/// How a conversation of `serve` came to its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "by", content = "error", rename_all = "kebab-case")]
pub(crate) enum Ending {
    /// The peer sent its FIN and we did not want anything more.
    Peer,
    /// The peer sent RST, or was gone when we wrote.
    Reset,
    /// Nothing arrived for the time of `--idle`.
    Idle,
    /// We were asked to stop and sent our FIN first; the peer then closed in time.
    Drain,
    /// We were asked to stop, and the time for draining was over.
    Cut,
    /// Something else, in words.
    Failed(String),
}

/// How changes of state are learnt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum From {
    /// The kernel tells each.
    Exact,
    /// By looking again and again.
    Sampled,
}

/// Why `dial` ended a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum HungUp {
    /// What was expected has come.
    Matched,
    /// Ctrl-C.
    Interrupt,
    /// `--hold`, and stdin has ended.
    EndOfInput,
}

/// What a connection amounted to.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Totals {
    #[serde(rename = "after_us", serialize_with = "micros")]
    pub(crate) after: Duration,
    #[serde(rename = "in_bytes")]
    pub(crate) bytes_in: u64,
    #[serde(rename = "out_bytes")]
    pub(crate) bytes_out: u64,
}

fn micros<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::try_from(time.as_micros()).unwrap_or(u64::MAX))
}

fn some_micros<S: Serializer>(time: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    time.map(|time| u64::try_from(time.as_micros()).unwrap_or(u64::MAX)).serialize(serializer)
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

fn code<S: Serializer>(exit: &Exit, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u8(exit.code())
}
