//! Many tenants on one URL: one exchange, one memory, one budget for missing kids; and nothing else in common.
#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

mod stage;

use std::sync::Arc;

use jwks_cache::{
    Algorithm, Error, Fallback, IdentityProviderRegistration, JwkSet, KeyError, KeyFormat, Material, PinMode,
    PrivateNetworks, RefreshMode, Registry, Result, SpkiFingerprint, TlsVersion,
};
use jwks_cache_testkit::tls::Authority;
use jwks_cache_testkit::{ManualClock, Origin, Reply};
use serde_json::json;
use stage::proxy::Proxy;
use stage::scripted::{Answer, Script, body, document, jwk, keys};
use stage::socket::{self, registry};
use stage::{PROVIDER, kids, secs, secured, settle, soon};

const TENANTS: usize = 1_000;
const AB: &[(&str, u8)] = &[("a", 1), ("b", 2)];

fn tenant(n: usize) -> String {
    format!("t{n}")
}

/// Tenants of one URL.
struct Many {
    clock: ManualClock,
    source: Arc<Script>,
    registry: Registry,
}

impl Many {
    async fn new(tenants: usize) -> Self {
        Self::with(tenants, |_, _| ()).await
    }

    async fn with(tenants: usize, change: impl Fn(usize, &mut IdentityProviderRegistration)) -> Self {
        let clock = ManualClock::new();
        let source = Script::new(&clock);
        source.set(keys(AB, "max-age=300"));
        let registry =
            Registry::builder().clock(Arc::new(clock.clone())).fetcher(source.clone()).seed(7).build();
        let many = Self { clock, source, registry };
        for n in 0..tenants {
            many.register(n, |it| change(n, it)).await;
        }
        many
    }

    async fn register(&self, n: usize, change: impl FnOnce(&mut IdentityProviderRegistration)) {
        let mut of =
            IdentityProviderRegistration::new(tenant(n), PROVIDER, "https://idp.test/common/jwks.json")
                .unwrap();
        change(&mut of);
        self.registry.register(of).await.unwrap();
    }

    async fn resolve(&self, n: usize) -> Result<Arc<JwkSet>> {
        self.registry.resolve(&tenant(n), PROVIDER, None).await
    }

    async fn key(&self, n: usize, kid: &str) -> Result<()> {
        self.registry.key(&tenant(n), PROVIDER, Some(kid), Algorithm::EdDSA).await.map(drop)
    }

    async fn has(&self, n: usize, kid: &str) -> bool {
        self.key(n, kid).await.is_ok()
    }
}

#[tokio::test]
async fn a_thousand_tenants_make_one_request_a_refresh_period() {
    let many = Many::new(TENANTS).await;
    for n in 0..TENANTS {
        many.resolve(n).await.unwrap();
    }
    assert_eq!(many.source.asked(), 1);
    // Ten periods of readers everywhere: a lifetime of 300 s is refreshed after 265 s at the earliest.
    let mut asked = 1;
    for second in 1..=2_650 {
        many.clock.advance(secs(1));
        settle().await;
        for n in (second % 50..TENANTS).step_by(50) {
            many.resolve(n).await.unwrap();
        }
        asked = many.source.asked();
    }
    // The first timer after a start is drawn early, so that sources part.
    assert!((10..=12).contains(&asked), "{asked} requests in ten periods");
}

