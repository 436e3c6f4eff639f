//! What one may type after `towpath trace`, with its help.

// The comments here are help for a terminal, where [::1] is an address.
#![allow(rustdoc::broken_intra_doc_links)]

use std::num::NonZeroU64;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::super::{count, positive_duration, segment_filter};

#[derive(Debug, Args)]
pub(in crate::args) struct Trace {
    /// Which segments: a port, an address, or words with keys
    ///
    /// port:8330 addr:10.0.0.0/8, and for short 8330, :8330, 127.0.0.1:8330. Words of different keys all hold, those of
    /// one key are a choice; either end may be the one. On an interface the kernel chooses, so that other traffic costs
    /// nothing. Without a filter: every TCP segment.
    #[arg(value_name = "FILTER", num_args = 0.., value_parser = segment_filter)]
    pub(in crate::args) filter: Vec<String>,

    /// Where to listen: an interface, or any for all of them
    #[arg(short, long, value_name = "IFACE", default_value = "any")]
    pub(in crate::args) interface: String,

    /// Read a capture file instead: pcap or pcapng; - is stdin
    ///
    /// Needs no privilege. FILTER chooses as it does on an interface.
    #[arg(short, long, value_name = "FILE", conflicts_with = "interface")]
    pub(in crate::args) read: Option<PathBuf>,

    /// Write the packets of what is shown into a pcapng file
    ///
    /// Comments on the packets say whose the connection is: the process and, of programs that let themselves be
    /// inspected, the task of either end, where they are on this machine and live long enough to be asked. If the file
    /// can take no more, trace ends.
    #[arg(short, long, value_name = "FILE")]
    pub(in crate::args) write: Option<PathBuf>,

    /// Print a line a segment instead of ladders
    #[arg(long)]
    pub(in crate::args) lines: bool,

    /// Show connection N only, by its number among those that pass FILTER
    #[arg(long, value_name = "N", value_parser = count::<NonZeroU64>)]
    pub(in crate::args) conn: Option<NonZeroU64>,

    /// Show what segments carry: text as text, anything else in hex
    #[arg(long)]
    pub(in crate::args) data: bool,

    /// End after N segments that were shown
    #[arg(short, long, value_name = "N", value_parser = count::<NonZeroU64>)]
    pub(in crate::args) count: Option<NonZeroU64>,

    /// End after DUR: 10s, 5m
    #[arg(long = "for", id = "for_time", value_name = "DUR", value_parser = positive_duration, conflicts_with = "read")]
    pub(in crate::args) for_time: Option<Duration>,

    /// Show host names instead of addresses, where the resolver knows some
    #[arg(long)]
    pub(in crate::args) resolve: bool,
}

pub(super) const ABOUT_TRACE: &str = concat!(
    "\
A ladder:
  #1         127.0.0.1:39792                                        127.0.0.1:8330
             CLOSED                                                     LISTEN
  +0 us      SYN-SENT   ------ SYN seq 0 mss 65495 ws 10 sack ts -----> SYN-RECV
  +14 us     ESTAB      < SYN,ACK seq 0 ack 1 mss 65495 ws 10 sack ts -
  +34 us                -------------------- ACK 1 -------------------> ESTAB
  +183 us               <----------- 35 B seq 1..36 ack 1 -------------
  ...
      handshake 34 us - 49 B data - closed first by :8330 - clean - 0 retransmitted - 0 dropped

  A column for each end, the client's on the left; its states (RFC 9293) as
  they change, as far as the segments tell; the time since the first segment;
  sequence numbers counted from each side's SYN, a range of data without its
  end. What is out of the ordinary stands on the segment: retransmission (and
  why), out of order, gap before it, duplicate ack, zero window, window full,
  keep-alive, RST. What an arrow has no room for goes below it, and a terminal
  of less than 72 columns gets the same in words.

  From an interface or a pipe, segments are shown as they pass, under a
  heading whenever another connection has its turn. From a file there is one
  ladder after the other; with --lines, and with --json, always as they
  passed.

Verdicts:
  clean, refused (RST), no answer (SYN xN), handshake unfinished, reset by one
  side, half-open (one side is gone, or knows nothing of the connection),
  still open, seen from the middle

  \"N dropped\" counts packets that the kernel, or whoever wrote the file, could
  not keep; they are why a segment \"acknowledges what was not captured\". If
  stdout is too slow, segments are left out there, and it says how many; the
  verdicts, and a file that is written, miss none of those.

Privilege:
  Listening needs CAP_NET_RAW: sudo towpath trace, or once and for all sudo
  setcap cap_net_raw+ep towpath. Reading a file needs none.

Examples:
  sudo towpath trace 8330                          what happens on that port, on any interface
  sudo towpath trace -i lo --data 8330             with what is said
  sudo towpath trace --for 10s -w a.pcapng 8330    for Wireshark
  towpath trace -r a.pcapng --conn 3               one connection of a file
  tcpdump -i eth0 -w - tcp | towpath trace -r - --lines
  towpath trace -r a.pcapng --json | jq 'select(.ev == \"connection\" and .verdict != \"clean\")'

",
    exit_codes!()
);
