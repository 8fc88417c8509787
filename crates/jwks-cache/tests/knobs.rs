//! Every setting of a registration bites: each test sets a field to two values and sees two behaviours.
//! Policy time stands on a clock that the tests drive; waits that are tokio's run paused, on a script.
#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

mod stage;

use std::sync::Arc;
use std::time::Duration;

use jwks_cache::{
    Algorithm, CacheManager, Error, FetchError, IdentityProviderRegistration, JitterStrategy, KeyError,
    ProviderState, RefreshMode, Registry, RegistryBuilder, SpkiFingerprint, StandardClaims,
};
use jwks_cache_testkit::{IdentityProvider, ManualClock, Origin, Phase, Reply, Token};
use stage::scripted::{self, Answer};
use stage::socket::*;
use stage::{PROVIDER, TENANT, kids, millis, secs, soon, took};

type Change = fn(&mut IdentityProviderRegistration);

fn fetch_reason<T>(result: jwks_cache::Result<T>) -> &'static str {
    match result.err().expect("this should fail") {
        Error::Fetch(error) => FetchError::reason(&error),
        other => panic!("not an exchange that failed: {other:?}"),
    }
}

/// What `reply` at `/jwks` brings under a registration.
async fn fetched(reply: Reply, change: impl FnOnce(&mut IdentityProviderRegistration)) -> (Origin, Registry) {
    let origin = Origin::start();
    origin.set("/jwks", reply);
    let registry = registry(&ManualClock::new());
    let mut registration = registration(origin.url("/jwks"));
    change(&mut registration);
    registry.register(registration).await.unwrap();
    (origin, registry)
}

/// What two registrations that differ by `names` alone answer with.
async fn answers(names: [(&str, &str); 2]) {
    let registry = registry(&ManualClock::new());
    let mut idps = Vec::new();
    for (n, (tenant, provider)) in names.into_iter().enumerate() {
        let idp = IdentityProvider::builder().kid(&format!("key-{n}")).start();
        let mut registration = registration(idp.jwks_url());
        (registration.tenant_id, registration.provider_id) = (tenant.into(), provider.into());
        registry.register(registration).await.unwrap();
        idps.push(idp);
    }
    for (n, (tenant, provider)) in names.into_iter().enumerate() {
        let set = soon(registry.resolve(tenant, provider, None)).await.unwrap();
        assert_eq!(kids(&set), [format!("key-{n}")]);
        let status = registry.provider_status(tenant, provider).await.unwrap();
        assert_eq!((&*status.tenant_id, &*status.provider_id), (tenant, provider));
    }
}

#[tokio::test]
async fn knob_tenant_id() {
    answers([("a", "main"), ("b", "main")]).await;
}

#[tokio::test]
async fn knob_provider_id() {
    answers([("a", "main"), ("a", "second")]).await;
}

#[tokio::test]
async fn knob_issuer() {
    for (issuer, taken) in [(Some("https://mine"), true), (Some("https://mine/"), false), (None, false)] {
        let stage = Stage::new();
        stage.register(|it| it.issuer = issuer.map(str::to_owned)).await;
        let verifier = stage.registry.verifier().any_audience().any_issuer().build().unwrap();
        let token = stage.idp.mint(&Token::new().issuer("https://mine"));
        let by_issuer = soon(verifier.verify::<StandardClaims>(&token)).await;
        assert_eq!(by_issuer.is_ok(), taken, "{issuer:?}: {by_issuer:?}");
        let by_name = soon(verifier.of_provider(TENANT, PROVIDER).verify::<StandardClaims>(&token)).await;
        assert_eq!(by_name.is_ok(), issuer.is_none() || taken, "{issuer:?}: {by_name:?}");
    }
    for wrong in [String::new(), "x".repeat(2_049)] {
        let mut registration =
            IdentityProviderRegistration::new(TENANT, PROVIDER, "https://id.test/jwks").unwrap();
        registration.issuer = Some(wrong);
        assert!(matches!(registration.validate(), Err(Error::Validation { field: "issuer", .. })));
        registration.issuer = Some("x".repeat(2_048));
        registration.validate().unwrap();
    }
}

#[tokio::test]
async fn knob_jwks_url() {
    let origin = Origin::start();
    origin.set("/one", Reply::json(document(&["1"])));
    origin.set("/two", Reply::json(document(&["2"])));
    for (path, kid) in [("/one", "1"), ("/two", "2")] {
        let registry = registry(&ManualClock::new());
        registry.register(registration(origin.url(path))).await.unwrap();
        assert_eq!(kids(&soon(registry.resolve(TENANT, PROVIDER, None)).await.unwrap()), [kid]);
    }
}

