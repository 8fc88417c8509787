//! When flights start, what they try again, and how many run at once.
#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

mod stage;

use std::time::Duration;

use jwks_cache::{
    ErrorKind, IdentityProviderRegistration, JitterStrategy, RefreshMode, Registry, RetryPolicy,
};
use jwks_cache_testkit::{ManualClock, Origin, Reply};
use stage::scripted::{Answer, Stage, jwk, keys, registration};
use stage::{at_once, millis, secs, settle, took};

const MORE: &[(&str, u8)] = &[("a", 1), ("b", 2), ("c", 3)];

// refresh() and refresh_and_wait().

#[tokio::test]
async fn refresh_starts_a_flight_however_fresh_the_keys_are_and_returns_when_it_started() {
    let stage = Stage::warm(|_| {}).await;
    stage.source.set(keys(MORE, ""));
    stage.source.hold();
    stage.pass(1).refresh().await.unwrap();
    settle().await;
    assert_eq!(stage.source.asked(), 2);
    stage.source.release();
    stage.landed().await;
    assert_eq!(at_once(stage.resolve()).unwrap().keys.len(), 3);
}

#[tokio::test]
async fn refresh_returns_when_it_finished_where_no_keys_are_servable() {
    let stage = Stage::new().await;
    stage.refresh().await.unwrap();
    assert_eq!(at_once(stage.resolve()).unwrap().keys.len(), 2);
    let stage = Stage::new().await;
    stage.source.set(Answer::Status(403, None));
    let error = stage.refresh().await.unwrap_err();
    assert_eq!(error.status().map(|status| status.as_u16()), Some(403));
}

#[tokio::test]
async fn refresh_joins_a_flight_that_runs() {
    let stage = Stage::warm(|_| {}).await;
    stage.source.hold();
    for _ in 0..20 {
        stage.pass(2).refresh().await.unwrap();
    }
    settle().await;
    assert_eq!(stage.source.asked(), 2);
}

#[tokio::test]
async fn refresh_waits_out_the_second_since_the_last_start_and_all_who_do_share_one_flight() {
    let stage = Stage::warm(|_| {}).await;
    let calls: Vec<_> = (0..20)
        .map(|_| stage.registry.clone())
        .map(|registry| tokio::spawn(async move { registry.refresh("acme", "main").await }))
        .collect();
    settle().await;
    stage.clock.advance(millis(999));
    settle().await;
    assert_eq!(stage.source.asked(), 1);
    assert!(calls.iter().all(|call| !call.is_finished()));
    stage.clock.advance(millis(1));
    for call in calls {
        call.await.unwrap().unwrap();
    }
    settle().await;
    assert_eq!(stage.source.asked(), 2);
}

#[tokio::test]
async fn neither_backoff_nor_retry_after_nor_negative_caching_holds_refresh_back() {
    let stage = Stage::with(|registration| registration.negative_cache_ttl = secs(3_600)).await;
    stage.source.set(Answer::Status(404, Some(secs(200))));
    stage.resolve().await.unwrap_err();
    at_once(stage.pass(100).resolve()).unwrap_err();
    stage.source.set(keys(MORE, ""));
    stage.refresh().await.unwrap();
    assert_eq!(at_once(stage.resolve()).unwrap().keys.len(), 3);
}

#[tokio::test]
async fn a_failed_refresh_does_not_lengthen_the_backoff() {
    let stage = Stage::warm(|registration| registration.refresh_mode = RefreshMode::OnDemand).await;
    stage.source.set(Answer::Status(404, None));
    for _ in 0..50 {
        stage.pass(2).refresh_and_wait().await.unwrap_err();
    }
    assert_eq!(stage.status().await.error_count, 50);
    let (cost, _) = stage.pass(171).cost(stage.resolve()).await;
    assert_eq!(cost, 1, "a reader's flight starts as soon as it is due");
    let (cost, _) = stage.pass(1).cost(stage.resolve()).await;
    assert_eq!(cost, 1, "and its failure is the first");
}

