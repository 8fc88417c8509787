//! A Keycloak realm, with a file of its keys for the time in which it cannot be asked:
//! `cargo run --example keycloak -- https://id.example.com/realms/acme keys.json`.

use std::time::Duration;

use jwks_cache::{Fallback, Registry, ServingSource, preset};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let realm = arguments.next().unwrap_or_else(|| "https://id.example.com/realms/acme".into());
    let mut registration = preset::keycloak("acme", "keycloak", &realm)?;
    // Only while Keycloak fails and none of its keys may be served any more.
    registration.fallbacks = arguments.next().map(Fallback::file).into_iter().collect();
    registration.stale_while_error = Duration::from_secs(24 * 3600);

    let registry = Registry::new();
    registry.register(registration).await?;
    match registry.resolve("acme", "keycloak", None).await {
        Ok(set) => {
            let status = registry.provider_status("acme", "keycloak").await?;
            let from = match status.serving {
                Some(ServingSource::Fallback { place, .. }) => place,
                _ => realm,
            };
            println!("{} keys from {from}", set.keys.len());
        }
        Err(error) => println!("no keys: {error}"),
    }
    Ok(())
}
