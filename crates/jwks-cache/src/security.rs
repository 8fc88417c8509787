//! The checks a source must pass: scheme, host, pins.

use std::fmt;

use jwks_cache_core::{allow, pin};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use url::Url;

use crate::error::{Error, Result};

pub use jwks_cache_core::allow::{canonicalize_dns_name, host_is_allowed, normalize_allowlist};
pub use jwks_cache_core::pin::fingerprint_spki;

/// A pin: SHA-256 of a certificate's SubjectPublicKeyInfo (RFC 7469 §2.4).
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct SpkiFingerprint([u8; 32]);

impl SpkiFingerprint {
    /// Reads a pin in standard or URL-safe base64.
    ///
    /// # Errors
    /// [`Error::Validation`] for `pinned_spki` unless it decodes to 32 bytes.
    pub fn from_b64(value: &str) -> Result<Self> {
        pin::fingerprint_from_b64(value).map(Self).ok_or_else(|| {
            Error::validation("pinned_spki", "must be 32 bytes (a SHA-256) in standard or URL-safe base64")
        })
    }

    /// The pin of a SubjectPublicKeyInfo in DER.
    #[must_use]
    pub fn of(spki_der: &[u8]) -> Self {
        Self(fingerprint_spki(spki_der))
    }

    /// The fingerprint's bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for SpkiFingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&pin::fingerprint_to_b64(&self.0))
    }
}

impl Serialize for SpkiFingerprint {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_str(&pin::fingerprint_to_b64(&self.0))
    }
}

impl<'de> Deserialize<'de> for SpkiFingerprint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        Self::from_b64(&String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

/// Requires the `https` scheme.
///
/// # Errors
/// [`Error::Security`] for any other scheme.
pub fn enforce_https(url: &Url) -> Result<()> {
    if url.scheme() == "https" {
        return Ok(());
    }
    Err(Error::Security(format!(
        "{}://{} is not https; use an https URL, or set require_https to false where plain http is meant",
        url.scheme(),
        url.host_str().unwrap_or_default()
    )))
}

/// Requires that one of the presented public keys is pinned. No pins allow every key.
///
/// # Errors
/// [`Error::Security`] when pins are set and none matches.
pub fn verify_spki_pins<'a, I>(present_spki: I, pins: &[SpkiFingerprint]) -> Result<()>
where
    I: IntoIterator<Item = &'a [u8]>,
{
    let pinned = |spki: &[u8]| {
        let fingerprint = fingerprint_spki(spki);
        pins.iter().any(|pin| pin.0 == fingerprint)
    };
    if pins.is_empty() || present_spki.into_iter().any(pinned) {
        return Ok(());
    }
    Err(Error::Security("no public key of the certificate path is pinned; check pinned_spki".into()))
}

/// Requires that `host` is allowed by a list.
pub(crate) fn enforce_host(host: &str, allowed_domains: &[String], whose: &str) -> Result<()> {
    if allow::host_is_allowed(host, allowed_domains) {
        return Ok(());
    }
    Err(Error::Security(format!("host {host} is not in {whose} allowed_domains")))
}
