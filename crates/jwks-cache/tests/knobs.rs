//! Every setting of a registration bites: each test sets a field to two values and sees two behaviours.
//! Policy time stands on a clock that the tests drive; waits that are tokio's run paused, on a script.
#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

mod stage;

use std::sync::Arc;
use std::time::Duration;

use jwks_cache::{
    Algorithm, CacheManager, Error, Fallback, FetchError, IdentityProviderRegistration, JitterStrategy,
    KeyError, KeyFormat, KeySource, Material, PinMode, ProviderState, RefreshMode, Registry, RegistryBuilder,
    SpkiFingerprint, StandardClaims, TlsVersion,
};
use jwks_cache_testkit::tls::{Authority, TlsServer};
use jwks_cache_testkit::{BlackHole, IdentityProvider, ManualClock, Origin, Phase, Reply, Token};
use stage::proxy::Proxy;
use stage::scripted::{self, Answer};
use stage::secured;
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
async fn knob_source() {
    for (source, kid) in [(KeySource::Inline(document(&["1"]).into()), "1"), (KeySource::Url, "2")] {
        let origin = Origin::start();
        origin.set("/jwks", Reply::json(document(&["2"])));
        let registry = registry(&ManualClock::new());
        let mut registration = registration(origin.url("/jwks"));
        if source != KeySource::Url {
            registration.jwks_url = "none:".parse().unwrap();
        }
        registration.source = source;
        registry.register(registration).await.unwrap();
        assert_eq!(kids(&soon(registry.resolve(TENANT, PROVIDER, None)).await.unwrap()), [kid]);
    }
}

#[tokio::test]
async fn knob_format() {
    let jwks = async |format| {
        let (_origin, registry) = fetched(Reply::json(document(&["k"])), |it| it.format = format).await;
        soon(registry.resolve(TENANT, PROVIDER, None)).await
    };
    assert_eq!(kids(&jwks(KeyFormat::Jwks).await.unwrap()), ["k"]);
    assert_eq!(fetch_reason(jwks(KeyFormat::X509Map).await), "not_x509_map");
    assert_eq!(fetch_reason(jwks(KeyFormat::Pem { kid: "k".into() }).await), "not_pem");
}

