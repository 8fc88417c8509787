//! Runs commands, prints what they print, and counts the tests in it.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::install::{self, Consent};
use crate::report::Outcome;
use crate::tables::{Absent, Part};

/// Runs a part. It fails when a command fails, when a test fails, and when no test ran.
pub(crate) fn part(root: &Path, part: &Part, consent: Consent) -> Outcome {
    let commands = match (part.commands)(root) {
        Ok(commands) => commands,
        Err(Absent::Skip(why)) => return Outcome::Skipped(why),
        Err(Absent::Fail(why)) => return Outcome::Failed(why.to_owned()),
    };
    if let Err(why) = install::all(root, part.needs, consent) {
        return Outcome::Failed(why);
    }
    let mut all = Counted::default();
    for command in commands {
        let (succeeded, counted) = counting(root, &command);
        // A build that breaks runs no test, and still is one failure.
        if !succeeded && counted.failed == 0 {
            all.failed += 1;
            all.names.push(format!("`{}`", command.join(" ")));
        }
        all.add(counted);
    }
    match all {
        Counted { passed: 0, failed: 0, .. } => Outcome::Failed("no test ran".to_owned()),
        Counted { passed, failed, names } => Outcome::Ran { passed, failed, names },
    }
}

/// Whether this is CI.
pub(crate) fn in_ci() -> bool {
    std::env::var("CI").is_ok_and(|ci| ci == "true")
}

/// What is in a folder, in order of name; nothing where there is no folder.
pub(crate) fn entries(folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> =
        folder.read_dir().into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    found.sort();
    found
}

/// Runs a command that is a check: it passes or it fails.
pub(crate) fn checks(root: &Path, command: &[String], variables: &[(&str, &str)]) -> Outcome {
    Outcome::check(passes(root, command, variables))
}

/// Prints and runs a command; whether it succeeded.
pub(crate) fn passes(root: &Path, command: &[String], variables: &[(&str, &str)]) -> bool {
    announce(command);
    let status = prepared(root, command).map(|mut run| run.envs(variables.iter().copied()).status());
    matches!(status, Some(Ok(status)) if status.success())
}

/// Whether a command is there and succeeds, without a word.
pub(crate) fn succeeds(root: &Path, command: &[&str]) -> bool {
    let command: Vec<String> = command.iter().map(|&word| word.to_owned()).collect();
    let run = prepared(root, &command).map(|mut run| run.stderr(Stdio::null()).output());
    matches!(run, Some(Ok(output)) if output.status.success())
}

/// What a command prints; `None` when it fails.
pub(crate) fn output(root: &Path, command: &[String]) -> Option<String> {
    announce(command);
    let output = prepared(root, command)?.stderr(Stdio::inherit()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Tests counted in what a command printed.
#[derive(Default, PartialEq, Eq, Debug)]
struct Counted {
    passed: u64,
    failed: u64,
    names: Vec<String>,
}

impl Counted {
    fn add(&mut self, more: Self) {
        self.passed += more.passed;
        self.failed += more.failed;
        self.names.extend(more.names);
    }
}

/// Prints and runs a command, and adds up the results of its test binaries.
fn counting(root: &Path, command: &[String]) -> (bool, Counted) {
    announce(command);
    let Some(Ok(mut child)) = prepared(root, command).map(|mut run| run.stdout(Stdio::piped()).spawn())
    else {
        return (false, Counted::default());
    };
    let counted = child
        .stdout
        .take()
        .map_or_else(Counted::default, |from| relay(BufReader::new(from), std::io::stdout()));
    (child.wait().is_ok_and(|status| status.success()), counted)
}

/// Hands on every line as it comes, adds up those that close a test binary, and notes failed tests.
fn relay(mut from: impl BufRead, mut to: impl Write) -> Counted {
    let mut counted = Counted::default();
    let mut line = Vec::new();
    while matches!(from.read_until(b'\n', &mut line), Ok(read) if read > 0) {
        // A reader who went away does not stop the tests.
        let _ = to.write_all(&line).and_then(|()| to.flush());
        let text = String::from_utf8_lossy(&line);
        counted.names.extend(failed_test(&text));
        counted.add(result(&text).unwrap_or_default());
        line.clear();
    }
    counted
}

/// The counts in a test binary's closing line; `None` on every other line.
fn result(line: &str) -> Option<Counted> {
    let counts = line.strip_prefix("test result: ")?;
    let count = |what: &str| {
        let words: Vec<&str> = counts.split([' ', ';', '\n']).filter(|word| !word.is_empty()).collect();
        words.windows(2).find(|pair| pair[1] == what).and_then(|pair| pair[0].parse().ok())
    };
    Some(Counted { passed: count("passed")?, failed: count("failed")?, names: Vec::new() })
}

/// The test that this line says has failed.
fn failed_test(line: &str) -> Option<String> {
    let (name, went) = line.strip_prefix("test ")?.split_once(" ... ")?;
    went.contains("FAILED").then(|| name.to_owned())
}

fn announce(command: &[String]) {
    println!("\n$ {}", command.join(" "));
}

fn prepared(root: &Path, command: &[String]) -> Option<Command> {
    let (program, arguments) = command.split_first()?;
    let mut run = Command::new(program);
    run.args(arguments).current_dir(root);
    Some(run)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_closing_line_is_counted() {
        let check = |line, want: Option<(u64, u64)>| {
            let found = result(line).map(|counted| (counted.passed, counted.failed));
            assert_eq!(found, want, "{line}");
        };
        check(
            "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; in 0.1s\n",
            Some((12, 0)),
        );
        check("test result: \u{1b}[31mFAILED\u{1b}[0m. 3 passed; 2 failed; 0 ignored\n", Some((3, 2)));
        check("running 12 tests\n", None);
        check("a test said: test result: ok. 9 passed; 0 failed;\n", None);
        check("test result: ok\n", None);
    }

    #[test]
    fn every_line_is_handed_on_and_several_binaries_add_up() {
        let printed = b"running\n\xfftest result: no\ntest a ... ok\ntest result: ok. 2 passed; 0 failed;\n\
            test m::b ... FAILED\ntest result: FAILED. 1 passed; 4 failed;";
        let mut handed_on = Vec::new();
        let want = Counted { passed: 3, failed: 4, names: vec!["m::b".to_owned()] };
        assert_eq!(relay(&printed[..], &mut handed_on), want);
        assert_eq!(handed_on, printed);
    }

    fn part_of(commands: fn(&Path) -> Result<Vec<Vec<String>>, Absent>) -> Outcome {
        part(Path::new("."), &Part { name: "x", shows: "", needs: &[], commands }, Consent::Impossible)
    }

    #[test]
    fn a_part_without_tests_fails_and_so_does_one_that_does_not_build() {
        assert_eq!(part_of(|_| Ok(vec![vec!["true".to_owned()]])), Outcome::Failed("no test ran".to_owned()));
        let broken = Outcome::Ran { passed: 0, failed: 1, names: vec!["`false`".to_owned()] };
        assert_eq!(part_of(|_| Ok(vec![vec!["false".to_owned()]])), broken);
        assert_eq!(part_of(|_| Err(Absent::Skip("why"))), Outcome::Skipped("why"));
        assert_eq!(part_of(|_| Err(Absent::Fail("why"))), Outcome::Failed("why".to_owned()));
    }
}
