//! A provider of the file: the library's own registration, told as a schema, and what the server adds to it.

use jwks_cache::security::host_is_allowed;
use jwks_cache::{Error, IdentityProviderRegistration, KeySource, RefreshMode};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, json};
use url::Url;

use super::Defaults;
use super::types::{Rule, rule};

/// A provider: the settings of the library's registration, under the names it gives them.
#[derive(Clone, Debug, PartialEq)]
pub struct Provider(pub IdentityProviderRegistration);

impl<'de> Deserialize<'de> for Provider {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        IdentityProviderRegistration::deserialize(deserializer).map(Self::new)
    }
}

impl Provider {
    /// A registration as the server keeps it: what the server is ready with is kept fresh though nobody asks for it.
    #[must_use]
    pub fn new(mut registration: IdentityProviderRegistration) -> Self {
        if registration.required {
            registration.refresh_mode = RefreshMode::Always;
        }
        // An issuer alone says where its keys are.
        if registration.jwks_url.cannot_be_a_base()
            && registration.source == KeySource::Url
            && registration.issuer.is_some()
        {
            registration.source = KeySource::Discovery;
        }
        registration.normalize_allowed_domains();
        Self(registration)
    }
}

/// The first rule that a registration breaks, its own or the server's.
pub(super) fn rule_of(
    tenant: &str,
    provider: &str,
    Provider(registration): &Provider,
    defaults: &Defaults,
) -> Option<Rule> {
    let broken = |field: &str, what: String, remedy: &str| {
        let mut rule = rule(field, &what, remedy);
        let mut path = ["tenants", tenant, "providers", provider].map(str::to_owned).to_vec();
        match field {
            "tenant_id" => path.truncate(2),
            "provider_id" => {}
            _ => path.append(&mut rule.path),
        }
        rule.path = path;
        Some(rule)
    };
    if registration.source == KeySource::Url && registration.jwks_url.cannot_be_a_base() {
        let remedy = "add it, as in https://id.example.com/jwks.json, or the issuer whose metadata names it";
        return broken("jwks_url", "is missing".into(), remedy);
    }
    match registration.validate() {
        Err(Error::Validation { field, reason }) => return broken(field, reason, ""),
        Err(error) => {
            let remedy = "use an https URL; require_https = false, here and in [defaults], allows http";
            return broken("jwks_url", error.to_string(), remedy);
        }
        Ok(()) => {}
    }
    if defaults.require_https && !registration.require_https {
        let remedy = "set require_https = false in [defaults] too, if plain http is meant";
        return broken("require_https", "is false, and defaults.require_https is true".into(), remedy);
    }
    let issuer = registration.issuer.as_deref().and_then(|issuer| Url::parse(issuer).ok());
    let (setting, home) = match &registration.source {
        KeySource::Url => ("jwks_url", Some(&registration.jwks_url)),
        KeySource::Discovery => ("issuer", issuer.as_ref()),
        KeySource::DiscoveryAt(url) => ("source", Some(&**url)),
        _ => return None,
    };
    let host = home.and_then(Url::host_str).unwrap_or_default();
    if !host_is_allowed(host, &defaults.allowed_domains) {
        let remedy = "add the host there, or correct the URL";
        return broken(setting, format!("host {host} is not in defaults.allowed_domains"), remedy);
    }
    None
}

pub(super) fn networks_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"oneOf": networks()})
}

fn networks() -> Value {
    json!([
        {"type": "string", "enum": ["allow", "deny"]},
        {
            "type": "object",
            "properties": {"deny_except": {"type": "array", "items": {"type": "string"}}},
            "required": ["deny_except"],
            "additionalProperties": false,
        },
    ])
}

impl JsonSchema for Provider {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Provider".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "object",
            "properties": properties(),
            "anyOf": [{"required": ["jwks_url"]}, {"required": ["issuer"]}, {"required": ["source"]}],
            "additionalProperties": false,
        })
    }
}

