//! Which scopes a token was granted (RFC 6749 §3.3). This room believes what it reads: it is for claims that a
//! signature vouches for.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::compact::{Compact, Room, text};
use super::fault::Part;
use super::header::Text;

/// Most claims fit.
const PAYLOAD: usize = 768;

/// Whether a verified token grants all of `wanted`, byte for byte.
///
/// Scopes are the words of the claim `scope` (RFC 8693 §4.2, RFC 9068 §2.2.3), and those of `scp`, which Entra
/// writes as words and Okta as a list. Nothing is allocated for texts without escapes and claims up to some 700 bytes.
#[must_use]
pub fn grants<S: AsRef<str>>(token: &str, wanted: &[S]) -> bool {
    let granted = |wanted: &S, claims| !wanted.as_ref().is_empty() && says(claims, wanted.as_ref());
    let said = |claims| wanted.iter().all(|wanted| granted(wanted, claims));
    let mut room = Room::<PAYLOAD>::new();
    let parts = Compact::split(token, usize::MAX);
    let claims = parts.and_then(|parts| room.decode(parts.payload(), Part::Claims));
    wanted.is_empty() || claims.and_then(|claims| text(claims, Part::Claims)).is_ok_and(said)
}

fn says(claims: &str, wanted: &str) -> bool {
    let mut json = serde_json::Deserializer::from_str(claims);
    json.deserialize_map(Members(wanted)).unwrap_or(false)
}

/// Whether one of the claims holds the scope.
struct Members<'w>(&'w str);

impl<'de> Visitor<'de> for Members<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut members: M) -> Result<bool, M::Error> {
        let mut found = false;
        while let Some(Text(name)) = members.next_key()? {
            if matches!(&*name, "scope" | "scp") {
                found |= members.next_value_seed(Scopes(self.0))?;
            } else {
                members.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

/// Whether one claim holds the scope. One of another type fails, and then nothing is granted.
struct Scopes<'w>(&'w str);

impl<'de> DeserializeSeed<'de> for Scopes<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Scopes<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("words or a list of strings")
    }

    fn visit_unit<E>(self) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_str<E>(self, words: &str) -> Result<bool, E> {
        Ok(words.split(' ').any(|word| word == self.0))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<bool, A::Error> {
        let mut found = false;
        while let Some(Said(one)) = list.next_element()? {
            found |= one == self.0;
        }
        Ok(found)
    }
}

#[derive(Deserialize)]
struct Said<'a>(#[serde(borrow)] Cow<'a, str>);

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    use super::*;

    fn check(claims: &str, wanted: &[&str], want: bool) {
        let token = format!("e30.{}.AA", URL_SAFE_NO_PAD.encode(claims));
        assert_eq!(grants(&token, wanted), want, "{claims} {wanted:?}");
    }

    #[test]
    fn scopes_are_words_of_scope_and_words_or_a_list_of_scp() {
        for claims in [
            r#"{"scope":"read write"}"#,
            r#"{"sub":"x","scope":"write  read"}"#,
            r#"{"scp":"read write"}"#,
            r#"{"scp":["read","write"]}"#,
            r#"{"scope":["write"],"scp":"read"}"#,
            r#"{"scope":"re\u0061d write"}"#,
            r#"{"scope":null,"scp":["write","read"]}"#,
        ] {
            check(claims, &["read"], true);
            check(claims, &["write", "read"], true);
            check(claims, &["read", "delete"], false);
            check(claims, &["rea"], false);
            check(claims, &["Read"], false);
            check(claims, &["read write"], false);
            check(claims, &[""], false);
        }
    }

    #[test]
    fn what_is_no_scope_grants_nothing() {
        for claims in [
            "{}",
            "[]",
            "",
            r#"{"scope":""}"#,
            r#"{"scope":7}"#,
            r#"{"scope":{"read":true}}"#,
            r#"{"scope":["read",7]}"#,
            r#"{"scopes":"read"}"#,
            r#"{"scope":"read,write"}"#,
            r#"{"scope":"read"#,
            r#"{"a":{"scope":"read"}}"#,
        ] {
            check(claims, &["read"], false);
        }
        check(r#"{"scope":"read"}"#, &[], true);
        assert!(!grants("no token", &["read"]));
        assert!(!grants("a.!.b", &["read"]));
    }

    #[test]
    fn long_claims_are_read_too() {
        let long = "x".repeat(4_000);
        check(&format!(r#"{{"pad":"{long}","scope":"read"}}"#), &["read"], true);
    }
}
