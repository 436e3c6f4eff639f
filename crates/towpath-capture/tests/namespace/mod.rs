//! A network namespace for each test that captures: nothing else passes there, and it may be broken.

#![forbid(unsafe_code)]
#![allow(dead_code, reason = "not every test file needs all of it")]

use std::process::Command;

/// Runs the rest of the test of this name in a network namespace of its own; false where that has been done, or cannot be.
pub(crate) fn in_namespace(test: &str) -> bool {
    if std::env::var_os("TOWPATH_TEST_NAMESPACE").is_some() {
        return true;
    }
    // Root keeps what it may do outside as well, such as large buffers; others are root of a namespace of users.
    let arguments: &[&str] =
        if rustix::process::geteuid().is_root() { &["--net"] } else { &["--net", "--user", "--map-root-user"] };
    let possible = Command::new("unshare").args(arguments).args(["ip", "link", "set", "lo", "up"]).output();
    match possible {
        Ok(output) if output.status.success() => {}
        why if std::env::var_os("TOWPATH_NO_SKIP").is_some() => panic!("no network namespace: {why:?}"),
        why => {
            println!("skipped: no network namespace, and so no CAP_NET_RAW: {why:?}");
            return false;
        }
    }
    let program = std::env::current_exe().unwrap();
    let output = Command::new("unshare")
        .args(arguments)
        .args(["sh", "-c", "ip link set lo up && exec \"$@\"", "sh"])
        .arg(program)
        .args(["--exact", test, "--nocapture"])
        .env("TOWPATH_TEST_NAMESPACE", "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("1 passed"), "{text}{}", String::from_utf8_lossy(&output.stderr));
    false
}

/// Runs ip(8).
pub(crate) fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split_whitespace()).status().unwrap();
    assert!(status.success(), "ip {arguments}");
}
