//! Waiting for a key, one at a time: the terminal hands over single keys only as long as we wait, and is as it was
//! afterwards, whatever ends the wait. What else a terminal does, such as Ctrl-C, it goes on doing.

#![forbid(unsafe_code)]

use std::io::{self, stdin};
use std::sync::{Mutex, PoisonError};
use std::thread;

use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr};
use towpath::sync::channel::{self, Receiver, Sender};

/// How the terminal was, while it is not.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

/// What was pressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    /// `q`, or there are no more keys.
    Quit,
    Any,
}

/// The keys of the terminal that is stdin.
#[derive(Debug)]
pub(super) struct Keys {
    wanted: Sender<()>,
    pub(super) pressed: Receiver<io::Result<Key>>,
}

/// Whether a key is enough, or the terminal wants to see a whole line. Dropped, the terminal is as it was.
#[derive(Debug)]
pub(super) struct Single(pub(super) bool);

impl Keys {
    /// Starts the thread that reads them: a terminal is to be waited for by whoever reads it.
    pub(super) fn start() -> io::Result<Keys> {
        let (wanted, wants) = channel::bounded::<()>(1);
        let (press, pressed) = channel::bounded(1);
        thread::Builder::new().name("keys".into()).spawn(move || {
            for () in wants {
                if press.send(read()).is_err() {
                    return;
                }
            }
        })?;
        Ok(Keys { wanted, pressed })
    }

    /// Has the next key come as a message.
    pub(super) fn want(&self) -> Single {
        let single = Single(take().is_ok());
        // The thread lasts as long as we do.
        let _ = self.wanted.send(());
        single
    }
}

/// An arrow, say, is several bytes, and comes at once.
fn read() -> io::Result<Key> {
    let mut bytes = [0; 64];
    loop {
        match rustix::io::read(stdin(), &mut bytes) {
            Ok(read) if read == 0 || bytes[..read].trim_ascii().eq_ignore_ascii_case(b"q") => return Ok(Key::Quit),
            Ok(_) => return Ok(Key::Any),
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

fn take() -> io::Result<()> {
    let before = tcgetattr(stdin())?;
    let mut single = before.clone();
    single.local_modes -= LocalModes::ICANON | LocalModes::ECHO;
    single.special_codes[SpecialCodeIndex::VMIN] = 1;
    single.special_codes[SpecialCodeIndex::VTIME] = 0;
    BEFORE.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(before);
    tcsetattr(stdin(), OptionalActions::Now, &single).inspect_err(|_| give_back())?;
    Ok(())
}

/// Has the terminal be as it was, if it is not.
pub(crate) fn give_back() {
    if let Some(before) = BEFORE.lock().unwrap_or_else(PoisonError::into_inner).take() {
        let _ = tcsetattr(stdin(), OptionalActions::Now, &before);
    }
}

impl Drop for Single {
    fn drop(&mut self) {
        give_back();
    }
}
