//! [`Server`]: an accept loop that backs off, keeps a limit, and can be stopped and drained.

#![forbid(unsafe_code)]

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex};

use rustix::io::Errno;
use slab::Slab;

use super::socket::WeakHandle;
use super::{SocketAddr, TcpListener, TcpStream, is_closed};
use crate::is_cancelled;
use crate::runtime;
use crate::sync::channel::{self, Receiver, Sender};
use crate::time::{Duration, Instant};

/// The first wait after an error of `accept`; each further one waits twice as long.
const FIRST_BACKOFF: Duration = Duration::from_millis(5);
/// The longest wait.
const LAST_BACKOFF: Duration = Duration::from_secs(1);

type OnError = dyn Fn(&io::Error, Duration) + Send + Sync;

/// Accepts connections and spawns a task for each.
///
/// Its connections have TCP_NODELAY on. When descriptors or memory run out it waits, 5 ms at first and up to a second, and
/// goes on with what is queued; a handler that panics ends its own connection only.
///
/// ```
/// use std::io::{Read, Write};
/// use towpath::net::{Server, TcpListener, TcpStream};
/// use towpath::time::Duration;
///
/// let listener = TcpListener::bind("127.0.0.1:0")?;
/// let addr = listener.local_addr()?;
/// let server = Server::new(listener).max_connections(1000);
/// let stopper = server.stopper();
/// let task = towpath::spawn(move || {
///     server.serve(|mut stream, _peer| _ = stream.write_all(b"hello"))
/// });
/// let mut text = String::new();
/// TcpStream::connect(addr)?.read_to_string(&mut text)?;
/// assert_eq!(text, "hello");
/// assert_eq!(stopper.drain(Duration::from_secs(5)).cut, 0);
/// task.join().unwrap()?;
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct Server {
    listener: TcpListener,
    on_error: Box<OnError>,
    /// A message for each connection that may still be opened; `None` without a limit.
    places: Option<(Sender<()>, Receiver<()>)>,
    shared: Arc<Shared>,
    stopper: Stopper,
}

/// Stops a [`Server`], from anywhere. Clones are handles on the same server.
#[derive(Clone, Debug)]
pub struct Stopper {
    listener: Arc<TcpListener>,
    shared: Arc<Shared>,
}

/// What became of the connections that were open when draining began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// Those that ended by themselves.
    pub finished: usize,
    /// Those that were still open when the time was over, and were closed.
    pub cut: usize,
}

struct Shared {
    /// The connections that are open.
    open: Mutex<Slab<WeakHandle>>,
    /// Disconnected, for whoever waits on `stopped`, once the server is to stop.
    stop: Mutex<Option<Sender<()>>>,
    stopped: Receiver<()>,
    /// Disconnected once the server has stopped and the last connection is closed: each holds a clone of the sender.
    alive: Mutex<Option<Sender<()>>>,
    all_closed: Receiver<()>,
}

/// What a connection holds while it is open: its place, and its entry among those to be drained.
#[derive(Debug)]
struct Guard {
    key: usize,
    place: Option<Sender<()>>,
    shared: Arc<Shared>,
    _alive: Sender<()>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.shared.open.lock().expect("no code of the user's runs under this lock").remove(self.key);
        if let Some(place) = &self.place {
            _ = place.try_send(()); // a server that has stopped needs no places
        }
    }
}

impl Server {
    /// A server that will accept at `listener`.
    ///
    /// # Panics
    /// If the listener is closed.
    pub fn new(listener: TcpListener) -> Server {
        let (stop, stopped) = channel::unbounded();
        let (alive, all_closed) = channel::unbounded();
        let shared = Arc::new(Shared {
            open: Mutex::default(),
            stop: Mutex::new(Some(stop)),
            stopped,
            alive: Mutex::new(Some(alive)),
            all_closed,
        });
        let clone = listener.try_clone().expect("a server is made of a listener that is open");
        let stopper = Stopper { listener: Arc::new(clone), shared: shared.clone() };
        Server { listener, on_error: Box::new(|_, _| ()), places: None, shared, stopper }
    }

    /// At most this many connections are open at once; others wait in the kernel's queue until one of them closes.
    #[must_use = "a server does nothing until `serve`"]
    pub fn max_connections(mut self, max: usize) -> Server {
        let (give, take) = channel::unbounded();
        (0..max).for_each(|_| _ = give.try_send(()));
        self.places = Some((give, take));
        self
    }

    /// Calls `f` with each error of `accept`, and how long the server waits before it goes on.
    #[must_use = "a server does nothing until `serve`"]
    pub fn on_error(mut self, f: impl Fn(&io::Error, Duration) + Send + Sync + 'static) -> Server {
        self.on_error = Box::new(f);
        self
    }

    /// What stops this server.
    pub fn stopper(&self) -> Stopper {
        self.stopper.clone()
    }

