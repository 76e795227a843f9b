//! The two eBPF programs: what they do to a packet is all that there is of UDP, and none of it is seen on the wire.

use std::os::fd::BorrowedFd;

use crate::sys::bpf::Reg::{self, *};
use crate::sys::bpf::{Assembler, Hook, If, Label, LoadError, Op, Program, ProgramKind, Size, helper};
use crate::wire::{ethernet, ipv4, proto, udp};

/// `enum xdp_action`
const XDP_DROP: i32 = 1;
const XDP_PASS: i32 = 2;

/// Where things stand in a frame without VLAN tag whose IPv4 header has no options.
const IP: i16 = ethernet::HEADER as i16;
const TOTAL_LEN: i16 = IP + 2;
const FRAGMENT: i16 = IP + 6;
const PROTOCOL: i16 = IP + 9;
const IP_CHECKSUM: i16 = IP + 10;
const SOURCE: i16 = IP + 12;
const DESTINATION: i16 = IP + 16;
/// The UDP header, or the SPI where there is none.
const UDP: i16 = IP + ipv4::HEADER as i16;
const UDP_LEN: i16 = UDP + 4;
const UDP_CHECKSUM: i16 = UDP + 6;

/// Bytes of a UDP header: by as many the programs move the front of a frame.
const SHIFT: i16 = udp::HEADER as i16;

/// What the sum over an IPv4 header grows by when a UDP header is put behind it (RFC 1624): total length and protocol. Negative.
const GROWTH: i32 = SHIFT as i32 + proto::UDP as i32 - proto::ESP as i32;

/// Bytes that the kernel sums up at a time. It took no more at once before Linux 6.13.
const SUMMED: i32 = 512;
/// As often as that fits into the longest frame that a driver hands to XDP in one piece, a page.
const SUMS: usize = 8;

/// Inward. ESP to one of our addresses with one of our SPIs gets a UDP header, from port 0 (which no sender has) to `port`:
///
/// 1. an IPv4 packet without options, no fragment, protocol 50, as long as the frame says: all others pass as they are;
/// 2. its destination and SPI must be in `spis`;
/// 3. Ethernet and IP header move to the front, IP's checksum follows (RFC 1624);
/// 4. the UDP header goes into the gap, with its checksum: the kernel joins no datagrams without one.
pub(super) fn inward(spis: BorrowedFd<'_>, port: u16) -> Result<Program, LoadError> {
    let mut asm = Assembler::new();
    let (pass, drop) = (asm.label(), asm.label());
    asm.mov(R6, R1);
    bounds(&mut asm, UDP + 8, R8, pass);
    for (size, at, wanted) in [
        (Size::H, IP - 2, i32::from(ethernet::IPV4.to_be())),
        (Size::B, IP, 0x45),
        (Size::B, PROTOCOL, i32::from(proto::ESP)),
    ] {
        asm.load(size, R1, R2, at);
        asm.jump(If::Ne, R1, wanted, pass);
    }
    // neither more fragments nor an offset
    asm.load(Size::H, R1, R2, FRAGMENT);
    asm.jump(If::Set, R1, i32::from(0x3fffu16.to_be()), pass);
    // R7: total length, which ESP has in words of four bytes
    asm.load(Size::H, R7, R2, TOTAL_LEN);
    asm.swap(R7, 16);
    asm.mov(R1, R8);
    asm.alu(Op::Sub, R1, R2);
    asm.alu(Op::Sub, R1, i32::from(IP));
    asm.jump(If::Ne, R1, R7, pass);
    asm.jump(If::Set, R7, 3, pass);
    asm.jump(If::Gt, R7, SUMMED * SUMS as i32, pass);

    asm.load(Size::W, R1, R2, DESTINATION);
    asm.store(Size::W, R10, -8, R1);
    asm.load(Size::W, R1, R2, UDP);
    asm.store(Size::W, R10, -4, R1);
    asm.map(R1, spis);
    asm.mov(R2, R10);
    asm.alu(Op::Add, R2, -8);
    asm.call(helper::MAP_LOOKUP);
    asm.jump(If::Eq, R0, 0, pass);

    asm.mov(R1, R6);
    asm.mov(R2, -i32::from(SHIFT));
    asm.call(helper::XDP_ADJUST_HEAD);
    asm.jump(If::Ne, R0, 0, pass);
    bounds(&mut asm, UDP + SHIFT, R8, drop);
    for at in (SHIFT..UDP).step_by(8) {
        asm.load(Size::D, R1, R2, at);
        asm.store(Size::D, R2, at - SHIFT, R1);
    }
    asm.load(Size::H, R1, R2, UDP + SHIFT - 2);
    asm.store(Size::H, R2, UDP - 2, R1);
    asm.alu(Op::Add, R7, i32::from(SHIFT));
    finish_ip(&mut asm, proto::UDP, -GROWTH);

    asm.alu(Op::Sub, R7, ipv4::HEADER as i32);
    asm.swap(R7, 16);
    asm.store(Size::H, R2, UDP, 0);
    asm.store(Size::H, R2, UDP + 2, i32::from(port.to_be() as i16));
    asm.store(Size::H, R2, UDP_LEN, R7);
    asm.store(Size::H, R2, UDP_CHECKSUM, 0);
    // the pseudo-header: length and protocol here, the addresses stand before the UDP header
    asm.mov(R9, R7);
    asm.alu(Op::Add, R9, i32::from(u16::from(proto::UDP).to_be()));
    asm.mov(R7, R2);
    asm.alu(Op::Add, R7, i32::from(SOURCE));
    sum(&mut asm);
    bounds(&mut asm, UDP + SHIFT, R8, drop);
    asm.store(Size::H, R2, UDP_CHECKSUM, R9);

    asm.place(pass);
    asm.mov(R0, XDP_PASS);
    asm.exit();
    asm.place(drop);
    asm.mov(R0, XDP_DROP);
    asm.exit();
    Program::load(ProgramKind::Xdp, Hook::Xdp, "up_esp_in", asm)
}

