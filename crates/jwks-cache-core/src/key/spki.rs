//! A key as a SubjectPublicKeyInfo (RFC 5280 §4.1.2.7), which is what libraries that know no JWK read.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::jwk::AlgorithmParameters;

use super::{Curve, Key};

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;

/// rsaEncryption, NULL (RFC 3279 §2.3.1).
const RSA: &[u8] = &[0x06, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1, 0x05, 0];
/// id-ecPublicKey (RFC 5480 §2.1.1), the curve's name after it.
const EC: &[u8] = &[0x06, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1];

impl Key {
    /// The key as a SubjectPublicKeyInfo in DER.
    #[must_use]
    pub fn spki_der(&self) -> Option<Vec<u8>> {
        let (algorithm, key) = match &self.jwk().algorithm {
            AlgorithmParameters::RSA(rsa) => {
                let numbers = [integer(&decode(&rsa.n)?), integer(&decode(&rsa.e)?)].concat();
                (RSA.to_vec(), tagged(SEQUENCE, &numbers))
            }
            AlgorithmParameters::EllipticCurve(point) => self.on_curve(&point.x, Some(&point.y))?,
            AlgorithmParameters::OctetKeyPair(point) => self.on_curve(&point.x, None)?,
            // secp256k1, for which the library has no name.
            AlgorithmParameters::Other(point) => {
                let text = |name| point.fields.get(name).and_then(|value| value.as_str());
                self.on_curve(text("x")?, Some(text("y")?))?
            }
            _ => return None,
        };
        let key = tagged(BIT_STRING, &[&[0], key.as_slice()].concat());
        Some(tagged(SEQUENCE, &[tagged(SEQUENCE, &algorithm), key].concat()))
    }

    /// The same as text (RFC 7468 §13).
    #[must_use]
    pub fn spki_pem(&self) -> Option<String> {
        let text = STANDARD.encode(self.spki_der()?);
        let mut pem = "-----BEGIN PUBLIC KEY-----\n".to_owned();
        for (at, letter) in text.chars().enumerate() {
            if at > 0 && at % 64 == 0 {
                pem.push('\n');
            }
            pem.push(letter);
        }
        pem.push_str("\n-----END PUBLIC KEY-----\n");
        Some(pem)
    }

    /// Algorithm and point: uncompressed where there are two coordinates.
    fn on_curve(&self, x: &str, y: Option<&str>) -> Option<(Vec<u8>, Vec<u8>)> {
        let name: &[u8] = match self.curve()? {
            // RFC 8410 §3: the algorithm names the curve.
            Curve::Ed25519 => return Some((vec![0x06, 3, 0x2b, 0x65, 0x70], decode(x)?)),
            Curve::P256 => &[0x06, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7],
            Curve::P384 => &[0x06, 5, 0x2b, 0x81, 4, 0, 0x22],
            Curve::P521 => &[0x06, 5, 0x2b, 0x81, 4, 0, 0x23],
            Curve::Secp256k1 => &[0x06, 5, 0x2b, 0x81, 4, 0, 0x0a],
        };
        Some(([EC, name].concat(), [vec![4], decode(x)?, decode(y?)?].concat()))
    }
}

fn decode(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

/// A positive number: with a zero before a first byte that would make it negative.
fn integer(bytes: &[u8]) -> Vec<u8> {
    let sign: &[u8] = if bytes.first().is_some_and(|first| *first >= 0x80) { &[0] } else { &[] };
    tagged(INTEGER, &[sign, bytes].concat())
}

fn tagged(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len().to_be_bytes();
    let length: Vec<u8> = length.into_iter().skip_while(|byte| *byte == 0).collect();
    let mut value = vec![tag];
    match length.as_slice() {
        [] => value.push(0),
        [short] if *short < 0x80 => value.push(*short),
        // A length of at most eight bytes.
        long => {
            value.push(0x80 | u8::try_from(long.len()).unwrap_or_default());
            value.extend_from_slice(long);
        }
    }
    value.extend_from_slice(content);
    value
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
    use aws_lc_rs::signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P256K1_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING,
        ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RsaKeyPair,
    };

    use super::*;
    use crate::keyset::{KeyRules, KeySet};

    fn check(jwk: &str, want: &[u8]) {
        let set = KeySet::judge(format!("{{\"keys\":[{jwk}]}}").as_bytes(), &KeyRules::default()).unwrap();
        let key = &set.keys()[0];
        assert_eq!(key.spki_der().unwrap(), want, "{jwk}");
        let pem = key.spki_pem().unwrap();
        assert!(pem.lines().all(|line| (1..=64).contains(&line.len())), "{pem}");
        let inner: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
        assert_eq!(STANDARD.decode(inner).unwrap(), want);
    }

    #[test]
    fn every_type_of_key_is_written_as_others_write_it() {
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        for (curve, signing) in [
            ("P-256", &ECDSA_P256_SHA256_FIXED_SIGNING),
            ("P-384", &ECDSA_P384_SHA384_FIXED_SIGNING),
            ("P-521", &ECDSA_P521_SHA512_FIXED_SIGNING),
            ("secp256k1", &ECDSA_P256K1_SHA256_FIXED_SIGNING),
        ] {
            let pair = EcdsaKeyPair::generate(signing).unwrap();
            let (x, y) = pair.public_key().as_ref()[1..].split_at((pair.public_key().as_ref().len() - 1) / 2);
            let jwk = format!(r#"{{"kty":"EC","crv":"{curve}","x":"{}","y":"{}"}}"#, text(x), text(y));
            let der: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
            check(&jwk, der.as_ref());
        }
        let pair = Ed25519KeyPair::generate().unwrap();
        let jwk = format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{}"}}"#, text(pair.public_key().as_ref()));
        let der: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
        check(&jwk, der.as_ref());
        let pair = RsaKeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048).unwrap();
        // A PKCS #1 key of 2048 bits: the modulus without its sign at 9, the exponent at the end.
        let pkcs1 = pair.public_key().as_ref();
        let (n, e) = (&pkcs1[9..265], &pkcs1[267..]);
        let jwk = format!(r#"{{"kty":"RSA","n":"{}","e":"{}"}}"#, text(n), text(e));
        let der: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
        check(&jwk, der.as_ref());
    }
}
