//! A lookup against a real origin: cold, fresh, rotated, unknown.
#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::time::Duration;

use jwks_cache::{Algorithm, Error, IdentityProviderRegistration, KeyError, Registry};
use jwks_cache_testkit::{IdentityProvider, Token, split};

fn registry() -> Registry {
    Registry::builder().require_https(false).build()
}

fn registration(idp: &IdentityProvider) -> IdentityProviderRegistration {
    IdentityProviderRegistration::new("acme", "main", idp.jwks_url()).unwrap()
}

async fn verify(registry: &Registry, token: &str) {
    let (header, input, signature) = split(token).unwrap();
    let key = registry.key("acme", "main", header["kid"].as_str(), Algorithm::ES256).await.unwrap();
    key.verify(input.as_bytes(), &signature).unwrap();
}

#[tokio::test]
async fn a_thousand_cold_callers_cost_one_request() {
    let idp = IdentityProvider::builder().algorithm(Algorithm::ES256).start();
    let registry = registry();
    registry.register(registration(&idp)).await.unwrap();
    let callers: Vec<_> = (0..1000)
        .map(|_| {
            let registry = registry.clone();
            tokio::spawn(
                async move { registry.resolve("acme", "main", None).await.map(|set| set.keys.len()) },
            )
        })
        .collect();
    for caller in callers {
        assert_eq!(caller.await.unwrap().unwrap(), 1);
    }
    assert_eq!(idp.jwks_hits(), 1);
}

#[tokio::test]
async fn a_rotation_is_seen_within_one_round_trip_and_old_keys_still_verify() {
    let idp = IdentityProvider::builder().algorithm(Algorithm::ES256).start();
    let registry = registry();
    registry.register(registration(&idp)).await.unwrap();
    let old = idp.mint(&Token::new());
    verify(&registry, &old).await;
    idp.rotate();
    verify(&registry, &idp.mint(&Token::new())).await;
    verify(&registry, &old).await;
    assert_eq!(idp.jwks_hits(), 2);
}

#[tokio::test]
async fn a_flood_of_unknown_kids_costs_one_request_an_interval() {
    let idp = IdentityProvider::builder().algorithm(Algorithm::ES256).start();
    let registry = registry();
    registry.register(registration(&idp)).await.unwrap();
    registry.resolve("acme", "main", None).await.unwrap();
    for n in 0..300 {
        let error = registry.key("acme", "main", Some(&format!("bogus-{n}")), Algorithm::ES256).await;
        assert!(matches!(error, Err(Error::Key(KeyError::UnknownKid))), "{error:?}");
    }
    assert_eq!(idp.jwks_hits(), 2);
}

#[tokio::test]
async fn a_cold_failure_is_shared_and_names_its_exchange() {
    let idp = IdentityProvider::builder().algorithm(Algorithm::ES256).start();
    idp.fail_with(500);
    let registry = registry();
    let mut registration = registration(&idp);
    registration.retry_policy.initial_backoff = Duration::from_millis(1);
    registration.retry_policy.max_backoff = Duration::from_millis(2);
    registry.register(registration).await.unwrap();
    let callers: Vec<_> = (0..50)
        .map(|_| {
            let registry = registry.clone();
            tokio::spawn(async move { registry.resolve("acme", "main", None).await })
        })
        .collect();
    for caller in callers {
        let error = caller.await.unwrap().unwrap_err();
        assert!(matches!(&error, Error::HttpStatus { status, .. } if status.as_u16() == 500), "{error}");
        assert_eq!((error.provider(), error.attempt()), (Some(("acme", "main")), Some(3)));
    }
    assert_eq!(idp.jwks_hits(), 3);
}
