//! W7: the memory, files and time of many providers, and how their refreshes spread.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use jwks_cache_testkit::{Algorithm, ManualClock};
use ours::{Clock, Fetch, FetchRequest, Fetched, Fetching, Timing};

use super::alone;
use crate::contender::Kind;
use crate::counting::{self, Heap};
use crate::registries::{PROVIDER, Registry, add_all, fetch_all, tenant};
use crate::report::{Cell, Table};
use crate::upstream::{KEYS, Upstream, document, kid};

const MANY: usize = 10_000;
const IDLE: usize = 100_000;
/// Times are the median of so many: what neighbours and the kernel's placing of threads leave of the machine makes some
/// set-ups almost twice as slow, whoever is measured.
const SET_UPS: usize = 9;

/// How long registering and resolving all takes, with an upstream and a runtime of its own and while nothing is counted:
/// counters that all threads write would be most of what is measured.
fn time<R: Registry>() -> [Duration; 2] {
    let upstream = Upstream::start();
    alone(async {
        let registry = R::start();
        let start = Instant::now();
        add_all(&registry, &upstream, MANY).await;
        let registering = start.elapsed();
        let start = Instant::now();
        fetch_all(&registry, MANY).await;
        [registering, start.elapsed()]
    })
}

/// The median of each step, and the slowest resolving.
fn of_set_ups(seen: &[[Duration; 2]]) -> [Duration; 3] {
    let sorted = |step: usize| {
        let mut of: Vec<Duration> = seen.iter().map(|both| both[step]).collect();
        of.sort_unstable();
        of
    };
    let (registering, resolving) = (sorted(0), sorted(1));
    [registering[SET_UPS / 2], resolving[SET_UPS / 2], resolving[SET_UPS - 1]]
}

/// What a contender's providers hold, registered, resolved, and after every key was used.
struct Held {
    heap: [Option<f64>; 3],
    files: usize,
    threads: usize,
}

async fn held<R: Registry>(registry: &R, upstream: &Upstream) -> Held {
    // The client's own memory and the machine's roots are not a provider's.
    registry.add(MANY, upstream.url(MANY)).await;
    registry.fetch(MANY).await;
    let (files, heap) = (files(), Heap::watch());
    add_all(registry, upstream, MANY).await;
    let registered = heap.live() / MANY as f64;
    fetch_all(registry, MANY).await;
    let files = self::files().saturating_sub(files);
    settle().await;
    let resolved = heap.live() / MANY as f64;
    Held { heap: [Some(registered), Some(resolved), None], files, threads: threads() }
}

/// With every key used, which only ours can.
async fn ours_held() -> Held {
    let (registry, upstream) = (<ours::Registry as Registry>::start(), Upstream::start());
    let mut seen = held(&registry, &upstream).await;
    // Parsed keys are the C library's, which our allocator does not see.
    let malloced = counting::malloced();
    let (input, signature) = ([0; 64], [1; 256]);
    for n in 0..MANY {
        for key in 0..KEYS {
            let found = registry.key(&tenant(n), PROVIDER, Some(&kid(n, key)), Algorithm::RS256).await;
            let verified = found.expect("the key is held").verify(&input, &signature);
            assert!(verified.is_err(), "nobody can sign for these keys");
        }
    }
    seen.heap[2] = seen.heap[1].map(|bytes| bytes + (counting::malloced() - malloced) / MANY as f64);
    seen
}

async fn theirs_held() -> Held {
    held(&<predecessor::Registry as Registry>::start(), &Upstream::start()).await
}

pub(super) fn run_in_use(_cap: Duration) -> Table {
    let (ours, theirs) = (alone(ours_held()), alone(theirs_held()));
    let title = "10,000 providers, each with a set of 4 RSA keys (1.8 kB) of its own, 64 callers";
    let mut table = Table::with_columns("W7a", title, [Kind::Ours.name(), Kind::Predecessor.name()]);
    let both = |of: fn(&Held) -> Cell| [of(&ours), of(&theirs)];
    let within = |stage: usize, most: f64| ours.heap[stage].is_some_and(|bytes| bytes <= most);
    table.judge("heap a provider, registered", both(|of| kilobytes(of.heap[0])), "≤ 2 kB", within(0, 2e3));
    table.judge("… resolved", both(|of| kilobytes(of.heap[1])), "≤ 8 kB", within(1, 8e3));
    table.judge("… every key used", both(|of| kilobytes(of.heap[2])), "≤ 14 kB", within(2, 14e3));
    table.judge("files opened", both(|of| of.files.into()), "≤ 128", ours.files <= 128);
    table.tell("threads", both(|of| of.threads.into()));
    // In turn.
    let (ours, theirs): (Vec<_>, Vec<_>) =
        (0..SET_UPS).map(|_| (time::<ours::Registry>(), time::<predecessor::Registry>())).unzip();
    let (ours, theirs) = (of_set_ups(&ours), of_set_ups(&theirs));
    for (step, what, goal, most) in
        [(0, "registering all", "≤ 0.1 s", 100), (1, "resolving all", "≤ 0.6 s", 600)]
    {
        let cells = [ours[step], theirs[step]].map(Cell::Time);
        table.judge(what, cells, goal, ours[step] <= Duration::from_millis(most));
    }
    table.tell("… in the slowest set-up", [ours[2], theirs[2]].map(Cell::Time));
    table
}

fn kilobytes(bytes: Option<f64>) -> Cell {
    bytes.map_or(Cell::None, Cell::Kilobytes)
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

/// Processor time of this process, in steps of 10 ms.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // After the name: user and system time are the 14th and the 15th word of all.
    let words = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split(' ');
    let ticks: u64 = words.skip(12).take(2).filter_map(|word| word.parse::<u64>().ok()).sum();
    Duration::from_millis(10 * ticks)
}

pub(super) fn run_idle(_cap: Duration) -> Table {
    let (heap, files, threads, busy) = alone(async {
        let registry = <ours::Registry as Registry>::start();
        let add = |n: usize| registry.add(n, format!("https://id.example.com/{n}/jwks.json"));
        add(IDLE).await;
        let (heap, files, threads) = (Heap::watch(), files(), threads());
        for n in 0..IDLE {
            add(n).await;
        }
        let heap = heap.live() / IDLE as f64;
        let busy = cpu();
        settle().await;
        let busy = cpu() - busy;
        (heap, self::files().saturating_sub(files), self::threads().saturating_sub(threads), busy)
    });
    let mut table = Table::with_columns("W7b", "100,000 idle providers", [Kind::Ours.name()]);
    table.judge("heap a provider", [Cell::Kilobytes(heap)], "≤ 2 kB", heap <= 2e3);
    table.judge("threads more", [threads], "0", threads == 0);
    table.judge("files more", [files], "0", files == 0);
    table.tell("processor time in the 1.5 s after", [Cell::Time(busy)]);
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
