//! Tokens of any organisation of Microsoft Entra ID: `cargo run --example entra -- <kid>` needs the network.

use jwks_cache::{Algorithm, Registry, preset};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let registry = Registry::new();
    registry.register(preset::entra("acme", "entra", "organizations")?).await?;
    let set = registry.resolve("acme", "entra", None).await?;
    println!("{} keys", set.keys.len());
    if let Some(kid) = std::env::args().nth(1) {
        let key = registry.key("acme", "entra", Some(&kid), Algorithm::RS256).await?;
        println!("{kid} verifies {}", key.algorithm());
    }
    Ok(())
}
