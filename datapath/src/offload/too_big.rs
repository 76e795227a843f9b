//! Telling a sender that its packet does not fit: ICMP "fragmentation needed" (RFC 1191) and ICMPv6 "packet too big"
//! (RFC 8201).
//!
//! A switch has no address of its own to answer from. The answer's IP source is therefore the packet's destination:
//! whatever filter let the packet out lets the answer in, and every stack takes a host's own word about the path to it.

use zerocopy::{FromBytes, IntoBytes};

use crate::wire::checksum::{Sum, pseudo};
use crate::wire::ethernet::{self, is_group, is_source};
use crate::wire::icmp::{self, Icmp};
use crate::wire::ipv4::{self, Ipv4};
use crate::wire::ipv6::{self, Ipv6};
use crate::wire::{Ip, Link, Version, parse, proto};

/// Bytes of the longest frame that [`too_big`] makes.
pub const MAX_ANSWER: usize = ethernet::MAX_HEADER + MAX_V6;

/// Longest ICMP error packet over IPv4 (RFC 1812 section 4.3.2.3).
const MAX_V4: usize = 576;
/// Longest ICMPv6 error packet: what every link carries (RFC 4443 section 2.4 (c)).
const MAX_V6: usize = ipv6::MIN_MTU as usize;

/// DSCP of an error message: internetwork control (RFC 1812 section 4.3.2.5), class selector 6.
const TOS: u8 = 0xc0;
const TTL: u8 = 64;

/// Writes to `out` the frame that tells the sender of `frame` that IP packets may have `ip_mtu` bytes, and returns its
/// length. [`MAX_ANSWER`] bytes suffice; less quotes less of the packet.
///
/// None: `out` is too short for the headers, or the packet is one that no error may answer (RFC 1122 section 3.2.2, RFC 4443
/// section 2.4 (e)): an ICMP error, a fragment other than the first, to or from a group or an unspecified address.
///
/// IPv6 hosts disregard an MTU below 1280 (RFC 8201 section 4), so that is the least the answer says. Over a path with
/// less, IPv6 works only for what can be segmented.
pub fn too_big(frame: &[u8], ip_mtu: u16, out: &mut [u8]) -> Option<usize> {
    let parsed = parse(frame)?;
    let (link, ip) = (parsed.link, parsed.ip?);
    if !is_source(link.src) || is_group(link.dst) || ip.later_fragment || is_icmp_error(frame, &ip) {
        return None;
    }
    let max = match ip.version {
        Version::V4 => MAX_V4,
        Version::V6 => MAX_V6,
    };
    let len = out.len().min(link.len + max);
    let out = out.get_mut(..len)?;
    let body = turn_link(frame, &link, out)?;
    let packet = frame.get(ip.l3..ip.end)?;
    let len = match ip.version {
        Version::V4 => answer_v4(packet, ip_mtu, body)?,
        Version::V6 => answer_v6(packet, ip_mtu.max(ipv6::MIN_MTU), body)?,
    };
    Some(link.len + len)
}

fn is_icmp_error(frame: &[u8], ip: &Ip) -> bool {
    let kind = frame.get(..ip.end).and_then(|packet| packet.get(ip.l4)).copied();
    match (ip.version, ip.proto) {
        (Version::V4, proto::ICMP) => kind.is_none_or(icmp::is_error),
        (Version::V6, proto::ICMPV6) => kind.is_none_or(icmp::is_error_v6),
        _ => false,
    }
}

/// The Ethernet header back to where the frame came from, tags kept. Returns what is behind it.
fn turn_link<'a>(frame: &[u8], link: &Link, out: &'a mut [u8]) -> Option<&'a mut [u8]> {
    let (header, body) = out.split_at_mut_checked(link.len)?;
    header.copy_from_slice(frame.get(..link.len)?);
    let (eth, _) = ethernet::Ethernet::mut_from_prefix(header).ok()?;
    (eth.dst, eth.src) = (link.src, link.dst);
    Some(body)
}

