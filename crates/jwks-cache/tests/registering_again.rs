//! Registering a provider again, elsewhere or not at all any more: what stays, what goes, who is told.
#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

mod stage;

use jwks_cache::{
    Algorithm, Error, IdentityProviderRegistration, KeyError, Material, PinMode, ProviderState, RefreshMode,
    Registry, SpkiFingerprint, TlsVersion,
};
use jwks_cache_testkit::tls::Authority;
use jwks_cache_testkit::{BlackHole, IdentityProvider, Origin, Reply};
use stage::secured;
use stage::socket::*;
use stage::{PROVIDER, TENANT, kids, millis, secs, soon};

type Change = fn(&mut IdentityProviderRegistration);

fn pin(byte: char) -> SpkiFingerprint {
    SpkiFingerprint::from_b64(&format!("{}=", byte.to_string().repeat(43))).unwrap()
}

/// A stage whose provider was fetched once under `change`.
async fn warm(change: Change) -> Stage {
    let stage = Stage::new();
    stage.register(change).await;
    stage.resolve().await.unwrap();
    stage
}

/// How `k1` stands, without the provider's help.
async fn stands(stage: &Stage) -> Result<(), Option<KeyError>> {
    stage.idp.go_down();
    match stage.key("k1").await {
        Ok(_) => Ok(()),
        Err(Error::Key(error)) => Err(Some(error)),
        Err(_) => Err(None),
    }
}

#[tokio::test]
async fn a_registration_is_checked_as_registering_does_and_nothing_changes() {
    let registry = Registry::builder().add_allowed_domain("example.com").build();
    let of = |provider: &str, url: &str| IdentityProviderRegistration::new(TENANT, provider, url).unwrap();
    assert!(registry.check(&of("a", "https://id.example.com/")).is_ok());
    for (provider, url) in
        [("a", "http://id.example.com/"), ("a", "https://other.example/"), ("a/b", "https://example.com/")]
    {
        let (checked, registered) =
            (registry.check(&of(provider, url)), registry.register(of(provider, url)).await);
        assert_eq!(checked.unwrap_err().to_string(), registered.unwrap_err().to_string());
    }
    assert!(registry.names().is_empty());
    for provider in ["b", "a"] {
        registry.register(of(provider, "https://id.example.com/")).await.unwrap();
    }
    assert_eq!(registry.names(), ["a", "b"].map(|provider| (TENANT.to_owned(), provider.to_owned())));
}

#[tokio::test]
async fn the_same_source_keeps_its_keys_and_fetches_nothing() {
    let stage = warm(|_| ()).await;
    let before = stage.status().await;
    stage.register(|it| it.stale_wait = secs(1)).await;
    let after = stage.status().await;
    assert_eq!((before.last_refresh, before.expires_at), (after.last_refresh, after.expires_at));
    assert_eq!(stands(&stage).await, Ok(()));
    assert_eq!(stage.idp.jwks_hits(), 1);
}

#[tokio::test]
async fn held_keys_are_judged_anew_at_once() {
    let check = async |change: Change, want: Result<(), Option<KeyError>>| {
        let stage = warm(|_| ()).await;
        stage.pass(secs(100));
        stage.register(change).await;
        assert_eq!(stands(&stage).await, want);
    };
    check(|it| it.algorithms = vec![Algorithm::ES256], Ok(())).await;
    check(|it| it.algorithms = vec![Algorithm::RS256], Err(Some(KeyError::NoKeys))).await;
    check(|it| it.max_keys = 1, Ok(())).await;
    check(|it| it.max_trust_age = Some(secs(101)), Ok(())).await;
    // Too old to be trusted, as if there had never been any.
    check(|it| it.max_trust_age = Some(secs(100)), Err(None)).await;

    // What had been set aside comes back as well.
    let stage = warm(|it| it.algorithms = vec![Algorithm::RS256]).await;
    stage.register(|_| ()).await;
    assert_eq!(stands(&stage).await, Ok(()));
}

#[tokio::test]
async fn a_set_beyond_the_new_bound_is_served_no_more() {
    let stage = warm(|_| ()).await;
    stage.idp.rotate();
    stage.refresh().await.unwrap();
    stage.register(|it| it.max_keys = 1).await;
    assert_eq!(stands(&stage).await, Err(None));
}

