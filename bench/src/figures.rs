//! Rounds of figures, their best and their spread, as a JSON line and as a table.

use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::process::Command;

/// A kind of figure: a column of a table.
#[derive(Debug)]
pub struct Figure {
    /// Its name in JSON lines, with its unit.
    pub name: &'static str,
    heading: &'static str,
    decimals: usize,
    best: Best,
    /// Whether the table shows it as a multiple of the first server's, too.
    ratio: bool,
}

/// Which end of the rounds counts: interference only ever makes things slower.
#[derive(Clone, Copy, Debug)]
enum Best {
    Low,
    High,
}

const fn low(name: &'static str, heading: &'static str, decimals: usize) -> Figure {
    Figure { name, heading, decimals, best: Best::Low, ratio: false }
}

const fn low_with_ratio(name: &'static str, heading: &'static str, decimals: usize) -> Figure {
    Figure { name, heading, decimals, best: Best::Low, ratio: true }
}

/// What an echo costs the server, per request, and what the client sees of it.
pub const ECHO: [Figure; 12] = [
    low("instructions_user", "instr user", 0),
    low("instructions_kernel", "instr kernel", 0),
    low_with_ratio("instructions", "instr", 0),
    low("cycles_user", "cycles user", 0),
    low("cycles_kernel", "cycles kernel", 0),
    low_with_ratio("callgrind_instructions_user", "user instr*", 0),
    low("system_calls", "syscalls", 3),
    low("switches", "switches", 3),
    low_with_ratio("cpu_us", "CPU µs", 2),
    low("p50_us", "p50 µs", 0),
    low("p99_us", "p99 µs", 0),
    Figure { name: "requests_per_second", heading: "requests/s", decimals: 0, best: Best::High, ratio: false },
];

/// What an idle connection holds in the server's process, in bytes.
pub const IDLE: [Figure; 3] =
    [low("resident_bytes", "RSS", 0), low("page_table_bytes", "page tables", 0), low("memory_bytes", "both", 0)];

/// The figures of one round by name; what a machine cannot measure is missing.
pub type Round = BTreeMap<&'static str, f64>;

/// All rounds of one server.
#[derive(Debug)]
pub struct Row {
    /// The server's name.
    pub server: String,
    /// Its rounds, in the order they ran.
    pub rounds: Vec<Round>,
}

impl Row {
    /// The best round's value and how far the worst one is from it, as a fraction.
    fn best(&self, figure: &Figure) -> Option<(f64, f64)> {
        let values = || self.rounds.iter().filter_map(|round| round.get(figure.name).copied());
        let low = values().reduce(f64::min)?;
        let high = values().reduce(f64::max)?;
        let best = match figure.best {
            Best::Low => low,
            Best::High => high,
        };
        let spread = if best == 0.0 { 0.0 } else { (high - low) / best };
        Some((best, spread))
    }

    /// The row for a file of results: `about`, which says what was measured, with the figures added.
    pub fn as_json(&self, about: &Value, figures: &[Figure]) -> Value {
        let (mut best, mut spread) = (Map::new(), Map::new());
        for figure in figures {
            if let Some((value, relative)) = self.best(figure) {
                best.insert(figure.name.into(), rounded(value).into());
                spread.insert(figure.name.into(), rounded(relative).into());
            }
        }
        let of = |round: &Round| -> Map<String, Value> {
            round.iter().map(|(name, value)| (name.to_string(), rounded(*value).into())).collect()
        };
        let mut line = about.clone();
        line["server"] = json!(self.server);
        line["best"] = best.into();
        line["spread"] = spread.into();
        line["rounds"] = self.rounds.iter().map(of).collect();
        line
    }
}

/// To four digits after the point, as many as mean anything.
fn rounded(value: f64) -> f64 {
    (value * 1e4).round() / 1e4
}

/// The rows as a table; ratios are to the first row, and a figure that no row has gets no column.
pub fn table(title: &str, rows: &[Row], figures: &[Figure]) -> String {
    let mut lines = vec![vec!["server".to_string()]];
    lines.extend(rows.iter().map(|row| vec![row.server.clone()]));
    for figure in figures {
        if rows.iter().all(|row| row.best(figure).is_none()) {
            continue;
        }
        lines[0].push(figure.heading.into());
        let base = rows[0].best(figure).map(|(value, _)| value);
        for (line, row) in lines[1..].iter_mut().zip(rows) {
            line.push(row.best(figure).map_or("–".into(), |best| cell(figure, best, base)));
        }
    }
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max();
    let widths: Vec<_> = (0..lines[0].len()).filter_map(width).collect();
    let mut text = format!("{title}\n");
    for line in &lines {
        let _ = write!(text, "  {:1$}", line[0], widths[0]);
        for (cell, width) in line.iter().zip(&widths).skip(1) {
            let _ = write!(text, "  {cell:>width$}");
        }
        text.push('\n');
    }
    text
}

/// `5.62 ±3% ×1.08`: the best value, the spread where it shows, the ratio where the figure has one.
fn cell(figure: &Figure, (value, spread): (f64, f64), base: Option<f64>) -> String {
    let mut text = format!("{value:.*}", figure.decimals);
    if spread >= 0.005 {
        let _ = write!(text, " ±{:.0}%", spread * 100.0);
    }
    if let (true, Some(base)) = (figure.ratio, base) {
        let _ = write!(text, " ×{:.2}", value / base);
    }
    text
}

/// The machine, the day and the sources, for a line of results.
pub fn circumstances() -> Value {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    json!({
        "date": output("date", &["-u", "+%Y-%m-%dT%H:%M:%SZ"]),
        "commit": output("git", &["describe", "--always", "--dirty"]),
        "machine": {
            "cpu": model,
            "cpus": std::thread::available_parallelism().map_or(0, usize::from),
            "virtual": cpuinfo.contains(" hypervisor"),
            "kernel": kernel.trim(),
            "rustc": output("rustc", &["--version"]),
        },
    })
}

/// What a program prints, if it is there and succeeds.
fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(server: &str, rounds: &[f64]) -> Row {
        let round = |cpu_us: &f64| Round::from([("cpu_us", *cpu_us), ("requests_per_second", *cpu_us)]);
        Row { server: server.into(), rounds: rounds.iter().map(round).collect() }
    }

    #[test]
    fn the_best_round_counts_and_the_ratio_is_to_the_first_row() {
        let rows = [row("raw", &[5.0, 4.0]), row("other", &[6.0])];
        assert_eq!(
            table("echo", &rows, &ECHO),
            "echo\n\
             \x20 server           CPU µs  requests/s\n\
             \x20 raw     4.00 ±25% ×1.00      5 ±20%\n\
             \x20 other        6.00 ×1.50           6\n"
        );
    }

    #[test]
    fn a_json_line_has_what_was_measured_and_all_rounds() {
        let line = row("raw", &[5.0, 4.0]).as_json(&json!({ "work": "echo" }), &ECHO);
        assert_eq!(line["work"], "echo");
        assert_eq!(line["best"]["cpu_us"], 4.0);
        assert_eq!(line["spread"]["cpu_us"], 0.25);
        assert_eq!(line["rounds"][1]["requests_per_second"], 4.0);
    }
}
