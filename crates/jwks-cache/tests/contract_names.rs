//! A program that uses every promised name of the public surface the way a README would: constructors, field
//! access and assignment, methods, `matches!`. It compiles with every combination of features, and behaves.
#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]
#![allow(clippy::result_large_err, reason = "the promised fields of `Error::HttpStatus` are that large")]

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use jwks_cache::cache::manager::{CacheManager, CacheSnapshot};
use jwks_cache::cache::state::{CachePayload, CacheState};
use jwks_cache::reqwest::redirect::Policy;
use jwks_cache::reqwest::{self, StatusCode};
use jwks_cache::security::{self, SpkiFingerprint};
use jwks_cache::{
    Error, IdentityProviderRegistration, JitterStrategy, JwkSet, PersistentSnapshot, ProviderState,
    ProviderStatus, Registry, RegistryBuilder, Result, RetryPolicy, StatusMetric,
};
use jwks_cache_testkit::{IdentityProvider, Origin, Reply};
use serde_json::json;
use tokio::time::Instant;
use url::Url;

fn registration(url: impl AsRef<str>) -> IdentityProviderRegistration {
    IdentityProviderRegistration::new("acme", "main", url).unwrap().with_require_https(false)
}

fn plain() -> Registry {
    Registry::builder().require_https(false).build()
}

#[tokio::test]
async fn a_registry_registers_resolves_refreshes_and_unregisters() -> Result<()> {
    let idp = IdentityProvider::builder().cache_control("max-age=300").start();
    let registry: Registry = plain();
    registry.register(registration(idp.jwks_url())).await?;
    let set: Arc<JwkSet> = registry.resolve("acme", "main", None).await?;
    assert!(set.find("k1").is_some());
    let set = registry.resolve("acme", "main", Some("k1")).await?;
    assert_eq!(set.keys.len(), 1);
    idp.rotate();
    assert_eq!(registry.resolve("acme", "main", Some("k2")).await?.keys.len(), 2);
    assert_eq!(registry.clone().resolve("acme", "main", Some("k2")).await?.keys.len(), 2);
    registry.refresh("acme", "main").await?;
    registry.persist_all().await?;
    registry.restore_from_persistence().await?;
    assert!(registry.unregister("acme", "main").await?);
    assert!(!registry.unregister("acme", "main").await?);
    let gone = registry.resolve("acme", "main", None).await;
    assert!(
        matches!(gone, Err(Error::NotRegistered { tenant, provider }) if tenant == "acme" && provider == "main")
    );
    Ok(())
}

#[tokio::test]
async fn a_builder_takes_its_settings_in_any_order() -> Result<()> {
    let idp = IdentityProvider::start();
    let builder: RegistryBuilder = RegistryBuilder::new();
    let registry = builder
        .add_allowed_domain("example.com")
        .allowed_domains(["Example.ORG"])
        .add_allowed_domain(String::from("127.0.0.1"))
        .default_stale_while_error(Duration::from_secs(3_600))
        .default_refresh_early(Duration::from_secs(20))
        .require_https(false)
        .build();
    registry.register(registration(idp.jwks_url())).await?;
    registry.register(registration("https://id.example.org/")).await?;
    // The later list replaced the earlier name.
    let refused = registry.register(registration("https://id.example.com/")).await;
    assert!(matches!(refused, Err(Error::Security(_))));
    let refused = RegistryBuilder::default().build().register(registration(idp.jwks_url())).await;
    assert!(matches!(refused, Err(Error::Security(_))));
    assert!(
        Registry::new().all_statuses().await.is_empty()
            && Registry::default().all_statuses().await.is_empty()
    );
    assert!(!format!("{registry:?}{:?}", Registry::builder()).is_empty());
    Ok(())
}

