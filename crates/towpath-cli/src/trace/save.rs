//! Packets into a pcapng file (`-w`), as they came, with what is known of them as comments.

#![forbid(unsafe_code)]

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufWriter};
use std::path::Path;
use std::time::SystemTime;

use towpath_capture::file::{About, Interface, Writer};
use towpath_capture::live::interface_name;
use towpath_capture::{Frame, Timestamp};

use crate::exit::{Exit, Failure, reason};

/// A file that is being written. Whatever fails, the failure names it.
#[derive(Debug)]
pub(crate) struct Saver {
    writer: Writer<BufWriter<File>>,
    name: String,
    /// The interfaces that were described.
    known: HashSet<u32>,
}

impl Saver {
    /// Creates the file, or empties it.
    pub(crate) fn create(path: &Path) -> Result<Saver, Failure> {
        let file = File::create(path).map_err(|e| {
            let exit = if e.kind() == io::ErrorKind::PermissionDenied { Exit::NoPermission } else { Exit::Other };
            Failure::new(exit, format!("write {}: {}", path.display(), reason(&e)))
                .hint("Name a file that you may write to: -w FILE")
        })?;
        Saver::new(file, path)
    }

    /// Writes to `file`, an empty one at `path`.
    pub(crate) fn new(file: File, path: &Path) -> Result<Saver, Failure> {
        let name = path.display().to_string();
        let about = About::here(concat!("towpath ", env!("CARGO_PKG_VERSION")));
        match Writer::new(BufWriter::with_capacity(1 << 16, file), &about) {
            Ok(writer) => Ok(Saver { writer, name, known: HashSet::new() }),
            Err(e) => Err(failed(&name, &e)),
        }
    }

    /// Whether the interface with this number was described.
    pub(crate) fn knows(&self, number: u32) -> bool {
        self.known.contains(&number)
    }

    /// Says what an interface is; `number` is what its frames have.
    pub(crate) fn describe(&mut self, number: u32, interface: &Interface) -> Result<(), Failure> {
        self.known.insert(number);
        self.writer.add_interface(number, interface).map_err(|e| failed(&self.name, &e))
    }

    /// Says what the interface is that a captured frame passed, with the first that did.
    pub(crate) fn describe_passed(&mut self, frame: &Frame<'_>) -> Result<(), Failure> {
        if self.knows(frame.interface) {
            return Ok(());
        }
        let mut interface = Interface::new(frame.link);
        interface.name = interface_name(frame.interface).ok();
        self.describe(frame.interface, &interface)
    }

    /// Adds a frame.
    pub(crate) fn write(&mut self, frame: &Frame<'_>) -> Result<(), Failure> {
        self.writer.write(frame).map_err(|e| failed(&self.name, &e))
    }

    /// Makes what was added there for others to read.
    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        self.writer.flush().map_err(|e| failed(&self.name, &e))
    }

    /// Says how many frames came in all since `began`, and how many were dropped: under the first interface, for the
    /// kernel counts them together.
    pub(crate) fn count(&mut self, began: Timestamp, received: u64, dropped: u64) -> Result<(), Failure> {
        let Some(&first) = self.known.iter().min() else { return Ok(()) };
        let now = Timestamp::from(SystemTime::now());
        self.writer.add_statistics(first, began, now, received, dropped).map_err(|e| failed(&self.name, &e))
    }

    /// Completes the file.
    pub(crate) fn finish(self) -> Result<(), Failure> {
        let Saver { writer, name, .. } = self;
        writer.finish().map(drop).map_err(|e| failed(&name, &e))
    }
}

fn failed(name: &str, error: &io::Error) -> Failure {
    let failure = Failure::new(Exit::Other, format!("write {name}: {}", reason(error)));
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            failure.hint("All before that is in the file; to write less, name a port: towpath trace -w FILE 8330")
        }
        _ => failure,
    }
}
