//! How often one provider may be asked (I4, I7), and how often it must be: told from the requests that reach
//! it, and from what the cache says of its failed flights.

use std::time::Duration;

use jwks_cache::{IdentityProviderRegistration, Moment, RefreshMode};

use super::law::State;
use super::scene::TICK;

/// Spans are drawn as fractions, which rounds.
const SLACK: Duration = Duration::from_micros(10);
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(300);
const LONGEST_BACKOFF: Duration = Duration::from_secs(300);

#[derive(Debug, Default)]
pub(super) struct Budget {
    /// The flight that runs, if one does.
    flight: Option<Flight>,
    in_air: u32,
    /// The last flight failed.
    failing: bool,
    /// Failures in a row that lengthen the backoff.
    setbacks: u32,
    /// No flight but a person's before this: backoff.
    backoff_until: Moment,
    /// Nor before this: what the provider asked for.
    asked_until: Moment,
    /// No timer's and no reader's before this: keys are fresh.
    due: Moment,
    /// No reader's before this: the last failure answers.
    negative_until: Moment,
    /// A timer's at the latest by this, where there is one.
    timed_until: Option<Moment>,
    /// Timers may sleep until this, whenever they were set.
    overslept_until: Moment,
    /// It was read since the last flight began, before this.
    was_read: bool,
    reads_count_until: Moment,
    /// When somebody last asked who might have started a flight: in socket time.
    asked_at: Option<Duration>,
    kid_flight_at: Option<Moment>,
    began_at: Option<Moment>,
    /// People who wait for a refresh, and whether one asked since the last flight ended.
    pub(super) people: u32,
    pub(super) person_asked: bool,
    /// Flights queue for a place, so that requests may come close after one another.
    crowded: bool,
}

#[derive(Clone, Copy, Debug)]
struct Flight {
    attempts: u32,
    for_kid: bool,
    may_be_a_persons: bool,
    began: Duration,
    /// When the last attempt failed (socket and policy time), and what the provider asked for then.
    failed: Option<(Duration, Moment, Option<Duration>)>,
}

/// What a request is paid from.
pub(super) enum Paid {
    /// Another attempt of the flight that runs.
    Retry,
    /// The first of a flight, of this kind.
    First(&'static str),
}

/// Who starts flights. `queued`: where places are few, whoever asked may be gone when it begins.
pub(super) const FLIGHTS: &[&str] = &["reader", "timer", "person", "missing kid", "queued"];

impl Budget {
    pub(super) fn new(crowded: bool) -> Self {
        Self { crowded, ..Self::default() }
    }

    /// A request is here. `readers`: some of them wait.
    pub(super) fn begin(
        &mut self,
        now: Moment,
        socket: Duration,
        for_kid: bool,
        readers: bool,
        under: &IdentityProviderRegistration,
    ) -> Result<Paid, String> {
        self.in_air += 1;
        if self.in_air > 1 {
            return Err("I7: two requests to one provider at once".into());
        }
        if let Some(flight) = &mut self.flight {
            return flight.retry(socket, self.failing, under).map_err(|why| format!("I4: {why}"));
        }
        let may_be_a_persons = self.people > 0 || self.person_asked;
        self.flight = Some(Flight { attempts: 1, for_kid, may_be_a_persons, began: socket, failed: None });
        self.was_read = false;
        let held_back = |until: Moment| now + SLACK < until;
        let last_began = self.began_at.replace(now);
        if for_kid {
            let last = self.kid_flight_at.replace(now);
            if let Some(last) =
                last.filter(|last| !self.crowded && held_back(*last + under.kid_miss_interval))
            {
                return Err(format!("I4: a missing kid's flight {:?} after the last", now.since(last)));
            }
            if held_back(self.backoff_until) {
                return Err(format!("I4: a missing kid's flight {:?} early", self.backoff_until.since(now)));
            }
            return Ok(Paid::First("missing kid"));
        }
        let early = self.backoff_until.max(self.due).max(self.negative_until);
        if held_back(early) {
            if !may_be_a_persons {
                let which = match () {
                    () if held_back(self.backoff_until) => "in the backoff",
                    () if held_back(self.due) => "of fresh keys",
                    () => "although the last failure answers",
                };
                return Err(format!("I4: a flight {which}, {:?} early", early.since(now)));
            }
            let second = Duration::from_secs(1);
            if last_began.is_some_and(|last| !self.crowded && held_back(last + second)) {
                return Err("I4: two flights on request within a second".into());
            }
        }
        Ok(Paid::First(match () {
            () if self.crowded => "queued",
            () if may_be_a_persons => "person",
            () if readers || self.asked_at == Some(socket) => "reader",
            () => "timer",
        }))
    }

    /// Somebody looks for keys, or for whether there are any.
    pub(super) fn asked(&mut self, socket: Duration) {
        self.asked_at = Some(socket);
    }

    /// Somebody has read, and has an answer. Whoever comes when the timer has gone quiet starts a flight, or
    /// needs none.
    pub(super) fn read(&mut self, now: Moment) {
        self.was_read |= now < self.reads_count_until;
    }

    /// The machine was suspended, which its timers notice within a minute.
    pub(super) fn overslept(&mut self, now: Moment) {
        self.overslept_until = now + Duration::from_secs(60);
    }

    /// How long a flight is overdue that a timer should have started.
    pub(super) fn overdue(&self, now: Moment, under: &IdentityProviderRegistration) -> Option<Duration> {
        let until = self.timed_until.filter(|_| self.flight.is_none() && !self.crowded)?;
        let until = until.max(self.overslept_until) + TICK;
        let timed = match under.refresh_mode {
            RefreshMode::Always => true,
            RefreshMode::WhileInUse => self.was_read && !self.failing,
            _ => false,
        };
        (timed && until < now).then(|| now.since(until))
    }

