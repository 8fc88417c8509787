//! Headers that stood before verified tokens, by their encoded text, so that the next token need not be read for
//! one. This room does not know keys: a header found here chooses nothing that reading it would not.

use std::borrow::Cow;
use std::fmt;

use foldhash::fast::RandomState;
use jwks_cache_core::Algorithm;
use jwks_cache_core::token::Header;
use papaya::{HashMap, HashMapRef, LocalGuard};

/// Issuers put few headers before all their tokens: one for each key and type. With [`LONGEST`] it bounds what one
/// verifier remembers to some megabytes.
const MOST: usize = 16 * 1024;
/// Longer ones carry certificates or other things that change.
const LONGEST: usize = 256;

/// The headers that one verifier accepted: to another's rules they may be no good.
///
/// Only headers that a provider's key has signed are in it, so nobody else decides what it holds.
#[derive(Default)]
pub(super) struct Headers(HashMap<Box<str>, Known, RandomState>);

/// What verification goes by, of a header that was read and checked.
pub(super) struct Known {
    algorithm: Algorithm,
    kid: Option<Box<str>>,
}

impl Known {
    pub(super) fn header(&self) -> Header<'_> {
        let kid = self.kid.as_deref().map(Cow::Borrowed);
        Header { algorithm: self.algorithm, kid, typ: None }
    }
}

impl Headers {
    /// For one token.
    pub(super) fn open(&self) -> Open<'_> {
        Open(self.0.pin())
    }
}

/// What is known, held in place.
pub(super) struct Open<'h>(HashMapRef<'h, Box<str>, Known, RandomState, LocalGuard<'h>>);

impl Open<'_> {
    pub(super) fn get(&self, encoded: &str) -> Option<&Known> {
        self.0.get(encoded)
    }

    /// Remembers a header whose token was verified.
    pub(super) fn insert(&self, encoded: &str, header: &Header<'_>) {
        if encoded.len() > LONGEST {
            return;
        }
        if self.0.len() >= MOST {
            // An issuer that never repeats itself; those who do are back at once.
            self.0.clear();
        }
        let known = Known { algorithm: header.algorithm, kid: header.kid.as_deref().map(Into::into) };
        self.0.insert(encoded.into(), known);
    }
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Headers").field("headers", &self.0.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(headers: &Headers, encoded: &str) -> Option<(Algorithm, Option<String>)> {
        let open = headers.open();
        let header = open.get(encoded).map(Known::header)?;
        Some((header.algorithm, header.kid.map(Cow::into_owned)))
    }

    #[test]
    fn a_header_is_known_by_every_byte_of_its_text_and_says_what_it_said() {
        let headers = Headers::default();
        for (encoded, json) in [
            ("a", r#"{"alg":"ES256","kid":"k"}"#),
            ("b", r#"{"alg":"RS256","kid":""}"#),
            ("", r#"{"alg":"PS512"}"#),
        ] {
            assert_eq!(known(&headers, encoded), None);
            let header = Header::read(json).unwrap();
            headers.open().insert(encoded, &header);
            assert_eq!(known(&headers, encoded), Some((header.algorithm, header.kid.map(Cow::into_owned))));
        }
        assert_eq!((known(&headers, "A"), known(&headers, "ab"), known(&headers, "a ")), (None, None, None));
    }

    #[test]
    fn headers_that_never_repeat_or_are_long_fill_nothing_for_ever() {
        let headers = Headers::default();
        let header = Header::read(r#"{"alg":"ES256"}"#).unwrap();
        for (length, is_kept) in [(LONGEST, true), (LONGEST + 1, false)] {
            let encoded = "x".repeat(length);
            headers.open().insert(&encoded, &header);
            assert_eq!(known(&headers, &encoded).is_some(), is_kept, "{length}");
        }
        for n in 0..3 * MOST {
            headers.open().insert(&n.to_string(), &header);
            assert!(headers.0.len() <= MOST);
            assert!(known(&headers, &n.to_string()).is_some(), "{n}");
        }
    }
}
