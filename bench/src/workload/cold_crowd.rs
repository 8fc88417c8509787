//! W4: a thousand callers find the cache empty, and upstream takes 100 ms.

use std::time::Duration;

use jwks_cache_testkit::IdentityProvider;

use super::in_turn;
use crate::contender::{Contender, Kind, Settings};
use crate::load::{self, Crowd};
use crate::report::{Cell, Table};

const ROUNDS: usize = 5;
const CALLERS: usize = 1_000;
const UPSTREAM: Duration = Duration::from_millis(100);
const GOAL: Duration = Duration::from_millis(105);

pub(super) fn run(cap: Duration) -> Table {
    let seen = in_turn(async |kind| {
        let mut rounds = Vec::new();
        // A round that was cut off says enough.
        while rounds.len() < ROUNDS && rounds.iter().all(|(crowd, _): &(Crowd, usize)| crowd.all_done()) {
            rounds.push(round(kind, cap).await);
        }
        rounds
    });
    let mut table = Table::new("W4", "1,000 callers, cold, upstream takes 100 ms; five rounds");
    let [ours, ..] = &seen;
    let answered = seen.each_ref().map(|rounds| rounds.iter().map(|(crowd, _)| crowd.answered).min());
    let all = answered[0] == Some(CALLERS);
    table.judge(
        "answered, worst round",
        answered.map(|some| Cell::Of(some.unwrap_or(0), CALLERS)),
        "all",
        all,
    );
    let requests =
        seen.each_ref().map(|rounds| rounds.iter().map(|(_, requests)| *requests).max().unwrap_or(0));
    table.judge("requests, worst round", requests, "1", requests[0] == 1);
    let median = |rounds: &Vec<(Crowd, usize)>| {
        let mut last: Vec<_> = rounds.iter().map(|(crowd, _)| crowd.last_after).collect();
        last.sort_unstable();
        last.get(last.len() / 2).copied().filter(|_| rounds.iter().all(|(crowd, _)| crowd.all_done()))
    };
    let last = seen.each_ref().map(|rounds| median(rounds).map_or(Cell::NotWithin(cap), Cell::Time));
    let in_time = median(ours).is_some_and(|after| after <= GOAL);
    table.judge("last answer after, median round", last, "≤ 105 ms", in_time);
    table
}

async fn round(kind: Kind, cap: Duration) -> (Crowd, usize) {
    let idp = IdentityProvider::start();
    idp.slow(UPSTREAM);
    let contender = Contender::start(kind, &idp, Settings::default()).await;
    let crowd = load::crowd(&contender, vec![None; CALLERS], cap).await;
    (crowd, idp.jwks_hits())
}
