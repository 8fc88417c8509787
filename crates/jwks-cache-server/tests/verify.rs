//! `jwks-cache verify`, `explain`, `demo --serve`, `completions` and `man` as people and scripts run them.
#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

mod binary;

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::Stdio;

use binary::{Said, command, run_with};
use jwks_cache_testkit::{Algorithm, IdentityProvider, Origin, Reply, Token};
use serde_json::{Value, json};

/// The names of the checks with that outcome.
fn checks(said: &Said, state: &str) -> Vec<String> {
    let report = said.json();
    let of = report["checks"].as_array().unwrap().iter().filter(|check| check["state"] == state);
    of.map(|check| check["name"].as_str().unwrap().to_owned()).collect()
}

fn token() -> Token {
    Token::new().subject("ada").audience("orders")
}

#[test]
fn a_good_token_is_told_with_its_claims_its_key_and_each_check() {
    let idp = IdentityProvider::start();
    let (issuer, minted) = (idp.issuer(), idp.mint(&token()));
    let args = ["verify", "--issuer", &issuer, "--audience", "orders", "--insecure-http"];
    let said = run_with(format!("Bearer {minted}\n"), &args);
    assert_eq!((said.code, said.err.as_str()), (0, ""), "{}", said.out);
    for part in
        ["\"sub\": \"ada\"", "\"alg\": \"ES256\"", "k1 (thumbprint ", "signature", "The token is good."]
    {
        assert!(said.out.contains(part), "{part}: {}", said.out);
    }
    let said = run_with(&minted, &[&args[..], &["-", "--json"]].concat());
    assert_eq!((said.code, &said.json()["verdict"]), (0, &json!("good")));
    assert_eq!(checks(&said, "passed"), ["form", "key", "signature", "issuer", "audience", "exp"]);
    assert_eq!(checks(&said, "not_asked"), ["type", "nbf"]);
    assert_eq!(said.json()["claims"]["sub"], "ada");
    assert_eq!(said.json()["keys_from"], idp.jwks_url().as_str());
}

#[test]
fn each_check_fails_by_itself_and_the_verdict_is_the_librarys() {
    let idp = IdentityProvider::start();
    let (issuer, url) = (idp.issuer(), idp.jwks_url().to_string());
    let claims = |change: Value| {
        let mut claims = json!({"iss": issuer, "aud": "orders", "exp": 9_999_999_999_u64});
        claims.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        claims
    };
    let good = idp.token(&claims(json!({})));
    let foreign = IdentityProvider::start().token(&claims(json!({})));
    let (start, signature) = good.rsplit_once('.').unwrap();
    let first = if signature.starts_with('A') { "B" } else { "A" };
    let altered = format!("{start}.{first}{}", &signature[1..]);
    for (what, token, failed, reached_signature) in [
        ("good", good.clone(), vec![], true),
        ("forged", foreign, vec!["signature"], true),
        ("altered", altered, vec!["signature"], true),
        ("unknown kid", idp.token_naming("other", &claims(json!({}))), vec!["key"], false),
        ("expired", idp.token(&claims(json!({"exp": 1}))), vec!["exp"], true),
        ("early", idp.token(&claims(json!({"nbf": 9_999_999_998_u64}))), vec!["nbf"], true),
        ("audience", idp.token(&claims(json!({"aud": ["bills"]}))), vec!["audience"], true),
        ("issuer", idp.token(&claims(json!({"iss": "https://x.example"}))), vec!["issuer"], true),
        (
            "several",
            idp.token(&claims(json!({"exp": 1, "aud": "x", "iss": "y"}))),
            vec!["issuer", "audience", "exp"],
            true,
        ),
        ("text", "no token".into(), vec!["form"], false),
        ("empty", String::new(), vec!["form"], false),
        ("typed", idp.token(&claims(json!({"exp": "soon"}))), vec!["exp"], true),
    ] {
        let args = [
            "verify",
            "--json",
            "--issuer",
            &issuer,
            "--jwks",
            &url,
            "--audience",
            "orders",
            "--insecure-http",
            "-",
        ];
        let said = run_with(&token, &args);
        assert_eq!(checks(&said, "failed"), failed, "{what}: {}", said.out);
        assert_eq!(said.code, i32::from(!failed.is_empty()), "{what}: {}", said.out);
        assert_eq!(said.json()["verdict"] == "good", failed.is_empty(), "{what}");
        let passed_or_failed = [checks(&said, "passed"), checks(&said, "failed")].concat();
        assert_eq!(passed_or_failed.iter().any(|name| name == "signature"), reached_signature, "{what}");
    }
    let said = run_with(&good, &["verify", "--json", "--jwks", &url, "--insecure-http", "--typ", "at+jwt"]);
    assert_eq!((said.code, checks(&said, "failed")), (1, vec!["type".to_owned()]));
    let said = run_with(&good, &["verify", "--json", "--jwks", &url, "--insecure-http"]);
    assert_eq!(
        (said.code, checks(&said, "not_asked")),
        (0, ["type", "issuer", "audience", "nbf"].map(str::to_owned).into())
    );
}

