//! What users of such caches reported elsewhere, and must not happen here. Reports that are a rule of
//! their own stand with it: shared flights in `standing`, floods in `unknown_kids`, removal, tenants and
//! documents in `key_sets`, budgets in `refreshing`.
#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

mod stage;

use std::sync::Arc;
use std::time::Duration;

use jwks_cache::{
    Algorithm, Error, IdentityProviderRegistration, KeyError, ProviderState, RefreshMode, Registry,
};
use jwks_cache_testkit::{IdentityProvider, ManualClock, Origin, Reply};
use serde_json::json;
use stage::scripted::{Answer, Stage, jwk, keys, registration, verifies};
use stage::{at_once, kids, secs, settle, took};

/// An origin and a registry that ask over a socket, on one clock.
struct Wire {
    clock: ManualClock,
    origin: Origin,
    registry: Registry,
}

impl Wire {
    async fn new(reply: Reply) -> Self {
        let clock = ManualClock::new();
        let origin = Origin::start_with_clock(Arc::new(clock.clone()));
        origin.set("/jwks.json", reply);
        let registry = Registry::builder().require_https(false).clock(Arc::new(clock.clone())).build();
        let wire = Self { clock, origin, registry };
        wire.registry.register(wire.registration("main")).await.unwrap();
        wire
    }

    fn registration(&self, provider: &str) -> IdentityProviderRegistration {
        let url = self.origin.url("/jwks.json");
        let mut of = IdentityProviderRegistration::new("acme", provider, url).unwrap();
        of.require_https = false;
        of.prefetch_jitter = Duration::ZERO;
        of.refresh_mode = RefreshMode::OnDemand;
        of.retry_policy.initial_backoff = Duration::from_millis(1);
        of.retry_policy.max_backoff = Duration::from_millis(1);
        of
    }

    async fn resolve(&self) -> Result<usize, Error> {
        Ok(self.registry.resolve("acme", "main", None).await?.keys.len())
    }

    fn asked(&self) -> usize {
        self.origin.hits("/jwks.json")
    }
}

fn text(keys: &[(&str, u8)]) -> String {
    json!({"keys": keys.iter().map(|(kid, seed)| jwk(kid, *seed)).collect::<Vec<_>>()}).to_string()
}

#[tokio::test]
async fn a_short_or_absent_lifetime_is_not_refreshed_on_every_read() {
    for header in ["", "max-age=0", "max-age=30", "no-cache", "no-store", "max-age=1, must-revalidate"] {
        let stage = Stage::new().await;
        stage.source.set(keys(&[("a", 1)], header));
        for _ in 0..600 {
            stage.resolve().await.unwrap();
            stage.clock.advance(Duration::from_millis(100));
            settle().await;
        }
        assert!(stage.source.asked() <= 7, "{header:?}: {} in a minute", stage.source.asked());
    }
}

#[tokio::test]
async fn resolve_looks_at_the_kid() {
    let stage = Stage::warm(|_| {}).await;
    stage.source.set(keys(&[("new", 3)], ""));
    assert_eq!(kids(&stage.resolve_kid("new").await.unwrap()), ["new"]);
}

#[tokio::test]
async fn a_body_without_end_is_left_at_the_bound() {
    let wire = Wire::new(Reply::json("{\"keys\":[").endless()).await;
    assert!(wire.resolve().await.is_err());
    assert_eq!(wire.asked(), 1, "and not asked for again");
}

#[tokio::test]
async fn providers_of_one_origin_share_connections() {
    let wire = Wire::new(Reply::json(text(&[("a", 1)]))).await;
    for n in 0..30 {
        let name = format!("p{n}");
        let mut registration = wire.registration(&name);
        // Each makes an exchange of its own: they do not ask quite the same.
        registration.max_response_bytes += n;
        wire.registry.register(registration).await.unwrap();
        wire.registry.resolve("acme", &name, None).await.unwrap();
    }
    assert_eq!(wire.asked(), 30);
    assert!(wire.origin.connections() <= 3, "{} connections", wire.origin.connections());
}

