//! One provider: its owner decides when a flight starts, flies it, and publishes what it brought.
//! Only this room knows slot, fetch, telemetry and events together.

mod flight;
mod keeping;
mod once;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use chrono::{DateTime, Utc};
use jwks_cache_core::Moment;
use jwks_cache_core::admission::Urgency;
use jwks_cache_core::freshness::Validators;
use jwks_cache_core::keyset::KeySet;
use jwks_cache_core::lifecycle::{Answer, Asker, Lifecycle, Plan};
use jwks_cache_core::missing::MissingKids;
use jwks_cache_core::policy::Policy;
use jwks_cache_core::snapshot::DenialLog;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use self::flight::Crew;
use crate::dial::{Dial, Notes, Pins};
use crate::engine::{Engine, Given};
use crate::error::{Error, Failure, FetchError, Result, redacted};
use crate::events::What;
use crate::fetch::{FetchRequest, NotFetched};
use crate::registration::IdentityProviderRegistration;
use crate::slot::{Ended, Flight, Publisher, Slot, View};
use crate::snapshot::order_of;
use crate::status::shown_kid;
use crate::store::SnapshotKind;
use crate::sync::{Mutex, MutexGuard, lock};
use crate::telemetry::Counters;

pub use once::fetch_once;

/// One registered provider. Readers use `slot`; everything else goes through the owner.
///
/// What a lookup reads stands in the first line: of many providers, each line comes from far away.
#[repr(C, align(64))]
pub(crate) struct Provider {
    pub(crate) engine: Arc<Engine>,
    pub(crate) slot: Slot,
    pub(crate) counters: Counters,
    pub(crate) tenant: Arc<str>,
    pub(crate) id: Arc<str>,
    pub(crate) serial: u64,
    owner: Mutex<Owner>,
}

/// Short, and without the URL's query: whoever prints a registry prints this.
impl fmt::Debug for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Provider").field("tenant", &self.tenant).field("id", &self.id).finish_non_exhaustive()
    }
}

/// What only one may change at a time; never held across an await.
#[derive(Debug)]
struct Owner {
    lifecycle: Lifecycle,
    publisher: Publisher,
    source: Arc<Source>,
    running: Option<Running>,
    missing: MissingKids,
    last_error: Option<FetchError>,
    timer: Option<Moment>,
    closed: Option<Closed>,
    /// What was denied and allowed here, when.
    denied: DenialLog,
    /// Snapshots from before were fetched under another trust, or from another source.
    trusts_from: Option<DateTime<Utc>>,
}

#[derive(Debug)]
struct Running {
    flight: Arc<Flight>,
    task: Option<AbortHandle>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Closed {
    Unregistered,
    ShutDown,
}

/// Where keys come from, and under which registration.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub(crate) registration: Arc<IdentityProviderRegistration>,
    /// The registration's issuer, one text for all who compare it.
    pub(crate) issuer: Option<Arc<str>>,
    /// The registry's own list; it applies besides the registration's.
    pub(crate) registry_domains: Arc<Vec<String>>,
    /// How it is dialled, by the registration and, where that says nothing, by the registry.
    pub(crate) dial: Arc<Dial>,
}

/// The answer to somebody who wants keys.
#[derive(Debug)]
pub(crate) enum Asked {
    /// This flight runs, maybe since this very question.
    Flight(Arc<Flight>),
    /// Not before this moment; the last error tells why.
    NotBefore(Moment, Option<FetchError>),
    /// There is nothing to do: look again.
    LookAgain,
    /// No runtime to fly in.
    NoRuntime,
    /// The provider is gone.
    Unregistered,
    /// The registry is shut down.
    ShutDown,
}

/// What a lookup for a kid that is not held is told.
#[derive(Debug)]
pub(crate) enum KidAsked {
    /// It is known to be missing: answer from what is held.
    KnownMissing,
    /// Nothing may be asked now: answer from what is held.
    NotNow,
    /// Wait for this flight.
    Flight(Arc<Flight>),
    /// The provider is gone.
    Unregistered,
}

impl Provider {
    pub(crate) fn new(engine: Arc<Engine>, source: Source) -> Arc<Self> {
        let policy = engine.policy(source.registration.policy());
        let lifecycle = Lifecycle::new(policy.clone());
        let view = View::new(source.issuer.clone(), lifecycle.published(), policy, None, None, false);
        let (slot, publisher) = Slot::new(view);
        Arc::new(Self {
            tenant: source.registration.tenant_id.as_str().into(),
            id: source.registration.provider_id.as_str().into(),
            serial: engine.serial(),
            slot,
            counters: Counters::default(),
            engine,
            owner: Mutex::new(Owner {
                lifecycle,
                publisher,
                source: Arc::new(source),
                running: None,
                missing: MissingKids::default(),
                last_error: None,
                timer: None,
                closed: None,
                denied: DenialLog::default(),
                trusts_from: None,
            }),
        })
    }

