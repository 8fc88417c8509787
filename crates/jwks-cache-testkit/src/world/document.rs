//! Key sets as the world's providers publish them, with keys that are known by number.

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::LazyLock;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};

use crate::key::encode;

/// Key material by number. Every provider has 16 of its own, 8 for each of two sources in turn.
pub(super) type Material = usize;

const PROVIDERS: usize = 6;
const PER_SOURCE: usize = 8;

/// The material of a source, by place.
pub(super) fn material(slot: usize, source: u64, place: u32) -> Material {
    slot * 2 * PER_SOURCE + usize::from(source % 2 == 1) * PER_SOURCE + place as usize % PER_SOURCE
}

/// Whose material it is.
pub(super) fn owner(material: Material) -> usize {
    material / (2 * PER_SOURCE)
}

/// A key ID: below 8 one that providers use, all of them the same ones; any other is an attacker's.
pub(super) type Kid = u32;

pub(super) fn name(kid: Kid) -> String {
    if kid < PER_SOURCE as u32 { format!("k{kid}") } else { format!("x{kid}") }
}

pub(super) fn kid_of(name: &str) -> Option<Kid> {
    name.get(1..)?.parse().ok()
}

/// What a published key is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// Verifying.
    Signature,
    /// Encryption: well-formed, but it verifies nothing.
    Encryption,
    /// Verifying, but other material stands under the same kid, so it verifies nothing either.
    Twin,
    /// It carries its private half, so it is left out whole.
    Leaked,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Published {
    pub(super) kid: Kid,
    pub(super) material: Material,
    pub(super) good_for: Use,
}

impl Published {
    pub(super) fn new(kid: Kid, material: Material) -> Self {
        Self { kid, material, good_for: Use::Signature }
    }
}

/// A document and what it means.
#[derive(Debug, Default)]
pub(super) struct Document {
    pub(super) number: u64,
    pub(super) keys: Vec<Published>,
}

impl Document {
    pub(super) fn body(&self) -> String {
        let mut body = String::from("{\"keys\":[");
        for (at, key) in self.keys.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            let good_for = if key.good_for == Use::Encryption { "enc" } else { "sig" };
            let private = if key.good_for == Use::Leaked { ",\"d\":\"AAAA\"" } else { "" };
            let (kid, x) = (name(key.kid), &POOL.keys[key.material].x);
            let _ = write!(
                body,
                "{comma}{{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"use\":\"{good_for}\",\"kid\":\"{kid}\",\"x\":\"{x}\"{private}}}"
            );
        }
        body + "]}"
    }

    /// The keys that verify.
    pub(super) fn usable(&self) -> impl Iterator<Item = &Published> {
        self.keys.iter().filter(|key| key.good_for == Use::Signature)
    }

    /// The keys that `resolve` shows.
    pub(super) fn listed(&self) -> impl Iterator<Item = &Published> {
        self.keys.iter().filter(|key| key.good_for != Use::Leaked)
    }

    pub(super) fn mentions(&self, kid: Kid) -> bool {
        self.keys.iter().any(|key| key.kid == kid)
    }
}

/// The key material whose public half is `x`.
pub(super) fn material_of_x(x: &str) -> Option<Material> {
    POOL.by_x.get(x).copied()
}

pub(super) fn material_of_thumbprint(thumbprint: &str) -> Option<Material> {
    POOL.by_thumbprint.get(thumbprint).copied()
}

pub(super) fn thumbprint_of(material: Material) -> &'static str {
    &POOL.keys[material].thumbprint
}

struct Pool {
    keys: Vec<PublicKey>,
    by_x: HashMap<String, Material>,
    by_thumbprint: HashMap<String, Material>,
}

struct PublicKey {
    x: String,
    thumbprint: String,
}

/// Made from their numbers, once, so that every run has the same.
static POOL: LazyLock<Pool> = LazyLock::new(|| {
    let made = |number: usize| {
        let seed = [u8::try_from(number).expect("there are fewer than 256"); 32];
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).expect("any 32 bytes are a seed");
        let x = encode(pair.public_key());
        // RFC 7638 §3, with the members of RFC 8037 §2.
        let members = format!("{{\"crv\":\"Ed25519\",\"kty\":\"OKP\",\"x\":\"{x}\"}}");
        let thumbprint = encode(digest(&SHA256, members.as_bytes()));
        PublicKey { x, thumbprint }
    };
    let keys: Vec<PublicKey> = (0..PROVIDERS * 2 * PER_SOURCE).map(made).collect();
    let by_x = keys.iter().enumerate().map(|(number, key)| (key.x.clone(), number)).collect();
    let by_thumbprint =
        keys.iter().enumerate().map(|(number, key)| (key.thumbprint.clone(), number)).collect();
    Pool { keys, by_x, by_thumbprint }
});
