//! What one may type after `towpath watch`, with its help.

// The comments here are help for a terminal, where [::1] is an address.
#![allow(rustdoc::broken_intra_doc_links)]

use std::time::Duration;

use clap::Args;

use super::super::{filter, positive_duration};
use crate::watch::check::Check;

#[derive(Debug, Args)]
pub(in crate::args) struct Watch {
    /// Which sockets: a port, an address, or words with keys
    ///
    /// port:8330 state:close-wait addr:10.0.0.0/8 process:/demo/, and for short 8330, :8330, 127.0.0.1:8330. Words of
    /// different keys all hold, those of one key are a choice; see below. Without a filter: every TCP socket.
    #[arg(value_name = "FILTER", num_args = 0.., value_parser = filter)]
    pub(in crate::args) filter: Vec<String>,

    /// How often to look: 200ms, 2s, 1m
    #[arg(short = 'n', long, value_name = "DUR", default_value = "2s", value_parser = some_time)]
    pub(in crate::args) interval: Duration,

    /// Print one table, and exit
    ///
    /// As without this option, when stdout is no terminal, or one that can do nothing but print (TERM=dumb).
    #[arg(long, conflicts_with_all = ["events", "for_time"])]
    pub(in crate::args) once: bool,

    /// Print a line for each change of a socket's state
    ///
    /// The first line says where the changes come from: from the kernel's tracepoint, which misses none, or from
    /// looking every 200 ms, which misses what is quicker (a handshake on one machine takes 75 µs). The tracepoint
    /// tells of every network namespace, so also of a socket in a container that has the same addresses as one here.
    ///
    /// With process:, a socket is told of from when a process has it. A server's end has one only once it is accepted,
    /// so SYN-RECV and mostly ESTAB are missing of it; what is over before we can look is missing altogether.
    #[arg(long)]
    pub(in crate::args) events: bool,

    /// End after DUR: 10s, 5m
    ///
    /// When stdout is no terminal, there is a table for each look until then.
    #[arg(long = "for", id = "for_time", value_name = "DUR", value_parser = some_time)]
    pub(in crate::args) for_time: Option<Duration>,

    /// Exit 9 as soon as EXPR holds: 'count(state:close-wait)>0', 'close-wait>5s'
    ///
    /// EXPR is checked with every look. It may be given several times: any of them is enough. See below for what it
    /// can be.
    #[arg(long, value_name = "EXPR")]
    pub(in crate::args) fail_if: Vec<Check>,

    /// Keep highlighting what has ever changed, not only what changed since the last look
    #[arg(long)]
    pub(in crate::args) cumulative: bool,

    /// Show host names instead of addresses, where the resolver knows some
    #[arg(long)]
    pub(in crate::args) resolve: bool,
}

/// As elsewhere, but for nothing without a unit no unit is proposed.
fn some_time(typed: &str) -> Result<Duration, String> {
    if !typed.is_empty() && typed.bytes().all(|b| b == b'0') {
        return Err("it must be more than nothing; write 200ms, 2s or 1m".to_owned());
    }
    positive_duration(typed)
}

pub(super) const ABOUT_WATCH: &str = concat!(
    "\
The table:
  STATE          the state of RFC 9293; CLOSED is kept for 10 s
  FOR            how long in this state; with > it had begun before we first saw it
  RQ SQ          bytes received and not read, bytes sent and not acknowledged; of a listener:
                 connections that wait to be accepted / how many may (FULL: more are dropped)
  RTT CWND RETR  smoothed round-trip time, congestion window in segments, segments sent again
  OWNER          command, process / descriptor; a socket without one waits to be accepted, or
                 its process is somebody else's (try sudo)
  TASK           of programs that let themselves be inspected (towpath serve does): the task
                 that uses the socket, what it waits in, for how long

Filters:
  port:8330  port:80,443  port:8000-8100      a port of either end; for short: 8330, :8330
  state:close-wait  state:listen,established  a state
  addr:127.0.0.1  addr:10.0.0.0/8  addr:::1   an address of either end; a listener at every
                                              address has each
  process:8808  process:demo  process:/^de/   its number, a part of its command, a pattern
  127.0.0.1:8330  [::1]:8330                  one end with this address and this port

Conditions of --fail-if, with > >= < <= = !=:
  count(FILTER)>N    how many sockets pass FILTER; count() counts all that are watched
  age(FILTER)>DUR    how long one of them has been in its state, from our first look on
  recvq(FILTER)>N    the fullest receive queue, in bytes; a listener's: connections that wait
  sendq(FILTER)>N    the fullest send queue, in bytes
  STATE>DUR          short for age(state:STATE)>DUR

Keys:
",
    keys!(),
    "

Examples:
  towpath watch 8330                       both ends of what listens or connects there
  towpath watch --events 8330              the life of each connection, a line a change
  towpath watch --once state:close-wait    who forgot to close?
  towpath watch --once --json | jq 'select(.recv_queue_bytes > 0)'
  towpath watch --for 10s --fail-if 'close-wait>5s' process:demo >/dev/null || echo leaks

",
    exit_codes!()
);

/// What the keys do.
pub(crate) const KEYS: &str = keys!();
