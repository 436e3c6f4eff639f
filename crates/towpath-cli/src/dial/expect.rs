//! `--expect`: whether a stream has said something yet, however it was cut into reads.

#![forbid(unsafe_code)]

use regex::bytes::Regex;

/// How much of the stream's end is kept, and so the longest match that is found.
const WINDOW: usize = 64 * 1024;

/// A pattern, and as much of the stream as it looks at.
#[derive(Debug)]
pub(super) struct Expectation {
    pattern: Regex,
    seen: Vec<u8>,
}

impl Expectation {
    pub(super) fn new(pattern: Regex) -> Expectation {
        Expectation { pattern, seen: Vec::new() }
    }

    /// Whether the stream matches now that `chunk` was read.
    pub(super) fn is_met_by(&mut self, chunk: &[u8]) -> bool {
        self.seen.extend_from_slice(chunk);
        if self.pattern.is_match(&self.seen) {
            return true;
        }
        // Seldom, so that it costs little; and between lines where that is possible, for `^`.
        if self.seen.len() > 2 * WINDOW {
            let from = self.seen.len() - WINDOW;
            let line = self.seen[from..].iter().position(|&b| b == b'\n');
            self.seen.drain(..from + line.map_or(0, |end| end + 1));
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expect(pattern: &str) -> Expectation {
        let mut builder = regex::bytes::RegexBuilder::new(pattern);
        Expectation::new(builder.multi_line(true).build().unwrap())
    }

    #[test]
    fn a_match_may_be_split_between_reads() {
        let mut expectation = expect("^220 re");
        assert!(!expectation.is_met_by(b"hello\n22"));
        assert!(!expectation.is_met_by(b"0 r"));
        assert!(expectation.is_met_by(b"e"));
    }

    #[test]
    fn a_long_stream_is_not_kept() {
        let mut expectation = expect("^end$");
        for _ in 0..100 {
            assert!(!expectation.is_met_by(&b"not the end\n".repeat(1000)));
            assert!(expectation.seen.len() <= 2 * WINDOW + 12_000);
        }
        assert!(expectation.is_met_by(b"end\n"));
    }
}
