//! The workloads, each with its goals. Every contender runs each in a runtime and against a provider of its
//! own, so that nothing it leaves behind burdens the next.

mod cold_crowd;
mod cold_in_outage;
mod expired_in_outage;
mod many_providers;
mod one_lookup;
mod refusals;
mod rotation;
mod scaling;
mod steady;
mod unknown_kids;
mod verify;

use std::future::Future;
use std::time::Duration;

use tokio::runtime::Runtime;

use crate::contender::{KINDS, Kind};
use crate::report::Table;

type Run = fn(cap: Duration) -> Table;

/// Every workload by its number. W1 and W2 come last: they install a recorder and a subscriber for good.
pub const ALL: [(&str, Run); 17] = [
    ("W3", verify::run),
    ("S32", refusals::run),
    ("W4", cold_crowd::run),
    ("W5A", cold_in_outage::run),
    ("W5B", expired_in_outage::run),
    ("W6", unknown_kids::run),
    ("W8", rotation::run),
    ("W9A", steady::run),
    ("W9B", steady::run_an_hour),
    ("W9C", steady::run_in_outage),
    ("W7A", many_providers::run_in_use),
    ("W7B", many_providers::run_idle),
    ("W7C", many_providers::run_refreshes),
    ("W1A", one_lookup::run_bare),
    ("W1B", one_lookup::run_recorder),
    ("W1C", one_lookup::run_observed),
    ("W2", scaling::run),
];

fn runtime() -> Runtime {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.expect("the machine can start threads")
}

/// Runs one contender's part to its end; background tasks it leaves are dropped, and their connections closed.
fn alone<T, F>(part: F) -> T
where
    F: Future<Output = T>,
{
    let runtime = runtime();
    let seen = runtime.block_on(part);
    runtime.shutdown_timeout(Duration::from_secs(5));
    seen
}

/// All contenders, one after another.
fn in_turn<T, F>(part: impl Fn(Kind) -> F) -> [T; 3]
where
    F: Future<Output = T>,
{
    KINDS.map(|kind| alone(part(kind)))
}

/// Ours first, then the others at once: for parts that do nothing but wait.
fn mostly_waiting<T, F>(part: impl Fn(Kind) -> F + Sync) -> [T; 3]
where
    T: Send,
    F: Future<Output = T>,
{
    let ours = alone(part(Kind::Ours));
    let (predecessor, by_hand) = std::thread::scope(|scope| {
        let predecessor = scope.spawn(|| alone(part(Kind::Predecessor)));
        let by_hand = alone(part(Kind::ByHand));
        (predecessor.join().expect("a part does not panic"), by_hand)
    });
    [ours, predecessor, by_hand]
}

/// How upstream is down.
#[derive(Clone, Copy)]
enum Outage {
    Says500,
    Hangs,
}

impl Outage {
    fn begin(self, idp: &jwks_cache_testkit::IdentityProvider) {
        match self {
            Self::Says500 => idp.fail_with(500),
            Self::Hangs => idp.slow(Duration::from_secs(3_600)),
        }
    }
}
