//! What one may type after `towpath tour`, with its help.

use clap::Args;

#[derive(Debug, Args)]
pub(in crate::args) struct Tour {
    /// Wait for a key before each step; q ends the tour
    #[arg(long)]
    pub(in crate::args) step: bool,
}

pub(super) const ABOUT_TOUR: &str = concat!(
    "\
Steps:
  1 listen             LISTEN, and the task that waits in accept
  2 dial               the handshake, and why no table shows it
  3 talk               two tasks on one connection; sequence numbers and acknowledgements
  4 buffers fill       a peer that does not read: RQ, SQ, a window of zero, a task parked in write
  5 buffers drain      it reads on, and the task resumes
  6 the server closes  FIN-WAIT-1, FIN-WAIT-2, CLOSE-WAIT
  7 the client closes  LAST-ACK, TIME-WAIT
  8 refused            RST

  Each says what will happen, has it happen with real sockets and tasks of the towpath library,
  and then shows what the tasks did, the segments as towpath trace draws them, and the sockets as
  towpath watch lists them.

Where it takes place:
  In a network namespace of its own, which nobody else can see and which ends with it; so it may
  capture there, without privilege, where the system lets everybody have user namespaces. Where
  it does not, the tour says what forbids it, takes place on the common loopback interface at a
  free port, and shows no segments, unless it has CAP_NET_RAW.

Examples:
  towpath tour                 all of it, in a second or two
  towpath tour --step          with time to read
  towpath tour | less -R       with towpath tour --color always
  towpath tour --json | jq -r 'select(.ev == \"segment\") | [.side, .flags, .seq, .ack] | @tsv'

Exit code 0 means that all of it was seen, or that q was pressed; 77 that there were no segments
to see.

",
    exit_codes!()
);
