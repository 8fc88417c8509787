//! Which key answers for a kid and an algorithm. This room reads usable keys only; it does not know where
//! they came from, and it allocates nothing.

use std::fmt;
use std::sync::Arc;

use crate::key::Key;
use crate::{Algorithm, AlgorithmSet};

/// Why no key answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoKey {
    /// The kid is not held; a refresh may bring it.
    UnknownKid,
    /// Keys are held, but none that may verify the algorithm under this kid, or at all without one.
    NoMatch,
    /// No kid was named and several keys fit the algorithm.
    Ambiguous,
    /// No usable key is held.
    NoKeys,
}

impl fmt::Display for NoKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UnknownKid => "no key with this kid",
            Self::NoMatch => "no key that may verify this algorithm",
            Self::Ambiguous => "several keys fit, and the token names none by its kid",
            Self::NoKeys => "no usable key",
        })
    }
}

impl std::error::Error for NoKey {}

/// The key for `kid` and `algorithm`: under an exact kid the first that fits, without a kid the only one
/// that fits. The same material published twice is one key.
///
/// # Errors
/// See [`NoKey`].
pub fn select<'a>(
    keys: impl IntoIterator<Item = &'a Arc<Key>>,
    kid: Option<&str>,
    algorithm: Algorithm,
) -> Result<&'a Arc<Key>, NoKey> {
    let mut any_usable = false;
    let mut kid_held = kid.is_none();
    let mut found: Option<&Arc<Key>> = None;
    for key in keys {
        any_usable |= key.is_usable();
        if kid.is_some() {
            if key.kid() != kid {
                continue;
            }
            kid_held = true;
        }
        if !key.algorithms().contains(algorithm) {
            continue;
        }
        match found {
            // Under one kid a set holds no second material for an algorithm.
            _ if kid.is_some() => return Ok(key),
            None => found = Some(key),
            Some(first) if first.thumbprint() == key.thumbprint() => {}
            Some(_) => return Err(NoKey::Ambiguous),
        }
    }
    match found {
        Some(key) => Ok(key),
        None if !any_usable => Err(NoKey::NoKeys),
        None if kid_held => Err(NoKey::NoMatch),
        None => Err(NoKey::UnknownKid),
    }
}

/// What a lookup by kid reads of a key, without following it.
#[derive(Debug)]
pub(crate) struct Row {
    tag: u32,
    kid: Option<Box<str>>,
    algorithms: AlgorithmSet,
}

impl Row {
    pub(crate) fn of(key: &Key) -> Self {
        let kid = key.kid();
        Self { tag: kid.map_or(0, tag), kid: kid.map(Into::into), algorithms: key.algorithms() }
    }

    fn is(&self, tag: u32, kid: &str) -> bool {
        self.tag == tag && self.kid.as_deref() == Some(kid)
    }
}

/// Tells most kids apart without following a pointer to their text. Equal kids have equal tags.
fn tag(kid: &str) -> u32 {
    let bytes = kid.as_bytes();
    let mixed = match (bytes.first_chunk(), bytes.last_chunk()) {
        (Some(first), Some(last)) => u64::from_le_bytes(*first) ^ u64::from_le_bytes(*last).rotate_left(29),
        _ => bytes.iter().fold(0, |tag, byte| tag << 8 | u64::from(*byte)),
    };
    // The upper half of a product depends on every bit.
    (mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u32
}

/// The same choice as [`select`], by rows that stand beside the keys.
pub(crate) fn find<'a>(
    keys: &'a [Arc<Key>],
    rows: &[Row],
    kid: Option<&str>,
    algorithm: Algorithm,
) -> Result<&'a Arc<Key>, NoKey> {
    if let Some(kid) = kid {
        let tag = tag(kid);
        let found = rows.iter().position(|row| row.algorithms.contains(algorithm) && row.is(tag, kid));
        if let Some(key) = found.and_then(|index| keys.get(index)) {
            return Ok(key);
        }
    }
    select(keys, kid, algorithm)
}

/// Whether a row has exactly this kid.
pub(crate) fn has_kid(rows: &[Row], kid: &str) -> bool {
    let tag = tag(kid);
    rows.iter().any(|row| row.is(tag, kid))
}
