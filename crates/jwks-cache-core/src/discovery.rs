//! What an issuer publishes about itself (OpenID Connect Discovery 1.0, RFC 8414): where to look for it, and which
//! of it may be believed. This room does not fetch, and does not know how long anything is good.

use std::fmt;

use serde::Deserialize;
use url::Url;

use crate::AlgorithmSet;

/// The most bytes of a discovery document; real ones have some 5 kB.
pub const MAX_BYTES: u64 = 128 * 1024;

/// The most characters of an issuer that a message repeats.
const SHOWN: usize = 120;

/// What is used of a discovery document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// Where the key set is. Nothing was checked but that it is a URL.
    pub jwks_uri: Url,
    /// The signature algorithms that the issuer says it uses: what a key without `alg` may verify. All where it
    /// names none that we know.
    pub algorithms: AlgorithmSet,
}

/// Where the metadata of an issuer may be, in the order to look: OpenID Connect Discovery 1.0 §4.1, which appends to
/// the path; then RFC 8414 §3.1, which inserts before it, under its own name and (§5) under OpenID Connect's.
///
/// `at` is the issuer as a URL, or where an issuer is known to publish instead: its query stays, and where it names
/// a well-known place itself (RFC 8615 §3) that is the only one.
#[must_use]
pub fn locations(at: &Url) -> Vec<Url> {
    let path = at.path().trim_end_matches('/');
    let place = |path: String| {
        let mut url = at.clone();
        url.set_path(&path);
        url.set_fragment(None);
        url
    };
    if path.contains("/.well-known/") {
        return vec![place(at.path().to_owned())];
    }
    let mut all = vec![
        place(format!("{path}/.well-known/openid-configuration")),
        place(format!("/.well-known/oauth-authorization-server{path}")),
    ];
    if !path.is_empty() {
        all.push(place(format!("/.well-known/openid-configuration{path}")));
    }
    all
}

/// Reads the discovery document of `issuer`, which has to name it byte for byte (OpenID Connect Discovery 1.0 §4.3,
/// RFC 8414 §3.3).
///
/// # Errors
/// [`Mixup`] says what to do.
pub fn read(document: &[u8], issuer: &str) -> Result<Metadata, Mixup> {
    #[derive(Deserialize)]
    struct Document {
        issuer: Option<String>,
        jwks_uri: Option<String>,
        #[serde(default)]
        id_token_signing_alg_values_supported: Names,
        #[serde(default)]
        userinfo_signing_alg_values_supported: Names,
        #[serde(default)]
        access_token_signing_alg_values_supported: Names,
        #[serde(default)]
        introspection_signing_alg_values_supported: Names,
        #[serde(default)]
        authorization_signing_alg_values_supported: Names,
        keys: Option<serde::de::IgnoredAny>,
    }
    let text = std::str::from_utf8(document).map_err(|_| Mixup::NotJson { markup: false })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let read: Document = serde_json::from_str(text)
        .map_err(|_| Mixup::NotJson { markup: text.trim_start().starts_with('<') })?;
    let Some(named) = read.issuer else {
        return Err(if read.keys.is_some() { Mixup::KeySet } else { Mixup::NoIssuer });
    };
    if named != issuer {
        return Err(Mixup::OtherIssuer {
            named: shown(&named),
            registered: shown(issuer),
            hint: hint(&named, issuer),
        });
    }
    let jwks_uri = read.jwks_uri.ok_or(Mixup::NoJwksUri)?;
    let jwks_uri = Url::parse(&jwks_uri).map_err(|_| Mixup::BadJwksUri)?;
    let algorithms: AlgorithmSet = [
        read.id_token_signing_alg_values_supported,
        read.userinfo_signing_alg_values_supported,
        read.access_token_signing_alg_values_supported,
        read.introspection_signing_alg_values_supported,
        read.authorization_signing_alg_values_supported,
    ]
    .iter()
    .flat_map(|names| &names.0)
    .filter_map(|name| name.parse().ok())
    .collect();
    Ok(Metadata { jwks_uri, algorithms: if algorithms.is_empty() { AlgorithmSet::ALL } else { algorithms } })
}

/// Names of algorithms. A list of another shape says nothing.
#[derive(Default)]
struct Names(Vec<String>);

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        let names = value.as_array().into_iter().flatten();
        Ok(Self(names.filter_map(|name| name.as_str().map(ToOwned::to_owned)).collect()))
    }
}

/// Why a discovery document is not believed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mixup {
    /// Not one JSON object, or a member that counts stands in it twice or has another shape.
    NotJson {
        /// It begins like HTML or XML.
        markup: bool,
    },
    /// It is a key set.
    KeySet,
    /// It names no issuer.
    NoIssuer,
    /// It names another issuer.
    OtherIssuer {
        /// The one it names, as it may be shown.
        named: String,
        /// The one that is registered.
        registered: String,
        /// How little they differ.
        hint: &'static str,
    },
    /// It has no `jwks_uri`.
    NoJwksUri,
    /// `jwks_uri` is no URL.
    BadJwksUri,
}

impl Mixup {
    /// A stable label for metrics and machines.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::NotJson { .. } => "discovery_not_json",
            Self::KeySet | Self::NoIssuer | Self::OtherIssuer { .. } => "discovery_issuer",
            Self::NoJwksUri | Self::BadJwksUri => "discovery_jwks_uri",
        }
    }
}

