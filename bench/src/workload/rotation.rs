//! W8: the provider rotates under traffic, and tokens of the new key come at once.

use std::time::Duration;

use jwks_cache_testkit::{IdentityProvider, Token};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::in_turn;
use crate::contender::{Contender, Kind, Settings};
use crate::load;
use crate::report::{Cell, Table};

const UPSTREAM: Duration = Duration::from_millis(20);
/// One round trip, and what the machine may take to start it and to tell the callers.
const GOAL: Duration = Duration::from_millis(30);

struct Seen {
    new_key_after: Option<Duration>,
    old_key_failed: usize,
    requests: usize,
}

pub(super) fn run(cap: Duration) -> Table {
    let seen = in_turn(|kind| rotation(kind, cap));
    let mut table = Table::new("W8", "rotation at 2,000 lookups/s, upstream takes 20 ms");
    let [ours, ..] = &seen;
    let after = seen.each_ref().map(|s| s.new_key_after.map_or(Cell::NotWithin(cap), Cell::Time));
    let in_time = ours.new_key_after.is_some_and(|after| after <= GOAL);
    table.judge("new key verifies after", after, "one round trip: ≤ 30 ms", in_time);
    table.judge("requests until then", seen.each_ref().map(|s| s.requests), "1", ours.requests == 1);
    let failed = seen.each_ref().map(|s| s.old_key_failed);
    table.judge("old key's failed lookups", failed, "0", ours.old_key_failed == 0);
    table
}

async fn rotation(kind: Kind, cap: Duration) -> Seen {
    let idp = IdentityProvider::builder().cache_control("max-age=300").start();
    let contender = Contender::start(kind, &idp, Settings::default()).await;
    let old = idp.signing_kid();
    contender.lookup(Some(&old)).await.expect("upstream is up");
    load::stream(&contender, &old, 2_000, Duration::from_secs(1)).await;
    idp.slow(UPSTREAM);
    let before = idp.jwks_hits();

    idp.rotate();
    let token = idp.mint(&Token::new());
    let start = Instant::now();
    // Old tokens go on coming while eight callers ask for the new key.
    let others = {
        let (contender, old) = (contender.clone(), old.clone());
        tokio::spawn(async move { load::stream(&contender, &old, 2_000, Duration::from_secs(1)).await })
    };
    let mut callers = JoinSet::new();
    for _ in 0..8 {
        let (contender, token) = (contender.clone(), token.clone());
        callers.spawn(async move {
            while !contender.verifies(&token).await {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            start.elapsed()
        });
    }
    let first = timeout(cap, callers.join_next()).await.ok().flatten();
    let new_key_after = first.and_then(Result::ok);
    let requests = idp.jwks_hits() - before;
    let old_key_failed = others.await.map_or(0, |stream| stream.failed);
    Seen { new_key_after, old_key_failed, requests }
}