    pub(crate) fn registration(&self) -> Arc<IdentityProviderRegistration> {
        lock(&self.owner).source.registration.clone()
    }

    /// The issuer it is registered under.
    pub(crate) fn issuer(&self) -> Option<Arc<str>> {
        lock(&self.owner).source.issuer.clone()
    }

    /// Flights that failed in a row.
    pub(crate) fn failures(&self) -> u32 {
        lock(&self.owner).lifecycle.failures()
    }

    /// Whether the fetcher at hand enforces the pins that are set.
    pub(crate) fn pins_are_enforceable(&self) -> Result<()> {
        let source = lock(&self.owner).source.clone();
        source.enforceable_by(&self.engine).map_err(|refused| Error::Security(refused.message))
    }

    pub(crate) fn not_registered(&self) -> Error {
        Error::NotRegistered { tenant: self.tenant.to_string(), provider: self.id.to_string() }
    }

    /// Asks for a flight.
    pub(crate) fn ask(self: &Arc<Self>, asker: Asker) -> Asked {
        self.ask_owner(lock(&self.owner), asker)
    }

    /// Asks for a flight on behalf of a reader whose keys are at hand, and goes on.
    pub(crate) fn nudge(self: &Arc<Self>) {
        let _ = self.ask(Asker::Reader);
    }

    /// Asks about a kid that is not held.
    pub(crate) fn ask_for_kid(self: &Arc<Self>, kid: &str) -> KidAsked {
        let owner = lock(&self.owner);
        if owner.missing.knows(kid, self.engine.now()) {
            return KidAsked::KnownMissing;
        }
        match self.ask_owner(owner, Asker::MissingKid) {
            Asked::Flight(flight) => KidAsked::Flight(flight),
            Asked::Unregistered => KidAsked::Unregistered,
            _ => KidAsked::NotNow,
        }
    }

    /// Remembers that a flight which began after the lookup came back without `kid`.
    pub(crate) fn remember_missing(&self, kid: &str) {
        lock(&self.owner).missing.remember(kid, self.engine.now());
    }

    /// A bad signature under a matching or absent kid: the provider may have rotated in place.
    pub(crate) fn suspect_rotation(self: &Arc<Self>) {
        let _ = self.ask(Asker::MissingKid);
    }

    pub(crate) fn timer_fired(self: &Arc<Self>) {
        let mut owner = lock(&self.owner);
        owner.timer = None;
        let read = self.slot.was_read();
        // Whatever the answer, the lifecycle says when to wake next.
        let _ = self.ask_owner(owner, Asker::Timer { read });
        self.rearm(&mut lock(&self.owner));
    }

    fn ask_owner(self: &Arc<Self>, mut owner: MutexGuard<'_, Owner>, asker: Asker) -> Asked {
        match owner.closed {
            Some(Closed::Unregistered) => return Asked::Unregistered,
            Some(Closed::ShutDown) => return Asked::ShutDown,
            None => {}
        }
        // Asked before anything is decided: a flight that cannot start must not use up a timer or a budget,
        // and who has no runtime cannot wait either.
        let Ok(runtime) = Handle::try_current() else { return Asked::NoRuntime };
        match owner.lifecycle.ask(asker, self.engine.now()) {
            Answer::Start(plan) => Asked::Flight(self.take_off(owner, plan, &runtime)),
            Answer::Flying => match &owner.running {
                Some(running) => {
                    if asker != Asker::MissingKid {
                        self.hurry(&running.flight, Urgency::Due);
                    }
                    Asked::Flight(running.flight.clone())
                }
                None => Asked::LookAgain,
            },
            Answer::NotBefore(moment) => Asked::NotBefore(moment, owner.last_error.clone()),
            Answer::Quiet => Asked::LookAgain,
        }
    }

