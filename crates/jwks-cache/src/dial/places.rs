//! Where providers may be when several have a say: what every one of them allows.

use std::net::IpAddr;
use std::sync::Arc;

use jwks_cache_core::address::{AddressClass, PrivateNetworks};
use jwks_cache_core::policy::Broken;

/// The policies that say something, all of which have to pass. `Allow` says nothing: where nobody says more, it
/// counts by itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Places(Arc<[PrivateNetworks]>);

impl From<PrivateNetworks> for Places {
    fn from(policy: PrivateNetworks) -> Self {
        Self(Some(policy).into_iter().filter(|policy| *policy != PrivateNetworks::Allow).collect())
    }
}

impl Places {
    /// What both allow.
    pub(super) fn and(&self, other: &Self) -> Self {
        let more = other.0.iter().filter(|policy| !self.0.contains(policy));
        Self(self.0.iter().chain(more).cloned().collect())
    }

    /// Whether nobody says more than `Allow`.
    pub(super) fn is_open(&self) -> bool {
        self.0.is_empty()
    }

    /// As [`PrivateNetworks::check`].
    pub(super) fn check(&self) -> Result<(), Broken> {
        self.0.iter().try_for_each(PrivateNetworks::check)
    }

    /// As [`PrivateNetworks::verdict`].
    pub(super) fn verdict(&self, host: &str, ip: IpAddr) -> Result<(), AddressClass> {
        self.policies().iter().try_for_each(|policy| policy.verdict(host, ip))
    }

    /// Whether every address allowed by `self` is allowed by `next` too. `false` where that cannot be told.
    pub(super) fn is_loosened_by(&self, next: &Self) -> bool {
        let allows_ours = |new: &PrivateNetworks| self.policies().iter().any(|old| old.is_loosened_by(new));
        next.policies().iter().all(allows_ours)
    }

    /// All that have a say.
    pub(super) fn all(&self) -> &[PrivateNetworks] {
        &self.0
    }

    fn policies(&self) -> &[PrivateNetworks] {
        if self.is_open() { &[PrivateNetworks::Allow] } else { &self.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn except(entries: &[&str]) -> Places {
        PrivateNetworks::DenyExcept(entries.iter().map(ToString::to_string).collect()).into()
    }

    #[test]
    fn what_one_of_two_refuses_is_refused() {
        let (open, deny) = (Places::default(), Places::from(PrivateNetworks::Deny));
        let everything = except(&["0.0.0.0/0", "::/0", "169.254.169.254"]);
        let site = except(&["10.0.0.0/8"]);
        let host = except(&["keys.internal"]);
        for (registry, own, ip, allowed) in [
            (&open, &open, "10.0.0.1", true),
            (&open, &open, "169.254.169.254", false),
            (&deny, &open, "10.0.0.1", false),
            (&deny, &everything, "10.0.0.1", false),
            (&deny, &everything, "169.254.169.254", false),
            (&deny, &everything, "8.8.8.8", true),
            (&site, &everything, "10.0.0.1", true),
            (&site, &everything, "169.254.169.254", false),
            (&site, &host, "10.0.0.1", true),
            (&site, &host, "127.0.0.1", false),
            (&open, &site, "127.0.0.1", false),
            (&site, &deny, "10.0.0.1", false),
        ] {
            for both in [registry.and(own), own.and(registry)] {
                let verdict = both.verdict("keys.internal", ip.parse().unwrap());
                assert_eq!(verdict.is_ok(), allowed, "{both:?} to {ip}");
            }
        }
    }

    #[test]
    fn another_who_has_a_say_tightens() {
        let (open, site, host) = (Places::default(), except(&["10.0.0.0/8"]), except(&["keys.internal"]));
        for (old, new, loosened) in [
            (&open, &open, true),
            (&open, &site, false),
            (&site, &open, true),
            (&site, &site.and(&host), false),
            (&site.and(&host), &site, true),
            (&site.and(&host), &host.and(&site), true),
            (&site.and(&host), &open, true),
        ] {
            assert_eq!(old.is_loosened_by(new), loosened, "{old:?} to {new:?}");
        }
    }
}