#[tokio::test]
async fn refresh_and_wait_returns_the_outcome_of_a_flight_that_began_after_the_call_shared() {
    let stage = Stage::warm(|_| {}).await;
    stage.source.hold();
    stage.pass(1).refresh().await.unwrap(); // is answered with what was published before
    stage.source.wait_for(2).await;
    stage.source.set(keys(MORE, ""));
    let calls: Vec<_> = (0..20)
        .map(|_| stage.registry.clone())
        .map(|registry| tokio::spawn(async move { registry.refresh_and_wait("acme", "main").await }))
        .collect();
    settle().await;
    stage.source.release();
    settle().await;
    assert!(calls.iter().all(|call| !call.is_finished()), "the flight that ran will not do");
    stage.pass(1);
    for call in calls {
        call.await.unwrap().unwrap();
    }
    assert_eq!((stage.source.asked(), at_once(stage.resolve()).unwrap().keys.len()), (3, 3));
}

#[tokio::test]
async fn refresh_and_wait_tells_of_a_failure_and_the_keys_stay() {
    let stage = Stage::warm(|_| {}).await;
    stage.source.set(Answer::Status(403, None));
    let error = stage.pass(1).refresh_and_wait().await.unwrap_err();
    assert_eq!((error.provider(), error.attempt()), (Some(("acme", "main")), Some(1)));
    assert_eq!(at_once(stage.resolve()).unwrap().keys.len(), 2);
}

// Timers.

/// How many flights each of six lifetimes brings, read in the first three of them.
async fn flights(mode: RefreshMode) -> Vec<usize> {
    let stage = Stage::warm(|registration| registration.refresh_mode = mode).await;
    let mut flights = Vec::new();
    for round in 0..6 {
        let before = stage.source.asked();
        for _ in 0..10 {
            stage.pass(27); // 270 s in all: when the next refresh is due
            settle().await;
            if round < 3 && stage.status().await.expires_at.is_some() {
                let _ = stage.resolve().await;
            }
        }
        stage.landed().await;
        flights.push(stage.source.asked() - before);
    }
    flights
}

#[tokio::test]
async fn on_demand_only_readers_start_flights() {
    assert_eq!(flights(RefreshMode::OnDemand).await, [1, 1, 1, 0, 0, 0]);
}

#[tokio::test]
async fn while_in_use_the_timer_refreshes_until_nobody_reads() {
    let flights = flights(RefreshMode::WhileInUse).await;
    assert!(flights[..3].iter().all(|flights| *flights >= 1), "{flights:?}");
    assert!(flights[3..].iter().sum::<usize>() <= 1, "one for the last read: {flights:?}");
    assert_eq!(flights[4..], [0, 0]);
}

#[tokio::test]
async fn always_the_timer_refreshes_regardless() {
    let flights = flights(RefreshMode::Always).await;
    assert!(flights.iter().all(|flights| (1..=2).contains(flights)), "{flights:?}");
}

#[tokio::test]
async fn a_provider_that_went_quiet_wakes_with_its_next_reader() {
    let stage = Stage::warm(|_| {}).await;
    for _ in 0..40 {
        stage.pass(100);
        settle().await;
    }
    let asked = stage.source.asked();
    assert!(asked <= 2, "{asked} flights in an hour that nobody read");
    stage.resolve().await.unwrap();
    stage.pass(270);
    stage.source.wait_for(asked + 2).await; // the reader's, and the timer's
}

#[tokio::test]
async fn providers_that_came_together_part() {
    let stage = Stage::built(|builder| builder.seed(7), |_| {}).await;
    stage.source.set(keys(MORE, "max-age=4000"));
    for n in 0..40 {
        let mut of = registration("acme", &format!("p{n}"), "idp.test");
        of.refresh_mode = RefreshMode::Always;
        stage.registry.register(of).await.unwrap();
    }
    stage.registry.warm_up(secs(5)).await;
    let warm = stage.source.asked();
    stage.pass(999);
    settle().await;
    assert_eq!(stage.source.asked(), warm, "none in the first quarter");
    let mut counts = Vec::new();
    for _ in 0..3 {
        let before = stage.source.asked();
        stage.pass(1_000);
        settle().await;
        settle().await;
        counts.push(stage.source.asked() - before);
    }
    assert!(counts.iter().all(|count| *count >= 5), "spread over the lifetime: {counts:?}");
    assert!(counts.iter().sum::<usize>() >= 40, "all by refresh_at: {counts:?}");
}

// Within a flight, over sockets.

fn quick(url: impl AsRef<str>) -> IdentityProviderRegistration {
    let mut of = IdentityProviderRegistration::new("acme", "main", url).unwrap();
    of.require_https = false;
    of.retry_policy = RetryPolicy {
        initial_backoff: millis(1),
        max_backoff: millis(1),
        attempt_timeout: millis(1_000),
        ..RetryPolicy::default()
    };
    of
}

