//! What `dial` sends: stdin as it is typed, or all of it over and over.

#![forbid(unsafe_code)]

use std::io::{self, IsTerminal as _, Read, stdin};
use std::thread;

use towpath::sync::channel::{self, Receiver, Sender};
use towpath::task::JoinHandle;

use crate::exit::{Exit, Failure, reason};

/// What is read from stdin at once.
const BLOCK: usize = 16 * 1024;
/// What is kept of stdin to be sent again.
const MOST: usize = 16 << 20;

/// Bytes to send, as they become known; disconnected at their end.
pub(super) struct Input {
    pub(super) chunks: Receiver<io::Result<Vec<u8>>>,
}

impl Input {
    /// Stdin, read by a plain thread from now on: a terminal cannot be polled for and the read of a file blocks.
    pub(super) fn of_stdin() -> Input {
        // Little: what is not sent yet stays where it came from, and whoever writes there feels it.
        let (send, chunks) = channel::bounded(4);
        let start = thread::Builder::new().name("stdin".into()).spawn({
            let send = send.clone();
            move || forward(&send)
        });
        if let Err(e) = start {
            let _ = send.send(Err(e));
        }
        Input { chunks }
    }

    /// `bytes` and no more.
    pub(super) fn of(bytes: &[u8]) -> Input {
        let (send, chunks) = channel::bounded(1);
        if !bytes.is_empty() {
            let _ = send.try_send(Ok(bytes.to_vec()));
        }
        Input { chunks }
    }

    /// Stdin to its end, to be sent more than once, read on a thread that may block. Nothing if it is a terminal: nobody
    /// wants to type first.
    pub(super) fn whole_stdin() -> JoinHandle<Result<Vec<u8>, Failure>> {
        towpath::task::spawn_blocking(|| {
            let mut all = Vec::new();
            if !stdin().is_terminal() {
                stdin().lock().take(MOST as u64 + 1).read_to_end(&mut all).map_err(|e| unreadable(&e))?;
            }
            if all.len() > MOST {
                return Err(Failure::new(Exit::Usage, "stdin is longer than 16 MiB")
                    .hint("--repeat keeps it to send it again; dial once for more"));
            }
            Ok(all)
        })
    }
}

/// Stdin cannot be read.
pub(super) fn unreadable(error: &io::Error) -> Failure {
    Failure::new(Exit::Other, format!("read stdin: {}", reason(error)))
}

/// Sends what stdin has until its end, or until nobody wants it.
fn forward(send: &Sender<io::Result<Vec<u8>>>) {
    let mut buffer = vec![0; BLOCK];
    loop {
        let chunk = match stdin().lock().read(&mut buffer) {
            Ok(0) => return,
            Ok(n) => Ok(buffer[..n].to_vec()),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => Err(e),
        };
        let last = chunk.is_err();
        if send.send(chunk).is_err() || last {
            return;
        }
    }
}

/// Makes every line end CR LF, also where a chunk ends between the two.
#[derive(Debug, Default)]
pub(super) struct Crlf {
    after_cr: bool,
}

impl Crlf {
    pub(super) fn convert(&mut self, chunk: &[u8]) -> Vec<u8> {
        let mut converted = Vec::with_capacity(chunk.len() + chunk.len() / 16);
        for &byte in chunk {
            if byte == b'\n' && !self.after_cr {
                converted.push(b'\r');
            }
            self.after_cr = byte == b'\r';
            converted.push(byte);
        }
        converted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_ends_become_cr_lf_once() {
        for chunks in [vec!["a\nb\r\n\n"], vec!["a", "\n", "b\r", "\n\n"]] {
            let mut crlf = Crlf::default();
            let sent: Vec<u8> = chunks.iter().flat_map(|c| crlf.convert(c.as_bytes())).collect();
            assert_eq!(sent, b"a\r\nb\r\n\r\n");
        }
    }
}
