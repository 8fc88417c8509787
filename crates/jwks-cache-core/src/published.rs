//! What readers hold: a key set with its times, and what may be done with it now. Immutable once
//! published; this room does not know how a set is fetched or when the next flight starts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use jsonwebtoken::jwk::JwkSet;

use crate::freshness::{Stated, StoredHeaders};
use crate::key::{Key, SharedKey, Thumbprint};
use crate::keyset::KeySet;
use crate::time::Moment;

/// A failure this recent means that stale keys are served without waiting.
const FAILED_RECENTLY: Duration = Duration::from_secs(10 * 60);

/// How many materials one denial remembers.
const DENIED_MATERIALS: usize = 1024;

/// What a reader may do with what is held now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Fresh, and no refresh is due: answer.
    Fresh,
    /// Fresh, and a refresh is due: answer, and have one started.
    RefreshDue,
    /// Expired inside the stale window while the provider is known to fail: answer, and have a flight started.
    Stale,
    /// Expired inside the stale window: wait for a flight, shortly, then answer.
    Expired,
    /// Nothing may be served: wait for a flight.
    Unusable,
}

/// Which source a key set is of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Serving {
    /// The registered one.
    #[default]
    Primary,
    /// The fallback of this place in their order, from 0.
    Fallback(u16),
}

/// A key set with the times it was granted.
#[derive(Debug)]
pub struct Held {
    /// The judged set.
    pub set: Arc<KeySet>,
    /// Where it is from.
    pub serving: Serving,
    /// The header fields that granted the lifetime; a 304 merges into them.
    pub headers: StoredHeaders,
    /// Where the lifetime came from.
    pub stated: Stated,
    /// When the exchange that brought the last document began: its time in transit is part of its age.
    pub requested_at: Moment,
    /// When the last document (200 or 304) arrived; trust counts from here.
    pub received_at: Moment,
    /// The same on the wall.
    pub received_wall: DateTime<Utc>,
    /// Fresh until.
    pub expires_at: Moment,
    /// A refresh is due from.
    pub refresh_at: Moment,
    /// Servable until: the end of the stale window or of trust, whichever is earlier.
    pub servable_until: Moment,
    /// Whether the validators came from an exchange of our own, or from a snapshot that only we can have written, and
    /// may be sent.
    pub validators_trusted: bool,
    /// Whether it came from a snapshot: no header states its lifetime.
    pub restored: bool,
    /// Keys that left the document but are still within their grace.
    pub retiring: Vec<Retiring>,
}

impl Held {
    /// Fresh until this: the earlier of expiry and the end of trust.
    #[must_use]
    pub fn fresh_until(&self) -> Moment {
        self.expires_at.min(self.servable_until)
    }

    /// Whether anything may be served of it.
    #[must_use]
    pub fn is_servable(&self, now: Moment) -> bool {
        now < self.servable_until
    }
}

/// A key that left the published set and is still honoured (confirmed removal).
#[derive(Clone, Debug)]
pub struct Retiring {
    /// The key.
    pub key: SharedKey,
    /// When a document came without it.
    pub left_at: Moment,
    /// When a document last held it.
    pub last_held_at: Moment,
    /// Honoured until.
    pub until: Moment,
}

/// Keys that an operator has switched off, by kid or thumbprint.
#[derive(Clone, Debug, Default)]
pub struct Denials(BTreeMap<String, BTreeSet<Thumbprint>>);

impl Denials {
    /// Denies a kid, or a key by its thumbprint, until allowed again. `true` if that is new.
    pub fn deny(&mut self, id: &str) -> bool {
        let named = id.parse::<Thumbprint>().ok().into_iter().collect();
        match self.0.entry(id.to_owned()) {
            std::collections::btree_map::Entry::Occupied(_) => false,
            std::collections::btree_map::Entry::Vacant(entry) => {
                entry.insert(named);
                true
            }
        }
    }

    /// Lifts a denial. `true` if there was one.
    pub fn allow(&mut self, id: &str) -> bool {
        self.0.remove(id).is_some()
    }

