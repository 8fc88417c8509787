//! An actix-web service whose handlers take claims. Run `jwks-cache demo --serve` beside it, or give it another
//! provider's issuer.
//!
//! `cargo run --example actix_service --features actix-web -- [ISSUER [ADDRESS]]`

use actix_web::{App, HttpServer, web};
use jwks_cache::{Claims, Guard, IdentityProviderRegistration, Registry, StandardClaims};

async fn hello(user: Claims<StandardClaims>) -> String {
    format!("hello {}\n", user.sub.as_deref().unwrap_or("stranger"))
}

#[actix_web::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let issuer = args.next().unwrap_or("http://127.0.0.1:4000".into());
    let registry = Registry::builder().require_https(false).build(); // the demo's provider is on loopback
    let mut provider = IdentityProviderRegistration::new("acme", "main", format!("{issuer}/jwks.json"))?;
    (provider.issuer, provider.require_https) = (Some(issuer), false);
    registry.register(provider).await?;

    let guard = Guard::new(registry.verifier().audience("orders").build()?);
    let server = HttpServer::new(move || App::new().app_data(guard.clone()).route("/", web::get().to(hello)))
        .workers(2)
        .bind(args.next().unwrap_or("127.0.0.1:3000".into()))?;
    println!("listening on {}", server.addrs()[0]);
    Ok(server.run().await?)
}
