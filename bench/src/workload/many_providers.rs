//! W7: the memory, files and time of many providers, and how their refreshes spread.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use jwks_cache_testkit::{Algorithm, ManualClock};
use ours::{Clock, Fetch, FetchRequest, Fetched, Fetching, Timing};
use tokio::task::JoinSet;

use super::alone;
use crate::contender::Kind;
use crate::counting::{self, Heap};
use crate::report::{Cell, Table};
use crate::upstream::{KEYS, Upstream, document, kid};

const MANY: usize = 10_000;
const IDLE: usize = 100_000;
/// Callers at once.
const CROWD: usize = 64;

fn tenant(number: usize) -> String {
    format!("tenant-{number:05}")
}

/// What a contender's providers cost, registered, resolved, and after every key was used.
struct Seen {
    heap: [Option<f64>; 3],
    files: usize,
    threads: usize,
    registering: Duration,
    resolving: Duration,
}

pub(super) fn run_in_use(_cap: Duration) -> Table {
    let upstream = Arc::new(Upstream::start());
    let ours = alone(ours_in_use(upstream.clone()));
    let theirs = alone(theirs_in_use(upstream.clone()));
    let title = "10,000 providers, each with a set of 4 RSA keys (1.8 kB) of its own, 64 callers";
    let mut table = Table::with_columns("W7a", title, [Kind::Ours.name(), Kind::Predecessor.name()]);
    let both = |of: fn(&Seen) -> Cell| [of(&ours), of(&theirs)];
    let within = |stage: usize, most: f64| ours.heap[stage].is_some_and(|bytes| bytes <= most);
    table.judge("heap a provider, registered", both(|of| kilobytes(of.heap[0])), "≤ 2 kB", within(0, 2e3));
    table.judge("… resolved", [kilobytes(ours.heap[1]), kilobytes(theirs.heap[1])], "≤ 8 kB", within(1, 8e3));
    table.judge("… every key used", [kilobytes(ours.heap[2]), Cell::None], "≤ 14 kB", within(2, 14e3));
    table.judge("files opened", both(|of| of.files.into()), "≤ 128", ours.files <= 128);
    table.tell("threads", both(|of| of.threads.into()));
    let quick = ours.registering <= Duration::from_millis(100);
    table.judge("registering all", both(|of| Cell::Time(of.registering)), "≤ 0.1 s", quick);
    let quick = ours.resolving <= Duration::from_millis(600);
    table.judge("resolving all", both(|of| Cell::Time(of.resolving)), "≤ 0.6 s", quick);
    table
}

fn kilobytes(bytes: Option<f64>) -> Cell {
    bytes.map_or(Cell::None, Cell::Kilobytes)
}

async fn ours_in_use(upstream: Arc<Upstream>) -> Seen {
    let registry = ours::Registry::builder().require_https(false).build();
    let register = |n: usize| {
        let made = ours::IdentityProviderRegistration::new(tenant(n), "main", upstream.url(n));
        let (registry, registration) = (registry.clone(), made.expect("the URL parses"));
        async move { registry.register(registration).await.expect("the registration is valid") }
    };
    // The client's own memory and the machine's roots are not a provider's.
    register(MANY).await;
    resolve(registry.clone(), MANY).await;
    let (files, heap) = (files(), Heap::watch());
    let per_provider = || Some(heap.live() / MANY as f64);
    let start = Instant::now();
    for n in 0..MANY {
        register(n).await;
    }
    let registering = start.elapsed();
    let registered = per_provider();
    let start = Instant::now();
    in_crowd(|n| resolve(registry.clone(), n)).await;
    let resolving = start.elapsed();
    let files = self::files().saturating_sub(files);
    settle().await;
    let resolved = per_provider();
    // Parsed keys are the C library's, which our allocator does not see.
    let malloced = counting::malloced();
    let (input, signature) = ([0; 64], [1; 256]);
    for n in 0..MANY {
        for key in 0..KEYS {
            let found = registry.key(&tenant(n), "main", Some(&kid(n, key)), Algorithm::RS256).await;
            let verified = found.expect("the key is held").verify(&input, &signature);
            assert!(verified.is_err(), "nobody can sign for these keys");
        }
    }
    let used = resolved.map(|bytes| bytes + (counting::malloced() - malloced) / MANY as f64);
    Seen { heap: [registered, resolved, used], files, threads: threads(), registering, resolving }
}

async fn resolve(registry: ours::Registry, n: usize) {
    registry.resolve(&tenant(n), "main", None).await.expect("upstream is up");
}

async fn theirs_in_use(upstream: Arc<Upstream>) -> Seen {
    let registry = predecessor::Registry::builder().require_https(false).build();
    let (files, heap) = (files(), Heap::watch());
    let per_provider = || Some(heap.live() / MANY as f64);
    let start = Instant::now();
    for n in 0..MANY {
        let made = predecessor::IdentityProviderRegistration::new(tenant(n), "main", upstream.url(n));
        let registration = made.expect("the URL parses").with_require_https(false);
        registry.register(registration).await.expect("the registration is valid");
    }
    let registering = start.elapsed();
    let registered = per_provider();
    let start = Instant::now();
    in_crowd(|n| {
        let registry = registry.clone();
        async move {
            registry.resolve(&tenant(n), "main", None).await.expect("upstream is up");
        }
    })
    .await;
    let resolving = start.elapsed();
    let files = self::files().saturating_sub(files);
    settle().await;
    Seen { heap: [registered, per_provider(), None], files, threads: threads(), registering, resolving }
}

