//! Which addresses may be dialled: what an address is for, and what a policy says to it.
//!
//! This room does not know who resolves names and who dials; it judges one address at a time, and the
//! caller sees to it that the address judged is the address dialled.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use crate::allow::canonicalize_dns_name;
use crate::policy::Broken;

/// Whether a provider may be at an address that is not on the public Internet.
///
/// Link-local and cloud-metadata addresses ([`AddressClass::is_guarded`]) are refused under every policy,
/// since what listens there gives credentials to whoever asks from this machine. Only an exception for
/// that single address lets one through.
///
/// Default `Allow`: a library's user chooses the URLs, and an issuer inside the cluster is usual. Where
/// tenants choose them, use `Deny`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PrivateNetworks {
    /// Any address but link-local and metadata ones.
    #[default]
    Allow,
    /// Public addresses only.
    Deny,
    /// Public addresses, and these: addresses (`10.1.2.3`), networks (`10.0.0.0/8`, `fd00::/8`) and host
    /// names (`keys.internal`, without its subdomains), which may then be anywhere but at a guarded address.
    DenyExcept(Vec<String>),
}

impl PrivateNetworks {
    /// Checks every exception.
    ///
    /// # Errors
    /// [`Broken`] names the first entry that is neither an address, a network nor a host name.
    pub fn check(&self) -> Result<(), Broken> {
        for entry in self.entries() {
            Exception::parse(entry).map_err(|why| Broken {
                field: "private_networks",
                reason: format!("deny_except has {entry:?}, which {why}"),
            })?;
        }
        Ok(())
    }

    /// Whether `ip`, which `host` stands for, may be dialled. `host` is as a URL has it: a name, or the
    /// address itself.
    ///
    /// # Errors
    /// The class of an address that is refused.
    pub fn verdict(&self, host: &str, ip: IpAddr) -> Result<(), AddressClass> {
        let class = AddressClass::of(ip);
        let allowed = match self {
            _ if class == AddressClass::Public => true,
            Self::Allow => !class.is_guarded(),
            Self::Deny => false,
            Self::DenyExcept(_) => self.exceptions().any(|exception| match exception {
                Exception::Network(network) => {
                    network.contains(ip) && (network.is_single() || !class.is_guarded())
                }
                Exception::Host(name) => {
                    !class.is_guarded() && canonicalize_dns_name(host).is_some_and(|host| host == name)
                }
            }),
        };
        if allowed { Ok(()) } else { Err(class) }
    }

    /// Whether every address allowed by `self` is allowed by `next` too.
    #[must_use]
    pub fn is_loosened_by(&self, next: &Self) -> bool {
        let (mut ours, theirs) = (self.exceptions(), next.exceptions().collect::<Vec<_>>());
        match (self, next) {
            (Self::Allow, _) => *next == Self::Allow,
            (_, Self::Allow) => !ours.any(|exception| exception.is_guarded()),
            _ => ours.all(|exception| theirs.iter().any(|other| exception.is_within(other))),
        }
    }

    fn entries(&self) -> &[String] {
        match self {
            Self::DenyExcept(entries) => entries,
            Self::Allow | Self::Deny => &[],
        }
    }

    /// An entry that [`PrivateNetworks::check`] refuses excepts nothing.
    fn exceptions(&self) -> impl Iterator<Item = Exception> {
        self.entries().iter().filter_map(|entry| Exception::parse(entry).ok())
    }
}

/// What an address is for, by the special-purpose registries of RFC 6890.
///
/// An IPv4 address within an IPv6 one counts: whatever carries the packet there, that is where it arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AddressClass {
    /// On the public Internet.
    Public,
    /// This machine: 127.0.0.0/8, ::1.
    Loopback,
    /// A site's own: 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16 (RFC 1918), fec0::/10, and what a site
    /// translates itself (64:ff9b:1::/48, RFC 8215).
    Private,
    /// 100.64.0.0/10, between a provider and its customers (RFC 6598).
    CarrierNat,
    /// fc00::/7 (RFC 4193).
    UniqueLocal,
    /// 169.254.0.0/16 (RFC 3927), fe80::/10.
    LinkLocal,
    /// Where a cloud tells its machines who they are, or gives them credentials.
    Metadata,
    /// 224.0.0.0/4, ff00::/8.
    Multicast,
    /// 0.0.0.0/8, ::, which reach this machine.
    Unspecified,
    /// 255.255.255.255.
    Broadcast,
    /// Documentation, benchmarks, deprecated tunnels, and everything not given out.
    Reserved,
}

