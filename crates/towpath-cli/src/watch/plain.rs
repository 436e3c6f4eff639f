//! The table as text for a pipe: every column that says something, as wide as it must be, and nothing cut.

#![forbid(unsafe_code)]

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style as Paint};

use super::columns::{self, Cell, Column, Style, Tone, Whole, width};
use crate::output::look::Look;

/// The table with its heading, with newlines.
pub(crate) fn table<'a>(rows: impl IntoIterator<Item = Whole<'a>>, style: Style<'_>, look: Look) -> String {
    excerpt(rows, &columns::ALL, usize::MAX, style, look)
}

/// The same with some of the columns, in `room` cells: what does not fit is left out as on a screen.
pub(crate) fn excerpt<'a>(
    rows: impl IntoIterator<Item = Whole<'a>>,
    columns: &[Column],
    room: usize,
    style: Style<'_>,
    look: Look,
) -> String {
    let titles = columns.iter().map(|column| Cell { text: column.title().to_owned(), tone: Tone::Plain });
    let mut lines: Vec<Vec<Cell>> = vec![titles.collect()];
    lines.extend(rows.into_iter().map(|whole| columns.iter().map(|column| column.cell(&whole, style)).collect()));
    let wanted = columns.iter().enumerate().map(|(at, &column)| {
        let widest = lines.iter().map(|line| width(&line[at].text)).max();
        (column, widest.unwrap_or(0))
    });
    let fitting = columns::fit(&wanted.collect::<Vec<_>>(), room);
    let mut text = String::new();
    for cells in lines {
        let cells = columns.iter().zip(cells).filter_map(|(&column, cell)| {
            let (_, room) = fitting.iter().find(|(fits, _)| *fits == column)?;
            Some((column, *room, Cell { text: columns::cut(&cell.text, *room, style.ascii), ..cell }))
        });
        line(&mut text, cells, look);
    }
    text
}

fn line(text: &mut String, cells: impl Iterator<Item = (Column, usize, Cell)>, look: Look) {
    let mut gap = 0;
    for (column, room, cell) in cells {
        let space = room - width(&cell.text);
        let before = if is_number(column) { space } else { 0 };
        if !cell.text.is_empty() {
            text.extend(std::iter::repeat_n(' ', gap + before));
            _ = write!(text, "{}", look.paint(paint(cell.tone), &cell.text));
            gap = 0;
        } else {
            gap += before;
        }
        gap += space - before + columns::GAP;
    }
    text.push('\n');
}

/// Whether it stands at the right end of its column.
pub(crate) fn is_number(column: Column) -> bool {
    matches!(column, Column::For | Column::Queues | Column::Rtt | Column::Cwnd | Column::Retrans)
}

fn paint(tone: Tone) -> Paint {
    match tone {
        Tone::Plain => Paint::new(),
        Tone::Aside => Paint::new().dimmed(),
        Tone::Changed => Paint::new().bold(),
        Tone::Alarm => AnsiColor::Red.on_default().bold(),
    }
}
