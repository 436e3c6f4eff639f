//! One connection of `serve`: what is said on it, by one or two tasks at once, and how it came to its end.

#![forbid(unsafe_code)]

use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, TimedOut};
use std::io::{self, Read};
use std::net::SocketAddr;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use towpath::net::{Shutdown, TcpStream, is_closed};
use towpath::time::{Duration, Instant};

use super::house::House;
use crate::args::Mode;
use crate::counted;
use crate::kernel;
use crate::output::event::{Data, Ending, Event, Totals};
use crate::output::text::Characters;

/// At most so much is read at once where it is printed, a line for each read.
const LINE: usize = 1024;
/// As much as loopback delivers in one segment.
const BLOCK: usize = 64 * 1024;
/// How long a peer that got our FIN for its silence may take to close as well.
const FAREWELL: Duration = Duration::from_secs(1);

/// A connection, shared by the tasks that read and write it and by the house.
pub(super) struct Conversation {
    pub(super) number: u64,
    house: Arc<House>,
    stream: TcpStream,
    since: Instant,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
}

impl Conversation {
    /// Talks on `stream` to the end, and tells of it.
    pub(super) fn hold(house: &Arc<House>, stream: TcpStream, peer: SocketAddr) {
        let syn = kernel::saved_syn(&stream);
        let this = Arc::new(Conversation {
            number: house.next_number(),
            house: Arc::clone(house),
            stream,
            since: Instant::now(),
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
        });
        let conn = this.number;
        house.enter(&this); // before it is told of: whoever reads of it counts on it
        house.out.event(&Event::Accepted { conn, peer, syn });
        let why = panic::catch_unwind(AssertUnwindSafe(|| this.talk()));
        let why = why.unwrap_or_else(|_| Ending::Failed("its handler panicked".into()));
        let after = Instant::now().duration_since(this.since);
        if why == Ending::Idle {
            this.see_off();
        }
        house.leave(&this, || this.tell(&why, after));
    }

    /// Says that we shall send no more. An error means that the connection is over, which the tasks see themselves.
    pub(super) fn half_close(&self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    fn talk(self: &Arc<Self>) -> Ending {
        let idle = self.house.options.idle;
        let timed = self.stream.set_read_timeout(idle).and_then(|()| self.stream.set_write_timeout(idle));
        if let Err(e) = timed {
            return self.ending(&e);
        }
        match self.house.options.mode {
            Mode::Time => self.while_listening(|| self.send_time()),
            Mode::Chargen => self.while_listening(|| self.generate()),
            Mode::Echo => self.listen(true),
            Mode::Discard => self.listen(false),
        }
    }

    /// Runs `say` while another task listens: the two use the connection at once.
    fn while_listening(self: &Arc<Self>, say: impl FnOnce() -> io::Result<()>) -> Ending {
        let listener = Arc::clone(self);
        let heard = towpath::spawn(move || listener.listen(false));
        let said = say();
        if said.as_ref().is_err_and(|e| self.ending(e) == Ending::Idle) {
            // It takes nothing from us: do not wait for what it might say.
            let _ = self.stream.shutdown(Shutdown::Both);
        }
        let heard = heard.join().unwrap_or_else(|_| Ending::Failed("its listener panicked".into()));
        match said {
            // The kernel tells an error once, to whichever of the two comes first; the other hears the end. Only EPIPE
            // says nothing new: it comes after the peer's FIN, or after our own.
            Err(e) if e.kind() != BrokenPipe && matches!(heard, Ending::Peer | Ending::Drain) => self.ending(&e),
            _ => heard,
        }
    }

    fn send_time(&self) -> io::Result<()> {
        let time = self.house.time() + "\n";
        self.write(time.as_bytes())?;
        let shown = time.as_bytes();
        let data = Data { bytes: shown.len(), shown, hex: None };
        self.house.out.event(&Event::Send { conn: self.number, data });
        Ok(())
    }

    /// RFC 864's pattern: 72 of the 95 printing characters a line, each line beginning one further on.
    fn generate(&self) -> io::Result<()> {
        let mut lines = Vec::with_capacity(95 * 74);
        for first in 0..95 {
            lines.extend((0..72).map(|column| b' ' + (first + column) % 95));
            lines.extend(b"\r\n");
        }
        loop {
            self.write(&lines)?;
        }
    }

    /// Reads until the end, prints what is to be printed and sends it back if `echo`.
    fn listen(&self, echo: bool) -> Ending {
        let options = &self.house.options;
        let prints = options.hex || options.mode == Mode::Time;
        let mut buffer = vec![0; if prints { LINE } else { BLOCK }];
        let mut characters = Characters::default();
        let ending = loop {
            match (&self.stream).read(&mut buffer) {
                Ok(0) if self.house.is_draining() && !echo => break Ending::Drain,
                Ok(0) => break Ending::Peer,
                Ok(n) => {
                    let offset = self.bytes_in.fetch_add(n as u64, Relaxed);
                    if prints {
                        self.print(&buffer[..n], offset, &mut characters);
                    }
                    if echo && let Err(e) = self.write(&buffer[..n]) {
                        break self.ending(&e);
                    }
                }
                Err(e) => break self.ending(&e),
            }
        };
        let rest = characters.finish();
        if !rest.is_empty() {
            self.print_data(Data { bytes: 0, shown: &rest, hex: None });
        }
        ending
    }

    fn print(&self, chunk: &[u8], offset: u64, characters: &mut Characters) {
        let bytes = chunk.len();
        if self.house.options.hex {
            self.print_data(Data { bytes, shown: chunk, hex: Some(offset) });
        } else {
            let shown = &characters.push(chunk);
            self.print_data(Data { bytes, shown, hex: None });
        }
    }

    fn print_data(&self, data: Data<'_>) {
        self.house.out.event(&Event::Read { conn: self.number, data });
    }

    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        counted::write_all(&mut &self.stream, bytes, &self.bytes_out)
    }

    /// What an error on this connection says about its end.
    fn ending(&self, error: &io::Error) -> Ending {
        match error.kind() {
            _ if is_closed(error) => Ending::Cut,
            // Our own timeouts have no number; the kernel's ETIMEDOUT says that the peer does not acknowledge.
            TimedOut if error.raw_os_error().is_none() => Ending::Idle,
            ConnectionReset | ConnectionAborted | BrokenPipe => Ending::Reset,
            _ => Ending::Failed(crate::exit::reason(error)),
        }
    }

    /// Sends FIN and waits a moment for the peer's: to close with something unread would be a reset, and might cost the
    /// peer what it has not read yet.
    fn see_off(&self) {
        self.half_close();
        let _ = self.stream.set_read_timeout(None);
        let _ = self.stream.set_read_deadline(Some(Instant::now() + FAREWELL));
        let mut buffer = vec![0; BLOCK];
        while let Ok(1..) = (&self.stream).read(&mut buffer) {}
    }

    fn tell(&self, why: &Ending, after: Duration) {
        let totals = Totals { after, bytes_in: self.bytes_in.load(Relaxed), bytes_out: self.bytes_out.load(Relaxed) };
        // A connection that was cut has no descriptor any more to ask about.
        let path = (*why != Ending::Cut).then(|| kernel::path(&self.stream)).flatten();
        let event = Event::Closed { conn: self.number, why, totals, path };
        self.house.out.event(&event);
    }
}
