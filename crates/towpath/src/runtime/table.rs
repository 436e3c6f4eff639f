//! The tasks of one worker that have not ended, by slot: eight bytes each, for there may be a million.
//!
//! It lies behind the worker's lock (`Remote::lock`). A task is taken out before its stack is given back: whoever finds one
//! here under the lock may look at what lies in its stack's head.

#![deny(unsafe_code)]

use std::ops::Deref;

use super::record::Record;
use super::wait::What;
use crate::time::Instant;

#[derive(Debug, Default)]
pub(crate) struct Table {
    slots: Vec<Option<Placed>>,
    /// The slots below that are empty, the last one to be used next.
    free: Vec<u32>,
}

/// A task that is in its worker's table, and stays there for as long as this is borrowed.
#[derive(Debug)]
pub(crate) struct Placed(Record);

impl Table {
    /// Gives a task a slot.
    pub(super) fn insert(&mut self, task: Record) -> usize {
        match self.free.pop() {
            Some(slot) => {
                self.slots[slot as usize] = Some(Placed(task));
                slot as usize
            }
            None => {
                self.slots.push(Some(Placed(task)));
                self.slots.len() - 1
            }
        }
    }

    /// Takes the task out that is in `slot`.
    pub(super) fn remove(&mut self, slot: usize) -> Record {
        let task = self.slots[slot].take().expect("a task is in its slot until it ends");
        self.free.push(u32::try_from(slot).expect("a slot's number fits, as does its task's"));
        task.0
    }

    pub(crate) fn get(&self, slot: usize) -> Option<&Placed> {
        self.slots.get(slot)?.as_ref()
    }

    /// The task with that record, if it is here.
    pub(super) fn find(&self, record: &Record) -> Option<&Placed> {
        self.get(record.slot()).filter(|placed| placed.0.as_ptr() == record.as_ptr())
    }

    /// The slots that there are, used or not.
    pub(super) fn slots(&self) -> usize {
        self.slots.len()
    }
}

impl Placed {
    pub(crate) fn record(&self) -> Record {
        self.0.clone()
    }

    /// What the task waits for, since when, and until when.
    #[expect(unsafe_code, reason = "it looks at the head of the task's stack")]
    pub(super) fn waiting(&self) -> Option<(What, Instant, Option<Instant>)> {
        // SAFETY: it is in the table, which is locked for as long as we are borrowed: it cannot end meanwhile.
        let resident = unsafe { self.0.resident() }?;
        let (what, since) = resident.waiting()?;
        Some((what, since, resident.deadline()))
    }

    /// Whether the task has a fiber.
    #[expect(unsafe_code, reason = "as above")]
    pub(super) fn has_started(&self) -> bool {
        // SAFETY: as above.
        unsafe { self.0.resident() }.is_some()
    }
}

impl Deref for Placed {
    type Target = Record;

    #[inline]
    fn deref(&self) -> &Record {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use std::panic::Location;

    use super::super::origin::Origin;
    use super::*;

    fn record() -> [Record; 2] {
        Record::new(|| (), Origin::plain(Location::caller()))
    }

    #[test]
    fn a_slot_that_is_free_again_is_the_next_to_be_used() {
        let mut table = Table::default();
        let slots: Vec<_> = (0..4).map(|_| table.insert(record().into_iter().next().unwrap())).collect();
        assert_eq!(slots, [0, 1, 2, 3]);
        table.remove(1);
        table.remove(2);
        assert!(table.get(1).is_none() && table.get(3).is_some() && table.get(4).is_none());
        assert_eq!(table.slots(), 4);
        let again: Vec<_> = (0..3).map(|_| table.insert(record().into_iter().next().unwrap())).collect();
        assert_eq!(again, [2, 1, 4]);
    }

    #[test]
    fn a_task_that_has_not_started_waits_for_nothing() {
        let mut table = Table::default();
        let [task, _handle] = record();
        let slot = table.insert(task);
        assert_eq!(table.get(slot).unwrap().waiting(), None);
    }
}
