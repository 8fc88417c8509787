//! What happens in the world, besides faults: one row each, with how often it is drawn. A row acts on one
//! provider; the laws are checked after each.
//!
//! To add a kind, add a row.

use std::collections::BTreeSet;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use jwks_cache::store::{SnapshotKey, SnapshotKind, StoreErrorKind};
use jwks_cache::{
    Algorithm, Clock, Fetch, FetchRequest, Fetching, IdentityProviderRegistration, JitterStrategy, Moment,
    NotFetched, ProviderState, RefreshMode, Registry, RetryPolicy, StatusMetric,
};

use crate::MemoryStore;

use super::chance::Chance;
use super::document::{Material, material_of_thumbprint, name};
use super::law::{State, stray};
use super::origin::Origin;
use super::read::{self, Wanted};
use super::scene::{Scene, Shared, TICK, provider, tenant, url};

pub(super) struct Act {
    pub(super) name: &'static str,
    weight: u64,
    pub(super) play: for<'a> fn(&'a Stage, usize) -> Playing<'a>,
}

type Playing<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;

/// An act on a provider alone, of which the cache learns by fetching.
macro_rules! rotation {
    ($name:literal, $change:expr) => {
        Act {
            name: $name,
            weight: 40,
            play: |stage, slot| {
                let change: fn(&mut Origin, &mut Chance) = $change;
                Box::pin(async move {
                    let mut scene = stage.world.lock();
                    let Scene { sites, chance, .. } = &mut *scene;
                    change(&mut sites[slot].origin, chance);
                })
            },
        }
    };
}

pub(super) const ACTS: &[Act] = &[
    Act { name: "reads", weight: 8_300, play: |stage, slot| Box::pin(stage.reads(slot)) },
    Act { name: "flood of bogus kids", weight: 100, play: |stage, slot| Box::pin(stage.flood(slot)) },
    Act { name: "flood beyond memory", weight: 4, play: |stage, slot| Box::pin(stage.great_flood(slot)) },
    Act { name: "fault", weight: 500, play: |stage, slot| Box::pin(stage.fault(slot)) },
    Act { name: "recovery", weight: 100, play: |stage, slot| Box::pin(stage.recovery(slot)) },
    rotation!("a key is added", |origin, _| origin.add_key()),
    rotation!("a key is removed", |origin, _| origin.drop_key()),
    rotation!("a key is replaced in place", |origin, _| origin.swap_material()),
    rotation!("every key is another", |origin, _| origin.start_over()),
    rotation!("a set flaps", |origin, _| origin.flap()),
    rotation!("an encryption key", |origin, _| origin.mix_in_encryption()),
    rotation!("another lifetime", Origin::promise_anew),
    Act { name: "registered again", weight: 60, play: |stage, slot| Box::pin(stage.register_again(slot)) },
    Act {
        name: "registered again in flight",
        weight: 60,
        play: |stage, slot| Box::pin(stage.register_in_flight(slot)),
    },
    Act { name: "another source", weight: 15, play: |stage, slot| Box::pin(stage.move_source(slot)) },
    Act { name: "unregistered", weight: 15, play: |stage, slot| Box::pin(stage.unregister(slot)) },
    Act { name: "refresh", weight: 60, play: |stage, slot| Box::pin(stage.refresh(slot, false)) },
    Act { name: "refresh and wait", weight: 60, play: |stage, slot| Box::pin(stage.refresh(slot, true)) },
    Act { name: "denied", weight: 30, play: |stage, slot| Box::pin(stage.deny(slot)) },
    Act { name: "allowed", weight: 40, play: |stage, slot| Box::pin(stage.allow(slot)) },
    Act { name: "bad signature", weight: 60, play: |stage, slot| Box::pin(stage.bad_signature(slot)) },
    Act {
        name: "health",
        weight: 40,
        play: |stage, slot| {
            Box::pin(async move {
                stage.world.lock().asked();
                ends(&stage.world, slot, "health", stage.registry.health()).await;
            })
        },
    },
    Act { name: "warm up", weight: 20, play: |stage, slot| Box::pin(stage.warm_up(slot)) },
    Act { name: "the wall is stepped", weight: 30, play: |stage, _| Box::pin(stage.step_wall()) },
    Act { name: "the store", weight: 60, play: |stage, _| Box::pin(stage.change_store()) },
    Act { name: "another process", weight: 120, play: |stage, slot| Box::pin(stage.start_another(slot)) },
    Act { name: "suspended", weight: 10, play: |stage, _| Box::pin(stage.suspend()) },
];

