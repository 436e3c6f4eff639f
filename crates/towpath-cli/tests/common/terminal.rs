//! A program on a terminal, as somebody in front of it sees it: keys are typed, the screen shows something.
//!
//! The terminal is a pty, the screen is what `vt100` makes of what is written to it. Waiting is for what the screen shows.

use std::io::{Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Instant;

use rustix::fs::OFlags;
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, OptionalActions, Termios, Winsize, tcgetattr, tcsetattr, tcsetwinsize};

use super::{PATIENCE, TOWPATH, settle};

/// A program that has a terminal of its own.
pub(crate) struct OnTerminal {
    child: Child,
    master: std::fs::File,
    shared: Arc<Shared>,
    /// How the terminal was before the program had it.
    before: Termios,
}

struct Shared {
    parser: Mutex<Screens>,
    changed: Condvar,
}

/// What is on the terminal, and whether that is a whole frame.
struct Screens {
    parser: vt100::Parser,
    frame: Frame,
    /// Nothing more will come: nobody has the terminal any more.
    ended: bool,
}

/// Follows the marks at the beginning and the end of a frame (synchronised updates, private mode 2026).
#[derive(Default)]
struct Frame {
    begun: bool,
    /// The last bytes, for a mark may come in two pieces.
    last: Vec<u8>,
}

impl Frame {
    fn see(&mut self, bytes: &[u8]) {
        self.last.extend(bytes);
        let mark = b"\x1b[?2026";
        let found = self.last.windows(mark.len() + 1).rev().find(|window| window.starts_with(mark));
        match found.and_then(<[u8]>::last) {
            Some(b'h') => self.begun = true,
            Some(b'l') => self.begun = false,
            _ => {}
        }
        self.last.drain(..self.last.len().saturating_sub(mark.len()));
    }
}

/// `towpath` with `arguments` on a terminal of so many columns and lines.
pub(crate) fn on_terminal(arguments: &[&str], size: (u16, u16)) -> OnTerminal {
    OnTerminal::start(arguments, size, |_| {})
}

impl OnTerminal {
    /// `towpath` with `arguments`, in an environment that `change` changes.
    pub(crate) fn start(arguments: &[&str], size: (u16, u16), change: impl FnOnce(&mut Command)) -> OnTerminal {
        OnTerminal::run(TOWPATH, arguments, size, change)
    }

    /// Any program.
    pub(crate) fn run(
        program: &str,
        arguments: &[&str],
        size: (u16, u16),
        change: impl FnOnce(&mut Command),
    ) -> OnTerminal {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        tcsetwinsize(&master, winsize(size)).unwrap();
        let before = tcgetattr(&master).unwrap();
        let slave = || {
            let slave =
                rustix::fs::open(&name, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, rustix::fs::Mode::empty());
            Stdio::from(slave.unwrap())
        };
        // A session of its own, whose terminal this is: then Ctrl-C and hanging up mean what they mean to people.
        let mut command = Command::new("setsid");
        command.arg("--ctty").arg(program).args(arguments);
        settle(&mut command);
        command.env("TERM", "xterm-256color").stdin(slave()).stdout(slave()).stderr(slave());
        change(&mut command);
        let child = command.spawn().unwrap();
        drop(command);
        let screens = Screens {
            parser: vt100::Parser::new(size.1.max(4), size.0.max(10), 0),
            frame: Frame::default(),
            ended: false,
        };
        let parser = Mutex::new(screens);
        let shared = Arc::new(Shared { parser, changed: Condvar::new() });
        let master = std::fs::File::from(master);
        let (reader, seen) = (master.try_clone().unwrap(), Arc::clone(&shared));
        thread::spawn(move || watch(reader, &seen));
        OnTerminal { child, master, shared, before }
    }

