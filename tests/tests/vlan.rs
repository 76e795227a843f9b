//! VLANs: the same settings typed into Underpass and into Open vSwitch, the same frames sent into the ports of both, and what
//! leaves by each port compared byte by byte; and VLANs through a tunnel.

use std::collections::BTreeMap;

use harness::frames::{Frames, frame};
use harness::ovs::Ovs;
use harness::topology::{UNDERLAY, reaches, two_switches, wired};
use harness::{Capture, Host, Netns, traffic};

const BROADCAST: [u8; 6] = [0xff; 6];

/// What each port is told, in the language of `ovs-vsctl set port`.
const PORTS: [&str; 14] = [
    "",
    "tag=10",
    "tag=10 trunks=20",
    "trunks=10,20",
    "trunks=0,20,100",
    "vlan_mode=native-tagged tag=10 trunks=20",
    "vlan_mode=native-untagged tag=20 trunks=10",
    "vlan_mode=native-untagged tag=10",
    "vlan_mode=dot1q-tunnel tag=100",
    "vlan_mode=dot1q-tunnel tag=100 cvlans=10 other_config:qinq-ethtype=802.1q",
    "tag=0 other_config:priority-tags=if-nonzero",
    "other_config:priority-tags=always",
    "tag=10 other_config:priority-tags=if-nonzero",
    "tag=100",
];

/// Tags that frames are sent with. Not among them is one of VLAN 0 and priority 0: what Open vSwitch makes of it depends on
/// what it made of the frame before.
const TAGS: [&[[u8; 4]]; 9] = [
    &[],
    &[[0x81, 0, 0xa0, 0]],
    &[[0x81, 0, 0x60, 10]],
    &[[0x81, 0, 0, 20]],
    &[[0x81, 0, 0, 30]],
    &[[0x81, 0, 0xe0, 100]],
    &[[0x88, 0xa8, 0, 100]],
    &[[0x88, 0xa8, 0x40, 100], [0x81, 0, 0x20, 10]],
    &[[0x81, 0, 0, 10], [0x81, 0, 0, 20]],
];

/// A switch with a port for each of [`PORTS`], and the devices at their far ends.
struct Bench {
    host: Host,
    frames: Frames,
    _far: Netns,
}

impl Bench {
    fn hosts(tag: &str) -> (Host, Netns, Vec<String>) {
        let (host, far) = wired(tag, PORTS.len());
        let devices = (0..PORTS.len()).map(|i| format!("q{i}")).collect();
        (host, far, devices)
    }

    fn configured(host: Host, far: Netns, devices: &[String], limit: u8) -> Bench {
        host.vsctl(&format!("set open_vswitch . other_config:vlan-limit={limit}"));
        host.vsctl("add-br br0 -- set bridge br0 datapath_type=netdev flood_vlans=30");
        for (i, settings) in PORTS.iter().enumerate() {
            let set =
                if settings.is_empty() { String::new() } else { format!("-- set port p{i} {settings}") };
            host.vsctl(&format!("add-port br0 p{i} {set}"));
        }
        let frames = Frames::start(&far, devices);
        Bench { host, frames, _far: far }
    }

    /// One frame of each kind from each port; `to` says which address it has, by port and kind. No more than three tags come
    /// of it when two are looked at, for then Open vSwitch loses the third.
    fn send(&mut self, first: u32, limit: u8, to: impl Fn(usize, usize) -> [u8; 6]) {
        for (port, settings) in PORTS.iter().enumerate() {
            for (kind, tags) in TAGS.iter().enumerate() {
                if limit == 2 && tags.len() == 2 && settings.contains("dot1q-tunnel") {
                    continue;
                }
                let number = first + (port * TAGS.len() + kind) as u32;
                self.frames.send(&format!("q{port}"), &frame(number, to(port, kind), station(port), tags));
            }
        }
    }
}

fn station(port: usize) -> [u8; 6] {
    [2, 0, 0, 0, 1, port as u8]
}

type Seen = BTreeMap<u32, Vec<(String, Vec<u8>)>>;

/// Both switches, once both are quiet, and for as long as they differ but may yet agree.
fn settled(ours: &Bench, real: &Bench) -> [Seen; 2] {
    for _ in 0..10 {
        let seen = [ours.frames.settled(), real.frames.settled()];
        if seen[0] == seen[1] {
            return seen;
        }
    }
    [ours.frames.settled(), real.frames.settled()]
}

