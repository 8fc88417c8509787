//! W1: one lookup of a fresh key, one thread, 1 provider and 10,000.

use std::sync::Once;
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use tracing_subscriber::EnvFilter;

use super::runtime;
use crate::counting;
use crate::reads::{LIMIT, RESOLVE, Reader, WITH_KEY, readers};
use crate::report::{Cell, Table};
use crate::upstream::Upstream;

const MANY: usize = 10_000;
/// Everybody is set up afresh so many times with one provider and with many, and the median counts: with many, most of
/// the time is how far their memory happens to lie.
const SETUPS: [usize; 2] = [3, 7];
/// Slices of all contenders follow each other; a batch gives each its median slice, and the best batch of a set-up counts.
const BATCHES: usize = 2;
const SLICES: usize = 15;
const LOOKUPS: usize = 20_000;
/// So often a contender goes through all providers before its slice: with fewer, who comes after one that fills the caches
/// pays for that.
const WARM_UP: usize = 6;
/// Allocations are counted over so many lookups, or one of each provider.
const COUNTED: usize = 1_000;

pub(super) fn run_bare(_cap: Duration) -> Table {
    run("W1a", "one lookup, keys fresh, one thread; metrics on, nothing installed")
}

pub(super) fn run_recorder(_cap: Duration) -> Table {
    install_recorder();
    run("W1b", "the same with a metrics recorder")
}

pub(super) fn run_observed(_cap: Duration) -> Table {
    install_recorder();
    install_subscriber();
    run("W1c", "the same with a metrics recorder and a subscriber at INFO")
}

pub(super) fn install_recorder() {
    ours::install_default_exporter().expect("no other recorder is installed");
}

/// At INFO, writing nowhere.
pub(super) fn install_subscriber() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let subscriber =
            tracing_subscriber::fmt().with_env_filter(EnvFilter::new("info")).with_writer(std::io::sink);
        tracing_subscriber::util::SubscriberInitExt::init(subscriber.finish());
    });
}

/// What one lookup of one contender takes.
struct Seen {
    name: &'static str,
    nanos: f64,
    /// Times the limit in the same set-up.
    times: f64,
    allocations: f64,
}

fn run(id: &'static str, title: &str) -> Table {
    let upstream = Upstream::start();
    let columns = ["1 provider", "of the limit", "allocations", "10,000", "of the limit", "allocations"];
    let mut table = Table::with_columns(id, title, columns);
    let [one, many] = [(1, SETUPS[0]), (MANY, SETUPS[1])].map(|(providers, setups)| {
        let setups: Vec<_> = (0..setups)
            .map(|_| {
                let runtime = runtime();
                let readers = runtime.block_on(readers(&upstream, providers));
                let seen = measure(&runtime, &readers, providers);
                runtime.shutdown_background();
                seen
            })
            .collect();
        medians(&setups)
    });
    for seen in &one {
        let other = many.iter().find(|other| other.name == seen.name);
        let of = |seen: Option<&Seen>| match seen {
            Some(seen) => [Cell::Nanos(seen.nanos), Cell::Times(seen.times), Cell::Mean(seen.allocations)],
            None => [Cell::None, Cell::None, Cell::None],
        };
        let [a, b, c] = of(Some(seen));
        let [d, e, f] = of(other);
        let cells = [a, b, c, d, e, f];
        let within = |most: f64| {
            [Some(seen), other]
                .into_iter()
                .flatten()
                .all(|seen| seen.times <= most && seen.allocations == 0.0)
        };
        match seen.name {
            RESOLVE => table.judge(seen.name, cells, "≤ 1.5 × limit, no allocation", within(1.5)),
            WITH_KEY => table.judge(seen.name, cells, "≤ 35/43 × limit, no allocation", within(35.0 / 43.0)),
            _ => table.tell(seen.name, cells),
        }
    }
    table
}

/// The median of what each contender took, and the most that it allocated.
fn medians(setups: &[Vec<Seen>]) -> Vec<Seen> {
    let of = |at: usize| {
        let median = |field: fn(&Seen) -> f64| {
            let mut of: Vec<_> = setups.iter().map(|seen| field(&seen[at])).collect();
            of.sort_by(f64::total_cmp);
            of[of.len() / 2]
        };
        Seen {
            name: setups[0][at].name,
            nanos: median(|it| it.nanos),
            times: median(|it| it.times),
            allocations: setups.iter().map(|seen| seen[at].allocations).fold(0.0, f64::max),
        }
    };
    (0..setups[0].len()).map(of).collect()
}

fn measure(runtime: &Runtime, readers: &[Reader], warm_up: usize) -> Vec<Seen> {
    let mut best = vec![f64::INFINITY; readers.len()];
    for _ in 0..BATCHES {
        let mut slices = vec![Vec::with_capacity(SLICES); readers.len()];
        for slice in 0..SLICES {
            for (reader, times) in readers.iter().zip(&mut slices) {
                let (warm_up, lookups) =
                    (reader.lookups(0, WARM_UP * warm_up), reader.lookups(slice * LOOKUPS, LOOKUPS));
                times.push(runtime.block_on(async {
                    // What the others pushed out of the caches comes back first.
                    warm_up.await;
                    let start = Instant::now();
                    lookups.await;
                    start.elapsed().as_secs_f64() * 1e9 / LOOKUPS as f64
                }));
            }
        }
        for (best, times) in best.iter_mut().zip(&mut slices) {
            times.sort_by(f64::total_cmp);
            *best = best.min(times[SLICES / 2]);
        }
    }
    let limit = readers.iter().zip(&best).find(|(reader, _)| reader.name == LIMIT);
    let limit = limit.map_or(f64::NAN, |(_, nanos)| *nanos);
    let lookups = COUNTED.max(warm_up);
    let seen = readers.iter().zip(best).map(|(reader, nanos)| {
        let looked = reader.lookups(0, lookups);
        let counted = counting::allocations(|| runtime.block_on(looked));
        Seen { name: reader.name, nanos, times: nanos / limit, allocations: counted as f64 / lookups as f64 }
    });
    seen.collect()
}
