//! A world of outages: tenants that share one source, a mirror and a text to fall back on, and readers. The source
//! goes away for seconds to days and comes back; so does the mirror. It tells nothing of rotations and hostile
//! documents: the larger world does.
//!
//! What holds after every read:
//!
//! - a fallback serves only while none of the source's keys that the tenant holds may be served, after the source has
//!   failed, and no longer than its limit in one outage: from its first use until the source has answered;
//! - keys are there as long as any source may still serve them;
//! - the way back takes at most a backoff, once the source answers; events tell of each turn once, and of no way back
//!   without an answer of the source;
//! - at most one request at a time goes to the source, however many tenants there are.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use http::{HeaderMap, HeaderValue, StatusCode, header};
use jwks_cache::{
    Clock, Fallback, Fetch, FetchRequest, Fetched, Fetching, IdentityProviderRegistration, Moment,
    NotFetched, RefreshMode, Registry, ServingSource, Subscription, Timing, What,
};

use super::Broken;
use super::chance::Chance;
use super::clock::WorldClock;
use super::document::{Document, Published, material, material_of_x, owner};

const LASTS: Duration = Duration::from_secs(3 * 86_400);
/// Backoff is five minutes at most, and readers come each minute.
const WAY_BACK: Duration = Duration::from_secs(7 * 60);
const SOURCE: &str = "source.example";
const MIRROR: &str = "mirror.example";
/// Whose keys they publish, and the text holds.
const OWNERS: [usize; 3] = [0, 1, 2];

/// What one seed met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outages {
    /// Turns from the source to a fallback, and back.
    pub turns: u64,
    /// Reads that the mirror's keys answered.
    pub by_mirror: u64,
    /// Reads that the text's keys answered.
    pub by_text: u64,
    /// Reads that nothing answered, every limit being over.
    pub unanswered: u64,
}

/// Who is up.
struct Scene {
    clock: Arc<WorldClock>,
    up: HashMap<&'static str, bool>,
    /// The source is up since.
    up_since: Moment,
    /// When it last answered.
    answered_at: Option<Moment>,
    chance: Chance,
    life: u64,
    in_air: usize,
    broken: Option<String>,
}

#[derive(Clone)]
struct Wire(Arc<Mutex<Scene>>);

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a simulated wire")
    }
}

impl Wire {
    fn lock(&self) -> MutexGuard<'_, Scene> {
        self.0.lock().expect("a task of the world panicked, which is a bug of the world")
    }

    async fn answer(&self, request: &FetchRequest) -> Result<Fetched, NotFetched> {
        /// A request to the source.
        struct Airborne<'a>(&'a Wire);
        impl Drop for Airborne<'_> {
            fn drop(&mut self) {
                if let Ok(mut scene) = self.0.0.lock() {
                    scene.in_air -= 1;
                }
            }
        }
        let host = if request.url.host_str() == Some(MIRROR) { MIRROR } else { SOURCE };
        let (requested_at, delay, up, hangs, life) = {
            let mut scene = self.lock();
            let up = scene.up[host];
            if host == SOURCE {
                scene.in_air += 1;
                if scene.in_air > 1 {
                    let what = format!("{} requests to the source at once", scene.in_air);
                    scene.broken.get_or_insert(what);
                }
            }
            let (delay, hangs) = (scene.chance.millis(1, 80), !up && scene.chance.percent(20));
            (scene.clock.now(), delay, up, hangs, scene.life)
        };
        let _airborne = (host == SOURCE).then(|| Airborne(self));
        if hangs {
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(delay).await;
        if !up {
            return Err(NotFetched { requests: 1, ..NotFetched::new("connect", "it is down") }.retryable());
        }
        let clock = self.lock().clock.clone();
        let timing = Timing { requested_at, received_at: clock.now(), received_wall: clock.wall() };
        let control = HeaderValue::from_str(&format!("max-age={life}")).expect("a number fits");
        if host == SOURCE {
            self.lock().answered_at = Some(timing.received_at);
        }
        let headers = HeaderMap::from_iter([(header::CACHE_CONTROL, control)]);
        let body = body(if host == SOURCE { OWNERS[0] } else { OWNERS[1] }).into_bytes();
        Ok(Fetched { status: StatusCode::OK, headers, body, timing, requests: 1 })
    }
}

impl Fetch for Wire {
    fn fetch<'a>(&'a self, request: &'a FetchRequest) -> Fetching<'a> {
        Box::pin(self.answer(request))
    }
}

fn body(slot: usize) -> String {
    Document { number: 1, keys: vec![Published::new(0, material(slot, 0, 0))] }.body()
}

