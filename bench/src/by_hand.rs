//! The cache that people write by hand: a map of keys under a `tokio::sync::RwLock`, fetched on a miss under
//! the write lock, with one lifetime for everything.
//!
//! It is written as well as such caches usually are: whoever gets the write lock looks again before fetching.
//! It has no time limit on a fetch, no stale keys, no floor on misses, and reads no cache headers.

use std::collections::HashMap;
use std::time::Duration;

use jsonwebtoken::DecodingKey;
use jsonwebtoken::jwk::JwkSet;
use tokio::sync::RwLock;
use tokio::time::Instant;

pub struct Cache {
    url: String,
    ttl: Duration,
    client: reqwest::Client,
    held: RwLock<Held>,
}

#[derive(Default)]
struct Held {
    keys: HashMap<String, DecodingKey>,
    fetched_at: Option<Instant>,
}

impl Cache {
    pub fn new(url: String, ttl: Duration) -> Self {
        Self { url, ttl, client: reqwest::Client::new(), held: RwLock::default() }
    }

    /// The key `kid`, or any without one; `None` when the provider does not publish it.
    pub async fn key(&self, kid: Option<&str>) -> Result<Option<DecodingKey>, String> {
        if let Some(key) = self.held.read().await.fresh_key(kid, self.ttl) {
            return Ok(Some(key));
        }
        let mut held = self.held.write().await;
        if let Some(key) = held.fresh_key(kid, self.ttl) {
            return Ok(Some(key));
        }
        held.keys = self.fetch().await?;
        held.fetched_at = Some(Instant::now());
        Ok(held.fresh_key(kid, self.ttl))
    }

    /// Whether a fresh key `kid` is held, looked at under the guard.
    pub async fn has(&self, kid: &str) -> bool {
        let held = self.held.read().await;
        held.fetched_at.is_some_and(|at| at.elapsed() < self.ttl) && held.keys.contains_key(kid)
    }

    async fn fetch(&self) -> Result<HashMap<String, DecodingKey>, String> {
        let answer = self.client.get(&self.url).send().await.and_then(reqwest::Response::error_for_status);
        let body = answer.map_err(text)?.bytes().await.map_err(text)?;
        let set: JwkSet = serde_json::from_slice(&body).map_err(text)?;
        let keys = set.keys.iter().filter_map(|jwk| {
            let kid = jwk.common.key_id.clone()?;
            Some((kid, DecodingKey::from_jwk(jwk).ok()?))
        });
        Ok(keys.collect())
    }
}

impl Held {
    fn fresh_key(&self, kid: Option<&str>, ttl: Duration) -> Option<DecodingKey> {
        self.fetched_at.filter(|at| at.elapsed() < ttl)?;
        match kid {
            Some(kid) => self.keys.get(kid).cloned(),
            None => self.keys.values().next().cloned(),
        }
    }
}

fn text(error: impl ToString) -> String {
    error.to_string()
}
