//! Whom a registration believes and who it is itself, on real sockets with real certificates. Each refusal has a
//! twin that goes through, and nothing of HTTP reaches a server that is refused.
#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

mod stage;

use std::io::Write as _;
use std::net::TcpListener;

use jwks_cache::{
    CacheManager, Error, IdentityProviderRegistration, Material, PinMode, PrivateNetworks, Registry,
    SpkiFingerprint, TlsSettings, TlsVersion, What, certificate_path, fetch_once,
};
use jwks_cache_testkit::tls::{Authority, TlsOrigin, TlsServer, hello_of_tls11};
use jwks_cache_testkit::{ManualClock, Reply};
use stage::secured::{Folder, HOST, Stage, client_certificate, keys, told};
use stage::served::{JWKS, reason};
use stage::{PROVIDER, TENANT, millis, secs, soon};

type Change = fn(&mut IdentityProviderRegistration);

fn other_pin() -> SpkiFingerprint {
    SpkiFingerprint::of(b"a key that nobody has")
}

/// The refusal of a server whose path has no pinned key: final, and before anything was sent.
#[track_caller]
fn is_pin_refusal(result: jwks_cache::Result<()>) -> String {
    match result.expect_err("this should be refused") {
        Error::Security(reason) => {
            assert!(reason.contains("pinned_spki"), "{reason}");
            reason
        }
        other => panic!("not by policy: {other:?}"),
    }
}

#[tokio::test]
async fn a_pin_may_stand_anywhere_on_the_verified_path_and_must_stand_somewhere() {
    for http2 in [false, true] {
        let stage = Stage::with(|server, _| if http2 { server.http2() } else { server });
        let (leaf, middle, root) = (stage.leaf.pin(), stage.middle.pin(), stage.root.pin());
        for replace_roots in [false, true] {
            for (what, pins, passes) in [
                ("none", vec![], true),
                ("leaf", vec![leaf.clone()], true),
                ("intermediate", vec![middle.clone()], true),
                ("root", vec![root.clone()], true),
                ("backup", vec![other_pin(), leaf.clone()], true),
                ("wrong", vec![other_pin()], false),
            ] {
                stage.origin.clear_record();
                let outcome =
                    stage.fetch(|it| (it.pinned_spki, it.tls.replace_roots) = (pins, replace_roots)).await;
                if passes {
                    outcome.unwrap_or_else(|error| panic!("{what}: {error}"));
                    assert_eq!(stage.origin.total(), 1, "{what}");
                    assert_eq!(stage.last_handshake().protocol, if http2 { "h2" } else { "http/1.1" });
                } else {
                    let reason = is_pin_refusal(outcome);
                    // It says what could be pinned instead.
                    for pin in [&leaf, &middle, &root] {
                        assert!(reason.contains(&format!("{pin:?}")), "{reason}");
                    }
                    assert_eq!(stage.origin.total(), 0, "not a byte of HTTP");
                }
            }
        }
        // The origin hears of it a little later.
        let heard = async {
            while stage.origin.failed_handshakes().len() < 2 {
                tokio::task::yield_now().await;
            }
        };
        soon(heard).await;
    }
}

#[tokio::test]
async fn a_pinned_certificate_that_is_merely_appended_does_not_count() {
    let stage = Stage::new();
    let (bad_root, pinned) = (Authority::new("another trusted root"), [&stage.root, &stage.middle]);
    let bad = bad_root.intermediate("its own").server(&[HOST]);
    let bundle = format!("{}{}", stage.root.pem(), bad_root.pem());
    let appended = bad
        .clone()
        .followed_by(&stage.leaf)
        .followed_by_authority(&stage.root)
        .followed_by_authority(&bad_root);
    stage.origin.show(&TlsServer::new(appended));
    let pins = [vec![stage.leaf.pin()], pinned.map(Authority::pin).to_vec()].concat();
    for pin in pins {
        let outcome = stage.fetch(|it| {
            it.tls.ca = Some(Material::inline(bundle.clone()));
            it.pinned_spki = vec![pin];
        });
        is_pin_refusal(outcome.await);
    }
    assert_eq!(stage.origin.total(), 0);
    // The same chain passes with a pin that is on its path: it is trusted, and appending does no harm.
    for pin in [bad.pin(), bad_root.pin()] {
        let outcome = stage.fetch(|it| {
            it.tls.ca = Some(Material::inline(bundle.clone()));
            it.pinned_spki = vec![pin];
        });
        outcome.await.unwrap();
    }
}

