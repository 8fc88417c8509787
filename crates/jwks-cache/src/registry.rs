//! The registry: which providers there are. What each does is `refresh`'s and `resolve`'s to say.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::jwk::JwkSet;
use jwks_cache_core::Algorithm;
use jwks_cache_core::key::{KeyRef, VerificationKey};
use tokio::time::timeout_at;

use crate::builder::RegistryBuilder;
use crate::clock::{Clock, later, socket_now};
use crate::dial::Dial;
use crate::engine::{Engine, EngineParts};
use crate::epoch::{self, Shared};
use crate::error::{Error, KeyError, Result};
use crate::events::Subscription;
use crate::front::Front;
use crate::issuers::Issuers;
use crate::name::{Name, NameRef};
use crate::names::Names;
use crate::refresh::{Provider, Source};
use crate::registration::{DEFAULT_REFRESH_EARLY, DEFAULT_STALE_WHILE_ERROR, IdentityProviderRegistration};
use crate::resolve::{self, HandedOn, OneKey, Want, WholeSet};
use crate::security::enforce_host;
use crate::served::ServedKeys;
use crate::status::{Health, ProviderStatus};
use crate::store::Kept;
use crate::sync::{Mutex, lock};

/// The keys of many tenants' providers, always at hand. Cloning it is cheap, and clones are one.
///
/// Flights and timers run in the tokio runtime of whoever asks; dropping the last clone ends them.
///
/// ```no_run
/// use jwks_cache::{Algorithm, IdentityProviderRegistration, Registry};
///
/// # async fn verify(kid: &str, signing_input: &[u8], signature: &[u8]) -> Result<(), Box<dyn std::error::Error>> {
/// let registry = Registry::new();
/// registry
///     .register(IdentityProviderRegistration::new("acme", "main", "https://id.example.com/jwks.json")?)
///     .await?;
/// let key = registry.key("acme", "main", Some(kid), Algorithm::RS256).await?;
/// key.verify(signing_input, signature)?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct Registry(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    issuers: Issuers,
    /// After whatever else leads to them: with these goes the memory.
    providers: Names,
    engine: Arc<Engine>,
    settings: Settings,
    removed: Mutex<VecDeque<Name>>,
}

/// How many providers that were unregistered are remembered.
const REMOVED_KEPT: usize = 1024;

/// What the builder sets for all providers.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) require_https: bool,
    pub(crate) refresh_early: Duration,
    pub(crate) stale_while_error: Duration,
    pub(crate) allowed_domains: Arc<Vec<String>>,
    /// Whether registrations may name files and proxies.
    pub(crate) local_files: bool,
    /// How providers are dialled whose registrations say nothing else.
    pub(crate) dial: Arc<Dial>,
    /// Whether the namespace of stored keys is one.
    #[cfg(feature = "redis")]
    pub(crate) namespace_is_sound: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            require_https: true,
            refresh_early: DEFAULT_REFRESH_EARLY,
            stale_while_error: DEFAULT_STALE_WHILE_ERROR,
            allowed_domains: Arc::default(),
            local_files: true,
            dial: Arc::default(),
            #[cfg(feature = "redis")]
            namespace_is_sound: true,
        }
    }
}

impl Registry {
    /// A registry with default settings: https is required, any host is allowed.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A registry with settings of its own.
    #[must_use]
    pub fn builder() -> RegistryBuilder {
        RegistryBuilder::new()
    }

    pub(crate) fn from_parts(settings: Settings, parts: EngineParts) -> Self {
        Self(Arc::new(Inner {
            providers: Names::default(),
            engine: Engine::new(parts),
            settings,
            issuers: Issuers::default(),
            removed: Mutex::default(),
        }))
    }

