//! Networks of bridges in memory: whatever is joined how, cut and healed, what forwards comes to be a tree.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proptest::prelude::*;

use crate::bpdu::Bpdu;
use crate::*;

/// Bridges, and segments that join ports of theirs. A port's key is its segment.
struct Network {
    bridges: Vec<Bridge>,
    /// Members of each segment; whether it is whole.
    segments: Vec<(Vec<usize>, bool)>,
    /// As the bridges' switches have it.
    states: BTreeMap<(usize, PortKey), State>,
    /// On their way: bridge, port, what.
    wire: VecDeque<(usize, PortKey, Bpdu)>,
    sent: usize,
    /// A loop is an error also if it is there for but a moment.
    strict: bool,
}

fn id(n: usize) -> BridgeId {
    BridgeId::new(0x8000, [2, 0, 0, 0, 0, n as u8])
}

impl Network {
    /// `segments` names the bridges on each. All are whole.
    fn new(versions: &[Version], segments: &[&[usize]]) -> Network {
        let mut network = Network::apart(versions, segments);
        for (key, (members, whole)) in network.segments.iter_mut().enumerate() {
            *whole = true;
            members.iter().for_each(|n| network.bridges[*n].set_enabled(key as PortKey, true));
        }
        network.settle();
        network
    }

    /// None is whole yet.
    fn apart(versions: &[Version], segments: &[&[usize]]) -> Network {
        let config = |(n, version)| BridgeConfig { version, ..BridgeConfig::new(id(n)) };
        let bridges = versions.iter().copied().enumerate().map(|b| Bridge::new(config(b))).collect();
        let segments = segments.iter().map(|members| (members.to_vec(), false)).collect();
        let (states, wire) = (BTreeMap::new(), VecDeque::new());
        let mut network = Network { bridges, segments, states, wire, sent: 0, strict: true };
        for (key, (members, _)) in network.segments.clone().iter().enumerate() {
            for &bridge in members {
                let port = PortId(0x8000 | (key as u16 + 1));
                let point_to_point = members.len() <= 2;
                let config = PortConfig { point_to_point, ..PortConfig::new(port, 200) };
                network.bridges[bridge].set_port(key as PortKey, config);
            }
        }
        network.settle();
        network
    }

    /// Delivers until nothing is on its way.
    fn settle(&mut self) {
        loop {
            for n in 0..self.bridges.len() {
                while let Some(action) = self.bridges[n].poll() {
                    self.act(n, action);
                }
            }
            let Some((to, key, bpdu)) = self.wire.pop_front() else { return };
            self.bridges[to].receive(key, &bpdu.encode());
        }
    }

    fn act(&mut self, n: usize, action: Action) {
        match action {
            Action::State(key, state) => {
                self.states.insert((n, key), state);
                let loops = self.strict && !self.is_free_of_loops();
                assert!(!loops, "a loop, if but for a moment: {:?}", self.states);
            }
            Action::Flush(_) => {}
            Action::Transmit(key, bpdu) => {
                self.sent += 1;
                let sent = bpdu.encode();
                // nobody heeds one whose time is up (9.3.4)
                let over = matches!(bpdu, Bpdu::Config(m) if m.times.message_age >= m.times.max_age);
                assert!(over || Bpdu::decode(&sent).map(|b| b.encode()) == Ok(sent), "{bpdu:?}");
                let (members, whole) = &self.segments[usize::from(key)];
                for &to in members.iter().filter(|&&to| *whole && to != n) {
                    self.wire.push_back((to, key, bpdu));
                }
            }
        }
    }

    fn seconds(&mut self, n: usize) {
        for _ in 0..n {
            for i in 0..self.bridges.len() {
                self.bridges[i].tick();
                self.settle();
            }
        }
    }

    /// Cuts or mends a segment; `seen`: its members notice.
    fn set_whole(&mut self, segment: usize, whole: bool, seen: bool) {
        self.segments[segment].1 = whole;
        for n in self.segments[segment].0.clone().into_iter().filter(|_| seen) {
            self.bridges[n].set_enabled(segment as PortKey, whole);
            self.settle();
        }
    }