#[tokio::test]
async fn the_path_that_pins_are_checked_on_can_be_looked_at() {
    let stage = Stage::new();
    let stranger = Authority::new("appended");
    stage.origin.show(&TlsServer::new(stage.leaf.clone().followed_by_authority(&stranger)));
    let mut tls = stage.registration().tls;
    let path = soon(certificate_path(&stage.origin.url(""), &tls, secs(20))).await.unwrap();
    let told: Vec<_> = path.iter().map(|one| (one.name.as_str(), one.pin.clone())).collect();
    let [leaf, middle, root] = [stage.leaf.pin(), stage.middle.pin(), stage.root.pin()];
    assert_eq!(told, [("leaf of a test", leaf), ("middle", middle), ("root", root)]);
    tls.ca = None;
    let error = soon(certificate_path(&stage.origin.url(""), &tls, secs(20))).await.unwrap_err();
    assert!(error.to_string().contains("is not believed"), "{error}");
    let plain = soon(certificate_path(&"http://127.0.0.1/".parse().unwrap(), &tls, secs(20))).await;
    assert!(matches!(plain, Err(Error::Security(_))));
    assert_eq!(stage.origin.total(), 0);
}

#[tokio::test]
async fn looking_at_a_path_ends_in_time_however_busy_the_server_looks() {
    let listener = TcpListener::bind((HOST, 0)).unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap()).parse().unwrap();
    let served = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        // The head of a record of 16 KiB, which comes byte by byte: no single read has to wait for long.
        stream.write_all(&[22, 3, 3, 0x40, 0]).unwrap();
        while stream.write_all(&[0]).is_ok() {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    });
    let looked = soon(certificate_path(&url, &TlsSettings::default(), millis(500))).await;
    assert!(matches!(looked, Err(Error::Cache(_))), "{looked:?}");
    // The thread that looked has ended, too, and with it the connection.
    served.join().unwrap();
}

#[tokio::test]
async fn pins_are_checked_at_every_hop() {
    let stage = Stage::new();
    let elsewhere = stage.middle.server(&[HOST]);
    let second = TlsOrigin::start(&TlsServer::new(elsewhere.clone()));
    second.set("/keys", keys());
    stage.origin.set(JWKS, Reply::redirect(302, second.url("/keys")));
    let outcome = stage.fetch(|it| it.pinned_spki = vec![stage.leaf.pin()]).await;
    is_pin_refusal(outcome);
    assert_eq!((stage.origin.total(), second.total()), (1, 0));
    stage.fetch(|it| it.pinned_spki = vec![stage.leaf.pin(), elsewhere.pin()]).await.unwrap();
    assert_eq!(second.total(), 1);
}

#[tokio::test]
async fn a_pin_mismatch_is_final_counted_and_told() {
    let stage = Stage::new();
    let mut events = stage.registry.subscribe();
    let outcome = stage.fetch(|it| {
        it.pinned_spki = vec![other_pin()];
        it.retry_policy.max_retries = 5;
    });
    is_pin_refusal(outcome.await);
    assert_eq!(stage.origin.connections(), 1, "no second attempt");
    assert_eq!(stage.metric("pin_mismatches_total").await, 1.0);
    assert_eq!(stage.metric("upstream_requests_total").await, 0.0);
    let (enforced, path) = told(&mut events, |what| match what {
        What::PinMismatch { enforced, path } => Some((*enforced, path.clone())),
        _ => None,
    })
    .unwrap();
    assert!(enforced);
    assert_eq!(*path, [stage.leaf.pin(), stage.middle.pin(), stage.root.pin()]);
    let failed = told(&mut events, |what| match what {
        What::RefreshFailed { reason, .. } => Some(*reason),
        _ => None,
    });
    assert_eq!(failed, Some("pin"));
}