#[test]
fn a_registration_is_made_changed_and_checked() -> Result<()> {
    let mut it =
        IdentityProviderRegistration::new("acme", String::from("main"), "http://id.example.com/jwks")?;
    assert!(matches!(it.validate(), Err(Error::Security(_))));
    it = it.with_require_https(false);
    it.validate()?;
    it.allowed_domains = vec![" ID.Example.com. ".into(), "id.example.com".into()];
    it.normalize_allowed_domains();
    assert_eq!(it.allowed_domains, ["id.example.com"]);
    it.tenant_id = "acme-2".into();
    it.provider_id = "main_2".into();
    it.jwks_url = Url::parse("https://id.example.com/keys")?;
    it.require_https = true;
    it.refresh_early = Duration::from_secs(10);
    it.stale_while_error = Duration::from_secs(86_400);
    it.min_ttl = Duration::from_secs(60);
    it.max_ttl = Duration::from_secs(3_600);
    it.default_ttl = Duration::from_secs(600);
    it.max_trust_age = Some(Duration::from_secs(7 * 86_400));
    it.http_strict = false;
    it.max_response_bytes = 65_536;
    it.max_keys = 64;
    it.min_rsa_bits = 3_072;
    it.algorithms = vec![jwks_cache::Algorithm::RS256];
    it.negative_cache_ttl = Duration::from_secs(2);
    it.kid_miss_interval = Duration::from_secs(5);
    it.kid_miss_wait = Duration::from_secs(1);
    it.removal_grace = Duration::ZERO;
    it.refresh_mode = jwks_cache::RefreshMode::Always;
    it.required = false;
    it.stale_wait = Duration::from_millis(100);
    it.max_redirects = 0;
    it.pinned_spki = vec![SpkiFingerprint::from_b64(&"A".repeat(43))?];
    it.prefetch_jitter = Duration::from_secs(1);
    it.retry_policy = RetryPolicy::default();
    it.clone().validate()?;
    it.max_redirects = 11;
    assert!(
        matches!(it.validate(), Err(Error::Validation { field: "max_redirects", reason }) if !reason.is_empty())
    );
    assert!(IdentityProviderRegistration::new("a", "b", "not a url").is_err());
    // Only the URL is parsed; the rest is validated when asked.
    IdentityProviderRegistration::new("", "", "http://x/").unwrap();
    assert!(format!("{it:?}").contains("main_2"));
    Ok(())
}

#[test]
fn a_retry_policy_backs_off_by_its_jitter() {
    let mut policy = RetryPolicy::default();
    policy.validate().unwrap();
    policy.max_retries = 5;
    policy.attempt_timeout = Duration::from_secs(1);
    policy.initial_backoff = Duration::from_millis(100);
    policy.max_backoff = Duration::from_secs(1);
    policy.deadline = Duration::from_secs(20);
    policy.jitter = JitterStrategy::None;
    let waits = [0, 1, 2, 3, 4, 40, u32::MAX].map(|attempt| policy.compute_backoff(attempt).as_millis());
    assert_eq!(waits, [100, 200, 400, 800, 1_000, 1_000, 1_000]);
    assert_eq!(policy.default_backoff(2), policy.compute_backoff(2));

    policy.max_backoff = Duration::MAX;
    assert_eq!(policy.compute_backoff(40), Duration::from_millis(100 << 40));
    assert_eq!(policy.compute_backoff(u32::MAX), Duration::MAX);
    policy.max_backoff = Duration::from_millis(350);
    for (jitter, attempt, most) in [
        (JitterStrategy::Full, 0, 100),
        (JitterStrategy::Full, 1, 200),
        (JitterStrategy::Full, 9, 350),
        (JitterStrategy::Decorrelated, 0, 300),
        (JitterStrategy::Decorrelated, 9, 350),
    ] {
        policy.jitter = jitter;
        for _ in 0..100 {
            let wait = policy.compute_backoff(attempt).as_millis();
            assert!((100..=most).contains(&wait), "{jitter:?} at {attempt}: {wait}");
        }
    }
    assert_eq!(JitterStrategy::default(), JitterStrategy::Full);
    policy.deadline = Duration::ZERO;
    assert!(matches!(policy.validate(), Err(Error::Validation { field: "retry_policy.deadline", .. })));
}