fn answer_v4(packet: &[u8], mtu: u16, out: &mut [u8]) -> Option<usize> {
    let (offender, _) = Ipv4::ref_from_prefix(packet).ok()?;
    if !is_host_v4(offender.src) || !is_host_v4(offender.dst) {
        return None;
    }
    let (header, message) = out.split_at_mut_checked(ipv4::HEADER)?;
    let icmp = Icmp {
        kind: icmp::UNREACHABLE,
        code: icmp::FRAGMENTATION_NEEDED,
        checksum: 0.into(),
        mtu: u32::from(mtu).into(),
    };
    let len = write_message(icmp, Sum::ZERO, packet, message)?;
    let ip = Ipv4 {
        version_ihl: 0x45,
        tos: TOS,
        total_len: ((ipv4::HEADER + len) as u16).into(),
        // atomic (RFC 6864 section 4.1), so the identification means nothing
        id: 0.into(),
        fragment: ipv4::DF.into(),
        ttl: TTL,
        protocol: proto::ICMP,
        checksum: 0.into(),
        src: offender.dst,
        dst: offender.src,
    };
    ip.write_to(header).ok()?;
    ipv4::set_checksum(header);
    Some(ipv4::HEADER + len)
}

fn answer_v6(packet: &[u8], mtu: u16, out: &mut [u8]) -> Option<usize> {
    let (offender, _) = Ipv6::ref_from_prefix(packet).ok()?;
    if !is_host_v6(offender.src) || !is_host_v6(offender.dst) {
        return None;
    }
    let (header, message) = out.split_at_mut_checked(ipv6::HEADER)?;
    let len = message.len().min(icmp::HEADER + packet.len());
    let ip = Ipv6 {
        version_class_flow: (6 << 28 | u32::from(TOS) << 20).into(),
        payload_len: (len as u16).into(),
        next_header: proto::ICMPV6,
        hop_limit: TTL,
        src: offender.dst,
        dst: offender.src,
    };
    ip.write_to(header).ok()?;
    let addresses = header.get(ipv6::ADDRESSES)?;
    let icmp = Icmp { kind: icmp::PACKET_TOO_BIG, code: 0, checksum: 0.into(), mtu: u32::from(mtu).into() };
    write_message(icmp, pseudo(addresses, proto::ICMPV6, len), packet, message)?;
    Some(ipv6::HEADER + len)
}

/// The ICMP message with as much of the offending packet as `out` takes, checksum filled. `pseudo`: the pseudo header.
fn write_message(mut icmp: Icmp, pseudo: Sum, packet: &[u8], out: &mut [u8]) -> Option<usize> {
    let (header, quote) = out.split_first_chunk_mut::<{ icmp::HEADER }>()?;
    let len = quote.len().min(packet.len());
    let quoted = Sum::copy(packet.get(..len)?, quote.get_mut(..len)?);
    icmp.checksum.set((pseudo + Sum::of(icmp.as_bytes()) + quoted).checksum());
    *header = zerocopy::transmute!(icmp);
    Some(icmp::HEADER + len)
}

/// An address of one host: not "this network" (0/8), loopback, multicast, reserved or broadcast.
fn is_host_v4(address: [u8; 4]) -> bool {
    let [first, ..] = address;
    !matches!(first, 0 | 127 | 224..)
}

/// An address of one host: not unspecified, loopback or multicast.
fn is_host_v6(address: [u8; 16]) -> bool {
    let address = std::net::Ipv6Addr::from(address);
    !address.is_unspecified() && !address.is_loopback() && !address.is_multicast()
}

#[cfg(test)]
mod tests {
    use etherparse::icmpv4::DestUnreachableHeader;
    use etherparse::{Icmpv4Type, Icmpv6Type, PacketBuilder, SlicedPacket, TransportSlice};
    use proptest::prelude::*;

    use super::*;
    use crate::offload::testing::*;
    use crate::wire::put16;

    fn answer(frame: &[u8], ip_mtu: u16) -> Option<Vec<u8>> {
        let mut out = [0xee; MAX_ANSWER];
        too_big(frame, ip_mtu, &mut out).map(|len| out[..len].to_vec())
    }

    proptest! {
        #[test]
        fn answers_are_what_a_host_takes(spec in spec(3000), ip_mtu in 500u16..3000) {
            let frame = spec.frame();
            let original = ip_of(&frame);
            let answer = answer(&frame, ip_mtu).unwrap();
            assert_checksums(&answer);
            let (link, ip) = (parse(&answer).unwrap().link, ip_of(&answer));
            prop_assert_eq!((link.dst, link.src), (A, B));
            prop_assert_eq!(&answer[12..link.len], &frame[12..original.l3], "tags stay");
            let (sent, back) = (original.addresses(&frame), ip.addresses(&answer));
            let half = sent.len() / 2;
            prop_assert_eq!((&back[..half], &back[half..]), (&sent[half..], &sent[..half]));

            let packet = &frame[original.l3..];
            match SlicedPacket::from_ethernet(&answer).unwrap().transport.unwrap() {
                TransportSlice::Icmpv4(icmp) => {
                    let needed = DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: ip_mtu };
                    prop_assert_eq!(icmp.icmp_type(), Icmpv4Type::DestinationUnreachable(needed));
                    prop_assert_eq!(icmp.payload(), &packet[..packet.len().min(576 - 28)]);
                }
                TransportSlice::Icmpv6(icmp) => {
                    prop_assert_eq!(icmp.icmp_type(), Icmpv6Type::PacketTooBig { mtu: ip_mtu.max(1280).into() });
                    prop_assert_eq!(icmp.payload(), &packet[..packet.len().min(1280 - 48)]);
                }
                other => panic!("{other:?}"),
            }
            prop_assert!(super::too_big(&answer, 1000, &mut [0; MAX_ANSWER]).is_none(), "no answer to an answer");
        }

