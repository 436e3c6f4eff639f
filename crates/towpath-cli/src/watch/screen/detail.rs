//! All about one socket, as lines: first in words what it is and what limits it, then every field that the kernel tells, then
//! what happened to it.

#![forbid(unsafe_code)]

use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use towpath_diag::{Socket, State, TcpInfo, Value};

use super::super::columns::{Column, Style, Tone, Whole};
use super::super::lives::Step;
use super::super::object::{ca_state, option_names, timer_name};
use super::super::table::Moment;
use super::limits::{Limit, Shares};
use crate::output::text::escape;
use crate::output::units;

/// A line of it: what it is about, and what it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) label: String,
    pub(super) text: String,
    pub(super) tone: Tone,
}

/// What is known of one socket.
#[derive(Debug, Clone, Copy)]
pub(super) struct Subject<'a> {
    pub(super) whole: Whole<'a>,
    /// As the kernel told of it last.
    pub(super) socket: Option<&'a Socket>,
    /// As it told of it the look before.
    pub(super) before: Option<&'a Socket>,
    /// What happened to it, oldest first.
    pub(super) steps: &'a [Step],
    pub(super) style: Style<'a>,
    /// The time of day at `style.now`.
    pub(super) clock: Timestamp,
}

/// The lines.
pub(super) fn lines(subject: &Subject<'_>) -> Vec<Line> {
    let mut page = Page { lines: vec![], ascii: subject.style.ascii };
    page.identity(subject);
    if let Some(socket) = subject.socket {
        page.kernel(socket);
        if let Some(info) = socket.info.as_ref().filter(|_| socket.state != State::Listen) {
            page.limits(socket, info, subject.before.and_then(|before| before.info.as_ref()));
            page.path(info);
            page.fields(info);
        }
    }
    page.history(subject);
    page.lines
}

struct Page {
    lines: Vec<Line>,
    ascii: bool,
}

impl Page {
    fn line(&mut self, label: &str, text: impl Into<String>) {
        self.lines.push(Line { label: label.to_owned(), text: text.into(), tone: Tone::Plain });
    }

    fn time(&self, time: Duration) -> String {
        units::time(time, self.ascii)
    }

    /// What is there, joined.
    fn joined(&mut self, label: &str, parts: impl IntoIterator<Item = Option<String>>) {
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        if !parts.is_empty() {
            self.line(label, parts.join("   "));
        }
    }

    fn identity(&mut self, subject: &Subject<'_>) {
        let cell = |column: Column| column.cell(&subject.whole, subject.style);
        let row = subject.whole.row;
        let state = cell(Column::State);
        let lasted = cell(Column::For).text;
        let lasted = if lasted.is_empty() { String::new() } else { format!("   for {lasted}") };
        self.lines.push(Line { label: "state".into(), text: format!("{}{lasted}", row.state), tone: state.tone });
        let arrow = if self.ascii { "->" } else { "→" };
        let ends = match row.peer {
            Some(_) => format!("{} {arrow} {}", cell(Column::Local).text, cell(Column::Peer).text),
            None => cell(Column::Local).text,
        };
        self.line("ends", ends);
        if subject.whole.owners.is_empty() {
            self.line("owner", owner_unknown(row.inode, row.state));
        }
        for owner in subject.whole.owners {
            let command = escape(owner.command.as_bytes(), self.ascii);
            self.line("owner", format!("{command}   process {}   descriptor {}", owner.pid, owner.fd));
        }
        for task in subject.whole.tasks.iter() {
            let name = task
                .name
                .as_deref()
                .map(|name| format!(" {}", escape(name.as_bytes(), self.ascii)))
                .unwrap_or_default();
            let op =
                task.op.as_deref().map(|op| format!(" in {}", escape(op.as_bytes(), self.ascii))).unwrap_or_default();
            let since = self.time(subject.style.now.saturating_sub(task.since));
            let spawned = escape(task.spawned_at.as_bytes(), self.ascii);
            let state = escape(task.state.as_bytes(), self.ascii);
            self.line("task", format!("#{}{name}   {state}{op} for {since}   spawned at {spawned}", task.id));
        }
    }

