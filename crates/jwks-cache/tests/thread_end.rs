//! Threads that end while thread-locals of theirs still hold a registry, or a runtime with flights in it.
#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

mod stage;

use std::cell::OnceCell;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread;

use jwks_cache::{Algorithm, Registry};
use stage::scripted::Stage;
use stage::{PROVIDER, TENANT, at_once};
use tokio::runtime::{Builder, Runtime};

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

#[test]
fn a_registry_in_a_thread_local_goes_with_its_thread() {
    thread_local!(static HELD: OnceCell<Registry> = const { OnceCell::new() });
    let Stage { source, registry, .. } = runtime().block_on(Stage::warm(|_| {}));
    let ends = thread::spawn(move || {
        HELD.with(|held| {
            let registry = held.get_or_init(|| registry);
            let handle = registry.provider(TENANT, PROVIDER).unwrap();
            handle.with_key(Some("a"), Algorithm::EdDSA, |key| key.algorithm()).unwrap();
        });
    });
    ends.join().unwrap();
    assert_eq!(Arc::strong_count(&source), 1);
}

#[test]
fn a_thread_that_ends_still_finds_providers_by_name() {
    struct Last(Registry, Sender<bool>);
    impl Drop for Last {
        fn drop(&mut self) {
            assert!(self.0.provider(TENANT, "other").is_err());
            let handle = self.0.provider(TENANT, PROVIDER).unwrap();
            let found = handle.with_key(Some("a"), Algorithm::EdDSA, |_| ()).is_ok();
            let by_name = at_once(self.0.key(TENANT, PROVIDER, Some("a"), Algorithm::EdDSA)).is_ok();
            self.1.send(found && by_name).unwrap();
        }
    }
    thread_local!(static LAST: OnceCell<Last> = const { OnceCell::new() });
    let Stage { registry, .. } = runtime().block_on(Stage::warm(|_| {}));
    let (told, tells) = channel();
    let ends = thread::spawn(move || {
        LAST.with(|last| {
            // Looked up after that, so that it is there for longer than what lookups need.
            let Last(registry, _) = last.get_or_init(|| Last(registry, told));
            registry.provider(TENANT, PROVIDER).unwrap();
        });
    });
    ends.join().unwrap();
    assert_eq!(tells.try_recv(), Ok(true));
}

#[test]
fn a_flight_in_a_runtime_that_ends_with_its_thread_is_lost_and_another_lands() {
    thread_local!(static RUNTIME: Runtime = runtime());
    let stage = runtime().block_on(Stage::new());
    stage.source.hold();
    let flies = async || {
        tokio::select! {
            biased;
            _ = stage.resolve() => panic!("it is held"),
            () = stage.source.wait_for(1) => {}
        }
    };
    // To join is to wait for the thread-locals too.
    thread::scope(|scope| scope.spawn(|| RUNTIME.with(|runtime| runtime.block_on(flies()))).join()).unwrap();
    stage.source.release();
    runtime().block_on(stage.resolve()).unwrap();
    assert_eq!(stage.source.asked(), 2);
}
