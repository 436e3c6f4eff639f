//! What a segment costs: processor time of this thread, for parsing, for following connections, and, as root, for
//! receiving as well. `cargo run --release --example speed`

#![forbid(unsafe_code)]

use std::error::Error;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use towpath_capture::flow::Flows;
use towpath_capture::live::{Capture, Event, OpenError};
use towpath_capture::{LinkType, Timestamp, segment};

/// Eleven segments each: the handshake, two requests with an answer each, the close, and a straggler.
const CONNECTIONS: usize = 100_000;

fn main() -> Result<(), Box<dyn Error>> {
    let frames = frames();
    let began = processor_time();
    let segments: Vec<_> = frames
        .iter()
        .enumerate()
        .map(|(at, frame)| {
            let time = Timestamp::from_nanos(at as u64 * 1000);
            segment::parse(LinkType::LINUX_SLL2, time, frame, frame.len() as u32).ok().flatten().expect("it is TCP")
        })
        .collect();
    report("parse", began, segments.len());

    let began = processor_time();
    let mut flows = Flows::new();
    let mut retired = 0;
    for segment in &segments {
        retired += flows.push(segment).retired.len();
    }
    report("follow", began, segments.len());
    println!("{} connections, {} of them still kept", retired + flows.iter().count(), flows.iter().count());

    match Capture::builder().interface("lo").snap_len(200).open() {
        Err(OpenError::NotPermitted(error)) => println!("receive: not measured: {error}"),
        capture => receive(capture?)?,
    }
    Ok(())
}

/// Small writes over loopback wait in the kernel until they are read and followed, as they do when too much passes.
fn receive(mut capture: Capture) -> Result<(), Box<dyn Error>> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut client = TcpStream::connect(listener.local_addr()?)?;
    let mut server = listener.accept()?.0;
    client.set_nodelay(true)?;
    let mut buffer = [0; 64];
    for _ in 0..15_000 {
        client.write_all(&buffer)?;
        server.read_exact(&mut buffer)?;
    }
    let began = processor_time();
    let mut flows = Flows::new();
    let mut count = 0;
    while let Some(Event::Frame(frame)) = capture.read(Some(Duration::ZERO))? {
        if let Some(segment) = frame.segment()? {
            flows.push(&segment);
            count += 1;
        }
    }
    report("receive, parse, follow", began, count);
    let stats = capture.stats()?;
    println!("{} received, {} dropped", stats.received, stats.dropped);
    Ok(())
}

fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn report(what: &str, began: Duration, count: usize) {
    let each = (processor_time() - began).as_secs_f64() / count as f64;
    println!("{what}: {:.0} ns a segment, {:.2} million/s", each * 1e9, 1e-6 / each);
}

/// The frames of all connections, a thousand of which are open at a time.
fn frames() -> Vec<Vec<u8>> {
    let life: [(bool, u8, u32, u32, usize); 11] = [
        (true, 0x02, 0, 0, 0),
        (false, 0x12, 0, 1, 0),
        (true, 0x10, 1, 1, 0),
        (true, 0x18, 1, 1, 100),
        (false, 0x18, 1, 101, 100),
        (true, 0x18, 101, 101, 100),
        (false, 0x18, 101, 201, 100),
        (true, 0x11, 201, 201, 0),
        (false, 0x11, 201, 202, 0),
        (true, 0x10, 202, 202, 0),
        (true, 0x10, 202, 202, 0),
    ];
    let mut frames = Vec::with_capacity(CONNECTIONS * life.len());
    for thousand in 0..CONNECTIONS / 1000 {
        for step in life {
            for connection in 0..1000 {
                frames.push(frame(thousand * 1000 + connection, step));
            }
        }
    }
    frames
}

fn frame(connection: usize, (out, flags, seq, ack, len): (bool, u8, u32, u32, usize)) -> Vec<u8> {
    let mut frame = vec![8, 0, 0, 0, 0, 0, 0, 1, 3, 4, 0, 6, 0, 0, 0, 0, 0, 0, 0, 0];
    frame.extend([0x45, 0]);
    frame.extend((52 + len as u16).to_be_bytes());
    frame.extend([0, 1, 0x40, 0, 64, 6, 0, 0]);
    let client = ([10, 0, (connection >> 16) as u8, 1], (connection as u16).max(1));
    let server = ([10, 1, 0, 1], 8330);
    let (from, to) = if out { (client, server) } else { (server, client) };
    frame.extend(from.0);
    frame.extend(to.0);
    frame.extend(from.1.to_be_bytes());
    frame.extend(to.1.to_be_bytes());
    frame.extend(seq.wrapping_add(connection as u32).to_be_bytes());
    frame.extend(ack.wrapping_add(connection as u32).to_be_bytes());
    frame.extend([0x80, flags, 2, 0, 0, 0, 0, 0]);
    frame.extend([1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2]);
    frame.resize(frame.len() + len, 0);
    frame
}
