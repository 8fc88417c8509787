//! The control plane over real sockets: what it does, and what is left of it after a restart.
use std::collections::BTreeSet;
use std::time::Duration;

use crate::folder::Folder;
use crate::stage::{Stage, settings};
use jwks_cache::{Algorithm, Error, IdentityProviderRegistration, KeyError};
use jwks_cache_testkit::{IdentityProvider, Token};
use serde_json::{Value, json};

const MAIN: &str = "/tenants/acme/providers/main";

#[tokio::test]
async fn a_provider_is_registered_shown_refreshed_and_removed() {
    let (stage, idp) = (Stage::forgetful().await, IdentityProvider::start());
    let put = stage.all.put(MAIN, &settings(&idp)).await;
    assert_eq!(
        (put.status, &put.body["state"], &put.body["origin"]),
        (202, &json!("Empty"), &json!("runtime"))
    );
    assert_eq!(idp.jwks_hits(), 0, "registering fetches nothing");

    let shown = stage.all.get(MAIN).await;
    assert_eq!(shown.status, 200);
    assert_eq!(shown.body["jwksUrl"], json!(idp.jwks_url()));
    assert_eq!((&shown.body["refreshEarly"], &shown.body["maxTtl"]), (&json!("PT30S"), &json!("PT24H")));
    assert_eq!(shown.header("etag"), put.header("etag"));

    let refreshed = stage.all.post(&format!("{MAIN}/refresh?wait=true"), &Value::Null).await;
    assert_eq!((refreshed.status, &refreshed.body["state"]), (202, &json!("Ready")));
    assert_eq!(refreshed.body["keys"][0]["kid"], json!(idp.signing_kid()));
    let asked = stage.all.post(&format!("{MAIN}/refresh"), &Value::Null).await;
    assert_eq!(asked.status, 202);
    let status = stage.all.get(&format!("{MAIN}/status")).await;
    assert_eq!((status.status, &status.body["providerId"]), (200, &json!("main")));

    assert_eq!(stage.all.delete(MAIN).await.status, 204);
    assert!(stage.state.registry().was_removed("acme", "main"));
    for path in [MAIN.to_owned(), format!("{MAIN}/status"), format!("{MAIN}/denials")] {
        let gone = stage.all.get(&path).await;
        assert_eq!((gone.status, &gone.body["error"]), (404, &json!("not_registered")), "{path}");
    }
    assert_eq!(stage.all.delete(MAIN).await.status, 404);
}

#[tokio::test]
async fn a_failed_refresh_says_why_and_loses_nothing() {
    let (stage, idp) = (Stage::forgetful().await, IdentityProvider::start());
    let mut settings = settings(&idp);
    settings["retryPolicy"] = json!({"maxRetries": 0});
    stage.all.put(MAIN, &settings).await;
    let refresh = format!("{MAIN}/refresh?wait=true");
    assert_eq!(stage.all.post(&refresh, &Value::Null).await.status, 202);
    idp.fail_with(500);
    let failed = stage.all.post(&refresh, &Value::Null).await;
    assert_eq!((failed.status, &failed.body["state"]), (202, &json!("Ready")));
    assert!(failed.body["lastError"].as_str().unwrap().contains("500"), "{failed:?}");
}

#[tokio::test]
async fn another_url_makes_the_old_keys_unusable_at_once() {
    let (stage, old, new) = (Stage::forgetful().await, IdentityProvider::start(), IdentityProvider::start());
    stage.all.put(MAIN, &settings(&old)).await;
    stage.all.post(&format!("{MAIN}/refresh?wait=true"), &Value::Null).await;
    let verifier = stage.state.registry().verifier().any_audience().any_issuer().build().unwrap();
    let token = old.mint(&Token::new());
    let of = verifier.of_provider("acme", "main");
    assert!(of.verify::<Value>(&token).await.is_ok());
    let put = stage.all.put(MAIN, &settings(&new)).await;
    assert_eq!((put.status, &put.body["state"], &put.body["keys"]), (202, &json!("Empty"), &json!([])));
    assert!(of.verify::<Value>(&token).await.is_err());
    assert!(of.verify::<Value>(&new.mint(&Token::new())).await.is_ok());
}

