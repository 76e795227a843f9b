//! TCP superframes inside another encapsulation: the VXLAN, GRE or IP-in-IP tunnel of a container.
//!
//! virtio_net_hdr has no word for these. The kernel tells of the TCP segment in them alone: the place of its partial
//! checksum is where it starts. Of the headers around it those nearest are known, the outer IP, and right before the
//! segment the inner IP; what stands between is the same in every packet, but for a length or checksum.

use zerocopy::FromBytes;

use crate::vnet::{GSO_TCPV4, GSO_TCPV6, VnetHdr};
use crate::wire::checksum::{Sum, pseudo};
use crate::wire::udp::Udp;
use crate::wire::{Ip, Link, ethernet, gre, ipv4, ipv6, parse, proto};

use super::segment::number_ip;

/// Whether the transport header that `vnet` means is none of the packet `ip` itself, but of one that it carries.
pub(super) fn is_nested(ip: &Ip, vnet: &VnetHdr) -> bool {
    vnet.needs_csum()
        && usize::from(vnet.csum_start.get()) > ip.l4
        && matches!(ip.proto, proto::UDP | proto::GRE | proto::IPV4 | proto::IPV6)
}

/// The inner IP packet of a TCP superframe that is nested. None: there is none where the offload header says.
pub(super) fn inner(frame: &[u8], vnet: &VnetHdr, kind: u8) -> Option<Ip> {
    let (ethertype, header) = match kind {
        GSO_TCPV4 => (ethernet::IPV4, ipv4::HEADER),
        GSO_TCPV6 => (ethernet::IPV6, ipv6::HEADER),
        _ => return None,
    };
    let l4 = usize::from(vnet.csum_start.get());
    let link = Link { ethertype, len: l4.checked_sub(header)?, ..parse(frame)?.link };
    let ip = Ip::parse(frame, &link)?;
    let found = (ip.proto, ip.l4, ip.end, ip.fragment) == (proto::TCP, l4, frame.len(), false);
    found.then_some(ip)
}

