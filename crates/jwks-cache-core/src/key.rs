//! One public key: what it says of itself, what it may verify, and the verifying.
//!
//! This room does not know documents, kids of other keys or policies: [`crate::keyset`] decides what a key
//! may do before it is made, and [`crate::select`] which key answers.

mod name;
mod spki;

use std::fmt;
use std::ops::{Deref, Range};
use std::str::FromStr;
use std::sync::{Arc, OnceLock};

use aws_lc_rs::signature::{
    self, ParsedPublicKey, RsaParameters, RsaPublicKeyComponents, VerificationAlgorithm,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::DecodingKey;
use jsonwebtoken::jwk::{AlgorithmParameters, Jwk, JwkSet, PublicKeyUse};

use self::name::Name;
use crate::keyset::{KeyRules, Reason};
use crate::{Algorithm, AlgorithmSet};

/// The SHA-256 JWK thumbprint of RFC 7638: the same for the same key material, whatever else a document
/// says of it and however it pads or prefixes its numbers. Written as 43 characters of base64url.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Thumbprint([u8; 32]);

impl Thumbprint {
    /// The thumbprint whose digest is `digest`.
    #[must_use]
    pub const fn from_bytes(digest: [u8; 32]) -> Self {
        Self(digest)
    }

    /// The digest.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Thumbprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl fmt::Debug for Thumbprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not 32 bytes in unpadded base64url.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAThumbprint;

impl fmt::Display for NotAThumbprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not an RFC 7638 thumbprint: 43 characters of base64url are expected")
    }
}

impl std::error::Error for NotAThumbprint {}

impl FromStr for Thumbprint {
    type Err = NotAThumbprint;

    fn from_str(text: &str) -> Result<Self, NotAThumbprint> {
        let digest = URL_SAFE_NO_PAD.decode(text).map_err(|_| NotAThumbprint)?;
        digest.try_into().map(Self).map_err(|_| NotAThumbprint)
    }
}

/// The key types of public keys (RFC 7518 §6.1, RFC 8037 §2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyType {
    /// RSA.
    Rsa,
    /// Elliptic curve.
    Ec,
    /// Octet key pair: Edwards curves.
    Okp,
}

impl KeyType {
    /// The value of the member `kty`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rsa => "RSA",
            Self::Ec => "EC",
            Self::Okp => "OKP",
        }
    }
}

impl fmt::Display for KeyType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The curves that a signature can be verified on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Curve {
    /// NIST P-256.
    P256,
    /// NIST P-384.
    P384,
    /// NIST P-521.
    P521,
    /// secp256k1 (RFC 8812 §3.1).
    Secp256k1,
    /// Ed25519 (RFC 8037 §2).
    Ed25519,
}

impl Curve {
    /// The value of the member `crv`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::P256 => "P-256",
            Self::P384 => "P-384",
            Self::P521 => "P-521",
            Self::Secp256k1 => "secp256k1",
            Self::Ed25519 => "Ed25519",
        }
    }
}

impl fmt::Display for Curve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What the member `alg` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum DeclaredAlgorithm {
    /// Nothing: the member is absent.
    Absent,
    /// An asymmetric signature algorithm.
    Signs(Algorithm),
    /// A name that signs nothing here.
    Other(Box<str>),
}

/// What judging a key found.
#[derive(Clone)]
#[repr(C)] // what a lookup reads stands at the front
pub(crate) struct Findings {
    pub(crate) algorithms: AlgorithmSet,
    pub(crate) kty: KeyType,
    pub(crate) curve: Option<Curve>,
    pub(crate) bits: u32,
    pub(crate) issuer: Option<Box<str>>,
    pub(crate) declared: DeclaredAlgorithm,
    pub(crate) thumbprint: Thumbprint,
    /// Boxed, as it is rare.
    pub(crate) set_aside: Option<Box<Reason>>,
}

impl Findings {
    /// Takes from the key the right to verify.
    pub(crate) fn put_aside(&mut self, reason: Reason) {
        self.set_aside = Some(Box::new(reason));
        self.algorithms = AlgorithmSet::NONE;
    }
}