/// Addresses of metadata services outside the link-local networks, as their clouds document them.
const METADATA_V4: [Ipv4Addr; 4] = [
    Ipv4Addr::new(169, 254, 169, 254), // nearly all; in its class for the name
    Ipv4Addr::new(168, 63, 129, 16),   // Azure's platform
    Ipv4Addr::new(100, 100, 100, 200), // Alibaba
    Ipv4Addr::new(192, 0, 0, 192),     // Oracle, older
];
const METADATA_V6: [Ipv6Addr; 6] = [
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254), // AWS
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23),  // AWS, credentials of pods
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),  // Google
    Ipv6Addr::new(0xfd00, 0xc1, 0, 0, 0, 0, 0xa9fe, 0xa9fe), // Oracle
    Ipv6Addr::new(0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42),   // Scaleway
    Ipv6Addr::new(0xfd00, 0xa9fe, 0xa9fe, 0, 0, 0, 0, 1), // Akamai
];

impl AddressClass {
    /// The class of `ip`.
    #[must_use]
    pub fn of(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(ip) => Self::of_v4(ip),
            IpAddr::V6(ip) => Self::of_v6(ip),
        }
    }

    /// Whether it is refused under every policy, unless an exception names the single address.
    #[must_use]
    pub fn is_guarded(self) -> bool {
        matches!(self, Self::LinkLocal | Self::Metadata)
    }

    /// What people call it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Loopback => "loopback",
            Self::Private => "private",
            Self::CarrierNat => "carrier-grade NAT",
            Self::UniqueLocal => "unique local",
            Self::LinkLocal => "link-local",
            Self::Metadata => "cloud metadata",
            Self::Multicast => "multicast",
            Self::Unspecified => "unspecified",
            Self::Broadcast => "broadcast",
            Self::Reserved => "reserved",
        }
    }

    fn of_v4(ip: Ipv4Addr) -> Self {
        // The parentheses are for tools that read sources by `syn`, cargo-mutants among them.
        match ip.octets() {
            _ if METADATA_V4.contains(&ip) => Self::Metadata,
            [0, ..] => Self::Unspecified,
            [127, ..] => Self::Loopback,
            [10, ..] | [172, (16..=31), ..] | [192, 168, ..] => Self::Private,
            [100, (64..=127), ..] => Self::CarrierNat,
            [169, 254, ..] => Self::LinkLocal,
            [(224..=239), ..] => Self::Multicast,
            [255, 255, 255, 255] => Self::Broadcast,
            // IETF protocols, documentation, 6to4 relays, benchmarks, class E.
            [192, 0, 0 | 2, _]
            | [198, 51, 100, _]
            | [203, 0, 113, _]
            | [192, 88, 99, _]
            | [198, 18 | 19, ..]
            | [(240..=255), ..] => Self::Reserved,
            _ => Self::Public,
        }
    }

    fn of_v6(ip: Ipv6Addr) -> Self {
        let octets = ip.octets();
        let v4_at = |at: usize| {
            let part = octets.get(at..).and_then(<[u8]>::first_chunk::<4>);
            part.map_or(Self::Reserved, |octets| Self::of_v4((*octets).into()))
        };
        match ip.segments() {
            _ if METADATA_V6.contains(&ip) => Self::Metadata,
            [0, 0, 0, 0, 0, 0, 0, 0] => Self::Unspecified,
            [0, 0, 0, 0, 0, 0, 0, 1] => Self::Loopback,
            // IPv4-compatible (RFC 4291 §2.5.5.1) and IPv4-translated (RFC 2765): deprecated.
            [0, 0, 0, 0, 0, 0, _, _] | [0, 0, 0, 0, 0xffff, 0, _, _] => v4_at(12).through_a_tunnel(),
            // NAT64 (RFC 6052): the way to the IPv4 Internet of a network without IPv4.
            [0x64, 0xff9b, 0, 0, 0, 0, _, _] => v4_at(12),
            // The same for a site's own use, with the IPv4 address at any place that RFC 6052 §2.2 has
            // (octet 8 is skipped).
            [0x64, 0xff9b, 1, ..] => {
                let [.., a6, a7, _, a9, a10, a11, a12, _, _, _] = octets;
                let places = [[a6, a7, a9, a10], [a7, a9, a10, a11], [a9, a10, a11, a12]];
                let guarded = places.map(|v4| Self::of_v4(v4.into())).into_iter().chain([v4_at(12)]);
                guarded.into_iter().find(|class| class.is_guarded()).unwrap_or(Self::Private)
            }
            // Teredo (RFC 4380): the server, and the client with its bits turned over.
            [0x2001, 0, ..] => {
                let [.., a, b, c, d] = octets.map(|octet| !octet);
                let both = [v4_at(4), Self::of_v4([a, b, c, d].into())];
                let worst = both.into_iter().find(|class| class.is_guarded());
                let local = both.into_iter().find(|class| *class != Self::Public);
                worst.or(local).unwrap_or(Self::Reserved)
            }
            // 6to4 (RFC 3056): deprecated.
            [0x2002, ..] => v4_at(2).through_a_tunnel(),
            [(0xfe80..=0xfebf), ..] => Self::LinkLocal,
            [(0xfec0..=0xfeff), ..] => Self::Private,
            [(0xfc00..=0xfdff), ..] => Self::UniqueLocal,
            [(0xff00..=0xffff), ..] => Self::Multicast,
            // IETF protocols (benchmarks and hash identities among them), documentation.
            [0x2001, (..0x200), ..] | [0x2001, 0xdb8, ..] | [0x3fff, (..0x1000), ..] => Self::Reserved,
            [(0x2000..=0x3fff), ..] => Self::Public,
            // Not given out as global unicast (RFC 4291 §2.4).
            _ => Self::Reserved,
        }
    }

    /// The class of an address that a deprecated tunnel leads to: no provider is at the end of one.
    fn through_a_tunnel(self) -> Self {
        if self == Self::Public { Self::Reserved } else { self }
    }
}

