//! Clocks for tests and demonstrations: one that stands until it is told to move, one that runs faster.
//!
//! They move policy time only. What a socket or a caller waits is tokio's time, which they do not know.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use jwks_cache::{Clock, Moment, Sleep, SystemClock};
use tokio::sync::watch;

/// Where a [`ManualClock`] starts: 50 years after the origin, so that moments before the start exist too.
const START: Duration = Duration::from_secs(50 * 365 * 86_400);

/// 2026-01-01T00:00:00Z, in seconds of Unix time.
const START_WALL: i64 = 1_767_225_600;

/// A clock that stands still until [`ManualClock::advance`] moves it. Clones are the same clock.
///
/// It starts at the same moment in every test, and at the wall time 2026-01-01T00:00:00Z.
///
/// ```
/// use std::time::Duration;
/// use jwks_cache::Clock;
/// use jwks_cache_testkit::ManualClock;
///
/// let clock = ManualClock::new();
/// let start = clock.now();
/// clock.advance(Duration::from_secs(300));
/// assert_eq!(clock.now().since(start), Duration::from_secs(300));
/// assert_eq!(clock.wall().to_string(), "2026-01-01 00:05:00 UTC");
/// ```
#[derive(Clone, Debug)]
pub struct ManualClock {
    times: Arc<watch::Sender<Times>>,
}

#[derive(Clone, Copy, Debug)]
struct Times {
    now: Moment,
    wall: DateTime<Utc>,
}

impl ManualClock {
    /// A clock of its own, at the fixed start.
    #[must_use]
    pub fn new() -> Self {
        let wall = DateTime::from_timestamp(START_WALL, 0).unwrap_or_default();
        Self { times: Arc::new(watch::Sender::new(Times { now: Moment::ORIGIN + START, wall })) }
    }

    /// Moves moments and wall time on by `span`, and wakes every sleeper whose moment has come.
    ///
    /// The woken tasks have not run yet when this returns; wait for what they do, not for a while.
    pub fn advance(&self, span: Duration) {
        self.times.send_modify(|times| {
            times.now = times.now + span;
            times.wall = later(times.wall, span);
        });
    }

    /// Steps the wall time alone, as an operator or NTP does. Moments do not change, so nobody wakes.
    pub fn set_wall(&self, wall: DateTime<Utc>) {
        self.times.send_modify(|times| times.wall = wall);
    }
}

impl Default for ManualClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Moment {
        self.times.borrow().now
    }

    fn wall(&self) -> DateTime<Utc> {
        self.times.borrow().wall
    }

    fn sleep_until(&self, moment: Moment) -> Sleep {
        let times = Arc::clone(&self.times);
        Box::pin(async move {
            // The sleeper holds the sender itself, so the channel cannot close under it.
            let _ = times.subscribe().wait_for(|times| times.now >= moment).await;
        })
    }
}

/// A clock that runs a fixed factor faster than the machine's, wall time along with it.
///
/// ```
/// use jwks_cache_testkit::ScaledClock;
///
/// let clock = ScaledClock::new(60.0); // a minute of policy passes each second
/// assert_eq!(clock.factor(), 60.0);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct ScaledClock {
    factor: f64,
    start: Moment,
    start_wall: DateTime<Utc>,
}

impl ScaledClock {
    /// Starts at the machine's time and runs `factor` times as fast.
    ///
    /// The factor is held between 0.001 and 1,000,000; one that is not a number counts as 1.
    #[must_use]
    pub fn new(factor: f64) -> Self {
        let factor = if factor.is_nan() { 1.0 } else { factor.clamp(0.001, 1_000_000.0) };
        Self { factor, start: SystemClock.now(), start_wall: SystemClock.wall() }
    }

    /// How many times faster than the machine's clock this one runs.
    #[must_use]
    pub fn factor(&self) -> f64 {
        self.factor
    }

    fn passed(&self) -> Duration {
        scale(SystemClock.now().since(self.start), self.factor)
    }
}

impl Clock for ScaledClock {
    fn now(&self) -> Moment {
        self.start + self.passed()
    }

    fn wall(&self) -> DateTime<Utc> {
        later(self.start_wall, self.passed())
    }

    fn sleep_until(&self, moment: Moment) -> Sleep {
        SystemClock.sleep_until(self.start + scale(moment.since(self.start), self.factor.recip()))
    }
}

fn scale(span: Duration, factor: f64) -> Duration {
    Duration::try_from_secs_f64(span.as_secs_f64() * factor).unwrap_or(Duration::MAX)
}

fn later(wall: DateTime<Utc>, span: Duration) -> DateTime<Utc> {
    let span = TimeDelta::from_std(span).unwrap_or(TimeDelta::MAX);
    wall.checked_add_signed(span).unwrap_or(DateTime::<Utc>::MAX_UTC)
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Waker};

    use super::*;

    #[test]
    fn sleepers_wake_exactly_when_their_moment_comes() {
        let clock = ManualClock::new();
        let mut sleep = pin!(clock.sleep_until(clock.now() + Duration::from_secs(10)));
        let mut awake = || sleep.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready();
        assert!(!awake());
        clock.advance(Duration::from_nanos(9_999_999_999));
        assert!(!awake());
        clock.advance(Duration::from_nanos(1));
        assert!(awake());
    }

    #[tokio::test]
    async fn an_advance_wakes_sleepers_in_other_tasks() {
        let clock = ManualClock::new();
        let sleeper = tokio::spawn(clock.sleep_until(clock.now() + Duration::from_secs(86_400)));
        tokio::task::yield_now().await;
        assert!(!sleeper.is_finished());
        clock.clone().advance(Duration::from_secs(86_400));
        sleeper.await.unwrap();
    }

    #[test]
    fn the_wall_steps_without_the_moments() {
        let clock = ManualClock::new();
        let (now, wall) = (clock.now(), clock.wall());
        clock.set_wall(wall - TimeDelta::days(1));
        assert_eq!((clock.now(), clock.wall()), (now, wall - TimeDelta::days(1)));
        clock.advance(Duration::MAX);
        assert_eq!((clock.now(), clock.wall()), (Moment::FAR, DateTime::<Utc>::MAX_UTC));
    }

    #[tokio::test]
    async fn a_scaled_clock_runs_by_its_factor() {
        let clock = ScaledClock::new(864_000.0);
        let (real, now, wall) = (SystemClock.now(), clock.now(), clock.wall());
        let tomorrow = now + Duration::from_secs(86_400);
        while clock.now() < tomorrow {
            clock.sleep_until(tomorrow).await;
        }
        // At this factor a day takes 100 ms, less what passed between the first two readings.
        assert!(SystemClock.now().since(real) >= Duration::from_millis(99));
        assert!(clock.wall() - wall >= TimeDelta::hours(23));
    }

    #[test]
    fn no_factor_and_no_moment_panics() {
        for factor in [f64::NAN, f64::INFINITY, -1.0, 0.0, 1e-300, 1e300] {
            let clock = ScaledClock::new(factor);
            let _ = (clock.now(), clock.wall(), scale(Moment::FAR.since(Moment::ORIGIN), clock.factor()));
        }
    }
}
