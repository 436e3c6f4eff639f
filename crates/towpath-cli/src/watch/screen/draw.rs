//! What the screen looks like. Everything that is drawn comes in a [`Scene`]; nothing here asks or decides, and no terminal
//! is too small: what does not fit is left out, the least needed first.

#![forbid(unsafe_code)]

use ratatui::Frame;
use ratatui::layout::{Position, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};

use super::super::columns::{self, Cell, Column, GAP, Tone, cut, width};
use super::super::plain::is_number;
use super::detail;
use crate::output::look::Look;

/// Below this many lines there is no history, below that no line of hints.
const HISTORY_FROM: u16 = 14;
const STATUS_FROM: u16 = 4;

/// What is drawn.
#[derive(Debug)]
pub(super) struct Scene<'a> {
    pub(super) look: Look,
    pub(super) header: Header,
    pub(super) body: Body<'a>,
    pub(super) status: Status<'a>,
}

/// The first line, part by part.
#[derive(Debug, Clone, Default)]
pub(super) struct Header {
    pub(super) filter: String,
    pub(super) paused: bool,
    /// What a capture has come to.
    pub(super) recording: String,
    pub(super) interval: String,
    pub(super) sockets: usize,
    /// Where the history comes from: `exact (tracepoint)`.
    pub(super) source: String,
    pub(super) order: String,
    pub(super) time: String,
}

#[derive(Debug)]
pub(super) enum Body<'a> {
    Table(Table),
    /// A page that one can turn, from this line on.
    Page {
        title: String,
        lines: &'a [detail::Line],
        from: usize,
    },
}

/// The rows that are visible.
#[derive(Debug, Default)]
pub(super) struct Table {
    pub(super) columns: Vec<Column>,
    pub(super) rows: Vec<Vec<Cell>>,
    /// Which of them is chosen.
    pub(super) chosen: Option<usize>,
    /// What to say where there is none.
    pub(super) empty: String,
    /// The last changes, latest first, if they are shown.
    pub(super) history: Option<History>,
}

#[derive(Debug, Default)]
pub(super) struct History {
    pub(super) title: String,
    pub(super) lines: Vec<String>,
}

/// The last line.
#[derive(Debug)]
pub(super) enum Status<'a> {
    Hints(&'a str),
    Message {
        text: &'a str,
        tone: Tone,
    },
    /// A filter that is being typed, before and after the cursor, and what is wrong with it.
    Prompt {
        before: &'a str,
        after: &'a str,
        error: Option<&'a str>,
    },
}

/// How the lines of a screen are given away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Heights {
    pub(super) rows: u16,
    pub(super) history: u16,
    pub(super) status: u16,
}

/// How many lines of a screen of this height go where, if the history is `shown`. The first line is the header's, the
/// second the titles'.
pub(super) fn heights(height: u16, shown: bool) -> Heights {
    let status = u16::from(height >= STATUS_FROM);
    let history = if shown && height >= HISTORY_FROM { (height / 4).clamp(3, 10) } else { 0 };
    Heights { rows: height.saturating_sub(2 + status + history), history, status }
}

/// How many lines a page has for its text.
pub(super) fn page_height(height: u16) -> u16 {
    height.saturating_sub(1 + u16::from(height >= STATUS_FROM))
}

pub(super) fn draw(frame: &mut Frame<'_>, scene: &Scene<'_>) {
    let area = frame.area();
    if area.is_empty() {
        return;
    }
    let mut pen = Pen { frame, look: scene.look, area };
    match &scene.body {
        Body::Table(table) => {
            let heights = heights(area.height, table.history.is_some());
            pen.line(0, header(&scene.header, area.width.into(), scene.look));
            pen.table(table, heights);
            if let Some(history) = &table.history {
                pen.history(history, area.height - heights.history - heights.status, heights.history);
            }
        }
        Body::Page { title, lines, from } => {
            pen.line(0, Line::styled(cut(title, area.width.into(), scene.look.ascii), Modifier::BOLD));
            pen.page(lines, *from);
        }
    }
    if area.height >= STATUS_FROM {
        pen.status(&scene.status);
    }
}

