//! The states of a TCP socket, as RFC 9293 names them, and sets of them, as the kernel numbers them (`enum` in
//! `net/tcp_states.h`).
#![forbid(unsafe_code)]

use std::fmt;

/// What a TCP socket is doing. Shown with the names of RFC 9293, section 3.3.2, such as `ESTABLISHED`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum State {
    /// Open: data goes both ways.
    Established,
    /// A connection was asked for, and nothing came back yet.
    SynSent,
    /// A connection was asked for by the peer; the handshake is not complete.
    SynReceived,
    /// Closed from here; the peer has not acknowledged that.
    FinWait1,
    /// Closed from here, which the peer knows; the peer has not closed.
    FinWait2,
    /// Closed from both sides, here first: the addresses are kept from reuse for a minute.
    TimeWait,
    /// No connection.
    Closed,
    /// The peer has closed, and the program here has not.
    CloseWait,
    /// Closed from both sides, the peer first; it has not acknowledged that.
    LastAck,
    /// Takes connections.
    Listen,
    /// Closed from both sides at the same time; the peer has not acknowledged that.
    Closing,
    /// The kernel's record of a handshake that a listener takes part in. Dumps call it [`SynReceived`](State::SynReceived).
    NewSynReceived,
    /// One that this library has no name for, by the kernel's number.
    Other(u8),
}

/// By the kernel's number, from 1; with the name of RFC 9293, and the one that `ss` prints.
const NAMED: [(State, &str, &str); 12] = [
    (State::Established, "ESTABLISHED", "ESTAB"),
    (State::SynSent, "SYN-SENT", "SYN-SENT"),
    (State::SynReceived, "SYN-RECEIVED", "SYN-RECV"),
    (State::FinWait1, "FIN-WAIT-1", "FIN-WAIT-1"),
    (State::FinWait2, "FIN-WAIT-2", "FIN-WAIT-2"),
    (State::TimeWait, "TIME-WAIT", "TIME-WAIT"),
    (State::Closed, "CLOSED", "CLOSED"),
    (State::CloseWait, "CLOSE-WAIT", "CLOSE-WAIT"),
    (State::LastAck, "LAST-ACK", "LAST-ACK"),
    (State::Listen, "LISTEN", "LISTEN"),
    (State::Closing, "CLOSING", "CLOSING"),
    (State::NewSynReceived, "NEW-SYN-RECEIVED", "NEW-SYN-RECV"),
];

impl State {
    /// The state of the kernel's number.
    pub fn from_number(number: u8) -> State {
        let named = usize::from(number).checked_sub(1).and_then(|index| NAMED.get(index));
        named.map_or(State::Other(number), |row| row.0)
    }

    /// The kernel's number, as in `/proc/net/tcp`.
    pub fn number(self) -> u8 {
        match self {
            State::Other(number) => number,
            // There are twelve, so that the index fits.
            _ => NAMED.iter().position(|row| row.0 == self).map_or(0, |index| index as u8 + 1),
        }
    }

    /// The name that fits a column of ten: `ESTAB`, `SYN-RECV`, `CLOSE-WAIT`.
    pub fn short(self) -> &'static str {
        self.named().map_or("?", |row| row.2)
    }

    fn named(self) -> Option<&'static (State, &'static str, &'static str)> {
        NAMED.iter().find(|row| row.0 == self)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self, self.named()) {
            (_, Some(row)) => f.pad(row.1),
            (state, None) => f.pad(&format!("STATE-{}", state.number())),
        }
    }
}

bitflags::bitflags! {
    /// A set of states, as the kernel's dump takes it.
    ///
    /// The default is all of them but [`BOUND`](States::BOUND).
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
    pub struct States: u32 {
        /// [`State::Established`].
        const ESTABLISHED = 1 << 1;
        /// [`State::SynSent`].
        const SYN_SENT = 1 << 2;
        /// [`State::SynReceived`].
        const SYN_RECEIVED = 1 << 3;
        /// [`State::FinWait1`].
        const FIN_WAIT_1 = 1 << 4;
        /// [`State::FinWait2`].
        const FIN_WAIT_2 = 1 << 5;
        /// [`State::TimeWait`].
        const TIME_WAIT = 1 << 6;
        /// [`State::Closed`].
        const CLOSED = 1 << 7;
        /// [`State::CloseWait`].
        const CLOSE_WAIT = 1 << 8;
        /// [`State::LastAck`].
        const LAST_ACK = 1 << 9;
        /// [`State::Listen`].
        const LISTEN = 1 << 10;
        /// [`State::Closing`].
        const CLOSING = 1 << 11;
        /// [`State::NewSynReceived`].
        const NEW_SYN_RECEIVED = 1 << 12;
        /// Sockets that have a port and neither listen nor connect, which dumps call [`State::Closed`]. Since Linux 6.8;
        /// older kernels leave them out.
        const BOUND = 1 << 13;
    }
}

impl States {
    /// Whether the set has this state.
    pub fn has(self, state: State) -> bool {
        self.intersects(States::from(state))
    }
}

impl Default for States {
    fn default() -> States {
        States::all() - States::BOUND
    }
}

impl From<State> for States {
    fn from(state: State) -> States {
        States::from_bits_truncate(1u32.checked_shl(u32::from(state.number())).unwrap_or(0))
    }
}

impl FromIterator<State> for States {
    fn from_iter<I: IntoIterator<Item = State>>(states: I) -> States {
        states.into_iter().map(States::from).fold(States::empty(), |set, one| set | one)
    }
}