/// Makes the headers around packet `index` of a superframe its own: lengths, identification, checksums. `packet` is the
/// packet whole, all within it finished; `outer` what parsing said of the superframe.
pub(super) fn number_outer(packet: &mut [u8], outer: &Ip, index: usize) {
    let Some(len) = packet.len().checked_sub(outer.l4) else { return };
    number_ip(packet, outer, index, len);
    let addresses = pseudo(outer.addresses(packet), outer.proto, len);
    let Some(carrier) = packet.get_mut(outer.l4..) else { return };
    match outer.proto {
        proto::UDP => {
            let Ok((udp, _)) = Udp::mut_from_prefix(carrier) else { return };
            udp.len.set(len as u16);
            // 0: the tunnel does without
            if udp.checksum.get() != 0 {
                udp.checksum.set(0);
                let check = (addresses + Sum::of(carrier)).udp_checksum();
                crate::wire::put16(carrier, crate::wire::udp::CHECKSUM, check);
            }
        }
        proto::GRE => gre::fill_checksum(carrier),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;
    use proptest::prelude::*;

    use super::*;
    use crate::counters::DropReason;
    use crate::offload::testing::*;
    use crate::offload::{Fit, fit};
    use crate::vnet::{GSO_UDP_L4, VnetHdr};
    use crate::wire::put16;

    /// What the headers around the inner frame are.
    #[derive(Debug, Clone, Copy)]
    enum Outer {
        Vxlan { v6: bool, checksum: bool },
        Gre { checksum: bool },
        Ipip,
    }

    /// `inner` as the payload of a tunnel, as the kernel builds it.
    fn wrap(inner: &[u8], outer: Outer) -> Vec<u8> {
        let eth = PacketBuilder::ethernet2(A, B);
        let v4 = |eth: etherparse::PacketBuilderStep<etherparse::Ethernet2Header>| {
            eth.ipv4([10, 1, 0, 1], [10, 1, 0, 2], 63)
        };
        let mut frame = Vec::new();
        match outer {
            Outer::Vxlan { v6, checksum } => {
                let body = [&[8, 0, 0, 0, 0, 0, 5, 0][..], inner].concat();
                let ip = if v6 { eth.ipv6([1; 16], [2; 16], 63) } else { v4(eth) };
                ip.udp(50_000, 4789).write(&mut frame, &body).unwrap();
                if !checksum {
                    let at = ip_of(&frame).l4 + 6;
                    put16(&mut frame, at, 0);
                }
            }
            Outer::Gre { checksum } => {
                let header = gre::Gre { protocol: ethernet::TEB, checksum, key: Some(7), sequence: None };
                let mut body = vec![0; header.header_len()];
                header.encode(&mut body);
                body.extend(inner);
                gre::fill_checksum(&mut body);
                v4(eth).write(&mut frame, etherparse::IpNumber::GRE, &body).unwrap();
            }
            Outer::Ipip => {
                let body = &inner[ip_of(inner).l3..];
                let number = if ip_of(inner).version == crate::wire::Version::V4 { 4 } else { 41 };
                v4(eth).write(&mut frame, etherparse::IpNumber(number), body).unwrap();
            }
        }
        frame
    }

    fn outers() -> impl Strategy<Value = Outer> {
        prop_oneof![
            any::<(bool, bool)>().prop_map(|(v6, checksum)| Outer::Vxlan { v6, checksum: checksum || v6 }),
            any::<bool>().prop_map(|checksum| Outer::Gre { checksum }),
            Just(Outer::Ipip),
        ]
    }

    /// The superframe of `spec` inside a tunnel, its offload header, and how many bytes the tunnel added.
    fn superframe(spec: &Spec, outer: Outer, size: u16) -> (Vec<u8>, VnetHdr, usize) {
        let (inner, vnet) = spec.offloaded(size);
        let frame = wrap(&inner, outer);
        let more = frame.len() - inner.len();
        let start = vnet.csum_start.get() + more as u16;
        (frame, VnetHdr { csum_start: start.into(), ..vnet }, more)
    }

    proptest! {
        /// Each packet is the tunnel's around one that the inner superframe would have become without it.
        #[test]
        fn every_segment_is_wrapped_as_the_whole_was(spec in tcp_spec(20_000), outer in outers(), size in 500u16..1400) {
            prop_assume!(spec.len > usize::from(size));
            let tags = if matches!(outer, Outer::Ipip) { 0 } else { spec.tags };
            let spec = Spec { tags, ..spec };
            let (frame, vnet, more) = superframe(&spec, outer, size);
            let mut sink = Frames::new();
            prop_assert_eq!(fit(&frame, &vnet, 1476, &mut sink), Fit::Sent(sink.frames.len()));
            let mut without = Frames::new();
            let (inner, vnet) = spec.offloaded(size);
            fit(&inner, &vnet, 1476 - more, &mut without);
            prop_assert_eq!(sink.frames.len(), without.frames.len());
            for (index, (frame, inner)) in sink.frames.iter().zip(&without.frames).enumerate() {
                let mut want = wrap(inner, outer);
                if want[12..14] == [8, 0] {
                    put16(&mut want, 18, index as u16);
                    ipv4::set_checksum(&mut want[14..34]);
                }
                prop_assert_eq!(frame, &want);
            }
        }
    }

    #[test]
    fn what_is_not_where_the_header_says_is_not_guessed() {
        let outer = Outer::Vxlan { v6: false, checksum: false };
        let (frame, vnet, _) = superframe(&Spec::tcp(3000), outer, 1000);
        let start = vnet.csum_start.get();
        let elsewhere = VnetHdr { csum_start: (start - 1).into(), ..vnet };
        let outside = VnetHdr { csum_start: u16::MAX.into(), ..vnet };
        let other_version = VnetHdr { gso_type: GSO_TCPV6, ..vnet };
        // the outer datagram is no superframe to be cut
        let datagrams = VnetHdr { gso_type: GSO_UDP_L4, ..vnet };
        for vnet in [elsewhere, outside, other_version, datagrams] {
            let mut sink = Frames::new();
            assert_eq!(fit(&frame, &vnet, 1476, &mut sink), Fit::Dropped(DropReason::Malformed), "{vnet:?}");
            assert!(sink.frames.is_empty());
        }
    }
}
