//! What changed between two key sets.

use std::collections::HashSet;

use super::KeySet;
use crate::key::{Key, Thumbprint};

/// A key by its name and its material.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct KeyId {
    /// The key's kid, if it has one.
    pub kid: Option<Box<str>>,
    /// The key's RFC 7638 thumbprint.
    pub thumbprint: Thumbprint,
}

/// What one set has and another has not, each in the order of its document.
///
/// Only well-formed keys count. The same material under another kid is a removal and an addition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SetDiff {
    /// Keys that are new, but not those in [`SetDiff::changed`].
    pub added: Vec<KeyId>,
    /// Keys that are gone, but not those whose kid is in [`SetDiff::changed`].
    pub removed: Vec<KeyId>,
    /// New material under a kid that the old set holds.
    pub changed: Vec<KeyId>,
    /// Both sets have keys, and no material in common.
    pub disjoint: bool,
}

impl SetDiff {
    /// The difference between nothing and `set`.
    #[must_use]
    pub fn all_of(set: &KeySet) -> Self {
        Self { added: set.keys().iter().map(id).collect(), ..Self::default() }
    }

    /// Whether both sets hold the same keys.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty() && self.changed.is_empty()
    }
}

/// Compares two sets by kid and thumbprint.
#[must_use]
pub fn diff(old: &KeySet, new: &KeySet) -> SetDiff {
    let old_keys: HashSet<_> = old.keys().iter().map(|key| (key.kid(), key.thumbprint())).collect();
    let old_kids: HashSet<_> = old.keys().iter().filter_map(|key| key.kid()).collect();
    let old_material: HashSet<_> = old.keys().iter().map(|key| key.thumbprint()).collect();

    let mut diff = SetDiff {
        disjoint: !old.keys().is_empty()
            && !new.keys().is_empty()
            && !new.keys().iter().any(|key| old_material.contains(&key.thumbprint())),
        ..SetDiff::default()
    };
    let mut seen = HashSet::new();
    for key in new.keys() {
        let pair = (key.kid(), key.thumbprint());
        if !seen.insert(pair) || old_keys.contains(&pair) {
            continue;
        }
        if key.kid().is_some_and(|kid| old_kids.contains(kid)) {
            diff.changed.push(id(key));
        } else {
            diff.added.push(id(key));
        }
    }
    let changed: HashSet<_> = diff.changed.iter().map(|key| key.kid.as_deref()).collect();
    for key in old.keys() {
        // `seen` holds every pair of the new set by now, and each removed one once it is listed.
        if seen.insert((key.kid(), key.thumbprint())) && !changed.contains(&key.kid()) {
            diff.removed.push(id(key));
        }
    }
    diff
}

fn id(key: &Key) -> KeyId {
    KeyId { kid: key.kid().map(Into::into), thumbprint: key.thumbprint() }
}
