//! Whether a name came before, in one object.

use std::collections::BTreeSet;

/// Objects with more members than this allocate.
const FEW: usize = 32;

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

/// FNV-1a: quick for names of a few letters.
fn digest(name: &str) -> u64 {
    const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    name.bytes().fold(BASIS, |digest, byte| (digest ^ u64::from(byte)).wrapping_mul(PRIME))
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