#[tokio::test]
async fn report_only_lets_each_mismatch_through_and_tells_it() {
    for http2 in [false, true] {
        let stage = Stage::with(|server, _| if http2 { server.http2() } else { server });
        let mut events = stage.registry.subscribe();
        stage.register(|it| (it.pinned_spki, it.pin_mode) = (vec![other_pin()], PinMode::ReportOnly)).await;
        for count in [1.0, 2.0, 3.0] {
            stage.refresh().await.unwrap();
            assert_eq!(stage.metric("pin_mismatches_total").await, count);
            assert!(!stage.last_handshake().resumed, "a resumed session shows no certificate");
            let enforced = told(&mut events, |what| match what {
                What::PinMismatch { enforced, .. } => Some(*enforced),
                _ => None,
            });
            assert_eq!(enforced, Some(false));
        }
        // Nothing is told of a server that is pinned.
        stage
            .fetch(|it| (it.pinned_spki, it.pin_mode) = (vec![stage.leaf.pin()], PinMode::ReportOnly))
            .await
            .unwrap();
        assert_eq!(stage.metric("pin_mismatches_total").await, 3.0);
        // Whom nobody believes is not let through either.
        let outcome = stage.fetch(|it| {
            (it.pinned_spki, it.pin_mode, it.tls.ca) = (vec![other_pin()], PinMode::ReportOnly, None);
        });
        assert_eq!(reason(&outcome.await.unwrap_err()), "tls");
    }
}

#[tokio::test]
async fn no_session_is_resumed_and_no_open_connection_outlives_a_change_of_pins() {
    for (tls12, close) in [(false, true), (true, true), (false, false)] {
        let stage = Stage::with(|server, _| if tls12 { server.only_tls12() } else { server });
        stage.origin.set(JWKS, if close { keys().close_after() } else { keys() });
        stage.register(|it| it.pinned_spki = vec![stage.leaf.pin()]).await;
        stage.refresh().await.unwrap();
        stage.refresh().await.unwrap();
        // The connection that must not be used again is really there; each new one shows its certificate.
        assert_eq!((stage.last_handshake().resumed, stage.last().reused), (false, !close));
        let before = stage.origin.total();
        is_pin_refusal(stage.fetch(|it| it.pinned_spki = vec![other_pin()]).await);
        assert_eq!(stage.origin.total(), before);
        // A pin that is added looks at the certificate as well.
        stage.fetch(|it| it.pinned_spki = vec![other_pin(), stage.root.pin()]).await.unwrap();
        assert_eq!((stage.last_handshake().resumed, stage.last().reused), (false, false));
    }
}

#[tokio::test]
async fn a_server_that_nobody_vouches_for_is_not_spoken_to() {
    let stage = Stage::new();
    let stranger = Authority::new("unknown");
    let shown = [
        ("expired", TlsServer::new(stage.middle.expired_server(&[HOST]))),
        ("another host", TlsServer::new(stage.middle.server(&["id.example.com", "127.0.0.2"]))),
        ("unknown authority", TlsServer::new(stranger.server(&[HOST]))),
        ("a client's certificate", TlsServer::new(stage.middle.client(HOST))),
    ];
    for pins in [vec![], vec![stage.root.pin(), stranger.pin()]] {
        for (what, server) in &shown {
            stage.origin.show(server);
            let error = stage.fetch(|it| it.pinned_spki.clone_from(&pins)).await.unwrap_err();
            assert_eq!(reason(&error), "tls", "{what}: {error}");
            assert_eq!(stage.origin.total(), 0, "{what}");
        }
    }
    stage.origin.show(&TlsServer::new(stage.leaf.clone()));
    stage.fetch(|_| ()).await.unwrap();
}