#[test]
fn keys_may_be_in_a_file_and_without_any_nothing_is_verified_or_asked_of_anybody() {
    let idp = IdentityProvider::start();
    let minted = idp.mint(&token());
    let file = std::env::temp_dir().join(format!("jwks-cache-verify-{}.json", std::process::id()));
    std::fs::write(&file, published(&idp)).unwrap();
    let before = idp.origin().total();
    let said = run_with(&minted, &["verify", "--jwks", file.to_str().unwrap(), "--json"]);
    std::fs::remove_file(&file).unwrap();
    assert_eq!((said.code, &said.json()["verdict"]), (0, &json!("good")), "{}", said.out);
    let said = run_with(&minted, &["verify", "--json"]);
    assert_eq!((said.code, &said.json()["verdict"]), (2, &json!("not_verified")));
    assert_eq!(said.json()["claims"]["sub"], "ada");
    assert_eq!(idp.origin().total(), before);
}

/// What a provider publishes.
fn published(idp: &IdentityProvider) -> String {
    use std::io::Read as _;
    let mut stream = std::net::TcpStream::connect(idp.origin().addr()).unwrap();
    let path = idp.jwks_url().path().to_owned();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split_once("\r\n\r\n").unwrap().1.to_owned()
}

#[test]
fn without_keys_nothing_is_said_of_the_token_and_the_reason_is() {
    let idp = IdentityProvider::start();
    let (minted, origin) = (idp.mint(&token()), Origin::start());
    let mix_up = json!({"issuer": "https://other.example", "jwks_uri": idp.jwks_url()});
    origin.set("/.well-known/openid-configuration", Reply::json(mix_up.to_string()));
    let no_set = origin.url("/none").to_string();
    let other = origin.url("").to_string();
    idp.go_down();
    for (args, wanted) in [
        (vec!["--issuer", &*idp.issuer(), "--insecure-http"], "attempt"),
        (
            vec!["--issuer", other.trim_end_matches('/'), "--insecure-http"],
            "it calls itself https://other.example",
        ),
        (vec!["--issuer", &*idp.issuer()], "https"),
        (vec!["--jwks", &no_set, "--insecure-http"], "404"),
        (vec!["--jwks", "no-such-file.json"], "no-such-file.json"),
    ] {
        for command in ["verify", "explain"] {
            let said = run_with(&minted, &[&[command], &args[..]].concat());
            assert_eq!((said.code, said.out.as_str()), (2, ""), "{command} {args:?}");
            assert!(said.err.contains(wanted) && said.err.contains("help: "), "{args:?}: {}", said.err);
            assert!(!said.err.contains(&minted));
        }
    }
}

