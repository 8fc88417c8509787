//! What happened, counted by kind. Every kind that can happen is listed from the start, at 0.

use std::collections::BTreeMap;
use std::fmt;

use super::{act, budget, fault, read};

/// How often each kind of thing happened in one run, or in many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Figures {
    /// Runs.
    pub seeds: u64,
    kinds: BTreeMap<(&'static str, &'static str), u64>,
}

/// How exchanges end.
const EXCHANGES: &[&str] =
    &["document", "not modified", "refused document", "failure", "timed out", "superseded"];
/// Which attempt of its flight a request is.
const REQUESTS: &[&str] = &["first", "retry"];

impl Figures {
    pub(super) fn new() -> Self {
        let groups: [(&str, Vec<&str>); 8] = [
            ("act", act::ACTS.iter().map(|act| act.name).collect()),
            ("fault", fault::FAULTS.iter().map(|fault| fault.name).collect()),
            ("read", read::READS.to_vec()),
            ("answer", read::ANSWERS.to_vec()),
            ("request", REQUESTS.to_vec()),
            ("memory", act::MEMORIES.to_vec()),
            ("flight", budget::FLIGHTS.to_vec()),
            ("exchange", EXCHANGES.to_vec()),
        ];
        let kinds =
            groups.into_iter().flat_map(|(group, kinds)| kinds.into_iter().map(move |kind| (group, kind)));
        Self { seeds: 0, kinds: kinds.map(|kind| (kind, 0)).collect() }
    }

    pub(super) fn count(&mut self, group: &'static str, kind: &'static str) {
        *self.kinds.entry((group, kind)).or_default() += 1;
    }

    /// Adds those of another run.
    pub fn add(&mut self, other: &Self) {
        self.seeds += other.seeds;
        for (kind, count) in &other.kinds {
            *self.kinds.entry(*kind).or_default() += count;
        }
    }

    /// All of a group: `act`, `fault`, `read`, `answer`, `request`, `flight`, `exchange`,
    /// `memory`.
    #[must_use]
    pub fn total(&self, group: &str) -> u64 {
        self.kinds.iter().filter(|((of, _), _)| *of == group).map(|(_, count)| count).sum()
    }

    /// How often one kind happened.
    #[must_use]
    pub fn of(&self, group: &'static str, kind: &'static str) -> u64 {
        self.kinds.get(&(group, kind)).copied().unwrap_or(0)
    }

    /// The kinds that never happened: what they would show, these runs did not.
    #[must_use]
    pub fn missing(&self) -> Vec<String> {
        let never = self.kinds.iter().filter(|(_, count)| **count == 0);
        never.map(|((group, kind), _)| format!("{group}: {kind}")).collect()
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for ((group, kind), count) in &self.kinds {
            writeln!(f, "{group:<9} {kind:<24} {count:>12}")?;
        }
        write!(
            f,
            "{} seeds, {} reads, {} exchanges, {} of them under faults",
            self.seeds,
            self.total("read"),
            self.total("exchange"),
            self.total("fault"),
        )
    }
}
