//! Any response header, and the 304 that confirms it.
//!
//! The input is text: `name: value` lines, an empty line, the same for the 304. The names `sent`, `came` and
//! `wall` set the times of the exchange, in nanoseconds and in seconds.
#![no_main]

use std::time::Duration;

use chrono::{DateTime, Utc};
use http::{HeaderMap, HeaderName, HeaderValue};
use jwks_cache_core::Moment;
use jwks_cache_core::freshness::{FreshnessRules, StoredHeaders, Timing, assess, retry_after};
use libfuzzer_sys::fuzz_target;

const LAX: FreshnessRules = FreshnessRules {
    min_ttl: Duration::from_secs(30),
    max_ttl: Duration::from_secs(86_400),
    default_ttl: Duration::from_secs(300),
    stale_while_error: Duration::from_secs(60),
    http_strict: false,
};
const STRICT: FreshnessRules = FreshnessRules { http_strict: true, ..LAX };
/// The longest that delta-seconds say (RFC 9111 §1.2.2).
const LONGEST: Duration = Duration::from_secs(1 << 31);

fuzz_target!(|text: &[u8]| {
    let mut timing = Timing {
        requested_at: Moment::ORIGIN,
        received_at: Moment::ORIGIN,
        received_wall: DateTime::UNIX_EPOCH,
    };
    let mut messages = [HeaderMap::new(), HeaderMap::new()];
    let mut message = 0;
    for line in text.split(|byte| *byte == b'\n') {
        if line.is_empty() {
            message = 1;
            continue;
        }
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        let number = || std::str::from_utf8(value).ok()?.trim().parse::<i64>().ok();
        match name {
            b"sent" => timing.requested_at = Moment::from_nanos(number().unwrap_or(0).unsigned_abs()),
            b"came" => timing.received_at = Moment::from_nanos(number().unwrap_or(0).unsigned_abs()),
            b"wall" => {
                let wall = number().and_then(|seconds| DateTime::from_timestamp(seconds, 0));
                timing.received_wall = wall.unwrap_or(DateTime::<Utc>::MAX_UTC);
            }
            _ => {
                if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value))
                {
                    messages[message].append(name, value);
                }
            }
        }
    }

    let [response, not_modified] = messages;
    let mut stored = StoredHeaders::from_response(&response);
    check(&stored, &timing);
    let before = stored.clone();
    stored.merge_not_modified(&response);
    assert_eq!(stored, before, "the same header again changes nothing");
    stored.merge_not_modified(&not_modified);
    check(&stored, &timing);

    let wait = retry_after(&not_modified, timing.received_wall);
    // A date says the year 9999 at most, and our clock the beginning of chrono's time at least.
    assert!(wait.is_none_or(|wait| wait < Duration::from_secs(400_000 * 366 * 86_400)));
});

fn check(stored: &StoredHeaders, timing: &Timing) {
    let (lax, strict) = (assess(stored, timing, &LAX), assess(stored, timing, &STRICT));
    assert!((LAX.min_ttl..=LAX.max_ttl).contains(&lax.lifetime), "{lax}");
    assert!(strict.lifetime <= lax.lifetime, "{strict} is longer than {lax}");
    assert!((LAX.stale_while_error..=LONGEST).contains(&lax.stale_window), "{lax}");
    assert!(strict.stale_window <= lax.stale_window, "{strict}: staler than {lax}");
    assert_eq!(strict.stated, lax.stated);
    let validators = stored.validators();
    for text in [validators.etag, validators.last_modified].into_iter().flatten() {
        assert!(HeaderValue::from_str(&text).is_ok(), "cannot be sent back: {text:?}");
    }
}