/// How much of a flood's kids is remembered as missing.
pub(super) const MEMORIES: &[&str] = &["not full", "full"];

/// Draws an act by weight.
pub(super) fn draw(chance: &mut Chance) -> &'static Act {
    let mut at = chance.below(ACTS.iter().map(|act| act.weight).sum());
    for act in ACTS {
        match at.checked_sub(act.weight) {
            Some(rest) => at = rest,
            None => return act,
        }
    }
    &ACTS[0]
}

/// No wait is longer, whatever is set here.
pub(super) const HANGS: Duration = Duration::from_secs(60);

/// What a call brings, which must end (I8).
pub(super) async fn ends<T>(
    world: &Shared,
    slot: usize,
    what: &str,
    call: impl Future<Output = T>,
) -> Option<T> {
    let outcome = tokio::time::timeout(HANGS, call).await.ok();
    if outcome.is_none() {
        world.lock().blame(slot, format!("I8: {what} still waits after {HANGS:?}"));
    }
    outcome
}

/// Where acts are played: the cache, and the world around it.
#[derive(Clone)]
pub(super) struct Stage {
    pub(super) world: Shared,
    pub(super) registry: Registry,
    pub(super) store: MemoryStore,
    /// Since when the store works, if it does.
    pub(super) calm_since: Arc<Mutex<Option<Duration>>>,
}

/// A provider that no process can reach.
#[derive(Debug)]
struct Unreachable;

impl Fetch for Unreachable {
    fn fetch<'a>(&'a self, _: &'a FetchRequest) -> Fetching<'a> {
        Box::pin(std::future::ready(Err(NotFetched::new("connect", "nobody is there"))))
    }
}

impl Stage {
    async fn reads(&self, slot: usize) {
        let wanted: Vec<Wanted> = {
            let mut scene = self.world.lock();
            let Scene { sites, chance, .. } = &mut *scene;
            let published = &sites[slot].origin.document.keys;
            let count = 1 + chance.below(4);
            let one = |_| Wanted {
                whole: chance.percent(30),
                kid: match chance.below(10) {
                    0..=5 if !published.is_empty() => Some(published[chance.index(published.len())].kid),
                    6 => Some(u32::try_from(chance.below(8)).unwrap_or(0)),
                    7 => Some(1_000 + u32::try_from(chance.below(20)).unwrap_or(0)),
                    _ => None,
                },
                patience: chance.percent(10).then(|| chance.millis(0, 60)),
            };
            (0..count).map(one).collect()
        };
        for wanted in wanted {
            tokio::spawn(read::read(self.world.clone(), self.registry.clone(), slot, wanted));
        }
    }

    async fn flood(&self, slot: usize) {
        for wave in 0..8 {
            let kid = u32::try_from(self.world.lock().chance.below(1 << 30)).unwrap_or(0) | 1 << 20;
            for kid in [kid, kid + 1, kid, 1_000 + wave] {
                let wanted = Wanted { whole: false, kid: Some(kid), patience: None };
                tokio::spawn(read::read(self.world.clone(), self.registry.clone(), slot, wanted));
            }
            let pause = self.world.lock().chance.millis(1, 4_000);
            tokio::time::sleep(pause).await;
        }
    }

