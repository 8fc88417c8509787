//! Which provider is registered under an issuer. This room knows neither tokens nor keys.

use std::collections::BTreeMap;
use std::sync::Arc;

use papaya::{Equivalent, HashMap};

use crate::refresh::Provider;
use crate::sync::{Mutex, MutexGuard, lock};

/// An index that readers look into without a lock, however many tenants there are.
#[derive(Debug, Default)]
pub(crate) struct Issuers {
    sole: HashMap<Issued, Arc<Provider>, foldhash::fast::RandomState>,
    all: Mutex<All>,
}

/// Providers by issuer, then tenant, then serial.
type All = BTreeMap<String, BTreeMap<Arc<str>, BTreeMap<u64, Arc<Provider>>>>;

/// An issuer, of one tenant or of all. Two texts, never joined: nothing written in one can pass for the other.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Issued(Option<Arc<str>>, Box<str>);

#[derive(Hash)]
struct IssuedRef<'a>(Option<&'a str>, &'a str);

impl Equivalent<Issued> for IssuedRef<'_> {
    fn equivalent(&self, issued: &Issued) -> bool {
        self.0 == issued.0.as_deref() && *self.1 == *issued.1
    }
}

impl Issuers {
    /// The only provider registered under `issuer` byte for byte: in `tenant`, or in all. Of several, none: which
    /// was meant cannot be told.
    pub(crate) fn find(&self, tenant: Option<&str>, issuer: &str) -> Option<Arc<Provider>> {
        self.sole.pin().get(&IssuedRef(tenant, issuer)).cloned()
    }

    /// For a change; other changes wait for its end, readers do not.
    pub(crate) fn open(&self) -> Change<'_> {
        Change { sole: &self.sole, all: lock(&self.all) }
    }
}

/// A change of the index.
pub(crate) struct Change<'i> {
    sole: &'i HashMap<Issued, Arc<Provider>, foldhash::fast::RandomState>,
    all: MutexGuard<'i, All>,
}

impl Change<'_> {
    /// Enters a provider that is not in the index.
    pub(crate) fn enter(&mut self, issuer: Option<String>, provider: &Arc<Provider>) {
        let Some(issuer) = issuer else { return };
        let tenants = self.all.entry(issuer.clone()).or_default();
        tenants.entry(provider.tenant.clone()).or_default().insert(provider.serial, provider.clone());
        self.publish(&issuer, &provider.tenant);
    }

    /// Takes a provider out, by the issuer it is registered under.
    pub(crate) fn forget(&mut self, provider: &Arc<Provider>) {
        let registration = provider.registration();
        let Some(issuer) = &registration.issuer else { return };
        let Some(tenants) = self.all.get_mut(issuer) else { return };
        if let Some(providers) = tenants.get_mut(&provider.tenant) {
            providers.remove(&provider.serial);
            if providers.is_empty() {
                tenants.remove(&provider.tenant);
            }
        }
        if tenants.is_empty() {
            self.all.remove(issuer);
        }
        self.publish(issuer, &provider.tenant);
    }

    /// Tells readers what holds now, of the issuer in a tenant and in all.
    fn publish(&self, issuer: &str, tenant: &Arc<str>) {
        let tenants = self.all.get(issuer);
        let in_tenant = tenants.and_then(|tenants| sole(tenants.get(tenant)?));
        let in_all =
            tenants.filter(|tenants| tenants.len() == 1).and_then(|tenants| sole(tenants.values().next()?));
        for (tenant, found) in [(Some(tenant), in_tenant), (None, in_all)] {
            match found {
                Some(provider) => {
                    self.sole.pin().insert(Issued(tenant.cloned(), issuer.into()), provider.clone());
                }
                None => {
                    self.sole.pin().remove(&IssuedRef(tenant.map(|tenant| &**tenant), issuer));
                }
            }
        }
    }
}

fn sole(providers: &BTreeMap<u64, Arc<Provider>>) -> Option<&Arc<Provider>> {
    providers.values().next().filter(|_| providers.len() == 1)
}