#[tokio::test]
async fn knob_issuer_for_discovery() {
    let resolve = async |issuer: &str| {
        let origin = Origin::start();
        let metadata = format!(r#"{{"issuer":"{issuer}","jwks_uri":"{}"}}"#, origin.url("/jwks"));
        origin.set("/.well-known/openid-configuration", Reply::json(metadata));
        origin.set("/jwks", Reply::json(document(&["k"])));
        let mut registration = registration(origin.url("/jwks"));
        registration.jwks_url = "none:".parse().unwrap();
        registration.issuer = Some("https://id.example".into());
        registration.source = KeySource::DiscoveryAt(origin.url("/").into());
        let registry = registry(&ManualClock::new());
        registry.register(registration).await.unwrap();
        soon(registry.resolve(TENANT, PROVIDER, None)).await
    };
    assert_eq!(kids(&resolve("https://id.example").await.unwrap()), ["k"]);
    assert_eq!(fetch_reason(resolve("https://id.example/").await), "discovery_issuer");
}

#[test]
fn knob_issuer_template() {
    // Whether a token's `tid` is taken for the template is the verifier's to see to; here it is told from a text.
    let with = |issuer: &str, template| {
        let mut registration = registration("https://id.example/jwks");
        (registration.issuer, registration.issuer_template) = (Some(issuer.into()), template);
        registration
    };
    with("https://id.example/{tenantid}/v2.0", true).validate().unwrap();
    with("https://id.example/{tenantid}/v2.0", false).validate().unwrap();
    is_validation(with("https://id.example/v2.0", true).validate(), "issuer_template");
    is_validation(with("https://id.example/a{tenantid}", true).validate(), "issuer_template");
}

#[tokio::test(start_paused = true)]
async fn knob_fallbacks() {
    for (fallbacks, served) in [(vec![], false), (vec![Fallback::inline(document(&["f"]))], true)] {
        let stage = scripted::Stage::with(|it| it.fallbacks = fallbacks).await;
        stage.source.set(Answer::Refused);
        let set = stage.resolve().await;
        assert_eq!(set.is_ok_and(|set| kids(&set) == ["f"]), served);
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
    let stage = secured::Stage::new();
    let other = SpkiFingerprint::from_b64("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=").unwrap();
    stage.fetch(|it| it.pinned_spki = vec![stage.leaf.pin(), other.clone()]).await.unwrap();
    let reason = is_security(stage.fetch(|it| it.pinned_spki = vec![other.clone()]).await);
    assert!(reason.contains("pinned_spki"), "{reason}");
    assert_eq!(stage.origin.total(), 1, "not a byte goes to a server that is not pinned");
    let mut plain = registration("http://id.example.com/jwks").with_require_https(false);
    plain.pinned_spki = vec![other.clone()];
    is_validation(registry(&ManualClock::new()).register(plain).await, "pinned_spki");
    // Nor is there a way around them.
    let mut around = registration("https://id.example.com/jwks").with_require_https(false);
    around.pinned_spki = vec![other];
    around.fallbacks = vec![Fallback::url("https://mirror.example.com/jwks").unwrap()];
    around.validate().unwrap();
    around.fallbacks.push(Fallback::url("http://mirror.example.com/jwks").unwrap());
    is_validation(around.validate(), "pinned_spki");
}

#[tokio::test]
async fn knob_pin_mode() {
    let stage = secured::Stage::new();
    let other = SpkiFingerprint::from_b64("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=").unwrap();
    for (mode, passes) in [(PinMode::Enforce, false), (PinMode::ReportOnly, true)] {
        let outcome = stage.fetch(|it| (it.pin_mode, it.pinned_spki) = (mode, vec![other.clone()])).await;
        if passes { outcome.unwrap() } else { drop(is_security(outcome)) }
    }
    assert_eq!(stage.metric("pin_mismatches_total").await, 2.0);
}

#[tokio::test]
async fn knob_tls() {
    let stage = secured::Stage::new();
    // The authority that is believed.
    stage.fetch(|_| ()).await.unwrap();
    assert_eq!(fetch_reason(stage.fetch(|it| it.tls.ca = None).await), "tls");
    // The oldest version that is spoken.
    stage.origin.show(&TlsServer::new(stage.leaf.clone()).only_tls12());
    for (version, passes) in [(None, true), (Some(TlsVersion::Tls12), true), (Some(TlsVersion::Tls13), false)]
    {
        let outcome = stage.fetch(|it| it.tls.min_version = version).await;
        if passes { outcome.unwrap() } else { assert_eq!(fetch_reason(outcome), "tls") }
    }
    // The certificate that is shown.
    stage.origin.show(&TlsServer::new(stage.leaf.clone()).client_authority(&stage.root));
    assert_eq!(fetch_reason(stage.fetch(|_| ()).await), "tls");
    let ours = secured::client_certificate(&stage.root.client("us"));
    stage.fetch(|it| it.tls.client_certificate = Some(ours)).await.unwrap();
}

#[test]
fn knob_tls_replace_roots() {
    // In a process of its own: the machine's roots are named by its environment, and read once.
    const ROLE: &str = "JWKS_CACHE_TEST_URL";
    let Ok(url) = std::env::var(ROLE) else {
        let stage = secured::Stage::new();
        let (folder, other) = (secured::Folder::new(), Authority::new("of no use"));
        // The environment's proxy, which is not to be asked.
        let nobody = Origin::start();
        folder.write("machine.pem", &stage.root.pem());
        folder.write("other.pem", &other.pem());
        let ran = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "knob_tls_replace_roots"])
            .env(ROLE, stage.origin.url("/jwks").as_str())
            .env("SSL_CERT_FILE", folder.path("machine.pem"))
            .env_remove("SSL_CERT_DIR")
            .env_remove("NO_PROXY")
            .env_remove("no_proxy")
            .envs(
                ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"]
                    .map(|name| (name, nobody.url("/").to_string())),
            )
            .env("JWKS_CACHE_TEST_CA", folder.path("other.pem"))
            .env("JWKS_CACHE_TEST_PIN", format!("{:?}", stage.root.pin()))
            .output()
            .unwrap();
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stdout));
        assert_eq!((stage.origin.total(), nobody.connections()), (3, 0));
        return;
    };
    let ca = Material::file(std::env::var("JWKS_CACHE_TEST_CA").unwrap());
    let pin = SpkiFingerprint::from_b64(&std::env::var("JWKS_CACHE_TEST_PIN").unwrap()).unwrap();
    let fetch = async |ca: Option<Material>, replace_roots, pins: &[SpkiFingerprint]| {
        let mut registration = IdentityProviderRegistration::new(TENANT, PROVIDER, &url).unwrap();
        (registration.tls.ca, registration.tls.replace_roots) = (ca, replace_roots);
        registration.pinned_spki = pins.to_vec();
        soon(jwks_cache::fetch_once(&registration)).await
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        fetch(None, false, &[]).await.unwrap();
        fetch(Some(ca.clone()), false, &[]).await.unwrap();
        assert_eq!(fetch_reason(fetch(Some(ca.clone()), true, &[]).await), "tls");
        // Pins are checked on paths to the machine's roots too.
        fetch(Some(ca.clone()), false, &[pin]).await.unwrap();
        // Where a registry has replaced them, a registration's own CA does not bring them back.
        let mut tls = jwks_cache::TlsSettings::default();
        (tls.ca, tls.replace_roots) = (Some(ca.clone()), true);
        let registry = Registry::builder().tls(tls).build();
        let mut registration = IdentityProviderRegistration::new(TENANT, PROVIDER, &url).unwrap();
        registration.tls.ca = Some(ca);
        registry.register(registration).await.unwrap();
        assert_eq!(fetch_reason(soon(registry.resolve(TENANT, PROVIDER, None)).await), "tls");
    });
}

