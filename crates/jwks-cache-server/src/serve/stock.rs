//! What the server has in stock: stores, registry and the providers of the file. It knows no sockets.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use jwks_cache::redis::cluster::ClusterClient;
use jwks_cache::redis::sentinel::{SentinelClient, SentinelServerType};
use jwks_cache::{Error, FileStore, IdentityProviderRegistration, RedisStore, Registry, RegistryBuilder};

use super::StartError;
use crate::config::{Config, Redis, RedisMode};
use crate::control;

/// How many providers are registered at once: each may wait for a store.
const AT_ONCE: usize = 256;

/// The registry, with its stores.
pub(super) fn registry(config: &Config) -> Result<Registry, StartError> {
    let mut builder = policies(config);
    if config.store.files {
        builder = builder.with_store(Arc::new(files(config)?));
    }
    if let Some(redis) = &config.store.redis {
        builder = builder.with_store(Arc::new(redis_store(redis)?));
    }
    let ring = config.signing_ring().map_err(|what| {
        StartError::new("store.signing_keys", what, "`openssl rand -hex 32` prints a secret")
    })?;
    if let Some(ring) = ring {
        builder = builder.snapshot_keys(ring);
    }
    Ok(builder.build())
}

/// What holds for every provider. How long expired keys are served is not among it: where a registration does not say, who
/// reads it fills it in, as only they can tell that from one that says the library's default.
fn policies(config: &Config) -> RegistryBuilder {
    let defaults = &config.defaults;
    Registry::builder()
        .require_https(defaults.require_https)
        .allowed_domains(defaults.allowed_domains.clone())
        .private_networks(defaults.private_networks.clone())
        .max_concurrent_fetches(defaults.max_concurrent_fetches)
        // A recorder would keep more memory for many providers than their keys take: `ops` renders them.
        .record_metrics(false)
}

/// A registry of the same rules that keeps nothing.
pub(crate) fn without_stores(config: &Config) -> Registry {
    policies(config).build()
}

fn files(config: &Config) -> Result<FileStore, StartError> {
    let Some(folder) = config.state_folder() else {
        let remedy = "set state_dir, or store.files = false to keep nothing";
        return Err(StartError::new("state_dir", "is not set, and neither is $HOME", remedy));
    };
    let store = FileStore::open(folder.join("snapshots")).map_err(|error| {
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
        let remedy =
            "name a folder that this process may write to, or set store.files = false to keep nothing";
        StartError::new("state_dir", format!("{error}{cause}"), remedy)
    })?;
    if !store.is_owner() {
        tracing::warn!(
            folder = %store.folder().display(),
            "another process writes snapshots there: this one only reads them"
        );
    }
    Ok(store)
}

fn redis_store(redis: &Redis) -> Result<RedisStore, StartError> {
    // What the client says of a URL may quote its password.
    let refused = |_| {
        let remedy =
            "write redis://user:password@host:6379/0, rediss:// for TLS, several separated by commas";
        StartError::new("store.redis.url", "is not the URL of a Redis", remedy)
    };
    let urls: Vec<&str> =
        redis.url.expose().split(',').map(str::trim).filter(|url| !url.is_empty()).collect();
    let store = match redis.mode {
        RedisMode::Single => {
            let [url] = urls[..] else {
                let what = "names several servers, or none, for the mode single";
                return Err(StartError::new(
                    "store.redis.url",
                    what,
                    "give one URL, or set store.redis.mode",
                ));
            };
            RedisStore::new(jwks_cache::redis::Client::open(url).map_err(refused)?)
        }
        RedisMode::Sentinel => {
            let client = SentinelClient::build(urls, redis.master.clone(), None, SentinelServerType::Master);
            RedisStore::sentinel(client.map_err(refused)?)
        }
        RedisMode::Cluster => RedisStore::cluster(ClusterClient::new(urls).map_err(refused)?),
    };
    Ok(store.namespace(redis.namespace.clone()))
}

