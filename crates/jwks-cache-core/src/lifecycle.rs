//! What happens next to a provider: who may start a flight, what its outcome changes, when the
//! timer wakes. The state machine of one provider; it starts nothing itself and knows no clock.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use http::HeaderMap;

use crate::freshness::{Bound, Freshness, Stated, StoredHeaders, Timing, Validators, assess};
use crate::keyset::{KeySet, Refusal, SetDiff, diff};
use crate::policy::{Policy, RefreshMode, doubled};
use crate::published::{Denials, Held, Published, Retiring};
use crate::time::{Dice, Moment};

/// The longest wait between flights while keys are servable.
const LONGEST_BACKOFF: Duration = Duration::from_secs(5 * 60);
/// The longest wait between flights while none are.
const LONGEST_BACKOFF_WITHOUT_KEYS: Duration = Duration::from_secs(10);
/// The longest a provider's `Retry-After` holds back the next flight.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(5 * 60);
/// How soon after a start another is made on request.
const BETWEEN_REQUESTED: Duration = Duration::from_secs(1);

/// Who asks for a flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asker {
    /// A reader whose keys are due, expired or absent.
    Reader,
    /// The timer; `read` says whether the provider was read since its last flight.
    Timer {
        /// Whether anyone read it.
        read: bool,
    },
    /// Somebody who insists: `refresh()`, `refresh_and_wait()`.
    Person,
    /// A reader who looked for a kid that is not held.
    MissingKid,
}

/// The answer to an [`Asker`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Start this flight; the asker owns that.
    Start(Plan),
    /// One runs.
    Flying,
    /// Not before this moment.
    NotBefore(Moment),
    /// Not at all: nobody uses the provider, or its mode has no timer.
    Quiet,
}

/// A flight to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Its number; a flight whose number is not the current one publishes nothing.
    pub number: u64,
    /// Who asked.
    pub asker: Asker,
    /// How many attempts it may make.
    pub attempts: u32,
    /// Whether it follows a failed one.
    pub after_failure: bool,
    /// Whether callers have nothing servable.
    pub cold: bool,
    /// What to send as conditions; empty for an unconditional request.
    pub validators: Validators,
}

impl Plan {
    /// Whether intermediaries must ask the origin: a missing kid must not be answered with the old set.
    #[must_use]
    pub fn bypasses_caches(&self) -> bool {
        self.asker == Asker::MissingKid
    }
}

/// How a flight ended.
#[derive(Debug)]
pub enum Outcome {
    /// A document that could be judged.
    Document {
        /// The judged set.
        set: Arc<KeySet>,
        /// Its freshness headers.
        headers: StoredHeaders,
        /// When.
        timing: Timing,
    },
    /// The held document is still the published one.
    NotModified {
        /// The headers of the 304.
        headers: HeaderMap,
        /// When.
        timing: Timing,
    },
    /// No document.
    Failed {
        /// What the provider asked for.
        retry_after: Option<Duration>,
    },
}

/// What an outcome changed.
#[derive(Debug)]
pub enum Change {
    /// A set was adopted.
    Adopted {
        /// The difference to the last one; everything is added when there was none.
        diff: SetDiff,
        /// Nothing in common with the last set, or new material under a held kid.
        suspicious: bool,
        /// Flights had been failing.
        recovered: bool,
    },
    /// The held set got a new lifetime.
    Renewed {
        /// Flights had been failing.
        recovered: bool,
    },
    /// The document was refused and what is held stays; counts as a failure.
    Refused(Refusal),
    /// The flight failed and what is held stays.
    Failed,
    /// A flight that had been given up; nothing happened.
    Ignored,
}

/// A set to hold from now on.
struct Document {
    set: Arc<KeySet>,
    headers: StoredHeaders,
    timing: Timing,
    retiring: Vec<Retiring>,
    /// Nothing was servable before: the first timer is drawn early, so that providers part.
    first: bool,
    /// Whether its validators may be sent.
    trusted: bool,
}

/// The state machine of one provider.
#[derive(Debug)]
pub struct Lifecycle {
    policy: Arc<Policy>,
    held: Option<Arc<Held>>,
    denials: Arc<Denials>,
    flight: Option<(u64, Asker)>,
    flights: u64,
    started_at: Option<Moment>,
    kid_flight_at: Option<Moment>,
    failures: u32,
    failed_at: Option<Moment>,
    backoff_until: Moment,
    negative_until: Moment,
    wake_at: Option<Moment>,
}

impl Lifecycle {
    /// A provider that holds nothing.
    #[must_use]
    pub fn new(policy: Arc<Policy>) -> Self {
        Self {
            policy,
            held: None,
            denials: Arc::default(),
            flight: None,
            flights: 0,
            started_at: None,
            kid_flight_at: None,
            failures: 0,
            failed_at: None,
            backoff_until: Moment::ORIGIN,
            negative_until: Moment::ORIGIN,
            wake_at: None,
        }
    }

