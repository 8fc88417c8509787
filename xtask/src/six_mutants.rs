//! Six ways to break the promises that matter most, as data. Each is applied to a copy of the sources, where
//! tests must then fail: a suite that stays green over one of these would miss it in a change, too.

use std::path::Path;
use std::process::{Command, Stdio};
use std::{fs, io};

use crate::run;

/// One change that breaks a promise.
struct Mutant {
    /// A folder for its copy.
    name: &'static str,
    file: &'static str,
    /// Stands once in the file.
    find: &'static str,
    replace: &'static str,
    /// The smallest command that must turn red.
    test: &'static [&'static str],
}

const LIFECYCLE: &str = "crates/jwks-cache-core/src/lifecycle.rs";
const FRESHNESS: &str = "crates/jwks-cache-core/src/freshness.rs";
const CORE: &[&str] = &["test", "-p", "jwks-cache-core", "--lib"];

const COOLDOWN_FROM_SUCCESS: Mutant = Mutant {
    name: "cooldown-from-success",
    file: LIFECYCLE,
    find: "self.kid_flight_at.map_or(now, |at| at + interval)",
    replace: "self.held.as_ref().map_or(now, |held| held.received_at + interval)",
    test: CORE,
};
const CLEARED_ON_FAILURE: Mutant = Mutant {
    name: "cleared-on-failure",
    file: LIFECYCLE,
    find: "self.failures = self.failures.saturating_add(1);",
    replace: "self.failures = self.failures.saturating_add(1); self.held = None;",
    test: CORE,
};
const OLDER_WINS: Mutant = Mutant {
    name: "older-wins",
    file: LIFECYCLE,
    find: "self.flight.filter(|flight| flight.number == number) else {",
    replace: "self.flight else {",
    test: CORE,
};
const TRUST_AGE_IGNORED: Mutant = Mutant {
    name: "trust-age-ignored",
    file: LIFECYCLE,
    find: "(expires_at + granted.stale_window).min(received_at + self.policy.trust_age());",
    replace: "expires_at + granted.stale_window;",
    test: CORE,
};
const AGE_IGNORED: Mutant = Mutant {
    name: "age-ignored",
    file: FRESHNESS,
    find: "Duration::from_secs(stored.age.unwrap_or(0))",
    replace: "Duration::ZERO",
    test: CORE,
};
const SINGLE_FLIGHT_OFF: Mutant = Mutant {
    name: "single-flight-off",
    file: LIFECYCLE,
    find: "if self.flight.is_some() {\n            return Answer::Flying;",
    replace: "if false {\n            return Answer::Flying;",
    test: CORE,
};

const ALL: [&Mutant; 6] = [
    &COOLDOWN_FROM_SUCCESS,
    &CLEARED_ON_FAILURE,
    &OLDER_WINS,
    &TRUST_AGE_IGNORED,
    &AGE_IGNORED,
    &SINGLE_FLIGHT_OFF,
];

/// The file of this mutant as it becomes.
fn mutated(root: &Path, mutant: &Mutant) -> String {
    let text = fs::read_to_string(root.join(mutant.file)).unwrap_or_default();
    let found = text.matches(mutant.find).count();
    let Mutant { name, file, find, .. } = mutant;
    assert_eq!(found, 1, "`{name}` must find this once in {file}; say anew what breaks the promise:\n{find}");
    text.replace(mutant.find, mutant.replace)
}

/// Copies what cargo reads, and nothing that it writes.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in run::entries(from) {
        let Some(name) = entry.file_name() else { continue };
        if entry.is_file() {
            fs::copy(&entry, to.join(name))?;
        } else if entry.is_dir()
            && !matches!(name.to_str(), Some(".git" | "target" | "node_modules" | "venv" | ".venv"))
        {
            copy(&entry, &to.join(name))?;
        }
    }
    Ok(())
}

/// Applies the mutant to a copy, and expects that it builds and that a test fails.
fn turns_red(mutant: &Mutant) {
    let root = crate::root();
    let changed = mutated(&root, mutant);
    let target = root.join("target");
    // One place for all: they run one after another, and what did not change is not built again.
    let tree = target.join("six-mutants");
    copy(&root, &tree).expect("the sources can be copied");
    fs::write(tree.join(mutant.file), changed).expect("the copy can be written");
    let cargo = |arguments: &[&str]| {
        Command::new("cargo")
            .args(arguments)
            .current_dir(&tree)
            .env("CARGO_TARGET_DIR", &target)
            .stderr(Stdio::inherit())
            .output()
            .expect("cargo can be started")
    };
    let built = cargo(&[mutant.test, &["--no-run"]].concat());
    assert!(built.status.success(), "`{}` does not build, so it shows nothing", mutant.name);
    let tested = cargo(mutant.test);
    let text = String::from_utf8_lossy(&tested.stdout);
    let red: Vec<&str> =
        text.lines().filter_map(|line| line.strip_prefix("test ")?.strip_suffix(" ... FAILED")).collect();
    assert!(!tested.status.success() && !red.is_empty(), "`{}` turned no test red", mutant.name);
    println!("\n{} turns {} red, such as {}", mutant.name, red.len(), red[0]);
}

#[test]
fn every_mutant_still_fits_the_sources() {
    for mutant in ALL {
        assert_ne!(mutated(&crate::root(), mutant), "");
    }
}

// `cargo xtask test six-mutants` runs these, one at a time.

#[test]
#[ignore = "builds a copy of the sources"]
fn a_cooldown_counted_from_the_last_success_is_caught() {
    turns_red(&COOLDOWN_FROM_SUCCESS);
}

#[test]
#[ignore = "builds a copy of the sources"]
fn a_set_cleared_on_failure_is_caught() {
    turns_red(&CLEARED_ON_FAILURE);
}

#[test]
#[ignore = "builds a copy of the sources"]
fn an_older_response_that_wins_is_caught() {
    turns_red(&OLDER_WINS);
}

#[test]
#[ignore = "builds a copy of the sources"]
fn a_max_trust_age_that_is_ignored_is_caught() {
    turns_red(&TRUST_AGE_IGNORED);
}

#[test]
#[ignore = "builds a copy of the sources"]
fn an_age_that_is_ignored_is_caught() {
    turns_red(&AGE_IGNORED);
}

#[test]
#[ignore = "builds a copy of the sources"]
fn single_flight_switched_off_is_caught() {
    turns_red(&SINGLE_FLIGHT_OFF);
}
