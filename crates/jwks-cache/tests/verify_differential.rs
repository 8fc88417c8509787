//! A verifier and `jsonwebtoken`'s `decode` judge the same generated tokens. Where they differ, the difference is
//! one of those listed here, each with who is right; any other is a failure.
//!
//! Under all features both backends of `jsonwebtoken` are on, with which its `decode` panics until one is installed.
#![cfg(feature = "jsonwebtoken-aws-lc-rs")]
#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

mod stage;

use std::collections::BTreeMap;

use chrono::DateTime;
use jwks_cache::jsonwebtoken::jwk::Jwk;
use jwks_cache::jsonwebtoken::{self, DecodingKey, Validation};
use jwks_cache::{Clock, SystemClock, Verifier, VerifyError};
use jwks_cache_testkit::ManualClock;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};
use stage::scripted::{Stage, b64, document};
use stage::tokens::{ALGORITHMS, Signer};
use stage::{PROVIDER, TENANT, at_once};

const ISSUER: &str = "https://idp";
const AUDIENCE: &str = "orders";
const LEEWAY: i64 = 60;

#[tokio::test]
async fn with_both_backends_on_nothing_of_ours_panics_and_decoding_keys_are_made() {
    for signer in Signer::of_every_type() {
        for alg in signer.fits().iter().filter(|alg| !alg.starts_with("HS")) {
            let stage = Stage::with(|_| {}).await;
            stage.source.set(document(vec![signer.jwk(Some("k"), None)], "max-age=300"));
            let handle = stage.registry.provider(TENANT, PROVIDER).unwrap();
            let verifier = handle.verifier().any_audience().any_issuer().expiry_optional().build().unwrap();
            verifier.verify::<Value>(&signer.token(alg, &json!({}))).await.unwrap();
            let key = handle.key(Some("k"), alg.parse().unwrap()).await.unwrap();
            let known = alg.parse::<jsonwebtoken::Algorithm>().is_ok();
            assert_eq!(key.decoding_key().is_some(), known && *alg != "ES256K", "{alg}");
        }
    }
}

/// What a generated token is made of.
#[derive(Clone, Debug)]
struct Made {
    signer: usize,
    header_alg: &'static str,
    sign_alg: &'static str,
    header: Vec<(String, Value)>,
    claims: Vec<(&'static str, Value)>,
    damage: Damage,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Damage {
    None,
    Signature,
    Payload,
    Padding,
    ExtraPart,
    LastBits,
}

fn times(now: i64) -> impl Strategy<Value = Value> {
    prop_oneof![
        6 => (-200..200_i64).prop_map(move |shift| json!(now + shift)),
        1 => (-200..200_i64).prop_map(move |shift| json!((now + shift) as f64 + 0.5)),
        1 => Just(json!(now + LEEWAY)),
        1 => Just(json!(now - LEEWAY)),
        1 => prop_oneof![
            Just(json!("1")), Just(json!(null)), Just(json!([1])), Just(json!({})), Just(json!(true)),
            Just(json!(1e30)), Just(json!(-1)), Just(json!(-1e30)), Just(json!(u64::MAX)),
        ],
    ]
}

fn texts(right: &'static str) -> impl Strategy<Value = Value> {
    prop_oneof![
        6 => Just(json!(right)),
        1 => Just(json!(format!("{right}/"))),
        1 => Just(json!([right, "other"])),
        1 => Just(json!(["other"])),
        1 => prop_oneof![Just(json!(null)), Just(json!(1)), Just(json!([])), Just(json!([1, right])), Just(json!({}))],
    ]
}

fn made(now: i64, signers: usize) -> impl Strategy<Value = Made> {
    let claim = |name: &'static str, values: BoxedStrategy<Value>| {
        proptest::option::weighted(0.9, values).prop_map(move |value| value.map(|value| (name, value)))
    };
    let claims = (
        claim("exp", times(now + 100).boxed()),
        proptest::option::weighted(0.3, times(now - 100)).prop_map(|value| value.map(|value| ("nbf", value))),
        claim("iss", texts(ISSUER).boxed()),
        claim("aud", texts(AUDIENCE).boxed()),
    )
        .prop_map(|(exp, nbf, iss, aud)| [exp, nbf, iss, aud].into_iter().flatten().collect());
    let header = proptest::option::weighted(
        0.1,
        prop_oneof![
            Just(("crit".to_owned(), json!(["exp"]))),
            Just(("b64".to_owned(), json!(false))),
            Just(("typ".to_owned(), json!("at+jwt"))),
            Just(("x".to_owned(), json!({"y": 1}))),
            Just(("typ".to_owned(), json!(1))),
            Just(("enc".to_owned(), json!("A128GCM"))),
        ],
    );
    let damage = prop_oneof![
        6 => Just(Damage::None),
        1 => Just(Damage::Signature),
        1 => Just(Damage::Payload),
        1 => Just(Damage::Padding),
        1 => Just(Damage::ExtraPart),
        1 => Just(Damage::LastBits),
    ];
    let algs =
        (0..signers, any::<prop::sample::Index>(), proptest::option::weighted(0.15, 0..ALGORITHMS.len()));
    (algs, claims, header, damage).prop_map(move |((signer, fit, other), claims, header, damage)| {
        let fits = FITS[signer];
        let sign_alg = fits[fit.index(fits.len())];
        let header_alg = other.map_or(sign_alg, |other| ALGORITHMS[other]);
        Made { signer, header_alg, sign_alg, header: header.into_iter().collect(), claims, damage }
    })
}

/// The algorithms of the signers, of those that both know.
const FITS: [&[&str]; 4] =
    [&["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"], &["ES256"], &["ES384"], &["EdDSA"]];

impl Made {
    fn token(&self, signers: &[Signer]) -> String {
        let mut header = json!({"alg": self.header_alg, "kid": "k"});
        for (name, value) in &self.header {
            header[name] = value.clone();
        }
        let claims: serde_json::Map<_, _> =
            self.claims.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        let claims = Value::Object(claims).to_string();
        let token = signers[self.signer].token_as(&header.to_string(), self.sign_alg, &claims);
        let (input, signature) = token.rsplit_once('.').unwrap();
        match self.damage {
            Damage::None => token,
            Damage::Signature => {
                let other = if signature.starts_with('A') { "B" } else { "A" };
                format!("{input}.{other}{}", &signature[1..])
            }
            Damage::Payload => {
                format!("{}.{}.{signature}", b64(header.to_string()), b64(format!("{claims} ")))
            }
            Damage::Padding => format!("{token}=="),
            Damage::ExtraPart => format!("{token}.x"),
            Damage::LastBits => {
                // Bits beyond the last byte: another spelling of the same signature.
                let last = signature.chars().last().unwrap();
                const DIGITS: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
                let next = DIGITS.find(last).unwrap() ^ 1;
                format!("{input}.{}{}", &signature[..signature.len() - 1], &DIGITS[next..=next])
            }
        }
    }