    /// The materials remembered under a denied id.
    pub fn materials(&self, id: &str) -> impl Iterator<Item = &Thumbprint> + use<'_> {
        self.0.get(id).into_iter().flatten()
    }

    /// Remembers materials of a denied id that others have seen under it.
    pub fn remember(&mut self, id: &str, materials: impl IntoIterator<Item = Thumbprint>) {
        if let Some(known) = self.0.get_mut(id) {
            let room = DENIED_MATERIALS.saturating_sub(known.len());
            known.extend(materials.into_iter().take(room));
        }
    }

    /// The denied kids and thumbprints, as they were given.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Whether nothing is denied.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `kid` itself is denied.
    #[must_use]
    pub fn denies_kid(&self, kid: &str) -> bool {
        self.0.contains_key(kid)
    }

    /// Whether `key` is denied: by its kid, or because its material stood under a denied kid.
    #[must_use]
    pub fn denies(&self, key: &Key) -> bool {
        key.kid().is_some_and(|kid| self.denies_kid(kid)) || self.denies_material(&key.thumbprint())
    }

    /// Whether this material stood under a denied kid, or is denied by its thumbprint.
    #[must_use]
    pub fn denies_material(&self, material: &Thumbprint) -> bool {
        self.0.values().any(|materials| materials.contains(material))
    }

    /// Remembers the material that stands under denied kids, so that another kid does not revive it.
    pub fn learn<'a>(&mut self, keys: impl IntoIterator<Item = &'a Key>) {
        if self.is_empty() {
            return;
        }
        for key in keys {
            let Some(materials) = key.kid().and_then(|kid| self.0.get_mut(kid)) else { continue };
            if materials.len() < DENIED_MATERIALS {
                materials.insert(key.thumbprint());
            }
        }
    }
}

/// All that a lookup needs, in one immutable value.
#[derive(Debug, Default)]
#[repr(C)] // what a lookup of fresh keys reads stands together, at the front
pub struct Published {
    /// A refresh is due from; the origin of time when nothing is held.
    pub refresh_at: Moment,
    /// The published set without denied keys; an empty one when nothing is held. By value, though cloning it shares it: a
    /// reader follows one pointer less.
    pub served: KeySet,
    /// The held set, if any.
    pub held: Option<Arc<Held>>,
    /// The retiring keys without denied ones.
    pub retiring: Vec<Retiring>,
    /// What is denied.
    pub denials: Arc<Denials>,
    /// When the last flight failed, if the last one did.
    pub failed_at: Option<Moment>,
    /// No flight starts by itself before this.
    pub backoff_until: Moment,
}

impl Published {
    /// Puts together what readers get of `held`, less what is denied.
    #[must_use]
    pub fn new(
        held: Option<Arc<Held>>,
        denials: Arc<Denials>,
        failed_at: Option<Moment>,
        backoff_until: Moment,
    ) -> Self {
        let Some(of) = &held else {
            return Self { denials, failed_at, backoff_until, ..Self::default() };
        };
        let kept = |retiring: &&Retiring| !denials.denies(&retiring.key);
        let served = if denials.is_empty() {
            KeySet::clone(&of.set)
        } else {
            of.set.without(|key| denials.denies(key))
        };
        let retiring = of.retiring.iter().filter(kept).cloned().collect();
        let refresh_at = of.refresh_at;
        Self { refresh_at, served, held, retiring, denials, failed_at, backoff_until }
    }

    /// The well-formed keys without denied ones, in the document's order.
    #[must_use]
    pub fn keys(&self) -> &[Key] {
        self.served.keys()
    }

    /// The published set without denied keys; empty when nothing is held.
    #[must_use]
    pub fn jwks(&self) -> &Arc<JwkSet> {
        self.served.jwks()
    }

    /// Whether `kid` is denied, or names a held key that is denied by its material.
    #[must_use]
    pub fn denies_kid(&self, kid: &str) -> bool {
        if self.denials.is_empty() {
            return false;
        }
        let named = |key: &Key| key.kid() == Some(kid) && self.denials.denies(key);
        self.denials.denies_kid(kid)
            || self.held.as_ref().is_some_and(|held| {
                held.set.keys().iter().any(named) || held.retiring.iter().any(|old| named(&old.key))
            })
    }

    /// What a reader may do now.
    #[must_use]
    pub fn standing(&self, now: Moment) -> Standing {
        // The common case reads nothing beyond this value.
        if now < self.refresh_at {
            return Standing::Fresh;
        }
        let Some(held) = &self.held else { return Standing::Unusable };
        if now < held.fresh_until() {
            Standing::RefreshDue
        } else if !held.is_servable(now) {
            Standing::Unusable
        } else if now < self.backoff_until || self.failed_at.is_some_and(|at| now.since(at) < FAILED_RECENTLY)
        {
            Standing::Stale
        } else {
            Standing::Expired
        }
    }