/// Registers providers, many at once, each with what is denied of it.
pub(crate) async fn register_all<'a>(
    registry: &Registry,
    all: impl IntoIterator<Item = &'a IdentityProviderRegistration>,
    denied: impl Fn(&IdentityProviderRegistration) -> Vec<String>,
) -> Result<(), StartError> {
    let denied = &denied;
    let registering = all.into_iter().map(|registration| async move {
        let done = registry.register_denying(registration.clone(), denied(registration)).await;
        done.map_err(|error| refused(&registration.tenant_id, &registration.provider_id, &error))
    });
    // Collected, so that the futures borrow nothing whose lifetime a caller must name.
    let registering: Vec<_> = registering.collect();
    stream::iter(registering).buffer_unordered(AT_ONCE).try_collect().await
}

fn refused(tenant: &str, provider: &str, error: &Error) -> StartError {
    let (field, remedy) = match error {
        Error::Validation { field, .. } => (*field, "correct it"),
        _ => ("jwks_url", "correct the registration, or loosen [defaults]"),
    };
    StartError::new(format!("tenants.{tenant}.providers.{provider}.{field}"), error.to_string(), remedy)
}

/// Goes from one set of providers to another, or, where one is refused, nowhere. Who goes and was registered at run time
/// before is registered so again, with its keys where the source is the same. Returns how many changed.
pub(super) async fn exchange(
    control: &control::State,
    old: &Config,
    next: &Config,
) -> Result<usize, StartError> {
    let registry = control.registry();
    let name = |of: &IdentityProviderRegistration| (of.tenant_id.clone(), of.provider_id.clone());
    let before: HashMap<_, _> = old.registrations().map(|of| (name(of), of)).collect();
    let changed: Vec<_> = next.registrations().filter(|of| before.get(&name(of)) != Some(of)).collect();
    // First whether it would take them all.
    for of in &changed {
        registry.check(of).map_err(|error| refused(&of.tenant_id, &of.provider_id, &error))?;
    }
    register_all(registry, changed.iter().copied(), |of| control.denied(of)).await?;
    let gone = old.registrations().filter(|of| !next.registers(&of.tenant_id, &of.provider_id));
    let mut count = changed.len();
    for of in gone {
        count += 1;
        if let Some(before) = control.at_run_time(of)
            && registry.register_denying(before, control.denied(of)).await.is_ok()
        {
            continue;
        }
        registry
            .unregister(&of.tenant_id, &of.provider_id)
            .await
            .map_err(|error| refused(&of.tenant_id, &of.provider_id, &error))?;
    }
    // Their first flights start now; nobody waits for them here.
    let names: Vec<_> = changed.iter().map(|of| (of.tenant_id.as_str(), of.provider_id.as_str())).collect();
    let _ = registry.warm_up_only(&names, Duration::ZERO).await;
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redis_that_cannot_be_meant_is_told_without_its_password() {
        for (mode, url, good) in [
            (RedisMode::Single, "redis://:hunter2@localhost/", true),
            (RedisMode::Single, "http://:hunter2@localhost/", false),
            (RedisMode::Single, "redis://a/,redis://b/", false),
            (RedisMode::Single, "", false),
            (RedisMode::Sentinel, "redis://a:26379/, redis://b:26379/", true),
            (RedisMode::Sentinel, "hunter2", false),
            (RedisMode::Cluster, "redis://a:7000/,redis://b:7000/", true),
            (RedisMode::Cluster, "hunter2", false),
        ] {
            let redis =
                Redis { url: url.into(), mode, master: "mymaster".into(), namespace: "jwks-cache".into() };
            match redis_store(&redis) {
                Ok(_) => assert!(good, "{mode:?} {url}"),
                Err(StartError { field, what, remedy }) => {
                    assert!(!good && field == "store.redis.url", "{mode:?} {url}: {what}");
                    assert!(!format!("{what}{remedy}").contains("hunter2"));
                }
            }
        }
    }
}
