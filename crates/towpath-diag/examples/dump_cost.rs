//! What a dump costs beside `ss -tinm`, at many sockets: connects ten thousand (or as many as the argument says) within this process, and
//! counts the processor time of both.
//!
//!     cargo run --release --example dump_cost -- 5000

use std::hint::black_box;
use std::io;
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::net::sockopt::set_socket_linger;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::time::{ClockId, clock_gettime};
use towpath_diag::{Diag, Filter, Owners, States, Want};

const ROUNDS: u32 = 20;

fn main() -> io::Result<()> {
    let pairs = std::env::args().nth(1).map_or(5000, |pairs| pairs.parse().expect("a number of connections"));
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let here = listener.local_addr()?;
    let connect = |_| {
        let client = TcpStream::connect(here)?;
        // Leaves nothing in TIME-WAIT.
        set_socket_linger(&client, Some(Duration::ZERO))?;
        Ok((client, listener.accept()?.0))
    };
    let kept = (0..pairs).map(connect).collect::<io::Result<Vec<_>>>()?;

    let mut diag = Diag::open()?;
    // Those that ss tells, unless asked for others.
    let filter = Filter::new().states(States::default() - States::LISTEN - States::TIME_WAIT - States::SYN_RECEIVED);
    let (mut sockets, mut bytes) = (0, 0);
    for (what, want) in
        [("everything", Want::all()), ("info, memory", Want::INFO | Want::MEMORY), ("nothing", Want::empty())]
    {
        let cost = measure(ROUNDS, || {
            sockets = 0;
            diag.dump(&filter, want, |socket| {
                sockets += 1;
                bytes += black_box(&socket).info.map_or(0, |info| info.rtt().map_or(0, |rtt| rtt.subsec_micros()));
            })
            .map(drop)
        })?;
        println!("a dump of {sockets} sockets with {what}: {cost:?}");
    }
    let cost = measure(ROUNDS, || diag.dump(&filter.clone().port(1), Want::all(), |_| ()).map(drop))?;
    println!("a dump of none of them: {cost:?}");
    let one = kept[0].0.local_addr()?;
    let cost = measure(ROUNDS * 1000, || {
        diag.find(one, here, Want::all()).map(|socket| black_box(socket).is_some()).map(drop)
    })?;
    println!("one by its addresses: {cost:?}");

    let inodes: Vec<u32> =
        diag.sockets(&Filter::new(), Want::empty())?.iter().filter_map(|socket| socket.inode).collect();
    let cost = measure(1, || update(&mut Owners::new(), &inodes))?;
    println!("owners, first: {cost:?}");
    let mut owners = Owners::new();
    update(&mut owners, &inodes)?;
    let cost = measure(ROUNDS, || update(&mut owners, &inodes))?;
    println!("owners, again: {cost:?}");

    let before = cpu(ClockId::ProcessCPUTime) + children();
    let started = Instant::now();
    for _ in 0..ROUNDS / 4 {
        Command::new("ss").arg("-tinmH").stdout(Stdio::null()).status()?;
    }
    let cost = (cpu(ClockId::ProcessCPUTime) + children() - before) / (ROUNDS / 4);
    println!("ss -tinmH: {cost:?} ({:?} by the clock)", started.elapsed() / (ROUNDS / 4));
    Ok(())
}

fn update(owners: &mut Owners, inodes: &[u32]) -> io::Result<()> {
    owners.update(inodes.iter().copied());
    Ok(())
}

fn measure(rounds: u32, mut work: impl FnMut() -> io::Result<()>) -> io::Result<Duration> {
    let before = cpu(ClockId::ProcessCPUTime);
    for _ in 0..rounds {
        work()?;
    }
    Ok((cpu(ClockId::ProcessCPUTime) - before) / rounds)
}

fn cpu(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// The processor time of processes that have ended: fields 16 and 17 of `/proc/self/stat`, in ticks.
fn children() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_ascii_whitespace();
    let ticks: u64 = fields.skip(13).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second())
}
