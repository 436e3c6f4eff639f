//! A test in namespaces of its own, where nobody else's segments pass, interfaces are its to take down and file systems its to
//! mount: the test starts itself again there. It needs root, or a system that lets people have user namespaces.

use std::env;
use std::process::Command;

use crate::common::{missing, skipped};

/// Runs `test`, whose name is `name`, apart from all other traffic, with its loopback up.
pub(crate) fn apart(name: &str, test: impl FnOnce()) {
    if env::var_os("TOWPATH_APART").is_some() {
        return test();
    }
    let why = ["unshare", "ip"].into_iter().find_map(missing).or_else(|| {
        let tried = unshare().arg("true").output().unwrap();
        (!tried.status.success()).then(|| format!("no namespace: {}", String::from_utf8_lossy(&tried.stderr).trim()))
    });
    if skipped(why.as_deref()) {
        return;
    }
    let script = r#"ip link set lo up && exec "$0" "$@""#;
    let test = env::current_exe().unwrap();
    let mut inside = unshare();
    inside.args(["sh", "-c", script]).arg(test).args(["--exact", name, "--nocapture", "--test-threads=1"]);
    let done = inside.env("TOWPATH_APART", "1").output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "{out}{err}");
    // A name that no test has would pass by doing nothing.
    assert!(out.contains("1 passed"), "{out}{err}");
    print!(
        "{}",
        out.lines().filter(|line| line.contains("skipped:")).map(|line| format!("{line}\n")).collect::<String>()
    );
}

/// Root stays root, who may use the kernel's tracepoints; others become it in a user namespace.
fn unshare() -> Command {
    let mut unshare = Command::new("unshare");
    unshare.args(["--net", "--mount"]);
    if !rustix::process::geteuid().is_root() {
        unshare.arg("--map-root-user");
    }
    unshare
}

/// Whether the test may use the tracepoints of the kernel that everybody shares.
pub(crate) fn has_tracepoints() -> bool {
    std::path::Path::new("/sys/kernel/tracing/events/sock/inet_sock_set_state").exists()
}
