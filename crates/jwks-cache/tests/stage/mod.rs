//! The stage the tests play on: a provider on real sockets and a registry whose policy time stands until a
//! test moves it; and, for waits that are tokio's, a script instead of the sockets, so that time can be paused.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part of the stage")]

use std::collections::VecDeque;
use std::future::Future;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use jwks_cache::reqwest::StatusCode;
use jwks_cache::{
    Algorithm, Clock, Error, Fetch, FetchRequest, Fetched, Fetching, IdentityProviderRegistration, JwkSet,
    KeyError, NotFetched, ProviderState, ProviderStatus, Registry, Result, Timing, VerificationKey,
};
use jwks_cache_testkit::{IdentityProvider, ManualClock};

pub const TENANT: &str = "acme";
pub const PROVIDER: &str = "main";

pub const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// The outcome of `future`, which must not take for ever.
pub async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(secs(20), future).await.expect("this should not take long")
}

/// A registration with nothing left to chance, and a single attempt a flight.
pub fn registration(url: impl AsRef<str>) -> IdentityProviderRegistration {
    let mut registration = IdentityProviderRegistration::new(TENANT, PROVIDER, url).unwrap();
    registration.prefetch_jitter = Duration::ZERO;
    registration.retry_policy.max_retries = 0;
    registration
}

/// A registry that takes plain http and goes by `clock`.
pub fn registry(clock: &ManualClock) -> Registry {
    Registry::builder().require_https(false).clock(Arc::new(clock.clone())).seed(7).build()
}

pub struct Stage {
    pub clock: ManualClock,
    pub idp: IdentityProvider,
    pub registry: Registry,
}

impl Stage {
    /// A provider of one ES256 key `k1`, good for 300 s.
    pub fn new() -> Self {
        Self::saying("max-age=300")
    }

    /// The same with another `Cache-Control`; none when empty.
    pub fn saying(cache_control: &str) -> Self {
        Self::with(cache_control, Algorithm::ES256)
    }

    pub fn with(cache_control: &str, algorithm: Algorithm) -> Self {
        let clock = ManualClock::new();
        let idp = IdentityProvider::builder().clock(Arc::new(clock.clone())).algorithm(algorithm);
        let idp = if cache_control.is_empty() { idp } else { idp.cache_control(cache_control) };
        Self { idp: idp.start(), registry: registry(&clock), clock }
    }

    pub fn registration(&self) -> IdentityProviderRegistration {
        registration(self.idp.jwks_url())
    }

    /// Registers the provider with what `change` makes of its registration.
    pub async fn register(&self, change: impl FnOnce(&mut IdentityProviderRegistration)) {
        let mut registration = self.registration();
        change(&mut registration);
        self.registry.register(registration).await.unwrap();
    }

    pub fn pass(&self, span: Duration) {
        self.clock.advance(span);
    }

    pub async fn resolve(&self) -> Result<Vec<String>> {
        soon(self.registry.resolve(TENANT, PROVIDER, None)).await.map(|set| kids(&set))
    }

    pub async fn key(&self, kid: &str) -> Result<VerificationKey> {
        self.key_for(kid, Algorithm::ES256).await
    }

    pub async fn key_for(&self, kid: &str, algorithm: Algorithm) -> Result<VerificationKey> {
        soon(self.registry.key(TENANT, PROVIDER, Some(kid), algorithm)).await
    }

    /// Fetches anew, a second after the last request of a person.
    pub async fn refresh(&self) -> Result<()> {
        self.pass(secs(1));
        soon(self.registry.refresh_and_wait(TENANT, PROVIDER)).await
    }

    pub async fn status(&self) -> ProviderStatus {
        self.registry.provider_status(TENANT, PROVIDER).await.unwrap()
    }

    pub async fn state(&self) -> ProviderState {
        self.status().await.state
    }

    /// Waits until no flight runs.
    pub async fn landed(&self) {
        let landing = async {
            while matches!(self.state().await, ProviderState::Loading | ProviderState::Refreshing) {
                tokio::task::yield_now().await;
            }
        };
        soon(landing).await;
    }

    /// From now until expiry, in whole seconds.
    pub async fn fresh_for(&self) -> i64 {
        (self.status().await.expires_at.unwrap() - self.clock.wall()).num_seconds()
    }

