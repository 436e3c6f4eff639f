//! Where actors run: tasks of several runtimes and plain threads. A [`Scene`] is one scenario's access to them.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use towpath::sync::channel::{self, Receiver, Sender};
use towpath::task::JoinHandle;
use towpath::{PollerKind, Runtime};

use crate::hands::Hands;
use crate::ops::Me;
use crate::rng::Rng;
use crate::tally::{Did, did};
use crate::watch::{self, Scenario};

pub(crate) static HANDS: LazyLock<Hands> = LazyLock::new(Hands::default);

/// What all scenarios share.
#[derive(Debug)]
pub(crate) struct House {
    pub(crate) poller: PollerKind,
    /// One of two workers and one of three: more workers than cores, so that they are preempted anywhere.
    pub(crate) runtimes: Vec<Arc<Runtime>>,
}

impl House {
    pub(crate) fn new(poller: PollerKind) -> House {
        let build = |workers| runtime(poller, workers);
        House { poller, runtimes: vec![build(2), build(3)] }
    }
}

pub(crate) fn runtime(poller: PollerKind, workers: usize) -> Arc<Runtime> {
    let built = Runtime::builder().workers(workers).poller(poller).name("stress").build();
    let runtime = Arc::new(built.expect("a runtime"));
    assert_eq!(runtime.poller(), poller, "this system has no such poller");
    watch::remember(&runtime);
    runtime
}

/// Ends a runtime whose tasks have all ended or are about to.
pub(crate) fn shut_down(mut runtime: Arc<Runtime>) {
    did(Did::Runtime);
    let runtime = loop {
        match Arc::try_unwrap(runtime) {
            Ok(runtime) => break runtime,
            Err(shared) => runtime = shared, // an actor that has just ended is about to let go of it
        }
        towpath::task::yield_now();
    };
    // Longer than the watchdog's patience, which then says what was left.
    runtime.shutdown(Duration::from_secs(60)).expect("a runtime ends once its tasks have");
}

/// Where an actor runs.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    Thread,
    /// A task of this runtime.
    Of(Arc<Runtime>),
    /// A task by `towpath::spawn`: of the spawner's runtime, or of the default one.
    Near,
}

/// One scenario: what it chooses from, and its actors.
pub(crate) struct Scene {
    pub(crate) rng: Rng,
    pub(crate) scenario: Arc<Scenario>,
    pub(crate) house: Arc<House>,
    places: Vec<Place>,
    /// A runtime that nobody else uses: nothing but the scenario itself wakes its workers.
    own: Option<Arc<Runtime>>,
    done: (Sender<()>, Receiver<()>),
    started: usize,
    joins: Vec<JoinHandle<()>>,
}

impl Scene {
    pub(crate) fn new(house: Arc<House>, scenario: Arc<Scenario>, mut rng: Rng, own: Option<Arc<Runtime>>) -> Scene {
        let places = match &own {
            Some(own) => vec![Place::Thread, Place::Of(own.clone()), Place::Of(own.clone())],
            None => {
                let [two, three] = [0, 1].map(|i| Place::Of(house.runtimes[i].clone()));
                let threads = rng.between(1, 3);
                [vec![Place::Thread; threads], vec![two.clone(), two, three.clone(), three, Place::Near]].concat()
            }
        };
        Scene { rng, scenario, house, places, own, done: channel::unbounded(), started: 0, joins: Vec::new() }
    }

    /// True so often; but of the first two times that each kind is played, once true and once not.
    pub(crate) fn either(&mut self, percent: usize) -> bool {
        let chance = self.rng.chance(percent);
        self.scenario.either.unwrap_or(chance)
    }

    /// Writes down what was chosen, for the report of a failure.
    pub(crate) fn note(&self, what: &str, value: impl std::fmt::Debug) {
        self.scenario.note(&format!("{what}={value:?}"));
    }

    pub(crate) fn place(&mut self) -> Place {
        let i = self.rng.below(self.places.len());
        self.places[i].clone()
    }

    /// Starts an actor somewhere.
    pub(crate) fn start(&mut self, role: &'static str, act: impl FnOnce(&Me) + Send + 'static) {
        let place = self.place();
        self.start_at(place, role, act);
    }

    pub(crate) fn start_at(&mut self, place: Place, role: &'static str, act: impl FnOnce(&Me) + Send + 'static) {
        let done = self.done.0.clone();
        self.started += 1;
        let join = start(place, &self.scenario, role, self.rng.fork(), move |me| {
            act(me);
            me.does("done");
            done.send(()).expect("the scene waits for its actors");
        });
        self.joins.extend(join);
    }

    /// Waits until every actor has ended, so that the scene can start others.
    pub(crate) fn wait(&mut self) {
        for _ in 0..std::mem::take(&mut self.started) {
            self.done.1.recv().expect("the scene holds a sender");
        }
        for join in self.joins.drain(..) {
            if self.rng.chance(50) {
                join.join().expect("actors catch their panics");
                did(Did::Joined);
            } else {
                did(Did::Detached);
            }
        }
    }

    pub(crate) fn finish(mut self) {
        self.wait();
        self.places.clear();
        if let Some(own) = self.own.take() {
            shut_down(own);
        }
    }
}

/// The panic of a task that is meant to panic.
#[derive(Debug)]
pub(crate) struct Intended;

/// Actors that run now.
pub(crate) static ACTORS: AtomicUsize = AtomicUsize::new(0);

/// Starts an actor, whose panic ends the whole run.
pub(crate) fn start(
    place: Place,
    scenario: &Arc<Scenario>,
    role: &'static str,
    rng: Rng,
    act: impl FnOnce(&Me) + Send + 'static,
) -> Option<JoinHandle<()>> {
    let scenario = scenario.clone();
    let name = match &place {
        Place::Thread => "a thread",
        Place::Of(_) => "a runtime",
        Place::Near => "a near task",
    };
    let record = scenario.record(role, name.to_owned());
    ACTORS.fetch_add(1, Ordering::Relaxed);
    let job = move || {
        let me = Me::new(record, RefCell::new(rng));
        did(if towpath::task::current().is_some() { Did::OnTask } else { Did::OnThread });
        let acted = catch_unwind(AssertUnwindSafe(|| act(&me)));
        ACTORS.fetch_sub(1, Ordering::Relaxed);
        if acted.is_err() {
            watch::fail_in(&scenario, &format!("an actor has panicked: {role}"));
        }
        me.check_pinned();
    };
    match place {
        Place::Thread => {
            HANDS.give(Box::new(job));
            None
        }
        Place::Near => Some(towpath::spawn(job)),
        Place::Of(runtime) => Some(runtime.spawn(job)),
    }
}
