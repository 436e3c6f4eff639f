//! What is asked of the kernel: all sockets that a filter may let pass, one socket, and whose they are.

#![forbid(unsafe_code)]

use std::collections::HashSet;
use std::io;
use std::net::IpAddr;

use towpath_diag::{Diag, Owner, Owners, Socket, States, Want, monotonic};

use super::filter::Filter;
use super::table::{Ends, Looked, Row, Seen, Table};
use crate::exit::{Exit, Failure, reason};

/// The kernel, as one who looks sees it.
#[derive(Debug)]
pub(crate) struct Source {
    diag: Diag,
    owners: Owners,
    /// The sockets whose owners were looked for.
    known: HashSet<u32>,
}

impl Source {
    pub(crate) fn open() -> Result<Source, Failure> {
        let diag = Diag::open().map_err(|e| refused(&e))?;
        Ok(Source { diag, owners: Owners::new(), known: HashSet::new() })
    }

    /// Shows the table every socket that may pass `filter`, in whatever state.
    pub(crate) fn look(&mut self, filter: &Filter, want: Want, table: &mut Table) -> Result<Looked, Failure> {
        let kernels = filter.kernels();
        let now = monotonic();
        table.begin(now);
        let dumped = self.diag.dump(&kernels, want, |socket| table.see(&Seen::from(&socket), now));
        let dumped = dumped.map_err(|e| refused(&e))?;
        Ok(table.end(monotonic(), !dumped.interrupted))
    }

    /// Every socket that may pass `filter`, in the states that it names.
    pub(crate) fn sockets(&mut self, filter: &Filter, want: Want) -> Result<Vec<Socket>, Failure> {
        let mut kernels = filter.kernels();
        kernels.states = filter.states();
        self.diag.sockets(&kernels, want).map_err(|e| refused(&e))
    }

    /// All about the socket of `row`, if it is still there.
    pub(crate) fn ask(&mut self, row: &Row, want: Want) -> io::Result<Option<Socket>> {
        let found = self.diag.find(row.local, row.peer, want)?;
        // Another socket may have the addresses by now.
        Ok(found.filter(|socket| socket.cookie == row.cookie))
    }

    /// The socket of these addresses.
    pub(crate) fn find(&mut self, ends: &Ends, want: Want) -> io::Result<Option<Socket>> {
        self.diag.find(ends.0, ends.1, want)
    }

    /// Makes the owners of the sockets `needed` known, by inode, and looks whether those that were known are there still. If
    /// one of these sockets is new, all processes are looked through, which is the dearest step of all; so then `all` that may
    /// be needed later are looked for too.
    pub(crate) fn learn_owners(&mut self, needed: impl IntoIterator<Item = u32>, all: impl Iterator<Item = u32>) {
        if needed.into_iter().all(|inode| self.known.contains(&inode)) {
            return self.owners.update(all.filter(|inode| self.known.contains(inode)));
        }
        self.known.clear();
        self.known.extend(all);
        self.owners.update(self.known.iter().copied());
    }

    /// Who has this socket, as far as that was made known.
    pub(crate) fn owners(&self, inode: Option<u32>) -> &[Owner] {
        inode.map_or(&[], |inode| self.owners.of(inode))
    }
}

/// The kernel does not answer.
fn refused(error: &io::Error) -> Failure {
    let failure =
        Failure::new(Exit::of(error), format!("ask the kernel for TCP sockets (sock_diag): {}", reason(error)));
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            failure.hint("A seccomp filter or a security module forbids it; try it outside of the container")
        }
        io::ErrorKind::NotFound | io::ErrorKind::Unsupported => {
            failure.hint("The kernel's module for it is not there; try: sudo modprobe tcp_diag")
        }
        _ => failure,
    }
}

impl Filter {
    /// What the kernel can pick for us. It may let more pass than the filter does, never less.
    pub(crate) fn kernels(&self) -> towpath_diag::Filter {
        let mut kernels = towpath_diag::Filter::new();
        let ports = self.ports();
        let count: usize = ports.iter().map(|ports| ports.len()).sum();
        // Each port is a few instructions for every socket, and all of them have to fit.
        if count <= MOST_PORTS {
            kernels.ports = ports.into_iter().flatten().collect();
        }
        let addresses = self.addresses();
        if !addresses.is_empty() {
            // Listeners at every address, which may be those that are looked for.
            let everywhere = [IpAddr::from([0; 4]), IpAddr::from([0; 16])];
            kernels.addresses = addresses.iter().copied().chain(everywhere.map(Into::into)).collect();
        }
        kernels
    }

    /// The states that it names, or all.
    pub(crate) fn states(&self) -> States {
        if self.named_states().is_empty() { States::default() } else { self.named_states().iter().copied().collect() }
    }
}

/// More ports than this are left to us.
const MOST_PORTS: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn kernels(filter: &str) -> towpath_diag::Filter {
        filter.parse::<Filter>().unwrap().kernels()
    }

    #[test]
    fn the_kernel_picks_by_port_and_address() {
        assert_eq!(kernels("port:80,443 1000-1002").ports, [80, 443, 1000, 1001, 1002]);
        assert_eq!(kernels("127.0.0.1:8330").ports, [8330]);
        assert_eq!(kernels("state:listen process:x"), towpath_diag::Filter::new());
        let everywhere = ["0.0.0.0", "::"].map(|address| address.parse().unwrap());
        let wanted = [["10.0.0.0/8".parse().unwrap()].as_slice(), &everywhere].concat();
        assert_eq!(kernels("addr:10.0.0.0/8").addresses, wanted);
    }

    #[test]
    fn what_is_too_much_for_the_kernel_is_left_to_us() {
        assert_eq!(kernels("port:1-64").ports.len(), 64);
        assert!(kernels("port:1-65").ports.is_empty());
        assert!(kernels("port:1-65535").ports.is_empty());
    }

    #[test]
    fn an_owner_that_ends_is_forgotten_though_no_socket_is_new() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let filter = format!("port:{}", listener.local_addr().unwrap().port()).parse().unwrap();
        let mut sleep = std::process::Command::new("sleep");
        let mut child = sleep.arg("1000").stdin(std::os::fd::OwnedFd::from(listener)).spawn().unwrap();
        drop(sleep);
        let mut source = Source::open().unwrap();
        let inode = source.sockets(&filter, Want::empty()).unwrap()[0].inode.unwrap();
        let pid = child.id();
        let mut learn = || {
            source.learn_owners([inode], [inode].into_iter());
            source.owners(Some(inode)).iter().any(|owner| owner.pid == pid)
        };
        let before = learn();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(before && !learn());
    }

    #[test]
    fn what_the_kernel_picks_the_filter_still_has_to_pass() {
        let one = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = one.local_addr().unwrap().port();
        let mut source = Source::open().unwrap();
        let mut found = |filter: String| source.sockets(&filter.parse().unwrap(), Want::empty()).unwrap().len();
        assert_eq!(found(format!("127.0.0.1:{port} state:listen")), 1);
        assert_eq!(found(format!("port:{port} state:close-wait")), 0);
    }
}
