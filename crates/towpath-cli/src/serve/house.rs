//! Who is here: the conversations that are open, so that a drain can tell each of them.

#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Zoned;
use jiff::tz::TimeZone;
use towpath::sync::channel::{self, Receiver, Sender};
use towpath::time::Duration;

use super::conversation::Conversation;
use crate::args::{self, Mode};
use crate::output::Output;

/// How long the lines about conversations that were cut may take, after the cut.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What all conversations of one `serve` share.
pub(super) struct House {
    pub(super) options: args::Serve,
    pub(super) out: Output,
    /// Read once, for later there may be no descriptor left to read it with.
    zone: TimeZone,
    last_number: AtomicU64,
    guests: Mutex<Guests>,
    empty: Receiver<()>,
}

struct Guests {
    open: HashMap<u64, Arc<Conversation>>,
    /// Those that are over and have yet to say so.
    leaving: usize,
    /// Those that were open when draining began, or came later.
    drained: usize,
    /// Taken, and so disconnected, when nobody is left and nobody can come any more.
    not_empty: Option<Sender<()>>,
    draining: bool,
}

impl Guests {
    fn tell_if_empty(&mut self) {
        if self.draining && self.open.is_empty() && self.leaving == 0 {
            self.not_empty = None;
        }
    }
}

impl House {
    pub(super) fn new(options: args::Serve, out: Output) -> House {
        let (not_empty, empty) = channel::bounded(1);
        let guests =
            Guests { open: HashMap::new(), leaving: 0, drained: 0, not_empty: Some(not_empty), draining: false };
        House {
            options,
            out,
            zone: TimeZone::system(),
            last_number: AtomicU64::new(0),
            guests: Mutex::new(guests),
            empty,
        }
    }

    /// The number of a new conversation; the first is 1.
    pub(super) fn next_number(&self) -> u64 {
        self.last_number.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// The time on this machine's clock, as text.
    pub(super) fn time(&self) -> String {
        let now = Zoned::new(jiff::Timestamp::now(), self.zone.clone());
        now.strftime("%Y-%m-%d %H:%M:%S.%9f %z").to_string()
    }

    pub(super) fn enter(&self, guest: &Arc<Conversation>) {
        let mut guests = self.guests();
        guests.open.insert(guest.number, Arc::clone(guest));
        // Accepted before the stop and started after it.
        if guests.draining {
            guests.drained += 1;
            self.farewell(guest);
        }
    }

    /// Takes a conversation that is over from among the open ones, lets it `tell` so, and sees it out.
    pub(super) fn leave(&self, guest: &Conversation, tell: impl FnOnce()) {
        {
            let mut guests = self.guests();
            guests.open.remove(&guest.number);
            guests.leaving += 1;
        }
        tell();
        let mut guests = self.guests();
        guests.leaving -= 1;
        guests.tell_if_empty();
    }

    pub(super) fn is_draining(&self) -> bool {
        self.guests().draining
    }

    /// Tells every conversation that we stop, and says how many there are.
    pub(super) fn begin_drain(&self) -> usize {
        let mut guests = self.guests();
        guests.draining = true;
        for guest in guests.open.values() {
            self.farewell(guest);
        }
        guests.tell_if_empty();
        guests.drained = guests.open.len();
        guests.drained
    }

    /// How many conversations the drain had to do with.
    pub(super) fn drained(&self) -> usize {
        self.guests().drained
    }

    /// Waits for conversations that were cut to say so. They do not wait for anything any more.
    pub(super) fn wait_until_empty(&self) {
        let _ = self.empty.recv_timeout(LAST_WORDS);
    }

    /// FIN, where we have said all that we wanted: the peer learns that it is time to go. An echo goes on.
    fn farewell(&self, guest: &Conversation) {
        if self.options.mode != Mode::Echo {
            guest.half_close();
        }
    }

    /// Nobody waits for anything while holding this.
    fn guests(&self) -> MutexGuard<'_, Guests> {
        self.guests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
