//! Frames from a tunnel on their way to a local port. What comes out must come apart again into what went in: the same
//! frames, and within each flow in the same order.
#![no_main]

use std::collections::BTreeMap;

use arbitrary::Arbitrary;
use datapath::offload::{Coalescer, Fit, FrameSink, fit};
use datapath::slab::{Piece, SLOTS, Slab};
use datapath::txq::{MAX_PIECES, TxQueue};
use datapath::vnet::VnetHdr;
use datapath::wire::parse;
use etherparse::PacketBuilder;
use libfuzzer_sys::fuzz_target;

/// One frame.
#[derive(Debug, Arbitrary)]
enum Item {
    Raw(Vec<u8>),
    Segment(Segment),
}

/// A TCP segment or UDP datagram; its fields are few, so that many follow on each other.
#[derive(Debug, Arbitrary)]
struct Segment {
    flow: u8,
    udp: bool,
    /// Where the last one of its flow ended, or elsewhere.
    gap: Option<u32>,
    len: u16,
    psh: bool,
    flags: u8,
    ttl: u8,
    /// IPv4 only. The identification counts up by one, or jumps.
    df: bool,
    jump: u16,
    padding: u8,
    /// A byte to change, and how.
    damage: Option<(u16, u8)>,
}

#[derive(Default)]
struct Flow {
    seq: u32,
    id: u16,
}

impl Segment {
    fn frame(&self, flows: &mut BTreeMap<u8, Flow>) -> Vec<u8> {
        let number = self.flow % 12;
        let flow = flows.entry(number).or_default();
        flow.seq = flow.seq.wrapping_add(self.gap.unwrap_or(0));
        flow.id = flow.id.wrapping_add(1 + self.jump % 2);
        // mostly full segments of one size
        let len = if self.len < 0x8000 { 1000 } else { usize::from(self.len % 1600) };
        let ethernet = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
        let ip = if number.is_multiple_of(2) {
            let mut v4 = etherparse::Ipv4Header::new(
                0,
                64 + self.ttl % 2,
                etherparse::IpNumber::TCP,
                [10, 0, 0, number],
                [10, 0, 1, 1],
            )
            .expect("an empty payload");
            v4.dont_fragment = self.df;
            v4.identification = flow.id;
            ethernet.ip(etherparse::IpHeaders::Ipv4(v4, Default::default()))
        } else {
            ethernet.ipv6([0xfd; 16], [number; 16], 64 + self.ttl % 2)
        };
        let payload: Vec<u8> = (0..len).map(|i| (i as u8).wrapping_add(flow.seq as u8)).collect();
        let mut frame = Vec::new();
        let port = 1000 + u16::from(number);
        if self.udp {
            ip.udp(5201, port).write(&mut frame, &payload).expect("within all limits");
        } else {
            let mut tcp = ip.tcp(5201, port, flow.seq, 512).ack(7);
            if self.psh {
                tcp = tcp.psh();
            }
            if self.flags >= 0xf0 {
                tcp = tcp.fin();
            }
            tcp.write(&mut frame, &payload).expect("within all limits");
        }
        frame.resize(frame.len() + usize::from(self.padding % 8), 0);
        if let Some((at, with)) = self.damage {
            let at = usize::from(at) % frame.len();
            frame[at] ^= with;
        }
        flow.seq = flow.seq.wrapping_add(len as u32);
        frame
    }
}

struct Slots(Vec<Vec<u8>>);

impl FrameSink for Slots {
    fn slot(&mut self, len: usize) -> Option<&mut [u8]> {
        self.0.push(vec![0xa5; len]);
        self.0.last_mut().map(Vec::as_mut_slice)
    }
}

/// The frame without Ethernet padding, and without the identification where it means nothing (DF), so that frames that
/// stand for the same packet are equal.
fn essence(frame: &[u8]) -> Vec<u8> {
    let Some(ip) = parse(frame).and_then(|p| p.ip) else { return frame.to_vec() };
    let mut frame = frame[..ip.end].to_vec();
    if ip.version == datapath::wire::Version::V4 && ip.df {
        frame[ip.l3 + 4..ip.l3 + 6].fill(0);
        frame[ip.l3 + 10..ip.l3 + 12].fill(0);
    }
    frame
}

/// Bytes of a transport header, the least.
fn header(proto: u8) -> Option<usize> {
    match proto {
        6 => Some(20),
        17 => Some(8),
        _ => None,
    }
}

/// By flow: Ethernet header, addresses and ports; all that is neither TCP nor UDP counts as one.
fn by_flow(frames: &[Vec<u8>]) -> BTreeMap<Vec<u8>, Vec<Vec<u8>>> {
    let mut flows = BTreeMap::<_, Vec<_>>::new();
    for frame in frames {
        let key = match parse(frame).and_then(|p| p.ip) {
            // with a whole header
            Some(ip) if !ip.later_fragment && header(ip.proto).is_some_and(|len| ip.l4 + len <= ip.end) => {
                let mut key = frame[..ip.l3].to_vec();
                key.push(ip.proto);
                key.extend(ip.addresses(frame));
                key.extend(&frame[ip.l4..ip.l4 + 4]);
                key
            }
            _ => vec![],
        };
        flows.entry(key).or_default().push(essence(frame));
    }
    flows
}

fuzz_target!(|items: Vec<Item>| {
    let mut slab = Slab::new();
    let (mut coalescer, mut out, mut flows) = (Coalescer::new(), TxQueue::new(), BTreeMap::new());
    let mut given = Vec::new();
    for (i, item) in items.iter().take(SLOTS).enumerate() {
        let frame = match item {
            Item::Raw(bytes) => bytes.clone(),
            Item::Segment(segment) => segment.frame(&mut flows),
        };
        let piece = Piece { len: frame.len() as u32, ..Slab::slot(i) };
        slab.get_mut(piece).copy_from_slice(&frame);
        if !coalescer.follow(&mut slab, piece, &mut out) {
            coalescer.push(&mut slab, piece, &mut out);
        }
        given.push(frame);
    }
    coalescer.flush(&mut slab, &mut out);

    let mut taken = Slots(Vec::new());
    for frame in out.frames() {
        let pieces = out.pieces(frame);
        assert!(!pieces.is_empty() && pieces.len() <= MAX_PIECES);
        let bytes: Vec<u8> = pieces.iter().flat_map(|p| slab.get(*p)).copied().collect();
        assert_eq!(bytes.len(), frame.len as usize);
        match frame.vnet {
            vnet if vnet == VnetHdr::default() => taken.0.push(bytes),
            vnet => {
                let fitted = fit(&bytes, &vnet, usize::MAX, &mut taken);
                assert!(matches!(fitted, Fit::Sent(n) if n > 1), "{fitted:?}");
            }
        }
    }
    assert_eq!(by_flow(&given), by_flow(&taken.0));
});