#[tokio::test]
async fn rsa_keys_are_measured_anew_at_once() {
    let stage = Stage::with("max-age=300", Algorithm::RS256);
    stage.register(|_| ()).await;
    stage.key_for("k1", Algorithm::RS256).await.unwrap();
    stage.register(|it| it.min_rsa_bits = 3072).await;
    stage.idp.go_down();
    is_key_error(stage.key_for("k1", Algorithm::RS256).await, KeyError::NoKeys);
    assert_eq!(stage.resolve().await.unwrap(), ["k1"]);
    stage.register(|it| it.min_rsa_bits = 2048).await;
    stage.key_for("k1", Algorithm::RS256).await.unwrap();
}

#[tokio::test]
async fn retiring_keys_are_judged_anew_at_once() {
    let check = async |algorithm: Algorithm, change: Change, honoured: bool| {
        let stage = Stage::with("max-age=300", algorithm);
        stage.register(|_| ()).await;
        stage.resolve().await.unwrap();
        stage.idp.rotate_to("k2", Algorithm::EdDSA);
        stage.idp.retire("k1");
        stage.refresh().await.unwrap();
        stage.pass(secs(100));
        stage.key_for("k1", algorithm).await.unwrap();
        stage.register(change).await;
        stage.idp.go_down();
        assert_eq!(stage.key_for("k1", algorithm).await.is_ok(), honoured);
        stage.key_for("k2", Algorithm::EdDSA).await.unwrap();
    };
    check(Algorithm::ES256, |_| (), true).await;
    check(Algorithm::ES256, |it| it.removal_grace = secs(101), true).await;
    check(Algorithm::ES256, |it| it.removal_grace = secs(100), false).await;
    check(Algorithm::ES256, |it| it.removal_grace = secs(0), false).await;
    // The last document that held it was a second older.
    check(Algorithm::ES256, |it| it.max_trust_age = Some(secs(102)), true).await;
    check(Algorithm::ES256, |it| it.max_trust_age = Some(secs(101)), false).await;
    check(Algorithm::ES256, |it| it.algorithms = vec![Algorithm::EdDSA], false).await;
    check(Algorithm::RS256, |it| it.min_rsa_bits = 2049, false).await;
}

#[tokio::test]
async fn tightened_trust_serves_nothing_and_the_next_flight_is_unconditional() {
    let check = async |before: Change, after: Change, kept: bool| {
        let stage = warm(before).await;
        stage.register(after).await;
        let expected = if kept { ProviderState::Ready } else { ProviderState::Empty };
        assert_eq!(stage.state().await, expected);
        assert_eq!(stage.idp.jwks_hits(), 1);
        // The next flight is the reader's who has nothing, or somebody's who insists.
        if kept { stage.refresh().await } else { stage.resolve().await.map(drop) }.unwrap();
        let requests = stage.idp.origin().requests("/jwks.json");
        assert_eq!(requests[1].header("if-none-match").is_some(), kept);
    };
    check(|_| (), |_| (), true).await;
    check(|_| (), |it| it.allowed_domains = vec!["127.0.0.1".into()], false).await;
    check(
        |it| it.allowed_domains = vec!["127.0.0.1".into(), "example.com".into()],
        |it| it.allowed_domains = vec!["127.0.0.1".into()],
        false,
    )
    .await;
    check(
        |it| it.allowed_domains = vec!["127.0.0.1".into()],
        |it| it.allowed_domains = vec!["EXAMPLE.com".into(), "127.0.0.1".into()],
        true,
    )
    .await;
    check(
        |it| it.allowed_domains = vec!["127.0.0.1".into(), "example.com".into()],
        |it| it.allowed_domains = vec!["Example.com.".into(), "127.0.0.1".into()],
        true,
    )
    .await;
}

/// Registers again with `change`, and says whether held keys go on being served.
async fn keeps(stage: &secured::Stage, change: impl FnOnce(&mut IdentityProviderRegistration)) -> bool {
    stage.register(change).await;
    let held = stage.registry.provider_status(TENANT, PROVIDER).await.unwrap().state == ProviderState::Ready;
    // The next row begins with keys.
    stage.register(|_| ()).await;
    stage.refresh().await.unwrap();
    held
}

