//! Programs that let themselves be asked for their tasks: where their endpoints are, and what they answer.
//!
//! The library documents both (`towpath::Builder::inspect`, `towpath::task::TaskDump::write_json`). An answer is a
//! stranger's: fields that are not known are passed over, those that are missing are left open, and there is a bound to
//! its length, to the memory and to the time that it may take. Whose it is, the kernel says and not the answer: at a socket
//! that was found in a user's folder, only the process of its name answers, as that user. Everything here blocks; tasks call
//! it through `unblock`.

#![forbid(unsafe_code)]

use std::collections::HashSet;
use std::env;
use std::fs;
use std::io::{self, BufRead as _, BufReader, ErrorKind, Read, Write as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::geteuid;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::exit::{Exit, Failure, reason};
use crate::kernel::{self, Peer};

/// The version of the questions and answers.
const VERSION: u32 = 1;
/// An answer's bytes, at most.
const LONGEST: u64 = 1 << 30;
/// Those of one of its lines.
const LONGEST_LINE: u64 = 1 << 20;
/// How many tasks it may tell of.
const MOST_TASKS: usize = 2_000_000;
/// What they may take in memory, where a short line becomes a long task.
const MOST_ROOM: usize = 2 << 30;

/// A place where a program may be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// The program's process, by the name of the socket.
    pub(crate) pid: Option<u32>,
    /// Whose folder the socket was found in; then nobody but that process of this user's may answer. None if somebody
    /// named the socket, who wants to hear whoever answers.
    pub(crate) owner: Option<u32>,
    path: PathBuf,
}

/// How much memory answers may still take.
#[derive(Debug)]
pub(crate) struct Room(AtomicUsize);

/// What a program answers.
#[derive(Debug, Clone)]
pub(crate) struct Dump {
    /// As the kernel has it, or else the socket's name; the answer's own word where neither tells.
    pub(crate) pid: u32,
    pub(crate) program: String,
    pub(crate) workers: usize,
    /// Workers that a task holds up, so that they told nothing of theirs.
    pub(crate) silent: Vec<String>,
    pub(crate) tasks: Vec<Task>,
}

/// The first line of an answer.
#[derive(Debug, Deserialize)]
struct Head {
    v: u32,
    error: Option<String>,
    #[serde(default)]
    pid: u32,
    #[serde(default)]
    program: String,
    #[serde(default)]
    workers: usize,
    #[serde(default)]
    tasks: usize,
    #[serde(default)]
    silent: Vec<String>,
}

/// A task, as its program tells of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Task {
    pub(crate) id: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
    /// `running`, `ready`, `waiting`.
    pub(crate) state: String,
    /// What it waits in, such as `read`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) op: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) fd: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) local: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) peer: Option<String>,
    /// SO_COOKIE of the socket that it waits on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cookie: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) channel: Option<Channel>,
    /// The task that it waits for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) join: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) select: Option<Vec<Arm>>,
    /// For how long it has waited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) since_us: Option<u64>,
    /// From the answer on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) deadline_us: Option<u64>,
    /// `file:line`.
    pub(crate) spawned_at: String,
    /// The name of its thread.
    pub(crate) worker: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) stack_size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) stack_in_use: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) stack_high_water: Option<u64>,
    /// Innermost call first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) backtrace: Option<Vec<String>>,
}

/// A channel that a task waits on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Channel {
    pub(crate) id: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) len: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) capacity: Option<u64>,
}

/// One of the operations that a task waits for the first of.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Arm {
    pub(crate) op: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) channel: Option<Channel>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) join: Option<u64>,
}

/// The endpoints of this user's programs; for root, of all users'. Some may be what programs left behind that were killed.
pub(crate) fn endpoints() -> Vec<Endpoint> {
    let own_process = std::process::id();
    let mut seen = HashSet::new();
    let folders = folders().into_iter().filter_map(|(folder, user)| Some((owner(&folder, user)?, folder)));
    let folders = folders.filter(|(_, folder)| fs::canonicalize(folder).is_ok_and(|real| seen.insert(real)));
    let mut found: Vec<_> = folders.flat_map(|(owner, folder)| sockets(&folder, owner)).collect();
    found.retain(|endpoint| endpoint.pid != Some(own_process));
    found.sort_by_key(|endpoint| endpoint.pid);
    found
}

