//! Key sets judged, keys chosen and signatures verified, with keys made on the spot.
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up must fail")]

use std::collections::BTreeSet;
use std::sync::OnceLock;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    self, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair, RsaEncoding, RsaKeyPair,
};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE, URL_SAFE_NO_PAD};
use jsonwebtoken::jwk::{AlgorithmParameters, JwkSet};
use jwks_cache_core::key::{BadSignature, Key, VerificationKey};
use jwks_cache_core::keyset::{Instead, KeyRules, KeySet, Reason, Refusal, SetDiff, Verdict, diff};
use jwks_cache_core::select::{NoKey, select};
use jwks_cache_core::{Algorithm, AlgorithmSet};
use proptest::prelude::*;
use serde_json::{Value, json};

/// A 1024-bit modulus with its signatures over `short`, and a modulus with the fingerprint of the broken
/// generator. Backends no longer make the former, and nobody should the latter.
const SHORT_N: &str = "4BQPDnKLLfFKqZHwD-Zg7RUBN5B1S2WGJe8gvcdR0T7F0ynD_K1kVY8Q2uJFmnq4uWbMx3zn_sueJc5G-IUNM5-BVvOFlfgxGs-dz_dYnRqhSp2yTliO1lDMdjiihu4ByaRaYw58hj6W8KKhM5vNz9zBZktXcqVeT3Et2AFVq_0";
const SHORT_RS256: &str = "pcZjHZyyVeKYgcVYtFTT8_zxtvXqOVCN4zee3BhJquXEtPwB22QIZ3QVtDJJnMDbluoXLnZjRaxtO7YlTzUtbjK8XSoyNKYzQv35wK-YMFkhvE5P29VQNs75RsJTX6X_hpIGS6XVV5fPAqJ_UwFZXH1r0RQmybBkC05-ymegbcI";
const SHORT_RS512: &str = "po8xy3IchDPovdkCyY_FnqVzN0-BLUfkwu6UkRTJUfnGOUSsBHW-oap2exlrmlDmLMKF83BXjh5bYf_ouUVsddm3mTcGT5o9UGzb0YftVD6zVvxKbdjFZ0-X_hHyoForDsjwNj51I0oOEnoNixQPMsSc1HZjcRIgHk4uR877Qnk";
const BROKEN_GENERATOR_N: &str = "5DoCTe3032ymCxOO2ySt4jwfbwezgzNglsv_pw5rsixPpXD3gOB-q7rbKUt_7YLrlljmS8XeTDeL6zatsGzP0MoioweBIgVwLUNmVnikVCQk0YMoTJNNASPbZxLb6m02KyxJ3mc1M65raS4EcBjhNRbHbESjaxk31_dByyWclF0dXif4p9EgNlruGsb0HYd1TfdBmTVbHzsnnY9W207EQWnhMYICRWlEVNv_P2_ZbFjwtoX-Y8VhRfYgdG7j2ytlNlqekusTH68G5Zvhzzb2bWpi29oEcqqbSc3WTbBjByC3UCVwAfwP1429o5Ibu1TZh0UoHrVp5SPQdDrrlzLKZQ";

enum Signer {
    Rsa(RsaKeyPair),
    Ec(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
}

/// A private key and its public JWK, which holds the required members only.
struct Pair {
    name: &'static str,
    signer: Signer,
    jwk: Value,
    family: Vec<Algorithm>,
}

fn pairs() -> &'static [Pair] {
    static PAIRS: OnceLock<Vec<Pair>> = OnceLock::new();
    PAIRS.get_or_init(|| {
        use Algorithm::*;
        vec![
            rsa(),
            ec("P-256", &signature::ECDSA_P256_SHA256_FIXED_SIGNING, ES256),
            ec("P-384", &signature::ECDSA_P384_SHA384_FIXED_SIGNING, ES384),
            ec("P-521", &signature::ECDSA_P521_SHA512_FIXED_SIGNING, ES512),
            ec("secp256k1", &signature::ECDSA_P256K1_SHA256_FIXED_SIGNING, ES256K),
            {
                let pair = Ed25519KeyPair::generate().unwrap();
                let jwk = json!({"kty": "OKP", "crv": "Ed25519", "x": b64(pair.public_key().as_ref())});
                Pair { name: "Ed25519", signer: Signer::Ed(pair), jwk, family: vec![EdDSA] }
            },
        ]
    })
}

fn rsa() -> Pair {
    use Algorithm::*;
    let pair = RsaKeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048).unwrap();
    // RSAPublicKey: SEQUENCE { INTEGER n, INTEGER e }; n takes a sign byte, e is 65537.
    let der = pair.public_key().as_ref();
    let n = &der[der.len() - 5 - 256..der.len() - 5];
    let jwk = json!({"kty": "RSA", "n": b64(n), "e": "AQAB"});
    let family = vec![RS256, RS384, RS512, PS256, PS384, PS512];
    Pair { name: "RSA", signer: Signer::Rsa(pair), jwk, family }
}

fn ec(crv: &'static str, algorithm: &'static EcdsaSigningAlgorithm, alg: Algorithm) -> Pair {
    let pair = EcdsaKeyPair::generate(algorithm).unwrap();
    let point = &pair.public_key().as_ref()[1..];
    let (x, y) = point.split_at(point.len() / 2);
    let jwk = json!({"kty": "EC", "crv": crv, "x": b64(x), "y": b64(y)});
    Pair { name: crv, signer: Signer::Ec(pair), jwk, family: vec![alg] }
}

impl Pair {
    fn sign(&self, algorithm: Algorithm, message: &[u8]) -> Vec<u8> {
        match &self.signer {
            Signer::Rsa(pair) => {
                let encoding: &dyn RsaEncoding = match algorithm {
                    Algorithm::RS256 => &signature::RSA_PKCS1_SHA256,
                    Algorithm::RS384 => &signature::RSA_PKCS1_SHA384,
                    Algorithm::RS512 => &signature::RSA_PKCS1_SHA512,
                    Algorithm::PS256 => &signature::RSA_PSS_SHA256,
                    Algorithm::PS384 => &signature::RSA_PSS_SHA384,
                    _ => &signature::RSA_PSS_SHA512,
                };
                let mut made = vec![0; pair.public_modulus_len()];
                pair.sign(encoding, &SystemRandom::new(), message, &mut made).unwrap();
                made
            }
            Signer::Ec(pair) => pair.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec(),
            Signer::Ed(pair) => pair.sign(message).as_ref().to_vec(),
        }
    }
}

