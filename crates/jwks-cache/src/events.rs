//! What a registry tells those who subscribe. Sending never waits; who is slow misses the oldest.

use std::sync::Arc;

use jwks_cache_core::keyset::SetDiff;

use crate::sync::broadcast::{self, error::RecvError};

use crate::security::SpkiFingerprint;

/// How many events a slow subscriber may be behind before it misses the oldest.
const BEHIND: usize = 256;

/// Something that happened to a provider.
#[derive(Clone, Debug)]
pub struct Event {
    /// The tenant.
    pub tenant: Arc<str>,
    /// The provider.
    pub provider: Arc<str>,
    /// What happened.
    pub what: What,
}

/// What happened.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum What {
    /// Another set was adopted.
    SetChanged {
        /// What changed, by thumbprint.
        diff: Arc<SetDiff>,
    },
    /// The adopted set has nothing in common with the last, or new material under a held kid.
    SuspiciousChange {
        /// What changed, by thumbprint.
        diff: Arc<SetDiff>,
    },
    /// A flight failed.
    RefreshFailed {
        /// `connect`, `timeout`, `status`, `not_json`, …
        reason: &'static str,
        /// Flights that failed in a row.
        failures: u32,
    },
    /// Expired keys are served, for the first time since they were fresh.
    ServingStale,
    /// A flight succeeded after others had failed.
    Recovered,
    /// A key was denied.
    KeyDenied {
        /// The kid or thumbprint, as given.
        id: Arc<str>,
    },
    /// A denial was lifted.
    KeyAllowed {
        /// The kid or thumbprint, as given.
        id: Arc<str>,
    },
    /// The issuer's metadata names another URL for its keys.
    JwksUriChanged {
        /// The one before, without its query.
        from: Arc<str>,
        /// The one from now on, without its query.
        to: Arc<str>,
    },
    /// The issuer's metadata could not be looked up again; what it said before is still in force.
    DiscoveryFailed {
        /// Why.
        reason: Arc<str>,
    },
    /// A fallback serves, because the source itself fails and none of its keys may be served any more.
    ServingFallback {
        /// Its place among [`fallbacks`](crate::IdentityProviderRegistration::fallbacks), from 0.
        index: u16,
        /// Where it is.
        place: Arc<str>,
    },
    /// The source itself serves again, after a fallback.
    ServingPrimary,
    /// A server showed a certificate path without a pinned key.
    PinMismatch {
        /// Whether it was turned away ([`PinMode::Enforce`](crate::PinMode)).
        enforced: bool,
        /// The pins of the path's keys, the server's own first.
        path: Arc<[SpkiFingerprint]>,
    },
    /// A file of a certificate, key or token has new content that cannot be used; the old stays in force.
    CredentialNotRenewed {
        /// `tls.ca`, `tls.client_certificate` or `bearer_token`.
        setting: &'static str,
        /// What is wrong with which file.
        reason: Arc<str>,
    },
    /// A snapshot was not restored.
    SnapshotRefused {
        /// Why.
        reason: Arc<str>,
    },
}

/// A subscription to the events of a registry.
#[derive(Debug)]
pub struct Subscription(broadcast::Receiver<Event>);

impl Subscription {
    /// The next event; `None` once the registry is gone. A subscriber that was too slow goes on with
    /// the oldest event still held.
    ///
    /// # Cancel safety
    /// No event is lost when the future is dropped.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            match self.0.recv().await {
                Ok(event) => return Some(event),
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return None,
            }
        }
    }

    /// The next event, if one is there already.
    pub fn try_next(&mut self) -> Option<Event> {
        loop {
            match self.0.try_recv() {
                Ok(event) => return Some(event),
                Err(broadcast::error::TryRecvError::Lagged(_)) => {}
                Err(_) => return None,
            }
        }
    }
}

#[derive(Debug)]
pub(crate) struct Events(broadcast::Sender<Event>);

impl Default for Events {
    fn default() -> Self {
        Self(broadcast::Sender::new(BEHIND))
    }
}

impl Events {
    pub(crate) fn subscribe(&self) -> Subscription {
        Subscription(self.0.subscribe())
    }

    pub(crate) fn send(&self, tenant: &str, provider: &str, what: What) {
        if self.0.receiver_count() > 0 {
            // Whoever listened may have gone; that is no failure.
            let _ = self.0.send(Event { tenant: tenant.into(), provider: provider.into(), what });
        }
    }
}
