//! The cache of verified tokens: what is found in it is as good as what is verified anew, at every moment.
#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

mod stage;

use std::time::Duration;

use jwks_cache::{Clock, StandardClaims, Verified, Verifier, VerifierBuilder, VerifyError};
use serde_json::{Value, json};
use stage::scripted::{Stage, document, registration};
use stage::tokens::Signer;
use stage::{PROVIDER, TENANT};

const ISSUER: &str = "https://idp.test";

struct Play {
    stage: Stage,
    signer: Signer,
    verifier: Verifier,
}

impl Play {
    async fn new() -> Self {
        Self::with(|it| it).await
    }

    async fn with(change: impl FnOnce(VerifierBuilder) -> VerifierBuilder) -> Self {
        let signer = Signer::ed();
        let stage = Stage::with(|it| {
            it.issuer = Some(ISSUER.into());
            it.removal_grace = Duration::ZERO;
        })
        .await;
        stage.source.set(document(vec![signer.jwk(Some("k"), None)], "max-age=300"));
        let builder = stage.registry.verifier().any_audience().leeway(Duration::ZERO).cache_bytes(1 << 20);
        let verifier = change(builder).build().unwrap();
        Self { stage, signer, verifier }
    }

    /// A token that ends after so many seconds.
    fn token(&self, seconds: i64) -> String {
        let now = self.stage.clock.wall().timestamp();
        self.signer.token("EdDSA", &json!({"iss": ISSUER, "iat": now, "exp": now + seconds}))
    }

    async fn verify(&self, token: &str) -> Result<Verified<StandardClaims>, VerifyError> {
        self.verifier.verify(token).await
    }

    /// A token of five minutes that is in the cache.
    async fn remembered(&self) -> (String, Verified<StandardClaims>) {
        let token = self.token(300);
        let verified = self.verify(&token).await.unwrap();
        assert!(is_shared(&verified, &self.verify(&token).await.unwrap()));
        (token, verified)
    }
}

/// Whether both are one: the second was found, not verified.
fn is_shared<C>(one: &Verified<C>, other: &Verified<C>) -> bool {
    std::ptr::eq(one.claims(), other.claims())
}

#[tokio::test]
async fn a_token_that_comes_again_shares_its_claims_and_without_a_cache_it_does_not() {
    let play = Play::new().await;
    play.remembered().await;
    let plain = play.stage.registry.verifier().any_audience().build().unwrap();
    let token = play.token(300);
    let [one, other] = [plain.verify::<Value>(&token).await.unwrap(), plain.verify(&token).await.unwrap()];
    assert!(!is_shared(&one, &other));
}

#[tokio::test]
async fn every_byte_of_a_token_counts_and_so_does_the_type_of_its_claims() {
    let play = Play::new().await;
    let (token, verified) = play.remembered().await;
    let cut = token.rfind('.').unwrap() + 1;
    for at in [cut, cut + 20, token.len() - 2] {
        let mut bytes = token.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        let forged = String::from_utf8(bytes).unwrap();
        assert!(matches!(play.verify(&forged).await, Err(VerifyError::BadSignature(_))), "{at}");
    }
    let untyped = play.verifier.verify::<Value>(&token).await.unwrap();
    assert_eq!(untyped["iss"], ISSUER);
    assert!(is_shared(&untyped, &play.verifier.verify(&token).await.unwrap()));
    assert!(is_shared(&verified, &play.verify(&token).await.unwrap()));
}

#[tokio::test]
async fn a_remembered_token_expires_as_any_other() {
    let play = Play::new().await;
    let token = play.token(100);
    play.verify(&token).await.unwrap();
    play.stage.pass(99);
    play.verify(&token).await.unwrap();
    play.stage.pass(1);
    for _ in 0..2 {
        assert!(matches!(play.verify(&token).await, Err(VerifyError::Expired)));
    }
    let aged = Play::with(|it| it.max_age(Duration::from_secs(50))).await;
    let (token, _) = aged.remembered().await;
    aged.stage.pass(51);
    assert!(matches!(aged.verify(&token).await, Err(VerifyError::TooOld)));
}

