//! Where keys outlive the process: what a store owes, and the stores at hand. A store keeps bytes and their order; it
//! does not know what they say, who serves them or when they are fetched.
//!
//! Stores stack: a [`FileStore`] for restarts, a `RedisStore` (feature `redis`) for many processes. Which one when, and
//! what someone with write access can do, is said in [`docs::stores`](crate::docs::stores).

mod disk;
mod file;
mod queue;
#[cfg(feature = "redis")]
mod redis_store;
mod stack;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

pub use jwks_cache_core::snapshot::KeyRing;

pub use file::{FileStore, KeptFile};
#[cfg(feature = "redis")]
pub use redis_store::RedisStore;

pub(crate) use queue::{Deed, Kept};
pub(crate) use stack::Stack;

/// The namespace where none is set.
pub(crate) const NAMESPACE: &str = "jwks-cache";

/// More than this in a store is no snapshot of ours: it is replaced without a look into it.
const MOST_COMPARED: u64 = 16 << 20;

/// What a [`SnapshotStore`] returns.
pub type Storing<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// Keeps snapshots outside of the process. The testkit's `store_conformance` shows whether one keeps these duties:
///
/// - What was saved last under a key is what is loaded, byte for byte; nothing under another key changes.
/// - An entry that does not replace what is kept ([`SnapshotEntry::replaces`]) changes nothing, even if two are saved at
///   once: comparing and replacing is one step.
/// - A load reads no more than `most` bytes, and says [`StoreErrorKind::TooLarge`] if there are more.
/// - A crash at any time leaves what was kept before or what was saved, never a part of it.
/// - A dropped future leaves the store usable.
///
/// A call that takes longer than [`SnapshotStore::time_limit`] is given up; no caller waits for it.
pub trait SnapshotStore: fmt::Debug + Send + Sync + 'static {
    /// A short name for logs, as `file`.
    fn name(&self) -> &'static str;

    /// The longest a call may take. Default 250 ms.
    fn time_limit(&self) -> Duration {
        Duration::from_millis(250)
    }

    /// What tells it apart from other stores that the same [`KeyRing`] signs for: what was signed for one is refused in
    /// another. Default `jwks-cache`.
    fn namespace(&self) -> &str {
        NAMESPACE
    }

    /// What is kept under `key`; `None` when nothing is.
    fn load<'a>(&'a self, key: &'a SnapshotKey, most: u64) -> Storing<'a, Option<Vec<u8>>>;

    /// Keeps `entry` under `key` unless something is there that it does not replace. Returns whether it did.
    fn save<'a>(&'a self, key: &'a SnapshotKey, entry: &'a SnapshotEntry) -> Storing<'a, bool>;

    /// Forgets what is kept under `key`. Nothing there is no failure.
    fn remove<'a>(&'a self, key: &'a SnapshotKey) -> Storing<'a, ()>;
}

/// Under which name something is kept.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SnapshotKey {
    /// The tenant.
    pub tenant: String,
    /// The provider.
    pub provider: String,
    /// What is kept of it.
    pub kind: SnapshotKind,
}

/// What is kept of a provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum SnapshotKind {
    /// Its key set, with all that belongs to it.
    Keys,
    /// What is denied, which outlives the set.
    Denials,
}

impl SnapshotKind {
    /// `keys` or `denials`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Keys => "keys",
            Self::Denials => "denials",
        }
    }
}

/// Something to keep.
#[derive(Clone, PartialEq, Eq)]
pub struct SnapshotEntry {
    /// JSON; a store need not read it.
    pub bytes: Vec<u8>,
    /// Its place in the order of fetches: microseconds since 1970.
    pub order: u64,
    /// What is kept with a higher order than this comes from a clock that was wrong, and is replaced.
    pub newest: u64,
    /// How long it can be of use; `None` for ever.
    pub keep_for: Option<Duration>,
    /// What it was put together from, empty for nothing: it replaces that and nothing else. `None` where the order
    /// decides.
    pub instead_of: Option<Vec<u8>>,
}

impl SnapshotEntry {
    /// Whether it replaces these bytes, which are kept with this order; of two with the same, the later call counts.
    /// Where nothing is kept, or nothing of use, each entry is.
    #[must_use]
    pub fn replaces(&self, kept: &[u8], order: u64) -> bool {
        match &self.instead_of {
            Some(of) => of == kept,
            None => order <= self.order || order > self.newest,
        }
    }
}

impl fmt::Debug for SnapshotEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SnapshotEntry")
            .field("bytes", &self.bytes.len())
            .field("order", &self.order)
            .field("keep_for", &self.keep_for)
            .finish_non_exhaustive()
    }
}

/// Why a store did not do what it was asked.
#[derive(Debug)]
pub struct StoreError {
    kind: StoreErrorKind,
    message: String,
    cause: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// What a [`StoreError`] means for what was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StoreErrorKind {
    /// The store cannot be reached, or does not answer in time. The next call may fare as badly.
    Unavailable,
    /// The store is there and refuses to write: full, read-only, without permission.
    Refused,
    /// Another process writes there.
    InUse,
    /// What is kept there is torn or foreign. A file was set aside.
    Corrupt,
    /// What is kept there is larger than a snapshot may be.
    TooLarge,
}

impl StoreErrorKind {
    /// A short name for metrics and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unavailable => "unavailable",
            Self::Refused => "refused",
            Self::InUse => "in_use",
            Self::Corrupt => "corrupt",
            Self::TooLarge => "too_large",
        }
    }
}

impl StoreError {
    /// An error of this kind.
    pub fn new(kind: StoreErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), cause: None }
    }

    /// The same with what caused it.
    #[must_use]
    pub fn with_cause(self, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self { cause: Some(cause.into()), ..self }
    }

    pub(crate) fn out_of_time(limit: Duration) -> Self {
        Self::new(StoreErrorKind::Unavailable, format!("no answer within {limit:?}"))
    }

    /// Whether the store works, and what it keeps there cannot be used.
    pub(crate) const fn concerns_content(&self) -> bool {
        matches!(self.kind, StoreErrorKind::Corrupt | StoreErrorKind::TooLarge)
    }

    /// What it means.
    #[must_use]
    pub const fn kind(&self) -> StoreErrorKind {
        self.kind
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for StoreError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.cause.as_ref().map(|cause| &**cause as &(dyn std::error::Error + 'static))
    }
}
