//! Multicast snooping: the same settings typed into Underpass and into Open vSwitch, the same IGMP and MLD sent into the ports of
//! both; `mdb/show` and the ports that each frame leaves by compared.

use std::collections::BTreeMap;

use datapath::wire::checksum::{Sum, pseudo};
use harness::frames::{Frames, numbered};
use harness::ovs::Ovs;
use harness::topology::{UNDERLAY, reaches, two_switches, wired};
use harness::{Host, Netns, poll};

/// What each port is told, in the language of `ovs-vsctl set port`. Queries come from p6.
const PORTS: [&str; 8] = [
    "",
    "",
    "other_config:mcast-snooping-flood=true",
    "other_config:mcast-snooping-flood-reports=true",
    "tag=10",
    "trunks=0,10",
    "",
    "tag=10",
];
const ROUTER: usize = 6;

/// A switch with a port for each of [`PORTS`], and the devices at their far ends.
struct Bench {
    host: Host,
    frames: Frames,
    _far: Netns,
}

impl Bench {
    fn configured(host: Host, far: Netns) -> Bench {
        host.vsctl("add-br br0 -- set bridge br0 datapath_type=netdev mcast_snooping_enable=true");
        for (i, settings) in PORTS.iter().enumerate() {
            let set =
                if settings.is_empty() { String::new() } else { format!("-- set port p{i} {settings}") };
            host.vsctl(&format!("add-port br0 p{i} {set}"));
        }
        let devices: Vec<String> = (0..PORTS.len()).map(|i| format!("q{i}")).collect();
        let frames = Frames::start(&far, &devices);
        Bench { host, frames, _far: far }
    }

    fn send(&mut self, port: usize, frame: Vec<u8>) {
        self.frames.send(&format!("q{port}"), &frame);
    }

    /// `mdb/show`, its lines in order and without ages.
    fn groups(&self) -> Vec<String> {
        let shown = self.host.appctl("mdb/show br0");
        assert_eq!(shown.lines().next(), Some(" port  VLAN  GROUP                Age"), "{shown}");
        let without_age =
            |line: &str| line.trim_end().trim_end_matches(|c: char| c.is_ascii_digit()).to_owned();
        let mut lines: Vec<String> = shown.lines().skip(1).map(without_age).collect();
        lines.sort();
        lines
    }
}

/// Both switches, and how many frames they have been sent.
struct Both {
    ours: Bench,
    real: Bench,
    _ovs: Ovs,
    sent: u32,
}

impl Both {
    fn start() -> Both {
        let (mut ours, far) = wired("ours", PORTS.len());
        let (real, real_far) = wired("real", PORTS.len());
        let ovs = Ovs::start(&real);
        ours.start();
        let (ours, real) = (Bench::configured(ours, far), Bench::configured(real, real_far));
        Both { ours, real, _ovs: ovs, sent: 0 }
    }

    fn vsctl(&self, line: &str) {
        self.ours.host.vsctl(line);
        self.real.host.vsctl(line);
    }

    fn ofctl(&self, line: &str) {
        for bench in [&self.ours, &self.real] {
            harness::cli::run(bench.host.tool("ovs-ofctl").args(line.split_whitespace()));
        }
    }

    fn appctl(&self, line: &str) {
        assert_eq!(self.ours.host.appctl(line), self.real.host.appctl(line));
    }

    fn send(&mut self, port: usize, frame: &[u8]) -> u32 {
        self.sent += 1;
        let frame = numbered(self.sent, frame.to_vec());
        self.ours.send(port, frame.clone());
        self.real.send(port, frame);
        self.sent
    }

