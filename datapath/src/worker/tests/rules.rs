//! What ports let pass, and with which tags; what is copied for those who watch.

use super::*;
use crate::mirror::{Mirror, MirrorOutput, PortSet};
use crate::police::{Limits, Policer, Rate};
use crate::snapshot::Groups;
use crate::vlan::{VlanMode, VlanPolicy};

const EVERYBODY: fn(&Port) -> bool = |_| true;

impl Switch {
    /// With VLANs on some ports.
    fn with_vlans(&self, policies: &[Option<VlanPolicy>]) -> Vec<Arc<Port>> {
        let ports = self.ports.iter().zip(policies).map(|(port, policy)| {
            let vlan = policy.clone().and_then(VlanPolicy::shared);
            Arc::new(Port { vlan, ..Port::clone(port) })
        });
        ports.collect()
    }

    /// What each port has sent, once `count` frames have come out of port `last` and with them all before.
    fn heard(&self, i: usize) -> Vec<u8> {
        self.recv(i).1
    }

    fn silent(&self) -> bool {
        self.ends.iter().all(|end| end.recv().is_none())
    }
}

fn access(vid: u16) -> Option<VlanPolicy> {
    Some(VlanPolicy::new(VlanMode::Access, vid, None))
}

/// The frame with a tag of that VLAN.
fn tagged(vid: u8, frame: &[u8]) -> Vec<u8> {
    [&frame[..12], &[0x81, 0, 0, vid], &frame[12..]].concat()
}

fn plain(frame: &[u8]) -> (VnetHdr, &[u8]) {
    (VnetHdr::default(), frame)
}

#[test]
fn vlans_are_apart_and_tags_are_as_each_port_has_them() {
    for workers in [1, 2] {
        let s = Switch::new(5, workers);
        s.put(&s.with_vlans(&[access(10), access(10), access(20), None, None]), EVERYBODY, false);
        let hello = frame(BROADCAST, A, "hello");
        s.ends[0].send(VnetHdr::default(), &hello);
        assert_eq!(s.heard(1), hello);
        assert_eq!(s.heard(3), tagged(10, &hello));
        assert_eq!(s.heard(4), tagged(10, &hello));
        // the answer goes where the question came from, its tag taken off
        let answer = frame(A, B, "here");
        let (vnet, bytes) = plain(&answer);
        s.ends[3].send(vnet, &tagged(10, bytes));
        assert_eq!(s.heard(0), answer);
        // A is not known in VLAN 20, nor does VLAN 10 hear of it
        s.ends[2].send(vnet, &answer);
        assert_eq!(s.heard(3), tagged(20, &answer));
        assert_eq!(s.heard(4), tagged(20, &answer));
        s.ends[0].send(vnet, &tagged(10, &hello));
        s.dropped(DropReason::VlanIn, 1);
        // put there by an operator, where its VLAN is not
        s.fdb.add_static(20, A, PortId(1));
        s.ends[2].send(vnet, &answer);
        s.dropped(DropReason::VlanOut, 1);
        assert!(s.silent());
    }
}

#[test]
fn a_superframe_changes_its_tag_on_the_way() {
    let s = Switch::new(3, 1);
    s.put(&s.with_vlans(&[access(10), None, None]), EVERYBODY, false);
    let vnet = VnetHdr {
        flags: F_NEEDS_CSUM,
        gso_type: GSO_TCPV4,
        hdr_len: 54.into(),
        gso_size: 1448.into(),
        csum_start: 34.into(),
        csum_offset: 16.into(),
    };
    let further = VnetHdr { hdr_len: 58.into(), csum_start: 38.into(), ..vnet };
    let big = |to, from| frame(to, from, &"x".repeat(60_000));
    // by copies, of which there is one for both
    s.ends[0].send(vnet, &big(B, A));
    assert_eq!(s.recv(1), (further, tagged(10, &big(B, A))));
    assert_eq!(s.recv(2), (further, tagged(10, &big(B, A))));
    // where it lies
    s.ends[1].send(further, &tagged(10, &big(A, B)));
    assert_eq!(s.recv(0), (vnet, big(A, B)));
    s.ends[0].send(vnet, &big(B, A));
    assert_eq!(s.recv(1), (further, tagged(10, &big(B, A))));
    assert!(s.silent());
}

