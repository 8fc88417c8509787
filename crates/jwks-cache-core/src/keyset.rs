//! A key set document, judged key by key (RFC 7517 §5): one bad key does not cost the others.
//!
//! This room accepts the JSON that real providers publish and says of each entry what it is worth. It does
//! not know where a document came from, how long it is good, or which keys were held before.

mod diff;
mod entry;
mod material;
mod reason;

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, LazyLock};

use aws_lc_rs::digest;
use jsonwebtoken::jwk::JwkSet;
use serde::de::{Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

pub use diff::{KeyId, SetDiff, diff};
pub use reason::Reason;

use crate::key::{Findings, Key, KeyRef, Place, Said, SharedKey, Thumbprint};
use crate::published::Denials;
use crate::select::{self, FirstTags, NoKey, Tag, Tagged};
use crate::{Algorithm, AlgorithmSet};
use entry::{Judged, Text, Unfit};

/// Real documents nest five deep.
const MAX_DEPTH: u32 = 32;

/// What a key must be to be trusted, and how large a set may be.
#[derive(Clone, Debug, PartialEq)]
pub struct KeyRules {
    /// The shortest RSA modulus trusted, in bits. Default 2048 (RFC 7518 §3.3); nothing below 1024 verifies,
    /// and below 2048 only RS256 and RS512 do.
    pub min_rsa_bits: u32,
    /// The most entries a document may have. Default 512, some 30 times the largest set seen.
    pub max_keys: u32,
    /// The algorithms that keys may verify. Default all.
    pub algorithms: AlgorithmSet,
    /// The algorithms that keys without `alg` may verify, of those: what their issuer says it uses. Default all.
    pub without_alg: AlgorithmSet,
}

impl Default for KeyRules {
    fn default() -> Self {
        Self {
            min_rsa_bits: 2048,
            max_keys: 512,
            algorithms: AlgorithmSet::ALL,
            without_alg: AlgorithmSet::ALL,
        }
    }
}

/// A judged document. Cloning shares it. The default is one without entries.
#[derive(Clone)]
#[repr(C)] // what a lookup reads stands together, at the front
pub struct KeySet {
    first_tags: FirstTags,
    keys: Arc<[Key]>,
    jwks: Arc<JwkSet>,
    rest: Arc<Rest>,
}

impl Default for KeySet {
    fn default() -> Self {
        static EMPTY: LazyLock<KeySet> = LazyLock::new(|| {
            KeySet::of(Arc::default(), Arc::default(), r#"{"keys":[]}"#.into(), Arc::default())
        });
        EMPTY.clone()
    }
}

/// What lookups seldom read.
struct Rest {
    /// Those of all keys but the first.
    more_tags: Box<[Tag]>,
    text: Arc<str>,
    ledger: Arc<[LedgerEntry]>,
}

impl KeySet {
    /// Judges a document, every entry by itself and then for kids that name two keys.
    ///
    /// A document without a usable key is judged all the same; an empty `keys` array gives an empty set.
    ///
    /// # Errors
    /// The document as a whole cannot be taken: see [`Refusal`].
    pub fn judge(document: &[u8], rules: &KeyRules) -> Result<Self, Refusal> {
        let set = Self::inspect(document, rules)?;
        match set.ledger().first().map(LedgerEntry::verdict) {
            Some(Verdict::SetAside { reason, .. }) if set.keys.is_empty() => {
                Err(Refusal::NoneWellFormed { entries: set.ledger().len(), first: reason })
            }
            _ => Ok(set),
        }
    }

    /// The same for people who look into a document: one whose entries are all no well-formed keys is not
    /// refused, so that its ledger can be shown.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub fn inspect(document: &[u8], rules: &KeyRules) -> Result<Self, Refusal> {
        let text = std::str::from_utf8(document).map_err(|_| Refusal::NotUtf8)?;
        let text = text.strip_prefix('\u{feff}').unwrap_or(text); // RFC 8259 §8.1 permits ignoring it
        if is_nested_too_deep(text) {
            return Err(Refusal::TooDeep);
        }
        let (entries, secret_beside) = entries(text, rules.max_keys)?;

        let mut judged: Vec<Judged> = entries.iter().map(|entry| entry::judge(entry, rules)).collect();
        set_aside_ambiguous(&mut judged);

        let (text, places) = published(text, &entries, &judged, secret_beside);
        let mut places = places.into_iter();
        let mut jwks = Vec::new();
        let rows: Vec<(Result<Findings, Unfit>, Option<Place>)> = judged
            .into_iter()
            .map(|Judged { outcome, publishable }| {
                let outcome = outcome.map(|(findings, jwk)| {
                    jwks.push(jwk);
                    findings
                });
                (outcome, if publishable { places.next().map(Place::of) } else { None })
            })
            .collect();
        jwks.shrink_to_fit();
        let jwks = Arc::new(JwkSet { keys: jwks });

        let mut keys = Vec::with_capacity(jwks.keys.len());
        let rows: Vec<Option<Unfit>> = rows
            .into_iter()
            .map(|(outcome, place)| match outcome {
                Ok(findings) => {
                    // It has one: a key with private members is none.
                    let said = Said { document: text.clone(), place: place.unwrap_or_default() };
                    let key = Key::new(findings, said, Arc::clone(&jwks), keys.len());
                    keys.push(key.expect("there is a JWK for each"));
                    None
                }
                Err(unfit) => Some(Unfit { place, ..unfit }),
            })
            .collect();
        let keys: Arc<[Key]> = keys.into();
        let mut shared = (0..).map_while(|at| SharedKey::of(&keys, at));
        let ledger = (0..).zip(rows).map(|(index, row)| {
            let row = match row {
                None => Row::Key(shared.next().expect("there is a key for each"), index),
                Some(unfit) => Row::Unfit(Arc::new(unfit), index),
            };
            LedgerEntry { row }
        });
        let ledger = ledger.collect();
        Ok(Self::of(keys, jwks, text, ledger))
    }

    /// The set without some of its keys. The text and the ledger stay those of the document.
    #[must_use]
    pub fn without(&self, gone: impl Fn(&Key) -> bool) -> Self {
        let kept: Vec<&Key> = self.keys.iter().filter(|key| !gone(key)).collect();
        if kept.len() == self.keys.len() {
            return self.clone();
        }
        let jwks = Arc::new(JwkSet { keys: kept.iter().map(|key| key.jwk().clone()).collect() });
        let keys = kept.iter().enumerate().filter_map(|(at, key)| key.of(Arc::clone(&jwks), at));
        Self::of(keys.collect(), jwks.clone(), self.rest.text.clone(), self.rest.ledger.clone())
    }

    fn of(keys: Arc<[Key]>, jwks: Arc<JwkSet>, text: Arc<str>, ledger: Arc<[LedgerEntry]>) -> Self {
        let mut tags = select::tags(&keys);
        let first_tags = FirstTags::default().map(|none| tags.next().unwrap_or(none));
        let more_tags = tags.collect();
        Self { first_tags, keys, jwks, rest: Arc::new(Rest { more_tags, text, ledger }) }
    }

    fn tagged<'a>(&'a self) -> Tagged<'a, impl Fn() -> &'a [Tag]> {
        Tagged { keys: &self.keys, first: &self.first_tags, more: || &*self.rest.more_tags }
    }

    /// The key for `kid` and `algorithm`, as [`select::select`] picks it.
    ///
    /// # Errors
    /// See [`NoKey`].
    pub fn find(&self, kid: Option<&str>, algorithm: Algorithm) -> Result<KeyRef<'_>, NoKey> {
        let key = self.tagged().find(kid, algorithm)?;
        KeyRef::among(&self.keys, key, algorithm).ok_or(NoKey::NoMatch)
    }

    /// Whether any well-formed key has this kid, usable or not. It reads a hash of 64 bits of each kid.
    #[must_use]
    pub fn holds_kid(&self, kid: &str) -> bool {
        self.tagged().has_kid(kid)
    }

    /// The published text. Keys with private members, symmetric keys and entries that are no objects are left
    /// out whole; everything else stands as it was published.
    #[must_use]
    pub fn text(&self) -> &Arc<str> {
        &self.rest.text
    }

    /// The well-formed keys in the document's order, set aside or not, with their numbers encoded canonically.
    #[must_use]
    pub const fn jwks(&self) -> &Arc<JwkSet> {
        &self.jwks
    }

    /// The same keys as in [`KeySet::jwks`], in the same order.
    #[must_use]
    pub fn keys(&self) -> &[Key] {
        &self.keys
    }

    /// The same, each shared with the set.
    pub fn shared(&self) -> impl Iterator<Item = SharedKey> {
        (0..).map_while(|at| SharedKey::of(&self.keys, at))
    }

    /// Every entry of the document with its verdict.
    #[must_use]
    pub fn ledger(&self) -> &[LedgerEntry] {
        &self.rest.ledger
    }

    /// The keys that may verify.
    pub fn usable(&self) -> impl Iterator<Item = &Key> {
        self.keys.iter().filter(|key| key.is_usable())
    }

    /// Whether the document has an entry with this kid, whatever became of it.
    #[must_use]
    pub fn mentions(&self, kid: &str) -> bool {
        self.rest.ledger.iter().any(|entry| entry.kid() == Some(kid))
    }

    /// Whether the document had no entries at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rest.ledger.is_empty()
    }

    /// The SHA-256 of [`KeySet::text`], computed on each call.
    #[must_use]
    pub fn set_hash(&self) -> [u8; 32] {
        sha256(self.rest.text.as_bytes())
    }
}