    /// Waits until both know so many groups and routers' ports, and the same.
    fn know(&self, count: usize) {
        let mut shown = Default::default();
        let end = std::time::Instant::now() + harness::cli::LATEST;
        while std::time::Instant::now() < end {
            shown = (self.ours.groups(), self.real.groups());
            if shown.0.len() == count && shown.0 == shown.1 {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        panic!("not {count} and the same:\nUnderpass:    {:#?}\nOpen vSwitch: {:#?}", shown.0, shown.1);
    }

    /// Sends frames, by name, into ports; both must let each out of the same ports, by the same bytes. Open vSwitch takes a
    /// moment to go by what it has learned, so what differs is sent again.
    fn agree(&mut self, frames: &[(String, usize, Vec<u8>)]) -> BTreeMap<String, Vec<String>> {
        let mut report = String::new();
        for _ in 0..10 {
            let numbers: Vec<u32> = frames.iter().map(|(_, port, frame)| self.send(*port, frame)).collect();
            let last = self.send(0, &ethernet([0xff; 6], 0, None, 0x88b6, vec![0; 46]));
            let seen = [&self.ours, &self.real].map(|bench| {
                poll("the last frame", || bench.frames.settled().contains_key(&last).then_some(()));
                bench.frames.settled()
            });
            report.clear();
            let mut went = BTreeMap::new();
            for (number, (name, ..)) in numbers.iter().zip(frames) {
                let [got, want] = [0, 1].map(|i| {
                    let mut copies = seen[i].get(number).cloned().unwrap_or_default();
                    // a port that is two things at once gets two copies of Open vSwitch
                    copies.dedup();
                    copies
                });
                let devices =
                    |copies: &[(String, Vec<u8>)]| copies.iter().map(|(d, _)| d.clone()).collect::<Vec<_>>();
                if got != want {
                    report +=
                        &format!("\n{name}: ours {:?}, Open vSwitch's {:?}", devices(&got), devices(&want));
                }
                went.insert(name.clone(), devices(&got));
            }
            if report.is_empty() {
                return went;
            }
        }
        panic!("{report}\n{}", self.ours.host.appctl("mdb/show br0"));
    }
}

fn ethernet(dst: [u8; 6], port: usize, vlan: Option<u16>, ethertype: u16, packet: Vec<u8>) -> Vec<u8> {
    let tag = vlan.map(|vid| [[0x81, 0], vid.to_be_bytes()].concat()).unwrap_or_default();
    [&dst[..], &[2, 0, 0, 0, 2, port as u8], &tag, &ethertype.to_be_bytes(), &packet].concat()
}

fn ipv4(src: [u8; 4], dst: [u8; 4], proto: u8, payload: &[u8]) -> Vec<u8> {
    let len = (20 + payload.len()) as u16;
    let mut header =
        [&[0x45, 0][..], &len.to_be_bytes(), &[0, 0, 0x40, 0, 1, proto, 0, 0], &src, &dst].concat();
    datapath::wire::ipv4::set_checksum(&mut header);
    [header, payload.to_vec()].concat()
}

fn ipv6(src: [u8; 16], dst: [u8; 16], hops: &[u8], proto: u8, payload: &[u8]) -> Vec<u8> {
    let len = (hops.len() + payload.len()) as u16;
    let next = if hops.is_empty() { proto } else { 0 };
    [&[0x60, 0, 0, 0][..], &len.to_be_bytes(), &[next, 1], &src, &dst, hops, payload].concat()
}

fn mac4([_, b, c, d]: [u8; 4]) -> [u8; 6] {
    [1, 0, 0x5e, b & 0x7f, c, d]
}

fn mac6(group: [u8; 16]) -> [u8; 6] {
    [0x33, 0x33, group[12], group[13], group[14], group[15]]
}

/// An address of a host behind a port.
fn host4(port: usize) -> [u8; 4] {
    [10, 0, 0, port as u8]
}

fn host6(port: usize) -> [u8; 16] {
    let mut address = [0; 16];
    (address[0], address[1], address[15]) = (0xfe, 0x80, port as u8);
    address
}

fn group4(n: u8) -> [u8; 4] {
    [239, 1, 1, n]
}

fn group6(n: u8) -> [u8; 16] {
    let mut group = [0; 16];
    (group[0], group[1], group[14], group[15]) = (0xff, 0x0e, 1, n);
    group
}

fn igmp(port: usize, vlan: Option<u16>, src: [u8; 4], message: &[u8]) -> Vec<u8> {
    let mut message = message.to_vec();
    let sum = Sum::of(&message).checksum();
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let dst = if message[0] == 0x11 { [224, 0, 0, 1] } else { [224, 0, 0, 22] };
    ethernet(mac4(dst), port, vlan, 0x0800, ipv4(src, dst, 2, &message))
}

fn mld(port: usize, vlan: Option<u16>, src: [u8; 16], message: &[u8]) -> Vec<u8> {
    let mut message = message.to_vec();
    let dst = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, if message[0] == 130 { 1 } else { 0x16 }];
    let sum = pseudo(&[src, dst].concat(), 58, message.len()) + Sum::of(&message);
    message[2..4].copy_from_slice(&sum.checksum().to_be_bytes());
    let router_alert = [58, 0, 5, 2, 0, 0, 1, 0];
    ethernet(mac6(dst), port, vlan, 0x86dd, ipv6(src, dst, &router_alert, 58, &message))
}

/// IGMP version 1 or 2, or MLD version 1.
fn report(kind: u8, port: usize, vlan: Option<u16>, n: u8) -> Vec<u8> {
    if kind > 100 {
        return mld(port, vlan, host6(port), &[&[kind, 0, 0, 0, 0, 0, 0, 0][..], &group6(n)].concat());
    }
    igmp(port, vlan, host4(port), &[&[kind, 0, 0, 0][..], &group4(n)].concat())
}

/// IGMP version 3 or MLD version 2: records of (kind, sources, group).
fn records(six: bool, port: usize, vlan: Option<u16>, list: &[(u8, u8, u8)]) -> Vec<u8> {
    let mut message = vec![if six { 143 } else { 0x22 }, 0, 0, 0, 0, 0, 0, list.len() as u8];
    for (kind, sources, n) in list {
        let size = if six { 16 } else { 4 };
        message.extend([*kind, 0, 0, *sources]);
        if six {
            message.extend(group6(*n))
        } else {
            message.extend(group4(*n))
        }
        message.extend(vec![9; size * usize::from(*sources)]);
    }
    if six { mld(port, vlan, host6(port), &message) } else { igmp(port, vlan, host4(port), &message) }
}

fn query(six: bool, port: usize, vlan: Option<u16>, by_somebody: bool) -> Vec<u8> {
    match (six, by_somebody) {
        (false, true) => igmp(port, vlan, host4(port), &[0x11, 100, 0, 0, 0, 0, 0, 0]),
        (false, false) => igmp(port, vlan, [0; 4], &[0x11, 100, 0, 0, 0, 0, 0, 0]),
        (true, _) => {
            let src = if by_somebody { host6(port) } else { [0; 16] };
            mld(port, vlan, src, &[&[130, 0, 0, 0, 0, 100, 0, 0][..], &[0; 16]].concat())
        }
    }
}

/// What is sent to groups, from a port in no VLAN and from one in VLAN 10.
fn traffic() -> Vec<(String, usize, Vec<u8>)> {
    let udp = [0, 1, 0, 2, 0, 12, 0, 0, 1, 2, 3, 4];
    let mut frames = Vec::new();
    for (from, vlan) in [(0, None), (ROUTER, None), (5, Some(10)), (4, None)] {
        let mut add = |name: String, dst, ethertype, packet| {
            frames.push((
                format!("{name} from p{from} {vlan:?}"),
                from,
                ethernet(dst, from, vlan, ethertype, packet),
            ));
        };
        for n in 1..=5 {
            add(format!("IPv4 group {n}"), mac4(group4(n)), 0x0800, ipv4(host4(from), group4(n), 17, &udp));
            add(
                format!("IPv6 group {n}"),
                mac6(group6(n)),
                0x86dd,
                ipv6(host6(from), group6(n), &[], 17, &udp),
            );
        }
        for dst in [[224, 0, 0, 251], [224, 0, 1, 1]] {
            add(format!("{dst:?}"), mac4(dst), 0x0800, ipv4(host4(from), dst, 17, &udp));
        }
        for last in [1, 0xfb] {
            let dst = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last];
            add(format!("ff02::{last:x}"), mac6(dst), 0x86dd, ipv6(host6(from), dst, &[], 17, &udp));
        }
        add("PIM".into(), mac4([224, 0, 0, 13]), 0x0800, ipv4(host4(from), [224, 0, 0, 13], 103, &udp));
        add("DVMRP".into(), mac4([224, 0, 0, 4]), 0x0800, ipv4(host4(from), [224, 0, 0, 4], 2, &[0x13; 8]));
        add("no IP".into(), mac4(group4(1)), 0x88b6, udp.to_vec());
        add("broadcast".into(), [0xff; 6], 0x0800, ipv4(host4(from), [255; 4], 17, &udp));
        add("unicast MAC".into(), [2, 0, 0, 0, 9, 9], 0x0800, ipv4(host4(from), group4(1), 17, &udp));
    }
    frames
}

