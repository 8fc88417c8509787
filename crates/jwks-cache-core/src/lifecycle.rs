//! What happens next to a provider: who may start a flight, what its outcome changes, when the
//! timer wakes. The state machine of one provider; it starts nothing itself and knows no clock.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use http::HeaderMap;

use crate::freshness::{Bound, Freshness, Stated, StoredHeaders, Timing, Validators, assess, stale_window};
use crate::key::{SharedKey, Thumbprint};
use crate::keyset::{KeySet, Refusal, SetDiff, diff};
use crate::policy::{Policy, RefreshMode, doubled};
use crate::published::{Denials, Held, Published, Retiring, Serving};
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
    /// Whether the source itself is asked. Not where it is too early for that and fallbacks must do.
    pub primary: bool,
    /// The fallbacks to try, in this order, if the source itself fails or is not asked.
    pub fallbacks: Vec<u16>,
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
    /// The source itself failed or was not asked, and a fallback brought a document that could be judged.
    FellBack {
        /// Its place among the fallbacks.
        index: u16,
        /// The judged set.
        set: Arc<KeySet>,
        /// Its freshness headers.
        headers: StoredHeaders,
        /// When.
        timing: Timing,
        /// What the provider asked for.
        retry_after: Option<Duration>,
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
        /// The set before was of another source, as after a fallback.
        switched: bool,
    },
    /// A fallback's set is held; the source itself counts as failed.
    FellBack {
        /// The difference to the last set.
        diff: SetDiff,
        /// The set before was of another source.
        switched: bool,
    },
    /// The held set got a new lifetime.
    Renewed {
        /// Flights had been failing.
        recovered: bool,
    },
    /// What came had begun before what is held, which was restored meanwhile and stays.
    Superseded {
        /// Flights had been failing.
        recovered: bool,
    },
    /// The document was refused and what is held stays; counts as a failure.
    Refused(Refusal),
    /// The flight failed and what is held stays.
    Failed,
    /// A flight that had been given up, or a document that is of no use here; nothing happened.
    Ignored,
}

/// A set from outside of this process.
#[derive(Debug)]
pub struct Stored {
    /// The judged set.
    pub set: Arc<KeySet>,
    /// Its validators.
    pub headers: StoredHeaders,
    /// How long ago the provider last answered with it.
    pub age: Duration,
    /// How long that exchange took.
    pub transit: Duration,
    /// Its lifetime from then.
    pub lifetime: Duration,
    /// When the provider last answered with it, on the wall.
    pub received_wall: DateTime<Utc>,
    /// The keys that retired beside it.
    pub retiring: Vec<StoredKey>,
    /// Whether only we can have written it: then its validators may be sent.
    pub trusted: bool,
}

/// A retiring key from outside of this process, its times counted back from the last answer.
#[derive(Debug)]
pub struct StoredKey {
    /// The judged key.
    pub key: SharedKey,
    /// When a document came without it.
    pub left_before: Duration,
    /// When a document last held it.
    pub held_before: Duration,
}

/// A set to hold from now on.
struct Document {
    set: Arc<KeySet>,
    serving: Serving,
    headers: StoredHeaders,
    timing: Timing,
    /// Its times, where the headers do not say.
    granted: Option<Freshness>,
    retiring: Vec<Retiring>,
    /// Nothing was servable before: the first timer is drawn early, so that providers part.
    first: bool,
    /// Whether its validators may be sent.
    trusted: bool,
    /// It came from a snapshot.
    restored: bool,
}

impl Document {
    /// One that has just been fetched.
    fn fetched(
        set: Arc<KeySet>,
        serving: Serving,
        headers: StoredHeaders,
        timing: Timing,
        retiring: Vec<Retiring>,
        first: bool,
    ) -> Self {
        let (granted, restored) = (None, false);
        // Conditions are about what the source itself has said.
        let trusted = serving == Serving::Primary;
        Self { set, serving, headers, timing, granted, retiring, first, trusted, restored }
    }
}

/// What a document's lifetime and the settings make of it.
struct Times {
    granted: Freshness,
    /// Fresh until.
    end: Moment,
    span: Duration,
    lead: Duration,
    most_jitter: Duration,
}

/// The flight that runs.
#[derive(Clone, Copy, Debug)]
struct Airborne {
    number: u64,
    asker: Asker,
    /// Whether the source itself is asked.
    primary: bool,
    /// Whether fallbacks are tried after it.
    falls_back: bool,
}

/// What is remembered of fallbacks while the source itself fails.
#[derive(Debug, Default)]
struct Fallen {
    /// When each first served, in the order of the fallbacks.
    since: Vec<Option<Moment>>,
    /// When the one that serves is due to be read again.
    due_at: Moment,
    /// None is tried before this: all have failed.
    not_before: Moment,
    /// How often in a row.
    failures: u32,
}