#[tokio::test]
async fn a_thousand_tenants_that_come_at_once_make_one_request_at_the_origin() {
    let clock = ManualClock::new();
    let origin = Origin::start_with_clock(Arc::new(clock.clone()));
    let gate = origin.hold("/jwks");
    origin.set(
        "/jwks",
        Reply::json(socket::document(&["k"]))
            .header("Cache-Control", "max-age=300")
            .etag("\"1\"")
            .conditional(),
    );
    let registry = registry(&clock);
    for n in 0..TENANTS {
        let mut of = stage::socket::registration(origin.url("/jwks"));
        of.tenant_id = tenant(n);
        of.refresh_mode = RefreshMode::OnDemand;
        registry.register(of).await.unwrap();
    }
    let all = async |registry: &Registry| {
        let reads: Vec<_> = (0..TENANTS)
            .map(|n| {
                let registry = registry.clone();
                tokio::spawn(async move { registry.resolve(&tenant(n), PROVIDER, None).await })
            })
            .collect();
        let mut sets = Vec::new();
        for read in reads {
            sets.push(soon(read).await.unwrap().unwrap());
        }
        sets
    };
    let reading = tokio::spawn({
        let registry = registry.clone();
        async move { all(&registry).await }
    });
    soon(origin.next_request("/jwks")).await;
    gate.release();
    let sets = soon(reading).await.unwrap();
    assert!(sets.iter().all(|set| Arc::ptr_eq(set, &sets[0])), "one set in memory");
    assert_eq!(origin.hits("/jwks"), 1);
    // A period later, and again at once.
    clock.advance(secs(280));
    let all = async || {
        for n in 0..TENANTS {
            assert_eq!(kids(&registry.resolve(&tenant(n), PROVIDER, None).await.unwrap()), ["k"]);
        }
        for n in 0..TENANTS {
            while registry.provider_status(&tenant(n), PROVIDER).await.unwrap().state
                == jwks_cache::ProviderState::Refreshing
            {
                tokio::task::yield_now().await;
            }
        }
    };
    soon(all()).await;
    assert_eq!(origin.hits("/jwks"), 2);
    assert_eq!(origin.requests("/jwks")[1].header("if-none-match"), Some("\"1\""));
}

#[tokio::test]
async fn what_another_was_brought_is_as_old_as_it_is() {
    let many = Many::new(2).await;
    many.resolve(0).await.unwrap();
    many.clock.advance(secs(100));
    many.resolve(1).await.unwrap();
    assert_eq!(many.source.asked(), 1);
    let status = async |n| many.registry.provider_status(&tenant(n), PROVIDER).await.unwrap();
    assert_eq!(status(0).await.expires_at, status(1).await.expires_at);
    assert_eq!(status(0).await.last_refresh, status(1).await.last_refresh);
}

#[tokio::test]
async fn policy_is_each_tenants_own() {
    let many = Many::with(3, |n, it| match n {
        1 => it.algorithms = vec![Algorithm::RS256],
        2 => it.max_ttl = secs(60),
        _ => {}
    })
    .await;
    assert!(many.has(0, "a").await);
    assert!(matches!(many.key(1, "a").await, Err(Error::Key(KeyError::NoKeys | KeyError::NoMatch))));
    assert!(many.has(2, "a").await);
    assert_eq!(many.source.asked(), 1);
    // What is due for one is fetched, and that serves the others too.
    many.clock.advance(secs(61));
    many.source.set(keys(&[("c", 3)], "max-age=300"));
    assert!(many.has(2, "c").await);
    assert_eq!(many.source.asked(), 2);
    assert!(many.has(0, "c").await);
    assert_eq!(many.source.asked(), 2, "a kid that is missing is looked for in what others were brought");
}

#[tokio::test]
async fn a_document_that_one_refuses_is_judged_by_the_other_itself() {
    let many = Many::with(2, |n, it| it.max_keys = if n == 0 { 1 } else { 9 }).await;
    assert!(many.resolve(0).await.is_err());
    assert_eq!(kids(&many.resolve(1).await.unwrap()), ["a", "b"]);
    assert!(many.resolve(0).await.is_err());
}

#[tokio::test]
async fn denials_are_each_tenants_own() {
    let many = Many::new(2).await;
    many.resolve(0).await.unwrap();
    many.registry.deny_key(&tenant(0), PROVIDER, "a").await.unwrap();
    assert!(!many.has(0, "a").await && many.has(1, "a").await);
    assert_eq!(kids(&many.resolve(0).await.unwrap()), ["b"]);
}

#[tokio::test]
async fn a_flood_of_one_tenant_costs_the_source_one_budget() {
    let many = Many::new(3).await;
    for n in 0..3 {
        many.resolve(n).await.unwrap();
    }
    let start = many.source.asked();
    for second in 0..100 {
        for flood in 0..100 {
            assert!(!many.has(flood % 2, &format!("bogus-{second}-{flood}")).await);
        }
        many.clock.advance(secs(1));
    }
    let asked = many.source.asked() - start;
    assert!((9..=11).contains(&asked), "{asked} requests in ten intervals of two tenants' floods");
}

