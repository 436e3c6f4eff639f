//! Segments and connections as JSON. Names say the unit; what does not hold, or is not known, is left out.

#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Serialize, Serializer};
use towpath_capture::flow::{Counts, Flow, Side, Sides, State, Verdict};
use towpath_capture::segment::{Flags, Options};

use super::words::Told;
use crate::output::event::Data;

/// A segment.
#[derive(Debug, Serialize)]
pub(crate) struct Segment<'a> {
    /// The connection's number.
    conn: u64,
    from: SocketAddr,
    to: SocketAddr,
    /// Which side sent it: `client` or `server`.
    side: &'static str,
    /// The time since the connection's first segment.
    #[serde(rename = "since_us", serialize_with = "micros")]
    since: Duration,
    /// As `SYN,ACK`; `-` for none.
    flags: String,
    /// Counted from the sender's SYN.
    seq: i64,
    /// Counted from the peer's SYN.
    #[serde(skip_serializing_if = "Option::is_none")]
    ack: Option<i64>,
    seq_raw: u32,
    ack_raw: u32,
    /// How much data it carries.
    bytes: u32,
    /// The window that it grants; none where its scale is not known.
    #[serde(rename = "window_bytes", skip_serializing_if = "Option::is_none")]
    window: Option<u32>,
    window_raw: u16,
    #[serde(skip_serializing_if = "OptionsObject::is_empty")]
    options: OptionsObject,
    /// The states of both sides from now on.
    states: StatesObject,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    notes: Vec<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    interface: Option<u32>,
    /// What the capture says of it: whose it is.
    #[serde(skip_serializing_if = "str::is_empty")]
    comment: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<Data<'a>>,
}

#[derive(Debug, Serialize)]
struct StatesObject {
    client: &'static str,
    server: &'static str,
}

#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct OptionsObject {
    #[serde(skip_serializing_if = "Option::is_none")]
    mss: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    window_scale: Option<u8>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    sack_permitted: bool,
    /// What was received out of order, counted as `ack` is.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    sack: Vec<(i64, i64)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamps: Option<Timestamps>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fast_open_cookie_bytes: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mptcp_subtype: Option<u8>,
    #[serde(skip_serializing_if = "is_zero")]
    others: u8,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    malformed: bool,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Timestamps {
    value: u32,
    echo: u32,
}

/// A connection that is over, or where it stands when the capture ends.
#[derive(Debug, Serialize)]
pub(crate) struct Connection {
    conn: u64,
    client: SocketAddr,
    server: SocketAddr,
    #[serde(flatten)]
    verdict: VerdictObject,
    #[serde(rename = "handshake_us", serialize_with = "some_micros", skip_serializing_if = "Option::is_none")]
    handshake: Option<Duration>,
    /// From its first segment to its latest.
    #[serde(rename = "lasted_us", serialize_with = "micros")]
    lasted: Duration,
    #[serde(skip_serializing_if = "Option::is_none")]
    closed_first: Option<&'static str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    simultaneous_open: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    simultaneous_close: bool,
    states: StatesObject,
    sent: SentObject,
    /// Data, both ways.
    bytes: u64,
    retransmitted: u64,
    /// Packets that the capture has lost, of this connection or others; left out where it does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    dropped: Option<u64>,
}

