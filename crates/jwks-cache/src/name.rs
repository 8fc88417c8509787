//! A provider's name in its registry: tenant and id.

use std::hash::{BuildHasher, Hasher};
use std::str;

/// Both parts, one after the other. Most stand in place: of many providers, each line of memory comes from far away.
#[derive(Debug)]
pub(crate) enum Name {
    Here { tenant: u8, both: u8, text: [u8; HERE] },
    There { tenant: usize, text: Box<[u8]> },
}

/// As much as makes the front of a provider two lines of memory.
const HERE: usize = 69;

/// The same, borrowed in parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct NameRef<'a>(pub(crate) &'a str, pub(crate) &'a str);

impl Name {
    pub(crate) fn new(NameRef(tenant, id): NameRef<'_>) -> Self {
        let name = [tenant, id].concat().into_bytes();
        let mut text = [0; HERE];
        match (text.get_mut(..name.len()), u8::try_from(tenant.len()), u8::try_from(name.len())) {
            (Some(here), Ok(tenant), Ok(both)) => {
                here.copy_from_slice(&name);
                Self::Here { tenant, both, text }
            }
            _ => Self::There { tenant: tenant.len(), text: name.into() },
        }
    }

    /// How long the tenant is, and both.
    #[inline]
    fn text(&self) -> (usize, &[u8]) {
        match self {
            Self::Here { tenant, both, text } => {
                (usize::from(*tenant), text.get(..usize::from(*both)).unwrap_or_default())
            }
            Self::There { tenant, text } => (*tenant, text),
        }
    }

    pub(crate) fn parts(&self) -> NameRef<'_> {
        let (tenant, text) = self.text();
        // It was put together from two.
        let (tenant, id) =
            str::from_utf8(text).unwrap_or_default().split_at_checked(tenant).unwrap_or_default();
        NameRef(tenant, id)
    }

    #[inline]
    pub(crate) fn is(&self, NameRef(tenant, id): NameRef<'_>) -> bool {
        let (its_tenant, text) = self.text();
        its_tenant == tenant.len()
            && text
                .split_at_checked(its_tenant)
                .is_some_and(|(head, tail)| same(head, tenant.as_bytes()) && same(tail, id.as_bytes()))
    }
}

/// Whether they are equal. The C library's way reads 32 bytes where fewer are there, and so the next line of memory, too.
#[inline]
fn same(one: &[u8], other: &[u8]) -> bool {
    const WORD: usize = 8;
    one.len() == other.len()
        && match (one.last_chunk::<WORD>(), other.last_chunk()) {
            (Some(end), Some(other_end)) => {
                let mut words = one.as_chunks::<WORD>().0.iter().zip(other.as_chunks().0);
                end == other_end && words.all(|(one, other)| one == other)
            }
            _ => one.iter().eq(other),
        }
}

impl NameRef<'_> {
    #[inline]
    pub(crate) fn hash_by(self, hashing: &impl BuildHasher) -> u64 {
        let mut hasher = hashing.build_hasher();
        hasher.write(self.0.as_bytes());
        hasher.write(self.1.as_bytes());
        hasher.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_found_by_its_parts_however_long_and_no_other_is() {
        let long = "x".repeat(64);
        let names =
            [("a", "bb"), ("ab", "b"), ("abb", ""), ("a/b", "b"), ("a", "/bb"), ("a", &long), (&long, "b")];
        // As long as fits, and one more; and as nobody may register.
        let edge = [HERE - 1, HERE, 1_000].map(|length| "x".repeat(length));
        let names =
            names.into_iter().chain([(&*long, &*long)]).chain(edge.iter().map(|tenant| (&**tenant, "b")));
        let names: Vec<_> = names.map(|(tenant, id)| NameRef(tenant, id)).collect();
        for of in &names {
            let name = Name::new(*of);
            assert_eq!(name.parts(), *of);
            assert_eq!(names.iter().filter(|of| name.is(**of)).collect::<Vec<_>>(), [of]);
        }
    }

    #[test]
    fn names_of_equal_length_are_told_apart_by_every_byte() {
        for length in 1..2 * HERE {
            let text = "x".repeat(length);
            for split in [0, length / 2, length] {
                let (tenant, id) = text.split_at(split);
                let name = Name::new(NameRef(tenant, id));
                assert!(name.is(NameRef(tenant, id)));
                for at in 0..length {
                    let mut other = text.clone();
                    other.replace_range(at..=at, "y");
                    let (tenant, id) = other.split_at(split);
                    assert!(!name.is(NameRef(tenant, id)), "byte {at} of {length}");
                }
            }
        }
    }
}
