//! What the tests of this module share: packets that etherparse makes, a sink that keeps frames, and checksums as two
//! other implementations see them.

use std::net::{Ipv4Addr, Ipv6Addr};

use etherparse::{
    DoubleVlanHeader, EtherType, IpFragOffset, IpHeaders, IpNumber, Ipv4Header, Ipv6FlowLabel, Ipv6Header,
    NetSlice, PacketBuilder, SingleVlanHeader, SlicedPacket, TcpHeader, TransportSlice, UdpHeader,
    VlanHeader, VlanId,
};
use pnet_packet::icmp::IcmpPacket;
use pnet_packet::icmpv6::Icmpv6Packet;
use pnet_packet::tcp::TcpPacket;
use pnet_packet::udp::UdpPacket;
use proptest::prelude::*;

use crate::offload::FrameSink;
use crate::vnet::{F_NEEDS_CSUM, GSO_ECN, GSO_NONE, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, VnetHdr};
use crate::wire::checksum::pseudo;
use crate::wire::{Ip, parse, put16, tcp, udp};

pub const A: [u8; 6] = [2, 0, 0, 0, 0, 0xa];
pub const B: [u8; 6] = [2, 0, 0, 0, 0, 0xb];

/// Keeps what it is given, as long as there is room.
#[derive(Debug)]
pub struct Frames {
    pub frames: Vec<Vec<u8>>,
    pub room: usize,
}

impl Frames {
    pub fn new() -> Frames {
        Frames { frames: Vec::new(), room: usize::MAX }
    }
}

impl FrameSink for Frames {
    fn slot(&mut self, len: usize) -> Option<&mut [u8]> {
        if self.frames.len() == self.room {
            return None;
        }
        // what is not overwritten shows
        self.frames.push(vec![0xee; len]);
        self.frames.last_mut().map(Vec::as_mut_slice)
    }
}

/// Bytes that repeat nowhere near.
pub fn payload(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..len).map(|_| next()).collect()
}

/// A TCP or UDP packet to be made.
#[derive(Debug, Clone)]
pub struct Spec {
    pub v6: bool,
    pub tcp: bool,
    /// VLAN tags, none to two.
    pub tags: usize,
    pub df: bool,
    pub id: u16,
    pub tos: u8,
    pub seq: u32,
    pub flags: u8,
    /// TCP options, a multiple of 4 bytes, or IPv4 options with UDP.
    pub options: Vec<u8>,
    pub len: usize,
    pub seed: u64,
}

/// TCP data packets and UDP datagrams with up to `max` payload bytes.
pub fn spec(max: usize) -> impl Strategy<Value = Spec> {
    let tcp_options = prop_oneof![
        Just(vec![]),
        any::<[u8; 8]>().prop_map(|stamp| [&[1, 1, 8, 10][..], &stamp].concat()),
        Just(vec![1, 1, 1, 0]),
    ];
    let flags = any::<u8>().prop_map(|flags| (flags & !(tcp::SYN | tcp::RST | tcp::URG)) | tcp::ACK);
    (any::<(bool, bool, bool, u16, u8, u32)>(), 0usize..3, flags, tcp_options, 1usize..max, any::<u64>())
        .prop_map(|((v6, tcp, df, id, tos, seq), tags, flags, options, len, seed)| {
            let options = if tcp { options } else { vec![] };
            Spec { v6, tcp, tags, df, id, tos, seq, flags, options, len, seed }
        })
}

/// [`spec`] of TCP only.
pub fn tcp_spec(max: usize) -> impl Strategy<Value = Spec> {
    spec(max).prop_map(|spec| Spec { tcp: true, ..spec })
}

/// [`spec`] of UDP only.
pub fn udp_spec(max: usize) -> impl Strategy<Value = Spec> {
    spec(max).prop_map(|spec| Spec { tcp: false, options: vec![], ..spec })
}

impl Spec {
    /// A TCP packet over IPv4 with DF, whose sequence number is about to wrap.
    pub fn tcp(len: usize) -> Spec {
        Spec {
            v6: false,
            tcp: true,
            tags: 0,
            df: true,
            id: 100,
            tos: 0,
            seq: u32::MAX - 1000,
            flags: tcp::ACK,
            options: vec![],
            len,
            seed: 11,
        }
    }

    /// A UDP packet over IPv4 with DF.
    pub fn udp(len: usize) -> Spec {
        Spec { tcp: false, ..Spec::tcp(len) }
    }

    pub fn payload(&self) -> Vec<u8> {
        payload(self.len, self.seed)
    }

