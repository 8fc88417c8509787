//! What a reader may and must get of one provider: the invariants on keys (I1, I2, I3, I5, I6), told
//! from what the world's fetches delivered. It shares no code with the cache.
//!
//! A [`State`] never changes; whoever waits across changes may get what any state of that time allows,
//! and must get what all of them demand.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use jwks_cache::{IdentityProviderRegistration, Moment};

use super::document::{
    Document, Kid, Material, Published, kid_of, material_of_thumbprint, name, thumbprint_of,
};
use super::origin::Promise;

/// Everything that decides an answer, until something changes.
#[derive(Clone, Debug, Default)]
pub(super) struct State {
    /// `None` while it is not registered.
    pub(super) registration: Option<Arc<IdentityProviderRegistration>>,
    pub(super) held: Option<Held>,
    pub(super) left: Vec<Left>,
    /// Denied kids and thumbprints, each with the material that it is known to name.
    pub(super) denied: BTreeMap<String, BTreeSet<Material>>,
}

/// The last document, as the last 200 or 304 promised it.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) document: Arc<Document>,
    pub(super) promise: Promise,
    /// How old it was on arrival.
    pub(super) age: Duration,
    pub(super) at: Moment,
    pub(super) wall: DateTime<Utc>,
}

/// A key that a document no longer held.
#[derive(Clone, Copy, Debug)]
pub(super) struct Left {
    key: Published,
    at: Moment,
    last_held_at: Moment,
}

/// What is held may be served fresh, and served at all, until these.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    pub(super) fresh_until: Moment,
    pub(super) servable_until: Moment,
}

impl Held {
    /// §3 and §5 of what the crate promises, in the world's own words.
    pub(super) fn times(&self, under: &IdentityProviderRegistration) -> Times {
        let clamped = |span: Duration| span.max(under.min_ttl).min(under.max_ttl);
        let (lifetime, window) = if self.document.keys.is_empty() {
            (under.min_ttl, Duration::ZERO)
        } else {
            let lifetime = match self.promise.max_age {
                _ if self.promise.no_store => under.min_ttl,
                Some(Ok(seconds)) => {
                    clamped(Duration::from_secs(seconds.min(1 << 31)).saturating_sub(self.age))
                }
                Some(Err(_)) => under.min_ttl,
                None => clamped(under.default_ttl),
            };
            let may_extend =
                !self.promise.must_revalidate && !self.promise.no_store && !under.stale_while_error.is_zero();
            let extension = self.promise.stale_if_error.filter(|_| may_extend).unwrap_or(0);
            (lifetime, under.stale_while_error.max(Duration::from_secs(extension)))
        };
        let trust_until = self.at + trust_age(under);
        let expires_at = self.at + lifetime;
        Times {
            fresh_until: expires_at.min(trust_until),
            servable_until: (expires_at + window).min(trust_until),
        }
    }
}

fn trust_age(under: &IdentityProviderRegistration) -> Duration {
    let least = Duration::from_secs(48 * 3600).max(under.max_ttl + under.stale_while_error);
    under.max_trust_age.unwrap_or(least)
}

impl Left {
    fn until(&self, under: &IdentityProviderRegistration) -> Moment {
        (self.at + under.removal_grace).min(self.last_held_at + trust_age(under))
    }
}

/// A lookup by kid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Allowed {
    Nothing,
    One(Material),
}

impl State {
    pub(super) fn times(&self) -> Option<Times> {
        Some(self.held.as_ref()?.times(self.registration.as_ref()?))
    }

    pub(super) fn is_servable(&self, now: Moment) -> bool {
        self.times().is_some_and(|times| now < times.servable_until)
    }

    pub(super) fn is_fresh(&self, now: Moment) -> bool {
        self.times().is_some_and(|times| now < times.fresh_until)
    }

    fn denies(&self, key: &Published) -> bool {
        self.denied.contains_key(&name(key.kid))
            || self.denied.values().any(|materials| materials.contains(&key.material))
    }

    fn published(&self) -> impl Iterator<Item = &Published> {
        self.held.iter().flat_map(|held| held.document.usable()).filter(|key| !self.denies(key))
    }

    /// The keys that verify, by material.
    pub(super) fn usable(&self) -> BTreeSet<Material> {
        self.published().map(|key| key.material).collect()
    }

    /// What `resolve` shows, in order.
    pub(super) fn listed(&self) -> Vec<(Kid, Material)> {
        let listed = self.held.iter().flat_map(|held| held.document.listed());
        listed.filter(|key| !self.denies(key)).map(|key| (key.kid, key.material)).collect()
    }

    /// What a kid stands for now; with none, the only key there is.
    pub(super) fn key(&self, kid: Option<Kid>, now: Moment) -> Allowed {
        let (Some(held), Some(under)) = (&self.held, &self.registration) else { return Allowed::Nothing };
        let Some(kid) = kid else {
            let usable = self.usable();
            return match usable.first() {
                Some(one) if usable.len() == 1 => Allowed::One(*one),
                _ => Allowed::Nothing,
            };
        };
        if let Some(key) = self.published().find(|key| key.kid == kid) {
            return Allowed::One(key.material);
        }
        let retiring = |old: &&Left| {
            old.key.kid == kid
                && now < old.until(under)
                && !self.denies(&old.key)
                && !held.document.mentions(kid)
        };
        self.left.iter().find(retiring).map_or(Allowed::Nothing, |old| Allowed::One(old.key.material))
    }

