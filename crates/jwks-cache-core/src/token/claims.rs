//! The claims that decide whether a token is accepted (RFC 7519 §4.1), and the rules they are held to.
//!
//! This room does not know whether the signature was verified: its caller must, before it believes anything of
//! this but which issuer is claimed.

use std::borrow::Cow;
use std::fmt;

use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserializer, de::DeserializeSeed};
use serde_json::value::RawValue;

use super::fault::{Fault, Malformed, Part};
use super::header::Text;
use super::names::Names;

/// What claims must be. Spans are in milliseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClaimRules {
    /// The token must be for one of these; empty: it may be for anybody.
    pub audiences: Vec<String>,
    /// Claims that must be there, besides those that other rules need.
    pub required: Vec<String>,
    /// A token may do without `exp`.
    pub may_lack_expiry: bool,
    /// How far clocks may be apart.
    pub leeway: i64,
    /// How long ago a token may have been issued.
    pub max_age: Option<i64>,
}

/// Why claims are refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClaimFault {
    /// `exp` has passed.
    Expired,
    /// `nbf` is to come, or `iat` where an age is asked for.
    NotYetValid,
    /// `iat` is longer ago than allowed.
    TooOld,
    /// `aud` names none of the audiences.
    WrongAudience,
    /// The claim is not there.
    Missing(Cow<'static, str>),
    /// The claim is of a wrong type.
    IllTyped(Cow<'static, str>),
}

/// `exp`, `nbf` and `iat` (RFC 7519 §4.1.4 to §4.1.6), in milliseconds since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// Expires at.
    pub exp: Option<i64>,
    /// Not valid before.
    pub nbf: Option<i64>,
    /// Issued at.
    pub iat: Option<i64>,
}

impl Times {
    /// Checks them at `now`, in milliseconds since 1970. Arithmetic saturates.
    ///
    /// # Errors
    /// [`ClaimFault::Expired`], [`ClaimFault::NotYetValid`], [`ClaimFault::TooOld`], or a time that is needed is
    /// [`ClaimFault::Missing`].
    pub fn check(&self, rules: &ClaimRules, now: i64) -> Result<(), ClaimFault> {
        match self.exp {
            // "On or after" that time it must not be accepted.
            Some(exp) if now >= exp.saturating_add(rules.leeway) => return Err(ClaimFault::Expired),
            None if !rules.may_lack_expiry => return Err(ClaimFault::Missing("exp".into())),
            _ => {}
        }
        let latest = now.saturating_add(rules.leeway);
        if self.nbf.is_some_and(|nbf| nbf > latest) {
            return Err(ClaimFault::NotYetValid);
        }
        let Some(max_age) = rules.max_age else { return Ok(()) };
        match self.iat {
            None => Err(ClaimFault::Missing("iat".into())),
            // A token from the future would never grow old.
            Some(iat) if iat > latest => Err(ClaimFault::NotYetValid),
            Some(iat) if now.saturating_sub(iat) > max_age.saturating_add(rules.leeway) => {
                Err(ClaimFault::TooOld)
            }
            Some(_) => Ok(()),
        }
    }
}

/// What a payload claims, as far as it decides.
#[derive(Debug)]
pub struct Claims<'c> {
    said: Said<'c>,
    missing: Option<usize>,
}

/// The claims as they stand in the text.
#[derive(Debug, Default)]
struct Said<'c> {
    iss: Option<&'c str>,
    aud: Option<&'c str>,
    exp: Option<&'c str>,
    nbf: Option<&'c str>,
    iat: Option<&'c str>,
    tid: Option<&'c str>,
}

impl<'c> Claims<'c> {
    /// Reads a decoded payload for `rules`.
    ///
    /// # Errors
    /// It is no JSON object, or a claim stands twice in it.
    pub fn read(json: &'c str, rules: &ClaimRules) -> Result<Self, Fault> {
        let mut deserializer = serde_json::Deserializer::from_str(json);
        let read =
            Reading(rules).deserialize(&mut deserializer).and_then(|read| deserializer.end().map(|()| read));
        let (claims, repeated) = read.map_err(|_| Malformed::NotJson(Part::Claims))?;
        if repeated {
            return Err(Malformed::RepeatedMember(Part::Claims).into());
        }
        Ok(claims)
    }