impl fmt::Debug for KeySet {
    /// Prints kids, escaped, and thumbprints; no material.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.keys.iter().map(|key| (key.kid(), key.thumbprint()))).finish()
    }
}

/// One entry of a document.
#[derive(Clone)]
pub struct LedgerEntry {
    row: Row,
}

#[derive(Clone)]
enum Row {
    // With the entry's number.
    Key(SharedKey, u32),
    Unfit(Arc<Unfit>, u32),
}

/// What an entry is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is a key that may verify.
    Usable,
    /// It verifies nothing.
    SetAside {
        /// Why.
        reason: Reason,
        /// Whether it is still in [`KeySet::jwks`].
        well_formed: bool,
    },
}

impl LedgerEntry {
    /// The entry's place in the document, from 0.
    #[must_use]
    pub const fn index(&self) -> usize {
        let (Row::Key(_, index) | Row::Unfit(_, index)) = &self.row;
        *index as usize
    }

    /// Where the entry stands in [`KeySet::text`]; none if it is left out there.
    #[must_use]
    pub fn place(&self) -> Option<Range<usize>> {
        match &self.row {
            Row::Key(key, _) => Some(key.place()),
            Row::Unfit(unfit, _) => unfit.place.map(Place::range),
        }
    }

    /// Whether the entry is denied. One that is no well-formed key is, too, where nobody can tell that it is not: readers
    /// that are less strict would take it for one.
    #[must_use]
    pub fn is_denied(&self, denials: &Denials) -> bool {
        match &self.row {
            Row::Key(key, _) => denials.denies(key),
            Row::Unfit(..) if denials.is_empty() => false,
            Row::Unfit(unfit, _) => {
                matches!(
                    unfit.reason,
                    Reason::RepeatedMember | Reason::Malformed("kid") | Reason::TooLong("kid")
                ) || unfit.kid.as_deref().is_some_and(|kid| denials.denies_kid(kid))
                    || unfit.material.as_ref().is_some_and(|material| denials.denies_material(material))
            }
        }
    }