impl fmt::Display for Mixup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the discovery document ")?;
        match self {
            Self::NotJson { markup: true } => f.write_str(
                "is not JSON but markup: check the issuer, and that no login or gateway page stands before it",
            ),
            Self::NotJson { markup: false } => f.write_str(
                "is not a JSON object with each of issuer and jwks_uri once, as texts: check the issuer",
            ),
            Self::KeySet => f.write_str("is a key set: register its URL as jwks_url instead of an issuer"),
            Self::NoIssuer => f.write_str("names no issuer: check the issuer, or register the jwks_url itself"),
            Self::OtherIssuer { named, registered, hint } => write!(
                f,
                "names the issuer \"{named}\", but \"{registered}\" is registered, and they must be equal byte for \
                 byte{hint}: register the one that tokens carry as `iss`"
            ),
            Self::NoJwksUri => {
                f.write_str("has no jwks_uri: ask the provider where its keys are, and register that as jwks_url")
            }
            Self::BadJwksUri => f.write_str("has a jwks_uri that is no URL: ask the provider"),
        }
    }
}

impl std::error::Error for Mixup {}

fn hint(named: &str, registered: &str) -> &'static str {
    if named.trim_end_matches('/') == registered.trim_end_matches('/') {
        " (they differ by the slash at the end)"
    } else if named.eq_ignore_ascii_case(registered) {
        " (they differ by upper and lower case)"
    } else if named.contains('{') {
        " (it is a template, which only a preset for that provider takes)"
    } else {
        ""
    }
}

/// A stranger's text as it may be shown: escaped and cut.
fn shown(text: &str) -> String {
    let mut shown: String = text.chars().take(SHOWN).flat_map(char::escape_default).collect();
    if text.chars().nth(SHOWN).is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Algorithm;

    #[test]
    fn openid_connect_is_looked_for_first_then_rfc_8414() {
        let check = |issuer: &str, want: &[&str]| {
            let got: Vec<_> = locations(&issuer.parse().unwrap()).iter().map(Url::to_string).collect();
            assert_eq!(got, want, "{issuer}");
        };
        let host = [
            "https://id.example/.well-known/openid-configuration",
            "https://id.example/.well-known/oauth-authorization-server",
        ];
        check("https://id.example", &host);
        check("https://id.example/", &host);
        let path = [
            "https://id.example/a/b/.well-known/openid-configuration",
            "https://id.example/.well-known/oauth-authorization-server/a/b",
            "https://id.example/.well-known/openid-configuration/a/b",
        ];
        check("https://id.example/a/b", &path);
        check("https://id.example/a/b/", &path);
    }

    fn read_from(members: &str) -> Result<Metadata, Mixup> {
        read(format!("{{{members}}}").as_bytes(), "https://id.example")
    }

    const GOOD: &str = r#""issuer":"https://id.example","jwks_uri":"https://id.example/jwks""#;

    #[test]
    fn a_document_is_believed_when_it_names_the_issuer_byte_for_byte() {
        let read = read_from(GOOD).unwrap();
        assert_eq!(read.jwks_uri.as_str(), "https://id.example/jwks");
        assert_eq!(read.algorithms, AlgorithmSet::ALL);
        for (named, hint) in [
            ("https://id.example/", "slash"),
            ("https://ID.example", "case"),
            ("https://evil.example", "byte for byte:"),
            ("https://id.example/{tenantid}", "template"),
            ("https://id.example\\u0000", "byte for byte:"),
        ] {
            let refused = read_from(&GOOD.replacen("https://id.example", named, 1)).unwrap_err();
            assert!(matches!(refused, Mixup::OtherIssuer { .. }), "{named}: {refused}");
            assert!(refused.to_string().contains(hint), "{named}: {refused}");
        }
    }

    #[test]
    fn what_is_no_metadata_is_refused_with_what_to_do() {
        let check = |document: &[u8], want: &str| {
            let refused = read(document, "https://id.example").unwrap_err().to_string();
            assert!(refused.contains(want), "{refused}");
        };
        check(b"<!doctype html><title>Sign in</title>", "markup");
        check(b"not json", "not a JSON object");
        check(b"\xff", "not a JSON object");
        check(b"[]", "not a JSON object");
        check(br#"{"keys":[]}"#, "register its URL as jwks_url");
        check(b"{}", "names no issuer");
        check(br#"{"issuer":"https://id.example"}"#, "no jwks_uri");
        check(br#"{"issuer":"https://id.example","jwks_uri":"/jwks"}"#, "no URL");
        let twice =
            br#"{"issuer":"https://id.example","issuer":"https://id.example","jwks_uri":"https://a/"}"#;
        check(twice, "once");
    }

    #[test]
    fn the_algorithms_that_count_are_those_that_a_public_key_can_serve() {
        let check = |list: &str, want: &[Algorithm]| {
            let read =
                read_from(&format!(r#"{GOOD},"id_token_signing_alg_values_supported":{list}"#)).unwrap();
            assert_eq!(read.algorithms, want.iter().copied().collect(), "{list}");
        };
        check(r#"["none","HS256","RS256"]"#, &[Algorithm::RS256]);
        check(r#"["ES256","EdDSA",1]"#, &[Algorithm::ES256, Algorithm::EdDSA]);
        for says_nothing in [r#"["HS256"]"#, "[]", "7", "null", r#""RS256""#] {
            check(says_nothing, &Algorithm::ALL);
        }
    }
}