/// The endpoint of this process: one in another user's folder is not.
pub(crate) fn endpoint_of(pid: u32) -> Option<Endpoint> {
    let mut found = endpoints();
    found.retain(|endpoint| endpoint.pid == Some(pid));
    if let Some(user) = user_of(pid) {
        found.retain(|endpoint| endpoint.may_be_of(user));
        found.sort_by_key(|endpoint| endpoint.owner != Some(user));
    }
    // What another process of this number left behind may lie in another of its folders.
    let at = found.iter().position(Endpoint::is_alive).unwrap_or(0);
    (!found.is_empty()).then(|| found.swap_remove(at))
}

/// Where the library puts its sockets, going by this process's environment; for root also where it does for others, which
/// is beside that. Where a folder's name says whose it is, that user.
fn folders() -> Vec<(PathBuf, Option<u32>)> {
    let uid = geteuid();
    let temporary = env::temp_dir();
    let runtime = env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_absolute());
    let runtime = runtime.unwrap_or_else(|| format!("/run/user/{}", uid.as_raw()).into());
    let mut folders = vec![(runtime.join("towpath"), None)];
    if !uid.is_root() {
        folders.push((temporary.join(format!("towpath-{}", uid.as_raw())), Some(uid.as_raw())));
        return folders;
    }
    let users = runtime.parent().into_iter().flat_map(entries);
    folders.extend(users.map(|user| (user.join("towpath"), number(&user, "", ""))));
    let shared = entries(&temporary).filter_map(|folder| Some((number(&folder, "towpath-", "")?, folder)));
    folders.extend(shared.map(|(user, folder)| (folder, Some(user))));
    folders
}

fn entries(folder: &Path) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path())
}

/// The number between `prefix` and `suffix` in the last part of a path, if it is written as a number is.
fn number(path: &Path, prefix: &str, suffix: &str) -> Option<u32> {
    let digits = path.file_name()?.to_str()?.strip_prefix(prefix)?.strip_suffix(suffix)?;
    digits.parse().ok().filter(|number: &u32| number.to_string() == digits)
}

/// Whose the folder is, if it is what it should be: this user's own, or for root any, but of the user that its name says.
fn owner(folder: &Path, named: Option<u32>) -> Option<u32> {
    let uid = geteuid();
    let found = fs::symlink_metadata(folder).ok().filter(fs::Metadata::is_dir)?;
    let trusted = (uid.is_root() || found.uid() == uid.as_raw()) && named.is_none_or(|user| user == found.uid());
    trusted.then(|| found.uid())
}

fn sockets(folder: &Path, owner: u32) -> Vec<Endpoint> {
    let is_socket = |path: &PathBuf| fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
    entries(folder).filter(is_socket).filter_map(|path| Endpoint::found(path, owner)).collect()
}

/// The user that a process runs as (its effective one), if there is such a process.
fn user_of(pid: u32) -> Option<u32> {
    let status = fs::read(format!("/proc/{pid}/status")).ok()?;
    let status = String::from_utf8_lossy(&status);
    status.lines().find_map(|line| line.strip_prefix("Uid:"))?.split_whitespace().nth(1)?.parse().ok()
}

impl Room {
    pub(crate) fn new(bytes: usize) -> Room {
        Room(AtomicUsize::new(bytes))
    }

    fn take(&self, bytes: usize) -> Result<(), Trouble> {
        let less = |left: usize| left.checked_sub(bytes);
        let taken = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        taken.map(drop).map_err(|_| Trouble::Answer("its tasks take too much memory".to_owned()))
    }
}

impl Endpoint {
    /// The endpoint at this socket, whoever's it is.
    pub(crate) fn named(path: PathBuf) -> Endpoint {
        Endpoint { pid: process(&path), owner: None, path }
    }

    /// The endpoint whose socket lies there, in a folder of this user's, if it has such a name.
    pub(crate) fn found(path: PathBuf, owner: u32) -> Option<Endpoint> {
        Some(Endpoint { pid: Some(process(&path)?), owner: Some(owner), path })
    }

