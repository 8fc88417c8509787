//! Each check of a token by itself, whatever the others said. It explains; it decides nothing.

use chrono::DateTime;
use jwks_cache_core::keyset::KeySet;
use jwks_cache_core::token::{
    ClaimRules, Claims, Compact, DEFAULT_MAX_TOKEN_BYTES, Header, Part, Room, Times, key_issuer_fits, text,
};
use serde::Serialize;
use serde_json::Value;

/// Most parts of a token fit.
const ROOM: usize = 1024;

/// One check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Check {
    pub(super) name: &'static str,
    pub(super) state: State,
    /// Why; for people.
    pub(super) why: String,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum State {
    Passed,
    Failed,
    /// Nobody asked for it.
    NotAsked,
    /// There was nothing to check it on.
    NotReached,
}

/// What is asked of the token.
pub(super) struct Asked<'a> {
    pub(super) issuer: Option<&'a str>,
    pub(super) types: &'a [String],
    pub(super) rules: &'a ClaimRules,
    /// Milliseconds since 1970.
    pub(super) now: i64,
}

/// Header and claims as JSON, as far as they are. Nothing is verified.
pub(super) fn contents(token: &str) -> (Option<Value>, Option<Value>) {
    let mut parts = token.split('.');
    let mut next = |part| {
        let mut room = Room::<ROOM>::new();
        let encoded = parts.next().filter(|part| part.len() <= DEFAULT_MAX_TOKEN_BYTES)?;
        serde_json::from_slice::<Value>(room.decode(encoded, part).ok()?).ok().filter(Value::is_object)
    };
    (next(Part::Header), next(Part::Claims))
}

/// All checks, in the order in which a verifier makes them.
pub(super) fn checks(token: &str, keys: Option<&KeySet>, asked: &Asked<'_>) -> Vec<Check> {
    let mut list = Vec::new();
    let (mut header_room, mut claims_room, mut signature_room) =
        (Room::<ROOM>::new(), Room::<ROOM>::new(), Room::<ROOM>::new());
    let parts = Compact::split(token, DEFAULT_MAX_TOKEN_BYTES);
    let header = parts.and_then(|parts| {
        let json = text(header_room.decode(parts.header(), Part::Header)?, Part::Header)?;
        Header::read(json)
    });
    let signature =
        parts.and_then(|parts| Ok((parts, signature_room.decode(parts.signature(), Part::Signature)?)));
    let claims = parts.and_then(|parts| {
        let json = text(claims_room.decode(parts.payload(), Part::Claims)?, Part::Claims)?;
        Claims::read(json, asked.rules)
    });
    let mut add = |name, (state, why): (State, String)| list.push(Check { name, state, why });

    let form = match (&header, &signature, &claims) {
        (Err(fault), ..) | (_, Err(fault), _) | (.., Err(fault)) => fail(fault),
        (Ok(header), ..) => pass(format!("a signed token, {}", header.algorithm.as_str())),
    };
    add("form", form);

    add(
        "type",
        match (&header, asked.types) {
            (_, []) => not_asked("--typ"),
            (Err(_), _) => not_reached("no header"),
            (Ok(header), types) => {
                let said = header.typ.as_deref().unwrap_or("none");
                verdict(header.is_of_type(types), format!("it is {said}, accepted: {}", types.join(", ")))
            }
        },
    );

    let key = match (&header, keys) {
        (Err(_), _) => Err(not_reached("no header")),
        (Ok(_), None) => Err(not_asked("--issuer or --jwks")),
        (Ok(header), Some(set)) => {
            let found = set.find(header.kid.as_deref(), header.algorithm);
            found.map_err(|why| fail(format!("{why:?}: of {} usable keys none fits", set.usable().count())))
        }
    };
    add(
        "key",
        match &key {
            Ok(key) => pass(format!("kid {}", key.kid().unwrap_or("none"))),
            Err(why) => why.clone(),
        },
    );
    add(
        "signature",
        match (&key, &signature) {
            (Err(_), _) => not_reached("no key"),
            (_, Err(_)) => not_reached("no signature"),
            (Ok(key), Ok((parts, signature))) => {
                match key.verify(parts.signing_input().as_bytes(), signature) {
                    Ok(()) => pass("the key signed just this text"),
                    Err(_) => fail("the key did not sign this text"),
                }
            }
        },
    );

    let Ok(claims) = claims else {
        for name in ["issuer", "audience", "exp", "nbf"] {
            add(name, not_reached("no claims"));
        }
        return list;
    };
    let of_key = key.as_ref().ok().and_then(|key| key.key().issuer());
    add(
        "issuer",
        match (claims.issuer(), asked.issuer) {
            (Err(why), _) => fail(format!("{why:?}")),
            (Ok(issuer), wanted) => {
                let said = issuer.as_deref().unwrap_or("none");
                let of_key =
                    of_key.is_none_or(|own| key_issuer_fits(own, said, claims.entra_tenant().as_deref()));
                match wanted {
                    _ if !of_key => fail(format!("it is {said}, and the key is bound to another")),
                    None => (State::NotAsked, format!("it is {said}; asked for by --issuer")),
                    Some(wanted) => verdict(said == wanted, format!("it is {said}, wanted: {wanted}")),
                }
            }
        },
    );
    let wanted = &asked.rules.audiences;
    add(
        "audience",
        match claims.check(asked.rules) {
            _ if wanted.is_empty() => not_asked("--audience"),
            Ok(()) => pass(format!("it is for {}", wanted.join(" or "))),
            Err(why) => fail(format!("{why:?}, wanted: {}", wanted.join(" or "))),
        },
    );
    match claims.times() {
        Err(why) => {
            add("exp", fail(format!("{why:?}")));
            add("nbf", not_reached("the times cannot be read"));
        }
        Ok(times) => {
            add("exp", exp(times, asked));
            add("nbf", nbf(times, asked));
        }
    }
    list
}

fn exp(times: Times, asked: &Asked<'_>) -> (State, String) {
    let Some(exp) = times.exp else { return fail("it never expires, for want of exp") };
    let alone = Times { nbf: None, iat: None, ..times };
    let left = exp.saturating_sub(asked.now) / 1000;
    let when = if left >= 0 { format!("in {left} s") } else { format!("{} s ago", left.saturating_neg()) };
    verdict(alone.check(asked.rules, asked.now).is_ok(), format!("{}, {when}", date(exp)))
}

fn nbf(times: Times, asked: &Asked<'_>) -> (State, String) {
    let Some(nbf) = times.nbf else { return (State::NotAsked, "the token has none".to_owned()) };
    let rules = ClaimRules { may_lack_expiry: true, ..asked.rules.clone() };
    let alone = Times { exp: None, iat: None, ..times };
    verdict(alone.check(&rules, asked.now).is_ok(), date(nbf))
}

fn date(millis: i64) -> String {
    DateTime::from_timestamp_millis(millis).map_or_else(|| "no date".to_owned(), |date| date.to_rfc3339())
}

fn pass(why: impl ToString) -> (State, String) {
    (State::Passed, why.to_string())
}

fn fail(why: impl ToString) -> (State, String) {
    (State::Failed, why.to_string())
}

fn verdict(passed: bool, why: String) -> (State, String) {
    (if passed { State::Passed } else { State::Failed }, why)
}

fn not_asked(by: &str) -> (State, String) {
    (State::NotAsked, format!("asked for by {by}"))
}

fn not_reached(why: &str) -> (State, String) {
    (State::NotReached, why.to_owned())
}