    /// Registers a provider, or updates its registration. Starts no fetch: see [`Registry::warm_up`].
    /// The first one of a registry readies the HTTP client, so that no caller waits for that.
    ///
    /// Held keys stay when the source is the same, and are judged anew; they go when the source is
    /// another or the new registration trusts less. A running flight of the old registration ends.
    ///
    /// Of a new provider, what the stores kept is loaded: that is waited for 250 ms at most, and not at all for a store
    /// that is known to fail; what comes later is taken then.
    ///
    /// # Errors
    /// [`Error::Validation`] names the field that breaks its rule. [`Error::Security`] for a scheme,
    /// a host, a file or a proxy that the registry refuses. Nothing held is lost by either.
    pub async fn register(&self, registration: IdentityProviderRegistration) -> Result<()> {
        self.register_denying(registration, std::iter::empty::<&str>()).await
    }

    /// As [`Registry::register`], with keys switched off as by [`Registry::deny_key`] before anybody can ask for one: for
    /// who keeps denials elsewhere, and registers again what they knew before.
    ///
    /// # Errors
    /// As [`Registry::register`]; and [`Error::Validation`] for `id` as [`Registry::deny_key`]: a new provider is not
    /// registered then, and of one that was there some keys may be denied already.
    pub async fn register_denying(
        &self,
        registration: IdentityProviderRegistration,
        ids: impl IntoIterator<Item = impl AsRef<str>>,
    ) -> Result<()> {
        let mut ids = ids.into_iter().peekable();
        let denies = ids.peek().is_some();
        let new = self.enlist(registration, ids)?;
        if let Some(provider) = new {
            provider.clone().load().await;
            if denies {
                provider.keep_denials();
            }
        }
        self.0.engine.prepare().await;
        Ok(())
    }

    /// Whether [`Registry::register`] would take this registration; nothing changes.
    ///
    /// # Errors
    /// As [`Registry::register`].
    pub fn check(&self, registration: &IdentityProviderRegistration) -> Result<()> {
        self.0.settings.admit(registration.clone(), &self.0.engine).map(drop)
    }

    /// The provider, if it is new.
    fn enlist(
        &self,
        registration: IdentityProviderRegistration,
        denied: impl IntoIterator<Item = impl AsRef<str>>,
    ) -> Result<Option<Arc<Provider>>> {
        let source = self.0.settings.admit(registration, &self.0.engine)?;
        let (tenant, id) = (source.registration.tenant_id.clone(), source.registration.provider_id.clone());
        // Held until the provider has its issuer, so that the two never part.
        let mut index = self.0.issuers.open();
        let issuer = source.issuer.clone();
        match self.0.providers.provider(NameRef(&tenant, &id)) {
            Some(provider) => {
                denied.into_iter().try_for_each(|id| provider.deny(id.as_ref()).map(drop))?;
                index.take(&provider.front, provider.issuer(), issuer);
                provider.reconfigure(source);
                Ok(None)
            }
            None => {
                let provider = Provider::new(self.0.engine.clone(), source);
                if let Err(refused) = provider.begin_denying(denied) {
                    provider.shut_down();
                    return Err(refused);
                }
                index.take(&provider.front, None, issuer);
                self.0.providers.insert(provider.clone());
                Ok(Some(provider))
            }
        }
    }

    /// The published key set. With a `kid` that is not in it, a refresh is tried first, within the
    /// budget for unknown kids; the newest set is returned either way.
    ///
    /// # Errors
    /// [`Error::NotRegistered`]; or why no keys could be had, shared by all who waited.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing for other callers.
    pub async fn resolve(
        &self,
        tenant_id: &str,
        provider_id: &str,
        kid: Option<&str>,
    ) -> Result<Arc<JwkSet>> {
        self.look(tenant_id, provider_id, &WholeSet { kid }).await
    }

    /// The key set to be handed on to others: as [`Registry::resolve`], but the document itself, with the keys that
    /// retire, and with its times. It counts as a read like any other.
    ///
    /// # Errors
    /// As [`Registry::resolve`].
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing for other callers.
    pub async fn served(&self, tenant_id: &str, provider_id: &str, kid: Option<&str>) -> Result<ServedKeys> {
        self.look(tenant_id, provider_id, &HandedOn { kid }).await
    }

