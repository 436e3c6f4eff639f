//! Tasks that change their worker while somebody looks at all tasks.
//!
//! Who looks goes from worker to worker, and so misses a task that is taken meanwhile from one not looked at yet by one that
//! was. Therefore whoever takes tasks (`idle`) says so to all who look, and these seek what they have missed at its new
//! worker.

#![forbid(unsafe_code)]

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use super::record::Record;
use super::worker::Remote;

/// The looks that are under way in a runtime.
#[derive(Debug, Default)]
pub(super) struct Moves(RwLock<Vec<Arc<Log>>>);

/// The tasks that have moved, each with its new worker.
#[derive(Debug, Default)]
struct Log(Mutex<Vec<(Record, Arc<Remote>)>>);

/// Takes down what moves for as long as this lives.
pub(super) struct Watched<'a> {
    moves: &'a Moves,
    log: Arc<Log>,
}

impl Moves {
    /// Watches from here on: what has moved before is where it was to go.
    pub(super) fn watch(&self) -> Watched<'_> {
        let log = Arc::new(Log::default());
        self.0.write().unwrap_or_else(PoisonError::into_inner).push(log.clone());
        Watched { moves: self, log }
    }

    /// Runs `change`, which moves tasks to `remote`, and calls what it is given with each.
    pub(super) fn moving<R>(&self, remote: &Arc<Remote>, change: impl FnOnce(&dyn Fn(&Record)) -> R) -> R {
        let looks = self.0.read().unwrap_or_else(PoisonError::into_inner);
        change(&|task| looks.iter().for_each(|log| log.lock().push((task.clone(), remote.clone()))))
    }
}

impl Watched<'_> {
    /// What has moved since the last call, in the order in which it did.
    pub(super) fn take(&self) -> Vec<(Record, Arc<Remote>)> {
        std::mem::take(&mut self.log.lock())
    }

    /// Keeps all tasks from moving while `f` runs.
    pub(super) fn hold_still<R>(&self, f: impl FnOnce() -> R) -> R {
        let _looks = self.moves.0.write().unwrap_or_else(PoisonError::into_inner);
        f()
    }
}

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        let mut looks = self.moves.0.write().unwrap_or_else(PoisonError::into_inner);
        looks.retain(|log| !Arc::ptr_eq(log, &self.log));
    }
}

impl Log {
    fn lock(&self) -> MutexGuard<'_, Vec<(Record, Arc<Remote>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