#[tokio::test]
async fn a_denied_key_vouches_no_more_for_what_is_remembered() {
    let play = Play::new().await;
    let (token, verified) = play.remembered().await;
    for id in ["k".to_owned(), verified.thumbprint().to_string()] {
        play.stage.registry.deny_key(TENANT, PROVIDER, &id).await.unwrap();
        assert!(matches!(play.verify(&token).await, Err(VerifyError::DeniedKey(_))), "{id}");
        assert!(matches!(play.verifier.verify_now::<StandardClaims>(&token), Err(VerifyError::DeniedKey(_))));
        play.stage.registry.allow_key(TENANT, PROVIDER, &id).await.unwrap();
        play.verify(&token).await.unwrap();
    }
}

#[tokio::test]
async fn a_key_that_left_or_was_replaced_vouches_no_more() {
    let play = Play::new().await;
    let (token, _) = play.remembered().await;
    let other = Signer::ed();
    // The same kid with other material.
    play.stage.adopt(document(vec![other.jwk(Some("k"), None)], "max-age=300")).await;
    assert!(matches!(play.verify(&token).await, Err(VerifyError::BadSignature(_))));

    let play = Play::new().await;
    let (token, _) = play.remembered().await;
    play.stage.adopt(document(vec![other.jwk(Some("k2"), None)], "max-age=300")).await;
    assert!(matches!(play.verify(&token).await, Err(VerifyError::UnknownKey(_))));
}

#[tokio::test]
async fn keys_that_may_be_served_no_more_verify_nothing_that_is_remembered() {
    let play = Play::new().await;
    let token = play.token(100_000);
    play.verify(&token).await.unwrap();
    play.stage.source.set(stage::scripted::Answer::Refused);
    play.stage.pass(300 + 60); // expired, and the stale window is over
    assert!(matches!(play.verifier.verify_now::<StandardClaims>(&token), Err(VerifyError::NotCached)));
    assert!(matches!(play.verify(&token).await, Err(VerifyError::KeysUnavailable(_))));
}

#[tokio::test]
async fn another_registration_or_tenant_finds_nothing_remembered() {
    let play = Play::new().await;
    let (token, verified) = play.remembered().await;
    let mut again = registration(TENANT, PROVIDER, "idp.test");
    again.issuer = Some("https://other".into());
    play.stage.registry.register(again.clone()).await.unwrap();
    assert!(matches!(play.verify(&token).await, Err(VerifyError::UnknownProvider)));
    let at = play.verifier.of_provider(TENANT, PROVIDER);
    assert!(matches!(at.verify::<StandardClaims>(&token).await, Err(VerifyError::WrongIssuer)));
    again.issuer = Some(ISSUER.into());
    play.stage.registry.register(again).await.unwrap();
    assert!(!is_shared(&verified, &play.verify(&token).await.unwrap()));

    // Registered for another tenant, by the same keys: what one tenant verified is not the other's.
    let mut second = registration("second", PROVIDER, "idp.test");
    second.issuer = Some("https://second".into());
    play.stage.registry.register(second).await.unwrap();
    assert!(matches!(
        play.verifier.in_tenant("second").verify::<Value>(&token).await,
        Err(VerifyError::UnknownProvider)
    ));
    let second = play.verifier.of_provider("second", PROVIDER).verify::<StandardClaims>(&token).await;
    assert!(matches!(second, Err(VerifyError::WrongIssuer)), "{second:?}");

    // Gone and come back, it is another provider.
    play.stage.registry.unregister(TENANT, PROVIDER).await.unwrap();
    assert!(matches!(play.verify(&token).await, Err(VerifyError::UnknownProvider)));
}

