//! Reading settings that may hold secrets. Serde's errors quote what they cannot read; these say what is to stand
//! there instead, by texts that are fixed.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Deserializer, de};
use url::Url;

use super::settings::{ClientCertificate, Material, Secret, TlsSettings, TlsVersion};

const CERTIFICATE: &str =
    r#"client_certificate must be {"chain": …, "key": …}, each {"file": path} or {"inline": text}"#;
const TLS: &str = r#"tls must be an object of ca ({"file": path} or {"inline": text}), replace_roots (true or false), client_certificate ({"chain": …, "key": …}, each as ca) and min_version ("1.2" or "1.3")"#;

/// Reads a `T`; where it is none, the error is `expected`.
pub(super) fn read<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
    expected: &'static str,
) -> Result<T, D::Error> {
    T::deserialize(deserializer).map_err(|_| de::Error::custom(expected))
}

pub(crate) fn jwks_url<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Url, D::Error> {
    read(deserializer, "jwks_url must be a URL, as in https://id.example.com/jwks.json")
}

pub(crate) fn proxy<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Url>, D::Error> {
    read(deserializer, "proxy must be a URL of host and port, as in http://proxy.example:3128, or null")
}

pub(crate) fn headers<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, Secret>, D::Error> {
    read(deserializer, r#"headers must be an object of names and texts, as in {"X-Api-Key": "…"}"#)
}

pub(crate) fn bearer_token<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Material>, D::Error> {
    read(deserializer, r#"bearer_token must be {"file": path}, {"inline": text} or null"#)
}

impl<'de> Deserialize<'de> for Material {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(remote = "Material", rename_all = "snake_case")]
        enum Form {
            File(PathBuf),
            Inline(Secret),
        }
        Form::deserialize(deserializer)
            .map_err(|_| de::Error::custom(r#"must be {"file": path} or {"inline": text}"#))
    }
}

impl<'de> Deserialize<'de> for ClientCertificate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(remote = "ClientCertificate")]
        struct Form {
            chain: Material,
            key: Material,
        }
        Form::deserialize(deserializer).map_err(|_| de::Error::custom(CERTIFICATE))
    }
}

impl<'de> Deserialize<'de> for TlsSettings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(remote = "TlsSettings")]
        struct Form {
            #[serde(default)]
            ca: Option<Material>,
            #[serde(default)]
            replace_roots: bool,
            #[serde(default)]
            client_certificate: Option<ClientCertificate>,
            #[serde(default)]
            min_version: Option<TlsVersion>,
        }
        Form::deserialize(deserializer).map_err(|_| de::Error::custom(TLS))
    }
}
