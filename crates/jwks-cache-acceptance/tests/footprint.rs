//! What the released server takes: memory when idle and with 10,000 providers of 4 RSA keys each, and the time until it is
//! ready, with providers that answer and with none. Figures are printed; only bounds far above the goals can fail.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jwks_cache_acceptance::client;
use serde_json::json;
use tokio::time::Instant;

const PROVIDERS: usize = 10_000;

/// Far above what is wanted, for a machine that does other things too.
const PATIENCE: Duration = Duration::from_secs(120);

struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn now() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "times are what is shown here")]
    Instant::now()
}

fn port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// The server, as released; `JWKS_CACHE_BINARY` names another.
fn binary() -> PathBuf {
    let released = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/release/jwks-cache");
    let path = std::env::var_os("JWKS_CACHE_BINARY").map_or(released, PathBuf::from);
    assert!(path.exists(), "{} is not built: `cargo xtask long footprint` does it", path.display());
    path
}

/// Four RSA keys that no other provider has: sound in form, of no use for signatures.
fn key_set(provider: usize) -> String {
    let mut state = u64::try_from(provider).unwrap() + 1;
    let mut modulus = || {
        let mut bytes: Vec<u8> = (0..256)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                u8::try_from(state >> 56).unwrap()
            })
            .collect();
        (bytes[0], bytes[255]) = (bytes[0] | 0x80, bytes[255] | 1);
        URL_SAFE_NO_PAD.encode(bytes)
    };
    let key = |number: usize| json!({"kty": "RSA", "use": "sig", "alg": "RS256", "kid": format!("key-{provider}-{number}"), "e": "AQAB", "n": modulus()});
    json!({"keys": (0..4).map(key).collect::<Vec<_>>()}).to_string()
}

/// A running server.
struct Process(Child, u16);

impl Process {
    /// Starts it; how long it took until it was ready.
    async fn start(folder: &Folder, providers: &str) -> (Self, Duration) {
        let ops = port();
        let text = format!(
            "state_dir = {:?}\ndata.listen = \"127.0.0.1:0\"\nops.listen = \"127.0.0.1:{ops}\"\nlog.level = \"error\"\n\
             [defaults]\nrequire_https = false\nprivate_networks = {{ deny_except = [\"127.0.0.1\"] }}\n{providers}",
            folder.0.join("state")
        );
        std::fs::write(folder.0.join("jwks-cache.toml"), text).unwrap();
        let began = now();
        let child = Command::new(binary())
            .args(["serve", "--config"])
            .arg(folder.0.join("jwks-cache.toml"))
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let process = Self(child, ops);
        let client = client();
        loop {
            let answer = client.get(format!("http://127.0.0.1:{ops}/readyz")).send().await;
            if answer.is_ok_and(|answer| answer.status() == 200) {
                return (process, began.elapsed());
            }
            assert!(began.elapsed() < PATIENCE, "it is not ready");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Resident memory in MB, now and at most.
    fn memory(&self) -> (f64, f64) {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let of = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1000.0
        };
        (of("VmRSS:"), of("VmHWM:"))
    }

    async fn metric(&self, line: &str) -> f64 {
        let answer = client().get(format!("http://127.0.0.1:{}/metrics", self.1)).send().await.unwrap();
        let text = answer.text().await.unwrap();
        text.lines()
            .filter(|of| of.starts_with(line))
            .filter_map(|of| of.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }

    /// Ends it as an orchestrator would.
    fn end(mut self) {
        assert!(Command::new("kill").arg(self.0.id().to_string()).status().unwrap().success());
        assert!(self.0.wait().unwrap().success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "wants a quiet machine and a release build: `cargo xtask long footprint`"]
async fn memory_and_time_to_be_ready() {
    let folder = std::env::temp_dir().join(format!("jwks-cache-footprint-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let folder = Folder(folder);
    let tell = |what: &str, process: &Process, ready: Duration| {
        let (rss, peak) = process.memory();
        println!(
            "{what}: ready after {:.2} s, resident {rss:.1} MB, at most {peak:.1} MB",
            ready.as_secs_f64()
        );
        rss
    };

    let (process, ready) = Process::start(&folder, "").await;
    // Those who come by make it warm: a process that was never asked is no measure.
    for _ in 0..100 {
        process.metric("jwks_cache_server_connections").await;
    }
    let idle = tell("no provider", &process, ready);
    process.end();

    let sets: Vec<String> = (0..PROVIDERS).map(key_set).collect();
    println!("a key set has {} bytes", sets[0].len());
    let app = sets.into_iter().enumerate().fold(Router::new(), |app, (at, set)| {
        let answer = move || {
            let set = set.clone();
            async move { ([("cache-control", "max-age=3600"), ("content-type", "application/json")], set) }
        };
        app.route(&format!("/{at}"), get(answer))
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let upstream = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    let mut providers = String::new();
    for at in 0..PROVIDERS {
        let _ = write!(
            providers,
            "[tenants.t{}.providers.p{at}]\njwks_url = \"http://{address}/{at}\"\nrequire_https = false\n",
            at % 1000
        );
    }
    let (process, ready) = Process::start(&folder, &providers).await;
    tell("10,000 providers, fetched", &process, ready);
    let saved = async || process.metric("jwks_cache_store_operations_total{").await;
    let began = now();
    loop {
        let files = std::fs::read_dir(folder.0.join("state/snapshots")).unwrap();
        let kept =
            files.filter(|file| file.as_ref().unwrap().path().extension().is_some_and(|of| of == "snapshot"));
        if kept.count() >= PROVIDERS {
            break;
        }
        assert!(began.elapsed() < PATIENCE, "{} store operations", saved().await);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    println!("all snapshots written {:.2} s after that", began.elapsed().as_secs_f64());
    let fetched = tell("… and asked for its metrics", &process, ready);
    process.end();
    upstream.abort();
    let _ = upstream.await;

    let mut restored = 0.0;
    for _ in 0..3 {
        let (process, ready) = Process::start(&folder, &providers).await;
        restored = tell("10,000 providers, from snapshots, none answers", &process, ready);
        assert!(ready < Duration::from_secs(20), "{ready:?}");
        process.end();
    }
    assert!(idle < 80.0 && fetched < 250.0 && restored < 250.0, "{idle} {fetched} {restored}");
}
