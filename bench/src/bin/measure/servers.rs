//! Who takes part.

use crate::works::Work;
use std::env;
use std::path::PathBuf;
use towpath_bench::Result;

/// A server with the name it has in tables.
#[derive(Clone, Debug)]
pub(crate) struct Named {
    pub(crate) name: String,
    command: Vec<String>,
    /// Written by hand for this one purpose.
    pub(crate) limit: bool,
    /// Which services it offers.
    services: &'static [&'static str],
    /// Whether its threads can be two.
    scales: bool,
    /// For these works only.
    works: &'static [&'static str],
    /// Whether it runs under valgrind, which knows nothing of io_uring, and is too much for Go's runtime.
    pub(crate) valgrind: bool,
}

const ALL: &[&str] = &["echo", "echo16k", "sink", "source", "shared", "proxy"];
const UNSHARED: &[&str] = &["echo", "echo16k", "sink", "source", "proxy"];
const ECHO: &[&str] = &["echo"];
const ANY: &[&str] = &[];

/// Those that are measured unless `--server` says otherwise.
pub(crate) fn all() -> Vec<Named> {
    let limit = |name, command| named(name, command, true, ECHO, false, ANY);
    let peer = |name, command, services| named(name, command, false, services, true, ANY);
    vec![
        limit("epoll loop", "raw_epoll"),
        limit("io_uring loop, recv and send", "raw_uring --mode operations"),
        limit("io_uring loop, poll", "raw_uring --mode poll"),
        peer("towpath", "towpath_echo", ALL),
        named("towpath, 64 KiB stacks", "env TOWPATH_STACK=64K towpath_echo", false, ECHO, true, &["idle"]),
        named("towpath, reads with a timeout", "towpath_echo --read-timeout 60", false, ECHO, true, &["echo"]),
        peer("towpath, io_uring", "env TOWPATH_POLLER=uring towpath_echo", ALL),
        peer("go", "go_echo", ALL),
        peer("tokio", "tokio_echo", ALL),
        peer("may", "may_echo", UNSHARED),
        peer("monoio", "monoio_echo", UNSHARED),
        peer("threads", "threads_echo", ALL),
    ]
}

fn named(
    name: &str,
    command: &str,
    limit: bool,
    services: &'static [&'static str],
    scales: bool,
    works: &'static [&'static str],
) -> Named {
    let find = |word: &str| match beside(word) {
        Ok(path) if path.is_file() => path.display().to_string(),
        _ => word.into(),
    };
    let command = command.split_whitespace().map(find).collect();
    let valgrind =
        !["io_uring", "monoio", "go"].iter().any(|without| name.split(", ").any(|part| part.starts_with(without)));
    Named { name: name.into(), command, limit, services, scales, works, valgrind }
}

/// `NAME=COMMAND`: a server that takes the arguments of `service.rs`, and is asked for whatever is measured.
pub(crate) fn parse(text: &str) -> std::result::Result<Named, &'static str> {
    let (name, command) = text.split_once('=').ok_or("not NAME=COMMAND")?;
    let server = named(name, command, false, ALL, true, ANY);
    if server.command.is_empty() { Err("not NAME=COMMAND") } else { Ok(server) }
}

/// A program in this one's directory.
pub(crate) fn beside(program: &str) -> Result<PathBuf> {
    Ok(env::current_exe()?.with_file_name(program))
}

impl Named {
    pub(crate) fn takes_part(&self, work: &Work) -> bool {
        self.services.contains(&work.service)
            && (self.scales || work.workers == 1)
            && (self.works.is_empty() || self.works.contains(&work.name))
    }

    /// What to start for this work.
    pub(crate) fn command(&self, work: &Work) -> Vec<String> {
        let mut command = self.command.clone();
        if work.service != "echo" {
            command.extend(["--service".into(), work.service.into()]);
        }
        if work.workers > 1 {
            command.extend(["--workers".into(), work.workers.to_string()]);
        }
        command
    }

    /// Why it cannot run here, if a program of ours has not been built.
    pub(crate) fn is_missing(&self) -> bool {
        self.command[0] == "go_echo"
    }
}

/// A command without the directories of its programs.
pub(crate) fn shown(command: &[String]) -> String {
    let short = |word: &String| word.rsplit('/').next().unwrap_or(word).to_string();
    command.iter().map(short).collect::<Vec<_>>().join(" ")
}
