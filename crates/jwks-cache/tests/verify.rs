//! What a verifier demands of a token, setting by setting, and what its answers tell to whom.
#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

mod stage;

use std::time::Duration;

use jwks_cache::verify::{Malformed, VerifyErrorKind};
use jwks_cache::{Algorithm, Clock, Error, StandardClaims, Verified, Verifier, VerifierBuilder, VerifyError};
use serde_json::{Value, json};
use stage::scripted::{Answer, Stage, document};
use stage::tokens::Signer;
use stage::{PROVIDER, TENANT, at_once, settle};

const ISSUER: &str = "https://idp.test";

/// A provider with one Ed25519 key `k`, registered for [`ISSUER`].
struct Play {
    stage: Stage,
    signer: Signer,
}

impl Play {
    async fn new() -> Self {
        let signer = Signer::ed();
        let stage = Stage::with(|it| it.issuer = Some(ISSUER.into())).await;
        stage.source.set(document(vec![signer.jwk(Some("k"), None)], "max-age=300"));
        Self { stage, signer }
    }

    fn now(&self) -> i64 {
        self.stage.clock.wall().timestamp()
    }

    /// Good claims, with some of them replaced; null leaves one out.
    fn claims(&self, change: Value) -> Value {
        let mut claims =
            json!({"iss": ISSUER, "sub": "ada", "aud": "orders", "exp": self.now() + 300, "iat": self.now()});
        for (name, value) in change.as_object().unwrap() {
            claims[name] = value.clone();
        }
        claims.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        claims
    }

    fn token(&self, change: Value) -> String {
        self.signer.token("EdDSA", &self.claims(change))
    }

    fn verifier(&self, change: impl FnOnce(VerifierBuilder) -> VerifierBuilder) -> Verifier {
        change(self.stage.registry.verifier().audience("orders")).build().unwrap()
    }

    async fn verify(&self, token: &str) -> Result<Verified<StandardClaims>, VerifyError> {
        self.verifier(|it| it).verify(token).await
    }

    /// What becomes of a token with these claims under these rules.
    async fn check(&self, claims: Value, rules: fn(VerifierBuilder) -> VerifierBuilder, want: &str) {
        let got = self.verifier(rules).verify::<Value>(&self.token(claims.clone())).await;
        assert_eq!(outcome(&got), want, "{claims}");
    }
}

/// `ok`, or the name of the error and what it names.
fn outcome<C>(result: &Result<Verified<C>, VerifyError>) -> String {
    match result {
        Ok(_) => "ok".into(),
        Err(VerifyError::MissingClaim(name)) => format!("missing {name}"),
        Err(VerifyError::IllTypedClaim(name)) => format!("ill-typed {name}"),
        Err(why) => format!("{why:?}").split(['(', ' ']).next().unwrap().to_owned(),
    }
}

#[tokio::test]
async fn a_good_token_gives_its_claims_and_the_key_that_vouches_for_them() {
    let play = Play::new().await;
    let verified = play.verify(&play.token(json!({"jti": "1"}))).await.unwrap();
    assert_eq!((verified.sub.as_deref(), &*verified.aud), (Some("ada"), &["orders".to_owned()][..]));
    assert_eq!((verified.kid(), verified.algorithm()), (Some("k"), Algorithm::EdDSA));
    assert_eq!((verified.tenant_id(), verified.provider_id()), (TENANT, PROVIDER));
    let key = play.stage.key("k").await.unwrap();
    assert_eq!(verified.thumbprint(), key.thumbprint());
    assert_eq!(verified.expires_at(), verified.claims().exp);
    assert!(!format!("{verified:?}").contains("ada"));
    assert_eq!(verified.into_claims().jti.as_deref(), Some("1"));
}

#[tokio::test]
async fn both_names_of_eddsa_are_one_algorithm() {
    let play = Play::new().await;
    let token = play.signer.token("Ed25519", &play.claims(json!({})));
    assert_eq!(play.verify(&token).await.unwrap().algorithm(), Algorithm::EdDSA);
}

