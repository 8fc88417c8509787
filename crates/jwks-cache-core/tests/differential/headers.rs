//! Freshness, against `http-cache-semantics` as a private cache without heuristics.

use std::cell::Cell;
use std::panic::{UnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;
use std::time::{Duration, SystemTime};

use chrono::{DateTime, Utc};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_cache_semantics::{CacheOptions, CachePolicy};
use jwks_cache_core::Moment;
use jwks_cache_core::freshness::{FreshnessRules, StoredHeaders, Timing, assess};
use proptest::prelude::*;

use super::{Difference, Right, compare};

/// A response header; the fields in the order in which they are written.
#[derive(Clone, Debug, Default)]
struct Head {
    directives: Vec<String>,
    expires: Vec<String>,
    date: Option<String>,
    age: Option<String>,
    vary: Option<String>,
    pragma: Option<String>,
}

/// Noon on a Tuesday, when every response arrives.
fn noon() -> DateTime<Utc> {
    DateTime::from_timestamp(1_777_982_400, 0).unwrap()
}

/// An HTTP date so many seconds from noon.
fn date(offset: i64) -> String {
    (noon() + chrono::TimeDelta::seconds(offset)).format("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

fn map(head: &Head) -> HeaderMap {
    let mut map = HeaderMap::new();
    let mut add = |name: &'static str, value: &str| {
        // U+FF stands for a byte that is no ASCII.
        let bytes: Vec<u8> = value.chars().map(|c| u8::try_from(u32::from(c)).unwrap()).collect();
        map.append(HeaderName::from_static(name), HeaderValue::from_bytes(&bytes).unwrap());
    };
    if !head.directives.is_empty() {
        add("cache-control", &head.directives.join(", "));
    }
    head.expires.iter().for_each(|value| add("expires", value));
    let fields = [("date", &head.date), ("age", &head.age), ("vary", &head.vary), ("pragma", &head.pragma)];
    for (name, value) in fields {
        value.iter().for_each(|value| add(name, value));
    }
    map
}

/// The remaining lifetime; none for a reader that panics.
fn ours(head: &Head) -> Option<Duration> {
    let rules = FreshnessRules {
        min_ttl: Duration::ZERO,
        max_ttl: Duration::MAX,
        default_ttl: Duration::ZERO,
        stale_while_error: Duration::ZERO,
        http_strict: true,
    };
    let timing = Timing { requested_at: Moment::ORIGIN, received_at: Moment::ORIGIN, received_wall: noon() };
    Some(assess(&StoredHeaders::from_response(&map(head)), &timing, &rules).lifetime)
}

fn theirs(head: &Head) -> Option<Duration> {
    let options = CacheOptions {
        shared: false,
        cache_heuristic: 0.0,
        immutable_min_time_to_live: Duration::ZERO,
        ignore_cargo_cult: false,
    };
    let mut response = Response::new(());
    *response.headers_mut() = map(head);
    let arrival = SystemTime::from(noon());
    let policy = CachePolicy::new_options(&Request::new(()), &response, arrival, options);
    quietly(|| {
        let _ = policy.age(arrival + Duration::from_secs(1));
        policy.time_to_live(arrival)
    })
}

thread_local!(static QUIET: Cell<bool> = const { Cell::new(false) });

/// What `read` gives; none when it panics, which is expected and not worth a line for each.
fn quietly<R>(read: impl FnOnce() -> R + UnwindSafe) -> Option<R> {
    static HOOKED: Once = Once::new();
    HOOKED.call_once(|| {
        let usual = take_hook();
        set_hook(Box::new(move |panic| {
            if !QUIET.get() {
                usual(panic);
            }
        }));
    });
    QUIET.set(true);
    let read = catch_unwind(read).ok();
    QUIET.set(false);
    read
}

/// Makes the head say that it has no lifetime.
fn stale(meaning: &mut Head) {
    meaning.directives.push("no-cache".to_owned());
}

/// Writes `max-age` anew as `spelled` makes of its number, where there is one.
fn respell(written: &mut Head, spelled: fn(&str) -> String) -> bool {
    let given = written.directives.iter_mut().find(|directive| directive.starts_with("max-age="));
    let Some(directive) = given else { return false };
    *directive = spelled(directive.trim_start_matches("max-age="));
    true
}

/// Sets `max-age`, in both.
fn set_max_age(head: &mut Head, seconds: &str) {
    head.directives.retain(|directive| !directive.starts_with("max-age="));
    head.directives.push(format!("max-age={seconds}"));
}

/// The lifetime by `Expires` alone, ending in ten minutes.
fn only_expires(head: &mut Head, expires: String) {
    head.directives.clear();
    (head.expires, head.date) = (vec![expires], None);
}

/// In the order in which quirks are written: one that sets a field anew comes before one that adds to it.
const TABLE: &[Difference<Head>] = &[
    Difference {
        rule: "a max-age without argument",
        who_is_right: Right::Ours,
        why: "an invalid lifetime is stale (RFC 9111 §4.2.1); the other goes on to Expires",
        quirk: |written, meaning| {
            written.directives = vec!["max-age".to_owned()];
            written.expires = vec![date(600)];
            stale(meaning);
        },
    },
    Difference {
        rule: "Pragma in a response",
        who_is_right: Right::Ours,
        why: "it has a meaning in requests only (RFC 9111 §5.4)",
        quirk: |written, meaning| {
            only_expires(written, date(600));
            only_expires(meaning, date(600));
            written.pragma = Some("no-cache".to_owned());
        },
    },
    Difference {
        rule: "two Expires that differ",
        who_is_right: Right::Both,
        why: "RFC 9111 §4.2.1 allows the first or stale",
        quirk: |written, meaning| {
            only_expires(written, date(600));
            written.expires.push(date(900));
            only_expires(meaning, "0".to_owned());
        },
    },
    Difference {
        rule: "an Expires in the form of RFC 850",
        who_is_right: Right::Ours,
        why: "a recipient accepts all three forms (RFC 9110 §5.6.7)",
        quirk: |written, meaning| {
            only_expires(written, "Tuesday, 05-May-26 12:10:00 GMT".to_owned());
            only_expires(meaning, date(600));
        },
    },
    Difference {
        rule: "an Expires in the form of asctime",
        who_is_right: Right::Ours,
        why: "a recipient accepts all three forms (RFC 9110 §5.6.7)",
        quirk: |written, meaning| {
            only_expires(written, "Tue May  5 12:10:00 2026".to_owned());
            only_expires(meaning, date(600));
        },
    },
    Difference {
        rule: "an Expires with a numeric zone",
        who_is_right: Right::Both,
        why: "mail may say +0000, HTTP says GMT (RFC 9110 §5.6.7); what is no HTTP date has expired",
        quirk: |written, meaning| {
            only_expires(written, date(600).replace("GMT", "+0000"));
            only_expires(meaning, "0".to_owned());
        },
    },
    Difference {
        rule: "an Age with several members",
        who_is_right: Right::Ours,
        why: "the first counts (RFC 9111 §5.1); the other takes it for 0",
        quirk: |written, meaning| {
            (written.age, meaning.age) = (Some("50, 7".to_owned()), Some("50".to_owned()));
        },
    },
    Difference {
        rule: "an Age with a sign",
        who_is_right: Right::Ours,
        why: "it is no delta-seconds, so the field is ignored (RFC 9111 §5.1)",
        quirk: |written, meaning| {
            (written.age, meaning.age) = (Some("+50".to_owned()), None);
        },
    },
    Difference {
        rule: "an Age beyond 64 bits",
        who_is_right: Right::Ours,
        why: "too large a number is 2^31 (RFC 9111 §1.2.2); the other takes it for 0",
        quirk: |written, meaning| {
            written.age = Some("99999999999999999999".to_owned());
            meaning.age = Some("2147483648".to_owned());
        },
    },
    Difference {
        rule: "the largest Age of 64 bits",
        who_is_right: Right::Ours,
        why: "the other panics a second later",
        quirk: |written, meaning| {
            written.age = Some(u64::MAX.to_string());
            meaning.age = Some("2147483648".to_owned());
        },
    },
    Difference {
        rule: "a Date before the arrival",
        who_is_right: Right::Ours,
        why: "the apparent age counts where it exceeds Age (RFC 9111 §4.2.3); the other never looks",
        quirk: |written, meaning| {
            set_max_age(written, "900");
            set_max_age(meaning, "900");
            (written.date, meaning.date) = (Some(date(-400)), None);
            let said = meaning.age.take().and_then(|age| age.parse().ok()).unwrap_or(0_u64);
            meaning.age = Some(said.max(400).to_string());
        },
    },
    Difference {
        rule: "a max-age beyond 64 bits",
        who_is_right: Right::Ours,
        why: "too large a number is 2^31 (RFC 9111 §1.2.2); the other takes it for 0",
        quirk: |written, meaning| {
            set_max_age(written, "99999999999999999999");
            set_max_age(meaning, "2147483648");
        },
    },
    Difference {
        rule: "a max-age beyond 31 bits",
        who_is_right: Right::Both,
        why: "RFC 9111 §1.2.2 lets a cache stop at 2^31, some 68 years",
        quirk: |written, meaning| {
            set_max_age(written, "4294967296");
            set_max_age(meaning, "2147483648");
        },
    },
    Difference {
        rule: "a sign before the number",
        who_is_right: Right::Ours,
        why: "delta-seconds are digits (RFC 9111 §1.2.2)",
        quirk: |written, meaning| {
            if respell(written, |number| format!("max-age=+{number}")) {
                stale(meaning);
            }
        },
    },
    Difference {
        rule: "white space around the equals sign",
        who_is_right: Right::Both,
        why: "the grammar has none (RFC 9111 §5.2), so it is invalid, hence stale; the other excuses it",
        quirk: |written, meaning| {
            if respell(written, |number| format!("max-age = {number}")) {
                stale(meaning);
            }
        },
    },
    Difference {
        rule: "a quotation mark that is not closed",
        who_is_right: Right::Both,
        why: "no quoted string (RFC 9110 §5.6.4), so it is invalid, hence stale; the other trims it",
        quirk: |written, meaning| {
            if respell(written, |number| format!("max-age=\"{number}")) {
                stale(meaning);
            }
        },
    },
    Difference {
        rule: "two max-ages that differ",
        who_is_right: Right::Both,
        why: "RFC 9111 §4.2.1 allows the first or stale; stale costs a fetch, the other risks old keys",
        quirk: |written, meaning| {
            if written.directives.iter().any(|text| text.starts_with("max-age=")) {
                written.directives.push("max-age=20001".to_owned());
                stale(meaning);
            }
        },
    },
    Difference {
        rule: "no-cache with field names",
        who_is_right: Right::Both,
        why: "it withholds those fields (RFC 9111 §5.2.2.4), and we hand on none; the other takes it for a plain one, as is allowed",
        quirk: |written, _| written.directives.push("no-cache=\"set-cookie\"".to_owned()),
    },
    Difference {
        rule: "a byte beyond ASCII in Cache-Control",
        who_is_right: Right::Ours,
        why: "an unknown extension is ignored by itself (RFC 9111 §5.2.3); the other drops the whole line",
        quirk: |written, _| written.directives.push("ext=\u{ff}".to_owned()),
    },
    Difference {
        rule: "commas inside a quoted argument",
        who_is_right: Right::Ours,
        why: "a quoted string is one argument (RFC 9110 §5.6.4); the other finds directives in it",
        quirk: |written, _| written.directives.insert(0, "ext=\"a, no-store, b\"".to_owned()),
    },
    Difference {
        rule: "Vary: * among other fields",
        who_is_right: Right::Ours,
        why: "a `*` as any member matches no request (RFC 9110 §12.5.5)",
        quirk: |written, meaning| {
            written.vary = Some("accept, *".to_owned());
            meaning.vary = Some("*".to_owned());
        },
    },
    Difference {
        rule: "directive names in any letter case",
        who_is_right: Right::Ours,
        why: "they are case-insensitive (RFC 9111 §5.2); the other overlooks `No-Store`",
        quirk: |written, _| written.directives.iter_mut().for_each(|text| *text = text.to_ascii_uppercase()),
    },
];

fn plain() -> impl Strategy<Value = Head> {
    let number = prop_oneof![Just(0_u32), 1_u32..10_000, Just(2_147_483_648)];
    let max_age = prop_oneof![
        4 => number.clone().prop_map(|seconds| Some(format!("max-age={seconds}"))),
        1 => number.clone().prop_map(|seconds| Some(format!("max-age=\"{seconds}\""))),
        1 => Just(Some("max-age=soon".to_owned())),
        2 => Just(None),
    ];
    let others = [
        "public",
        "private",
        "must-revalidate",
        "immutable",
        "no-transform",
        "s-maxage=9",
        "no-cache",
        "no-store",
        "stale-if-error=900",
        "made-up=7",
        "",
    ];
    let others = prop::sample::subsequence(others.to_vec(), 0..=3);
    let expires = prop_oneof![
        2 => Just(None),
        2 => (-5_000_i64..5_000).prop_map(|offset| Some(date(offset))),
        1 => prop::sample::select(vec!["0", "-1", "never", ""]).prop_map(|text| Some(text.to_owned())),
    ];
    // Not before the arrival: that is a rule of its own.
    let dates = prop::option::of((0_i64..5_000).prop_map(date));
    let age = prop_oneof![
        2 => Just(None),
        2 => (0_u32..5_000).prop_map(|age| Some(age.to_string())),
        1 => prop::sample::select(vec!["-5", "5.0", "old", ""]).prop_map(|text| Some(text.to_owned())),
    ];
    let vary = prop::option::weighted(0.2, prop::sample::select(vec!["*", "accept", "accept, origin"]));
    (max_age, others, expires, dates, age, vary).prop_map(|(max_age, others, expires, date, age, vary)| {
        Head {
            directives: max_age.into_iter().chain(others.into_iter().map(str::to_owned)).collect(),
            expires: expires.into_iter().collect(),
            date,
            age,
            vary: vary.map(str::to_owned),
            pragma: None,
        }
    })
}

#[test]
fn every_difference_to_http_cache_semantics_is_explained() {
    compare("freshness and http-cache-semantics", TABLE, plain(), ours, theirs);
}
