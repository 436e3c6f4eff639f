//! A parked task's backtrace: addresses until somebody reads it, then names.
//!
//! Finding a name reads the debug information of the executable, which takes a while the first time; what was found is
//! kept, for thousands of tasks wait in the same few places. The library's own calls are left out, but for the one that
//! the user's code made, and so is what started the task.

#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::runtime::frames::Frames;

/// The calls by which a task came to where it waits, innermost first. `Display` prints them as a panic would.
#[derive(Clone)]
pub struct Backtrace {
    addresses: Arc<[usize]>,
    frames: OnceLock<Vec<Arc<Frame>>>,
}

/// One call: what was called and where in it the next call is, as far as the debug information tells.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Frame {
    function: String,
    place: Option<(PathBuf, u32)>,
}

impl Backtrace {
    pub(super) fn new(addresses: Frames) -> Backtrace {
        Backtrace { addresses: addresses.into(), frames: OnceLock::new() }
    }

    pub(super) fn frames(&self) -> impl Iterator<Item = &Frame> {
        let frames = self.frames.get_or_init(|| {
            let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner); // a map is whole after a panic, too
            let names = names.get_or_insert_default();
            let mut all = Vec::new();
            for address in &*self.addresses {
                all.extend_from_slice(names.entry(*address).or_insert_with(|| resolve(*address)));
            }
            users_part(all)
        });
        frames.iter().map(|frame| &**frame)
    }
}

/// What addresses mean, of those that were asked for. It grows no further than the program has places to wait in.
static NAMES: Mutex<Option<HashMap<usize, Vec<Arc<Frame>>>>> = Mutex::new(None);

/// The functions at an address, inlined ones first.
fn resolve(address: usize) -> Vec<Arc<Frame>> {
    let mut found = Vec::new();
    backtrace::resolve(ptr::without_provenance_mut(address), |symbol| {
        // Without the hash that the compiler adds.
        let function = symbol.name().map(|name| format!("{name:#}"));
        let place = symbol.filename().map(Path::to_owned).zip(symbol.lineno());
        found.push(Arc::new(Frame { function: function.unwrap_or_else(|| format!("{address:#x}")), place }));
    });
    if found.is_empty() {
        found.push(Arc::new(Frame { function: format!("{address:#x}"), place: None }));
    }
    found
}

/// Leaves out what is the library's: from the wait up to the call that the user made, and below the task's closure.
fn users_part(mut frames: Vec<Arc<Frame>>) -> Vec<Arc<Frame>> {
    if let Some(start) = frames.iter().position(|frame| frame.function.contains("towpath::runtime::record::Whole")) {
        frames.truncate(start);
        while frames.pop_if(|frame| frame.is_startup()).is_some() {}
    }
    let inner = frames.iter().take_while(|frame| frame.is_ours()).count();
    frames.drain(..inner.saturating_sub(1));
    frames
}

impl Frame {
    /// Whether the function is one of this library's. Not by the crate's name alone: a program may have the same.
    fn is_ours(&self) -> bool {
        const OURS: [&str; 7] = [
            "backtrace::",
            "corosensei::",
            "towpath::runtime::",
            "towpath::net::",
            "towpath::sync::",
            "towpath::time::",
            "towpath::task::",
        ];
        let path = self.function.trim_start_matches(['<', '&']);
        OURS.iter().any(|ours| path.starts_with(ours))
    }

    /// Whether the function stands between the task's start and its closure.
    fn is_startup(&self) -> bool {
        ["std::panic", "core::panic", "<core::panic", "__rust_try", "core::ops::function::"]
            .iter()
            .any(|start| self.function.starts_with(start))
    }
}

impl fmt::Display for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.function)?;
        self.place.iter().try_for_each(|(file, line)| write!(f, " at {}:{line}", file.display()))
    }
}

impl fmt::Display for Backtrace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, frame) in self.frames().enumerate() {
            let line_end = if i > 0 { "\n" } else { "" };
            write!(f, "{line_end}{i:>6}: {}", frame.function)?;
            frame.place.iter().try_for_each(|(file, line)| write!(f, "\n             at {}:{line}", file.display()))?;
        }
        Ok(())
    }
}

impl fmt::Debug for Backtrace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.frames()).finish()
    }
}
