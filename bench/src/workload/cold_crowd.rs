//! W4: a thousand callers find the cache empty, and upstream takes 100 ms.

use std::time::Duration;

use jwks_cache_testkit::IdentityProvider;

use super::in_turn;
use crate::contender::{Contender, Settings};
use crate::load;
use crate::report::{Cell, Table};

const CALLERS: usize = 1_000;
const UPSTREAM: Duration = Duration::from_millis(100);
const GOAL: Duration = Duration::from_millis(105);

pub(super) fn run(cap: Duration) -> Table {
    let seen = in_turn(async |kind| {
        let idp = IdentityProvider::start();
        idp.slow(UPSTREAM);
        let contender = Contender::start(kind, &idp, Settings::default()).await;
        let crowd = load::crowd(&contender, vec![None; CALLERS], cap).await;
        (crowd, idp.jwks_hits())
    });
    let mut table = Table::new("W4", "1,000 callers, cold, upstream takes 100 ms");
    let [(ours, requests), ..] = &seen;
    let answered = seen.each_ref().map(|(crowd, _)| Cell::Of(crowd.answered, CALLERS));
    table.judge("answered", answered, "all", ours.answered == CALLERS);
    table.judge("requests", seen.each_ref().map(|(_, requests)| *requests), "1", *requests == 1);
    let last = seen
        .each_ref()
        .map(|(crowd, _)| if crowd.all_done() { Cell::Time(crowd.last_after) } else { Cell::NotWithin(cap) });
    table.judge("last answer after", last, "≤ 105 ms", ours.all_done() && ours.last_after <= GOAL);
    table
}