    /// The key that verifies `algorithm` under `kid`; without a kid, the only key that can.
    ///
    /// # Errors
    /// [`Error::Key`] when keys are at hand but none for this; otherwise as [`Registry::resolve`].
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing for other callers.
    pub async fn key(
        &self,
        tenant_id: &str,
        provider_id: &str,
        kid: Option<&str>,
        algorithm: Algorithm,
    ) -> Result<VerificationKey> {
        self.look(tenant_id, provider_id, &OneKey { kid, algorithm }).await
    }

    async fn look<W: Want>(&self, tenant: &str, id: &str, want: &W) -> Result<W::Answer> {
        let (name, clock) = (NameRef(tenant, id), self.clock());
        let asked = match epoch::enter() {
            Some(guard) => self.0.providers.find(name, &guard).map(|front| {
                resolve::at_hand_within(&guard, front, clock, want, W::keep).ok_or_else(|| front.provider())
            }),
            None => self.0.providers.provider(name).map(|provider| Err(Some(provider))),
        };
        match asked {
            Some(Ok(answer)) => answer.map_err(Error::from),
            Some(Err(Some(provider))) => resolve::waited(&provider, want).await,
            Some(Err(None)) | None => Err(not_registered(tenant, id)),
        }
    }

    /// A handle on one provider, which skips the lookup by name. It keeps the registry alive, and
    /// says [`Error::NotRegistered`] once the provider is unregistered.
    ///
    /// # Errors
    /// [`Error::NotRegistered`].
    pub fn provider(&self, tenant_id: &str, provider_id: &str) -> Result<ProviderHandle> {
        let provider = self.find(tenant_id, provider_id)?;
        Ok(ProviderHandle { front: provider.front.clone(), provider, registry: self.clone() })
    }

    /// Starts a refresh at once, however fresh the keys are, or joins one that runs; within a second
    /// of the last start, waits that second out. Returns when it has started where keys are
    /// servable, and when it has finished where none are.
    ///
    /// # Errors
    /// [`Error::NotRegistered`]; where no keys are servable, why the refresh failed.
    ///
    /// # Cancel safety
    /// A refresh that has started goes on.
    pub async fn refresh(&self, tenant_id: &str, provider_id: &str) -> Result<()> {
        resolve::refresh(&self.find(tenant_id, provider_id)?).await
    }

    /// Refreshes, and returns the outcome of a flight that began after this call. All who ask
    /// meanwhile share that flight.
    ///
    /// # Errors
    /// [`Error::NotRegistered`]; why the refresh failed. Keys that are held stay.
    ///
    /// # Cancel safety
    /// A refresh that has started goes on.
    pub async fn refresh_and_wait(&self, tenant_id: &str, provider_id: &str) -> Result<()> {
        resolve::refresh_and_wait(&self.find(tenant_id, provider_id)?).await
    }

    /// Forgets a provider. Ends its flight; those who wait get [`Error::NotRegistered`]. Returns
    /// whether it was there.
    ///
    /// # Errors
    /// None at present.
    pub async fn unregister(&self, tenant_id: &str, provider_id: &str) -> Result<bool> {
        let mut index = self.0.issuers.open();
        let name = NameRef(tenant_id, provider_id);
        let Some(provider) = self.0.providers.remove(name) else { return Ok(false) };
        index.take(&provider.front, provider.issuer(), None);
        let mut removed = lock(&self.0.removed);
        removed.retain(|of| !of.is(name));
        removed.truncate(REMOVED_KEPT - 1);
        removed.push_front(Name::new(name));
        drop(removed);
        provider.unregister();
        Ok(true)
    }

    /// The status of one provider.
    ///
    /// # Errors
    /// [`Error::NotRegistered`].
    pub async fn provider_status(&self, tenant_id: &str, provider_id: &str) -> Result<ProviderStatus> {
        Ok(self.find(tenant_id, provider_id)?.status())
    }

    /// The status of every provider, by tenant and provider.
    pub async fn all_statuses(&self) -> Vec<ProviderStatus> {
        self.sorted().iter().map(|provider| provider.status()).collect()
    }

