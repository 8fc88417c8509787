//! Who competes at reading keys that are held and fresh, each behind one loop of lookups.

use std::future::Future;
use std::hint::black_box;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::DecodingKey;
use jwks_cache_testkit::Algorithm;

use crate::by_hand;
use crate::cores;
use crate::limit::{Clock, Limit, Whole};
use crate::registries::{PROVIDER, Registry, add_all, fetch_all, tenant};
use crate::upstream::{KEYS, Upstream, kid};

/// A number of lookups, the first at this place.
type Lookups = Pin<Box<dyn Future<Output = ()> + Send>>;

pub struct Reader {
    pub name: &'static str,
    run: Arc<dyn Fn(usize, usize) -> Lookups + Send + Sync>,
}

impl Reader {
    pub fn lookups(&self, from: usize, count: usize) -> Lookups {
        (self.run)(from, count)
    }
}

/// One lookup's question.
struct Place {
    tenant: String,
    id: String,
    kid: String,
}

/// The loop around a lookup, the same for all; `$look` must not be able to leave it.
macro_rules! reader {
    ($name:expr, $held:expr, $places:expr, |$of:ident, $place:ident| $look:expr) => {{
        let (held, places) = (Arc::new($held), Arc::clone($places));
        let run = move |from: usize, count: usize| -> Lookups {
            let (held, places) = (Arc::clone(&held), Arc::clone(&places));
            Box::pin(async move {
                let $of = &*held;
                let mut at = from % places.len();
                for _ in 0..count {
                    let $place = &places[at];
                    black_box($look);
                    at = if at + 1 == places.len() { 0 } else { at + 1 };
                }
            })
        };
        Reader { name: $name, run: Arc::new(run) }
    }};
}

pub const LIMIT: &str = "limit, Arc out";
pub const LIMIT_INSTANT: &str = "limit, Arc out, Instant::now()";
pub const LIMIT_BORROWED: &str = "limit, set known, key borrowed";
pub const RESOLVE: &str = "ours: Registry::resolve";
pub const WITH_KEY: &str = "ours: ProviderHandle::with_key";

/// What scales by as much as there are cores: a "lookup" is arithmetic that fills one.
pub fn arithmetic() -> Reader {
    let run = |_from: usize, count: usize| -> Lookups { Box::pin(async move { cores::fill(4 * count) }) };
    Reader { name: "control: arithmetic that fills a core", run: Arc::new(run) }
}

/// Everybody who can hold so many providers, with all keys fetched.
pub async fn readers(upstream: &Upstream, providers: usize) -> Vec<Reader> {
    let names = |n: usize| (tenant(n), PROVIDER.to_owned());
    // Everybody goes through the providers in the same random order.
    let mut order: Vec<usize> = (0..providers).collect();
    fastrand::Rng::with_seed(7).shuffle(&mut order);
    let place = |&n: &usize| {
        let (tenant, id) = names(n);
        Place { tenant, id, kid: kid(n, (n + 2) % KEYS) }
    };
    let places: Arc<Vec<Place>> = Arc::new(order.iter().map(place).collect());

    let kids = |n| (0..KEYS).map(|key| kid(n, key)).collect();
    let limit = Arc::new(Limit::new((0..providers).map(|n| (names(n).0, names(n).1, kids(n)))));
    let sets: Vec<_> =
        places.iter().filter_map(|of| Some((limit.provider(&of.tenant, &of.id)?, &of.kid))).collect();
    let sets: Arc<Vec<_>> = Arc::new(sets.into_iter().map(|(set, kid)| (set, kid.clone())).collect());

    let (ours, theirs) =
        (<ours::Registry as Registry>::start(), <predecessor::Registry as Registry>::start());
    // One after the other, so that nobody's providers lie between another's.
    add_all(&ours, upstream, providers).await;
    add_all(&theirs, upstream, providers).await;
    fetch_all(&ours, providers).await;
    fetch_all(&theirs, providers).await;
    let handle = |of: &Place| (ours.provider(&of.tenant, &of.id).expect("it is registered"), of.kid.clone());
    let handles: Arc<Vec<_>> = Arc::new(places.iter().map(handle).collect());

    let mut all = vec![
        reader!(LIMIT, limit.clone(), &places, |of, at| of.key(&at.tenant, &at.id, &at.kid, Clock::Coarse)),
        reader!(LIMIT_INSTANT, limit.clone(), &places, |of, at| of.key(
            &at.tenant,
            &at.id,
            &at.kid,
            Clock::Instant
        )),
        reader!(LIMIT_BORROWED, (), &sets, |_of, at| at.0.with(&at.1, Clock::Coarse, |key| key.first())),
        reader!(RESOLVE, ours.clone(), &places, |of, at| of
            .resolve(&at.tenant, &at.id, Some(&at.kid))
            .await
            .is_ok()),
        reader!("ours: Registry::key", ours.clone(), &places, |of, at| {
            of.key(&at.tenant, &at.id, Some(&at.kid), Algorithm::RS256).await.is_ok()
        }),
        reader!("ours: ProviderHandle::resolve", (), &handles, |_of, at| at
            .0
            .resolve(Some(&at.1))
            .await
            .is_ok()),
        reader!("ours: ProviderHandle::key", (), &handles, |_of, at| {
            at.0.key(Some(&at.1), Algorithm::RS256).await.is_ok()
        }),
        reader!(WITH_KEY, (), &handles, |_of, at| {
            at.0.with_key(Some(&at.1), Algorithm::RS256, |key| black_box(key.key().bits())).is_ok()
        }),
        reader!("jwks-cache 0.2: resolve", theirs.clone(), &places, |of, at| {
            of.resolve(&at.tenant, &at.id, Some(&at.kid)).await.is_ok()
        }),
        reader!("jwks-cache 0.2: and a DecodingKey", theirs.clone(), &places, |of, at| {
            let set = of.resolve(&at.tenant, &at.id, Some(&at.kid)).await.ok();
            set.and_then(|set| jsonwebtoken_10::DecodingKey::from_jwk(set.find(&at.kid)?).ok())
        }),
    ];
    if providers == 1 {
        all.extend(of_one_provider(upstream, &places).await);
    }
    for reader in &all {
        reader.lookups(0, places.len()).await;
    }
    all
}