    /// The frame, complete.
    pub fn frame(&self) -> Vec<u8> {
        let tag = |vid, ether_type| SingleVlanHeader {
            pcp: etherparse::VlanPcp::ZERO,
            drop_eligible_indicator: false,
            vlan_id: VlanId::try_new(vid).unwrap(),
            ether_type,
        };
        let eth = PacketBuilder::ethernet2(A, B);
        let ip = match self.tags {
            0 => eth.ip(self.ip()),
            1 => eth.vlan(VlanHeader::Single(tag(5, EtherType(0)))).ip(self.ip()),
            _ => {
                let (outer, inner) = (tag(7, EtherType::VLAN_TAGGED_FRAME), tag(5, EtherType(0)));
                eth.vlan(VlanHeader::Double(DoubleVlanHeader { outer, inner })).ip(self.ip())
            }
        };
        let mut frame = Vec::new();
        if self.tcp {
            let mut header = TcpHeader::new(40000, 80, self.seq, 513);
            header.acknowledgment_number = 77;
            header.set_options_raw(&self.options).unwrap();
            ip.tcp_header(header).write(&mut frame, &self.payload()).unwrap();
            let ip = ip_of(&frame);
            frame[ip.l4 + 13] = self.flags;
            put16(&mut frame, ip.l4 + tcp::CHECKSUM, 0);
            let sum = pnet_tcp_checksum(&frame, &ip);
            put16(&mut frame, ip.l4 + tcp::CHECKSUM, sum);
        } else {
            ip.udp(40000, 53).write(&mut frame, &self.payload()).unwrap();
        }
        frame
    }

    fn ip(&self) -> IpHeaders {
        if self.v6 {
            let header = Ipv6Header {
                traffic_class: self.tos,
                flow_label: Ipv6FlowLabel::try_new(u32::from(self.id)).unwrap(),
                payload_length: 0,
                next_header: IpNumber(0),
                hop_limit: 63,
                source: [0xfd; 16],
                destination: [0xfe; 16],
            };
            return IpHeaders::Ipv6(header, Default::default());
        }
        let mut header = Ipv4Header::new(0, 63, IpNumber(0), [10, 0, 11, 2], [10, 0, 42, 2]).unwrap();
        header.identification = self.id;
        header.dont_fragment = self.df;
        header.more_fragments = false;
        header.fragment_offset = IpFragOffset::ZERO;
        (header.dscp, header.ecn) = ((self.tos >> 2).try_into().unwrap(), (self.tos & 3).try_into().unwrap());
        if !self.tcp {
            header.options = self.options.as_slice().try_into().unwrap();
        }
        IpHeaders::Ipv4(header, Default::default())
    }

    /// The frame as a container's kernel hands it out: with a partial checksum, and as a superframe when `gso_size` is
    /// not 0.
    pub fn offloaded(&self, gso_size: u16) -> (Vec<u8>, VnetHdr) {
        let mut frame = self.frame();
        let ip = ip_of(&frame);
        let offset = if self.tcp { tcp::CHECKSUM } else { udp::CHECKSUM };
        let partial = pseudo(ip.addresses(&frame), ip.proto, ip.end - ip.l4).fold();
        put16(&mut frame, ip.l4 + offset, partial);
        let gso_type = match (gso_size, self.tcp, self.v6) {
            (0, ..) => GSO_NONE,
            (_, false, _) => GSO_UDP_L4,
            (_, _, v6) => {
                let ecn = if self.flags & tcp::CWR != 0 { GSO_ECN } else { 0 };
                ecn | if v6 { GSO_TCPV6 } else { GSO_TCPV4 }
            }
        };
        let vnet = VnetHdr {
            flags: F_NEEDS_CSUM,
            gso_type,
            hdr_len: 0.into(),
            gso_size: gso_size.into(),
            csum_start: (ip.l4 as u16).into(),
            csum_offset: (offset as u16).into(),
        };
        (frame, vnet)
    }
}

pub fn ip_of(frame: &[u8]) -> Ip {
    parse(frame).unwrap().ip.unwrap()
}

pub fn tcp_of(frame: &[u8]) -> TcpHeader {
    match SlicedPacket::from_ethernet(frame).unwrap().transport {
        Some(TransportSlice::Tcp(tcp)) => tcp.to_header(),
        other => panic!("{other:?}"),
    }
}

pub fn udp_of(frame: &[u8]) -> UdpHeader {
    match SlicedPacket::from_ethernet(frame).unwrap().transport {
        Some(TransportSlice::Udp(udp)) => udp.to_header(),
        other => panic!("{other:?}"),
    }
}

pub fn ipv4_of(frame: &[u8]) -> Ipv4Header {
    match SlicedPacket::from_ethernet(frame).unwrap().net {
        Some(NetSlice::Ipv4(ip)) => ip.header().to_header(),
        other => panic!("{other:?}"),
    }
}

/// What stands behind the transport header, padding not included.
pub fn payload_of(frame: &[u8]) -> &[u8] {
    match SlicedPacket::from_ethernet(frame).unwrap().transport {
        Some(TransportSlice::Tcp(tcp)) => tcp.payload(),
        Some(TransportSlice::Udp(udp)) => udp.payload(),
        other => panic!("{other:?}"),
    }
}

