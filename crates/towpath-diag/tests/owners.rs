//! A socket's owners are the processes that have a descriptor for it.

mod common;

use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use common::{inode, is_root, unprivileged, until};
use rustix::io::{FdFlags, fcntl_setfd};
use towpath_diag::Owners;

/// Tests by turns: a child that is about to run its program has everything that is open here, and would be an owner too.
fn by_turns() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn here() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").unwrap()
}

fn pids(owners: &[towpath_diag::Owner]) -> Vec<u32> {
    let mut pids: Vec<_> = owners.iter().map(|owner| owner.pid).collect();
    pids.dedup();
    pids
}

/// A child that has the socket as its standard input, and lives until it is killed.
struct Holder(Child);

impl Holder {
    fn of(socket: impl AsFd) -> Holder {
        let socket: OwnedFd = socket.as_fd().try_clone_to_owned().unwrap();
        Holder(Command::new("sleep").arg("1000").stdin(Stdio::from(socket)).spawn().unwrap())
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn our_own_socket_is_ours() {
    let _turn = by_turns();
    let listener = here();
    let mut owners = Owners::new();
    let found = owners.find(inode(&listener));
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].pid, std::process::id());
    assert_eq!(found[0].fd, u32::try_from(std::os::fd::AsRawFd::as_raw_fd(&listener)).unwrap());
    assert_eq!(*found[0].command, *std::fs::read_to_string("/proc/self/comm").unwrap().trim_end());
}

#[test]
fn each_descriptor_counts() {
    let _turn = by_turns();
    let listener = here();
    let clone = listener.try_clone().unwrap();
    fcntl_setfd(&clone, FdFlags::CLOEXEC).unwrap();
    let mut owners = Owners::new();
    assert_eq!(owners.find(inode(&listener)).len(), 2);
}

#[test]
fn a_socket_may_have_several_owners() {
    let _turn = by_turns();
    let listener = here();
    let holder = Holder::of(&listener);
    // Before it runs its program, the child is of our name.
    let mut expected = vec![std::process::id(), holder.0.id()];
    expected.sort_unstable();
    until("both to be found", || {
        let mut owners = Owners::new();
        let found = owners.find(inode(&listener));
        let child = found.iter().find(|owner| owner.pid == holder.0.id())?;
        (pids(found) == expected && &*child.command == "sleep" && child.fd == 0).then_some(())
    });
}

#[test]
fn an_owner_that_has_gone_is_forgotten() {
    let _turn = by_turns();
    let listener = here();
    let number = inode(&listener);
    let mut owners = Owners::new();
    let holder = Holder::of(&listener);
    drop(listener);
    until("the child alone to be found", || {
        owners = Owners::new();
        owners.update([number]);
        (pids(owners.of(number)) == [holder.0.id()]).then_some(())
    });
    drop(holder);
    owners.update([number]);
    assert_eq!(pids(owners.of(number)), []);
}

#[test]
fn of_two_owners_the_one_that_stays_is_kept() {
    let _turn = by_turns();
    let listener = here();
    let number = inode(&listener);
    let mut owners = Owners::new();
    let holder = Holder::of(&listener);
    until("both to be found", || {
        owners = Owners::new();
        owners.update([number]);
        (pids(owners.of(number)).len() == 2).then_some(())
    });
    drop(holder);
    owners.update([number]);
    assert_eq!(pids(owners.of(number)), [std::process::id()]);
}

#[test]
fn what_nobody_has_has_no_owner() {
    let _turn = by_turns();
    let mut owners = Owners::new();
    assert!(owners.find(u32::MAX - 7).is_empty());
    let gone = inode(here());
    assert!(owners.find(gone).is_empty());
}

#[test]
fn other_users_processes_are_passed_over() {
    let _turn = by_turns();
    if !is_root("other_users_processes_are_passed_over") {
        return;
    }
    let listener = here();
    let holder = Holder::of(&listener);
    let found = unprivileged(|| Owners::new().find(inode(&listener)).to_vec());
    assert!(!pids(&found).contains(&holder.0.id()), "{found:?}");
}
