//! rtnetlink in one place: what links, addresses and routes there are, changes to them, and word when they change.
//!
//! Every call speaks of the network namespace in which the socket was opened. Errors are the kernel's own, so that
//! callers can tell ENODEV from EPERM.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::pin::Pin;
use std::sync::Arc;

use futures_util::{FutureExt, Stream, StreamExt, TryStreamExt};
use netlink_packet_core::NetlinkPayload;
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressMessage, AddressScope, CacheInfo,
};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, InfoVxlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteMetric, RouteProtocol, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::{Handle, LinkMessageBuilder, LinkUnspec, MulticastGroup};
use tokio::task::JoinHandle;

/// Counters that the kernel keeps for a link, by the names of the `statistics` column.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct LinkStats {
    pub rx_packets: u64,
    pub rx_bytes: u64,
    pub rx_errors: u64,
    pub rx_dropped: u64,
    pub rx_multicast_packets: u64,
    pub rx_over_err: u64,
    pub rx_crc_err: u64,
    pub rx_frame_err: u64,
    pub rx_missed_errors: u64,
    pub tx_packets: u64,
    pub tx_bytes: u64,
    pub tx_errors: u64,
    pub tx_dropped: u64,
    pub collisions: u64,
}

/// A network device as the kernel describes it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Link {
    /// Interface index; never 0 for a real link.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// What made it: `bridge`, `veth`, `tun`; empty for hardware.
    pub kind: String,
    /// Index of the bridge or bond that it belongs to; 0: none.
    pub master: u32,
    /// Index of the device that it is made on, or of its peer (IFLA_LINK); 0: none.
    pub below: u32,
    /// Ethernet address; zero when it has none of six bytes.
    pub mac: [u8; 6],
    /// In bytes.
    pub mtu: u32,
    /// Administratively up (IFF_UP).
    pub up: bool,
    /// Has carrier.
    pub carrier: bool,
    /// How often the carrier came or went.
    pub carrier_changes: u32,
    /// `ip link set … alias`.
    pub alias: String,
    /// The kernel's counters.
    pub stats: LinkStats,
}

impl Link {
    /// A Linux bridge (not a port of one).
    pub fn is_bridge(&self) -> bool {
        self.kind == "bridge"
    }

    /// What there is to it besides its counters.
    pub fn settings(&self) -> Link {
        Link { stats: LinkStats::default(), ..self.clone() }
    }
}

/// All links of a namespace at one moment.
#[derive(Debug, Clone, Default)]
pub struct Links(Vec<Link>);

impl Links {
    /// The link of that name.
    pub fn by_name(&self, name: &str) -> Option<&Link> {
        self.0.iter().find(|l| l.name == name)
    }

    /// The link with that index.
    pub fn by_index(&self, index: u32) -> Option<&Link> {
        self.0.iter().find(|l| l.index == index)
    }

