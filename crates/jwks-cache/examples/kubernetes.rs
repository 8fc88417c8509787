//! The service accounts of the cluster that this runs in; outside of a pod it says what is missing.

use std::time::Duration;

use jwks_cache::{Registry, preset};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let registry = Registry::new();
    let mut registration = preset::kubernetes("cluster", "service-accounts")?;
    registration.issuer = std::env::args().nth(1).or(registration.issuer);
    registry.register(registration).await?;
    for provider in registry.warm_up(Duration::from_secs(5)).await.providers {
        match provider.last_error {
            None => println!("{} is ready", provider.provider_id),
            Some(why) => println!("{} is not ready: {why}", provider.provider_id),
        }
    }
    Ok(())
}