#[tokio::test]
async fn tls_11_is_not_spoken() {
    let listener = TcpListener::bind((HOST, 0)).unwrap();
    let url = format!("https://{}/jwks", listener.local_addr().unwrap());
    let served = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut greeting = [0; 5];
        std::io::Read::read_exact(&mut stream, &mut greeting).unwrap();
        stream.write_all(&hello_of_tls11()).unwrap();
        let mut rest = Vec::new();
        let _ = std::io::Read::read_to_end(&mut stream, &mut rest);
        rest
    });
    let mut registration = IdentityProviderRegistration::new(TENANT, PROVIDER, url).unwrap();
    registration.retry_policy.attempt_timeout = secs(20);
    registration.retry_policy.deadline = secs(20);
    let error = soon(fetch_once(&registration)).await.unwrap_err();
    assert_eq!(reason(&error), "tls", "{error}");
    let alert = served.join().unwrap();
    // An alert, fatal, of protocol_version (RFC 8446 §6).
    assert!(alert.ends_with(&[2, 70]), "{alert:?}");
}

#[tokio::test]
async fn who_is_asked_for_a_certificate_shows_the_one_that_is_set() {
    let stage = Stage::with(|server, root| server.client_authority(root));
    let error = stage.fetch(|_| ()).await.unwrap_err();
    assert_eq!(reason(&error), "tls", "{error}");
    let stranger = Authority::new("unknown").client("us");
    let error = stage.fetch(|it| it.tls.client_certificate = Some(client_certificate(&stranger))).await;
    assert_eq!(reason(&error.unwrap_err()), "tls");
    assert_eq!(stage.origin.total(), 0);
    let ours = client_certificate(&stage.root.client("us"));
    stage.fetch(|it| it.tls.client_certificate = Some(ours)).await.unwrap();
    assert!(stage.last_handshake().client_certificate);
}

#[tokio::test]
async fn certificate_headers_and_token_stay_with_the_registered_origin() {
    let stage = Stage::with(|server, root| server.client_authority(root).http2());
    let asks = TlsServer::new(stage.leaf.clone());
    let elsewhere = TlsOrigin::start(&asks);
    let home = stage.origin.url("/back");
    stage.origin.set(JWKS, Reply::redirect(302, "/here"));
    stage.origin.set("/here", Reply::redirect(307, elsewhere.url("/there")));
    elsewhere.set("/there", keys());
    let secrets = |it: &mut IdentityProviderRegistration| {
        it.tls.client_certificate = Some(client_certificate(&stage.root.client("us")));
        it.headers.insert("X-Api-Key".into(), "key".into());
        it.bearer_token = Some(Material::inline("token"));
        it.user_agent = Some("mine/1".into());
    };
    stage.fetch(secrets).await.unwrap();
    for path in [JWKS, "/here"] {
        let [request] = &stage.origin.requests(path)[..] else { panic!("{path}") };
        assert_eq!(request.header("authorization"), Some("Bearer token"));
        assert_eq!(request.header("x-api-key"), Some("key"));
        assert!(request.tls.as_ref().unwrap().client_certificate);
    }
    let [request] = &elsewhere.requests("/there")[..] else { panic!() };
    assert_eq!((request.header("authorization"), request.header("x-api-key")), (None, None));
    assert_eq!(request.header("user-agent"), Some("mine/1"));

    // One that asks for a certificate gets none, and one that sends us home sends a stranger.
    let demanding = TlsOrigin::start(&asks.client_authority(&stage.root));
    demanding.set("/there", keys());
    stage.origin.set("/here", Reply::redirect(302, demanding.url("/there")));
    assert_eq!(reason(&stage.refresh().await.unwrap_err()), "tls");
    assert_eq!(demanding.total(), 0);
    stage.origin.set("/here", Reply::redirect(302, elsewhere.url("/there")));
    elsewhere.set("/there", Reply::redirect(302, home));
    let error = stage.refresh().await.unwrap_err();
    // Over HTTP/2 the server's alert may come too late to be heard.
    assert!(["tls", "reset"].contains(&reason(&error)), "{error}");
    assert_eq!(stage.origin.hits("/back"), 0);
}

