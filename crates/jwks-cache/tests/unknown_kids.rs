//! A kid that is not held: what it may cost, how long it waits, and what is remembered of it.
#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

mod stage;

use std::time::Duration;

use jwks_cache::{Algorithm, Error, IdentityProviderRegistration, KeyError, RefreshMode, Registry};
use jwks_cache_testkit::{IdentityProvider, ManualClock, Token, split};
use stage::scripted::{Answer, Stage, keys, verifies};
use stage::{at_once, kids, secs, settle, took};

const MORE: &[(&str, u8)] = &[("a", 1), ("b", 2), ("c", 3)];

fn why<T>(result: Result<T, Error>) -> KeyError {
    match result {
        Err(Error::Key(why)) => why,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("a key was found"),
    }
}

fn long(of: &mut IdentityProviderRegistration) {
    of.refresh_mode = RefreshMode::OnDemand;
    of.default_ttl = secs(36_000);
}

/// Keys for hours, so that nothing but kids causes flights.
async fn stage() -> Stage {
    let stage = Stage::with(long).await;
    stage.source.set(keys(&[("a", 1), ("b", 2)], "max-age=36000"));
    stage.resolve().await.unwrap();
    stage
}

#[tokio::test]
async fn a_denied_kid_is_answered_at_once_and_starts_nothing() {
    let stage = stage().await;
    for id in ["a", "never-seen"] {
        stage.registry.deny_key("acme", "main", id).await.unwrap();
        let (cost, ()) = stage
            .cost(async {
                assert_eq!(why(at_once(stage.key(id))), KeyError::Denied);
                assert_eq!(kids(&at_once(stage.resolve_kid(id)).unwrap()), ["b"]);
            })
            .await;
        assert_eq!(cost, 0, "{id}");
    }
}

#[tokio::test]
async fn a_denied_kid_is_answered_at_once_where_nothing_is_held_too() {
    let stage = Stage::new().await;
    stage.registry.deny_key("acme", "main", "a").await.unwrap();
    let (cost, answer) = stage.cost(async { at_once(stage.key("a")) }).await;
    assert_eq!((cost, why(answer)), (0, KeyError::Denied));
}

#[tokio::test]
async fn a_kid_known_missing_is_answered_at_once_for_thirty_seconds_and_starts_nothing() {
    let stage = stage().await;
    assert_eq!(why(stage.key("zzz").await), KeyError::UnknownKid);
    assert_eq!(stage.source.asked(), 2);
    for pass in [0, 10, 19] {
        stage.pass(pass);
        let (cost, ()) = stage
            .cost(async {
                assert_eq!(why(at_once(stage.key("zzz"))), KeyError::UnknownKid);
                assert_eq!(kids(&at_once(stage.resolve_kid("zzz")).unwrap()), ["a", "b"]);
            })
            .await;
        assert_eq!(cost, 0);
    }
    let (cost, answer) = stage.pass(1).cost(stage.key("zzz")).await;
    assert_eq!((cost, why(answer)), (1, KeyError::UnknownKid), "then it is asked for again");
}

#[tokio::test]
async fn the_same_set_arriving_again_forgets_no_missing_kid() {
    let stage = stage().await;
    assert_eq!(why(stage.key("zzz").await), KeyError::UnknownKid);
    assert_eq!(why(stage.pass(10).key("yyy").await), KeyError::UnknownKid); // brings the set once more
    let (cost, _) = stage.pass(10).cost(stage.key("zzz")).await;
    assert_eq!(cost, 0);
}

#[tokio::test]
async fn an_unknown_kid_starts_a_flight_that_asks_past_caches() {
    let stage = stage().await;
    stage.source.set(keys(MORE, "max-age=36000"));
    assert!(verifies(&stage.key("c").await.unwrap(), 3));
    assert!(stage.source.request(1).bypass_caches && !stage.source.request(0).bypass_caches);
}

#[tokio::test]
async fn cache_control_no_cache_is_on_the_wire_for_a_missing_kid_only() {
    let clock = ManualClock::new();
    let idp = IdentityProvider::builder().clock(std::sync::Arc::new(clock.clone())).start();
    let registry = Registry::builder().require_https(false).clock(std::sync::Arc::new(clock.clone())).build();
    let mut of = IdentityProviderRegistration::new("acme", "main", idp.jwks_url()).unwrap();
    of.require_https = false;
    registry.register(of).await.unwrap();
    registry.resolve("acme", "main", None).await.unwrap();
    let kid = idp.rotate();
    registry.key("acme", "main", Some(&kid), Algorithm::ES256).await.unwrap();
    clock.advance(secs(1));
    registry.refresh_and_wait("acme", "main").await.unwrap();
    let sent: Vec<_> = idp.origin().requests("/jwks.json");
    let sent: Vec<_> = sent.iter().map(|request| request.header("cache-control")).collect();
    assert_eq!(sent, [None, Some("no-cache"), None]);
}