/// How many attempts a cold flight makes at an origin that always answers like this.
async fn attempts(reply: Reply, change: impl FnOnce(&mut IdentityProviderRegistration)) -> usize {
    let origin = Origin::start();
    origin.set("/jwks.json", reply);
    let registry = Registry::builder().require_https(false).build();
    let mut of = quick(origin.url("/jwks.json"));
    change(&mut of);
    registry.register(of).await.unwrap();
    registry.resolve("acme", "main", None).await.unwrap_err();
    origin.hits("/jwks.json")
}

#[tokio::test]
async fn tried_again_are_408_429_and_5xx_and_no_other_status() {
    for status in [408, 429, 500, 501, 502, 503, 504, 599] {
        assert_eq!(attempts(Reply::status(status), |_| {}).await, 3, "{status}");
    }
    for status in [201, 204, 206, 304, 400, 401, 403, 404, 405, 410, 418, 422, 431, 451] {
        assert_eq!(attempts(Reply::status(status), |_| {}).await, 1, "{status}");
    }
}

#[tokio::test]
async fn tried_again_are_broken_connections_and_timeouts() {
    let text = format!("{{\"keys\":[{}]}}", jwk("a", 1));
    for (name, reply) in [
        ("reset", Reply::reset_before_headers()),
        ("closed", Reply::close_before_headers()),
        ("cut", Reply::json(&text).truncate_at(10)),
        ("reset in the body", Reply::json(&text).reset_mid_body()),
    ] {
        assert_eq!(attempts(reply, |_| {}).await, 3, "{name}");
    }
    for (name, reply) in [("hangs", Reply::hang()), ("stalls", Reply::json(&text).stall_at(10))] {
        let short = |of: &mut IdentityProviderRegistration| of.retry_policy.attempt_timeout = millis(700);
        assert_eq!(attempts(reply, short).await, 3, "{name}");
    }
}

#[tokio::test]
async fn tried_again_are_refused_connections() {
    let origin = Origin::start();
    origin.pause();
    let registry = Registry::builder().require_https(false).build();
    registry.register(quick(origin.url("/jwks.json"))).await.unwrap();
    let error = registry.resolve("acme", "main", None).await.unwrap_err();
    assert_eq!((error.attempt(), error.kind()), (Some(3), ErrorKind::KeysUnavailable));
}

#[tokio::test]
async fn never_tried_again_are_bodies_and_redirects_that_are_refused() {
    let large = format!("{{\"keys\":[{}],\"x\":\"{}\"}}", jwk("a", 1), "y".repeat(4_096));
    let small = |of: &mut IdentityProviderRegistration| of.max_response_bytes = 1_024;
    assert_eq!(attempts(Reply::json(large), small).await, 1, "too large");
    for (name, reply) in [
        ("no JSON", Reply::status(200).body("<html>")),
        ("no keys", Reply::json("{}")),
        ("another host", Reply::redirect(302, "http://elsewhere.test/")),
    ] {
        assert_eq!(attempts(reply, |_| {}).await, 1, "{name}");
    }
}

// Within a flight, by the script.

fn exact(of: &mut IdentityProviderRegistration) {
    of.retry_policy.jitter = JitterStrategy::None;
}

#[tokio::test(start_paused = true)]
async fn waits_between_attempts_double_up_to_max_backoff() {
    let stage = Stage::with(|of| {
        exact(of);
        of.retry_policy.max_retries = 5;
        of.retry_policy.max_backoff = secs(1);
        of.retry_policy.deadline = secs(60);
    })
    .await;
    stage.source.set(Answer::Refused);
    stage.resolve().await.unwrap_err();
    assert_eq!(stage.source.times(), [0, 250, 750, 1_750, 2_750, 3_750].map(millis));
}

#[tokio::test(start_paused = true)]
async fn an_attempt_ends_at_its_timeout_and_the_flight_at_its_deadline_waits_included() {
    let stage = Stage::with(exact).await;
    stage.source.set(Answer::Hang);
    let (time, error) = took(stage.resolve()).await;
    assert_eq!(error.unwrap_err().kind(), ErrorKind::KeysUnavailable);
    assert_eq!(stage.source.times(), [0, 3_250, 6_750].map(millis));
    assert_eq!(time, secs(8), "the third attempt is cut short");
}

