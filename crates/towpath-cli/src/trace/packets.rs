//! Where packets come from, and what is said where they do not come.

#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::fd::AsFd;
use std::path::Path;

use towpath_capture::Frame;
use towpath_capture::file::{Interface, ReadError, Reader};

use super::stop::{Stop, Stoppable};
use crate::exit::{Exit, Failure, reason};

/// A capture file.
pub(super) struct FilePackets {
    reader: Reader<Box<dyn Read + Send>>,
    name: String,
}

impl FilePackets {
    /// Opens a file.
    pub(super) fn open(path: &Path, stop: &Stop) -> Result<FilePackets, Failure> {
        let name = path.display().to_string();
        let file = File::open(path).map_err(|e| {
            let exit = if e.kind() == io::ErrorKind::PermissionDenied { Exit::NoPermission } else { Exit::Other };
            Failure::new(exit, format!("read {name}: {}", reason(&e)))
        })?;
        FilePackets::new(file, name, stop)
    }

    /// Reads stdin.
    pub(super) fn stdin(stop: &Stop) -> Result<FilePackets, Failure> {
        // Not through std's own buffer, which would hide that there is something to read.
        let file = io::stdin().as_fd().try_clone_to_owned().map(File::from);
        let file = file.map_err(|e| Failure::new(Exit::Other, format!("read stdin: {}", reason(&e))))?;
        FilePackets::new(file, "stdin".to_owned(), stop)
    }

    fn new(input: File, name: String, stop: &Stop) -> Result<FilePackets, Failure> {
        let input = Stoppable { input, stop: stop.clone() };
        let input: Box<dyn Read + Send> = Box::new(BufReader::with_capacity(1 << 16, input));
        let reader = Reader::new(input).map_err(|e| unreadable(&name, &e))?;
        Ok(FilePackets { reader, name })
    }

    /// The next packet; none at the end.
    pub(super) fn read(&mut self) -> Result<Option<Frame<'_>>, Failure> {
        self.reader.read_frame().map_err(|e| unreadable(&self.name, &e))
    }

    /// The interfaces that it has told of so far.
    pub(super) fn interfaces(&self) -> &[Interface] {
        self.reader.interfaces()
    }

    /// How many packets whoever wrote it has lost, if it says.
    pub(super) fn dropped(&self) -> Option<u64> {
        let dropped = self.interfaces().iter().filter_map(|interface| interface.dropped);
        dropped.reduce(u64::saturating_add)
    }
}

/// What is wrong with a file, and with which part of it.
fn unreadable(name: &str, error: &ReadError) -> Failure {
    let shell_name = if name.contains([' ', '\'', '"', '$', '\\']) { format!("{name:?}") } else { name.to_owned() };
    match error {
        ReadError::NotACapture(_) => Failure::new(Exit::Usage, format!("read {name}: {error}"))
            .hint(if name == "stdin" { "Try: tcpdump -w - | towpath trace -r -".to_owned() } else { format!("To see what it is: file {shell_name}") }),
        ReadError::Io { offset, source } => {
            let place = if *offset > 0 { format!(" after byte {offset}") } else { String::new() };
            Failure::new(Exit::Other, format!("read {name}{place}: {}", reason(source)))
        }
        // What came before it has been shown.
        _ => Failure::new(Exit::Other, format!("read {name}: {error}")).hint("All before that was read"),
    }
}
