//! The terminal, as long as it is ours: raw, on its other screen, without a cursor. Whatever ends us, it is given back as it
//! was: on return, by a panic hook, before we are stopped, and by the last resort of the signals.

#![forbid(unsafe_code)]

use std::io::{self, BufWriter, Write};
use std::panic;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

use ratatui::Terminal;
use ratatui::backend::{Backend, ClearType, CrosstermBackend, WindowSize};
use ratatui::buffer::Cell;
use ratatui::crossterm::cursor::{Hide, Show};
use ratatui::crossterm::terminal::{
    BeginSynchronizedUpdate, EndSynchronizedUpdate, EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode,
    enable_raw_mode,
};
use ratatui::crossterm::{execute, queue};
use ratatui::layout::{Position, Size};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::output::write_stdout;

/// Whether the terminal is ours now. Who swaps it to false gives the terminal back.
static OURS: AtomicBool = AtomicBool::new(false);

/// The terminal, ours.
pub(super) struct Screen {
    terminal: Terminal<Measured>,
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
        let terminal = Terminal::new(Measured(CrosstermBackend::new(out))).inspect_err(|_| give_back())?;
        Ok(Screen { terminal })
    }

    /// Takes it again after it was given back, and forgets what is on it.
    pub(super) fn take_again(&mut self) -> io::Result<()> {
        give_back();
        take()?;
        self.forget()
    }

    /// Forgets what is on it, so that the next frame is drawn anew.
    pub(super) fn forget(&mut self) -> io::Result<()> {
        // As after a change of size. `clear` would ask the terminal where its cursor is, and the answer is typed.
        let size = self.terminal.size()?;
        self.terminal.resize(size.into())
    }

    /// Draws a frame, which terminals that know how show all at once.
    pub(super) fn draw(&mut self, draw: impl FnOnce(&mut ratatui::Frame<'_>)) -> io::Result<()> {
        queue!(self.terminal.backend_mut().0, BeginSynchronizedUpdate)?;
        self.terminal.draw(draw)?;
        execute!(self.terminal.backend_mut().0, EndSynchronizedUpdate)
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
        // First what always works: the other writes, and a terminal that is stopped takes nothing.
        let _ = disable_raw_mode();
        if takes_more() {
            let _ = execute!(Stdout, EndSynchronizedUpdate, LeaveAlternateScreen, Show);
        }
    }
}

/// Whether the terminal takes what is written, or will in a moment.
fn takes_more() -> bool {
    let stdout = io::stdout();
    let moment = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };
    poll(&mut [PollFd::new(&stdout, PollFlags::OUT)], Some(&moment)).is_ok_and(|ready| ready > 0)
}

/// What a terminal that does not know its size is taken for: a serial line has none.
const USUAL: Size = Size { width: 80, height: 24 };

/// More is drawn for no terminal, whatever it says: it would take gigabytes.
const MOST: u16 = 1000;

/// The size that is drawn for, where the kernel says `size`.
fn known(size: Size) -> Size {
    let or = |cells: u16, usual| if cells == 0 { usual } else { cells.min(MOST) };
    Size { width: or(size.width, USUAL.width), height: or(size.height, USUAL.height) }
}

/// A terminal that always has a size.
struct Measured(CrosstermBackend<BufWriter<Stdout>>);

impl Backend for Measured {
    type Error = io::Error;

    fn draw<'a, I: Iterator<Item = (u16, u16, &'a Cell)>>(&mut self, content: I) -> io::Result<()> {
        self.0.draw(content)
    }

    fn append_lines(&mut self, count: u16) -> io::Result<()> {
        self.0.append_lines(count)
    }

    fn hide_cursor(&mut self) -> io::Result<()> {
        self.0.hide_cursor()
    }

    fn show_cursor(&mut self) -> io::Result<()> {
        self.0.show_cursor()
    }

    fn get_cursor_position(&mut self) -> io::Result<Position> {
        self.0.get_cursor_position()
    }

    fn set_cursor_position<P: Into<Position>>(&mut self, position: P) -> io::Result<()> {
        self.0.set_cursor_position(position)
    }

    fn clear(&mut self) -> io::Result<()> {
        self.0.clear()
    }

    fn clear_region(&mut self, region: ClearType) -> io::Result<()> {
        self.0.clear_region(region)
    }

    fn size(&self) -> io::Result<Size> {
        self.0.size().map(known)
    }

    fn window_size(&mut self) -> io::Result<WindowSize> {
        let size = self.0.window_size()?;
        Ok(WindowSize { columns_rows: known(size.columns_rows), ..size })
    }

    fn flush(&mut self) -> io::Result<()> {
        Backend::flush(&mut self.0)
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

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// What [`a_panic_gives_the_terminal_back`] runs on a terminal.
    #[test]
    #[ignore = "takes the terminal"]
    fn panics_on_its_terminal() {
        if std::env::var_os("TOWPATH_PANIC").is_some() {
            let _screen = Screen::take().unwrap();
            std::thread::spawn(|| panic!("as planned")).join().unwrap_err();
            assert!(!is_ours(), "another thread's panic gives it back too");
        }
    }

    #[test]
    fn a_terminal_without_a_size_has_the_usual_one() {
        let sizes = [(0, 0), (0, 50), (132, 0), (1, 1)].map(|(width, height)| known(Size { width, height }));
        assert_eq!(sizes.map(|size| (size.width, size.height)), [(80, 24), (80, 50), (132, 24), (1, 1)]);
        assert_eq!(known(Size::MAX), Size { width: MOST, height: MOST });
    }

    #[test]
    fn a_panic_gives_the_terminal_back() {
        let us = std::env::current_exe().unwrap();
        let test = "watch::screen::terminal::tests::panics_on_its_terminal";
        let line = format!("TOWPATH_PANIC=1 {} --exact {test} --ignored --nocapture; stty -a", us.display());
        // script(1) of util-linux gives it a terminal.
        let output = Command::new("script").args(["-qec", &line, "/dev/null"]).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let place = |part: &str| text.find(part).unwrap_or_else(|| panic!("no {part:?} in {text:?}"));
        assert!(place("\x1b[?1049h") < place("\x1b[?1049l"), "taken, and given back");
        assert!(
            place("\x1b[?1049l") < place("as planned"),
            "before the message, which would be lost on the other screen"
        );
        assert!(place("as planned") < place("1 passed"));
        place("isig icanon iexten echo ");
    }
}