    /// The keys that may be shown as retiring.
    pub(super) fn retiring(&self, now: Moment) -> BTreeSet<Material> {
        let Some(under) = &self.registration else { return BTreeSet::new() };
        let retiring = self.left.iter().filter(|old| now < old.until(under) && !self.denies(&old.key));
        retiring.map(|old| old.key.material).collect()
    }

    /// Whether a kid would have to be looked for at the provider.
    pub(super) fn misses(&self, kid: Kid) -> bool {
        let listed = self.held.iter().flat_map(|held| held.document.listed());
        !listed.filter(|key| !self.denies(key)).any(|key| key.kid == kid)
    }

    /// Takes a 200. `false` when it must be refused: it would replace usable keys by none.
    pub(super) fn adopt(&mut self, next: Held) -> bool {
        let usable = next.document.usable().next().is_some();
        let holds_usable = self.held.as_ref().is_some_and(|held| held.document.usable().next().is_some());
        if !usable && holds_usable && self.is_servable(next.at) {
            return false;
        }
        let Some(under) = self.registration.clone() else { return false };
        let now = next.at;
        if let Some(held) = self.held.take().filter(|_| usable) {
            let leaving =
                held.document.usable().map(|key| Left { key: *key, at: now, last_held_at: held.at });
            self.left.extend(leaving);
            self.left.retain(|old| !next.document.mentions(old.key.kid) && now < old.until(&under));
        } else {
            self.left.clear();
        }
        self.learn(next.document.listed().copied().collect());
        self.held = Some(next);
        true
    }

    /// Takes a 304. `false` when there is nothing that it could confirm.
    pub(super) fn renew(&mut self, promise: Promise, age: Duration, at: Moment, wall: DateTime<Utc>) -> bool {
        let (Some(held), Some(under)) = (&mut self.held, &self.registration) else { return false };
        *held = Held { promise, age, at, wall, document: held.document.clone() };
        self.left.retain(|old| at < old.until(under));
        true
    }

    pub(super) fn deny(&mut self, id: &str) {
        let named = material_of_thumbprint(id).into_iter().collect();
        self.denied.entry(id.to_owned()).or_insert(named);
        let held = self.held.iter().flat_map(|held| held.document.listed().copied());
        self.learn(held.chain(self.left.iter().map(|old| old.key)).collect());
    }

    /// What stands under a denied kid is denied, whatever kid it comes back under.
    fn learn(&mut self, keys: Vec<Published>) {
        for key in keys {
            if let Some(materials) = self.denied.get_mut(&name(key.kid)) {
                materials.insert(key.material);
            }
        }
    }

    /// Kids and thumbprints that somebody might want to deny.
    pub(super) fn deniable(&self) -> Vec<String> {
        let keys = self.held.iter().flat_map(|held| &held.document.keys);
        keys.flat_map(|key| [name(key.kid), thumbprint_of(key.material).to_owned()]).collect()
    }
}

/// The state of one provider now, and those that some reader has waited through.
#[derive(Debug, Default)]
pub(super) struct Book {
    past: Vec<(Arc<State>, Moment)>,
    now: Arc<State>,
    since: Moment,
    /// How many states are past in all.
    passed: usize,
    readers: usize,
}

/// The states of a reader's time, each from and to.
pub(super) type Seen = Vec<(Arc<State>, Moment, Moment)>;

/// Where a reader began.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bookmark(usize, Moment);

impl Book {
    pub(super) fn now(&self) -> &Arc<State> {
        &self.now
    }

    pub(super) fn change<R>(&mut self, at: Moment, change: impl FnOnce(&mut State) -> R) -> R {
        if self.readers == 0 {
            self.past.clear();
        } else {
            self.past.push((self.now.clone(), self.since));
        }
        self.passed += 1;
        self.since = at;
        change(Arc::make_mut(&mut self.now))
    }

    pub(super) fn begin_reading(&mut self, at: Moment) -> Bookmark {
        self.readers += 1;
        Bookmark(self.passed, at)
    }

    pub(super) fn end_reading(&mut self, from: Bookmark, at: Moment) -> Seen {
        self.readers -= 1;
        let skip = self.past.len().saturating_sub(self.passed - from.0);
        let mut states: Vec<(Arc<State>, Moment)> = self.past.iter().skip(skip).cloned().collect();
        states.push((self.now.clone(), self.since));
        let ends: Vec<Moment> = states.iter().skip(1).map(|(_, since)| *since).chain([at]).collect();
        states.into_iter().zip(ends).map(|((state, since), to)| (state, since.max(from.1), to)).collect()
    }
}

/// The other provider whose key this is, if it is not `slot`'s.
pub(super) fn stray(slot: usize, materials: impl IntoIterator<Item = Material>) -> Option<usize> {
    materials.into_iter().map(super::document::owner).find(|owner| *owner != slot)
}

/// A kid as the cache shows it.
pub(super) fn shown(kid: Option<&str>) -> Kid {
    kid.and_then(kid_of).unwrap_or(Kid::MAX)
}
