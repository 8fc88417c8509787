//! What must be there before a part runs, and how it gets there: never silently.

use std::io::{IsTerminal, Write};
use std::path::Path;

use crate::run;

/// Something that a part needs beyond Rust.
pub(crate) struct Need {
    /// What it is, for a person.
    pub(crate) what: &'static str,
    /// Whether the machine and the checkout at this root have it.
    pub(crate) is_there: fn(&Path) -> bool,
    /// The command that installs it; `None` where only the person can.
    pub(crate) install: Option<&'static [&'static str]>,
}

/// Whether missing things may be installed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Consent {
    /// Said on the command line, or CI.
    Given,
    /// To be asked for at the terminal.
    Ask,
    /// Nobody is there to ask.
    Impossible,
}

impl Consent {
    /// What holds without `--yes`.
    pub(crate) fn of_environment() -> Self {
        match (run::in_ci(), std::io::stdin().is_terminal()) {
            (true, _) => Self::Given,
            (false, true) => Self::Ask,
            (false, false) => Self::Impossible,
        }
    }
}

/// Installs those of `needs` that are missing, after printing each command.
///
/// # Errors
///
/// What is still missing, and the command to run.
pub(crate) fn all(root: &Path, needs: &[Need], consent: Consent) -> Result<(), String> {
    for need in needs.iter().filter(|need| !(need.is_there)(root)) {
        let Some(command) = need.install else {
            return Err(format!("{} is missing: install it, then try again", need.what));
        };
        let line = command.join(" ");
        println!("missing: {}\n  {line}", need.what);
        let refused = match consent {
            Consent::Given => false,
            Consent::Ask => !asked("run it? [y/N] "),
            Consent::Impossible => true,
        };
        if refused {
            return Err(format!("{} are missing: run `{line}`, or add --yes", need.what));
        }
        let command: Vec<String> = command.iter().map(|&word| word.to_owned()).collect();
        if !run::passes(root, &command, &[]) || !(need.is_there)(root) {
            return Err(format!("`{line}` did not install {}", need.what));
        }
    }
    Ok(())
}

fn asked(question: &str) -> bool {
    print!("{question}");
    let mut answer = String::new();
    let read = std::io::stdout().flush().and_then(|()| std::io::stdin().read_line(&mut answer));
    read.is_ok() && matches!(answer.trim(), "y" | "Y" | "yes")
}

#[cfg(test)]
mod tests {
    use super::*;

    const MISSING: Need = Need { what: "straw", is_there: |_| false, install: Some(&["false"]) };

    #[test]
    fn what_is_there_needs_no_consent() {
        let there = Need { is_there: |_| true, ..MISSING };
        assert_eq!(all(Path::new("."), &[there], Consent::Impossible), Ok(()));
    }

    #[test]
    fn with_nobody_to_ask_the_command_is_named() {
        let told = all(Path::new("."), &[MISSING], Consent::Impossible);
        assert!(told.is_err_and(|why| why.contains("run `false`")));
    }

    #[test]
    fn an_install_that_fails_is_reported() {
        let told = all(Path::new("."), &[MISSING], Consent::Given);
        assert_eq!(told, Err("`false` did not install straw".to_owned()));
    }
}
