//! Who may do what in the control plane: every route with every kind of credentials, what lists show, what the audit log says,
//! and that the document has every route.
use std::cell::RefCell;
use std::io::Write;

use crate::stage::{Caller, Stage, certificate, settings, token};
use jwks_cache_server::control::access::{Access, Peer};
use jwks_cache_testkit::IdentityProvider;
use serde_json::{Value, json};

/// What a route takes.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Takes {
    Read,
    Write,
    /// Shows what the caller reaches.
    Anybody,
}

/// Every route of the control plane, and what it answers to whoever may do everything.
pub(crate) const ROUTES: [(&str, &str, Takes, u16); 12] = [
    ("GET", "/tenants/{tenant}/providers/{provider}", Takes::Read, 200),
    ("PUT", "/tenants/{tenant}/providers/{provider}", Takes::Write, 202),
    ("DELETE", "/tenants/{tenant}/providers/{provider}", Takes::Write, 204),
    ("POST", "/tenants/{tenant}/providers/{provider}/refresh", Takes::Write, 202),
    ("GET", "/tenants/{tenant}/providers/{provider}/status", Takes::Read, 200),
    ("GET", "/tenants/{tenant}/providers/{provider}/denials", Takes::Read, 200),
    ("POST", "/tenants/{tenant}/providers/{provider}/denials", Takes::Write, 200),
    ("DELETE", "/tenants/{tenant}/providers/{provider}/denials/{id}", Takes::Write, 204),
    ("GET", "/tenants/{tenant}/providers", Takes::Anybody, 200),
    ("GET", "/tenants", Takes::Anybody, 200),
    ("GET", "/statuses", Takes::Anybody, 200),
    ("POST", "/explain", Takes::Read, 200),
];

/// What to ask of a route about the provider main of the tenant acme and its denied key k9.
pub(crate) fn about_main(method: &str, route: &str, idp: &IdentityProvider) -> (String, Option<Value>) {
    let path = route.replace("{tenant}", "acme").replace("{provider}", "main").replace("{id}", "k9");
    let body = match (method, route) {
        ("PUT", _) => Some(settings(idp)),
        ("POST", "/explain") => {
            let header = r#"{"alg": "RS256"}"#;
            Some(json!({"token": header, "within": {"tenantId": "acme", "providerId": "main"}}))
        }
        ("POST", _) if route.ends_with("denials") => Some(json!({"id": "k9"})),
        _ => None,
    };
    (path, body)
}

/// Who somebody is, over what, and what they may do to the tenant acme.
struct Who {
    name: &'static str,
    caller: Caller,
    known: bool,
    reaches: bool,
    writes: bool,
}

async fn everybody(stage: &mut Stage) -> Vec<Who> {
    let anyone = stage.listen(None).await;
    let ours = stage.listen(Some(certificate(7, "x"))).await;
    let reads = stage.listen(Some(certificate(1, "acme-cert"))).await;
    let strange = stage.listen(Some(certificate(1, "x"))).await;
    let owner = stage.listen(Some(Peer::Owner)).await;
    let by_socket = owner.with("all-write");
    let wrong = |caller: &Caller, token: &str| Caller { token: Some(token.to_owned()), ..caller.clone() };
    let who = |name, caller, known, reaches, writes| Who { name, caller, known, reaches, writes };
    vec![
        who("nothing", anyone.clone(), false, false, false),
        who("a wrong token", wrong(&anyone, &token("nobody")), false, false, false),
        who("an empty token", wrong(&anyone, ""), false, false, false),
        who("the hash of a token", wrong(&anyone, &hash()), false, false, false),
        who("a strange certificate", strange.clone(), false, false, false),
        who("a wrong token with a good certificate", wrong(&ours, &token("nobody")), false, false, false),
        who("reading", anyone.with("acme-read"), true, true, false),
        who("reading all", anyone.with("all-read"), true, true, false),
        who("writing", anyone.with("acme-write"), true, true, true),
        who("writing all", anyone.with("all-write"), true, true, true),
        who("writing, of another tenant", anyone.with("zeta-write"), true, false, true),
        who("a reading certificate", reads, true, true, false),
        who("a writing certificate", ours.clone(), true, true, true),
        who("a token beside a certificate", ours.with("acme-read"), true, true, false),
        who("the owner of the socket, where others are known", owner.clone(), false, false, false),
        who("a token over the owner's socket", by_socket, true, true, true),
        who("a wrong token over the owner's socket", wrong(&owner, &token("nobody")), false, false, false),
    ]
}