    /// Whether somebody listens there who may.
    pub(crate) fn is_alive(&self) -> bool {
        match self.connect() {
            Ok(stream) => self.peer(&stream).is_ok(),
            Err(error) => !matches!(error, Errno::CONNREFUSED | Errno::NOENT | Errno::NOTSOCK),
        }
    }

    /// Whether its process is there, by its number and its user.
    pub(crate) fn has_process(&self) -> bool {
        self.pid.and_then(user_of).is_some_and(|user| self.may_be_of(user))
    }

    /// Whether it may be that of a process of `user`'s: root's may have become another user's meanwhile.
    fn may_be_of(&self, user: u32) -> bool {
        self.owner.is_none_or(|owner| owner == user || owner == 0)
    }

    /// Asks the program for its tasks, which it has told within `timeout`, or this fails.
    pub(crate) fn ask(&self, backtrace: bool, timeout: Duration) -> Result<Dump, Failure> {
        self.ask_for(backtrace, Instant::now() + timeout, &Room::new(MOST_ROOM), |_| true)
    }

    /// Asks the program for those of its tasks that wait on a socket, as far as there is room for them.
    pub(crate) fn ask_for_sockets(&self, until: Instant, room: &Room) -> Result<Dump, Failure> {
        self.ask_for(false, until, room, |task| task.cookie.is_some())
    }

    fn ask_for(
        &self,
        backtrace: bool,
        until: Instant,
        room: &Room,
        wanted: impl Fn(&Task) -> bool,
    ) -> Result<Dump, Failure> {
        let failed = |error: io::Error| self.failure(&error);
        let stream = loop {
            match self.connect() {
                // unix(7): its queue is full. Somebody is in front of us.
                Err(Errno::AGAIN) if Instant::now() < until => thread::sleep(Duration::from_millis(10)),
                Err(Errno::AGAIN) => return Err(failed(ErrorKind::TimedOut.into())),
                connected => break connected.map_err(|error| failed(error.into()))?,
            }
        };
        let peer = self.peer(&stream)?;
        let mut dump = self.talk(stream, backtrace, until, room, wanted).map_err(|trouble| match trouble {
            Trouble::Io(error) => failed(error),
            Trouble::Answer(what) => Failure::new(Exit::Other, format!("ask {}: {what}", self.path.display())),
        })?;
        dump.pid = peer.pid.or(self.pid).unwrap_or(dump.pid);
        Ok(dump)
    }

    /// Who listens there, if that is who should.
    fn peer(&self, stream: &UnixStream) -> Result<Peer, Failure> {
        let path = self.path.display();
        let peer = kernel::peer(stream).ok_or_else(|| {
            Failure::new(Exit::Other, format!("ask {path}: the kernel does not say who listens there"))
        })?;
        if !geteuid().is_root() && peer.uid != geteuid().as_raw() && peer.uid != 0 {
            let what = format!("ask {path}: it is another user's ({})", peer.uid);
            return Err(Failure::new(Exit::NoPermission, what));
        }
        let user = self.owner.is_none_or(|owner| owner == peer.uid);
        // A process of another PID namespace has no number that could be compared.
        if user && (self.owner.is_none() || peer.pid.is_none() || peer.pid == self.pid) {
            return Ok(peer);
        }
        let who = peer.pid.map_or_else(|| "a process".to_owned(), |pid| format!("process {pid}"));
        let what =
            format!("ask {path}: {who} of user {} listens there, and not whom its name and folder say", peer.uid);
        Err(Failure::new(Exit::Other, what).hint(format!("To ask it all the same: towpath tasks {path}")))
    }

