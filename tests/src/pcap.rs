//! Captured packets one by one, as tcpdump writes them: for what tshark is too slow or too forgiving for.

use std::collections::HashMap;
use std::io::{Error, ErrorKind, Read, Result};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A stream of Ethernet frames in pcap's classic format and this machine's byte order.
#[derive(Debug)]
pub struct Reader<R> {
    from: R,
}

impl<R: Read> Reader<R> {
    /// Reads the header; waits for it where `from` is a pipe.
    pub fn new(mut from: R) -> Result<Reader<R>> {
        let mut header = [0; 24];
        from.read_exact(&mut header)?;
        let magic = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]);
        if !matches!(magic, 0xa1b2_c3d4 | 0xa1b2_3c4d) || header[20] != 1 {
            return Err(Error::new(ErrorKind::InvalidData, format!("no capture of Ethernet: {header:02x?}")));
        }
        Ok(Reader { from })
    }
}

impl<R: Read> Iterator for Reader<R> {
    type Item = Vec<u8>;

    /// The next frame. None at the end, also where a record is cut short, as one that is being written may be.
    fn next(&mut self) -> Option<Vec<u8>> {
        let mut record = [0; 16];
        self.from.read_exact(&mut record).ok()?;
        let length = u32::from_ne_bytes([record[8], record[9], record[10], record[11]]);
        let mut frame = vec![0; length as usize];
        self.from.read_exact(&mut frame).ok()?;
        Some(frame)
    }
}

/// An IP packet of the underlay. Extension headers of IPv6 are not looked behind: what is captured here has none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// Sender.
    pub src: IpAddr,
    /// Receiver.
    pub dst: IpAddr,
    /// IP protocol number.
    pub protocol: u8,
    /// All of it, IP header included.
    pub bytes: Vec<u8>,
    /// Where in `bytes` the IP header ends.
    pub header: usize,
}

impl Packet {
    /// The IP packet in an Ethernet frame, without the frame's padding. None for anything else.
    pub fn of_frame(frame: &[u8]) -> Option<Packet> {
        let ip = frame.get(14..)?;
        match frame[12..14] {
            [0x08, 0x00] => {
                let (header, total) = (usize::from(ip.first()? & 15) * 4, be16(ip, 2)?);
                let bytes = ip.get(..usize::from(total)).unwrap_or(ip).to_vec();
                let at = |n: usize| Some(IpAddr::V4(Ipv4Addr::from(*ip.get(n..n + 4)?.first_chunk::<4>()?)));
                (bytes.len() >= header).then_some(())?;
                Some(Packet { src: at(12)?, dst: at(16)?, protocol: *ip.get(9)?, bytes, header })
            }
            [0x86, 0xdd] => {
                let total = 40 + usize::from(be16(ip, 4)?);
                let bytes = ip.get(..total).unwrap_or(ip).to_vec();
                let at =
                    |n: usize| Some(IpAddr::V6(Ipv6Addr::from(*ip.get(n..n + 16)?.first_chunk::<16>()?)));
                (bytes.len() >= 40).then_some(())?;
                Some(Packet { src: at(8)?, dst: at(24)?, protocol: *ip.get(6)?, bytes, header: 40 })
            }
            _ => None,
        }
    }

    /// What the IP header carries.
    pub fn payload(&self) -> &[u8] {
        &self.bytes[self.header..]
    }

    /// Where in `bytes` the ESP header begins: behind the IP header, or in UDP to or from port 4500 (RFC 3948).
    pub fn esp_at(&self) -> Option<usize> {
        let payload = self.payload();
        match self.protocol {
            50 => Some(self.header),
            17 if be16(payload, 0) == Some(4500) || be16(payload, 2) == Some(4500) => {
                let spi = payload.get(8..12)?;
                (spi != [0; 4]).then_some(self.header + 8)
            }
            _ => None,
        }
    }

