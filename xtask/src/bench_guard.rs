//! What a read costs, in instructions: a ceiling for each kind. Counts do not depend on what else the machine
//! does, so a read that gets a lock, an allocation or a copy too many turns this red where a time would not.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

/// Instructions of one lookup on x86-64, two in a hundred above what was counted, for builds may differ by as much.
/// An uncontended lock was 18 more, an allocation 120.
/// Lower them when reads get cheaper; raise one only with a reason in the commit.
const RESOLVE: u64 = 643;
const KEY: u64 = 475;
const WITH_KEY: u64 = 387;

const LOOKUPS: u64 = 20_000;

/// Builds it once, apart from other builds: valgrind hides the page that the kernel's clock is read from, and
/// `rustix` looks for it unless it goes through the C library.
fn build() -> &'static PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let built = Command::new("cargo")
            .args(["bench", "-p", "jwks-cache", "--bench", "read_path", "--no-run", "--message-format=json"])
            .current_dir(crate::root())
            .env("CARGO_TARGET_DIR", crate::root().join("target/bench-guard"))
            .env("RUSTFLAGS", "--cfg rustix_use_libc")
            .stderr(std::process::Stdio::inherit())
            .output()
            .expect("cargo can be started");
        assert!(built.status.success(), "read_path does not build");
        let text = String::from_utf8_lossy(&built.stdout);
        let executable = text.rsplit_once(r#""executable":""#).and_then(|(_, rest)| rest.split('"').next());
        executable.expect("cargo names what it built").into()
    })
}

/// Instructions of so many lookups and what surrounds them.
fn counted(what: &str, lookups: u64) -> u64 {
    let profile = crate::root().join(format!("target/bench-guard/callgrind.{what}"));
    let status = Command::new("valgrind")
        .args(["--quiet", "--tool=callgrind"])
        .arg(format!("--callgrind-out-file={}", profile.display()))
        .arg(build())
        .args([what, &lookups.to_string()])
        .status()
        .expect("valgrind can be started");
    assert!(status.success(), "read_path {what} failed under callgrind");
    let text = std::fs::read_to_string(&profile).expect("callgrind writes its profile");
    let total = text.lines().find_map(|line| line.strip_prefix("summary: "));
    total.and_then(|total| total.trim().parse().ok()).expect("a profile has a summary")
}

fn costs_at_most(ceiling: u64, what: &str) {
    if cfg!(not(target_arch = "x86_64")) {
        println!("{what}: the ceilings are for x86-64");
        return;
    }
    // The difference leaves out what happens once.
    let a_lookup = (counted(what, 2 * LOOKUPS) - counted(what, LOOKUPS)) / LOOKUPS;
    println!("\n{what}: {a_lookup} instructions, {ceiling} allowed");
    assert!(a_lookup <= ceiling, "{what} costs {a_lookup} instructions, {ceiling} are allowed");
}

// `cargo xtask test bench-guard` runs these, one at a time.

#[test]
#[ignore = "needs valgrind, and a build of its own"]
fn resolve_costs_no_more_instructions_than_it_did() {
    costs_at_most(RESOLVE, "resolve");
}

#[test]
#[ignore = "needs valgrind, and a build of its own"]
fn key_costs_no_more_instructions_than_it_did() {
    costs_at_most(KEY, "key");
}

#[test]
#[ignore = "needs valgrind, and a build of its own"]
fn with_key_costs_no_more_instructions_than_it_did() {
    costs_at_most(WITH_KEY, "with_key");
}