    fn talk(
        &self,
        mut stream: UnixStream,
        backtrace: bool,
        until: Instant,
        room: &Room,
        wanted: impl Fn(&Task) -> bool,
    ) -> Result<Dump, Trouble> {
        stream.set_nonblocking(false)?;
        stream
            .set_write_timeout(Some(until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1))))?;
        writeln!(stream, "{{\"v\":{VERSION},\"dump\":{{\"backtrace\":{backtrace}}}}}")?;
        let mut answer = Lines::new(Timed { stream, until });
        let head: Head = answer.next(|| "before it has begun".to_owned())?;
        if let Some(error) = head.error {
            return Err(Trouble::Answer(error));
        }
        if head.v != VERSION {
            return Err(Trouble::Answer(format!("it answers in version {}; this towpath knows {VERSION}", head.v)));
        }
        if head.tasks > MOST_TASKS {
            let what = format!("it tells of {} tasks, and more than {MOST_TASKS} are not taken", head.tasks);
            return Err(Trouble::Answer(what));
        }
        let mut tasks = Vec::new(); // how many are announced need not be true
        for number in 0..head.tasks {
            let task: Task = answer.next(|| format!("after {number} of {} tasks", head.tasks))?;
            if wanted(&task) {
                room.take(task.size(answer.line.len()))?;
                tasks.push(task);
            }
        }
        Ok(Dump { pid: head.pid, program: head.program, workers: head.workers, silent: head.silent, tasks })
    }

    /// Never waits: EAGAIN if the program's queue is full.
    fn connect(&self) -> Result<UnixStream, Errno> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        rustix::net::connect(&socket, &SocketAddrUnix::new(&self.path)?)?;
        Ok(socket.into())
    }

    fn is_socket(&self) -> bool {
        fs::metadata(&self.path).is_ok_and(|file| file.file_type().is_socket())
    }

    fn failure(&self, error: &io::Error) -> Failure {
        let path = self.path.display();
        let what = format!("ask {path}: {}", reason(error));
        match error.kind() {
            // A program that has ended takes its socket away with it.
            ErrorKind::NotFound if self.pid.is_none() => Failure::new(Exit::Refused, what).hint(TARGETS),
            ErrorKind::ConnectionRefused if self.pid.is_none() && !self.is_socket() => {
                Failure::new(Exit::Refused, format!("ask {path}: it is no socket")).hint(TARGETS)
            }
            ErrorKind::NotFound | ErrorKind::ConnectionRefused => {
                Failure::new(Exit::Refused, format!("ask {path}: no program answers there")).hint(OPT_IN)
            }
            ErrorKind::PermissionDenied => Failure::new(Exit::NoPermission, what)
                .hint("Only its own user and root may ask a program; try: sudo towpath tasks"),
            ErrorKind::TimedOut | ErrorKind::WouldBlock => {
                let failure = Failure::new(Exit::TimedOut, format!("ask {path}: the program does not answer in time"));
                match self.pid {
                    Some(pid) => failure.hint(format!("Is it stopped? Look: ps -o stat,wchan,cmd {pid}")),
                    None => failure,
                }
            }
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => Failure::new(Exit::Reset, what),
            _ => Failure::new(Exit::Other, what),
        }
    }
}

/// The process that a socket is named after.
fn process(path: &Path) -> Option<u32> {
    number(path, "", ".sock")
}

impl Task {
    /// About what it takes in memory, made of a line of this length.
    fn size(&self, line: usize) -> usize {
        let frames = self.backtrace.as_ref().map_or(0, Vec::capacity) * size_of::<String>();
        let arms = self.select.as_ref().map_or(0, Vec::capacity) * size_of::<Arm>();
        size_of::<Task>() + line + frames + arms
    }
}

/// What can be asked.
pub(crate) const TARGETS: &str =
    "What is wanted is a process id or the path of a socket; to see which programs can be asked: towpath tasks";

/// How a program comes to be asked.
pub(crate) const OPT_IN: &str = "A program on the towpath library lets itself be asked if it is started with TOWPATH_INSPECT=1 or calls Builder::inspect(true)";

enum Trouble {
    Io(io::Error),
    /// What is wrong with the answer.
    Answer(String),
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Trouble {
        Trouble::Io(error)
    }
}

/// An answer, line by line.
struct Lines {
    answer: io::Take<BufReader<Timed>>,
    line: Vec<u8>,
}

impl Lines {
    fn new(stream: Timed) -> Lines {
        Lines { answer: BufReader::with_capacity(64 << 10, stream).take(LONGEST), line: Vec::new() }
    }

