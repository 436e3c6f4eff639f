//! `towpath serve`: a listener, a conversation for each connection, and an orderly end.
//!
//! Accepting, its back-off, the limit and the drain are `towpath::net::Server`'s. What is said on a connection is
//! `conversation`'s. Here the two are joined, and signals turned into a stop.

#![forbid(unsafe_code)]

mod conversation;
mod house;

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use towpath::net::{Server, Stopper, TcpListener};
use towpath::sync::channel::Receiver;
use towpath::time::Instant;

use crate::args;
use crate::exit::{Exit, Failure, reason};
use crate::kernel;
use crate::output::event::Event;
use crate::output::{self, Output};
use conversation::Conversation;
use house::House;

/// Serves until told to stop.
pub(crate) fn run(options: &args::Serve, out: &Output, stop: &Receiver<i32>) -> Result<Exit, Failure> {
    let failed = |e| Failure::listen(&options.addr, e);
    let listener = TcpListener::bind(options.addr.as_str()).map_err(failed)?;
    // Only the `syn:` of each line is lost where the kernel does not know the option.
    let _ = kernel::save_syn(&listener);
    let addr = listener.local_addr().map_err(failed)?;

    let house = Arc::new(House::new(options.clone(), out.clone()));
    let complaints = Complaints::new(out.clone());
    let mut server = Server::new(listener).on_error(move |e, wait| complaints.hear(e, wait));
    if let Some(max) = options.max {
        server = server.max_connections(max.get());
    }
    let ending = towpath::spawn({
        let (house, stopper, stop) = (Arc::clone(&house), server.stopper(), stop.clone());
        move || end(&house, &stopper, &stop)
    });

    let mode = options.mode;
    out.event(&Event::Listening { addr, mode });
    server
        .serve(move |stream, peer| Conversation::hold(&house, stream, peer))
        .map_err(|e| Failure::new(Exit::Other, format!("accept tcp {addr}: {}", reason(&e))))?;
    // `serve` returns once `end` has stopped it, and `end` when the drain is over.
    ending.join().unwrap_or_else(|_| Err(Failure::new(Exit::Other, "stopping failed")))
}

/// Waits for the order to stop, or for the reader of stdout to leave; then sees the conversations to their end.
fn end(house: &House, stopper: &Stopper, stop: &Receiver<i32>) -> Result<Exit, Failure> {
    let (out, drain) = (&house.out, house.options.drain);
    let lost = towpath::select! {
        recv(stop) -> _ => None,
        recv(out.lost()) -> why => Some(why.ok()),
    };
    stopper.stop();
    if let Some(why) = lost {
        return output::stdout_lost(why);
    }
    let open = house.begin_drain();
    out.event(&Event::Draining { open, drain });
    let cut = stopper.drain(drain).cut;
    house.wait_until_empty();
    let finished = house.drained().saturating_sub(cut);
    out.event(&Event::Drained { finished, cut });
    Ok(Exit::Done)
}

/// Tells of accepts that failed, once a second at most, however often `Server` tries.
struct Complaints {
    out: Output,
    heard: Mutex<Heard>,
}

#[derive(Default)]
struct Heard {
    told: Option<Instant>,
    untold: u64,
}

impl Complaints {
    fn new(out: Output) -> Complaints {
        Complaints { out, heard: Mutex::default() }
    }

    fn hear(&self, error: &io::Error, wait: Duration) {
        let untold = self.heard.lock().unwrap_or_else(PoisonError::into_inner).tell(Instant::now());
        if let Some(untold) = untold {
            let error = reason(error);
            self.out.event(&Event::AcceptFailed { error, wait, untold });
        }
    }
}

impl Heard {
    /// Whether a failure at `now` is to be told, and if so how many since the last one were not.
    fn tell(&mut self, now: Instant) -> Option<u64> {
        if self.told.is_some_and(|told| now.duration_since(told) < Duration::from_secs(1)) {
            self.untold += 1;
            return None;
        }
        self.told = Some(now);
        Some(std::mem::take(&mut self.untold))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_to_accept_are_told_once_a_second_and_the_others_counted() {
        let mut heard = Heard::default();
        let start = Instant::now();
        let after = |millis| start + Duration::from_millis(millis);
        assert_eq!(heard.tell(after(0)), Some(0));
        assert_eq!([5, 15, 999].map(|millis| heard.tell(after(millis))), [None; 3]);
        assert_eq!(heard.tell(after(1000)), Some(3));
        assert_eq!(heard.tell(after(1999)), None);
        assert_eq!(heard.tell(after(2000)), Some(1));
    }
}
