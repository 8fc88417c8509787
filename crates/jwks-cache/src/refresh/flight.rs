//! One flight: through the gate, its attempts, its landing. Runs in a task of its own, so that a
//! caller who goes away changes nothing for the others.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use http::StatusCode;
use jwks_cache_core::admission::{Request, Urgency};
use jwks_cache_core::freshness::StoredHeaders;
use jwks_cache_core::lifecycle::{Asker, Change, Outcome, Plan};
use jwks_cache_core::policy::Policy;
use tokio::time::{Instant, timeout};
use tracing::{Instrument as _, Span, field};

use super::{Provider, Source};
use crate::clock::{later, socket_now};
use crate::dial::{Note, Notes};
use crate::error::FetchError;
use crate::events::What;
use crate::fetch::{FetchRequest, Fetched, NotFetched};
use crate::slot::{Ended, Flight};
use crate::sync::lock;
use crate::telemetry::{Counters, FlightStatus};

/// Everything that flies.
pub(super) struct Crew {
    pub(super) provider: Arc<Provider>,
    pub(super) flight: Arc<Flight>,
    pub(super) source: Arc<Source>,
    pub(super) policy: Arc<Policy>,
    pub(super) plan: Plan,
    /// Whether the provider was read since the flight before.
    pub(super) was_read: bool,
}