/// Every setting of the library's registration but the two names, which are the tables'.
fn properties() -> Value {
    let with = |mut schema: Value, text: &str| {
        schema["description"] = text.into();
        schema
    };
    let span = |text: &str| with(json!({"type": "string", "examples": ["30s", "PT30S"]}), text);
    let yes_no = |text: &str| with(json!({"type": "boolean"}), text);
    let count = |text: &str| with(json!({"type": "integer", "minimum": 0}), text);
    let texts = |text: &str| with(json!({"type": "array", "items": {"type": "string"}}), text);
    let one = |of: &[&str], text: &str| with(json!({"type": "string", "enum": of}), text);
    let text = |text: &str| with(json!({"type": "string"}), text);
    let material = |text: &str| {
        with(
            json!({
                "type": "object",
                "properties": {"file": {"type": "string"}, "inline": {"type": "string"}},
                "additionalProperties": false,
            }),
            text,
        )
    };
    let place = |kind: &str| {
        json!({
            "type": "object",
            "properties": { kind: {"type": "string", "description": "The place, or the text itself."} },
            "required": [kind],
            "additionalProperties": false,
        })
    };
    let format = json!({"oneOf": [
        {"type": "string", "enum": ["jwks", "x509_map"]},
        {
            "type": "object",
            "properties": {"pem": {
                "type": "object",
                "description": "One public key in PEM.",
                "properties": {"kid": {"type": "string", "description": "The kid that it gets."}},
                "required": ["kid"],
                "additionalProperties": false,
            }},
            "required": ["pem"],
            "additionalProperties": false,
        },
    ]});
    let all = [
        ("jwks_url", text("Where the keys are published, as in https://id.example.com/jwks.json.")),
        (
            "issuer",
            text(
                "The `iss` of this provider's tokens, byte for byte. Without jwks_url and source, its metadata says where the keys are. Default none.",
            ),
        ),
        (
            "issuer_template",
            yes_no("Whether {tenantid} in issuer stands for each token's `tid`. Default false."),
        ),
        (
            "source",
            with(
                json!({"oneOf": [
                    {"type": "string", "enum": ["url", "discovery"]},
                    place("discovery_at"),
                    place("file"),
                    place("inline"),
                ]}),
                "Where keys come from: jwks_url, the issuer's metadata, metadata elsewhere, a file or this text. Default url.",
            ),
        ),
        ("format", with(format.clone(), "How keys are written. Default jwks.")),
        (
            "fallbacks",
            with(
                json!({"type": "array", "maxItems": 8, "items": {
                    "type": "object",
                    "properties": {
                        "source": with(
                            json!({"oneOf": [place("url"), place("file"), place("inline")]}),
                            "Where it is.",
                        ),
                        "format": with(format, "How its keys are written. Default jwks."),
                        "max_trust_age": span("The longest it serves in one outage. Default 24h."),
                    },
                    "required": ["source"],
                    "additionalProperties": false,
                }}),
                "Other sources, for while the first fails and none of its keys may be served. Default none.",
            ),
        ),
        ("require_https", yes_no("Whether only https will do. Default true.")),
        (
            "allowed_domains",
            texts(
                "Hosts that may be asked, subdomains included. Default empty: any, and redirects stay on the host.",
            ),
        ),
        (
            "refresh_early",
            span(
                "How long before the end of their lifetime keys are refreshed, at least 1s and less than max_ttl. Default 30s.",
            ),
        ),
        (
            "stale_while_error",
            span("How long expired keys are served while the provider fails. Default that of [defaults]."),
        ),
        ("min_ttl", span("The shortest lifetime, at least 30s. Default 30s.")),
        ("max_ttl", span("The longest lifetime, at least min_ttl. Default 24h.")),
        ("default_ttl", span("The lifetime of a response that states none. Default 5m.")),
        (
            "max_trust_age",
            span(
                "No key is served later than this after a document last held it. Default the larger of 48h and max_ttl + stale_while_error.",
            ),
        ),
        ("http_strict", yes_no("Obey HTTP caching to the letter (RFC 9111). Default false.")),
        ("max_response_bytes", count("The most bytes of a body. Default 1048576.")),
        ("max_keys", count("The most keys of a document. Default 512.")),
        ("min_rsa_bits", count("RSA keys below this are not used, 1024 to 4096. Default 2048.")),
        ("algorithms", texts("The algorithms that keys are used with. Default empty: all asymmetric ones.")),
        (
            "negative_cache_ttl",
            span("How long a failed fetch answers who has nothing; 0s is off. Default 0s."),
        ),
        (
            "kid_miss_interval",
            span("The least time between requests that unknown kids cause, at least 1s. Default 10s."),
        ),
        ("kid_miss_wait", span("The longest wait for an unknown kid. Default 2s.")),
        ("removal_grace", span("How long a key that left the document is used. Default 10m.")),
        (
            "refresh_mode",
            one(
                &["on_demand", "while_in_use", "always"],
                "Who starts refreshes. Default while_in_use; a required provider is always.",
            ),
        ),
        ("required", yes_no("Whether /readyz waits for it. Default true.")),
        (
            "stale_wait",
            span("How long a caller waits for a refresh before it gets expired keys. Default 250ms."),
        ),
        ("max_redirects", count("The most redirects, at most 10. Default 3.")),
        (
            "pinned_spki",
            texts("Pins on the certificate path, as `jwks-cache pin HOST` prints them. Default none."),
        ),
        ("pin_mode", one(&["enforce", "report_only"], "What happens when no pin matches. Default enforce.")),
        (
            "tls",
            with(
                json!({
                    "type": "object",
                    "properties": {
                        "ca": material("CA certificates that are trusted as well: { file = path } or { inline = text }."),
                        "replace_roots": yes_no("Whether ca stands alone. Default false."),
                        "client_certificate": {
                            "type": "object",
                            "description": "The certificate that we show.",
                            "properties": {"chain": material("The certificate, in PEM."), "key": material("Its key, in PEM.")},
                            "required": ["chain", "key"],
                            "additionalProperties": false,
                        },
                        "min_version": one(&["1.2", "1.3"], "The oldest version spoken. Default 1.2."),
                    },
                    "additionalProperties": false,
                }),
                "Roots, client certificate and versions of TLS.",
            ),
        ),
        (
            "headers",
            with(
                json!({"type": "object", "additionalProperties": {"type": "string"}}),
                "Headers of each request to the registered origin. Default none.",
            ),
        ),
        (
            "bearer_token",
            material(
                "A token for the registered origin: { file = path } or { inline = text }. Default none.",
            ),
        ),
        ("user_agent", text("The User-Agent. Default jwks-cache/ and the version.")),
        ("proxy", text("A proxy, as in http://proxy.example:3128. Default none.")),
        ("connect_timeout", span("The longest that connecting may take. Default 2s.")),
        (
            "private_networks",
            with(
                json!({"oneOf": networks()}),
                "Where it may be; can only tighten [defaults]. Default allow.",
            ),
        ),
        ("prefetch_jitter", span("A random part taken off the refresh time. Default 5s.")),
        (
            "retry_policy",
            with(
                json!({
                    "type": "object",
                    "properties": {
                        "max_retries": count("Attempts after the first. Default 2."),
                        "attempt_timeout": span("The deadline of one attempt, at least 100ms. Default 3s."),
                        "initial_backoff": span("The first wait, more than 0s. Default 250ms."),
                        "max_backoff": span("The longest wait, at least initial_backoff. Default 2s."),
                        "deadline": span("The deadline of a flight, at least attempt_timeout. Default 8s."),
                        "jitter": one(&["none", "full", "decorrelated"], "How waits are spread. Default full."),
                    },
                    "additionalProperties": false,
                }),
                "Retries within one flight.",
            ),
        ),
    ];
    all.into_iter().map(|(name, of)| (name.to_owned(), of)).collect::<Map<_, _>>().into()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn names(of: &Value) -> BTreeSet<String> {
        of.as_object().unwrap().keys().cloned().collect()
    }

    #[test]
    fn the_schema_names_each_setting_of_the_library_and_no_other() {
        let registration = IdentityProviderRegistration::new("t", "p", "https://a.example/").unwrap();
        let written = serde_json::to_value(&registration).unwrap();
        let mut library = names(&written);
        library.remove("tenant_id");
        library.remove("provider_id");
        let ours = properties();
        assert_eq!(names(&ours), library);
        for nested in ["tls", "retry_policy"] {
            assert_eq!(names(&ours[nested]["properties"]), names(&written[nested]), "{nested}");
        }
    }

    #[test]
    fn each_word_of_an_enumeration_is_one_of_the_librarys() {
        let take = |field: &str, word: &Value| {
            let mut written = json!({"tenant_id": "t", "provider_id": "p", "jwks_url": "https://a.example/"});
            match field.split_once('.') {
                Some((outer, inner)) => written[outer] = json!({ inner: word }),
                None => written[field] = word.clone(),
            }
            serde_json::from_value::<Provider>(written).map(drop).map_err(|error| error.to_string())
        };
        let ours = properties();
        let tls = ("tls.min_version", &ours["tls"]["properties"]["min_version"]["enum"]);
        let jitter = ("retry_policy.jitter", &ours["retry_policy"]["properties"]["jitter"]["enum"]);
        let flat = ["refresh_mode", "pin_mode"].map(|field| (field, &ours[field]["enum"]));
        let networks = ("private_networks", &ours["private_networks"]["oneOf"][0]["enum"]);
        for (field, words) in flat.into_iter().chain([tls, jitter, networks]) {
            for word in words.as_array().unwrap() {
                assert_eq!(take(field, word), Ok(()), "{field} {word}");
            }
        }
        assert!(take("refresh_mode", &json!("sometimes")).is_err());
    }

    #[test]
    fn a_required_provider_is_always_refreshed() {
        for (required, want) in [(true, RefreshMode::Always), (false, RefreshMode::WhileInUse)] {
            let mut registration = IdentityProviderRegistration::new("t", "p", "https://a.example/").unwrap();
            registration.required = required;
            assert_eq!(Provider::new(registration).0.refresh_mode, want);
        }
    }
}
