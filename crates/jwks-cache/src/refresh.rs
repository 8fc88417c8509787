//! One provider: its owner decides when a flight starts, flies it, and publishes what it brought.
//! Only this room knows slot, fetch, telemetry and events together.

mod discovery;
mod flight;
mod keeping;
mod once;
mod place;
mod shared;
mod watch;

use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use aws_lc_rs::digest::{Context, SHA256};
use chrono::{DateTime, Utc};
use jwks_cache_core::admission::Urgency;
use jwks_cache_core::keyset::{KeyRules, KeySet};
use jwks_cache_core::lifecycle::{Answer, Asker, Change, Lifecycle, Plan};
use jwks_cache_core::missing::MissingKids;
use jwks_cache_core::policy::Policy;
use jwks_cache_core::published::{Held, Serving};
use jwks_cache_core::snapshot::DenialLog;
use jwks_cache_core::{AlgorithmSet, Moment};
use tokio::runtime::Handle;
use tokio::task::AbortHandle;
use url::Url;

use self::discovery::Discovered;
use self::flight::Crew;
use self::keeping::{came_before, order_of_held};
use self::place::{Kind, Place};
use crate::dial::{Dial, Pins};
use crate::engine::{Engine, Given, finished};
use crate::epoch;
use crate::error::{Error, Failure, FetchError, Result, redacted};
use crate::events::What;
use crate::fetch::NotFetched;
use crate::front::Front;
use crate::name::NameRef;
use crate::registration::{Fallback, IdentityProviderRegistration, KeyFormat};
use crate::slot::{Ended, Flight, Publisher, SharedView, Slot, View};
use crate::snapshot::order_of;
use crate::status::shown_kid;
use crate::store::SnapshotKind;
use crate::sync::atomic::AtomicU64;
use crate::sync::{Mutex, MutexGuard, lock};
use crate::telemetry::{Counters, Counts};

pub use once::{Looked, LookedUp, fetch_once, look_once};
pub(crate) use shared::{Exchange, Shared};

/// One registered provider. Readers see its front; everything else goes through the owner.
pub(crate) struct Provider {
    pub(crate) front: epoch::Shared<Front>,
    pub(crate) engine: Arc<Engine>,
    pub(crate) counters: Counters,
    /// The number of the last flight that began.
    flights: AtomicU64,
    owner: Mutex<Owner>,
}

/// Short, and without the URL's query: whoever prints a registry prints this.
impl fmt::Debug for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (tenant, id) = (self.tenant(), self.id());
        f.debug_struct("Provider").field("tenant", &tenant).field("id", &id).finish_non_exhaustive()
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
    /// What the issuer's metadata said when keys last came.
    discovered: Option<Arc<Discovered>>,
    seldom: Option<Box<Seldom>>,
}

/// What most owners never have to know, but for those with stores.
#[derive(Clone, Debug, Default)]
struct Seldom {
    /// What another was brought and the rules here refuse, by its number: it is not judged again.
    refused: u64,
    /// What was denied and allowed here, when.
    denied: DenialLog,
    /// Snapshots from before were fetched under another trust, or from another source.
    trusts_from: Option<DateTime<Utc>>,
    /// What the metadata of a snapshot said that keys without `alg` may verify.
    without_alg: Option<AlgorithmSet>,
    /// The source's newest document, where it is not what is held: the settings of a registration refused it, or a fallback
    /// serves in its place. Stores keep it all the same, and nothing older comes back: a store that had failed would bring
    /// what it replaced.
    newest_unheld: Option<Arc<Held>>,
    /// Which document was last given to stores, or had of them, by when it was received, and its place in their order.
    kept: Option<(Moment, u64)>,
}

impl Owner {
    /// The place of what is held in the order of stores: after what they were last given, though the wall was set back a
    /// little since.
    fn order_of(&self, held: &Held, newest: u64) -> u64 {
        let by_the_wall = order_of_held(held);
        match self.seldom.as_ref().and_then(|seldom| seldom.kept) {
            Some((of, order)) if of == held.received_at => order,
            Some((_, before)) if before < newest => by_the_wall.max(before + 1),
            _ => by_the_wall,
        }
    }

