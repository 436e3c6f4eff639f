//! Writes pcapng, in this machine's byte order, with times in nanoseconds.

#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use super::Interface;
use super::block::{BYTE_ORDER, INTERFACE, PACKET, SECTION, STATISTICS};
use crate::{Frame, Timestamp};

/// What a file says about where it comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct About {
    /// The machine.
    pub hardware: Option<String>,
    /// The system.
    pub os: Option<String>,
    /// The program that captured.
    pub application: Option<String>,
}

impl About {
    /// This machine and its system, as far as they tell.
    pub fn here(application: impl Into<String>) -> About {
        let kernel = |name: &str| fs::read_to_string(format!("/proc/sys/kernel/{name}")).ok();
        let os = kernel("ostype").zip(kernel("osrelease"));
        About {
            hardware: Some(std::env::consts::ARCH.to_owned()),
            os: os.map(|(name, release)| format!("{} {}", name.trim(), release.trim())),
            application: Some(application.into()),
        }
    }
}

/// Writes frames to a pcapng file, or into a pipe.
///
/// Dropping it writes what is buffered and tells nobody whether that went well: [`finish`](Writer::finish) does.
#[derive(Debug)]
pub struct Writer<W: Write> {
    output: W,
    path: Option<PathBuf>,
    /// The place in the file for each [`Frame::interface`].
    places: HashMap<u32, u32>,
    block: Vec<u8>,
}

impl Writer<BufWriter<File>> {
    /// Creates a file, or empties it.
    ///
    /// # Errors
    ///
    /// As [`File::create`] and [`Write::write_all`]; all errors of this writer name the file.
    pub fn create(path: impl AsRef<Path>, about: &About) -> io::Result<Self> {
        let path = path.as_ref();
        let file = File::create(path).map_err(|error| naming(Some(path), error))?;
        Writer::begin(BufWriter::with_capacity(1 << 16, file), Some(path.to_owned()), about)
    }
}

impl<W: Write> Writer<W> {
    /// Begins a file. `output` should be buffered.
    ///
    /// # Errors
    ///
    /// As [`Write::write_all`].
    pub fn new(output: W, about: &About) -> io::Result<Writer<W>> {
        Writer::begin(output, None, about)
    }

    fn begin(output: W, path: Option<PathBuf>, about: &About) -> io::Result<Writer<W>> {
        let mut writer = Writer { output, path, places: HashMap::new(), block: Vec::new() };
        writer.start(SECTION);
        writer.put(&BYTE_ORDER.to_ne_bytes());
        // Version 1.0, and a length that is not known.
        writer.put(&1_u16.to_ne_bytes());
        writer.put(&0_u16.to_ne_bytes());
        writer.put(&u64::MAX.to_ne_bytes());
        for (code, text) in [(2, &about.hardware), (3, &about.os), (4, &about.application)] {
            if let Some(text) = text {
                writer.option(code, text.as_bytes());
            }
        }
        writer.end()?;
        Ok(writer)
    }

    /// Describes an interface. `number` is what frames of that interface have as [`Frame::interface`]; described again,
    /// it means the new one from then on.
    ///
    /// # Errors
    ///
    /// As [`Write::write_all`].
    pub fn add_interface(&mut self, number: u32, interface: &Interface) -> io::Result<()> {
        self.start(INTERFACE);
        self.put(&interface.link.0.to_ne_bytes());
        self.put(&0_u16.to_ne_bytes());
        self.put(&interface.snap_len.to_ne_bytes());
        if let Some(name) = &interface.name {
            self.option(2, name.as_bytes());
        }
        // Nanoseconds.
        self.option(9, &[9]);
        self.end()?;
        let place = self.places.values().max().map_or(0, |last| last + 1);
        self.places.insert(number, place);
        Ok(())
    }

