//! Readers: what they ask for, and whether the answer is one that the law allows (I1, I2, I3, I5) in a
//! time that it allows (I8).

use std::time::Duration;

use jwks_cache::jsonwebtoken::jwk::AlgorithmParameters;
use jwks_cache::{Algorithm, Error, ErrorKind, KeyError, Moment, Registry};

use super::act::HANGS;
use super::document::{Kid, Material, material_of_thumbprint, material_of_x, name};
use super::law::{Seen, shown, stray};
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
        let (now, socket) = (scene.now(), scene.clock.socket());
        scene.sites[slot].budget.asked(socket);
        (scene.sites[slot].book.begin_reading(now), socket)
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
    scene.sites[slot].budget.read(now);
    judge(&mut scene, slot, wanted, &got, &seen, took);
}

/// Whether a text tells of another provider than this.
pub(super) fn names_another(slot: usize, text: &str) -> bool {
    let this = [
        ("tenant-", format!("{}/{} ", tenant(slot), provider(slot))),
        ("//p", format!("//p{slot}.example/")),
    ];
    this.iter().any(|(mark, this)| text.match_indices(mark).any(|(at, _)| !text[at..].starts_with(this)))
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
    let Some((state, _, now)) = seen.last() else { return };
    // What a flight brought that was granted no time at all (`http_strict`) is for those who waited for it.
    let serves = |since: Moment| state.is_servable(*now) || state.was_brought_for_nothing_else(since);
    let served = seen.first().is_some_and(|(_, came, _)| serves(*came));
    let allowed = match got {
        Got::Set(keys) => served && state.listed() == *keys,
        Got::Key(key) => served && state.key(wanted.kid, *now) == Ok(*key),
        Got::Nothing(Error::NotRegistered { .. }) => {
            seen.iter().any(|(state, ..)| state.registration.is_none())
        }
        Got::Nothing(Error::Key(KeyError::Denied)) if !served => {
            wanted.kid.is_some_and(|kid| state.denied.contains_key(&name(kid)))
        }
        Got::Nothing(Error::Key(why)) => served && !wanted.whole && state.key(wanted.kid, *now) == Err(*why),
        Got::Nothing(error) => error.kind() == ErrorKind::KeysUnavailable && !state.is_servable(*now),
    };
    if !allowed {
        let law = match got {
            Got::Set(_) | Got::Key(_) if stray(slot, of(got)).is_some() => "I5: another provider's key",
            Got::Set(_) if served => "I1: not the set that was published",
            Got::Set(_) | Got::Key(_) => "I2: a key that may not be used",
            Got::Nothing(_) if served => "I1: keys are held, but the answer is none, or for another reason",
            Got::Nothing(_) => "I2: no keys are held, but the answer is for another reason",
        };
        let error = if let Got::Nothing(error) = got { error.to_string() } else { String::new() };
        let (key, set) = (state.key(wanted.kid, *now), state.listed());
        let want = if wanted.whole { format!("{set:?}") } else { format!("{key:?}") };
        scene.blame(slot, format!("{law}: {wanted:?} got {:?} {error}, not {want}", of(got)));
    }
    // A `KeyError` names nobody.
    if let Got::Nothing(error) = got
        && !matches!(error, Error::Key(_))
    {
        let of_this = error.provider().is_none_or(|of| of == (&*tenant(slot), provider(slot)));
        let sources = seen.iter().filter_map(|(state, ..)| state.registration.as_ref());
        let asked = error.url().is_none_or(|url| sources.clone().any(|under| under.jwks_url == *url));
        let text = error.to_string();
        if !of_this || !asked || names_another(slot, &text) {
            scene.blame(slot, format!("I5: an error of another provider or source: {text}"));
        }
    }
    let most = longest(wanted, seen);
    if took > most + TICK {
        scene.blame(slot, format!("I8: {wanted:?} took {took:?}, not {most:?}"));
    }
    let kind = kind(wanted, got, seen, took);
    match got {
        Got::Nothing(error) => scene.note(slot, "answer", kind, error),
        Got::Set(_) | Got::Key(_) => scene.note(slot, "answer", kind, format_args!("{:?}", of(got))),
    }
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
    // What ends during a wait is waited for anew.
    let at_hand = same && seen.iter().all(|(state, _, to)| state.is_servable(*to));
    if at_hand && first.is_fresh(*from) {
        kid_wait
    } else if at_hand {
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