#[tokio::test]
async fn equal_identities_share_connections_and_others_do_not() {
    let stage = Stage::new();
    let provider = |n: usize, change: fn(&mut IdentityProviderRegistration)| {
        let mut registration = stage.registration();
        registration.provider_id = format!("p{n}");
        // Each makes an exchange of its own: they do not ask quite the same.
        registration.max_response_bytes += n as u64;
        change(&mut registration);
        registration
    };
    for n in 0..10_000 {
        stage.registry.register(provider(n, |_| ())).await.unwrap();
    }
    for n in (0..10_000).step_by(100) {
        soon(stage.registry.resolve(TENANT, &format!("p{n}"), None)).await.unwrap();
    }
    assert_eq!((stage.origin.total(), stage.origin.connections()), (100, 1));
    let others: [Change; 3] = [
        |it| it.tls.replace_roots = true,
        |it| it.tls.min_version = Some(TlsVersion::Tls13),
        |it| it.connect_timeout = Some(secs(9)),
    ];
    for (n, change) in others.into_iter().enumerate() {
        stage.registry.register(provider(20_000 + n, change)).await.unwrap();
        soon(stage.registry.resolve(TENANT, &format!("p{}", 20_000 + n), None)).await.unwrap();
        assert_eq!(stage.origin.connections(), 2 + n as u64);
    }
}

#[tokio::test]
async fn a_token_file_is_read_again_when_it_changes_and_a_broken_one_keeps_the_old() {
    let stage = Stage::new();
    let folder = Folder::new();
    let mut events = stage.registry.subscribe();
    let mut not_renewed = move || {
        told(&mut events, |what| match what {
            What::CredentialNotRenewed { setting, reason } => Some((*setting, reason.to_string())),
            _ => None,
        })
    };
    let sent = || stage.last().header("authorization").map(ToOwned::to_owned);
    let file = folder.path("token");
    stage.register(|it| it.bearer_token = Some(Material::file(&file))).await;
    let error = stage.refresh().await.unwrap_err();
    assert_eq!(reason(&error), "client");
    for part in ["bearer_token", "token cannot be read"] {
        assert!(error.to_string().contains(part), "{error}");
    }
    assert_eq!(stage.origin.connections(), 0, "nothing is asked without the token");

    folder.write("token", "first\n");
    stage.refresh().await.unwrap();
    assert_eq!(sent().unwrap(), "Bearer first");
    // As Kubernetes renews it: of the same length, behind a link that is swapped.
    folder.write("token", "other\n");
    stage.refresh().await.unwrap();
    assert_eq!(sent().unwrap(), "Bearer other");
    assert_eq!(stage.origin.connections(), 1, "a token makes no other client");
    assert_eq!(not_renewed(), None);

    for broken in ["", "two words", "line\nline"] {
        folder.write("token", broken);
        stage.refresh().await.unwrap();
        assert_eq!(sent().unwrap(), "Bearer other");
        let (setting, reason) = not_renewed().unwrap();
        assert_eq!(setting, "bearer_token");
        assert!(reason.contains("token must be a token"), "{reason}");
    }
    std::fs::remove_file(&file).unwrap();
    stage.refresh().await.unwrap();
    assert_eq!(sent().unwrap(), "Bearer other");
    assert!(not_renewed().unwrap().1.contains("cannot be read"));
    stage.refresh().await.unwrap();
    assert_eq!(not_renewed(), None, "the same is told once");
    assert_eq!(stage.metric("credentials_not_renewed_total").await, 4.0);
    folder.write("token", "third");
    stage.refresh().await.unwrap();
    assert_eq!(sent().unwrap(), "Bearer third");
}

