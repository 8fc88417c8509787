//! Private addresses, in every notation and by every way that leads to one: dialled where the policy allows it,
//! which is the positive control, and never where it does not.
//!
//! Where the system lets a test have a network of its own (`unshare`, `ip`: Linux), every address there is this
//! machine, and a listener hears who is dialled. Elsewhere only loopback has a control; refusals are tested all
//! the same, because nothing may leave. With `CI=true` on Linux, no network of its own is a failure.
#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

mod stage;

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex};

use jwks_cache::{
    Error, IdentityProviderRegistration, PrivateNetworks, RefreshMode, Registry, Result, reqwest::Url,
};
use jwks_cache_testkit::ManualClock;
use stage::names::{Lookup, Names, found};
use stage::served::set;
use stage::{PROVIDER, kids, millis, secs, soon};

/// Notations of one address, as a URL may have them, and what people call its class.
struct Place {
    address: &'static str,
    class: &'static str,
    notations: &'static [&'static str],
}

const fn place(address: &'static str, class: &'static str, notations: &'static [&'static str]) -> Place {
    Place { address, class, notations }
}

const PLACES: &[Place] = &[
    place(
        "127.0.0.1",
        "loopback",
        &[
            "127.0.0.1",
            "127.0.0.1.",
            "127.1",
            "127.0.1",
            "2130706433",
            "0x7f000001",
            "0x7F.1",
            "0x7f.0x0.0x0.0x1",
            "017700000001",
            "0177.0.0.01",
            "%31%32%37.0.0.1",
            "\u{ff11}\u{ff12}\u{ff17}.0.0.1",
            "127\u{3002}0\u{3002}0\u{3002}1",
            "\u{2460}\u{2461}\u{2466}.0.0.1",
            "[::ffff:127.0.0.1]",
            "[::ffff:7f00:1]",
            "[0:0:0:0:0:FFFF:7F00:0001]",
        ],
    ),
    place("127.255.0.9", "loopback", &["127.255.0.9"]),
    place("::1", "loopback", &["[::1]", "[0:0:0:0:0:0:0:1]", "[0000::0001]"]),
    place("::7f00:1", "loopback", &["[::127.0.0.1]"]),
    place("64:ff9b::7f00:1", "loopback", &["[64:ff9b::127.0.0.1]"]),
    place("2002:7f00:1::", "loopback", &["[2002:7f00:1::]"]),
    place("0.0.0.0", "unspecified", &["0.0.0.0", "0", "0x0", "[::ffff:0.0.0.0]"]),
    place("::", "unspecified", &["[::]"]),
    place("10.0.0.1", "private", &["10.0.0.1", "10.1", "167772161", "0xa.1", "[::ffff:10.0.0.1]"]),
    place("172.16.0.1", "private", &["172.16.0.1", "0254.020.0.1"]),
    place("192.168.1.1", "private", &["192.168.1.1", "192.168.257", "0xc0a80101"]),
    place("64:ff9b::a00:1", "private", &["[64:ff9b::10.0.0.1]"]),
    place("64:ff9b:1::a00:1", "private", &["[64:ff9b:1::10.0.0.1]"]),
    place("2002:a00:1::", "private", &["[2002:a00:1::]"]),
    place("fec0::1", "private", &["[fec0::1]"]),
    place("100.64.0.1", "carrier-grade NAT", &["100.64.0.1", "1681915905", "[::ffff:100.64.0.1]"]),
    place("fd00::1", "unique local", &["[fd00::1]", "[FD00:0::1]"]),
    place("fc00::1", "unique local", &["[fc00::1]"]),
    place("169.254.0.7", "link-local", &["169.254.0.7", "0xa9fe0007", "[::ffff:169.254.0.7]"]),
    place("fe80::1", "link-local", &["[fe80::1]"]),
    place("64:ff9b::a9fe:7", "link-local", &["[64:ff9b::169.254.0.7]"]),
    place(
        "169.254.169.254",
        "cloud metadata",
        &[
            "169.254.169.254",
            "2852039166",
            "0xA9FEA9FE",
            "0251.0376.0251.0376",
            "169.254.43518",
            "169.254.169.254.",
            "[::ffff:169.254.169.254]",
            "[::ffff:a9fe:a9fe]",
        ],
    ),
    place("64:ff9b::a9fe:a9fe", "cloud metadata", &["[64:ff9b::a9fe:a9fe]"]),
    place("64:ff9b:1::a9fe:a9fe", "cloud metadata", &["[64:ff9b:1::a9fe:a9fe]"]),
    place("2002:a9fe:a9fe::", "cloud metadata", &["[2002:a9fe:a9fe::]"]),
    place("fd00:ec2::254", "cloud metadata", &["[fd00:ec2::254]"]),
    place("168.63.129.16", "cloud metadata", &["168.63.129.16"]),
    place("100.100.100.200", "cloud metadata", &["100.100.100.200"]),
    place("224.0.0.1", "multicast", &["224.0.0.1"]),
    place("ff02::1", "multicast", &["[ff02::1]"]),
    place("255.255.255.255", "broadcast", &["255.255.255.255", "0xffffffff"]),
    place("240.0.0.1", "reserved", &["240.0.0.1"]),
    place("192.0.2.1", "reserved", &["192.0.2.1"]),
    place("2001:db8::1", "reserved", &["[2001:db8::1]"]),
];

