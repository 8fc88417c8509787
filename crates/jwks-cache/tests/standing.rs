//! What a reader gets: every row of the table of standings, and what is said of flights that are shared,
//! dropped, lost or ended.
#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

mod stage;

use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Waker};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use jwks_cache::{
    Clock as _, Error, ErrorKind, IdentityProviderRegistration, ProviderState, RefreshMode, Registry, What,
};
use jwks_cache_testkit::{IdentityProvider, ManualClock};
use stage::scripted::{Answer, Stage, events, keys, registration};
use stage::{PROVIDER, TENANT, at_once, kids, secs, settle, took};
use tokio::task::JoinHandle;

const MORE: &[(&str, u8)] = &[("a", 1), ("b", 2), ("c", 3)];

#[tokio::test]
async fn fresh_keys_are_answered_at_once_and_start_nothing() {
    let stage = Stage::warm(|registration| registration.refresh_mode = RefreshMode::OnDemand).await;
    stage.pass(269);
    let (cost, ()) = stage
        .cost(async {
            for _ in 0..100 {
                assert_eq!(kids(&at_once(stage.resolve()).unwrap()), ["a", "b"]);
                at_once(stage.key("a")).unwrap();
            }
        })
        .await;
    assert_eq!(cost, 0);
}

#[tokio::test]
async fn due_keys_are_answered_at_once_and_one_flight_starts_in_the_background() {
    let stage = Stage::warm(|_| {}).await;
    stage.source.set(keys(MORE, "max-age=300"));
    stage.source.hold();
    stage.pass(270);
    for _ in 0..50 {
        assert_eq!(at_once(stage.resolve()).unwrap().keys.len(), 2);
        settle().await;
    }
    assert_eq!(stage.source.asked(), 2);
    stage.source.release();
    stage.landed().await;
    assert_eq!(at_once(stage.resolve()).unwrap().keys.len(), 3);
}

#[tokio::test]
async fn due_keys_start_no_flight_while_backoff_runs() {
    let stage = Stage::warm(|registration| {
        registration.refresh_mode = RefreshMode::OnDemand;
        registration.retry_policy.initial_backoff = secs(2);
    })
    .await;
    stage.source.set(Answer::Status(404, None));
    at_once(stage.pass(270).resolve()).unwrap();
    stage.landed().await;
    assert_eq!(stage.source.asked(), 2);
    stage.clock.advance(Duration::from_millis(1_900));
    let (cost, set) = stage.cost(async { at_once(stage.resolve()) }).await;
    assert_eq!((cost, set.unwrap().keys.len()), (0, 2), "half of 4 s at least");
    let (cost, set) = stage.pass(3).cost(async { at_once(stage.resolve()) }).await;
    assert_eq!((cost, set.unwrap().keys.len()), (1, 2));
}

#[tokio::test]
async fn expired_keys_are_answered_at_once_when_a_flight_failed_in_the_last_ten_minutes() {
    let stage = Stage::warm(|registration| {
        registration.refresh_mode = RefreshMode::OnDemand;
        registration.stale_while_error = secs(3_600);
    })
    .await;
    let mut subscription = stage.registry.subscribe();
    stage.source.set(Answer::Status(404, None));
    stage.pass(299).resolve().await.unwrap(); // fails in the background, before expiry
    stage.landed().await;
    stage.source.hold();
    stage.pass(100);
    let (cost, ()) = stage
        .cost(async {
            for _ in 0..10 {
                assert_eq!(at_once(stage.resolve()).unwrap().keys.len(), 2);
                settle().await;
            }
        })
        .await;
    assert_eq!(cost, 1, "one flight in the background");
    assert!(stage.metric("jwks_cache_stale_total").await >= 10.0, "counted as stale");
    assert!(stage.status().await.stale_serve_ratio > 0.5);
    let stale = |events: Vec<What>| events.iter().filter(|what| matches!(what, What::ServingStale)).count();
    assert_eq!(stale(events(&mut subscription)), 1, "and announced once");
    stage.source.release();
    stage.landed().await;
    stage.pass(599);
    at_once(stage.resolve()).unwrap();
    stage.landed().await;
    stage.pass(600).source.set(keys(MORE, "max-age=300"));
    assert_eq!(stage.resolve().await.unwrap().keys.len(), 3, "ten minutes later the reader waits again");
}

