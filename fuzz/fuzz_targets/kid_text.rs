//! Kids as tokens bring them: any text, a line each. The first three are published, the rest are asked for.
#![no_main]

use std::sync::Arc;

use jwks_cache_core::keyset::{KeyRules, KeySet};
use jwks_cache_core::missing::MissingKids;
use jwks_cache_core::published::Denials;
use jwks_cache_core::select::{NoKey, select};
use jwks_cache_core::{Algorithm, Moment};
use libfuzzer_sys::fuzz_target;
use serde_json::json;

/// Three Ed25519 keys.
const MATERIALS: [&str; 3] = [
    "GFEYYQteoPAnuOkPGsgPQQcHrSN7w1blV9uriEJ5cYY",
    "EpYDWZkooQnV3v4SPwUNYF8L0wf93KdtLleMpQ8SF_4",
    "4E9rFZ7MeRz_OY3BjvSl78fXOAGaHkyIISO50K8dLLY",
];
/// Longer kids set a key aside.
const LONGEST: usize = 1024;

fuzz_target!(|text: &str| {
    let kids: Vec<&str> = text.split('\n').collect();
    let published = &kids[..kids.len().min(MATERIALS.len())];
    let keys: Vec<_> = published
        .iter()
        .zip(MATERIALS)
        .map(|(kid, x)| json!({ "kty": "OKP", "crv": "Ed25519", "kid": kid, "x": x }))
        .collect();
    let document = json!({ "keys": keys }).to_string();
    let Ok(set) = KeySet::judge(document.as_bytes(), &KeyRules::default()) else {
        assert!(published.iter().all(|kid| kid.len() > LONGEST), "refused: {document}");
        return;
    };
    let set = Arc::new(set);
    let debug = format!("{set:?}");
    assert!(!debug.contains(|c: char| c.is_control()), "not escaped: {debug}");

    let mut missing = MissingKids::default();
    for kid in &kids {
        let holders = published.iter().filter(|other| *other == kid).count();
        let holds = holders > 0 && kid.len() <= LONGEST;
        assert_eq!(set.holds_kid(kid), holds);
        match set.find(Some(kid), Algorithm::EdDSA) {
            Ok(key) => assert!(key.kid() == Some(kid) && holders == 1),
            Err(NoKey::UnknownKid) => assert!(!holds),
            // Different keys under one kid verify nothing.
            Err(NoKey::NoMatch | NoKey::NoKeys) => {
                assert!(holders != 1 || !holds || set.usable().count() == 0)
            }
            Err(NoKey::Ambiguous) => panic!("a kid was named: {kid:?}"),
        }
        denied_until_allowed(&set, kid);

        assert!(!missing.knows(kid, Moment::ORIGIN) || kids.iter().filter(|other| *other == kid).count() > 1);
        missing.remember(kid, Moment::ORIGIN);
        assert!(missing.knows(kid, Moment::ORIGIN));
    }
});

fn denied_until_allowed(set: &Arc<KeySet>, kid: &str) {
    let mut denials = Denials::default();
    assert!(denials.deny(kid) && !denials.deny(kid));
    denials.learn(set.keys());
    assert!(denials.denies_kid(kid) && denials.ids().eq([kid]));
    let served = set.without(|key| denials.denies(key));
    assert!(!served.holds_kid(kid));
    assert!(select(served.keys(), Some(kid), Algorithm::EdDSA).is_err());
    assert!(denials.allow(kid) && denials.is_empty());
}
