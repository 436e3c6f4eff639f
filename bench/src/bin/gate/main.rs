//! Instructions per operation under callgrind, compared with the last recorded ones: see `bench/gate`.

mod counted;
mod paced;
mod recorded;

use clap::{Parser, ValueEnum};
use counted::per_operation;
use recorded::{Figures, Record};
use std::path::PathBuf;
use std::process::ExitCode;
use towpath_bench::Result;

/// How much more than recorded is a failure, as a fraction.
const TOLERANCE: f64 = 0.03;
/// The same for what towpath takes beyond the epoll loop, where compiler, valgrind or C library differ.
const TOLERANCE_ELSEWHERE: f64 = 0.10;
/// How often a work that seems worse is counted before it counts as worse.
const TRIES: usize = 3;

#[derive(Parser)]
#[command(about = "Fails when an operation takes more instructions than recorded")]
struct Cli {
    /// What to count; everything if nothing is named
    works: Vec<Work>,
    /// Add the present figures to the file, instead of comparing
    #[arg(long, conflicts_with_all = ["works", "repeat"])]
    record: bool,
    /// Count so often, and print how much that varies, instead of comparing
    #[arg(long, value_parser = clap::value_parser!(u32).range(2..))]
    repeat: Option<u32>,
    /// The file of recorded figures, of which the last line counts
    #[arg(long)]
    recorded: PathBuf,
}

/// What is counted. Each has one figure, and those with a raw epoll loop to compare with have the loop's, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Work {
    /// An echo, 64 connections ready at once
    Echo,
    /// A connection made, one echo, the connection closed
    Churn,
    /// A message between two connections, each read by a task on one worker and written by one on another
    Shared,
    /// A message read on one worker and handed through a channel to a task on another, which writes it
    Wake,
    /// A task spawned and joined
    Spawn,
    /// A task that yields to another
    Yield,
    /// A message through a channel that holds nothing, to another task of the worker
    Hop,
}

impl Work {
    fn name(self) -> String {
        self.to_possible_value().expect("no work is hidden").get_name().into()
    }

    /// The name of the raw loop's figure.
    fn raw_name(self) -> Option<String> {
        matches!(self, Work::Echo | Work::Churn).then(|| format!("{}_raw", self.name()))
    }
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(e) => {
            eprintln!("bench/gate: {e}");
            ExitCode::from(2)
        }
    }
}

/// False when something is worse.
fn run(cli: &Cli) -> Result<bool> {
    let all = Work::value_variants();
    let works = if cli.works.is_empty() { all } else { &cli.works };
    if let Some(times) = cli.repeat {
        works.iter().try_for_each(|work| vary(*work, times))?;
        return Ok(true);
    }
    if cli.record {
        let mut figures = Figures::new();
        for work in all {
            figures.extend(count(*work)?);
        }
        let record = Record::now(figures);
        record.append(&cli.recorded)?;
        print!("{}", record.listed());
        println!("recorded in {}; commit it", cli.recorded.display());
        return Ok(true);
    }

    let recorded = Record::last(&cli.recorded)?;
    let differs = recorded.as_ref().and_then(Record::differs_from_here);
    match (&recorded, &differs) {
        (None, _) => println!("nothing is recorded yet: bench/gate --record"),
        (Some(record), None) => println!("compared with {}", record.shown()),
        (Some(record), Some(what)) => {
            println!("{} were counted with another {what}:", record.shown());
            println!("echo and churn are judged by what they take beyond the raw loop, the others not at all");
        }
    }
    println!("{:8} {:>12} {:>12}", "work", "instructions", "recorded");
    let before = recorded.as_ref().map(|record| &record.figures);
    let mut worse = Vec::new();
    for work in works {
        let judge = || -> Result<Judged> { Ok(Judged::of(*work, &count(*work)?, before, differs.is_some())) };
        let mut judged = judge()?;
        for _ in 1..TRIES {
            if judged.worse.is_some() {
                let again = judge()?;
                judged = if again.figure < judged.figure { again } else { judged };
            }
        }
        println!("{}", judged.line.trim_end());
        worse.extend(judged.worse);
    }
    if worse.is_empty() {
        return Ok(true);
    }
    for line in &worse {
        println!("worse: {line}");
    }
    println!("If that is the price of something: bench/gate --record, and say in the commit what it buys.");
    Ok(false)
}

/// All figures of a work, by name.
fn count(work: Work) -> Result<Figures> {
    let mut figures = Figures::from([(work.name(), per_operation(work, false)?)]);
    if let Some(raw) = work.raw_name() {
        figures.insert(raw, per_operation(work, true)?);
    }
    Ok(figures)
}

