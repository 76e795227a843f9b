//! Routes, and the way that packets take.

use std::io;
use std::net::IpAddr;

use futures_util::TryStreamExt;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteMetric, RouteProtocol, RouteType,
};

use super::{Address, Netlink, family, gone_is_fine, kernel_error};

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

impl Netlink {
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
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(a) => Some((*a).into()),
        RouteAddress::Inet6(a) => Some((*a).into()),
        _ => None,
    }
}
