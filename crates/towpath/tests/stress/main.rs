//! The seeded stress: everything that the library can do, at once, for as long as is asked, with every byte and message
//! checked and every wait bound to end.
//!
//! ```text
//! cargo test --test stress -- [--seed N] [--seconds S] [--poller os|uring] [--only NAME] [--at-once N] [--patience S]
//! ```
//!
//! A run is a sequence of *scenarios*, each a small play of a few *actors* (tasks of several runtimes, plain threads)
//! that ends by its own rules within about a second. What scenario number n does and chooses follows from the seed and
//! n; how its actors are scheduled does not, so a seed repeats the play and not the race. How many scenarios run at
//! once changes every second or so from one to fifty: alone, a lost wake-up has nobody who makes up for it; in a crowd,
//! actors are preempted anywhere.
//!
//! It fails when an actor panics (a wrong byte, a wrong error), when a scenario has not ended after twenty seconds (a
//! lost wake-up), when something is left at the end (descriptors, tasks, threads, stacks), and when one kind of event
//! never happened. Without `--seconds` a run takes ten seconds; without `--poller` it runs on the one that
//! `TOWPATH_POLLER` names.

mod channels;
mod endings;
mod hands;
mod house;
mod moving;
mod ops;
mod rng;
mod shared;
mod streams;
mod sys;
mod tally;
mod tasks;
mod watch;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use towpath::PollerKind;

use house::{HANDS, House, Intended, Place, Scene};
use ops::Me;
use rng::Rng;
use watch::Scenario;

type Play = fn(&Me, &mut Scene);

/// Every scenario, and how often each is chosen.
const PLAYS: &[(&str, usize, Play)] = &[
    ("echo", 3, streams::echo),
    ("race", 4, streams::race),
    ("bulk", 3, streams::bulk),
    ("urgent", 2, streams::urgent),
    ("ending", 4, endings::ending),
    ("closed writers", 2, endings::closed_writers),
    ("deadlines", 2, endings::deadlines),
    ("listeners", 1, endings::listeners),
    ("backlog", 1, endings::backlog),
    ("readers", 3, shared::readers),
    ("writers", 2, shared::writers),
    ("acceptors", 2, shared::acceptors),
    ("handoff", 3, moving::handoff),
    ("orphans", 2, moving::orphans),
    ("server", 1, moving::server),
    ("closed on the way", 2, moving::closed_on_the_way),
    ("crowd", 2, channels::crowd),
    ("leaving", 2, channels::leaving),
    ("ring", 3, channels::ring),
    ("duel", 2, channels::duel),
    ("knock", 2, channels::knock),
    ("tree", 1, tasks::tree),
    ("panics", 1, tasks::panics),
    ("locals", 1, tasks::locals),
    ("errands", 1, tasks::errands),
];

/// Seconds that a run must take for its two halves to be compared: in shorter ones the pools still grow.
const LEAKS_FROM: f64 = 8.0;

#[derive(Debug)]
struct Args {
    seed: u64,
    seconds: f64,
    poller: PollerKind,
    only: Option<String>,
    at_once: usize,
    patience: f64,
}

fn told(error: std::io::Error) -> String {
    error.to_string()
}

/// `None`: nothing to run. Besides its own options it puts up with those that `cargo test` passes to every test.
fn args() -> Result<Option<Args>, String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |time| time.as_nanos() as u64);
    let seed = Rng::new(now).next() % 1_000_000_000;
    let poller = std::env::var("TOWPATH_POLLER").unwrap_or_default();
    let poller = if poller.is_empty() { PollerKind::default() } else { poller.parse().map_err(told)? };
    let mut args = Args { seed, seconds: 10.0, poller, only: None, at_once: 50, patience: 20.0 };
    let mut words = std::env::args().skip(1);
    let mut filters = Vec::new();
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
        let wrong = |value: String| format!("{word} {value}: not a number that fits");
        match word.as_str() {
            "--seed" => args.seed = value().and_then(|v| v.parse().map_err(|_| wrong(v)))?,
            "--seconds" => args.seconds = value().and_then(|v| v.parse().map_err(|_| wrong(v)))?,
            "--patience" => args.patience = value().and_then(|v| v.parse().map_err(|_| wrong(v)))?,
            "--at-once" => args.at_once = value().and_then(|v| v.parse().map_err(|_| wrong(v)))?,
            "--poller" => args.poller = value()?.parse().map_err(told)?,
            "--only" => args.only = Some(value()?),
            "--list" => {
                println!("stress: test");
                return Ok(None);
            }
            "--test-threads" | "--format" | "--skip" | "--color" | "-Z" => drop(value()?),
            option if option.starts_with('-') => {}
            filter => filters.push(filter.to_owned()),
        }
    }
    let chosen = filters.is_empty() || filters.iter().any(|filter| "stress".contains(filter.as_str()));
    Ok(chosen.then_some(args))
}

