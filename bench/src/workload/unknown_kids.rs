//! W6: a flood of kids that nobody publishes, and then a rotation that is real.

use std::time::Duration;

use jwks_cache_testkit::IdentityProvider;
use tokio::time::Instant;

use super::in_turn;
use crate::contender::{Contender, Kind, Settings};
use crate::load::{self, Probe, p99};
use crate::report::{Cell, Table};

const AT_ONCE: usize = 1_000;
const ONE_BY_ONE: usize = 200;
/// A flood that upstream answers at once is over before anything can be measured.
const UPSTREAM: Duration = Duration::from_millis(50);
/// The default of `kid_miss_interval`.
const INTERVAL: Duration = Duration::from_secs(10);

struct Seen {
    requests: usize,
    answered: usize,
    calm: Option<Duration>,
    flooded: Option<Duration>,
    rotation_after: Option<Duration>,
    requests_then: usize,
}

pub(super) fn run(cap: Duration) -> Table {
    let seen = in_turn(|kind| flood(kind, cap));
    let mut table = Table::new("W6", "1,000 unknown kids at once, 200 one by one, then a real rotation");
    let [ours, ..] = &seen;
    table.tell("unknown kids answered", seen.each_ref().map(|s| Cell::Of(s.answered, AT_ONCE + ONE_BY_ONE)));
    table.judge("requests", seen.each_ref().map(|s| s.requests), "1", ours.requests == 1);
    table.tell("p99 of a known key before", seen.each_ref().map(|s| s.calm));
    // The probe shares the cores with the flood and with upstream: twice as long and 10 µs are noise.
    let unchanged = match (ours.calm, ours.flooded) {
        (Some(calm), Some(flooded)) => flooded <= 2 * calm + Duration::from_micros(10),
        _ => false,
    };
    let flooded = seen.each_ref().map(|s| s.flooded);
    table.judge("p99 of a known key meanwhile", flooded, "unchanged: ≤ 2 × before + 10 µs", unchanged);
    let seen_after = seen.each_ref().map(|s| s.rotation_after.map_or(Cell::NotWithin(cap), Cell::Time));
    let in_time = ours.rotation_after.is_some_and(|after| after <= INTERVAL);
    table.judge("rotation found after", seen_after, "≤ kid_miss_interval = 10 s", in_time);
    table.tell("requests from rotation to then", seen.each_ref().map(|s| s.requests_then));
    table
}

async fn flood(kind: Kind, cap: Duration) -> Seen {
    let idp = IdentityProvider::builder().cache_control("max-age=300").start();
    let contender = Contender::start(kind, &idp, Settings::default()).await;
    let known = idp.signing_kid();
    contender.lookup(Some(&known)).await.expect("upstream is up");

    let probe = Probe::start(&contender, &known);
    tokio::time::sleep(Duration::from_millis(500)).await;
    let calm = p99(&probe.stop().await);

    idp.slow(UPSTREAM);
    let before = idp.jwks_hits();
    let probe = Probe::start(&contender, &known);
    let kids = (0..AT_ONCE).map(|n| Some(format!("at-once-{n}"))).collect();
    let mut answered = load::crowd(&contender, kids, cap).await.done();
    let end = Instant::now() + cap;
    for n in 0..ONE_BY_ONE {
        let kid = format!("one-by-one-{n}");
        if tokio::time::timeout_at(end, contender.lookup(Some(&kid))).await.is_err() {
            break;
        }
        answered += 1;
    }
    let flooded = p99(&probe.stop().await);
    let requests = idp.jwks_hits() - before;

    idp.come_back();
    let before = idp.jwks_hits();
    let rotation_after = found_after(&contender, &idp.rotate(), cap).await;
    let requests_then = idp.jwks_hits() - before;
    Seen { requests, answered, calm, flooded, rotation_after, requests_then }
}

/// How long until a lookup finds `kid`, asked for every 5 ms.
async fn found_after(contender: &Contender, kid: &str, cap: Duration) -> Option<Duration> {
    let start = Instant::now();
    let asking = async {
        while contender.lookup(Some(kid)).await != Ok(true) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(cap, asking).await.ok()?;
    Some(start.elapsed())
}
