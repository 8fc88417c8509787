//! What the targets share: what holds of every key set that was judged, whatever document it came from; of
//! every text that people see; and a runtime.

pub mod issuer;

use std::collections::BTreeMap;

use jwks_cache_core::Algorithm;
use jwks_cache_core::key::{Key, KeyRef};
use jwks_cache_core::keyset::{KeyRules, KeySet, Verdict, diff};
use jwks_cache_core::select::select;
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::runtime::{Builder, Runtime};

/// Members that only private and symmetric keys have (RFC 7518 §6, RFC 9964), listed here anew: a name
/// that the library forgot must not be forgotten by its check.
const PRIVATE: &[&str] = &["d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"];

/// Checks `set`, which came from a document that was judged under `rules`.
pub fn check(set: &KeySet, rules: &KeyRules) {
    assert!(set.ledger().len() <= rules.max_keys as usize);
    assert_eq!(set.keys().len(), set.jwks().keys.len());
    the_text_is_public_and_gives_the_same_keys(set, rules);
    what_callers_get_gives_the_same_keys(set, rules);
    lookups_agree_and_keep_to_the_verdicts(set, rules);
    assert!(diff(set, set).is_empty());
    assert!(set.without(|_| true).keys().is_empty());
    // Neither panics.
    let _ = format!("{set:?} {:?}", set.ledger());
}

fn the_text_is_public_and_gives_the_same_keys(set: &KeySet, rules: &KeyRules) {
    // Raw, as a string that pairs no surrogates is JSON, and stands as it was published.
    type Members = BTreeMap<String, Box<RawValue>>;
    let document: Members = serde_json::from_str(set.text()).expect("the published text is an object");
    let entries: Vec<Members> =
        serde_json::from_str(document["keys"].get()).expect("the published text has keys only");
    for entry in entries {
        assert!(PRIVATE.iter().all(|name| !entry.contains_key(*name)), "private members: {}", set.text());
        let kty = entry.get("kty").and_then(|kty| serde_json::from_str::<Value>(kty.get()).ok());
        assert!(kty.is_none_or(|kty| kty != "oct"), "a symmetric key: {}", set.text());
    }
    let again = KeySet::inspect(set.text().as_bytes(), rules).expect("the published text is taken again");
    assert_eq!(again.text(), set.text());
    assert!(set.keys().iter().map(said_of).eq(again.keys().iter().map(said_of)), "{}", set.text());
}

fn what_callers_get_gives_the_same_keys(set: &KeySet, rules: &KeyRules) {
    let text = serde_json::to_vec(&**set.jwks()).expect("a `JwkSet` is JSON");
    let again = KeySet::inspect(&text, rules).expect("a `JwkSet` is a key set");
    let thumbprints = |set: &KeySet| set.keys().iter().map(|key| key.thumbprint()).collect::<Vec<_>>();
    assert_eq!(thumbprints(&again), thumbprints(set), "{}", String::from_utf8_lossy(&text));
}

fn lookups_agree_and_keep_to_the_verdicts(set: &KeySet, rules: &KeyRules) {
    let verdicts = set.ledger().iter().filter(|entry| matches!(entry.verdict(), Verdict::Usable)).count();
    assert_eq!(set.usable().count(), verdicts);
    for key in set.shared() {
        assert_eq!(key.is_usable(), !key.algorithms().is_empty());
        for algorithm in Algorithm::ALL {
            let may = key.algorithms().contains(algorithm);
            assert!(!may || rules.algorithms.contains(algorithm));
            match KeyRef::new(&key, algorithm) {
                Some(reference) => {
                    assert!(may);
                    assert!(
                        reference.verify(b"header.claims", &[0; 64]).is_err(),
                        "a forged signature passed"
                    );
                }
                None => assert!(!may, "usable, and cannot be parsed: {}", set.text()),
            }
            for kid in [key.kid(), None] {
                let found = set.find(kid, algorithm);
                let by_hand = select(set.keys(), kid, algorithm);
                let by_hand = by_hand.map(|at| std::ptr::from_ref(&set.keys()[at]));
                assert_eq!(found.map(|key| std::ptr::from_ref(key.key())), by_hand);
                if let Ok(found) = found {
                    assert!(
                        found.key().algorithms().contains(algorithm) && (kid.is_none() || found.kid() == kid)
                    );
                }
            }
        }
    }
}

/// Everything that decides about a key.
fn said_of(key: &Key) -> impl PartialEq + use<> {
    (
        key.thumbprint(),
        key.kid().map(str::to_owned),
        key.algorithms(),
        key.set_aside().map(|reason| reason.as_str()),
        key.issuer().map(str::to_owned),
    )
}

/// Runs what needs a runtime but no socket.
pub fn now<T>(what: impl Future<Output = T>) -> T {
    thread_local! {
        static RUNTIME: Runtime =
            Builder::new_current_thread().enable_time().build().expect("it needs nothing that could be missing");
    }
    RUNTIME.with(|runtime| runtime.block_on(what))
}

/// Checks a text that people see: nothing in it acts on a terminal or begins a line, and it is at most so long.
pub fn is_shown(text: &str, most: usize) {
    assert!(!text.contains(|c: char| c.is_control()), "not escaped: {text:?}");
    assert!(text.len() <= most, "{} bytes: {text}", text.len());
}
