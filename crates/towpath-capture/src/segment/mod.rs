//! One frame to one TCP segment.
//!
//! ```
//! use towpath_capture::segment::{self, Flags};
//! use towpath_capture::{LinkType, Timestamp};
//!
//! // 127.0.0.1:39792 → 127.0.0.1:8330, SYN.
//! let frame = [
//!     0x45, 0, 0, 44, 0, 1, 0x40, 0, 64, 6, 0, 0, 127, 0, 0, 1, 127, 0, 0, 1, // IPv4
//!     0x9b, 0x70, 0x20, 0x8a, 0, 0, 0, 7, 0, 0, 0, 0, 0x60, 2, 0xff, 0xd7, 0, 0, 0, 0, // TCP
//!     2, 4, 0xff, 0xd7, // the longest segment it takes
//! ];
//! let syn = segment::parse(LinkType::RAW, Timestamp::default(), &frame, frame.len() as u32)?.expect("it is TCP");
//! assert_eq!(syn.to.to_string(), "127.0.0.1:8330");
//! assert_eq!(syn.flags, Flags::SYN);
//! assert_eq!(syn.options.to_string(), "mss 65495");
//! # Ok::<(), segment::ParseError>(())
//! ```

mod options;
mod parse;
#[allow(clippy::module_inception, reason = "the folder's main type")]
mod segment;

pub use options::{Options, SackBlocks, TcpTimestamps};
pub use parse::{ParseError, parse};
pub use segment::{Ecn, Flags, Segment};
