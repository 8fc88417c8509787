//! A provider's name in its registry: tenant and id.

use std::hash::{BuildHasher, Hasher};
use std::str;

/// As one text, for ids hold no `/`. Most stand in place: of many providers, each line of memory comes from far away.
#[derive(Debug)]
pub(crate) enum Name {
    Here { length: u8, text: [u8; HERE] },
    There(Box<[u8]>),
}

/// As much as makes the front of a provider two lines of memory.
const HERE: usize = 70;

/// The same, borrowed in parts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NameRef<'a>(pub(crate) &'a str, pub(crate) &'a str);

impl Name {
    pub(crate) fn new(NameRef(tenant, id): NameRef<'_>) -> Self {
        let name = [tenant, id].join("/").into_bytes();
        let mut text = [0; HERE];
        match (text.get_mut(..name.len()), u8::try_from(name.len())) {
            (Some(here), Ok(length)) => {
                here.copy_from_slice(&name);
                Self::Here { length, text }
            }
            _ => Self::There(name.into()),
        }
    }

    #[inline]
    fn text(&self) -> &[u8] {
        match self {
            Self::Here { length, text } => text.get(..usize::from(*length)).unwrap_or_default(),
            Self::There(text) => text,
        }
    }

    /// Both parts.
    pub(crate) fn parts(&self) -> NameRef<'_> {
        let text = str::from_utf8(self.text()).unwrap_or_default();
        // It was joined of two.
        let (tenant, id) = text.split_once('/').unwrap_or_default();
        NameRef(tenant, id)
    }

    #[inline]
    pub(crate) fn is(&self, NameRef(tenant, id): NameRef<'_>) -> bool {
        let (name, tenant, id) = (self.text(), tenant.as_bytes(), id.as_bytes());
        name.len() == tenant.len() + 1 + id.len()
            && name.get(tenant.len()) == Some(&b'/')
            && name.starts_with(tenant)
            && name.ends_with(id)
    }
}

impl NameRef<'_> {
    /// What separates the parts is not hashed.
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
        let names = [("a", "b"), ("ab", "b"), ("a", "bb"), ("a", &long), (&long, "b"), (&long, &long)];
        // As long as fits, and one more.
        let edge = ["x".repeat(HERE - 2), "x".repeat(HERE - 1)];
        let names = names.into_iter().chain(edge.iter().map(|tenant| (tenant.as_str(), "b")));
        let names: Vec<_> = names.collect();
        for &(tenant, id) in &names {
            let name = Name::new(NameRef(tenant, id));
            let NameRef(its_tenant, its_id) = name.parts();
            assert_eq!((its_tenant, its_id), (tenant, id));
            let found: Vec<_> = names.iter().filter(|of| name.is(NameRef(of.0, of.1))).collect();
            assert_eq!(found, [&(tenant, id)]);
        }
    }
}
