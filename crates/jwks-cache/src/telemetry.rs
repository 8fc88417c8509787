//! What is counted. Reads count into lines of their thread; a tick forwards to the recorder.

#[cfg(feature = "metrics")]
mod recorder;
#[cfg(not(feature = "metrics"))]
#[path = "telemetry/off.rs"]
mod recorder;

use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, AtomicU64};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

#[cfg(feature = "metrics")]
pub(crate) use recorder::Flights;
use recorder::Recorder;

/// How far the recorder may lag behind.
pub(crate) const FLUSH_EVERY: Duration = Duration::from_secs(1);

/// The buckets of what flights took, in seconds: from 5 ms, a fetch nearby, to 10 s, beyond the default deadline of one.
#[cfg(feature = "metrics")]
pub(crate) const FLIGHT_SECONDS: [f64; 10] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 3.0, 10.0];

const STRIPES: usize = 16;

/// The last stripe is for all threads that found no stripe of their own.
const SHARED: usize = STRIPES - 1;

/// What lookups count that were answered from what was held. It only grows.
#[derive(Debug, Default)]
pub(crate) struct Hits {
    /// Written on every hit; had at the first.
    stripes: OnceLock<Arc<Stripes>>,
    /// Which tally in each of them is its own; known before they are.
    tally: AtomicU8,
    /// Something was counted, here or elsewhere, that the recorder does not know yet.
    unflushed: AtomicBool,
}

/// The other counters of one provider. They only grow.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// The tick looks at this provider.
    enlisted: AtomicBool,
    /// The last tick told the recorder.
    told: AtomicBool,
    misses: AtomicU64,
    /// Flights that brought a document.
    brought: AtomicU64,
    not_modified: AtomicU64,
    pub(crate) requests_sent: AtomicU64,
    pub(crate) adopted: AtomicU64,
    last_refresh_micros: AtomicU64,
    /// Allocated at the first.
    rare: OnceLock<Box<RareCounters>>,
    recorder: Recorder,
}

/// What most providers never count.
#[derive(Debug, Default)]
pub(crate) struct RareCounters {
    failed: AtomicU64,
    refresh_errors: AtomicU64,
    pub(crate) kids_known_missing: AtomicU64,
    pub(crate) kids_waited_for: AtomicU64,
    pub(crate) kids_not_asked_for: AtomicU64,
    pub(crate) kid_fetches: AtomicU64,
    pub(crate) lost_flights: AtomicU64,
    pub(crate) refused_addresses: AtomicU64,
    pub(crate) pin_mismatches: AtomicU64,
    pub(crate) old_credentials_kept: AtomicU64,
    pub(crate) stored: StoreCounters,
}

/// What was done with stores.
#[derive(Debug, Default)]
pub(crate) struct StoreCounters {
    pub(crate) saved: AtomicU64,
    pub(crate) superseded: AtomicU64,
    pub(crate) loaded: AtomicU64,
    pub(crate) absent: AtomicU64,
    pub(crate) failed: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) set_aside: AtomicU64,
}

/// A number that is told, to the recorder and in the status.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Told {
    /// The name is API.
    pub(crate) name: &'static str,
    /// A label besides tenant and provider.
    pub(crate) label: Option<(&'static str, &'static str)>,
    pub(crate) value: Value,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Value {
    Counter(u64),
    /// `None` while there is nothing to measure.
    Gauge(Option<f64>),
}

/// How a flight ended, as its metrics label it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FlightStatus {
    Success,
    NotModified,
    Error,
}

impl FlightStatus {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::NotModified => "not_modified",
            Self::Error => "error",
        }
    }
}

/// One for each thread.
type Stripes = [Stripe; STRIPES];

/// Two lines of memory, as processors fetch them in pairs, with tallies of as many providers as fit: of many providers, each
/// line comes from far away.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Stripe([Tally; TALLIES]);

const TALLIES: usize = 8;

#[derive(Debug, Default)]
struct Tally {
    hits: AtomicU64,
    stale: AtomicU64,
}

/// Stripes with tallies for more providers, and the first of those.
static FREE: Mutex<Option<(Arc<Stripes>, u8)>> = Mutex::new(None);

/// The counters at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) requests: u64,
    pub(crate) hits: u64,
    pub(crate) stale: u64,
    pub(crate) misses: u64,
    pub(crate) failed: u64,
    pub(crate) refresh_successes: u64,
    pub(crate) not_modified: u64,
    pub(crate) refresh_errors: u64,
    pub(crate) last_refresh_micros: Option<u64>,
}

