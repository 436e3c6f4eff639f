//! A dump as people read it: a table whose columns align.

#![forbid(unsafe_code)]

use std::fmt;

use super::{Arm, StackInfo, TaskDump, TaskInfo, TaskState, WaitsOn};
use crate::time::Instant;

const COLUMNS: [&str; 11] =
    ["TASK", "NAME", "STATE", "OPERATION", "FD", "ON", "SINCE", "LIMIT", "STACK", "WORKER", "SPAWNED AT"];

/// What is not there.
const NONE: &str = "-";

impl TaskInfo {
    fn cells(&self, now: Instant) -> [String; COLUMNS.len()] {
        let or_none = |cell: Option<String>| cell.unwrap_or_else(|| NONE.to_owned());
        [
            self.id().to_string(),
            or_none(self.name().map(|name| name.escape_debug().to_string())),
            self.state.to_string(),
            or_none(self.operation().map(str::to_owned)),
            or_none(self.fd().map(|fd| fd.to_string())),
            or_none(self.waits_on().map(WaitsOn::to_string)),
            or_none(self.waiting_for().map(|time| format!("{time:.1?}"))),
            or_none(self.deadline().map(|deadline| format!("in {:.1?}", deadline.duration_since(now)))),
            self.stack.to_string(),
            self.worker.to_string(),
            self.spawned_at().to_string(),
        ]
    }
}

impl fmt::Display for TaskDump {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let now = Instant::now();
        let rows: Vec<_> = self.tasks.iter().map(|task| task.cells(now)).collect();
        let mut widths = COLUMNS.map(str::len);
        for (cell, width) in rows.iter().flat_map(|row| row.iter().zip(0..)) {
            widths[width] = widths[width].max(cell.chars().count());
        }
        line(f, &COLUMNS.map(str::to_owned), &widths)?;
        for (row, task) in rows.iter().zip(&self.tasks) {
            line(f, row, &widths)?;
            if let Some(backtrace) = task.backtrace() {
                writeln!(f, "{backtrace}")?;
            }
        }
        for worker in self.silent() {
            writeln!(f, "{worker} does not answer: the task that it runs holds it up, or the machine is too busy")?;
        }
        Ok(())
    }
}

fn line(f: &mut fmt::Formatter<'_>, cells: &[String], widths: &[usize]) -> fmt::Result {
    let (last, others) = cells.split_last().expect("a table has columns");
    for (cell, width) in others.iter().zip(widths) {
        write!(f, "{cell:width$}  ")?;
    }
    writeln!(f, "{last}")
}

impl fmt::Display for TaskInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.cells(Instant::now()).join(" "))
    }
}

impl fmt::Display for TaskState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TaskState::Running => "running",
            TaskState::Ready => "ready",
            TaskState::Waiting => "waiting",
        })
    }
}

impl fmt::Display for WaitsOn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WaitsOn::Socket(socket) => match (socket.local, socket.peer) {
                (Some(local), Some(peer)) => write!(f, "{local} -> {peer}"),
                (Some(local), None) => write!(f, "{local}"),
                _ => f.write_str(NONE),
            },
            WaitsOn::Channel(channel) => {
                write!(f, "channel {:x}", channel.id)?;
                match (channel.len, channel.capacity) {
                    (Some(len), Some(capacity)) => write!(f, " ({len} of {capacity})"),
                    (Some(len), None) => write!(f, " ({len})"),
                    _ => Ok(()),
                }
            }
            WaitsOn::Task(id) => write!(f, "task {id}"),
            WaitsOn::Select(arms) => {
                for (i, Arm { operation, on }) in arms.iter().enumerate() {
                    let comma = if i > 0 { ", " } else { "" };
                    write!(f, "{comma}{operation}")?;
                    on.iter().try_for_each(|on| write!(f, " {on}"))?;
                }
                if arms.is_empty() { f.write_str(NONE) } else { Ok(()) }
            }
        }
    }
}

/// In KiB: in use, high water, size.
impl fmt::Display for StackInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kib = |bytes: Option<usize>| bytes.map_or(NONE.to_owned(), |bytes| bytes.div_ceil(1024).to_string());
        write!(f, "{}/{}/{}K", kib(self.in_use), kib(self.high_water), self.size / 1024)
    }
}
