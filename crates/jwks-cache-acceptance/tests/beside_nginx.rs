//! The JWKS route of the server beside nginx, which serves the same bytes from a file: how many requests a second each
//! answers to one load generator on the same machine. Only the ratio means something.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use jwks_cache_acceptance::client;
use jwks_cache_testkit::{Algorithm, IdentityProvider};

/// As many requests a second as nginx, times this.
const GOAL: f64 = 0.8;

/// How often each is measured, in turn; the middle one counts.
const SLICES: usize = 5;

/// A process that ends with its test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // Asked, so that nginx takes its workers along.
        let _ = Command::new("kill").arg(self.0.id().to_string()).status();
        let _ = self.0.wait();
    }
}

fn port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// The server, as released; `JWKS_CACHE_BINARY` names another.
fn binary() -> PathBuf {
    let released = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/release/jwks-cache");
    let path = std::env::var_os("JWKS_CACHE_BINARY").map_or(released, PathBuf::from);
    assert!(path.exists(), "{} is not built: `cargo xtask long nginx` does it", path.display());
    path
}

fn start(command: &mut Command) -> Process {
    Process(command.stdin(Stdio::null()).spawn().unwrap())
}

/// What is there, once somebody listens.
async fn body(url: &str) -> Vec<u8> {
    for _ in 0..300 {
        match client().get(url).send().await {
            Ok(answer) if answer.status() == 200 => return answer.bytes().await.unwrap().to_vec(),
            _ => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
    panic!("{url} does not answer");
}

/// Requests a second.
fn load(url: &str, more: &[&str]) -> f64 {
    let output = Command::new("wrk").args(["-t1", "-c64", "-d4s"]).args(more).arg(url).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(!text.contains("Non-2xx") && !text.contains("Socket errors"), "{text}");
    let line = text.lines().find_map(|line| line.strip_prefix("Requests/sec:")).expect("wrk says how many");
    line.trim().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "wants a quiet machine: `cargo xtask long nginx`"]
async fn the_key_set_is_served_nearly_as_fast_as_a_file() {
    let folder = std::env::temp_dir().join(format!("jwks-cache-beside-nginx-{}", std::process::id()));
    std::fs::create_dir_all(folder.join("www")).unwrap();
    let idp = IdentityProvider::builder().algorithm(Algorithm::RS256).cache_control("max-age=3600").start();
    idp.rotate();
    idp.rotate();
    let (ours, theirs) = (port(), port());
    let config = folder.join("jwks-cache.toml");
    std::fs::write(
        &config,
        format!(
            "state_dir = {:?}\nlog.level = \"warn\"\ndata.listen = \"127.0.0.1:{ours}\"\nops.listen = \"off\"\n\
             [defaults]\nrequire_https = false\nprivate_networks = {{ deny_except = [\"127.0.0.1\"] }}\n\
             [tenants.acme.providers.main]\njwks_url = \"{}\"\nrequire_https = false\n",
            folder.join("state"),
            idp.jwks_url()
        ),
    )
    .unwrap();
    let _ours = start(Command::new(binary()).arg("serve").arg("--config").arg(&config));
    let ours = format!("http://127.0.0.1:{ours}/tenants/acme/providers/main/jwks");
    let set = body(&ours).await;

    std::fs::write(folder.join("www/jwks"), &set).unwrap();
    let at = folder.display();
    std::fs::write(
        folder.join("nginx.conf"),
        format!(
            "daemon off;\nworker_processes auto;\npid {at}/pid;\nerror_log {at}/error.log;\nuser root;\n\
             events {{ worker_connections 1024; }}\n\
             http {{ access_log off; sendfile on; open_file_cache max=100; keepalive_requests 1000000000;\n\
             default_type application/jwk-set+json;\nserver {{ listen 127.0.0.1:{theirs}; root {at}/www; }} }}\n"
        ),
    )
    .unwrap();
    let _theirs =
        start(Command::new("nginx").arg("-c").arg(folder.join("nginx.conf")).arg("-p").arg(&folder));
    let theirs = format!("http://127.0.0.1:{theirs}/jwks");
    assert_eq!(body(&theirs).await, set);

    let mut ratios = Vec::new();
    for _ in 0..SLICES {
        let (theirs, ours) = (load(&theirs, &[]), load(&ours, &[]));
        println!("nginx {theirs:.0}/s, ours {ours:.0}/s: {:.2}", ours / theirs);
        ratios.push(ours / theirs);
    }
    let zipped = load(&ours, &["-H", "Accept-Encoding: gzip"]);
    let _ = std::fs::remove_dir_all(&folder);
    ratios.sort_by(f64::total_cmp);
    let ratio = ratios[SLICES / 2];
    println!(
        "{} bytes; ours with gzip {zipped:.0}/s; the middle ratio is {ratio:.2}, the goal {GOAL}",
        set.len()
    );
    assert!(ratio >= GOAL, "{ratio:.2}");
}