#[tokio::test]
async fn knob_require_https() {
    let idp = IdentityProvider::start();
    let registration = registration(idp.jwks_url());
    is_security(CacheManager::new(registration.clone()));
    let cache = CacheManager::new(registration.clone().with_require_https(false)).unwrap();
    assert_eq!(kids(&soon(cache.resolve(None)).await.unwrap()), ["k1"]);

    // A registry has the last word, both ways.
    is_security(Registry::new().register(registration.clone()).await);
    is_security(Registry::new().register(registration.clone().with_require_https(false)).await);
    let lifted = Registry::builder().require_https(false).build();
    lifted.register(registration).await.unwrap();
    soon(lifted.resolve(TENANT, PROVIDER, None)).await.unwrap();
}

#[tokio::test]
async fn knob_allowed_domains() {
    let origin = Origin::start();
    origin.set("/keys", Reply::json(document(&["k"])));
    let elsewhere = origin.url("/keys").as_str().replace("127.0.0.1", "localhost");
    origin.set("/jwks", Reply::redirect(302, elsewhere));
    let resolve = async |domains: &[&str]| {
        let registry = registry(&ManualClock::new());
        let mut registration = registration(origin.url("/jwks"));
        registration.allowed_domains = domains.iter().map(ToString::to_string).collect();
        registry.register(registration).await?;
        soon(registry.resolve(TENANT, PROVIDER, None)).await
    };
    // Without a list a redirect stays on the host; with one, every hop has to be on it.
    is_security(resolve(&[]).await);
    is_security(resolve(&["127.0.0.1"]).await);
    assert_eq!(origin.hits("/keys"), 0);
    assert_eq!(kids(&resolve(&["127.0.0.1", "LocalHost."]).await.unwrap()), ["k"]);
    is_validation(resolve(&["example.com"]).await, "jwks_url");
}

#[tokio::test]
async fn knob_refresh_early() {
    for (early, due_in) in [(30, 270), (60, 240), (200, 180)] {
        let stage = Stage::new();
        stage.register(|it| it.refresh_early = secs(early)).await;
        stage.resolve().await.unwrap();
        // At most two fifths of the lifetime: 120 s of 300.
        assert_eq!(stage.refresh_in().await, due_in);
        stage.pass(secs(250));
        stage.resolve().await.unwrap();
        let started = stage.state().await == ProviderState::Refreshing || stage.idp.jwks_hits() > 1;
        assert_eq!(started, due_in <= 250, "{early}");
    }
}

#[tokio::test]
async fn knob_stale_while_error() {
    for (window, at, served) in [(60, 359, true), (60, 360, false), (0, 301, false), (600, 899, true)] {
        let stage = Stage::new();
        stage.register(|it| it.stale_while_error = secs(window)).await;
        stage.resolve().await.unwrap();
        stage.idp.go_down();
        stage.pass(secs(at));
        assert_eq!(stage.resolve().await.is_ok(), served, "{window} s, at {at} s");
    }
}

/// How long keys are fresh under a registration.
async fn lifetime(cache_control: &str, change: impl FnOnce(&mut IdentityProviderRegistration)) -> i64 {
    let stage = Stage::saying(cache_control);
    stage.register(change).await;
    stage.resolve().await.unwrap();
    stage.fresh_for().await
}

#[tokio::test]
async fn knob_min_ttl() {
    assert_eq!(lifetime("max-age=5", |it| it.min_ttl = secs(30)).await, 30);
    assert_eq!(lifetime("max-age=5", |it| it.min_ttl = secs(90)).await, 90);
}

#[tokio::test]
async fn knob_max_ttl() {
    assert_eq!(lifetime("max-age=9000000", |_| ()).await, 86_400);
    assert_eq!(lifetime("max-age=9000000", |it| it.max_ttl = secs(120)).await, 120);
}

#[tokio::test]
async fn knob_default_ttl() {
    assert_eq!(lifetime("", |_| ()).await, 300);
    assert_eq!(lifetime("", |it| it.default_ttl = secs(60)).await, 60);
    // Kept inside the other two.
    assert_eq!(lifetime("", |it| it.default_ttl = secs(1)).await, 30);
}

