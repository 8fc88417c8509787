//! Whose key verifies a token: by tenant, by issuer, by the key's own issuer; never across, and never a request to
//! what is not registered.
#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

mod stage;

use std::sync::Arc;

use jwks_cache::{Registry, Verifier, VerifyError};
use jwks_cache_testkit::ManualClock;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};
use stage::at_once;
use stage::scripted::{Script, document, registration};
use stage::tokens::Signer;

/// Providers by host: each publishes one key, with the kid `k`.
struct World {
    source: Arc<Script>,
    registry: Registry,
}

impl World {
    fn new() -> Self {
        let clock = ManualClock::new();
        let source = Script::new(&clock);
        let registry = Registry::builder().clock(Arc::new(clock)).fetcher(source.clone()).build();
        Self { source, registry }
    }

    /// Registers a provider whose keys are at `host`.
    async fn register(&self, tenant: &str, provider: &str, host: &str, issuer: Option<&str>) {
        let mut registration = registration(tenant, provider, host);
        registration.issuer = issuer.map(str::to_owned);
        self.registry.register(registration).await.unwrap();
    }

    fn publish(&self, host: &str, keys: Vec<Value>) {
        self.source.set_at(host, document(keys, "max-age=300"));
    }

    /// A signer whose key is published at `host`.
    fn signer_at(&self, host: &str) -> Signer {
        let signer = Signer::ed();
        self.publish(host, vec![signer.jwk(Some("k"), None)]);
        signer
    }

    fn verifier(&self) -> Verifier {
        self.registry.verifier().any_audience().expiry_optional().build().unwrap()
    }
}

fn by(signer: &Signer, issuer: &str) -> String {
    signer.token("EdDSA", &json!({"iss": issuer}))
}

/// Where a token was accepted, as `tenant/provider`, or the name of the error.
fn place(result: Result<jwks_cache::Verified<Value>, VerifyError>) -> String {
    match result {
        Ok(verified) => format!("{}/{}", verified.tenant_id(), verified.provider_id()),
        Err(why) => format!("{why:?}").split('(').next().unwrap().to_owned(),
    }
}

#[tokio::test]
async fn the_issuer_finds_its_provider_among_all_and_in_a_tenant() {
    let world = World::new();
    let (a, b) = (world.signer_at("a.test"), world.signer_at("b.test"));
    world.register("one", "main", "a.test", Some("https://a")).await;
    world.register("two", "main", "b.test", Some("https://b")).await;
    let verifier = world.verifier();
    let any = async |token: String| place(verifier.verify(&token).await);
    let within = async |tenant, token: String| place(verifier.in_tenant(tenant).verify(&token).await);
    let at = async |tenant, token: String| place(verifier.of_provider(tenant, "main").verify(&token).await);

    assert_eq!(any(by(&a, "https://a")).await, "one/main");
    assert_eq!(any(by(&b, "https://b")).await, "two/main");
    // The same kid in two tenants: each key verifies for its own.
    assert_eq!(any(by(&a, "https://b")).await, "BadSignature");
    assert_eq!(any(by(&b, "https://a")).await, "BadSignature");
    assert_eq!(within("one", by(&a, "https://a")).await, "one/main");
    assert_eq!(within("two", by(&a, "https://a")).await, "UnknownProvider");
    assert_eq!(at("one", by(&a, "https://a")).await, "one/main");
    assert_eq!(at("two", by(&a, "https://a")).await, "BadSignature");
    assert_eq!(at("one", by(&a, "https://b")).await, "WrongIssuer");
    assert_eq!(at("one", a.token("EdDSA", &json!({}))).await, "MissingClaim");
    assert_eq!(any(a.token("EdDSA", &json!({}))).await, "MissingClaim");
    for iss in [json!(1), json!(null), json!(["https://a"])] {
        assert_eq!(any(a.token("EdDSA", &json!({"iss": iss}))).await, "IllTypedClaim");
    }
    for other in [
        "https://a/",
        "https://",
        "HTTPS://a",
        "https://a\u{0}",
        " https://a",
        "https://a.test",
        "",
        "one/main",
    ] {
        assert_eq!(any(by(&a, other)).await, "UnknownProvider", "{other:?}");
        assert_eq!(at("one", by(&a, other)).await, "WrongIssuer", "{other:?}");
    }
}

