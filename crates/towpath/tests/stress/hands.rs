//! Plain threads for actors: started when none is free, used again, and all joined at the end.
//!
//! That they are used again matters: a thread that has waited before may hold a wake-up that came late.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

type Job = Box<dyn FnOnce() + Send>;

#[derive(Default)]
pub(crate) struct Hands {
    state: Mutex<State>,
    work: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    free: usize,
    over: bool,
    threads: Vec<JoinHandle<()>>,
}

impl Hands {
    pub(crate) fn give(&'static self, job: Job) {
        let mut state = self.lock();
        state.jobs.push_back(job);
        if state.jobs.len() > state.free {
            let thread = thread::Builder::new().name("hand".to_owned()).spawn(|| self.work());
            state.threads.push(thread.expect("a thread for an actor"));
            state.free += 1;
        }
        self.work.notify_one();
    }

    fn work(&self) {
        let mut state = self.lock();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                state.free -= 1;
                drop(state);
                job();
                state = self.lock();
                state.free += 1;
            } else if state.over {
                return;
            } else {
                state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }

    pub(crate) fn end(&self) {
        let threads = {
            let mut state = self.lock();
            state.over = true;
            std::mem::take(&mut state.threads)
        };
        self.work.notify_all();
        threads.into_iter().for_each(|thread| thread.join().expect("actors catch their panics"));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
