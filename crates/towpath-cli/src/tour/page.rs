//! How the tour looks: paragraphs as wide as the terminal, with what was seen between them; or objects.

#![forbid(unsafe_code)]

use anstyle::{AnsiColor, Style};
use towpath::task::{TaskInfo, WaitsOn};

use super::story::{self, Chapter};
use super::told::{Said, number};
use crate::output::event::Event;
use crate::output::look::Look;
use crate::output::{Form, Output, units};
use crate::trace::fit;

const TITLE: Style = Style::new().bold();
const WHO: Style = AnsiColor::Cyan.on_default();

/// What stands below a title.
const INDENT: &str = "  ";
/// Where things stand that have no room beside what they belong to.
const UNDER: usize = 4;
/// Less room than this is not worth breaking lines for.
const MOST_BROKEN: usize = 40;
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
        let title = look.paint(TITLE, format!("{}  {}", self.step, chapter.name));
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
            text += &self.told(look, &who, &deed.words(look.ascii));
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
        let waited = units::time(waited, look.ascii);
        let what = format!("waits in {operation} on {} {arrow} {} for {waited}", end(local), end(peer));
        self.show(&self.told(look, &format!("{:>4} {name}", task.id().to_string()), &what));
    }

    /// What somebody did, below his name where it has no room beside it.
    fn told(&self, look: Look, who: &str, what: &str) -> String {
        let room = self.width();
        let beside = fit::width(who) + 2;
        let painted = look.paint(WHO, who.trim_end());
        let is_narrow = beside + MOST_BROKEN > room && beside + fit::width(what) > room;
        let (head, indent) = if is_narrow { (format!("{painted}\n"), UNDER) } else { (String::new(), beside) };
        let mut text = head;
        for (at, line) in fit::lines(what.split(' '), room.saturating_sub(indent)).into_iter().enumerate() {
            if at == 0 && !is_narrow {
                text += &format!("{painted}{:gap$}{line}\n", "", gap = beside - fit::width(who.trim_end()));
            } else {
                text += &format!("{:indent$}{line}\n", "");
            }
        }
        text
    }

    /// It is over: what to type next.
    pub(super) fn end(&self, segments: u64) {
        let Some(look) = self.look() else {
            let next: Vec<_> = story::NEXT.iter().map(|(command, _)| *command).collect();
            return self.out.event(&Event::Toured { segments, next: &next });
        };
        let column = story::NEXT.iter().map(|(command, _)| command.len()).max().unwrap_or(0);
        let mut text = String::new();
        for (command, what) in story::NEXT {
            let gap = column + 4 - command.len();
            if column + 4 + fit::width(what) <= self.width() {
                text += &format!("{command}{:gap$}{what}\n", "");
            } else {
                text += &format!("{command}\n{:UNDER$}{what}\n", "");
            }
        }
        self.out.text(format!("\n{}\n\n", look.paint(TITLE, "To go on")));
        self.show(text.trim_end());
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
        let lines = fit::lines(text.split_whitespace(), self.width().min(WIDEST));
        lines.into_iter().map(|line| format!("{INDENT}{line}\n")).collect()
    }
}