/// Does something for each provider, so many at a time.
async fn in_crowd<F: Future<Output = ()> + Send + 'static>(visit: impl Fn(usize) -> F) {
    let mut running = JoinSet::new();
    for n in 0..MANY {
        if running.len() == CROWD {
            running.join_next().await;
        }
        running.spawn(visit(n));
    }
    running.join_all().await;
}

/// Lets a flush of counters and whatever the last flights left behind pass.
async fn settle() {
    tokio::time::sleep(Duration::from_millis(1_500)).await;
}

/// How many files and sockets this process has open.
fn files() -> usize {
    std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count)
}

pub(super) fn run_idle(_cap: Duration) -> Table {
    let (heap, files, threads) = alone(async {
        let registry = ours::Registry::builder().require_https(false).build();
        let register = |n: usize| {
            let url = format!("https://id.example.com/{n}/jwks.json");
            let made = ours::IdentityProviderRegistration::new(tenant(n), "main", url);
            let (registry, registration) = (registry.clone(), made.expect("the URL parses"));
            async move { registry.register(registration).await.expect("the registration is valid") }
        };
        register(IDLE).await;
        let before = (Heap::watch(), files(), threads());
        for n in 0..IDLE {
            register(n).await;
        }
        let (heap, files, threads) =
            (before.0.live(), files().saturating_sub(before.1), self::threads().saturating_sub(before.2));
        (heap / IDLE as f64, files, threads)
    });
    let mut table = Table::with_columns("W7b", "100,000 idle providers", [Kind::Ours.name()]);
    table.judge("heap a provider", [Cell::Kilobytes(heap)], "≤ 2 kB", heap <= 2e3);
    table.judge("threads more", [threads], "0", threads == 0);
    table.judge("files more", [files], "0", files == 0);
    table
}

/// Answers every request at once, with a lifetime of ten minutes, and notes the second it came in.
#[derive(Debug)]
struct Counted {
    clock: ManualClock,
    start: ours::Moment,
    seconds: Vec<AtomicUsize>,
    total: AtomicUsize,
    body: String,
}

const LIFETIME: u64 = 600;

impl Counted {
    fn total(&self) -> usize {
        self.total.load(Relaxed)
    }
}

impl Fetch for Counted {
    fn fetch<'a>(&'a self, _request: &'a FetchRequest) -> Fetching<'a> {
        let now = self.clock.now();
        let second = now.since(self.start).as_secs();
        if let Some(count) = usize::try_from(second).ok().and_then(|second| self.seconds.get(second)) {
            count.fetch_add(1, Relaxed);
        }
        self.total.fetch_add(1, Relaxed);
        let timing = Timing { requested_at: now, received_at: now, received_wall: self.clock.wall() };
        let lifetime = http::HeaderValue::from(LIFETIME);
        let value = [b"max-age=", lifetime.as_bytes()].concat();
        let headers =
            [(http::header::CACHE_CONTROL, http::HeaderValue::from_bytes(&value).expect("it is ASCII"))];
        let fetched = Fetched {
            status: http::StatusCode::OK,
            headers: headers.into_iter().collect(),
            body: self.body.clone().into_bytes(),
            timing,
            requests: 1,
        };
        Box::pin(std::future::ready(Ok(fetched)))
    }
}

pub(super) fn run_refreshes(_cap: Duration) -> Table {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let seconds = runtime.expect("a runtime can be built").block_on(async {
        let clock = ManualClock::new();
        let seconds = (0..4 * LIFETIME).map(|_| AtomicUsize::new(0)).collect();
        let total = AtomicUsize::new(0);
        let fetch = Counted { clock: clock.clone(), start: clock.now(), seconds, total, body: document(0) };
        let fetch = Arc::new(fetch);
        let registry =
            ours::Registry::builder().clock(Arc::new(clock.clone())).fetcher(fetch.clone()).seed(1).build();
        for n in 0..MANY {
            let url = format!("https://id-{n}.example.com/jwks.json");
            let made = ours::IdentityProviderRegistration::new(tenant(n), "main", url);
            let mut registration = made.expect("the URL parses");
            registration.refresh_mode = ours::RefreshMode::Always;
            registry.register(registration).await.expect("the registration is valid");
        }
        registry.warm_up(Duration::from_secs(60)).await;
        for _ in 0..2 * LIFETIME {
            clock.advance(Duration::from_secs(1));
            quiet(&fetch).await;
        }
        fetch.seconds.iter().map(|count| count.load(Relaxed)).collect::<Vec<_>>()
    });
    let lifetime = LIFETIME as usize;
    let mut table = Table::with_columns(
        "W7c",
        "refreshes of 10,000 providers in mode Always, all fetched at once with a lifetime of 600 s; a second's",
        ["peak", "mean", "peak of the mean"],
    );
    for (what, seconds) in
        [("first lifetime", &seconds[1..lifetime]), ("second lifetime", &seconds[lifetime..2 * lifetime])]
    {
        let peak = seconds.iter().copied().max().unwrap_or(0);
        let mean = seconds.iter().sum::<usize>() as f64 / seconds.len() as f64;
        let cells = [Cell::Count(peak), Cell::Mean(mean), Cell::Times(peak as f64 / mean)];
        match what {
            "second lifetime" => {
                table.judge(what, cells, "≤ 2 × mean", peak as f64 <= 2.0 * mean && mean > 0.0)
            }
            _ => table.tell(what, cells),
        }
    }
    table
}

/// Waits until the woken timers have started their flights and these have landed: in a runtime of one thread,
/// nobody fetches any more when everybody who could run has run often enough.
async fn quiet(fetch: &Counted) {
    let mut fetched = fetch.total();
    let mut idle = 0;
    while idle < 20 {
        tokio::task::yield_now().await;
        let now = fetch.total();
        idle = if now == fetched { idle + 1 } else { 0 };
        fetched = now;
    }
}
