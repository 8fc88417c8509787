//! The promises, as data, and whether what was seen keeps them. Pure: no clock, no cache, no terminal.

use std::time::Duration;

/// What was seen, in plain numbers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Observations {
    /// How many times as fast as the wall policy time ran.
    pub(crate) factor: u32,
    /// One for each promise.
    pub(crate) seen: Vec<Observation>,
}

/// What was seen of one promise.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Observation {
    /// The promise.
    pub(crate) id: &'static str,
    /// A count, or milliseconds: as the promise's [`Unit`] says.
    pub(crate) seen: u64,
    /// Within how much policy time; for promises that are rates.
    pub(crate) within: Duration,
}

/// A chapter of the story.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    ColdStart,
    Tokens,
    Freshness,
    Rotation,
    Flood,
    SlowProvider,
    DeadProvider,
    StaleWindowOver,
    Recovery,
    DeniedKey,
}

impl Step {
    /// All of them, in the story's order.
    pub(crate) const ALL: [Self; 10] = [
        Self::ColdStart,
        Self::Tokens,
        Self::Freshness,
        Self::Rotation,
        Self::Flood,
        Self::SlowProvider,
        Self::DeadProvider,
        Self::StaleWindowOver,
        Self::Recovery,
        Self::DeniedKey,
    ];

    /// Its name, for people.
    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::ColdStart => "Cold start",
            Self::Tokens => "Real tokens",
            Self::Freshness => "Staying fresh",
            Self::Rotation => "Key rotation",
            Self::Flood => "Unknown kids",
            Self::SlowProvider => "Slow provider",
            Self::DeadProvider => "Dead provider",
            Self::StaleWindowOver => "Window over",
            Self::Recovery => "Recovery",
            Self::DeniedKey => "Denied key",
        }
    }
}

/// What the numbers of a promise are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Requests, tokens, lookups: whatever the promise's text says.
    Count,
    /// Milliseconds of the wall.
    Millis,
    /// Milliseconds of policy time.
    PolicyMillis,
}

/// What keeps a promise.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Rule {
    /// Just this.
    Exactly(u64),
    /// This or less. Times have [`SLACK`] on top, for the machine.
    AtMost(u64),
    /// This or more.
    AtLeast(u64),
    /// So many in each period that has begun.
    AtMostEach { most: u64, period: Duration },
    /// One, then one after each of waits that double, the shortest being this.
    DoublingWaits { first: Duration },
}

/// How late a busy machine may wake somebody, in wall time. It is added to promises about time, and to no other.
pub(crate) const SLACK: Duration = Duration::from_millis(150);

/// One promise.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Promise {
    /// Its stable name.
    pub(crate) id: &'static str,
    /// Where in the story it is put to the test.
    pub(crate) step: Step,
    /// What is promised, in words, the number aside.
    pub(crate) text: &'static str,
    /// What the numbers are.
    pub(crate) unit: Unit,
    /// What keeps it.
    pub(crate) rule: Rule,
}

/// Whether one promise held.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Verdict {
    /// The promise.
    pub(crate) promise: &'static Promise,
    /// What was seen; nothing when the story did not get there.
    pub(crate) seen: Option<Observation>,
    /// The number that the rule came to, for what was seen.
    pub(crate) limit: u64,
    /// Whether it held. What was not seen did not hold.
    pub(crate) held: bool,
}

const fn promise(id: &'static str, step: Step, unit: Unit, rule: Rule, text: &'static str) -> Promise {
    Promise { id, step, text, unit, rule }
}

/// How long a key set is fresh here, by policy time.
pub(crate) const LIFETIME: Duration = Duration::from_secs(30);
/// How long after that it is served while its provider fails, by policy time.
pub(crate) const STALE_WINDOW: Duration = Duration::from_secs(45);
/// The least policy time between two requests that unknown kids cause.
pub(crate) const KID_MISS_INTERVAL: Duration = Duration::from_secs(5);
/// The shortest wait between failed flights, by policy time; the next are twice as long each.
pub(crate) const INITIAL_BACKOFF: Duration = Duration::from_secs(1);
/// How long a caller waits for a refresh before it gets expired keys, by the wall.
pub(crate) const STALE_WAIT: Duration = Duration::from_millis(250);
/// How many callers come to each cold provider.
pub(crate) const CALLERS: u64 = 1_000;
/// How many tokens are checked where tokens are checked, a tenant.
pub(crate) const TOKENS: u64 = 20;