fn hash() -> String {
    let hash = jwks_cache_server::control::access::TokenHash::of(&token("all-write"));
    hash.0.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn every_route_lets_in_who_may_and_nobody_else() {
    let (mut stage, idp) = (Stage::forgetful().await, IdentityProvider::start());
    let main = "/tenants/acme/providers/main";
    let everybody = everybody(&mut stage).await;
    for (method, route, takes, good) in ROUTES {
        for who in &everybody {
            let put = stage.all.put(main, &settings(&idp)).await;
            let denied = stage.all.post(&format!("{main}/denials"), &json!({"id": "k9"})).await;
            assert!(put.status == 202 && denied.status < 300);
            let (path, body) = about_main(method, route, &idp);
            let answer = who.caller.ask(method, &path, body.as_ref()).await;
            let want = match takes {
                _ if !who.known => 401,
                Takes::Anybody => 200,
                _ if !who.reaches => 404,
                Takes::Write if !who.writes => 403,
                _ => good,
            };
            let what = format!("{method} {route} by {}: {}", who.name, answer.body);
            assert_eq!(answer.status, want, "{what}");
            let challenge = answer.header("www-authenticate");
            assert_eq!(challenge.starts_with("Bearer"), matches!(want, 401 | 403), "{what}");
            if want == 401 {
                let sent = who.caller.token.is_some();
                assert_eq!(challenge.contains("invalid_token"), sent, "{what}");
                let still = stage.all.get(main).await;
                assert_eq!(still.status, 200, "nothing was done: {what}");
            }
            if takes == Takes::Anybody && who.known {
                let sees = answer.body.to_string().contains("acme");
                assert_eq!(sees, who.reaches, "{what}");
            }
            assert_eq!(answer.header("access-control-allow-origin"), "");
        }
    }
}

#[tokio::test]
async fn a_tenant_that_is_out_of_reach_is_not_told_apart_from_one_that_is_not_there() {
    let (stage, idp) = (Stage::forgetful().await, IdentityProvider::start());
    stage.all.put("/tenants/acme/providers/main", &settings(&idp)).await;
    let zeta = stage.all.with("zeta-write");
    for (method, route, takes, _) in ROUTES.iter().filter(|(_, route, ..)| route.contains("{tenant}")) {
        let body =
            (*method == "PUT").then(|| settings(&idp)).or((*method == "POST").then(|| json!({"id": "k"})));
        let ask = |tenant: &'static str| {
            let path = route.replace("{tenant}", tenant).replace("{provider}", "main").replace("{id}", "k");
            let (zeta, body) = (zeta.clone(), body.clone());
            async move { zeta.ask(method, &path, body.as_ref()).await }
        };
        let (there, not_there) = (ask("acme").await, ask("none").await);
        let text = there.body.to_string().replace("acme", "none");
        assert_eq!((there.status, text), (not_there.status, not_there.body.to_string()), "{method} {route}");
        assert!(*takes == Takes::Anybody || there.status == 404);
    }
}

#[tokio::test]
async fn the_owner_of_the_socket_may_do_everything_while_nobody_else_is_known() {
    let (mut stage, idp) = (Stage::forgetful().await, IdentityProvider::start());
    let owner = stage.listen(Some(Peer::Owner)).await;
    let main = "/tenants/acme/providers/main";
    assert_eq!(owner.put(main, &settings(&idp)).await.status, 401);
    stage.state.let_in(Access::default());
    assert_eq!(owner.put(main, &settings(&idp)).await.status, 202);
    assert_eq!(owner.with("all-write").get(main).await.status, 401, "a wrong token is wrong here too");
}

#[tokio::test]
async fn a_path_that_is_no_text_is_refused_as_a_problem_and_only_to_who_is_known() {
    let stage = Stage::forgetful().await;
    let strange = Caller { token: None, ..stage.all.clone() };
    for path in ["/tenants/%FF/providers", "/tenants/%FF/providers/x", "/tenants/a/providers/x/denials/%FF"] {
        let method = if path.contains("denials") { "DELETE" } else { "GET" };
        assert_eq!(strange.ask(method, path, None).await.status, 401, "{path}");
        let refused = stage.all.ask(method, path, None).await;
        assert_eq!((refused.status, &refused.body["error"]), (400, &json!("invalid_input")), "{path}");
        assert_eq!(refused.header("content-type"), "application/problem+json");
    }
}

#[tokio::test]
async fn a_page_of_another_site_may_not_ask() {
    let mut stage = Stage::forgetful().await;
    stage.state.let_in(Access::default());
    let owner = stage.listen(Some(Peer::Owner)).await;
    let host = owner.url.strip_prefix("http://").unwrap().to_owned();
    let own = format!("http://{host}");
    for (headers, status) in [
        (vec![], 200),
        (vec![("sec-fetch-site", "same-origin")], 200),
        (vec![("sec-fetch-site", "none")], 200),
        (vec![("sec-fetch-site", "cross-site")], 403),
        (vec![("sec-fetch-site", "same-site")], 403),
        (vec![("sec-fetch-site", "anything")], 403),
        (vec![("origin", own.as_str())], 200),
        (vec![("origin", "https://evil.example")], 403),
        (vec![("origin", "null")], 403),
    ] {
        let answer = owner.ask_with("GET", "/tenants", None, &headers).await;
        assert_eq!(answer.status, status, "{headers:?}");
    }
    // A form needs no preflight, and sends no JSON.
    for kind in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"] {
        let request = owner.client.post(format!("{}/explain", owner.url)).header("content-type", kind);
        assert_eq!(request.body("{}").send().await.unwrap().status(), 415);
    }
}

