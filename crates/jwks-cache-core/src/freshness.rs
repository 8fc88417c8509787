//! How long a response may be used: RFC 9111 §4.2 as a private cache of one resource, inside the
//! operator's bounds, and how long past that RFC 5861's `stale-if-error` and the operator let it live.
//!
//! Key sets are application state more than an HTTP response: large providers send `no-cache`,
//! `no-store` or `must-revalidate` with them, which taken to the letter is a fetch per token and an
//! outage for everyone when they are down. So the operator's floor and stale window stand against these
//! directives, unless [`FreshnessRules::http_strict`] is set.
//!
//! This room does not know the time, `max_trust_age`, when to refresh, or whether a body was any good. Headers
//! of error responses must not be brought here, but for [`retry_after`].

mod headers;

use std::fmt;
use std::time::Duration;

use chrono::{DateTime, Utc};
use http::HeaderMap;
use http::header::RETRY_AFTER;

use crate::Moment;
use headers::{Expires, Seconds, delta_seconds, first, http_date};

pub use headers::{StaleUse, StoredHeaders, Validators};

/// Judges a stored response from the header it came with, or was last confirmed with.
#[must_use]
pub fn assess(stored: &StoredHeaders, timing: &Timing, rules: &FreshnessRules) -> Freshness {
    let stated = Stated::read(stored, timing);
    let (lifetime, bound) = bounded(stated.remaining(), rules);
    Freshness { lifetime, stale_window: stale_window(stored, rules), stated, bound }
}

/// When an exchange took place. Lengths come from the policy clock, which nobody can set; the wall
/// clock is only compared with HTTP dates.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// When the request was sent.
    pub requested_at: Moment,
    /// When the response header was here. A lifetime starts at this moment.
    pub received_at: Moment,
    /// The wall time at `received_at`.
    pub received_wall: DateTime<Utc>,
}

/// The operator's bounds; a registration's settings of the same names.
#[derive(Clone, Copy, Debug)]
pub struct FreshnessRules {
    /// The least lifetime; wins over everything the response says, but for `http_strict`.
    pub min_ttl: Duration,
    /// The longest lifetime; wins over `min_ttl`.
    pub max_ttl: Duration,
    /// The lifetime of a response that states none, itself kept inside the two bounds above.
    pub default_ttl: Duration,
    /// How long keys may be served past their lifetime while refreshing fails; 0 is never.
    pub stale_while_error: Duration,
    /// Obey to the letter: no floor, no `default_ttl` (a response that states no lifetime has none:
    /// heuristics of RFC 9111 §4.2.2 are optional), no stale window where the response forbids it.
    pub http_strict: bool,
}

/// The judgement. [`Display`](fmt::Display) tells people how it came about.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Freshness {
    /// How long from [`Timing::received_at`] the response is fresh; its age then is already deducted.
    pub lifetime: Duration,
    /// How long after that it may be served while refreshing fails, `max_trust_age` aside.
    pub stale_window: Duration,
    /// What the response said.
    pub stated: Stated,
    /// Which of the operator's settings changed the lifetime.
    pub bound: Bound,
}

impl Freshness {
    /// The lifetime in seconds, for people: rounded, so that a transfer of a few milliseconds does not turn
    /// 300 s into 299 s.
    #[must_use]
    pub const fn lifetime_seconds(&self) -> u64 {
        self.lifetime.saturating_add(Duration::from_millis(500)).as_secs()
    }
}

impl fmt::Display for Freshness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.lifetime_seconds();
        match self.bound {
            Bound::None => write!(f, "{}: fresh for {seconds} s", self.stated),
            Bound::MinTtl => write!(f, "{}: raised to min_ttl, {seconds} s", self.stated),
            Bound::MaxTtl => write!(f, "{}: cut to max_ttl, {seconds} s", self.stated),
            Bound::DefaultTtl => write!(f, "{}: default_ttl, {seconds} s", self.stated),
        }
    }
}

/// The setting that decided a lifetime in place of the response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// None: the lifetime is what the response said.
    None,
    /// The response asked for less.
    MinTtl,
    /// The response asked for more.
    MaxTtl,
    /// The response asked for nothing.
    DefaultTtl,
}

