//! Whether a name came before, in one object.

use std::collections::BTreeSet;

/// Objects with more members than this allocate.
const FEW: usize = 16;

/// The names that an object had so far, by a digest of 64 bits. Equal names are always found. Different ones
/// with one digest would be taken for equal, which refuses the token of whoever searched for them.
pub(super) struct Names {
    few: [u64; FEW],
    count: usize,
    all: BTreeSet<u64>,
}

impl Names {
    pub(super) const fn new() -> Self {
        Self { few: [0; FEW], count: 0, all: BTreeSet::new() }
    }

    /// `true` unless `name` came before.
    pub(super) fn insert(&mut self, name: &str) -> bool {
        let digest = digest(name);
        let (before, _) = self.few.split_at(self.count.min(FEW));
        if self.count < FEW {
            if before.contains(&digest) {
                return false;
            }
            self.few[self.count] = digest;
            self.count += 1;
            return true;
        }
        if self.all.is_empty() {
            self.all.extend(before);
        }
        self.all.insert(digest)
    }
}

/// Eight bytes at a time, as most names have no more. Of one length, those never meet.
fn digest(name: &str) -> u64 {
    const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
    let mix = |digest: u64, word: u64| (digest ^ word).wrapping_mul(GOLDEN).rotate_left(29);
    let (words, rest) = name.as_bytes().as_chunks();
    let start = (name.len() as u64).wrapping_mul(GOLDEN);
    let digest = words.iter().fold(start, |digest, word| mix(digest, u64::from_le_bytes(*word)));
    mix(digest, rest.iter().fold(0, |word, byte| word << 8 | u64::from(*byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_new_once_among_few_and_among_many() {
        for many in [1, FEW - 1, FEW, FEW + 1, 5 * FEW] {
            let mut names = Names::new();
            let name = |n: usize| format!("claim-{n}");
            assert!((0..many).all(|n| names.insert(&name(n))), "{many}");
            assert!((0..many).all(|n| !names.insert(&name(n))), "{many}");
            assert!(names.insert("another"), "{many}");
        }
    }
}
