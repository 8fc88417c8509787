//! The binary as people and scripts run it, and what it said.
#![allow(dead_code, reason = "each test file uses a part of this")]

use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::Value;

pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Said {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|_| panic!("{}{}", self.out, self.err))
    }
}

pub(crate) fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_jwks-cache"));
    command.args(args);
    command
}

/// Runs the binary, with this on its standard input.
pub(crate) fn run_with(input: impl AsRef<[u8]>, args: &[&str]) -> Said {
    let mut child =
        command(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // One that fails early does not read it.
    let _ = child.stdin.take().unwrap().write_all(input.as_ref());
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Said { code: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
}

pub(crate) fn run(args: &[&str]) -> Said {
    run_with("", args)
}
