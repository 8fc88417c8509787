//! The other forms that public keys are published in: PEM (RFC 7468) and maps of kids to X.509 certificates. Each is
//! turned into the JWKS that it stands for, and that is judged like any other; nothing is judged here.

use std::fmt::Write as _;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde::de::{Deserializer as _, MapAccess, Visitor};
use serde_json::{Value, json};

use crate::keyset::Refusal;

/// The JWKS of one public key in PEM: `PUBLIC KEY`, `RSA PUBLIC KEY`, or the first `CERTIFICATE` of a chain.
///
/// # Errors
/// [`Refusal::NotPem`] says what is wrong. A text that holds a private key is refused whole.
pub fn jwks_of_pem(document: &[u8], kid: &str) -> Result<String, Refusal> {
    let text = std::str::from_utf8(document).map_err(|_| Refusal::NotUtf8)?;
    let mut key = jwk_of_pem(text).map_err(Refusal::NotPem)?;
    if let Some(members) = key.as_object_mut() {
        members.insert("kid".to_owned(), kid.into());
    }
    Ok(json!({ "keys": [key] }).to_string())
}

/// The JWKS of a JSON object of kids and certificates in PEM, as Google serves it. One bad certificate does not cost
/// the others: it stands in the set as an entry that will be set aside.
///
/// # Errors
/// [`Refusal::NotX509Map`].
pub fn jwks_of_x509_map(document: &[u8]) -> Result<String, Refusal> {
    let text = std::str::from_utf8(document).map_err(|_| Refusal::NotUtf8)?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut keys = String::new();
    for (n, (kid, pem)) in entries(text)?.into_iter().enumerate() {
        let mut key = jwk_of_pem(&pem).unwrap_or_else(|_| json!({ "kty": "X.509" }));
        if let Some(members) = key.as_object_mut() {
            members.insert("kid".to_owned(), kid.into());
            members.insert("use".to_owned(), "sig".into());
        }
        let _ = write!(keys, "{}{key}", if n == 0 { "" } else { "," });
    }
    Ok(format!(r#"{{"keys":[{keys}]}}"#))
}

/// In their order, and with a kid that stands there twice.
fn entries(text: &str) -> Result<Vec<(String, String)>, Refusal> {
    struct Entries;
    impl<'de> Visitor<'de> for Entries {
        type Value = Vec<(String, String)>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an object of kids and certificates")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut entries = Vec::new();
            while let Some(entry) = map.next_entry()? {
                entries.push(entry);
            }
            Ok(entries)
        }
    }
    let mut json = serde_json::Deserializer::from_str(text);
    let entries = json.deserialize_map(Entries).map_err(|_| Refusal::NotX509Map)?;
    json.end().map_err(|_| Refusal::NotX509Map)?;
    Ok(entries)
}

type Found<T> = Result<T, &'static str>;

fn jwk_of_pem(text: &str) -> Found<Value> {
    const HALF: &str = "it ends within a block";
    let mut rest = text;
    let mut found = None;
    while let Some((_, begun)) = rest.split_once("-----BEGIN ") {
        let (label, body) = begun.split_once("-----").ok_or(HALF)?;
        let (body, after) = body.split_once("-----END ").ok_or(HALF)?;
        let (closing, after) = after.split_once("-----").ok_or(HALF)?;
        if closing != label {
            return Err("a block ends as another than it began");
        }
        rest = after;
        if label.contains("PRIVATE") {
            return Err(
                "it holds a private key: give the public key alone, and take the private one for known",
            );
        }
        // A chain: the first certificate is that of the key, the others vouch for it.
        if label == "CERTIFICATE" && matches!(found, Some(("CERTIFICATE", _))) {
            continue;
        }
        let body: String = body.split_whitespace().collect();
        let der = STANDARD.decode(body).map_err(|_| "a block is not base64")?;
        let key = match label {
            "PUBLIC KEY" => public_key(&der),
            "RSA PUBLIC KEY" => rsa(&der),
            "CERTIFICATE" | "X509 CERTIFICATE" | "TRUSTED CERTIFICATE" => certified(&der),
            _ => continue,
        }?;
        if found.replace((label, key)).is_some() {
            return Err("it holds several keys, and one kid names one");
        }
    }
    found.map(|(_, key)| key).ok_or("it has no block PUBLIC KEY, RSA PUBLIC KEY or CERTIFICATE")
}

const MALFORMED: &str = "a block is not the DER that its name promises";

/// The key of a certificate (RFC 5280 §4.1). Neither its signature nor its dates are looked at: who published it is
/// believed for where it was published.
fn certified(der: &[u8]) -> Found<Value> {
    let (certificate, _) = sequence(der)?;
    let (mut fields, _) = sequence(certificate)?;
    const VERSION: u8 = 0xa0;
    if let (VERSION, _, rest) = value(fields)? {
        fields = rest;
    }
    // Serial number, algorithm, issuer, validity, subject.
    for _ in 0..5 {
        (_, _, fields) = value(fields)?;
    }
    let (_, _, after) = value(fields)?;
    let whole =
        fields.len().checked_sub(after.len()).and_then(|length| fields.get(..length)).ok_or(MALFORMED)?;
    public_key(whole)
}

/// A SubjectPublicKeyInfo (RFC 5280 §4.1.2.7, RFC 3279 §2.3, RFC 8410 §4).
fn public_key(der: &[u8]) -> Found<Value> {
    const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1];
    const EC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1];
    const ED25519: &[u8] = &[0x2b, 0x65, 0x70];
    let (info, _) = sequence(der)?;
    let (algorithm, key) = sequence(info)?;
    let (oid, parameters) = tagged(algorithm, OID)?;
    let (bits, _) = tagged(key, BIT_STRING)?;
    // The first octet counts unused bits, of which a key has none.
    let Some((0, key)) = bits.split_first() else { return Err(MALFORMED) };
    match oid {
        RSA => rsa(key),
        EC => elliptic(tagged(parameters, OID)?.0, key),
        ED25519 => Ok(json!({ "kty": "OKP", "crv": "Ed25519", "x": encoded(key) })),
        _ => Err("its key is of a kind that verifies no token here: RSA, EC or Ed25519 would"),
    }
}

