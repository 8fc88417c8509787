//! What a reader must get of one provider: the contract's sections 3, 4 and 6 said a second time, with none of
//! the library's decisions. Times follow from what was said and from the settings in force; nothing is cached.
//! What chance decides is bounded here, and then taken as it was drawn.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::time::Duration;

use jwks_cache_core::lifecycle::Asker;
use jwks_cache_core::policy::{Policy, RefreshMode};
use jwks_cache_core::published::Standing;
use jwks_cache_core::select::NoKey;
use jwks_cache_core::{Algorithm, Moment};

const SECOND: Duration = Duration::from_secs(1);
const TEN_SECONDS: Duration = Duration::from_secs(10);
const FIVE_MINUTES: Duration = Duration::from_secs(300);
const TEN_MINUTES: Duration = Duration::from_secs(600);

/// An entry of a document: a kid, which material, and what the entry is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    pub kid: Option<&'static str>,
    pub material: u8,
    pub kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    Signs,
    Encrypts,
    /// With its private half: no well-formed key.
    Leaked,
}

/// What a response says of its own lifetime.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Said {
    pub max_age: Option<u64>,
    pub age: u64,
    pub stale_if_error: Option<u64>,
    pub must_revalidate: bool,
    pub no_cache: bool,
    pub etag: bool,
}

/// The last document, and when and how it came.
#[derive(Clone, Debug)]
pub struct Held {
    pub entries: Vec<Entry>,
    pub said: Said,
    pub at: Moment,
    /// How long the exchange took.
    pub transit: Duration,
    /// What is left of its lifetime, for one that a store kept.
    pub stored: Option<Duration>,
    /// Drawn.
    pub refresh_at: Moment,
}

/// A key that left the set.
#[derive(Clone, Copy, Debug)]
pub struct Left {
    pub entry: Entry,
    pub at: Moment,
    pub last_held: Moment,
}

#[derive(Clone, Copy, Debug)]
pub struct Flight {
    pub asker: Asker,
    pub began: Moment,
    /// When the document came that a 304 would confirm.
    pub about: Option<Moment>,
}

/// What asking for a flight gives.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Told {
    Start { attempts: u32, after_failure: bool, cold: bool, conditional: bool },
    Flying,
    NotBefore(Moment),
    Quiet,
}

#[derive(Clone, Debug)]
pub struct Contract {
    pub policy: Policy,
    pub held: Option<Held>,
    pub left: Vec<Left>,
    pub denied: BTreeMap<String, BTreeSet<u8>>,
    pub flight: Option<Flight>,
    pub failures: u32,
    /// Those that lengthen the backoff.
    pub setbacks: u32,
    pub failed_at: Option<Moment>,
    pub backoff_until: Moment,
    pub retry_after_until: Moment,
    pub error_until: Moment,
    pub last_start: Option<Moment>,
    pub last_kid_start: Option<Moment>,
}

impl Contract {
    pub fn new(policy: Policy) -> Self {
        Self {
            policy,
            held: None,
            left: Vec::new(),
            denied: BTreeMap::new(),
            flight: None,
            failures: 0,
            setbacks: 0,
            failed_at: None,
            backoff_until: Moment::ORIGIN,
            retry_after_until: Moment::ORIGIN,
            error_until: Moment::ORIGIN,
            last_start: None,
            last_kid_start: None,
        }
    }

    // Section 3 and 5: how long what is held is good.

    fn lifetime(&self, held: &Held) -> Duration {
        let policy = &self.policy;
        if held.entries.is_empty() {
            return held.stored.unwrap_or(Duration::MAX).min(policy.min_ttl);
        }
        if let Some(stored) = held.stored {
            return stored.min(policy.max_ttl);
        }
        let age = Duration::from_secs(held.said.age) + held.transit;
        let stated = match held.said.max_age {
            _ if held.said.no_cache => Duration::ZERO,
            Some(seconds) => Duration::from_secs(seconds).saturating_sub(age),
            None if policy.http_strict => Duration::ZERO,
            None => policy.default_ttl,
        };
        let floor = if policy.http_strict { Duration::ZERO } else { policy.min_ttl };
        stated.max(floor).min(policy.max_ttl)
    }