#[tokio::test]
async fn a_token_of_a_new_key_verifies_after_one_request_and_old_tokens_still_do() {
    let idp = IdentityProvider::builder().algorithm(Algorithm::ES256).start();
    let registry = Registry::builder().require_https(false).build();
    let of = IdentityProviderRegistration::new("acme", "main", idp.jwks_url()).unwrap();
    registry.register(of).await.unwrap();
    let verify = async |token: &str| {
        let (header, input, signature) = split(token).unwrap();
        let key = registry.key("acme", "main", header["kid"].as_str(), Algorithm::ES256).await.unwrap();
        key.verify(input.as_bytes(), &signature).unwrap();
    };
    let old = idp.mint(&Token::new());
    verify(&old).await;
    idp.rotate();
    verify(&idp.mint(&Token::new())).await;
    verify(&old).await;
    assert_eq!(idp.jwks_hits(), 2);
}

#[tokio::test]
async fn an_unknown_kid_waits_for_a_flight_that_runs_and_then_starts_its_own() {
    let stage = stage().await;
    stage.source.hold();
    stage.pass(1).refresh().await.unwrap();
    stage.source.wait_for(2).await;
    stage.source.set(keys(MORE, "max-age=36000"));
    let registry = stage.registry.clone();
    let call = tokio::spawn(async move { registry.key("acme", "main", Some("c"), Algorithm::EdDSA).await });
    settle().await;
    assert_eq!(stage.source.asked(), 2);
    stage.source.release();
    assert!(verifies(&call.await.unwrap().unwrap(), 3));
    assert_eq!(stage.source.asked(), 3, "the one that ran had begun too early");
}

#[tokio::test]
async fn an_unknown_kid_that_the_running_flight_brings_costs_nothing_more() {
    let stage = stage().await;
    stage.source.set(keys(MORE, "max-age=36000"));
    stage.source.hold();
    stage.pass(1).refresh().await.unwrap();
    let registry = stage.registry.clone();
    let call = tokio::spawn(async move { registry.key("acme", "main", Some("c"), Algorithm::EdDSA).await });
    settle().await;
    stage.source.release();
    assert!(verifies(&call.await.unwrap().unwrap(), 3));
    assert_eq!(stage.source.asked(), 2);
}

#[tokio::test]
async fn an_unknown_kid_whose_running_flight_fails_starts_its_own_unless_backoff_runs() {
    for (by_person, cost) in [(true, 1), (false, 0)] {
        let stage = stage().await;
        stage.source.set(Answer::Status(404, None));
        stage.source.hold();
        if by_person {
            stage.pass(1).refresh().await.unwrap(); // its failure starts no backoff
        } else {
            at_once(stage.pass(35_990).resolve()).unwrap();
        }
        stage.source.wait_for(2).await;
        stage.source.set(keys(MORE, "max-age=36000"));
        let registry = stage.registry.clone();
        let call =
            tokio::spawn(async move { registry.key("acme", "main", Some("c"), Algorithm::EdDSA).await });
        settle().await;
        stage.source.release();
        assert_eq!(call.await.unwrap().is_ok(), by_person);
        assert_eq!(stage.source.asked() - 2, cost);
    }
}

#[tokio::test]
async fn a_flood_costs_at_most_one_request_an_interval() {
    let stage = stage().await;
    for second in 0..60 {
        for n in 0..50 {
            assert_eq!(why(stage.key(&format!("bogus-{second}-{n}")).await), KeyError::UnknownKid);
        }
        stage.pass(1);
    }
    assert_eq!(stage.source.asked() - 1, 6, "six a minute");
}

#[tokio::test]
async fn the_interval_counts_from_the_last_attempt_so_an_outage_is_not_hammered() {
    let stage = Stage::with(|of| {
        long(of);
        of.retry_policy.initial_backoff = Duration::from_millis(1); // the interval alone holds it back
    })
    .await;
    stage.source.set(keys(&[("a", 1)], "max-age=36000"));
    stage.resolve().await.unwrap();
    stage.source.set(Answer::Status(404, None));
    for second in 0..60 {
        for n in 0..20 {
            assert_eq!(why(stage.key(&format!("bogus-{second}-{n}")).await), KeyError::UnknownKid);
        }
        stage.pass(1);
    }
    assert_eq!(stage.source.asked() - 1, 6);
}

