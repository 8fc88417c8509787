//! What is stored beside a key set: where it came from, in which order, which keys retire, what is denied, and a
//! code that only who holds the secret can write. This room knows neither stores nor clocks.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::freshness::StaleUse;
use crate::key::{SharedKey, Thumbprint};
use crate::keyset::{KeyRules, KeySet};
use crate::published::Held;

/// The version of the stored form. A snapshot that states another is refused.
pub const FORMAT: u32 = 1;

/// The fewest bytes of a secret: as many as the code has (RFC 2104 §3).
pub const LEAST_SECRET_BYTES: usize = 32;

/// The most bytes that the ids of one log take, as JSON; what stood under them may take as many again.
const MOST_OF_IDS: usize = 1 << 20;

/// What a word takes beside its id, as JSON; and a material.
const WORD: usize = 96;
const MATERIAL: usize = 48;

/// No clock says more than this, and from here there is room for more words than anybody will say.
const LATEST: u64 = 1 << 62;

/// How many lifted denials are remembered, so that an older record does not bring one back.
const LIFTED_KEPT: usize = 256;

/// What stands around the promised names of a snapshot. Each part may be missing: a snapshot of the promised
/// names alone is one too.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Envelope {
    /// [`FORMAT`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<u32>,
    /// The digest of the source (kind, place, format, issuer): a place may hold secrets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// When the exchange that brought it began, in microseconds since 1970: the order of fetches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<u64>,
    /// A digest of who was believed to be the source, and where it could be: pins, roots, domains, addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust: Option<String>,
    /// How it may be used stale: the headers that say so are not stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stale_use: Option<StaleUse>,
    /// What its issuer's metadata said that keys without `alg` may verify; none where nothing restricts them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub without_alg: Option<Vec<String>>,
    /// The keys that left the document and are still honoured.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub retiring: Vec<StoredRetiring>,
    /// What was denied, and allowed again.
    #[serde(default, skip_serializing_if = "DenialLog::is_empty")]
    pub denials: DenialLog,
    /// The code of [`KeyRing::sign`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
}

/// A retiring key as it is stored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StoredRetiring {
    /// The key as it was published, JSON text.
    pub jwk: String,
    /// When a document came without it.
    pub left_at: DateTime<Utc>,
    /// When a document last held it.
    pub last_held_at: DateTime<Utc>,
}

impl StoredRetiring {
    /// The retiring keys of what is held.
    #[must_use]
    pub fn of(held: &Held) -> Vec<Self> {
        let wall = |moment| {
            let before = held.received_at.since(moment);
            chrono::TimeDelta::from_std(before)
                .ok()
                .and_then(|ago| held.received_wall.checked_sub_signed(ago))
        };
        let store = |old: &crate::published::Retiring| {
            let (left_at, last_held_at) = (wall(old.left_at)?, wall(old.last_held_at)?);
            Some(Self { jwk: old.key.text().to_owned(), left_at, last_held_at })
        };
        held.retiring.iter().filter_map(store).collect()
    }