#[test]
fn enumerations_are_spelt_as_promised() {
    let jitters = [JitterStrategy::None, JitterStrategy::Full, JitterStrategy::Decorrelated];
    assert_eq!(json!(jitters), json!(["none", "full", "decorrelated"]));
    let states =
        [ProviderState::Empty, ProviderState::Loading, ProviderState::Ready, ProviderState::Refreshing];
    assert_eq!(json!(states), json!(["Empty", "Loading", "Ready", "Refreshing"]));
    assert_eq!(serde_json::from_value::<ProviderState>(json!("Ready")).unwrap(), states[2]);
    assert_eq!(serde_json::from_value::<JitterStrategy>(json!("none")).unwrap(), jitters[0]);
}

#[tokio::test]
async fn a_status_tells_how_a_provider_is_doing() -> Result<()> {
    let idp = IdentityProvider::builder().cache_control("max-age=300").start();
    let registry = plain();
    let mut second = registration(idp.jwks_url());
    second.provider_id = "backup".into();
    registry.register(registration(idp.jwks_url())).await?;
    registry.register(second).await?;
    let status: ProviderStatus = registry.provider_status("acme", "main").await?;
    assert_eq!((status.state, status.hit_rate, status.stale_serve_ratio), (ProviderState::Empty, 0.0, 0.0));
    assert!(status.last_refresh.is_none() && status.next_refresh.is_none() && status.expires_at.is_none());
    for _ in 0..4 {
        registry.resolve("acme", "main", None).await?;
    }
    let status = registry.provider_status("acme", "main").await?;
    assert_eq!((&*status.tenant_id, &*status.provider_id), ("acme", "main"));
    assert_eq!((status.state, status.error_count, status.hit_rate), (ProviderState::Ready, 0, 0.75));
    let (last, next, end) =
        (status.last_refresh.unwrap(), status.next_refresh.unwrap(), status.expires_at.unwrap());
    assert!(last < next && next < end);
    let value = |name: &str| {
        let metric: &StatusMetric = status.metrics.iter().find(|metric| metric.name == name).expect(name);
        let labels: &HashMap<String, String> = &metric.labels;
        assert_eq!((&*labels["tenant"], &*labels["provider"]), ("acme", "main"));
        metric.value
    };
    assert_eq!((value("jwks_cache_requests_total"), value("jwks_cache_hits_total")), (4.0, 3.0));
    assert_eq!((value("jwks_cache_stale_total"), value("jwks_cache_refresh_errors_total")), (0.0, 0.0));
    assert!(value("jwks_cache_last_refresh_micros") > 0.0);

    let all = registry.all_statuses().await;
    assert_eq!(all.iter().map(|it| &*it.provider_id).collect::<Vec<_>>(), ["backup", "main"]);
    let back: ProviderStatus = serde_json::from_value(json!(status)).unwrap();
    assert_eq!(
        (back.state, back.expires_at, back.metrics.len()),
        (status.state, status.expires_at, status.metrics.len())
    );
    let bare: StatusMetric = serde_json::from_value(json!({"name": "x", "value": 1.5})).unwrap();
    assert!(bare.labels.is_empty());
    Ok(())
}

#[tokio::test]
async fn a_cache_manager_serves_one_provider() -> Result<()> {
    let idp = IdentityProvider::builder().cache_control("max-age=300").start();
    let cache: CacheManager = CacheManager::new(registration(idp.jwks_url()))?;
    let _: &jwks_cache::CacheManager = &cache;
    let _: &jwks_cache::cache::CacheManager = &cache;
    let before: CacheSnapshot = cache.snapshot().await;
    assert!(matches!(before.state, CacheState::Empty));
    assert!(cache.persistent_snapshot().await?.is_none());

    let gate = idp.origin().hold("/jwks.json");
    let reader = tokio::spawn({
        let cache = cache.clone();
        async move { cache.resolve(Some("k1")).await.map(|set| set.keys.len()) }
    });
    idp.origin().wait_for_hits("/jwks.json", 1).await;
    assert!(matches!(cache.snapshot().await.state, CacheState::Loading));
    gate.release();
    assert_eq!(reader.await.unwrap()?, 1);

    let snapshot: jwks_cache::CacheSnapshot = cache.snapshot().await;
    let (captured_at, wall): (Instant, DateTime<Utc>) =
        (snapshot.captured_at, snapshot.captured_at_wallclock);
    assert_eq!(snapshot.to_datetime(captured_at), Some(wall));
    assert_eq!(
        snapshot.to_datetime(captured_at + Duration::from_secs(5)),
        Some(wall + Duration::from_secs(5))
    );
    let CacheState::Ready(payload) = snapshot.state.clone() else { panic!("{snapshot:?}") };
    let payload: CachePayload = payload;
    assert_eq!((payload.jwks.keys.len(), payload.error_count, payload.retry_backoff), (1, 0, None));
    assert!(payload.etag.is_some() && payload.last_modified.is_none());
    assert!(payload.last_refresh_at <= wall);
    assert!(payload.next_refresh_at < payload.expires_at);
    let (end, deadline): (Instant, Option<Instant>) = (payload.expires_at, payload.stale_deadline);
    assert_eq!(deadline.unwrap() - end, jwks_cache::DEFAULT_STALE_WHILE_ERROR);
    assert!(!payload.is_expired(captured_at) && !payload.can_serve_stale(captured_at));
    assert!(payload.is_expired(end) && payload.can_serve_stale(end));
    assert!(payload.is_expired(deadline.unwrap()) && !payload.can_serve_stale(deadline.unwrap()));

    let invalid = CacheManager::new(IdentityProviderRegistration::new("", "b", "https://x/")?);
    assert!(matches!(invalid, Err(Error::Validation { field: "tenant_id", .. })));
    Ok(())
}