/// Outward, on the far end of the lane. Every frame there is a datagram that the kernel has cut off a train: its UDP header
/// goes, and the frame leaves by the device whose index stood in the place of the ports, if `devices` has it.
pub(super) fn outward(devices: BorrowedFd<'_>) -> Result<Program, LoadError> {
    let mut asm = Assembler::new();
    let drop = asm.label();
    asm.mov(R6, R1);
    bounds(&mut asm, UDP + SHIFT, R8, drop);
    asm.load(Size::B, R1, R2, PROTOCOL);
    asm.jump(If::Ne, R1, i32::from(proto::UDP), drop);
    asm.load(Size::W, R9, R2, UDP);
    asm.swap(R9, 32);
    asm.load(Size::H, R7, R2, TOTAL_LEN);
    asm.swap(R7, 16);
    asm.alu(Op::Sub, R7, i32::from(SHIFT));
    finish_ip(&mut asm, proto::ESP, 0xffff + GROWTH);
    // from the back, since what is written to lies behind what is read
    asm.load(Size::H, R1, R2, UDP - 2);
    asm.store(Size::H, R2, UDP + SHIFT - 2, R1);
    for at in (0..UDP - 2).step_by(8).rev() {
        asm.load(Size::D, R1, R2, at);
        asm.store(Size::D, R2, at + SHIFT, R1);
    }
    asm.mov(R1, R6);
    asm.mov(R2, i32::from(SHIFT));
    asm.call(helper::XDP_ADJUST_HEAD);
    asm.jump(If::Ne, R0, 0, drop);
    asm.map(R1, devices);
    asm.mov(R2, R9);
    asm.mov(R3, XDP_DROP);
    asm.call(helper::REDIRECT_MAP);
    asm.exit();
    asm.place(drop);
    asm.mov(R0, XDP_DROP);
    asm.exit();
    Program::load(ProgramKind::Xdp, Hook::Xdp, "up_esp_out", asm)
}

/// R2 is the frame's start, `end` its end; to `short` if it has fewer than `len` bytes. R6 must be the context.
fn bounds(asm: &mut Assembler, len: i16, end: Reg, short: Label) {
    asm.load(Size::W, R2, R6, 0);
    asm.load(Size::W, end, R6, 4);
    asm.mov(R1, R2);
    asm.alu(Op::Add, R1, i32::from(len));
    asm.jump(If::Gt, R1, end, short);
}

