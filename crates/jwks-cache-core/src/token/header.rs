//! The header of a JWS (RFC 7515 §4): what decides about its verification, and nothing else.

use std::borrow::Cow;
use std::fmt;

use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::error::Category;
use serde_json::value::RawValue;

use super::fault::{Fault, Malformed, Part, Unsupported};
use super::names::Names;
use crate::Algorithm;

/// What a header says that a verifier goes by.
///
/// `jku`, `jwk`, `x5u`, `x5c` and whatever else it may say are not read: a token does not choose where its key
/// comes from (RFC 8725 §3.10).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header<'h> {
    /// `alg`: an asymmetric one (RFC 8725 §3.1, §3.2). It must still fit the key.
    pub algorithm: Algorithm,
    /// `kid`.
    pub kid: Option<Cow<'h, str>>,
    /// `typ`.
    pub typ: Option<Cow<'h, str>>,
}

impl<'h> Header<'h> {
    /// Reads a decoded header.
    ///
    /// # Errors
    /// It is no JSON object, or says something twice or in a wrong type; or it is that of a token which is not
    /// taken: a JWE, `crit`, `b64`, `none`, HMAC, an unknown algorithm.
    pub fn read(json: &'h str) -> Result<Self, Fault> {
        let said: Said<'h> = serde_json::from_str(json).map_err(|error| match error.classify() {
            Category::Data if json.trim_ascii_start().starts_with('{') => Malformed::IllTypedHeader,
            _ => Malformed::NotJson(Part::Header),
        })?;
        if said.repeated {
            return Err(Malformed::RepeatedMember(Part::Header).into());
        }
        if said.enc {
            return Err(Unsupported::Encrypted.into()); // RFC 7516 §9
        }
        if said.crit {
            return Err(Unsupported::Critical.into());
        }
        if said.unencoded {
            return Err(Unsupported::Unencoded.into());
        }
        let name = said.alg.ok_or(Malformed::NoAlgorithm)?;
        let algorithm = name.parse().map_err(|_| Unsupported::Algorithm)?;
        Ok(Self { algorithm, kid: said.kid, typ: said.typ })
    }

    /// Whether `typ` is one of `types`, as media types are compared (RFC 7515 §4.1.9): letters of any case, and
    /// `application/` may be left out.
    #[must_use]
    pub fn is_of_type(&self, types: &[String]) -> bool {
        fn short(typ: &str) -> &str {
            match typ.split_at_checked("application/".len()) {
                Some((before, rest))
                    if before.eq_ignore_ascii_case("application/") && !rest.contains('/') =>
                {
                    rest
                }
                _ => typ,
            }
        }
        let typ = self.typ.as_deref().map(short);
        typ.is_some_and(|typ| types.iter().any(|one| short(one).eq_ignore_ascii_case(typ)))
    }
}

#[derive(Default)]
struct Said<'h> {
    alg: Option<Cow<'h, str>>,
    kid: Option<Cow<'h, str>>,
    typ: Option<Cow<'h, str>>,
    crit: bool,
    enc: bool,
    unencoded: bool,
    repeated: bool,
}

/// A string, borrowed where it holds no escapes.
#[derive(Deserialize)]
pub(super) struct Text<'a>(#[serde(borrow)] pub(super) Cow<'a, str>);