    fn stale_window(&self, held: &Held) -> Duration {
        let (policy, said) = (&self.policy, &held.said);
        let forbidden = said.must_revalidate || said.no_cache;
        if held.entries.is_empty() {
            return Duration::ZERO;
        }
        if policy.http_strict && forbidden {
            return Duration::ZERO;
        }
        match said.stale_if_error {
            Some(more) if !forbidden && !policy.stale_while_error.is_zero() => {
                policy.stale_while_error.max(Duration::from_secs(more))
            }
            _ => policy.stale_while_error,
        }
    }

    pub fn trust_age(&self) -> Duration {
        let policy = &self.policy;
        let usual = Duration::from_secs(48 * 3600).max(policy.max_ttl + policy.stale_while_error);
        policy.max_trust_age.unwrap_or(usual)
    }

    pub fn expires_at(&self, held: &Held) -> Moment {
        held.at + self.lifetime(held)
    }

    pub fn servable_until(&self, held: &Held) -> Moment {
        (self.expires_at(held) + self.stale_window(held)).min(held.at + self.trust_age())
    }

    pub fn servable(&self, now: Moment) -> Option<&Held> {
        self.held.as_ref().filter(|held| now < self.servable_until(held))
    }

    /// When a refresh of a fetched document may become due: end − lead − jitter.
    pub fn refresh_range(&self, held: &Held) -> RangeInclusive<Moment> {
        let end = self.expires_at(held).min(held.at + self.trust_age());
        let span = end.since(held.at);
        let latest = end - self.policy.refresh_early.min(span * 2 / 5);
        latest - self.policy.prefetch_jitter.min(span / 10)..=latest
    }

    pub fn standing(&self, now: Moment) -> Standing {
        let Some(held) = self.servable(now) else { return Standing::Unusable };
        let failing = self.failed_at.is_some_and(|at| now < at + TEN_MINUTES) || now < self.backoff_until;
        match () {
            () if now < held.refresh_at => Standing::Fresh,
            () if now < self.expires_at(held) => Standing::RefreshDue,
            () if failing => Standing::Stale,
            () => Standing::Expired,
        }
    }

    // Section 6: which keys there are.

    pub fn usable(&self, of: &[Entry], entry: &Entry) -> bool {
        let contradicts = |other: &Entry| {
            other.kind == Kind::Signs && other.kid == entry.kid && other.material != entry.material
        };
        entry.kind == Kind::Signs
            && self.policy.algorithms.contains(Algorithm::ES256)
            && !(entry.kid.is_some() && of.iter().any(contradicts))
    }

    fn any_usable(&self, of: &[Entry]) -> bool {
        of.iter().any(|entry| self.usable(of, entry))
    }

    /// Whether the document as a whole can be taken.
    pub fn takes(&self, entries: &[Entry]) -> bool {
        let well_formed = entries.is_empty() || entries.iter().any(|entry| entry.kind != Kind::Leaked);
        well_formed && entries.len() <= self.policy.max_keys as usize
    }

    fn denies(&self, entry: &Entry) -> bool {
        entry.kid.is_some_and(|kid| self.denied.contains_key(kid))
            || self.denied.values().any(|materials| materials.contains(&entry.material))
    }

    /// What `resolve` gives: the document's well-formed keys, less the denied.
    pub fn served(&self) -> Vec<Entry> {
        let entries = self.held.iter().flat_map(|held| held.entries.iter().copied());
        entries.filter(|entry| entry.kind != Kind::Leaked && !self.denies(entry)).collect()
    }

    pub fn ready(&self, now: Moment) -> bool {
        let of = self.held.as_ref().map_or(&[][..], |held| &held.entries);
        self.servable(now).is_some() && self.any_usable(of)
    }

    /// The published key that answers for a kid, or without one.
    pub fn key(&self, kid: Option<&str>) -> Result<Entry, NoKey> {
        let of = self.held.as_ref().map_or(&[][..], |held| &held.entries);
        let served = self.served();
        let usable: Vec<_> = served.iter().filter(|entry| self.usable(of, entry)).collect();
        let named: Vec<_> = usable.iter().filter(|entry| kid.is_none() || entry.kid == kid).collect();
        match named.as_slice() {
            [] if usable.is_empty() => Err(NoKey::NoKeys),
            [] if kid.is_some() && !served.iter().any(|entry| entry.kid == kid) => Err(NoKey::UnknownKid),
            [] => Err(NoKey::NoMatch),
            [first, rest @ ..] if rest.iter().all(|entry| entry.material == first.material) => Ok(***first),
            _ => Err(NoKey::Ambiguous),
        }
    }

