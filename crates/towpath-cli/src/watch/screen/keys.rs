//! What is typed, as messages: a thread reads the terminal, so that nobody else has to wait for it.
//!
//! The bytes are decoded here, and not by crossterm, whose reader loses what is typed while the size changes, and turns for
//! ever when the terminal is gone (0.29). Known are the keys that `watch` has a use for, in the forms that xterm and its kin
//! send them; every other sequence is passed over as a whole.

#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{self, IsTerminal as _, stdin};
use std::os::fd::{AsFd, OwnedFd};
use std::thread;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use towpath::sync::channel::Sender;

/// How long the rest of a sequence may take to arrive: after that, its beginning was the Escape key.
const REST: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
/// The longest sequence that is waited for.
const LONGEST: usize = 64;

/// A key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    Char(char),
    /// With the control key.
    Control(char),
    Enter,
    Escape,
    Backspace,
    Delete,
    Up,
    Down,
    Left,
    Right,
    Home,
    End,
    PageUp,
    PageDown,
}

/// What comes from the terminal.
#[derive(Debug)]
pub(super) enum Typed {
    Key(Key),
    /// Nothing more will come: the terminal is gone.
    Gone,
}

/// Has what is typed come to `to`.
pub(super) fn start<T: From<Typed> + Send + 'static>(to: Sender<T>) -> io::Result<()> {
    let terminal = terminal()?;
    let read = move || {
        let mut decoder = Decoder::default();
        while let Ok(more) = read(&terminal, &mut decoder) {
            while let Some(key) = decoder.next(more) {
                if to.send(Typed::Key(key).into()).is_err() {
                    return;
                }
            }
        }
        let _ = to.send(Typed::Gone.into());
    };
    thread::Builder::new().name("keys".into()).spawn(read)?;
    Ok(())
}

/// Where keys come from: stdin, or else the terminal that we belong to.
fn terminal() -> io::Result<OwnedFd> {
    if stdin().is_terminal() {
        return stdin().as_fd().try_clone_to_owned();
    }
    Ok(File::options().read(true).write(true).open("/dev/tty")?.into())
}

/// Reads more of what is typed, and says whether what there is may still be continued. An error: nothing more will come.
fn read(terminal: &OwnedFd, decoder: &mut Decoder) -> io::Result<bool> {
    let patience = decoder.has_begun().then_some(&REST);
    let mut fds = [PollFd::new(terminal, PollFlags::IN)];
    match poll(&mut fds, patience) {
        Ok(0) => return Ok(false),
        Ok(_) => {}
        Err(Errno::INTR) => return Ok(true),
        Err(e) => return Err(e.into()),
    }
    let mut bytes = [0; 1024];
    match rustix::io::read(terminal, &mut bytes) {
        Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
        Ok(count) => {
            decoder.push(&bytes[..count]);
            Ok(true)
        }
        Err(Errno::INTR | Errno::AGAIN) => Ok(true),
        Err(e) => Err(e.into()),
    }
}

/// Makes keys of bytes.
#[derive(Debug, Default)]
struct Decoder {
    bytes: Vec<u8>,
}

/// What a few bytes are.
enum Decoded {
    /// So many bytes are this key, or none that is known.
    Key(usize, Option<Key>),
    /// The beginning of something.
    Begun,
}

impl Decoder {
    fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
    }

    /// Whether there is the beginning of something.
    fn has_begun(&self) -> bool {
        !self.bytes.is_empty()
    }

    /// The next key. What may be continued is held back if `more` may come.
    fn next(&mut self, more: bool) -> Option<Key> {
        while let [first, ..] = self.bytes[..] {
            let (count, key) = match decode(&self.bytes) {
                Decoded::Key(count, key) => (count, key),
                Decoded::Begun if more && self.bytes.len() < LONGEST => return None,
                // It was not the beginning of anything after all.
                Decoded::Begun => (1, (first == 0x1b).then_some(Key::Escape)),
            };
            self.bytes.drain(..count);
            if key.is_some() {
                return key;
            }
        }
        None
    }
}

fn decode(bytes: &[u8]) -> Decoded {
    match *bytes {
        [0x1b, b'[', ref rest @ ..] => control_sequence(rest),
        [0x1b, b'O', letter, ..] => Decoded::Key(3, letter_key(letter)),
        [0x1b] | [0x1b, b'O'] => Decoded::Begun,
        // Twice, or with the Alt key, which means the same here.
        [0x1b, ..] => Decoded::Key(1, Some(Key::Escape)),
        [b'\r' | b'\n', ..] => Decoded::Key(1, Some(Key::Enter)),
        [0x7f | 0x08, ..] => Decoded::Key(1, Some(Key::Backspace)),
        [byte @ 0x01..=0x1a, ..] => Decoded::Key(1, Some(Key::Control(char::from(byte + b'a' - 1)))),
        [0x00..=0x1f, ..] => Decoded::Key(1, None),
        _ => character(bytes),
    }
}