    /// Whether a usable key is servable now, denied or not: what was had of the provider is there. A denial is an operator's
    /// will and no fault, and who may deny keys of one provider must not make a server unready for all.
    #[must_use]
    pub fn has_usable_keys(&self, now: Moment) -> bool {
        let usable = |held: &Arc<Held>| held.set.keys().iter().any(|key| key.set_aside().is_none());
        self.held.as_ref().is_some_and(|held| held.is_servable(now) && usable(held))
    }
}

/// Key sets for the tests of this room and the next.
#[cfg(test)]
pub(crate) mod rehearsal {
    use std::sync::Arc;

    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use serde_json::{Value, json};

    use crate::keyset::{KeyRules, KeySet};

    fn jwk(kid: &str, seed: u8) -> Value {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
        let x = URL_SAFE_NO_PAD.encode(pair.public_key().as_ref());
        json!({"kty": "OKP", "crv": "Ed25519", "use": "sig", "kid": kid, "x": x})
    }

    fn judge(keys: Vec<Value>) -> Arc<KeySet> {
        let text = json!({ "keys": keys }).to_string();
        Arc::new(KeySet::judge(text.as_bytes(), &KeyRules::default()).unwrap())
    }

    /// A set of usable keys, each a kid and the seed of its material.
    pub(crate) fn doc(keys: &[(&str, u8)]) -> Arc<KeySet> {
        judge(keys.iter().map(|(kid, seed)| jwk(kid, *seed)).collect())
    }

    /// The same, with one more that is not usable: `private b` comes with its private half, any other
    /// kid is for encryption. The rest is too when that kid is `revoked`.
    pub(crate) fn leaked(keys: &[(&str, u8)], last: &str) -> Arc<KeySet> {
        let mut keys: Vec<_> = keys.iter().map(|(kid, seed)| jwk(kid, *seed)).collect();
        if last == "revoked" {
            keys.iter_mut().for_each(|key| key["use"] = "enc".into());
        }
        let private = last.strip_prefix("private ");
        let mut key = jwk(private.unwrap_or(last), 2);
        match private {
            Some(_) => key["d"] = URL_SAFE_NO_PAD.encode([7; 32]).into(),
            None => key["use"] = "enc".into(),
        }
        keys.push(key);
        judge(keys)
    }
}

