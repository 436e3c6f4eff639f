//! Waiting without a screen: for the next look, for what happens, for the order to stop.

#![forbid(unsafe_code)]

use std::io;
use std::time::Duration;

use towpath::sync::channel::Receiver;
use towpath::time::Instant;

use super::feed::Batch;
use crate::output::Output;

/// Why a wait is over.
#[derive(Debug)]
pub(super) enum Woken {
    /// It is time.
    Due,
    /// Something happened.
    Batch(Batch),
    /// A signal came.
    Stop(i32),
    /// Nobody reads our stdout any more, or it takes no more.
    Lost(Option<io::Error>),
}

/// What may end a wait.
#[derive(Debug)]
pub(super) struct Calls<'a> {
    pub(super) out: &'a Output,
    pub(super) stop: &'a Receiver<i32>,
    pub(super) batches: &'a Receiver<Batch>,
}

impl Calls<'_> {
    /// Waits until `due`, or without it for ever, or until something else is to be done. Once it is time, batches are left
    /// to wait; whoever is always late takes some by itself.
    pub(super) fn wait(&self, due: Option<Instant>) -> Woken {
        match due {
            // Also where something else is always there: of what can go ahead, time comes last.
            Some(due) if due <= Instant::now() => towpath::select! {
                recv(self.stop) -> signal => Woken::stop(signal.ok()),
                recv(self.out.lost()) -> why => Woken::Lost(why.ok()),
                timeout(Duration::ZERO) => Woken::Due,
            },
            Some(due) => {
                let left = due.saturating_duration_since(Instant::now());
                towpath::select! {
                    recv(self.stop) -> signal => Woken::stop(signal.ok()),
                    recv(self.out.lost()) -> why => Woken::Lost(why.ok()),
                    recv(self.batches) -> batch => Woken::batch(batch.ok()),
                    timeout(left) => Woken::Due,
                }
            }
            None => towpath::select! {
                recv(self.stop) -> signal => Woken::stop(signal.ok()),
                recv(self.out.lost()) -> why => Woken::Lost(why.ok()),
                recv(self.batches) -> batch => Woken::batch(batch.ok()),
            },
        }
    }
}

impl Woken {
    fn stop(signal: Option<i32>) -> Woken {
        // The thread that waits for signals lasts as long as the process.
        Woken::Stop(signal.unwrap_or(signal_hook::consts::SIGTERM))
    }

    fn batch(batch: Option<Batch>) -> Woken {
        Woken::Batch(batch.unwrap_or_else(|| Err(io::Error::other("the thread that waits for changes has ended"))))
    }
}

#[cfg(test)]
mod tests {
    use towpath::sync::channel;

    use super::*;
    use crate::output::Form;

    #[test]
    fn once_it_is_time_what_happens_waits_and_signals_do_not() {
        let out = Output::start(Form::Json);
        let (signal, stop) = channel::bounded(1);
        let (send, batches) = channel::bounded::<Batch>(1);
        let calls = Calls { out: &out, stop: &stop, batches: &batches };
        send.send(Ok(vec![])).unwrap();
        let now = Instant::now();
        for _ in 0..20 {
            assert!(matches!(calls.wait(Some(now)), Woken::Due));
        }
        signal.send(15).unwrap();
        assert!(matches!(calls.wait(Some(now)), Woken::Stop(15)));
        assert!(matches!(calls.wait(Some(now + Duration::from_secs(3_600))), Woken::Batch(Ok(_))));
    }
}