    fn kernel(&mut self, socket: &Socket) {
        let some = |name: &str, number: Option<u64>| number.map(|number| format!("{name} {number}"));
        self.joined(
            "socket",
            [
                some("cookie", Some(socket.cookie)),
                some("inode", socket.inode.map(u64::from)),
                some("uid", (socket.state != State::TimeWait).then_some(socket.uid.into())),
                some("interface", Some(u64::from(socket.interface)).filter(|&index| index != 0)),
                some("cgroup", socket.cgroup),
                some("mark", socket.mark.filter(|&mark| mark != 0).map(u64::from)),
                some("tos", socket.tos.filter(|&tos| tos != 0).map(u64::from)),
            ],
        );
        match socket.state {
            State::TimeWait => {}
            State::Listen => self.line(
                "queue",
                format!(
                    "{} wait to be accepted, of at most {}",
                    socket.receive_queue,
                    u64::from(socket.send_queue) + 1
                ),
            ),
            _ => self.line(
                "queues",
                format!(
                    "received, not read {}   written, not acknowledged {}",
                    units::bytes(socket.receive_queue.into()),
                    units::bytes(socket.send_queue.into())
                ),
            ),
        }
        if let Some(timer) = socket.timer {
            let kind = timer_name(timer.kind);
            self.line("timer", format!("{kind} in {}   fired {} times", self.time(timer.expires), timer.retransmits));
        }
        if let Some(memory) = socket.memory {
            let bytes = |bytes: u32| units::bytes(bytes.into());
            self.line(
                "memory",
                format!(
                    "received {} of {}   to send {} of {}   in reserve {}   dropped {}",
                    bytes(memory.receive_allocated),
                    bytes(memory.receive_limit),
                    bytes(memory.send_queued),
                    bytes(memory.send_limit),
                    bytes(memory.forward_allocated),
                    memory.drops.map_or_else(|| "?".to_owned(), |drops| drops.to_string()),
                ),
            );
        }
    }

    fn limits(&mut self, socket: &Socket, info: &TcpInfo, before: Option<&TcpInfo>) {
        if let Some(limit) = Limit::of(socket) {
            self.line("limit", limit.text());
        }
        let lately = before.and_then(|before| Shares::between(before, info));
        for (when, shares) in [("lately", lately), ("ever", Shares::of(info))] {
            let Some(shares) = shares else { continue };
            let [window, buffer, network] = shares.percent();
            let busy = self.time(shares.busy);
            self.line(
                "",
                format!("{when} busy {busy}: peer's window {window} %, send buffer {buffer} %, network {network} %"),
            );
        }
    }

    fn path(&mut self, info: &TcpInfo) {
        let time = |name: &str, time: Option<Duration>| time.map(|time| format!("{name} {}", self.time(time)));
        let parts = [
            time("rtt", info.rtt()),
            time("varies by", info.rttvar()),
            time("least", info.min_rtt()),
            time("timeout", info.rto()),
        ];
        self.joined("times", parts);
        let bytes = |name: &str, bytes: Option<u64>| bytes.map(|bytes| format!("{name} {}", units::bytes(bytes)));
        let segments = info.snd_cwnd().map(|cwnd| format!("congestion {cwnd} segments"));
        self.joined(
            "windows",
            [segments, bytes("peer's", info.snd_wnd().map(u64::from)), bytes("ours", info.rcv_wnd().map(u64::from))],
        );
        let count = |name: &str, count: Option<u32>| count.map(|count| format!("{name} {count}"));
        let parts = [
            count("lost", info.lost()),
            count("sent again", info.total_retrans()),
            count("timeouts", info.total_rto().map(u32::from)),
        ];
        self.joined("segments", parts);
    }