    fn seldom(&mut self) -> &mut Seldom {
        self.seldom.get_or_insert_default()
    }

    /// What is held of `source` is judged by; by what came with a snapshot, where the issuer was not asked since.
    fn key_rules(&self, source: &Source, policy: &Policy) -> KeyRules {
        let rules = source.key_rules(policy, self.discovered.as_deref());
        let unasked = self.discovered.is_none() && source.shared.discovered().0.is_none();
        match self.seldom.as_ref().and_then(|seldom| seldom.without_alg).filter(|_| unasked) {
            Some(without_alg) => KeyRules { without_alg, ..rules },
            None => rules,
        }
    }
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
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) registration: IdentityProviderRegistration,
    /// The registration's issuer, one text for all who compare it.
    pub(crate) issuer: Option<Arc<str>>,
    /// The registry's own list; it applies besides the registration's.
    pub(crate) registry_domains: Arc<Vec<String>>,
    /// How it is dialled, by the registration and, where that says nothing, by the registry.
    pub(crate) dial: Arc<Dial>,
    /// What is shared by who asks the registered place as we do.
    shared: Arc<Shared>,
    /// The same of each fallback.
    of_fallbacks: Box<[Arc<Shared>]>,
}

/// A source's registration.
struct Registered(Arc<Source>);

impl Deref for Registered {
    type Target = IdentityProviderRegistration;

    fn deref(&self) -> &Self::Target {
        &self.0.registration
    }
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
    /// Another provider of the source has brought a newer document: look again.
    LookAgain,
    /// Wait for this flight.
    Flight(Arc<Flight>),
    /// Wait for this exchange of another provider of the source, which looks for a kid, and ask again.
    Exchange(Arc<Exchange>),
    /// The provider is gone.
    Unregistered,
}

impl Provider {
    pub(crate) fn new(engine: Arc<Engine>, source: Source) -> Arc<Self> {
        let policy = engine.policy(source.registration.policy());
        let lifecycle = Lifecycle::new(policy.clone());
        let view = View::new(
            source.issuer.clone(),
            lifecycle.published(),
            policy,
            None,
            None,
            false,
            source.registration.issuer_template,
        );
        let (slot, publisher) = Slot::new(view);
        let source = Arc::new(source);
        source.enter();
        let (hits, counters) = engine.counters();
        let (tenant, id) = (&*source.registration.tenant_id, &*source.registration.provider_id);
        let provider = Arc::new_cyclic(|provider| Self {
            front: epoch::Shared::new(Front::new(slot, hits, NameRef(tenant, id), engine.serial(), provider)),
            engine,
            counters,
            flights: AtomicU64::new(0),
            owner: Mutex::new(Owner {
                lifecycle,
                publisher,
                source: source.clone(),
                running: None,
                missing: MissingKids::default(),
                last_error: None,
                timer: None,
                closed: None,
                discovered: None,
                seldom: None,
            }),
        });
        watch::start(&provider, &source);
        provider
    }

    /// Where the keys of a source are, as its status names it: the metadata's `jwks_uri`, if there is one.
    pub(crate) fn jwks_uri(&self) -> Option<Url> {
        lock(&self.owner).discovered.as_ref().map(|found| redacted(&found.metadata.jwks_uri))
    }

    /// How what is held is named, where it is of a fallback.
    pub(crate) fn shown_fallback(&self, index: u16) -> Url {
        let of = self.registration();
        of.fallbacks.get(usize::from(index)).map_or_else(|| of.shown_place(), Fallback::shown)
    }

    pub(crate) fn registration(&self) -> impl Deref<Target = IdentityProviderRegistration> {
        Registered(lock(&self.owner).source.clone())
    }

    /// The issuer it is registered under.
    pub(crate) fn issuer(&self) -> Option<Arc<str>> {
        lock(&self.owner).source.issuer.clone()
    }

    pub(crate) fn tenant(&self) -> &str {
        self.front.tenant()
    }

    pub(crate) fn id(&self) -> &str {
        self.front.id()
    }

    /// A number that no other provider of the engine has.
    pub(crate) fn serial(&self) -> u64 {
        self.front.serial
    }

    /// The number of the last flight that began.
    pub(crate) fn flights(&self) -> u64 {
        self.flights.load(Acquire)
    }

