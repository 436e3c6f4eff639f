//! A socket as JSON: everything that is known, under names that say the unit, and nothing where nothing is known.
//!
//! `info` are the fields of the kernel's `tcp_info` under its own names (linux/tcp.h, and `towpath_diag::TcpInfo` for what
//! they mean), times with `_us`; `memory` is what `ss` calls skmem, in bytes.

#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::time::Duration;

use serde::ser::SerializeMap as _;
use serde::{Serialize, Serializer};
use towpath_diag::{
    CaState, Family, Memory, Model, Options, Owner, Shutdown, Socket, State, TcpInfo, Timer, TimerKind, Value,
};

use super::table::{Moment, Since};
use super::tasks::{Task, Users};

/// A socket, with all that is known of it.
#[derive(Debug, Serialize)]
pub(crate) struct Object<'a> {
    #[serde(serialize_with = "shown")]
    state: State,
    /// How long it has been in its state.
    #[serde(rename = "for_us", serialize_with = "micros", skip_serializing_if = "Option::is_none")]
    lasted: Option<Duration>,
    /// The same, if it was in it before we looked.
    #[serde(rename = "for_at_least_us", serialize_with = "micros", skip_serializing_if = "Option::is_none")]
    lasted_at_least: Option<Duration>,
    family: &'static str,
    local: SocketAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer: Option<SocketAddr>,
    /// The index of the interface that it is bound to.
    #[serde(skip_serializing_if = "Option::is_none")]
    interface: Option<u32>,
    cookie: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    inode: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    uid: Option<u32>,
    #[serde(flatten)]
    queues: Option<Queues>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timer: Option<TimerObject>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    shutdown: Vec<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    v6only: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    congestion: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<ModelObject>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tos: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    traffic_class: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    class: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mark: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cgroup: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory: Option<MemoryObject>,
    #[serde(skip_serializing_if = "Option::is_none")]
    info: Option<Info<'a>>,
    owners: Vec<OwnerObject<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tasks: Vec<TaskObject<'a>>,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Queues {
    /// Of a listener: connections that wait for accept, and how many may.
    Connections { accept_queue: u32, backlog: u32 },
    Bytes {
        #[serde(rename = "recv_queue_bytes")]
        received: u32,
        #[serde(rename = "send_queue_bytes")]
        sent: u32,
    },
}

#[derive(Debug, Serialize)]
struct TimerObject {
    kind: &'static str,
    #[serde(rename = "expires_us", serialize_with = "super::object::micros_of")]
    expires: Duration,
    retransmits: u8,
}

#[derive(Debug, Serialize)]
struct OwnerObject<'a> {
    pid: u32,
    command: &'a str,
    fd: u32,
}

#[derive(Debug, Serialize)]
struct TaskObject<'a> {
    pid: u32,
    id: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    state: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    op: Option<&'a str>,
    #[serde(rename = "since_us", serialize_with = "super::object::micros_of")]
    since: Duration,
    spawned_at: &'a str,
}

#[derive(Debug, Serialize)]
struct MemoryObject {
    receive_allocated: u32,
    receive_limit: u32,
    send_allocated: u32,
    send_limit: u32,
    forward_allocated: u32,
    send_queued: u32,
    option_memory: u32,
    backlog: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    drops: Option<u32>,
}

#[derive(Debug, Serialize)]
#[serde(tag = "of", rename_all = "kebab-case")]
enum ModelObject {
    Vegas { enabled: bool, rtt_count: u32, rtt_us: u64, min_rtt_us: u64 },
    Dctcp { enabled: bool, ce_state: bool, alpha: u32, acked_marked_bytes: u32, acked_bytes: u32 },
    Bbr { bandwidth_bytes_per_s: u64, min_rtt_us: u64, pacing_gain: u32, cwnd_gain: u32 },
}

impl<'a> Object<'a> {
    pub(crate) fn new(
        socket: &'a Socket,
        now: Moment,
        since: Since,
        owners: &'a [Owner],
        tasks: Users<'a>,
    ) -> Object<'a> {
        let lasted = now.saturating_sub(since.at);
        let time_wait = socket.state == State::TimeWait;
        Object {
            state: socket.state,
            lasted: since.known.then_some(lasted),
            lasted_at_least: (!since.known && !lasted.is_zero()).then_some(lasted),
            family: if socket.family == Family::V4 { "ipv4" } else { "ipv6" },
            local: socket.local,
            peer: socket.peer,
            interface: Some(socket.interface).filter(|&index| index != 0),
            cookie: socket.cookie,
            inode: socket.inode,
            uid: (!time_wait).then_some(socket.uid),
            queues: match socket.state {
                State::TimeWait => None,
                State::Listen => {
                    Some(Queues::Connections { accept_queue: socket.receive_queue, backlog: socket.send_queue })
                }
                _ => Some(Queues::Bytes { received: socket.receive_queue, sent: socket.send_queue }),
            },
            timer: socket.timer.as_ref().map(timer),
            shutdown: socket.shutdown.map(directions).unwrap_or_default(),
            v6only: socket.v6only,
            congestion: socket.congestion.as_deref(),
            model: socket.model.and_then(model),
            tos: socket.tos,
            traffic_class: socket.traffic_class,
            class: socket.class,
            mark: socket.mark,
            cgroup: socket.cgroup,
            memory: socket.memory.as_ref().map(memory),
            // A listener's says only how its queue is, under other names.
            info: socket.info.as_ref().filter(|_| socket.state != State::Listen).map(Info),
            owners: owners.iter().map(owner).collect(),
            tasks: tasks.iter().map(|task| task_object(task, now)).collect(),
        }
    }
}

