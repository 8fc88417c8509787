//! What a reader may and must get of one provider: the invariants on keys (I1, I2, I3, I5, I6), told
//! from what the world's fetches delivered. It shares no code with the cache.
//!
//! A [`State`] never changes; whoever waits across changes may get what any state of that time allows,
//! and must get what all of them demand.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use jwks_cache::{Algorithm, IdentityProviderRegistration, KeyError, Moment};

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
    /// What was held and left until settings came that allow fewer keys than it lists.
    dropped: Option<(Held, Vec<Left>)>,
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
        let strict = under.http_strict;
        let (lifetime, window) = if self.document.keys.is_empty() {
            (under.min_ttl, Duration::ZERO)
        } else {
            let said = match self.promise.max_age {
                _ if self.promise.no_store => Duration::ZERO,
                Some(Ok(seconds)) => Duration::from_secs(seconds.min(1 << 31)).saturating_sub(self.age),
                Some(Err(_)) => Duration::ZERO,
                None if strict => Duration::ZERO,
                None => under.default_ttl,
            };
            let floor = if strict { Duration::ZERO } else { under.min_ttl };
            let forbidden = self.promise.must_revalidate || self.promise.no_store;
            let window = match self.promise.stale_if_error {
                _ if forbidden && strict => Duration::ZERO,
                Some(seconds) if !forbidden && !under.stale_while_error.is_zero() => {
                    under.stale_while_error.max(Duration::from_secs(seconds))
                }
                _ => under.stale_while_error,
            };
            (said.max(floor).min(under.max_ttl), window)
        };
        let trust_until = self.at + trust_age(under);
        let expires_at = self.at + lifetime;
        Times {
            fresh_until: expires_at.min(trust_until),
            servable_until: (expires_at + window).min(trust_until),
        }
    }
}