#[tokio::test]
async fn a_bundle_of_roots_is_read_again_when_it_changes() {
    let stage = Stage::new();
    let folder = Folder::new();
    let ca = folder.write("ca.pem", &stage.root.pem());
    stage.register(|it| (it.tls.ca, it.tls.replace_roots) = (Some(ca), true)).await;
    stage.refresh().await.unwrap();
    // The provider moves on to another authority: not believed until the bundle has it.
    let next = Authority::new("next root");
    stage.origin.set(JWKS, keys().close_after());
    stage.refresh().await.unwrap();
    stage.origin.show(&TlsServer::new(next.server(&[HOST])));
    assert_eq!(reason(&stage.refresh().await.unwrap_err()), "tls");
    folder.write("ca.pem", "-----BEGIN CERTIFICATE-----\nbroken\n-----END CERTIFICATE-----\n");
    assert_eq!(reason(&stage.refresh().await.unwrap_err()), "tls", "the old bundle is in force");
    folder.write("ca.pem", &next.pem());
    stage.refresh().await.unwrap();
    // And the old authority is believed no more, open session or not.
    stage.origin.show(&TlsServer::new(stage.leaf.clone()));
    assert_eq!(reason(&stage.refresh().await.unwrap_err()), "tls");
}

#[tokio::test]
async fn a_client_certificate_is_taken_up_when_certificate_and_key_belong_together() {
    let stage = Stage::with(|server, root| server.client_authority(root));
    stage.origin.set(JWKS, keys().close_after());
    let folder = Folder::new();
    let (first, second) = (stage.root.client("first"), stage.root.client("second"));
    let (chain, key) =
        (folder.write("tls.crt", &first.chain_pem()), folder.write("tls.key", &first.key_pem()));
    stage.register(|it| it.tls.client_certificate = Some(jwks_cache::ClientCertificate { chain, key })).await;
    stage.refresh().await.unwrap();
    folder.write("tls.crt", &second.chain_pem());
    stage.refresh().await.unwrap();
    assert_eq!(stage.metric("credentials_not_renewed_total").await, 1.0, "the key is not there yet");
    folder.write("tls.key", &second.key_pem());
    stage.refresh().await.unwrap();
    assert_eq!(stage.metric("credentials_not_renewed_total").await, 1.0);
    assert!(!stage.last_handshake().resumed, "another identity has no session yet");
}

#[tokio::test]
async fn what_a_registration_leaves_unset_the_registry_sets() {
    let stage = Stage::with(|server, root| server.client_authority(root));
    let mut tls = jwks_cache::TlsSettings::default();
    tls.ca = Some(Material::inline(stage.root.pem()));
    tls.client_certificate = Some(client_certificate(&stage.root.client("registry")));
    let registry = Registry::builder()
        .clock(std::sync::Arc::new(ManualClock::new()))
        .tls(tls)
        .header("X-Api-Key", "registry's")
        .bearer_token(Material::inline("registrys"))
        .user_agent("registry/1")
        .connect_timeout(secs(5))
        .build();
    let fetched = async |id: &str, change: fn(&mut IdentityProviderRegistration)| {
        let url = stage.origin.url(JWKS);
        let mut registration = IdentityProviderRegistration::new(TENANT, id, url).unwrap();
        change(&mut registration);
        registry.register(registration).await.unwrap();
        soon(registry.resolve(TENANT, id, None)).await.unwrap();
        let sent = stage.last();
        ["authorization", "x-api-key", "x-other", "user-agent"]
            .map(|name| sent.header(name).unwrap_or("-").to_owned())
    };
    assert_eq!(fetched("a", |_| ()).await, ["Bearer registrys", "registry's", "-", "registry/1"]);
    let own = fetched("b", |it| {
        it.bearer_token = Some(Material::inline("own"));
        it.headers.insert("X-Other".into(), "own".into());
        it.user_agent = Some("own/1".into());
    });
    assert_eq!(own.await, ["Bearer own", "-", "own", "own/1"]);
    let basic = fetched("c", |it| drop(it.headers.insert("Authorization".into(), "Basic eA==".into())));
    assert_eq!(basic.await, ["Basic eA==", "-", "-", "registry/1"]);
}

