//! One flight: through the gate, its attempts, its landing. Runs in a task of its own, so that a
//! caller who goes away changes nothing for the others.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use http::StatusCode;
use jwks_cache_core::admission::{Request, Urgency};
use jwks_cache_core::freshness::{StoredHeaders, Validators};
use jwks_cache_core::keyset::{KeyRules, Refusal};
use jwks_cache_core::lifecycle::{Asker, Change, Outcome, Plan};
use jwks_cache_core::policy::Policy;
use jwks_cache_core::published::Held;
use tokio::time::{Instant, timeout_at};
use tracing::{Instrument as _, Span, field};
use url::Url;

use super::discovery::Discovered;
use super::place::{Asking, Place};
use super::shared::{Answered, Lead, Told, Turn, Want};
use super::{Provider, Source};
use crate::clock::{later, socket_now};
use crate::dial::{Note, Notes};
use crate::error::FetchError;
use crate::events::What;
use crate::fetch::{FetchRequest, Fetched, NotFetched};
use crate::gate;
use crate::slot::{Ended, Flight};
use crate::sync::lock;
use crate::telemetry::FlightStatus;

/// Everything that flies.
pub(super) struct Crew {
    pub(super) provider: Arc<Provider>,
    pub(super) flight: Arc<Flight>,
    pub(super) source: Arc<Source>,
    pub(super) policy: Arc<Policy>,
    pub(super) plan: Plan,
    /// Whether the provider was read since the flight before.
    pub(super) was_read: bool,
    /// Exchanges of the source that began later than this will do, and none that began before.
    pub(super) mark: u64,
    /// Whether only one that begins after it was asked for will do.
    pub(super) insists: bool,
    /// What was held when it took off.
    pub(super) held: Option<Arc<Held>>,
    /// What the issuer's metadata said when that came.
    pub(super) held_from: Option<Arc<Discovered>>,
}

impl Crew {
    /// The flight. Whoever waits is told even if the future is dropped before its first poll.
    pub(super) fn fly(self) -> impl Future<Output = ()> + Send + 'static {
        // Before anything that runs a stranger's code, as a subscriber's.
        let mut aboard = Aboard { crew: self, landed: false };
        let crew = &aboard.crew;
        let span = tracing::info_span!(
            "jwks_cache_flight",
            tenant = crew.provider.tenant(),
            provider = crew.provider.id(),
            number = crew.plan.number,
            reason = reason(crew.plan.asker),
            attempt = field::Empty,
            status = field::Empty,
            outcome = field::Empty,
        );
        let began = socket_now();
        async move {
            let brought = aboard.crew.attempts().await;
            aboard.land(brought, began);
        }
        .instrument(span)
    }

    /// Waits until it may ask a place, at most until `deadline`. It may as long as it has what this gives.
    async fn admitted(&self, place: &Place, deadline: Option<Instant>) -> Option<gate::Place> {
        let mut place = self.provider.engine.gate.queue(Request {
            tenant: self.provider.tenant().into(),
            origin: place.origin()?,
            urgency: match self.plan.asker {
                _ if self.plan.cold => Urgency::Waited,
                Asker::MissingKid => Urgency::MissingKid,
                _ => Urgency::Due,
            },
            after_failure: self.plan.after_failure,
        });
        *lock(&self.flight.ticket) = Some(place.ticket);
        match deadline {
            Some(deadline) => timeout_at(deadline, place.admitted()).await.ok()?,
            None => place.admitted().await,
        }
        Some(place)
    }
}

fn reason(asker: Asker) -> &'static str {
    match asker {
        Asker::Reader => "read",
        Asker::Timer { .. } => "timer",
        Asker::Person => "requested",
        Asker::MissingKid => "missing_kid",
    }
}

/// What a flight brought.
struct Brought {
    outcome: Outcome,
    /// What the issuer's metadata says, where it was asked.
    found: Option<Arc<Discovered>>,
    /// The last attempt.
    attempt: u32,
    /// Why the source itself brought nothing, if it was asked.
    error: Option<FetchError>,
}

/// What a place brought, by what the issuer's metadata says.
type Got = (Outcome, Option<Arc<Discovered>>);

/// Why a place brought nothing.
struct Failed {
    error: FetchError,
    retry_after: Option<Duration>,
}