#[tokio::test]
async fn a_key_that_is_bound_to_another_issuer_vouches_no_more_for_what_is_remembered() {
    let bound = |signer: &Signer, issuer: Option<&str>| {
        let mut key = signer.jwk(Some("k"), None);
        if let Some(issuer) = issuer {
            key["issuer"] = issuer.into();
        }
        document(vec![key], "max-age=300")
    };
    let play = Play::new().await;
    let rules = play.stage.registry.verifier().any_audience().any_issuer().cache_bytes(1 << 20);
    let verifier = rules.build().unwrap();
    let mut registration = registration(TENANT, PROVIDER, "idp.test");
    registration.removal_grace = Duration::ZERO;
    play.stage.registry.register(registration).await.unwrap();
    let at = verifier.of_provider(TENANT, PROVIDER);
    let now = play.stage.clock.wall().timestamp();
    let claims = json!({"iss": "https://login/7/", "tid": "7", "exp": now + 300});
    let token = play.signer.token("EdDSA", &claims);
    let mut seen = Vec::new();
    for issuer in [
        None,
        Some("https://login/7/"),
        Some("https://login/{tenantid}/"),
        Some("https://login/8/"),
        Some("https://login.us/{tenantid}/"),
        None,
    ] {
        play.stage.adopt(bound(&play.signer, issuer)).await;
        let remembered = at.verify::<Value>(&token).await;
        let anew = play.stage.registry.verifier().any_audience().any_issuer().build().unwrap();
        let anew = anew.of_provider(TENANT, PROVIDER).verify::<Value>(&token).await;
        assert_eq!(remembered.is_ok(), anew.is_ok(), "{issuer:?}: {remembered:?}, {anew:?}");
        assert!(remembered.is_ok() || matches!(remembered, Err(VerifyError::WrongIssuer)), "{remembered:?}");
        seen.push(remembered.is_ok());
    }
    assert_eq!(seen, [true, true, true, false, false, true]);
}

#[tokio::test]
async fn what_is_remembered_keeps_no_key_set_alive() {
    let play = Play::new().await;
    let (_, verified) = play.remembered().await;
    let set = std::sync::Arc::downgrade(&play.stage.resolve().await.unwrap());
    play.stage.adopt(document(vec![Signer::ed().jwk(Some("k2"), None)], "max-age=300")).await;
    // Tests beside this one may have looked at that very moment; then it goes at a later one.
    for _ in (0..10_000).take_while(|_| set.upgrade().is_some()) {
        play.stage.resolve().await.unwrap();
        std::thread::yield_now();
    }
    assert!(set.upgrade().is_none());
    assert_eq!((verified.kid(), verified.provider_id()), (Some("k"), PROVIDER));
}

#[tokio::test]
async fn a_token_is_looked_up_once_and_counted_once_remembered_or_not() {
    let play = Play::new().await;
    let (token, _) = play.remembered().await;
    let count = async |what: &str| play.stage.metric(&format!("jwks_cache_{what}_total")).await;
    let (requests, hits) = (count("requests").await, count("hits").await);
    play.verify(&token).await.unwrap();
    assert_eq!((count("requests").await - requests, count("hits").await - hits), (1.0, 1.0));
    // The same kid with other material: what is remembered holds no more.
    play.stage.adopt(document(vec![Signer::ed().jwk(Some("k"), None)], "max-age=300")).await;
    let requests = count("requests").await;
    assert!(play.verify(&token).await.is_err());
    assert_eq!(count("requests").await - requests, 1.0);
}

#[tokio::test]
async fn made_up_tokens_push_nothing_out() {
    let play = Play::with(|it| it.cache_bytes(64 << 10)).await;
    let (token, verified) = play.remembered().await;
    let start = token.rfind('.').unwrap() + 1;
    for n in 0..5_000 {
        let forged = format!("{}{}", &token[..start], stage::scripted::b64([(n % 251) as u8; 64]));
        assert!(play.verify(&forged).await.is_err());
    }
    assert!(is_shared(&verified, &play.verify(&token).await.unwrap()));
}

#[tokio::test]
async fn the_cache_keeps_within_its_bytes_and_what_is_used_again() {
    const BYTES: usize = 64 << 10;
    let play = Play::with(|it| it.cache_bytes(BYTES)).await;
    let (often, verified) = play.remembered().await;
    let now = play.stage.clock.wall().timestamp();
    for n in 0..2_000 {
        let claims = json!({"iss": ISSUER, "exp": now + 300, "jti": n.to_string()});
        play.verify(&play.signer.token("EdDSA", &claims)).await.unwrap();
        assert!(is_shared(&verified, &play.verify(&often).await.unwrap()), "after {n}");
    }
    let told = format!("{:?}", play.verifier);
    let bytes =
        told.rsplit("bytes: ").next().and_then(|rest| rest.split(|c: char| !c.is_ascii_digit()).next());
    let bytes: usize = bytes.unwrap().parse().unwrap();
    assert!(bytes > BYTES / 2 && bytes <= BYTES, "{told}");
}