#[tokio::test]
async fn knob_max_trust_age() {
    for (trust, served) in [(Some(secs(60)), false), (None, true)] {
        let stage = Stage::new();
        stage.register(|it| (it.max_trust_age, it.stale_while_error) = (trust, secs(86_400))).await;
        stage.resolve().await.unwrap();
        stage.idp.go_down();
        stage.pass(secs(59));
        assert!(stage.resolve().await.is_ok());
        stage.pass(secs(1));
        assert_eq!(stage.resolve().await.is_ok(), served, "{trust:?}");
    }
}

#[tokio::test]
async fn knob_http_strict() {
    for (strict, lifetime_of_no_store, served_stale) in [(false, 30, true), (true, 0, false)] {
        assert_eq!(lifetime("no-store", |it| it.http_strict = strict).await, lifetime_of_no_store);
        let stage = Stage::saying("max-age=60, must-revalidate");
        stage.register(|it| it.http_strict = strict).await;
        stage.resolve().await.unwrap();
        stage.idp.go_down();
        stage.pass(secs(61));
        assert_eq!(stage.resolve().await.is_ok(), served_stale);
    }
}

#[tokio::test]
async fn knob_max_response_bytes() {
    let text = document(&["k"]);
    let size = text.len() as u64;
    // A short text grows by packing, so both bounds are seen with a long one.
    let long = format!("{}{}", document(&["k"]), " ".repeat(4_000));
    for (reply, most, fits) in [
        (Reply::json(&text), size, true),
        (Reply::json(&text), size - 1, false),
        (Reply::json(&text).chunked(), size - 1, false),
        (Reply::json(&long).gzip(), long.len() as u64, true),
        (Reply::json(&long).gzip(), long.len() as u64 - 1, false),
    ] {
        let (_origin, registry) = fetched(reply, |it| it.max_response_bytes = most).await;
        let outcome = soon(registry.resolve(TENANT, PROVIDER, None)).await;
        if fits {
            outcome.unwrap();
        } else {
            assert_eq!(fetch_reason(outcome), "too_large");
        }
    }
}

#[tokio::test]
async fn knob_max_keys() {
    for (most, fits) in [(3, true), (2, false)] {
        let reply = Reply::json(document(&["1", "2", "3"]));
        let (_origin, registry) = fetched(reply, |it| it.max_keys = most).await;
        let outcome = soon(registry.resolve(TENANT, PROVIDER, None)).await;
        assert_eq!(outcome.is_ok(), fits, "{outcome:?}");
    }
}

#[tokio::test]
async fn knob_min_rsa_bits() {
    for (bits, usable) in [(2048, true), (2049, false)] {
        let stage = Stage::with("max-age=300", Algorithm::RS256);
        stage.register(|it| it.min_rsa_bits = bits).await;
        // Callers who choose for themselves see it either way.
        assert_eq!(stage.resolve().await.unwrap(), ["k1"]);
        let key = stage.key_for("k1", Algorithm::RS256).await;
        if usable { drop(key.unwrap()) } else { is_key_error(key, KeyError::NoKeys) }
    }
}

#[tokio::test]
async fn knob_algorithms() {
    for (algorithms, usable) in
        [(vec![], true), (vec![Algorithm::ES256], true), (vec![Algorithm::RS256, Algorithm::ES384], false)]
    {
        let stage = Stage::new();
        stage.register(|it| it.algorithms = algorithms).await;
        assert_eq!(stage.key("k1").await.is_ok(), usable);
    }
}

#[tokio::test]
async fn knob_negative_cache_ttl() {
    for (ttl, asked_again_at) in [(0, 0), (5, 5), (60, 60)] {
        let stage = Stage::new();
        stage.idp.fail_with(500);
        stage.register(|it| it.negative_cache_ttl = secs(ttl)).await;
        stage.resolve().await.unwrap_err();
        if asked_again_at > 0 {
            stage.pass(secs(asked_again_at) - millis(1));
            let error = stage.resolve().await.unwrap_err();
            assert!(matches!(error, Error::HttpStatus { .. }), "{error:?}");
            assert_eq!(stage.idp.jwks_hits(), 1);
            stage.pass(millis(1));
        }
        stage.resolve().await.unwrap_err();
        assert_eq!(stage.idp.jwks_hits(), 2, "{ttl}");
    }
}