    /// The key, if the entry is a well-formed one.
    #[must_use]
    pub const fn key(&self) -> Option<&SharedKey> {
        match &self.row {
            Row::Key(key, _) => Some(key),
            Row::Unfit(..) => None,
        }
    }

    /// `kid`, where it is a readable text. It may hold any character: escape it.
    #[must_use]
    pub fn kid(&self) -> Option<&str> {
        match &self.row {
            Row::Key(key, _) => key.kid(),
            Row::Unfit(unfit, _) => unfit.kid.as_deref(),
        }
    }

    /// `kty`, where readable.
    #[must_use]
    pub fn kty(&self) -> Option<&str> {
        match &self.row {
            Row::Key(key, _) => Some(key.kty().as_str()),
            Row::Unfit(unfit, _) => unfit.kty.as_deref(),
        }
    }

    /// `alg`, where readable.
    #[must_use]
    pub fn alg(&self) -> Option<&str> {
        match &self.row {
            Row::Key(key, _) => key.alg(),
            Row::Unfit(unfit, _) => unfit.alg.as_deref(),
        }
    }

    /// `use`, where readable.
    #[must_use]
    pub fn key_use(&self) -> Option<&str> {
        match &self.row {
            Row::Key(key, _) => key.key_use(),
            Row::Unfit(unfit, _) => unfit.key_use.as_deref(),
        }
    }

