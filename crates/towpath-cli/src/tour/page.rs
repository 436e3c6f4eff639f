//! How the tour looks: paragraphs as wide as the terminal, with what was seen between them; or objects.

#![forbid(unsafe_code)]

use anstyle::{AnsiColor, Style};
use towpath::task::{TaskInfo, WaitsOn};

use super::story::Chapter;
use super::told::{Said, number};
use crate::output::event::Event;
use crate::output::look::Look;
use crate::output::{Form, Output, units};
use crate::trace::fit;

const TITLE: Style = Style::new().bold();
const WHO: Style = AnsiColor::Cyan.on_default();

/// What stands below a title.
const INDENT: &str = "  ";
/// A longer line is hard to read.
const WIDEST: usize = 96;

/// Writes the tour down.
#[derive(Debug)]
pub(super) struct Page {
    out: Output,
    /// The step that is told.
    step: u32,
}

impl Page {
    pub(super) fn new(out: &Output) -> Page {
        Page { out: out.clone(), step: 0 }
    }

    /// How text on stdout looks; none: it is for programs.
    pub(super) fn look(&self) -> Option<Look> {
        match self.out.form() {
            Form::Human { stdout, .. } => Some(stdout),
            Form::Json => None,
        }
    }

    /// How wide what is shown may be.
    pub(super) fn width(&self) -> usize {
        crate::trace::columns().saturating_sub(INDENT.len())
    }

    /// Whether a step has begun.
    pub(super) fn has_begun(&self) -> bool {
        self.step > 0
    }

    /// The next step begins.
    pub(super) fn begin(&mut self, chapter: &Chapter) {
        self.step += 1;
        let Some(look) = self.look() else {
            return self.out.event(&Event::Step { step: self.step, name: chapter.name, text: chapter.text });
        };
        let gap = if self.step > 1 { "\n" } else { "" };
        let title = look.paint(TITLE, &format!("{}  {}", self.step, chapter.name));
        self.out.text(format!("{gap}{title}\n\n{}\n", self.paragraph(chapter.text)));
    }

    /// What tasks told.
    pub(super) fn deeds(&self, said: &[Said]) {
        let Some(look) = self.look() else {
            for Said { task, who, deed, .. } in said {
                self.out.event(&Event::Deed { step: self.step, task: task.map(number), name: who, deed });
            }
            return;
        };
        let room = said.iter().map(|said| said.who.len()).max().unwrap_or(0);
        let mut text = String::new();
        for Said { task, who, deed, .. } in said {
            let who = format!("{:>4} {who:<room$}", task.map(|task| task.to_string()).unwrap_or_default());
            text += &format!("{}  {}\n", look.paint(WHO, &who), deed.words(look.ascii));
        }
        self.show(&text);
    }

    /// What a parked task waits for.
    pub(super) fn parked(&self, task: &TaskInfo) {
        let (name, operation) = (task.name().unwrap_or_default(), task.operation().unwrap_or_default());
        let waited = task.waiting_for().unwrap_or_default();
        let (local, peer) = match task.waits_on() {
            Some(WaitsOn::Socket(socket)) => (socket.local, socket.peer),
            _ => (None, None),
        };
        let Some(look) = self.look() else {
            let spawned_at = task.spawned_at().to_string();
            let task = number(task.id());
            return self.out.event(&Event::Parked { task, name, op: operation, local, peer, waited, spawned_at });
        };
        let arrow = if look.ascii { "->" } else { "→" };
        let end = |end: Option<std::net::SocketAddr>| end.map(|end| end.to_string()).unwrap_or_default();
        self.show(&format!(
            "{}  waits in {operation} on {} {arrow} {} for {}\n",
            look.paint(WHO, &format!("{:>4} {name}", task.id().to_string())),
            end(local),
            end(peer),
            units::time(waited, look.ascii),
        ));
    }

    /// Segments that are drawn already: ladders, or objects.
    pub(super) fn drawn(&self, segments: &str) {
        match self.look() {
            None if segments.is_empty() => {}
            None => self.out.text(segments.to_owned()),
            Some(_) => self.show(segments),
        }
    }

    /// Text that is drawn already.
    pub(super) fn show(&self, drawn: &str) {
        if drawn.is_empty() {
            return;
        }
        let mut text = String::new();
        for line in drawn.lines() {
            text += format!("{INDENT}{line}").trim_end();
            text.push('\n');
        }
        self.out.text(text + "\n");
    }

    /// What there was to see.
    pub(super) fn remark(&self, remark: &str) {
        match self.look() {
            None => self.out.event(&Event::Remark { step: self.step, text: remark }),
            Some(_) => self.out.text(self.paragraph(remark)),
        }
    }

    fn paragraph(&self, text: &str) -> String {
        let words: Vec<_> = text.split_whitespace().map(str::to_owned).collect();
        let lines = fit::lines(&words, self.width().min(WIDEST));
        lines.into_iter().map(|line| format!("{INDENT}{line}\n")).collect()
    }
}