    /// What readers get from now on.
    #[must_use]
    pub fn published(&self) -> Published {
        Published::new(self.held.clone(), self.denials.clone(), self.failed_at, self.backoff_until)
    }

    /// The settings in force.
    #[must_use]
    pub fn policy(&self) -> &Arc<Policy> {
        &self.policy
    }

    /// What is held.
    #[must_use]
    pub fn held(&self) -> Option<&Arc<Held>> {
        self.held.as_ref()
    }

    /// Flights that failed in a row.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// When the timer wants to be woken.
    #[must_use]
    pub fn wake_at(&self) -> Option<Moment> {
        self.wake_at
    }

    /// Until when a failed flight's error answers readers who have nothing.
    #[must_use]
    pub fn error_answers_until(&self) -> Moment {
        self.backoff_until.max(self.negative_until)
    }

    /// Whether a flight may start; the asker who gets [`Answer::Start`] owns it.
    pub fn ask(&mut self, asker: Asker, now: Moment) -> Answer {
        if self.flight.is_some() {
            return Answer::Flying;
        }
        let servable = self.held.as_ref().is_some_and(|held| held.is_servable(now));
        let not_before = match asker {
            Asker::Person => self.started_at.map_or(now, |at| at + BETWEEN_REQUESTED),
            // Another reader's flight may have landed between this one's look and its question.
            Asker::Reader if self.held.as_ref().is_some_and(|held| now < held.refresh_at) => {
                return Answer::Quiet;
            }
            Asker::Reader if servable => self.backoff_until,
            Asker::Reader => self.error_answers_until(),
            Asker::MissingKid => {
                let interval = self.policy.kid_miss_interval;
                self.backoff_until.max(self.kid_flight_at.map_or(now, |at| at + interval))
            }
            Asker::Timer { read } => {
                let Some(due) = self.wake_at else { return Answer::Quiet };
                if now >= due && !read && self.policy.refresh_mode != RefreshMode::Always {
                    self.wake_at = None;
                    return Answer::Quiet;
                }
                due.max(self.backoff_until)
            }
        };
        if now < not_before {
            if matches!(asker, Asker::Timer { .. }) {
                self.wake_at = Some(not_before);
            }
            return Answer::NotBefore(not_before);
        }
        if asker == Asker::MissingKid {
            self.kid_flight_at = Some(now);
        }
        self.flights += 1;
        self.flight = Some((self.flights, asker));
        self.started_at = Some(now);
        self.wake_at = None;
        let after_failure = self.failed_at.is_some();
        let single = after_failure || asker == Asker::MissingKid;
        let validators = match &self.held {
            Some(held) if held.validators_trusted => held.headers.validators(),
            _ => Validators::default(),
        };
        Answer::Start(Plan {
            number: self.flights,
            asker,
            attempts: if single { 1 } else { self.policy.retry.max_retries.saturating_add(1) },
            after_failure,
            cold: !servable,
            validators,
        })
    }

    /// Takes the outcome of flight `number`.
    pub fn land(&mut self, number: u64, outcome: Outcome, now: Moment, dice: &mut dyn Dice) -> Change {
        let asker = match self.flight {
            Some((current, asker)) if current == number => asker,
            _ => return Change::Ignored,
        };
        self.flight = None;
        match outcome {
            Outcome::Document { set, headers, timing } => {
                let servable = self.held.as_ref().filter(|held| held.is_servable(now));
                let usable_held = servable.is_some_and(|held| held.set.usable().next().is_some());
                if usable_held && set.usable().next().is_none() {
                    self.fail(asker, None, now, dice);
                    return Change::Refused(Refusal::NothingUsable);
                }
                let last = self.held.as_ref().map(|held| held.set.clone());
                let diff = last.as_ref().map_or_else(|| SetDiff::all_of(&set), |last| diff(last, &set));
                let suspicious = last.is_some() && (diff.disjoint || !diff.changed.is_empty());
                let first = servable.is_none();
                let retiring = self.retire(&set, timing.received_at);
                self.learn_denied(&set);
                self.hold(Document { set, headers, timing, retiring, first, trusted: true }, dice);
                Change::Adopted { diff, suspicious, recovered: self.succeed() }
            }
            Outcome::NotModified { headers, timing } => {
                let Some(held) = self.held.clone() else {
                    self.fail(asker, None, now, dice);
                    return Change::Failed;
                };
                let mut merged = held.headers.clone();
                merged.merge_not_modified(&headers);
                let first = !held.is_servable(now);
                let retiring = held.retiring.iter().filter(|key| timing.received_at < key.until);
                let retiring = retiring.cloned().collect();
                let set = held.set.clone();
                self.hold(Document { set, headers: merged, timing, retiring, first, trusted: true }, dice);
                Change::Renewed { recovered: self.succeed() }
            }
            Outcome::Failed { retry_after } => {
                self.fail(asker, retry_after, now, dice);
                Change::Failed
            }
        }
    }

