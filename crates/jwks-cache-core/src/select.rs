//! Which key answers for a kid and an algorithm. This room reads usable keys only; it does not know where
//! they came from, and it allocates nothing.

use std::fmt;
use std::hash::{BuildHasher, Hasher};

use foldhash::quality::FixedState;

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

/// What stands for the kid of a key: equal kids have equal tags, and two that differ, unless somebody looked for them, have
/// them once in 2^64.
pub(crate) type Tag = u64;

/// The tags of the first keys of a set.
pub(crate) type FirstTags = [Tag; 4];

/// The tags of all keys; 0, which is nobody's, for one without kid.
pub(crate) fn tags(keys: &[Key]) -> impl Iterator<Item = Tag> {
    keys.iter().map(|key| key.kid().map_or(0, tag))
}

/// Keys with their tags, so that of most sets a lookup reads the one key that answers.
pub(crate) struct Tagged<'a, M> {
    pub(crate) keys: &'a [Key],
    pub(crate) first: &'a FirstTags,
    /// Leads to the tags of all others. They stand elsewhere, and are read where the first do not tell.
    pub(crate) more: M,
}

impl<'a, M: Fn() -> &'a [Tag]> Tagged<'a, M> {
    /// The same choice as [`select`].
    pub(crate) fn find(&self, kid: Option<&str>, algorithm: Algorithm) -> Result<&'a Key, NoKey> {
        let fits = |key: &Key| key.algorithms().contains(algorithm);
        match kid.and_then(|kid| self.named(kid, fits)) {
            Some(key) => Ok(key),
            None => self.keys.get(select(self.keys, kid, algorithm)?).ok_or(NoKey::NoKeys),
        }
    }

    /// Whether a key has this kid, or one of the same tag: it reads no key.
    pub(crate) fn has_kid(&self, kid: &str) -> bool {
        let tag = tag(kid);
        equal(self.first, tag) != 0 || (self.more)().contains(&tag)
    }

    /// The first key that has exactly this kid and fits.
    fn named(&self, kid: &str, fits: impl Fn(&Key) -> bool) -> Option<&'a Key> {
        let tag = tag(kid);
        let answers = |at: usize| self.keys.get(at).filter(|key| key.is_named(kid) && fits(key));
        let mut maybe = equal(self.first, tag);
        while maybe != 0 {
            if let Some(key) = answers(maybe.trailing_zeros() as usize) {
                return Some(key);
            }
            maybe &= maybe - 1;
        }
        let more = (self.first.len()..).zip((self.more)());
        more.filter(|(_, of)| **of == tag).find_map(|(at, _)| answers(at))
    }
}

/// A bit for each that is equal: all at once, as nobody can foretell which it is.
fn equal(tags: &FirstTags, tag: Tag) -> u32 {
    (0..).zip(tags).fold(0, |equal, (at, of)| equal | u32::from(*of == tag) << at)
}

fn tag(kid: &str) -> Tag {
    // The same in every process: who makes two kids of one tag gains nothing by it.
    const HASH: FixedState = FixedState::with_seed(0);
    let mut hasher = HASH.build_hasher();
    hasher.write(kid.as_bytes());
    hasher.finish().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyset::{KeyRules, KeySet};

    #[test]
    fn kids_of_one_tag_are_told_apart_by_their_text() {
        let key = |kid| {
            let x = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
            format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{x}","kid":"{kid}"}}"#)
        };
        let document = format!(r#"{{"keys":[{}]}}"#, ["a", "b", "c", "d", "e", "f"].map(key).join(","));
        let set = KeySet::judge(document.as_bytes(), &KeyRules::default()).unwrap();
        for kid in ["a", "b", "d", "e", "f"] {
            let all = [tag(kid); 6];
            let (first, more) = all.split_first_chunk().unwrap();
            let found = Tagged { keys: set.keys(), first, more: || more }.find(Some(kid), Algorithm::EdDSA);
            assert_eq!(found.unwrap().kid(), Some(kid));
        }
    }
}
