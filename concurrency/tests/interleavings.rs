//! The registry under a scheduler that tries interleavings of its threads and tasks: at every lock, atomic
//! and await another may go on. `JWKS_CACHE_SCHEDULES=n` sets how many each test tries.
#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use chrono::{DateTime, Utc};
use jwks_cache_concurrency::{
    Algorithm, Clock, Error, Fetch, FetchRequest, Fetched, Fetching, IdentityProviderRegistration, Moment,
    NotFetched, ProviderHandle, Registry, Sleep, Timing,
};
use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use shuttle::{Config, Runner, future, thread};

const TENANT: &str = "tenant";
const PROVIDER: &str = "provider";
/// A public key of RFC 8032 §7.1; what matters here is the kid, which counts the documents.
const X: &str = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";

/// Tries `scenario` under a random scheduler, and under one that hunts orders of few steps.
fn explore(scenario: fn()) {
    let schedules = std::env::var("JWKS_CACHE_SCHEDULES").map_or(2_000, |text| text.parse().unwrap());
    let half = schedules / 2;
    run(RandomScheduler::new(half), scenario);
    run(PctScheduler::new(3, half), scenario);
    println!("{schedules} schedules");
}

fn run(scheduler: impl Scheduler + 'static, scenario: fn()) {
    let mut config = Config::new();
    // Without optimisation the futures of a flight take more than the default.
    config.stack_size = 256 * 1024;
    Runner::new(scheduler, config).run(scenario);
}

/// Policy time that a test moves; whoever sleeps wakes when it moves.
#[derive(Debug, Default)]
struct Hand {
    seconds: AtomicUsize,
    moved: tokio::sync::Notify,
}

impl Hand {
    fn forward(&self, seconds: usize) {
        self.seconds.fetch_add(seconds, SeqCst);
        self.moved.notify_waiters();
    }
}

/// The clock of a registry: it does not keep the hand alive, as a sleeper may outlive its test.
#[derive(Debug)]
struct HandClock(Arc<Hand>);

impl Clock for HandClock {
    fn now(&self) -> Moment {
        Moment::ORIGIN + Duration::from_secs(1_000 + self.0.seconds.load(SeqCst) as u64)
    }

    fn wall(&self) -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000 + self.0.seconds.load(SeqCst) as i64, 0).unwrap()
    }

    fn sleep_until(&self, moment: Moment) -> Sleep {
        let hand = self.0.clone();
        let clock = Self(hand.clone());
        Box::pin(async move {
            while clock.now() < moment {
                let moved = hand.moved.notified();
                if clock.now() >= moment {
                    break;
                }
                moved.await;
            }
        })
    }
}

/// Publishes a new document at every request, and never sees two requests of one source at a time.
#[derive(Debug)]
struct Origin {
    clock: HandClock,
    asked: AtomicUsize,
    /// By source: how many requests are on their way.
    flying: [AtomicUsize; 2],
    /// The first so many requests fail.
    down: usize,
}

impl Fetch for Origin {
    fn fetch<'a>(&'a self, request: &'a FetchRequest) -> Fetching<'a> {
        Box::pin(async move {
            let requested_at = self.clock.now();
            let number = self.asked.fetch_add(1, SeqCst) + 1;
            let source = request.url.path().trim_start_matches('/');
            let flying = &self.flying[usize::from(source == "b")];
            assert_eq!(flying.fetch_add(1, SeqCst), 0, "two requests at a time");
            let airborne = Airborne(flying);
            for _ in 0..3 {
                future::yield_now().await;
            }
            drop(airborne);
            if number <= self.down {
                return Err(NotFetched { requests: 1, ..NotFetched::new("connect", "down") });
            }
            let body = format!(
                r#"{{"keys":[{{"kty":"OKP","crv":"Ed25519","alg":"EdDSA","kid":"{source}-{number}","x":"{X}"}}]}}"#
            );
            let headers = [(http::header::CACHE_CONTROL, "max-age=300".parse().unwrap())];
            let timing =
                Timing { requested_at, received_at: self.clock.now(), received_wall: self.clock.wall() };
            Ok(Fetched {
                status: http::StatusCode::OK,
                headers: headers.into_iter().collect(),
                body: body.into(),
                timing,
                requests: 1,
            })
        })
    }
}