impl Hits {
    /// No tick asks for what is counted here.
    #[cfg(feature = "metrics")]
    pub(crate) fn unrecorded() -> Self {
        // Marked as it is for good, nobody marks it.
        Self { unflushed: AtomicBool::new(true), ..Self::default() }
    }

    /// Counts an answer from what is held.
    pub(crate) fn hit(&self, stale: bool) {
        let seat = Seat::mine();
        let stripes = self.stripes.get_or_init(|| self.take_tallies());
        let tally = self.tally_in(&stripes[seat.min(SHARED)]);
        let count = |counter: &AtomicU64| {
            if seat < SHARED {
                // Nobody else writes it: without a locked instruction, which costs more than all else here.
                counter.store(counter.load(Relaxed).wrapping_add(1), Relaxed);
            } else {
                counter.fetch_add(1, Relaxed);
            }
        };
        count(&tally.hits);
        if stale {
            count(&tally.stale);
        }
        self.mark();
    }

    /// Finds tallies that no other provider has.
    #[cold]
    fn take_tallies(&self) -> Arc<Stripes> {
        let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
        let (stripes, tally) = free.take().unwrap_or_default();
        self.tally.store(tally, Relaxed);
        if usize::from(tally) + 1 < TALLIES {
            *free = Some((stripes.clone(), tally + 1));
        }
        stripes
    }

    fn tally_in<'s>(&self, stripe: &'s Stripe) -> &'s Tally {
        &stripe.0[usize::from(self.tally.load(Relaxed)) % TALLIES]
    }

    /// Has the tick tell what was counted. Written once a tick, so that readers share a line they only load.
    pub(crate) fn mark(&self) {
        if cfg!(feature = "metrics") && !self.unflushed.load(Relaxed) {
            self.unflushed.store(true, Relaxed);
        }
    }

    /// Answers, and those of them that were stale.
    fn counts(&self) -> (u64, u64) {
        let sum = |of: fn(&Tally) -> &AtomicU64| {
            self.stripes.get().map_or(0, |stripes| {
                stripes.iter().map(|stripe| of(self.tally_in(stripe)).load(Relaxed)).sum()
            })
        };
        (sum(|tally| &tally.hits), sum(|tally| &tally.stale))
    }
}

impl Counters {
    /// Counters of which no recorder is told: what else would be told it alone is kept here.
    #[cfg(feature = "metrics")]
    pub(crate) fn unrecorded() -> Self {
        // Enlisted as it is for good, no tick looks at it.
        Self { enlisted: AtomicBool::new(true), recorder: Recorder::here(), ..Self::default() }
    }

    /// What no counter here has, but its recorder; nothing while one is told.
    #[cfg(feature = "metrics")]
    pub(crate) fn flights(&self) -> Option<Flights> {
        self.recorder.flights()
    }

    /// Counts a lookup that waited for keys.
    pub(crate) fn miss(&self) {
        self.misses.fetch_add(1, Relaxed);
    }

    /// Counts a lookup that brought nothing.
    pub(crate) fn failure(&self) {
        self.rare().failed.fetch_add(1, Relaxed);
    }

    /// To count something rare.
    pub(crate) fn rare(&self) -> &RareCounters {
        self.rare.get_or_init(Box::default)
    }

    pub(crate) fn count_of(&self, of: fn(&RareCounters) -> &AtomicU64) -> u64 {
        self.rare.get().map_or(0, |rare| of(rare).load(Relaxed))
    }

    /// `true` once, for whoever has the tick look at this provider from now on.
    pub(crate) fn enlists(&self) -> bool {
        cfg!(feature = "metrics") && !self.enlisted.swap(true, Relaxed)
    }

    /// Whether the recorder may not know everything; asking takes the mark away. For the tick alone. `true` once more on
    /// the tick after: a reader may have seen the mark before it was taken and yet be counted after the tick had looked.
    pub(crate) fn wants_flush(&self, hits: &Hits) -> bool {
        let marked = hits.unflushed.load(Relaxed) && hits.unflushed.swap(false, Relaxed);
        let told = self.told.load(Relaxed);
        if marked != told {
            self.told.store(marked, Relaxed);
        }
        marked || told
    }

    pub(crate) fn counts(&self, hits: &Hits) -> Counts {
        let (hits, stale) = hits.counts();
        let (misses, failed) = (self.misses.load(Relaxed), self.count_of(|rare| &rare.failed));
        let micros = self.last_refresh_micros.load(Relaxed);
        let not_modified = self.not_modified.load(Relaxed);
        Counts {
            requests: hits + misses + failed,
            hits,
            stale,
            misses,
            failed,
            refresh_successes: self.brought.load(Relaxed) + not_modified,
            not_modified,
            refresh_errors: self.count_of(|rare| &rare.refresh_errors),
            last_refresh_micros: (micros > 0).then_some(micros),
        }
    }

