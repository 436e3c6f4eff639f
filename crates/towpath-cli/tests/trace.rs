//! `towpath trace -r`: what it says of a capture is what tshark says of it, as far as both have a word for it.
//!
//! The captures are real connections; `captures/make` makes them.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use common::{missing, run, skipped};
use serde_json::Value;

/// A capture by its name.
fn capture(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/captures/{name}.pcapng"));
    path.to_str().unwrap().to_owned()
}

/// The names of all captures.
fn captures() -> Vec<String> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/captures");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = files.filter_map(|name| name.strip_suffix(".pcapng").map(str::to_owned)).collect();
    names.sort();
    names
}

/// What `trace --json` says of a capture: its segments and its connections.
fn traced(name: &str) -> (Vec<Value>, Vec<Value>) {
    let done = run(["trace", "--json", "-r", &capture(name)]).expect_code(0);
    let objects: Vec<Value> = done.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |event: &str| objects.iter().filter(|object| object["ev"] == event).cloned().collect();
    (of("segment"), of("connection"))
}

/// The columns that tshark is asked for.
const FIELDS: [&str; 33] = [
    "tcp.stream",
    "tcp.srcport",
    "tcp.dstport",
    "tcp.seq",
    "tcp.ack",
    "tcp.seq_raw",
    "tcp.ack_raw",
    "tcp.len",
    "tcp.flags",
    "tcp.window_size",
    "tcp.window_size_value",
    "tcp.options.mss_val",
    "tcp.options.wscale.shift",
    "tcp.options.sack_perm",
    "tcp.options.timestamp.tsval",
    "tcp.options.timestamp.tsecr",
    "tcp.options.sack_le",
    "tcp.options.sack_re",
    "tcp.time_relative",
    "frame.time_epoch",
    "tcp.analysis.retransmission",
    "tcp.analysis.fast_retransmission",
    "tcp.analysis.spurious_retransmission",
    "tcp.analysis.out_of_order",
    "tcp.analysis.lost_segment",
    "tcp.analysis.ack_lost_segment",
    "tcp.analysis.duplicate_ack",
    "tcp.analysis.keep_alive",
    "tcp.analysis.keep_alive_ack",
    "tcp.analysis.zero_window",
    "tcp.analysis.zero_window_probe",
    "tcp.analysis.window_full",
    "tcp.analysis.window_update",
];

/// What tshark says of every capture, by its name: a row a segment, in the order of [`FIELDS`]. It is asked once, for it
/// takes its time to begin.
fn dissected() -> &'static BTreeMap<String, Vec<Vec<String>>> {
    static DISSECTED: OnceLock<BTreeMap<String, Vec<Vec<String>>>> = OnceLock::new();
    DISSECTED.get_or_init(|| captures().into_iter().map(|name| (name.clone(), dissect(&name))).collect())
}

fn dissect(name: &str) -> Vec<Vec<String>> {
    let mut tshark = Command::new("tshark");
    tshark.args(["-n", "-r", &capture(name), "-T", "fields", "-E", "separator=|", "-E", "aggregator=,", "-Y", "tcp"]);
    for field in FIELDS {
        tshark.args(["-e", field]);
    }
    let done = tshark.output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let rows = String::from_utf8(done.stdout).unwrap();
    rows.lines().map(|line| line.split('|').map(str::to_owned).collect()).collect()
}

/// A row of tshark's, by the names of its fields.
#[derive(Clone, Copy)]
struct Row<'a>(&'a [String]);

impl<'a> Row<'a> {
    fn text(self, field: &str) -> &'a str {
        &self.0[FIELDS.iter().position(|f| *f == field).unwrap_or_else(|| panic!("{field} was not asked for"))]
    }

    /// Nothing if the field is empty.
    fn number(self, field: &str) -> Value {
        let text = self.text(field);
        let text = text.strip_prefix("0x").map_or_else(
            || text.to_owned(),
            |hex| i64::from_str_radix(hex, 16).map(|number| number.to_string()).unwrap_or_default(),
        );
        text.parse::<i64>().map_or(Value::Null, Value::from)
    }

    fn is_set(self, analysis: &str) -> bool {
        !self.text(&format!("tcp.analysis.{analysis}")).is_empty()
    }

    fn numbers(self, field: &str) -> Vec<i64> {
        self.text(field).split(',').filter(|text| !text.is_empty()).map(|text| text.parse().unwrap()).collect()
    }
}

