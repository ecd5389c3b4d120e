//! The table and the JSON: what was measured, the limit beside it, the goal, and whether it was met.

use std::fmt;

use serde::Serialize;

/// What a figure is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// So many in a second.
    PerSecond,
    /// Microseconds.
    Microseconds,
    /// Milliseconds.
    Milliseconds,
    /// Bytes.
    Bytes,
    /// A count of something that the row names.
    Count,
}

/// What a row is held against.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Goal {
    /// Ours divided by the limit is at least this.
    RatioAtLeast(f64),
    /// Ours divided by the limit is at most this.
    RatioAtMost(f64),
    /// Ours is at most this, whatever the limit.
    AtMost(f64),
    /// Ours exceeds the limit by at most this.
    ExcessAtMost(f64),
    /// There for the record.
    None,
}

/// One line of the table.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// What is measured.
    pub what: String,
    /// What the limit is.
    pub limited_by: String,
    /// Our figure.
    pub ours: f64,
    /// The limit's, measured in the same run; none where there is nothing to measure beside it.
    pub limit: Option<f64>,
    /// What both are of.
    pub unit: Unit,
    /// What is wanted.
    pub goal: Goal,
    /// What else a reader has to know.
    pub note: String,
}

impl Row {
    /// A row without goal and note.
    pub fn new(what: impl Into<String>, unit: Unit, ours: f64) -> Self {
        let (limited_by, note) = (String::new(), String::new());
        Self { what: what.into(), limited_by, ours, limit: None, unit, goal: Goal::None, note }
    }

    /// The same beside a limit.
    #[must_use]
    pub fn beside(mut self, limited_by: impl Into<String>, limit: f64) -> Self {
        self.limited_by = limited_by.into();
        self.limit = Some(limit);
        self
    }

    /// The same with a goal.
    #[must_use]
    pub fn goal(mut self, goal: Goal) -> Self {
        self.goal = goal;
        self
    }

    /// The same with something to know.
    #[must_use]
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.note = note.into();
        self
    }

    /// Ours divided by the limit.
    #[must_use]
    pub fn ratio(&self) -> Option<f64> {
        self.limit.filter(|limit| *limit > 0.0).map(|limit| self.ours / limit)
    }

    /// Whether the goal is met; none where there is none, or nothing to compare with.
    #[must_use]
    pub fn is_met(&self) -> Option<bool> {
        match self.goal {
            Goal::RatioAtLeast(least) => self.ratio().map(|ratio| ratio >= least),
            Goal::RatioAtMost(most) => self.ratio().map(|ratio| ratio <= most),
            Goal::AtMost(most) => Some(self.ours <= most),
            Goal::ExcessAtMost(most) => self.limit.map(|limit| self.ours - limit <= most),
            Goal::None => None,
        }
    }
}

/// All rows of one run.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Report {
    rows: Vec<Row>,
}

impl Report {
    /// Adds rows.
    pub fn extend(&mut self, rows: impl IntoIterator<Item = Row>) {
        self.rows.extend(rows);
    }

    /// The rows so far.
    #[must_use]
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }
}

/// As JSON, with what follows from the figures.
impl Serialize for Report {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Judged<'a> {
            #[serde(flatten)]
            row: &'a Row,
            ratio: Option<f64>,
            met: Option<bool>,
        }
        serializer.collect_seq(self.rows.iter().map(|row| Judged { row, ratio: row.ratio(), met: row.is_met() }))
    }
}

/// As a table for people.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let header = ["what", "ours", "limit", "ratio", "goal", "met", "limited by"].map(str::to_owned);
        let lines: Vec<_> = std::iter::once(header).chain(self.rows.iter().map(cells)).collect();
        let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or_default();
        let widths: [usize; 7] = std::array::from_fn(width);
        for line in &lines {
            for (column, (cell, width)) in line.iter().zip(widths).enumerate() {
                match column {
                    // Words to the left, figures to the right.
                    0 => write!(f, "{cell:width$}")?,
                    6 => write!(f, "  {cell}")?,
                    _ => write!(f, "  {cell:>width$}")?,
                }
            }
            writeln!(f)?;
        }
        for row in self.rows.iter().filter(|row| !row.note.is_empty()) {
            writeln!(f, "{}: {}", row.what, row.note)?;
        }
        Ok(())
    }
}

