//! Where the story plays: two tenants, their providers, one registry on a fast clock, and callers who note
//! what they got. It knows no promise and prints nothing.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use jwks_cache::{
    Algorithm, Clock, Error, IdentityProviderRegistration, Moment, ProviderHandle, ProviderState, Registry,
    Result, SystemClock, VerificationKey,
};
use jwks_cache_testkit::{IdentityProvider, RecordedRequest, ScaledClock, Token, split};
use tokio::task::JoinHandle;

use super::judge::{INITIAL_BACKOFF, KID_MISS_INTERVAL, LIFETIME, STALE_WAIT, STALE_WINDOW};

/// The provider's name within each tenant.
pub(super) const PROVIDER: &str = "main";

/// Everything on stage.
pub(super) struct Stage {
    pub(super) clock: ScaledClock,
    pub(super) registry: Registry,
    pub(super) acme: Tenant,
    pub(super) globex: Tenant,
}

/// A tenant with its identity provider.
pub(super) struct Tenant {
    pub(super) name: &'static str,
    pub(super) idp: IdentityProvider,
    /// Where the keys are published.
    pub(super) path: String,
    /// How its provider is registered, but for the steps that say otherwise.
    pub(super) registration: IdentityProviderRegistration,
    pub(super) caller: Caller,
}

impl Stage {
    pub(super) async fn set(factor: u32) -> Result<Self> {
        // RSA keys are slow to make; the kit gives those of a provider that is gone to the next ones.
        IdentityProvider::builder().algorithm(Algorithm::RS256).start().rotate();
        let clock = ScaledClock::new(f64::from(factor));
        let registry = Registry::builder().require_https(false).clock(Arc::new(clock)).build();
        let acme = Tenant::start("acme", Algorithm::RS256, &registry, clock).await?;
        let globex = Tenant::start("globex", Algorithm::ES256, &registry, clock).await?;
        Ok(Self { clock, registry, acme, globex })
    }

    pub(super) fn tenants(&self) -> [&Tenant; 2] {
        [&self.acme, &self.globex]
    }

    /// How many requests have come to each provider, counted there.
    pub(super) fn requests(&self) -> [u64; 2] {
        self.tenants().map(|tenant| tenant.requests())
    }

    pub(super) async fn sleep(&self, policy_time: Duration) {
        sleep_until(self.clock, self.clock.now() + policy_time).await;
    }

    /// Looks again and again, for a while, until `settled`.
    pub(super) async fn wait_for(&self, settled: impl AsyncFn() -> bool) {
        let end = self.clock.now() + Duration::from_secs(10);
        while !settled().await && self.clock.now() < end {
            self.sleep(Duration::from_millis(200)).await;
        }
    }
}

pub(super) async fn sleep_until(clock: ScaledClock, moment: Moment) {
    // A clock's sleep may end early.
    while clock.now() < moment {
        clock.sleep_until(moment).await;
    }
}

impl Tenant {
    async fn start(
        name: &'static str,
        algorithm: Algorithm,
        registry: &Registry,
        clock: ScaledClock,
    ) -> Result<Self> {
        let lifetime = format!("max-age={}", LIFETIME.as_secs());
        let idp = IdentityProvider::builder()
            .algorithm(algorithm)
            .cache_control(&lifetime)
            .clock(Arc::new(clock))
            .start();
        let mut registration = IdentityProviderRegistration::new(name, PROVIDER, idp.jwks_url())?;
        registration.require_https = false;
        registration.refresh_early = LIFETIME / 3;
        registration.prefetch_jitter = Duration::from_secs(2);
        registration.stale_while_error = STALE_WINDOW;
        registration.stale_wait = STALE_WAIT;
        registration.kid_miss_interval = KID_MISS_INTERVAL;
        // Waits inside a flight are not scaled, so there are none: one attempt a flight.
        registration.retry_policy.max_retries = 0;
        registration.retry_policy.initial_backoff = INITIAL_BACKOFF;
        registry.register(registration.clone()).await?;
        let caller = Caller { handle: registry.provider(name, PROVIDER)?, algorithm, clock };
        let path = idp.jwks_url().path().to_owned();
        Ok(Self { name, idp, path, registration, caller })
    }

    pub(super) fn requests(&self) -> u64 {
        number(self.idp.jwks_hits())
    }

    /// The requests after the first `before` that a caller's unknown kid caused: these alone ask the caches on
    /// the way to step aside.
    pub(super) fn requests_for_kids(&self, before: u64) -> u64 {
        self.count_since(before, |request| request.header("cache-control") == Some("no-cache"))
    }

    /// The requests after the first `before` that would not take a 304 for an answer.
    pub(super) fn unconditional_requests(&self, before: u64) -> u64 {
        self.count_since(before, |request| request.header("if-none-match").is_none())
    }

    fn count_since(&self, before: u64, counts: impl Fn(&RecordedRequest) -> bool) -> u64 {
        let requests = self.idp.origin().requests(&self.path);
        let before = usize::try_from(before).unwrap_or(usize::MAX);
        number(requests.iter().skip(before).filter(|request| counts(request)).count())
    }

