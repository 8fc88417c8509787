//! Keys in real stores: Redis alone, with TLS and an ACL user, under sentinels, as a cluster; Valkey; and everything
//! that may happen to them while lookups go on.
#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

mod servers;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use jwks_cache::redis::cluster::ClusterClient;
use jwks_cache::redis::sentinel::{SentinelClient, SentinelServerType};
use jwks_cache::store::{SnapshotStore, StoreErrorKind};
use jwks_cache::{
    Algorithm, Error, FileStore, IdentityProviderRegistration, KeyRing, PersistentSnapshot, RedisStore,
    Registry, RegistryBuilder, What,
};
use jwks_cache_testkit::tls::Authority;
use jwks_cache_testkit::{IdentityProvider, store_conformance};
use serde_json::{Value, json};
use servers::{Cable, Cluster, Line, Server, until};
use tokio::time::{Instant, sleep, timeout};

const TENANT: &str = "acme";
const PROVIDER: &str = "main";
const KEY: &str = "jwks-cache:acme:main";

fn now() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "tests may use tokio's time")]
    Instant::now()
}

fn registration(idp: &IdentityProvider) -> IdentityProviderRegistration {
    let mut registration = IdentityProviderRegistration::new(TENANT, PROVIDER, idp.jwks_url()).unwrap();
    registration.retry_policy.max_retries = 0;
    registration
}

fn registry(build: impl FnOnce(RegistryBuilder) -> RegistryBuilder) -> Registry {
    build(Registry::builder().require_https(false)).build()
}

async fn stored(registry: &Registry, outcome: &str) -> f64 {
    let status = registry.provider_status(TENANT, PROVIDER).await.unwrap();
    let is_it = |metric: &&jwks_cache::StatusMetric| {
        metric.name == "jwks_cache_store_operations_total"
            && metric.labels.get("outcome").map(String::as_str) == Some(outcome)
    };
    status.metrics.iter().find(is_it).map_or(0.0, |metric| metric.value)
}

