//! Other sources while the registered one fails: when they serve, for how long, and the way back.
#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

mod stage;

use jwks_cache::{
    Fallback, IdentityProviderRegistration, ProviderState, RefreshMode, ServingSource, Subscription, What,
};
use serde_json::json;
use stage::scripted::{Answer, Stage, events, jwk, keys};
use stage::socket::is_validation;
use stage::{PROVIDER, TENANT, kids, millis, secs};

const MIRROR: &str = "mirror.test";

fn inline(kid: &str, trust: u64) -> Fallback {
    let text = json!({"keys": [jwk(kid, 9)]}).to_string();
    Fallback { max_trust_age: secs(trust), ..Fallback::inline(text) }
}

fn mirror(trust: u64) -> Fallback {
    Fallback { max_trust_age: secs(trust), ..Fallback::url(format!("https://{MIRROR}/jwks")).unwrap() }
}

/// A stage with these fallbacks; the mirror publishes `m`.
async fn with(fallbacks: Vec<Fallback>) -> Stage {
    let change = |it: &mut IdentityProviderRegistration| {
        it.fallbacks = fallbacks;
        it.refresh_mode = RefreshMode::OnDemand;
    };
    let stage = Stage::with(change).await;
    stage.source.set_at(MIRROR, keys(&[("m", 8)], "max-age=300"));
    stage
}

/// The kids that are served, and by which source.
async fn served(stage: &Stage) -> (Vec<String>, Option<ServingSource>) {
    let kids = stage.resolve().await.map(|set| kids(&set)).unwrap_or_default();
    stage::settle().await;
    while stage.status().await.state == ProviderState::Refreshing {
        // Paused time runs on: a flight may wait between its attempts.
        tokio::time::sleep(millis(1)).await;
    }
    (kids, stage.status().await.serving)
}

fn fallback(index: u16, place: &str) -> Option<ServingSource> {
    Some(ServingSource::Fallback { index, place: place.into() })
}

fn primary() -> (Vec<String>, Option<ServingSource>) {
    (vec!["a".into(), "b".into()], Some(ServingSource::Primary))
}

fn switches(told: &mut Subscription) -> Vec<String> {
    let shown = |what| match what {
        What::ServingFallback { index, .. } => Some(format!("fallback {index}")),
        What::ServingPrimary => Some("primary".to_owned()),
        _ => None,
    };
    events(told).into_iter().filter_map(shown).collect()
}

#[tokio::test(start_paused = true)]
async fn a_fallback_serves_while_the_source_fails_and_not_longer() {
    let stage = with(vec![mirror(86_400)]).await;
    let mut told = stage.registry.subscribe();
    assert_eq!(served(&stage).await, primary());
    stage.source.set(Answer::Refused);
    // Its own keys come first, stale ones too.
    stage.pass(310);
    assert_eq!(served(&stage).await, primary());
    assert_eq!(stage.source.asked_at(MIRROR), 0);
    stage.pass(60);
    assert_eq!(served(&stage).await, (vec!["m".into()], fallback(0, "https://mirror.test/jwks")));
    let status = stage.status().await;
    assert!(status.error_count > 0 && status.last_error.is_some());
    stage.source.set(keys(&[("a", 1), ("b", 2)], "max-age=300"));
    stage.pass(301);
    served(&stage).await;
    assert_eq!(served(&stage).await, primary());
    assert_eq!(switches(&mut told), ["fallback 0", "primary"]);
    assert_eq!(stage.status().await.error_count, 0);
    assert!(stage.key("m").await.is_err(), "its keys go when it goes");
}

#[tokio::test(start_paused = true)]
async fn a_cold_start_in_an_outage_takes_the_first_fallback_that_works() {
    let stage = with(vec![mirror(100), inline("i", 100)]).await;
    stage.source.set(Answer::Refused);
    stage.source.set_at(MIRROR, Answer::Refused);
    let (cost, got) = stage.cost(served(&stage)).await;
    assert_eq!(got, (vec!["i".into()], fallback(1, "none:")));
    assert_eq!(cost, 2, "one request each");
}

