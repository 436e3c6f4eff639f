//! Ctrl-C and SIGTERM as messages. A plain thread waits for them, since tasks cannot: the handler itself only writes a
//! byte to a pipe that this thread reads (signal-hook's iterator).

#![forbid(unsafe_code)]

use std::{io, process, thread};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use towpath::sync::channel::{self, Receiver};

use crate::exit::Exit;

/// Ctrl-C.
pub(crate) const INTERRUPT: &[i32] = &[SIGINT];
/// Ctrl-C, and the polite way to end a service.
pub(crate) const STOP: &[i32] = &[SIGINT, SIGTERM];

/// Has the first of `signals` come as a message and the second end the process at once.
///
/// To be called before the runtime's threads exist and from a thread that takes signals: the waiting thread inherits
/// its mask.
pub(crate) fn first_of(signals: &[i32]) -> io::Result<Receiver<i32>> {
    let (send, receive) = channel::bounded(1);
    let mut signals = Signals::new(signals)?;
    let wait = move || {
        for (count, signal) in signals.forever().enumerate() {
            if count > 0 || send.try_send(signal).is_err() {
                process::exit(Exit::Interrupted.code().into());
            }
        }
    };
    thread::Builder::new().name("signals".into()).spawn(wait)?;
    Ok(receive)
}

/// Has every one of `signals` come as a message, but for those that come while many have not been taken yet: what is not
/// an order to end says the same however often it comes. The second order to end ends the process at once, after
/// `last_resort`. To be called where [`first_of`] is.
pub(crate) fn every(signals: &'static [i32], last_resort: fn()) -> io::Result<Receiver<i32>> {
    let (send, receive) = channel::bounded(16);
    let mut signals = Signals::new(signals)?;
    let wait = move || {
        let mut orders = 0;
        for signal in signals.forever() {
            let order = matches!(signal, SIGINT | SIGTERM | SIGHUP);
            orders += u32::from(order);
            let taken = send.try_send(signal).is_ok();
            if orders > 1 || (order && !taken) {
                last_resort();
                process::exit(Exit::Interrupted.code().into());
            }
        }
    };
    thread::Builder::new().name("signals".into()).spawn(wait)?;
    Ok(receive)
}