    /// The next line. `place` says where the answer ends if there is none.
    fn next<T: DeserializeOwned>(&mut self, place: impl FnOnce() -> String) -> Result<T, Trouble> {
        self.line.clear();
        let mut piece = (&mut self.answer).take(LONGEST_LINE);
        piece.read_until(b'\n', &mut self.line)?;
        let too_long = piece.limit() == 0;
        if self.line.pop() != Some(b'\n') {
            return Err(Trouble::Answer(match () {
                () if too_long => format!("a line of the answer is longer than {LONGEST_LINE} bytes"),
                () if self.answer.limit() == 0 => format!("the answer is longer than {LONGEST} bytes"),
                () => format!("the answer ends {}", place()),
            }));
        }
        serde_json::from_slice(&self.line)
            .map_err(|error| Trouble::Answer(format!("the answer makes no sense: {error}")))
    }
}

/// A stream that is read until a certain time.
struct Timed {
    stream: UnixStream,
    until: Instant,
}

impl Read for Timed {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        self.stream.set_read_timeout(Some(left))?;
        self.stream.read(buf)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    /// What is made of an answer that is given to whatever is asked.
    fn answered(answer: &[u8], timeout: Duration) -> Result<Dump, Failure> {
        asked(answer, |endpoint| endpoint.ask(false, timeout))
    }

    /// The same, of a question that is asked otherwise.
    fn asked<T>(answer: &[u8], ask: impl FnOnce(&Endpoint) -> T) -> T {
        // Not called as the library's folders are: other programs must not find it and ask.
        let folder = env::temp_dir().join(format!("tpt-{}-{:?}", std::process::id(), thread::current().id()));
        fs::create_dir_all(&folder).unwrap();
        let endpoint = Endpoint::named(folder.join("7.sock"));
        let listener = UnixListener::bind(&endpoint.path).unwrap();
        let asked = thread::scope(|scope| {
            scope.spawn(|| {
                let (mut stream, _) = listener.accept().unwrap();
                _ = BufReader::new(&stream).read_line(&mut String::new());
                _ = stream.write_all(answer);
                if answer.is_empty() {
                    _ = stream.read(&mut [0]); // says nothing until the other end has had enough
                }
            });
            ask(&endpoint)
        });
        fs::remove_dir_all(&folder).unwrap();
        asked
    }

    fn quickly(answer: &str) -> Result<Dump, Failure> {
        answered(answer.as_bytes(), Duration::from_secs(20))
    }

    #[test]
    fn what_another_version_adds_is_passed_over_and_what_it_lacks_left_open() {
        let head = r#"{"v":1,"pid":7,"program":"p","new":[{}],"tasks":2}"#;
        let task = r#"{"id":3,"state":"waiting","op":"lock","mutex":{"id":1},"peer":"10.0.0.1:80","cookie":18446744073709551615}"#;
        let dump = quickly(&format!("{head}\n{task}\n{{}}\n")).unwrap();
        // Whose process it is, the kernel says.
        assert_eq!((dump.pid, &*dump.program, dump.workers, dump.tasks.len()), (std::process::id(), "p", 0, 2));
        let task = &dump.tasks[0];
        assert_eq!((task.id, task.op.as_deref(), task.cookie), (3, Some("lock"), Some(u64::MAX)));
        assert_eq!(dump.tasks[1], Task::default());
    }

    #[test]
    fn an_answer_that_is_none_is_told_as_such() {
        for (answer, exit, what) in [
            ("{\"v\":1,\"error\":\"no\"}\n", Exit::Other, "no"),
            ("{\"v\":2,\"pid\":1}\n", Exit::Other, "version 2"),
            ("{\"v\":1,\"tasks\":2}\n{}\n", Exit::Other, "ends after 1 of 2 tasks"),
            ("{\"v\":1,\"tasks\":1}\n{}", Exit::Other, "ends after 0 of 1 tasks"),
            (
                "{\"v\":1,\"tasks\":2000001}\n",
                Exit::Other,
                "tells of 2000001 tasks, and more than 2000000 are not taken",
            ),
            ("hello\n", Exit::Other, "makes no sense"),
            ("\u{1}", Exit::Other, "before it has begun"),
        ] {
            let failure = quickly(answer).unwrap_err();
            assert_eq!(failure.exit, exit, "{failure:?}");
            assert!(failure.what.contains(what), "{failure:?}");
        }
    }