#[tokio::test(start_paused = true)]
async fn a_fallback_without_a_usable_key_is_passed_over() {
    let empty = Fallback::inline(r#"{"keys":[]}"#);
    let stage = with(vec![empty, Fallback::inline("no keys"), inline("i", 100)]).await;
    stage.source.set(Answer::Refused);
    assert_eq!(served(&stage).await, (vec!["i".into()], fallback(2, "none:")));
}

#[tokio::test(start_paused = true)]
async fn each_fallback_has_its_own_trust_limit() {
    let stage = with(vec![inline("short", 100), inline("long", 1_000)]).await;
    stage.source.set(Answer::Refused);
    let mut seen = Vec::new();
    for second in 0..1_300 {
        let (kids, _) = served(&stage).await;
        let kid = kids.first().cloned().unwrap_or_default();
        if seen.last().is_none_or(|(_, last)| *last != kid) {
            seen.push((second, kid));
        }
        stage.pass(1);
    }
    let shown: Vec<_> = seen.iter().map(|(at, kid)| (*at, kid.as_str())).collect();
    assert_eq!(shown, [(0, "short"), (100, "long"), (1_100, "")]);
    // It counts for one outage.
    stage.source.set(keys(&[("a", 1), ("b", 2)], "max-age=30"));
    stage.pass(20);
    assert_eq!(served(&stage).await, primary());
    stage.source.set(Answer::Refused);
    stage.pass(1_000);
    assert_eq!(served(&stage).await.0, ["short"]);
}

#[tokio::test(start_paused = true)]
async fn the_source_is_tried_calmly_while_a_fallback_serves() {
    let stage = with(vec![mirror(86_400)]).await;
    stage.source.set(Answer::Refused);
    let mut told = stage.registry.subscribe();
    for _ in 0..3_600 {
        assert_eq!(served(&stage).await.0, ["m"]);
        stage.pass(1);
    }
    let (tried, mirrored) = (stage.source.asked_at("idp.test"), stage.source.asked_at(MIRROR));
    assert!((12..=40).contains(&tried), "{tried} tries in an hour");
    assert!((10..=16).contains(&mirrored), "{mirrored} requests to a mirror whose keys last 300 s");
    assert_eq!(switches(&mut told), ["fallback 0"]);
}

#[tokio::test(start_paused = true)]
async fn a_source_that_flaps_does_not_make_keys_flap() {
    let stage = with(vec![mirror(86_400)]).await;
    let mut told = stage.registry.subscribe();
    stage.source.set(Answer::Refused);
    served(&stage).await;
    stage.source.set(keys(&[("a", 1), ("b", 2)], "max-age=300"));
    stage.pass(5);
    served(&stage).await;
    stage.source.set(Answer::Refused);
    for _ in 0..10 {
        stage.pass(30);
        assert_eq!(served(&stage).await, primary(), "what it brought lasts");
    }
    assert_eq!(switches(&mut told), ["fallback 0", "primary"]);
}

#[tokio::test(start_paused = true)]
async fn a_source_that_hangs_costs_a_reader_half_a_deadline_at_most() {
    let stage = with(vec![inline("i", 1_000)]).await;
    stage.source.set(Answer::Hang);
    let (time, got) = stage::took(served(&stage)).await;
    assert_eq!(got.0, ["i"]);
    assert!(time <= secs(4), "{time:?}");
    // And no reader after that.
    stage.pass(2);
    let (time, _) = stage::took(stage.resolve()).await;
    assert_eq!(time, secs(0));
}

#[tokio::test(start_paused = true)]
async fn a_fallback_is_there_although_the_source_asks_to_wait() {
    let stage = with(vec![inline("i", 1_000)]).await;
    served(&stage).await;
    stage.pass(350);
    stage.source.set(Answer::Status(503, Some(secs(200))));
    served(&stage).await;
    let asked = stage.source.asked();
    stage.pass(30);
    assert_eq!(served(&stage).await.0, ["i"]);
    assert_eq!(stage.source.asked(), asked, "it is not asked");
}

#[tokio::test(start_paused = true)]
async fn a_fallbacks_keys_are_no_snapshot_of_the_source() {
    let mut of = stage::scripted::registration(TENANT, PROVIDER, "127.0.0.1:1");
    of.fallbacks = vec![inline("i", 1_000)];
    let cache = jwks_cache::CacheManager::new(of).unwrap();
    assert_eq!(kids(&cache.resolve(None).await.unwrap()), ["i"]);
    assert!(cache.persistent_snapshot().await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn other_fallbacks_start_anew() {
    let stage = with(vec![inline("one", 1_000)]).await;
    stage.source.set(Answer::Refused);
    assert_eq!(served(&stage).await.0, ["one"]);
    let mut of = stage::scripted::registration(TENANT, PROVIDER, "idp.test");
    of.fallbacks = vec![inline("two", 1_000)];
    stage.registry.register(of).await.unwrap();
    assert_eq!(served(&stage).await.0, ["two"]);
}

#[test]
fn fallbacks_keep_the_rules_of_sources() {
    let with = |fallback: Fallback| {
        let mut of = stage::scripted::registration(TENANT, PROVIDER, "idp.test");
        of.allowed_domains = vec!["idp.test".into()];
        of.fallbacks = vec![fallback];
        of
    };
    with(inline("i", 1)).validate().unwrap();
    is_validation(with(inline("i", 0)).validate(), "fallbacks");
    is_validation(with(mirror(1)).validate(), "fallbacks");
    is_validation(with(Fallback::url("https://u:p@idp.test/").unwrap()).validate(), "fallbacks");
    assert!(with(Fallback::url("http://idp.test/").unwrap()).validate().is_err());
    let mut of = stage::scripted::registration(TENANT, PROVIDER, "idp.test");
    of.fallbacks = vec![inline("i", 1); 9];
    is_validation(of.validate(), "fallbacks");
}

#[tokio::test(start_paused = true)]
async fn the_last_of_many_fallbacks_has_time_too() {
    let at = |host: &str| Fallback::url(format!("https://{host}/jwks")).unwrap();
    let stage = with(vec![at("one.test"), at("two.test"), at("three.test"), mirror(86_400)]).await;
    stage.source.set(Answer::Hang);
    assert_eq!(served(&stage).await, (vec!["m".into()], fallback(3, "https://mirror.test/jwks")));
}