    /// The key, judged by the rules in force; none when it is not usable under them.
    #[must_use]
    pub fn judge(&self, rules: &KeyRules) -> Option<SharedKey> {
        let set = KeySet::judge(format!(r#"{{"keys":[{}]}}"#, self.jwk).as_bytes(), rules).ok()?;
        let only = set.ledger().len() == 1;
        set.shared().find(|key| key.is_usable()).filter(|_| only)
    }
}

/// Denials with their times, by the kid or thumbprint that was given. Logs that were kept apart merge: of each id
/// the last word counts, and of two at once the denial.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DenialLog(BTreeMap<String, Word>);

/// The last word about an id.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Word {
    /// When, in microseconds since 1970.
    pub at: u64,
    /// Denied, or allowed again.
    pub denied: bool,
    /// Of a lift: when the denial was said that it lifted. 0 of a denial.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub over: u64,
    /// The thumbprints of the keys that stood under it.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub materials: BTreeSet<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Word {
    /// Whether it counts, and not `other` about the same id. A lift lifts the very denial that it was said about,
    /// whatever the clocks say; others only if it was said after them, and not in the future: that would undo
    /// denials that are said until then.
    fn outranks(&self, other: &Self, newest: u64) -> bool {
        let lifts =
            |lift: &Self, denial: &Self| lift.over == denial.at || (denial.at < lift.at && lift.at <= newest);
        match (self.denied, other.denied) {
            (true, false) => !lifts(other, self),
            (false, true) => lifts(self, other),
            _ => self.at > other.at,
        }
    }

    /// The thumbprints that are some.
    pub fn thumbprints(&self) -> impl Iterator<Item = Thumbprint> {
        self.materials.iter().filter_map(|text| text.parse().ok())
    }
}

impl DenialLog {
    /// Whether nothing was ever said.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// When the last word was said; the order of logs.
    #[must_use]
    pub fn order(&self) -> u64 {
        self.0.values().map(|word| word.at).max().unwrap_or(0)
    }

    /// Notes a denial, or that it was lifted. It is the last word even where the clock went back.
    pub fn note(&mut self, id: &str, denied: bool, now: u64) {
        let last = self.0.get(id);
        let at = last.map_or(now, |last| now.max(last.at.saturating_add(1)));
        let over = last.map_or(0, |last| if last.denied { last.at } else { last.over });
        let over = if denied { 0 } else { over };
        self.0.insert(id.to_owned(), Word { at, denied, over, materials: BTreeSet::new() });
        self.forget_long_lifted();
    }

    /// The most bytes that a log takes, as JSON.
    pub const MOST_BYTES: u64 = 2 * MOST_OF_IDS as u64;

    /// Whether there is room for a word about `id`.
    #[must_use]
    pub fn has_room(&self, id: &str) -> bool {
        self.0.contains_key(id) || self.room() >= of_word(id)
    }

    fn room(&self) -> usize {
        MOST_OF_IDS.saturating_sub(self.0.keys().map(|id| of_word(id)).sum())
    }

    /// The same log with what stands under each denied id, as far as there is room.
    #[must_use]
    pub fn with_materials<'a, M>(&self, materials: impl Fn(&str) -> M) -> Self
    where
        M: Iterator<Item = &'a Thumbprint>,
    {
        let mut room = MOST_OF_IDS / MATERIAL;
        let word = |(id, word): (&String, &Word)| {
            let mut word = word.clone();
            if word.denied {
                word.materials.extend(materials(id).take(room).map(ToString::to_string));
                room = room.saturating_sub(word.materials.len());
            }
            (id.clone(), word)
        };
        Self(self.0.iter().map(word).collect())
    }

    /// Leaves out what was allowed again.
    #[must_use]
    pub fn denials_only(mut self) -> Self {
        self.0.retain(|_, word| word.denied);
        self
    }

    /// Takes the words of `other` that count instead of ours, as far as there is room, and returns them. Returned are
    /// also denials of what is denied here, for the materials that were seen under them: whichever was said last,
    /// those are denied. A lift later than `newest` counts for the denial that it lifted and for nothing else.
    pub fn merge(&mut self, other: Self, newest: u64) -> Vec<(String, Word)> {
        let mut taken = Vec::new();
        let mut room = self.room();
        for (id, mut word) in other.0 {
            // The times stay as they are said: whose clock is behind must not make a denial older than it is.
            if word.at.max(word.over) > LATEST {
                (word.at, word.over) = (newest, 0);
            }
            match self.0.get(&id) {
                Some(ours) if word.outranks(ours, newest) => {}
                Some(ours) => {
                    if ours.denied && word.denied && !word.materials.is_empty() {
                        taken.push((id, word));
                    }
                    continue;
                }
                None if !word.denied && word.at > newest => continue,
                None => {
                    let Some(left) = room.checked_sub(of_word(&id)) else { continue };
                    room = left;
                }
            }
            if !word.denied && word.at > newest {
                word.at = word.over.saturating_add(1);
            }
            self.0.insert(id.clone(), Word { materials: BTreeSet::new(), ..word.clone() });
            taken.push((id, word));
        }
        self.forget_long_lifted();
        taken
    }

