//! Kids as tokens bring them: any text, a line each. The first three are published, the rest are asked for.
//! The parts are asked first, then a registry of which they are parts.
#![no_main]

use std::sync::Arc;

use http::{HeaderMap, StatusCode};
use jwks_cache::{
    Clock as _, Error, Fetch, FetchRequest, Fetched, Fetching, IdentityProviderRegistration, KeyError,
    Registry, SystemClock, Timing, What,
};
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
/// What people see of a kid is cut.
const SHORT: usize = 2_048;
/// An event has published kids whole; escaped, a byte is at most so many.
const ESCAPED: usize = 6;

fuzz_target!(|text: &str| {
    let kids: Vec<&str> = text.split('\n').collect();
    let published = &kids[..kids.len().min(MATERIALS.len())];
    let keys: Vec<_> = published
        .iter()
        .zip(MATERIALS)
        .map(|(kid, x)| json!({ "kty": "OKP", "crv": "Ed25519", "kid": kid, "x": x }))
        .collect();
    let document = json!({ "keys": keys }).to_string();
    jwks_cache_fuzz::now(in_a_registry(document.clone(), &kids));
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

/// A provider that answers nothing else.
#[derive(Debug)]
struct Canned(String);

impl Fetch for Canned {
    fn fetch<'a>(&'a self, _: &'a FetchRequest) -> Fetching<'a> {
        Box::pin(async {
            let (now, wall) = (SystemClock.now(), SystemClock.wall());
            let timing = Timing { requested_at: now, received_at: now, received_wall: wall };
            let (status, body) = (StatusCode::OK, self.0.clone().into_bytes());
            Ok(Fetched { status, headers: HeaderMap::new(), body, timing, requests: 1 })
        })
    }
}

async fn in_a_registry(document: String, kids: &[&str]) {
    let registry = Registry::builder().fetcher(Arc::new(Canned(document))).build();
    let mut events = registry.subscribe();
    let registration = IdentityProviderRegistration::new("acme", "main", "https://id.example.com/jwks.json")
        .expect("it is legal");
    registry.register(registration).await.expect("it is sound");
    for kid in kids.iter().take(8) {
        let held = asked(&registry, kid).await;
        assert!(registry.deny_key("acme", "main", kid).await.expect("it is registered"));
        let denied = asked(&registry, kid).await;
        assert!(!matches!(denied, Ok(()) | Err(KeyError::UnknownKid)), "{kid:?} is denied: {denied:?}");
        let status = registry.provider_status("acme", "main").await.expect("it is registered");
        status
            .keys
            .iter()
            .for_each(|key| key.kid.iter().for_each(|kid| jwks_cache_fuzz::is_shown(kid, SHORT)));
        status
            .denied
            .iter()
            .chain(&status.last_error)
            .for_each(|text| jwks_cache_fuzz::is_shown(text, SHORT));
        assert!(registry.allow_key("acme", "main", kid).await.expect("it is registered"));
        assert_eq!(asked(&registry, kid).await, held);
    }
    while let Some(event) = events.try_next() {
        match event.what {
            // What the operator gave, as given.
            What::KeyDenied { id } | What::KeyAllowed { id } => assert!(kids.contains(&&*id)),
            other => {
                jwks_cache_fuzz::is_shown(&format!("{other:?}"), SHORT + MATERIALS.len() * ESCAPED * LONGEST)
            }
        }
    }
}

/// What a kid stands for, by both questions.
async fn asked(registry: &Registry, kid: &str) -> Result<(), KeyError> {
    match registry.resolve("acme", "main", Some(kid)).await {
        Ok(_) => {}
        Err(error) => jwks_cache_fuzz::is_shown(&format!("{error} {error:?}"), SHORT),
    }
    match registry.key("acme", "main", Some(kid), Algorithm::EdDSA).await {
        Ok(_) => Ok(()),
        Err(error) => {
            jwks_cache_fuzz::is_shown(&format!("{error} {error:?}"), SHORT);
            match error {
                Error::Key(why) => Err(why),
                // The document was refused.
                _ => Err(KeyError::NoKeys),
            }
        }
    }
}
