//! Whole switches on in-memory ports.

mod rules;
mod sampled;
mod trails;

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::bridge::Verdict;
use crate::counters::DropReason;
use crate::fdb::Fdb;
use crate::handle::Datapath;
use crate::port::LocalPort;
use crate::port::memory::Far;
use crate::slow_path::{FrameKind, PuntedFrame};
use crate::snapshot::{Bridge, BridgeId, Port, PortId, PortKind, Snapshot, StpState};
use crate::vnet::{F_NEEDS_CSUM, GSO_TCPV4, VnetHdr};
use crate::wire::parse::Link;

const A: [u8; 6] = [2, 0, 0, 0, 0, 0xa];
const B: [u8; 6] = [2, 0, 0, 0, 0, 0xb];
const BROADCAST: [u8; 6] = [0xff; 6];

/// A bridge with `n` ports, and the test's ends of them.
struct Switch {
    datapath: Datapath,
    fdb: Arc<Fdb>,
    ends: Vec<Arc<Far>>,
    ports: Vec<Arc<Port>>,
}

impl Switch {
    fn new(n: u16, workers: usize) -> Switch {
        let datapath = Datapath::start(workers).unwrap();
        let (ports, ends): (Vec<_>, Vec<_>) = (0..n)
            .map(|i| {
                let (local, end) = LocalPort::memory().unwrap();
                let port = Port {
                    worker: usize::from(i),
                    ..Port::new(
                        PortId(i),
                        BridgeId(0),
                        i + 1,
                        format!("p{i}"),
                        PortKind::Local(Arc::new(local)),
                    )
                };
                (Arc::new(port), end)
            })
            .unzip();
        let switch = Switch { datapath, fdb: Arc::new(Fdb::new(64, 300)), ends, ports };
        switch.publish(|_| true);
        switch
    }

    fn publish(&self, keep: impl Fn(&Port) -> bool) {
        self.put(&self.ports, keep, false);
    }

    /// As a spanning tree would have it.
    fn publish_states(&self, states: &[StpState]) {
        let ports: Vec<Arc<Port>> = (self.ports.iter().zip(states))
            .map(|(p, &stp)| Arc::new(Port { stp, ..Port::clone(p) }))
            .collect();
        self.put(&ports, |_| true, true);
    }

    fn put(&self, ports: &[Arc<Port>], keep: impl Fn(&Port) -> bool, spanning: bool) {
        let bridge = Bridge { spanning, ..Bridge::new("br0", Arc::clone(&self.fdb)) };
        self.put_in(ports, keep, bridge);
    }

    fn put_in(&self, ports: &[Arc<Port>], keep: impl Fn(&Port) -> bool, bridge: Bridge) {
        let kept = |p: &Arc<Port>| keep(p).then(|| Arc::clone(p));
        let watched = |p: &Arc<Port>| !bridge.watchers.contains(p.id);
        let flood = ports.iter().filter_map(kept).filter(watched).map(|p| p.id).collect();
        let bridge = Bridge { flood, ..bridge };
        let snapshot = Snapshot {
            bridges: vec![Some(Arc::new(bridge))],
            ports: ports.iter().map(kept).collect(),
            ..Snapshot::default()
        };
        let generation = self.datapath.publish(snapshot);
        assert!(self.datapath.wait_applied(generation, Duration::from_secs(10)));
    }

