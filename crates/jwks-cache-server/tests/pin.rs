//! Whom the commands believe and who they are: `jwks-cache pin`, and what `fetch` takes of it.
#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

mod binary;

use std::path::PathBuf;

use binary::run;
use jwks_cache_testkit::Reply;
use jwks_cache_testkit::tls::{Authority, Certificate, TlsOrigin, TlsServer};
use serde_json::Value;

/// A server under a root and an intermediate, and the files that a command line names.
struct Stage {
    root: Authority,
    middle: Authority,
    leaf: Certificate,
    origin: TlsOrigin,
    folder: PathBuf,
}

impl Stage {
    fn new(name: &str, change: impl FnOnce(TlsServer, &Authority) -> TlsServer) -> Self {
        let root = Authority::new("the root");
        let middle = root.intermediate("the intermediate");
        let leaf = middle.server(&["127.0.0.1"]);
        let origin = TlsOrigin::start(&change(TlsServer::new(leaf.clone()), &root));
        let keys = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"k","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
        origin.set("/jwks", Reply::json(keys));
        let folder = std::env::temp_dir().join(format!("jwks-cache-pin-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        Self { root, middle, leaf, origin, folder }
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.folder.join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn url(&self) -> String {
        self.origin.url("/jwks").into()
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

#[test]
fn pins_of_the_verified_path_are_printed_ready_to_paste() {
    let stage = Stage::new("path", |server, _| server);
    let stranger = Authority::new("appended");
    stage.origin.show(&TlsServer::new(stage.leaf.clone().followed_by_authority(&stranger)));
    let (host, ca) = (stage.origin.addr().to_string(), stage.file("ca.pem", &stage.root.pem()));
    let said = run(&["pin", &host, "--ca", &ca]);
    assert_eq!((said.code, said.err.as_str()), (0, ""));
    for (role, pin) in
        [("server", stage.leaf.pin()), ("intermediate", stage.middle.pin()), ("root", stage.root.pin())]
    {
        let pin = format!("{pin:?}");
        let line = said.out.lines().find(|line| line.trim_start().starts_with(role)).unwrap();
        assert!(line.contains(&pin), "{line}");
    }
    assert!(said.out.contains(&format!("\"pinned_spki\": [\"{:?}\"]", stage.leaf.pin())), "{}", said.out);
    assert!(!said.out.contains(&format!("{:?}", stranger.pin())));

    let said = run(&["pin", &host, "--ca", &ca, "--json"]);
    let path: Value = serde_json::from_str(&said.out).unwrap();
    let told: Vec<_> =
        path["path"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert_eq!(told, ["leaf of a test", "the intermediate", "the root"]);
    assert_eq!(path["path"][2]["pin"], format!("{:?}", stage.root.pin()));
    assert_eq!(stage.origin.total(), 0, "nothing is asked of the server");
}

#[test]
fn there_are_no_pins_of_a_server_that_is_not_believed() {
    let stage = Stage::new("unknown", |server, _| server);
    let host = stage.origin.addr().to_string();
    for args in [&["pin", &host][..], &["pin", "http://127.0.0.1/"], &["pin", "not a host"]] {
        let said = run(args);
        assert_eq!((said.code, said.out.as_str()), (2, ""), "{args:?}");
        assert!(!said.err.is_empty());
    }
    assert!(run(&["pin", &host]).err.contains("--ca"));
}

#[test]
fn fetch_takes_pins_authorities_certificates_and_headers() {
    let stage = Stage::new("fetch", |server, root| server.client_authority(root));
    let (url, ca) = (stage.url(), stage.file("ca.pem", &stage.root.pem()));
    let ours = stage.root.client("us");
    let both = stage.file("both.pem", &format!("{}{}", ours.chain_pem(), ours.key_pem()));
    let (cert, key) = (stage.file("tls.crt", &ours.chain_pem()), stage.file("tls.key", &ours.key_pem()));
    let (good, wrong) = (format!("sha256//{:?}", stage.middle.pin()), format!("{:?}", ours.pin()));
    let check = |args: &[&str], code: i32, said_of: &str| {
        let said = run(&[&["fetch", &url][..], args].concat());
        assert_eq!(said.code, code, "{args:?}: {}", said.err);
        assert!(said.err.contains(said_of), "{args:?}: {}", said.err);
    };
    check(&["--cert", &both], 2, "--ca");
    check(&["--ca", &ca], 2, "TLS");
    check(&["--ca", &ca, "--cert", &both], 0, "");
    check(&["--ca", &ca, "--cert", &cert, "--key", &key], 0, "");
    check(&["--ca", &ca, "--cert", &cert], 2, "no private key");
    check(&["--ca", &ca, "--cert", &both, "--pin", &wrong], 2, "jwks-cache pin");
    check(&["--ca", &ca, "--cert", &both, "--pin", &wrong, "--pin", &good], 0, "");
    check(&["--ca", &ca, "--cert", &both, "--pin", "short"], 2, "pinned_spki");
    check(&["--ca", "nowhere.pem"], 2, "nowhere.pem");
    check(&["--ca", &ca, "--cert", &both, "--header", "no colon"], 2, "--header");
    stage.origin.clear_record();
    check(&["--ca", &ca, "--cert", &both, "--header", "X-Api-Key: a:b", "--header", "X-Other:1"], 0, "");
    let asked = stage.origin.requests("/jwks").pop().unwrap();
    assert_eq!((asked.header("x-api-key"), asked.header("x-other")), (Some("a:b"), Some("1")));
    assert!(asked.tls.unwrap().client_certificate);
}