    /// Writes a frame and, if it has one, its comment. An interface that was not described becomes one without a name.
    ///
    /// # Errors
    ///
    /// As [`Write::write_all`].
    pub fn write(&mut self, frame: &Frame<'_>) -> io::Result<()> {
        let place = match self.places.get(&frame.interface) {
            Some(&place) => place,
            None => {
                self.add_interface(frame.interface, &Interface::new(frame.link))?;
                self.places[&frame.interface]
            }
        };
        self.start(PACKET);
        self.put(&place.to_ne_bytes());
        self.time(frame.time);
        self.put(&(frame.data.len() as u32).to_ne_bytes());
        self.put(&frame.original_len.to_ne_bytes());
        self.padded(frame.data);
        if !frame.comment.is_empty() {
            self.option(1, frame.comment.as_bytes());
        }
        self.end()
    }

    /// Says how many frames were received and dropped at an interface since `began`; usually the last to be written.
    ///
    /// # Errors
    ///
    /// As [`Write::write_all`], and `InvalidInput` for an interface that was neither described nor had a frame.
    pub fn add_statistics(
        &mut self,
        interface: u32,
        began: Timestamp,
        now: Timestamp,
        received: u64,
        dropped: u64,
    ) -> io::Result<()> {
        let Some(&place) = self.places.get(&interface) else {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "statistics of an interface without a description",
            ));
        };
        self.start(STATISTICS);
        self.put(&place.to_ne_bytes());
        self.time(now);
        for (code, time) in [(2, began), (3, now)] {
            let [high, low] = halves(time);
            self.option(code, &[high, low].concat());
        }
        for (code, count) in [(4, received), (5, dropped)] {
            self.option(code, &count.to_ne_bytes());
        }
        self.end()
    }

    /// Writes what is buffered, as someone who watches the file wants it.
    ///
    /// # Errors
    ///
    /// As [`Write::flush`].
    pub fn flush(&mut self) -> io::Result<()> {
        self.output.flush().map_err(|error| naming(self.path.as_deref(), error))
    }

    /// Writes what is buffered, and ends.
    ///
    /// # Errors
    ///
    /// As [`Write::flush`].
    pub fn finish(mut self) -> io::Result<W> {
        self.flush()?;
        Ok(self.output)
    }

    fn start(&mut self, kind: u32) {
        self.block.clear();
        self.put(&kind.to_ne_bytes());
        // The length, once it is known.
        self.put(&[0; 4]);
    }

    fn end(&mut self) -> io::Result<()> {
        // The end of the options, where there are any or not: it means nothing else.
        self.put(&[0; 4]);
        let len = (self.block.len() as u32 + 4).to_ne_bytes();
        self.block[4..8].copy_from_slice(&len);
        self.put(&len);
        self.output.write_all(&self.block).map_err(|error| naming(self.path.as_deref(), error))
    }

    fn put(&mut self, bytes: &[u8]) {
        self.block.extend_from_slice(bytes);
    }

    fn padded(&mut self, bytes: &[u8]) {
        self.put(bytes);
        self.block.resize(self.block.len().next_multiple_of(4), 0);
    }

    fn time(&mut self, time: Timestamp) {
        for half in halves(time) {
            self.put(&half);
        }
    }

    /// An option, of which as much is written as one can hold.
    fn option(&mut self, code: u16, value: &[u8]) {
        let mut len = value.len().min(usize::from(u16::MAX));
        // Not amid a character, if it is text.
        while len < value.len() && value[len] & 0xc0 == 0x80 {
            len -= 1;
        }
        self.put(&code.to_ne_bytes());
        self.put(&(len as u16).to_ne_bytes());
        self.padded(&value[..len]);
    }
}

/// A time as the format has it, the upper half first whatever the byte order.
fn halves(time: Timestamp) -> [[u8; 4]; 2] {
    let nanos = time.as_nanos();
    [((nanos >> 32) as u32).to_ne_bytes(), (nanos as u32).to_ne_bytes()]
}

fn naming(path: Option<&Path>, error: io::Error) -> io::Error {
    match path {
        Some(path) => io::Error::new(error.kind(), format!("{}: {error}", path.display())),
        None => error,
    }
}