#[tokio::test]
async fn who_is_believed_less_or_asked_as_another_serves_nothing_from_before() {
    let stage = secured::Stage::new();
    stage.fetch(|_| ()).await.unwrap();
    let other = || Some(Material::inline(Authority::new("other").pem()));
    assert!(keeps(&stage, |_| ()).await);
    assert!(!keeps(&stage, |it| it.pinned_spki = vec![stage.leaf.pin()]).await);
    assert!(keeps(&stage, |it| (it.pinned_spki, it.pin_mode) = (vec![pin('A')], PinMode::ReportOnly)).await);
    assert!(!keeps(&stage, |it| it.tls.replace_roots = true).await);
    assert!(!keeps(&stage, |it| it.tls.ca = other()).await);
    assert!(!keeps(&stage, |it| it.tls.ca = None).await);
    let ours = secured::client_certificate(&stage.root.client("us"));
    assert!(!keeps(&stage, |it| it.tls.client_certificate = Some(ours)).await);
    // What only says how: nobody else is believed by it.
    assert!(keeps(&stage, |it| it.tls.min_version = Some(TlsVersion::Tls13)).await);
    assert!(keeps(&stage, |it| it.bearer_token = Some(Material::inline("rotated"))).await);
    assert!(keeps(&stage, |it| drop(it.headers.insert("X-Api-Key".into(), "rotated".into()))).await);
    assert!(keeps(&stage, |it| it.user_agent = Some("other/1".into())).await);
    assert!(keeps(&stage, |it| it.connect_timeout = Some(secs(1))).await);
    assert!(keeps(&stage, |it| it.proxy = Some("http://127.0.0.1:9".parse().unwrap())).await);
}

#[tokio::test]
async fn pins_that_are_loosened_keep_what_is_held() {
    let stage = secured::Stage::new();
    let held = async || {
        stage.registry.provider_status(TENANT, PROVIDER).await.unwrap().state == ProviderState::Ready
    };
    stage.fetch(|it| it.pinned_spki = vec![stage.leaf.pin()]).await.unwrap();
    stage.register(|it| it.pinned_spki = vec![pin('A'), stage.leaf.pin()]).await;
    assert!(held().await);
    stage.register(|_| ()).await;
    assert!(held().await);
    // New pins serve nothing that was fetched without them, and what they refuse is not served either.
    stage.register(|it| it.pinned_spki = vec![pin('A')]).await;
    assert!(!held().await);
    is_security(stage.resolve().await);
    assert_eq!(stage.origin.total(), 1);
}

#[tokio::test]
async fn tightened_trust_drops_the_backoff() {
    let stage = warm(|it| it.retry_policy.initial_backoff = secs(1)).await;
    stage.idp.fail_with(500);
    stage.pass(secs(280));
    for _ in 0..4 {
        stage.resolve().await.unwrap();
        stage.landed().await;
        stage.pass(secs(5));
    }
    assert!(stage.status().await.error_count > 0);
    stage.idp.come_back();
    stage.register(|it| it.allowed_domains = vec!["127.0.0.1".into()]).await;
    assert_eq!(stage.status().await.error_count, 0);
    assert_eq!(stage.resolve().await.unwrap(), ["k1"]);
}

#[tokio::test]
async fn another_source_starts_empty() {
    let stage = warm(|_| ()).await;
    let other = IdentityProvider::builder().kid("other").start();
    stage.registry.register(registration(other.jwks_url())).await.unwrap();
    let status = stage.status().await;
    assert_eq!((status.state, status.expires_at, status.keys.len()), (ProviderState::Empty, None, 0));
    assert_eq!(stage.resolve().await.unwrap(), ["other"]);
    assert_eq!(other.origin().requests("/jwks.json")[0].header("if-none-match"), None);
    // The old one left no grace behind either.
    is_key_error(stage.key("k1").await, KeyError::UnknownKid);
    assert_eq!(stage.idp.jwks_hits(), 1);
}

