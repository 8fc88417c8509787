//! A small identity provider with real keys: it publishes some, signs with one, and misbehaves on demand.
//!
//! It issues tokens to the test alone: there is no login, no token endpoint, and TLS is not spoken.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use jwks_cache::{Clock, SystemClock};
use jwks_cache_core::Algorithm;
use serde_json::{Value, json};
use url::Url;

use crate::key::{SigningKey, encode};
use crate::{Origin, Phase, Reply, Token};

const JWKS: &str = "/jwks.json";
const DISCOVERY: &str = "/.well-known/openid-configuration";

/// An identity provider on loopback: keys at `/jwks.json` with an `ETag` and 304s, OpenID Connect discovery
/// beside them.
///
/// RSA keys of 2048 bits are slow to make, so one that a dropped provider held may serve a later one. Two
/// providers never hold the same key at the same time.
///
/// ```
/// use jwks_cache_testkit::{Algorithm, IdentityProvider, split};
/// use serde_json::json;
///
/// let idp = IdentityProvider::builder().algorithm(Algorithm::EdDSA).cache_control("max-age=60").start();
/// let old = idp.token(&json!({"sub": "ada"}));
/// let kid = idp.rotate(); // both keys are published now
/// let new = idp.token(&json!({"sub": "ada"}));
/// assert_eq!(split(&new).unwrap().0["kid"], *kid);
/// idp.retire("k1"); // `old` should soon stop verifying
/// # drop(old);
/// ```
#[derive(Debug)]
pub struct IdentityProvider {
    origin: Origin,
    clock: Arc<dyn Clock>,
    state: Arc<Mutex<State>>,
}

/// What an [`IdentityProvider`] starts with.
#[derive(Clone, Debug)]
pub struct IdentityProviderBuilder {
    algorithm: Algorithm,
    kid: String,
    cache_control: Option<String>,
    clock: Arc<dyn Clock>,
    port: u16,
}

impl IdentityProviderBuilder {
    /// The first key's algorithm, and that of [`IdentityProvider::rotate`]. Default: ES256, quick to make.
    #[must_use]
    pub fn algorithm(mut self, algorithm: Algorithm) -> Self {
        self.algorithm = algorithm;
        self
    }

    /// The first key's ID. Default: `k1`.
    #[must_use]
    pub fn kid(mut self, kid: &str) -> Self {
        kid.clone_into(&mut self.kid);
        self
    }

    /// The key set's `Cache-Control`. Default: none is sent, as by many providers.
    #[must_use]
    pub fn cache_control(mut self, value: &str) -> Self {
        self.cache_control = Some(value.to_owned());
        self
    }

    /// The clock that dates responses and tokens. Default: the machine's. Give it the cache's.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// The port, and with it the issuer, for people who look on. Default: 0, any free one, as tests want it.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// Makes the key and starts to serve.
    ///
    /// # Panics
    /// If the port is taken; as [`Origin::start`].
    #[must_use]
    pub fn start(self) -> IdentityProvider {
        self.try_start().expect("the port is free")
    }

    /// The same for a port that may be taken.
    ///
    /// # Errors
    /// The port cannot be had.
    ///
    /// # Panics
    /// If the machine cannot start a thread.
    pub fn try_start(self) -> io::Result<IdentityProvider> {
        let origin = Origin::try_start(Arc::clone(&self.clock), None, self.port)?;
        let state = Arc::new(Mutex::new(State {
            keys: vec![Key::new(&self.kid, self.algorithm)],
            signing: self.kid,
            replaced: Vec::new(),
            algorithm: self.algorithm,
            cache_control: self.cache_control,
            delay: Duration::ZERO,
            failure: None,
        }));
        let issuer = origin.url("");
        let discovery = json!({
            "issuer": issuer.as_str().trim_end_matches('/'),
            "jwks_uri": origin.url(JWKS),
            "authorization_endpoint": origin.url("/authorize"),
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": Algorithm::ALL,
        });
        let served = Arc::clone(&state);
        origin.respond_with(JWKS, move |_| {
            let mut state = lock(&served);
            let body = json!({"keys": state.publish()});
            state.reply(&body)
        });
        let served = Arc::clone(&state);
        origin.respond_with(DISCOVERY, move |_| lock(&served).reply(&discovery));
        Ok(IdentityProvider { origin, clock: self.clock, state })
    }
}