/// An RSAPublicKey (RFC 8017 §A.1.1).
fn rsa(der: &[u8]) -> Found<Value> {
    let (numbers, _) = sequence(der)?;
    let (n, rest) = tagged(numbers, INTEGER)?;
    let (e, _) = tagged(rest, INTEGER)?;
    Ok(json!({ "kty": "RSA", "n": encoded(unsigned(n)), "e": encoded(unsigned(e)) }))
}

/// A point that is not compressed (SEC 1 §2.3.3) of a named curve (RFC 5480 §2.1.1.1).
fn elliptic(curve: &[u8], point: &[u8]) -> Found<Value> {
    let (curve, size) = match curve {
        [0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7] => ("P-256", 32),
        [0x2b, 0x81, 4, 0, 0x22] => ("P-384", 48),
        [0x2b, 0x81, 4, 0, 0x23] => ("P-521", 66),
        [0x2b, 0x81, 4, 0, 0x0a] => ("secp256k1", 32),
        _ => return Err("its curve serves no token algorithm: P-256, P-384, P-521 and secp256k1 do"),
    };
    let Some((4, point)) = point.split_first() else {
        return Err("its point is compressed: write the key with both coordinates");
    };
    let (Some(x), Some(y)) = (point.get(..size), point.get(size..).filter(|y| y.len() == size)) else {
        return Err(MALFORMED);
    };
    Ok(json!({ "kty": "EC", "crv": curve, "x": encoded(x), "y": encoded(y) }))
}