/// What there is room for, the least needed left out first.
fn header(header: &Header, room: usize, look: Look) -> Line<'static> {
    let name = if header.filter.is_empty() { String::new() } else { format!(" {}", header.filter) };
    let plural = if header.sockets == 1 { "" } else { "s" };
    // A few words less where there is little room.
    let (command, source) = match room {
        0..60 => ("watch", header.source.split(' ').next().unwrap_or_default().to_owned()),
        _ => ("towpath watch", format!("events: {}", header.source)),
    };
    // Each with its rank: the highest goes first.
    let mut parts = vec![
        (0, format!("{command}{name}")),
        (1, if header.paused { "PAUSED".to_owned() } else { String::new() }),
        (1, header.recording.clone()),
        (6, format!("every {}", header.interval)),
        (2, format!("{} socket{plural}", header.sockets)),
        (3, source),
        (4, if header.order.is_empty() { String::new() } else { format!("by {}", header.order) }),
        (5, header.time.clone()),
    ];
    parts.retain(|(_, text)| !text.is_empty());
    while parts.iter().map(|(_, text)| width(text) + 3).sum::<usize>() > room + 3 && parts.len() > 1 {
        let last = parts.iter().map(|(rank, _)| *rank).max();
        parts.retain(|(rank, _)| Some(*rank) != last);
    }
    let mut spans = Vec::new();
    for (at, (rank, text)) in parts.into_iter().enumerate() {
        if at > 0 {
            spans.push(Span::raw("   "));
        }
        let style = match rank {
            0 => Style::new().add_modifier(Modifier::BOLD),
            1 => style(Tone::Alarm, look),
            _ => Style::new(),
        };
        spans.push(Span::styled(cut(&text, room, look.ascii), style));
    }
    Line::from(spans)
}

struct Pen<'a, 'b> {
    frame: &'a mut Frame<'b>,
    look: Look,
    area: Rect,
}

impl Pen<'_, '_> {
    /// Writes a line, as far as there is room for it.
    fn line(&mut self, y: u16, line: Line<'_>) {
        if y < self.area.height {
            let (x, top, room) = (self.area.x, self.area.y, self.area.width);
            self.frame.buffer_mut().set_line(x, top + y, &line, room);
        }
    }

    fn table(&mut self, table: &Table, heights: Heights) {
        // One cell for the mark of the chosen row, and one beside it, where they are to be had.
        let mark = if self.area.width >= 20 { 2 } else { 0 };
        let room = usize::from(self.area.width) - mark;
        let widths: Vec<(Column, usize)> = (table.columns.iter().enumerate())
            .map(|(at, &column)| {
                let cells = table.rows.iter().map(|row| width(&row[at].text));
                (column, cells.max().unwrap_or(0).max(width(column.title())))
            })
            .collect();
        let fitting = columns::fit(&widths, room);
        let titles: Vec<Cell> =
            (table.columns.iter()).map(|column| Cell { text: column.title().to_owned(), tone: Tone::Aside }).collect();
        let titles = self.row(&table.columns, &titles, &fitting, mark, false);
        self.line(1, titles);
        if table.rows.is_empty() && heights.rows > 0 {
            let empty = cut(&table.empty, room, self.look.ascii);
            self.line(2, Line::from(vec![Span::raw(" ".repeat(mark)), Span::styled(empty, Modifier::DIM)]));
        }
        for (y, row) in (0..heights.rows).zip(&table.rows) {
            let line = self.row(&table.columns, row, &fitting, mark, table.chosen == Some(y.into()));
            self.line(2 + y, line);
        }
    }