    /// Takes a stored set that is as old as `age`, expiring `fresh_for` from now (or expired).
    /// `false` when what is held is at least as new, or when it may no longer be served.
    #[expect(clippy::too_many_arguments, reason = "a snapshot's facts, each used once")]
    pub fn restore(
        &mut self,
        set: Arc<KeySet>,
        headers: StoredHeaders,
        age: Duration,
        expires_at: Moment,
        received_wall: DateTime<Utc>,
        now: Moment,
        dice: &mut dyn Dice,
    ) -> bool {
        let received_at = now - age;
        let trust_until = received_at + self.policy.trust_age();
        let (longest, window) = if set.is_empty() {
            (self.policy.min_ttl, Duration::ZERO)
        } else {
            (self.policy.max_ttl, self.policy.stale_while_error)
        };
        let expires_at = expires_at.min(received_at + longest);
        let servable_until = (expires_at + window).min(trust_until);
        let newer_held = self.held.as_ref().is_some_and(|held| held.received_at >= received_at);
        if newer_held || now >= servable_until {
            return false;
        }
        let refresh_at = (now + dice.between(Duration::ZERO, self.policy.prefetch_jitter)).min(expires_at);
        let retiring = self.retire(&set, received_at);
        self.learn_denied(&set);
        self.held = Some(Arc::new(Held {
            set,
            headers,
            stated: Stated::Nothing,
            received_at,
            received_wall,
            expires_at,
            refresh_at,
            servable_until,
            validators_trusted: false,
            retiring,
        }));
        if self.flight.is_none() {
            self.wake_at = self.timer().then_some(refresh_at);
        }
        true
    }

    /// Goes on under other settings for the same source: held keys are judged anew at once.
    /// `judge` judges the held text by the new rules.
    pub fn reconfigure(
        &mut self,
        policy: Arc<Policy>,
        judge: impl FnOnce(&Arc<KeySet>) -> Option<Arc<KeySet>>,
        now: Moment,
        dice: &mut dyn Dice,
    ) {
        self.give_up_flight(now);
        self.policy = policy;
        self.wake_at = self.wake_at.filter(|_| self.timer());
        let Some(held) = self.held.take() else { return };
        let Some(set) = judge(&held.set) else { return };
        let rules = self.policy.key_rules();
        let anew = |old: &Retiring| {
            let until = self.retires_at(old.left_at, old.last_held_at);
            Some(Retiring { key: old.key.narrowed(&rules)?, until, ..old.clone() })
        };
        let retiring = held.retiring.iter().filter_map(anew).collect();
        let timing = Timing {
            requested_at: held.received_at,
            received_at: held.received_at,
            received_wall: held.received_wall,
        };
        let (headers, trusted) = (held.headers.clone(), held.validators_trusted);
        self.hold(Document { set, headers, timing, retiring, first: false, trusted }, dice);
    }

    /// Forgets keys, validators, backoff and any flight: another source, or a tightened trust. A timer
    /// that is set goes off all the same.
    pub fn forget(&mut self, policy: Arc<Policy>, now: Moment) {
        self.give_up_flight(now);
        let (denials, flights, wake_at) = (self.denials.clone(), self.flights, self.wake_at);
        *self = Self { denials, flights, ..Self::new(policy) };
        self.wake_at = wake_at.filter(|_| self.timer());
    }

    /// The next flight may be the timer's: nobody has to wait for one.
    fn give_up_flight(&mut self, now: Moment) {
        if self.flight.take().is_some() {
            self.wake_at = Some(now);
        }
    }

    /// Gives up the running flight: its task is gone, and it will not land.
    pub fn abandon(&mut self, number: u64) {
        if self.flight.is_some_and(|(current, _)| current == number) {
            self.flight = None;
        }
    }

    /// Denies a kid or a thumbprint. `true` if that is new.
    pub fn deny(&mut self, id: &str) -> bool {
        let denials = Arc::make_mut(&mut self.denials);
        let new = denials.deny(id);
        if let Some(held) = &self.held {
            denials.learn(held.set.keys());
            denials.learn(held.retiring.iter().map(|retiring| &retiring.key));
        }
        new
    }

    /// Lifts a denial. `true` if there was one.
    pub fn allow(&mut self, id: &str) -> bool {
        Arc::make_mut(&mut self.denials).allow(id)
    }

