//! `jwks-cache token`: a new bearer token, and what configuration keeps of it.

use std::process::ExitCode;

use serde_json::json;

use crate::cli::TokenArgs;
use crate::config::Digest;
use crate::control::access::{TokenHash, new_token};
use crate::terminal;

pub(crate) fn run(args: &TokenArgs) -> ExitCode {
    let Ok(token) = new_token() else {
        let error = std::io::Error::other("the machine gives no random bytes");
        terminal::complain(&error, "try again when it has been up for a while");
        return ExitCode::from(1);
    };
    let sha256 = Digest(TokenHash::of(&token).0).to_string();
    terminal::print(&if args.json {
        terminal::json(&json!({"token": token, "sha256": sha256}))
    } else {
        format!("token   {token}\nsha256  {sha256}\n")
    });
    ExitCode::SUCCESS
}
