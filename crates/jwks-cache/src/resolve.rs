//! A lookup: from what is held, at once; or after a flight that all who need it share.
//! A reader never fetches.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use jsonwebtoken::jwk::JwkSet;
use jwks_cache_core::key::{KeyRef, VerificationKey};
use jwks_cache_core::lifecycle::Asker;
use jwks_cache_core::published::Standing;
use jwks_cache_core::select::NoKey;
use jwks_cache_core::{Algorithm, Moment};
use tokio::time::{Instant, timeout_at};

use crate::clock::{Clock, later, socket_now};
use crate::epoch::{self, Guard};
use crate::error::{Error, KeyError, Result};
use crate::events::What;
use crate::front::Front;
use crate::refresh::{Asked, KidAsked, Provider};
use crate::served::ServedKeys;
pub(crate) use crate::slot::Whose;
use crate::slot::{Ended, Flight, SharedView, View};
use crate::sync::lock;

/// What a lookup wants of a view.
pub(crate) trait Want {
    /// The answer while it is borrowed from a view.
    type Borrowed<'v>;
    /// The answer that outlives the view.
    type Answer;

    /// The kid that a refresh might bring.
    fn kid(&self) -> Option<&str>;

    /// Whether an operator's denial is the answer, whatever is held.
    fn is_denied(&self, _view: &View) -> bool {
        false
    }

    /// Picks the answer off a view; `missing` when the kid is not held and not denied.
    fn pick<'v>(&self, view: &'v View, now: Moment) -> Picked<Self::Borrowed<'v>>;

    /// Keeps an answer beyond its view.
    fn keep(borrowed: Self::Borrowed<'_>) -> Self::Answer;
}

/// An answer, and whether a refresh might bring a better one.
pub(crate) struct Picked<A> {
    answer: std::result::Result<A, KeyError>,
    missing: bool,
}

impl<A> Picked<A> {
    fn found(answer: A) -> Self {
        Self { answer: Ok(answer), missing: false }
    }

    fn none(why: KeyError) -> Self {
        Self { answer: Err(why), missing: false }
    }
}

/// The whole set, as published.
pub(crate) struct WholeSet<'a> {
    pub(crate) kid: Option<&'a str>,
}

impl Want for WholeSet<'_> {
    type Borrowed<'v> = &'v Arc<JwkSet>;
    type Answer = Arc<JwkSet>;

    fn kid(&self) -> Option<&str> {
        self.kid
    }

    fn pick<'v>(&self, view: &'v View, _now: Moment) -> Picked<&'v Arc<JwkSet>> {
        let published = &view.published;
        let missing = self.kid.is_some_and(|kid| !holds(view, kid) && !published.denies_kid(kid));
        Picked { answer: Ok(published.jwks()), missing }
    }

    fn keep(borrowed: &Arc<JwkSet>) -> Arc<JwkSet> {
        borrowed.clone()
    }
}

/// The set to be handed on.
pub(crate) struct HandedOn<'a> {
    pub(crate) kid: Option<&'a str>,
}

impl Want for HandedOn<'_> {
    type Borrowed<'v> = ServedKeys;
    type Answer = ServedKeys;

    fn kid(&self) -> Option<&str> {
        self.kid
    }

    fn pick(&self, view: &View, now: Moment) -> Picked<ServedKeys> {
        let Some(keys) = ServedKeys::of(view, now) else { return Picked::none(KeyError::NotCached) };
        let missing = self.kid.is_some_and(|kid| !keys.names(kid) && !view.published.denies_kid(kid));
        Picked { answer: Ok(keys), missing }
    }

    fn keep(borrowed: ServedKeys) -> ServedKeys {
        borrowed
    }
}

/// One key that verifies.
pub(crate) struct OneKey<'a> {
    pub(crate) kid: Option<&'a str>,
    pub(crate) algorithm: Algorithm,
}

