//! In which order the rows stand.

#![forbid(unsafe_code)]

use std::cmp::{Ordering, Reverse};
use std::collections::HashSet;
use std::net::SocketAddr;

use towpath_diag::State;

use super::table::{Row, Since};

/// What the rows are sorted by, and whether the other way round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Order {
    pub(crate) by: By,
    pub(crate) reversed: bool,
}

/// What rows are sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum By {
    /// Listeners first, then the two ends of each connection together, by the port of the service.
    #[default]
    Connection,
    State,
    /// The longest first.
    For,
    /// The fullest first.
    ReceiveQueue,
    SendQueue,
    Local,
    Peer,
    /// The slowest first.
    Rtt,
    /// The most first.
    Retrans,
}

/// The order in which `s` goes through them.
const ALL: [By; 9] =
    [By::Connection, By::State, By::For, By::ReceiveQueue, By::SendQueue, By::Local, By::Peer, By::Rtt, By::Retrans];

impl Order {
    /// By what comes next.
    pub(crate) fn next(self) -> Order {
        let at = ALL.iter().position(|&by| by == self.by).unwrap_or(0);
        Order { by: ALL[(at + 1) % ALL.len()], reversed: false }
    }

    /// The other way round.
    pub(crate) fn reverse(self) -> Order {
        Order { reversed: !self.reversed, ..self }
    }

    /// Whether a row's place stays the same as long as it has the same addresses.
    pub(crate) fn is_fixed(self) -> bool {
        matches!(self.by, By::Connection | By::Local | By::Peer)
    }

    /// Whether how the segments fare has to be known of every row.
    pub(crate) fn needs_paths(self) -> bool {
        matches!(self.by, By::Rtt | By::Retrans)
    }

    /// Which of two rows comes first. `since` tells when a row came into its state, `served` on which ports of this machine
    /// somebody listens.
    pub(crate) fn compare(self, a: &Row, b: &Row, since: impl Fn(&Row) -> Since, served: &HashSet<u16>) -> Ordering {
        let order = match self.by {
            By::Connection => Ordering::Equal,
            By::State => rank(a.state).cmp(&rank(b.state)),
            By::For => since(a).at.cmp(&since(b).at),
            By::ReceiveQueue => b.receive_queue.cmp(&a.receive_queue),
            By::SendQueue => b.send_queue.cmp(&a.send_queue),
            By::Local => a.local.cmp(&b.local),
            By::Peer => a.peer.cmp(&b.peer),
            By::Rtt => Reverse(a.path.and_then(|path| path.rtt)).cmp(&Reverse(b.path.and_then(|path| path.rtt))),
            By::Retrans => b.path.and_then(|path| path.retrans).cmp(&a.path.and_then(|path| path.retrans)),
        };
        let order =
            order.then_with(|| connection(a, served).cmp(&connection(b, served))).then_with(|| a.cookie.cmp(&b.cookie));
        if self.reversed { order.reverse() } else { order }
    }
}

impl By {
    /// What the header says.
    pub(crate) fn name(self) -> &'static str {
        match self {
            By::Connection => "connection",
            By::State => "state",
            By::For => "for",
            By::ReceiveQueue => "receive queue",
            By::SendQueue => "send queue",
            By::Local => "local",
            By::Peer => "peer",
            By::Rtt => "rtt",
            By::Retrans => "retransmitted",
        }
    }
}

/// Listeners; then by service and by client; of the two ends the client's first. The service's end is the one that is
/// listened at, or that has the lower port.
fn connection(row: &Row, served: &HashSet<u16>) -> (bool, u16, SocketAddr, Option<SocketAddr>, bool) {
    match row.peer {
        None => (false, row.local.port(), row.local, None, false),
        Some(peer) => {
            let rank = |end: SocketAddr| (!served.contains(&end.port()), end.port(), end);
            let ours = rank(row.local) <= rank(peer);
            let (service, client) = if ours { (row.local, peer) } else { (peer, row.local) };
            (true, service.port(), service, Some(client), ours)
        }
    }
}