        #[test]
        fn any_bytes(mut frame in proptest::collection::vec(any::<u8>(), 0..120), room in 0usize..200,
                     kind in prop_oneof![Just([8u8, 0, 0x45]), Just([0x86, 0xdd, 0x60]), any::<[u8; 3]>()]) {
            if let Some(head) = frame.get_mut(12..15) {
                head.copy_from_slice(&kind);
            }
            let mut out = vec![0; room];
            if let Some(len) = too_big(&frame, 1400, &mut out) {
                prop_assert!(len <= room);
                assert_checksums(&out[..len]);
            }
        }
    }

    fn ping(src: [u8; 4], dst: [u8; 4]) -> Vec<u8> {
        let mut frame = Vec::new();
        PacketBuilder::ethernet2(A, B)
            .ipv4(src, dst, 64)
            .icmpv4_echo_request(1, 2)
            .write(&mut frame, &[7; 1472])
            .unwrap();
        frame
    }

    #[test]
    fn a_ping_of_1472_bytes() {
        let answer = answer(&ping([10, 0, 11, 2], [10, 0, 42, 2]), 1462).unwrap();
        assert_eq!(answer.len(), 14 + 576);
        assert_eq!(answer[14..34][..2], [0x45, 0xc0]);
        assert_eq!(answer[26..34], [10, 0, 42, 2, 10, 0, 11, 2]);
        assert_eq!(answer[34..42][..2], [3, 4]);
        assert_eq!(answer[38..42], [0, 0, 0x05, 0xb6]);
    }

    #[test]
    fn who_gets_no_answer() {
        let (a, b) = ([10, 0, 11, 2], [10, 0, 42, 2]);
        assert!(answer(&ping(a, b), 1400).is_some());
        for (src, dst) in [
            ([0, 0, 0, 0], b),
            ([127, 0, 0, 1], b),
            ([224, 0, 0, 1], b),
            ([255, 255, 255, 255], b),
            (a, [239, 1, 1, 1]),
            (a, [255, 255, 255, 255]),
        ] {
            assert_eq!(answer(&ping(src, dst), 1400), None, "{src:?} {dst:?}");
        }
        let changed = |change: &dyn Fn(&mut [u8])| {
            let mut frame = ping(a, b);
            change(&mut frame);
            answer(&frame, 1400)
        };
        assert_eq!(changed(&|frame| frame[0] |= 1), None, "to a group");
        assert_eq!(changed(&|frame| frame[6] |= 1), None, "from a group");
        assert_eq!(changed(&|frame| put16(frame, 20, 1)), None, "a later fragment");
        assert!(changed(&|frame| put16(frame, 20, 0x2000)).is_some(), "the first fragment");
        for error in [3, 4, 5, 11, 12] {
            assert_eq!(changed(&|frame| frame[34] = error), None, "ICMP type {error}");
        }
        assert_eq!(changed(&|frame| frame[12] = 9), None, "not IP");

        let mut v6 = Vec::new();
        PacketBuilder::ethernet2(A, B)
            .ipv6([1; 16], [2; 16], 64)
            .icmpv6_echo_request(1, 2)
            .write(&mut v6, &[7; 1452])
            .unwrap();
        assert!(answer(&v6, 1462).is_some());
        for (at, value, what) in [
            (54, 2, "an error"),
            (54, 137, "a redirect"),
            (38, 0xff, "to a group"),
            (22, 0xff, "from a group"),
        ] {
            let mut frame = v6.clone();
            frame[at] = value;
            assert_eq!(answer(&frame, 1462), None, "{what}");
        }
        let mut frame = v6;
        frame[22..38].fill(0);
        assert_eq!(answer(&frame, 1462), None, "unspecified source");
    }
}
