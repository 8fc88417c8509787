//! How many connections wait for a next request: however many providers there are, few. This room does not know
//! connections, only how the clients keep them.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;
use url::Origin;

use crate::sync::{Mutex, lock};

/// Idle connections to one origin: as many as may fetch from it at once ([`Limits::per_origin`]), so that the many
/// providers of one origin fetch one after the other without connecting anew.
///
/// [`Limits::per_origin`]: jwks_cache_core::admission::Limits::per_origin
pub(super) const PER_ORIGIN: usize = 8;
/// How long one is kept.
pub(super) const FOR: Duration = Duration::from_secs(30);
/// Origins with idle connections at once, of all identities together.
const ORIGINS: usize = 16;
/// When an origin's connections are gone for certain: [`FOR`] after the end of the longest usual exchange.
const GONE_AFTER: Duration = Duration::from_secs(60);

/// The origins that may have idle connections, by identity, and when each was last asked.
#[derive(Default)]
pub(super) struct Idle(Mutex<HashMap<(usize, Origin), Instant>>);

impl Idle {
    /// Whether the connection of a request to `origin` is kept after it, by the client of `whose` identity.
    pub(super) fn keeps(&self, whose: usize, origin: Origin, now: Instant) -> bool {
        let mut asked = lock(&self.0);
        let place = (whose, origin);
        if asked.len() >= ORIGINS && !asked.contains_key(&place) {
            asked.retain(|_, at| now.duration_since(*at) < GONE_AFTER);
            if asked.len() >= ORIGINS {
                return false;
            }
        }
        asked.insert(place, now);
        true
    }
}

#[cfg(test)]
mod tests {
    use jwks_cache_core::admission::Limits;
    use url::Url;

    use super::*;
    use crate::clock::socket_now;

    #[test]
    fn every_connection_of_a_burst_at_one_origin_may_be_kept() {
        assert_eq!(PER_ORIGIN, Limits::default().per_origin);
    }

    #[test]
    fn so_many_origins_keep_connections_and_the_next_ones_when_theirs_are_gone() {
        let (idle, start) = (Idle::default(), socket_now());
        let origin = |n: usize| Url::parse(&format!("https://id-{n}.example.com")).unwrap().origin();
        assert!((0..ORIGINS).all(|n| idle.keeps(n % 2, origin(n), start)));
        assert!(!idle.keeps(0, origin(ORIGINS), start));
        assert!(!idle.keeps(1, origin(0), start), "another identity has connections of its own");
        let later = start + GONE_AFTER;
        assert!(idle.keeps(0, origin(0), later), "who is asked again stays");
        assert!((0..ORIGINS - 1).all(|n| idle.keeps(0, origin(ORIGINS + n), later)));
        assert!(!idle.keeps(1, origin(1), later));
        assert!(idle.keeps(0, origin(0), later));
    }
}
