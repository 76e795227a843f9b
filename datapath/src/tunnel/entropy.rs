//! Which source port a frame leaves by in UDP (RFC 8086 section 3.2.1): always the same for one inner flow, so that links and
//! receive queues on the way share the flows between them and keep each in order.

use std::hash::{BuildHasher, Hasher};

use foldhash::fast::FixedState;

use crate::port::SOURCE_PORTS;
use crate::wire::parse::Ip;
use crate::wire::proto;

/// A number below [`SOURCE_PORTS`] for the flow of `frame`, whose IP packet is `inner`: addresses, protocol and ports of an IP
/// packet, else the Ethernet addresses. Fragments but for the first have no ports, so all of them go without.
pub fn of(frame: &[u8], inner: Option<&Ip>) -> u8 {
    let mut hash = FixedState::with_seed(0).build_hasher();
    match inner {
        Some(ip) => {
            hash.write(ip.addresses(frame));
            hash.write_u8(ip.proto);
            let ported = matches!(ip.proto, proto::TCP | proto::UDP | proto::SCTP) && !ip.fragment;
            let ports = frame.get(ip.l4..ip.end).filter(|_| ported).and_then(<[u8]>::first_chunk);
            hash.write_u32(ports.copied().map_or(0, u32::from_ne_bytes));
        }
        None => hash.write(frame.get(..12).unwrap_or(frame)),
    }
    (hash.finish() % u64::from(SOURCE_PORTS)) as u8
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use etherparse::PacketBuilder;

    use super::*;
    use crate::wire::parse::parse;

    fn udp(ports: (u16, u16), change: impl Fn(&mut [u8])) -> u8 {
        let mut frame = Vec::new();
        let builder = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
        let builder = builder.ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64).udp(ports.0, ports.1);
        builder.write(&mut frame, b"hello").unwrap();
        change(&mut frame);
        of(&frame, parse(&frame).and_then(|p| p.ip).as_ref())
    }

    #[test]
    fn a_flow_has_one_source_port_and_flows_share_all_of_them() {
        let flow = udp((1000, 53), |_| {});
        // TTL, TOS, payload and Ethernet addresses make no other flow of it
        for at in [0, 15, 22, 44] {
            assert_eq!(udp((1000, 53), |f| f[at] ^= 1), flow, "byte {at}");
        }
        let all: BTreeSet<u8> = (0..1000).map(|port| udp((port, 53), |_| {})).collect();
        assert_eq!(all, (0..SOURCE_PORTS).collect());
    }

    #[test]
    fn fragments_stay_together() {
        let first = udp((1, 2), |f| f[20] = 0x20);
        let later = udp((3, 4), |f| f[21] = 9);
        assert_eq!(first, later);
    }

    #[test]
    fn what_is_no_ip_goes_by_its_ethernet_addresses() {
        let arp = |last: u8| {
            let mut frame = [0; 42];
            (frame[11], frame[12], frame[13]) = (last, 8, 6);
            of(&frame, None)
        };
        assert_eq!((0..=255).map(arp).collect::<BTreeSet<_>>().len(), usize::from(SOURCE_PORTS));
        assert!(of(&[1, 2, 3], None) < SOURCE_PORTS);
    }
}
