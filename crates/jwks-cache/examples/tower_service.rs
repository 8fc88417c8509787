//! Any tower service behind the layer, here one of axum with a path that needs no token and handlers that do not know
//! of this crate's extractor. Run `jwks-cache demo --serve` beside it, or give it another provider's issuer.
//!
//! `cargo run --example tower_service --features tower -- [ISSUER [ADDRESS]]`

use axum::{Extension, Router, routing::get};
use jwks_cache::{Guard, IdentityProviderRegistration, Registry, StandardClaims, Verified};

async fn hello(user: Extension<Verified<StandardClaims>>) -> String {
    format!("hello {}\n", user.sub.as_deref().unwrap_or("stranger"))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let issuer = args.next().unwrap_or("http://127.0.0.1:4000".into());
    let registry = Registry::builder().require_https(false).build(); // the demo's provider is on loopback
    let mut provider = IdentityProviderRegistration::new("acme", "main", format!("{issuer}/jwks.json"))?;
    (provider.issuer, provider.require_https) = (Some(issuer), false);
    registry.register(provider).await?;

    let guard = Guard::new(registry.verifier().audience("orders").build()?).realm("orders");
    let layer = guard.layer::<StandardClaims>().scope("orders:read").skip("/healthz");
    let app = Router::new().route("/", get(hello)).route("/healthz", get(|| async { "ok\n" })).layer(layer);
    let listener = tokio::net::TcpListener::bind(args.next().unwrap_or("127.0.0.1:3000".into())).await?;
    println!("listening on {}", listener.local_addr()?);
    Ok(axum::serve(listener, app).await?)
}
