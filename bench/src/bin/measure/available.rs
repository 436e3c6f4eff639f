//! What this machine lets us count, found out once.

use towpath_bench::perf::{Counters, HARDWARE, Kind, system_calls};
use towpath_bench::wrapped::Wrapper;

pub(crate) struct Available {
    pub(crate) hardware: bool,
    pub(crate) system_calls: Option<Kind>,
    pub(crate) wrappers: Vec<(Wrapper, &'static str)>,
    /// What to know when reading the tables.
    pub(crate) notes: Vec<String>,
}

impl Available {
    pub(crate) fn look(no_wrappers: bool) -> Available {
        let mut found = Available { hardware: true, system_calls: None, wrappers: Vec::new(), notes: Vec::new() };
        if let Err(e) = Counters::open(std::process::id(), &HARDWARE) {
            found.hardware = false;
            let text = "Instructions and cycles are not counted: this machine offers no such counters";
            found.notes.push(format!("{text} (perf_event_open: {e})."));
            let text =
                "* instructions in user space under callgrind, in a run of its own; it takes neither io_uring nor Go";
            found.wrap(Wrapper::Callgrind, "callgrind_instructions_user", text, no_wrappers);
        }
        let kind = system_calls().and_then(|kind| Ok((kind, Counters::open(std::process::id(), &[kind])?)));
        match kind {
            Ok((kind, _)) => found.system_calls = Some(kind),
            Err(e) => {
                let text = format!("System calls are counted under strace, in a run of its own ({e})");
                found.wrap(Wrapper::Strace, "system_calls", &text, no_wrappers);
            }
        }
        found
    }

    fn wrap(&mut self, wrapper: Wrapper, figure: &'static str, note: &str, no_wrappers: bool) {
        if no_wrappers {
            self.notes.push(format!("Not counted, because of --no-wrappers: {figure}."));
        } else if wrapper.is_installed() {
            self.wrappers.push((wrapper, figure));
            self.notes.push(format!("{note}."));
        } else {
            self.notes.push(format!("Not counted, for {wrapper:?} is not installed: {figure}."));
        }
    }
}