    /// Every provider's numbers in the text format of Prometheus (version 0.0.4), in pieces of about 16 KiB that are made
    /// when they are asked for. It is meant for registries built with
    /// [`record_metrics(false)`](RegistryBuilder::record_metrics): beside a recorder that is told the same, one page must
    /// not have both, and how long flights took and what providers answered is known to the recorder alone.
    #[cfg(feature = "metrics")]
    pub fn metrics_text(&self) -> impl Iterator<Item = String> + Send + use<> {
        crate::metrics::Text::of(self.sorted())
    }

    /// The tenant and the name of every provider, in this order: what pages of a long list are cut from.
    #[must_use]
    pub fn names(&self) -> Vec<(String, String)> {
        let name = |of: &Arc<Provider>| (of.tenant().to_owned(), of.id().to_owned());
        let mut names: Vec<_> = self.0.providers.providers().iter().map(name).collect();
        names.sort_unstable();
        names
    }

    /// Whether this provider was here and was unregistered. The last 1,024 are remembered, until they are registered again
    /// or this registry ends.
    #[must_use]
    pub fn was_removed(&self, tenant_id: &str, provider_id: &str) -> bool {
        let name = NameRef(tenant_id, provider_id);
        self.0.providers.with(name, |_| ()).is_none() && lock(&self.0.removed).iter().any(|of| of.is(name))
    }

    /// Writes every provider's keys and denials to the stores now, within 10 s; what changes is written without this too.
    /// Without a store, there is nothing to do. One that fails keeps no other from being written.
    ///
    /// # Errors
    /// The first by tenant and provider: [`Error::Store`]; [`Error::Cache`] when time was up.
    ///
    /// # Cancel safety
    /// What is not written by then is left out.
    pub async fn persist_all(&self) -> Result<()> {
        self.0.engine.stores.save_all(self.kept()).await
    }

    /// Reads every provider's keys and denials from the stores now, within 10 s; registering does so without this. Without
    /// a store, there is nothing to do. One bad snapshot stops nothing, and newer keys are never replaced.
    ///
    /// # Errors
    /// The first by tenant and provider: [`Error::Validation`] names the field of a snapshot that was refused;
    /// [`Error::Store`]; [`Error::Cache`] when time was up.
    ///
    /// # Cancel safety
    /// What is not read by then is left out.
    pub async fn restore_from_persistence(&self) -> Result<()> {
        self.0.engine.stores.load_all(self.kept()).await
    }

    fn kept(&self) -> Vec<Arc<dyn Kept>> {
        self.sorted().into_iter().map(|provider| provider as Arc<dyn Kept>).collect()
    }

    /// Fetches the keys of every provider that has none, bounded and fair, for at most `deadline`.
    /// Flights that are not done by then go on.
    pub async fn warm_up(&self, deadline: Duration) -> Health {
        warm_up(self.sorted(), deadline).await
    }

    /// The same for some providers, as `(tenant_id, provider_id)`.
    ///
    /// # Errors
    /// [`Error::NotRegistered`] for the first that is not; nothing is fetched then.
    pub async fn warm_up_only(&self, providers: &[(&str, &str)], deadline: Duration) -> Result<Health> {
        let providers: Result<Vec<_>> = providers.iter().map(|(tenant, id)| self.find(tenant, id)).collect();
        Ok(warm_up(providers?, deadline).await)
    }

    /// Whether every required provider has servable usable keys. Asking is a read of those that have
    /// none, and starts their flight unless backoff runs.
    pub async fn health(&self) -> Health {
        Health::of(self.sorted().iter().map(Provider::health).collect())
    }

    /// Switches a key off, by kid or RFC 7638 thumbprint, at once and until allowed again. A denied
    /// kid denies the material under it too, whatever kid it comes back under. Returns whether that is new.
    ///
    /// # Errors
    /// [`Error::NotRegistered`]; [`Error::Validation`] for `id` when so many are denied (1 MiB of ids, some 9,000
    /// thumbprints) that stores could not keep one more.
    pub async fn deny_key(&self, tenant_id: &str, provider_id: &str, id: &str) -> Result<bool> {
        self.find(tenant_id, provider_id)?.deny(id)
    }

