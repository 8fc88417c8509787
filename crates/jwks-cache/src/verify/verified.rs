//! What verifying a token gives: its claims, typed, and the key that vouches for them.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use jwks_cache_core::Algorithm;
use jwks_cache_core::key::{KeyRef, Thumbprint};
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::front::Front;

/// A verified token. Cloning it is cheap; it gives its claims by [`Deref`].
pub struct Verified<C>(Arc<Inner<C>>);

pub(super) struct Inner<C> {
    claims: C,
    pub(super) by: By,
    expires_at: Option<i64>,
}

/// Whose key verified it: by value, for a token that is remembered must keep no key set and no provider alive.
pub(super) struct By {
    /// The provider of that number, which no other has in its registry.
    serial: u64,
    thumbprint: Thumbprint,
    algorithm: Algorithm,
    /// Tenant, provider and kid, one after another.
    names: Box<str>,
    tenant: usize,
    kid: Option<usize>,
}

impl By {
    pub(super) fn new(provider: &Front, key: KeyRef<'_>) -> Self {
        let (tenant, id, kid) = (provider.tenant(), provider.id(), key.kid());
        Self {
            serial: provider.serial,
            thumbprint: key.thumbprint(),
            algorithm: key.algorithm(),
            names: [tenant, id, kid.unwrap_or_default()].concat().into(),
            tenant: tenant.len(),
            kid: kid.map(|_| tenant.len() + id.len()),
        }
    }

    pub(super) fn kid(&self) -> Option<&str> {
        self.names.get(self.kid?..)
    }

    /// The bytes that it has beside itself.
    pub(super) fn beside(&self) -> usize {
        self.names.len()
    }
}

impl<C> Verified<C> {
    pub(super) fn new(claims: C, by: By, expires_at: Option<i64>) -> Self {
        Self(Arc::new(Inner { claims, by, expires_at }))
    }

    pub(super) fn shared(inner: Arc<Inner<C>>) -> Self {
        Self(inner)
    }

    pub(super) fn inner(&self) -> &Arc<Inner<C>> {
        &self.0
    }

    pub(super) fn serial(&self) -> u64 {
        self.0.by.serial
    }

    /// The claims.
    #[must_use]
    pub fn claims(&self) -> &C {
        &self.0.claims
    }

    /// The claims, by value; cloned where a cache of verified tokens or a clone of this holds them too.
    #[must_use]
    pub fn into_claims(self) -> C
    where
        C: Clone,
    {
        Arc::try_unwrap(self.0).map_or_else(|shared| shared.claims.clone(), |inner| inner.claims)
    }

    /// The ID of the key that verified it.
    #[must_use]
    pub fn kid(&self) -> Option<&str> {
        self.0.by.kid()
    }

    /// The RFC 7638 thumbprint of the key that verified it.
    #[must_use]
    pub fn thumbprint(&self) -> Thumbprint {
        self.0.by.thumbprint
    }

    /// The algorithm of its signature.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.0.by.algorithm
    }

    /// The tenant whose provider's key verified it.
    #[must_use]
    pub fn tenant_id(&self) -> &str {
        let By { names, tenant, .. } = &self.0.by;
        names.get(..*tenant).unwrap_or_default()
    }

    /// The provider whose key verified it.
    #[must_use]
    pub fn provider_id(&self) -> &str {
        let By { names, tenant, kid, .. } = &self.0.by;
        names.get(*tenant..kid.unwrap_or(names.len())).unwrap_or_default()
    }

    /// `exp`: when it expires; whole milliseconds.
    #[must_use]
    pub fn expires_at(&self) -> Option<DateTime<Utc>> {
        self.0.expires_at.and_then(DateTime::from_timestamp_millis)
    }
}

impl<C> Deref for Verified<C> {
    type Target = C;

    fn deref(&self) -> &C {
        &self.0.claims
    }
}

impl<C> Clone for Verified<C> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

