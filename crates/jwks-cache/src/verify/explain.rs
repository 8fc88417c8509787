//! Which key would verify a token, or why none: for people who wonder. Nothing is counted, started or waited for.

use std::fmt;

use jwks_cache_core::Algorithm;
use jwks_cache_core::token::{Compact, Fault, Header, Malformed, Part, Room, text};
use serde::Serialize;

use super::error::VerifyError;
use super::{HEADER, Opened, Scoped};
use crate::resolve::{self, OneKey};
use crate::status::{KeyStatus, shown_kid};

/// What [`Verifier::explain`](super::Verifier::explain) finds. It may hold what no client should be told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Explanation {
    /// The header's algorithm, if it is one that could be accepted.
    pub algorithm: Option<Algorithm>,
    /// The header's kid, escaped, and cut after 128 characters.
    pub kid: Option<String>,
    /// The tenant of the provider whose keys were looked at.
    pub tenant_id: Option<String>,
    /// The provider whose keys were looked at.
    pub provider_id: Option<String>,
    /// The thumbprint of the key that would verify it.
    pub thumbprint: Option<String>,
    /// Why none would.
    pub why_not: Option<String>,
    /// The provider's keys of that kid; all of them, where the header names none or one that is not there.
    pub keys: Vec<KeyStatus>,
}

/// One line.
impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let (Some(tenant), Some(provider)) = (&self.tenant_id, &self.provider_id) {
            write!(f, "{tenant}/{provider}: ")?;
        }
        match (&self.thumbprint, &self.why_not) {
            (Some(thumbprint), _) => write!(f, "the key {thumbprint} would verify it"),
            (None, Some(why)) => f.write_str(why),
            (None, None) => f.write_str("no key would verify it"),
        }
    }
}

pub(super) fn explain(scoped: &Scoped<'_>, token: &str) -> Explanation {
    let mut it = Explanation {
        algorithm: None,
        kid: None,
        tenant_id: None,
        provider_id: None,
        thumbprint: None,
        why_not: None,
        keys: Vec::new(),
    };
    if let Err(why) = fill(&mut it, scoped, token) {
        it.why_not = Some(why.detail().to_string());
    }
    it
}

fn fill(it: &mut Explanation, scoped: &Scoped<'_>, token: &str) -> Result<(), VerifyError> {
    let rules = &scoped.of.rules;
    if token.len() > rules.max_bytes {
        return Err(Fault::from(Malformed::TooLong).into());
    }
    let is_json = token.trim_start().starts_with('{');
    let whole =
        if token.contains('.') && !is_json { Some(Compact::split(token, rules.max_bytes)?) } else { None };
    let mut room = Room::<HEADER>::new();
    let json = match whole {
        Some(parts) => text(room.decode(parts.header(), Part::Header)?, Part::Header)?,
        None if is_json => token,
        None => text(room.decode(token.trim(), Part::Header)?, Part::Header)?,
    };
    let header = Header::read(json)?;
    let kid = header.kid.as_deref();
    (it.algorithm, it.kid) = (Some(header.algorithm), kid.map(shown_kid));
    rules.check_header(&header)?;

    let (mut payload, mut signature) = (Room::new(), Room::new());
    let opened = whole.map(|parts| Opened::new(parts, &mut payload, &mut signature)).transpose()?;
    let (issuer, of_entra) = match opened {
        _ if !scoped.scope.asks_for_issuer() => ("".into(), None),
        Some(mut opened) => opened.claimed_issuer(rules)?,
        None => return Err(VerifyError::UnknownProvider),
    };
    let provider = scoped.with_provider(&issuer, of_entra.as_deref(), |front| {
        (it.tenant_id, it.provider_id) = (Some(front.tenant().to_owned()), Some(front.id().to_owned()));
        front.provider()
    })?;
    let provider = provider.ok_or(VerifyError::UnknownProvider)?;
    let keys = provider.key_statuses();
    let named = |key: &KeyStatus| it.kid.is_some() && key.kid == it.kid;
    let some_named = keys.iter().any(named);
    it.keys = keys.iter().filter(|key| !some_named || named(key)).cloned().collect();
    match resolve::peek(&provider, &OneKey { kid, algorithm: header.algorithm }) {
        Ok(key) => it.thumbprint = Some(key.thumbprint().to_string()),
        Err(why) => return Err(VerifyError::of_lookup(why, &provider.front, kid)),
    }
    Ok(())
}
