//! Counters of the kernel and the processor on a running server, by perf_event_open(2).
//!
//! They are attached to every thread there is, inherited by every thread that one of these starts later, and read
//! before and after the measured run: no need to stop the server or to start it in a special way.
//! Many virtual machines offer no processor counters; then [`Counters::open`] says so and there are none.

use crate::Result;
use perf_event_open_sys::bindings::{
    PERF_COUNT_HW_CPU_CYCLES, PERF_COUNT_HW_INSTRUCTIONS, PERF_FLAG_FD_CLOEXEC, PERF_FORMAT_TOTAL_TIME_ENABLED,
    PERF_FORMAT_TOTAL_TIME_RUNNING, PERF_TYPE_HARDWARE, PERF_TYPE_TRACEPOINT, perf_event_attr,
};
use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::FromRawFd;
use std::process::Command;

/// Something to count.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// Its name among the figures.
    pub name: &'static str,
    type_: u32,
    config: u64,
    user: bool,
    kernel: bool,
}

/// Instructions and cycles, in user and in kernel space.
pub const HARDWARE: [Kind; 4] = [
    hardware("instructions_user", PERF_COUNT_HW_INSTRUCTIONS, true),
    hardware("instructions_kernel", PERF_COUNT_HW_INSTRUCTIONS, false),
    hardware("cycles_user", PERF_COUNT_HW_CPU_CYCLES, true),
    hardware("cycles_kernel", PERF_COUNT_HW_CPU_CYCLES, false),
];

const fn hardware(name: &'static str, config: u32, user: bool) -> Kind {
    Kind { name, type_: PERF_TYPE_HARDWARE, config: config as u64, user, kernel: !user }
}

/// System calls: the tracepoint `raw_syscalls:sys_enter`. It makes each call dearer, so count it in a run of its own.
///
/// # Errors
/// When its number cannot be read: it stands in tracefs, which only root sees.
pub fn system_calls() -> Result<Kind> {
    const ID: &str = "/sys/kernel/tracing/events/raw_syscalls/sys_enter/id";
    let text = fs::read_to_string(ID).or_else(|_| {
        // Not mounted: mount it for one process only, so that nothing on the machine changes.
        let script = format!("mount -t tracefs tracefs /sys/kernel/tracing && cat {ID}");
        let output = Command::new("unshare").args(["--mount", "sh", "-c", &script]).output()?;
        String::from_utf8(output.stdout).map_err(io::Error::other)
    })?;
    let config = text.trim().parse().map_err(|_| "tracefs cannot be read")?;
    Ok(Kind { name: "system_calls", type_: PERF_TYPE_TRACEPOINT, config, user: true, kernel: true })
}

/// Open counters, each on every thread of a process.
#[derive(Debug)]
pub struct Counters {
    open: Vec<(Kind, Vec<File>)>,
}

impl Counters {
    /// Attaches counters of these kinds to process `pid`.
    ///
    /// # Errors
    /// When one of the kinds cannot be counted on this machine, or by this user.
    pub fn open(pid: u32, kinds: &[Kind]) -> io::Result<Counters> {
        let mut open: Vec<_> = kinds.iter().map(|kind| (*kind, Vec::new())).collect();
        let mut seen = HashSet::new();
        // A thread may start while we attach: look again until there is no new one.
        loop {
            let before = seen.len();
            for task in fs::read_dir(format!("/proc/{pid}/task"))? {
                let tid = task?.file_name().to_string_lossy().parse().map_err(io::Error::other)?;
                if seen.insert(tid) {
                    for (kind, files) in &mut open {
                        files.push(attach(tid, kind)?);
                    }
                }
            }
            if seen.len() == before {
                return Ok(Counters { open });
            }
        }
    }

    /// The counts since they were attached, in the order of the kinds.
    ///
    /// # Errors
    /// When the kernel does not give them.
    pub fn read(&mut self) -> io::Result<Vec<(&'static str, f64)>> {
        let sum = |files: &mut Vec<File>| files.iter_mut().map(read_one).sum::<io::Result<f64>>();
        self.open.iter_mut().map(|(kind, files)| Ok((kind.name, sum(files)?))).collect()
    }
}

fn attach(tid: i32, kind: &Kind) -> io::Result<File> {
    let mut attr = perf_event_attr {
        type_: kind.type_,
        size: size_of::<perf_event_attr>() as u32,
        config: kind.config,
        read_format: u64::from(PERF_FORMAT_TOTAL_TIME_ENABLED | PERF_FORMAT_TOTAL_TIME_RUNNING),
        ..Default::default()
    };
    attr.set_inherit(1);
    attr.set_exclude_user(u64::from(!kind.user));
    attr.set_exclude_kernel(u64::from(!kind.kernel));
    attr.set_exclude_hv(1);
    // SAFETY: `attr` is a valid attribute block of the size it states, and lives through the call.
    let fd = unsafe { perf_event_open_sys::perf_event_open(&mut attr, tid, -1, -1, PERF_FLAG_FD_CLOEXEC.into()) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded, so the descriptor is open, and nobody else knows of it.
    Ok(unsafe { File::from_raw_fd(fd) })
}

/// One counter's value. Where there are fewer counters in the processor than asked for they take turns; the value
/// is then scaled to the whole time.
fn read_one(file: &mut File) -> io::Result<f64> {
    let mut words = [0; 24];
    file.read_exact(&mut words)?;
    let word = |index: usize| u64::from_ne_bytes(words[index * 8..][..8].try_into().expect("eight bytes")) as f64;
    let (value, enabled, running) = (word(0), word(1), word(2));
    Ok(if running > 0.0 { value * enabled / running } else { 0.0 })
}
