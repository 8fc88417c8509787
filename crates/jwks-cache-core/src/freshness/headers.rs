//! What the header fields of a response say about caching, read once and kept small.
//!
//! This room does not know what time it is, how long a transfer took, or what the operator wants.

use chrono::{DateTime, Utc};
use http::header::{AGE, CACHE_CONTROL, DATE, ETAG, EXPIRES, LAST_MODIFIED, VARY};
use http::{HeaderMap, HeaderName};
use serde::{Deserialize, Serialize};

/// The header fields of a stored response that decide freshness, and its validators.
///
/// Everything is parsed when it arrives; a 304 is merged with [`StoredHeaders::merge_not_modified`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StoredHeaders {
    pub(super) cache_control: CacheControl,
    pub(super) expires: Expires,
    pub(super) vary_star: bool,
    pub(super) date: Option<DateTime<Utc>>,
    pub(super) age: Option<u64>,
    etag: Option<String>,
    last_modified: Option<LastModified>,
}

impl StoredHeaders {
    /// An entity tag longer than this, in bytes, is not kept: it would cost memory and every request
    /// for as long as the keys are held. Without it the next answer is a 200 instead of a 304.
    pub const MAX_ETAG_BYTES: usize = 1024;

    /// Reads the header of a complete 200. Nothing here fails: what cannot be read is treated as
    /// RFC 9111 says for each field.
    #[must_use]
    pub fn from_response(headers: &HeaderMap) -> Self {
        Self {
            cache_control: CacheControl::read(headers),
            expires: Expires::read(headers),
            vary_star: lines(headers, &VARY).any(|line| line.split(',').any(|field| trimmed(field) == "*")),
            date: first(headers, &DATE).and_then(http_date),
            // The first member counts; when it is no delta-seconds the field is ignored (RFC 9111 §5.1).
            age: first(headers, &AGE)
                .and_then(|line| line.split(',').next())
                .and_then(|age| delta_seconds(trimmed(age))),
            etag: first(headers, &ETAG)
                .filter(|tag| !tag.is_empty() && tag.len() <= Self::MAX_ETAG_BYTES)
                .map(str::to_owned),
            last_modified: first(headers, &LAST_MODIFIED)
                .and_then(|text| Some(LastModified { text: text.to_owned(), at: http_date(text)? })),
        }
    }

    /// The header of a stored set, of which only the validators are known. What else it said is not, so that to the
    /// letter it may not be used stale.
    #[must_use]
    pub fn from_validators(etag: Option<&str>, last_modified: Option<DateTime<Utc>>) -> Self {
        Self {
            cache_control: CacheControl { must_revalidate: true, ..CacheControl::default() },
            etag: etag.filter(|tag| !tag.is_empty() && tag.len() <= Self::MAX_ETAG_BYTES).map(str::to_owned),
            last_modified: last_modified
                // The years that an HTTP date can say.
                .filter(|at| (0..253_402_300_800).contains(&at.timestamp()))
                .map(|at| LastModified { text: httpdate::fmt_http_date(at.into()), at }),
            ..Self::default()
        }
    }

    /// The same, where it is known as well how it may be used stale.
    #[must_use]
    pub fn with_stale_use(mut self, allowed: StaleUse) -> Self {
        (self.cache_control.must_revalidate, self.cache_control.stale_if_error) = match allowed {
            StaleUse::Forbidden => (true, Seconds::Absent),
            StaleUse::For(seconds) => (false, Seconds::Given(seconds.min(1 << 31))),
        };
        self
    }

    /// What it says about being used stale.
    #[must_use]
    pub const fn stale_use(&self) -> StaleUse {
        let said = &self.cache_control;
        match said.stale_if_error {
            _ if said.must_revalidate || said.no_cache || said.no_store || self.vary_star => {
                StaleUse::Forbidden
            }
            Seconds::Given(seconds) => StaleUse::For(seconds),
            Seconds::Absent | Seconds::Unusable => StaleUse::For(0),
        }
    }