#[tokio::test]
async fn knob_headers() {
    let (origin, registry) = fetched(Reply::json(document(&["k"])), |it| {
        it.headers.insert("X-Api-Key".into(), "value".into());
        it.headers.insert("Accept".into(), "application/json".into());
    })
    .await;
    soon(registry.resolve(TENANT, PROVIDER, None)).await.unwrap();
    let request = &origin.requests("/jwks")[0];
    assert_eq!(request.header("x-api-key"), Some("value"));
    let accepts: Vec<_> = request.headers.iter().filter(|(name, _)| name == "accept").collect();
    assert_eq!(accepts, [&("accept".to_owned(), "application/json".to_owned())], "ours is replaced");
}

#[tokio::test]
async fn knob_bearer_token() {
    for (token, sent) in [(None, None), (Some(Material::inline("abc.def")), Some("Bearer abc.def"))] {
        let (origin, registry) = fetched(Reply::json(document(&["k"])), |it| it.bearer_token = token).await;
        soon(registry.resolve(TENANT, PROVIDER, None)).await.unwrap();
        assert_eq!(origin.requests("/jwks")[0].header("authorization"), sent);
    }
}

#[tokio::test]
async fn knob_user_agent() {
    let ours = concat!("jwks-cache/", env!("CARGO_PKG_VERSION"));
    for (set, sent) in [(None, ours), (Some("mine/2 (team a)"), "mine/2 (team a)")] {
        let user_agent = set.map(ToOwned::to_owned);
        let (origin, registry) =
            fetched(Reply::json(document(&["k"])), |it| it.user_agent = user_agent).await;
        soon(registry.resolve(TENANT, PROVIDER, None)).await.unwrap();
        assert_eq!(origin.requests("/jwks")[0].header("user-agent"), Some(sent));
    }
}

