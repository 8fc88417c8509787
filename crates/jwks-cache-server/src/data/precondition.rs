//! Whether a client has already what it asks for (RFC 9110 §13). Which representation it would get is not known here.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::header::{IF_MODIFIED_SINCE, IF_NONE_MATCH};
use http::{HeaderMap, HeaderValue};

/// Whether 304 is the answer to a GET or HEAD, where this is the entity tag and that the time, in seconds since 1970, of
/// what would be sent. An entity tag counts more than a date, which cannot tell two changes of one second apart.
pub(super) fn is_unchanged(headers: &HeaderMap, etag: &HeaderValue, modified: Option<u64>) -> bool {
    let mut tags = headers.get_all(IF_NONE_MATCH).iter().peekable();
    if tags.peek().is_some() {
        // No tag of ours holds a comma or a quote, so one that is cut out of a stranger's is none of ours.
        return tags.any(|line| line.as_bytes().split(|byte| *byte == b',').any(|tag| names(tag, etag)));
    }
    let Some(modified) = modified else { return false };
    let mut dates = headers.get_all(IF_MODIFIED_SINCE).iter();
    let (Some(date), None) = (dates.next(), dates.next()) else { return false };
    let date = date.to_str().ok().and_then(|text| httpdate::parse_http_date(text).ok());
    // A later one is no date of ours: another replica's, whose keys may differ, or of a clock that was set since.
    date.is_some_and(|date| UNIX_EPOCH + Duration::from_secs(modified) == date)
}

/// By the weak comparison (RFC 9110 §8.8.3.2).
fn names(tag: &[u8], etag: &HeaderValue) -> bool {
    let tag = tag.trim_ascii();
    tag == b"*" || tag.strip_prefix(b"W/").unwrap_or(tag) == etag.as_bytes()
}

/// Seconds since 1970 as an HTTP date.
pub(super) fn http_date(seconds: u64) -> HeaderValue {
    // What the calendar of HTTP dates does not reach, it would panic about.
    const LAST: u64 = 253_402_300_799;
    let time: SystemTime = UNIX_EPOCH + Duration::from_secs(seconds.min(LAST));
    HeaderValue::from_str(&httpdate::fmt_http_date(time)).expect("a date is legal in a header")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_told_that_nothing_changed_when_it_has_that_very_thing() {
        const AT: u64 = 1_700_000_000; // Tue, 14 Nov 2023 22:13:20 GMT
        let (before, then, after) = (
            "Tue, 14 Nov 2023 22:13:19 GMT",
            "Tue, 14 Nov 2023 22:13:20 GMT",
            "Tue, 14 Nov 2023 22:13:21 GMT",
        );
        // If-None-Match, If-Modified-Since, is there a Last-Modified, is it unchanged
        let table: &[(&[&str], &[&str], bool, bool)] = &[
            (&[], &[], true, false),
            (&["\"a\""], &[], true, true),
            (&["W/\"a\""], &[], true, true),
            (&["*"], &[], true, true),
            (&["\"b\", \"a\""], &[], true, true),
            (&["\"b\",W/\"a\" , \"c\""], &[], true, true),
            (&["\"b\"", "\"a\""], &[], true, true),
            (&["\"b\""], &[], true, false),
            (&["a"], &[], true, false),
            (&["w/\"a\""], &[], true, false),
            (&["\"A\""], &[], true, false),
            (&["\"a"], &[], true, false),
            (&[""], &[], true, false),
            (&["\"b\""], &[after], true, false),
            (&[""], &[after], true, false),
            (&["\"a\""], &[before], true, true),
            (&[], &[then], true, true),
            (&[], &[after], true, false),
            (&[], &[before], true, false),
            (&[], &["Tuesday, 14-Nov-23 22:13:20 GMT"], true, true),
            (&[], &["yesterday"], true, false),
            (&[], &["0"], true, false),
            (&[], &[then, then], true, false),
            (&[], &[after], false, false),
        ];
        for (tags, dates, is_dated, want) in table {
            let mut headers = HeaderMap::new();
            for tag in *tags {
                headers.append(IF_NONE_MATCH, HeaderValue::from_static(tag));
            }
            for date in *dates {
                headers.append(IF_MODIFIED_SINCE, HeaderValue::from_static(date));
            }
            let got = is_unchanged(&headers, &HeaderValue::from_static("\"a\""), is_dated.then_some(AT));
            assert_eq!(got, *want, "{tags:?} {dates:?}");
        }
        assert_eq!(http_date(AT), then);
        assert_eq!(http_date(u64::MAX), "Fri, 31 Dec 9999 23:59:59 GMT");
    }
}
