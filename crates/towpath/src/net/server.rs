//! [`Server`]: an accept loop that backs off, keeps a limit, and can be stopped and drained; or one on every worker.

#![forbid(unsafe_code)]

use std::fmt;
use std::io;
use std::mem;
use std::sync::{Arc, Mutex};

use rustix::io::Errno;
use slab::Slab;

use super::socket::WeakHandle;
use super::{ListenOptions, SocketAddr, TcpListener, TcpStream, is_closed};
use crate::is_cancelled;
use crate::runtime::{self, park};
use crate::sync::channel::{self, Receiver, Sender};
use crate::task;
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
    on_every_worker: bool,
    shared: Arc<Shared>,
    stopper: Stopper,
}

/// Stops a [`Server`], from anywhere. Clones are handles on the same server.
#[derive(Clone, Debug)]
pub struct Stopper {
    /// Those that are accepted at, until the server is stopped.
    listeners: Arc<Mutex<Vec<TcpListener>>>,
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
        let stopper = Stopper { listeners: Arc::new(Mutex::new(vec![clone])), shared: shared.clone() };
        Server { listener, on_error: Box::new(|_, _| ()), places: None, on_every_worker: false, shared, stopper }
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

    /// With `true`, each worker of the runtime that the server serves on accepts at a listener of its own, and what it
    /// accepts is handled there, unless it has markedly more tasks than another worker or another is idle. For servers
    /// that a single accept loop holds back; for the others it is better left out.
    ///
    /// The listener that the server was given must be made with [`ListenOptions::reuse_port`]. One worker accepts at that
    /// one, the others at new ones at its address, which share nothing else with it. The kernel spreads connections over
    /// them by a hash, not by who has time: a connection that is queued at a worker which is held up waits for it.
    ///
    /// Limit and draining are the whole server's; each worker backs off by itself, so that the function given to
    /// [`on_error`](Self::on_error) may be called by several at once. If one of the loops ends, all do.
    ///
    /// ```
    /// use std::io::{Read, Write};
    /// use towpath::net::{ListenOptions, Server, TcpStream};
    ///
    /// let listener = ListenOptions::new().reuse_port(true).bind("127.0.0.1:0")?;
    /// let addr = listener.local_addr()?;
    /// let server = Server::new(listener).accept_on_every_worker(true);
    /// let stopper = server.stopper();
    /// let task = towpath::spawn(move || {
    ///     server.serve(|mut stream, _peer| _ = stream.write_all(b"hello"))
    /// });
    /// let mut text = String::new();
    /// TcpStream::connect(addr)?.read_to_string(&mut text)?;
    /// assert_eq!(text, "hello");
    /// stopper.stop();
    /// task.join().unwrap()?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[must_use = "a server does nothing until `serve`"]
    pub fn accept_on_every_worker(mut self, on: bool) -> Server {
        self.on_every_worker = on;
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
    /// may not wait. [On every worker](Self::accept_on_every_worker), also `InvalidInput` if the listener does not reuse its
    /// port, what binding the others gave, and an error if the runtime is shutting down.
    pub fn serve(self, handler: impl Fn(TcpStream, SocketAddr) + Send + Sync + 'static) -> io::Result<()> {
        runtime::ensure()?;
        let handler = Arc::new(handler);
        match self.on_every_worker {
            false => self.serve_at(&self.listener, &handler),
            true => self.serve_on_every_worker(&handler),
        }
    }

    /// Has a task on each worker serve at a listener of its own, and waits for all of them.
    fn serve_on_every_worker(
        self,
        handler: &Arc<impl Fn(TcpStream, SocketAddr) + Send + Sync + 'static>,
    ) -> io::Result<()> {
        park::may_wait()?;
        let runtime = runtime::current();
        let listeners = match self.listeners(runtime.remotes().len()) {
            Err(error) if is_closed(&error) => return Ok(()),
            listeners => listeners?,
        };
        let server = Arc::new(self);
        let mut loops = Vec::new();
        let mut result = Ok(());
        for (remote, listener) in runtime.remotes().iter().zip(listeners) {
            let (server, handler, all) = (server.clone(), handler.clone(), StopAtEnd(server.stopper()));
            let serve = move || {
                let _all = all;
                server.serve_at(&listener, &handler)
            };
            match task::Builder::new().spawn_staying(&runtime, remote, serve) {
                Some(spawned) => loops.push(spawned),
                // `serve` is dropped, and stops those that have been spawned.
                None => result = Err(io::Error::other("a runtime that shuts down serves on none of its workers")),
            }
        }
        loops.into_iter().fold(result, |result, task| result.and(task.join().unwrap_or_else(|error| error.resume())))
    }

    /// That many listeners at one address, the one that was given among them, which the stopper knows all of.
    fn listeners(&self, count: usize) -> io::Result<Vec<TcpListener>> {
        if !self.listener.reuses_port()? {
            let what = "to accept on every worker, a server's listener is made with ListenOptions::reuse_port";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        let addr = self.listener.local_addr()?;
        let options = ListenOptions::new().reuse_port(true);
        let others: Vec<_> = (1..count).map(|_| options.bind(addr)).collect::<io::Result<_>>()?;
        let clones: Vec<_> = others.iter().map(TcpListener::try_clone).collect::<io::Result<_>>()?;
        self.stopper.listeners.lock().expect("no code of the user's runs under this lock").extend(clones);
        if self.shared.is_stopped() {
            self.stopper.stop(); // the one that stopped it may not have seen these
        }
        let given = self.listener.try_clone()?;
        Ok([given].into_iter().chain(others).collect())
    }

    fn serve_at(
        &self,
        listener: &TcpListener,
        handler: &Arc<impl Fn(TcpStream, SocketAddr) + Send + Sync + 'static>,
    ) -> io::Result<()> {
        let mut backoff = FIRST_BACKOFF;
        loop {
            let (stream, peer) = match self.accept(listener) {
                Ok(Some(accepted)) => accepted,
                Ok(None) => break,
                Err(error) if is_closed(&error) => break,
                Err(error) if is_final(&error) => return Err(error),
                Err(error) => {
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

    /// Accepts a connection and takes a place for it. `None`: the server is to stop.
    fn accept(&self, listener: &TcpListener) -> io::Result<Option<(TcpStream, SocketAddr)>> {
        let shares_places = self.on_every_worker && self.places.is_some();
        loop {
            // A worker to which nobody connects must not keep a place from another: first come, then served.
            if shares_places {
                listener.wait_for_one()?;
            }
            if !self.take_place() {
                return Ok(None);
            }
            let accepted = if shares_places { listener.accept_queued() } else { listener.accept().map(Some) };
            match accepted {
                Ok(Some(accepted)) => return Ok(Some(accepted)),
                Ok(None) => self.give_place(), // somebody else has accepted it
                Err(error) => {
                    self.give_place();
                    return Err(error);
                }
            }
        }
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

/// Stops the server when it goes, with the first of several loops.
struct StopAtEnd(Stopper);

impl Drop for StopAtEnd {
    fn drop(&mut self) {
        self.0.stop();
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
    /// Closes the listener, on every worker if the server accepts there. [`Server::serve`] returns; connections that are open go on.
    pub fn stop(&self) {
        self.shared.stop.lock().expect("no code of the user's runs under this lock").take();
        self.shared.alive.lock().expect("no code of the user's runs under this lock").take();
        let listeners = mem::take(&mut *self.listeners.lock().expect("no code of the user's runs under this lock"));
        listeners.iter().for_each(|listener| _ = listener.close()); // one that was closed before stays so
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