#[test]
fn header_and_certificate_are_for_the_issuers_own_origin_and_keys_come_from_a_url() {
    let (issuer, elsewhere) = (Origin::start(), Origin::start());
    let name = issuer.url("").to_string();
    elsewhere.set("/jwks", Reply::json(json!({"keys": []})));
    let asks = |jwks_uri: &str| {
        let metadata = json!({"issuer": name, "jwks_uri": jwks_uri});
        issuer.set("/.well-known/openid-configuration", Reply::json(metadata));
        let args = ["verify", "--insecure-http", "--issuer", &name, "--header", "X-Api-Key: s3cret", "-"];
        run_with("a.b.c", &args)
    };
    asks(elsewhere.url("/jwks").as_str());
    assert_eq!(elsewhere.requests("/jwks")[0].header("x-api-key"), None);
    issuer.set("/jwks", Reply::json(json!({"keys": []})));
    asks(issuer.url("/jwks").as_str());
    let own = &issuer.requests("/jwks")[0];
    assert_eq!(own.header("x-api-key"), Some("s3cret"));
    for no_url in ["file:///etc/passwd", "data:application/json,{}", "c:/keys.json", "keys.json"] {
        let said = asks(no_url);
        assert!(said.err.contains("names no key set"), "{no_url}: {}", said.err);
    }
}

#[test]
fn a_token_on_the_command_line_is_taken_with_a_warning() {
    let idp = IdentityProvider::start();
    let (minted, url) = (idp.mint(&token()), idp.jwks_url().to_string());
    let said = run_with("", &["verify", "--jwks", &url, "--insecure-http", &minted]);
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(said.err.starts_with("warning: ") && said.err.contains("history"), "{}", said.err);
    assert!(!said.err.contains(&minted));
}

#[test]
fn what_a_token_says_commands_no_terminal() {
    let idp = IdentityProvider::start();
    let hostile = "\u{1b}[2J\u{202e}\u{9b}31m";
    let minted = idp.mint(&token().claim("name", hostile).issuer(hostile));
    let url = idp.jwks_url().to_string();
    for args in [&["verify"][..], &["verify", "--json"], &["explain"]] {
        let said = run_with(&minted, &[args, &["--jwks", &url, "--insecure-http"]].concat());
        assert_eq!(said.code, 0, "{}", said.err);
        let bare = |c: char| c != '\n' && (c.is_control() || c == '\u{202e}');
        assert!(!said.out.contains(bare), "{:?}", said.out);
    }
}

