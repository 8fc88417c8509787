//! A guard in front of a service, and an identity provider whose tokens it takes.

use jwks_cache::{Guard, IdentityProviderRegistration, Registry};
use jwks_cache_testkit::{IdentityProvider, Token};

use super::{PROVIDER, TENANT};

pub(crate) const AUDIENCE: &str = "orders";

pub(crate) struct Guarded {
    pub(crate) idp: IdentityProvider,
    pub(crate) registry: Registry,
    pub(crate) guard: Guard,
}

impl Guarded {
    /// Nothing was fetched yet.
    pub(crate) async fn new() -> Self {
        let (idp, registry) = (IdentityProvider::start(), Registry::builder().require_https(false).build());
        let mut registration = IdentityProviderRegistration::new(TENANT, PROVIDER, idp.jwks_url())
            .unwrap()
            .with_require_https(false);
        registration.issuer = Some(idp.issuer());
        // What is unknown may be asked for again soon, and what fails fails soon.
        registration.retry_policy.max_retries = 0;
        registry.register(registration).await.unwrap();
        let guard = Guard::new(registry.verifier().audience(AUDIENCE).build().unwrap());
        Self { idp, registry, guard }
    }

    /// A good token, or one that this makes better or worse.
    pub(crate) fn token(&self, change: impl FnOnce(Token) -> Token) -> String {
        self.idp.mint(&change(Token::new().subject("ada").audience(AUDIENCE)))
    }

    /// The `Authorization` of a good token.
    pub(crate) fn bearer(&self) -> String {
        format!("Bearer {}", self.token(|it| it))
    }

    /// Requests with what they are answered by every framework: the name of the case, `Authorization` if there is one,
    /// the status, and how `WWW-Authenticate` begins.
    pub(crate) fn cases(&self) -> Vec<(&'static str, Option<String>, u16, &'static str)> {
        let bearer = |token: String| Some(format!("Bearer {token}"));
        let forged = {
            let (good, other) = (self.token(|it| it), IdentityProvider::start());
            let foreign =
                other.mint(&Token::new().issuer(&self.idp.issuer()).audience(AUDIENCE).subject("eve"));
            assert_ne!(good, foreign);
            foreign
        };
        vec![
            ("good", Some(self.bearer()), 200, ""),
            ("odd case and spaces", Some(format!("bEARER   {}", self.token(|it| it))), 200, ""),
            ("none", None, 401, "Bearer"),
            ("another scheme", Some("Basic YTpi".into()), 401, "Bearer"),
            ("two words", Some(format!("{} x", self.bearer())), 400, r#"Bearer error="invalid_request""#),
            ("no token at all", Some("Bearer".into()), 400, r#"Bearer error="invalid_request""#),
            ("forged", bearer(forged), 401, r#"Bearer error="invalid_token""#),
            (
                "another audience",
                bearer(self.token(|it| it.audience("bills"))),
                401,
                r#"Bearer error="invalid_token""#,
            ),
            ("expired", bearer(self.token(|it| it.claim("exp", 1))), 401, r#"Bearer error="invalid_token""#),
        ]
    }
}