impl<'de> Deserialize<'de> for Said<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Said<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut members: M) -> Result<Said<'de>, M::Error> {
                let mut said = Said::default();
                let mut names = Names::new();
                while let Some(Text(name)) = members.next_key()? {
                    said.repeated |= !names.insert(&name);
                    let text = match &*name {
                        "alg" => &mut said.alg,
                        "kid" => &mut said.kid,
                        "typ" => &mut said.typ,
                        "b64" => {
                            said.unencoded |= members.next_value::<&RawValue>()?.get() != "true";
                            continue;
                        }
                        other => {
                            said.crit |= other == "crit";
                            said.enc |= other == "enc";
                            members.next_value::<IgnoredAny>()?;
                            continue;
                        }
                    };
                    *text = Some(members.next_value::<Text<'de>>()?.0);
                }
                Ok(said)
            }
        }
        deserializer.deserialize_map(Members)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(json: &str, want: Result<(Algorithm, Option<&str>, Option<&str>), Fault>) {
        let read = Header::read(json);
        let got =
            read.as_ref().map(|it| (it.algorithm, it.kid.as_deref(), it.typ.as_deref())).map_err(|&it| it);
        assert_eq!(got, want, "{json}");
    }

    #[test]
    fn a_header_says_algorithm_kid_and_type_and_the_rest_is_not_read() {
        check(r#"{"alg":"RS256"}"#, Ok((Algorithm::RS256, None, None)));
        check(r#" {"alg":"EdDSA","kid":"","typ":"JWT"} "#, Ok((Algorithm::EdDSA, Some(""), Some("JWT"))));
        check(r#"{"alg":"Ed25519","kid":"\u0061"}"#, Ok((Algorithm::EdDSA, Some("a"), None)));
        let elsewhere =
            r#"{"jku":"https://x","jwk":{"kty":"oct"},"x5u":1,"x5c":null,"b64":true,"zip":[],"alg":"ES512"}"#;
        check(elsewhere, Ok((Algorithm::ES512, None, None)));
    }

    #[test]
    fn what_is_not_taken_is_named() {
        let unsupported = |json: &str, why: Unsupported| check(json, Err(why.into()));
        for alg in
            ["none", "None", "NONE", "nOnE", "noNE", "", " none", "HS256", "HS512", "rs256", "RS256 ", "RS1"]
        {
            unsupported(&format!(r#"{{"alg":"{alg}"}}"#), Unsupported::Algorithm);
        }
        unsupported(r#"{"alg":"RS256","crit":["exp"]}"#, Unsupported::Critical);
        unsupported(r#"{"alg":"RS256","crit":null}"#, Unsupported::Critical);
        unsupported(r#"{"alg":"HS256","b64":false,"crit":["b64"]}"#, Unsupported::Critical);
        unsupported(r#"{"alg":"RS256","b64":false}"#, Unsupported::Unencoded);
        unsupported(r#"{"alg":"RS256","b64":"true"}"#, Unsupported::Unencoded);
        unsupported(r#"{"alg":"RSA-OAEP","enc":"A256GCM"}"#, Unsupported::Encrypted);
    }

    #[test]
    fn what_is_no_header_is_malformed() {
        let malformed = |json: &str, why: Malformed| check(json, Err(why.into()));
        for json in ["", "null", "[]", r#""alg""#, "{", r#"{"alg":"RS256"}x"#, r#"{"alg":"RS256",}"#] {
            malformed(json, Malformed::NotJson(Part::Header));
        }
        for json in [r#"{"alg":1}"#, r#"{"alg":["RS256"]}"#, r#"{"alg":null}"#, r#"{"alg":"RS256","kid":7}"#]
        {
            malformed(json, Malformed::IllTypedHeader);
        }
        for json in ["{}", r#"{"kid":"a"}"#, r#"{"Alg":"RS256"}"#] {
            malformed(json, Malformed::NoAlgorithm);
        }
        for json in [
            r#"{"alg":"RS256","alg":"RS256"}"#,
            r#"{"alg":"none","\u0061lg":"RS256"}"#,
            r#"{"alg":"RS256","x":1,"x":1}"#,
        ] {
            malformed(json, Malformed::RepeatedMember(Part::Header));
        }
    }

    #[test]
    fn types_are_compared_as_media_types() {
        let types = ["at+jwt".to_owned()];
        for (typ, fits) in [
            ("at+jwt", true),
            ("AT+JWT", true),
            ("application/at+jwt", true),
            ("Application/AT+jwt", true),
            ("application/x/at+jwt", false),
            ("JWT", false),
            ("", false),
        ] {
            let json = format!(r#"{{"alg":"RS256","typ":"{typ}"}}"#);
            assert_eq!(Header::read(&json).unwrap().is_of_type(&types), fits, "{typ}");
        }
        assert!(!Header::read(r#"{"alg":"RS256"}"#).unwrap().is_of_type(&types));
    }
}
