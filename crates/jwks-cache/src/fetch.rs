//! One exchange: how bytes arrive, bounded and from where they should. A fetcher neither retries
//! nor remembers, and does not know what a key is; what happens next is `refresh`'s to say.

mod body;
mod http_client;
mod redirect;

use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use http::{HeaderMap, StatusCode};
use jwks_cache_core::freshness::Timing;
use url::Url;

pub(crate) use http_client::HttpFetch;

use crate::dial::{Dial, Notes};
use crate::error::redacted;

/// A boxed future, as [`Fetch::fetch`] returns it.
pub type Fetching<'a> = Pin<Box<dyn Future<Output = Result<Fetched, NotFetched>> + Send + 'a>>;

/// Makes exchanges. The library has one over HTTP; a simulation hands in its own.
///
/// # Cancel safety
/// The future is dropped at the attempt's deadline; nothing may be left behind.
pub trait Fetch: fmt::Debug + Send + Sync + 'static {
    /// Makes one attempt, redirects included.
    fn fetch<'a>(&'a self, request: &'a FetchRequest) -> Fetching<'a>;

    /// Readies what the first attempt would wait for. It may block; a registry calls it once, off the
    /// runtime's workers, when its first provider is registered. Default: nothing.
    fn prepare(&self) {}
}

/// What one attempt asks for, and the bounds it keeps.
#[derive(Clone)]
#[non_exhaustive]
pub struct FetchRequest {
    /// The registered URL.
    pub url: Url,
    /// `If-None-Match`.
    pub if_none_match: Option<String>,
    /// `If-Modified-Since`.
    pub if_modified_since: Option<String>,
    /// Whether to send `Cache-Control: no-cache`, so that a CDN does not answer with the old set.
    pub bypass_caches: bool,
    /// Whether only https will do.
    pub require_https: bool,
    /// Lists that each hop's host must be in, all of them; with none, hops stay on the URL's host.
    pub allowed_domains: Vec<Vec<String>>,
    /// The most redirects.
    pub max_redirects: u8,
    /// The most bytes of the body, compressed and inflated.
    pub max_response_bytes: u64,
    /// How many requests have left for the attempt that runs.
    pub(crate) sent: Sent,
    /// Who we are towards the URL's origin.
    pub(crate) dial: Arc<Dial>,
    /// What happened on the way that an operator wants to know.
    pub(crate) notes: Notes,
}

/// Without the URL's query, which may hold a credential.
impl fmt::Debug for FetchRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FetchRequest").field("url", &redacted(&self.url).as_str()).finish_non_exhaustive()
    }
}

/// Counts requests as they leave, so that those of an attempt that was given up count too.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sent(Arc<AtomicU32>);

impl Sent {
    pub(crate) fn get(&self) -> u32 {
        self.0.load(Relaxed)
    }

    fn one_more(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    /// Starts a new attempt.
    pub(crate) fn reset(&self) {
        self.0.store(0, Relaxed);
    }
}

impl FetchRequest {
    /// Whether a 304 was asked for.
    #[must_use]
    pub fn is_conditional(&self) -> bool {
        self.if_none_match.is_some() || self.if_modified_since.is_some()
    }
}

/// A 200 with its whole body, or a 304 that was asked for.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// 200 or 304.
    pub status: StatusCode,
    /// The response's headers.
    pub headers: HeaderMap,
    /// The inflated body; empty for a 304.
    pub body: Vec<u8>,
    /// When it was asked and answered.
    pub timing: Timing,
    /// How many requests left for it.
    pub requests: u32,
}

/// Why an attempt brought neither.
#[derive(Debug)]
pub struct NotFetched {
    /// A short name for metrics and logs: `connect`, `dns`, `tls`, `reset`, `status`, `too_large`, …
    pub reason: &'static str,
    /// What happened, for people; no header, query or body text.
    pub message: String,
    /// Whether another attempt may do better.
    pub retryable: bool,
    /// Whether policy refused it.
    pub refused_by_policy: bool,
    /// The status, if an answer came.
    pub status: Option<StatusCode>,
    /// At most 256 bytes of an error's body, escaped.
    pub excerpt: Option<String>,
    /// What the provider asked us to wait.
    pub retry_after: Option<Duration>,
    /// The cause below.
    pub cause: Option<Box<dyn StdError + Send + Sync>>,
    /// How many requests left.
    pub requests: u32,
}

impl NotFetched {
    /// The reason when no address of a host may be dialled.
    pub(crate) const ADDRESS: &str = "address";

    /// A failure with a reason and a message; not retryable.
    #[must_use]
    pub fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
            retryable: false,
            refused_by_policy: false,
            status: None,
            excerpt: None,
            retry_after: None,
            cause: None,
            requests: 0,
        }
    }

    /// The same, worth another attempt.
    #[must_use]
    pub fn retryable(mut self) -> Self {
        self.retryable = true;
        self
    }

    /// The whole answer was not here in time.
    pub(crate) fn timed_out(time: Duration) -> Self {
        Self::new("timeout", format!("no whole answer within {time:?}")).retryable()
    }

    pub(crate) fn refused(message: impl Into<String>) -> Self {
        Self { refused_by_policy: true, ..Self::new("policy", message) }
    }

    pub(crate) fn because(mut self, cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.cause = Some(cause.into());
        self
    }
}