/// Every checksum in the frame is right, etherparse and pnet say.
#[track_caller]
pub fn assert_checksums(frame: &[u8]) {
    let packet = SlicedPacket::from_ethernet(frame).unwrap();
    assert!(packet.ip_payload().is_some() || packet.transport.is_none());
    let ip = ip_of(frame);
    if packet.net.as_ref().is_some_and(NetSlice::is_ipv4) {
        let header = ipv4_of(frame);
        assert_eq!(header.header_checksum, header.calc_header_checksum(), "IPv4 header");
        let theirs =
            pnet_packet::ipv4::checksum(&pnet_packet::ipv4::Ipv4Packet::new(&frame[ip.l3..ip.end]).unwrap());
        assert_eq!(header.header_checksum, theirs, "IPv4 header, pnet");
    }
    let l4 = &frame[ip.l4..ip.end];
    match packet.transport {
        Some(TransportSlice::Tcp(tcp)) => {
            let expected = match &packet.net {
                Some(NetSlice::Ipv4(ip)) => {
                    tcp.calc_checksum_ipv4(ip.header().source(), ip.header().destination())
                }
                Some(NetSlice::Ipv6(ip)) => {
                    tcp.calc_checksum_ipv6(ip.header().source(), ip.header().destination())
                }
                other => panic!("{other:?}"),
            };
            assert_eq!(tcp.checksum(), expected.unwrap(), "TCP");
            assert_eq!(tcp.checksum(), pnet_tcp_checksum(frame, &ip), "TCP, pnet");
        }
        Some(TransportSlice::Udp(udp)) => {
            let expected = match &packet.net {
                Some(NetSlice::Ipv4(ip)) => {
                    udp.to_header().calc_checksum_ipv4(&ip.header().to_header(), udp.payload())
                }
                Some(NetSlice::Ipv6(ip)) => {
                    udp.to_header().calc_checksum_ipv6(&ip.header().to_header(), udp.payload())
                }
                other => panic!("{other:?}"),
            };
            assert_eq!(udp.checksum(), expected.unwrap(), "UDP");
            let packet = UdpPacket::new(l4).unwrap();
            let theirs = match addresses(frame, &ip) {
                Addresses::V4(src, dst) => pnet_packet::udp::ipv4_checksum(&packet, &src, &dst),
                Addresses::V6(src, dst) => pnet_packet::udp::ipv6_checksum(&packet, &src, &dst),
            };
            assert!(udp.checksum() == theirs || (udp.checksum() == 0xffff && theirs == 0), "UDP, pnet");
        }
        Some(TransportSlice::Icmpv4(icmp)) => {
            assert_eq!(icmp.checksum(), pnet_packet::icmp::checksum(&IcmpPacket::new(l4).unwrap()), "ICMP");
        }
        Some(TransportSlice::Icmpv6(icmp)) => {
            let Addresses::V6(src, dst) = addresses(frame, &ip) else { panic!("ICMPv6 over IPv4") };
            assert!(icmp.is_checksum_valid(src.octets(), dst.octets()), "ICMPv6");
            let theirs = pnet_packet::icmpv6::checksum(&Icmpv6Packet::new(l4).unwrap(), &src, &dst);
            assert_eq!(icmp.checksum(), theirs, "ICMPv6, pnet");
        }
        _ => assert!(ip.later_fragment || ip.fragment, "nothing checked"),
    }
}

enum Addresses {
    V4(Ipv4Addr, Ipv4Addr),
    V6(Ipv6Addr, Ipv6Addr),
}

fn addresses(frame: &[u8], ip: &Ip) -> Addresses {
    let both = ip.addresses(frame);
    let (src, dst) = both.split_at(both.len() / 2);
    match (<[u8; 4]>::try_from(src), <[u8; 4]>::try_from(dst)) {
        (Ok(src), Ok(dst)) => Addresses::V4(src.into(), dst.into()),
        _ => {
            let octets = |part: &[u8]| <[u8; 16]>::try_from(part).unwrap();
            Addresses::V6(octets(src).into(), octets(dst).into())
        }
    }
}

fn pnet_tcp_checksum(frame: &[u8], ip: &Ip) -> u16 {
    let packet = TcpPacket::new(&frame[ip.l4..ip.end]).unwrap();
    match addresses(frame, ip) {
        Addresses::V4(src, dst) => pnet_packet::tcp::ipv4_checksum(&packet, &src, &dst),
        Addresses::V6(src, dst) => pnet_packet::tcp::ipv6_checksum(&packet, &src, &dst),
    }
}

/// Puts IPv4 fragments together again, RFC 791 section 3.2: the payload, and whether all of it was there.
pub fn reassemble(frames: &[Vec<u8>]) -> (Vec<u8>, bool) {
    let mut parts: Vec<(usize, bool, Vec<u8>)> = frames
        .iter()
        .map(|frame| {
            let (header, ip) = (ipv4_of(frame), ip_of(frame));
            (
                usize::from(header.fragment_offset.byte_offset()),
                header.more_fragments,
                frame[ip.l4..ip.end].to_vec(),
            )
        })
        .collect();
    parts.sort();
    let (mut data, mut complete) = (Vec::new(), false);
    for (offset, more, part) in parts {
        assert_eq!(offset, data.len(), "a gap or an overlap");
        assert!(!complete, "data behind the last fragment");
        assert!(!more || part.len() % 8 == 0);
        data.extend(part);
        complete = !more;
    }
    (data, complete)
}