fn cells(row: &Row) -> [String; 7] {
    let show = |value| figure(value, row.unit);
    let goal = match row.goal {
        Goal::RatioAtLeast(least) => format!(">= {least:.2}x"),
        Goal::RatioAtMost(most) => format!("<= {most:.2}x"),
        Goal::AtMost(most) => format!("<= {}", show(most)),
        Goal::ExcessAtMost(most) => format!("<= limit + {}", show(most)),
        Goal::None => String::new(),
    };
    let met = match row.is_met() {
        Some(true) => "yes",
        Some(false) => "NO",
        None => "",
    };
    [
        row.what.clone(),
        show(row.ours),
        row.limit.map(show).unwrap_or_default(),
        row.ratio().map(|ratio| format!("{ratio:.2}")).unwrap_or_default(),
        goal,
        met.to_owned(),
        row.limited_by.clone(),
    ]
}

fn figure(value: f64, unit: Unit) -> String {
    let number = |value: f64| if value.abs() < 100.0 { format!("{value:.2}") } else { format!("{value:.0}") };
    match unit {
        Unit::PerSecond => format!("{}/s", number(value)),
        Unit::Microseconds => format!("{} us", number(value)),
        Unit::Milliseconds => format!("{} ms", number(value)),
        Unit::Bytes if value.abs() >= f64::from(1 << 20) => format!("{:.2} MiB", value / f64::from(1 << 20)),
        Unit::Bytes if value.abs() >= 1024.0 => format!("{:.2} KiB", value / 1024.0),
        Unit::Bytes => format!("{value:.0} B"),
        Unit::Count => number(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(ours: f64, limit: f64, goal: Goal) -> Row {
        Row::new("x", Unit::Bytes, ours).beside("y", limit).goal(goal)
    }

    #[test]
    fn goals_are_held_against_what_they_are_about() {
        let met = |ours, limit, goal| row(ours, limit, goal).is_met();
        assert_eq!(met(50.0, 100.0, Goal::RatioAtLeast(0.5)), Some(true));
        assert_eq!(met(49.0, 100.0, Goal::RatioAtLeast(0.5)), Some(false));
        assert_eq!(met(200.0, 100.0, Goal::RatioAtMost(2.0)), Some(true));
        assert_eq!(met(201.0, 100.0, Goal::RatioAtMost(2.0)), Some(false));
        assert_eq!(met(11.0, 100.0, Goal::AtMost(10.0)), Some(false));
        assert_eq!(met(11.0, 1.0, Goal::ExcessAtMost(10.0)), Some(true));
        assert_eq!(met(11.1, 1.0, Goal::ExcessAtMost(10.0)), Some(false));
        assert_eq!(met(1.0, 1.0, Goal::None), None);
    }

    #[test]
    fn without_a_limit_there_is_no_ratio_and_nothing_is_met() {
        let alone = Row::new("x", Unit::Count, 5.0).goal(Goal::RatioAtLeast(0.5));
        assert_eq!((alone.ratio(), alone.is_met()), (None, None));
        assert_eq!(row(5.0, 0.0, Goal::RatioAtLeast(0.5)).is_met(), None);
    }

    #[test]
    fn the_table_lines_up_and_says_what_is_not_met() {
        let mut report = Report::default();
        report.extend([row(2048.0, 1024.0, Goal::RatioAtMost(1.5)).note("why"), row(1.0, 2.0, Goal::None)]);
        let text = report.to_string();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(
            lines[1].split_whitespace().collect::<Vec<_>>(),
            ["x", "2.00", "KiB", "1.00", "KiB", "2.00", "<=", "1.50x", "NO", "y"]
        );
        assert_eq!(lines[0].find("limited by"), lines[1].rfind('y'));
        assert_eq!(lines[3], "x: why");
    }
}
