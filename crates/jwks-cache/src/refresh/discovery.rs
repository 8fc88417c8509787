//! Looking up where an issuer's keys are: when, in which order, and what happens when that fails. What its metadata
//! must say is core's to judge.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use jwks_cache_core::Moment;
use jwks_cache_core::discovery::{self, MAX_BYTES, Metadata, Mixup};
use jwks_cache_core::freshness::{FreshnessRules, StoredHeaders, assess};
use tokio::time::timeout;
use url::Url;

use super::place::{Asking, Place};
use crate::error::redacted;
use crate::events::What;
use crate::fetch::{FetchRequest, Fetched, NotFetched, may_be_asked};

/// Metadata changes once in years, so it lives longer than keys when nothing is stated; and a provider that states
/// seconds is not asked for it at each refresh.
const SHORTEST: Duration = Duration::from_secs(5 * 60);
const USUAL: Duration = Duration::from_secs(3600);
const LONGEST: Duration = Duration::from_secs(24 * 3600);
/// So many exchanges with the key set that fail in a row have the metadata looked up again: it may have moved.
const FAILURES: u32 = 2;
/// The part of an attempt's time that a lookup may take where the keys can be asked for without it.
const PART: u32 = 3;
/// When a lookup that failed is made again, while the old metadata serves.
const AGAIN_AFTER: Duration = Duration::from_secs(60);

/// What an issuer's metadata said, and for how long.
#[derive(Clone, Debug)]
pub(crate) struct Discovered {
    pub(super) metadata: Metadata,
    /// Where it was found.
    pub(super) location: Url,
    headers: StoredHeaders,
    due_at: Moment,
    /// How long it serves if it cannot be looked up again is each asker's own.
    received_at: Moment,
}

impl Asking<'_> {
    /// The metadata of `issuer`, looked up where it is due.
    pub(super) async fn discover(
        &self,
        place: &Place,
        at: &Url,
        issuer: &str,
        request: &FetchRequest,
    ) -> Result<Arc<Discovered>, NotFetched> {
        let (known, failures) = place.shared.discovered();
        let now = self.engine.now();
        if let Some(known) = known.as_ref().filter(|known| now < known.due_at && failures < FAILURES) {
            return Ok(known.clone());
        }
        // A key set whose place is known is not lost because the place cannot be looked up.
        let known = known.filter(|known| now < known.received_at + self.policy.trust_age());
        let looked = self.look_up(known.as_deref(), at, issuer, request);
        let looked = match &known {
            None => looked.await,
            Some(_) => {
                let time = self.policy.retry.attempt_timeout / PART;
                timeout(time, looked).await.unwrap_or_else(|_| Err(explained(NotFetched::timed_out(time))))
            }
        };
        match looked {
            Ok(found) => {
                let found = Arc::new(found);
                place.shared.discover(found.clone());
                Ok(found)
            }
            Err(failed) => {
                let Some(known) = known else { return Err(failed) };
                tracing::warn!(reason = failed.reason, why = %failed.message, "metadata could not be looked up again");
                self.tell(What::DiscoveryFailed { reason: failed.message.into() });
                let known = Arc::new(Discovered { due_at: now + AGAIN_AFTER, ..(*known).clone() });
                place.shared.discover(known.clone());
                Ok(known)
            }
        }
    }

    /// Asks where it was found before, or else wherever it may be, in order.
    async fn look_up(
        &self,
        known: Option<&Discovered>,
        at: &Url,
        issuer: &str,
        request: &FetchRequest,
    ) -> Result<Discovered, NotFetched> {
        if let Some(known) = known {
            let again = self.look_at(&known.location, Some(known), issuer, request).await;
            if !again.as_ref().is_err_and(is_not_there) {
                return again;
            }
        }
        let mut first = None;
        for location in discovery::locations(at) {
            match self.look_at(&location, None, issuer, request).await {
                // The next place is for issuers that publish nothing here, not for those that are down.
                Err(failed) if is_not_there(&failed) => first = first.or(Some(failed)),
                found => return found,
            }
        }
        Err(first.unwrap_or_else(|| NotFetched::new("discovery", "there is no place to look for metadata")))
    }

    async fn look_at(
        &self,
        location: &Url,
        known: Option<&Discovered>,
        issuer: &str,
        request: &FetchRequest,
    ) -> Result<Discovered, NotFetched> {
        let located = |failed: NotFetched| NotFetched { url: Some(Box::new(location.clone())), ..failed };
        let validators = known.map(|known| known.headers.validators()).unwrap_or_default();
        let lookup = FetchRequest {
            url: location.clone(),
            if_none_match: validators.etag,
            if_modified_since: validators.last_modified,
            bypass_caches: false,
            max_response_bytes: request.max_response_bytes.min(MAX_BYTES),
            ..request.clone()
        };
        let fetched = self.fetch(&lookup).await.map_err(|failed| located(explained(failed)))?;
        let Fetched { status, headers, body, timing, .. } = fetched;
        let (metadata, stored) = match known {
            Some(known) if status == StatusCode::NOT_MODIFIED => {
                let mut stored = known.headers.clone();
                stored.merge_not_modified(&headers);
                (known.metadata.clone(), stored)
            }
            _ => {
                let mixed_up = |mixup: Mixup| located(NotFetched::new(mixup.reason(), mixup.to_string()));
                let mut metadata = discovery::read(&body, issuer).map_err(mixed_up)?;
                metadata.jwks_uri.set_fragment(None);
                check(&metadata.jwks_uri, location, request).map_err(located)?;
                (metadata, StoredHeaders::from_response(&headers))
            }
        };
        let rules = FreshnessRules {
            min_ttl: SHORTEST,
            max_ttl: LONGEST,
            default_ttl: USUAL,
            stale_while_error: Duration::ZERO,
            http_strict: false,
        };
        let lifetime = assess(&stored, &timing, &rules).lifetime;
        Ok(Discovered {
            metadata,
            location: location.clone(),
            headers: stored,
            due_at: timing.received_at + lifetime,
            received_at: timing.received_at,
        })
    }
}