/// Where a lifetime came from, the most restrictive statement first (RFC 9111 §4.2.1).
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Stated {
    /// `Cache-Control: no-store`. Public keys are no secret, so they are kept as with `no-cache`.
    NoStore,
    /// `Cache-Control: no-cache`, without field names.
    NoCache,
    /// `Vary: *`: no request matches it (RFC 9111 §4.1), so it is treated as `no-cache`.
    VaryStar,
    /// `Cache-Control: max-age`.
    MaxAge {
        /// Its argument, at most 2^31.
        seconds: u64,
        /// How old the response was when it came (RFC 9111 §4.2.3).
        age: Duration,
    },
    /// A `max-age` that is no number, or two that differ: no lifetime.
    UnusableMaxAge,
    /// `Expires`, without `max-age`.
    Expires {
        /// How long after the response's `Date` that is; after its arrival, when it had no `Date`.
        after: Duration,
        /// How old the response was when it came (RFC 9111 §4.2.3).
        age: Duration,
    },
    /// An `Expires` that is no date, or two that differ: no lifetime.
    UnusableExpires,
    /// No word about a lifetime.
    Nothing,
}

impl Stated {
    fn read(stored: &StoredHeaders, timing: &Timing) -> Self {
        let said = &stored.cache_control;
        if said.no_store {
            return Self::NoStore;
        }
        if said.no_cache {
            return Self::NoCache;
        }
        if stored.vary_star {
            return Self::VaryStar;
        }
        match (said.max_age, stored.expires) {
            (Seconds::Given(seconds), _) => Self::MaxAge { seconds, age: age_on_arrival(stored, timing) },
            (Seconds::Unusable, _) => Self::UnusableMaxAge,
            (Seconds::Absent, Expires::At(end)) => Self::Expires {
                after: seconds_between(stored.date.unwrap_or(timing.received_wall), end),
                age: age_on_arrival(stored, timing),
            },
            (Seconds::Absent, Expires::Unusable) => Self::UnusableExpires,
            (Seconds::Absent, Expires::Absent) => Self::Nothing,
        }
    }

    /// What is left of the stated lifetime on arrival; `None` when none is stated.
    fn remaining(&self) -> Option<Duration> {
        match *self {
            Self::MaxAge { seconds, age } => Some(Duration::from_secs(seconds).saturating_sub(age)),
            Self::Expires { after, age } => Some(after.saturating_sub(age)),
            Self::Nothing => None,
            Self::NoStore | Self::NoCache | Self::VaryStar | Self::UnusableMaxAge | Self::UnusableExpires => {
                Some(Duration::ZERO)
            }
        }
    }
}

impl fmt::Display for Stated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let aged = |f: &mut fmt::Formatter<'_>, age: Duration| match age.as_secs() {
            0 => Ok(()),
            age => write!(f, ", already {age} s old"),
        };
        match *self {
            Self::NoStore => f.write_str("Cache-Control: no-store"),
            Self::NoCache => f.write_str("Cache-Control: no-cache"),
            Self::VaryStar => f.write_str("Vary: *"),
            Self::MaxAge { seconds, age } => {
                write!(f, "Cache-Control: max-age={seconds}")?;
                aged(f, age)
            }
            Self::UnusableMaxAge => f.write_str("Cache-Control: max-age that cannot be used"),
            Self::Expires { after, age } => {
                write!(f, "Expires: {} s after Date", after.as_secs())?;
                aged(f, age)
            }
            Self::UnusableExpires => f.write_str("Expires that cannot be used"),
            Self::Nothing => f.write_str("no lifetime stated"),
        }
    }
}

/// The age of a response when it came (RFC 9111 §4.2.3): the larger of what the clocks say and what the
/// caches on the way and the transfer add up to.
fn age_on_arrival(stored: &StoredHeaders, timing: &Timing) -> Duration {
    let apparent = stored.date.map_or(Duration::ZERO, |date| seconds_between(date, timing.received_wall));
    let response_delay = timing.received_at.since(timing.requested_at);
    let corrected = Duration::from_secs(stored.age.unwrap_or(0)).saturating_add(response_delay);
    apparent.max(corrected)
}