#[tokio::test]
async fn denials_outlive_every_registration() {
    let stage = warm(|_| ()).await;
    stage.registry.deny_key(TENANT, PROVIDER, "k1").await.unwrap();
    stage.register(|it| it.max_keys = 100).await;
    is_key_error(stage.key("k1").await, KeyError::Denied);
    stage.register(|it| it.allowed_domains = vec!["127.0.0.1".into()]).await;
    is_key_error(stage.key("k1").await, KeyError::Denied);
    let other = IdentityProvider::start();
    stage.registry.register(registration(other.jwks_url())).await.unwrap();
    is_key_error(stage.key("k1").await, KeyError::Denied);
    assert!(stage.resolve().await.unwrap().is_empty());
    stage.registry.allow_key(TENANT, PROVIDER, "k1").await.unwrap();
    stage.key("k1").await.unwrap();
}

/// A stage, and readers of nothing whose flight hangs at the provider.
async fn hanging()
-> (Stage, jwks_cache_testkit::Gate, Vec<tokio::task::JoinHandle<jwks_cache::Result<Vec<String>>>>) {
    let stage = Stage::new();
    stage.register(|_| ()).await;
    let gate = stage.idp.origin().hold("/jwks.json");
    let waiters = (0..5)
        .map(|_| {
            let registry = stage.registry.clone();
            tokio::spawn(async move { registry.resolve(TENANT, PROVIDER, None).await.map(|set| kids(&set)) })
        })
        .collect();
    soon(stage.idp.origin().wait_for_hits("/jwks.json", 1)).await;
    (stage, gate, waiters)
}

#[tokio::test]
async fn waiters_of_a_given_up_flight_join_the_next() {
    let (stage, gate, waiters) = hanging().await;
    let other = IdentityProvider::builder().kid("other").start();
    stage.registry.register(registration(other.jwks_url())).await.unwrap();
    for waiter in waiters {
        assert_eq!(soon(waiter).await.unwrap().unwrap(), ["other"]);
    }
    assert_eq!((stage.idp.jwks_hits(), other.jwks_hits()), (1, 1));
    // The answer of the old one comes too late to be published.
    gate.release();
    stage.landed().await;
    assert_eq!(stage.resolve().await.unwrap(), ["other"]);
}

#[tokio::test]
async fn waiters_join_the_next_flight_of_the_same_source_too() {
    let (stage, gate, waiters) = hanging().await;
    let next = stage.idp.origin().next_request("/jwks.json");
    stage.register(|it| it.max_keys = 100).await;
    soon(next).await;
    gate.release();
    for waiter in waiters {
        assert_eq!(soon(waiter).await.unwrap().unwrap(), ["k1"]);
    }
    assert_eq!(stage.idp.jwks_hits(), 2);
}

#[tokio::test]
async fn who_insisted_on_a_given_up_flight_joins_the_next() {
    let (stage, _gate, waiters) = hanging().await;
    let other = IdentityProvider::builder().kid("other").start();
    let registry = stage.registry.clone();
    let refresh = tokio::spawn(async move { registry.refresh(TENANT, PROVIDER).await });
    let registry = stage.registry.clone();
    let insisting = tokio::spawn(async move { registry.refresh_and_wait(TENANT, PROVIDER).await });
    tokio::task::yield_now().await;
    stage.registry.register(registration(other.jwks_url())).await.unwrap();
    soon(refresh).await.unwrap().unwrap();
    soon(insisting).await.unwrap().unwrap();
    for waiter in waiters {
        soon(waiter).await.unwrap().unwrap();
    }
    assert_eq!(other.jwks_hits(), 1);
}

#[tokio::test]
async fn unregistering_ends_a_flight_and_tells_its_waiters() {
    let (stage, gate, waiters) = hanging().await;
    assert!(stage.registry.unregister(TENANT, PROVIDER).await.unwrap());
    for waiter in waiters {
        assert!(matches!(soon(waiter).await.unwrap(), Err(Error::NotRegistered { .. })));
    }
    gate.release();
    assert!(matches!(stage.resolve().await, Err(Error::NotRegistered { .. })));
    assert!(!stage.registry.unregister(TENANT, PROVIDER).await.unwrap());

    // Registered once more, it is a new provider.
    stage.register(|_| ()).await;
    assert_eq!(stage.state().await, ProviderState::Empty);
    assert_eq!(stage.resolve().await.unwrap(), ["k1"]);
}

