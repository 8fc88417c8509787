//! Asking one place for its keys, whatever kind of place it is: a URL, an issuer, a file, a text. What comes back is
//! written as a key set. Nothing is judged, kept or tried again here.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use http::{HeaderMap, StatusCode};
use jwks_cache_core::forms;
use jwks_cache_core::freshness::{Timing, Validators};
use jwks_cache_core::policy::Policy;
use url::Url;

use super::discovery::Discovered;
use super::shared::Shared;
use super::{Provider, Source};
use crate::dial::{Notes, Secret, read_at_most};
use crate::engine::Engine;
use crate::events::What;
use crate::fetch::{FetchRequest, Fetched, NotFetched};
use crate::registration::{Fallback, FallbackSource, IdentityProviderRegistration, KeyFormat, KeySource};

/// A place that keys come from.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) kind: Kind,
    pub(super) format: KeyFormat,
    /// As errors and the status name it.
    pub(super) shown: Url,
    pub(super) shared: Arc<Shared>,
}

/// Which kind of place, and where.
#[derive(Clone, Hash)]
pub(super) enum Kind {
    Url(Url),
    Discovery { at: Url, issuer: String },
    File(PathBuf),
    Inline(Secret),
}

impl std::fmt::Debug for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Url(_) => "Url",
            Self::Discovery { .. } => "Discovery",
            Self::File(_) => "File",
            Self::Inline(_) => "Inline",
        })
    }
}

impl Kind {
    /// Where a registration's keys come from.
    pub(super) fn of(registration: &IdentityProviderRegistration) -> Self {
        let issuer = || registration.issuer.clone().unwrap_or_default();
        match &registration.source {
            KeySource::File(path) => Self::File(path.clone()),
            KeySource::Inline(text) => Self::Inline(text.clone()),
            KeySource::DiscoveryAt(at) => Self::Discovery { at: (**at).clone(), issuer: issuer() },
            // One whose issuer is no URL is refused before it is asked.
            KeySource::Discovery => Self::Discovery { at: registration.shown_place(), issuer: issuer() },
            _ => Self::Url(registration.jwks_url.clone()),
        }
    }

    /// Where a fallback's do.
    pub(super) fn of_fallback(fallback: &Fallback) -> Self {
        match &fallback.source {
            FallbackSource::Url(url) => Self::Url(url.clone()),
            FallbackSource::File(path) => Self::File(path.clone()),
            FallbackSource::Inline(text) => Self::Inline(text.clone()),
        }
    }

    /// Whether it is asked over the network, so that asking once for many is worth something.
    pub(super) fn is_remote(&self) -> bool {
        matches!(self, Self::Url(_) | Self::Discovery { .. })
    }
}

impl Place {
    /// Whose door a flight has to pass; none where nothing is asked over the network.
    pub(super) fn origin(&self) -> Option<Arc<str>> {
        let url = match &self.kind {
            Kind::Url(url) => url.clone(),
            Kind::Discovery { at, .. } => {
                self.shared.discovered().0.map_or_else(|| at.clone(), |found| found.metadata.jwks_uri.clone())
            }
            Kind::File(_) | Kind::Inline(_) => return None,
        };
        Some(url.origin().ascii_serialization().into())
    }

    /// The document, as a key set is written.
    fn written_as_key_set(&self, body: Vec<u8>) -> Result<Vec<u8>, NotFetched> {
        let written = match &self.format {
            KeyFormat::Jwks => return Ok(body),
            KeyFormat::X509Map => forms::jwks_of_x509_map(&body),
            KeyFormat::Pem { kid } => forms::jwks_of_pem(&body, kid),
        };
        let refused = |refusal: jwks_cache_core::keyset::Refusal| {
            NotFetched::new(refusal.reason(), refusal.to_string())
        };
        written.map(String::into_bytes).map_err(refused)
    }
}

/// Somebody who asks.
pub(super) struct Asking<'a> {
    pub(super) engine: &'a Engine,
    pub(super) source: &'a Source,
    pub(super) policy: &'a Policy,
    /// Whose counters count, and in whose name events are sent.
    pub(super) provider: Option<&'a Provider>,
    /// What the issuer's metadata said when what is held came.
    pub(super) held_from: Option<&'a Discovered>,
}