#[tokio::test]
async fn a_change_is_made_only_to_what_was_seen() {
    let (stage, idp) = (Stage::forgetful().await, IdentityProvider::start());
    let body = settings(&idp);
    let put = |headers: &'static [(&'static str, &'static str)]| {
        let (all, body) = (stage.all.clone(), body.clone());
        async move { all.ask_with("PUT", MAIN, Some(&body), headers).await }
    };
    assert_eq!(put(&[("if-match", "*")]).await.status, 412, "nothing is there");
    let first = put(&[("if-none-match", "*")]).await;
    assert_eq!(first.status, 202);
    let again = put(&[("if-none-match", "*")]).await;
    assert_eq!((again.status, &again.body["parameter"]), (412, &json!("If-None-Match")));
    let tag = first.header("etag").to_owned();
    let known = stage.all.ask_with("GET", MAIN, None, &[("if-none-match", &tag)]).await;
    assert_eq!((known.status, known.header("etag")), (304, &*tag));
    assert_eq!(put(&[("if-match", "\"other\"")]).await.status, 412);
    let changed = stage.all.ask_with("PUT", MAIN, Some(&body), &[("if-match", &tag)]).await;
    assert_eq!(changed.status, 202);
    assert_ne!(changed.header("etag"), tag);
    let late = stage.all.ask_with("DELETE", MAIN, None, &[("if-match", &tag)]).await;
    assert_eq!((late.status, &late.body["error"]), (412, &json!("precondition_failed")));
    let removed = stage.all.ask_with("DELETE", MAIN, None, &[("if-match", changed.header("etag"))]).await;
    assert_eq!(removed.status, 204);
}

#[tokio::test]
async fn secrets_are_never_given_back_and_are_kept_for_a_restart() {
    let (folder, idp) = (Folder::new(), IdentityProvider::start());
    let stage = Stage::start(&folder).await;
    let mut body = settings(&idp);
    body["headers"] = json!({"X-Api-Key": "s3cret"});
    body["bearerToken"] = json!({"inline": "s3cret"});
    let put = stage.all.put(MAIN, &body).await;
    let (shown, status) = (stage.all.get(MAIN).await, stage.all.get("/statuses").await);
    for answer in [&put, &shown, &status] {
        assert!(answer.status < 300 && !answer.body.to_string().contains("s3cret"), "{answer:?}");
    }
    assert_eq!(shown.body["secretsSet"], json!(["bearerToken", "headers.X-Api-Key"]));
    stage.end().await;

    let stage = Stage::start(&folder).await;
    assert_eq!(stage.restore().await.providers, 1);
    stage.all.post(&format!("{MAIN}/refresh?wait=true"), &Value::Null).await;
    let path = idp.jwks_url().path().to_owned();
    let sent = idp.origin().requests(&path).pop().unwrap();
    assert_eq!(
        (sent.header("x-api-key"), sent.header("authorization")),
        (Some("s3cret"), Some("Bearer s3cret"))
    );
}

#[tokio::test]
async fn registrations_and_denials_that_were_acknowledged_are_there_after_a_crash() {
    let (folder, idp) = (Folder::new(), IdentityProvider::start());
    let kid = idp.signing_kid();
    let stage = Stage::start(&folder).await;
    for name in ["main", "gone"] {
        assert_eq!(
            stage.all.put(&format!("/tenants/acme/providers/{name}"), &settings(&idp)).await.status,
            202
        );
    }
    assert_eq!(stage.all.delete("/tenants/acme/providers/gone").await.status, 204);
    let deny = json!({"id": kid, "reason": "leaked"});
    assert_eq!(stage.all.post(&format!("{MAIN}/denials"), &deny).await.status, 201);
    let tag = stage.all.get(MAIN).await.header("etag").to_owned();
    stage.end().await;

    let stage = Stage::start(&folder).await;
    let restored = stage.restore().await;
    assert_eq!((restored.providers, restored.denials, restored.refused.len()), (1, 1, 0));
    assert_eq!(stage.all.get(MAIN).await.header("etag"), tag);
    assert_eq!(stage.all.get("/tenants/acme/providers/gone").await.status, 404);
    let denials = stage.all.get(&format!("{MAIN}/denials")).await;
    let items = denials.body["items"].as_array().unwrap();
    assert_eq!(items.len(), 1);
    assert_eq!((&items[0]["reason"], &items[0]["deniedBy"]), (&json!("leaked"), &json!("all-write")));
    let key = stage.state.registry().key("acme", "main", Some(&kid), Algorithm::ES256).await;
    assert!(matches!(key, Err(Error::Key(KeyError::Denied))), "{key:?}");
    assert_eq!(stage.restore().await.providers, 0, "twice is once");
}

