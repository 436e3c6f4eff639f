//! Netlink as far as sock_diag(7) needs it: what messages look like (`message.rs`, pure), and a socket that asks and listens
//! (`link.rs`).

mod link;
pub(crate) mod message;

pub(crate) use link::{Link, Received};
