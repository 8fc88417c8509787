//! One entry of the `keys` array: its members, and the verdict on them.
//! This room does not know the other entries of the document.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use jsonwebtoken::jwk::{CommonParameters, Jwk};
use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::material::Numbers;
use super::{KeyRules, Reason};
use crate::AlgorithmSet;
use crate::key::{DeclaredAlgorithm, Findings, Place, Thumbprint};

/// Real moduli take 1.4 kB at most; a longer member only costs memory and time.
const MAX_MEMBER: usize = 16 * 1024;
const MAX_KID: usize = 1024;

/// Members that only private and symmetric keys have (RFC 7518 §6.2.2, §6.3.2, §6.4.1; `priv` is RFC 9964's).
const PRIVATE: [&str; 9] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"];

/// Whether only private and symmetric keys have a member of this name.
pub(super) fn is_private(name: &str) -> bool {
    PRIVATE.contains(&name)
}

/// A judged entry.
pub(super) struct Judged {
    /// What was found of a well-formed key, usable or set aside, or what can be said of an entry that is none.
    pub(super) outcome: Result<(Findings, Jwk), Unfit>,
    /// Whether the entry may stand in any text that leaves the process.
    pub(super) publishable: bool,
}

/// What an entry says of itself that is no well-formed key. It holds labels only, nothing that could be secret.
#[derive(Debug)]
pub(super) struct Unfit {
    pub(super) kid: Option<Box<str>>,
    pub(super) kty: Option<Box<str>>,
    pub(super) alg: Option<Box<str>>,
    pub(super) key_use: Option<Box<str>>,
    pub(super) curve: Option<Box<str>>,
    /// What its numbers would be as a key, where they can be read: a denial is by material too.
    pub(super) material: Option<Thumbprint>,
    pub(super) reason: Reason,
    /// Where it stands in the published text; none if it is left out there.
    pub(super) place: Option<Place>,
}

/// Judges one entry by itself.
pub(super) fn judge(entry: &RawValue, rules: &KeyRules) -> Judged {
    let Ok(members) = serde_json::from_str::<Members<'_>>(entry.get()) else {
        // What cannot be read cannot be shown to be public either.
        return Judged { outcome: Err(Members::default().unfit(Reason::NotAnObject)), publishable: false };
    };
    let secret = if members.text("kty").ok().flatten().as_deref() == Some("oct") {
        Some(Reason::Symmetric)
    } else if PRIVATE.iter().any(|name| members.named.contains_key(*name)) {
        Some(Reason::PrivateMembers)
    } else {
        None
    };
    let outcome = match secret {
        Some(reason) => Err(reason),
        None => well_formed(&members, rules),
    };
    let unfit = |reason| Unfit {
        material: if secret.is_none() { members.material() } else { None },
        ..members.unfit(reason)
    };
    Judged { outcome: outcome.map_err(unfit), publishable: secret.is_none() }
}

/// Reads the key; an error is a reason for which it is no well-formed one.
fn well_formed(members: &Members<'_>, rules: &KeyRules) -> Result<(Findings, Jwk), Reason> {
    if members.repeated {
        return Err(Reason::RepeatedMember);
    }
    let kty = members.required("kty")?;
    members.kid()?;
    let alg = members.text("alg")?;
    let key_use = members.text("use")?;
    let operations = members.strings("key_ops")?;
    // An issuer that cannot be read could not be enforced either.
    let issuer = members.text("issuer")?;
    let numbers = Numbers::read(&kty, members)?;

    let declared = match alg.as_deref() {
        None => DeclaredAlgorithm::Absent,
        Some(name) => match name.parse() {
            Ok(algorithm) if numbers.family().contains(algorithm) => DeclaredAlgorithm::Signs(algorithm),
            Ok(_) => return Err(Reason::AlgorithmContradictsKey),
            // HMAC on a public key is the classic confusion (RFC 8725 §2.1), not merely an unknown name.
            Err(_) if matches!(name, "HS256" | "HS384" | "HS512") => {
                return Err(Reason::AlgorithmContradictsKey);
            }
            Err(_) => DeclaredAlgorithm::Other(name.into()),
        },
    };

    let mut findings = Findings {
        issuer: issuer.map(Into::into),
        declared,
        kty: numbers.kty(),
        curve: numbers.curve(),
        bits: numbers.bits(),
        thumbprint: numbers.thumbprint(),
        algorithms: AlgorithmSet::NONE,
        set_aside: None,
    };
    match allowed(&findings.declared, key_use.as_deref(), operations.as_deref(), members, &numbers, rules) {
        Ok(algorithms) => findings.algorithms = algorithms,
        Err(reason) => findings.put_aside(reason),
    }
    Ok((findings, Jwk { common: members.common(), algorithm: numbers.parameters() }))
}

