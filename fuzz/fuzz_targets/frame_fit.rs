//! A frame from a local port, with whatever offload header, on its way into a tunnel of whatever width.
//!
//! Input: 10 bytes virtio_net_hdr, 2 bytes width (little-endian), the frame.
#![no_main]

use datapath::offload::{Fit, FrameSink, MAX_ANSWER, clamp_mss, fit, too_big};
use datapath::vnet::VnetHdr;
use datapath::wire::checksum::{Sum, pseudo};
use datapath::wire::{parse, proto};
use etherparse::{NetSlice, SlicedPacket};
use libfuzzer_sys::fuzz_target;

/// Like a tunnel's send buffer, and as limited.
struct Slots(Vec<Vec<u8>>);

impl FrameSink for Slots {
    fn slot(&mut self, len: usize) -> Option<&mut [u8]> {
        if self.0.len() == 128 {
            return None;
        }
        // not zero: what is left unwritten shall show
        self.0.push(vec![0xa5; len]);
        self.0.last_mut().map(Vec::as_mut_slice)
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((header, rest)) = data.split_first_chunk::<10>() else { return };
    let Some((width, frame)) = rest.split_first_chunk::<2>() else { return };
    let vnet: VnetHdr = zerocopy::transmute!(*header);
    let max_frame = usize::from(u16::from_le_bytes(*width));

    let mut sink = Slots(Vec::new());
    match fit(frame, &vnet, max_frame, &mut sink) {
        Fit::Sent(count) => assert_eq!(count, sink.0.len()),
        Fit::TooBig { ip_mtu } => {
            assert!(sink.0.is_empty(), "a part was sent");
            answer(frame, ip_mtu);
        }
        Fit::Dropped(_) => {}
    }
    for sent in &sink.0 {
        assert!(sent.len() <= max_frame);
        frame_is_sound(frame, &vnet, sent);
    }
    answer(frame, max_frame as u16);

    let mut clamped = frame.to_vec();
    if let Some(ip) = parse(frame).and_then(|parsed| parsed.ip) {
        clamp_mss(&mut clamped, &ip, &vnet, || max_frame);
    }
    assert_eq!(clamped.len(), frame.len());
    if !vnet.needs_csum() {
        assert_eq!(tcp_checksum_ok(frame), tcp_checksum_ok(&clamped));
    }
});

/// An IP packet stays one, and a superframe's segments have right checksums.
fn frame_is_sound(before: &[u8], vnet: &VnetHdr, after: &[u8]) {
    let Some(ip) = parse(before).and_then(|p| p.ip) else { return };
    let Some(sent) = parse(after).and_then(|p| p.ip) else { panic!("{after:02x?} is no IP packet any more") };
    assert_eq!((ip.version, ip.l3), (sent.version, sent.l3));
    assert_eq!(ip.addresses(before), sent.addresses(after));
    if vnet.is_gso() && vnet.needs_csum() && !ip.routed && !sent.fragment && ip.proto == proto::TCP {
        assert_eq!(tcp_checksum_ok(after), Some(true), "{after:02x?}");
    }
    // a header that lies about the checksum's place may spoil what stands there
    if !vnet.needs_csum() && SlicedPacket::from_ethernet(&before[..ip.end]).is_ok_and(|p| p.net.is_some()) {
        assert!(SlicedPacket::from_ethernet(after).is_ok(), "{after:02x?}");
    }
}

/// None: not a whole TCP packet.
fn tcp_checksum_ok(frame: &[u8]) -> Option<bool> {
    let ip = parse(frame)?.ip.filter(|ip| ip.proto == proto::TCP && !ip.fragment && !ip.routed)?;
    let segment = frame.get(ip.l4..ip.end)?;
    Some((pseudo(ip.addresses(frame), proto::TCP, segment.len()) + Sum::of(segment)).is_valid())
}

/// The ICMP answer, if there may be one, is a packet that another stack takes.
fn answer(frame: &[u8], ip_mtu: u16) {
    let mut out = [0xa5; MAX_ANSWER];
    let Some(len) = too_big(frame, ip_mtu, &mut out) else { return };
    let (answer, beyond) = out.split_at(len);
    assert!(beyond.iter().all(|b| *b == 0xa5), "written beyond the end");
    assert_eq!((answer.get(..6), answer.get(6..12)), (frame.get(6..12), frame.get(..6)));
    // etherparse reads three VLAN tags at most
    let l3 = parse(answer).expect("a frame").link.len;
    match SlicedPacket::from_ip(&answer[l3..]).expect("a sound packet").net {
        Some(NetSlice::Ipv4(ip)) => {
            assert_eq!(ip.header().header_checksum(), ip.header().to_header().calc_header_checksum());
            assert!(Sum::of(ip.payload().payload).is_valid());
        }
        Some(NetSlice::Ipv6(ip)) => {
            let body = ip.payload().payload;
            let addresses = [ip.header().source(), ip.header().destination()].concat();
            assert!((pseudo(&addresses, proto::ICMPV6, body.len()) + Sum::of(body)).is_valid());
        }
        _ => panic!("no IP packet: {answer:02x?}"),
    }
    // no answer to an answer: two switches must not talk about it for ever
    assert_eq!(too_big(answer, ip_mtu, &mut [0; MAX_ANSWER]), None);
}