#[tokio::test]
async fn another_tenant_waits_at_most_for_the_rest_of_one_interval() {
    let many = Many::new(2).await;
    for n in 0..2 {
        many.resolve(n).await.unwrap();
    }
    let mut waited = None;
    for second in 0..30 {
        if second == 3 {
            many.source.set(keys(&[("a", 1), ("new", 3)], "max-age=300"));
        }
        // The flood always comes first.
        for flood in 0..50 {
            assert!(!many.has(0, &format!("bogus-{second}-{flood}")).await);
        }
        if second >= 3 && waited.is_none() && many.has(1, "new").await {
            waited = Some(second - 3);
        }
        many.clock.advance(secs(1));
    }
    assert!(waited.is_some_and(|waited| waited <= 10), "{waited:?}");
}

#[tokio::test]
async fn a_kid_missing_in_one_tenant_is_not_remembered_in_another() {
    let many = Many::with(2, |n, it| it.kid_miss_interval = secs(if n == 0 { 10 } else { 1 })).await;
    for n in 0..2 {
        many.resolve(n).await.unwrap();
    }
    assert!(!many.has(0, "new").await);
    many.source.set(keys(&[("new", 3)], "max-age=300"));
    many.clock.advance(secs(2));
    assert!(many.has(1, "new").await, "the budget was spent by the other, the memory was not");
    assert!(many.has(0, "new").await, "and what it was brought serves the first");
}

#[tokio::test]
async fn who_insists_gets_an_exchange_that_began_after() {
    let many = Many::new(2).await;
    many.resolve(0).await.unwrap();
    many.resolve(1).await.unwrap();
    many.source.set(keys(&[("new", 3)], "max-age=300"));
    many.clock.advance(secs(2));
    many.registry.refresh_and_wait(&tenant(1), PROVIDER).await.unwrap();
    assert_eq!((many.source.asked(), kids(&many.resolve(1).await.unwrap())), (2, vec!["new".to_owned()]));
}