#[tokio::test]
async fn registering_fetches_nothing() {
    let stage = Stage::new();
    for mode in [RefreshMode::OnDemand, RefreshMode::WhileInUse, RefreshMode::Always] {
        stage.register(|it| it.refresh_mode = mode).await;
        assert_eq!(stage.state().await, ProviderState::Empty);
    }
    // Had a timer been set, it would have gone off before this one.
    let other = IdentityProvider::start();
    let mut second = registration(other.jwks_url());
    second.provider_id = "second".into();
    stage.registry.register(second).await.unwrap();
    soon(stage.registry.resolve(TENANT, "second", None)).await.unwrap();
    assert_eq!((stage.state().await, stage.idp.jwks_hits()), (ProviderState::Empty, 0));
}

#[tokio::test]
async fn warm_up_fetches_for_all_or_for_some_and_only_what_is_missing() {
    let stage = Stage::new();
    let mut idps = Vec::new();
    for id in ["a", "b", "c"] {
        let idp = IdentityProvider::start();
        let mut registration = registration(idp.jwks_url());
        registration.provider_id = id.into();
        stage.registry.register(registration).await.unwrap();
        idps.push(idp);
    }
    let hits = || idps.iter().map(IdentityProvider::jwks_hits).collect::<Vec<_>>();
    let some = stage.registry.warm_up_only(&[(TENANT, "b")], secs(20)).await.unwrap();
    assert!(some.ready);
    assert_eq!((some.providers.len(), hits()), (1, vec![0, 1, 0]));
    let all = stage.registry.warm_up(secs(20)).await;
    assert!(all.ready);
    assert_eq!((all.providers.len(), hits()), (3, vec![1, 1, 1]));
    stage.registry.warm_up(secs(20)).await;
    assert_eq!(hits(), [1, 1, 1]);
}

#[tokio::test]
async fn warm_up_ends_at_its_deadline_and_its_flights_go_on() {
    let stage = Stage::new();
    stage.register(|_| ()).await;
    let hole = BlackHole::start();
    let mut dead = registration(hole.url("/jwks.json"));
    dead.provider_id = "dead".into();
    stage.registry.register(dead).await.unwrap();
    let gate = stage.idp.origin().hold("/jwks.json");
    let health = soon(stage.registry.warm_up(millis(200))).await;
    assert!(!health.ready && health.providers.iter().all(|provider| !provider.ready));
    assert_eq!(stage.state().await, ProviderState::Loading);
    gate.release();
    stage.landed().await;
    assert_eq!((stage.state().await, stage.idp.jwks_hits()), (ProviderState::Ready, 1));
}

#[tokio::test]
async fn a_timer_survives_the_registration_it_was_set_under() {
    let always: Change = |it| it.refresh_mode = RefreshMode::Always;
    let tightened: Change = |it| {
        (it.refresh_mode, it.allowed_domains) = (RefreshMode::Always, vec!["127.0.0.1".into()]);
    };
    for (again, conditional) in [(always, true), (tightened, false)] {
        let stage = warm(always).await;
        stage.register(again).await;
        stage.pass(secs(300));
        soon(stage.idp.origin().wait_for_hits("/jwks.json", 2)).await;
        let requests = stage.idp.origin().requests("/jwks.json");
        assert_eq!(requests[1].header("if-none-match").is_some(), conditional);

        // Also when the flight that would have set the next was given up.
        stage.landed().await;
        let gate = stage.idp.origin().hold("/jwks.json");
        stage.pass(secs(300));
        soon(stage.idp.origin().wait_for_hits("/jwks.json", 3)).await;
        stage.register(tightened).await;
        stage.register(always).await;
        drop(gate);
        stage.pass(secs(300));
        soon(stage.idp.origin().wait_for_hits("/jwks.json", 4)).await;
        stage.landed().await;
        assert_eq!(stage.state().await, ProviderState::Ready);
    }
}

#[tokio::test]
async fn of_two_who_register_the_last_one_wins_whole() {
    let stage = Stage::new();
    let origin = Origin::start();
    for n in 0..20 {
        let path = format!("/{n}");
        origin.set(&path, Reply::json(document(&[&path])));
        stage.registry.register(registration(origin.url(&path))).await.unwrap();
    }
    assert_eq!(stage.resolve().await.unwrap(), ["/19"]);
    assert_eq!((origin.total(), stage.registry.all_statuses().await.len()), (1, 1));
}
