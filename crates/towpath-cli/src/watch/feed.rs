//! The changes of state as messages: a thread waits for them and passes them on, so that nobody else has to wait.

#![forbid(unsafe_code)]

use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use towpath::sync::channel::{SendTimeoutError, Sender};
use towpath_diag::{Changes, Event, Filter, Source};

/// How many events one message has at most.
const BATCH: usize = 256;
/// How long to wait at once for a reader who is behind.
const WAIT: Duration = Duration::from_millis(50);

/// What comes from a feed.
pub(crate) type Batch = io::Result<Vec<Event>>;

/// The thread that waits. Dropped, it has ended, and so has what the kernel set up for it.
#[derive(Debug)]
pub(crate) struct Feed {
    source: Source,
    stopping: Arc<AtomicBool>,
    /// Closed to wake the thread.
    waker: Option<PipeWriter>,
    thread: Option<JoinHandle<()>>,
}

impl Feed {
    /// Has the changes of sockets that `filter` lets pass come to `to`; after an error nothing comes any more.
    pub(crate) fn start<T: From<Batch> + Send + 'static>(filter: &Filter, to: Sender<T>) -> io::Result<Feed> {
        let changes = Changes::open(filter, Changes::INTERVAL)?;
        let source = changes.source().clone();
        let (woken, waker) = io::pipe()?;
        let stopping = Arc::new(AtomicBool::new(false));
        let work = Work { changes, woken, stopping: Arc::clone(&stopping), to };
        let thread = thread::Builder::new().name("changes".into()).spawn(move || work.run())?;
        Ok(Feed { source, stopping, waker: Some(waker), thread: Some(thread) })
    }

    /// Where the changes come from.
    pub(crate) fn source(&self) -> &Source {
        &self.source
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Relaxed);
        self.waker = None;
        if let Some(thread) = self.thread.take() {
            // It has panicked, and so said why.
            let _ = thread.join();
        }
    }
}

struct Work<T> {
    changes: Changes,
    /// Readable, for it is at its end, when we are to stop.
    woken: PipeReader,
    stopping: Arc<AtomicBool>,
    to: Sender<T>,
}

impl<T: From<Batch> + Send> Work<T> {
    fn run(mut self) {
        loop {
            let batch = self.wait().and_then(|()| self.collect());
            let failed = batch.is_err();
            if batch.as_ref().is_ok_and(Vec::is_empty) {
                if self.stopping.load(Ordering::Relaxed) {
                    return;
                }
                continue;
            }
            if !self.pass_on(batch) || failed {
                return;
            }
        }
    }

    fn wait(&self) -> io::Result<()> {
        let changes = self.changes.as_fd();
        let mut fds = [PollFd::from_borrowed_fd(changes, PollFlags::IN), PollFd::new(&self.woken, PollFlags::IN)];
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    fn collect(&mut self) -> io::Result<Vec<Event>> {
        let mut batch = Vec::new();
        while batch.len() < BATCH
            && !self.stopping.load(Ordering::Relaxed)
            && let Some(event) = self.changes.next(Some(Duration::ZERO))?
        {
            batch.push(event);
        }
        Ok(batch)
    }

    /// False if nobody wants to know any more.
    fn pass_on(&self, batch: Batch) -> bool {
        let mut message = T::from(batch);
        while !self.stopping.load(Ordering::Relaxed) {
            match self.to.send_timeout(message, WAIT) {
                Ok(()) => return true,
                Err(SendTimeoutError::Timeout(back)) => message = back,
                Err(_) => return false,
            }
        }
        false
    }
}