#[tokio::test]
async fn an_issuer_of_several_providers_leads_to_none_until_the_tenant_is_named() {
    let world = World::new();
    let shared = world.signer_at("shared.test");
    let (verifier, token) = (world.verifier(), by(&shared, "https://shared"));
    let any = async || place(verifier.verify(&token).await);
    let within = async |tenant| place(verifier.in_tenant(tenant).verify(&token).await);
    assert_eq!(any().await, "UnknownProvider");
    world.register("one", "main", "shared.test", Some("https://shared")).await;
    assert_eq!((any().await, within("one").await), ("one/main".into(), "one/main".into()));
    world.register("two", "main", "shared.test", Some("https://shared")).await;
    assert_eq!(any().await, "UnknownProvider");
    assert_eq!((within("one").await, within("two").await), ("one/main".into(), "two/main".into()));
    world.register("two", "second", "shared.test", Some("https://shared")).await;
    assert_eq!((within("one").await, within("two").await), ("one/main".into(), "UnknownProvider".into()));
    // And again when they go, one by one.
    world.registry.unregister("two", "main").await.unwrap();
    assert_eq!((any().await, within("two").await), ("UnknownProvider".into(), "two/second".into()));
    world.registry.unregister("one", "main").await.unwrap();
    assert_eq!((any().await, within("one").await), ("two/second".into(), "UnknownProvider".into()));
    world.registry.unregister("two", "second").await.unwrap();
    assert_eq!((any().await, within("two").await), ("UnknownProvider".into(), "UnknownProvider".into()));
}

#[tokio::test]
async fn registering_again_moves_a_provider_to_its_new_issuer_with_its_keys() {
    let world = World::new();
    let signer = world.signer_at("a.test");
    let verifier = world.verifier();
    let any = async |issuer| place(verifier.verify(&by(&signer, issuer)).await);
    world.register("one", "main", "a.test", Some("https://old")).await;
    assert_eq!(
        (any("https://old").await, any("https://new").await),
        ("one/main".into(), "UnknownProvider".into())
    );
    world.register("one", "main", "a.test", Some("https://new")).await;
    assert_eq!(
        (any("https://old").await, any("https://new").await),
        ("UnknownProvider".into(), "one/main".into())
    );
    assert_eq!(world.source.asked(), 1);
    world.register("one", "main", "a.test", None).await;
    assert_eq!(any("https://new").await, "UnknownProvider");
    // A registration that is refused changes nothing.
    world.register("one", "main", "a.test", Some("https://new")).await;
    let mut refused = registration("one", "main", "a.test");
    refused.issuer = Some(String::new());
    assert!(world.registry.register(refused).await.is_err());
    assert_eq!(any("https://new").await, "one/main");
}

