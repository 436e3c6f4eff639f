//! The timers of one worker: at most one for each of its tasks, by the task's slot.
//!
//! A binary heap that knows where each slot's entry stands, so that an entry is moved or removed in place and never left
//! behind. There is no clock in here: times are plain numbers that only have an order, and the worker says what time it
//! is. A task that waits anew with a later deadline leaves its entry alone; the worker moves it on when it comes due.

/// No entry: what `position` says of a slot that has none.
const NONE: u32 = u32::MAX;

#[derive(Debug, Default)]
pub(crate) struct Timers {
    heap: Vec<Entry>,
    /// Where in `heap` each slot's entry is.
    position: Vec<u32>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    at: u64,
    slot: u32,
}

impl Timers {
    /// When the first entry is due.
    pub(crate) fn next(&self) -> Option<u64> {
        self.heap.first().map(|entry| entry.at)
    }

    /// When the entry of `slot` is due, if it has one.
    pub(crate) fn armed(&self, slot: usize) -> Option<u64> {
        self.find(slot).map(|i| self.heap[i].at)
    }

    /// Gives `slot` an entry at `at`, in place of the one it had.
    pub(crate) fn set(&mut self, slot: usize, at: u64) {
        match self.find(slot) {
            Some(i) => {
                self.heap[i].at = at;
                self.settle(i);
            }
            None => {
                if slot >= self.position.len() {
                    self.position.resize(slot + 1, NONE);
                }
                self.heap.push(Entry { at, slot: slot as u32 });
                self.settle(self.heap.len() - 1);
            }
        }
    }

    /// Removes the entry of `slot`, if it has one.
    pub(crate) fn remove(&mut self, slot: usize) {
        if let Some(i) = self.find(slot) {
            self.remove_at(i);
        }
    }

    /// Takes one entry that is due at `now` and returns its slot.
    pub(crate) fn pop_due(&mut self, now: u64) -> Option<usize> {
        let first = *self.heap.first()?;
        if first.at > now {
            return None;
        }
        self.remove_at(0);
        Some(first.slot as usize)
    }

    fn find(&self, slot: usize) -> Option<usize> {
        self.position.get(slot).filter(|&&i| i != NONE).map(|&i| i as usize)
    }

    fn remove_at(&mut self, i: usize) {
        let gone = self.heap.swap_remove(i);
        self.position[gone.slot as usize] = NONE;
        if i < self.heap.len() {
            self.settle(i);
        }
    }

    /// Moves the entry at `i` to where its time belongs.
    fn settle(&mut self, mut i: usize) {
        while i > 0 && self.heap[i].at < self.heap[(i - 1) / 2].at {
            self.swap(i, (i - 1) / 2);
            i = (i - 1) / 2;
        }
        loop {
            let children = 2 * i + 1..(2 * i + 3).min(self.heap.len());
            match children.min_by_key(|&child| self.heap[child].at) {
                Some(child) if self.heap[child].at < self.heap[i].at => {
                    self.swap(i, child);
                    i = child;
                }
                _ => break,
            }
        }
        self.position[self.heap[i].slot as usize] = i as u32;
    }

    fn swap(&mut self, a: usize, b: usize) {
        self.heap.swap(a, b);
        self.position[self.heap[a].slot as usize] = a as u32;
        self.position[self.heap[b].slot as usize] = b as u32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_come_due_in_order() {
        let mut timers = Timers::default();
        for (slot, at) in [(3, 30), (1, 10), (2, 20), (0, 5)] {
            timers.set(slot, at);
        }
        assert_eq!(timers.next(), Some(5));
        assert_eq!(timers.pop_due(4), None);
        let order: Vec<_> = std::iter::from_fn(|| timers.pop_due(100)).collect();
        assert_eq!(order, [0, 1, 2, 3]);
        assert_eq!(timers.next(), None);
    }

    #[test]
    fn setting_again_moves_the_one_entry() {
        let mut timers = Timers::default();
        timers.set(7, 50);
        timers.set(7, 10);
        timers.set(7, 70);
        assert_eq!(timers.armed(7), Some(70));
        assert_eq!(timers.pop_due(69), None);
        assert_eq!(timers.pop_due(70), Some(7));
        assert_eq!(timers.pop_due(u64::MAX), None);
    }

    #[test]
    fn agrees_with_a_sorted_list_whatever_is_done() {
        let mut timers = Timers::default();
        let mut list: Vec<(u64, usize)> = Vec::new();
        let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = move || {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed
        };
        for _ in 0..20_000 {
            let (slot, at) = ((random() % 64) as usize, random() % 1000);
            match random() % 3 {
                0 => {
                    timers.set(slot, at);
                    list.retain(|e| e.1 != slot);
                    list.push((at, slot));
                }
                1 => {
                    timers.remove(slot);
                    list.retain(|e| e.1 != slot);
                }
                _ => {
                    let due = timers.pop_due(at);
                    let first = list.iter().map(|e| e.0).min().filter(|&t| t <= at);
                    assert_eq!(due.is_some(), first.is_some());
                    if let Some(slot) = due {
                        let i = list.iter().position(|e| e.1 == slot).expect("a slot that was set");
                        assert_eq!(Some(list.swap_remove(i).0), first);
                    }
                }
            }
            assert_eq!(timers.next(), list.iter().map(|e| e.0).min());
        }
    }
}