/// What a well-formed key may verify; an error is a reason to set it aside.
fn allowed(
    declared: &DeclaredAlgorithm,
    key_use: Option<&str>,
    operations: Option<&[String]>,
    members: &Members<'_>,
    numbers: &Numbers,
    rules: &KeyRules,
) -> Result<AlgorithmSet, Reason> {
    if members.named.contains_key("revoked") {
        return Err(Reason::Revoked);
    }
    if key_use.is_some_and(|text| text != "sig") {
        return Err(Reason::UseNotSig);
    }
    if let Some(operations) = operations {
        if !operations.iter().any(|operation| operation == "verify") {
            return Err(Reason::KeyOpsWithoutVerify);
        }
        if operations.iter().collect::<BTreeSet<_>>().len() != operations.len() {
            return Err(Reason::KeyOpsRepeated);
        }
    }
    let mut algorithms = numbers.verifiable();
    match *declared {
        DeclaredAlgorithm::Absent => {}
        DeclaredAlgorithm::Other(_) => return Err(Reason::AlgorithmSignsNothing),
        DeclaredAlgorithm::Signs(algorithm) => {
            algorithms = algorithms.and(AlgorithmSet::from_iter([algorithm]));
        }
    }
    if let Some(weakness) = numbers.weakness(rules.min_rsa_bits) {
        return Err(weakness);
    }
    if algorithms.is_empty() {
        // Only RSA has algorithms of its family that a short key does not serve.
        return Err(Reason::RsaTooShort);
    }
    if *declared == DeclaredAlgorithm::Absent {
        algorithms = algorithms.and(rules.without_alg);
    }
    let algorithms = algorithms.and(rules.algorithms);
    if algorithms.is_empty() { Err(Reason::AlgorithmNotAllowed) } else { Ok(algorithms) }
}

/// The members of an entry, unread.
#[derive(Default)]
pub(super) struct Members<'a> {
    named: BTreeMap<Cow<'a, str>, &'a RawValue>,
    repeated: bool,
}

impl<'a> Members<'a> {
    /// The member as text, if it is there.
    fn text(&self, name: &'static str) -> Result<Option<Cow<'a, str>>, Reason> {
        let Some(raw) = self.raw(name)? else { return Ok(None) };
        let Text(text) = serde_json::from_str(raw.get()).map_err(|_| Reason::Malformed(name))?;
        Ok(Some(text))
    }

    /// The member as text, which must be there.
    pub(super) fn required(&self, name: &'static str) -> Result<Cow<'a, str>, Reason> {
        self.text(name)?.ok_or(Reason::Missing(name))
    }

    fn strings(&self, name: &'static str) -> Result<Option<Vec<String>>, Reason> {
        let Some(raw) = self.raw(name)? else { return Ok(None) };
        serde_json::from_str(raw.get()).map(Some).map_err(|_| Reason::Malformed(name))
    }

    fn kid(&self) -> Result<Option<Cow<'a, str>>, Reason> {
        match self.text("kid")? {
            Some(kid) if kid.len() > MAX_KID => Err(Reason::TooLong("kid")),
            kid => Ok(kid),
        }
    }

    fn raw(&self, name: &'static str) -> Result<Option<&'a RawValue>, Reason> {
        match self.named.get(name) {
            Some(raw) if raw.get().len() > MAX_MEMBER => Err(Reason::TooLong(name)),
            raw => Ok(raw.copied()),
        }
    }

    /// What callers of `jsonwebtoken` read beside the numbers. Members that it would refuse, such as an odd
    /// `x5c`, are left out: they are no reason to lose the key.
    fn common(&self) -> CommonParameters {
        CommonParameters {
            public_key_use: self.lenient("use"),
            key_operations: self.lenient("key_ops"),
            key_algorithm: self.lenient("alg"),
            key_id: self.lenient("kid"),
            x509_url: self.lenient("x5u"),
            x509_chain: self.lenient("x5c"),
            x509_sha1_fingerprint: self.lenient("x5t"),
            x509_sha256_fingerprint: self.lenient("x5t#S256"),
        }
    }

    fn lenient<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        serde_json::from_str::<Option<T>>(self.named.get(name)?.get()).ok().flatten()
    }

    fn material(&self) -> Option<Thumbprint> {
        let kty = self.required("kty").ok()?;
        Numbers::read(&kty, self).ok().map(|numbers| numbers.thumbprint())
    }

    fn unfit(&self, reason: Reason) -> Unfit {
        let label = |name| self.text(name).ok().flatten().map(Into::into);
        Unfit {
            kid: self.kid().ok().flatten().map(Into::into),
            kty: label("kty"),
            alg: label("alg"),
            key_use: label("use"),
            curve: label("crv"),
            material: None,
            reason,
            place: None,
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = Members::default();
                while let Some((Text(name), value)) = map.next_entry::<Text<'de>, &'de RawValue>()? {
                    members.repeated |= members.named.insert(name, value).is_some();
                }
                Ok(members)
            }
        }
        deserializer.deserialize_map(Collect)
    }
}

/// A string, borrowed where it holds no escapes.
#[derive(Deserialize)]
pub(super) struct Text<'a>(#[serde(borrow)] pub(super) Cow<'a, str>);