    /// The ports of a bridge or bond.
    pub fn ports_of(&self, master: u32) -> impl Iterator<Item = &Link> {
        self.0.iter().filter(move |l| l.master == master)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Link> {
        self.0.iter()
    }
}

impl FromIterator<Link> for Links {
    fn from_iter<T: IntoIterator<Item = Link>>(links: T) -> Links {
        Links(links.into_iter().collect())
    }
}

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

/// A handle on the kernel's routing socket. Clones share the socket; the last one closes it.
#[derive(Debug, Clone)]
pub struct Netlink {
    handle: Handle,
    _connection: Arc<Task>,
}

/// Stops the task that it holds.
#[derive(Debug)]
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Netlink {
    /// Opens a socket in the calling thread's network namespace. Must be called inside a tokio runtime.
    pub fn open() -> io::Result<Netlink> {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        Ok(Netlink { handle, _connection: Arc::new(Task(tokio::spawn(connection))) })
    }

    /// Every link there is.
    pub async fn links(&self) -> io::Result<Links> {
        let all: Vec<Link> =
            self.handle.link().get().execute().map_ok(link).try_collect().await.map_err(kernel_error)?;
        Ok(Links(all))
    }

    /// The link of that name; ENODEV when there is none.
    pub async fn link(&self, name: &str) -> io::Result<Link> {
        let mut answers = self.handle.link().get().match_name(name).execute();
        let answer = answers.try_next().await.map_err(kernel_error)?;
        answer.map(link).ok_or_else(|| io::Error::from_raw_os_error(libc::ENODEV))
    }

    /// Makes a veth pair: `near` here, `far` in the namespace `far_ns`. Neither is up, nor speaks ARP.
    pub async fn add_veth(
        &self,
        near: &NewLink<'_>,
        far: &NewLink<'_>,
        far_ns: BorrowedFd<'_>,
    ) -> io::Result<()> {
        let mut peer = far.attributes().build();
        peer.attributes.push(LinkAttribute::NetNsFd(far_ns.as_raw_fd()));
        let mut message = near.attributes().build();
        message.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
        ]));
        self.handle.link().add(message).execute().await.map_err(kernel_error)
    }

    /// Removes a link that software made. No error when it is gone already.
    pub async fn delete(&self, index: u32) -> io::Result<()> {
        gone_is_fine(self.handle.link().del(index).execute().await.map_err(kernel_error))
    }

    /// Makes the link a port of `master`; 0: of none.
    pub async fn set_master(&self, index: u32, master: u32) -> io::Result<()> {
        self.change(LinkUnspec::new_with_index(index).controller(master)).await
    }

    /// Brings the link up or down.
    pub async fn set_up(&self, index: u32, up: bool) -> io::Result<()> {
        let link = LinkUnspec::new_with_index(index);
        self.change(if up { link.up() } else { link.down() }).await
    }

    /// Sets its MTU, in bytes.
    pub async fn set_mtu(&self, index: u32, mtu: u32) -> io::Result<()> {
        self.change(LinkUnspec::new_with_index(index).mtu(mtu)).await
    }

    /// Sets its Ethernet address.
    pub async fn set_mac(&self, index: u32, mac: [u8; 6]) -> io::Result<()> {
        self.change(LinkUnspec::new_with_index(index).address(mac.to_vec())).await
    }

    /// Sets its alias, which `ip link` shows.
    pub async fn set_alias(&self, index: u32, alias: &str) -> io::Result<()> {
        self.change(LinkUnspec::new_with_index(index).alias(alias)).await
    }

    async fn change(&self, message: LinkMessageBuilder<LinkUnspec>) -> io::Result<()> {
        self.handle.link().change(message.build()).execute().await.map_err(kernel_error)
    }

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

    /// The routes out of a link that somebody made, of all tables but `local`: not those that the kernel keeps for
    /// the link's own addresses.
    pub async fn routes(&self, index: u32) -> io::Result<Vec<Route>> {
        let mut found = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut question = RouteMessage::default();
            question.header.address_family = family;
            let mut answers = self.handle.route().get(question).execute();
            while let Some(message) = answers.try_next().await.map_err(kernel_error)? {
                found.extend(Route::of_link(&message, index));
            }
        }
        Ok(found)
    }

    /// Adds a route out of a link. No error when it is there already.
    pub async fn add_route(&self, index: u32, route: &Route) -> io::Result<()> {
        let request = self.handle.route().add(route.message(index));
        match request.execute().await.map_err(kernel_error) {
            Err(e) if e.raw_os_error() == Some(libc::EEXIST) => Ok(()),
            other => other,
        }
    }

    /// Removes a route out of a link. No error when it is gone already.
    pub async fn delete_route(&self, index: u32, route: &Route) -> io::Result<()> {
        gone_is_fine(self.handle.route().del(route.message(index)).execute().await.map_err(kernel_error))
    }

    /// How packets to `remote` leave (from `local`, if that is given), as routes stand now.
    pub async fn route_to(&self, remote: IpAddr, local: Option<IpAddr>) -> io::Result<Way> {
        let mut question = RouteMessage::default();
        let bits = if remote.is_ipv4() { 32 } else { 128 };
        question.header.address_family = family(remote);
        question.header.destination_prefix_length = bits;
        question.attributes.push(RouteAttribute::Destination(remote.into()));
        if let Some(local) = local {
            question.header.source_prefix_length = bits;
            question.attributes.push(RouteAttribute::Source(local.into()));
        }
        let mut answers = self.handle.route().get(question).execute();
        let answer = answers.try_next().await.map_err(kernel_error)?;
        let Some(answer) = answer else { return Err(io::Error::from_raw_os_error(libc::ENETUNREACH)) };
        let mut way = Way::default();
        for attribute in answer.attributes {
            match attribute {
                RouteAttribute::Oif(index) => way.link = index,
                RouteAttribute::PrefSource(a) => way.source = ip(&a),
                RouteAttribute::Gateway(a) => way.gateway = ip(&a),
                RouteAttribute::Metrics(metrics) => {
                    let mtu = |m| if let RouteMetric::Mtu(mtu) = m { Some(mtu) } else { None };
                    way.mtu = metrics.into_iter().find_map(mtu);
                }
                _ => {}
            }
        }
        Ok(way)
    }

    /// IPv4 hosts on all links whose Ethernet addresses the kernel knows.
    pub async fn neighbours(&self) -> io::Result<Vec<Neighbour>> {
        let request = self.handle.neighbours().get().set_address_family(AddressFamily::Inet);
        let all: Vec<NeighbourMessage> = request.execute().try_collect().await.map_err(kernel_error)?;
        Ok(all.iter().filter_map(neighbour).collect())
    }

    /// Has the kernel find out whether a neighbour is still there, as it does when it sends to one itself.
    pub async fn confirm_neighbour(&self, link: u32, ip: IpAddr) -> io::Result<()> {
        let request = self.handle.neighbours().add(link, ip).state(NeighbourState::None);
        request.flags(NeighbourFlags::Use).replace().execute().await.map_err(kernel_error)
    }
}

