//! What a provider keeps in stores, and what it takes from them. When it is written and how, the stores know.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, TimeDelta, Utc};
use jwks_cache_core::AlgorithmSet;
use jwks_cache_core::freshness::{StoredHeaders, Timing};
use jwks_cache_core::keyset::{KeyRules, Refusal};
use jwks_cache_core::lifecycle::{Change, Stored, StoredKey};
use jwks_cache_core::published::{Held, Serving};
use jwks_cache_core::snapshot::{Belongs, DenialLog, Envelope, FORMAT, KeyRing, StoredRetiring, Word};
use serde_json::json;

use super::place::Kind;
use super::{Closed, Owner, Provider, Source};
use crate::error::{Error, Result};
use crate::events::What;
use crate::snapshot::{PersistentSnapshot, Sealed, StoredDenials, StoredKeys, newest_order, order_of};
use crate::store::{Deed, Kept, SnapshotEntry, SnapshotKey, SnapshotKind, StoreError};
use crate::sync::{MutexGuard, lock};

/// What an encoded snapshot may have beside its documents.
const AROUND: u64 = 64 * 1024;

impl Source {
    /// Kind and place of the source, how its keys are written and whose tokens they verify, as snapshots name it: by a
    /// digest, for a place may hold secrets. `None` where keys are at hand: they need no snapshot.
    pub(super) fn name(&self) -> Option<String> {
        let of = &self.registration;
        let (kind, place) = match Kind::of(of) {
            Kind::Url(url) => ("jwks_url", url),
            Kind::Discovery { at, .. } => ("discovery", at),
            Kind::File(_) | Kind::Inline(_) => return None,
        };
        // JSON, so that no part of one can be taken for a part of another.
        let name = json!([kind, place, of.format, of.issuer, of.issuer_template]);
        Some(URL_SAFE_NO_PAD.encode(digest(&SHA256, name.to_string().as_bytes())))
    }

    /// Who is believed there, and where it may be: what [`IdentityProviderRegistration::is_tightened_by`] and
    /// [`Dial::is_tightened_by`] compare, as a digest. More than tells apart; equal is the same.
    ///
    /// [`Dial::is_tightened_by`]: crate::dial::Dial::is_tightened_by
    fn trust(&self) -> String {
        let of = &self.registration;
        let sorted = |domains: &[String]| domains.iter().cloned().collect::<BTreeSet<String>>();
        let domains = (sorted(&of.allowed_domains), sorted(&self.registry_domains));
        let trust = json!((of.require_https, domains, self.dial.trust()));
        URL_SAFE_NO_PAD.encode(digest(&SHA256, trust.to_string().as_bytes()))
    }
}

impl Provider {
    /// Loads what the stores kept, and waits for it a moment.
    pub(crate) async fn load(self: Arc<Self>) {
        if self.engine.stores.is_empty() {
            return;
        }
        let engine = self.engine.clone();
        engine.stores.restore(self).await;
    }

    /// Has the stores keep what was denied from the beginning.
    pub(crate) fn keep_denials(self: &Arc<Self>) {
        self.keep(SnapshotKind::Denials);
    }

    /// Has the stores keep what is held now.
    pub(super) fn keep(self: &Arc<Self>, kind: SnapshotKind) {
        self.engine.stores.mark(self, kind);
    }

    /// Has the stores keep what another document changed.
    pub(super) fn keep_what_changed(self: &Arc<Self>, owner: &Owner, change: &Change) {
        let of_source = matches!(change, Change::Adopted { .. } | Change::Renewed { .. });
        if of_source {
            self.keep(SnapshotKind::Keys);
        }
        if (of_source || matches!(change, Change::FellBack { .. })) && owner.has_denied() {
            // More may stand under a denied kid than did; and what the store lost comes back.
            self.keep(SnapshotKind::Denials);
        }
    }

    /// How long a change has waited to be stored; none without a store.
    pub(crate) fn store_lag(&self) -> Option<Duration> {
        let stores = &self.engine.stores;
        (!stores.is_empty()).then(|| stores.lag(self))
    }

    /// What the source brought last, to be stored. `None` before it did, or when it is at hand.
    ///
    /// # Errors
    /// [`Error::Cache`] when a time is beyond the calendar.
    pub(crate) fn persistent_snapshot(&self) -> Result<Option<PersistentSnapshot>> {
        let held = lock(&self.owner).to_be_kept();
        held.map(|held| self.snapshot_of(&held)).transpose()
    }

