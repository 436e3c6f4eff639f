//! What is typed, as messages: a thread reads the terminal, so that nobody else has to wait for it.

#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{self, IsTerminal as _, stdin};
use std::os::fd::{AsFd, OwnedFd};
use std::thread;
use std::time::Duration;

use ratatui::crossterm::event::{self, Event, KeyEvent, KeyEventKind};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use towpath::sync::channel::Sender;

/// What comes from the terminal.
#[derive(Debug)]
pub(super) enum Typed {
    Key(KeyEvent),
    /// Nothing more will come: the terminal is gone.
    Gone,
}

/// Has what is typed come to `to`.
pub(super) fn start<T: From<Typed> + Send + 'static>(to: Sender<T>) -> io::Result<()> {
    let terminal = terminal()?;
    let read = move || {
        while let Ok(keys) = read(&terminal) {
            for key in keys {
                if to.send(Typed::Key(key).into()).is_err() {
                    return;
                }
            }
        }
        let _ = to.send(Typed::Gone.into());
    };
    thread::Builder::new().name("keys".into()).spawn(read)?;
    Ok(())
}

/// Where keys come from, which is also where crossterm takes them: stdin, or else the terminal that we belong to.
fn terminal() -> io::Result<OwnedFd> {
    if stdin().is_terminal() {
        return stdin().as_fd().try_clone_to_owned();
    }
    Ok(File::options().read(true).write(true).open("/dev/tty")?.into())
}

/// Waits for keys. An error: there will be none any more.
fn read(terminal: &OwnedFd) -> io::Result<Vec<KeyEvent>> {
    // crossterm does not notice that a terminal is gone, and would look for ever.
    let mut fds = [PollFd::new(terminal, PollFlags::IN)];
    match poll(&mut fds, None) {
        Ok(_) => {}
        Err(Errno::INTR) => return Ok(vec![]),
        Err(e) => return Err(e.into()),
    }
    if fds[0].revents().intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL) {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let mut keys = Vec::new();
    while event::poll(Duration::ZERO)? {
        if let Event::Key(key) = event::read()?
            && key.kind != KeyEventKind::Release
        {
            keys.push(key);
        }
    }
    Ok(keys)
}