#[tokio::test]
async fn a_cache_manager_stores_restores_and_refreshes() -> Result<()> {
    let idp = IdentityProvider::builder().cache_control("max-age=300").start();
    let first = CacheManager::new(registration(idp.jwks_url()))?;
    first.resolve(None).await?;
    let stored: PersistentSnapshot = first.persistent_snapshot().await?.unwrap();
    stored.validate(&registration(idp.jwks_url()))?;
    let (expires_at, persisted_at): (DateTime<Utc>, DateTime<Utc>) = (stored.expires_at, stored.persisted_at);
    assert!(persisted_at < expires_at && stored.last_modified.is_none() && stored.etag.is_some());
    assert!(stored.jwks_json.contains("k1"));
    assert_eq!((&*stored.tenant_id, &*stored.provider_id), ("acme", "main"));

    let mut again = registration(idp.jwks_url());
    again.prefetch_jitter = Duration::from_secs(200);
    let second = CacheManager::new(again)?;
    second.restore_snapshot(stored.clone()).await?;
    assert_eq!(second.resolve(Some("k1")).await?.keys.len(), 1);
    assert_eq!(idp.jwks_hits(), 1);
    let gate = idp.origin().hold("/jwks.json");
    // It returns when the flight has started: keys are servable.
    second.trigger_refresh().await?;
    assert!(
        matches!(second.snapshot().await.state, CacheState::Refreshing(payload) if payload.jwks.keys.len() == 1)
    );
    gate.release();

    let mut foreign = stored;
    foreign.tenant_id = "other".into();
    let refused = second.restore_snapshot(foreign).await;
    assert!(matches!(refused, Err(Error::Validation { field: "tenant_id", .. })));
    Ok(())
}

