//! The stages that tests play on, and what all of them need. On each, policy time stands until a test moves it.
//!
//! [`scripted`] has no sockets: for rules of standing and refreshing, and for waits that are tokio's, whose paused
//! time would run ahead of sockets. [`socket`] has an identity provider, for settings and registrations.
//! [`secured`] has an origin that speaks TLS, for certificates, pins and credentials.
//! [`guarded`] has an identity provider and a guard, for services.
//! [`served`] has an origin that does whatever may go wrong in an exchange.
#![allow(dead_code, reason = "each test file uses a part of this")]

pub(crate) mod guarded;
pub(crate) mod names;
pub(crate) mod peak;
pub(crate) mod peer;
pub(crate) mod proxy;
pub(crate) mod record;
pub(crate) mod scripted;
pub(crate) mod secured;
pub(crate) mod served;
pub(crate) mod socket;
pub(crate) mod tokens;

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use jwks_cache::{JwkSet, ProviderState, Registry};
use tokio::time::Instant;

/// The tenant and the provider of every stage.
pub(crate) const TENANT: &str = "acme";
pub(crate) const PROVIDER: &str = "main";

/// Longer than anything here takes on a slow machine: a test that waits this long has hung.
const HUNG: Duration = Duration::from_secs(60);

pub(crate) const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(crate) const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// The outcome of something that must not hang.
pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(HUNG, future).await.expect("it hangs")
}

/// Lets everything run that can run now, and waits until no flight of the stage's provider does.
pub(crate) async fn landed(registry: &Registry) {
    settle().await;
    let landing = async {
        let state = async || registry.provider_status(TENANT, PROVIDER).await.unwrap().state;
        while matches!(state().await, ProviderState::Loading | ProviderState::Refreshing) {
            tokio::task::yield_now().await;
        }
    };
    soon(landing).await;
}

/// Lets every task run that can run now. Where nothing waits for a socket, this is exact.
pub(crate) async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

/// The answer of a future that needs not wait.
pub(crate) fn at_once<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(answer) => answer,
        Poll::Pending => panic!("it waits"),
    }
}

pub(crate) fn kids(set: &JwkSet) -> Vec<String> {
    set.keys.iter().map(|key| key.common.key_id.clone().unwrap_or_default()).collect()
}

/// Socket time, which a paused test runs through without waiting.
pub(crate) fn socket_now() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "tests may use tokio's time")]
    Instant::now()
}

/// How much socket time this takes.
pub(crate) async fn took<T>(what: impl Future<Output = T>) -> (Duration, T) {
    let began = socket_now();
    let out = what.await;
    (began.elapsed(), out)
}

/// A folder of a test's own, gone when the test is.
pub(crate) struct Folder(std::path::PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Self(std::env::temp_dir().join(format!("jwks-cache-{}-{number}", std::process::id())))
    }

    pub(crate) fn path(&self) -> &std::path::Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