impl IdentityProvider {
    /// A provider with one ES256 key `k1`, published without `Cache-Control`.
    ///
    /// # Panics
    /// As [`Origin::start`].
    #[must_use]
    pub fn start() -> Self {
        Self::builder().start()
    }

    /// A provider to be told more before it starts.
    #[must_use]
    pub fn builder() -> IdentityProviderBuilder {
        IdentityProviderBuilder {
            algorithm: Algorithm::ES256,
            kid: "k1".to_owned(),
            cache_control: None,
            clock: Arc::new(SystemClock),
            port: 0,
        }
    }

    /// Where the keys are published.
    #[must_use]
    pub fn jwks_url(&self) -> Url {
        self.origin.url(JWKS)
    }

    /// The issuer, as tokens and the discovery document name it: no slash at the end.
    #[must_use]
    pub fn issuer(&self) -> String {
        self.origin.url("").as_str().trim_end_matches('/').to_owned()
    }

    /// How often the keys were asked for.
    #[must_use]
    pub fn jwks_hits(&self) -> usize {
        self.origin.hits(JWKS)
    }

    /// The origin underneath: what it was asked, gates, one-shot replies and faults of your own.
    #[must_use]
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// The ID of the key that signs now.
    #[must_use]
    pub fn signing_kid(&self) -> String {
        self.state().signing.clone()
    }

    /// Publishes a new key and signs with it from now on; the older ones stay published. Returns its ID: the
    /// first free of `k2`, `k3` and so on.
    pub fn rotate(&self) -> String {
        let mut state = self.state();
        let free = |kid: &String| state.keys.iter().all(|key| key.kid != *kid);
        let kid = (2_u64..).map(|n| format!("k{n}")).find(free).unwrap_or_default();
        let algorithm = state.algorithm;
        state.add(&kid, algorithm);
        kid
    }

    /// As [`IdentityProvider::rotate`], with an ID and algorithm of your choice. A key of that ID is replaced.
    pub fn rotate_to(&self, kid: &str, algorithm: Algorithm) {
        self.state().add(kid, algorithm);
    }

    /// Gives the key `kid` new material under its old ID, published and in use as it was.
    ///
    /// # Panics
    /// If there is no such key.
    pub fn same_kid_new_material(&self, kid: &str) {
        let mut state = self.state();
        let key = state.key(kid);
        let made = SigningKey::generate(key.signing.algorithm());
        let old = std::mem::replace(&mut key.signing, made);
        state.replaced.push(old);
    }

    /// Takes the key `kid` out of the published set. It can still sign, and signs on if it was the one.
    ///
    /// # Panics
    /// If there is no such key.
    pub fn retire(&self, kid: &str) {
        self.state().key(kid).published = Published::No;
    }

    /// Publishes the key `kid` (again), and stops its flapping.
    ///
    /// # Panics
    /// If there is no such key.
    pub fn publish(&self, kid: &str) {
        self.state().key(kid).published = Published::Yes;
    }

    /// Leaves the key `kid` out of every other answer from now on, beginning with the next, as two backends
    /// that disagree do.
    ///
    /// # Panics
    /// If there is no such key.
    pub fn flap(&self, kid: &str) {
        self.state().key(kid).published = Published::Flapping { next: false };
    }

    /// Goes down: connections are refused until [`IdentityProvider::come_back`].
    pub fn go_down(&self) {
        self.origin.pause();
    }

    /// Answers everything with `status` and no body until [`IdentityProvider::come_back`].
    pub fn fail_with(&self, status: u16) {
        self.state().failure = Some(status);
    }

    /// Waits this long, in real time, before every answer, until [`IdentityProvider::come_back`].
    pub fn slow(&self, delay: Duration) {
        self.state().delay = delay;
    }

    /// Is up, quick and well again. What is published does not change.
    pub fn come_back(&self) {
        {
            let mut state = self.state();
            (state.failure, state.delay) = (None, Duration::ZERO);
        }
        self.origin.resume();
    }

