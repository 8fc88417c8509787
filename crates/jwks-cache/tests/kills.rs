//! A process that writes snapshots is killed at any point of that, again and again: what it leaves is the last that it
//! was told is kept, or a newer one, and never a part.
//!
//! The writer is this test's own program, started once more. Run by `cargo xtask test kills` and `cargo xtask long kills`.
#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

mod stage;

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use jwks_cache::FileStore;
use jwks_cache::store::{SnapshotEntry, SnapshotKey, SnapshotKind, SnapshotStore};

const FOLDER: &str = "JWKS_CACHE_KILLS_FOLDER";
const START: &str = "JWKS_CACHE_KILLS_START";

/// Long enough that most of the time goes by between the first byte and the last.
const BYTES: usize = 512 * 1024;

/// Within so long after its first save a writer is killed: a few saves.
const WITHIN: Duration = Duration::from_millis(40);

fn key() -> SnapshotKey {
    SnapshotKey { tenant: "acme".into(), provider: "main".into(), kind: SnapshotKind::Keys }
}

/// What is saved as this order, to the last byte.
fn entry(order: u64) -> SnapshotEntry {
    let line = format!("snapshot {order}\n");
    let mut bytes = line.repeat(BYTES / line.len() + 1).into_bytes();
    bytes.truncate(BYTES);
    SnapshotEntry { bytes, order, newest: u64::MAX, keep_for: None, instead_of: None }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn kept(folder: &Path) -> Option<Vec<u8>> {
    let store = FileStore::open(folder).unwrap();
    block_on(store.load(&key(), 2 * BYTES as u64)).unwrap()
}

fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect()
}

/// Whether the first byte of a snapshot is there, and its rename is not.
fn is_writing(folder: &Path) -> bool {
    let has_bytes = |path: &std::path::PathBuf| path.metadata().is_ok_and(|it| it.len() > 0);
    files(folder).iter().any(|path| path.extension().is_some_and(|end| end == "writing") && has_bytes(path))
}

#[test]
#[ignore = "the process that is killed"]
fn a_writer() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let store = FileStore::open(folder).unwrap();
    let mut order: u64 = std::env::var(START).unwrap().parse().unwrap();
    let mut out = std::io::stdout();
    block_on(async {
        loop {
            assert!(store.save(&key(), &entry(order)).await.unwrap());
            writeln!(out, "kept {order}").unwrap();
            out.flush().unwrap();
            order += 1;
        }
    });
}

/// Kills so many writers, the first of them being `first`, each at a point of its own.
fn kill(first: u64, count: u64) {
    let folder = stage::Folder::new();
    let (mut order, mut inside) = (1, 0);
    for n in first..first + count {
        let mut writer = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "a_writer", "--nocapture"])
            .env(FOLDER, folder.path())
            .env(START, order.to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(writer.stdout.take().unwrap()).lines().map_while(Result::ok);
        let told = |line: String| line.rsplit_once("kept ").and_then(|(_, order)| order.parse::<u64>().ok());
        let mut sure = lines.by_ref().find_map(told).expect("the writer writes");
        // Steps of the golden ratio fall evenly.
        let place = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
        std::thread::sleep(WITHIN.mul_f64(place as f64 / f64::from(1 << 24)));
        if n % 2 == 1 {
            // Every other one as soon as it is seen to write.
            for _ in 0..100_000 {
                if is_writing(folder.path()) {
                    break;
                }
            }
        }
        writer.kill().unwrap();
        writer.wait().unwrap();
        sure = lines.filter_map(told).last().unwrap_or(sure);
        inside += u64::from(is_writing(folder.path()));
        let set_aside = |path: &std::path::PathBuf| path.extension().is_some_and(|end| end == "set-aside");
        assert!(!files(folder.path()).iter().any(set_aside));
        let found = kept(folder.path()).unwrap_or_else(|| panic!("kill {n}: {sure} is lost"));
        // It may have kept one more than it could tell.
        let is_it = |order: u64| found == entry(order).bytes;
        assert!(
            is_it(sure) || is_it(sure + 1),
            "kill {n}: neither {sure} nor the next, but {} bytes",
            found.len()
        );
        order = sure + 2;
        if (n + 1) % 500 == 0 {
            println!("{} killed; {START}={} goes on from here", n + 1, n + 1);
        }
    }
    println!("{count} killed, {inside} of them between the first byte and the rename: 0 torn, 0 lost");
    assert!(inside * 5 >= count, "too few were killed while they wrote");
}

#[test]
#[ignore = "a group of its own: cargo xtask test kills"]
fn two_hundred_kills_tear_and_lose_nothing() {
    kill(0, 200);
}

#[test]
#[ignore = "a long part: cargo xtask long kills"]
fn ten_thousand_kills_tear_and_lose_nothing() {
    let first = std::env::var(START).ok().and_then(|first| first.parse().ok()).unwrap_or(0);
    kill(first, 10_000_u64.saturating_sub(first));
}
