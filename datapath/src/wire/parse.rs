//! Where things are in a frame, in two steps: [`Link`] is the 14 to 18 bytes that switching needs, [`Ip`] what tunnels
//! and offloads need besides.

use zerocopy::FromBytes;

use super::ethernet::{self, Ethernet, Mac, Tci};
use super::ipv4::{self, Ipv4};
use super::ipv6::{self, Ipv6};

/// The Ethernet header, tags included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// Destination.
    pub dst: Mac,
    /// Source.
    pub src: Mac,
    /// The outermost VLAN tag, 802.1Q or 802.1ad.
    pub vlan: Option<Tci>,
    /// EtherType behind the tags.
    pub ethertype: u16,
    /// Offset behind header and tags, where the network header starts: 14, 18, … [`ethernet::MAX_HEADER`].
    pub len: usize,
}

/// The version of an IP packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Version {
    V4,
    V6,
}

/// An IP packet whose lengths agree with each other and with the frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ip {
    /// 4 or 6.
    pub version: Version,
    /// TOS or traffic class: DSCP in the upper six bits, ECN in the lower two.
    pub tos: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// Routers may not fragment it. Always so for IPv6.
    pub df: bool,
    /// One of several fragments.
    pub fragment: bool,
    /// A fragment, and not the first: what stands at `l4` is no transport header.
    pub later_fragment: bool,
    /// IPv6 only: a routing header has segments left, so the checksum's pseudo header has another destination.
    pub routed: bool,
    /// Where the packet starts.
    pub l3: usize,
    /// Where its payload starts, behind IPv4 options and IPv6 extension headers.
    pub l4: usize,
    /// What the payload is (see [`ipv6::Upper::proto`] for the odd cases).
    pub proto: u8,
    /// Where the packet ends. Behind it is Ethernet padding.
    pub end: usize,
}

/// All that is known of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parsed {
    /// The Ethernet header.
    pub link: Link,
    /// The IP packet. None: the frame carries something else, or an IP packet that is malformed.
    pub ip: Option<Ip>,
}

/// Both steps. None: shorter than an Ethernet header.
#[inline]
pub fn parse(frame: &[u8]) -> Option<Parsed> {
    let link = Link::parse(frame)?;
    Some(Parsed { link, ip: Ip::parse(frame, &link) })
}

impl Link {
    /// The Ethernet header of `frame`. None: the frame is shorter than that. A tag that is cut short is left as
    /// EtherType.
    #[inline]
    pub fn parse(frame: &[u8]) -> Option<Link> {
        let (eth, rest) = Ethernet::ref_from_prefix(frame).ok()?;
        let mut link = Link {
            dst: eth.dst,
            src: eth.src,
            vlan: None,
            ethertype: eth.ethertype.get(),
            len: ethernet::HEADER,
        };
        let tags = rest.as_chunks::<{ ethernet::TAG }>().0;
        for tag in tags.iter().take(ethernet::MAX_TAGS) {
            if !ethernet::is_tag(link.ethertype) {
                break;
            }
            let [tci_high, tci_low, type_high, type_low] = *tag;
            link.vlan = link.vlan.or(Some(Tci(u16::from_be_bytes([tci_high, tci_low]))));
            link.ethertype = u16::from_be_bytes([type_high, type_low]);
            link.len += ethernet::TAG;
        }
        Some(link)
    }
}

impl Ip {
    /// The IP packet in `frame`. None: it is no IP packet, or its lengths are wrong.
    #[inline]
    pub fn parse(frame: &[u8], link: &Link) -> Option<Ip> {
        match link.ethertype {
            ethernet::IPV4 => Self::parse_v4(frame, link.len),
            ethernet::IPV6 => Self::parse_v6(frame, link.len),
            _ => None,
        }
    }

    fn parse_v4(frame: &[u8], l3: usize) -> Option<Ip> {
        let packet = frame.get(l3..)?;
        let (ip, _) = Ipv4::ref_from_prefix(packet).ok()?;
        let (header, total) = (ip.header_len(), usize::from(ip.total_len.get()));
        if !ip.is_v4() || header < ipv4::HEADER || total < header || total > packet.len() {
            return None;
        }
        Some(Ip {
            version: Version::V4,
            tos: ip.tos,
            ttl: ip.ttl,
            df: ip.fragment.get() & ipv4::DF != 0,
            fragment: ip.is_fragment(),
            later_fragment: ip.fragment.get() & ipv4::OFFSET != 0,
            routed: false,
            l3,
            l4: l3 + header,
            proto: ip.protocol,
            end: l3 + total,
        })
    }

