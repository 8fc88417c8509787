//! W5a: callers find the cache empty while upstream is down.

use std::time::Duration;

use jwks_cache_testkit::IdentityProvider;

use super::{Outage, mostly_waiting};
use crate::contender::{Contender, Settings};
use crate::load::{self, Crowd};
use crate::report::{Cell, Table};

const CALLERS: usize = 200;
/// The default of `max_retries`, and the first attempt.
const ATTEMPTS: usize = 3;
/// The default of `retry_policy.deadline`, and what the machine may take to tell 200 tasks.
const DEADLINE: Duration = Duration::from_millis(8_100);

pub(super) fn run(cap: Duration) -> Table {
    let mut table = Table::new("W5a", "200 callers, cold, upstream down");
    let seen = mostly_waiting(|kind| outage(kind, Outage::Says500, cap));
    let [(ours, requests), ..] = &seen;
    table.judge("500: told why", done(&seen), "all", ours.told == CALLERS);
    let flight = (1..=ATTEMPTS).contains(requests);
    table.judge("500: requests", seen.each_ref().map(|(_, requests)| *requests), "≤ 3, one flight", flight);
    let when = ours.all_done() && ours.last_after <= DEADLINE;
    table.judge("500: last told after", last(&seen, cap), "≤ 8 s deadline", when);

    let seen = mostly_waiting(|kind| outage(kind, Outage::Hangs, cap));
    let [(ours, requests), ..] = &seen;
    table.judge("hangs: told why", done(&seen), "all", ours.told == CALLERS);
    let flight = (1..=ATTEMPTS).contains(requests);
    table.judge("hangs: requests", seen.each_ref().map(|(_, requests)| *requests), "≤ 3, one flight", flight);
    let when = ours.all_done() && ours.last_after <= DEADLINE;
    table.judge("hangs: last told after", last(&seen, cap), "≤ 8 s deadline", when);
    table
}

async fn outage(kind: crate::contender::Kind, outage: Outage, cap: Duration) -> (Crowd, usize) {
    let idp = IdentityProvider::start();
    outage.begin(&idp);
    let contender = Contender::start(kind, &idp, Settings::default()).await;
    let crowd = load::crowd(&contender, vec![None; CALLERS], cap).await;
    (crowd, idp.jwks_hits())
}

fn done(seen: &[(Crowd, usize); 3]) -> [Cell; 3] {
    seen.each_ref().map(|(crowd, _)| Cell::Of(crowd.done(), CALLERS))
}

fn last(seen: &[(Crowd, usize); 3], cap: Duration) -> [Cell; 3] {
    seen.each_ref().map(
        |(crowd, _)| {
            if crowd.all_done() { Cell::Time(crowd.last_after) } else { Cell::NotWithin(cap) }
        },
    )
}