/// Waits until the stores have had so many good saves.
async fn saved(registry: &Registry, least: f64) {
    let waiting = async {
        while stored(registry, "saved").await < least {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(20), waiting).await.expect("nothing is saved");
}

/// A process with keys, which the store has too.
async fn with_keys(
    idp: &IdentityProvider,
    build: impl FnOnce(RegistryBuilder) -> RegistryBuilder,
) -> Registry {
    let registry = registry(build);
    registry.register(registration(idp)).await.unwrap();
    registry.resolve(TENANT, PROVIDER, None).await.unwrap();
    saved(&registry, 1.0).await;
    registry
}

/// Fetches, a second after the last time.
async fn refresh(registry: &Registry) {
    timeout(Duration::from_secs(5), registry.refresh_and_wait(TENANT, PROVIDER)).await.unwrap().unwrap();
}

/// Lookups that go on meanwhile.
struct Lookups {
    done: Arc<AtomicU64>,
    failed: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<()>,
}

impl Lookups {
    fn start(registry: &Registry) -> Self {
        let (done, failed, over) = <(Arc<AtomicU64>, Arc<AtomicU64>, Arc<AtomicBool>)>::default();
        let counts = (registry.clone(), done.clone(), failed.clone(), over.clone());
        let task = tokio::spawn(async move {
            let (registry, done, failed, over) = counts;
            while !over.load(Relaxed) {
                let looked = timeout(
                    Duration::from_millis(100),
                    registry.key(TENANT, PROVIDER, Some("k1"), Algorithm::ES256),
                );
                if !matches!(looked.await, Ok(Ok(_))) {
                    failed.fetch_add(1, Relaxed);
                }
                done.fetch_add(1, Relaxed);
                sleep(Duration::from_millis(1)).await;
            }
        });
        Self { done, failed, over, task }
    }

    /// How many there were; none of them failed.
    async fn stop(self) -> u64 {
        self.over.store(true, Relaxed);
        self.task.await.unwrap();
        let (done, failed) = (self.done.load(Relaxed), self.failed.load(Relaxed));
        assert!(done > 0 && failed == 0, "{failed} of {done} lookups failed");
        done
    }
}

/// The store keeps its duties, and the keys of one process serve the next while the provider is down.
async fn outlives(make: impl Fn() -> RedisStore) {
    // What it owes is not how fast the machine is: the limit of a command has tests of its own below.
    let patient = make().command_limit(Duration::from_secs(10));
    timeout(Duration::from_secs(60), store_conformance(Arc::new(patient))).await.unwrap();
    let make = || Arc::new(make());
    let idp = IdentityProvider::start();
    let first = with_keys(&idp, |it| it.with_store(make())).await;
    first.shutdown().await;
    drop(first);
    idp.go_down();
    let second = registry(|it| it.with_store(make()));
    let began = now();
    second.register(registration(&idp)).await.unwrap();
    second.key(TENANT, PROVIDER, Some("k1"), Algorithm::ES256).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_alone() {
    let server = Server::redis(&[]);
    outlives(|| RedisStore::new(server.client())).await;
    // Under the promised name, with the promised names in it, for as long as it may be served.
    let text: String = server.ask(&["GET", KEY]);
    let snapshot: PersistentSnapshot = serde_json::from_str(&text).unwrap();
    assert_eq!((&*snapshot.tenant_id, &*snapshot.provider_id), (TENANT, PROVIDER));
    let left: i64 = server.ask(&["TTL", KEY]);
    let lasts = (snapshot.expires_at - snapshot.persisted_at).num_seconds() + 60;
    assert!((lasts - 10..=lasts).contains(&left), "{left} of {lasts} s");
}

#[tokio::test(flavor = "multi_thread")]
async fn valkey_alike() {
    let server = Server::valkey();
    outlives(|| RedisStore::new(server.client())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_with_tls_and_an_acl_user() {
    let authority = Authority::new("redis");
    let (server, client) = Server::with_tls(&authority);
    outlives(|| RedisStore::new(client.clone())).await;
    // Beyond its keys the user may nothing, and that is an error like others.
    let elsewhere = RedisStore::new(client).namespace("elsewhere");
    let key = jwks_cache::store::SnapshotKey {
        tenant: TENANT.into(),
        provider: PROVIDER.into(),
        kind: jwks_cache::store::SnapshotKind::Keys,
    };
    assert_eq!(elsewhere.load(&key, 100).await.unwrap_err().kind(), StoreErrorKind::Refused);
    // Who trusts another authority does not speak to it, though it is up, and serves all the same.
    let idp = IdentityProvider::start();
    let stranger = server.client_that_trusts(&Authority::new("other"));
    let refused = RedisStore::new(stranger.clone()).load(&key, 100).await.unwrap_err();
    assert_eq!(refused.kind(), StoreErrorKind::Unavailable, "{refused}");
    let ours = RedisStore::new(server.client_that_trusts(&authority));
    assert!(ours.load(&key, 1 << 20).await.unwrap().is_some());
    let registry = registry(|it| it.with_redis_client(stranger));
    registry.register(registration(&idp)).await.unwrap();
    registry.resolve(TENANT, PROVIDER, None).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn sentinels_with_a_failover_in_the_middle() {
    let mut master = Server::redis(&["--repl-diskless-sync-delay", "0"]);
    let port = master.port.to_string();
    let replica = Server::redis(&["--replicaof", "127.0.0.1", &port]);
    until("the replica", || {
        replica.ask::<String>(&["INFO", "replication"]).contains("master_link_status:up")
    });
    let sentinels: Vec<Server> = (0..3).map(|_| Server::sentinel(master.port, 2)).collect();
    for sentinel in &sentinels {
        until("the sentinels", || {
            let all: String =
                format!("{:?}", sentinel.ask::<jwks_cache::redis::Value>(&["SENTINEL", "MASTER", "keys"]));
            all.contains("num-other-sentinels") && {
                let others: Vec<jwks_cache::redis::Value> = sentinel.ask(&["SENTINEL", "SENTINELS", "keys"]);
                let replicas: Vec<jwks_cache::redis::Value> = sentinel.ask(&["SENTINEL", "REPLICAS", "keys"]);
                others.len() == 2 && replicas.len() == 1
            }
        });
    }
    let urls: Vec<String> = sentinels.iter().map(Server::url).collect();
    let make = || {
        let client = SentinelClient::build(urls.clone(), "keys", None, SentinelServerType::Master).unwrap();
        RedisStore::sentinel(client)
    };
    outlives(make).await;
    let make = || Arc::new(make());

    let idp = IdentityProvider::start();
    let registry = with_keys(&idp, |it| it.with_store(make())).await;
    let lookups = Lookups::start(&registry);
    master.kill();
    refresh(&registry).await;
    until("the failover", || replica.ask::<String>(&["INFO", "replication"]).contains("role:master"));
    let failed_over = now();
    let before = stored(&registry, "saved").await;
    saved(&registry, before.max(2.0)).await;
    println!(
        "sentinels: saved {:?} after the failover, {} lookups",
        failed_over.elapsed(),
        lookups.stop().await
    );
    assert!(replica.ask::<String>(&["GET", KEY]).contains("\"order\""));
    assert!(failed_over.elapsed() < Duration::from_secs(10));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_with_a_slot_moved() {
    let cluster = Cluster::start();
    let make = || RedisStore::cluster(ClusterClient::new(cluster.urls()).unwrap());
    outlives(make).await;
    let make = || Arc::new(make());
    let idp = IdentityProvider::start();
    let registry = with_keys(&idp, |it| it.with_store(make())).await;
    let lookups = Lookups::start(&registry);
    let before = cluster.owner(KEY);
    let moved: String = cluster.0[before].ask(&["GET", KEY]);
    cluster.move_slot_of(KEY);
    let after = cluster.owner(KEY);
    assert_ne!(before, after);
    refresh(&registry).await;
    saved(&registry, 2.0).await;
    let lookups = lookups.stop().await;
    println!("cluster: the slot moved from node {before} to {after}, {lookups} lookups");
    let text: String = cluster.0[after].ask(&["GET", KEY]);
    let persisted_at = serde_json::from_str::<PersistentSnapshot>(&text).unwrap().persisted_at;
    let order = |text: &str| serde_json::from_str::<Value>(text).unwrap()["order"].as_u64().unwrap();
    drop(registry);
    idp.go_down();
    let next = crate::registry(|it| it.with_store(make()));
    next.register(registration(&idp)).await.unwrap();
    next.resolve(TENANT, PROVIDER, None).await.unwrap();
    assert!(order(&text) > order(&moved), "what was moved is not what was saved there since");
    let status = next.provider_status(TENANT, PROVIDER).await.unwrap();
    let apart = (status.last_refresh.unwrap() - persisted_at).num_milliseconds().abs();
    assert!(apart < 1_000, "the next process has what was saved last: {apart} ms apart");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_of_which_one_node_answers_nobody() {
    let mut cluster = Cluster::start();
    // It is asked first, and what is stored is not its.
    let owner = cluster.owner(KEY);
    cluster.0.swap(0, (owner + 1) % 3);
    let make = || -> Arc<dyn SnapshotStore> {
        Arc::new(RedisStore::cluster(ClusterClient::new(cluster.urls()).unwrap()))
    };
    let idp = IdentityProvider::start();
    let before = with_keys(&idp, |it| it.with_store(make())).await;
    cluster.0[0].pause();
    refresh(&before).await;
    saved(&before, 2.0).await;
    drop(before);
    idp.go_down();
    let began = now();
    let next = registry(|it| it.with_store(make()));
    next.register(registration(&idp)).await.unwrap();
    while next.resolve(TENANT, PROVIDER, None).await.is_err() {
        assert!(began.elapsed() < Duration::from_secs(2), "nothing is loaded");
        sleep(Duration::from_millis(10)).await;
    }
    println!("cluster: with a node that answers nobody, loaded after {:.0?}", began.elapsed());
    idp.come_back();
    refresh(&next).await;
    saved(&next, 1.0).await;
    cluster.0[0].resume();
}

// What may happen to one server while lookups go on.

type Seen = Pin<Box<dyn Future<Output = String>>>;
type Fault = fn() -> Seen;

#[test]
fn no_fault_of_redis_costs_a_lookup_or_brings_a_foreign_key() {
    let rows: &[(&str, Fault)] = &[
        ("redis-down", || Box::pin(down())),
        ("redis-slow", || Box::pin(slow())),
        ("redis-partition", || Box::pin(partition())),
        ("redis-evicted", || Box::pin(evicted())),
        ("redis-flushall", || Box::pin(flushall())),
        ("redis-failover-old", || Box::pin(failover_old())),
        ("redis-poisoned", || Box::pin(poisoned())),
        ("redis-cross-key-replay", || Box::pin(cross_key_replay())),
        ("redis-wrongtype", || Box::pin(wrongtype())),
        ("redis-huge", || Box::pin(huge())),
        ("redis-readonly", || Box::pin(readonly())),
        ("redis-proto-garbage", || Box::pin(garbage())),
        ("killed", || Box::pin(killed())),
        ("paused", || Box::pin(paused())),
        ("out of memory", || Box::pin(out_of_memory())),
        ("cut", || Box::pin(cut())),
    ];
    for (id, row) in rows {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        println!("{id:24} {}", runtime.block_on(row()));
    }
}

/// A registry over a line to a server, holding keys that the server has.
struct Site {
    server: Server,
    line: Line,
    idp: IdentityProvider,
    registry: Registry,
}

impl Site {
    async fn new() -> Self {
        let server = Server::redis(&[]);
        let line = Line::to(server.port).await;
        let idp = IdentityProvider::start();
        let client = line.client();
        let registry = with_keys(&idp, |it| it.with_redis_client(client)).await;
        Self { server, line, idp, registry }
    }

    /// Something happens; nothing fails meanwhile, and flights fly. When it is over, the newest is stored within 10 s.
    async fn goes_wrong(&mut self, wrong: impl FnOnce(&mut Self), right: impl FnOnce(&mut Self)) -> String {
        let lookups = Lookups::start(&self.registry);
        wrong(self);
        refresh(&self.registry).await;
        // Somebody registers meanwhile.
        let began = now();
        let mut other = registration(&self.idp);
        other.provider_id = "other".into();
        self.registry.register(other).await.unwrap();
        let took = began.elapsed();
        assert!(took < Duration::from_millis(400), "registering took {took:?}");
        refresh(&self.registry).await;
        sleep(Duration::from_millis(600)).await;
        let failed = stored(&self.registry, "failed").await;
        let before = stored(&self.registry, "saved").await;
        right(self);
        let began = now();
        saved(&self.registry, before.max(1.0) + 1.0).await;
        let caught_up = began.elapsed();
        assert!(caught_up < Duration::from_secs(10), "{caught_up:?}");
        let lookups = lookups.stop().await;
        format!(
            "0 of {lookups} lookups failed, {failed} calls did; registered in {took:.0?}, stored again {caught_up:.0?} after"
        )
    }

    fn put(&self, text: &str) {
        self.server.ask::<String>(&["SET", KEY, text]);
    }

    fn kept(&self) -> String {
        self.server.ask(&["GET", KEY])
    }

    /// Whether a process without a provider takes what is there, and what it tells.
    async fn taken(&self, ring: Option<KeyRing>) -> (Option<Vec<String>>, Vec<String>) {
        let client = self.server.client();
        let next = registry(|it| {
            let it = it.with_redis_client(client);
            match ring {
                Some(ring) => it.snapshot_keys(ring),
                None => it,
            }
        });
        let mut events = next.subscribe();
        self.idp.go_down();
        next.register(registration(&self.idp)).await.unwrap();
        let set = next.resolve(TENANT, PROVIDER, None).await.ok();
        self.idp.come_back();
        let told = std::iter::from_fn(|| events.try_next()).filter_map(|event| match event.what {
            What::SnapshotRefused { reason } => Some(reason.to_string()),
            _ => None,
        });
        let kids = |set: Arc<jwks_cache::JwkSet>| {
            set.keys.iter().filter_map(|key| key.common.key_id.clone()).collect()
        };
        (set.map(kids), told.collect())
    }
}

async fn down() -> String {
    // From the start: registering and the first lookup do not wait for it.
    let idp = IdentityProvider::start();
    let nobody =
        jwks_cache::redis::Client::open(format!("redis://127.0.0.1:{}", servers::free_port())).unwrap();
    let registry = registry(|it| it.with_redis_client(nobody));
    let began = now();
    registry.register(registration(&idp)).await.unwrap();
    registry.resolve(TENANT, PROVIDER, None).await.unwrap();
    let took = began.elapsed();
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert!(matches!(registry.persist_all().await, Err(Error::Store(_))));
    format!("served {took:.0?} after the start")
}

async fn killed() -> String {
    Site::new().await.goes_wrong(|it| it.server.kill(), |it| it.server.restart()).await
}

async fn paused() -> String {
    Site::new().await.goes_wrong(|it| it.server.pause(), |it| it.server.resume()).await
}

async fn slow() -> String {
    let late = Cable::Slow(Duration::from_secs(5));
    Site::new().await.goes_wrong(|it| it.line.set(late), |it| it.line.set(Cable::Works)).await
}

async fn cut() -> String {
    Site::new().await.goes_wrong(|it| it.line.set(Cable::Cut), |it| it.line.set(Cable::Works)).await
}

async fn garbage() -> String {
    Site::new().await.goes_wrong(|it| it.line.set(Cable::Garbage), |it| it.line.set(Cable::Works)).await
}

async fn out_of_memory() -> String {
    let most = |size: &'static str| move |it: &mut Site| it.server.ask(&["CONFIG", "SET", "maxmemory", size]);
    Site::new().await.goes_wrong(most("1"), most("0")).await
}

async fn readonly() -> String {
    let follow = |of: [&'static str; 2]| move |it: &mut Site| it.server.ask(&["REPLICAOF", of[0], of[1]]);
    Site::new().await.goes_wrong(follow(["127.0.0.1", "1"]), follow(["NO", "ONE"])).await
}

async fn partition() -> String {
    // Two replicas of one provider and one server, each cut off from it; each goes on by itself.
    let site = Site::new().await;
    let line = Line::to(site.server.port).await;
    let client = line.client();
    let other = with_keys(&site.idp, |it| it.with_redis_client(client)).await;
    let lookups = [Lookups::start(&site.registry), Lookups::start(&other)];
    site.line.set(Cable::Cut);
    line.set(Cable::Cut);
    for (registry, id) in [(&site.registry, "denied by one"), (&other, "denied by two")] {
        refresh(registry).await;
        registry.deny_key(TENANT, PROVIDER, id).await.unwrap();
    }
    sleep(Duration::from_millis(600)).await;
    site.line.set(Cable::Works);
    line.set(Cable::Works);
    // Joined again, what each said is there.
    let denials = format!("{KEY}#denials");
    until("the denials of both", || {
        let text: Option<String> = site.server.ask(&["GET", &denials]);
        text.is_some_and(|text| text.contains("denied by one") && text.contains("denied by two"))
    });
    let [one, two] = lookups;
    let looked_up = one.stop().await + two.stop().await;
    format!(
        "each of two replicas refreshed by itself, 0 of {looked_up} lookups failed; what both denied was kept"
    )
}

async fn evicted() -> String {
    let site = Site::new().await;
    site.server.ask::<u32>(&["DEL", KEY]);
    let client = site.server.client();
    let next = with_keys(&site.idp, |it| it.with_redis_client(client)).await;
    assert_eq!(stored(&next, "absent").await, 2.0);
    assert!(site.kept().contains("\"k1\"") || site.kept().contains("k1"));
    "the next process fetches, and stores it again".to_owned()
}

async fn flushall() -> String {
    let site = Site::new().await;
    let lookups = Lookups::start(&site.registry);
    site.server.ask::<String>(&["FLUSHALL"]);
    refresh(&site.registry).await;
    saved(&site.registry, 2.0).await;
    assert!(site.kept().contains("k1"));
    format!("written again by the next refresh; 0 of {} lookups failed", lookups.stop().await)
}

async fn failover_old() -> String {
    let site = Site::new().await;
    let old = site.kept();
    site.idp.rotate();
    refresh(&site.registry).await;
    saved(&site.registry, 2.0).await;
    site.put(&old);
    site.registry.restore_from_persistence().await.unwrap();
    site.registry.key(TENANT, PROVIDER, Some("k2"), Algorithm::ES256).await.unwrap();
    site.registry.persist_all().await.unwrap();
    let newest = site.kept();
    assert!(newest.contains("k2"));
    // And the other way round: a process that held the older one cannot put it back.
    let mut newer: Value = serde_json::from_str(&newest).unwrap();
    newer["order"] = json!(newer["order"].as_u64().unwrap() + 1_000_000);
    site.put(&newer.to_string());
    site.registry.persist_all().await.unwrap();
    assert_eq!(site.kept(), newer.to_string());
    "the older one is neither taken nor kept".to_owned()
}

fn ring() -> KeyRing {
    KeyRing::new([b"0123456789abcdef0123456789abcdef"]).unwrap()
}

/// A site whose snapshots are signed.
async fn signed() -> Site {
    let site = Site::new().await;
    let client = site.server.client();
    let signing = with_keys(&site.idp, |it| it.with_redis_client(client).snapshot_keys(ring())).await;
    signing.shutdown().await;
    assert!(site.kept().contains("\"mac\""));
    site
}

async fn poisoned() -> String {
    let site = signed().await;
    assert_eq!(site.taken(Some(ring())).await, (Some(vec!["k1".to_owned()]), vec![]));
    // The genuine tag, times and source, and an evil key.
    let genuine: Value = serde_json::from_str(&site.kept()).unwrap();
    assert!(genuine["etag"].is_string());
    let evil = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"evil","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
    let mut foreign = 0;
    for spoil in [
        json!({"jwks_json": evil}),
        json!({"jwks_json": evil, "mac": null}),
        json!({"retiring": [{"jwk": evil, "left_at": genuine["persisted_at"], "last_held_at": genuine["persisted_at"]}]}),
        json!({"expires_at": "2999-01-01T00:00:00Z"}),
        json!({"order": 1}),
        json!({"denials": {"k1": {"at": 1, "denied": true}}}),
    ] {
        let mut poisoned = genuine.clone();
        poisoned.as_object_mut().unwrap().extend(spoil.as_object().unwrap().clone());
        site.put(&poisoned.to_string());
        let (kids, told) = site.taken(Some(ring())).await;
        foreign += usize::from(kids.is_some());
        assert!(told.len() == 1 && told[0].contains("mac"), "{told:?}");
    }
    assert_eq!(foreign, 0);
    // Without a ring the key is believed until the first fetch, which does not send the tag.
    site.put(&{
        let mut poisoned = genuine.clone();
        poisoned["jwks_json"] = json!(evil);
        poisoned.to_string()
    });
    let client = site.server.client();
    let unsigned = registry(|it| it.with_redis_client(client));
    // It would retire like one that was published, for `removal_grace`.
    let strict = IdentityProviderRegistration { removal_grace: Duration::ZERO, ..registration(&site.idp) };
    unsigned.register(strict).await.unwrap();
    let before = site.idp.origin().requests("/jwks.json").len();
    refresh(&unsigned).await;
    unsigned.key(TENANT, PROVIDER, Some("evil"), Algorithm::EdDSA).await.unwrap_err();
    let requests = site.idp.origin().requests("/jwks.json");
    assert_eq!(requests[before].header("if-none-match"), None);
    "6 forgeries: 0 foreign keys with a ring, each told; without one the first fetch, unconditional, ends it"
        .to_owned()
}

async fn cross_key_replay() -> String {
    let site = signed().await;
    let mut other = registration(&site.idp);
    other.tenant_id = "other".into();
    let as_it_is = site.kept();
    let renamed = as_it_is.replace("\"acme\"", "\"other\"");
    for text in [as_it_is, renamed] {
        site.server.ask::<String>(&["SET", "jwks-cache:other:main", &text]);
        let client = site.server.client();
        let next = registry(|it| it.with_redis_client(client).snapshot_keys(ring()));
        let mut events = next.subscribe();
        site.idp.go_down();
        next.register(other.clone()).await.unwrap();
        next.resolve("other", PROVIDER, None).await.unwrap_err();
        site.idp.come_back();
        assert!(
            std::iter::from_fn(|| events.try_next())
                .any(|it| matches!(it.what, What::SnapshotRefused { .. }))
        );
    }
    "a code holds for one tenant and provider".to_owned()
}

async fn wrongtype() -> String {
    let site = Site::new().await;
    site.server.ask::<u32>(&["DEL", KEY]);
    site.server.ask::<u32>(&["RPUSH", KEY, "not", "a", "snapshot"]);
    let (kids, _) = site.taken(None).await;
    assert_eq!(kids, None);
    refresh(&site.registry).await;
    saved(&site.registry, 2.0).await;
    assert!(site.kept().contains("k1"));
    "ignored, and replaced by the next save".to_owned()
}

async fn huge() -> String {
    let site = Site::new().await;
    site.server.ask::<u64>(&["SETRANGE", KEY, &(100 << 20).to_string(), "x"]);
    let out = || {
        let stats: String = site.server.ask(&["INFO", "stats"]);
        let line =
            stats.lines().find_map(|line| line.strip_prefix("total_net_output_bytes:").map(str::to_owned));
        line.unwrap().parse::<u64>().unwrap()
    };
    let before = out();
    let (kids, _) = site.taken(None).await;
    let read = out() - before;
    assert!(kids.is_none() && read < 8 << 20, "{read} bytes were read");
    refresh(&site.registry).await;
    saved(&site.registry, 2.0).await;
    assert!(site.kept().contains("k1"));
    format!("{} MiB of 100 were read; replaced by the next save", read >> 20)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_for_restarts_and_redis_for_sharing_stack() {
    let server = Server::redis(&[]);
    let folder = std::env::temp_dir().join(format!("jwks-cache-stack-{}", std::process::id()));
    let idp = IdentityProvider::start();
    let client = server.client();
    let files = Arc::new(FileStore::open(&folder).unwrap());
    let first = with_keys(&idp, |it| it.with_store(files).with_redis_client(client)).await;
    saved(&first, 2.0).await;
    first.shutdown().await;
    drop(first);
    idp.go_down();
    // Redis is gone: the file serves. The file is gone: Redis does.
    let files = Arc::new(FileStore::open(&folder).unwrap());
    let nobody =
        jwks_cache::redis::Client::open(format!("redis://127.0.0.1:{}", servers::free_port())).unwrap();
    let second = registry(|it| it.with_store(files).with_redis_client(nobody));
    second.register(registration(&idp)).await.unwrap();
    second.resolve(TENANT, PROVIDER, None).await.unwrap();
    drop(second);
    std::fs::remove_dir_all(&folder).unwrap();
    let client = server.client();
    let files = Arc::new(FileStore::open(&folder).unwrap());
    let third = registry(|it| it.with_store(files).with_redis_client(client));
    third.register(registration(&idp)).await.unwrap();
    third.resolve(TENANT, PROVIDER, None).await.unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
}

/// Providers that a folder is to bring back within a second.
const MANY: usize = 10_000;

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_files_load_in_a_second() {
    let folder = std::env::temp_dir().join(format!("jwks-cache-many-{}", std::process::id()));
    let idp = IdentityProvider::start();
    let store = || Arc::new(FileStore::open(&folder).unwrap());
    let with = |n: usize| IdentityProviderRegistration { provider_id: format!("p{n}"), ..registration(&idp) };
    let donor = registry(|it| it.with_store(store()));
    donor.register(with(0)).await.unwrap();
    donor.resolve(TENANT, "p0", None).await.unwrap();
    donor.shutdown().await;
    // One snapshot, for each of many under its own name.
    drop(donor);
    let files = store();
    until("the folder", || files.is_owner());
    let key = |n: usize| jwks_cache::store::SnapshotKey {
        tenant: TENANT.into(),
        provider: format!("p{n}"),
        kind: jwks_cache::store::SnapshotKind::Keys,
    };
    let model = String::from_utf8(files.load(&key(0), 1 << 20).await.unwrap().unwrap()).unwrap();
    for n in 1..MANY {
        let bytes = model.replace("\"p0\"", &format!("\"p{n}\"")).into_bytes();
        let entry = jwks_cache::store::SnapshotEntry {
            bytes,
            order: 1,
            newest: u64::MAX,
            keep_for: None,
            instead_of: None,
        };
        assert!(files.save(&key(n), &entry).await.unwrap());
    }
    drop(files);
    idp.go_down();
    let began = now();
    let next = registry(|it| it.with_store(store()));
    for n in 0..MANY {
        next.register(with(n)).await.unwrap();
    }
    let took = began.elapsed();
    let mut served = 0;
    for n in 0..MANY {
        served += usize::from(next.resolve(TENANT, &format!("p{n}"), None).await.is_ok());
    }
    println!("{served} of {MANY} were registered and loaded one after another in {took:.2?}");
    assert_eq!(served, MANY);
    std::fs::remove_dir_all(&folder).unwrap();
}
