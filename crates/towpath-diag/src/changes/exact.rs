//! Changes as the kernel tells them, through the tracepoint `sock:inet_sock_set_state` (since Linux 4.16): each processor's ring is
//! read (`ring.rs`, `format.rs`), what was read is put in order (`order.rs`) and together (`joiner.rs`), and what is left of
//! closed sockets is looked up (`remnants.rs`).
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::fmt::Write;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;

use super::format::{Format, Record};
use super::joiner::{Joiner, Next};
use super::order::Order;
use super::remnants::Remnants;
use super::ring::{Layout, Page};
use super::tracefs::{self, Instance, Tracefs};
use super::{Change, Event, Key};
use crate::clock::{Alarm, is_shifted, monotonic};
use crate::{Filter, State, States, Want, bytecode};

const EVENT: &str = "events/sock/inet_sock_set_state";

/// The ring of each processor: room for some thirteen thousand changes.
const RING_KIB: &str = "1024";

/// How many pages of one ring are read at a time.
const PAGES: usize = 64;

/// How often all rings are read in search of one event, so that whoever waits can look at the time where much comes that is
/// not wanted; and when to look again then at what is held.
const READINGS: usize = 8;
const SOON: Duration = Duration::from_millis(1);

/// The most that the kernel takes as a filter.
const LONGEST_FILTER: usize = 4000;

#[derive(Debug)]
pub(super) struct Exact {
    // Closed before the instance is removed, which fields are dropped in this order for.
    pipes: Vec<OwnedFd>,
    _instance: Instance,
    tracefs: Tracefs,
    epoll: OwnedFd,
    alarm: Alarm,
    format: Format,
    layout: Layout,
    page: Vec<u8>,
    filter: Filter,
    order: Order,
    joiner: Joiner,
    remnants: Remnants,
    ready: VecDeque<Event>,
}

impl Exact {
    /// The error says why it cannot be.
    pub(super) fn open(filter: &Filter, interval: Duration) -> Result<Exact, String> {
        // Which a dump would not take, either.
        bytecode::compile(filter).map_err(|length| format!("a filter of {length} bytes"))?;
        if is_shifted() {
            return Err("tracing: this process has a clock of its own (time_namespaces(7))".to_owned());
        }
        let tracefs = Tracefs::open()?;
        let failed = |what: &'static str| {
            move |error: io::Error| match error.kind() {
                io::ErrorKind::PermissionDenied => tracefs::FOR_ROOT.to_owned(),
                _ => format!("tracing: {what}: {error}"),
            }
        };
        let format = tracefs.read(&format!("{EVENT}/format")).map_err(failed(EVENT))?;
        let format = Format::parse(&format).map_err(|field| format!("tracing: {EVENT} has no {field}"))?;
        let layout = tracefs.read("events/header_page").map_err(failed("events/header_page"))?;
        let layout = Layout::parse(&layout).ok_or("tracing: events/header_page is not understood")?;
        let instance = tracefs.instance().map_err(failed("a new instance"))?;
        let pipes = set_up(&instance, filter, &format).map_err(failed("an instance"))?;
        let waiting = (|| {
            let (epoll, alarm) = (epoll::create(CreateFlags::CLOEXEC)?, Alarm::new()?);
            for fd in pipes.iter().map(OwnedFd::as_fd).chain([alarm.as_fd()]) {
                epoll::add(&epoll, fd, EventData::new_u64(0), EventFlags::IN)?;
            }
            Ok((epoll, alarm))
        })();
        let (epoll, alarm) = waiting.map_err(failed("waiting for an instance"))?;
        let remnants = Remnants::new(interval).map_err(failed("sock_diag"))?;
        let (page, filter) = (vec![0; layout.page], filter.clone());
        let (order, joiner, ready) = Default::default();
        Ok(Exact {
            pipes,
            _instance: instance,
            tracefs,
            epoll,
            alarm,
            format,
            layout,
            page,
            filter,
            order,
            joiner,
            remnants,
            ready,
        })
    }

    pub(super) fn place(&self) -> &str {
        self.tracefs.place()
    }

    /// The next event, if there is one now. If not, the descriptor will be readable when there may be.
    pub(super) fn take(&mut self) -> io::Result<Option<Event>> {
        for _ in 0..READINGS {
            if let Some(event) = self.ready.pop_front() {
                return Ok(Some(event));
            }
            let complete_until = self.read_rings()?;
            for record in self.order.release(complete_until) {
                self.joiner.push(record);
            }
            let alarm = self.tell(monotonic());
            // What is held will be told by the time that all rings were read again.
            if self.ready.is_empty() && self.order.is_empty() {
                self.alarm.set(alarm)?;
                return Ok(None);
            }
        }
        let event = self.ready.pop_front();
        if event.is_none() {
            self.alarm.set(Some(monotonic() + SOON))?;
        }
        Ok(event)
    }

    /// Reads what is there. Says up to which time nothing is missing.
    fn read_rings(&mut self) -> io::Result<Duration> {
        let mut complete_until = monotonic();
        for pipe in &self.pipes {
            let mut pages = 0;
            loop {
                let length = match rustix::io::read(pipe, &mut self.page[..]) {
                    Ok(0) | Err(Errno::AGAIN) => break,
                    Ok(length) => length,
                    Err(Errno::INTR) => continue,
                    Err(error) => return Err(error.into()),
                };
                let Some(mut page) = Page::new(&self.page[..length], self.layout) else { break };
                if page.lost > 0 {
                    self.ready.push_back(Event::Lost(page.lost));
                }
                let mut last = None;
                for (at, record) in &mut page {
                    last = Some(at);
                    if let Some(record) = self.format.read(at, record) {
                        self.order.push(record);
                    }
                }
                pages += 1;
                if pages == PAGES {
                    complete_until = complete_until.min(last.unwrap_or(Duration::ZERO));
                    break;
                }
            }
        }
        Ok(complete_until)
    }

    /// Tells what is in order. Says when there may be more that no ring announces.
    fn tell(&mut self, now: Duration) -> Option<Duration> {
        let waits = loop {
            match self.joiner.next(now) {
                Next::Record(record, key) => self.tell_record(record, key, now),
                Next::Unresolved => {
                    let connecting = self.connecting();
                    self.joiner.resolve(&connecting);
                }
                Next::At(time) => break Some(time),
                Next::Nothing => break None,
            }
        };
        let (ready, filter) = (&mut self.ready, &self.filter);
        self.remnants.look_at_due(now, |change| tell(ready, filter, change));
        waits.into_iter().chain(self.remnants.next_due()).min()
    }

    fn tell_record(&mut self, record: Record, key: Key, now: Duration) {
        let Record { at, old, new, family, local, peer, .. } = record;
        let peer_there = Some(peer).filter(|peer| peer.port() != 0);
        if matches!(new, State::SynSent | State::SynReceived)
            && let Some(closed) = self.remnants.supersede((local, peer), at)
        {
            tell(&mut self.ready, &self.filter, closed);
        }
        let mut change = Change { at, exact: true, key, family, local, peer: peer_there, old, new };
        if !self.filter.wants_ends(local, peer_there) {
            return;
        }
        if new == State::Closed {
            match self.remnants.close(change, now) {
                Some(instead) => change = instead,
                None => return,
            }
        }
        tell(&mut self.ready, &self.filter, change);
    }

    /// The ends of the sockets that have sent a SYN; none if that cannot be said, and then their ports are not told.
    fn connecting(&mut self) -> Vec<(SocketAddr, SocketAddr)> {
        let filter = Filter { states: States::SYN_SENT, ..self.filter.clone() };
        let sockets = self.remnants.diag().sockets(&filter, Want::empty()).unwrap_or_default();
        sockets.iter().filter_map(|socket| Some((socket.local, socket.peer?))).collect()
    }
}

