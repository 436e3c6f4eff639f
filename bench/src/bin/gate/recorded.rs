//! The file of recorded figures: a JSON line for each time they were recorded, with what they depend on.

use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::Path;
use std::process::Command;
use towpath_bench::Result;
use towpath_bench::figures::circumstances;

/// Instructions per operation, by name.
pub(crate) type Figures = BTreeMap<String, f64>;

/// What decides a figure beside the code.
const TOOLS: [(&str, &str, &[&str]); 3] = [
    ("rustc", "rustc", &["--version"]),
    ("valgrind", "valgrind", &["--version"]),
    ("libc", "getconf", &["GNU_LIBC_VERSION"]),
];

/// Figures, and where they come from.
pub(crate) struct Record {
    pub(crate) figures: Figures,
    about: Value,
    tools: Value,
}

impl Record {
    /// Figures just counted.
    pub(crate) fn now(figures: Figures) -> Record {
        let figures = figures.into_iter().map(|(name, value)| (name, (value * 100.0).round() / 100.0)).collect();
        Record { figures, about: circumstances(), tools: tools() }
    }

    /// The last line of a file; `None` if there is no such file.
    pub(crate) fn last(path: &Path) -> Result<Option<Record>> {
        let wrong = |why: &dyn std::fmt::Display| format!("{}: {why}", path.display());
        let text = match fs::read_to_string(path) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            text => text.map_err(|e| wrong(&e))?,
        };
        let line = text.lines().last().ok_or_else(|| wrong(&"is empty"))?;
        let mut about: Value = serde_json::from_str(line).map_err(|e| wrong(&e))?;
        let figures = serde_json::from_value(about["figures"].take()).map_err(|e| wrong(&e))?;
        let tools = about["tools"].take();
        Ok(Some(Record { figures, about, tools }))
    }

    /// Adds a line to a file.
    pub(crate) fn append(&self, path: &Path) -> Result<()> {
        let mut line = self.about.clone();
        line["tools"] = self.tools.clone();
        line["figures"] = json!(self.figures);
        let file = OpenOptions::new().create(true).append(true).open(path);
        Ok(writeln!(file.map_err(|e| format!("{}: {e}", path.display()))?, "{line}")?)
    }

    /// What was different when the figures were counted, as `rustc (1.95), valgrind (3.19)`.
    pub(crate) fn differs_from_here(&self) -> Option<String> {
        let here = tools();
        let differing = here.as_object()?.iter().filter(|(name, value)| self.tools[name.as_str()] != **value);
        let shown = differing.map(|(name, value)| format!("{name} ({} then, {value} now)", self.tools[name.as_str()]));
        Some(shown.collect::<Vec<_>>().join(", ")).filter(|text| !text.is_empty())
    }

    /// `the figures of 2026-11-23T22:50:01Z (aeb8b8f)`.
    pub(crate) fn shown(&self) -> String {
        let text = |name: &str| self.about[name].as_str().unwrap_or("?").to_string();
        format!("the figures of {} ({})", text("date"), text("commit"))
    }

    /// A line for each figure.
    pub(crate) fn listed(&self) -> String {
        self.figures.iter().map(|(name, value)| format!("{name:10} {value:10.1}\n")).collect()
    }
}

/// The versions that figures depend on, and whether the processor has AVX2: valgrind imitates it up to there, and the C
/// library copies by what it finds.
fn tools() -> Value {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let mut tools = json!({ "machine": std::env::consts::ARCH, "avx2": cpuinfo.contains(" avx2") });
    for (name, program, arguments) in TOOLS {
        let output = Command::new(program).args(arguments).output();
        let text = output.ok().and_then(|output| String::from_utf8(output.stdout).ok());
        tools[name] = json!(text.as_deref().map(str::trim));
    }
    tools
}