/// It was popped before it was found not to fit.
#[test]
fn who_sent_what_does_not_fit_is_answered_with_its_own_tag() {
    let s = Switch::new(2, 1);
    s.put(&s.with_vlans(&[None, access(10)]), EVERYBODY, false);
    if let PortKind::Local(port) = &s.ports[1].kind {
        port.set_mtu(1000);
    }
    s.ends[1].send(VnetHdr::default(), &frame(A, B, "here"));
    assert_eq!(s.heard(0), tagged(10, &frame(A, B, "here")));
    let mut udp = Vec::new();
    let builder = etherparse::PacketBuilder::ethernet2(A, B).ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64);
    builder.udp(1, 2).write(&mut udp, &[7; 1400]).unwrap();
    udp[..6].copy_from_slice(&B);
    udp[6..12].copy_from_slice(&A);
    udp[20] = 0x40;
    crate::wire::ipv4::set_checksum(&mut udp[14..34]);
    s.ends[0].send(VnetHdr::default(), &tagged(10, &udp));
    let answer = s.heard(0);
    assert_eq!(answer[..18], tagged(10, &[&A[..], &B, &[8, 0]].concat())[..]);
    assert_eq!(answer[38..40], [3, 4]);
    s.dropped(DropReason::TooBigAnswered, 1);
}

#[test]
fn where_nothing_is_learned_all_is_flooded() {
    let s = Switch::new(3, 1);
    let flood_vlans = Some(Arc::new([7].into_iter().collect()));
    let bridge = Bridge { flood_vlans, ..Bridge::new("br0", Arc::clone(&s.fdb)) };
    s.put_in(&s.ports, EVERYBODY, bridge);
    for (from, src, dst) in [(0, A, B), (1, B, A)] {
        let there = tagged(7, &frame(dst, src, "there?"));
        s.ends[from].send(VnetHdr::default(), &there);
        (0..3).filter(|to| *to != from).for_each(|to| assert_eq!(s.heard(to), there));
    }
    assert!(s.fdb.entries(0).is_empty() && s.silent());
}

/// What is over is dropped for its own reason, and what is not flooded is not counted.
#[test]
fn a_storm_ends_at_the_port_that_it_comes_in_by() {
    let s = Switch::new(2, 1);
    let one = Some(Rate { rate: 1, burst: 2 });
    let limits = Limits { broadcast: one, multicast: one, unknown_unicast: one, ..Limits::default() };
    let policer = Policer::new(limits).map(Arc::new);
    let ports = [Arc::new(Port { policer, ..Port::clone(&s.ports[0]) }), Arc::clone(&s.ports[1])];
    s.put(&ports, EVERYBODY, false);
    for (dst, why) in [
        (BROADCAST, DropReason::StormBroadcast),
        ([1, 0, 0x5e, 0, 0, 1], DropReason::StormMulticast),
        (B, DropReason::StormUnknownUnicast),
    ] {
        (0..20).for_each(|_| s.ends[0].send(VnetHdr::default(), &frame(dst, A, "storm")));
        // a slow machine may let one or two more through
        (0..2).for_each(|_| assert_eq!(s.heard(1), frame(dst, A, "storm")));
        let end = Instant::now() + Duration::from_secs(10);
        while !s.datapath.drops().iter().any(|(reason, n)| *reason == why && *n >= 10) {
            assert!(Instant::now() < end, "{why:?}: {:?}", s.datapath.drops());
            std::thread::sleep(Duration::from_micros(200));
        }
        while s.ends[1].recv().is_some() {}
    }
    s.ends[1].send(VnetHdr::default(), &frame(A, B, "known now"));
    assert_eq!(s.heard(0), frame(A, B, "known now"));
    for _ in 0..20 {
        s.ends[0].send(VnetHdr::default(), &frame(B, A, "no storm"));
        while s.heard(1) != frame(B, A, "no storm") {}
    }
}

#[test]
fn a_port_is_held_to_its_rate() {
    let s = Switch::new(2, 1);
    let limits = Limits { packets: Some(Rate { rate: 1, burst: 3 }), ..Limits::default() };
    let policer = Policer::new(limits).map(Arc::new);
    let ports = [Arc::new(Port { policer, ..Port::clone(&s.ports[0]) }), Arc::clone(&s.ports[1])];
    s.put(&ports, EVERYBODY, false);
    (0..50).for_each(|_| s.ends[0].send(VnetHdr::default(), &frame(BROADCAST, A, "much")));
    (0..3).for_each(|_| assert_eq!(s.heard(1), frame(BROADCAST, A, "much")));
    s.ends[1].send(VnetHdr::default(), &frame(BROADCAST, B, "and back"));
    assert_eq!(s.heard(0), frame(BROADCAST, B, "and back"));
    let stats = || s.ports[0].counters.sum();
    let end = Instant::now() + Duration::from_secs(10);
    while stats().rx_packets < 50 && Instant::now() < end {
        std::thread::sleep(Duration::from_micros(200));
    }
    assert!(stats().rx_dropped >= 37, "{:?}", stats());
}

