//! A registration as JSON: what is read, what is written, and what an error names.
#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

mod stage;

use std::time::Duration;

use jwks_cache::{
    Algorithm, ClientCertificate, Fallback, IdentityProviderRegistration, JitterStrategy, KeyFormat,
    KeySource, Material, PinMode, PrivateNetworks, RefreshMode, RetryPolicy, SpkiFingerprint, TlsVersion,
};
use serde_json::{Value, json};
use stage::{millis, secs};

const URL: &str = "https://id.example.com/jwks.json";

/// Every duration of a registration, by its path in the JSON.
const DURATIONS: [&str; 18] = [
    "/fallbacks/0/max_trust_age",
    "/refresh_early",
    "/stale_while_error",
    "/min_ttl",
    "/max_ttl",
    "/default_ttl",
    "/max_trust_age",
    "/negative_cache_ttl",
    "/kid_miss_interval",
    "/kid_miss_wait",
    "/removal_grace",
    "/stale_wait",
    "/prefetch_jitter",
    "/connect_timeout",
    "/retry_policy/attempt_timeout",
    "/retry_policy/initial_backoff",
    "/retry_policy/max_backoff",
    "/retry_policy/deadline",
];

fn minimal() -> IdentityProviderRegistration {
    IdentityProviderRegistration::new("acme", "main", URL).unwrap()
}

fn read(json: &Value) -> Result<IdentityProviderRegistration, String> {
    serde_json::from_str(&json.to_string()).map_err(|error| error.to_string())
}

/// A registration in which no field is at its default.
fn unusual() -> IdentityProviderRegistration {
    let mut it = minimal();
    (it.issuer, it.issuer_template) = (Some("https://id.example.com/{tenantid}".into()), true);
    it.source = KeySource::File("keys.json".into());
    it.format = KeyFormat::Pem { kid: "k".into() };
    it.fallbacks = vec![
        Fallback::url("https://elsewhere.example.com/jwks").unwrap(),
        Fallback { format: KeyFormat::X509Map, ..Fallback::file("keys.pem") },
        Fallback { max_trust_age: secs(61), ..Fallback::inline("text") },
    ];
    it.require_https = false;
    it.allowed_domains = vec!["example.com".into()];
    (it.refresh_early, it.stale_while_error) = (secs(41), secs(42));
    (it.min_ttl, it.max_ttl, it.default_ttl) = (secs(43), secs(4_400), secs(45));
    (it.max_trust_age, it.http_strict) = (Some(secs(4_600)), true);
    (it.max_response_bytes, it.max_keys, it.min_rsa_bits) = (47, 48, 4_096);
    it.algorithms = vec![Algorithm::ES256, Algorithm::PS512, Algorithm::EdDSA];
    (it.negative_cache_ttl, it.kid_miss_interval, it.kid_miss_wait) = (secs(49), secs(50), millis(51));
    (it.removal_grace, it.refresh_mode, it.required) = (secs(52), RefreshMode::OnDemand, false);
    (it.stale_wait, it.max_redirects, it.prefetch_jitter) = (millis(53), 7, secs(54));
    it.pinned_spki = vec![SpkiFingerprint::from_b64(&"A".repeat(43)).unwrap()];
    it.pin_mode = PinMode::ReportOnly;
    (it.tls.ca, it.tls.replace_roots) = (Some(Material::file("ca.pem")), true);
    let (chain, key) = (Material::inline("chain"), Material::file("key.pem"));
    it.tls.client_certificate = Some(ClientCertificate { chain, key });
    it.tls.min_version = Some(TlsVersion::Tls13);
    it.headers.insert("X-Api-Key".into(), "secret".into());
    it.bearer_token = Some(Material::inline("token"));
    it.user_agent = Some("mine/1".into());
    it.proxy = Some("http://user:password@proxy.example:3128".parse().unwrap());
    it.connect_timeout = Some(millis(600));
    it.private_networks = PrivateNetworks::DenyExcept(vec!["10.0.0.0/8".into(), "keys.internal".into()]);
    let retry = &mut it.retry_policy;
    (retry.max_retries, retry.attempt_timeout, retry.deadline) = (55, millis(560), secs(57));
    (retry.initial_backoff, retry.max_backoff) = (Duration::new(0, 58), Duration::new(59, 1));
    retry.jitter = JitterStrategy::Decorrelated;
    it
}