/// Known stations may be behind ports that are not in a frame's VLAN. Open vSwitch sends there and Underpass does not, and counts
/// each such frame.
fn assert_same(ours: &Bench, real: &Bench, last: u32) {
    let [got, want] = settled(ours, real);
    let mut report = String::new();
    let mut kept_in = 0;
    for number in 0..last {
        if lacks_one(got.get(&number), want.get(&number)) {
            kept_in += 1;
        } else if got.get(&number) != want.get(&number) {
            let at = number as usize % (PORTS.len() * TAGS.len());
            let (port, tags) = (at / TAGS.len(), TAGS[at % TAGS.len()]);
            report += &format!("\n#{number} into p{port} ({}) with tags {tags:02x?}\n", PORTS[port]);
            report += &format!("  Open vSwitch: {}\n", show(want.get(&number)));
            report += &format!("  Underpass:    {}", show(got.get(&number)));
        }
    }
    assert!(report.is_empty(), "{report}\n{}", ours.host.appctl("coverage/show"));
    let counters = ours.host.appctl("coverage/show");
    let counted = counters.lines().find(|line| line.starts_with("drop_vlan_out"));
    let counted = counted.and_then(|line| line.split_whitespace().last()).unwrap_or("0");
    assert_eq!(kept_in.to_string(), counted, "{report}");
    assert!(want.len() > PORTS.len() * 4, "most frames went somewhere: {}", want.len());
}

/// Whether the first copies are the second but for one.
fn lacks_one(got: Option<&Vec<(String, Vec<u8>)>>, want: Option<&Vec<(String, Vec<u8>)>>) -> bool {
    let (none, want) = (Vec::new(), want.cloned().unwrap_or_default());
    let got = got.unwrap_or(&none);
    got.len() + 1 == want.len() && got.iter().all(|copy| want.contains(copy))
}

/// Devices and the tags that frames have there.
fn show(copies: Option<&Vec<(String, Vec<u8>)>>) -> String {
    let shown = copies.into_iter().flatten().map(|(device, bytes)| {
        let tags: String = bytes[12..24]
            .chunks(4)
            .take_while(|t| t[..2] != [0x88, 0xb5])
            .map(|t| format!(" {t:02x?}"))
            .collect();
        format!("{device}{tags}")
    });
    shown.collect::<Vec<_>>().join(", ")
}

fn compare(limit: u8, more: &str) {
    let (mut ours, far, devices) = Bench::hosts("ours");
    let (real, real_far, _) = Bench::hosts("real");
    let _ovs = Ovs::start(&real);
    ours.start();
    let mut ours = Bench::configured(ours, far, &devices, limit);
    let mut real = Bench::configured(real, real_far, &devices, limit);
    if !more.is_empty() {
        for bench in [&ours, &real] {
            bench.host.vsctl(more);
        }
    }
    let each = (PORTS.len() * TAGS.len()) as u32;
    for bench in [&mut ours, &mut real] {
        bench.send(0, limit, |_, _| BROADCAST);
    }
    assert_same(&ours, &real, each);
    // now every station is known, in each VLAN that it sent in
    for round in 1..=3 {
        for bench in [&mut ours, &mut real] {
            let to = |port, kind| station((port + kind + 5 * round) % PORTS.len());
            bench.send(each * round as u32, limit, to);
        }
    }
    assert_same(&ours, &real, 4 * each);
    let table = |bench: &Bench| {
        let shown = bench.host.appctl("fdb/show br0");
        let entry = |line: &str| line.split_whitespace().take(3).collect::<Vec<_>>().join(" ");
        let mut lines: Vec<String> = shown.lines().map(entry).collect();
        lines.sort();
        lines
    };
    assert_eq!(table(&ours), table(&real));
}

#[test]
fn each_kind_of_port_does_what_open_vswitchs_does() {
    compare(1, "");
}

#[test]
fn the_same_with_two_tags_looked_at() {
    compare(2, "");
}

/// A watcher's port has no traffic of its own.
#[test]
fn mirrors_copy_what_open_vswitchs_do() {
    compare(
        1,
        "-- --id=@s get port p1 -- --id=@d get port p5 -- --id=@o get port p0 \
         -- --id=@m create mirror name=m select_src_port=@s select_dst_port=@d select_vlan=10,20 output_port=@o \
         -- --id=@all create mirror name=all select_all=true output_vlan=77 \
         -- set bridge br0 mirrors=@m,@all",
    );
}

