//! A dump as programs read it: JSON lines, the first for the whole, then one for each task.
//!
//! This is what the inspect endpoint answers. Within a `v`, fields may be added; names and meanings do not change.

#![forbid(unsafe_code)]

use std::fmt::{Display, Write as _};
use std::io::{self, Write};
use std::time::Duration;

use super::{Arm, TaskDump, TaskInfo, WaitsOn};
use crate::time::Instant;

/// The version of the format.
pub(crate) const VERSION: u32 = 1;

impl TaskDump {
    /// Writes JSON lines: first an object for the whole, then one for each task.
    ///
    /// The first has `v` (1), `pid`, `program` (the name of the executable), `workers`, `tasks` (how many lines follow) and,
    /// if there are any, the names of the workers that did not answer as `silent`. A task has `id`, `state` (`running`,
    /// `ready`, `waiting`), `spawned_at` (file:line), `worker`, `stack_size`; and where they are known or apply `name`, `op`,
    /// `since_us` (for how long it has waited), `deadline_us` (from now), `fd`, `local`, `peer`, `cookie`, `channel` (`id`,
    /// `len`, `capacity`), `join` (a task's number), `select` (arms, each with `op` and what it is on), `stack_in_use`,
    /// `stack_high_water`, and `backtrace` (strings, innermost call first). Sizes are bytes, and fields may be added.
    ///
    /// # Errors
    /// What `to` answers.
    pub fn write_json(&self, mut to: impl Write) -> io::Result<()> {
        let now = Instant::now();
        let mut head = Object::new();
        head.number("v", VERSION);
        head.number("pid", std::process::id());
        head.text("program", &program());
        head.number("workers", self.workers);
        head.number("tasks", self.tasks.len());
        if !self.silent.is_empty() {
            head.list("silent", self.silent().map(quoted));
        }
        writeln!(to, "{}", head.end())?;
        self.tasks.iter().try_for_each(|task| writeln!(to, "{}", task.object(now).end()))
    }
}

impl TaskInfo {
    fn object(&self, now: Instant) -> Object {
        let mut object = Object::new();
        object.number("id", self.id().number());
        self.name().iter().for_each(|name| object.text("name", name));
        object.text("state", &self.state.to_string());
        self.operation().iter().for_each(|op| object.text("op", op));
        self.waits_on().iter().for_each(|on| object.waits_on(on));
        object.known("since_us", self.waiting_for().map(micros));
        object.known("deadline_us", self.deadline().map(|deadline| micros(deadline.duration_since(now))));
        let at = self.spawned_at();
        object.text("spawned_at", &format!("{}:{}", at.file(), at.line()));
        object.text("worker", &self.worker);
        object.number("stack_size", self.stack.size);
        object.known("stack_in_use", self.stack.in_use);
        object.known("stack_high_water", self.stack.high_water);
        if let Some(backtrace) = self.backtrace() {
            object.list("backtrace", backtrace.frames().map(|frame| quoted(&frame.to_string())));
        }
        object
    }
}

fn micros(time: Duration) -> u128 {
    time.as_micros()
}

/// The file name of the executable.
fn program() -> String {
    let path = std::env::current_exe().or_else(|_| std::env::args_os().next().map(Into::into).ok_or(()));
    let path = path.unwrap_or_default();
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// A JSON object (RFC 8259) in the making.
struct Object(String);

impl Object {
    fn new() -> Object {
        Object("{".to_owned())
    }

    fn key(&mut self, key: &str) {
        let comma = if self.0.len() > 1 { "," } else { "" };
        _ = write!(self.0, "{comma}\"{key}\":"); // to a string, which cannot fail
    }

    fn number(&mut self, key: &str, number: impl Display) {
        self.key(key);
        _ = write!(self.0, "{number}");
    }

    /// A number, if it is known.
    fn known(&mut self, key: &str, number: Option<impl Display>) {
        number.into_iter().for_each(|number| self.number(key, number));
    }

    fn text(&mut self, key: &str, text: &str) {
        self.key(key);
        quote(&mut self.0, text);
    }

    /// A list of values that are JSON already.
    fn list(&mut self, key: &str, values: impl Iterator<Item = String>) {
        self.key(key);
        self.0.push('[');
        for (i, value) in values.enumerate() {
            self.0.push_str(if i > 0 { "," } else { "" });
            self.0.push_str(&value);
        }
        self.0.push(']');
    }

    fn waits_on(&mut self, on: &WaitsOn) {
        match on {
            WaitsOn::Socket(socket) => {
                self.number("fd", socket.fd);
                socket.local.iter().for_each(|addr| self.text("local", &addr.to_string()));
                socket.peer.iter().for_each(|addr| self.text("peer", &addr.to_string()));
                self.known("cookie", socket.cookie);
            }
            WaitsOn::Channel(channel) => {
                let mut object = Object::new();
                object.number("id", channel.id);
                object.known("len", channel.len);
                object.known("capacity", channel.capacity);
                self.number("channel", object.end());
            }
            WaitsOn::Task(id) => self.number("join", id.number()),
            WaitsOn::Select(arms) => self.list(
                "select",
                arms.iter().map(|Arm { operation, on }| {
                    let mut object = Object::new();
                    object.text("op", operation);
                    on.iter().for_each(|on| object.waits_on(on));
                    object.end()
                }),
            ),
        }
    }

    fn end(mut self) -> String {
        self.0.push('}');
        self.0
    }
}

fn quoted(text: &str) -> String {
    let mut json = String::new();
    quote(&mut json, text);
    json
}

fn quote(json: &mut String, text: &str) {
    json.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => json.extend(['\\', c]),
            '\0'..' ' => _ = write!(json, "\\u{:04x}", u32::from(c)),
            _ => json.push(c),
        }
    }
    json.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back_as_it_was() {
        let text: String = (0..0x300).filter_map(char::from_u32).chain("\u{2028}\u{1f980}".chars()).collect();
        let mut object = Object::new();
        object.text("text", &text);
        object.number("number", u32::MAX);
        object.known("unknown", None::<u32>);
        object.list("list", ["a\"", "\\"].into_iter().map(quoted));
        object.list("empty", std::iter::empty());
        let value: tinyjson::JsonValue = object.end().parse().expect("JSON");
        assert_eq!(value["text"].get::<String>(), Some(&text));
        assert_eq!(value["number"].get::<f64>(), Some(&f64::from(u32::MAX)));
        assert_eq!(value["list"][1].get::<String>().map(String::as_str), Some("\\"));
        assert_eq!(value["empty"].get::<Vec<_>>().map(Vec::len), Some(0));
        assert_eq!(value.get::<std::collections::HashMap<_, _>>().map(|object| object.len()), Some(4));
    }
}