struct Airborne<'a>(&'a AtomicUsize);

impl Drop for Airborne<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

struct Stage {
    registry: Registry,
    origin: Arc<Origin>,
    hand: Arc<Hand>,
}

impl Stage {
    fn new(down: usize) -> Self {
        let hand = Arc::new(Hand::default());
        let origin = Arc::new(Origin {
            clock: HandClock(hand.clone()),
            asked: AtomicUsize::new(0),
            flying: Default::default(),
            down,
        });
        let registry = Registry::builder()
            .clock(Arc::new(HandClock(hand.clone())))
            .fetcher(origin.clone())
            .seed(1)
            .build();
        future::block_on(registry.register(registration("a"))).unwrap();
        Self { registry, origin, hand }
    }

    /// With the first document held.
    fn warm() -> Self {
        let stage = Self::new(0);
        assert_eq!(number(&future::block_on(stage.handle().resolve(None)).unwrap()), 1);
        stage
    }

    fn handle(&self) -> ProviderHandle {
        self.registry.provider(TENANT, PROVIDER).unwrap()
    }

    fn asked(&self) -> usize {
        self.origin.asked.load(SeqCst)
    }

    /// Waits until nothing runs any more: a schedule that ends earlier drops its tasks in the middle of a step.
    fn over(self) {
        let Self { registry, origin, hand } = self;
        future::block_on(registry.shutdown());
        drop(registry);
        hand.forward(1_000_000);
        while Arc::strong_count(&origin) > 1 {
            thread::yield_now();
        }
    }
}

fn registration(source: &str) -> IdentityProviderRegistration {
    let url = format!("https://provider.example/{source}");
    let mut registration = IdentityProviderRegistration::new(TENANT, PROVIDER, &url).unwrap();
    registration.removal_grace = Duration::ZERO;
    registration.retry_policy.max_retries = 0;
    registration
}

/// Which document a set is.
fn number(set: &jwks_cache_concurrency::JwkSet) -> usize {
    kid(set).1
}

/// From which source a set is, and which document.
fn kid(set: &jwks_cache_concurrency::JwkSet) -> (String, usize) {
    let kid = set.keys.first().unwrap().common.key_id.clone().unwrap();
    let (source, number) = kid.split_once('-').unwrap();
    (source.to_owned(), number.parse().unwrap())
}

/// Lets time pass while `what` runs: whoever asks again within a second waits for the next.
fn while_time_passes(hand: &Arc<Hand>, what: impl FnOnce()) {
    let (over, hand) = (Arc::new(AtomicBool::new(false)), hand.clone());
    let until = over.clone();
    let passing = thread::spawn(move || {
        while !until.load(SeqCst) {
            hand.forward(1);
            thread::yield_now();
        }
    });
    what();
    over.store(true, SeqCst);
    passing.join().unwrap();
}

/// Runs `what` in so many threads at once and waits for all.
fn at_once<T: Send + 'static>(many: usize, what: impl Fn(usize) -> T + Clone + Send + 'static) -> Vec<T> {
    let start = |i| {
        let what = what.clone();
        thread::spawn(move || what(i))
    };
    let all: Vec<_> = (0..many).map(start).collect();
    all.into_iter().map(|one| one.join().unwrap()).collect()
}

#[test]
fn readers_of_a_cold_provider_share_one_flight_and_all_are_told() {
    explore(|| {
        let stage = Stage::new(0);
        let handle = stage.handle();
        let seen = at_once(3, move |_| number(&future::block_on(handle.resolve(None)).unwrap()));
        assert_eq!((seen, stage.asked()), (vec![1; 3], 1));
        stage.over();
    });
}

#[test]
fn readers_of_a_dead_provider_share_one_failure() {
    explore(|| {
        let stage = Stage::new(usize::MAX);
        let mut patient = registration("a");
        patient.negative_cache_ttl = Duration::from_secs(30);
        future::block_on(stage.registry.register(patient)).unwrap();
        let handle = stage.handle();
        let told = at_once(3, move |_| future::block_on(handle.resolve(None)).is_err());
        assert_eq!((told, stage.asked()), (vec![true; 3], 1));
        stage.over();
    });
}

