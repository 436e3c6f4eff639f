//! Where a socket is registered, and how that changes: its home.
//!
//! ```text
//!               first wait on a worker: at once
//! no home ─────────────────────────────────────▶ registered ── three waits in a row elsewhere ──▶ no home,
//!    │                                            ▲  │   │         (Move sent)                  Attach sent there
//!    └── first wait on a plain thread: ───────────┘  │   └── its worker goes ──▶ no home, all who wait try again
//!        Attach sent to the emptiest worker          ▼
//!                                                  closed: close, drop, into_std
//! ```
//!
//! Only a worker itself adds to its poller and removes from it; others ask by a message. Adding reports what is ready at
//! that moment, so nothing is lost between two homes. The lock orders registration against closing.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, mpsc};

use rustix::io::Errno;

use super::error::closed;
use super::readiness::{Force, Mode, Progress};
use super::socket::Socket;
use crate::poller::{Interest, Ready, Token};
use crate::runtime;
use crate::runtime::wait::Op;
use crate::runtime::worker::{self, Message, Remote, Source, Worker};

/// Waits in a row by tasks of another worker, nobody else waiting, until the registration moves to theirs.
const AWAY: u8 = 3;

/// Which worker's poller reports on a socket.
#[derive(Debug, Default)]
pub(super) struct Home {
    /// The worker's [`Remote::id`] once it has registered us, else 0.
    id: AtomicU32,
    /// Waits in a row away from home.
    away: AtomicU8,
    /// Somebody has had to wait to write: reports tell of writing, or will. Changed under the lock.
    writing: AtomicBool,
    place: Mutex<Place>,
}

#[derive(Debug, Default)]
struct Place {
    worker: Option<Arc<Remote>>,
    /// What that worker calls us; `None` while it has yet to register us.
    token: Option<Token>,
    /// Why it could not. The next call that has to wait takes it.
    failure: Option<io::Error>,
    /// No registration any more.
    closed: bool,
}

impl Home {
    fn lock(&self) -> MutexGuard<'_, Place> {
        self.place.lock().expect("no code of the user's runs under this lock")
    }
}

impl Socket {
    /// Sees to it that reports come, for a caller that is about to wait.
    #[inline]
    pub(super) fn register(self: &Arc<Self>, op: Op) -> io::Result<()> {
        let here = worker::current();
        let to_write = matches!(op, Op::Write | Op::Connect) && !self.home.writing.load(Ordering::Relaxed);
        let home_id = self.home.id.load(Ordering::Relaxed);
        if !to_write && here.is_some_and(|worker| worker.remote.id == home_id) {
            self.home.away.store(0, Ordering::Relaxed);
            return Ok(());
        }
        self.register_from(here, to_write)
    }

    #[cold]
    fn register_from(self: &Arc<Self>, here: Option<&Worker>, to_write: bool) -> io::Result<()> {
        // Who waits on a plain thread needs a runtime to be woken by, and that may have to start.
        let default = here.is_none().then(runtime::default).transpose()?;
        let mut home = self.home.lock();
        if let Some(failure) = home.failure.take() {
            return Err(failure);
        }
        if to_write {
            self.register_writing(here, &home)?;
        }
        match (&home.worker, here) {
            (None, Some(worker)) => self.attach_to(worker, &mut home),
            (None, None) => {
                default.iter().for_each(|runtime| self.send_for(&mut home, runtime.emptiest()));
                Ok(())
            }
            (Some(remote), Some(worker)) if home.token.is_some() && self.is_away() => {
                let away = Message::Move(self.as_source(), worker.remote.clone());
                _ = remote.send(away); // a worker that has gone has told us so, or will
                Ok(())
            }
            (Some(_), _) => Ok(()),
        }
    }