#[tokio::test]
async fn expired_keys_are_answered_at_once_while_backoff_runs() {
    let stage = Stage::warm(|registration| {
        registration.stale_while_error = secs(36_000);
        registration.refresh_mode = RefreshMode::OnDemand;
        registration.retry_policy.initial_backoff = secs(3_600);
        registration.retry_policy.max_backoff = secs(3_600);
    })
    .await;
    stage.source.set(Answer::Status(404, None));
    stage.pass(400).resolve().await.unwrap();
    let (cost, set) = stage.pass(100).cost(async { at_once(stage.resolve()) }).await;
    assert_eq!((cost, set.unwrap().keys.len()), (0, 2));
}

#[tokio::test]
async fn expired_keys_otherwise_wait_for_the_flight_and_get_its_keys() {
    let stage = Stage::warm(|_| {}).await;
    stage.source.set(keys(MORE, "max-age=300"));
    let (cost, set) = stage.pass(310).cost(stage.resolve()).await;
    assert_eq!((cost, set.unwrap().keys.len()), (1, 3));
}

#[tokio::test(start_paused = true)]
async fn expired_keys_are_served_when_the_flight_fails() {
    let stage = Stage::warm(|_| {}).await;
    stage.source.set(Answer::Status(404, None));
    let (time, set) = took(stage.pass(310).resolve()).await;
    assert_eq!(set.unwrap().keys.len(), 2);
    assert!(time < Duration::from_millis(250), "as soon as it failed: {time:?}");
}

#[tokio::test(start_paused = true)]
async fn expired_keys_are_served_when_the_flight_is_stale_wait_old_and_it_goes_on() {
    let stage = Stage::warm(|registration| registration.stale_wait = Duration::from_millis(700)).await;
    stage.source.set(keys(MORE, "max-age=300"));
    stage.source.hold();
    stage.pass(310);
    let (time, set) = took(stage.resolve()).await;
    assert_eq!((time, set.unwrap().keys.len()), (Duration::from_millis(700), 2));
    assert_eq!(at_once(stage.resolve()).unwrap().keys.len(), 2, "a flight older than that is not waited for");
    stage.source.release();
    stage.landed().await;
    assert_eq!((at_once(stage.resolve()).unwrap().keys.len(), stage.source.asked()), (3, 2));
}

#[tokio::test(start_paused = true)]
async fn a_reader_who_comes_late_waits_for_the_rest_of_stale_wait_only() {
    let stage = Stage::warm(|registration| registration.stale_wait = Duration::from_millis(700)).await;
    stage.source.set(Answer::Hang);
    stage.pass(310);
    let (first, second) = tokio::join!(took(stage.resolve()), async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        took(stage.resolve()).await
    });
    assert_eq!((first.0, second.0), (Duration::from_millis(700), Duration::from_millis(200)));
}

#[tokio::test]
async fn with_nothing_held_the_reader_gets_the_flights_keys_or_its_error() {
    let stage = Stage::new().await;
    stage.source.set(Answer::Status(404, None));
    let error = stage.resolve().await.unwrap_err();
    assert!(matches!(&error, Error::HttpStatus { status, .. } if status.as_u16() == 404), "{error}");
    assert_eq!(error.kind(), ErrorKind::KeysUnavailable);
    stage.source.set(keys(MORE, "max-age=300"));
    assert_eq!(stage.resolve().await.unwrap().keys.len(), 3, "no wait after the first failure");
}

#[tokio::test]
async fn with_nothing_held_readers_inside_the_backoff_get_the_last_error_at_once() {
    let stage = Stage::new().await;
    stage.source.set(Answer::Status(404, None));
    for _ in 0..2 {
        stage.resolve().await.unwrap_err();
    }
    let (cost, error) = stage.cost(async { at_once(stage.resolve()) }).await;
    assert_eq!(cost, 0);
    assert_eq!(error.unwrap_err().status().map(|status| status.as_u16()), Some(404));
    stage.source.set(keys(MORE, "max-age=300"));
    stage.pass(1).resolve().await.unwrap();
}

