//! The one place that reads a clock or seeds dice.
//!
//! Policy time (lifetimes, windows, backoff) comes from the injected [`Clock`]; what a caller or a
//! socket waits is tokio time, which nobody scales.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, SystemTime};

use chrono::{DateTime, Utc};
use jwks_cache_core::Moment;

/// A boxed future, as [`Clock::sleep_until`] returns it.
pub type Sleep = Pin<Box<dyn Future<Output = ()> + Send + 'static>>;

/// The source of all policy time of a registry.
///
/// Production uses [`SystemClock`]. Tests hand in a clock that they drive or scale; the testkit has one.
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// The moment now, on a clock that never goes back and counts suspended time. It starts decades after
    /// its origin, so that what is older than the clock has a moment too.
    fn now(&self) -> Moment;

    /// The moment now as reads take it: cheap, and behind [`Clock::now`] by a few milliseconds, or by a
    /// second right after the machine was suspended. Default [`Clock::now`].
    fn coarse_now(&self) -> Moment {
        self.now()
    }

    /// The wall time now, for HTTP dates, status and snapshots only.
    fn wall(&self) -> DateTime<Utc>;

    /// The wall time as tokens are judged by it, in milliseconds since 1970: cheap, and behind [`Clock::wall`] by a few.
    /// Default that.
    fn coarse_wall(&self) -> i64 {
        self.wall().timestamp_millis()
    }

    /// Completes once [`Clock::now`] has reached `moment`. May complete early, never much too late.
    fn sleep_until(&self, moment: Moment) -> Sleep;
}

/// The machine's clock: boot time, which no one can set and which counts suspended time.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

/// Moments start here, so that a snapshot older than the machine's boot still has a moment.
const BEFORE_BOOT: Duration = Duration::from_secs(50 * 365 * 86_400);

/// The longest single sleep: tokio's timers do not count suspended time, so a long one is cut.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

impl Clock for SystemClock {
    fn now(&self) -> Moment {
        Moment::ORIGIN + BEFORE_BOOT + since_boot()
    }

    #[cfg(target_os = "linux")]
    fn coarse_now(&self) -> Moment {
        const BEFORE_BOOT_NANOS: u64 = BEFORE_BOOT.as_secs() * 1_000_000_000;
        Moment::from_nanos(BEFORE_BOOT_NANOS.saturating_add(coarse::nanos_since_boot()))
    }

    fn wall(&self) -> DateTime<Utc> {
        #[expect(clippy::disallowed_methods, reason = "the clock's own room")]
        let now = SystemTime::now();
        now.into()
    }

    #[cfg(target_os = "linux")]
    fn coarse_wall(&self) -> i64 {
        coarse::millis_since_1970()
    }

    fn sleep_until(&self, moment: Moment) -> Sleep {
        let wait = moment.since(self.now()).min(LONGEST_SLEEP);
        Box::pin(tokio::time::sleep(wait))
    }
}

/// Boot time and wall time at the price of the kernel's last tick.
///
/// There is no coarse boot clock, so boot time is the coarse monotonic clock plus the time the machine was
/// suspended, which is looked up once a second.
#[cfg(target_os = "linux")]
mod coarse {
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

    use rustix::time::{ClockId, clock_gettime};

    const SECOND: u64 = 1_000_000_000;

    static SUSPENDED: AtomicU64 = AtomicU64::new(0);
    static LOOK_UP_AT: AtomicU64 = AtomicU64::new(0);

    pub(super) fn nanos_since_boot() -> u64 {
        let running = nanos(ClockId::MonotonicCoarse);
        if running >= LOOK_UP_AT.load(Relaxed) {
            // Several threads may do this at once; they store the same.
            let suspended = nanos(ClockId::Boottime).saturating_sub(nanos(ClockId::Monotonic));
            SUSPENDED.store(suspended, Relaxed);
            LOOK_UP_AT.store(running + SECOND, Relaxed);
        }
        running + SUSPENDED.load(Relaxed)
    }

    pub(super) fn millis_since_1970() -> i64 {
        let now = clock_gettime(ClockId::RealtimeCoarse);
        now.tv_sec.saturating_mul(1000).saturating_add(now.tv_nsec / 1_000_000)
    }

    fn nanos(clock: ClockId) -> u64 {
        let now = clock_gettime(clock);
        u64::try_from(now.tv_sec).unwrap_or(0) * SECOND + u64::try_from(now.tv_nsec).unwrap_or(0)
    }
}

#[cfg(unix)]
fn since_boot() -> Duration {
    #[cfg(target_os = "linux")]
    const CLOCK: rustix::time::ClockId = rustix::time::ClockId::Boottime;
    // Elsewhere the monotonic clock of POSIX counts suspended time already, or nothing does.
    #[cfg(not(target_os = "linux"))]
    const CLOCK: rustix::time::ClockId = rustix::time::ClockId::Monotonic;
    let now = rustix::time::clock_gettime(CLOCK);
    Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0))
}

#[cfg(not(unix))]
fn since_boot() -> Duration {
    use std::sync::OnceLock;
    use std::time::Instant;
    static FIRST: OnceLock<Instant> = OnceLock::new();
    #[expect(clippy::disallowed_methods, reason = "the clock's own room")]
    let now = Instant::now();
    now.duration_since(*FIRST.get_or_init(|| now))
}

/// Socket time: deadlines and waits that no one scales.
pub(crate) fn socket_now() -> tokio::time::Instant {
    #[expect(clippy::disallowed_methods, reason = "the clock's own room")]
    tokio::time::Instant::now()
}

/// `span` after `instant`. Settings have no upper bound, instants have: a century stands for ever.
pub(crate) fn later(instant: tokio::time::Instant, span: Duration) -> tokio::time::Instant {
    const CENTURY: Duration = Duration::from_secs(100 * 365 * 86_400);
    instant + span.min(CENTURY)
}

/// Dice, seeded by the operating system, or by a simulation.
pub(crate) fn seeded_dice(seed: Option<u64>) -> fastrand::Rng {
    #[expect(clippy::disallowed_methods, reason = "the clock's own room")]
    seed.map_or_else(fastrand::Rng::new, fastrand::Rng::with_seed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coarse_times_follow_the_exact_ones() {
        let (before, coarse) = (SystemClock.wall().timestamp_millis(), SystemClock.coarse_wall());
        assert!(coarse <= SystemClock.wall().timestamp_millis() && coarse + 50 >= before);
        let before = SystemClock.now();
        let coarse = SystemClock.coarse_now();
        // A tick of the kernel is 10 ms at most; two clocks are read one after the other.
        assert!(coarse <= SystemClock.now() && coarse + Duration::from_millis(50) >= before);
    }
}
