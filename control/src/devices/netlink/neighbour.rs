//! Hosts on links, by the kernel's own table of them.

use std::io;
use std::net::IpAddr;

use futures_util::TryStreamExt;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};

use super::{Netlink, kernel_error};

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

impl Netlink {
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
