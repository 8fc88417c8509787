//! Where a guard looks for a token, how odd requests are read, and what is answered: as documented, row by row.
#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

mod stage;

use std::time::Duration;

use http::header::{AUTHORIZATION, CONTENT_TYPE, COOKIE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, HeaderValue, Response};
use jwks_cache::{Error, Guard, Refusal, Registry, StandardClaims, TokenSource};
use stage::guarded::Guarded;
use stage::soon;

const HEADER: &str = "X-Access-Token";
const ASSERTION: HeaderName = HeaderName::from_static("x-access-token");

fn guard(sources: impl IntoIterator<Item = TokenSource>) -> Guard {
    Guard::new(Registry::new().verifier().any_audience().build().unwrap()).sources(sources)
}

fn headers(fields: &[(HeaderName, &[u8])]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(name, HeaderValue::from_bytes(value).unwrap());
    }
    headers
}

/// `want` is the token found; `none`; or `wrong`.
fn check(guard: &Guard, fields: &[(HeaderName, &[u8])], want: &str) {
    let headers = headers(fields);
    let got = match guard.token(&headers) {
        Ok(token) => token.to_owned(),
        Err(Refusal::NoToken) => "none".to_owned(),
        Err(Refusal::InvalidRequest(_)) => "wrong".to_owned(),
        Err(other) => panic!("{other:?}"),
    };
    let said: Vec<_> = fields.iter().map(|(name, value)| (name, String::from_utf8_lossy(value))).collect();
    assert_eq!(got, want, "{said:?}");
}

#[test]
fn authorization_is_read_as_the_standard_writes_it() {
    let guard = guard([TokenSource::Authorization]);
    for (value, want) in [
        ("Bearer a.b.c", "a.b.c"),
        ("bearer a.b.c", "a.b.c"),
        ("BEARER a.b.c", "a.b.c"),
        ("Bearer    a.b.c", "a.b.c"),
        (" \tBearer a.b.c \t ", "a.b.c"),
        ("Bearer", "wrong"),
        ("Bearer ", "wrong"),
        ("Bearer\ta.b.c", "wrong"),
        ("Bearer \ta.b.c", "wrong"),
        ("Bearer a.b.c d.e.f", "wrong"),
        ("Bearer a.b.c, Bearer d.e.f", "wrong"),
        ("Bearer a.b\tc", "wrong"),
        ("Bearer \u{e4}", "wrong"),
        ("Bearer a\u{2028}b", "wrong"),
        ("", "none"),
        ("Basic a.b.c", "none"),
        ("Bearera.b.c", "none"),
        ("Bearer:a.b.c", "none"),
        ("a.b.c", "none"),
        ("DPoP a.b.c", "none"),
    ] {
        check(&guard, &[(AUTHORIZATION, value.as_bytes())], want);
    }
    check(&guard, &[(AUTHORIZATION, b"Bearer \xff\xfe")], "wrong");
    check(&guard, &[(AUTHORIZATION, b"\xff\xfe a")], "none");
    check(&guard, &[], "none");
    check(&guard, &[(ASSERTION, b"a.b.c"), (COOKIE, b"token=a.b.c")], "none");
}

#[test]
fn two_authorization_headers_are_refused_whatever_they_say() {
    let guard = guard([TokenSource::Authorization]);
    for other in ["Bearer a", "Bearer b", "Basic YTpi", "", "bearer"] {
        check(&guard, &[(AUTHORIZATION, b"Bearer a"), (AUTHORIZATION, other.as_bytes())], "wrong");
        check(&guard, &[(AUTHORIZATION, other.as_bytes()), (AUTHORIZATION, b"Bearer a")], "wrong");
    }
}

#[test]
fn a_named_header_holds_a_token_with_or_without_its_scheme() {
    let guard = guard([TokenSource::header(HEADER).unwrap()]);
    for (value, want) in [
        ("a.b.c", "a.b.c"),
        ("  a.b.c\t", "a.b.c"),
        ("Bearer a.b.c", "a.b.c"),
        ("bearer  a.b.c", "a.b.c"),
        ("", "none"),
        (" ", "none"),
        ("a b", "wrong"),
        ("Basic a", "wrong"),
        ("Bearer", "wrong"),
    ] {
        check(&guard, &[(ASSERTION, value.as_bytes())], want);
    }
    check(&guard, &[(ASSERTION, b"a"), (ASSERTION, b"a")], "wrong");
    check(&guard, &[(ASSERTION, b"a"), (ASSERTION, b"")], "wrong");
    check(&guard, &[(AUTHORIZATION, b"Bearer a")], "none");
    // A header of underscores is another one, which some gateways make of this.
    check(&guard, &[(HeaderName::from_static("x_access_token"), b"a")], "none");
}

