//! The settings a provider is run by, and which of them are legal. Parsed at the door: past
//! [`Policy::check`] nothing is validated twice. This room does not know where settings come from.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::algorithm::AlgorithmSet;
use crate::freshness::FreshnessRules;
use crate::keyset::KeyRules;
use crate::time::Dice;

/// The shortest lifetime a response may be given: 30 s, so that no provider is asked more often.
pub const MIN_TTL_FLOOR: Duration = Duration::from_secs(30);
/// The longest lifetime a response may be given by default: 24 h.
pub const DEFAULT_MAX_TTL: Duration = Duration::from_secs(24 * 3600);
/// How long before expiry a refresh is due by default: 30 s.
pub const DEFAULT_REFRESH_EARLY: Duration = Duration::from_secs(30);
/// How long expired keys are served while a provider fails, by default: 60 s.
pub const DEFAULT_STALE_WHILE_ERROR: Duration = Duration::from_secs(60);
/// The default bound on a response body, compressed and inflated: 1 MiB.
pub const DEFAULT_MAX_RESPONSE_BYTES: u64 = 1 << 20;
/// The default jitter taken off a refresh time: 5 s.
pub const DEFAULT_PREFETCH_JITTER: Duration = Duration::from_secs(5);
/// The most redirects a registration may allow.
pub const MAX_REDIRECTS: u8 = 10;

/// The least that `max_trust_age` is when it is not set.
const LEAST_DEFAULT_TRUST: Duration = Duration::from_secs(48 * 3600);

/// A setting that breaks its rule: which one, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// The setting as the registration names it.
    pub field: &'static str,
    /// What is wrong and what is allowed.
    pub reason: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.reason)
    }
}

impl std::error::Error for Broken {}

/// Who starts flights besides a caller's `refresh()`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefreshMode {
    /// Only readers start flights.
    OnDemand,
    /// A timer also refreshes a provider that was read since its last refresh. The default: keys in
    /// use are always at hand, and a provider that nobody reads goes quiet.
    #[default]
    WhileInUse,
    /// The timer refreshes regardless.
    Always,
}

/// How the waits inside a flight are spread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JitterStrategy {
    /// The exponential backoff itself.
    None,
    /// A draw from `initial_backoff` to the exponential backoff. The default.
    #[default]
    Full,
    /// A draw from `initial_backoff` to three times the previous wait, at most `max_backoff`.
    Decorrelated,
}

/// Retries within one flight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Attempts after the first.
    pub max_retries: u32,
    /// The deadline of one attempt, connecting and body included.
    pub attempt_timeout: Duration,
    /// The first wait.
    pub initial_backoff: Duration,
    /// The longest wait.
    pub max_backoff: Duration,
    /// The deadline of a whole flight, waits included.
    pub deadline: Duration,
    /// How waits are spread.
    pub jitter: JitterStrategy,
}

impl Retry {
    /// The wait before attempt `attempt + 1` (attempts count from 0), given the wait before it.
    pub fn wait(&self, attempt: u32, previous: Option<Duration>, dice: &mut dyn Dice) -> Duration {
        let exponential = self.exponential(attempt);
        match self.jitter {
            JitterStrategy::None => exponential,
            JitterStrategy::Full => dice.between(self.initial_backoff, exponential),
            JitterStrategy::Decorrelated => {
                let previous = previous.unwrap_or_else(|| match attempt {
                    0 => self.initial_backoff,
                    later => self.exponential(later - 1),
                });
                dice.between(self.initial_backoff, previous.saturating_mul(3).min(self.max_backoff))
            }
        }
    }

    fn exponential(&self, attempt: u32) -> Duration {
        doubled(self.initial_backoff, attempt).min(self.max_backoff)
    }

    /// Checks every rule of the retry settings.
    ///
    /// # Errors
    /// [`Broken`] names the first field that breaks its rule.
    pub fn check(&self) -> Result<(), Broken> {
        at_least("retry_policy.attempt_timeout", self.attempt_timeout, Duration::from_millis(100))?;
        if self.initial_backoff.is_zero() {
            return Err(broken("retry_policy.initial_backoff", "must be more than 0; 250ms is usual"));
        }
        at_least("retry_policy.max_backoff", self.max_backoff, self.initial_backoff)?;
        at_least("retry_policy.deadline", self.deadline, self.attempt_timeout)
    }
}

