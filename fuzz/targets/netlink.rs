//! What the kernel says of sockets: datagrams of sock_diag, from kernels of any age, and `/proc/PID/stat`, in which a
//! process names itself as it likes.

#![no_main]

use libfuzzer_sys::fuzz_target;
use towpath_diag::fuzzing::{Said, datagram, stat};

fuzz_target!(|bytes: &[u8]| {
    for said in datagram(bytes) {
        if let Ok(Said::Socket(Some(socket))) = said {
            // Every field that came, and no other, can be shown.
            assert!(!format!("{socket:?}").is_empty());
            if let Some(info) = &socket.info {
                info.fields().for_each(|(name, _)| assert!(!name.is_empty()));
            }
        }
    }
    if let Some((_, name)) = stat(bytes) {
        assert!(name.len() <= 3 * bytes.len(), "{name}");
    }
});
