//! jwks-cache
mod clock;
pub use clock::{Clock, Sleep, SystemClock};
pub use jwks_cache_core::{Algorithm, Moment};
