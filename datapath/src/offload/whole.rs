//! TCP superframes that need not be cut here, since the kernel will.

use super::nested;
use super::segment::TcpPacket;
use crate::vnet::{GSO_ECN, GSO_TCPV4, GSO_TCPV6, VnetHdr};
use crate::wire::{Ip, Version, ipv6, proto, tcp};

/// A superframe to be cut as [`super::fit()`] would.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Whole {
    /// Bytes of it, without Ethernet padding.
    pub len: usize,
    /// Bytes of headers, which each segment gets.
    pub head: usize,
    /// How many segments it becomes.
    pub segments: usize,
    /// Its offload header: with a size of segments that fits, and nothing in it but what the frame itself says.
    pub vnet: VnetHdr,
}

/// `frame` as a superframe of segments of up to `max_frame` bytes. None: it is no superframe, or one that only [`super::fit()`] knows how to
/// treat. `ip` is what parsing said of it.
pub fn whole(frame: &[u8], ip: &Ip, vnet: &VnetHdr, max_frame: usize) -> Option<Whole> {
    let kind = match ip.version {
        Version::V4 => GSO_TCPV4,
        Version::V6 => GSO_TCPV6,
    };
    let plain = vnet.gso_type & !GSO_ECN == kind
        && ip.proto == proto::TCP
        && !ip.fragment
        && !ip.routed
        && (ip.version == Version::V4 || ip.l4 == ip.l3 + ipv6::HEADER)
        && vnet.needs_csum()
        && usize::from(vnet.csum_start.get()) == ip.l4
        && usize::from(vnet.csum_offset.get()) == tcp::CHECKSUM
        && !nested::is_nested(ip, vnet);
    let tcp = TcpPacket::new(frame, ip).filter(|tcp| plain && tcp.flags & (tcp::SYN | tcp::RST) == 0)?;
    let size = tcp.room(max_frame)?.min(usize::from(vnet.gso_size.get()));
    let payload = tcp.payload.len();
    // one segment alone is no superframe to the kernel
    if size == 0 || payload <= size {
        return None;
    }
    let head = ip.end - payload;
    let vnet = VnetHdr { hdr_len: u16::try_from(head).ok()?.into(), gso_size: (size as u16).into(), ..*vnet };
    Some(Whole { len: ip.end, head, segments: payload.div_ceil(size), vnet })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::offload::testing::*;
    use crate::offload::{Fit, fit};
    use crate::vnet::{F_NEEDS_CSUM, GSO_UDP_L4};

    proptest! {
        /// What is said of a superframe is what becomes of it where it is cut here.
        #[test]
        fn counts_are_those_of_the_segments(spec in tcp_spec(60_000), size in 1u16..2000, max_frame in 200usize..2000, padding in 0usize..9) {
            let (mut frame, vnet) = spec.offloaded(size);
            let len = frame.len();
            frame.resize(len + padding, 0xdd);
            let mut sink = Frames::new();
            let fitted = fit(&frame, &vnet, max_frame, &mut sink);
            if let Some(whole) = whole(&frame, &ip_of(&frame), &vnet, max_frame) {
                prop_assert_eq!(fitted, Fit::Sent(whole.segments));
                prop_assert_eq!(whole.len, len);
                prop_assert_eq!(whole.head, len - spec.len);
                prop_assert_eq!(usize::from(whole.vnet.gso_size.get()) + whole.head, sink.frames[0].len());
                let bytes: usize = sink.frames.iter().map(Vec::len).sum();
                prop_assert_eq!(bytes, whole.len + (whole.segments - 1) * whole.head);
            } else if !spec.v6 {
                prop_assert!(sink.frames.len() <= 1);
            }
        }

        #[test]
        fn any_header(frame in proptest::collection::vec(any::<u8>(), 14..200), spec in tcp_spec(600), cut in 0usize..700,
                      header in any::<[u8; 10]>(), max_frame in 0usize..700) {
            let vnet: VnetHdr = zerocopy::transmute!(header);
            let (good, _) = spec.offloaded(100);
            for frame in [&frame[..], &good[..cut.clamp(14, good.len())]] {
                if let Some(ip) = crate::wire::parse(frame).and_then(|p| p.ip) {
                    whole(frame, &ip, &vnet, max_frame);
                }
            }
        }
    }

    #[test]
    fn what_the_header_and_the_frame_do_not_agree_on_is_not_passed_on() {
        let (frame, vnet) = Spec::tcp(3000).offloaded(1000);
        let ip = ip_of(&frame);
        assert!(whole(&frame, &ip, &vnet, 1476).is_some());
        let start = vnet.csum_start.get();
        for vnet in [
            VnetHdr { flags: 0, ..vnet },
            VnetHdr { gso_type: GSO_TCPV6, ..vnet },
            VnetHdr { gso_type: GSO_UDP_L4, ..vnet },
            VnetHdr { gso_size: 0.into(), ..vnet },
            VnetHdr { gso_size: 3000.into(), ..vnet },
            VnetHdr { csum_start: (start + 4).into(), ..vnet },
            VnetHdr { csum_offset: 6.into(), flags: F_NEEDS_CSUM, ..vnet },
        ] {
            assert_eq!(whole(&frame, &ip, &vnet, 4000), None, "{vnet:?}");
        }
    }
}
