//! The library against real identity providers: what it asks of them, and what it makes of their answers.
//!
//! Where a test reads exact times, the cache's clock stands still while a provider answers.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::sync::Arc;
use std::time::Duration;

use jwks_cache::{
    Algorithm, Clock, Error, ErrorKind, IdentityProviderRegistration, KeyError, ProviderStatus, RefreshMode,
    Registry, Subscription, What,
};
use jwks_cache_acceptance::{Counts, NodePart};
use jwks_cache_testkit::{ManualClock, split};

const TENANT: &str = "acme";
const PROVIDER: &str = "main";

/// The lifetime of a response that states none.
const DEFAULT_TTL: Duration = Duration::from_secs(300);
/// How long expired keys are served during an outage.
const STALE: Duration = Duration::from_secs(60);
/// Two requested refreshes are at least this far apart.
const BETWEEN_REFRESHES: Duration = Duration::from_secs(1);

#[tokio::test]
async fn every_algorithm_of_oidc_provider_verifies_and_nothing_else_does() {
    every_algorithm_verifies_and_nothing_else_does("oidc-provider").await;
}

#[tokio::test]
async fn every_algorithm_of_mock_server_verifies_and_nothing_else_does() {
    every_algorithm_verifies_and_nothing_else_does("mock-server").await;
}

async fn every_algorithm_verifies_and_nothing_else_does(name: &str) {
    let part = NodePart::start(name).await;
    let cache = Cache::of(&part).await;
    for alg in part.algorithms().await {
        let token = part.token(&alg).await;
        let algorithm: Algorithm = alg.parse().unwrap();
        assert_eq!(cache.verify(&token).await, Ok(()), "{alg}");
        for wrong in Algorithm::ALL.into_iter().filter(|wrong| *wrong != algorithm) {
            let refused = cache.verify_as(&token, wrong).await;
            assert_eq!(refused, Err(Refused::Key(KeyError::NoMatch)), "{alg} as {wrong}");
        }
        for tampered in tampered(&token) {
            let refused = cache.verify_as(&tampered, algorithm).await;
            assert_eq!(refused, Err(Refused::Signature), "{alg}: {tampered}");
        }
    }
    assert_eq!(part.counts().await, Counts { requests: 1, full: 1, not_modified: 0 });
}

/// `token` with another character in the middle of its claims, and in the middle of its signature.
fn tampered(token: &str) -> [String; 2] {
    let (header, rest) = token.split_once('.').unwrap();
    let (claims, signature) = rest.split_once('.').unwrap();
    let changed = |part: &str| {
        let (before, after) = part.split_at(part.len() / 2);
        format!("{before}{}{}", if after.starts_with('A') { 'B' } else { 'A' }, &after[1..])
    };
    [format!("{header}.{}.{signature}", changed(claims)), format!("{header}.{claims}.{}", changed(signature))]
}

#[tokio::test]
async fn fifty_cold_callers_cost_one_request() {
    let part = NodePart::start("oidc-provider").await;
    let cache = Cache::of(&part).await;
    let token = Arc::new(part.token("ES256").await);
    let callers: Vec<_> = (0..50)
        .map(|_| {
            let (cache, token) = (cache.clone(), token.clone());
            tokio::spawn(async move { cache.verify(&token).await })
        })
        .collect();
    for caller in callers {
        assert_eq!(caller.await.unwrap(), Ok(()));
    }
    assert_eq!(part.counts().await.requests, 1);
}

#[tokio::test]
async fn without_cache_headers_keys_are_fresh_for_the_default_lifetime() {
    let part = NodePart::start("oidc-provider").await;
    let clock = ManualClock::new();
    let cache = Cache::by(&clock, &part).await;
    cache.verify(&part.token("ES256").await).await.unwrap();
    cache.expires_after(&clock, DEFAULT_TTL).await;
}