#[tokio::test]
async fn past_the_stale_window_nothing_is_served() {
    let stage = Stage::warm(|_| {}).await;
    stage.source.set(Answer::Status(404, None));
    stage.pass(359).resolve().await.unwrap();
    stage.landed().await;
    stage.pass(1).resolve().await.unwrap_err();
    stage.source.set(keys(MORE, "max-age=300"));
    stage.pass(11).resolve().await.unwrap();
}

#[tokio::test]
async fn past_max_trust_age_nothing_is_served_whatever_else_is_set() {
    let stage = Stage::with(|registration| {
        registration.max_trust_age = Some(secs(1_000));
        registration.stale_while_error = secs(86_400);
    })
    .await;
    stage.source.set(keys(MORE, "max-age=86400, stale-if-error=864000"));
    stage.resolve().await.unwrap();
    stage.source.set(Answer::Status(404, None));
    at_once(stage.pass(999).resolve()).unwrap();
    stage.landed().await;
    stage.pass(1).resolve().await.unwrap_err();
    stage.key("a").await.unwrap_err();
}

/// Whether keys with these headers are still served, without a flight that works, so long after they came.
async fn served(strict: bool, window: u64, cache_control: &str, seconds: u64) -> bool {
    let stage = Stage::with(|registration| {
        registration.stale_while_error = secs(window);
        registration.http_strict = strict;
        registration.refresh_mode = RefreshMode::OnDemand;
    })
    .await;
    stage.source.set(keys(MORE, cache_control));
    stage.resolve().await.unwrap();
    stage.source.set(Answer::Status(404, None));
    stage.pass(seconds).resolve().await.is_ok()
}

#[tokio::test]
async fn the_stale_window_is_the_operators_extended_by_stale_if_error() {
    // window, header, the second it ends
    let table = [
        (60, "max-age=300", 360),
        (0, "max-age=300", 300),
        (60, "max-age=300, stale-if-error=1000", 1_300),
        (60, "max-age=300, stale-if-error=10", 360),
        (0, "max-age=300, stale-if-error=1000", 300),
        (60, "max-age=300, stale-if-error=1000, must-revalidate", 360),
        (60, "max-age=300, no-cache, stale-if-error=1000", 90),
        (60, "max-age=300, no-store, stale-if-error=1000", 90),
        (60, "max-age=300, stale-if-error=999999999", 172_800),
    ];
    for (window, header, end) in table {
        assert!(served(false, window, header, end - 1).await, "{header:?} with {window}, before {end}");
        assert!(!served(false, window, header, end).await, "{header:?} with {window}, at {end}");
    }
}

#[tokio::test]
async fn http_strict_obeys_every_directive_to_the_letter() {
    // header, the second it ends
    let table = [
        ("max-age=300", 360),
        ("max-age=300, must-revalidate", 300),
        ("max-age=5, must-revalidate", 5), // no floor
        ("max-age=5", 65),                 // the window is allowed
        ("public", 60),                    // no default_ttl
        ("max-age=300, stale-if-error=1000", 1_300),
    ];
    for (header, end) in table {
        assert!(served(true, 60, header, end - 1).await, "{header:?}, before {end}");
        assert!(!served(true, 60, header, end).await, "{header:?}, at {end}");
    }
    for header in ["no-cache", "no-store", "max-age=300, no-cache"] {
        assert!(!served(true, 60, header, 0).await, "{header:?}");
    }
}

#[tokio::test]
async fn http_strict_keeps_every_limit_on_requests() {
    let stage = Stage::with(|registration| registration.http_strict = true).await;
    stage.source.set(keys(MORE, "no-cache"));
    stage.source.hold();
    let reads = (0..100).map(|_| stage.registry.clone()).map(|registry| {
        tokio::spawn(async move { registry.resolve("acme", "main", None).await.map(|set| set.keys.len()) })
    });
    let reads: Vec<_> = reads.collect();
    settle().await;
    stage.source.release();
    for read in reads {
        assert_eq!(read.await.unwrap().unwrap(), 3, "each is answered by the flight it joined");
    }
    assert_eq!(stage.source.asked(), 1);
    stage.source.set(Answer::Status(404, None));
    for _ in 0..100 {
        stage.resolve().await.unwrap_err();
    }
    assert_eq!(stage.source.asked(), 3, "the second failure starts the backoff");
}

