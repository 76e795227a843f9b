//! The hot functions one by one, for counting their instructions: `benches/instructions/run` runs this under callgrind and
//! holds the counts against `limits`.
//!
//! Seconds vary with the machine, instructions hardly: the same program executes the same ones. What may differ is kept
//! still: callgrind offers no AVX-512, so ring and the C library choose the same AVX2 code on every machine that has AVX2; the
//! FDB's seed is random, so its cases touch every entry once.
#![forbid(unsafe_code)]

#[path = "../benches/frames/mod.rs"]
mod frames;

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use datapath::esp::replay::{DEFAULT_WINDOW, ReplayWindow};
use datapath::esp::{InboundSa, OutboundSa, Road, SaConfig, SaKey, Selector, sealed_len};
use datapath::fdb::Fdb;
use datapath::offload::{Coalescer, Fit, fit};
use datapath::port::esp_device::{Batch, Hop, Ways};
use datapath::port::{RxPacket, RxRoad, TxPacket};
use datapath::slab::{Piece, SLOTS, Slab};
use datapath::snapshot::{Bridge, BridgeId, PolicyId, Port, PortId, PortKind, Snapshot};
use datapath::tunnel::carry::{Carry, Freight, Parcels};
use datapath::tunnel::decap::{Decap, decap};
use datapath::tunnel::encap::Encap;
use datapath::tunnel::{Demux, Outbox, Tunnel, TunnelConfig, Way};
use datapath::txq::TxQueue;
use datapath::wire::checksum::Sum;
use datapath::wire::parse;

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 9, 0, 1));
const THERE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 9, 0, 2));
const NOW: u32 = 1000;
const SEGMENTS: usize = 44;
const MACS: usize = 8192;

/// Executes the case for the `i`th time.
type Body = Box<dyn FnMut(usize)>;

struct Case {
    name: &'static str,
    /// How often it is executed.
    times: usize,
    make: fn() -> Body,
}

const fn case(name: &'static str, times: usize, make: fn() -> Body) -> Case {
    Case { name, times, make }
}

const CASES: [Case; 23] = [
    case("parse_tcp4", 100, || parsing(frames::tcp4(1, 64))),
    case("parse_tcp6", 100, || parsing(frames::tcp6(64))),
    case("parse_vlan_udp4", 100, || parsing(frames::vlan_udp4(64))),
    case("fdb_lookup_8192", MACS, || {
        let (fdb, macs) = table();
        Box::new(move |i| _ = black_box(fdb.lookup(0, black_box(macs[i % MACS]), NOW)))
    }),
    case("fdb_learn_known_8192", MACS, || {
        let (fdb, macs) = table();
        Box::new(move |i| _ = black_box(fdb.learn(0, black_box(macs[i % MACS]), PortId(1), NOW + 1)))
    }),
    case("replay_check_and_claim", 1000, || {
        let window = ReplayWindow::new(DEFAULT_WINDOW);
        Box::new(move |i| {
            let number = i as u64 + 1;
            _ = black_box((window.check(black_box(number)), window.claim(number)));
        })
    }),
    case("seal_64", 100, || sealing(64)),
    case("seal_1400", 100, || sealing(1400)),
    case("open_64", 100, || opening(64)),
    case("open_1400", 100, || opening(1400)),
    case("checksum_1400", 100, || {
        let bytes = vec![0x5a; 1400];
        Box::new(move |_| _ = black_box(Sum::of(black_box(&bytes)).checksum()))
    }),
    case("checksum_and_copy_1400", 100, || {
        let (from, mut to) = (vec![0x5a; 1400], vec![0; 1400]);
        Box::new(move |_| _ = black_box(Sum::copy(black_box(&from), &mut to).checksum()))
    }),
    case("encap_small", 100, || encapsulating(false, 64)),
    case("encap_small_esp", 100, || encapsulating(true, 64)),
    case("encap_superframe", 10, || encapsulating(false, SEGMENTS * frames::MSS)),
    case("encap_superframe_esp", 10, || encapsulating(true, SEGMENTS * frames::MSS)),
    case("carry_small", 100, || carrying(64)),
    case("carry_superframe", 100, || carrying(SEGMENTS * frames::MSS)),
    case("esp_trains_44", 100, || trains(SEGMENTS)),
    case("decap_1400", 100, || decapsulating(1400)),
    case("inward_42", 10, || receiving(42)),
    case("coalesce_44", 10, || coalescing(SEGMENTS)),
    case("coalesce_1", 100, || coalescing(1)),
];

fn main() -> ExitCode {
    let wanted = std::env::args().nth(1);
    let Some(wanted) = wanted else {
        CASES.iter().for_each(|case| println!("{} {}", case.name, case.times));
        return ExitCode::SUCCESS;
    };
    let Some(case) = CASES.iter().find(|case| case.name == wanted) else {
        eprintln!("there is no case '{wanted}'");
        return ExitCode::FAILURE;
    };
    let mut body = (case.make)();
    body(0); // what happens only the first time
    counted(&mut *body, case.times);
    ExitCode::SUCCESS
}

