//! Real identity providers, started as child processes on loopback.
//!
//! A part that cannot start panics with the command that installs it. This room does not know the
//! library under test: its HTTP client only asks the parts themselves.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};

/// How long a part may take to make its keys and listen; Node on a busy machine takes two seconds.
const START: Duration = Duration::from_secs(60);

/// An identity provider on Node, killed when dropped.
#[derive(Debug)]
pub struct NodePart {
    name: String,
    port: u16,
    issuer: String,
    client: reqwest::Client,
    process: Process,
}

/// A part's process, and its pipes: it exits when its standard input closes.
#[derive(Debug)]
struct Process {
    child: Child,
    _stdout: BufReader<ChildStdout>,
}

/// What a part answered on its JWKS path since it started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct Counts {
    /// Requests that arrived, whatever became of them.
    pub requests: u64,
    /// Answers with status 200.
    pub full: u64,
    /// Answers with status 304.
    pub not_modified: u64,
}

impl NodePart {
    /// Starts `node/<name>.mjs` on a free port: `oidc-provider` or `mock-server`.
    ///
    /// # Panics
    ///
    /// When Node or its packages are missing, or the part does not come up within a minute.
    pub async fn start(name: &str) -> Self {
        let (process, port) = launch(name, 0).await;
        let issuer = format!("http://127.0.0.1:{port}");
        Self { name: name.to_owned(), port, issuer, client: client(), process }
    }

    /// Kills the part, as a crash would: connections break, and new ones are refused.
    ///
    /// # Panics
    ///
    /// When the process cannot be killed.
    pub async fn kill(&mut self) {
        self.process.child.kill().await.unwrap_or_else(|error| panic!("{} goes on: {error}", self.name));
    }

    /// Starts it again, after [`NodePart::kill`], on the port it had: with other keys, and counts from 0.
    ///
    /// # Panics
    ///
    /// As [`NodePart::start`], and when the port was taken meanwhile.
    pub async fn restart(&mut self) {
        let (process, _) = launch(&self.name, self.port).await;
        // Another client: the old one holds connections to the process that is gone.
        (self.process, self.client) = (process, client());
    }

    /// The issuer, which is also the base URL.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Where the part publishes its key set.
    #[must_use]
    pub fn jwks_url(&self) -> String {
        format!("{}/jwks", self.issuer)
    }

    /// The algorithms that [`NodePart::token`] and [`NodePart::rotate`] take, as JWS names.
    pub async fn algorithms(&self) -> Vec<String> {
        self.control("algorithms").await
    }

    /// A token that the part just signed with its newest key for `alg`.
    pub async fn token(&self, alg: &str) -> String {
        self.control(&format!("token?alg={alg}")).await
    }

    /// Adds a key for `alg` to the published set, has it sign from now on, and gives its kid.
    pub async fn rotate(&self, alg: &str) -> String {
        self.control(&format!("rotate?alg={alg}")).await
    }

    /// Drops every key for `alg` from the published set but the newest, and gives their kids.
    /// Only `oidc-provider` can.
    pub async fn retire(&self, alg: &str) -> Vec<String> {
        self.control(&format!("retire?alg={alg}")).await
    }

    /// What was answered on the JWKS path so far.
    pub async fn counts(&self) -> Counts {
        self.control("counts").await
    }

    async fn control<T: DeserializeOwned>(&self, what: &str) -> T {
        let url = format!("{}/-/{what}", self.issuer);
        let response = self.client.get(&url).send().await.unwrap_or_else(|error| panic!("{url}: {error}"));
        let status = response.status();
        let body = response.bytes().await.unwrap_or_else(|error| panic!("{url}: {error}"));
        assert!(status.is_success(), "{url}: {status} {}", String::from_utf8_lossy(&body));
        serde_json::from_slice(&body).unwrap_or_else(|error| panic!("{url}: {error}"))
    }
}

const INSTALL: &str =
    "run `cargo xtask test --yes`, or by hand `npm ci --prefix crates/jwks-cache-acceptance/node`";

/// A plain HTTP client, for asking a part what it serves.
///
/// It brings its own TLS provider instead of installing one for the process: a library that forgot
/// to bring its own must not be saved by its test.
#[must_use]
pub fn client() -> reqwest::Client {
    let tls =
        rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("aws-lc-rs knows the default protocol versions")
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .no_proxy()
        .build()
        .expect("a client without options builds")
}

/// A program of ours that was built beside this test: no test of another crate knows where it is otherwise.
///
/// # Panics
///
/// When it is not there; `cargo xtask test` of that group builds it first.
#[must_use]
pub fn built(program: &str, group: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test is a file");
    let path = test.ancestors().nth(2).expect("a test stands in target/debug/deps").join(program);
    assert!(path.exists(), "{program} is not built: `cargo xtask test {group}` does it");
    path
}

/// Runs a part on a port, 0 for a free one, until it listens; and says where.
async fn launch(name: &str, port: u16) -> (Process, u16) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("node");
    assert!(folder.join("node_modules").is_dir(), "the Node packages are missing; {INSTALL}");
    let mut child = Command::new("node")
        .arg(folder.join(format!("{name}.mjs")))
        .arg(port.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap_or_else(|error| panic!("`node` does not start ({error}); {INSTALL}"));
    let mut stdout = BufReader::new(child.stdout.take().expect("standard output is piped above"));
    let port = tokio::time::timeout(START, ready(&mut stdout))
        .await
        .unwrap_or_else(|_| panic!("{name} did not say that it listens within {START:?}"))
        .unwrap_or_else(|| panic!("{name} ended before it listened: its standard error says why"));
    (Process { child, _stdout: stdout }, port)
}

/// The port from the first line that is the ready message; `None` when the part ends before it.
async fn ready(stdout: &mut BufReader<ChildStdout>) -> Option<u16> {
    #[derive(Deserialize)]
    struct Ready {
        port: u16,
    }
    let mut lines = stdout.lines();
    while let Ok(Some(line)) = lines.next_line().await {
        if let Ok(Ready { port }) = serde_json::from_str(&line) {
            return Some(port);
        }
    }
    None
}
