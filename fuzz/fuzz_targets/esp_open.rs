//! ESP packets from the underlay, forged, replayed and sealed with the right key, on their way to a protected tunnel.
//!
//! Input: a byte whose lowest bit says whether sequence numbers are extended, and the next two what the SA is for; a byte for the
//! window's width; then packets: a byte of [flags](SEALED), the whole sequence number (8, little-endian), the next header, the
//! length of what follows (2, little-endian), and the payload or, when it is not to be sealed, the packet.
#![no_main]

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::AtomicU16;
use std::sync::{Arc, LazyLock};

use datapath::counters::DropReason;
use datapath::esp::key::Aad;
use datapath::esp::open::unpad;
use datapath::esp::seal::seal;
use datapath::esp::{ICV, InboundSa, PAYLOAD, Road, SaConfig, SaKey, Selector, sealed_len};
use datapath::port::{InUdp, RxPacket, RxRoad};
use datapath::slab::{Piece, Slab};
use datapath::snapshot::{BridgeId, Policy, PolicyId, Port, PortId, PortKind, Snapshot};
use datapath::tunnel::decap::decap;
use datapath::tunnel::{Demux, Tunnel, TunnelConfig};
use datapath::wire::proto;
use libfuzzer_sys::fuzz_target;

/// The rest is a payload: seal it. Otherwise it is what somebody without the key sends.
const SEALED: u8 = 1;
/// It comes in UDP.
const UDP: u8 = 2;
/// It comes from somewhere else.
const ELSEWHERE: u8 = 4;
/// It is sealed, and damaged on its way.
const DAMAGED: u8 = 8;

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const THERE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));
const ELSE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 3));
const SPI: u32 = 0x0102_0304;

const VXLAN: InUdp = InUdp::Vxlan(4789);
const GENEVE: InUdp = InUdp::Geneve(6081);
/// What SAs are for.
const SELECTORS: [Selector; 4] = [
    Selector::Gre,
    Selector::InUdp { kind: VXLAN, from_port: false },
    Selector::InUdp { kind: VXLAN, from_port: true },
    Selector::InUdp { kind: GENEVE, from_port: false },
];

static KEY: LazyLock<SaKey> = LazyLock::new(key);

fn key() -> SaKey {
    SaKey::aes_gcm(&[0x42; 20]).expect("16 bytes of key and 4 of salt")
}

/// A tunnel of each kind, and the SA of one of them.
fn host(esn: bool, selector: Selector, window: u32) -> (Snapshot, Arc<InboundSa>) {
    let config = SaConfig {
        selector,
        spi: SPI,
        local: HERE,
        remote: THERE,
        esn,
        road: Road::Udp { remote_port: Arc::new(AtomicU16::new(4500)), local_port: 4500 },
        hard_packets: u64::MAX,
        hard_bytes: u64::MAX,
    };
    let sa = Arc::new(InboundSa::new(config, key(), PolicyId(0), window));
    let kinds = [None, Some(VXLAN), Some(GENEVE)];
    let protected = match selector {
        Selector::Gre => None,
        Selector::InUdp { kind, .. } => Some(kind),
    };
    let port = |(i, in_udp): (u16, Option<InUdp>)| {
        let tunnel = Tunnel::new(TunnelConfig { in_udp, ..TunnelConfig::to(THERE) }, Some(HERE), 1500);
        // that of another kind has another policy
        let policy = Some(PolicyId(u16::from(in_udp != protected)));
        let kind = PortKind::Tunnel(Arc::new(Tunnel { policy, ..tunnel }));
        Arc::new(Port::new(PortId(i), BridgeId(0), i + 1, format!("t{i}"), kind))
    };
    let ports: Vec<_> = (0..).zip(kinds).map(port).collect();
    let policy = |name: &str| {
        Some(Arc::new(Policy {
            name: name.into(),
            local: None,
            remote: THERE,
            outbound: None,
            may_send_plain: false,
        }))
    };
    let mut snapshot = Snapshot {
        demux: Demux::build(ports.iter()).expect("tunnels that differ"),
        ports: ports.into_iter().map(Some).collect(),
        policies: vec![policy("t"), policy("others")],
        ..Snapshot::default()
    };
    snapshot.inbound.insert(SPI, Arc::clone(&sa));
    (snapshot, sa)
}

