//! The least that any design could do: `ArcSwap<map>` → `ArcSwap<set>` → kid. No refresh, no counters, no
//! unknown kids, no denials, no errors: it only asks whether the set is fresh.

use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Instant;

use arc_swap::ArcSwap;
use hashbrown::{Equivalent, HashMap};
use rustix::time::{ClockId, clock_gettime};

#[derive(PartialEq, Eq, Hash)]
struct Name(String, String);

#[derive(Hash)]
struct NameRef<'a>(&'a str, &'a str);

impl Equivalent<Name> for NameRef<'_> {
    fn equivalent(&self, name: &Name) -> bool {
        *self.0 == *name.0 && *self.1 == *name.1
    }
}

struct Set {
    fresh_until: u64,
    fresh_until_instant: Instant,
    keys: Vec<(String, Arc<Key>)>,
}

/// What stands for a key that is ready to verify.
pub struct Key([u8; 64]);

impl Key {
    pub fn first(&self) -> u8 {
        self.0[0]
    }
}

pub struct Provider(ArcSwap<Set>);

type Providers = HashMap<Name, Arc<Provider>, foldhash::fast::RandomState>;

pub struct Limit(ArcSwap<Providers>);

/// How it asks whether a set is fresh.
#[derive(Clone, Copy)]
pub enum Clock {
    Coarse,
    Instant,
}

impl Limit {
    /// Providers by name, each with its kids.
    pub fn new(providers: impl Iterator<Item = (String, String, Vec<String>)>) -> Self {
        let mut map = Providers::default();
        for (tenant, id, kids) in providers {
            let keys = kids.into_iter().map(|kid| (kid, Arc::new(Key([1; 64])))).collect();
            let hour = std::time::Duration::from_secs(36_000);
            let set = Set {
                fresh_until: coarse_now() + 36_000_000_000_000,
                fresh_until_instant: Instant::now() + hour,
                keys,
            };
            map.insert(Name(tenant, id), Arc::new(Provider(ArcSwap::from_pointee(set))));
        }
        Self(ArcSwap::from_pointee(map))
    }

    pub fn key(&self, tenant: &str, id: &str, kid: &str, clock: Clock) -> Option<Arc<Key>> {
        let map = self.0.load();
        map.get(&NameRef(tenant, id))?.with(kid, clock, Arc::clone)
    }

    pub fn provider(&self, tenant: &str, id: &str) -> Option<Arc<Provider>> {
        self.0.load().get(&NameRef(tenant, id)).cloned()
    }
}

impl Provider {
    pub fn with<R>(&self, kid: &str, clock: Clock, then: impl FnOnce(&Arc<Key>) -> R) -> Option<R> {
        let set = self.0.load();
        let fresh = match clock {
            Clock::Coarse => coarse_now() < set.fresh_until,
            Clock::Instant => Instant::now() < set.fresh_until_instant,
        };
        let found = set.keys.iter().find(|(held, _)| held == kid);
        fresh.then(|| found.map(|(_, key)| then(key))).flatten()
    }
}

/// A set that is handed out whole: one for all threads, or a copy for each in a line of its own.
pub struct Whole<const STRIPES: usize>(ArcSwap<[Line; STRIPES]>);

#[repr(align(128))]
struct Line(Arc<[Key; 4]>);

impl<const STRIPES: usize> Whole<STRIPES> {
    pub fn new() -> Self {
        Self(ArcSwap::from_pointee(std::array::from_fn(|_| {
            Line(Arc::new([1; 4].map(|byte| Key([byte; 64]))))
        })))
    }

    pub fn set(&self) -> Arc<[Key; 4]> {
        thread_local!(static THREAD: usize = NEXT.fetch_add(1, Relaxed));
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        Arc::clone(&self.0.load()[THREAD.with(|thread| thread % STRIPES)].0)
    }
}

fn coarse_now() -> u64 {
    let now = clock_gettime(ClockId::MonotonicCoarse);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}