/// `first` × 2^`times`, saturating.
pub(crate) fn doubled(first: Duration, times: u32) -> Duration {
    // A nanosecond doubled 94 times is longer than any duration.
    (0..times.min(94)).fold(first, |span, _| span.saturating_mul(2))
}

/// Everything a provider's decisions depend on; registry defaults are already applied.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "each field is documented where users set it: the registration")]
pub struct Policy {
    pub refresh_early: Duration,
    pub stale_while_error: Duration,
    pub min_ttl: Duration,
    pub max_ttl: Duration,
    pub default_ttl: Duration,
    pub max_trust_age: Option<Duration>,
    pub http_strict: bool,
    pub max_response_bytes: u64,
    pub max_keys: u32,
    pub min_rsa_bits: u32,
    pub algorithms: AlgorithmSet,
    pub negative_cache_ttl: Duration,
    pub kid_miss_interval: Duration,
    pub kid_miss_wait: Duration,
    pub removal_grace: Duration,
    pub refresh_mode: RefreshMode,
    pub stale_wait: Duration,
    pub max_redirects: u8,
    pub prefetch_jitter: Duration,
    pub retry: Retry,
    /// How long each fallback may serve in one outage, in the order of the fallbacks.
    pub fallbacks: Vec<Duration>,
}

impl Policy {
    /// How long after a document last held a key it may be served, whatever else is set.
    #[must_use]
    pub fn trust_age(&self) -> Duration {
        self.max_trust_age
            .unwrap_or_else(|| LEAST_DEFAULT_TRUST.max(self.max_ttl.saturating_add(self.stale_while_error)))
    }

    /// What a document is judged by.
    #[must_use]
    pub fn key_rules(&self) -> KeyRules {
        KeyRules {
            min_rsa_bits: self.min_rsa_bits,
            max_keys: self.max_keys,
            algorithms: self.algorithms,
            ..KeyRules::default()
        }
    }

    /// What a lifetime is computed by.
    #[must_use]
    pub fn freshness_rules(&self) -> FreshnessRules {
        FreshnessRules {
            min_ttl: self.min_ttl,
            max_ttl: self.max_ttl,
            default_ttl: self.default_ttl,
            stale_while_error: self.stale_while_error,
            http_strict: self.http_strict,
        }
    }

    /// Checks every rule of the settings.
    ///
    /// # Errors
    /// [`Broken`] names the first field that breaks its rule, and says what is allowed.
    pub fn check(&self) -> Result<(), Broken> {
        let second = Duration::from_secs(1);
        at_least("min_ttl", self.min_ttl, MIN_TTL_FLOOR)?;
        at_least("max_ttl", self.max_ttl, self.min_ttl)?;
        at_least("refresh_early", self.refresh_early, second)?;
        if self.refresh_early >= self.max_ttl {
            return Err(broken("refresh_early", format!("must be less than max_ttl ({:?})", self.max_ttl)));
        }
        if let Some(age) = self.max_trust_age {
            at_least("max_trust_age", age, self.min_ttl)?;
        }
        if self.max_response_bytes == 0 {
            return Err(broken("max_response_bytes", "must be more than 0; 1048576 is the default"));
        }
        if self.max_keys == 0 {
            return Err(broken("max_keys", "must be more than 0; 512 is the default"));
        }
        if !(1024..=4096).contains(&self.min_rsa_bits) {
            return Err(broken("min_rsa_bits", "must be from 1024 to 4096; 2048 is the default"));
        }
        if !self.negative_cache_ttl.is_zero() {
            at_least("negative_cache_ttl", self.negative_cache_ttl, second)?;
        }
        at_least("kid_miss_interval", self.kid_miss_interval, second)?;
        if self.max_redirects > MAX_REDIRECTS {
            return Err(broken("max_redirects", format!("must be at most {MAX_REDIRECTS}")));
        }
        self.retry.check()
    }
}

/// A [`Broken`] in few words.
pub fn broken(field: &'static str, reason: impl Into<String>) -> Broken {
    Broken { field, reason: reason.into() }
}

fn at_least(field: &'static str, value: Duration, least: Duration) -> Result<(), Broken> {
    if value < least {
        return Err(broken(field, format!("must be at least {least:?}, but is {value:?}")));
    }
    Ok(())
}
