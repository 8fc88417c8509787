//! The rules of the house that no compiler holds: which room may name which, and what every file owes.
//!
//! The rules are the tables at the top; below is how they are read. This room does not parse Rust: it
//! looks for paths in the text, comments cut off, which finds every honest mistake.

use std::path::Path;

use crate::run;

/// A room (a module's file and folder) and the sibling modules that it must not name.
struct Wall {
    room: &'static str,
    never: &'static [&'static str],
}

/// Imports point right: `registry → resolve → refresh → fetch | store | slot | gate | telemetry | events`.
/// `resolve` asks the owner of a provider, which `refresh` is; those at the end know none of the others.
const WALLS: &[Wall] = &[
    Wall {
        room: "crates/jwks-cache/src/fetch",
        never: &["store", "slot", "gate", "refresh", "resolve", "registry"],
    },
    Wall {
        room: "crates/jwks-cache/src/dial",
        never: &["fetch", "store", "slot", "gate", "refresh", "resolve", "registry"],
    },
    Wall {
        room: "crates/jwks-cache/src/store",
        never: &["fetch", "slot", "gate", "refresh", "resolve", "registry"],
    },
    Wall {
        room: "crates/jwks-cache/src/slot",
        never: &["fetch", "store", "gate", "refresh", "resolve", "registry"],
    },
    Wall {
        room: "crates/jwks-cache/src/gate",
        never: &["fetch", "store", "slot", "refresh", "resolve", "registry"],
    },
    Wall {
        room: "crates/jwks-cache/src/telemetry",
        never: &["fetch", "store", "slot", "gate", "refresh", "resolve", "registry"],
    },
    Wall {
        room: "crates/jwks-cache/src/events",
        never: &["fetch", "store", "slot", "gate", "refresh", "resolve", "registry"],
    },
    Wall { room: "crates/jwks-cache/src/refresh", never: &["resolve", "registry", "verify"] },
    Wall {
        room: "crates/jwks-cache/src/issuers",
        never: &["fetch", "store", "slot", "gate", "resolve", "registry", "verify"],
    },
    Wall { room: "crates/jwks-cache/src/verify", never: &["fetch", "store", "slot", "gate", "dial"] },
    Wall {
        room: "crates/jwks-cache/src/verify/bearer",
        never: &["actix_web", "axum", "tonic", "tower", "registry", "resolve"],
    },
    Wall { room: "crates/jwks-cache-server/src/config", never: &["serve", "run", "data", "control", "ops"] },
    Wall { room: "crates/jwks-cache-server/src/data", never: &["control", "ops", "run"] },
    Wall { room: "crates/jwks-cache-server/src/control", never: &["data", "ops", "run"] },
    Wall { room: "crates/jwks-cache-server/src/ops", never: &["data", "control", "config", "run"] },
    Wall { room: "crates/jwks-cache-server/src/serve", never: &["run", "cli", "check"] },
    Wall { room: "crates/jwks-cache/src/resolve", never: &["fetch", "store", "gate", "registry", "verify"] },
];

/// Crates that the core's source must not name: it takes time, chance and bytes as values.
const CORE: &str = "crates/jwks-cache-core/src/";
const CORE_NEVER: &[&str] =
    &["tokio", "reqwest", "hyper", "redis", "metrics", "tracing", "log", "fastrand", "rand", "jwks_cache"];

/// What reads a clock or rolls dice, and the only files that may.
const CLOCK_READS: &[&str] =
    &["Instant::now", "SystemTime::now", "Utc::now", "Local::now", "clock_gettime", "fastrand::"];
const CLOCK_READERS: &[&str] =
    &["crates/jwks-cache/src/clock.rs", "crates/jwks-cache-testkit/src/world/clock.rs"];

/// What makes guards and frees what was replaced, and panics in a thread that ends; and the only file that may.
const EPOCHS: &str = "sdd::";
const EPOCHS_ROOM: &str = "crates/jwks-cache/src/epoch.rs";

/// Our crates from left to right: each may depend on those before it. Dev-dependencies may point back.
const CRATES: &[&str] =
    &["jwks-cache-core", "jwks-cache", "jwks-cache-testkit", "jwks-cache-server", "jwks-cache-acceptance"];

/// What the manifest of every crate of the workspace says.
const MANIFEST_LINES: &[&str] =
    &["license.workspace = true", "rust-version.workspace = true", "[lints]\nworkspace = true"];

