//! Prints the tables again from recorded results, and draws the plots: of each table the last one that was recorded.

use clap::Parser;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use towpath_bench::Result;
use towpath_bench::figures::{Row, WORKS, columns, rank, table};
use towpath_bench::plot::{Bar, Panel, Role, svg};
use towpath_bench::spell::in_title;

#[derive(Parser)]
#[command(about = "Prints recorded results as tables, and draws plots from them")]
struct Args {
    /// The directory of the results
    results: PathBuf,
    /// Write request.svg and idle.svg to this directory
    #[arg(long)]
    plots: Option<PathBuf>,
}

/// The lines of one table, all from one run.
struct Table {
    work: String,
    title: String,
    connections: u64,
    workers: u64,
    date: String,
    crossing_ns: Option<f64>,
    about: String,
    notes: Vec<String>,
    rows: Vec<Row>,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let tables = read(&args.results)?;
    if tables.is_empty() {
        return Err(format!("no results in {}", args.results.display()).into());
    }
    let mut notes: Vec<String> = Vec::new();
    for one in &tables {
        let title = one.title.clone() + &in_title(one.crossing_ns);
        println!("{}", table(&title, &one.rows, columns(&one.work)));
        for note in one.notes.iter().chain([&one.about]) {
            if !notes.contains(note) {
                notes.push(note.clone());
            }
        }
    }
    for note in notes {
        println!("{note}");
    }
    if let Some(directory) = &args.plots {
        fs::create_dir_all(directory)?;
        let cost = panels(&tables, "echo", &[64, 1_000], &[("cpu_us", "CPU µs per request"), ("p99_us", "p99, µs")]);
        fs::write(directory.join("request.svg"), svg(&cost))?;
        let idle = panels(&tables, "idle", &[10_000], &[("memory_bytes", "bytes of the process per connection")]);
        fs::write(directory.join("idle.svg"), svg(&idle))?;
    }
    Ok(())
}

/// The newest tables of all files in the directory, in the order in which they are measured.
fn read(directory: &Path) -> Result<Vec<Table>> {
    let mut tables: Vec<Table> = Vec::new();
    let mut files: Vec<_> =
        fs::read_dir(directory)?.map(|entry| entry.map(|entry| entry.path())).collect::<std::io::Result<_>>()?;
    let order = |path: &PathBuf| WORKS.iter().position(|work| path.file_stem().is_some_and(|stem| stem == *work));
    files.sort_by_key(|path| (order(path).unwrap_or(WORKS.len()), path.clone()));
    for path in files.iter().filter(|path| path.extension().is_some_and(|extension| extension == "jsonl")) {
        for line in fs::read_to_string(path)?.lines() {
            let line: Value = serde_json::from_str(line).map_err(|e| format!("{}: {e}", path.display()))?;
            if line["title"].is_null() {
                continue; // Of an earlier form, with other rounds.
            }
            add(&mut tables, &line).ok_or_else(|| format!("{}: a line lacks something", path.display()))?;
        }
    }
    for table in &mut tables {
        rank(&mut table.rows);
    }
    Ok(tables)
}

/// Adds a line to its table; one of a later run takes the place of the whole table.
fn add(tables: &mut Vec<Table>, line: &Value) -> Option<()> {
    let text = |name: &str| Some(line[name].as_str()?.to_string());
    let (title, date) = (text("title")?, text("date")?);
    let at = tables.iter().position(|table| table.title == title).unwrap_or(tables.len());
    if tables.get(at).is_none_or(|table| table.date != date) {
        let machine = &line["machine"];
        let about = ["cpu", "kernel", "rustc"].map(|name| machine[name].as_str().unwrap_or("unknown"));
        let new = Table {
            work: text("work")?,
            title,
            connections: line["connections"].as_u64()?,
            workers: line["workers"].as_u64()?,
            crossing_ns: line["crossing_ns"].as_f64(),
            about: format!(
                "Measured at {date} on {} of {}, Linux {}, {}, with {}.",
                machine["cpus"],
                about[0],
                about[1],
                about[2],
                text("commit").unwrap_or("sources without a name".into()),
            ),
            date,
            notes: line["notes"].as_array()?.iter().filter_map(|note| Some(note.as_str()?.into())).collect(),
            rows: Vec::new(),
        };
        if at == tables.len() { tables.push(new) } else { tables[at] = new }
    }
    tables[at].rows.push(Row::from_json(line)?);
    Some(())
}

/// A panel for each number of connections and figure: those who have a value, the best on top.
fn panels(tables: &[Table], work: &str, connections: &[u64], figures: &[(&str, &str)]) -> Vec<Panel> {
    let mut panels = Vec::new();
    for (figure, heading) in figures {
        for connections in connections {
            let wanted = |table: &&Table| table.work == work && table.connections == *connections && table.workers == 1;
            let Some(table) = tables.iter().find(wanted) else { continue };
            let bar = |row: &Row| {
                let role = match row {
                    row if row.limit => Role::Limit,
                    row if row.server.starts_with("towpath") => Role::Own,
                    _ => Role::Peer,
                };
                Some(Bar { name: row.server.clone(), value: row.value(figure)?, role })
            };
            let mut bars: Vec<_> = table.rows.iter().filter_map(bar).collect();
            bars.sort_by(|a, b| a.value.total_cmp(&b.value));
            panels.push(Panel { title: format!("{heading}, {connections} connections"), bars });
        }
    }
    panels
}