impl Place {
    fn ip(&self) -> IpAddr {
        self.address.parse().unwrap()
    }

    fn is_guarded(&self) -> bool {
        ["link-local", "cloud metadata"].contains(&self.class)
    }

    /// What lets it be dialled, and as little else as possible.
    fn allowing(&self) -> PrivateNetworks {
        if self.is_guarded() {
            PrivateNetworks::DenyExcept(vec![self.address.to_owned(), GATE.to_owned()])
        } else {
            PrivateNetworks::Allow
        }
    }

    /// Where its listener is heard; `None` where systems connect to nothing, whoever listens.
    fn heard_at(&self) -> Option<IpAddr> {
        match self.class {
            "multicast" | "broadcast" => None,
            // Without a zone it is no destination.
            "link-local" if self.address == "fe80::1" => None,
            "unspecified" if self.ip().is_ipv4() => Some(Ipv4Addr::LOCALHOST.into()),
            "unspecified" => Some(Ipv6Addr::LOCALHOST.into()),
            _ => Some(self.ip()),
        }
    }
}

/// The host that redirects.
const GATE: &str = "gate.example";
/// The host that moves.
const FLIPPING: &str = "flipping.example";
/// On the Internet, so allowed under any policy; in a network of our own it is this machine, too.
const PUBLIC: IpAddr = IpAddr::V4(Ipv4Addr::new(93, 184, 215, 14));

/// Serves a key set on every address of the machine, and keeps which were dialled.
struct Listener {
    port: u16,
    dialled: Arc<Mutex<Vec<IpAddr>>>,
}

impl Listener {
    fn start() -> Self {
        let any: [SocketAddr; 2] = [(Ipv6Addr::UNSPECIFIED, 0).into(), (Ipv4Addr::UNSPECIFIED, 0).into()];
        let listener = TcpListener::bind(&any[..]).unwrap();
        let port = listener.local_addr().unwrap().port();
        let dialled = Arc::new(Mutex::new(Vec::new()));
        let heard = dialled.clone();
        let body = set(&["there"]);
        // It ends with the process.
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(std::result::Result::ok) {
                heard.lock().unwrap().push(stream.local_addr().unwrap().ip().to_canonical());
                answer(stream, &body);
            }
        });
        Self { port, dialled }
    }

    /// Which addresses were dialled since the last time.
    fn take(&self) -> Vec<IpAddr> {
        std::mem::take(&mut *self.dialled.lock().unwrap())
    }
}

