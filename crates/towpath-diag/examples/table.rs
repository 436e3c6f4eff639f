//! A small `ss`: every TCP socket, what it is doing and whose it is.
//!
//!     cargo run --example table            all of them
//!     cargo run --example table -- 8330    those of a port

use std::io::{self, Write};

use towpath_diag::{Diag, Filter, Owners, Socket, Want};

fn main() -> io::Result<()> {
    let mut filter = Filter::new();
    for port in std::env::args().skip(1) {
        filter = filter.port(port.parse().map_err(|_| io::Error::other(format!("{port} is no port")))?);
    }
    let sockets = Diag::open()?.sockets(&filter, Want::INFO)?;
    let mut owners = Owners::new();
    owners.update(sockets.iter().filter_map(|socket| socket.inode));

    let mut out = io::stdout().lock();
    writeln!(out, "{:<10} {:>6} {:>6} {:<28} {:<28} {:>10} OWNER", "STATE", "RQ", "SQ", "LOCAL", "PEER", "RTT")?;
    for socket in &sockets {
        line(&mut out, socket, &owners)?;
    }
    Ok(())
}

fn line(out: &mut impl Write, socket: &Socket, owners: &Owners) -> io::Result<()> {
    let Socket { state, receive_queue, send_queue, local, .. } = socket;
    let peer = socket.peer.map_or("*".into(), |peer| peer.to_string());
    let rtt = socket.info.and_then(|info| info.rtt()).map_or(String::new(), |rtt| format!("{rtt:?}"));
    write!(out, "{:<10} {receive_queue:>6} {send_queue:>6} {local:<28} {peer:<28} {rtt:>10}", state.short())?;
    for owner in owners.of(socket.inode.unwrap_or(0)) {
        write!(out, " {} {}/{}", owner.command, owner.pid, owner.fd)?;
    }
    writeln!(out)
}