#[tokio::test]
async fn knob_kid_miss_interval() {
    for (interval, hits) in [(10, 3), (60, 2)] {
        let stage = Stage::new();
        stage.register(|it| it.kid_miss_interval = secs(interval)).await;
        stage.resolve().await.unwrap();
        is_key_error(stage.key("x1").await, KeyError::UnknownKid);
        is_key_error(stage.key("x2").await, KeyError::UnknownKid);
        assert_eq!(stage.idp.jwks_hits(), 2);
        stage.pass(secs(10));
        is_key_error(stage.key("x3").await, KeyError::UnknownKid);
        assert_eq!(stage.idp.jwks_hits(), hits, "{interval}");
    }
}

#[tokio::test(start_paused = true)]
async fn knob_kid_miss_wait() {
    for wait in [secs(1), secs(3)] {
        let stage = scripted::Stage::warm(|it| {
            it.kid_miss_wait = wait;
            (it.retry_policy.attempt_timeout, it.retry_policy.deadline) = (secs(60), secs(60));
        })
        .await;
        stage.source.set(Answer::Hang);
        let (waited, key) = took(stage.key("x")).await;
        is_key_error(key, KeyError::UnknownKid);
        assert_eq!(rounded(waited), wait);
    }
}

/// Timers of tokio have whole milliseconds, and come up to one late.
fn rounded(waited: Duration) -> Duration {
    millis(u64::try_from(waited.as_millis()).unwrap() / 10 * 10)
}

#[tokio::test]
async fn knob_removal_grace() {
    for (grace, honoured) in [(600, true), (0, false)] {
        let stage = Stage::new();
        stage.register(|it| it.removal_grace = secs(grace)).await;
        stage.resolve().await.unwrap();
        stage.idp.rotate();
        stage.idp.retire("k1");
        stage.refresh().await.unwrap();
        assert_eq!(stage.resolve().await.unwrap(), ["k2"]);
        assert_eq!(stage.key("k1").await.is_ok(), honoured);
        stage.pass(secs(grace));
        is_key_error(stage.key("k1").await, KeyError::UnknownKid);
    }
}

#[tokio::test]
async fn knob_refresh_mode() {
    for (mode, read, refreshes) in [
        (RefreshMode::OnDemand, true, false),
        (RefreshMode::WhileInUse, true, true),
        (RefreshMode::WhileInUse, false, false),
        (RefreshMode::Always, false, true),
    ] {
        let stage = Stage::new();
        stage.register(|it| it.refresh_mode = mode).await;
        // Another provider, registered later and always refreshed, tells when the timers have gone off.
        let mut other = stage.registration();
        (other.provider_id, other.refresh_mode) = ("zz".into(), RefreshMode::Always);
        let tell = Origin::start();
        tell.set("/jwks", Reply::json(document(&["k"])).header("Cache-Control", "max-age=300"));
        other.jwks_url = tell.url("/jwks");
        stage.registry.register(other).await.unwrap();
        soon(stage.registry.warm_up(secs(5))).await;
        if read {
            stage.resolve().await.unwrap();
        }
        stage.pass(secs(270));
        soon(tell.wait_for_hits("/jwks", 2)).await;
        let started = stage.state().await == ProviderState::Refreshing || stage.idp.jwks_hits() > 1;
        assert_eq!(started, refreshes, "{mode:?}, read: {read}");
    }
}

#[tokio::test]
async fn knob_required() {
    for required in [true, false] {
        let stage = Stage::new();
        stage.idp.go_down();
        stage.register(|it| it.required = required).await;
        let health = stage.registry.health().await;
        assert_eq!((health.ready, health.providers[0].ready), (!required, false));
    }
}

#[tokio::test(start_paused = true)]
async fn knob_stale_wait() {
    for wait in [millis(100), secs(5)] {
        let stage = scripted::Stage::warm(|it| {
            it.stale_wait = wait;
            (it.retry_policy.attempt_timeout, it.retry_policy.deadline) = (secs(60), secs(60));
        })
        .await;
        stage.source.set(Answer::Hang);
        let (waited, set) = took(stage.pass(310).resolve()).await;
        assert_eq!(kids(&set.unwrap()), ["a", "b"]);
        assert_eq!(rounded(waited), wait);
    }
}

