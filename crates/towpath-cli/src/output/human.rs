//! An event as people read it: a line, or with `--hex` a line and a dump.

#![forbid(unsafe_code)]

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};
use jiff::tz::TimeZone;

use super::event::{Data, Ending, Event, From, HungUp, Totals};
use super::look::Look;
use super::{text, units};

/// Which connection: the eye follows it down the lines.
const NUMBER: Style = AnsiColor::Cyan.on_default();
/// What one need not read.
const ASIDE: Style = Style::new().dimmed();
/// What went wrong.
const TROUBLE: Style = AnsiColor::Red.on_default().bold();

/// The text for `event`, with its newlines.
pub(crate) fn lines(event: &Event<'_>, look: Look) -> String {
    let paint = |style: Style, text: &str| look.paint(style, text).to_string();
    let number = |conn: u64| paint(NUMBER, &format!("#{conn}"));
    let mut line = match event {
        Event::Listening { addr, mode } => {
            let aside = format!("ctrl-c stops; towpath dial {} to talk", addr.port());
            format!("listening on {addr} ({mode})            {}", paint(ASIDE, &aside))
        }
        Event::Accepted { conn, peer, syn } => {
            let mut line = format!("{} {peer} connected", number(*conn));
            if let Some(syn) = syn {
                let _ = write!(line, "    {}", paint(ASIDE, &format!("syn: {syn}")));
            }
            line
        }
        Event::Send { conn, data } => {
            format!("{} send data : {}", number(*conn), shown(*data, look))
        }
        Event::Read { conn, data } => {
            format!("{} read data {} : {}", number(*conn), data.bytes, shown(*data, look))
        }
        Event::Closed { conn, why, totals, path } => {
            let mut aside = format!("  in {}  out {}", units::bytes(totals.bytes_in), units::bytes(totals.bytes_out));
            if let Some(path) = path {
                if let Some(rtt) = path.rtt {
                    let _ = write!(aside, "  rtt {}", units::time(rtt, look.ascii));
                }
                let _ = write!(aside, "  retrans {}", path.retrans);
            }
            let after = units::time(totals.after, look.ascii);
            format!("{} {} after {after}{}", number(*conn), ending(why, look), paint(ASIDE, &aside))
        }
        Event::AcceptFailed { error, wait, untold } => {
            let mut line = format!("{} {error}", paint(TROUBLE, "accept:"));
            if *untold > 0 {
                let _ = write!(line, " ({untold} more times since the last such line)");
            }
            let _ = write!(
                line,
                "; trying again in {}. Raise the limit (ulimit -n) or admit fewer at once (--max)",
                units::option(*wait)
            );
            line
        }
        Event::Draining { open: 0, .. } => "stopping; no conversation is open".to_owned(),
        Event::Draining { open, drain } => {
            let (conversations, have) = plural(*open, "conversation");
            format!("stopping; {conversations} {have} {} to finish; ctrl-c again ends at once", units::option(*drain))
        }
        Event::Drained { finished, cut } => format!("stopped; {finished} finished, {cut} cut"),
        Event::Dialled { local, peer, took } => {
            let arrow = if look.ascii { "->" } else { "→" };
            format!("connected {local} {arrow} {peer} in {}", units::time(*took, look.ascii))
        }
        Event::Data { data } => return shown(*data, look),
        Event::ServerClosed { totals, held } => {
            let what = if *held { "server closed; holding on" } else { "server closed" };
            summary(what, *totals, look)
        }
        Event::HungUp { by, totals } => {
            let what = match by {
                HungUp::Matched => "matched",
                HungUp::Interrupt => "interrupted",
                HungUp::EndOfInput => "end of input",
            };
            summary(what, *totals, look)
        }
        Event::Repeated { dials, failed } => {
            format!("{dials} dials: {} good, {failed} failed", dials - failed)
        }
        // A person gets a table.
        Event::Socket(_) => return String::new(),
        Event::Watching { filter, source, interval, why } => {
            let what = if filter.is_empty() { "every TCP socket" } else { filter };
            let aside = match (source, interval, why) {
                (From::Sampled, Some(interval), Some(why)) => {
                    format!("sampled every {}: {why}", units::option(*interval))
                }
                _ => "exact (tracepoint)".to_owned(),
            };
            format!("watching {what}            {}", paint(ASIDE, &format!("events: {aside}")))
        }
        Event::State { at, exact, local, peer, old, new, after } => {
            let time = at.to_zoned(TimeZone::system()).strftime("%H:%M:%S%.6f");
            let peer = peer.map(|peer| peer.to_string()).unwrap_or_else(|| "*".to_owned());
            let arrow = if look.ascii { "->" } else { "→" };
            let seen = if *exact { "" } else { "  (seen then)" };
            let after = after.map(|after| format!("  after {}", units::time(after, look.ascii))).unwrap_or_default();
            let new = format!("{:<11}", new.short());
            format!(
                "{time}  {local:<21}  {peer:<21}  {:>11} {arrow} {}{}",
                old.short(),
                paint(NUMBER, &new),
                paint(ASIDE, &format!("{after}{seen}"))
            )
        }
        Event::Recorded { file, segments, dropped } => {
            let lost = if *dropped > 0 { format!("; {dropped} were dropped") } else { String::new() };
            format!("{segments} segments are in {file}{lost}")
        }
        Event::Lost { changes } => {
            paint(TROUBLE, &format!("{changes} changes or more are not told: they came faster than they could be read"))
        }
        Event::Tracing { interface, filter } => {
            let what = if filter.is_empty() { "every TCP segment" } else { filter };
            format!("tracing {what} on {interface}            {}", paint(ASIDE, "ctrl-c stops"))
        }
        Event::Down => paint(TROUBLE, "the interface is down; when it comes up again, this goes on"),
        // `trace` draws these itself, and `tour` those.
        Event::Segment(_) | Event::Connection(_) => return String::new(),
        Event::Step { .. } | Event::Deed { .. } | Event::Parked { .. } => return String::new(),
        Event::Remark { .. } | Event::Toured { .. } => return String::new(),
        Event::Touring { own_network: true, .. } => {
            let aside = "in a network namespace of its own, which ends with it; nothing else is touched";
            format!("{}\n\n", paint(ASIDE, aside))
        }
        Event::Touring { segments, why, .. } => {
            let seen = if *segments { "" } else { "; there will be no segments to see" };
            let why = why.map(|why| format!(" ({why})")).unwrap_or_default();
            format!("{}\n\n", paint(TROUBLE, &format!("on the loopback interface of this machine{seen}{why}")))
        }
        Event::Key { next, single } => {
            let (key, quit) = if *single { ("any key", "q") } else { ("Enter", "q Enter") };
            paint(ASIDE, &format!("\n-- {key}: {next}; {quit}: the end --"))
        }
        Event::NotShown { segments } => {
            paint(TROUBLE, &format!("{segments} segments are not shown: the output does not take them fast enough"))
        }
        Event::Traced { segments, connections, dropped, not_shown, ends_not_shown, unreadable, why, file } => {
            let count = |count: u64, noun: &str| format!("{count} {noun}{}", if count == 1 { "" } else { "s" });
            let mut line = format!("{} of {}", count(*segments, "segment"), count(*connections, "connection"));
            if let Some(dropped) = dropped {
                let _ = write!(line, "; {dropped} dropped by the kernel");
            }
            if *not_shown > 0 {
                let _ = write!(line, "; {not_shown} not shown");
            }
            if *ends_not_shown > 0 {
                let _ = write!(line, "; {ends_not_shown} ends of connections not shown");
            }
            if *unreadable > 0 {
                let _ = write!(line, "; {} not understood", count(*unreadable, "packet"));
                let _ = why.as_ref().map(|why| write!(line, " (the first: {why})"));
            }
            if let Some(file) = file {
                let _ = write!(line, "; written to {file}");
            }
            paint(ASIDE, &line)
        }
        // The table that `tasks` makes of these for a person has more on each line.
        Event::Program { pid, program, tasks, .. } => format!("{} {pid}: {tasks} tasks", escaped(program, look)),
        Event::Task { task, .. } => format!("#{} {}", task.id, escaped(&task.state, look)),
        Event::NoInspect { error } => format!("towpath tasks cannot ask this program: {error}"),
        Event::Error { error, hint, .. } => {
            let mut line = paint(TROUBLE, error);
            if let Some(hint) = hint {
                let _ = write!(line, ". {hint}");
            }
            line
        }
    };
    if !line.ends_with('\n') {
        line.push('\n');
    }
    line
}