impl fmt::Display for AddressClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One entry of `DenyExcept`.
#[derive(Debug, PartialEq, Eq)]
enum Exception {
    Network(Network),
    /// In canonical form.
    Host(String),
}

impl Exception {
    fn parse(entry: &str) -> Result<Self, &'static str> {
        let Some(name) = canonicalize_dns_name(entry) else { return Err("is blank; remove it") };
        if let Some((base, length)) = name.split_once('/') {
            return Network::parse(base, length).map(Self::Network);
        }
        let bare = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(&name);
        if let Ok(ip) = bare.parse() {
            return Ok(Self::Network(Network { base: bits(ip), length: 128 }));
        }
        let legal = |c: u8| c.is_ascii_alphanumeric() || b"-_.".contains(&c);
        let label = |label: &str| !label.is_empty() && label.bytes().all(legal);
        if !name.split('.').all(label) {
            return Err(
                "is neither an address, a network as in 10.0.0.0/8, nor a host name as in keys.example.com",
            );
        }
        // URLs take such a host for an address (WHATWG URL, "ends in a number").
        let last = name.rsplit('.').next().unwrap_or_default();
        let is_number = last.bytes().all(|c| c.is_ascii_digit())
            || last.strip_prefix("0x").is_some_and(|hex| hex.bytes().all(|c| c.is_ascii_hexdigit()));
        if is_number {
            return Err("is a short form of an address; write it in full, as in 127.0.0.1");
        }
        Ok(Self::Host(name))
    }

    /// Whether it lets a guarded address through.
    fn is_guarded(&self) -> bool {
        matches!(self, Self::Network(network) if network.is_single() && AddressClass::of(network.ip()).is_guarded())
    }

    fn is_within(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Network(inner), Self::Network(outer)) => {
                inner == outer
                    || (!self.is_guarded() && outer.length <= inner.length && outer.contains(inner.ip()))
            }
            _ => self == other,
        }
    }
}

