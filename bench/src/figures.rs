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

const fn high(name: &'static str, heading: &'static str, decimals: usize) -> Figure {
    Figure { name, heading, decimals, best: Best::High, ratio: false }
}

/// What a request costs the server, and what the client sees of it.
pub const REQUEST: [Figure; 15] = [
    low("instructions_user", "instr user", 0),
    low("instructions_kernel", "instr kernel", 0),
    low_with_ratio("instructions", "instr", 0),
    low("cycles_user", "cycles user", 0),
    low("cycles_kernel", "cycles kernel", 0),
    low_with_ratio("callgrind_instructions_user", "user instr*", 0),
    low("system_calls", "syscalls", 2),
    low("switches", "switches", 3),
    low_with_ratio("cpu_us", "CPU µs", 2),
    high("requests_per_cpu_second", "req/CPU s", 0),
    high("requests_per_second", "req/s", 0),
    low("p50_us", "p50 µs", 0),
    low("p99_us", "p99 µs", 0),
    low("p99_9_us", "p99.9 µs", 0),
    low("busiest_percent", "busiest %", 0),
];

/// What moving bytes in one direction costs: instructions, system calls and switches per MiB.
pub const BULK: [Figure; 9] = [
    low("instructions_user", "instr user", 0),
    low("instructions_kernel", "instr kernel", 0),
    low_with_ratio("instructions", "instr", 0),
    low("cycles_user", "cycles user", 0),
    low("cycles_kernel", "cycles kernel", 0),
    low("system_calls", "syscalls", 1),
    low("switches", "switches", 3),
    low_with_ratio("cpu_ms_per_gb", "CPU ms/GB", 0),
    high("gb_per_second", "GB/s", 2),
];

/// What an idle connection holds in the server's process, in bytes, and how many mappings all of them make.
pub const IDLE: [Figure; 4] = [
    low("resident_bytes", "RSS", 0),
    low("page_table_bytes", "page tables", 0),
    low_with_ratio("memory_bytes", "both", 0),
    low("mappings", "mappings", 0),
];

/// What is measured, in the order of the tables.
pub const WORKS: [&str; 9] = ["echo", "large", "open", "pipeline", "shared", "churn", "bulk", "proxy", "idle"];

/// The columns of a work's table.
pub fn columns(work: &str) -> &'static [Figure] {
    match work {
        "bulk" => &BULK,
        "idle" => &IDLE,
        _ => &REQUEST,
    }
}

/// The figures of one round by name; what a machine cannot measure is missing.
pub type Round = BTreeMap<&'static str, f64>;

/// A server's line in a table: of each figure the best round's value, and how far the worst one is from it, as a
/// fraction.
#[derive(Clone, Debug)]
pub struct Row {
    /// The server's name.
    pub server: String,
    /// A limit: written by hand for this one purpose, and no peer.
    pub limit: bool,
    best: BTreeMap<String, (f64, f64)>,
}

impl Row {
    /// From the rounds that count; there may be none.
    pub fn new(server: &str, limit: bool, rounds: &[&Round], figures: &[Figure]) -> Row {
        let best = |figure: &Figure| {
            let values = || rounds.iter().filter_map(|round| round.get(figure.name).copied());
            let low = values().reduce(f64::min)?;
            let high = values().reduce(f64::max)?;
            let best = match figure.best {
                Best::Low => low,
                Best::High => high,
            };
            let spread = if best == 0.0 { 0.0 } else { (high - low) / best };
            Some((figure.name.to_string(), (rounded(best), rounded(spread))))
        };
        Row { server: server.into(), limit, best: figures.iter().filter_map(best).collect() }
    }

    /// From a line of results.
    pub fn from_json(line: &Value) -> Option<Row> {
        let best =
            |(name, value): (&String, &Value)| Some((name.clone(), (value.as_f64()?, line["spread"][name].as_f64()?)));
        Some(Row {
            server: line["server"].as_str()?.into(),
            limit: line["limit"].as_bool()?,
            best: line["best"].as_object()?.iter().filter_map(best).collect(),
        })
    }

