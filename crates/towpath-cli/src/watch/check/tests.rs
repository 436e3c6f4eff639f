use towpath_diag::State;

use super::*;

fn figures<'a>(state: State, port: u16, age: u64, recv_queue: u32) -> Figures<'a> {
    let local = ([127, 0, 0, 1], port).into();
    let subject = Subject { state, local, peer: Some(([127, 0, 0, 1], 9).into()), owners: &[] };
    Figures { subject, age: Duration::from_millis(age), recv_queue, send_queue: 0 }
}

/// What comes of it on a server with two clients, one of which has gone.
fn check(typed: &str) -> Option<String> {
    let check: Check = typed.parse().unwrap_or_else(|e| panic!("{typed}: {e}"));
    let mut checking = check.begin();
    checking.see(&figures(State::Listen, 1, 60_000, 3));
    checking.see(&figures(State::Established, 1, 2_000, 0));
    checking.see(&figures(State::CloseWait, 1, 6_000, 14));
    checking.failed()
}

#[test]
fn a_count_is_of_those_that_pass() {
    assert_eq!(check("count(state:close-wait)>0").unwrap(), "--fail-if 'count(state:close-wait)>0': 1 socket");
    assert_eq!(check(" count( port:1 ) >= 3 ").unwrap(), "--fail-if 'count( port:1 ) >= 3': 3 sockets");
    assert_eq!(check("count(state:close-wait)>1"), None);
    assert!(check("count(state:syn-sent)=0").is_some());
    assert!(check("count() != 3").is_none());
}

#[test]
fn an_age_is_that_of_the_oldest() {
    let text = check("close-wait>5s").unwrap();
    assert_eq!(text, "--fail-if 'close-wait>5s': 6.0 s (CLOSE-WAIT 127.0.0.1:1 with 127.0.0.1:9)");
    assert_eq!(check("close-wait > 6s"), None);
    assert!(check("age() >= 1m").is_some());
    assert_eq!(check("syn-sent<1h"), None, "where there is none, it has no age");
}

#[test]
fn a_queue_is_the_fullest() {
    assert!(check("recvq(state:close-wait)=14").is_some());
    assert!(check("recvq(state:listen)>2").is_some());
    assert_eq!(check("sendq()>0"), None);
}

#[test]
fn a_pattern_may_have_brackets_and_signs() {
    assert_eq!(check("count(process:/(a|b)>=/)>0"), None);
}

#[test]
fn a_time_needs_time() {
    assert!("close-wait>5s".parse::<Check>().unwrap().needs_time());
    assert!(!"count()>5".parse::<Check>().unwrap().needs_time());
}

#[test]
fn what_cannot_be_meant_is_refused() {
    for (typed, why) in [
        ("", "nothing is compared"),
        ("close-wait", "nothing is compared"),
        ("close-wait>5", "it has no unit; try 5s"),
        ("close-wait>", "nothing to compare with"),
        ("closed-wait>5s", "is neither a state nor count(FILTER)"),
        ("count(>0", "a bracket is not closed"),
        ("count(state:x)>0", "no state is called x"),
        ("sum()>0", "nothing is called \"sum\""),
        ("count()>1s", "\"1s\" is no whole number"),
        ("count()!0", "the signs are"),
    ] {
        let error = typed.parse::<Check>().expect_err(typed);
        assert!(error.contains(why), "{typed}: {error}");
    }
}
