//! A provider on real sockets, and a registry whose policy time stands until a test moves it.

use std::sync::Arc;
use std::time::Duration;

use jwks_cache::{
    Algorithm, Clock, Error, IdentityProviderRegistration, KeyError, ProviderState, ProviderStatus, Registry,
    Result, VerificationKey,
};
use jwks_cache_testkit::{IdentityProvider, ManualClock};

use super::{PROVIDER, TENANT, kids, secs, soon};

/// A registration with nothing left to chance, and a single attempt a flight.
pub(crate) fn registration(url: impl AsRef<str>) -> IdentityProviderRegistration {
    let mut registration = IdentityProviderRegistration::new(TENANT, PROVIDER, url).unwrap();
    registration.prefetch_jitter = Duration::ZERO;
    registration.retry_policy.max_retries = 0;
    registration
}

/// A registry that takes plain http and goes by `clock`.
pub(crate) fn registry(clock: &ManualClock) -> Registry {
    Registry::builder().require_https(false).clock(Arc::new(clock.clone())).seed(7).build()
}

pub(crate) struct Stage {
    pub(crate) clock: ManualClock,
    pub(crate) idp: IdentityProvider,
    pub(crate) registry: Registry,
}

impl Stage {
    /// A provider of one ES256 key `k1`, good for 300 s.
    pub(crate) fn new() -> Self {
        Self::saying("max-age=300")
    }

    /// The same with another `Cache-Control`; none when empty.
    pub(crate) fn saying(cache_control: &str) -> Self {
        Self::with(cache_control, Algorithm::ES256)
    }

    pub(crate) fn with(cache_control: &str, algorithm: Algorithm) -> Self {
        let clock = ManualClock::new();
        let idp = IdentityProvider::builder().clock(Arc::new(clock.clone())).algorithm(algorithm);
        let idp = if cache_control.is_empty() { idp } else { idp.cache_control(cache_control) };
        Self { idp: idp.start(), registry: registry(&clock), clock }
    }

    pub(crate) fn registration(&self) -> IdentityProviderRegistration {
        registration(self.idp.jwks_url())
    }

    /// Registers the provider with what `change` makes of its registration.
    pub(crate) async fn register(&self, change: impl FnOnce(&mut IdentityProviderRegistration)) {
        let mut registration = self.registration();
        change(&mut registration);
        self.registry.register(registration).await.unwrap();
    }

    pub(crate) fn pass(&self, span: Duration) {
        self.clock.advance(span);
    }

    pub(crate) async fn resolve(&self) -> Result<Vec<String>> {
        soon(self.registry.resolve(TENANT, PROVIDER, None)).await.map(|set| kids(&set))
    }

    pub(crate) async fn key(&self, kid: &str) -> Result<VerificationKey> {
        self.key_for(kid, Algorithm::ES256).await
    }

    pub(crate) async fn key_for(&self, kid: &str, algorithm: Algorithm) -> Result<VerificationKey> {
        soon(self.registry.key(TENANT, PROVIDER, Some(kid), algorithm)).await
    }

    /// Fetches anew, a second after the last request of a person.
    pub(crate) async fn refresh(&self) -> Result<()> {
        self.pass(secs(1));
        soon(self.registry.refresh_and_wait(TENANT, PROVIDER)).await
    }

    pub(crate) async fn status(&self) -> ProviderStatus {
        self.registry.provider_status(TENANT, PROVIDER).await.unwrap()
    }

    pub(crate) async fn state(&self) -> ProviderState {
        self.status().await.state
    }

    /// Waits until no flight runs.
    pub(crate) async fn landed(&self) {
        super::landed(&self.registry).await;
    }

    /// From now until expiry, in whole seconds.
    pub(crate) async fn fresh_for(&self) -> i64 {
        (self.status().await.expires_at.unwrap() - self.clock.wall()).num_seconds()
    }

    /// From now until the next refresh, in whole seconds.
    pub(crate) async fn refresh_in(&self) -> i64 {
        (self.status().await.next_refresh.unwrap() - self.clock.wall()).num_seconds()
    }
}

/// A document of Ed25519 keys with these kids.
pub(crate) fn document(kids: &[&str]) -> String {
    let key = |kid: &&str| {
        format!(
            r#"{{"kty":"OKP","crv":"Ed25519","kid":"{kid}","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}}"#
        )
    };
    format!(r#"{{"keys":[{}]}}"#, kids.iter().map(key).collect::<Vec<_>>().join(","))
}

#[track_caller]
pub(crate) fn is_validation<T>(result: Result<T>, of: &str) {
    let error = result.err().expect("this should be refused");
    assert!(matches!(&error, Error::Validation { field, .. } if *field == of), "{of}: {error:?}");
    assert!(error.to_string().contains(of), "{of} is not in: {error}");
}

#[track_caller]
pub(crate) fn is_security<T>(result: Result<T>) -> String {
    match result.err().expect("this should be refused") {
        Error::Security(reason) => reason,
        other => panic!("not by policy: {other:?}"),
    }
}

#[track_caller]
pub(crate) fn is_key_error<T>(result: Result<T>, want: KeyError) {
    let error = result.err().expect("there should be no key");
    assert!(matches!(&error, Error::Key(got) if *got == want), "{error:?}");
}
