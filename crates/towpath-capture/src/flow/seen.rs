//! Which sequence numbers of one direction have been seen: everything up to a point, and islands above it.

#![forbid(unsafe_code)]

/// A set of sequence numbers. It remembers so many islands at most; beyond that, the lowest gap is taken as seen.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// All below has been seen.
    low: i64,
    /// What has been seen above: from and to, sorted, with a gap before each.
    islands: Vec<(i64, i64)>,
}

impl Seen {
    /// As many gaps as a receiver with a full window and a bad day has; a kilobyte a direction.
    const MOST: usize = 64;

    /// All below `low`.
    pub(super) fn below(low: i64) -> Seen {
        Seen { low, islands: Vec::new() }
    }

    /// The first that has not been seen: what a receiver of all this would acknowledge.
    pub(super) fn low(&self) -> i64 {
        self.low
    }

    /// How many of these have been seen.
    pub(super) fn overlap(&self, from: i64, to: i64) -> i64 {
        let below = self.low.min(to).saturating_sub(from).max(0);
        let islands = self.islands.iter().map(|island| island.1.min(to).saturating_sub(island.0.max(from)).max(0));
        below + islands.sum::<i64>()
    }

    /// Adds these, and says how many are new.
    pub(super) fn add(&mut self, from: i64, to: i64) -> i64 {
        let from = from.max(self.low);
        if from >= to {
            return 0;
        }
        let new = to - from - self.overlap(from, to);
        if from > self.low {
            self.add_island(from, to);
        } else {
            self.reach(to);
        }
        new
    }

    /// All below `to` is known to have arrived.
    pub(super) fn reach(&mut self, to: i64) {
        self.low = self.low.max(to);
        let swallowed = self.islands.iter().take_while(|island| island.0 <= self.low).count();
        for (_, end) in self.islands.drain(..swallowed) {
            self.low = self.low.max(end);
        }
        // The last one swallowed may touch the next.
        if self.islands.first().is_some_and(|island| island.0 <= self.low) {
            self.reach(self.low);
        }
    }

    fn add_island(&mut self, mut from: i64, mut to: i64) {
        let first = self.islands.partition_point(|island| island.1 < from);
        let last = self.islands.partition_point(|island| island.0 <= to);
        for island in &self.islands[first..last] {
            from = from.min(island.0);
            to = to.max(island.1);
        }
        self.islands.splice(first..last, [(from, to)]);
        if self.islands.len() > Seen::MOST {
            self.reach(self.islands[0].0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_filled_from_either_end_and_in_the_middle() {
        let mut seen = Seen::below(1);
        assert_eq!(seen.add(1, 11), 10);
        assert_eq!(seen.add(21, 31), 10);
        assert_eq!(seen.add(41, 51), 10);
        assert_eq!((seen.low(), seen.overlap(0, 100)), (11, 31));
        assert_eq!(seen.add(25, 45), 10, "31..41 is new");
        assert_eq!(seen.islands, [(21, 51)]);
        assert_eq!(seen.add(5, 21), 10);
        assert_eq!((seen.low(), seen.islands.len()), (51, 0));
        assert_eq!(seen.add(1, 51), 0);
    }

    #[test]
    fn neighbours_become_one_island() {
        let mut seen = Seen::below(0);
        seen.add(10, 20);
        seen.add(20, 30);
        seen.add(5, 10);
        assert_eq!(seen.islands, [(5, 30)]);
        seen.reach(5);
        assert_eq!((seen.low(), seen.islands.len()), (30, 0));
    }

    #[test]
    fn islands_are_limited() {
        let mut seen = Seen::below(0);
        for island in 1..1000 {
            seen.add(island * 10, island * 10 + 5);
        }
        assert!(seen.islands.len() <= Seen::MOST);
        assert!(seen.low() > 0, "the lowest gaps are forgotten");
    }

    /// Against a set of single numbers, with a fixed seed.
    #[test]
    fn counts_as_a_plain_set_does() {
        let mut seed = 7_u64;
        let mut random = |below: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % below
        };
        let mut seen = Seen::below(0);
        let mut plain = std::collections::BTreeSet::new();
        for _ in 0..2000 {
            let from = random(300) as i64;
            let to = from + random(12) as i64;
            assert_eq!(seen.overlap(from, to), (from..to).filter(|number| plain.contains(number)).count() as i64);
            let new = (from..to).filter(|&number| plain.insert(number)).count();
            assert_eq!(seen.add(from, to), new as i64);
            assert_eq!(seen.low(), (0..).find(|number| !plain.contains(number)).unwrap());
        }
    }
}
