//! What has happened to whom: the changes of state that were seen, by connection and in the order of time.
//!
//! The table knows how a socket is; this knows how it came to be so. Both are told by the kernel, at different times and
//! in different detail: where a change was seen as it happened, its moment here is better than the table's.

#![forbid(unsafe_code)]

use std::collections::{HashMap, VecDeque};
use std::ops::RangeInclusive;
use std::time::Duration;

use towpath_diag::{Change, State};

use super::table::{Ends, KEPT, Moment, Since, TIME_WAIT};

/// How many changes are kept for the history of all.
const RECENT: usize = 1_000;
/// How many connections have a history of their own.
const MOST: usize = 50_000;
/// How often room for another is looked for at most.
const SWEEP: Duration = Duration::from_secs(1);
/// How many steps of one connection are kept. A life has ten at most; a listener that is opened again and again, more.
const STEPS: usize = 32;

/// A change of a socket's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) at: Moment,
    /// Whether it happened at that moment; else it was only seen then.
    pub(crate) exact: bool,
    pub(crate) ends: Ends,
    pub(crate) old: State,
    pub(crate) new: State,
    /// When the old state began, if that was seen too.
    pub(crate) since: Option<Moment>,
}

/// All histories.
#[derive(Debug, Default)]
pub(crate) struct Lives {
    by_ends: HashMap<Ends, Vec<Step>>,
    recent: VecDeque<Step>,
    /// How many changes were told.
    count: u64,
    /// When it was last looked through for room.
    swept: Option<Moment>,
}

impl Lives {
    /// Takes in `change`, and returns it as a step.
    pub(crate) fn note(&mut self, change: &Change) -> Step {
        let ends = (change.local, change.peer);
        self.add(Step { at: change.at, exact: change.exact, ends, old: change.old, new: change.new, since: None })
    }

    /// Takes in `step`, and returns it with what is known of the state that it ends.
    pub(crate) fn add(&mut self, mut step: Step) -> Step {
        // Where all of them live there is no room to be found, and looking for it with every change would cost too much.
        let may_sweep = self.swept.is_none_or(|swept| step.at.saturating_sub(swept) >= SWEEP);
        if may_sweep && self.by_ends.len() >= MOST && !self.by_ends.contains_key(&step.ends) {
            self.swept = Some(step.at);
            self.forget_ended(step.at);
        }
        let may_begin = self.by_ends.len() < MOST;
        let life = match self.by_ends.get_mut(&step.ends) {
            Some(life) => Some(life),
            None if may_begin => Some(self.by_ends.entry(step.ends).or_default()),
            None => None,
        };
        if let Some(life) = life {
            if step.old == State::Closed {
                // Other sockets had these addresses before.
                life.clear();
            }
            step.since = life.last().filter(|last| last.new == step.old).map(|last| last.at);
            if life.len() == STEPS {
                life.remove(0);
            }
            life.push(step);
        }
        if self.recent.len() == RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(step);
        self.count += 1;
        step
    }

    /// Since when a socket has been in `state`, if that change was seen, and at a time that is `possible`: a socket in
    /// another network namespace may have the same addresses, and its changes are told too.
    pub(crate) fn since(&self, ends: &Ends, state: State, possible: RangeInclusive<Moment>) -> Option<Since> {
        let steps = self.by_ends.get(ends)?;
        let step = steps.iter().rev().find(|step| step.new == state && possible.contains(&step.at))?;
        Some(Since { at: step.at, known: true })
    }

    /// The changes of one socket that were seen, oldest first.
    pub(crate) fn of(&self, ends: &Ends) -> &[Step] {
        self.by_ends.get(ends).map_or(&[], Vec::as_slice)
    }

    /// The last changes of all, latest first.
    pub(crate) fn recent(&self) -> impl Iterator<Item = &Step> {
        self.recent.iter().rev()
    }

    /// How many changes there were.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// Forgets those whose rows are not kept any more either.
    pub(crate) fn forget_ended(&mut self, now: Moment) {
        self.by_ends.retain(|_, life| {
            let Some(last) = life.last() else { return false };
            let ago = now.saturating_sub(last.at);
            match last.new {
                State::Closed => ago < KEPT,
                // Its end need not be told.
                State::TimeWait => ago < TIME_WAIT + KEPT,
                _ => true,
            }
        });
    }