#[tokio::test(start_paused = true)]
async fn retry_after_is_waited_for_inside_a_flight_that_has_attempts_and_deadline_left() {
    let stage = Stage::new().await;
    stage.source.push(Answer::Status(503, Some(secs(5))));
    stage.resolve().await.unwrap();
    assert_eq!(stage.source.times(), [secs(0), secs(5)]);
}

#[tokio::test(start_paused = true)]
async fn retry_after_beyond_the_deadline_is_the_least_wait_to_the_next_flight() {
    for (asked, wait) in [(20, 20), (86_400, 300)] {
        let stage = Stage::new().await;
        stage.source.push(Answer::Status(503, Some(secs(asked))));
        let (time, error) = took(stage.resolve()).await;
        assert_eq!(error.unwrap_err().status().map(|status| status.as_u16()), Some(503));
        assert!(time < secs(1), "nobody waits for it: {time:?}");
        at_once(stage.pass(wait - 1).resolve()).unwrap_err();
        stage.pass(1).resolve().await.unwrap();
        assert_eq!(stage.source.asked(), 2);
    }
}

#[tokio::test]
async fn retry_after_of_a_single_attempt_or_a_final_status_holds_back_the_next_flight_too() {
    let stage = Stage::warm(|of| of.refresh_mode = RefreshMode::OnDemand).await;
    stage.source.set(Answer::Status(503, Some(secs(2)))); // within the deadline, but no attempt is left
    stage.key("zzz").await.unwrap_err();
    assert_eq!(stage.source.asked(), 2);
    stage.source.set(Answer::Status(403, Some(secs(60))));
    at_once(stage.pass(290).resolve()).unwrap();
    stage.landed().await;
    assert_eq!(stage.source.asked(), 3);
    let (cost, _) = stage.pass(59).cost(stage.resolve()).await;
    assert_eq!(cost, 0);
    let (cost, _) = stage.pass(1).cost(stage.resolve()).await;
    assert_eq!(cost, 1);
}

