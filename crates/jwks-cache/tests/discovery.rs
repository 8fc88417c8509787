//! Keys by issuer: where its metadata is looked for, what it must say, when it is looked up again.
#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

mod stage;

use std::sync::Arc;

use jwks_cache::{
    Algorithm, Error, IdentityProviderRegistration, KeySource, PrivateNetworks, Registry, Result, What,
};
use jwks_cache_testkit::{ManualClock, MemoryStore, Origin, Reply};
use stage::scripted::events;
use stage::socket::*;
use stage::{PROVIDER, TENANT, kids, secs, soon};

const OPENID: &str = "/.well-known/openid-configuration";
const OAUTH: &str = "/.well-known/oauth-authorization-server";

/// An issuer on loopback, and a registry whose policy time stands.
struct Issuer {
    origin: Origin,
    clock: ManualClock,
    registry: Registry,
}

impl Issuer {
    fn new() -> Self {
        let clock = ManualClock::new();
        let origin = Origin::start_with_clock(Arc::new(clock.clone()));
        origin.set("/jwks", Reply::json(document(&["k"])).header("Cache-Control", "max-age=300"));
        Self { registry: registry(&clock), origin, clock }
    }

    /// One that publishes its metadata where OpenID Connect says.
    fn sound() -> Self {
        let issuer = Self::new();
        issuer.origin.set(OPENID, Reply::json(issuer.metadata()).header("Cache-Control", "max-age=3600"));
        issuer
    }

    /// As tokens carry it.
    fn name(&self) -> String {
        self.origin.url("").as_str().trim_end_matches('/').to_owned()
    }

    fn metadata(&self) -> String {
        self.metadata_at(self.origin.url("/jwks").as_str())
    }