#[tokio::test]
async fn a_registration_speaks_no_older_version_than_its_registry() {
    let stage = Stage::with(|server, _| server.only_tls12());
    for (least, passes) in [(None, true), (Some(TlsVersion::Tls12), true), (Some(TlsVersion::Tls13), false)] {
        let mut tls = jwks_cache::TlsSettings::default();
        tls.ca = Some(Material::inline(stage.root.pem()));
        tls.min_version = least;
        let registry = Registry::builder().tls(tls).build();
        let mut registration = stage.registration();
        registration.tls.min_version = Some(TlsVersion::Tls12);
        registry.register(registration).await.unwrap();
        let outcome = soon(registry.resolve(TENANT, PROVIDER, None)).await;
        assert_eq!(outcome.is_ok(), passes, "{least:?}: {outcome:?}");
    }
}

#[tokio::test]
async fn a_registry_setting_that_breaks_its_rule_is_told_at_the_first_registration() {
    let registry = Registry::builder().bearer_token(Material::inline("two words")).build();
    let registration =
        IdentityProviderRegistration::new(TENANT, PROVIDER, "https://id.example.com/jwks").unwrap();
    let outcome = registry.register(registration).await;
    assert!(matches!(outcome, Err(Error::Validation { field: "bearer_token", .. })), "{outcome:?}");
}

#[tokio::test]
async fn a_client_that_is_handed_in_is_not_held_to_what_it_cannot_keep() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let stage = Stage::new();
    let client =
        || jwks_cache::reqwest::Client::builder().tls_danger_accept_invalid_certs(true).build().unwrap();
    let settings: [(&str, Change); 6] = [
        ("pinned_spki", |it| it.pinned_spki = vec![other_pin()]),
        ("tls", |_| ()),
        ("proxy", |it| it.proxy = Some("http://127.0.0.1:9".parse().unwrap())),
        ("connect_timeout", |it| it.connect_timeout = Some(secs(1))),
        ("private_networks", |it| it.private_networks = PrivateNetworks::Deny),
        ("headers", |it| drop(it.headers.insert("X-Api-Key".into(), "key".into()))),
    ];
    for (setting, change) in settings {
        let mut registration = stage.registration();
        if setting != "tls" {
            registration.tls = Default::default();
        }
        change(&mut registration);
        let cache = CacheManager::with_client(registration, client());
        match soon(cache.resolve(None)).await.unwrap_err() {
            Error::Security(reason) => assert!(reason.contains(setting), "{reason}"),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(stage.origin.connections(), 0);
    // The token is part of each request, whoever's client sends it, and stays with the registered origin.
    let folder = Folder::new();
    let mut registration = stage.registration();
    registration.tls = Default::default();
    registration.bearer_token = Some(folder.write("token", "from a file"));
    folder.write("token", "token");
    let cache = CacheManager::with_client(registration.clone(), client());
    soon(cache.resolve(None)).await.unwrap();
    assert_eq!(stage.last().header("authorization"), Some("Bearer token"));

    registration.bearer_token = None;
    registration.headers.insert("authorization".into(), "Basic eA==".into());
    let elsewhere = TlsOrigin::start(&TlsServer::new(stage.leaf.clone()));
    elsewhere.set("/there", keys());
    stage.origin.set(JWKS, Reply::redirect(302, elsewhere.url("/there")));
    let cache = CacheManager::with_client(registration, client());
    soon(cache.resolve(None)).await.unwrap_err();
    assert_eq!(stage.last().header("authorization"), Some("Basic eA=="));
    assert_eq!(elsewhere.requests("/there")[0].header("authorization"), None);
}