#[cfg(test)]
mod tests {
    use super::rehearsal::doc;
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment::from_nanos(seconds * 1_000_000_000)
    }

    /// Held from 10,000 s: due at 10,270, expired at 10,300, servable until `servable_until`.
    fn published(servable_until: u64, failed_at: Option<u64>, backoff_until: u64) -> Published {
        let held = Held {
            set: doc(&[("a", 1), ("b", 2)]),
            serving: Serving::Primary,
            headers: StoredHeaders::default(),
            stated: Stated::Nothing,
            requested_at: at(10_000),
            received_at: at(10_000),
            received_wall: DateTime::default(),
            expires_at: at(10_300),
            refresh_at: at(10_270),
            servable_until: at(servable_until),
            validators_trusted: true,
            restored: false,
            retiring: vec![Retiring {
                key: doc(&[("old", 3)]).shared().next().unwrap(),
                left_at: at(10_000),
                last_held_at: at(9_000),
                until: at(10_600),
            }],
        };
        Published::new(Some(Arc::new(held)), Arc::default(), failed_at.map(at), at(backoff_until))
    }

    #[test]
    fn a_reader_may_do_what_the_table_of_standings_says() {
        use Standing::{Expired, Fresh, RefreshDue, Stale, Unusable};
        let until = 20_000;
        // servable until, failed at, backoff until, now, standing
        let table = [
            (until, None, 0, 10_000, Fresh),
            (until, None, 0, 10_269, Fresh),
            (until, Some(10_100), 10_400, 10_269, Fresh),
            (until, None, 0, 10_270, RefreshDue),
            (until, Some(10_280), 10_400, 10_299, RefreshDue),
            (until, None, 0, 10_300, Expired),
            (until, Some(9_700), 0, 10_300, Expired), // ten minutes ago is long ago
            (until, Some(9_701), 0, 10_300, Stale),   // before the expiry
            (until, Some(10_500), 0, 10_600, Stale),  // since
            (until, Some(10_500), 0, 11_099, Stale),
            (until, Some(10_500), 0, 11_100, Expired),
            (until, Some(10_500), 11_200, 11_100, Stale), // backoff runs
            (until, None, 0, 19_999, Expired),
            (until, Some(19_990), 21_000, 20_000, Unusable),
            (10_300, None, 0, 10_299, RefreshDue), // no stale window
            (10_300, Some(10_299), 10_400, 10_300, Unusable),
            (10_280, None, 0, 10_279, RefreshDue), // trust ends before expiry
            (10_280, None, 0, 10_280, Unusable),
        ];
        for (until, failed, backoff, now, want) in table {
            let got = published(until, failed, backoff).standing(at(now));
            assert_eq!(got, want, "at {now}, servable until {until}, failed {failed:?}, backoff {backoff}");
        }
        assert_eq!(Published::default().standing(Moment::ORIGIN), Unusable);
    }

    #[test]
    fn readiness_needs_a_servable_usable_key_whatever_is_denied() {
        let mut denials = Denials::default();
        let with = |denials: &Denials| {
            let held = published(10_400, None, 0).held;
            Published::new(held, Arc::new(denials.clone()), None, Moment::ORIGIN)
        };
        assert!(with(&denials).has_usable_keys(at(10_399)) && !with(&denials).has_usable_keys(at(10_400)));
        denials.deny("a");
        denials.deny("b");
        assert!(with(&denials).keys().is_empty() && with(&denials).has_usable_keys(at(10_000)));
    }

    #[test]
    fn a_denied_key_is_in_no_view_whether_named_by_kid_or_thumbprint() {
        let all = published(10_400, None, 0);
        let thumbprint = all.keys()[1].thumbprint().to_string();
        for (id, kid, keys, retiring) in
            [("a", "a", 1, 1), (thumbprint.as_str(), "b", 1, 1), ("old", "old", 2, 0)]
        {
            let mut denials = Denials::default();
            assert!(denials.deny(id) && !denials.deny(id));
            let less = Published::new(all.held.clone(), Arc::new(denials), None, Moment::ORIGIN);
            let counts = (less.keys().len(), less.jwks().keys.len(), less.retiring.len());
            assert_eq!(counts, (keys, keys, retiring), "{id}");
            assert!(less.denies_kid(kid) && !less.denies_kid("other"), "{id}");
        }
        assert_eq!(all.denials.ids().count(), 0);
    }

    #[test]
    fn a_denial_remembers_a_bounded_number_of_materials() {
        let mut denials = Denials::default();
        denials.deny("a");
        for seed in 1..=200 {
            denials.learn(doc(&[("a", seed)]).keys());
        }
        assert!(denials.0.values().all(|materials| materials.len() <= DENIED_MATERIALS));
        assert!(denials.denies(&doc(&[("other", 77)]).keys()[0]));
    }

    #[test]
    fn from_the_end_of_the_backoff_on_a_flight_may_be_waited_for() {
        let published = published(11_000, None, 10_400);
        assert_eq!(published.standing(at(10_399)), Standing::Stale);
        assert_eq!(published.standing(at(10_400)), Standing::Expired);
    }

    #[test]
    fn a_denial_names_its_ids_and_the_material_seen_under_them_within_bounds() {
        let mut denials = Denials::default();
        denials.deny("a");
        for seed in 1..=10 {
            denials.learn(doc(&[("a", seed), ("b", 11)]).keys());
        }
        assert_eq!(denials.ids().collect::<Vec<_>>(), ["a"]);
        assert_eq!(denials.materials("a").count(), 10);
        let thumbprint = |n: usize| {
            let mut digest = [0; 32];
            digest[..8].copy_from_slice(&n.to_le_bytes());
            Thumbprint::from_bytes(digest)
        };
        denials.remember("a", (0..DENIED_MATERIALS).map(thumbprint));
        assert_eq!(denials.materials("a").count(), DENIED_MATERIALS);
        denials.learn(doc(&[("a", 12)]).keys());
        assert_eq!(denials.materials("a").count(), DENIED_MATERIALS, "it is full");
    }
}