/// A redirect to what the query says, or the key set.
fn answer(mut stream: TcpStream, body: &str) {
    let mut head = [0; 4096];
    let read = stream.read(&mut head).unwrap_or(0);
    let head = String::from_utf8_lossy(&head[..read]).into_owned();
    let to = head.split([' ', '?']).nth(2).filter(|_| head.contains('?'));
    let answer = match to {
        Some(to) => {
            format!("HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        }
        None => {
            format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
        }
    };
    let _ = stream.write_all(answer.as_bytes());
}

/// Policies that refuse what is not public.
fn denials() -> [PrivateNetworks; 2] {
    let except = [GATE, "10.99.0.0/16", "169.254.0.0/16", "fe80::/10", "fd00:ec2::/32", "100.100.100.0/24"];
    [PrivateNetworks::Deny, PrivateNetworks::DenyExcept(except.map(str::to_owned).to_vec())]
}

struct World {
    listener: Listener,
    names: Arc<Names>,
    clock: ManualClock,
    registry: Registry,
    providers: usize,
    /// Where `GATE` is.
    gate: IpAddr,
    /// Whether every address is this machine's.
    everything_is_local: bool,
}

impl World {
    fn new(everything_is_local: bool) -> Self {
        let (clock, names) = (ManualClock::new(), Arc::new(Names::default()));
        let builder = Registry::builder().require_https(false).clock(Arc::new(clock.clone()));
        let registry = builder.with_resolver(names.clone()).build();
        let gate = if everything_is_local { PUBLIC } else { Ipv4Addr::LOCALHOST.into() };
        names.set(GATE, [Lookup::Found(vec![gate])]);
        Self { listener: Listener::start(), names, clock, registry, providers: 0, gate, everything_is_local }
    }

    /// Registers `url` as a provider of its own under `policy`, and resolves it once.
    async fn ask(&mut self, url: &str, policy: PrivateNetworks) -> Asked {
        self.providers += 1;
        let tenant = format!("t{}", self.providers);
        let mut registration = IdentityProviderRegistration::new(&tenant, PROVIDER, url).unwrap();
        registration = registration.with_require_https(false);
        registration.retry_policy.max_retries = 0;
        registration.retry_policy.attempt_timeout = millis(1000);
        registration.private_networks = policy;
        // Nobody is served by what another asked: they do not ask quite the same.
        registration.max_response_bytes += self.providers as u64;
        // No timer dials in between.
        registration.refresh_mode = RefreshMode::OnDemand;
        if let Some((_, to)) = url.split_once('?') {
            let host = |url: &str| Url::parse(url).unwrap().host_str().unwrap().to_owned();
            registration.allowed_domains = vec![host(url), host(to)];
        }
        self.registry.register(registration).await.unwrap();
        let resolved = soon(self.registry.resolve(&tenant, PROVIDER, None)).await.map(|set| kids(&set));
        Asked { tenant, resolved, dialled: self.listener.take() }
    }

    async fn metric(&self, tenant: &str, name: &str) -> f64 {
        let status = self.registry.provider_status(tenant, PROVIDER).await.unwrap();
        let name = format!("jwks_cache_{name}");
        status.metrics.iter().find(|metric| metric.name == name).unwrap().value
    }

    /// `asked` was refused for its class after so many requests, and nothing but these was dialled.
    async fn was_refused(&self, case: &str, class: &str, asked: &Asked, dialled: &[IpAddr]) {
        let Err(Error::Security(why)) = &asked.resolved else { panic!("{case}: {:?}", asked.resolved) };
        assert!(why.contains(&format!("at a {class} address")), "{case}: {why}");
        assert!(why.contains(&format!("{}/{PROVIDER}", asked.tenant)), "{case}: {why}");
        assert_eq!(asked.dialled, dialled, "{case}");
        let requests = self.metric(&asked.tenant, "upstream_requests_total").await;
        assert_eq!(requests, dialled.len() as f64, "{case}");
        assert_eq!(self.metric(&asked.tenant, "refused_addresses_total").await, 1.0, "{case}");
    }

    /// `asked` dialled these, the last of which is `place`.
    fn was_dialled(&self, case: &str, place: &Place, asked: &Asked, before: &[IpAddr]) -> bool {
        match place.heard_at() {
            Some(heard) => {
                let last = asked.resolved.as_ref().map(|kids| kids.join(" "));
                assert_eq!(last.ok().as_deref(), Some("there"), "{case}: {:?}", asked.resolved);
                let dialled = [before, &[heard]].concat();
                assert_eq!(asked.dialled, dialled, "{case}");
                true
            }
            None => {
                // The system was asked to connect, and knew no way.
                let Err(Error::Fetch(error)) = &asked.resolved else {
                    panic!("{case}: {:?}", asked.resolved)
                };
                assert!(["connect", "timeout"].contains(&error.reason()), "{case}: {error}");
                assert_eq!(asked.dialled, before, "{case}");
                false
            }
        }
    }

    fn has_control(&self, place: &Place) -> bool {
        self.everything_is_local || place.address == "127.0.0.1"
    }
}

struct Asked {
    tenant: String,
    resolved: Result<Vec<String>>,
    dialled: Vec<IpAddr>,
}

/// Each notation by each way: dialled where allowed, and not where not.
async fn matrix(everything_is_local: bool) {
    let mut world = World::new(everything_is_local);
    let (port, gate) = (world.listener.port, world.gate);
    let (mut notations, mut heard, mut tried, mut refused) = (0, 0, 0, 0);
    let mut count = |reached: bool| if reached { heard += 1 } else { tried += 1 };
    for place in PLACES {
        for host in place.notations {
            notations += 1;
            let there = format!("http://{host}:{port}/jwks");
            let redirects = format!("http://{GATE}:{port}/?{there}");
            if world.has_control(place) {
                let case = format!("{host} as the URL");
                let asked = world.ask(&there, place.allowing()).await;
                count(world.was_dialled(&case, place, &asked, &[]));
                let case = format!("a redirect to {host}");
                let asked = world.ask(&redirects, place.allowing()).await;
                count(world.was_dialled(&case, place, &asked, &[gate]));
            }
            let never = if place.is_guarded() { vec![PrivateNetworks::Allow] } else { Vec::new() };
            for policy in denials().into_iter().chain(never) {
                let case = format!("{host} as the URL, {policy:?}");
                let asked = world.ask(&there, policy.clone()).await;
                world.was_refused(&case, place.class, &asked, &[]).await;
                refused += 1;
                // Only the Internet may redirect under `Deny`.
                if policy != PrivateNetworks::Deny || everything_is_local {
                    let case = format!("a redirect to {host}, {policy:?}");
                    let asked = world.ask(&redirects, policy).await;
                    world.was_refused(&case, place.class, &asked, &[gate]).await;
                    refused += 1;
                }
            }
        }
        let controls = if world.has_control(place) { vec![place.allowing()] } else { Vec::new() };
        for policy in controls {
            world.names.set(FLIPPING, [Lookup::Found(vec![gate]), found(&[place.address])]);
            count(world.flip(place, policy).await);
        }
        for policy in denials() {
            world.names.set(FLIPPING, [Lookup::Found(vec![gate]), found(&[place.address])]);
            assert!(!world.flip(place, policy).await);
            refused += 1;
        }
    }
    println!(
        "{notations} notations of {} addresses: {heard} times heard by the listener and {tried} times tried where \
         allowed; {refused} times refused, and never dialled, where not",
        PLACES.len()
    );
    assert!(notations >= 40);
}

impl World {
    /// A name is where `GATE` is at its first lookup, and `place` at its second. Whether that was dialled.
    async fn flip(&mut self, place: &Place, policy: PrivateNetworks) -> bool {
        let case = format!("a name that moves to {}, {policy:?}", place.address);
        let url = format!("http://{FLIPPING}:{}/jwks", self.listener.port);
        let allowed = policy == place.allowing();
        // There, the first lookup leads to loopback, which has to be excepted; unless the place is loopback, too.
        let mut policy = policy;
        if let (false, PrivateNetworks::DenyExcept(except)) = (self.everything_is_local, &mut policy)
            && place.class != "loopback"
        {
            except.push(self.gate.to_string());
        }
        if !self.everything_is_local
            && !allowed
            && (policy == PrivateNetworks::Deny || place.class == "loopback")
        {
            // What the first lookup brings is refused as well.
            self.names.set(FLIPPING, [found(&[place.address])]);
            let asked = self.ask(&url, policy).await;
            self.was_refused(&case, place.class, &asked, &[]).await;
            return false;
        }
        let Asked { tenant, resolved, dialled } = self.ask(&url, policy).await;
        assert_eq!(
            (resolved.unwrap().as_slice(), dialled),
            (&["there".to_owned()][..], vec![self.gate]),
            "{case}"
        );
        self.clock.advance(secs(1));
        let refreshed = soon(self.registry.refresh_and_wait(&tenant, PROVIDER)).await;
        let kept = soon(self.registry.resolve(&tenant, PROVIDER, None)).await.map(|set| kids(&set));
        let resolved = if refreshed.is_ok() {
            kept
        } else {
            assert_eq!(kept.unwrap(), ["there"], "{case}");
            refreshed.map(|()| Vec::new())
        };
        let asked = Asked { tenant, resolved, dialled: self.listener.take() };
        if allowed {
            return self.was_dialled(&case, place, &asked, &[]);
        }
        let Err(Error::Security(why)) = &asked.resolved else { panic!("{case}: {:?}", asked.resolved) };
        assert!(why.contains(&format!("at a {} address", place.class)), "{case}: {why}");
        assert_eq!(asked.dialled, [] as [IpAddr; 0], "{case}");
        assert_eq!(self.metric(&asked.tenant, "upstream_requests_total").await, 1.0, "{case}");
        false
    }
}

const EVERYTHING_IS_LOCAL: &str = "JWKS_CACHE_TEST_EVERYTHING_IS_LOCAL";

/// Gives a command a network of its own in which every address is this machine's.
fn alone(program: &std::path::Path) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--net", "sh", "-c"]);
    command.arg(
        "ip link set lo up && ip route add local 0.0.0.0/0 dev lo && ip -6 route add local ::/0 dev lo && exec \"$0\" \"$@\"",
    );
    command.arg(program);
    command
}

#[test]
fn private_addresses_are_dialled_where_allowed_and_never_where_not() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    if std::env::var_os(EVERYTHING_IS_LOCAL).is_some() {
        return runtime.block_on(matrix(true));
    }
    let possible = alone("true".as_ref()).output().is_ok_and(|probe| probe.status.success());
    if !possible {
        let required = cfg!(target_os = "linux") && std::env::var("CI").is_ok_and(|value| value == "true");
        assert!(
            !required,
            "no network of our own, so nothing shows that what is refused could have been dialled: install util-linux \
             and iproute2, and allow unprivileged user namespaces (sysctl kernel.apparmor_restrict_unprivileged_userns=0)"
        );
        println!("no network of our own here (unshare, ip): only loopback has a positive control");
        return runtime.block_on(matrix(false));
    }
    let mut again = alone(&std::env::current_exe().unwrap());
    again.args(["--exact", "private_addresses_are_dialled_where_allowed_and_never_where_not", "--nocapture"]);
    let done = again.env(EVERYTHING_IS_LOCAL, "1").output().unwrap();
    let told = String::from_utf8_lossy(&done.stdout);
    print!("{told}");
    assert!(done.status.success(), "{told}{}", String::from_utf8_lossy(&done.stderr));
    assert!(told.contains("1 passed"), "{told}");
}

#[test]
fn only_the_allowed_addresses_of_a_name_are_dialled() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut world = World::new(false);
        // Nothing else may be tried, were it only as the next one.
        world.names.set("mixed.example", [found(&["10.0.0.1", "127.0.0.1", "169.254.169.254"])]);
        let url = format!("http://mixed.example:{}/jwks", world.listener.port);
        let loopback = PrivateNetworks::DenyExcept(vec!["127.0.0.1".to_owned()]);
        let asked = world.ask(&url, loopback).await;
        assert_eq!(
            (asked.resolved.unwrap(), asked.dialled),
            (vec!["there".to_owned()], vec![Ipv4Addr::LOCALHOST.into()])
        );
    });
}

#[test]
fn zones_and_addresses_that_are_none_are_no_urls() {
    for url in
        ["http://[fe80::1%25eth0]/", "http://[fe80::1%eth0]/", "http://256.0.0.1/", "http://0x1ffffffff/"]
    {
        assert!(matches!(IdentityProviderRegistration::new("t", "p", url), Err(Error::Url(_))), "{url}");
    }
}
