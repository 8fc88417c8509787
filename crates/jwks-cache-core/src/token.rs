//! A token as it arrives: a compact JWS (RFC 7515 §7.1) taken apart, its header read, its claims judged
//! (RFC 7519, RFC 8725).
//!
//! This room does not know keys, providers or caches, and it verifies no signature: who calls it decides what of
//! a token may be believed, and when. Time is handed in.

mod claims;
mod compact;
mod fault;
mod header;
mod names;
mod scopes;

pub use claims::{ClaimFault, ClaimRules, Claims, Times, key_issuer_fits};
pub use compact::{Compact, Room, text};
pub use fault::{Fault, Malformed, Part, Unsupported};
pub use header::Header;
pub use scopes::grants;

/// The longest token that verifiers take by default, in bytes: room for what proxies let through in a header.
pub const DEFAULT_MAX_TOKEN_BYTES: usize = 16 * 1024;