    /// The request is answered, or given up.
    pub(super) fn end(&mut self) {
        self.in_air = self.in_air.saturating_sub(1);
    }

    /// An attempt failed; the flight may make another, or is told to have failed.
    pub(super) fn attempt_failed(&mut self, socket: Duration, now: Moment, asked: Option<Duration>) {
        if let Some(flight) = &mut self.flight {
            flight.failed = Some((socket, now, asked));
        }
    }

    /// The cache says that the flight failed.
    pub(super) fn flight_failed(&mut self, under: &IdentityProviderRegistration, state: &State) {
        let Some(flight) = self.flight.take() else { return };
        let Some((_, now, asked)) = flight.failed else { return };
        self.person_asked = false;
        self.failing = true;
        let asked_until = asked.map_or(now, |asked| now + asked.min(LONGEST_RETRY_AFTER));
        self.negative_until = Moment::ORIGIN;
        self.timed_until = Some(self.timed_until.unwrap_or(now).max(now + LONGEST_BACKOFF));
        // A person's failure does not lengthen the backoff; whose it was is not always known.
        if !flight.may_be_a_persons || flight.for_kid {
            self.setbacks += 1;
            let doubled = under.retry_policy.initial_backoff.saturating_mul(1 << self.setbacks.min(20));
            let servable_until = state.times().map_or(Moment::ORIGIN, |times| times.servable_until);
            // What is told to readers binds no timer; of those, only this mode has one while nothing is held.
            if now >= servable_until && under.refresh_mode != RefreshMode::Always {
                self.negative_until = now + under.negative_cache_ttl;
            }
            self.backoff_until = match self.setbacks {
                _ if now < servable_until => {
                    // What runs when keys stop being servable is cut.
                    (now + doubled.min(LONGEST_BACKOFF) / 2).min(servable_until)
                }
                1 => now,
                _ => now + doubled.min(Duration::from_secs(10)) / 2,
            };
        }
        self.asked_until = asked_until;
        self.backoff_until = self.backoff_until.max(asked_until);
    }

    /// A document was adopted, or confirmed. `was_servable`: keys were at hand before.
    pub(super) fn flight_landed(&mut self, state: &State, was_servable: bool) {
        self.flight = None;
        self.person_asked = false;
        self.failing = false;
        self.setbacks = 0;
        self.backoff_until = Moment::ORIGIN;
        self.asked_until = Moment::ORIGIN;
        self.negative_until = Moment::ORIGIN;
        self.due = due(state, !was_servable);
        self.timed_until = latest(state);
        self.reads_count_until = due(state, false);
    }

    /// The registration changed and keys stay; a running flight is over.
    pub(super) fn reregistered(&mut self, now: Moment, state: &State) {
        self.flight = None;
        let servable_until = state.times().map_or(now, |times| times.servable_until.max(now));
        self.backoff_until = self.backoff_until.min(servable_until).max(self.asked_until);
        self.negative_until = Moment::ORIGIN;
        self.due = due(state, false);
        let backed_off = |until: Moment| if self.failing { until.max(now + LONGEST_BACKOFF) } else { until };
        self.reads_count_until = self.due;
        self.timed_until = latest(state).map(|until| backed_off(until.max(now)));
    }

    /// Everything is forgotten but who waits.
    pub(super) fn forget(&mut self) {
        let Self { in_air, people, person_asked, overslept_until, crowded, .. } = *self;
        *self = Self { in_air, people, person_asked, overslept_until, ..Self::new(crowded) };
    }
}

/// The earliest refresh of what is held.
fn due(state: &State, first: bool) -> Moment {
    let (Some(held), Some(times), Some(under)) = (&state.held, state.times(), &state.registration) else {
        return Moment::ORIGIN;
    };
    let span = times.fresh_until.since(held.at);
    if first {
        // The first timer is drawn from here on, so that providers part.
        return held.at + span / 4;
    }
    let lead = under.refresh_early.min(span * 2 / 5);
    let jitter = under.prefetch_jitter.min(span / 10);
    times.fresh_until - lead - jitter
}

/// The latest refresh of what is held, where a timer starts it.
fn latest(state: &State) -> Option<Moment> {
    let (held, times, under) = (state.held.as_ref()?, state.times()?, state.registration.as_ref()?);
    let span = times.fresh_until.since(held.at);
    if span < under.min_ttl {
        // So short is it under `http_strict` only; timers keep to the floor all the same.
        return Some(held.at + under.min_ttl);
    }
    Some(times.fresh_until - under.refresh_early.min(span * 2 / 5))
}

impl Flight {
    /// Another attempt of this flight.
    fn retry(
        &mut self,
        socket: Duration,
        failing: bool,
        under: &IdentityProviderRegistration,
    ) -> Result<Paid, String> {
        let retry = &under.retry_policy;
        self.attempts += 1;
        let most = if failing || self.for_kid { 1 } else { retry.max_retries + 1 };
        if self.attempts > most {
            return Err(format!("attempt {} of a flight that may make {most}", self.attempts));
        }
        let Some((failed, _, asked)) = self.failed.take() else {
            return Err("a request although none of its flight failed".into());
        };
        if socket + SLACK < failed + retry.initial_backoff.max(asked.unwrap_or_default()) {
            return Err(format!("a retry {:?} after the failure", socket.saturating_sub(failed)));
        }
        if socket > self.began + retry.deadline {
            return Err("a retry after the flight's deadline".into());
        }
        Ok(Paid::Retry)
    }
}
