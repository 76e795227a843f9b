//! Frames as containers send them.
#![allow(dead_code, clippy::unwrap_used)] // each benchmark takes what it needs; etherparse fails on no constant input

use datapath::vnet::{F_NEEDS_CSUM, GSO_TCPV4, VnetHdr};
use etherparse::{PacketBuilder, SingleVlanHeader, VlanHeader, VlanId};

/// Payload bytes of a TCP segment with timestamps in a 1500-byte packet.
pub const MSS: usize = 1448;
/// Bytes of Ethernet, IPv4 and TCP with timestamps.
pub const HEADERS: usize = 14 + 20 + 32;

const A: [u8; 6] = [2, 0x42, 10, 0, 11, 2];
const B: [u8; 6] = [2, 0x42, 10, 0, 42, 2];

/// A TCP segment with that sequence number: ACK and timestamps, checksums right.
pub fn tcp4(seq: u32, payload: usize) -> Vec<u8> {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(A, B)
        .ipv4([10, 0, 11, 2], [10, 0, 42, 2], 64)
        .tcp(40_000, 5201, seq, 512)
        .ack(1)
        .options_raw(&[1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2])
        .unwrap()
        .write(&mut frame, &vec![0x5a; payload])
        .unwrap();
    frame
}

/// The same over IPv6.
pub fn tcp6(payload: usize) -> Vec<u8> {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(A, B)
        .ipv6([0xfd; 16], [0xfe; 16], 64)
        .tcp(40_000, 5201, 1, 512)
        .ack(1)
        .write(&mut frame, &vec![0x5a; payload])
        .unwrap();
    frame
}

/// A UDP datagram behind a VLAN tag.
pub fn vlan_udp4(payload: usize) -> Vec<u8> {
    let tag = SingleVlanHeader { vlan_id: VlanId::try_new(42).unwrap(), ..Default::default() };
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(A, B)
        .vlan(VlanHeader::Single(tag))
        .ipv4([10, 0, 11, 2], [10, 0, 42, 2], 64)
        .udp(40_000, 53)
        .write(&mut frame, &vec![0x5a; payload])
        .unwrap();
    frame
}

/// An ARP request.
pub fn arp() -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend(A);
    frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    frame.resize(42, 0);
    frame
}

/// A TCP superframe of `segments` full segments, as the kernel hands it over: checksum unfinished.
pub fn superframe(segments: usize) -> (Vec<u8>, VnetHdr) {
    let vnet = VnetHdr {
        flags: F_NEEDS_CSUM,
        gso_type: GSO_TCPV4,
        hdr_len: (HEADERS as u16).into(),
        gso_size: (MSS as u16).into(),
        csum_start: 34.into(),
        csum_offset: 16.into(),
    };
    (tcp4(1, segments * MSS), vnet)
}
