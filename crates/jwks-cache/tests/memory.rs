//! Hostile bodies cost bounded memory. One test in a process of its own, because it reads the process's peak.
#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]
#![cfg(target_os = "linux")]

mod served;

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use jwks_cache_testkit::Reply;
use served::{HELD, JWKS, Stage, corpora, reason};

/// The most that one hostile answer may add to the peak.
const MOST_KIB: u64 = 4 * 1024;

/// What gzip makes of so many MiB of zeros, without holding them.
fn bomb(mebibytes: usize) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    let zeros = vec![0; 1 << 16];
    for _ in 0..mebibytes * 16 {
        encoder.write_all(&zeros).unwrap();
    }
    encoder.finish().unwrap()
}

/// Forgets the peak so far and gives the one from now on, which is what is resident.
fn peak_from_now() -> u64 {
    // Needs no privilege for the own process; where it is refused, the old peak only makes this test stricter
    // about what is above it.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
    peak()
}

fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
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
    let mut rows = vec![
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
    if let Some(folder) = corpora() {
        for file in ["d42-whitespace-64MiB.json.gz", "d43-gzip-bomb-1GiB.json.gz"] {
            rows.insert(0, (file, "too_large", gzip(std::fs::read(folder.join("bad").join(file)).unwrap())));
        }
    }
    let mut grown = Vec::new();
    for (name, expected, reply) in rows {
        let stage = Stage::new();
        let mut registration = stage.registration();
        registration.retry_policy.max_retries = 0;
        stage.register(registration).await;
        stage.hold().await;
        stage.origin.set(JWKS, reply);
        let before = peak_from_now();
        let error = stage.refresh().await.unwrap_err();
        let growth = peak().saturating_sub(before);
        grown.push(format!("{name}: {growth} KiB"));
        assert_eq!(reason(&error), expected, "{name}: {error}");
        assert_eq!(stage.kids().await, HELD, "{name}");
        assert!(growth < MOST_KIB, "{name}: {growth} KiB");
    }
    println!("peak memory: {}", grown.join(", "));
}
