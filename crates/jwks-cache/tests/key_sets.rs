//! Which sets are taken, which keys are found in them, and how long a key lives on that left.
#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

mod stage;

use std::sync::Arc;

use jwks_cache::{Algorithm, Error, ErrorKind, KeyError, Registry, SetDiff, What};
use jwks_cache_testkit::{IdentityProvider, ManualClock, Token, split};
use serde_json::{Value, json};
use stage::scripted::{Answer, Stage, b64, body, document, events, jwk, keys, registration, verifies};
use stage::{at_once, kids, secs};

const LONG: &str = "max-age=36000";

fn why<T>(result: Result<T, Error>) -> KeyError {
    match result {
        Err(Error::Key(why)) => why,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("a key was found"),
    }
}

/// The key of `acme/main` without waiting.
#[expect(clippy::result_large_err, reason = "the library's own error")]
fn at_hand(stage: &Stage, kid: Option<&str>) -> Result<jwks_cache::VerificationKey, Error> {
    at_once(stage.registry.key("acme", "main", kid, Algorithm::EdDSA))
}

async fn stage() -> Stage {
    let stage = Stage::with(|registration| registration.kid_miss_interval = secs(36_000)).await;
    stage.source.set(keys(&[("a", 1), ("b", 2)], LONG));
    stage.resolve().await.unwrap();
    let _ = stage.key("uses up the budget for missing kids").await;
    stage
}

/// The states of the keys, by kid.
async fn states(stage: &Stage) -> Vec<(String, String)> {
    let status = stage.status().await;
    status.keys.into_iter().map(|key| (key.kid.unwrap_or_default(), key.state)).collect()
}

// Which documents are taken.

#[tokio::test]
async fn a_bad_key_does_not_cost_the_others() {
    let stage = Stage::new().await;
    let enc = json!({"kty": "OKP", "crv": "Ed25519", "use": "enc", "kid": "enc", "x": jwk("", 4)["x"]});
    stage.source.set(document(
        vec![
            json!({"kty": "AKP", "alg": "ML-DSA-44", "kid": "pq", "pub": "AAAA"}),
            jwk("a", 1),
            enc,
            json!(7),
        ],
        LONG,
    ));
    let set = stage.resolve().await.unwrap();
    assert_eq!(kids(&set), ["a", "enc"], "the well-formed ones in the document's order");
    assert!(verifies(&at_hand(&stage, Some("a")).unwrap(), 1));
    assert_eq!(why(at_hand(&stage, Some("enc"))), KeyError::NoMatch, "but only usable ones are trusted");
    let states = states(&stage).await;
    assert_eq!(states.iter().filter(|(_, state)| state == "set_aside").count(), 3, "{states:?}");
}