/// What is known of one tenant.
#[derive(Clone, Copy, Default)]
struct Tenant {
    /// The source's keys that it holds may be served until then.
    own_until: Option<Moment>,
    /// When each fallback was first heard to serve in this outage.
    since: [Option<Moment>; 2],
    /// By the events a fallback serves, and did not before this.
    on_fallback: Option<Moment>,
}

impl Tenant {
    /// Takes note of what happened between two moments, by which the source had last answered then. Says whether it
    /// was a turn from the source or to it.
    fn hear(
        &mut self,
        what: &What,
        between: (Moment, Moment),
        answered_at: Option<Moment>,
    ) -> Result<bool, &'static str> {
        match what {
            What::ServingFallback { index, .. } => {
                if let Some(since) = self.since.get_mut(usize::from(*index)) {
                    since.get_or_insert(between.1);
                }
                Ok(self.on_fallback.replace(between.0).is_none())
            }
            What::ServingPrimary => {
                let Some(fell_back_after) = self.on_fallback.take() else {
                    return Err("the way back is told although there was none");
                };
                if answered_at.is_none_or(|at| at < fell_back_after) {
                    return Err("the way back is told although the source has not answered");
                }
                self.since = [None; 2];
                Ok(true)
            }
            _ => Ok(false),
        }
    }
}

/// What all of them are known to do, by what the events have told.
struct Heard {
    known: Vec<Tenant>,
    events: Subscription,
    /// They were heard up to then.
    until: Moment,
    turns: u64,
}

impl Heard {
    /// Hears what was told since.
    fn listen(&mut self, scene: &Scene) -> Result<(), String> {
        let between = (self.until, scene.clock.now());
        while let Some(event) = self.events.try_next() {
            let tenant = event.tenant.strip_prefix("tenant-").and_then(|number| number.parse::<usize>().ok());
            let Some(of) = tenant.and_then(|tenant| self.known.get_mut(tenant)) else { continue };
            let turned = of.hear(&event.what, between, scene.answered_at);
            self.turns += u64::from(turned.map_err(|what| format!("{}: {what}", event.tenant))?);
        }
        self.until = between.1;
        Ok(())
    }
}

/// Runs one seed.
///
/// # Errors
/// [`Broken`]: the first law that was broken.
pub fn simulate_outages(seed: u64) -> Result<Outages, Broken> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without sockets needs nothing that could be missing");
    runtime.block_on(live(seed)).map_err(|what| Broken { seed, what })
}

fn registration(
    tenant: usize,
    trust: [Duration; 2],
    stale: Duration,
    mode: RefreshMode,
) -> IdentityProviderRegistration {
    let name = format!("tenant-{tenant}");
    let url = format!("https://{SOURCE}/jwks");
    let mut of = IdentityProviderRegistration::new(name, "main", url).expect("it is a URL");
    let mirror = Fallback::url(format!("https://{MIRROR}/jwks")).expect("it is a URL");
    of.fallbacks = vec![
        Fallback { max_trust_age: trust[0], ..mirror },
        Fallback { max_trust_age: trust[1], ..Fallback::inline(body(OWNERS[2])) },
    ];
    (of.stale_while_error, of.refresh_mode) = (stale, mode);
    of
}

async fn live(seed: u64) -> Result<Outages, String> {
    let mut chance = Chance::new(seed);
    let clock = Arc::new(WorldClock::new());
    let tenants = 1 + chance.index(4);
    let trust = [chance.seconds(600, 20_000), chance.seconds(600, 80_000)].map(Duration::from_secs);
    let stale = Duration::from_secs(chance.seconds(1, 2_000));
    let mode = [RefreshMode::OnDemand, RefreshMode::WhileInUse, RefreshMode::Always][chance.index(3)];
    let life = chance.seconds(30, 3_600);
    let registry_seed = chance.below(u64::MAX);
    let up = HashMap::from([(SOURCE, chance.percent(80)), (MIRROR, chance.percent(80))]);
    let scene = Scene {
        clock: clock.clone(),
        up,
        up_since: clock.now(),
        answered_at: None,
        chance,
        life,
        in_air: 0,
        broken: None,
    };
    let wire = Wire(Arc::new(Mutex::new(scene)));
    let registry =
        Registry::builder().clock(clock.clone()).fetcher(Arc::new(wire.clone())).seed(registry_seed).build();
    for tenant in 0..tenants {
        let admitted = registry.register(registration(tenant, trust, stale, mode)).await;
        admitted.map_err(|error| format!("a sound registration was refused: {error}"))?;
    }
    let known = (0..tenants).map(|_| Tenant::default()).collect();
    let mut heard = Heard { known, events: registry.subscribe(), until: clock.now(), turns: 0 };
    let mut met = Outages::default();
    let mut turn_at = [clock.now(); 2];
    while clock.passed() < LASTS {
        {
            let mut scene = wire.lock();
            for (turn, host) in turn_at.iter_mut().zip([SOURCE, MIRROR]) {
                if clock.now() >= *turn {
                    let up = !scene.up[host];
                    scene.up.insert(host, up);
                    if up && host == SOURCE {
                        scene.up_since = clock.now();
                    }
                    let most = if scene.chance.percent(20) { 100_000 } else { 4_000 };
                    *turn = clock.now() + Duration::from_secs(scene.chance.seconds(5, most));
                }
            }
        }
        for tenant in 0..tenants {
            look(&registry, &wire, tenant, &mut heard, trust, stale, &mut met).await?;
        }
        if let Some(broken) = wire.lock().broken.take() {
            return Err(broken);
        }
        let pause = wire.lock().chance.millis(1_000, 60_000);
        tokio::time::sleep(pause).await;
    }
    Ok(Outages { turns: heard.turns, ..met })
}