#[tokio::test]
async fn retry_after_reads_seconds_and_dates() {
    let clock = ManualClock::new();
    for (value, wait) in [("90", 90), ("Thu, 01 Jan 2026 00:01:30 GMT", 90)] {
        let clock = if value == "90" { ManualClock::new() } else { clock.clone() };
        let origin = Origin::start_with_clock(std::sync::Arc::new(clock.clone()));
        origin.set("/jwks.json", Reply::status(503).header("Retry-After", value));
        let registry =
            Registry::builder().require_https(false).clock(std::sync::Arc::new(clock.clone())).build();
        registry.register(quick(origin.url("/jwks.json"))).await.unwrap();
        registry.resolve("acme", "main", None).await.unwrap_err();
        assert_eq!(origin.hits("/jwks.json"), 1, "{value}: longer than the deadline");
        clock.advance(secs(wait - 1));
        registry.resolve("acme", "main", None).await.unwrap_err();
        assert_eq!(origin.hits("/jwks.json"), 1, "{value}");
        clock.advance(secs(1));
        registry.resolve("acme", "main", None).await.unwrap_err();
        assert_eq!(origin.hits("/jwks.json"), 2, "{value}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_flight_after_a_failed_one_makes_a_single_attempt() {
    let stage = Stage::new().await;
    stage.source.set(Answer::Refused);
    stage.resolve().await.unwrap_err();
    assert_eq!(stage.source.asked(), 3);
    stage.resolve().await.unwrap_err();
    assert_eq!(stage.source.asked(), 4);
    stage.pass(1).refresh().await.unwrap_err();
    assert_eq!(stage.source.asked(), 5);
    stage.source.push(keys(MORE, "max-age=300"));
    stage.pass(10).resolve().await.unwrap();
    stage.pass(10_000).resolve().await.unwrap_err();
    assert_eq!(stage.source.asked(), 9, "success resets: three attempts again");
}

// Between flights.

#[tokio::test]
async fn the_backoff_between_flights_is_policy_time_and_ends_at_five_minutes() {
    let stage = Stage::warm(|of| {
        of.refresh_mode = RefreshMode::OnDemand;
        of.stale_while_error = secs(86_400);
    })
    .await;
    stage.source.set(Answer::Status(404, None));
    stage.pass(300);
    let mut longest = 0;
    for _ in 0..16 {
        stage.resolve().await.unwrap();
        stage.landed().await;
        let before = stage.source.asked();
        let mut waited = 0;
        while stage.source.asked() == before {
            waited += 1;
            stage.pass(1).resolve().await.unwrap();
            settle().await;
            assert!(waited <= 300, "it waits longer than five minutes");
        }
        longest = longest.max(waited);
    }
    assert!(longest >= 150, "at most {longest} s");
}

#[tokio::test]
async fn with_nothing_servable_the_backoff_ends_at_ten_seconds() {
    let stage = Stage::new().await;
    stage.source.set(Answer::Status(404, None));
    for _ in 0..30 {
        let (cost, error) = stage.pass(10).cost(stage.resolve()).await;
        assert!(error.is_err() && cost == 1);
    }
}

// Bounded and fair.

/// Another tenant's provider at a host of its own.
async fn another(stage: &Stage, tenant: &str, provider: &str, host: &str) {
    stage.registry.register(registration(tenant, provider, host)).await.unwrap();
}

fn reads(
    stage: &Stage,
    names: impl IntoIterator<Item = (String, String)>,
) -> Vec<tokio::task::JoinHandle<bool>> {
    names
        .into_iter()
        .map(|(tenant, provider)| (stage.registry.clone(), tenant, provider))
        .map(|(registry, tenant, provider)| {
            tokio::spawn(async move { registry.resolve(&tenant, &provider, None).await.is_ok() })
        })
        .collect()
}

#[tokio::test]
async fn sixty_four_fetches_run_at_once_or_as_many_as_is_set() {
    for (set, most) in [(None, 64), (Some(5), 5)] {
        let stage = Stage::built(
            |builder| match set {
                Some(set) => builder.max_concurrent_fetches(set),
                None => builder,
            },
            |_| {},
        )
        .await;
        stage.source.hold();
        for n in 0..100 {
            another(&stage, &format!("t{n}"), "main", &format!("h{n}.test")).await;
        }
        let reads = reads(&stage, (0..100).map(|n| (format!("t{n}"), "main".to_owned())));
        settle().await;
        assert_eq!(stage.source.asked(), most);
        stage.source.release();
        for read in reads {
            assert!(read.await.unwrap());
        }
        assert_eq!((stage.source.asked(), stage.source.flying().0), (100, most));
    }
}

#[tokio::test(start_paused = true)]
async fn one_hanging_origin_delays_no_other() {
    let stage = Stage::new().await;
    stage.source.set_at("hung.test", Answer::Hang);
    for n in 0..200 {
        another(&stage, &format!("t{n}"), "main", "hung.test").await;
    }
    let reads = reads(&stage, (0..200).map(|n| (format!("t{n}"), "main".to_owned())));
    settle().await;
    assert_eq!(stage.source.asked_at("hung.test"), 8, "at most eight an origin");
    let (time, set) = took(stage.resolve()).await;
    assert_eq!((time, set.unwrap().keys.len()), (Duration::ZERO, 2));
    for read in reads {
        assert!(!read.await.unwrap());
    }
}

#[tokio::test(start_paused = true)]
async fn sixteen_origins_that_keep_hanging_delay_no_other() {
    let stage = Stage::new().await;
    let names = || (0..60).map(|n| (format!("t{n}"), "main".to_owned()));
    for n in 0..60 {
        stage.source.set_at(&format!("h{n}.test"), Answer::Status(404, None));
        another(&stage, &format!("t{n}"), "main", &format!("h{n}.test")).await;
    }
    for read in reads(&stage, names()) {
        assert!(!read.await.unwrap());
    }
    let failed = stage.source.asked();
    for n in 0..60 {
        stage.source.set_at(&format!("h{n}.test"), Answer::Hang);
    }
    let again = reads(&stage, names());
    settle().await;
    assert_eq!(stage.source.asked() - failed, 16, "flights that follow a failed one");
    let (time, set) = took(stage.resolve()).await;
    assert_eq!((time, set.unwrap().keys.len()), (Duration::ZERO, 2));
    let (time, ()) = took(async {
        for read in again {
            assert!(!read.await.unwrap());
        }
    })
    .await;
    assert!(time <= secs(8), "no caller waits longer than the deadline, queue included: {time:?}");
}

#[tokio::test]
async fn one_tenant_takes_half_while_others_wait() {
    let stage = Stage::built(|builder| builder.max_concurrent_fetches(4), |_| {}).await;
    stage.source.hold();
    for n in 0..10 {
        another(&stage, "greedy", &format!("p{n}"), &format!("g{n}.test")).await;
        another(&stage, "modest", &format!("p{n}"), &format!("m{n}.test")).await;
    }
    let blocker = reads(&stage, [("acme".to_owned(), "main".to_owned())]);
    settle().await;
    let names = |tenant: &'static str| (0..10).map(move |n| (tenant.to_owned(), format!("p{n}")));
    let mut all = reads(&stage, names("modest").take(1));
    all.extend(reads(&stage, names("greedy")));
    all.extend(reads(&stage, names("modest").skip(1)));
    settle().await;
    let hosts = |letter| move |host: &String| host.starts_with(letter);
    let flying = stage.source.flying().1;
    let count = |letter| flying.iter().filter(|(host, n)| hosts(letter)(host) && **n > 0).count();
    assert_eq!((count('g'), count('m')), (2, 1), "{flying:?}");
    stage.source.release();
    for read in all.into_iter().chain(blocker) {
        assert!(read.await.unwrap());
    }
}

#[tokio::test(start_paused = true)]
async fn no_caller_waits_longer_than_deadline_queue_included_and_the_flight_goes_on() {
    let stage = Stage::built(
        |builder| builder.max_concurrent_fetches(1),
        |of| of.retry_policy = RetryPolicy { deadline: secs(3), ..RetryPolicy::default() },
    )
    .await;
    stage.source.set_at("hung.test", Answer::Hang);
    another(&stage, "slow", "main", "hung.test").await; // eight seconds
    let slow = reads(&stage, [("slow".to_owned(), "main".to_owned())]);
    settle().await;
    let (time, error) = took(stage.resolve()).await;
    assert_eq!((time, error.unwrap_err().kind()), (secs(3), ErrorKind::KeysUnavailable));
    for read in slow {
        assert!(!read.await.unwrap());
    }
    stage.landed().await;
    assert_eq!(at_once(stage.resolve()).unwrap().keys.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_flights_age_for_stale_wait_counts_from_when_it_was_asked_for() {
    let stage = Stage::built(|builder| builder.max_concurrent_fetches(1), |_| {}).await;
    stage.resolve().await.unwrap();
    stage.source.set_at("hung.test", Answer::Hang);
    another(&stage, "slow", "main", "hung.test").await;
    let _slow = reads(&stage, [("slow".to_owned(), "main".to_owned())]);
    settle().await;
    let (time, set) = took(stage.pass(310).resolve()).await;
    assert_eq!((time, set.unwrap().keys.len()), (millis(250), 2));
    assert_eq!(at_once(stage.resolve()).unwrap().keys.len(), 2);
    assert_eq!(stage.source.asked_at("idp.test"), 1, "it is still in the queue");
}

#[tokio::test(start_paused = true)]
async fn those_who_have_nothing_go_before_due_refreshes_and_these_before_missing_kids() {
    let stage = Stage::built(|builder| builder.max_concurrent_fetches(1), |_| {}).await;
    for host in ["due", "kid"] {
        let mut of = registration(host, "main", &format!("{host}.test"));
        of.refresh_mode = RefreshMode::OnDemand;
        stage.registry.register(of).await.unwrap();
        stage.registry.resolve(host, "main", None).await.unwrap();
        stage.pass(if host == "due" { 200 } else { 80 });
    }
    another(&stage, "cold", "main", "cold.test").await;
    let before = stage.source.asked();
    stage.source.hold();
    let blocker = reads(&stage, [("acme".to_owned(), "main".to_owned())]);
    stage.source.wait_for(before + 1).await;
    let kid = stage.registry.clone();
    let kid = tokio::spawn(async move { kid.resolve("kid", "main", Some("zzz")).await.is_ok() });
    settle().await;
    at_once(stage.registry.resolve("due", "main", None)).unwrap();
    settle().await;
    let cold = reads(&stage, [("cold".to_owned(), "main".to_owned())]);
    settle().await;
    stage.source.release();
    for read in blocker.into_iter().chain(cold).chain([kid]) {
        assert!(read.await.unwrap());
    }
    stage.source.wait_for(before + 4).await;
    let order: Vec<_> = (before + 1..before + 4)
        .map(|index| stage.source.request(index).url.host_str().unwrap().to_owned())
        .collect();
    assert_eq!(order, ["cold.test", "due.test", "kid.test"]);
}
