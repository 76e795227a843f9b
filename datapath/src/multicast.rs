//! Multicast snooping (RFC 4541): which ports hear a group. What workers go by; who joins and leaves is control's to know.

use std::collections::HashMap;
use std::net::Ipv6Addr;

use crate::mirror::PortSet;
use crate::snapshot::PortId;
use crate::wire::ethernet;
use crate::wire::membership::{self, Kind};
use crate::wire::parse::{Ip, Link};

/// The groups of a bridge.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Groups {
    /// Who hears a group, by VLAN and address; IPv4 addresses are mapped.
    pub members: HashMap<(u16, Ipv6Addr), PortSet, foldhash::fast::RandomState>,
    /// Ports that routers are behind, by VLAN.
    pub routers: HashMap<u16, PortSet, foldhash::fast::RandomState>,
    /// Ports that hear every group.
    pub flood: PortSet,
    /// Ports that hear who joins and leaves.
    pub reports: PortSet,
    /// What nobody has joined goes to all ports.
    pub flood_unregistered: bool,
}

/// Whom a frame is for, of those that a flood reaches.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Audience<'a> {
    /// All of them.
    #[default]
    All,
    /// Ports in at least one of these sets.
    Some([Option<&'a PortSet>; 3]),
}

impl Audience<'_> {
    /// Whether the port is among them.
    #[inline]
    pub fn has(&self, port: PortId) -> bool {
        match self {
            Audience::All => true,
            Audience::Some(sets) => sets.iter().flatten().any(|set| set.contains(port)),
        }
    }
}

/// What is to be done with a frame to a group address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Told<'a> {
    /// Whom it is for.
    pub audience: Audience<'a>,
    /// It tells who hears what: control is to have a copy.
    pub membership: bool,
}

impl Groups {
    /// Looks at a frame in VLAN `vlan` behind no more than `tags` tags.
    ///
    /// Reports go to routers alone, lest hosts that hear them keep theirs back (RFC 4541 2.1.1); what routers ask goes to
    /// all, and so does what is for the link itself (2.1.2). What is not IP is not looked into.
    pub fn look(&self, frame: &[u8], link: &Link, tags: usize, vlan: u16) -> Told<'_> {
        let told = |audience, membership| Told { audience, membership };
        let is_ip = matches!(link.ethertype, ethernet::IPV4 | ethernet::IPV6);
        if !is_ip || link.dst == ethernet::BROADCAST || link.len > ethernet::HEADER + tags * ethernet::TAG {
            return told(Audience::All, false);
        }
        let routers = self.routers.get(&vlan);
        let ip = Ip::parse(frame, link);
        match ip.and_then(|ip| membership::kind(frame, &ip)) {
            Some(Kind::Report) => return told(Audience::Some([routers, Some(&self.reports), None]), true),
            Some(Kind::Query) => return told(Audience::All, true),
            Some(Kind::Other) => return told(Audience::All, false),
            None => {}
        }
        let group = ip.and_then(|ip| membership::destination(frame, &ip));
        if group.is_some_and(is_for_the_link) {
            return told(Audience::All, false);
        }
        let members = group.and_then(|group| self.members.get(&(vlan, group)));
        if members.is_none() && self.flood_unregistered {
            return told(Audience::All, false);
        }
        told(Audience::Some([members, routers, Some(&self.flood)]), false)
    }
}

