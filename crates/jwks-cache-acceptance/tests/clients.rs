//! Clients of other languages read the key set that the server serves, and verify the tokens of a real provider: through
//! rotations, a removal, a denial and an outage.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use jwks_cache::{IdentityProviderRegistration, PrivateNetworks};
use jwks_cache_acceptance::{NodePart, client};
use jwks_cache_server::{Config, Listen, Server};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

const INSTALL: &str = "`cargo xtask test clients --yes` installs it";

/// Longer than Envoy keeps a set, and than any client here takes to start on a slow machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients")
}

/// What pip installed.
fn installed(program: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/clients/bin").join(program);
    assert!(path.exists(), "{program} is missing: {INSTALL}");
    path
}

/// The server, in front of an oidc-provider.
struct Stage {
    idp: NodePart,
    server: Server,
    algorithms: Vec<String>,
    state: PathBuf,
}

impl Stage {
    async fn open(name: &str) -> Self {
        let idp = NodePart::start("oidc-provider").await;
        let state = std::env::temp_dir().join(format!("jwks-cache-clients-{}-{name}", std::process::id()));
        let mut config = Config { state_dir: Some(state.clone()), ..Config::default() };
        config.data.listen = Listen::Tcp("127.0.0.1:0".into());
        (config.ops.listen, config.control.listen) = (Listen::Off, Some(Listen::Off));
        (config.store.files, config.defaults.require_https) = (false, false);
        config.defaults.private_networks = PrivateNetworks::Allow;
        let server = Server::bind(config).await.unwrap();
        let registration = IdentityProviderRegistration::new("acme", "main", idp.jwks_url()).unwrap();
        let mut registration = registration.with_require_https(false);
        registration.removal_grace = Duration::from_secs(3_600);
        // The packaged go-oidc asks for an unknown kid only within 30 s of the end of `max-age`.
        registration.default_ttl = Duration::from_secs(30);
        registration.stale_while_error = Duration::from_secs(3_600);
        registration.issuer = Some(idp.issuer().to_owned());
        server.registry().register(registration).await.unwrap();
        Self { algorithms: idp.algorithms().await, idp, server, state }
    }

    fn address(&self) -> String {
        self.server.addresses().data.as_ref().unwrap().to_string()
    }

    fn jwks(&self) -> String {
        format!("http://{}/tenants/acme/providers/main/jwks", self.address())
    }

    async fn refresh(&self) {
        self.server.registry().refresh_and_wait("acme", "main").await.unwrap();
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.state);
    }
}

/// Something that verifies tokens by the key set at a URL.
enum Client {
    /// A program that is told tokens on its standard input.
    Program { input: ChildStdin, output: Lines<BufReader<ChildStdout>>, _child: Child },
    /// A gateway.
    Envoy { url: String, client: reqwest::Client, config: PathBuf, _child: Child },
}