/// The window in the simplest words.
struct Model {
    esn: bool,
    width: u64,
    top: u64,
    seen: BTreeSet<u64>,
}

impl Model {
    /// Whether a genuine packet with that number is taken.
    fn takes(&self, number: u64) -> bool {
        let bottom = self.top.saturating_sub(self.width - 1);
        let reach = if self.esn { bottom.saturating_add(u32::MAX.into()) } else { u32::MAX.into() };
        (bottom..=reach).contains(&number) && number != 0 && !self.seen.contains(&number)
    }
}

fuzz_target!(|data: &[u8]| {
    if let Ok((len, _)) = unpad(data) {
        assert!(len + 2 <= data.len());
    }
    let [kind, width, rest @ ..] = data else { return };
    let mut rest = rest;
    let (esn, width) = (kind & 1 != 0, 32 + 8 * u32::from(*width));
    let selector = SELECTORS[usize::from(kind >> 1 & 3)];
    let (snapshot, sa) = host(esn, selector, width);
    let mut slab = Slab::new();
    let mut model = Model { esn, width: width.into(), top: 0, seen: BTreeSet::new() };
    while let Some((record, after)) = rest.split_first_chunk::<12>() {
        let [flags, number @ .., next_header, len_low, len_high] = *record;
        let number = u64::from_le_bytes(number);
        let (payload, after) =
            after.split_at(usize::from(u16::from_le_bytes([len_low, len_high])).min(after.len()));
        rest = after;

        let mut packet = payload.to_vec();
        if flags & SEALED != 0 {
            packet = vec![0; sealed_len(payload.len())];
            packet[PAYLOAD..][..payload.len()].copy_from_slice(payload);
            let aad = Aad { spi: SPI, number, esn };
            seal(&KEY, aad, number.to_be_bytes(), payload.len(), next_header, &mut packet)
                .expect("the length");
        }
        if flags & DAMAGED != 0
            && let Some(last) = packet.last_mut()
        {
            *last ^= 1;
        }
        let data = Piece { len: packet.len() as u32, ..Slab::slot(0) };
        slab.get_mut(data).copy_from_slice(&packet);
        let rx = RxPacket {
            data,
            road: if flags & UDP != 0 { RxRoad::Udp } else { RxRoad::Esp },
            src: if flags & ELSEWHERE != 0 { ELSE } else { THERE },
            src_port: 4500,
            dst: HERE,
            tos: 0,
        };
        let before = sa.usage();
        let result = decap(&snapshot, &mut slab, &rx, 0);

        // without extended numbers the high half is not sent, and counts for nothing
        let number = if esn { number } else { u64::from(number as u32) };
        let genuine = flags & (SEALED | DAMAGED | ELSEWHERE) == SEALED && model.takes(number);
        assert_eq!(sa.usage().packets - before.packets, u64::from(genuine), "{result:?}");
        if genuine {
            model.top = model.top.max(number);
            assert!(model.seen.insert(number));
        }
        assert_eq!(sa.usage().sequence, model.top);
        match result {
            Ok((port, frame, _)) => {
                assert!(genuine && next_header == selector.protocol());
                let Some(PortKind::Tunnel(tunnel)) = snapshot.port(port).map(|port| &port.kind) else {
                    unreachable!("a tunnel");
                };
                assert_eq!(tunnel.policy, Some(sa.policy));
                let ports =
                    payload.first_chunk().map(|[a, b, c, d]| [[*a, *b], [*c, *d]].map(u16::from_be_bytes));
                // RFC 2784: at least four bytes of header; of VXLAN and Geneve, and of UDP, eight
                let header = match selector {
                    Selector::Gre => 4,
                    Selector::InUdp { kind, from_port } => {
                        let [from, to] = ports.expect("ports");
                        assert!(to == kind.port() && (!from_port || from == kind.port()));
                        16
                    }
                };
                assert!(frame.off >= data.off + (PAYLOAD + header) as u32);
                assert!(frame.off + frame.len <= data.off + data.len - (2 + ICV) as u32);
            }
            Err(DropReason::EspDummy) => assert!(genuine && next_header == proto::NO_NEXT_HEADER),
            Err(DropReason::EspPadding) => unreachable!("seal pads as it should"),
            Err(_) => {}
        }
    }
});