/// The state machine of one provider.
#[derive(Debug)]
pub struct Lifecycle {
    policy: Arc<Policy>,
    held: Option<Arc<Held>>,
    denials: Arc<Denials>,
    flight: Option<Airborne>,
    /// What is held was restored since the flight began.
    restored_in_flight: bool,
    flights: u64,
    started_at: Option<Moment>,
    kid_flight_at: Option<Moment>,
    failures: u32,
    /// The failures among them that lengthen the backoff: a person's do not.
    setbacks: u32,
    failed_at: Option<Moment>,
    backoff_until: Moment,
    /// What the provider itself asked for; part of `backoff_until`.
    asked_until: Moment,
    negative_until: Moment,
    wake_at: Option<Moment>,
    /// Only while the source fails and a fallback is wanted.
    fallen: Option<Box<Fallen>>,
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
            restored_in_flight: false,
            flights: 0,
            started_at: None,
            kid_flight_at: None,
            failures: 0,
            setbacks: 0,
            failed_at: None,
            backoff_until: Moment::ORIGIN,
            asked_until: Moment::ORIGIN,
            negative_until: Moment::ORIGIN,
            wake_at: None,
            fallen: None,
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
        let fallbacks = self.wanted_fallbacks(now);
        let falls_back = !fallbacks.is_empty();
        let not_before = match asker {
            Asker::Person => self.started_at.map_or(now, |at| at + BETWEEN_REQUESTED),
            // Another reader's flight may have landed between this one's look and its question.
            Asker::Reader if self.held.as_ref().is_some_and(|held| now < held.refresh_at) => {
                return Answer::Quiet;
            }
            Asker::Reader if falls_back => now,
            Asker::Reader if servable => self.backoff_until,
            Asker::Reader => self.error_answers_until(),
            Asker::MissingKid => {
                let interval = self.policy.kid_miss_interval;
                self.backoff_until.max(self.kid_flight_at.map_or(now, |at| at + interval))
            }
            Asker::Timer { read } => {
                let Some(due) = self.wake_at else { return Answer::Quiet };
                if now >= due && !read && self.policy.refresh_mode != RefreshMode::Always {
                    // The first timer may be early; whoever reads until the refresh is due still counts.
                    let due = self.held.as_ref().map(|held| held.refresh_at);
                    self.wake_at = due.filter(|due| now < *due);
                    return Answer::Quiet;
                }
                if falls_back { due } else { due.max(self.backoff_until) }
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
        // Who insists asks the source itself, whatever holds others back.
        let primary = !falls_back || asker == Asker::Person || now >= self.backoff_until;
        self.flight = Some(Airborne { number: self.flights, asker, primary, falls_back });
        self.restored_in_flight = false;
        self.started_at = Some(now);
        self.wake_at = None;
        let after_failure = self.failed_at.is_some();
        // A fallback is at hand: better that than another try of what fails.
        let single = after_failure || asker == Asker::MissingKid || falls_back;
        let validators = match &self.held {
            Some(held) if held.validators_trusted && held.serving == Serving::Primary => {
                held.headers.validators()
            }
            _ => Validators::default(),
        };
        Answer::Start(Plan {
            number: self.flights,
            asker,
            attempts: if single { 1 } else { self.policy.retry.max_retries.saturating_add(1) },
            after_failure,
            cold: !servable,
            validators,
            primary,
            fallbacks,
        })
    }

    /// The fallbacks to try now: none while keys of the source itself are servable, or the fallback that serves is
    /// not due; and none that has served as long as it may.
    #[must_use]
    pub fn wanted_fallbacks(&self, now: Moment) -> Vec<u16> {
        let limits = &self.policy.fallbacks;
        if limits.is_empty() || now < self.fallbacks_wait_until() {
            return Vec::new();
        }
        match self.held.as_ref().filter(|held| held.is_servable(now)) {
            Some(held) if held.serving == Serving::Primary || now < self.fallback_due_at() => Vec::new(),
            _ => (0..)
                .zip(limits)
                .filter(|(index, _)| self.fallback_until(*index).is_none_or(|until| now < until))
                .map(|(index, _)| index)
                .collect(),
        }
    }

    /// None is tried before this.
    fn fallbacks_wait_until(&self) -> Moment {
        self.fallen.as_ref().map_or(Moment::ORIGIN, |fallen| fallen.not_before)
    }

    /// When the one that serves is due to be read again.
    fn fallback_due_at(&self) -> Moment {
        self.fallen.as_ref().map_or(Moment::ORIGIN, |fallen| fallen.due_at)
    }

    /// Until when a fallback that has served in this outage may serve.
    fn fallback_until(&self, index: u16) -> Option<Moment> {
        let since = self.fallen.as_ref()?.since.get(usize::from(index)).copied().flatten()?;
        Some(since + self.policy.fallbacks.get(usize::from(index)).copied().unwrap_or_default())
    }

    /// Another provider of the same source caused a request for a missing kid then: they share one budget.
    pub fn charge_kid_flight(&mut self, at: Moment) {
        self.kid_flight_at = self.kid_flight_at.max(Some(at));
    }

    /// Whether a document that another provider of the same source was brought would do for `asker`, so that none has
    /// to be fetched: newer than what is held, and not due by the settings in force.
    #[must_use]
    pub fn would_adopt(&self, asker: Asker, headers: &StoredHeaders, timing: &Timing, now: Moment) -> bool {
        let of_primary = self.held.as_ref().filter(|held| held.serving == Serving::Primary);
        let came_later = of_primary.is_some_and(|held| timing.received_at <= held.received_at);
        if self.flight.is_some() || came_later || self.began_later(timing) {
            return false;
        }
        let goes_quiet = |read: bool| !read && self.policy.refresh_mode != RefreshMode::Always;
        match asker {
            Asker::Person => return false,
            Asker::Timer { read } if goes_quiet(read) => return false,
            Asker::Timer { .. } if self.wake_at.is_none_or(|due| now < due) => return false,
            _ => {}
        }
        self.is_early_for(headers, timing, now)
    }

    /// Whether a document is not due yet by the settings in force, whatever is drawn.
    #[must_use]
    pub fn is_early_for(&self, headers: &StoredHeaders, timing: &Timing, now: Moment) -> bool {
        let times = self.times(headers, timing, None);
        now < times.end - times.lead - times.most_jitter
    }

    /// Takes such a document. It is as old as it is: nothing is gained by handing it on.
    pub fn adopt(
        &mut self,
        set: Arc<KeySet>,
        headers: StoredHeaders,
        timing: Timing,
        now: Moment,
        dice: &mut dyn Dice,
    ) -> Change {
        if self.flight.is_some() || self.loses_all(&set, now) {
            return Change::Ignored;
        }
        // Its source is asked at times that whoever fetched it has drawn: there is nothing to part from.
        self.take(set, headers, timing, false, dice)
    }

    /// Whether `set` has no usable key although such are servable.
    fn loses_all(&self, set: &KeySet, now: Moment) -> bool {
        let servable = self.held.as_ref().filter(|held| held.is_servable(now));
        servable.is_some_and(|held| held.set.usable().next().is_some()) && set.usable().next().is_none()
    }

    /// Whether the source's keys that are held are of an exchange that began after this one: they stay, whichever came
    /// last.
    fn began_later(&self, timing: &Timing) -> bool {
        let of_primary = self.held.as_ref().filter(|held| held.serving == Serving::Primary);
        of_primary.is_some_and(|held| held.requested_at > timing.requested_at)
    }

    /// Takes a document of the source itself.
    fn take(
        &mut self,
        set: Arc<KeySet>,
        headers: StoredHeaders,
        timing: Timing,
        first: bool,
        dice: &mut dyn Dice,
    ) -> Change {
        let last = self.held.as_ref().map(|held| (held.set.clone(), held.serving));
        let switched = last.as_ref().is_some_and(|(_, serving)| *serving != Serving::Primary);
        let diff = last.as_ref().map_or_else(|| SetDiff::all_of(&set), |(last, _)| diff(last, &set));
        // Sources may well differ.
        let suspicious = last.is_some() && !switched && (diff.disjoint || !diff.changed.is_empty());
        let retiring = if switched { Vec::new() } else { self.retire(&set, timing.received_at) };
        self.learn_denied(&set);
        self.hold(Document::fetched(set, Serving::Primary, headers, timing, retiring, first), dice);
        Change::Adopted { diff, suspicious, recovered: self.succeed(), switched }
    }

    /// Takes a document of a fallback.
    fn fall_back(
        &mut self,
        index: u16,
        set: Arc<KeySet>,
        headers: StoredHeaders,
        timing: Timing,
        now: Moment,
        dice: &mut dyn Dice,
    ) -> Change {
        let serving = Serving::Fallback(index);
        let last = self.held.as_ref().map(|held| (held.set.clone(), held.serving));
        let switched = last.as_ref().is_none_or(|(_, of)| *of != serving);
        let diff = last.as_ref().map_or_else(|| SetDiff::all_of(&set), |(last, _)| diff(last, &set));
        let retiring = if switched { Vec::new() } else { self.retire(&set, timing.received_at) };
        self.learn_denied(&set);
        let fallen = self.fallen.get_or_insert_default();
        fallen.since.resize(self.policy.fallbacks.len(), None);
        if let Some(since) = fallen.since.get_mut(usize::from(index)) {
            since.get_or_insert(now);
        }
        (fallen.not_before, fallen.failures) = (Moment::ORIGIN, 0);
        self.hold(Document::fetched(set, serving, headers, timing, retiring, false), dice);
        Change::FellBack { diff, switched }
    }

    /// Takes the outcome of flight `number`.
    pub fn land(&mut self, number: u64, outcome: Outcome, now: Moment, dice: &mut dyn Dice) -> Change {
        let Some(flight) = self.flight.filter(|flight| flight.number == number) else {
            return Change::Ignored;
        };
        self.flight = None;
        match outcome {
            Outcome::Document { set, .. } if self.loses_all(&set, now) => {
                self.fail(flight.asker, None, now, dice);
                Change::Refused(Refusal::NothingUsable)
            }
            Outcome::Document { timing, .. } if self.began_later(&timing) => {
                self.wake_at = self.held.as_ref().map(|held| held.refresh_at).filter(|_| self.timer());
                Change::Superseded { recovered: self.succeed() }
            }
            Outcome::Document { set, headers, timing } => {
                let first = !self.held.as_ref().is_some_and(|held| held.is_servable(now));
                self.take(set, headers, timing, first, dice)
            }
            Outcome::FellBack { index, set, headers, timing, retry_after } => {
                let change = self.fall_back(index, set, headers, timing, now, dice);
                if flight.primary {
                    self.fail(flight.asker, retry_after, now, dice);
                } else {
                    self.failed_at = Some(now);
                    let wake = self.backoff_until.min(self.fallback_due_at()).max(now + BETWEEN_REQUESTED);
                    self.wake_at = self.timer().then_some(wake);
                }
                change
            }
            Outcome::NotModified { headers, timing } => {
                // A set restored meanwhile is not the one that the request asked about.
                let asked_about = |held: &Arc<Held>| held.validators_trusted && !self.restored_in_flight;
                let Some(held) = self.held.clone().filter(asked_about) else {
                    self.fail(flight.asker, None, now, dice);
                    return Change::Failed;
                };
                let mut merged = held.headers.clone();
                merged.merge_not_modified(&headers);
                let first = !held.is_servable(now);
                let retiring = held.retiring.iter().filter(|key| timing.received_at < key.until);
                let retiring = retiring.cloned().collect();
                let (set, serving) = (held.set.clone(), Serving::Primary);
                self.hold(Document::fetched(set, serving, merged, timing, retiring, first), dice);
                Change::Renewed { recovered: self.succeed() }
            }
            Outcome::Failed { retry_after } => {
                if flight.primary {
                    self.fail(flight.asker, retry_after, now, dice);
                } else {
                    // It says nothing new of the source itself.
                    self.count_failure(now);
                    let retry = self.backoff_until.max(now + BETWEEN_REQUESTED);
                    self.wake_at = self.timer_goes_on(now).then_some(retry);
                }
                if flight.falls_back {
                    self.fail_fallbacks(now, dice);
                }
                Change::Failed
            }
        }
    }

    /// Takes a stored set. `false` when what is held is at least as new, or when it may no longer be served.
    pub fn restore(&mut self, stored: Stored, now: Moment, dice: &mut dyn Dice) -> bool {
        let Stored { set, headers, age, transit, lifetime, received_wall, retiring, trusted } = stored;
        let received_at = now - age;
        let requested_at = received_at - transit;
        let trust_until = received_at + self.policy.trust_age();
        let (longest, window) = if set.is_empty() {
            (self.policy.min_ttl, Duration::ZERO)
        } else {
            (self.policy.max_ttl, stale_window(&headers, &self.policy.freshness_rules()))
        };
        let expires_at = received_at + lifetime.min(longest);
        let servable_until = (expires_at + window).min(trust_until);
        let newer = |held: &Arc<Held>| held.requested_at >= requested_at || held.received_at >= received_at;
        let newer_held = self.held.as_ref().is_some_and(newer);
        if newer_held || now >= servable_until {
            return false;
        }
        let soon = now + dice.between(Duration::ZERO, self.policy.prefetch_jitter);
        let refresh_at = soon.min(expires_at).min(trust_until);
        let most = usize::try_from(self.policy.max_keys).unwrap_or(usize::MAX);
        // What a fallback vouched for does not retire beside the source's own keys.
        let of_primary = self.held.as_ref().is_some_and(|held| held.serving == Serving::Primary);
        let mut retires = if of_primary { self.retire(&set, received_at) } else { Vec::new() };
        for StoredKey { key, left_before, held_before } in retiring {
            let (left_at, last_held_at) =
                (received_at - left_before, received_at - held_before.max(left_before));
            let until = self.retires_at(left_at, last_held_at);
            let known = |old: &Retiring| old.key.kid() == key.kid();
            // A kid that the document speaks of is decided by the document, and without one it cannot be found.
            let wanted = key.kid().is_some_and(|kid| !set.mentions(kid)) && set.usable().next().is_some();
            if wanted && now < until && !retires.iter().any(known) && retires.len() < most {
                retires.push(Retiring { key, left_at, last_held_at, until });
            }
        }
        self.learn_denied(&set);
        if !self.denials.is_empty() {
            Arc::make_mut(&mut self.denials).learn(retires.iter().map(|retiring| &*retiring.key));
        }
        self.held = Some(Arc::new(Held {
            set,
            serving: Serving::Primary,
            headers,
            stated: Stated::Nothing,
            requested_at,
            received_at,
            received_wall,
            expires_at,
            refresh_at,
            servable_until,
            validators_trusted: trusted,
            restored: true,
            retiring: retires,
        }));
        self.restored_in_flight = true;
        if self.flight.is_none() {
            // What has expired is due at once for readers; the timers of many that start together must part all the same.
            self.wake_at = self.timer().then_some(soon);
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
        if let Some(held) = self.held.take()
            && let Some(set) = judge(&held.set)
        {
            self.rehold(&held, set, dice);
        }
        let servable_until = self.held.as_ref().map_or(now, |held| held.servable_until.max(now));
        let longest = servable_until + LONGEST_BACKOFF_WITHOUT_KEYS;
        self.backoff_until = self.backoff_until.min(longest).max(self.asked_until);
    }

    /// Grants what was held its times anew, by the settings in force.
    fn rehold(&mut self, held: &Held, set: Arc<KeySet>, dice: &mut dyn Dice) {
        let rules = self.policy.key_rules();
        let anew = |old: &Retiring| {
            let until = self.retires_at(old.left_at, old.last_held_at);
            Some(Retiring { key: old.key.narrowed(&rules)?, until, ..old.clone() })
        };
        let most = usize::try_from(rules.max_keys).unwrap_or(usize::MAX);
        let retiring = held.retiring.iter().filter_map(anew).take(most).collect();
        let timing = Timing {
            requested_at: held.requested_at,
            received_at: held.received_at,
            received_wall: held.received_wall,
        };
        let (headers, trusted) = (held.headers.clone(), held.validators_trusted);
        let restored = held.restored;
        // A restored set has no header that states its lifetime: it keeps the one it was stored with.
        let granted = restored.then(|| Freshness {
            lifetime: held.expires_at.since(held.received_at).min(self.policy.max_ttl),
            stale_window: stale_window(&headers, &self.policy.freshness_rules()),
            stated: held.stated,
            bound: Bound::None,
        });
        let (serving, first) = (held.serving, false);
        self.hold(
            Document { set, serving, headers, timing, granted, retiring, first, trusted, restored },
            dice,
        );
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
        if self.flight.is_some_and(|flight| flight.number == number) {
            self.flight = None;
            // The timer makes up for it, though neither early nor in a loop.
            let goes_on = self.held.is_some() || self.policy.refresh_mode == RefreshMode::Always;
            let due = self.held.as_ref().map_or(Moment::ORIGIN, |held| held.refresh_at);
            let soonest = self.started_at.map(|at| at + BETWEEN_REQUESTED);
            self.wake_at = soonest.filter(|_| self.timer() && goes_on).map(|soonest| soonest.max(due));
        }
    }

    /// Denies a kid or a thumbprint. `true` if that is new.
    pub fn deny(&mut self, id: &str) -> bool {
        let denials = Arc::make_mut(&mut self.denials);
        let new = denials.deny(id);
        if let Some(held) = &self.held {
            denials.learn(held.set.keys());
            denials.learn(held.retiring.iter().map(|retiring| &*retiring.key));
        }
        new
    }

    /// Denies as somebody else did, who has seen `materials` under it. `true` if that is new.
    pub fn restore_denial(&mut self, id: &str, materials: impl IntoIterator<Item = Thumbprint>) -> bool {
        let new = self.deny(id);
        Arc::make_mut(&mut self.denials).remember(id, materials);
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
        self.setbacks = 0;
        self.failed_at = None;
        self.backoff_until = Moment::ORIGIN;
        self.asked_until = Moment::ORIGIN;
        self.negative_until = Moment::ORIGIN;
        self.fallen = None;
        recovered
    }

    /// The source itself failed.
    fn fail(&mut self, asker: Asker, retry_after: Option<Duration>, now: Moment, dice: &mut dyn Dice) {
        self.count_failure(now);
        let servable_until = self.servable_until();
        let servable = now < servable_until;
        let asked = retry_after.map_or(now, |wait| now + wait.min(LONGEST_RETRY_AFTER));
        if asker != Asker::Person {
            self.setbacks = self.setbacks.saturating_add(1);
            let wait = self.wait_after(self.setbacks, servable, dice);
            self.backoff_until = if servable {
                (now + wait).min(servable_until + LONGEST_BACKOFF_WITHOUT_KEYS)
            } else if self.setbacks == 1 {
                now
            } else {
                now + wait
            };
            // The timer has no caller who waits, so it never takes the first retry at once; and a failure that
            // an unknown kid caused makes no refresh due.
            let due = self.held.as_ref().filter(|_| servable).map_or(now, |held| held.refresh_at);
            let retry = self.backoff_until.max(now + wait.min(LONGEST_BACKOFF_WITHOUT_KEYS));
            self.wake_at = self.timer_goes_on(now).then_some(retry.max(asked).max(due));
        } else if self.timer() && (self.held.is_some() || self.policy.refresh_mode == RefreshMode::Always) {
            let due = self.held.as_ref().map_or(now, |held| held.refresh_at);
            self.wake_at = Some(self.backoff_until.max(asked).max(due).max(now + BETWEEN_REQUESTED));
        }
        self.asked_until = self.asked_until.max(asked);
        self.backoff_until = self.backoff_until.max(asked);
        self.wake_for_fallbacks(now);
    }

    /// The fallbacks failed: they wait by themselves, and hold back nothing else.
    fn fail_fallbacks(&mut self, now: Moment, dice: &mut dyn Dice) {
        let mut fallen = self.fallen.take().unwrap_or_default();
        fallen.failures = fallen.failures.saturating_add(1);
        let servable_until = self.servable_until();
        let wait = self.wait_after(fallen.failures, now < servable_until, dice).max(BETWEEN_REQUESTED);
        let latest = servable_until.max(now) + LONGEST_BACKOFF_WITHOUT_KEYS;
        fallen.not_before = (now + wait).min(latest).max(self.negative_until);
        self.fallen = Some(fallen);
        self.wake_for_fallbacks(now);
    }

    fn count_failure(&mut self, now: Moment) {
        self.failed_at = Some(now);
        self.failures = self.failures.saturating_add(1);
        if now >= self.servable_until() && !self.policy.negative_cache_ttl.is_zero() {
            self.negative_until = now + self.policy.negative_cache_ttl;
        }
    }

    fn servable_until(&self) -> Moment {
        self.held.as_ref().map_or(Moment::ORIGIN, |held| held.servable_until)
    }

    /// The wait after so many failures in a row.
    fn wait_after(&self, failures: u32, servable: bool, dice: &mut dyn Dice) -> Duration {
        let longest = if servable { LONGEST_BACKOFF } else { LONGEST_BACKOFF_WITHOUT_KEYS };
        let wait = doubled(self.policy.retry.initial_backoff, failures).min(longest);
        dice.between(wait / 2, wait)
    }

    /// Has the timer see to it where keys end, or a fallback may be tried, before it goes off anyway.
    fn wake_for_fallbacks(&mut self, now: Moment) {
        if self.policy.fallbacks.is_empty() {
            return;
        }
        let due = match self.held.as_ref().filter(|held| held.is_servable(now)) {
            Some(held) if held.serving == Serving::Primary => held.servable_until,
            Some(_) => self.fallback_due_at().max(self.fallbacks_wait_until()),
            None => self.fallbacks_wait_until(),
        };
        self.wake_at = self.wake_at.map(|at| at.min(due.max(now + BETWEEN_REQUESTED)));
    }

    /// Whether the timer is set although the source fails.
    fn timer_goes_on(&self, now: Moment) -> bool {
        let servable = now < self.servable_until();
        self.timer() && (servable || self.policy.refresh_mode == RefreshMode::Always)
    }

    fn timer(&self) -> bool {
        self.policy.refresh_mode != RefreshMode::OnDemand
    }

    fn hold(&mut self, document: Document, dice: &mut dyn Dice) {
        let Document { set, serving, headers, timing, granted, retiring, first, trusted, restored } =
            document;
        let granted = if set.is_empty() {
            let least = self.policy.min_ttl;
            Some(Freshness {
                lifetime: granted.map_or(least, |granted| granted.lifetime.min(least)),
                stale_window: Duration::ZERO,
                stated: Stated::Nothing,
                bound: Bound::MinTtl,
            })
        } else {
            granted
        };
        let Times { granted, end, span, lead, most_jitter } = self.times(&headers, &timing, granted);
        let received_at = timing.received_at;
        let expires_at = received_at + granted.lifetime;
        let mut servable_until =
            (expires_at + granted.stale_window).min(received_at + self.policy.trust_age());
        let jitter = dice.between(Duration::ZERO, most_jitter);
        let mut refresh_at = end - lead - jitter;
        if let Serving::Fallback(index) = serving {
            // The source itself is always due; when it may be asked is the backoff's to say.
            self.fallen.get_or_insert_default().due_at = refresh_at;
            refresh_at = received_at;
            servable_until = servable_until.min(self.fallback_until(index).unwrap_or(received_at));
        }
        self.wake_at = self.timer().then(|| {
            // Under `http_strict` the span may be nothing; only readers refresh more often than this.
            let timed = span.max(self.policy.min_ttl);
            let due = refresh_at.max(received_at + timed / 2);
            if !first {
                return due;
            }
            received_at + dice.between(timed / 4, due.since(received_at))
        });
        self.held = Some(Arc::new(Held {
            set,
            serving,
            headers,
            stated: granted.stated,
            requested_at: timing.requested_at,
            received_at,
            received_wall: timing.received_wall,
            expires_at,
            refresh_at,
            servable_until,
            validators_trusted: trusted,
            restored,
            retiring,
        }));
    }

    /// The times of a document, by the settings in force, where `granted` does not say.
    fn times(&self, headers: &StoredHeaders, timing: &Timing, granted: Option<Freshness>) -> Times {
        let granted = granted.unwrap_or_else(|| assess(headers, timing, &self.policy.freshness_rules()));
        let received_at = timing.received_at;
        let end = (received_at + granted.lifetime).min(received_at + self.policy.trust_age());
        let span = end.since(received_at);
        let lead = self.policy.refresh_early.min(span * 2 / 5);
        let most_jitter = self.policy.prefetch_jitter.min(span / 10);
        Times { granted, end, span, lead, most_jitter }
    }

    /// The keys that are honoured although `next` does not hold them.
    fn retire(&self, next: &KeySet, at: Moment) -> Vec<Retiring> {
        // A document without a usable key confirms no removal: its keys do not live on.
        let Some(held) = self.held.as_ref().filter(|_| next.usable().next().is_some()) else {
            return Vec::new();
        };
        let left = held.set.shared().filter(|key| key.is_usable()).map(|key| Retiring {
            key,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::algorithm::AlgorithmSet;
    use crate::policy::{JitterStrategy, Retry};
    use crate::published::Standing;
    use crate::published::rehearsal::{doc, leaked};
    use Asker::{MissingKid, Person, Reader};

    const START: Moment = Moment::from_nanos(10_000_000_000_000_000);
    const MINUTE: u64 = 60;
    const HOUR: u64 = 3_600;

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn policy() -> Policy {
        Policy {
            refresh_early: secs(30),
            stale_while_error: secs(60),
            min_ttl: secs(30),
            max_ttl: secs(24 * HOUR),
            default_ttl: secs(300),
            max_trust_age: None,
            http_strict: false,
            max_response_bytes: 1 << 20,
            max_keys: 512,
            min_rsa_bits: 2048,
            algorithms: AlgorithmSet::ALL,
            negative_cache_ttl: Duration::ZERO,
            kid_miss_interval: secs(10),
            kid_miss_wait: secs(2),
            removal_grace: secs(600),
            refresh_mode: RefreshMode::WhileInUse,
            stale_wait: Duration::from_millis(250),
            max_redirects: 3,
            prefetch_jitter: secs(5),
            fallbacks: Vec::new(),
            retry: Retry {
                max_retries: 2,
                attempt_timeout: secs(3),
                initial_backoff: Duration::from_millis(250),
                max_backoff: secs(2),
                deadline: secs(8),
                jitter: JitterStrategy::Full,
            },
        }
    }

    /// A snapshot that anybody can have written.
    fn stored(set: Arc<KeySet>, headers: StoredHeaders, age: Duration, lifetime: Duration) -> Stored {
        let (transit, received_wall) = (Duration::ZERO, DateTime::default());
        let (retiring, trusted) = (Vec::new(), false);
        Stored { set, headers, age, transit, lifetime, received_wall, retiring, trusted }
    }

    /// One provider's life, with a clock and dice that the test holds.
    struct Life {
        it: Lifecycle,
        now: Moment,
        draw: f64,
    }

    impl Life {
        fn new(change: impl FnOnce(&mut Policy)) -> Self {
            let mut policy = policy();
            change(&mut policy);
            Self { it: Lifecycle::new(Arc::new(policy)), now: START, draw: 1.0 }
        }

        /// One that holds keys `a` and `b`, received just now with `cache_control`.
        fn holding(cache_control: &str, change: impl FnOnce(&mut Policy)) -> Self {
            let mut life = Self::new(change);
            life.adopt(&doc(&[("a", 1), ("b", 2)]), cache_control);
            life
        }

        fn pass(&mut self, seconds: u64) -> &mut Self {
            self.now = self.now + secs(seconds);
            self
        }

        fn ask(&mut self, asker: Asker) -> Answer {
            self.it.ask(asker, self.now)
        }

        fn start(&mut self, asker: Asker) -> Plan {
            match self.ask(asker) {
                Answer::Start(plan) => plan,
                other => panic!("{asker:?} was answered {other:?}"),
            }
        }

        /// From now; zero when a flight may start.
        fn wait_of(&mut self, asker: Asker) -> Duration {
            match self.ask(asker) {
                Answer::Start(plan) => {
                    self.it.abandon(plan.number);
                    Duration::ZERO
                }
                Answer::NotBefore(moment) => moment.since(self.now),
                other => panic!("{asker:?} was answered {other:?}"),
            }
        }

        fn land(&mut self, number: u64, outcome: Outcome) -> Change {
            let draw = self.draw;
            self.it.land(number, outcome, self.now, &mut move || draw)
        }

        fn timing(&self) -> Timing {
            let wall = DateTime::from_timestamp_nanos(i64::try_from(self.now.as_nanos()).unwrap());
            Timing { requested_at: self.now, received_at: self.now, received_wall: wall }
        }

        fn document(&self, set: &Arc<KeySet>, cache_control: &str) -> Outcome {
            let headers = StoredHeaders::from_response(&head(&[("cache-control", cache_control)]));
            Outcome::Document { set: set.clone(), headers, timing: self.timing() }
        }

        fn not_modified(&self, fields: &[(&'static str, &str)]) -> Outcome {
            Outcome::NotModified { headers: head(fields), timing: self.timing() }
        }

        /// A flight that somebody insisted on and that brought this.
        fn adopt(&mut self, set: &Arc<KeySet>, cache_control: &str) -> Change {
            let number = self.start(Person).number;
            let outcome = self.document(set, cache_control);
            self.land(number, outcome)
        }

        fn fail(&mut self, asker: Asker) {
            self.fail_asking(asker, None);
        }

        fn fail_asking(&mut self, asker: Asker, retry_after: Option<Duration>) {
            let number = self.start(asker).number;
            assert!(matches!(self.land(number, Outcome::Failed { retry_after }), Change::Failed));
        }

        fn held(&self) -> &Held {
            self.it.held().unwrap()
        }

        fn standing(&self) -> Standing {
            self.it.published().standing(self.now)
        }

        fn retiring(&self) -> Vec<String> {
            let names = |old: &Retiring| old.key.kid().unwrap_or_default().to_owned();
            self.it.published().retiring.iter().filter(|old| self.now < old.until).map(names).collect()
        }
    }

    fn head(fields: &[(&'static str, &str)]) -> HeaderMap {
        fields.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    fn jitterless(policy: &mut Policy) {
        policy.prefetch_jitter = Duration::ZERO;
    }

    // §4, when a refresh is due.

    #[test]
    fn a_refresh_is_due_at_the_end_less_lead_less_jitter() {
        // max-age, refresh_early, prefetch_jitter, draw, due
        let table = [
            (300, 30, 5, 0.0, 270.0),
            (300, 30, 5, 1.0, 265.0),
            (300, 30, 5, 0.5, 267.5),
            (300, 200, 0, 1.0, 180.0),  // the lead is at most two fifths
            (300, 30, 100, 1.0, 240.0), // the jitter is at most a tenth
            (30, 30, 5, 1.0, 15.0),     // so the shortest lifetime is refreshed halfway, not in a loop
            (30, 30, 5, 0.0, 18.0),
            (3_828_277, 30, 5, 0.0, 86_370.0), // from max_ttl's end
        ];
        for (max_age, early, jitter, draw, due) in table {
            let mut life = Life::new(|policy| {
                policy.refresh_early = secs(early);
                policy.prefetch_jitter = secs(jitter);
            });
            life.draw = draw;
            life.adopt(&doc(&[("a", 1)]), &format!("max-age={max_age}"));
            let got = life.held().refresh_at.since(life.now).as_secs_f64();
            assert!((got - due).abs() < 1e-6, "max-age={max_age}, early {early}, draw {draw}: {got}");
        }
    }

    #[test]
    fn a_thirty_second_lifetime_does_not_refresh_in_a_loop() {
        let mut life = Life::holding("max-age=30", |_| {});
        let mut flights = 0;
        for _ in 0..600 {
            if let Answer::Start(plan) = life.ask(Reader) {
                flights += 1;
                let outcome = life.document(&doc(&[("a", 1), ("b", 2)]), "max-age=30");
                life.land(plan.number, outcome);
            }
            life.pass(1);
        }
        assert!((20..=40).contains(&flights), "{flights} flights in ten minutes");
    }

    #[test]
    fn the_end_is_the_earlier_of_expiry_and_trust() {
        let life = Life::holding("max-age=7200", |policy| {
            jitterless(policy);
            policy.max_trust_age = Some(secs(HOUR));
        });
        assert_eq!(life.held().refresh_at, START + secs(HOUR) - secs(30));
        assert_eq!(life.held().fresh_until(), START + secs(HOUR));
    }

    #[test]
    fn a_304_counts_as_a_document_for_the_end_of_trust() {
        let mut life = Life::holding("max-age=300", |policy| policy.max_trust_age = Some(secs(600)));
        for _ in 0..10 {
            let number = life.pass(500).start(Person).number;
            let outcome = life.not_modified(&[]);
            assert!(matches!(life.land(number, outcome), Change::Renewed { .. }));
        }
        assert_eq!(life.held().servable_until, life.now + secs(360));
        assert_eq!(life.standing(), Standing::Fresh);
    }

    #[test]
    fn the_first_timer_is_drawn_between_a_quarter_of_the_lifetime_and_refresh_at() {
        for (draw, wake) in [(0.0, 100), (0.5, 235), (1.0, 370)] {
            let mut life = Life::new(jitterless);
            life.draw = draw;
            life.adopt(&doc(&[("a", 1)]), "max-age=400");
            assert_eq!(life.it.wake_at(), Some(START + secs(wake)), "draw {draw}");
            assert_eq!(life.held().refresh_at, START + secs(370), "readers go by refresh_at");
            life.pass(370).adopt(&doc(&[("a", 1)]), "max-age=400");
            assert_eq!(life.it.wake_at(), Some(START + secs(740)), "later ones keep to refresh_at");
        }
    }

    #[test]
    fn the_timer_never_spins_on_a_strict_lifetime_of_nothing() {
        let mut life = Life::new(|policy| {
            policy.http_strict = true;
            policy.refresh_mode = RefreshMode::Always;
        });
        life.draw = 0.0;
        for directives in ["no-cache", "max-age=0", "no-store", "max-age=1", "no-cache"] {
            life.pass(60).adopt(&doc(&[("a", 1)]), directives);
            let wait = life.it.wake_at().unwrap().since(life.now);
            assert!(wait >= secs(7), "{directives}: the timer wakes after {wait:?}");
        }
    }

    #[test]
    fn the_timer_never_wakes_before_a_strict_refresh_is_due() {
        for (seconds, wake) in [(20, 15), (29, 17), (30, 18), (100, 70)] {
            let mut life = Life::new(|policy| {
                policy.http_strict = true;
                policy.prefetch_jitter = Duration::ZERO;
            });
            life.adopt(&doc(&[("a", 1)]), &format!("max-age={seconds}"));
            life.pass(seconds).adopt(&doc(&[("a", 1)]), &format!("max-age={seconds}"));
            let wakes_at = life.it.wake_at().unwrap();
            assert_eq!(wakes_at.since(life.now).as_secs(), wake, "max-age={seconds}");
            assert!(wakes_at >= life.held().refresh_at, "max-age={seconds}");
        }
    }

    // §4, who may start a flight.

    #[test]
    fn only_readers_start_flights_on_demand() {
        let mut life = Life::holding("max-age=300", |policy| policy.refresh_mode = RefreshMode::OnDemand);
        assert_eq!(life.it.wake_at(), None);
        assert_eq!(life.pass(299).ask(Asker::Timer { read: true }), Answer::Quiet);
        life.start(Reader);
    }

    #[test]
    fn while_in_use_the_timer_refreshes_what_was_read_and_goes_quiet_otherwise() {
        let mut life = Life::holding("max-age=300", |_| {});
        assert_eq!(life.pass(265).ask(Asker::Timer { read: false }), Answer::Quiet);
        assert_eq!(life.it.wake_at(), None, "it went quiet");
        let mut life = Life::holding("max-age=300", |_| {});
        assert!(matches!(life.pass(265).ask(Asker::Timer { read: true }), Answer::Start(_)));
    }

    #[test]
    fn always_the_timer_refreshes_regardless() {
        let mut life = Life::holding("max-age=300", |policy| policy.refresh_mode = RefreshMode::Always);
        assert!(matches!(life.ask(Asker::Timer { read: false }), Answer::NotBefore(_)), "not too soon");
        assert!(matches!(life.pass(265).ask(Asker::Timer { read: false }), Answer::Start(_)));
    }

    #[test]
    fn always_the_timer_goes_on_after_any_failure() {
        for last in [Reader, Person] {
            let mut life = Life::new(|policy| policy.refresh_mode = RefreshMode::Always);
            life.fail(Reader);
            life.pass(600).fail(last);
            let wake = life.it.wake_at().unwrap_or_else(|| panic!("{last:?} ended the timer"));
            assert!(wake > life.now && wake <= life.now + secs(10), "{last:?}: {wake:?}");
        }
    }

    #[test]
    fn a_reader_of_fresh_keys_starts_nothing() {
        let mut life = Life::holding("max-age=300", |_| {});
        assert_eq!(life.pass(264).ask(Reader), Answer::Quiet);
        assert!(matches!(life.pass(1).ask(Reader), Answer::Start(_)));
    }

    #[test]
    fn one_flight_runs_at_a_time() {
        let mut life = Life::new(|_| {});
        life.start(Reader);
        for asker in [Reader, Person, MissingKid, Asker::Timer { read: true }] {
            assert_eq!(life.ask(asker), Answer::Flying, "{asker:?}");
        }
    }

    #[test]
    fn requested_flights_start_at_most_once_a_second() {
        let mut life = Life::holding("max-age=300", |_| {});
        assert_eq!(life.ask(Person), Answer::NotBefore(START + secs(1)));
        life.pass(1).start(Person);
    }

    #[test]
    fn neither_backoff_nor_retry_after_nor_negative_caching_holds_back_a_person() {
        let mut life = Life::new(|policy| policy.negative_cache_ttl = secs(HOUR));
        life.fail(Reader);
        life.pass(HOUR).fail_asking(Reader, Some(secs(200)));
        assert!(life.pass(1).wait_of(Reader) > secs(100));
        life.start(Person);
    }

    #[test]
    fn the_failure_of_a_person_does_not_lengthen_the_backoff() {
        let mut life = Life::holding("max-age=36000", |_| {});
        life.pass(35_990).fail(Reader);
        let before = life.it.published().backoff_until;
        for _ in 0..500 {
            life.pass(1).fail(Person);
        }
        assert_eq!(life.it.failures(), 501, "but it is counted");
        assert_eq!(life.it.published().backoff_until.max(before).since(life.now), Duration::ZERO);
        life.pass(10).fail(Reader);
        assert_eq!(life.wait_of(Reader), secs(1), "k = 2");
    }

    #[test]
    fn a_flight_after_a_failed_one_or_for_a_missing_kid_makes_a_single_attempt() {
        let mut life = Life::new(|_| {});
        let plan = life.start(Reader);
        assert_eq!((plan.attempts, plan.after_failure), (3, false));
        life.land(plan.number, Outcome::Failed { retry_after: None });
        let plan = life.start(Reader);
        assert_eq!((plan.attempts, plan.after_failure), (1, true));
        let outcome = life.document(&doc(&[("a", 1)]), "max-age=300");
        life.land(plan.number, outcome);
        let plan = life.start(MissingKid);
        assert_eq!((plan.attempts, plan.after_failure, plan.bypasses_caches()), (1, false, true));
        let mut life = Life::holding("max-age=300", |_| {});
        life.pass(1).fail(Person);
        let plan = life.pass(1).start(Person);
        assert_eq!((plan.attempts, plan.bypasses_caches()), (1, false), "whoever asked for the failed one");
    }

    // §4, between flights.

    #[test]
    fn the_backoff_with_servable_keys_doubles_up_to_five_minutes_half_to_all_of_it() {
        for draw in [0.0, 1.0] {
            let mut life = Life::holding("max-age=300", |policy| policy.stale_while_error = secs(23 * HOUR));
            life.draw = draw;
            life.pass(300);
            for k in 1..=20_u32 {
                life.fail(Reader);
                assert_eq!(life.it.failures(), k);
                let b = secs(300).min(Duration::from_millis(250) * 2_u32.pow(k));
                let wait = if draw > 0.5 { b } else { b / 2 };
                assert_eq!(life.wait_of(Reader), wait, "after failure {k}");
                life.now = life.now + wait;
            }
        }
    }

    #[test]
    fn the_backoff_with_nothing_servable_begins_at_none_and_ends_at_ten_seconds() {
        let mut life = Life::new(|_| {});
        for wait in [0, 1_000, 2_000, 4_000, 8_000, 10_000, 10_000, 10_000] {
            life.fail(Reader);
            assert_eq!(life.wait_of(Reader), Duration::from_millis(wait));
            life.pass(20);
        }
        life.adopt(&doc(&[("a", 1)]), "max-age=300");
        life.pass(299).fail(Reader);
        assert_eq!(life.wait_of(Reader), Duration::from_millis(500), "success resets");
    }

    #[test]
    fn a_running_wait_is_cut_to_ten_seconds_when_keys_stop_being_servable() {
        let mut life = Life::holding("max-age=300", |policy| policy.stale_while_error = secs(HOUR));
        life.pass(300);
        while life.it.failures() < 12 {
            life.fail(Reader);
            life.now = life.it.published().backoff_until;
        }
        let end = life.held().servable_until;
        life.now = end - secs(20);
        life.fail(Reader);
        assert_eq!(life.it.published().backoff_until, end + secs(10));
    }

    #[test]
    fn retry_after_is_the_least_wait_to_the_next_flight_whatever_is_held_and_at_most_five_minutes() {
        for (asked, wait) in [(60, 60), (299, 299), (300, 300), (86_400, 300)] {
            for asker in [Reader, Person, MissingKid] {
                let mut cold = Life::new(|_| {});
                cold.fail_asking(asker, Some(secs(asked)));
                assert_eq!(cold.wait_of(Reader), secs(wait), "cold, {asker:?}");
                let mut warm = Life::holding("max-age=300", |policy| policy.stale_while_error = secs(HOUR));
                warm.pass(299).fail_asking(asker, Some(secs(asked)));
                assert_eq!(warm.wait_of(Reader), secs(wait), "warm, {asker:?}");
                let wake = warm.it.wake_at().unwrap();
                assert!(wake >= warm.now + secs(wait), "the timer of {asker:?} waits too");
            }
        }
        let mut life = Life::new(|_| {});
        life.fail(Reader);
        (0..8).for_each(|_| life.pass(600).fail(Reader));
        life.pass(600).fail_asking(Reader, Some(secs(1)));
        assert_eq!(life.wait_of(Reader), secs(10), "it never shortens the backoff");
    }

    #[test]
    fn an_outage_of_a_day_costs_a_few_hundred_attempts() {
        let mut life = Life::holding("max-age=300", |policy| {
            policy.stale_while_error = secs(24 * HOUR);
            policy.refresh_mode = RefreshMode::Always;
        });
        life.draw = 0.5;
        let (end, mut attempts) = (START + secs(24 * HOUR), 0);
        while life.now < end {
            let timer = life.it.wake_at().unwrap();
            life.now = timer.max(life.now);
            if let Answer::Start(plan) = life.ask(Asker::Timer { read: true }) {
                attempts += plan.attempts;
                life.land(plan.number, Outcome::Failed { retry_after: None });
            }
        }
        assert!((300..=450).contains(&attempts), "{attempts} attempts at the mean draw");
    }

    #[test]
    fn a_failure_with_nothing_servable_is_answered_for_negative_cache_ttl() {
        let mut life = Life::new(|policy| policy.negative_cache_ttl = secs(30));
        life.fail(Reader);
        assert_eq!(life.wait_of(Reader), secs(30));
        assert_eq!(life.it.error_answers_until(), START + secs(30));
        let mut life = Life::holding("max-age=300", |policy| policy.negative_cache_ttl = secs(30));
        life.pass(299).fail(Reader);
        assert_eq!(life.wait_of(Reader), Duration::from_millis(500), "servable keys need none");
        let mut life = Life::new(|_| {});
        life.fail(Reader);
        assert_eq!(life.wait_of(Reader), Duration::ZERO, "it is off by default");
    }

    // §4, missing kids.

    #[test]
    fn the_budget_for_missing_kids_counts_from_the_last_attempt_not_the_last_success() {
        let mut life = Life::holding("max-age=36000", |_| {});
        let number = life.start(MissingKid).number;
        life.pass(4);
        life.land(number, Outcome::Failed { retry_after: None });
        assert_eq!(life.wait_of(MissingKid), secs(6), "ten seconds since the attempt began");
        life.pass(6).start(MissingKid);
    }

    #[test]
    fn the_budget_for_missing_kids_holds_back_no_other_flight() {
        let mut life = Life::holding("max-age=300", |_| {});
        let plan = life.pass(264).start(MissingKid);
        life.it.abandon(plan.number);
        assert!(matches!(life.pass(1).ask(Reader), Answer::Start(_)), "the due refresh starts");
    }

    #[test]
    fn a_refresh_that_no_kid_caused_does_not_use_up_the_budget() {
        let mut life = Life::holding("max-age=300", |_| {});
        life.start(MissingKid);
    }

    #[test]
    fn no_missing_kid_starts_a_flight_while_backoff_runs() {
        let mut life = Life::holding("max-age=36000", |_| {});
        life.pass(35_990).fail(Reader);
        assert_eq!(life.wait_of(MissingKid), Duration::from_millis(500));
        life.pass(1).fail(MissingKid);
        assert_eq!(life.it.failures(), 2, "a failed one counts like any other");
    }

    // §3, what an outcome may change.

    #[test]
    fn a_failed_flight_never_removes_or_shortens_what_is_held() {
        let mut life = Life::holding("max-age=300", |policy| policy.stale_while_error = Duration::ZERO);
        let before = format!("{:?}", life.held());
        for seconds in [1, 265, 20] {
            life.pass(seconds).fail(if seconds == 265 { Reader } else { Person });
            assert_eq!(format!("{:?}", life.held()), before);
        }
        assert_eq!(life.standing(), Standing::RefreshDue);
        life.pass(14);
        assert_eq!(life.standing(), Standing::Unusable, "300 s, and no stale window");
    }

    #[test]
    fn a_flight_that_was_given_up_publishes_nothing() {
        let mut life = Life::holding("max-age=300", |_| {});
        let old = life.pass(1).start(Person).number;
        life.it.abandon(old);
        let new = life.pass(1).start(Person).number;
        let stale = life.document(&doc(&[("x", 9)]), "max-age=300");
        assert!(matches!(life.land(old, stale), Change::Ignored));
        assert!(life.held().set.mentions("a"));
        let fresh = life.document(&doc(&[("c", 3)]), "max-age=300");
        assert!(matches!(life.land(new, fresh), Change::Adopted { .. }));
        let late = life.document(&doc(&[("a", 1)]), "max-age=300");
        assert!(matches!(life.land(new, late), Change::Ignored), "and none lands twice");
        assert!(life.held().set.mentions("c"));
    }

    #[test]
    fn the_timer_makes_up_for_a_flight_that_was_lost() {
        for (mode, want) in [(RefreshMode::OnDemand, None), (RefreshMode::Always, Some(START + secs(1)))] {
            let mut life = Life::new(|policy| policy.refresh_mode = mode);
            let number = life.start(Reader).number;
            life.it.abandon(number);
            assert_eq!(life.it.wake_at(), want, "{mode:?}");
        }
    }

    #[test]
    fn a_304_does_not_confirm_a_set_that_was_restored_after_the_question() {
        let mut life = Life::holding("max-age=300", |_| {});
        let number = life.pass(10).start(Person).number;
        let headers = StoredHeaders::from_validators(Some("\"other\""), None);
        let (now, end) = (life.now, life.now + secs(60));
        let set = doc(&[("x", 9)]);
        assert!(life.it.restore(stored(set, headers, secs(0), end.since(now)), now, &mut || 1.0));
        let outcome = life.not_modified(&[("cache-control", "max-age=86400")]);
        assert!(matches!(life.land(number, outcome), Change::Failed));
        assert_eq!((life.held().expires_at, life.held().validators_trusted), (end, false));
    }

    #[test]
    fn what_began_earlier_replaces_nothing_that_was_restored_meanwhile() {
        // how long before the landing the restored one had begun; whether it stays
        for (ago, stays) in [(9, true), (10, false), (11, false)] {
            let mut life = Life::holding("max-age=300", |policy| policy.refresh_mode = RefreshMode::Always);
            life.pass(20).fail(Person);
            let number = life.pass(60).start(Person).number;
            let outcome = life.document(&doc(&[("old", 8)]), "max-age=900");
            life.pass(10);
            let newer = doc(&[("new", 9)]);
            let stored = stored(newer.clone(), StoredHeaders::default(), secs(ago), secs(100));
            assert!(life.it.restore(stored, life.now, &mut || 1.0));
            let change = life.land(number, outcome);
            assert_eq!(matches!(change, Change::Superseded { recovered: true }), stays, "{ago}: {change:?}");
            assert_eq!(Arc::ptr_eq(&life.held().set, &newer), stays, "{ago}");
            assert!(life.it.wake_at().is_some(), "the timer goes on");
            assert_eq!(life.it.failures(), 0);
        }
    }

    #[test]
    fn a_success_after_failures_is_a_recovery() {
        let mut life = Life::holding("max-age=300", |_| {});
        life.pass(299).fail(Reader);
        let change = life.pass(10).adopt(&doc(&[("a", 1), ("b", 2)]), "max-age=300");
        assert!(matches!(change, Change::Adopted { recovered: true, .. }));
        let change = life.pass(10).adopt(&doc(&[("a", 1), ("b", 2)]), "max-age=300");
        assert!(matches!(change, Change::Adopted { recovered: false, .. }));
        assert_eq!(life.it.failures(), 0);
    }

    #[test]
    fn nothing_outlives_max_trust_age() {
        // Neither lifetime, stale window, stale-if-error, failures nor grace.
        let mut life = Life::holding("max-age=86400, stale-if-error=864000", |policy| {
            policy.max_trust_age = Some(secs(HOUR));
            policy.stale_while_error = secs(24 * HOUR);
            policy.removal_grace = secs(24 * HOUR);
        });
        assert_eq!(life.held().servable_until, START + secs(HOUR));
        life.pass(MINUTE).adopt(&doc(&[("a", 1)]), "max-age=86400");
        assert_eq!(life.retiring(), ["b"]);
        life.pass(HOUR - MINUTE - 1);
        assert_eq!(life.retiring().len(), 1);
        life.pass(1);
        assert_eq!(life.retiring().len(), 0, "b was held by no document of this hour");
        assert_eq!(life.standing(), Standing::Fresh, "a was");
        life.pass(MINUTE - 1).fail(Reader);
        life.pass(1);
        assert_eq!(life.standing(), Standing::Unusable);
    }

    #[test]
    fn the_default_trust_is_the_larger_of_two_days_and_the_longest_lifetime_with_its_window() {
        for (stale_hours, trust_hours) in [(0, 48), (24, 48), (100, 124)] {
            let life = Life::holding("max-age=999999999, stale-if-error=999999999", |policy| {
                policy.stale_while_error = secs(stale_hours * HOUR);
            });
            let window = if stale_hours == 0 { 24 } else { trust_hours };
            assert_eq!(life.held().servable_until, START + secs(window * HOUR), "{stale_hours} h");
        }
    }

    #[test]
    fn a_restored_set_is_served_no_later_than_its_trust_and_gains_no_lifetime() {
        let restore = |age: u64, left: u64, change: fn(&mut Policy)| {
            let mut life = Life::new(change);
            let headers = StoredHeaders::from_validators(Some("\"a\""), None);
            let (now, end) = (life.now, life.now + secs(left));
            let set = doc(&[("a", 1)]);
            let taken = life.it.restore(
                stored(set, headers, secs(age), end.since(now - secs(age))),
                now,
                &mut || 1.0,
            );
            (life, taken)
        };
        let (mut life, taken) = restore(100, 200, |_| {});
        assert!(taken);
        assert_eq!(life.held().expires_at, START + secs(200));
        assert_eq!(life.standing(), Standing::Fresh);
        assert_eq!(life.pass(5).start(Reader).validators, Validators::default(), "soon, unconditionally");
        let (mut life, taken) = restore(3_598, 7_200, |policy| policy.max_trust_age = Some(secs(3_600)));
        assert!(taken && life.standing() != Standing::Unusable);
        life.pass(2);
        assert_eq!(life.standing(), Standing::Unusable, "trust ends an hour after the document");
        let (_, taken) = restore(3_600, 7_200, |policy| policy.max_trust_age = Some(secs(3_600)));
        assert!(!taken);
    }

    #[test]
    fn retiring_keys_come_back_with_what_is_left_of_their_grace() {
        let key = |kid, seed| doc(&[(kid, seed)]).shared().next().unwrap();
        // left and last held so many seconds before the last answer, which is 100 s ago; what is left to live
        let table = [
            (key("old", 3), 0, 300, Some(500)),
            (key("old", 3), 400, 700, Some(100)),
            (key("old", 3), 500, 700, None),
            (key("old", 3), 400, 0, Some(100)), // held after it left: it was not
            (key("a", 3), 0, 300, None),        // the document speaks of it
        ];
        for (key, left, held, lives) in table {
            let mut life = Life::new(|policy| policy.removal_grace = secs(600));
            let set = doc(&[("a", 1)]);
            let (left_before, held_before) = (secs(left), secs(held));
            let retiring = vec![StoredKey { key, left_before, held_before }];
            let stored = stored(set, StoredHeaders::default(), secs(100), secs(5_000));
            assert!(life.it.restore(Stored { retiring, ..stored }, life.now, &mut || 1.0));
            let until = life.held().retiring.first().map(|old| old.until.since(life.now).as_secs());
            assert_eq!(until, lives, "left {left} s before, held {held} s before");
        }
    }

    #[test]
    fn validators_of_a_snapshot_are_sent_only_where_nobody_else_can_have_written_it() {
        for trusted in [false, true] {
            let mut life = Life::new(|_| {});
            let headers = StoredHeaders::from_validators(Some("\"a\""), None);
            let stored = stored(doc(&[("a", 1)]), headers, secs(10), secs(300));
            assert!(life.it.restore(Stored { trusted, ..stored }, life.now, &mut || 1.0));
            let number = life.pass(6).start(Reader);
            assert_eq!(number.validators.etag.is_some(), trusted);
            let change = life.not_modified(&[("cache-control", "max-age=600")]);
            let change = life.land(number.number, change);
            assert_eq!(matches!(change, Change::Renewed { .. }), trusted, "{change:?}");
        }
    }

    #[test]
    fn a_304_does_not_confirm_a_set_that_was_restored_meanwhile_though_its_validators_may_be_sent() {
        let mut life = Life::holding("max-age=300", |_| {});
        let number = life.pass(290).start(Reader).number;
        let headers = StoredHeaders::from_validators(Some("\"a\""), None);
        let stored = stored(doc(&[("z", 9)]), headers, secs(10), secs(300));
        assert!(life.it.restore(Stored { trusted: true, ..stored }, life.now, &mut || 1.0));
        let outcome = life.not_modified(&[]);
        assert!(matches!(life.land(number, outcome), Change::Failed));
        let next = life.pass(MINUTE).start(Reader).number;
        let outcome = life.not_modified(&[]);
        assert!(matches!(life.land(next, outcome), Change::Renewed { .. }));
    }

    #[test]
    fn what_began_earlier_never_replaces_what_began_later() {
        // held: begun and received; stored: begun and received, seconds before now
        for (held, theirs, taken) in [
            ((100, 90), (80, 70), true),
            ((100, 90), (100, 80), false),
            ((100, 90), (110, 80), false),
            ((100, 70), (90, 80), false), // the later one came first, and was replaced: never over newer
        ] {
            let mut life = Life::new(|_| {});
            let mut offer = |(begun, received): (u64, u64)| {
                let stored = stored(doc(&[("a", 1)]), StoredHeaders::default(), secs(received), secs(5_000));
                let transit = secs(begun - received);
                life.it.restore(Stored { transit, ..stored }, life.now, &mut || 1.0)
            };
            assert!(offer(held));
            assert_eq!(offer(theirs), taken, "{held:?} {theirs:?}");
        }
    }

    #[test]
    fn a_denial_of_another_process_denies_the_material_it_has_seen() {
        let mut life = Life::new(|_| {});
        let set = doc(&[("renamed", 7)]);
        assert!(life.it.restore_denial("stolen", [set.keys()[0].thumbprint()]));
        life.adopt(&set, "max-age=300");
        assert!(life.it.published().keys().is_empty());
    }

    // §6, sets that may not replace others.

    #[test]
    fn a_document_without_a_usable_key_is_refused_while_usable_ones_are_servable() {
        let unusable = leaked(&[("e", 5)], "revoked");
        for set in [doc(&[]), unusable] {
            let mut life = Life::holding("max-age=300", |_| {});
            assert!(matches!(life.pass(299).adopt(&set, "max-age=300"), Change::Refused(_)));
            assert_eq!((life.held().set.keys().len(), life.held().expires_at), (2, START + secs(300)));
            life.pass(61);
            assert_eq!(life.standing(), Standing::Unusable);
            assert!(matches!(life.adopt(&set, "max-age=300"), Change::Adopted { .. }));
            assert_eq!(life.retiring().len(), 0, "it is no removal either");
        }
    }

    #[test]
    fn denials_play_no_part_in_whether_a_document_is_refused() {
        let mut life = Life::holding("max-age=300", |_| {});
        life.it.deny("a");
        life.it.deny("b");
        assert!(matches!(life.pass(1).adopt(&doc(&[]), ""), Change::Refused(_)));
    }

    #[test]
    fn an_empty_set_is_held_for_min_ttl_without_a_stale_window() {
        let mut life = Life::new(|policy| policy.min_ttl = secs(45));
        let change = life.adopt(&doc(&[]), "max-age=86400, stale-if-error=86400");
        assert!(matches!(change, Change::Adopted { .. }));
        assert_eq!(life.held().expires_at, START + secs(45));
        assert_eq!(life.held().servable_until, START + secs(45));
        life.pass(1).adopt(&doc(&[("a", 1)]), "max-age=300");
        assert!(life.held().set.mentions("a"), "and gives way to keys");
    }

    #[test]
    fn a_304_merges_headers_and_starts_a_new_lifetime() {
        let mut life = Life::new(jitterless);
        let number = life.start(Person).number;
        let headers =
            StoredHeaders::from_response(&head(&[("cache-control", "max-age=300"), ("etag", "\"1\"")]));
        let timing = life.timing();
        life.land(number, Outcome::Document { set: doc(&[("a", 1)]), headers, timing });
        let plan = life.pass(100).start(Person);
        assert_eq!(plan.validators.etag.as_deref(), Some("\"1\""));
        let outcome = life.not_modified(&[("cache-control", "max-age=900"), ("etag", "\"2\"")]);
        assert!(matches!(life.land(plan.number, outcome), Change::Renewed { recovered: false }));
        assert_eq!(life.held().expires_at, START + secs(1_000), "the changed max-age counts");
        let plan = life.pass(100).start(Person);
        assert_eq!(plan.validators.etag.as_deref(), Some("\"2\""), "the changed ETag counts");
        let outcome = life.not_modified(&[]);
        life.land(plan.number, outcome);
        assert_eq!(life.held().expires_at, START + secs(1_100), "what it leaves out stays");
    }

    #[test]
    fn a_304_that_confirms_nothing_held_is_a_failure() {
        let mut life = Life::new(|_| {});
        let number = life.start(Reader).number;
        let outcome = life.not_modified(&[]);
        assert!(matches!(life.land(number, outcome), Change::Failed));
        assert_eq!(life.it.failures(), 1);
    }

    // §6, confirmed removal.

    #[test]
    fn a_key_that_left_is_honoured_for_its_grace() {
        let mut life = Life::holding("max-age=3600", |policy| policy.removal_grace = secs(600));
        life.pass(100).adopt(&doc(&[("a", 1)]), "max-age=3600");
        assert_eq!(life.retiring(), ["b"]);
        life.pass(300).adopt(&doc(&[("a", 1)]), "max-age=3600");
        assert_eq!(life.held().retiring[0].until, START + secs(700), "counted once, from when it left");
        life.pass(300);
        assert_eq!(life.retiring().len(), 0);
        let mut life = Life::holding("max-age=3600", |policy| policy.removal_grace = Duration::ZERO);
        life.pass(100).adopt(&doc(&[("a", 1)]), "max-age=3600");
        assert_eq!(life.retiring().len(), 0, "a grace of nothing is at once");
    }

    #[test]
    fn trust_in_a_retiring_key_counts_from_the_last_document_that_held_it() {
        let mut life = Life::holding("max-age=3600", |policy| {
            policy.removal_grace = secs(48 * HOUR);
            policy.max_trust_age = Some(secs(HOUR));
        });
        let number = life.pass(1_000).start(Person).number;
        let outcome = life.not_modified(&[]); // confirms b as well
        life.land(number, outcome);
        life.pass(1_000).adopt(&doc(&[("a", 1)]), "max-age=3600");
        assert_eq!(life.held().retiring[0].until, START + secs(1_000 + HOUR));
        life.pass(1_000).adopt(&doc(&[("a", 1)]), "max-age=3600");
        assert_eq!(life.held().retiring[0].until, START + secs(1_000 + HOUR), "later documents add nothing");
    }

    #[test]
    fn coming_back_clears_retirement_and_leaving_again_starts_it_anew() {
        let mut life = Life::holding("max-age=3600", |_| {});
        life.pass(100).adopt(&doc(&[("a", 1)]), "max-age=3600");
        life.pass(100).adopt(&doc(&[("a", 1), ("b", 2)]), "max-age=3600");
        assert!(life.held().retiring.is_empty());
        life.pass(100).adopt(&doc(&[("a", 1)]), "max-age=3600");
        assert_eq!(life.held().retiring[0].until, START + secs(300 + 600));
    }

    #[test]
    fn a_kid_that_the_document_still_speaks_of_does_not_retire() {
        // New material, weak or revoked, or withdrawn because it leaked: the document decides.
        for next in [doc(&[("a", 1), ("b", 9)]), leaked(&[("a", 1)], "b"), leaked(&[("a", 1)], "private b")] {
            let mut life = Life::holding("max-age=3600", |_| {});
            life.pass(1).adopt(&next, "max-age=3600");
            assert!(life.held().retiring.is_empty(), "{next:?}");
            let mut life = Life::holding("max-age=3600", |_| {});
            life.pass(1).adopt(&doc(&[("a", 1)]), "max-age=3600");
            life.pass(1).adopt(&next, "max-age=3600");
            assert!(life.held().retiring.is_empty(), "nor goes on retiring: {next:?}");
        }
    }

    #[test]
    fn retiring_keys_are_bounded_by_max_keys() {
        let mut life = Life::new(|policy| policy.max_keys = 3);
        for round in 0..20_u8 {
            let name = format!("r{round}");
            life.pass(2).adopt(&doc(&[(&name, round + 1)]), "max-age=3600");
        }
        assert_eq!(life.held().retiring.len(), 3);
        assert_eq!(life.retiring(), ["r18", "r17", "r16"], "the latest are kept");
        let next = Policy { max_keys: 2, ..policy() };
        life.it.reconfigure(Arc::new(next), |set| Some(set.clone()), life.now, &mut || 1.0);
        assert_eq!(life.retiring(), ["r18", "r17"], "a smaller bound holds at once");
    }

    #[test]
    fn a_suspicious_change_is_new_material_under_a_kid_or_nothing_in_common() {
        let table: [(&[(&str, u8)], bool); 5] = [
            (&[("a", 1), ("b", 2), ("c", 3)], false),
            (&[("a", 1)], false),
            (&[("a", 9), ("b", 2)], true),
            (&[("c", 3), ("d", 4)], true),
            (&[("a2", 1), ("b2", 2)], false), // other names for the same material
        ];
        for (next, want) in table {
            let mut life = Life::holding("max-age=3600", |_| {});
            match life.pass(1).adopt(&doc(next), "max-age=3600") {
                Change::Adopted { suspicious, .. } => assert_eq!(suspicious, want, "{next:?}"),
                other => panic!("{other:?}"),
            }
        }
    }

    // Denials.

    #[test]
    fn a_denial_learns_the_material_whenever_it_is_seen_under_the_kid() {
        let names = |life: &Life| -> Vec<String> {
            life.it.published().keys().iter().map(|key| key.kid().unwrap().to_owned()).collect()
        };
        let mut life = Life::holding("max-age=3600", |_| {});
        assert!(life.it.deny("a") && !life.it.deny("a"));
        assert_eq!(names(&life), ["b"]);
        life.pass(1).adopt(&doc(&[("b", 2), ("a-again", 1)]), "max-age=3600");
        assert_eq!(names(&life), ["b"], "the same material under another kid");
        assert_eq!(life.retiring().len(), 0, "a denied key does not retire visibly");
        life.pass(1).adopt(&doc(&[("b", 2), ("a", 7)]), "max-age=3600");
        life.pass(1).adopt(&doc(&[("b", 2), ("x", 7)]), "max-age=3600");
        assert_eq!(names(&life), ["b"], "material that came under the denied kid later");
        let mut early = Life::new(|_| {});
        early.it.deny("a");
        early.adopt(&doc(&[("a", 1), ("b", 2)]), "max-age=3600");
        early.pass(1).adopt(&doc(&[("y", 1), ("b", 2)]), "max-age=3600");
        assert_eq!(names(&early), ["b"], "denied before anything was held");
        assert!(early.it.allow("a") && !early.it.allow("a"));
        assert_eq!(names(&early), ["y", "b"]);
    }

    #[test]
    fn denials_outlive_other_settings_and_other_sources() {
        let mut life = Life::holding("max-age=3600", |_| {});
        life.it.deny("a");
        life.it.reconfigure(Arc::new(policy()), |set| Some(set.clone()), life.now, &mut || 1.0);
        assert!(life.it.published().denies_kid("a"));
        life.it.forget(Arc::new(policy()), life.now);
        assert!(life.it.published().denies_kid("a") && life.it.held().is_none());
    }

    // Other settings for the same source.

    #[test]
    fn held_keys_are_judged_anew_by_other_settings_at_once() {
        let mut life = Life::holding("max-age=7200", |_| {});
        life.pass(10).adopt(&doc(&[("a", 1)]), "max-age=7200");
        let number = life.pass(1).start(Person).number;
        let mut next = policy();
        next.removal_grace = secs(5);
        next.max_trust_age = Some(secs(100));
        life.it.reconfigure(Arc::new(next), |set| Some(set.clone()), life.now, &mut || 1.0);
        assert_eq!(life.held().fresh_until(), START + secs(110));
        assert_eq!(life.held().retiring[0].until, START + secs(15));
        let outcome = life.document(&doc(&[("x", 9)]), "max-age=300");
        assert!(matches!(life.land(number, outcome), Change::Ignored), "the old flight publishes nothing");
    }

    #[test]
    fn a_restored_set_keeps_its_lifetime_under_other_settings() {
        let mut life = Life::new(|_| {});
        let headers = StoredHeaders::from_validators(None, None);
        let end = life.now + secs(5 * HOUR);
        let set = doc(&[("a", 1)]);
        assert!(life.it.restore(
            stored(set, headers, secs(HOUR), end.since(life.now - secs(HOUR))),
            life.now,
            &mut || 1.0
        ));
        let mut next = policy();
        next.stale_while_error = secs(HOUR);
        life.it.reconfigure(Arc::new(next), |set| Some(set.clone()), life.now, &mut || 1.0);
        assert_eq!((life.held().expires_at, life.held().servable_until), (end, end + secs(HOUR)));
    }

    #[test]
    fn other_settings_forget_neither_the_time_in_transit_nor_a_retry_after() {
        let mut life = Life::new(jitterless);
        let number = life.start(Reader).number;
        let mut timing = life.pass(7).timing();
        timing.requested_at = START;
        let headers = StoredHeaders::from_response(&head(&[("cache-control", "max-age=300")]));
        life.land(number, Outcome::Document { set: doc(&[("a", 1)]), headers, timing });
        life.it.reconfigure(Arc::new(policy()), |set| Some(set.clone()), life.now, &mut || 1.0);
        assert_eq!(life.held().expires_at, START + secs(300));
        life.pass(400).fail_asking(Reader, Some(secs(200)));
        life.pass(1).fail(Person);
        life.it.reconfigure(Arc::new(policy()), |set| Some(set.clone()), life.now, &mut || 1.0);
        assert_eq!(life.wait_of(Reader), secs(199));
    }

    #[test]
    fn a_running_backoff_is_cut_when_other_settings_end_what_was_servable() {
        let mut life = Life::holding("max-age=30", |policy| policy.stale_while_error = secs(10 * HOUR));
        life.pass(30);
        for _ in 0..15 {
            let number = life.pass(300).start(Reader).number;
            life.land(number, Outcome::Failed { retry_after: None });
        }
        assert!(life.it.published().backoff_until > life.now + secs(100));
        life.it.reconfigure(Arc::new(policy()), |set| Some(set.clone()), life.now, &mut || 1.0);
        assert_eq!(life.standing(), Standing::Unusable);
        assert_eq!(life.it.published().backoff_until, life.now + secs(10));
    }

    #[test]
    fn a_failure_that_an_unknown_kid_caused_makes_no_refresh_due() {
        let mut life = Life::holding("max-age=36000", |_| {});
        let due = life.held().refresh_at;
        let number = life.pass(60).start(MissingKid).number;
        life.land(number, Outcome::Failed { retry_after: None });
        assert_eq!(life.it.wake_at(), Some(due));
    }

    #[test]
    fn a_304_does_not_confirm_what_was_restored_meanwhile() {
        let mut life = Life::holding("max-age=300", |_| {});
        let number = life.pass(280).start(Person).number;
        let (headers, timing) = (StoredHeaders::from_validators(Some("\"b\""), None), life.timing());
        let (now, end) = (life.now, life.now + secs(50));
        let set = doc(&[("z", 3)]);
        assert!(life.it.restore(
            stored(set, headers, secs(100), end.since(now - secs(100))),
            now,
            &mut || 1.0
        ));
        let outcome = Outcome::NotModified { headers: HeaderMap::new(), timing };
        assert!(matches!(life.land(number, outcome), Change::Failed));
        assert_eq!((life.held().expires_at, life.held().validators_trusted), (end, false));
    }

    #[test]
    fn an_early_first_timer_that_finds_nobody_asks_again_when_the_refresh_is_due() {
        let mut life = Life::holding("max-age=7200", |_| {});
        let early = life.it.wake_at().unwrap();
        let due = life.held().refresh_at;
        life.draw = 0.0;
        life.it.wake_at = Some(early.min(due - secs(60)));
        life.now = due - secs(60);
        assert_eq!(life.it.ask(Asker::Timer { read: false }, life.now), Answer::Quiet);
        assert_eq!(life.it.wake_at(), Some(due));
        life.now = due;
        assert_eq!(life.it.ask(Asker::Timer { read: false }, life.now), Answer::Quiet);
        assert_eq!(life.it.wake_at(), None, "one that nobody reads goes quiet");
    }

    #[test]
    fn a_lost_flight_leaves_the_timer_set() {
        let mut life = Life::holding("max-age=300", |_| {});
        let due = life.held().refresh_at;
        let number = life.pass(10).start(Person).number;
        life.it.abandon(number);
        assert_eq!(life.it.wake_at(), Some(due));
    }

    // Borders.

    #[test]
    fn a_retiring_key_whose_grace_has_ended_goes_with_the_next_answer() {
        let retired = || {
            let mut life = Life::holding("max-age=3600", |_| {});
            life.pass(10).adopt(&doc(&[("b", 2)]), "max-age=3600");
            assert_eq!(life.held().retiring.len(), 1);
            life.pass(600);
            life
        };
        let mut life = retired();
        let number = life.start(Person).number;
        let answer = life.not_modified(&[]);
        life.land(number, answer);
        assert!(life.held().retiring.is_empty());
        let mut life = retired();
        life.adopt(&doc(&[("b", 2), ("c", 3)]), "max-age=3600");
        assert!(life.held().retiring.is_empty());
    }

    #[test]
    fn a_restored_retiring_key_is_trusted_no_longer_than_its_last_document() {
        let key = doc(&[("old", 3)]).shared().next().unwrap();
        let mut life = Life::new(|policy| policy.max_trust_age = Some(secs(1_000)));
        let retiring = vec![StoredKey { key, left_before: secs(10), held_before: secs(900) }];
        let stored = stored(doc(&[("a", 1)]), StoredHeaders::default(), secs(0), secs(900));
        assert!(life.it.restore(Stored { retiring, ..stored }, life.now, &mut || 1.0));
        assert_eq!(life.held().retiring[0].until, life.now + secs(100));
    }

    #[test]
    fn of_restored_retiring_keys_each_kid_comes_back_once_and_no_more_than_may_be() {
        let key = |kid, seed| StoredKey {
            key: doc(&[(kid, seed)]).shared().next().unwrap(),
            left_before: Duration::ZERO,
            held_before: Duration::ZERO,
        };
        let mut life = Life::new(|policy| policy.max_keys = 2);
        let retiring = vec![key("x", 3), key("x", 4), key("y", 5), key("z", 6)];
        let stored = stored(doc(&[("a", 1)]), StoredHeaders::default(), secs(10), secs(900));
        assert!(life.it.restore(Stored { retiring, ..stored }, life.now, &mut || 1.0));
        assert_eq!(life.retiring(), ["x", "y"]);
    }

    #[test]
    fn a_denial_learns_the_material_of_restored_retiring_keys() {
        let mut life = Life::new(|_| {});
        life.it.deny("old");
        let key = doc(&[("old", 3)]).shared().next().unwrap();
        let retiring =
            vec![StoredKey { key: key.clone(), left_before: Duration::ZERO, held_before: Duration::ZERO }];
        let stored = stored(doc(&[("a", 1)]), StoredHeaders::default(), secs(10), secs(900));
        assert!(life.it.restore(Stored { retiring, ..stored }, life.now, &mut || 1.0));
        assert!(life.it.denials.denies_material(&key.thumbprint()));
    }

    #[test]
    fn a_lost_flight_sets_no_timer_for_who_has_none() {
        let lost = |mut life: Life| {
            let number = life.pass(10).start(Person).number;
            life.it.abandon(number);
            life.it.wake_at()
        };
        let on_demand = |policy: &mut Policy| policy.refresh_mode = RefreshMode::OnDemand;
        assert_eq!(lost(Life::holding("max-age=300", on_demand)), None);
        assert_eq!(lost(Life::new(|_| {})), None, "nothing is held, and nobody asked");
        let always = Life::new(|policy| policy.refresh_mode = RefreshMode::Always);
        assert_eq!(lost(always), Some(START + secs(11)));
    }

    #[test]
    fn a_person_who_fails_after_the_refresh_was_due_does_not_spin_the_timer() {
        let mut life = Life::holding("max-age=300", |_| {});
        life.pass(299).fail(Person);
        assert_eq!(life.it.wake_at(), Some(life.now + secs(1)));
    }

    #[test]
    fn the_timer_waits_though_readers_may_take_the_first_retry_at_once() {
        let mut life = Life::new(|policy| policy.refresh_mode = RefreshMode::Always);
        life.fail(Reader);
        assert_eq!(life.wait_of(Reader), Duration::ZERO);
        let mut life = Life::new(|policy| policy.refresh_mode = RefreshMode::Always);
        life.fail(Reader);
        assert!(life.it.wake_at().is_some_and(|at| at > life.now));
    }

    #[test]
    fn the_timer_stops_at_the_moment_at_which_nothing_is_servable_any_more() {
        let mut life = Life::holding("max-age=100", |_| {});
        life.pass(159).fail(Reader);
        assert!(life.it.wake_at().is_some());
        let mut life = Life::holding("max-age=100", |_| {});
        life.pass(160).fail(Reader);
        assert_eq!(life.it.wake_at(), None);
    }

    // Documents that another provider of the same source was brought.

    #[test]
    fn providers_of_one_source_share_the_budget_for_missing_kids() {
        let mut life = Life::holding("max-age=3600", |_| {});
        life.it.charge_kid_flight(life.now);
        life.it.charge_kid_flight(life.now - secs(5));
        assert_eq!(life.wait_of(MissingKid), secs(10), "the later one counts");
    }

    /// Whether what came `received` seconds after the held document would do for `asker` at `now` seconds.
    fn would_do(life: &Life, asker: Asker, received: u64, now: u64) -> bool {
        let at = |seconds: u64| START + secs(seconds);
        let timing = Timing { requested_at: at(received), received_at: at(received), ..life.timing() };
        let headers = StoredHeaders::from_response(&head(&[("cache-control", "max-age=3600")]));
        life.it.would_adopt(asker, &headers, &timing, at(now))
    }

    #[test]
    fn a_newer_document_of_the_same_source_does_for_all_but_who_insists() {
        let life = Life::holding("max-age=3600", |_| {});
        assert!(would_do(&life, Reader, 10, 20));
        assert!(would_do(&life, MissingKid, 10, 20));
        assert!(!would_do(&life, Person, 10, 20), "who insists asks the source itself");
        assert!(would_do(&Life::new(|_| {}), Reader, 10, 20), "it is newer than nothing");
    }

    #[test]
    fn what_is_no_newer_than_what_is_held_does_not_do() {
        let mut life = Life::new(|_| {});
        life.pass(10).adopt(&doc(&[("a", 1)]), "max-age=3600");
        assert!(!would_do(&life, Reader, 9, 20));
        assert!(!would_do(&life, Reader, 10, 20));
        assert!(would_do(&life, Reader, 11, 20));
        // It came later, and the question was asked earlier.
        let (before, after) = (START + secs(9), START + secs(11));
        let timing = Timing { requested_at: before, received_at: after, ..life.timing() };
        let headers = StoredHeaders::from_response(&head(&[("cache-control", "max-age=3600")]));
        assert!(!life.it.would_adopt(Reader, &headers, &timing, START + secs(20)));
        life.pass(5).start(Person);
        assert!(!would_do(&life, Reader, 11, 20), "a flight runs");
    }

    #[test]
    fn a_document_of_another_provider_is_not_taken_beside_a_flight_or_without_a_usable_key() {
        let mut life = Life::holding("max-age=3600", |_| {});
        life.pass(5);
        let offered = |life: &mut Life, set: Arc<KeySet>| {
            let headers = StoredHeaders::from_response(&head(&[("cache-control", "max-age=3600")]));
            let (timing, now) = (life.timing(), life.now);
            life.it.adopt(set, headers, timing, now, &mut || 1.0)
        };
        assert!(matches!(offered(&mut life, doc(&[])), Change::Ignored));
        let number = life.start(Person).number;
        assert!(matches!(offered(&mut life, doc(&[("c", 3)])), Change::Ignored));
        life.it.abandon(number);
        assert!(matches!(offered(&mut life, doc(&[("c", 3)])), Change::Adopted { .. }));
    }

    #[test]
    fn keys_of_a_fallback_give_way_to_any_document_of_the_source() {
        let mut life = fallen(RefreshMode::OnDemand);
        life.pass(5);
        assert!(would_do(&life, Reader, 0, 5));
    }

    #[test]
    fn a_document_that_is_due_by_the_settings_in_force_does_not_do() {
        // 3,600 s less a lead of 30 s and the most jitter of 5 s.
        let life = Life::holding("max-age=3600", |_| {});
        assert!(would_do(&life, Reader, 10, 10 + 3_564));
        assert!(!would_do(&life, Reader, 10, 10 + 3_565));
        assert!(!would_do(&life, Reader, 10, 10 + 3_566));
    }

    #[test]
    fn a_newer_document_does_for_a_timer_that_would_fetch() {
        let mut life = Life::holding("max-age=3600", |_| {});
        life.it.wake_at = Some(START + secs(100));
        let timer = |read| Asker::Timer { read };
        assert!(!would_do(&life, timer(true), 10, 99), "it is not due");
        assert!(would_do(&life, timer(true), 10, 100));
        assert!(would_do(&life, timer(true), 10, 101));
        assert!(!would_do(&life, timer(false), 10, 100), "it goes quiet");
        let mut always = Life::holding("max-age=3600", |policy| policy.refresh_mode = RefreshMode::Always);
        always.it.wake_at = Some(START + secs(100));
        assert!(would_do(&always, timer(false), 10, 100));
        life.it.wake_at = None;
        assert!(!would_do(&life, timer(true), 10, 100), "it is not set");
    }

    // Fallbacks.

    /// One that holds the keys of its only fallback, which the timer sees to.
    fn fallen(refresh_mode: RefreshMode) -> Life {
        let mut life = Life::new(|policy| {
            (policy.refresh_mode, policy.stale_while_error) = (refresh_mode, secs(10 * HOUR));
            policy.fallbacks = vec![secs(24 * HOUR)];
        });
        let number = life.start(Reader).number;
        let Outcome::Document { set, headers, timing } = life.document(&doc(&[("f", 9)]), "max-age=3600")
        else {
            unreachable!()
        };
        let outcome = Outcome::FellBack { index: 0, set, headers, timing, retry_after: None };
        assert!(matches!(life.land(number, outcome), Change::FellBack { .. }));
        life
    }

    #[test]
    fn a_fallback_that_is_dead_is_left_alone_and_holds_nothing_back() {
        for refresh_mode in [RefreshMode::OnDemand, RefreshMode::WhileInUse, RefreshMode::Always] {
            let mut life = fallen(refresh_mode);
            // From when it is due, everything fails, and somebody reads each second.
            life.pass(3_600);
            let (mut of_fallback, mut of_primary) = (0, Vec::new());
            for second in 0..1_800 {
                let timer =
                    life.it.wake_at().filter(|at| *at <= life.now).map(|_| Asker::Timer { read: true });
                for asker in timer.into_iter().chain([Reader]) {
                    if let Answer::Start(plan) = life.ask(asker) {
                        of_fallback += plan.fallbacks.len();
                        of_primary.extend(plan.primary.then_some(second));
                        life.land(plan.number, Outcome::Failed { retry_after: None });
                    }
                }
                life.pass(1);
            }
            assert!((5..=20).contains(&of_fallback), "{refresh_mode:?}: the fallback {of_fallback} times");
            assert!((5..=20).contains(&of_primary.len()), "{refresh_mode:?}: the source at {of_primary:?}");
            assert!(
                of_primary.windows(2).all(|two| two[1] - two[0] <= 301),
                "{refresh_mode:?}: {of_primary:?}"
            );
        }
    }

    #[test]
    fn a_fallback_is_asked_again_when_it_is_due_and_after_a_failure_when_it_has_waited() {
        const MOMENT: Duration = Duration::from_nanos(1);
        let mut life = fallen(RefreshMode::OnDemand);
        let wanted = |life: &Life, at: Moment| life.it.wanted_fallbacks(at);
        let due = START + secs(3_600 - 30 - 5);
        assert_eq!(wanted(&life, due - MOMENT), Vec::<u16>::new());
        assert_eq!(wanted(&life, due), [0]);
        life.now = due;
        life.fail(Reader);
        let waited = life.it.fallbacks_wait_until();
        assert!(waited > due);
        assert_eq!(wanted(&life, waited - MOMENT), Vec::<u16>::new());
        assert_eq!(wanted(&life, waited), [0]);
        assert_eq!(wanted(&life, waited + MOMENT), [0]);
    }

    #[test]
    fn a_fallback_that_has_served_as_long_as_it_may_is_asked_no_more() {
        const MOMENT: Duration = Duration::from_nanos(1);
        let life = fallen(RefreshMode::OnDemand);
        let end = START + secs(24 * HOUR);
        assert_eq!(life.it.wanted_fallbacks(end - MOMENT), [0]);
        assert_eq!(life.it.wanted_fallbacks(end), Vec::<u16>::new());
    }

    /// One whose keys have ceased to be servable while the source asked for patience, with a fallback at hand.
    fn without_keys_in_backoff() -> Life {
        let mut life = Life::holding("max-age=100", |policy| policy.fallbacks = vec![secs(24 * HOUR)]);
        life.pass(155).fail_asking(Reader, Some(secs(60)));
        assert_eq!(life.pass(6).standing(), Standing::Unusable);
        assert!(life.now < life.it.backoff_until);
        life
    }

    #[test]
    fn the_backoff_of_the_source_holds_back_no_fallback() {
        for asker in [Reader, Asker::Timer { read: true }] {
            let mut life = without_keys_in_backoff();
            life.it.wake_at = Some(life.now);
            let plan = life.start(asker);
            assert_eq!((plan.fallbacks, plan.primary), (vec![0], false), "{asker:?}");
        }
    }

    #[test]
    fn beside_a_fallback_the_source_is_asked_by_who_insists_and_after_its_backoff() {
        let plan = without_keys_in_backoff().start(Person);
        assert_eq!((plan.fallbacks, plan.primary), (vec![0], true));
        let mut life = without_keys_in_backoff();
        life.now = life.it.backoff_until;
        let plan = life.start(Reader);
        assert_eq!((plan.fallbacks, plan.primary), (vec![0], true));
    }

    #[test]
    fn only_the_first_document_of_a_fallback_is_a_switch_and_keys_retire_from_one_to_the_next() {
        let mut life = Life::new(|policy| policy.fallbacks = vec![secs(24 * HOUR)]);
        let mut falls_back = |keys: &[(&str, u8)]| {
            let number = life.start(Person).number;
            let Outcome::Document { set, headers, timing } = life.document(&doc(keys), "max-age=3600") else {
                unreachable!()
            };
            let outcome = Outcome::FellBack { index: 0, set, headers, timing, retry_after: None };
            let Change::FellBack { switched, .. } = life.land(number, outcome) else { unreachable!() };
            life.pass(3_600);
            (switched, life.held().retiring.len())
        };
        assert_eq!(falls_back(&[("f", 8)]), (true, 0));
        assert_eq!(falls_back(&[("g", 9)]), (false, 1));
    }

    #[test]
    fn the_timer_comes_when_a_fallback_may_be_needed_though_the_source_wants_a_longer_wait() {
        // Keys of the source: when they cease to be servable.
        let with_fallback = |policy: &mut Policy| policy.fallbacks = vec![secs(24 * HOUR)];
        let mut life = Life::holding("max-age=100", with_fallback);
        life.pass(155).fail_asking(Reader, Some(secs(60)));
        assert_eq!(life.it.wake_at(), Some(START + secs(160)));
        // Though never within a second.
        let mut life = Life::holding("max-age=100", with_fallback);
        life.now = START + Duration::from_millis(159_500);
        life.fail_asking(Reader, Some(secs(60)));
        assert_eq!(life.it.wake_at(), Some(START + Duration::from_millis(160_500)));
        // Keys of a fallback: when it is due.
        let mut life = fallen(RefreshMode::WhileInUse);
        life.pass(3_500).fail_asking(Reader, Some(secs(300)));
        assert_eq!(life.it.wake_at(), Some(START + secs(3_565)));
    }

    #[test]
    fn a_flight_that_asks_fallbacks_alone_wakes_the_timer_when_the_source_may_be_asked_but_not_at_once() {
        let nearly = || {
            let mut life = without_keys_in_backoff();
            life.now = life.it.backoff_until - Duration::from_millis(500);
            life
        };
        let mut life = nearly();
        let number = life.start(Reader).number;
        let Outcome::Document { set, headers, timing } = life.document(&doc(&[("f", 9)]), "max-age=3600")
        else {
            unreachable!()
        };
        life.land(number, Outcome::FellBack { index: 0, set, headers, timing, retry_after: None });
        assert_eq!(life.it.wake_at(), Some(life.now + secs(1)));
        let mut life = nearly();
        Arc::make_mut(&mut life.it.policy).refresh_mode = RefreshMode::Always;
        life.fail(Reader);
        assert_eq!(life.it.wake_at(), Some(life.now + secs(1)));
    }

    #[test]
    fn a_fallback_that_fails_with_nothing_servable_is_left_alone_for_a_while_and_not_for_long() {
        let mut life = Life::new(|policy| policy.fallbacks = vec![secs(24 * HOUR)]);
        for _ in 0..8 {
            life.fail(Person);
            let wait = life.it.fallbacks_wait_until().since(life.now);
            assert!((secs(1)..=secs(10)).contains(&wait), "{wait:?}");
            life.pass(600);
        }
    }

    #[test]
    fn keys_of_a_fallback_do_not_retire_when_a_snapshot_comes() {
        let mut life = fallen(RefreshMode::OnDemand);
        let headers = StoredHeaders::from_validators(None, None);
        let now = life.pass(10).now;
        let stored = stored(doc(&[("a", 1)]), headers, secs(1), secs(100));
        assert!(life.it.restore(stored, now, &mut || 1.0));
        assert_eq!(life.retiring(), Vec::<String>::new());
    }
}
