//! `jwks-cache fetch` as people and scripts run it: exit codes, table, JSON, standard input and files.
#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

mod binary;

use binary::{Said, run_with};
use jwks_cache_testkit::{Algorithm, IdentityProvider, Origin, Reply};
use serde_json::{Value, json};

fn warnings(said: &Said) -> Vec<String> {
    let of = said.json();
    let warnings = of["warnings"].as_array().unwrap();
    warnings.iter().map(|warning| warning["code"].as_str().unwrap().to_owned()).collect()
}

fn fetch_with(input: &[u8], args: &[&str]) -> Said {
    run_with(input, &[&["fetch"], args].concat())
}

fn fetch(args: &[&str]) -> Said {
    fetch_with(b"", args)
}

/// The JWK of a new key.
fn jwk(kid: &str, algorithm: Algorithm) -> Value {
    let idp = IdentityProvider::builder().kid(kid).algorithm(algorithm).start();
    let said = fetch_body(&idp);
    said["keys"][0].clone()
}

/// What a provider publishes.
fn fetch_body(idp: &IdentityProvider) -> Value {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(idp.origin().addr()).unwrap();
    let path = idp.jwks_url().path().to_owned();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
}

#[test]
fn a_url_is_told_as_a_table_with_its_lifetime_and_where_it_came_from() {
    let idp = IdentityProvider::builder().algorithm(Algorithm::RS256).cache_control("max-age=600").start();
    idp.rotate_to("second", Algorithm::ES256);
    let said = fetch(&[idp.jwks_url().as_str(), "--insecure-http"]);
    assert_eq!((said.code, said.err.as_str()), (0, ""));
    let line =
        |kid: &str| said.out.lines().find(|line| line.trim_start().starts_with(kid)).unwrap().to_owned();
    for (kid, parts) in
        [("k1", ["RSA", "RS256", "2048 bits", "✔ yes"]), ("second", ["EC", "ES256", "P-256", "✔ yes"])]
    {
        let line = line(kid);
        assert!(parts.iter().all(|part| line.contains(part)), "{line}");
    }
    assert!(said.out.contains("2 keys, 2 usable"), "{}", said.out);
    // A second of the wall may have begun between the provider's date and the answer's arrival.
    let lifetime = said.out.lines().find(|line| line.starts_with("Lifetime")).unwrap();
    assert!(
        lifetime.contains("Cache-Control: max-age=600") && lifetime.contains(": fresh for "),
        "{lifetime}"
    );
    assert!(said.out.contains("! plain http"), "{}", said.out);
    assert!(!said.out.contains('\x1b'), "no colours where nobody looks");
}

#[test]
fn json_tells_each_key_the_lifetime_and_warnings_and_nothing_else_is_printed() {
    let idp = IdentityProvider::builder().algorithm(Algorithm::RS256).start();
    let said = fetch(&["--json", "--insecure-http", &format!("{}?token=secret", idp.jwks_url())]);
    assert_eq!((said.code, said.err.as_str()), (0, ""));
    let report = said.json();
    let key = &report["keys"][0];
    assert_eq!(key["thumbprint"].as_str().unwrap().len(), 43);
    let want = json!({
        "kid": "k1", "kty": "RSA", "alg": "RS256", "use": "sig", "bits": 2048, "curve": null,
        "thumbprint": key["thumbprint"], "usable": true, "reason": null,
    });
    assert_eq!(*key, want);
    assert_eq!(report["usable"], 1);
    assert_eq!(report["lifetime"]["seconds"], 300);
    assert_eq!(report["lifetime"]["stated"], "no lifetime stated");
    assert_eq!(warnings(&said), ["insecure_http", "no_lifetime"]);
    assert!(!said.out.contains("secret"));
}

#[test]
fn plain_http_is_refused_and_the_flag_that_allows_it_is_named() {
    let idp = IdentityProvider::start();
    let said = fetch(&[idp.jwks_url().as_str()]);
    assert_eq!((said.code, said.out.as_str()), (2, ""));
    assert!(said.err.contains("not https") && said.err.contains("--insecure-http"), "{}", said.err);
    assert_eq!(idp.jwks_hits(), 0);
}

