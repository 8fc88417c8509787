//! The discovery documents of real issuers are read, and lead where they say.
#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

mod corpora;

use corpora::corpora;
use jwks_cache_core::Algorithm;
use jwks_cache_core::discovery::{Mixup, read};
use serde_json::Value;

#[test]
fn the_metadata_of_real_issuers_is_believed_for_the_issuer_that_it_names() {
    let Some(folder) = corpora().map(|folder| folder.join("discovery")) else { return };
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        let json: Value = serde_json::from_slice(&bytes).unwrap();
        // Some were kept with their headers.
        let (json, bytes) = match json.get("body") {
            Some(body) if json.get("issuer").is_none() => (body.clone(), body.to_string().into_bytes()),
            _ => (json, bytes),
        };
        let (Some(issuer), Some(jwks_uri)) = (json["issuer"].as_str(), json["jwks_uri"].as_str()) else {
            panic!("{}: no issuer or jwks_uri", path.display());
        };
        let found = read(&bytes, issuer).unwrap_or_else(|mixup| panic!("{}: {mixup}", path.display()));
        assert_eq!(found.jwks_uri, jwks_uri.parse().unwrap(), "{}", path.display());
        assert!(found.algorithms.contains(Algorithm::RS256), "{}: {:?}", path.display(), found.algorithms);
        let other = read(&bytes, &format!("{issuer}/")).unwrap_err();
        assert!(matches!(other, Mixup::OtherIssuer { .. }), "{}: {other}", path.display());
        count += 1;
    }
    println!("{count} discovery documents");
    assert!(count > 5);
}