impl Crew {
    /// The flight. Whoever waits is told even if the future is dropped before its first poll.
    pub(super) fn fly(self) -> impl Future<Output = ()> + Send + 'static {
        // Before anything that runs a stranger's code, as a subscriber's.
        let mut aboard = Aboard { crew: self, landed: false };
        let crew = &aboard.crew;
        let span = tracing::info_span!(
            "jwks_cache_flight",
            tenant = &*crew.provider.tenant,
            provider = &*crew.provider.id,
            number = crew.plan.number,
            reason = reason(crew.plan.asker),
            attempt = field::Empty,
            status = field::Empty,
            outcome = field::Empty,
        );
        let began = socket_now();
        async move {
            let result = aboard.crew.pass_and_attempt().await;
            aboard.land(result, began);
        }
        .instrument(span)
    }

    async fn pass_and_attempt(&self) -> Result<(Outcome, u32), Failed> {
        let mut place = self.provider.engine.gate.queue(Request {
            tenant: self.provider.tenant.clone(),
            origin: self.source.origin(),
            urgency: match self.plan.asker {
                _ if self.plan.cold => Urgency::Waited,
                Asker::MissingKid => Urgency::MissingKid,
                _ => Urgency::Due,
            },
            after_failure: self.plan.after_failure,
        });
        // Set once: the flight has one place.
        let _ = self.flight.ticket.set(place.ticket);
        place.admitted().await;
        self.attempts().await
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

/// Why a flight brought nothing.
struct Failed {
    error: FetchError,
    retry_after: Option<Duration>,
}

impl Crew {
    /// Attempts until one brings a document (and which one did), no more are worth it, or the deadline is near.
    async fn attempts(&self) -> Result<(Outcome, u32), Failed> {
        let retry = &self.policy.retry;
        let deadline = later(socket_now(), retry.deadline);
        let request = self.source.request(&self.plan.validators, self.plan.bypasses_caches());
        let mut waited = None;
        let mut attempt = 1;
        loop {
            let failed = match self.attempt(&request, attempt, deadline).await {
                Ok(outcome) => return Ok((outcome, attempt)),
                Err(failed) => failed,
            };
            let (retryable, retry_after) = (failed.retryable, failed.retry_after);
            let error = self.failure(failed, attempt);
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

    async fn attempt(
        &self,
        request: &FetchRequest,
        attempt: u32,
        deadline: Instant,
    ) -> Result<Outcome, NotFetched> {
        let engine = &self.provider.engine;
        self.source.enforceable_by(engine)?;
        let most = self.policy.retry.attempt_timeout;
        let time = most.min(deadline.saturating_duration_since(socket_now()));
        request.sent.reset();
        let counters = &self.provider.counters;
        let mut leaving = Leaving { counters, request, known: None };
        let fetched = timeout(time, engine.fetch.fetch(request)).await;
        leaving.known = match &fetched {
            Ok(Ok(fetched)) => Some(fetched.requests),
            Ok(Err(failed)) => Some(failed.requests),
            Err(_) => None,
        };
        drop(leaving);
        self.tell_notes(&request.notes);
        let fetched = match fetched {
            Ok(Ok(fetched)) => fetched,
            Ok(Err(failed)) => {
                self.answered(failed.status);
                if failed.reason == NotFetched::ADDRESS {
                    counters.refused_addresses.fetch_add(1, Relaxed);
                }
                return Err(failed);
            }
            Err(_) => return Err(NotFetched::timed_out(time)),
        };
        self.answered(Some(fetched.status));
        tracing::debug!(attempt, status = fetched.status.as_u16(), bytes = fetched.body.len(), "answered");
        self.judge(fetched)
    }

    /// Tells what happened on the way, whatever became of the exchange.
    fn tell_notes(&self, notes: &Notes) {
        let Provider { tenant, id, counters, engine, .. } = &*self.provider;
        for note in notes.take() {
            let what = match note {
                Note::PinMismatch { enforced, path } => {
                    counters.pin_mismatches.fetch_add(1, Relaxed);
                    tracing::warn!(enforced, ?path, "no key of the certificate path is pinned");
                    What::PinMismatch { enforced, path: path.into() }
                }
                Note::OldKept { setting, reason } => {
                    counters.old_credentials_kept.fetch_add(1, Relaxed);
                    tracing::warn!(setting, %reason, "new content cannot be used; the old stays in force");
                    What::CredentialNotRenewed { setting, reason: reason.into() }
                }
            };
            engine.events.send(tenant, id, what);
        }
    }

    fn answered(&self, status: Option<StatusCode>) {
        let Provider { tenant, id, counters, .. } = &*self.provider;
        if let Some(status) = status {
            counters.answered(tenant, id, status.as_u16());
        }
    }

    fn judge(&self, fetched: Fetched) -> Result<Outcome, NotFetched> {
        let Fetched { status, headers, body, timing, .. } = fetched;
        if status == StatusCode::NOT_MODIFIED {
            return Ok(Outcome::NotModified { headers, timing });
        }
        let set = self.provider.engine.judge(&body, &self.policy.key_rules()).map_err(|refusal| {
            NotFetched { status: Some(status), ..NotFetched::new(refusal.reason(), refusal.to_string()) }
        })?;
        Ok(Outcome::Document { set, headers: StoredHeaders::from_response(&headers), timing })
    }

    fn failure(&self, failed: NotFetched, attempt: u32) -> FetchError {
        self.source.failure(failed, attempt)
    }
}

/// Counts the requests of an attempt, however it ends: its flight may be dropped at any time.
struct Leaving<'a> {
    counters: &'a Counters,
    request: &'a FetchRequest,
    /// What the fetcher says.
    known: Option<u32>,
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        let requests = self.known.unwrap_or_else(|| self.request.sent.get());
        self.counters.requests_sent.fetch_add(u64::from(requests), Relaxed);
    }
}

/// A flight in the air. If its task goes away before it lands, everyone who waits is told.
struct Aboard {
    crew: Crew,
    landed: bool,
}

impl Aboard {
    fn land(&mut self, result: Result<(Outcome, u32), Failed>, began: Instant) {
        let Crew { provider, flight, plan, .. } = &self.crew;
        let (outcome, attempt, mut error) = match result {
            Ok((outcome, attempt)) => (outcome, attempt, None),
            Err(Failed { error, retry_after }) => {
                (Outcome::Failed { retry_after }, error.0.attempt, Some(error))
            }
        };
        let status = match &outcome {
            Outcome::Document { .. } => Some(StatusCode::OK),
            Outcome::NotModified { .. } => Some(StatusCode::NOT_MODIFIED),
            Outcome::Failed { .. } => error.as_ref().and_then(|error| error.0.status),
        };
        let mut guard = lock(&provider.owner);
        let owner = &mut *guard;
        let now = provider.engine.now();
        let change = owner.lifecycle.land(plan.number, outcome, now, &mut provider.engine.dice());
        match &change {
            // The registration changed meanwhile; whoever changed it has told the waiters.
            Change::Ignored => {
                drop(guard);
                self.landed = true;
                return;
            }
            Change::Adopted { diff, .. } if !diff.is_empty() => owner.missing.clear(),
            Change::Adopted { .. } | Change::Renewed { .. } => {}
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
        owner.last_error.clone_from(&error);
        if error.is_none() {
            provider.slot.became_fresh(&mut owner.publisher);
        } else if self.crew.was_read {
            // It still waits for its refresh: the timer must not take it for unused.
            provider.slot.note_read();
        }
        let failures = owner.lifecycle.failures();
        let view = provider.publish(owner);
        // Those who wait come before everything else.
        flight.end(match &error {
            None => Ended::Landed(view),
            Some(error) => Ended::Failed(error.clone()),
        });
        // From here on a panic leaves nobody waiting.
        self.landed = true;
        provider.rearm(owner);
        drop(guard);
        let span = Span::current();
        span.record("attempt", attempt);
        span.record("status", status.map(|status| status.as_u16()));
        self.tell(&change, error.as_ref(), failures, began);
    }

    fn tell(&self, change: &Change, error: Option<&FetchError>, failures: u32, began: Instant) {
        let provider = &self.crew.provider;
        let took = socket_now().saturating_duration_since(began);
        let send = |what| provider.engine.events.send(&provider.tenant, &provider.id, what);
        let status = match change {
            _ if error.is_some() => FlightStatus::Error,
            Change::Renewed { .. } => FlightStatus::NotModified,
            _ => FlightStatus::Success,
        };
        Span::current().record("outcome", status.as_str());
        provider.counters.landed(&provider.tenant, &provider.id, status, took);
        provider.flush();
        if let Some(error) = error {
            tracing::warn!(%error, failures, "keys could not be refreshed");
            send(What::RefreshFailed { reason: error.reason(), failures });
        }
        let recovered = match change {
            Change::Adopted { diff, suspicious, recovered } => {
                if !diff.is_empty() {
                    let diff = Arc::new(diff.clone());
                    tracing::info!(
                        added = diff.added.len(),
                        removed = diff.removed.len(),
                        changed = diff.changed.len(),
                        "another key set was adopted"
                    );
                    if *suspicious {
                        tracing::warn!("the key set changed suspiciously");
                        send(What::SuspiciousChange { diff: diff.clone() });
                    }
                    send(What::SetChanged { diff });
                }
                *recovered
            }
            Change::Renewed { recovered } => *recovered,
            _ => false,
        };
        if recovered {
            tracing::info!("the provider recovered");
            send(What::Recovered);
        }
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
            provider.slot.note_read();
        }
        provider.counters.lost_flights.fetch_add(1, Relaxed);
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
            provider.counters.landed(&provider.tenant, &provider.id, FlightStatus::Error, flight.age());
            provider.flush();
            tracing::error!(%error, failures, "a flight panicked");
            let what = What::RefreshFailed { reason: error.reason(), failures };
            provider.engine.events.send(&provider.tenant, &provider.id, what);
        }
    }
}