fn main() {
    match args() {
        Ok(Some(args)) => run(&args),
        Ok(None) => {}
        Err(wrong) => {
            eprintln!("stress: {wrong}");
            std::process::exit(2);
        }
    }
}

fn run(args: &Args) {
    println!("stress: seed {}, {} seconds, poller {}", args.seed, args.seconds, args.poller);
    watch::SEED.store(args.seed, Ordering::Relaxed);
    // SAFETY: no other thread runs yet.
    unsafe { std::env::set_var("TOWPATH_POLLER", args.poller.to_string()) };
    let told = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !panic.payload().is::<Intended>() {
            told(panic);
        }
    }));
    let threads = sys::threads().len();
    watch::start(Duration::from_secs_f64(args.patience));
    warm_up();
    let descriptors = sys::descriptors();

    let house = Arc::new(House::new(args.poller));
    let mut stage = Stage::new(args, house.clone());
    stage.play(Duration::from_secs_f64(args.seconds / 2.0));
    let half = Footprint::take();
    stage.play(Duration::from_secs_f64(args.seconds / 2.0));
    let end = Footprint::take();
    let played = stage.next;
    drop(stage);

    println!("stress: {played} scenarios; at half time {half}; at the end {end}");
    check_end(house, &descriptors, threads);
    if args.seconds >= LEAKS_FROM {
        end.check(&half);
    }
    let (table, never) = tally::table();
    println!("{table}");
    if !never.is_empty() && args.only.is_none() {
        watch::fail(&format!("never happened: {}", never.join(", ")), &[]);
    }
    println!("stress: ok, seed {}", args.seed);
}

/// Has the library start what it starts once: the default runtime, and the descriptor that closed sockets refer to.
fn warm_up() {
    let listener = towpath::net::TcpListener::bind("127.0.0.1:0").expect("a listener");
    listener.set_deadline(Some(towpath::time::Instant::now() + Duration::from_millis(1))).expect("open");
    listener.accept().expect_err("nobody connects");
    listener.close().expect("closing once");
}

/// Plays scenarios.
struct Stage<'a> {
    args: &'a Args,
    house: Arc<House>,
    plays: Vec<(&'static str, Play)>,
    rng: Rng,
    next: u64,
    ended: (mpsc::Sender<()>, mpsc::Receiver<()>),
}