    /// Adds itself to a line of results.
    pub fn add_to(&self, line: &mut Value) {
        let part = |of: fn(&(f64, f64)) -> f64| -> Map<String, Value> {
            self.best.iter().map(|(name, value)| (name.clone(), of(value).into())).collect()
        };
        line["server"] = json!(self.server);
        line["limit"] = json!(self.limit);
        line["best"] = part(|value| value.0).into();
        line["spread"] = part(|value| value.1).into();
    }

    /// The best value of a figure.
    pub fn value(&self, name: &str) -> Option<f64> {
        self.best.get(name).map(|best| best.0)
    }
}

/// A round for a line of results.
pub fn round_as_json(round: &Round) -> Value {
    round.iter().map(|(name, value)| (name.to_string(), rounded(*value).into())).collect::<Map<_, Value>>().into()
}

/// Puts rows in order: the limits first, as they come, then by instructions where all were counted, else by system calls (a tenth
/// of one is the same) and then instructions in user space, at last by CPU time or memory.
pub fn rank(rows: &mut [Row]) {
    let counted = rows.iter().all(|row| row.value("instructions").is_some());
    let key = |row: &Row| {
        let value = |name| row.value(name).unwrap_or(f64::INFINITY);
        if row.limit {
            return (false, [0.0; 2], 0.0);
        }
        let calls = (value("system_calls") * 10.0).round();
        let costs = if counted { [value("instructions"), 0.0] } else { [calls, value("callgrind_instructions_user")] };
        (true, costs, value("cpu_us").min(value("cpu_ms_per_gb")).min(value("memory_bytes")))
    };
    rows.sort_by(|a, b| key(a).partial_cmp(&key(b)).expect("no figure is NaN"));
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
        if rows.iter().all(|row| !row.best.contains_key(figure.name)) {
            continue;
        }
        lines[0].push(figure.heading.into());
        let base = rows[0].value(figure.name);
        for (line, row) in lines[1..].iter_mut().zip(rows) {
            line.push(row.best.get(figure.name).map_or("–".into(), |best| cell(figure, *best, base)));
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
    match spread {
        s if s >= 10.0 => text.push_str(" ±>999%"),
        s if s >= 0.005 => drop(write!(text, " ±{:.0}%", s * 100.0)),
        _ => {}
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
        let rounds: Vec<_> = rounds.iter().map(round).collect();
        Row::new(server, server == "raw", &rounds.iter().collect::<Vec<_>>(), &REQUEST)
    }

    #[test]
    fn the_best_round_counts_and_the_ratio_is_to_the_first_row() {
        let rows = [row("raw", &[5.0, 4.0]), row("other", &[6.0]), row("failed", &[])];
        assert_eq!(
            table("echo", &rows, &REQUEST),
            "echo\n\
             \x20 server           CPU µs   req/s\n\
             \x20 raw     4.00 ±25% ×1.00  5 ±20%\n\
             \x20 other        6.00 ×1.50       6\n\
             \x20 failed                –       –\n"
        );
    }

    #[test]
    fn a_row_comes_back_from_its_json_line() {
        let mut line = json!({ "work": "echo" });
        row("raw", &[5.0, 4.0]).add_to(&mut line);
        assert_eq!(line["best"]["cpu_us"], 4.0);
        assert_eq!(line["spread"]["cpu_us"], 0.25);
        let again = Row::from_json(&line).unwrap();
        assert_eq!(table("", &[again], &REQUEST), table("", &[row("raw", &[5.0, 4.0])], &REQUEST));
    }

    #[test]
    fn limits_lead_and_system_calls_come_before_cpu_time() {
        let with = |server: &str, calls: f64, cpu_us: f64| {
            let round = Round::from([("system_calls", calls), ("cpu_us", cpu_us)]);
            Row::new(server, server == "raw", &[&round], &REQUEST)
        };
        let mut rows =
            [with("many", 3.0, 1.0), with("few", 2.01, 5.0), with("fewer", 1.99, 4.0), with("raw", 9.0, 9.0)];
        rank(&mut rows);
        assert_eq!(rows.map(|row| row.server), ["raw", "fewer", "few", "many"]);
    }
}
