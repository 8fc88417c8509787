//! Test parts for services that use jwks-cache, and for jwks-cache itself.
//!
//! - [`IdentityProvider`]: a small provider with real keys, that signs, rotates, retires, lies and goes down.
//! - [`Token`]: the claims of a token, for [`IdentityProvider::mint`].
//! - [`Origin`]: an HTTP/1.1 server on loopback that answers exactly what a test says, faults included, and
//!   records what it was asked.
//! - [`MemoryStore`]: a store that hangs, fails or loses everything when told to, and [`store_conformance`]: what
//!   every store owes.
//! - `tls` (feature `tls`): authorities, their certificates, and origins that show them.
//! - [`ManualClock`] and [`ScaledClock`]: policy time that a test drives, or that runs faster.
//! - `world` (feature `simulation`): the cache among simulated providers, in virtual time, from a seed.
//!
//! A token that verifies against what the provider publishes, in three lines:
//!
//! ```
//! use jwks_cache_testkit::{IdentityProvider, Token};
//!
//! let idp = IdentityProvider::start();
//! let token = idp.mint(&Token::new().subject("ada").audience("orders"));
//! assert!(token.starts_with("ey"));
//! // Give `idp.jwks_url()` to the cache, and the token to the service under test.
//! ```
//!
//! Servers run on threads of their own, so they answer whatever runtime a test uses, and stop when dropped.
//! Nothing here is meant for production: keys live in memory, and a misspelt key ID panics.

mod clock;
mod idp;
mod key;
mod origin;
mod store;
#[cfg(feature = "tls")]
pub mod tls;
mod token;
#[cfg(feature = "simulation")]
pub mod world;

pub use clock::{ManualClock, ScaledClock};
pub use idp::{IdentityProvider, IdentityProviderBuilder};
pub use jwks_cache_core::Algorithm;
pub use origin::{BlackHole, Gate, Handshake, Origin, Phase, RecordedRequest, Reply};
pub use store::{Calls, MemoryStore, store_conformance};
pub use token::{Token, split};
