//! What a segment carries, below its arrow or line (`--data`): text as text, anything else as a hex dump.

#![forbid(unsafe_code)]

use super::fit;
use super::words::ASIDE;
use crate::output::look::Look;
use crate::output::text;

/// The columns of a hex dump's line.
const DUMP: usize = 78;

/// The lines for `payload`, whose first byte is the sender's byte number `offset` (from 0). `missing` more bytes were not
/// captured.
pub(crate) fn below(payload: &[u8], offset: u64, missing: usize, indent: usize, width: usize, look: Look) -> String {
    let mut out = String::new();
    if is_text(payload) {
        let room = width.saturating_sub(indent + 2);
        let lines = payload.strip_suffix(b"\n").unwrap_or(payload).split(|&b| b == b'\n');
        for line in lines {
            let line = text::escape(line.strip_suffix(b"\r").unwrap_or(line), look.ascii);
            for part in fit::parts(&line, room) {
                let row = format!("{:indent$}{} {part}", "", if look.ascii { "|" } else { "│" });
                out.push_str(row.trim_end());
                out.push('\n');
            }
        }
    } else {
        // Where there is no room below the arrow, it begins further left.
        let indent = " ".repeat(indent.min(width.saturating_sub(DUMP)));
        out += &text::hex_dump(payload, offset, &indent);
    }
    if missing > 0 {
        out += &format!("{:indent$}{}\n", "", look.paint(ASIDE, &format!("and {missing} B that were not captured")));
    }
    out
}

/// Whether it reads as text: UTF-8, but for a character that was cut at either end, and no control but white space.
fn is_text(payload: &[u8]) -> bool {
    let begun = payload.iter().take(3).take_while(|&&byte| byte & 0xc0 == 0x80).count();
    let text = match std::str::from_utf8(&payload[begun..]) {
        Ok(text) => text,
        Err(e) if e.error_len().is_none() && e.valid_up_to() > 0 => {
            std::str::from_utf8(&payload[begun..begun + e.valid_up_to()]).unwrap_or_default()
        }
        Err(_) => return false,
    };
    text.chars().all(|c| !c.is_control() || matches!(c, '\n' | '\r' | '\t'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Look = Look { color: false, ascii: false };

    #[test]
    fn text_is_shown_line_by_line_and_cut_to_the_width() {
        let text = b"GET / HTTP/1.0\r\nHost: a\r\n\r\n";
        assert_eq!(below(text, 0, 0, 2, 80, PLAIN), "  │ GET / HTTP/1.0\n  │ Host: a\n  │\n");
        assert_eq!(below(b"abcdefgh", 0, 2, 0, 6, PLAIN), "│ abcd\n│ efgh\nand 2 B that were not captured\n");
    }

    #[test]
    fn anything_else_is_a_dump_that_counts_on() {
        let dump = below(b"\x00\x01", 32, 0, 23, 80, PLAIN);
        assert!(dump.starts_with("  00000020  00 01 "), "{dump}");
        assert!(below(b"\x1b[2J", 0, 0, 2, 100, PLAIN).contains("1b 5b"), "no escape reaches the terminal");
        assert!(below(b"caf\xc3", 0, 0, 2, 100, PLAIN).contains("caf"));
        assert!(below(b"\xc3", 0, 0, 2, 100, PLAIN).contains(" c3 "));
    }
}