/// A well-formed public key of a judged document.
///
/// A key that was set aside is still one, for callers who choose keys themselves; it verifies nothing.
/// It shares the [`JwkSet`] of its document: the numbers are held once, as text, until a first use parses them.
///
/// What a lookup reads of it stands in its first line.
#[repr(C, align(64))]
pub struct Key {
    name: Name,
    /// Its place among those that stand beside it.
    at: u32,
    /// Its number in the set; of 32 bits, as there are many keys, and never so many in one set.
    index: u32,
    findings: Findings,
    parsed: OnceLock<Arc<Parsed>>,
    set: Arc<JwkSet>,
    said: Said,
}

// Three lines of memory at most: of many providers there are many keys.
const _: () = assert!(size_of::<Key>() <= 192);

/// A key with those that stand beside it: keys of one document lie in one piece of memory, as each piece lies far away.
#[derive(Clone)]
pub struct SharedKey {
    beside: Arc<[Key]>,
    at: u32,
}

/// What the publisher said of a key, word by word.
#[derive(Clone)]
pub(crate) struct Said {
    /// The whole document: keys of one share it.
    pub(crate) document: Arc<str>,
    /// Where the key stands in it.
    pub(crate) place: Place,
}

/// A place in a document, in half the room: there are many keys, and no document of 4 GiB. What would stand beyond is nowhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place(u32, u32);

impl Place {
    pub(crate) fn of(range: Range<usize>) -> Self {
        let end = |at: usize| u32::try_from(at).ok();
        end(range.start).zip(end(range.end)).map(|(start, end)| Self(start, end)).unwrap_or_default()
    }

    pub(crate) const fn range(self) -> Range<usize> {
        self.0 as usize..self.1 as usize
    }
}

/// A parsed key for one algorithm. The list only grows, so readers take no lock; most keys serve one algorithm.
struct Parsed {
    algorithm: Algorithm,
    key: ParsedPublicKey,
    next: OnceLock<Arc<Parsed>>,
}

impl Key {
    /// The key at `index` of `set`, which will stand at the same place; none beyond its end.
    pub(crate) fn new(findings: Findings, said: Said, set: Arc<JwkSet>, index: usize) -> Option<Self> {
        let name = Name::of(set.keys.get(index)?.common.key_id.as_deref());
        let index = u32::try_from(index).ok()?;
        Some(Self { name, findings, parsed: OnceLock::new(), set, said, index, at: index })
    }

    /// The same key of `set`, which has it at `index`; none where it has not. What is parsed of it is shared.
    pub(crate) fn of(&self, set: Arc<JwkSet>, index: usize) -> Option<Self> {
        let same = Self::new(self.findings.clone(), self.said.clone(), set, index)?;
        Some(Self { parsed: self.parsed.clone(), ..same })
    }

    /// Whether its kid is this one.
    pub(crate) fn is_named(&self, kid: &str) -> bool {
        self.name.is(kid).unwrap_or_else(|| self.kid() == Some(kid))
    }

    /// The key as callers of `jsonwebtoken` know it, its numbers encoded canonically.
    #[must_use]
    pub fn jwk(&self) -> &Jwk {
        self.set.keys.get(self.index as usize).expect("`new` looked")
    }

    /// The key as it was published: a JSON object, without private members, for with any it would be no key.
    #[must_use]
    pub fn text(&self) -> &str {
        self.said.document.get(self.place()).unwrap_or_default()
    }

    /// Where it stands in the published text.
    pub(crate) const fn place(&self) -> Range<usize> {
        self.said.place.range()
    }

    /// The member `kid`; an empty one is a kid like any other.
    #[must_use]
    pub fn kid(&self) -> Option<&str> {
        self.jwk().common.key_id.as_deref()
    }

    /// The RFC 7638 thumbprint.
    #[must_use]
    pub const fn thumbprint(&self) -> Thumbprint {
        self.findings.thumbprint
    }

    /// The key's type.
    #[must_use]
    pub const fn kty(&self) -> KeyType {
        self.findings.kty
    }

    /// The key's curve; none for RSA.
    #[must_use]
    pub const fn curve(&self) -> Option<Curve> {
        self.findings.curve
    }