#[tokio::test]
async fn knob_max_redirects() {
    let origin = Origin::start();
    origin.set("/1", Reply::redirect(302, "/2"));
    origin.set("/2", Reply::redirect(307, "/3"));
    origin.set("/3", Reply::json(document(&["k"])));
    for (most, arrives) in [(0, false), (1, false), (2, true)] {
        let registry = registry(&ManualClock::new());
        let mut registration = registration(origin.url("/1"));
        registration.max_redirects = most;
        registry.register(registration).await.unwrap();
        let outcome = soon(registry.resolve(TENANT, PROVIDER, None)).await;
        if arrives { drop(outcome.unwrap()) } else { assert!(is_security(outcome).contains("max_redirects")) }
    }
    assert_eq!(origin.hits("/3"), 1);
}

#[tokio::test]
async fn knob_pinned_spki() {
    let stage = Stage::new();
    stage.register(|_| ()).await;
    stage.resolve().await.unwrap();
    let pin = SpkiFingerprint::from_b64("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=").unwrap();
    let mut pinned = stage.registration();
    (pinned.provider_id, pinned.pinned_spki) = ("pinned".into(), vec![pin]);
    stage.registry.register(pinned).await.unwrap();
    let reason = is_security(soon(stage.registry.resolve(TENANT, "pinned", None)).await);
    assert!(reason.contains("pinned_spki"), "{reason}");
    assert_eq!(stage.idp.jwks_hits(), 1, "not a byte goes to a host that cannot be checked");
}

#[tokio::test]
async fn knob_prefetch_jitter() {
    for (jitter, least) in [(0, 270), (20, 250), (500, 240)] {
        let stage = Stage::new();
        stage.register(|it| it.prefetch_jitter = secs(jitter)).await;
        stage.resolve().await.unwrap();
        let due_in = stage.refresh_in().await;
        // At most a tenth of the lifetime: 30 s of 300.
        assert!((least..=270).contains(&due_in), "{jitter}: {due_in}");
        assert_eq!(due_in == 270, jitter == 0, "{jitter}: {due_in}");
    }
}

#[tokio::test]
async fn knob_retry_policy_max_retries() {
    for retries in [0, 1, 4] {
        let stage = Stage::new();
        stage.idp.fail_with(500);
        stage
            .register(|it| {
                it.retry_policy.max_retries = retries;
                (it.retry_policy.initial_backoff, it.retry_policy.max_backoff) = (millis(1), millis(1));
            })
            .await;
        let error = stage.resolve().await.unwrap_err();
        assert_eq!(error.attempt(), Some(retries + 1));
        assert_eq!(stage.idp.jwks_hits(), retries as usize + 1);
    }
}

#[tokio::test]
async fn knob_retry_policy_attempt_timeout() {
    for (timeout, arrives) in [(millis(100), false), (secs(5), true)] {
        let reply = Reply::json(document(&["k"])).delay(Phase::Body, millis(400));
        let (_origin, registry) = fetched(reply, |it| it.retry_policy.attempt_timeout = timeout).await;
        let outcome = soon(registry.resolve(TENANT, PROVIDER, None)).await;
        if arrives { drop(outcome.unwrap()) } else { assert_eq!(fetch_reason(outcome), "timeout") }
    }
}

/// How long a flight takes whose attempts all fail.
async fn failing(seed: u64, change: impl FnOnce(&mut IdentityProviderRegistration)) -> Duration {
    let build = |builder: RegistryBuilder| builder.seed(seed);
    let stage = scripted::Stage::built(build, |it| {
        it.retry_policy.max_retries = 0;
        it.retry_policy.jitter = JitterStrategy::None;
        it.retry_policy.deadline = secs(600);
        change(it);
    })
    .await;
    stage.source.set(Answer::Refused);
    let (waited, outcome) = took(stage.resolve()).await;
    assert_eq!(fetch_reason(outcome), "connect");
    rounded(waited)
}

#[tokio::test(start_paused = true)]
async fn knob_retry_policy_initial_backoff() {
    for first in [millis(250), secs(1)] {
        let waited = failing(1, |it| {
            (it.retry_policy.max_retries, it.retry_policy.initial_backoff) = (1, first);
        });
        assert_eq!(waited.await, first);
    }
}

#[tokio::test(start_paused = true)]
async fn knob_retry_policy_max_backoff() {
    for (most, total) in [(secs(1), secs(4)), (secs(3), secs(1 + 2 + 3 + 3)), (secs(60), secs(1 + 2 + 4 + 8))]
    {
        let waited = failing(1, |it| {
            let retry = &mut it.retry_policy;
            (retry.max_retries, retry.initial_backoff, retry.max_backoff) = (4, secs(1), most);
        });
        assert_eq!(waited.await, total);
    }
}

