//! What a request says and what has to come back, byte for byte, at any place of the stream.

use clap::ValueEnum;
use towpath_bench::service::pattern;

/// The kind of service that is asked.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Kind {
    /// A message, and the same message back
    Echo,
    /// A length and so many bytes, and the length back
    Sink,
    /// A length, and so many bytes back
    Source,
}

/// All requests of a run are of one kind and one size.
pub(crate) struct Messages {
    kind: Kind,
    size: usize,
    pattern: Vec<u8>,
}

/// Bytes of a length.
const LENGTH: usize = 8;

impl Messages {
    pub(crate) fn new(kind: Kind, size: usize) -> Messages {
        Messages { kind, size, pattern: pattern() }
    }

    /// Bytes of a request.
    pub(crate) fn request_len(&self) -> usize {
        match self.kind {
            Kind::Echo => self.size,
            Kind::Sink => LENGTH + self.size,
            Kind::Source => LENGTH,
        }
    }

    /// Bytes of its answer.
    pub(crate) fn answer_len(&self) -> usize {
        match self.kind {
            Kind::Echo | Kind::Source => self.size,
            Kind::Sink => LENGTH,
        }
    }

    /// How many bytes may have been answered when `whole` requests and `part` bytes of the next one have been sent.
    pub(crate) fn answerable(&self, whole: u64, part: usize) -> u64 {
        let echoed = if self.kind == Kind::Echo { part as u64 } else { 0 };
        whole * self.answer_len() as u64 + echoed
    }

    /// What a connection's request holds from byte `at` on, as far as `bytes` reaches.
    pub(crate) fn fill_request(&self, connection: usize, number: u64, at: usize, bytes: &mut [u8]) {
        match self.kind {
            Kind::Echo => fill_unique(connection, number, at, bytes),
            Kind::Sink if at < LENGTH => {
                let (length, rest) = bytes.split_at_mut(bytes.len().min(LENGTH - at));
                self.fill_length(at, length);
                self.fill_pattern(0, rest);
            }
            Kind::Sink => self.fill_pattern(at - LENGTH, bytes),
            Kind::Source => self.fill_length(at, bytes),
        }
    }

    /// What its answer has to hold there.
    pub(crate) fn fill_answer(&self, connection: usize, number: u64, at: usize, bytes: &mut [u8]) {
        match self.kind {
            Kind::Echo => fill_unique(connection, number, at, bytes),
            Kind::Sink => self.fill_length(at, bytes),
            Kind::Source => self.fill_pattern(at, bytes),
        }
    }

    fn fill_length(&self, at: usize, bytes: &mut [u8]) {
        let length = (self.size as u64).to_le_bytes();
        bytes.copy_from_slice(&length[at..at + bytes.len()]);
    }

    fn fill_pattern(&self, mut at: usize, mut bytes: &mut [u8]) {
        while !bytes.is_empty() {
            let from = &self.pattern[at % self.pattern.len()..];
            let count = from.len().min(bytes.len());
            let (now, later) = bytes.split_at_mut(count);
            now.copy_from_slice(&from[..count]);
            (at, bytes) = (at + count, later);
        }
    }
}

/// Bytes that no other message of any connection has: splitmix64 from a seed of its own.
fn fill_unique(connection: usize, number: u64, at: usize, mut bytes: &mut [u8]) {
    let seed = ((connection as u64) << 40 | number).wrapping_mul(0xd134_2543_de82_ef95);
    let mut index = at as u64 / 8;
    let mut skip = at % 8;
    while !bytes.is_empty() {
        index += 1;
        let state = seed.wrapping_add(index.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let word = (mixed ^ (mixed >> 31)).to_le_bytes();
        let count = bytes.len().min(8 - skip);
        let (now, later) = bytes.split_at_mut(count);
        now.copy_from_slice(&word[skip..skip + count]);
        (skip, bytes) = (0, later);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_part_is_as_in_the_whole() {
        for kind in [Kind::Echo, Kind::Sink, Kind::Source] {
            let messages = Messages::new(kind, 100_000);
            let mut whole = vec![0; messages.request_len()];
            messages.fill_request(3, 7, 0, &mut whole);
            for at in [0, 1, 7, 8, 9, 65_543, 65_544, 99_999].into_iter().filter(|at| *at < whole.len()) {
                let mut part = vec![0; (whole.len() - at).min(70_000)];
                messages.fill_request(3, 7, at, &mut part);
                assert!(part == whole[at..at + part.len()], "{kind:?} from {at}");
            }
        }
    }

    #[test]
    fn no_two_echoes_are_alike() {
        let mut messages = std::collections::HashSet::new();
        for (connection, number) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            let mut bytes = [0; 16];
            fill_unique(connection, number, 0, &mut bytes);
            assert!(messages.insert(bytes));
        }
    }
}