    fn has(&self, name: &str, is: impl Fn(&Value) -> bool) -> bool {
        self.claims.iter().any(|(claim, value)| *claim == name && is(value))
    }

    fn lacks(&self, name: &str) -> bool {
        !self.claims.iter().any(|(claim, _)| *claim == name)
    }

    /// Why the two may differ on it: what differs, and who is right.
    fn known_difference(&self, ours: bool, now: i64) -> Option<&'static str> {
        let header = |name: &str| self.header.iter().any(|(member, _)| member == name);
        let number = |value: &Value, at: f64| value.as_f64() == Some(at);
        #[expect(clippy::cast_precision_loss, reason = "seconds of this century are exact")]
        let earliest = (now - LEEWAY) as f64;
        let reasons = [
            (!ours && header("crit"), "crit is refused: ours, RFC 7515 §4.1.11; jsonwebtoken ignores it"),
            (!ours && header("b64"), "b64=false is refused: ours, RFC 7797 §6; jsonwebtoken ignores it"),
            (
                !ours && header("enc"),
                "a header with enc is a JWE's: ours, RFC 7516 §9; jsonwebtoken ignores it",
            ),
            (
                !ours && self.has("exp", |exp| number(exp, earliest)),
                "expired on, not after, exp plus leeway: ours, RFC 7519 §4.1.4",
            ),
            (
                !ours
                    && ["exp", "nbf"].iter().any(|name| {
                        self.has(name, |at| at.as_f64().is_some_and(|at| at.abs() >= 253_402_300_800.0))
                    }),
                "a date beyond the year 9999 is a mistake: ours, by choice; jsonwebtoken takes it for eternity",
            ),
            (
                !ours
                    && ["iss", "aud", "nbf"]
                        .iter()
                        .any(|name| self.has(name, |value| !fits_type(name, value))),
                "a claim of a wrong type is refused: ours, RFC 7519 §4.1; jsonwebtoken takes some for absent",
            ),
            (
                !ours && (self.lacks("iss") || self.lacks("aud")),
                "who asks for an issuer and an audience wants them there: ours, RFC 8725 §3.8 and §3.9; jsonwebtoken \
                 skips what is absent",
            ),
            (
                self.rounding_decides(ours, now),
                "a fraction of a second counts: ours, RFC 7519 §2; jsonwebtoken rounds",
            ),
            (
                ours && self.has("nbf", |nbf| nbf.as_f64().is_some_and(|nbf| nbf < 0.0)),
                "nbf before 1970 has passed: ours, RFC 7519 §2 has signed numbers; jsonwebtoken calls it ill-typed",
            ),
        ];
        reasons.into_iter().find(|(applies, _)| *applies).map(|(_, why)| why)
    }
}

