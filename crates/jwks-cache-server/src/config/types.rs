//! The small types of settings: addresses, spans of time, digests, and a broken rule.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Where a plane listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Listen {
    /// `host:port`; port 0 is any that is free.
    Tcp(String),
    /// The path of a Unix socket.
    Unix(PathBuf),
    /// Nowhere.
    Off,
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => f.write_str(address),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Off => f.write_str("off"),
        }
    }
}

impl std::str::FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(Self::Off);
        }
        if let Some(path) = text.strip_prefix("unix:") {
            return match path {
                "" => Err("names no socket after unix:".into()),
                path => Ok(Self::Unix(path.into())),
            };
        }
        let refused =
            || format!("{:?} is not host:port, unix:/path or off", crate::terminal::shown(text, 80));
        let (host, port) = text.rsplit_once(':').ok_or_else(refused)?;
        // An IPv6 address stands in brackets, or its last part would pass for a port.
        let bare_v6 = host.contains(':') && !(host.starts_with('[') && host.ends_with(']'));
        if host.is_empty() || bare_v6 || port.parse::<u16>().is_err() {
            return Err(refused());
        }
        Ok(Self::Tcp(text.to_owned()))
    }
}

impl<'de> Deserialize<'de> for Listen {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for Listen {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Listen".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "examples": ["127.0.0.1:8080", "[::]:8443", "unix:/run/jwks-cache.sock", "off"]})
    }
}

/// What URLs begin with: `http` or `https`, a host, maybe a path; without a slash at the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicUrl(String);

impl PublicUrl {
    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for PublicUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let sound = |url: &url::Url| {
            let plain = url.username().is_empty() && url.password().is_none();
            ["http", "https"].contains(&url.scheme())
                && plain
                && url.host().is_some()
                && url.query().is_none()
                && url.fragment().is_none()
        };
        match url::Url::parse(text).ok().filter(sound) {
            Some(url) => Ok(Self(url.as_str().trim_end_matches('/').to_owned())),
            None => Err(format!(
                "{:?} is not the beginning of a URL such as https://keys.example.com",
                crate::terminal::shown(text, 80)
            )),
        }
    }
}

impl<'de> Deserialize<'de> for PublicUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for PublicUrl {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "PublicUrl".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "format": "uri", "examples": ["https://keys.example.com"]})
    }
}

/// A span of time, read as `30s`, `1h30m` or `PT30S`, written as ISO 8601.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let refused = || {
            de::Error::custom(format!(
                "{:?} is no span of time such as 30s or PT30S",
                crate::terminal::shown(&text, 40)
            ))
        };
        let signed: jiff::SignedDuration = text.parse().map_err(|_| refused())?;
        signed.try_into().map(Self).map_err(|_| refused())
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let signed = jiff::SignedDuration::try_from(self.0).unwrap_or(jiff::SignedDuration::MAX);
        serializer.collect_str(&signed)
    }
}

impl JsonSchema for Span {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Span".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "examples": ["30s", "PT30S"]})
    }
}

/// A SHA-256, read as 64 hexadecimal digits; colons between them are passed over.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest(pub [u8; 32]);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // What was given is not shown: it may be the token itself.
        let refused = || de::Error::custom("is not the 64 hexadecimal digits of a SHA-256");
        let text = String::deserialize(deserializer).map_err(|_: D::Error| refused())?;
        let digits: Vec<u8> = text
            .chars()
            .filter(|c| *c != ':')
            .map(|c| c.to_digit(16).and_then(|d| u8::try_from(d).ok()))
            .collect::<Option<_>>()
            .ok_or_else(refused)?;
        let bytes: Vec<u8> = digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect();
        if digits.len() != 64 {
            return Err(refused());
        }
        bytes.try_into().map(Self).map_err(|_| refused())
    }
}

/// A rule that a value breaks.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    pub(super) path: Vec<String>,
    pub(super) what: String,
    pub(super) remedy: String,
}

/// A rule broken at that field, as in `control.tokens[0].name`.
pub(super) fn rule(field: &str, what: &str, remedy: &str) -> Rule {
    let path = field.split(['.', '[']).map(|part| part.trim_end_matches(']').to_owned()).collect();
    Rule { path, what: what.to_owned(), remedy: remedy.to_owned() }
}