    fn take_off(
        self: &Arc<Self>,
        mut owner: MutexGuard<'_, Owner>,
        plan: Plan,
        runtime: &Handle,
    ) -> Arc<Flight> {
        let flight = Arc::new(Flight::new(plan.number));
        let was_read = self.slot.begin_flight(&mut owner.publisher, plan.number);
        if plan.asker == Asker::MissingKid {
            self.counters.kid_fetches.fetch_add(1, Relaxed);
        }
        owner.running = Some(Running { flight: flight.clone(), task: None });
        self.publish(&mut owner);
        self.rearm(&mut owner);
        let crew = Crew {
            provider: self.clone(),
            flight: flight.clone(),
            source: owner.source.clone(),
            policy: owner.lifecycle.policy().clone(),
            plan,
            was_read,
        };
        // A runtime that is shutting down drops the task at once, and that takes the lock.
        drop(owner);
        let task = runtime.spawn(crew.fly()).abort_handle();
        match &mut lock(&self.owner).running {
            Some(running) if running.flight.number == flight.number => running.task = Some(task),
            // It has landed already, or was given up meanwhile.
            _ => task.abort(),
        }
        flight
    }

    /// Takes another registration: the same source goes on with its keys, another starts empty.
    pub(crate) fn reconfigure(self: &Arc<Self>, source: Source) {
        let mut owner = lock(&self.owner);
        let owner = &mut *owner;
        let (old, new) = (&owner.source.registration, &source.registration);
        let policy = self.engine.policy(new.policy());
        let keeps_keys = old.jwks_url == new.jwks_url
            && !old.is_tightened_by(new)
            && !owner.source.dial.is_tightened_by(&source.dial)
            && (owner.source.registry_domains == source.registry_domains);
        if keeps_keys {
            let rules = policy.key_rules();
            let judge = |set: &Arc<KeySet>| self.engine.judge(set.text().as_bytes(), &rules).ok();
            owner.lifecycle.reconfigure(policy, judge, self.engine.now(), &mut self.engine.dice());
            // Its times may be others now, and so is what it is trusted by.
            self.keep(SnapshotKind::Keys);
        } else {
            owner.lifecycle.forget(policy, self.engine.now());
            owner.last_error = None;
            owner.trusts_from = Some(self.engine.clock.wall());
            // Denials outlive that.
            self.engine.stores.forget(&**self, SnapshotKind::Keys);
        }
        owner.missing.clear();
        owner.source = Arc::new(source);
        self.ground(owner, &Ended::Superseded);
        self.publish(owner);
        self.rearm(owner);
    }

    pub(crate) fn unregister(self: &Arc<Self>) {
        // First: from now on there is nothing to be kept, and no flight lands.
        self.close(Closed::Unregistered, &Ended::Unregistered);
        self.engine.stores.forget(&**self, SnapshotKind::Keys);
        self.engine.stores.forget(&**self, SnapshotKind::Denials);
    }

    pub(crate) fn shut_down(self: &Arc<Self>) {
        self.close(Closed::ShutDown, &Ended::ShutDown);
    }

    fn close(self: &Arc<Self>, how: Closed, ended: &Ended) {
        let mut owner = lock(&self.owner);
        if owner.closed.is_some() {
            return;
        }
        owner.closed = Some(how);
        self.ground(&mut owner, ended);
        self.publish(&mut owner);
        let old = owner.timer.take();
        self.engine.schedule.rearm(&self.engine, self, old, None);
        drop(owner);
        self.flush();
    }

    /// Ends the running flight without landing.
    fn ground(&self, owner: &mut Owner, ended: &Ended) {
        if let Some(running) = owner.running.take() {
            owner.lifecycle.abandon(running.flight.number);
            running.flight.end(ended.clone());
            if let Some(task) = running.task {
                task.abort();
            }
        }
    }

    /// Denies a kid or a thumbprint at once. `true` if that is new.
    ///
    /// # Errors
    /// [`Error::Validation`] when so many are denied that stores could not keep one more.
    pub(crate) fn deny(self: &Arc<Self>, id: &str) -> Result<bool> {
        if !lock(&self.owner).denied.has_room(id) {
            let full = "1 MiB of ids is denied or was; allow those that the provider no longer publishes";
            return Err(Error::validation("id", full));
        }
        Ok(self.change_denials(id, true))
    }

    /// Lifts a denial at once. `true` if there was one.
    pub(crate) fn allow(self: &Arc<Self>, id: &str) -> bool {
        self.change_denials(id, false)
    }

    fn change_denials(self: &Arc<Self>, id: &str, denied: bool) -> bool {
        let mut owner = lock(&self.owner);
        let changed = if denied { owner.lifecycle.deny(id) } else { owner.lifecycle.allow(id) };
        if changed {
            owner.denied.note(id, denied, order_of(self.engine.clock.wall()));
        }
        self.publish(&mut owner);
        drop(owner);
        self.flush();
        if changed {
            self.keep(SnapshotKind::Denials);
            self.keep(SnapshotKind::Keys);
            tracing::warn!(
                tenant = &*self.tenant,
                provider = &*self.id,
                id = shown_kid(id),
                denied,
                "denials changed"
            );
            let id = id.into();
            let what = if denied { What::KeyDenied { id } } else { What::KeyAllowed { id } };
            self.engine.events.send(&self.tenant, &self.id, what);
        }
        changed
    }

