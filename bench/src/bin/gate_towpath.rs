//! What `gate` counts of towpath beside its echo server: one work a run, as users would write it.
//!
//! `spawn`, `yield` and `hop` do a given number of operations and end. `shared` and `wake` print where they listen,
//! accept two connections, and serve them with two workers until they are killed.

use clap::{Parser, Subcommand};
use std::io::{self, Read, Write};
use std::net::TcpListener;
use towpath::Runtime;
use towpath::net::TcpStream;
use towpath::sync::channel;

#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    work: Work,
}

#[derive(Subcommand)]
enum Work {
    /// Spawns a task and joins it, again and again
    Spawn { count: u64 },
    /// Two tasks of one worker that yield by turns
    Yield { count: u64 },
    /// One task sends to another of its worker, through a channel that holds nothing
    Hop { count: u64 },
    /// Two tasks on two workers: each reads one of two connections and writes what came to the other
    Shared,
    /// A task reads one connection and sends what came to a task on another worker, which writes it to the other one
    Wake,
}

fn main() -> io::Result<()> {
    match Args::parse().work {
        Work::Spawn { count } => one_worker()?.run(move || {
            for number in 0..count {
                assert_eq!(towpath::spawn(move || number).join().ok(), Some(number));
            }
        }),
        Work::Yield { count } => one_worker()?.run(move || {
            let yields = move || (0..count / 2).for_each(|_| towpath::task::yield_now());
            let other = towpath::spawn(yields);
            yields();
            other.join().unwrap();
        }),
        Work::Hop { count } => one_worker()?.run(move || {
            let (sender, receiver) = channel::bounded(0);
            let other = towpath::spawn(move || (0..count).for_each(|number| sender.send(number).unwrap()));
            (0..count).for_each(|number| assert_eq!(receiver.recv(), Ok(number)));
            other.join().unwrap();
        }),
        Work::Shared => {
            let (runtime, first, second) = two_connections()?;
            let ((first_in, first_out), (second_in, second_out)) = (first.into_split(), second.into_split());
            // A plain thread's task goes to the worker that has the fewest: these two to one each.
            let other = runtime.spawn(move || pass_on(first_in, second_out));
            runtime.spawn(move || pass_on(second_in, first_out)).join().unwrap()?;
            other.join().unwrap()?;
        }
        Work::Wake => {
            let (runtime, mut first, mut second) = two_connections()?;
            let (sender, receiver) = channel::bounded(0);
            let other = runtime.spawn(move || -> io::Result<()> {
                let mut buf = [0; 64];
                loop {
                    first.read_exact(&mut buf)?;
                    sender.send(buf).map_err(io::Error::other)?;
                }
            });
            let writing = runtime.spawn(move || receiver.iter().try_for_each(|buf| second.write_all(&buf)));
            writing.join().unwrap()?;
            other.join().unwrap()?;
        }
    }
    Ok(())
}

fn one_worker() -> io::Result<Runtime> {
    Runtime::builder().workers(1).build()
}

fn two_connections() -> io::Result<(Runtime, TcpStream, TcpStream)> {
    let runtime = Runtime::builder().workers(2).build()?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("listening {}", listener.local_addr()?);
    io::stdout().flush()?;
    // std's listener blocks this thread; towpath's would start the default runtime, if nobody has connected yet.
    Ok((runtime, listener.accept()?.0.into(), listener.accept()?.0.into()))
}

fn pass_on(mut from: impl Read, mut to: impl Write) -> io::Result<()> {
    let mut buf = [0; 1024];
    loop {
        match from.read(&mut buf)? {
            0 => return Ok(()),
            n => to.write_all(&buf[..n])?,
        }
    }
}