/// callgrind counts what happens in here.
#[inline(never)]
fn counted(body: &mut dyn FnMut(usize), times: usize) {
    (1..=times).for_each(body);
}

fn parsing(frame: Vec<u8>) -> Body {
    Box::new(move |_| _ = black_box(parse(black_box(&frame))))
}

/// A full table, and what is in it.
fn table() -> (Fdb, Vec<[u8; 6]>) {
    let fdb = Fdb::new(MACS, 300);
    let mac = |i: u64| {
        let [a, b, c, d, e, ..] = (i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes();
        [2, a, b, c, d, e]
    };
    let macs: Vec<_> = (0..MACS as u64).map(mac).collect();
    for mac in &macs {
        fdb.learn(0, *mac, PortId(1), NOW);
    }
    (fdb, macs)
}

fn sa_config() -> SaConfig {
    SaConfig {
        spi: 0x1234_5678,
        selector: Selector::Gre,
        local: HERE,
        remote: THERE,
        esn: true,
        road: Road::Esp,
        hard_packets: u64::MAX,
        hard_bytes: u64::MAX,
    }
}

fn outbound() -> OutboundSa {
    OutboundSa::new(sa_config(), key())
}

/// AES-256-GCM.
fn key() -> SaKey {
    SaKey::aes_gcm(&[7; 36]).unwrap_or_else(|| unreachable!("a right length"))
}

fn sealing(len: usize) -> Body {
    let (sa, mut packet) = (outbound(), vec![0xa5; sealed_len(len)]);
    Box::new(move |_| {
        let number = sa.number(len as u64, NOW).unwrap_or(0);
        _ = black_box(sa.seal(number, len, black_box(&mut packet)));
    })
}

fn opening(len: usize) -> Body {
    let sa = outbound();
    let mut packets: Vec<Vec<u8>> = vec![vec![0xa5; sealed_len(len)]; 128];
    for packet in &mut packets {
        let number = sa.number(len as u64, NOW).unwrap_or(0);
        assert!(sa.seal(number, len, packet));
    }
    let sa = InboundSa::new(sa_config(), key(), PolicyId(0), DEFAULT_WINDOW);
    Box::new(move |i| assert!(sa.open(black_box(&mut packets[i]), NOW).is_ok()))
}

fn tunnel() -> Tunnel {
    Tunnel::new(TunnelConfig::to(THERE), Some(HERE), 1500)
}

/// A TCP frame with that much payload through a tunnel, in one segment or more.
fn encapsulating(protected: bool, payload: usize) -> Body {
    let (tunnel, sa, mut outbox) = (tunnel(), outbound(), Outbox::new());
    let (frame, vnet) = match payload / frames::MSS {
        0 => (frames::tcp4(1, payload), Default::default()),
        segments => frames::superframe(segments),
    };
    Box::new(move |_| {
        outbox.clear();
        let way = if protected { Way::Protected(&sa) } else { Way::Plain };
        let inner = parse(&frame).and_then(|parsed| parsed.ip);
        if let Some(mut encap) = Encap::new(&tunnel, PortId(0), way, inner.as_ref(), NOW, &mut outbox) {
            _ = black_box(fit(black_box(&frame), &vnet, tunnel.max_frame(way.road()), &mut encap));
            encap.finish();
        }
    })
}

/// A TCP frame with that much payload, whole, for the kernel to cut.
fn carrying(payload: usize) -> Body {
    let (tunnel, mut parcels, mut slab) = (tunnel(), Parcels::new(), Slab::new());
    tunnel.egress.store(2, Relaxed);
    let (frame, vnet) = match payload / frames::MSS {
        0 => (frames::tcp4(1, payload), Default::default()),
        segments => frames::superframe(segments),
    };
    let data = Piece { len: frame.len() as u32, ..Slab::slot(0) };
    slab.get_mut(data).copy_from_slice(&frame);
    Box::new(move |_| {
        parcels.clear();
        let inner = parse(slab.get(data)).and_then(|parsed| parsed.ip);
        let carry = inner.as_ref().and_then(|ip| {
            let carry = Carry::new(&tunnel, PortId(0), ip, &mut parcels)?;
            Some((carry, Freight { slab: &slab, data, vnet: &vnet, ip }))
        });
        let Some((mut carry, freight)) = carry else { unreachable!("a tunnel with a device") };
        assert!(matches!(black_box(carry.carry(black_box(&freight))), Fit::Sent(_)));
    })
}

/// ESP packets as they wait in an outbox, in trains for the lane.
fn trains(packets: usize) -> Body {
    const LEN: usize = 1480;
    let IpAddr::V4(to) = THERE else { unreachable!("IPv4") };
    let mut packet = vec![0x5a; LEN];
    packet[..20].copy_from_slice(&[0x45, 0, 5, 200, 0, 0, 0x40, 0, 64, 50, 0, 0, 10, 9, 0, 1, 10, 9, 0, 2]);
    let buf = packet.repeat(packets);
    let list: Vec<_> =
        (0..packets).map(|i| TxPacket::raw((i * LEN) as u32, LEN as u32, THERE, PortId(0))).collect();
    let hop = Hop { ifindex: 2, from: [2; 6], to: [4; 6], mtu: 1500 };
    let ways: Ways = [(to, hop)].into_iter().collect();
    Box::new(move |_| assert_eq!(black_box(Batch::new(black_box(&buf), &list).fill(&ways)), packets))
}

/// A GRE packet as it comes from the socket.
fn decapsulating(len: usize) -> Body {
    let port = Arc::new(Port::new(PortId(0), BridgeId(0), 1, "gre0", PortKind::Tunnel(Arc::new(tunnel()))));
    let bridge = Bridge { flood: vec![], ..Bridge::new("br0", Arc::new(Fdb::new(8, 300))) };
    let snapshot = Snapshot {
        bridges: vec![Some(Arc::new(bridge))],
        demux: Demux::build([&port].into_iter()).unwrap_or_default(),
        ports: vec![Some(port)],
        ..Snapshot::default()
    };
    let packet = [vec![0, 0, 0x65, 0x58], frames::tcp4(1, len)].concat();
    let mut slab = Slab::new();
    let data = Piece { len: packet.len() as u32, ..Slab::slot(0) };
    slab.get_mut(data).copy_from_slice(&packet);
    let packet = RxPacket { data, road: RxRoad::Gre, src_port: 0, src: THERE, dst: HERE, tos: 0 };
    Box::new(move |_| assert!(decap(&snapshot, &mut slab, black_box(&packet), NOW).is_ok()))
}

/// Trains of ESP packets as they come from the socket, to superframes. No slot has room for more.
fn receiving(segments: usize) -> Body {
    let port = Arc::new(Port::new(
        PortId(0),
        BridgeId(0),
        1,
        "gre0",
        PortKind::Tunnel(Arc::new(Tunnel { policy: Some(PolicyId(0)), ..tunnel() })),
    ));
    let inbound = Arc::new(InboundSa::new(sa_config(), key(), PolicyId(0), DEFAULT_WINDOW));
    let snapshot = Snapshot {
        demux: Demux::build([&port].into_iter()).unwrap_or_default(),
        ports: vec![Some(port)],
        inbound: [(sa_config().spi, inbound)].into_iter().collect(),
        ..Snapshot::default()
    };
    let (sa, mut slab) = (outbound(), Slab::new());
    let (mut coalescer, mut out) = (Coalescer::new(), TxQueue::new());
    let mut trains = Vec::new();
    for slot in 0..SLOTS {
        let mut data = Slab::slot(slot);
        let mut train = Vec::new();
        for i in 0..segments {
            let frame = frames::tcp4((1 + i * frames::MSS) as u32, frames::MSS);
            let payload = [&[0, 0, 0x65, 0x58], &frame[..]].concat();
            data.len = sealed_len(payload.len()) as u32;
            let packet = slab.get_mut(data);
            packet[16..16 + payload.len()].copy_from_slice(&payload);
            let number = sa.number(payload.len() as u64, NOW).unwrap_or(0);
            assert!(sa.seal(number, payload.len(), packet));
            train.push(RxPacket { data, road: RxRoad::Esp, src_port: 0, src: THERE, dst: HERE, tos: 0 });
            data.off += data.len;
        }
        trains.push(train);
    }
    Box::new(move |i| {
        slab.reset();
        out.clear();
        let mut decap = Decap::new(&snapshot, NOW);
        for packet in &trains[i] {
            let Ok(unpacked) = decap.unpack(&mut slab, black_box(packet)) else {
                unreachable!("a good packet")
            };
            if !coalescer.follow(&mut slab, unpacked.data, &mut out) {
                assert!(decap.finish(&mut slab, &unpacked).is_ok());
                coalescer.push(&mut slab, unpacked.data, &mut out);
            }
        }
        coalescer.flush(&mut slab, &mut out);
        assert_eq!(black_box(out.frames()).len(), 1);
    })
}

/// Segments of one flow as they come from a tunnel.
fn coalescing(segments: usize) -> Body {
    let (mut slab, mut out, mut coalescer) = (Slab::new(), TxQueue::new(), Coalescer::new());
    let mut pieces = Vec::new();
    for i in 0..segments {
        let frame = frames::tcp4((1 + i * frames::MSS) as u32, frames::MSS);
        let piece = Piece { len: frame.len() as u32, ..Slab::slot(i) };
        slab.get_mut(piece).copy_from_slice(&frame);
        pieces.push(piece);
    }
    Box::new(move |_| {
        slab.reset();
        out.clear();
        for piece in &pieces {
            coalescer.push(&mut slab, black_box(*piece), &mut out);
        }
        coalescer.flush(&mut slab, &mut out);
        assert_eq!(black_box(out.frames()).len(), 1);
    })
}
