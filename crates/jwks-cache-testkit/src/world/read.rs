//! Readers: what they ask for, and whether the answer is one that the law allows (I1, I2, I3, I5) in a
//! time that it allows (I8).

use std::time::Duration;

use jwks_cache::jsonwebtoken::jwk::AlgorithmParameters;
use jwks_cache::{Algorithm, Error, ErrorKind, KeyError, Registry};

use super::document::{Kid, Material, material_of_thumbprint, material_of_x, name};
use super::law::{Allowed, Seen, shown, stray};
use super::scene::{Scene, Shared, TICK, provider, tenant};

pub(super) const READS: &[&str] =
    &["resolve", "resolve by kid", "key", "key without kid", "key of a bogus kid"];
pub(super) const ANSWERS: &[&str] = &[
    "at once",
    "expired",
    "retiring",
    "after a wait",
    "unknown kid",
    "denied",
    "no single key",
    "unavailable",
    "not registered",
    "dropped",
];

/// No wait is longer, whatever is set here.
const HANGS: Duration = Duration::from_secs(60);

/// What a reader asks for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    pub(super) whole: bool,
    pub(super) kid: Option<Kid>,
    /// The caller goes away after this.
    pub(super) patience: Option<Duration>,
}

enum Got {
    Set(Vec<(Kid, Material)>),
    Key(Material),
    Nothing(Error),
}

/// One read, from asking to judging.
pub(super) async fn read(world: Shared, registry: Registry, slot: usize, wanted: Wanted) {
    let (mark, began) = {
        let mut scene = world.lock();
        let kind = match (wanted.whole, wanted.kid) {
            (true, None) => READS[0],
            (true, Some(_)) => READS[1],
            (false, Some(kid)) if kid < 8 => READS[2],
            (false, None) => READS[3],
            (false, Some(_)) => READS[4],
        };
        scene.note(slot, "read", kind, "");
        let now = scene.now();
        (scene.sites[slot].book.begin_reading(now), scene.clock.socket())
    };
    let lookup = async {
        let (tenant, kid) = (tenant(slot), wanted.kid.map(name));
        if wanted.whole {
            match registry.resolve(&tenant, provider(slot), kid.as_deref()).await {
                Ok(set) => Got::Set(set.keys.iter().map(shown_key).collect()),
                Err(error) => Got::Nothing(error),
            }
        } else {
            match registry.key(&tenant, provider(slot), kid.as_deref(), Algorithm::EdDSA).await {
                Ok(key) => {
                    let thumbprint = key.thumbprint().to_string();
                    Got::Key(material_of_thumbprint(&thumbprint).unwrap_or(Material::MAX))
                }
                Err(error) => Got::Nothing(error),
            }
        }
    };
    let got = tokio::time::timeout(wanted.patience.unwrap_or(HANGS), lookup).await;
    let mut scene = world.lock();
    let (now, took) = (scene.now(), scene.clock.socket() - began);
    let seen = scene.sites[slot].book.end_reading(mark, now);
    let Ok(got) = got else {
        match wanted.patience {
            Some(_) => scene.note(slot, "answer", "dropped", ""),
            None => scene.blame(slot, format!("I8: {wanted:?} still waits after {took:?}")),
        }
        return;
    };
    judge(&mut scene, slot, wanted, &got, &seen, took);
}

fn shown_key(key: &jwks_cache::jsonwebtoken::jwk::Jwk) -> (Kid, Material) {
    let material = match &key.algorithm {
        AlgorithmParameters::OctetKeyPair(pair) => material_of_x(&pair.x),
        _ => None,
    };
    (shown(key.common.key_id.as_deref()), material.unwrap_or(Material::MAX))
}