    /// A new token, signed by the current key.
    pub(super) fn token(&self) -> String {
        self.idp.mint(&Token::new().subject("ada").audience("orders"))
    }
}

/// Somebody who looks up keys and checks tokens, and notes whether it had to wait.
#[derive(Clone)]
pub(super) struct Caller {
    pub(super) handle: ProviderHandle,
    pub(super) algorithm: Algorithm,
    pub(super) clock: ScaledClock,
}

/// What a caller got.
pub(super) struct Got {
    pub(super) key: Result<VerificationKey>,
    /// Whether the key was not there at once: the lookup did not answer when it was first asked.
    pub(super) waited: bool,
    /// How long it took, by the wall.
    pub(super) took: Duration,
}

impl Caller {
    pub(super) async fn look(&self, kid: &str) -> Got {
        let asked = SystemClock.now();
        let mut lookup = pin!(self.handle.key(Some(kid), self.algorithm));
        let first = poll_fn(|context| Poll::Ready(lookup.as_mut().poll(context))).await;
        let (key, waited) = match first {
            Poll::Ready(key) => (key, false),
            Poll::Pending => (lookup.await, true),
        };
        Got { key, waited, took: SystemClock.now().since(asked) }
    }

    /// Whether the token's signature is that of a key at hand. The algorithm is the caller's to choose, never
    /// the token's (RFC 8725 §3.1).
    pub(super) async fn accepts(&self, token: &str) -> bool {
        self.check(token).await.is_ok()
    }

    /// The same, telling why not.
    pub(super) async fn check(&self, token: &str) -> std::result::Result<(), Refused> {
        let (header, input, signature) = split(token).ok_or(Refused::Signature)?;
        let kid = header.get("kid").and_then(|kid| kid.as_str()).unwrap_or_default();
        let key = self.look(kid).await.key.map_err(Refused::Key)?;
        key.verify(input.as_bytes(), &signature).map_err(|_| Refused::Signature)
    }

    /// Sends callers in the background until told to stop, or until that moment: some 200 lookups a second of
    /// policy time for the key that `token` names, and one of them checks the token.
    pub(super) fn keep_coming(&self, token: String, until: Moment) -> Traffic {
        let stop = Arc::new(AtomicBool::new(false));
        let (caller, stopped) = (self.clone(), stop.clone());
        let task = tokio::spawn(async move {
            let mut tally = Tally::default();
            let kid = split(&token).and_then(|(header, ..)| header["kid"].as_str().map(str::to_owned));
            let kid = kid.unwrap_or_default();
            let going = || !stopped.load(Ordering::Relaxed) && caller.clock.now() < until;
            while going() {
                tally.failed += u64::from(!caller.accepts(&token).await);
                tally.lookups += 1;
                for _ in 0..19 {
                    if going() {
                        tally.take(&caller.look(&kid).await);
                    }
                }
                sleep_until(caller.clock, caller.clock.now() + Duration::from_millis(100)).await;
            }
            tally
        });
        Traffic { stop, task }
    }
}

/// Why a token was not accepted.
pub(super) enum Refused {
    /// No key for it.
    Key(Error),
    /// It is not what the key signed.
    Signature,
}

/// Callers that keep coming.
pub(super) struct Traffic {
    stop: Arc<AtomicBool>,
    task: JoinHandle<Tally>,
}

impl Traffic {
    /// Lets the last ones finish, and counts.
    pub(super) async fn stop(self) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        self.end().await
    }

    /// Waits until they stop by themselves, and counts. Traffic that broke down counts as a failure.
    pub(super) async fn end(self) -> Tally {
        self.task.await.unwrap_or(Tally { failed: 1, ..Tally::default() })
    }
}

/// Counts of lookups.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    pub(super) lookups: u64,
    pub(super) waited: u64,
    pub(super) failed: u64,
}

impl Tally {
    pub(super) fn take(&mut self, got: &Got) {
        self.lookups += 1;
        self.waited += u64::from(got.waited);
        self.failed += u64::from(got.key.is_err());
    }

    pub(super) fn and(self, other: Self) -> Self {
        Self {
            lookups: self.lookups + other.lookups,
            waited: self.waited + other.waited,
            failed: self.failed + other.failed,
        }
    }
}

/// What the cache itself says of a provider.
pub(super) struct Counters {
    pub(super) state: ProviderState,
    pub(super) lookups: u64,
    pub(super) stale: u64,
    pub(super) refresh_errors: u64,
}

impl Counters {
    pub(super) async fn of(tenant: &Tenant, registry: &Registry) -> Result<Self> {
        let status = registry.provider_status(tenant.name, PROVIDER).await?;
        let counter = |name: &str| {
            let found = status.metrics.iter().find(|metric| metric.name == name);
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counters are whole")]
            found.map_or(0, |metric| metric.value as u64)
        };
        Ok(Self {
            state: status.state,
            lookups: counter("jwks_cache_requests_total"),
            stale: counter("jwks_cache_stale_total"),
            refresh_errors: counter("jwks_cache_refresh_errors_total"),
        })
    }
}

/// A length as a number of our own.
pub(super) fn number(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}
