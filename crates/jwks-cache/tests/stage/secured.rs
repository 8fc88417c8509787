//! An origin that speaks TLS with certificates of its own, and a registry that requires https in front of it.
//! Tests say whom the registration believes and whom the origin pretends to be.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use jwks_cache::{
    ClientCertificate, Event, IdentityProviderRegistration, JwkSet, Material, Registry, Result, Subscription,
    What,
};
use jwks_cache_testkit::tls::{Authority, Certificate, TlsOrigin, TlsServer};
use jwks_cache_testkit::{Handshake, ManualClock, RecordedRequest, Reply};

use super::served::{JWKS, jwk};
use super::{PROVIDER, TENANT, kids, secs, soon};

/// The name that origins are reached by.
pub(crate) const HOST: &str = "127.0.0.1";

/// A document with one key `k`, good for five minutes.
pub(crate) fn keys() -> Reply {
    Reply::json(serde_json::json!({"keys": [jwk("k")]})).header("Cache-Control", "max-age=300")
}

pub(crate) struct Stage {
    pub(crate) root: Authority,
    pub(crate) middle: Authority,
    pub(crate) leaf: Certificate,
    pub(crate) origin: TlsOrigin,
    pub(crate) clock: ManualClock,
    pub(crate) registry: Registry,
}

impl Stage {
    /// Root, intermediate, leaf; HTTP/1.1; a registry without defaults.
    pub(crate) fn new() -> Self {
        Self::with(|server, _| server)
    }

    /// The same with what `change` makes of the server; it gets the root too.
    pub(crate) fn with(change: impl FnOnce(TlsServer, &Authority) -> TlsServer) -> Self {
        let root = Authority::new("root");
        let middle = root.intermediate("middle");
        let leaf = middle.server(&[HOST]);
        let origin = TlsOrigin::start(&change(TlsServer::new(leaf.clone()), &root));
        origin.set(JWKS, keys());
        let clock = ManualClock::new();
        let registry = Registry::builder().clock(Arc::new(clock.clone())).seed(7).build();
        Self { root, middle, leaf, origin, clock, registry }
    }

    /// A registration that believes the root besides the machine's, and makes one attempt a flight.
    pub(crate) fn registration(&self) -> IdentityProviderRegistration {
        let url = self.origin.url(JWKS);
        let mut registration = IdentityProviderRegistration::new(TENANT, PROVIDER, url).unwrap();
        registration.tls.ca = Some(Material::inline(self.root.pem()));
        registration.retry_policy.max_retries = 0;
        registration
    }

    pub(crate) async fn register(&self, change: impl FnOnce(&mut IdentityProviderRegistration)) {
        let mut registration = self.registration();
        change(&mut registration);
        self.registry.register(registration).await.unwrap();
    }

    pub(crate) async fn resolve(&self) -> Result<Vec<String>> {
        soon(self.registry.resolve(TENANT, PROVIDER, None)).await.map(|set: Arc<JwkSet>| kids(&set))
    }

    /// Fetches anew, whatever is held.
    pub(crate) async fn refresh(&self) -> Result<()> {
        self.clock.advance(secs(1));
        soon(self.registry.refresh_and_wait(TENANT, PROVIDER)).await
    }

    /// Registers with what `change` makes of the registration, and fetches.
    pub(crate) async fn fetch(&self, change: impl FnOnce(&mut IdentityProviderRegistration)) -> Result<()> {
        self.register(change).await;
        self.refresh().await
    }

    pub(crate) async fn metric(&self, name: &str) -> f64 {
        let status = self.registry.provider_status(TENANT, PROVIDER).await.unwrap();
        let name = format!("jwks_cache_{name}");
        status.metrics.iter().find(|metric| metric.name == name).unwrap().value
    }

    /// The last request, which must have come.
    pub(crate) fn last(&self) -> RecordedRequest {
        self.origin.requests(JWKS).pop().unwrap()
    }

    pub(crate) fn last_handshake(&self) -> Handshake {
        self.last().tls.unwrap()
    }
}

pub(crate) fn client_certificate(certificate: &Certificate) -> ClientCertificate {
    let (chain, key) = (Material::inline(certificate.chain_pem()), Material::inline(certificate.key_pem()));
    ClientCertificate { chain, key }
}

/// The next event that `wanted` makes something of, among those that are there.
pub(crate) fn told<T>(events: &mut Subscription, wanted: impl Fn(&What) -> Option<T>) -> Option<T> {
    std::iter::from_fn(|| events.try_next()).find_map(|event: Event| wanted(&event.what))
}

/// A folder that goes when the test ends.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("jwks-cache-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> Material {
        std::fs::write(self.path(name), text).unwrap();
        Material::File(self.path(name))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