    /// Freshens the stored fields with those of a 304 (RFC 9111 §3.2, §4.3.4): a field that the 304
    /// carries replaces the stored one, or is added; one that it leaves out stays.
    ///
    /// `Date` and `Age` tell about the message that carried them, so the 304's count, absent or not:
    /// the `Age` of last week's response says nothing about today's confirmation.
    pub fn merge_not_modified(&mut self, headers: &HeaderMap) {
        let newer = Self::from_response(headers);
        if headers.contains_key(CACHE_CONTROL) {
            self.cache_control = newer.cache_control;
        }
        if headers.contains_key(EXPIRES) {
            self.expires = newer.expires;
        }
        if headers.contains_key(VARY) {
            self.vary_star = newer.vary_star;
        }
        if headers.contains_key(ETAG) {
            self.etag = newer.etag;
        }
        if headers.contains_key(LAST_MODIFIED) {
            self.last_modified = newer.last_modified;
        }
        self.date = newer.date;
        self.age = newer.age;
    }

    /// What the next request may be made conditional on (RFC 9111 §4.3.1).
    #[must_use]
    pub fn validators(&self) -> Validators {
        Validators {
            etag: self.etag.clone(),
            last_modified: self.last_modified.as_ref().map(|modified| modified.text.clone()),
        }
    }

    /// `Last-Modified`, when it is an HTTP date.
    #[must_use]
    pub fn last_modified(&self) -> Option<DateTime<Utc>> {
        self.last_modified.as_ref().map(|modified| modified.at)
    }

    /// `ETag` as it was sent, weak or strong.
    #[must_use]
    pub fn etag(&self) -> Option<&str> {
        self.etag.as_deref()
    }
}

/// The texts that make a request conditional, each as the origin sent it: an origin compares its own
/// spelling, not ours.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Validators {
    /// For `If-None-Match` (RFC 9110 §13.1.2); weak tags too, since the comparison there is weak.
    pub etag: Option<String>,
    /// For `If-Modified-Since` (RFC 9110 §13.1.3); only a valid HTTP date.
    pub last_modified: Option<String>,
}

/// What a response says about being used stale (RFC 9111 §4.2.4, RFC 5861 §4), whatever the operator sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StaleUse {
    /// It may not be.
    Forbidden,
    /// It may be, and for so many seconds after an error even without the operator.
    For(u64),
}

impl Validators {
    /// Whether a request would be unconditional.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.etag.is_none() && self.last_modified.is_none()
    }
}

#[derive(Clone, Debug, PartialEq)]
struct LastModified {
    text: String,
    at: DateTime<Utc>,
}

/// The directives that matter to a private cache (RFC 9111 §5.2.2). `s-maxage`, `proxy-revalidate`,
/// `private` and `public` speak to shared caches; unknown ones are ignored (§5.2.3).
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct CacheControl {
    pub(super) max_age: Seconds,
    pub(super) stale_if_error: Seconds,
    pub(super) no_cache: bool,
    pub(super) no_store: bool,
    pub(super) must_revalidate: bool,
}

impl CacheControl {
    fn read(headers: &HeaderMap) -> Self {
        let mut read = Self::default();
        for line in headers.get_all(CACHE_CONTROL) {
            for directive in outside_quotes(&String::from_utf8_lossy(line.as_bytes())) {
                read.take(trimmed(directive));
            }
        }
        read
    }

    fn take(&mut self, directive: &str) {
        let (name, argument) = match directive.split_once('=') {
            // No white space is allowed around `=`: such an argument is there, and cannot be read.
            Some((name, argument)) => (trimmed(name), Some(argument).filter(|_| name == trimmed(name))),
            None => (directive, None),
        };
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        let seconds = || argument.and_then(unquoted).and_then(delta_seconds);
        if is("max-age") {
            self.max_age.and(seconds());
        } else if is("stale-if-error") {
            self.stale_if_error.and(seconds());
        } else if is("no-cache") {
            // With field names it withholds those fields, not the response (RFC 9111 §5.2.2.4). We hand
            // on no field of the response, so there is nothing left to withhold.
            self.no_cache |= !argument.and_then(unquoted).is_some_and(lists_fields);
        } else if is("no-store") {
            self.no_store = true;
        } else if is("must-revalidate") {
            self.must_revalidate = true;
        }
    }
}