#[tokio::test]
async fn an_empty_document_never_replaces_good_keys() {
    let wire = Wire::new(Reply::json(text(&[("a", 1)])).header("Cache-Control", "max-age=300")).await;
    wire.resolve().await.unwrap();
    wire.origin.set("/jwks.json", Reply::json(r#"{"keys":[]}"#).header("Cache-Control", "max-age=300"));
    wire.clock.advance(secs(320));
    assert_eq!(wire.resolve().await.unwrap(), 1);
    assert_eq!(wire.asked(), 2);
}

#[tokio::test]
async fn an_html_page_with_status_200_replaces_nothing() {
    let wire = Wire::new(Reply::json(text(&[("a", 1)]))).await;
    wire.resolve().await.unwrap();
    let page = Reply::status(200).header("Content-Type", "text/html").body("<!doctype html><h1>Sign in</h1>");
    wire.origin.set("/jwks.json", page.header("Cache-Control", "max-age=86400"));
    wire.clock.advance(secs(1));
    wire.registry.refresh_and_wait("acme", "main").await.unwrap_err();
    assert_eq!(wire.resolve().await.unwrap(), 1);
}

#[tokio::test]
async fn failed_refresh_before_expiry_keeps_a_fresh_set_with_no_stale_window() {
    let stage = Stage::warm(|of| of.stale_while_error = Duration::ZERO).await;
    stage.source.set(Answer::Refused);
    for second in 270..300 {
        if second > 270 {
            stage.pass(1);
        } else {
            stage.pass(270);
        }
        assert_eq!(kids(&at_once(stage.resolve()).unwrap()), ["a", "b"], "at {second} s");
        settle().await;
    }
    stage.pass(1).resolve().await.unwrap_err();
}

#[tokio::test]
async fn huge_age_panics_nothing() {
    for age in
        ["18446744073709551615", "99999999999999999999999999999999", "-1", "1e9", "", "\u{ff}", "2147483648"]
    {
        for control in
            ["max-age=18446744073709551615", "max-age=300, stale-if-error=99999999999999999999", ""]
        {
            let reply = Reply::json(text(&[("a", 1)])).header("Age", age).header("Cache-Control", control);
            let wire = Wire::new(reply.header("Expires", "Fri, 31 Dec 9999 23:59:59 GMT")).await;
            for _ in 0..3 {
                assert_eq!(wire.resolve().await.unwrap(), 1, "Age {age:?}, {control:?}");
                wire.clock.advance(secs(86_500));
            }
            let status = wire.registry.provider_status("acme", "main").await.unwrap();
            let lost = status.metrics.iter().find(|metric| metric.name == "jwks_cache_lost_flights_total");
            assert_eq!(lost.unwrap().value, 0.0);
        }
    }
}

#[tokio::test]
async fn a_failed_fetch_never_erases_the_good_set() {
    for reply in [
        Reply::status(500),
        Reply::status(404),
        Reply::json("{\"keys\":[{\"kty\":\"RSA\"}]}"),
        Reply::json(text(&[("x", 9)])).truncate_at(20),
        Reply::reset_before_headers(),
        Reply::raw("HTTP/1.1 banana\r\n\r\n"),
        Reply::json(text(&[("x", 9)])).header("Content-Encoding", "gzip"),
    ] {
        let wire = Wire::new(Reply::json(text(&[("a", 1)]))).await;
        wire.resolve().await.unwrap();
        wire.origin.set("/jwks.json", reply.clone());
        wire.clock.advance(secs(2));
        let lookup = wire.registry.key("acme", "main", Some("x"), Algorithm::EdDSA).await;
        assert!(matches!(lookup, Err(Error::Key(KeyError::UnknownKid))), "{reply:?}");
        assert_eq!(wire.resolve().await.unwrap(), 1, "{reply:?}");
    }
}

#[tokio::test]
async fn a_removed_key_is_not_trusted_for_ever() {
    // Removed while the provider answers; and taken away behind an outage that nobody may outwait.
    let stage = Stage::warm(|of| of.stale_while_error = secs(86_400)).await;
    stage.source.set(keys(&[("a", 1)], "max-age=3828277"));
    stage.pass(300).resolve().await.unwrap();
    stage.pass(601).key("b").await.unwrap_err();
    stage.source.set(Answer::Refused);
    let mut hours = 0;
    while stage.key("a").await.is_ok() {
        hours += 1;
        stage.pass(3_600);
        settle().await;
        assert!(hours <= 48, "it is still trusted");
    }
    assert!(hours > 24, "{hours} h: the lifetime is cut to a day, and the window is another");
}

#[tokio::test]
async fn the_refetch_for_a_new_kid_gets_past_a_cdn_with_the_old_set() {
    let wire = Wire::new(Reply::json(text(&[("a", 1)]))).await;
    wire.resolve().await.unwrap();
    wire.origin.respond_with("/jwks.json", |request| match request.header("cache-control") {
        Some("no-cache") => Reply::json(text(&[("a", 1), ("new", 2)])),
        _ => Reply::json(text(&[("a", 1)])).header("Age", 200),
    });
    let key = wire.registry.key("acme", "main", Some("new"), Algorithm::EdDSA).await.unwrap();
    assert!(verifies(&key, 2));
}

#[tokio::test]
async fn hundreds_of_failed_manual_refreshes_kill_nothing() {
    let stage = Stage::warm(|of| of.refresh_mode = RefreshMode::Always).await;
    let failures =
        [Answer::Refused, Answer::Status(500, None), Answer::Panic, Answer::Head(200, vec![], "?".into())];
    for n in 0..400 {
        stage.source.set(failures[n % failures.len()].clone());
        // Real waits inside a flight are not what this is about.
        let refresh = stage.pass(1).refresh_and_wait();
        assert!(refresh.await.is_err(), "refresh {n}");
    }
    stage.source.set(keys(&[("a", 1), ("c", 3)], "max-age=300"));
    let before = stage.source.asked();
    stage.pass(300);
    stage.source.wait_for(before + 1).await; // the timer still runs
    stage.landed().await;
    assert_eq!(kids(&at_once(stage.resolve()).unwrap()), ["a", "c"]);
    stage.pass(1).refresh_and_wait().await.unwrap();
    assert_eq!(stage.status().await.error_count, 0);
}

#[tokio::test(start_paused = true)]
async fn a_slow_provider_blocks_nobody_while_keys_are_fresh_and_at_expiry_at_most_once() {
    let stage = Stage::warm(|of| of.stale_while_error = secs(3_600)).await;
    stage.source.set(Answer::Hang);
    stage.pass(270);
    for _ in 0..100 {
        at_once(stage.resolve()).unwrap();
        settle().await;
    }
    tokio::time::sleep(Duration::from_millis(250)).await;
    stage.pass(31);
    for _ in 0..100 {
        at_once(stage.resolve()).unwrap(); // nobody waits for a flight that is that old
    }
    assert_eq!(stage.source.asked(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_thousand_readers_at_expiry_wait_once_and_together() {
    let stage = Stage::warm(|of| of.stale_while_error = secs(3_600)).await;
    stage.source.set(Answer::Hang);
    stage.pass(301);
    let (time, ()) = took(async {
        let reads: Vec<_> = (0..1_000)
            .map(|_| stage.registry.clone())
            .map(|registry| tokio::spawn(async move { registry.resolve("acme", "main", None).await.is_ok() }))
            .collect();
        for read in reads {
            assert!(read.await.unwrap());
        }
    })
    .await;
    assert_eq!((time, stage.source.asked()), (Duration::from_millis(250), 2));
}

#[tokio::test]
async fn a_dead_provider_is_asked_a_few_hundred_times_a_day() {
    let stage = Stage::built(
        |builder| builder.seed(11),
        |of| {
            of.refresh_mode = RefreshMode::Always;
            of.stale_while_error = secs(86_400);
        },
    )
    .await;
    stage.resolve().await.unwrap();
    stage.source.set(Answer::Status(404, None)); // one attempt a flight
    for _ in 0..86_400 / 10 {
        stage.pass(10);
        for n in 0..3 {
            at_once(stage.key("a")).unwrap();
            let _ = at_once(stage.resolve());
            for _ in 0..4 + n {
                tokio::task::yield_now().await;
            }
        }
    }
    let attempts = stage.source.asked() - 1;
    println!("a dead provider: {attempts} attempts in a day");
    assert!((250..=450).contains(&attempts), "{attempts} attempts in a day");
}

#[tokio::test]
async fn error_page_max_age_never_counts() {
    let wire = Wire::new(Reply::json(text(&[("a", 1)])).header("Cache-Control", "max-age=300")).await;
    wire.resolve().await.unwrap();
    let before = wire.registry.provider_status("acme", "main").await.unwrap();
    for status in [404, 410, 301] {
        wire.origin.set("/jwks.json", Reply::status(status).header("Cache-Control", "max-age=86400"));
        wire.clock.advance(secs(1));
        wire.registry.refresh_and_wait("acme", "main").await.unwrap_err();
        let after = wire.registry.provider_status("acme", "main").await.unwrap();
        assert_eq!(after.expires_at, before.expires_at, "{status}");
    }
    wire.origin.set("/jwks.json", Reply::json(text(&[("a", 1), ("b", 2)])));
    wire.clock.advance(secs(400));
    assert_eq!(wire.resolve().await.unwrap(), 2, "the next try is not put off");
    let cold = Wire::new(Reply::status(404).header("Cache-Control", "max-age=86400")).await;
    for asked in 1..=2 {
        cold.resolve().await.unwrap_err();
        assert_eq!(cold.asked(), asked);
    }
}

#[tokio::test]
async fn an_emergency_can_be_answered_at_once() {
    let stage = Stage::warm(|_| {}).await;
    stage.source.set(keys(&[("fresh", 7)], "max-age=300"));
    stage.registry.deny_key("acme", "main", "a").await.unwrap();
    assert!(at_once(stage.key("a")).is_err());
    stage.pass(1).refresh_and_wait().await.unwrap();
    assert_eq!(kids(&at_once(stage.resolve()).unwrap()), ["fresh"]);
    assert!(matches!(at_once(stage.key("a")), Err(Error::Key(KeyError::Denied))));
}

#[tokio::test(start_paused = true)]
async fn readiness_is_tied_to_keys_and_warm_up_brings_them_within_its_deadline() {
    let stage = Stage::new().await;
    for (provider, host, required) in
        [("spare", "spare.test", false), ("slow", "slow.test", true), ("other", "other.test", true)]
    {
        let mut of = registration("acme", provider, host);
        of.required = required;
        stage.registry.register(of).await.unwrap();
    }
    settle().await;
    assert_eq!(stage.source.asked(), 0, "registering fetches nothing");
    stage.source.set_at("spare.test", Answer::Status(404, None));
    stage.source.set_at("slow.test", Answer::Hang);
    let (time, health) = took(stage.registry.warm_up(secs(2))).await;
    assert_eq!((time, health.ready), (secs(2), false));
    let ready: Vec<_> =
        health.providers.iter().map(|of| (of.provider_id.as_str(), of.required, of.ready)).collect();
    assert_eq!(
        ready,
        [("main", true, true), ("other", true, true), ("slow", true, false), ("spare", false, false)]
    );
    assert!(health.providers[3].last_error.is_some());
    stage.registry.unregister("acme", "slow").await.unwrap();
    assert!(stage.registry.health().await.ready, "an optional provider is not waited for");
    let some = stage.registry.warm_up_only(&[("acme", "main")], secs(2)).await.unwrap();
    assert!(some.ready && some.providers.len() == 1);
    stage.registry.warm_up_only(&[("acme", "none")], secs(2)).await.unwrap_err();
}

#[tokio::test]
async fn a_caller_dropped_mid_fetch_leaves_nothing_refreshing() {
    let stage = Stage::new().await;
    stage.source.hold();
    let call = tokio::spawn({
        let registry = stage.registry.clone();
        async move { registry.resolve("acme", "main", None).await }
    });
    stage.source.wait_for(1).await;
    assert_eq!(stage.status().await.state, ProviderState::Loading);
    call.abort();
    stage.source.release();
    stage.landed().await;
    assert_eq!(stage.status().await.state, ProviderState::Ready);
    stage.source.hold();
    stage.pass(1).refresh().await.unwrap();
    assert_eq!(stage.status().await.state, ProviderState::Refreshing);
    stage.source.release();
    stage.landed().await;
    assert_eq!(stage.status().await.state, ProviderState::Ready);
}

#[tokio::test]
async fn an_outage_is_survived_and_recovered_from() {
    let clock = ManualClock::new();
    let idp = IdentityProvider::builder().cache_control("max-age=300").clock(Arc::new(clock.clone())).start();
    let registry = Registry::builder().require_https(false).clock(Arc::new(clock.clone())).build();
    let mut of = IdentityProviderRegistration::new("acme", "main", idp.jwks_url()).unwrap();
    (of.require_https, of.stale_while_error) = (false, secs(86_400));
    of.retry_policy.initial_backoff = Duration::from_millis(1);
    of.retry_policy.max_backoff = Duration::from_millis(1);
    of.refresh_mode = RefreshMode::OnDemand;
    registry.register(of).await.unwrap();
    registry.resolve("acme", "main", None).await.unwrap();
    idp.go_down();
    for _ in 0..24 {
        clock.advance(secs(3_590));
        registry.key("acme", "main", Some("k1"), Algorithm::ES256).await.unwrap();
    }
    let kid = idp.rotate();
    idp.come_back();
    clock.advance(secs(301));
    registry.key("acme", "main", Some(&kid), Algorithm::ES256).await.unwrap();
}
