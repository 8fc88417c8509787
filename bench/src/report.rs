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
    what: &'static str,
    cells: [Cell; 3],
    goal: Option<(String, bool)>,
}

/// One workload's table.
pub struct Table {
    id: &'static str,
    title: String,
    lines: Vec<Line>,
}

impl Table {
    pub fn new(id: &'static str, title: impl Into<String>) -> Self {
        Self { id, title: title.into(), lines: Vec::new() }
    }

    /// A line that is only told.
    pub fn tell<C: Into<Cell>>(&mut self, what: &'static str, cells: [C; 3]) {
        self.lines.push(Line { what, cells: cells.map(Into::into), goal: None });
    }

    /// A line with a goal for the first contender, and whether it met it.
    pub fn judge<C: Into<Cell>>(&mut self, what: &'static str, cells: [C; 3], goal: &str, met: bool) {
        self.lines.push(Line { what, cells: cells.map(Into::into), goal: Some((goal.to_owned(), met)) });
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
                let cells =
                    KINDS.iter().zip(&line.cells).map(|(kind, cell)| (kind.name().to_owned(), cell.json()));
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
        let mut rows = vec![["", "", "", "", "goal", ""].map(str::to_owned)];
        for (at, kind) in KINDS.iter().enumerate() {
            rows[0][at + 1] = kind.name().to_owned();
        }
        for line in &self.lines {
            let [ours, predecessor, by_hand] = line.cells.each_ref().map(Cell::to_string);
            let (goal, verdict) = match &line.goal {
                Some((goal, met)) => (goal.clone(), if *met { "met" } else { "MISSED" }),
                None => (String::new(), ""),
            };
            rows.push([line.what.to_owned(), ours, predecessor, by_hand, goal, verdict.to_owned()]);
        }
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<_> = (0..6).map(width).collect();
        writeln!(f, "{}  {}", self.id, self.title)?;
        for row in &rows {
            let mut text = String::from("  ");
            for (at, (cell, &width)) in row.iter().zip(&widths).enumerate() {
                // Names and goals to the left, figures to the right.
                match at {
                    1..=3 => text += &format!("{cell:>width$}   "),
                    _ => text += &format!("{cell:<width$}   "),
                }
            }
            writeln!(f, "{}", text.trim_end())?;
        }
        Ok(())
    }
}