impl Made {
    /// Whether a time with a fraction makes our verdict as it stands, and the other when it is rounded.
    #[expect(clippy::cast_precision_loss, reason = "seconds of this century are exact")]
    fn rounding_decides(&self, ours: bool, now: i64) -> bool {
        let (earliest, latest) = ((now - LEEWAY) as f64, (now + LEEWAY) as f64);
        let times = [("exp", true), ("nbf", false)];
        times.into_iter().any(|(name, is_end)| {
            self.has(name, |at| {
                let Some(at) = at.as_f64().filter(|at| at.fract() != 0.0) else { return false };
                let exactly = if is_end { at > earliest } else { at <= latest };
                let rounded = if is_end { at.round() >= earliest } else { at.round() <= latest };
                exactly == ours && rounded != ours
            })
        })
    }
}

fn fits_type(name: &str, value: &Value) -> bool {
    match name {
        "iss" => value.is_string(),
        "aud" => value.is_string() || value.as_array().is_some_and(|all| all.iter().all(Value::is_string)),
        _ => value.is_number(),
    }
}

/// Sets a clock to the machine's second, as `jsonwebtoken` reads it; gives it.
fn set(clock: &ManualClock) -> i64 {
    let now = SystemClock.wall().timestamp();
    clock.set_wall(DateTime::from_timestamp(now, 0).unwrap());
    now
}

/// What `jsonwebtoken` says, with the key and the rules that a careful user gives it.
fn theirs(token: &str, key: &DecodingKey, family: &[jsonwebtoken::Algorithm]) -> bool {
    let mut rules = Validation::new(family[0]);
    rules.algorithms = family.to_vec();
    rules.validate_nbf = true;
    rules.set_audience(&[AUDIENCE]);
    rules.set_issuer(&[ISSUER]);
    jsonwebtoken::decode::<Value>(token, key, &rules).is_ok()
}

#[test]
fn both_take_and_refuse_the_same_tokens_but_for_the_listed_differences() {
    // Whoever was first stays.
    let _ = jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.install_default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _inside = runtime.enter();
    let signers = [Signer::rsa(), Signer::ec("ES256"), Signer::ec("ES384"), Signer::ed()];
    let stages: Vec<(Stage, Verifier, DecodingKey, Vec<jsonwebtoken::Algorithm>)> = runtime.block_on(async {
        let mut all = Vec::new();
        for (signer, fits) in signers.iter().zip(FITS) {
            let stage = Stage::with(|it| it.issuer = Some(ISSUER.into())).await;
            set(&stage.clock);
            let jwk = signer.jwk(Some("k"), None);
            stage.source.set(document(vec![jwk.clone()], "max-age=300"));
            stage.resolve().await.unwrap();
            let verifier = stage.registry.verifier().audience(AUDIENCE).build().unwrap();
            let jwk: Jwk = serde_json::from_value(jwk).unwrap();
            let family = fits.iter().map(|alg| alg.parse().unwrap()).collect();
            all.push((stage, verifier, DecodingKey::from_jwk(&jwk).unwrap(), family));
        }
        all
    });
    let mut runner = TestRunner::new(Config { cases: 3_000, failure_persistence: None, ..Config::default() });
    let (mut accepted, mut refused) = (0, 0);
    let mut differences: BTreeMap<&str, usize> = BTreeMap::new();
    let counts = std::cell::RefCell::new((&mut accepted, &mut refused, &mut differences));
    let start = SystemClock.wall().timestamp();
    // Far enough from now for the generated times never to be overtaken by the run, but for those at its border.
    let run = runner.run(&made(start, signers.len()), |made| {
        let (stage, verifier, key, family) = &stages[made.signer];
        let token = made.token(&signers);
        let now = set(&stage.clock);
        let ours: Result<jwks_cache::Verified<Value>, VerifyError> =
            at_once(verifier.of_provider(TENANT, PROVIDER).verify(&token));
        let theirs = theirs(&token, key, family);
        if SystemClock.wall().timestamp() != now {
            return Ok(()); // the two may have read different seconds
        }
        let mut counts = counts.borrow_mut();
        match (ours.is_ok(), theirs) {
            (true, true) => *counts.0 += 1,
            (false, false) => *counts.1 += 1,
            (ours_takes, _) => match made.known_difference(ours_takes, now) {
                Some(why) => *counts.2.entry(why).or_default() += 1,
                None => prop_assert!(false, "ours {ours:?}, theirs {theirs}: {made:?} at {now}"),
            },
        }
        Ok(())
    });
    println!("{accepted} taken by both, {refused} refused by both; they differ: {differences:#?}");
    run.unwrap();
    assert!(accepted > 100 && refused > 100, "too one-sided: {accepted} and {refused}");
}
