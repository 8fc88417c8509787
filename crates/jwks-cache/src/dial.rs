//! Who we are towards a provider, whom we take for it, and where it may be: roots, pins, client certificate, proxy,
//! headers, tokens, addresses.
//!
//! Settings become an [`Identity`], a plain value; equal identities share one [`Caller`], which holds the HTTP
//! clients. This room does not know exchanges, redirects, key sets, or when to fetch.

mod caller;
mod credentials;
mod identity;
mod idle;
mod notes;
mod path;
mod pins;
mod places;
mod resolver;
mod settings;
mod tls;
pub(crate) mod unquoted;

pub(crate) use caller::{Caller, Callers, Exchange};
pub(crate) use credentials::{Dial, Present, SentHeaders, Unready, read_at_most};
pub(crate) use notes::{Note, Notes};
pub use path::{PathCertificate, certificate_path};
pub(crate) use pins::PinMismatch;
pub use pins::PinMode;
pub(crate) use pins::Pins;
pub(crate) use resolver::RefusedAddress;
pub use resolver::{Resolver, Resolving, SystemResolver};
pub(crate) use settings::Transport;
pub use settings::{ClientCertificate, Material, Secret, TlsSettings, TlsVersion};