impl Asking<'_> {
    /// The request to a place, before it is known which URL it goes to.
    pub(super) fn request(
        &self,
        place: &Place,
        validators: &Validators,
        bypass_caches: bool,
    ) -> FetchRequest {
        let of = &self.source.registration;
        let url = match &place.kind {
            Kind::Url(url) | Kind::Discovery { at: url, .. } => url.clone(),
            Kind::File(_) | Kind::Inline(_) => place.shown.clone(),
        };
        FetchRequest {
            if_none_match: validators.etag.clone(),
            if_modified_since: validators.last_modified.clone(),
            bypass_caches,
            require_https: of.require_https,
            allowed_domains: vec![of.allowed_domains.clone(), self.source.registry_domains.to_vec()],
            max_redirects: of.max_redirects,
            max_response_bytes: of.max_response_bytes,
            host: url.host_str().map(ToOwned::to_owned),
            home: of.home(),
            url,
            sent: Default::default(),
            dial: self.source.dial.clone(),
            notes: Notes::default(),
        }
    }

    /// The conditions that go to a place: what is held may be of another than the metadata names now.
    pub(super) fn conditions(&self, found: Option<&Discovered>, request: &FetchRequest) -> Validators {
        let uri = |of: &Discovered| of.metadata.jwks_uri.clone();
        if found.is_some() && found.map(uri) != self.held_from.map(uri) {
            return Validators::default();
        }
        Validators { etag: request.if_none_match.clone(), last_modified: request.if_modified_since.clone() }
    }

    /// One answer of a place, and what metadata led to it.
    pub(super) async fn ask(
        &self,
        place: &Place,
        request: &FetchRequest,
    ) -> Result<(Fetched, Option<Arc<Discovered>>), NotFetched> {
        let mut found = None;
        let mut fetched = match &place.kind {
            Kind::Url(_) => self.fetch(request).await?,
            Kind::Discovery { at, issuer } => {
                // In a box: seldom taken, and much larger than the rest of a flight.
                let discovered = Box::pin(self.discover(place, at, issuer, request)).await?;
                let Validators { etag, last_modified } = self.conditions(Some(&discovered), request);
                let request = FetchRequest {
                    url: discovered.metadata.jwks_uri.clone(),
                    if_none_match: etag,
                    if_modified_since: last_modified,
                    ..request.clone()
                };
                found = Some(discovered);
                self.fetch(&request)
                    .await
                    .map_err(|failed| NotFetched { url: Some(Box::new(request.url)), ..failed })?
            }
            Kind::File(path) => {
                let (path, most) = (path.clone(), request.max_response_bytes);
                let read = tokio::task::spawn_blocking(move || {
                    read_at_most(&path, most).map_err(|why| format!("{} {why}", path.display()))
                });
                let read = read
                    .await
                    .map_err(|error| NotFetched::new("file", "the runtime is going away").because(error))?;
                self.at_hand(read.map_err(|why| NotFetched::new("file", why).retryable())?)
            }
            Kind::Inline(text) => self.at_hand(text.expose().as_bytes().to_vec()),
        };
        if fetched.status == StatusCode::OK {
            fetched.body = place.written_as_key_set(fetched.body)?;
        }
        Ok((fetched, found))
    }

    fn at_hand(&self, body: Vec<u8>) -> Fetched {
        let (now, wall) = (self.engine.now(), self.engine.clock.wall());
        let timing = Timing { requested_at: now, received_at: now, received_wall: wall };
        Fetched { status: StatusCode::OK, headers: HeaderMap::new(), body, timing, requests: 0 }
    }

    /// One exchange, and its counts, also if it is given up.
    pub(super) async fn fetch(&self, request: &FetchRequest) -> Result<Fetched, NotFetched> {
        struct Counting<'a>(Option<&'a Provider>, &'a FetchRequest, Option<u32>);
        impl Drop for Counting<'_> {
            fn drop(&mut self) {
                if let Some(provider) = self.0 {
                    let sent = self.2.unwrap_or_else(|| self.1.sent.get());
                    provider.counters.requests_sent.fetch_add(u64::from(sent), Relaxed);
                }
            }
        }
        request.sent.reset();
        let mut counting = Counting(self.provider, request, None);
        let fetched = self.engine.fetch.fetch(request).await;
        let (status, requests) = match &fetched {
            Ok(fetched) => (Some(fetched.status), fetched.requests),
            Err(failed) => (failed.status, failed.requests),
        };
        counting.2 = Some(requests);
        if let Some(provider) = self.provider {
            if let Some(status) = status {
                provider.counters.answered(provider.tenant(), provider.id(), status.as_u16());
            }
            if fetched.as_ref().is_err_and(|failed| failed.reason == NotFetched::ADDRESS) {
                provider.counters.rare().refused_addresses.fetch_add(1, Relaxed);
            }
        }
        fetched
    }

    pub(super) fn tell(&self, what: What) {
        if let Some(provider) = self.provider {
            self.engine.events.send(provider.tenant(), provider.id(), what);
        }
    }
}
