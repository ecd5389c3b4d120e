//! Tables for people: columns as wide as needed, shrunk with an ellipsis where the terminal is narrower.

use unicode_width::UnicodeWidthStr as _;

use crate::output::text::{Line, Span, Style, clean, ellipsis};

/// Between two columns.
const GAP: usize = 2;
/// A column is not shrunk below this: fewer columns of text tell nothing.
const NARROWEST: usize = 8;

/// One cell.
#[derive(Debug, Clone)]
pub(crate) struct Cell(String, Style);

impl Cell {
    /// Text in a style.
    pub(crate) fn styled(text: impl AsRef<str>, style: Style) -> Self {
        let text = clean(text.as_ref().trim());
        Self(if text.is_empty() { "-".to_owned() } else { text }, style)
    }
}

impl<T: AsRef<str>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::styled(text, Style::Plain)
    }
}

/// Rows under a heading.
#[derive(Debug)]
pub(crate) struct Table {
    heading: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// A table with these columns.
    pub(crate) fn new(heading: impl Into<Vec<&'static str>>) -> Self {
        Self { heading: heading.into(), rows: Vec::new() }
    }

    /// Adds a row with one cell for each column.
    pub(crate) fn row(&mut self, cells: impl Into<Vec<Cell>>) {
        let cells = cells.into();
        debug_assert_eq!(cells.len(), self.heading.len(), "a row has a cell for each column");
        self.rows.push(cells);
    }

    /// The lines, at most `width` columns wide; `None`: as wide as it takes.
    pub(crate) fn lines(&self, width: Option<usize>) -> Vec<Line> {
        let mut widths: Vec<usize> = self.heading.iter().map(|title| title.width()).collect();
        for row in &self.rows {
            for (column, cell) in widths.iter_mut().zip(row) {
                *column = (*column).max(cell.0.width());
            }
        }
        if let Some(width) = width {
            shrink(&mut widths, width);
        }
        let heading: Vec<Cell> = self.heading.iter().map(|title| Cell::styled(title, Style::Dim)).collect();
        std::iter::once(&heading)
            .chain(&self.rows)
            .map(|row| {
                let line = line(row, &widths);
                match width {
                    Some(width) => line.fit(width),
                    None => line,
                }
            })
            .collect()
    }
}

/// Takes from the widest column until all fit. What then still does not fit is cut off by the caller.
fn shrink(widths: &mut [usize], width: usize) {
    let gaps = GAP * widths.len().saturating_sub(1);
    while widths.iter().sum::<usize>() + gaps > width {
        let Some(widest) = widths.iter_mut().max().filter(|widest| **widest > NARROWEST) else { return };
        *widest -= 1;
    }
}

fn line(cells: &[Cell], widths: &[usize]) -> Line {
    let mut spans = Vec::with_capacity(2 * cells.len());
    for (index, (Cell(text, style), width)) in cells.iter().zip(widths).enumerate() {
        let text = ellipsis(text, *width);
        let last = index + 1 == cells.len();
        let padding = if last { 0 } else { width - text.width() + GAP };
        spans.push(Span { text, style: *style });
        spans.push(Span { text: " ".repeat(padding), style: Style::Plain });
    }
    Line(spans)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(["NAME", "SAYS", "TRY"]);
        table.row(["db-0".into(), "flushing the buffer pool, page 17 of 4711".into(), "1".into()]);
        table.row(["db-1".into(), "".into(), "2".into()]);
        table
    }

    fn text(lines: &[Line]) -> Vec<String> {
        lines.iter().map(Line::plain).collect()
    }

    #[test]
    fn columns_are_as_wide_as_their_content() {
        assert_eq!(
            text(&table().lines(None)),
            [
                "NAME  SAYS                                       TRY",
                "db-0  flushing the buffer pool, page 17 of 4711  1",
                "db-1  -                                          2",
            ]
        );
    }

    #[test]
    fn the_widest_column_gives_way_to_a_narrow_terminal() {
        assert_eq!(
            text(&table().lines(Some(30))),
            ["NAME  SAYS                 TRY", "db-0  flushing the buffe\u{2026}  1", "db-1  -                    2"]
        );
        assert!(table().lines(Some(12)).iter().all(|line| line.plain().width() <= 12));
    }
}
