//! The ends of connections as they are shown: by address, or by name (`--resolve`).

#![forbid(unsafe_code)]

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use towpath::sync::channel::Receiver;

use crate::watch::names::Names;

/// How long lines wait for the names on them. One that takes longer is there the next time.
const PATIENCE: Duration = Duration::from_secs(1);

/// Shows addresses.
#[derive(Debug, Default)]
pub(crate) struct Ends {
    names: Option<Names>,
}

impl Ends {
    /// As they are.
    pub(crate) fn numeric() -> Ends {
        Ends::default()
    }

    /// By the names that the resolver knows.
    pub(crate) fn resolved() -> io::Result<Ends> {
        Ok(Ends { names: Some(Names::start()?) })
    }

    /// Waits a little for the names of these; or returns the signal that comes first.
    pub(crate) fn learn(&mut self, addresses: impl Iterator<Item = IpAddr>, stop: &Receiver<i32>) -> Option<i32> {
        let names = self.names.as_mut()?;
        if names.ask(addresses) { names.wait(PATIENCE, stop) } else { None }
    }

    /// `127.0.0.1:8330`, `localhost:8330`
    pub(crate) fn show(&self, end: SocketAddr) -> String {
        match self.names.as_ref().and_then(|names| names.of(end.ip())) {
            Some(name) => format!("{name}:{}", end.port()),
            None => end.to_string(),
        }
    }
}