    fn forget_long_lifted(&mut self) {
        let mut lifted: Vec<u64> = self.0.values().filter(|word| !word.denied).map(|word| word.at).collect();
        if lifted.len() > LIFTED_KEPT {
            lifted.sort_unstable_by(|a, b| b.cmp(a));
            let oldest = lifted.get(LIFTED_KEPT - 1).copied().unwrap_or(0);
            self.0.retain(|_, word| word.denied || word.at >= oldest);
        }
    }
}

/// What a word about `id` takes, as JSON: a control character takes the most.
fn of_word(id: &str) -> usize {
    let escaped = |byte: u8| match byte {
        0..0x20 => 6,
        b'"' | b'\\' => 2,
        _ => 1,
    };
    id.bytes().map(escaped).sum::<usize>() + WORD
}

/// What a snapshot belongs to; its code holds for nothing else.
#[derive(Clone, Copy, Debug)]
pub struct Belongs<'a> {
    /// The namespace of the registry.
    pub namespace: &'a str,
    /// The tenant.
    pub tenant: &'a str,
    /// The provider.
    pub provider: &'a str,
    /// The digest of the source.
    pub source: &'a str,
    /// What is stored: keys or denials.
    pub kind: &'a str,
}

/// Secrets that authenticate snapshots, by HMAC-SHA-256 (RFC 2104). The first signs, each verifies.
///
/// A process does not believe what a secret signed that it does not have, and replaces it. So to change the secret, put
/// the new one last everywhere; when that is done, put it first everywhere; then drop the old one. For the first ring
/// of all see [`Self::accepting_unsigned_denials`].
#[derive(Clone)]
pub struct KeyRing {
    secrets: Arc<[hmac::Key]>,
    unsigned_denials: bool,
}

impl KeyRing {
    /// A ring of these secrets.
    ///
    /// # Errors
    /// [`Unfit`] for a ring of none, and for a secret of fewer than [`LEAST_SECRET_BYTES`] bytes.
    pub fn new<S: AsRef<[u8]>>(secrets: impl IntoIterator<Item = S>) -> Result<Self, Unfit> {
        let key = |secret: S| {
            let secret = secret.as_ref();
            (secret.len() >= LEAST_SECRET_BYTES).then(|| hmac::Key::new(hmac::HMAC_SHA256, secret))
        };
        let keys: Option<Arc<[hmac::Key]>> = secrets.into_iter().map(key).collect();
        let secrets = keys.filter(|keys| !keys.is_empty()).ok_or(Unfit)?;
        Ok(Self { secrets, unsigned_denials: false })
    }

    /// The same ring, for the time in which not every process has one: what processes without a ring denied is denied
    /// here too, and signed from then on. Neither what they allowed nor their keys are believed, so somebody with write
    /// access can deny keys meanwhile and no more. Default: nothing unsigned is believed.
    #[must_use]
    pub fn accepting_unsigned_denials(self) -> Self {
        Self { unsigned_denials: true, ..self }
    }

    /// Whether unsigned denials are taken.
    #[must_use]
    pub const fn accepts_unsigned_denials(&self) -> bool {
        self.unsigned_denials
    }

    /// The code of `body`, by the first secret.
    #[must_use]
    pub fn sign(&self, belongs: &Belongs<'_>, body: &[u8]) -> Option<String> {
        let key = self.secrets.first()?;
        Some(URL_SAFE_NO_PAD.encode(hmac::sign(key, &message(belongs, body))))
    }

    /// Whether one of the secrets made this code for this body, in constant time for each.
    #[must_use]
    pub fn verifies(&self, belongs: &Belongs<'_>, body: &[u8], code: &str) -> bool {
        let Ok(code) = URL_SAFE_NO_PAD.decode(code) else { return false };
        let message = message(belongs, body);
        self.secrets.iter().any(|key| hmac::verify(key, &message, &code).is_ok())
    }
}