fn b64(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn unb64(text: &Value) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(text.as_str().unwrap()).unwrap()
}

fn public(name: &str) -> Value {
    pairs().iter().find(|pair| pair.name == name).unwrap().jwk.clone()
}

/// `key` with members set; a member set to `Value::Null` by `without` is taken out.
fn with(mut key: Value, members: Value) -> Value {
    key.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
    key
}

fn without(mut key: Value, member: &str) -> Value {
    key.as_object_mut().unwrap().remove(member);
    key
}

fn document(keys: &[Value]) -> Vec<u8> {
    serde_json::to_vec(&json!({"keys": keys})).unwrap()
}

fn judged(keys: &[Value]) -> KeySet {
    KeySet::judge(&document(keys), &KeyRules::default()).unwrap()
}

/// The verdict on one entry beside a sound key, which must stay usable; text and JWKs must agree with it.
fn verdict(entry: Value) -> Verdict {
    verdict_of_text(&entry.to_string(), &KeyRules::default())
}

fn verdict_of_text(entry: &str, rules: &KeyRules) -> Verdict {
    let good = with(public("P-256"), json!({"kid": "good", "alg": "ES256", "use": "sig"}));
    let set = KeySet::judge(format!(r#"{{"keys":[{entry},{good}]}}"#).as_bytes(), rules).unwrap();
    assert_eq!(set.ledger().len(), 2);
    assert_eq!(set.ledger()[1].verdict(), Verdict::Usable, "beside {entry}");
    let verdict = set.ledger()[0].verdict();
    let well_formed = match verdict {
        Verdict::Usable => true,
        Verdict::SetAside { well_formed, .. } => well_formed,
    };
    assert_eq!(set.keys().len(), 1 + usize::from(well_formed), "{entry}");
    assert_eq!(set.jwks().keys.len(), set.keys().len(), "{entry}");
    if verdict != Verdict::Usable
        && let Some(key) = set.ledger()[0].key()
    {
        assert!(key.algorithms().is_empty());
        for algorithm in Algorithm::ALL {
            assert!(VerificationKey::new(key, algorithm).is_none());
        }
    }
    verdict
}

fn aside(reason: Reason) -> Verdict {
    Verdict::SetAside { reason, well_formed: reason.is_well_formed() }
}

#[test]
fn every_algorithm_verifies_with_its_own_type_of_key_and_no_other() {
    for pair in pairs() {
        for declared in [None].into_iter().chain(Algorithm::ALL.map(Some)) {
            let mut jwk = with(pair.jwk.clone(), json!({"kid": "k"}));
            if let Some(algorithm) = declared {
                jwk = with(jwk, json!({"alg": algorithm.as_str()}));
                if !pair.family.contains(&algorithm) {
                    let want = aside(Reason::AlgorithmContradictsKey);
                    assert_eq!(verdict(jwk), want, "{} with {algorithm}", pair.name);
                    continue;
                }
            }
            let set = judged(&[jwk]);
            for asked in Algorithm::ALL {
                let may = pair.family.contains(&asked) && declared.is_none_or(|only| only == asked);
                let chosen = select(set.keys(), Some("k"), asked);
                assert_eq!(chosen.is_ok(), may, "{} declaring {declared:?}, asked {asked}", pair.name);
                let Ok(at) = chosen else { continue };
                let key = VerificationKey::new(&set.shared().nth(at).unwrap(), asked).unwrap();
                let made = pair.sign(asked, b"input");
                assert_eq!(key.verify(b"input", &made), Ok(()), "{asked}");
                assert_eq!(key.verify(b"other", &made), Err(BadSignature), "{asked}");
                assert_eq!(key.verify(b"input", &made[1..]), Err(BadSignature), "{asked}");
                assert_eq!(key.verify(b"input", &vec![0; made.len()]), Err(BadSignature), "{asked}");
            }
        }
    }
}

#[test]
fn a_signature_of_another_algorithm_of_the_same_key_does_not_verify() {
    let pair = &pairs()[0];
    let set = judged(std::slice::from_ref(&pair.jwk));
    for signed in &pair.family {
        let made = pair.sign(*signed, b"input");
        for asked in &pair.family {
            let key = VerificationKey::new(&set.shared().next().unwrap(), *asked).unwrap();
            assert_eq!(key.verify(b"input", &made).is_ok(), asked == signed, "{signed} as {asked}");
        }
    }
}

#[test]
fn threads_that_meet_at_the_first_use_all_verify() {
    let pair = &pairs()[0];
    let made: Vec<_> = pair.family.iter().map(|alg| (*alg, pair.sign(*alg, b"input"))).collect();
    for _ in 0..20 {
        let set = judged(std::slice::from_ref(&pair.jwk));
        std::thread::scope(|scope| {
            for (algorithm, signature) in made.iter().chain(&made) {
                let key = VerificationKey::new(&set.shared().next().unwrap(), *algorithm).unwrap();
                scope.spawn(move || assert_eq!(key.verify(b"input", signature), Ok(())));
            }
        });
    }
}

#[test]
fn short_rsa_keys_verify_only_where_the_rules_allow_and_by_what_the_backend_can() {
    let key = json!({"kty": "RSA", "kid": "short", "n": SHORT_N, "e": "AQAB"});
    assert_eq!(verdict(key.clone()), aside(Reason::RsaTooShort));

    let rules = KeyRules { min_rsa_bits: 1024, ..KeyRules::default() };
    let set = KeySet::judge(&document(std::slice::from_ref(&key)), &rules).unwrap();
    let key_of = |algorithm| VerificationKey::new(&set.shared().next().unwrap(), algorithm);
    assert_eq!(set.keys()[0].bits(), 1024);
    for (algorithm, made) in [(Algorithm::RS256, SHORT_RS256), (Algorithm::RS512, SHORT_RS512)] {
        let made = unb64(&made.into());
        assert_eq!(key_of(algorithm).unwrap().verify(b"short", &made), Ok(()));
    }
    for algorithm in [Algorithm::RS384, Algorithm::PS256, Algorithm::PS384, Algorithm::PS512] {
        assert!(key_of(algorithm).is_none(), "{algorithm}");
        let declared = with(key.clone(), json!({"alg": algorithm.as_str()})).to_string();
        assert_eq!(verdict_of_text(&declared, &rules), aside(Reason::RsaTooShort));
    }
    let tiny = json!({"kty": "RSA", "n": b64(&[0xff; 64]), "e": "AQAB"}).to_string();
    let none = KeyRules { min_rsa_bits: 0, ..KeyRules::default() };
    assert_eq!(verdict_of_text(&tiny, &none), aside(Reason::RsaTooShort));
}

#[test]
fn keys_that_are_no_well_formed_public_keys_are_left_out() {
    use Reason::*;
    let rsa = || public("RSA");
    let p256 = || public("P-256");
    let long = "A".repeat(17 * 1024);
    let cases = [
        (json!("text"), NotAnObject),
        (json!(7), NotAnObject),
        (json!([{"kty": "RSA"}]), NotAnObject),
        (json!(null), NotAnObject),
        (json!({}), Missing("kty")),
        (with(rsa(), json!({"kty": 1})), Malformed("kty")),
        (with(rsa(), json!({"kty": "rsa"})), UnknownKeyType),
        (with(rsa(), json!({"kty": "RSA "})), UnknownKeyType),
        (with(rsa(), json!({"kty": "AKP"})), UnknownKeyType),
        (json!({"kty": "oct", "kid": "s"}), Symmetric),
        (without(rsa(), "n"), Missing("n")),
        (without(rsa(), "e"), Missing("e")),
        (with(rsa(), json!({"n": ""})), Malformed("n")),
        (with(rsa(), json!({"n": "AA"})), Malformed("n")),
        (with(rsa(), json!({"n": 12})), Malformed("n")),
        (with(rsa(), json!({"n": ["AQ"]})), Malformed("n")),
        (with(rsa(), json!({"n": "AQ*B"})), Malformed("n")),
        (with(rsa(), json!({"n": "AQAB\nAQAB"})), Malformed("n")),
        (with(rsa(), json!({"n": "AQABA"})), Malformed("n")),
        (with(rsa(), json!({"e": "AR"})), Malformed("e")), // bits beyond the last byte
        (with(rsa(), json!({"e": ""})), Malformed("e")),
        (with(rsa(), json!({"n": long})), TooLong("n")),
        (with(rsa(), json!({"kid": "k".repeat(1025)})), TooLong("kid")),
        (with(rsa(), json!({"kid": 7})), Malformed("kid")),
        (with(rsa(), json!({"kid": null})), Malformed("kid")),
        (with(rsa(), json!({"alg": null})), Malformed("alg")),
        (with(rsa(), json!({"alg": 256})), Malformed("alg")),
        (with(rsa(), json!({"use": ["sig"]})), Malformed("use")),
        (with(rsa(), json!({"key_ops": "verify"})), Malformed("key_ops")),
        (with(rsa(), json!({"key_ops": [1]})), Malformed("key_ops")),
        (with(rsa(), json!({"issuer": {}})), Malformed("issuer")),
        (with(rsa(), json!({"alg": "HS256"})), AlgorithmContradictsKey),
        (with(rsa(), json!({"alg": "ES256"})), AlgorithmContradictsKey),
        (with(p256(), json!({"alg": "ES384"})), AlgorithmContradictsKey),
        (without(p256(), "crv"), Missing("crv")),
        (without(p256(), "y"), Missing("y")),
        (with(p256(), json!({"crv": "P-224"})), UnknownCurve),
        (with(p256(), json!({"crv": "Ed25519"})), UnknownCurve),
        (with(p256(), json!({"x": b64(&[1; 33])})), Malformed("x")),
        (with(p256(), json!({"kty": "RSA"})), Missing("n")),
        (json!({"kty": "OKP", "crv": "Ed25519", "x": b64(&[7; 31])}), Malformed("x")),
        (json!({"kty": "OKP", "crv": "Ed25519", "x": b64(&[0; 33])}), Malformed("x")),
        (json!({"kty": "OKP", "crv": "X25519", "x": b64(&[7; 32])}), UnknownCurve),
        (json!({"kty": "OKP", "crv": "Ed448", "x": b64(&[7; 57])}), UnknownCurve),
        (json!({"KTY": "RSA", "N": rsa()["n"], "E": "AQAB"}), Missing("kty")),
        (json!({"kty": "RSA", "x5c": ["MIIB"]}), Missing("n")),
    ];
    for (entry, reason) in cases {
        assert!(!reason.is_well_formed());
        assert_eq!(verdict(entry.clone()), aside(reason), "{entry:.200}");
    }
    for (entry, reason) in [
        (r#"{"kty":"RSA","kid":"a","n":"AQAB","e":"AQAB","kid":"b"}"#, RepeatedMember),
        (r#"{"kty":"RSA","kid":"a","n":"AQAB","e":"AQAB","\u006b\u0069d":"b"}"#, RepeatedMember),
        (r#"{"kty":"RSA","n":"AQAB","e":"AQAB","x":1,"x":2}"#, RepeatedMember),
        (r#"{"kty":"RSA","kid":"\ud800","n":"AQAB","e":"AQAB"}"#, Malformed("kid")),
        (r#"{"kty":"RSA","\ud800":1,"n":"AQAB","e":"AQAB"}"#, NotAnObject),
    ] {
        assert_eq!(verdict_of_text(entry, &KeyRules::default()), aside(reason), "{entry}");
    }
}

#[test]
fn keys_that_decode_but_must_not_be_trusted_stay_visible() {
    use Reason::*;
    let rsa = |members| with(public("RSA"), members);
    let p256 = |members| with(public("P-256"), members);
    let mut even = unb64(&public("RSA")["n"]);
    *even.last_mut().unwrap() &= 0xfe;
    let mut off = unb64(&public("P-256")["y"]);
    off[31] ^= 1;
    let mut huge = vec![0xff; 1025];
    huge[0] = 1;
    let cases = [
        (rsa(json!({"revoked": {"revoked_at": 1}})), Revoked),
        (rsa(json!({"use": "enc"})), UseNotSig),
        (rsa(json!({"use": "SIG"})), UseNotSig),
        (rsa(json!({"use": "jwt-svid"})), UseNotSig),
        (rsa(json!({"use": "enc", "key_ops": ["verify"]})), UseNotSig),
        (rsa(json!({"key_ops": []})), KeyOpsWithoutVerify),
        (rsa(json!({"key_ops": ["sign"]})), KeyOpsWithoutVerify),
        (rsa(json!({"key_ops": ["verify", "verify"]})), KeyOpsRepeated),
        (rsa(json!({"alg": "none"})), AlgorithmSignsNothing),
        (rsa(json!({"alg": "rs256"})), AlgorithmSignsNothing),
        (rsa(json!({"alg": "RSA-OAEP"})), AlgorithmSignsNothing),
        (p256(json!({"alg": "ES521"})), AlgorithmSignsNothing),
        (p256(json!({"alg": ""})), AlgorithmSignsNothing),
        (rsa(json!({"n": b64(&[0xff; 128])})), RsaTooShort),
        (rsa(json!({"n": b64(&huge)})), RsaTooLong),
        (rsa(json!({"n": b64(&even)})), RsaModulusEven),
        (rsa(json!({"e": "AA"})), RsaExponent),
        (rsa(json!({"e": "AQ"})), RsaExponent),
        (rsa(json!({"e": "AQAA"})), RsaExponent),
        (rsa(json!({"e": b64(&[2, 0, 0, 0, 1])})), RsaExponent),
        (rsa(json!({"e": b64(&[0xff; 256])})), RsaExponent),
        (rsa(json!({"n": BROKEN_GENERATOR_N})), RsaWeakGenerator),
        (p256(json!({"y": b64(&off)})), OffCurve),
        (p256(json!({"x": "AA", "y": "AA"})), OffCurve),
        (p256(json!({"x": b64(&[0xff; 32])})), OffCurve),
        (with(public("P-521"), json!({"x": b64(&[0xff; 66])})), OffCurve),
        (with(public("P-256"), json!({"crv": "secp256k1"})), OffCurve),
        (json!({"kty": "OKP", "crv": "Ed25519", "x": b64(&[0; 32])}), WeakPoint),
        (json!({"kty": "OKP", "crv": "Ed25519", "x": b64(&[0xff; 32])}), WeakPoint),
    ];
    for (entry, reason) in cases {
        assert!(reason.is_well_formed());
        assert_eq!(verdict(entry.clone()), aside(reason), "{entry}");
    }
    let told = [Revoked, UseNotSig, RsaTooShort].map(|reason| (reason.as_str(), reason.to_string()));
    assert_eq!(told.each_ref().map(|(label, _)| *label), ["revoked", "use_not_sig", "rsa_too_short"]);
    assert!(told.iter().all(|(_, text)| !text.is_empty()), "{told:?}");
    let rules = KeyRules { algorithms: [Algorithm::ES256].into_iter().collect(), ..KeyRules::default() };
    let entry = public("RSA").to_string();
    assert_eq!(verdict_of_text(&entry, &rules), aside(AlgorithmNotAllowed));
}

#[test]
fn bounds_on_what_a_key_says_include_themselves() {
    let usable = |entry: Value| verdict(entry) == Verdict::Usable;
    let modulus = |bytes: usize, first: u8| {
        let mut n = vec![0xff; bytes];
        n[0] = first;
        n
    };
    let rsa = |n: &[u8]| with(public("RSA"), json!({"n": b64(n)}));
    assert!(usable(rsa(&modulus(1_024, 0xff))), "8,192 bits");
    assert!(usable(rsa(&modulus(256, 0x80))), "2,048 bits");
    assert_eq!(verdict(rsa(&modulus(256, 0x7f))), aside(Reason::RsaTooShort), "2,047 bits");
    let named = |length: usize| with(public("Ed25519"), json!({"kid": "k".repeat(length)}));
    assert!(usable(named(1_024)));
    assert!(!usable(named(1_025)));
    // 16,382 characters and two quotes: it is read, and is too long a number.
    assert_eq!(verdict(rsa(&modulus(12_286, 0xff))), aside(Reason::RsaTooLong));
    assert_eq!(verdict(rsa(&modulus(12_287, 0xff))), aside(Reason::TooLong("n")));
}

#[test]
fn what_a_key_without_alg_may_verify_is_the_operators_to_say() {
    let rules = KeyRules { without_alg: [Algorithm::RS256].into_iter().collect(), ..KeyRules::default() };
    let may = |entry: Value| {
        let set = KeySet::judge(&document(&[entry]), &rules).unwrap();
        set.keys()[0].algorithms().iter().collect::<Vec<_>>()
    };
    assert_eq!(may(without(public("RSA"), "alg")), [Algorithm::RS256]);
    assert_eq!(may(with(public("RSA"), json!({"alg": "PS512"}))), [Algorithm::PS512]);
}

#[test]
fn of_two_keys_under_one_kid_the_first_answers() {
    let sets = [public("RSA"), rsa().jwk].map(|key| judged(&[with(key, json!({"kid": "x"}))]));
    let keys = sets.iter().flat_map(KeySet::keys);
    assert_eq!(select(keys, Some("x"), Algorithm::RS256), Ok(0));
}

#[test]
fn what_real_providers_do_is_tolerated_and_the_signature_still_verifies() {
    // A coordinate that begins with a zero byte comes once in 256 keys.
    let stripped =
        std::iter::repeat_with(|| ec("P-256", &signature::ECDSA_P256_SHA256_FIXED_SIGNING, Algorithm::ES256))
            .find(|pair| unb64(&pair.jwk["x"])[0] == 0)
            .unwrap();
    let short_x = b64(&unb64(&stripped.jwk["x"])[1..]);
    let rsa = &pairs()[0];
    let n = unb64(&rsa.jwk["n"]);
    let prefixed = [&[0, 0], n.as_slice()].concat();
    let x = unb64(&public("P-256")["x"]);
    let cases = [
        (rsa, json!({"n": URL_SAFE.encode(&n)})),
        (rsa, json!({"n": STANDARD.encode(&n)})),
        (rsa, json!({"n": STANDARD.encode(&n).trim_end_matches('=')})),
        (rsa, json!({"n": b64(&prefixed), "e": "AAEAAQ"})),
        (rsa, json!({"kid": ""})),
        (rsa, json!({"kid": "a\r\nb\u{0}\"><i>' OR 1=1"})),
        (rsa, json!({"x5c": "not an array", "x5t": 7, "x5u": ["http://"]})),
        (rsa, json!({"x5c": ["A".repeat(20_000)]})),
        (rsa, json!({"unknown": {"d": 1, "k": [1, {"keys": []}]}, "exp": 1, "nbf": 2})),
        (rsa, json!({"use": "sig", "key_ops": ["verify", "sign"]})),
        (&pairs()[1], json!({"x": b64(&[&[0], x.as_slice()].concat())})),
        (&stripped, json!({"x": short_x})),
        (&pairs()[5], json!({"alg": "Ed25519"})),
        (&pairs()[5], json!({"alg": "EdDSA"})),
    ];
    for (pair, members) in cases {
        let entry = with(pair.jwk.clone(), members);
        assert_eq!(verdict(entry.clone()), Verdict::Usable, "{entry:.300}");
        let set = judged(std::slice::from_ref(&entry));
        let key = VerificationKey::new(&set.shared().next().unwrap(), pair.family[0]).unwrap();
        assert_eq!(key.verify(b"input", &pair.sign(pair.family[0], b"input")), Ok(()), "{entry:.300}");
        let canonical = judged(std::slice::from_ref(&pair.jwk));
        assert_eq!(key.thumbprint(), canonical.keys()[0].thumbprint(), "{entry:.300}");
        assert_eq!(set.jwks().keys[0].algorithm, canonical.jwks().keys[0].algorithm, "{entry:.300}");
    }
    let raw = format!(r#"{{"kty":"RSA","n":"{}","e":"AQAB","x":1e999}}"#, b64(&n));
    assert_eq!(verdict_of_text(&raw, &KeyRules::default()), Verdict::Usable);
}

#[test]
fn a_document_that_is_no_key_set_is_refused_with_its_reason() {
    let key = public("P-256");
    let deep =
        |levels: usize| format!(r#"{{"keys":[{key}],"x":{}{}}}"#, "[".repeat(levels), "]".repeat(levels));
    let not_json = |line, column, markup| Refusal::NotJson { line, column, markup };
    let cases: Vec<(Vec<u8>, Refusal)> = vec![
        (b"\xff\xfe{\0}\0".to_vec(), Refusal::NotUtf8),
        (b"".to_vec(), not_json(1, 0, false)),
        (b"  \n ".to_vec(), not_json(2, 1, false)),
        (b"<html>".to_vec(), not_json(1, 1, true)),
        (br#"{"keys":["#.to_vec(), not_json(1, 9, false)),
        (br#"{"keys":[]}{"#.to_vec(), not_json(1, 12, false)),
        (br#"{"keys":[],}"#.to_vec(), not_json(1, 12, false)),
        (b"null".to_vec(), Refusal::NoKeysArray(Instead::Other)),
        (b"[]".to_vec(), Refusal::NoKeysArray(Instead::Other)),
        (b"{}".to_vec(), Refusal::NoKeysArray(Instead::Other)),
        (br#"{"keys":{}}"#.to_vec(), Refusal::NoKeysArray(Instead::Other)),
        (br#"{"keys":null}"#.to_vec(), Refusal::NoKeysArray(Instead::Other)),
        (br#"{"Keys":[]}"#.to_vec(), Refusal::NoKeysArray(Instead::Other)),
        (br#"{"jwks_uri":"https://a/"}"#.to_vec(), Refusal::NoKeysArray(Instead::Metadata)),
        (br#"{"error":"no"}"#.to_vec(), Refusal::NoKeysArray(Instead::Error)),
        (key.to_string().into_bytes(), Refusal::NoKeysArray(Instead::SingleKey)),
        (br#"{"keys":[],"keys":[]}"#.to_vec(), Refusal::RepeatedKeys),
        (br#"{"keys":[],"\u006beys":[]}"#.to_vec(), Refusal::RepeatedKeys),
        (deep(32).into_bytes(), Refusal::TooDeep),
        ("[".repeat(1 << 20).into_bytes(), Refusal::TooDeep),
        (document(&vec![json!(1); 513]), Refusal::TooManyKeys { max: 512 }),
        (document(&[json!(1)]), Refusal::NoneWellFormed { entries: 1, first: Reason::NotAnObject }),
    ];
    let mut reasons = BTreeSet::new();
    for (text, refusal) in cases {
        let got = KeySet::judge(&text, &KeyRules::default());
        assert_eq!(got.err(), Some(refusal), "{:.200}", String::from_utf8_lossy(&text));
        reasons.insert(refusal.reason());
        assert!(!refusal.to_string().is_empty());
    }
    let labels = ["no_keys_array", "none_well_formed", "not_json", "not_utf8"];
    assert_eq!(
        reasons,
        [&labels[..], &["repeated_keys", "too_deep", "too_many_keys"]].concat().into_iter().collect()
    );
    for text in [deep(31), format!(r#"{{"keys":[{key}],"x":"\"[{}"}}"#, "[".repeat(99))] {
        assert!(KeySet::judge(text.as_bytes(), &KeyRules::default()).is_ok(), "{text}");
    }
    let full = document(&vec![key; 512]);
    assert_eq!(KeySet::judge(&full, &KeyRules::default()).unwrap().keys().len(), 512);
}

#[test]
fn an_empty_set_and_one_without_usable_keys_are_judged() {
    let set = judged(&[]);
    assert!(set.is_empty() && set.usable().next().is_none());
    let set = judged(&[with(public("RSA"), json!({"use": "enc"}))]);
    assert!(!set.is_empty() && set.usable().next().is_none() && set.jwks().keys.len() == 1);
}

#[test]
fn the_text_is_kept_as_published_but_for_a_mark_and_secrets() {
    let kept = format!("\n{{ \"x\" : 1e999, \"keys\" :\t[ {} , {{\"kty\":\"new\"}} ] }}\n", public("P-256"));
    let set = KeySet::judge(format!("\u{feff}{kept}").as_bytes(), &KeyRules::default()).unwrap();
    assert_eq!(&**set.text(), kept);

    let key = public("P-256").to_string();
    let secret = r#"{"kty":"oct","k":"c2VjcmV0"}"#;
    for (keys, want) in [
        (format!("[ {secret} ,{key} ]"), format!("[ {key} ]")),
        (format!("[ {key}, {secret} ]"), format!("[ {key} ]")),
        (format!("[{secret},{key},{secret},{key},{secret}]"), format!("[{key},{key}]")),
    ] {
        let document = format!(r#"{{"é":"é","keys":{keys},"after":[]}}"#);
        let set = KeySet::judge(document.as_bytes(), &KeyRules::default()).unwrap();
        assert_eq!(&**set.text(), format!(r#"{{"é":"é","keys":{want},"after":[]}}"#));
        let again = KeySet::judge(set.text().as_bytes(), &KeyRules::default()).unwrap();
        assert_eq!((again.text(), again.set_hash()), (set.text(), set.set_hash()));
        assert_eq!(set.set_hash(), digest(&SHA256, set.text().as_bytes()).as_ref());
    }
}

#[test]
fn no_private_member_leaves_by_any_way() {
    const MARK: &str = "TUFSS0VEIFNFQ1JFVA";
    let good = public("P-256");
    for base in pairs().iter().map(|pair| &pair.jwk) {
        for name in ["d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"] {
            for value in [json!(MARK), json!([{"d": MARK}]), json!({"x": MARK})] {
                let leaked = with(base.clone(), json!({"kid": "leaked", name: value})).to_string();
                let escaped = leaked.replace(
                    &format!("\"{name}\""),
                    &format!("\"\\u{:04x}{}\"", name.as_bytes()[0], &name[1..]),
                );
                let twice = leaked.replacen('{', r#"{"kty":1,"#, 1);
                for entry in [leaked, escaped, twice] {
                    let document = format!(r#"{{"keys":[{entry},{good}]}}"#);
                    let set = KeySet::judge(document.as_bytes(), &KeyRules::default()).unwrap();
                    assert_eq!(set.ledger()[0].verdict(), aside(Reason::PrivateMembers), "{entry}");
                    assert_eq!(set.ledger()[0].kid(), Some("leaked"));
                    let shown = format!(
                        "{} {} {set:?} {:?} {:?} {:?}",
                        set.text(),
                        serde_json::to_string(&**set.jwks()).unwrap(),
                        set.jwks(),
                        set.keys(),
                        set.ledger(),
                    );
                    assert!(!shown.contains(MARK), "{entry} shows in {shown}");
                    assert_eq!(set.keys().len(), 1);

                    let alone = format!(r#"{{"keys":[{entry}]}}"#);
                    let refusal = KeySet::judge(alone.as_bytes(), &KeyRules::default()).unwrap_err();
                    assert!(!format!("{refusal} {refusal:?}").contains(MARK));
                }
            }
        }
    }
}

#[test]
fn debug_output_holds_no_material_and_escapes_kids() {
    let jwk = with(public("RSA"), json!({"kid": "a\r\nb"}));
    let set = judged(std::slice::from_ref(&jwk));
    let key = VerificationKey::new(&set.shared().next().unwrap(), Algorithm::RS256).unwrap();
    assert_eq!(key.verify(b"", b""), Err(BadSignature));
    for shown in
        [format!("{set:?}"), format!("{:?}", set.keys()), format!("{:?}", set.ledger()), format!("{key:?}")]
    {
        assert!(shown.contains(r"a\r\nb") && !shown.contains('\n'), "{shown}");
        assert!(shown.contains(&set.keys()[0].thumbprint().to_string()), "{shown}");
        assert!(!shown.contains(&jwk["n"].as_str().unwrap()[..16]), "{shown}");
    }
}

#[test]
fn the_jwk_set_is_the_one_that_jsonwebtoken_reads_from_canonical_text() {
    let keys: Vec<_> = pairs()
        .iter()
        .map(|pair| {
            let alg = pair.family[0].as_str();
            with(
                pair.jwk.clone(),
                json!({"kid": pair.name, "alg": alg, "use": "sig", "key_ops": ["verify"], "x5t": "AA", "x5c": ["MIIB"]}),
            )
        })
        .chain([with(public("RSA"), json!({"use": "enc", "alg": "RSA-OAEP"}))])
        .collect();
    let document = document(&keys);
    let theirs: JwkSet = serde_json::from_slice(&document).unwrap();
    let ours = KeySet::judge(&document, &KeyRules::default()).unwrap();
    assert_eq!(**ours.jwks(), theirs);
    assert!(matches!(theirs.keys[4].algorithm, AlgorithmParameters::Other(_)), "secp256k1 got a name");
}

#[test]
fn the_thumbprint_is_that_of_rfc_7638() {
    let n = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw";
    let set = judged(&[json!({"kty": "RSA", "n": n, "e": "AQAB", "alg": "RS256", "kid": "2011-04-29"})]);
    let want = "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs";
    assert_eq!(set.keys()[0].thumbprint().to_string(), want);

    for (name, text) in [
        ("P-521", r#"{"crv":"P-521","kty":"EC","x":"X","y":"Y"}"#),
        ("Ed25519", r#"{"crv":"Ed25519","kty":"OKP","x":"X"}"#),
    ] {
        let jwk = public(name);
        let y = jwk.get("y").and_then(Value::as_str).unwrap_or_default();
        let text = text.replace("\"X\"", &jwk["x"].to_string()).replace("\"Y\"", &format!("\"{y}\""));
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
        assert_eq!(judged(&[jwk]).keys()[0].thumbprint().as_bytes().as_slice(), digest.as_ref());
    }
}

#[test]
fn a_kid_that_names_two_keys_for_one_algorithm_names_none() {
    let a = |members| with(public("RSA"), members);
    let b = |members| with(rsa().jwk, members);
    let ec = |members| with(public("P-256"), members);
    let reasons = |keys: &[Value]| -> Vec<Option<Reason>> {
        judged(keys).keys().iter().map(|key| key.set_aside().copied()).collect()
    };
    let both = Some(Reason::AmbiguousKid);

    assert_eq!(
        reasons(&[a(json!({"kid": "x"})), b(json!({"kid": "x", "alg": "PS256"})), ec(json!({"kid": "x"}))]),
        [both, both, None]
    );
    assert_eq!(reasons(&[a(json!({"kid": "x"})), b(json!({"kid": "x"})), a(json!({"kid": "x"}))]), [both; 3]);
    assert_eq!(
        reasons(&[a(json!({"kid": "x", "alg": "RS256"})), b(json!({"kid": "x", "alg": "PS256"}))]),
        [None, None]
    );
    assert_eq!(
        reasons(&[a(json!({"kid": "x"})), b(json!({"kid": "x", "use": "enc"}))]),
        [None, Some(Reason::UseNotSig)]
    );
    assert_eq!(reasons(&[a(json!({})), b(json!({}))]), [None, None]);

    let set = judged(&[a(json!({"kid": "x", "alg": "RS256"})), a(json!({"kid": "x"}))]);
    assert_eq!((set.jwks().keys.len(), set.usable().count()), (2, 2));
    for (algorithm, at) in [(Algorithm::RS256, 0), (Algorithm::PS256, 1)] {
        assert_eq!(select(set.keys(), Some("x"), algorithm), Ok(at));
        assert!(std::ptr::eq(set.find(Some("x"), algorithm).unwrap().key(), &set.keys()[at]));
    }
    assert!(select(set.keys(), None, Algorithm::RS256).is_ok(), "one key, published twice");
}

#[test]
fn a_key_is_found_by_its_exact_kid_or_as_the_only_one_that_fits() {
    let set = judged(&[
        with(public("RSA"), json!({"kid": "r"})),
        with(public("P-256"), json!({"kid": ""})),
        public("Ed25519"),
        with(public("P-384"), json!({"kid": "enc", "use": "enc"})),
    ]);
    let second_rsa = judged(&[with(rsa().jwk, json!({"kid": "s"}))]);
    let unusable = judged(&[with(public("RSA"), json!({"kid": "enc", "use": "enc"}))]);
    let all: Vec<&Key> = set.keys().iter().chain(second_rsa.keys()).collect();
    let unusable_keys: Vec<&Key> = unusable.keys().iter().collect();

    let check = |keys: &[&Key], kid: Option<&str>, alg: Algorithm, want: Result<usize, NoKey>| {
        assert_eq!(select(keys.iter().copied(), kid, alg), want, "{kid:?} {alg}");
    };
    use Algorithm::*;
    check(&all, Some("r"), RS256, Ok(0));
    check(&all, Some("r"), PS512, Ok(0));
    check(&all, Some("s"), RS256, Ok(4));
    check(&all, Some(""), ES256, Ok(1));
    check(&all, Some("r"), ES256, Err(NoKey::NoMatch));
    check(&all, Some("R"), RS256, Err(NoKey::UnknownKid));
    check(&all, Some("enc"), ES384, Err(NoKey::NoMatch));
    check(&all, None, EdDSA, Ok(2));
    check(&all, None, ES256, Ok(1));
    check(&all, None, RS256, Err(NoKey::Ambiguous));
    check(&all, None, ES384, Err(NoKey::NoMatch));
    check(&unusable_keys, Some("enc"), RS256, Err(NoKey::NoKeys));
    check(&unusable_keys, None, RS256, Err(NoKey::NoKeys));
    check(&[], Some("r"), RS256, Err(NoKey::NoKeys));

    // The set's own lookup, by the tags that readers look at, chooses the same.
    for of in [&set, &second_rsa, &unusable] {
        for kid in [Some("r"), Some("s"), Some(""), Some("enc"), Some("R"), None] {
            for alg in [RS256, PS512, ES256, ES384, EdDSA] {
                let chosen = select(of.keys(), kid, alg).map(|at| std::ptr::from_ref(&of.keys()[at]));
                assert_eq!(of.find(kid, alg).map(|key| std::ptr::from_ref(key.key())), chosen);
            }
        }
    }
    assert!(set.holds_kid("enc") && set.holds_kid("") && !set.holds_kid("R") && !set.holds_kid("s"));
    let why: BTreeSet<String> = [NoKey::UnknownKid, NoKey::NoMatch, NoKey::Ambiguous, NoKey::NoKeys]
        .map(|no_key| no_key.to_string())
        .into();
    assert!(why.len() == 4 && why.contains("no key with this kid"), "{why:?}");
}

#[test]
fn kids_of_every_length_are_told_apart() {
    // The middle of a long kid, an end of it, a prefix, and none differ.
    let kids =
        ["", "a", "aa", "aaaaaaaa", "aaaaaaaab", "aaaaaaaabaaaaaaaa", "aaaaaaaacaaaaaaaa", "baaaaaaaa"];
    let keys: Vec<_> = kids.map(|kid| with(public("Ed25519"), json!({"kid": kid}))).into();
    let set = judged(&keys);
    for (at, kid) in kids.iter().enumerate() {
        let found = set.find(Some(kid), Algorithm::EdDSA).unwrap();
        assert!(std::ptr::eq(found.key(), &set.keys()[at]), "{kid}");
    }
    assert!(!set.holds_kid("aaaaaaaadaaaaaaaa") && !set.holds_kid("aaa"));
}

#[test]
fn every_kid_of_a_large_set_is_found_in_its_place() {
    // As many as may be; the longest are too long to stand beside their key.
    let kid = |at: usize| format!("{at:0>width$}", width = at % 70);
    let keys: Vec<_> = (1..=512).map(|at| with(public("Ed25519"), json!({"kid": kid(at)}))).collect();
    for count in [1, 3, 4, 5, 16, 512] {
        let set = judged(&keys[..count]);
        for at in 1..=512 {
            let found = set.find(Some(&kid(at)), Algorithm::EdDSA);
            match at <= count {
                true => assert!(std::ptr::eq(found.unwrap().key(), &set.keys()[at - 1]), "{at} of {count}"),
                false => assert_eq!(found.unwrap_err(), NoKey::UnknownKid, "{at} of {count}"),
            }
            assert_eq!(set.holds_kid(&kid(at)), at <= count);
        }
    }
}

#[test]
fn a_diff_names_what_came_what_went_and_new_material_under_a_held_kid() {
    let a = |kid: &str| with(public("RSA"), json!({"kid": kid}));
    let b = |kid: &str| with(public("P-256"), json!({"kid": kid}));
    let c = |kid: &str| with(public("P-384"), json!({"kid": kid}));
    let check = |old: &[Value], new: &[Value], want: [&[&str]; 3], disjoint: bool| {
        let got = diff(&judged(old), &judged(new));
        let kids = |ids: &[jwks_cache_core::keyset::KeyId]| -> Vec<String> {
            ids.iter().map(|id| id.kid.as_deref().unwrap_or("-").to_owned()).collect()
        };
        assert_eq!([kids(&got.added), kids(&got.removed), kids(&got.changed)], want, "{old:?} -> {new:?}");
        assert_eq!((got.disjoint, got.is_empty()), (disjoint, want.iter().all(|ids| ids.is_empty())));
    };
    let all = SetDiff::all_of(&judged(&[a("1"), b("2")]));
    assert_eq!(all, diff(&judged(&[]), &judged(&[a("1"), b("2")])));
    check(&[], &[], [&[], &[], &[]], false);
    check(&[], &[a("1")], [&["1"], &[], &[]], false);
    check(&[a("1")], &[], [&[], &["1"], &[]], false);
    check(&[a("1"), b("2")], &[b("2"), a("1")], [&[], &[], &[]], false);
    check(&[a("1"), b("2")], &[b("2"), c("3"), c("3")], [&["3"], &["1"], &[]], false);
    check(&[a("1")], &[b("2")], [&["2"], &["1"], &[]], true);
    check(&[a("1")], &[b("1")], [&[], &[], &["1"]], true);
    check(&[a("1"), b("2")], &[a("1"), c("2")], [&[], &[], &["2"]], false);
    check(&[a("1")], &[a("1"), b("1")], [&[], &[], &["1"]], false);
    check(&[a("1"), b("1")], &[a("1")], [&[], &["1"], &[]], false);
    check(&[a("old")], &[a("new")], [&["new"], &["old"], &[]], false);
    check(&[public("RSA")], &[public("P-256")], [&["-"], &["-"], &[]], true);
}

#[test]
fn the_ledger_names_every_entry() {
    let set = judged(&[
        with(public("RSA"), json!({"kid": "r", "alg": "RS256", "use": "sig", "issuer": "https://i/"})),
        json!({"kty": "AKP", "kid": "pq", "alg": "ML-DSA-44", "use": "sig"}),
        with(public("P-521"), json!({"alg": "ECDH-ES", "use": "enc"})),
    ]);
    let rows: Vec<_> = set
        .ledger()
        .iter()
        .map(|row| (row.index(), row.kid(), row.kty(), row.alg(), row.key_use(), row.curve(), row.bits()))
        .collect();
    assert_eq!(
        rows,
        [
            (0, Some("r"), Some("RSA"), Some("RS256"), Some("sig"), None, Some(2048)),
            (1, Some("pq"), Some("AKP"), Some("ML-DSA-44"), Some("sig"), None, None),
            (2, None, Some("EC"), Some("ECDH-ES"), Some("enc"), Some("P-521"), Some(521)),
        ]
    );
    assert_eq!(set.keys()[0].issuer(), Some("https://i/"));
    assert_eq!(set.keys()[0].algorithm(), Some(Algorithm::RS256));
    assert_eq!(set.keys()[0].algorithms(), AlgorithmSet::from_iter([Algorithm::RS256]));
    assert_eq!((set.keys()[1].algorithm(), set.keys()[1].algorithms()), (None, AlgorithmSet::NONE));
}

/// Judges whatever it is given, and exercises all that a judged set offers.
fn survive(document: &[u8]) {
    let rules = KeyRules { min_rsa_bits: 1, ..KeyRules::default() };
    match KeySet::judge(document, &rules) {
        Err(refusal) => drop(refusal.to_string()),
        Ok(set) => {
            assert_eq!(set.keys().len(), set.jwks().keys.len());
            drop(format!("{set:?} {:?}", set.ledger()));
            for key in set.shared().filter(|key| key.is_usable()) {
                for algorithm in key.algorithms().iter() {
                    let key = VerificationKey::new(&key, algorithm).unwrap();
                    assert_eq!(key.verify(b"input", &[1; 64]), Err(BadSignature));
                }
            }
            if !set.is_empty() && !set.keys().is_empty() {
                let again = KeySet::judge(set.text().as_bytes(), &rules).unwrap();
                assert_eq!(again.text(), set.text());
                assert_eq!(again.jwks(), set.jwks());
            }
        }
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        "[A-Za-z0-9_+/=-]{0,90}".prop_map(Value::from),
        prop::sample::select(vec![
            "RSA", "EC", "OKP", "oct", "P-256", "P-521", "Ed25519", "sig", "RS256", "ES256", "verify", "AQAB"
        ])
        .prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map("[a-z]{0,3}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        survive(&bytes);
    }

    #[test]
    fn a_set_with_bytes_overwritten_cut_or_doubled_never_panics(
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3_u8), 1..6),
    ) {
        let keys: Vec<_> = pairs().iter().map(|pair| with(pair.jwk.clone(), json!({"kid": "k", "d": 1}))).collect();
        let mut text = document(&[keys, pairs().iter().map(|pair| pair.jwk.clone()).collect()].concat());
        for (place, byte, edit) in edits {
            let at = place.index(text.len());
            match edit {
                0 => text[at] = byte,
                1 => drop(text.remove(at)),
                _ => text.insert(at, byte),
            }
        }
        survive(&text);
    }

    #[test]
    fn keys_with_members_of_any_type_never_panic(
        base in 0..6_usize,
        members in prop::collection::vec((
            prop::sample::select(vec!["kty", "kid", "alg", "use", "key_ops", "crv", "n", "e", "x", "y", "d", "issuer", "x5c", "x5t", "revoked"]),
            any_json(),
        ), 1..4),
    ) {
        let mut key = pairs()[base].jwk.clone();
        for (name, value) in members {
            key = with(key, json!({name: value}));
        }
        survive(&document(&[key, public("P-256")]));
    }
}

#[test]
fn private_members_beside_the_keys_do_not_stand_in_the_text() {
    let text = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}],"d":"SECRET","a":1}"#;
    let set = KeySet::judge(text.as_bytes(), &KeyRules::default()).unwrap();
    assert!(set.usable().count() == 1 && !set.text().contains("SECRET"));
    assert_eq!(KeySet::judge(set.text().as_bytes(), &KeyRules::default()).unwrap().usable().count(), 1);
}
