use super::*;

use towpath_diag::{Diag, Owners, Want};

const NOBODY: &[Owner] = &[];

fn subject<'a>(state: State, local: &str, peer: &str) -> Subject<'a> {
    let peer = (peer != "*").then(|| peer.parse().unwrap());
    Subject { state, local: local.parse().unwrap(), peer, owners: NOBODY }
}

fn filter(typed: &str) -> Filter {
    typed.parse().unwrap_or_else(|e| panic!("{typed}: {e}"))
}

#[track_caller]
fn assert_passes(typed: &str, subject: &Subject<'_>) {
    assert!(filter(typed).passes(subject), "{typed} and {subject:?}");
}

#[track_caller]
fn assert_fails(typed: &str, subject: &Subject<'_>) {
    assert!(!filter(typed).passes(subject), "{typed} and {subject:?}");
}

#[test]
fn a_port_is_that_of_either_end() {
    let server = subject(State::Established, "127.0.0.1:8330", "127.0.0.1:39792");
    let client = subject(State::Established, "127.0.0.1:39792", "127.0.0.1:8330");
    let listener = subject(State::Listen, "[::]:8330", "*");
    for subject in [server, client, listener] {
        for typed in ["8330", ":8330", "port:8330", "port:8000-8999", "port:1,8330", "1 8330", ""] {
            assert_passes(typed, &subject);
        }
        assert_fails("833", &subject);
        assert_fails("port:8331-9000", &subject);
    }
}

#[test]
fn different_keys_all_hold_and_one_key_is_a_choice() {
    let waits = subject(State::CloseWait, "127.0.0.1:1", "127.0.0.1:2");
    assert_passes("port:1 state:close-wait", &waits);
    assert_fails("port:3 state:close-wait", &waits);
    assert_fails("port:1 state:established", &waits);
    assert_passes("port:1 state:established,close-wait", &waits);
    assert_passes("state:established state:close-wait", &waits);
}

#[test]
fn a_state_goes_by_all_its_names() {
    for (state, names) in [
        (State::Established, "established ESTAB Established"),
        (State::CloseWait, "close-wait CLOSE_WAIT closewait"),
        (State::FinWait2, "fin-wait-2 FIN-WAIT2 fin_wait2 finwait2"),
        (State::SynReceived, "syn-recv syn-received SYN_RECV synrcvd"),
        (State::Listen, "listen LISTENING"),
        (State::TimeWait, "time-wait"),
        (State::Closed, "closed close"),
    ] {
        for name in names.split(' ') {
            assert_eq!(super::state(name), Ok(state), "{name}");
        }
    }
    for state in STATES {
        assert_eq!(super::state(state.short()), Ok(state));
        assert_eq!(super::state(&state.to_string()), Ok(state));
    }
}

#[test]
fn an_address_is_that_of_either_end_or_one_that_a_listener_has_too() {
    let near = subject(State::Established, "10.1.2.3:1", "192.0.2.1:2");
    for typed in ["addr:10.0.0.0/8", "addr:192.0.2.1", "192.0.2.1", "addr:1.1.1.1,10.1.2.3", "0.0.0.0/0"] {
        assert_passes(typed, &near);
    }
    for typed in ["addr:11.0.0.0/8", "addr:10.1.2.0/25 port:3", "addr:::1", "::/0"] {
        assert_fails(typed, &near);
    }
    let everywhere = subject(State::Listen, "[::]:80", "*");
    assert_passes("addr:127.0.0.1", &everywhere);
    assert_passes("127.0.0.1:80", &everywhere);
    assert_fails("127.0.0.1:81", &everywhere);
    let four = subject(State::Listen, "0.0.0.0:80", "*");
    assert_passes("127.0.0.1:80", &four);
    assert_fails("[::1]:80", &four);
}