impl Crew {
    /// Attempts until one brings a document, no more are worth it, or the deadline is near; then the fallbacks, if
    /// they are wanted.
    async fn attempts(&self) -> Brought {
        let mut deadline = None;
        let is_remote = |index: &&u16| self.source.fallback(**index).is_some_and(|it| it.kind.is_remote());
        let remote = |of: &[u16]| u32::try_from(of.iter().filter(is_remote).count()).unwrap_or(u32::MAX);
        // From the moment it may fetch.
        let begin = || later(socket_now(), self.policy.retry.deadline);
        let mut failed = None;
        if self.plan.primary {
            let place = self.source.primary();
            let _admitted = self.admitted(&place, None).await;
            let deadline = *deadline.get_or_insert_with(begin);
            match self
                .attempts_at(&place, &self.plan.validators, deadline, 1 + remote(&self.plan.fallbacks))
                .await
            {
                Ok(((outcome, found), attempt)) => return Brought { outcome, found, attempt, error: None },
                Err(why) => failed = Some(why),
            }
        }
        let mut retry_after = failed.as_ref().and_then(|failed| failed.retry_after);
        // Keys may have ended since it took off.
        let provider = &self.provider;
        let wanted = match self.plan.fallbacks.is_empty() {
            true => lock(&provider.owner).lifecycle.wanted_fallbacks(provider.engine.now()),
            false => self.plan.fallbacks.clone(),
        };
        for (n, index) in wanted.iter().enumerate() {
            let later = wanted.get(n..).unwrap_or_default();
            let Some(place) = self.source.fallback(*index) else { continue };
            let _admitted = self.admitted(&place, deadline).await;
            let deadline = *deadline.get_or_insert_with(begin);
            match self.attempts_at(&place, &Validators::default(), deadline, remote(later)).await {
                Ok(((Outcome::Document { set, headers, timing }, _), attempt))
                    if set.usable().next().is_some() =>
                {
                    let outcome = Outcome::FellBack { index: *index, set, headers, timing, retry_after };
                    let attempt = failed.as_ref().map_or(attempt, |failed| failed.error.0.attempt);
                    let found = self.source.shared.discovered().0;
                    return Brought { outcome, found, attempt, error: failed.map(|failed| failed.error) };
                }
                Ok(_) => tracing::warn!(place = %place.shown, "a fallback has no usable key"),
                Err(why) => {
                    tracing::warn!(error = %why.error, "a fallback failed");
                    // The source itself was not asked: then this is why there are no keys.
                    if failed.is_none() {
                        retry_after = None;
                        failed = Some(Failed { retry_after, ..why });
                    }
                }
            }
        }
        let attempt = failed.as_ref().map_or(1, |failed| failed.error.0.attempt);
        Brought {
            outcome: Outcome::Failed { retry_after },
            found: None,
            attempt,
            error: failed.map(|failed| failed.error),
        }
    }

    /// Attempts at one place, the first of so many that are still to be tried.
    async fn attempts_at(
        &self,
        place: &Place,
        validators: &Validators,
        deadline: Instant,
        places: u32,
    ) -> Result<(Got, u32), Failed> {
        let retry = &self.policy.retry;
        let bypasses_caches = self.plan.bypasses_caches();
        let request = self.asking().request(place, validators, bypasses_caches);
        let mut mark = self.mark_at(place);
        let mut waited = None;
        let mut attempt = 1;
        loop {
            let failed = match self.attempt(place, &request, &mut mark, deadline, places).await {
                Ok(got) => return Ok((got, attempt)),
                Err(failed) => failed,
            };
            let (retryable, retry_after) = (failed.retryable, failed.retry_after);
            let error = self.source.failure(place, failed, attempt);
            tracing::debug!(attempt, %error, retryable, "attempt failed");
            *lock(&self.flight.last_attempt) = Some(error.clone());
            let wait = retry.wait(attempt - 1, waited, &mut self.provider.engine.dice());
            waited = Some(wait);
            let wait = wait.max(retry_after.unwrap_or_default());
            let room = deadline.saturating_duration_since(socket_now());
            if !retryable || attempt >= self.plan.attempts || wait >= room {
                return Err(Failed { error, retry_after });
            }
            tokio::time::sleep(wait).await;
            attempt += 1;
        }
    }

