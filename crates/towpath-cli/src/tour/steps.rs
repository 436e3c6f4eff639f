//! The steps, in their order: each has something happen, waits until it is seen, and shows it.

#![forbid(unsafe_code)]

use std::net::{Ipv4Addr, SocketAddr};

use towpath::sync::channel::{self, Sender};
use towpath_capture::flow::{Notes, Side, State as Seen, Verdict};
use towpath_capture::segment::Flags;
use towpath_diag::{Socket, State, TcpInfo, TimerKind};

use super::page::Page;
use super::stage::{Halt, Stage, failed};
use super::story::{self, Chapter};
use super::table::Table;
use super::told::{Deed, Teller};
use super::{client, server};
use crate::output::units;

/// What the client says.
const HELLO: &str = "hello";
/// What the server sends to one that does not read: more than both buffers hold.
const BULK: usize = 256 << 10;
/// The send buffer that it has for that, which the kernel doubles (socket(7)).
const BUFFER: usize = 32 << 10;
/// The client is in `read` when it begins, and gets what fits there.
const FIRST_READ: usize = 1024;

/// The tour as it goes on.
pub(super) struct Tour<'a> {
    pub(super) stage: Stage<'a>,
    pub(super) page: Page,
    pub(super) table: Table,
    pub(super) teller: Teller,
    /// Where the server listens, and where nobody does.
    pub(super) addr: SocketAddr,
    pub(super) nobody: SocketAddr,
}

