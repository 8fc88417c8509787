//! One exchange outside of a registry keeps the rules of a registration.
#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::time::Duration;

use jwks_cache::{Error, IdentityProviderRegistration, SpkiFingerprint, fetch_once};
use jwks_cache_testkit::{IdentityProvider, Reply};

fn registration(idp: &IdentityProvider) -> IdentityProviderRegistration {
    IdentityProviderRegistration::new("acme", "main", idp.jwks_url()).unwrap().with_require_https(false)
}

#[tokio::test]
async fn it_brings_the_whole_body_by_one_unconditional_request() {
    let idp = IdentityProvider::start();
    let fetched = fetch_once(&registration(&idp)).await.unwrap();
    assert!(fetched.body.starts_with(b"{\"keys\":[") && fetched.headers.contains_key("etag"));
    let requests = idp.origin().requests("/jwks.json");
    assert_eq!((requests.len(), requests[0].header("if-none-match"), fetched.requests), (1, None, 1));
}

#[tokio::test]
async fn it_refuses_what_a_flight_refuses_before_anything_is_sent() {
    let idp = IdentityProvider::start();
    let mut pinned = registration(&idp);
    pinned.pinned_spki = vec![SpkiFingerprint::from_b64(&("A".repeat(43) + "=")).unwrap()];
    let mut elsewhere = registration(&idp);
    elsewhere.allowed_domains = vec!["id.example.com".into()];
    let secure = registration(&idp).with_require_https(true);
    assert!(matches!(fetch_once(&pinned).await, Err(Error::Validation { field: "pinned_spki", .. })));
    assert!(matches!(fetch_once(&secure).await, Err(Error::Security(_))));
    assert!(matches!(fetch_once(&elsewhere).await, Err(Error::Validation { field: "jwks_url", .. })));
    assert_eq!(idp.origin().connections(), 0);
}

#[tokio::test]
async fn it_makes_one_attempt_and_waits_no_longer_than_attempt_timeout() {
    let idp = IdentityProvider::start();
    idp.fail_with(503);
    let error = fetch_once(&registration(&idp)).await.unwrap_err();
    assert_eq!((error.status().map(|status| status.as_u16()), error.attempt()), (Some(503), Some(1)));
    idp.origin().push("/jwks.json", Reply::hang());
    let mut hasty = registration(&idp);
    hasty.retry_policy.attempt_timeout = Duration::from_millis(100);
    let error = fetch_once(&hasty).await.unwrap_err();
    assert!(matches!(&error, Error::Fetch(failed) if failed.reason() == "timeout"), "{error}");
    assert_eq!(idp.jwks_hits(), 2);
}