/// A network; of IPv4 in the form mapped into IPv6.
#[derive(Debug, PartialEq, Eq)]
struct Network {
    base: u128,
    length: u32,
}

/// How much longer the prefix of a mapped IPv4 network is.
const MAPPED: u32 = 96;

impl Network {
    fn parse(base: &str, length: &str) -> Result<Self, &'static str> {
        let unclear = "is not a network; write it as in 10.0.0.0/8 or fd00::/8";
        let ip: IpAddr = base.parse().map_err(|_| unclear)?;
        let length: u32 = length.parse().map_err(|_| unclear)?;
        let length = if ip.is_ipv4() { length.saturating_add(MAPPED) } else { length };
        if length > 128 {
            return Err("has more bits than its address; an IPv4 network has at most 32, an IPv6 one 128");
        }
        let network = Self { base: bits(ip), length };
        if network.base & !network.mask() != 0 {
            return Err("has bits set behind its prefix; clear them, or write /32 or /128 for one address");
        }
        Ok(network)
    }

    fn mask(&self) -> u128 {
        u128::MAX.checked_shl(128 - self.length).unwrap_or(0)
    }

    fn contains(&self, ip: IpAddr) -> bool {
        // `::/0` is all of IPv6, not of IPv4.
        let same_kind = self.length >= MAPPED || ip.to_canonical().is_ipv6();
        same_kind && bits(ip) & self.mask() == self.base
    }

    fn is_single(&self) -> bool {
        self.length == 128
    }

    fn ip(&self) -> IpAddr {
        IpAddr::V6(self.base.into())
    }
}