/// What a wall may be set to, from where it stands: ten years off, and as far as a calendar goes.
const WALLS: [fn(DateTime<Utc>) -> DateTime<Utc>; 4] = [
    |wall| wall - TimeDelta::days(3_650),
    |wall| wall + TimeDelta::days(3_650),
    |_| DateTime::<Utc>::MIN_UTC,
    |_| DateTime::<Utc>::MAX_UTC,
];

#[tokio::test]
async fn a_wall_that_is_set_moves_neither_standing_nor_the_due_refresh() {
    for (row, wall) in WALLS.into_iter().enumerate() {
        let stage = Stage::warm(|registration| registration.refresh_mode = RefreshMode::OnDemand).await;
        stage.clock.set_wall(wall(stage.clock.wall()));
        let due = stage.status().await.next_refresh.map(|due| due - stage.clock.wall());
        // Beyond the calendar no status can tell it.
        assert_eq!(due, (row < 3).then_some(TimeDelta::seconds(270)), "{row}");
        let look = async || {
            assert_eq!(kids(&at_once(stage.resolve()).unwrap()), ["a", "b"]);
            at_once(stage.key("a")).unwrap();
        };
        let (cost, ()) = stage.pass(269).cost(look()).await;
        assert_eq!((cost, stage.status().await.state), (0, ProviderState::Ready), "{row}");
        let (cost, ()) = stage.pass(1).cost(look()).await;
        assert_eq!(cost, 1, "{row}: due when it was due");
        stage.landed().await;
        // The lifetime that began under that wall ends at its moment, too.
        stage.source.set(Answer::Status(404, None));
        stage.pass(359).resolve().await.unwrap();
        stage.landed().await;
        stage.pass(1).resolve().await.unwrap_err();
    }
}

#[tokio::test]
async fn a_wall_that_is_set_moves_no_timer() {
    let stage = async || {
        let always = |registration: &mut IdentityProviderRegistration| {
            registration.refresh_mode = RefreshMode::Always;
        };
        let stage = Stage::built(|builder| builder.seed(7), always).await;
        stage.resolve().await.unwrap();
        stage
    };
    let undisturbed = stage().await;
    let mut disturbed = Vec::new();
    for wall in WALLS {
        let stage = stage().await;
        stage.clock.set_wall(wall(stage.clock.wall()));
        disturbed.push(stage);
    }
    for second in 1..=600 {
        undisturbed.pass(1);
        for stage in &disturbed {
            stage.pass(1);
        }
        settle().await;
        for stage in &disturbed {
            assert_eq!(stage.source.asked(), undisturbed.source.asked(), "after {second} s");
        }
    }
    assert!(undisturbed.source.asked() >= 3, "timers did run");
}

#[tokio::test]
async fn after_a_suspension_nothing_is_served_that_outlived_its_window() {
    for mode in [RefreshMode::OnDemand, RefreshMode::WhileInUse, RefreshMode::Always] {
        let warm = async || Stage::warm(|registration| registration.refresh_mode = mode).await;
        let night = 6 * 3_600;

        let stage = warm().await;
        stage.source.set(keys(MORE, "max-age=300"));
        let (cost, set) = stage.pass(night).cost(stage.resolve()).await;
        assert_eq!((cost, set.unwrap().keys.len()), (1, 3), "{mode:?}: one flight, not one a lifetime");

        let stage = warm().await;
        stage.source.set(keys(&[("c", 3)], "max-age=300"));
        stage.source.hold();
        stage.pass(night);
        let mut read = pin!(stage.resolve());
        let first = read.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(first.is_pending(), "{mode:?}: it waits for newer keys");
        settle().await;
        stage.source.release();
        assert_eq!(kids(&read.await.unwrap()), ["c"], "{mode:?}");

        let stage = warm().await;
        stage.source.set(Answer::Status(404, None));
        stage.pass(night).resolve().await.unwrap_err();
        stage.key("a").await.unwrap_err();
    }
}

