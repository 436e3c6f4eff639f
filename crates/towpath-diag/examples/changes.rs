//! Says how the states of TCP sockets change in the next ten seconds. A program that runs until it is interrupted has to handle
//! the signal: tracing ends when `Changes` is dropped.
//!
//!     cargo run --example changes            of all of them
//!     cargo run --example changes -- 8330    of those of a port

use std::io::{self, Write};
use std::time::Duration;

use towpath_diag::{Changes, Event, Filter, monotonic};

const FOR: Duration = Duration::from_secs(10);

fn main() -> io::Result<()> {
    let mut filter = Filter::new();
    for port in std::env::args().skip(1) {
        filter = filter.port(port.parse().map_err(|_| io::Error::other(format!("{port} is no port")))?);
    }
    let mut changes = Changes::open(&filter, Changes::INTERVAL)?;
    eprintln!("{:?}, {}", changes.source(), changes.place().unwrap_or("by dumps"));

    let (start, mut out) = (monotonic(), io::stdout().lock());
    while let Some(left) = FOR.checked_sub(monotonic() - start) {
        match changes.next(Some(left))? {
            Some(Event::Change(change)) => {
                let peer = change.peer.map_or("*".into(), |peer| peer.to_string());
                let (at, about) = (change.at.saturating_sub(start), if change.exact { ' ' } else { '~' });
                writeln!(out, "{at:>14?}{about} {} {peer} {} → {}", change.local, change.old, change.new)?;
            }
            Some(Event::Lost(some)) => writeln!(out, "{some} lost")?,
            Some(_) | None => {}
        }
    }
    Ok(())
}