#[test]
fn explain_names_the_key_or_says_why_there_is_none() {
    let idp = IdentityProvider::builder().algorithm(Algorithm::RS256).start();
    idp.rotate_to("second", Algorithm::ES256);
    let (minted, url) = (idp.mint(&token()), idp.jwks_url().to_string());
    let ask = |what: &str| run_with(what, &["explain", "--jwks", &url, "--insecure-http", "--json"]);
    let found = ask(&minted);
    assert_eq!((found.code, &found.json()["explanation"]["kid"]), (0, &json!("second")));
    let thumbprint = found.json()["explanation"]["thumbprint"].as_str().unwrap().to_owned();
    // The encoded header, and its JSON.
    for header in [minted.split('.').next().unwrap(), r#"{"alg":"ES256","kid":"second"}"#] {
        assert_eq!(ask(header).json()["explanation"]["thumbprint"], *thumbprint, "{header}");
    }
    for (header, why) in [
        (r#"{"alg":"ES256","kid":"none"}"#, "kid"),
        (r#"{"alg":"RS256","kid":"second"}"#, ""),
        (r#"{"alg":"none"}"#, "algorithm"),
        ("nonsense", ""),
    ] {
        let said = ask(header);
        let reason = said.json()["explanation"]["why_not"].as_str().unwrap().to_owned();
        assert!(said.code == 1 && reason.contains(why), "{header}: {reason}");
    }
    let said = run_with(&minted, &["explain", "--jwks", &url, "--insecure-http"]);
    assert!(said.out.contains(&format!("This key would verify it: {thumbprint}")), "{}", said.out);
    assert_eq!(run_with(&minted, &["explain"]).code, 2);
}

#[test]
fn the_demos_provider_stays_and_its_token_is_good() {
    let mut child = command(&["demo", "--serve", "--port", "0"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut after = |start: &str| loop {
        let line = lines.next().unwrap().unwrap();
        if let Some(rest) = line.trim_start().strip_prefix(start) {
            break rest.trim().to_owned();
        }
    };
    let (issuer, minted) = (after("issuer"), format!("ey{}", after("ey")));
    let said = run_with(
        &minted,
        &["verify", "--issuer", &issuer, "--audience", "orders", "--insecure-http", "-", "--json"],
    );
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!((said.code, &said.json()["claims"]["scope"]), (0, &json!("orders:read")), "{}", said.out);
}

#[test]
fn completions_and_pages_name_every_command() {
    const COMMANDS: [&str; 7] = ["demo", "fetch", "verify", "explain", "pin", "completions", "man"];
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let said = run_with("", &["completions", shell]);
        assert_eq!((said.code, said.err.as_str()), (0, ""), "{shell}");
        for word in COMMANDS.into_iter().chain(["audience", "insecure-http"]) {
            assert!(said.out.contains(word), "{shell}: {word}");
        }
    }
    let page = run_with("", &["man"]);
    assert!(page.code == 0 && page.out.contains(".TH jwks-cache 1"), "{}", page.out);
    let folder = std::env::temp_dir().join(format!("jwks-cache-man-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    assert_eq!(run_with("", &["man", folder.to_str().unwrap()]).code, 0);
    for command in COMMANDS {
        let text = std::fs::read_to_string(folder.join(format!("jwks-cache-{command}.1"))).unwrap();
        assert!(text.contains(".SH SYNOPSIS"), "{command}: {text}");
    }
    std::fs::remove_dir_all(&folder).unwrap();
    assert_eq!(run_with("", &["man", folder.to_str().unwrap()]).code, 2);
}

#[cfg(target_os = "linux")]
mod prompt {
    use std::fs::{File, OpenOptions};
    use std::io::{Read as _, Write as _};
    use std::sync::mpsc::{Receiver, channel};
    use std::time::Duration;

    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

    use super::*;

    /// A terminal, its far end, and what is shown on it.
    fn terminal() -> (File, File, Receiver<String>) {
        let near = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&near).unwrap();
        unlockpt(&near).unwrap();
        let name = ptsname(&near, Vec::new()).unwrap();
        let far = OpenOptions::new().read(true).write(true).open(name.to_str().unwrap()).unwrap();
        let near = File::from(near);
        let (mut reader, (shown, seen)) = (near.try_clone().unwrap(), channel());
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(read @ 1..) = reader.read(&mut bytes) {
                let _ = shown.send(String::from_utf8_lossy(&bytes[..read]).into_owned());
            }
        });
        (near, far, seen)
    }

    /// Types this once asked; what the command says, and what the terminal showed.
    fn type_in(typed: &str, args: &[&str]) -> (Said, String) {
        let (mut near, far, seen) = terminal();
        let child =
            command(args).stdin(far.try_clone().unwrap()).stderr(far).stdout(Stdio::piped()).spawn().unwrap();
        let mut shown = String::new();
        while !shown.contains("Token (not shown): ") {
            shown += &seen.recv_timeout(Duration::from_secs(60)).unwrap();
        }
        near.write_all(typed.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let code = output.status.code().unwrap();
        while let Ok(more) = seen.recv_timeout(Duration::from_millis(200)) {
            shown += &more;
        }
        (Said { code, out: String::from_utf8(output.stdout).unwrap(), err: String::new() }, shown)
    }

    #[test]
    fn a_token_is_asked_for_and_not_shown_however_long() {
        let idp = IdentityProvider::start();
        // A terminal would cut a line at 4,096 bytes.
        let minted = idp.mint(&token().claim("pad", "x".repeat(6_000)));
        let url = idp.jwks_url().to_string();
        let args = ["verify", "--jwks", &url, "--insecure-http", "--json"];
        let (said, shown) = type_in(&format!("{minted}\n"), &args);
        assert_eq!((said.code, &said.json()["verdict"]), (0, &json!("good")), "{shown}");
        assert!(!shown.contains(&minted[..8]), "{shown}");
        let (said, shown) = type_in("abc\x03", &args);
        assert_eq!((said.code, said.out.as_str()), (2, ""), "{shown}");
        assert!(!shown.contains("abc"), "{shown}");
    }
}
