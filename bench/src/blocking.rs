//! The services as anybody writes them over `Read` and `Write`: towpath, may and plain threads all run these.

use crate::service::{CHUNK, pattern};
use std::io::{Read, Result, Write};

/// Sends back what comes.
///
/// # Errors
/// When the connection fails.
pub fn echo(conn: &mut (impl Read + Write), buf: &mut [u8]) -> Result<()> {
    loop {
        match conn.read(buf)? {
            0 => return Ok(()),
            n => conn.write_all(&buf[..n])?,
        }
    }
}

/// Reads as many bytes as announced, and says so.
///
/// # Errors
/// When the connection fails, or ends.
pub fn sink(conn: &mut (impl Read + Write)) -> Result<()> {
    let mut buf = vec![0; CHUNK];
    let mut length = [0; 8];
    loop {
        conn.read_exact(&mut length)?;
        let mut left = u64::from_le_bytes(length);
        while left > 0 {
            let room = left.min(CHUNK as u64) as usize;
            match conn.read(&mut buf[..room])? {
                0 => return Ok(()),
                n => left -= n as u64,
            }
        }
        conn.write_all(&length)?;
    }
}

/// Sends as many bytes as asked for.
///
/// # Errors
/// When the connection fails, or ends.
pub fn source(conn: &mut (impl Read + Write)) -> Result<()> {
    let pattern = pattern();
    let mut length = [0; 8];
    loop {
        conn.read_exact(&mut length)?;
        let mut left = u64::from_le_bytes(length);
        while left > 0 {
            let count = left.min(CHUNK as u64);
            conn.write_all(&pattern[..count as usize])?;
            left -= count;
        }
    }
}