#[tokio::test]
async fn knob_proxy() {
    let stage = secured::Stage::new();
    let proxy = Proxy::start();
    stage.fetch(|_| ()).await.unwrap();
    assert_eq!(proxy.asked(), [""; 0]);
    let url = proxy.url("user:pass%20word");
    stage.fetch(|it| it.proxy = Some(url.clone())).await.unwrap();
    let asked = proxy.asked();
    assert!(asked[0].starts_with(&format!("CONNECT {} HTTP/1.1", stage.origin.addr())), "{asked:?}");
    assert!(asked[0].contains("proxy-authorization: Basic dXNlcjpwYXNzIHdvcmQ="), "{asked:?}");
    assert_eq!(stage.origin.total(), 2);
    // Pins look at the provider behind it.
    stage.fetch(|it| (it.proxy, it.pinned_spki) = (Some(url.clone()), vec![stage.leaf.pin()])).await.unwrap();
    is_security(
        stage.fetch(|it| (it.proxy, it.pinned_spki) = (Some(url), vec![SpkiFingerprint::of(b"")])).await,
    );
    assert_eq!(stage.origin.total(), 3);

    // A URL of plain http is asked of the proxy by its whole name.
    let (origin, registry) =
        fetched(Reply::json(document(&["k"])), |it| it.proxy = Some(proxy.url("user:pass"))).await;
    soon(registry.resolve(TENANT, PROVIDER, None)).await.unwrap();
    let last = proxy.asked().pop().unwrap();
    assert!(last.starts_with(&format!("GET {} HTTP/1.1", origin.url("/jwks"))), "{last}");
    assert_eq!(origin.total(), 0, "the proxy answers by itself");
}

#[tokio::test]
async fn knob_connect_timeout() {
    let hole = BlackHole::start();
    for (connect, attempt, said) in [
        (Some(millis(100)), secs(30), "no connection was made in time"),
        (Some(secs(60)), millis(100), "within"),
    ] {
        let registry = registry(&ManualClock::new());
        let mut registration = registration(hole.url("/jwks"));
        registration.connect_timeout = connect;
        (registration.retry_policy.attempt_timeout, registration.retry_policy.deadline) = (attempt, attempt);
        registry.register(registration).await.unwrap();
        let error = soon(registry.resolve(TENANT, PROVIDER, None)).await.unwrap_err();
        assert!(error.to_string().contains(said), "{error}");
    }
}

#[tokio::test]
async fn knob_private_networks() {
    use jwks_cache::PrivateNetworks::{Allow, Deny, DenyExcept};

    let except = |entry: &str| DenyExcept(vec![entry.to_owned()]);
    for (policy, dialled) in [
        (Allow, true),
        (Deny, false),
        (except("127.0.0.1"), true),
        (except("127.0.0.0/8"), true),
        (except("10.0.0.0/8"), false),
    ] {
        let (origin, registry) =
            fetched(Reply::json(document(&["k"])), |it| it.private_networks = policy.clone()).await;
        let resolved = soon(registry.resolve(TENANT, PROVIDER, None)).await;
        assert_eq!((resolved.is_ok(), origin.connections() > 0), (dialled, dialled), "{policy:?}");
        if !dialled {
            assert!(is_security(resolved).contains("at a loopback address"), "{policy:?}");
        }
    }

    // The registry's has to pass too: a registration can only tighten it.
    let idp = IdentityProvider::start();
    let everything = DenyExcept(["0.0.0.0/0", "127.0.0.1", "169.254.169.254"].map(str::to_owned).to_vec());
    for (registrys, policy, dialled) in [
        (Deny, Allow, false),
        (Deny, except("127.0.0.1"), false),
        (Deny, everything.clone(), false),
        (except("127.0.0.0/8"), Allow, true),
        (except("127.0.0.0/8"), everything.clone(), true),
        (except("127.0.0.0/8"), Deny, false),
        (except("10.0.0.0/8"), everything, false),
    ] {
        let registry = Registry::builder().require_https(false).private_networks(registrys).build();
        let mut registration = registration(idp.jwks_url());
        registration.private_networks = policy;
        registry.register(registration).await.unwrap();
        assert_eq!(soon(registry.resolve(TENANT, PROVIDER, None)).await.is_ok(), dialled);
    }

    // Tighter, it drops what is held; looser, not.
    let stage = Stage::new();
    stage.register(|_| ()).await;
    stage.resolve().await.unwrap();
    stage.idp.go_down();
    stage.register(|it| it.private_networks = Allow).await;
    stage.resolve().await.unwrap();
    stage.register(|it| it.private_networks = except("127.0.0.0/8")).await;
    stage.resolve().await.unwrap_err();
    stage.idp.come_back();
    stage.pass(secs(11));
    stage.resolve().await.unwrap();
    stage.idp.go_down();
    stage.register(|it| it.private_networks = Allow).await;
    stage.resolve().await.unwrap();

    // A proxy chooses the address itself, wherever it is set.
    let proxy: jwks_cache::reqwest::Url = "http://proxy.example:3128".parse().unwrap();
    for policy in [Deny, except("proxy.example")] {
        let mut both = registration("https://id.example.com/jwks.json");
        (both.proxy, both.private_networks) = (Some(proxy.clone()), policy.clone());
        is_validation(both.validate(), "proxy");
        let mut one = registration("https://id.example.com/jwks.json");
        one.private_networks = policy.clone();
        is_validation(Registry::builder().proxy(proxy.clone()).build().register(one).await, "proxy");
        let mut other = registration("https://id.example.com/jwks.json");
        other.proxy = Some(proxy.clone());
        is_validation(Registry::builder().private_networks(policy).build().register(other).await, "proxy");
    }
    let mut unclear = registration("https://id.example.com/jwks.json");
    unclear.private_networks = except("10.0.0.1/8");
    is_validation(unclear.validate(), "private_networks");
}

