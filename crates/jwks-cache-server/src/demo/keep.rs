//! `jwks-cache demo --store DIR`: the story of two processes. The first fetches keys and stores them; the second finds
//! the provider down from the start, and verifies a token of the first all the same.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use jwks_cache::{
    Algorithm, Clock as _, FileStore, IdentityProviderRegistration, Registry, Result, SystemClock,
};
use jwks_cache_testkit::{IdentityProvider, Token, split};
use serde_json::{Value, json};

use crate::terminal::{self, Paint};

/// What the first process leaves for the second, beside what the store keeps.
const LEFT: &str = "demo.json";

/// A restart may not take longer to serve.
const SOON: Duration = Duration::from_secs(1);

/// Plays the part whose turn it is. The exit code is 0 only if the token was verified, and soon.
pub(super) async fn run(folder: &Path, json: bool) -> ExitCode {
    let left = std::fs::read(folder.join(LEFT)).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let played = match &left {
        Some(left) => second(folder, left).await,
        None => first(folder).await,
    };
    match played {
        Ok(scene) => {
            if json {
                terminal::print(&format!("{:#}\n", scene.json(folder)));
            } else {
                terminal::print(&scene.text(folder));
            }
            ExitCode::from(u8::from(!scene.held()))
        }
        Err(error) => {
            terminal::complain(&*error, "remove the folder to begin again");
            ExitCode::from(1)
        }
    }
}

type Played = std::result::Result<Scene, Box<dyn std::error::Error>>;

/// What was seen.
struct Scene {
    provider_is_up: bool,
    verified: bool,
    took: Duration,
    requests: u64,
}

async fn first(folder: &Path) -> Played {
    let idp = IdentityProvider::builder().cache_control("max-age=600").start();
    let (url, token) = (idp.jwks_url().to_string(), idp.mint(&Token::new().subject("ada")));
    let mut scene = look(folder, &url, &token, true).await?;
    scene.requests = u64::try_from(idp.jwks_hits()).unwrap_or(u64::MAX);
    std::fs::write(folder.join(LEFT), json!({"url": url, "token": token}).to_string())?;
    Ok(scene)
}

async fn second(folder: &Path, left: &Value) -> Played {
    let text = |name: &str| left.get(name).and_then(Value::as_str).unwrap_or_default();
    look(folder, text("url"), text("token"), false).await
}

/// A process: it registers the provider, verifies the token, and ends.
async fn look(folder: &Path, url: &str, token: &str, provider_is_up: bool) -> Played {
    let began = SystemClock.now();
    let store = Arc::new(FileStore::open(folder)?);
    let registry = Registry::builder().require_https(false).with_store(store).build();
    let mut registration = IdentityProviderRegistration::new("acme", "main", url)?;
    registration.stale_while_error = Duration::from_secs(24 * 3600);
    registry.register(registration).await?;
    let verified = verifies(&registry, token).await?;
    let took = SystemClock.now().since(began);
    registry.shutdown().await;
    Ok(Scene { provider_is_up, verified, took, requests: 0 })
}

async fn verifies(registry: &Registry, token: &str) -> Result<bool> {
    let Some((header, input, signature)) = split(token) else { return Ok(false) };
    let key = registry.key("acme", "main", header["kid"].as_str(), Algorithm::ES256).await?;
    Ok(key.verify(input.as_bytes(), &signature).is_ok())
}

impl Scene {
    fn held(&self) -> bool {
        self.verified && (self.provider_is_up || self.took <= SOON)
    }

    fn json(&self, folder: &Path) -> Value {
        json!({
            "store": folder,
            "provider": if self.provider_is_up { "up" } else { "down" },
            "verified": self.verified,
            "took_millis": u64::try_from(self.took.as_millis()).unwrap_or(u64::MAX),
            "requests": self.requests,
            "held": self.held(),
        })
    }

    fn text(&self, folder: &Path) -> String {
        let paint = Paint::for_stdout();
        let (mark, folder, took) = (paint.mark(self.held()), folder.display(), self.took.as_millis());
        let verified = if self.verified { "verified" } else { "not verified" };
        if self.provider_is_up {
            let requests = self.requests;
            let again = paint.dim("Run the same command again: the provider will be down from the start.");
            format!(
                "{mark} The provider is up: {requests} request, its token {verified}, its keys stored in {folder}.\n  {again}\n"
            )
        } else {
            let why =
                paint.dim("The keys were loaded from the folder; nobody answers at the provider's address.");
            format!(
                "{mark} The provider is down from the start: its token {verified} after {took} ms.\n  {why}\n"
            )
        }
    }
}
