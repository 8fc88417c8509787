//! Hostile bodies cost bounded memory. One test in a process of its own, because it reads the process's peak.
#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]
#![cfg(target_os = "linux")]

mod stage;

use std::io::Write;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use jwks_cache::Material;
use jwks_cache_testkit::Reply;
use jwks_cache_testkit::tls::Authority;
use stage::peak;
use stage::peer::{FLOODS, Peer};
use stage::served::{JWKS, Stage};

/// What gzip makes of so many MiB of zeros, without holding them.
fn bomb(mebibytes: usize) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    let zeros = vec![0; 1 << 16];
    for _ in 0..mebibytes * 16 {
        encoder.write_all(&zeros).unwrap();
    }
    encoder.finish().unwrap()
}

#[tokio::test]
async fn no_answer_costs_more_than_4_mib() {
    let bomb = bomb(200);
    let twice = {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(&bomb).unwrap();
        encoder.finish().unwrap()
    };
    let gzip = |body: Vec<u8>| Reply::json("").body(body).header("Content-Encoding", "gzip");
    let nested = format!("{{\"keys\":{}", "[".repeat(1_000_000));
    let keys = format!("{{\"keys\":[{}{{}}]}}", "{},".repeat(340_000));
    let rows = [
        ("a bomb", "too_large", gzip(bomb)),
        ("a bomb in a bomb", "not_utf8", gzip(twice.clone())),
        ("a bomb in a bomb, said twice", "encoding", gzip(twice).header("Content-Encoding", "gzip")),
        ("endless", "too_large", Reply::json("").body(" ").endless()),
        ("64 MiB, announced", "too_large", Reply::status(200).body(vec![b' '; 64 << 20])),
        ("an endless error page", "status", Reply::status(500).body(" ").endless()),
        ("a million brackets", "too_deep", Reply::json(nested)),
        ("340,000 keys", "too_many_keys", Reply::json(keys)),
        (
            "headers without end",
            "protocol",
            Reply::raw(format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(8 << 20))),
        ),
    ];
    for (name, expected, reply) in rows {
        peak::check(name, expected, reply).await;
    }
    for (name, expected, flood) in FLOODS {
        let authority = Authority::new("root");
        let server = Peer::start_tls(&authority, "h2", flood);
        let stage = Stage::new();
        let mut registration = stage.registration();
        registration.retry_policy.max_retries = 0;
        registration.retry_policy.attempt_timeout = Duration::from_secs(3);
        registration.tls.ca = Some(Material::inline(authority.pem()));
        stage.register(registration).await;
        stage.hold().await;
        stage.origin.set(JWKS, Reply::redirect(307, format!("https://127.0.0.1:{}{JWKS}", server.port)));
        peak::check_on(&stage, &format!("a flood of {name}"), expected).await;
    }
}