    /// `crv`, where readable.
    #[must_use]
    pub fn curve(&self) -> Option<&str> {
        match &self.row {
            Row::Key(key, _) => key.curve().map(crate::key::Curve::as_str),
            Row::Unfit(unfit, _) => unfit.curve.as_deref(),
        }
    }

    /// The size of a well-formed key, in bits.
    #[must_use]
    pub fn bits(&self) -> Option<u32> {
        self.key().map(|key| key.bits())
    }

    /// The thumbprint of a well-formed key.
    #[must_use]
    pub fn thumbprint(&self) -> Option<Thumbprint> {
        self.key().map(|key| key.thumbprint())
    }

    /// What the entry is worth.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        let reason = match &self.row {
            Row::Key(key, _) => key.set_aside().copied(),
            Row::Unfit(unfit, _) => Some(unfit.reason),
        };
        match reason {
            None => Verdict::Usable,
            Some(reason) => Verdict::SetAside { reason, well_formed: reason.is_well_formed() },
        }
    }
}

impl fmt::Debug for LedgerEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LedgerEntry")
            .field("index", &self.index())
            .field("kid", &self.kid())
            .field("thumbprint", &self.thumbprint())
            .field("verdict", &self.verdict())
            .finish_non_exhaustive()
    }
}

/// Why a document as a whole is not taken. It holds nothing of the document's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// JSON between systems is UTF-8 (RFC 8259 §8.1).
    NotUtf8,
    /// Not one JSON value.
    NotJson {
        /// Where reading stopped, from 1.
        line: usize,
        /// Where in the line, from 1.
        column: usize,
        /// It begins like HTML or XML.
        markup: bool,
    },
    /// An array or object lies more than 32 deep.
    TooDeep,
    /// Not an object with an array `keys`.
    NoKeysArray(Instead),
    /// `keys` stands in it twice, and readers would differ on which one counts.
    RepeatedKeys,
    /// More entries than allowed; counting stopped there.
    TooManyKeys {
        /// The entries allowed.
        max: u32,
    },
    /// There are entries, and none is a well-formed public key.
    NoneWellFormed {
        /// How many entries there are.
        entries: usize,
        /// What is wrong with the first.
        first: Reason,
    },
    /// No key of it may verify, and keys that may are still servable.
    NothingUsable,
    /// Not the PEM of one public key; what is wrong with it.
    NotPem(&'static str),
    /// Not a JSON object of kids and certificates.
    NotX509Map,
}

/// What a document without a `keys` array looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Instead {
    /// OpenID Connect or OAuth metadata: it has `jwks_uri`.
    Metadata,
    /// A single key: it has `kty`.
    SingleKey,
    /// An error answer: it has `error`.
    Error,
    /// Anything else.
    Other,
}

impl Refusal {
    /// The reason of the one refusal that depends on the settings: others may take the document.
    pub const TOO_MANY_KEYS: &'static str = "too_many_keys";