/// How packets leave for an address.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Way {
    /// Index of the link.
    pub link: u32,
    /// The address they leave from.
    pub source: Option<IpAddr>,
    /// The MTU that the route has or that the kernel has learned for it; None: the link's.
    pub mtu: Option<u32>,
    /// The router that they go to first; None: the far end is on the link.
    pub gateway: Option<IpAddr>,
}

/// A host on a link whose Ethernet address the kernel knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Neighbour {
    /// Index of the link.
    pub link: u32,
    /// Its IP address.
    pub ip: IpAddr,
    /// Its Ethernet address.
    pub mac: [u8; 6],
    /// It has not been heard of for a while, so the address may be another's by now.
    pub stale: bool,
}

/// What a new link shall be like.
#[derive(Debug, Clone, Copy)]
pub struct NewLink<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its Ethernet address.
    pub mac: [u8; 6],
    /// Its MTU in bytes.
    pub mtu: u32,
}

impl NewLink<'_> {
    fn attributes(&self) -> LinkMessageBuilder<LinkUnspec> {
        LinkMessageBuilder::<LinkUnspec>::new()
            .name(self.name)
            .mtu(self.mtu)
            .address(self.mac.to_vec())
            .arp(false)
    }
}

/// A route as `underpass attach` and `migrate` remember it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Route {
    /// Destination; None is the default route of its family.
    pub to: Option<String>,
    /// Next hop.
    pub via: Option<IpAddr>,
    /// Preferred source.
    pub src: Option<IpAddr>,
    /// IPv6, for a route with neither destination nor next hop.
    pub v6: bool,
    /// Priority.
    pub metric: Option<u32>,
    /// Table.
    pub table: u32,
    /// Who made it (rtm_protocol).
    pub protocol: u8,
    /// Its scope (rtm_scope).
    pub scope: u8,
    /// The next hop is on the link, whatever other routes say.
    #[serde(default)]
    pub on_link: bool,
    /// What it has that is not kept, in words.
    #[serde(default)]
    pub lacks: Option<String>,
}