    /// Lifts a denial. Returns whether there was one.
    ///
    /// # Errors
    /// [`Error::NotRegistered`].
    pub async fn allow_key(&self, tenant_id: &str, provider_id: &str, id: &str) -> Result<bool> {
        Ok(self.find(tenant_id, provider_id)?.allow(id))
    }

    /// The events of all providers from now on.
    #[must_use]
    pub fn subscribe(&self) -> Subscription {
        self.0.engine.events.subscribe()
    }

    /// Ends all flights and timers. Those who wait are told; held keys are still served while they last. What the stores
    /// do not have yet is written, within 10 s; a store that fails at all of it is not waited for.
    ///
    /// # Cancel safety
    /// What is not written by then may be lost.
    pub async fn shutdown(&self) {
        self.0.end_flights();
        self.0.engine.stores.drain().await;
        self.0.engine.stores.close();
    }

    /// Lends the only provider registered under `issuer`, in one tenant or in all; `Some(None)` where several are.
    pub(crate) fn with_issuer<R>(
        &self,
        tenant: Option<&str>,
        issuer: &str,
        then: impl FnOnce(&Front) -> R,
    ) -> Option<Option<R>> {
        self.0.issuers.find(tenant, issuer, then)
    }

    /// Lends a provider by its name.
    pub(crate) fn with_named<R>(&self, tenant: &str, id: &str, then: impl FnOnce(&Front) -> R) -> Option<R> {
        self.0.providers.with(NameRef(tenant, id), then)
    }

    /// The time that lookups go by.
    pub(crate) fn clock(&self) -> &dyn Clock {
        &*self.0.engine.clock
    }

    pub(crate) fn find(&self, tenant: &str, id: &str) -> Result<Arc<Provider>> {
        self.0.providers.provider(NameRef(tenant, id)).ok_or_else(|| not_registered(tenant, id))
    }

    fn sorted(&self) -> Vec<Arc<Provider>> {
        let mut providers = self.0.providers.providers();
        providers.sort_by(|a, b| a.front.name().parts().cmp(&b.front.name().parts()));
        providers
    }
}

async fn warm_up(providers: Vec<Arc<Provider>>, deadline: Duration) -> Health {
    let until = later(socket_now(), deadline);
    // All flights are started before one is waited for; the gate bounds and spreads them.
    let flights: Vec<_> = providers.iter().filter_map(resolve::start_if_empty).collect();
    for flight in flights {
        if timeout_at(until, flight.ended()).await.is_err() {
            break;
        }
    }
    Health::of(providers.iter().map(Provider::health).collect())
}

fn not_registered(tenant: &str, provider: &str) -> Error {
    Error::NotRegistered { tenant: tenant.to_owned(), provider: provider.to_owned() }
}

impl Settings {
    /// Applies the registry's defaults and checks everything.
    fn admit(&self, mut registration: IdentityProviderRegistration, engine: &Engine) -> Result<Source> {
        if self.require_https && !registration.require_https {
            return Err(Error::Security(
                "this registry requires https; build it with require_https(false) to allow plain http".into(),
            ));
        }
        registration.require_https &= self.require_https;
        if registration.refresh_early == DEFAULT_REFRESH_EARLY {
            registration.refresh_early = self.refresh_early;
        }
        if registration.stale_while_error == DEFAULT_STALE_WHILE_ERROR {
            registration.stale_while_error = self.stale_while_error;
        }
        if !self.local_files {
            registration.refuse_local_files()?;
        }
        registration.validate()?;
        #[cfg(feature = "redis")]
        if !self.namespace_is_sound {
            let rule = "must be 1 to 64 of ASCII letters, digits and `-_.:/`";
            return Err(Error::validation("redis_namespace", rule));
        }
        for host in registration.hosts() {
            enforce_host(&host, &self.allowed_domains, "the registry's")?;
        }
        // The registration's own are sound; the registry's have not been looked at.
        self.dial.check()?;
        let source = Source::new(registration, self.allowed_domains.clone(), &self.dial, engine);
        // One sets a proxy, maybe, and the other an address policy.
        source.dial.check_proxy()?;
        Ok(source)
    }
}