    /// More kids at once than the cache remembers as missing (I9): those of them that it does are counted.
    async fn great_flood(&self, slot: usize) {
        const REMEMBERED: u64 = 1_024;
        let first = u32::try_from(self.world.lock().chance.below(1 << 30)).unwrap_or(0) | 1 << 20;
        let kids: Vec<String> = (first..first + 1_100).map(name).collect();
        // All come while a flight runs, so that the next began after every one of them.
        self.refresh(slot, false).await;
        for _ in 0..4 {
            tokio::task::yield_now().await;
        }
        self.world.lock().asked();
        let asked: Vec<_> = kids
            .iter()
            .map(|kid| {
                let (world, registry, kid) = (self.world.clone(), self.registry.clone(), kid.clone());
                tokio::spawn(async move {
                    let tenant = tenant(slot);
                    let call = registry.key(&tenant, provider(slot), Some(&kid), Algorithm::EdDSA);
                    if let Some(Ok(_)) = ends(&world, slot, "a kid of a flood", call).await {
                        world.lock().blame(slot, "I2: a key under a bogus kid");
                    }
                })
            })
            .collect();
        for asked in asked {
            // It does not panic, and nobody aborts it.
            let _ = asked.await;
        }
        let (tenant, provider) = (tenant(slot), provider(slot));
        let known = async || {
            let status = self.registry.provider_status(&tenant, provider).await.ok()?;
            let known = |metric: &&StatusMetric| {
                metric.name == "jwks_cache_kid_misses_total"
                    && metric.labels.get("outcome").is_some_and(|outcome| outcome == "known_missing")
            };
            let known = status.metrics.iter().find(known)?.value;
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small count")]
            Some(known as u64)
        };
        self.world.lock().asked();
        let before = known().await;
        for kid in &kids {
            // Looked at once: what it knows to be missing, it says at once.
            let call = self.registry.key(&tenant, provider, Some(kid), Algorithm::EdDSA);
            let _ = pin!(call).poll(&mut Context::from_waker(Waker::noop()));
        }
        let after = known().await;
        let mut scene = self.world.lock();
        match after.zip(before).map(|(after, before)| after - before) {
            Some(..REMEMBERED) => scene.note(slot, "memory", MEMORIES[0], ""),
            Some(REMEMBERED) => scene.note(slot, "memory", MEMORIES[1], ""),
            remembered => scene.blame(slot, format!("I9: it remembers {remembered:?} missing kids")),
        }
    }

    async fn fault(&self, slot: usize) {
        let mut scene = self.world.lock();
        let now = scene.clock.passed();
        let Scene { sites, chance, .. } = &mut *scene;
        sites[slot].origin.break_down(now, chance);
    }

    async fn recovery(&self, slot: usize) {
        self.world.lock().sites[slot].origin.fault = None;
    }

    /// Registers the provider: for the first time, again under other settings, or at another source.
    pub(super) async fn register(&self, slot: usize, source: u64) {
        let registration = {
            let mut scene = self.world.lock();
            scene.hear();
            registration(slot, source, &mut scene.chance)
        };
        let call = self.registry.register(registration.clone());
        let Some(admitted) = ends(&self.world, slot, "register", call).await else { return };
        let mut scene = self.world.lock();
        if let Err(error) = admitted {
            scene.blame(slot, format!("a sound registration was refused: {error}"));
        }
        scene.say(slot, format_args!("{registration:?}"));
        let now = scene.now();
        let site = &mut scene.sites[slot];
        let old = site.book.now().registration.clone();
        site.incarnation += 1;
        let keeps = old.as_ref().is_some_and(|old| {
            // Naming the only host that was ever asked trusts less than naming none.
            let tightened = old.allowed_domains.is_empty() && !registration.allowed_domains.is_empty();
            old.jwks_url == registration.jwks_url && !tightened
        });
        site.book.change(now, |state| state.register(Arc::new(registration), keeps));
        if keeps {
            site.budget.reregistered(now, site.book.now());
        } else {
            site.budget.forget();
        }
    }

    async fn register_again(&self, slot: usize) {
        let source = self.world.lock().sites[slot].origin.source;
        self.register(slot, source).await;
    }

    /// While an answer of before a rotation is on its way.
    async fn register_in_flight(&self, slot: usize) {
        self.refresh(slot, true).await;
        let pause = self.world.lock().chance.millis(1, 100);
        tokio::time::sleep(pause).await;
        self.world.lock().sites[slot].origin.add_key();
        self.register_again(slot).await;
    }

    async fn move_source(&self, slot: usize) {
        let source = {
            let mut scene = self.world.lock();
            let Scene { sites, chance, .. } = &mut *scene;
            let origin = &mut sites[slot].origin;
            *origin = Origin::new(slot, origin.source + 1, chance);
            origin.source
        };
        self.register(slot, source).await;
    }

    /// Gone, read while it is, and back soon.
    async fn unregister(&self, slot: usize) {
        self.world.lock().hear();
        let (tenant, provider) = (tenant(slot), provider(slot));
        let call = self.registry.unregister(&tenant, provider);
        let Some(was_there) = ends(&self.world, slot, "unregister", call).await else { return };
        {
            let mut scene = self.world.lock();
            let now = scene.now();
            let site = &mut scene.sites[slot];
            site.incarnation += 1;
            let registered = site.book.now().registration.is_some();
            site.book.change(now, |state| *state = Default::default());
            site.budget.forget();
            if was_there.ok() != Some(registered) {
                scene.blame(slot, "unregister does not know what was registered");
            }
        }
        self.reads(slot).await;
        let pause = self.world.lock().chance.millis(1, 20_000);
        tokio::time::sleep(pause).await;
        self.register_again(slot).await;
    }

