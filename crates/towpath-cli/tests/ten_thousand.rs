//! A server with ten thousand connections: each of them is shown, with its peer. Alone in its file, for both ends take ten
//! thousand descriptors, each in a process of its own.

mod common;

use std::collections::HashSet;
use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::Value;

use common::{PATIENCE, Running, skipped, towpath};

const CONNECTIONS: usize = 10_000;
/// The descriptors that either end needs, with room for what else it has.
const DESCRIPTORS: u64 = CONNECTIONS as u64 + 200;

/// A connection from one of many addresses, none of which has more than a few hundred.
fn connect(number: usize, to: SocketAddr) -> TcpStream {
    let from = SocketAddr::from(([127, 0, 1, 1 + (number % 50) as u8], 0));
    let fd = rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
    rustix::net::bind(&fd, &from).unwrap();
    rustix::net::connect(&fd, &to).unwrap();
    fd.into()
}

#[test]
fn the_tasks_of_a_server_with_ten_thousand_connections_name_each_peer() {
    let limit = getrlimit(Resource::Nofile);
    let few =
        limit.maximum.is_some_and(|most| most < DESCRIPTORS).then_some("fewer than 10,200 descriptors are allowed");
    if skipped(few) {
        return;
    }
    // The server inherits it.
    setrlimit(Resource::Nofile, Rlimit { current: Some(DESCRIPTORS), maximum: limit.maximum }).unwrap();
    let folder = PathBuf::from(format!("/tmp/tpt-{}", std::process::id()));
    fs::DirBuilder::new().mode(0o700).create(&folder).unwrap();
    let command = |arguments: &[&str]| {
        let mut command = towpath(arguments);
        command.env("XDG_RUNTIME_DIR", &folder).env_remove("TOWPATH_INSPECT");
        command
    };
    let mut server = Running::start(command(&["serve", "127.0.0.1:0", "--echo"]));
    let addr = server.address();
    let connections: Vec<_> = (0..CONNECTIONS).map(|number| connect(number, addr)).collect();
    let peers: HashSet<String> = connections.iter().map(|stream| stream.local_addr().unwrap().to_string()).collect();
    assert_eq!(peers.len(), CONNECTIONS);

    let pid = server.id().to_string();
    let begun = Instant::now();
    let ask = || {
        let mut asking = Running::start(command(&["tasks", &pid, "--json", "-w", "20s"]));
        asking.end_input();
        let answer = asking.finish();
        assert_eq!(answer.code, Some(0), "{}", answer.stderr);
        let lines = answer.stdout.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let reads = lines.filter(|line| line["op"] == "read" && line["local"] == addr.to_string());
        let told =
            reads.filter(|line| line["cookie"].is_u64()).filter_map(|line| Some(line["peer"].as_str()?.to_owned()));
        told.collect::<HashSet<String>>()
    };
    // The last of them may have yet to be accepted.
    while ask() != peers {
        assert!(begun.elapsed() < 4 * PATIENCE, "not all {CONNECTIONS} are told of");
        std::thread::sleep(Duration::from_millis(100));
    }
    // As a table as well.
    let mut asking = Running::start(command(&["tasks", &pid, "-w", "20s"]));
    asking.end_input();
    let table = asking.finish().expect_code(0).stdout;
    assert!(peers.iter().all(|peer| table.contains(&format!("{addr} → {peer}  "))));
    drop((connections, server));
    fs::remove_dir_all(&folder).unwrap();
}