#[tokio::test(start_paused = true)]
async fn knob_retry_policy_deadline() {
    for deadline in [secs(2), secs(7)] {
        let stage = scripted::Stage::with(|it| {
            let retry = &mut it.retry_policy;
            (retry.max_retries, retry.attempt_timeout, retry.deadline) = (1_000, secs(2), deadline);
            (retry.initial_backoff, retry.max_backoff) = (millis(100), millis(100));
        })
        .await;
        stage.source.set(Answer::Hang);
        let (waited, outcome) = took(stage.resolve()).await;
        assert!(outcome.is_err());
        assert_eq!(rounded(waited), deadline);
    }
}

#[tokio::test(start_paused = true)]
async fn knob_retry_policy_jitter() {
    let waited = async |jitter, seed| {
        failing(seed, |it| {
            let retry = &mut it.retry_policy;
            (retry.max_retries, retry.initial_backoff, retry.max_backoff) = (2, secs(1), secs(100));
            retry.jitter = jitter;
        })
        .await
    };
    let (mut full, mut decorrelated) = (Vec::new(), Vec::new());
    for seed in 0..20 {
        assert_eq!(waited(JitterStrategy::None, seed).await, secs(1 + 2));
        full.push(waited(JitterStrategy::Full, seed).await);
        decorrelated.push(waited(JitterStrategy::Decorrelated, seed).await);
    }
    let spread = |waits: &[Duration]| (*waits.iter().min().unwrap(), *waits.iter().max().unwrap());
    let (least, most) = spread(&full);
    assert!(least >= secs(2) && most <= secs(3) && most - least > millis(300), "{least:?}..{most:?}");
    // Up to three times the wait before: 3 s, then 9 s.
    let (least, most) = spread(&decorrelated);
    assert!(least >= secs(2) && most > secs(4) && most <= secs(12), "{least:?}..{most:?}");
}

#[tokio::test]
async fn registry_defaults_reach_the_registrations_that_leave_theirs() {
    let stage = Stage::new();
    let registry = Registry::builder()
        .require_https(false)
        .clock(Arc::new(stage.clock.clone()))
        .default_refresh_early(secs(100))
        .default_stale_while_error(secs(3_600))
        .build();
    let mut own = stage.registration();
    own.provider_id = "own".into();
    (own.refresh_early, own.stale_while_error) = (secs(31), secs(61));
    registry.register(stage.registration()).await.unwrap();
    registry.register(own).await.unwrap();
    for (provider, due_in) in [(PROVIDER, 200), ("own", 269)] {
        soon(registry.resolve(TENANT, provider, None)).await.unwrap();
        let due = registry.provider_status(TENANT, provider).await.unwrap().next_refresh.unwrap();
        assert_eq!((due - jwks_cache::Clock::wall(&stage.clock)).num_seconds(), due_in);
    }
    stage.idp.go_down();
    stage.pass(secs(400));
    soon(registry.resolve(TENANT, PROVIDER, None)).await.unwrap();
    soon(registry.resolve(TENANT, "own", None)).await.unwrap_err();
}

#[tokio::test]
async fn the_registrys_domains_bind_every_registration_and_every_hop() {
    let origin = Origin::start();
    origin.set("/keys", Reply::json(document(&["k"])));
    let elsewhere = origin.url("/keys").as_str().replace("127.0.0.1", "localhost");
    origin.set("/jwks", Reply::redirect(302, elsewhere));
    let resolve = async |registrys: &[&str], own: &[&str]| {
        let registry = Registry::builder().require_https(false).allowed_domains(registrys.iter().copied());
        let registry = registry.build();
        let mut registration = registration(origin.url("/jwks"));
        registration.allowed_domains = own.iter().map(ToString::to_string).collect();
        registry.register(registration).await?;
        soon(registry.resolve(TENANT, PROVIDER, None)).await
    };
    let both = ["127.0.0.1", "localhost"];
    assert_eq!(kids(&resolve(&both, &[]).await.unwrap()), ["k"]);
    assert_eq!(kids(&resolve(&both, &both).await.unwrap()), ["k"]);
    is_security(resolve(&both, &["127.0.0.1"]).await);
    is_security(resolve(&["127.0.0.1"], &both).await);
    is_security(resolve(&["example.com"], &both).await);
}