    /// Has reports tell of writing from now on. With no registration yet, the one to come will.
    fn register_writing(self: &Arc<Self>, here: Option<&Worker>, home: &Place) -> io::Result<()> {
        if let (Some(remote), Some(token)) = (&home.worker, home.token) {
            match here.filter(|worker| Arc::ptr_eq(&worker.remote, remote)) {
                Some(worker) => worker.register_writing(self.fd(), token)?,
                None => _ = remote.send(Message::Attach(self.as_source())), // as above
            }
        }
        self.home.writing.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Whether the caller, who waits away from home, will be all that waits, as before it others of its kind were.
    fn is_away(&self) -> bool {
        if self.read.waiters() + self.write.waiters() > 0 {
            return false;
        }
        let away = self.home.away.fetch_add(1, Ordering::Relaxed) + 1;
        if away < AWAY {
            return false;
        }
        self.home.away.store(0, Ordering::Relaxed);
        true
    }

    /// Asks a worker, from another thread, to register us.
    fn send_for(self: &Arc<Self>, home: &mut Place, remote: &Arc<Remote>) {
        home.worker = Some(remote.clone());
        if remote.send(Message::Attach(self.as_source())).is_err() {
            home.worker = None;
            self.forget();
        }
    }

    fn attach_to(self: &Arc<Self>, worker: &Worker, home: &mut Place) -> io::Result<()> {
        if home.closed {
            return Err(closed());
        }
        let interest = if self.home.writing.load(Ordering::Relaxed) { Interest::Both } else { Interest::Reading };
        home.token = Some(worker.register(self.fd(), self.as_source(), interest)?);
        home.worker = Some(worker.remote.clone());
        self.home.id.store(worker.remote.id, Ordering::Relaxed);
        Ok(())
    }

    /// Ends the registration with `worker`; false if it has none.
    fn leave(&self, worker: &Worker, home: &mut Place) -> bool {
        let at_home = home.worker.as_ref().is_some_and(|home| Arc::ptr_eq(home, &worker.remote));
        let Some(token) = home.token.take_if(|_| at_home) else { return false };
        home.worker = None;
        self.home.id.store(0, Ordering::Relaxed);
        worker.deregister(self.fd(), token);
        true
    }

    fn as_source(self: &Arc<Self>) -> Arc<dyn Source> {
        self.clone()
    }

    /// Has everybody who waits try again.
    fn forget(&self) {
        self.read.forget();
        self.write.forget();
    }

    /// Ends the registration of a descriptor that is about to be closed. If closing it `may_block`, the poller must have
    /// let go of the file before: what this returns is to be waited for.
    pub(super) fn retire(&self, may_block: bool) -> Retired {
        let mut home = self.home.lock();
        home.closed = true;
        self.home.id.store(0, Ordering::Relaxed);
        let (Some(remote), Some(token)) = (home.worker.take(), home.token.take()) else { return Retired(None) };
        if let Some(worker) = worker::current().filter(|worker| Arc::ptr_eq(&worker.remote, &remote)) {
            worker.forget(token);
            return Retired(None);
        }
        let (done, retired) = may_block.then(mpsc::channel).unzip();
        _ = remote.send(Message::Forget(token, done)); // one that has gone has forgotten us
        Retired(retired)
    }

    /// Ends the registration of a descriptor that lives on elsewhere, and waits until it has ended.
    pub(super) fn detach(self: &Arc<Self>) -> io::Result<()> {
        self.read.set_deadline(None);
        self.read.set_timeout(None);
        let remote = {
            let mut home = self.home.lock();
            home.closed = true;
            home.worker.clone().filter(|_| home.token.is_some())
        };
        let Some(remote) = remote else { return Ok(()) };
        match worker::current().filter(|worker| Arc::ptr_eq(&worker.remote, &remote)) {
            Some(worker) => self.clone().detach_from(worker),
            None => _ = remote.send(Message::Detach(self.as_source())), // one that has gone has let go of us
        }
        let detached = || match self.home.lock().token {
            None => Ok(Progress::Done(())),
            Some(_) => Err(Errno::AGAIN),
        };
        self.read.operate(self.wait(Op::Read), Mode::Wait, None, || Ok(()), detached)
    }
}

/// A registration that ends.
#[derive(Debug)]
#[must_use = "who is about to block must wait for it"]
pub(super) struct Retired(Option<mpsc::Receiver<()>>);

impl Retired {
    /// Blocks the thread until it has ended.
    pub(super) fn wait(self) {
        self.0.into_iter().for_each(|retired| _ = retired.recv()); // the sender goes, and sends nothing
    }
}

impl Source for Socket {
    fn attach(self: Arc<Self>, worker: &Worker) {
        let mut home = self.home.lock();
        if !home.worker.as_ref().is_some_and(|home| Arc::ptr_eq(home, &worker.remote)) {
            return;
        }
        let attached = match home.token {
            None => self.attach_to(worker, &mut home).inspect_err(|_| home.worker = None),
            Some(token) => {
                let added = worker.register_writing(self.fd(), token);
                added.inspect_err(|_| self.home.writing.store(false, Ordering::Relaxed))
            }
        };
        if let Err(error) = attached {
            home.failure = Some(error);
            drop(home);
            self.forget();
        }
    }

    fn move_to(self: Arc<Self>, worker: &Worker, to: &Arc<Remote>) {
        let mut home = self.home.lock();
        if !home.closed && self.leave(worker, &mut home) {
            self.send_for(&mut home, to);
        }
    }

    fn detach_from(self: Arc<Self>, worker: &Worker) {
        self.leave(worker, &mut self.home.lock());
        self.forget();
    }

    fn reported(&self, ready: Ready) {
        let over = ready.contains(Ready::HANGUP);
        let error = ready.contains(Ready::ERROR);
        let force = |always: bool| match (always, error) {
            (true, _) => Force::Always,
            (false, true) => Force::Once,
            (false, false) => Force::Nothing,
        };
        if ready.intersects(Ready::READABLE | Ready::READ_CLOSED | Ready::HANGUP | Ready::ERROR | Ready::URGENT) {
            // A read stops short at urgent data although more is there. A peer that sent some may send more, and a later
            // report need not tell: the byte may have been taken (MSG_OOB) before the report is made.
            self.read.report(force(over || ready.intersects(Ready::READ_CLOSED | Ready::URGENT)));
        }
        if ready.intersects(Ready::WRITABLE | Ready::HANGUP | Ready::ERROR) {
            self.write.report(force(over));
        }
    }

    fn orphaned(&self) {
        let mut home = self.home.lock();
        home.worker = None;
        home.token = None;
        self.home.id.store(0, Ordering::Relaxed);
        drop(home);
        self.forget();
    }
}
