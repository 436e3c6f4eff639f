//! Capture files: [pcap] and [pcapng] in, pcapng out, from and to anything that reads or writes.
//!
//! ```
//! use towpath_capture::file::{About, Interface, Reader, Writer};
//! use towpath_capture::{Frame, LinkType, Timestamp};
//!
//! let mut file = Vec::new();
//! let mut writer = Writer::new(&mut file, &About::here("example"))?;
//! writer.add_interface(1, &Interface::new(LinkType::RAW).named("lo"))?;
//! let frame = Frame {
//!     time: Timestamp::from_nanos(1_700_000_000_123_456_789),
//!     link: LinkType::RAW,
//!     interface: 1,
//!     data: &[0x45, 0, 0, 20],
//!     original_len: 20,
//!     comment: "written by hand",
//! };
//! writer.write(&frame)?;
//! writer.finish()?;
//!
//! let mut reader = Reader::new(file.as_slice())?;
//! let read = reader.read_frame()?.expect("there is one");
//! assert_eq!((read.time, read.data, read.comment), (frame.time, frame.data, "written by hand"));
//! assert!(reader.read_frame()?.is_none());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [pcap]: https://www.ietf.org/archive/id/draft-ietf-opsawg-pcap-06.html
//! [pcapng]: https://www.ietf.org/archive/id/draft-ietf-opsawg-pcapng-04.html

mod block;
mod interface;
mod reader;
mod record;
mod writer;

pub use interface::Interface;
pub use reader::{ReadError, Reader};
pub use writer::{About, Writer};