/// Files that must be there.
const FILES: &[&str] = &["LICENSE-MIT", "LICENSE-APACHE"];

/// Work is an issue, not a word in a file. Split so that this file passes.
const WORDS: &[&str] = &[concat!("TO", "DO"), concat!("FIX", "ME")];

/// Folders of one machine, which must not stand in documents and manifests.
const MACHINE_PATHS: &[&str] = &["/home/", "/root/", "/tmp/", "/work/", "/Users/"];
const MACHINE_PATHS_IN: &[&str] = &["md", "toml", "json", "mjs"];

/// What counts as text: these endings, and names without one.
const TEXT: &[&str] = &["rs", "md", "toml", "mjs", "json", "lock", "yml", "yaml"];

/// Folders that are not ours to judge.
const FOREIGN: &[&str] = &[
    ".git",
    "target",
    "node_modules",
    ".venv",
    "venv",
    ".hypothesis",
    ".schemathesis",
    "corpus",
    "artifacts",
];

const DECISIONS: &str = "docs/decisions/";

/// Everything in the checkout at `root` that breaks a rule, a line each.
pub(crate) fn problems(root: &Path) -> Vec<String> {
    let mut files = Vec::new();
    collect(root, root, &mut files);
    let mut found = layout(&files);
    for file in &files {
        found.extend(in_file(file));
    }
    found
}

/// A text file, by its path from the root with `/` between folders.
struct File {
    path: String,
    text: String,
}

fn collect(root: &Path, folder: &Path, files: &mut Vec<File>) {
    for entry in run::entries(folder) {
        let name = entry.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let end = entry.extension().map(|end| end.to_string_lossy().into_owned());
        if entry.is_dir() {
            if !FOREIGN.contains(&name.as_str()) {
                collect(root, &entry, files);
            }
        } else if end.is_none_or(|end| TEXT.contains(&end.as_str()))
            && let (Ok(text), Ok(path)) = (std::fs::read_to_string(&entry), entry.strip_prefix(root))
        {
            files.push(File { path: path.to_string_lossy().replace('\\', "/"), text });
        }
    }
}

/// Rules about the files as a whole.
fn layout(files: &[File]) -> Vec<String> {
    let mut found: Vec<String> = FILES
        .iter()
        .filter(|wanted| !files.iter().any(|file| file.path == **wanted))
        .map(|wanted| format!("{wanted} is missing"))
        .collect();
    let decisions = files.iter().filter_map(|file| file.path.strip_prefix(DECISIONS));
    for (name, number) in decisions.zip(1..) {
        let title = name.strip_prefix(&format!("{number:04}-")).and_then(|rest| rest.strip_suffix(".md"));
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if !title.is_some_and(|title| !title.is_empty() && title.chars().all(plain)) {
            found.push(format!("{DECISIONS}{name}: expected {number:04}-title-in-small-letters.md"));
        }
    }
    found
}

/// Rules about one file.
fn in_file(file: &File) -> Vec<String> {
    let File { path, text } = file;
    let mut found = Vec::new();
    let mut say = |what: String| found.push(format!("{path}: {what}"));
    let end = path.rsplit_once('.').map_or("", |(_, end)| end);

    if !text.is_empty() && !text.ends_with('\n') {
        say("does not end with a line break".to_owned());
    }
    for word in WORDS.iter().filter(|word| starts(text, word).any(|rest| !rest.starts_with(is_word))) {
        say(format!("says {word}: file an issue instead"));
    }
    for folder in MACHINE_PATHS.iter().filter(|_| MACHINE_PATHS_IN.contains(&end)) {
        if starts(text, folder).next().is_some() {
            say(format!("names {folder}, a folder of one machine"));
        }
    }
    if let Some(package) = manifest_of(path) {
        for line in MANIFEST_LINES.iter().filter(|line| !text.contains(**line)) {
            say(format!("lacks `{}`", line.replace('\n', " ")));
        }
        let before = CRATES.iter().position(|known| *known == package);
        if before.is_none() && package != "xtask" {
            say("is in no order yet: add it to CRATES in xtask/src/tidy.rs".to_owned());
        }
        let later = CRATES.iter().skip(before.unwrap_or(0));
        for other in later.filter(|other| depends_on(text, other)) {
            say(format!("depends on {other}, which does not stand left of it"));
        }
    }
    if end == "rs" && path.starts_with("crates/") && path.contains("/src/") {
        let code = code_of(text);
        for wall in WALLS.iter().filter(|wall| is_in(path, wall.room)) {
            for named in siblings(&code).into_iter().filter(|named| wall.never.contains(named)) {
                say(format!("names `{named}`, which its room must not know"));
            }
        }
        for package in CORE_NEVER.iter().filter(|_| path.starts_with(CORE)) {
            if starts(&code, package).any(|rest| rest.starts_with("::") && !rest.starts_with("::<")) {
                say(format!("names {package}: the core is pure"));
            }
        }
        if path != EPOCHS_ROOM && starts(&code, EPOCHS).next().is_some() {
            say(format!("says `{EPOCHS}`: that is for {EPOCHS_ROOM} alone"));
        }
        for read in CLOCK_READS.iter().filter(|_| !CLOCK_READERS.contains(&path.as_str())) {
            if starts(&code, read).next().is_some() {
                say(format!(
                    "says `{read}`: clocks are read and dice are seeded in {}",
                    CLOCK_READERS.join(", ")
                ));
            }
        }
    }
    found
}

