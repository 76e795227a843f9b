//! The frames that packets travel in: Ethernet, IPv4, UDP to port 3784 (RFC 5881 section 4), as Open vSwitch makes them.

use std::net::Ipv4Addr;

use crate::config::Config;
use crate::packet::LEN;

/// Bytes of Ethernet, IPv4 and UDP header.
const HEADERS: usize = 14 + 20 + 8;
/// Of a single hop (RFC 5881 section 4).
const PORT: u16 = 3784;
/// Precedence "internetwork control".
const TOS: u8 = 0xc0;
/// RFC 5881 section 5.
const TTL: u8 = 255;

/// A frame from `mac` with the packet.
pub fn encode(config: &Config, mac: [u8; 6], source_port: u16, packet: &[u8; LEN]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(HEADERS + LEN);
    frame.extend(config.remote_dst_mac);
    frame.extend(config.local_src_mac.unwrap_or(mac));
    frame.extend([0x08, 0x00]);
    let length = |bytes: usize| (bytes as u16).to_be_bytes();
    let mut ip = [0u8; 20];
    ip[0] = 0x45;
    ip[1] = TOS;
    ip[2..4].copy_from_slice(&length(20 + 8 + LEN));
    ip[8] = TTL;
    ip[9] = 17;
    ip[12..16].copy_from_slice(&config.src_ip.octets());
    ip[16..20].copy_from_slice(&config.dst_ip.octets());
    let sum = !sum(&ip);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    frame.extend(ip);
    frame.extend(source_port.to_be_bytes());
    frame.extend(PORT.to_be_bytes());
    frame.extend(length(8 + LEN));
    // over IPv4 none is needed
    frame.extend([0, 0]);
    frame.extend(packet);
    frame
}

/// The packet in a frame that is meant for a session with that configuration. None: it is not.
pub fn decode<'a>(config: &Config, frame: &'a [u8]) -> Option<&'a [u8]> {
    let (ethernet, rest) = frame.split_first_chunk::<14>()?;
    let [dst @ .., _, _, _, _, _, _, t0, t1] = ethernet;
    if [*t0, *t1] != [0x08, 0x00] || config.local_dst_mac.is_some_and(|mac| mac != *dst) {
        return None;
    }
    let [first, _, l0, l1, _, _, f0, f1, ttl, protocol, _, _, _, _, _, _, d0, d1, d2, d3] =
        *rest.first_chunk::<20>()?;
    let total = usize::from(u16::from_be_bytes([l0, l1]));
    let head = 4 * usize::from(first & 0xf);
    let whole = u16::from_be_bytes([f0, f1]) & 0x3fff == 0;
    let to = Ipv4Addr::new(d0, d1, d2, d3);
    // both ends have the same two addresses by default, in the same order
    let ours = [config.src_ip, config.dst_ip].contains(&to);
    if first >> 4 != 4 || head < 20 || !whole || ttl != TTL || protocol != 17 || !ours {
        return None;
    }
    let header = rest.get(..head)?;
    if sum(header) != 0xffff {
        return None;
    }
    let udp = rest.get(head..total)?;
    let ([_, _, p0, p1, u0, u1, ..], _) = udp.split_first_chunk::<8>()?;
    let len = usize::from(u16::from_be_bytes([*u0, *u1]));
    if u16::from_be_bytes([*p0, *p1]) != PORT {
        return None;
    }
    udp.get(8..len)
}

/// One's complement sum (RFC 1071) of an even number of bytes.
fn sum(bytes: &[u8]) -> u16 {
    let words = bytes.as_chunks::<2>().0.iter().map(|word| u32::from(u16::from_be_bytes(*word)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 7];

    fn frame(config: &Config) -> Vec<u8> {
        encode(config, MAC, 49152, &[0xaa; LEN])
    }

    /// As Open vSwitch 3.1 sends it.
    #[test]
    fn bytes_on_the_wire() {
        let frame = frame(&Config::default());
        assert_eq!(frame[..14], [0x00, 0x23, 0x20, 0, 0, 1, 2, 0, 0, 0, 0, 7, 8, 0]);
        assert_eq!(frame[14..24], [0x45, 0xc0, 0, 52, 0, 0, 0, 0, 255, 17]);
        assert_eq!(frame[26..34], [169, 254, 1, 1, 169, 254, 1, 0]);
        assert_eq!(frame[34..42], [0xc0, 0x00, 0x0e, 0xc8, 0, 32, 0, 0]);
        assert_eq!(decode(&Config::default(), &frame), Some(&[0xaa; LEN][..]));
        let padded = [&frame[..], &[0; 10]].concat();
        assert_eq!(decode(&Config::default(), &padded), Some(&[0xaa; LEN][..]));
    }

    #[test]
    fn only_what_is_meant_for_it() {
        let config = Config::default();
        for (at, what) in [
            (12, "type"),
            (14, "version"),
            (20, "fragment"),
            (22, "TTL"),
            (23, "protocol"),
            (30, "address"),
            (24, "sum"),
            (36, "port"),
        ] {
            let mut frame = frame(&config);
            frame[at] ^= 0x20;
            assert_eq!(decode(&config, &frame), None, "{what}");
        }
        let mine = Config { local_dst_mac: Some([9; 6]), ..Config::default() };
        assert_eq!(decode(&mine, &frame(&config)), None);
        let to_mine = Config { remote_dst_mac: [9; 6], ..Config::default() };
        assert!(decode(&mine, &frame(&to_mine)).is_some());
    }

    proptest! {
        #[test]
        fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..100), at in 0usize..66, value in any::<u8>()) {
            decode(&Config::default(), &bytes);
            let mut frame = frame(&Config::default());
            frame[at] = value;
            decode(&Config::default(), &frame);
            decode(&Config::default(), &frame[..at]);
        }
    }
}
