//! What the identity provider promises, seen through a plain TCP client and real verification.

#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::signature::{
    self, RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jwks_cache_testkit::{Algorithm, IdentityProvider, ManualClock, Token, split};
use serde_json::{Value, json};

/// Status, headers and body of one answer.
fn get(idp: &IdentityProvider, path: &str, headers: &str) -> (u16, String, Value) {
    let mut stream = TcpStream::connect(idp.origin().addr()).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n").unwrap();
    // There is nothing more to ask, which ends the connection after the answer.
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut got = String::new();
    stream.read_to_string(&mut got).unwrap();
    let (head, body) = got.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head.to_owned(), serde_json::from_str(body).unwrap_or_default())
}

fn published(idp: &IdentityProvider) -> Vec<Value> {
    let (status, _, mut set) = get(idp, "/jwks.json", "");
    assert_eq!(status, 200);
    serde_json::from_value(set["keys"].take()).unwrap()
}

fn kids(idp: &IdentityProvider) -> Vec<String> {
    published(idp).iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
}

fn verifies(jwk: &Value, token: &str) -> bool {
    let (header, input, signature) = split(token).unwrap();
    assert_eq!(header["alg"], jwk["alg"]);
    let member = |name: &str| URL_SAFE_NO_PAD.decode(jwk[name].as_str().unwrap()).unwrap();
    let rsa = |parameters: &'static RsaParameters| {
        let key = RsaPublicKeyComponents { n: member("n"), e: member("e") };
        key.verify(parameters, input.as_bytes(), &signature).is_ok()
    };
    let plain = |algorithm: &'static dyn VerificationAlgorithm, key: Vec<u8>| {
        UnparsedPublicKey::new(algorithm, key).verify(input.as_bytes(), &signature).is_ok()
    };
    let point = || [vec![4], member("x"), member("y")].concat();
    match jwk["alg"].as_str().unwrap() {
        "RS256" => rsa(&signature::RSA_PKCS1_2048_8192_SHA256),
        "RS384" => rsa(&signature::RSA_PKCS1_2048_8192_SHA384),
        "RS512" => rsa(&signature::RSA_PKCS1_2048_8192_SHA512),
        "PS256" => rsa(&signature::RSA_PSS_2048_8192_SHA256),
        "PS384" => rsa(&signature::RSA_PSS_2048_8192_SHA384),
        "PS512" => rsa(&signature::RSA_PSS_2048_8192_SHA512),
        "ES256" => plain(&signature::ECDSA_P256_SHA256_FIXED, point()),
        "ES384" => plain(&signature::ECDSA_P384_SHA384_FIXED, point()),
        "ES512" => plain(&signature::ECDSA_P521_SHA512_FIXED, point()),
        "ES256K" => plain(&signature::ECDSA_P256K1_SHA256_FIXED, point()),
        "EdDSA" => plain(&signature::ED25519, member("x")),
        other => panic!("{other}"),
    }
}

#[test]
fn tokens_of_every_algorithm_verify_with_the_published_key_and_no_other() {
    let idp = IdentityProvider::start();
    let stranger = IdentityProvider::start();
    for algorithm in Algorithm::ALL {
        idp.rotate_to(algorithm.as_str(), algorithm);
        stranger.rotate_to(algorithm.as_str(), algorithm);
        let token = idp.mint(&Token::new().subject("ada"));
        assert_eq!(split(&token).unwrap().0["kid"], algorithm.as_str());
        assert!(verifies(published(&idp).last().unwrap(), &token), "{algorithm}");
        assert!(!verifies(published(&stranger).last().unwrap(), &token), "{algorithm}");
    }
    assert_eq!(published(&idp).len(), 12);
    assert_eq!((idp.jwks_hits(), stranger.jwks_hits()), (12, 11));
}

#[test]
fn a_rotation_signs_anew_and_keeps_the_old_key_published() {
    let idp = IdentityProvider::builder().algorithm(Algorithm::EdDSA).kid("k2").start();
    let old = idp.token(&json!({}));
    assert_eq!(idp.rotate(), "k3");
    assert_eq!((idp.signing_kid(), kids(&idp)), ("k3".into(), vec!["k2".into(), "k3".into()]));
    let keys = published(&idp);
    assert!(verifies(&keys[0], &old) && verifies(&keys[1], &idp.token(&json!({}))));
    assert!(!verifies(&keys[1], &old));
}

#[test]
fn a_retired_key_is_not_published_and_can_still_sign() {
    let idp = IdentityProvider::start();
    let key = published(&idp).remove(0);
    idp.rotate();
    idp.retire("k1");
    assert_eq!(kids(&idp), ["k2"]);
    assert!(verifies(&key, &idp.token_with("k1", &json!({"sub": "mallory"}))));
    idp.publish("k1");
    assert_eq!(kids(&idp), ["k1", "k2"]);
}