/// Leaves the claims out: they may be nothing for a log.
impl<C> fmt::Debug for Verified<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verified")
            .field("tenant", &self.tenant_id())
            .field("provider", &self.provider_id())
            .field("kid", &self.kid())
            .field("thumbprint", &self.thumbprint())
            .field("algorithm", &self.algorithm())
            .finish_non_exhaustive()
    }
}

/// The claims of RFC 7519 §4.1. Use it as the type of a token's claims, or with `#[serde(flatten)]` inside one of
/// your own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct StandardClaims {
    /// The issuer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iss: Option<String>,
    /// The subject: who the token is about, as that issuer calls them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sub: Option<String>,
    /// The audience; read from one text or a list.
    #[serde(default, deserialize_with = "audience", skip_serializing_if = "Vec::is_empty")]
    pub aud: Vec<String>,
    /// Expires at.
    #[serde(default, with = "numeric_date", skip_serializing_if = "Option::is_none")]
    pub exp: Option<DateTime<Utc>>,
    /// Not valid before.
    #[serde(default, with = "numeric_date", skip_serializing_if = "Option::is_none")]
    pub nbf: Option<DateTime<Utc>>,
    /// Issued at.
    #[serde(default, with = "numeric_date", skip_serializing_if = "Option::is_none")]
    pub iat: Option<DateTime<Utc>>,
    /// The token's own ID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jti: Option<String>,
}

fn audience<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    struct OneOrMany;
    impl<'de> Visitor<'de> for OneOrMany {
        type Value = Vec<String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a string or a list of strings")
        }

        fn visit_str<E>(self, one: &str) -> Result<Vec<String>, E> {
            Ok(vec![one.to_owned()])
        }

        fn visit_seq<S: SeqAccess<'de>>(self, mut many: S) -> Result<Vec<String>, S::Error> {
            let mut audience = Vec::new();
            while let Some(one) = many.next_element()? {
                audience.push(one);
            }
            Ok(audience)
        }
    }
    deserializer.deserialize_any(OneOrMany)
}

/// NumericDate (RFC 7519 §2): seconds since 1970, maybe with a fraction, of which milliseconds are kept.
mod numeric_date {
    use super::*;

    pub(super) fn serialize<S: Serializer>(
        date: &Option<DateTime<Utc>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        date.map(|date| date.timestamp()).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<DateTime<Utc>>, D::Error> {
        let Some(seconds) = Option::<f64>::deserialize(deserializer)? else { return Ok(None) };
        #[expect(clippy::cast_possible_truncation, reason = "it saturates, and that is no date")]
        let date = DateTime::from_timestamp_millis((seconds * 1000.0).floor() as i64);
        date.map(Some).ok_or_else(|| serde::de::Error::custom("no date"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn standard_claims_read_what_they_write_and_audiences_of_both_forms() {
        let read = |json: &serde_json::Value| serde_json::from_value::<StandardClaims>(json.clone());
        let whole =
            json!({"iss": "i", "sub": "s", "aud": ["a", "b"], "exp": 3, "nbf": 2, "iat": 1, "jti": "j"});
        let claims = read(&whole).unwrap();
        assert_eq!(serde_json::to_value(&claims).unwrap(), whole);
        assert_eq!((claims.exp, claims.aud.len()), (DateTime::from_timestamp(3, 0), 2));
        assert_eq!(read(&json!({"aud": "a", "other": 1})).unwrap().aud, ["a"]);
        assert_eq!(read(&json!({})).unwrap(), StandardClaims::default());
        assert_eq!(read(&json!({"iat": 1.5})).unwrap().iat, DateTime::from_timestamp_millis(1_500));
        for wrong in [json!({"aud": 1}), json!({"aud": [1]}), json!({"exp": "3"}), json!({"iat": 1e300})] {
            assert!(read(&wrong).is_err(), "{wrong}");
        }
    }
}
