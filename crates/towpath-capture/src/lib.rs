//! TCP segments from the wire or from a file, and the connections that they make up.
//!
//! A [`Frame`] is what a capture holds: bytes, a time, a link type. [`segment::parse`] makes a [`Segment`] of it, and
//! [`Flows`] makes connections of segments: each side's state after every segment, what was sent again and why, who
//! closed first, and a verdict. Parsing and flows are pure functions, so that a file gives the same as the wire.
//!
//! [`Segment`]: segment::Segment
//! [`Flows`]: flow::Flows
//!
//! | module | what it is for |
//! |---|---|
//! | [`segment`] | one frame to one TCP segment, options included |
//! | [`flow`] | segments to connections |
//! | [`file`](mod@file) | pcap and pcapng files to frames, frames to pcapng |
//! | [`live`] | frames as they pass, by AF_PACKET (Linux) |

mod frame;
mod time;

pub mod file;
pub mod flow;
pub mod live;
pub mod segment;

pub use frame::{Frame, LinkType};
pub use time::Timestamp;
