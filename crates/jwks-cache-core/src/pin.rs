//! Public-key pins: SHA-256 over a certificate's SubjectPublicKeyInfo (RFC 7469 §2.4).

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);

/// SHA-256 of a SubjectPublicKeyInfo in DER.
#[must_use]
pub fn fingerprint_spki(spki_der: &[u8]) -> [u8; 32] {
    let mut fingerprint = [0; 32];
    fingerprint.copy_from_slice(digest(&SHA256, spki_der).as_ref());
    fingerprint
}

/// Reads a fingerprint in standard or URL-safe base64, padded or not. `None` unless it has 32 bytes.
#[must_use]
pub fn fingerprint_from_b64(value: &str) -> Option<[u8; 32]> {
    let alphabet = if value.contains(['-', '_']) { URL_SAFE } else { STANDARD };
    let bytes = GeneralPurpose::new(&alphabet, LENIENT).decode(value.trim()).ok()?;
    bytes.try_into().ok()
}

/// Writes a fingerprint as pins are written: standard base64, padded.
#[must_use]
pub fn fingerprint_to_b64(fingerprint: &[u8; 32]) -> String {
    base64::engine::general_purpose::STANDARD.encode(fingerprint)
}