/// Every promise, in the order of the story. The first of a step is its headline.
pub(crate) const PROMISES: &[Promise] = {
    use Rule::{AtLeast, AtMost, AtMostEach, DoublingWaits, Exactly};
    use Step::{
        ColdStart, DeadProvider, DeniedKey, Flood, Freshness, Recovery, Rotation, SlowProvider,
        StaleWindowOver, Tokens,
    };
    use Unit::{Count, Millis, PolicyMillis};
    // The wait after the first failure is drawn from half of twice `INITIAL_BACKOFF` up.
    let first = INITIAL_BACKOFF;
    &[
        promise("cold.requests", ColdStart, Count, Exactly(1), "requests at each provider"),
        promise("cold.answered", ColdStart, Count, Exactly(2 * CALLERS), "callers answered with keys"),
        promise("tokens.verified", Tokens, Count, Exactly(2 * TOKENS), "genuine tokens verified"),
        promise("tokens.crossed", Tokens, Count, Exactly(0), "tokens that the other tenant's key let in"),
        promise("tokens.forged", Tokens, Count, Exactly(0), "altered tokens let in"),
        promise(
            "fresh.requests",
            Freshness,
            Count,
            AtMostEach { most: 2, period: LIFETIME },
            "requests at each provider, two a lifetime",
        ),
        promise("fresh.whole", Freshness, Count, Exactly(0), "key sets sent whole instead of a 304"),
        promise("fresh.waited", Freshness, Count, Exactly(0), "lookups that waited"),
        promise("fresh.failed", Freshness, Count, Exactly(0), "lookups that failed"),
        promise("rotation.refused", Rotation, Count, Exactly(0), "good tokens refused"),
        promise("rotation.requests", Rotation, Count, AtMost(1), "requests for the new key at each provider"),
        promise("rotation.old", Rotation, Count, Exactly(2 * TOKENS), "tokens of the old keys verified"),
        promise(
            "flood.requests",
            Flood,
            Count,
            AtMostEach { most: 1, period: KID_MISS_INTERVAL },
            "requests for unknown kids, one per 5 s",
        ),
        promise(
            "flood.let_in",
            Flood,
            Count,
            Exactly(0),
            "made-up kids answered by anything but \"unknown\"",
        ),
        promise("flood.waited", Flood, Count, Exactly(0), "lookups of known keys that waited or failed"),
        promise(
            "flood.rotation",
            Flood,
            PolicyMillis,
            AtMost(KID_MISS_INTERVAL.as_millis() as u64),
            "until a real new key is seen",
        ),
        promise("slow.fresh", SlowProvider, Count, Exactly(0), "lookups of fresh keys that waited"),
        promise(
            "slow.expired",
            SlowProvider,
            Millis,
            AtMost(STALE_WAIT.as_millis() as u64),
            "longest wait of a caller for expired keys",
        ),
        promise("slow.later", SlowProvider, Count, Exactly(0), "later lookups that waited"),
        promise("slow.failed", SlowProvider, Count, Exactly(0), "lookups that failed"),
        promise("dead.failed", DeadProvider, Count, Exactly(0), "lookups that failed"),
        promise("dead.stale", DeadProvider, Count, AtLeast(1), "lookups served stale, and counted"),
        promise(
            "dead.requests",
            DeadProvider,
            Count,
            DoublingWaits { first },
            "failing requests, after waits that double",
        ),
        promise("dead.uncounted", DeadProvider, Count, Exactly(0), "failures that the cache did not count"),
        promise("over.served", StaleWindowOver, Count, Exactly(0), "lookups served after the window"),
        promise(
            "over.distinct",
            StaleWindowOver,
            Count,
            Exactly(100),
            "of 100 lookups told \"keys unavailable\"",
        ),
        promise(
            "over.neighbour",
            StaleWindowOver,
            Count,
            Exactly(100),
            "of 100 lookups of the other tenant served",
        ),
        promise("recovery.time", Recovery, PolicyMillis, AtMost(10_000), "until keys are back"),
        promise("recovery.requests", Recovery, Count, Exactly(1), "requests that it took"),
        promise("recovery.told", Recovery, Count, Exactly(1), "events that tell of it"),
        promise("denied.accepted", DeniedKey, Count, Exactly(0), "tokens let in under the denied key"),
        promise(
            "denied.neighbour",
            DeniedKey,
            Count,
            Exactly(TOKENS),
            "tokens of the same kid elsewhere verified",
        ),
        promise(
            "denied.allowed",
            DeniedKey,
            Count,
            Exactly(TOKENS),
            "tokens verified once it is allowed again",
        ),
    ]
};

/// A verdict on every promise, in their order.
pub(crate) fn judge(observations: &Observations) -> Vec<Verdict> {
    PROMISES.iter().map(|promise| promise.verdict(observations)).collect()
}

/// The verdicts on one step's promises.
pub(crate) fn judge_step(step: Step, observations: &Observations) -> Vec<Verdict> {
    judge(observations).into_iter().filter(|verdict| verdict.promise.step == step).collect()
}

/// Counts that a machine which stands still for a part of a lifetime can spoil, as a timer or a caller then
/// comes after the keys' time.
const PACED: &[&str] = &["fresh.waited", "flood.waited", "slow.fresh", "dead.failed"];

impl Promise {
    /// Whether it measures time, or counts on a machine that keeps pace with scaled policy time.
    pub(crate) fn is_timed(&self) -> bool {
        self.unit != Unit::Count || PACED.contains(&self.id)
    }

