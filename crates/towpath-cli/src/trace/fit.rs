//! Text into a width: how wide it is on a terminal, and where a line of pieces breaks.

#![forbid(unsafe_code)]

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

/// Bytes that most lines need.
pub(crate) const LINE: usize = 64;

/// How many columns `text`, which has no escapes in it, takes.
pub(crate) fn width(text: &str) -> usize {
    // An ASCII character takes one column: none need be looked up.
    if text.is_ascii() { text.len() } else { text.width() }
}

/// `pieces` with spaces between them, in lines of at most `room` columns. A piece that is wider by itself is broken.
pub(crate) fn lines<'a>(pieces: impl IntoIterator<Item = &'a str>, room: usize) -> Vec<String> {
    let room = room.max(1);
    let mut lines = Vec::new();
    let (mut line, mut used) = (String::with_capacity(room.min(LINE)), 0);
    let mut put = |word: &str, columns: usize| {
        if !line.is_empty() && used + 1 + columns > room {
            lines.push(std::mem::take(&mut line));
            used = 0;
        }
        if !line.is_empty() {
            line.push(' ');
            used += 1;
        }
        line.push_str(word);
        used += columns;
    };
    for piece in pieces {
        match width(piece) {
            columns if columns <= room => put(piece, columns),
            // Its words, and those that are too wide in parts.
            _ => piece.split(' ').flat_map(|word| parts(word, room)).for_each(|part| put(&part, width(&part))),
        }
    }
    if !line.is_empty() {
        lines.push(line);
    }
    lines
}

/// `text` in parts of at most `room` columns, all but the last as wide as can be.
pub(crate) fn parts(text: &str, room: usize) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut used = 0;
    for c in text.chars() {
        let columns = c.width().unwrap_or(0);
        if used + columns > room.max(2) {
            parts.push(String::new());
            used = 0;
        }
        parts.last_mut().expect("there is always one").push(c);
        used += columns;
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_breaks_between_pieces() {
        let pieces = ["35 B", "seq 1..36", "ack 15"];
        assert_eq!(lines(pieces, 80), ["35 B seq 1..36 ack 15"]);
        assert_eq!(lines(pieces, 14), ["35 B seq 1..36", "ack 15"]);
        assert_eq!(lines(pieces, 10), ["35 B", "seq 1..36", "ack 15"]);
    }

    #[test]
    fn what_is_too_wide_is_broken_and_nothing_is_lost() {
        let pieces = ["acknowledges what", "x"];
        assert_eq!(lines(pieces, 6), ["acknow", "ledges", "what x"]);
        for room in 0..20 {
            let together = lines(pieces, room).concat().replace(' ', "");
            assert_eq!(together, "acknowledgeswhatx");
        }
    }

    #[test]
    fn wide_characters_count_twice() {
        assert_eq!(parts("日本語", 4), ["日本", "語"]);
        assert_eq!(parts("", 4), [""]);
    }
}
