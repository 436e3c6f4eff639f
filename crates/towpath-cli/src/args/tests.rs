//! What command lines mean.

use super::*;

fn meant(line: &str) -> Command {
    let arguments = std::iter::once("towpath").chain(line.split_whitespace());
    match parse(arguments.map(OsString::from)) {
        Ok(invocation) => invocation.command,
        Err(e) => panic!("{line}: {e:?}"),
    }
}

fn refused(line: &str) -> String {
    let arguments = std::iter::once("towpath").chain(line.split_whitespace());
    match parse(arguments.map(OsString::from)) {
        Ok(invocation) => panic!("{line}: {invocation:?}"),
        Err(NotMeant::Clap(e)) => {
            assert_eq!(e.exit_code(), 2, "{line}");
            e.render().to_string()
        }
        Err(NotMeant::Failure(_, failure)) => {
            assert_eq!(failure.exit, Exit::Usage, "{line}");
            failure.what
        }
    }
}

fn serve(line: &str) -> Serve {
    match meant(line) {
        Command::Serve(serve) => serve,
        other => panic!("{other:?}"),
    }
}

fn dial(line: &str) -> Dial {
    match meant(line) {
        Command::Dial(dial) => dial,
        other => panic!("{other:?}"),
    }
}

fn watch(line: &str) -> Watch {
    match meant(line) {
        Command::Watch(watch) => watch,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_command_line_is_consistent() {
    use clap::CommandFactory as _;
    Typed::command().debug_assert();
}

#[test]
fn a_port_alone_is_an_address() {
    assert_eq!(serve("serve").addr, ":8330");
    assert_eq!(serve("serve 80").addr, ":80");
    assert_eq!(serve("serve 99999").addr, ":99999");
    assert_eq!(dial("dial [::1]:80").addr, "[::1]:80");
    assert_eq!(dial("dial host").addr, "host");
}

#[test]
fn serve_says_the_time_unless_told_otherwise() {
    for (option, mode) in [
        ("", Mode::Time),
        ("--time", Mode::Time),
        ("--echo", Mode::Echo),
        ("--discard", Mode::Discard),
        ("--chargen", Mode::Chargen),
    ] {
        assert_eq!(serve(&format!("serve {option}")).mode, mode);
    }
    assert!(refused("serve --echo --time").contains("cannot be used with"));
}

#[test]
fn times_have_units() {
    assert_eq!(serve("serve").drain, Duration::from_secs(10));
    assert_eq!(serve("serve --drain 0s").drain, Duration::ZERO);
    assert_eq!(serve("serve --idle 1m30s").idle, Some(Duration::from_secs(90)));
    assert_eq!(dial("dial 1 -w 200ms").wait, Duration::from_millis(200));
    assert!(refused("serve --idle 5").contains("it has no unit; try 5s"));
    assert!(refused("serve --idle 0s").contains("more than nothing"));
    assert!(refused("serve --idle soon").contains("write 200ms, 5s or 1m30s"));
    assert!(refused("serve --idle=-5s").contains("negative"));
    assert!(refused("dial 1 -w 99999999999999999999999s").contains("it is no time"));
    // For any time that can be said there is a moment at its end.
    let most = super::duration(&format!("{}s", i64::MAX)).unwrap();
    assert!(std::time::Instant::now().checked_add(most).is_some());
    let _ = towpath::time::Instant::now() + most;
}

#[test]
fn counts_begin_at_one() {
    assert_eq!(serve("serve --max 2").max.map(NonZeroUsize::get), Some(2));
    assert!(refused("serve --max 0").contains("--max"));
    assert!(refused("dial 1 --repeat 0").contains("--repeat"));
    assert!(refused("dial 1 --every 1s").contains("--repeat"));
    assert!(refused("dial 1 --hold --repeat 2").contains("cannot be used with"));
    let repeat = dial("dial 1 --repeat 3").repeat.unwrap();
    assert_eq!((repeat.times, repeat.every), (3, Duration::from_secs(1)));
}

#[test]
fn a_program_is_meant_by_its_number_or_its_socket() {
    let tasks = |line: &str| match meant(line) {
        Command::Tasks(tasks) => tasks,
        other => panic!("{other:?}"),
    };
    assert_eq!(tasks("tasks").target, None);
    assert_eq!(tasks("tasks 8808 -w 1s").target, Some(Target::Process(8808)));
    assert_eq!(tasks("tasks /run/x/1.sock --backtrace").target, Some(Target::Socket("/run/x/1.sock".into())));
    assert!(tasks("tasks --backtrace").backtrace && !tasks("tasks").backtrace);
    assert!(refused("tasks 99999999999").contains("no process has such a number"));
}

#[test]
fn what_is_expected_is_looked_for_line_by_line() {
    let expect = dial("dial 1 --expect ^220").expect.unwrap();
    assert!(expect.is_match(b"hello\n220 ready\n\xff"));
    assert!(!expect.is_match(b" 220"));
    assert_eq!(refused("dial 1 --expect a("), "--expect a(: unclosed group");
}

#[test]
fn the_words_of_a_filter_are_one_filter() {
    assert_eq!(watch("watch").filter.to_string(), "");
    assert_eq!(watch("watch :8330 state:listen").filter.to_string(), ":8330 state:listen");
    assert!(refused("watch state:nosuch").contains("no state is called nosuch"));
    assert!(refused("watch http").contains("is no port"));
}

#[test]
fn without_a_screen_watch_looks_once_or_for_as_long_as_it_is_told() {
    // The tests' own stdout is no terminal, or captured.
    for (line, view, limit) in [
        ("watch --once", View::Snapshots, None),
        ("watch --json", View::Snapshots, None),
        ("watch --json --for 10s", View::Snapshots, Some(10)),
        ("watch --events", View::Events, None),
        ("watch --events --for 1m --json", View::Events, Some(60)),
    ] {
        let watch = watch(line);
        assert_eq!((watch.view, watch.limit), (view, limit.map(Duration::from_secs)), "{line}");
    }
    assert!(refused("watch --once --for 1s").contains("cannot be used with"));
    assert!(refused("watch -n 0s").contains("more than nothing"));
    assert_eq!(watch("watch").interval, Duration::from_secs(2));
}

#[test]
fn a_condition_on_time_needs_time() {
    assert_eq!(watch("watch --once --fail-if count()>9 --fail-if recvq()>0").checks.len(), 2);
    assert!(refused("watch --once --fail-if close-wait>5s").contains("one look does not tell how long"));
    assert_eq!(watch("watch --json --for 10s --fail-if close-wait>5s").checks.len(), 1);
    assert!(refused("watch --fail-if nonsense").contains("nothing is compared"));
}

#[test]
fn what_is_no_subcommand_is_refused() {
    for line in ["nosuch", "help nosuch"] {
        assert!(refused(line).contains("unrecognized subcommand"), "{line}");
    }
    assert!(refused("").contains("Usage"));
}

#[test]
fn programs_get_their_usage_errors_as_objects() {
    let arguments = ["towpath", "--json", "dial"].map(OsString::from);
    match parse(arguments) {
        Err(NotMeant::Failure(Form::Json, failure)) => {
            assert!(failure.what.contains("required arguments"), "{failure:?}");
        }
        other => panic!("{other:?}"),
    }
}

fn trace(line: &str) -> Trace {
    match meant(line) {
        Command::Trace(trace) => trace,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_trace_is_of_every_interface_unless_it_is_told_where_from() {
    use crate::trace::Shape::{LadderByLadder, Ladders, Lines};
    for (line, from, shape) in [
        ("trace", Origin::Interface("any".into()), Ladders),
        ("trace -i lo", Origin::Interface("lo".into()), Ladders),
        ("trace -r a.pcap", Origin::File("a.pcap".into()), LadderByLadder),
        ("trace -r -", Origin::Stdin, Ladders),
        ("trace -r a.pcap --lines", Origin::File("a.pcap".into()), Lines),
    ] {
        let trace = trace(line);
        assert_eq!((trace.from, trace.shape), (from, shape), "{line}");
    }
    let trace = trace("trace -c 5 --for 10s --conn 3 -w b.pcapng --data --resolve port:8330 addr:127.0.0.1");
    assert_eq!((trace.count.map(u64::from), trace.limit), (Some(5), Some(Duration::from_secs(10))));
    assert_eq!((trace.wanted.conn, trace.write), (Some(3), Some("b.pcapng".into())));
    assert!(trace.data && trace.resolve);
    assert_eq!(trace.wanted.filter.to_string(), "port:8330 addr:127.0.0.1");
}

#[test]
fn a_trace_chooses_by_ports_and_addresses_alone() {
    assert!(refused("trace state:listen").contains("by port: and addr: alone"));
    assert!(refused("trace process:demo").contains("by port: and addr: alone"));
    assert!(refused("trace -w -").contains("stdout is for the trace itself"));
    assert!(refused("trace -r a -i lo").contains("cannot be used with"));
    assert!(refused("trace -r a --for 1s").contains("cannot be used with"));
    assert!(refused("trace --conn 0").contains("--conn"));
}
