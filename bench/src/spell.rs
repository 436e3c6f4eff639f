//! How long a cache line takes from one CPU to another, which on shared machines changes for minutes at a time and takes
//! everything that crosses CPUs with it: a figure is worth nothing beside one of another spell.

use crate::process::pin_this_thread;
use serde_json::{Value, json};
use std::hint;
use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Instant;

/// Crossings timed as one, and how often that is done: the median counts, for a thread may lose its CPU in one of them.
const CROSSINGS: u32 = 1_000;
const SAMPLES: usize = 15;
/// Rounds in which the time changed by more than this are of no spell.
const STEADY: f64 = 1.5;
/// Rounds further than this from the median belong to another spell.
const SAME: f64 = 2.0;

/// Nanoseconds from one CPU to the other: two threads, one on each, bounce a number.
///
/// # Errors
/// When the machine lacks one of the CPUs.
pub fn crossing_ns(cpus: [usize; 2]) -> io::Result<f64> {
    let number = AtomicU32::new(0);
    let last = CROSSINGS * SAMPLES as u32;
    // Each waits for its turn, odd or even, and passes it on.
    let bounce = |cpu: usize, turn: u32| -> io::Result<Vec<f64>> {
        let pinned = pin_this_thread(cpu);
        let mut samples = Vec::with_capacity(SAMPLES);
        let mut begin = Instant::now();
        for mine in (turn..last).step_by(2) {
            while number.load(Ordering::Acquire) != mine {
                hint::spin_loop();
            }
            number.store(mine + 1, Ordering::Release);
            if (mine + 2) % CROSSINGS < 2 {
                samples.push(begin.elapsed().as_nanos() as f64 / f64::from(CROSSINGS));
                begin = Instant::now();
            }
        }
        pinned.map(|()| samples)
    };
    let mut samples = thread::scope(|scope| {
        let other = scope.spawn(|| bounce(cpus[1], 1));
        // In a thread of its own as well: this one stays where it may run.
        let one = scope.spawn(|| bounce(cpus[0], 0));
        other.join().expect("bouncing does not panic")?;
        one.join().expect("bouncing does not panic")
    })?;
    Ok(median(&mut samples))
}

/// What a crossing took before a round and after it.
#[derive(Clone, Copy, Debug)]
pub struct Spell {
    /// Nanoseconds before the round.
    pub before: f64,
    /// Nanoseconds after it.
    pub after: f64,
}

impl Spell {
    fn mean(self) -> f64 {
        (self.before * self.after).sqrt()
    }

    fn is_steady(self) -> bool {
        within(self.before, self.after, STEADY)
    }

    /// For a line of results.
    pub fn as_json(self) -> Value {
        json!([self.before.round(), self.after.round()])
    }
}

/// The spell that most of the steady rounds were in, in nanoseconds, and which rounds were in it.
pub fn majority(spells: &[Spell]) -> (f64, Vec<bool>) {
    let mut steady: Vec<_> = spells.iter().filter(|spell| spell.is_steady()).map(|spell| spell.mean()).collect();
    if steady.is_empty() {
        return (f64::NAN, vec![false; spells.len()]);
    }
    let middle = median(&mut steady);
    let kept = |spell: &Spell| spell.is_steady() && within(spell.mean(), middle, SAME);
    (middle, spells.iter().map(kept).collect())
}

/// How the title of a table ends.
pub fn in_title(crossing_ns: Option<f64>) -> String {
    match crossing_ns {
        Some(ns) if ns.is_finite() => format!("; crossing {ns:.0} ns"),
        _ => "; no steady spell".into(),
    }
}

fn within(a: f64, b: f64, factor: f64) -> bool {
    a <= b * factor && b <= a * factor
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crossing_takes_some_time_but_not_much() {
        let took = crossing_ns([0, 1]).unwrap();
        assert!(took > 1.0 && took < 1e6, "{took} ns");
    }

    #[test]
    fn rounds_of_another_spell_or_of_none_are_left_out() {
        let spell = |before, after| Spell { before, after };
        let spells = [spell(45.0, 50.0), spell(44.0, 380.0), spell(390.0, 380.0), spell(60.0, 46.0)];
        let (middle, kept) = majority(&spells);
        assert_eq!(kept, [true, false, false, true]);
        assert!((45.0..60.0).contains(&middle));
        let (middle, kept) = majority(&[spell(45.0, 380.0)]);
        assert_eq!((in_title(Some(middle)), kept), ("; no steady spell".into(), vec![false]));
        assert_eq!(in_title(Some(44.6)), "; crossing 45 ns");
    }
}