#[derive(Debug, Serialize)]
#[serde(tag = "verdict", rename_all = "kebab-case")]
enum VerdictObject {
    Clean,
    Refused,
    NoAnswer { syns: u32 },
    Unfinished,
    HalfOpen { gone: &'static str },
    Reset { by: &'static str },
    StillOpen,
    Middle,
    Other,
}

#[derive(Debug, Serialize)]
struct SentObject {
    client: CountsObject,
    server: CountsObject,
}

/// What one side has sent, under the names that [`Counts`] has for it.
#[derive(Debug)]
struct CountsObject(Counts);

impl<'a> Segment<'a> {
    /// With what it carries, if `data`.
    pub(crate) fn new(told: &Told<'a>, data: bool) -> Segment<'a> {
        let (segment, step) = (told.segment, told.step);
        let payload = Data { bytes: segment.payload.len(), shown: segment.payload, hex: None };
        Segment {
            conn: step.flow.0,
            from: segment.from,
            to: segment.to,
            side: side(step.from),
            since: step.since,
            flags: segment.flags.to_string(),
            seq: step.seq,
            ack: step.ack,
            seq_raw: segment.seq,
            ack_raw: if segment.flags.contains(Flags::ACK) { segment.ack } else { 0 },
            bytes: step.len,
            window: step.window,
            window_raw: segment.window,
            options: options(&segment.options, step.ack, segment.ack),
            states: states(step.after),
            notes: step.notes.words().collect(),
            interface: segment.interface,
            comment: told.comment,
            payload: (data && !segment.payload.is_empty()).then_some(payload),
        }
    }
}

impl Connection {
    pub(crate) fn new(flow: &Flow, dropped: Option<u64>) -> Connection {
        Connection {
            conn: flow.id.0,
            client: flow.ends.client.addr,
            server: flow.ends.server.addr,
            verdict: match flow.verdict {
                Verdict::Clean => VerdictObject::Clean,
                Verdict::Refused => VerdictObject::Refused,
                Verdict::NoAnswer { syns } => VerdictObject::NoAnswer { syns },
                Verdict::Unfinished => VerdictObject::Unfinished,
                Verdict::HalfOpen { gone } => VerdictObject::HalfOpen { gone: side(gone) },
                Verdict::Reset { by } => VerdictObject::Reset { by: side(by) },
                Verdict::StillOpen => VerdictObject::StillOpen,
                Verdict::Middle => VerdictObject::Middle,
                _ => VerdictObject::Other,
            },
            handshake: flow.handshake,
            lasted: flow.latest.since(flow.began),
            closed_first: flow.closed_first.map(side),
            simultaneous_open: flow.simultaneous_open,
            simultaneous_close: flow.simultaneous_close,
            states: states(flow.ends.map(|end| end.state)),
            sent: SentObject {
                client: CountsObject(flow.ends.client.sent),
                server: CountsObject(flow.ends.server.sent),
            },
            bytes: flow.bytes(),
            retransmitted: flow.retransmissions(),
            dropped,
        }
    }
}

impl OptionsObject {
    fn is_empty(&self) -> bool {
        *self == OptionsObject::default()
    }
}

impl Serialize for CountsObject {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let sent = &self.0;
        let all = [("segments", sent.segments), ("bytes", sent.bytes), ("retransmissions", sent.retransmissions)];
        let rare = [
            ("retransmitted_bytes", sent.retransmitted_bytes),
            ("fast_retransmissions", sent.fast_retransmissions),
            ("timeout_retransmissions", sent.timeout_retransmissions),
            ("spurious_retransmissions", sent.spurious_retransmissions),
            ("out_of_order", sent.out_of_order),
            ("gaps", sent.gaps),
            ("unseen_acked", sent.unseen_acked),
            ("duplicate_acks", sent.duplicate_acks),
            ("sacks", sent.sacks),
            ("duplicate_sacks", sent.duplicate_sacks),
            ("keep_alives", sent.keep_alives),
            ("zero_windows", sent.zero_windows),
            ("window_probes", sent.window_probes),
            ("window_fulls", sent.window_fulls),
            ("congestion_marks", sent.congestion_marks),
            ("congestion_echoes", sent.congestion_echoes),
            ("congestion_reductions", sent.congestion_reductions),
            ("pushes", sent.pushes),
            ("urgents", sent.urgents),
            ("syns", sent.syns),
            ("fins", sent.fins),
            ("resets", sent.resets),
            ("strays", sent.strays),
            ("copies", sent.copies),
        ];
        serializer.collect_map(all.into_iter().chain(rare.into_iter().filter(|(_, count)| *count > 0)))
    }
}

fn options(options: &Options, ack: Option<i64>, raw: u32) -> OptionsObject {
    let relative = |number: u32| ack.unwrap_or(0) + i64::from(number.wrapping_sub(raw).cast_signed());
    OptionsObject {
        mss: options.mss,
        window_scale: options.window_scale,
        sack_permitted: options.sack_permitted,
        sack: options.sack.iter().map(|&(from, to)| (relative(from), relative(to))).collect(),
        timestamps: options.timestamps.map(|ts| Timestamps { value: ts.value, echo: ts.echo }),
        fast_open_cookie_bytes: options.fast_open,
        mptcp_subtype: options.mptcp,
        others: options.others,
        malformed: options.malformed,
    }
}

fn states(states: Sides<State>) -> StatesObject {
    StatesObject { client: state(states.client), server: state(states.server) }
}

/// A state under the name that RFC 9293 gives it, as `watch` has it too.
fn state(state: State) -> &'static str {
    match state {
        State::Unknown => "UNKNOWN",
        State::SynReceived => "SYN-RECEIVED",
        State::Established => "ESTABLISHED",
        other => other.name(),
    }
}

fn side(side: Side) -> &'static str {
    match side {
        Side::Client => "client",
        Side::Server => "server",
    }
}

fn is_zero(count: &u8) -> bool {
    *count == 0
}

fn micros<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    some_micros(&Some(*time), serializer)
}

fn some_micros<S: Serializer>(time: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    time.map(|time| u64::try_from(time.as_micros()).unwrap_or(u64::MAX)).serialize(serializer)
}