#[tokio::test]
async fn a_live_rotation_costs_one_request_and_old_tokens_verify_until_their_grace_ends() {
    let part = NodePart::start("oidc-provider").await;
    let clock = ManualClock::new();
    for alg in part.algorithms().await {
        // One cache an algorithm: unknown kids have one budget a provider.
        let cache = Cache::by(&clock, &part).await;
        let old = part.token(&alg).await;
        assert_eq!(cache.verify(&old).await, Ok(()), "{alg}");

        let old_kid = kid(&old);
        let new_kid = part.rotate(&alg).await;
        let new = part.token(&alg).await;
        assert_eq!(kid(&new), new_kid, "{alg}");
        let before = part.counts().await.requests;
        assert_eq!(cache.verify(&new).await, Ok(()), "{alg}");
        assert_eq!(part.counts().await.requests, before + 1, "{alg}");
        assert_eq!(cache.verify(&old).await, Ok(()), "{alg}: still published");
        assert_eq!(cache.key_state(&old_kid).await, "usable", "{alg}");

        assert_eq!(part.retire(&alg).await, std::slice::from_ref(&old_kid), "{alg}");
        clock.advance(BETWEEN_REFRESHES);
        cache.refresh().await.unwrap();
        assert_eq!(cache.key_state(&old_kid).await, "retiring", "{alg}");
        assert_eq!(cache.verify(&old).await, Ok(()), "{alg}: in its grace");
        assert_eq!(part.counts().await.requests, before + 2, "{alg}");

        // The same source again, without grace: the old key goes at once, and the new one stays.
        let mut registration = registration(&part);
        registration.removal_grace = Duration::ZERO;
        cache.registry.register(registration).await.unwrap();
        assert_eq!(cache.verify(&old).await, Err(Refused::Key(KeyError::UnknownKid)), "{alg}");
        assert_eq!(cache.verify(&new).await, Ok(()), "{alg}");
    }
}

#[tokio::test]
async fn a_refresh_asks_for_what_changed_and_a_304_renews_the_lifetime() {
    let part = NodePart::start("mock-server").await;
    let clock = ManualClock::new();
    let cache = Cache::by(&clock, &part).await;
    let mut events = cache.registry.subscribe();
    cache.refresh().await.unwrap();
    assert_eq!(set_changed(&mut events).await, (part.algorithms().await.len(), 0));
    cache.expires_after(&clock, DEFAULT_TTL).await;

    clock.advance(DEFAULT_TTL / 2);
    cache.refresh().await.unwrap();
    assert_eq!(part.counts().await, Counts { requests: 2, full: 1, not_modified: 1 });
    cache.expires_after(&clock, DEFAULT_TTL).await;
    assert_eq!(cache.status().await.last_refresh, Some(clock.wall()));

    let added = part.rotate("ES256").await;
    clock.advance(BETWEEN_REFRESHES);
    cache.refresh().await.unwrap();
    assert_eq!(part.counts().await, Counts { requests: 3, full: 2, not_modified: 1 });
    // The next event: the 304 was none.
    assert_eq!(set_changed(&mut events).await, (1, 0));
    let token = part.token("ES256").await;
    assert_eq!((kid(&token), cache.verify(&token).await), (added, Ok(())));
}

/// How many keys were added and removed by the change that the next event must tell.
async fn set_changed(events: &mut Subscription) -> (usize, usize) {
    match events.next().await.unwrap().what {
        What::SetChanged { diff } if diff.changed.is_empty() => (diff.added.len(), diff.removed.len()),
        other => panic!("not a change of set: {other:?}"),
    }
}

#[tokio::test]
async fn held_keys_outlive_a_crash_until_the_stale_window_ends_and_a_restart_recovers() {
    let mut part = NodePart::start("oidc-provider").await;
    let clock = ManualClock::new();
    let cache = Cache::by(&clock, &part).await;
    let mut events = cache.registry.subscribe();
    let old = part.token("ES256").await;
    assert_eq!(cache.verify(&old).await, Ok(()));

    part.kill().await;
    clock.advance(BETWEEN_REFRESHES);
    let error = cache.refresh().await.unwrap_err();
    names_connect(&error, &part);
    assert_eq!((error.provider(), error.attempt()), (Some((TENANT, PROVIDER)), Some(3)));
    assert_eq!(cache.verify(&old).await, Ok(()), "fresh");
    assert_eq!(cache.status().await.stale_serve_ratio, 0.0);

    clock.advance(DEFAULT_TTL);
    assert_eq!(cache.verify(&old).await, Ok(()), "stale");
    assert!(cache.status().await.stale_serve_ratio > 0.0);
    until(&mut events, |what| matches!(what, What::ServingStale)).await;

    part.restart().await;
    clock.advance(BETWEEN_REFRESHES);
    cache.refresh().await.unwrap();
    // The restarted part has none of its old keys; they end with their grace.
    until(&mut events, |what| matches!(what, What::SuspiciousChange { .. })).await;
    until(&mut events, |what| matches!(what, What::Recovered)).await;
    let new = part.token("ES256").await;
    assert_eq!((cache.verify(&new).await, cache.verify(&old).await), (Ok(()), Ok(())));
    assert_eq!(cache.status().await.error_count, 0);

    part.kill().await;
    clock.advance(DEFAULT_TTL + STALE);
    let error = cache.registry.resolve(TENANT, PROVIDER, None).await.unwrap_err();
    names_connect(&error, &part);
    assert_eq!(error.kind(), ErrorKind::KeysUnavailable);
}

