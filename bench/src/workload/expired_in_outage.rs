//! W5b: keys expired, inside their stale window, and upstream went down meanwhile.
//!
//! Ours gets there by its clock, which jumps over the expiry; the others wait for it in real time.

use std::sync::Arc;
use std::time::Duration;

use jwks_cache_testkit::{IdentityProvider, ManualClock};

use super::{Outage, mostly_waiting};
use crate::contender::{Contender, Kind, Settings};
use crate::load::{self, Crowd};
use crate::report::{Cell, Table};

const CALLERS: usize = 50;
/// The shortest lifetime that the library grants (`MIN_TTL_FLOOR`), and past it.
const LIFETIME: Duration = Duration::from_secs(30);
const EXPIRED: Duration = Duration::from_secs(31);
/// Wide enough for everything that follows.
const STALE_WINDOW: Duration = Duration::from_secs(600);
/// How long callers may take who come once the outage is known.
const LATER_CAP: Duration = Duration::from_secs(5);
/// The default of `stale_wait`, and 10 ms.
const FIRST_GOAL: Duration = Duration::from_millis(260);
const LATER_GOAL: Duration = Duration::from_millis(1);

struct Seen {
    first: Crowd,
    later: Crowd,
    requests: usize,
}

pub(super) fn run(cap: Duration) -> Table {
    let mut table = Table::new("W5b", "50 callers, keys expired inside the stale window, upstream down");
    let seen = mostly_waiting(async |kind| match kind {
        // Alone, so that nothing disturbs what is judged in milliseconds.
        Kind::Ours => [outage(kind, Outage::Says500, cap).await, outage(kind, Outage::Hangs, cap).await],
        _ => tokio::join!(outage(kind, Outage::Says500, cap), outage(kind, Outage::Hangs, cap)).into(),
    });
    let [ours, ..] = &seen;
    for (at, name) in [
        [
            "500: first callers, got keys",
            "500: … longest wait",
            "500: later callers, got keys",
            "500: … longest wait",
            "500: requests meanwhile",
        ],
        [
            "hangs: first callers, got keys",
            "hangs: … longest wait",
            "hangs: later callers, got keys",
            "hangs: … longest wait",
            "hangs: requests meanwhile",
        ],
    ]
    .into_iter()
    .enumerate()
    {
        let Seen { first, later, .. } = &ours[at];
        let got = |crowd: &Crowd| Cell::Of(crowd.answered, CALLERS);
        let within = |crowd: &Crowd, goal| crowd.longest_wait().is_some_and(|wait| wait <= goal);
        table.judge(
            name[0],
            seen.each_ref().map(|seen| got(&seen[at].first)),
            "all",
            first.answered == CALLERS,
        );
        let waits = seen.each_ref().map(|seen| longest(&seen[at].first, cap));
        table.judge(name[1], waits, "≤ stale_wait + 10 ms = 260 ms", within(first, FIRST_GOAL));
        table.judge(
            name[2],
            seen.each_ref().map(|seen| got(&seen[at].later)),
            "all",
            later.answered == CALLERS,
        );
        let waits = seen.each_ref().map(|seen| longest(&seen[at].later, LATER_CAP));
        table.judge(name[3], waits, "≤ 1 ms", within(later, LATER_GOAL));
        table.tell(name[4], seen.each_ref().map(|seen| seen[at].requests));
    }
    table
}

async fn outage(kind: Kind, outage: Outage, cap: Duration) -> Seen {
    let clock = Arc::new(ManualClock::new());
    let mut idp = IdentityProvider::builder().cache_control("max-age=30");
    if kind == Kind::Ours {
        idp = idp.clock(clock.clone());
    }
    let idp = idp.start();
    let settings = Settings {
        clock: Some(clock.clone()),
        stale_while_error: Some(STALE_WINDOW),
        by_hand_ttl: Some(LIFETIME),
    };
    let contender = Contender::start(kind, &idp, settings).await;
    contender.lookup(None).await.expect("upstream is up");
    outage.begin(&idp);
    match kind {
        Kind::Ours => clock.advance(EXPIRED),
        _ => tokio::time::sleep(EXPIRED).await,
    }
    let before = idp.jwks_hits();
    let first = load::crowd(&contender, vec![None; CALLERS], cap).await;
    let later = load::crowd(&contender, vec![None; CALLERS], LATER_CAP).await;
    Seen { first, later, requests: idp.jwks_hits() - before }
}

fn longest(crowd: &Crowd, cap: Duration) -> Cell {
    crowd.longest_wait().map_or(Cell::NotWithin(cap), Cell::Time)
}