/// Each part with its length before it, so that none can run into the next.
fn message(belongs: &Belongs<'_>, body: &[u8]) -> Vec<u8> {
    let format = FORMAT.to_string();
    let Belongs { namespace, tenant, provider, source, kind } = *belongs;
    let mut message = Vec::with_capacity(body.len() + 512);
    for part in ["jwks-cache snapshot", &format, namespace, tenant, provider, source, kind] {
        message.extend_from_slice(&(part.len() as u64).to_be_bytes());
        message.extend_from_slice(part.as_bytes());
    }
    message.extend_from_slice(body);
    message
}

impl fmt::Debug for KeyRing {
    /// No secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyRing({} secrets)", self.secrets.len())
    }
}

/// The secrets make no ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unfit;

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a key ring needs at least one secret, each of at least {LEAST_SECRET_BYTES} random bytes")
    }
}

impl std::error::Error for Unfit {}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: Belongs<'static> =
        Belongs { namespace: "jwks-cache", tenant: "acme", provider: "main", source: "s", kind: "keys" };

    fn ring(secrets: &[u8]) -> KeyRing {
        KeyRing::new(secrets.iter().map(|secret| [*secret; 32])).unwrap()
    }

    #[test]
    fn the_first_secret_signs_and_each_verifies() {
        let code = ring(&[1]).sign(&HERE, b"body").unwrap();
        for (secrets, known) in [(&[1][..], true), (&[2, 1], true), (&[1, 2], true), (&[2], false)] {
            assert_eq!(ring(secrets).verifies(&HERE, b"body", &code), known, "{secrets:?}");
        }
        assert_eq!(ring(&[1, 2]).sign(&HERE, b"body").unwrap(), code);
        assert_ne!(ring(&[2, 1]).sign(&HERE, b"body").unwrap(), code);
    }

    #[test]
    fn a_code_holds_for_nothing_but_what_it_was_made_for() {
        let code = ring(&[1]).sign(&HERE, b"body").unwrap();
        let others = [
            Belongs { namespace: "other", ..HERE },
            Belongs { tenant: "other", ..HERE },
            Belongs { provider: "other", ..HERE },
            Belongs { source: "other", ..HERE },
            Belongs { kind: "denials", ..HERE },
            // The same text in one row, cut elsewhere.
            Belongs { tenant: "acmem", provider: "ain", ..HERE },
        ];
        for other in others {
            assert!(!ring(&[1]).verifies(&other, b"body", &code), "{other:?}");
        }
        for (body, code) in [(&b"bodY"[..], &*code), (b"body", ""), (b"body", "%"), (b"body", &code[1..])] {
            assert!(!ring(&[1]).verifies(&HERE, body, code));
        }
    }

    #[test]
    fn a_short_secret_makes_no_ring_and_none_is_shown() {
        assert_eq!(KeyRing::new([[0; 31]]).unwrap_err(), Unfit);
        assert_eq!(KeyRing::new([vec![0; 32], vec![]]).unwrap_err(), Unfit);
        assert_eq!(KeyRing::new::<[u8; 32]>([]).unwrap_err(), Unfit);
        assert_eq!(format!("{:?}", ring(&[7, 8])), "KeyRing(2 secrets)");
    }

    /// A log of one word: when it was said, whether it denies, and what it lifts.
    fn said(word: Option<(u64, bool, u64)>) -> DenialLog {
        let word = word.map(|(at, denied, over)| {
            ("a".to_owned(), Word { at, denied, over, materials: BTreeSet::new() })
        });
        DenialLog(word.into_iter().collect())
    }

    #[test]
    fn of_two_logs_the_last_word_about_each_id_counts() {
        const DENIED: bool = true;
        const ALLOWED: bool = false;
        // ours, theirs (when, what, over which denial), newest; whether theirs is taken, and what holds then
        let table = [
            (None, (5, DENIED, 0), 10, true, DENIED),
            (None, (5, ALLOWED, 0), 10, true, ALLOWED),
            (Some((4, DENIED, 0)), (5, ALLOWED, 4), 10, true, ALLOWED),
            (Some((4, DENIED, 0)), (5, ALLOWED, 3), 10, true, ALLOWED),
            (Some((5, DENIED, 0)), (5, ALLOWED, 4), 10, false, DENIED),
            (Some((5, ALLOWED, 4)), (5, DENIED, 0), 10, true, DENIED),
            (Some((6, ALLOWED, 4)), (5, DENIED, 0), 10, false, ALLOWED),
            // A lift from the future lifts what it was said about,
            (Some((4, DENIED, 0)), (20, ALLOWED, 4), 10, true, ALLOWED),
            (Some((20, ALLOWED, 4)), (4, DENIED, 0), 10, false, ALLOWED),
            // and nothing else: neither before nor after it was taken.
            (Some((5, DENIED, 0)), (20, ALLOWED, 4), 10, false, DENIED),
            (Some((3, DENIED, 0)), (11, ALLOWED, 4), 10, false, DENIED),
            (Some((20, ALLOWED, 4)), (5, DENIED, 0), 10, true, DENIED),
            (None, (11, ALLOWED, 4), 10, false, ALLOWED),
            (Some((4, DENIED, 0)), (10, ALLOWED, 3), 10, true, ALLOWED),
            // A denial from the future holds until it is lifted.
            (Some((6, ALLOWED, 0)), (20, DENIED, 0), 10, true, DENIED),
            (Some((20, DENIED, 0)), (9, ALLOWED, 0), 10, false, DENIED),
            (Some((20, DENIED, 0)), (21, ALLOWED, 20), 10, true, ALLOWED),
            (Some((21, ALLOWED, 20)), (20, DENIED, 0), 10, false, ALLOWED),
            // What no clock says counts as now.
            (Some((9, ALLOWED, 4)), (u64::MAX, DENIED, 0), 10, true, DENIED),
            (Some((11, ALLOWED, 10)), (u64::MAX, DENIED, 0), 10, false, ALLOWED),
        ];
        for (ours, theirs, newest, taken, denied) in table {
            let mut merged = said(ours);
            let new = merged.merge(said(Some(theirs)), newest);
            let is_denied = merged.0.get("a").is_some_and(|word| word.denied);
            assert_eq!((new.len() == 1, is_denied), (taken, denied), "{ours:?} {theirs:?}");
        }
    }

    #[test]
    fn a_clock_that_is_behind_makes_no_denial_older_than_it_is() {
        let mut behind = DenialLog::default();
        assert_eq!(behind.merge(said(Some((1_000, true, 0))), 100).len(), 1);
        // What it hands on still outranks what was allowed before.
        let mut other = said(Some((500, false, 400)));
        assert_eq!(other.merge(behind, 2_000).len(), 1);
        assert!(other.0["a"].denied);
    }

    #[test]
    fn a_word_is_the_last_though_the_clock_went_back() {
        for now in [5, u64::MAX] {
            let mut log = DenialLog::default();
            assert_eq!(log.merge(said(Some((1_000.max(now), true, 0))), 2_000).len(), 1);
            for denied in [false, true, false] {
                let before = log.clone();
                log.note("a", denied, 5);
                for newest in [10, 2_000, u64::MAX] {
                    assert!(log.clone().merge(before.clone(), newest).is_empty(), "{now} {denied} {newest}");
                    let mut others = before.clone();
                    others.merge(log.clone(), newest);
                    assert_eq!(others.0["a"].denied, denied, "{now} {newest}");
                }
            }
        }
    }

    #[test]
    fn what_stood_under_a_denied_id_stays_denied_whichever_denial_was_last() {
        let seen = |at| {
            let materials = BTreeSet::from(["m".to_owned()]);
            DenialLog([("a".to_owned(), Word { at, denied: true, over: 0, materials })].into())
        };
        for (ours, at, told) in [
            ((7, true, 0), 5, true),
            ((7, true, 0), 9, true),
            ((7, false, 6), 5, false),
            ((7, false, 6), 9, true),
        ] {
            let words = said(Some(ours)).merge(seen(at), 10);
            assert_eq!(words.iter().any(|(_, word)| word.materials.contains("m")), told, "{ours:?} {at}");
        }
    }

    #[test]
    fn lifted_denials_are_forgotten_at_last_and_others_never() {
        let mut log = DenialLog::default();
        for n in 0..1_000_u64 {
            log.note(&format!("denied {n}"), true, n);
            log.note(&format!("lifted {n}"), false, n);
        }
        let denied = log.0.values().filter(|word| word.denied).count();
        assert_eq!((denied, log.0.len()), (1_000, 1_000 + LIFTED_KEPT));
        assert!(log.0.contains_key("lifted 999") && !log.0.contains_key("lifted 0"));
    }

    #[test]
    fn a_log_grows_to_its_bound_and_no_further_whatever_is_said_or_merged() {
        let materials: Vec<Thumbprint> = {
            let jwk = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"a","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
            let set = KeySet::judge(jwk.as_bytes(), &KeyRules::default()).unwrap();
            vec![set.keys()[0].thumbprint()]
        };
        for id in [|n: usize| format!("{n:0>43}"), |n| format!("{n}\u{1}\"\\é").repeat(20)] {
            let (mut said, mut n, mut left) = (DenialLog::default(), 0, MOST_OF_IDS);
            while let Some(rest) = left.checked_sub(of_word(&id(n))) {
                said.0
                    .insert(id(n), Word { at: u64::MAX, denied: true, over: 0, materials: BTreeSet::new() });
                (n, left) = (n + 1, rest);
            }
            assert!(!said.has_room(&id(n)), "none about one more");
            assert!(said.has_room(&id(0)), "another word about one of them");
            let full = said.with_materials(|_| materials.iter());
            let bytes = serde_json::to_string(&full).unwrap().len() as u64;
            assert!((1 << 19..=DenialLog::MOST_BYTES).contains(&bytes), "{n} ids take {bytes}");

            let other = DenialLog((n..3 * n).map(|n| (id(n), said.0[&id(0)].clone())).collect());
            assert!(said.merge(other, u64::MAX).is_empty() && said.0.len() == n);
            let mut one = DenialLog::default();
            assert_eq!(one.merge(said, u64::MAX).len(), n, "a full one fits into an empty one");
        }
    }

    #[test]
    fn a_retiring_key_comes_back_with_the_issuer_it_is_bound_to() {
        let text = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"a","issuer":"https://id.example.com/a","alg":"EdDSA",
            "x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
        let rules = KeyRules::default();
        let key = KeySet::judge(text.as_bytes(), &rules).unwrap().shared().next().unwrap();
        let at = DateTime::UNIX_EPOCH;
        let stored = StoredRetiring { jwk: key.text().to_owned(), left_at: at, last_held_at: at };
        let again = stored.judge(&rules).unwrap();
        assert_eq!(again.issuer(), Some("https://id.example.com/a"));
        let facts =
            |key: &crate::key::Key| (key.thumbprint(), key.alg().map(str::to_owned), key.algorithms());
        assert_eq!(facts(&again), facts(&key));
        // Nothing but one key.
        for jwk in ["", "{}", "null", &format!("{},{}", stored.jwk, stored.jwk), "{}],\"x\":[{}"] {
            assert!(
                StoredRetiring { jwk: jwk.to_owned(), ..stored.clone() }.judge(&rules).is_none(),
                "{jwk}"
            );
        }
    }

    #[test]
    fn an_envelope_of_nothing_adds_nothing() {
        assert_eq!(serde_json::to_string(&Envelope::default()).unwrap(), "{}");
    }
}