    /// Joins what `joined` accepts, ports and segments; returns the group of each bridge and segment, and whether there was a circle.
    fn groups(&self, joined: impl Fn(usize, PortKey) -> bool) -> (Vec<usize>, bool) {
        fn find(groups: &[usize], mut n: usize) -> usize {
            while groups[n] != n {
                n = groups[n];
            }
            n
        }
        let bridges = self.bridges.len();
        let mut groups: Vec<usize> = (0..bridges + self.segments.len()).collect();
        let mut circle = false;
        for (key, (members, whole)) in self.segments.iter().enumerate() {
            for &n in members.iter().filter(|&&n| *whole && joined(n, key as PortKey)) {
                let (a, b) = (find(&groups, n), find(&groups, bridges + key));
                circle |= a == b;
                groups[a] = b;
            }
        }
        ((0..bridges).map(|n| find(&groups, n)).collect(), circle)
    }

    fn forwards(&self, n: usize, key: PortKey) -> bool {
        self.states.get(&(n, key)) == Some(&State::Forwarding)
    }

    fn is_free_of_loops(&self) -> bool {
        !self.groups(|n, key| self.forwards(n, key)).1
    }

    /// Whoever is joined by anything is joined by what forwards, and once.
    fn check(&self) {
        let (whole, _) = self.groups(|_, _| true);
        let (tree, circle) = self.groups(|n, key| self.forwards(n, key));
        assert!(!circle, "a loop: {:?}", self.states);
        for (a, b) in (0..whole.len()).flat_map(|a| (0..a).map(move |b| (a, b))) {
            assert_eq!(whole[a] == whole[b], tree[a] == tree[b], "bridges {a} and {b}: {:?}", self.states);
        }
    }

    fn set_priority(&mut self, n: usize, priority: u16) {
        let BridgeConfig { id, version, .. } = self.bridges[n].status().config;
        self.bridges[n]
            .configure(BridgeConfig { version, ..BridgeConfig::new(BridgeId::new(priority, id.address())) });
        self.settle();
    }

    /// Waits until nothing changes any more. Whatever happened, it is a tree then, and stays one.
    fn comes_to_rest(&mut self) {
        self.seconds(120);
        self.check();
        let states = self.states.clone();
        self.seconds(40);
        assert_eq!(states, self.states);
    }

    fn port(&self, n: usize, key: PortKey) -> (Role, State) {
        let port = self.bridges[n].port(key).unwrap();
        assert_eq!(Some(&port.state), self.states.get(&(n, key)));
        (port.role, port.state)
    }
}

const RSTP: Version = Version::Rstp;
const TRIANGLE: [&[usize]; 3] = [&[0, 1], &[0, 2], &[1, 2]];
use Role::{Alternate, Backup, Designated};
use State::{Discarding, Forwarding};

#[test]
fn a_triangle_agrees_without_waiting() {
    let net = Network::new(&[RSTP; 3], &TRIANGLE);
    net.check();
    let ports = [(0, 0), (0, 1), (1, 0), (1, 2), (2, 1), (2, 2)].map(|(n, key)| net.port(n, key));
    let root = (Role::Root, Forwarding);
    assert_eq!(ports[..3], [(Designated, Forwarding), (Designated, Forwarding), root]);
    assert_eq!(ports[4..], [root, (Alternate, Discarding)]);
    assert_eq!(ports[3].0, Designated);
    let status = net.bridges[2].status();
    assert_eq!((status.root.root, status.root.cost, status.root_port), (id(0), 200, Some(1)));
}

#[test]
fn a_cut_link_that_is_noticed_heals_at_once() {
    let mut net = Network::new(&[RSTP; 3], &TRIANGLE);
    net.seconds(10);
    net.set_whole(1, false, true);
    net.check();
    assert_eq!(net.port(2, 2), (Role::Root, Forwarding));
    net.set_whole(1, true, true);
    net.seconds(1);
    net.check();
}

