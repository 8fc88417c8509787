//! The long run of cargo-mutants over the modules that decide, and which of its mutants may live.

use std::fs;
use std::path::Path;
use std::process::Command;

/// The modules whose every decision some test must hold.
const FILES: [&str; 7] = [
    "crates/jwks-cache-core/src/freshness.rs",
    "crates/jwks-cache-core/src/freshness/**",
    "crates/jwks-cache-core/src/lifecycle.rs",
    "crates/jwks-cache-core/src/select.rs",
    "crates/jwks-cache-core/src/keyset.rs",
    "crates/jwks-cache-core/src/keyset/**",
    "crates/jwks-cache-core/src/published.rs",
];

/// The least share of mutants that tests must catch, in percent.
const LEAST_SCORE: usize = 90;

/// Mutants that change nothing anybody could see, by a part of their name, and why.
const EQUIVALENT: &[(&str, &str)] = &[(
    "match guard in_string with true in is_nested_too_deep",
    "a backslash outside a string is no JSON, and is refused a line later",
)];

/// The lines of one of cargo-mutants' lists.
fn list(folder: &Path, name: &str) -> Vec<String> {
    let text = fs::read_to_string(folder.join(name)).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// Runs what no earlier run has settled (`--iterate`); `MUTANTS_SHARD=1/8` runs a part, `MUTANTS_FILE` one file.
#[test]
#[ignore = "takes hours: cargo xtask long mutants"]
fn tests_catch_at_least_nine_of_ten_mutants() {
    let root = crate::root();
    let output = root.join("target");
    let mut run = Command::new("cargo");
    run.args(["mutants", "--iterate", "--no-shuffle", "--timeout", "120", "--colors", "never"]);
    run.args(["--package", "jwks-cache-core", "--output"]).arg(&output);
    match std::env::var("MUTANTS_FILE") {
        Ok(file) => run.args(["--file", &file]),
        Err(_) => run.args(FILES.iter().flat_map(|file| ["--file", file])),
    };
    if let Ok(shard) = std::env::var("MUTANTS_SHARD") {
        run.args(["--shard", &shard]);
    }
    // The corpora stay beside the checkout, not beside the copy that is changed.
    run.args(["--", "--lib", "--test", "keyset", "--test", "model", "--test", "differential"]);
    // Whatever the random lives and inputs find, they find in the first few hundred.
    run.env("PROPTEST_CASES", "600").env("CARGO_PROFILE_DEV_DEBUG", "false");
    run.current_dir(&root);
    let status = run.status().expect("cargo can be started");
    // 0: all caught; 2: some missed; 3: some timed out. Anything else is no verdict.
    assert!(matches!(status.code(), Some(0 | 2 | 3)), "cargo-mutants gave up: {status}");

    let folder = output.join("mutants.out");
    let lists = ["caught.txt", "previously_caught.txt", "timeout.txt"];
    let caught: usize = lists.iter().map(|name| list(&folder, name).len()).sum();
    let (excused, survivors): (Vec<_>, Vec<_>) = list(&folder, "missed.txt")
        .into_iter()
        .partition(|mutant| EQUIVALENT.iter().any(|(part, _)| mutant.contains(part)));
    let all = caught + survivors.len();
    println!("{caught} of {all} mutants caught, {} that change nothing aside", excused.len());
    for mutant in &excused {
        let why = EQUIVALENT.iter().find(|(part, _)| mutant.contains(part)).map_or("", |(_, why)| why);
        println!("changes nothing: {mutant}: {why}");
    }
    survivors.iter().for_each(|mutant| println!("survived: {mutant}"));
    assert!(all > 0, "no mutant was tried");
    assert!(caught * 100 >= all * LEAST_SCORE, "fewer than {LEAST_SCORE} % are caught");
}
