//! The ends of connections as they are shown.

#![forbid(unsafe_code)]

use std::net::SocketAddr;

/// Shows addresses.
#[derive(Debug, Default)]
pub(crate) struct Ends {}

impl Ends {
    /// As they are.
    pub(crate) fn numeric() -> Ends {
        Ends::default()
    }

    /// `127.0.0.1:8330`
    pub(crate) fn show(&mut self, end: SocketAddr) -> String {
        end.to_string()
    }
}