    /// From now until the next refresh, in whole seconds.
    pub async fn refresh_in(&self) -> i64 {
        (self.status().await.next_refresh.unwrap() - self.clock.wall()).num_seconds()
    }
}

pub fn kids(set: &JwkSet) -> Vec<String> {
    set.keys.iter().filter_map(|key| key.common.key_id.clone()).collect()
}

/// A document of Ed25519 keys with these kids.
pub fn document(kids: &[&str]) -> String {
    let key = |kid: &&str| {
        format!(
            r#"{{"kty":"OKP","crv":"Ed25519","kid":"{kid}","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}}"#
        )
    };
    format!(r#"{{"keys":[{}]}}"#, kids.iter().map(key).collect::<Vec<_>>().join(","))
}

#[track_caller]
pub fn is_validation<T>(result: Result<T>, of: &str) {
    let error = result.err().expect("this should be refused");
    assert!(matches!(&error, Error::Validation { field, .. } if *field == of), "{of}: {error:?}");
    assert!(error.to_string().contains(of), "{of} is not in: {error}");
}

#[track_caller]
pub fn is_security<T>(result: Result<T>) -> String {
    match result.err().expect("this should be refused") {
        Error::Security(reason) => reason,
        other => panic!("not by policy: {other:?}"),
    }
}

#[track_caller]
pub fn is_key_error<T>(result: Result<T>, want: KeyError) {
    let error = result.err().expect("there should be no key");
    assert!(matches!(&error, Error::Key(got) if *got == want), "{error:?}");
}

/// What a scripted provider does with one attempt.
#[derive(Clone, Debug)]
pub enum Act {
    /// Publishes this document for 300 s.
    Publish(String),
    /// Fails, and may be tried again.
    Fail,
    /// Never answers.
    Hang,
}

/// A provider without sockets: where they wait, tokio's paused time would run ahead of them.
#[derive(Debug)]
pub struct Script {
    clock: ManualClock,
    acts: Mutex<VecDeque<Act>>,
    attempts: AtomicUsize,
}

impl Script {
    /// Does one act an attempt; the last one stays.
    pub fn new(acts: impl IntoIterator<Item = Act>) -> Arc<Self> {
        Arc::new(Self {
            clock: ManualClock::new(),
            acts: Mutex::new(acts.into_iter().collect()),
            attempts: AtomicUsize::new(0),
        })
    }

    pub fn clock(&self) -> &ManualClock {
        &self.clock
    }

    pub fn attempts(&self) -> usize {
        self.attempts.load(SeqCst)
    }

    pub async fn registry(
        self: &Arc<Self>,
        change: impl FnOnce(&mut IdentityProviderRegistration),
    ) -> Registry {
        let registry =
            Registry::builder().clock(Arc::new(self.clock.clone())).fetcher(self.clone()).seed(7).build();
        let mut registration = registration("https://id.example.com/jwks.json");
        change(&mut registration);
        registry.register(registration).await.unwrap();
        registry
    }
}

impl Fetch for Script {
    fn fetch<'a>(&'a self, _request: &'a FetchRequest) -> Fetching<'a> {
        self.attempts.fetch_add(1, SeqCst);
        let act = {
            let mut acts = self.acts.lock().unwrap();
            if acts.len() > 1 { acts.pop_front() } else { acts.front().cloned() }
        };
        let now = self.clock.now();
        Box::pin(async move {
            match act.expect("a script has an act") {
                Act::Publish(document) => Ok(Fetched {
                    status: StatusCode::OK,
                    headers: [("cache-control".parse().unwrap(), "max-age=300".parse().unwrap())]
                        .into_iter()
                        .collect(),
                    body: document.into_bytes(),
                    timing: Timing { requested_at: now, received_at: now, received_wall: self.clock.wall() },
                    requests: 1,
                }),
                Act::Fail => Err(NotFetched::new("scripted", "the script says so").retryable()),
                Act::Hang => std::future::pending().await,
            }
        })
    }
}

/// How long `future` takes by tokio's clock: exact where time is paused.
#[expect(clippy::disallowed_methods, reason = "tests may read tokio's time")]
pub async fn took<F: Future>(future: F) -> (F::Output, Duration) {
    let start = tokio::time::Instant::now();
    let output = future.await;
    (output, start.elapsed())
}
