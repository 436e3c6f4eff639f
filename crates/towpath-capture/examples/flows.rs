//! A line for each connection in a capture file: `cargo run --example flows -- FILE` (`-` for a pipe).

#![forbid(unsafe_code)]

use std::error::Error;
use std::io::{self, BufReader, Read};

use towpath_capture::file::Reader;
use towpath_capture::flow::{Flow, Flows};

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args().nth(1).ok_or("which file? (- for a pipe)")?;
    let input: Box<dyn Read> =
        if path == "-" { Box::new(io::stdin().lock()) } else { Box::new(std::fs::File::open(&path)?) };
    let mut reader = Reader::new(BufReader::new(input))?;

    let mut flows = Flows::new();
    let mut others = 0;
    let end = loop {
        let frame = match reader.read_frame() {
            Ok(Some(frame)) => frame,
            Ok(None) => break None,
            Err(error) => break Some(error),
        };
        match frame.segment() {
            Ok(Some(segment)) => flows.push(&segment).retired.iter().for_each(print),
            Ok(None) => others += 1,
            Err(error) => eprintln!("a frame at {} ns: {error}", frame.time.as_nanos()),
        }
    };
    flows.finish().iter().for_each(print);
    if others > 0 {
        eprintln!("{others} frames carry no TCP");
    }
    // What could be read has been, and printed.
    end.map_or(Ok(()), |error| Err(error.into()))
}

fn print(flow: &Flow) {
    let (client, server) = (&flow.ends.client, &flow.ends.server);
    println!(
        "{} {} → {}  {} B out, {} B in, {} sent again: {} ({}, {})",
        flow.id,
        client.addr,
        server.addr,
        client.sent.bytes,
        server.sent.bytes,
        flow.retransmissions(),
        flow.verdict,
        client.state,
        server.state,
    );
}
