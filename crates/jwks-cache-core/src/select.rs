//! Which key answers for a kid and an algorithm. This room reads usable keys only; it does not know where
//! they came from, and it allocates nothing.

use std::fmt;

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

/// The place of the key for `kid` and `algorithm`: under an exact kid the first that fits, without a kid the only one
/// that fits. The same material published twice is one key.
///
/// # Errors
/// See [`NoKey`].
pub fn select<'a>(
    keys: impl IntoIterator<Item = &'a Key>,
    kid: Option<&str>,
    algorithm: Algorithm,
) -> Result<usize, NoKey> {
    let mut any_usable = false;
    let mut kid_held = kid.is_none();
    let mut found: Option<(usize, &Key)> = None;
    for (at, key) in keys.into_iter().enumerate() {
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
            _ if kid.is_some() => return Ok(at),
            None => found = Some((at, key)),
            Some((_, first)) if first.thumbprint() == key.thumbprint() => {}
            Some(_) => return Err(NoKey::Ambiguous),
        }
    }
    match found {
        Some((at, _)) => Ok(at),
        None if !any_usable => Err(NoKey::NoKeys),
        None if kid_held => Err(NoKey::NoMatch),
        None => Err(NoKey::UnknownKid),
    }
}

/// The tags of the kids of four keys, the first in the lowest 16 bits.
pub(crate) type Tags = u64;

/// How many keys a word tells of.
const TAGGED: usize = 4;
/// The lowest bit of each tag.
const LOWEST: u64 = u64::MAX / 0xffff;

/// The tags of all keys.
pub(crate) fn tags(keys: &[Key]) -> impl Iterator<Item = Tags> {
    let of_key = |key: &Key| u64::from(key.kid().map_or(0, tag));
    keys.chunks(TAGGED).map(move |keys| keys.iter().rev().fold(0, |tags, key| tags << 16 | of_key(key)))
}

/// Those of all keys but the first eight. They stand elsewhere, and are read where the first do not tell.
pub(crate) struct MoreTags(pub(crate) Box<[Tags]>);

/// Keys with their tags, so that of most sets a lookup reads the one key that answers.
pub(crate) struct Tagged<'a> {
    pub(crate) keys: &'a [Key],
    /// Those of the first eight keys, and of all others.
    pub(crate) tags: (&'a [Tags; 2], &'a MoreTags),
}

impl<'a> Tagged<'a> {
    /// The same choice as [`select`].
    pub(crate) fn find(&self, kid: Option<&str>, algorithm: Algorithm) -> Result<&'a Key, NoKey> {
        let fits = |key: &Key| key.algorithms().contains(algorithm);
        match kid.and_then(|kid| self.named(kid, fits)) {
            Some(key) => Ok(key),
            None => self.keys.get(select(self.keys, kid, algorithm)?).ok_or(NoKey::NoKeys),
        }
    }

    /// Whether a key has exactly this kid.
    pub(crate) fn has_kid(&self, kid: &str) -> bool {
        self.named(kid, |_| true).is_some()
    }

    /// The first key that has this kid and fits.
    fn named(&self, kid: &str, fits: impl Fn(&Key) -> bool) -> Option<&'a Key> {
        let tags = LOWEST * u64::from(tag(kid));
        let of_four = |from: usize, of: Tags| {
            // The highest bit of each tag that is equal, and of some that are not: all at once, as nobody can foretell
            // which it is.
            let differ = tags ^ of;
            let mut maybe = differ.wrapping_sub(LOWEST) & !differ & (LOWEST << 15);
            while maybe != 0 {
                let at = from + maybe.trailing_zeros() as usize / 16;
                match self.keys.get(at) {
                    Some(key) if key.is_named(kid) && fits(key) => return Some(key),
                    _ => maybe &= maybe - 1,
                }
            }
            None
        };
        let ([first, second], more) = self.tags;
        let later = || (2..).zip(&more.0).find_map(|(four, tags)| of_four(four * TAGGED, *tags));
        of_four(0, *first).or_else(|| of_four(TAGGED, *second)).or_else(later)
    }
}

/// Equal kids have equal tags.
fn tag(kid: &str) -> u16 {
    let bytes = kid.as_bytes();
    let mixed = match (bytes.first_chunk(), bytes.last_chunk()) {
        (Some(first), Some(last)) => u64::from_le_bytes(*first) ^ u64::from_le_bytes(*last).rotate_left(29),
        _ => bytes.iter().fold(0, |tag, byte| tag << 8 | u64::from(*byte)),
    };
    // The upper part of a product depends on every bit.
    (mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48) as u16
}