#[test]
fn an_address_with_its_port_is_one_end() {
    let crossed = subject(State::Established, "10.0.0.1:1", "10.0.0.2:2");
    assert_passes("10.0.0.1:1", &crossed);
    assert_passes("10.0.0.2:2", &crossed);
    assert_fails("10.0.0.1:2", &crossed);
    assert_passes("addr:10.0.0.1 port:2", &crossed);
    let six = subject(State::Established, "[::1]:1", "[::1]:2");
    assert_passes("[::1]:2", &six);
    assert_passes("addr:[::1]", &six);
}

#[test]
fn a_v4_address_in_v6_clothes_is_one() {
    let mapped = subject(State::Established, "[::ffff:127.0.0.1]:1", "[::ffff:127.0.0.1]:2");
    for typed in ["addr:127.0.0.1", "127.0.0.1:2", "addr:::ffff:127.0.0.1", "addr:::ffff:127.0.0.0/104"] {
        assert_passes(typed, &mapped);
    }
}

#[test]
fn a_process_is_known_by_number_word_or_pattern() {
    // This one, by a socket of its own.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let sockets = Diag::open().unwrap().sockets(&towpath_diag::Filter::new().port(port), Want::empty()).unwrap();
    let mut owners = Owners::new();
    let owners = owners.find(sockets[0].inode.unwrap());
    let command = std::fs::read_to_string("/proc/self/comm").unwrap();
    let (command, pid) = (command.trim(), std::process::id());
    let ours = Subject { owners, ..subject(State::Listen, "[::]:1", "*") };
    for typed in [
        format!("process:{pid}"),
        format!("process:{}", &command[1..4]),
        format!("process:/^{}$/", command.replacen(&command[1..2], ".", 1)),
        format!("process:/^{command}$/ port:1"),
        format!("process:1 process:{pid}"),
        format!("process:1,{pid}"),
        format!("process:/^{command}{{1,2}}$/"),
    ] {
        assert_passes(&typed, &ours);
    }
    for typed in [
        format!("process:{pid}0"),
        format!("process:{pid}0,{command}s"),
        format!("process:{command}s"),
        "process:/^owpath/".into(),
        format!("process:{pid} port:2"),
    ] {
        assert_fails(&typed, &ours);
    }
    assert_fails("process:1", &subject(State::Listen, "[::]:1", "*"));
    assert!(filter("process:1").needs_owners());
    assert!(!filter("port:1").needs_owners());
}

#[test]
fn a_filter_reads_as_it_was_typed() {
    for (typed, shown) in
        [("  port:80   state:listen ", "port:80 state:listen"), ("process:/a b/  1", "process:/a b/ 1"), ("", "")]
    {
        assert_eq!(filter(typed).to_string(), shown);
    }
}

#[test]
fn what_cannot_be_meant_is_refused_by_its_word() {
    for (typed, why) in [
        ("port:http", "port:http: \"http\" is no port"),
        ("99999", "99999: \"99999\" is no port"),
        ("port:0", "is no port"),
        ("port:1,", "something is missing"),
        ("port:9-1", "the first port is above the last"),
        ("state:open", "no state is called open; there are listen syn-sent"),
        ("addr:localhost", "\"localhost\" is no address"),
        ("addr:10.0.0.0/33", "a prefix is at most 32 bits long"),
        ("host:x", "no key is called host; there are port: state: addr: process:"),
        ("127.0.0.1:80-81", "no key is called 127.0.0.1; there are port:"),
        ("localhost:80", "names of hosts are not looked up: write the address, as 127.0.0.1:80"),
        ("http", "http: \"http\" is no port, and names are not looked up: write its number"),
        ("port:", "port: something is missing"),
        ("process:", "process: which process?"),
        ("process:/a", "no second slash"),
        ("process:/(/", "unclosed group"),
        ("port:80 nonsense", "nonsense: \"nonsense\" is no port"),
    ] {
        let error = typed.parse::<Filter>().expect_err(typed).to_string();
        assert!(error.contains(why) && !error.contains(":: "), "{typed}: {error}");
    }
}
