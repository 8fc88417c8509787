//! How a registry is built.

use std::sync::Arc;
use std::time::Duration;

use jwks_cache_core::address::PrivateNetworks;
use jwks_cache_core::admission::Limits;
use url::Url;

use crate::clock::Clock;
use crate::dial::{Dial, Material, Pins, Resolver, Secret, TlsSettings, Transport};
use crate::engine::EngineParts;
use crate::fetch::Fetch;
use crate::registry::{Registry, Settings};
use crate::security::normalize_allowlist;
use crate::store::{KeyRing, SnapshotStore};

/// Builds a [`Registry`]. Settings here are defaults and bounds for all its providers.
#[derive(Debug, Default)]
pub struct RegistryBuilder {
    settings: Settings,
    transport: Transport,
    parts: EngineParts,
    #[cfg(feature = "redis")]
    redis: Vec<redis::Client>,
    #[cfg(feature = "redis")]
    redis_namespace: Option<String>,
}

impl RegistryBuilder {
    /// All settings at their default.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether providers must use https. Default true: a registration that does not is refused.
    /// `false` lifts it for all registrations.
    #[must_use]
    pub fn require_https(mut self, require_https: bool) -> Self {
        self.settings.require_https = require_https;
        self
    }

    /// `refresh_early` of registrations that leave it at its default. Default 30 s.
    #[must_use]
    pub fn default_refresh_early(mut self, value: Duration) -> Self {
        self.settings.refresh_early = value;
        self
    }

    /// `stale_while_error` of registrations that leave it at its default. Default 60 s.
    #[must_use]
    pub fn default_stale_while_error(mut self, value: Duration) -> Self {
        self.settings.stale_while_error = value;
        self
    }

    /// Adds a host that providers may be fetched from; its subdomains are included. With none, any
    /// host will do.
    #[must_use]
    pub fn add_allowed_domain(self, domain: impl Into<String>) -> Self {
        let mut domains = Vec::clone(&self.settings.allowed_domains);
        domains.push(domain.into());
        self.allowed_domains(domains)
    }

    /// Replaces the hosts that providers may be fetched from. An empty list allows any host; one of blank
    /// names allows none.
    #[must_use]
    pub fn allowed_domains<I, S>(mut self, domains: I) -> Self
    where
        I: IntoIterator<Item = S>,
        S: Into<String>,
    {
        let given: Vec<String> = domains.into_iter().map(Into::into).collect();
        let any = !given.is_empty();
        let mut domains = normalize_allowlist(given);
        if any && domains.is_empty() {
            // A list of blanks, as from an unset variable, allows nothing; only no list allows all.
            domains.push(String::new());
        }
        self.settings.allowed_domains = Arc::new(domains);
        self
    }

    /// [`tls`](crate::IdentityProviderRegistration::tls) of registrations that leave a part of it at its default. Where
    /// `replace_roots` is set here, a registration's own `ca` stands alone too.
    #[must_use]
    pub fn tls(mut self, tls: TlsSettings) -> Self {
        self.transport.tls = tls;
        self
    }