#[test]
fn the_smallest_registration_reads_with_every_default() {
    let read = read(&json!({"tenant_id": "acme", "provider_id": "main", "jwks_url": URL})).unwrap();
    assert_eq!(read, minimal());
    assert_eq!((read.refresh_early, read.stale_while_error), (secs(30), secs(60)));
    assert_eq!((read.min_ttl, read.max_ttl, read.default_ttl), (secs(30), secs(86_400), secs(300)));
    assert_eq!(
        (read.issuer.as_ref(), read.require_https, read.http_strict, read.required),
        (None, true, false, true)
    );
    assert_eq!((read.max_response_bytes, read.max_keys, read.min_rsa_bits), (1 << 20, 512, 2048));
    assert_eq!((read.max_trust_age, read.negative_cache_ttl), (None, secs(0)));
    assert_eq!((read.kid_miss_interval, read.kid_miss_wait), (secs(10), secs(2)));
    assert_eq!((read.removal_grace, read.stale_wait), (secs(600), millis(250)));
    assert_eq!((read.refresh_mode, read.max_redirects), (RefreshMode::WhileInUse, 3));
    assert_eq!(read.prefetch_jitter, secs(5));
    let retry = &read.retry_policy;
    assert_eq!((retry.max_retries, retry.jitter), (2, JitterStrategy::Full));
    assert_eq!((retry.attempt_timeout, retry.deadline), (secs(3), secs(8)));
    assert_eq!((retry.initial_backoff, retry.max_backoff), (millis(250), secs(2)));
    read.validate().unwrap();
}

#[test]
fn what_is_written_reads_back_whole() {
    for registration in [minimal(), unusual()] {
        let written = serde_json::to_string(&registration).unwrap();
        assert_eq!(serde_json::from_str::<IdentityProviderRegistration>(&written).unwrap(), registration);
    }
    // No field of the unusual one is at its default, so none can be lost unseen.
    let (usual, unusual) =
        (serde_json::to_value(minimal()).unwrap(), serde_json::to_value(unusual()).unwrap());
    for (name, value) in usual.as_object().unwrap() {
        let identity = ["tenant_id", "provider_id", "jwks_url"].contains(&name.as_str());
        assert_eq!(unusual[name] == *value, identity, "{name}");
    }
}

#[test]
fn durations_read_in_three_forms_and_are_written_in_the_first() {
    for path in DURATIONS {
        for form in
            [json!({"secs": 90, "nanos": 0}), json!("90s"), json!("PT90S"), json!("1m 30s"), json!("PT1M30S")]
        {
            let mut json = serde_json::to_value(unusual()).unwrap();
            *json.pointer_mut(path).unwrap() = form.clone();
            let written =
                serde_json::to_value(read(&json).unwrap_or_else(|error| panic!("{path} {form}: {error}")));
            assert_eq!(
                written.unwrap().pointer(path),
                Some(&json!({"secs": 90, "nanos": 0})),
                "{path} {form}"
            );
        }
    }
    let json = json!({"tenant_id": "a", "provider_id": "b", "jwks_url": URL, "stale_wait": "250ms"});
    assert_eq!(read(&json).unwrap().stale_wait, millis(250));
    let json = json!({"tenant_id": "a", "provider_id": "b", "jwks_url": URL, "max_trust_age": null});
    assert_eq!(read(&json).unwrap().max_trust_age, None);
}

#[test]
fn a_duration_that_is_none_is_an_error_that_shows_how_to_write_one() {
    for bad in [
        json!(30),
        json!("-30s"),
        json!("soon"),
        json!(""),
        json!(true),
        json!([30]),
        json!({"secs": -1, "nanos": 0}),
    ] {
        for path in DURATIONS {
            let mut json = serde_json::to_value(unusual()).unwrap();
            *json.pointer_mut(path).unwrap() = bad.clone();
            assert!(read(&json).is_err(), "{path} {bad}");
        }
    }
    let json = json!({"tenant_id": "a", "provider_id": "b", "jwks_url": URL, "min_ttl": 30});
    assert!(read(&json).unwrap_err().contains("\"30s\""));
}

