//! What the providers of one registry share: clock, dice, gate, timers, fetcher, equal sets, events.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Weak};

use aws_lc_rs::digest::{Context, SHA256};
use jwks_cache_core::admission::Limits;
use jwks_cache_core::keyset::{KeyRules, KeySet, Refusal};
use jwks_cache_core::policy::Policy;
use jwks_cache_core::{Dice, Moment};
use tokio::runtime::Handle;

use crate::clock::{Clock, SystemClock, seeded_dice};
use crate::dial::{Resolver, SystemResolver};
use crate::events::Events;
use crate::fetch::{Fetch, HttpFetch};
use crate::gate::Gate;
use crate::refresh::Shared;
use crate::schedule::Schedule;
use crate::store::{KeyRing, SnapshotStore, Stack};
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::{Mutex, lock};
use crate::telemetry::{Counters, Hits};

/// Shared by the providers of one registry, or owned by one cache on its own.
pub(crate) struct Engine {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) schedule: Schedule,
    pub(crate) fetch: Arc<dyn Fetch>,
    /// What of it was handed in, and so cannot be held to all settings.
    pub(crate) given: Option<Given>,
    pub(crate) events: Events,
    pub(crate) stores: Stack,
    /// The place of the last draw on a circle.
    draw: AtomicU64,
    sets: Mutex<Interned<KeySet>>,
    sources: Mutex<Interned<Shared>>,
    policy: Mutex<Weak<Policy>>,
    serials: AtomicU64,
    prepared: AtomicBool,
    #[cfg(feature = "metrics")]
    unrecorded: bool,
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
    pub(crate) stores: Vec<Arc<dyn SnapshotStore>>,
    pub(crate) ring: Option<KeyRing>,
    /// Numbers are for who asks, not for a recorder.
    #[cfg(feature = "metrics")]
    pub(crate) unrecorded: bool,
}

/// Half of SHA-256. To find something else with a digest that is given takes 2^128 tries; to find two things of one's own
/// with one digest takes fewer, and harms nobody else.
pub(crate) type Digest = [u8; 16];

/// What is digested so far, as such.
pub(crate) fn finished(context: Context) -> Digest {
    let mut digest = Digest::default();
    digest.iter_mut().zip(context.finish().as_ref()).for_each(|(to, from)| *to = *from);
    digest
}

/// What equal things share, by a digest of what makes them equal.
struct Interned<T> {
    by_digest: HashMap<Digest, Weak<T>>,
    /// Dead entries are swept when the map has grown to this.
    sweep_at: usize,
}

impl<T> Default for Interned<T> {
    fn default() -> Self {
        Self { by_digest: HashMap::new(), sweep_at: 0 }
    }
}

impl<T> Interned<T> {
    fn get(&self, digest: &Digest) -> Option<Arc<T>> {
        self.by_digest.get(digest).and_then(Weak::upgrade)
    }

    /// The one that is there, or else this one from now on.
    fn get_or_insert(&mut self, digest: Digest, this: Arc<T>) -> Arc<T> {
        if self.by_digest.len() >= self.sweep_at {
            self.by_digest.retain(|_, one| one.strong_count() > 0);
            self.sweep_at = (2 * self.by_digest.len()).max(64);
        }
        if let Some(other) = self.get(&digest) {
            return other;
        }
        self.by_digest.insert(digest, Arc::downgrade(&this));
        this
    }
}

/// What makes the exchanges instead of clients of our own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Given {
    /// A client. What is dialled is its own matter.
    Client,
    /// A fetcher. So is what is sent along.
    Fetcher,
}