/// A character of UTF-8.
fn character(bytes: &[u8]) -> Decoded {
    let Some(chunk) = bytes.utf8_chunks().next() else { return Decoded::Begun };
    match chunk.valid().chars().next() {
        Some(c) => Decoded::Key(c.len_utf8(), Some(Key::Char(c))),
        // One that ends too early, and may go on.
        None if chunk.invalid().len() == bytes.len()
            && std::str::from_utf8(bytes).is_err_and(|e| e.error_len().is_none()) =>
        {
            Decoded::Begun
        }
        None => Decoded::Key(chunk.invalid().len(), None),
    }
}

/// What follows ESC [ (ECMA-48, 5.4): parameters, which say which key it is where the last byte is `~`, and one last byte.
fn control_sequence(rest: &[u8]) -> Decoded {
    let Some(last) = rest.iter().position(|byte| !(0x20..=0x3f).contains(byte)) else { return Decoded::Begun };
    let parameters = &rest[..last];
    // Modifiers follow the first parameter, and change nothing here.
    let first = parameters.split(|&byte| byte == b';').next().unwrap_or_default();
    let key = match (rest[last], first) {
        (b'~', b"1" | b"7") => Some(Key::Home),
        (b'~', b"4" | b"8") => Some(Key::End),
        (b'~', b"3") => Some(Key::Delete),
        (b'~', b"5") => Some(Key::PageUp),
        (b'~', b"6") => Some(Key::PageDown),
        (b'~', _) => None,
        (letter, _) => letter_key(letter),
    };
    Decoded::Key("\x1b[".len() + last + 1, key)
}

fn letter_key(letter: u8) -> Option<Key> {
    Some(match letter {
        b'A' => Key::Up,
        b'B' => Key::Down,
        b'C' => Key::Right,
        b'D' => Key::Left,
        b'H' => Key::Home,
        b'F' => Key::End,
        b'M' => Key::Enter,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The keys that these pieces are, each read by itself, when nothing follows the last.
    fn keys(pieces: &[&[u8]]) -> Vec<Key> {
        let mut decoder = Decoder::default();
        let mut keys = vec![];
        for piece in pieces {
            decoder.push(piece);
            keys.extend(std::iter::from_fn(|| decoder.next(true)));
        }
        keys.extend(std::iter::from_fn(|| decoder.next(false)));
        assert!(!decoder.has_begun());
        keys
    }

    #[test]
    fn a_key_is_known_in_each_of_its_forms() {
        for (forms, key) in [
            (&[&b"\x1b[A"[..], b"\x1bOA", b"\x1b[1;5A"][..], Key::Up),
            (&[b"\x1b[B", b"\x1bOB"], Key::Down),
            (&[b"\x1b[C"], Key::Right),
            (&[b"\x1b[D"], Key::Left),
            (&[b"\x1b[H", b"\x1b[1~", b"\x1b[7~", b"\x1bOH"], Key::Home),
            (&[b"\x1b[F", b"\x1b[4~", b"\x1b[8~", b"\x1bOF"], Key::End),
            (&[b"\x1b[5~", b"\x1b[5;2~"], Key::PageUp),
            (&[b"\x1b[6~"], Key::PageDown),
            (&[b"\x1b[3~"], Key::Delete),
            (&[b"\r", b"\n", b"\x1bOM"], Key::Enter),
            (&[b"\x7f", b"\x08"], Key::Backspace),
            (&[b"\x03"], Key::Control('c')),
            (&[b"\x1a"], Key::Control('z')),
            (&[b"\x1b"], Key::Escape),
            (&[b"q"], Key::Char('q')),
            (&["é".as_bytes()], Key::Char('é')),
            (&["🦀".as_bytes()], Key::Char('🦀')),
        ] {
            for form in forms {
                assert_eq!(keys(&[form]), [key], "{form:?}");
                let bytes: Vec<&[u8]> = form.chunks(1).collect();
                assert_eq!(keys(&bytes), [key], "{form:?} byte by byte");
            }
        }
    }

    #[test]
    fn keys_that_come_together_are_told_apart() {
        let typed = b"/a\x1b[B\x1b[6~\x1b\x1b[Aq";
        let expected = [Key::Char('/'), Key::Char('a'), Key::Down, Key::PageDown, Key::Escape, Key::Up, Key::Char('q')];
        assert_eq!(keys(&[typed]), expected);
        for at in 0..typed.len() {
            let (head, tail) = typed.split_at(at);
            assert_eq!(keys(&[head, tail]), expected, "cut at {at}");
        }
    }

    #[test]
    fn what_is_not_known_is_passed_over_as_a_whole() {
        for unknown in
            [&b"\x1b[200~"[..], b"\x1b[99;99;99~", b"\x1b[?1;2c", b"\x1bOP", b"\x00", b"\x1c", b"\xff", b"\xc3("]
        {
            let typed = [unknown, b"q"].concat();
            let known: Vec<Key> = keys(&[&typed]).into_iter().filter(|&key| key != Key::Char('(')).collect();
            assert_eq!(known, [Key::Char('q')], "{unknown:?}");
        }
        // Without an end, it is not waited for for ever.
        let endless = [&b"\x1b["[..], &[b'1'; 200]].concat();
        assert_eq!(keys(&[&endless])[0], Key::Escape);
    }
}