thread_local! {
    /// What the test of this thread logged: its server runs here too.
    static LOG: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

struct Log;

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        LOG.with_borrow_mut(|log| log.extend_from_slice(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn the_audit_log_says_who_did_what_and_no_secret() {
    let subscriber = tracing_subscriber::fmt().with_writer(|| Log).with_ansi(false).finish();
    tracing::subscriber::set_global_default(subscriber).unwrap();
    let (stage, idp) = (Stage::forgetful().await, IdentityProvider::start());
    let mut body = settings(&idp);
    body["bearerToken"] = json!({"inline": "s3cret"});
    let main = "/tenants/acme/providers/main";
    stage.all.with("acme-write").put(main, &body).await;
    stage.all.post(&format!("{main}/denials"), &json!({"id": "k\n9", "reason": "s3cret"})).await;
    stage.all.delete(&format!("{main}/denials/k%0a9")).await;
    stage.all.with("acme-read").delete(main).await;
    stage.all.with("nobody").delete(main).await;
    stage.all.post("/explain", &json!({"token": "s3cret"})).await;
    // Somebody's change waits for a disk; the key is off all the same, and who hangs up then is told of too.
    let held = stage.state.hold().await;
    let (all, path) = (stage.all.clone(), format!("{main}/denials"));
    let asking = tokio::spawn(async move { all.post(&path, &json!({"id": "late"})).await });
    let denied = async || stage.state.registry().provider_status("acme", "main").await.unwrap().denied;
    while !denied().await.contains(&"late".to_owned()) {
        tokio::task::yield_now().await;
    }
    asking.abort();
    while !LOG.with_borrow(|log| String::from_utf8_lossy(log).contains("subject=\"late\"")) {
        tokio::task::yield_now().await;
    }
    drop(held);
    let text = String::from_utf8(LOG.take()).unwrap();
    let lines: Vec<&str> = text.lines().filter(|line| line.contains(" audit: ")).collect();
    for (line, parts) in lines.iter().zip([
        ["who=\"acme-write\"", "method=\"PUT\"", "tenant=\"acme\"", "provider=\"main\"", "status=202"],
        ["who=\"all-write\"", "method=\"POST\"", "subject=\"k\\\\n9\"", "provider=\"main\"", "status=201"],
        ["who=\"all-write\"", "method=\"DELETE\"", "subject=\"k\\\\n9\"", "provider=\"main\"", "status=204"],
        ["who=\"acme-read\"", "method=\"DELETE\"", "tenant=\"acme\"", "provider=\"main\"", "status=403"],
        ["who=\"unknown\"", "method=\"DELETE\"", "tenant=\"acme\"", "provider=\"main\"", "status=401"],
        ["who=\"all-write\"", "method=\"POST\"", "route=\"/explain\"", "control", "status=200"],
        ["who=\"all-write\"", "method=\"POST\"", "subject=\"late\"", "provider=\"main\"", "status=0"],
    ]) {
        assert!(parts.iter().all(|part| line.contains(part)), "{line} lacks one of {parts:?}");
    }
    assert_eq!(lines.len(), 7, "{text}");
    for secret in ["s3cret", &token("acme-write"), &token("nobody")] {
        assert!(!text.contains(secret), "{text}");
    }
}

#[tokio::test]
async fn the_document_has_every_route_and_nothing_else() {
    let stage = Stage::forgetful().await;
    let open = Caller { token: None, ..stage.all.clone() };
    let document = open.get("/openapi.json").await;
    assert_eq!(document.status, 200);
    let document = document.body;
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"), "{}", document["openapi"]);
    let mut said = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap().iter().filter(|(name, _)| name.len() < 7) {
            said.push((method.to_uppercase(), path.clone()));
            let what = format!("{method} {path}");
            assert!(operation["operationId"].is_string() && operation["summary"].is_string(), "{what}");
            let responses = operation["responses"].as_object().unwrap();
            assert!(["401", "403"].iter().all(|status| responses.contains_key(*status)), "{what}");
            assert!(responses.keys().any(|status| status.starts_with('2')), "{what}");
        }
    }
    let mut want: Vec<_> =
        ROUTES.iter().map(|(method, path, ..)| ((*method).to_owned(), (*path).to_owned())).collect();
    said.sort();
    want.sort();
    want.dedup();
    assert_eq!(said, want);
    assert_eq!(document["security"], json!([{"bearer": []}, {"certificate": []}]));
    // What is referred to is there.
    let mut open = vec![&document];
    while let Some(value) = open.pop() {
        match value {
            Value::Object(map) => {
                if let Some(Value::String(to)) = map.get("$ref") {
                    assert!(document.pointer(to.strip_prefix('#').unwrap()).is_some(), "{to} is missing");
                }
                open.extend(map.values());
            }
            Value::Array(list) => open.extend(list),
            _ => {}
        }
    }
}