fn mirror(
    s: &Switch,
    output: MirrorOutput,
    change: impl FnOnce(&mut Mirror),
) -> (Bridge, Arc<crate::counters::PortCounters>) {
    let port0 = || [PortId(0)].into_iter().collect();
    let counters = Arc::default();
    let mut mirror = Mirror {
        name: "m".into(),
        sources: port0(),
        destinations: port0(),
        vlans: None,
        output,
        snaplen: None,
        counters: Arc::clone(&counters),
    };
    change(&mut mirror);
    let watchers = match output {
        MirrorOutput::Port(id) => [id].into_iter().collect(),
        MirrorOutput::Vlan(_) => Default::default(),
    };
    (Bridge { mirrors: vec![mirror], watchers, ..Bridge::new("br0", Arc::clone(&s.fdb)) }, counters)
}

#[test]
fn what_passes_a_port_is_copied_once_and_the_watcher_has_nothing_else() {
    let s = Switch::new(4, 1);
    let ports = s.with_vlans(&[access(10), None, access(10), None]);
    let (bridge, counters) = mirror(&s, MirrorOutput::Port(PortId(3)), |_| {});
    s.put_in(&ports, EVERYBODY, bridge);
    let hello = frame(BROADCAST, A, "hello");
    s.ends[0].send(VnetHdr::default(), &hello);
    assert_eq!(s.heard(3), tagged(10, &hello));
    assert_eq!((s.heard(1), s.heard(2)), (tagged(10, &hello), hello.clone()));
    // leaves by it: to it alone, and in a flood
    let answer = frame(A, B, "here");
    s.ends[1].send(VnetHdr::default(), &tagged(10, &answer));
    assert_eq!((s.heard(3), s.heard(0)), (tagged(10, &answer), answer));
    let all = frame(BROADCAST, B, "all");
    s.ends[1].send(VnetHdr::default(), &tagged(10, &all));
    assert_eq!((s.heard(3), s.heard(0), s.heard(2)), (tagged(10, &all), all.clone(), all.clone()));
    // passes neither
    s.ends[1].send(VnetHdr::default(), &tagged(20, &all));
    s.ends[3].send(VnetHdr::default(), &all);
    s.dropped(DropReason::MirrorOutput, 1);
    assert!(s.silent());
    let sum = counters.sum();
    assert_eq!((sum.tx_packets, sum.tx_bytes), (3, (hello.len() + 18 + 4 + all.len() + 4) as u64));
}

#[test]
fn copies_may_be_short_of_some_vlans_or_in_another() {
    let s = Switch::new(3, 1);
    let (bridge, _) = mirror(&s, MirrorOutput::Port(PortId(2)), |mirror| {
        mirror.snaplen = Some(20);
        mirror.vlans = Some(Arc::new([5].into_iter().collect()));
    });
    s.put_in(&s.ports, EVERYBODY, bridge);
    let hello = frame(BROADCAST, A, "hello");
    s.ends[0].send(VnetHdr::default(), &hello);
    s.ends[0]
        .send(VnetHdr { gso_type: GSO_TCPV4, gso_size: 9.into(), ..VnetHdr::default() }, &tagged(5, &hello));
    assert_eq!((s.heard(1), s.recv(1).1), (hello.clone(), tagged(5, &hello)));
    assert_eq!(s.recv(2), (VnetHdr::default(), tagged(5, &hello)[..20].to_vec()));
    // to all of a VLAN, except what is in it already or shall stay on its link
    let ports = s.with_vlans(&[None, access(9), access(8)]);
    let (bridge, _) = mirror(&s, MirrorOutput::Vlan(9), |_| {});
    s.put_in(&ports, EVERYBODY, Bridge { forward_bpdu: true, ..bridge });
    s.ends[0].send(VnetHdr::default(), &tagged(3, &hello));
    assert_eq!((s.heard(0), s.heard(1)), (tagged(9, &hello), hello.clone()));
    s.ends[0].send(VnetHdr::default(), &tagged(9, &hello));
    assert_eq!(s.heard(1), hello);
    s.ends[0].send(VnetHdr::default(), &frame([1, 0x80, 0xc2, 0, 0, 0], A, "bpdu"));
    s.ends[0].send(VnetHdr::default(), &tagged(9, &frame(BROADCAST, A, "last")));
    assert_eq!(s.heard(1), frame(BROADCAST, A, "last"));
    assert!(s.silent());
}

#[test]
fn two_mirrors_with_one_output_copy_a_frame_once_and_both_count_it() {
    let s = Switch::new(3, 1);
    let output = MirrorOutput::Port(PortId(2));
    let (mut bridge, counters) = mirror(&s, output, |mirror| mirror.destinations = PortSet::default());
    let (other, others) = mirror(&s, output, |mirror| {
        mirror.sources = PortSet::default();
        mirror.destinations = [PortId(1)].into_iter().collect();
    });
    bridge.mirrors.extend(other.mirrors);
    s.put_in(&s.ports, EVERYBODY, bridge);
    let (hello, answer) = (frame(BROADCAST, A, "hello"), frame(BROADCAST, B, "here"));
    s.ends[0].send(VnetHdr::default(), &hello);
    assert_eq!((s.heard(1), s.heard(2)), (hello.clone(), hello));
    // selected by neither
    s.ends[1].send(VnetHdr::default(), &answer);
    assert_eq!(s.heard(0), answer);
    assert!(s.silent());
    assert_eq!((counters.sum().tx_packets, others.sum().tx_packets), (1, 1));
}