#[tokio::test]
async fn verify_now_never_waits_and_says_so() {
    let play = Play::new().await;
    let (verifier, token) = (play.verifier(|it| it), play.token(json!({})));
    let now = || verifier.verify_now::<StandardClaims>(&token);
    assert_eq!((outcome(&now()), play.stage.source.asked()), ("NotCached".into(), 0));
    assert_eq!(now().unwrap_err().kind(), VerifyErrorKind::KeysUnavailable);
    verifier.verify::<StandardClaims>(&token).await.unwrap();
    assert_eq!(outcome(&now()), "ok");
    assert_eq!(outcome(&at_once(verifier.verify::<StandardClaims>(&token))), "ok");
    assert_eq!(play.stage.source.asked(), 1);
    play.stage.registry.unregister(TENANT, PROVIDER).await.unwrap();
    assert_eq!(outcome(&now()), "UnknownProvider");
}

#[tokio::test]
async fn a_new_key_is_fetched_for_the_first_token_that_names_it() {
    let play = Play::new().await;
    play.verify(&play.token(json!({}))).await.unwrap();
    let rotated = Play { signer: Signer::ed(), ..play };
    rotated.stage.source.set(document(vec![rotated.signer.jwk(Some("k2"), None)], "max-age=300"));
    let header = r#"{"alg":"EdDSA","kid":"k2"}"#;
    let token = rotated.signer.token_as(header, "EdDSA", &rotated.claims(json!({})).to_string());
    assert_eq!(rotated.verify(&token).await.unwrap().kid(), Some("k2"));
}

