//! Which key answers for a kid and an algorithm. This room reads usable keys only; it does not know where
//! they came from, and it allocates nothing.

use std::fmt;
use std::sync::Arc;

use crate::Algorithm;
use crate::key::Key;

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

/// Whether any well-formed key has exactly this kid, usable or not.
#[must_use]
pub fn holds_kid(keys: &[Arc<Key>], kid: &str) -> bool {
    keys.iter().any(|key| key.kid() == Some(kid))
}
