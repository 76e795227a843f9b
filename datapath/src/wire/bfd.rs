//! What is a BFD control packet of a single hop (RFC 5881 section 4): UDP over IPv4 to port 3784.

use super::parse::{Ip, Link, Version};
use super::{get16, proto};

/// Its UDP port.
const PORT: u16 = 3784;

/// Whether `frame` is one to one of the addresses `to`, without a VLAN tag.
#[cold]
pub fn is_control(frame: &[u8], to: &[[u8; 4]; 2]) -> bool {
    let Some(link) = Link::parse(frame).filter(|link| link.vlan.is_none()) else { return false };
    let Some(ip) = Ip::parse(frame, &link) else { return false };
    ip.version == Version::V4
        && ip.proto == proto::UDP
        && !ip.fragment
        && ip.addresses(frame).last_chunk().is_some_and(|dst| to.contains(dst))
        && frame.get(ip.l4..ip.end).and_then(|udp| get16(udp, 2)) == Some(PORT)
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;

    use super::*;

    #[test]
    fn only_to_that_port_of_those_addresses() {
        let to = [[169, 254, 1, 0], [169, 254, 1, 1]];
        let frame = |dst, port| {
            let mut frame = Vec::new();
            let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4([169, 254, 1, 1], dst, 255);
            builder.udp(49152, port).write(&mut frame, &[0; 24]).unwrap();
            frame
        };
        assert!(is_control(&frame([169, 254, 1, 0], 3784), &to));
        assert!(is_control(&frame([169, 254, 1, 1], 3784), &to));
        assert!(!is_control(&frame([169, 254, 1, 2], 3784), &to));
        assert!(!is_control(&frame([169, 254, 1, 0], 3785), &to));
        let mut fragment = frame([169, 254, 1, 0], 3784);
        fragment[21] = 1;
        assert!(!is_control(&fragment, &to));
        for len in 0..42 {
            assert!(!is_control(&frame([169, 254, 1, 0], 3784)[..len], &to), "{len}");
        }
    }
}