#[test]
fn each_broken_rule_names_its_field() {
    let check = |field: &'static str, change: Change| {
        let mut registration = registration("https://id.example.com/jwks.json");
        registration.validate().unwrap();
        change(&mut registration);
        is_validation(registration.validate(), field);
        if field.starts_with("retry_policy.") {
            is_validation(registration.retry_policy.validate(), field);
        }
        is_validation(CacheManager::new(registration), field);
    };
    check("tenant_id", |it| it.tenant_id.clear());
    check("tenant_id", |it| it.tenant_id = "x".repeat(65));
    check("tenant_id", |it| it.tenant_id = "under_score".into());
    check("tenant_id", |it| it.tenant_id = "ä".into());
    check("provider_id", |it| it.provider_id.clear());
    check("provider_id", |it| it.provider_id = "x".repeat(65));
    check("provider_id", |it| it.provider_id = "a/b".into());
    check("jwks_url", |it| it.jwks_url = "data:text/plain,x".parse().unwrap());
    check("jwks_url", |it| it.jwks_url = "https://user@id.example.com/".parse().unwrap());
    check("jwks_url", |it| it.jwks_url = "https://:pw@id.example.com/".parse().unwrap());
    check("jwks_url", |it| it.jwks_url = "https://id.example.com/#keys".parse().unwrap());
    check("jwks_url", |it| it.allowed_domains = vec!["example.org".into()]);
    check("jwks_url", |it| it.allowed_domains = vec!["d.example.com".into()]);
    check("allowed_domains", |it| it.allowed_domains = vec!["example.com".into(), " ".into()]);
    check("allowed_domains", |it| it.allowed_domains = vec!["https://example.com".into()]);
    check("refresh_early", |it| it.refresh_early = millis(999));
    check("refresh_early", |it| it.refresh_early = it.max_ttl);
    check("min_ttl", |it| it.min_ttl = millis(29_999));
    check("max_ttl", |it| (it.min_ttl, it.max_ttl) = (secs(60), secs(59)));
    check("max_trust_age", |it| it.max_trust_age = Some(secs(29)));
    check("max_response_bytes", |it| it.max_response_bytes = 0);
    check("max_keys", |it| it.max_keys = 0);
    check("min_rsa_bits", |it| it.min_rsa_bits = 1023);
    check("min_rsa_bits", |it| it.min_rsa_bits = 4097);
    check("negative_cache_ttl", |it| it.negative_cache_ttl = millis(999));
    check("kid_miss_interval", |it| it.kid_miss_interval = millis(999));
    check("max_redirects", |it| it.max_redirects = 11);
    check("retry_policy.attempt_timeout", |it| it.retry_policy.attempt_timeout = millis(99));
    check("retry_policy.initial_backoff", |it| it.retry_policy.initial_backoff = Duration::ZERO);
    check("retry_policy.max_backoff", |it| it.retry_policy.max_backoff = millis(249));
    check("retry_policy.deadline", |it| it.retry_policy.deadline = millis(2_999));
    is_validation(SpkiFingerprint::from_b64("AAAA"), "pinned_spki");
}

#[test]
fn each_rule_ends_where_it_says() {
    let check = |change: Change| {
        let mut registration = registration("https://id.example.com/jwks.json");
        change(&mut registration);
        registration.validate().unwrap();
    };
    check(|it| (it.tenant_id, it.provider_id) = ("-".repeat(64), "_".repeat(64)));
    check(|it| it.allowed_domains = vec![" Example.COM. ".into()]);
    check(|it| it.refresh_early = secs(1));
    check(|it| it.stale_while_error = Duration::ZERO);
    check(|it| (it.refresh_early, it.max_ttl) = (secs(29), secs(30)));
    check(|it| it.max_trust_age = Some(secs(30)));
    check(|it| (it.max_response_bytes, it.max_keys, it.min_rsa_bits) = (1, 1, 1024));
    check(|it| (it.min_rsa_bits, it.max_redirects) = (4096, 10));
    check(|it| (it.negative_cache_ttl, it.kid_miss_interval) = (secs(1), secs(1)));
    check(|it| (it.kid_miss_wait, it.removal_grace) = (Duration::ZERO, Duration::ZERO));
    check(|it| (it.stale_wait, it.prefetch_jitter, it.default_ttl) = Default::default());
    check(|it| {
        let retry = &mut it.retry_policy;
        (retry.attempt_timeout, retry.deadline) = (millis(100), millis(100));
        (retry.initial_backoff, retry.max_backoff) = (Duration::from_nanos(1), Duration::from_nanos(1));
    });
}