fn owner(owner: &Owner) -> OwnerObject<'_> {
    OwnerObject { pid: owner.pid, command: &owner.command, fd: owner.fd }
}

fn task_object(task: &Task, now: Moment) -> TaskObject<'_> {
    TaskObject {
        pid: task.pid,
        id: task.id,
        name: task.name.as_deref(),
        state: &task.state,
        op: task.op.as_deref(),
        since: now.saturating_sub(task.since),
        spawned_at: &task.spawned_at,
    }
}

fn timer(timer: &Timer) -> TimerObject {
    TimerObject { kind: timer_name(timer.kind), expires: timer.expires, retransmits: timer.retransmits }
}

/// What a timer is for, in a word.
pub(crate) fn timer_name(kind: TimerKind) -> &'static str {
    match kind {
        TimerKind::Retransmit => "retransmit",
        TimerKind::Keepalive => "keepalive",
        TimerKind::TimeWait => "time-wait",
        TimerKind::Probe => "probe",
        _ => "other",
    }
}

fn directions(shutdown: Shutdown) -> Vec<&'static str> {
    let named = [(Shutdown::RECEIVE, "receive"), (Shutdown::SEND, "send")];
    named.into_iter().filter(|(direction, _)| shutdown.contains(*direction)).map(|(_, name)| name).collect()
}

fn memory(memory: &Memory) -> MemoryObject {
    MemoryObject {
        receive_allocated: memory.receive_allocated,
        receive_limit: memory.receive_limit,
        send_allocated: memory.send_allocated,
        send_limit: memory.send_limit,
        forward_allocated: memory.forward_allocated,
        send_queued: memory.send_queued,
        option_memory: memory.option_memory,
        backlog: memory.backlog,
        drops: memory.drops,
    }
}

fn model(model: Model) -> Option<ModelObject> {
    let us = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    Some(match model {
        Model::Vegas { enabled, rtt_count, rtt, min_rtt } => {
            ModelObject::Vegas { enabled, rtt_count, rtt_us: us(rtt), min_rtt_us: us(min_rtt) }
        }
        Model::Dctcp { enabled, ce_state, alpha, acked_marked, acked } => {
            ModelObject::Dctcp { enabled, ce_state, alpha, acked_marked_bytes: acked_marked, acked_bytes: acked }
        }
        Model::Bbr { bandwidth, min_rtt, pacing_gain, cwnd_gain } => {
            ModelObject::Bbr { bandwidth_bytes_per_s: bandwidth, min_rtt_us: us(min_rtt), pacing_gain, cwnd_gain }
        }
        _ => return None,
    })
}

/// `tcp_info`, field by field.
#[derive(Debug)]
struct Info<'a>(&'a TcpInfo);

impl Serialize for Info<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (name, value) in self.0.fields() {
            match value {
                Value::Number(number) => map.serialize_entry(name, &number)?,
                Value::Time(time) => map.serialize_entry(&format!("{name}_us"), &time.as_micros())?,
                Value::Flag(flag) => map.serialize_entry(name, &flag)?,
                Value::Options(options) => map.serialize_entry(name, &option_names(options))?,
                Value::CaState(state) => map.serialize_entry(name, ca_state(state))?,
                _ => {}
            }
        }
        map.end()
    }
}

/// What the handshake agreed on, in the words of `ss`.
pub(crate) fn option_names(options: Options) -> Vec<&'static str> {
    let named = [
        (Options::TIMESTAMPS, "ts"),
        (Options::SACK, "sack"),
        (Options::WINDOW_SCALE, "wscale"),
        (Options::ECN, "ecn"),
        (Options::ECN_SEEN, "ecnseen"),
        (Options::SYN_DATA, "fastopen"),
        (Options::MICROSECOND_TIMESTAMPS, "ts_us"),
        (Options::FAST_OPEN_CHILD, "fastopen_child"),
    ];
    named.into_iter().filter(|(option, _)| options.contains(*option)).map(|(_, name)| name).collect()
}

/// What congestion control is doing, in a word.
pub(crate) fn ca_state(state: CaState) -> &'static str {
    match state {
        CaState::Open => "open",
        CaState::Disorder => "disorder",
        CaState::CongestionWindowReduced => "cwr",
        CaState::Recovery => "recovery",
        CaState::Loss => "loss",
        _ => "other",
    }
}

/// A state under the name that RFC 9293 gives it.
pub(crate) fn shown<S: Serializer>(state: &State, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(state)
}

fn micros<S: Serializer>(time: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    time.map(|time| u64::try_from(time.as_micros()).unwrap_or(u64::MAX)).serialize(serializer)
}

fn micros_of<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    micros(&Some(*time), serializer)
}