    /// Accepts connections and runs `handler` on each, in a task of its own, until the server is stopped or its listener
    /// closed. Connections that are open then go on. A connection is open until the last handle on it is dropped, also if
    /// the handler has returned.
    ///
    /// # Errors
    /// What `accept` gave, if it is not worth trying again: the listener is none, or is past its deadline, or the caller
    /// may not wait.
    pub fn serve(self, handler: impl Fn(TcpStream, SocketAddr) + Send + Sync + 'static) -> io::Result<()> {
        runtime::ensure()?;
        let handler = Arc::new(handler);
        let mut backoff = FIRST_BACKOFF;
        while self.take_place() {
            let (stream, peer) = match self.listener.accept() {
                Ok(accepted) => accepted,
                Err(error) if is_closed(&error) => break,
                Err(error) if is_final(&error) => return Err(error),
                Err(error) => {
                    self.give_place();
                    (self.on_error)(&error, backoff);
                    if self.shared.stops_within(backoff) {
                        break;
                    }
                    backoff = LAST_BACKOFF.min(backoff * 2);
                    continue;
                }
            };
            backoff = FIRST_BACKOFF;
            _ = stream.set_nodelay(true); // the connection is as good without
            if !self.adopt(&stream) {
                break; // stopped in between: this one ends with those that were still queued
            }
            let handler = handler.clone();
            drop(crate::spawn(move || handler(stream, peer)));
        }
        Ok(())
    }

    /// Waits for a place for one more connection. False: the server is to stop.
    fn take_place(&self) -> bool {
        let Some((_, places)) = &self.places else { return !self.shared.is_stopped() };
        crate::select! {
            recv(places) -> place => place.is_ok(),
            recv(self.shared.stopped) -> _ => false,
        }
    }

    fn give_place(&self) {
        if let Some((places, _)) = &self.places {
            _ = places.try_send(()); // the receiver is ours
        }
    }

    /// Takes the connection among those that are open, unless the server has been stopped.
    fn adopt(&self, stream: &TcpStream) -> bool {
        let alive = self.shared.alive.lock().expect("no code of the user's runs under this lock");
        let Some(sender) = &*alive else { return false };
        let key =
            self.shared.open.lock().expect("no code of the user's runs under this lock").insert(stream.downgrade());
        let place = self.places.as_ref().map(|(give, _)| give.clone());
        stream.accompany(Box::new(Guard { key, place, shared: self.shared.clone(), _alive: sender.clone() }));
        true
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // No more connections will come: the last open one now holds the last sender.
        self.shared.alive.lock().expect("no code of the user's runs under this lock").take();
    }
}

impl Shared {
    fn is_stopped(&self) -> bool {
        self.stop.lock().expect("no code of the user's runs under this lock").is_none()
    }

    /// Waits, and tells whether the server was stopped meanwhile.
    fn stops_within(&self, time: Duration) -> bool {
        crate::select! {
            recv(self.stopped) -> _ => true,
            timeout(time) => false,
        }
    }
}

impl Stopper {
    /// Closes the listener. [`Server::serve`] returns; connections that are open go on.
    pub fn stop(&self) {
        self.shared.stop.lock().expect("no code of the user's runs under this lock").take();
        self.shared.alive.lock().expect("no code of the user's runs under this lock").take();
        _ = self.listener.close(); // a second stop has nothing left to close
    }

    /// Stops, waits up to `timeout` for the open connections to close, and closes those that have not.
    pub fn drain(&self, timeout: Duration) -> Drained {
        let deadline = Instant::after(timeout);
        self.stop();
        let open_at_first = self.open().len();
        while self.shared.all_closed.recv_deadline(deadline) == Ok(()) {}
        let left: Vec<TcpStream> =
            self.open().into_iter().filter_map(|open| open.upgrade().map(TcpStream::from_handle)).collect();
        let cut = left.iter().filter(|stream| stream.close().is_ok()).count();
        Drained { finished: open_at_first.saturating_sub(cut), cut }
    }

    /// How many connections are open.
    pub fn connections(&self) -> usize {
        self.shared.open.lock().expect("no code of the user's runs under this lock").len()
    }

    fn open(&self) -> Vec<WeakHandle> {
        let open = self.shared.open.lock().expect("no code of the user's runs under this lock");
        open.iter().map(|(_, stream)| stream.clone()).collect()
    }
}

/// Whether calling `accept` again would only fail again.
fn is_final(error: &io::Error) -> bool {
    use Errno as E;
    let hopeless = [E::BADF, E::INVAL, E::NOTSOCK, E::OPNOTSUPP, E::FAULT];
    is_cancelled(error)
        || error.kind() == io::ErrorKind::TimedOut
        || error.kind() == io::ErrorKind::WouldBlock
        || Errno::from_io_error(error).is_some_and(|errno| hopeless.contains(&errno))
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("listener", &self.listener).finish_non_exhaustive()
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}
