//! Keys outlive the process: what goes to stores, what comes back, and what stores cannot do, whatever becomes of them.
//! Policy time stands until a test moves it; two processes go by one clock.
#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

mod stage;

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use jwks_cache::store::{
    SnapshotEntry, SnapshotKey, SnapshotKind, SnapshotStore, StoreError, StoreErrorKind, Storing,
};
use jwks_cache::{
    Clock, Error, Fallback, FileStore, IdentityProviderRegistration, KeyFormat, KeyRing, KeySource,
    PersistentSnapshot, RefreshMode, Registry, RegistryBuilder, What,
};
use jwks_cache_testkit::{ManualClock, MemoryStore};
use serde_json::{Value, json};
use stage::scripted::{Answer, Script, Stage, body, events, jwk, keys, registration};
use stage::socket::{document, is_validation};
use stage::{PROVIDER, TENANT, kids, millis, secs, settle, soon, took};

const HOUR: u64 = 3_600;

/// A process: a registry without a provider yet, whose source cannot be reached.
fn process(clock: &ManualClock, build: impl FnOnce(RegistryBuilder) -> RegistryBuilder) -> Stage {
    let source = Script::new(clock);
    let builder = Registry::builder().clock(Arc::new(clock.clone())).fetcher(source.clone());
    Stage { clock: clock.clone(), source, registry: build(builder).build() }
}

fn with_store(clock: &ManualClock, store: &MemoryStore) -> Stage {
    process(clock, |builder| builder.with_store(Arc::new(store.clone())))
}

fn with_ring(clock: &ManualClock, store: &MemoryStore, secrets: &[u8]) -> Stage {
    let ring = ring(secrets);
    process(clock, |builder| builder.with_store(Arc::new(store.clone())).snapshot_keys(ring))
}

fn ring(secrets: &[u8]) -> KeyRing {
    KeyRing::new(secrets.iter().map(|secret| [*secret; 32])).unwrap()
}

impl Stage {
    async fn register(&self, change: impl FnOnce(&mut IdentityProviderRegistration)) {
        let mut registration = registration(TENANT, PROVIDER, "idp.test");
        change(&mut registration);
        self.registry.register(registration).await.unwrap();
    }

    /// Registered, and holding what its source has, which the stores have too.
    async fn with_keys(self, answer: Answer) -> Self {
        self.register(|_| {}).await;
        self.fetch(answer).await;
        self
    }

    async fn fetch(&self, answer: Answer) {
        self.adopt(answer).await;
        settle().await;
    }

    async fn stored(&self, outcome: &str) -> f64 {
        let labelled = |metric: &&jwks_cache::StatusMetric| {
            metric.name == "jwks_cache_store_operations_total"
                && metric.labels.get("outcome").map(String::as_str) == Some(outcome)
        };
        self.status().await.metrics.iter().find(labelled).map_or(0.0, |metric| metric.value)
    }

    async fn kids(&self) -> Vec<String> {
        soon(self.resolve()).await.map(|set| kids(&set)).unwrap_or_default()
    }
}

fn name(kind: SnapshotKind) -> SnapshotKey {
    SnapshotKey { tenant: TENANT.into(), provider: PROVIDER.into(), kind }
}

/// What the store has of the provider's keys.
fn kept(store: &MemoryStore) -> Value {
    serde_json::from_slice(&store.look(&name(SnapshotKind::Keys)).expect("nothing is kept")).unwrap()
}

fn change(store: &MemoryStore, act: impl FnOnce(&mut Value)) {
    let mut value = kept(store);
    act(&mut value);
    store.put(&name(SnapshotKind::Keys), value.to_string());
}

fn refused(stage: &mut jwks_cache::Subscription) -> Vec<String> {
    let reason = |what| match what {
        What::SnapshotRefused { reason } => Some(reason.to_string()),
        _ => None,
    };
    events(stage).into_iter().filter_map(reason).collect()
}

fn good() -> Answer {
    keys(&[("a", 1), ("b", 2)], "max-age=300")
}

// What goes out and comes back.

