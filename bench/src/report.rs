//! What was measured, as tables for people or JSON for programs. Knows no workload.

use std::fmt;
use std::time::Duration;

use serde_json::{Value, json};

use crate::contender::KINDS;

/// One measured thing.
#[derive(Clone, Debug)]
pub enum Cell {
    Count(usize),
    Of(usize, usize),
    Time(Duration),
    Nanos(f64),
    /// So many times something else.
    Times(f64),
    /// A mean.
    Mean(f64),
    /// Kilobytes, in thousands.
    Kilobytes(f64),
    /// It had not come when the run was cut off.
    NotWithin(Duration),
    /// It was not measured, or does not exist here.
    None,
}

impl From<usize> for Cell {
    fn from(count: usize) -> Self {
        Self::Count(count)
    }
}

impl From<Option<Duration>> for Cell {
    fn from(time: Option<Duration>) -> Self {
        time.map_or(Self::None, Self::Time)
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Count(count) => write!(f, "{count}"),
            Self::Of(some, all) => write!(f, "{some} of {all}"),
            Self::Time(time) => f.write_str(&readable(time)),
            Self::Nanos(nanos) => write!(f, "{nanos:.1} ns"),
            Self::Times(times) => write!(f, "{times:.2} ×"),
            Self::Mean(mean) => write!(f, "{mean:.2}"),
            Self::Kilobytes(bytes) => write!(f, "{:.2} kB", bytes / 1e3),
            Self::NotWithin(cap) => write!(f, "not in {}", readable(cap)),
            Self::None => f.write_str("–"),
        }
    }
}

impl Cell {
    fn json(&self) -> Value {
        match *self {
            Self::Count(count) | Self::Of(count, _) => count.into(),
            Self::Time(time) => time.as_secs_f64().into(),
            Self::Nanos(value) | Self::Times(value) | Self::Mean(value) | Self::Kilobytes(value) => {
                value.into()
            }
            Self::NotWithin(_) | Self::None => Value::Null,
        }
    }
}

/// A time with three digits that count.
pub fn readable(time: Duration) -> String {
    let (value, unit) = match time.as_secs_f64() {
        s if s >= 1.0 => (s, "s"),
        s if s >= 1e-3 => (s * 1e3, "ms"),
        s => (s * 1e6, "µs"),
    };
    let digits = if value >= 100.0 { 0 } else { 1 };
    format!("{value:.digits$} {unit}")
}

/// One line of a table.
struct Line {
    what: String,
    cells: Vec<Cell>,
    goal: Option<(String, bool)>,
}

/// One workload's table.
pub struct Table {
    id: &'static str,
    title: String,
    columns: Vec<&'static str>,
    lines: Vec<Line>,
}

impl Table {
    /// A table with a column for each contender.
    pub fn new(id: &'static str, title: impl Into<String>) -> Self {
        Self::with_columns(id, title, KINDS.map(|kind| kind.name()))
    }

    /// A table with columns of its own.
    pub fn with_columns(
        id: &'static str,
        title: impl Into<String>,
        columns: impl IntoIterator<Item = &'static str>,
    ) -> Self {
        Self { id, title: title.into(), columns: columns.into_iter().collect(), lines: Vec::new() }
    }

    /// A line that is only told.
    pub fn tell<C: Into<Cell>, const N: usize>(&mut self, what: impl Into<String>, cells: [C; N]) {
        self.lines.push(Line { what: what.into(), cells: cells.map(Into::into).into(), goal: None });
    }

    /// A line with a goal for ours, and whether it was met.
    pub fn judge<C: Into<Cell>, const N: usize>(
        &mut self,
        what: impl Into<String>,
        cells: [C; N],
        goal: &str,
        met: bool,
    ) {
        let goal = Some((goal.to_owned(), met));
        self.lines.push(Line { what: what.into(), cells: cells.map(Into::into).into(), goal });
    }

    /// How many goals there are, and how many were missed.
    pub fn score(&self) -> (usize, usize) {
        let goals = self.lines.iter().filter_map(|line| line.goal.as_ref());
        (goals.clone().count(), goals.filter(|(_, met)| !met).count())
    }

    pub fn json(&self) -> Value {
        let lines: Vec<_> = self
            .lines
            .iter()
            .map(|line| {
                let cells = self
                    .columns
                    .iter()
                    .zip(&line.cells)
                    .map(|(name, cell)| ((*name).to_owned(), cell.json()));
                json!({
                    "what": line.what,
                    "seen": cells.collect::<serde_json::Map<_, _>>(),
                    "goal": line.goal.as_ref().map(|(goal, _)| goal),
                    "met": line.goal.as_ref().map(|(_, met)| met),
                })
            })
            .collect();
        json!({"workload": self.id, "title": self.title, "lines": lines})
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.columns.len();
        let row = |what: &str, cells: Vec<String>, goal: &str, verdict: &str| {
            let mut row = vec![what.to_owned()];
            row.extend(cells);
            row.resize(columns + 1, String::new());
            row.extend([goal.to_owned(), verdict.to_owned()]);
            row
        };
        let mut rows = vec![row("", self.columns.iter().map(ToString::to_string).collect(), "goal", "")];
        for line in &self.lines {
            let (goal, verdict) = match &line.goal {
                Some((goal, met)) => (goal.as_str(), if *met { "met" } else { "MISSED" }),
                None => ("", ""),
            };
            rows.push(row(&line.what, line.cells.iter().map(Cell::to_string).collect(), goal, verdict));
        }
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<_> = (0..columns + 3).map(width).collect();
        writeln!(f, "{}  {}", self.id, self.title)?;
        for row in &rows {
            let mut text = String::from("  ");
            for (at, (cell, &width)) in row.iter().zip(&widths).enumerate() {
                // Names and goals to the left, figures to the right.
                match at {
                    at if (1..=columns).contains(&at) => text += &format!("{cell:>width$}   "),
                    _ => text += &format!("{cell:<width$}   "),
                }
            }
            writeln!(f, "{}", text.trim_end())?;
        }
        Ok(())
    }
}