    /// SPI and sequence number of an ESP packet.
    pub fn esp(&self) -> Option<(u32, u32)> {
        let esp = self.bytes.get(self.esp_at()?..)?;
        Some((be32(esp, 0)?, be32(esp, 4)?))
    }

    /// The bytes of an IKE message in UDP port 500 or 4500, its non-ESP marker gone.
    pub fn ike(&self) -> Option<&[u8]> {
        let payload = self.payload();
        let port = |p| be16(payload, 0) == Some(p) || be16(payload, 2) == Some(p);
        if self.protocol != 17 {
            None
        } else if port(500) {
            payload.get(8..)
        } else if port(4500) {
            payload.get(8..)?.strip_prefix(&[0; 4])
        } else {
            None
        }
    }
}

fn be16(b: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*b.get(at..)?.first_chunk()?))
}

fn be32(b: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*b.get(at..)?.first_chunk()?))
}

/// Which sequence numbers each SA has used: none may be used twice, as its nonce would be.
#[derive(Debug, Default)]
pub struct Sequences {
    seen: HashMap<u32, Vec<u64>>,
    /// ESP packets seen.
    pub packets: u64,
    /// Those whose SPI and sequence number had been seen before, and the first such pairs.
    pub repeated: (u64, Vec<(u32, u32)>),
}

impl Sequences {
    /// Takes note of one packet of one direction.
    pub fn note(&mut self, spi: u32, sequence: u32) {
        let bits = self.seen.entry(spi).or_default();
        let (word, bit) = (sequence as usize / 64, 1 << (sequence % 64));
        if bits.len() <= word {
            bits.resize(word + 1, 0);
        }
        self.packets += 1;
        if bits[word] & bit != 0 {
            self.repeated.0 += 1;
            if self.repeated.1.len() < 10 {
                self.repeated.1.push((spi, sequence));
            }
        }
        bits[word] |= bit;
    }

    /// How many SPIs there were.
    pub fn spis(&self) -> usize {
        self.seen.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(protocol: u8, payload: &[u8]) -> Vec<u8> {
        let mut f = vec![0xff; 12];
        f.extend([8, 0, 0x45, 0, 0, 20 + payload.len() as u8, 0, 0, 0, 0, 64, protocol, 0, 0]);
        f.extend([192, 0, 2, 1, 192, 0, 2, 2]);
        f.extend(payload);
        f.extend([0; 6]); // padding
        f
    }

    #[test]
    fn packets_of_every_road() {
        let raw = Packet::of_frame(&frame(50, &[0, 0, 16, 1, 0, 0, 0, 7, 9])).unwrap();
        assert_eq!((raw.src.to_string().as_str(), raw.protocol, raw.bytes.len()), ("192.0.2.1", 50, 29));
        assert_eq!((raw.esp(), raw.ike()), (Some((0x1001, 7)), None));
        let udp = |rest: &[u8]| [&[0x11, 0x94, 0x11, 0x94, 0, 17, 0, 0], rest].concat();
        let esp = Packet::of_frame(&frame(17, &udp(&[0, 0, 16, 1, 0, 0, 0, 8, 9]))).unwrap();
        assert_eq!((esp.esp(), esp.ike()), (Some((0x1001, 8)), None));
        let ike = Packet::of_frame(&frame(17, &udp(&[0, 0, 0, 0, 5, 6]))).unwrap();
        assert_eq!((ike.esp(), ike.ike()), (None, Some(&[5, 6][..])));
        assert_eq!(Packet::of_frame(&[0; 14]), None);
    }

    #[test]
    fn repeated_sequence_numbers() {
        let mut s = Sequences::default();
        for (spi, sequence) in [(1, 1), (1, 2), (2, 1), (1, 200), (1, 2)] {
            s.note(spi, sequence);
        }
        assert_eq!((s.packets, s.spis(), s.repeated), (5, 2, (1, vec![(1, 2)])));
    }
}
