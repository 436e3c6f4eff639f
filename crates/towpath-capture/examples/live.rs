//! What passes on an interface, a line a segment: `cargo run --example live -- [INTERFACE|any] [PORT…]`, as root.
//! It ends once nothing has come for ten seconds.

#![forbid(unsafe_code)]

use std::error::Error;
use std::time::Duration;

use towpath_capture::flow::Flows;
use towpath_capture::live::{Capture, Event};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut builder = Capture::builder().snap_len(200);
    if let Some(interface) = arguments.next().filter(|name| name != "any") {
        builder = builder.interface(interface);
    }
    for port in arguments {
        builder = builder.port(port.parse()?);
    }
    let mut capture = builder.open()?;
    let mut flows = Flows::new();
    while let Some(event) = capture.read(Some(Duration::from_secs(10)))? {
        let Event::Frame(frame) = event else {
            println!("the interface is down");
            continue;
        };
        let Some(segment) = frame.segment()? else { continue };
        let step = flows.push(&segment);
        println!(
            "{} +{:?} {} → {}  {} seq {} len {}  {} | {}  {}",
            step.flow,
            step.since,
            segment.from,
            segment.to,
            segment.flags,
            step.seq,
            step.len,
            step.after.client,
            step.after.server,
            step.notes,
        );
        if let Some(verdict) = step.verdict {
            println!("{} {verdict}", step.flow);
        }
    }
    let stats = capture.stats()?;
    println!("{} received, {} dropped", stats.received, stats.dropped);
    Ok(())
}