    fn learn_denied(&mut self, set: &KeySet) {
        if !self.denials.is_empty() {
            Arc::make_mut(&mut self.denials).learn(set.keys());
        }
    }

    fn succeed(&mut self) -> bool {
        let recovered = self.failed_at.is_some();
        self.failures = 0;
        self.failed_at = None;
        self.backoff_until = Moment::ORIGIN;
        self.negative_until = Moment::ORIGIN;
        recovered
    }

    fn fail(&mut self, asker: Asker, retry_after: Option<Duration>, now: Moment, dice: &mut dyn Dice) {
        self.failed_at = Some(now);
        let servable_until = self.held.as_ref().map_or(Moment::ORIGIN, |held| held.servable_until);
        let servable = now < servable_until;
        let asked = retry_after.map_or(now, |wait| now + wait.min(LONGEST_RETRY_AFTER));
        if asker != Asker::Person {
            self.failures = self.failures.saturating_add(1);
            let b = doubled(self.policy.retry.initial_backoff, self.failures);
            let wait = if servable { b.min(LONGEST_BACKOFF) } else { b.min(LONGEST_BACKOFF_WITHOUT_KEYS) };
            let wait = dice.between(wait / 2, wait);
            self.backoff_until = if servable {
                (now + wait).min(servable_until + LONGEST_BACKOFF_WITHOUT_KEYS)
            } else if self.failures == 1 {
                now
            } else {
                now + wait
            };
            // The timer has no caller who waits, so it never takes the first retry at once.
            self.wake_at = (self.timer() && (servable || self.policy.refresh_mode == RefreshMode::Always))
                .then_some(self.backoff_until.max(asked).max(now + wait.min(LONGEST_BACKOFF_WITHOUT_KEYS)));
        } else if self.timer() && self.held.is_some() {
            let due = self.held.as_ref().map_or(now, |held| held.refresh_at);
            self.wake_at = Some(self.backoff_until.max(asked).max(due).max(now + BETWEEN_REQUESTED));
        }
        self.backoff_until = self.backoff_until.max(asked);
        if !servable && !self.policy.negative_cache_ttl.is_zero() {
            self.negative_until = now + self.policy.negative_cache_ttl;
        }
    }

    fn timer(&self) -> bool {
        self.policy.refresh_mode != RefreshMode::OnDemand
    }

    fn hold(&mut self, document: Document, dice: &mut dyn Dice) {
        let Document { set, headers, timing, retiring, first, trusted } = document;
        let granted = if set.is_empty() {
            Freshness {
                lifetime: self.policy.min_ttl,
                stale_window: Duration::ZERO,
                stated: Stated::Nothing,
                bound: Bound::MinTtl,
            }
        } else {
            assess(&headers, &timing, &self.policy.freshness_rules())
        };
        let received_at = timing.received_at;
        let expires_at = received_at + granted.lifetime;
        let trust_until = received_at + self.policy.trust_age();
        let servable_until = (expires_at + granted.stale_window).min(trust_until);
        let end = expires_at.min(trust_until);
        let span = end.since(received_at);
        let lead = self.policy.refresh_early.min(span * 2 / 5);
        let jitter = dice.between(Duration::ZERO, self.policy.prefetch_jitter.min(span / 10));
        let refresh_at = end - lead - jitter;
        self.wake_at = self.timer().then(|| {
            if !first {
                return refresh_at;
            }
            received_at + dice.between(span / 4, refresh_at.since(received_at))
        });
        self.held = Some(Arc::new(Held {
            set,
            headers,
            stated: granted.stated,
            received_at,
            received_wall: timing.received_wall,
            expires_at,
            refresh_at,
            servable_until,
            validators_trusted: trusted,
            retiring,
        }));
    }

    /// The keys that are honoured although `next` does not hold them.
    fn retire(&self, next: &KeySet, at: Moment) -> Vec<Retiring> {
        let Some(held) = &self.held else { return Vec::new() };
        let left = held.set.usable().map(|key| Retiring {
            key: key.clone(),
            left_at: at,
            last_held_at: held.received_at,
            until: self.retires_at(at, held.received_at),
        });
        let mut retiring: Vec<Retiring> = left
            .chain(held.retiring.iter().cloned())
            .filter(|old| {
                // A kid that the document still speaks of is decided by the document.
                let named = old.key.kid().is_some_and(|kid| !next.mentions(kid));
                named && at < old.until
            })
            .collect();
        retiring.truncate(usize::try_from(self.policy.max_keys).unwrap_or(usize::MAX));
        retiring
    }

    fn retires_at(&self, left_at: Moment, last_held_at: Moment) -> Moment {
        (left_at + self.policy.removal_grace).min(last_held_at + self.policy.trust_age())
    }
}