fn judge(scene: &mut Scene, slot: usize, wanted: Wanted, got: &Got, seen: &Seen, took: Duration) {
    let of = |got: &Got| match got {
        Got::Set(keys) => keys.iter().map(|(_, material)| *material).collect(),
        Got::Key(material) => vec![*material],
        Got::Nothing(_) => Vec::new(),
    };
    let allowed = seen.iter().any(|(state, from, to)| match got {
        // What was servable when the flight brought it, or when the reader came.
        Got::Set(keys) => state.is_servable(*from) && state.listed() == *keys,
        Got::Key(key) => state.is_servable(*from) && state.key(wanted.kid, *from) == Allowed::One(*key),
        Got::Nothing(Error::NotRegistered { .. }) => state.registration.is_none(),
        Got::Nothing(_) => {
            let answers = wanted.whole || state.key(wanted.kid, *to) != Allowed::Nothing;
            !(state.registration.is_some() && state.is_servable(*to) && answers)
        }
    });
    if !allowed {
        let law = match got {
            Got::Set(_) | Got::Key(_) if stray(slot, of(got)).is_some() => "I5: another provider's key",
            Got::Set(_) if seen.iter().any(|(state, from, _)| state.is_servable(*from)) => {
                "I1: not a set that was published"
            }
            Got::Set(_) | Got::Key(_) => "I2: a key that may not be used",
            Got::Nothing(_) => "I1: keys are held, but the answer is none",
        };
        let error = if let Got::Nothing(error) = got { error.to_string() } else { String::new() };
        scene.blame(slot, format!("{law}: {wanted:?} got {:?} {error}", of(got)));
    }
    let most = longest(wanted, seen);
    if took > most + TICK {
        scene.blame(slot, format!("I8: {wanted:?} took {took:?}, not {most:?}"));
    }
    let kind = kind(wanted, got, seen, took);
    scene.note(slot, "answer", kind, "");
}

/// How long this may have taken.
fn longest(wanted: Wanted, seen: &Seen) -> Duration {
    let under: Vec<_> = seen.iter().filter_map(|(state, ..)| state.registration.clone()).collect();
    let of = |span: fn(&jwks_cache::IdentityProviderRegistration) -> Duration| {
        under.iter().map(|under| span(under)).max().unwrap_or_default()
    };
    let (stale_wait, kid_wait) = (of(|under| under.stale_wait), of(|under| under.kid_miss_wait));
    let Some((first, from, _)) = seen.first() else { return Duration::ZERO };
    let missing = wanted.kid.is_some_and(|kid| seen.iter().any(|(state, ..)| state.misses(kid)));
    let kid_wait = if missing { kid_wait } else { Duration::ZERO };
    let same =
        under.len() == seen.len() && under.windows(2).all(|two| std::sync::Arc::ptr_eq(&two[0], &two[1]));
    if same && first.is_fresh(*from) {
        kid_wait
    } else if same && seen.iter().all(|(state, _, to)| state.is_servable(*to)) {
        stale_wait.max(kid_wait)
    } else {
        of(|under| under.retry_policy.deadline).max(kid_wait) + stale_wait
    }
}

fn kind(wanted: Wanted, got: &Got, seen: &Seen, took: Duration) -> &'static str {
    let now = seen.last();
    match got {
        Got::Nothing(Error::NotRegistered { .. }) => "not registered",
        Got::Nothing(Error::Key(KeyError::UnknownKid)) => "unknown kid",
        Got::Nothing(Error::Key(KeyError::Denied)) => "denied",
        Got::Nothing(Error::Key(KeyError::Ambiguous | KeyError::NoMatch)) => "no single key",
        Got::Nothing(error) if error.kind() == ErrorKind::KeysUnavailable => "unavailable",
        Got::Nothing(_) => "another error",
        Got::Key(_) if now.is_some_and(|(state, ..)| wanted.kid.is_some_and(|kid| state.misses(kid))) => {
            "retiring"
        }
        _ if now.is_some_and(|(state, _, to)| !state.is_fresh(*to)) => "expired",
        _ if took > Duration::ZERO => "after a wait",
        _ => "at once",
    }
}