#[test]
fn what_is_not_fetched_or_no_set_is_exit_code_2_with_a_remedy_on_stderr() {
    let origin = Origin::start();
    origin.set("/missing", Reply::status(404));
    origin.set("/page", Reply::json("<html>").header("x", "y"));
    origin.set("/single", Reply::json(json!({"kty": "RSA"})));
    origin.set("/metadata", Reply::json(json!({"jwks_uri": "https://id.example.com/keys"})));
    origin.set("/huge", Reply::json(" ".repeat(2 << 20)));
    origin.set("/away", Reply::redirect(302, "http://elsewhere.invalid/"));
    for (path, told) in [
        ("/missing", "404"),
        ("/page", "markup"),
        ("/single", "single key"),
        ("/metadata", "jwks_uri"),
        ("/huge", "bytes"),
        ("/away", "elsewhere.invalid"),
    ] {
        let said = fetch(&["--json", "--insecure-http", origin.url(path).as_str()]);
        assert_eq!((said.code, said.out.as_str()), (2, ""), "{path}");
        assert!(said.err.starts_with("error: ") && said.err.contains("\nhelp: "), "{path}: {}", said.err);
        assert!(said.err.contains(told), "{path}: {}", said.err);
    }
    origin.pause();
    let said = fetch(&["--insecure-http", origin.url("/gone").as_str()]);
    assert_eq!(said.code, 2);
    assert!(said.err.contains("caused by: "), "{}", said.err);
    for source in ["no-such-file", "https://", "ftp://host/keys", "https://user:word@host/"] {
        let said = fetch(&[source]);
        assert_eq!((said.code, said.out.as_str()), (2, ""), "{source}");
        assert!(said.err.contains("help: "), "{source}: {}", said.err);
    }
}

#[test]
fn a_redirect_on_the_same_host_is_followed_as_in_production() {
    let idp = IdentityProvider::start();
    idp.origin().set("/moved", Reply::redirect(302, idp.jwks_url()));
    assert_eq!(fetch(&["--insecure-http", idp.origin().url("/moved").as_str()]).code, 0);
}

#[test]
fn a_set_without_a_usable_key_is_exit_code_1_and_says_why() {
    let mut secret = jwk("secret", Algorithm::ES256);
    secret["d"] = json!("c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3I");
    let encrypts = json!({"use": "enc"});
    let mut enc = jwk("enc", Algorithm::ES256);
    enc.as_object_mut().unwrap().extend(encrypts.as_object().unwrap().clone());
    for (keys, reasons) in [
        (json!([]), vec![]),
        (json!([secret]), vec!["private_members"]),
        (json!([enc, secret, 7]), vec!["use_not_sig", "private_members", "not_an_object"]),
    ] {
        let document = json!({"keys": keys}).to_string();
        let said = fetch_with(document.as_bytes(), &["-", "--json"]);
        assert_eq!((said.code, said.err.as_str()), (1, ""), "{document}");
        let report = said.json();
        let got: Vec<_> = report["keys"].as_array().unwrap().iter().map(|key| &key["reason"]).collect();
        assert_eq!(got, reasons, "{document}");
        assert!(warnings(&said).contains(&"no_usable_key".to_owned()));
        assert!(!said.out.contains("c2VjcmV0"), "private members never leave");
    }
    let said = fetch_with(json!({"keys": [secret]}).to_string().as_bytes(), &["-"]);
    assert!(said.out.contains("✘ private key published"), "{}", said.out);
}