    /// Adds a header to those of registrations that set none. **Every such provider gets it**, whoever registered it:
    /// add secrets here only where all of them may know them.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<Secret>) -> Self {
        self.transport.headers.insert(name.into(), value.into());
        self
    }

    /// The bearer token of registrations that set none, and no header `Authorization`. **Every such provider gets
    /// it**, whoever registered it.
    #[must_use]
    pub fn bearer_token(mut self, token: Material) -> Self {
        self.transport.bearer_token = Some(token);
        self
    }

    /// The `User-Agent` of registrations that set none. Default `jwks-cache/` and the version.
    #[must_use]
    pub fn user_agent(mut self, user_agent: impl Into<String>) -> Self {
        self.transport.user_agent = Some(user_agent.into());
        self
    }

    /// The proxy of registrations that set none, as in `http://proxy.example:3128`. Default none; environment
    /// variables name none.
    #[must_use]
    pub fn proxy(mut self, proxy: Url) -> Self {
        self.transport.proxy = Some(proxy);
        self
    }

    /// The longest that connecting may take, for registrations that set nothing else. Default 2 s.
    #[must_use]
    pub fn connect_timeout(mut self, time: Duration) -> Self {
        self.transport.connect_timeout = Some(time);
        self
    }

    /// Where providers may be. Default `Allow`, which leaves it to each registration's
    /// [`private_networks`](crate::IdentityProviderRegistration::private_networks). Beside `Deny` or `DenyExcept`
    /// both have to pass: a registration can only tighten them.
    #[must_use]
    pub fn private_networks(mut self, policy: PrivateNetworks) -> Self {
        self.transport.private_networks = policy.into();
        self
    }

    /// Whether registrations may name files of this machine ([`Material::File`]) and a `proxy`. Default true, for a
    /// registry whose registrations its owner writes. Set it to `false` **where tenants write them**: any file that
    /// this process can read could be sent to their URL as a token, and their proxy dials for us. What is set here on the
    /// builder may name both all the same.
    #[must_use]
    pub fn local_files(mut self, allowed: bool) -> Self {
        self.settings.local_files = allowed;
        self
    }

    /// What resolves host names. Default [`SystemResolver`](crate::SystemResolver). Of no use beside
    /// [`RegistryBuilder::fetcher`].
    #[must_use]
    pub fn with_resolver(mut self, resolver: Arc<dyn Resolver>) -> Self {
        self.parts.resolver = Some(resolver);
        self
    }

    /// How many fetches run at once, over all providers. Default 64.
    #[must_use]
    pub fn max_concurrent_fetches(mut self, most: usize) -> Self {
        self.parts.limits = Limits { total: most.max(1), ..self.parts.limits };
        self
    }

    /// The clock of all policy time. Default the machine's; tests hand in one that they drive.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.parts.clock = Some(clock);
        self
    }

    /// What makes exchanges. Default HTTP; a simulation hands in its own. It is told neither how to dial nor what to
    /// send along, so where a registration or this builder sets `headers`, `bearer_token`, `user_agent`, `pinned_spki`,
    /// `tls`, `proxy`, `connect_timeout` or `private_networks`, nothing is fetched: [`Error::Security`](crate::Error::Security) names the setting.
    #[must_use]
    pub fn fetcher(mut self, fetch: Arc<dyn Fetch>) -> Self {
        self.parts.fetch = Some(fetch);
        self
    }

    /// Adds a store that keys and denials outlive the process in. Default none. Stores stack: each gets what changes,
    /// and of what they kept the newest is taken. See [`docs::stores`](crate::docs::stores).
    #[must_use]
    pub fn with_store(mut self, store: Arc<dyn SnapshotStore>) -> Self {
        self.parts.stores.push(store);
        self
    }

    /// Signs what is stored, and takes only what one of these secrets signed for the same namespace, tenant, provider
    /// and source. Default none: who can write to a store can then inject keys.
    #[must_use]
    pub fn snapshot_keys(mut self, ring: KeyRing) -> Self {
        self.parts.ring = Some(ring);
        self
    }

    /// Whether what is counted is told to the recorder of the `metrics` facade, at most 2 s late. Default true. A
    /// recorder keeps about 40 series a provider: with thousands of providers that is more memory than their keys
    /// take. With `false` nothing is told, and [`Registry::metrics_text`] renders the same numbers when somebody asks.
    #[cfg(feature = "metrics")]
    #[must_use]
    pub fn record_metrics(mut self, record: bool) -> Self {
        self.parts.unrecorded = !record;
        self
    }

    /// Adds a store in the Redis or Valkey of this client, beside others. For Sentinel and Cluster see
    /// [`RedisStore`](crate::store::RedisStore).
    #[cfg(feature = "redis")]
    #[must_use]
    pub fn with_redis_client(mut self, client: redis::Client) -> Self {
        self.redis.push(client);
        self
    }

    /// The first part of every key in the Redis of [`with_redis_client`](Self::with_redis_client), in whatever order the
    /// two are set; and what snapshots that are signed there are bound to. Default `jwks-cache`. 1–64 of ASCII letters, digits and `-_.:/`: no braces, which would decide
    /// where a cluster puts all keys; [`Registry::register`] refuses another as `redis_namespace`.
    #[cfg(feature = "redis")]
    #[must_use]
    pub fn redis_namespace(mut self, namespace: impl Into<String>) -> Self {
        self.redis_namespace = Some(namespace.into());
        self
    }

    /// Seeds the dice of jitter and backoff, so that a simulation can be replayed.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.parts.seed = Some(seed);
        self
    }

    /// Builds it. Needs no runtime, and starts nothing.
    #[must_use]
    pub fn build(mut self) -> Registry {
        #[cfg(feature = "redis")]
        {
            use crate::store::{NAMESPACE, RedisStore};
            let namespace = self.redis_namespace.as_deref().unwrap_or(NAMESPACE);
            self.settings.namespace_is_sound = RedisStore::is_namespace(namespace);
            for client in std::mem::take(&mut self.redis) {
                self.parts.stores.push(Arc::new(RedisStore::new(client).namespace(namespace)));
            }
        }
        self.settings.dial = Arc::new(Dial::new(Arc::new(self.transport), Pins::default()));
        Registry::from_parts(self.settings, self.parts)
    }
}
