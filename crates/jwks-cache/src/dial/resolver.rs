//! How host names become addresses, and that none but allowed ones are dialled. It does not know what is
//! asked there, and holds no connection.

use std::collections::HashMap;
use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::pin::Pin;
use std::sync::{Arc, LazyLock};

use jwks_cache_core::address::AddressClass;
use reqwest::dns::{Addrs, Name, Resolve};
use tokio::sync::{Semaphore, watch};
use url::{Host, Url};

use super::places::Places;
use crate::sync::{Mutex, lock};

/// A boxed future, as [`Resolver::resolve`] returns it.
pub type Resolving<'a> = Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send + 'a>>;

/// Turns host names into addresses. The default asks the system; a service with a resolver of its own, or
/// a test, hands one in by [`RegistryBuilder::with_resolver`](crate::RegistryBuilder::with_resolver).
///
/// It needs not judge: what it returns is checked by `private_networks`, and only what passed is dialled, in
/// the order given. It is not asked for addresses in URLs; they are checked all the same.
///
/// # Cancel safety
/// The future is dropped at the connect timeout; nothing may be left behind.
pub trait Resolver: fmt::Debug + Send + Sync + 'static {
    /// The addresses of `host`, best first. None is as good as an error.
    fn resolve<'a>(&'a self, host: &'a str) -> Resolving<'a>;
}

/// The system's resolver, as `getaddrinfo` asks it: its cache, hosts file and search list count.
///
/// Nothing ends `getaddrinfo` early: with a nameserver that is silent it keeps a thread for as long as the system tries,
/// even when nobody waits any more. So a host is looked up once at a time for whoever asks, and at most 64 hosts are at
/// once in the whole process; the next ones wait, for as long as the connect timeout lets them.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemResolver;

impl Resolver for SystemResolver {
    fn resolve<'a>(&'a self, host: &'a str) -> Resolving<'a> {
        static LOOKUPS: LazyLock<Arc<Lookups>> = LazyLock::new(|| Arc::new(Lookups::new(64)));
        Box::pin(
            LOOKUPS.find(host, |host| Ok((host, 0).to_socket_addrs()?.map(|found| found.ip()).collect())),
        )
    }
}

/// What a lookup brought, for all who wait for it.
type Brought = Option<Result<Vec<IpAddr>, (io::ErrorKind, String)>>;

/// Lookups that block: one for each host, and so many at once.
struct Lookups {
    under_way: Mutex<HashMap<String, watch::Receiver<Brought>>>,
    threads: Arc<Semaphore>,
}

/// A lookup that others can join until it is dropped.
struct Lookup {
    of: Arc<Lookups>,
    host: String,
    tell: watch::Sender<Brought>,
}

impl Drop for Lookup {
    fn drop(&mut self) {
        lock(&self.of.under_way).remove(&self.host);
    }
}

impl Lookups {
    fn new(threads: usize) -> Self {
        Self { under_way: Mutex::default(), threads: Arc::new(Semaphore::new(threads)) }
    }

    async fn find(
        self: &Arc<Self>,
        host: &str,
        ask: fn(&str) -> io::Result<Vec<IpAddr>>,
    ) -> io::Result<Vec<IpAddr>> {
        loop {
            let (mut told, own) = self.join_or_begin(host);
            if let Some(lookup) = own {
                let thread = self.threads.clone().acquire_owned().await.map_err(io::Error::other)?;
                let asking = tokio::task::spawn_blocking(move || {
                    // Both are free when the thread is, not when nobody waits any more.
                    let (_thread, lookup) = (thread, lookup);
                    let found = ask(&lookup.host).map_err(|error| (error.kind(), error.to_string()));
                    lookup.tell.send_replace(Some(found));
                });
                asking.await.map_err(io::Error::other)?;
            }
            if let Ok(brought) = told.wait_for(Option::is_some).await
                && let Some(found) = brought.clone()
            {
                return found.map_err(|(kind, why)| io::Error::new(kind, why));
            }
            // Whoever began it went away before it had a thread.
        }
    }

    /// What is under way for `host`; or a lookup of one's own.
    fn join_or_begin(self: &Arc<Self>, host: &str) -> (watch::Receiver<Brought>, Option<Lookup>) {
        let mut under_way = lock(&self.under_way);
        if let Some(told) = under_way.get(host) {
            return (told.clone(), None);
        }
        let (tell, told) = watch::channel(None);
        under_way.insert(host.to_owned(), told.clone());
        (told, Some(Lookup { of: self.clone(), host: host.to_owned(), tell }))
    }
}

/// What a client may dial: asked by it for every name, so that the address checked is the address dialled.
#[derive(Clone, Debug)]
pub(crate) struct Reach {
    pub(crate) policy: Places,
    pub(crate) resolver: Arc<dyn Resolver>,
}

impl Reach {
    /// Judges a URL that holds an address, in whatever notation: for such, no resolver is asked.
    pub(crate) fn check_literal(&self, url: &Url) -> Result<(), RefusedAddress> {
        let ip = match url.host() {
            Some(Host::Ipv4(ip)) => IpAddr::V4(ip),
            Some(Host::Ipv6(ip)) => IpAddr::V6(ip),
            Some(Host::Domain(_)) | None => return Ok(()),
        };
        self.check(url.host_str().unwrap_or_default(), ip)
    }

    fn check(&self, host: &str, ip: IpAddr) -> Result<(), RefusedAddress> {
        self.policy.verdict(host, ip).map_err(|class| RefusedAddress { host: host.to_owned(), class })
    }

