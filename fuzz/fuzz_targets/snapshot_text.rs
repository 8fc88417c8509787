//! Any text as a stored snapshot: read, validated, and restored at whatever time it is. Nothing is fetched.
#![no_main]

use chrono::{DateTime, TimeDelta, Utc};
use jwks_cache::{CacheManager, CacheState, IdentityProviderRegistration, PersistentSnapshot};
use jwks_cache_core::freshness::StoredHeaders;
use jwks_cache_core::keyset::{KeyRules, KeySet};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &[u8]| {
    let Ok(snapshot) = serde_json::from_slice::<PersistentSnapshot>(text) else { return };
    let again = serde_json::to_vec(&snapshot).expect("a snapshot is JSON");
    assert_eq!(
        serde_json::from_slice::<PersistentSnapshot>(&again).expect("what was written is read"),
        snapshot
    );

    let registration = IdentityProviderRegistration::new("acme", "main", "https://id.example.com/jwks.json")
        .expect("it is legal");
    if snapshot.validate(&registration).is_ok() {
        assert!((&*snapshot.tenant_id, &*snapshot.provider_id) == ("acme", "main"));
        assert!(snapshot.jwks_json.len() as u64 <= registration.max_response_bytes);
        assert!(snapshot.etag.as_deref().is_none_or(str::is_ascii));
        assert!(snapshot.persisted_at <= snapshot.expires_at);
        let rules = KeyRules::default();
        if let Ok(set) = KeySet::judge(snapshot.jwks_json.as_bytes(), &rules) {
            jwks_cache_fuzz::check(&set, &rules);
        }
    }
    jwks_cache_fuzz::now(restore(registration, snapshot));
});

/// As it is, and moved to this time: what a text says of the year 2026 is too old for the cache's own clock.
async fn restore(registration: IdentityProviderRegistration, snapshot: PersistentSnapshot) {
    let lasts = snapshot.expires_at.signed_duration_since(snapshot.persisted_at);
    // The text decides how old it is, too: mostly not too old.
    let seconds = snapshot.persisted_at.timestamp();
    let age = TimeDelta::seconds(if seconds % 2 == 0 { seconds % 4_000 } else { seconds % 200_000 });
    let now = Utc::now();
    let persisted_at = now.checked_sub_signed(age).unwrap_or(now);
    let expires_at = persisted_at.checked_add_signed(lasts).unwrap_or(DateTime::<Utc>::MAX_UTC);
    let moved = PersistentSnapshot { persisted_at, expires_at, ..snapshot.clone() };
    for snapshot in [snapshot, moved] {
        let cache = CacheManager::new(registration.clone()).expect("it is legal");
        if cache.restore_snapshot(snapshot.clone()).await.is_err() {
            assert!(matches!(cache.snapshot().await.state, CacheState::Empty), "refused, and held");
            continue;
        }
        snapshot.validate(&registration).expect("what is restored is valid");
        let held = cache.snapshot().await;
        let CacheState::Ready(payload) = &held.state else { panic!("restored, and not held: {held:?}") };
        assert_eq!(payload.last_refresh_at, snapshot.persisted_at);
        let room = TimeDelta::seconds(61);
        assert!(snapshot.persisted_at <= Utc::now() + room, "from the future");
        // A second for the clocks that were read one after another.
        let until = held.to_datetime(payload.expires_at).expect("within the calendar");
        let told = snapshot.expires_at.checked_add_signed(room).unwrap_or(DateTime::<Utc>::MAX_UTC);
        assert!(until <= told, "fresh until {until}, not {}", snapshot.expires_at);
        let longest = TimeDelta::from_std(registration.max_ttl).expect("a day");
        assert!(until <= snapshot.persisted_at + longest + room, "fresh until {until}");
        let again = cache.persistent_snapshot().await.expect("it is within the calendar");
        let again = again.expect("what is held can be stored");
        again.validate(&registration).expect("what is stored is valid");
        // One that no request would carry is not kept.
        let fits = |tag: &&str| !tag.is_empty() && tag.len() <= StoredHeaders::MAX_ETAG_BYTES;
        let etag = snapshot.etag.as_deref().filter(fits);
        assert_eq!((again.persisted_at, again.etag.as_deref()), (snapshot.persisted_at, etag));
        // The same again is no newer, and changes nothing.
        cache.restore_snapshot(snapshot).await.expect("it was taken before");
    }
}