/// Those that know one provider each.
async fn of_one_provider(upstream: &Upstream, places: &Arc<Vec<Place>>) -> Vec<Reader> {
    let hour = Duration::from_secs(3_600);
    let url: url::Url = upstream.url(0).parse().expect("the URL parses");

    let by_hand = Arc::new(by_hand::Cache::new(url.to_string(), hour));
    by_hand.key(None).await.expect("upstream is up");

    let source =
        jwks_client_rs::source::WebSource::builder().build(url.clone()).expect("a client can be built");
    let jwks_client = jwks_client_rs::JwksClient::builder().build(source);

    let cached = jsonwebtoken_jwks_cache::CachedJWKS::new(url.clone(), hour / 60, Default::default());
    let cached = cached.expect("a client can be built");

    let held = Arc::new(dashmap::DashMap::new());
    let built = axum_jwt_auth::RemoteJwksDecoder::builder()
        .jwks_url(url.to_string())
        .validation(jsonwebtoken_10::Validation::new(jsonwebtoken_10::Algorithm::RS256))
        .keys_cache(Arc::clone(&held))
        .build();
    built.expect("a client can be built").initialize().await.map(drop).expect("upstream is up");

    let built =
        jwt_authorizer::AuthorizerBuilder::<jwt_authorizer::RegisteredClaims>::from_jwks_url(url.as_str());
    let authorizer = built.build().await.expect("it can be built");
    let mut header = jsonwebtoken_9::Header::new(jsonwebtoken_9::Algorithm::RS256);
    header.kid = Some(places[0].kid.clone());
    authorizer.key_source.get_key(header).await.map(drop).expect("upstream is up");

    vec![
        reader!("limit, whole set out", Whole::<1>::new(), places, |of, _at| of.set()),
        reader!("limit, whole set out, in 8 stripes", Whole::<8>::new(), places, |of, _at| of.set()),
        reader!("by hand: key cloned", by_hand.clone(), places, |of, at| of.key(Some(&at.kid)).await.is_ok()),
        reader!("by hand: key under guard", by_hand.clone(), places, |of, at| of.has(&at.kid).await),
        reader!("axum-jwt-auth: its map, key cloned", held.clone(), places, |of, at| of
            .get(&at.kid)
            .map(|key| key.clone())),
        reader!("axum-jwt-auth: its map, key under guard", held, places, |of, at| {
            of.get(&at.kid).is_some()
        }),
        reader!("jwks_client_rs: and a DecodingKey", jwks_client, places, |of, at| {
            let key = of.get(&at.kid).await.expect("the key is held");
            let rsa = key.as_rsa_public_key().expect("it is an RSA key");
            DecodingKey::from_rsa_components(rsa.modulus(), rsa.exponent()).is_ok()
        }),
        reader!("jsonwebtoken-jwks-cache: and a DecodingKey", cached, places, |of, at| {
            let set = of.get().await.expect("the set is held");
            set.find(&at.kid).and_then(|jwk| DecodingKey::from_jwk(jwk).ok())
        }),
        reader!("jwt-authorizer: KeySource::get_key", authorizer, places, |of, at| {
            let mut header = jsonwebtoken_9::Header::new(jsonwebtoken_9::Algorithm::RS256);
            header.kid = Some(at.kid.clone());
            of.key_source.get_key(header).await.is_ok()
        }),
    ]
}
