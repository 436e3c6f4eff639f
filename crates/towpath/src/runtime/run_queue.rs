//! What a worker runs next, first come first served: a ring that grows, without what a `VecDeque` in a `RefCell` looks
//! after at each step. Each switch of tasks goes through here twice.

use std::cell::UnsafeCell;

use super::task::TaskRef;

/// A task that is ready, or (`None`) one that has not started, whichever is the first by then.
pub(super) type Next = Option<TaskRef>;

/// Used by its worker's thread alone: it is not Sync.
#[derive(Default)]
pub(super) struct RunQueue(UnsafeCell<Ring>);

#[derive(Default)]
struct Ring {
    /// As many as a power of two, or none yet.
    slots: Vec<Next>,
    /// How many have ever been taken out, and put in. Both wrap around.
    taken: usize,
    put: usize,
}

impl RunQueue {
    #[inline]
    pub(super) fn push(&self, next: Next) {
        self.with(|ring| {
            if ring.put.wrapping_sub(ring.taken) == ring.slots.len() {
                ring.grow();
            }
            let at = ring.put & (ring.slots.len() - 1);
            ring.slots[at] = next;
            ring.put = ring.put.wrapping_add(1);
        });
    }

    #[inline]
    pub(super) fn pop(&self) -> Option<Next> {
        self.with(|ring| {
            if ring.taken == ring.put {
                return None;
            }
            let at = ring.taken & (ring.slots.len() - 1);
            ring.taken = ring.taken.wrapping_add(1);
            Some(ring.slots[at])
        })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.with(|ring| ring.taken == ring.put)
    }

    #[inline]
    fn with<R>(&self, f: impl FnOnce(&mut Ring) -> R) -> R {
        // SAFETY: one thread at a time, and none of the closures above comes back here: they move plain pointers.
        f(unsafe { &mut *self.0.get() })
    }
}

impl Ring {
    /// Makes room for twice as many, with the first of them in front.
    #[cold]
    fn grow(&mut self) {
        let len = self.slots.len();
        if len > 0 {
            self.slots.rotate_left(self.taken & (len - 1));
        }
        (self.taken, self.put) = (0, len);
        self.slots.resize((2 * len).max(64), None);
    }
}

#[cfg(all(test, not(towpath_loom)))]
mod tests {
    use std::collections::VecDeque;
    use std::panic::Location;

    use super::super::origin::Origin;
    use super::super::record::Record;
    use super::super::task::{Task, TaskRef};
    use super::*;

    fn task() -> [Record; 2] {
        Record::new(|| (), Origin::plain(Location::caller()))
    }

    #[test]
    fn it_agrees_with_a_vec_deque_however_it_grows() {
        let tasks: Vec<_> = (0..7).map(|_| task()).collect();
        // SAFETY: their addresses are compared, and nothing is asked of them.
        let mut all: Vec<Next> = tasks.iter().map(|[task, _]| Some(unsafe { TaskRef::new(task) })).collect();
        all.push(None);
        let address = |next: Next| next.map(|task| std::ptr::from_ref::<Task>(&task));
        let (queue, mut model) = (RunQueue::default(), VecDeque::new());
        let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
        for step in 0..100_000 {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            // It swells and shrinks by turns, past several sizes of the ring.
            if seed % 8 < if step / 10_000 % 2 == 0 { 5 } else { 3 } {
                let next = all[(seed >> 32) as usize % all.len()];
                queue.push(next);
                model.push_back(next);
            } else {
                assert_eq!(queue.pop().map(address), model.pop_front().map(address));
            }
            assert_eq!(queue.is_empty(), model.is_empty());
        }
    }
}