    fn verdict(&'static self, observations: &Observations) -> Verdict {
        let mut seen = observations.seen.iter().filter(|seen| seen.id == self.id);
        let first = seen.next().copied();
        let within = first.map_or(Duration::ZERO, |seen| seen.within);
        let limit = self.rule.limit(within);
        let held = first.is_some_and(|of| match self.rule {
            Rule::Exactly(_) => of.seen == limit,
            Rule::AtLeast(_) => of.seen >= limit,
            Rule::AtMost(_) => of.seen <= limit.saturating_add(self.unit.slack(observations.factor)),
            Rule::AtMostEach { .. } | Rule::DoublingWaits { .. } => of.seen <= limit,
        });
        // What was told twice is not known.
        Verdict { promise: self, seen: first, limit, held: held && seen.next().is_none() }
    }
}

impl Rule {
    fn limit(self, within: Duration) -> u64 {
        match self {
            Self::Exactly(number) | Self::AtMost(number) | Self::AtLeast(number) => number,
            Self::AtMostEach { most, period } => {
                let periods = within.as_nanos().div_ceil(period.as_nanos().max(1)).max(1);
                most.saturating_mul(u64::try_from(periods).unwrap_or(u64::MAX))
            }
            Self::DoublingWaits { first } => {
                // One at once, and one after each wait that has room: first × (1 + 2 + 4 + …) ≤ within.
                let room = within.as_nanos() / first.as_nanos().max(1);
                1 + u64::from(room.saturating_add(1).ilog2())
            }
        }
    }
}

impl Unit {
    fn slack(self, factor: u32) -> u64 {
        let slack = match self {
            Self::Count => Duration::ZERO,
            Self::Millis => SLACK,
            Self::PolicyMillis => SLACK.saturating_mul(factor),
        };
        u64::try_from(slack.as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WITHIN: Duration = Duration::from_secs(60);

    /// Observations that just keep every promise.
    fn good() -> Observations {
        let seen = PROMISES
            .iter()
            .map(|promise| Observation { id: promise.id, seen: promise.rule.limit(WITHIN), within: WITHIN })
            .collect();
        Observations { factor: 10, seen }
    }

    fn broken(observations: &Observations) -> Vec<&'static str> {
        judge(observations).iter().filter(|verdict| !verdict.held).map(|verdict| verdict.promise.id).collect()
    }

    /// The numbers next to the limit that break a promise.
    fn breaking(promise: &Promise) -> Vec<u64> {
        let limit = promise.rule.limit(WITHIN);
        let above = limit + promise.unit.slack(10) + 1;
        match promise.rule {
            Rule::Exactly(0) => vec![1],
            Rule::Exactly(_) => vec![limit - 1, limit + 1],
            Rule::AtLeast(_) => vec![limit - 1],
            Rule::AtMost(_) | Rule::AtMostEach { .. } | Rule::DoublingWaits { .. } => vec![above],
        }
    }

    #[test]
    fn what_keeps_every_promise_passes() {
        assert_eq!(broken(&good()), [""; 0]);
    }

    #[test]
    fn one_broken_observation_fails_exactly_its_promise() {
        for (at, promise) in PROMISES.iter().enumerate() {
            for seen in breaking(promise) {
                let mut observations = good();
                observations.seen[at].seen = seen;
                assert_eq!(broken(&observations), [promise.id], "{seen}");
            }
        }
    }

    #[test]
    fn what_was_not_seen_or_was_told_twice_did_not_hold() {
        for (at, promise) in PROMISES.iter().enumerate() {
            let mut observations = good();
            let seen = observations.seen.remove(at);
            assert_eq!(broken(&observations), [promise.id]);
            observations.seen.extend([seen, seen]);
            assert_eq!(broken(&observations), [promise.id]);
        }
        assert_eq!(broken(&Observations::default()).len(), PROMISES.len());
    }

    #[test]
    fn every_step_has_a_promise_and_every_promise_a_name_of_its_own() {
        for step in Step::ALL {
            assert!(PROMISES.iter().any(|promise| promise.step == step), "{step:?}");
        }
        for (at, promise) in PROMISES.iter().enumerate() {
            assert!(PROMISES[..at].iter().all(|other| other.id != promise.id), "{}", promise.id);
        }
        for id in PACED {
            assert!(PROMISES.iter().any(|promise| promise.id == *id), "{id}");
        }
        assert!(PROMISES.is_sorted_by_key(|promise| Step::ALL.iter().position(|step| *step == promise.step)));
    }

    #[test]
    fn rates_grow_with_the_time_they_were_watched() {
        let seconds = Duration::from_secs;
        let each = Rule::AtMostEach { most: 2, period: seconds(30) };
        for (within, want) in [(0, 2), (29, 2), (30, 2), (31, 4), (120, 8)] {
            assert_eq!(each.limit(seconds(within)), want, "{within}");
        }
        let waits = Rule::DoublingWaits { first: seconds(1) };
        for (within, want) in [(0, 1), (1, 2), (2, 2), (3, 3), (7, 4), (62, 6), (63, 7)] {
            assert_eq!(waits.limit(seconds(within)), want, "{within}");
        }
        assert!(waits.limit(Duration::MAX) < 100);
    }
}