#[test]
fn errors_name_the_field_or_what_is_allowed() {
    let check = |change: &dyn Fn(&mut Value), named: &str| {
        let mut json = json!({"tenant_id": "a", "provider_id": "b", "jwks_url": URL});
        change(&mut json);
        let error = read(&json).unwrap_err();
        assert!(error.contains(named), "{named} is not in: {error}");
    };
    for field in ["tenant_id", "provider_id", "jwks_url"] {
        check(&|json| drop(json.as_object_mut().unwrap().remove(field)), field);
    }
    check(&|json| json["refresh_mode"] = "sometimes".into(), "while_in_use");
    check(&|json| json["retry_policy"] = json!({"jitter": "some"}), "decorrelated");
    check(&|json| json["algorithms"] = json!(["HS256"]), "HS256");
    check(&|json| json["algorithms"] = json!(["none"]), "none");
    check(&|json| json["pinned_spki"] = json!(["AAAA"]), "pinned_spki");
    check(&|json| json["max_redirects"] = 256.into(), "256");
    check(&|json| json["max_keys"] = (-1).into(), "-1");
    check(&|json| json["jwks_url"] = "not a URL".into(), "jwks_url must be a URL");
    check(&|json| json["proxy"] = "proxy".into(), "proxy must be a URL");
    check(&|json| json["headers"] = json!(["X-Api-Key"]), "headers must be");
    check(&|json| json["bearer_token"] = "token".into(), "bearer_token must be");
    check(&|json| json["tls"] = json!({"ca": "ca.pem"}), r#"{"file": path}"#);
    check(&|json| json["tls"] = json!({"min_version": "1.1"}), r#""1.2" or "1.3""#);
}

#[test]
fn what_reads_is_not_yet_valid() {
    let json = json!({"tenant_id": "", "provider_id": "b", "jwks_url": URL});
    stage::socket::is_validation(read(&json).unwrap().validate(), "tenant_id");
}

#[test]
fn enumerations_are_written_as_the_contract_spells_them() {
    let jitters = [JitterStrategy::None, JitterStrategy::Full, JitterStrategy::Decorrelated];
    assert_eq!(json!(jitters), json!(["none", "full", "decorrelated"]));
    assert_eq!(json!([PinMode::Enforce, PinMode::ReportOnly]), json!(["enforce", "report_only"]));
    assert_eq!(json!([TlsVersion::Tls12, TlsVersion::Tls13]), json!(["1.2", "1.3"]));
    let materials = [Material::file("a.pem"), Material::inline("text")];
    assert_eq!(json!(materials), json!([{"file": "a.pem"}, {"inline": "text"}]));
    let modes = [RefreshMode::OnDemand, RefreshMode::WhileInUse, RefreshMode::Always];
    assert_eq!(json!(modes), json!(["on_demand", "while_in_use", "always"]));
    assert_eq!(json!([Algorithm::ES256, Algorithm::EdDSA]), json!(["ES256", "EdDSA"]));
}

#[test]
fn sources_are_written_by_their_kind_and_leave_out_a_url_that_is_not_asked() {
    let issuer = IdentityProviderRegistration::from_issuer("a", "b", "https://id.example.com").unwrap();
    let written = serde_json::to_value(&issuer).unwrap();
    assert_eq!((&written["source"], written.get("jwks_url")), (&json!("discovery"), None));
    assert_eq!(read(&written).unwrap(), issuer);
    let sources = [
        KeySource::Url,
        KeySource::DiscoveryAt(Box::new("https://a.example/".parse().unwrap())),
        KeySource::File("keys.json".into()),
        KeySource::Inline("text".into()),
    ];
    let forms =
        json!(["url", {"discovery_at": "https://a.example/"}, {"file": "keys.json"}, {"inline": "text"}]);
    assert_eq!(json!(sources), forms);
    let formats = [KeyFormat::Jwks, KeyFormat::X509Map, KeyFormat::Pem { kid: "k".into() }];
    assert_eq!(json!(formats), json!(["jwks", "x509_map", {"pem": {"kid": "k"}}]));
    let fallback: Fallback =
        serde_json::from_value(json!({"source": {"url": "https://a.example/"}})).unwrap();
    assert_eq!(fallback, Fallback::url("https://a.example/").unwrap());
    assert_eq!(fallback.max_trust_age, secs(86_400));
}

#[test]
fn a_retry_policy_reads_with_the_defaults_it_does_not_name() {
    let policy: RetryPolicy = serde_json::from_value(json!({"max_retries": 9})).unwrap();
    assert_eq!(policy, RetryPolicy { max_retries: 9, ..RetryPolicy::default() });
}
