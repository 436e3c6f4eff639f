//! A child made by a bare fork(2) has none of its parent's workers: a call that would have to wait for them fails there
//! and names the process, in place of hanging. Whatever it does, its parent goes on.

mod common;

use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;

use towpath::net::{TcpListener, TcpStream};
use towpath::sync::channel::{self, RecvError, RecvTimeoutError, SendError};
use towpath::task::{self, JoinError, JoinHandle, unblock};
use towpath::time::{Duration, sleep};
use towpath::{Cancelled, is_cancelled, select, spawn};

use common::{PATIENCE, alone, on_thread, pair, until};

/// What `f` says in a forked child, which must come to its end, and the child's number.
fn in_child(f: impl FnOnce() -> String) -> (String, u32) {
    let (mut reader, writer) = io::pipe().unwrap();
    // SAFETY: the child goes on with what a fork leaves it: this thread. It allocates, which glibc has made safe, takes no
    // lock that another thread may have held, and ends without running anybody's destructors.
    let child = unsafe { libc::fork() };
    assert_ne!(child, -1, "{}", io::Error::last_os_error());
    if child == 0 {
        // SAFETY: the call sets a timer: a child that hangs dies of it.
        unsafe { libc::alarm(10) };
        let said = catch_unwind(AssertUnwindSafe(f)).unwrap_or_else(|_| "it panicked".to_owned());
        _ = (&writer).write_all(said.as_bytes());
        // SAFETY: the call ends the process.
        unsafe { libc::_exit(0) }
    }
    drop(OwnedFd::from(writer));
    let mut said = String::new();
    reader.read_to_string(&mut said).unwrap();
    let mut status = 0;
    // SAFETY: the child is ours, and the status outlives the call.
    assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
    assert!(libc::WIFEXITED(status), "the child died: status {status:#x}, said {said:?}");
    (said, child.cast_unsigned())
}

/// Asserts that each line of what a forked child said is the refusal of a call that would have waited.
fn all_refused((said, child): (String, u32)) {
    let refusal = format!(
        "the call would have to wait, and process {child} is a forked child without its parent's workers; call exec, or \
         use the library before any fork only in the parent"
    );
    let lines: Vec<_> = said.lines().collect();
    assert!(!lines.is_empty());
    for line in lines {
        let (what, text) = line.split_once(": ").unwrap_or((line, ""));
        assert_eq!(text, refusal, "{what}");
    }
}

fn io_text<T>(result: io::Result<T>) -> String {
    match result {
        Ok(_) => "it did not wait".to_owned(),
        Err(error) if is_cancelled(&error) => error.to_string(),
        Err(error) => format!("{error:?}"),
    }
}

fn text<T>(result: Result<T, Cancelled>) -> String {
    result.map_or_else(|cancelled| cancelled.to_string(), |_| "it did not wait".to_owned())
}

/// Makes each call that waits, in a forked child, and returns a line for each: its name and how it came out.
fn calls() -> (String, u32) {
    // Nobody has waited for these: a worker that is told of one just now holds a lock of it, for good in a child.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let _peer = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    while !common::has_event(&listener) {}
    let (stream, _) = listener.accept().unwrap();
    let silent = common::Silent::at([127, 0, 0, 1].into(), 0).unwrap();
    let (sender, receiver) = channel::bounded::<u32>(0);
    let (end, ends) = channel::bounded::<()>(0);
    let task = spawn(move || ends.recv());
    let said = in_child(|| {
        let mut lines = Vec::new();
        let mut say = |what: &str, text: String| lines.push(format!("{what}: {text}"));
        say("sleep", text(sleep(Duration::from_millis(1))));
        say("read", io_text((&stream).read(&mut [0; 16])));
        say("peek", io_text(stream.peek(&mut [0; 16])));
        say("accept", io_text(listener.accept()));
        say("connect", io_text(TcpStream::connect(silent.addr)));
        say("connect to a name", io_text(TcpStream::connect("localhost:1")));
        let received = receiver.recv().map_err(|error| match error {
            RecvError::Cancelled(cancelled) => cancelled,
            RecvError::Disconnected => unreachable!("there is a sender"),
        });
        say("recv", text(received));
        let received = receiver.recv_timeout(PATIENCE).map_err(|error| match error {
            RecvTimeoutError::Cancelled(cancelled) => cancelled,
            other => unreachable!("{other}"),
        });
        say("recv_timeout", text(received));
        let sent = sender.send(7).map_err(|error| match error {
            SendError::Cancelled(7, cancelled) => cancelled,
            other => unreachable!("{other}"),
        });
        say("send", text(sent));
        let selected = select! {
            recv(receiver) -> message => message.unwrap_err().to_string(),
            timeout(PATIENCE) => "it waited".to_owned(),
        };
        say("select", selected);
        let Err(JoinError::Cancelled(cancelled, task)) = task.join() else { return "it has joined".to_owned() };
        say("join", cancelled.to_string());
        let join = |spawned: JoinHandle<i32>| match spawned.join() {
            Err(JoinError::Cancelled(cancelled, _)) => cancelled.to_string(),
            other => format!("it ran: {other:?}"),
        };
        say("join of what it spawned", join(spawn(|| 7)));
        if task::current().is_some() {
            say("join of what it spawned here", join(task::spawn_local(|| 7)));
        }
        std::mem::forget(task);
        assert_eq!(task::dump().tasks().len(), 0);
        lines.join("\n")
    });
    drop(end);
    said
}