    fn snapshot_of(&self, held: &Held) -> Result<PersistentSnapshot> {
        let lifetime = TimeDelta::from_std(held.expires_at.since(held.received_at)).ok();
        // Both on the wall of then: a clock that was set since gives no lifetime.
        let expires_at = lifetime
            .and_then(|lifetime| held.received_wall.checked_add_signed(lifetime))
            .ok_or_else(|| Error::Cache("the expiry is beyond the calendar".into()))?;
        Ok(PersistentSnapshot {
            tenant_id: self.tenant().to_owned(),
            provider_id: self.id().to_owned(),
            jwks_json: held.set.text().to_string(),
            etag: held.headers.etag().map(ToOwned::to_owned),
            last_modified: held.headers.last_modified(),
            expires_at,
            persisted_at: held.received_wall,
        })
    }

    fn belongs<'a>(&'a self, namespace: &'a str, source: &'a str, kind: SnapshotKind) -> Belongs<'a> {
        Belongs { namespace, tenant: self.tenant(), provider: self.id(), source, kind: kind.as_str() }
    }

    /// Who is unregistered has nothing to be kept any more.
    fn registered(&self) -> Option<MutexGuard<'_, Owner>> {
        let owner = lock(&self.owner);
        (owner.closed != Some(Closed::Unregistered)).then_some(owner)
    }

    fn keys_entry(&self, namespace: &str) -> Option<SnapshotEntry> {
        let now = self.engine.now();
        let newest = newest_order(self.engine.clock.wall());
        let (held, order, source, denials, most, without_alg) = {
            let mut owner = self.registered()?;
            let (held, policy) = (owner.to_be_kept()?, owner.lifecycle.policy());
            let (most, without_alg) =
                (policy.max_response_bytes, owner.key_rules(&owner.source, policy).without_alg);
            let order = owner.order_of(&held, newest);
            owner.seldom().kept = Some((held.received_at, order));
            (held, order, owner.source.clone(), owner.denials(), most, without_alg)
        };
        let restricted = (without_alg != AlgorithmSet::ALL).then_some(without_alg);
        // At least 1 s: a store may know no less.
        let keep_for = held.servable_until.since(now).max(Duration::from_secs(1));
        let name = source.name()?;
        let mut room = most;
        let mut retiring = StoredRetiring::of(&held);
        retiring.retain(|old| {
            let fits = room.checked_sub(old.jwk.len() as u64);
            room = fits.unwrap_or(room);
            fits.is_some()
        });
        let envelope = Envelope {
            format: Some(FORMAT),
            source: Some(name.clone()),
            order: Some(order),
            trust: Some(source.trust()),
            stale_use: Some(held.headers.stale_use()),
            without_alg: restricted.map(|of| of.iter().map(|it| it.to_string()).collect()),
            retiring,
            denials,
            mac: None,
        };
        let stored = StoredKeys { snapshot: self.snapshot_of(&held).ok()?, envelope };
        let bytes = stored
            .seal(self.engine.stores.ring.as_ref(), &self.belongs(namespace, &name, SnapshotKind::Keys));
        Some(SnapshotEntry { bytes: bytes.ok()?, order, newest, keep_for: Some(keep_for), instead_of: None })
    }

    fn denials_entry(&self, namespace: &str) -> Option<SnapshotEntry> {
        let denials = self.registered()?.denials();
        if denials.is_empty() {
            return None;
        }
        let order = denials.order();
        let stored = StoredDenials {
            tenant_id: self.tenant().to_owned(),
            provider_id: self.id().to_owned(),
            format: FORMAT,
            order,
            denials,
            mac: None,
        };
        let bytes = stored
            .seal(self.engine.stores.ring.as_ref(), &self.belongs(namespace, "", SnapshotKind::Denials));
        let newest = newest_order(self.engine.clock.wall());
        Some(SnapshotEntry { bytes: bytes.ok()?, order, newest, keep_for: None, instead_of: None })
    }

    fn take_keys(self: &Arc<Self>, namespace: &str, bytes: &[u8]) -> Result<()> {
        let mut stored: StoredKeys = serde_json::from_slice(bytes)?;
        let source = lock(&self.owner).source.clone();
        let name = source.name().ok_or_else(needs_none)?;
        if stored.envelope.source.as_ref().is_some_and(|other| *other != name) {
            return Err(Error::validation("source", "the snapshot is of another source"));
        }
        let belongs = self.belongs(namespace, &name, SnapshotKind::Keys);
        let authentic = stored.unseal(self.engine.stores.ring.as_ref(), &belongs)?;
        let StoredKeys { snapshot, mut envelope } = stored;
        snapshot.is_named(self.tenant(), self.id())?;
        // What is denied there is denied before a key of it is served.
        self.merge_denials(std::mem::take(&mut envelope.denials));
        if envelope.trust.as_ref().is_some_and(|other| *other != source.trust()) {
            let why =
                "the snapshot was fetched under other pins, roots, domains or addresses than are trusted now";
            return Err(Error::validation("trust", why));
        }
        self.try_restore(&snapshot, &envelope, authentic)
    }

    fn take_denials(self: &Arc<Self>, namespace: &str, bytes: &[u8]) -> Result<()> {
        let mut stored: StoredDenials = serde_json::from_slice(bytes)?;
        if *stored.tenant_id != *self.tenant() || *stored.provider_id != *self.id() {
            return Err(Error::validation("tenant_id", "the denials are another provider's"));
        }
        let ring = self.engine.stores.ring.as_ref();
        // While not every process has a ring, what the others deny must not be lost. What they allow must not count.
        let lenient = stored.mac.is_none() && ring.is_some_and(KeyRing::accepts_unsigned_denials);
        stored.unseal(ring.filter(|_| !lenient), &self.belongs(namespace, "", SnapshotKind::Denials))?;
        self.merge_denials(if lenient { stored.denials.denials_only() } else { stored.denials });
        Ok(())
    }

    fn merge_denials(self: &Arc<Self>, theirs: DenialLog) {
        let newest = newest_order(self.engine.clock.wall());
        let mut guard = lock(&self.owner);
        let owner = &mut *guard;
        if theirs.is_empty() {
            return;
        }
        let taken = owner.seldom().denied.merge(theirs, newest);
        if taken.is_empty() {
            return;
        }
        let mut changes = Vec::new();
        for (id, word) in taken {
            let id: Arc<str> = id.into();
            let changed = apply(owner, &id, &word);
            if changed {
                changes.push(if word.denied { What::KeyDenied { id } } else { What::KeyAllowed { id } });
            }
        }
        self.publish(owner);
        drop(guard);
        tracing::info!(
            tenant = self.tenant(),
            provider = self.id(),
            changes = changes.len(),
            "denials were loaded"
        );
        for what in changes {
            self.engine.events.send(self.tenant(), self.id(), what);
        }
    }

    /// Takes a snapshot from somebody's hands, judged like a fetched body.
    ///
    /// # Errors
    /// [`Error::Validation`] naming the snapshot's field. Nothing held is lost.
    pub(crate) fn restore(self: &Arc<Self>, snapshot: &PersistentSnapshot) -> Result<()> {
        let restored = self.try_restore(snapshot, &Envelope::default(), false);
        if let Err(error) = &restored {
            self.tell_refused(error);
        }
        restored
    }

    fn tell_refused(&self, error: &dyn std::fmt::Display) {
        tracing::warn!(tenant = self.tenant(), provider = self.id(), %error, "snapshot refused");
        let reason = error.to_string().into();
        self.engine.events.send(self.tenant(), self.id(), What::SnapshotRefused { reason });
    }

    fn try_restore(
        self: &Arc<Self>,
        snapshot: &PersistentSnapshot,
        envelope: &Envelope,
        authentic: bool,
    ) -> Result<()> {
        let mut guard = lock(&self.owner);
        let owner = &mut *guard;
        if owner.closed.is_some() {
            return Err(self.not_registered());
        }
        owner.source.name().ok_or_else(needs_none)?;
        snapshot.validate(&owner.source.registration)?;
        let (now, wall) = (self.engine.now(), self.engine.clock.wall());
        let age = snapshot.age(wall)?;
        let names = envelope.without_alg.as_ref();
        let stored_without_alg: Option<AlgorithmSet> =
            names.map(|names| names.iter().filter_map(|name| name.parse().ok()).collect());
        let mut rules = owner.key_rules(&owner.source, owner.lifecycle.policy());
        if let Some(stored) = stored_without_alg.filter(|_| owner.discovered.is_none()) {
            rules.without_alg = stored;
        }
        let trusts_from = owner.seldom.as_ref().and_then(|seldom| seldom.trusts_from);
        if trusts_from.is_some_and(|from| snapshot.persisted_at <= from) {
            return Err(Error::validation(
                "persisted_at",
                "was fetched before the registration's trust changed",
            ));
        }
        let set = self
            .engine
            .judge(snapshot.jwks_json.as_bytes(), &rules)
            .map_err(|refusal| Error::validation("jwks_json", refusal.to_string()))?;
        // A wall clock that was set moves all that came since; what began later by either clock stays.
        let order = envelope.order.unwrap_or_else(|| order_of(snapshot.persisted_at));
        let newest = newest_order(wall);
        let is_newer =
            |held: &Arc<Held>| now - age <= held.received_at || order <= owner.order_of(held, newest);
        if owner.lifecycle.held().is_some_and(is_newer) {
            return Ok(());
        }
        let replaced_it =
            |held: &Arc<Held>| now - age < held.received_at && order < owner.order_of(held, newest);
        if owner.newest_unheld().is_some_and(replaced_it) {
            return Ok(());
        }
        let held = owner.lifecycle.held().filter(|held| held.is_servable(now));
        if held.is_some_and(|held| held.set.usable().next().is_some()) && set.usable().next().is_none() {
            return Err(Error::validation("jwks_json", Refusal::NothingUsable.to_string()));
        }
        let validators = StoredHeaders::from_validators(snapshot.etag.as_deref(), snapshot.last_modified);
        let stored = Stored {
            set,
            headers: envelope.stale_use.iter().fold(validators, |it, allowed| it.with_stale_use(*allowed)),
            age,
            transit: micros(order_of(snapshot.persisted_at).saturating_sub(order)),
            // Not negative: that was validated.
            lifetime: (snapshot.expires_at - snapshot.persisted_at).to_std().unwrap_or_default(),
            received_wall: snapshot.persisted_at,
            retiring: retiring(envelope, snapshot.persisted_at, &rules),
            trusted: authentic,
        };
        if !owner.lifecycle.restore(stored, now, &mut self.engine.dice()) {
            return Err(Error::validation("expires_at", "the snapshot is too old to be served"));
        }
        let kept = owner.lifecycle.held().map(|held| (held.received_at, order));
        owner.seldom().kept = kept;
        owner.seldom().newest_unheld = None;
        if stored_without_alg.is_some() {
            owner.seldom().without_alg = stored_without_alg;
        }
        self.front.slot.became_fresh(&mut owner.publisher);
        self.publish(owner);
        if let Some(running) = &owner.running {
            // Who waits with nothing need not wait for the provider.
            running.flight.keys_came();
        }
        self.rearm(owner);
        drop(guard);
        self.flush();
        Ok(())
    }
}

