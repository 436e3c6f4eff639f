//! How the states of sockets change: told by the kernel (`changes/exact.rs`) where that is allowed, or else found by looking
//! again and again (`changes/sampled.rs`).
#![forbid(unsafe_code)]

mod exact;
mod format;
mod joiner;
mod order;
mod remnants;
mod ring;
mod sampled;
mod tracefs;

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use exact::Exact;
use format::Format;
use ring::{Layout, Page};
use sampled::Sampled;

use crate::clock::{Waited, is_past, monotonic, wait_readable};
use crate::{Family, Filter, State, fuzzing};

/// A socket went from one state to another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Change {
    /// When, on the clock of [`monotonic`](crate::monotonic).
    pub at: Duration,
    /// Whether the kernel told it, with the time. Otherwise it was found by looking: it had happened by then.
    pub exact: bool,
    /// The same in all changes of one socket's life.
    pub key: Key,
    /// The family it was made with.
    pub family: Family,
    /// The address here. Its port may be 0 in the change to [`State::SynSent`], before the kernel has chosen one.
    pub local: SocketAddr,
    /// The address of the other side; none for a listener.
    pub peer: Option<SocketAddr>,
    /// What it was doing.
    pub old: State,
    /// What it does now.
    pub new: State,
}

/// What tells the sockets of one [`Changes`] apart: from the first change of a socket that was told to the one that ends in
/// [`State::Closed`], and for no other socket.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Key(u64);

/// What there is to tell.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Event {
    /// A socket went from one state to another.
    Change(Change),
    /// So many changes, at least, are not told, since they came faster than they were taken.
    Lost(u64),
}

/// Where changes come from.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Source {
    /// The kernel tells each one, by the tracepoint `sock:inet_sock_set_state`.
    Exact,
    /// The sockets are looked at again and again. What lies between two looks is not seen: a handshake, or a whole connection.
    Sampled {
        /// How long from one look to the next.
        interval: Duration,
        /// Why it is not exact.
        why: String,
    },
}

/// Changes of the states of sockets, as they happen.
///
/// Exact ones need root, and the machine's own clock (time_namespaces(7)): they are those of all network namespaces, and come
/// through a tracing instance of our own (tracefs, `instances/towpath-PID`), which is removed on drop; one that a killed process
/// has left is removed by the next to come. Tracefs is mounted for that, if it is not, where nobody else sees it.
///
/// The kernel tells nothing of what remains of a connection in TIME-WAIT, or in FIN-WAIT-2 once the program has closed it. That
/// is looked at, and its changes are those that are not [`exact`](Change::exact).
///
/// ```
/// use std::net::TcpListener;
/// use std::time::Duration;
/// use towpath_diag::{Changes, Event, Filter, State};
///
/// let mut changes = Changes::open(&Filter::new(), Changes::INTERVAL)?;
/// println!("{:?}", changes.source());
///
/// let listener = TcpListener::bind("127.0.0.1:0")?;
/// while let Some(event) = changes.next(Some(Duration::from_secs(5)))? {
///     let Event::Change(change) = event else { continue };
///     println!("{} {} → {}", change.local, change.old, change.new);
///     if change.local == listener.local_addr()? {
///         assert_eq!(change.new, State::Listen);
///         break;
///     }
/// }
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct Changes {
    source: Source,
    from: From,
}

#[derive(Debug)]
enum From {
    Exact(Box<Exact>),
    Sampled(Box<Sampled>),
}

impl Changes {
    /// How often to look, where looking is all that can be done: often enough for a person, and cheap.
    pub const INTERVAL: Duration = Duration::from_millis(200);

    /// Watches sockets of these addresses for changes from or to one of these states: exactly where that is allowed, or else by
    /// looking at all of them every `interval`. Those that are there already are not told.
    ///
    /// # Errors
    /// What the kernel has to say of a dump; see [`Diag::dump`](crate::Diag::dump). That tracing is not allowed is none.
    pub fn open(filter: &Filter, interval: Duration) -> io::Result<Changes> {
        match Exact::open(filter, interval) {
            Ok(exact) => Ok(Changes { source: Source::Exact, from: From::Exact(Box::new(exact)) }),
            Err(why) => {
                let mut sampled = Changes::sampled(filter, interval)?;
                sampled.source = Source::Sampled { interval, why };
                Ok(sampled)
            }
        }
    }

    /// Looks at the sockets every `interval`, even where more is allowed.
    ///
    /// # Errors
    /// As for [`open`](Changes::open).
    pub fn sampled(filter: &Filter, interval: Duration) -> io::Result<Changes> {
        let from = From::Sampled(Box::new(Sampled::open(filter, interval)?));
        Ok(Changes { source: Source::Sampled { interval, why: "as was asked".into() }, from })
    }

    /// Where they come from.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// Where exact changes are read: the folder of tracefs, or a mount of it that nobody else sees.
    pub fn place(&self) -> Option<&str> {
        match &self.from {
            From::Exact(exact) => Some(exact.place()),
            From::Sampled(_) => None,
        }
    }

    /// The next one; none if the time is over or a signal was handled. Without a time, waits for one of these.
    ///
    /// Those that are exact come in the order of their times: of one socket always, of different ones unless a processor was
    /// held up just when the kernel wrote one down on it, which then comes late.
    ///
    /// # Errors
    /// What the kernel has to say, which it will again.
    pub fn next(&mut self, timeout: Option<Duration>) -> io::Result<Option<Event>> {
        let until = timeout.and_then(|timeout| monotonic().checked_add(timeout));
        loop {
            let event = match &mut self.from {
                From::Exact(exact) => exact.take()?,
                From::Sampled(sampled) => sampled.take()?,
            };
            // The descriptor is always readable where much comes that is not wanted: so the time is looked at here too.
            if event.is_some() || is_past(until) || wait_readable(self.as_fd(), until)? == Waited::InVain {
                return Ok(event);
            }
        }
    }
}

/// Readable when there may be something to tell, once [`next`](Changes::next) with a time of zero has told all there was.
impl AsFd for Changes {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.from {
            From::Exact(exact) => exact.as_fd(),
            From::Sampled(sampled) => sampled.as_fd(),
        }
    }
}

/// As `fuzzing.rs` shows it.
pub(crate) fn read_page(page: &[u8], header_page: &str, format: &str) -> Option<(u64, Vec<fuzzing::Traced>)> {
    let (layout, format) = (Layout::parse(header_page)?, Format::parse(format).ok()?);
    let page = Page::new(page, layout)?;
    let lost = page.lost;
    let records = page.filter_map(|(at, record)| format.read(at, record));
    Some((lost, records.map(|record| (record.at, record.old, record.new, record.local, record.peer)).collect()))
}
