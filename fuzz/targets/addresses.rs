//! What somebody types as an address: `host:port`, service names, zones, brackets.

#![no_main]

use std::net::SocketAddr;

use host_port::{Host, HostPort, Port};
use libfuzzer_sys::fuzz_target;

#[allow(dead_code, unreachable_pub, reason = "the library's own file; not all of it is used here")]
#[path = "../../crates/towpath/src/net/host_port.rs"]
mod host_port;

fuzz_target!(|typed: &str| {
    match typed.parse::<HostPort>() {
        Ok(read) => {
            // What std takes for an address is one, and the same.
            if let (Ok(std), Host::Ip(ip), Port::Number(port)) = (typed.parse::<SocketAddr>(), &read.host, &read.port) {
                assert_eq!((std.ip(), std.port()), (*ip, *port));
            }
        }
        Err(error) => {
            assert!(!error.to_string().contains(char::is_control), "{error:?}");
            let zoned = typed.contains('%');
            assert!(zoned || typed.parse::<SocketAddr>().is_err(), "std takes {typed:?}: {error}");
        }
    }
});