    pub(crate) fn counts(&self) -> Counts {
        self.counters.counts(&self.front.hits)
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
        Error::NotRegistered { tenant: self.tenant().to_owned(), provider: self.id().to_owned() }
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
        let now = self.engine.now();
        // What others were brought comes before what is known here to be missing.
        let owner = match self.adopt_newer(lock(&self.owner), Asker::MissingKid, now) {
            Ok(()) => return KidAsked::LookAgain,
            Err(owner) => owner,
        };
        if owner.missing.knows(kid, now) {
            return KidAsked::KnownMissing;
        }
        let shared = owner.source.shared.clone();
        match self.ask_owner(owner, Asker::MissingKid) {
            Asked::Flight(flight) => KidAsked::Flight(flight),
            Asked::Unregistered => KidAsked::Unregistered,
            Asked::LookAgain => KidAsked::LookAgain,
            Asked::NotBefore(..) => shared.looks_for_kid().map_or(KidAsked::NotNow, KidAsked::Exchange),
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
        let read = self.front.slot.was_read();
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
        let now = self.engine.now();
        owner = match self.adopt_newer(owner, asker, now) {
            Ok(()) => return Asked::LookAgain,
            Err(owner) => owner,
        };
        let answer = if asker == Asker::MissingKid {
            let shared = owner.source.shared.clone();
            shared.spend_on_kid(now, |last| {
                if let Some(last) = last {
                    owner.lifecycle.charge_kid_flight(last);
                }
                let answer = owner.lifecycle.ask(asker, now);
                (matches!(answer, Answer::Start(_)), answer)
            })
        } else {
            owner.lifecycle.ask(asker, now)
        };
        match answer {
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

    /// Takes what another provider of the same source was brought. Gives the owner back where there is nothing, or
    /// nothing of use.
    fn adopt_newer<'a>(
        self: &Arc<Self>,
        mut guard: MutexGuard<'a, Owner>,
        asker: Asker,
        now: Moment,
    ) -> std::result::Result<(), MutexGuard<'a, Owner>> {
        let owner = &mut *guard;
        let memory = owner.source.shared.memory(self.serial()).filter(|memory| {
            owner.closed.is_none()
                && owner.seldom.as_ref().is_none_or(|seldom| memory.number != seldom.refused)
                && owner.newest_unheld().is_none_or(|newest| !came_before(&memory.timing, newest))
                && owner.lifecycle.would_adopt(asker, &memory.headers, &memory.timing, now)
        });
        let Some(memory) = memory else { return Err(guard) };
        let rules = owner.source.key_rules(owner.lifecycle.policy(), memory.found.as_deref());
        let (headers, timing) = (memory.headers.clone(), memory.timing);
        let change = memory.judged(&self.engine, &rules).map_or(Change::Ignored, |set| {
            owner.lifecycle.adopt(set, headers, timing, now, &mut self.engine.dice())
        });
        if matches!(change, Change::Ignored) {
            owner.seldom().refused = memory.number;
            return Err(guard);
        }
        if matches!(asker, Asker::Timer { .. }) {
            self.front.slot.renewed(&mut owner.publisher);
        }
        owner.last_error = None;
        let moved = self.took(owner, &change, memory.found.clone());
        self.publish(owner);
        self.rearm(owner);
        self.keep_what_changed(owner, &change);
        drop(guard);
        self.counters.adopted.fetch_add(1, Relaxed);
        self.flush();
        self.announce(&change, moved);
        Ok(())
    }

    /// What a change of the held set means for the rest of the owner. Says where the key set has moved from and to.
    fn took(&self, owner: &mut Owner, change: &Change, found: Option<Arc<Discovered>>) -> Option<(Url, Url)> {
        match change {
            Change::Adopted { diff, .. } | Change::FellBack { diff, .. } => {
                if !diff.is_empty() {
                    owner.missing.clear();
                }
                if let (Change::Adopted { .. }, Some(seldom)) = (change, &mut owner.seldom) {
                    seldom.newest_unheld = None;
                }
            }
            Change::Renewed { .. } => {}
            // Its metadata led to what is not held.
            Change::Superseded { .. } => {
                self.front.slot.became_fresh(&mut owner.publisher);
                return None;
            }
            _ => return None,
        }
        self.front.slot.became_fresh(&mut owner.publisher);
        let found = found?;
        let before = owner.discovered.replace(found.clone())?;
        let (from, to) = (&before.metadata.jwks_uri, &found.metadata.jwks_uri);
        (from != to).then(|| (from.clone(), to.clone()))
    }

    /// Tells of another set, of another source, and of better times.
    fn announce(&self, change: &Change, moved: Option<(Url, Url)>) {
        let send = |what| self.engine.events.send(self.tenant(), self.id(), what);
        if let Some((from, to)) = moved {
            let (from, to) = (redacted(&from), redacted(&to));
            tracing::warn!(%from, %to, "the issuer names another URL for its keys");
            send(What::JwksUriChanged { from: from.as_str().into(), to: to.as_str().into() });
        }
        let switched = match change {
            Change::Adopted { switched, .. } | Change::FellBack { switched, .. } => *switched,
            _ => false,
        };
        if let (true, Change::FellBack { .. }) = (switched, change) {
            let view = self.front.slot.load_full();
            if let Some(Serving::Fallback(index)) = view.published.held.as_ref().map(|held| held.serving) {
                let place = self.shown_fallback(index);
                tracing::warn!(index, %place, "a fallback serves");
                send(What::ServingFallback { index, place: place.as_str().into() });
            }
        } else if switched {
            tracing::info!("the source itself serves again");
            send(What::ServingPrimary);
        }
        if let Change::Adopted { diff, .. } | Change::FellBack { diff, .. } = change
            && !diff.is_empty()
        {
            let diff = Arc::new(diff.clone());
            tracing::info!(
                added = diff.added.len(),
                removed = diff.removed.len(),
                changed = diff.changed.len(),
                "another key set was adopted"
            );
            if matches!(change, Change::Adopted { suspicious: true, .. }) {
                tracing::warn!("the key set changed suspiciously");
                send(What::SuspiciousChange { diff: diff.clone() });
            }
            send(What::SetChanged { diff });
        }
        if let Change::Adopted { recovered: true, .. }
        | Change::Renewed { recovered: true }
        | Change::Superseded { recovered: true } = change
        {
            tracing::info!("the provider recovered");
            send(What::Recovered);
        }
    }

    fn take_off(
        self: &Arc<Self>,
        mut owner: MutexGuard<'_, Owner>,
        plan: Plan,
        runtime: &Handle,
    ) -> Arc<Flight> {
        let flight = Arc::new(Flight::new(plan.number));
        let was_read = self.front.slot.begin_flight(&mut owner.publisher);
        self.flights.store(plan.number, Release);
        if plan.asker == Asker::MissingKid {
            self.counters.rare().kid_fetches.fetch_add(1, Relaxed);
        }
        owner.running = Some(Running { flight: flight.clone(), task: None });
        self.publish(&mut owner);
        self.rearm(&mut owner);
        let insists = matches!(plan.asker, Asker::Person | Asker::MissingKid);
        let crew = Crew {
            mark: owner.source.shared.mark(insists),
            insists,
            held: owner.lifecycle.held().cloned(),
            held_from: owner.discovered.clone(),
            provider: self.clone(),
            flight: flight.clone(),
            source: owner.source.clone(),
            policy: owner.lifecycle.policy().clone(),
            plan,
            was_read,
        };
        // A runtime that is shutting down drops the task at once, and that takes the lock.
        let source = owner.source.clone();
        drop(owner);
        watch::start(self, &source);
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
        let fallback = owner.lifecycle.held().is_some_and(|held| held.serving != Serving::Primary);
        let newest = owner.to_be_kept();
        let keeps_keys = old.is_same_source(new)
            && (!fallback || old.fallbacks == new.fallbacks)
            && !old.is_tightened_by(new)
            && !owner.source.dial.is_tightened_by(&source.dial)
            && (owner.source.registry_domains == source.registry_domains);
        if keeps_keys {
            let rules = owner.key_rules(&source, &policy);
            let judge = |set: &Arc<KeySet>| self.engine.judge(set.text().as_bytes(), &rules).ok();
            owner.lifecycle.reconfigure(policy, judge, self.engine.now(), &mut self.engine.dice());
            if let Some(newest) = newest.filter(|_| owner.lifecycle.held().is_none()) {
                owner.seldom().newest_unheld = Some(newest);
            }
        } else {
            owner.lifecycle.forget(policy, self.engine.now());
            owner.last_error = None;
            owner.discovered = None;
            owner.seldom().trusts_from = Some(self.engine.clock.wall());
            owner.seldom().without_alg = None;
            owner.seldom().newest_unheld = None;
            // Denials outlive that.
            self.engine.stores.forget(&**self, SnapshotKind::Keys);
        }
        owner.missing.clear();
        if let Some(seldom) = &mut owner.seldom {
            seldom.refused = 0;
        }
        // In this order: what both share is not let go.
        source.enter();
        if let Some(told) = owner.source.shared.told().filter(|_| keeps_keys) {
            // A file that was changed meanwhile was not read.
            source.shared.tell(told);
        }
        owner.source.leave();
        owner.source = Arc::new(source);
        watch::start(self, &owner.source);
        self.ground(owner, &Ended::Superseded);
        self.publish(owner);
        self.rearm(owner);
        if keeps_keys {
            // For another time, maybe, and trusted by another pin.
            self.keep(SnapshotKind::Keys);
        }
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
        owner.source.leave();
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
        lock(&self.owner).has_room_to_deny(id)?;
        Ok(self.change_denials(id, true))
    }

    /// Denies before anybody knows this provider. Not stored yet: what stores keep of it is read first.
    ///
    /// # Errors
    /// As [`Provider::deny`].
    pub(crate) fn begin_denying(&self, ids: impl IntoIterator<Item = impl AsRef<str>>) -> Result<()> {
        let mut owner = lock(&self.owner);
        let mut changed = false;
        for id in ids {
            let id = id.as_ref();
            owner.has_room_to_deny(id)?;
            changed |= owner.lifecycle.deny(id);
            owner.seldom().denied.note(id, true, order_of(self.engine.clock.wall()));
        }
        if changed {
            self.publish(&mut owner);
        }
        Ok(())
    }

    /// Lifts a denial at once. `true` if there was one.
    pub(crate) fn allow(self: &Arc<Self>, id: &str) -> bool {
        self.change_denials(id, false)
    }

    fn change_denials(self: &Arc<Self>, id: &str, denied: bool) -> bool {
        let mut owner = lock(&self.owner);
        let changed = if denied { owner.lifecycle.deny(id) } else { owner.lifecycle.allow(id) };
        if changed {
            owner.seldom().denied.note(id, denied, order_of(self.engine.clock.wall()));
        }
        self.publish(&mut owner);
        drop(owner);
        self.flush();
        if changed {
            self.keep(SnapshotKind::Denials);
            self.keep(SnapshotKind::Keys);
            tracing::warn!(
                tenant = self.tenant(),
                provider = self.id(),
                id = shown_kid(id),
                denied,
                "denials changed"
            );
            let id = id.into();
            let what = if denied { What::KeyDenied { id } } else { What::KeyAllowed { id } };
            self.engine.events.send(self.tenant(), self.id(), what);
        }
        changed
    }

    /// Tells the recorder where this provider stands, now and at each tick from now on.
    pub(crate) fn flush(self: &Arc<Self>) {
        if !cfg!(feature = "metrics") {
            return;
        }
        self.counters.flush(self.tenant(), self.id(), || self.told().collect());
        if self.counters.enlists() {
            self.engine.schedule.enlist(&self.engine, self);
        }
    }

    /// Tells the recorder what was counted since.
    pub(crate) fn flush_counts(&self) {
        self.counters.flush(self.tenant(), self.id(), || self.counted().collect());
    }

    /// Replaces what readers see by what the lifecycle says.
    fn publish(&self, owner: &mut Owner) -> SharedView {
        let view = View::new(
            owner.source.issuer.clone(),
            owner.lifecycle.published(),
            Arc::<Policy>::clone(owner.lifecycle.policy()),
            owner.running.as_ref().map(|running| running.flight.clone()),
            owner.last_error.clone(),
            owner.closed == Some(Closed::Unregistered),
            owner.source.registration.issuer_template,
        );
        self.front.slot.publish(&mut owner.publisher, view)
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
        engine: &Engine,
    ) -> Self {
        registration.normalize_allowed_domains();
        let pins = Pins::new(&registration.pinned_spki, registration.pin_mode);
        let dial = defaults.under(registration.transport(), pins);
        let share = |kind: &Kind, format: &KeyFormat| {
            if !kind.is_remote() {
                return Arc::default();
            }
            let mut hasher = Digesting(Context::new(&SHA256));
            (kind, format).hash(&mut hasher);
            dial.identify(&mut hasher);
            (&registration.allowed_domains, &registry_domains, registration.home()).hash(&mut hasher);
            let (max_redirects, most) = (registration.max_redirects, registration.max_response_bytes);
            (registration.require_https, max_redirects, most).hash(&mut hasher);
            // Who leads an exchange decides how long the others may wait for it.
            registration.retry_policy.attempt_timeout.hash(&mut hasher);
            engine.share(finished(hasher.0))
        };
        let shared = share(&Kind::of(&registration), &registration.format);
        let of_fallbacks = registration.fallbacks.iter();
        let of_fallbacks = of_fallbacks.map(|of| share(&Kind::of_fallback(of), &of.format)).collect();
        let issuer = registration.issuer.as_deref().map(Arc::from);
        Self { registration, issuer, registry_domains, dial, shared, of_fallbacks }
    }

    /// The registered place.
    fn primary(&self) -> Place {
        let of = &self.registration;
        Place {
            kind: Kind::of(of),
            format: of.format.clone(),
            shown: of.shown_place(),
            shared: self.shared.clone(),
        }
    }

    /// Another.
    fn fallback(&self, index: u16) -> Option<Place> {
        let of = self.registration.fallbacks.get(usize::from(index))?;
        let shared = self.of_fallbacks.get(usize::from(index))?.clone();
        Some(Place { kind: Kind::of_fallback(of), format: of.format.clone(), shown: of.shown(), shared })
    }

    /// What a document of this source is judged by, where the issuer's metadata says this; by what it said last,
    /// where it was not asked, as for a fallback.
    fn key_rules(&self, policy: &Policy, found: Option<&Discovered>) -> KeyRules {
        let rules = policy.key_rules();
        let algorithms = |found: &Discovered| found.metadata.algorithms;
        match found.map(algorithms).or_else(|| self.shared.discovered().0.as_deref().map(algorithms)) {
            Some(without_alg) => KeyRules { without_alg, ..rules },
            None => rules,
        }
    }

    /// One more provider has it.
    fn enter(&self) {
        self.all_shared().for_each(|shared| shared.enter());
    }

    /// One less has.
    fn leave(&self) {
        self.all_shared().for_each(|shared| shared.leave());
    }

    fn all_shared(&self) -> impl Iterator<Item = &Arc<Shared>> {
        [&self.shared].into_iter().chain(self.of_fallbacks.iter())
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

    fn failure(&self, place: &Place, failed: NotFetched, attempt: u32) -> FetchError {
        FetchError(Arc::new(Failure {
            tenant: self.registration.tenant_id.as_str().into(),
            provider: self.registration.provider_id.as_str().into(),
            attempt,
            url: failed.url.as_ref().map_or_else(|| place.shown.clone(), |url| redacted(url)),
            status: failed.status,
            body: failed.excerpt,
            reason: failed.reason,
            refused_by_policy: failed.refused_by_policy,
            message: failed.message,
            cause: failed.cause,
        }))
    }
}

/// Digests what is hashed.
struct Digesting(Context);

impl Hasher for Digesting {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        0
    }
}

impl Provider {
    /// A caller who has nothing waits for this flight: it goes first in the queue.
    pub(crate) fn join_cold(&self, flight: &Flight) {
        self.hurry(flight, Urgency::Waited);
    }

    /// Moves a flight forward in the queue, never back.
    fn hurry(&self, flight: &Flight, urgency: Urgency) {
        let ticket = *lock(&flight.ticket);
        if let Some(ticket) = ticket {
            self.engine.gate.promote(ticket, urgency);
        }
    }
}
