//! A network of our own: one loopback interface and nobody else, in which we may capture, without privilege where the
//! system lets everybody have user namespaces (user_namespaces(7), network_namespaces(7)).
//!
//! ```text
//!   try it in a child ── works ──▶ do the same here
//!                     └─ fails ──▶ stay where we are, and say at which step it failed
//! ```
//!
//! The child is there because one cannot go back: some systems (AppArmor's restriction, for one) let everybody into a
//! namespace of their own and then nobody do anything in it.

#![forbid(unsafe_code)]

use std::fs;
use std::io;

use towpath_capture::live::Capture;

use super::link::{self, LOOPBACK};
use super::sys::{self, Way};
use crate::exit::{Exit, Failure, reason};

/// Where the tour takes place.
#[derive(Debug, Clone)]
pub(crate) enum Place {
    /// In a network namespace of its own, where it may capture.
    Own,
    /// On the loopback interface that all share.
    Shared(Refusal),
}

/// What the system does not allow.
#[derive(Debug, Clone)]
pub(crate) struct Refusal {
    /// What was tried, and what came back.
    pub(crate) what: String,
    /// What to type instead.
    pub(crate) hint: String,
}

/// One of the things that have to work, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Stage {
    Unshare,
    Map,
    LoopbackUp,
    Capture,
    Done,
}

const STAGES: [Stage; 5] = [Stage::Unshare, Stage::Map, Stage::LoopbackUp, Stage::Capture, Stage::Done];

/// Enters a network namespace of our own, if we may. To be called while there is one thread: only then does the kernel
/// give a process a user namespace, and threads that exist already would stay where they are.
pub(crate) fn enter() -> Result<Place, Failure> {
    // Who is privileged stays who he is; everybody else becomes so in a user namespace, of what belongs to it.
    let mut why = None;
    for way in [Way::Network, Way::UserAndNetwork] {
        match rehearse(way) {
            Ok(()) => {
                return match move_to(way) {
                    Ok(()) => Ok(Place::Own),
                    // We may be in it without being able to do anything there.
                    Err((stage, e)) => Err(Failure::new(Exit::Other, format!("{}: {}", stage.what(), reason(&e)))),
                };
            }
            // That the privileged way is not open says nothing to those who are not.
            Err(refused) => why = Some(refused),
        }
    }
    let (stage, error) = why.unwrap_or((Stage::Unshare, io::ErrorKind::Unsupported.into()));
    Ok(Place::Shared(Refusal::new(stage, &error)))
}

/// Moves a child instead of us.
fn rehearse(way: Way) -> Result<(), (Stage, io::Error)> {
    let report = sys::in_a_child(|| {
        let (stage, error) =
            move_to(way).err().map_or((Stage::Done, 0), |(stage, e)| (stage, e.raw_os_error().unwrap_or(0)));
        let mut report = vec![stage as u8];
        report.extend(error.to_ne_bytes());
        report
    });
    let report = report.map_err(|e| (Stage::Unshare, e))?;
    let stage = report.first().and_then(|&number| STAGES.into_iter().find(|&stage| stage as u8 == number));
    let error = report.get(1..5).and_then(|bytes| bytes.try_into().ok()).map(i32::from_ne_bytes);
    match (stage, error) {
        (Some(Stage::Done), _) => Ok(()),
        (Some(stage), Some(error)) => Err((stage, io::Error::from_raw_os_error(error))),
        // It was killed, as some seccomp filters do.
        _ => Err((Stage::Unshare, io::ErrorKind::PermissionDenied.into())),
    }
}

fn move_to(way: Way) -> Result<(), (Stage, io::Error)> {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    sys::unshare(way).map_err(|e| (Stage::Unshare, e))?;
    if way == Way::UserAndNetwork {
        stay_who_we_are(uid, gid).map_err(|e| (Stage::Map, e))?;
    }
    link::take_up().map_err(|e| (Stage::LoopbackUp, e))?;
    let capture = Capture::builder().interface(LOOPBACK).open();
    capture.map(drop).map_err(|e| (Stage::Capture, io_error(e)))
}

/// Has our user and our group be the same within the new user namespace, where at first nobody is anybody.
fn stay_who_we_are(uid: u32, gid: u32) -> io::Result<()> {
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("{uid} {uid} 1"))?;
    fs::write("/proc/self/gid_map", format!("{gid} {gid} 1"))
}

fn io_error(error: towpath_capture::live::OpenError) -> io::Error {
    use towpath_capture::live::OpenError;
    match error {
        OpenError::NotPermitted(e) | OpenError::Io(_, e) => e,
        other => io::Error::other(other),
    }
}

impl Stage {
    fn what(self) -> &'static str {
        match self {
            Stage::Unshare => "make a user and network namespace",
            Stage::Map => "be ourselves in a user namespace of our own",
            Stage::LoopbackUp => "take up lo in a network namespace of our own",
            Stage::Capture | Stage::Done => "capture in a network namespace of our own",
        }
    }
}

/// Knobs that forbid user namespaces to those without privilege: the file, what it says then, what makes it say otherwise.
const KNOBS: [(&str, &str, &str); 3] = [
    ("/proc/sys/user/max_user_namespaces", "0", "user.max_user_namespaces=10000"),
    ("/proc/sys/kernel/unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone=1"),
    ("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1", "kernel.apparmor_restrict_unprivileged_userns=0"),
];

impl Refusal {
    fn new(stage: Stage, error: &io::Error) -> Refusal {
        let said = |file: &str| fs::read_to_string(file).unwrap_or_default();
        let knob = KNOBS.iter().find(|(file, forbids, _)| said(file).trim() == *forbids);
        let hint = match knob {
            Some((_, _, setting)) => {
                format!("To allow it: sudo sysctl {setting}; or see all of it at once: sudo towpath tour")
            }
            None => "To see all of it: sudo towpath tour; in a container: let it have user namespaces \
                     (docker run --security-opt seccomp=unconfined), or CAP_NET_RAW"
                .to_owned(),
        };
        let because = match knob {
            Some((file, value, _)) => {
                format!(" ({} is {value})", file.trim_start_matches("/proc/sys/").replace('/', "."))
            }
            None => String::new(),
        };
        Refusal { what: format!("{}: {}{because}", stage.what(), reason(error)), hint }
    }
}