    fn metadata_at(&self, jwks_uri: &str) -> String {
        format!(r#"{{"issuer":"{}","jwks_uri":"{jwks_uri}"}}"#, self.name())
    }

    async fn register(&self, change: impl FnOnce(&mut IdentityProviderRegistration)) -> Result<()> {
        let mut registration =
            IdentityProviderRegistration::from_issuer(TENANT, PROVIDER, self.name()).unwrap();
        registration.prefetch_jitter = secs(0);
        registration.retry_policy.max_retries = 0;
        change(&mut registration);
        self.registry.register(registration).await
    }

    async fn resolve(&self) -> Result<Vec<String>> {
        soon(self.registry.resolve(TENANT, PROVIDER, None)).await.map(|set| kids(&set))
    }

    async fn refresh(&self) -> Result<()> {
        self.clock.advance(secs(1));
        soon(self.registry.refresh_and_wait(TENANT, PROVIDER)).await
    }

    /// How often metadata and keys were asked for.
    fn hits(&self) -> (usize, usize) {
        (self.origin.hits(OPENID), self.origin.hits("/jwks"))
    }
}

#[tokio::test]
async fn an_issuer_leads_to_its_keys() {
    let issuer = Issuer::sound();
    issuer.register(|_| ()).await.unwrap();
    assert_eq!(issuer.resolve().await.unwrap(), ["k"]);
    assert_eq!(issuer.hits(), (1, 1));
    let status = issuer.registry.provider_status(TENANT, PROVIDER).await.unwrap();
    assert_eq!(status.jwks_uri.as_deref(), Some(issuer.origin.url("/jwks").as_str()));
}

#[tokio::test]
async fn metadata_is_looked_for_by_openid_connect_then_by_rfc_8414() {
    let issuer = Issuer::new();
    issuer.origin.set(OAUTH, Reply::json(issuer.metadata()));
    issuer.register(|_| ()).await.unwrap();
    assert_eq!(issuer.resolve().await.unwrap(), ["k"]);
    assert_eq!((issuer.origin.hits(OPENID), issuer.origin.hits(OAUTH)), (1, 1));
    // From then on, only where it was found.
    issuer.clock.advance(secs(90_000));
    issuer.refresh().await.unwrap();
    assert_eq!((issuer.origin.hits(OPENID), issuer.origin.hits(OAUTH)), (1, 2));
}

#[tokio::test]
async fn an_issuer_that_is_down_is_not_looked_for_elsewhere() {
    let issuer = Issuer::new();
    issuer.origin.set(OPENID, Reply::status(503));
    issuer.origin.set(OAUTH, Reply::json(issuer.metadata()));
    issuer.register(|_| ()).await.unwrap();
    let error = issuer.resolve().await.unwrap_err();
    assert_eq!(error.status().unwrap(), 503);
    assert_eq!(error.url().unwrap().path(), OPENID);
    assert_eq!(issuer.origin.hits(OAUTH), 0);
}

/// What is refused, and by which words.
async fn refused(reply: impl Fn(&Issuer) -> Reply, words: &[&str]) {
    let issuer = Issuer::new();
    issuer.origin.set(OPENID, reply(&issuer));
    issuer.register(|_| ()).await.unwrap();
    let error = issuer.resolve().await.unwrap_err().to_string();
    for word in words {
        assert!(error.contains(word), "{word:?} is not in: {error}");
    }
    assert_eq!(issuer.origin.hits("/jwks"), 0, "{error}");
    assert_eq!(issuer.origin.hits("/elsewhere"), 0, "{error}");
}

#[tokio::test]
async fn mix_ups_are_refused_with_what_to_do() {
    let naming =
        |issuer: &'static str| move |of: &Issuer| Reply::json(of.metadata().replacen(&of.name(), issuer, 1));
    refused(naming("https://evil.example"), &["https://evil.example", "byte for byte", "register"]).await;
    let slash = |of: &Issuer| Reply::json(of.metadata().replacen(&of.name(), &(of.name() + "/"), 1));
    refused(slash, &["slash at the end", "register"]).await;
    refused(|_| Reply::json("<!doctype html><h1>Sign in</h1>"), &["markup", "check the issuer"]).await;
    refused(|of| Reply::json(of.metadata() + &" ".repeat(1 << 20)), &["131072 bytes", "check the issuer"])
        .await;
    refused(|_| Reply::json(document(&["k"])), &["key set", "jwks_url"]).await;
    refused(|_| Reply::redirect(302, "http://localhost:1/elsewhere"), &["redirect", "allowed_domains"]).await;
    refused(
        |of| Reply::json(of.metadata_at("http://localhost:1/elsewhere")),
        &["jwks_uri", "allowed_domains"],
    )
    .await;
    refused(|of| Reply::json(of.metadata_at("http://u:p@127.0.0.1:1/elsewhere")), &["credentials"]).await;
    refused(|of| Reply::json(of.metadata_at("file:///etc/passwd")), &["jwks_uri", "file"]).await;
    refused(|_| Reply::status(404), &["404", "check the issuer"]).await;
}

#[tokio::test]
async fn a_private_address_is_refused_as_the_place_of_keys() {
    let issuer = Issuer::new();
    let metadata = issuer.metadata_at("http://169.254.169.254/latest/keys");
    issuer.origin.set(OPENID, Reply::json(metadata));
    let allowed = vec!["127.0.0.1".to_owned(), "169.254.169.254".to_owned()];
    issuer.register(|it| it.allowed_domains = allowed).await.unwrap();
    let error = is_security(issuer.resolve().await);
    assert!(error.contains("169.254.169.254") && error.contains("private_networks"), "{error}");

    let issuer = Issuer::sound();
    issuer.register(|it| it.private_networks = PrivateNetworks::Deny).await.unwrap();
    is_security(issuer.resolve().await);
    assert_eq!(issuer.origin.total(), 0);
}

#[tokio::test]
async fn plain_http_is_no_place_for_the_keys_of_an_https_issuer() {
    let authority = jwks_cache_testkit::tls::Authority::new("root");
    let server = jwks_cache_testkit::tls::TlsServer::new(authority.server(&["127.0.0.1"]));
    let origin = jwks_cache_testkit::tls::TlsOrigin::start(&server);
    let name = origin.url("").as_str().trim_end_matches('/').to_owned();
    origin.set(OPENID, Reply::json(format!(r#"{{"issuer":"{name}","jwks_uri":"http://127.0.0.1:1/jwks"}}"#)));
    let mut registration = IdentityProviderRegistration::from_issuer(TENANT, PROVIDER, name).unwrap();
    registration.tls.ca = Some(jwks_cache::Material::inline(authority.pem()));
    let registry = registry(&ManualClock::new());
    registry.register(registration).await.unwrap();
    let error = is_security(soon(registry.resolve(TENANT, PROVIDER, None)).await);
    assert!(error.contains("not https"), "{error}");
}

#[tokio::test]
async fn a_foreign_host_needs_to_be_allowed_and_gets_no_credentials() {
    let issuer = Issuer::new();
    let elsewhere = format!("{}//jwks", issuer.name()).replace("127.0.0.1", "localhost");
    issuer.origin.set("//jwks", Reply::json(document(&["k"])));
    issuer.origin.set(OPENID, Reply::json(issuer.metadata_at(&elsewhere)));
    issuer.register(|_| ()).await.unwrap();
    is_security(issuer.resolve().await);
    let change = |it: &mut IdentityProviderRegistration| {
        it.allowed_domains = vec!["127.0.0.1".into(), "localhost".into()];
        it.headers.insert("x-key".into(), "secret".into());
    };
    issuer.register(change).await.unwrap();
    assert_eq!(issuer.resolve().await.unwrap(), ["k"]);
    let header = |path: &str| issuer.origin.requests(path).last().unwrap().header("x-key").map(str::to_owned);
    assert_eq!((header(OPENID).as_deref(), header("//jwks")), (Some("secret"), None));
}

#[tokio::test]
async fn metadata_has_its_own_lifetime_and_validators() {
    let issuer = Issuer::new();
    let reply = Reply::json(issuer.metadata()).header("Cache-Control", "max-age=3600");
    issuer.origin.set(OPENID, reply.etag("\"m1\"").conditional());
    issuer.register(|_| ()).await.unwrap();
    issuer.resolve().await.unwrap();
    for _ in 0..3 {
        issuer.clock.advance(secs(1000));
        issuer.refresh().await.unwrap();
    }
    assert_eq!(issuer.hits(), (1, 4), "keys expire after 300 s, metadata after 3,600");
    issuer.clock.advance(secs(1000));
    issuer.refresh().await.unwrap();
    assert_eq!(issuer.hits(), (2, 5));
    assert_eq!(issuer.origin.requests(OPENID)[1].header("if-none-match"), Some("\"m1\""));
    issuer.clock.advance(secs(1000));
    issuer.refresh().await.unwrap();
    assert_eq!(issuer.hits(), (2, 6), "a 304 began a new lifetime");
}

#[tokio::test]
async fn a_changed_jwks_uri_is_followed_and_told() {
    let issuer = Issuer::sound();
    issuer.register(|_| ()).await.unwrap();
    let mut told = issuer.registry.subscribe();
    issuer.resolve().await.unwrap();
    issuer.origin.set("/new", Reply::json(document(&["new"])));
    issuer.origin.set(OPENID, Reply::json(issuer.metadata_at(issuer.origin.url("/new").as_str())));
    issuer.clock.advance(secs(3601));
    issuer.refresh().await.unwrap();
    assert_eq!(issuer.resolve().await.unwrap(), ["new"]);
    let moved = events(&mut told).into_iter().find_map(|what| match what {
        What::JwksUriChanged { from, to } => Some((from.to_string(), to.to_string())),
        _ => None,
    });
    let url = |path| issuer.origin.url(path).to_string();
    assert_eq!(moved, Some((url("/jwks"), url("/new"))));
}

#[tokio::test]
async fn the_new_place_is_asked_for_its_own_keys() {
    let issuer = Issuer::sound();
    // Both call what they have the first.
    let keys = |kid| Reply::json(document(&[kid])).etag("\"1\"").conditional();
    issuer.origin.set("/jwks", keys("k"));
    issuer.origin.set("/new", keys("new"));
    issuer.register(|_| ()).await.unwrap();
    issuer.resolve().await.unwrap();
    issuer.refresh().await.unwrap();
    assert_eq!(issuer.origin.requests("/jwks")[1].header("if-none-match"), Some("\"1\""));
    issuer.origin.set(OPENID, Reply::json(issuer.metadata_at(issuer.origin.url("/new").as_str())));
    issuer.clock.advance(secs(3601));
    issuer.refresh().await.unwrap();
    assert_eq!(issuer.resolve().await.unwrap(), ["new"]);
    issuer.refresh().await.unwrap();
    let sent = |n: usize| issuer.origin.requests("/new")[n].header("if-none-match").map(str::to_owned);
    assert_eq!((sent(0), sent(1).as_deref()), (None, Some("\"1\"")));
}

#[tokio::test]
async fn metadata_that_hangs_does_not_take_the_keys_down() {
    let issuer = Issuer::sound();
    issuer.register(|it| it.retry_policy.attempt_timeout = secs(2)).await.unwrap();
    issuer.resolve().await.unwrap();
    let mut told = issuer.registry.subscribe();
    let _hung = issuer.origin.hold(OPENID);
    issuer.clock.advance(secs(3601));
    issuer.refresh().await.unwrap();
    assert!(events(&mut told).iter().any(|what| matches!(what, What::DiscoveryFailed { .. })));
}

#[tokio::test]
async fn how_long_old_metadata_is_trusted_is_each_tenants_own() {
    for trusting_first in [true, false] {
        let issuer = Issuer::sound();
        let mut tenants = [("trusting", 8_000), ("wary", 1_000)];
        if !trusting_first {
            tenants.reverse();
        }
        for (tenant, trust) in tenants {
            let change = |it: &mut IdentityProviderRegistration| {
                (it.tenant_id, it.max_trust_age) = (tenant.into(), Some(secs(trust)));
            };
            issuer.register(change).await.unwrap();
            soon(issuer.registry.resolve(tenant, PROVIDER, None)).await.unwrap();
        }
        assert_eq!(issuer.hits().0, 1);
        issuer.origin.set(OPENID, Reply::status(500));
        issuer.clock.advance(secs(3_601));
        for (tenant, trusts) in [("wary", false), ("trusting", true)] {
            issuer.clock.advance(secs(10));
            let got = soon(issuer.registry.refresh_and_wait(tenant, PROVIDER)).await;
            assert_eq!(got.is_ok(), trusts, "{tenant}, {trusting_first}: {got:?}");
        }
    }
}

#[tokio::test]
async fn documents_that_are_refused_have_the_metadata_looked_up_again_too() {
    let issuer = Issuer::sound();
    issuer.register(|_| ()).await.unwrap();
    issuer.resolve().await.unwrap();
    issuer.origin.set("/jwks", Reply::json("<html>moved</html>"));
    for looked_up in [1, 1, 2] {
        issuer.refresh().await.unwrap_err();
        assert_eq!(issuer.hits().0, looked_up);
    }
}

#[tokio::test]
async fn keys_that_fail_repeatedly_have_the_metadata_looked_up_again() {
    let issuer = Issuer::sound();
    issuer.register(|_| ()).await.unwrap();
    issuer.resolve().await.unwrap();
    issuer.origin.set("/jwks", Reply::status(503));
    issuer.origin.set("/new", Reply::json(document(&["new"])));
    issuer.origin.set(OPENID, Reply::json(issuer.metadata_at(issuer.origin.url("/new").as_str())));
    issuer.refresh().await.unwrap_err();
    issuer.refresh().await.unwrap_err();
    assert_eq!(issuer.hits().0, 1);
    issuer.refresh().await.unwrap();
    assert_eq!((issuer.hits().0, issuer.resolve().await.unwrap()), (2, vec!["new".to_owned()]));
}

#[tokio::test]
async fn a_key_set_that_is_gone_has_the_metadata_looked_up_at_once() {
    let issuer = Issuer::sound();
    issuer.register(|_| ()).await.unwrap();
    issuer.resolve().await.unwrap();
    issuer.origin.set("/jwks", Reply::status(404));
    issuer.refresh().await.unwrap_err();
    issuer.refresh().await.unwrap_err();
    assert_eq!(issuer.hits().0, 2);
}

#[tokio::test]
async fn metadata_that_cannot_be_looked_up_again_stays_in_force_for_a_while() {
    for broken in
        [Reply::status(500), Reply::json(r#"{"issuer":"https://evil.example","jwks_uri":"https://evil/"}"#)]
    {
        let issuer = Issuer::sound();
        issuer.register(|it| it.max_trust_age = Some(secs(8_000))).await.unwrap();
        let mut told = issuer.registry.subscribe();
        issuer.resolve().await.unwrap();
        issuer.origin.set(OPENID, broken);
        issuer.clock.advance(secs(3601));
        issuer.refresh().await.unwrap();
        assert_eq!(issuer.resolve().await.unwrap(), ["k"]);
        assert!(events(&mut told).iter().any(|what| matches!(what, What::DiscoveryFailed { .. })));
        assert_eq!(issuer.hits(), (2, 2));
        issuer.refresh().await.unwrap();
        assert_eq!(issuer.hits(), (2, 3), "it is not asked again at once");
        issuer.clock.advance(secs(5_000));
        issuer.refresh().await.unwrap_err();
    }
}

/// A document of one RSA key `k1`, which does not say what it is for.
async fn without_alg() -> String {
    let authority = jwks_cache_testkit::IdentityProvider::builder().algorithm(Algorithm::RS256).start();
    let one = Registry::builder().require_https(false).build();
    let url = authority.jwks_url();
    one.register(IdentityProviderRegistration::new(TENANT, PROVIDER, url).unwrap()).await.unwrap();
    let mut set = (*soon(one.resolve(TENANT, PROVIDER, None)).await.unwrap()).clone();
    set.keys[0].common.key_algorithm = None;
    serde_json::to_string(&set).unwrap()
}

#[tokio::test]
async fn what_an_issuer_says_it_uses_is_known_to_the_next_process() {
    let mut issuer = Issuer::new();
    issuer.origin.set("/jwks", Reply::json(without_alg().await).header("Cache-Control", "max-age=300"));
    let more = r#","id_token_signing_alg_values_supported":["RS256"]}"#;
    issuer.origin.set(OPENID, Reply::json(issuer.metadata().trim_end_matches('}').to_owned() + more));
    let store = MemoryStore::new();
    for process in 0..3 {
        issuer.registry = Registry::builder()
            .require_https(false)
            .clock(Arc::new(issuer.clock.clone()))
            .with_store(Arc::new(store.clone()))
            .build();
        issuer.register(|_| ()).await.unwrap();
        if process == 0 {
            issuer.resolve().await.unwrap();
        }
        let key = async |of| issuer.registry.key(TENANT, PROVIDER, Some("k1"), of).await.is_ok();
        assert_eq!((key(Algorithm::RS256).await, key(Algorithm::PS256).await), (true, false), "{process}");
        // Other settings of the same source.
        issuer.register(|it| it.stale_while_error = secs(7)).await.unwrap();
        assert_eq!((key(Algorithm::RS256).await, key(Algorithm::PS256).await), (true, false), "{process}");
        issuer.registry.persist_all().await.unwrap();
        issuer.registry.shutdown().await;
    }
    assert_eq!(issuer.hits(), (1, 1));
}

#[tokio::test]
async fn a_key_without_alg_verifies_what_its_issuer_says_it_uses() {
    let issuer = Issuer::new();
    issuer.origin.set("/jwks", Reply::json(without_alg().await).etag("\"1\"").conditional());
    let says = |algorithm: &str| {
        let metadata = issuer.metadata();
        let more = format!(r#","id_token_signing_alg_values_supported":["{algorithm}"]}}"#);
        issuer.origin.set(OPENID, Reply::json(metadata.trim_end_matches('}').to_owned() + &more));
    };
    let verify = async || {
        let key = async |of| issuer.registry.key(TENANT, PROVIDER, Some("k1"), of).await.is_ok();
        (key(Algorithm::RS256).await, key(Algorithm::PS256).await)
    };
    says("RS256");
    issuer.register(|_| ()).await.unwrap();
    assert_eq!(verify().await, (true, false));
    // Other settings of the same source, by which it is asked anew.
    issuer.register(|it| it.max_redirects = 1).await.unwrap();
    assert_eq!(verify().await, (true, false));
    // It says otherwise, and the keys are the same.
    says("PS256");
    issuer.clock.advance(secs(3601));
    issuer.refresh().await.unwrap();
    assert_eq!(issuer.origin.requests("/jwks").last().unwrap().header("if-none-match"), Some("\"1\""));
    assert_eq!(verify().await, (false, true));
}

#[tokio::test]
async fn an_issuer_that_no_metadata_could_name_is_refused_when_it_is_registered() {
    let check = async |change: fn(&mut IdentityProviderRegistration), field: &str| {
        let issuer = Issuer::sound();
        is_validation(issuer.register(change).await, field);
    };
    check(|it| it.issuer = None, "issuer").await;
    check(|it| it.issuer = Some("no url".into()), "issuer").await;
    check(|it| it.issuer = Some("http://127.0.0.1/?a".into()), "issuer").await;
    check(|it| it.issuer = Some("http://127.0.0.1/#a".into()), "issuer").await;
    check(|it| it.issuer = Some("http://u:p@127.0.0.1/".into()), "issuer").await;
    check(|it| it.allowed_domains = vec!["example.com".into()], "issuer").await;
    check(|it| it.jwks_url = "http://127.0.0.1/jwks".parse().unwrap(), "jwks_url").await;
    check(|it| it.issuer_template = true, "issuer_template").await;
    check(|it| it.source = KeySource::DiscoveryAt(Box::new("none:".parse().unwrap())), "source").await;
    let registry = Registry::new();
    let plain = IdentityProviderRegistration::from_issuer(TENANT, PROVIDER, "http://id.example").unwrap();
    assert!(matches!(registry.register(plain).await, Err(Error::Security(_))));
}

#[tokio::test]
async fn where_else_an_issuer_publishes_is_asked_as_it_is_written() {
    for (at, asked) in [
        ("/v2?appid=7", "/v2/.well-known/openid-configuration?appid=7"),
        ("/v2/.well-known/openid-configuration?p=x", "/v2/.well-known/openid-configuration?p=x"),
    ] {
        let issuer = Issuer::new();
        let path = asked.split('?').next().unwrap();
        issuer.origin.set(path, Reply::json(issuer.metadata()));
        let at = issuer.origin.url(at);
        issuer.register(|it| it.source = KeySource::DiscoveryAt(Box::new(at))).await.unwrap();
        assert_eq!(issuer.resolve().await.unwrap(), ["k"]);
        let requests = issuer.origin.requests(path);
        assert_eq!(requests[0].query.as_deref(), asked.split('?').nth(1));
    }
}