fn bits(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().to_bits(),
        IpAddr::V6(ip) => ip.to_bits(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn except(entries: &[&str]) -> PrivateNetworks {
        PrivateNetworks::DenyExcept(entries.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn every_class_ends_where_its_registry_says() {
        use AddressClass::*;
        for (class, addresses) in [
            (Loopback, "127.0.0.1 127.255.255.255 ::1 ::ffff:127.0.0.1 64:ff9b::7f00:1 2002:7f00:1::"),
            (
                Private,
                "10.0.0.0 10.255.255.255 172.16.0.0 172.31.255.255 192.168.0.0 192.168.255.255 fec0:: feff::1",
            ),
            (
                Private,
                "::10.0.0.1 64:ff9b::10.0.0.1 2002:a00:1:: 64:ff9b:1:: 64:ff9b:1:ffff::8.8.8.8 ::ffff:0:10.0.0.1",
            ),
            (Private, "2001:0:808:808::f5ff:fffe"),
            (CarrierNat, "100.64.0.0 100.127.255.255 64:ff9b::6440:1"),
            (UniqueLocal, "fc00:: fdff:ffff:: fd00:ec2::253"),
            (LinkLocal, "169.254.0.0 169.254.255.255 fe80::1 febf::1 ::ffff:169.254.0.1 2002:a9fe:1::"),
            (
                Metadata,
                "169.254.169.254 168.63.129.16 100.100.100.200 192.0.0.192 fd00:ec2::254 fd20:ce::254",
            ),
            (Metadata, "::ffff:169.254.169.254 64:ff9b::a9fe:a9fe 2002:a9fe:a9fe:: ::169.254.169.254"),
            (
                Metadata,
                "64:ff9b:1::a9fe:a9fe 64:ff9b:1:a9fe:a9:fe00:: 64:ff9b:1:a9:fe:a9fe:: 64:ff9b:1:0:a9:fea9:fe00:0",
            ),
            (
                Metadata,
                "2001:0:808:808::5601:5601 2001:0:a9fe:a9fe:: fd00:c1::a9fe:a9fe ::ffff:0:169.254.169.254",
            ),
            (Multicast, "224.0.0.0 239.255.255.255 ff00:: ff02::1"),
            (Unspecified, "0.0.0.0 0.255.255.255 :: ::0.0.0.2"),
            (Broadcast, "255.255.255.255 ::ffff:255.255.255.255"),
            (Reserved, "192.0.0.1 192.0.2.1 198.51.100.1 203.0.113.1 192.88.99.1 198.18.0.0 198.19.255.255"),
            (
                Reserved,
                "240.0.0.0 255.255.255.254 2001:db8::1 2001:1ff:: 3fff:fff:: 100::1 5f00:: 4000:: ::8.8.8.8",
            ),
            (Reserved, "2002:808:808:: 2001:0:808:808::f7f7:f7f7"),
            (
                Public,
                "1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.0",
            ),
            (
                Public,
                "169.253.255.255 169.255.0.0 172.15.255.255 172.32.0.0 192.0.1.0 192.167.255.255 192.169.0.0",
            ),
            (
                Public,
                "198.17.255.255 198.20.0.0 223.255.255.255 168.63.129.15 64:ff9b::808:808 ::ffff:8.8.8.8",
            ),
            (Public, "2000:: 2001:200:: 2606:4700::1111 2a00:: 3ffe:: 3fff:1000::"),
        ] {
            for address in addresses.split(' ') {
                assert_eq!(AddressClass::of(ip(address)), class, "{address}");
            }
        }
    }

    #[test]
    fn link_local_and_metadata_are_refused_under_every_policy_but_an_exception_for_that_address() {
        for guarded in [
            "169.254.0.7",
            "169.254.169.254",
            "168.63.129.16",
            "fd00:ec2::254",
            "fe80::1",
            "2002:a9fe:a9fe::",
        ] {
            let whole = if guarded.contains(':') { "::/0" } else { "0.0.0.0/0" };
            let wider = if guarded.contains(':') { "fd00:ec2::254/127" } else { "169.254.169.254/31" };
            for policy in [
                PrivateNetworks::Allow,
                PrivateNetworks::Deny,
                except(&[]),
                except(&[whole, wider, "keys.internal", "169.254.0.0/16", "fe80::/10", "192.0.2.1"]),
            ] {
                assert!(policy.verdict("keys.internal", ip(guarded)).is_err(), "{guarded} {policy:?}");
            }
            let length = if guarded.contains(':') { 128 } else { 32 };
            for entry in [guarded.to_owned(), format!("{guarded}/{length}"), format!("[{guarded}]")] {
                assert_eq!(except(&[&entry]).verdict("keys.internal", ip(guarded)), Ok(()), "{entry}");
            }
        }
        // Another way to the same place is another address; mapped is the same one.
        let metadata = except(&["169.254.169.254"]);
        assert_eq!(metadata.verdict("h", ip("64:ff9b::a9fe:a9fe")), Err(AddressClass::Metadata));
        assert_eq!(metadata.verdict("h", ip("::ffff:169.254.169.254")), Ok(()));
    }

    #[test]
    fn an_exception_is_an_address_a_network_or_a_host() {
        let policy =
            except(&["10.1.0.0/16", " Keys.Internal. ", "fd12::/16", "::1", "::ffff:192.168.7.0/120"]);
        policy.check().unwrap();
        for (host, address, allowed) in [
            ("10.1.2.3", "10.1.2.3", true),
            ("10.1.2.3", "::ffff:10.1.2.3", true),
            ("10.2.0.0", "10.2.0.0", false),
            ("keys.internal", "10.2.0.0", true),
            ("KEYS.internal.", "127.0.0.1", true),
            ("a.keys.internal", "10.2.0.0", false),
            ("badkeys.internal", "10.2.0.0", false),
            ("h", "fd12:ffff::", true),
            ("h", "fd13::", false),
            ("h", "::1", true),
            ("h", "127.0.0.1", false),
            ("h", "192.168.7.255", true),
            ("h", "192.168.8.0", false),
            ("h", "64:ff9b::a01:203", false),
            ("h", "8.8.8.8", true),
        ] {
            assert_eq!(policy.verdict(host, ip(address)).is_ok(), allowed, "{host} {address}");
        }
        assert!(except(&["::/0"]).verdict("h", ip("10.0.0.1")).is_err());
        assert!(except(&["0.0.0.0/0"]).verdict("h", ip("10.0.0.1")).is_ok());
        assert!(except(&["0.0.0.0/0"]).verdict("h", ip("fd00::1")).is_err());
    }

    #[test]
    fn an_entry_that_is_unclear_is_refused_with_a_remedy_and_excepts_nothing() {
        for (entry, remedy) in [
            ("", "remove it"),
            (" . ", "remove it"),
            ("10.0.0.0/33", "at most 32"),
            ("fd00::/129", "at most"),
            ("10.0.0.1/8", "/32"),
            ("10.0.0.0/", "10.0.0.0/8"),
            ("10.0.0.0/-1", "10.0.0.0/8"),
            ("host/8", "10.0.0.0/8"),
            ("127.1", "in full"),
            ("2130706433", "in full"),
            ("0x7f000001", "in full"),
            ("127.0.0.0x1", "in full"),
            ("010.0.0.1", "in full"),
            ("*.internal", "host name"),
            ("a..b", "host name"),
            ("bücher.example", "host name"),
            ("fe80::1%eth0", "host name"),
            ("http://10.0.0.1", "10.0.0.0/8"),
        ] {
            let policy = except(&["keys.internal", entry]);
            let broken = policy.check().unwrap_err();
            assert_eq!(broken.field, "private_networks");
            assert!(broken.reason.contains(remedy), "{entry}: {broken}");
            assert!(policy.verdict(entry, ip("10.0.0.1")).is_err(), "{entry}");
        }
    }

    #[test]
    fn loosening_is_what_takes_no_address_away() {
        let (allow, deny) = (PrivateNetworks::Allow, PrivateNetworks::Deny);
        for (old, new, loosened) in [
            (&allow, &allow, true),
            (&allow, &deny, false),
            (&allow, &except(&["0.0.0.0/0", "::/0"]), false),
            (&deny, &allow, true),
            (&deny, &except(&["10.0.0.0/8"]), true),
            (&except(&[]), &deny, true),
            (&except(&["10.0.0.0/8"]), &deny, false),
            (&except(&["10.0.0.0/8"]), &allow, true),
            (&except(&["169.254.169.254"]), &allow, false),
            (&except(&["169.254.169.254"]), &except(&["169.254.0.0/16"]), false),
            (&except(&["169.254.169.254"]), &except(&["a.b", "169.254.169.254/32"]), true),
            (&except(&["10.1.0.0/16", "a.b"]), &except(&["A.B.", "10.0.0.0/8"]), true),
            (&except(&["10.0.0.0/8"]), &except(&["10.1.0.0/16"]), false),
            (&except(&["a.b"]), &except(&["c.d"]), false),
        ] {
            assert_eq!(old.is_loosened_by(new), loosened, "{old:?} to {new:?}");
        }
    }

    #[test]
    fn it_is_written_and_read_as_plain_words() {
        for (policy, text) in [
            (PrivateNetworks::Allow, r#""allow""#),
            (PrivateNetworks::Deny, r#""deny""#),
            (except(&["10.0.0.0/8"]), r#"{"deny_except":["10.0.0.0/8"]}"#),
        ] {
            assert_eq!(serde_json::to_string(&policy).unwrap(), text);
            assert_eq!(serde_json::from_str::<PrivateNetworks>(text).unwrap(), policy);
        }
    }
}