#[tokio::test]
async fn a_cache_manager_uses_the_client_it_is_given() -> Result<()> {
    // The re-exported client brings no TLS backend of its own. Another test may have been first.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let origin = Origin::start();
    origin.set("/keys", Reply::json(r#"{"keys":[]}"#));
    origin.set("/jwks", Reply::redirect(302, "/keys"));
    let client = |policy| reqwest::Client::builder().redirect(policy).user_agent("mine/1").build();

    let cache = CacheManager::with_client(registration(origin.url("/jwks")), client(Policy::none())?);
    assert!(cache.resolve(None).await?.keys.is_empty());
    assert_eq!(origin.requests("/keys")[0].header("user-agent"), Some("mine/1"));

    let following = CacheManager::with_client(registration(origin.url("/jwks")), client(Policy::default())?);
    assert!(matches!(following.resolve(None).await, Err(Error::Security(_))));

    let mut pinned = registration(origin.url("/jwks"));
    pinned.pinned_spki = vec![SpkiFingerprint::from_b64(&"A".repeat(43))?];
    let pinned = CacheManager::with_client(pinned, client(Policy::none())?);
    assert!(
        matches!(pinned.resolve(None).await, Err(Error::Security(reason)) if reason.contains("pinned_spki"))
    );
    Ok(())
}

#[test]
fn security_checks_stand_on_their_own() -> Result<()> {
    let der: &[u8] = b"a public key";
    let print: [u8; 32] = security::fingerprint_spki(der);
    let standard = "//79/Pv6+fj39vX08/Lx8O/u7ezr6uno5+bl5OPi4eA=";
    let pin = SpkiFingerprint::from_b64(standard)?;
    assert_eq!(pin, SpkiFingerprint::from_b64(&standard.replace('/', "_").replace('+', "-"))?);
    assert_eq!(pin.as_bytes()[..2], [0xff, 0xfe]);
    assert_eq!(format!("{pin:?}"), standard);
    assert_eq!(json!(pin), json!(standard));
    assert_eq!(serde_json::from_value::<SpkiFingerprint>(json!(standard))?, pin);
    assert!(SpkiFingerprint::from_b64("c2hvcnQ=").is_err() && SpkiFingerprint::from_b64("!").is_err());
    assert!(std::collections::HashSet::from([pin.clone()]).contains(&pin));

    security::verify_spki_pins([der], &[])?;
    assert!(matches!(security::verify_spki_pins([der], std::slice::from_ref(&pin)), Err(Error::Security(_))));
    assert!(security::verify_spki_pins(std::iter::empty::<&[u8]>(), std::slice::from_ref(&pin)).is_err());
    let matching: SpkiFingerprint = serde_json::from_value(json!(encoded(&print)))?;
    security::verify_spki_pins([&b"another"[..], der], &[pin, matching])?;

    assert_eq!(security::canonicalize_dns_name(" ID.Example.COM. ").as_deref(), Some("id.example.com"));
    assert_eq!(security::canonicalize_dns_name(" . "), None);
    let list = vec!["B.example".to_owned(), " ".into(), "a.example.".into(), "b.EXAMPLE".into()];
    let list = security::normalize_allowlist(list);
    assert_eq!(list, ["b.example", "a.example"]);
    assert!(security::host_is_allowed("x.A.example", &list) && security::host_is_allowed("any.host", &[]));
    assert!(!security::host_is_allowed("bada.example", &list));
    security::enforce_https(&Url::parse("https://id.example.com")?)?;
    assert!(matches!(
        security::enforce_https(&Url::parse("http://id.example.com")?),
        Err(Error::Security(_))
    ));
    Ok(())
}

fn encoded(bytes: &[u8]) -> String {
    base64::Engine::encode(&base64::engine::general_purpose::STANDARD, bytes)
}

#[tokio::test]
async fn errors_say_what_went_wrong_and_convert_from_their_causes() {
    fn converted(cause: impl Into<Error>) -> String {
        let error: Error = cause.into();
        assert!(std::error::Error::source(&error).is_some(), "{error:?}");
        error.to_string()
    }
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    converted(Url::parse("no url").unwrap_err());
    converted(serde_json::from_str::<u8>("{").unwrap_err());
    converted(http::Request::builder().uri("\n").body(()).unwrap_err());
    converted(reqwest::Client::new().get("no url").build().unwrap_err());

    let idp = IdentityProvider::start();
    idp.fail_with(418);
    let registry = plain();
    let mut url = idp.jwks_url();
    url.set_query(Some("secret=1"));
    registry.register(registration(&url)).await.unwrap();
    match registry.resolve("acme", "main", None).await {
        Err(Error::HttpStatus { status, url, body, .. }) => {
            let _: &Option<String> = &body;
            assert_eq!((status, url, body), (StatusCode::IM_A_TEAPOT, idp.jwks_url(), None));
        }
        other => panic!("{other:?}"),
    }
    let mut unread = registration(&url);
    unread.provider_id = "unread".into();
    registry.register(unread).await.unwrap();
    registry.shutdown().await;
    let unavailable = registry.resolve("acme", "unread", None).await;
    assert!(matches!(unavailable, Err(Error::Cache(reason)) if reason.contains("shut down")));
}

#[test]
fn constants_have_their_values() {
    assert_eq!(jwks_cache::DEFAULT_REFRESH_EARLY, Duration::from_secs(30));
    assert_eq!(jwks_cache::DEFAULT_STALE_WHILE_ERROR, Duration::from_secs(60));
    assert_eq!(jwks_cache::MIN_TTL_FLOOR, Duration::from_secs(30));
    assert_eq!(jwks_cache::DEFAULT_MAX_TTL, Duration::from_secs(24 * 3_600));
    assert_eq!(jwks_cache::DEFAULT_MAX_RESPONSE_BYTES, 1_048_576_u64);
    assert_eq!(jwks_cache::DEFAULT_PREFETCH_JITTER, Duration::from_secs(5));
    assert_eq!(jwks_cache::MAX_REDIRECTS, 10_u8);
}

#[test]
fn third_parties_are_the_same_types_through_our_doors() {
    let set: jwks_cache::jsonwebtoken::jwk::JwkSet = JwkSet { keys: Vec::new() };
    let _: Option<jwks_cache::reqwest::Client> = None;
    assert!(set.keys.is_empty());
    fn is_shared<T: Send + Sync + Clone + 'static>() {}
    is_shared::<Registry>();
    is_shared::<CacheManager>();
    is_shared::<CacheSnapshot>();
}

#[cfg(feature = "metrics")]
#[tokio::test]
async fn metrics_count_lookups_and_refreshes() -> Result<()> {
    use jwks_cache::metrics::{ProviderMetrics, ProviderMetricsSnapshot};

    let idp = IdentityProvider::builder().cache_control("max-age=300").start();
    let cache = CacheManager::new(registration(idp.jwks_url()))?;
    let metrics: Arc<ProviderMetrics> = cache.metrics();
    let none: ProviderMetricsSnapshot = metrics.snapshot();
    assert_eq!((none.total_requests, none.hit_rate(), none.stale_ratio()), (0, 0.0, 0.0));
    assert_eq!(none.last_refresh_micros, None);
    for _ in 0..4 {
        cache.resolve(None).await?;
    }
    let some = metrics.snapshot();
    assert_eq!((some.total_requests, some.cache_hits, some.stale_serves), (4, 3, 0));
    assert_eq!((some.refresh_successes, some.refresh_errors), (1, 0));
    assert!(some.last_refresh_micros.is_some());
    assert_eq!((some.hit_rate(), some.stale_ratio()), (0.75, 0.0));
    Ok(())
}

#[cfg(feature = "prometheus")]
#[tokio::test]
async fn the_exporter_renders_every_promised_metric() -> Result<()> {
    jwks_cache::install_default_exporter()?;
    jwks_cache::install_default_exporter()?;
    let idp = IdentityProvider::builder().cache_control("max-age=300").start();
    let registry = plain();
    let mut registration = registration(idp.jwks_url());
    (registration.tenant_id, registration.provider_id) = ("rendered".into(), "one".into());
    registry.register(registration).await?;
    for _ in 0..3 {
        registry.resolve("rendered", "one", None).await?;
    }
    // What was counted is forwarded at the latest when the provider goes.
    registry.unregister("rendered", "one").await?;
    let page = jwks_cache::metrics::prometheus_handle().unwrap().render();
    let value = |name: &str, label: &str| {
        let of_ours = |line: &&str| {
            line.strip_prefix(name).is_some_and(|rest| rest.starts_with('{'))
                && [r#"tenant="rendered""#, r#"provider="one""#, label].iter().all(|part| line.contains(part))
        };
        let line = page.lines().find(of_ours).unwrap_or_else(|| panic!("no {name} in\n{page}"));
        line.rsplit(' ').next().unwrap().to_owned()
    };
    assert_eq!(value("jwks_cache_requests_total", ""), "3");
    assert_eq!(value("jwks_cache_hits_total", ""), "2");
    assert_eq!(value("jwks_cache_misses_total", ""), "1");
    assert_eq!(value("jwks_cache_stale_total", ""), "0");
    assert_eq!(value("jwks_cache_refresh_total", r#"status="success""#), "1");
    assert_eq!(value("jwks_cache_refresh_errors_total", ""), "0");
    assert_eq!(value("jwks_cache_refresh_duration_seconds_count", ""), "1");
    Ok(())
}
