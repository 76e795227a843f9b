//! Packets of the test's own making on the wire, whole: forged, damaged, repeated.

use std::io::Write;
use std::net::Ipv4Addr;
use std::process::{Child, Stdio};
use std::time::Duration;

use crate::cli;
use crate::pcap::Packet;
use crate::topology::Place;

/// Sends IP packets from `at`, as they are, 1 ms apart.
#[track_caller]
pub fn send<'a>(at: &dyn Place, packets: impl IntoIterator<Item = &'a Packet>) {
    let mut child = start(at, &["send", "1000"], packets);
    let status = cli::wait(&mut child, Duration::from_secs(60)).expect("the injector ends");
    assert!(status.success(), "the injector: {status}");
}

/// Sends an IKE_SA_INIT request `count` times, `rate` a second, each time with another SPI and from one of `sources`
/// (`198.18.0.0/15`). Returns at once; give the process to [`cli::wait`].
#[track_caller]
pub fn flood(at: &dyn Place, request: &Packet, count: u64, rate: u64, sources: &str) -> Child {
    start(at, &["flood", &count.to_string(), &rate.to_string(), sources], [request])
}

fn start<'a>(at: &dyn Place, args: &[&str], packets: impl IntoIterator<Item = &'a Packet>) -> Child {
    let program = cli::helper("inject");
    let mut child = at
        .bound(program.to_str().expect("a path in UTF-8"))
        .args(args)
        .stdin(Stdio::piped())
        .spawn()
        .expect("the injector");
    let lines: Vec<String> = packets.into_iter().map(|p| hex(&p.bytes) + "\n").collect();
    child.stdin.take().expect("its standard input").write_all(lines.concat().as_bytes()).expect("it reads");
    child
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// A made-up ESP packet over IPv4 with `length` bytes behind the sequence number.
pub fn esp(src: &str, dst: &str, spi: u32, sequence: u32, length: usize) -> Packet {
    let (src, dst): (Ipv4Addr, Ipv4Addr) = (src.parse().expect("IPv4"), dst.parse().expect("IPv4"));
    let mut bytes = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 50, 0, 0];
    bytes.extend(src.octets());
    bytes.extend(dst.octets());
    bytes.extend(spi.to_be_bytes());
    bytes.extend(sequence.to_be_bytes());
    bytes.resize(28 + length, 0xee);
    let mut p = Packet { src: src.into(), dst: dst.into(), protocol: 50, bytes, header: 20 };
    lengths(&mut p);
    p
}

/// A copy without UDP checksum, which the card was to fill in where the packet was captured.
pub fn again(packet: &Packet) -> Packet {
    let mut p = packet.clone();
    lengths(&mut p);
    p
}

/// A copy with its end cut off, so that `left` bytes follow the IP header. The headers say so.
pub fn truncated(packet: &Packet, left: usize) -> Packet {
    let mut p = packet.clone();
    p.bytes.truncate(p.header + left);
    lengths(&mut p);
    p
}

/// A copy with one bit of the ESP packet changed; `at` counts bytes from the ESP header on.
#[track_caller]
pub fn flipped(packet: &Packet, at: usize) -> Packet {
    let mut p = packet.clone();
    let esp = p.esp_at().expect("an ESP packet");
    p.bytes[esp + at] ^= 0x10;
    lengths(&mut p);
    p
}

/// A copy with another SPI.
#[track_caller]
pub fn with_spi(packet: &Packet, spi: u32) -> Packet {
    let mut p = packet.clone();
    let esp = p.esp_at().expect("an ESP packet");
    p.bytes[esp..esp + 4].copy_from_slice(&spi.to_be_bytes());
    lengths(&mut p);
    p
}

/// GRE in the clear between the ends of `like`, around an Ethernet frame.
pub fn clear_gre(like: &Packet, frame: &[u8]) -> Packet {
    let mut p = like.clone();
    p.bytes.truncate(p.header);
    p.bytes.extend([0, 0, 0x65, 0x58]);
    p.bytes.extend(frame);
    p.protocol = 47;
    match p.bytes[0] >> 4 {
        4 => p.bytes[9] = 47,
        _ => p.bytes[6] = 47,
    }
    lengths(&mut p);
    p
}

/// Makes IP and UDP headers agree with the length; no UDP checksum, where that may be.
fn lengths(p: &mut Packet) {
    let (total, payload) = (p.bytes.len() as u16, (p.bytes.len() - p.header) as u16);
    match p.bytes[0] >> 4 {
        4 => p.bytes[2..4].copy_from_slice(&total.to_be_bytes()),
        _ => p.bytes[4..6].copy_from_slice(&payload.to_be_bytes()),
    }
    if p.protocol == 17 && usize::from(payload) >= 8 {
        let udp = p.header;
        p.bytes[udp + 4..udp + 6].copy_from_slice(&payload.to_be_bytes());
        p.bytes[udp + 6..udp + 8].fill(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made() -> Packet {
        esp("192.0.2.1", "192.0.2.2", 0x1001, 7, 32)
    }

    #[test]
    fn headers_follow_what_is_changed() {
        let short = truncated(&made(), 12);
        assert_eq!((short.bytes.len(), short.bytes[3], short.esp()), (32, 32, Some((0x1001, 7))));
        assert_eq!(flipped(&made(), 7).esp(), Some((0x1001, 7 ^ 0x10)));
        assert_eq!(with_spi(&made(), 9).esp(), Some((9, 7)));
        let clear = clear_gre(&made(), &[0xab; 60]);
        assert_eq!((clear.bytes[9], clear.bytes[3], clear.bytes.len()), (47, 84, 84));
        assert_eq!(&clear.payload()[..5], [0, 0, 0x65, 0x58, 0xab]);
    }
}