#[tokio::test]
async fn knob_local_files() {
    fn file() -> Material {
        Material::file("/no/such/file")
    }
    fn both(chain: Material, key: Material) -> Option<jwks_cache::ClientCertificate> {
        Some(jwks_cache::ClientCertificate { chain, key })
    }
    let plain =
        || IdentityProviderRegistration::new(TENANT, PROVIDER, "https://id.example.com/jwks.json").unwrap();
    let fields: [(&str, Change); 5] = [
        ("tls.ca", |it| it.tls.ca = Some(file())),
        ("chain", |it| it.tls.client_certificate = both(file(), Material::inline("key"))),
        ("key", |it| it.tls.client_certificate = both(Material::inline("chain"), file())),
        ("bearer_token", |it| it.bearer_token = Some(file())),
        ("proxy", |it| it.proxy = Some("http://proxy.example:3128".parse().unwrap())),
    ];
    let refusing = || Registry::builder().local_files(false);
    for (field, change) in fields {
        let mut registration = plain();
        change(&mut registration);
        Registry::new().register(registration.clone()).await.unwrap();
        Registry::builder().local_files(true).build().register(registration.clone()).await.unwrap();
        let why = is_security(refusing().build().register(registration).await);
        assert!(why.contains(field) && why.contains("local_files(true)"), "{field}: {why}");
    }
    // Texts are the tenant's own, and what the owner sets on the builder is the owner's.
    let mut own = plain();
    own.bearer_token = Some(Material::inline("token"));
    refusing().build().register(own).await.unwrap();
    let proxied = refusing().bearer_token(file()).proxy("http://proxy.example:3128".parse().unwrap()).build();
    proxied.register(plain()).await.unwrap();
}

/// A fetcher as a user hands it in.
#[derive(Debug)]
struct Handed;

impl jwks_cache::Fetch for Handed {
    fn fetch<'a>(&'a self, _: &'a jwks_cache::FetchRequest) -> jwks_cache::Fetching<'a> {
        Box::pin(async { Err(jwks_cache::NotFetched::new("asked", "it was asked")) })
    }
}