#[tokio::test]
async fn a_document_that_is_refused_as_a_whole_leaves_the_old_set() {
    let private = {
        let mut key = jwk("a", 1);
        key["d"] = b64([7; 32]).into();
        key
    };
    for (name, answer) in [
        ("no JSON", body("<html>down for maintenance</html>", LONG)),
        ("no keys", body("{}", LONG)),
        ("keys is no array", body(r#"{"keys":{}}"#, LONG)),
        ("empty", document(vec![], LONG)),
        ("none well-formed", document(vec![json!({"kty": "oct", "k": "AAAA"}), private], LONG)),
        (
            "none usable",
            document(
                vec![{
                    let mut key = jwk("a", 1);
                    key["use"] = "enc".into();
                    key
                }],
                LONG,
            ),
        ),
        ("too many", document((0..513).map(|n| jwk(&n.to_string(), 1)).collect(), LONG)),
    ] {
        let stage = stage().await;
        stage.source.set(answer);
        stage.pass(1).refresh_and_wait().await.unwrap_err();
        assert_eq!(kids(&at_once(stage.resolve()).unwrap()), ["a", "b"], "{name}");
        assert!(verifies(&at_hand(&stage, Some("b")).unwrap(), 2), "{name}");
        assert_eq!(stage.status().await.error_count, 1, "{name}");
    }
}

#[tokio::test]
async fn an_empty_set_is_taken_where_no_usable_key_is_servable_for_min_ttl_and_never_stale() {
    let stage = Stage::with(|registration| registration.min_ttl = secs(40)).await;
    stage.source.set(document(vec![], "max-age=36000, stale-if-error=36000"));
    assert!(stage.resolve().await.unwrap().keys.is_empty());
    for kid in [None, Some("a")] {
        let error = stage.registry.key("acme", "main", kid, Algorithm::EdDSA).await.unwrap_err();
        assert_eq!((error.kind(), why::<()>(Err(error))), (ErrorKind::KeysUnavailable, KeyError::NoKeys));
    }
    stage.source.set(Answer::Status(404, None));
    stage.pass(39).resolve().await.unwrap();
    stage.landed().await;
    stage.pass(1).resolve().await.unwrap_err();
    stage.source.set(keys(&[("a", 1)], LONG));
    assert_eq!(kids(&stage.pass(11).resolve().await.unwrap()), ["a"]);
}

#[tokio::test]
async fn after_an_empty_set_no_old_key_is_found() {
    let stage = Stage::warm(|_| {}).await;
    stage.source.set(document(vec![], LONG));
    stage.pass(400); // past the stale window
    assert!(stage.resolve().await.unwrap().keys.is_empty());
    assert_eq!(why(stage.key("a").await), KeyError::NoKeys);
}

#[tokio::test]
async fn a_304_starts_a_new_lifetime_with_what_it_changes() {
    let stage = Stage::new().await;
    let Answer::Head(_, mut head, text) = keys(&[("a", 1)], "max-age=300") else { unreachable!() };
    head.push(("etag", "\"one\"".into()));
    head.push(("last-modified", "Wed, 31 Dec 2025 00:00:00 GMT".into()));
    stage.source.set(Answer::Head(200, head, text));
    let first = stage.resolve().await.unwrap();
    let lasts = async |stage: &Stage| {
        let status = stage.status().await;
        (status.expires_at.unwrap() - status.last_refresh.unwrap()).num_seconds()
    };
    for (change, want) in [
        (vec![("cache-control", "max-age=900")], 900),
        (vec![("etag", "\"two\"")], 900),
        (vec![("cache-control", "no-cache")], 30),
    ] {
        let change = change.into_iter().map(|(name, value)| (name, value.to_owned())).collect();
        stage.source.set(Answer::Head(304, change, String::new()));
        stage.pass(100).refresh_and_wait().await.unwrap();
        assert_eq!(lasts(&stage).await, want);
        assert!(Arc::ptr_eq(&first, &at_once(stage.resolve()).unwrap()), "the same set");
    }
    let sent: Vec<_> = (0..4).map(|index| stage.source.request(index).if_none_match).collect();
    assert_eq!(
        sent.iter().map(Option::as_deref).collect::<Vec<_>>(),
        [None, Some("\"one\""), Some("\"one\""), Some("\"two\"")]
    );
    assert_eq!(stage.source.request(1).if_modified_since.as_deref(), Some("Wed, 31 Dec 2025 00:00:00 GMT"));
    assert_eq!(stage.metric("jwks_cache_not_modified_total").await, 3.0);
}

#[tokio::test]
async fn a_304_renews_trust() {
    let stage = Stage::with(|registration| registration.max_trust_age = Some(secs(600))).await;
    let Answer::Head(_, mut head, text) = keys(&[("a", 1)], "max-age=300") else { unreachable!() };
    head.push(("etag", "\"one\"".into()));
    stage.source.set(Answer::Head(200, head, text));
    stage.resolve().await.unwrap();
    stage.source.set(Answer::Head(304, vec![], String::new()));
    for _ in 0..10 {
        stage.pass(280).refresh_and_wait().await.unwrap();
    }
    assert_eq!(kids(&at_once(stage.resolve()).unwrap()), ["a"]);
}

#[tokio::test]
async fn a_304_that_nobody_asked_for_is_a_failure() {
    let stage = stage().await; // held without validators
    stage.source.set(Answer::Status(304, None));
    stage.pass(1).refresh_and_wait().await.unwrap_err();
    assert_eq!(kids(&at_once(stage.resolve()).unwrap()), ["a", "b"]);
}

// Which key is found.

#[tokio::test]
async fn a_key_is_found_by_its_exact_kid_or_as_the_only_one_that_fits() {
    let stage = stage().await;
    stage
        .adopt(document(
            vec![jwk("a", 1), jwk("b", 2), {
                let mut key = jwk("", 3);
                key["alg"] = "EdDSA".into();
                key
            }],
            LONG,
        ))
        .await;
    assert!(verifies(&at_hand(&stage, Some("b")).unwrap(), 2));
    assert!(verifies(&at_hand(&stage, Some("")).unwrap(), 3), "any text is a kid");
    assert_eq!(why(at_hand(&stage, None)), KeyError::Ambiguous);
    assert_eq!(why(at_once(stage.registry.key("acme", "main", None, Algorithm::RS256))), KeyError::NoMatch);
    assert_eq!(
        why(at_once(stage.registry.key("acme", "main", Some("a"), Algorithm::RS256))),
        KeyError::NoMatch
    );
    assert_eq!(why(stage.key("A").await), KeyError::UnknownKid, "to the letter");
    stage.adopt(keys(&[("only", 1)], LONG)).await;
    assert!(verifies(&at_hand(&stage, None).unwrap(), 1));
    stage.adopt(keys(&[("one", 1), ("same", 1)], LONG)).await;
    assert!(verifies(&at_hand(&stage, None).unwrap(), 1), "the same material twice is one key");
}

#[tokio::test]
async fn unknown_key_is_told_apart_from_keys_unavailable() {
    let stage = stage().await;
    let error = stage.key("zzz").await.unwrap_err();
    assert_eq!((error.kind(), error.to_string().is_empty()), (ErrorKind::UnknownKey, false));
    let cold = Stage::new().await;
    cold.source.set(Answer::Refused);
    assert_eq!(cold.key("a").await.unwrap_err().kind(), ErrorKind::KeysUnavailable);
}

#[tokio::test]
async fn equal_sets_share_their_memory() {
    let stage = Stage::new().await;
    for (tenant, provider, host) in [("acme", "other", "idp.test"), ("rival", "main", "elsewhere.test")] {
        stage.registry.register(registration(tenant, provider, host)).await.unwrap();
    }
    let first = stage.resolve().await.unwrap();
    for (tenant, provider) in [("acme", "other"), ("rival", "main")] {
        let set = stage.registry.resolve(tenant, provider, None).await.unwrap();
        assert!(Arc::ptr_eq(&first, &set), "{tenant}/{provider}");
    }
    stage.adopt(keys(&[("a", 1), ("b", 2)], "max-age=1234")).await;
    assert!(Arc::ptr_eq(&first, &at_once(stage.resolve()).unwrap()), "nor does a refresh copy it");
    assert_eq!(stage.source.asked(), 4, "memory is shared, lookups and fetches are not");
}

#[tokio::test]
async fn one_kid_in_two_tenants_never_crosses() {
    let stage = Stage::new().await;
    stage.source.set_at("rival.test", keys(&[("a", 77), ("r", 78)], LONG));
    stage.registry.register(registration("rival", "main", "rival.test")).await.unwrap();
    for _ in 0..3 {
        let ours = stage.key("a").await.unwrap();
        let theirs = stage.registry.key("rival", "main", Some("a"), Algorithm::EdDSA).await.unwrap();
        assert!(verifies(&ours, 1) && !verifies(&ours, 77));
        assert!(verifies(&theirs, 77) && !verifies(&theirs, 1));
    }
    stage.registry.deny_key("rival", "main", "a").await.unwrap();
    assert!(at_hand(&stage, Some("a")).is_ok(), "a denial is one provider's");
    stage.source.set_at("rival.test", Answer::Refused);
    stage.pass(1).registry.refresh_and_wait("rival", "main").await.unwrap_err();
    assert_eq!(stage.status().await.error_count, 0);
    let rival = stage.registry.key("rival", "main", Some("b"), Algorithm::EdDSA).await;
    assert_eq!(why(rival), KeyError::UnknownKid);
}

// What changed.

fn changes(events: Vec<What>) -> (Vec<Arc<SetDiff>>, usize) {
    let suspicious = events.iter().filter(|what| matches!(what, What::SuspiciousChange { .. })).count();
    let diffs = events.into_iter().filter_map(|what| match what {
        What::SetChanged { diff } => Some(diff),
        _ => None,
    });
    (diffs.collect(), suspicious)
}

fn named(ids: &[jwks_cache::KeyId]) -> Vec<&str> {
    ids.iter().map(|id| id.kid.as_deref().unwrap_or_default()).collect()
}

#[tokio::test]
async fn every_change_of_set_yields_a_diff_by_thumbprint() {
    let stage = Stage::new().await;
    let mut subscription = stage.registry.subscribe();
    stage.resolve().await.unwrap();
    stage.adopt(keys(&[("a", 1), ("b", 9), ("c", 3)], LONG)).await;
    stage.adopt(keys(&[("a", 1), ("b", 9), ("c", 3)], LONG)).await; // nothing changed
    stage.adopt(keys(&[("c", 3)], LONG)).await;
    let (diffs, _) = changes(events(&mut subscription));
    let names: Vec<_> =
        diffs.iter().map(|diff| (named(&diff.added), named(&diff.removed), named(&diff.changed))).collect();
    assert_eq!(
        names,
        [(vec!["a", "b"], vec![], vec![]), (vec!["c"], vec![], vec!["b"]), (vec![], vec!["a", "b"], vec![]),]
    );
    let status = stage.status().await;
    let held = status.keys.iter().find(|key| key.kid.as_deref() == Some("c")).unwrap();
    assert_eq!(held.thumbprint, Some(diffs[1].added[0].thumbprint.to_string()));
}

#[tokio::test]
async fn a_suspicious_change_is_adopted_and_raised() {
    for (next, want) in [
        (keys(&[("c", 3), ("d", 4)], LONG), 1), // nothing in common
        (keys(&[("a", 9), ("b", 2)], LONG), 1), // new material under a held kid
        (keys(&[("a", 1), ("c", 3)], LONG), 0),
    ] {
        let stage = stage().await;
        let mut subscription = stage.registry.subscribe();
        stage.adopt(next).await;
        let (diffs, suspicious) = changes(events(&mut subscription));
        assert_eq!((diffs.len(), suspicious), (1, want));
    }
    let stage = stage().await;
    stage.adopt(keys(&[("a", 9), ("b", 2)], LONG)).await;
    assert!(verifies(&at_hand(&stage, Some("a")).unwrap(), 9));
}

#[tokio::test]
async fn failure_and_recovery_are_told() {
    let stage = stage().await;
    let mut subscription = stage.registry.subscribe();
    stage.source.set(Answer::Status(404, None));
    stage.pass(1).refresh_and_wait().await.unwrap_err();
    stage.adopt(keys(&[("a", 1), ("b", 2)], LONG)).await;
    let told = events(&mut subscription);
    assert!(
        matches!(told[..], [What::RefreshFailed { reason: "status", failures: 1 }, What::Recovered]),
        "{told:?}"
    );
}

// Confirmed removal.

#[tokio::test]
async fn a_removed_key_leaves_resolve_at_once_and_key_after_its_grace() {
    let stage = stage().await;
    stage.adopt(keys(&[("a", 1)], LONG)).await;
    assert_eq!(kids(&at_once(stage.resolve()).unwrap()), ["a"]);
    assert!(verifies(&at_hand(&stage, Some("b")).unwrap(), 2));
    assert!(states(&stage).await.contains(&("b".into(), "retiring".into())));
    at_hand(stage.pass(599), Some("b")).unwrap();
    assert_eq!(why(stage.pass(1).key("b").await), KeyError::UnknownKid);
    assert!(!states(&stage).await.iter().any(|(kid, _)| kid == "b"));
}

#[tokio::test]
async fn a_key_survives_a_flapping_set_and_goes_in_the_end() {
    let clock = ManualClock::new();
    let idp = IdentityProvider::builder().clock(Arc::new(clock.clone())).start();
    let registry = Registry::builder().require_https(false).clock(Arc::new(clock.clone())).build();
    let mut of = registration("acme", "main", "idp.test");
    (of.jwks_url, of.require_https) = (idp.jwks_url(), false);
    registry.register(of).await.unwrap();
    let old = idp.mint(&Token::new());
    idp.rotate();
    idp.flap("k1");
    let (header, input, signature) = split(&old).unwrap();
    let verify = async || -> Result<(), Error> {
        let key = registry.key("acme", "main", header["kid"].as_str(), Algorithm::ES256).await?;
        key.verify(input.as_bytes(), &signature).unwrap();
        Ok(())
    };
    idp.publish("k1");
    registry.resolve("acme", "main", None).await.unwrap();
    idp.flap("k1");
    let mut sizes = Vec::new();
    for _ in 0..20 {
        clock.advance(secs(290));
        registry.refresh_and_wait("acme", "main").await.unwrap();
        sizes.push(registry.resolve("acme", "main", None).await.unwrap().keys.len());
        verify().await.unwrap();
    }
    assert!(sizes.contains(&1) && sizes.contains(&2), "it flapped: {sizes:?}");
    idp.retire("k1");
    for _ in 0..4 {
        clock.advance(secs(290));
        registry.refresh_and_wait("acme", "main").await.unwrap();
    }
    assert_eq!(why(verify().await), KeyError::UnknownKid);
}

#[tokio::test]
async fn a_retiring_key_never_competes_with_a_published_one() {
    let stage = stage().await;
    stage.adopt(keys(&[("a", 1)], LONG)).await;
    assert!(verifies(&at_hand(&stage, None).unwrap(), 1), "never without a kid: b makes nothing ambiguous");
    stage.adopt(keys(&[("a", 1), ("b", 9)], LONG)).await;
    let key = at_hand(&stage, Some("b")).unwrap();
    assert!(verifies(&key, 9) && !verifies(&key, 2), "only while no published key has its kid");
    let weak: Value = {
        let mut key = jwk("b", 9);
        key["use"] = "enc".into();
        key
    };
    stage.adopt(document(vec![jwk("a", 1), weak], LONG)).await;
    assert_eq!(why(at_hand(&stage, Some("b"))), KeyError::NoMatch, "even one that verifies nothing");
}

#[tokio::test]
async fn a_key_whose_private_half_was_published_is_gone_at_once_and_everywhere() {
    let stage = stage().await;
    let mut private = jwk("b", 2);
    private["d"] = b64([7; 32]).into();
    stage.adopt(document(vec![jwk("a", 1), private], LONG)).await;
    assert_eq!(kids(&at_once(stage.resolve()).unwrap()), ["a"]);
    assert_eq!(why(stage.key("b").await), KeyError::UnknownKid);
    let status = serde_json::to_string(&stage.status().await).unwrap();
    assert!(!status.contains(&b64([7; 32])));
}

// Denials.

#[tokio::test]
async fn a_denied_key_is_gone_at_once_by_kid_or_thumbprint_until_allowed_again() {
    let stage = stage().await;
    let thumbprint = at_hand(&stage, Some("a")).unwrap().thumbprint().to_string();
    let mut subscription = stage.registry.subscribe();
    for id in ["a", &thumbprint] {
        assert!(stage.registry.deny_key("acme", "main", id).await.unwrap());
        assert!(!stage.registry.deny_key("acme", "main", id).await.unwrap(), "it was already");
        assert_eq!(why(at_hand(&stage, Some("a"))), KeyError::Denied, "{id}");
        assert_eq!(kids(&at_once(stage.resolve()).unwrap()), ["b"], "{id}");
        assert!(states(&stage).await.contains(&("a".into(), "denied".into())), "{id}");
        assert!(verifies(&at_hand(&stage, None).unwrap(), 2), "it makes nothing ambiguous");
        stage.pass(1).refresh_and_wait().await.unwrap(); // survives a refresh
        assert_eq!(why(at_hand(&stage, Some("a"))), KeyError::Denied, "{id}");
        assert!(stage.registry.allow_key("acme", "main", id).await.unwrap());
        assert!(!stage.registry.allow_key("acme", "main", id).await.unwrap());
        assert!(verifies(&at_hand(&stage, Some("a")).unwrap(), 1), "{id}");
    }
    let told = events(&mut subscription);
    let denied = told.iter().filter(|what| matches!(what, What::KeyDenied { .. })).count();
    let allowed = told.iter().filter(|what| matches!(what, What::KeyAllowed { .. })).count();
    assert_eq!((denied, allowed), (2, 2));
}

#[tokio::test]
async fn a_denied_key_does_not_come_back_under_another_kid() {
    let stage = stage().await;
    stage.registry.deny_key("acme", "main", "a").await.unwrap();
    stage.adopt(keys(&[("innocent", 1), ("b", 2)], LONG)).await;
    assert_eq!(why(at_hand(&stage, Some("innocent"))), KeyError::Denied);
    assert_eq!(kids(&at_once(stage.resolve()).unwrap()), ["b"]);
}

#[tokio::test]
async fn a_denial_ends_grace_and_needs_nothing_held() {
    let stage = stage().await;
    stage.adopt(keys(&[("a", 1)], LONG)).await;
    at_hand(&stage, Some("b")).unwrap();
    stage.registry.deny_key("acme", "main", "b").await.unwrap();
    assert_eq!(why(at_hand(&stage, Some("b"))), KeyError::Denied);
    let cold = Stage::new().await;
    cold.registry.deny_key("acme", "main", "a").await.unwrap();
    assert_eq!(kids(&cold.resolve().await.unwrap()), ["b"]);
    let unknown = cold.registry.deny_key("acme", "none", "a").await.unwrap_err();
    assert_eq!(unknown.kind(), ErrorKind::NotRegistered);
}

#[tokio::test]
async fn readiness_asks_for_usable_keys_whatever_is_denied() {
    let stage = Stage::new().await;
    assert!(!stage.registry.health().await.ready);
    stage.landed().await; // asking was a read, and started the flight
    assert!(stage.registry.health().await.ready);
    for kid in ["a", "b"] {
        stage.registry.deny_key("acme", "main", kid).await.unwrap();
    }
    assert!(stage.registry.health().await.ready, "a denial is no outage");
}

#[tokio::test]
async fn what_is_denied_when_it_is_registered_is_never_at_hand() {
    let stage = stage().await;
    let again = || registration("acme", "main", "idp.test");
    stage.registry.register_denying(again(), ["a"]).await.unwrap();
    assert_eq!(why(at_hand(&stage, Some("a"))), KeyError::Denied);
    assert!(stage.registry.unregister("acme", "main").await.unwrap());
    stage.registry.register_denying(again(), ["a", "gone"]).await.unwrap();
    assert_eq!(why(at_hand(&stage, Some("a"))), KeyError::Denied, "before anything was fetched");
    assert_eq!(kids(&stage.resolve().await.unwrap()), ["b"]);
    assert_eq!(stage.status().await.denied, ["a", "gone"]);
    assert!(stage.registry.allow_key("acme", "main", "a").await.unwrap());
    at_hand(&stage, Some("a")).unwrap();
}