#[test]
fn a_forked_child_is_refused_what_would_wait() {
    alone("a_forked_child_is_refused_what_would_wait", || {
        let (stream, mut peer) = pair();
        let reading = spawn(move || (&stream).read(&mut [0; 16]).unwrap());
        all_refused(calls());
        // From a task, the child runs on the task's stack.
        all_refused(spawn(calls).join().unwrap());
        all_refused(on_thread(calls).join().unwrap());
        // The parent has not noticed.
        peer.write_all(b"hello").unwrap();
        assert_eq!(reading.join().unwrap(), 5);
    });
}

#[test]
fn a_forked_child_may_do_what_does_not_wait() {
    alone("a_forked_child_may_do_what_does_not_wait", || {
        let (stream, mut peer) = pair();
        let (sender, receiver) = channel::bounded::<u32>(1);
        spawn(|| ()).join().unwrap();
        peer.write_all(b"hello").unwrap();
        until(|| stream.peek(&mut [0; 16]).unwrap() == 5);
        let (said, child) = in_child(|| {
            let mut buf = [0; 16];
            let n = (&stream).read(&mut buf).unwrap();
            (&stream).write_all(b"from the child").unwrap();
            sender.send(7).unwrap();
            let received = receiver.recv().unwrap();
            format!("{} {received} {}", String::from_utf8_lossy(&buf[..n]), std::process::id())
        });
        assert_eq!(said, format!("hello 7 {child}"));
        let mut buf = [0; 14];
        peer.read_exact(&mut buf).unwrap();
        assert_eq!(&buf, b"from the child");
    });
}

#[test]
fn a_forked_child_that_drops_sockets_and_handles_leaves_its_parents_alone() {
    alone("a_forked_child_that_drops_sockets_and_handles_leaves_its_parents_alone", || {
        let test = || {
            let (mut stream, mut peer) = pair();
            let reader = stream.try_clone().unwrap();
            let reading = spawn(move || {
                let mut buf = [0; 5];
                for _ in 0..2 {
                    (&reader).read_exact(&mut buf).unwrap();
                }
            });
            peer.write_all(b"first").unwrap();
            let (said, _) = in_child(|| {
                // Not `close`: that ends the connection, whoever else has the descriptor.
                drop((stream.try_clone().unwrap(), peer.try_clone().unwrap(), channel::bounded::<()>(1)));
                drop(spawn(|| ()));
                "done".to_owned()
            });
            assert_eq!(said, "done");
            peer.write_all(b"again").unwrap();
            reading.join().unwrap();
            stream.write_all(b"x").unwrap();
            peer.read_exact(&mut [0]).unwrap();
        };
        test();
        spawn(test).join().unwrap();
    });
}

#[test]
fn a_child_forked_before_any_runtime_started_has_its_own() {
    alone("a_child_forked_before_any_runtime_started_has_its_own", || {
        let (said, _) = in_child(|| spawn(|| 6 * 7).join().unwrap().to_string());
        assert_eq!(said, "42");
        assert_eq!(spawn(|| 6 * 7).join().unwrap(), 42);
    });
}

#[test]
fn a_child_that_calls_exec_is_as_good_as_any() {
    alone("a_child_that_calls_exec_is_as_good_as_any", || {
        let output = spawn(|| unblock(|| Command::new("echo").arg("hello").output().unwrap()));
        assert_eq!(output.join().unwrap().stdout, b"hello\n");
    });
}

#[test]
fn a_descriptor_is_not_inherited_by_what_is_executed() {
    let (stream, _peer) = pair();
    let number = stream.as_raw_fd();
    let seen = Command::new("sh").arg("-c").arg(format!("test -e /proc/self/fd/{number}")).status().unwrap();
    assert_eq!(seen.code(), Some(1));
}