impl Inner {
    fn end_flights(&self) {
        self.engine.schedule.close();
        for provider in self.providers.providers() {
            provider.shut_down();
        }
    }
}

impl Default for Inner {
    fn default() -> Self {
        Self {
            providers: Names::default(),
            engine: Engine::new(EngineParts::default()),
            settings: Settings::default(),
            issuers: Issuers::default(),
            removed: Mutex::default(),
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.end_flights();
        self.engine.stores.close();
    }
}

/// One provider of a registry.
#[derive(Clone, Debug)]
pub struct ProviderHandle {
    front: Shared<Front>,
    provider: Arc<Provider>,
    registry: Registry,
}

impl ProviderHandle {
    /// As [`Registry::resolve`].
    ///
    /// # Errors
    /// As [`Registry::resolve`].
    pub async fn resolve(&self, kid: Option<&str>) -> Result<Arc<JwkSet>> {
        self.look(&WholeSet { kid }).await
    }

    /// As [`Registry::key`].
    ///
    /// # Errors
    /// As [`Registry::key`].
    pub async fn key(&self, kid: Option<&str>, algorithm: Algorithm) -> Result<VerificationKey> {
        self.look(&OneKey { kid, algorithm }).await
    }

    /// Uses the key that verifies `algorithm` under `kid` if it is at hand: never waits, takes no lock,
    /// and allocates nothing but, once, the provider's counters and the parsed key. Counts go to one of
    /// eight lines of memory, by thread, so that it scales with the cores. The key is borrowed for as
    /// long as `then` runs; keep that short: no key set that was replaced is freed meanwhile.
    ///
    /// A refresh that is due is started if there is a runtime to start it in.
    ///
    /// ```no_run
    /// # use jwks_cache::{Algorithm, KeyError, Error, ProviderHandle};
    /// # async fn verify(handle: &ProviderHandle, kid: &str, input: &[u8], signature: &[u8]) -> jwks_cache::Result<bool> {
    /// match handle.with_key(Some(kid), Algorithm::ES256, |key| key.verify(input, signature).is_ok()) {
    ///     Err(Error::Key(KeyError::NotCached)) => {
    ///         Ok(handle.key(Some(kid), Algorithm::ES256).await?.verify(input, signature).is_ok())
    ///     }
    ///     verified => verified,
    /// }
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`KeyError::NotCached`](crate::KeyError::NotCached) where [`ProviderHandle::key`] would wait;
    /// otherwise as that.
    pub fn with_key<R>(
        &self,
        kid: Option<&str>,
        algorithm: Algorithm,
        then: impl FnOnce(KeyRef<'_>) -> R,
    ) -> Result<R> {
        match resolve::at_hand(&self.front, self.registry.clock(), &OneKey { kid, algorithm }, then) {
            Some(answer) => answer.map_err(Error::from),
            None if self.front.slot.load_full().closed => Err(self.provider.not_registered()),
            None => Err(KeyError::NotCached.into()),
        }
    }

    /// For how long no flight starts by itself, because the last ones failed; 0 when one may start now.
    #[must_use]
    pub fn backoff(&self) -> Duration {
        self.front.slot.load_full().published.backoff_until.since(self.registry.clock().now())
    }

    pub(crate) fn front(&self) -> &Shared<Front> {
        &self.front
    }

    /// The registry it belongs to.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Tells that a signature failed under a matching or absent kid: the provider may have changed
    /// its key in place. Starts a refresh in the background, within the budget for unknown kids.
    pub fn report_bad_signature(&self) {
        self.provider.suspect_rotation();
    }

    async fn look<W: Want>(&self, want: &W) -> Result<W::Answer> {
        match resolve::at_hand(&self.front, self.registry.clock(), want, W::keep) {
            Some(answer) => answer.map_err(Error::from),
            None => resolve::waited(&self.provider, want).await,
        }
    }
}
