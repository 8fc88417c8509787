//! `jwks-cache demo --serve`: an identity provider to try a service against, with a token to send it.

use std::process::ExitCode;
use std::time::Duration;

use jwks_cache_testkit::{IdentityProvider, Token};
use serde_json::json;

use crate::cli::DemoArgs;
use crate::terminal;

/// Long enough to try things out.
const LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// Serves until the process ends. Returns only where the port cannot be had.
pub(crate) async fn run(args: &DemoArgs) -> ExitCode {
    let idp = match IdentityProvider::builder().port(args.port).cache_control("max-age=60").try_start() {
        Ok(idp) => idp,
        Err(error) => {
            terminal::complain(&error, "another process has the port: choose one by --port, or 0 for any");
            return ExitCode::from(2);
        }
    };
    let token = Token::new().subject("ada").audience("orders").claim("scope", "orders:read");
    let (issuer, keys, token) = (idp.issuer(), idp.jwks_url(), idp.mint(&token.expires_in(LIFETIME)));
    terminal::print(&if args.json {
        terminal::json(&json!({"issuer": issuer, "jwks_url": keys, "token": token}))
    } else {
        format!(
            "An identity provider, until you press Ctrl-C:\n  issuer  {issuer}\n  keys    {keys}\n\n\
             A token for the audience \"orders\", good for a day:\n{token}\n\n\
             Send it to your service:\n  curl -H \"Authorization: Bearer {token}\" http://127.0.0.1:3000/\n"
        )
    });
    std::future::pending().await
}
