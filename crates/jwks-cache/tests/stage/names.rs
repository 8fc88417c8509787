//! Host names that lead where a test says.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::Mutex;

use jwks_cache::{Resolver, Resolving};

/// What one lookup brings.
#[derive(Clone, Debug)]
pub(crate) enum Lookup {
    Found(Vec<IpAddr>),
    NoSuchName,
    /// Nothing, ever.
    Silence,
}

/// Addresses as a test writes them.
pub(crate) fn found(addresses: &[&str]) -> Lookup {
    Lookup::Found(addresses.iter().map(|address| address.parse().unwrap()).collect())
}

/// Answers each lookup of a name with the next one, the last one for ever.
#[derive(Debug, Default)]
pub(crate) struct Names(Mutex<HashMap<String, Vec<Lookup>>>);

impl Names {
    /// How many answers there are still to come.
    #[allow(dead_code, reason = "each test file uses a part of this")]
    pub(crate) fn left(&self, name: &str) -> usize {
        self.0.lock().unwrap().get(name).map_or(0, Vec::len)
    }

    pub(crate) fn set(&self, name: &str, lookups: impl Into<Vec<Lookup>>) {
        self.0.lock().unwrap().insert(name.to_owned(), lookups.into());
    }
}

impl Resolver for Names {
    fn resolve<'a>(&'a self, host: &'a str) -> Resolving<'a> {
        let lookup = match self.0.lock().unwrap().get_mut(host) {
            Some(lookups) if lookups.len() > 1 => lookups.remove(0),
            Some(lookups) => lookups[0].clone(),
            None => Lookup::NoSuchName,
        };
        Box::pin(async move {
            match lookup {
                Lookup::Found(addresses) => Ok(addresses),
                Lookup::NoSuchName => Err(io::Error::other("no such name")),
                Lookup::Silence => std::future::pending().await,
            }
        })
    }
}