#[test]
fn readers_of_due_keys_never_fail_never_see_an_older_set_again_and_start_one_flight() {
    explore(|| {
        let stage = Stage::warm();
        stage.hand.forward(295);
        let handle = stage.handle();
        at_once(3, move |_| {
            let mut newest = 0;
            for _ in 0..3 {
                let seen = number(&future::block_on(handle.resolve(None)).unwrap());
                assert!(seen >= newest, "{seen} after {newest}");
                newest = seen;
                future::block_on(future::yield_now());
            }
        });
        // The flight may still be on its way.
        assert!(stage.asked() <= 2, "{} requests", stage.asked());
        stage.over();
    });
}

#[test]
fn a_rotation_under_readers_is_seen_by_all_in_order() {
    explore(|| {
        let stage = Stage::warm();
        let (handle, registry) = (stage.handle(), stage.registry.clone());
        while_time_passes(&stage.hand, || {
            at_once(3, move |i| {
                let mut newest = 0;
                for _ in 0..2 {
                    if i == 0 {
                        future::block_on(registry.refresh_and_wait(TENANT, PROVIDER)).unwrap();
                    }
                    let seen = number(&future::block_on(handle.resolve(None)).unwrap());
                    assert!(seen >= newest, "{seen} after {newest}");
                    newest = seen;
                }
            });
        });
        assert!(number(&future::block_on(stage.handle().resolve(None)).unwrap()) >= 3);
        stage.over();
    });
}

#[test]
fn who_refreshes_and_waits_gets_a_document_asked_for_after_the_call() {
    explore(|| {
        let stage = Stage::warm();
        let (registry, handle, origin) = (stage.registry.clone(), stage.handle(), stage.origin.clone());
        while_time_passes(&stage.hand, || {
            at_once(3, move |_| {
                let before = origin.asked.load(SeqCst);
                future::block_on(registry.refresh_and_wait(TENANT, PROVIDER)).unwrap();
                assert!(number(&future::block_on(handle.resolve(None)).unwrap()) > before);
            });
        });
        stage.over();
    });
}

#[test]
fn unknown_kids_at_once_cost_one_flight() {
    explore(|| {
        let stage = Stage::warm();
        stage.hand.forward(60);
        let handle = stage.handle();
        let found = at_once(3, move |i| {
            let wanted = if i == 0 { "a-2".to_owned() } else { format!("nobody-{i}") };
            future::block_on(handle.key(Some(&wanted), Algorithm::EdDSA)).is_ok()
        });
        // The one whose kid the rotation brought has it, whoever asked first.
        assert_eq!((found, stage.asked()), (vec![true, false, false], 2));
        stage.over();
    });
}

#[test]
fn shutdown_tells_everyone_who_waits_and_nothing_flies_after_it() {
    explore(|| {
        let stage = Stage::new(0);
        let (handle, registry) = (stage.handle(), stage.registry.clone());
        at_once(3, move |i| {
            if i == 0 {
                future::block_on(registry.shutdown());
            } else {
                match future::block_on(handle.resolve(None)) {
                    Ok(set) => assert_eq!(number(&set), 1),
                    Err(error) => assert!(error.to_string().contains("shut down"), "{error}"),
                }
            }
        });
        // Whether it landed before or not, nobody waits for another flight.
        let _ = future::block_on(stage.registry.resolve(TENANT, PROVIDER, None));
        assert!(stage.asked() <= 1, "{} requests", stage.asked());
        stage.over();
    });
}

#[test]
fn unregistering_tells_everyone_who_waits() {
    explore(|| {
        let stage = Stage::new(0);
        let (handle, registry) = (stage.handle(), stage.registry.clone());
        at_once(3, move |i| {
            if i == 0 {
                assert!(future::block_on(registry.unregister(TENANT, PROVIDER)).unwrap());
            } else {
                match future::block_on(handle.resolve(None)) {
                    Ok(set) => assert_eq!(number(&set), 1),
                    Err(error) => assert!(matches!(error, Error::NotRegistered { .. }), "{error}"),
                }
            }
        });
        stage.over();
    });
}

