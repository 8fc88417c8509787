//! Keys outside the process: what a snapshot holds, and what a cache takes from one.
//!
//! A cache of its own goes by the machine's clock, so snapshots are aged instead, by far more than a test takes.
#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

mod stage;

use std::time::Duration;

use chrono::TimeDelta;
use jwks_cache::{
    Algorithm, CacheManager, CachePayload, CacheState, Clock, Error, IdentityProviderRegistration,
    PersistentSnapshot, RefreshMode, SystemClock,
};
use jwks_cache_testkit::{IdentityProvider, Origin, Reply};
use stage::socket::*;
use stage::{PROVIDER, TENANT, kids, secs, soon};

type Change = fn(&mut IdentityProviderRegistration);

/// A cache whose provider refuses connections.
fn cache(change: impl FnOnce(&mut IdentityProviderRegistration)) -> CacheManager {
    let idp = IdentityProvider::start();
    idp.go_down();
    cache_of(&idp, change)
}

fn cache_of(idp: &IdentityProvider, change: impl FnOnce(&mut IdentityProviderRegistration)) -> CacheManager {
    let mut registration = registration(idp.jwks_url()).with_require_https(false);
    change(&mut registration);
    CacheManager::new(registration).unwrap()
}

/// A snapshot of this age and lifetime, in seconds.
fn snapshot(age: i64, lifetime: i64) -> PersistentSnapshot {
    let persisted_at = SystemClock.wall() - TimeDelta::seconds(age);
    PersistentSnapshot {
        tenant_id: TENANT.into(),
        provider_id: PROVIDER.into(),
        jwks_json: document(&["old"]),
        etag: Some("\"e\"".into()),
        last_modified: None,
        expires_at: persisted_at + TimeDelta::seconds(lifetime),
        persisted_at,
    }
}

async fn held(cache: &CacheManager) -> Option<CachePayload> {
    match cache.snapshot().await.state {
        CacheState::Ready(payload) | CacheState::Refreshing(payload) => Some(payload),
        CacheState::Empty | CacheState::Loading => None,
    }
}

/// How much longer a cache calls its keys fresh, in whole seconds.
async fn fresh_for(cache: &CacheManager) -> i64 {
    let now = cache.snapshot().await.captured_at;
    let left = held(cache).await.unwrap().expires_at.saturating_duration_since(now);
    i64::try_from(left.as_secs()).unwrap()
}

#[tokio::test]
async fn a_snapshot_brings_the_keys_of_one_process_to_the_next() {
    let idp = IdentityProvider::builder().cache_control("max-age=600").start();
    let first = cache_of(&idp, |_| ());
    assert!(first.persistent_snapshot().await.unwrap().is_none());
    soon(first.resolve(None)).await.unwrap();
    let stored = first.persistent_snapshot().await.unwrap().unwrap();
    assert_eq!((&*stored.tenant_id, &*stored.provider_id), (TENANT, PROVIDER));
    assert!((590..=600).contains(&(stored.expires_at - stored.persisted_at).num_seconds()));
    assert!(stored.jwks_json.contains("\"k1\"") && stored.etag.is_some());

    idp.go_down();
    let json = serde_json::to_string(&stored).unwrap();
    let second = cache_of(&idp, |_| ());
    second.restore_snapshot(serde_json::from_str(&json).unwrap()).await.unwrap();
    assert_eq!(kids(&soon(second.resolve(None)).await.unwrap()), ["k1"]);
    soon(second.key(Some("k1"), Algorithm::ES256)).await.unwrap();
    let again = second.persistent_snapshot().await.unwrap().unwrap();
    assert_eq!((&again.jwks_json, &again.etag), (&stored.jwks_json, &stored.etag));
    assert_eq!(again.persisted_at, stored.persisted_at);
}

#[test]
fn a_snapshot_with_the_first_names_only_is_read() {
    let json = r#"{"tenant_id":"acme","provider_id":"main","jwks_json":"{\"keys\":[]}","etag":null,
        "expires_at":"2026-01-01T00:05:00Z","persisted_at":"2026-01-01T00:00:00Z"}"#;
    let snapshot: PersistentSnapshot = serde_json::from_str(json).unwrap();
    assert_eq!(snapshot.last_modified, None);
    assert_eq!((snapshot.expires_at - snapshot.persisted_at).num_seconds(), 300);
}

