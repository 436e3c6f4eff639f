//! The inspect endpoint: who may ask a program for its tasks, what comes back, and that nobody who asks badly, or too much,
//! or not at all does any harm.
//!
//! A process has one endpoint, so that each test here has a process of its own, with a folder of its own.

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tinyjson::JsonValue;
use towpath::net::TcpListener;
use towpath::{PollerKind, Runtime};

use common::{PATIENCE, child, descriptors, is_alone, must_pass, pollers, skip, until, watchdog};

/// Tells the process of a test which folder is its own.
const FOLDER: &str = "TOWPATH_TEST_FOLDER";

const REQUEST: &str = "{\"v\":1,\"dump\":{\"backtrace\":false}}\n";

/// Runs `body` in a process whose XDG_RUNTIME_DIR is a new folder, given to it, and asserts that no socket is left there.
fn alone_in_a_folder(name: &str, body: impl FnOnce(&Path)) {
    if is_alone(name) {
        let _watchdog = watchdog();
        return body(Path::new(&std::env::var_os(FOLDER).unwrap()));
    }
    let folder = new_folder(name);
    let mut command = child(name, &[]);
    command.env(FOLDER, &folder).env("XDG_RUNTIME_DIR", &folder).env_remove("TOWPATH_INSPECT");
    must_pass(command);
    assert_eq!(sockets(&folder.join("towpath")), Vec::<PathBuf>::new(), "left behind");
    fs::remove_dir_all(&folder).unwrap();
}

fn new_folder(name: &str) -> PathBuf {
    // Short, for a socket's path is, and where other users may pass.
    let folder = PathBuf::from(format!("/tmp/tp-{}-{}", std::process::id(), &name[..name.len().min(24)]));
    fs::create_dir(&folder).unwrap();
    folder
}

fn sockets(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path()).collect()
}

fn socket(folder: &Path) -> PathBuf {
    folder.join("towpath").join(format!("{}.sock", std::process::id()))
}