    /// Tells the recorder where this provider stands, now and at each tick from now on.
    pub(crate) fn flush(self: &Arc<Self>) {
        if !cfg!(feature = "metrics") {
            return;
        }
        self.counters.flush(&self.tenant, &self.id, || self.told());
        if self.counters.enlists() {
            self.engine.schedule.enlist(&self.engine, self);
        }
    }

    /// Tells the recorder what was counted since.
    pub(crate) fn flush_counts(&self) {
        self.counters.flush(&self.tenant, &self.id, || self.counters.told().collect());
    }

    /// Replaces what readers see by what the lifecycle says.
    fn publish(&self, owner: &mut Owner) -> Arc<View> {
        let view = View::new(
            owner.source.issuer.clone(),
            owner.lifecycle.published(),
            Arc::<Policy>::clone(owner.lifecycle.policy()),
            owner.running.as_ref().map(|running| running.flight.clone()),
            owner.last_error.clone(),
            owner.closed == Some(Closed::Unregistered),
        );
        self.slot.publish(&mut owner.publisher, view)
    }

    fn rearm(self: &Arc<Self>, owner: &mut Owner) {
        let next = owner.lifecycle.wake_at().filter(|_| owner.closed.is_none());
        if next != owner.timer {
            self.engine.schedule.rearm(&self.engine, self, owner.timer, next);
            owner.timer = next;
        }
    }
}

impl Source {
    pub(crate) fn new(
        mut registration: IdentityProviderRegistration,
        registry_domains: Arc<Vec<String>>,
        defaults: &Arc<Dial>,
    ) -> Self {
        registration.normalize_allowed_domains();
        let pins = Pins::new(&registration.pinned_spki, registration.pin_mode);
        let dial = defaults.under(registration.transport(), pins);
        let issuer = registration.issuer.as_deref().map(Arc::from);
        Self { registration: Arc::new(registration), issuer, registry_domains, dial }
    }

    fn request(&self, validators: &Validators, bypass_caches: bool) -> FetchRequest {
        let of = &self.registration;
        FetchRequest {
            url: of.jwks_url.clone(),
            if_none_match: validators.etag.clone(),
            if_modified_since: validators.last_modified.clone(),
            bypass_caches,
            require_https: of.require_https,
            allowed_domains: vec![of.allowed_domains.clone(), self.registry_domains.to_vec()],
            max_redirects: of.max_redirects,
            max_response_bytes: of.max_response_bytes,
            sent: Default::default(),
            dial: self.dial.clone(),
            notes: Notes::default(),
        }
    }

    /// Settings that what makes the exchanges cannot be held to refuse each of them.
    fn enforceable_by(&self, engine: &Engine) -> std::result::Result<(), NotFetched> {
        let ours = match engine.given {
            None => return Ok(()),
            Some(Given::Client) => self.dial.for_our_client_only(),
            Some(Given::Fetcher) => {
                self.dial.for_our_client_only().or_else(|| self.dial.for_our_requests_only())
            }
        };
        let Some(setting) = ours else { return Ok(()) };
        Err(NotFetched::refused(format!(
            "{setting} is set, but a client or fetcher that was handed in cannot be held to it; remove it, or let the \
             cache make its own client"
        )))
    }

    fn failure(&self, failed: NotFetched, attempt: u32) -> FetchError {
        FetchError(Arc::new(Failure {
            tenant: self.registration.tenant_id.as_str().into(),
            provider: self.registration.provider_id.as_str().into(),
            attempt,
            url: redacted(&self.registration.jwks_url),
            status: failed.status,
            body: failed.excerpt,
            reason: failed.reason,
            refused_by_policy: failed.refused_by_policy,
            message: failed.message,
            cause: failed.cause,
        }))
    }

    fn origin(&self) -> Arc<str> {
        self.registration.jwks_url.origin().ascii_serialization().into()
    }
}

impl Provider {
    /// A caller who has nothing waits for this flight: it goes first in the queue.
    pub(crate) fn join_cold(&self, flight: &Flight) {
        self.hurry(flight, Urgency::Waited);
    }

    /// Moves a flight forward in the queue, never back.
    fn hurry(&self, flight: &Flight, urgency: Urgency) {
        if let Some(ticket) = flight.ticket.get() {
            self.engine.gate.promote(*ticket, urgency);
        }
    }
}