    /// The next frame out of port `i`, waiting for it.
    fn recv(&self, i: usize) -> (VnetHdr, Vec<u8>) {
        let end = Instant::now() + Duration::from_secs(10);
        while Instant::now() < end {
            if let Some(got) = self.ends[i].recv() {
                return got;
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        panic!("nothing came out of port {i}");
    }

    /// Waits until `count` frames were refused for `why`.
    fn dropped(&self, why: DropReason, count: u64) {
        let end = Instant::now() + Duration::from_secs(10);
        while Instant::now() < end {
            if self.datapath.drops().contains(&(why, count)) {
                return;
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        panic!("{why:?} is not {count}: {:?}", self.datapath.drops());
    }
}

fn frame(dst: [u8; 6], src: [u8; 6], text: &str) -> Vec<u8> {
    [&dst[..], &src, &[0x88, 0xb5], text.as_bytes()].concat()
}

#[test]
fn floods_learns_and_never_returns_a_frame() {
    for workers in [1, 2, 3] {
        let s = Switch::new(3, workers);
        s.ends[0].send(VnetHdr::default(), &frame(BROADCAST, A, "who has B?"));
        assert_eq!(s.recv(1).1, frame(BROADCAST, A, "who has B?"));
        assert_eq!(s.recv(2).1, frame(BROADCAST, A, "who has B?"));
        s.ends[1].send(VnetHdr::default(), &frame(A, B, "I have"));
        assert_eq!(s.recv(0).1, frame(A, B, "I have"));
        // A learned where B is, so port 2 hears nothing of this
        s.ends[0].send(VnetHdr::default(), &frame(B, A, "thanks"));
        assert_eq!(s.recv(1).1, frame(B, A, "thanks"));
        // B is on this very segment
        s.ends[1].send(VnetHdr::default(), &frame(B, A, "local"));
        s.dropped(DropReason::SamePort, 1);
        for end in &s.ends {
            assert_eq!(end.recv(), None);
        }
    }
}

#[test]
fn a_superframe_passes_between_local_ports_as_it_is() {
    let s = Switch::new(2, 1);
    let vnet = VnetHdr {
        flags: F_NEEDS_CSUM,
        gso_type: GSO_TCPV4,
        hdr_len: 54.into(),
        gso_size: 1448.into(),
        csum_start: 34.into(),
        csum_offset: 16.into(),
    };
    let big = frame(B, A, &"x".repeat(60_000));
    s.ends[0].send(vnet, &big);
    assert_eq!(s.recv(1), (vnet, big.clone()));
    let stats = s.ports[0].counters.sum();
    assert_eq!(
        (stats.rx_packets, stats.rx_bytes),
        ((big.len() as u64 - 54).div_ceil(1448), big.len() as u64)
    );
}

#[test]
fn what_a_bridge_must_not_forward() {
    let s = Switch::new(2, 1);
    let cases = [
        (frame([1, 0x80, 0xc2, 0, 0, 0], A, "bpdu"), DropReason::ReservedGroup),
        (frame(B, BROADCAST, "group source"), DropReason::BadSource),
        (frame(B, [0; 6], "zero source"), DropReason::BadSource),
        (vec![1, 2, 3], DropReason::Malformed),
    ];
    for (i, (bytes, why)) in cases.iter().enumerate() {
        s.ends[0].send(VnetHdr::default(), bytes);
        s.dropped(*why, if i == 2 { 2 } else { 1 });
    }
    assert_eq!(s.ends[1].recv(), None);
    assert_eq!(s.ports[0].counters.sum().rx_dropped, 4);
}

#[test]
fn ports_come_and_go() {
    let s = Switch::new(3, 2);
    s.publish(|p| p.id != PortId(2));
    s.ends[0].send(VnetHdr::default(), &frame(BROADCAST, A, "one"));
    assert_eq!(s.recv(1).1, frame(BROADCAST, A, "one"));
    assert_eq!(s.ends[2].recv(), None);
    s.publish(|_| true);
    s.ends[2].send(VnetHdr::default(), &frame(BROADCAST, B, "two"));
    assert_eq!(s.recv(0).1, frame(BROADCAST, B, "two"));
    assert_eq!(s.recv(1).1, frame(BROADCAST, B, "two"));
}

/// Each is waited for, so the next comes while a worker is still busy with the one before.
#[test]
fn publications_in_a_row_are_all_taken_up() {
    let s = Switch::new(3, 2);
    for i in 0..3000 {
        s.publish(|p| p.id != PortId(i % 3));
    }
}

#[test]
fn a_frame_too_long_for_the_other_devices_mtu_is_cut() {
    use crate::wire::parse::parse;
    let s = Switch::new(2, 1);
    if let PortKind::Local(port) = &s.ports[1].kind {
        port.set_mtu(1000);
    }
    let mut udp = Vec::new();
    let builder = etherparse::PacketBuilder::ethernet2(A, B).ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64);
    builder.udp(1, 2).write(&mut udp, &[7; 1400]).unwrap();
    udp[20] = 0; // may be fragmented
    crate::wire::ipv4::set_checksum(&mut udp[14..34]);
    s.ends[0].send(VnetHdr::default(), &udp);
    for _ in 0..2 {
        let (_, part) = s.recv(1);
        assert!(part.len() <= 1014 && parse(&part).unwrap().ip.unwrap().fragment);
    }
    // and one that may not be is answered
    udp[20] = 0x40;
    crate::wire::ipv4::set_checksum(&mut udp[14..34]);
    s.ends[0].send(VnetHdr::default(), &udp);
    let (_, answer) = s.recv(0);
    assert_eq!(answer[..12], [A, B].concat());
    assert_eq!(answer[34..36], [3, 4]);
}

/// Also a flood to a port that blocks is held back, for the list of those that forward is but made in time, most of the time.
#[test]
fn a_spanning_tree_decides_what_passes() {
    use StpState::{Blocking, Disabled, Forwarding, Learning};
    let s = Switch::new(4, 1);
    s.publish_states(&[Forwarding, Learning, Blocking, Disabled]);
    let who = |i: u8| [2, 0, 0, 0, 0, i];
    for (i, end) in s.ends.iter().enumerate() {
        end.send(VnetHdr::default(), &frame(BROADCAST, who(i as u8), "hello"));
    }
    // three come in by ports that hold them back, and one would have left by three such
    s.dropped(DropReason::NotForwarding, 6);
    assert!(s.ends.iter().all(|end| end.recv().is_none()));
    let known: Vec<PortId> = s.fdb.entries(0).into_iter().map(|entry| entry.port).collect();
    assert_eq!(known, [PortId(0), PortId(1)]);
    s.ends[0].send(VnetHdr::default(), &frame(who(1), who(0), "learned there"));
    s.dropped(DropReason::NotForwarding, 7);
    // what one that is not disabled hears of the tree is for control, and nobody else
    let bpdu = frame([1, 0x80, 0xc2, 0, 0, 0], A, "bpdu");
    s.ends.iter().for_each(|end| end.send(VnetHdr::default(), &bpdu));
    s.dropped(DropReason::ReservedGroup, 1);
    let mut heard = Vec::new();
    let end = Instant::now() + Duration::from_secs(10);
    while heard.len() < 3 && Instant::now() < end {
        heard.extend(s.datapath.frames(FrameKind::Bpdu));
    }
    heard.sort_by_key(|frame| frame.port);
    let want = [0, 1, 2].map(|i| PuntedFrame { port: PortId(i), bytes: bpdu.clone() });
    assert_eq!(heard, want);
    for i in 0..4 {
        assert!(s.datapath.inject(PortId(i), &frame(BROADCAST, B, "from control")));
        assert_eq!(s.recv(usize::from(i)).1, frame(BROADCAST, B, "from control"));
    }
    assert_eq!(s.ports[2].counters.sum().tx_packets, 1);
}

/// The member that is active goes by the number under which stations were learned, so that they are where they were.
#[test]
fn a_bond_fails_over_without_forgetting_anybody() {
    use StpState::{Backup, Forwarding};
    let s = Switch::new(3, 2);
    let as_bond = |active: usize, backup: usize| {
        let number = |at: usize, id, stp| Arc::new(Port { id: PortId(id), stp, ..Port::clone(&s.ports[at]) });
        s.put(
            &[s.ports[0].clone(), number(active, 1, Forwarding), number(backup, 2, Backup)],
            |_| true,
            true,
        );
    };
    for (round, active, backup) in [(0, 1, 2), (1, 2, 1), (2, 1, 2)] {
        as_bond(active, backup);
        if round > 0 {
            s.ends[0].send(VnetHdr::default(), &frame(B, A, "to where it is now"));
            assert_eq!(s.recv(active).1, frame(B, A, "to where it is now"));
        }
        s.ends[active].send(VnetHdr::default(), &frame(BROADCAST, B, "once"));
        assert_eq!(s.recv(0).1, frame(BROADCAST, B, "once"));
        for dst in [BROADCAST, A, [1, 0x80, 0xc2, 0, 0, 0]] {
            s.ends[backup].send(VnetHdr::default(), &frame(dst, B, "not let in"));
        }
        // two of those that came in by it, for reserved addresses are nobody's, and the two floods that would have left there
        s.dropped(DropReason::BondBackup, 4 * round + 3);
        s.ends[0].send(VnetHdr::default(), &frame(BROADCAST, A, "out"));
        assert_eq!(s.recv(active).1, frame(BROADCAST, A, "out"));
        assert!(s.ends.iter().all(|end| end.recv().is_none()));
    }
    assert!(s.datapath.frames(FrameKind::Bpdu).is_empty());
}

#[test]
fn more_injected_than_a_batch_holds_leaves_in_order() {
    let s = Switch::new(1, 2);
    for i in 0..400u32 {
        assert!(s.datapath.inject(PortId(0), &[&i.to_be_bytes()[..], &[0; 1400]].concat()));
    }
    for i in 0..400u32 {
        assert_eq!(s.recv(0).1[..4], i.to_be_bytes());
    }
    assert!(s.datapath.inject(PortId(7), b"nobody's"));
    s.dropped(DropReason::NoBridge, 1);
}

/// Frames of one batch that are alike share a decision; those that differ in port, VLAN or address each have their own.
#[test]
fn a_decision_holds_for_frames_alike_alone() {
    let s = Switch::new(4, 1);
    let bridge = s.datapath.snapshot().bridge(BridgeId(0)).cloned().unwrap();
    let mut worker = s.datapath.idle_worker();
    let link = |dst, src, vlan: Option<u16>| {
        let mut bytes = frame(dst, src, "");
        if let Some(vlan) = vlan {
            bytes.splice(12..12, [0x81, 0, (vlan >> 8) as u8, vlan as u8]);
        }
        Link::parse(&bytes).unwrap()
    };
    let (plain, back) = (link(B, A, None), link(A, B, None));
    let mut decide = |port: usize, link: &Link| {
        let vlan = link.vlan.map_or(0, |tag| tag.vid());
        worker.decide(&bridge, &s.ports[port], link, Some(vlan), 1)
    };
    assert_eq!(decide(0, &plain), Verdict::Flood);
    s.fdb.learn(0, B, PortId(3), 1);
    assert_eq!(decide(0, &plain), Verdict::Flood, "as a moment ago");
    // another port: decided anew, and learned
    assert_eq!(decide(1, &plain), Verdict::Unicast(PortId(3)));
    assert_eq!(s.fdb.lookup(0, A, 1), Some(PortId(1)));
    assert_eq!(decide(0, &plain), Verdict::Unicast(PortId(3)));
    assert_eq!(s.fdb.lookup(0, A, 1), Some(PortId(0)), "back again");
    // the way back, on the port that B was learned on and on A's own
    assert_eq!(decide(3, &back), Verdict::Unicast(PortId(0)));
    assert_eq!(decide(0, &back), Verdict::Discard(DropReason::SamePort));
    // in another VLAN nobody is known, and what is learned there stays there
    s.fdb.learn(0, B, PortId(3), 2);
    assert_eq!(decide(0, &plain), Verdict::Unicast(PortId(3)));
    assert_eq!(decide(0, &link(B, A, Some(5))), Verdict::Flood);
    s.fdb.learn(5, B, PortId(2), 1);
    assert_eq!(decide(0, &plain), Verdict::Unicast(PortId(3)));
    assert_eq!(decide(0, &link(B, A, Some(5))), Verdict::Unicast(PortId(2)));
    assert_eq!(decide(0, &link(B, A, Some(6))), Verdict::Flood);
}

/// The same through a batch as it comes from a port, in the order in which it came.
#[test]
fn a_batch_of_several_streams_goes_apart() {
    let s = Switch::new(4, 1);
    let who = |i: u8| [2, 0, 0, 0, 0, i];
    for i in 1..4 {
        s.ends[usize::from(i)].send(VnetHdr::default(), &frame(BROADCAST, who(i), "here"));
        for other in (0..4).filter(|other| *other != usize::from(i)) {
            s.recv(other);
        }
    }
    // in twos, so that every other one is like the one before
    let to = |i: u32| who(1 + (i / 2 % 3) as u8);
    let batch: Vec<_> = (0..60).map(|i| (VnetHdr::default(), frame(to(i), A, &i.to_string()))).collect();
    s.ends[0].send_all(batch.clone());
    for (i, (_, sent)) in batch.iter().enumerate() {
        assert_eq!(&s.recv(1 + i / 2 % 3).1, sent);
    }
    assert!(s.ends.iter().all(|end| end.recv().is_none()));
}
