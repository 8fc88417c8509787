//! Chance that replays: splitmix64 over a printed seed.

use std::time::Duration;

#[derive(Debug)]
pub(super) struct Chance(u64);

impl Chance {
    pub(super) fn new(seed: u64) -> Self {
        // Neighbouring seeds must not begin alike.
        Self(mixed(seed ^ 0x6a09_e667_f3bc_c908))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed(self.0)
    }

    /// Evenly, from 0 to just below `end`; 0 when that is 0.
    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    pub(super) fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).unwrap_or(0)
    }

    pub(super) fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }

    pub(super) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.index(from.len())]
    }

    pub(super) fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.below(to - from + 1))
    }

    /// Seconds between the two, each order of magnitude as likely as the next.
    pub(super) fn seconds(&mut self, from: u64, to: u64) -> u64 {
        #[expect(clippy::cast_precision_loss, reason = "spans of days are far below 2^53 s")]
        let (low, high, share) = ((from as f64).ln(), (to as f64).ln(), self.below(1 << 20) as f64);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between two u64")]
        let drawn = (low + (high - low) * share / f64::from(1 << 20)).exp() as u64;
        drawn.clamp(from, to)
    }
}

/// The finaliser of splitmix64; also folds a run into its digest.
pub(super) fn mixed(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
