//! An origin that serves key sets, and a registry in front of it whose policy time stands still.
//! It does not know what goes wrong on the way; tests say that.
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jwks_cache::{Algorithm, Error, IdentityProviderRegistration, JwkSet, Registry, RegistryBuilder, Result};
use jwks_cache_testkit::{ManualClock, Origin, Reply};
use serde_json::{Value, json};

use super::{PROVIDER, TENANT, kids, soon};

/// Where the keys are published.
pub(crate) const JWKS: &str = "/jwks";

/// The kids of [`held`].
pub(crate) const HELD: [&str; 2] = ["held-1", "held-2"];

/// A sound public ES256 key of its own.
pub(crate) fn jwk(kid: &str) -> Value {
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let point = pair.public_key().as_ref();
    json!({
        "kty": "EC", "crv": "P-256", "kid": kid, "alg": "ES256", "use": "sig",
        "x": URL_SAFE_NO_PAD.encode(&point[1..33]), "y": URL_SAFE_NO_PAD.encode(&point[33..]),
    })
}

/// A key set with one key for each kid.
pub(crate) fn set(kids: &[&str]) -> String {
    json!({"keys": kids.iter().map(|kid| jwk(kid)).collect::<Vec<_>>()}).to_string()
}

/// An origin, a clock that stands, and a registry between them.
pub(crate) struct Stage {
    pub(crate) origin: Origin,
    pub(crate) clock: ManualClock,
    pub(crate) registry: Registry,
}

impl Stage {
    pub(crate) fn new() -> Self {
        Self::with(|builder| builder)
    }

    pub(crate) fn with(change: impl FnOnce(RegistryBuilder) -> RegistryBuilder) -> Self {
        let clock = ManualClock::new();
        let builder = Registry::builder().require_https(false).clock(Arc::new(clock.clone()));
        let origin = Origin::start_with_clock(Arc::new(clock.clone()));
        Self { origin, clock, registry: change(builder).build() }
    }

    /// A registration of this origin that retries at once.
    pub(crate) fn registration(&self) -> IdentityProviderRegistration {
        registration(self.origin.url(JWKS).as_str())
    }

    pub(crate) async fn register(&self, registration: IdentityProviderRegistration) {
        self.registry.register(registration).await.unwrap();
    }

    /// Has the registry hold the set of [`HELD`], over a connection that nobody uses again.
    pub(crate) async fn hold(&self) {
        self.origin.push(JWKS, Reply::json(set(&HELD)).header("Cache-Control", "max-age=3600").close_after());
        self.resolve().await.unwrap();
    }

    /// Has the HTTP client built, which takes a while, before attempts that have little time.
    pub(crate) async fn build_client(&self) {
        let mut other = registration(self.origin.url("/other").as_str());
        other.tenant_id = "other".to_owned();
        self.register(other).await;
        self.origin.set("/other", Reply::json(set(&["other"])).close_after());
        soon(self.registry.resolve("other", PROVIDER, None)).await.unwrap();
    }

    pub(crate) async fn resolve(&self) -> Result<Arc<JwkSet>> {
        soon(self.registry.resolve(TENANT, PROVIDER, None)).await
    }

    /// Starts a refresh that nothing holds back, and waits for it.
    pub(crate) async fn refresh(&self) -> Result<()> {
        self.clock.advance(Duration::from_secs(1));
        soon(self.registry.refresh_and_wait(TENANT, PROVIDER)).await
    }

    /// The kids that `resolve` gives.
    pub(crate) async fn kids(&self) -> Vec<String> {
        kids(&self.resolve().await.unwrap())
    }

    /// Whether some algorithm gets a key under this kid.
    pub(crate) async fn is_usable(&self, kid: &str) -> bool {
        for algorithm in Algorithm::ALL {
            if soon(self.registry.key(TENANT, PROVIDER, Some(kid), algorithm)).await.is_ok() {
                return true;
            }
        }
        false
    }

    /// A number of the provider's status, by its name without prefix.
    pub(crate) async fn metric(&self, name: &str) -> f64 {
        let status = self.registry.provider_status(TENANT, PROVIDER).await.unwrap();
        let name = format!("jwks_cache_{name}");
        status.metrics.iter().find(|metric| metric.name == name).unwrap().value
    }
}

/// A registration of `url` that retries at once.
pub(crate) fn registration(url: &str) -> IdentityProviderRegistration {
    let mut registration =
        IdentityProviderRegistration::new(TENANT, PROVIDER, url).unwrap().with_require_https(false);
    registration.retry_policy.initial_backoff = Duration::from_millis(1);
    registration.retry_policy.max_backoff = Duration::from_millis(1);
    registration.retry_policy.attempt_timeout = Duration::from_secs(10);
    registration.retry_policy.deadline = Duration::from_secs(30);
    registration
}

/// The reason of an error, as metrics name it; `security` and `status` for errors of these variants.
pub(crate) fn reason(error: &Error) -> &'static str {
    match error {
        Error::Security(_) => "security",
        Error::HttpStatus { .. } => "status",
        Error::Fetch(exchange) => exchange.reason(),
        other => panic!("not of an exchange: {other}"),
    }
}

/// An error with its causes, as both of its forms show them.
pub(crate) fn whole_text(error: &Error) -> String {
    let causes = std::iter::successors(Some(error as &dyn std::error::Error), |error| error.source());
    causes.map(|error| format!("{error}\n{error:?}\n{error:#?}\n")).collect()
}
