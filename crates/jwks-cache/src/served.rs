//! A provider's key set as a server hands it on to others. Which route asks, and how it is cached there, this room does
//! not know.

use std::sync::Arc;
use std::time::Duration;

use jwks_cache_core::served::Document;
use jwks_cache_core::{Algorithm, Moment};

use crate::slot::View;

/// A key set to be handed on, from [`Registry::served`](crate::Registry::served): the document as it was published, every
/// entry word by word, with the keys that retire (`removal_grace`) and without denied ones and those with private or
/// symmetric members. Cloning shares it.
#[derive(Clone, Debug)]
pub struct ServedKeys {
    document: Arc<Document>,
    issuer: Option<Arc<str>>,
    fresh_for: Duration,
    stale_for: Duration,
}

impl ServedKeys {
    /// What `view` has to hand on; none where nothing is held.
    pub(crate) fn of(view: &View, now: Moment) -> Option<Self> {
        let document = view.document(now)?;
        let held = view.published.held.as_ref()?;
        let (fresh_until, servable_until) = (held.fresh_until(), held.servable_until);
        // When a key retires for good, this is another document, and this one is not to be used any more.
        let before = |end: Moment| document.until().map_or(end, |until| until.min(end));
        Some(Self {
            issuer: view.issuer.clone(),
            fresh_for: before(fresh_until).since(now),
            stale_for: before(servable_until).since(fresh_until.max(now)),
            document,
        })
    }

    /// Whether an entry has this kid.
    pub(crate) fn names(&self, kid: &str) -> bool {
        self.document.names(kid)
    }

    /// The document: JSON, an object with an array `keys`. As long as the set and its denials stay what they are, it is
    /// mostly the same `Arc`, and always the same text.
    #[must_use]
    pub fn text(&self) -> &Arc<str> {
        self.document.text()
    }

    /// A document of the entries with exactly this kid; its array is empty where there are none.
    #[must_use]
    pub fn only(&self, kid: &str) -> Arc<str> {
        self.document.only(kid)
    }

    /// The keys with exactly this kid that may verify, as SubjectPublicKeyInfo in PEM (RFC 7468 §13), one after the other;
    /// none where there are none.
    #[must_use]
    pub fn pem(&self, kid: &str) -> Option<String> {
        let pem: String = self.document.keys(kid).filter_map(|key| key.spki_pem()).collect();
        (!pem.is_empty()).then_some(pem)
    }

    /// What some key in it may verify.
    #[must_use]
    pub fn algorithms(&self) -> Vec<Algorithm> {
        let some =
            |algorithm: &Algorithm| self.document.usable().any(|key| key.algorithms().contains(*algorithm));
        Algorithm::ALL.into_iter().filter(some).collect()
    }

    /// The issuer that the provider is registered under.
    #[must_use]
    pub fn issuer(&self) -> Option<&str> {
        self.issuer.as_deref()
    }

    /// For how long it is fresh from now on; 0 when it is stale.
    #[must_use]
    pub const fn fresh_for(&self) -> Duration {
        self.fresh_for
    }

    /// What is left of the stale window: for how long it may be used after [`ServedKeys::fresh_for`] while the provider
    /// fails.
    #[must_use]
    pub const fn stale_for(&self) -> Duration {
        self.stale_for
    }
}