/// Three hello times.
#[test]
fn one_that_is_not_noticed_heals_when_nothing_was_heard() {
    let mut net = Network::new(&[RSTP; 3], &TRIANGLE);
    net.seconds(10);
    net.set_whole(1, false, false);
    net.seconds(3);
    assert_eq!(net.port(2, 1).0, Role::Root);
    net.seconds(4);
    net.check();
    assert_eq!(net.port(2, 2), (Role::Root, Forwarding));
}

#[test]
fn two_ports_on_one_segment_leave_one() {
    let net = || {
        let mut net = Network::new(&[RSTP; 2], &[&[0, 1]]);
        // a second port of the root on the same wire hears what the first sends
        net.bridges[0].set_port(7, PortConfig::new(PortId(0x8007), 200));
        net.bridges[0].set_enabled(7, true);
        while net.bridges[0].poll().is_some() {}
        net
    };
    let mut net = net();
    let first = net.bridges[0].port(0).unwrap();
    let flags = bpdu::Flags { role: Designated, ..bpdu::Flags::NONE };
    let message = bpdu::Message { priority: first.priority, times: Times::default(), flags };
    net.bridges[0].receive(7, &Bpdu::Rapid(message).encode());
    net.bridges[0].settle();
    assert_eq!(net.bridges[0].port(7).unwrap().role, Backup);
}

#[test]
fn a_port_without_a_neighbour_is_an_edge_after_three_seconds() {
    let mut net = Network::new(&[RSTP], &[&[0]]);
    assert_eq!(net.port(0, 0), (Designated, Discarding));
    net.seconds(3);
    assert_eq!(net.port(0, 0), (Designated, Forwarding));
    assert!(net.bridges[0].port(0).unwrap().edge);
    // and is none once somebody speaks
    let flags = bpdu::Flags::NONE;
    let priority = Priority { root: id(9), cost: 0, bridge: id(9), port: PortId(1) };
    net.bridges[0]
        .receive(0, &Bpdu::Rapid(bpdu::Message { priority, times: Times::default(), flags }).encode());
    net.bridges[0].settle();
    assert!(!net.bridges[0].port(0).unwrap().edge);
    assert_eq!(net.bridges[0].port(0).unwrap().errors, 0);
    net.bridges[0].receive(0, b"\x42\x42\x03nonsense");
    assert_eq!(net.bridges[0].port(0).unwrap().errors, 1);
}

#[test]
fn an_admin_edge_forwards_at_once() {
    let mut bridge = Bridge::new(BridgeConfig::new(id(1)));
    bridge.set_port(1, PortConfig { admin_edge: true, ..PortConfig::new(PortId(0x8001), 1) });
    bridge.set_enabled(1, true);
    bridge.settle();
    assert_eq!(bridge.port(1).unwrap().state, Forwarding);
}

/// What happens to many ports at once comes to the same as one after the other.
#[test]
fn changes_at_once_come_to_what_they_do_one_by_one() {
    let build = |at_once: bool| {
        let mut bridge = Bridge::new(BridgeConfig::new(id(5)));
        let pause = |bridge: &mut Bridge| {
            if !at_once {
                bridge.settle();
            }
        };
        for key in 0..20 {
            bridge.set_port(key, PortConfig::new(PortId(0x8000 | (key + 1)), 200));
            pause(&mut bridge);
            bridge.set_enabled(key, key % 5 != 0);
            pause(&mut bridge);
        }
        for (key, root) in [(3, 2), (4, 1), (7, 3), (4, 1), (8, 1)] {
            let priority = Priority { root: id(root), cost: 10, bridge: id(root), port: PortId(key) };
            let message = bpdu::Message {
                priority,
                times: Times::default(),
                flags: bpdu::Flags { role: Designated, ..bpdu::Flags::NONE },
            };
            bridge.receive(key, &Bpdu::Rapid(message).encode());
            pause(&mut bridge);
        }
        bridge.remove_port(4);
        pause(&mut bridge);
        bridge.set_enabled(5, true);
        bridge.settle();
        while bridge.poll().is_some() {}
        bridge.ports().map(|(key, port)| (key, port.role, port.state, port.priority)).collect::<Vec<_>>()
    };
    assert_eq!(build(true), build(false));
    assert_eq!(
        build(true)
            .iter()
            .filter(|(_, role, ..)| *role == crate::Role::Root)
            .map(|(key, ..)| *key)
            .collect::<Vec<_>>(),
        [8]
    );
}