impl Kept for Provider {
    fn key(&self, kind: SnapshotKind) -> SnapshotKey {
        SnapshotKey { tenant: self.tenant().to_owned(), provider: self.id().to_owned(), kind }
    }

    fn keeps(&self, kind: SnapshotKind) -> bool {
        self.registered().is_some_and(|owner| match kind {
            SnapshotKind::Keys => owner.to_be_kept().is_some(),
            SnapshotKind::Denials => owner.has_denied(),
        })
    }

    fn entry(&self, kind: SnapshotKind, namespace: &str) -> Option<SnapshotEntry> {
        match kind {
            SnapshotKind::Keys => self.keys_entry(namespace),
            SnapshotKind::Denials => self.denials_entry(namespace),
        }
    }

    fn most(&self, kind: SnapshotKind) -> u64 {
        let around = AROUND + DenialLog::MOST_BYTES;
        match kind {
            // The document escaped, the retiring keys, and what stands around.
            SnapshotKind::Keys => {
                let document = lock(&self.owner).lifecycle.policy().max_response_bytes;
                document.saturating_mul(4).saturating_add(around)
            }
            SnapshotKind::Denials => around,
        }
    }

    fn take(self: Arc<Self>, kind: SnapshotKind, namespace: &str, bytes: &[u8]) -> Result<()> {
        let taken = match kind {
            SnapshotKind::Keys => self.take_keys(namespace, bytes),
            SnapshotKind::Denials => self.take_denials(namespace, bytes),
        };
        match &taken {
            // It was unregistered meanwhile: nothing is wrong with the snapshot.
            Err(Error::NotRegistered { .. }) => return Ok(()),
            Err(error) => {
                self.tell_refused(error);
                if kind == SnapshotKind::Denials {
                    tracing::error!(
                        tenant = self.tenant(),
                        provider = self.id(),
                        namespace,
                        "the stored denials are not believed and will be written over; deny again what only they denied"
                    );
                }
            }
            Ok(()) => {}
        }
        taken
    }