#[test]
fn groups_go_where_open_vswitchs_do() {
    let mut both = Both::start();
    both.know(0);
    both.agree(&traffic());
    // IGMP 1, 2, 3 and MLD 1, 2, in and out of a VLAN; from a port that hears everything; one that is damaged
    both.send(0, &report(0x12, 0, None, 1));
    both.send(1, &report(0x16, 1, None, 1));
    both.send(1, &records(false, 1, None, &[(2, 0, 2), (4, 0, 3), (1, 1, 4), (3, 0, 5)]));
    both.send(4, &report(0x16, 4, None, 2));
    both.send(5, &report(131, 5, Some(10), 1));
    both.send(7, &records(true, 7, None, &[(4, 0, 1), (5, 1, 2), (6, 1, 3), (1, 0, 4)]));
    both.send(2, &report(0x16, 2, None, 4));
    both.send(3, &report(0x16, 3, None, 5));
    let mut damaged = report(0x16, 0, None, 5);
    damaged[36] ^= 0xff;
    both.send(0, &damaged);
    both.know(11);
    let went = both.agree(&traffic());
    assert_eq!(went["IPv4 group 1 from p6 None"], ["q0", "q1", "q2"]);
    assert_eq!(went["IPv6 group 1 from p4 None"], ["q2", "q5", "q7"]);
    both.vsctl("set bridge br0 other_config:mcast-snooping-disable-flood-unregistered=true");
    both.agree(&traffic());
    // routers: in no VLAN by IGMP, in VLAN 10 by MLD; and two who ask in a router's stead
    both.send(ROUTER, &query(false, ROUTER, None, true));
    both.send(5, &query(true, 5, Some(10), true));
    both.send(0, &query(false, 0, None, false));
    both.send(4, &query(true, 4, None, false));
    both.know(13);
    // who is left hears on; behind a port that hears reports nobody is thought to have left
    both.send(0, &report(0x17, 0, None, 1));
    both.send(4, &records(false, 4, None, &[(3, 0, 9)]));
    both.send(7, &report(132, 7, None, 1));
    both.send(3, &report(0x17, 3, None, 5));
    both.know(11);
    let went = both.agree(&traffic());
    assert_eq!(went["IPv4 group 1 from p0 None"], ["q1", "q2", "q6"]);
    // the messages themselves
    let messages: Vec<(String, usize, Vec<u8>)> = [
        ("IGMP 2 report", 1, report(0x16, 1, None, 1)),
        ("IGMP 3 report", 1, records(false, 1, None, &[(4, 0, 1)])),
        ("IGMP leave of what nobody heard", 1, report(0x17, 1, None, 77)),
        ("IGMP query", ROUTER, query(false, ROUTER, None, true)),
        ("MLD report in a VLAN", 7, records(true, 7, None, &[(4, 0, 2)])),
        ("MLD done in a VLAN", 7, report(132, 7, None, 77)),
        ("MLD query", 5, query(true, 5, Some(10), true)),
        ("MLD report where there is no router of it", 1, report(131, 1, Some(20), 1)),
    ]
    .map(|(name, port, frame)| (name.to_owned(), port, frame))
    .into();
    let went = both.agree(&messages);
    assert_eq!(went["IGMP 2 report"], ["q3", "q6"]);
    // who has asked for it gets it where floods do not reach, too
    let quiet = [1, 2, 3, ROUTER];
    quiet.iter().for_each(|port| both.ofctl(&format!("mod-port br0 p{port} no-flood")));
    let went = both.agree(&traffic());
    assert_eq!(went["IPv4 group 1 from p0 None"], ["q1", "q2", "q6"]);
    assert_eq!(went["broadcast from p0 None"], ["q5"]);
    let went = both.agree(&messages);
    assert_eq!(went["IGMP 2 report"], ["q3", "q6"]);
    quiet.iter().for_each(|port| both.ofctl(&format!("mod-port br0 p{port} flood")));
    // a port that leaves VLANs, and one that goes
    both.vsctl("set port p1 tag=10");
    both.vsctl("del-port br0 p7");
    both.vsctl("set port p4 tag=11");
    poll("what was learned on them is forgotten", || {
        (both.ours.groups() == both.real.groups()).then_some(())
    });
    both.agree(&traffic());
    both.appctl("mdb/flush br0");
    both.know(0);
    both.agree(&traffic());
    // no more than so many, and the oldest goes
    both.vsctl("set bridge br0 other_config:mcast-snooping-table-size=10");
    for n in 1..=10 {
        both.send(0, &report(0x16, 0, None, n));
        both.know(usize::from(n));
    }
    both.send(0, &report(0x16, 0, None, 1));
    both.send(0, &report(0x16, 0, None, 11));
    poll("a new group", || both.ours.groups().iter().any(|l| l.contains(".11 ")).then_some(()));
    both.know(10);
    assert!(both.ours.groups().iter().all(|line| !line.contains("239.1.1.2 ")));
    both.vsctl("set bridge br0 mcast_snooping_enable=false");
    for bench in [&both.ours, &both.real] {
        let out = harness::cli::output(bench.host.tool("ovs-appctl").args(["mdb/show", "br0"]));
        assert!(out.stderr.starts_with("multicast snooping is disabled\n"), "{out:?}");
    }
    both.agree(&traffic());
}

