//! Where packets come from, an interface or a file, and what is said where they do not come.

#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::path::Path;
use std::{env, iter};

use towpath_capture::Frame;
use towpath_capture::file::{Interface, ReadError, Reader};
use towpath_capture::live::{Capture, Filter as Kernels, OpenError};

use super::stop::{Stop, Stoppable};
use crate::exit::{Exit, Failure, reason};
use crate::watch::filter::Filter;

/// As much of a packet as headers can be.
const HEADERS: u32 = 256;

/// How many ports and addresses the kernel is given to choose by. Of more it chooses none, and we do.
const MOST: usize = 64;

/// Begins to capture on the interface of this name, or on `any`: what may pass the filter, with `data` or without.
pub(super) fn listen(interface: &str, filter: &Filter, data: bool) -> Result<Capture, Failure> {
    let mut builder = Capture::builder().filter(kernels(filter));
    if interface != "any" {
        builder = builder.interface(interface);
    }
    if !data {
        builder = builder.snap_len(HEADERS);
    }
    builder.open().map_err(|e| deaf(interface, &e))
}

/// What of the filter the kernel can choose by: it knows no ranges and no prefixes.
fn kernels(filter: &Filter) -> Kernels {
    let ports: Vec<u16> = filter.ports().into_iter().flatten().take(MOST + 1).collect();
    let whole = |prefix: &towpath_diag::Prefix| prefix.length() == if prefix.address().is_ipv4() { 32 } else { 128 };
    let prefixes = filter.addresses();
    let hosts: Vec<IpAddr> =
        if prefixes.iter().all(whole) { prefixes.iter().map(|prefix| prefix.address()).collect() } else { Vec::new() };
    Kernels {
        ports: if ports.len() > MOST { Vec::new() } else { ports },
        hosts: if hosts.len() > MOST { Vec::new() } else { hosts },
    }
}

/// Why nothing can be captured.
fn deaf(interface: &str, error: &OpenError) -> Failure {
    let failure = |exit, why: &dyn std::fmt::Display| Failure::new(exit, format!("trace {interface}: {why}"));
    match error {
        OpenError::NotPermitted(_) => {
            // The program as it was found, for setcap wants a file.
            let path = env::current_exe()
                .map_or_else(|_| "$(command -v towpath)".to_owned(), |path| path.display().to_string());
            let arguments: Vec<_> = iter::once("towpath".to_owned()).chain(env::args().skip(1)).collect();
            failure(Exit::NoPermission, &"listening needs CAP_NET_RAW").hint(format!(
                "Three ways on: sudo {}; or once and for all: sudo setcap cap_net_raw+ep {path}; or without privilege: \
                 towpath tour",
                arguments.join(" ")
            ))
        }
        OpenError::NoInterface(_) => {
            let known = interfaces().join(", ");
            failure(Exit::Usage, &"there is no such interface").hint(format!("There are any, {known}"))
        }
        OpenError::Io(call, source) => failure(Exit::Other, &format_args!("{call}: {}", reason(source))),
        other => failure(Exit::Other, other),
    }
}

/// The interfaces of this machine, as far as it tells.
fn interfaces() -> Vec<String> {
    let found = std::fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
    let mut names: Vec<_> = found.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// A capture file.
pub(super) struct FilePackets {
    reader: Reader<Box<dyn Read + Send>>,
    name: String,
}

impl FilePackets {
    /// Opens a file.
    pub(super) fn open(path: &Path, stop: &Stop) -> Result<FilePackets, Failure> {
        let name = path.display().to_string();
        let file = File::open(path).map_err(|e| {
            let exit = if e.kind() == io::ErrorKind::PermissionDenied { Exit::NoPermission } else { Exit::Other };
            let failure = Failure::new(exit, format!("read {name}: {}", reason(&e)));
            match e.kind() {
                io::ErrorKind::NotFound => failure.hint("To make one: sudo towpath trace --for 10s -w a.pcapng"),
                io::ErrorKind::PermissionDenied => {
                    failure.hint(format!("To see whose it is: ls -l {}", in_shell(&name)))
                }
                _ => failure,
            }
        })?;
        FilePackets::new(file, name, stop)
    }

    /// Reads stdin.
    pub(super) fn stdin(stop: &Stop) -> Result<FilePackets, Failure> {
        // Not through std's own buffer, which would hide that there is something to read.
        let file = io::stdin().as_fd().try_clone_to_owned().map(File::from);
        let file = file.map_err(|e| Failure::new(Exit::Other, format!("read stdin: {}", reason(&e))))?;
        FilePackets::new(file, "stdin".to_owned(), stop)
    }

    fn new(input: File, name: String, stop: &Stop) -> Result<FilePackets, Failure> {
        let input = Stoppable { input, stop: stop.clone() };
        let input: Box<dyn Read + Send> = Box::new(BufReader::with_capacity(1 << 16, input));
        let reader = Reader::new(input).map_err(|e| unreadable(&name, &e))?;
        Ok(FilePackets { reader, name })
    }

    /// The next packet; none at the end.
    pub(super) fn read(&mut self) -> Result<Option<Frame<'_>>, Failure> {
        self.reader.read_frame().map_err(|e| unreadable(&self.name, &e))
    }

    /// The interfaces that it has told of so far.
    pub(super) fn interfaces(&self) -> &[Interface] {
        self.reader.interfaces()
    }

    /// How many packets whoever wrote it has lost, if it says.
    pub(super) fn dropped(&self) -> Option<u64> {
        let dropped = self.interfaces().iter().filter_map(|interface| interface.dropped);
        dropped.reduce(u64::saturating_add)
    }
}

/// A file's name as one types it.
fn in_shell(name: &str) -> String {
    if name.contains([' ', '\'', '"', '$', '\\']) { format!("{name:?}") } else { name.to_owned() }
}

/// What is wrong with a file, and with which part of it.
fn unreadable(name: &str, error: &ReadError) -> Failure {
    let shell_name = in_shell(name);
    match error {
        ReadError::NotACapture(_) => {
            Failure::new(Exit::Usage, format!("read {name}: {error}")).hint(if name == "stdin" {
                "Try: tcpdump -w - | towpath trace -r -".to_owned()
            } else {
                format!("To see what it is: file {shell_name}")
            })
        }
        ReadError::Io { offset, source } => {
            let place = if *offset > 0 { format!(" after byte {offset}") } else { String::new() };
            Failure::new(Exit::Other, format!("read {name}{place}: {}", reason(source)))
        }
        // What came before it has been shown.
        _ => Failure::new(Exit::Other, format!("read {name}: {error}")).hint("All before that was read"),
    }
}