    pub fn left_until(&self, left: &Left) -> Moment {
        (left.at + self.policy.removal_grace).min(left.last_held + self.trust_age())
    }

    /// Keys that left and are still honoured.
    pub fn retiring(&self, now: Moment) -> Vec<Entry> {
        let alive = |left: &&Left| now < self.left_until(left) && !self.denies(&left.entry);
        self.left.iter().filter(alive).map(|left| left.entry).collect()
    }

    pub fn deny(&mut self, id: &str, material: Option<u8>) {
        self.denied.entry(id.to_owned()).or_insert_with(|| material.into_iter().collect());
        self.learn();
    }

    /// A denied kid takes with it every material seen under it.
    fn learn(&mut self) {
        let held = self.held.iter().flat_map(|held| &held.entries);
        let seen = held.chain(self.left.iter().map(|left| &left.entry));
        for entry in seen.filter(|entry| entry.kind != Kind::Leaked) {
            if let Some(materials) = entry.kid.and_then(|kid| self.denied.get_mut(kid)) {
                materials.insert(entry.material);
            }
        }
    }

    fn adopt(&mut self, next: Held) {
        let mut left = Vec::new();
        if self.any_usable(&next.entries) {
            if let Some(last) = &self.held {
                let of = &last.entries;
                let leaves = of.iter().filter(|entry| self.usable(of, entry));
                left.extend(leaves.map(|entry| Left { entry: *entry, at: next.at, last_held: last.at }));
            }
            left.append(&mut self.left);
            let mentioned = |kid| next.entries.iter().any(|entry| entry.kid == kid);
            left.retain(|old| old.entry.kid.is_some() && !mentioned(old.entry.kid));
            left.retain(|old| next.at < self.left_until(old));
            left.truncate(self.policy.max_keys as usize);
        }
        self.left = left;
        self.held = Some(next);
        self.learn();
    }

    // Section 4: who may start a flight, and what its end changes.

    pub fn ask(&mut self, asker: Asker, now: Moment, timer: Option<Moment>) -> Told {
        if self.flight.is_some() {
            return Told::Flying;
        }
        let cold = self.servable(now).is_none();
        let not_before = match asker {
            Asker::Person => self.last_start.map_or(now, |at| at + SECOND),
            Asker::Reader if self.held.as_ref().is_some_and(|held| now < held.refresh_at) => {
                return Told::Quiet;
            }
            Asker::Reader if cold => self.backoff_until.max(self.error_until),
            Asker::Reader => self.backoff_until,
            Asker::MissingKid => {
                let interval = self.policy.kid_miss_interval;
                self.last_kid_start.map_or(now, |at| at + interval).max(self.backoff_until)
            }
            Asker::Timer { read } => match timer {
                None => return Told::Quiet,
                Some(at) if now >= at && !read && self.policy.refresh_mode != RefreshMode::Always => {
                    return Told::Quiet;
                }
                Some(at) => at.max(self.backoff_until),
            },
        };
        if now < not_before {
            return Told::NotBefore(not_before);
        }
        let confirmable = self.held.as_ref().filter(|held| held.said.etag && held.stored.is_none());
        let about = confirmable.map(|held| held.at);
        self.flight = Some(Flight { asker, began: now, about });
        self.last_start = Some(now);
        if asker == Asker::MissingKid {
            self.last_kid_start = Some(now);
        }
        let after_failure = self.failed_at.is_some();
        let single = after_failure || asker == Asker::MissingKid;
        let attempts = if single { 1 } else { self.policy.retry.max_retries + 1 };
        Told::Start { attempts, after_failure, cold, conditional: about.is_some() }
    }

    /// Whether the document may replace what is held.
    pub fn may_adopt(&self, entries: &[Entry], now: Moment) -> bool {
        let usable_servable = self.servable(now).is_some_and(|held| self.any_usable(&held.entries));
        self.any_usable(entries) || !usable_servable
    }

    pub fn brought(&mut self, entries: Vec<Entry>, said: Said, now: Moment, refresh_at: Moment) {
        let transit = self.flight.take().map_or(Duration::ZERO, |flight| now.since(flight.began));
        self.adopt(Held { entries, said, at: now, transit, stored: None, refresh_at });
        self.succeeded();
    }

    /// Whether what is held began later than the flight, as a set from a store may.
    pub fn holds_later(&self) -> bool {
        let began = self.flight.map(|flight| flight.began);
        self.held.as_ref().zip(began).is_some_and(|(held, began)| held.at - held.transit > began)
    }

