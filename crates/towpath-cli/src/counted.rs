//! Writing whole buffers with a count of the bytes that left, also where an error comes in between.

#![forbid(unsafe_code)]

use std::io::{self, ErrorKind, Write};
use std::sync::atomic::{AtomicU64, Ordering};

/// As `Write::write_all`, and adds to `count` what was written, piece by piece.
pub(crate) fn write_all(to: &mut impl Write, mut bytes: &[u8], count: &AtomicU64) -> io::Result<()> {
    while !bytes.is_empty() {
        match to.write(bytes)? {
            0 => return Err(ErrorKind::WriteZero.into()),
            n => {
                count.fetch_add(n as u64, Ordering::Relaxed);
                bytes = &bytes[n..];
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_left_before_an_error_is_counted() {
        let (mut room, count) = ([0; 5], AtomicU64::new(2));
        let error = write_all(&mut &mut room[..], b"hello towpath", &count).unwrap_err();
        assert_eq!((error.kind(), count.into_inner(), &room), (ErrorKind::WriteZero, 7, b"hello"));
    }
}