    #[test]
    fn a_program_that_says_nothing_is_not_waited_for_longer_than_asked() {
        let failure = answered(b"", Duration::from_millis(50)).unwrap_err();
        assert_eq!(failure.exit, Exit::TimedOut, "{failure:?}");
        assert!(failure.hint.unwrap().ends_with(" 7"));
        let nameless = Endpoint::named("/tmp/x.sock".into()).failure(&ErrorKind::TimedOut.into());
        assert_eq!((nameless.exit, nameless.hint), (Exit::TimedOut, None));
    }

    #[test]
    fn a_line_has_an_end() {
        let long = |bytes: usize| format!("{{\"v\":1,\"program\":\"{}\"}}\n", "p".repeat(bytes));
        assert!(quickly(&long((1 << 20) - 32)).is_ok());
        let failure = quickly(&long(1 << 20)).unwrap_err();
        assert!(failure.what.contains("a line of the answer is longer than 1048576 bytes"), "{failure:?}");
    }

    #[test]
    fn of_tasks_that_are_not_wanted_nothing_is_kept_and_of_others_what_there_is_room_for() {
        let until = || Instant::now() + Duration::from_secs(20);
        let sockets = |room: usize, more: &str| {
            let answer = format!("{{\"v\":1,\"tasks\":1001}}\n{}{{\"cookie\":1{more}}}\n", "{}\n".repeat(1_000));
            asked(answer.as_bytes(), |endpoint| endpoint.ask_for_sockets(until(), &Room::new(room)))
        };
        assert_eq!(sockets(2 * size_of::<Task>(), "").unwrap().tasks.len(), 1);
        // Three bytes each, which are many times that as what they say.
        let arms = format!(",\"select\":[{}{{}}]", "{},".repeat(100));
        for (room, more) in [(size_of::<Task>(), ""), (2 * size_of::<Task>(), arms.as_str())] {
            let failure = sockets(room, more).unwrap_err();
            assert!(failure.what.ends_with("its tasks take too much memory"), "{failure:?}");
        }
    }

    #[test]
    fn only_whom_the_place_of_the_socket_names_may_answer() {
        let (pid, uid) = (std::process::id(), geteuid().as_raw());
        let answer = b"{\"v\":1,\"pid\":7}\n";
        for (number, owner, may) in [(pid, uid, true), (pid + 1, uid, false), (pid, uid + 1, false)] {
            // Whoever is not admitted is not asked either.
            let (alive, answer) = asked(answer, |endpoint| {
                let endpoint = Endpoint { pid: Some(number), owner: Some(owner), path: endpoint.path.clone() };
                (may || endpoint.is_alive(), endpoint.ask(false, Duration::from_secs(20)))
            });
            assert_eq!((alive, answer.is_ok()), (may, may), "{number} {owner}: {answer:?}");
            assert!(
                answer.map_or_else(|failure| failure.what.contains("and not whom its name"), |dump| dump.pid == pid)
            );
        }
    }

    #[test]
    fn names_are_written_in_one_way() {
        assert_eq!(process(Path::new("/x/17.sock")), Some(17));
        for other in ["/x/+17.sock", "/x/017.sock", "/x/17", "/x/.sock", "/x/x.sock", "/x/17.new"] {
            assert_eq!(process(Path::new(other)), None, "{other}");
        }
        let folder = env::temp_dir();
        let whose = fs::metadata(&folder).unwrap().uid();
        assert_eq!(owner(&folder, Some(whose + 1)), None);
        assert_eq!(owner(&folder, Some(whose)), (geteuid().is_root() || geteuid().as_raw() == whose).then_some(whose));
        assert_eq!(user_of(std::process::id()), Some(geteuid().as_raw()));
    }

    #[test]
    fn where_nobody_listens_the_failure_says_how_to_opt_in() {
        let failure = Endpoint::named("/nonexistent/7.sock".into()).ask(false, Duration::from_secs(1)).unwrap_err();
        assert_eq!(failure.exit, Exit::Refused);
        assert!(failure.hint.unwrap().contains("TOWPATH_INSPECT=1"));
        assert_eq!(Endpoint::found("/tmp/x.sock".into(), 0), None);
    }
}