#[test]
fn a_flapping_key_is_in_every_other_answer() {
    let idp = IdentityProvider::start();
    idp.rotate();
    idp.flap("k2");
    let seen: Vec<_> = (0..4).map(|_| kids(&idp).len()).collect();
    assert_eq!(seen, [1, 2, 1, 2]);
}

#[test]
fn new_material_under_an_old_id_differs_from_all_before_it() {
    let idp = IdentityProvider::builder().algorithm(Algorithm::RS256).start();
    let mut moduli = vec![published(&idp).remove(0)["n"].clone()];
    for _ in 0..2 {
        let old = idp.token(&json!({}));
        idp.same_kid_new_material("k1");
        let key = published(&idp).remove(0);
        assert_eq!(key["kid"], "k1");
        assert!(!verifies(&key, &old) && verifies(&key, &idp.token(&json!({}))));
        assert!(!moduli.contains(&key["n"]));
        moduli.push(key["n"].clone());
    }
}

#[test]
fn a_token_may_name_a_key_that_is_not() {
    let idp = IdentityProvider::start();
    let token = idp.token_naming("random", &json!({}));
    assert_eq!(split(&token).unwrap().0["kid"], "random");
    assert!(verifies(&published(&idp)[0], &token));
    assert_eq!(idp.sign("k1", b"anything").len(), 64);
}

#[test]
fn minted_tokens_carry_issuer_and_times_of_the_clock() {
    let clock = ManualClock::new();
    let idp = IdentityProvider::builder().clock(Arc::new(clock.clone())).start();
    clock.advance(Duration::from_secs(60));
    let token = idp.mint(&Token::new().audience("orders").expires_in(Duration::from_secs(30)));
    let (_, input, _) = split(&token).unwrap();
    let claims = URL_SAFE_NO_PAD.decode(input.split('.').nth(1).unwrap()).unwrap();
    let now = 1_767_225_660;
    let want = json!({"iss": idp.issuer(), "aud": "orders", "iat": now, "exp": now + 30});
    assert_eq!(serde_json::from_slice::<Value>(&claims).unwrap(), want);
    assert!(get(&idp, "/jwks.json", "").1.contains("\r\nDate: Thu, 01 Jan 2026 00:01:00 GMT"));
}

#[test]
fn the_set_has_a_validator_and_the_cache_control_it_was_given() {
    let idp = IdentityProvider::builder().cache_control("public, max-age=300").start();
    let (_, head, _) = get(&idp, "/jwks.json", "");
    assert!(head.contains("\r\nCache-Control: public, max-age=300"));
    let etag = head.lines().find_map(|line| line.strip_prefix("ETag: ")).unwrap();
    let ask = format!("If-None-Match: {etag}\r\n");
    assert_eq!(get(&idp, "/jwks.json", &ask).0, 304);
    idp.rotate();
    assert_eq!(get(&idp, "/jwks.json", &ask).0, 200);
}

#[test]
fn discovery_names_issuer_and_key_set() {
    let idp = IdentityProvider::start();
    let (status, _, document) = get(&idp, "/.well-known/openid-configuration", "");
    assert_eq!(status, 200);
    assert_eq!(document["issuer"], idp.issuer());
    assert_eq!(document["jwks_uri"], idp.jwks_url().as_str());
    assert!(!idp.issuer().ends_with('/') && idp.jwks_url().path() == "/jwks.json");
}

#[test]
fn outages_last_until_it_comes_back() {
    let idp = IdentityProvider::start();
    idp.fail_with(503);
    assert_eq!(get(&idp, "/jwks.json", "").0, 503);
    assert_eq!(get(&idp, "/.well-known/openid-configuration", "").0, 503);
    idp.go_down();
    assert!(TcpStream::connect(idp.origin().addr()).is_err());
    idp.slow(Duration::from_secs(3_600));
    idp.come_back();
    assert_eq!(kids(&idp), ["k1"]);

    idp.slow(Duration::from_secs(3_600));
    let mut stream = TcpStream::connect(idp.origin().addr()).unwrap();
    stream.write_all(b"GET /jwks.json HTTP/1.1\r\n\r\n").unwrap();
    // That nothing comes can only be seen by giving it a moment.
    stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    assert!(stream.read(&mut [0]).is_err());
}

#[test]
#[should_panic(expected = "no key \"k9\", only [\"k1\"]")]
fn a_misspelt_key_says_which_there_are() {
    IdentityProvider::start().retire("k9");
}