    fn asking(&self) -> Asking<'_> {
        let provider = &self.provider;
        Asking {
            engine: &provider.engine,
            source: &self.source,
            policy: &self.policy,
            provider: Some(provider),
            held_from: self.held_from.as_deref(),
        }
    }

    fn mark_at(&self, place: &Place) -> u64 {
        if Arc::ptr_eq(&place.shared, &self.source.shared) {
            return self.mark;
        }
        // What another was brought of a fallback will do while it is not due.
        let Provider { owner, engine, .. } = &*self.provider;
        let memory = place.shared.memory(self.provider.serial()).filter(|memory| {
            lock(owner).lifecycle.is_early_for(&memory.headers, &memory.timing, engine.now())
        });
        memory.map_or_else(|| place.shared.mark(false), |memory| memory.number - 1)
    }

    /// What documents are judged by, where the metadata says this.
    fn rules(&self, found: Option<&Discovered>) -> KeyRules {
        self.source.key_rules(&self.policy, found)
    }

    async fn attempt(
        &self,
        place: &Place,
        request: &FetchRequest,
        mark: &mut u64,
        deadline: Instant,
        places: u32,
    ) -> Result<Got, NotFetched> {
        self.source.enforceable_by(&self.provider.engine)?;
        let retry = &self.policy.retry;
        // What comes after it needs time, too; and what is at hand is not worse for what others have used up.
        let left = deadline.saturating_duration_since(socket_now());
        let time = match place.kind.is_remote() {
            true => retry.attempt_timeout.min(left / places.max(1)),
            false => retry.attempt_timeout,
        };
        let got = self.obtain(place, request, mark, time).await;
        self.tell_notes(&request.notes);
        got
    }

    /// One exchange, or what another provider of the same source was brought, within `time`.
    async fn obtain(
        &self,
        place: &Place,
        request: &FetchRequest,
        mark: &mut u64,
        time: Duration,
    ) -> Result<Got, NotFetched> {
        let engine = &self.provider.engine;
        let until = later(socket_now(), time);
        let late = |_| NotFetched::timed_out(time);
        let (of, insists, bypasses_caches) = (self.provider.serial(), self.insists, request.bypass_caches);
        loop {
            let (cold, rules) = (self.plan.cold, self.rules(None));
            match place.shared.turn(Want { of, insists, bypasses_caches, cold, rules }, *mark, engine.now()) {
                Turn::Lead(lead) => {
                    let asked = timeout_at(until, self.asking().ask(place, request)).await;
                    let asked = match asked {
                        // A flight that had not the time that the settings grant says nothing of the source.
                        Err(_) if time < self.policy.retry.attempt_timeout / 2 => {
                            return Err(NotFetched::timed_out(time));
                        }
                        asked => asked.map_err(late).flatten(),
                    };
                    return self.lead(request, lead, asked);
                }
                Turn::Take(memory) => {
                    let rules = self.rules(memory.found.as_deref());
                    let set = memory.judged(engine, &rules).map_err(refused)?;
                    let (headers, timing) = (memory.headers.clone(), memory.timing);
                    return Ok((Outcome::Document { set, headers, timing }, memory.found.clone()));
                }
                Turn::Fail(number, failed) => {
                    *mark = number;
                    return Err(failed);
                }
                Turn::Wait(exchange) => drop(timeout_at(until, exchange.ended()).await.map_err(late)?),
                Turn::Join(exchange) => match timeout_at(until, exchange.ended()).await.map_err(late)? {
                    Told::Answered(answered) => {
                        let found = answered.found.as_deref();
                        let same = answered.status == StatusCode::OK
                            || (self.held.is_some()
                                && answered.sent == self.asking().conditions(found, request));
                        if same {
                            return self.judge(&answered);
                        }
                        // The answer is about a set that is not held here.
                        *mark = u64::MAX;
                    }
                    Told::Failed(number, failed) => {
                        *mark = number;
                        return Err(failed.shared());
                    }
                    Told::Lost => {}
                },
            }
        }
    }

    /// Ends an exchange, for all who wait for it.
    fn lead(
        &self,
        request: &FetchRequest,
        lead: Lead,
        asked: Result<(Fetched, Option<Arc<Discovered>>), NotFetched>,
    ) -> Result<Got, NotFetched> {
        let now = self.provider.engine.now();
        let (fetched, found) = match asked {
            Ok(fetched) => fetched,
            Err(failed) => return Err(lead.failed(failed, now)),
        };
        let Fetched { status, headers, body, timing, .. } = fetched;
        tracing::debug!(status = status.as_u16(), bytes = body.len(), "answered");
        let sent = self.asking().conditions(found.as_deref(), request);
        let answered = Arc::new(Answered { status, headers, body, timing, sent, found });
        let judged = match self.judge(&answered) {
            // No rules make a document of it.
            Err(refused) if refused.reason != Refusal::TOO_MANY_KEYS => return Err(lead.failed(refused, now)),
            judged => judged.map_err(Arc::new),
        };
        let document = match judged {
            Err(_) => None,
            Ok((Outcome::Document { ref set, ref headers, .. }, _)) => Some((set.clone(), headers.clone())),
            Ok((Outcome::NotModified { ref headers, .. }, _)) => self.held.as_ref().map(|held| {
                let mut merged = held.headers.clone();
                merged.merge_not_modified(headers);
                (held.set.clone(), merged)
            }),
            _ => None,
        };
        let rules = self.rules(answered.found.as_deref());
        lead.answered(answered, document, rules, judged.as_ref().err(), now);
        judged.map_err(|refused| refused.shared())
    }

    /// Tells what happened on the way, whatever became of the exchange.
    fn tell_notes(&self, notes: &Notes) {
        let Provider { counters, engine, .. } = &*self.provider;
        let (tenant, id) = (self.provider.tenant(), self.provider.id());
        for note in notes.take() {
            let what = match note {
                Note::PinMismatch { enforced, path } => {
                    counters.rare().pin_mismatches.fetch_add(1, Relaxed);
                    tracing::warn!(enforced, ?path, "no key of the certificate path is pinned");
                    What::PinMismatch { enforced, path: path.into() }
                }
                Note::OldKept { setting, reason } => {
                    counters.rare().old_credentials_kept.fetch_add(1, Relaxed);
                    tracing::warn!(setting, %reason, "new content cannot be used; the old stays in force");
                    What::CredentialNotRenewed { setting, reason: reason.into() }
                }
            };
            engine.events.send(tenant, id, what);
        }
    }

    fn judge(&self, answered: &Answered) -> Result<Got, NotFetched> {
        let Answered { status, headers, body, timing, found, .. } = answered;
        let (timing, rules) = (*timing, self.rules(found.as_deref()));
        let (document, headers) = if *status != StatusCode::NOT_MODIFIED {
            (body.as_slice(), StoredHeaders::from_response(headers))
        } else if let Some(held) = &self.held
            && rules != self.rules(self.held_from.as_deref())
        {
            // The keys are the same, and what the metadata says of them is not.
            let mut merged = held.headers.clone();
            merged.merge_not_modified(headers);
            (held.set.text().as_bytes(), merged)
        } else {
            return Ok((Outcome::NotModified { headers: headers.clone(), timing }, found.clone()));
        };
        let set = self.provider.engine.judge(document, &rules);
        let set = set.map_err(|refusal| NotFetched { status: Some(*status), ..refused(refusal) })?;
        Ok((Outcome::Document { set, headers, timing }, found.clone()))
    }

    fn failure(&self, failed: NotFetched, attempt: u32) -> FetchError {
        self.source.failure(&self.source.primary(), failed, attempt)
    }
}

