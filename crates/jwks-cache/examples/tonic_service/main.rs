//! A gRPC service behind the layer. Run `jwks-cache demo --serve` beside it, or give it another provider's issuer.
//!
//! `cargo run --example tonic_service --features tonic -- [ISSUER [ADDRESS]]`

#[allow(dead_code, reason = "the side of a client is in it too")]
mod greeter;

use jwks_cache::{Guard, IdentityProviderRegistration, Registry, StandardClaims, Verified};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

fn greet(request: Request<String>) -> Result<Response<String>, Status> {
    let user = request.extensions().get::<Verified<StandardClaims>>();
    let user = user.ok_or_else(|| Status::internal("there is no layer"))?;
    let subject = user.sub.as_deref().unwrap_or("stranger");
    Ok(Response::new(format!("{} {subject}", request.get_ref())))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let issuer = args.next().unwrap_or("http://127.0.0.1:4000".into());
    let registry = Registry::builder().require_https(false).build(); // the demo's provider is on loopback
    let mut provider = IdentityProviderRegistration::new("acme", "main", format!("{issuer}/jwks.json"))?;
    (provider.issuer, provider.require_https) = (Some(issuer), false);
    registry.register(provider).await?;

    let guard = Guard::new(registry.verifier().audience("orders").build()?);
    let incoming = TcpIncoming::bind(args.next().unwrap_or("127.0.0.1:3000".into()).parse()?)?;
    println!("listening on {}", incoming.local_addr()?);
    Server::builder()
        .layer(guard.grpc_layer::<StandardClaims>())
        .add_service(greeter::Greeter(greet))
        .serve_with_incoming(incoming)
        .await?;
    Ok(())
}
