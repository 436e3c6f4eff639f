//! Bytes that strangers sent, made fit for a terminal.
//!
//! TCP keeps no boundaries, so a read may end inside a character: [`Characters`] holds the beginning back until the rest
//! has come. [`escape`] shows what is no text, and what would steer the terminal, as escapes. [`hex_dump`] shows it all.

#![forbid(unsafe_code)]

use std::borrow::Cow;
use std::fmt::Write as _;

/// Cuts a stream of bytes between characters.
#[derive(Debug, Default)]
pub(crate) struct Characters {
    /// The beginning of a character whose end has not been read: at most three bytes.
    held: Vec<u8>,
}

impl Characters {
    /// What was held back and `chunk`, up to the last whole character. Bytes that can never become one are passed on.
    pub(crate) fn push<'a>(&mut self, chunk: &'a [u8]) -> Cow<'a, [u8]> {
        if self.held.is_empty() {
            let (whole, begun) = chunk.split_at(whole_characters(chunk));
            self.held.extend_from_slice(begun);
            return Cow::Borrowed(whole);
        }
        self.held.extend_from_slice(chunk);
        let begun = self.held.split_off(whole_characters(&self.held));
        Cow::Owned(std::mem::replace(&mut self.held, begun))
    }

    /// What was held back for a rest that will not come.
    pub(crate) fn finish(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.held)
    }
}

/// How many of `bytes` come before a character that begins at their end and does not end there.
fn whole_characters(bytes: &[u8]) -> usize {
    let last = bytes.utf8_chunks().last();
    let begun = last.map_or(0, |chunk| {
        // An invalid sequence at the very end may be only cut short. `from_utf8` knows: it has no length for such.
        match std::str::from_utf8(chunk.invalid()) {
            Err(e) if e.error_len().is_none() => chunk.invalid().len(),
            _ => 0,
        }
    });
    bytes.len() - begun
}

/// `bytes` as text on one line: line ends, controls, what reverses, hides or widens text, bytes that are no UTF-8 and (if
/// `ascii`) all other than ASCII are written as Rust writes them in a string, so that nothing in it acts on a terminal
/// and nothing is lost.
pub(crate) fn escape(bytes: &[u8], ascii: bool) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c == '\\' || c.is_control() || acts(c) || (ascii && !c.is_ascii()) {
                text.extend(c.escape_default());
            } else {
                text.push(c);
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

/// Characters that are no controls and yet change how what is around them looks: line separators, directions, the
/// byte order mark, what makes a wide picture of the character before.
fn acts(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{fe0f}' | '\u{feff}')
}

/// `bytes` sixteen a line after `indent`, as `hexdump -C` has them; `offset` is that of the first.
pub(crate) fn hex_dump(bytes: &[u8], offset: u64, indent: &str) -> String {
    let mut dump = String::new();
    for (line, start) in bytes.chunks(16).zip((offset..).step_by(16)) {
        let _ = write!(dump, "{indent}{start:08x} ");
        for column in 0..16 {
            if column % 8 == 0 {
                dump.push(' ');
            }
            let _ = match line.get(column) {
                Some(byte) => write!(dump, "{byte:02x} "),
                None => write!(dump, "   "),
            };
        }
        let shown = line.iter().map(|&b| if (b' '..=b'~').contains(&b) { char::from(b) } else { '.' });
        dump.push_str(" |");
        dump.extend(shown);
        dump.push_str("|\n");
    }
    dump
}

/// `bytes` as two digits each, with nothing between.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let mut digits = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        let _ = write!(digits, "{byte:02x}");
    }
    digits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_character_split_between_reads_is_shown_once_it_is_whole() {
        let mut characters = Characters::default();
        let euro = "€".as_bytes();
        assert_eq!(*characters.push(b"1 "), *b"1 ");
        assert_eq!(*characters.push(&euro[..1]), *b"");
        assert_eq!(*characters.push(&euro[1..2]), *b"");
        assert_eq!(*characters.push(&[euro[2], b'!']), *"€!".as_bytes());
        assert_eq!(characters.finish(), b"");
    }

    #[test]
    fn however_a_text_is_cut_it_comes_out_whole() {
        let text = "aé€🦀\n".repeat(3);
        for size in 1..8 {
            let mut characters = Characters::default();
            let mut out = String::new();
            for chunk in text.as_bytes().chunks(size) {
                out += std::str::from_utf8(&characters.push(chunk)).unwrap();
            }
            assert_eq!(out, text, "{size} bytes at a time");
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_not_held_back() {
        let mut characters = Characters::default();
        assert_eq!(*characters.push(b"\xff"), *b"\xff");
        assert_eq!(*characters.push(b"a\xe2\x28"), *b"a\xe2\x28");
        assert_eq!(*characters.push(b"b\xe2\x82"), *b"b");
        assert_eq!(*characters.push(b"c"), *b"\xe2\x82c");
        characters.push(b"\xf0\x9f");
        assert_eq!(characters.finish(), b"\xf0\x9f");
    }

    #[test]
    fn nothing_escaped_acts_on_a_terminal() {
        assert_eq!(escape(b"\x1b[31mred\x07\r\n", false), r"\u{1b}[31mred\u{7}\r\n");
        assert_eq!(escape("a\u{9b}31m\u{202e}b".as_bytes(), false), r"a\u{9b}31m\u{202e}b");
        assert_eq!(escape(b"C:\\ \xff", false), r"C:\\ \xff");
        assert_eq!(escape("1\u{fe0f}".as_bytes(), false), r"1\u{fe0f}");
        assert_eq!(escape("naïve 🦀 'x' \"y\"".as_bytes(), false), "naïve 🦀 'x' \"y\"");
        assert_eq!(escape("µs".as_bytes(), true), r"\u{b5}s");
    }

    #[test]
    fn a_dump_has_sixteen_bytes_a_line() {
        let dump = hex_dump(b"hello towpath\n0123", 16, "  ");
        let lines: Vec<_> = dump.lines().collect();
        assert_eq!(
            lines,
            [
                "  00000010  68 65 6c 6c 6f 20 74 6f  77 70 61 74 68 0a 30 31  |hello towpath.01|",
                "  00000020  32 33                                             |23|",
            ]
        );
    }
}
