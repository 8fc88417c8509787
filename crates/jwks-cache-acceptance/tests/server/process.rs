//! The server as a process, with sockets in a folder of its own.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use jwks_cache::reqwest::{Client, Method};
use jwks_cache_acceptance::built;
use serde_json::Value;

/// A folder that goes with its test.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("jwks-cache-process-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Sockets and state here, providers on loopback, and this beside.
    pub(crate) fn settings(&self, more: &str) -> String {
        let socket = |name: &str| format!("unix:{}", self.at(name).display());
        format!(
            "state_dir = {:?}\ndata.listen = {:?}\nops.listen = {:?}\ncontrol.listen = {:?}\n[defaults]\n\
             require_https = false\nprivate_networks = {{ deny_except = [\"127.0.0.1\"] }}\n{more}",
            self.at("state"),
            socket("data.sock"),
            socket("ops.sock"),
            socket("control.sock"),
        )
    }

    /// Writes the configuration as an editor does: the old one or the new one is there, never half of one.
    pub(crate) fn configure(&self, text: &str) {
        std::fs::write(self.at("new.toml"), text).unwrap();
        std::fs::rename(self.at("new.toml"), self.at("jwks-cache.toml")).unwrap();
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The lines of a provider of the configuration.
pub(crate) fn provider(name: &str, url: &str) -> String {
    format!("[tenants.acme.providers.{name}]\njwks_url = {url:?}\nrequire_https = false\n")
}

/// A running server, killed when dropped.
pub(crate) struct Process {
    child: Child,
    pub(crate) data: Client,
    pub(crate) ops: Client,
    pub(crate) control: Client,
    log: PathBuf,
}

impl Process {
    /// Starts it with what is configured in the folder, and waits until it listens.
    pub(crate) async fn start(folder: &Folder) -> Self {
        let config = folder.at("jwks-cache.toml").display().to_string();
        Self::with(folder, &["--config", &config]).await
    }

    /// Starts it with these arguments, which have it listen in the folder.
    pub(crate) async fn with(folder: &Folder, arguments: &[&str]) -> Self {
        let log = folder.at("log");
        let child = Command::new(built("jwks-cache", "server"))
            .arg("serve")
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(std::fs::File::create(folder.at("out")).unwrap())
            .stderr(std::fs::File::options().append(true).create(true).open(&log).unwrap())
            .env_remove("JWKS_CACHE_CONFIG")
            .spawn()
            .unwrap();
        let [data, ops, control] =
            ["data.sock", "ops.sock", "control.sock"].map(|name| client(&folder.at(name)));
        let process = Self { child, data, ops, control, log };
        process.until("it listens", async || process.ops.get(url("/healthz")).send().await.is_ok()).await;
        process
    }

    /// Status and body.
    pub(crate) async fn ask(
        &self,
        client: &Client,
        method: &str,
        path: &str,
        body: Option<Value>,
    ) -> (u16, Value) {
        let method: Method = method.parse().unwrap();
        let mut request = client.request(method, url(path));
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        let answer = request.send().await.unwrap_or_else(|error| panic!("{path}: {error:?}\n{}", self.log()));
        let status = answer.status().as_u16();
        let text = answer.text().await.unwrap();
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    pub(crate) async fn is_ready(&self) -> bool {
        self.ask(&self.ops, "GET", "/readyz", None).await.0 == 200
    }

    /// The kids that are served of a provider.
    pub(crate) async fn kids(&self, name: &str) -> Vec<String> {
        let (status, set) =
            self.ask(&self.data, "GET", &format!("/tenants/acme/providers/{name}/jwks"), None).await;
        assert_eq!(status, 200, "{set}");
        set["keys"].as_array().unwrap().iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
    }

    pub(crate) async fn metrics(&self) -> String {
        match self.ask(&self.ops, "GET", "/metrics", None).await {
            (200, Value::String(text)) => text,
            (status, text) => panic!("{status} {text}"),
        }
    }

    /// The sum of a metric over the label sets that have this in them.
    pub(crate) async fn metric(&self, name: &str, label: &str) -> f64 {
        let text = self.metrics().await;
        let lines = text.lines().filter(|line| line.split(['{', ' ']).next() == Some(name));
        lines
            .filter(|line| line.contains(label))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }

    pub(crate) fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// Waits for what the server does by itself.
    pub(crate) async fn until(&self, what: &str, mut holds: impl AsyncFnMut() -> bool) {
        for _ in 0..1200 {
            if holds().await {
                return;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("{what}: not within 30 s\n{}", self.log());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn url(path: &str) -> String {
    format!("http://localhost{path}")
}

/// Asks over a Unix socket.
fn client(socket: &Path) -> Client {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let builder =
        Client::builder().tls_backend_preconfigured(tls).no_proxy().timeout(Duration::from_secs(40));
    builder.unix_socket(socket).build().unwrap()
}
