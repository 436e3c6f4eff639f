//! What the stress did, and how often: each kind of event has a counter, and one that stayed at 0 fails the run.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! events {
    ($($event:ident $name:literal)*) => {
        /// Something that happened.
        #[derive(Clone, Copy, Debug)]
        pub(crate) enum Did { $($event),* }

        const NAMES: &[&str] = &[$($name),*];
        static COUNTS: [AtomicU64; NAMES.len()] = [const { AtomicU64::new(0) }; NAMES.len()];
    };
}

events! {
    Read "reads"
    ShortRead "short reads"
    OneByteRead "one-byte reads"
    VectoredRead "vectored reads"
    Peek "peeks"
    EndOfFile "ends of file"
    Write "writes"
    ShortWrite "short writes"
    OneByteWrite "one-byte writes"
    VectoredWrite "vectored writes"
    WholeWrite "write_all calls"
    ReadTimedOut "reads timed out"
    WriteTimedOut "writes timed out"
    AcceptTimedOut "accepts timed out"
    ConnectTimedOut "connects timed out"
    DeadlineEarlier "deadlines moved earlier"
    DeadlineLater "deadlines moved later"
    DeadlineCleared "deadlines cleared"
    DeadlinePast "deadlines set in the past"
    ReadClosed "reads ended by a close"
    WriteClosed "writes ended by a close"
    AcceptClosed "accepts ended by a close"
    ConnectClosed "connects ended by the listener's close"
    ReadReset "reads ended by a reset"
    WriteReset "writes ended by a reset"
    Reset "resets sent"
    HalfClose "directions shut down"
    Urgent "urgent bytes sent"
    UrgentRead "urgent bytes read"
    Accept "accepts"
    Connect "connects"
    Refused "connects refused"
    LateConnect "connects that waited for the backlog"
    Clone "handles cloned"
    Split "sockets split and reunited"
    Handed "sockets handed on"
    IntoStd "sockets given to std and back"
    Busy "sockets with clones refused to std"
    WouldBlock "calls that would have blocked"
    Orphaned "sockets left by a runtime that ended"
    Message "messages received"
    SendTimedOut "sends timed out"
    RecvTimedOut "receives timed out"
    Full "sends that found no room"
    Empty "receives that found nothing"
    Returned "messages handed back"
    SelectRecv "selects ended by a receive"
    SelectSend "selects ended by a send"
    SelectJoin "selects ended by a join"
    SelectTimeout "selects timed out"
    SelectDefault "selects that did not wait"
    Joined "tasks joined"
    Panicked "tasks that panicked"
    Refusal "waits refused to panicking tasks"
    Detached "tasks let go"
    Local "local tasks"
    Slept "sleeps"
    Unblocked "calls on the blocking pool"
    Deep "deep calls"
    Runtime "runtimes started and shut down"
    Drained "servers drained"
    OnThread "actors on plain threads"
    OnTask "actors in tasks"
}

pub(crate) fn did(event: Did) {
    COUNTS[event as usize].fetch_add(1, Ordering::Relaxed);
}

/// Everything and how often, and the names of what never happened.
pub(crate) fn table() -> (String, Vec<&'static str>) {
    let counts: Vec<_> =
        NAMES.iter().zip(&COUNTS).map(|(name, count)| (*name, count.load(Ordering::Relaxed))).collect();
    let lines: Vec<_> = counts.iter().map(|(name, count)| format!("  {count:>12}  {name:<40}")).collect();
    let half = lines.len().div_ceil(2);
    let rows: Vec<_> = (0..half)
        .map(|row| format!("{}{}", lines[row], lines.get(row + half).map_or("", |line| line.trim_end())))
        .collect();
    let never = counts.iter().filter(|(_, count)| *count == 0).map(|(name, _)| *name).collect();
    (rows.join("\n"), never)
}