impl Engine {
    pub(crate) fn new(parts: EngineParts) -> Arc<Self> {
        let clock = parts.clock.unwrap_or_else(|| Arc::new(SystemClock));
        let given = match (&parts.fetch, &parts.client) {
            (Some(_), _) => Some(Given::Fetcher),
            (None, Some(_)) => Some(Given::Client),
            (None, None) => None,
        };
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
            given,
            events: Events::default(),
            stores: Stack::new(parts.stores, parts.ring),
            draw: AtomicU64::new(seeded_dice(parts.seed).u64(..)),
            sets: Mutex::default(),
            sources: Mutex::default(),
            policy: Mutex::default(),
            serials: AtomicU64::new(0),
            prepared: AtomicBool::new(false),
            #[cfg(feature = "metrics")]
            unrecorded: parts.unrecorded,
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

    /// Shares the settings of providers that are registered one after another with the same.
    pub(crate) fn policy(&self, policy: Policy) -> Arc<Policy> {
        let mut last = lock(&self.policy);
        if let Some(last) = last.upgrade().filter(|last| **last == policy) {
            return last;
        }
        let policy = Arc::new(policy);
        *last = Arc::downgrade(&policy);
        policy
    }

    /// A number that no other provider of this engine has.
    pub(crate) fn serial(&self) -> u64 {
        self.serials.fetch_add(1, Ordering::Relaxed)
    }

    /// Counters for a provider of this engine.
    pub(crate) fn counters(&self) -> (Hits, Counters) {
        #[cfg(feature = "metrics")]
        if self.unrecorded {
            return (Hits::unrecorded(), Counters::unrecorded());
        }
        (Hits::default(), Counters::default())
    }

    /// The dice. Whoever draws them one after another, they fall evenly: each draw steps on by the golden
    /// ratio, which keeps any number of draws apart. Independent draws would crowd refreshes that they are
    /// to spread.
    pub(crate) fn dice(&self) -> impl Dice {
        const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
        || {
            let place = self.draw.fetch_add(GOLDEN, Ordering::Relaxed);
            f64::from((place >> 32) as u32) / 2_f64.powi(32)
        }
    }

    /// Judges a document. Equal documents under equal rules share one set.
    pub(crate) fn judge(&self, document: &[u8], rules: &KeyRules) -> Result<Arc<KeySet>, Refusal> {
        let digest = digest(document, rules);
        if let Some(set) = lock(&self.sets).get(&digest) {
            return Ok(set);
        }
        let set = Arc::new(KeySet::judge(document, rules)?);
        // Another flight may have judged the same document meanwhile.
        Ok(lock(&self.sets).get_or_insert(digest, set))
    }

    /// What is shared by all whose digest this is.
    pub(crate) fn share(&self, digest: Digest) -> Arc<Shared> {
        lock(&self.sources).get_or_insert(digest, Arc::default())
    }
}

fn digest(document: &[u8], rules: &KeyRules) -> Digest {
    let mut context = Context::new(&SHA256);
    context.update(format!("{rules:?}\n").as_bytes());
    context.update(document);
    finished(context)
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
    use std::cmp::Reverse;
    use std::collections::BinaryHeap;
    use std::sync::atomic::AtomicUsize;
    use std::time::Duration;

    use chrono::DateTime;
    use http::{HeaderMap, HeaderValue, header};
    use jwks_cache_core::freshness::{StoredHeaders, Timing};
    use jwks_cache_core::lifecycle::{Answer, Asker, Lifecycle, Outcome};
    use jwks_cache_core::policy::RefreshMode;

    use super::*;
    use crate::IdentityProviderRegistration;
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

    #[tokio::test]
    async fn equal_lifetimes_that_began_together_end_apart() {
        const PROVIDERS: u16 = 10_000;
        const LIFETIME: usize = 600;
        let url = "https://id.example.com/jwks.json";
        let mut registration = IdentityProviderRegistration::new("acme", "main", url).unwrap();
        registration.refresh_mode = RefreshMode::Always;
        let policy = Arc::new(registration.policy());
        let engine = Engine::new(EngineParts { seed: Some(1), ..EngineParts::default() });
        let key = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"a","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
        let set = engine.judge(key.as_bytes(), &policy.key_rules()).unwrap();
        let mut headers = HeaderMap::new();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("max-age=600"));
        let start = Moment::ORIGIN + Duration::from_secs(1_000_000);
        let mut lives: Vec<_> = (0..PROVIDERS).map(|_| Lifecycle::new(policy.clone())).collect();
        let mut wakes: BinaryHeap<_> = (0..lives.len()).map(|n| Reverse((start, n))).collect();
        let mut seconds = vec![0_u32; 2 * LIFETIME];
        while let Some(Reverse((now, n))) = wakes.pop() {
            let Some(second) = seconds.get_mut(usize::try_from(now.since(start).as_secs()).unwrap()) else {
                break;
            };
            *second += 1;
            let life = &mut lives[n];
            let asker = if now == start { Asker::Reader } else { Asker::Timer { read: false } };
            let Answer::Start(plan) = life.ask(asker, now) else { panic!("a timer is not too early") };
            let timing = Timing { requested_at: now, received_at: now, received_wall: DateTime::default() };
            let headers = StoredHeaders::from_response(&headers);
            life.land(
                plan.number,
                Outcome::Document { set: set.clone(), headers, timing },
                now,
                &mut engine.dice(),
            );
            wakes.push(Reverse((life.wake_at().unwrap(), n)));
        }
        let peak = *seconds[LIFETIME..].iter().max().unwrap();
        let mean = f64::from(PROVIDERS) / 600.0;
        assert!(f64::from(peak) <= 2.0 * mean, "{peak} refreshes in one second where {mean} would do");
    }
}
