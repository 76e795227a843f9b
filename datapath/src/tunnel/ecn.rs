//! Congestion marks across a tunnel, RFC 6040.

use crate::wire::checksum;
use crate::wire::ipv4;
use crate::wire::parse::{Ip, Version};
use crate::wire::{get16, put16};

/// Not ECN-capable.
const NOT_ECT: u8 = 0;
/// ECN-capable, codepoint 1.
const ECT1: u8 = 1;
/// ECN-capable, codepoint 0.
const ECT0: u8 = 2;
/// Congestion experienced.
const CE: u8 = 3;

/// The outer ECN bits for a packet with those inner ones: a plain copy (RFC 6040 section 4.1, normal mode).
#[inline]
pub fn encapsulate(inner: u8) -> u8 {
    inner & CE
}

/// The ECN bits a packet leaves the tunnel with, or None when it must be dropped: congestion was marked on a packet
/// whose sender would never learn of it (RFC 6040 section 4.2, figure 4).
#[inline]
pub fn decapsulate(inner: u8, outer: u8) -> Option<u8> {
    match (inner & CE, outer & CE) {
        (NOT_ECT, CE) => None,
        (NOT_ECT, _) => Some(NOT_ECT),
        (_, CE) => Some(CE),
        (ECT0, ECT1) => Some(ECT1),
        (inner, _) => Some(inner),
    }
}

/// Sets the ECN bits of the IP packet that `ip` found in `frame`, and mends the IPv4 header checksum.
pub fn mark(frame: &mut [u8], ip: &Ip, ecn: u8) {
    let Some(old) = get16(frame, ip.l3) else { return };
    // the traffic class of IPv6 stands four bits further left than the TOS of IPv4
    let shift = if ip.version == Version::V6 { 4 } else { 0 };
    let new = old & !(u16::from(CE) << shift) | u16::from(ecn & CE) << shift;
    put16(frame, ip.l3, new);
    let at = ip.l3 + ipv4::CHECKSUM;
    if let (Version::V4, Some(sum)) = (ip.version, get16(frame, at)) {
        put16(frame, at, checksum::update(sum, old, new, false));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::parse::parse;
    use etherparse::PacketBuilder;

    #[test]
    fn marking_keeps_the_rest() {
        let builders = [
            PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64),
            PacketBuilder::ethernet2([2; 6], [4; 6]).ipv6([1; 16], [2; 16], 64),
        ];
        for builder in builders {
            let mut frame = Vec::new();
            builder.udp(1, 2).write(&mut frame, b"x").unwrap();
            let before = parse(&frame).unwrap().ip.unwrap();
            mark(&mut frame, &before, CE);
            let after = parse(&frame).unwrap().ip.unwrap();
            assert_eq!(after.ecn(), CE);
            assert_eq!(Ip { tos: before.tos, ..after }, before);
            if before.version == Version::V4 {
                assert!(ipv4::checksum_ok(&frame[14..34]));
            }
        }
    }

    #[test]
    fn rfc_6040_figure_4() {
        // rows: inner; columns: outer Not-ECT, ECT(0), ECT(1), CE
        let table = [
            (NOT_ECT, [Some(NOT_ECT), Some(NOT_ECT), Some(NOT_ECT), None]),
            (ECT0, [Some(ECT0), Some(ECT0), Some(ECT1), Some(CE)]),
            (ECT1, [Some(ECT1), Some(ECT1), Some(ECT1), Some(CE)]),
            (CE, [Some(CE), Some(CE), Some(CE), Some(CE)]),
        ];
        for (inner, row) in table {
            for (outer, want) in [NOT_ECT, ECT0, ECT1, CE].into_iter().zip(row) {
                assert_eq!(decapsulate(inner, outer), want, "inner {inner} outer {outer}");
            }
        }
    }
}
