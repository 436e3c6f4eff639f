//! Puts what was read from the rings of all processors into the order of its times. Pure.
//!
//! The rings are read one after the other, so that when all have been, nothing is missing of what is older than the beginning
//! but what was being written down just then; what is newer waits for the next reading, since a ring that was read before may
//! have something older by now. Changes of one socket are in order for certain: its lock is held while one is traced, so that a
//! later one, on another ring, is newer than the beginning whenever the earlier was not there to be read.
#![forbid(unsafe_code)]

use std::time::Duration;

use super::format::Record;

#[derive(Default, Debug)]
pub(super) struct Order {
    held: Vec<Record>,
}

impl Order {
    pub(super) fn push(&mut self, record: Record) {
        self.held.push(record);
    }

    /// Those from before this time, oldest first.
    pub(super) fn release(&mut self, complete_until: Duration) -> impl Iterator<Item = Record> {
        self.held.sort_by_key(|record| record.at);
        let complete = self.held.partition_point(|record| record.at < complete_until);
        self.held.drain(..complete)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Order, Record};
    use crate::{Family, State};

    fn at(nanos: u64) -> Record {
        let end = ([127, 0, 0, 1], 1).into();
        let at = Duration::from_nanos(nanos);
        Record { at, socket: 7, old: State::Closed, new: State::Listen, family: Family::V4, local: end, peer: end }
    }

    #[test]
    fn what_is_complete_comes_in_order_and_the_rest_waits() {
        let mut order = Order::default();
        let mut release = |records: &[u64], until| {
            records.iter().for_each(|&nanos| order.push(at(nanos)));
            let released: Vec<_> =
                order.release(Duration::from_nanos(until)).map(|record| record.at.as_nanos()).collect();
            (released, order.is_empty())
        };
        // One ring, then the other; the reading began at 30.
        assert_eq!(release(&[10, 20, 31, 15, 29, 30], 30), (vec![10, 15, 20, 29], false));
        // Then the first has something from between.
        assert_eq!(release(&[30, 33], 33), (vec![30, 30, 31], false));
        assert_eq!(release(&[], 34), (vec![33], true));
    }
}
