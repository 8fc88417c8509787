//! What is served of each provider's document, made once: bytes, their entity tags, gzip. A document that changed nothing
//! keeps all of it. Whether it may be served now, the registry says at each request.

use std::hash::{Hash, Hasher};
use std::io::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use aws_lc_rs::digest::{SHA256, digest};
use axum::body::Bytes;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::HeaderValue;
use jwks_cache::Registry;
use papaya::{Equivalent, HashMap};

use super::precondition::http_date;

/// Fewer are never looked through for providers that are gone.
const FEW: usize = 64;

/// The representations by provider.
#[derive(Default)]
pub(super) struct Shelf {
    rendered: HashMap<Name, Arc<Rendered>>,
    /// How many there are when those are looked for that are registered no more.
    sweep_at: AtomicUsize,
}

/// What is served of one document.
pub(super) struct Rendered {
    text: Arc<str>,
    plain: Representation,
    gzip: OnceLock<Option<Representation>>,
    modified: Option<(u64, HeaderValue)>,
    /// The last second that a document of this provider was dated by.
    dated: u64,
}

/// Bytes as they are sent, and their strong entity tag.
#[derive(Clone)]
pub(super) struct Representation {
    pub(super) bytes: Bytes,
    pub(super) etag: HeaderValue,
}

impl Shelf {
    /// What is served of this document, which is first served at that second since 1970 if it is new.
    pub(super) fn take(
        &self,
        registry: &Registry,
        (tenant, provider): (&str, &str),
        text: &Arc<str>,
        now: u64,
    ) -> Arc<Rendered> {
        let map = self.rendered.pin();
        let known = map.get(&NameRef(tenant, provider));
        if let Some(known) = known.filter(|known| Arc::ptr_eq(&known.text, text)) {
            return known.clone();
        }
        let rendered = Arc::new(Rendered::after(known.map(|known| &**known), text, now));
        map.insert(Name(tenant.into(), provider.into()), rendered.clone());
        if map.len() >= self.sweep_at.load(Ordering::Relaxed).max(FEW) {
            map.retain(|Name(tenant, provider), _| registry.provider(tenant, provider).is_ok());
            self.sweep_at.store(map.len().saturating_mul(2), Ordering::Relaxed);
        }
        rendered
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.rendered.len()
    }
}

impl Rendered {
    fn after(before: Option<&Self>, text: &Arc<str>, now: u64) -> Self {
        match before {
            Some(before) if before.text == *text => Self {
                text: text.clone(),
                plain: before.plain.clone(),
                gzip: before.gzip.clone(),
                modified: before.modified.clone(),
                dated: before.dated,
            },
            before => {
                // Two documents of one second cannot be told apart by their dates, so the second has none (RFC 9110
                // §8.8.2.2); neither has one of a clock that was set back.
                let modified = before.is_none_or(|before| before.dated < now);
                Self {
                    text: text.clone(),
                    plain: Representation::of(Bytes::from_owner(Shared(text.clone()))),
                    gzip: OnceLock::new(),
                    modified: modified.then(|| (now, http_date(now))),
                    dated: before.map_or(now, |before| before.dated.max(now)),
                }
            }
        }
    }

    pub(super) fn plain(&self) -> &Representation {
        &self.plain
    }

    /// None where it would not be smaller.
    pub(super) fn gzip(&self) -> Option<&Representation> {
        let make = || {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
            encoder.write_all(&self.plain.bytes).ok()?;
            let bytes = encoder.finish().ok()?;
            (bytes.len() < self.plain.bytes.len()).then(|| Representation::of(bytes.into()))
        };
        self.gzip.get_or_init(make).as_ref()
    }

    /// When it was first served, if that tells it from what was served before: in seconds since 1970, and as a header.
    pub(super) fn modified(&self) -> Option<&(u64, HeaderValue)> {
        self.modified.as_ref()
    }
}

impl Representation {
    pub(super) fn of(bytes: Bytes) -> Self {
        let etag = format!("\"{}\"", URL_SAFE_NO_PAD.encode(digest(&SHA256, &bytes)));
        let etag = HeaderValue::from_str(&etag).expect("base64 is legal in a header");
        Self { bytes, etag }
    }
}

/// The registry's own text, sent from where it lies.
struct Shared(Arc<str>);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

/// Tenant and provider; looked up by borrowed parts.
#[derive(PartialEq, Eq)]
struct Name(Box<str>, Box<str>);

struct NameRef<'a>(&'a str, &'a str);

impl Hash for Name {
    fn hash<H: Hasher>(&self, state: &mut H) {
        NameRef(&self.0, &self.1).hash(state);
    }
}

impl Hash for NameRef<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
        self.1.hash(state);
    }
}

impl Equivalent<Name> for NameRef<'_> {
    fn equivalent(&self, name: &Name) -> bool {
        (self.0, self.1) == (&*name.0, &*name.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_did_not_change_keeps_its_bytes_and_date_and_what_did_is_dated_anew() {
        let text = |text: &str| Arc::<str>::from(text);
        let first = Rendered::after(None, &text("a"), 100);
        assert_eq!(first.modified().unwrap().0, 100);
        let same = Rendered::after(Some(&first), &text("a"), 200);
        assert_eq!(same.modified().unwrap().0, 100);
        assert_eq!(same.plain().bytes.as_ptr(), first.plain().bytes.as_ptr());
        // now, the date
        for (now, date) in [(100, None), (99, None), (101, Some(101))] {
            let next = Rendered::after(Some(&same), &text("b"), now);
            assert_eq!(next.modified().map(|modified| modified.0), date, "{now}");
            assert_ne!(next.plain().etag, same.plain().etag);
            let third = Rendered::after(Some(&next), &text("c"), 101);
            assert_eq!(third.modified().is_some(), now < 101, "{now}");
        }
    }

    #[test]
    fn gzip_is_the_same_each_time_and_only_where_it_is_smaller() {
        let text: Arc<str> = "{\"keys\":[]}".repeat(20).into();
        let (one, two) = (Rendered::after(None, &text, 1), Rendered::after(None, &text, 2));
        let (one, two) = (one.gzip().unwrap(), two.gzip().unwrap());
        assert!(one.etag == two.etag && one.bytes == two.bytes && one.bytes.len() < text.len());
        assert!(Rendered::after(None, &"{\"keys\":[]}".into(), 1).gzip().is_none());
    }
}