impl AsFd for Exact {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

fn tell(ready: &mut VecDeque<Event>, filter: &Filter, change: Change) {
    let Change { local, peer, old, new, .. } = change;
    if (filter.states.has(old) || filter.states.has(new)) && filter.wants_ends(local, peer) {
        ready.push_back(Event::Change(change));
    }
}

/// Has the instance trace the event, and nothing before all is set.
fn set_up(instance: &Instance, filter: &Filter, format: &Format) -> io::Result<Vec<OwnedFd>> {
    instance.write("trace_clock", "mono")?;
    instance.write("buffer_size_kb", RING_KIB)?;
    // Be told of the first entry, not of a half full ring. Kernels before 5.0 do that anyway.
    let _ = instance.write("buffer_percent", "0");
    if let Some(text) = kernel_filter(filter, format) {
        // What the kernel lets through needlessly is sorted out here.
        let _ = instance.write(&format!("{EVENT}/filter"), &text);
    }
    let pipes = instance.pipes()?;
    instance.write(&format!("{EVENT}/enable"), "1")?;
    Ok(pipes)
}

/// The ports of a filter in the words of tracefs. A port of 0 may turn out to be any.
fn kernel_filter(filter: &Filter, format: &Format) -> Option<String> {
    let mut clauses = Vec::new();
    if format.tells_protocol() {
        clauses.push("protocol == 6".to_owned());
    }
    for (ports, fields) in
        [(&filter.ports, &["sport", "dport"][..]), (&filter.local.ports, &["sport"]), (&filter.peer.ports, &["dport"])]
    {
        if ports.is_empty() {
            continue;
        }
        let mut clause = String::from("(sport == 0 || dport == 0");
        for (port, field) in ports.iter().flat_map(|port| fields.iter().map(move |field| (port, field))) {
            let _ = write!(clause, " || {field} == {port}");
        }
        clauses.push(clause + ")");
    }
    let text = clauses.join(" && ");
    (!text.is_empty() && text.len() < LONGEST_FILTER).then_some(text)
}
