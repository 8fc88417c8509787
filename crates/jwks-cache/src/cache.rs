//! The cache of one provider on its own, without a registry.

pub mod manager;
pub mod state;

pub use manager::{CacheManager, CacheSnapshot};
pub use state::{CachePayload, CacheState};
