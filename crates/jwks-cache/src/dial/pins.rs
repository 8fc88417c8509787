//! Pins: which public keys must stand on a certificate path (RFC 7469 §2.4 has the form, §2.6 the rule).
//!
//! What counts is the path that was verified, from the server's certificate to a trusted root, not the chain as it
//! was sent: anyone with a trusted certificate can append the pinned one to theirs.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::{CertificateError, OtherError};
use serde::{Deserialize, Serialize};

use super::caller;
use super::notes::Note;
use super::path::Paths;
use crate::security::SpkiFingerprint;

/// What happens when no key on the verified path is pinned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PinMode {
    /// The handshake ends before a byte of HTTP is sent. The default.
    #[default]
    Enforce,
    /// The exchange goes on; an event and a counter tell. For trying pins out: it protects nothing. Each exchange
    /// then makes a connection of its own, so that each is looked at.
    ReportOnly,
}

/// The pins of one registration, in an order that does not matter. Empty pins allow every key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Pins {
    keys: Arc<[SpkiFingerprint]>,
    mode: PinMode,
}

impl Pins {
    pub(crate) fn new(pinned: &[SpkiFingerprint], mode: PinMode) -> Self {
        let mut keys = pinned.to_vec();
        keys.sort_unstable_by(|a, b| a.as_bytes().cmp(b.as_bytes()));
        keys.dedup();
        // Without pins there is nothing to enforce, and nothing that tells clients apart.
        let mode = if keys.is_empty() { PinMode::default() } else { mode };
        Self { keys: keys.into(), mode }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Whether each handshake must be looked at, as they are all let through.
    pub(super) fn only_report(&self) -> bool {
        self.mode == PinMode::ReportOnly
    }

    /// Whether going from `self` to `next` believes fewer servers, or others.
    pub(super) fn is_tightened_by(&self, next: &Self) -> bool {
        let (old, new) = (self.enforced(), next.enforced());
        !new.is_empty() && (old.is_empty() || !old.iter().all(|pin| new.contains(pin)))
    }

    /// Those that end a handshake.
    pub(super) fn enforced(&self) -> &[SpkiFingerprint] {
        if self.only_report() { &[] } else { &self.keys }
    }
}

/// Holds servers to `pins`: a pinned key must stand on one of `paths`.
pub(super) fn look(
    paths: Paths,
    pins: Pins,
) -> impl Fn(&CertificateDer<'_>, &[CertificateDer<'_>], UnixTime) -> Result<(), rustls::Error> + Send + Sync
{
    move |end_entity, intermediates, now| {
        let mut seen = Vec::new();
        let found = paths.any(end_entity, intermediates, now, |path| {
            let pinned = path.iter().any(|known| pins.keys.contains(&known.pin));
            seen.extend(path.into_iter().map(|known| known.pin));
            pinned
        });
        if found {
            return Ok(());
        }
        let mismatch = PinMismatch::new(seen);
        let enforced = !pins.only_report();
        caller::note(Note::PinMismatch { enforced, path: mismatch.path.clone() });
        if enforced {
            let other = OtherError(Arc::new(mismatch));
            return Err(rustls::Error::InvalidCertificate(CertificateError::Other(other)));
        }
        Ok(())
    }
}

/// No key on the verified path is pinned.
#[derive(Debug)]
pub(crate) struct PinMismatch {
    /// The keys that stand there instead. Several paths are told one after the other.
    path: Vec<SpkiFingerprint>,
}

impl PinMismatch {
    /// More keys than this are not told: a server may send certificates that make many paths.
    const MOST: usize = 12;

    fn new(seen: Vec<SpkiFingerprint>) -> Self {
        let mut path: Vec<SpkiFingerprint> = Vec::new();
        for key in seen {
            if path.len() < Self::MOST && !path.contains(&key) {
                path.push(key);
            }
        }
        Self { path }
    }
}

impl fmt::Display for PinMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no key of the verified certificate path is in pinned_spki; the path has {:?}", self.path)
    }
}

impl StdError for PinMismatch {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_are_tightened_by_losing_one_and_by_being_enforced() {
        let key = |byte| SpkiFingerprint::of(&[byte]);
        let pins = |of: &[u8], mode| Pins::new(&of.iter().map(|byte| key(*byte)).collect::<Vec<_>>(), mode);
        let check = |old: &Pins, new: &Pins, tightened: bool| {
            assert_eq!(old.is_tightened_by(new), tightened, "{old:?} to {new:?}");
        };
        let (enforced, reported) = (PinMode::Enforce, PinMode::ReportOnly);
        let (none, one, both) = (pins(&[], enforced), pins(&[1], enforced), pins(&[2, 1, 2], enforced));
        check(&none, &one, true);
        check(&one, &none, false);
        check(&one, &both, false);
        check(&both, &one, true);
        check(&one, &pins(&[2], enforced), true);
        check(&one, &one, false);
        check(&both, &pins(&[1, 2], enforced), false);
        check(&pins(&[1], reported), &one, true);
        check(&one, &pins(&[2], reported), false);
        assert_eq!(pins(&[1, 2], enforced), both, "their order does not matter");
        assert_eq!(pins(&[], reported), none);
    }
}