#[test]
fn registering_the_same_again_is_not_noticed_by_who_verifies_meanwhile() {
    const TIMES: usize = 2_000;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let world = World::new();
    let signer = world.signer_at("a.test");
    let shared = world.signer_at("shared.test");
    runtime.block_on(async {
        world.register("one", "main", "a.test", Some("https://a")).await;
        for tenant in ["one", "two"] {
            world.register(tenant, "shared", "shared.test", Some("https://shared")).await;
        }
        let verifier = world.verifier();
        assert_eq!(place(verifier.verify(&by(&signer, "https://a")).await), "one/main");
        assert_eq!(
            place(verifier.in_tenant("two").verify(&by(&shared, "https://shared")).await),
            "two/shared"
        );
    });
    let over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|threads| {
        threads.spawn(|| {
            runtime.block_on(async {
                for _ in 0..TIMES {
                    world.register("one", "main", "a.test", Some("https://a")).await;
                    world.register("one", "shared", "shared.test", Some("https://shared")).await;
                }
            });
            over.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        let verifier = world.verifier();
        let (mine, of_two) = (by(&signer, "https://a"), by(&shared, "https://shared"));
        while !over.load(std::sync::atomic::Ordering::Relaxed) {
            assert_eq!(place(verifier.verify_now(&mine)), "one/main");
            assert_eq!(place(verifier.verify_now(&of_two)), "UnknownProvider");
        }
    });
}

#[tokio::test]
async fn without_a_registered_issuer_the_verifier_says_which_or_that_any_will_do() {
    let world = World::new();
    let signer = world.signer_at("a.test");
    world.register("one", "main", "a.test", None).await;
    let builder = || world.registry.verifier().any_audience().expiry_optional();
    for (verifier, mine, other) in [
        (builder().build().unwrap(), "WrongIssuer", "WrongIssuer"),
        (builder().issuer("https://a").build().unwrap(), "one/main", "WrongIssuer"),
        (builder().issuer("x").issuer("https://a").build().unwrap(), "one/main", "WrongIssuer"),
        (builder().any_issuer().build().unwrap(), "one/main", "one/main"),
    ] {
        let at = async |issuer| place(verifier.of_provider("one", "main").verify(&by(&signer, issuer)).await);
        assert_eq!((&*at("https://a").await, &*at("https://b").await), (mine, other));
    }
    // The registration's stands, whatever the verifier takes.
    world.register("one", "main", "a.test", Some("https://a")).await;
    for verifier in [builder().any_issuer().build().unwrap(), builder().issuer("https://b").build().unwrap()]
    {
        let at = async |issuer| place(verifier.of_provider("one", "main").verify(&by(&signer, issuer)).await);
        assert_eq!(at("https://b").await, "WrongIssuer");
    }
}

#[tokio::test]
async fn a_key_that_names_its_issuer_verifies_no_other_issuers_tokens() {
    let world = World::new();
    let (plain, template) = (Signer::ed(), Signer::ed());
    let mut named = plain.jwk(Some("k"), None);
    named["issuer"] = "https://consumers".into();
    let mut of_tenant = template.jwk(Some("t"), None);
    of_tenant["issuer"] = "https://login/{tenantid}/v2.0".into();
    world.publish("a.test", vec![named, of_tenant]);
    world.register("one", "main", "a.test", None).await;
    let verifier = world.registry.verifier().any_audience().expiry_optional().any_issuer().build().unwrap();
    let at = async |signer: &Signer, kid: &str, claims: Value| {
        let header = json!({"alg": "EdDSA", "kid": kid}).to_string();
        place(
            verifier
                .of_provider("one", "main")
                .verify(&signer.token_as(&header, "EdDSA", &claims.to_string()))
                .await,
        )
    };
    assert_eq!(at(&plain, "k", json!({"iss": "https://consumers"})).await, "one/main");
    assert_eq!(at(&plain, "k", json!({"iss": "https://work"})).await, "WrongIssuer");
    assert_eq!(at(&plain, "k", json!({})).await, "MissingClaim");
    assert_eq!(at(&template, "t", json!({"iss": "https://login/7/v2.0", "tid": "7"})).await, "one/main");
    assert_eq!(at(&template, "t", json!({"iss": "https://login/7/v2.0", "tid": "8"})).await, "WrongIssuer");
    assert_eq!(at(&template, "t", json!({"iss": "https://login/7/v2.0"})).await, "WrongIssuer");
    assert_eq!(
        at(&template, "t", json!({"iss": "https://login.us/7/v2.0", "tid": "7"})).await,
        "WrongIssuer"
    );
}

#[tokio::test]
async fn a_provider_handle_makes_a_verifier_of_its_provider_alone() {
    let world = World::new();
    let (a, b) = (world.signer_at("a.test"), world.signer_at("b.test"));
    world.register("one", "main", "a.test", Some("https://a")).await;
    world.register("two", "main", "b.test", Some("https://b")).await;
    let handle = world.registry.provider("one", "main").unwrap();
    let verifier = handle.verifier().any_audience().expiry_optional().build().unwrap();
    assert_eq!(place(verifier.verify(&by(&a, "https://a")).await), "one/main");
    assert_eq!(place(verifier.verify(&by(&b, "https://b")).await), "BadSignature");
    assert_eq!(place(verifier.verify(&by(&a, "https://b")).await), "WrongIssuer");
    // Nor does naming another make it that one's.
    for (tenant, token, want) in
        [("one", by(&a, "https://a"), "one/main"), ("two", by(&b, "https://b"), "UnknownProvider")]
    {
        assert_eq!(place(verifier.in_tenant(tenant).verify(&token).await), want);
        assert_eq!(place(verifier.of_provider(tenant, "main").verify(&token).await), want);
        let explained = verifier.of_provider(tenant, "main").explain(&token);
        assert_eq!(explained.thumbprint.is_some(), want == "one/main", "{explained}");
    }
    world.registry.unregister("one", "main").await.unwrap();
    assert_eq!(place(verifier.verify(&by(&a, "https://a")).await), "UnknownProvider");
    assert_eq!(place(verifier.verify_now(&by(&a, "https://a"))), "UnknownProvider");
}

#[test]
fn no_issuer_that_is_not_registered_causes_a_request() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let world = World::new();
    let signer = world.signer_at("a.test");
    let _inside = runtime.enter();
    runtime.block_on(world.register("one", "main", "a.test", Some("https://a.test")));
    let verifier = world.verifier();
    let text =
        proptest::string::string_regex(r#"(https?|file|ftp)?(://)?[a-z./\\@#?%:\[\]-]{0,40}"#).unwrap();
    let issuer = prop_oneof![any::<String>(), text, "https://a\\.test.{1,9}", ".{1,9}https://a\\.test"];
    let mut runner = TestRunner::new(Config { cases: 2_000, failure_persistence: None, ..Config::default() });
    let run = runner.run(&(issuer, any::<bool>()), |(issuer, named)| {
        prop_assume!(issuer != "https://a.test");
        let header =
            if named { r#"{"alg":"EdDSA","kid":"k"}"# } else { r#"{"alg":"EdDSA","jku":"https://x.test"}"# };
        let token = signer.token_as(header, "EdDSA", &json!({"iss": issuer, "aud": issuer}).to_string());
        for result in
            [at_once(verifier.verify::<Value>(&token)), at_once(verifier.in_tenant("one").verify(&token))]
        {
            prop_assert!(matches!(result, Err(VerifyError::UnknownProvider)), "{result:?}");
        }
        Ok(())
    });
    run.unwrap();
    runtime.block_on(stage::settle());
    assert_eq!(world.source.asked(), 0);
}

#[tokio::test]
async fn a_thousand_tenants_are_kept_apart() {
    const TENANTS: usize = 1_000;
    let world = World::new();
    let signers = [world.signer_at("0.test"), world.signer_at("1.test")];
    let issuer = |n: usize| format!("https://tenant-{n}");
    for n in 0..TENANTS {
        world.register(&format!("t{n}"), "main", &format!("{}.test", n % 2), Some(&issuer(n))).await;
    }
    let verifier = world.verifier();
    for n in (0..TENANTS).step_by(37) {
        let [mine, other] = [0, 1].map(|shift| by(&signers[(n + shift) % 2], &issuer(n)));
        assert_eq!(place(verifier.verify(&mine).await), format!("t{n}/main"));
        assert_eq!(place(verifier.verify(&other).await), "BadSignature");
        let neighbour = format!("t{}", (n + 2) % TENANTS);
        assert_eq!(place(verifier.in_tenant(&neighbour).verify(&mine).await), "UnknownProvider");
    }
}

#[tokio::test]
async fn a_template_takes_the_tokens_of_each_directory_and_of_no_other() {
    const TEMPLATE: &str = "https://login/{tenantid}/v2.0";
    let world = World::new();
    let (many, one) = (world.signer_at("many.test"), world.signer_at("one.test"));
    let mut registration = registration("t", "many", "many.test");
    (registration.issuer, registration.issuer_template) = (Some(TEMPLATE.into()), true);
    world.registry.register(registration).await.unwrap();
    world.register("t", "one", "one.test", Some("https://login/1/v2.0")).await;
    world.register("u", "no", "many.test", Some("https://other/{tenantid}/")).await;
    let verifier = world.verifier();
    for (signer, iss, tid, want) in [
        (&many, "https://login/7/v2.0", json!("7"), "t/many"),
        (&many, "https://login/7/v2.0", json!("8"), "UnknownProvider"),
        (&many, "https://login/7/v2.0", json!(null), "UnknownProvider"),
        (&many, "https://login/7/v2.0/", json!("7"), "UnknownProvider"),
        (&many, "https://login.us/7/v2.0", json!("7"), "UnknownProvider"),
        (&many, "https://login//v2.0", json!(""), "UnknownProvider"),
        (&many, TEMPLATE, json!("7"), "WrongIssuer"),
        (&many, TEMPLATE, json!("{tenantid}"), "WrongIssuer"),
        // One that is registered by its whole name comes first.
        (&one, "https://login/1/v2.0", json!("1"), "t/one"),
        (&many, "https://login/1/v2.0", json!("1"), "BadSignature"),
        // Where nobody said so, it is a name like any other.
        (&many, "https://other/7/", json!("7"), "WrongIssuer"),
        (&many, "https://other/{tenantid}/", json!("7"), "u/no"),
    ] {
        let token = signer.token("EdDSA", &json!({"iss": iss, "tid": tid}));
        for _ in 0..2 {
            assert_eq!(place(verifier.verify(&token).await), want, "{iss} {tid}");
            let within = verifier.in_tenant(want.split('/').next().unwrap()).verify(&token).await;
            assert!(!want.contains('/') || place(within) == want, "{iss} {tid}");
        }
    }
    let at = async |tid: &str| {
        let token = many.token("EdDSA", &json!({"iss": "https://login/7/v2.0", "tid": tid}));
        place(verifier.of_provider("t", "many").verify(&token).await)
    };
    assert_eq!((at("7").await, at("8").await), ("t/many".into(), "WrongIssuer".into()));
}

#[tokio::test]
async fn an_issuer_of_several_is_not_taken_for_one_of_a_template() {
    const TEMPLATE: &str = "https://login/{tenantid}/v2.0";
    let world = World::new();
    let many = world.signer_at("many.test");
    let mut registration = registration("all", "many", "many.test");
    (registration.issuer, registration.issuer_template) = (Some(TEMPLATE.into()), true);
    world.registry.register(registration).await.unwrap();
    let verifier = world.verifier();
    let at = async || {
        let token = many.token("EdDSA", &json!({"iss": "https://login/7/v2.0", "tid": "7"}));
        place(verifier.verify(&token).await)
    };
    assert_eq!(at().await, "all/many");
    for tenant in ["one", "two"] {
        world.register(tenant, "main", "many.test", Some("https://login/7/v2.0")).await;
    }
    assert_eq!(at().await, "UnknownProvider");
    world.registry.unregister("one", "main").await.unwrap();
    assert_eq!(at().await, "two/main");
    world.registry.unregister("two", "main").await.unwrap();
    assert_eq!(at().await, "all/many");
}