#[tokio::test(start_paused = true)]
async fn the_next_process_serves_at_once_what_the_last_one_held_though_the_provider_is_down() {
    let (clock, store) = (ManualClock::new(), MemoryStore::new());
    let first = with_store(&clock, &store).with_keys(good()).await;
    assert_eq!(first.stored("saved").await, 1.0);
    drop(first);
    clock.advance(secs(100));
    let second = with_store(&clock, &store);
    second.source.set(Answer::Hang);
    second.register(|_| {}).await;
    assert_eq!(second.kids().await, ["a", "b"]);
    assert_eq!(second.stored("loaded").await, 1.0);
    let status = second.status().await;
    assert_eq!((status.expires_at.unwrap() - clock.wall()).num_seconds(), 200, "no lifetime is gained");
    second.key("a").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_of_23_hours_serves_within_a_second_through_an_outage() {
    let (clock, store) = (ManualClock::new(), MemoryStore::new());
    let day = |it: &mut IdentityProviderRegistration| it.stale_while_error = secs(24 * HOUR);
    let first = with_store(&clock, &store);
    first.register(day).await;
    first.fetch(good()).await;
    drop(first);
    clock.advance(secs(23 * HOUR));
    for answer in [Answer::Refused, Answer::Hang] {
        let second = with_store(&clock, &store);
        second.source.set(answer);
        second.register(day).await;
        let (time, kids) = took(second.kids()).await;
        assert!(kids == ["a", "b"] && time <= secs(1), "{kids:?} after {time:?}");
    }
    clock.advance(secs(2 * HOUR));
    let late = with_store(&clock, &store);
    late.register(day).await;
    assert!(late.kids().await.is_empty(), "past the window");
}

#[tokio::test(start_paused = true)]
async fn each_change_of_set_or_lifetime_is_saved_and_nothing_else() {
    let (clock, store) = (ManualClock::new(), MemoryStore::new());
    let stage = with_store(&clock, &store).with_keys(good()).await;
    let order = kept(&store)["order"].as_u64().unwrap();
    stage.fetch(keys(&[("c", 3)], "max-age=300")).await;
    assert!(kept(&store)["jwks_json"].as_str().unwrap().contains("\"c\""));
    assert!(kept(&store)["order"].as_u64().unwrap() > order);
    let expires = kept(&store)["expires_at"].clone();
    stage
        .fetch(Answer::Head(200, vec![("etag", "\"e\"".into())], json!({"keys": [jwk("c", 3)]}).to_string()))
        .await;
    stage.fetch(Answer::Head(304, vec![("cache-control", "max-age=900".into())], String::new())).await;
    assert_ne!(kept(&store)["expires_at"], expires, "a 304 renews the lifetime");
    let saves = store.calls().saves;
    stage.source.set(Answer::Refused);
    let _ = stage.pass(1).refresh_and_wait().await;
    for _ in 0..10 {
        stage.kids().await;
    }
    settle().await;
    assert_eq!(store.calls().saves, saves, "failures and reads save nothing");
}

#[tokio::test(start_paused = true)]
async fn what_is_stored_reads_as_the_promised_snapshot_and_the_promised_names_alone_are_read() {
    let (clock, store) = (ManualClock::new(), MemoryStore::new());
    drop(with_store(&clock, &store).with_keys(good()).await);
    let bytes = store.look(&name(SnapshotKind::Keys)).unwrap();
    let promised: PersistentSnapshot = serde_json::from_slice(&bytes).unwrap();
    assert_eq!((&*promised.tenant_id, promised.persisted_at), (TENANT, clock.wall()));
    assert_eq!((promised.expires_at - promised.persisted_at).num_seconds(), 300);

    store.put(&name(SnapshotKind::Keys), serde_json::to_vec(&promised).unwrap());
    let second = with_store(&clock, &store);
    second.register(|_| {}).await;
    assert_eq!(second.kids().await, ["a", "b"]);
}

#[tokio::test(start_paused = true)]
async fn a_retiring_key_is_honoured_after_a_restart_until_its_grace_ends() {
    let (clock, store) = (ManualClock::new(), MemoryStore::new());
    let first = with_store(&clock, &store).with_keys(good()).await;
    first.fetch(keys(&[("a", 1)], "max-age=3000")).await;
    drop(first);
    clock.advance(secs(590));
    let second = with_store(&clock, &store);
    second.register(|_| {}).await;
    assert_eq!(second.kids().await, ["a"]);
    second.key("b").await.unwrap();
    clock.advance(secs(20));
    second.source.set(Answer::Refused);
    second.key("b").await.unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn of_several_stores_the_newest_snapshot_is_taken_whichever_answers_first() {
    let (clock, old, new) = (ManualClock::new(), MemoryStore::new(), MemoryStore::new());
    drop(with_store(&clock, &old).with_keys(good()).await);
    drop(with_store(&clock, &new).with_keys(keys(&[("new", 3)], "max-age=300")).await);
    for slow in [&old, &new] {
        old.work();
        new.work();
        slow.slow_down(millis(100));
        let stores = [old.clone(), new.clone()];
        let stage =
            process(&clock, |it| stores.into_iter().fold(it, |it, store| it.with_store(Arc::new(store))));
        stage.register(|_| {}).await;
        assert_eq!(stage.kids().await, ["new"]);
    }
}

#[tokio::test(start_paused = true)]
async fn files_bring_keys_and_denials_to_the_next_process() {
    let folder = stage::Folder::new();
    let clock = ManualClock::new();
    let on_files = || {
        let store = FileStore::open(folder.path()).unwrap();
        process(&clock, |builder| builder.with_store(Arc::new(store)))
    };
    let first = on_files().with_keys(good()).await;
    first.registry.deny_key(TENANT, PROVIDER, "a").await.unwrap();
    first.registry.shutdown().await;
    drop(first);
    let second = on_files();
    second.register(|_| {}).await;
    // Loading uses threads, and paused time runs ahead of them.
    second.registry.restore_from_persistence().await.unwrap();
    assert_eq!(second.kids().await, ["b"]);
}

// What is refused.

#[tokio::test(start_paused = true)]
async fn a_snapshot_that_is_not_to_be_believed_is_refused_counted_and_told() {
    type Spoil = fn(&mut Value);
    let table: [(&str, Spoil); 9] = [
        ("source", |it| it["source"] = json!("another")),
        ("format", |it| it["format"] = json!(2)),
        ("tenant_id", |it| it["tenant_id"] = json!("other")),
        ("provider_id", |it| it["provider_id"] = json!("other")),
        ("persisted_at", |it| {
            (it["persisted_at"], it["expires_at"]) =
                (json!("2026-01-01T00:02:00Z"), json!("2026-01-01T01:00:00Z"));
        }),
        ("expires_at", |it| it["persisted_at"] = json!("2020-01-01T00:00:00Z")),
        ("jwks_json", |it| it["jwks_json"] = json!("<html>")),
        ("etag", |it| it["etag"] = json!("é")),
        ("JSON", |it| *it = json!([1])),
    ];
    for (why, spoil) in table {
        let (clock, store) = (ManualClock::new(), MemoryStore::new());
        drop(with_store(&clock, &store).with_keys(good()).await);
        change(&store, spoil);
        let stage = with_store(&clock, &store);
        let mut told = stage.registry.subscribe();
        stage.register(|_| {}).await;
        let told = refused(&mut told);
        assert!(told.len() == 1 && told[0].contains(why), "{why}: {told:?}");
        assert_eq!(stage.stored("refused").await, 1.0, "{why}");
        assert!(stage.kids().await.is_empty(), "{why}");
    }
}

#[tokio::test(start_paused = true)]
async fn another_source_never_sees_the_snapshot_of_the_old_one() {
    let (clock, store) = (ManualClock::new(), MemoryStore::new());
    let first = with_store(&clock, &store).with_keys(good()).await;
    let elsewhere = |it: &mut IdentityProviderRegistration| {
        it.jwks_url = "https://elsewhere.test/jwks.json".parse().unwrap();
    };
    let before = store.everything();
    first.source.set(Answer::Refused);
    first.register(elsewhere).await;
    settle().await;
    assert!(store.look(&name(SnapshotKind::Keys)).is_none(), "it is removed");
    // Even where it comes back, without a word of where it is from.
    for (key, bytes) in before {
        let mut value: Value = serde_json::from_slice(&bytes).unwrap();
        value.as_object_mut().unwrap().remove("source");
        store.put(&key, value.to_string());
    }
    is_validation(first.registry.restore_from_persistence().await, "persisted_at");
    assert!(first.kids().await.is_empty());
}

type Change<'a> = &'a dyn Fn(&mut IdentityProviderRegistration);

/// What another process of the same settings takes from the store, and what it refuses.
async fn restored(
    clock: &ManualClock,
    store: &MemoryStore,
    of: IdentityProviderRegistration,
) -> (Vec<String>, Vec<String>) {
    let next = with_store(clock, store);
    let mut told = next.registry.subscribe();
    next.registry.register(of).await.unwrap();
    (next.kids().await, refused(&mut told))
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_is_of_one_kind_and_place_of_source_one_format_and_one_issuer() {
    let (clock, store) = (ManualClock::new(), MemoryStore::new());
    let of = |change: Change<'_>| {
        let mut of = registration(TENANT, PROVIDER, "idp.test");
        of.issuer = Some("https://idp.test/{tenantid}".into());
        change(&mut of);
        of
    };
    let first = with_store(&clock, &store);
    first.registry.register(of(&|_| {})).await.unwrap();
    first.fetch(good()).await;
    drop(first);
    let nowhere = || "none:".parse().unwrap();
    let others: [(&str, Change<'_>); 6] = [
        ("place", &|it| it.jwks_url = "https://idp.test/other".parse().unwrap()),
        ("kind", &|it| {
            it.source = KeySource::DiscoveryAt(std::mem::replace(&mut it.jwks_url, nowhere()).into());
        }),
        ("format", &|it| it.format = KeyFormat::X509Map),
        ("kid", &|it| it.format = KeyFormat::Pem { kid: "a".into() }),
        ("issuer", &|it| it.issuer = None),
        ("template", &|it| it.issuer_template = true),
    ];
    for (what, change) in others {
        let (kids, refused) = restored(&clock, &store, of(change)).await;
        assert!(kids.is_empty(), "another {what}: {kids:?}");
        assert!(refused.len() == 1 && refused[0].contains("another source"), "another {what}: {refused:?}");
    }
    let (kids, refused) = restored(&clock, &store, of(&|it| it.min_rsa_bits = 3072)).await;
    assert_eq!((kids, refused), (vec!["a".into(), "b".into()], vec![]));
}

#[tokio::test(start_paused = true)]
async fn an_issuers_keys_outlive_the_process_and_are_no_other_issuers() {
    let (clock, store) = (ManualClock::new(), MemoryStore::new());
    let of = |issuer: &str| {
        let mut of = IdentityProviderRegistration::from_issuer(TENANT, PROVIDER, issuer).unwrap();
        of.allowed_domains = vec!["idp.test".into(), "keys.test".into()];
        of
    };
    let first = with_store(&clock, &store);
    let metadata = json!({"issuer": "https://idp.test", "jwks_uri": "https://keys.test/jwks"}).to_string();
    first.source.set_at("idp.test", body(metadata, "max-age=3600"));
    first.source.set_at("keys.test", good());
    first.registry.register(of("https://idp.test")).await.unwrap();
    assert_eq!(first.kids().await, ["a", "b"]);
    settle().await;
    drop(first);
    assert_eq!(restored(&clock, &store, of("https://idp.test")).await.0, ["a", "b"]);
    assert!(restored(&clock, &store, of("https://idp.test/")).await.0.is_empty());
}

#[tokio::test(start_paused = true)]
async fn keys_that_stay_under_another_issuer_are_stored_under_that() {
    let (clock, store) = (ManualClock::new(), MemoryStore::new());
    let stage = with_store(&clock, &store).with_keys(good()).await;
    let mut other = registration(TENANT, PROVIDER, "idp.test");
    other.issuer = Some("https://idp.test".into());
    stage.registry.register(other.clone()).await.unwrap();
    settle().await;
    drop(stage);
    assert_eq!(restored(&clock, &store, other).await.0, ["a", "b"]);
}

#[tokio::test(start_paused = true)]
async fn what_is_at_hand_is_neither_stored_nor_restored() {
    let (clock, store) = (ManualClock::new(), MemoryStore::new());
    let text = json!({"keys": [jwk("mine", 5)]}).to_string();
    let of = IdentityProviderRegistration::from_inline(TENANT, PROVIDER, text);
    let fetched = with_store(&clock, &store).with_keys(good()).await;
    drop(fetched);
    // It does not even say of which source it is.
    change(&store, |value| drop(value.as_object_mut().unwrap().remove("source")));
    let snapshot: PersistentSnapshot = serde_json::from_value(kept(&store)).unwrap();
    clock.advance(secs(1));
    let stage = with_store(&clock, &store);
    let mut told = stage.registry.subscribe();
    stage.registry.register(of.clone()).await.unwrap();
    assert!(refused(&mut told).iter().all(|why| why.contains("no snapshot")));
    assert_eq!(stage.kids().await, ["mine"]);
    store.remove(&name(SnapshotKind::Keys)).await.unwrap();
    stage.registry.persist_all().await.unwrap();
    settle().await;
    assert!(store.look(&name(SnapshotKind::Keys)).is_none());
    let cache = jwks_cache::CacheManager::new(of).unwrap();
    is_validation(cache.restore_snapshot(snapshot).await, "source");
    cache.resolve(None).await.unwrap();
    assert!(cache.persistent_snapshot().await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn what_a_fallback_serves_is_not_stored() {
    let (clock, store) = (ManualClock::new(), MemoryStore::new());
    let stage = with_store(&clock, &store);
    let text = json!({"keys": [jwk("spare", 5)]}).to_string();
    stage.register(|it| it.fallbacks = vec![Fallback::inline(text)]).await;
    stage.fetch(good()).await;
    let before = kept(&store);
    stage.source.set(Answer::Refused);
    stage.pass(301 + 61);
    assert_eq!(stage.kids().await, ["spare"]);
    stage.registry.deny_key(TENANT, PROVIDER, "unheard").await.unwrap();
    settle().await;
    stage.registry.persist_all().await.unwrap();
    settle().await;
    assert_eq!(kept(&store)["jwks_json"], before["jwks_json"]);
    // The source's own are, once it is back.
    stage.fetch(keys(&[("c", 3)], "max-age=300")).await;
    assert!(kept(&store)["jwks_json"].as_str().unwrap().contains(r#""c""#));
}

#[tokio::test(start_paused = true)]
async fn no_older_keys_come_back_where_a_fallback_serves_before_the_newest_were_stored() {
    let (clock, store) = (ManualClock::new(), MemoryStore::new());
    let stage = with_store(&clock, &store);
    let text = json!({"keys": [jwk("spare", 5)]}).to_string();
    stage.register(|it| it.fallbacks = vec![Fallback::inline(text)]).await;
    stage.fetch(keys(&[("a", 1)], "max-age=3600")).await;
    assert_eq!(stage.stored("saved").await, 1.0);
    store.fail(StoreErrorKind::Unavailable);
    clock.advance(secs(1));
    stage.fetch(keys(&[("b", 2)], "max-age=300")).await;
    stage.source.set(Answer::Refused);
    stage.pass(301 + 61);
    assert_eq!(stage.kids().await, ["spare"]);
    store.work();
    tokio::time::sleep(secs(10)).await;
    assert!(kept(&store)["jwks_json"].as_str().unwrap().contains(r#""b""#));
    let next = with_store(&clock, &store);
    next.register(|_| {}).await;
    assert!(next.kids().await.is_empty());
    // The source's next is what counts again.
    stage.fetch(keys(&[("c", 3)], "max-age=300")).await;
    stage.registry.persist_all().await.unwrap();
    assert!(kept(&store)["jwks_json"].as_str().unwrap().contains(r#""c""#));
}

#[tokio::test(start_paused = true)]
async fn keys_that_another_tenants_exchange_brought_are_stored_too() {
    let (clock, store) = (ManualClock::new(), MemoryStore::new());
    let stage = with_store(&clock, &store);
    stage.register(|_| {}).await;
    let of = registration(TENANT, PROVIDER, "idp.test");
    let other = IdentityProviderRegistration { tenant_id: "other".into(), ..of.clone() };
    stage.registry.register(other).await.unwrap();
    stage.source.set(good());
    soon(stage.registry.resolve("other", PROVIDER, None)).await.unwrap();
    assert_eq!(stage.kids().await, ["a", "b"]);
    assert_eq!(stage.source.asked(), 1);
    settle().await;
    drop(stage);
    assert_eq!(restored(&clock, &store, of).await.0, ["a", "b"]);
}

#[tokio::test(start_paused = true)]
async fn keys_fetched_under_looser_trust_are_not_brought_back() {
    let (clock, store) = (ManualClock::new(), MemoryStore::new());
    let stage = with_store(&clock, &store).with_keys(good()).await;
    let before = store.everything();
    stage.source.set(Answer::Refused);
    stage.register(|it| it.allowed_domains = vec!["idp.test".into()]).await;
    settle().await;
    assert!(store.look(&name(SnapshotKind::Keys)).is_none());
    before.iter().for_each(|(key, bytes)| store.put(key, bytes.clone()));
    is_validation(stage.registry.restore_from_persistence().await, "trust");
    // As what says less of itself, too.
    change(&store, |it| drop(it.as_object_mut().unwrap().remove("trust")));
    is_validation(stage.registry.restore_from_persistence().await, "persisted_at");
    assert!(stage.kids().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_was_to_be_removed_is_removed_though_nothing_new_is_written() {
    let (clock, store) = (ManualClock::new(), MemoryStore::new());
    let stage = with_store(&clock, &store).with_keys(good()).await;
    stage.source.set(Answer::Refused);
    store.fail(StoreErrorKind::Unavailable);
    stage.register(|it| it.allowed_domains = vec!["idp.test".into()]).await;
    settle().await;
    // It is to be written again, and there is nothing to write.
    stage.registry.deny_key(TENANT, PROVIDER, "b").await.unwrap();
    store.work();
    tokio::time::sleep(secs(10)).await;
    assert!(store.look(&name(SnapshotKind::Keys)).is_none());
    let next = with_store(&clock, &store);
    next.register(|_| {}).await;
    assert!(next.kids().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn no_older_keys_come_back_where_the_newest_are_refused_by_another_registration() {
    let (clock, store) = (ManualClock::new(), MemoryStore::new());
    let stage = with_store(&clock, &store).with_keys(good()).await;
    assert_eq!(stage.stored("saved").await, 1.0);
    let older = store.everything();
    store.fail(StoreErrorKind::Unavailable);
    clock.advance(secs(1));
    stage.fetch(keys(&[("b", 2), ("c", 3), ("d", 4)], "max-age=300")).await;
    stage.source.set(Answer::Refused);
    stage.register(|it| it.max_keys = 2).await;
    assert!(stage.kids().await.is_empty());
    store.work();
    tokio::time::sleep(secs(10)).await;
    // It has the newest, for whoever allows that.
    let next = with_store(&clock, &store);
    next.register(|it| it.max_keys = 2).await;
    assert!(next.kids().await.is_empty());
    let next = with_store(&clock, &store);
    next.register(|_| {}).await;
    assert_eq!(next.kids().await, ["b", "c", "d"]);
    // Nor does it come late.
    older.iter().for_each(|(key, bytes)| store.put(key, bytes.clone()));
    stage.registry.restore_from_persistence().await.unwrap();
    assert!(stage.kids().await.is_empty());
    stage.register(|_| {}).await;
    stage.registry.persist_all().await.unwrap();
    stage.registry.restore_from_persistence().await.unwrap();
    assert_eq!(stage.kids().await, ["b", "c", "d"]);
}

#[tokio::test(start_paused = true)]
async fn who_is_unregistered_while_all_is_persisted_is_not_written_back() {
    // How long saving takes that began before, and whose turn it was: its own, or that of others.
    for (saving, unregistered) in [(millis(300), "p00"), (millis(100), "p19")] {
        let (clock, store) = (ManualClock::new(), MemoryStore::new());
        let stage = with_store(&clock, &store);
        stage.source.set(good());
        let ids: Vec<String> = (0..20).map(|n| format!("p{n:02}")).collect();
        for id in &ids {
            stage.registry.register(registration(TENANT, id, "idp.test")).await.unwrap();
        }
        stage.registry.warm_up(secs(60)).await;
        settle().await;
        store.slow_down(saving);
        let registry = stage.registry.clone();
        let all = tokio::spawn(async move { registry.persist_all().await });
        tokio::time::sleep(millis(50)).await;
        store.slow_down(millis(10));
        stage.registry.unregister(TENANT, unregistered).await.unwrap();
        all.await.unwrap().unwrap();
        tokio::time::sleep(secs(1)).await;
        let left: Vec<_> = store.everything().into_iter().map(|(key, _)| key.provider).collect();
        assert_eq!(left.len(), 19, "{left:?}");
        assert!(!left.iter().any(|id| id == unregistered), "{left:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn to_the_letter_no_restart_gives_a_stale_window() {
    // what was said, whether it was obeyed to the letter when it was stored, and whether it is stale at the next process
    for (said, strict_before, served) in [
        ("max-age=300, must-revalidate", true, false),
        ("max-age=300, must-revalidate", false, false),
        ("max-age=300", true, true),
        ("max-age=300", false, true),
    ] {
        let (clock, store) = (ManualClock::new(), MemoryStore::new());
        let first = with_store(&clock, &store);
        first.register(|it| it.http_strict = strict_before).await;
        first.fetch(keys(&[("a", 1)], said)).await;
        drop(first);
        clock.advance(secs(310));
        let second = with_store(&clock, &store);
        second.register(|it| it.http_strict = true).await;
        assert_eq!(!second.kids().await.is_empty(), served, "{said}, strict before: {strict_before}");
        // Under settings that change meanwhile, too.
        let third = with_store(&clock, &store);
        third.register(|_| {}).await;
        assert_eq!(third.kids().await, ["a"]);
        third.register(|it| it.http_strict = true).await;
        assert_eq!(!third.kids().await.is_empty(), served, "{said}, strict before: {strict_before}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_response_allows_to_be_used_stale_it_allows_after_a_restart_too() {
    // what was said, the operator's window, when it is asked for, whether it is served then
    let said = "max-age=300, stale-if-error=86400";
    for (said, window, hours, served) in [
        ("max-age=300", 60, 1, false),
        (said, 60, 1, true),
        (said, 60, 24, true),
        (said, 60, 25, false),
        (said, 0, 1, false),
        (&format!("{said}, must-revalidate"), 60, 1, false),
        ("max-age=300, stale-if-error=8640000", 60, 47, true),
        // No longer than it is trusted.
        ("max-age=300, stale-if-error=8640000", 60, 49, false),
    ] {
        for http_strict in [false, true] {
            let (clock, store) = (ManualClock::new(), MemoryStore::new());
            let target = |it: &mut IdentityProviderRegistration| {
                (it.stale_while_error, it.http_strict) = (secs(window), http_strict);
            };
            let first = with_store(&clock, &store);
            first.register(target).await;
            first.fetch(keys(&[("a", 1)], said)).await;
            clock.advance(secs(hours * HOUR));
            for stage in [first, with_store(&clock, &store)] {
                stage.source.set(Answer::Refused);
                stage.register(target).await;
                assert_eq!(!stage.kids().await.is_empty(), served, "{said}, {window} s, after {hours} h");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn clocks_ten_years_apart_trust_nothing_expired_and_break_nothing() {
    let decade = TimeDelta::days(3_653);
    // when it was saved, when it is loaded, whether it may be served
    for (saved, loaded, served) in [
        (-1, 0, false),
        (0, -1, false),
        (1, 0, false),
        (0, 1, false),
        (0, 0, true),
        (1, 1, true),
        (-1, -1, true),
    ] {
        let (clock, store) = (ManualClock::new(), MemoryStore::new());
        let wall = clock.wall();
        clock.set_wall(wall + decade * saved);
        let first = with_store(&clock, &store).with_keys(good()).await;
        // It goes on saving after its clock was set.
        clock.set_wall(wall + decade * loaded);
        let second = with_store(&clock, &store);
        second.register(|_| {}).await;
        assert_eq!(!second.kids().await.is_empty(), served, "saved {saved}, loaded {loaded} decades away");
        // Whoever's clock was wrong, the next fetch is stored and taken.
        first.fetch(keys(&[("next", 3)], "max-age=300")).await;
        let third = with_store(&clock, &store);
        third.register(|_| {}).await;
        assert_eq!(third.kids().await, ["next"], "saved {saved}, loaded {loaded} decades away");
    }
    let (clock, store) = (ManualClock::new(), MemoryStore::new());
    drop(with_store(&clock, &store).with_keys(good()).await);
    for wall in [DateTime::<Utc>::MIN_UTC, DateTime::<Utc>::MAX_UTC] {
        clock.set_wall(wall);
        let stage = with_store(&clock, &store);
        stage.register(|_| {}).await;
        assert!(stage.kids().await.is_empty());
        stage.fetch(good()).await;
        stage.registry.deny_key(TENANT, PROVIDER, "a").await.unwrap();
        let _ = stage.registry.persist_all().await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_came_later_is_stored_though_the_wall_was_set_back_a_little() {
    // By so little that a store takes what it has for another machine's, whose clock is ahead.
    for restart in [false, true] {
        let (clock, store) = (ManualClock::new(), MemoryStore::new());
        let mut stage = with_store(&clock, &store).with_keys(good()).await;
        clock.set_wall(clock.wall() - TimeDelta::seconds(30));
        if restart {
            stage = with_store(&clock, &store);
            stage.register(|_| {}).await;
            assert_eq!(stage.kids().await, ["a", "b"]);
        }
        stage.fetch(keys(&[("next", 3)], "max-age=300")).await;
        let other = with_store(&clock, &store);
        other.register(|_| {}).await;
        assert_eq!(other.kids().await, ["next"], "after a restart: {restart}");
        // Nor does who still has what came before put that back, here or there.
        stage.fetch(keys(&[("last", 4)], "max-age=300")).await;
        other.registry.persist_all().await.unwrap();
        let third = with_store(&clock, &store);
        third.register(|_| {}).await;
        assert_eq!(third.kids().await, ["last"], "after a restart: {restart}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_older_snapshot_replaces_a_newer_one_neither_in_memory_nor_in_the_store() {
    let (clock, store) = (ManualClock::new(), MemoryStore::new());
    let old = with_store(&clock, &store).with_keys(good()).await;
    let rolled_back = store.everything();
    let new = with_store(&clock, &store).with_keys(keys(&[("new", 3)], "max-age=300")).await;

    old.registry.persist_all().await.unwrap();
    assert!(kept(&store)["jwks_json"].as_str().unwrap().contains("new"));
    assert_eq!(old.stored("superseded").await, 1.0);

    rolled_back.iter().for_each(|(key, bytes)| store.put(key, bytes.clone()));
    new.registry.restore_from_persistence().await.unwrap();
    assert_eq!(new.kids().await, ["new"]);
    // The next to save puts it right.
    new.registry.persist_all().await.unwrap();
    assert!(kept(&store)["jwks_json"].as_str().unwrap().contains("new"));
}

#[tokio::test(start_paused = true)]
async fn a_refresh_follows_soon_spread_over_the_providers() {
    let (clock, store) = (ManualClock::new(), MemoryStore::new());
    let spread = |it: &mut IdentityProviderRegistration| {
        (it.prefetch_jitter, it.refresh_mode) = (secs(60), RefreshMode::Always);
        it.stale_while_error = secs(HOUR);
    };
    let first = with_store(&clock, &store);
    first.source.set(keys(&[("a", 1)], "max-age=3000"));
    let ids: Vec<String> = (0..60).map(|n| format!("p{n}")).collect();
    let all = async |stage: &Stage| {
        for id in &ids {
            let mut registration = registration(TENANT, id, "idp.test");
            spread(&mut registration);
            stage.registry.register(registration).await.unwrap();
        }
    };
    all(&first).await;
    first.registry.warm_up(secs(60)).await;
    first.registry.shutdown().await;
    // Fresh, and expired while nobody was there.
    for away in [0, 3_010] {
        clock.advance(secs(away));
        let second = with_store(&clock, &store);
        second.source.set(keys(&[("a", 1)], "max-age=3000"));
        all(&second).await;
        let mut asked = vec![second.source.asked()];
        for _ in 0..6 {
            second.pass(10);
            settle().await;
            asked.push(second.source.asked());
        }
        let busiest = asked.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
        assert_eq!((asked[0], asked[6]), (0, 60), "all within a minute: {asked:?}");
        assert!(busiest <= 20, "{away} s away: {asked:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn keys_fetched_under_other_trust_are_refused_after_a_restart_and_under_the_same_are_not() {
    type Change = fn(&mut IdentityProviderRegistration);
    let domains: Change = |it| it.allowed_domains = vec!["idp.test".into(), "other.test".into()];
    let turned: Change = |it| it.allowed_domains = vec!["other.test".into(), "idp.test".into()];
    let narrower: Change = |it| it.allowed_domains = vec!["idp.test".into()];
    let quicker: Change = |it| it.refresh_early = secs(1);
    // under which settings it is stored and offered, whether it is taken
    let table: [(Change, Change, bool); 5] = [
        (|_| {}, |_| {}, true),
        (|_| {}, quicker, true),
        (domains, turned, true),
        (|_| {}, domains, false),
        (domains, narrower, false),
    ];
    for (n, (before, after, taken)) in table.into_iter().enumerate() {
        let (clock, store) = (ManualClock::new(), MemoryStore::new());
        let first = with_store(&clock, &store);
        first.register(before).await;
        first.fetch(good()).await;
        drop(first);
        let second = with_store(&clock, &store);
        let mut told = second.registry.subscribe();
        second.register(after).await;
        assert_eq!(!second.kids().await.is_empty(), taken, "row {n}");
        assert_eq!(refused(&mut told).iter().any(|why| why.contains("trust")), !taken, "row {n}");
    }
    // Who loosens while it runs has what it holds stored as that.
    let (clock, store) = (ManualClock::new(), MemoryStore::new());
    let first = with_store(&clock, &store);
    first.register(narrower).await;
    first.fetch(good()).await;
    first.register(|_| {}).await;
    settle().await;
    let second = with_store(&clock, &store);
    second.register(|_| {}).await;
    assert_eq!(second.kids().await, ["a", "b"]);
}

// Signed snapshots.

#[tokio::test(start_paused = true)]
async fn with_a_ring_only_what_one_of_its_secrets_signed_for_this_provider_is_taken() {
    let (clock, plain, signed) = (ManualClock::new(), MemoryStore::new(), MemoryStore::new());
    drop(with_store(&clock, &plain).with_keys(good()).await);
    drop(with_ring(&clock, &signed, &[1]).with_keys(good()).await);
    let key = name(SnapshotKind::Keys);
    let (unsigned, genuine) = (plain.look(&key).unwrap(), signed.look(&key).unwrap());
    let evil = |member: &str, value: Value| {
        let mut spoiled: Value = serde_json::from_slice(&genuine).unwrap();
        spoiled[member] = value;
        spoiled.to_string().into_bytes()
    };
    let check =
        async |secrets: &[u8], bytes: &[u8], change: fn(&mut IdentityProviderRegistration), taken: bool| {
            let store = MemoryStore::new();
            let stage = with_ring(&clock, &store, secrets);
            let mut target = registration(TENANT, PROVIDER, "idp.test");
            change(&mut target);
            let id = target.provider_id.clone();
            let tenant = target.tenant_id.clone();
            store.put(
                &SnapshotKey { tenant: tenant.clone(), provider: id.clone(), kind: SnapshotKind::Keys },
                bytes,
            );
            let mut told = stage.registry.subscribe();
            stage.registry.register(target).await.unwrap();
            let text = String::from_utf8_lossy(bytes).into_owned();
            assert_eq!(refused(&mut told).is_empty(), taken, "{text}");
            let found = stage.registry.resolve(&tenant, &id, None).await;
            assert_eq!(found.is_ok(), taken, "{text}");
        };
    check(&[1], &genuine, |_| {}, true).await;
    check(&[2, 1], &genuine, |_| {}, true).await;
    check(&[2], &genuine, |_| {}, false).await;
    check(&[1], &unsigned, |_| {}, false).await;
    // Each part of it counts.
    let evil_keys = json!({"keys": [jwk("evil", 9)]}).to_string();
    for (member, value) in [
        ("jwks_json", json!(evil_keys)),
        ("etag", json!("\"x\"")),
        ("last_modified", json!("2025-01-01T00:00:00Z")),
        ("expires_at", json!("2026-01-01T02:00:00Z")),
        ("persisted_at", json!("2026-01-01T00:00:00.5Z")),
        ("order", json!(1)),
        (
            "retiring",
            json!([{"jwk": jwk("evil", 9).to_string(), "left_at": "2026-01-01T00:00:00Z", "last_held_at": "2026-01-01T00:00:00Z"}]),
        ),
        ("denials", json!({"a": {"at": 1, "denied": true}})),
        ("stale_use", json!({"for": 1_000_000})),
        ("trust", Value::Null),
        ("mac", json!("")),
        ("mac", Value::Null),
        ("format", Value::Null),
    ] {
        check(&[1], &evil(member, value), |_| {}, false).await;
    }
    // Another provider's, another tenant's, another source's, though all that it says of itself fits.
    let renamed = |member: &str| evil(member, json!("other"));
    check(&[1], &renamed("provider_id"), |it| it.provider_id = "other".into(), false).await;
    check(&[1], &renamed("tenant_id"), |it| it.tenant_id = "other".into(), false).await;
    check(&[1], &genuine, |it| it.provider_id = "other".into(), false).await;
    check(&[1], &genuine, |it| it.jwks_url.set_path("/other.json"), false).await;
    // What is not understood counts for nothing, and harms nothing.
    check(&[1], &evil("another-member", json!(1)), |_| {}, true).await;
}

#[tokio::test(start_paused = true)]
async fn a_signed_snapshot_of_another_namespace_is_refused() {
    let (clock, store) = (ManualClock::new(), MemoryStore::new());
    let in_namespace = |namespace: &'static str| with_ring(&clock, &store.namespace(namespace), &[1]);
    drop(in_namespace("blue").with_keys(good()).await);
    for (namespace, taken) in [("green", false), ("blue", true)] {
        let stage = in_namespace(namespace);
        stage.register(|_| {}).await;
        assert_eq!(!stage.kids().await.is_empty(), taken, "{namespace}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_evil_key_with_the_genuine_tag_is_found_out_at_the_first_fetch() {
    let (clock, store) = (ManualClock::new(), MemoryStore::new());
    let tagged = |body: &str| Answer::Head(200, vec![("etag", "\"genuine\"".into())], body.to_owned());
    let genuine = json!({"keys": [jwk("a", 1)]}).to_string();
    drop(with_store(&clock, &store).with_keys(tagged(&genuine)).await);
    change(&store, |it| it["jwks_json"] = json!(json!({"keys": [jwk("evil", 9)]}).to_string()));

    let stage = with_store(&clock, &store);
    stage.register(|_| {}).await;
    // Without a ring it is believed; but the genuine tag is not sent, so the provider answers with its keys.
    assert_eq!(stage.kids().await, ["evil"]);
    stage.source.set(tagged(&genuine));
    stage.landed().await;
    stage.pass(1).refresh_and_wait().await.unwrap();
    let asked = stage.source.asked();
    assert!((0..asked).take(1).all(|n| stage.source.request(n).if_none_match.is_none()));
    assert_eq!(stage.kids().await, ["a"]);

    let ringed = with_ring(&clock, &store, &[1]);
    ringed.register(|_| {}).await;
    assert!(ringed.kids().await.is_empty(), "with a ring it is not believed at all");
}

#[tokio::test(start_paused = true)]
async fn validators_are_sent_only_where_the_snapshot_was_signed() {
    for signed in [false, true] {
        let (clock, store) = (ManualClock::new(), MemoryStore::new());
        let process = || if signed { with_ring(&clock, &store, &[1]) } else { with_store(&clock, &store) };
        let tagged =
            Answer::Head(200, vec![("etag", "\"e\"".into())], json!({"keys": [jwk("a", 1)]}).to_string());
        drop(process().with_keys(tagged).await);
        let second = process();
        second.register(|_| {}).await;
        second.source.set(good());
        second.pass(1).refresh_and_wait().await.unwrap();
        assert_eq!(second.source.request(0).if_none_match.is_some(), signed);
    }
}

// Denials.

#[tokio::test(start_paused = true)]
async fn a_denial_outlives_the_process_and_the_keys_and_can_be_lifted_there() {
    for secrets in [&[][..], &[1]] {
        let (clock, store) = (ManualClock::new(), MemoryStore::new());
        let process = || match secrets {
            [] => with_store(&clock, &store),
            secrets => with_ring(&clock, &store, secrets),
        };
        let first = process().with_keys(good()).await;
        first.registry.deny_key(TENANT, PROVIDER, "a").await.unwrap();
        settle().await;
        drop(first);
        // The snapshot has long expired; the denial has not, nor the material that stood under it.
        clock.advance(secs(100 * HOUR));
        let second = process();
        second.register(|_| {}).await;
        second.fetch(keys(&[("a", 1), ("b", 2), ("renamed", 1)], "max-age=300")).await;
        assert_eq!(second.kids().await, ["b"]);
        second.registry.allow_key(TENANT, PROVIDER, "a").await.unwrap();
        settle().await;
        let third = process();
        third.register(|_| {}).await;
        assert_eq!(third.kids().await, ["a", "b", "renamed"], "allowed again, for good");
    }
}

#[tokio::test(start_paused = true)]
async fn material_that_came_under_a_denied_kid_later_is_denied_in_the_next_process_too() {
    let (clock, store) = (ManualClock::new(), MemoryStore::new());
    let first = with_store(&clock, &store).with_keys(good()).await;
    first.registry.deny_key(TENANT, PROVIDER, "a").await.unwrap();
    first.fetch(keys(&[("a", 3), ("b", 2)], "max-age=300")).await;
    drop(first);
    // By the snapshot, and when that has expired by the denial's own record.
    for wait in [0, 100 * HOUR] {
        clock.advance(secs(wait));
        let second = with_store(&clock, &store);
        second.register(|_| {}).await;
        second.fetch(keys(&[("renamed", 3), ("again", 1), ("b", 2)], "max-age=300")).await;
        assert_eq!(second.kids().await, ["b"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_denial_is_forged_or_transplanted_into_no_store_with_a_ring() {
    let (clock, store) = (ManualClock::new(), MemoryStore::new());
    drop(with_ring(&clock, &store, &[1]).with_keys(good()).await);
    let denials = name(SnapshotKind::Denials);
    let forged = json!({"tenant_id": TENANT, "provider_id": PROVIDER, "format": 1, "order": 1,
        "denials": {"a": {"at": 1, "denied": true}}});
    store.put(&denials, forged.to_string());
    let stage = with_ring(&clock, &store, &[1]);
    let mut told = stage.registry.subscribe();
    stage.register(|_| {}).await;
    assert_eq!(stage.kids().await, ["a", "b"]);
    assert_eq!(refused(&mut told).len(), 1);
    // It is replaced by the first that is ours.
    stage.registry.deny_key(TENANT, PROVIDER, "b").await.unwrap();
    settle().await;
    let next = with_ring(&clock, &store, &[1]);
    next.register(|_| {}).await;
    assert_eq!(next.kids().await, ["a"]);
}

#[tokio::test(start_paused = true)]
async fn the_first_ring_takes_the_denials_of_before_and_neither_lifts_nor_keys() {
    let (clock, store) = (ManualClock::new(), MemoryStore::new());
    let ringed = |accepting: bool| {
        let ring = if accepting { ring(&[1]).accepting_unsigned_denials() } else { ring(&[1]) };
        process(&clock, |it| it.with_store(Arc::new(store.clone())).snapshot_keys(ring))
    };
    let plain = with_store(&clock, &store).with_keys(good()).await;
    plain.registry.deny_key(TENANT, PROVIDER, "a").await.unwrap();
    settle().await;
    // One restarts with a ring; the other goes on without, and denies something else.
    let first = ringed(true);
    first.source.set(Answer::Refused);
    first.register(|_| {}).await;
    assert!(first.kids().await.is_empty(), "an unsigned key is none");
    first.fetch(good()).await;
    assert_eq!(first.kids().await, ["b"]);
    plain.registry.deny_key(TENANT, PROVIDER, "b").await.unwrap();
    settle().await;
    first.fetch(good()).await;
    assert!(first.kids().await.is_empty());
    // Lifts that nobody signed count for nothing.
    plain.registry.allow_key(TENANT, PROVIDER, "a").await.unwrap();
    plain.registry.allow_key(TENANT, PROVIDER, "b").await.unwrap();
    settle().await;
    first.fetch(good()).await;
    assert!(first.kids().await.is_empty());
    drop(plain);
    // All of them have rings now; what was denied is signed.
    let strict = ringed(false);
    let mut told = strict.registry.subscribe();
    strict.register(|_| {}).await;
    strict.fetch(good()).await;
    assert_eq!((refused(&mut told), strict.kids().await), (vec![], vec![]));
    strict.registry.allow_key(TENANT, PROVIDER, "a").await.unwrap();
    settle().await;
    assert_eq!(strict.kids().await, ["a"], "it can be lifted by who signs");
    first.fetch(good()).await;
    assert_eq!(first.kids().await, ["a"]);
}

#[tokio::test(start_paused = true)]
async fn a_wrong_code_is_no_missing_one() {
    let (clock, store) = (ManualClock::new(), MemoryStore::new());
    let foreign = with_ring(&clock, &store, &[2]).with_keys(good()).await;
    foreign.registry.deny_key(TENANT, PROVIDER, "a").await.unwrap();
    settle().await;
    let ring = ring(&[1]).accepting_unsigned_denials();
    let stage = process(&clock, |it| it.with_store(Arc::new(store.clone())).snapshot_keys(ring));
    stage.register(|_| {}).await;
    stage.fetch(good()).await;
    assert_eq!(stage.kids().await, ["a", "b"]);
}

#[tokio::test(start_paused = true)]
async fn a_secret_that_is_changed_as_the_docs_say_loses_no_denial() {
    let (clock, store) = (ManualClock::new(), MemoryStore::new());
    let start = async |secrets: &[u8]| {
        let stage = with_ring(&clock, &store, secrets);
        stage.register(|_| {}).await;
        stage.fetch(good()).await;
        stage
    };
    let all: [&[u8]; 4] = [&[1], &[1, 2], &[2, 1], &[2]];
    let mut denied = Vec::new();
    for pair in all.windows(2) {
        // Of two replicas one has been restarted; each denies something, the older one last.
        let (before, after) = (start(pair[0]).await, start(pair[1]).await);
        for stage in [&before, &after, &before] {
            let id = format!("denied {}", denied.len());
            stage.registry.deny_key(TENANT, PROVIDER, &id).await.unwrap();
            settle().await;
            denied.push(id);
        }
        // The keys expire, and with them what stands beside them.
        store.remove(&name(SnapshotKind::Keys)).await.unwrap();
    }
    let kept = String::from_utf8(store.look(&name(SnapshotKind::Denials)).unwrap()).unwrap();
    assert!(denied.iter().all(|id| kept.contains(id)), "{kept}");
}

#[tokio::test(start_paused = true)]
async fn denials_of_two_processes_do_not_overwrite_each_other() {
    let (clock, store) = (ManualClock::new(), MemoryStore::new());
    let one = with_store(&clock, &store).with_keys(good()).await;
    let two = with_store(&clock, &store).with_keys(good()).await;
    one.registry.deny_key(TENANT, PROVIDER, "a").await.unwrap();
    settle().await;
    two.registry.deny_key(TENANT, PROVIDER, "b").await.unwrap();
    settle().await;
    let three = with_store(&clock, &store);
    three.register(|_| {}).await;
    assert!(three.kids().await.is_empty(), "both are denied");
}

#[tokio::test(start_paused = true)]
async fn a_denial_made_before_the_store_answers_loses_none_that_it_kept() {
    let (clock, store) = (ManualClock::new(), MemoryStore::new());
    let first = with_store(&clock, &store).with_keys(good()).await;
    first.registry.deny_key(TENANT, PROVIDER, "a").await.unwrap();
    settle().await;
    drop(first);
    store.hang();
    let second = with_store(&clock, &store);
    second.register(|_| {}).await;
    second.registry.deny_key(TENANT, PROVIDER, "b").await.unwrap();
    store.work();
    second.fetch(good()).await;
    tokio::time::sleep(secs(30)).await;
    assert!(second.kids().await.is_empty());
    let third = with_store(&clock, &store);
    third.register(|_| {}).await;
    assert!(third.kids().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_a_clock_that_was_ahead_lifted_undoes_no_later_denial() {
    let (clock, store) = (ManualClock::new(), MemoryStore::new());
    let wall = clock.wall();
    let ahead = with_store(&clock, &store).with_keys(good()).await;
    ahead.registry.deny_key(TENANT, PROVIDER, "a").await.unwrap();
    clock.set_wall(wall + TimeDelta::days(1));
    ahead.registry.allow_key(TENANT, PROVIDER, "a").await.unwrap();
    settle().await;
    drop(ahead);
    clock.set_wall(wall + TimeDelta::seconds(10));
    let stored = store.everything();
    let put_back = || stored.iter().for_each(|(key, bytes)| store.put(key, bytes.clone()));
    for loads_before_it_denies in [true, false] {
        let stage = with_store(&clock, &store);
        store.flush();
        if loads_before_it_denies {
            put_back();
        }
        stage.register(|_| {}).await;
        stage.fetch(good()).await;
        put_back();
        stage.registry.deny_key(TENANT, PROVIDER, "a").await.unwrap();
        settle().await;
        assert_eq!(stage.kids().await, ["b"]);
        put_back();
        stage.registry.restore_from_persistence().await.unwrap();
        stage.registry.persist_all().await.unwrap();
        assert_eq!(stage.kids().await, ["b"]);
    }
    let third = with_store(&clock, &store);
    third.register(|_| {}).await;
    third.fetch(good()).await;
    assert_eq!(third.kids().await, ["b"]);
}

#[tokio::test(start_paused = true)]
async fn denials_that_a_store_loses_are_written_again_within_one_refresh() {
    let (clock, store) = (ManualClock::new(), MemoryStore::new());
    let stage = with_store(&clock, &store).with_keys(good()).await;
    stage.registry.deny_key(TENANT, PROVIDER, "a").await.unwrap();
    settle().await;
    store.flush();
    stage.fetch(good()).await;
    assert!(store.look(&name(SnapshotKind::Denials)).is_some());
}

#[tokio::test(start_paused = true)]
async fn denials_made_at_once_are_both_kept() {
    let (clock, store) = (ManualClock::new(), MemoryStore::new());
    let one = with_store(&clock, &store).with_keys(good()).await;
    let two = with_store(&clock, &store).with_keys(good()).await;
    for round in 0..3 {
        // Both have loaded before one has saved.
        store.slow_down(millis(100));
        for (stage, id) in [(&one, format!("one {round}")), (&two, format!("two {round}"))] {
            stage.registry.deny_key(TENANT, PROVIDER, &id).await.unwrap();
        }
        tokio::time::sleep(secs(3)).await;
        let kept = store.look(&name(SnapshotKind::Denials)).unwrap();
        let kept = String::from_utf8(kept).unwrap();
        assert!(kept.contains(&format!("one {round}")) && kept.contains(&format!("two {round}")), "{kept}");
    }
}

#[tokio::test(start_paused = true)]
async fn denials_of_a_provider_that_allows_small_documents_come_back_too() {
    let (clock, store) = (ManualClock::new(), MemoryStore::new());
    let small = |it: &mut IdentityProviderRegistration| it.max_response_bytes = 16 << 10;
    let first = with_store(&clock, &store);
    first.register(small).await;
    first.fetch(good()).await;
    for n in 0..3_000 {
        first.registry.deny_key(TENANT, PROVIDER, &format!("{n:0>43}")).await.unwrap();
    }
    first.registry.deny_key(TENANT, PROVIDER, "a").await.unwrap();
    first.registry.shutdown().await;
    let second = with_store(&clock, &store);
    let mut told = second.registry.subscribe();
    second.register(small).await;
    assert_eq!((refused(&mut told), second.kids().await), (vec![], vec!["b".to_owned()]));
    second.fetch(good()).await;
    assert_eq!(second.kids().await, ["b"]);
}

#[tokio::test(start_paused = true)]
async fn what_no_store_could_keep_is_not_denied() {
    let stage = process(&ManualClock::new(), |it| it).with_keys(good()).await;
    let long = "x".repeat(100 << 10);
    for n in 0..10 {
        assert!(stage.registry.deny_key(TENANT, PROVIDER, &format!("{n}{long}")).await.unwrap());
    }
    is_validation(stage.registry.deny_key(TENANT, PROVIDER, &long).await, "id");
    assert!(stage.registry.deny_key(TENANT, PROVIDER, "a").await.unwrap(), "there is room for a short one");
    assert!(!stage.registry.deny_key(TENANT, PROVIDER, "a").await.unwrap());
    assert_eq!(stage.kids().await, ["b"]);
}

#[tokio::test(start_paused = true)]
async fn a_denial_said_again_by_who_has_not_seen_the_key_denies_its_material_still() {
    let (clock, store) = (ManualClock::new(), MemoryStore::new());
    let saw = with_store(&clock, &store).with_keys(good()).await;
    saw.registry.deny_key(TENANT, PROVIDER, "a").await.unwrap();
    settle().await;
    drop(saw);
    // The snapshot has expired, and the store was not to be reached when another denied the same, without a key.
    clock.advance(secs(100 * HOUR));
    store.fail(StoreErrorKind::Unavailable);
    let cold = with_store(&clock, &store);
    cold.register(|_| {}).await;
    cold.registry.deny_key(TENANT, PROVIDER, "a").await.unwrap();
    store.work();
    tokio::time::sleep(secs(10)).await;
    for stage in [cold, with_store(&clock, &store)] {
        stage.register(|_| {}).await;
        stage.fetch(keys(&[("renamed", 1), ("b", 2)], "max-age=300")).await;
        assert_eq!(stage.kids().await, ["b"]);
    }
}

#[tokio::test(start_paused = true)]
async fn denials_in_a_snapshot_of_another_name_count_for_nothing() {
    for member in ["tenant_id", "provider_id"] {
        let (clock, store) = (ManualClock::new(), MemoryStore::new());
        drop(with_store(&clock, &store).with_keys(good()).await);
        change(&store, |it| {
            it[member] = json!("other");
            it["denials"] = json!({"a": {"at": 1, "denied": true}});
        });
        let stage = with_store(&clock, &store);
        stage.register(|_| {}).await;
        stage.fetch(good()).await;
        assert_eq!(stage.kids().await, ["a", "b"], "{member}");
    }
}

// What a store can cost.

#[tokio::test(start_paused = true)]
async fn a_store_that_hangs_costs_one_registration_a_moment_and_no_lookup_anything() {
    let (clock, store) = (ManualClock::new(), MemoryStore::new());
    store.hang();
    let stage = with_store(&clock, &store);
    stage.source.set(good());
    let (time, ()) = took(stage.register(|_| {})).await;
    assert!(time <= millis(251), "{time:?}");
    let (time, ()) = took(async {
        for n in 0..100 {
            stage.registry.register(registration(TENANT, &format!("p{n}"), "idp.test")).await.unwrap();
        }
    })
    .await;
    assert!(time <= millis(1), "a store that is known to hang is waited for no more: {time:?}");
    let (time, kids) = took(stage.kids()).await;
    assert!(kids == ["a", "b"] && time <= millis(1), "{time:?}");
    let (time, ()) = took(async {
        stage.pass(1).refresh_and_wait().await.unwrap();
        stage.registry.deny_key(TENANT, PROVIDER, "a").await.unwrap();
        stage.registry.unregister(TENANT, "p1").await.unwrap();
    })
    .await;
    assert!(time <= millis(1), "{time:?}");
    let (time, outcome) = took(stage.registry.persist_all()).await;
    assert!(time <= secs(10), "{time:?}");
    assert!(matches!(outcome, Err(Error::Store(error)) if error.kind() == StoreErrorKind::Unavailable));
    let (time, ()) = took(stage.registry.shutdown()).await;
    assert!(time <= secs(10), "{time:?}");
    assert_eq!(stage.kids().await, ["b"], "what is held is served");
}

#[tokio::test(start_paused = true)]
async fn who_waits_has_the_keys_before_the_store_has() {
    let (clock, store) = (ManualClock::new(), MemoryStore::new());
    let stage = with_store(&clock, &store);
    stage.register(|_| {}).await;
    store.hang();
    stage.source.set(good());
    assert_eq!(stage.kids().await, ["a", "b"]);
    assert!(store.look(&name(SnapshotKind::Keys)).is_none());
}

#[tokio::test(start_paused = true)]
async fn a_slow_store_is_owed_the_newest_of_each_provider_and_no_more() {
    let (clock, store) = (ManualClock::new(), MemoryStore::new());
    let stage = with_store(&clock, &store).with_keys(good()).await;
    store.hang();
    for n in 0..50 {
        stage.fetch(keys(&[(&format!("k{n}"), 3)], "max-age=300")).await;
    }
    assert!(stage.metric("jwks_cache_store_lag_seconds").await >= 0.0);
    let before = store.calls().saves;
    store.work();
    tokio::time::sleep(secs(10)).await;
    assert!(store.calls().saves - before <= 2, "not each of the fifty");
    assert!(kept(&store)["jwks_json"].as_str().unwrap().contains("k49"));
    assert_eq!(stage.metric("jwks_cache_store_lag_seconds").await, 0.0);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_costs_a_count_and_a_lag_and_is_caught_up_within_ten_seconds() {
    for kind in [StoreErrorKind::Unavailable, StoreErrorKind::Refused, StoreErrorKind::InUse] {
        let (clock, store) = (ManualClock::new(), MemoryStore::new());
        let stage = with_store(&clock, &store);
        store.fail(kind);
        stage.register(|_| {}).await;
        stage.fetch(good()).await;
        tokio::time::sleep(secs(60)).await;
        assert_eq!(stage.kids().await, ["a", "b"]);
        assert!(stage.stored("failed").await >= 2.0, "{kind:?}");
        assert!((59.0..=62.0).contains(&stage.metric("jwks_cache_store_lag_seconds").await), "{kind:?}");
        assert!(store.calls().saves < 30, "it is not hammered: {:?}", store.calls());
        // What is denied lags too, where nothing else does.
        let other = with_store(&clock, &store);
        other.register(|_| {}).await;
        other.registry.deny_key(TENANT, PROVIDER, "c").await.unwrap();
        tokio::time::sleep(secs(60)).await;
        assert!((59.0..=62.0).contains(&other.metric("jwks_cache_store_lag_seconds").await), "{kind:?}");
        drop(other);
        store.work();
        tokio::time::sleep(secs(10)).await;
        assert!(store.look(&name(SnapshotKind::Keys)).is_some(), "{kind:?}");
        assert_eq!(stage.metric("jwks_cache_store_lag_seconds").await, 0.0);
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_store_loses_is_written_again_within_one_refresh() {
    let (clock, store) = (ManualClock::new(), MemoryStore::new());
    let stage = with_store(&clock, &store).with_keys(good()).await;
    store.flush();
    assert_eq!(stage.kids().await, ["a", "b"]);
    stage.fetch(good()).await;
    assert!(store.look(&name(SnapshotKind::Keys)).is_some());
}

#[tokio::test(start_paused = true)]
async fn keys_that_load_late_reach_those_who_wait_for_a_provider_that_hangs() {
    let (clock, store) = (ManualClock::new(), MemoryStore::new());
    drop(with_store(&clock, &store).with_keys(good()).await);
    let second = with_store(&clock, &store);
    second.source.set(Answer::Hang);
    store.slow_down(millis(400));
    let (time, ()) = took(second.register(|_| {})).await;
    assert!(time <= millis(251), "{time:?}");
    let (time, kids) = took(second.kids()).await;
    assert!(kids == ["a", "b"] && time <= millis(200), "{kids:?} after {time:?}");
}

#[tokio::test(start_paused = true)]
async fn what_could_not_be_loaded_is_loaded_when_the_store_works_again() {
    let (clock, store) = (ManualClock::new(), MemoryStore::new());
    drop(with_store(&clock, &store).with_keys(good()).await);
    store.fail(StoreErrorKind::Unavailable);
    let second = with_store(&clock, &store);
    second.register(|_| {}).await;
    assert!(second.kids().await.is_empty());
    store.work();
    tokio::time::sleep(secs(6)).await;
    assert_eq!(second.kids().await, ["a", "b"]);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_refuses_writes_still_gives_its_keys_at_once() {
    let (clock, store) = (ManualClock::new(), MemoryStore::new());
    drop(with_store(&clock, &store).with_keys(good()).await);
    let second = with_store(&clock, &store);
    second.source.set(good());
    store.refuse_writes();
    for n in 0..20 {
        second.registry.register(registration(TENANT, &format!("p{n}"), "idp.test")).await.unwrap();
    }
    second.registry.warm_up(secs(60)).await;
    tokio::time::sleep(secs(60)).await;
    second.source.set(Answer::Hang);
    second.register(|_| {}).await;
    let (time, kids) = took(second.kids()).await;
    assert!(kids == ["a", "b"] && time <= millis(1), "{kids:?} after {time:?}");
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_used_is_not_loaded_again_and_again() {
    for kind in [StoreErrorKind::Corrupt, StoreErrorKind::TooLarge] {
        let (clock, store) = (ManualClock::new(), MemoryStore::new());
        let stage = with_store(&clock, &store);
        store.fail(StoreErrorKind::Unavailable);
        // Its load is owed from now on.
        stage.register(|_| {}).await;
        let mut told = stage.registry.subscribe();
        store.fail(kind);
        let before = store.calls().loads;
        tokio::time::advance(secs(6)).await;
        settle().await;
        assert_eq!(store.calls().loads - before, 2, "{kind:?}: keys and denials once each");
        assert_eq!(refused(&mut told).len(), 2, "{kind:?}");
    }
}

/// A store of which one part fails: what belongs to `down`.
#[derive(Debug)]
struct Shards {
    all: MemoryStore,
    down: &'static str,
}

impl Shards {
    fn up(&self, key: &SnapshotKey) -> Result<(), StoreError> {
        let failed = || StoreError::new(StoreErrorKind::Unavailable, "its part is down");
        (key.provider != self.down).then_some(()).ok_or_else(failed)
    }
}

impl SnapshotStore for Shards {
    fn name(&self) -> &'static str {
        "shards"
    }

    fn load<'a>(&'a self, key: &'a SnapshotKey, most: u64) -> Storing<'a, Option<Vec<u8>>> {
        Box::pin(async move {
            self.up(key)?;
            self.all.load(key, most).await
        })
    }

    fn save<'a>(&'a self, key: &'a SnapshotKey, entry: &'a SnapshotEntry) -> Storing<'a, bool> {
        Box::pin(async move {
            self.up(key)?;
            self.all.save(key, entry).await
        })
    }

    fn remove<'a>(&'a self, key: &'a SnapshotKey) -> Storing<'a, ()> {
        Box::pin(async move {
            self.up(key)?;
            self.all.remove(key).await
        })
    }
}

#[tokio::test(start_paused = true)]
async fn shutdown_writes_what_is_owed_to_the_parts_that_work() {
    let (clock, all) = (ManualClock::new(), MemoryStore::new());
    let stage = process(&clock, |it| it.with_store(Arc::new(Shards { all: all.clone(), down: "p0" })));
    stage.source.set(good());
    for n in 0..5 {
        stage.registry.register(registration(TENANT, &format!("p{n}"), "idp.test")).await.unwrap();
    }
    all.fail(StoreErrorKind::Unavailable);
    stage.registry.warm_up(secs(60)).await;
    settle().await;
    all.work();
    let (time, ()) = took(stage.registry.shutdown()).await;
    assert_eq!(all.everything().len(), 4);
    assert!(time <= secs(3), "what failed again is not waited for: {time:?}");
}

#[tokio::test(start_paused = true)]
async fn shutdown_writes_a_denial_though_another_part_has_long_failed() {
    let (clock, all) = (ManualClock::new(), MemoryStore::new());
    let stage = process(&clock, |it| it.with_store(Arc::new(Shards { all: all.clone(), down: "p0" })));
    stage.source.set(good());
    for id in ["p0", "p1"] {
        stage.registry.register(registration(TENANT, id, "idp.test")).await.unwrap();
    }
    stage.registry.warm_up(secs(60)).await;
    tokio::time::sleep(secs(300)).await;
    stage.registry.deny_key(TENANT, "p0", "a").await.unwrap();
    stage.registry.deny_key(TENANT, "p1", "a").await.unwrap();
    let (time, ()) = took(stage.registry.shutdown()).await;
    let denials = |id: &str| SnapshotKey { provider: id.into(), ..name(SnapshotKind::Denials) };
    assert!(all.look(&denials("p1")).is_some() && all.look(&denials("p0")).is_none());
    assert!(time <= secs(3), "{time:?}");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_only_refuses_writes_is_left_alone_for_longer_each_time_and_holds_no_shutdown_up() {
    let (clock, store) = (ManualClock::new(), MemoryStore::new());
    let stage = with_store(&clock, &store).with_keys(good()).await;
    store.refuse_writes();
    // A record of denials is read before it is written, and reading works.
    stage.registry.deny_key(TENANT, PROVIDER, "a").await.unwrap();
    tokio::time::sleep(secs(60)).await;
    let before = store.calls().saves;
    tokio::time::sleep(secs(60)).await;
    let saves = store.calls().saves - before;
    assert!((10..=14).contains(&saves), "{saves} in a minute: one in 5 s");
    let (time, ()) = took(stage.registry.shutdown()).await;
    assert!(time <= secs(1), "{time:?}");
}

#[test]
fn what_a_runtime_owed_that_went_away_is_written_by_the_next() {
    let (clock, store) = (ManualClock::new(), MemoryStore::new());
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let first = runtime();
    let stage = first.block_on(async {
        let stage = with_store(&clock, &store).with_keys(good()).await;
        store.hang();
        stage.fetch(keys(&[("lost", 3)], "max-age=300")).await;
        stage
    });
    drop(first);
    store.work();
    runtime().block_on(async {
        soon(stage.registry.shutdown()).await;
        assert!(kept(&store)["jwks_json"].as_str().unwrap().contains("lost"));
    });
}

#[tokio::test(start_paused = true)]
async fn shutdown_writes_what_is_owed() {
    let (clock, store) = (ManualClock::new(), MemoryStore::new());
    let stage = with_store(&clock, &store);
    store.slow_down(millis(50));
    let ids: Vec<String> = (0..20).map(|n| format!("p{n}")).collect();
    stage.source.set(good());
    for id in &ids {
        stage.registry.register(registration(TENANT, id, "idp.test")).await.unwrap();
    }
    stage.registry.warm_up(secs(60)).await;
    stage.registry.shutdown().await;
    assert_eq!(store.everything().len(), 20);
}

// The drop-in calls.

#[tokio::test(start_paused = true)]
async fn all_is_persisted_and_restored_and_the_first_error_returned_though_one_stops_nothing() {
    let (clock, store) = (ManualClock::new(), MemoryStore::new());
    let ids = ["p1", "p2", "p3", "p4"];
    let register = async |stage: &Stage| {
        for id in ids {
            stage.registry.register(registration(TENANT, id, "idp.test")).await.unwrap();
        }
    };
    let first = with_store(&clock, &store);
    first.source.set(good());
    register(&first).await;
    first.registry.warm_up(secs(60)).await;
    settle().await;
    store.flush();
    first.registry.persist_all().await.unwrap();
    assert_eq!(store.everything().len(), 4);

    let second = with_store(&clock, &store);
    let all = store.everything();
    store.flush();
    register(&second).await;
    for (key, bytes) in all {
        let spoil = match &*key.provider {
            "p2" => bytes.to_ascii_uppercase(),
            "p3" => String::from_utf8(bytes).unwrap().replace("2026-", "2020-").into_bytes(),
            _ => bytes,
        };
        store.put(&key, spoil);
    }
    let error = second.registry.restore_from_persistence().await.unwrap_err();
    assert!(matches!(error, Error::Json(_)), "{error:?}");
    for (id, restored) in [("p1", true), ("p2", false), ("p3", false), ("p4", true)] {
        assert_eq!(second.registry.resolve(TENANT, id, None).await.is_ok(), restored, "{id}");
    }
    second.registry.unregister(TENANT, "p2").await.unwrap();
    is_validation(second.registry.restore_from_persistence().await, "expires_at");
}

#[tokio::test(start_paused = true)]
async fn one_part_that_fails_keeps_no_other_provider_from_being_persisted_or_restored() {
    let (clock, all) = (ManualClock::new(), MemoryStore::new());
    let shards = || Arc::new(Shards { all: all.clone(), down: "p00" });
    let ids: Vec<String> = (0..200).map(|n| format!("p{n:02}")).collect();
    let register = async |stage: &Stage| {
        for id in &ids {
            stage.registry.register(registration(TENANT, id, "idp.test")).await.unwrap();
        }
    };
    let is_away = |outcome: jwks_cache::Result<()>| matches!(outcome, Err(Error::Store(error)) if error.kind() == StoreErrorKind::Unavailable);
    let first = process(&clock, |it| it.with_store(shards()));
    first.source.set(good());
    register(&first).await;
    first.registry.warm_up(secs(60)).await;
    tokio::time::sleep(secs(60)).await;
    all.flush();
    all.slow_down(millis(10));
    assert!(is_away(first.registry.persist_all().await));
    assert_eq!(all.everything().len(), 199);
    // When they are registered nothing is there.
    let kept = all.everything();
    all.flush();
    let second = process(&clock, |it| it.with_store(shards()));
    register(&second).await;
    kept.iter().for_each(|(key, bytes)| all.put(key, bytes.clone()));
    assert!(is_away(second.registry.restore_from_persistence().await));
    let statuses = second.registry.all_statuses().await;
    assert_eq!(statuses.iter().filter(|status| status.last_refresh.is_some()).count(), 199);
}

#[tokio::test]
async fn without_a_store_persisting_and_restoring_do_nothing() {
    let stage = Stage::new().await;
    stage.registry.persist_all().await.unwrap();
    stage.registry.restore_from_persistence().await.unwrap();
    let status = stage.status().await;
    assert!(status.metrics.iter().all(|metric| metric.name != "jwks_cache_store_lag_seconds"));
}

#[tokio::test(start_paused = true)]
async fn who_is_unregistered_is_forgotten_by_the_store_too_even_where_it_hangs_meanwhile() {
    for hangs in [false, true] {
        let (clock, store) = (ManualClock::new(), MemoryStore::new());
        let stage = with_store(&clock, &store).with_keys(good()).await;
        stage.registry.deny_key(TENANT, PROVIDER, "a").await.unwrap();
        settle().await;
        if hangs {
            store.hang();
        }
        stage.registry.unregister(TENANT, PROVIDER).await.unwrap();
        settle().await;
        assert_eq!(store.everything().is_empty(), !hangs);
        stage.source.set(Answer::Refused);
        stage.register(|_| {}).await;
        assert!(stage.kids().await.is_empty());
        // What is written anew brings nothing of before.
        stage.registry.deny_key(TENANT, PROVIDER, "b").await.unwrap();
        store.work();
        tokio::time::sleep(secs(10)).await;
        stage.fetch(good()).await;
        assert_eq!(stage.kids().await, ["a"]);
    }
}

#[tokio::test(start_paused = true)]
async fn private_keys_reach_no_store() {
    let (clock, store) = (ManualClock::new(), MemoryStore::new());
    let private = document(&["leaked"]).replace("\"x\":", "\"d\":\"bWFya2Vk\",\"x\":");
    let both = private.replace(r#"{"keys":["#, &document(&["public"]).replace("]}", ","));
    with_store(&clock, &store).with_keys(stage::scripted::body(both, "max-age=300")).await;
    let text = kept(&store).to_string();
    assert!(text.contains("public") && !text.contains("leaked") && !text.contains("bWFya2Vk"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_that_has_grown_too_large_is_not_read() {
    let (clock, store) = (ManualClock::new(), MemoryStore::new());
    drop(with_store(&clock, &store).with_keys(good()).await);
    let filled = vec![b' '; 100 << 20];
    store.put(&name(SnapshotKind::Keys), filled);
    let stage = with_store(&clock, &store);
    stage.register(|_| {}).await;
    assert!(stage.kids().await.is_empty());
    stage.fetch(good()).await;
    assert_eq!(kept(&store)["tenant_id"], json!(TENANT), "the next save replaces it");
}

#[test]
fn a_short_secret_is_no_ring() {
    assert!(KeyRing::new(["too short"]).is_err());
}