#[tokio::test]
async fn callers_share_one_flight_in_success_and_in_failure() {
    for (answer, want) in
        [(keys(MORE, ""), true), (Answer::Refused, false), (Answer::Status(500, None), false)]
    {
        let stage = Stage::with(|registration| {
            registration.retry_policy.initial_backoff = Duration::from_millis(1);
            registration.retry_policy.max_backoff = Duration::from_millis(1);
        })
        .await;
        stage.source.set(answer);
        stage.source.hold();
        let calls: Vec<_> = (0..1_000)
            .map(|_| stage.registry.clone())
            .map(|registry| tokio::spawn(async move { registry.resolve("acme", "main", None).await }))
            .collect();
        settle().await;
        stage.source.release();
        for call in calls {
            let got = call.await.unwrap();
            assert_eq!(got.is_ok(), want);
            if let Err(error) = got {
                assert_eq!((error.provider(), error.attempt()), (Some(("acme", "main")), Some(3)));
            }
        }
        assert_eq!(stage.source.asked(), if want { 1 } else { 3 });
        assert_eq!(stage.status().await.error_count, u32::from(!want));
    }
}

#[tokio::test]
async fn a_caller_dropped_at_any_await_changes_nothing_for_the_others() {
    for polls in 0..12 {
        let stage = Stage::new().await;
        stage.source.hold();
        let (registry, other) = (stage.registry.clone(), stage.registry.clone());
        {
            let mut dropped = pin!(registry.resolve("acme", "main", Some("zzz")));
            for _ in 0..polls {
                if dropped.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready() {
                    break;
                }
                settle().await;
                if polls > 6 {
                    stage.source.release();
                }
            }
        }
        let waits = tokio::spawn(async move { other.resolve("acme", "main", None).await });
        settle().await;
        stage.source.release();
        assert_eq!(waits.await.unwrap().unwrap().keys.len(), 2, "dropped after {polls} polls");
        stage.landed().await;
        assert!(stage.source.asked() <= 2, "one flight, and one for the kid");
    }
}

#[tokio::test]
async fn a_flight_lands_although_every_caller_left() {
    let stage = Stage::new().await;
    stage.source.hold();
    for _ in 0..3 {
        let call = tokio::spawn({
            let registry = stage.registry.clone();
            async move { registry.resolve("acme", "main", None).await }
        });
        settle().await;
        call.abort();
    }
    stage.source.release();
    stage.landed().await;
    assert_eq!(at_once(stage.resolve()).unwrap().keys.len(), 2);
    assert_eq!(stage.source.asked(), 1);
}

/// What a reader gets who came while keys were held, and whose wait they did not outlive.
async fn waits(stage: &Stage, kid: Option<&'static str>) -> JoinHandle<jwks_cache::Result<Vec<String>>> {
    let registry = stage.registry.clone();
    let reader = tokio::spawn(async move {
        let set = registry.resolve(TENANT, PROVIDER, kid).await?;
        Ok(kids(&set))
    });
    settle().await;
    assert!(!reader.is_finished(), "it has to wait");
    reader
}

/// Trusted for a thousand seconds, of which one is left, while the source says nothing.
async fn about_to_lose_trust() -> Stage {
    let stage = Stage::with(|registration| {
        registration.max_trust_age = Some(secs(1_000));
        registration.refresh_mode = RefreshMode::OnDemand;
    })
    .await;
    stage.source.set(keys(&[("a", 1), ("b", 2)], "max-age=86400"));
    stage.resolve().await.unwrap();
    stage.source.hold();
    stage.pass(999);
    stage
}

#[tokio::test(start_paused = true)]
async fn keys_whose_trust_ends_while_a_kid_is_waited_for_are_not_served() {
    let stage = about_to_lose_trust().await;
    let (time, answer) = took(async {
        let reader = waits(&stage, Some("zzz")).await;
        stage.pass(1);
        reader.await.unwrap()
    })
    .await;
    assert_eq!(answer.unwrap_err().kind(), ErrorKind::KeysUnavailable);
    assert!(time <= secs(8), "within the deadline: {time:?}");

    let stage = about_to_lose_trust().await;
    let reader = waits(&stage, Some("zzz")).await;
    stage.pass(1).source.set(keys(MORE, "max-age=300"));
    tokio::time::sleep(secs(3)).await; // longer than it waits for a kid
    stage.source.release();
    reader.await.unwrap().expect("what is left of the deadline is for new keys");
}

