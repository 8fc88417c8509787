//! What operators are told: spans and events per flight, counters in the recorder, and nothing on a hit.
#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

mod stage;

use std::time::Duration;

use jwks_cache::{Algorithm, RefreshMode};
use jwks_cache_testkit::Reply;
use stage::record::{Record, Records};
use stage::served::{HELD, JWKS, Stage, set};
use stage::soon;

/// The last flight's span.
fn last_flight(records: &[Record]) -> &Record {
    records.iter().rev().find(|record| record.name == "jwks_cache_flight").unwrap()
}

fn check_flight(records: &Records, expected: [&str; 4]) {
    let records = records.all();
    let span = last_flight(&records);
    assert_eq!((span.field("tenant"), span.field("provider")), (Some("acme"), Some("main")), "{span:?}");
    let fields = ["reason", "attempt", "status", "outcome"].map(|name| span.field(name).unwrap_or("none"));
    assert_eq!(fields, expected, "{span:?}");
}

#[tokio::test]
async fn a_flight_has_a_span_that_tells_why_it_began_and_how_it_ended() {
    let (records, _listening) = Records::listen();
    let stage = Stage::new();
    let mut registration = stage.registration();
    registration.refresh_mode = RefreshMode::Always;
    stage.register(registration).await;
    stage.origin.set(JWKS, Reply::json(set(&HELD)).etag("\"1\"").conditional());

    stage.resolve().await.unwrap();
    check_flight(&records, ["read", "1", "200", "success"]);
    stage.refresh().await.unwrap();
    check_flight(&records, ["requested", "1", "304", "not_modified"]);
    stage.clock.advance(Duration::from_secs(20));
    soon(stage.registry.key("acme", "main", Some("unknown"), Algorithm::ES256)).await.unwrap_err();
    check_flight(&records, ["missing_kid", "1", "304", "not_modified"]);
    stage.clock.advance(Duration::from_secs(299));
    let landed = |span: &Record| span.field("reason") == Some("timer") && span.field("outcome").is_some();
    soon(records.wait_for(|records| landed(last_flight(records)))).await;
    check_flight(&records, ["timer", "1", "304", "not_modified"]);

    stage.origin.set(JWKS, Reply::status(503));
    stage.refresh().await.unwrap_err();
    check_flight(&records, ["requested", "3", "503", "error"]);
    let failed = records.all().into_iter().filter(|record| record.field("message") == Some("attempt failed"));
    assert_eq!(
        failed.filter_map(|event| event.field("attempt").map(str::to_owned)).collect::<Vec<_>>(),
        ["1", "2", "3"]
    );
    stage.origin.set(JWKS, Reply::json("{}"));
    stage.refresh().await.unwrap_err();
    check_flight(&records, ["requested", "1", "200", "error"]);
    stage.origin.set(JWKS, Reply::json(r#"{"keys":[]}"#));
    stage.refresh().await.unwrap_err();
    check_flight(&records, ["requested", "1", "200", "error"]);
    stage.origin.pause();
    stage.refresh().await.unwrap_err();
    check_flight(&records, ["requested", "1", "none", "error"]);
}

#[tokio::test]
async fn hits_emit_no_span_and_no_event() {
    let stage = Stage::new();
    stage.register(stage.registration()).await;
    stage.hold().await;
    let handle = stage.registry.provider("acme", "main").unwrap();
    let (records, _listening) = Records::listen();
    for _ in 0..10_000 {
        stage.registry.resolve("acme", "main", Some("held-1")).await.unwrap();
        stage.registry.key("acme", "main", Some("held-2"), Algorithm::ES256).await.unwrap();
        handle.resolve(None).await.unwrap();
        // Keys that are there, but not for this: no event either.
        stage.registry.key("acme", "main", Some("held-2"), Algorithm::RS256).await.unwrap_err();
    }
    assert_eq!(records.all().len(), 0, "{:?}", records.all());
    assert_eq!(stage.metric("hits_total").await, 30_000.0);
    // The recorder does work.
    stage.refresh().await.unwrap_err();
    assert!(!records.all().is_empty());
}

#[cfg(feature = "prometheus")]
mod prometheus {
    use std::collections::{HashMap, HashSet};

    use super::*;
    use jwks_cache::metrics::prometheus_handle;
    use jwks_cache::{ProviderStatus, What};

    /// The value of every series of a tenant, by name and further labels.
    fn rendered(tenant: &str) -> HashMap<String, f64> {
        series_of(tenant, &prometheus_handle().unwrap().render())
    }

    fn series_of(tenant: &str, text: &str) -> HashMap<String, f64> {
        let mine = format!("tenant=\"{tenant}\"");
        let lines = text.lines().filter(|line| line.contains(&mine) && line.contains("provider=\"main\""));
        lines
            .map(|line| {
                let (series, value) = line.rsplit_once(' ').unwrap();
                let (name, labels) = series.split_once('{').unwrap();
                let further = labels.trim_end_matches('}').split(',');
                let further: Vec<_> =
                    further.filter(|label| *label != mine && *label != "provider=\"main\"").collect();
                let series = [&[name], &further[..]].concat().join(" ");
                (series, value.parse().unwrap())
            })
            .collect()
    }

    async fn stage_of(tenant: &str, recorded: bool) -> Stage {
        let stage = Stage::with(|builder| builder.record_metrics(recorded));
        let mut registration = stage.registration();
        registration.tenant_id = tenant.to_owned();
        registration.kid_miss_wait = Duration::from_secs(5);
        stage.register(registration).await;
        stage
    }

    /// Whether what is rendered tells the numbers of the status.
    fn agrees(status: &ProviderStatus, rendered: &HashMap<String, f64>, which: fn(&str) -> bool) -> bool {
        status.metrics.iter().filter(|metric| which(&metric.name)).all(|metric| {
            let further = metric.labels.iter().filter(|(name, _)| *name != "tenant" && *name != "provider");
            let further = further.map(|(name, value)| format!(" {name}=\"{value}\"")).collect::<String>();
            rendered.get(&format!("{}{further}", metric.name)) == Some(&metric.value)
        })
    }

    /// A failed lookup, a miss, hits, a 304, an unknown kid, a failed refresh, stale answers.
    async fn live(stage: &Stage, tenant: &str) {
        let (registry, origin) = (&stage.registry, &stage.origin);
        let refresh = async || {
            stage.clock.advance(Duration::from_secs(1));
            soon(registry.refresh_and_wait(tenant, "main")).await
        };
        origin.push(JWKS, Reply::status(404));
        soon(registry.resolve(tenant, "main", None)).await.unwrap_err();
        origin.set(JWKS, Reply::json(set(&HELD)).etag("\"1\"").conditional());
        soon(registry.resolve(tenant, "main", None)).await.unwrap();
        for _ in 0..10 {
            registry.resolve(tenant, "main", None).await.unwrap();
        }
        refresh().await.unwrap();
        soon(registry.key(tenant, "main", Some("unknown"), Algorithm::ES256)).await.unwrap_err();
        origin.set(JWKS, Reply::status(500));
        refresh().await.unwrap_err();
        stage.clock.advance(Duration::from_secs(301));
        let mut events = registry.subscribe();
        for _ in 0..3 {
            registry.resolve(tenant, "main", None).await.unwrap();
        }
        let failed =
            async { while !matches!(events.next().await.unwrap().what, What::RefreshFailed { .. }) {} };
        soon(failed).await;
    }

    #[tokio::test]
    async fn the_recorder_agrees_with_the_status_after_a_flush() {
        jwks_cache::install_default_exporter().unwrap();
        jwks_cache::install_default_exporter().unwrap();
        let tenant = "recorded";
        let stage = stage_of(tenant, true).await;
        let registry = &stage.registry;
        live(&stage, tenant).await;

        let status = async || registry.provider_status(tenant, "main").await.unwrap();
        let agree = async || agrees(&status().await, &rendered(tenant), |name| name.ends_with("_total"));
        assert!(agree().await, "at a landing: {:#?}\n{:#?}", status().await.metrics, rendered(tenant));

        // What readers count alone waits for a tick. Nothing goes over sockets now, so time may jump there.
        registry.resolve(tenant, "main", None).await.unwrap();
        assert!(!agree().await);
        tokio::time::pause();
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(agree().await, "at a tick: {:#?}\n{:#?}", status().await.metrics, rendered(tenant));

        let rendered = rendered(tenant);
        let value =
            |series: &str| rendered.get(series).copied().unwrap_or_else(|| panic!("{series}: {rendered:#?}"));
        assert_eq!(value("jwks_cache_hits_total"), 14.0);
        assert_eq!(value("jwks_cache_stale_total"), 4.0);
        assert_eq!(value("jwks_cache_misses_total"), 1.0);
        assert_eq!(value("jwks_cache_requests_total"), 17.0);
        assert_eq!(value("jwks_cache_kid_misses_total outcome=\"waited\""), 1.0);
        assert_eq!(value("jwks_cache_refresh_total status=\"success\""), 1.0);
        assert_eq!(value("jwks_cache_refresh_total status=\"not_modified\""), 2.0);
        let errors = value("jwks_cache_refresh_errors_total");
        assert_eq!(value("jwks_cache_refresh_total status=\"error\""), errors);
        assert_eq!(value("jwks_cache_refresh_duration_seconds_count"), errors + 3.0);
        for metric in status().await.metrics {
            assert_eq!((&*metric.labels["tenant"], &*metric.labels["provider"]), (tenant, "main"));
        }
        assert!(status().await.metrics.iter().any(|metric| metric.name == "jwks_cache_last_refresh_micros"));
    }

    #[tokio::test]
    async fn a_provider_that_goes_away_loses_no_count() {
        jwks_cache::install_default_exporter().unwrap();
        let stage = stage_of("leaving", true).await;
        stage.origin.set(JWKS, Reply::json(set(&HELD)));
        for _ in 0..5 {
            soon(stage.registry.resolve("leaving", "main", None)).await.unwrap();
        }
        stage.registry.unregister("leaving", "main").await.unwrap();
        assert_eq!(rendered("leaving")["jwks_cache_requests_total"], 5.0);
    }

    #[tokio::test]
    async fn what_is_not_recorded_is_rendered_when_asked_and_goes_with_its_provider() {
        jwks_cache::install_default_exporter().unwrap();
        let tenant = "unrecorded";
        let stage = stage_of(tenant, false).await;
        live(&stage, tenant).await;
        let text = || stage.registry.metrics_text().collect::<String>();
        let status = stage.registry.provider_status(tenant, "main").await.unwrap();
        let series = series_of(tenant, &text());
        assert!(agrees(&status, &series, |_| true), "{:#?}\n{series:#?}", status.metrics);
        let errors = series["jwks_cache_refresh_errors_total"];
        assert_eq!(series["jwks_cache_refresh_duration_seconds_count"], errors + 3.0);
        assert_eq!(series["jwks_cache_refresh_duration_seconds_bucket le=\"+Inf\""], errors + 3.0);
        let within =
            |bound: &str| series[&format!("jwks_cache_refresh_duration_seconds_bucket le=\"{bound}\"")];
        // Buckets hold those before them, and nothing here takes long.
        assert!(within("0.005") <= within("0.05") && within("0.05") <= within("1"));
        assert_eq!(within("10"), errors + 3.0);
        assert!(series["jwks_cache_refresh_duration_seconds_sum"] > 0.0);
        assert_eq!(series["jwks_cache_upstream_responses_total code=\"304\""], 2.0);
        assert!(rendered(tenant).is_empty(), "{:#?}", rendered(tenant));

        stage.registry.unregister(tenant, "main").await.unwrap();
        assert!(series_of(tenant, &text()).is_empty());
    }

    #[tokio::test]
    async fn a_text_in_pieces_names_each_metric_once() {
        let stage = Stage::with(|builder| builder.record_metrics(false));
        for at in 0..500 {
            let mut registration = stage.registration();
            registration.tenant_id = format!("tenant-{at}");
            stage.register(registration).await;
        }
        let pieces: Vec<String> = stage.registry.metrics_text().collect();
        assert!(pieces.len() > 10 && pieces.iter().all(|piece| piece.len() < 20_000));
        let text = pieces.concat();
        let (mut named, mut name) = (HashSet::new(), "");
        for line in text.lines() {
            if let Some(head) = line.strip_prefix("# TYPE ") {
                name = head.split(' ').next().unwrap();
                assert!(named.insert(name), "{name} is named twice");
            } else if !line.starts_with('#') {
                assert_eq!(line.split('{').next(), Some(name), "{line}");
            }
        }
        let requests = text.lines().filter(|line| line.starts_with("jwks_cache_requests_total{"));
        assert_eq!(requests.count(), 500);
        // Dashboards know them by these names.
        let mut named: Vec<_> = named.into_iter().map(|of| of.trim_start_matches("jwks_cache_")).collect();
        named.sort_unstable();
        assert_eq!(
            named,
            [
                "credentials_not_renewed_total",
                "expiry_timestamp_seconds",
                "failed_lookups_total",
                "hits_total",
                "keys",
                "kid_fetches_total",
                "kid_misses_total",
                "last_refresh_micros",
                "last_refresh_timestamp_seconds",
                "lost_flights_total",
                "misses_total",
                "not_modified_total",
                "pin_mismatches_total",
                "refresh_duration_seconds",
                "refresh_errors_total",
                "refresh_total",
                "refused_addresses_total",
                "requests_total",
                "set_hash",
                "shared_refreshes_total",
                "stale_total",
                "store_lag_seconds",
                "store_operations_total",
                "upstream_requests_total",
                "upstream_responses_total",
            ]
        );
    }
}