/// Whether nothing is published at a place: it says so.
fn is_not_there(failed: &NotFetched) -> bool {
    failed.reason == "status"
        && failed.status.is_some_and(|status| {
            status.is_client_error() && !matches!(status.as_u16(), 401 | 403 | 408 | 429)
        })
}

fn explained(failed: NotFetched) -> NotFetched {
    let remedy = match failed.reason {
        "too_large" => {
            let message = format!(
                "the discovery document has more than {MAX_BYTES} bytes, and real ones have some 5,000: check the issuer"
            );
            return NotFetched { message, ..failed };
        }
        "policy" => "; where metadata and keys are on other hosts, name them in allowed_domains",
        "status" => "; check the issuer, or register the URL of its keys as jwks_url",
        _ => "",
    };
    NotFetched { message: format!("discovery: {}{remedy}", failed.message), ..failed }
}

/// Whether `jwks_uri` may be asked: as a redirect to it would be. Its address and its pins are looked at when it is
/// dialled.
fn check(jwks_uri: &Url, found_at: &Url, request: &FetchRequest) -> Result<(), NotFetched> {
    let refuse = |why: String| {
        let shown = redacted(jwks_uri);
        Err(NotFetched::refused(format!("the discovery document's jwks_uri {shown} is refused: {why}")))
    };
    if !jwks_uri.username().is_empty() || jwks_uri.password().is_some() {
        return refuse("it carries credentials".to_owned());
    }
    if found_at.scheme() == "https" && jwks_uri.scheme() != "https" {
        return refuse("it is not https although the issuer is; ask the provider to correct it".to_owned());
    }
    match may_be_asked(request, jwks_uri) {
        Ok(()) => Ok(()),
        Err(why) => {
            refuse(format!("{why}; if the provider keeps its keys there, name both hosts in allowed_domains"))
        }
    }
}
