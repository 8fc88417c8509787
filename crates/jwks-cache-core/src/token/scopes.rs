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
    if wanted.is_empty() {
        return true;
    }
    let mut room = Room::<PAYLOAD>::new();
    let parts = Compact::split(token, usize::MAX);
    let claims = parts.and_then(|parts| room.decode(parts.payload(), Part::Claims));
    let Ok(claims) = claims.and_then(|claims| text(claims, Part::Claims)) else { return false };
    // One look at the claims for as many as have a bit.
    wanted.chunks(64).all(|wanted| {
        let mut json = serde_json::Deserializer::from_str(claims);
        let missing = u64::MAX >> (64 - wanted.len());
        json.deserialize_map(Members(Missing { wanted, missing })).is_ok_and(|missing| missing == 0)
    })
}

/// At most 64 scopes that are wanted, and a bit for each that was not seen yet.
struct Missing<'w, S> {
    wanted: &'w [S],
    missing: u64,
}

impl<S: AsRef<str>> Missing<'_, S> {
    fn see(&mut self, said: &str) {
        // An empty word is what stands between two spaces.
        for (bit, _) in
            self.wanted.iter().enumerate().filter(|(_, one)| !said.is_empty() && one.as_ref() == said)
        {
            self.missing &= !(1 << bit);
        }
    }
}

/// The claims that hold scopes; gives what is still missing after them.
struct Members<'w, S>(Missing<'w, S>);

impl<'de, S: AsRef<str>> Visitor<'de> for Members<'_, S> {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<M: MapAccess<'de>>(mut self, mut members: M) -> Result<u64, M::Error> {
        while let Some(Text(name)) = members.next_key()? {
            if matches!(&*name, "scope" | "scp") {
                members.next_value_seed(Scopes(&mut self.0))?;
            } else {
                members.next_value::<IgnoredAny>()?;
            }
        }
        Ok(self.0.missing)
    }
}

/// One claim. One of another type fails, and then nothing is granted.
struct Scopes<'m, 'w, S>(&'m mut Missing<'w, S>);

impl<'de, S: AsRef<str>> DeserializeSeed<'de> for Scopes<'_, '_, S> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, S: AsRef<str>> Visitor<'de> for Scopes<'_, '_, S> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("words or a list of strings")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, words: &str) -> Result<(), E> {
        words.split(' ').for_each(|word| self.0.see(word));
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while let Some(Said(one)) = list.next_element()? {
            self.0.see(&one);
        }
        Ok(())
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
    fn as_many_as_are_wanted_are_looked_for() {
        for count in [63, 64, 65, 130] {
            let wanted: Vec<String> = (0..count).map(|n| format!("s{n}")).collect();
            let wanted: Vec<&str> = wanted.iter().map(String::as_str).collect();
            check(&format!(r#"{{"scope":"{}"}}"#, wanted.join(" ")), &wanted, true);
            check(&format!(r#"{{"scope":"{}"}}"#, wanted[..count - 1].join(" ")), &wanted, false);
            check(&format!(r#"{{"scope":"{}"}}"#, wanted[1..].join(" ")), &wanted, false);
        }
    }

    #[test]
    fn long_claims_are_read_too() {
        let long = "x".repeat(4_000);
        check(&format!(r#"{{"pad":"{long}","scope":"read"}}"#), &["read"], true);
    }
}