    /// A stable label for metrics and machines.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::NotUtf8 => "not_utf8",
            Self::NotJson { .. } => "not_json",
            Self::TooDeep => "too_deep",
            Self::NoKeysArray(_) => "no_keys_array",
            Self::RepeatedKeys => "repeated_keys",
            Self::TooManyKeys { .. } => Self::TOO_MANY_KEYS,
            Self::NoneWellFormed { .. } => "none_well_formed",
            Self::NothingUsable => "nothing_usable",
            Self::NotPem(_) => "not_pem",
            Self::NotX509Map => "not_x509_map",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotUtf8 => f.write_str("not UTF-8 text: check that the URL gives plain JSON"),
            Self::NotJson { markup: true, .. } => f.write_str(
                "not JSON but markup: check that the URL is that of the key set, and that no login or \
                 gateway page stands before it",
            ),
            Self::NotJson { line, column, .. } => write!(
                f,
                "not JSON from line {line}, column {column}: check the URL, and that the answer arrived whole"
            ),
            Self::TooDeep => write!(f, "nested more than {MAX_DEPTH} deep: no key set is; check the URL"),
            Self::NoKeysArray(instead) => {
                f.write_str("not a key set, which is an object with an array `keys`: ")?;
                f.write_str(match instead {
                    Instead::Metadata => "this is metadata; use the URL in its `jwks_uri`",
                    Instead::SingleKey => "this is a single key; its publisher must put it into a set",
                    Instead::Error => "this is an error message; ask the provider",
                    Instead::Other => "check the URL",
                })
            }
            Self::RepeatedKeys => {
                f.write_str("`keys` stands in it twice: its publisher must say which one counts")
            }
            Self::TooManyKeys { max } => {
                write!(f, "more than {max} keys: raise `max_keys` if the provider really has so many")
            }
            Self::NotPem(why) => write!(f, "not one public key in PEM: {why}"),
            Self::NotX509Map => f.write_str(
                "not a JSON object of kids and certificates in PEM: check the URL, and that `format` is meant",
            ),
            Self::NothingUsable => {
                f.write_str("no key of the document may verify, while usable keys are still held")
            }
            Self::NoneWellFormed { entries, first } => write!(
                f,
                "none of its {entries} keys is a well-formed public key (the first: {first}): ask the provider"
            ),
        }
    }
}

impl std::error::Error for Refusal {}

/// Whether brackets outside of strings nest too deep. It runs before any parser, and does not recurse.
fn is_nested_too_deep(text: &str) -> bool {
    let (mut depth, mut in_string, mut escaped) = (0_u32, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'{' | b'[' => {
                depth = depth.saturating_add(1);
                if depth > MAX_DEPTH {
                    return true;
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

/// The entries of the one `keys` array, unread, and whether a member that may be secret stands beside it.
fn entries(text: &str, max: u32) -> Result<(Vec<&RawValue>, bool), Refusal> {
    let top: Top<'_> = serde_json::from_str(text).map_err(|error| match error.classify() {
        serde_json::error::Category::Data => Refusal::NoKeysArray(Instead::Other),
        _ => Refusal::NotJson {
            line: error.line(),
            column: error.column(),
            markup: text.trim_start().starts_with('<'),
        },
    })?;
    if top.repeated {
        return Err(Refusal::RepeatedKeys);
    }
    match top.keys {
        Some(keys) if keys.get().starts_with('[') => {
            let mut collect = Collect { max: max as usize, entries: Vec::new() };
            let complete =
                serde_json::Deserializer::from_str(keys.get()).deserialize_seq(&mut collect).is_ok();
            // The text is JSON already: all that can stop the reading is the limit.
            if complete { Ok((collect.entries, top.secret)) } else { Err(Refusal::TooManyKeys { max }) }
        }
        _ => Err(Refusal::NoKeysArray(top.instead)),
    }
}

/// The top level. Other members may stand twice: nobody reads them.
struct Top<'a> {
    keys: Option<&'a RawValue>,
    repeated: bool,
    /// A member beside `keys` has a name that only secret keys have.
    secret: bool,
    instead: Instead,
}

impl<'de: 'a, 'a> Deserialize<'de> for Top<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TopVisitor;
        impl<'de> Visitor<'de> for TopVisitor {
            type Value = Top<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Top<'de>, A::Error> {
                let mut top = Top { keys: None, repeated: false, secret: false, instead: Instead::Other };
                while let Some(Text(name)) = map.next_key()? {
                    top.secret |= entry::is_private(&name);
                    match &*name {
                        "keys" => {
                            top.repeated |= top.keys.replace(map.next_value()?).is_some();
                            continue;
                        }
                        "jwks_uri" => top.instead = Instead::Metadata,
                        "kty" => top.instead = Instead::SingleKey,
                        "error" => top.instead = Instead::Error,
                        _ => {}
                    }
                    map.next_value::<IgnoredAny>()?;
                }
                Ok(top)
            }
        }
        deserializer.deserialize_map(TopVisitor)
    }
}