fn most_keys(under: &IdentityProviderRegistration) -> usize {
    usize::try_from(under.max_keys).unwrap_or(usize::MAX)
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

impl State {
    pub(super) fn times(&self) -> Option<Times> {
        Some(self.held.as_ref()?.times(self.registration.as_ref()?))
    }

    pub(super) fn is_servable(&self, now: Moment) -> bool {
        self.times().is_some_and(|times| now < times.servable_until)
    }

    /// What is held came after `since` and was granted no time at all.
    pub(super) fn was_brought_for_nothing_else(&self, since: Moment) -> bool {
        let none = |held: &Held| self.times().is_some_and(|times| times.servable_until <= held.at);
        self.held.as_ref().is_some_and(|held| since <= held.at && none(held))
    }

    pub(super) fn is_fresh(&self, now: Moment) -> bool {
        self.times().is_some_and(|times| now < times.fresh_until)
    }

    fn denies(&self, key: &Published) -> bool {
        self.denied.contains_key(&name(key.kid))
            || self.denied.values().any(|materials| materials.contains(&key.material))
    }

    /// The keys of a document that verify what they may: all of the world's are for EdDSA.
    fn usable_in<'d>(&self, document: &'d Document) -> impl Iterator<Item = &'d Published> + use<'d> {
        let may = self
            .registration
            .as_ref()
            .is_some_and(|under| under.algorithms.is_empty() || under.algorithms.contains(&Algorithm::EdDSA));
        document.usable().filter(move |_| may)
    }

    fn published(&self) -> impl Iterator<Item = &Published> {
        self.held.iter().flat_map(|held| self.usable_in(&held.document)).filter(|key| !self.denies(key))
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

    /// What a kid stands for now, and otherwise why it stands for nothing; with none, the only key there is.
    pub(super) fn key(&self, kid: Option<Kid>, now: Moment) -> Result<Material, KeyError> {
        let (Some(held), Some(under)) = (&self.held, &self.registration) else {
            return Err(KeyError::NoKeys);
        };
        let none_was_published = self.usable_in(&held.document).next().is_none();
        let Some(kid) = kid else {
            let usable = self.usable();
            return match usable.first() {
                Some(one) if usable.len() == 1 => Ok(*one),
                Some(_) => Err(KeyError::Ambiguous),
                None if none_was_published => Err(KeyError::NoKeys),
                None => Err(KeyError::Denied),
            };
        };
        if let Some(key) = self.published().find(|key| key.kid == kid) {
            return Ok(key.material);
        }
        let named = |key: &&Published| key.kid == kid;
        let mut known = held.document.listed().chain(self.left.iter().map(|old| &old.key)).filter(named);
        if self.denied.contains_key(&name(kid)) || known.any(|key| self.denies(key)) {
            return Err(KeyError::Denied);
        }
        let listed = held.document.listed().any(|key| key.kid == kid);
        let honoured = |old: &&Left| !listed && old.key.kid == kid && now < old.until(under);
        match self.left.iter().find(honoured) {
            Some(old) => Ok(old.key.material),
            None if none_was_published => Err(KeyError::NoKeys),
            None if listed => Err(KeyError::NoMatch),
            None => Err(KeyError::UnknownKid),
        }
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

    /// Takes a 200. `false` when it must be refused: it has too many keys, or would replace usable ones by none.
    pub(super) fn adopt(&mut self, next: Held) -> bool {
        let Some(under) = self.registration.clone() else { return false };
        let any_usable = |held: &Held| self.usable_in(&held.document).next().is_some();
        let usable = any_usable(&next);
        let lost = !usable && self.held.as_ref().is_some_and(any_usable);
        if next.document.keys.len() > most_keys(&under) || lost && self.is_servable(next.at) {
            return false;
        }
        let now = next.at;
        let left = std::mem::take(&mut self.left);
        if let Some(held) = self.held.take().filter(|_| usable) {
            let leaving =
                self.usable_in(&held.document).map(|key| Left { key: *key, at: now, last_held_at: held.at });
            // Those that left last stay, if they are too many.
            let honoured = leaving
                .chain(left)
                .filter(|old| !next.document.mentions(old.key.kid) && now < old.until(&under));
            self.left = honoured.take(most_keys(&under)).collect();
        }
        self.learn(next.document.listed().copied().collect());
        (self.held, self.dropped) = (Some(next), None);
        true
    }

    /// Goes on under another registration; `keeps`: it trusts the source no less.
    pub(super) fn register(&mut self, under: Arc<IdentityProviderRegistration>, keeps: bool) {
        let most = most_keys(&under);
        if !keeps {
            (self.held, self.dropped) = (None, None);
            self.left.clear();
        } else if let Some(held) = self.held.take_if(|held| held.document.listed().count() > most) {
            self.dropped = Some((held, std::mem::take(&mut self.left)));
        }
        if self.registration.is_none() {
            self.denied.clear();
        }
        self.registration = Some(under);
        let left = std::mem::take(&mut self.left);
        self.left = self.honoured(left, most);
    }

    /// Of keys that left, those that may still verify, and no more than may be.
    fn honoured(&self, left: Vec<Left>, most: usize) -> Vec<Left> {
        let verifies = |old: &Left| {
            let alone = Document { keys: vec![old.key], ..Document::default() };
            self.usable_in(&alone).next().is_some()
        };
        left.into_iter().filter(verifies).take(most).collect()
    }

    /// What a process that starts now may have from a store: also what had too many keys here, for settings of before.
    pub(super) fn as_stored(&self) -> Self {
        let mut stored = self.clone();
        let (None, Some((held, left)), Some(under)) = (&self.held, &self.dropped, &self.registration) else {
            return stored;
        };
        let most = most_keys(under);
        if held.document.listed().count() <= most {
            let left = self.honoured(left.clone(), most);
            stored.learn(held.document.listed().copied().chain(left.iter().map(|old| old.key)).collect());
            (stored.held, stored.left) = (Some(held.clone()), left);
        }
        stored
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

    /// Whether somebody waits for an answer.
    pub(super) fn is_read(&self) -> bool {
        self.readers > 0
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
