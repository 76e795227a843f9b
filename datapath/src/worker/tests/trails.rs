//! Frames out of a tunnel that follow on each other.

use super::*;
use crate::counters::PortStats;
use crate::offload::testing::{Spec, ip_of, payload_of};
use crate::port::{RxPacket, RxRoad};
use crate::sflow::Sampler;
use crate::slab::{Piece, Slab};
use crate::tunnel::{Demux, Tunnel, TunnelConfig};
use crate::worker::Worker;

const FAR: [u8; 4] = [10, 9, 0, 2];
const LEN: usize = 1000;

/// A bridge with a local port, 0, where the stream's receiver is, and a tunnel, 1.
fn tunneled(change: impl FnOnce(&mut Bridge)) -> (Switch, Arc<Port>) {
    let s = Switch::new(1, 1);
    let tunnel = Tunnel::new(TunnelConfig::to(FAR.into()), None, 1500);
    let port = Port::new(PortId(1), BridgeId(0), 2, "gre0", PortKind::Tunnel(Arc::new(tunnel)));
    let port = Arc::new(port);
    let mut bridge = Bridge::new("br0", Arc::clone(&s.fdb));
    bridge.flood = vec![PortId(0), PortId(1)];
    change(&mut bridge);
    let snapshot = Snapshot {
        bridges: vec![Some(Arc::new(bridge))],
        ports: vec![Some(Arc::clone(&s.ports[0])), Some(Arc::clone(&port))],
        demux: Demux::build([&port].into_iter()).unwrap(),
        ..Snapshot::default()
    };
    let generation = s.datapath.publish(snapshot);
    assert!(s.datapath.wait_applied(generation, Duration::from_secs(10)));
    let receiver = Link::parse(&Spec::tcp(LEN).frame()).unwrap().dst;
    s.fdb.learn(0, receiver, PortId(0), 0);
    (s, port)
}

/// Segment `i` of a stream whose congestion bits are `ecn`.
fn segment(i: u32, ecn: u8) -> Vec<u8> {
    let spec = Spec::tcp(LEN);
    let seq = spec.seq.wrapping_add(i * LEN as u32);
    Spec { seq, tos: ecn, df: true, flags: crate::wire::tcp::ACK, ..spec }.frame()
}

/// A worker that has taken up what was published.
fn worker(s: &Switch) -> Worker {
    let mut worker = s.datapath.idle_worker();
    worker.outputs.update(&s.datapath.snapshot());
    worker
}

/// Has the worker forward a batch: frames, each with its packet's TOS.
fn batch(worker: &mut Worker, frames: &[(Vec<u8>, u8)]) {
    worker.packets.clear();
    for (i, (frame, tos)) in frames.iter().enumerate() {
        let packet = [&[0, 0, 0x65, 0x58], &frame[..]].concat();
        let data = Piece { len: packet.len() as u32, ..Slab::slot(i) };
        worker.slab.get_mut(data).copy_from_slice(&packet);
        let (src, dst) = (FAR.into(), [10, 9, 0, 1].into());
        worker.packets.push(RxPacket { data, road: RxRoad::Gre, src, src_port: 0, dst, tos: *tos });
    }
    worker.forward_packets();
}

/// Thousands of bytes and congestion bits of each frame that came out of port 0.
fn came(s: &Switch) -> Vec<(usize, u8)> {
    let next = || s.ends[0].recv().map(|(_, frame)| (payload_of(&frame).len() / LEN, ip_of(&frame).ecn()));
    std::iter::from_fn(next).collect()
}

#[test]
fn what_follows_is_counted_and_joined() {
    let (s, port) = tunneled(|_| {});
    let mut worker = worker(&s);
    let frames: Vec<_> = (0..10).map(|i| (segment(i, 0), 0)).collect();
    let bytes: usize = frames.iter().map(|(frame, _)| frame.len()).sum();
    batch(&mut worker, &frames);
    assert!(worker.trail.is_some());
    worker.flush();
    assert_eq!(came(&s), [(10, 0)]);
    let counted = port.counters.sum();
    assert_eq!(counted, PortStats { rx_packets: 10, rx_bytes: bytes as u64, ..PortStats::default() });
    assert_eq!(s.ports[0].counters.sum().tx_packets, 10);
}

/// RFC 6040 goes for each packet.
#[test]
fn congestion_on_the_way_ends_a_trail() {
    let (s, _) = tunneled(|_| {});
    let mut worker = worker(&s);
    let marked = |i| if (4..7).contains(&i) { 3 } else { 2 };
    let frames: Vec<_> = (0..10).map(|i| (segment(i, 2), marked(i))).collect();
    batch(&mut worker, &frames);
    worker.flush();
    assert_eq!(came(&s), [(4, 2), (3, 3), (3, 2)]);
    // the sender of those in the midst would never learn of it
    let frames: Vec<_> = (0..10).map(|i| (segment(i, 0), marked(i))).collect();
    batch(&mut worker, &frames);
    worker.flush();
    assert_eq!(came(&s), [(4, 0), (3, 0)]);
    s.dropped(DropReason::EcnDrop, 3);
}

#[test]
fn where_each_packet_is_looked_at_there_is_no_trail() {
    let sampler = Arc::new(Sampler::new(1000, 128));
    let (s, port) = tunneled(|bridge| bridge.sampler = Some(sampler));
    let mut worker = worker(&s);
    let frames: Vec<_> = (0..10).map(|i| (segment(i, 0), 0)).collect();
    batch(&mut worker, &frames);
    assert!(worker.trail.is_none());
    worker.flush();
    assert_eq!(came(&s), [(10, 0)]);
    assert_eq!(port.counters.sum().rx_packets, 10);
}