#[tokio::test]
async fn a_restored_snapshot_gains_no_lifetime() {
    for (age, lifetime, left) in
        [(0, 300, 300), (100, 300, 200), (299, 300, 1), (3_600, 86_400 * 365, 86_400 - 3_600)]
    {
        let cache = cache(|_| ());
        cache.restore_snapshot(snapshot(age, lifetime)).await.unwrap();
        let got = fresh_for(&cache).await;
        assert!((left - 10..=left).contains(&got), "{age} s of {lifetime} s: {got} s left");
    }
}

#[tokio::test]
async fn a_restored_snapshot_keeps_its_age_when_it_is_stored_again() {
    let original = snapshot(100, 300);
    let cache = cache(|_| ());
    cache.restore_snapshot(original.clone()).await.unwrap();
    let again = cache.persistent_snapshot().await.unwrap().unwrap();
    assert_eq!(again.persisted_at, original.persisted_at);
    assert!((again.expires_at - original.expires_at).num_milliseconds().abs() < 1_000);
}

#[tokio::test]
async fn a_snapshot_from_the_near_future_counts_as_new_and_one_from_afar_is_refused() {
    for (ahead, taken) in [(5, true), (55, true), (65, false), (86_400, false)] {
        let cache = cache(|_| ());
        let outcome = cache.restore_snapshot(snapshot(-ahead, 300)).await;
        if taken {
            outcome.unwrap();
            let left = fresh_for(&cache).await;
            assert!((290..=300).contains(&left), "{ahead} s ahead: {left} s left");
        } else {
            is_validation(outcome, "persisted_at");
            assert!(held(&cache).await.is_none());
        }
    }
}

#[tokio::test]
async fn a_snapshot_too_old_to_be_served_is_refused() {
    let check = async |age, lifetime, change: Change, served: bool| {
        let cache = cache(change);
        let outcome = cache.restore_snapshot(snapshot(age, lifetime)).await;
        if served {
            outcome.unwrap();
            assert_eq!(kids(&soon(cache.resolve(None)).await.unwrap()), ["old"]);
        } else {
            is_validation(outcome, "expires_at");
            assert!(held(&cache).await.is_none());
        }
    };
    check(290, 300, |_| (), true).await;
    check(330, 300, |_| (), true).await; // stale
    check(361, 300, |_| (), false).await;
    check(301, 300, |it| it.stale_while_error = secs(0), false).await;
    check(330, 300, |it| it.stale_while_error = secs(20), false).await;
    // Trust ends before the lifetime does.
    check(50, 300, |it| it.max_trust_age = Some(secs(100)), true).await;
    check(100, 300, |it| it.max_trust_age = Some(secs(100)), false).await;
    check(86_400 * 3, 86_400 * 30, |it| it.max_ttl = secs(86_400 * 40), true).await;
    check(86_400 * 41, 86_400 * 30, |it| it.max_ttl = secs(86_400 * 40), false).await;
}

#[tokio::test]
async fn a_snapshot_never_replaces_newer_keys() {
    let idp = IdentityProvider::start();
    let fetched = cache_of(&idp, |_| ());
    soon(fetched.resolve(None)).await.unwrap();
    let before = held(&fetched).await.unwrap();
    fetched.restore_snapshot(snapshot(10, 80_000)).await.unwrap();
    assert_eq!(kids(&held(&fetched).await.unwrap().jwks), ["k1"]);
    assert_eq!(held(&fetched).await.unwrap().last_refresh_at, before.last_refresh_at);

    let restored = cache(|_| ());
    for (age, kid, now) in [(100, "a", "a"), (50, "b", "b"), (80, "c", "b"), (20, "d", "d")] {
        let snapshot = PersistentSnapshot { jwks_json: document(&[kid]), ..snapshot(age, 300) };
        restored.restore_snapshot(snapshot).await.unwrap();
        assert_eq!(kids(&held(&restored).await.unwrap().jwks), [now]);
    }
    // As with a fetched document, what it does not hold any more retires.
    soon(restored.key(Some("b"), Algorithm::EdDSA)).await.unwrap();
}

