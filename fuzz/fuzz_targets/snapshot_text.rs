//! Any text as a stored snapshot.
#![no_main]

use jwks_cache::{IdentityProviderRegistration, PersistentSnapshot};
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
});
