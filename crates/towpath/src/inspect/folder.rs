//! Where the endpoint's socket lies: `PID.sock` in a folder of the user's own that nobody else can enter.
//!
//! That is `$XDG_RUNTIME_DIR/towpath`, or, where that variable names no folder of this user's, `towpath-UID` in the
//! temporary folder (`TMPDIR`, or `/tmp`). What others could have put in its place is refused.

#![forbid(unsafe_code)]

use std::env;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process;

use rustix::process::{Pid, geteuid, test_kill_process};

/// sun_path with the NUL behind it, unix(7).
const LONGEST_PATH: usize = 107;

/// Makes the folder if need be, and checks it.
pub(super) fn open() -> io::Result<PathBuf> {
    let folder = place();
    let made = fs::DirBuilder::new().mode(0o700).create(&folder);
    made.or_else(|error| if error.kind() == ErrorKind::AlreadyExists { Ok(()) } else { Err(error) })
        .map_err(|error| explain(&error, "making", &folder))?;
    check(&folder)?;
    Ok(folder)
}

fn place() -> PathBuf {
    let uid = geteuid().as_raw();
    let own = |path: &PathBuf| {
        path.is_absolute() && fs::metadata(path).is_ok_and(|found| found.is_dir() && found.uid() == uid)
    };
    match env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(own) {
        Some(runtime) => runtime.join("towpath"),
        None => env::temp_dir().join(format!("towpath-{uid}")),
    }
}

/// Refuses a folder that is not this user's alone.
fn check(folder: &Path) -> io::Result<()> {
    let found = fs::symlink_metadata(folder).map_err(|error| explain(&error, "looking at", folder))?;
    let wrong = if !found.is_dir() {
        "is not a folder".to_owned()
    } else if found.uid() != geteuid().as_raw() {
        format!("belongs to user {}", found.uid())
    } else if found.mode() & 0o077 != 0 {
        format!("lets others in (mode {:o}, not 700)", found.mode() & 0o7777)
    } else {
        return Ok(());
    };
    let text = format!("inspect: {} {wrong}: remove it, or set XDG_RUNTIME_DIR", folder.display());
    Err(io::Error::new(ErrorKind::PermissionDenied, text))
}

/// Listens in the folder.
pub(super) fn listen(folder: &Path) -> io::Result<(UnixListener, PathBuf)> {
    remove_stale(folder);
    let path = folder.join(format!("{}.sock", process::id()));
    // Another program may have this number, where several spaces of numbers (pid_namespaces(7)) share a folder.
    if UnixStream::connect(&path).is_ok() {
        let text = format!("inspect: another program answers at {}: set XDG_RUNTIME_DIR", path.display());
        return Err(io::Error::new(ErrorKind::AddrInUse, text));
    }
    // Under another name until it listens: who finds a socket that refuses may take it for a stale one.
    let new = folder.join(format!("{}.new", process::id()));
    if path.as_os_str().as_bytes().len() > LONGEST_PATH {
        let text = format!(
            "inspect: {} is longer than the {LONGEST_PATH} bytes that a socket's path may have: set XDG_RUNTIME_DIR",
            path.display()
        );
        return Err(io::Error::new(ErrorKind::InvalidInput, text));
    }
    _ = fs::remove_file(&new);
    let listener = UnixListener::bind(&new).map_err(|error| explain(&error, "listening at", &new))?;
    match fs::rename(&new, &path) {
        Ok(()) => Ok((listener, path)),
        Err(error) => {
            _ = fs::remove_file(&new);
            Err(explain(&error, "renaming to", &path))
        }
    }
}

/// Removes the sockets of programs that ended without a chance to do it themselves.
fn remove_stale(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let number = path.file_stem().and_then(|stem| stem.to_str()?.parse().ok());
        let pid = number.filter(|&number| number > 0).and_then(Pid::from_raw);
        let ended = pid.is_some_and(|pid| test_kill_process(pid) == Err(rustix::io::Errno::SRCH));
        let refused = || UnixStream::connect(&path).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused);
        if ended && refused() {
            _ = fs::remove_file(&path);
        }
    }
}

fn explain(error: &io::Error, what: &str, path: &Path) -> io::Error {
    io::Error::new(error.kind(), format!("inspect: {what} {}: {error}", path.display()))
}