fn vary(work: Work, times: u32) -> Result<()> {
    let rounds: Vec<_> = (0..times).map(|_| count(work)).collect::<Result<_>>()?;
    for name in rounds[0].keys() {
        let values = || rounds.iter().map(|figures| figures[name]);
        let (low, high) = (values().fold(f64::INFINITY, f64::min), values().fold(0.0, f64::max));
        println!("{name:10} {low:10.2} to {high:10.2}: {:.3} %", (high / low - 1.0) * 100.0);
    }
    Ok(())
}

/// One work's line of the table, and its complaint if it is worse than recorded.
struct Judged {
    figure: f64,
    line: String,
    worse: Option<String>,
}

impl Judged {
    /// Compares what was counted now with what was before: here, or `elsewhere`, where other tools did the counting.
    fn of(work: Work, now: &Figures, before: Option<&Figures>, elsewhere: bool) -> Judged {
        let (name, raw_name) = (work.name(), work.raw_name());
        let of_both = |figures: &Figures| Some((*figures.get(&name)?, *figures.get(raw_name.as_ref()?)?));
        let figure = now[&name];
        let recorded = before.and_then(|before| before.get(&name));

        // What is judged, now and before: the figure itself, or elsewhere what it is above the raw loop's.
        let pair = if elsewhere {
            let beyond_raw = |figures: &Figures| of_both(figures).map(|(own, raw)| own - raw);
            beyond_raw(now).zip(before.and_then(beyond_raw))
        } else {
            recorded.map(|recorded| (figure, *recorded))
        };
        let change = pair.map(|(now, before)| now / before - 1.0);
        let tolerance = if elsewhere { TOLERANCE_ELSEWHERE } else { TOLERANCE };

        let recorded = recorded.map_or("–".into(), |recorded| format!("{recorded:.1}"));
        let shown = change.map_or(String::new(), |change| format!("{:+.2} %", change * 100.0));
        let mut line = format!("{name:8} {figure:12.1} {recorded:>12} {shown:>9}");
        if let Some((own, raw)) = of_both(now) {
            line += &format!("   raw loop {raw:.1}: ×{:.2}, {:+.1}", own / raw, own - raw);
        }
        let worse = pair.zip(change).filter(|(_, change)| *change > tolerance).map(|((now, before), change)| {
            let beyond = if elsewhere { " beyond the raw loop" } else { "" };
            let (percent, allowed) = (change * 100.0, tolerance * 100.0);
            format!("{name} takes {now:.1} instructions{beyond}, not {before:.1}: {percent:+.1} %, allowed {allowed} %")
        });
        Judged { figure, line, worse }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(pairs: &[(&str, f64)]) -> Figures {
        pairs.iter().map(|(name, value)| (name.to_string(), *value)).collect()
    }

    fn complaint(work: Work, now: &[(&str, f64)], before: &[(&str, f64)], elsewhere: bool) -> Option<String> {
        Judged::of(work, &figures(now), Some(&figures(before)), elsewhere).worse
    }

    #[test]
    fn more_than_3_percent_above_the_recorded_figure_is_worse() {
        let before = [("hop", 100.0)];
        assert_eq!(complaint(Work::Hop, &[("hop", 102.9)], &before, false), None);
        assert_eq!(complaint(Work::Hop, &[("hop", 50.0)], &before, false), None);
        let text = complaint(Work::Hop, &[("hop", 104.0)], &before, false).unwrap();
        assert_eq!(text, "hop takes 104.0 instructions, not 100.0: +4.0 %, allowed 3 %");
    }

    #[test]
    fn with_other_tools_only_what_is_beyond_the_raw_loop_counts() {
        let before = [("echo", 300.0), ("echo_raw", 100.0), ("hop", 100.0)];
        assert_eq!(complaint(Work::Hop, &[("hop", 150.0)], &before, true), None);
        assert_eq!(complaint(Work::Echo, &[("echo", 350.0), ("echo_raw", 150.0)], &before, true), None);
        let text = complaint(Work::Echo, &[("echo", 300.0), ("echo_raw", 70.0)], &before, true).unwrap();
        assert_eq!(text, "echo takes 230.0 instructions beyond the raw loop, not 200.0: +15.0 %, allowed 10 %");
    }

    #[test]
    fn what_was_never_recorded_is_not_worse() {
        assert_eq!(complaint(Work::Hop, &[("hop", 150.0)], &[], false), None);
        assert!(Judged::of(Work::Hop, &figures(&[("hop", 150.0)]), None, false).worse.is_none());
    }
}
