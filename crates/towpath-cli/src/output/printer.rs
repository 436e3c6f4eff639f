//! The one writer of stdout and stderr. It writes each piece by itself, so every line is flushed, and notices when the
//! reader of stdout is gone: by the error of a write, and, for a pipe, also while there is nothing to write (`dial |
//! head -1` must end though the server says no more).

#![forbid(unsafe_code)]

use std::io::{self, IsTerminal as _, stderr, stdout};
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, fstat};
use rustix::io::Errno;
use towpath::sync::channel::{Receiver, RecvTimeoutError, Sender};

/// How often an idle printer looks whether the pipe that is its stdout still has a reader.
const LOOK: Duration = Duration::from_millis(250);

/// Something to write.
#[derive(Debug)]
pub(crate) enum Piece {
    /// Data.
    Stdout(Vec<u8>),
    /// Commentary.
    Stderr(Vec<u8>),
    /// Nothing: the sender wants to know when all before it is written.
    Mark(Sender<()>),
}

/// Prints until the last sender is gone. When stdout takes no more, `losing` is disconnected, after a message if there
/// was an error other than that the reader left; from then on only commentary is printed.
pub(crate) fn run(pieces: &Receiver<Piece>, losing: Sender<io::Error>) {
    let mut pen = Pen::new();
    let mut losing = Some(losing);
    let piped = fstat(stdout()).is_ok_and(|s| FileType::from_raw_mode(s.st_mode) == FileType::Fifo);
    loop {
        let piece = if piped && losing.is_some() {
            pieces.recv_timeout(LOOK)
        } else {
            pieces.recv().map_err(|_| RecvTimeoutError::Disconnected)
        };
        let written = match piece {
            Ok(Piece::Stdout(_)) if losing.is_none() => continue,
            Ok(piece) => pen.write(piece),
            Err(RecvTimeoutError::Timeout) if !has_reader() => Err(Errno::PIPE),
            Err(RecvTimeoutError::Timeout) => continue,
            Err(_) => return,
        };
        let Err(error) = written else { continue };
        let losing = losing.take();
        if let Some(losing) = losing
            && error != Errno::PIPE
        {
            let _ = losing.try_send(error.into());
        }
    }
}

/// Writes one piece, whatever comes of it.
pub(crate) fn print(piece: Piece) {
    let _ = Pen::new().write(piece);
}

struct Pen {
    /// Data and commentary meet on one terminal, and the data's last line is not ended.
    mid_line: bool,
    terminal: bool,
}

impl Pen {
    fn new() -> Pen {
        Pen { mid_line: false, terminal: stdout().is_terminal() && stderr().is_terminal() }
    }

    fn write(&mut self, piece: Piece) -> Result<(), Errno> {
        match piece {
            Piece::Stdout(bytes) => {
                self.mid_line = self.terminal && bytes.last().is_some_and(|&b| b != b'\n');
                write_all(stdout(), &bytes)
            }
            Piece::Stderr(mut bytes) => {
                if std::mem::take(&mut self.mid_line) {
                    bytes.insert(0, b'\n');
                }
                // Commentary that nobody can read stops nothing.
                let _ = write_all(stderr(), &bytes);
                Ok(())
            }
            Piece::Mark(written) => {
                let _ = written.try_send(());
                Ok(())
            }
        }
    }
}

/// By write(2) itself: std's stdout would keep the end of a piece without a newline.
pub(super) fn write_all(stream: impl AsFd, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match rustix::io::write(&stream, bytes) {
            Ok(0) => return Err(Errno::IO),
            Ok(n) => bytes = &bytes[n..],
            Err(Errno::INTR) => {}
            // Somebody who shares our terminal made it non-blocking.
            Err(Errno::AGAIN) => {
                let _ = poll(&mut [PollFd::new(&stream, PollFlags::OUT)], None);
            }
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Whether the pipe that is our stdout has a reader: pipe(7) reports its absence as POLLERR.
fn has_reader() -> bool {
    let stdout = stdout();
    let mut fds = [PollFd::new(&stdout, PollFlags::empty())];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    match poll(&mut fds, Some(&now)) {
        Ok(_) => !fds[0].revents().contains(PollFlags::ERR),
        Err(_) => true,
    }
}
