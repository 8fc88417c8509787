//! Policy time: moments on a clock that nobody can set. This room does not know what the time is.

use std::fmt;
use std::num::NonZeroU64;
use std::ops::{Add, Sub};
use std::time::Duration;

/// A moment on the policy clock, in nanoseconds since that clock's origin.
///
/// Arithmetic saturates: a lifetime of 2^64 seconds ends at [`Moment::FAR`], it never panics.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
// One more than the nanoseconds, so that an `Option` of it takes no more room.
pub struct Moment(NonZeroU64);

impl Moment {
    /// The clock's origin.
    pub const ORIGIN: Self = Self(NonZeroU64::MIN);
    /// A moment that never comes.
    pub const FAR: Self = Self(NonZeroU64::MAX);

    /// The moment `nanos` nanoseconds after the origin.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(NonZeroU64::MIN.saturating_add(nanos))
    }

    /// Nanoseconds since the origin.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0.get() - 1
    }

    /// How long after `earlier` this is; zero when it is not after it.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.get().saturating_sub(earlier.0.get()))
    }
}

impl Default for Moment {
    fn default() -> Self {
        Self::ORIGIN
    }
}

impl Add<Duration> for Moment {
    type Output = Self;
    fn add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl Sub<Duration> for Moment {
    type Output = Self;
    fn sub(self, span: Duration) -> Self {
        Self::from_nanos(self.as_nanos().saturating_sub(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl fmt::Debug for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::FAR {
            return f.write_str("Moment(never)");
        }
        write!(f, "Moment({:?})", Duration::from_nanos(self.as_nanos()))
    }
}

/// Chance, handed in so that every decision can be replayed.
pub trait Dice {
    /// A draw, evenly distributed over `0.0..1.0`.
    fn draw(&mut self) -> f64;

    /// A draw between two spans, `low` included; `low` when `high` is not above it.
    fn between(&mut self, low: Duration, high: Duration) -> Duration {
        match high.checked_sub(low) {
            Some(width) => low.saturating_add(width.mul_f64(self.draw().clamp(0.0, 1.0))),
            None => low,
        }
    }
}

impl<F: FnMut() -> f64> Dice for F {
    fn draw(&mut self) -> f64 {
        self()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates_instead_of_panicking() {
        assert_eq!(Moment::ORIGIN + Duration::MAX, Moment::FAR);
        assert_eq!(Moment::ORIGIN - Duration::from_secs(1), Moment::ORIGIN);
        assert_eq!(Moment::ORIGIN.since(Moment::FAR), Duration::ZERO);
    }

    #[test]
    fn a_draw_stays_between_its_bounds() {
        let (low, high) = (Duration::from_secs(1), Duration::from_secs(3));
        assert_eq!((|| 0.0).between(low, high), low);
        assert_eq!((|| 1.0).between(low, high), high);
        assert_eq!((|| 0.5).between(high, low), high);
    }
}
