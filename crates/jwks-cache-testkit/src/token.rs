//! Tokens: what one claims, and how to take one apart again. Signing is the provider's.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Map, Value};

/// How long a token lasts that does not say.
const LIFETIME: Duration = Duration::from_secs(300);

/// The claims of a token to be minted by [`IdentityProvider::mint`](crate::IdentityProvider::mint).
///
/// Untouched, it claims the provider's issuer (`iss`), the provider's wall time (`iat`) and five minutes of
/// life (`exp`), the shortest lifetime that providers commonly give.
///
/// ```
/// use std::time::Duration;
/// use jwks_cache_testkit::{IdentityProvider, Token};
///
/// let idp = IdentityProvider::start();
/// let token = Token::new().subject("ada").audience("orders").expires_in(Duration::from_secs(60));
/// let jwt = idp.mint(&token.claim("scope", "read"));
/// # assert_eq!(jwt.split('.').count(), 3);
/// ```
#[derive(Clone, Debug, Default)]
pub struct Token {
    claims: Map<String, Value>,
    lifetime: Option<Duration>,
}

impl Token {
    /// A token that claims only what its provider adds.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Claims an issuer (`iss`) other than the provider's.
    #[must_use]
    pub fn issuer(self, issuer: &str) -> Self {
        self.claim("iss", issuer)
    }

    /// Claims an audience (`aud`).
    #[must_use]
    pub fn audience(self, audience: &str) -> Self {
        self.claim("aud", audience)
    }

    /// Claims a subject (`sub`).
    #[must_use]
    pub fn subject(self, subject: &str) -> Self {
        self.claim("sub", subject)
    }

    /// Ends (`exp`) this long after it is minted, by the provider's wall time.
    #[must_use]
    pub fn expires_in(mut self, lifetime: Duration) -> Self {
        self.lifetime = Some(lifetime);
        self
    }

    /// Claims anything. What is claimed here is not added by the provider; `null` leaves a claim out.
    #[must_use]
    pub fn claim(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.claims.insert(name.to_owned(), value.into());
        self
    }

    pub(crate) fn claims(&self, issuer: &str, now: DateTime<Utc>) -> Value {
        let lifetime = TimeDelta::from_std(self.lifetime.unwrap_or(LIFETIME)).unwrap_or(TimeDelta::MAX);
        let end = now.timestamp().saturating_add(lifetime.num_seconds());
        let added = [("iss", issuer.into()), ("iat", now.timestamp().into()), ("exp", end.into())];
        let mut claims: Map<_, _> = added.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        claims.extend(self.claims.clone());
        claims.retain(|_, value| !value.is_null());
        Value::Object(claims)
    }
}

/// Takes a compact JWS apart (RFC 7515 §3.1): its header, the signing input as text, and the signature.
///
/// `None` unless it is one. Nothing is verified.
///
/// ```
/// use jwks_cache_testkit::{IdentityProvider, Token, split};
///
/// let idp = IdentityProvider::start();
/// let jwt = idp.mint(&Token::new());
/// let (header, signing_input, signature) = split(&jwt).unwrap();
/// assert_eq!(header["kid"], idp.signing_kid());
/// // A key verifies `signature` over `signing_input.as_bytes()`.
/// # assert_eq!((signing_input.split('.').count(), signature.len()), (2, 64));
/// ```
#[must_use]
pub fn split(token: &str) -> Option<(Value, &str, Vec<u8>)> {
    let (signing_input, signature) = token.rsplit_once('.')?;
    let (header, _claims) = signing_input.split_once('.')?;
    let header = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header).ok()?).ok()?;
    Some((header, signing_input, URL_SAFE_NO_PAD.decode(signature).ok()?))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(token: &Token, want: &Value) {
        let now = DateTime::from_timestamp(1_000, 0).unwrap();
        assert_eq!(&token.claims("https://idp", now), want);
    }

    #[test]
    fn a_token_claims_what_it_says_and_the_provider_adds_the_rest() {
        check(&Token::new(), &json!({"iss": "https://idp", "iat": 1_000, "exp": 1_300}));
        let token = Token::new().issuer("x").audience("a").subject("s").expires_in(Duration::from_secs(5));
        check(&token, &json!({"iss": "x", "aud": "a", "sub": "s", "iat": 1_000, "exp": 1_005}));
        let token = Token::new().claim("exp", Value::Null).claim("iat", 7).claim("n", json!([1]));
        check(&token, &json!({"iss": "https://idp", "iat": 7, "n": [1]}));
        check(
            &Token::new().expires_in(Duration::MAX),
            &json!({"iss": "https://idp", "iat": 1_000, "exp": 1_000 + TimeDelta::MAX.num_seconds()}),
        );
    }

    #[test]
    fn only_a_compact_jws_is_taken_apart() {
        for token in ["", ".", "..", "a.b", "e30.e30.!", "!.e30.e30", "W10", "ÿ.ÿ.ÿ"] {
            assert_eq!(split(token), None, "{token}");
        }
        assert_eq!(split("e30.e30.AQ"), Some((json!({}), "e30.e30", vec![1])));
    }
}
