//! Keys for the tokens of a command line: fetched once, by the rules of production, and held in a registry of their own
//! so that they are judged as anywhere else. What they are used for is not known here.

use std::sync::Arc;

use http::{HeaderMap, StatusCode};
use jwks_cache::{
    Clock as _, Fetch, FetchRequest, Fetched, Fetching, IdentityProviderRegistration, ProviderHandle,
    Registry, SystemClock, Timing,
};
use jwks_cache_core::keyset::{KeyRules, KeySet};
use serde::Deserialize;
use url::Url;

use crate::cli::{KeysArgs, MannerArgs};
use crate::document::{self, NotHad, is_url};

/// A provider whose keys are at hand.
pub(crate) struct Keys {
    pub(crate) provider: ProviderHandle,
    /// The same keys, to be looked at one by one.
    pub(crate) set: KeySet,
    /// Whose tokens they verify, if that was said.
    pub(crate) issuer: Option<String>,
    /// Where they came from.
    pub(crate) source: String,
}

/// The keys that `args` name; none where they name none.
pub(crate) async fn get(args: &KeysArgs) -> Result<Option<Keys>, NotHad> {
    // Headers and certificate are for the issuer's own origin.
    let stranger = MannerArgs { cert: None, key: None, header: Vec::new(), ..args.manner.clone() };
    let (source, manner) = match (&args.jwks, &args.issuer) {
        (Some(source), _) => (source.clone(), &args.manner),
        (None, Some(issuer)) => {
            let (asked, url) = discover(issuer, &args.manner).await?;
            let at_home = asked.origin() == url.origin();
            (url.to_string(), if at_home { &args.manner } else { &stranger })
        }
        (None, None) => return Ok(None),
    };
    let (body, source) = if is_url(&source) {
        let settings = manner.settings(&source)?;
        (document::fetch(&settings).await?.body, without_query(&settings.jwks_url))
    } else {
        let settings = manner.settings("https://localhost/")?;
        let (name, body) = document::read(&source, settings.max_response_bytes)?;
        (body, name)
    };
    let useless = "`jwks-cache fetch` says what the document is worth";
    let set = KeySet::inspect(&body, &KeyRules::default())
        .map_err(|refusal| NotHad::new(format!("{source}: {refusal}"), useless))?;
    let held = |error| NotHad::new(error, useless);
    let mut registration =
        IdentityProviderRegistration::new("command-line", "keys", "https://localhost/").map_err(held)?;
    registration.issuer.clone_from(&args.issuer);
    let registry = Registry::builder().fetcher(Arc::new(Held(body))).build();
    registry.register(registration).await.map_err(held)?;
    registry.refresh("command-line", "keys").await.map_err(held)?;
    let provider = registry.provider("command-line", "keys").map_err(held)?;
    Ok(Some(Keys { provider, set, issuer: args.issuer.clone(), source }))
}

/// What discovery says, as far as it is asked (OpenID Connect Discovery 1.0 §3).
#[derive(Deserialize)]
struct Discovered {
    issuer: String,
    jwks_uri: String,
}

/// Which URL was asked, and where the issuer's keys are by its word: it must call itself as it was called (§4.3).
async fn discover(issuer: &str, manner: &MannerArgs) -> Result<(Url, Url), NotHad> {
    const PATH: &str = "/.well-known/openid-configuration";
    let settings = manner.settings(&format!("{}{PATH}", issuer.trim_end_matches('/')))?;
    let fetched = document::fetch(&settings).await?;
    let found: Discovered = serde_json::from_slice(&fetched.body).map_err(|_| {
        let what = format!("{} is no discovery document", without_query(&settings.jwks_url));
        NotHad::new(what, "check the issuer; or name its key set with --jwks")
    })?;
    if found.issuer != issuer {
        let said = crate::terminal::shown(&found.issuer, 200);
        return Err(NotHad::new(
            format!("asked for {issuer}, it calls itself {said}"),
            "write the issuer as it writes itself, if that is whom you mean",
        ));
    }
    let useless = |why: &str| NotHad::new(why, "its discovery document names no key set; use --jwks");
    let url = Url::parse(&found.jwks_uri).map_err(|error| useless(&error.to_string()))?;
    // A file is nothing that a provider may name.
    if !matches!(url.scheme(), "http" | "https") {
        return Err(useless("jwks_uri is no http or https URL"));
    }
    Ok((settings.jwks_url, url))
}

fn without_query(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.to_string()
}

/// Gives what was fetched.
#[derive(Debug)]
struct Held(Vec<u8>);

impl Fetch for Held {
    fn fetch<'a>(&'a self, _: &'a FetchRequest) -> Fetching<'a> {
        let now = SystemClock.now();
        let timing = Timing { requested_at: now, received_at: now, received_wall: SystemClock.wall() };
        let (status, headers, body) = (StatusCode::OK, HeaderMap::new(), self.0.clone());
        Box::pin(async move { Ok(Fetched { status, headers, body, timing, requests: 0 }) })
    }
}
