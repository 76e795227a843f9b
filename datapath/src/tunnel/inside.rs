//! The UDP header of VXLAN and Geneve inside ESP in transport mode, where no socket makes it.

use std::net::IpAddr;

use zerocopy::FromBytes;

use crate::counters::DropReason;
use crate::esp::{SaConfig, Selector};
use crate::port::InUdp;
use crate::wire::checksum::{Sum, pseudo};
use crate::wire::udp::{self, Udp};
use crate::wire::{proto, put16};

/// Source ports are from here on (RFC 7348 section 5 has them in the dynamic range), one for each number of
/// [`super::entropy`].
const SOURCE: u16 = 0xc000;

/// Writes the header of `datagram`, which is complete behind it. A checksum is wanted over IPv6 whatever the row says: kernels
/// take none there only where they are told to.
pub(super) fn fill(datagram: &mut [u8], kind: InUdp, entropy: u8, csum: bool, sa: &SaConfig) {
    let len = datagram.len();
    put16(datagram, 0, SOURCE | u16::from(entropy));
    put16(datagram, 2, kind.port());
    put16(datagram, 4, len as u16);
    put16(datagram, udp::CHECKSUM, 0);
    let pseudo = match (sa.local, sa.remote) {
        (IpAddr::V4(src), IpAddr::V4(dst)) if csum => {
            pseudo([src.octets(), dst.octets()].as_flattened(), proto::UDP, len)
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            pseudo([src.octets(), dst.octets()].as_flattened(), proto::UDP, len)
        }
        _ => return,
    };
    let checksum = (pseudo + Sum::of(datagram)).udp_checksum();
    put16(datagram, udp::CHECKSUM, checksum);
}

/// What `packet`, which came out of an SA, is in, and where its tunnel's own header begins and the packet ends.
///
/// It must be what the SA is for (RFC 4301 section 5.2). The UDP checksum is not looked at: the ICV has vouched for all of it,
/// and a NAT on the way may have changed an address under it (RFC 3948 section 3.1.2).
///
/// # Errors
/// It is cut short, or has other ports than the SA allows.
#[inline]
pub(super) fn open(packet: &[u8], selector: Selector) -> Result<(Option<InUdp>, usize, usize), DropReason> {
    match selector {
        Selector::Gre => Ok((None, 0, packet.len())),
        Selector::InUdp { kind, from_port } => {
            let (header, _) = Udp::ref_from_prefix(packet).map_err(|_| DropReason::Malformed)?;
            let port = kind.port();
            if header.dst.get() != port || from_port && header.src.get() != port {
                return Err(DropReason::EspSelector);
            }
            let len = usize::from(header.len.get());
            if (udp::HEADER..=packet.len()).contains(&len) {
                Ok((Some(kind), udp::HEADER, len))
            } else {
                Err(DropReason::Malformed)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use etherparse::{Ipv4Header, Ipv6Header, UdpHeader};

    use super::*;
    use crate::esp::testing::config;

    const VXLAN: InUdp = InUdp::Vxlan(4789);

    #[test]
    fn headers_as_another_parser_reads_them() {
        let payload = [7; 101];
        for (v6, csum) in [(false, false), (false, true), (true, false), (true, true)] {
            let mut sa = config();
            if v6 {
                (sa.local, sa.remote) = ("fd00::1".parse().unwrap(), "fd00::2".parse().unwrap());
            }
            let mut datagram = [&[0xee; 8][..], &payload].concat();
            fill(&mut datagram, VXLAN, 9, csum, &sa);
            let (header, rest) = UdpHeader::from_slice(&datagram).unwrap();
            assert_eq!((header.source_port, header.destination_port), (0xc009, 4789));
            assert_eq!((header.length, rest), (109, &payload[..]));
            let want = match (sa.local, sa.remote) {
                (IpAddr::V4(src), IpAddr::V4(dst)) => {
                    let ip = Ipv4Header {
                        source: src.octets(),
                        destination: dst.octets(),
                        ..Ipv4Header::default()
                    };
                    header.calc_checksum_ipv4(&ip, &payload).unwrap()
                }
                (IpAddr::V6(src), IpAddr::V6(dst)) => {
                    let ip = Ipv6Header {
                        source: src.octets(),
                        destination: dst.octets(),
                        ..Ipv6Header::default()
                    };
                    header.calc_checksum_ipv6(&ip, &payload).unwrap()
                }
                _ => unreachable!(),
            };
            assert_eq!(header.checksum, if v6 || csum { want } else { 0 });
        }
    }

    #[test]
    fn what_the_sa_is_not_for_stays_outside() {
        let packet = |src: u16, dst: u16, len: u16| {
            let fields = [src, dst, len, 0].map(u16::to_be_bytes);
            [fields.as_flattened(), &[7; 10]].concat()
        };
        let to_us = Selector::InUdp { kind: VXLAN, from_port: false };
        let from_port = Selector::InUdp { kind: VXLAN, from_port: true };
        let cases = [
            (packet(50_000, 4789, 18), to_us, Ok((Some(VXLAN), 8, 18))),
            (packet(50_000, 4789, 10), to_us, Ok((Some(VXLAN), 8, 10))),
            (packet(50_000, 4789, 8), to_us, Ok((Some(VXLAN), 8, 8))),
            (packet(50_000, 4789, 7), to_us, Err(DropReason::Malformed)),
            (packet(50_000, 4789, 19), to_us, Err(DropReason::Malformed)),
            (packet(50_000, 4789, 0), to_us, Err(DropReason::Malformed)),
            (packet(50_000, 6081, 18), to_us, Err(DropReason::EspSelector)),
            (packet(4789, 50_000, 18), to_us, Err(DropReason::EspSelector)),
            (packet(50_000, 4789, 18), from_port, Err(DropReason::EspSelector)),
            (packet(4789, 4789, 18), from_port, Ok((Some(VXLAN), 8, 18))),
            (packet(1, 1, 18)[..7].to_vec(), to_us, Err(DropReason::Malformed)),
            (packet(1, 1, 18), Selector::Gre, Ok((None, 0, 18))),
        ];
        for (packet, selector, want) in cases {
            assert_eq!(open(&packet, selector), want, "{packet:?} {selector:?}");
        }
    }
}
