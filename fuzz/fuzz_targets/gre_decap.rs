//! A packet from the underlay, on its way to the tunnel that it belongs to.
//!
//! Input: a byte that picks the sender, the receiver, the road and whether the GRE checksum is made right; the outer TOS; the
//! packet from the GRE, VXLAN or Geneve header on.
#![no_main]

use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use datapath::offload::{FrameSink, fit};
use datapath::port::{InUdp, RxPacket, RxRoad};
use datapath::slab::{Piece, Slab};
use datapath::snapshot::{BridgeId, Port, PortId, PortKind, Snapshot};
use datapath::tunnel::decap::decap;
use datapath::tunnel::{Demux, Tos, Tunnel, TunnelConfig};
use datapath::vnet::VnetHdr;
use datapath::wire::checksum::{Sum, pseudo};
use datapath::wire::{Version, gre, ipv4, parse, proto};
use libfuzzer_sys::fuzz_target;

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const SENDERS: [IpAddr; 4] = [
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 3)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 99)),
];

const ROADS: [Option<InUdp>; 4] =
    [None, Some(InUdp::Gre), Some(InUdp::Vxlan(4789)), Some(InUdp::Geneve(6081))];

thread_local! {
    static HOST: RefCell<(Snapshot, Slab)> = RefCell::new((snapshot(), Slab::new()));
}

/// Tunnels with and without key, local address, checksum and sequence number.
fn snapshot() -> Snapshot {
    let plain = TunnelConfig { tos: Tos::Inherit, ..TunnelConfig::to(SENDERS[0]) };
    let configs = [
        plain.clone(),
        TunnelConfig { in_key: Some(7), out_key: Some(7), ..plain.clone() },
        TunnelConfig { remote: SENDERS[1], local: Some(HERE), csum: true, seq: true, ..plain.clone() },
        TunnelConfig { remote: SENDERS[2], ..plain.clone() },
        TunnelConfig { in_udp: ROADS[1], ..plain.clone() },
        TunnelConfig { in_udp: ROADS[2], in_key: Some(7), ..plain.clone() },
        TunnelConfig { in_udp: ROADS[3], ..plain },
    ];
    let ports = configs.into_iter().enumerate().map(|(i, config)| {
        Some(Arc::new(Port::new(
            PortId(i as u16),
            BridgeId(0),
            i as u16 + 1,
            format!("gre{i}"),
            PortKind::Tunnel(Arc::new(Tunnel::new(config, None, 1500))),
        )))
    });
    let ports: Vec<_> = ports.collect();
    let demux = Demux::build(ports.iter().flatten()).expect("tunnels that differ");
    Snapshot { ports, demux, ..Snapshot::default() }
}

fuzz_target!(|data: &[u8]| {
    let [choice, tos, packet @ ..] = data else { return };
    HOST.with_borrow_mut(|(snapshot, slab)| {
        let data = Piece { len: packet.len() as u32, ..Slab::slot(0) };
        slab.get_mut(data).copy_from_slice(packet);
        if choice & 0x80 != 0 {
            gre::fill_checksum(slab.get_mut(data));
        }
        let src = SENDERS[usize::from(choice % 4)];
        let dst = if choice & 4 == 0 { HERE } else { SENDERS[3] };
        let before = slab.get(data).to_vec();
        let in_udp = ROADS[usize::from(choice >> 3 & 3)];
        let road = in_udp.map_or(RxRoad::Gre, RxRoad::InUdp);
        let packet = RxPacket { data, road, src, src_port: 0, dst, tos: *tos };
        let Ok((port, frame, vnet)) = decap(snapshot, slab, &packet, 0) else { return };

        let port = snapshot.port(port).expect("a port that is there");
        assert!(
            matches!(&port.kind, PortKind::Tunnel(t) if (t.config.remote, t.config.in_udp) == (src, in_udp))
        );
        assert!(frame.off >= data.off && frame.off + frame.len == data.off + data.len);
        let (before, after) = (&before[(frame.off - data.off) as usize..], slab.get(frame));
        assert_eq!(before.len(), after.len());
        if vnet == VnetHdr::default() {
            assert_eq!(sound(before), sound(after), "{before:02x?}\n{after:02x?}");
        }
        header_is_sound(after, &vnet);
        fit(after, &vnet, 1476, &mut Nowhere(vec![0; 65536]));
    });
});

/// What the kernel demands of an offload header (virtio_net_hdr_to_skb); it refuses the frame otherwise.
fn header_is_sound(frame: &[u8], vnet: &VnetHdr) {
    if vnet.needs_csum() {
        assert!(usize::from(vnet.csum_start.get()) + usize::from(vnet.csum_offset.get()) + 2 <= frame.len());
    }
    if vnet.is_gso() {
        assert!(vnet.needs_csum() && vnet.gso_size.get() > 0);
        assert!(usize::from(vnet.hdr_len.get()) <= frame.len());
    }
}

/// Where fitted frames are written over each other.
struct Nowhere(Vec<u8>);

impl FrameSink for Nowhere {
    fn slot(&mut self, len: usize) -> Option<&mut [u8]> {
        self.0.get_mut(..len)
    }
}

/// Which of the checksums inside are right; the outer mark and the MSS must change none of this.
fn sound(frame: &[u8]) -> Option<(bool, Option<bool>)> {
    let ip = parse(frame)?.ip?;
    let network = ip.version == Version::V6 || ipv4::checksum_ok(&frame[ip.l3..ip.l4]);
    let tcp = ip.proto == proto::TCP && !ip.fragment && !ip.routed;
    let segment = &frame[ip.l4..ip.end];
    let transport =
        tcp.then(|| (pseudo(ip.addresses(frame), proto::TCP, segment.len()) + Sum::of(segment)).is_valid());
    Some((network, transport))
}