    fn row(
        &self,
        columns: &[Column],
        cells: &[Cell],
        fitting: &[(Column, usize)],
        mark: usize,
        chosen: bool,
    ) -> Line<'static> {
        let ascii = self.look.ascii;
        let under = if chosen { Style::new().add_modifier(Modifier::REVERSED) } else { Style::new() };
        let sign = match (chosen, ascii) {
            (false, _) => " ",
            (true, true) => ">",
            (true, false) => "▶",
        };
        let mut spans = vec![Span::styled(format!("{sign:<mark$}").chars().take(mark).collect::<String>(), under)];
        for (at, &(column, room)) in fitting.iter().enumerate() {
            let Some(cell) = columns.iter().position(|&other| other == column).map(|index| &cells[index]) else {
                continue;
            };
            let text = cut(&cell.text, room, ascii);
            let space = " ".repeat(room.saturating_sub(width(&text)));
            let gap = if at > 0 { " ".repeat(GAP) } else { String::new() };
            let (before, after) = if is_number(column) { (gap + &space, String::new()) } else { (gap, space) };
            spans.push(Span::styled(before, under));
            spans.push(Span::styled(text, under.patch(style(cell.tone, self.look))));
            spans.push(Span::styled(after, under));
        }
        Line::from(spans)
    }

    fn history(&mut self, history: &History, top: u16, height: u16) {
        if height == 0 {
            return;
        }
        let rule = if self.look.ascii { "-" } else { "─" };
        let room = usize::from(self.area.width);
        let title = cut(&format!("{} {} ", rule.repeat(2), history.title), room, self.look.ascii);
        let rest = rule.repeat(room - width(&title));
        self.line(top, Line::styled(title + &rest, Modifier::DIM));
        for (y, text) in (1..height).zip(&history.lines) {
            self.line(top + y, Line::raw(text.clone()));
        }
    }

    fn page(&mut self, lines: &[detail::Line], from: usize) {
        let labels = lines.iter().map(|line| width(&line.label)).max().unwrap_or(0);
        let height = page_height(self.area.height);
        for (y, line) in (1..=height).zip(lines.iter().skip(from)) {
            let label = format!("{:<labels$}  ", line.label);
            self.line(
                y,
                Line::from(vec![
                    Span::styled(label, Modifier::DIM),
                    Span::styled(line.text.clone(), style(line.tone, self.look)),
                ]),
            );
        }
    }

    fn status(&mut self, status: &Status<'_>) {
        let y = self.area.height - 1;
        let room = usize::from(self.area.width);
        match *status {
            Status::Hints(hints) => self.line(y, Line::styled(hints, Modifier::DIM)),
            Status::Message { text, tone } => {
                let text = cut(text, room, self.look.ascii);
                self.line(y, Line::styled(text, style(tone, self.look)));
            }
            Status::Prompt { before, after, error } => {
                // The cursor stays in sight.
                let shown = tail(before, room.saturating_sub(2));
                let x = width(shown) + 1;
                let mut spans =
                    vec![Span::styled("/", Modifier::BOLD), Span::raw(shown.to_owned()), Span::raw(after.to_owned())];
                if let Some(error) = error {
                    let text = Span::styled(cut(error, room, self.look.ascii), style(Tone::Alarm, self.look));
                    if x + width(after) + 3 + width(error) <= room {
                        spans.push(Span::raw("   "));
                        spans.push(text);
                    } else {
                        // It says more than the line above.
                        self.line(y - 1, Line::raw(" ".repeat(room)));
                        self.line(y - 1, Line::from(text));
                    }
                }
                self.line(y, Line::from(spans));
                let x = u16::try_from(x).unwrap_or(u16::MAX).min(self.area.width - 1);
                self.frame.set_cursor_position(Position::new(self.area.x + x, self.area.y + y));
            }
        }
    }
}

/// The end of `text` that fits into `room` cells.
fn tail(text: &str, room: usize) -> &str {
    let mut starts = text.char_indices().map(|(at, _)| at).chain([text.len()]);
    starts.find(|&at| width(&text[at..]) <= room).map_or("", |at| &text[at..])
}

/// Without colour, what is striking is so by other means.
fn style(tone: Tone, look: Look) -> Style {
    let (bold, color) = (Style::new().add_modifier(Modifier::BOLD), look.color);
    match tone {
        Tone::Plain => Style::new(),
        Tone::Aside => Style::new().add_modifier(Modifier::DIM),
        Tone::Changed if color => bold.fg(Color::Yellow),
        Tone::Changed => bold.add_modifier(Modifier::UNDERLINED),
        Tone::Alarm if color => bold.fg(Color::Red),
        Tone::Alarm => bold.add_modifier(Modifier::REVERSED),
    }
}

#[cfg(test)]
mod tests;
