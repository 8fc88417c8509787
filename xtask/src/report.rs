//! The closing table, and the one plain line under it.

use std::process::ExitCode;
use std::time::{Duration, Instant};

/// How a row went.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    /// Tests ran.
    Ran {
        /// Tests that passed.
        passed: u64,
        /// Tests that failed; a command that failed without one counts as one.
        failed: u64,
        /// What failed, by name, so that nobody has to look for it further up.
        names: Vec<String>,
    },
    /// A check passed; it counts no tests.
    Passed,
    /// A check failed, or a part could not run, for this reason; it counts as one failure.
    Failed(String),
    /// Left out, for this reason.
    Skipped(&'static str),
}

impl Outcome {
    /// Of a check that prints what it finds.
    pub(crate) fn check(passed: bool) -> Self {
        if passed { Self::Passed } else { Self::Failed("what it printed above says why".to_owned()) }
    }

    fn failures(&self) -> u64 {
        match self {
            Self::Ran { failed, .. } => *failed,
            Self::Failed(_) => 1,
            Self::Passed | Self::Skipped(_) => 0,
        }
    }
}

/// Rows as they were run.
#[derive(Default)]
pub(crate) struct Report {
    rows: Vec<(&'static str, Outcome, Duration)>,
}

impl Report {
    /// Runs one row and keeps how it went.
    #[expect(clippy::disallowed_methods, reason = "how long a step took on this machine is wall time")]
    pub(crate) fn row(&mut self, name: &'static str, run: impl FnOnce() -> Outcome) {
        println!("\n== {name}");
        let start = Instant::now();
        let outcome = run();
        self.rows.push((name, outcome, start.elapsed()));
    }

    /// Prints the table and the line `N passed, N failed`.
    pub(crate) fn close(self) -> ExitCode {
        let text = self.text();
        println!("\n{text}");
        ExitCode::from(u8::from(self.failed() > 0))
    }

    fn failed(&self) -> u64 {
        self.rows.iter().map(|(_, outcome, _)| outcome.failures()).sum()
    }

    fn text(&self) -> String {
        let mut text = String::new();
        let mut all_passed = 0;
        for (name, outcome, took) in &self.rows {
            let went = match outcome {
                Outcome::Ran { passed, failed, names } => {
                    all_passed += passed;
                    let word = if *failed > 0 { "FAILED" } else { "ok" };
                    let names: String = names.iter().map(|name| format!("\n{:33}{name}", "")).collect();
                    format!("{word:7} {passed} passed, {failed} failed{names}")
                }
                Outcome::Passed => "ok".to_owned(),
                Outcome::Failed(why) => format!("FAILED  {why}"),
                Outcome::Skipped(why) => format!("skipped {why}"),
            };
            text.push_str(&format!("{name:20} {:>7.1} s  {went}\n", took.as_secs_f64()));
        }
        // The last line stands alone: it is what machines read.
        text.push_str(&format!("\n{all_passed} passed, {} failed", self.failed()));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_sums_all_rows_and_a_failed_check_is_one_failure() {
        let row = |name, outcome| (name, outcome, Duration::from_millis(1500));
        let ran = |passed, failed, names| Outcome::Ran { passed, failed, names };
        let report = Report {
            rows: vec![
                row("fmt", Outcome::check(true)),
                row("clippy", Outcome::check(false)),
                row("unit", ran(7, 0, vec![])),
                row("idp", ran(2, 3, vec!["a::first".to_owned(), "b::second".to_owned()])),
                row("corpora", Outcome::Skipped("not here")),
            ],
        };
        let text = report.text();
        assert_eq!(text.lines().last(), Some("9 passed, 4 failed"), "{text}");
        assert!(text.contains("1.5 s") && text.contains("skipped not here"), "{text}");
        assert!(text.contains(" a::first\n") && text.contains(" b::second\n"), "{text}");
        assert_eq!(report.close(), ExitCode::from(1));
    }
}
