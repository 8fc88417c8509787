//! Run `jwks-cache demo --serve` beside it, or give it an issuer and an address: `-- [ISSUER [ADDRESS]]`
use axum::{Router, routing::get};
use jwks_cache::{Claims, Guard, IdentityProviderRegistration, Registry, StandardClaims};

async fn hello(user: Claims<StandardClaims>) -> String {
    format!("hello {}\n", user.sub.as_deref().unwrap_or("stranger"))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let issuer = args.next().unwrap_or("http://127.0.0.1:4000".into()); // the demo's
    let registry = Registry::builder().require_https(false).build(); // which speaks http: yours does not
    let mut provider = IdentityProviderRegistration::new("acme", "main", format!("{issuer}/jwks.json"))?;
    (provider.issuer, provider.require_https) = (Some(issuer), false);
    registry.register(provider).await?;

    let guard = Guard::new(registry.verifier().audience("orders").build()?);
    let app = Router::new().route("/", get(hello)).with_state(guard);
    let address = args.next().unwrap_or("127.0.0.1:3000".into());
    let listener = tokio::net::TcpListener::bind(address).await?;
    println!("listening on {}", listener.local_addr()?);
    Ok(axum::serve(listener, app).await?)
}