    /// Somebody insists, in a task of its own.
    async fn refresh(&self, slot: usize, to_the_end: bool) {
        let (world, registry) = (self.world.clone(), self.registry.clone());
        tokio::spawn(async move {
            let (began, incarnation, deadline) = {
                let mut scene = world.lock();
                scene.hear();
                let began = scene.clock.socket();
                let site = &mut scene.sites[slot];
                site.budget.people += 1;
                site.budget.person_asked = true;
                let deadline = site.book.now().registration.as_ref().map(|under| under.retry_policy.deadline);
                (began, site.incarnation, deadline.unwrap_or_default())
            };
            let (tenant, provider) = (tenant(slot), provider(slot));
            let call = async {
                match to_the_end {
                    true => registry.refresh_and_wait(&tenant, provider).await,
                    false => registry.refresh(&tenant, provider).await,
                }
            };
            let Some(_) = ends(&world, slot, "a refresh", call).await else { return };
            let mut scene = world.lock();
            let took = scene.clock.socket() - began;
            let site = &mut scene.sites[slot];
            site.budget.people = site.budget.people.saturating_sub(1);
            // It joins a flight, waits out a second, and sees another through.
            let most = 2 * deadline + Duration::from_secs(1);
            if site.incarnation == incarnation && took > most + TICK {
                scene.blame(slot, format!("I8: a refresh took {took:?}, not {most:?}"));
            }
        });
    }

    async fn deny(&self, slot: usize) {
        let id = {
            let mut scene = self.world.lock();
            let Scene { sites, chance, .. } = &mut *scene;
            let ids = sites[slot].book.now().deniable();
            if ids.is_empty() { "k0".to_owned() } else { ids[chance.index(ids.len())].clone() }
        };
        let (tenant, provider) = (tenant(slot), provider(slot));
        let call = self.registry.deny_key(&tenant, provider, &id);
        if let Some(Ok(_)) = ends(&self.world, slot, "a denial", call).await {
            let mut scene = self.world.lock();
            let now = scene.now();
            scene.sites[slot].book.change(now, |state| state.deny(&id));
        }
    }

    async fn allow(&self, slot: usize) {
        let id = self.world.lock().sites[slot].book.now().denied.keys().next().cloned();
        let Some(id) = id else { return };
        let (tenant, provider) = (tenant(slot), provider(slot));
        let call = self.registry.allow_key(&tenant, provider, &id);
        if let Some(Ok(_)) = ends(&self.world, slot, "lifting a denial", call).await {
            let mut scene = self.world.lock();
            let now = scene.now();
            scene.sites[slot].book.change(now, |state| state.denied.remove(&id));
        }
    }

    async fn bad_signature(&self, slot: usize) {
        if let Ok(provider) = self.registry.provider(&tenant(slot), provider(slot)) {
            provider.report_bad_signature();
        }
    }

    async fn warm_up(&self, slot: usize) {
        let (world, registry) = (self.world.clone(), self.registry.clone());
        tokio::spawn(async move {
            let deadline = Duration::from_secs(5);
            let began = {
                let mut scene = world.lock();
                scene.asked();
                scene.clock.socket()
            };
            let Some(_) = ends(&world, slot, "warming up", registry.warm_up(deadline)).await else { return };
            let mut scene = world.lock();
            let took = scene.clock.socket() - began;
            if took > deadline + TICK {
                scene.blame(slot, format!("I8: warming up took {took:?}, not {deadline:?}"));
            }
        });
    }

    async fn step_wall(&self) {
        let mut scene = self.world.lock();
        let seconds = scene.chance.pick(&[0, 0, 1, -1, 60, -60, 7_200, -7_200, 315_000_000, -315_000_000]);
        scene.clock.step_wall(TimeDelta::seconds(seconds));
    }