#[tokio::test]
async fn times_are_numbers_within_a_minute_unless_told_otherwise() {
    let play = Play::new().await;
    let now = play.now();
    for name in ["exp", "nbf", "iat"] {
        for value in [json!("1"), json!([]), json!({}), json!(true), json!(1e30), json!(-1e30)] {
            play.check(json!({name: value}), |it| it, &format!("ill-typed {name}")).await;
        }
        let payload = play.claims(json!({name: 12_345})).to_string().replace("12345", "null");
        let token = play.signer.token_as(r#"{"alg":"EdDSA","kid":"k"}"#, "EdDSA", &payload);
        assert_eq!(outcome(&play.verify(&token).await), format!("ill-typed {name}"));
    }
    play.check(json!({"exp": -1}), |it| it, "Expired").await;
    play.check(json!({"nbf": -1, "iat": -1.5}), |it| it, "ok").await;
    play.check(json!({"exp": null}), |it| it, "missing exp").await;
    play.check(json!({"exp": null}), VerifierBuilder::expiry_optional, "ok").await;
    play.check(json!({"exp": now - 59}), |it| it, "ok").await;
    play.check(json!({"exp": now - 60}), |it| it, "Expired").await;
    play.check(json!({"exp": now - 59}), |it| it.leeway(Duration::ZERO), "Expired").await;
    play.check(json!({"exp": now}), |it| it.leeway(Duration::ZERO), "Expired").await;
    play.check(json!({"nbf": now + 60}), |it| it, "ok").await;
    play.check(json!({"nbf": now + 61}), |it| it, "NotYetValid").await;
    play.check(json!({"iat": now + 9_999}), |it| it, "ok").await;
    let young = |it: VerifierBuilder| it.max_age(Duration::from_secs(100));
    play.check(json!({"iat": now - 160}), young, "ok").await;
    play.check(json!({"iat": now - 161}), young, "TooOld").await;
    play.check(json!({"iat": now + 61}), young, "NotYetValid").await;
    play.check(json!({"iat": null}), young, "missing iat").await;
    play.check(json!({"exp": now}), |it| it.leeway(Duration::MAX), "ok").await;
}

#[tokio::test]
async fn the_audience_must_be_ours_unless_any_will_do() {
    let play = Play::new().await;
    for aud in [json!("order"), json!("orders/"), json!("Orders"), json!([]), json!(["a", "b"]), json!("")] {
        play.check(json!({"aud": aud}), |it| it, "WrongAudience").await;
    }
    play.check(json!({"aud": ["a", "orders"]}), |it| it, "ok").await;
    play.check(json!({"aud": null}), |it| it, "missing aud").await;
    play.check(json!({"aud": {"orders": 1}}), |it| it, "ill-typed aud").await;
    play.check(json!({"aud": "second"}), |it| it.audience("second"), "ok").await;
    let anybodys = play.stage.registry.verifier().any_audience().build().unwrap();
    for aud in [json!("x"), json!(null)] {
        assert_eq!(outcome(&anybodys.verify::<Value>(&play.token(json!({"aud": aud}))).await), "ok");
    }
}

#[tokio::test]
async fn required_claims_and_types_are_asked_for() {
    let play = Play::new().await;
    play.check(json!({"sub": null}), |it| it, "ok").await;
    play.check(json!({"sub": null}), |it| it.require_claim("iat").require_claim("sub"), "missing sub").await;
    play.check(json!({"scope": "a"}), |it| it.require_claim("scope"), "ok").await;
    // Said twice, it is asked for once.
    play.check(json!({}), |it| it.require_claim("sub").require_claim("sub"), "ok").await;
    play.check(json!({"sub": null}), |it| it.require_claim("sub").require_claim("sub"), "missing sub").await;
    let typed = play.verifier(|it| it.typ("at+jwt").typ("x"));
    let claims = play.claims(json!({})).to_string();
    for (typ, want) in
        [(r#","typ":"application/AT+JWT""#, "ok"), (r#","typ":"JWT""#, "WrongType"), ("", "WrongType")]
    {
        let header = format!(r#"{{"alg":"EdDSA","kid":"k"{typ}}}"#);
        let token = play.signer.token_as(&header, "EdDSA", &claims);
        assert_eq!(outcome(&typed.verify::<Value>(&token).await), want, "{typ}");
        assert_eq!(outcome(&play.verify(&token).await), "ok");
    }
}

#[tokio::test]
async fn only_the_chosen_algorithms_are_taken() {
    let play = Play::new().await;
    play.check(json!({}), |it| it.algorithms([Algorithm::ES256]), "Unsupported").await;
    play.check(json!({}), |it| it.algorithms([Algorithm::ES256, Algorithm::EdDSA]), "ok").await;
    play.check(json!({}), |it| it.algorithms([]), "ok").await;
    assert_eq!(play.stage.source.asked(), 1);
}

#[tokio::test]
async fn claims_must_fit_the_type_asked_for_and_the_answer_quotes_none() {
    #[derive(Debug, serde::Deserialize)]
    struct Mine {
        #[allow(dead_code, reason = "what matters is whether it reads")]
        level: u8,
    }
    let play = Play::new().await;
    let verifier = play.verifier(|it| it);
    for (level, detail) in
        [(json!(7), None), (json!("secret"), Some("column")), (json!(null), Some("missing field"))]
    {
        let result = verifier.verify::<Mine>(&play.token(json!({"level": level}))).await;
        match detail {
            None => assert_eq!(result.unwrap().level, 7),
            Some(text) => {
                let why = result.unwrap_err();
                let detail = why.detail().to_string();
                assert!(matches!(why, VerifyError::UnfitClaims(_)) && detail.contains(text), "{detail}");
                assert!(!format!("{why} {detail} {why:?}").contains("secret"));
            }
        }
    }
}

#[tokio::test]
async fn a_verifier_that_could_take_anybodys_tokens_is_not_built_unasked() {
    let stage = Stage::warm(|_| {}).await;
    let handle = stage.registry.provider(TENANT, PROVIDER).unwrap();
    let field = |builder: VerifierBuilder| match builder.build() {
        Err(Error::Validation { field, .. }) => field,
        other => panic!("{other:?}"),
    };
    assert_eq!(field(stage.registry.verifier()), "audiences");
    assert_eq!(field(handle.verifier().audience("a")), "issuers");
    let many =
        (0..65).fold(stage.registry.verifier().any_audience(), |it, n| it.require_claim(n.to_string()));
    assert_eq!(field(many), "required_claims");
    // Of two that contradict each other, neither is dropped in silence.
    assert_eq!(field(stage.registry.verifier().audience("a").any_audience()), "audiences");
    assert_eq!(field(stage.registry.verifier().any_audience().issuer("i").any_issuer()), "issuers");
    assert!(handle.verifier().audience("a").any_issuer().build().is_ok());
    assert!(handle.verifier().any_audience().issuer("i").build().is_ok());
}

#[tokio::test]
async fn an_answer_does_not_tell_tenant_key_and_signature_apart_and_a_log_does() {
    let play = Play::new().await;
    let verifier = play.verifier(|it| it);
    let token = play.token(json!({}));
    verifier.verify::<Value>(&token).await.unwrap();
    let unknown_kid = play.signer.token_as(
        r#"{"alg":"EdDSA","kid":"k\u001b2"}"#,
        "EdDSA",
        &play.claims(json!({})).to_string(),
    );
    let unknown_issuer = play.token(json!({"iss": "https://other"}));
    let forged = Signer::ed().token("EdDSA", &play.claims(json!({})));
    play.stage.registry.deny_key(TENANT, PROVIDER, "gone").await.unwrap();
    let denied =
        play.signer.token_as(r#"{"alg":"EdDSA","kid":"gone"}"#, "EdDSA", &play.claims(json!({})).to_string());
    let other_tenant =
        async |token: &str| verifier.of_provider("nobody", PROVIDER).verify::<Value>(token).await;
    let mut seen = Vec::new();
    for (result, name, in_log) in [
        (verifier.verify::<Value>(&unknown_kid).await, "UnknownKey", "kid \"k\\u{1b}2\""),
        (verifier.verify(&unknown_issuer).await, "UnknownProvider", "registered provider"),
        (verifier.in_tenant("nobody").verify(&token).await, "UnknownProvider", "registered provider"),
        (other_tenant(&token).await, "UnknownProvider", "registered provider"),
        (verifier.verify(&forged).await, "BadSignature", "acme/main, kid \"k\""),
        (verifier.verify(&denied).await, "DeniedKey", "this key is denied"),
    ] {
        let why = result.unwrap_err();
        let detail = why.detail().to_string();
        assert!(format!("{why:?}").starts_with(name) && detail.contains(in_log), "{why:?}: {detail}");
        assert_eq!((why.kind(), why.kind().status().as_u16()), (VerifyErrorKind::InvalidToken, 401));
        assert!(!detail.chars().any(char::is_control) && !detail.contains(&token));
        seen.push(why.to_string());
    }
    seen.dedup();
    assert_eq!(seen, ["the token's signature could not be verified"]);
}

#[tokio::test]
async fn what_a_text_alone_shows_is_told_alike_whether_tenant_and_kid_exist_or_not() {
    let play = Play::new().await;
    let verifier = play.verifier(|it| it);
    let good = play.token(json!({}));
    verifier.verify::<Value>(&good).await.unwrap();
    let [header, payload, signature]: [&str; 3] = good.split('.').collect::<Vec<_>>().try_into().unwrap();
    let other_header = stage::scripted::b64(r#"{"alg":"EdDSA","kid":"nobody"}"#);
    for end in [
        format!("{payload}.!"),
        format!("{payload}.A"),
        format!("{payload}.{signature}="),
        format!("{payload}!.{signature}"),
        format!(".{signature}"),
        ".AAAA".into(),
        ".".into(),
        format!("{}.{signature}", stage::scripted::b64([0xff])),
        format!("e30.{signature}"),
    ] {
        let mut told = Vec::new();
        for tenant in [TENANT, "nobody"] {
            for header in [header, &other_header] {
                let token = format!("{header}.{end}");
                let why = verifier.of_provider(tenant, PROVIDER).verify::<Value>(&token).await.unwrap_err();
                told.push((why.kind(), why.to_string()));
            }
        }
        told.dedup();
        assert_eq!(told.len(), 1, "{end}: {told:?}");
    }
}

#[tokio::test]
async fn a_signature_over_a_detached_payload_is_no_reason_to_doubt_the_key() {
    let play = Play::new().await;
    let verifier = play.verifier(|it| it);
    let good = play.token(json!({}));
    verifier.verify::<Value>(&good).await.unwrap();
    play.stage.pass(30);
    let (header, signature) = (good.split('.').next().unwrap(), good.rsplit('.').next().unwrap());
    let detached = format!("{header}..{signature}");
    let at = verifier.of_provider(TENANT, PROVIDER);
    assert_eq!(outcome(&at.verify::<Value>(&detached).await), "BadSignature");
    assert_eq!(outcome(&verifier.verify::<Value>(&detached).await), "Unsupported");
    settle().await;
    assert_eq!(play.stage.source.asked(), 1);
}

#[tokio::test]
async fn verify_now_alone_follows_a_rotation_and_says_unknown_where_there_is_nothing_to_wait_for() {
    let play = Play::new().await;
    let verifier = play.verifier(|it| it);
    let now = |signer: &Signer, kid: &str| {
        let header = json!({"alg": "EdDSA", "kid": kid}).to_string();
        let token = signer.token_as(&header, "EdDSA", &play.claims(json!({})).to_string());
        outcome(&verifier.verify_now::<StandardClaims>(&token))
    };
    let misses = async |outcome: &str| {
        let status = play.stage.status().await;
        let mut all = status.metrics.iter().filter(|metric| metric.name == "jwks_cache_kid_misses_total");
        all.find(|metric| metric.labels["outcome"] == outcome).map(|metric| metric.value)
    };
    // Nothing held: the fetch that would be waited for is started.
    assert_eq!(now(&play.signer, "k"), "NotCached");
    settle().await;
    play.stage.landed().await;
    assert_eq!((now(&play.signer, "k"), play.stage.source.asked()), ("ok".into(), 1));
    // A new kid: the same, within the budget.
    let new = Signer::ed();
    let keys = vec![play.signer.jwk(Some("k"), None), new.jwk(Some("k2"), None)];
    play.stage.source.set(document(keys, "max-age=300"));
    play.stage.pass(20);
    assert_eq!((now(&new, "k2"), now(&new, "k2")), ("NotCached".into(), "NotCached".into()));
    settle().await;
    play.stage.landed().await;
    assert_eq!((now(&new, "k2"), play.stage.source.asked()), ("ok".into(), 2));
    // Within the interval `verify` would not wait, nor once the kid is known to be missing.
    assert_eq!((now(&new, "k3"), misses("not_now").await), ("UnknownKey".into(), Some(1.0)));
    play.stage.pass(20);
    assert!(play.stage.key("k3").await.is_err());
    play.stage.pass(20);
    assert_eq!((now(&new, "k3"), misses("known_missing").await), ("UnknownKey".into(), Some(1.0)));
    settle().await;
    assert_eq!(play.stage.source.asked(), 3);
    // Expired, it is as if nothing were held.
    play.stage.pass(1_000);
    assert_eq!(now(&new, "k2"), "NotCached");
    settle().await;
    play.stage.landed().await;
    assert_eq!((now(&new, "k2"), play.stage.source.asked()), ("ok".into(), 4));
}

#[tokio::test]
async fn without_keys_no_token_is_taken_and_the_answer_is_another() {
    let play = Play::new().await;
    let token = play.token(json!({}));
    for (answer, want) in [
        (Answer::Status(500, None), "KeysUnavailable"),
        (Answer::Refused, "KeysUnavailable"),
        (document(vec![], "max-age=300"), "KeysUnavailable"),
    ] {
        play.stage.source.set(answer);
        play.stage.pass(3_600);
        let why = play.verify(&token).await.unwrap_err();
        assert_eq!((outcome::<()>(&Err(why)), want), (want.into(), want));
    }
    let why = play.verify(&token).await.unwrap_err();
    assert_eq!((why.kind(), why.kind().status().as_u16()), (VerifyErrorKind::KeysUnavailable, 503));
}

#[tokio::test]
async fn a_bad_signature_starts_one_refresh_an_interval_in_the_background() {
    for header in [r#"{"alg":"EdDSA","kid":"k"}"#, r#"{"alg":"EdDSA"}"#] {
        let play = Play::new().await;
        let good = |signer: &Signer| signer.token_as(header, "EdDSA", &play.claims(json!({})).to_string());
        play.verify(&good(&play.signer)).await.unwrap();
        let changed = Signer::ed();
        play.stage.source.set(document(vec![changed.jwk(Some("k"), None)], "max-age=300"));
        play.stage.pass(1);
        for _ in 0..50 {
            assert_eq!(outcome(&play.verify(&good(&Signer::ed())).await), "BadSignature");
        }
        settle().await;
        play.stage.landed().await;
        assert_eq!(play.stage.source.asked(), 2, "{header}");
        assert_eq!(outcome(&play.verify(&good(&changed)).await), "ok", "{header}");
    }
}

/// How many headers a verifier remembers.
fn headers_of(verifier: &Verifier) -> usize {
    let told = format!("{verifier:?}");
    let count = told.rsplit("headers: ").next().unwrap().split(|c: char| !c.is_ascii_digit()).next();
    count.unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_header_is_remembered_after_its_token_was_verified_and_not_before() {
    let play = Play::new().await;
    let verifier = play.verifier(|it| it);
    let (good, header) = (play.token(json!({})), r#"{"alg":"EdDSA","kid":"k","x":1}"#);
    let claims = |change: Value| play.claims(change).to_string();
    verifier.verify_now::<Value>(&good).unwrap_err();
    play.stage.resolve().await.unwrap();
    for refused in [
        Signer::ed().token_as(header, "EdDSA", &claims(json!({}))),
        play.signer.token_as(header, "EdDSA", &claims(json!({"aud": "other"}))),
        play.signer.token_as(header, "EdDSA", &claims(json!({"exp": 1}))),
        play.signer.token_as(header, "EdDSA", "no claims"),
        play.signer.token_as(r#"{"alg":"EdDSA","kid":"other"}"#, "EdDSA", &claims(json!({}))),
    ] {
        verifier.verify::<Value>(&refused).await.unwrap_err();
    }
    assert_eq!(headers_of(&verifier), 0);
    for _ in 0..2 {
        verifier.verify::<Value>(&good).await.unwrap();
        assert_eq!(headers_of(&verifier), 1);
    }
    // Under a header that is known, everything else is asked as ever.
    let forged = Signer::ed().token("EdDSA", &play.claims(json!({})));
    assert_eq!(outcome(&verifier.verify::<Value>(&forged).await), "BadSignature");
    assert_eq!(outcome(&verifier.verify::<Value>(&play.token(json!({"exp": 1}))).await), "Expired");
    play.stage.registry.deny_key(TENANT, PROVIDER, "k").await.unwrap();
    assert_eq!(outcome(&verifier.verify::<Value>(&good).await), "DeniedKey");
}

#[tokio::test]
async fn what_one_verifier_remembers_of_headers_another_does_not_take() {
    let play = Play::new().await;
    let token = play.token(json!({}));
    for _ in 0..2 {
        assert_eq!(outcome(&play.verifier(|it| it).verify::<Value>(&token).await), "ok");
        play.check(json!({}), |it| it.algorithms([Algorithm::ES256]), "Unsupported").await;
        play.check(json!({}), |it| it.typ("at+jwt"), "WrongType").await;
    }
    // A token that was good, under a header that is the same but for its type.
    let typed = play.verifier(|it| it.typ("at+jwt"));
    let claims = play.claims(json!({})).to_string();
    let of_type = |typ: &str| {
        let header = json!({"alg": "EdDSA", "kid": "k", "typ": typ}).to_string();
        play.signer.token_as(&header, "EdDSA", &claims)
    };
    for (typ, want) in [("at+jwt", "ok"), ("JWT", "WrongType"), ("at+jwt", "ok"), ("JWT", "WrongType")] {
        assert_eq!(outcome(&typed.verify::<Value>(&of_type(typ)).await), want, "{typ}");
    }
}

#[tokio::test]
async fn a_header_that_is_known_leads_to_the_key_of_now() {
    let play = Play::new().await;
    let verifier = play.verifier(|it| it);
    let old = play.token(json!({}));
    verifier.verify::<Value>(&old).await.unwrap();
    // The provider changes its key in place: the header stays the same, byte for byte.
    let changed = Signer::ed();
    play.stage.adopt(document(vec![changed.jwk(Some("k"), None)], "max-age=300")).await;
    let new = changed.token("EdDSA", &play.claims(json!({})));
    assert_eq!(old.split('.').next(), new.split('.').next());
    assert_eq!(outcome(&verifier.verify::<Value>(&new).await), "ok");
    assert_eq!(outcome(&verifier.verify::<Value>(&old).await), "BadSignature");
    assert_eq!(headers_of(&verifier), 1);
}

#[tokio::test]
async fn explain_says_which_key_or_why_none_and_starts_nothing() {
    let play = Play::new().await;
    let verifier = play.verifier(|it| it);
    let token = play.token(json!({}));
    assert!(verifier.explain(&token).why_not.unwrap().contains("not at hand"));
    let thumbprint = verifier.verify::<Value>(&token).await.unwrap().thumbprint().to_string();
    let at = verifier.of_provider(TENANT, PROVIDER);
    let header = token.split('.').next().unwrap();
    for it in [verifier.explain(&token), at.explain(header), at.explain(r#"{"alg":"EdDSA","kid":"k"}"#)] {
        assert_eq!((it.thumbprint.as_ref(), it.why_not.as_ref()), (Some(&thumbprint), None), "{it}");
        assert_eq!((it.kid.as_deref(), it.keys.len(), it.algorithm), (Some("k"), 1, Some(Algorithm::EdDSA)));
        assert_eq!(serde_json::to_value(&it).unwrap()["tenant_id"], TENANT);
        assert!(it.to_string().contains(&thumbprint));
    }
    for (given, why) in [
        (r#"{"alg":"EdDSA","kid":"x"}"#, "no key with this kid"),
        (r#"{"alg":"RS256","kid":"k"}"#, "no key fits this algorithm"),
        (r#"{"alg":"none"}"#, "algorithm is not accepted"),
        ("{", "not a JSON object"),
        ("ÿ", "base64url"),
        ("", "not a JSON object"),
    ] {
        let it = at.explain(given);
        assert!(it.thumbprint.is_none() && it.to_string().contains(why), "{given}: {it}");
    }
    assert!(verifier.explain(header).to_string().contains("registered provider"));
    assert_eq!(play.stage.source.asked(), 1);
}

#[tokio::test]
async fn explain_refuses_what_verify_would() {
    let play = Play::new().await;
    let handle = play.stage.registry.provider(TENANT, PROVIDER).unwrap();
    let verifier = handle.verifier().audience("orders").build().unwrap();
    let token = play.token(json!({}));
    verifier.verify::<Value>(&token).await.unwrap();
    let agree = |text: &str| {
        let (it, refused) = (verifier.explain(text), verifier.verify_now::<Value>(text).unwrap_err());
        assert_eq!(it.why_not, Some(refused.detail().to_string()), "{text:.100}");
    };
    let long = play.signer.token_as(
        &json!({"alg": "EdDSA", "kid": "k", "x": "y".repeat(20_000)}).to_string(),
        "EdDSA",
        "{}",
    );
    for text in [&*long, &format!(" {token}"), &format!("{token}\n"), &format!("{token}!"), "a.b"] {
        agree(text);
    }
    // A header alone is held to the same length.
    let header = long.split('.').next().unwrap();
    assert!(verifier.explain(header).to_string().contains("too long"));
    assert_eq!(verifier.explain(&token).why_not, None);
    play.stage.registry.unregister(TENANT, PROVIDER).await.unwrap();
    agree(&token);
}

#[tokio::test]
async fn what_is_no_token_is_refused_before_anything_is_asked() {
    let play = Play::new().await;
    let refused = async |token: &str| play.verify(token).await.unwrap_err();
    for token in ["", "a", "a.b", "...", "Bearer a.b.c", "ä.ö.ü", "e30.e30.e30", "\0.\0.\0"] {
        assert!(matches!(refused(token).await, VerifyError::Malformed(_)), "{token:?}");
    }
    assert!(matches!(refused(&"a".repeat(16 * 1024 + 1)).await, VerifyError::Malformed(Malformed::TooLong)));
    assert_eq!(play.stage.source.asked(), 0);
}

#[test]
fn a_verifier_and_its_futures_go_between_threads() {
    fn is_send<T: Send>(_: &T) {}
    fn is_shared<T: Send + Sync + Clone>() {}
    is_shared::<Verifier>();
    is_shared::<Verified<StandardClaims>>();
    let registry = jwks_cache::Registry::new();
    let verifier = registry.verifier().any_audience().build().unwrap();
    is_send(&verifier.verify::<StandardClaims>(""));
}