fn refused(refusal: Refusal) -> NotFetched {
    NotFetched { status: Some(StatusCode::OK), ..NotFetched::new(refusal.reason(), refusal.to_string()) }
}

/// A flight in the air. If its task goes away before it lands, everyone who waits is told.
struct Aboard {
    crew: Crew,
    landed: bool,
}

impl Aboard {
    fn land(&mut self, brought: Brought, began: Instant) {
        let Crew { provider, flight, plan, .. } = &self.crew;
        let Brought { outcome, found, attempt, mut error } = brought;
        let status = match &outcome {
            Outcome::Document { .. } => Some(StatusCode::OK),
            Outcome::NotModified { .. } => Some(StatusCode::NOT_MODIFIED),
            Outcome::FellBack { .. } | Outcome::Failed { .. } => {
                error.as_ref().and_then(|error| error.0.status)
            }
        };
        let mut guard = lock(&provider.owner);
        let owner = &mut *guard;
        let now = provider.engine.now();
        let newest = matches!(outcome, Outcome::FellBack { .. }).then(|| owner.to_be_kept()).flatten();
        let change = owner.lifecycle.land(plan.number, outcome, now, &mut provider.engine.dice());
        match &change {
            // The registration changed meanwhile; whoever changed it has told the waiters.
            Change::Ignored => {
                drop(guard);
                self.landed = true;
                return;
            }
            Change::Adopted { .. }
            | Change::Renewed { .. }
            | Change::FellBack { .. }
            | Change::Superseded { .. } => {}
            Change::Refused(refusal) => {
                let refused = NotFetched::new(refusal.reason(), refusal.to_string());
                error = Some(self.crew.failure(NotFetched { status, ..refused }, attempt));
            }
            Change::Failed if error.is_none() => {
                let gone = NotFetched::new("status", "304, but the keys it stands for are gone");
                error = Some(self.crew.failure(gone, attempt));
            }
            Change::Failed => {}
        }
        owner.running = None;
        let fell_back = matches!(change, Change::FellBack { .. });
        if fell_back && newest.is_some() {
            owner.seldom().newest_unheld = newest;
        }
        // A fallback alone says nothing new of the source itself.
        if error.is_some() || !fell_back {
            owner.last_error.clone_from(&error);
        }
        let moved = provider.took(owner, &change, found);
        if error.is_some() && self.crew.was_read {
            // It still waits for its refresh: the timer must not take it for unused.
            provider.front.slot.note_read();
        }
        let failures = owner.lifecycle.failures();
        let view = provider.publish(owner);
        // Those who wait come before everything else.
        flight.end(match &error {
            Some(error) if !fell_back => Ended::Failed(error.clone()),
            _ => Ended::Landed(view),
        });
        // From here on a panic leaves nobody waiting.
        self.landed = true;
        provider.rearm(owner);
        // After those who wait were told: no store stands between them and their keys. Before the lock is let go: a
        // shutdown that one of them starts finds it marked.
        provider.keep_what_changed(owner, &change);
        drop(guard);
        let span = Span::current();
        span.record("attempt", attempt);
        span.record("status", status.map(|status| status.as_u16()));
        self.tell(&change, moved, error.as_ref(), failures, began);
    }