    fn parse_v6(frame: &[u8], l3: usize) -> Option<Ip> {
        let (ip, rest) = Ipv6::ref_from_prefix(frame.get(l3..)?).ok()?;
        let payload = rest.get(..usize::from(ip.payload_len.get()))?;
        if !ip.is_v6() {
            return None;
        }
        let upper = ipv6::walk(payload, ip.next_header);
        let start = l3 + ipv6::HEADER;
        Some(Ip {
            version: Version::V6,
            tos: ip.traffic_class(),
            ttl: ip.hop_limit,
            df: true,
            fragment: upper.fragment.is_some_and(|(offset, more)| offset != 0 || more),
            later_fragment: upper.fragment.is_some_and(|(offset, _)| offset != 0),
            routed: upper.routed,
            l3,
            l4: start + upper.offset,
            proto: upper.proto,
            end: start + payload.len(),
        })
    }

    /// Source and destination address as they stand in `frame`: 8 or 32 bytes.
    #[inline]
    pub fn addresses<'a>(&self, frame: &'a [u8]) -> &'a [u8] {
        let range = match self.version {
            Version::V4 => ipv4::ADDRESSES,
            Version::V6 => ipv6::ADDRESSES,
        };
        frame.get(self.l3 + range.start..self.l3 + range.end).unwrap_or(&[])
    }

    /// DSCP, without the ECN bits: in the upper six bits, as in a TOS field.
    #[inline]
    pub fn dscp(&self) -> u8 {
        self.tos & 0xfc
    }

    /// The ECN codepoint (RFC 3168): 0 not capable, 1 ECT(1), 2 ECT(0), 3 congestion experienced.
    #[inline]
    pub fn ecn(&self) -> u8 {
        self.tos & 0x03
    }
}

#[cfg(test)]
mod tests {
    use etherparse::{EtherType, PacketBuilder, SingleVlanHeader, SlicedPacket, TransportSlice, VlanId};
    use proptest::prelude::*;

    use super::*;
    use crate::wire::proto;

    const A: Mac = [2, 0, 0, 0, 0, 1];
    const B: Mac = [2, 0, 0, 0, 0, 2];