#[test]
fn stp_waits_out_the_forward_delay_twice() {
    let mut net = Network::new(&[Version::Stp; 3], &TRIANGLE);
    net.seconds(29);
    assert!(net.states.values().all(|state| *state != Forwarding));
    net.seconds(2);
    net.check();
    assert_eq!(net.port(2, 2).0, Alternate);
}

#[test]
fn a_neighbour_with_stp_is_spoken_to_in_stp() {
    let mut net = Network::new(&[RSTP, Version::Stp], &[&[0, 1]]);
    assert!(net.bridges[0].port(0).unwrap().rapid);
    net.seconds(6);
    assert!(!net.bridges[0].port(0).unwrap().rapid);
    net.seconds(35);
    net.check();
    // it is replaced by one that knows more, and an operator says to look again
    net.bridges[1].configure(BridgeConfig { version: RSTP, ..BridgeConfig::new(id(1)) });
    net.settle();
    net.bridges[0].check_migration(0);
    net.settle();
    net.seconds(8);
    assert!(net.bridges.iter().all(|b| b.port(0).unwrap().rapid));
    net.check();
}

#[test]
fn a_topology_change_has_the_others_forget() {
    let mut net = Network::new(&[RSTP; 3], &[&[0, 1], &[1, 2]]);
    net.seconds(20);
    net.bridges[2].force_topology_change();
    let mut actions = Vec::new();
    while let Some(action) = net.bridges[2].poll() {
        actions.push(action);
    }
    assert_eq!(actions[0], Action::Flush(1));
    let Some(Action::Transmit(1, bpdu)) = actions.get(1).copied() else { panic!("{actions:?}") };
    net.bridges[1].receive(1, &bpdu.encode());
    let mut told = Vec::new();
    while let Some(action) = net.bridges[1].poll() {
        told.push(action);
    }
    assert!(told.contains(&Action::Flush(0)) && !told.contains(&Action::Flush(1)), "{told:?}");
    assert!(matches!(told.last(), Some(Action::Transmit(0, Bpdu::Rapid(m))) if m.flags.topology_change));
}

/// Also with STP, where word goes up to the root by notifications, and down by flags.
#[test]
fn a_notification_is_acknowledged_once() {
    let mut net = Network::new(&[Version::Stp; 3], &[&[0, 1], &[1, 2], &[0, 2]]);
    net.seconds(80);
    net.check();
    let before = net.sent;
    net.seconds(20);
    // the root and one designated port, each hello time, and nothing else
    assert_eq!(net.sent - before, 30);
}

#[test]
fn a_better_bridge_takes_over_and_a_port_gone_is_forgotten() {
    let mut net = Network::new(&[RSTP; 3], &TRIANGLE);
    net.seconds(5);
    net.bridges[2].configure(BridgeConfig::new(BridgeId::new(0x1000, [2, 0, 0, 0, 0, 2])));
    net.settle();
    net.seconds(1);
    net.check();
    assert!(net.bridges.iter().all(|b| b.status().root.root.priority() == 0x1000));
    for (n, key) in [(0, 1), (0, 0)] {
        net.bridges[n].remove_port(key);
        net.states.remove(&(n, key));
        net.settle();
    }
    assert_eq!(net.bridges[0].ports().count(), 0);
    assert_eq!(net.bridges[0].status().root.root, id(0));
}

#[test]
fn what_a_port_sends_and_hears_itself_says_so() {
    let mut bridge = Bridge::new(BridgeConfig::new(id(1)));
    bridge.set_port(1, PortConfig::new(PortId(0x8001), 1));
    bridge.set_enabled(1, true);
    let mut heard = Vec::new();
    while let Some(action) = bridge.poll() {
        heard.extend(matches!(action, Action::Transmit(..)).then_some(action));
    }
    let Some(Action::Transmit(1, bpdu)) = heard.pop() else { panic!() };
    bridge.receive(1, &bpdu.encode());
    assert!(bridge.port(1).unwrap().hears_itself);
}