impl Client {
    async fn start(name: &str, stage: &Stage) -> Self {
        let (jwks, issuer) = (stage.jwks(), stage.idp.issuer().to_owned());
        let mut command = match name {
            "pyjwt" | "joserfc" => {
                let mut command = Command::new(installed("python"));
                command.arg(folder().join("client.py")).arg(name);
                command
            }
            "jose" | "jwks-rsa" => {
                assert!(folder().join("node_modules").is_dir(), "{name} is missing: {INSTALL}");
                let mut command = Command::new("node");
                command.arg(folder().join("client.mjs")).arg(name);
                command
            }
            "go-oidc" => Command::new(go_oidc().await),
            _ => return Self::envoy(stage).await,
        };
        command.args([&jwks, &issuer]).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{name}: {error}; {INSTALL}"));
        let input = child.stdin.take().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap()).lines();
        let ready = tokio::time::timeout(PATIENCE, output.next_line()).await.unwrap().unwrap();
        assert_eq!(ready.as_deref(), Some("ready"), "{name}");
        Self::Program { input, output, _child: child }
    }

    async fn envoy(stage: &Stage) -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let audiences: Vec<String> =
            stage.algorithms.iter().map(|alg| format!("\"urn:resource:{alg}\"")).collect();
        let template = std::fs::read_to_string(folder().join("envoy.yaml")).unwrap();
        let text = template
            .replace("{port}", &port.to_string())
            .replace("{keys_port}", stage.address().rsplit(':').next().unwrap())
            .replace("{issuer}", stage.idp.issuer())
            .replace("{audiences}", &audiences.join(", "))
            .replace("{jwks}", &stage.jwks());
        let config =
            std::env::temp_dir().join(format!("jwks-cache-envoy-{}-{port}.yaml", std::process::id()));
        std::fs::write(&config, text).unwrap();
        let mut command = Command::new(installed("envoy"));
        command.arg("-c").arg(&config).args([
            "--log-level",
            "error",
            "--use-dynamic-base-id",
            "--concurrency",
            "1",
        ]);
        let child = command.kill_on_drop(true).spawn().unwrap();
        let it =
            Self::Envoy { url: format!("http://127.0.0.1:{port}/"), client: client(), config, _child: child };
        let up = async {
            while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(PATIENCE, up).await.expect("envoy does not listen");
        it
    }

    /// Whether it takes a token; what it says about that.
    async fn verify(&mut self, alg: &str, token: &str) -> (bool, String) {
        match self {
            Self::Program { input, output, .. } => {
                input.write_all(format!("{alg} {token}\n").as_bytes()).await.unwrap();
                let line = tokio::time::timeout(PATIENCE, output.next_line()).await.unwrap().unwrap();
                let line = line.expect("it answers each token by a line");
                (line.starts_with("ok acceptance"), line)
            }
            Self::Envoy { url, client, .. } => {
                let answer = client.get(&*url).bearer_auth(token).send().await.unwrap();
                let status = answer.status();
                let body = answer.text().await.unwrap();
                (status == 200 && body == "let in", format!("{status} {body}"))
            }
        }
    }

    /// Takes it, at once or, where it asks for keys only every second, soon.
    async fn takes(&mut self, what: &str, alg: &str, token: &str) {
        self.comes_to(true, what, alg, token).await;
    }

    async fn refuses(&mut self, what: &str, alg: &str, token: &str) {
        self.comes_to(false, what, alg, token).await;
    }

    async fn comes_to(&mut self, want: bool, what: &str, alg: &str, token: &str) {
        let polls = if matches!(self, Self::Envoy { .. }) { 100 } else { 1 };
        let mut said = String::new();
        for _ in 0..polls {
            let (taken, words) = self.verify(alg, token).await;
            if taken == want {
                return;
            }
            said = words;
            if polls > 1 {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        panic!("{alg}, {what}: {said}");
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if let Self::Envoy { config, .. } = self {
            let _ = std::fs::remove_file(config);
        }
    }
}

/// The program, built with what Debian packages.
async fn go_oidc() -> PathBuf {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/clients/go-oidc");
    let mut command = Command::new("go");
    command.env("GO111MODULE", "off").env("GOPATH", "/usr/share/gocode").env("GOFLAGS", "");
    command.args(["build", "-o"]).arg(&target).arg(folder().join("go-oidc/main.go"));
    let done = command.status().await.unwrap_or_else(|error| panic!("go: {error}; {INSTALL}"));
    assert!(done.success(), "go-oidc is not built: {INSTALL}");
    target
}

fn tampered(token: &str) -> String {
    let (input, signature) = token.rsplit_once('.').unwrap();
    let first = if signature.starts_with('A') { "B" } else { "A" };
    format!("{input}.{first}{}", &signature[1..])
}

/// The life of one client beside the server: every algorithm it knows; then, for one, two keys that come, one that goes, a
/// provider that dies, and a key that is denied.
async fn check(name: &str, algorithms: &[&str]) {
    let mut stage = Stage::open(name).await;
    let mut it = Client::start(name, &stage).await;
    for alg in algorithms {
        let token = stage.idp.token(alg).await;
        it.takes("a good token", alg, &token).await;
        it.refuses("a tampered one", alg, &tampered(&token)).await;
    }
    let alg = "ES256";
    let first = stage.idp.token(alg).await;
    let kid = stage.idp.rotate(alg).await;
    let second = stage.idp.token(alg).await;
    stage.refresh().await;
    it.takes("the new key", alg, &second).await;
    it.takes("the old key", alg, &first).await;

    assert_eq!(stage.idp.retire(alg).await.len(), 1);
    stage.refresh().await;
    let mut next = Client::start(name, &stage).await;
    next.takes("a key that retires", alg, &first).await;
    next.takes("the key after it", alg, &second).await;

    stage.idp.kill().await;
    let mut late = Client::start(name, &stage).await;
    late.takes("the provider is dead", alg, &second).await;
    late.takes("the provider is dead, and the key retires", alg, &first).await;

    stage.server.registry().deny_key("acme", "main", &kid).await.unwrap();
    let mut last = Client::start(name, &stage).await;
    last.refuses("a denied key", alg, &second).await;
    last.takes("another", alg, &first).await;
    println!("{name}: {}", algorithms.join(" "));
}

#[tokio::test]
async fn pyjwt_reads_what_is_served() {
    check("pyjwt", &["RS256", "PS256", "ES256", "ES512", "EdDSA"]).await;
}

#[tokio::test]
async fn joserfc_reads_what_is_served() {
    check("joserfc", &["RS256", "PS256", "ES256", "ES512", "EdDSA"]).await;
}

#[tokio::test]
async fn jose_reads_what_is_served() {
    check("jose", &["RS256", "PS256", "ES256", "ES512", "EdDSA"]).await;
}

#[tokio::test]
async fn jwks_rsa_reads_what_is_served() {
    check("jwks-rsa", &["RS256", "PS256", "ES256", "ES512", "EdDSA"]).await;
}

/// The packaged version knows no EdDSA.
#[tokio::test]
async fn go_oidc_reads_what_is_served() {
    check("go-oidc", &["RS256", "PS256", "ES256", "ES512"]).await;
}

#[tokio::test]
async fn envoy_reads_what_is_served() {
    check("envoy", &["RS256", "PS256", "ES256", "ES512", "EdDSA"]).await;
}