#[tokio::test]
async fn a_failed_flight_for_a_kid_counts_in_the_backoff_like_any_other() {
    let stage = stage().await;
    stage.source.set(Answer::Status(404, None));
    for n in 1..=4 {
        let (cost, answer) = stage.pass(10).cost(stage.key(&format!("bogus-{n}"))).await;
        assert_eq!((cost, why(answer)), (1, KeyError::UnknownKid));
        assert_eq!(stage.status().await.error_count, n);
    }
    let before = stage.source.asked();
    for n in 0..60 {
        stage.pass(10).key(&format!("later-{n}")).await.unwrap_err();
    }
    assert!(stage.source.asked() - before < 15, "{} in ten minutes", stage.source.asked() - before);
}

#[tokio::test(start_paused = true)]
async fn a_flood_right_at_expiry_neither_delays_nor_starves_the_due_refresh() {
    // Seconds since the keys came: when they fall due, around their expiry, the last of the stale window.
    for (moment, fresh) in [(270, true), (299, true), (300, false), (301, false), (359, false)] {
        let stage = Stage::warm(|of| {
            of.refresh_mode = RefreshMode::OnDemand;
            of.kid_miss_interval = secs(3_600);
        })
        .await;
        let flood = |wave: &'static str| -> Vec<_> {
            (0..500)
                .map(|n| (stage.registry.clone(), format!("{wave}-{n}")))
                .map(|(registry, kid)| {
                    tokio::spawn(async move {
                        registry.key("acme", "main", Some(&kid), Algorithm::EdDSA).await.map(|_| ())
                    })
                })
                .collect()
        };
        let is_answered = async |flood: Vec<tokio::task::JoinHandle<Result<(), Error>>>| {
            for call in flood {
                assert_eq!(why(call.await.unwrap()), KeyError::UnknownKid, "at {moment} s");
            }
        };
        // All that made-up kids may cost, spent for the next hour.
        is_answered(flood("before")).await;
        assert_eq!(stage.source.asked(), 2);
        is_answered(flood("after")).await;
        assert_eq!(stage.source.asked(), 2);

        stage.source.set(keys(MORE, "max-age=300"));
        stage.source.hold();
        stage.pass(moment);
        let calls = flood("at-expiry");
        settle().await;
        assert_eq!(stage.source.asked(), 3, "at {moment} s: the refresh has begun");
        let registry = stage.registry.clone();
        let reader = tokio::spawn(async move { registry.resolve("acme", "main", None).await });
        settle().await;
        assert_eq!(reader.is_finished(), fresh, "at {moment} s");
        stage.source.release();
        let seen = reader.await.unwrap().unwrap().keys.len();
        assert_eq!(seen, if fresh { 2 } else { 3 }, "at {moment} s");
        is_answered(calls).await;
        stage.landed().await;
        assert_eq!(at_once(stage.resolve()).unwrap().keys.len(), 3);
        assert_eq!(stage.source.asked(), 3, "at {moment} s: and the flood costs nothing beside it");
    }
}

#[tokio::test]
async fn a_failed_flight_for_a_kid_does_not_delay_the_refresh_that_falls_due() {
    let stage = Stage::warm(|of| of.refresh_mode = RefreshMode::OnDemand).await;
    stage.source.set(Answer::Status(404, None));
    stage.pass(269).key("bogus").await.unwrap_err();
    stage.source.set(keys(MORE, "max-age=300"));
    let (cost, _) = stage.pass(2).cost(async { at_once(stage.resolve()) }).await;
    assert_eq!(cost, 1, "the due refresh has a budget of its own");
    assert_eq!(at_once(stage.resolve()).unwrap().keys.len(), 3);
}

#[tokio::test]
async fn a_new_kid_is_found_during_a_flood_within_the_interval() {
    let stage = stage().await;
    stage.key("bogus-0").await.unwrap_err();
    stage.source.set(keys(MORE, "max-age=36000"));
    for second in 1..=10 {
        stage.pass(1);
        if stage.key("c").await.is_ok() {
            return;
        }
        for n in 0..50 {
            let _ = stage.key(&format!("bogus-{second}-{n}")).await;
        }
    }
    panic!("not found in ten seconds");
}

#[tokio::test]
async fn a_new_kid_without_an_attack_is_found_by_its_first_lookup() {
    let stage = stage().await;
    for (round, all) in [(0, MORE), (1, &[("c", 3), ("d", 4)])] {
        stage.pass(20).source.set(keys(all, "max-age=36000"));
        let (cost, key) = stage.cost(stage.key(if round == 0 { "c" } else { "d" })).await;
        assert_eq!(cost, 1);
        key.unwrap();
    }
}

