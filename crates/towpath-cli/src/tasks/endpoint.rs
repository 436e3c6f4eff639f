//! Programs that let themselves be asked for their tasks: where their endpoints are, and what they answer.
//!
//! The library documents both (`towpath::Builder::inspect`, `towpath::task::TaskDump::write_json`). An answer is a
//! stranger's: fields that are not known are passed over, those that are missing are left open, and there is a bound to
//! its length and to the time that it may take. Everything here blocks; tasks call it through `unblock`.

#![forbid(unsafe_code)]

use std::collections::HashSet;
use std::env;
use std::fs;
use std::io::{self, BufRead as _, BufReader, ErrorKind, Read, Write as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, sockopt};
use rustix::process::geteuid;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::exit::{Exit, Failure, reason};

/// The version of the questions and answers.
const VERSION: u32 = 1;
/// An answer's bytes, at most: several million tasks.
const LONGEST: u64 = 1 << 30;

/// A place where a program may be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// The program's process, by the name of the socket.
    pub(crate) pid: u32,
    pub(crate) path: PathBuf,
}

/// What a program answers.
#[derive(Debug, Clone)]
pub(crate) struct Dump {
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
    let folders = folders().into_iter().filter(|folder| is_trusted(folder));
    let folders = folders.filter(|folder| fs::canonicalize(folder).is_ok_and(|real| seen.insert(real)));
    let mut found: Vec<_> = folders.flat_map(|folder| sockets(&folder)).collect();
    found.retain(|endpoint| endpoint.pid != own_process);
    found.sort_by_key(|endpoint| endpoint.pid);
    found
}

/// Where the library puts its sockets, going by this process's environment; for root also where it does for others, which
/// is beside that.
fn folders() -> Vec<PathBuf> {
    let uid = geteuid();
    let temporary = env::temp_dir();
    let runtime = env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_absolute());
    let runtime = runtime.unwrap_or_else(|| format!("/run/user/{}", uid.as_raw()).into());
    if !uid.is_root() {
        return vec![runtime.join("towpath"), temporary.join(format!("towpath-{}", uid.as_raw()))];
    }
    let users = runtime.parent().into_iter().flat_map(entries).map(|user| user.join("towpath"));
    users.chain(entries(&temporary).filter(|path| has_prefix(path, "towpath-"))).collect()
}

fn entries(folder: &Path) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path())
}

fn has_prefix(path: &Path, prefix: &str) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix))
}

/// Whether the folder is this user's own, and not what somebody else put in its place. Root takes any.
fn is_trusted(folder: &Path) -> bool {
    let uid = geteuid();
    fs::symlink_metadata(folder).is_ok_and(|found| found.is_dir() && (uid.is_root() || found.uid() == uid.as_raw()))
}

fn sockets(folder: &Path) -> Vec<Endpoint> {
    let is_socket = |path: &PathBuf| fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
    entries(folder).filter(is_socket).filter_map(Endpoint::at).collect()
}

impl Endpoint {
    /// The endpoint whose socket lies there, if it has such a name.
    pub(crate) fn at(path: PathBuf) -> Option<Endpoint> {
        let name = path.file_name()?.to_str()?;
        let pid = name.strip_suffix(".sock")?.parse().ok()?;
        Some(Endpoint { pid, path })
    }

    /// Whether somebody listens there.
    pub(crate) fn is_alive(&self) -> bool {
        !matches!(self.connect(), Err(Errno::CONNREFUSED | Errno::NOENT | Errno::NOTSOCK))
    }

    /// Asks the program for its tasks, which it has told within `timeout`, or this fails.
    pub(crate) fn ask(&self, backtrace: bool, timeout: Duration) -> Result<Dump, Failure> {
        let until = Instant::now() + timeout;
        let failed = |error: io::Error| self.failure(&error);
        let stream = loop {
            match self.connect() {
                // unix(7): its queue is full. Somebody is in front of us.
                Err(Errno::AGAIN) if Instant::now() < until => thread::sleep(Duration::from_millis(10)),
                Err(Errno::AGAIN) => return Err(failed(ErrorKind::TimedOut.into())),
                connected => break connected.map_err(|error| failed(error.into()))?,
            }
        };
        let owner = sockopt::socket_peercred(&stream).map_err(|error| failed(error.into()))?.uid;
        if !geteuid().is_root() && owner != geteuid() && !owner.is_root() {
            let what = format!("ask {}: it is another user's ({})", self.path.display(), owner.as_raw());
            return Err(Failure::new(Exit::NoPermission, what));
        }
        self.talk(stream, backtrace, until).map_err(|trouble| match trouble {
            Trouble::Io(error) => failed(error),
            Trouble::Answer(what) => Failure::new(Exit::Other, format!("ask {}: {what}", self.path.display())),
        })
    }

    fn talk(&self, mut stream: UnixStream, backtrace: bool, until: Instant) -> Result<Dump, Trouble> {
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
        let mut tasks = Vec::new(); // how many are announced need not be true
        while tasks.len() < head.tasks {
            tasks.push(answer.next(|| format!("after {} of {} tasks", tasks.len(), head.tasks))?);
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

    fn failure(&self, error: &io::Error) -> Failure {
        let path = self.path.display();
        let what = format!("ask {path}: {}", reason(error));
        match error.kind() {
            ErrorKind::NotFound | ErrorKind::ConnectionRefused => {
                Failure::new(Exit::Refused, format!("ask {path}: no program answers there")).hint(OPT_IN)
            }
            ErrorKind::PermissionDenied => Failure::new(Exit::NoPermission, what)
                .hint("Only its own user and root may ask a program; try: sudo towpath tasks"),
            ErrorKind::TimedOut | ErrorKind::WouldBlock => {
                Failure::new(Exit::TimedOut, format!("ask {path}: the program does not answer in time"))
                    .hint(format!("Is it stopped? Look: ps -o stat,wchan,cmd {}", self.pid))
            }
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => Failure::new(Exit::Reset, what),
            _ => Failure::new(Exit::Other, what),
        }
    }
}

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
        self.answer.read_until(b'\n', &mut self.line)?;
        if self.line.pop() != Some(b'\n') {
            return Err(Trouble::Answer(format!("the answer ends {}", place())));
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
        let folder = env::temp_dir().join(format!("towpath-test-{}-{:?}", std::process::id(), thread::current().id()));
        fs::create_dir_all(&folder).unwrap();
        let endpoint = Endpoint::at(folder.join("7.sock")).unwrap();
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
            endpoint.ask(false, timeout)
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
        assert_eq!((dump.pid, &*dump.program, dump.workers, dump.tasks.len()), (7, "p", 0, 2));
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
    }

    #[test]
    fn where_nobody_listens_the_failure_says_how_to_opt_in() {
        let failure =
            Endpoint::at("/nonexistent/7.sock".into()).unwrap().ask(false, Duration::from_secs(1)).unwrap_err();
        assert_eq!(failure.exit, Exit::Refused);
        assert!(failure.hint.unwrap().contains("TOWPATH_INSPECT=1"));
        assert_eq!(Endpoint::at("/tmp/x.sock".into()), None);
    }
}