    /// A token signed by the current key: issuer and times are added to what `token` claims.
    #[must_use]
    pub fn mint(&self, token: &Token) -> String {
        self.token(&token.claims(&self.issuer(), self.clock.wall()))
    }

    /// A token with exactly these claims, signed by the current key.
    #[must_use]
    pub fn token(&self, claims: &Value) -> String {
        self.state().token(None, None, claims)
    }

    /// A token with exactly these claims, signed by the key `kid`, be it published or not.
    ///
    /// # Panics
    /// If there is no such key.
    #[must_use]
    pub fn token_with(&self, kid: &str, claims: &Value) -> String {
        self.state().token(Some(kid), None, claims)
    }

    /// A token signed by the current key that names `kid` in its header, as one of a flood of made-up IDs.
    #[must_use]
    pub fn token_naming(&self, kid: &str, claims: &Value) -> String {
        self.state().token(None, Some(kid), claims)
    }

    /// The key `kid`'s signature over `input`, in the form of a JWS.
    ///
    /// # Panics
    /// If there is no such key.
    #[must_use]
    pub fn sign(&self, kid: &str, input: &[u8]) -> Vec<u8> {
        self.state().key(kid).signing.sign(input)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Debug)]
struct State {
    /// Every key that can sign, oldest first.
    keys: Vec<Key>,
    signing: String,
    /// Held so that their material does not come back while this provider lives.
    replaced: Vec<SigningKey>,
    algorithm: Algorithm,
    cache_control: Option<String>,
    delay: Duration,
    failure: Option<u16>,
}

#[derive(Debug)]
struct Key {
    kid: String,
    signing: SigningKey,
    published: Published,
}

#[derive(Clone, Copy, Debug)]
enum Published {
    Yes,
    No,
    Flapping { next: bool },
}

impl Key {
    fn new(kid: &str, algorithm: Algorithm) -> Self {
        Self { kid: kid.to_owned(), signing: SigningKey::generate(algorithm), published: Published::Yes }
    }

    /// Whether the answer being written has the key.
    fn shows(&mut self) -> bool {
        match &mut self.published {
            Published::Yes => true,
            Published::No => false,
            Published::Flapping { next } => {
                *next = !*next;
                !*next
            }
        }
    }
}

impl State {
    fn key(&mut self, kid: &str) -> &mut Key {
        let known: Vec<_> = self.keys.iter().map(|key| key.kid.clone()).collect();
        let found = self.keys.iter_mut().find(|key| key.kid == kid);
        found.unwrap_or_else(|| panic!("the provider has no key {kid:?}, only {known:?}"))
    }

    fn add(&mut self, kid: &str, algorithm: Algorithm) {
        let made = Key::new(kid, algorithm);
        if let Some(at) = self.keys.iter().position(|key| key.kid == kid) {
            self.replaced.push(self.keys.remove(at).signing);
        }
        self.keys.push(made);
        kid.clone_into(&mut self.signing);
    }

    /// The keys of the answer being written.
    fn publish(&mut self) -> Vec<Value> {
        self.keys.iter_mut().filter_map(|key| key.shows().then(|| key.signing.jwk(&key.kid))).collect()
    }

    fn reply(&self, body: &Value) -> Reply {
        let reply = match self.failure {
            Some(status) => Reply::status(status),
            None => {
                let body = body.to_string();
                let etag = format!("\"{}\"", encode(digest(&SHA256, body.as_bytes())));
                let reply = Reply::json(body).etag(etag).conditional();
                match &self.cache_control {
                    Some(value) => reply.header("Cache-Control", value),
                    None => reply,
                }
            }
        };
        reply.delay(Phase::Headers, self.delay)
    }

    fn token(&mut self, signer: Option<&str>, named: Option<&str>, claims: &Value) -> String {
        let signer = signer.map_or_else(|| self.signing.clone(), str::to_owned);
        let key = self.key(&signer);
        let header = json!({"alg": key.signing.algorithm(), "kid": named.unwrap_or(&signer), "typ": "JWT"});
        let input = format!("{}.{}", encode(header.to_string()), encode(claims.to_string()));
        let signature = encode(key.signing.sign(input.as_bytes()));
        format!("{input}.{signature}")
    }
}
