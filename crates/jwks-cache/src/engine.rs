//! What the providers of one registry share: clock, dice, gate, timers, fetcher, equal sets, events.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};

use aws_lc_rs::digest::{Context, SHA256};
use jwks_cache_core::admission::Limits;
use jwks_cache_core::keyset::{KeyRules, KeySet, Refusal};
use jwks_cache_core::{Dice, Moment};
use tokio::runtime::Handle;

use crate::clock::{Clock, SeededDice, SystemClock, seeded_dice};
use crate::dial::{Resolver, SystemResolver};
use crate::events::Events;
use crate::fetch::{Fetch, HttpFetch};
use crate::gate::Gate;
use crate::lock;
use crate::schedule::Schedule;

/// Shared by the providers of one registry, or owned by one cache on its own.
pub(crate) struct Engine {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) schedule: Schedule,
    pub(crate) fetch: Arc<dyn Fetch>,
    pub(crate) events: Events,
    dice: Mutex<SeededDice>,
    sets: Mutex<Sets>,
    serials: AtomicU64,
    prepared: AtomicBool,
}

/// How an engine is built; every part has a default.
#[derive(Debug, Default)]
pub(crate) struct EngineParts {
    pub(crate) clock: Option<Arc<dyn Clock>>,
    pub(crate) fetch: Option<Arc<dyn Fetch>>,
    pub(crate) client: Option<reqwest::Client>,
    pub(crate) resolver: Option<Arc<dyn Resolver>>,
    pub(crate) limits: Limits,
    pub(crate) seed: Option<u64>,
}

#[derive(Default)]
struct Sets {
    by_digest: HashMap<[u8; 32], Weak<KeySet>>,
    /// Dead entries are swept when the map has grown to this.
    sweep_at: usize,
}

impl Engine {
    pub(crate) fn new(parts: EngineParts) -> Arc<Self> {
        let clock = parts.clock.unwrap_or_else(|| Arc::new(SystemClock));
        let fetch = parts.fetch.unwrap_or_else(|| {
            Arc::new(match parts.client {
                Some(client) => HttpFetch::with_client(client, clock.clone()),
                None => {
                    let resolver = parts.resolver.unwrap_or_else(|| Arc::new(SystemResolver));
                    HttpFetch::new(resolver, clock.clone())
                }
            })
        });
        Arc::new(Self {
            clock,
            gate: Gate::new(parts.limits),
            schedule: Schedule::default(),
            fetch,
            events: Events::default(),
            dice: Mutex::new(seeded_dice(parts.seed)),
            sets: Mutex::default(),
            serials: AtomicU64::new(0),
            prepared: AtomicBool::new(false),
        })
    }

    /// Readies the fetcher, once, so that the first to wait for keys do not wait for that too. Without a
    /// runtime it is left to the first exchange.
    pub(crate) async fn prepare(&self) {
        if !self.prepared.load(Ordering::Relaxed)
            && let Ok(runtime) = Handle::try_current()
            && !self.prepared.swap(true, Ordering::Relaxed)
        {
            let fetch = self.fetch.clone();
            // It fails only when the runtime goes away.
            let _ = runtime.spawn_blocking(move || fetch.prepare()).await;
        }
    }

    pub(crate) fn now(&self) -> Moment {
        self.clock.now()
    }

    /// A number that no other provider of this engine has.
    pub(crate) fn serial(&self) -> u64 {
        self.serials.fetch_add(1, Ordering::Relaxed)
    }

    /// The dice, for one decision at a time.
    pub(crate) fn dice(&self) -> impl Dice {
        || lock(&self.dice).f64()
    }

    /// Judges a document. Equal documents under equal rules share one set.
    pub(crate) fn judge(&self, document: &[u8], rules: &KeyRules) -> Result<Arc<KeySet>, Refusal> {
        let digest = digest(document, rules);
        if let Some(set) = lock(&self.sets).by_digest.get(&digest).and_then(Weak::upgrade) {
            return Ok(set);
        }
        let set = Arc::new(KeySet::judge(document, rules)?);
        let mut sets = lock(&self.sets);
        if sets.by_digest.len() >= sets.sweep_at {
            sets.by_digest.retain(|_, set| set.strong_count() > 0);
            sets.sweep_at = (2 * sets.by_digest.len()).max(64);
        }
        // Another flight may have judged the same document meanwhile.
        if let Some(other) = sets.by_digest.get(&digest).and_then(Weak::upgrade) {
            return Ok(other);
        }
        sets.by_digest.insert(digest, Arc::downgrade(&set));
        Ok(set)
    }
}

fn digest(document: &[u8], rules: &KeyRules) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    context.update(format!("{rules:?}\n").as_bytes());
    context.update(document);
    let mut digest = [0; 32];
    digest.copy_from_slice(context.finish().as_ref());
    digest
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("clock", &self.clock)
            .field("fetch", &self.fetch)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;
    use crate::fetch::{FetchRequest, Fetching};

    #[derive(Debug, Default)]
    struct Readied(AtomicUsize);

    impl Fetch for Readied {
        fn fetch<'a>(&'a self, _: &'a FetchRequest) -> Fetching<'a> {
            unreachable!("nobody asks for keys")
        }

        fn prepare(&self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[tokio::test]
    async fn the_fetcher_is_ready_before_anybody_asks_and_readied_once() {
        let fetch = Arc::new(Readied::default());
        let engine = Engine::new(EngineParts { fetch: Some(fetch.clone()), ..EngineParts::default() });
        for _ in 0..3 {
            engine.prepare().await;
            assert_eq!(fetch.0.load(Ordering::Relaxed), 1);
        }
    }
}