#[tokio::test]
async fn a_restart_between_two_refreshes_goes_unnoticed() {
    let mut part = NodePart::start("mock-server").await;
    let clock = ManualClock::new();
    let cache = Cache::by(&clock, &part).await;
    cache.refresh().await.unwrap();

    // The connection that the first refresh left open is dead when the next one wants it.
    part.kill().await;
    part.restart().await;
    clock.advance(BETWEEN_REFRESHES);
    cache.refresh().await.unwrap();
    assert_eq!(part.counts().await, Counts { requests: 1, full: 1, not_modified: 0 });
    assert_eq!(cache.status().await.last_error, None);
    assert_eq!(cache.verify(&part.token("EdDSA").await).await, Ok(()));
}

fn names_connect(error: &Error, part: &NodePart) {
    let Error::Fetch(exchange) = error else { panic!("{error:?}") };
    assert_eq!(exchange.reason(), "connect");
    let text = error.to_string();
    assert!(text.contains("connect") && text.contains(&part.jwks_url()), "{text}");
}

/// Waits for an event; earlier ones do not matter.
async fn until(events: &mut Subscription, wanted: impl Fn(&What) -> bool) {
    while !wanted(&events.next().await.unwrap().what) {}
}

/// A registration for which only the test starts flights.
fn registration(part: &NodePart) -> IdentityProviderRegistration {
    let mut registration = IdentityProviderRegistration::new(TENANT, PROVIDER, part.jwks_url()).unwrap();
    registration.refresh_mode = RefreshMode::OnDemand;
    registration
}

fn kid(token: &str) -> String {
    split(token).unwrap().0["kid"].as_str().unwrap().to_owned()
}

/// Why a token was not verified.
#[derive(Debug, PartialEq, Eq)]
enum Refused {
    Key(KeyError),
    Signature,
}

/// A registry with one provider.
#[derive(Clone)]
struct Cache {
    registry: Registry,
}

impl Cache {
    async fn of(part: &NodePart) -> Self {
        Self::with(Registry::builder().require_https(false).build(), part).await
    }

    /// One whose policy time is `clock`'s.
    async fn by(clock: &ManualClock, part: &NodePart) -> Self {
        Self::with(Registry::builder().require_https(false).clock(Arc::new(clock.clone())).build(), part)
            .await
    }

    async fn with(registry: Registry, part: &NodePart) -> Self {
        registry.register(registration(part)).await.unwrap();
        Self { registry }
    }

    /// Verifies a token with the algorithm that its header names.
    async fn verify(&self, token: &str) -> Result<(), Refused> {
        let (header, ..) = split(token).unwrap();
        self.verify_as(token, header["alg"].as_str().unwrap().parse().unwrap()).await
    }

    async fn verify_as(&self, token: &str, algorithm: Algorithm) -> Result<(), Refused> {
        let (header, input, signature) = split(token).unwrap();
        match self.registry.key(TENANT, PROVIDER, header["kid"].as_str(), algorithm).await {
            Ok(key) => key.verify(input.as_bytes(), &signature).map_err(|_| Refused::Signature),
            Err(Error::Key(why)) => Err(Refused::Key(why)),
            Err(other) => panic!("{other}"),
        }
    }

    async fn refresh(&self) -> jwks_cache::Result<()> {
        self.registry.refresh_and_wait(TENANT, PROVIDER).await
    }

    async fn status(&self) -> ProviderStatus {
        self.registry.provider_status(TENANT, PROVIDER).await.unwrap()
    }

    async fn key_state(&self, kid: &str) -> String {
        let keys = self.status().await.keys;
        let found = keys.iter().find(|key| key.kid.as_deref() == Some(kid));
        found.unwrap_or_else(|| panic!("{kid} is not in {keys:?}")).state.clone()
    }

    async fn expires_after(&self, clock: &ManualClock, lifetime: Duration) {
        assert_eq!(self.status().await.expires_at, Some(clock.wall() + lifetime));
    }
}
