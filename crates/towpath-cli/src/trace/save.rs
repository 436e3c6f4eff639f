//! Packets into a pcapng file (`-w`), as they came, with what is known of them as comments.

#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{self, BufWriter};
use std::path::Path;

use towpath_capture::file::{About, Interface, Writer};
use towpath_capture::{Frame, Timestamp};

use crate::exit::{Exit, Failure, reason};

/// A file that is being written. Whatever fails, the failure names it.
#[derive(Debug)]
pub(crate) struct Saver {
    writer: Writer<BufWriter<File>>,
    /// How it is called in messages.
    name: String,
}

impl Saver {
    /// Creates the file, or empties it.
    pub(crate) fn create(path: &Path) -> Result<Saver, Failure> {
        let about = About::here(concat!("towpath ", env!("CARGO_PKG_VERSION")));
        let writer = Writer::create(path, &about).map_err(|e| {
            let exit = if e.kind() == io::ErrorKind::PermissionDenied { Exit::NoPermission } else { Exit::Other };
            Failure::new(exit, format!("write {}", reason(&e))).hint("Name a file that you may write to: -w FILE")
        })?;
        Ok(Saver { writer, name: path.display().to_string() })
    }

    /// How it is called in messages.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Says what an interface is; `number` is what its frames have.
    pub(crate) fn describe(&mut self, number: u32, interface: &Interface) -> Result<(), Failure> {
        self.writer.add_interface(number, interface).map_err(|e| failed(&e))
    }

    /// Adds a frame.
    pub(crate) fn write(&mut self, frame: &Frame<'_>) -> Result<(), Failure> {
        self.writer.write(frame).map_err(|e| failed(&e))
    }

    /// Makes what was added there for others to read.
    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        self.writer.flush().map_err(|e| failed(&e))
    }

    /// Says how many frames came by an interface and were dropped since `began`.
    pub(crate) fn count(&mut self, interface: u32, began: Timestamp, received: u64, dropped: u64) -> Result<(), Failure> {
        let now = Timestamp::from(std::time::SystemTime::now());
        match self.writer.add_statistics(interface, began, now, received, dropped) {
            // Nothing came by it.
            Err(e) if e.kind() == io::ErrorKind::InvalidInput => Ok(()),
            counted => counted.map_err(|e| failed(&e)),
        }
    }

    /// Completes the file.
    pub(crate) fn finish(self) -> Result<(), Failure> {
        self.writer.finish().map(drop).map_err(|e| failed(&e))
    }
}

/// The error names the file.
fn failed(error: &io::Error) -> Failure {
    let failure = Failure::new(Exit::Other, format!("write {}", reason(error)));
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            failure.hint("All before that is in the file; to write less, give a port: towpath trace -w FILE 8330")
        }
        _ => failure,
    }
}
