//! Any document as a key set.
#![no_main]

use jwks_cache_core::keyset::{KeyRules, KeySet};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|document: &[u8]| {
    let rules = KeyRules { max_keys: 8, ..KeyRules::default() };
    if let Ok(set) = KeySet::inspect(document, &rules) {
        let refused = KeySet::judge(document, &rules).is_err();
        assert_eq!(refused, set.keys().is_empty() && !set.is_empty());
        jwks_cache_fuzz::check(&set, &rules);
    }
});