#[tokio::test]
async fn who_asks_otherwise_shares_nothing() {
    let check = async |change: fn(&mut IdentityProviderRegistration), shared: bool| {
        let many = Many::with(2, |n, it| {
            if n == 1 {
                change(it)
            }
        })
        .await;
        many.resolve(0).await.unwrap();
        many.resolve(1).await.unwrap();
        assert_eq!(many.source.asked(), if shared { 1 } else { 2 });
    };
    check(|it| it.stale_while_error = secs(5), true).await;
    check(|it| it.max_response_bytes = 5_000, false).await;
    check(|it| it.max_redirects = 0, false).await;
    check(|it| it.retry_policy.attempt_timeout = secs(4), false).await;
    check(|it| it.allowed_domains = vec!["idp.test".into()], false).await;
    check(|it| it.jwks_url.set_query(Some("tenant=2")), false).await;
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_not_met_by_a_request_of_each() {
    let many = Many::with(100, |_, it| it.retry_policy.max_retries = 0).await;
    many.source.set(Answer::Refused);
    for n in 0..100 {
        many.resolve(n).await.unwrap_err();
    }
    assert!(many.source.asked() <= 2, "{} requests", many.source.asked());
    many.source.set(keys(AB, "max-age=300"));
    many.clock.advance(secs(11));
    for n in 0..100 {
        many.resolve(n).await.unwrap();
    }
}

#[tokio::test]
async fn a_leader_that_goes_hands_its_exchange_on() {
    let many = Many::new(2).await;
    many.source.hold();
    let first = tokio::spawn({
        let registry = many.registry.clone();
        async move { registry.resolve(&tenant(0), PROVIDER, None).await }
    });
    many.source.wait_for(1).await;
    let second = tokio::spawn({
        let registry = many.registry.clone();
        async move { registry.resolve(&tenant(1), PROVIDER, None).await }
    });
    settle().await;
    assert_eq!(many.source.asked(), 1, "the second joins");
    many.registry.unregister(&tenant(0), PROVIDER).await.unwrap();
    many.source.wait_for(2).await;
    many.source.release();
    assert!(soon(first).await.unwrap().is_err());
    assert_eq!(kids(&soon(second).await.unwrap().unwrap()), ["a", "b"]);
}

#[tokio::test]
async fn who_comes_after_everybody_left_starts_empty() {
    let many = Many::new(2).await;
    many.resolve(0).await.unwrap();
    for n in 0..2 {
        many.registry.unregister(&tenant(n), PROVIDER).await.unwrap();
    }
    many.register(1, |_| ()).await;
    many.resolve(1).await.unwrap();
    assert_eq!(many.source.asked(), 2);
    // While somebody is there, it serves the next.
    many.register(0, |_| ()).await;
    many.resolve(0).await.unwrap();
    assert_eq!(many.source.asked(), 2);
}

#[tokio::test]
async fn what_one_refuses_in_a_map_of_certificates_the_other_takes() {
    let many = Many::with(2, |n, it| (it.format, it.max_keys) = (KeyFormat::X509Map, [1, 9][n])).await;
    let root = Authority::new("root");
    let pem = |name: &str| root.server(&[name]).chain_pem();
    let map = json!({"one": pem("a.example"), "two": pem("b.example")});
    many.source.set(body(map.to_string(), "max-age=300"));
    many.source.hold();
    let read = |n| {
        let registry = many.registry.clone();
        tokio::spawn(async move { registry.resolve(&tenant(n), PROVIDER, None).await })
    };
    let first = read(0);
    many.source.wait_for(1).await;
    let second = read(1);
    settle().await;
    many.source.release();
    assert!(soon(first).await.unwrap().is_err());
    assert_eq!(kids(&soon(second).await.unwrap().unwrap()), ["one", "two"]);
    assert_eq!(many.source.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn who_has_all_the_time_holds_up_nobody_else() {
    let many = Many::with(2, |n, it| {
        if n == 0 {
            (it.retry_policy.attempt_timeout, it.retry_policy.deadline) = (secs(600), secs(900));
        }
    })
    .await;
    many.source.push(Answer::Hang);
    let registry = many.registry.clone();
    let patient = tokio::spawn(async move { registry.resolve(&tenant(0), PROVIDER, None).await });
    many.source.wait_for(1).await;
    assert_eq!(kids(&many.resolve(1).await.unwrap()), ["a", "b"]);
    patient.abort();
}

#[tokio::test(start_paused = true)]
async fn neither_a_refused_document_nor_a_hanging_source_is_met_by_each() {
    for broken in [body("<html>", "max-age=300"), body(r#"{"keys":[{}]}"#, "max-age=300"), Answer::Hang] {
        let many = Many::with(100, |_, it| it.retry_policy.max_retries = 0).await;
        many.source.set(broken.clone());
        for n in 0..100 {
            many.resolve(n).await.unwrap_err();
        }
        assert!(many.source.asked() <= 2, "{} requests of {broken:?}", many.source.asked());
        many.source.set(keys(AB, "max-age=300"));
        many.clock.advance(secs(11));
        for n in 0..100 {
            many.resolve(n).await.unwrap();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_of_use_to_nobody_is_not_fetched_by_each() {
    let empty = document(Vec::new(), "max-age=300");
    for useless in [empty, document(vec![jwk("c", 3); 3], "max-age=300"), Answer::Refused] {
        let many = Many::with(100, |_, it| (it.max_keys, it.stale_while_error) = (2, secs(3_600))).await;
        for n in 0..100 {
            many.resolve(n).await.unwrap();
        }
        many.source.set(useless.clone());
        for second in 0..600 {
            many.clock.advance(secs(1));
            tokio::time::sleep(secs(1)).await;
            for n in (second % 10..100).step_by(10) {
                many.resolve(n).await.unwrap();
            }
        }
        let asked = many.source.asked();
        assert!(asked <= 40, "{asked} requests of {useless:?}");
        // Another is found when the longest wait is over, and by the others after theirs.
        many.source.set(keys(&[("c", 3)], "max-age=300"));
        for second in 0..610 {
            many.clock.advance(secs(1));
            tokio::time::sleep(secs(1)).await;
            for n in (second % 10..100).step_by(10) {
                many.resolve(n).await.unwrap();
            }
        }
        for n in 0..100 {
            assert_eq!(kids(&many.resolve(n).await.unwrap()), ["c"]);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_long_outage_of_others_keeps_nobody_without_keys_waiting_for_long() {
    let many = Many::with(2, |_, it| it.stale_while_error = secs(3_600)).await;
    many.resolve(0).await.unwrap();
    many.source.set(Answer::Refused);
    for _ in 0..1_000 {
        many.clock.advance(secs(1));
        tokio::time::sleep(secs(1)).await;
        many.resolve(0).await.unwrap();
    }
    many.registry.refresh_and_wait(&tenant(0), PROVIDER).await.unwrap_err();
    many.register(2, |_| ()).await;
    many.resolve(2).await.unwrap_err();
    many.source.set(keys(AB, "max-age=300"));
    many.registry.unregister(&tenant(0), PROVIDER).await.unwrap();
    let mut waited = 0;
    while many.resolve(2).await.is_err() {
        many.clock.advance(secs(1));
        tokio::time::sleep(secs(1)).await;
        waited += 1;
        assert!(waited <= 20, "{waited} s after the outage");
    }
    // Who insists is not kept waiting at all.
    many.source.set(Answer::Refused);
    many.clock.advance(secs(2));
    many.registry.refresh_and_wait(&tenant(2), PROVIDER).await.unwrap_err();
    many.source.set(keys(&[("c", 3)], "max-age=300"));
    many.registry.refresh_and_wait(&tenant(1), PROVIDER).await.unwrap();
    assert_eq!(kids(&many.resolve(1).await.unwrap()), ["c"]);
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_the_source_asks_for_is_the_same_for_all() {
    let many = Many::new(2).await;
    many.source.set(Answer::Status(503, Some(secs(100))));
    many.resolve(0).await.unwrap_err();
    many.clock.advance(secs(60));
    many.resolve(1).await.unwrap_err();
    assert_eq!(many.source.asked(), 1);
    many.source.set(keys(AB, "max-age=300"));
    many.clock.advance(secs(41));
    assert_eq!(kids(&many.resolve(1).await.unwrap()), ["a", "b"]);
}

#[tokio::test]
async fn a_missing_kid_is_not_looked_for_in_what_a_cache_on_the_way_may_have_kept() {
    let clock = ManualClock::new();
    let source = Script::new(&clock);
    source.set(keys(AB, "max-age=300"));
    let builder = Registry::builder().clock(Arc::new(clock.clone())).fetcher(source.clone());
    let registry = builder.max_concurrent_fetches(1).build();
    let many = Many { clock, source, registry };
    many.register(0, |_| ()).await;
    many.resolve(0).await.unwrap();
    many.register(1, |it| (it.max_ttl, it.refresh_early) = (secs(30), secs(1))).await;
    many.register(2, |it| it.jwks_url = "https://other.test/jwks".parse().unwrap()).await;
    many.clock.advance(secs(60));
    // Another source has the only place; then comes a missing kid, and then a reader, who goes first.
    many.source.hold();
    let spawn = |n, kid: Option<&'static str>| {
        let registry = many.registry.clone();
        tokio::spawn(async move {
            match kid {
                Some(kid) => {
                    let _ = registry.key(&tenant(n), PROVIDER, Some(kid), Algorithm::EdDSA).await;
                }
                None => drop(registry.resolve(&tenant(n), PROVIDER, None).await),
            }
        })
    };
    let asked = many.source.asked();
    let mut waiting = vec![spawn(2, None)];
    many.source.wait_for(asked + 1).await;
    waiting.push(spawn(0, Some("new")));
    settle().await;
    waiting.push(spawn(1, None));
    settle().await;
    many.source.release();
    for one in waiting {
        soon(one).await.unwrap();
    }
    let bypassing: Vec<_> =
        (asked..many.source.asked()).map(|n| many.source.request(n).bypass_caches).collect();
    assert_eq!(bypassing, [false, false, true]);
}

#[tokio::test(start_paused = true)]
async fn a_fallback_is_asked_once_for_all_too() {
    const MIRROR: &str = "mirror.test";
    let fallback = Fallback::url(format!("https://{MIRROR}/jwks")).unwrap();
    let many = Many::with(20, |_, it| it.fallbacks = vec![fallback.clone()]).await;
    many.source.set(Answer::Refused);
    many.source.set_at(MIRROR, keys(&[("m", 8)], "max-age=300"));
    for n in 0..20 {
        assert_eq!(kids(&many.resolve(n).await.unwrap()), ["m"]);
        many.clock.advance(secs(1));
    }
    assert_eq!(many.source.asked_at(MIRROR), 1);
    // When it is due, one asks again.
    many.clock.advance(secs(300));
    many.source.set_at(MIRROR, keys(&[("n", 9)], "max-age=300"));
    for _ in 0..2 {
        for n in 0..20 {
            many.resolve(n).await.unwrap();
        }
        settle().await;
        tokio::time::sleep(secs(5)).await;
    }
    for n in 0..20 {
        assert_eq!(kids(&many.resolve(n).await.unwrap()), ["n"]);
    }
    assert_eq!(many.source.asked_at(MIRROR), 2);
}

#[tokio::test]
async fn tenants_that_come_one_after_the_other_make_one_request_a_refresh_period() {
    let many = Many::new(0).await;
    for n in 0..TENANTS {
        many.register(n, |_| ()).await;
        many.resolve(n).await.unwrap();
        many.clock.advance(secs(1));
        settle().await;
        for old in (n % 50..n).step_by(50) {
            many.resolve(old).await.unwrap();
        }
    }
    // The first draws its first timer early, so that sources part.
    assert!((4..=6).contains(&many.source.asked()), "{} requests in 1,000 s", many.source.asked());
}

#[tokio::test]
async fn a_kid_that_was_published_before_the_lookup_is_found_though_an_older_exchange_was_joined() {
    let many = Many::new(2).await;
    many.source.hold();
    let resolving = tokio::spawn({
        let registry = many.registry.clone();
        async move { registry.resolve(&tenant(0), PROVIDER, None).await }
    });
    many.source.wait_for(1).await;
    many.source.set(keys(&[("new", 3)], "max-age=300"));
    many.clock.advance(secs(1));
    let registry = many.registry.clone();
    let looking = tokio::spawn(async move {
        registry.key(&tenant(1), PROVIDER, Some("new"), Algorithm::EdDSA).await.map(drop)
    });
    settle().await;
    assert_eq!(many.source.asked(), 1, "it joins");
    many.source.release();
    soon(resolving).await.unwrap().unwrap();
    soon(looking).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_new_kid_waits_for_the_exchange_that_looks_for_it() {
    let many = Many::new(3).await;
    for n in 0..3 {
        many.resolve(n).await.unwrap();
    }
    many.clock.advance(secs(1));
    many.source.set(keys(&[("new", 3)], "max-age=300"));
    many.source.hold();
    let look = |n, kid: &'static str| {
        let registry = many.registry.clone();
        tokio::spawn(async move {
            registry.key(&tenant(n), PROVIDER, Some(kid), Algorithm::EdDSA).await.map(drop)
        })
    };
    let first = look(0, "new");
    many.source.wait_for(2).await;
    let others = [look(1, "new"), look(2, "bogus")];
    settle().await;
    many.source.release();
    soon(first).await.unwrap().unwrap();
    let [same, bogus] = others;
    soon(same).await.unwrap().unwrap();
    soon(bogus).await.unwrap().unwrap_err();
    assert_eq!(many.source.asked(), 2, "one budget");
}

/// Two tenants of one URL, of which the second is changed: what each asks is its own.
async fn parted(stage: &secured::Stage, name: &str, change: impl Fn(&mut IdentityProviderRegistration)) {
    let registry = registry(&stage.clock);
    let before = stage.origin.total();
    for tenant in ["one", "two"] {
        let mut it = stage.registration();
        (it.tenant_id, it.refresh_mode) = (tenant.into(), RefreshMode::OnDemand);
        if tenant == "two" {
            change(&mut it);
        }
        registry.register(it).await.unwrap();
        soon(registry.resolve(tenant, PROVIDER, None)).await.unwrap();
    }
    assert_eq!(stage.origin.total() - before, 2, "{name}");
}

#[tokio::test]
async fn who_is_another_or_trusts_others_shares_nothing() {
    let stage = secured::Stage::new();
    let parted = async |name: &str, change: &dyn Fn(&mut IdentityProviderRegistration)| {
        parted(&stage, name, change).await;
    };
    let proxy = Proxy::start();
    let ours = secured::client_certificate(&stage.root.client("us"));
    let both = stage.root.pem() + &Authority::new("another").pem();
    parted("headers", &|it| drop(it.headers.insert("X-Api-Key".into(), "2".into()))).await;
    parted("bearer_token", &|it| it.bearer_token = Some(Material::inline("abc.def"))).await;
    parted("user_agent", &|it| it.user_agent = Some("another/1".into())).await;
    parted("pinned_spki", &|it| it.pinned_spki = vec![stage.leaf.pin()]).await;
    parted("pin_mode", &|it| {
        (it.pin_mode, it.pinned_spki) = (PinMode::ReportOnly, vec![SpkiFingerprint::of(b"")]);
    })
    .await;
    parted("ca", &|it| it.tls.ca = Some(Material::inline(both.clone()))).await;
    parted("replace_roots", &|it| it.tls.replace_roots = true).await;
    parted("min_version", &|it| it.tls.min_version = Some(TlsVersion::Tls13)).await;
    parted("client_certificate", &|it| it.tls.client_certificate = Some(ours.clone())).await;
    parted("private_networks", &|it| {
        it.private_networks = PrivateNetworks::DenyExcept(vec!["127.0.0.1".into()]);
    })
    .await;
    parted("proxy", &|it| it.proxy = Some(proxy.url("user:pass"))).await;
    parted("connect_timeout", &|it| it.connect_timeout = Some(secs(1))).await;
    parted("allowed_domains", &|it| it.allowed_domains = vec![secured::HOST.into()]).await;
}

#[tokio::test]
async fn what_came_unpinned_does_not_serve_who_pins() {
    let stage = secured::Stage::new();
    for (tenant, pins) in [("open", vec![]), ("pinned", vec![SpkiFingerprint::of(b"")]), ("open2", vec![])] {
        let mut it = stage.registration();
        let pinned = !pins.is_empty();
        (it.tenant_id, it.pinned_spki) = (tenant.into(), pins);
        stage.registry.register(it).await.unwrap();
        let got = soon(stage.registry.resolve(tenant, PROVIDER, None)).await;
        match got {
            Err(why) => assert!(pinned && matches!(why, Error::Security(_)), "{tenant}: {why}"),
            Ok(set) => assert!(!pinned && kids(&set) == ["k"], "{tenant}"),
        }
    }
    assert_eq!(stage.origin.total(), 1, "the third shares with the first");
}

#[tokio::test]
async fn a_fallback_of_who_has_another_home_is_asked_by_each() {
    // Credentials go to the registered origin alone: to one it is that origin, to the other a stranger.
    let clock = ManualClock::new();
    let (mirror, other) = (Origin::start(), Origin::start());
    mirror.set("/jwks", Reply::json(socket::document(&["k"])).header("Cache-Control", "max-age=300"));
    let registry = registry(&clock);
    for (tenant, url) in [("at-home", mirror.url("/gone")), ("abroad", other.url("/gone"))] {
        let mut it = socket::registration(url);
        it.tenant_id = tenant.into();
        it.headers.insert("X-Api-Key".into(), "secret".into());
        it.fallbacks = vec![Fallback::url(mirror.url("/jwks")).unwrap()];
        registry.register(it).await.unwrap();
        assert_eq!(kids(&soon(registry.resolve(tenant, PROVIDER, None)).await.unwrap()), ["k"]);
    }
    let keys: Vec<_> = mirror.requests("/jwks").iter().map(|it| it.header("x-api-key").is_some()).collect();
    assert_eq!(keys, [true, false]);
}
