//! The long run of cargo-mutants over the modules that decide: its score, and why survivors live.

use std::collections::BTreeMap;
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

/// Why a mutant lives, by a part of its name. It counts as a survivor all the same.
const WHY: &[(&str, &str)] = &[
    (
        "match guard in_string with true in is_nested_too_deep",
        "changes nothing: a backslash outside a string is no JSON, and is refused a line later",
    ),
    ("::expecting -> fmt::Result", "words for serde that nobody reads: a refusal has its own"),
    ("replace == with != in Tagged<'a, M>::named", "changes the speed alone: `select` finds the same"),
    ("replace Tagged<'a, M>::named", "changes the speed alone: `select` finds the same"),
    ("| with ^ in small_number", "changes nothing: the bits on both sides are apart"),
    ("| with ^ in has_roca_fingerprint", "changes nothing: the bits on both sides are apart"),
    (
        "material.rs:270:31: replace % with + in has_roca_fingerprint",
        "changes nothing: the power is reduced in the loop",
    ),
    (
        "replace % with / in has_roca_fingerprint",
        "asks of numbers that are no primes too: the one modulus of that generator in the tests passes them as well",
    ),
    (
        "material.rs:265:70: replace % with + in has_roca_fingerprint",
        "asks of numbers that are no primes too: the one modulus of that generator in the tests passes them as well",
    ),
    ("replace < with <= in Lifecycle::fail_fallbacks", "the one nanosecond at which keys end"),
    (
        "material.rs:23:41: replace - with /",
        "changes nothing: the one number more is even, and exponents are odd",
    ),
];

/// cargo-mutants' lists, and what stands in them.
const LISTS: [(&str, &str); 4] = [
    ("caught.txt", "caught"),
    ("timeout.txt", "caught"),
    ("missed.txt", "missed"),
    ("unviable.txt", "unviable"),
];

/// `cargo mutants` for the files that the environment chooses.
fn mutants(root: &Path) -> Command {
    let mut command = Command::new("cargo");
    command.args(["mutants", "--package", "jwks-cache-core", "--colors", "never"]).current_dir(root);
    match std::env::var("MUTANTS_FILE") {
        Ok(file) => command.args(["--file", &file]),
        Err(_) => command.args(FILES.iter().flat_map(|file| ["--file", file])),
    };
    command
}

/// Goes on where the last run stopped: cargo-mutants tries what was not caught, and verdicts are kept by name.
/// `MUTANTS_SHARD=1/8` runs a part, `MUTANTS_FILE` one file.
#[test]
#[ignore = "takes hours: cargo xtask long mutants"]
fn tests_catch_at_least_nine_of_ten_mutants() {
    let root = crate::root();
    let output = root.join("target");
    let mut run = mutants(&root);
    run.args(["--iterate", "--no-shuffle", "--timeout", "120", "--output"]).arg(&output);
    if let Ok(shard) = std::env::var("MUTANTS_SHARD") {
        run.args(["--shard", &shard]);
    }
    // The corpora stay beside the checkout, not beside the copy that is changed.
    run.args(["--", "--lib", "--test", "keyset", "--test", "model", "--test", "differential"]);
    // Whatever the random lives and inputs find, they find in the first few hundred.
    run.env("PROPTEST_CASES", "600").env("CARGO_PROFILE_DEV_DEBUG", "false").env_remove("CI");
    let status = run.status().expect("cargo can be started");
    // 0: all caught; 2: some missed; 3: some timed out. Anything else is no verdict.
    assert!(matches!(status.code(), Some(0 | 2 | 3)), "cargo-mutants gave up: {status}");

    let kept = output.join("mutants.verdicts");
    let mut verdicts: BTreeMap<String, String> = BTreeMap::new();
    for line in fs::read_to_string(&kept).unwrap_or_default().lines() {
        if let Some((verdict, mutant)) = line.split_once('\t') {
            verdicts.insert(mutant.to_owned(), verdict.to_owned());
        }
    }
    for (list, verdict) in LISTS {
        for mutant in fs::read_to_string(output.join("mutants.out").join(list)).unwrap_or_default().lines() {
            verdicts.insert(mutant.to_owned(), verdict.to_owned());
        }
    }
    let text: String = verdicts.iter().map(|(mutant, verdict)| format!("{verdict}\t{mutant}\n")).collect();
    fs::write(&kept, text).expect("the verdicts can be kept");

    // Only what the code of today can be changed into counts.
    let list = mutants(&root).args(["--list"]).output().expect("cargo can be started");
    let list = String::from_utf8_lossy(&list.stdout).into_owned();
    let all: Vec<&str> = list.lines().collect();
    let of = |wanted: &str| -> Vec<&str> {
        let is = |mutant: &&&str| verdicts.get(**mutant).is_some_and(|verdict| verdict == wanted);
        all.iter().filter(is).copied().collect()
    };
    let (caught, missed, unviable) = (of("caught").len(), of("missed"), of("unviable").len());
    let tried = caught + missed.len();
    let untried = all.len() - tried - unviable;
    println!("{caught} of {tried} mutants caught; {unviable} do not build, {untried} not tried yet");
    for mutant in &missed {
        let why =
            WHY.iter().find(|(part, _)| mutant.contains(part)).map_or("no reason known", |(_, why)| why);
        println!("survived: {mutant}: {why}");
    }
    assert!(tried > 0, "no mutant was tried");
    assert!(caught * 100 >= tried * LEAST_SCORE, "fewer than {LEAST_SCORE} % are caught");
}