/// Looks at each segment of each capture beside what tshark says of it.
fn beside(look: impl Fn(&str, usize, &Value, Row<'_>)) {
    if skipped(missing("tshark").as_deref()) {
        return;
    }
    assert!(dissected().len() > 15);
    for (name, rows) in dissected() {
        let (segments, _) = traced(name);
        assert_eq!(segments.len(), rows.len(), "{name}");
        for (at, (segment, row)) in segments.iter().zip(rows).enumerate() {
            look(name, at + 1, segment, Row(row));
        }
    }
}

#[test]
fn headers_are_read_as_tshark_reads_them() {
    beside(|name, frame, segment, row| {
        let same = |ours: &str, theirs: &str| {
            assert_eq!(segment[ours], row.number(theirs), "{ours} of {name} {frame}: {segment}");
        };
        same("seq", "tcp.seq");
        same("seq_raw", "tcp.seq_raw");
        same("ack_raw", "tcp.ack_raw");
        same("bytes", "tcp.len");
        same("window_raw", "tcp.window_size_value");
        // Where the scale is not known, tshark takes the header's word.
        if segment["window_bytes"].is_null() {
            assert_eq!(name, "from-the-middle");
        } else {
            same("window_bytes", "tcp.window_size");
        }
        // Without ACK we say nothing, and tshark 0.
        assert_eq!(segment["ack"].as_i64().unwrap_or(0), row.number("tcp.ack"), "{name} {frame}");
        assert_eq!(segment["conn"].as_i64().unwrap() - 1, row.number("tcp.stream"), "{name} {frame}");
        assert_eq!(flags(segment["flags"].as_str().unwrap()), row.number("tcp.flags"), "{name} {frame}: {segment}");
        for (end, port) in [("from", "tcp.srcport"), ("to", "tcp.dstport")] {
            assert!(segment[end].as_str().unwrap().ends_with(&format!(":{}", row.text(port))), "{name} {frame}");
        }
        // To the microsecond, of which ours are cut.
        let since: f64 = row.text("tcp.time_relative").parse().unwrap();
        assert_eq!(segment["since_us"], (since * 1e6 + 1e-4) as u64, "{name} {frame}");
    });
}

/// A header's number for `SYN,ACK`.
fn flags(names: &str) -> i64 {
    let bits = ["FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR"];
    names.split(',').map(|name| 1 << bits.iter().position(|bit| *bit == name).unwrap()).sum()
}

#[test]
fn options_are_read_as_tshark_reads_them() {
    beside(|name, frame, segment, row| {
        let options = &segment["options"];
        for (ours, theirs) in [
            (&options["mss"], "tcp.options.mss_val"),
            (&options["window_scale"], "tcp.options.wscale.shift"),
            (&options["timestamps"]["value"], "tcp.options.timestamp.tsval"),
            (&options["timestamps"]["echo"], "tcp.options.timestamp.tsecr"),
        ] {
            assert_eq!(*ours, row.number(theirs), "{theirs} of {name} {frame}: {segment}");
        }
        assert_eq!(options["sack_permitted"] == true, !row.text("tcp.options.sack_perm").is_empty(), "{name} {frame}");
        let blocks = row.numbers("tcp.options.sack_le").into_iter().zip(row.numbers("tcp.options.sack_re"));
        let blocks: Vec<_> = blocks.map(|(from, to)| serde_json::json!([from, to])).collect();
        assert_eq!(options["sack"].as_array().cloned().unwrap_or_default(), blocks, "{name} {frame}");
    });
}

#[test]
fn what_is_out_of_the_ordinary_is_what_tshark_finds() {
    beside(|name, frame, segment, row| {
        let notes: BTreeSet<_> =
            segment["notes"].as_array().into_iter().flatten().map(|note| note.as_str().unwrap()).collect();
        let noted = |words: &[&str]| words.iter().any(|word| notes.contains(word));
        let found = |analyses: &[&str]| analyses.iter().any(|analysis| row.is_set(analysis));
        let again = [
            "retransmission",
            "fast retransmission",
            "retransmission after a timeout",
            "spurious retransmission",
            "out of order",
        ];
        // tshark takes what comes again within 3 ms for out of order, though the first was there too.
        let theirs_again = ["retransmission", "fast_retransmission", "spurious_retransmission", "out_of_order"];
        for (ours, theirs) in [
            (noted(&again), found(&theirs_again)),
            (noted(&["duplicate ack"]), found(&["duplicate_ack"]) && !answers_a_syn(name, frame)),
            // It takes Linux's probe of a window, which has no byte, for a keep-alive.
            (noted(&["keep-alive", "window probe"]), found(&["keep_alive", "zero_window_probe"])),
            (noted(&["zero window"]), found(&["zero_window"])),
            (noted(&["window full"]), found(&["window_full"])),
        ] {
            assert_eq!(ours, theirs, "{name} {frame}: {notes:?}, and tshark {:?}", row.0);
        }
        if noted(&["keep-alive ack"]) {
            assert!(found(&["keep_alive_ack"]), "{name} {frame}");
        }
    });
}

/// An acknowledgement of a SYN,ACK that came again is none that repeats itself though there is more to acknowledge.
fn answers_a_syn(name: &str, frame: usize) -> bool {
    (name, frame) == ("syn-lost", 8)
}

#[test]
fn what_the_capture_has_missed_is_noticed_where_tshark_notices_it() {
    if skipped(missing("tshark").as_deref()) {
        return;
    }
    for (name, rows) in dissected() {
        let (segments, _) = traced(name);
        let ours = segments.iter().position(|segment| {
            segment["notes"]
                .as_array()
                .is_some_and(|notes| notes.contains(&"acknowledges what was not captured".into()))
        });
        let theirs = rows.iter().position(|row| Row(row).is_set("ack_lost_segment"));
        assert_eq!(ours, theirs, "{name}");
        assert_eq!(ours.is_some(), ["data-missed", "acks-missed"].contains(&name.as_str()), "{name}");
    }
}

#[test]
fn every_connection_gets_its_verdict() {
    for (name, verdict, closed_first) in [
        ("closed-by-server", "clean", Some("server")),
        ("closed-by-client", "clean", Some("client")),
        ("half-closed", "clean", Some("client")),
        ("ipv6", "clean", Some("server")),
        ("much", "clean", Some("client")),
        ("refused", "refused", Some("server")),
        ("reset", "reset", Some("client")),
        ("reset-with-unread-data", "reset", Some("server")),
        ("half-open", "half-open", Some("server")),
        ("half-open-silent", "half-open", None),
        ("no-answer", "no-answer", None),
        ("retransmission", "clean", Some("server")),
        ("syn-lost", "clean", Some("server")),
        ("fast-retransmission", "clean", Some("client")),
        ("zero-window", "clean", Some("client")),
        ("simultaneous-close", "clean", Some("client")),
        ("keep-alive", "clean", Some("server")),
        ("from-the-middle", "clean", Some("server")),
        ("data-missed", "clean", Some("client")),
        ("acks-missed", "clean", Some("client")),
    ] {
        let (segments, connections) = traced(name);
        assert_eq!(connections.len(), 1, "{name}");
        let connection = &connections[0];
        assert_eq!(connection["verdict"], verdict, "{connection}");
        assert_eq!(connection["closed_first"].as_str(), closed_first, "{connection}");
        assert_eq!(connection["simultaneous_close"] == true, name == "simultaneous-close", "{connection}");
        let sent = |side: &str, what: &str| connection["sent"][side][what].as_u64().unwrap_or(0);
        assert_eq!(sent("client", "segments") + sent("server", "segments"), segments.len() as u64);
        let again = segments.iter().filter(|segment| segment["notes"].to_string().contains("retransmission")).count();
        assert_eq!(connection["retransmitted"], again as u64, "{name}");
    }
    let (_, connections) = traced("several");
    let verdicts: Vec<_> = connections.iter().map(|c| (c["conn"].as_u64().unwrap(), &c["verdict"])).collect();
    assert_eq!(verdicts, [(2, &"clean".into()), (3, &"reset".into()), (1, &"still-open".into())]);
}