impl Route {
    /// The route in `message` if it is a unicast route that leaves by link `index` and was made by somebody.
    fn of_link(message: &RouteMessage, index: u32) -> Option<Route> {
        let header = &message.header;
        let mut route = Route {
            to: None,
            via: None,
            src: None,
            v6: header.address_family == AddressFamily::Inet6,
            metric: None,
            table: header.table.into(),
            protocol: header.protocol.into(),
            scope: header.scope.into(),
            on_link: header.flags.contains(RouteFlags::Onlink),
            lacks: None,
        };
        let mut out = 0;
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Oif(i) => out = *i,
                RouteAttribute::Table(t) => route.table = *t,
                RouteAttribute::Priority(m) => route.metric = Some(*m),
                RouteAttribute::Destination(a) => {
                    route.to = Some(format!("{}/{}", ip(a)?, header.destination_prefix_length));
                }
                RouteAttribute::Gateway(a) => route.via = Some(ip(a)?),
                RouteAttribute::PrefSource(a) => route.src = Some(ip(a)?),
                RouteAttribute::Metrics(_) => route.lacks = Some("metrics".into()),
                RouteAttribute::Via(_) => route.lacks = Some("a next hop of the other family".into()),
                RouteAttribute::EncapType(_) => route.lacks = Some("an encapsulation".into()),
                RouteAttribute::MultiPath(hops) if hops.iter().any(|hop| hop.interface_index == index) => {
                    out = index;
                    route.lacks = Some("several next hops".into());
                }
                _ => {}
            }
        }
        let made = !matches!(header.protocol, RouteProtocol::Kernel | RouteProtocol::Ra);
        (out == index && made && header.kind == RouteType::Unicast).then_some(route)
    }

    /// Whether it can be added as it is kept here. Metrics it can do without.
    pub fn is_usable(&self) -> bool {
        self.lacks.as_deref().is_none_or(|lacks| lacks == "metrics")
    }

    fn message(&self, index: u32) -> RouteMessage {
        let mut message = RouteMessage::default();
        message.header.flags.set(RouteFlags::Onlink, self.on_link);
        message.header.address_family = if self.v6 { AddressFamily::Inet6 } else { AddressFamily::Inet };
        message.header.protocol = self.protocol.into();
        message.header.scope = self.scope.into();
        message.header.kind = RouteType::Unicast;
        let attributes = &mut message.attributes;
        attributes.push(RouteAttribute::Oif(index));
        attributes.push(RouteAttribute::Table(self.table));
        if let Some(Ok(to)) = self.to.as_ref().map(|t| t.parse::<Address>()) {
            message.header.destination_prefix_length = to.prefix;
            attributes.push(RouteAttribute::Destination(to.ip.into()));
        }
        attributes.extend(self.via.map(|a| RouteAttribute::Gateway(a.into())));
        attributes.extend(self.src.map(|a| RouteAttribute::PrefSource(a.into())));
        attributes.extend(self.metric.map(RouteAttribute::Priority));
        message
    }
}

/// What has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// Routes only.
    Routes,
    /// Links or addresses.
    Links,
}

/// Tells when links, addresses or routes have changed.
pub struct Monitor {
    messages: Pin<Box<dyn Stream<Item = Change> + Send>>,
    _connection: Task,
}

impl std::fmt::Debug for Monitor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Monitor")
    }
}

impl Monitor {
    /// Starts to listen. Must be called inside a tokio runtime.
    pub fn open() -> io::Result<Monitor> {
        use MulticastGroup::{Ipv4Ifaddr, Ipv4Route, Ipv6Ifaddr, Ipv6Route, Link};
        let groups = [Link, Ipv4Ifaddr, Ipv6Ifaddr, Ipv4Route, Ipv6Route];
        let (connection, _, messages) = rtnetlink::new_multicast_connection(&groups)?;
        let connection = Task(tokio::spawn(connection));
        let messages = messages.map(|(message, _)| match message.payload {
            NetlinkPayload::InnerMessage(
                RouteNetlinkMessage::NewRoute(_) | RouteNetlinkMessage::DelRoute(_),
            ) => Change::Routes,
            // Also when the kernel says that it had more to say than there was room for
            _ => Change::Links,
        });
        Ok(Monitor { messages: Box::pin(messages), _connection: connection })
    }

