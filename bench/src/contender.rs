//! The three contenders behind one lookup, each set up as its README-style code does it.

use std::sync::Arc;
use std::time::Duration;

use jwks_cache_testkit::{Algorithm, IdentityProvider, split};
use ours::Clock;

use crate::by_hand;

/// Who competes, in the order of the columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// This repository's `jwks-cache`.
    Ours,
    /// The published `jwks-cache` 0.2, as a black box.
    Predecessor,
    /// `RwLock<HashMap<String, DecodingKey>>`, written by hand.
    ByHand,
}

pub const KINDS: [Kind; 3] = [Kind::Ours, Kind::Predecessor, Kind::ByHand];

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Predecessor => "jwks-cache 0.2",
            Self::ByHand => "by hand",
        }
    }
}

/// What a workload sets; everything else stays at its default.
#[derive(Default)]
pub struct Settings {
    /// Ours alone takes a clock.
    pub clock: Option<Arc<dyn Clock>>,
    /// The stale window of the two that have one.
    pub stale_while_error: Option<Duration>,
    /// The one lifetime of the cache written by hand. Default 5 min.
    pub by_hand_ttl: Option<Duration>,
}

const TENANT: &str = "acme";
const PROVIDER: &str = "main";

/// A contender with one provider registered and nothing fetched. Clones share the cache.
#[derive(Clone)]
pub enum Contender {
    Ours(ours::Registry),
    Predecessor(predecessor::Registry),
    ByHand(Arc<by_hand::Cache>),
}

impl Contender {
    pub async fn start(kind: Kind, idp: &IdentityProvider, settings: Settings) -> Self {
        let url = idp.jwks_url();
        match kind {
            Kind::Ours => {
                let mut builder = ours::Registry::builder().require_https(false);
                if let Some(clock) = settings.clock {
                    builder = builder.clock(clock);
                }
                let registry = builder.build();
                let made = ours::IdentityProviderRegistration::new(TENANT, PROVIDER, url.as_str());
                let mut registration = made.expect("the testkit's URL parses");
                if let Some(window) = settings.stale_while_error {
                    registration.stale_while_error = window;
                }
                registry.register(registration).await.expect("the registration is valid");
                Self::Ours(registry)
            }
            Kind::Predecessor => {
                let registry = predecessor::Registry::builder().require_https(false).build();
                let made = predecessor::IdentityProviderRegistration::new(TENANT, PROVIDER, url.as_str());
                let mut registration = made.expect("the testkit's URL parses").with_require_https(false);
                if let Some(window) = settings.stale_while_error {
                    registration.stale_while_error = window;
                }
                registry.register(registration).await.expect("the registration is valid");
                Self::Predecessor(registry)
            }
            Kind::ByHand => {
                let ttl = settings.by_hand_ttl.unwrap_or(Duration::from_secs(300));
                Self::ByHand(Arc::new(by_hand::Cache::new(url.into(), ttl)))
            }
        }
    }

    /// One lookup: whether it gave the key `kid` (without one, any key), or why it failed.
    pub async fn lookup(&self, kid: Option<&str>) -> Result<bool, String> {
        match self {
            Self::Ours(registry) => {
                let set = registry.resolve(TENANT, PROVIDER, kid).await.map_err(|error| error.to_string())?;
                Ok(set.keys.iter().any(|jwk| kid.is_none() || jwk.common.key_id.as_deref() == kid))
            }
            Self::Predecessor(registry) => {
                let set = registry.resolve(TENANT, PROVIDER, kid).await.map_err(|error| error.to_string())?;
                Ok(set.keys.iter().any(|jwk| kid.is_none() || jwk.common.key_id.as_deref() == kid))
            }
            Self::ByHand(cache) => Ok(cache.key(kid).await?.is_some()),
        }
    }

    /// Whether the ES256 `token` verifies. For the two others finding its key is taken for it.
    pub async fn verifies(&self, token: &str) -> bool {
        let Some((header, input, signature)) = split(token) else { return false };
        let kid = header["kid"].as_str();
        match self {
            Self::Ours(registry) => match registry.key(TENANT, PROVIDER, kid, Algorithm::ES256).await {
                Ok(key) => key.verify(input.as_bytes(), &signature).is_ok(),
                Err(_) => false,
            },
            _ => self.lookup(kid).await == Ok(true),
        }
    }

    /// Waits until no refresh of ours runs; at once for the others, whose clocks nobody drives.
    pub async fn settled(&self) {
        let Self::Ours(registry) = self else { return };
        while let Ok(status) = registry.provider_status(TENANT, PROVIDER).await {
            match status.state {
                ours::ProviderState::Empty | ours::ProviderState::Ready => return,
                _ => tokio::time::sleep(Duration::from_micros(200)).await,
            }
        }
    }
}