impl Want for OneKey<'_> {
    type Borrowed<'v> = KeyRef<'v>;
    type Answer = VerificationKey;

    fn kid(&self) -> Option<&str> {
        self.kid
    }

    fn is_denied(&self, view: &View) -> bool {
        // The kid itself: then nothing of that name is served, and there is nothing to find.
        self.kid.is_some_and(|kid| view.published.denials.denies_kid(kid))
    }

    fn pick<'v>(&self, view: &'v View, now: Moment) -> Picked<KeyRef<'v>> {
        let published = &view.published;
        match published.served.find(self.kid, self.algorithm) {
            // A key that is served is not denied; only what is not served must be looked up there.
            Ok(key) => Picked::found(key),
            Err(no_key) => self.pick_unpublished(view, now, no_key),
        }
    }

    fn keep(borrowed: KeyRef<'_>) -> VerificationKey {
        borrowed.to_shared()
    }
}

/// The same, with the issuer that its provider was registered under at that moment: for who judges tokens by both.
pub(crate) struct KeyOfIssuer<'a>(pub(crate) OneKey<'a>);

impl Want for KeyOfIssuer<'_> {
    type Borrowed<'v> = (KeyRef<'v>, Whose<'v>);
    type Answer = (VerificationKey, Option<Arc<str>>, bool);

    fn kid(&self) -> Option<&str> {
        self.0.kid
    }

    fn is_denied(&self, view: &View) -> bool {
        self.0.is_denied(view)
    }

    fn pick<'v>(&self, view: &'v View, now: Moment) -> Picked<Self::Borrowed<'v>> {
        let Picked { answer, missing } = self.0.pick(view, now);
        Picked { answer: answer.map(|key| (key, view.whose())), missing }
    }

    fn keep((key, whose): Self::Borrowed<'_>) -> Self::Answer {
        (key.to_shared(), whose.issuer.cloned(), *whose.template)
    }
}

impl OneKey<'_> {
    /// A key that the document does not offer may be denied, retiring, or missing.
    #[cold]
    fn pick_unpublished<'v>(&self, view: &'v View, now: Moment, no_key: NoKey) -> Picked<KeyRef<'v>> {
        let published = &view.published;
        if self.kid.is_some_and(|kid| published.denies_kid(kid)) {
            return Picked::none(KeyError::Denied);
        }
        // What is denied is no reason to say that the provider has no keys.
        let no_key = match (no_key, &published.held) {
            (NoKey::NoKeys, Some(held)) if held.set.usable().next().is_some() => match self.kid {
                Some(kid) if holds(view, kid) => NoKey::NoMatch,
                Some(_) => NoKey::UnknownKid,
                None => return Picked::none(KeyError::Denied),
            },
            _ => no_key,
        };
        let Some(kid) = self.kid.filter(|kid| !holds(view, kid)) else {
            return Picked::none(key_error(no_key));
        };
        let retiring = published
            .retiring
            .iter()
            .filter(|old| now < old.until && old.key.kid() == Some(kid))
            .find_map(|old| KeyRef::new(&old.key, self.algorithm));
        match retiring {
            Some(key) => Picked::found(key),
            None => Picked { answer: Err(key_error(no_key)), missing: true },
        }
    }
}

fn holds(view: &View, kid: &str) -> bool {
    view.published.served.holds_kid(kid)
}

fn key_error(no_key: NoKey) -> KeyError {
    match no_key {
        NoKey::UnknownKid => KeyError::UnknownKid,
        NoKey::NoMatch => KeyError::NoMatch,
        NoKey::Ambiguous => KeyError::Ambiguous,
        NoKey::NoKeys => KeyError::NoKeys,
    }
}