#[test]
fn what_is_odd_about_keys_is_warned_of() {
    let (key, mut open) = (jwk("one", Algorithm::ES256), jwk("two", Algorithm::ES256));
    open.as_object_mut().unwrap().remove("alg");
    let (mut nameless, mut secret) = (jwk("three", Algorithm::ES256), jwk("four", Algorithm::ES256));
    nameless.as_object_mut().unwrap().remove("kid");
    secret["d"] = json!("AA");
    let mut short = jwk("five", Algorithm::RS256);
    short["n"] = json!("q".repeat(172));
    for (keys, codes) in [
        (vec![&key], vec![]),
        (vec![&key, &open], vec!["no_alg"]),
        (vec![&key, &nameless], vec!["no_kid"]),
        (vec![&key, &secret], vec!["private_key"]),
        (vec![&key, &short], vec!["weak_key"]),
        (vec![&key, &key], vec!["duplicate_kid"]),
    ] {
        let said = fetch_with(json!({"keys": keys}).to_string().as_bytes(), &["-", "--json"]);
        assert_eq!((said.code, warnings(&said)), (0, codes.iter().map(ToString::to_string).collect()));
    }
}

#[test]
fn standard_input_and_files_state_no_lifetime() {
    let idp = IdentityProvider::start();
    let document = fetch_body(&idp).to_string();
    let said = fetch_with(document.as_bytes(), &["-", "--json"]);
    assert_eq!((said.code, &said.json()["lifetime"]), (0, &Value::Null));
    assert_eq!(said.json()["source"], "standard input");

    let file = std::env::temp_dir().join(format!("jwks-cache-fetch-{}.json", std::process::id()));
    std::fs::write(&file, &document).unwrap();
    let said = fetch(&[file.to_str().unwrap()]);
    std::fs::remove_file(&file).unwrap();
    assert_eq!(said.code, 0);
    assert!(said.out.contains("1 key, 1 usable") && said.out.contains("Lifetime   none"), "{}", said.out);
}

#[test]
fn more_than_a_response_may_have_is_not_read_from_standard_input_either() {
    let said = fetch_with(&vec![b' '; 2 << 20], &["-"]);
    assert_eq!(said.code, 2);
    assert!(said.err.contains("1048576 bytes"), "{}", said.err);
}

#[test]
fn a_kid_is_escaped_and_cut_in_the_table_and_whole_in_json() {
    let kid = format!("\x1b[2J\u{202e}{}", "k".repeat(100));
    let mut key = jwk("k", Algorithm::ES256);
    key["kid"] = json!(kid);
    let document = json!({"keys": [key]}).to_string();
    let said = fetch_with(document.as_bytes(), &["-"]);
    assert!(said.out.contains("\\u{1b}[2J\\u{202e}kk") && said.out.contains('…'), "{}", said.out);
    assert!(!said.out.contains(['\x1b', '\u{202e}']) && !said.out.contains(&"k".repeat(40)));
    let said = fetch_with(document.as_bytes(), &["-", "--json"]);
    assert!(said.out.is_ascii());
    assert_eq!(said.json()["keys"][0]["kid"], json!(kid));
}

#[test]
fn a_command_line_that_cannot_be_read_is_exit_code_2() {
    for args in [&["--made-up", "-"][..], &[], &["-", "-"]] {
        assert_eq!(fetch(args).code, 2, "{args:?}");
    }
}

#[test]
fn private_addresses_are_fetched_unless_denied_and_those_of_credentials_never() {
    let idp = IdentityProvider::start();
    let url = idp.jwks_url();
    assert_eq!(fetch(&[url.as_str(), "--insecure-http"]).code, 0);
    let hits = idp.jwks_hits();
    let denied = fetch(&[url.as_str(), "--insecure-http", "--deny-private"]);
    assert_eq!((denied.code, idp.jwks_hits()), (2, hits));
    assert!(denied.err.contains("at a loopback address"), "{}", denied.err);
    assert!(denied.err.contains("leave --deny-private out"), "{}", denied.err);
    let metadata = fetch(&["http://169.254.169.254/", "--insecure-http"]);
    assert_eq!(metadata.code, 2);
    assert!(metadata.err.contains("at a cloud metadata address"), "{}", metadata.err);
    assert!(metadata.err.contains("DenyExcept"), "{}", metadata.err);
}
