//! How long the data plane takes to answer, by what is asked of it: what a stranger could tell by the clock. Nothing is
//! judged, the figures are for the page on trust.
#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

mod folder;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use folder::Folder;
use jwks_cache_testkit::IdentityProvider;

const EACH: usize = 10_000;

/// Rounds before the first that counts: the first of a kid asks the provider for it.
const WARM: usize = 20;

struct Ends(Child);

impl Drop for Ends {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn now() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "times are what is shown here")]
    Instant::now()
}

/// A connection that is kept.
struct Connection(BufReader<TcpStream>);

impl Connection {
    fn open(port: u16) -> Option<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
        stream.set_nodelay(true).unwrap();
        Some(Self(BufReader::new(stream)))
    }

    /// Asks for a path, and gives the status once the whole answer is there.
    fn ask(&mut self, path: &str) -> u16 {
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n");
        self.0.get_mut().write_all(request.as_bytes()).unwrap();
        let (mut status, mut length) = (0, 0);
        loop {
            let mut line = String::new();
            self.0.read_line(&mut line).unwrap();
            if let Some(rest) = line.strip_prefix("HTTP/1.1 ") {
                status = rest[..3].parse().unwrap();
            } else if let Some(rest) = line.strip_prefix("content-length: ") {
                length = rest.trim().parse().unwrap();
            } else if line == "\r\n" {
                break;
            }
        }
        self.0.read_exact(&mut vec![0; length]).unwrap();
        status
    }
}

/// `cargo test --release -p jwks-cache-server --test answer_times -- --ignored --nocapture`; `JWKS_CACHE_BINARY` names another
/// server than the one that was built with it.
#[test]
#[ignore = "it measures, for which the machine must be quiet"]
fn how_long_the_data_plane_takes_to_answer() {
    let idp = IdentityProvider::builder().cache_control("max-age=3600").start();
    let (folder, port) = (Folder::new(), free_port());
    let provider = |name: &str, url: &str| {
        format!("[tenants.acme.providers.{name}]\njwks_url = {url:?}\nrequire_https = false\n")
    };
    let text = format!(
        "state_dir = {:?}\ndata.listen = \"127.0.0.1:{port}\"\nops.listen = \"off\"\nlog.level = \"error\"\n\
         [defaults]\nrequire_https = false\nprivate_networks = {{ deny_except = [\"127.0.0.1\"] }}\n{}{}",
        folder.0.join("state"),
        provider("main", idp.jwks_url().as_str()),
        provider("down", &format!("http://127.0.0.1:{}/jwks", free_port())),
    );
    let binary =
        std::env::var_os("JWKS_CACHE_BINARY").unwrap_or_else(|| env!("CARGO_BIN_EXE_jwks-cache").into());
    let mut command = Command::new(binary);
    command.arg("serve").arg("--config").arg(folder.write("c.toml", &text)).env_remove("NOTIFY_SOCKET");
    let _server = Ends(command.stdin(Stdio::null()).spawn().unwrap());
    let mut connection = loop {
        match Connection::open(port) {
            Some(connection) => break connection,
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    let main = "/tenants/acme/providers/main";
    let cases = [
        ("unknown tenant", 404, "/tenants/nope/providers/main/jwks".to_owned()),
        ("unknown provider of a tenant that is there", 404, "/tenants/acme/providers/nope/jwks".to_owned()),
        ("unknown tenant and provider", 404, "/tenants/nope/providers/nope/jwks".to_owned()),
        ("a name that is no text", 404, "/tenants/acme/providers/%FF/jwks".to_owned()),
        ("unknown tenant, a key's PEM", 404, "/tenants/nope/providers/main/keys/nobody.pem".to_owned()),
        ("a provider without keys, its source down", 503, "/tenants/acme/providers/down/jwks".to_owned()),
        ("a provider with keys: the set", 200, format!("{main}/jwks")),
        ("… one kid", 200, format!("{main}/jwks?kid={}", idp.signing_kid())),
        ("… a kid known to be missing", 200, format!("{main}/jwks?kid=nobody")),
        ("… a key's PEM", 200, format!("{main}/keys/{}.pem", idp.signing_kid())),
        ("… the PEM of a kid known to be missing", 404, format!("{main}/keys/nobody.pem")),
    ];
    let mut took = cases.each_ref().map(|_| Vec::with_capacity(EACH));
    for round in 0..WARM + EACH {
        // In turn, so that what else the machine does falls on all of them; and since what came just before has its part in
        // the time, each comes after every other equally often: eleven is prime, and the steps are of every length.
        let step = 1 + round % (cases.len() - 1);
        for at in 0..cases.len() {
            let at = (at * step + round) % cases.len();
            let (what, status, path) = &cases[at];
            let began = now();
            assert_eq!(connection.ask(path), *status, "{what}");
            if round >= WARM {
                took[at].push(began.elapsed());
            }
        }
    }
    println!(
        "| {EACH} answers of each, in turn, one connection | median | 1 in 4 under | 3 in 4 under | 99 in 100 under |"
    );
    println!("|---|---:|---:|---:|---:|");
    for ((what, status, _), mut took) in cases.into_iter().zip(took) {
        took.sort();
        let at = |percent: usize| format!("{:.1} µs", took[EACH * percent / 100].as_secs_f64() * 1e6);
        println!("| {what} ({status}) | {} | {} | {} | {} |", at(50), at(25), at(75), at(99));
    }
}