    /// The size in bits: of the modulus for RSA, of the field for curves.
    #[must_use]
    pub const fn bits(&self) -> u32 {
        self.findings.bits
    }

    /// The signature algorithm that the key declares in `alg`; none when it declares none or one that signs
    /// nothing here.
    #[must_use]
    pub const fn algorithm(&self) -> Option<Algorithm> {
        match self.findings.declared {
            DeclaredAlgorithm::Signs(algorithm) => Some(algorithm),
            DeclaredAlgorithm::Absent | DeclaredAlgorithm::Other(_) => None,
        }
    }

    /// The member `alg` as text, known or not.
    #[must_use]
    pub fn alg(&self) -> Option<&str> {
        match &self.findings.declared {
            DeclaredAlgorithm::Absent => None,
            DeclaredAlgorithm::Signs(algorithm) => Some(algorithm.as_str()),
            DeclaredAlgorithm::Other(name) => Some(name),
        }
    }

    /// The member `use`.
    #[must_use]
    pub fn key_use(&self) -> Option<&str> {
        self.jwk().common.public_key_use.as_ref().map(|key_use| match key_use {
            PublicKeyUse::Signature => "sig",
            PublicKeyUse::Encryption => "enc",
            PublicKeyUse::Other(other) => other,
        })
    }

    /// The member `issuer`: the only issuer whose tokens this key may verify. Entra ID publishes it.
    #[must_use]
    pub fn issuer(&self) -> Option<&str> {
        self.findings.issuer.as_deref()
    }

    /// What the key may verify: what its type can, it declares, the rules allow and the backend does.
    /// Empty exactly when the key was set aside.
    #[must_use]
    pub const fn algorithms(&self) -> AlgorithmSet {
        self.findings.algorithms
    }

    /// Whether the key may verify anything.
    #[must_use]
    pub const fn is_usable(&self) -> bool {
        self.findings.set_aside.is_none()
    }

    /// Why the key may verify nothing.
    #[must_use]
    pub fn set_aside(&self) -> Option<&Reason> {
        self.findings.set_aside.as_deref()
    }

    /// The key ready to verify `algorithm`, parsed at the first use; none unless it may.
    fn verifier(&self, algorithm: Algorithm) -> Option<&ParsedPublicKey> {
        if !self.findings.algorithms.contains(algorithm) {
            return None;
        }
        let mut slot = &self.parsed;
        let mut own: Option<Arc<Parsed>> = None;
        loop {
            if slot.get().is_none() {
                let entry = match own.take() {
                    Some(entry) => entry,
                    None => {
                        Arc::new(Parsed { algorithm, key: self.parse(algorithm)?, next: OnceLock::new() })
                    }
                };
                // Whoever comes second gets its entry back, and takes it on to the next slot.
                own = slot.set(entry).err();
            }
            let parsed = slot.get()?;
            if parsed.algorithm == algorithm {
                return Some(&parsed.key);
            }
            slot = &parsed.next;
        }
    }

    fn parse(&self, algorithm: Algorithm) -> Option<ParsedPublicKey> {
        let decode = |text: &str| URL_SAFE_NO_PAD.decode(text).ok();
        let parameters = curve_parameters(algorithm);
        let curve_key = |point: Vec<u8>| ParsedPublicKey::new(parameters?, point).ok();
        let uncompressed = |x: &str, y: &str| Some([vec![4], decode(x)?, decode(y)?].concat());
        match &self.jwk().algorithm {
            AlgorithmParameters::RSA(rsa) => {
                let components = RsaPublicKeyComponents { n: decode(&rsa.n)?, e: decode(&rsa.e)? };
                components.to_parsed_public_key(rsa_parameters(algorithm, self.bits())?).ok()
            }
            AlgorithmParameters::EllipticCurve(point) => curve_key(uncompressed(&point.x, &point.y)?),
            AlgorithmParameters::OctetKeyPair(point) => curve_key(decode(&point.x)?),
            // secp256k1, for which the library has no name.
            AlgorithmParameters::Other(point) => {
                let text = |name| point.fields.get(name).and_then(|value| value.as_str());
                curve_key(uncompressed(text("x")?, text("y")?)?)
            }
            _ => None,
        }
    }
}