/// The order of a life.
fn rank(state: State) -> usize {
    super::filter::STATES.iter().position(|&known| known == state).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::table::{Seen, Table};
    use super::*;

    /// Local port, peer port (0: a listener), state, bytes in the receive queue.
    type Given = (u16, u16, State, u32);

    /// The order of rows, each by its local port.
    fn sorted(order: Order, given: &[Given]) -> Vec<u16> {
        let end = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let mut table = Table::new(false);
        table.begin(Duration::ZERO);
        for (cookie, &(local, peer, state, receive_queue)) in given.iter().enumerate() {
            let seen = Seen {
                cookie: cookie as u64,
                state,
                local: end(local),
                peer: (peer > 0).then(|| end(peer)),
                inode: None,
                uid: 0,
                receive_queue,
                send_queue: 0,
                time_wait: None,
                info: None,
            };
            // Each a second after the one before it.
            table.see(&seen, Duration::from_secs(cookie as u64));
        }
        table.end(Duration::from_secs(100), true);
        let mut rows: Vec<&Row> = table.rows().map(|(_, row)| row).collect();
        let served = rows.iter().filter(|row| row.state == State::Listen).map(|row| row.local.port()).collect();
        rows.sort_by(|a, b| order.compare(a, b, |row| row.since, &served));
        rows.iter().map(|row| row.local.port()).collect()
    }

    const GIVEN: [Given; 6] = [
        (80, 41_000, State::Established, 7),
        (8330, 40_000, State::CloseWait, 0),
        (41_000, 80, State::Established, 0),
        (8330, 0, State::Listen, 1),
        (40_000, 8330, State::FinWait2, 0),
        (80, 0, State::Listen, 0),
    ];

    #[test]
    fn listeners_come_first_and_the_two_ends_of_a_connection_stand_together() {
        assert_eq!(sorted(Order::default(), &GIVEN), [80, 8330, 41_000, 80, 40_000, 8330]);
        let mut shuffled = GIVEN;
        shuffled.rotate_left(3);
        assert_eq!(sorted(Order::default(), &shuffled), [80, 8330, 41_000, 80, 40_000, 8330]);
    }

    #[test]
    fn the_end_that_is_listened_at_is_the_service_whatever_its_port() {
        let given = [
            (50_000, 40_000, State::Established, 0),
            (40_000, 50_000, State::Established, 0),
            (50_000, 0, State::Listen, 0),
        ];
        assert_eq!(sorted(Order::default(), &given), [50_000, 40_000, 50_000]);
    }

    #[test]
    fn the_most_remarkable_comes_first() {
        let by = |by| sorted(Order { by, reversed: false }, &GIVEN);
        assert_eq!(by(By::ReceiveQueue)[..2], [80, 8330]);
        assert_eq!(by(By::For), [80, 8330, 41_000, 8330, 40_000, 80], "the oldest");
        assert_eq!(by(By::State)[..2], [80, 8330]);
        assert_eq!(by(By::State)[5], 8330, "CLOSE-WAIT comes late in a life");
        assert_eq!(by(By::Local), [80, 80, 8330, 8330, 40_000, 41_000]);
    }

    #[test]
    fn a_reversed_order_is_the_same_from_the_other_end() {
        for by in ALL {
            let mut there = sorted(Order { by, reversed: false }, &GIVEN);
            there.reverse();
            assert_eq!(there, sorted(Order { by, reversed: true }, &GIVEN), "{by:?}");
        }
    }

    #[test]
    fn s_goes_through_all_of_them_and_begins_again() {
        let mut order = Order::default().reverse();
        for by in ALL {
            assert_eq!(order.by, by);
            order = order.next();
            assert!(!order.reversed);
        }
        assert_eq!(order, Order::default());
    }
}
