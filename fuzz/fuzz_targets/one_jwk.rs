//! Any text as the one key of a set, under the widest rules.
#![no_main]

use jwks_cache_core::keyset::{KeyRules, KeySet};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|jwk: &str| {
    let rules = KeyRules { min_rsa_bits: 1024, ..KeyRules::default() };
    let document = format!(r#"{{"keys":[{jwk}]}}"#);
    let Ok(set) = KeySet::inspect(document.as_bytes(), &rules) else { return };
    if serde_json::from_str::<Value>(jwk).is_ok() {
        assert_eq!(set.ledger().len(), 1);
    }
    jwks_cache_fuzz::check(&set, &rules);
});
