//! The watchdog: which scenarios run since when, what each of their actors is in, and the end of the whole run when one
//! of them takes too long.
//!
//! It relies on std alone and waits for nothing that the library does, so that it can tell of a library that hangs.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use towpath::Runtime;

/// Set once, for messages.
pub(crate) static SEED: AtomicU64 = AtomicU64::new(0);

static RUNNING: Mutex<BTreeMap<u64, Arc<Scenario>>> = Mutex::new(BTreeMap::new());
static RUNTIMES: Mutex<Vec<Weak<Runtime>>> = Mutex::new(Vec::new());

/// A scenario that runs.
#[derive(Debug)]
pub(crate) struct Scenario {
    pub(crate) number: u64,
    pub(crate) name: &'static str,
    /// Which way it goes where it may go two, if that is not left to chance.
    pub(crate) either: Option<bool>,
    started: Instant,
    /// What it chose.
    notes: Mutex<String>,
    actors: Mutex<Vec<Arc<Record>>>,
}

/// What one actor does.
#[derive(Debug)]
pub(crate) struct Record {
    role: &'static str,
    place: String,
    doing: Mutex<Doing>,
}

#[derive(Clone, Debug)]
struct Doing {
    what: &'static str,
    fd: Option<i32>,
    calls: u64,
    since: Instant,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Scenario {
    pub(crate) fn begin(number: u64, name: &'static str, either: Option<bool>) -> Arc<Scenario> {
        let (notes, actors) = (Mutex::default(), Mutex::default());
        let scenario = Arc::new(Scenario { number, name, either, started: Instant::now(), notes, actors });
        lock(&RUNNING).insert(number, scenario.clone());
        scenario
    }

    pub(crate) fn end(&self) {
        lock(&RUNNING).remove(&self.number);
    }

    pub(crate) fn note(&self, text: &str) {
        let mut notes = lock(&self.notes);
        notes.push(' ');
        notes.push_str(text);
    }

    pub(crate) fn record(&self, role: &'static str, place: String) -> Arc<Record> {
        let doing = Doing { what: "start", fd: None, calls: 0, since: Instant::now() };
        let record = Arc::new(Record { role, place, doing: Mutex::new(doing) });
        lock(&self.actors).push(record.clone());
        record
    }

    /// For how long none of its actors has begun a call.
    fn still_for(&self) -> Duration {
        let actors = lock(&self.actors);
        let calls = actors.iter().map(|actor| lock(&actor.doing).since.elapsed());
        calls.min().unwrap_or_else(|| self.started.elapsed())
    }

    fn describe(&self) -> String {
        let mut text = format!(
            "scenario {} \"{}\", for {:.1?}:{}\n",
            self.number,
            self.name,
            self.started.elapsed(),
            lock(&self.notes)
        );
        for actor in lock(&self.actors).iter() {
            let Doing { what, fd, calls, since } = lock(&actor.doing).clone();
            let unread = |fd| super::sys::unread(fd).map_or_else(|e| e.kind().to_string(), |n| format!("{n} bytes"));
            let state = super::sys::readiness;
            let fd = fd.map(|fd| format!(" fd {fd} ({}, to read: {})", state(fd), unread(fd))).unwrap_or_default();
            let (role, place, since) = (actor.role, &actor.place, since.elapsed());
            text.push_str(&format!("    {role} on {place}: {what}{fd} for {since:.1?}, call {calls}\n"));
        }
        text
    }
}

impl Record {
    pub(crate) fn does(&self, what: &'static str, fd: Option<i32>) {
        let mut doing = lock(&self.doing);
        *doing = Doing { what, fd, calls: doing.calls + 1, since: Instant::now() };
    }

    pub(crate) fn says(&self, what: &'static str) {
        lock(&self.doing).what = what;
    }
}

/// Has the tasks of `runtime` listed if the run fails.
pub(crate) fn remember(runtime: &Arc<Runtime>) {
    let mut runtimes = lock(&RUNTIMES);
    runtimes.retain(|known| known.strong_count() > 0);
    runtimes.push(Arc::downgrade(runtime));
}

pub(crate) fn running() -> usize {
    lock(&RUNNING).len()
}

/// How many times its patience a scenario may take if its actors go on making calls, as they do slowly on a busy machine.
const AT_MOST: u32 = 15;

/// Starts the thread that ends the process when in a scenario nobody has begun a call for `patience`, or it takes
/// [`AT_MOST`] times as long: some actors try again and again.
pub(crate) fn start(patience: Duration) {
    let watch = move || {
        let begun = Instant::now();
        loop {
            thread::sleep(Duration::from_millis(250));
            let hangs = |s: &&Arc<Scenario>| s.still_for() > patience || s.started.elapsed() > AT_MOST * patience;
            let late: Vec<_> = lock(&RUNNING).values().filter(hangs).cloned().collect();
            if !late.is_empty() {
                let after = begun.elapsed();
                fail(&format!("{} of {} scenarios have hung, found after {after:.1?}", late.len(), running()), &late);
            }
        }
    };
    thread::Builder::new().name("watchdog".to_owned()).spawn(watch).expect("a thread for the watchdog");
}

/// Ends the process because of something in `scenario`.
pub(crate) fn fail_in(scenario: &Arc<Scenario>, why: &str) -> ! {
    fail(why, std::slice::from_ref(scenario))
}

/// Says what is wrong, what the scenarios concerned were doing and what each task waits for, and ends the process.
pub(crate) fn fail(why: &str, scenarios: &[Arc<Scenario>]) -> ! {
    static ONCE: Mutex<()> = Mutex::new(());
    let _first = lock(&ONCE); // never let go of: one failure is enough
    eprintln!("\nstress: FAILED: {why}\nstress: seed {}", SEED.load(Ordering::Relaxed));
    scenarios.iter().for_each(|scenario| eprint!("{}", scenario.describe()));
    let runtimes: Vec<_> = lock(&RUNTIMES).iter().filter_map(Weak::upgrade).collect();
    for runtime in runtimes {
        eprintln!("tasks of a runtime:\n{}", runtime.dump());
        std::mem::forget(runtime);
    }
    eprintln!("tasks of the default runtime:\n{}", towpath::task::dump());
    let (table, _) = super::tally::table();
    eprintln!("{table}");
    std::process::exit(1);
}
