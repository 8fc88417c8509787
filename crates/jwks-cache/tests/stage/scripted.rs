//! The stage on which the rules of standing, refreshing and key sets are played: a registry whose policy
//! time a test moves by hand, over a source that answers by script, without a socket.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, StatusCode};
use jwks_cache::{
    Algorithm, Clock, Event, Fetch, FetchRequest, Fetched, Fetching, IdentityProviderRegistration, JwkSet,
    NotFetched, ProviderStatus, Registry, RegistryBuilder, Result, Subscription, Timing, VerificationKey,
    What,
};
use jwks_cache_testkit::ManualClock;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

use super::{PROVIDER, TENANT, settle, socket_now};

/// What the source answers to one request.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// A 200, or a 304 without body.
    Head(u16, Vec<(&'static str, String)>, String),
    /// Any other status, with what it asks to wait.
    Status(u16, Option<Duration>),
    /// No connection.
    Refused,
    /// Nothing, ever.
    Hang,
    /// A bug in the fetcher.
    Panic,
}

/// These keys with this `Cache-Control`.
pub(crate) fn keys(keys: &[(&str, u8)], cache_control: &str) -> Answer {
    document(keys.iter().map(|(kid, seed)| jwk(kid, *seed)).collect(), cache_control)
}

/// These JWKs with this `Cache-Control`.
pub(crate) fn document(keys: Vec<Value>, cache_control: &str) -> Answer {
    body(json!({ "keys": keys }).to_string(), cache_control)
}

/// This text with this `Cache-Control`.
pub(crate) fn body(text: impl Into<String>, cache_control: &str) -> Answer {
    Answer::Head(200, vec![("cache-control", cache_control.into())], text.into())
}

/// The public JWK of the key made from `seed`.
pub(crate) fn jwk(kid: &str, seed: u8) -> Value {
    json!({"kty": "OKP", "crv": "Ed25519", "use": "sig", "kid": kid, "x": b64(pair(seed).public_key().as_ref())})
}

pub(crate) fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn pair(seed: u8) -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap()
}

/// Whether `key` is the public half of the key made from `seed`.
pub(crate) fn verifies(key: &VerificationKey, seed: u8) -> bool {
    key.verify(b"said", pair(seed).sign(b"said").as_ref()).is_ok()
}

/// A source that answers by script and records what it was asked.
#[derive(Debug)]
pub(crate) struct Script {
    clock: ManualClock,
    state: Mutex<State>,
    asked: watch::Sender<usize>,
    open: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct State {
    standing: Option<Answer>,
    by_host: HashMap<String, Answer>,
    once: VecDeque<Answer>,
    requests: Vec<(FetchRequest, Instant)>,
    flying: HashMap<String, usize>,
    most_flying: usize,
}

impl Script {
    pub(crate) fn new(clock: &ManualClock) -> Arc<Self> {
        Arc::new(Self {
            clock: clock.clone(),
            state: Mutex::default(),
            asked: watch::Sender::new(0),
            open: watch::Sender::new(true),
        })
    }

    /// Answers like this from now on. The answer is chosen when the question arrives.
    pub(crate) fn set(&self, answer: Answer) {
        self.state.lock().unwrap().standing = Some(answer);
    }

    /// The same for one host.
    pub(crate) fn set_at(&self, host: &str, answer: Answer) {
        self.state.lock().unwrap().by_host.insert(host.into(), answer);
    }

    /// Answers once like this, after those pushed before.
    pub(crate) fn push(&self, answer: Answer) {
        self.state.lock().unwrap().once.push_back(answer);
    }

    /// Holds back all answers until [`Script::release`].
    pub(crate) fn hold(&self) {
        self.open.send_replace(false);
    }

    pub(crate) fn release(&self) {
        self.open.send_replace(true);
    }

    /// How often it was asked.
    pub(crate) fn asked(&self) -> usize {
        *self.asked.borrow()
    }

    /// How often one host was asked.
    pub(crate) fn asked_at(&self, host: &str) -> usize {
        let state = self.state.lock().unwrap();
        state.requests.iter().filter(|(request, _)| request.url.host_str() == Some(host)).count()
    }

    /// Waits until it was asked so often.
    pub(crate) async fn wait_for(&self, count: usize) {
        let mut asked = self.asked.subscribe();
        asked.wait_for(|asked| *asked >= count).await.unwrap();
    }

    pub(crate) fn request(&self, index: usize) -> FetchRequest {
        self.state.lock().unwrap().requests[index].0.clone()
    }

    /// When the requests came, in socket time since the first.
    pub(crate) fn times(&self) -> Vec<Duration> {
        let state = self.state.lock().unwrap();
        let first = state.requests.first().map(|(_, at)| *at);
        state.requests.iter().map(|(_, at)| at.duration_since(first.unwrap_or(*at))).collect()
    }

    /// The most requests that ever ran at once, and how many run to each host now.
    pub(crate) fn flying(&self) -> (usize, HashMap<String, usize>) {
        let state = self.state.lock().unwrap();
        (state.most_flying, state.flying.clone())
    }

