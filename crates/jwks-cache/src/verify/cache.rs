//! Tokens that were verified before, by the digest of every byte of them. What is found here must still be judged:
//! this room does not know times or keys.

use std::any::{Any, TypeId};
use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest;
use jwks_cache_core::token::Times;
use quick_cache::sync::Cache;
use quick_cache::{DefaultHashBuilder, OptionsBuilder, Weighter};
use serde_json::Value;

use super::verified::{Inner, Verified};

/// The SHA-256 of a whole token, signature included.
pub(super) type Digest = [u8; 32];

pub(super) fn digest(token: &str) -> Digest {
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, token.as_bytes()).as_ref());
    out
}

/// The cache of one verifier: what another has verified was held to other rules.
///
/// Only tokens whose signature and claims were good are in it, so made-up ones push nothing out; and of those
/// that are, the ones used again outlive those used once.
pub(super) struct Tokens(Cache<(Digest, TypeId), Arc<Entry>, ByWeight>);

/// A verified token, and what made it so: all of it must still hold. It keeps nothing alive but the claims.
pub(super) struct Entry {
    verified: Arc<dyn Any + Send + Sync>,
    /// Whether its header names the key; then its key's kid is that name.
    pub(super) names_key: bool,
    pub(super) issuer: Option<Box<str>>,
    /// Entra's name for its tenant, by which keys may be bound.
    pub(super) entra_tenant: Option<Box<str>>,
    pub(super) times: Times,
    weight: u64,
}

impl Entry {
    /// An entry for claims that `text` is the JSON of.
    pub(super) fn new<C: Send + Sync + 'static>(
        verified: &Verified<C>,
        names_key: bool,
        issuer: Option<&str>,
        entra_tenant: Option<&str>,
        times: Times,
        text: &str,
    ) -> Arc<Self> {
        let said: usize = [issuer, entra_tenant].into_iter().flatten().map(|text| PIECE + text.len()).sum();
        let inner = verified.inner();
        let weight = OVERHEAD + size_of::<Inner<C>>() + PIECE + inner.by.beside() + said + tree(text);
        let [issuer, entra_tenant] = [issuer, entra_tenant].map(|text| text.map(Box::from));
        Arc::new(Self {
            verified: inner.clone(),
            names_key,
            issuer,
            entra_tenant,
            times,
            weight: weight as u64,
        })
    }

    /// The token, if its claims are of that type.
    pub(super) fn verified<C: Send + Sync + 'static>(&self) -> Option<Verified<C>> {
        self.verified.clone().downcast::<Inner<C>>().ok().map(Verified::shared)
    }
}

/// What an entry takes besides what it holds: itself, its digest, its place in the table.
const OVERHEAD: usize = size_of::<Entry>() + 192;

/// What an allocator adds to a piece, at most.
const PIECE: usize = 32;

/// What JSON takes as a tree of values, at most: its texts, and for each mark what stands behind it. A list doubles
/// as it grows, from four; an object begins with a whole node of a B-tree, and fills later ones by half.
fn tree(text: &str) -> usize {
    const VALUE: usize = size_of::<Value>();
    const MEMBER: usize = VALUE + size_of::<String>();
    let bytes = text.as_bytes();
    let after = bytes.iter().skip(1).chain(&[0]);
    bytes.iter().zip(after).fold(0, |sum, (byte, next)| {
        sum + match (byte, next) {
            (b'{', b'}') | (b'[', b']') => 1,
            (b'{', _) => 12 * MEMBER + PIECE,
            (b'[', _) => 4 * VALUE + PIECE,
            (b':', _) => 2 * MEMBER,
            (b',', _) => 2 * VALUE,
            (b'"', _) => PIECE / 2,
            _ => 1,
        }
    })
}

#[derive(Clone)]
struct ByWeight;

impl Weighter<(Digest, TypeId), Arc<Entry>> for ByWeight {
    fn weight(&self, _: &(Digest, TypeId), entry: &Arc<Entry>) -> u64 {
        entry.weight
    }
}

impl Tokens {
    pub(super) fn new(bytes: usize) -> Self {
        /// Most tokens.
        const USUAL: usize = 2048;
        let items = (bytes / USUAL).max(1);
        let options = OptionsBuilder::new()
            .estimated_items_capacity(items)
            .weight_capacity(bytes as u64)
            .build()
            .expect("both capacities are given");
        Self(Cache::with_options(options, ByWeight, DefaultHashBuilder::default(), Default::default()))
    }

    pub(super) fn get<C: 'static>(&self, token: &Digest) -> Option<Arc<Entry>> {
        self.0.get(&(*token, TypeId::of::<C>()))
    }

    pub(super) fn insert<C: 'static>(&self, token: Digest, entry: Arc<Entry>) {
        self.0.insert((token, TypeId::of::<C>()), entry);
    }

    pub(super) fn remove<C: 'static>(&self, token: &Digest) {
        self.0.remove(&(*token, TypeId::of::<C>()));
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").field("tokens", &self.0.len()).field("bytes", &self.0.weight()).finish()
    }
}