fn encoded(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Without the octet that keeps a positive number positive (X.690 §8.3).
fn unsigned(number: &[u8]) -> &[u8] {
    match number {
        [0, rest @ ..] if !rest.is_empty() => rest,
        all => all,
    }
}

const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OID: u8 = 0x06;
const SEQUENCE: u8 = 0x30;

fn sequence(der: &[u8]) -> Found<(&[u8], &[u8])> {
    tagged(der, SEQUENCE)
}

/// The content of the first value, which must have this tag, and what follows it.
fn tagged(der: &[u8], tag: u8) -> Found<(&[u8], &[u8])> {
    match value(der)? {
        (found, content, rest) if found == tag => Ok((content, rest)),
        _ => Err(MALFORMED),
    }
}

/// The first value (X.690 §8.1): its tag, its content, and what follows it. Lengths of up to 64 KiB; no key has more.
fn value(der: &[u8]) -> Found<(u8, &[u8], &[u8])> {
    let (length, rest) = match *der {
        [_, length @ 0..=0x7f, ref rest @ ..] => (usize::from(length), rest),
        [_, 0x81, length, ref rest @ ..] => (usize::from(length), rest),
        [_, 0x82, high, low, ref rest @ ..] => (usize::from(u16::from_be_bytes([high, low])), rest),
        _ => return Err(MALFORMED),
    };
    match (der.first(), rest.get(..length), rest.get(length..)) {
        (Some(tag), Some(content), Some(rest)) => Ok((*tag, content, rest)),
        _ => Err(MALFORMED),
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
    use aws_lc_rs::rand as chance;
    use aws_lc_rs::rsa::KeySize;
    use aws_lc_rs::signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
        KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
    };

    use super::*;
    use crate::Algorithm;
    use crate::keyset::{KeyRules, KeySet, Reason, Verdict};

    fn pem(label: &str, der: &[u8]) -> String {
        format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
    }

    fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
        let content = parts.concat();
        let length = u16::try_from(content.len()).unwrap().to_be_bytes();
        [&[tag, 0x82], &length[..], &content].concat()
    }

    /// A certificate of this key, as far as anybody looks into one.
    fn certificate(key: &[u8]) -> Vec<u8> {
        let (number, any) = (der(INTEGER, &[&[1]]), der(SEQUENCE, &[]));
        let version = der(0xa0, &[&der(INTEGER, &[&[2]])]);
        let to_be_signed = der(SEQUENCE, &[&version, &number, &any, &any, &any, &any, key, &der(0xa3, &[])]);
        der(SEQUENCE, &[&to_be_signed, &any, &der(BIT_STRING, &[&[0, 1, 2]])])
    }

    fn ed25519() -> (Ed25519KeyPair, Vec<u8>) {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
        let spki: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
        let spki = spki.as_ref().to_vec();
        (pair, spki)
    }

    fn judged(jwks: Result<String, Refusal>) -> KeySet {
        KeySet::judge(jwks.unwrap().as_bytes(), &KeyRules::default()).unwrap()
    }

    fn verifies(set: &KeySet, algorithm: Algorithm, signature: &[u8]) {
        set.find(Some("k"), algorithm).unwrap().verify(b"said", signature).unwrap();
    }

    #[test]
    fn a_key_in_pem_verifies_what_its_owner_signed_whether_bare_or_certified() {
        let random = chance::SystemRandom::new();
        let (pair, spki) = ed25519();
        let other = Ed25519KeyPair::from_seed_unchecked(&[8; 32]).unwrap();
        let another: PublicKeyX509Der<'_> = other.public_key().as_der().unwrap();
        let another = another.as_ref().to_vec();
        let signature = pair.sign(b"said");
        for text in [
            pem("PUBLIC KEY", &spki),
            pem("CERTIFICATE", &certificate(&spki)),
            // A chain: who vouches for the key is another, with a key of whatever kind.
            pem("CERTIFICATE", &certificate(&spki)) + &pem("CERTIFICATE", b"other"),
            pem("CERTIFICATE", &certificate(&spki)) + &pem("CERTIFICATE", &certificate(&another)),
            format!("subject: CN=x\r\n{}", pem("PUBLIC KEY", &spki).replace('\n', "\r\n")),
        ] {
            verifies(&judged(jwks_of_pem(text.as_bytes(), "k")), Algorithm::EdDSA, signature.as_ref());
        }

        for (kind, algorithm) in [
            (&ECDSA_P256_SHA256_FIXED_SIGNING, Algorithm::ES256),
            (&ECDSA_P521_SHA512_FIXED_SIGNING, Algorithm::ES512),
        ] {
            let pair = EcdsaKeyPair::generate(kind).unwrap();
            let spki: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
            let signature = pair.sign(&random, b"said").unwrap();
            let text = pem("PUBLIC KEY", spki.as_ref());
            verifies(&judged(jwks_of_pem(text.as_bytes(), "k")), algorithm, signature.as_ref());
        }

        let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let spki: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
        let mut signature = vec![0; pair.public_modulus_len()];
        pair.sign(&RSA_PKCS1_SHA256, &random, b"said", &mut signature).unwrap();
        for text in [
            pem("PUBLIC KEY", spki.as_ref()),
            pem("RSA PUBLIC KEY", pair.public_key().as_ref()),
            pem("CERTIFICATE", &certificate(spki.as_ref())),
        ] {
            verifies(&judged(jwks_of_pem(text.as_bytes(), "k")), Algorithm::RS256, &signature);
        }
    }

    #[test]
    fn what_is_not_one_whole_public_key_is_refused_with_what_to_do() {
        let (_, spki) = ed25519();
        let good = pem("PUBLIC KEY", &spki);
        let check = |text: &str, want: &str| {
            let refused = jwks_of_pem(text.as_bytes(), "k").unwrap_err();
            assert!(refused.to_string().contains(want), "{text}: {refused}");
        };
        check("", "no block");
        check(&pem("PUBLIC THING", b"x"), "no block");
        check(&format!("{good}{}", pem("EC PRIVATE KEY", b"x")), "private key");
        check(&format!("{good}{good}"), "several keys");
        check(&good.replace("END PUBLIC", "END ANOTHER"), "ends as another");
        check(&pem("PUBLIC KEY", b"0"), "DER");
        check(&pem("CERTIFICATE", &spki), "DER");
        check(&good.replace("MCow", "M*ow"), "base64");
        // Half written: cut anywhere, it is no key.
        for at in 0..good.len() - 6 {
            assert!(jwks_of_pem(&good.as_bytes()[..at], "k").is_err(), "cut at {at}");
        }
        let mut x25519 = spki;
        let oid = x25519.windows(3).position(|part| part == [0x2b, 0x65, 0x70]).unwrap();
        x25519[oid + 2] = 0x6e;
        check(&pem("PUBLIC KEY", &x25519), "verifies no token");
    }

    #[test]
    fn one_bad_certificate_of_a_map_does_not_cost_the_others() {
        let (pair, spki) = ed25519();
        let good = pem("CERTIFICATE", &certificate(&spki));
        let map = json!({ "k": good, "bad": "-----BEGIN CERTIFICATE-----" }).to_string();
        let set = judged(jwks_of_x509_map(map.as_bytes()));
        verifies(&set, Algorithm::EdDSA, pair.sign(b"said").as_ref());
        let bad = set.ledger().iter().find(|entry| entry.kid() == Some("bad")).unwrap();
        assert!(matches!(bad.verdict(), Verdict::SetAside { well_formed: false, .. }), "{bad:?}");

        let refused = |text: &str| jwks_of_x509_map(text.as_bytes()).unwrap_err();
        for not_a_map in ["", "[]", "{", r#"{"k":1}"#, r#"{"keys":[]}"#, "<html>", "{} {}"] {
            assert_eq!(refused(not_a_map), Refusal::NotX509Map, "{not_a_map}");
        }
    }

    #[test]
    fn a_kid_that_stands_twice_in_a_map_names_neither_key() {
        let (_, one) = ed25519();
        let other = Ed25519KeyPair::from_seed_unchecked(&[8; 32]).unwrap();
        let other: PublicKeyX509Der<'_> = other.public_key().as_der().unwrap();
        let text = |spki: &[u8]| Value::from(pem("CERTIFICATE", &certificate(spki)));
        let map = format!(r#"{{"k":{},"k":{}}}"#, text(&one), text(other.as_ref()));
        let set = judged(jwks_of_x509_map(map.as_bytes()));
        let reasons: Vec<_> = set.ledger().iter().map(|entry| entry.verdict()).collect();
        let ambiguous = Verdict::SetAside { reason: Reason::AmbiguousKid, well_formed: true };
        assert_eq!(reasons, [ambiguous, ambiguous]);
    }
}