    fn tell_unusable(&self, error: &StoreError) {
        self.tell_refused(error);
    }

    fn count(&self, deed: Deed) {
        let counters = &self.counters.rare().stored;
        let of = match deed {
            Deed::Saved => &counters.saved,
            Deed::Superseded => &counters.superseded,
            Deed::Loaded => &counters.loaded,
            Deed::Absent => &counters.absent,
            Deed::Failed => &counters.failed,
            Deed::Refused => &counters.refused,
            Deed::SetAside => &counters.set_aside,
        };
        of.fetch_add(1, Relaxed);
        self.front.hits.mark();
    }
}

impl Owner {
    /// What came last of the source itself, where that is not at hand anyway. A fallback's keys are none of these: a
    /// snapshot would pass them off as the source's.
    pub(super) fn to_be_kept(&self) -> Option<Arc<Held>> {
        let held = self.lifecycle.held().filter(|held| held.serving == Serving::Primary);
        let newest = held.or(self.newest_unheld())?;
        self.source.name().map(|_| newest.clone())
    }

    pub(super) fn newest_unheld(&self) -> Option<&Arc<Held>> {
        self.seldom.as_ref()?.newest_unheld.as_ref()
    }

    /// # Errors
    /// [`Error::Validation`] when so many are denied that stores could not keep one more.
    pub(super) fn has_room_to_deny(&mut self, id: &str) -> Result<()> {
        if self.seldom().denied.has_room(id) {
            return Ok(());
        }
        let full = "1 MiB of ids is denied or was; allow those that the provider no longer publishes";
        Err(Error::validation("id", full))
    }

