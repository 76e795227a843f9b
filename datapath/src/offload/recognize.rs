//! Telling what kernels have merged or left unfinished where no offload header says so.

use zerocopy::FromBytes;

use super::segment::TcpPacket;
use crate::vnet::{F_NEEDS_CSUM, GSO_ECN, GSO_TCPV4, GSO_TCPV6, VnetHdr};
use crate::wire::checksum::pseudo;
use crate::wire::tcp::{self, Tcp};
use crate::wire::udp::{self, Udp};
use crate::wire::{Ip, Version, proto};

/// IP packets that are longer are taken for several. Which size these had is not known; this one passes nearly everywhere.
const MTU: usize = 1500;

/// The offload header that a frame out of a tunnel should have had. `ip` is what parsing said of it.
///
/// A raw socket hands out GRE packets in the shape in which the kernel holds them, and no header with it:
/// - generic receive offload knows GRE and has merged the TCP segments inside, wherever the device's driver uses it;
/// - a kernel tunnel on the same machine, behind a veth or virtio device, leaves segmentation and checksums to a device
///   that the packets never meet.
///
/// In either case the checksum field of TCP or UDP holds the sum of the pseudo header alone. An intact packet has that value
/// there by chance once in 65,536 times; finishing its checksum again gives the same.
pub fn recognize(frame: &[u8], ip: &Ip) -> VnetHdr {
    partial(frame, ip).unwrap_or_default()
}

fn partial(frame: &[u8], ip: &Ip) -> Option<VnetHdr> {
    if ip.fragment || ip.routed {
        return None;
    }
    let segment = frame.get(ip.l4..ip.end)?;
    let (check, offset) = match ip.proto {
        proto::TCP => (Tcp::ref_from_prefix(segment).ok()?.0.checksum, tcp::CHECKSUM),
        // 0 says that there is no checksum
        proto::UDP => (Udp::ref_from_prefix(segment).ok()?.0.checksum, udp::CHECKSUM),
        _ => return None,
    };
    if check.get() == 0 || check.get() != pseudo(ip.addresses(frame), ip.proto, segment.len()).fold() {
        return None;
    }
    let vnet = VnetHdr {
        flags: F_NEEDS_CSUM,
        csum_start: u16::try_from(ip.l4).ok()?.into(),
        csum_offset: (offset as u16).into(),
        ..VnetHdr::default()
    };
    Some(superframe(frame, ip, vnet).unwrap_or(vnet))
}

/// The header of a TCP packet that is several.
fn superframe(frame: &[u8], ip: &Ip, vnet: VnetHdr) -> Option<VnetHdr> {
    if ip.proto != proto::TCP || ip.end - ip.l3 <= MTU {
        return None;
    }
    let tcp = TcpPacket::new(frame, ip)?;
    let head = ip.end - tcp.payload.len();
    let size = (MTU + ip.l3).checked_sub(head).filter(|size| *size > 0)?;
    if tcp.flags & (tcp::SYN | tcp::RST) != 0 {
        return None;
    }
    let kind = match ip.version {
        Version::V4 => GSO_TCPV4,
        Version::V6 => GSO_TCPV6,
    };
    Some(VnetHdr {
        gso_type: kind | if tcp.flags & tcp::CWR != 0 { GSO_ECN } else { 0 },
        gso_size: (size as u16).into(),
        hdr_len: (head as u16).into(),
        ..vnet
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::finish_checksum;
    use super::super::testing::{Spec, ip_of, spec, tcp_spec};
    use super::*;

    fn recognized(frame: &[u8]) -> VnetHdr {
        recognize(frame, &ip_of(frame))
    }

    proptest! {
        /// Whatever is recognized, finishing the checksum gives the frame that was sent.
        #[test]
        fn a_partial_checksum_is_recognized(spec in spec(1400)) {
            let (frame, told) = spec.offloaded(0);
            let vnet = recognized(&frame);
            prop_assert_eq!((vnet.flags, vnet.csum_start, vnet.csum_offset), (told.flags, told.csum_start, told.csum_offset));
            prop_assert!(!vnet.is_gso());
            let mut finished = frame.clone();
            finish_checksum(&mut finished, Some(&ip_of(&frame)), &vnet);
            prop_assert_eq!(finished, spec.frame());
        }

        #[test]
        fn a_merged_packet_is_recognized(spec in tcp_spec(60_000)) {
            let (frame, _) = spec.offloaded(1000);
            let (ip, vnet) = (ip_of(&frame), recognized(&frame));
            prop_assert!(vnet.needs_csum());
            prop_assert_eq!(vnet.is_gso(), ip.end - ip.l3 > 1500);
            if vnet.is_gso() {
                let segment = usize::from(vnet.hdr_len.get() + vnet.gso_size.get());
                prop_assert_eq!(segment - ip.l3, 1500);
                prop_assert_eq!(vnet.gso_type & GSO_ECN != 0, spec.flags & tcp::CWR != 0);
            }
        }

        #[test]
        fn a_finished_packet_stays_as_it_is(spec in spec(60_000)) {
            let frame = spec.frame();
            let vnet = recognized(&frame);
            let mut again = frame.clone();
            finish_checksum(&mut again, Some(&ip_of(&frame)), &vnet);
            prop_assert_eq!(again, frame);
        }

        #[test]
        fn no_frame_panics(mut frame in prop::collection::vec(any::<u8>(), 14..100), spec in spec(100), cut in 0usize..120) {
            let (good, _) = spec.offloaded(0);
            let good = &good[..cut.min(good.len())];
            let n = good.len().min(frame.len());
            frame[..n].copy_from_slice(&good[..n]);
            if let Some(ip) = crate::wire::parse(&frame).and_then(|p| p.ip) {
                recognize(&frame, &ip);
            }
        }
    }

    #[test]
    fn no_udp_checksum_is_no_partial_one() {
        let mut frame = Spec::udp(100).frame();
        let at = ip_of(&frame).l4 + udp::CHECKSUM;
        frame[at..at + 2].fill(0);
        assert_eq!(recognized(&frame), VnetHdr::default());
    }
}