/// All that comes back for what is said.
fn ask(path: &Path, request: &str) -> String {
    let mut stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// How many tasks are told of, after everything that must be so of an answer.
fn tasks(answer: &str) -> usize {
    let lines: Vec<JsonValue> = answer.lines().map(|line| line.parse().unwrap()).collect();
    let number = |of: &JsonValue, name: &str| *of[name].get::<f64>().unwrap_or_else(|| panic!("{name}: {answer}"));
    assert_eq!((number(&lines[0], "v"), number(&lines[0], "pid")), (1.0, f64::from(std::process::id())));
    assert_eq!(number(&lines[0], "tasks") as usize, lines.len() - 1);
    lines.len() - 1
}

fn error(answer: &str) -> String {
    let line: JsonValue = answer.parse().unwrap_or_else(|_| panic!("{answer:?}"));
    line["error"].get::<String>().unwrap_or_else(|| panic!("{answer:?}")).clone()
}

/// A runtime that may be asked, with `count` tasks that accept until their listener is closed.
fn house(poller: PollerKind, count: usize) -> (Runtime, TcpListener) {
    let runtime = Runtime::builder().workers(2).poller(poller).inspect(true).build().unwrap();
    let listener = runtime.run(|| TcpListener::bind("127.0.0.1:0").unwrap());
    for _ in 0..count {
        let listener = listener.try_clone().unwrap();
        drop(runtime.spawn(move || drop(listener.accept())));
    }
    let waits = || runtime.dump().tasks().iter().filter(|task| task.operation() == Some("accept")).count();
    until(|| waits() == count);
    (runtime, listener)
}

fn close((runtime, listener): (Runtime, TcpListener)) {
    listener.close().unwrap();
    runtime.shutdown(PATIENCE).unwrap();
}

#[test]
fn the_same_user_is_told_of_every_task() {
    alone_in_a_folder("the_same_user_is_told_of_every_task", |folder| {
        for poller in pollers() {
            let house = house(poller, 3);
            let answer = ask(&socket(folder), REQUEST);
            assert_eq!(tasks(&answer), 3);
            let addr = house.1.local_addr().unwrap();
            let waits =
                format!("\"state\":\"waiting\",\"op\":\"accept\",\"fd\":{},\"local\":\"{addr}\"", house.1.as_raw_fd());
            assert_eq!(answer.matches(&waits).count(), 3, "{answer}");
            assert!(!answer.contains("\"backtrace\""));
            let traced = ask(&socket(folder), "{\"v\":1,\"dump\":{\"backtrace\":true,\"later\":[]}}\n");
            assert_eq!(traced.matches("\"backtrace\":[\"").count(), 3, "{traced}");
            close(house);
            assert!(!socket(folder).exists());
        }
    });
}

#[test]
fn a_user_outside_the_programs_pid_namespace_is_told_too() {
    let name = "a_user_outside_the_programs_pid_namespace_is_told_too";
    if is_alone(name) {
        let _watchdog = watchdog();
        let folder = PathBuf::from(std::env::var_os(FOLDER).unwrap());
        let house = house(PollerKind::Os, 3);
        until(|| folder.join("asked").exists());
        return close(house);
    }
    let own_pids = ["unshare", "--map-root-user", "--pid", "--fork"];
    if !Command::new(own_pids[0]).args(&own_pids[1..]).arg("true").output().is_ok_and(|done| done.status.success()) {
        return skip("this system gives no PID namespaces");
    }
    let folder = new_folder(name);
    let mut command = child(name, &own_pids);
    command.env(FOLDER, &folder).env("XDG_RUNTIME_DIR", &folder);
    std::thread::scope(|scope| {
        let program = scope.spawn(move || must_pass(command));
        // It is the first in there.
        let socket = folder.join("towpath/1.sock");
        let tasks =
            || UnixStream::connect(&socket).is_ok() && ask(&socket, REQUEST).matches("\"op\":\"accept\"").count() == 3;
        until(|| program.is_finished() || tasks());
        fs::write(folder.join("asked"), "").unwrap();
        program.join().unwrap();
    });
    fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn nobody_is_told_unless_the_program_or_its_environment_says_so() {
    alone_in_a_folder("nobody_is_told_unless_the_program_or_its_environment_says_so", |folder| {
        let is_there = |builder: towpath::Builder| {
            let runtime = builder.workers(1).build().unwrap();
            let there = UnixStream::connect(socket(folder)).is_ok();
            runtime.shutdown(PATIENCE).unwrap();
            assert!(!socket(folder).exists());
            there
        };
        assert!(!is_there(Runtime::builder()));
        assert!(is_there(Runtime::builder().inspect(true)));
        // SAFETY: no other thread reads or writes the environment at this moment.
        unsafe { std::env::set_var("TOWPATH_INSPECT", "1") };
        assert!(is_there(Runtime::builder()));
        assert!(!is_there(Runtime::builder().inspect(false)));
    });
}

#[test]
fn several_runtimes_share_one_endpoint_that_goes_with_the_last() {
    alone_in_a_folder("several_runtimes_share_one_endpoint_that_goes_with_the_last", |folder| {
        let [first, second] = [2, 1].map(|count| house(PollerKind::Os, count));
        let quiet = Runtime::builder().workers(1).build().unwrap();
        let rests = quiet.spawn(|| towpath::time::sleep(Duration::from_millis(10)));
        assert_eq!(sockets(&folder.join("towpath")), [socket(folder)]);
        assert_eq!(tasks(&ask(&socket(folder), REQUEST)), 3, "those of the runtimes that opted in");
        close(first);
        assert_eq!(tasks(&ask(&socket(folder), REQUEST)), 1);
        close(second);
        assert!(!socket(folder).exists());
        rests.join().unwrap().unwrap();
        let again = house(PollerKind::Os, 1);
        assert_eq!(tasks(&ask(&socket(folder), REQUEST)), 1);
        close(again);
    });
}

#[test]
fn tasks_that_hold_up_every_worker_hold_up_no_answer() {
    alone_in_a_folder("tasks_that_hold_up_every_worker_hold_up_no_answer", |folder| {
        let house = house(PollerKind::Os, 2);
        let over = Arc::new(AtomicBool::new(false));
        let (tell, told) = std::sync::mpsc::channel();
        for _ in 0..8 {
            let (over, tell) = (over.clone(), tell.clone());
            drop(house.0.spawn(move || {
                tell.send(std::thread::current().id()).unwrap();
                while !over.load(Ordering::Relaxed) {
                    std::thread::yield_now();
                }
            }));
        }
        assert_ne!(told.recv().unwrap(), told.recv().unwrap());
        let answer = ask(&socket(folder), "{\"v\":1,\"dump\":{\"backtrace\":true}}\n");
        assert_eq!(tasks(&answer), 10);
        assert_eq!(answer.matches("\"state\":\"running\"").count(), 2);
        assert!(answer.lines().next().unwrap().contains("\"silent\":[\"towpath-0\",\"towpath-1\"]"), "{answer}");
        over.store(true, Ordering::Relaxed);
        close(house);
    });
}

#[test]
fn what_is_no_request_is_told_so() {
    alone_in_a_folder("what_is_no_request_is_told_so", |folder| {
        let house = house(PollerKind::Os, 1);
        assert!(error(&ask(&socket(folder), "GET / HTTP/1.0\r\n\r\n")).contains("not JSON"));
        assert!(error(&ask(&socket(folder), "{\"v\":7,\"dump\":{}}\n")).contains("version 1"));
        assert!(error(&ask(&socket(folder), "{\"v\":1}\n")).contains("\"dump\""));
        let nested = format!("{}\n", "[".repeat(4000));
        assert!(error(&ask(&socket(folder), &nested)).contains("not JSON"));
        // One that ends without a line's end is one all the same; one that never comes is waited for, for a while.
        let mut stream = UnixStream::connect(socket(folder)).unwrap();
        stream.write_all(REQUEST.trim_end().as_bytes()).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert_eq!(tasks(&answer), 1);
        assert!(error(&ask(&socket(folder), "{\"v\":1,")).contains("no request came"));
        close(house);
    });
}

#[test]
fn those_who_ask_badly_keep_nobody_from_an_answer() {
    alone_in_a_folder("those_who_ask_badly_keep_nobody_from_an_answer", |folder| {
        let path = socket(folder);
        let house = house(PollerKind::Os, 50);
        let asked = || assert_eq!(tasks(&ask(&path, REQUEST)), 50);
        asked();
        let (threads, before) = (thread_count(), descriptors());

        // A thousand who say nothing.
        let silent: Vec<_> = (0..1000).map(|_| UnixStream::connect(&path).unwrap()).collect();
        asked();
        // Those who ask for more than they read: the answers do not fit between the two.
        let greedy: Vec<_> = (0..40)
            .map(|_| {
                let mut stream = UnixStream::connect(&path).unwrap();
                rustix::net::sockopt::set_socket_recv_buffer_size(&stream, 1).unwrap();
                stream.write_all(b"{\"v\":1,\"dump\":{\"backtrace\":true}}\n").map(|()| stream)
            })
            .collect();
        asked();
        // One that sends without an end, until it is shown the door.
        let mut flood = UnixStream::connect(&path).unwrap();
        flood.set_write_timeout(Some(PATIENCE)).unwrap();
        let mut sent = 0;
        let refused = loop {
            match flood.write(&[b'x'; 65536]) {
                Ok(n) => sent += n,
                Err(error) => break error,
            }
        };
        assert!(sent < 64 << 20, "{sent} bytes were taken");
        assert!(matches!(refused.raw_os_error(), Some(libc::EPIPE | libc::ECONNRESET)), "{refused}");
        asked();
        // And those who leave at once, in the middle of what they say, or of what they are told.
        for cut in [0, 1, 10, REQUEST.len()] {
            for _ in 0..20 {
                let mut stream = UnixStream::connect(&path).unwrap();
                stream.write_all(&REQUEST.as_bytes()[..cut]).unwrap();
            }
        }
        asked();
        drop((silent, greedy, flood));
        until(|| thread_count() <= threads && descriptors().len() <= before.len());
        close(house);
    });
}

fn thread_count() -> usize {
    fs::read_dir("/proc/self/task").unwrap().count()
}

#[test]
fn another_user_is_refused_even_where_the_folder_lets_it_in() {
    alone_in_a_folder("another_user_is_refused_even_where_the_folder_lets_it_in", |folder| {
        if !rustix::process::geteuid().is_root() {
            return skip("only root can be another user");
        }
        let path = socket(folder);
        let house = house(PollerKind::Os, 1);
        assert!(as_nobody(&path).contains("Permission denied"), "{}", as_nobody(&path));
        for (opened, mode) in [(&folder.join("towpath"), 0o755), (&path, 0o777)] {
            fs::set_permissions(opened, fs::Permissions::from_mode(mode)).unwrap();
        }
        assert!(error(&as_nobody(&path)).contains("only the user of this program and root"));
        assert_eq!(tasks(&ask(&path, REQUEST)), 1);
        close(house);
    });
}

/// What another user is told, or the error of its connecting.
fn as_nobody(path: &Path) -> String {
    let (mut reader, writer) = std::io::pipe().unwrap();
    // SAFETY: the child goes on with what a fork leaves it, this thread, takes no lock that another may have held, and ends
    // without running anybody's destructors.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: the call changes the child's ids, for good.
        unsafe { libc::setresgid(65534, 65534, 65534) };
        // SAFETY: as above.
        unsafe { libc::setresuid(65534, 65534, 65534) };
        let said = UnixStream::connect(path).and_then(|mut stream| {
            _ = stream.write_all(REQUEST.as_bytes()); // it may have been shown the door by now
            // The line alone: what follows is an error where the request was left unread (unix(7)).
            let mut answer = String::new();
            BufReader::new(stream).read_line(&mut answer).map(|_| answer)
        });
        _ = (&writer).write_all(said.unwrap_or_else(|error| error.to_string()).as_bytes());
        // SAFETY: the call ends the process.
        unsafe { libc::_exit(0) }
    }
    drop(OwnedFd::from(writer));
    let mut said = String::new();
    reader.read_to_string(&mut said).unwrap();
    // SAFETY: the child is ours, and its status is not asked for.
    unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
    said
}

#[test]
fn a_folder_that_others_could_have_made_or_enter_is_refused() {
    alone_in_a_folder("a_folder_that_others_could_have_made_or_enter_is_refused", |folder| {
        let own = folder.join("towpath");
        let refused = |why: &str| {
            let error = Runtime::builder().workers(1).inspect(true).build().expect_err(why).to_string();
            assert!(error.contains(why) && error.contains(&*own.to_string_lossy()), "{error}");
        };
        fs::write(&own, "").unwrap();
        refused("is not a folder");
        fs::remove_file(&own).unwrap();
        let elsewhere = folder.join("elsewhere");
        fs::DirBuilder::new().mode(0o700).create(&elsewhere).unwrap();
        symlink(&elsewhere, &own).unwrap();
        refused("is not a folder");
        fs::remove_file(&own).unwrap();
        fs::DirBuilder::new().create(&own).unwrap();
        fs::set_permissions(&own, fs::Permissions::from_mode(0o750)).unwrap();
        refused("lets others in (mode 750");
        fs::set_permissions(&own, fs::Permissions::from_mode(0o700)).unwrap();
        if rustix::process::geteuid().is_root() {
            chown(&own, Some(65534), None).unwrap();
            refused("belongs to user 65534");
        }
        // Whom only the environment makes wish for it, it does not keep from running.
        fs::set_permissions(&own, fs::Permissions::from_mode(0o777)).unwrap();
        // SAFETY: no other thread reads or writes the environment at this moment.
        unsafe { std::env::set_var("TOWPATH_INSPECT", "1") };
        let runtime = Runtime::builder().workers(1).build().unwrap();
        assert_eq!(runtime.run(|| 7), 7);
        runtime.shutdown(PATIENCE).unwrap();
    });
}

#[test]
fn a_path_that_no_socket_can_have_is_told() {
    alone_in_a_folder("a_path_that_no_socket_can_have_is_told", |folder| {
        let long = folder.join("x".repeat(100));
        fs::create_dir(&long).unwrap();
        // SAFETY: no other thread reads or writes the environment at this moment.
        unsafe { std::env::set_var("XDG_RUNTIME_DIR", &long) };
        let error = Runtime::builder().workers(1).inspect(true).build().expect_err("too long").to_string();
        assert!(error.contains("107 bytes") && error.contains("XDG_RUNTIME_DIR"), "{error}");
    });
}

#[test]
fn what_programs_that_were_killed_left_behind_is_removed() {
    alone_in_a_folder("what_programs_that_were_killed_left_behind_is_removed", |folder| {
        let own = folder.join("towpath");
        fs::DirBuilder::new().mode(0o700).create(&own).unwrap();
        let mut ended = Command::new("true").spawn().unwrap();
        ended.wait().unwrap();
        let stale = [socket(folder), own.join(format!("{}.sock", ended.id()))];
        stale.iter().for_each(|path| drop(UnixListener::bind(path).unwrap()));
        // Of what somebody still answers at, or is not a dead program's, nothing is taken away.
        let live = own.join(format!("{}.sock", u32::MAX / 2));
        let listens = UnixListener::bind(&live).unwrap();
        let others = ["notes", "-5.sock"].map(|name| own.join(name));
        others.iter().for_each(|path| fs::write(path, "").unwrap());
        let house = house(PollerKind::Os, 1);
        assert_eq!(tasks(&ask(&socket(folder), REQUEST)), 1);
        let mut left = sockets(&own);
        left.sort_unstable();
        let [notes, group] = others;
        let mut expected = [socket(folder), live.clone(), notes, group];
        expected.sort_unstable();
        assert_eq!(left, expected);
        drop(listens);
        [live, own.join("notes"), own.join("-5.sock")].iter().for_each(|path| fs::remove_file(path).unwrap());
        close(house);
    });
}

#[test]
fn a_process_that_exits_leaves_no_socket() {
    // `alone_in_a_folder` looks, once the process has ended: by exit(3), with its runtime still there.
    alone_in_a_folder("a_process_that_exits_leaves_no_socket", |folder| {
        let house = house(PollerKind::Os, 1);
        assert_eq!(tasks(&ask(&socket(folder), REQUEST)), 1);
        std::mem::forget(house);
    });
}

#[test]
fn a_forked_child_neither_keeps_the_endpoint_nor_takes_it_away() {
    alone_in_a_folder("a_forked_child_neither_keeps_the_endpoint_nor_takes_it_away", |folder| {
        let path = socket(folder);
        let house = house(PollerKind::Os, 1);
        let (reader, writer) = std::io::pipe().unwrap();
        let (mut said, says) = std::io::pipe().unwrap();
        // SAFETY: the child makes system calls alone, and ends.
        let child = unsafe { libc::fork() };
        if child == 0 {
            drop(writer);
            _ = (&says).write_all(&[1]);
            _ = (&reader).read(&mut [0]); // until the parent has closed its end
            // SAFETY: the call ends the process, with the handlers of exit(3).
            unsafe { libc::exit(0) }
        }
        said.read_exact(&mut [0]).unwrap();
        // Connections that the child has no part in, with the child there: an answer has an end.
        assert_eq!(tasks(&ask(&path, REQUEST)), 1);
        let listens = |pid: i32| {
            // The kernel knows it by the name that it was bound to; one that was accepted from it has that name too.
            let bound = path.with_file_name(format!("{}.new", std::process::id()));
            let sockets = fs::read_to_string("/proc/self/net/unix").unwrap();
            let listens = |line: &&str| {
                let columns: Vec<_> = line.split_whitespace().collect();
                columns.get(3) == Some(&"00010000") && columns.get(7).is_some_and(|name| bound.as_os_str() == *name)
            };
            let row = sockets.lines().find(listens).expect("it listens");
            let inode = row.split_whitespace().nth(6).expect("proc(5): net/unix").to_owned();
            let fds = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
            let links = fds.filter_map(|fd| fs::read_link(fd.unwrap().path()).ok());
            links.filter(|link| link.to_string_lossy() == format!("socket:[{inode}]")).count()
        };
        assert_eq!(listens(std::process::id().cast_signed()), 1, "the parent listens");
        assert_eq!(listens(child), 0, "the child does not");
        drop(writer);
        // SAFETY: the child is ours, and its status is not asked for.
        unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
        assert_eq!(tasks(&ask(&path, REQUEST)), 1, "the child has exited, and the socket is still there");
        close(house);
    });
}

#[test]
fn an_answer_comes_line_by_line_however_slowly_it_is_read() {
    alone_in_a_folder("an_answer_comes_line_by_line_however_slowly_it_is_read", |folder| {
        let house = house(PollerKind::Os, 300);
        let mut stream = UnixStream::connect(socket(folder)).unwrap();
        stream.write_all(REQUEST.as_bytes()).unwrap();
        let lines = BufReader::with_capacity(64, stream).lines().map(Result::unwrap);
        let slowly = lines.inspect(|_| std::thread::yield_now());
        assert_eq!(slowly.count(), 301);
        close(house);
    });
}
