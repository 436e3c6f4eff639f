//! Segments to connections: each side's state after every segment, what the segment means, and how it all ended.
//!
//! Nothing here reads a clock or a socket: time is what the segments say, so that a file gives the same as the wire.
//!
//! ```
//! use towpath_capture::Timestamp;
//! use towpath_capture::flow::{Flows, State, Verdict};
//! use towpath_capture::segment::{Flags, Segment};
//!
//! let client = "127.0.0.1:39792".parse().unwrap();
//! let server = "127.0.0.1:8330".parse().unwrap();
//! let mut flows = Flows::new();
//!
//! let syn = Segment::new(Timestamp::from_nanos(0), client, server, 7, 0, Flags::SYN);
//! let step = flows.push(&syn);
//! assert_eq!((step.before.client, step.after.client), (State::Closed, State::SynSent));
//!
//! let rst = Segment::new(Timestamp::from_nanos(9), server, client, 0, 8, Flags::RST | Flags::ACK);
//! let step = flows.push(&rst);
//! assert_eq!(step.verdict, Some(Verdict::Refused));
//! assert_eq!(step.verdict.unwrap().to_string(), "refused (RST)");
//! ```

mod analysis;
mod connection;
mod counts;
#[allow(clippy::module_inception, reason = "the folder's main type")]
mod flow;
mod flows;
mod seen;
mod side;
mod state;
mod step;
mod track;
mod verdict;

pub use counts::Counts;
pub use flow::{End, Flow, FlowId};
pub use flows::{Flows, Limits};
pub use side::{Side, Sides};
pub use state::State;
pub use step::{Notes, Step};
pub use verdict::Verdict;
