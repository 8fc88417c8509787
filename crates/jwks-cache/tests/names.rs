//! The index of names: who is there is found, and nobody else, while others come and go; and what goes leaves nothing.
#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

mod stage;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread;

use jwks_cache::{Algorithm, IdentityProviderRegistration, Registry};
use stage::scripted::Stage;
use stage::{PROVIDER, TENANT, at_once};
use tokio::runtime::{Builder, Runtime};

type Name = (String, String);

fn name(number: usize) -> Name {
    // Some are too long to stand in place.
    let long = "o".repeat(40);
    (format!("{}{number}", "t".repeat(number % 59)), ["main", long.as_str()][number % 2].to_owned())
}

async fn register(registry: &Registry, (tenant, id): &Name) {
    let url = "https://id.example.com/jwks.json";
    registry.register(IdentityProviderRegistration::new(tenant, id, url).unwrap()).await.unwrap();
}

#[tokio::test]
async fn names_are_found_however_many_come_and_go() {
    let registry = Registry::new();
    let mut there = BTreeSet::new();
    for number in 0..3_000 {
        let new = name(number);
        assert!(registry.provider(&new.0, &new.1).is_err(), "{new:?}");
        register(&registry, &new).await;
        assert!(there.insert(new));
        // Every third goes again, some while there are few and some when there are many.
        if number % 3 == 2 {
            let (tenant, id) = name(number / 2);
            let was_there = there.remove(&(tenant.clone(), id.clone()));
            assert_eq!(registry.unregister(&tenant, &id).await.unwrap(), was_there);
            assert!(registry.provider(&tenant, &id).is_err());
        }
    }
    assert_eq!(registry.names(), there.iter().cloned().collect::<Vec<_>>());
    for (tenant, id) in &there {
        registry.provider(tenant, id).unwrap();
    }
    for number in 0..3_000 {
        let (tenant, id) = name(number);
        assert_eq!(registry.unregister(&tenant, &id).await.unwrap(), there.contains(&(tenant, id)));
    }
    assert_eq!(registry.names(), []);
}

struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

#[test]
fn who_is_there_is_found_at_every_moment_while_others_come_and_go() {
    let runtime = Runtime::new().unwrap();
    let registry = Registry::new();
    let stay: Vec<Name> = (0..20).map(name).collect();
    runtime.block_on(async {
        for name in &stay {
            register(&registry, name).await;
        }
    });
    let (done, looks, newest) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(20));
    thread::scope(|scope| {
        let look = || {
            while !done.load(SeqCst) {
                for (tenant, id) in &stay {
                    registry.provider(tenant, id).unwrap();
                    looks.fetch_add(1, SeqCst);
                }
                // Who comes and goes is found, or not; but nobody else in their place.
                let newest = newest.load(SeqCst);
                for (tenant, id) in [newest, 20 + newest / 2].map(name) {
                    if let Ok(status) = at_once(registry.provider_status(&tenant, &id)) {
                        assert_eq!((status.tenant_id, status.provider_id), (tenant, id));
                    }
                }
            }
        };
        let readers = [scope.spawn(look), scope.spawn(look)];
        // Also where this panics: the readers are waited for.
        let done = Done(&done);
        runtime.block_on(async {
            // As long as it takes until readers were there for it; one that missed somebody is gone.
            let goes_on = |number: &usize| {
                (*number < 2_000 || looks.load(SeqCst) < 10_000) && !readers.iter().any(|it| it.is_finished())
            };
            for number in (20..).take_while(goes_on) {
                register(&registry, &name(number)).await;
                newest.store(number, SeqCst);
                let (tenant, id) = name(20 + number / 2);
                registry.unregister(&tenant, &id).await.unwrap();
            }
        });
        drop(done);
        for reader in readers {
            reader.join().unwrap();
        }
    });
}

#[test]
fn what_a_registry_holds_goes_with_it_while_a_reader_still_looks() {
    // On this thread, so that no task is about to end on another.
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let other = runtime.block_on(Stage::warm(|_| {}));
    let reader = other.registry.provider(TENANT, PROVIDER).unwrap();
    let meanwhile = |_: jwks_cache::KeyRef<'_>| {
        let Stage { source, registry, .. } = runtime.block_on(Stage::warm(|_| {}));
        let mut events = registry.subscribe();
        runtime.block_on(async {
            for number in 0..200 {
                register(&registry, &name(number)).await;
            }
            assert!(registry.unregister(TENANT, PROVIDER).await.unwrap());
        });
        drop(registry);
        assert_eq!(Arc::strong_count(&source), 1);
        runtime.block_on(async { while events.next().await.is_some() {} });
    };
    reader.with_key(Some("a"), Algorithm::EdDSA, meanwhile).unwrap();
}
