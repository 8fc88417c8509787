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

/// What a lookup by kid reads of keys, in one piece of memory, as each piece lies far away: a head for each key, and
/// behind them the kids.
#[derive(Clone)]
pub(crate) struct Index(Arc<[u8]>);

/// The tag of a key's kid, the algorithms that the key may verify, and from where to where its kid stands.
type Head = [u8; 16];

impl Index {
    pub(crate) fn of(keys: &[Arc<Key>]) -> Self {
        let texts = keys.iter().map(|key| key.kid().map_or(0, str::len)).sum::<usize>();
        let mut bytes = Vec::with_capacity(keys.len() * size_of::<Head>() + texts);
        let mut end = keys.len() * size_of::<Head>();
        for key in keys {
            let (kid, start) = (key.kid(), end);
            end += kid.map_or(0, str::len);
            // A key without a kid has none anywhere, and no document is of 4 GiB.
            let place = kid.and_then(|_| u32::try_from(start).ok().zip(u32::try_from(end).ok()));
            let (from, to) = place.unwrap_or((u32::MAX, 0));
            bytes.extend(kid.map_or(0, tag).to_le_bytes());
            bytes.extend(u32::from(key.algorithms().bits()).to_le_bytes());
            bytes.extend(from.to_le_bytes());
            bytes.extend(to.to_le_bytes());
        }
        keys.iter().filter_map(|key| key.kid()).for_each(|kid| bytes.extend(kid.as_bytes()));
        Self(bytes.into())
    }

    /// The heads, and what is no head behind them: there are as many as keys.
    fn heads(&self) -> &[Head] {
        self.0.as_chunks().0
    }

    /// What the key of this head may verify, if its kid is this one.
    fn is(&self, head: &Head, tag: u32, kid: &str) -> Option<AlgorithmSet> {
        let word = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        if word(0) != tag {
            return None;
        }
        let text = self.0.get(word(8) as usize..word(12) as usize);
        (text == Some(kid.as_bytes())).then(|| AlgorithmSet::from_bits(word(4) as u16))
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

/// The same choice as [`select`], by the index of the keys.
pub(crate) fn find<'a>(
    keys: &'a [Arc<Key>],
    index: &Index,
    kid: Option<&str>,
    algorithm: Algorithm,
) -> Result<&'a Arc<Key>, NoKey> {
    if let Some(kid) = kid {
        let tag = tag(kid);
        for (head, key) in index.heads().iter().zip(keys) {
            if index.is(head, tag, kid).is_some_and(|may| may.contains(algorithm)) {
                return Ok(key);
            }
        }
    }
    select(keys, kid, algorithm)
}

/// Whether a key has exactly this kid.
pub(crate) fn has_kid(keys: &[Arc<Key>], index: &Index, kid: &str) -> bool {
    let tag = tag(kid);
    index.heads().iter().zip(keys).any(|(head, _)| index.is(head, tag, kid).is_some())
}
