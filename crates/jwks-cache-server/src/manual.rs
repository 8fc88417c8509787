//! `jwks-cache completions` and `jwks-cache man`: what shells and `man` want to know of the command line, made from
//! the same words as `--help`.

use std::io;
use std::process::ExitCode;

use clap::CommandFactory as _;
use clap_mangen::Man;

use crate::cli::{Cli, CompletionsArgs, ManArgs};
use crate::terminal;

/// Prints a completion script.
pub(crate) fn completions(args: &CompletionsArgs) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "jwks-cache", &mut script);
    terminal::print(&String::from_utf8_lossy(&script));
    ExitCode::SUCCESS
}

/// Prints the page of the command, or writes those of all.
pub(crate) fn pages(args: &ManArgs) -> ExitCode {
    let command = Cli::command().disable_help_subcommand(true);
    let done = match &args.folder {
        Some(folder) => clap_mangen::generate_to(command, folder),
        None => page(command),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            terminal::complain(&error, "give a folder that is there and may be written to");
            ExitCode::from(2)
        }
    }
}

fn page(command: clap::Command) -> io::Result<()> {
    let mut text = Vec::new();
    Man::new(command).render(&mut text)?;
    terminal::print(&String::from_utf8_lossy(&text));
    Ok(())
}