    /// Waits for a change. Never returns if the socket has failed.
    pub async fn changed(&mut self) -> Change {
        match self.messages.next().await {
            Some(change) => change,
            None => std::future::pending().await,
        }
    }

    /// Takes all that has been announced by now.
    pub fn drain(&mut self) -> Option<Change> {
        let mut most = None;
        while let Some(Some(change)) = self.messages.next().now_or_never() {
            most = most.max(Some(change));
        }
        most
    }
}

fn link(message: LinkMessage) -> Link {
    let flags = message.header.flags;
    let mut link = Link {
        index: message.header.index,
        up: flags.contains(LinkFlags::Up),
        carrier: flags.contains(LinkFlags::LowerUp),
        ..Link::default()
    };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::IfAlias(alias) => link.alias = alias,
            LinkAttribute::Address(mac) => link.mac = mac.try_into().unwrap_or_default(),
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            LinkAttribute::Controller(master) => link.master = master,
            LinkAttribute::Link(below) => link.below = below,
            LinkAttribute::CarrierChanges(n) => link.carrier_changes = n,
            LinkAttribute::LinkInfo(infos) => {
                for info in infos {
                    match info {
                        LinkInfo::Kind(kind) => link.kind = kind.to_string(),
                        // a VXLAN device names the one below in words of its own
                        LinkInfo::Data(InfoData::Vxlan(words)) => {
                            let below = |w: &InfoVxlan| {
                                if let InfoVxlan::Link(below) = w { Some(*below) } else { None }
                            };
                            link.below = words.iter().find_map(below).unwrap_or(link.below);
                        }
                        _ => {}
                    }
                }
            }
            LinkAttribute::Stats64(s) => {
                link.stats = LinkStats {
                    rx_packets: s.rx_packets,
                    rx_bytes: s.rx_bytes,
                    rx_errors: s.rx_errors,
                    rx_dropped: s.rx_dropped,
                    rx_multicast_packets: s.multicast,
                    rx_over_err: s.rx_over_errors,
                    rx_crc_err: s.rx_crc_errors,
                    rx_frame_err: s.rx_frame_errors,
                    rx_missed_errors: s.rx_missed_errors,
                    tx_packets: s.tx_packets,
                    tx_bytes: s.tx_bytes,
                    tx_errors: s.tx_errors,
                    tx_dropped: s.tx_dropped,
                    collisions: s.collisions,
                };
            }
            _ => {}
        }
    }
    link
}

fn neighbour(message: &NeighbourMessage) -> Option<Neighbour> {
    use NeighbourState::{Delay, Noarp, Permanent, Probe, Reachable, Stale};
    let state = message.header.state;
    let (mut ip, mut mac) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(a)) => ip = Some((*a).into()),
            NeighbourAttribute::LinkLayerAddress(a) => mac = a.as_slice().try_into().ok(),
            _ => {}
        }
    }
    let known = matches!(state, Delay | Noarp | Permanent | Probe | Reachable | Stale);
    known.then_some(Neighbour { link: message.header.ifindex, ip: ip?, mac: mac?, stale: state == Stale })
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

fn family(ip: IpAddr) -> AddressFamily {
    if ip.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(a) => Some((*a).into()),
        RouteAddress::Inet6(a) => Some((*a).into()),
        _ => None,
    }
}

fn kernel_error(error: rtnetlink::Error) -> io::Error {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io(),
        other => io::Error::other(other),
    }
}

fn gone_is_fine(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENODEV | libc::ESRCH | libc::ENXIO)) => Ok(()),
        other => other,
    }
}