/// ```text
///   [ hA br0, br0.10, br0.20 ]──GRE──[ br0, br0.10, br0.20 hB ]
/// ```
#[test]
fn fake_bridges_are_apart_and_join_through_a_tunnel() {
    let hosts = two_switches(1500);
    for (host, remote) in hosts.iter().zip([UNDERLAY[1], UNDERLAY[0]]) {
        host.gre("gre0", remote, "");
        for vlan in [10, 20] {
            let name = format!("br0.{vlan}");
            host.vsctl(&format!("add-br {name} br0 {vlan}"));
            assert_eq!(host.vsctl(&format!("br-to-vlan {name}")).trim(), vlan.to_string());
            assert_eq!(host.vsctl(&format!("br-to-parent {name}")).trim(), "br0");
            host.ns
                .sh(&format!("ip addr add 10.{vlan}.{}.1/16 dev {name}; ip link set {name} up", host.subnet));
        }
        assert_eq!(host.get("port", "br0.10", "fake_bridge"), "true");
        assert_eq!(host.get("interface", "br0.10", "error"), "[]");
        assert_eq!(host.vsctl("list-br"), "br0\nbr0.10\nbr0.20");
    }
    let [a, b] = &hosts;
    let capture = Capture::wire([a, b], "u0", "ip proto 47");
    for (from, to) in [(a, b), (b, a)] {
        for net in ["10.10", "10.20", "10.0"] {
            reaches(from, &format!("{net}.{}.1", to.subnet));
        }
    }
    // no ARP request of one VLAN is heard in another
    b.ns.sh("sysctl -qw net.ipv4.conf.all.arp_ignore=1");
    a.ns.sh("ip addr add 10.99.0.1/24 dev br0.10");
    b.ns.sh("ip addr add 10.99.0.2/24 dev br0.20");
    assert!(!traffic::try_ping(a, "-c2 -i0.2 -W1 10.99.0.2").success());
    // superframes, checksums left to the device, packets too long for the tunnel
    for net in ["10.10", "10.0"] {
        traffic::tcp(a, b, &format!("{net}.42.1"), 20 << 20);
        traffic::tcp(b, a, &format!("{net}.11.1"), 20 << 20);
    }
    let seen = capture.stop();
    seen.assert_clean(1500);
    assert!(seen.count("gre && vlan.id == 10 && tcp") > 0 && seen.count("gre && vlan.id == 20") > 0);
    assert!(seen.count("gre && !vlan && icmp") > 0);
    let learned = b.appctl("fdb/show br0");
    assert!(learned.lines().any(|l| l.split_whitespace().nth(1) == Some("10")), "{learned}");
    // what was a member is none any more, at once
    a.vsctl("set port br0.10 tag=11");
    assert!(!traffic::try_ping(a, "-c1 -W1 10.10.42.1").success());
    a.vsctl("set port br0.10 tag=10");
    reaches(a, "10.10.42.1");
    a.vsctl("del-br br0.20");
    assert_eq!(a.vsctl("list-br"), "br0\nbr0.10");
}

/// A full packet with a tag passes devices of its MTU, both ways; so does what they cut of superframes.
/// ```text
///   [ hA br0.10 ]──t0, mtu 1500, trunk──t0──[ br0.10 hB ]
/// ```
#[test]
fn a_tag_is_not_part_of_the_mtu() {
    let mut hosts = [Host::new("hA", 11), Host::new("hB", 42)];
    let [a, b] = &mut hosts;
    a.ns.veth("t0", &b.ns, "t0", 1500);
    for host in [a, b] {
        host.ns.nic("t0");
        host.start();
        host.vsctl("add-br br0");
        host.vsctl("add-br br0.10 br0 10");
        host.vsctl("add-port br0 t0 trunks=10");
        host.ns.sh(&format!("ip addr add 10.10.{}.1/16 dev br0.10; ip link set br0.10 up", host.subnet));
    }
    let [a, b] = &hosts;
    reaches(a, "10.10.42.1");
    for (from, to, ip) in [(a, b, "10.10.42.1"), (b, a, "10.10.11.1")] {
        let out = traffic::try_ping(from, &format!("-c1 -W5 -Mdo -s1472 {ip}"));
        assert!(out.success(), "{out:?}");
        traffic::tcp(from, to, ip, 20 << 20);
    }
}

/// Packet sockets send no full packet with a service tag: what is cut or fragmented passes, and who may do neither is told.
/// ```text
///   [ far ]──p0, dot1q-tunnel, [ hA br0 ]──t0, mtu 1500, trunk──t0──[ br0 hB ] p0, dot1q-tunnel──[ far ]
/// ```
#[test]
fn a_service_tag_leaves_less_for_the_packet() {
    let mut hosts = [Host::new("hA", 11), Host::new("hB", 42)];
    let [a, b] = &mut hosts;
    a.ns.veth("t0", &b.ns, "t0", 1500);
    let customers = [a, b].map(|host| {
        let far = Netns::new("far");
        host.ns.veth("p0", &far, "c0", 1500);
        host.ns.nic("t0");
        far.sh(&format!("ip addr add 10.10.{}.1/16 dev c0", host.subnet));
        host.start();
        host.vsctl("add-br br0");
        host.vsctl("add-port br0 t0 trunks=100");
        host.vsctl("add-port br0 p0 vlan_mode=dot1q-tunnel tag=100");
        far
    });
    let [a, b] = &customers;
    reaches(a, "10.10.42.1");
    let out = traffic::try_ping(a, "-c3 -i0.2 -W2 -Mdo -s1472 10.10.42.1");
    assert!(format!("{}{}", out.stdout, out.stderr).contains("1496"), "{out:?}");
    let out = traffic::try_ping(a, "-c1 -W5 -Mdont -s1472 10.10.42.1");
    assert!(out.success(), "{out:?}");
    traffic::tcp(a, b, "10.10.42.1", 20 << 20);
}