/// Joined through a tunnel: hB's own stack says so by IGMP, and hA sends a group's datagrams there and nowhere else.
/// ```text
///   [ hA br0, p0 ]──GRE──[ br0 hB ]
/// ```
#[test]
fn a_group_is_joined_through_a_tunnel() {
    let hosts = two_switches(1500);
    let [a, b] = &hosts;
    let far = Netns::new("far");
    a.ns.veth("p0", &far, "q0", 1500);
    far.sh("sysctl -qw net.ipv6.conf.all.disable_ipv6=1");
    for (host, remote) in hosts.iter().zip([UNDERLAY[1], UNDERLAY[0]]) {
        host.vsctl("set bridge br0 mcast_snooping_enable=true");
        host.gre("gre0", remote, "");
    }
    a.vsctl("set bridge br0 other_config:mcast-snooping-disable-flood-unregistered=true");
    a.vsctl("add-port br0 p0");
    // no router asks, and reports go to routers alone
    b.vsctl("set port gre0 other_config:mcast-snooping-flood-reports=true");
    let mut frames = Frames::start(&far, &["q0".into()]);
    // its stack reports twice, and then no more
    reaches(b, &a.docker0());
    b.ns.sh("ip addr add 239.1.1.1/32 dev br0 autojoin");
    poll("hA to know who hears it", || a.appctl("mdb/show br0").contains("239.1.1.1 ").then_some(()));
    let heard = Frames::start(b, &["br0".into()]);
    for n in 0..20 {
        let group = group4(1 + n % 2);
        let packet = ipv4([10, 0, 11, 9], group, 17, &[0, 1, 0, 2, 0, 8, 0, 0]);
        frames.send("q0", &numbered(n.into(), ethernet(mac4(group), 0, None, 0x0800, packet)));
    }
    let even: Vec<u32> = (0..20).step_by(2).collect();
    poll("each second of them at hB", || heard.settled().into_keys().eq(even.iter().copied()).then_some(()));
    b.ns.sh("ip addr del 239.1.1.1/32 dev br0");
    poll("hA to hear that it has left", || (!a.appctl("mdb/show br0").contains("239.1.1.1 ")).then_some(()));
}