#[test]
fn copies_into_a_vlan_keep_ports_apart_too() {
    let s = Switch::new(4, 1);
    let (bridge, _) = mirror(&s, MirrorOutput::Vlan(9), |_| {});
    let mut ports = s.with_vlans(&[None, access(9), access(9), access(8)]);
    for at in [0, 1] {
        ports[at] = Arc::new(Port { groups: Groups::SPLIT_HORIZON, ..Port::clone(&ports[at]) });
    }
    s.put_in(&ports, EVERYBODY, bridge);
    let hello = frame(BROADCAST, A, "hello");
    s.ends[0].send(VnetHdr::default(), &tagged(3, &hello));
    assert_eq!(s.heard(2), hello);
    assert!(s.silent());
}

#[test]
fn ports_of_a_group_are_kept_apart() {
    let s = Switch::new(4, 1);
    let groups = [
        Groups::PROTECTED,
        Groups::PROTECTED.and(Groups::SPLIT_HORIZON),
        Groups::SPLIT_HORIZON,
        Groups::NONE,
    ];
    let grouped = s.ports.iter().zip(groups).map(|(p, groups)| Arc::new(Port { groups, ..Port::clone(p) }));
    s.put(&grouped.collect::<Vec<_>>(), |_| true, false);
    let who = |i: u8| [2, 0, 0, 0, 0, i];
    for (from, heard) in [(0, [2, 3].as_slice()), (1, &[3]), (2, &[0, 3]), (3, &[0, 1, 2])] {
        let hello = frame(BROADCAST, who(from), "hello");
        s.ends[usize::from(from)].send(VnetHdr::default(), &hello);
        heard.iter().for_each(|i| assert_eq!(s.recv(*i).1, hello));
    }
    s.ends[0].send(VnetHdr::default(), &frame(who(1), who(0), "psst"));
    s.dropped(DropReason::Apart, 1);
    assert!(s.ends.iter().all(|end| end.recv().is_none()));
}

#[test]
fn groups_go_to_those_who_hear_them() {
    let s = Switch::new(4, 1);
    let set = |port| [PortId(port)].into_iter().collect::<crate::mirror::PortSet>();
    let joined = std::net::Ipv4Addr::new(239, 0, 0, 1).to_ipv6_mapped();
    let groups = crate::multicast::Groups {
        members: [((0, joined), set(1))].into_iter().collect(),
        routers: [(0, set(2))].into_iter().collect(),
        flood_unregistered: true,
        ..Default::default()
    };
    // a mirror sees what leaves by port 1, and of groups only what does
    let (bridge, counters) = mirror(&s, MirrorOutput::Port(PortId(3)), |mirror| {
        mirror.sources = Default::default();
        mirror.destinations = set(1);
    });
    s.put_in(&s.ports, EVERYBODY, Bridge { groups: Some(Arc::new(groups)), ..bridge });
    let to = |group: [u8; 4], proto, payload: &[u8]| {
        let mut bytes = Vec::new();
        let builder = etherparse::PacketBuilder::ethernet2(A, [1, 0, 0x5e, 0, 0, 1]);
        let ip = builder.ipv4([10, 0, 0, 1], group, 1);
        ip.write(&mut bytes, etherparse::IpNumber(proto), payload).unwrap();
        bytes
    };
    // the same Ethernet header each time
    let (data, other) = (to([239, 0, 0, 1], 17, &[0; 8]), to([239, 128, 0, 1], 17, &[0; 8]));
    let report = to([239, 0, 0, 1], 2, &[0x16, 0, 0xf9, 0xfd, 239, 0, 0, 1]);
    for bytes in [&data, &other, &report, &data] {
        s.ends[0].send(VnetHdr::default(), bytes);
    }
    for bytes in [&data, &other, &data] {
        assert_eq!((s.heard(1), s.heard(3)), (bytes.clone(), bytes.clone()));
    }
    for bytes in [&data, &other, &report, &data] {
        assert_eq!(s.heard(2), *bytes);
    }
    assert!(s.silent());
    assert_eq!(counters.sum().tx_packets, 3);
    let told = s.datapath.frames(crate::slow_path::FrameKind::Membership);
    assert_eq!(told.iter().map(|f| (f.port, &f.bytes)).collect::<Vec<_>>(), [(PortId(0), &report)]);
}
