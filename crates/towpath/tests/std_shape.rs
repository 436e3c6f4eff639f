//! What std's sockets do with threads, ours do with tasks: one body of tests, `std_shape/body.rs`, is compiled against
//! `std::net` and against `towpath::net` and run as both. Where the two are meant to differ, `std_shape/on_*.rs` say so,
//! in one place each; the body takes those differences from there and knows of no other.
//!
//! The body names each stable method of std's `TcpListener`, `TcpStream` and `Incoming` (Rust 1.95), and each trait that
//! they implement on Linux. Not among them is `TcpListener::{only_v6, set_only_v6}`: deprecated since 1.16, for they can
//! change nothing. What goes beyond std is tested elsewhere.

// The one body, once for each side.
#![allow(clippy::duplicate_mod)]

mod common;

#[path = "std_shape/on_std.rs"]
mod on_std;

#[path = "std_shape/on_towpath.rs"]
mod on_towpath;