impl Tour<'_> {
    /// All of it.
    pub(super) fn run(&mut self) -> Result<(), Halt> {
        let (server, orders) = channel::unbounded();
        self.listen(orders)?;
        let (client, orders) = channel::unbounded();
        self.dial(&client, orders)?;
        self.talk(&server, &client)?;
        self.fill(&server)?;
        self.drain(&client)?;
        self.close(&server)?;
        self.close_too(&client)?;
        self.refused()
    }

    fn listen(&mut self, orders: channel::Receiver<server::Order>) -> Result<(), Halt> {
        self.begin(&story::LISTEN)?;
        server::start(self.addr, self.teller.clone(), orders).map_err(|e| failed("start the server", &e))?;
        self.stage.deed("the server to listen", |deed| matches!(deed, Deed::Listening { .. }))?;
        self.stage.parked(server::SERVER, "accept")?;
        self.stage.sockets("a socket in LISTEN", |all| states(all) == [State::Listen])?;
        self.show(story::LISTEN_SEEN)
    }

    fn dial(&mut self, client: &Sender<client::Order>, orders: channel::Receiver<client::Order>) -> Result<(), Halt> {
        self.begin(&story::DIAL)?;
        client::start(self.addr, self.teller.clone(), orders).map_err(|e| failed("start the client", &e))?;
        self.stage.deed("the client's dial", |deed| matches!(deed, Deed::Connected { .. } | Deed::Refused { .. }))?;
        self.stage.deed("the server's accept", |deed| matches!(deed, Deed::Accepted { .. }))?;
        order(client, client::Order::Read);
        self.stage.segments("the handshake", |ladder| {
            ladder.has(Side::Client, Flags::SYN, Seen::SynSent, Seen::SynReceived)
                && ladder.has(Side::Server, Flags::SYN | Flags::ACK, Seen::SynReceived, Seen::Established)
                && ladder.has(Side::Client, Flags::ACK, Seen::Established, Seen::Established)
        })?;
        self.stage.sockets("both ends in ESTABLISHED", |all| {
            states(all) == [State::Established, State::Established, State::Listen]
        })?;
        self.stage.parked(server::READER, "read")?;
        self.stage.parked(client::READER, "read")?;
        let remark = self.handshake_seen();
        self.show(&remark)
    }

    /// What is to be said about the handshake, with its times.
    fn handshake_seen(&self) -> String {
        let ascii = self.page.look().is_none_or(|look| look.ascii);
        let rows = "There are two rows, for both ends are on this machine.";
        // The answer, and what came of it.
        let times: Vec<_> = self.stage.ladder.seen.iter().map(|seen| seen.since).collect();
        let [_, answered, open, ..] = times[..] else {
            return format!(
                "{rows} That the ends were in SYN-SENT and SYN-RECEIVED, which lasts microseconds, only \
                            segments tell."
            );
        };
        format!(
            "{rows} SYN-SENT lasted {}, and the handshake {} in all. Whoever looks at a table now and then, as netstat \
             and ss do, will not see it; whoever sees each segment (towpath trace), or is told of each change of \
             state (towpath watch as root), does.",
            units::time(answered, ascii),
            units::time(open, ascii),
        )
    }

    fn talk(&mut self, server: &Sender<server::Order>, client: &Sender<client::Order>) -> Result<(), Halt> {
        self.begin(&story::TALK)?;
        order(server, server::Order::SendTime);
        self.stage.deed("the client to read the time", |deed| matches!(deed, Deed::Read { .. }))?;
        order(client, client::Order::Read);
        order(client, client::Order::Say(HELLO));
        self.stage.deed(
            "the server to read hello",
            |deed| matches!(deed, Deed::Read { text: Some(text), .. } if text == HELLO),
        )?;
        self.settle()?;
        self.stage.parked(server::READER, "read")?;
        self.stage.parked(client::READER, "read")?;
        self.show(story::TALK_SEEN)
    }

    /// Waits until everything that was sent has been acknowledged.
    fn settle(&mut self) -> Result<(), Halt> {
        self.stage.sockets("empty queues", |all| {
            all.iter().filter(|socket| socket.state == State::Established).all(|socket| queues(socket) == (0, 0))
        })?;
        self.stage.segments("every byte to be acknowledged", |ladder| ladder.is_settled())
    }

    fn fill(&mut self, server: &Sender<server::Order>) -> Result<(), Halt> {
        self.begin(&story::FILL)?;
        order(server, server::Order::SendBulk { bytes: BULK, buffer: BUFFER });
        self.stage.deed("the client's last read", |deed| matches!(deed, Deed::Read { .. }))?;
        self.stage.segments("a window of zero", |ladder| {
            ladder.seen.iter().any(|seen| seen.from == Side::Client && seen.notes.contains(Notes::ZERO_WINDOW))
        })?;
        let port = self.addr.port();
        let blocked = |all: &[Socket]| all.iter().any(|socket| is_blocked(socket, port));
        let writer = self.stage.stuck((server::WRITER, "write"), blocked)?;
        self.show_deeds_and_segments()?;
        self.page.parked(&writer);
        self.show(
            "RQ of the client's end is what it has not read, SQ of the server's what is not acknowledged; what has no room in \
             either waits in the program, whose write has not returned. Nothing is lost and nobody spins. Until the \
             window opens, the server's kernel asks now and then whether it has (window probe). In the table of a \
             service, such queues say which side is slow: the one that does not read.",
        )
    }

    fn drain(&mut self, client: &Sender<client::Order>) -> Result<(), Halt> {
        self.begin(&story::DRAIN)?;
        order(client, client::Order::ReadOn { bytes: BULK - FIRST_READ });
        self.stage.deed("the client to have read everything", |deed| matches!(deed, Deed::ReadOn { .. }))?;
        self.stage
            .deed("the server's last write", |deed| matches!(deed, Deed::Wrote { bytes, of, .. } if bytes == of))?;
        order(client, client::Order::Read);
        self.settle()?;
        self.stage.parked(client::READER, "read")?;
        self.show("All of it has arrived, and both queues are empty again.")
    }

    fn close(&mut self, server: &Sender<server::Order>) -> Result<(), Halt> {
        self.begin(&story::CLOSE)?;
        order(server, server::Order::Close);
        self.stage.deed("the client to be told of the end", |deed| matches!(deed, Deed::Noticed))?;
        self.stage.deed("the server's reader to come back", |deed| matches!(deed, Deed::ClosedUnderIt))?;
        self.stage.segments("the server's FIN and its ACK", |ladder| {
            ladder.has(Side::Server, Flags::FIN, Seen::FinWait1, Seen::CloseWait)
                && ladder.has(Side::Client, Flags::ACK, Seen::CloseWait, Seen::FinWait2)
        })?;
        self.stage.sockets("FIN-WAIT-2 and CLOSE-WAIT", |all| {
            states(all) == [State::FinWait2, State::CloseWait, State::Listen]
        })?;
        self.show(story::CLOSE_SEEN)
    }

    fn close_too(&mut self, client: &Sender<client::Order>) -> Result<(), Halt> {
        self.begin(&story::CLOSE_TOO)?;
        order(client, client::Order::Close);
        self.stage.deed("the client to close", |deed| matches!(deed, Deed::Closed))?;
        self.stage.segments("the client's FIN and its ACK", |ladder| {
            ladder.has(Side::Client, Flags::FIN, Seen::LastAck, Seen::TimeWait)
                && ladder.seen.iter().any(|seen| seen.verdict == Some(Verdict::Clean))
        })?;
        self.stage.sockets("TIME-WAIT alone", |all| states(all) == [State::TimeWait, State::Listen])?;
        self.show(story::CLOSE_TOO_SEEN)
    }

    fn refused(&mut self) -> Result<(), Halt> {
        self.begin(&story::REFUSED)?;
        let (_, orders) = channel::unbounded();
        client::start(self.nobody, self.teller.clone(), orders).map_err(|e| failed("start a client", &e))?;
        self.stage.deed("the dial to be refused", |deed| matches!(deed, Deed::Refused { .. }))?;
        self.stage.segments("RST", |ladder| ladder.seen.iter().any(|seen| seen.verdict == Some(Verdict::Refused)))?;
        self.show_deeds_and_segments()?;
        self.page.remark(story::REFUSED_SEEN);
        Ok(())
    }

    /// Begins a step; before all but the first, for whoever wants to press a key.
    fn begin(&mut self, chapter: &Chapter) -> Result<(), Halt> {
        if self.page.has_begun() {
            self.stage.key(chapter.name)?;
        }
        self.page.begin(chapter);
        Ok(())
    }

    /// Shows what was seen since the last time, then the table, and says what there is to see in it.
    fn show(&mut self, remark: &str) -> Result<(), Halt> {
        self.show_deeds_and_segments()?;
        let table = self.table.draw(self.stage.out, self.page.width())?;
        self.page.show(&table);
        self.page.remark(remark);
        Ok(())
    }

    fn show_deeds_and_segments(&mut self) -> Result<(), Halt> {
        self.stage.catch_up()?;
        let mut deeds = std::mem::take(&mut self.stage.deeds);
        // The one who was woken may tell of it before the one who woke him.
        deeds.sort_by_key(|said| said.at);
        self.page.deeds(&deeds);
        let ladder = self.stage.ladder.draw();
        self.page.drawn(&ladder);
        Ok(())
    }
}

/// The address of this machine at `port`.
pub(super) fn here(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

fn order<T>(to: &Sender<T>, order: T) {
    // Whoever has ended has told why, and that is what is shown.
    let _ = to.send(order);
}

/// The states, in the order in which the kernel numbers them.
fn states(sockets: &[Socket]) -> Vec<State> {
    let mut states: Vec<_> = sockets.iter().map(|socket| socket.state).collect();
    states.sort_unstable_by_key(|&state| RANK.iter().position(|&other| other == state));
    states
}

const RANK: [State; 5] = [State::Established, State::FinWait2, State::TimeWait, State::CloseWait, State::Listen];

fn queues(socket: &Socket) -> (u32, u32) {
    (socket.receive_queue, socket.send_queue)
}

/// Whether this is the end that would send and may not: nothing is on its way, the peer's window is closed as far as
/// this kernel tells, and it asks for it now and then.
fn is_blocked(socket: &Socket, port: u16) -> bool {
    let asks = socket.timer.is_some_and(|timer| timer.kind == TimerKind::Probe);
    let window = socket.info.as_ref().and_then(TcpInfo::snd_wnd).unwrap_or(0);
    socket.local.port() == port && socket.send_queue > 0 && window == 0 && asks
}
