//! The world's one time. Socket time is tokio's paused clock; policy time follows it and is ahead by
//! what the machine was suspended; the wall follows policy time and is off by what somebody stepped it.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use jwks_cache::{Clock, Moment, Sleep};
use tokio::time::Instant;

/// As in `ManualClock`: 50 years after the origin, 2026-01-01T00:00:00Z on the wall.
const START: Duration = Duration::from_secs(50 * 365 * 86_400);
const START_WALL: i64 = 1_767_225_600;

/// As the machine's clock does: tokio's timers do not count suspended time, so a long sleep is cut.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(super) struct WorldClock {
    began: Instant,
    bent: Mutex<Bent>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Bent {
    suspended: Duration,
    stepped: TimeDelta,
}

impl WorldClock {
    /// Starts now, inside a runtime whose time is paused.
    pub(super) fn new() -> Self {
        Self { began: tokio_now(), bent: Mutex::default() }
    }

    /// Socket time since the start.
    pub(super) fn socket(&self) -> Duration {
        tokio_now().duration_since(self.began)
    }

    /// Policy time since the start.
    pub(super) fn passed(&self) -> Duration {
        self.socket() + self.bent().suspended
    }

    /// The machine sleeps: moments and wall go on, sockets do not notice.
    pub(super) fn suspend(&self, span: Duration) {
        self.bend(|bent| bent.suspended += span);
    }

    /// Somebody sets the wall: this far off the true time from now on.
    pub(super) fn step_wall(&self, off: TimeDelta) {
        self.bend(|bent| bent.stepped = off);
    }

    /// The wall time of those who keep theirs right.
    pub(super) fn true_wall(&self) -> DateTime<Utc> {
        let passed = TimeDelta::from_std(self.passed()).unwrap_or_default();
        DateTime::from_timestamp(START_WALL, 0).unwrap_or_default() + passed
    }

    fn bent(&self) -> Bent {
        *self.bent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn bend(&self, change: impl FnOnce(&mut Bent)) {
        change(&mut self.bent.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Clock for WorldClock {
    fn now(&self) -> Moment {
        Moment::ORIGIN + START + self.passed()
    }

    fn wall(&self) -> DateTime<Utc> {
        self.true_wall() + self.bent().stepped
    }

    fn sleep_until(&self, moment: Moment) -> Sleep {
        Box::pin(tokio::time::sleep(moment.since(self.now()).min(LONGEST_SLEEP)))
    }
}

fn tokio_now() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "the world's own clock: tokio's paused time")]
    Instant::now()
}
