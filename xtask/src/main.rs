//! The tasks of this repository. Read `tables.rs` first: whatever can be tested or checked is a row there.

#[cfg(test)]
mod bench_guard;
mod install;
#[cfg(test)]
mod mutants;
mod report;
mod run;
#[cfg(test)]
mod six_mutants;
mod tables;
mod tidy;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use install::Consent;
use report::Report;
use tables::{CHECKS, DEFAULT_GROUPS, GROUPS, PARTS, Part};

const USAGE: &str = "\
usage:
  cargo xtask test [GROUP… | --all] [--yes]  run test groups; --yes installs what is missing without asking
  cargo xtask long PART [--yes]              run one long part
  cargo xtask ci                             everything that CI runs
  cargo xtask tidy                           the layout rules alone
  cargo xtask help                           this text
";

fn main() -> ExitCode {
    let root = root();
    let words: Vec<String> = std::env::args().skip(1).collect();
    let (options, names): (Vec<&str>, Vec<&str>) =
        words.iter().map(String::as_str).partition(|word| word.starts_with('-'));
    if names.first() == Some(&"help") || options.iter().any(|option| matches!(*option, "--help" | "-h")) {
        print!("{}", usage());
        return ExitCode::SUCCESS;
    }
    let Some((&task, names)) = names.split_first() else { return misused("no task named") };
    let known: &[&str] = match task {
        "test" => &["--all", "--yes"],
        "long" => &["--yes"],
        _ => &[],
    };
    if let Some(option) = options.iter().find(|option| !known.contains(option)) {
        return misused(&format!("`{task}` has no option {option}"));
    }
    let consent = if options.contains(&"--yes") { Consent::Given } else { Consent::of_environment() };

    let mut report = Report::default();
    let done = match (task, names) {
        ("test", []) if options.contains(&"--all") => {
            parts(&root, GROUPS, &names_of(GROUPS), consent, &mut report)
        }
        ("test", []) => parts(&root, GROUPS, DEFAULT_GROUPS, consent, &mut report),
        ("test", groups) if !options.contains(&"--all") => parts(&root, GROUPS, groups, consent, &mut report),
        ("long", [_]) => parts(&root, PARTS, names, consent, &mut report),
        ("ci", []) => {
            for check in CHECKS {
                report.row(check.name, || (check.run)(&root));
            }
            parts(&root, GROUPS, DEFAULT_GROUPS, Consent::Given, &mut report)
        }
        ("tidy", []) => {
            report.row("tidy", || tables::tidy(&root));
            Ok(())
        }
        ("long", []) => Err("name one long part".to_owned()),
        _ => Err(format!("cannot do `{}`", words.join(" "))),
    };
    match done {
        Ok(()) => report.close(),
        Err(why) => misused(&why),
    }
}

/// Runs the named rows of `table` one after another.
///
/// # Errors
///
/// A name that the table does not hold; nothing ran then.
fn parts(
    root: &Path,
    table: &[Part],
    names: &[&str],
    consent: Consent,
    report: &mut Report,
) -> Result<(), String> {
    let find = |name: &&str| {
        table.iter().find(|part| part.name == *name).ok_or_else(|| {
            let known = names_of(table);
            let known = if known.is_empty() { "none yet".to_owned() } else { known.join(", ") };
            format!("nothing is named `{name}`; known: {known}")
        })
    };
    let chosen = names.iter().map(find).collect::<Result<Vec<&Part>, _>>()?;
    for part in chosen {
        report.row(part.name, || run::part(root, part, consent));
    }
    Ok(())
}

fn names_of(table: &[Part]) -> Vec<&'static str> {
    table.iter().map(|part| part.name).collect()
}

fn misused(why: &str) -> ExitCode {
    eprint!("xtask: {why}\n{}", usage());
    ExitCode::from(2)
}

/// How to call us, and every row that can be named.
fn usage() -> String {
    let mut text = USAGE.to_owned();
    for (title, table, defaults) in [("groups", GROUPS, DEFAULT_GROUPS), ("long parts", PARTS, &[])] {
        text.push_str(&format!("{title}:{}\n", if table.is_empty() { " none yet" } else { "" }));
        for part in table {
            let default = if defaults.contains(&part.name) { " (default)" } else { "" };
            text.push_str(&format!("  {:11} {}{default}\n", part.name, part.shows));
        }
    }
    text
}

/// The checkout that this binary was built from.
fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}
