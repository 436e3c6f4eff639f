//! `towpath tasks`: what it shows of a program that runs, and how it fails.

mod common;

use std::fs;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use serde_json::Value;

use common::terminal::OnTerminal;
use common::{Finished, PATIENCE, Running, assert_has, dial, missing, skipped, towpath};

/// A folder for sockets that no other test looks into. It goes with this.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let folder = PathBuf::from(format!("/tmp/tpc-{}-{name}", std::process::id()));
        for part in ["", "run", "run/me", "tmp"] {
            fs::create_dir(folder.join(part)).unwrap();
        }
        fs::set_permissions(folder.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
        Folder(folder)
    }

    /// The command, for which this is all there is of folders.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = towpath(arguments);
        self.settle(&mut command);
        command
    }

    fn settle(&self, command: &mut Command) {
        command.env("XDG_RUNTIME_DIR", self.own()).env("TMPDIR", self.0.join("tmp")).env_remove("TOWPATH_INSPECT");
        command.env("LC_ALL", "C.UTF-8");
    }

    /// XDG_RUNTIME_DIR.
    fn own(&self) -> PathBuf {
        self.0.join("run/me")
    }

    fn serve(&self, options: &[&str]) -> (Running, std::net::SocketAddr) {
        let mut server = Running::start(self.command(&[&["serve", "127.0.0.1:0"], options].concat()));
        let addr = server.address();
        (server, addr)
    }

    fn run(&self, arguments: &[&str]) -> Finished {
        let mut running = Running::start(self.command(arguments));
        running.end_input();
        running.finish()
    }

    fn socket(&self, pid: u32) -> PathBuf {
        self.own().join("towpath").join(format!("{pid}.sock"))
    }

    /// A socket at which this process seems to be a program, that says nothing.
    fn silent(&self) -> (UnixListener, PathBuf) {
        _ = fs::DirBuilder::new().mode(0o700).create(self.own().join("towpath"));
        let path = self.socket(std::process::id());
        (UnixListener::bind(&path).unwrap(), path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        _ = fs::remove_dir_all(&self.0);
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn each_connection_of_a_server_is_shown_with_its_peer() {
    let folder = Folder::new("peers");
    let (mut server, addr) = folder.serve(&["--echo"]);
    let clients: Vec<_> = (0..3).map(|_| dial(addr, &[])).collect();
    let peers: Vec<String> =
        (0..3).map(|_| server.wait_for("connected").split_whitespace().nth(1).unwrap().to_owned()).collect();
    let pid = server.id().to_string();
    let waits = |finished: &Finished, peer: &str| {
        let line = finished.stdout.lines().find(|line| line.contains(&format!("{addr} → {peer}")));
        line.is_some_and(|line| line.contains("  waiting  read  "))
    };
    // By its number, by its socket, and as the only one that there is. A task has been accepted a moment before it waits.
    let by_socket = folder.socket(server.id());
    let deadline = Instant::now() + PATIENCE;
    loop {
        let finished = folder.run(&["tasks", &pid]);
        assert_eq!((finished.code, &*finished.stderr), (Some(0), ""));
        if peers.iter().all(|peer| waits(&finished, peer)) {
            break;
        }
        assert!(Instant::now() < deadline, "{finished:?}");
    }
    drop(folder.silent()); // what a program that was killed left behind is none
    for finished in [folder.run(&["tasks", text(&by_socket)]), folder.run(&["tasks"])] {
        assert_eq!(finished.code, Some(0), "{finished:?}");
        let mut lines = finished.stdout.lines();
        let first = lines.next().unwrap();
        assert!(first.starts_with(&format!("towpath {pid}: ")) && first.contains(" tasks, "), "{first}");
        assert!(lines.next().unwrap().starts_with("TASK "));
        assert!(peers.iter().all(|peer| waits(&finished, peer)), "{finished:?}");
        let accepts = finished.stdout.lines().find(|line| line.contains("  accept  "));
        assert!(accepts.is_some_and(|line| line.contains(&format!("  {addr}  "))), "{finished:?}");
    }
    drop(clients);
}

#[test]
fn json_is_an_object_a_task() {
    let folder = Folder::new("json");
    let (mut server, addr) = folder.serve(&["--echo"]);
    let _client = dial(addr, &[]);
    let peer = server.wait_for("connected").split_whitespace().nth(1).unwrap().to_owned();
    let lines = || -> Vec<Value> {
        let finished = folder.run(&["tasks", "--json"]);
        assert_eq!((finished.code, &*finished.stderr), (Some(0), ""));
        finished.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let deadline = Instant::now() + PATIENCE;
    let (lines, reads) = loop {
        let lines = lines();
        if let Some(reads) = lines.iter().find(|line| line["op"] == "read").cloned() {
            break (lines, reads);
        }
        assert!(Instant::now() < deadline, "{lines:?}");
    };
    assert_eq!((&lines[0]["ev"], &lines[0]["program"]), (&"program".into(), &"towpath".into()));
    assert_eq!(lines[0]["pid"], server.id());
    assert_eq!(lines[0]["tasks"], lines.len() - 1);
    assert!(lines.iter().all(|line| line["v"] == 1 && line["time"].is_string()));
    assert!(lines[1..].iter().all(|line| line["ev"] == "task" && line["pid"] == server.id()));
    assert_eq!((&reads["local"], &reads["peer"]), (&addr.to_string().into(), &peer.into()));
    assert!(reads["cookie"].as_u64().is_some_and(|cookie| cookie > 0));
    assert!(reads["since_us"].is_u64() && reads["stack_in_use"].is_u64());
    assert!(reads.get("backtrace").is_none());
}

#[test]
fn a_backtrace_stands_under_its_task() {
    let folder = Folder::new("trace");
    let (mut server, addr) = folder.serve(&["--echo"]);
    let _client = dial(addr, &[]);
    server.wait_for("connected");
    let finished = folder.run(&["tasks", "--backtrace"]);
    assert_eq!(finished.code, Some(0));
    let under = finished.stdout.lines().skip_while(|line| !line.contains("  accept  ")).skip(1);
    let frames: Vec<_> = under.take_while(|line| line.starts_with("      ")).collect();
    assert!(frames.iter().any(|frame| frame.contains("towpath::serve::run")), "{finished:?}");
}

#[test]
fn where_there_is_nobody_to_ask_one_is_told_how_to_opt_in() {
    let folder = Folder::new("none");
    let none = folder.run(&["tasks"]);
    assert_eq!(none.code, Some(3), "{none:?}");
    assert!(none.stderr.contains("TOWPATH_INSPECT=1") && none.stderr.contains("Builder::inspect"), "{none:?}");

    // Empty is as good as unset.
    let mut command = folder.command(&["serve", "127.0.0.1:0"]);
    command.env("TOWPATH_INSPECT", "");
    let mut server = Running::start(command);
    server.address();
    assert_eq!(folder.run(&["tasks", &server.id().to_string()]).code, Some(0));
    drop(server);
    // A server that was told not to, a process that has nothing to do with it, one that is not there, a path of nothing.
    let mut command = folder.command(&["serve", "127.0.0.1:0"]);
    command.env("TOWPATH_INSPECT", "0");
    let mut server = Running::start(command);
    server.address();
    let mut other = Command::new("sleep").arg("60").spawn().unwrap();
    let mut gone = Command::new("true").spawn().unwrap();
    gone.wait().unwrap();
    let nowhere = text(&folder.socket(7)).to_owned();
    for target in [&server.id().to_string(), &other.id().to_string(), &gone.id().to_string(), &nowhere] {
        let finished = folder.run(&["tasks", target]);
        assert_eq!(finished.code, Some(3), "{finished:?}");
        assert!(finished.stderr.contains(target.as_str()), "{finished:?}");
        let hint = if *target == gone.id().to_string() { "no such process" } else { "TOWPATH_INSPECT=1" };
        assert!(finished.stderr.contains(hint), "{finished:?}");
    }
    other.kill().unwrap();
    other.wait().unwrap();
    // What a program that was killed left behind is nobody.
    drop(folder.silent());
    assert_eq!(folder.run(&["tasks"]).code, Some(3));
}

#[test]
fn several_programs_are_listed() {
    let folder = Folder::new("two");
    let (first, _) = folder.serve(&[]);
    let (second, _) = folder.serve(&[]);
    let finished = folder.run(&["tasks"]);
    assert_eq!((finished.code, &*finished.stdout), (Some(2), ""));
    for server in [&first, &second] {
        assert!(finished.stderr.contains(&format!("{} (towpath)", server.id())), "{finished:?}");
    }
    assert!(finished.stderr.contains("try: towpath tasks "), "{finished:?}");
    assert_eq!(folder.run(&["tasks", &second.id().to_string()]).code, Some(0));
}

#[test]
fn a_program_that_does_not_answer_is_given_up() {
    let folder = Folder::new("silent");
    let (_listens, path) = folder.silent();
    for arguments in
        [&["tasks", text(&path), "-w", "100ms"][..], &["tasks", "-w", "100ms"], &["tasks", "--json", "-w", "100ms"]]
    {
        let finished = folder.run(arguments);
        assert_eq!(finished.code, Some(4), "{finished:?}");
        let said = if arguments.contains(&"--json") { &finished.stdout } else { &finished.stderr };
        assert!(said.contains("does not answer in time"), "{finished:?}");
        assert!(said.contains(&format!("ps -o stat,wchan,cmd {}", std::process::id())), "{finished:?}");
    }
    // Of a socket that is not named after a process, there is no more to say.
    let nameless = folder.0.join("socket");
    let _listens = UnixListener::bind(&nameless).unwrap();
    let finished = folder.run(&["tasks", text(&nameless), "-w", "100ms"]).expect_code(4);
    assert!(!finished.stderr.contains("ps -o"), "{finished:?}");
}

/// Why a test cannot have programs of several users.
fn not_root() -> Option<&'static str> {
    (!rustix::process::geteuid().is_root()).then_some("only root can be another user")
}

#[test]
fn a_program_that_has_no_number_here_is_asked_all_the_same() {
    if skipped(not_root().map(str::to_owned).or_else(|| missing("unshare")).as_deref()) {
        return;
    }
    let folder = Folder::new("apart");
    let (server, addr) = folder.serve(&[]);
    let socket = folder.socket(server.id());
    for target in [&[text(&socket)][..], &[]] {
        let mut inside = Command::new("unshare");
        inside.args(["--pid", "--fork", "--mount-proc", common::TOWPATH, "tasks"]).args(target);
        folder.settle(&mut inside);
        let mut running = Running::start(inside);
        running.end_input();
        let finished = running.finish().expect_code(0);
        assert!(finished.stdout.starts_with(&format!("towpath {}: ", server.id())), "{finished:?}");
        assert_has(&finished.stdout, &format!("  {addr}  "));
    }
}

#[test]
fn a_socket_of_the_same_name_in_another_users_folder_is_not_taken_for_it() {
    if skipped(not_root()) {
        return;
    }
    let folder = Folder::new("taken");
    let copy = folder.0.join("towpath-copy");
    common::copy_to(&copy);
    // The other user's folder comes first, and a program of that user's listens there.
    let theirs = folder.0.join("run/they");
    fs::create_dir(&theirs).unwrap();
    chown(&theirs, Some(65534), Some(65534)).unwrap();
    let mut command = Command::new(&copy);
    folder.settle(command.args(["serve", "127.0.0.1:0"]).uid(65534).gid(65534));
    command.env("XDG_RUNTIME_DIR", &theirs);
    let mut other = Running::start(command);
    other.address();
    let mut command = folder.command(&["serve", "127.0.0.1:0"]);
    command.env("XDG_RUNTIME_DIR", folder.0.join("none"));
    let mut server = Running::start(command);
    let addr = server.address();
    let own = theirs.join(format!("towpath/{}.sock", other.id()));
    fs::rename(own, theirs.join(format!("towpath/{}.sock", server.id()))).unwrap();

    for target in [&[&*server.id().to_string()][..], &[]] {
        let finished = folder.run(&[&["tasks"], target].concat()).expect_code(0);
        assert!(finished.stdout.starts_with(&format!("towpath {}: ", server.id())), "{finished:?}");
        assert_has(&finished.stdout, &format!("  {addr}  "));
    }
    // Who names it is told whose it is.
    let named = theirs.join(format!("towpath/{}.sock", server.id()));
    let finished = folder.run(&["tasks", text(&named)]).expect_code(0);
    assert!(finished.stdout.starts_with(&format!("towpath-copy {}: ", other.id())), "{finished:?}");
}

#[test]
fn what_is_another_users_is_no_permission() {
    if skipped(not_root()) {
        return;
    }
    let folder = Folder::new("other");
    let (server, _) = folder.serve(&[]);
    // The binary lies where not every user may look.
    let copy = folder.0.join("towpath-copy");
    common::copy_to(&copy);
    let pid = server.id().to_string();
    for target in [&pid, text(&folder.socket(server.id()))] {
        let mut command = Command::new(&copy);
        folder.settle(command.args(["tasks", target]).uid(65534).gid(65534));
        let mut running = Running::start(command);
        running.end_input();
        let finished = running.finish();
        assert_eq!(finished.code, Some(77), "{finished:?}");
        assert!(finished.stderr.contains("sudo towpath tasks"), "{finished:?}");
    }
    // Root is told of others' programs.
    drop(server);
    let mut command = Command::new(&copy);
    folder.settle(command.args(["serve", "127.0.0.1:0"]).uid(65534).gid(65534));
    let mut server = Running::start(command);
    server.address();
    let finished = folder.run(&["tasks", &server.id().to_string()]);
    assert_eq!(finished.code, Some(0), "{finished:?}");
    assert!(finished.stdout.starts_with(&format!("towpath-copy {}: ", server.id())), "{finished:?}");
}

#[test]
fn on_a_terminal_rows_fit_its_width() {
    let folder = Folder::new("narrow");
    let (server, addr) = folder.serve(&[]);
    let mut client = dial(addr, &[]);
    client.wait_for("connected");
    for (columns, has, has_not) in [(80, "SINCE", "WORKER"), (40, "ON", "COOKIE")] {
        let arguments = ["tasks", &server.id().to_string()];
        let terminal = OnTerminal::start(&arguments, (columns, 24), |command| folder.settle(command));
        let (status, screen) = terminal.finish();
        assert!(status.success() && screen.contains("accept"), "{screen}");
        let header = screen.lines().nth(1).unwrap();
        assert!(header.starts_with("TASK") && header.contains(has) && !header.contains(has_not), "{screen}");
        // What would not fit would go on in another line.
        let rows = screen.lines().skip(2).filter(|line| !line.is_empty());
        assert!(rows.clone().count() > 1 && rows.clone().all(|row| row.starts_with('#')), "{screen}");
    }
}

#[test]
fn a_server_that_cannot_be_asked_says_so_and_serves() {
    let folder = Folder::new("closed");
    fs::write(folder.own().join("towpath"), "").unwrap();
    let mut server = Running::start(folder.command(&["serve", "127.0.0.1:0"]));
    let line = server.wait_for("towpath tasks cannot ask this program");
    assert!(line.contains("is not a folder"), "{line}");
    let addr = server.address();
    let mut client = dial(addr, &[]);
    client.wait_for("connected");
}