/// Collects the elements of an array, and stops at the first beyond the limit.
struct Collect<'a> {
    max: usize,
    entries: Vec<&'a RawValue>,
}

impl<'de> Visitor<'de> for &mut Collect<'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<(), A::Error> {
        while let Some(entry) = array.next_element()? {
            if self.entries.len() == self.max {
                return Err(A::Error::custom("too many"));
            }
            self.entries.push(entry);
        }
        Ok(())
    }
}

/// Different material under one kid for one algorithm: nothing says which is meant, so neither is trusted
/// (RFC 7517 §4.5 asks for distinct kids). The same material twice is one key.
fn set_aside_ambiguous(judged: &mut [Judged]) {
    let mut claims: HashMap<(&str, Algorithm), (Thumbprint, bool)> = HashMap::new();
    for (findings, jwk) in judged.iter().filter_map(|judged| judged.outcome.as_ref().ok()) {
        let Some(kid) = jwk.common.key_id.as_deref() else { continue };
        for algorithm in findings.algorithms.iter() {
            let (first, contested) = claims.entry((kid, algorithm)).or_insert((findings.thumbprint, false));
            *contested |= *first != findings.thumbprint;
        }
    }
    let is_ambiguous = |judged: &Judged| {
        let Ok((findings, jwk)) = &judged.outcome else { return false };
        let Some(kid) = jwk.common.key_id.as_deref() else { return false };
        findings.algorithms.iter().any(|algorithm| claims.get(&(kid, algorithm)).is_some_and(|claim| claim.1))
    };
    let ambiguous: Vec<bool> = judged.iter().map(is_ambiguous).collect();
    for (judged, ambiguous) in judged.iter_mut().zip(ambiguous) {
        if let (Ok((findings, _)), true) = (&mut judged.outcome, ambiguous) {
            findings.put_aside(Reason::AmbiguousKid);
        }
    }
}

/// The document without the entries that must not leave the process, and where each of the others stands in it.
fn published(
    text: &str,
    entries: &[&RawValue],
    judged: &[Judged],
    secret_beside: bool,
) -> (Arc<str>, Vec<Range<usize>>) {
    // The entries are slices of the text: their places follow from where they lie.
    let place = |entry: &&RawValue| {
        let start = (entry.get().as_ptr() as usize).saturating_sub(text.as_ptr() as usize);
        start..start.saturating_add(entry.get().len())
    };
    let places: Vec<_> = entries.iter().map(place).collect();
    let kept = places.iter().zip(judged).filter_map(|(place, judged)| judged.publishable.then_some(place));
    if secret_beside {
        join(text, "{\"keys\":[", kept, "]}")
    } else if judged.iter().all(|judged| judged.publishable) {
        (text.into(), places)
    } else {
        let (start, end) = around(text, &places);
        join(text, start, kept, end)
    }
}

/// What stands before the first and after the last of these places.
pub(crate) fn around<'a>(text: &'a str, places: &[Range<usize>]) -> (&'a str, &'a str) {
    let start = places.first().and_then(|first| text.get(..first.start));
    let end = places.last().and_then(|last| text.get(last.end..));
    (start.unwrap_or_default(), end.unwrap_or_default())
}

/// A document of what stands at these places, and where each stands in it.
pub(crate) fn join<'a>(
    text: &str,
    start: &str,
    places: impl Iterator<Item = &'a Range<usize>>,
    end: &str,
) -> (Arc<str>, Vec<Range<usize>>) {
    let mut joined = String::with_capacity(text.len());
    joined.push_str(start);
    let mut moved = Vec::new();
    for place in places {
        if !moved.is_empty() {
            joined.push(',');
        }
        let begins = joined.len();
        joined.push_str(text.get(place.clone()).unwrap_or_default());
        moved.push(begins..joined.len());
    }
    joined.push_str(end);
    (joined.into(), moved)
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    digest::digest(&digest::SHA256, bytes).as_ref().try_into().expect("a SHA-256 has 32 bytes")
}