    /// Types `keys`, escapes and all.
    pub(crate) fn press(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until the screen has `text` on it, and returns the screen.
    #[track_caller]
    pub(crate) fn wait_for(&mut self, text: &str) -> String {
        self.wait_until(&format!("{text:?}"), |screen| screen.contains(text))
    }

    /// Waits until `shows` says so of what the screen shows, and returns that.
    #[track_caller]
    pub(crate) fn wait_until(&mut self, what: &str, shows: impl Fn(&str) -> bool) -> String {
        self.wait(what, |screen| shows(&text(screen)))
    }

    /// Waits until the program has the other screen of the terminal, or has given it back.
    #[track_caller]
    pub(crate) fn wait_until_taken(&mut self, taken: bool) {
        let what = if taken { "the terminal to be taken" } else { "the terminal to be given back" };
        self.wait(what, |screen| screen.alternate_screen() == taken);
    }

    #[track_caller]
    fn wait(&mut self, what: &str, holds: impl Fn(&vt100::Screen) -> bool) -> String {
        self.wait_for_screens(what, |screens| !screens.frame.begun && holds(screens.parser.screen()))
    }

    #[track_caller]
    fn wait_for_screens(&mut self, what: &str, holds: impl Fn(&Screens) -> bool) -> String {
        let deadline = Instant::now() + PATIENCE;
        let mut screens = self.shared.parser.lock().unwrap();
        loop {
            if holds(&screens) {
                return text(screens.parser.screen());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let screen = text(screens.parser.screen());
                drop(screens);
                let _ = self.child.kill();
                panic!("waited for {what}; the screen:\n{screen}\n{:?}", self.child.wait());
            }
            screens = self.shared.changed.wait_timeout(screens, left).unwrap().0;
        }
    }

    /// What the screen shows now.
    pub(crate) fn screen(&self) -> String {
        text(self.shared.parser.lock().unwrap().parser.screen())
    }

    /// Makes the terminal another size, of so many columns and lines.
    pub(crate) fn resize(&mut self, size: (u16, u16)) {
        // Screens of a line or a column are too small for the emulator; what is written to them fits a larger one too.
        self.shared.parser.lock().unwrap().parser.screen_mut().set_size(size.1.max(4), size.0.max(10));
        tcsetwinsize(&self.master, winsize(size)).unwrap();
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Waits until it is stopped.
    #[track_caller]
    pub(crate) fn wait_until_stopped(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            match waitpid(Some(self.pid()), WaitOptions::UNTRACED | WaitOptions::NOHANG).unwrap() {
                Some((_, status)) => break status,
                None if Instant::now() > deadline => panic!("it does not stop; the screen:\n{}", self.screen()),
                None => thread::sleep(std::time::Duration::from_millis(1)),
            }
        };
        assert!(status.stopped(), "{status:?}");
    }

    /// Waits for the exit, and makes sure that the terminal is as it was.
    #[track_caller]
    pub(crate) fn finish(mut self) -> (ExitStatus, String) {
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            match self.child.try_wait().unwrap() {
                Some(status) => break status,
                None if Instant::now() > deadline => panic!("it does not exit; the screen:\n{}", self.screen()),
                None => thread::sleep(std::time::Duration::from_millis(1)),
            }
        };
        self.wait_for_screens("all that was written", |screens| screens.ended);
        self.wait("the terminal to be as it was", |screen| !screen.alternate_screen() && !screen.hide_cursor());
        self.assert_as_before();
        (status, self.screen())
    }

    /// Has the terminal take lines and echo them, as a shell does.
    pub(crate) fn reset(&self) {
        tcsetattr(&self.master, OptionalActions::Now, &self.before).unwrap();
    }

    /// Waits until the terminal does neither.
    #[track_caller]
    pub(crate) fn wait_until_raw(&self) {
        let deadline = Instant::now() + PATIENCE;
        while tcgetattr(&self.master).unwrap().local_modes.intersects(LocalModes::ICANON | LocalModes::ECHO) {
            assert!(Instant::now() < deadline, "the terminal is not taken again");
            thread::sleep(std::time::Duration::from_millis(1));
        }
    }

    /// That the terminal takes lines and echoes them, as it did before.
    #[track_caller]
    pub(crate) fn assert_as_before(&self) {
        let now = tcgetattr(&self.master).unwrap();
        assert_eq!(now.local_modes, self.before.local_modes);
        assert_eq!(now.input_modes, self.before.input_modes);
        assert_eq!(now.output_modes, self.before.output_modes);
    }

    /// Its process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }
}

impl Drop for OnTerminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn winsize((columns, lines): (u16, u16)) -> Winsize {
    Winsize { ws_col: columns, ws_row: lines, ws_xpixel: 0, ws_ypixel: 0 }
}

fn watch(mut reader: std::fs::File, shared: &Shared) {
    let mut bytes = [0; 64 * 1024];
    // EIO: nobody has the other end any more.
    while let Ok(count @ 1..) = reader.read(&mut bytes) {
        let mut screens = shared.parser.lock().unwrap();
        screens.parser.process(&bytes[..count]);
        screens.frame.see(&bytes[..count]);
        drop(screens);
        shared.changed.notify_all();
    }
    shared.parser.lock().unwrap().ended = true;
    shared.changed.notify_all();
}

/// The lines of a screen, without what is blank at their ends.
fn text(screen: &vt100::Screen) -> String {
    let lines = screen.rows(0, screen.size().1).map(|line| line.trim_end().to_owned() + "\n");
    lines.collect::<String>().trim_end().to_owned() + "\n"
}
