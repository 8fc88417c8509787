//! An async, multi-tenant JWKS cache.
//!
//! Services verify JWTs with public keys that identity providers publish as a JSON Web Key Set
//! (RFC 7517). This crate keeps those keys at hand: it honours HTTP caching (RFC 9111), refreshes
//! early, shares one flight among all who wait, survives outages within bounds, never amplifies an
//! attack, and tells what it does.
//!
//! Start at [`Registry`]; a single provider can do with [`CacheManager`]. What is believed, and which setting answers
//! which threat, is said in [`docs::trust`]; what each provider needs, in [`preset`] and [`docs::providers`].
//!
//! # Features
//! - `metrics` (default): counters per provider, forwarded to the `metrics` facade once a second.
//! - `prometheus` (default): a ready-made recorder, `install_default_exporter`.
//! - `redis`: snapshots in Redis or Valkey: standalone, TLS, Sentinel, Cluster.
//! - `tower`, `axum`, `tonic`, `actix-web`: a [`Guard`] in front of services of those frameworks; see
//!   [`verify::bearer`].
//! - `jsonwebtoken-aws-lc-rs`, `jsonwebtoken-rust-crypto`: pass-through to jsonwebtoken's backends.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod builder;
pub mod cache;
mod clock;
mod dial;
pub mod docs;
mod duration_text;
mod engine;
mod epoch;
mod error;
mod events;
mod fetch;
mod front;
mod gate;
mod issuers;
#[cfg(feature = "metrics")]
pub mod metrics;
mod name;
mod names;
mod numbers;
pub mod preset;
mod refresh;
mod registration;
mod registry;
mod resolve;
mod schedule;
pub mod security;
mod served;
mod slot;
mod snapshot;
mod status;
pub mod store;
mod sync;
mod telemetry;
pub mod verify;

pub use jsonwebtoken;
pub use jsonwebtoken::jwk::JwkSet;
pub use jwks_cache_core::Moment;
pub use jwks_cache_core::address::PrivateNetworks;
pub use jwks_cache_core::freshness::Timing;
pub use jwks_cache_core::key::{BadSignature, KeyRef, Thumbprint, VerificationKey};
pub use jwks_cache_core::keyset::{KeyId, SetDiff};
#[cfg(feature = "redis")]
pub use redis;
pub use reqwest;

pub use builder::RegistryBuilder;
pub use cache::manager::{CacheManager, CacheSnapshot};
pub use cache::state::{CachePayload, CacheState};
pub use clock::{Clock, Sleep, SystemClock};
pub use dial::{
    ClientCertificate, Material, PathCertificate, PinMode, Resolver, Resolving, Secret, SystemResolver,
    TlsSettings, TlsVersion, certificate_path,
};
pub use error::{Error, ErrorKind, FetchError, KeyError, Result};
pub use events::{Event, Subscription, What};
pub use fetch::{Fetch, FetchRequest, Fetched, Fetching, NotFetched};
#[cfg(feature = "prometheus")]
pub use metrics::install_default_exporter;
pub use refresh::{Looked, LookedUp, fetch_once, look_once};
pub use registration::{
    Algorithm, DEFAULT_MAX_RESPONSE_BYTES, DEFAULT_MAX_TTL, DEFAULT_PREFETCH_JITTER, DEFAULT_REFRESH_EARLY,
    DEFAULT_STALE_WHILE_ERROR, Fallback, FallbackSource, IdentityProviderRegistration, JitterStrategy,
    KeyFormat, KeySource, MAX_REDIRECTS, MIN_TTL_FLOOR, RefreshMode, RetryPolicy,
};
pub use registry::{ProviderHandle, Registry};
pub use security::SpkiFingerprint;
pub use served::ServedKeys;
pub use snapshot::PersistentSnapshot;
pub use status::{
    Health, KeyStatus, ProviderHealth, ProviderState, ProviderStatus, ServingSource, StatusMetric,
};
#[cfg(feature = "redis")]
pub use store::RedisStore;
pub use store::{FileStore, KeyRing, SnapshotStore};

pub use verify::bearer::{Claims, Guard, Refusal, Scopes, TokenSource};
pub use verify::{StandardClaims, Verified, Verifier, VerifierBuilder, VerifyError};

/// The README's examples compile.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;

/// So do those of the other pages; the one on testing runs.
#[cfg(doctest)]
mod pages {
    #[doc = include_str!("../../../docs/testing.md")]
    struct Testing;
    #[doc = include_str!("../../../docs/migrating.md")]
    struct Migrating;
}
