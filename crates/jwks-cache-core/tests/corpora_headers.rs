//! Real and made-up response headers from the shared corpora, judged by `freshness`.

mod corpora;

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use corpora::corpora;
use http::{HeaderMap, HeaderName, HeaderValue};
use jwks_cache_core::Moment;
use jwks_cache_core::freshness::{FreshnessRules, Stated, StoredHeaders, Timing, assess, retry_after};
use serde_json::Value;

/// Told apart from every lifetime in the corpora.
const DEFAULT_TTL: Duration = Duration::from_secs(777);
const MAX_TTL: Duration = Duration::from_secs(86_400);

#[test]
fn headers_of_the_corpora_give_the_lifetimes_expected() {
    let Some(cases) = cases() else { return };
    let (mut checked, mut skipped) = (0, 0);
    for case in &cases {
        let name = case["idp"].as_str().expect("a name");
        if name == "syn:10k-headers" {
            println!("skipped {name}: the transport bounds the number of fields");
            skipped += 1;
            continue;
        }
        let headers = headers(case);
        match case["status"].as_u64() {
            Some(200) => check_lifetime(name, case, &StoredHeaders::from_response(&headers)),
            Some(304) => {
                let mut stored = StoredHeaders::from_response(&HeaderMap::from_iter([(
                    http::header::ETAG,
                    HeaderValue::from_static("\"a\""),
                )]));
                stored.merge_not_modified(&headers);
                assert_eq!(stored.etag(), Some("\"a\""), "{name}: the validator stays");
                check_lifetime(name, case, &stored);
            }
            _ if headers.contains_key("retry-after") => check_retry_after(name, &headers),
            status => {
                println!("skipped {name}: headers of status {status:?} say nothing about freshness");
                skipped += 1;
                continue;
            }
        }
        checked += 1;
    }
    println!("headers/cases.json: {checked} checked, {skipped} skipped, of {}", cases.len());
    assert!(checked > 0);
}

fn check_lifetime(name: &str, case: &Value, stored: &StoredHeaders) {
    // No floor: what is expected is the lifetime before it is raised.
    let rules = FreshnessRules {
        min_ttl: Duration::ZERO,
        max_ttl: MAX_TTL,
        default_ttl: DEFAULT_TTL,
        stale_while_error: Duration::from_secs(60),
        http_strict: false,
    };
    let timing = Timing { requested_at: Moment::ORIGIN, received_at: Moment::ORIGIN, received_wall: now() };
    let got = assess(stored, &timing, &rules);
    let note = case["note"].as_str().unwrap_or_default();
    let nothing_stated = note.contains("default_ttl") || note.contains("no explicit freshness");
    let want = match &case["expect_ttl"] {
        Value::String(word) if word == "max_ttl" => MAX_TTL,
        Value::Null => DEFAULT_TTL,
        Value::Number(_) if nothing_stated => DEFAULT_TTL,
        seconds => Duration::from_secs(seconds.as_u64().expect("seconds")),
    };
    assert_eq!(got.lifetime, want.min(MAX_TTL), "{name}: {got}");
    assert_eq!(got.stated == Stated::Nothing, want == DEFAULT_TTL, "{name}: {got}");
}

fn check_retry_after(name: &str, headers: &HeaderMap) {
    let text = headers["retry-after"].to_str().expect("text");
    let want = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let date: DateTime<Utc> = httpdate::parse_http_date(text).expect("a date").into();
            (date - now()).to_std().unwrap_or_default()
        }
    };
    assert_eq!(retry_after(headers, now()), Some(want), "{name}");
}

/// The moment that the corpora's fixed dates are written around.
fn now() -> DateTime<Utc> {
    DateTime::from_timestamp(1_767_225_600, 0).expect("2026-01-01")
}

fn headers(case: &Value) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in case["headers"].as_object().expect("an object") {
        let name: HeaderName = name.parse().expect("a field name");
        let values = match value {
            Value::Array(values) => values.as_slice(),
            one => std::slice::from_ref(one),
        };
        for value in values {
            let text = filled_in(value.as_str().expect("text"));
            map.append(name.clone(), HeaderValue::from_str(&text).expect("a field value"));
        }
    }
    map
}

/// `<now-1h>` and the like, as an HTTP date.
fn filled_in(text: &str) -> String {
    let Some(offset) = text.strip_prefix("<now").and_then(|rest| rest.strip_suffix('>')) else {
        return text.to_owned();
    };
    let (amount, unit) = offset.split_at(offset.len().saturating_sub(1));
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        "" => 0,
        other => panic!("unknown unit {other} in {text}"),
    };
    let amount: i64 = if amount.is_empty() { 0 } else { amount.parse().expect("a number") };
    httpdate::fmt_http_date((now() + TimeDelta::seconds(amount * seconds)).into())
}

/// The cases; `None`, which CI does not accept, where the corpora are not there.
fn cases() -> Option<Vec<Value>> {
    let json = std::fs::read(corpora()?.join("headers/cases.json")).expect("the corpora have headers");
    Some(serde_json::from_slice(&json).expect("a list of cases"))
}
