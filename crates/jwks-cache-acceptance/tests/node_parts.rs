//! The parts themselves work: what the library's tests build on.

#![allow(clippy::unwrap_used, reason = "a test file: a panic is a failure")]

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::StatusCode;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use jwks_cache_acceptance::{Counts, NodePart, client};
use serde_json::Value;

#[tokio::test]
async fn oidc_provider_signs_with_every_algorithm_and_rotates_live() {
    let part = NodePart::start("oidc-provider").await;
    assert_eq!(part.algorithms().await, ["RS256", "PS256", "ES256", "ES512", "EdDSA"]);
    every_token_names_a_published_key(&part, "at+jwt").await;
    a_rotation_adds_the_key_that_signs(&part).await;

    let answer = client().get(part.jwks_url()).send().await.unwrap();
    assert_eq!(answer.headers()[CONTENT_TYPE], "application/jwk-set+json; charset=utf-8");
    assert!(!answer.headers().contains_key(ETAG) && !answer.headers().contains_key(CACHE_CONTROL));
}

#[tokio::test]
async fn mock_server_answers_304_until_its_set_changes() {
    let part = NodePart::start("mock-server").await;
    every_token_names_a_published_key(&part, "JWT").await;
    let before = part.counts().await;

    let etag = client().get(part.jwks_url()).send().await.unwrap().headers()[ETAG].clone();
    assert!(etag.as_bytes().starts_with(b"W/"), "a weak validator: {etag:?}");
    let again = || client().get(part.jwks_url()).header(IF_NONE_MATCH, etag.clone()).send();
    assert_eq!(again().await.unwrap().status(), StatusCode::NOT_MODIFIED);
    part.rotate("ES256").await;
    assert_eq!(again().await.unwrap().status(), StatusCode::OK);

    let Counts { requests, full, not_modified } = part.counts().await;
    assert_eq!(
        (requests - before.requests, full - before.full, not_modified - before.not_modified),
        (3, 2, 1)
    );
    a_rotation_adds_the_key_that_signs(&part).await;
}

async fn every_token_names_a_published_key(part: &NodePart, typ: &str) {
    let published = kids(part).await;
    for alg in part.algorithms().await {
        let header = header(&part.token(&alg).await);
        assert_eq!(header["alg"], alg.as_str());
        assert_eq!(header["typ"], typ, "{alg}");
        assert!(published.contains(&kid(&header)), "{alg}");
    }
}

async fn a_rotation_adds_the_key_that_signs(part: &NodePart) {
    for alg in part.algorithms().await {
        let before = kids(part).await;
        let added = part.rotate(&alg).await;
        let after = kids(part).await;
        assert!(!before.contains(&added) && after.contains(&added), "{alg}");
        assert!(before.iter().all(|kid| after.contains(kid)), "{alg}: the older keys stay published");
        assert_eq!(kid(&header(&part.token(&alg).await)), added, "{alg}");
    }
}

async fn kids(part: &NodePart) -> Vec<String> {
    let body = client().get(part.jwks_url()).send().await.unwrap().bytes().await.unwrap();
    let set: Value = serde_json::from_slice(&body).unwrap();
    set["keys"].as_array().unwrap().iter().map(kid).collect()
}

fn kid(named: &Value) -> String {
    named["kid"].as_str().unwrap().to_owned()
}

fn header(token: &str) -> Value {
    let encoded = token.split('.').next().unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(encoded).unwrap()).unwrap()
}