/// The package whose manifest this is: a crate's, or ours.
fn manifest_of(path: &str) -> Option<&str> {
    let package = path.strip_suffix("/Cargo.toml")?;
    package
        .strip_prefix("crates/")
        .or((package == "xtask").then_some(package))
        .filter(|name| !name.contains('/'))
}

/// Whether a manifest has `package` in a table of plain or build dependencies.
fn depends_on(manifest: &str, package: &str) -> bool {
    let mut in_dependencies = false;
    manifest.lines().any(|line| {
        if let Some(table) = line.strip_prefix('[') {
            in_dependencies = table.contains("dependencies]") && !table.contains("dev-dependencies]");
        }
        let name = line.split(['.', '=', ' ']).next().unwrap_or_default();
        in_dependencies && name == package
    })
}

/// Whether the file is the room's own, or lies in its folder.
fn is_in(path: &str, room: &str) -> bool {
    path.strip_prefix(room).is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
}

/// The text without line comments.
fn code_of(text: &str) -> String {
    text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// The modules named right after `crate::` or `super::`, in groups too: `crate::{a::B, c}` names `a` and `c`.
fn siblings(code: &str) -> Vec<&str> {
    let mut named = Vec::new();
    for rest in ["crate::", "super::"].iter().flat_map(|from| starts(code, from)) {
        let Some(group) = rest.trim_start().strip_prefix('{') else {
            named.push(first_word(rest));
            continue;
        };
        let mut depth = 0_usize;
        let mut item = true;
        for (at, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => item = true,
                c if item && is_word(c) => {
                    named.push(first_word(group.get(at..).unwrap_or_default()));
                    item = false;
                }
                _ => {}
            }
        }
    }
    named.sort_unstable();
    named.dedup();
    named
}

fn first_word(text: &str) -> &str {
    let text = text.trim_start();
    text.get(..text.find(|c| !is_word(c)).unwrap_or(text.len())).unwrap_or_default()
}