    /// The store takes another mood, for a while.
    async fn change_store(&self) {
        let lasts = {
            let scene = &mut *self.world.lock();
            match scene.chance.below(5) {
                0 => self.store.hang(),
                1 => self.store.slow_down(scene.chance.millis(1, 600)),
                2 => self.store.fail(StoreErrorKind::Unavailable),
                3 => self.store.fail(StoreErrorKind::Refused),
                // What it lost comes back with the next refresh of each.
                _ => self.store.flush(),
            }
            scene.chance.millis(1, 120_000)
        };
        *self.calm_since.lock().expect("nobody panics with it") = None;
        let stage = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(lasts).await;
            stage.store.work();
            let passed = stage.world.lock().clock.passed();
            *stage.calm_since.lock().expect("nobody panics with it") = Some(passed);
        });
    }

    /// Another process starts with what the store has, while no provider can be reached.
    async fn start_another(&self, slot: usize) {
        /// A store that works is caught up with after this, however long it did not.
        const CAUGHT_UP: Duration = Duration::from_secs(20);
        /// No registration waits longer for a store.
        const LONGEST_LOAD: Duration = Duration::from_millis(250);
        let (registration, clock, asked, seed) = {
            let mut scene = self.world.lock();
            let Some(registration) = scene.sites[slot].book.now().registration.clone() else { return };
            let (asked, seed) = (scene.now(), scene.chance.below(u64::MAX));
            (IdentityProviderRegistration::clone(&registration), scene.clock.clone(), asked, seed)
        };
        let other = Registry::builder()
            .clock(clock.clone())
            .fetcher(Arc::new(Unreachable))
            .seed(seed)
            .with_store(Arc::new(self.store.clone()))
            .build();
        let before = clock.socket();
        let call = other.register(registration.clone());
        let Some(admitted) = ends(&self.world, slot, "register", call).await else { return };
        let waited = clock.socket() - before;
        let status = other.provider_status(&tenant(slot), provider(slot)).await;
        let mut scene = self.world.lock();
        let (Ok(()), Ok(status)) = (admitted, status) else {
            scene.blame(slot, "another process does not take a registration that this one took");
            return;
        };
        let (passed, now, wall) = (scene.clock.passed(), scene.now(), scene.clock.wall());
        let calm = self.calm_since.lock().expect("nobody panics with it");
        let state = scene.sites[slot].book.now().clone();
        let stored = state.as_stored();
        // What landed while the other one asked was in the store too late for it.
        let caught_up = calm.is_some_and(|since| passed.saturating_sub(since) > CAUGHT_UP)
            && stored.held.as_ref().is_none_or(|held| held.at < asked);
        let shown = |wanted: &str| -> BTreeSet<Material> {
            let keys = status.keys.iter().filter(|key| key.state == wanted);
            let material = |print: &str| material_of_thumbprint(print).unwrap_or(Material::MAX);
            keys.filter_map(|key| key.thumbprint.as_deref().map(material)).collect()
        };
        let (usable, retiring) = (shown("usable"), shown("retiring"));
        // All that it knows of time is the wall, which may have been set since the last answer.
        let by_the_wall = stored.held.as_ref().map_or(now, |held| held.at + age_by(wall, held.wall));
        let honoured = stored.retiring(by_the_wall);
        let ready = matches!(status.state, ProviderState::Ready | ProviderState::Refreshing);
        let age = status.last_refresh.map(|at| age_by(wall, at));
        let trust = registration.max_trust_age.unwrap_or_else(|| {
            Duration::from_secs(48 * 3_600).max(registration.max_ttl + registration.stale_while_error)
        });
        let blame = if waited > LONGEST_LOAD + TICK {
            Some(format!("I8: a registration waited {waited:?} for a store"))
        } else if let Some(owner) = stray(slot, usable.iter().chain(&retiring).copied()) {
            Some(format!("I5: another process shows a key of p{owner}"))
        } else if ready && age.is_some_and(|age| age >= trust) {
            Some(format!("I2: another process trusts keys of {age:?}"))
        } else if caught_up && ready && usable != stored.usable() {
            Some(format!("I6: another process has {usable:?}, a store {:?}", stored.usable()))
        } else if caught_up
            && !ready
            && self.must_be_served(slot, &state, (now, wall), calm.map(|since| passed.saturating_sub(since)))
        {
            Some(format!("I6: another process has nothing, this one {:?}", state.usable()))
        } else if caught_up && !retiring.is_subset(&honoured) {
            Some(format!("I3: another process honours {retiring:?}, a store {honoured:?}"))
        } else {
            None
        };
        if let Some(blame) = blame {
            scene.blame(slot, blame);
        }
        scene.note(slot, "another process", if ready { "serves" } else { "has nothing" }, "");
    }

    /// Whether a process that starts now must serve what this one holds: a store that has been calm since then has it,
    /// and by the wall it is young enough.
    fn must_be_served(
        &self,
        slot: usize,
        state: &State,
        (now, wall): (Moment, DateTime<Utc>),
        calm_for: Option<Duration>,
    ) -> bool {
        let (Some(held), Some(times)) = (&state.held, state.times()) else { return false };
        let kind = SnapshotKind::Keys;
        let key = SnapshotKey { tenant: tenant(slot), provider: provider(slot).to_owned(), kind };
        let landed_since = calm_for.is_some_and(|calm| now.since(held.at) < calm);
        let by_the_wall = wall + TimeDelta::seconds(59) > held.wall
            && age_by(wall, held.wall) < times.servable_until.since(held.at);
        (landed_since || self.store.look(&key).is_some()) && by_the_wall && !state.usable().is_empty()
    }

    async fn suspend(&self) {
        let mut scene = self.world.lock();
        let span = Duration::from_secs(scene.chance.seconds(5, 30_000));
        scene.clock.suspend(span);
        let now = scene.now();
        scene.sites.iter_mut().for_each(|site| site.budget.overslept(now));
    }
}

