//! A tracing instance of our own: a ring buffer, filter and clock that no other tracer sees (Documentation/trace/ftrace.rst,
//! "Instances"). It is a folder in tracefs, named for this process, and it is there until somebody removes it: we do, when done,
//! and we remove those of processes that could not.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, fstatfs, mkdirat, openat, unlinkat};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

/// TRACEFS_MAGIC of `linux/magic.h`.
const MAGIC: u64 = 0x7472_6163;

/// Where tracefs is by custom: of its own, and, of old, in debugfs.
const PLACES: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];

/// Why there is no exact source, most of the time, and what would help.
pub(super) const FOR_ROOT: &str = "tracing is for root; as root, every change is told";

const PREFIX: &str = "towpath-";

/// How many instances one process may have.
const MOST: u32 = 100;

#[derive(Debug)]
pub(super) struct Tracefs {
    root: OwnedFd,
    place: String,
}

impl Tracefs {
    /// Finds it, or mounts it where nobody else sees it: without a place in any tree of folders, for as long as this is open.
    /// The error says why that may not be.
    pub(super) fn open() -> Result<Tracefs, String> {
        let found = PLACES.into_iter().find_map(|place| Some((folder(CWD, place).ok().filter(is_tracefs)?, place)));
        if let Some((root, place)) = found {
            return Ok(Tracefs { root, place: place.into() });
        }
        let root = mount().map_err(|error| match error {
            Errno::PERM | Errno::ACCESS => FOR_ROOT.to_owned(),
            Errno::NODEV => "the kernel has no tracefs (CONFIG_FTRACE)".to_owned(),
            error => format!("tracefs cannot be mounted: {}", io::Error::from(error)),
        })?;
        Ok(Tracefs { root, place: "a mount of tracefs of our own".into() })
    }

    pub(super) fn place(&self) -> &str {
        &self.place
    }

    /// What a file of tracefs says.
    pub(super) fn read(&self, path: &str) -> io::Result<String> {
        read(&self.root, path)
    }

    /// A new instance.
    pub(super) fn instance(&self) -> io::Result<Instance> {
        let instances =
            openat(&self.root, "instances", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        sweep(&instances);
        let (pid, mut number) = (std::process::id(), 0);
        let name = loop {
            let name = if number == 0 { format!("{PREFIX}{pid}") } else { format!("{PREFIX}{pid}-{number}") };
            match mkdirat(&instances, &name, Mode::RWXU) {
                Ok(()) => break name,
                Err(Errno::EXIST) if number < MOST => number += 1,
                Err(error) => return Err(error.into()),
            }
        };
        // Removed again if this fails.
        let mut instance = Instance { folder: None, instances, name };
        instance.folder = Some(folder(&instance.instances, &*instance.name)?);
        Ok(instance)
    }
}

fn is_tracefs(root: &OwnedFd) -> bool {
    fstatfs(root).is_ok_and(|stat| stat.f_type as u64 == MAGIC)
}

fn mount() -> Result<OwnedFd, Errno> {
    let context = fsopen("tracefs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(&context)?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
}

fn folder(at: impl AsFd, path: impl rustix::path::Arg) -> Result<OwnedFd, Errno> {
    openat(at, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

/// Some files give what the first call has room for, and no more.
const ROOM: usize = 64 << 10;

fn read(at: &OwnedFd, path: &str) -> io::Result<String> {
    let mut file = File::from(openat(at, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?);
    let (mut text, mut room) = (Vec::new(), vec![0; ROOM]);
    loop {
        match file.read(&mut room)? {
            0 => return Ok(String::from_utf8_lossy(&text).into_owned()),
            length => text.extend_from_slice(&room[..length]),
        }
    }
}

/// Removes instances whose processes are gone. The kernel does not let go of one that is being read, whoever it is that reads.
fn sweep(instances: &OwnedFd) {
    let Ok(entries) = Dir::read_from(instances) else { return };
    for entry in entries.flatten() {
        if entry.file_name().to_str().ok().and_then(owner).is_some_and(is_gone) {
            let _ = unlinkat(instances, entry.file_name(), AtFlags::REMOVEDIR);
        }
    }
}

/// The process that an instance is named for, if it is one of ours.
fn owner(name: &str) -> Option<u32> {
    let rest = name.strip_prefix(PREFIX)?;
    rest.split_once('-').map_or(rest, |(pid, _)| pid).parse().ok()
}

fn is_gone(pid: u32) -> bool {
    Path::new("/proc/self").exists() && !Path::new(&format!("/proc/{pid}")).exists()
}

/// A tracing instance, which is removed on drop. Whatever reads from it has to be closed before.
#[derive(Debug)]
pub(super) struct Instance {
    folder: Option<OwnedFd>,
    instances: OwnedFd,
    name: String,
}

impl Instance {
    fn folder(&self) -> io::Result<&OwnedFd> {
        self.folder.as_ref().ok_or_else(|| Errno::NOENT.into())
    }

    /// Writes a file of the instance, in one piece.
    pub(super) fn write(&self, path: &str, text: &str) -> io::Result<()> {
        let fd = openat(self.folder()?, path, OFlags::WRONLY | OFlags::TRUNC | OFlags::CLOEXEC, Mode::empty())?;
        File::from(fd).write_all(text.as_bytes())
    }

    /// What was traced, a page at a time, for each processor there may be.
    pub(super) fn pipes(&self) -> io::Result<Vec<OwnedFd>> {
        let per_cpu = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let per_cpu = openat(self.folder()?, "per_cpu", per_cpu, Mode::empty())?;
        let mut pipes = Vec::new();
        for entry in Dir::read_from(&per_cpu)? {
            if let Some(name) = entry?.file_name().to_str().ok().filter(|name| name.starts_with("cpu")) {
                let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
                pipes.push(openat(&per_cpu, format!("{name}/trace_pipe_raw"), flags, Mode::empty())?);
            }
        }
        Ok(pipes)
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.folder = None;
        // What is left behind if this fails, the next to come removes.
        let _ = unlinkat(&self.instances, &*self.name, AtFlags::REMOVEDIR);
    }
}

#[cfg(test)]
mod tests {
    use super::owner;

    #[test]
    fn an_instance_names_its_process() {
        assert_eq!(owner("towpath-42"), Some(42));
        assert_eq!(owner("towpath-42-1"), Some(42));
        assert_eq!(owner("towpath-"), None);
        assert_eq!(owner("towpath-x"), None);
        assert_eq!(owner("trace-cmd"), None);
    }
}