    /// Those addresses of `host` that may be dialled.
    async fn allowed(&self, host: &str) -> Result<Vec<IpAddr>, Box<dyn StdError + Send + Sync>> {
        let mut refused = None;
        let mut found = self.resolver.resolve(host).await?;
        found.retain(|ip| match self.check(host, *ip) {
            Ok(()) => true,
            Err(why) => {
                tracing::debug!(host, %ip, class = why.class.as_str(), "an address is not dialled");
                refused.get_or_insert(why);
                false
            }
        });
        match refused {
            _ if !found.is_empty() => Ok(found),
            Some(refused) => Err(refused.into()),
            None => Err("the name has no address".into()),
        }
    }
}

impl Resolve for Reach {
    fn resolve(&self, name: Name) -> reqwest::dns::Resolving {
        let reach = self.clone();
        Box::pin(async move {
            let allowed = reach.allowed(name.as_str()).await?;
            // Port 0 stands for the URL's.
            Ok(Box::new(allowed.into_iter().map(|ip| SocketAddr::new(ip, 0))) as Addrs)
        })
    }
}

/// All addresses of a host are refused. Does not name them: whoever chose the host may not know them.
#[derive(Clone, Debug)]
pub(crate) struct RefusedAddress {
    host: String,
    class: AddressClass,
}

impl fmt::Display for RefusedAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, class } = self;
        write!(f, "{host} is at a {class} address, which private_networks refuses")
    }
}

impl StdError for RefusedAddress {}

#[cfg(test)]
mod tests {
    use jwks_cache_core::address::PrivateNetworks;

    use super::*;

    /// Answers each lookup with the next list, the last one for ever.
    #[derive(Debug)]
    struct Flipping(std::sync::Mutex<Vec<Vec<IpAddr>>>);

    impl Resolver for Flipping {
        fn resolve<'a>(&'a self, _: &'a str) -> Resolving<'a> {
            let mut lists = self.0.lock().unwrap();
            let list = if lists.len() > 1 { lists.remove(0) } else { lists[0].clone() };
            Box::pin(async { Ok(list) })
        }
    }

    fn reach(policy: PrivateNetworks, lookups: &[&[&str]]) -> Reach {
        let lists = lookups.iter().map(|list| list.iter().map(|ip| ip.parse().unwrap()).collect());
        Reach { policy: policy.into(), resolver: Arc::new(Flipping(lists.collect::<Vec<_>>().into())) }
    }

    async fn dialled(reach: &Reach, host: &str) -> Result<Vec<String>, String> {
        match Resolve::resolve(reach, host.parse().unwrap()).await {
            Ok(addresses) => Ok(addresses.map(|address| address.ip().to_string()).collect()),
            Err(error) => Err(error.to_string()),
        }
    }

    #[tokio::test]
    async fn only_allowed_addresses_of_each_lookup_are_dialled() {
        let names = reach(PrivateNetworks::Deny, &[&["8.8.8.8", "10.0.0.1", "1.1.1.1"], &["127.0.0.1"], &[]]);
        assert_eq!(dialled(&names, "keys.example").await.unwrap(), ["8.8.8.8", "1.1.1.1"]);
        let refused = dialled(&names, "keys.example").await.unwrap_err();
        assert!(refused.contains("keys.example is at a loopback address"), "{refused}");
        assert!(!refused.contains("127.0.0.1"), "{refused}");
        assert!(dialled(&names, "keys.example").await.unwrap_err().contains("no address"));
    }

    #[tokio::test]
    async fn a_host_that_is_excepted_may_be_anywhere_but_at_metadata() {
        let policy = PrivateNetworks::DenyExcept(vec!["keys.internal".into()]);
        let names = reach(policy, &[&["10.0.0.1", "169.254.169.254"]]);
        assert_eq!(dialled(&names, "keys.internal").await.unwrap(), ["10.0.0.1"]);
        assert!(dialled(&names, "other.internal").await.is_err());
    }

    #[tokio::test]
    #[expect(clippy::await_holding_lock, reason = "other threads alone wait for it")]
    async fn lookups_of_a_host_share_one_thread_and_all_together_have_few() {
        use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
        use std::sync::{Mutex, MutexGuard};
        // A nameserver that is silent while this is locked.
        static SILENT: Mutex<()> = Mutex::new(());
        static ASKED: AtomicUsize = AtomicUsize::new(0);
        fn ask(_: &str) -> io::Result<Vec<IpAddr>> {
            ASKED.fetch_add(1, SeqCst);
            let _answer: MutexGuard<'_, ()> = SILENT.lock().unwrap();
            Ok(vec![IpAddr::from([192, 0, 2, 1])])
        }
        let lookups = Arc::new(Lookups::new(2));
        let begin = |host: &'static str| {
            let lookups = lookups.clone();
            tokio::spawn(async move { lookups.find(host, ask).await })
        };
        let silent = SILENT.lock().unwrap();
        let given_up: Vec<_> = ["a", "a", "a", "b", "b", "c"].map(begin).into();
        while ASKED.load(SeqCst) < 2 {
            tokio::task::yield_now().await;
        }
        // Who gives up frees no thread: it runs on.
        for one in given_up {
            one.abort();
            assert!(one.await.unwrap_err().is_cancelled());
        }
        let waiting: Vec<_> = ["a", "b", "c", "c", "d"].map(begin).into();
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert_eq!((ASKED.load(SeqCst), lookups.threads.available_permits()), (2, 0));
        drop(silent);
        for one in waiting {
            assert_eq!(one.await.unwrap().unwrap().len(), 1);
        }
        assert_eq!(ASKED.load(SeqCst), 4);
        // A thread tells before it ends.
        while !lookups.under_way.lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn the_system_knows_localhost() {
        let found = SystemResolver.resolve("localhost").await.unwrap();
        assert!(found.iter().all(IpAddr::is_loopback) && !found.is_empty(), "{found:?}");
        assert!(SystemResolver.resolve("no such name.invalid").await.is_err());
    }
}
