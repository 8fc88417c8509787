//! A simulated world: the real registry, among providers that rotate, flap, fail, dawdle and lie, on a
//! machine whose wall clock is stepped and that is suspended now and then. One thread, virtual time, no
//! sockets; all that happens follows from a seed, so a seed that broke a law replays exactly.
//!
//! [`simulate`] runs one seed: seven days of at least three providers with lifetimes from 30 s to 24 h, at
//! least a fault an hour and ten thousand reads. What the cache shows of a provider is held against the laws
//! after every act on it, whenever a request of its ends, and now and then; every answer as it comes:
//!
//! - I1 a failed refresh never changes the served set, nor how long it is served (`law`, `scene`);
//! - I2 a key is usable only if a document of at most `max_trust_age` ago held it, and the last one or one
//!   within `removal_grace` of it; I3 and unusable after that (`law`, `read`);
//! - I4 requests stay inside the budget, whatever is asked for (`budget`); I7 one at a time;
//! - I5 no provider's key answers for another, though all use the same kids (`document`);
//! - I6 what a store kept brings another process no key that was never published, none that is denied, and nothing past
//!   trust; and all that is held, where the store has worked for a while (`act`): the store hangs, fails, dawdles and
//!   loses everything now and then, which changes nothing for this cache;
//! - I8 every wait ends by its deadline (`read`, `act`); I9 what is held per provider is bounded (`scene`, `act`);
//! - where there is a timer, a due refresh happens (`budget`).
//!
//! The rest of I6 is not held here: a flight that was ended cannot bring a document to this cache, so a world cannot have an
//! older one come after a newer one. The model and the concurrency tests can.
//!
//! What can happen is in two tables: `fault` (what is wrong with a provider) and `act` (everything else).
//! The world's clock is tokio's paused time, so that policy and socket waits keep their order; its laws share
//! no code with the cache, and this room does not know how the cache works.

mod act;
mod budget;
mod chance;
mod clock;
mod document;
mod fault;
mod figures;
mod law;
mod origin;
mod outage;
mod read;
mod scene;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jwks_cache::{Error, Registry};
use tokio::sync::Notify;

pub use self::figures::Figures;
pub use self::outage::{Outages, simulate_outages};

use crate::MemoryStore;

use self::act::Stage;
use self::chance::Chance;
use self::clock::WorldClock;
use self::origin::Origin;
use self::scene::{Scene, Shared, Site, provider, tenant};

/// How long a world lasts, in policy time.
const LASTS: Duration = Duration::from_secs(7 * 86_400);
/// A fault an hour, and so many reads, are the least that a run may show.
const LEAST_FAULTS: u64 = 7 * 24;
const LEAST_READS: u64 = 10_000;

/// After so many acts all providers are looked at: what changes with time alone needs no closer look.
const LOOKS_AROUND: u64 = 16;

/// What one seed showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// What happened, by kind.
    pub figures: Figures,
    /// Folds everything that happened and when: equal for every run of a seed.
    pub digest: u64,
}

/// A law that a seed broke.
#[derive(Clone, Debug)]
pub struct Broken {
    /// The seed; it breaks the law again.
    pub seed: u64,
    /// Which law, and what was seen.
    pub what: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seed {}: {}", self.seed, self.what)
    }
}

impl std::error::Error for Broken {}

/// Runs one seed; `tell` prints everything that happens.
///
/// # Errors
/// [`Broken`]: the first law that was broken.
pub fn simulate(seed: u64, tell: bool) -> Result<Run, Broken> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without sockets needs nothing that could be missing");
    runtime.block_on(live(seed, tell)).map_err(|what| Broken { seed, what })
}

async fn live(seed: u64, tell: bool) -> Result<Run, String> {
    let mut chance = Chance::new(seed);
    let clock = Arc::new(WorldClock::new());
    // One world in four has too few places, so that flights queue.
    let limit = if chance.percent(25) { 2 } else { 64 };
    let slots = 3 + chance.index(4);
    let site = |slot| Site::new(Origin::new(slot, 0, &mut chance), limit < slots);
    let sites = (0..slots).map(site).collect();
    let registry_seed = chance.below(u64::MAX);
    let mut figures = Figures::new();
    figures.seeds = 1;
    let call = Arc::new(Notify::new());
    let world = Shared::new(Scene {
        clock: clock.clone(),
        chance,
        sites,
        figures,
        events: None,
        stirred: BTreeSet::new(),
        call: call.clone(),
        broken: None,
        digest: 0,
        limit,
        in_air: 0,
        over: false,
        tell,
    });
    let store = MemoryStore::new();
    let registry = Registry::builder()
        .clock(clock.clone())
        .fetcher(Arc::new(world.clone()))
        .seed(registry_seed)
        .max_concurrent_fetches(limit)
        .with_store(Arc::new(store.clone()))
        .build();
    world.lock().events = Some(registry.subscribe());
    let calm_since = Arc::new(Mutex::new(Some(Duration::ZERO)));
    let stage = Stage { world: world.clone(), registry: registry.clone(), store, calm_since };
    for slot in 0..slots {
        stage.register(slot, 0).await;
    }
    tokio::spawn({
        let stage = stage.clone();
        async move {
            loop {
                // Whoever stirred the provider is done when this is polled.
                call.notified().await;
                let stirred = std::mem::take(&mut stage.world.lock().stirred);
                look_at(&stage, stirred).await;
            }
        }
    });
    while clock.passed() < LASTS {
        let (pause, act, slot) = {
            let chance = &mut world.lock().chance;
            let pause = match chance.below(20) {
                0..5 => chance.millis(1, 200),
                5..12 => chance.millis(1, 10_000),
                _ => chance.millis(1_000, 360_000),
            };
            (pause, act::draw(chance), chance.index(slots))
        };
        tokio::time::sleep(pause).await;
        if world.lock().figures.total("act").is_multiple_of(LOOKS_AROUND) {
            look_at(&stage, 0..slots).await;
        }
        world.lock().note(slot, "act", act.name, "");
        (act.play)(&stage, slot).await;
        look_at(&stage, [slot]).await;
        let broken = world.lock().broken.take();
        if let Some(broken) = broken {
            world.lock().over = true;
            return Err(broken);
        }
    }
    let mut scene = world.lock();
    scene.over = true;
    let (faults, reads) = (scene.figures.of("act", "fault"), scene.figures.total("read"));
    if faults < LEAST_FAULTS || reads < LEAST_READS {
        return Err(format!("the world is too quiet: {faults} faults, {reads} reads"));
    }
    Ok(Run { figures: scene.figures.clone(), digest: scene.digest })
}

/// Holds what the cache shows of providers against the laws.
async fn look_at(stage: &Stage, slots: impl IntoIterator<Item = usize>) {
    stage.world.lock().hear();
    for slot in slots {
        let (tenant, provider) = (tenant(slot), provider(slot));
        let call = stage.registry.provider_status(&tenant, provider);
        let Some(status) = act::ends(&stage.world, slot, "the status", call).await else { return };
        let mut scene = stage.world.lock();
        let registered = scene.sites[slot].book.now().registration.is_some();
        match status {
            Ok(status) if registered => scene.inspect(slot, &status),
            Err(Error::NotRegistered { .. }) if !registered => {}
            other => scene.blame(slot, format!("registered: {registered}, but the status is {other:?}")),
        }
    }
}