    /// `iss`; none when it is absent.
    ///
    /// # Errors
    /// [`ClaimFault::IllTyped`].
    pub fn issuer(&self) -> Result<Option<Cow<'c, str>>, ClaimFault> {
        self.said.iss.map(|raw| text(raw).ok_or(ClaimFault::IllTyped("iss".into()))).transpose()
    }

    /// `tid`, Entra's name for its tenant, where it is a text.
    #[must_use]
    pub fn entra_tenant(&self) -> Option<Cow<'c, str>> {
        self.said.tid.and_then(text)
    }

    /// The times.
    ///
    /// # Errors
    /// [`ClaimFault::IllTyped`] for one that is no number, or no date before the year 10,000.
    pub fn times(&self) -> Result<Times, ClaimFault> {
        let read = |raw: Option<&str>, name: &'static str| {
            raw.map(|raw| date(raw).ok_or(ClaimFault::IllTyped(name.into()))).transpose()
        };
        let Said { exp, nbf, iat, .. } = self.said;
        Ok(Times { exp: read(exp, "exp")?, nbf: read(nbf, "nbf")?, iat: read(iat, "iat")? })
    }

    /// Checks everything but the issuer and the times.
    ///
    /// # Errors
    /// The first [`ClaimFault`].
    pub fn check(&self, rules: &ClaimRules) -> Result<(), ClaimFault> {
        if !rules.audiences.is_empty() {
            let raw = self.said.aud.ok_or(ClaimFault::Missing("aud".into()))?;
            let is_for_us = |name: &str| rules.audiences.iter().any(|audience| audience == name);
            let ill_typed = || ClaimFault::IllTyped("aud".into());
            let fits = if raw.starts_with('[') {
                let names: Vec<Text<'_>> = serde_json::from_str(raw).map_err(|_| ill_typed())?;
                names.iter().any(|name| is_for_us(&name.0))
            } else {
                is_for_us(&text(raw).ok_or_else(ill_typed)?)
            };
            if !fits {
                return Err(ClaimFault::WrongAudience);
            }
        }
        match self.missing.and_then(|index| rules.required.get(index)) {
            Some(name) => Err(ClaimFault::Missing(name.clone().into())),
            None => Ok(()),
        }
    }
}

/// Whether the token of `issuer` may be verified by a key that names `of_key` as its own issuer, as Entra's do.
/// `{tenantid}` in there stands for the token's tenant, `tid`.
#[must_use]
pub fn key_issuer_fits(of_key: &str, issuer: &str, entra_tenant: Option<&str>) -> bool {
    match of_key.split_once("{tenantid}") {
        None => of_key == issuer,
        Some((before, after)) => {
            let middle = issuer.strip_prefix(before).and_then(|rest| rest.strip_suffix(after));
            let named = |tenant: &str| !tenant.is_empty() && tenant != "{tenantid}";
            middle.is_some_and(|tenant| named(tenant) && entra_tenant == Some(tenant))
        }
    }
}

/// A string, borrowed where it holds no escapes.
fn text(raw: &str) -> Option<Cow<'_, str>> {
    let inner = raw.strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') {
        return serde_json::from_str(raw).ok().map(Cow::Owned);
    }
    Some(Cow::Borrowed(inner))
}

/// A NumericDate (RFC 7519 §2), in milliseconds. Beyond the year 9999 it is no date but a mistake, such as
/// milliseconds where seconds belong, and would make a token that never expires.
fn date(raw: &str) -> Option<i64> {
    const END: i64 = 253_402_300_800_000;
    if !raw.starts_with(|first: char| first == '-' || first.is_ascii_digit()) {
        return None;
    }
    let millis = match raw.parse::<i64>() {
        Ok(seconds) => seconds.saturating_mul(1000),
        #[expect(clippy::cast_possible_truncation, reason = "it saturates, and that is no date")]
        Err(_) => (raw.parse::<f64>().ok()? * 1000.0).floor() as i64,
    };
    (-END < millis && millis < END).then_some(millis)
}

struct Reading<'r>(&'r ClaimRules);