    #[test]
    fn arp_has_no_ip() {
        let mut frame = [0; 42];
        frame[..14].copy_from_slice(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 0x08, 0x06]);
        let link = Link { dst: [0xff; 6], src: A, vlan: None, ethertype: ethernet::ARP, len: 14 };
        assert_eq!(parse(&frame), Some(Parsed { link, ip: None }));
        assert_eq!(parse(&frame[..13]), None);
    }

    #[test]
    fn padding_is_not_payload() {
        let mut frame = Vec::new();
        PacketBuilder::ethernet2(A, B)
            .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 9)
            .udp(1, 2)
            .write(&mut frame, b"x")
            .unwrap();
        frame.resize(60, 0xee);
        let ip = parse(&frame).unwrap().ip.unwrap();
        assert_eq!((ip.l3, ip.l4, ip.end, ip.proto, ip.ttl, ip.df), (14, 34, 43, proto::UDP, 9, true));
    }

    #[test]
    fn tags() {
        let tag = |vid, next| SingleVlanHeader {
            pcp: etherparse::VlanPcp::ZERO,
            drop_eligible_indicator: false,
            vlan_id: VlanId::try_new(vid).unwrap(),
            ether_type: next,
        };
        let inner = [0x45, 0, 0, 20, 0, 0, 0x60, 0, 64, 6, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
        for (tpids, len) in [(&[0x8100u16][..], 18), (&[0x88a8, 0x8100], 22), (&[0x8100; 4], 30)] {
            let mut frame = [A, B].concat();
            frame.extend(tpids[0].to_be_bytes());
            for (i, _) in tpids.iter().enumerate() {
                let next = tpids.get(i + 1).map_or(EtherType::IPV4, |t| EtherType(*t));
                frame.extend(tag(100 + i as u16, next).to_bytes());
            }
            frame.extend(inner);
            let p = parse(&frame).unwrap();
            assert_eq!(
                (p.link.len, p.link.vlan.unwrap().vid(), p.link.ethertype),
                (len, 100, ethernet::IPV4)
            );
            let ip = p.ip.unwrap();
            assert_eq!(
                (ip.l3, ip.end, ip.df, ip.fragment, ip.later_fragment),
                (len, len + 20, true, true, false)
            );
        }
        // one tag too many, and a tag cut short
        let many = [&[0; 12][..], &[0x81, 0, 0, 1].repeat(5), &[0x08, 0]].concat();
        assert_eq!(parse(&many).map(|p| (p.link.ethertype, p.ip)), Some((ethernet::DOT1Q, None)));
        assert_eq!(
            Link::parse(&many[..16]).map(|l| (l.ethertype, l.vlan, l.len)),
            Some((ethernet::DOT1Q, None, 14))
        );
    }

    #[test]
    fn lengths_that_lie() {
        let eth = [&A[..], &B, &[0x08, 0x00]].concat();
        let good = [0x45, 0, 0, 20, 0, 0, 0, 0, 64, 6, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
        let ip_of = |header: &[u8]| parse(&[&eth[..], header].concat()).unwrap().ip;
        assert!(ip_of(&good).is_some());
        assert!(ip_of(&good[..19]).is_none());
        for (at, value) in [(0, 0x55), (0, 0x44), (0, 0x46), (3, 19), (3, 21), (2, 0xff)] {
            let mut bad = good;
            bad[at] = value;
            assert!(ip_of(&bad).is_none(), "byte {at} = {value}");
        }
    }

    proptest! {
        #[test]
        fn agrees_with_etherparse(v6 in any::<bool>(), vlan in any::<Option<u16>>(), tcp in any::<bool>(), ttl in any::<u8>(),
                                  ports in any::<(u16, u16)>(), payload in proptest::collection::vec(any::<u8>(), 0..90),
                                  padding in 0usize..20) {
            let eth = PacketBuilder::ethernet2(A, B);
            let mut frame = Vec::new();
            let vid = VlanId::try_new(vlan.unwrap_or(0) & 0xfff).unwrap();
            let ip = match (vlan.is_some(), v6) {
                (true, true) => eth.single_vlan(vid).ipv6([1; 16], [2; 16], ttl),
                (true, false) => eth.single_vlan(vid).ipv4([1; 4], [2; 4], ttl),
                (false, true) => eth.ipv6([1; 16], [2; 16], ttl),
                (false, false) => eth.ipv4([1; 4], [2; 4], ttl),
            };
            match tcp {
                true => ip.tcp(ports.0, ports.1, 7, 8).write(&mut frame, &payload).unwrap(),
                false => ip.udp(ports.0, ports.1).write(&mut frame, &payload).unwrap(),
            }
            let end = frame.len();
            frame.resize(end + padding, 0);

            let ours = parse(&frame).unwrap();
            let theirs = SlicedPacket::from_ethernet(&frame).unwrap();
            let ip = ours.ip.unwrap();
            let (l4, number) = match theirs.transport.unwrap() {
                TransportSlice::Tcp(s) => (s.slice(), proto::TCP),
                TransportSlice::Udp(s) => (s.slice(), proto::UDP),
                other => panic!("{other:?}"),
            };
            prop_assert_eq!(&frame[ip.l4..ip.end], l4);
            prop_assert_eq!((ip.proto, ip.ttl, ip.end, ip.version == Version::V6), (number, ttl, end, v6));
            prop_assert_eq!(ours.link.vlan.map(|t| t.vid()), vlan.map(|_| vid.value()));
            prop_assert_eq!((ours.link.dst, ours.link.src), (B, A));
            prop_assert_eq!(ip.addresses(&frame).len(), if v6 { 32 } else { 8 });
        }

        #[test]
        fn any_bytes(mut frame in proptest::collection::vec(any::<u8>(), 0..120),
                     kind in prop_oneof![Just([8u8, 0, 0x45]), Just([0x86, 0xdd, 0x60]), any::<[u8; 3]>()]) {
            if let Some(head) = frame.get_mut(12..15) {
                head.copy_from_slice(&kind);
            }
            if let Some(Parsed { link, ip: Some(ip) }) = parse(&frame) {
                prop_assert!(link.len == ip.l3 && ip.l3 < ip.l4 && ip.l4 <= ip.end && ip.end <= frame.len());
            }
        }
    }
}