#[tokio::test(start_paused = true)]
async fn keys_whose_stale_window_ends_during_stale_wait_are_not_served() {
    let expiring = async || {
        let stage = Stage::warm(|registration| registration.refresh_mode = RefreshMode::OnDemand).await;
        stage.source.hold();
        stage.pass(359);
        stage
    };
    let stage = expiring().await;
    let reader = waits(&stage, None).await;
    stage.pass(1);
    let (time, answer) = took(reader).await;
    assert_eq!(answer.unwrap().unwrap_err().kind(), ErrorKind::KeysUnavailable);
    assert!(time <= secs(8), "within the deadline: {time:?}");

    let stage = expiring().await;
    let reader = waits(&stage, None).await;
    stage.pass(1);
    tokio::time::sleep(secs(1)).await; // longer than it waits for fresher keys
    stage.source.release();
    assert_eq!(reader.await.unwrap().unwrap(), ["a", "b"], "received anew");

    let stage = expiring().await;
    stage.source.set(Answer::Status(404, None));
    let reader = waits(&stage, None).await;
    let (cost, answer) = stage
        .cost(async {
            stage.pass(1).source.release();
            reader.await.unwrap()
        })
        .await;
    assert!(matches!(answer, Err(Error::HttpStatus { .. })) && cost == 0, "{answer:?}, {cost} more");
}

#[tokio::test(start_paused = true)]
async fn who_waited_gets_nothing_of_a_source_that_was_replaced_meanwhile() {
    let stage = Stage::warm(|_| {}).await;
    stage.source.hold();
    let reader = waits(&stage, Some("zzz")).await;
    stage.source.set_at("other.test", keys(&[("other", 3)], "max-age=300"));
    stage.registry.register(registration(TENANT, PROVIDER, "other.test")).await.unwrap();
    tokio::time::sleep(secs(3)).await; // longer than it waits for a kid
    stage.source.release();
    assert_eq!(reader.await.unwrap().unwrap(), ["other"]);
}