#[tokio::test]
async fn refused_schemes_and_hosts_are_a_matter_of_security() {
    let open = || Registry::builder().require_https(false).build();
    let listed = || Registry::builder().add_allowed_domain("example.com").build();
    for (registry, url) in [
        (Registry::new(), "http://id.example.com/jwks.json"),
        (Registry::new(), "ftp://id.example.com/jwks.json"),
        (open(), "ftp://id.example.com/jwks.json"),
        (open(), "gopher://id.example.com/jwks.json"),
        (listed(), "https://id.example.net/jwks.json"),
        (listed(), "https://badexample.com/jwks.json"),
    ] {
        is_security(registry.register(registration(url)).await);
        assert!(registry.all_statuses().await.is_empty(), "{url}");
    }
    listed().register(registration("https://id.example.com/jwks.json")).await.unwrap();
}

#[tokio::test]
async fn a_refused_registration_costs_nothing_that_is_held() {
    let stage = Stage::new();
    stage.register(|_| ()).await;
    stage.resolve().await.unwrap();
    for change in [(|it| it.max_keys = 0) as Change, |it| {
        it.jwks_url = "ftp://id.example.com/".parse().unwrap();
    }] {
        let mut registration = stage.registration();
        change(&mut registration);
        stage.registry.register(registration).await.unwrap_err();
    }
    stage.idp.go_down();
    assert_eq!(stage.resolve().await.unwrap(), ["k1"]);
    assert_eq!(stage.idp.jwks_hits(), 1);
}

#[tokio::test]
async fn unknown_providers_are_not_registered() {
    let stage = Stage::new();
    stage.register(|_| ()).await;
    let registry = &stage.registry;
    for (tenant, provider) in [(TENANT, "other"), ("other", PROVIDER), ("", ""), (PROVIDER, TENANT)] {
        let outcomes = [
            registry.resolve(tenant, provider, None).await.err(),
            registry.resolve(tenant, provider, Some("k1")).await.err(),
            registry.key(tenant, provider, None, Algorithm::ES256).await.err(),
            registry.refresh(tenant, provider).await.err(),
            registry.refresh_and_wait(tenant, provider).await.err(),
            registry.provider_status(tenant, provider).await.err(),
            registry.deny_key(tenant, provider, "k1").await.err(),
            registry.allow_key(tenant, provider, "k1").await.err(),
            registry.provider(tenant, provider).err(),
            registry.warm_up_only(&[(TENANT, PROVIDER), (tenant, provider)], secs(1)).await.err(),
        ];
        for error in outcomes.map(Option::unwrap) {
            assert_eq!(error.kind(), jwks_cache::ErrorKind::NotRegistered);
            assert_eq!(error.provider(), Some((tenant, provider)));
        }
        assert!(!registry.unregister(tenant, provider).await.unwrap());
    }
    assert_eq!(stage.idp.jwks_hits(), 0);
}

#[tokio::test]
async fn the_longest_settings_panic_nowhere() {
    let stage = Stage::new();
    let longest = |it: &mut IdentityProviderRegistration| {
        let ever = Duration::MAX;
        (it.max_ttl, it.refresh_early) = (ever, ever - Duration::from_nanos(1));
        (it.stale_while_error, it.min_ttl, it.default_ttl, it.max_trust_age) = (ever, ever, ever, Some(ever));
        (it.negative_cache_ttl, it.kid_miss_interval, it.kid_miss_wait) = (ever, ever, ever);
        (it.removal_grace, it.stale_wait, it.prefetch_jitter) = (ever, ever, ever);
        let retry = &mut it.retry_policy;
        (retry.attempt_timeout, retry.deadline) = (ever, ever);
        (retry.initial_backoff, retry.max_backoff, retry.max_retries) = (ever, ever, u32::MAX);
    };
    stage.register(longest).await;
    stage.idp.fail_with(500);
    stage.resolve().await.unwrap_err();
    stage.idp.come_back();
    stage.refresh().await.unwrap();
    stage.idp.rotate();
    stage.key("k2").await.unwrap();
    stage.idp.retire("k1");
    stage.refresh().await.unwrap();
    stage.key("k1").await.unwrap();
    stage.registry.health().await;
    soon(stage.registry.warm_up(Duration::MAX)).await;
    assert_eq!(stage.state().await, ProviderState::Ready);
    stage.register(longest).await;
    stage.register(|_| ()).await;
    stage.resolve().await.unwrap();
}