#[derive(Debug, Clone)]
enum Event {
    Cut(usize, bool),
    Mend(usize, bool),
    Wait(usize),
    Priority(usize, u16),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        (any::<usize>(), any::<bool>()).prop_map(|(s, seen)| Event::Cut(s, seen)),
        (any::<usize>(), any::<bool>()).prop_map(|(s, seen)| Event::Mend(s, seen)),
        (0..30usize).prop_map(Event::Wait),
        (any::<usize>(), 0..16u16).prop_map(|(n, p)| Event::Priority(n, p << 12)),
    ]
}

fn versions(stp: &[bool]) -> Vec<Version> {
    stp.iter().map(|stp| if *stp { Version::Stp } else { RSTP }).collect()
}

/// The first `bridges` of those on each segment.
fn segments(joins: &[BTreeSet<usize>], bridges: usize) -> Vec<Vec<usize>> {
    joins.iter().map(|set| set.iter().copied().filter(|n| *n < bridges).collect()).collect()
}

proptest! {
    /// Any bridges of any version joined by any segments, cut and mended at any time, noticed or not.
    ///
    /// When the root is lost or becomes a worse one, what bridges have heard of it may go round in a circle until it is too old.
    /// Meanwhile an RSTP of whatever make may let a loop be for moments (Elmeleegy, Cox, Ng: On Count-to-Infinity Induced
    /// Forwarding Loops in Ethernet Networks, INFOCOM 2006), so these are not looked for.
    #[test]
    fn what_forwards_comes_to_be_a_tree(
        stp in prop::collection::vec(prop::bool::weighted(0.2), 1..7),
        joins in prop::collection::vec(prop::collection::btree_set(0..7usize, 1..4), 0..10),
        events in prop::collection::vec(event(), 0..8),
    ) {
        let segments = segments(&joins, stp.len());
        let segments: Vec<&[usize]> = segments.iter().map(|s| s.as_slice()).collect();
        let mut net = Network::new(&versions(&stp), &segments);
        net.strict = false;
        for event in events {
            match event {
                Event::Wait(seconds) => net.seconds(seconds),
                Event::Cut(s, seen) if !segments.is_empty() => net.set_whole(s % segments.len(), false, seen),
                Event::Mend(s, seen) if !segments.is_empty() => {
                    let s = s % segments.len();
                    let enabled = |net: &Network| net.segments[s].0.iter().all(|n| {
                        net.bridges[*n].port(s as PortKey).unwrap().enabled
                    });
                    let seen = seen || !enabled(&net);
                    net.set_whole(s, true, seen);
                }
                Event::Priority(n, priority) => net.set_priority(n % stp.len(), priority),
                Event::Cut(..) | Event::Mend(..) => {}
            }
        }
        net.comes_to_rest();
    }

    /// As long as nothing is lost, there is no loop even for a moment: segments are joined one after the other, bridges become
    /// better ones.
    #[test]
    fn what_is_added_makes_no_loop_at_any_time(
        stp in prop::collection::vec(prop::bool::weighted(0.2), 1..7),
        joins in prop::collection::vec((prop::collection::btree_set(0..7usize, 1..4), 0..20usize), 0..10),
        better in prop::collection::vec((0..10usize, any::<usize>(), 0..8u16), 0..5),
    ) {
        let (joins, waits): (Vec<_>, Vec<_>) = joins.into_iter().unzip();
        let segments = segments(&joins, stp.len());
        let segments: Vec<&[usize]> = segments.iter().map(|s| s.as_slice()).collect();
        let mut net = Network::apart(&versions(&stp), &segments);
        for (segment, wait) in waits.into_iter().enumerate() {
            net.set_whole(segment, true, true);
            net.seconds(wait);
            for (_, n, priority) in better.iter().filter(|(when, ..)| *when == segment) {
                let (n, priority) = (n % stp.len(), priority << 12);
                if priority < net.bridges[n].status().config.id.priority() {
                    net.set_priority(n, priority);
                }
            }
        }
        net.comes_to_rest();
    }
}