fn escaped(text: &str, look: Look) -> String {
    text::escape(text.as_bytes(), look.ascii)
}

fn ending(why: &Ending, look: Look) -> String {
    match why {
        Ending::Peer => "closed by peer".to_owned(),
        Ending::Reset => look.paint(TROUBLE, "reset by peer").to_string(),
        Ending::Idle => "closed by us (idle)".to_owned(),
        Ending::Drain => "closed by us (drain)".to_owned(),
        Ending::Cut => look.paint(TROUBLE, "closed by us (cut)").to_string(),
        Ending::Failed(error) => look.paint(TROUBLE, format_args!("failed ({error})")).to_string(),
    }
}

/// The data on the rest of the line and without its own line end, or as a dump on the lines below.
fn shown(data: Data<'_>, look: Look) -> String {
    match data.hex {
        Some(offset) => format!("\n{}", text::hex_dump(data.shown, offset, "    ")),
        None => {
            let line = data.shown.strip_suffix(b"\n").unwrap_or(data.shown);
            text::escape(line, look.ascii)
        }
    }
}

fn summary(what: &str, totals: Totals, look: Look) -> String {
    let aside = format!(
        "{} in, {} out, {}",
        units::bytes(totals.bytes_in),
        units::bytes(totals.bytes_out),
        units::time(totals.after, look.ascii)
    );
    format!("{what:<36} {}", look.paint(ASIDE, &aside))
}