#[cfg(unix)]
#[tokio::test]
async fn what_cannot_be_kept_is_not_acknowledged() {
    let (folder, idp) = (Folder::new(), IdentityProvider::start());
    let stage = Stage::start(&folder).await;
    stage.all.put(MAIN, &settings(&idp)).await;
    // The lock file stays open; nothing new can be made.
    std::fs::remove_dir_all(&folder.0).unwrap();
    let other = "/tenants/acme/providers/other";
    let refused = stage.all.put(other, &settings(&idp)).await;
    assert_eq!((refused.status, &refused.body["error"]), (503, &json!("store_unavailable")));
    assert_eq!(refused.header("retry-after"), "1");
    assert_eq!(stage.all.get(&format!("{other}/status")).await.status, 404, "nothing has changed");
    let denied = stage.all.post(&format!("{MAIN}/denials"), &json!({"id": idp.signing_kid()})).await;
    assert_eq!(denied.status, 503);
    let status = stage.all.get(&format!("{MAIN}/status")).await;
    assert_eq!(status.body["denied"], json!([idp.signing_kid()]), "it is in force all the same");
}

#[tokio::test]
async fn a_provider_of_the_file_is_told_apart_and_changed_there_alone() {
    let (folder, idp) = (Folder::new(), IdentityProvider::start());
    let stage = Stage::start(&folder).await;
    stage.all.put(MAIN, &settings(&idp)).await;
    let mut of = IdentityProviderRegistration::new("acme", "main", idp.jwks_url()).unwrap();
    of.require_https = false;
    of.headers.insert("X-Api-Key".to_owned(), "s3cret".into());
    stage.configure(of).await;

    let shown = stage.all.get(MAIN).await;
    assert_eq!((shown.status, &shown.body["origin"]), (200, &json!("file")));
    assert!(!shown.header("etag").is_empty() && !shown.body.to_string().contains("s3cret"));
    for answer in [stage.all.put(MAIN, &settings(&idp)).await, stage.all.delete(MAIN).await] {
        assert_eq!((answer.status, &answer.body["error"]), (409, &json!("configured_in_file")));
        assert!(answer.body["remedy"].as_str().unwrap().contains("file"));
    }
    assert_eq!(stage.all.get("/statuses?origin=file").await.body["items"].as_array().unwrap().len(), 1);
    assert_eq!(stage.all.post(&format!("{MAIN}/denials"), &json!({"id": "k"})).await.status, 201);
    assert_eq!(stage.restore().await.providers, 0, "the file's wins");

    // The file lets go of it: what was registered at run time is in force again.
    stage.state.configure([]);
    stage.state.registry().unregister("acme", "main").await.unwrap();
    let restored = stage.restore().await;
    assert_eq!((restored.providers, restored.denials), (1, 1));
    assert_eq!(stage.all.get(MAIN).await.body["origin"], json!("runtime"));
}

#[tokio::test]
async fn a_key_is_denied_by_any_kid_and_allowed_again() {
    let stage = Stage::forgetful().await;
    let kid = "k/1 ü?#";
    let idp = IdentityProvider::builder().kid(kid).start();
    stage.all.put(MAIN, &settings(&idp)).await;
    stage.all.post(&format!("{MAIN}/refresh?wait=true"), &Value::Null).await;
    let state_of_key =
        || async { stage.all.get(&format!("{MAIN}/status")).await.body["keys"][0]["state"].clone() };
    let denied = stage.all.post(&format!("{MAIN}/denials"), &json!({"id": kid})).await;
    assert_eq!((denied.status, &denied.body["id"]), (201, &json!(kid)));
    assert_eq!(state_of_key().await, "denied");
    let again = stage.all.post(&format!("{MAIN}/denials"), &json!({"id": kid, "reason": "again"})).await;
    assert_eq!((again.status, &again.body["reason"]), (200, &json!("again")));
    // Denied in another process, as it were.
    stage.state.registry().deny_key("acme", "main", "elsewhere").await.unwrap();
    let listed = stage.all.get(&format!("{MAIN}/denials")).await;
    let ids: BTreeSet<&str> =
        listed.body["items"].as_array().unwrap().iter().map(|of| of["id"].as_str().unwrap()).collect();
    assert_eq!(ids, BTreeSet::from([kid, "elsewhere"]));
    assert_eq!(stage.all.delete(denied.header("location")).await.status, 204);
    assert_eq!(state_of_key().await, "usable");
    assert_eq!(stage.all.delete(denied.header("location")).await.status, 404);
    assert_eq!(stage.all.delete(&format!("{MAIN}/denials/elsewhere")).await.status, 204);
}

