//! What lookups read of a provider, and indexes lead to.
//!
//! Plain data: what an index replaced is freed some time later, and no store, connection or subscriber may wait for that.
//! So it does not hold its provider.

use std::fmt;
use std::sync::{Arc, Weak};

use crate::name::{Name, NameRef};
use crate::refresh::Provider;
use crate::slot::Slot;
use crate::telemetry::Hits;

/// A provider as readers see it. What a lookup reads stands in the first line, with as much of the name as fits: of many
/// providers, each line comes from far away.
#[repr(C, align(64))]
pub(crate) struct Front {
    pub(crate) slot: Slot,
    pub(crate) hits: Hits,
    name: Name,
    pub(crate) serial: u64,
    provider: Weak<Provider>,
}

impl Front {
    pub(crate) fn new(slot: Slot, hits: Hits, name: NameRef<'_>, serial: u64, of: &Weak<Provider>) -> Self {
        Self { slot, hits, name: Name::new(name), serial, provider: of.clone() }
    }

    /// For whoever finds keys due or missing; none once the registry has let it go.
    pub(crate) fn provider(&self) -> Option<Arc<Provider>> {
        self.provider.upgrade()
    }

    pub(crate) fn name(&self) -> &Name {
        &self.name
    }

    pub(crate) fn tenant(&self) -> &str {
        self.name.parts().0
    }

    pub(crate) fn id(&self) -> &str {
        self.name.parts().1
    }
}

impl fmt::Debug for Front {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let NameRef(tenant, id) = self.name.parts();
        f.debug_struct("Front").field("tenant", &tenant).field("id", &id).finish_non_exhaustive()
    }
}
