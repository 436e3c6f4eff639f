//! An event as JSON: one object on one line, `v` first (the version of these names), then `time` (RFC 3339, UTC), then
//! `ev` and the event's own fields as `event.rs` names them.

#![forbid(unsafe_code)]

use jiff::Timestamp;
use serde::Serialize;

use super::event::Event;

/// The version of the objects. It changes only when a name or a meaning does, not when fields are added.
const VERSION: u32 = 1;

#[derive(Serialize)]
struct Envelope<'a> {
    v: u32,
    time: Timestamp,
    #[serde(flatten)]
    event: &'a Event<'a>,
}

/// The line for `event`, with its newline.
pub(crate) fn line(event: &Event<'_>, time: Timestamp) -> String {
    let envelope = Envelope { v: VERSION, time, event };
    let mut line = serde_json::to_string(&envelope)
        .expect("an event is made of numbers and text, and writing to memory cannot fail");
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::exit::Exit;
    use crate::kernel::Path;
    use crate::output::event::{Data, Ending, Totals};

    fn json(event: &Event<'_>) -> String {
        line(event, "2026-11-22T06:58:39.123456789Z".parse().unwrap())
    }

    #[test]
    fn a_line_has_its_version_its_time_and_its_event_first() {
        let data = Data { bytes: 6, shown: b"hello\n", hex: None };
        assert_eq!(
            json(&Event::Read { conn: 1, data }),
            r#"{"v":1,"time":"2026-11-22T06:58:39.123456789Z","ev":"read","conn":1,"bytes":6,"text":"hello\n"}"#
                .to_owned()
                + "\n"
        );
    }

    #[test]
    fn bytes_that_are_no_text_are_hex() {
        let data = Data { bytes: 2, shown: b"\xffA", hex: None };
        assert!(json(&Event::Data { data }).ends_with("\"bytes\":2,\"hex\":\"ff41\"}\n"));
        let data = Data { bytes: 1, shown: b"A", hex: Some(0) };
        assert!(json(&Event::Data { data }).ends_with("\"bytes\":1,\"hex\":\"41\"}\n"));
    }

    #[test]
    fn the_end_of_a_conversation_is_flat() {
        let totals = Totals { after: Duration::from_millis(400), bytes_in: 14, bytes_out: 36 };
        let path = Some(Path { rtt: Some(Duration::from_micros(28)), retrans: 0 });
        let closed = |why: &Ending, path| json(&Event::Closed { conn: 1, why, totals, path });
        assert!(closed(&Ending::Peer, path).ends_with(
            r#""ev":"closed","conn":1,"by":"peer","after_us":400000,"in_bytes":14,"out_bytes":36,"rtt_us":28,"retrans":0}
"#
        ));
        let why = Ending::Failed("no buffer space".into());
        assert!(closed(&why, None).contains(r#""by":"failed","error":"no buffer space","after_us""#));
    }

    #[test]
    fn an_error_has_its_exit_code() {
        let event = Event::Error { error: "no", hint: None, exit: Exit::Refused };
        assert!(json(&event).ends_with(
            r#""ev":"error","error":"no","exit":3}
"#
        ));
    }
}