/// Writes total length (R7) and protocol of the IP header in the frame at R2. `checksum` is what to add to its checksum, as
/// a number that is not negative.
fn finish_ip(asm: &mut Assembler, protocol: u8, checksum: i32) {
    asm.mov(R1, R7);
    asm.swap(R1, 16);
    asm.store(Size::H, R2, TOTAL_LEN, R1);
    asm.store(Size::B, R2, PROTOCOL, i32::from(protocol));
    asm.load(Size::H, R1, R2, IP_CHECKSUM);
    asm.swap(R1, 16);
    asm.alu(Op::Add, R1, checksum);
    asm.mov(R3, R1);
    asm.alu(Op::Rsh, R3, 16);
    asm.alu(Op::And, R1, 0xffff);
    asm.alu(Op::Add, R1, R3);
    asm.swap(R1, 16);
    asm.store(Size::H, R2, IP_CHECKSUM, R1);
}

/// Makes of R9 the checksum over everything from R7 to the frame's end (R8), begun with R9.
fn sum(asm: &mut Assembler) {
    let sizes = std::iter::repeat_n(SUMMED, SUMS).chain([256, 128, 64, 32, 16, 8, 4]);
    let mut rest = asm.label();
    let mut before = SUMMED;
    for size in sizes {
        if size != before {
            asm.place(rest);
            (rest, before) = (asm.label(), size);
        }
        asm.mov(R1, R7);
        asm.alu(Op::Add, R1, size);
        asm.jump(If::Gt, R1, R8, rest);
        asm.mov(R1, 0);
        asm.mov(R2, 0);
        asm.mov(R3, R7);
        asm.mov(R4, size);
        asm.mov(R5, R9);
        asm.call(helper::CSUM_DIFF);
        asm.mov(R9, R0);
        asm.alu(Op::Add, R7, size);
    }
    asm.place(rest);
    // 32 bits, which the first addition leaves 17 of
    asm.alu(Op::Lsh, R9, 32);
    asm.alu(Op::Rsh, R9, 32);
    for _ in 0..2 {
        asm.mov(R1, R9);
        asm.alu(Op::Rsh, R1, 16);
        asm.alu(Op::And, R9, 0xffff);
        asm.alu(Op::Add, R9, R1);
    }
    asm.alu(Op::Xor, R9, 0xffff);
    let done = asm.label();
    asm.jump(If::Ne, R9, 0, done);
    // 0 would say that there is none (RFC 768)
    asm.mov(R9, 0xffff);
    asm.place(done);
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::sync::atomic::AtomicBool;
    use std::sync::atomic::Ordering::Relaxed;

    use etherparse::{IpNumber, PacketBuilder, SlicedPacket, TransportSlice};

    use super::*;
    use crate::sys::bpf::{Map, MapKind};

    const SPI: u32 = 0x1122_3344;
    const XDP_REDIRECT: u32 = 4;

    /// bpf(2) wants root: without it these say so and pass.
    fn map(kind: MapKind, key: usize) -> Option<Map> {
        match Map::new(kind, key, 4, 8, "test") {
            Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => {
                eprintln!("skipped, needs root");
                None
            }
            made => Some(made.unwrap()),
        }
    }

    fn spis() -> Option<Map> {
        let map = map(MapKind::Hash, 8)?;
        map.insert(&[[10, 9, 0, 1], SPI.to_be_bytes()].concat(), &[0; 4]).unwrap();
        Some(map)
    }

    /// ESP of `len` bytes in all, whose contents differ with each length.
    fn esp(len: usize) -> Vec<u8> {
        let mut payload: Vec<u8> = (0..len).map(|i| (i * 7 + len) as u8).collect();
        payload[..4].copy_from_slice(&SPI.to_be_bytes());
        let mut frame = Vec::new();
        let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4([10, 9, 0, 2], [10, 9, 0, 1], 61);
        builder.write(&mut frame, IpNumber(50), &payload).unwrap();
        frame
    }

    #[test]
    fn esp_of_ours_comes_as_udp_whose_checksums_are_right() {
        let Some(spis) = spis() else { return };
        let program = inward(spis.as_fd(), 4500).unwrap();
        for len in (36..1480).step_by(4).chain([2000, 3000]) {
            let frame = esp(len);
            let (action, wrapped) = program.test_run(&frame).unwrap();
            assert_eq!(action, XDP_PASS as u32, "{len}");
            assert_eq!(wrapped.len(), frame.len() + 8, "{len}");
            let sliced = SlicedPacket::from_ethernet(&wrapped).unwrap();
            let Some(etherparse::NetSlice::Ipv4(ip)) = &sliced.net else { panic!("{len}") };
            assert_eq!(
                ip.header().header_checksum(),
                ip.header().to_header().calc_header_checksum(),
                "{len}"
            );
            assert_eq!((ip.header().ttl(), ip.header().source()), (61, [10, 9, 0, 2]), "{len}");
            let Some(TransportSlice::Udp(udp)) = &sliced.transport else { panic!("{len}") };
            assert_eq!((udp.source_port(), udp.destination_port()), (0, 4500), "{len}");
            assert_eq!(udp.payload(), &frame[34..], "{len}");
            let right = udp.to_header().calc_checksum_ipv4(&ip.header().to_header(), udp.payload()).unwrap();
            assert_eq!(udp.checksum(), right, "{len}");
        }
    }

    #[test]
    fn all_else_passes_untouched() {
        let Some(spis) = spis() else { return };
        let program = inward(spis.as_fd(), 4500).unwrap();
        let good = esp(100);
        let with = |at: usize, value: u8| {
            let mut frame = good.clone();
            frame[at] = value;
            frame
        };
        let mut padded = good.clone();
        padded.push(0);
        let others = [
            ("another SPI", with(34, 9)),
            ("another address", with(33, 2)),
            ("GRE", with(23, 47)),
            ("UDP", with(23, 17)),
            ("IPv6", with(12, 0x86)),
            ("options", with(14, 0x46)),
            ("first fragment", with(20, 0x20)),
            ("last fragment", with(21, 1)),
            ("longer than its header says", padded),
            ("shorter than its header says", good[..good.len() - 4].to_vec()),
            ("a total length of no ESP", { with(17, good[17] + 1) }),
            ("a runt", good[..41].to_vec()),
        ];
        for (what, frame) in others {
            let (action, after) = program.test_run(&frame).unwrap();
            assert_eq!((action, &after), (XDP_PASS as u32, &frame), "{what}");
        }
    }

    #[test]
    fn what_was_wrapped_is_unwrapped_and_leaves_by_its_device() {
        let (Some(spis), Some(devices)) = (spis(), map(MapKind::DevMapHash, 4)) else { return };
        let lo = 1u32.to_ne_bytes();
        devices.insert(&lo, &lo).unwrap();
        let (wrap, strip) = (inward(spis.as_fd(), 4500).unwrap(), outward(devices.as_fd()).unwrap());
        for len in [36, 40, 100, 1456] {
            let frame = esp(len);
            let (_, mut wrapped) = wrap.test_run(&frame).unwrap();
            wrapped[34..38].copy_from_slice(&1u32.to_be_bytes());
            let (action, after) = strip.test_run(&wrapped).unwrap();
            assert_eq!((action, &after), (XDP_REDIRECT, &frame), "{len}");
            wrapped[37] = 2;
            assert_eq!(strip.test_run(&wrapped).unwrap().0, XDP_DROP as u32, "no such device");
            assert_eq!(strip.test_run(&frame).unwrap().0, XDP_DROP as u32, "not of the lane");
        }
    }

    /// Control says again and again which devices there are, while packets leave by them.
    #[test]
    fn a_device_that_is_named_again_is_there_all_the_while() {
        let (Some(spis), Some(devices)) = (spis(), map(MapKind::DevMapHash, 4)) else { return };
        let (wrap, strip) = (inward(spis.as_fd(), 4500).unwrap(), outward(devices.as_fd()).unwrap());
        let (_, mut wrapped) = wrap.test_run(&esp(36)).unwrap();
        wrapped[34..38].copy_from_slice(&1u32.to_be_bytes());
        let lo = 1u32.to_ne_bytes();
        devices.add(&lo, &lo).unwrap();
        let done = AtomicBool::new(false);
        let lost = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Relaxed) {
                    devices.add(&lo, &lo).unwrap();
                }
            });
            let lost = (0..100_000).filter(|_| strip.test_run(&wrapped).unwrap().0 != XDP_REDIRECT).count();
            done.store(true, Relaxed);
            lost
        });
        assert_eq!(lost, 0);
    }
}