impl<'a> Stage<'a> {
    fn new(args: &'a Args, house: Arc<House>) -> Stage<'a> {
        let fits = |name: &str| args.only.as_deref().is_none_or(|only| name == only);
        let chosen = PLAYS.iter().filter(|(name, ..)| fits(name));
        let plays: Vec<_> = chosen.flat_map(|&(name, weight, play)| vec![(name, play); weight]).collect();
        assert!(!plays.is_empty(), "--only: there is no such scenario");
        Stage { args, house, plays, rng: Rng::new(args.seed), next: 0, ended: mpsc::channel() }
    }

    /// Plays for some time, and waits until all that has begun has ended.
    fn play(&mut self, time: Duration) {
        let end = Instant::now() + time;
        // A crowd first, so that pools are as large at half time as they get.
        let (mut running, mut most) = (0, self.args.at_once);
        let mut change = Instant::now() + Duration::from_millis(500);
        while Instant::now() < end {
            if change <= Instant::now() {
                most = self.rng.pick(&[1, 2, 4, 16, 50, 50]).min(self.args.at_once);
                change = Instant::now() + Duration::from_millis(self.rng.between(300, 1_500) as u64);
            }
            while running < most {
                self.begin();
                running += 1;
            }
            if self.ended.1.recv_timeout(Duration::from_millis(20)).is_ok() {
                running -= 1;
            }
        }
        (0..running).for_each(|_| self.ended.1.recv().expect("we hold a sender"));
        while house::ACTORS.load(Ordering::Relaxed) > 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn begin(&mut self) {
        let number = self.next;
        self.next += 1;
        let mut rng = Rng::new(self.args.seed ^ number.wrapping_mul(0xd6e8_feb8_6659_fd93));
        // Each kind twice at first, so that a short run has had them all, and each both ways (`Scene::either`).
        let (nth, kinds) = (number as usize, PLAYS.len());
        let first = self.args.only.is_none() && nth < 2 * kinds;
        let (name, play) = if first { (PLAYS[nth % kinds].0, PLAYS[nth % kinds].2) } else { rng.pick(&self.plays) };
        let scenario = Scenario::begin(number, name, first.then_some(nth < kinds));
        let own = rng.chance(25).then(|| {
            let workers = rng.between(1, 3);
            scenario.note(&format!("own={workers}"));
            house::runtime(self.args.poller, workers)
        });
        let place = match rng.below(3) {
            0 | 1 => Place::Thread,
            _ => Place::Of(self.house.runtimes[rng.below(2)].clone()),
        };
        let (house, ended) = (self.house.clone(), self.ended.0.clone());
        let conductor = rng.fork();
        let known = scenario.clone();
        let join = house::start(place, &scenario, "conducts", conductor, move |me| {
            let mut scene = Scene::new(house, known.clone(), rng, own);
            play(me, &mut scene);
            me.does("wait for the actors");
            scene.finish();
            known.end();
            _ = ended.send(()); // the last ones of all end with nobody there
        });
        drop(join);
    }
}

/// What the process holds while no scenario runs.
struct Footprint {
    mappings: usize,
    stacks: usize,
    resident: usize,
}

impl Footprint {
    fn take() -> Footprint {
        let (mappings, stacks) = sys::mappings();
        Footprint { mappings, stacks, resident: sys::status("VmRSS") }
    }

    /// Fails if there is markedly more now than there was. Pools double what they map, so twice as much is no leak yet.
    fn check(&self, before: &Footprint) {
        let most = 2 * before.stacks + (32 << 20);
        if self.stacks > most {
            watch::fail(&format!("stacks leak: {self}, after {before}"), &[]);
        }
        if self.mappings > 2 * before.mappings + 100 {
            watch::fail(&format!("mappings leak: {self}, after {before}"), &[]);
        }
        if self.resident > 2 * before.resident + (64 << 20) {
            watch::fail(&format!("memory leaks: {self}, after {before}"), &[]);
        }
    }
}

impl std::fmt::Display for Footprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (stacks, resident) = (self.stacks >> 20, self.resident >> 20);
        write!(f, "{} mappings, {stacks} MiB of stacks mapped, {resident} MiB resident", self.mappings)
    }
}

/// Ends what is there for the whole run, and fails if anything else is left.
fn check_end(house: Arc<House>, descriptors: &[String], threads: usize) {
    let soon = |what: &str, left: &dyn Fn() -> Option<String>| {
        let begun = Instant::now();
        while let Some(left) = left() {
            if begun.elapsed() > Duration::from_secs(15) {
                watch::fail(&format!("{what} left at the end: {left}"), &[]);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    for runtime in &house.runtimes {
        soon("tasks", &|| {
            let dump = runtime.run(towpath::task::dump);
            (dump.tasks().len() > 1).then(|| dump.to_string())
        });
    }
    soon("tasks of the default runtime", &|| {
        let dump = towpath::task::dump();
        (!dump.tasks().is_empty()).then(|| dump.to_string())
    });
    let house = Arc::into_inner(house).expect("all scenarios have ended");
    house.runtimes.into_iter().for_each(house::shut_down);
    HANDS.end();
    soon("descriptors", &|| {
        let left = sys::descriptors();
        (left.len() > descriptors.len()).then(|| format!("{} of {}: {left:#?}", left.len(), descriptors.len()))
    });
    // The watchdog, and the default runtime's workers.
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    soon("threads", &|| {
        let left = sys::threads();
        (left.len() > threads + 1 + workers).then(|| format!("{left:?}"))
    });
}
