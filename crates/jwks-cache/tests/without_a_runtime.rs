//! Threads outside any tokio runtime may look at keys; they can neither fetch nor spoil anything.
#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

mod stage;

use std::sync::Arc;
use std::time::Duration;

use jwks_cache::{
    Algorithm, Error, ErrorKind, IdentityProviderRegistration, KeyError, ProviderHandle, RefreshMode,
    Registry,
};
use jwks_cache_testkit::{IdentityProvider, ManualClock};
use stage::{at_once, soon};

struct Stage {
    idp: IdentityProvider,
    clock: ManualClock,
    registry: Registry,
    handle: ProviderHandle,
}

async fn stage(mode: RefreshMode) -> Stage {
    let idp =
        IdentityProvider::builder().algorithm(Algorithm::ES256).kid("k").cache_control("max-age=300").start();
    let clock = ManualClock::new();
    let registry = Registry::builder().require_https(false).clock(Arc::new(clock.clone())).build();
    let mut registration = IdentityProviderRegistration::new("acme", "main", idp.jwks_url()).unwrap();
    registration.refresh_mode = mode;
    registry.register(registration).await.unwrap();
    let handle = registry.provider("acme", "main").unwrap();
    Stage { idp, clock, registry, handle }
}

/// Runs `act` where there is no runtime.
fn outside<R: Send>(act: impl FnOnce() -> R + Send) -> R {
    std::thread::scope(|scope| scope.spawn(act).join().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_read_without_a_runtime_takes_nothing_from_the_timer() {
    let stage = stage(RefreshMode::Always).await;
    stage.handle.key(Some("k"), Algorithm::ES256).await.unwrap();
    stage.clock.advance(Duration::from_secs(290));
    // Due now, and a thread sees it at least as soon as the timer.
    let used = outside(|| stage.handle.with_key(Some("k"), Algorithm::ES256, |_| ()).is_ok());
    assert!(used);
    outside(|| stage.handle.report_bad_signature());
    soon(stage.idp.origin().wait_for_hits("/jwks.json", 2)).await; // the timer's
}

#[tokio::test]
async fn without_a_runtime_a_cold_lookup_says_so_and_panics_nothing() {
    let stage = stage(RefreshMode::OnDemand).await;
    let gate = stage.idp.origin().hold("/jwks.json");
    let (registry, handle) = (&stage.registry, &stage.handle);
    let refused = |error: Error| assert_eq!(error.kind(), ErrorKind::KeysUnavailable, "{error}");
    outside(|| refused(at_once(registry.resolve("acme", "main", None)).unwrap_err()));
    outside(|| refused(at_once(registry.refresh("acme", "main")).unwrap_err()));
    outside(|| refused(at_once(registry.refresh("acme", "main")).unwrap_err()));
    outside(|| {
        let cold = handle.with_key(None, Algorithm::ES256, |_| ());
        assert!(matches!(cold, Err(Error::Key(KeyError::NotCached))));
    });
    // Nor while a flight of somebody with a runtime is in the air.
    let flying = tokio::spawn({
        let registry = registry.clone();
        async move { registry.resolve("acme", "main", None).await }
    });
    stage.idp.origin().wait_for_hits("/jwks.json", 1).await;
    outside(|| refused(at_once(registry.resolve("acme", "main", None)).unwrap_err()));
    gate.release();
    flying.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_handle_of_an_unregistered_provider_says_so() {
    let stage = stage(RefreshMode::OnDemand).await;
    stage.handle.key(Some("k"), Algorithm::ES256).await.unwrap();
    stage.registry.unregister("acme", "main").await.unwrap();
    let error = stage.handle.with_key(Some("k"), Algorithm::ES256, |_| ()).unwrap_err();
    assert!(matches!(error, Error::NotRegistered { .. }), "{error}");
}

#[tokio::test]
async fn a_registry_whose_list_is_blank_allows_no_host() {
    for blank in ["", "  ", "."] {
        let registry = Registry::builder().add_allowed_domain(blank).build();
        let registration =
            IdentityProviderRegistration::new("acme", "main", "https://id.example.com/").unwrap();
        assert!(matches!(registry.register(registration).await, Err(Error::Security(_))), "{blank:?}");
    }
}
