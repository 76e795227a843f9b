//! Keeping the maximum segment size that two TCP ends agree on within what the path carries.

use zerocopy::FromBytes;

use crate::vnet::VnetHdr;
use crate::wire::tcp::{self, Tcp};
use crate::wire::{Ip, Version, checksum, get16, ipv4, ipv6, proto, put16};

/// Never clamp below this, however short the path: Linux takes no less (TCP_MIN_MSS).
const MIN_MSS: usize = 88;

/// Lowers the MSS option of a SYN in `frame` to what frames of `max_frame` bytes carry, and adjusts the checksum. Other
/// frames stay as they are, and so do a SYN without the option, whose receiver assumes the minimum (RFC 9293 section
/// 3.7.1), and a SYN that is signed. `ip` is what parsing said of the frame; `max_frame` is asked for a SYN alone.
#[inline]
pub fn clamp_mss(frame: &mut [u8], ip: &Ip, vnet: &VnetHdr, max_frame: impl FnOnce() -> usize) {
    clamp(frame, ip, vnet.needs_csum(), max_frame);
}

/// [`clamp_mss`]. `partial`: the checksum holds the pseudo header only, which stays the same.
#[inline]
pub(super) fn clamp(frame: &mut [u8], ip: &Ip, partial: bool, max_frame: impl FnOnce() -> usize) {
    if ip.proto != proto::TCP || ip.later_fragment {
        return;
    }
    let Some(segment) = frame.get_mut(ip.l4..ip.end) else { return };
    let Ok((tcp, _)) = Tcp::ref_from_prefix(segment) else { return };
    if tcp.flags & tcp::SYN != 0 {
        let header = match ip.version {
            Version::V4 => ipv4::HEADER,
            Version::V6 => ipv6::HEADER,
        };
        clamp_option(segment, partial, max_frame().saturating_sub(ip.l3 + header + tcp::HEADER));
    }
}

/// RFC 6691: the option counts neither IP nor TCP options, so the limit doesn't either.
fn clamp_option(segment: &mut [u8], partial: bool, limit: usize) {
    let Ok((tcp, _)) = Tcp::ref_from_prefix(segment) else { return };
    let (check, len) = (tcp.checksum.get(), tcp.header_len());
    let limit = limit.clamp(MIN_MSS, usize::from(u16::MAX)) as u16;
    let Some(header) = segment.get(..len).filter(|header| !tcp::is_signed(header)) else { return };
    let Some(at) = tcp::mss_at(header) else { return };
    match get16(segment, at) {
        Some(mss) if mss > limit => {
            put16(segment, at, limit);
            if !partial {
                put16(segment, tcp::CHECKSUM, checksum::update(check, mss, limit, at % 2 == 1));
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use etherparse::{PacketBuilder, SlicedPacket, TcpOptionElement, TransportSlice};

    use super::*;
    use crate::offload::testing::{A, B, assert_checksums, ip_of};

    fn syn(v6: bool, options: &[u8], vlan: bool) -> Vec<u8> {
        let eth = PacketBuilder::ethernet2(A, B);
        let ip = match (v6, vlan) {
            (true, false) => eth.ipv6([1; 16], [2; 16], 64),
            (true, true) => eth.single_vlan(etherparse::VlanId::ZERO).ipv6([1; 16], [2; 16], 64),
            (false, true) => eth.single_vlan(etherparse::VlanId::ZERO).ipv4([1; 4], [2; 4], 64),
            (false, false) => eth.ipv4([1; 4], [2; 4], 64),
        };
        let mut frame = Vec::new();
        ip.tcp(1, 2, 3, 4).syn().options_raw(options).unwrap().write(&mut frame, &[]).unwrap();
        frame
    }

    fn mss_of(frame: &[u8]) -> Option<u16> {
        let Some(TransportSlice::Tcp(tcp)) = SlicedPacket::from_ethernet(frame).unwrap().transport else {
            panic!("no TCP")
        };
        tcp.options_iterator().find_map(|option| match option {
            Ok(TcpOptionElement::MaximumSegmentSize(mss)) => Some(mss),
            _ => None,
        })
    }

    fn clamped(frame: &mut [u8], vnet: &VnetHdr, max_frame: usize) {
        let ip = ip_of(frame);
        clamp_mss(frame, &ip, vnet, || max_frame);
    }

    #[test]
    fn clamps_syns() {
        let aligned = &[2, 4, 0x05, 0xb4][..];
        let odd = &[1, 2, 4, 0x05, 0xb4, 0, 0, 0][..];
        for (v6, vlan, max_frame, mss) in [
            (false, false, 1476, 1422),
            (true, false, 1476, 1402),
            (false, true, 1476, 1418),
            (true, true, 1476, 1398),
            (false, false, 9000, 1460),
            (false, false, 1514, 1460),
            (false, false, 1513, 1459),
            (false, false, 20, MIN_MSS as u16),
            (false, false, 0, MIN_MSS as u16),
        ] {
            for options in [aligned, odd] {
                let mut frame = syn(v6, options, vlan);
                clamped(&mut frame, &VnetHdr::default(), max_frame);
                assert_eq!(mss_of(&frame), Some(mss), "v6 {v6} vlan {vlan} max_frame {max_frame}");
                assert_checksums(&frame);
            }
        }
    }

    #[test]
    fn leaves_the_rest_alone() {
        let no_option = syn(false, &[4, 2, 1, 1], false);
        let mut no_syn = syn(false, &[2, 4, 0x05, 0xb4], false);
        no_syn[14 + 20 + 13] = tcp::ACK;
        let mut later_fragment = syn(false, &[2, 4, 0x05, 0xb4], false);
        later_fragment[14 + 7] = 1;
        let signed = syn(false, &[2, 4, 0x05, 0xb4, 29, 4, 1, 1], false);
        for original in [no_option, no_syn, later_fragment, signed] {
            let mut frame = original.clone();
            clamped(&mut frame, &VnetHdr::default(), 1000);
            assert_eq!(frame, original);
        }
    }

    #[test]
    fn partial_checksum_stays() {
        let mut frame = syn(false, &[2, 4, 0x05, 0xb4], false);
        let at = 14 + 20 + tcp::CHECKSUM;
        let before = get16(&frame, at);
        clamped(&mut frame, &VnetHdr { flags: crate::vnet::F_NEEDS_CSUM, ..VnetHdr::default() }, 1000);
        assert_eq!((get16(&frame, at), mss_of(&frame)), (before, Some(946)));
    }
}
