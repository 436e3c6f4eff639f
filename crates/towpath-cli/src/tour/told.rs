//! What the tasks of the tour tell of themselves, to whoever shows it.

#![forbid(unsafe_code)]

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use serde::Serialize;
use towpath::sync::channel::Sender;
use towpath::task::TaskId;
use towpath::time::Instant;

use crate::exit::reason;
use crate::output::{text, units};

/// Something that a task did, or that befell it.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "did", rename_all = "kebab-case")]
pub(crate) enum Deed {
    Listening {
        addr: SocketAddr,
    },
    Accepted {
        peer: SocketAddr,
    },
    Connected {
        local: SocketAddr,
        peer: SocketAddr,
        #[serde(rename = "took_us", serialize_with = "micros")]
        took: Duration,
    },
    /// A `write` came back.
    Wrote {
        bytes: usize,
        of: usize,
        #[serde(skip_serializing_if = "Option::is_none")]
        text: Option<String>,
    },
    /// A `read` came back; a long one without its text.
    Read {
        bytes: usize,
        #[serde(skip_serializing_if = "Option::is_none")]
        text: Option<String>,
    },
    /// As many reads as it took.
    ReadOn {
        bytes: usize,
        reads: usize,
    },
    /// A `read` came back with nothing: the peer has closed.
    EndOfFile,
    /// The other task of the client was told of it.
    Noticed,
    /// A `read` came back because somebody in this program closed the connection.
    ClosedUnderIt,
    Closed,
    /// A dial came to nothing.
    Refused {
        error: String,
    },
    /// What should not happen.
    Failed {
        error: String,
    },
}

/// A deed and whose it is.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) task: Option<TaskId>,
    /// The task's name.
    pub(crate) who: String,
    /// When what others see of it began or, of what others began, came.
    pub(crate) at: Instant,
    pub(crate) deed: Deed,
}

/// Where a task tells what it does.
#[derive(Debug, Clone)]
pub(crate) struct Teller(pub(super) Sender<Said>);

impl Teller {
    /// Tells what the calling task has just done.
    pub(super) fn tell(&self, deed: Deed) {
        self.tell_of(Instant::now(), deed);
    }

    /// Tells what the calling task did, so that others may have seen it since `at`.
    pub(super) fn tell_of(&self, at: Instant, deed: Deed) {
        let task = towpath::task::current();
        let name = task.as_ref().and_then(|task| task.name().map(str::to_owned));
        let said = Said { task: task.map(|task| task.id()), who: name.unwrap_or_default(), at, deed };
        // Nobody listens any more once the tour is over.
        let _ = self.0.send(said);
    }

    /// Tells what came in the way, which ends the tour.
    pub(super) fn failed(&self, doing: &str, error: &io::Error) {
        self.tell(Deed::Failed { error: format!("{doing}: {}", reason(error)) });
    }
}

impl Deed {
    /// A read, with its text if it is short.
    pub(super) fn read(bytes: &[u8]) -> Deed {
        Deed::Read { bytes: bytes.len(), text: short(bytes) }
    }

    /// A write of so many of these, with their text if it is short.
    pub(super) fn wrote(bytes: usize, of: &[u8]) -> Deed {
        Deed::Wrote { bytes, of: of.len(), text: short(of) }
    }

    /// It in words, after the name of whose it is.
    pub(crate) fn words(&self, ascii: bool) -> String {
        let quoted = |text: &Option<String>| match text {
            Some(text) => format!(" : {}", text::escape(text.trim_end_matches('\n').as_bytes(), ascii)),
            None => String::new(),
        };
        match self {
            Deed::Listening { addr } => format!("listen {addr}"),
            Deed::Accepted { peer } => format!("accept {peer}"),
            Deed::Connected { local, peer, took } => {
                let arrow = if ascii { "->" } else { "→" };
                format!("connected {local} {arrow} {peer} in {}", units::time(*took, ascii))
            }
            Deed::Wrote { bytes, of, text } if bytes == of => format!("send data {bytes}{}", quoted(text)),
            Deed::Wrote { bytes, of, .. } => format!("send data {bytes} of {of}: there was no room for more"),
            Deed::Read { bytes, text } => format!("read data {bytes}{}", quoted(text)),
            Deed::ReadOn { bytes, reads } => format!("read data {bytes} in {reads} reads"),
            Deed::EndOfFile => "read returned 0: end of file".to_owned(),
            Deed::Noticed => "learns over a channel that the server has closed".to_owned(),
            Deed::ClosedUnderIt => "read returned an error: another task has closed the connection".to_owned(),
            Deed::Closed => "close".to_owned(),
            Deed::Refused { error } | Deed::Failed { error } => error.clone(),
        }
    }
}

/// The number in a task's `#7`.
pub(super) fn number(id: TaskId) -> u64 {
    id.to_string().trim_start_matches('#').parse().unwrap_or(0)
}

fn short(bytes: &[u8]) -> Option<String> {
    (bytes.len() <= 80).then(|| String::from_utf8_lossy(bytes).into_owned())
}

fn micros<S: serde::Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::try_from(time.as_micros()).unwrap_or(u64::MAX))
}