#[tokio::test]
async fn a_snapshot_is_judged_like_a_fetched_body() {
    let cache = cache(|_| ());
    let with =
        |age, jwks_json: &str| PersistentSnapshot { jwks_json: jwks_json.into(), ..snapshot(age, 300) };
    let oct = r#"{"keys":[{"kty":"oct","k":"c2VjcmV0"}]}"#;
    let unusable = document(&["x"]).replace("\"kty\"", "\"use\":\"enc\",\"kty\"");
    for bad in ["", "null", "{}", r#"{"keys":{}}"#, "<html>", oct] {
        is_validation(cache.restore_snapshot(with(50, bad)).await, "jwks_json");
        assert!(held(&cache).await.is_none(), "{bad}");
    }
    cache.restore_snapshot(with(50, &document(&["good"]))).await.unwrap();
    for bad in ["{", oct, &unusable, r#"{"keys":[]}"#] {
        is_validation(cache.restore_snapshot(with(20, bad)).await, "jwks_json");
        assert_eq!(kids(&held(&cache).await.unwrap().jwks), ["good"], "{bad}");
    }
}

#[tokio::test]
async fn an_empty_set_is_restored_for_the_shortest_lifetime_and_never_stale() {
    let empty = |age| PersistentSnapshot { jwks_json: r#"{"keys":[]}"#.into(), ..snapshot(age, 300) };
    let cache = cache(|_| ());
    is_validation(cache.restore_snapshot(empty(31)).await, "expires_at");
    cache.restore_snapshot(empty(10)).await.unwrap();
    assert!((10..=20).contains(&fresh_for(&cache).await));
    assert!(soon(cache.resolve(None)).await.unwrap().keys.is_empty());
}

#[tokio::test]
async fn keys_with_private_members_are_never_stored_nor_restored() {
    let marked = "bWFya2VkLXNlY3JldC1vZi1hLXByaXZhdGUta2V5LSE";
    let private = document(&["private"]).replace("\"x\":", &format!("\"d\":\"{marked}\",\"x\":"));
    let both = private.replace(r#"{"keys":["#, &document(&["public"]).replace("]}", ","));
    let origin = Origin::start();
    origin.set("/jwks", Reply::json(&both));
    let registration = registration(origin.url("/jwks")).with_require_https(false);
    let cache = CacheManager::new(registration.clone()).unwrap();
    assert_eq!(kids(&soon(cache.resolve(None)).await.unwrap()), ["public"]);
    let stored = cache.persistent_snapshot().await.unwrap().unwrap();
    assert!(stored.jwks_json.contains("\"public\""), "{}", stored.jwks_json);
    assert!(!stored.jwks_json.contains(marked) && !stored.jwks_json.contains("\"private\""));

    let tampered = PersistentSnapshot { jwks_json: both, ..snapshot(10, 300) };
    let next = CacheManager::new(registration).unwrap();
    next.restore_snapshot(tampered).await.unwrap();
    assert_eq!(kids(&held(&next).await.unwrap().jwks), ["public"]);
    let stored = next.persistent_snapshot().await.unwrap().unwrap();
    assert!(!stored.jwks_json.contains(marked));
}

#[tokio::test]
async fn restored_validators_are_never_sent() {
    let idp = IdentityProvider::start();
    let first = cache_of(&idp, |_| ());
    soon(first.resolve(None)).await.unwrap();
    let mut stored = first.persistent_snapshot().await.unwrap().unwrap();
    stored.last_modified = Some(stored.persisted_at);
    let second = cache_of(&idp, |it| it.prefetch_jitter = secs(500));
    second.restore_snapshot(stored).await.unwrap();
    soon(second.trigger_refresh()).await.unwrap();
    soon(idp.origin().wait_for_hits("/jwks.json", 2)).await;
    let request = &idp.origin().requests("/jwks.json")[1];
    assert_eq!(request.header("if-none-match"), None);
    assert_eq!(request.header("if-modified-since"), None);
}

#[tokio::test]
async fn a_refresh_follows_a_restored_snapshot_soon() {
    // By itself where the timer needs no reader.
    let idp = IdentityProvider::start();
    let always = cache_of(&idp, |it| it.refresh_mode = RefreshMode::Always);
    always.restore_snapshot(snapshot(10, 300)).await.unwrap();
    soon(idp.origin().wait_for_hits("/jwks.json", 1)).await;

    // Otherwise with the first reader, who does not wait for it.
    let idp = IdentityProvider::start();
    let gate = idp.origin().hold("/jwks.json");
    let read = cache_of(&idp, |_| ());
    read.restore_snapshot(snapshot(10, 300)).await.unwrap();
    assert_eq!(kids(&soon(read.resolve(None)).await.unwrap()), ["old"]);
    soon(idp.origin().wait_for_hits("/jwks.json", 1)).await;
    gate.release();
    let adopted = async {
        while kids(&read.resolve(None).await.unwrap()) != ["k1"] {
            tokio::task::yield_now().await;
        }
    };
    soon(adopted).await;
}

/// In how long each of so many caches refreshes, restored from equal snapshots with this jitter.
async fn refreshes_after_restoring(
    caches: usize,
    jitter: Duration,
    snapshot: PersistentSnapshot,
) -> Vec<Duration> {
    let idp = IdentityProvider::start();
    idp.go_down();
    let mut waits = Vec::new();
    for _ in 0..caches {
        let cache = cache_of(&idp, |it| it.prefetch_jitter = jitter);
        cache.restore_snapshot(snapshot.clone()).await.unwrap();
        let (now, payload) = (cache.snapshot().await.captured_at, held(&cache).await.unwrap());
        waits.push(payload.next_refresh_at.saturating_duration_since(now));
    }
    waits
}

#[tokio::test]
async fn restored_caches_do_not_all_refresh_at_once() {
    let waits = refreshes_after_restoring(40, secs(1_000), snapshot(10, 80_000)).await;
    let (first, last) = (waits.iter().min().unwrap(), waits.iter().max().unwrap());
    // That all forty fall into one half of the jitter has a chance of 4 in 10^11.
    assert!(*last - *first > secs(500), "spread over the jitter: {waits:?}");
    assert!(*last <= secs(1_001), "and within it: {waits:?}");

    // Each has its own moment: a second apart or not, no two caches share one.
    let mut distinct = waits.clone();
    distinct.sort();
    distinct.dedup();
    assert_eq!(distinct.len(), 40);

    // The jitter neither outlasts the keys nor stands where it is set to nothing.
    let waits = refreshes_after_restoring(10, secs(100_000), snapshot(10, 300)).await;
    assert!(waits.iter().all(|wait| *wait <= secs(290)), "{waits:?}");
    let waits = refreshes_after_restoring(3, Duration::ZERO, snapshot(10, 300)).await;
    assert_eq!(waits, [Duration::ZERO; 3]);
}

#[tokio::test]
async fn validation_names_the_field_of_a_snapshot_that_does_not_fit() {
    let registration = registration("https://id.example.com/jwks.json");
    let cache = CacheManager::new(registration.clone()).unwrap();
    let check = async |field: &'static str, change: fn(&mut PersistentSnapshot)| {
        let mut snapshot = snapshot(10, 300);
        snapshot.validate(&registration).unwrap();
        change(&mut snapshot);
        is_validation(snapshot.validate(&registration), field);
        is_validation(cache.restore_snapshot(snapshot).await, field);
        assert!(held(&cache).await.is_none());
    };
    check("tenant_id", |it| it.tenant_id = "other".into()).await;
    check("provider_id", |it| it.provider_id = "other".into()).await;
    check("jwks_json", |it| it.jwks_json.push_str(&" ".repeat(1 << 20))).await;
    check("etag", |it| it.etag = Some("\"é\"".into())).await;
    check("expires_at", |it| it.expires_at = it.persisted_at - TimeDelta::milliseconds(1)).await;
}

#[tokio::test]
async fn no_snapshot_panics() {
    use chrono::{DateTime, Utc};
    let (first, last) = (DateTime::<Utc>::MIN_UTC, DateTime::<Utc>::MAX_UTC);
    for (persisted_at, expires_at) in [(first, first), (first, last), (last, last), (last, first)] {
        let cache = cache(|it| (it.max_ttl, it.max_trust_age) = (secs(u64::MAX), Some(secs(u64::MAX))));
        let outcome =
            cache.restore_snapshot(PersistentSnapshot { persisted_at, expires_at, ..snapshot(0, 0) }).await;
        if outcome.is_ok() {
            cache.snapshot().await;
            let stored = cache.persistent_snapshot().await;
            assert!(matches!(stored, Ok(Some(_)) | Err(Error::Cache(_))), "{stored:?}");
        }
    }
}