#[tokio::test]
async fn lists_come_in_pages_and_filtered() {
    let (stage, idp) = (Stage::forgetful().await, IdentityProvider::start());
    for (tenant, count) in [("acme", 5), ("beta", 1), ("zeta", 3)] {
        for number in 0..count {
            stage.all.put(&format!("/tenants/{tenant}/providers/p{number}"), &settings(&idp)).await;
        }
    }
    stage.all.post("/tenants/acme/providers/p3/refresh?wait=true", &Value::Null).await;
    async fn walk(stage: &Stage, path: &str, limit: usize) -> Vec<String> {
        let (mut all, mut cursor) = (Vec::new(), String::new());
        loop {
            let sign = if path.contains('?') { '&' } else { '?' };
            let page = stage.all.get(&format!("{path}{sign}limit={limit}{cursor}")).await;
            assert_eq!(page.status, 200, "{page:?}");
            let items = page.body["items"].as_array().unwrap();
            assert!(items.len() <= limit);
            let name = |of: &Value| {
                let part = |name: &str| of[name].as_str().unwrap_or_default().to_owned();
                format!("{}/{}", part("tenantId"), part("providerId"))
            };
            all.extend(items.iter().map(name));
            match page.body["nextCursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return all,
            }
        }
    }
    for limit in [1, 2, 4, 9, 100] {
        let all = walk(&stage, "/statuses", limit).await;
        assert!(all.len() == 9 && all.is_sorted(), "{limit}: {all:?}");
        assert_eq!(walk(&stage, "/tenants/zeta/providers", limit).await, ["zeta/p0", "zeta/p1", "zeta/p2"]);
        assert_eq!(walk(&stage, "/tenants", limit).await, ["acme/", "beta/", "zeta/"]);
        assert_eq!(walk(&stage, "/statuses?state=Ready", limit).await, ["acme/p3"]);
        assert_eq!(walk(&stage, "/statuses?failing=true", limit).await, [""; 0]);
        assert_eq!(walk(&stage, "/statuses?origin=file", limit).await, [""; 0]);
    }
    assert_eq!(stage.all.get("/tenants").await.body["items"][0]["providers"], json!(5));
    for wrong in ["limit=0", "limit=501", "limit=x", "state=Gone", "sort=up", "failing=1"] {
        let refused = stage.all.get(&format!("/statuses?{wrong}")).await;
        assert_eq!((refused.status, &refused.body["error"]), (400, &json!("invalid_input")), "{wrong}");
    }
}