/// Whole seconds from one wall time to a later one, else zero. HTTP dates have no fractions, so ours are
/// dropped before comparing: a response is not half a second old because our clock has milliseconds.
fn seconds_between(earlier: DateTime<Utc>, later: DateTime<Utc>) -> Duration {
    let seconds = later.timestamp().saturating_sub(earlier.timestamp());
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

fn bounded(stated: Option<Duration>, rules: &FreshnessRules) -> (Duration, Bound) {
    let wanted = match stated {
        None if rules.http_strict => Duration::ZERO,
        stated => stated.unwrap_or(rules.default_ttl),
    };
    let floor = if rules.http_strict { Duration::ZERO } else { rules.min_ttl };
    let lifetime = wanted.max(floor).min(rules.max_ttl);
    let bound = match stated {
        None if !rules.http_strict => Bound::DefaultTtl,
        _ if lifetime > wanted => Bound::MinTtl,
        _ if lifetime < wanted => Bound::MaxTtl,
        _ => Bound::None,
    };
    (lifetime, bound)
}

/// `stale-if-error` (RFC 5861 §4) extends the operator's window, unless the response forbids to use it
/// stale (RFC 9111 §4.2.4). The operator's own window gives way to that only when told to.
pub(crate) fn stale_window(stored: &StoredHeaders, rules: &FreshnessRules) -> Duration {
    match stored.stale_use() {
        StaleUse::Forbidden if rules.http_strict => Duration::ZERO,
        StaleUse::For(seconds) if !rules.stale_while_error.is_zero() => {
            rules.stale_while_error.max(Duration::from_secs(seconds))
        }
        StaleUse::Forbidden | StaleUse::For(_) => rules.stale_while_error,
    }
}

/// How long the origin asks to be left alone (RFC 9110 §10.2.3), from seconds or from a date and the
/// wall time; zero when that date has passed, `None` when it is absent or neither.
///
/// Up to 2^31 seconds, or a date in the year 9999: the caller caps it.
#[must_use]
pub fn retry_after(headers: &HeaderMap, wall: DateTime<Utc>) -> Option<Duration> {
    let text = first(headers, &RETRY_AFTER)?;
    if let Some(seconds) = delta_seconds(text) {
        return Some(Duration::from_secs(seconds));
    }
    let wait = http_date(text)?.signed_duration_since(wall);
    Some(wait.to_std().unwrap_or(Duration::ZERO))
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};
    use proptest::prelude::*;

    use super::*;

    const NOON: &str = "Tue, 05 May 2026 12:00:00 GMT";
    const RULES: FreshnessRules = FreshnessRules {
        min_ttl: Duration::from_secs(30),
        max_ttl: Duration::from_secs(86_400),
        default_ttl: Duration::from_secs(300),
        stale_while_error: Duration::from_secs(60),
        http_strict: false,
    };
    const STRICT: FreshnessRules = FreshnessRules { http_strict: true, ..RULES };

    fn noon() -> DateTime<Utc> {
        http_date(NOON).unwrap()
    }

    /// An exchange that took no time and ended at noon.
    fn at_noon() -> Timing {
        Timing { requested_at: Moment::ORIGIN, received_at: Moment::ORIGIN, received_wall: noon() }
    }

    fn map(lines: &[(&str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in lines {
            map.append(
                name.parse::<HeaderName>().unwrap(),
                HeaderValue::from_bytes(value.as_bytes()).unwrap(),
            );
        }
        map
    }

    fn stored(lines: &[(&str, &str)]) -> StoredHeaders {
        StoredHeaders::from_response(&map(lines))
    }

    /// Lifetime and stale window, in seconds.
    #[track_caller]
    fn check_with(rules: &FreshnessRules, lines: &[(&str, &str)], lifetime: u64, stale_window: u64) {
        let got = assess(&stored(lines), &at_noon(), rules);
        let want = (Duration::from_secs(lifetime), Duration::from_secs(stale_window));
        assert_eq!((got.lifetime, got.stale_window), want, "{lines:?}: {got}");
    }

    #[track_caller]
    fn check(lines: &[(&str, &str)], lifetime: u64) {
        check_with(&RULES, lines, lifetime, 60);
    }

    /// One `Cache-Control` line.
    #[track_caller]
    fn check_cc(line: &str, lifetime: u64) {
        check(&[("cache-control", line)], lifetime);
    }

    #[test]
    fn max_age_is_the_lifetime_inside_the_operators_bounds() {
        check_cc("max-age=600", 600);
        check_cc("public, max-age=600, immutable, no-transform, made-up=7", 600);
        check_cc("max-age=10", 30);
        check_cc("max-age=0", 30);
        check_cc("max-age=3000000", 86_400);
        check_cc("MAX-Age=600", 600);
        check_cc("max-age=000600", 600);
        check_cc(" ,, \tmax-age=600\t ,", 600);
    }

    #[test]
    fn a_ceiling_under_the_floor_wins_and_does_not_panic() {
        let rules = FreshnessRules { max_ttl: Duration::from_secs(5), ..RULES };
        check_with(&rules, &[], 5, 60);
        check_with(&rules, &[("cache-control", "max-age=1")], 5, 60);
    }

    #[test]
    fn quoted_arguments_are_read_and_quoted_commas_do_not_split() {
        check_cc("max-age=\"600\"", 600);
        check_cc("ext=\"a, max-age=1, no-store\", max-age=600", 600);
        check_cc("max-age=600, ext=\"max-age=1\"", 600);
        check_cc("ext=\"say \\\", no-store\", max-age=600", 600);
        check_cc("max-age='600'", 30);
        check_cc("max-age=\"600", 30);
        check_cc("max-age=\"600\"9", 30);
    }

    #[test]
    fn an_unusable_max_age_is_stale_even_beside_a_good_expires() {
        let later = "Tue, 05 May 2026 13:00:00 GMT";
        for line in
            ["max-age", "max-age=", "max-age=x9", "max-age=9x", "max-age=-9", "max-age=9.0", "max-age=+9"]
        {
            check_cc(line, 30);
            check(&[("cache-control", line), ("expires", later)], 30);
        }
        check_cc("max-age =600", 30);
        check_cc("max-age= 600", 30);
    }

    #[test]
    fn two_different_max_ages_are_stale_and_two_equal_ones_are_one() {
        check_cc("max-age=600, max-age=900", 30);
        check_cc("max-age=600, max-age=no", 30);
        check_cc("max-age=600, max-age=600", 600);
        check(&[("cache-control", "max-age=600"), ("cache-control", "max-age=900")], 30);
        check(&[("cache-control", "public"), ("cache-control", "max-age=600")], 600);
    }

    #[test]
    fn a_number_too_large_is_two_to_the_31st_power() {
        let rules = FreshnessRules { max_ttl: Duration::MAX, ..RULES };
        for line in ["max-age=2147483648", "max-age=18446744073709551616", "max-age=9999999999999999999999"] {
            check_with(&rules, &[("cache-control", line)], 1 << 31, 60);
        }
    }

    #[test]
    fn shared_cache_directives_do_not_count() {
        check_cc("s-maxage=900", 300);
        check_cc("s-maxage=900, max-age=600", 600);
        check_cc("max-age=600, s-maxage=1, proxy-revalidate, private=\"set-cookie\"", 600);
        check(&[("pragma", "no-cache"), ("cache-control", "max-age=600")], 600);
    }

    #[test]
    fn age_shortens_the_lifetime_down_to_the_floor() {
        let aged = |age, want| check(&[("cache-control", "max-age=600"), ("age", age)], want);
        aged("100", 500);
        aged("590", 30);
        aged("2147483647", 30);
        aged("18446744073709551615", 30);
        aged("99999999999999999999999", 30);
        aged(" 100 ", 500);
    }

    #[test]
    fn an_age_counts_by_its_first_member_and_is_ignored_when_that_is_no_number() {
        let aged = |age, want| check(&[("cache-control", "max-age=600"), ("age", age)], want);
        aged("100, 0", 500);
        aged("0, 100", 600);
        aged("-100", 600);
        aged("-100, 100", 600);
        aged("100.0", 600);
        aged("100;a=1", 600);
        aged("soon", 600);
        aged("", 600);
        check(&[("cache-control", "max-age=600"), ("age", "100"), ("age", "0")], 500);
        check(&[("cache-control", "max-age=600"), ("age", "0"), ("age", "100")], 600);
    }

    #[test]
    fn age_in_transit_shortens_the_lifetime() {
        let timing = Timing { received_at: Moment::ORIGIN + Duration::from_millis(2500), ..at_noon() };
        let age = |lines: &[_]| assess(&stored(lines), &timing, &RULES).lifetime;
        assert_eq!(age(&[("cache-control", "max-age=600")]), Duration::from_millis(597_500));
        assert_eq!(age(&[("cache-control", "max-age=600"), ("age", "100")]), Duration::from_millis(497_500));
        assert_eq!(age(&[]), RULES.default_ttl);
    }

    #[test]
    fn a_date_in_the_past_is_age_and_one_in_the_future_is_not() {
        let dated = |date, want| check(&[("cache-control", "max-age=600"), ("date", date)], want);
        dated("Tue, 05 May 2026 11:58:20 GMT", 500);
        dated("Tue, 05 May 2015 11:58:20 GMT", 30);
        dated("Wed, 06 May 2026 12:00:00 GMT", 600);
        dated("yesterday", 600);
        let both = |age, want| {
            let date = ("date", "Tue, 05 May 2026 11:58:20 GMT");
            check(&[("cache-control", "max-age=600"), date, ("age", age)], want);
        };
        both("50", 500);
        both("200", 400);
    }

    #[test]
    fn fractions_of_our_clock_are_not_age() {
        let timing = Timing { received_wall: noon() + Duration::from_millis(999), ..at_noon() };
        let stored = stored(&[("expires", "Tue, 05 May 2026 13:00:00 GMT"), ("date", NOON)]);
        assert_eq!(assess(&stored, &timing, &RULES).lifetime, Duration::from_secs(3600));
    }

    #[test]
    fn expires_counts_from_date_and_in_all_three_forms() {
        for form in [
            "Tue, 05 May 2026 13:00:00 GMT",
            "Tuesday, 05-May-26 13:00:00 GMT",
            "Tue May  5 13:00:00 2026",
            "TUE, 05 MAY 2026 13:00:00 gmt",
            "tuesday, 05-may-26 13:00:00 Gmt",
        ] {
            check(&[("expires", form), ("date", NOON)], 3600);
            check(&[("expires", form)], 3600);
            check(&[("expires", form), ("date", "broken")], 3600);
        }
        // A clock that runs an hour fast at the origin changes nothing.
        check(
            &[("expires", "Tue, 05 May 2026 14:00:00 GMT"), ("date", "Tue, 05 May 2026 13:00:00 GMT")],
            3600,
        );
        check(&[("expires", "Tue, 05 May 2026 13:00:00 GMT"), ("date", NOON), ("age", "600")], 3000);
        check(&[("expires", "Fri, 31 Dec 9999 23:59:59 GMT"), ("date", NOON)], 86_400);
        check(&[("expires", "Tuesday, 05-May-65 13:00:00 GMT"), ("date", NOON)], 86_400);
        check(&[("expires", "Wednesday, 06-May-26 12:00:00 GMT"), ("date", NOON)], 86_400);
    }

    #[test]
    fn a_backslash_outside_of_quotes_escapes_no_comma() {
        check(&[("cache-control", "a=b\\, max-age=600")], 600);
        check(&[("cache-control", "a=\"b\\\", max-age=7\", max-age=600")], 600);
    }

    #[test]
    fn stored_validators_are_sent_again_if_they_are_any() {
        let sent = |etag: Option<&str>, at: Option<i64>| {
            let at = at.and_then(|at| DateTime::from_timestamp(at, 0));
            let Validators { etag, last_modified } = StoredHeaders::from_validators(etag, at).validators();
            (etag, last_modified)
        };
        assert_eq!(sent(Some("\"a\""), None), (Some("\"a\"".to_owned()), None));
        assert_eq!(sent(Some(""), None), (None, None));
        assert_eq!(sent(Some(&"a".repeat(StoredHeaders::MAX_ETAG_BYTES + 1)), None), (None, None));
        assert_eq!(sent(None, Some(0)), (None, Some("Thu, 01 Jan 1970 00:00:00 GMT".to_owned())));
        assert_eq!(sent(None, Some(253_402_300_800)), (None, None), "the year 10,000");
    }

    #[test]
    fn an_expires_that_is_past_or_no_date_or_twofold_is_stale() {
        for text in [
            "0",
            "-1",
            "",
            "Tue, 05 May 2026 11:00:00 GMT",
            NOON,
            "Tue, 05 May 2026 13:00:00 UTC",
            "Tue, 05 May 2026 13:00:00 CEST",
            "Tue, 05 May 26 13:00:00 GMT",
            "Tue, 05-May-2026 13:00:00 GMT",
            "Tue 05 May 2026 13:00:00 GMT",
            "Tue, 05  May  2026 13:00:00 GMT",
            "Tue, 05 May 2026 3:00:00 GMT",
            "Mon, 05 May 2026 13:00:00 GMT",
            "Tue, 31 Feb 2026 13:00:00 GMT",
            "Tuesday, 05-May-94 13:00:00 GMT",
        ] {
            check(&[("expires", text), ("date", NOON)], 30);
        }
        let one = ("expires", "Tue, 05 May 2026 13:00:00 GMT");
        check(&[one, ("expires", "Tue, 05 May 2026 13:00:01 GMT"), ("date", NOON)], 30);
        check(&[one, one, ("date", NOON)], 3600);
    }

    #[test]
    fn max_age_goes_before_expires() {
        check(&[("cache-control", "max-age=600"), ("expires", "0")], 600);
        check(&[("cache-control", "max-age=0"), ("expires", "Tue, 05 May 2026 13:00:00 GMT")], 30);
    }

    #[test]
    fn nothing_stated_is_the_default_which_no_age_shortens() {
        check(&[], 300);
        check_cc("private", 300);
        check(&[("age", "200"), ("date", "Tue, 05 May 2026 11:00:00 GMT")], 300);
        check(&[("last-modified", "Tue, 05 May 2015 11:58:20 GMT"), ("date", NOON)], 300);
        let low = FreshnessRules { default_ttl: Duration::from_secs(1), ..RULES };
        check_with(&low, &[], 30, 60);
    }

    #[test]
    fn a_response_that_wants_no_reuse_gets_the_floor() {
        check_cc("no-cache", 30);
        check_cc("no-store", 30);
        check_cc("No-Store, max-age=600", 30);
        check_cc("max-age=600, NO-CACHE", 30);
        check(&[("cache-control", "no-cache"), ("expires", "Tue, 05 May 2026 13:00:00 GMT")], 30);
        check(&[("cache-control", "max-age=600"), ("vary", "*")], 30);
        check(&[("cache-control", "max-age=600"), ("vary", "accept"), ("vary", "origin, *")], 30);
        check(&[("cache-control", "max-age=600"), ("vary", "accept, accept-encoding")], 600);
    }

    #[test]
    fn no_cache_with_field_names_withholds_fields_and_not_the_response() {
        check_cc("no-cache=\"Set-Cookie\", max-age=600", 600);
        check_cc("no-cache=\"Set-Cookie, X-Other\", max-age=600", 600);
        check_cc("no-cache=Set-Cookie, max-age=600", 600);
        check_cc("no-cache=\"\", max-age=600", 30);
        check_cc("max-age=600, no-cache=", 30);
        check_cc("max-age=600, no-cache=\"Set-Cookie", 30);
        check_cc("max-age=600, no-cache=\"not a name\"", 30);
        check_cc("no-cache=\"Set-Cookie\", no-cache, max-age=600", 30);
    }

    #[test]
    fn stale_if_error_extends_the_operators_window_and_never_shortens_it() {
        let window = |line, want| check_with(&RULES, &[("cache-control", line)], 600, want);
        window("max-age=600", 60);
        window("max-age=600, stale-if-error=900", 900);
        window("max-age=600, Stale-If-Error=\"900\"", 900);
        window("max-age=600, stale-if-error=5", 60);
        window("max-age=600, stale-if-error=soon", 60);
        window("max-age=600, stale-if-error=900, stale-if-error=901", 60);
        window("max-age=600, stale-if-error=99999999999999999999", 1 << 31);
        window("max-age=600, stale-while-revalidate=900", 60);
        window("max-age=600, stale-if-error=900, proxy-revalidate", 900);
        let never = FreshnessRules { stale_while_error: Duration::ZERO, ..RULES };
        check_with(&never, &[("cache-control", "max-age=600, stale-if-error=900")], 600, 0);
    }

    #[test]
    fn a_response_that_forbids_stale_use_stops_the_extension_but_not_the_operator() {
        for line in ["must-revalidate", "Must-Revalidate", "no-cache", "no-store"] {
            let line = format!("max-age=30, stale-if-error=900, {line}");
            check_with(&RULES, &[("cache-control", &line)], 30, 60);
            let strict = assess(&stored(&[("cache-control", &line)]), &at_noon(), &STRICT);
            assert_eq!(strict.stale_window, Duration::ZERO, "{line}");
        }
        check_with(&RULES, &[("cache-control", "max-age=600, stale-if-error=900"), ("vary", "*")], 30, 60);
    }

    #[test]
    fn strictness_knows_no_floor_and_no_default_but_keeps_the_ceiling() {
        let strict =
            |line, lifetime, window| check_with(&STRICT, &[("cache-control", line)], lifetime, window);
        strict("max-age=10", 10, 60);
        strict("max-age=0", 0, 60);
        strict("max-age=x", 0, 60);
        strict("max-age=3000000", 86_400, 60);
        strict("max-age=600, stale-if-error=900", 600, 900);
        strict("max-age=600, must-revalidate", 600, 0);
        strict("no-cache, max-age=600", 0, 0);
        strict("no-store, max-age=600", 0, 0);
        check_with(&STRICT, &[], 0, 60);
        check_with(&STRICT, &[("cache-control", "max-age=600"), ("vary", "*")], 0, 0);
        check_with(&STRICT, &[("cache-control", "max-age=600"), ("age", "595")], 5, 60);
    }

    #[test]
    fn people_are_told_where_a_lifetime_came_from() {
        let told = |lines: &[_], rules| assess(&stored(lines), &at_noon(), rules).to_string();
        for (lines, want) in [
            (
                &[("cache-control", "max-age=300"), ("age", "20")][..],
                "Cache-Control: max-age=300, already 20 s old: fresh for 280 s",
            ),
            (&[("cache-control", "max-age=15")], "Cache-Control: max-age=15: raised to min_ttl, 30 s"),
            (
                &[("cache-control", "max-age=99999999")],
                "Cache-Control: max-age=99999999: cut to max_ttl, 86400 s",
            ),
            (
                &[("cache-control", "max-age=soon")],
                "Cache-Control: max-age that cannot be used: raised to min_ttl, 30 s",
            ),
            (&[("expires", "Tue, 05 May 2026 13:00:00 GMT")], "Expires: 3600 s after Date: fresh for 3600 s"),
            (&[("expires", "0")], "Expires that cannot be used: raised to min_ttl, 30 s"),
            (&[("cache-control", "no-cache")], "Cache-Control: no-cache: raised to min_ttl, 30 s"),
            (&[("cache-control", "no-cache, no-store")], "Cache-Control: no-store: raised to min_ttl, 30 s"),
            (&[("vary", "*")], "Vary: *: raised to min_ttl, 30 s"),
            (&[], "no lifetime stated: default_ttl, 300 s"),
        ] {
            assert_eq!(told(lines, &RULES), want);
        }
        assert_eq!(told(&[], &STRICT), "no lifetime stated: fresh for 0 s");
        let timing = Timing { received_at: Moment::ORIGIN + Duration::from_millis(3), ..at_noon() };
        let told = assess(&stored(&[("cache-control", "max-age=300")]), &timing, &RULES).to_string();
        assert_eq!(told, "Cache-Control: max-age=300: fresh for 300 s");
    }

    #[test]
    fn a_304_replaces_and_adds_fields_and_leaves_the_others() {
        let modified = "Mon, 04 May 2026 09:00:00 GMT";
        let mut held =
            stored(&[("etag", "\"a\""), ("last-modified", modified), ("cache-control", "max-age=60")]);
        let mut confirm = |lines: &[_], lifetime| {
            held.merge_not_modified(&map(lines));
            assert_eq!(
                assess(&held, &at_noon(), &RULES).lifetime,
                Duration::from_secs(lifetime),
                "{lines:?}"
            );
            held.clone()
        };
        confirm(&[], 60);
        confirm(&[("cache-control", "max-age=600, stale-if-error=900")], 600);
        // `Cache-Control` is replaced as a whole.
        let after =
            confirm(&[("cache-control", "private"), ("expires", "Tue, 05 May 2026 13:00:00 GMT")], 3600);
        assert_eq!(assess(&after, &at_noon(), &RULES).stale_window, Duration::from_secs(60));
        confirm(&[("vary", "*")], 30);
        confirm(&[("vary", "accept"), ("etag", "W/\"b\"")], 3600);
        let after = confirm(&[("etag", "\"c\"")], 3600);
        assert_eq!(after.etag(), Some("\"c\""));
        assert_eq!(after.last_modified(), http_date(modified));
    }

    #[test]
    fn a_304_brings_its_own_age_and_date() {
        let old = "Mon, 04 May 2026 12:00:00 GMT";
        let mut held = stored(&[("cache-control", "max-age=600"), ("age", "500"), ("date", old)]);
        for (lines, lifetime) in [(&[][..], 600), (&[("age", "100")], 500), (&[("date", NOON)], 600)] {
            held.merge_not_modified(&map(lines));
            assert_eq!(
                assess(&held, &at_noon(), &RULES).lifetime,
                Duration::from_secs(lifetime),
                "{lines:?}"
            );
        }
    }

    #[test]
    fn validators_are_the_texts_that_were_sent() {
        let of = |lines: &[_]| stored(lines).validators();
        assert!(of(&[]).is_empty());
        let odd = "tuesday, 05-May-26 13:00:00 GMT";
        let both = of(&[("etag", " W/\"a\" "), ("last-modified", odd)]);
        assert_eq!(both, Validators { etag: Some("W/\"a\"".into()), last_modified: Some(odd.into()) });
        assert_eq!(of(&[("etag", "unquoted")]).etag.as_deref(), Some("unquoted"));
        assert!(of(&[("etag", ""), ("last-modified", "last week")]).is_empty());
        for (over, kept) in [(0, true), (1, false)] {
            let tag = "x".repeat(StoredHeaders::MAX_ETAG_BYTES + over);
            assert_eq!(stored(&[("etag", &tag)]).etag().is_some(), kept);
        }
    }

    #[test]
    fn retry_after_is_read_as_seconds_and_as_a_date() {
        let check = |text: &str, want: Option<u64>| {
            let got = retry_after(&map(&[("retry-after", text)]), noon());
            assert_eq!(got, want.map(Duration::from_secs), "{text}");
        };
        check("120", Some(120));
        check(" 0 ", Some(0));
        check("99999999999999999999999", Some(1 << 31));
        check("Tue, 05 May 2026 12:05:00 GMT", Some(300));
        check("Tuesday, 05-May-26 12:05:00 GMT", Some(300));
        check("Tue May  5 12:05:00 2026", Some(300));
        check("Tue, 05 May 2026 11:55:00 GMT", Some(0));
        for garbled in ["", "-5", "1.5", "120 s", "120, 60", "soon"] {
            check(garbled, None);
        }
        assert_eq!(retry_after(&HeaderMap::new(), noon()), None);
        let wait =
            retry_after(&map(&[("retry-after", "Fri, 31 Dec 9999 23:59:59 GMT")]), DateTime::<Utc>::MIN_UTC);
        assert!(wait.is_some());
    }

    /// Bytes of any kind, and pieces of real fields in any order.
    fn any_value() -> impl Strategy<Value = Vec<u8>> {
        let pieces = proptest::sample::select(vec![
            "max-age",
            "stale-if-error",
            "no-cache",
            "no-store",
            "must-revalidate",
            "=",
            "\"",
            "\\",
            ",",
            " ",
            "*",
            "0",
            "7",
            "99999999999999999999",
            "-",
            "Tue, 05 May 2026 ",
            "Tuesday, 05-May-26 ",
            "13:00:00 GMT",
            "é",
        ]);
        let built = proptest::collection::vec(pieces, 0..12).prop_map(|pieces| pieces.concat().into_bytes());
        prop_oneof![built, proptest::collection::vec(any::<u8>(), 0..40)]
    }

    fn any_header() -> impl Strategy<Value = HeaderMap> {
        let names =
            ["cache-control", "age", "expires", "date", "vary", "etag", "last-modified", "retry-after"]
                .to_vec();
        proptest::collection::vec((proptest::sample::select(names), any_value()), 0..6).prop_map(|lines| {
            let mut map = HeaderMap::new();
            for (name, value) in lines {
                if let Ok(value) = HeaderValue::from_bytes(&value) {
                    map.append(name, value);
                }
            }
            map
        })
    }

    proptest! {
        #[test]
        fn no_header_panics_or_leaves_the_bounds(
            first in any_header(),
            second in any_header(),
            seconds in any::<i64>(),
            moments in any::<(u64, u64)>(),
            http_strict in any::<bool>(),
        ) {
            let received_wall = DateTime::from_timestamp(seconds, 0).unwrap_or(DateTime::<Utc>::MAX_UTC);
            let (sent, came) = (Moment::from_nanos(moments.0), Moment::from_nanos(moments.1));
            let timing = Timing { requested_at: sent, received_at: came, received_wall };
            let rules = FreshnessRules { http_strict, ..RULES };
            let mut stored = StoredHeaders::from_response(&first);
            for _ in 0..2 {
                let got = assess(&stored, &timing, &rules);
                let floor = if http_strict { Duration::ZERO } else { rules.min_ttl };
                prop_assert!((floor..=rules.max_ttl).contains(&got.lifetime), "{got}");
                prop_assert!(got.stale_window <= Duration::from_secs(1 << 31));
                prop_assert!(http_strict || got.stale_window >= rules.stale_while_error);
                for text in [stored.validators().etag, stored.validators().last_modified].into_iter().flatten() {
                    prop_assert!(HeaderValue::from_str(&text).is_ok(), "cannot be sent back: {text:?}");
                }
                let _ = retry_after(&second, received_wall);
                stored.merge_not_modified(&second);
            }
        }
    }
}