    /// A document came that had begun before what is held.
    pub fn superseded(&mut self) {
        self.flight = None;
        self.succeeded();
    }

    /// A 304 confirms the document that the flight asked about, and no other.
    pub fn confirms(&self) -> bool {
        let about = self.flight.and_then(|flight| flight.about);
        about.is_some() && about == self.held.as_ref().map(|held| held.at)
    }

    pub fn confirmed(&mut self, said: Option<Said>, age: u64, now: Moment, refresh_at: Moment) {
        let transit = self.flight.take().map_or(Duration::ZERO, |flight| now.since(flight.began));
        if let Some(held) = &mut self.held {
            let etag = held.said.etag;
            let directives = said.unwrap_or_else(|| held.said.clone());
            held.said = Said { age, etag, ..directives };
            (held.at, held.transit, held.refresh_at) = (now, transit, refresh_at);
        }
        let kept: Vec<Left> = self.left.iter().filter(|left| now < self.left_until(left)).copied().collect();
        self.left = kept;
        self.succeeded();
    }

    fn succeeded(&mut self) {
        (self.failures, self.setbacks, self.failed_at) = (0, 0, None);
        self.backoff_until = Moment::ORIGIN;
        (self.retry_after_until, self.error_until) = (Moment::ORIGIN, Moment::ORIGIN);
    }

    /// A flight failed; gives the least and the latest end of the wait that follows, to draw from.
    pub fn failed(&mut self, retry_after: Option<Duration>, now: Moment) -> RangeInclusive<Moment> {
        let asker = self.flight.take().map(|flight| flight.asker);
        self.failures += 1;
        self.failed_at = Some(now);
        let end = self.servable(now).map(|held| self.servable_until(held));
        if end.is_none() && !self.policy.negative_cache_ttl.is_zero() {
            self.error_until = now + self.policy.negative_cache_ttl;
        }
        if let Some(wait) = retry_after {
            self.retry_after_until = self.retry_after_until.max(now + wait.min(FIVE_MINUTES));
        }
        let least = self.retry_after_until;
        if asker == Some(Asker::Person) {
            let until = self.backoff_until.max(least);
            return until..=until;
        }
        self.setbacks += 1;
        let b = (0..self.setbacks.min(40)).fold(self.policy.retry.initial_backoff, |b, _| b * 2);
        let (b, latest) = match end {
            Some(end) => (b.min(FIVE_MINUTES), end + TEN_SECONDS),
            None if self.setbacks == 1 => (Duration::ZERO, now),
            None => (b.min(TEN_SECONDS), Moment::FAR),
        };
        (now + b / 2).min(latest).max(least)..=(now + b).min(latest).max(least)
    }

    // Registering again, and snapshots.

    pub fn reconfigure(&mut self, policy: Policy, now: Moment) {
        self.flight = None;
        self.policy = policy;
        // A key with its private half is not written down, so it is not there to be judged again.
        if let Some(held) = &mut self.held {
            held.entries.retain(|entry| entry.kind != Kind::Leaked);
        }
        self.gain_nothing();
        if self.held.as_ref().is_some_and(|held| !self.takes(&held.entries)) {
            (self.held, self.left) = (None, Vec::new());
        }
        let allowed = self.policy.algorithms.contains(Algorithm::ES256);
        self.left.retain(|_| allowed);
        self.left.truncate(self.policy.max_keys as usize);
        let end = self.servable(now).map_or(now, |held| self.servable_until(held));
        self.backoff_until = self.backoff_until.min(end + TEN_SECONDS).max(self.retry_after_until);
    }

    pub fn forget(&mut self, policy: Policy) {
        let denied = std::mem::take(&mut self.denied);
        *self = Self { denied, ..Self::new(policy) };
    }

    /// Whether a snapshot is newer than what is held and may still be served.
    pub fn restore(&mut self, snapshot: Held, now: Moment) -> bool {
        let newer_held = self.held.as_ref().is_some_and(|held| held.at >= snapshot.at);
        if newer_held || now >= self.servable_until(&snapshot) {
            return false;
        }
        self.adopt(snapshot);
        self.gain_nothing();
        true
    }

    /// What a store kept never lives longer than it was once granted.
    fn gain_nothing(&mut self) {
        let granted = self.held.as_ref().map(|held| self.lifetime(held));
        if let Some(held) = self.held.as_mut().filter(|held| held.stored.is_some()) {
            held.stored = granted;
        }
    }
}