    async fn answer(&self, request: &FetchRequest) -> std::result::Result<Fetched, NotFetched> {
        let host = request.url.host_str().unwrap_or_default().to_owned();
        let requested_at = self.clock.now();
        let answer = {
            let mut state = self.state.lock().unwrap();
            state.requests.push((request.clone(), socket_now()));
            let standing = state.by_host.get(&host).or(state.standing.as_ref()).cloned();
            *state.flying.entry(host.clone()).or_default() += 1;
            let flying = state.flying.values().sum();
            state.most_flying = state.most_flying.max(flying);
            state.once.pop_front().or(standing).unwrap_or(Answer::Refused)
        };
        let _airborne = Airborne(self, host);
        self.asked.send_modify(|asked| *asked += 1);
        self.open.subscribe().wait_for(|open| *open).await.unwrap();
        match answer {
            Answer::Head(status, head, body) => {
                let headers: HeaderMap = head
                    .iter()
                    .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
                    .collect();
                let timing =
                    Timing { requested_at, received_at: self.clock.now(), received_wall: self.clock.wall() };
                let status = StatusCode::from_u16(status).unwrap();
                Ok(Fetched { status, headers, body: body.into(), timing, requests: 1 })
            }
            Answer::Status(status, retry_after) => Err(NotFetched {
                status: Some(StatusCode::from_u16(status).unwrap()),
                retryable: status >= 500 || status == 429,
                retry_after,
                requests: 1,
                ..NotFetched::new("status", format!("status {status}"))
            }),
            Answer::Refused => {
                Err(NotFetched { requests: 1, ..NotFetched::new("connect", "refused") }.retryable())
            }
            Answer::Hang => std::future::pending().await,
            Answer::Panic => panic!("a fetcher with a bug"),
        }
    }
}

/// A request that runs.
struct Airborne<'a>(&'a Script, String);

impl Drop for Airborne<'_> {
    fn drop(&mut self) {
        if let Ok(mut state) = self.0.state.lock() {
            *state.flying.entry(self.1.clone()).or_default() -= 1;
        }
    }
}

impl Fetch for Script {
    fn fetch<'a>(&'a self, request: &'a FetchRequest) -> Fetching<'a> {
        Box::pin(self.answer(request))
    }
}

/// A registry with one provider, `acme/main`, that publishes `a` and `b` for five minutes.
pub(crate) struct Stage {
    pub(crate) clock: ManualClock,
    pub(crate) source: Arc<Script>,
    pub(crate) registry: Registry,
}

impl Stage {
    pub(crate) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    /// With other settings.
    pub(crate) async fn with(change: impl FnOnce(&mut IdentityProviderRegistration)) -> Self {
        Self::built(|builder| builder, change).await
    }

    pub(crate) async fn built(
        build: impl FnOnce(RegistryBuilder) -> RegistryBuilder,
        change: impl FnOnce(&mut IdentityProviderRegistration),
    ) -> Self {
        let clock = ManualClock::new();
        let source = Script::new(&clock);
        source.set(keys(&[("a", 1), ("b", 2)], "max-age=300"));
        let builder = Registry::builder().clock(Arc::new(clock.clone())).fetcher(source.clone());
        let stage = Self { clock, source, registry: build(builder).build() };
        let mut registration = registration(TENANT, PROVIDER, "idp.test");
        change(&mut registration);
        stage.registry.register(registration).await.unwrap();
        stage
    }

    /// That holds keys already, received just now.
    pub(crate) async fn warm(change: impl FnOnce(&mut IdentityProviderRegistration)) -> Self {
        let stage = Self::with(change).await;
        stage.resolve().await.unwrap();
        stage
    }

    /// Moves policy time on.
    pub(crate) fn pass(&self, seconds: u64) -> &Self {
        self.clock.advance(Duration::from_secs(seconds));
        self
    }

    pub(crate) async fn resolve(&self) -> Result<Arc<JwkSet>> {
        self.registry.resolve(TENANT, PROVIDER, None).await
    }

    pub(crate) async fn resolve_kid(&self, kid: &str) -> Result<Arc<JwkSet>> {
        self.registry.resolve(TENANT, PROVIDER, Some(kid)).await
    }

    pub(crate) async fn key(&self, kid: &str) -> Result<VerificationKey> {
        self.registry.key(TENANT, PROVIDER, Some(kid), Algorithm::EdDSA).await
    }

    pub(crate) async fn refresh(&self) -> Result<()> {
        self.registry.refresh(TENANT, PROVIDER).await
    }

    pub(crate) async fn refresh_and_wait(&self) -> Result<()> {
        self.registry.refresh_and_wait(TENANT, PROVIDER).await
    }

    /// Takes what the source has now, a second later.
    pub(crate) async fn adopt(&self, answer: Answer) {
        self.source.set(answer);
        self.pass(1).refresh_and_wait().await.unwrap();
    }

    pub(crate) async fn status(&self) -> ProviderStatus {
        self.registry.provider_status(TENANT, PROVIDER).await.unwrap()
    }

    /// A number of the status.
    pub(crate) async fn metric(&self, name: &str) -> f64 {
        let status = self.status().await;
        status.metrics.iter().find(|metric| metric.name == name).map_or(0.0, |metric| metric.value)
    }

    /// Lets everything run that can run now, and waits until no flight does.
    pub(crate) async fn landed(&self) {
        super::landed(&self.registry).await;
    }

    /// How many requests this makes.
    pub(crate) async fn cost<T>(&self, what: impl Future<Output = T>) -> (usize, T) {
        let before = self.source.asked();
        let out = what.await;
        settle().await;
        (self.source.asked() - before, out)
    }
}

/// A registration with the library's defaults, but for jitter. Its URL is its own: equal ones share their exchanges.
pub(crate) fn registration(tenant: &str, provider: &str, host: &str) -> IdentityProviderRegistration {
    let url = format!("https://{host}/{tenant}/{provider}/jwks.json");
    let mut registration = IdentityProviderRegistration::new(tenant, provider, url).unwrap();
    registration.prefetch_jitter = Duration::ZERO;
    registration
}

/// The events so far.
pub(crate) fn events(subscription: &mut Subscription) -> Vec<What> {
    std::iter::from_fn(|| subscription.try_next()).map(|Event { what, .. }| what).collect()
}