/// Answers from what is held: no lock, no wait, no allocation. `None` when the lookup has to wait.
///
/// The answer is borrowed for as long as `then` runs.
#[inline]
pub(crate) fn at_hand<W: Want, R>(
    front: &Front,
    clock: &dyn Clock,
    want: &W,
    then: impl FnOnce(W::Borrowed<'_>) -> R,
) -> Option<std::result::Result<R, KeyError>> {
    // No `Error` yet: that one is large, and would be moved with every answer.
    at_hand_if(front, clock, want, |answer| Some(answer.map(then)))
}

/// The same where a guard is held already.
#[inline]
pub(crate) fn at_hand_within<W: Want, R>(
    guard: &Guard,
    front: &Front,
    clock: &dyn Clock,
    want: &W,
    then: impl FnOnce(W::Borrowed<'_>) -> R,
) -> Option<std::result::Result<R, KeyError>> {
    answer_from(front.slot.load(guard), front, clock, want, |answer| Some(answer.map(then)))
}

/// The same for who may look again: where `then` gives nothing, the lookup does not count.
#[inline]
pub(crate) fn at_hand_if<W: Want, R>(
    front: &Front,
    clock: &dyn Clock,
    want: &W,
    then: impl FnOnce(std::result::Result<W::Borrowed<'_>, KeyError>) -> Option<R>,
) -> Option<R> {
    match epoch::enter() {
        Some(guard) => answer_from(front.slot.load(&guard), front, clock, want, then),
        None => answer_from(&front.slot.load_full(), front, clock, want, then),
    }
}

#[inline]
fn answer_from<W: Want, R>(
    view: &View,
    front: &Front,
    clock: &dyn Clock,
    want: &W,
    then: impl FnOnce(std::result::Result<W::Borrowed<'_>, KeyError>) -> Option<R>,
) -> Option<R> {
    let now = clock.coarse_now();
    let stale = match view.published.standing(now) {
        Standing::Fresh => false,
        _ if view.closed => return None,
        standing @ (Standing::RefreshDue | Standing::Stale) => {
            if view.wants_flight(now) {
                nudge(front);
            }
            standing == Standing::Stale
        }
        Standing::Expired if view.has_slow_flight() => true,
        Standing::Expired | Standing::Unusable if want.is_denied(view) => false,
        Standing::Expired | Standing::Unusable => return None,
    };
    let picked = want.pick(view, now);
    if picked.missing {
        return None;
    }
    let found = picked.answer.is_ok();
    let answer = then(picked.answer)?;
    front.slot.note_read();
    if found {
        front.hits.hit(stale);
    } else {
        count_failure(front);
    }
    if stale && front.slot.announces_stale() {
        announce_stale(front);
    }
    Some(answer)
}

#[cold]
fn count_failure(front: &Front) {
    if let Some(provider) = front.provider() {
        provider.counters.failure();
        front.hits.mark();
    }
}

#[cold]
fn announce_stale(front: &Front) {
    if let Some(provider) = front.provider() {
        tracing::warn!(tenant = front.tenant(), provider = front.id(), "serving expired keys");
        provider.engine.events.send(front.tenant(), front.id(), What::ServingStale);
    }
}

#[cold]
fn nudge(front: &Front) {
    if let Some(provider) = front.provider() {
        provider.nudge();
    }
}

/// Why a lookup that has to wait has no answer at once. What it would wait for is started.
#[cold]
pub(crate) fn not_waited(provider: &Arc<Provider>, want: &OneKey<'_>) -> Error {
    let view = provider.front.slot.load_full();
    if view.closed {
        return provider.not_registered();
    }
    let now = provider.engine.now();
    if matches!(view.published.standing(now), Standing::Expired | Standing::Unusable) {
        provider.nudge();
        return KeyError::NotCached.into();
    }
    let Picked { answer, missing } = want.pick(&view, now);
    let Err(why) = answer else { return KeyError::NotCached.into() }; // it has come meanwhile
    if let Some(kid) = want.kid.filter(|_| missing) {
        match provider.ask_for_kid(kid) {
            // What has just come is for the next lookup.
            KidAsked::Flight(_) | KidAsked::Exchange(_) | KidAsked::LookAgain => {
                return KeyError::NotCached.into();
            }
            KidAsked::Unregistered => return provider.not_registered(),
            KidAsked::KnownMissing => provider.counters.rare().kids_known_missing.fetch_add(1, Relaxed),
            KidAsked::NotNow => provider.counters.rare().kids_not_asked_for.fetch_add(1, Relaxed),
        };
    }
    provider.front.slot.note_read();
    count(provider, false, Via::Held);
    why.into()
}

/// What a lookup would find in what is held. It is not counted, and starts nothing.
pub(crate) fn peek<W: Want>(provider: &Provider, want: &W) -> Result<W::Answer> {
    let now = provider.engine.now();
    let view = provider.front.slot.load_full();
    if view.closed {
        return Err(provider.not_registered());
    }
    if view.published.standing(now) == Standing::Unusable && !want.is_denied(&view) {
        return Err(KeyError::NotCached.into());
    }
    want.pick(&view, now).answer.map(W::keep).map_err(Error::from)
}

/// Answers after waiting for what has to be waited for.
///
/// # Cancel safety
/// Dropping the future changes nothing for other callers; a flight it started goes on.
pub(crate) async fn waited<W: Want>(provider: &Arc<Provider>, want: &W) -> Result<W::Answer> {
    let found = lookup(provider, want).await;
    // Noted at the end: a flight that began meanwhile was for this read, and its keys are in use.
    provider.front.slot.note_read();
    let (answer, from) = found.unwrap_or_else(|error| (Err(error), Via::Held));
    count(provider, answer.is_ok(), from);
    answer
}

/// Where an answer came from, for the counters.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Via {
    Held,
    Stale,
    Flight,
}

fn count(provider: &Arc<Provider>, found: bool, from: Via) {
    match from {
        _ if !found => provider.counters.failure(),
        Via::Flight => provider.counters.miss(),
        Via::Held | Via::Stale => provider.front.hits.hit(from == Via::Stale),
    }
    provider.front.hits.mark();
    if from == Via::Stale && provider.front.slot.announces_stale() {
        announce_stale(&provider.front);
    }
}

async fn lookup<W: Want>(provider: &Arc<Provider>, want: &W) -> Result<(Result<W::Answer>, Via)> {
    let asked_at = socket_now();
    let last_flight = provider.flights();
    let began = provider.engine.now();
    // What a flight brings may be of an exchange that began before it: another provider's.
    let is_later = |view: &View| view.published.held.as_ref().is_some_and(|held| held.requested_at >= began);
    let (view, mut from, joined) = servable(provider, asked_at).await?;
    let picked = want.pick(&view, provider.engine.now());
    let kept = |picked: Picked<W::Borrowed<'_>>| picked.answer.map(W::keep).map_err(Error::from);
    let Some(kid) = want.kid().filter(|_| picked.missing) else { return Ok((kept(picked), from)) };
    if joined.is_some_and(|number| number > last_flight) && is_later(&view) {
        // The exchange began after this lookup and came back without the kid.
        provider.counters.rare().kids_waited_for.fetch_add(1, Relaxed);
        provider.remember_missing(kid);
        return Ok((kept(picked), from));
    }
    let mut waited = false;
    let patience = later(asked_at, view.policy.kid_miss_wait);
    // What the last wait brought, until the next.
    let mut newest = None;
    loop {
        let counters = &provider.counters;
        let flight = match provider.ask_for_kid(kid) {
            KidAsked::Flight(flight) => flight,
            KidAsked::Unregistered => return Err(provider.not_registered()),
            KidAsked::Exchange(exchange) => {
                if !std::mem::replace(&mut waited, true) {
                    counters.rare().kids_waited_for.fetch_add(1, Relaxed);
                }
                match timeout_at(patience, exchange.ended()).await {
                    Ok(_) => continue,
                    Err(_) => break,
                }
            }
            KidAsked::LookAgain => {
                newest = servable_now(provider);
                match &newest {
                    Some(view) if !want.pick(view, provider.engine.now()).missing => break,
                    _ => continue,
                }
            }
            _ if waited => break,
            KidAsked::KnownMissing => {
                counters.rare().kids_known_missing.fetch_add(1, Relaxed);
                break;
            }
            KidAsked::NotNow => {
                counters.rare().kids_not_asked_for.fetch_add(1, Relaxed);
                break;
            }
        };
        if !std::mem::replace(&mut waited, true) {
            counters.rare().kids_waited_for.fetch_add(1, Relaxed);
        }
        newest = None;
        match timeout_at(patience, flight.ended()).await {
            Ok(Ended::Landed(view)) => {
                newest = still_held(provider, &view);
                let Some(view) = &newest else { continue };
                from = Via::Flight;
                if !want.pick(view, provider.engine.now()).missing {
                    break;
                }
                if flight.number > last_flight && is_later(view) {
                    provider.remember_missing(kid);
                    break;
                }
            }
            // What failed may have been someone else's flight; the budget says whether one more may start.
            Ok(Ended::Failed(_) | Ended::Superseded | Ended::Lost) => {}
            Ok(Ended::Unregistered) => return Err(provider.not_registered()),
            Ok(Ended::ShutDown) | Err(_) => break,
        }
    }
    // Another lookup's flight may have landed since this one looked, so what is held now answers.
    let view = match newest.or_else(|| still_held(provider, &view)) {
        Some(view) => view,
        // Its keys ended during the wait: what is left of the deadline is for new ones.
        None => {
            let (view, via, _) = servable(provider, asked_at).await?;
            from = via;
            view
        }
    };
    Ok((kept(want.pick(&view, provider.engine.now())), from))
}

/// What is held now, if it may be served now.
fn servable_now(provider: &Provider) -> Option<SharedView> {
    let view = provider.front.slot.load_full();
    let servable = !view.closed && view.published.standing(provider.engine.now()) != Standing::Unusable;
    servable.then_some(view)
}

/// What is held now, for somebody to whom a flight brought `view` a moment ago: meanwhile a key may have
/// been denied, or the source changed.
fn still_held(provider: &Provider, view: &View) -> Option<SharedView> {
    servable_now(provider).or_else(|| {
        let now_held = provider.front.slot.load_full();
        // Granted no time at all (`http_strict`), a document is for those who waited for it.
        let is_it = match (&now_held.published.held, &view.published.held) {
            (Some(held), Some(brought)) => {
                Arc::ptr_eq(held, brought) && held.servable_until <= held.received_at
            }
            _ => false,
        };
        (is_it && !now_held.closed).then_some(now_held)
    })
}

/// A view whose keys may be served, and the flight that brought them, if one was waited for.
async fn servable(provider: &Arc<Provider>, asked_at: Instant) -> Result<(SharedView, Via, Option<u64>)> {
    let deadline = later(asked_at, provider.front.slot.load_full().policy.retry.deadline);
    let mut looked_again = false;
    loop {
        let now = provider.engine.now();
        let view = provider.front.slot.load_full();
        if view.closed {
            return Err(provider.not_registered());
        }
        let (until, stale) = match view.published.standing(now) {
            Standing::Fresh | Standing::RefreshDue => return Ok((view, Via::Held, None)),
            Standing::Stale => {
                provider.nudge();
                return Ok((view, Via::Stale, None));
            }
            Standing::Expired => (None, true),
            Standing::Unusable => (Some(deadline), false),
        };
        let flight = match provider.ask(Asker::Reader) {
            Asked::Flight(flight) => flight,
            Asked::LookAgain => continue,
            Asked::Unregistered => return Err(provider.not_registered()),
            _ if stale => return Ok((view, Via::Stale, None)),
            Asked::NotBefore(_, error) => return Err(backing_off(error)),
            Asked::NoRuntime => return Err(no_runtime()),
            Asked::ShutDown => return Err(shut_down()),
        };
        if !stale {
            provider.join_cold(&flight);
        }
        let until =
            until.unwrap_or_else(|| later(socket_now(), view.policy.stale_wait.saturating_sub(flight.age())));
        let ended = if stale || looked_again {
            timeout_at(until, flight.ended()).await
        } else {
            match timeout_at(until, flight.ended_or_keys_came()).await {
                Ok(Some(ended)) => Ok(ended),
                Ok(None) => {
                    // Once: keys that came may have ended since.
                    looked_again = true;
                    continue;
                }
                Err(late) => Err(late),
            }
        };
        match ended {
            Ok(Ended::Landed(view)) => match still_held(provider, &view) {
                Some(view) => return Ok((view, Via::Flight, Some(flight.number))),
                None if socket_now() < deadline => {}
                None => return Err(out_of_time(&flight)),
            },
            Ok(Ended::Superseded | Ended::Lost) if socket_now() < deadline => {}
            Ok(Ended::Unregistered) => return Err(provider.not_registered()),
            ended => match (ended, servable_now(provider).filter(|_| stale)) {
                (_, Some(view)) => return Ok((view, Via::Stale, None)),
                (Ok(Ended::Failed(error)), None) => return Err(error.to_error()),
                (Ok(Ended::ShutDown), None) => return Err(shut_down()),
                // They ended during the wait: from now on it waits for new ones.
                (Err(_), None) if stale => {}
                (_, None) => return Err(out_of_time(&flight)),
            },
        }
    }
}

fn backing_off(error: Option<crate::error::FetchError>) -> Error {
    match error {
        Some(error) => error.to_error(),
        None => Error::Cache("the provider asked to wait".into()),
    }
}

/// A caller's deadline passed; the flight goes on.
fn out_of_time(flight: &Flight) -> Error {
    match &*lock(&flight.last_attempt) {
        Some(error) => error.to_error(),
        None => Error::Cache("no answer from the provider within the deadline; the fetch goes on".into()),
    }
}

/// Starts or joins a refresh, however fresh the keys are.
pub(crate) async fn refresh(provider: &Arc<Provider>) -> Result<()> {
    let before = provider.flights();
    let servable =
        || provider.front.slot.load_full().published.standing(provider.engine.now()) != Standing::Unusable;
    loop {
        let Some(flight) = flight_of(provider, provider.ask(Asker::Person)).await? else {
            // Who waited out the same second may have been first, and may be done already.
            if provider.flights() > before && servable() {
                return Ok(());
            }
            continue;
        };
        if servable() {
            return Ok(());
        }
        provider.join_cold(&flight);
        if let Some(outcome) = outcome(provider, &flight).await {
            return outcome;
        }
    }
}

/// The outcome of a flight that began after this call.
pub(crate) async fn refresh_and_wait(provider: &Arc<Provider>) -> Result<()> {
    let before = provider.flights();
    loop {
        let flight = insist(provider).await?;
        let deadline = later(socket_now(), provider.front.slot.load_full().policy.retry.deadline);
        match timeout_at(deadline, flight.ended()).await {
            // Also when it is the flight before: a queue that long is no reason to wait for ever.
            Err(_) => return Err(out_of_time(&flight)),
            Ok(ended) if flight.number > before => match outcome_of(provider, ended) {
                Some(outcome) => return outcome,
                None => continue,
            },
            Ok(_) => {}
        }
    }
}

/// A flight for somebody who insists; one that runs will do.
async fn insist(provider: &Arc<Provider>) -> Result<Arc<Flight>> {
    loop {
        if let Some(flight) = flight_of(provider, provider.ask(Asker::Person)).await? {
            return Ok(flight);
        }
    }
}

/// The flight that was granted; `None` after a wait, when it is time to ask again.
async fn flight_of(provider: &Arc<Provider>, asked: Asked) -> Result<Option<Arc<Flight>>> {
    match asked {
        Asked::Flight(flight) => return Ok(Some(flight)),
        Asked::NotBefore(moment, _) => provider.engine.clock.sleep_until(moment).await,
        Asked::LookAgain => tokio::task::yield_now().await,
        Asked::NoRuntime => return Err(no_runtime()),
        Asked::Unregistered => return Err(provider.not_registered()),
        Asked::ShutDown => return Err(shut_down()),
    }
    Ok(None)
}

/// The outcome of a flight, within a caller's deadline; `None` when it was given up and the next one counts.
async fn outcome(provider: &Arc<Provider>, flight: &Arc<Flight>) -> Option<Result<()>> {
    let deadline = later(socket_now(), provider.front.slot.load_full().policy.retry.deadline);
    match timeout_at(deadline, flight.ended()).await {
        Ok(ended) => outcome_of(provider, ended),
        Err(_) => Some(Err(out_of_time(flight))),
    }
}

fn outcome_of(provider: &Provider, ended: Ended) -> Option<Result<()>> {
    match ended {
        Ended::Superseded | Ended::Lost => None,
        Ended::Landed(_) => Some(Ok(())),
        Ended::Failed(error) => Some(Err(error.to_error())),
        Ended::Unregistered => Some(Err(provider.not_registered())),
        Ended::ShutDown => Some(Err(shut_down())),
    }
}

fn shut_down() -> Error {
    Error::Cache("the registry is shut down".into())
}

fn no_runtime() -> Error {
    Error::Cache("there is no tokio runtime to fetch keys in".into())
}

/// A flight for a provider that has nothing servable.
pub(crate) fn start_if_empty(provider: &Arc<Provider>) -> Option<Arc<Flight>> {
    let empty =
        provider.front.slot.load_full().published.standing(provider.engine.now()) == Standing::Unusable;
    match empty.then(|| provider.ask(Asker::Reader)) {
        Some(Asked::Flight(flight)) => Some(flight),
        _ => None,
    }
}