#[tokio::test]
async fn every_caller_of_a_new_kid_shares_its_one_flight() {
    let stage = stage().await;
    stage.source.set(keys(MORE, "max-age=36000"));
    stage.source.hold();
    let calls: Vec<_> = (0..500)
        .map(|n| (stage.registry.clone(), if n % 2 == 0 { "c" } else { "zzz" }))
        .map(|(registry, kid)| {
            tokio::spawn(async move {
                (kid, registry.key("acme", "main", Some(kid), Algorithm::EdDSA).await.is_ok())
            })
        })
        .collect();
    settle().await;
    stage.source.release();
    for call in calls {
        let (kid, found) = call.await.unwrap();
        assert_eq!(found, kid == "c");
    }
    assert_eq!(stage.source.asked(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_kid_waits_kid_miss_wait_in_all_and_is_answered_from_what_is_held() {
    let stage = stage().await;
    stage.source.set(Answer::Hang);
    let (time, answer) = took(stage.key("zzz")).await;
    assert_eq!((time, why(answer)), (secs(2), KeyError::UnknownKid));
    let (time, set) = took(stage.resolve_kid("zzz")).await;
    assert_eq!(kids(&set.unwrap()), ["a", "b"]);
    assert!(time <= secs(2), "{time:?}");
    assert_eq!(stage.source.asked(), 2);
}

#[tokio::test]
async fn a_kid_is_remembered_only_when_a_flight_that_began_after_its_lookup_came_back_without_it() {
    let stage = stage().await;
    stage.source.set(Answer::Status(404, None));
    stage.key("c").await.unwrap_err(); // a failure says nothing about the kid
    stage.source.set(keys(MORE, "max-age=36000"));
    assert!(verifies(&stage.pass(10).key("c").await.unwrap(), 3));
    let stage = self::stage().await;
    stage.key("zzz").await.unwrap_err(); // the budget is used up
    stage.key("c").await.unwrap_err(); // so no flight told about this one
    stage.source.set(keys(MORE, "max-age=36000"));
    assert!(verifies(&stage.pass(10).key("c").await.unwrap(), 3));
}

#[tokio::test]
async fn a_cold_lookup_for_a_kid_costs_one_flight() {
    let stage = Stage::new().await;
    let (cost, answer) = stage.cost(stage.key("zzz")).await;
    assert_eq!((cost, why(answer)), (1, KeyError::UnknownKid));
    let (cost, answer) = stage.cost(async { at_once(stage.key("zzz")) }).await;
    assert_eq!((cost, why(answer)), (0, KeyError::UnknownKid), "that flight began after the lookup");
}

#[tokio::test]
async fn missing_kids_take_bounded_memory() {
    let stage = stage().await;
    stage.key("first").await.unwrap_err();
    stage.source.hold();
    stage.pass(10).refresh().await.unwrap(); // so that all of them are there before the flight for kids
    let calls: Vec<_> = (0..3_000)
        .map(|n| (stage.registry.clone(), format!("{n}-{}", "x".repeat(200))))
        .map(|(registry, kid)| {
            tokio::spawn(
                async move { registry.key("acme", "main", Some(&kid), Algorithm::EdDSA).await.is_ok() },
            )
        })
        .collect();
    settle().await;
    stage.source.release();
    for call in calls {
        assert!(!call.await.unwrap());
    }
    let (cost, _) = stage.pass(10).cost(stage.key("first")).await;
    assert_eq!(cost, 1, "the oldest made room");
}

#[tokio::test]
async fn a_retiring_kid_is_a_miss_for_resolve_and_a_hit_for_key() {
    let stage = stage().await;
    stage.adopt(keys(&[("a", 1)], "max-age=36000")).await;
    let (cost, key) = stage.cost(async { at_once(stage.key("b")) }).await;
    assert!(cost == 0 && verifies(&key.unwrap(), 2));
    let (cost, set) = stage.cost(stage.resolve_kid("b")).await;
    assert_eq!((cost, kids(&set.unwrap())), (1, vec!["a".to_owned()]), "the newest set either way");
}

#[tokio::test]
async fn resolve_returns_the_newest_set_with_or_without_the_kid() {
    let stage = stage().await;
    stage.source.set(keys(MORE, "max-age=36000"));
    assert_eq!(kids(&stage.resolve_kid("zzz").await.unwrap()), ["a", "b", "c"]);
}

#[tokio::test]
async fn a_bad_signature_starts_the_same_budgeted_refresh_in_the_background() {
    let stage = stage().await;
    let handle = stage.registry.provider("acme", "main").unwrap();
    stage.source.set(keys(&[("a", 9), ("b", 2)], "max-age=36000")); // new material in place
    let (cost, ()) = stage
        .cost(async {
            for _ in 0..100 {
                handle.report_bad_signature();
                let _ = stage.key("zzz").await;
            }
        })
        .await;
    assert_eq!(cost, 1);
    assert!(stage.source.request(1).bypass_caches);
    assert!(verifies(&at_once(stage.key("a")).unwrap(), 9));
}
