//! Registries with providers by number, set up the same for everybody, and the crowd that fills them.

use std::future::Future;

use tokio::task::JoinSet;

use crate::upstream::Upstream;

pub const PROVIDER: &str = "main";
/// Callers at once.
const CROWD: usize = 64;

pub fn tenant(number: usize) -> String {
    format!("tenant-{number:05}")
}

/// What both crates of the name can do.
pub trait Registry: Clone + Send + Sync + 'static {
    fn start() -> Self;
    fn add(&self, number: usize, url: String) -> impl Future<Output = ()> + Send;
    fn fetch(&self, number: usize) -> impl Future<Output = ()> + Send;
}

impl Registry for ours::Registry {
    fn start() -> Self {
        Self::builder().require_https(false).build()
    }

    async fn add(&self, number: usize, url: String) {
        let made = ours::IdentityProviderRegistration::new(tenant(number), PROVIDER, url);
        self.register(made.expect("the URL parses")).await.expect("the registration is valid");
    }

    async fn fetch(&self, number: usize) {
        self.resolve(&tenant(number), PROVIDER, None).await.expect("upstream is up");
    }
}

impl Registry for predecessor::Registry {
    fn start() -> Self {
        Self::builder().require_https(false).build()
    }

    async fn add(&self, number: usize, url: String) {
        let made = predecessor::IdentityProviderRegistration::new(tenant(number), PROVIDER, url);
        let registration = made.expect("the URL parses").with_require_https(false);
        self.register(registration).await.expect("the registration is valid");
    }

    async fn fetch(&self, number: usize) {
        self.resolve(&tenant(number), PROVIDER, None).await.expect("upstream is up");
    }
}

/// Registers so many, one after another.
pub async fn add_all(registry: &impl Registry, upstream: &Upstream, count: usize) {
    for number in 0..count {
        registry.add(number, upstream.url(number)).await;
    }
}

/// Has all keys fetched, by 64 callers at once.
pub async fn fetch_all(registry: &impl Registry, count: usize) {
    let mut running = JoinSet::new();
    for number in 0..count {
        if running.len() == CROWD {
            running.join_next().await.expect("some run").expect("upstream is up");
        }
        let registry = registry.clone();
        running.spawn(async move { registry.fetch(number).await });
    }
    running.join_all().await;
}