    /// Whether anything was ever denied.
    fn has_denied(&self) -> bool {
        self.seldom.as_ref().is_some_and(|seldom| !seldom.denied.is_empty())
    }

    /// What is denied and was, with the materials seen.
    fn denials(&self) -> DenialLog {
        let denials = self.lifecycle.published().denials;
        let log = self.seldom.as_ref().map(|seldom| seldom.denied.with_materials(|id| denials.materials(id)));
        log.unwrap_or_default()
    }
}

fn apply(owner: &mut Owner, id: &str, word: &Word) -> bool {
    if word.denied {
        owner.lifecycle.restore_denial(id, word.thumbprints())
    } else {
        owner.lifecycle.allow(id)
    }
}

/// Whether another document was asked for or came after it.
pub(super) fn came_before(timing: &Timing, other: &Held) -> bool {
    timing.received_at < other.received_at || timing.requested_at < other.requested_at
}

/// When the exchange began that brought it.
pub(super) fn order_of_held(held: &Held) -> u64 {
    let transit = held.received_at.since(held.requested_at).as_micros();
    order_of(held.received_wall).saturating_sub(u64::try_from(transit).unwrap_or(u64::MAX))
}

fn micros(micros: u64) -> Duration {
    Duration::from_micros(micros)
}

fn needs_none() -> Error {
    Error::validation("source", "is a file or a text: its keys are read from there, and from no snapshot")
}

fn retiring(envelope: &Envelope, persisted_at: DateTime<Utc>, rules: &KeyRules) -> Vec<StoredKey> {
    // What claims to be later than the last answer counts as then.
    let before = |at: DateTime<Utc>| (persisted_at - at).to_std().unwrap_or_default();
    let most = usize::try_from(rules.max_keys).unwrap_or(usize::MAX);
    let stored = envelope.retiring.iter().take(most);
    let judged = stored.filter_map(|old| {
        let (left_before, held_before) = (before(old.left_at), before(old.last_held_at));
        Some(StoredKey { key: old.judge(rules)?, left_before, held_before })
    });
    judged.collect()
}