    /// Forgets the lives, but not the latest changes: some were lost, and what the lives say may not be true any more.
    pub(crate) fn distrust(&mut self) {
        self.by_ends.clear();
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        *self = Lives::default();
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn step(at: u64, port: u16, old: State, new: State) -> Step {
        let ends = (([127, 0, 0, 1], port).into(), Some(([127, 0, 0, 1], 8330).into()));
        Step { at: Duration::from_millis(at), exact: true, ends, old, new, since: None }
    }

    #[test]
    fn a_step_knows_how_long_the_state_before_it_lasted() {
        let mut lives = Lives::default();
        assert_eq!(lives.add(step(1, 1, State::SynSent, State::Established)).since, None);
        let left = lives.add(step(5, 1, State::Established, State::CloseWait));
        assert_eq!(left.since, Some(Duration::from_millis(1)));
        let since = |state| lives.since(&left.ends, state, Moment::ZERO..=Moment::MAX);
        assert_eq!(since(State::CloseWait), Some(Since { at: Duration::from_millis(5), known: true }));
        assert_eq!(since(State::FinWait1), None);
        let other = step(6, 2, State::Closed, State::SynSent);
        assert_eq!(lives.of(&other.ends), []);
        lives.add(other);
        assert_eq!(lives.of(&other.ends).len(), 1);
        assert_eq!(lives.recent().map(|step| step.at.as_millis()).collect::<Vec<_>>(), [6, 5, 1]);
    }

    #[test]
    fn what_was_seen_when_it_cannot_have_been_was_another() {
        let mut lives = Lives::default();
        let ours = lives.add(step(5, 1, State::SynSent, State::Established));
        lives.add(step(30, 1, State::SynSent, State::Established));
        let since = |from, to| {
            let possible = Duration::from_millis(from)..=Duration::from_millis(to);
            lives.since(&ours.ends, State::Established, possible).map(|since| since.at.as_millis())
        };
        assert_eq!((since(0, 10), since(6, 10), since(20, 40)), (Some(5), None, Some(30)));
    }

    #[test]
    fn who_comes_after_has_a_life_of_its_own() {
        let mut lives = Lives::default();
        for (at, old, new) in [
            (1, State::Closed, State::SynSent),
            (2, State::SynSent, State::Established),
            (3, State::Established, State::Closed),
            (9, State::Closed, State::SynSent),
        ] {
            lives.add(step(at, 1, old, new));
        }
        let ends = step(0, 1, State::Closed, State::Closed).ends;
        assert_eq!(lives.of(&ends).len(), 1);
        assert_eq!(lives.count(), 4);
    }

    #[test]
    fn what_has_ended_is_kept_a_while_and_what_lives_is_kept() {
        let mut lives = Lives::default();
        let ended = lives.add(step(1, 1, State::LastAck, State::Closed));
        let lasting = lives.add(step(1, 2, State::SynSent, State::Established));
        lives.forget_ended(Duration::from_millis(2));
        assert_eq!(lives.of(&ended.ends).len(), 1);
        lives.forget_ended(KEPT + Duration::from_millis(2));
        assert_eq!((lives.of(&ended.ends).len(), lives.of(&lasting.ends).len()), (0, 1));
    }

    #[test]
    fn where_all_live_room_is_looked_for_once_a_second() {
        let mut lives = Lives::default();
        let ends =
            |number: usize| ((IpAddr::from([127, 0, 0, 1]), 1).into(), Some(([10, 0, 0, 1], number as u16).into()));
        let other = |number: usize| ((IpAddr::from([127, 0, 0, 1]), 2).into(), ends(number).1);
        for number in 0..MOST {
            lives.add(Step { ends: ends(number), ..step(0, 1, State::SynSent, State::Established) });
        }
        for at in [1, 2, 1_000] {
            lives.add(Step { ends: other(1), ..step(at, 1, State::SynSent, State::Established) });
            assert_eq!((lives.swept, lives.of(&other(1)).len()), (Some(Duration::from_millis(1)), 0));
        }
        // One of them has ended, and has been gone for long enough.
        lives.add(Step { ends: ends(7), ..step(1_001, 1, State::Established, State::Closed) });
        let later = 1_001 + u64::try_from(KEPT.as_millis()).unwrap();
        lives.add(Step { ends: other(2), ..step(later, 1, State::SynSent, State::Established) });
        assert_eq!((lives.of(&ends(7)).len(), lives.of(&other(2)).len()), (0, 1));
    }

    #[test]
    fn time_wait_ends_by_itself() {
        let mut lives = Lives::default();
        let waits = lives.add(step(0, 1, State::FinWait2, State::TimeWait));
        lives.forget_ended(TIME_WAIT);
        assert_eq!(lives.of(&waits.ends).len(), 1);
        lives.forget_ended(TIME_WAIT + KEPT);
        assert_eq!(lives.of(&waits.ends).len(), 0);
    }

    #[test]
    fn what_may_not_be_true_any_more_is_not_believed() {
        let mut lives = Lives::default();
        let step = lives.add(step(1, 1, State::SynSent, State::Established));
        lives.distrust();
        assert_eq!(lives.since(&step.ends, State::Established, Moment::ZERO..=Moment::MAX), None);
        assert_eq!(lives.recent().count(), 1);
    }

    #[test]
    fn however_much_happens_little_is_kept() {
        let mut lives = Lives::default();
        for at in 0..2_000 {
            lives.add(step(at, 1, State::Established, State::CloseWait));
        }
        let ends = step(0, 1, State::Closed, State::Closed).ends;
        assert_eq!((lives.of(&ends).len(), lives.recent().count()), (STEPS, RECENT));
    }
}
