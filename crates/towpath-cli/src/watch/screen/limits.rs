//! What keeps a connection from sending faster.
//!
//! The kernel counts how long there was something to send (busy), and how much of that it was held up by the peer's window
//! or by our own send buffer (`tcp_info`, Linux 4.10). The rest of the busy time it waited for the network: for
//! acknowledgements, as many segments being under way as the congestion window allows, or for the time of the next one.
//! While it is not busy, it is the program that has nothing to send.

#![forbid(unsafe_code)]

use std::time::Duration;

use towpath_diag::{CaState, Socket, TcpInfo, TimerKind};

/// What limits it at this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Limit {
    /// There is nothing to send.
    Program,
    /// The peer's window is closed, or filled.
    PeerWindow,
    /// Segments were lost and are sent again.
    Loss,
    /// The congestion window is filled.
    CongestionWindow,
    /// The send buffer is full, and does not fill the windows.
    SendBuffer,
    /// All that there is to send is under way.
    Acknowledgement,
}

/// How the busy time was spent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shares {
    pub(super) busy: Duration,
    pub(super) peer_window: Duration,
    pub(super) send_buffer: Duration,
}

impl Limit {
    pub(super) fn of(socket: &Socket) -> Option<Limit> {
        let info = socket.info.as_ref()?;
        Some(if socket.timer.is_some_and(|timer| timer.kind == TimerKind::Probe) {
            Limit::PeerWindow
        } else if socket.send_queue == 0 {
            Limit::Program
        } else if matches!(info.ca_state(), Some(CaState::Loss | CaState::Recovery)) {
            Limit::Loss
        } else if info.notsent_bytes().is_none_or(|bytes| bytes == 0) {
            Limit::Acknowledgement
        } else if fills_peer_window(socket, info) {
            Limit::PeerWindow
        } else if info.unacked() >= info.snd_cwnd() {
            Limit::CongestionWindow
        } else if socket.memory.is_some_and(|memory| memory.send_queued >= memory.send_limit) {
            Limit::SendBuffer
        } else {
            Limit::Acknowledgement
        })
    }

    pub(super) fn text(self) -> &'static str {
        match self {
            Limit::Program => "the program: it has nothing to send",
            Limit::PeerWindow => "the peer's window: its program does not read as fast as this one writes",
            Limit::Loss => "the network: segments were lost and are sent again",
            Limit::CongestionWindow => "the network: as much is under way as the congestion window allows",
            Limit::SendBuffer => "the send buffer (SO_SNDBUF): it holds less than the path takes",
            Limit::Acknowledgement => "the round trip: all that there is to send is under way",
        }
    }
}

/// Whether one segment more would not fit into the window that the peer announced.
fn fills_peer_window(socket: &Socket, info: &TcpInfo) -> bool {
    let (Some(window), Some(not_sent), Some(mss)) = (info.snd_wnd(), info.notsent_bytes(), info.snd_mss()) else {
        return false;
    };
    socket.send_queue.saturating_sub(not_sent).saturating_add(mss) > window
}

impl Shares {
    /// Over the whole life.
    pub(super) fn of(info: &TcpInfo) -> Option<Shares> {
        let shares =
            Shares { busy: info.busy_time()?, peer_window: info.rwnd_limited()?, send_buffer: info.sndbuf_limited()? };
        (!shares.busy.is_zero()).then_some(shares)
    }

    /// From `before` until `now`.
    pub(super) fn between(before: &TcpInfo, now: &TcpInfo) -> Option<Shares> {
        let now = Shares::of(now)?;
        let Some(before) = Shares::of(before) else { return Some(now) };
        let shares = Shares {
            busy: now.busy.saturating_sub(before.busy),
            peer_window: now.peer_window.saturating_sub(before.peer_window),
            send_buffer: now.send_buffer.saturating_sub(before.send_buffer),
        };
        (!shares.busy.is_zero()).then_some(shares)
    }

    /// Of the busy time, in percent: held up by the peer's window, by the send buffer, by the network.
    pub(super) fn percent(self) -> [u64; 3] {
        let share = |part: Duration| (part.as_micros() * 100 / self.busy.as_micros().max(1)) as u64;
        let (window, buffer) = (share(self.peer_window).min(100), share(self.send_buffer).min(100));
        [window, buffer, 100u64.saturating_sub(window + buffer)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(busy: u64, window: u64, buffer: u64) -> TcpInfo {
        let mut bytes = [0; 232];
        for (offset, value) in [(168, busy), (176, window), (184, buffer)] {
            bytes[offset..offset + 8].copy_from_slice(&value.to_ne_bytes());
        }
        TcpInfo::new(&bytes)
    }

    #[test]
    fn shares_are_of_the_busy_time() {
        assert_eq!(Shares::of(&info(0, 0, 0)), None);
        assert_eq!(Shares::of(&info(1_000_000, 400_000, 100_000)).unwrap().percent(), [40, 10, 50]);
        assert_eq!(Shares::of(&info(10, 20, 20)).unwrap().percent(), [100, 100, 0], "whatever the kernel says");
        assert_eq!(Shares::of(&TcpInfo::new(&[0; 104])), None, "a kernel that does not count it");
    }

    #[test]
    fn what_happened_lately_is_what_was_added() {
        let (before, now) = (info(1_000, 0, 0), info(3_000, 1_000, 0));
        assert_eq!(Shares::between(&before, &now).unwrap().percent(), [50, 0, 50]);
        assert_eq!(Shares::between(&before, &before), None);
        assert_eq!(Shares::between(&info(0, 0, 0), &now).unwrap().busy, Duration::from_micros(3_000));
    }
}