fn plural(count: usize, noun: &str) -> (String, &'static str) {
    if count == 1 { (format!("1 {noun}"), "has") } else { (format!("{count} {noun}s"), "have") }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::kernel::{Path, SynOptions};

    const PLAIN: Look = Look { color: false, ascii: false };

    #[test]
    fn a_conversation_reads_as_the_manual_shows_it() {
        let peer = "127.0.0.1:39792".parse().unwrap();
        let syn = Some(SynOptions { mss: Some(65495), wscale: Some(10), sack: true, ts: true });
        let data = |shown: &'static [u8]| Data { bytes: shown.len(), shown, hex: None };
        let totals = Totals { after: Duration::from_millis(400), bytes_in: 14, bytes_out: 35 };
        let path = Some(Path { rtt: Some(Duration::from_micros(28)), retrans: 0 });
        let events = [
            Event::Accepted { conn: 1, peer, syn },
            Event::Send { conn: 1, data: data(b"2026-11-22 06:58:39.123456789 +0000\n") },
            Event::Read { conn: 1, data: data(b"hello towpath\n") },
            Event::Closed { conn: 1, why: &Ending::Peer, totals, path },
            Event::ServerClosed { totals, held: false },
        ];
        let text: String = events.iter().map(|e| lines(e, PLAIN)).collect();
        assert_eq!(
            text,
            "\
#1 127.0.0.1:39792 connected    syn: mss 65495 wscale 10 sack ts
#1 send data : 2026-11-22 06:58:39.123456789 +0000
#1 read data 14 : hello towpath
#1 closed by peer after 400 ms  in 14 B  out 35 B  rtt 28 µs  retrans 0
server closed                        14 B in, 35 B out, 400 ms
"
        );
    }

    #[test]
    fn hex_goes_below_the_line() {
        let data = Data { bytes: 2, shown: b"hi", hex: Some(0) };
        let text = lines(&Event::Read { conn: 7, data }, PLAIN);
        assert!(text.starts_with("#7 read data 2 : \n    00000000  68 69 "), "{text}");
        assert!(text.ends_with("|hi|\n"), "{text}");
    }

    #[test]
    fn ascii_is_ascii_and_color_is_only_there_when_asked_for() {
        let (local, peer) = ("127.0.0.1:1".parse().unwrap(), "127.0.0.1:2".parse().unwrap());
        let event = Event::Dialled { local, peer, took: Duration::from_micros(75) };
        let ascii = Look { ascii: true, ..PLAIN };
        assert_eq!(lines(&event, ascii), "connected 127.0.0.1:1 -> 127.0.0.1:2 in 75 us\n");

        let event = Event::Error { error: "no", hint: Some("Try yes"), exit: crate::exit::Exit::Other };
        assert_eq!(lines(&event, PLAIN), "no. Try yes\n");
        assert!(lines(&event, Look { color: true, ..PLAIN }).contains('\x1b'));
    }
}