/// What follows each place where `word` begins, not counting the middle of another word.
fn starts<'a>(text: &'a str, word: &str) -> impl Iterator<Item = &'a str> {
    text.match_indices(word).filter_map(|(at, word)| {
        let (before, after) = (text.get(..at)?, text.get(at + word.len()..)?);
        (!before.ends_with(is_word)).then_some(after)
    })
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_repository_is_tidy() {
        let found = problems(&crate::root());
        assert!(found.is_empty(), "{}", found.join("\n"));
    }

    fn problems_of(path: &str, text: &str) -> String {
        in_file(&File { path: path.to_owned(), text: text.to_owned() }).join("\n")
    }

    /// `want` is part of the one problem found; empty means that there is none.
    fn check(path: &str, text: &str, want: &str) {
        let found = problems_of(path, text);
        assert_eq!(found.is_empty(), want.is_empty(), "{path}: {text:?} gave {found:?}");
        assert!(found.contains(want) && found.lines().count() <= 1, "{path}: {text:?} gave {found:?}");
    }

    #[test]
    fn rooms_do_not_name_what_they_must_not_know() {
        let fetch = "crates/jwks-cache/src/fetch.rs";
        check(fetch, "use crate::slot::Slot;\n", "names `slot`");
        check(fetch, "use crate::{error::{Cause, store}, slot::{A, B}};\n", "names `slot`");
        check(fetch, "use crate::{\n    clock,\n    store,\n};\n", "names `store`");
        check(fetch, "fn f(slot: &crate::clock::Clock) {} // crate::slot\n", "");
        check(fetch, "use crate::storefront::X;\n", "");
        check("crates/jwks-cache/src/fetch/http.rs", "use super::super::store::X;\n", "names `store`");
        check("crates/jwks-cache/src/fetcher.rs", "use crate::store::X;\n", "");
        check("crates/jwks-cache/src/refresh.rs", "use crate::{fetch, slot, store, telemetry};\n", "");
        check("crates/jwks-cache/src/refresh/apply.rs", "use crate::registry::X;\n", "names `registry`");
        check("crates/jwks-cache/src/resolve.rs", "use crate::fetch::X;\n", "names `fetch`");
        check("crates/jwks-cache/src/resolve.rs", "use crate::{refresh::X, slot::Y};\n", "");
        check("crates/jwks-cache/src/gate.rs", "use crate::slot::X;\n", "names `slot`");
        check("crates/jwks-cache/src/slot.rs", "use crate::gate::X;\n", "names `gate`");
        check("crates/jwks-cache/src/events.rs", "use crate::refresh::X;\n", "names `refresh`");
        check("crates/jwks-cache/src/telemetry/recorder.rs", "use crate::resolve::X;\n", "names `resolve`");
        check("crates/jwks-cache/src/metrics.rs", "use crate::refresh::X;\n", "");
    }

    #[test]
    fn the_core_names_no_runtime_and_only_the_clock_reads_clocks() {
        let core = "crates/jwks-cache-core/src/lifecycle.rs";
        check(core, "use tokio::time::sleep;\n", "names tokio");
        check(core, "/// No `tokio::spawn` here.\nlet brand = strand::x();\n", "");
        check(core, "let t = std::time::Instant::now();\n", "`Instant::now`");
        check("crates/jwks-cache/src/slot.rs", "use sdd::Guard;\n", "says `sdd::`");
        check("crates/jwks-cache-server/src/main.rs", "let t = Utc::now();\n", "`Utc::now`");
        check("crates/jwks-cache/src/clock.rs", "let t = SystemTime::now();\n", "");
    }

    #[test]
    fn crates_depend_to_the_left_only() {
        let manifest = |tables: &str| format!("{}\n{tables}", MANIFEST_LINES.join("\n"));
        let library = "crates/jwks-cache/Cargo.toml";
        check(library, &manifest("[dependencies]\njwks-cache-core.workspace = true\n"), "");
        check(library, &manifest("[dev-dependencies]\njwks-cache-testkit.workspace = true\n"), "");
        let back = "[target.'cfg(unix)'.dependencies]\njwks-cache-testkit = { workspace = true }\n";
        check(library, &manifest(back), "depends on jwks-cache-testkit");
        check(
            "xtask/Cargo.toml",
            &manifest("[dependencies]\njwks-cache.workspace = true\n"),
            "depends on jwks-cache",
        );
        check("crates/new/Cargo.toml", &manifest(""), "in no order yet");
        check(
            "xtask/Cargo.toml",
            "[lints]\nworkspace = true\nlicense.workspace = true\n",
            "lacks `rust-version",
        );
    }

    #[test]
    fn every_file_ends_its_last_line_and_names_no_machine_and_no_unfiled_work() {
        check("a.md", "text", "line break");
        check("a.md", "", "");
        check("a.md", &format!("{}: later\n", WORDS[0]), "file an issue");
        check("a.md", &format!("{}S\n", WORDS[0]), "");
        check("a.md", &format!("see `{}x`\n", MACHINE_PATHS[0]), "folder of one machine");
        check("a.md", &format!("https://host.example{}x\n", MACHINE_PATHS[0]), "");
    }

    #[test]
    fn decisions_are_numbered_without_gaps() {
        let check = |names: &[&str], problems: usize| {
            let decisions = names.iter().map(|name| format!("{DECISIONS}{name}"));
            let files = FILES.iter().map(|&name| name.to_owned()).chain(decisions);
            let files: Vec<File> = files.map(|path| File { path, text: String::new() }).collect();
            assert_eq!(layout(&files).len(), problems, "{names:?}");
        };
        check(&["0001-one.md", "0002-two-words.md"], 0);
        check(&["0001-one.md", "0003-three.md"], 1);
        check(&["0001-one.md", "0001-two.md"], 1);
        check(&["0001-One.md"], 1);
        assert_eq!(layout(&[]).len(), FILES.len());
    }
}
