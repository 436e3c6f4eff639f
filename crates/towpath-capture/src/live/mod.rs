//! Segments as they pass: an AF_PACKET socket ([packet(7)]) with a filter in the kernel.
//!
//! It needs CAP_NET_RAW in the network namespace that it captures in. What is captured begins at the IP header; the
//! frames have [`LinkType::LINUX_SLL2`](crate::LinkType::LINUX_SLL2), whose header says which interface and which way.
//!
//! ```no_run
//! use std::time::Duration;
//! use towpath_capture::flow::Flows;
//! use towpath_capture::live::{Capture, Event};
//!
//! let mut capture = Capture::builder().interface("lo").port(8330).open()?;
//! let mut flows = Flows::new();
//! while let Some(event) = capture.read(Some(Duration::from_secs(5)))? {
//!     match event {
//!         Event::Frame(frame) => {
//!             if let Ok(Some(segment)) = frame.segment() {
//!                 let step = flows.push(&segment);
//!                 println!("{} {} seq {} {}", step.flow, step.from, step.seq, step.notes);
//!             }
//!         }
//!         Event::Down => eprintln!("lo is down"),
//!         _ => {}
//!     }
//! }
//! println!("{} dropped", capture.stats()?.dropped);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [packet(7)]: https://man7.org/linux/man-pages/man7/packet.7.html

pub mod bpf;
mod capture;
mod cooked;
mod filter;
mod sys;

pub use capture::{Builder, Capture, Event, OpenError, Stats, interface_name};
pub use filter::Filter;
