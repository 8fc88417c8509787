//! The key set as it is handed on to others: the published text, what retires, what is denied, and for how long.
#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

mod stage;

use std::sync::Arc;

use jwks_cache::{Algorithm, Error, Registry, ServedKeys};
use jwks_cache_testkit::{MemoryStore, Reply};

use stage::served::{JWKS, Stage, jwk};
use stage::{PROVIDER, TENANT, secs, soon};

async fn served(registry: &Registry) -> ServedKeys {
    soon(registry.served(TENANT, PROVIDER, None)).await.unwrap()
}

/// A key as nobody would print it.
fn odd(kid: &str) -> String {
    jwk(kid).to_string().replacen('{', "{ \"x5c\" : 7 ,\"made-up\":[1 , 2],", 1)
}

/// Publishes these texts as keys for 600 s, fetches them, and gives the document.
async fn publish(stage: &Stage, keys: &[&str]) -> String {
    let text = format!("{{ \"keys\": [{}] }}", keys.join(","));
    stage.origin.set(JWKS, Reply::json(&text).header("Cache-Control", "max-age=600"));
    stage.refresh().await.unwrap();
    text
}

#[tokio::test]
async fn it_is_the_published_text_with_what_retires_and_without_what_is_denied() {
    let stage = Stage::new();
    let mut registration = stage.registration();
    registration.removal_grace = secs(100);
    stage.register(registration).await;
    let (old, new) = (odd("old"), odd("new"));
    let text = publish(&stage, &[&old, &new]).await;
    assert_eq!(**served(&stage.registry).await.text(), text);
    let (one, two) = (served(&stage.registry).await, served(&stage.registry).await);
    assert!(Arc::ptr_eq(one.text(), two.text()));

    publish(&stage, &[&new]).await;
    assert_eq!(**served(&stage.registry).await.text(), format!("{{ \"keys\": [{new},{old}] }}"));
    let keys = served(&stage.registry).await;
    assert_eq!((keys.fresh_for(), keys.stale_for()), (secs(100), secs(0)), "then it is another document");
    assert_eq!(*served(&stage.registry).await.only("old"), format!("{{\"keys\":[{old}]}}"));

    stage.registry.deny_key(TENANT, PROVIDER, "new").await.unwrap();
    assert_eq!(**served(&stage.registry).await.text(), format!("{{ \"keys\": [{old}] }}"));
    assert_eq!(served(&stage.registry).await.pem("new"), None);
    stage.registry.allow_key(TENANT, PROVIDER, "new").await.unwrap();
    stage.clock.advance(secs(100));
    assert_eq!(
        **served(&stage.registry).await.text(),
        format!("{{ \"keys\": [{new}] }}"),
        "its grace is over"
    );
    assert_eq!(served(&stage.registry).await.fresh_for(), secs(500));
}

#[tokio::test]
async fn its_times_are_what_is_left() {
    let stage = Stage::new();
    let mut registration = stage.registration();
    registration.stale_while_error = secs(200);
    stage.register(registration).await;
    publish(&stage, &[&odd("a")]).await;
    stage.origin.set(JWKS, Reply::status(500));
    for (after, fresh, stale) in [(0, 600, 200), (599, 1, 200), (1, 0, 200), (150, 0, 50), (49, 0, 1)] {
        stage.clock.advance(secs(after));
        let keys = served(&stage.registry).await;
        assert_eq!((keys.fresh_for(), keys.stale_for()), (secs(fresh), secs(stale)), "after {after} more");
    }
    stage.clock.advance(secs(1));
    assert!(soon(stage.registry.served(TENANT, PROVIDER, None)).await.is_err());
    let backoff = stage.registry.provider(TENANT, PROVIDER).unwrap().backoff();
    assert!(backoff > secs(0) && backoff <= secs(3600), "{backoff:?}");
}

#[tokio::test]
async fn it_is_the_same_after_a_restart_retiring_keys_too() {
    let store = MemoryStore::new();
    let first = Stage::with(|builder| builder.with_store(Arc::new(store.clone())));
    let mut registration = first.registration();
    registration.removal_grace = secs(100);
    first.register(registration.clone()).await;
    publish(&first, &[&odd("old"), &odd("new")]).await;
    publish(&first, &[&odd("newer")]).await;
    first.registry.deny_key(TENANT, PROVIDER, "new").await.unwrap();
    let before = served(&first.registry).await.text().clone();
    assert!(before.contains("\"old\"") && !before.contains("\"new\""), "{before}");
    first.registry.shutdown().await;

    first.origin.set(JWKS, Reply::status(500));
    let builder = Registry::builder().require_https(false).clock(Arc::new(first.clock.clone()));
    let second = builder.with_store(Arc::new(store)).build();
    second.register(registration).await.unwrap();
    assert_eq!(**served(&second).await.text(), *before);
}

#[tokio::test]
async fn an_unknown_kid_is_looked_for_and_a_denied_one_is_not() {
    let stage = Stage::new();
    stage.register(stage.registration()).await;
    publish(&stage, &[&odd("a")]).await;
    let hits = stage.origin.hits(JWKS);
    let (a, b) = (odd("a"), odd("b"));
    stage.origin.set(JWKS, Reply::json(format!("{{\"keys\":[{a},{b}]}}")));
    let keys = soon(stage.registry.served(TENANT, PROVIDER, Some("b"))).await.unwrap();
    assert_eq!(*keys.only("b"), format!("{{\"keys\":[{b}]}}"));
    assert_eq!(stage.origin.hits(JWKS), hits + 1);
    assert_eq!(keys.algorithms(), [Algorithm::ES256]);
    stage.registry.deny_key(TENANT, PROVIDER, "b").await.unwrap();
    stage.clock.advance(secs(120));
    let keys = soon(stage.registry.served(TENANT, PROVIDER, Some("b"))).await.unwrap();
    assert_eq!(&*keys.only("b"), "{\"keys\":[]}");
    assert_eq!(stage.origin.hits(JWKS), hits + 1);
}

#[tokio::test]
async fn who_was_removed_is_remembered_until_it_comes_back() {
    let stage = Stage::new();
    stage.register(stage.registration()).await;
    let removed = |provider: &str| stage.registry.was_removed(TENANT, provider);
    assert!(!removed(PROVIDER) && !removed("other"));
    assert!(stage.registry.unregister(TENANT, PROVIDER).await.unwrap());
    assert!(removed(PROVIDER) && !removed("other"));
    let gone = soon(stage.registry.served(TENANT, PROVIDER, None)).await;
    assert!(matches!(gone, Err(Error::NotRegistered { .. })));
    stage.register(stage.registration()).await;
    assert!(!removed(PROVIDER));
    stage.registry.unregister(TENANT, PROVIDER).await.unwrap();
    for n in 0..1_023 {
        let mut other = stage.registration();
        other.provider_id = format!("p{n}");
        stage.register(other).await;
        stage.registry.unregister(TENANT, &format!("p{n}")).await.unwrap();
    }
    assert!(removed(PROVIDER) && removed("p0"));
    let mut other = stage.registration();
    other.provider_id = "last".to_owned();
    stage.register(other).await;
    stage.registry.unregister(TENANT, "last").await.unwrap();
    assert!(!removed(PROVIDER) && removed("p0") && removed("last"));
}
