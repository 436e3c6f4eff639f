//! The ends of connections as they are shown: by address, or by name (`--resolve`).

#![forbid(unsafe_code)]

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use crate::watch::names::Names;

/// How long a line waits for the names on it. A name that takes longer is there the next time.
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

    /// `127.0.0.1:8330`, `localhost:8330`
    pub(crate) fn show(&mut self, end: SocketAddr) -> String {
        let Some(names) = &mut self.names else { return end.to_string() };
        let ip = end.ip();
        if names.of(ip).is_none() {
            names.ask([ip]);
            names.wait(PATIENCE);
        }
        match names.of(ip) {
            Some(name) => format!("{name}:{}", end.port()),
            None => end.to_string(),
        }
    }
}