/// RSA keys below 2048 bits verify only by what the backend calls legacy.
fn rsa_parameters(algorithm: Algorithm, bits: u32) -> Option<&'static RsaParameters> {
    Some(match algorithm {
        Algorithm::RS256 if bits < 2048 => &signature::RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY,
        Algorithm::RS512 if bits < 2048 => &signature::RSA_PKCS1_1024_8192_SHA512_FOR_LEGACY_USE_ONLY,
        Algorithm::RS256 => &signature::RSA_PKCS1_2048_8192_SHA256,
        Algorithm::RS384 => &signature::RSA_PKCS1_2048_8192_SHA384,
        Algorithm::RS512 => &signature::RSA_PKCS1_2048_8192_SHA512,
        Algorithm::PS256 => &signature::RSA_PSS_2048_8192_SHA256,
        Algorithm::PS384 => &signature::RSA_PSS_2048_8192_SHA384,
        Algorithm::PS512 => &signature::RSA_PSS_2048_8192_SHA512,
        _ => return None,
    })
}

pub(crate) fn curve_parameters(algorithm: Algorithm) -> Option<&'static dyn VerificationAlgorithm> {
    Some(match algorithm {
        Algorithm::ES256 => &signature::ECDSA_P256_SHA256_FIXED,
        Algorithm::ES384 => &signature::ECDSA_P384_SHA384_FIXED,
        Algorithm::ES512 => &signature::ECDSA_P521_SHA512_FIXED,
        Algorithm::ES256K => &signature::ECDSA_P256K1_SHA256_FIXED,
        Algorithm::EdDSA => &signature::ED25519,
        _ => return None,
    })
}

impl fmt::Debug for Key {
    /// Prints no material; the kid is escaped.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key")
            .field("kid", &self.kid())
            .field("thumbprint", &self.findings.thumbprint)
            .field("kty", &self.findings.kty)
            .field("algorithms", &self.findings.algorithms)
            .field("set_aside", &self.findings.set_aside)
            .finish_non_exhaustive()
    }
}

impl SharedKey {
    /// The one at this place; none beyond their end.
    pub(crate) fn of(beside: &Arc<[Key]>, at: u32) -> Option<Self> {
        beside.get(at as usize)?;
        Some(Self { beside: Arc::clone(beside), at })
    }

    /// The key under narrower rules; none when they leave it nothing to verify. Wider rules give nothing back.
    pub(crate) fn narrowed(&self, rules: &KeyRules) -> Option<Self> {
        let algorithms = self.algorithms().and(rules.algorithms);
        let too_short = self.kty() == KeyType::Rsa && self.bits() < rules.min_rsa_bits;
        if too_short || algorithms.is_empty() {
            return None;
        }
        if algorithms == self.algorithms() {
            return Some(self.clone());
        }
        let findings = Findings { algorithms, ..self.findings.clone() };
        let same = Key::new(findings, self.said.clone(), self.set.clone(), self.index as usize)?;
        Some(Self { beside: Arc::new([Key { at: 0, ..same }]), at: 0 })
    }
}

impl Deref for SharedKey {
    type Target = Key;

    fn deref(&self) -> &Key {
        self.beside.get(self.at as usize).expect("who made it looked")
    }
}

impl fmt::Debug for SharedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

/// A key bound to the one algorithm it verifies here, borrowed from its set.
#[derive(Clone, Copy)]
pub struct KeyRef<'a> {
    key: &'a Key,
    /// Those that it stands among.
    beside: &'a Arc<[Key]>,
    algorithm: Algorithm,
}

impl<'a> KeyRef<'a> {
    /// Binds `key` to `algorithm`; none unless the key may verify it.
    #[must_use]
    pub fn new(key: &'a SharedKey, algorithm: Algorithm) -> Option<Self> {
        Self::among(&key.beside, key, algorithm)
    }

    /// The same, of a key that stands among these.
    pub(crate) fn among(beside: &'a Arc<[Key]>, key: &'a Key, algorithm: Algorithm) -> Option<Self> {
        key.algorithms().contains(algorithm).then_some(Self { key, beside, algorithm })
    }