    /// Tells the recorder. The list always begins with the same numbers in the same order.
    pub(crate) fn flush(&self, tenant: &str, provider: &str, told: impl FnOnce() -> Vec<Told>) {
        self.recorder.flush(tenant, provider, told);
    }

    /// Counts a finished flight.
    pub(crate) fn landed(&self, tenant: &str, provider: &str, status: FlightStatus, took: Duration) {
        if status == FlightStatus::Error {
            self.rare().refresh_errors.fetch_add(1, Relaxed);
        } else {
            let of = if status == FlightStatus::NotModified { &self.not_modified } else { &self.brought };
            of.fetch_add(1, Relaxed);
            let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
            // 0 stands for "never".
            self.last_refresh_micros.store(micros.max(1), Relaxed);
        }
        self.recorder.took(tenant, provider, took);
    }

    /// Records an answer of the provider.
    pub(crate) fn answered(&self, tenant: &str, provider: &str, code: u16) {
        self.recorder.answered(tenant, provider, code);
    }
}

/// A count as recorders and status have it.
#[expect(clippy::cast_precision_loss, reason = "a number for people; exact below 2^53")]
pub(crate) fn number(count: u64) -> f64 {
    count as f64
}

impl Counts {
    /// The share of lookups answered from what was held; 0 before the first.
    pub(crate) fn hit_rate(&self) -> f64 {
        ratio(self.hits, self.requests)
    }

    /// The share of lookups answered with expired keys; 0 before the first.
    pub(crate) fn stale_ratio(&self) -> f64 {
        ratio(self.stale, self.requests)
    }
}

pub(crate) fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { number(part) / number(whole) }
}

/// A thread's right to be the only one that writes its stripe, in the counters of all providers.
struct Seat(usize);

/// Bit n is set while a thread has seat n.
static SEATS: AtomicU16 = AtomicU16::new(0);

impl Seat {
    fn take() -> Self {
        // Acquire: what the seat's last holder counted is counted on from.
        let taken = SEATS.fetch_update(AcqRel, Acquire, |taken| {
            let free = taken.trailing_ones();
            ((free as usize) < SHARED).then_some(taken | 1 << free)
        });
        Self(taken.map_or(SHARED, |before| before.trailing_ones() as usize))
    }

    /// This thread's, or the shared one.
    fn mine() -> usize {
        thread_local! {
            static MINE: Seat = Seat::take();
        }
        // During a thread's end its locals are gone.
        MINE.try_with(|seat| seat.0).unwrap_or(SHARED)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if self.0 < SHARED {
            SEATS.fetch_and(!(1 << self.0), Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(feature = "metrics")]
    fn the_tick_looks_once_more_for_who_counted_while_it_told() {
        let (hits, counters) = (Hits::default(), Counters::default());
        assert!(!counters.wants_flush(&hits));
        hits.hit(false);
        assert_eq!([(); 3].map(|()| counters.wants_flush(&hits)), [true, true, false]);
    }

    #[test]
    fn no_hit_is_lost_however_many_threads_count_and_go() {
        let hits = Hits::default();
        for _ in 0..20 {
            std::thread::scope(|scope| {
                for _ in 0..3 * STRIPES {
                    scope.spawn(|| (0..1_000).for_each(|n| hits.hit(n % 10 == 0)));
                }
            });
        }
        let all = 20 * 3 * STRIPES as u64 * 1_000;
        assert_eq!(hits.counts(), (all, all / 10));
    }

    #[test]
    fn providers_that_share_a_line_count_apart() {
        let all: [Hits; 3 * TALLIES] = Default::default();
        for (times, hits) in (1..).zip(&all) {
            (0..times).for_each(|_| hits.hit(true));
        }
        let counted: Vec<_> = all.iter().map(Hits::counts).collect();
        assert_eq!(counted, (1..=all.len() as u64).map(|times| (times, times)).collect::<Vec<_>>());
    }

    #[test]
    fn a_thread_that_ends_leaves_its_seat() {
        let seat = || std::thread::spawn(Seat::mine).join().expect("it does not panic");
        // Other tests take and leave seats meanwhile, but not all of them for good.
        assert!((0..1_000).any(|_| seat() < SHARED));
    }
}