    /// Everything, under the kernel's names.
    fn fields(&mut self, info: &TcpInfo) {
        for (index, (name, value)) in info.fields().enumerate() {
            let text = match value {
                Value::Number(number) => number_with_unit(name, number),
                Value::Time(time) => self.time(time),
                Value::Flag(flag) => if flag { "yes" } else { "no" }.to_owned(),
                Value::Options(options) => option_names(options).join(" "),
                Value::CaState(state) => ca_state(state).to_owned(),
                _ => continue,
            };
            let label = if index == 0 { "tcp_info" } else { "" };
            self.line(label, format!("{name:<26}{text}").trim_end());
        }
    }

    fn history(&mut self, subject: &Subject<'_>) {
        if subject.steps.is_empty() {
            self.line("history", "no change of state was seen yet");
        }
        for (index, step) in subject.steps.iter().enumerate() {
            let label = if index == 0 { "history" } else { "" };
            let (time, change) = step_text(step, subject.style.now, subject.clock, self.ascii);
            self.line(label, format!("{time}  {change}"));
        }
    }
}

/// The time of day of a change of state, in fifteen cells, and what it was.
pub(super) fn step_text(step: &Step, now: Moment, clock: Timestamp, ascii: bool) -> (String, String) {
    let arrow = if ascii { "->" } else { "→" };
    // It may have come after the last look, whose time of day is known.
    let later = |span| jiff::SignedDuration::try_from(span).unwrap_or_default();
    let at = clock.checked_add(later(step.at) - later(now)).unwrap_or(clock).to_zoned(TimeZone::system());
    // What was only seen in a look is not known to the microsecond.
    let time = at.strftime(if step.exact { "%H:%M:%S%.6f" } else { "%H:%M:%S%.1f" }).to_string();
    let after = step.since.map(|since| format!("  after {}", units::time(step.at.saturating_sub(since), ascii)));
    let (old, new) = (step.old.short(), step.new.short());
    let change = format!("{old:>10} {arrow} {new:<10}{}", after.unwrap_or_default());
    (format!("{time:<15}"), change.trim_end().to_owned())
}

fn owner_unknown(inode: Option<u32>, state: State) -> &'static str {
    match (inode, state) {
        (_, State::Closed) => "none: it is gone",
        (None, State::Established | State::CloseWait | State::SynReceived) => "none yet: it waits to be accepted",
        (None, _) => "none: its program has closed it",
        (Some(_), _) => "not to be seen: another user's process, perhaps; try sudo",
    }
}

/// Bytes where the kernel's name does not mean segments, counts or times.
fn number_with_unit(name: &str, number: u64) -> String {
    const BYTES: [&str; 9] =
        ["snd_mss", "rcv_mss", "advmss", "pmtu", "rcv_ssthresh", "rcv_space", "snd_wnd", "rcv_wnd", "notsent_bytes"];
    if name.ends_with("_rate") {
        format!("{}/s", units::bytes(number))
    } else if BYTES.contains(&name) || name.starts_with("bytes_") || name.ends_with("_bytes") {
        units::bytes(number)
    } else {
        number.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_step_has_its_own_time_also_after_the_last_look() {
        let (now, clock) = (Duration::from_secs(100), Timestamp::UNIX_EPOCH);
        let time = |at: Duration| {
            let ends = (([127, 0, 0, 1], 1).into(), None);
            let step = Step { at, exact: true, ends, old: State::Established, new: State::CloseWait, since: None };
            step_text(&step, now, clock, false).0
        };
        let seconds = |time: String| time.rsplit_once(':').unwrap().1.to_owned();
        assert_eq!(seconds(time(now)), "00.000000");
        assert_eq!(seconds(time(now - Duration::from_micros(1))), "59.999999");
        assert_eq!(seconds(time(now + Duration::from_millis(1_500))), "01.500000");
        assert_eq!(seconds(time(now + Duration::from_micros(1_500_001))), "01.500001");
    }
}