    /// The key.
    #[must_use]
    pub const fn key(&self) -> &'a Key {
        self.key
    }

    /// The key's kid.
    #[must_use]
    pub fn kid(&self) -> Option<&'a str> {
        self.key.kid()
    }

    /// The key's thumbprint.
    #[must_use]
    pub fn thumbprint(&self) -> Thumbprint {
        self.key.thumbprint()
    }

    /// The algorithm that [`KeyRef::verify`] checks.
    #[must_use]
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Checks `signature`, in the form a JWS carries (RFC 7518 §3), over `input`.
    ///
    /// # Errors
    /// The signature is not one of this key over this input by this algorithm.
    pub fn verify(&self, input: &[u8], signature: &[u8]) -> Result<(), BadSignature> {
        let parsed = self.key.verifier(self.algorithm).ok_or(BadSignature)?;
        parsed.verify_sig(input, signature).map_err(|_| BadSignature)
    }

    /// The same, shared: it outlives the set.
    #[must_use]
    pub fn to_shared(&self) -> VerificationKey {
        let shared = SharedKey { beside: Arc::clone(self.beside), at: self.key.at };
        VerificationKey { shared, algorithm: self.algorithm }
    }
}

/// A key bound to the one algorithm it verifies here. It keeps the keys of its document in memory, as they are one piece.
#[derive(Clone)]
pub struct VerificationKey {
    shared: SharedKey,
    algorithm: Algorithm,
}

impl VerificationKey {
    /// Binds `key` to `algorithm`; none unless the key may verify it.
    #[must_use]
    pub fn new(key: &SharedKey, algorithm: Algorithm) -> Option<Self> {
        KeyRef::new(key, algorithm).map(|key| key.to_shared())
    }

    /// The key.
    #[must_use]
    pub fn key(&self) -> &Key {
        &self.shared
    }

    /// The same, borrowed.
    #[must_use]
    pub fn borrowed(&self) -> KeyRef<'_> {
        KeyRef { key: &self.shared, beside: &self.shared.beside, algorithm: self.algorithm }
    }

    /// The key's kid.
    #[must_use]
    pub fn kid(&self) -> Option<&str> {
        self.key().kid()
    }

    /// The key's thumbprint.
    #[must_use]
    pub fn thumbprint(&self) -> Thumbprint {
        self.key().thumbprint()
    }

    /// The algorithm that [`VerificationKey::verify`] checks.
    #[must_use]
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The key for those who decode with `jsonwebtoken` themselves; none for algorithms that it does not know.
    /// It needs no backend and never panics; their `decode` needs exactly one, or an installed one.
    ///
    /// It forgets which algorithm it is bound to: put this one alone into the `Validation`.
    #[must_use]
    pub fn decoding_key(&self) -> Option<DecodingKey> {
        jsonwebtoken::Algorithm::from_str(self.algorithm.as_str()).ok()?;
        DecodingKey::from_jwk(self.key().jwk()).ok()
    }

    /// As [`KeyRef::verify`].
    ///
    /// # Errors
    /// As [`KeyRef::verify`].
    pub fn verify(&self, input: &[u8], signature: &[u8]) -> Result<(), BadSignature> {
        self.borrowed().verify(input, signature)
    }
}

impl fmt::Debug for KeyRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.to_shared(), f)
    }
}

impl fmt::Debug for VerificationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerificationKey")
            .field("kid", &self.kid())
            .field("thumbprint", &self.thumbprint())
            .field("algorithm", &self.algorithm)
            .finish_non_exhaustive()
    }
}

/// The signature does not fit the key, the input and the algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadSignature;

impl fmt::Display for BadSignature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the signature does not verify")
    }
}

impl std::error::Error for BadSignature {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thumbprint_reads_back_what_it_writes_and_nothing_else() {
        let thumbprint = Thumbprint::from_bytes([0xfb; 32]);
        assert_eq!(thumbprint.to_string().parse(), Ok(thumbprint));
        let padded = format!("{thumbprint}=");
        for text in ["", "kid", "AAAA", "not base64url!", padded.as_str()] {
            assert_eq!(text.parse::<Thumbprint>(), Err(NotAThumbprint), "{text:?}");
        }
    }
}