impl<'de> DeserializeSeed<'de> for Reading<'_> {
    type Value = (Claims<'de>, bool);

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Reading<'_> {
    /// The claims, and whether one stands twice.
    type Value = (Claims<'de>, bool);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut members: M) -> Result<Self::Value, M::Error> {
        let required = &self.0.required;
        let (mut said, mut names, mut repeated) = (Said::default(), Names::new(), false);
        // A bit for each required claim that is there; builders see to it that there are no more.
        let mut there: u64 = 0;
        while let Some(Text(name)) = members.next_key()? {
            repeated |= !names.insert(&name);
            let place = match &*name {
                "iss" => Some(&mut said.iss),
                "aud" => Some(&mut said.aud),
                "exp" => Some(&mut said.exp),
                "nbf" => Some(&mut said.nbf),
                "iat" => Some(&mut said.iat),
                "tid" => Some(&mut said.tid),
                _ => None,
            };
            let asked_for = required.iter().position(|wanted| *wanted == name);
            if place.is_none() && asked_for.is_none() {
                members.next_value::<IgnoredAny>()?;
                continue;
            }
            let raw = members.next_value::<&'de RawValue>()?.get();
            if let Some(place) = place {
                *place = Some(raw);
            }
            if let Some(index) = asked_for.filter(|_| raw != "null") {
                there |= 1_u64.checked_shl(u32::try_from(index).unwrap_or(u32::MAX)).unwrap_or(0);
            }
        }
        let bit =
            |index: usize| u32::try_from(index).ok().and_then(|index| 1_u64.checked_shl(index)).unwrap_or(0);
        let missing = (0..required.len()).find(|index| there & bit(*index) == 0);
        Ok((Claims { said, missing }, repeated))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_000_000;

    fn rules() -> ClaimRules {
        ClaimRules { may_lack_expiry: true, ..ClaimRules::default() }
    }

    fn judge(json: &str, rules: &ClaimRules) -> Result<(), ClaimFault> {
        let claims = Claims::read(json, rules).unwrap();
        claims.check(rules)?;
        claims.times()?.check(rules, NOW)
    }

    fn missing(name: &'static str) -> Result<(), ClaimFault> {
        Err(ClaimFault::Missing(name.into()))
    }

    fn ill_typed(name: &'static str) -> Result<(), ClaimFault> {
        Err(ClaimFault::IllTyped(name.into()))
    }

    #[test]
    fn a_time_is_a_number_before_the_year_10000_and_nothing_else() {
        for name in ["exp", "nbf", "iat"] {
            for value in [
                r#""1001""#,
                "null",
                "[1001]",
                "{}",
                "true",
                "1e30",
                "-1e30",
                "253402300800",
                "1732233600000",
            ] {
                assert_eq!(
                    judge(&format!(r#"{{"{name}":{value}}}"#), &rules()),
                    ill_typed(name),
                    "{name} {value}"
                );
            }
        }
        for (value, millis) in [
            ("0", 0),
            ("-1", -1_000),
            ("1.5", 1_500),
            ("-0.0001", -1),
            ("1e3", 1_000_000),
            ("253402300799.999", 253_402_300_799_999),
        ] {
            assert_eq!(date(value), Some(millis), "{value}");
        }
    }

    #[test]
    fn a_token_is_good_from_nbf_until_exp_with_leeway_on_both_sides() {
        let strict = ClaimRules::default();
        let lenient = ClaimRules { leeway: 60_000, ..ClaimRules::default() };
        for (exp, nbf, strictly, leniently) in [
            (1_001, 999, Ok(()), Ok(())),
            (1_001, 1_000, Ok(()), Ok(())),
            (1_000, 0, Err(ClaimFault::Expired), Ok(())),
            (941, 0, Err(ClaimFault::Expired), Ok(())),
            (940, 0, Err(ClaimFault::Expired), Err(ClaimFault::Expired)),
            (-5, 0, Err(ClaimFault::Expired), Err(ClaimFault::Expired)),
            (2_000, 1_001, Err(ClaimFault::NotYetValid), Ok(())),
            (2_000, 1_060, Err(ClaimFault::NotYetValid), Ok(())),
            (2_000, 1_061, Err(ClaimFault::NotYetValid), Err(ClaimFault::NotYetValid)),
        ] {
            let json = format!(r#"{{"exp":{exp},"nbf":{nbf}}}"#);
            assert_eq!((judge(&json, &strict), judge(&json, &lenient)), (strictly, leniently), "{json}");
        }
        assert_eq!(judge("{}", &strict), missing("exp"));
        assert_eq!(judge("{}", &rules()), Ok(()));
    }

    #[test]
    fn an_age_counts_from_iat_which_must_then_be_there_and_past() {
        let rules = ClaimRules { max_age: Some(100_000), leeway: 10_000, ..rules() };
        for (json, want) in [
            (r#"{"iat":890}"#, Ok(())),
            (r#"{"iat":889}"#, Err(ClaimFault::TooOld)),
            (r#"{"iat":1010}"#, Ok(())),
            (r#"{"iat":1011}"#, Err(ClaimFault::NotYetValid)),
            (r#"{"iat":-253402300799}"#, Err(ClaimFault::TooOld)),
            ("{}", missing("iat")),
        ] {
            assert_eq!(judge(json, &rules), want, "{json}");
        }
    }

    #[test]
    fn the_audience_is_one_of_ours_byte_for_byte() {
        let rules = ClaimRules { audiences: vec!["https://a".into(), "b".into()], ..rules() };
        for (aud, want) in [
            (r#""https://a""#, Ok(())),
            (r#""https:\/\/a""#, Ok(())),
            (r#"["x","b"]"#, Ok(())),
            (r#""https://a/""#, Err(ClaimFault::WrongAudience)),
            (r#""https://A""#, Err(ClaimFault::WrongAudience)),
            (r#""https://""#, Err(ClaimFault::WrongAudience)),
            (r#""b ""#, Err(ClaimFault::WrongAudience)),
            (r#""[\"b\"]""#, Err(ClaimFault::WrongAudience)),
            ("[]", Err(ClaimFault::WrongAudience)),
            (r#"["b",1]"#, ill_typed("aud")),
            (r#"[["b"]]"#, ill_typed("aud")),
            (r#"{"b":"b"}"#, ill_typed("aud")),
            ("null", ill_typed("aud")),
            ("1", ill_typed("aud")),
        ] {
            assert_eq!(judge(&format!(r#"{{"aud":{aud}}}"#), &rules), want, "{aud}");
        }
        assert_eq!(judge("{}", &rules), missing("aud"));
        assert_eq!(judge(r#"{"aud":"anybody"}"#, &ClaimRules { audiences: vec![], ..rules }), Ok(()));
    }

    #[test]
    fn required_claims_are_there_and_not_null() {
        let rules = ClaimRules { required: vec!["sub".into(), "iat".into(), "roles".into()], ..rules() };
        assert_eq!(judge(r#"{"roles":[],"sub":"","iat":0}"#, &rules), Ok(()));
        assert_eq!(judge(r#"{"roles":[],"iat":0}"#, &rules), missing("sub"));
        assert_eq!(judge(r#"{"sub":"a","iat":0,"roles":null}"#, &rules), missing("roles"));
        assert_eq!(judge(r#"{"sub":"a","\u0072oles":1}"#, &rules), missing("iat"));
    }

    #[test]
    fn a_payload_is_one_object_without_repetitions() {
        let read = |json: &str| Claims::read(json, &rules()).map(|_| ()).unwrap_err();
        for json in
            ["", "foo", "[]", "null", r#""a""#, r#"{"a":1}{"#, r#"{"a":NaN}"#, r#"{"exp":NaN}"#, r#"{"a":1"#]
        {
            assert_eq!(read(json), Malformed::NotJson(Part::Claims).into(), "{json}");
        }
        for json in [r#"{"exp":1,"exp":2}"#, r#"{"iss":"a","x":1,"\u0069ss":"b"}"#, r#"{"x":1,"x":1}"#] {
            assert_eq!(read(json), Malformed::RepeatedMember(Part::Claims).into(), "{json}");
        }
    }

    #[test]
    fn an_issuer_is_a_text_or_absent() {
        let issuer = |json: &str| {
            let claims = Claims::read(json, &rules()).unwrap();
            claims.issuer().map(|issuer| issuer.map(Cow::into_owned))
        };
        assert_eq!(issuer("{}"), Ok(None));
        assert_eq!(issuer(r#"{"iss":"a\tb"}"#), Ok(Some("a\tb".into())));
        for iss in ["null", "1", r#"["a"]"#, r#""\ud800""#] {
            assert_eq!(
                issuer(&format!(r#"{{"iss":{iss}}}"#)),
                Err(ClaimFault::IllTyped("iss".into())),
                "{iss}"
            );
        }
    }

    #[test]
    fn a_key_of_an_issuer_fits_its_tokens_only() {
        const TEMPLATE: &str = "https://login.example/{tenantid}/v2.0";
        for (of_key, issuer, tid, fits) in [
            ("https://a", "https://a", None, true),
            ("https://a", "https://a/", None, false),
            (TEMPLATE, "https://login.example/t1/v2.0", Some("t1"), true),
            (TEMPLATE, "https://login.example/t1/v2.0", Some("t2"), false),
            (TEMPLATE, "https://login.example/t1/v2.0", None, false),
            (TEMPLATE, "https://login.example//v2.0", Some(""), false),
            (TEMPLATE, "https://login.example.us/t1/v2.0", Some("t1"), false),
            (TEMPLATE, "https://login.example/{tenantid}/v2.0", Some("t1"), false),
            (TEMPLATE, "https://login.example/{tenantid}/v2.0", Some("{tenantid}"), false),
        ] {
            assert_eq!(key_issuer_fits(of_key, issuer, tid), fits, "{of_key} {issuer} {tid:?}");
        }
    }
}
