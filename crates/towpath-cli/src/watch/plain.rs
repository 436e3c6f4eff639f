//! The table as text for a pipe: every column that says something, as wide as it must be, and nothing cut.

#![forbid(unsafe_code)]

use anstyle::{AnsiColor, Style as Paint};

use super::columns::{self, Cell, Column, Style, Tone, Whole, width};
use crate::output::look::Look;

/// The table with its heading, with newlines.
pub(crate) fn table<'a>(rows: impl IntoIterator<Item = Whole<'a>>, style: Style<'_>, look: Look) -> String {
    let rows: Vec<Vec<Cell>> =
        rows.into_iter().map(|whole| columns::ALL.iter().map(|column| column.cell(&whole, style)).collect()).collect();
    let widths: Vec<usize> = (columns::ALL.iter().enumerate())
        .map(|(at, column)| {
            let widest = rows.iter().map(|row| width(&row[at].text)).max().unwrap_or(0);
            widest.max(width(column.title()))
        })
        .collect();
    let mut text = String::new();
    let titles = columns::ALL.iter().map(|column| Cell { text: column.title().to_owned(), tone: Tone::Plain });
    for row in std::iter::once(titles.collect()).chain(rows) {
        line(&mut text, &row, &widths, look);
    }
    text
}

fn line(text: &mut String, row: &[Cell], widths: &[usize], look: Look) {
    let mut gap = 0;
    for ((cell, &room), column) in row.iter().zip(widths).zip(columns::ALL) {
        let space = room - width(&cell.text);
        let before = if is_number(column) { space } else { 0 };
        if !cell.text.is_empty() {
            text.extend(std::iter::repeat_n(' ', gap + before));
            text.push_str(&look.paint(paint(cell.tone), &cell.text));
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