/// How old that is by the wall; what claims to come is of now.
fn age_by(wall: DateTime<Utc>, at: DateTime<Utc>) -> Duration {
    (wall - at).to_std().unwrap_or_default()
}

/// Sound settings, drawn; but where a provider is, how large its answers may be, and what needs a real wire.
fn registration(slot: usize, source: u64, chance: &mut Chance) -> IdentityProviderRegistration {
    let secs = Duration::from_secs;
    let mut new = IdentityProviderRegistration::new(tenant(slot), provider(slot), url(slot, source))
        .expect("the world's URLs are URLs");
    if chance.percent(30) {
        new.allowed_domains = vec![format!("p{slot}.example")];
    }
    new.refresh_early = chance.pick(&[secs(1), secs(31), secs(300)]);
    new.stale_while_error = chance.pick(&[secs(0), secs(61), secs(3_600), secs(86_400)]);
    new.min_ttl = chance.pick(&[secs(30), secs(30), secs(120)]);
    new.max_ttl = chance.pick(&[secs(3_600), secs(86_400)]);
    new.default_ttl = chance.pick(&[secs(10), secs(300), secs(7_200)]);
    new.http_strict = chance.percent(10);
    new.max_trust_age = chance.pick(&[None, None, Some(secs(600)), Some(secs(7_200)), Some(secs(172_800))]);
    new.removal_grace = chance.pick(&[secs(0), secs(600), secs(172_800)]);
    new.negative_cache_ttl = chance.pick(&[secs(0), secs(5)]);
    new.kid_miss_interval = chance.pick(&[secs(1), secs(10), secs(60)]);
    new.kid_miss_wait = chance.pick(&[secs(0), secs(2), secs(10)]);
    new.stale_wait = chance.pick(&[secs(0), Duration::from_millis(250), secs(2)]);
    new.prefetch_jitter = chance.pick(&[secs(0), secs(5), secs(60)]);
    new.refresh_mode = chance.pick(&[
        RefreshMode::OnDemand,
        RefreshMode::WhileInUse,
        RefreshMode::WhileInUse,
        RefreshMode::Always,
    ]);
    new.max_keys = chance.pick(&[3, 5, 64, 64]);
    new.algorithms = match chance.below(20) {
        0..12 => Vec::new(),
        12..19 => vec![Algorithm::RS256, Algorithm::EdDSA],
        // None of the world's keys is for this.
        _ => vec![Algorithm::ES256],
    };
    let initial_backoff = Duration::from_millis(chance.pick(&[100, 250, 1_000]));
    new.retry_policy = RetryPolicy {
        max_retries: u32::try_from(chance.below(4)).unwrap_or(0),
        attempt_timeout: chance.pick(&[Duration::from_millis(500), secs(3)]),
        initial_backoff,
        max_backoff: secs(2),
        deadline: chance.pick(&[secs(3), secs(8)]),
        jitter: chance.pick(&[JitterStrategy::None, JitterStrategy::Full, JitterStrategy::Decorrelated]),
    };
    new
}
