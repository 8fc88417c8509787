//! Which provider is registered under an issuer. This room knows neither tokens nor keys.

use std::collections::BTreeMap;
use std::sync::Arc;

use papaya::{Equivalent, HashMap};

use crate::epoch::Shared;
use crate::front::Front;
use crate::sync::{Mutex, MutexGuard, lock, seen_by_others};

/// An index that readers look into without a lock, however many tenants there are.
#[derive(Debug, Default)]
pub(crate) struct Issuers {
    sole: Sole,
    all: Mutex<All>,
}

/// The only provider of an issuer; none of an issuer that several have.
type Sole = HashMap<Issued, Option<Shared<Front>>, foldhash::fast::RandomState>;

/// Providers by issuer, then tenant, then serial.
type All = BTreeMap<Arc<str>, BTreeMap<Arc<str>, BTreeMap<u64, Shared<Front>>>>;

/// An issuer, of one tenant or of all. Two texts, never joined: nothing written in one can pass for the other.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Issued(Option<Arc<str>>, Arc<str>);

#[derive(Hash)]
struct IssuedRef<'a>(Option<&'a str>, &'a str);

impl Equivalent<Issued> for IssuedRef<'_> {
    fn equivalent(&self, issued: &Issued) -> bool {
        self.0 == issued.0.as_deref() && *self.1 == *issued.1
    }
}

impl Issuers {
    /// The only provider registered under `issuer` byte for byte: in `tenant`, or in all. `Some(None)` where several
    /// are: which was meant cannot be told. It is borrowed for as long as `then` runs.
    pub(crate) fn find<R>(
        &self,
        tenant: Option<&str>,
        issuer: &str,
        then: impl FnOnce(&Front) -> R,
    ) -> Option<Option<R>> {
        self.sole.pin().get(&IssuedRef(tenant, issuer)).map(|sole| sole.as_deref().map(then))
    }

    /// For a change; other changes wait for its end, readers do not.
    pub(crate) fn open(&self) -> Change<'_> {
        Change { sole: &self.sole, all: lock(&self.all) }
    }
}

/// A change of the index.
pub(crate) struct Change<'i> {
    sole: &'i Sole,
    all: MutexGuard<'i, All>,
}

impl Change<'_> {
    /// Takes a provider from one issuer to another; where they are the same, readers notice nothing. Both are changed
    /// before either is told, and each is told once: at no moment does an issuer of two lead to one of them.
    pub(crate) fn take(&mut self, provider: &Shared<Front>, from: Option<Arc<str>>, to: Option<Arc<str>>) {
        if from == to {
            return;
        }
        let tenant: Arc<str> = provider.tenant().into();
        if let Some(from) = &from {
            self.forget(from, &tenant, provider.serial);
        }
        if let Some(to) = &to {
            let tenants = self.all.entry(to.clone()).or_default();
            tenants.entry(tenant.clone()).or_default().insert(provider.serial, provider.clone());
        }
        for issuer in [from, to].into_iter().flatten() {
            self.publish(&issuer, &tenant);
        }
    }

    fn forget(&mut self, issuer: &str, tenant: &str, serial: u64) {
        let Some(tenants) = self.all.get_mut(issuer) else { return };
        if let Some(providers) = tenants.get_mut(tenant) {
            providers.remove(&serial);
            if providers.is_empty() {
                tenants.remove(tenant);
            }
        }
        if tenants.is_empty() {
            self.all.remove(issuer);
        }
    }

    /// Tells readers what holds now, of the issuer in a tenant and in all.
    fn publish(&self, issuer: &Arc<str>, tenant: &Arc<str>) {
        let tenants = self.all.get(issuer);
        let in_tenant = tenants.and_then(|tenants| sole([tenants.get(tenant)?]));
        let in_all = tenants.and_then(|tenants| sole(tenants.values()));
        for (tenant, found) in [(Some(tenant), in_tenant), (None, in_all)] {
            match found {
                Some(sole) => {
                    self.sole.pin().insert(Issued(tenant.cloned(), issuer.clone()), sole.cloned());
                }
                None => {
                    self.sole.pin().remove(&IssuedRef(tenant.map(|tenant| &**tenant), issuer));
                }
            }
            seen_by_others();
        }
    }
}

/// The only one of these; `Some(None)` of several.
fn sole<'p>(
    of_tenants: impl IntoIterator<Item = &'p BTreeMap<u64, Shared<Front>>>,
) -> Option<Option<&'p Shared<Front>>> {
    let mut all = of_tenants.into_iter().flat_map(BTreeMap::values);
    let first = all.next()?;
    Some(Some(first).filter(|_| all.next().is_none()))
}