#[tokio::test]
async fn a_fetcher_that_is_handed_in_is_not_asked_for_what_it_cannot_keep() {
    let settings: [(&str, Change); 9] = [
        ("", |_| ()),
        ("pinned_spki", |it| it.pinned_spki = vec![SpkiFingerprint::of(b"")]),
        ("tls", |it| it.tls.min_version = Some(TlsVersion::Tls13)),
        ("proxy", |it| it.proxy = Some("http://127.0.0.1:9".parse().unwrap())),
        ("connect_timeout", |it| it.connect_timeout = Some(secs(1))),
        ("private_networks", |it| it.private_networks = jwks_cache::PrivateNetworks::Deny),
        ("headers", |it| drop(it.headers.insert("X-Api-Key".into(), "key".into()))),
        ("bearer_token", |it| it.bearer_token = Some(Material::inline("token"))),
        ("user_agent", |it| it.user_agent = Some("mine/1".into())),
    ];
    for (setting, change) in settings {
        let registry = Registry::builder().fetcher(Arc::new(Handed)).build();
        let url = "https://id.example.com/jwks.json";
        let mut registration = IdentityProviderRegistration::new(TENANT, PROVIDER, url).unwrap();
        change(&mut registration);
        registry.register(registration).await.unwrap();
        let outcome = soon(registry.resolve(TENANT, PROVIDER, None)).await;
        if setting.is_empty() {
            assert_eq!(fetch_reason(outcome), "asked");
        } else {
            let why = is_security(outcome);
            assert!(why.contains(&format!("{setting} is set")), "{setting}: {why}");
        }
    }
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
    check("tls.replace_roots", |it| it.tls.replace_roots = true);
    check("tls.ca", |it| it.tls.ca = Some(Material::inline("no certificate")));
    check("tls.ca", |it| {
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        it.tls.ca = Some(Material::inline(broken));
    });
    check("tls.client_certificate", |it| {
        let authority = Authority::new("ours");
        let mut certificate = secured::client_certificate(&authority.client("us"));
        certificate.key = Material::inline(authority.client("another").key_pem());
        it.tls.client_certificate = Some(certificate);
    });
    check("tls.client_certificate", |it| {
        let mut certificate = secured::client_certificate(&Authority::new("ours").client("us"));
        certificate.key = certificate.chain.clone();
        it.tls.client_certificate = Some(certificate);
    });
    for name in ["two words", "", "Host", "accept-encoding", "If-None-Match", "Range", "User-Agent", "ümlaut"]
    {
        let mut it = registration("https://id.example.com/jwks.json");
        it.headers.insert(name.into(), "value".into());
        is_validation(it.validate(), "headers");
    }
    check("headers", |it| drop(it.headers.insert("X-Key".into(), "line\nbreak".into())));
    check("headers", |it| {
        it.headers = ["X-Key", "x-key"].map(|name| (name.into(), "value".into())).into();
    });
    check("headers", |it| it.headers = (0..65).map(|n| (format!("x-{n}"), "value".into())).collect());
    check("bearer_token", |it| it.bearer_token = Some(Material::inline("two words")));
    check("bearer_token", |it| it.bearer_token = Some(Material::inline("\n")));
    check("bearer_token", |it| {
        it.bearer_token = Some(Material::inline("token"));
        it.headers.insert("AUTHORIZATION".into(), "Basic eA==".into());
    });
    check("user_agent", |it| it.user_agent = Some(" ".into()));
    check("user_agent", |it| it.user_agent = Some("a\r\nb".into()));
    for url in ["https://proxy.example", "socks5://proxy.example", "http://proxy.example/path", "http:///"] {
        let mut it = registration("https://id.example.com/jwks.json");
        it.proxy = url.parse().ok();
        if it.proxy.is_some() {
            is_validation(it.validate(), "proxy");
        }
    }
    check("connect_timeout", |it| it.connect_timeout = Some(Duration::ZERO));
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
    check(|it| it.tls.ca = Some(Material::inline(Authority::new("ours").pem())));
    check(|it| {
        let authority = Authority::new("ours");
        it.tls.client_certificate = Some(secured::client_certificate(&authority.client("us")));
    });
    check(|it| it.headers = (0..64).map(|n| (format!("x-{n}"), "".into())).collect());
    check(|it| it.bearer_token = Some(Material::inline(" token\n")));
    check(|it| it.bearer_token = Some(Material::file("not there yet")));
    check(|it| it.connect_timeout = Some(Duration::from_nanos(1)));
    check(|it| it.proxy = Some("http://user:password@proxy.example:3128/".parse().unwrap()));
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
        it.connect_timeout = Some(ever);
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

#[tokio::test]
async fn knob_with_store() {
    let idp = IdentityProvider::start();
    let store = jwks_cache_testkit::MemoryStore::new();
    for (with, restored) in [(true, false), (true, true), (false, false)] {
        let builder = Registry::builder().require_https(false);
        let builder = if with { builder.with_store(Arc::new(store.clone())) } else { builder };
        let registry = builder.build();
        registry.register(registration(idp.jwks_url())).await.unwrap();
        let before = idp.jwks_hits();
        soon(registry.resolve(TENANT, PROVIDER, None)).await.unwrap();
        let status = registry.provider_status(TENANT, PROVIDER).await.unwrap();
        assert_eq!(status.last_refresh.is_some() && idp.jwks_hits() == before, restored, "{with}");
        registry.shutdown().await;
    }
}

#[tokio::test]
async fn knob_snapshot_keys() {
    let idp = IdentityProvider::start();
    let store = jwks_cache_testkit::MemoryStore::new();
    let hold = async |ring: Option<u8>| {
        let builder = Registry::builder().require_https(false).with_store(Arc::new(store.clone()));
        let registry = match ring {
            Some(secret) => builder.snapshot_keys(jwks_cache::KeyRing::new([[secret; 32]]).unwrap()),
            None => builder,
        }
        .build();
        registry.register(registration(idp.jwks_url())).await.unwrap();
        let loaded = registry.provider_status(TENANT, PROVIDER).await.unwrap().last_refresh.is_some();
        soon(registry.refresh_and_wait(TENANT, PROVIDER)).await.unwrap();
        registry.shutdown().await;
        loaded
    };
    assert!(!hold(None).await && hold(None).await, "unsigned, and taken");
    assert!(!hold(Some(1)).await && hold(Some(1)).await && !hold(Some(2)).await);
}

#[cfg(feature = "redis")]
#[tokio::test]
async fn knob_redis_namespace_and_with_redis_client() {
    use std::io::{Read, Write};
    // A server that only listens: the first command after the greeting names the key.
    for (namespace, first) in [(None, "jwks-cache:acme:main"), (Some("blue"), "blue:acme:main")] {
        for namespace_first in [true, false] {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let client = redis_client(listener.local_addr().unwrap().port());
            let heard = std::thread::spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                let (mut said, mut part) = (String::new(), [0; 4096]);
                while !said.contains(":acme:main") {
                    let length = stream.read(&mut part).unwrap();
                    assert!(length > 0, "{said}");
                    said.push_str(&String::from_utf8_lossy(&part[..length]));
                    let _ = stream.write_all(b"+OK\r\n+OK\r\n");
                }
                said
            });
            let builder = Registry::builder().require_https(false);
            let builder = match namespace {
                Some(namespace) if namespace_first => {
                    builder.redis_namespace(namespace).with_redis_client(client)
                }
                Some(namespace) => builder.with_redis_client(client).redis_namespace(namespace),
                None => builder.with_redis_client(client),
            };
            let registry = builder.build();
            let idp = IdentityProvider::start();
            registry.register(registration(idp.jwks_url())).await.unwrap();
            soon(registry.resolve(TENANT, PROVIDER, None)).await.unwrap();
            let heard = soon(tokio::task::spawn_blocking(move || heard.join().unwrap())).await.unwrap();
            assert!(heard.contains(first), "{heard}");
        }
    }
    let registry = Registry::builder().redis_namespace("{one-slot}").build();
    is_validation(registry.register(registration("https://id.example.com/jwks")).await, "redis_namespace");
}

#[cfg(feature = "redis")]
fn redis_client(port: u16) -> jwks_cache::redis::Client {
    jwks_cache::redis::Client::open(format!("redis://127.0.0.1:{port}")).unwrap()
}