#[tokio::test]
async fn what_is_wrong_is_named_with_what_to_do() {
    let (stage, idp) = (Stage::forgetful().await, IdentityProvider::start());
    let of = |more: Value| {
        let mut body = settings(&idp);
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    for (body, status, pointer, detail) in [
        (json!({}), 400, "/jwksUrl", "jwksUrl: is missing"),
        (json!({"jwksUrl": "nowhere"}), 400, "/jwksUrl", "jwksUrl: is no URL"),
        (
            json!({"jwksUrl": "https://user@id.example.com/"}),
            400,
            "/jwksUrl",
            "jwksUrl: must not carry credentials",
        ),
        (json!({"jwksUrl": "https://id.example.net/"}), 403, "", "id.example.net is not in"),
        (of(json!({"minTtl": "PT1S"})), 400, "/minTtl", "minTtl: "),
        (
            of(json!({"retryPolicy": {"deadline": "PT1S"}})),
            400,
            "/retryPolicy/deadline",
            "retryPolicy.deadline: ",
        ),
        (of(json!({"pinnedSpki": ["short"]})), 400, "/pinnedSpki/0", "32 bytes"),
        (of(json!({"allowedDomains": ["other.example"]})), 400, "/jwksUrl", "allowed_domains"),
        (of(json!({"staleWileError": "PT1H"})), 400, "/staleWileError", "is no setting"),
        (of(json!({"maxResponseBytes": 16_777_217})), 400, "/maxResponseBytes", "at most 16777216"),
        (of(json!({"allowedDomains": vec!["127.0.0.1"; 65]})), 400, "/allowedDomains", "at most 64"),
        (
            json!({"jwksUrl": format!("https://127.0.0.1/{}", "x".repeat(2048))}),
            400,
            "/jwksUrl",
            "2048 characters",
        ),
        (
            of(json!({"bearerToken": {"inline": "x".repeat(65_537)}})),
            400,
            "/bearerToken/inline",
            "1 to 65536",
        ),
        (of(json!({"maxKeys": 10_001})), 400, "/maxKeys", "at most 10000"),
        (of(json!({"retryPolicy": {"maxRetries": 11}})), 400, "/retryPolicy/maxRetries", "at most 10"),
        (of(json!({"retryPolicy": {"deadline": "PT61S"}})), 400, "/retryPolicy/deadline", "at most PT1M"),
        (
            of(json!({"retryPolicy": {"attemptTimeout": "1h"}})),
            400,
            "/retryPolicy/attemptTimeout",
            "at most PT1M",
        ),
        (
            of(json!({"retryPolicy": {"initialBackoff": "1h"}})),
            400,
            "/retryPolicy/initialBackoff",
            "at most PT1M",
        ),
        (of(json!({"retryPolicy": {"maxBackoff": "1h"}})), 400, "/retryPolicy/maxBackoff", "at most PT1M"),
        (of(json!({"connectTimeout": "1h"})), 400, "/connectTimeout", "at most PT1M"),
        (of(json!({"kidMissWait": "1h"})), 400, "/kidMissWait", "at most PT1M"),
        (of(json!({"staleWait": "1h"})), 400, "/staleWait", "at most PT1M"),
        (of(json!({"required": true, "refreshMode": "on_demand"})), 400, "/refreshMode", "always"),
    ] {
        let refused = stage.all.put(MAIN, &body).await;
        assert_eq!(
            (refused.status, refused.header("content-type")),
            (status, "application/problem+json"),
            "{body}"
        );
        let of = &refused.body;
        assert_eq!(of["pointer"].as_str().unwrap_or_default(), pointer, "{of}");
        assert!(of["detail"].as_str().unwrap().contains(detail) && of["detail"] == of["message"], "{of}");
        assert!(
            of["type"].as_str().unwrap().ends_with(of["error"].as_str().unwrap()) && of["status"] == status
        );
    }
    let bad = stage.all.put("/tenants/a_b/providers/main", &settings(&idp)).await;
    assert_eq!((bad.status, &bad.body["parameter"]), (400, &json!("tenant")));
    let like = stage.all.put(MAIN, &of(json!({"staleWileError": "PT1H"}))).await;
    assert_eq!(like.body["remedy"], json!("did you mean staleWhileError?"));
    let other = stage.all.with("acme-write");
    let refused = other.put(MAIN, &of(json!({"required": true}))).await;
    assert_eq!((refused.status, &refused.body["pointer"]), (403, &json!("/required")));
    assert_eq!(stage.all.put(MAIN, &of(json!({"required": true}))).await.status, 202);
    assert_eq!(stage.all.get(MAIN).await.body["refreshMode"], json!("always"));

    for (headers, body, status) in [
        (&[("content-type", "text/plain")], "{}".to_owned(), 415),
        (&[("content-type", "application/json; charset=utf-8")], format!("\"{}\"", "x".repeat(300_000)), 413),
        (&[("content-type", "application/json")], "{".to_owned(), 400),
    ] {
        let mut request = stage.all.client.put(format!("{}{MAIN}", stage.all.url)).body(body);
        request = request.bearer_auth(crate::stage::token("all-write"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = crate::stage::Answer::of(request.send().await.unwrap()).await;
        assert_eq!(answer.status, status, "{answer:?}");
    }
    let wrong = stage.all.ask("PATCH", MAIN, None).await;
    assert_eq!((wrong.status, &wrong.body["error"]), (405, &json!("method_not_allowed")));
    assert!(wrong.header("allow").contains("PUT"), "{wrong:?}");
    for (body, pointer) in [
        (json!({"id": ""}), "/id"),
        (json!({"id": "x".repeat(1025)}), "/id"),
        (json!({"id": "."}), "/id"),
        (json!({"id": ".."}), "/id"),
        (json!({"id": "x", "reason": "y".repeat(501)}), "/reason"),
        (json!({}), "/id"),
    ] {
        let refused = stage.all.post(&format!("{MAIN}/denials"), &body).await;
        assert_eq!((refused.status, &refused.body["pointer"]), (400, &json!(pointer)), "{body}");
    }
}

#[tokio::test]
async fn a_tenant_has_so_many_providers_and_no_more() {
    let (stage, idp) = (Stage::forgetful().await, IdentityProvider::start());
    let path = |tenant: &str, number: usize| format!("/tenants/{tenant}/providers/p{number}");
    for number in 0..20 {
        assert_eq!(stage.all.put(&path("acme", number), &settings(&idp)).await.status, 202);
    }
    let refused = stage.all.put(&path("acme", 20), &settings(&idp)).await;
    assert_eq!((refused.status, &refused.body["error"]), (403, &json!("refused_by_policy")));
    assert_eq!(stage.all.get(&path("acme", 20)).await.status, 404);
    // Of others, and in place of one that is there, it is taken.
    assert_eq!(stage.all.put(&path("acme", 19), &settings(&idp)).await.status, 202);
    assert_eq!(stage.all.put(&path("acm", 0), &settings(&idp)).await.status, 202);
    assert_eq!(stage.all.put(&path("beta", 0), &settings(&idp)).await.status, 202);
    assert_eq!(stage.all.delete(&path("acme", 3)).await.status, 204);
    assert_eq!(stage.all.put(&path("acme", 20), &settings(&idp)).await.status, 202);
}

#[tokio::test]
async fn refreshes_that_nobody_waits_for_leave_one_task_a_provider_behind() {
    let (stage, idp) = (Stage::forgetful().await, IdentityProvider::start());
    idp.origin().pause();
    stage.all.put(MAIN, &settings(&idp)).await;
    // After a first one, so that the client has its connections and their tasks.
    stage.all.post(&format!("{MAIN}/refresh"), &Value::Null).await;
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let before = tasks();
    for _ in 0..50 {
        assert_eq!(stage.all.post(&format!("{MAIN}/refresh"), &Value::Null).await.status, 202);
    }
    assert!(tasks() < before + 10, "{before}, then {}", tasks());
    idp.origin().resume();
    let refreshed = stage.all.post(&format!("{MAIN}/refresh?wait=true"), &Value::Null).await;
    assert_eq!(refreshed.body["state"], json!("Ready"));
    stage.all.post(&format!("{MAIN}/refresh"), &Value::Null).await;
}

#[tokio::test]
async fn who_hangs_up_before_their_turn_leaves_nothing_behind() {
    let (stage, idp) = (Stage::forgetful().await, IdentityProvider::start());
    stage.all.put(MAIN, &settings(&idp)).await;
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let before = tasks();
    let held = stage.state.hold().await;
    let body = settings(&idp);
    for _ in 0..50 {
        let put = stage.all.put(MAIN, &body);
        assert!(tokio::time::timeout(Duration::from_millis(10), put).await.is_err());
    }
    // The server sees each of them leave.
    for _ in 0..10_000 {
        if tasks() < before + 10 {
            break;
        }
        tokio::task::yield_now().await;
    }
    assert!(tasks() < before + 10, "{before}, then {}", tasks());
    drop(held);
    assert_eq!(stage.all.put(MAIN, &settings(&idp)).await.status, 202);
}

#[tokio::test]
async fn denials_whose_callers_hang_up_keep_so_many_tasks_and_no_more_and_are_in_force() {
    const MOST: usize = 256;
    let (stage, idp) = (Stage::forgetful().await, IdentityProvider::start());
    stage.all.put(MAIN, &settings(&idp)).await;
    let path = format!("{MAIN}/denials");
    let denied = async || stage.state.registry().provider_status("acme", "main").await.unwrap().denied;
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let before = tasks();
    let held = stage.state.hold().await;
    // Each caller hangs up once it is in force.
    let hangs_up = async |id: String| {
        let (all, path, body) = (stage.all.clone(), path.clone(), json!({"id": id}));
        let asking = tokio::spawn(async move { all.post(&path, &body).await });
        while !denied().await.contains(&id) {
            tokio::task::yield_now().await;
        }
        asking.abort();
    };
    for at in 0..MOST {
        hangs_up(format!("k{at}")).await;
    }
    for at in 0..50 {
        hangs_up(format!("beyond-{at}")).await;
    }
    while tasks() > before + MOST + 10 {
        tokio::task::yield_now().await;
    }
    // Who stays has its turn after them.
    let (all, at) = (stage.all.clone(), path.clone());
    let stays = tokio::spawn(async move { all.post(&at, &json!({"id": "stays"})).await });
    drop(held);
    // Those who hung up are kept all the same, and then there is room again.
    let kept = async || {
        let listed = stage.all.get(&path).await;
        let items = listed.body["items"].as_array().unwrap();
        items.iter().filter(|item| item["deniedBy"].is_string()).count()
    };
    while kept().await < MOST + 1 || tasks() > before + 10 {
        tokio::task::yield_now().await;
    }
    assert_eq!(stays.await.unwrap().status, 201);
    // Of those beyond, whose hanging up had not been noticed is kept too.
    assert!((MOST + 1..MOST + 12).contains(&kept().await), "{}", kept().await);
}

#[tokio::test]
async fn a_token_is_explained_within_the_reach_of_who_asks() {
    let (stage, idp) = (Stage::forgetful().await, IdentityProvider::start());
    let mut body = settings(&idp);
    body["issuer"] = json!(idp.issuer());
    stage.all.put(MAIN, &body).await;
    stage.all.post(&format!("{MAIN}/refresh?wait=true"), &Value::Null).await;
    let token = idp.mint(&Token::new().issuer(&idp.issuer()));
    let header = json!({"alg": "ES256", "kid": idp.signing_kid()}).to_string();
    let (acme, zeta) = (stage.all.with("acme-read"), stage.all.with("zeta-write"));
    for (caller, body, status, found) in [
        (&stage.all, json!({"token": token}), 200, true),
        (
            &stage.all,
            json!({"token": header, "within": {"tenantId": "acme", "providerId": "main"}}),
            200,
            true,
        ),
        (&acme, json!({"token": token, "within": {"tenantId": "acme"}}), 200, true),
        (&acme, json!({"token": token}), 403, false),
        (&stage.all, json!({"token": token, "within": {"providerId": "main"}}), 400, false),
        (&stage.all, json!({"token": token, "within": []}), 400, false),
        (&stage.all, json!({"token": "x"}), 200, false),
        (&stage.all, json!({"token": "x".repeat(20_000)}), 400, false),
        // As if there were no such tenant.
        (&zeta, json!({"token": token, "within": {"tenantId": "acme"}}), 200, false),
        (&stage.all, json!({"token": token, "within": {"tenantId": "nobody"}}), 200, false),
        (&zeta, json!({"token": header, "within": {"tenantId": "acme", "providerId": "main"}}), 404, false),
        (
            &stage.all,
            json!({"token": header, "within": {"tenantId": "nobody", "providerId": "main"}}),
            404,
            false,
        ),
    ] {
        let answer = caller.post("/explain", &body).await;
        assert_eq!(
            (answer.status, answer.body["thumbprint"].is_string()),
            (status, found),
            "{body} {answer:?}"
        );
        assert!(found || status != 200 || answer.body["whyNot"].is_string());
    }
    let hidden = zeta.post("/explain", &json!({"token": token, "within": {"tenantId": "acme"}})).await;
    let absent = stage.all.post("/explain", &json!({"token": token, "within": {"tenantId": "nobody"}})).await;
    assert_eq!(hidden.body, absent.body);
}