/// 224.0.0.0/24, which nobody need join (RFC 4541 2.1.2), and all nodes of IPv6.
fn is_for_the_link(group: Ipv6Addr) -> bool {
    match group.to_ipv4_mapped() {
        Some(v4) => matches!(v4.octets(), [224, 0, 0, _]),
        None => group == Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1),
    }
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;

    use super::*;

    const HOST: [u8; 6] = [2, 0, 0, 0, 0, 7];

    fn udp(dst: [u8; 4]) -> Vec<u8> {
        let mut frame = Vec::new();
        let ip = PacketBuilder::ethernet2(HOST, [1, 0, 0x5e, dst[1] & 0x7f, dst[2], dst[3]]);
        ip.ipv4([10, 0, 0, 7], dst, 1).udp(1, 2).write(&mut frame, b"hello").unwrap();
        frame
    }

    fn udp6(dst: Ipv6Addr) -> Vec<u8> {
        let mut frame = Vec::new();
        let [.., a, b, c, d] = dst.octets();
        let ip = PacketBuilder::ethernet2(HOST, [0x33, 0x33, a, b, c, d]);
        ip.ipv6([9; 16], dst.octets(), 1).udp(1, 2).write(&mut frame, b"hello").unwrap();
        frame
    }

    fn igmp(kind: u8) -> Vec<u8> {
        let mut frame = Vec::new();
        let ip = PacketBuilder::ethernet2(HOST, [1, 0, 0x5e, 0, 0, 1]).ipv4([10, 0, 0, 7], [224, 0, 0, 1], 1);
        ip.write(&mut frame, etherparse::IpNumber(2), &[kind, 0, 0, 0, 239, 0, 0, 1]).unwrap();
        frame
    }

    /// The ports that a frame in VLAN 7 is for, of four.
    fn hear(groups: &Groups, frame: &[u8]) -> (Vec<u16>, bool) {
        let told = groups.look(frame, &Link::parse(frame).unwrap(), 1, 7);
        ((0..4).filter(|id| told.audience.has(PortId(*id))).collect(), told.membership)
    }

    fn set(port: u16) -> PortSet {
        [PortId(port)].into_iter().collect()
    }

    #[test]
    fn who_hears_what() {
        let joined: Ipv6Addr = "ff0e::1:2".parse().unwrap();
        let mapped = std::net::Ipv4Addr::new(239, 0, 0, 1).to_ipv6_mapped();
        let mut groups = Groups {
            members: [((7, mapped), set(0)), ((7, joined), set(0))].into_iter().collect(),
            routers: [(7, set(1)), (8, set(3))].into_iter().collect(),
            flood: set(2),
            reports: set(3),
            flood_unregistered: true,
        };
        let all = vec![0, 1, 2, 3];
        for unregistered in [all.clone(), vec![1, 2]] {
            groups.flood_unregistered = unregistered == all;
            let told = |frame: &[u8]| hear(&groups, frame);
            assert_eq!(told(&udp([239, 0, 0, 1])), (vec![0, 1, 2], false));
            assert_eq!(told(&udp6(joined)), (vec![0, 1, 2], false));
            assert_eq!(told(&udp([239, 0, 0, 2])), (unregistered.clone(), false));
            assert_eq!(told(&udp6("ff02::fb".parse().unwrap())), (unregistered.clone(), false));
            assert_eq!(told(&udp([224, 0, 0, 251])), (all.clone(), false));
            assert_eq!(told(&udp6("ff02::1".parse().unwrap())), (all.clone(), false));
            for report in [0x12, 0x16, 0x17, 0x22] {
                assert_eq!(told(&igmp(report)), (vec![1, 3], true));
            }
            assert_eq!(told(&igmp(0x11)), (all.clone(), true));
            assert_eq!(told(&igmp(0x13)), (all.clone(), false));
            // nothing that snooping knows of: broadcasts, other protocols, what lies behind more tags
            let mut broadcast = udp([239, 0, 0, 2]);
            broadcast[..6].fill(0xff);
            let mut other = udp([239, 0, 0, 1]);
            other[12..14].copy_from_slice(&[0x88, 0xb5]);
            let tags = [0x81, 0, 0, 7].repeat(2);
            let deep = [&other[..12], &tags, &udp([239, 0, 0, 1])[12..]].concat();
            for frame in [&broadcast, &other, &deep] {
                assert_eq!(told(frame), (all.clone(), false));
            }
            let tagged = [&other[..12], &tags[..4], &udp([239, 0, 0, 1])[12..]].concat();
            assert_eq!(told(&tagged), (vec![0, 1, 2], false));
        }
    }
}