#[test]
fn a_cookie_is_found_by_its_exact_name_and_must_be_the_only_one() {
    let guard = guard([TokenSource::cookie("token").unwrap()]);
    for (value, want) in [
        ("token=a.b.c", "a.b.c"),
        ("x=1; token=a.b.c; y=2", "a.b.c"),
        ("x=1;token=a.b.c", "a.b.c"),
        ("token = a.b.c ", "a.b.c"),
        ("token=\"a.b.c\"", "a.b.c"),
        ("token=a==", "a=="),
        ("Token=a.b.c", "none"),
        ("xtoken=a; token2=b; __Host-token=c", "none"),
        ("token", "none"),
        ("token=", "none"),
        ("token=\"\"", "none"),
        ("=token", "none"),
        (";;;", "none"),
        ("token=a b", "wrong"),
        ("token=a; token=b", "wrong"),
        ("token=a; token=a", "wrong"),
        ("token=; token=a", "wrong"),
    ] {
        check(&guard, &[(COOKIE, value.as_bytes())], want);
    }
    check(&guard, &[(COOKIE, b"x=1"), (COOKIE, b"token=a")], "a");
    check(&guard, &[(COOKIE, b"token=a"), (COOKIE, b"token=b")], "wrong");
    check(&guard, &[(COOKIE, b"token=\xff")], "wrong");
}

#[test]
fn only_one_source_may_hold_a_token() {
    let all = guard([
        TokenSource::Authorization,
        TokenSource::header(HEADER).unwrap(),
        TokenSource::cookie("token").unwrap(),
    ]);
    let field = |name, value: &'static str| (name, value.as_bytes());
    let bearer = field(AUTHORIZATION, "Bearer a");
    let (header, cookie) = (field(ASSERTION, "b"), field(COOKIE, "token=c"));
    check(&all, std::slice::from_ref(&bearer), "a");
    check(&all, std::slice::from_ref(&header), "b");
    check(&all, std::slice::from_ref(&cookie), "c");
    check(&all, &[bearer.clone(), header.clone()], "wrong");
    check(&all, &[header, cookie.clone()], "wrong");
    check(&all, &[bearer, cookie.clone()], "wrong");
    check(&all, &[(AUTHORIZATION, b"Basic YTpi"), cookie.clone()], "c");
    check(&all, &[(ASSERTION, b""), cookie.clone()], "c");
    // What is broken is not passed over.
    check(&all, &[(AUTHORIZATION, b"Bearer"), cookie], "wrong");
    check(&guard([]), &[(AUTHORIZATION, b"Bearer a")], "none");
}

#[test]
fn sources_have_names_that_requests_can_have() {
    let authorization = TokenSource::header("AUTHORIZATION").unwrap();
    assert_eq!(authorization, TokenSource::Authorization);
    for name in ["", "x y", "x\r\ny", "\u{e4}"] {
        assert!(
            matches!(TokenSource::header(name), Err(Error::Validation { field: "header", .. })),
            "{name:?}"
        );
    }
    for name in ["", "a=b", "a;b", "a b", "a\r\n", "\u{e4}", "\"a\""] {
        assert!(
            matches!(TokenSource::cookie(name), Err(Error::Validation { field: "cookie", .. })),
            "{name:?}"
        );
    }
}

fn header<'r>(response: &'r Response<String>, name: &HeaderName) -> Option<&'r str> {
    response.headers().get(name).map(|value| value.to_str().unwrap())
}

#[tokio::test]
async fn refusals_are_answered_as_the_standard_says_and_tell_no_secrets() {
    let stage = Guarded::new().await;
    for (case, authorization, status, challenge) in stage.cases() {
        let fields = authorization.iter().map(|value| (AUTHORIZATION, value.as_bytes()));
        let headers = headers(&fields.collect::<Vec<_>>());
        match stage.guard.verify::<StandardClaims>(&headers, &[]).await {
            Ok(claims) => assert_eq!((claims.sub.as_deref(), status), (Some("ada"), 200), "{case}"),
            Err(refusal) => {
                let response: Response<String> = stage.guard.response(&refusal);
                let said = header(&response, &WWW_AUTHENTICATE).unwrap();
                assert_eq!(response.status(), status, "{case}: {refusal:?}");
                assert!(said.starts_with(challenge), "{case}: {said}");
                assert_eq!(said == "Bearer", challenge == "Bearer", "{case}: {said}");
                assert_eq!(header(&response, &CONTENT_TYPE), Some("application/json"));
                let body: serde_json::Value = serde_json::from_str(response.body()).unwrap();
                assert_eq!(body["error"], refusal.code(), "{case}");
                let token = authorization.as_deref().and_then(|it| it.split(' ').next_back());
                assert!(
                    token.is_none_or(|token| token.len() < 9 || !response.body().contains(token)),
                    "{case}"
                );
            }
        }
    }
}

