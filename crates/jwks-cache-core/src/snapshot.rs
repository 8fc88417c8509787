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
use serde_json::{Value, json};

use crate::key::{Key, Thumbprint};
use crate::keyset::{KeyRules, KeySet};
use crate::published::Held;

/// The version of the stored form. A snapshot that states another is refused.
pub const FORMAT: u32 = 1;

/// The fewest bytes of a secret: as many as the code has (RFC 2104 §3).
pub const LEAST_SECRET_BYTES: usize = 32;

/// The most bytes that the ids of one log take, as JSON; what stood under them may take as many again.
const MOST_OF_IDS: usize = 1 << 20;

/// What a word takes beside its id, as JSON; and a material.
const WORD: usize = 64;
const MATERIAL: usize = 48;

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
    /// The stale window that `http_strict` leaves, in seconds: the headers that say so are not stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strict_window: Option<u64>,
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
    /// The key, as JSON text.
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
            Some(Self { jwk: jwk_text(&old.key)?, left_at, last_held_at })
        };
        held.retiring.iter().filter_map(store).collect()
    }

    /// The key, judged by the rules in force; none when it is not usable under them.
    #[must_use]
    pub fn judge(&self, rules: &KeyRules) -> Option<Arc<Key>> {
        let set = KeySet::judge(format!(r#"{{"keys":[{}]}}"#, self.jwk).as_bytes(), rules).ok()?;
        let only = set.ledger().len() == 1;
        set.usable().next().filter(|_| only).cloned()
    }
}

/// What the judged key says of itself, with the members that `jsonwebtoken` does not know and that count.
fn jwk_text(key: &Key) -> Option<String> {
    let mut jwk = serde_json::to_value(key.jwk()).ok()?;
    let members: &mut serde_json::Map<String, Value> = jwk.as_object_mut()?;
    for (name, value) in [("issuer", key.issuer()), ("alg", key.alg())] {
        if let Some(value) = value {
            members.insert(name.to_owned(), json!(value));
        }
    }
    Some(jwk.to_string())
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
    /// The thumbprints of the keys that stood under it.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub materials: BTreeSet<String>,
}

impl Word {
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
        let at = self.0.get(id).map_or(now, |last| now.max(last.at.saturating_add(1)));
        self.0.insert(id.to_owned(), Word { at, denied, materials: BTreeSet::new() });
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

    /// Takes the words of `other` that are later than ours, as far as there is room, and returns them; those that are
    /// ours too, too, for the materials that were seen there. A denial that claims to be later than `newest` counts as
    /// said then. A lift that does counts for nothing: it would undo denials that were said after it.
    pub fn merge(&mut self, other: Self, newest: u64) -> Vec<(String, Word)> {
        let mut taken = Vec::new();
        let mut room = self.room();
        for (id, mut word) in other.0 {
            if !word.denied && word.at > newest {
                continue;
            }
            word.at = word.at.min(newest);
            let rank = |word: &Word| (word.at, word.denied);
            let ours = self.0.get(&id).map(rank);
            if ours.is_none() {
                let Some(left) = room.checked_sub(of_word(&id)) else { continue };
                room = left;
            }
            if ours.is_none_or(|ours| ours < rank(&word)) {
                self.0.insert(id.clone(), Word { materials: BTreeSet::new(), ..word.clone() });
                taken.push((id, word));
            } else if ours == Some(rank(&word)) && !word.materials.is_empty() {
                taken.push((id, word));
            }
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

/// Secrets that authenticate snapshots, by HMAC-SHA-256 (RFC 2104). The first signs, each verifies: to change the
/// secret, put the new one first everywhere, and drop the old one later.
#[derive(Clone)]
pub struct KeyRing(Arc<[hmac::Key]>);

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
        keys.filter(|keys| !keys.is_empty()).map(Self).ok_or(Unfit)
    }

    /// The code of `body`, by the first secret.
    #[must_use]
    pub fn sign(&self, belongs: &Belongs<'_>, body: &[u8]) -> Option<String> {
        let key = self.0.first()?;
        Some(URL_SAFE_NO_PAD.encode(hmac::sign(key, &message(belongs, body))))
    }

    /// Whether one of the secrets made this code for this body, in constant time for each.
    #[must_use]
    pub fn verifies(&self, belongs: &Belongs<'_>, body: &[u8], code: &str) -> bool {
        let Ok(code) = URL_SAFE_NO_PAD.decode(code) else { return false };
        let message = message(belongs, body);
        self.0.iter().any(|key| hmac::verify(key, &message, &code).is_ok())
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
        write!(f, "KeyRing({} secrets)", self.0.len())
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

    #[test]
    fn of_two_logs_the_last_word_about_each_id_counts() {
        // ours, theirs (when, denied), newest; whether theirs is taken, and whether the id is then denied
        let table = [
            (None, (5, true), 10, true, true),
            (None, (5, false), 10, true, false),
            (Some((4, true)), (5, false), 10, true, false),
            (Some((5, true)), (5, false), 10, false, true),
            (Some((5, false)), (5, true), 10, true, true),
            (Some((6, false)), (5, true), 10, false, false),
            (Some((6, false)), (u64::MAX, true), 6, true, true),
            (Some((7, false)), (u64::MAX, true), 6, false, false), // from the future counts as now
            (Some((4, true)), (u64::MAX, false), 10, false, true), // and there none is lifted
            (Some((4, true)), (11, false), 10, false, true),
            (Some((4, true)), (10, false), 10, true, false),
            (None, (11, false), 10, false, false),
        ];
        for (ours, theirs, newest, taken, denied) in table {
            let log = |said: Option<(u64, bool)>| {
                let word = |(at, denied)| ("a".to_owned(), Word { at, denied, materials: BTreeSet::new() });
                DenialLog(said.into_iter().map(word).collect())
            };
            let mut merged = log(ours);
            let new = merged.merge(log(Some(theirs)), newest);
            let is_denied = merged.0.get("a").is_some_and(|word| word.denied);
            assert_eq!((new.len() == 1, is_denied), (taken, denied), "{ours:?} {theirs:?}");
        }
    }

    #[test]
    fn a_word_is_the_last_though_the_clock_went_back() {
        let mut log = DenialLog::default();
        log.note("a", true, 1_000);
        let before = log.clone();
        log.note("a", false, 5);
        assert!(log.merge(before, 2_000).is_empty() && !log.0["a"].denied);
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
                said.0.insert(id(n), Word { at: u64::MAX, denied: true, materials: BTreeSet::new() });
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
        let key = KeySet::judge(text.as_bytes(), &rules).unwrap().keys()[0].clone();
        let at = DateTime::UNIX_EPOCH;
        let stored = StoredRetiring { jwk: jwk_text(&key).unwrap(), left_at: at, last_held_at: at };
        let again = stored.judge(&rules).unwrap();
        assert_eq!(again.issuer(), Some("https://id.example.com/a"));
        let facts = |key: &Key| (key.thumbprint(), key.alg().map(str::to_owned), key.algorithms());
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
