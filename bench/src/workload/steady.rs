//! W9: a steady stream of lookups, with upstream well for seconds and for an hour, and with upstream down.

use std::sync::Arc;
use std::time::Duration;

use jwks_cache_testkit::{IdentityProvider, ManualClock, ScaledClock};

use super::{Outage, in_turn};
use crate::contender::{Contender, Kind, Settings};
use crate::load::{self, Stream, p99};
use crate::report::{Cell, Table};

const PER_SECOND: u32 = 2_000;
const SPAN: Duration = Duration::from_secs(6);
/// Ours lives a minute in the six seconds: past due, past expiry, inside the stale window.
const SCALE: f64 = 10.0;

pub(super) fn run(_cap: Duration) -> Table {
    let mut table = Table::new("W9a", "2,000 lookups/s for 6 s, upstream well");
    for (header, [lookups, requests, p99s]) in [
        (Some("max-age=20"), ["max-age=20: lookups", "max-age=20: requests", "max-age=20: p99"]),
        (None, ["no header: lookups", "no header: requests", "no header: p99"]),
    ] {
        let seen = in_turn(|kind| well(kind, header));
        table.tell(lookups, seen.each_ref().map(|(stream, _)| stream.lookups));
        table.judge(requests, seen.each_ref().map(|(_, requests)| *requests), "0", seen[0].1 == 0);
        table.tell(p99s, seen.each_ref().map(|(stream, _)| p99(&stream.waits)));
    }
    table
}

async fn well(kind: Kind, header: Option<&str>) -> (Stream, usize) {
    let mut idp = IdentityProvider::builder();
    if let Some(header) = header {
        idp = idp.cache_control(header);
    }
    let idp = idp.start();
    let contender = Contender::start(kind, &idp, Settings::default()).await;
    let kid = idp.signing_kid();
    contender.lookup(Some(&kid)).await.expect("upstream is up");
    let before = idp.jwks_hits();
    let stream = load::stream(&contender, &kid, PER_SECOND, SPAN).await;
    (stream, idp.jwks_hits() - before)
}

/// An hour of ours, a second a step; the others have no clock to drive.
pub(super) fn run_an_hour(_cap: Duration) -> Table {
    let mut table = Table::new("W9b", "an hour of policy time, one lookup a second");
    for (what, header, lifetime) in [
        ("max-age=20, raised to 30 s: requests", Some("max-age=20"), 30),
        ("no header, 300 s: requests", None, 300),
    ] {
        let requests = super::alone(hour(header));
        let most = 2 * 3_600 / lifetime;
        let goal = format!("≤ 2 a lifetime = {most}");
        table.judge(what, [Cell::Count(requests), Cell::None, Cell::None], &goal, requests <= most);
    }
    table
}

async fn hour(header: Option<&str>) -> usize {
    let clock = Arc::new(ManualClock::new());
    let mut idp = IdentityProvider::builder().clock(clock.clone());
    if let Some(header) = header {
        idp = idp.cache_control(header);
    }
    let idp = idp.start();
    let settings = Settings { clock: Some(clock.clone()), ..Settings::default() };
    let contender = Contender::start(Kind::Ours, &idp, settings).await;
    for _ in 0..3_600 {
        contender.lookup(None).await.expect("upstream is up");
        contender.settled().await;
        clock.advance(Duration::from_secs(1));
    }
    idp.jwks_hits()
}

pub(super) fn run_in_outage(_cap: Duration) -> Table {
    let mut table = Table::new("W9c", "max-age=8, then upstream down: 2,000 lookups/s for 6 s");
    for (outage, [failed, p99s, requests]) in [
        (Outage::Says500, ["500: failed lookups", "500: p99", "500: requests"]),
        (Outage::Hangs, ["hangs: failed lookups", "hangs: p99", "hangs: requests"]),
    ] {
        let seen = in_turn(|kind| down(kind, outage));
        let [(ours, _), ..] = &seen;
        let lost = seen.each_ref().map(|(stream, _)| Cell::Of(stream.failed, stream.lookups));
        table.judge(failed, lost, "0", ours.failed == 0);
        let quick = p99(&ours.waits).is_some_and(|wait| wait <= Duration::from_micros(10));
        table.judge(p99s, seen.each_ref().map(|(stream, _)| p99(&stream.waits)), "≤ 10 µs", quick);
        table.tell(requests, seen.each_ref().map(|(_, requests)| *requests));
    }
    table
}

async fn down(kind: Kind, outage: Outage) -> (Stream, usize) {
    let mut idp = IdentityProvider::builder().cache_control("max-age=8");
    let mut settings = Settings::default();
    if kind == Kind::Ours {
        let clock = Arc::new(ScaledClock::new(SCALE));
        idp = idp.clock(clock.clone());
        settings.clock = Some(clock);
    }
    let idp = idp.start();
    let contender = Contender::start(kind, &idp, settings).await;
    let kid = idp.signing_kid();
    contender.lookup(Some(&kid)).await.expect("upstream is up");
    outage.begin(&idp);
    let before = idp.jwks_hits();
    let stream = load::stream(&contender, &kid, PER_SECOND, SPAN).await;
    (stream, idp.jwks_hits() - before)
}