#[tokio::test]
async fn tenant_key_and_signature_are_not_told_apart() {
    let stage = Guarded::new().await;
    let claims = serde_json::json!({"iss": stage.idp.issuer(), "aud": "orders", "exp": 9_999_999_999_u64});
    let other = jwks_cache_testkit::IdentityProvider::start();
    let mut answers = Vec::new();
    for token in [
        stage.idp.token_naming("no-such-key", &claims),
        other.token(&claims),
        other.token(
            &serde_json::json!({"iss": "https://nobody.example", "aud": "orders", "exp": 9_999_999_999_u64}),
        ),
    ] {
        let headers = headers(&[(AUTHORIZATION, format!("Bearer {token}").as_bytes())]);
        let refusal = soon(stage.guard.verify::<StandardClaims>(&headers, &[])).await.unwrap_err();
        let response: Response<String> = stage.guard.response(&refusal);
        answers.push(format!("{response:?}"));
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:#?}");
}

#[tokio::test]
async fn a_guard_of_a_tenant_takes_that_tenants_tokens_alone() {
    let stage = Guarded::new().await;
    let headers = headers(&[(AUTHORIZATION, stage.bearer().as_bytes())]);
    for (tenant, is_let_in) in [(stage::TENANT, true), ("globex", false)] {
        let guard = stage.guard.clone().in_tenant(tenant);
        assert_eq!(soon(guard.verify::<StandardClaims>(&headers, &[])).await.is_ok(), is_let_in, "{tenant}");
        assert_eq!(guard.verify_now::<StandardClaims>(&headers, &[]).is_ok(), is_let_in, "{tenant}");
    }
}

#[tokio::test]
async fn scopes_are_all_needed_and_named_where_they_lack() {
    let stage = Guarded::new().await;
    let check = async |scope: serde_json::Value, claim: &str, wanted: &[&str], granted: bool| {
        let token = stage.token(|it| it.claim(claim, scope.clone()));
        let headers = headers(&[(AUTHORIZATION, format!("Bearer {token}").as_bytes())]);
        let got = stage.guard.verify::<StandardClaims>(&headers, wanted).await;
        assert_eq!(got.is_ok(), granted, "{claim} {scope} {wanted:?}");
        let now = stage.guard.verify_now::<StandardClaims>(&headers, wanted);
        assert_eq!(now.is_ok(), granted, "{claim} {scope} {wanted:?}");
        got.err()
    };
    check("read write".into(), "scope", &["read"], true).await;
    check("read write".into(), "scp", &["write", "read"], true).await;
    check(serde_json::json!(["read"]), "scp", &["read"], true).await;
    check("read".into(), "scope", &[], true).await;
    check("reader".into(), "scope", &["read"], false).await;
    let refusal = check("read".into(), "scope", &["read", "write"], false).await.unwrap();
    let response: Response<String> = stage.guard.response(&refusal);
    assert_eq!(response.status(), 403);
    let said = header(&response, &WWW_AUTHENTICATE).unwrap();
    assert!(said.starts_with(r#"Bearer error="insufficient_scope", "#), "{said}");
    assert!(said.ends_with(r#", scope="read write""#), "{said}");
}

#[tokio::test]
async fn without_keys_the_answer_is_to_come_again_and_never_that_the_token_is_bad() {
    let stage = Guarded::new().await;
    let bearer = stage.bearer();
    stage.idp.go_down();
    let headers = headers(&[(AUTHORIZATION, bearer.as_bytes())]);
    let refusal = soon(stage.guard.verify::<StandardClaims>(&headers, &[])).await.unwrap_err();
    let response: Response<String> = stage.guard.response(&refusal);
    assert_eq!((response.status().as_u16(), header(&response, &RETRY_AFTER)), (503, Some("5")));
    assert_eq!(header(&response, &WWW_AUTHENTICATE), None);
    let patient = stage.guard.clone().retry_after(Duration::from_secs(30));
    let response: Response<String> = patient.response(&refusal);
    assert_eq!(header(&response, &RETRY_AFTER), Some("30"));
    let hasty = stage.guard.clone().retry_after(Duration::from_millis(1));
    let response: Response<String> = hasty.response(&refusal);
    assert_eq!(header(&response, &RETRY_AFTER), Some("1"));
}

#[tokio::test]
async fn realm_and_body_are_the_services_own_and_break_no_header() {
    let guard = guard([TokenSource::Authorization])
        .realm("a\"b\\c\r\nX-Evil: 1\u{e4}")
        .body(HeaderValue::from_static("application/problem+json"), |refusal| {
            format!("{} {}", refusal.status().as_u16(), refusal.code())
        });
    let response: Response<String> = guard.response(&Refusal::NoToken);
    assert_eq!(header(&response, &WWW_AUTHENTICATE), Some(r#"Bearer realm="a'b'c??X-Evil: 1?""#));
    assert_eq!(header(&response, &CONTENT_TYPE), Some("application/problem+json"));
    assert_eq!((response.headers().len(), response.body().as_str()), (2, "401 missing_token"));
}