#[test]
fn after_another_source_was_registered_nobody_gets_keys_of_the_old_one() {
    explore(|| {
        let stage = Stage::new(0);
        let (handle, registry) = (stage.handle(), stage.registry.clone());
        at_once(3, move |i| {
            if i == 0 {
                future::block_on(registry.register(registration("b"))).unwrap();
                assert_eq!(kid(&future::block_on(handle.resolve(None)).unwrap()).0, "b");
            } else {
                future::block_on(handle.resolve(None)).unwrap();
            }
        });
        assert_eq!(kid(&future::block_on(stage.handle().resolve(None)).unwrap()).0, "b");
        stage.over();
    });
}

#[test]
fn a_caller_who_goes_away_takes_nobody_along() {
    explore(|| {
        let stage = Stage::new(0);
        let (first, second) = (stage.handle(), stage.handle());
        let gone = future::spawn(async move { first.resolve(None).await.map(|set| number(&set)) });
        let stays = future::spawn(async move { second.resolve(None).await.map(|set| number(&set)) });
        gone.abort();
        let _ = future::block_on(gone);
        assert_eq!(future::block_on(stays).unwrap().unwrap(), 1);
        assert_eq!(stage.asked(), 1);
        stage.over();
    });
}

#[test]
fn registering_the_same_again_never_moves_an_issuer() {
    // {"alg":"EdDSA"} and {"iss":"https://mine"}, {"iss":"https://shared"}; what they are signed by is not asked.
    const MINE: &str = "eyJhbGciOiJFZERTQSJ9.eyJpc3MiOiJodHRwczovL21pbmUifQ.AAAA";
    const SHARED: &str = "eyJhbGciOiJFZERTQSJ9.eyJpc3MiOiJodHRwczovL3NoYXJlZCJ9.AAAA";
    fn of(tenant: &str, issuer: &str) -> IdentityProviderRegistration {
        let mut it = registration("a");
        (it.tenant_id, it.issuer) = (tenant.into(), Some(issuer.into()));
        it
    }
    explore(|| {
        let stage = Stage::new(0);
        let register = |registry: &Registry, tenant: &str, issuer: &str| {
            future::block_on(registry.register(of(tenant, issuer))).unwrap();
        };
        register(&stage.registry, "mine", "https://mine");
        register(&stage.registry, "one", "https://shared");
        register(&stage.registry, "two", "https://shared");
        let verifier = stage.registry.verifier().any_audience().build().unwrap();
        let registry = stage.registry.clone();
        at_once(2, move |i| {
            if i == 0 {
                register(&registry, "mine", "https://mine");
                register(&registry, "one", "https://shared");
                return;
            }
            for _ in 0..3 {
                let found = |token: &str| verifier.explain(token).tenant_id;
                assert_eq!((found(MINE).as_deref(), found(SHARED)), (Some("mine"), None));
                thread::yield_now();
            }
        });
        stage.over();
    });
}

#[test]
fn a_name_is_found_at_every_moment_while_others_come_and_go() {
    explore(|| {
        let stage = Stage::new(0);
        let registry = stage.registry.clone();
        let named = |tenant: &str| {
            let mut it = registration("a");
            it.tenant_id = tenant.into();
            it
        };
        let done = Arc::new(AtomicBool::new(false));
        at_once(2, move |i| {
            if i == 0 {
                // So many that the index grows, and one whose place the next may take.
                for other in 0..7 {
                    future::block_on(registry.register(named(&format!("other-{other}")))).unwrap();
                    if other == 4 {
                        assert!(future::block_on(registry.unregister("other-4", PROVIDER)).unwrap());
                        assert!(registry.provider("other-4", PROVIDER).is_err());
                    }
                }
                assert!(registry.provider("other-6", PROVIDER).is_ok());
                done.store(true, SeqCst);
                return;
            }
            while !done.load(SeqCst) {
                registry.provider(TENANT, PROVIDER).unwrap();
                if let Ok(status) = future::block_on(registry.provider_status("other-4", PROVIDER)) {
                    assert_eq!(status.tenant_id, "other-4");
                }
                thread::yield_now();
            }
        });
        stage.over();
    });
}
