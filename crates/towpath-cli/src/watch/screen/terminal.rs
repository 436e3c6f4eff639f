//! The terminal, as long as it is ours: raw, on its other screen, without a cursor. Whatever ends us, it is given back as it
//! was: on return, by a panic hook, before we are stopped, and by the last resort of the signals.

#![forbid(unsafe_code)]

use std::io::{self, BufWriter, Write};
use std::panic;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::{Hide, Show};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode};

use crate::output::write_stdout;

/// Whether the terminal is ours now. Who swaps it to false gives the terminal back.
static OURS: AtomicBool = AtomicBool::new(false);

/// The terminal, ours.
pub(super) struct Screen {
    terminal: Terminal<CrosstermBackend<BufWriter<Stdout>>>,
}

impl Screen {
    /// Takes the terminal.
    pub(super) fn take() -> io::Result<Screen> {
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let before = panic::take_hook();
            panic::set_hook(Box::new(move |panic| {
                give_back();
                before(panic);
            }));
        });
        take()?;
        // A whole screen at once, so that it does not flicker.
        let out = BufWriter::with_capacity(64 * 1024, Stdout);
        let terminal = Terminal::new(CrosstermBackend::new(out)).inspect_err(|_| give_back())?;
        Ok(Screen { terminal })
    }

    /// Takes it again after it was given back, and forgets what is on it.
    pub(super) fn take_again(&mut self) -> io::Result<()> {
        give_back();
        take()?;
        self.terminal.clear()
    }

    /// Forgets what is on it, so that the next frame is drawn anew.
    pub(super) fn forget(&mut self) -> io::Result<()> {
        self.terminal.clear()
    }

    pub(super) fn draw(&mut self, draw: impl FnOnce(&mut ratatui::Frame<'_>)) -> io::Result<()> {
        self.terminal.draw(draw).map(drop)
    }

    /// Its width and height in cells.
    pub(super) fn size(&self) -> io::Result<(u16, u16)> {
        self.terminal.size().map(|size| (size.width, size.height))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

fn take() -> io::Result<()> {
    enable_raw_mode()?;
    OURS.store(true, Ordering::SeqCst);
    execute!(Stdout, EnterAlternateScreen, Hide).inspect_err(|_| give_back())
}

/// Whether the terminal is ours: a panic of another thread gives it back behind our back.
pub(super) fn is_ours() -> bool {
    OURS.load(Ordering::SeqCst)
}

/// Gives the terminal back as it was, if it is ours.
pub(crate) fn give_back() {
    if OURS.swap(false, Ordering::SeqCst) {
        // First what always works: the other writes, which a terminal that is stopped does not take.
        let _ = disable_raw_mode();
        let _ = execute!(Stdout, LeaveAlternateScreen, Show);
    }
}

/// stdout without std's buffer and lock, which a thread that panics may hold.
struct Stdout;

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        write_stdout(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