/// One read, held against the laws.
async fn look(
    registry: &Registry,
    wire: &Wire,
    tenant: usize,
    heard: &mut Heard,
    trust: [Duration; 2],
    stale: Duration,
    met: &mut Outages,
) -> Result<(), String> {
    let clock = wire.lock().clock.clone();
    let name = format!("tenant-{tenant}");
    heard.listen(&wire.lock())?;
    // A reader who brings the turn about may have the keys of before.
    let before = heard.known.get(tenant).copied().unwrap_or_default();
    let asked_at = clock.now();
    let got = registry.resolve(&name, "main", None).await;
    let now = clock.now();
    let status = registry.provider_status(&name, "main").await.map_err(|error| error.to_string())?;
    let blame = |what: String| Err(format!("tenant {tenant}, {:?} in: {what}", clock.passed()));
    if now.since(asked_at) > Duration::from_secs(8) {
        return blame(format!("a read of {:?}", now.since(asked_at)));
    }
    heard.listen(&wire.lock())?;
    let Some(known) = heard.known.get_mut(tenant) else { return blame("nobody".into()) };
    let Ok(set) = got else {
        // The text always works: nothing answers only when it has served as long as it may.
        met.unanswered += 1;
        let slack = Duration::from_secs(70);
        let spent = known.since[1].is_some_and(|since| now + slack >= since + trust[1]);
        return if spent { Ok(()) } else { blame("no keys, although a fallback may serve".into()) };
    };
    let of = set.keys.first().and_then(|key| match &key.algorithm {
        jwks_cache::jsonwebtoken::jwk::AlgorithmParameters::OctetKeyPair(pair) => material_of_x(&pair.x),
        _ => None,
    });
    let Some(owner) = of.map(owner) else { return blame("a key that nobody publishes".into()) };
    if owner == OWNERS[0] {
        if known.on_fallback.is_some() && before.on_fallback.is_some() {
            return blame("keys of the source, although a fallback is told to serve".into());
        }
        let expires = status.expires_at.map(|at| (at - clock.wall()).num_milliseconds());
        if matches!(status.serving, Some(ServingSource::Primary))
            && let Some(left) = expires
        {
            let stale_ms = i64::try_from(stale.as_millis()).unwrap_or(i64::MAX);
            let left = u64::try_from(left + stale_ms).unwrap_or(0);
            known.own_until = Some(now + Duration::from_millis(left));
        }
        return Ok(());
    }
    let index = owner - 1;
    if owner == OWNERS[1] {
        met.by_mirror += 1
    } else {
        met.by_text += 1
    }
    if known.own_until.is_some_and(|until| now + Duration::from_millis(5) < until) {
        return blame(format!("fallback {index}, although keys of the source may be served"));
    }
    let Some(since) = known.since[index].or(before.since[index]) else {
        return blame(format!("keys of fallback {index}, although the source is told to serve"));
    };
    if asked_at >= since + trust[index] {
        return blame(format!(
            "fallback {index} for {:?}, and {:?} is its limit",
            now.since(since),
            trust[index]
        ));
    }
    let scene = wire.lock();
    if scene.up[SOURCE] && now.since(scene.up_since) > WAY_BACK {
        return blame(format!(
            "fallback {index}, although the source is up for {:?}",
            now.since(scene.up_since)
        ));
    }
    Ok(())
}