    fn tell(
        &self,
        change: &Change,
        moved: Option<(Url, Url)>,
        error: Option<&FetchError>,
        failures: u32,
        began: Instant,
    ) {
        let provider = &self.crew.provider;
        let took = socket_now().saturating_duration_since(began);
        let status = match change {
            _ if error.is_some() => FlightStatus::Error,
            Change::Renewed { .. } => FlightStatus::NotModified,
            _ => FlightStatus::Success,
        };
        Span::current().record("outcome", status.as_str());
        provider.counters.landed(provider.tenant(), provider.id(), status, took);
        provider.flush();
        if let Some(error) = error {
            tracing::warn!(%error, failures, "keys could not be refreshed");
            let what = What::RefreshFailed { reason: error.reason(), failures };
            provider.engine.events.send(provider.tenant(), provider.id(), what);
        }
        provider.announce(change, moved);
    }
}

impl Drop for Aboard {
    fn drop(&mut self) {
        if self.landed {
            return;
        }
        // The task was dropped: its runtime went away, it was aborted, or it panicked.
        let Crew { provider, flight, plan, .. } = &self.crew;
        let mut guard = lock(&provider.owner);
        let owner = &mut *guard;
        if owner.running.as_ref().is_none_or(|running| running.flight.number != plan.number) {
            flight.end(Ended::Lost);
            return;
        }
        owner.running = None;
        if self.crew.was_read {
            provider.front.slot.note_read();
        }
        provider.counters.rare().lost_flights.fetch_add(1, Relaxed);
        let panicked = std::thread::panicking().then(|| {
            // Counts as a failure, so that a document that panics us is not fetched in a loop.
            let failed = Outcome::Failed { retry_after: None };
            let now = provider.engine.now();
            let _ = owner.lifecycle.land(plan.number, failed, now, &mut provider.engine.dice());
            let attempt = lock(&flight.last_attempt).as_ref().map_or(1, |last| last.0.attempt + 1);
            let why = NotFetched::new("panic", "the flight panicked; this is a bug of ours");
            self.crew.failure(why, attempt)
        });
        match &panicked {
            Some(error) => owner.last_error = Some(error.clone()),
            None => owner.lifecycle.abandon(plan.number),
        }
        let failures = owner.lifecycle.failures();
        provider.publish(owner);
        flight.end(panicked.clone().map_or(Ended::Lost, Ended::Failed));
        provider.rearm(owner);
        drop(guard);
        if let Some(error) = panicked {
            Span::current().record("outcome", FlightStatus::Error.as_str());
            provider.counters.landed(provider.tenant(), provider.id(), FlightStatus::Error, flight.age());
            provider.flush();
            tracing::error!(%error, failures, "a flight panicked");
            let what = What::RefreshFailed { reason: error.reason(), failures };
            provider.engine.events.send(provider.tenant(), provider.id(), what);
        }
    }
}
