//! Addresses of links.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;

use futures_util::TryStreamExt;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressMessage, AddressScope, CacheInfo,
};

use super::{Netlink, family, gone_is_fine, kernel_error};

/// An address of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// The address.
    pub ip: IpAddr,
    /// Length of its prefix in bits.
    pub prefix: u8,
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.ip, self.prefix)
    }
}

impl std::str::FromStr for Address {
    type Err = String;

    fn from_str(s: &str) -> Result<Address, String> {
        let bad = || format!("{s}: not an address with its prefix length");
        let (ip, prefix) = s.split_once('/').ok_or_else(bad)?;
        let ip: IpAddr = ip.parse().map_err(|_| bad())?;
        let prefix: u8 = prefix.parse().map_err(|_| bad())?;
        let most = if ip.is_ipv4() { 32 } else { 128 };
        if prefix > most { Err(bad()) } else { Ok(Address { ip, prefix }) }
    }
}

/// An address with all that goes with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Lease {
    /// It.
    #[serde(with = "as_text")]
    pub address: Address,
    /// Seconds for which it is preferred, and for which it is valid; None: for ever.
    pub seconds: Option<(u32, u32)>,
    /// The other end, of a point-to-point address.
    pub peer: Option<IpAddr>,
    /// Its scope (ifa_scope).
    pub scope: u8,
    /// The kernel makes no route to its network.
    pub no_prefix_route: bool,
}

mod as_text {
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(address: &super::Address, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(address)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<super::Address, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

impl Netlink {
    /// The addresses of a link that somebody gave it: those that the kernel made by itself (link-local ones, and
    /// those that expire) are left out, for they come and go with the link.
    pub async fn addresses(&self, index: u32) -> io::Result<Vec<Address>> {
        let mut request = self.handle.address().get().set_link_index_filter(index).execute();
        let mut found = Vec::new();
        while let Some(message) = request.try_next().await.map_err(kernel_error)? {
            found.extend(address(&message));
        }
        Ok(found)
    }

    /// The links that have an address, link-local ones of IPv6 aside.
    pub async fn addressed(&self) -> io::Result<BTreeSet<u32>> {
        let mut request = self.handle.address().get().execute();
        let mut found = BTreeSet::new();
        while let Some(message) = request.try_next().await.map_err(kernel_error)? {
            let link_local = message.header.scope == AddressScope::Link;
            if message.header.family == AddressFamily::Inet || !link_local {
                found.insert(message.header.index);
            }
        }
        Ok(found)
    }

    /// All that would not come again by themselves, or would with another lifetime: those that expire as well, and link-local
    /// ones. Not the kernel's temporary ones (RFC 8981).
    pub async fn leases(&self, index: u32) -> io::Result<Vec<Lease>> {
        let mut request = self.handle.address().get().set_link_index_filter(index).execute();
        let mut found = Vec::new();
        while let Some(message) = request.try_next().await.map_err(kernel_error)? {
            found.extend(lease(&message));
        }
        Ok(found)
    }

    /// Adds an address. No error when the link has it already.
    pub async fn add_address(&self, index: u32, address: Address) -> io::Result<()> {
        let scope = AddressScope::Universe.into();
        let lease = Lease { address, seconds: None, peer: None, scope, no_prefix_route: false };
        self.add_lease(index, &lease).await
    }

    /// The same with all that goes with it.
    pub async fn add_lease(&self, index: u32, lease: &Lease) -> io::Result<()> {
        let address = lease.address;
        let mut request = self.handle.address().add(index, address.ip, address.prefix);
        if let Some((preferred, valid)) = lease.seconds {
            let mut until = CacheInfo::default();
            (until.ifa_preferred, until.ifa_valid) = (preferred, valid);
            request.message_mut().attributes.push(AddressAttribute::CacheInfo(until));
        }
        request.message_mut().header.scope = lease.scope.into();
        if let Some(peer) = lease.peer {
            let is_address = |a: &AddressAttribute| matches!(a, AddressAttribute::Address(_));
            request.message_mut().attributes.retain(|a| !is_address(a));
            request.message_mut().attributes.push(AddressAttribute::Address(peer));
        }
        let mut flags = AddressFlags::empty();
        // Usable at once: duplicate detection would leave it unusable for a second, and the address only moves
        flags.set(AddressFlags::Nodad, address.ip.is_ipv6());
        flags.set(AddressFlags::Noprefixroute, lease.no_prefix_route);
        if !flags.is_empty() {
            request.message_mut().attributes.push(AddressAttribute::Flags(flags));
        }
        match request.execute().await.map_err(kernel_error) {
            Err(e) if e.raw_os_error() == Some(libc::EEXIST) => Ok(()),
            other => other,
        }
    }

    /// Removes an address. No error when the link has it no more.
    pub async fn delete_address(&self, index: u32, address: Address) -> io::Result<()> {
        let mut message = AddressMessage::default();
        message.header.family = family(address.ip);
        message.header.prefix_len = address.prefix;
        message.header.index = index;
        message.attributes.push(AddressAttribute::Local(address.ip));
        let done = self.handle.address().del(message).execute().await.map_err(kernel_error);
        match done {
            Err(e) if e.raw_os_error() == Some(libc::EADDRNOTAVAIL) => Ok(()),
            other => gone_is_fine(other),
        }
    }
}

fn address(message: &AddressMessage) -> Option<Address> {
    if message.header.scope == AddressScope::Link {
        return None;
    }
    lease(message).filter(|lease| lease.seconds.is_none()).map(|lease| lease.address)
}

fn lease(message: &AddressMessage) -> Option<Lease> {
    let (mut local, mut peer, mut flags, mut seconds) = (None, None, None, (0, 0));
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(ip) => local = Some(*ip),
            AddressAttribute::Address(ip) => peer = Some(*ip),
            AddressAttribute::Flags(all) => flags = Some(*all),
            AddressAttribute::CacheInfo(until) => seconds = (until.ifa_preferred, until.ifa_valid),
            _ => {}
        }
    }
    // IPv6 has the address itself in IFA_ADDRESS, but where it has a peer
    let address = Address { ip: local.or(peer)?, prefix: message.header.prefix_len };
    let flags = flags.unwrap_or(AddressFlags::Permanent);
    let permanent = flags.contains(AddressFlags::Permanent);
    // of IPv6 this bit says that it is temporary
    if address.ip.is_ipv6() && flags.contains(AddressFlags::Secondary) {
        return None;
    }
    Some(Lease {
        address,
        seconds: (!permanent).then_some(seconds),
        peer: peer.filter(|peer| *peer != address.ip),
        scope: message.header.scope.into(),
        no_prefix_route: flags.contains(AddressFlags::Noprefixroute),
    })
}
