//! Samples: what is told of frames that pass, and of those that do not.

use super::*;
use crate::sflow::{Sample, Sampler};
use crate::snapshot::Patch;
use crate::vlan::{VlanMode, VlanPolicy};
use crate::wire::parse::parse;
use crate::wire::{get16, ipv4};

const HEADER: usize = 64;

/// A switch of which every packet is sampled.
fn sampled(n: u16, spanning: bool) -> (Switch, Arc<Sampler>) {
    let s = Switch::new(n, 1);
    let sampler = Arc::new(Sampler::new(1, HEADER));
    let tagged = |(i, port): (usize, &Arc<Port>)| {
        let vlan = (i == 2).then(|| VlanPolicy::new(VlanMode::Access, 7, None)).and_then(VlanPolicy::shared);
        Arc::new(Port { vlan, ..Port::clone(port) })
    };
    let ports: Vec<Arc<Port>> = s.ports.iter().enumerate().map(tagged).collect();
    let bridge =
        Bridge { spanning, sampler: Some(Arc::clone(&sampler)), ..Bridge::new("br0", Arc::clone(&s.fdb)) };
    s.put_in(&ports, |_| true, bridge);
    (s, sampler)
}

/// The samples, once there are so many.
fn samples(sampler: &Sampler, count: usize) -> Vec<Sample> {
    let (mut all, end) = (Vec::new(), Instant::now() + Duration::from_secs(10));
    while all.len() < count && Instant::now() < end {
        all.extend(sampler.samples());
        std::thread::yield_now();
    }
    assert_eq!(all.len(), count, "{all:?}");
    all
}

#[test]
fn what_became_of_each_packet() {
    let (s, sampler) = sampled(4, true);
    let tag = |vid: u8, bytes: &[u8]| [&bytes[..12], &[0x81, 0, 0x60, vid], &bytes[12..]].concat();
    let hello = frame(BROADCAST, A, "hello");
    let sent = [
        (0, hello.clone()),
        (1, frame(A, B, &"back".repeat(100))),
        (0, frame(B, A, "there")),
        (0, frame(A, A, "to itself")),
        (0, frame([1, 0x80, 0xc2, 0, 0, 0xe], A, "to nobody")),
        // that of the access port, then that of the trunks
        (2, frame(BROADCAST, [2; 6], "in VLAN 7")),
        (0, tag(7, &frame([2; 6], A, "into VLAN 7"))),
        (2, tag(9, &frame([2; 6], A, "not let in"))),
    ];
    for (port, bytes) in &sent {
        s.ends[*port].send(VnetHdr::default(), bytes);
        // one after the other
        let before = samples(&sampler, 1).remove(0);
        let at = sent.iter().position(|(_, sent)| sent == bytes).unwrap();
        assert_eq!(before.from, PortId(*port as u16));
        assert_eq!(
            (before.header, before.len as usize),
            (bytes[..bytes.len().min(HEADER)].to_vec(), bytes.len())
        );
        assert_eq!((before.pool, before.drops), (at as u64 + 1, 0));
        let (copies, came, left) = [
            // the access port is in another VLAN
            (2, 0, 0),
            (1, 0, 0),
            (1, 0, 0),
            (0, 0, 0),
            (0, 0, 0),
            (3, 0, 7),
            (1, 0x6007, 0),
            (0, 0x6009, 0x6009),
        ][at];
        assert_eq!((before.fate.copies, before.fate.came, before.fate.left), (copies, came, left), "{at}");
        if copies == 1 {
            assert_eq!(before.fate.last, Some([PortId(0), PortId(1), PortId(2)][[9, 0, 1, 9, 9, 9, 2][at]]));
        }
    }
    // what is for control is no traffic
    s.ends[0].send(VnetHdr::default(), &frame([1, 0x80, 0xc2, 0, 0, 0], A, "bpdu"));
    s.ends[0].send(VnetHdr::default(), &hello);
    assert_eq!(samples(&sampler, 1)[0].header, hello);
}

#[test]
fn each_packet_of_a_superframe_may_be_taken() {
    let (s, sampler) = sampled(2, false);
    let mut big = Vec::new();
    let builder = etherparse::PacketBuilder::ethernet2(A, B).ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64);
    builder.tcp(1, 2, 3, 4).write(&mut big, &[7; 2500]).unwrap();
    let vnet = VnetHdr {
        flags: F_NEEDS_CSUM,
        gso_type: GSO_TCPV4,
        hdr_len: 54.into(),
        gso_size: 1000.into(),
        csum_start: 34.into(),
        csum_offset: 16.into(),
    };
    s.ends[0].send(vnet, &big);
    for (i, sample) in samples(&sampler, 3).into_iter().enumerate() {
        assert_eq!(sample.len, [1054, 1054, 554][i]);
        assert_eq!((sample.pool, sample.fate.copies), (i as u64 + 1, 1));
        let mut want = big[..HEADER].to_vec();
        want[16..18].copy_from_slice(&(sample.len as u16 - 14).to_be_bytes());
        ipv4::set_checksum(&mut want[14..34]);
        assert_eq!(sample.header, want);
        assert!(ipv4::checksum_ok(&sample.header[14..34]));
    }
    assert_eq!(get16(&big, 16), Some(2540), "and the frame itself is as it was");
    assert!(parse(&s.recv(1).1).unwrap().ip.is_some());
}

/// Behind a patch port are the ports that count.
#[test]
fn a_frame_that_crosses_bridges_is_sampled_once() {
    let s = Switch::new(3, 1);
    let sampler = Arc::new(Sampler::new(1, HEADER));
    let patch = |id: u16, peer: u16, bridge: u16| {
        let kind = PortKind::Patch(Arc::new(Patch { name: "peer".into(), peer: Some(PortId(peer)) }));
        Arc::new(Port::new(PortId(id), BridgeId(bridge), id + 1, "patch", kind))
    };
    let other = |i: usize| Arc::new(Port { bridge: BridgeId(1), ..Port::clone(&s.ports[i]) });
    let ports = [s.ports[0].clone(), other(1), other(2), patch(3, 4, 0), patch(4, 3, 1)];
    let bridge = |b: u16| {
        let flood = ports.iter().filter(|p| p.bridge == BridgeId(b)).map(|p| p.id).collect();
        let sampler = Some(Arc::clone(&sampler));
        Some(Arc::new(Bridge { flood, sampler, ..Bridge::new("br", Arc::new(Fdb::new(64, 300))) }))
    };
    let snapshot = Snapshot {
        bridges: vec![bridge(0), bridge(1)],
        ports: ports.iter().cloned().map(Some).collect(),
        ..Snapshot::default()
    };
    let generation = s.datapath.publish(snapshot);
    assert!(s.datapath.wait_applied(generation, Duration::from_secs(10)));
    s.ends[0].send(VnetHdr::default(), &frame(BROADCAST, A, "through"));
    let through = samples(&sampler, 1).remove(0);
    assert_eq!((through.from, through.fate.copies), (PortId(0), 2));
    s.ends[1].send(VnetHdr::default(), &frame(A, B, "back"));
    let back = samples(&sampler, 1).remove(0);
    assert_eq!((back.from, back.fate.copies, back.fate.last), (PortId(1), 1, Some(PortId(0))));
}