/// What a reader of nothing gets to whom its flight brought `a` and `b`, when this happens just before it looks.
async fn after_landing(meanwhile: impl AsyncFnOnce(&Stage)) -> jwks_cache::Result<Vec<String>> {
    let stage = Stage::new().await;
    let mut reader = pin!(stage.resolve());
    assert!(reader.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    stage.landed().await;
    meanwhile(&stage).await;
    reader.await.map(|set| kids(&set))
}

#[tokio::test]
async fn what_changes_before_the_reader_looks_is_seen() {
    assert_eq!(after_landing(async |_| {}).await.unwrap(), ["a", "b"]);
    let denied = after_landing(async |stage| {
        stage.registry.deny_key(TENANT, PROVIDER, "a").await.unwrap();
    });
    assert_eq!(denied.await.unwrap(), ["b"]);
    let moved = after_landing(async |stage| {
        stage.source.set_at("other.test", keys(&[("other", 3)], "max-age=300"));
        stage.registry.register(registration(TENANT, PROVIDER, "other.test")).await.unwrap();
    });
    assert_eq!(moved.await.unwrap(), ["other"]);
    let gone = after_landing(async |stage| {
        stage.registry.unregister(TENANT, PROVIDER).await.unwrap();
    });
    assert!(matches!(gone.await, Err(Error::NotRegistered { .. })));
    let ended = after_landing(async |stage| {
        stage.pass(360).source.set(keys(MORE, "max-age=300"));
    });
    assert_eq!(ended.await.unwrap(), ["a", "b", "c"], "the first ones had ended");
}

#[tokio::test]
async fn what_is_granted_no_time_at_all_answers_those_who_waited_for_it() {
    let stage = Stage::with(|registration| registration.http_strict = true).await;
    stage.source.set(keys(MORE, "no-store"));
    for _ in 0..3 {
        let (cost, set) = stage.cost(stage.resolve()).await;
        assert_eq!((cost, kids(&set.unwrap()).len()), (1, 3));
    }
    let (cost, set) = stage.cost(stage.resolve_kid("zzz")).await;
    assert_eq!((cost, kids(&set.unwrap()).len()), (1, 3));
}

#[tokio::test]
async fn a_failed_flight_removes_nothing_and_shortens_nothing() {
    let stage = Stage::warm(|registration| registration.stale_while_error = Duration::ZERO).await;
    let before = stage.status().await;
    for answer in [
        Answer::Refused,
        Answer::Status(404, None),
        stage::scripted::body("<html>", "max-age=1"),
        stage::scripted::body(r#"{"keys":[]}"#, "max-age=1"),
        Answer::Panic,
    ] {
        stage.source.set(answer.clone());
        stage.pass(1).refresh_and_wait().await.unwrap_err();
        let after = stage.status().await;
        assert_eq!(
            (after.expires_at, after.last_refresh),
            (before.expires_at, before.last_refresh),
            "{answer:?}"
        );
        assert_eq!(kids(&at_once(stage.resolve()).unwrap()), ["a", "b"]);
    }
}

#[tokio::test]
async fn a_flight_that_panics_is_counted_and_the_provider_recovers() {
    let stage = Stage::new().await;
    stage.source.push(Answer::Panic);
    let error = stage.resolve().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::KeysUnavailable);
    assert_eq!(stage.metric("jwks_cache_lost_flights_total").await, 1.0);
    assert_eq!(stage.resolve().await.unwrap().keys.len(), 2);
}

#[tokio::test]
async fn a_failure_is_answered_without_the_network_for_negative_cache_ttl() {
    let stage = Stage::with(|registration| registration.negative_cache_ttl = secs(30)).await;
    stage.source.set(Answer::Status(404, None));
    stage.resolve().await.unwrap_err();
    stage.pass(29);
    let (cost, ()) = stage
        .cost(async {
            for _ in 0..100 {
                at_once(stage.resolve()).unwrap_err();
                at_once(stage.key("a")).unwrap_err();
            }
        })
        .await;
    assert_eq!(cost, 0);
    stage.source.set(keys(MORE, ""));
    assert_eq!(stage.pass(1).resolve().await.unwrap().keys.len(), 3);
}

#[tokio::test]
async fn hits_stale_answers_misses_and_failures_are_counted_apart() {
    let stage = Stage::with(|registration| registration.refresh_mode = RefreshMode::OnDemand).await;
    stage.source.push(Answer::Status(404, None));
    stage.resolve().await.unwrap_err();
    stage.resolve().await.unwrap(); // waited: a miss
    stage.resolve().await.unwrap();
    stage.key("a").await.unwrap();
    stage.source.set(Answer::Status(404, None));
    stage.pass(310).resolve().await.unwrap(); // a hit that is stale
    for (name, want) in
        [("requests", 5.0), ("hits", 3.0), ("misses", 1.0), ("stale", 1.0), ("failed_lookups", 1.0)]
    {
        assert_eq!(stage.metric(&format!("jwks_cache_{name}_total")).await, want, "{name}");
    }
    assert_eq!(stage.status().await.hit_rate, 0.6);
}

#[tokio::test]
async fn dropping_the_last_handle_ends_its_tasks() {
    for airborne in [false, true] {
        let stage = Stage::with(|registration| registration.refresh_mode = RefreshMode::Always).await;
        let Stage { source, registry, clock } = stage;
        registry.resolve("acme", "main", None).await.unwrap();
        if airborne {
            source.hold();
            clock.advance(secs(301));
            source.wait_for(2).await;
        }
        let handle = registry.provider("acme", "main").unwrap();
        drop(registry);
        settle().await;
        assert!(Arc::strong_count(&source) > 1, "a handle on a provider is a handle");
        drop(handle);
        for _ in 0..50 {
            settle().await;
        }
        assert_eq!(Arc::strong_count(&source), 1, "with a flight in the air: {airborne}");
    }
}

#[tokio::test]
async fn shutdown_tells_those_who_wait_and_still_serves_what_is_held() {
    let stage = Stage::new().await;
    stage.source.hold();
    let waits = tokio::spawn({
        let registry = stage.registry.clone();
        async move { registry.resolve("acme", "main", None).await }
    });
    stage.source.wait_for(1).await;
    stage.registry.shutdown().await;
    assert_eq!(waits.await.unwrap().unwrap_err().kind(), ErrorKind::KeysUnavailable);
    let stage = Stage::warm(|_| {}).await;
    stage.registry.shutdown().await;
    at_once(stage.pass(290).resolve()).unwrap();
    stage.pass(600).resolve().await.unwrap_err();
    settle().await;
    assert_eq!(stage.source.asked(), 1);
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

#[test]
fn a_static_registry_works_in_several_runtimes_one_after_another() {
    static CLOCK: LazyLock<ManualClock> = LazyLock::new(ManualClock::new);
    static REGISTRY: LazyLock<Registry> =
        LazyLock::new(|| Registry::builder().require_https(false).clock(Arc::new(CLOCK.clone())).build());
    let idp = IdentityProvider::builder().cache_control("max-age=300").clock(Arc::new(CLOCK.clone())).start();
    for round in 0..5 {
        // Each leaves behind a dead connection, a dead timer, and at times a dead flight.
        runtime().block_on(async {
            if round == 0 {
                let mut of = IdentityProviderRegistration::new("acme", "main", idp.jwks_url()).unwrap();
                of.require_https = false;
                REGISTRY.register(of).await.unwrap();
            }
            let kid = idp.signing_kid();
            REGISTRY.key("acme", "main", Some(&kid), jwks_cache::Algorithm::ES256).await.unwrap();
            idp.rotate();
            CLOCK.advance(secs(301));
            let set = REGISTRY.resolve("acme", "main", None).await.unwrap();
            assert_eq!(set.keys.len(), round + 2, "round {round}");
        });
        CLOCK.advance(secs(301));
        if round % 2 == 1 {
            let gate = idp.origin().hold("/jwks.json");
            let before = idp.jwks_hits();
            runtime().block_on(async {
                let _ = REGISTRY.refresh("acme", "main").await;
                idp.origin().wait_for_hits("/jwks.json", before + 1).await;
            });
            gate.release();
        }
    }
}

#[test]
fn those_who_wait_for_a_runtime_that_goes_away_start_afresh() {
    let clock = ManualClock::new();
    let source = stage::scripted::Script::new(&clock);
    source.set(keys(MORE, "max-age=300"));
    source.hold();
    let registry = Registry::builder().clock(Arc::new(clock)).fetcher(source.clone()).build();
    let (first, second) = (runtime(), runtime());
    first.block_on(async {
        registry.register(registration("acme", "main", "idp.test")).await.unwrap();
        let call = registry.clone();
        tokio::spawn(async move { call.resolve("acme", "main", None).await });
        source.wait_for(1).await;
    });
    let call = registry.clone();
    let waits = second.spawn(async move { call.resolve("acme", "main", None).await });
    second.block_on(settle()); // it waits for the first runtime's flight
    drop(first);
    source.release();
    assert_eq!(second.block_on(waits).unwrap().unwrap().keys.len(), 3);
    assert_eq!(source.asked(), 2);
}

#[test]
fn the_timer_goes_on_in_the_next_runtime() {
    let clock = ManualClock::new();
    let source = stage::scripted::Script::new(&clock);
    source.set(keys(MORE, "max-age=300"));
    let registry = Registry::builder().clock(Arc::new(clock.clone())).fetcher(source.clone()).build();
    for round in 1..4 {
        runtime().block_on(async {
            if round == 1 {
                let mut of = registration("acme", "main", "idp.test");
                of.refresh_mode = RefreshMode::Always;
                registry.register(of).await.unwrap();
            }
            registry.refresh_and_wait("acme", "main").await.unwrap();
            let before = source.asked();
            clock.advance(secs(270));
            source.wait_for(before + 1).await;
            clock.advance(secs(10));
            settle().await;
        });
    }
}

#[test]
fn a_read_while_a_runtime_shuts_down_blocks_nobody() {
    struct ReadsLate(Registry);
    impl Drop for ReadsLate {
        fn drop(&mut self) {
            at_once(self.0.resolve("acme", "main", None)).unwrap();
        }
    }
    let (done, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let clock = ManualClock::new();
        let source = stage::scripted::Script::new(&clock);
        source.set(keys(MORE, "max-age=300"));
        let registry = Registry::builder().clock(Arc::new(clock)).fetcher(source).build();
        runtime().block_on(async {
            registry.register(registration("acme", "main", "idp.test")).await.unwrap();
            registry.refresh_and_wait("acme", "main").await.unwrap();
        });
        let late = ReadsLate(registry);
        runtime().block_on(async {
            tokio::spawn(async move {
                let _late = late;
                std::future::pending::<()>().await;
            });
            settle().await;
        });
        done.send(()).unwrap();
    });
    told.recv_timeout(secs(20)).unwrap();
}