/// The argument of a directive that may be given once.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) enum Seconds {
    #[default]
    Absent,
    Given(u64),
    /// Not delta-seconds, or given twice with different values: stale, says RFC 9111 §4.2.1.
    Unusable,
}

impl Seconds {
    fn and(&mut self, given: Option<u64>) {
        *self = match (*self, given) {
            (Self::Absent, Some(seconds)) => Self::Given(seconds),
            (Self::Given(before), Some(seconds)) if before == seconds => Self::Given(seconds),
            _ => Self::Unusable,
        };
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) enum Expires {
    #[default]
    Absent,
    At(DateTime<Utc>),
    /// Not a date (`0` is common), or two different ones: already expired (RFC 9111 §5.3, §4.2.1).
    Unusable,
}

impl Expires {
    fn read(headers: &HeaderMap) -> Self {
        headers.get_all(EXPIRES).iter().fold(Self::Absent, |before, line| {
            let date = std::str::from_utf8(line.as_bytes()).ok().and_then(http_date);
            match (before, date) {
                (Self::Absent, Some(at)) => Self::At(at),
                (Self::At(first), Some(at)) if first == at => Self::At(at),
                _ => Self::Unusable,
            }
        })
    }
}

/// The largest delta-seconds: what RFC 9111 §1.2.2 names for values too large to represent.
const MAX_DELTA_SECONDS: u64 = 1 << 31;

/// Non-negative decimal seconds (RFC 9111 §1.2.2); 2^31 stands for everything above it.
pub(super) fn delta_seconds(digits: &str) -> Option<u64> {
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(digits.parse().map_or(MAX_DELTA_SECONDS, |seconds: u64| seconds.min(MAX_DELTA_SECONDS)))
}

/// A date in any of the three forms of RFC 9110 §5.6.7, in any letter case (RFC 9111 §4.2).
///
/// The two-digit years of the RFC 850 form mean 1970 to 2069. The standard's border, 50 years from now,
/// moves; the dates between the two borders are refused or past here, which only costs a fetch.
pub(super) fn http_date(text: &str) -> Option<DateTime<Utc>> {
    const LONGEST: usize = "Wednesday, 01-Jan-25 00:00:00 GMT".len();
    let text = trimmed(text);
    if text.len() > LONGEST {
        return None;
    }
    let mut inside_word = false;
    let cased: String = text
        .chars()
        .map(|c| {
            let cased = if inside_word { c.to_ascii_lowercase() } else { c.to_ascii_uppercase() };
            inside_word = c.is_ascii_alphabetic();
            cased
        })
        .collect();
    let cased = match cased.strip_suffix("Gmt") {
        Some(start) => format!("{start}GMT"),
        None => cased,
    };
    httpdate::parse_http_date(&cased).ok().map(DateTime::from)
}

/// The first line of a field, without the white space around it.
pub(super) fn first<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name).and_then(|value| std::str::from_utf8(value.as_bytes()).ok()).map(trimmed)
}

fn lines<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    headers.get_all(name).into_iter().filter_map(|value| std::str::from_utf8(value.as_bytes()).ok())
}

/// Splits at the commas that are not inside a quoted string (RFC 9110 §5.6.4).
fn outside_quotes(line: &str) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    line.split(move |c| {
        if escaped {
            escaped = false;
            return false;
        }
        match c {
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ => {}
        }
        c == ',' && !quoted
    })
}

/// A token as it is, a quoted string without its quotes; `None` when a quote is left over.
fn unquoted(argument: &str) -> Option<&str> {
    let inner = match argument.strip_prefix('"') {
        Some(rest) => rest.strip_suffix('"')?,
        None => argument,
    };
    (!inner.contains('"')).then_some(inner)
}

fn lists_fields(names: &str) -> bool {
    names.split(',').all(|name| HeaderName::from_bytes(trimmed(name).as_bytes()).is_ok())
}

/// Without optional white space, which in HTTP is blank and tab alone (RFC 9110 §5.6.3).
fn trimmed(text: &str) -> &str {
    text.trim_matches([' ', '\t'])
}
