//! `towpath tour`: one connection's life, on this machine and for real, with all that the other subcommands show of it.
//!
//! ```text
//!   namespace ── a network of our own, before there are threads
//!   server, client ── tasks that do what they are told ──▶ told ──┐
//!   wire ───────────── segments ──▶ ladder (trace's) ─────────────┼──▶ stage ──▶ steps ──▶ page
//!   the kernel ─────── sockets ───▶ table (watch's) ──────────────┘      │        │
//!                                                                     keys     story
//! ```
//!
//! `steps` is the order of things, `stage` the waiting for them: nothing here goes on before it has been seen, and nothing
//! is shown that was not.

mod client;
mod keys;
mod ladder;
mod link;
mod namespace;
mod page;
mod server;
mod stage;
mod steps;
mod story;
mod sys;
mod table;
mod told;
mod wire;

use std::net::SocketAddr;

use rustix::net::{AddressFamily, SocketFlags, SocketType};
use signal_hook::consts::SIGINT;
use signal_hook::low_level::emulate_default_handler;
use towpath::sync::channel::{self, Receiver};
use towpath_diag::{Diag, Filter, Want};

use self::keys::Keys;
use self::page::Page;
use self::stage::{Halt, Stage, failed};
use self::steps::{Tour, here};
use self::table::Table;
use self::told::Teller;
use crate::args;
use crate::exit::{Exit, Failure};
use crate::output::event::Event;
use crate::output::{self, Output};

pub(crate) use self::keys::give_back;
pub(crate) use self::namespace::{Place, Refusal, enter};
pub(crate) use self::told::Deed;

/// Where the server listens, and where nobody does, in a network of our own. Elsewhere the system chooses.
const PORTS: (u16, u16) = (8330, 8331);

/// How many ports to try: many are the peers' of connections in TIME-WAIT.
const TRIES: usize = 1000;

/// Goes through all of it, or through what may be seen here.
pub(crate) fn run(options: &args::Tour, out: &Output, stop: &Receiver<i32>) -> Result<Exit, Failure> {
    let halt = match tour(options, out, stop) {
        Ok(exit) => return Ok(exit),
        Err(halt) => halt,
    };
    match halt {
        Halt::Failed(failure) => Err(failure),
        Halt::Lost(why) => output::stdout_lost(why),
        Halt::Quit => Ok(Exit::Done),
        Halt::Signal(SIGINT) => Ok(Exit::Interrupted),
        Halt::Signal(signal) => {
            // Everything is put away, and so we end as whoever sent it expects: by it.
            out.finish();
            let _ = emulate_default_handler(signal);
            Ok(Exit::Interrupted)
        }
    }
}

fn tour(options: &args::Tour, out: &Output, stop: &Receiver<i32>) -> Result<Exit, Halt> {
    let own = matches!(options.place, Place::Own);
    // Held until the end: nobody else may listen there meanwhile.
    let nobody = reserve(if own { PORTS.1 } else { 0 }).map_err(|e| failed("take a port for nobody", &e))?;
    let port = if own { PORTS.0 } else { free_port().map_err(|e| failed("find a free port", &e))? };
    let (wire, blind) = match wire::tap(&[port, nobody.1.port()]) {
        Ok(wire) => (Some(wire), None),
        Err(e) => (None, Some(e)),
    };
    let refusal = match &options.place {
        Place::Shared(refusal) => Some(refusal),
        Place::Own => None,
    };
    out.event(&Event::Touring {
        own_network: own,
        segments: wire.is_some(),
        why: refusal.map(|refusal| &*refusal.what),
    });

    let (tell, said) = channel::unbounded();
    let keys = options.step.then(Keys::start).transpose().map_err(|e| failed("wait for keys", &e))?;
    let mut tour = Tour {
        stage: Stage::new((out, stop), said, wire, keys, port)?,
        page: Page::new(out),
        table: Table::new(port)?,
        teller: Teller(tell),
        addr: here(port),
        nobody: nobody.1,
    };
    tour.run()?;
    tour.page.end(tour.stage.ladder.count);
    let Some(blind) = blind else { return Ok(Exit::Done) };
    // The half of it was not seen.
    let failure = match refusal {
        Some(Refusal { what, hint }) => {
            Failure::new(Exit::NoPermission, format!("tour: no segments were shown: {what}")).hint(hint)
        }
        None => Failure::new(Exit::Other, format!("tour: no segments were shown: {blind}")),
    };
    Err(failure.into())
}

/// A port of this machine at which nobody listens, as long as the socket is there that is bound to it.
fn reserve(port: u16) -> std::io::Result<(std::os::fd::OwnedFd, SocketAddr)> {
    let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    rustix::net::bind(&socket, &here(port))?;
    let addr = rustix::net::getsockname(&socket)?.try_into()?;
    Ok((socket, addr))
}

/// A port that is free now, and that no socket has at either end: what the table shows of it is ours. It is known before
/// anybody listens, so that nothing that happens there is missed.
fn free_port() -> std::io::Result<u16> {
    let mut diag = Diag::open()?;
    for _ in 0..TRIES {
        let port = reserve(0)?.1.port();
        let mut filter = Filter::new();
        filter.ports.push(port);
        if diag.sockets(&filter, Want::empty())?.is_empty() {
            return Ok(port);
        }
    }
    Err(std::io::ErrorKind::AddrInUse.into())
}
