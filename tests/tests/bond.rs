//! Active-backup bonds: the same commands and frames into Underpass and into Open vSwitch; each of them bonded to the other; and
//! a bond of two tunnels.

use std::collections::BTreeMap;

use harness::cli::poll;
use harness::frames::{Frames, frame};
use harness::ovs::{Ovs, normalise};
use harness::topology::{UNDERLAY, reaches, two_switches};
use harness::traffic::{Flow, Sequence};
use harness::{Capture, Host, Netns, traffic};

const BROADCAST: [u8; 6] = [0xff; 6];
const INSIDE: [u8; 6] = [2, 0, 0, 0, 1, 1];
const OUTSIDE: [u8; 6] = [2, 0, 0, 0, 1, 2];

/// A switch with a port `p` and a bond of `e0` and `e1`; a test holds the far ends of their wires.
/// ```text
///   [ p ]─── q
///   [ e0 ]── f0
///   [ e1 ]── f1
/// ```
struct Bench {
    host: Host,
    far: Netns,
    frames: Frames,
    sent: u32,
}

type Seen = BTreeMap<u32, Vec<(String, Vec<u8>)>>;

impl Bench {
    fn hosts(tag: &str) -> (Host, Netns) {
        let (host, far) = (Host::new(tag, 11), Netns::new("far"));
        [&host.ns, &far].into_iter().for_each(Netns::quiet);
        for (i, (near, end)) in [("p", "q"), ("e0", "f0"), ("e1", "f1")].into_iter().enumerate() {
            host.ns.veth(near, &far, end, 1500);
            host.ns.sh(&format!("ip link set {near} address 02:00:00:00:00:0{i}"));
        }
        (host, far)
    }

    fn new((host, far): (Host, Netns)) -> Bench {
        host.vsctl("add-br br0 -- set bridge br0 datapath_type=netdev other_config:hwaddr=02:00:00:00:00:aa");
        host.vsctl("add-port br0 p");
        host.vsctl(
            "add-bond br0 bond0 e0 e1 bond_mode=active-backup other_config:bond-primary=e0 trunks=0,10",
        );
        let frames = Frames::start(&far, &["q", "f0", "f1"].map(str::to_owned));
        Bench { host, far, frames, sent: 0 }
    }

    fn send(&mut self, device: &str, dst: [u8; 6], src: [u8; 6], tags: &[[u8; 4]]) {
        self.sent += 1;
        self.frames.send(device, &frame(self.sent, dst, src, tags));
    }

    /// Frames of a station inside, of one behind the bond, and of those that the bond is not to let in.
    fn talk(&mut self, active: &str, backup: Option<&str>) {
        const TEN: &[[u8; 4]] = &[[0x81, 0, 0, 10]];
        const ELEVEN: &[[u8; 4]] = &[[0x81, 0, 0, 11]];
        for tags in [&[], TEN, ELEVEN] {
            self.send("q", BROADCAST, INSIDE, tags);
            self.send(active, BROADCAST, OUTSIDE, tags);
            self.send("q", OUTSIDE, INSIDE, tags);
            self.send(active, INSIDE, OUTSIDE, tags);
            if let Some(backup) = backup {
                self.send(backup, BROADCAST, OUTSIDE, tags);
                self.send(backup, INSIDE, OUTSIDE, tags);
            }
            self.frames.settled();
        }
    }

    /// Waits until that member is the active one.
    #[track_caller]
    fn active(&self, mac: &str) {
        self.host.wait_for("port", "bond0", "bond_active_slave", mac);
    }

    fn shown(&self) -> String {
        let shown = ["bond/list", "bond/show", "bond/show bond0"].map(|command| self.host.appctl(command));
        // Open vSwitch lists members in the order of a hash table
        shown.concat().replace("e1, e0", "e0, e1")
    }
}

/// What arrived of each frame; and each at most once at each device.
#[track_caller]
fn same([ours, real]: &[Bench; 2]) -> Seen {
    let mut seen = [Seen::new(), Seen::new()];
    // until both are quiet, and for as long as they differ but may yet agree
    for _ in 0..10 {
        seen = [ours.frames.settled(), real.frames.settled()];
        if seen[0] == seen[1] {
            break;
        }
    }
    let [got, want] = seen;
    for number in 1..=ours.sent {
        assert_eq!(got.get(&number), want.get(&number), "frame {number}: Underpass, Open vSwitch");
    }
    for (number, copies) in &got {
        let mut devices: Vec<&String> = copies.iter().map(|(device, _)| device).collect();
        devices.dedup();
        assert_eq!(devices.len(), copies.len(), "frame {number} is doubled: {copies:?}");
    }
    got
}

#[test]
fn a_bond_does_what_open_vswitchs_does() {
    let (mut ours, real) = (Bench::hosts("ours"), Bench::hosts("real"));
    let _ovs = Ovs::start(&real.0);
    ours.0.start();
    let mut benches = [ours, real].map(Bench::new);
    let [e0, e1] = ["02:00:00:00:00:01", "02:00:00:00:00:02"];
    for b in &mut benches {
        b.active(e0);
        b.talk("f0", Some("f1"));
    }
    // the link goes: the switch behind the other is told where the station inside is, and nobody else
    for b in &mut benches {
        let told = Capture::start(&b.far, "f1", "ether proto 0x8035");
        b.far.sh("ip link set f0 down");
        b.active(e1);
        // what is sent after it has come by the same wire
        b.send("q", BROADCAST, INSIDE, &[]);
        b.frames.settled();
        let told = told.stop();
        assert_eq!(told.count("eth.src == 02:00:00:00:01:01 && !vlan"), 1, "untagged");
        assert_eq!(told.count("eth.src == 02:00:00:00:01:01 && vlan.id == 10"), 1, "in VLAN 10");
        assert_eq!(told.count("eth.src == 02:00:00:00:01:02"), 0, "it is behind the bond itself");
        b.talk("f1", None);
    }
    // fails back
    for b in &mut benches {
        b.far.sh("ip link set f0 up");
        b.active(e0);
        b.talk("f0", Some("f1"));
    }
    // without a primary the operator's word lasts
    for b in &mut benches {
        b.host.vsctl("remove port bond0 other_config bond-primary");
        assert_eq!(b.host.appctl("bond/set-active-member bond0 e1").trim(), "done");
        assert_eq!(b.host.appctl("bond/set-active-slave bond0 e1").trim(), "no change");
        b.active(e1);
        b.talk("f1", Some("f0"));
    }
    // no way at all, and the first that there is is taken, whatever the delay
    for b in &mut benches {
        b.host.vsctl("set port bond0 bond_updelay=60000 bond_downdelay=10");
        b.far.sh("ip link set f0 down; ip link set f1 down");
        b.active("00:00:00:00:00:00");
        b.send("q", BROADCAST, INSIDE, &[]);
        b.far.sh("ip link set f0 up");
        b.active(e0);
        b.talk("f0", None);
    }
    let shown = benches.each_ref().map(|b| normalise(&b.shown(), &b.host));
    assert_eq!(shown[0], shown[1]);
    for wrong in [
        "bond/set-active-member bond0 e1",
        "bond/set-active-member bond0 nix",
        "bond/disable-slave bond0 nix",
        "bond/migrate bond0 1 e0",
        "bond/show nix",
    ] {
        let said = benches.each_ref().map(|b| {
            let out = harness::cli::output(b.host.tool("ovs-appctl").args(wrong.split_whitespace()));
            (out.code, out.stderr)
        });
        assert_eq!(said[0], said[1], "{wrong}");
    }
    // a member leaves, and then there is no bond
    for b in &mut benches {
        b.host.vsctl("del-bond-iface bond0 e0");
        assert_eq!(b.host.appctl("bond/show"), "");
        b.far.sh("ip link set f1 up");
        b.frames.settled();
    }
    let seen = same(&benches);
    assert!(seen.len() > 30, "most frames went somewhere: {}", seen.len());
    assert!(benches[0].host.count("drop_bond_backup") > 0);
}

/// A switch with a station behind its port `p`.
struct Site {
    host: Host,
    frames: Frames,
    station: [u8; 6],
    _far: Netns,
}

impl Site {
    fn new(host: Host, station: [u8; 6]) -> Site {
        let far = Netns::new("far");
        [&host.ns, &far].into_iter().for_each(Netns::quiet);
        host.ns.veth("p", &far, "q", 1500);
        host.vsctl("add-br br0 -- set bridge br0 datapath_type=netdev -- add-port br0 p");
        let frames = Frames::start(&far, &["q".to_owned()]);
        Site { host, frames, station, _far: far }
    }

    /// Waits until the switch knows that a station is behind a port.
    #[track_caller]
    fn knows(&self, station: [u8; 6], port: &str) {
        let station = station.map(|byte| format!("{byte:02x}")).join(":");
        let number = self.host.get("interface", port, "ofport");
        poll(&format!("{station} behind {port}"), || {
            let shown = self.host.appctl("fdb/show br0");
            let entry = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
            let entry = shown.lines().map(entry).find(|words| words.get(2) == Some(&station))?;
            (entry.first() == Some(&number)).then_some(())
        });
    }
}

/// A broadcast and some more from each station: each arrives at the other one, once, and nowhere else.
#[track_caller]
fn each_hears_the_other(sites: &mut [Site; 2], first: u32) {
    let stations = sites.each_ref().map(|site| site.station);
    let mut number = first;
    for (from, to) in [(0, 1), (1, 0)] {
        for dst in [BROADCAST, stations[to], stations[to], stations[to], BROADCAST] {
            sites[from].frames.send("q", &frame(number, dst, stations[from], &[]));
            number += 1;
        }
        poll(&format!("frames of station {from} at the other"), || {
            let seen = sites[to].frames.settled();
            (number - 5..number).all(|sent| seen.contains_key(&sent)).then_some(())
        });
        let seen = sites.each_ref().map(|site| site.frames.settled());
        for sent in number - 5..number {
            assert_eq!(seen[to].get(&sent).map(Vec::len), Some(1), "frame {sent} at the other station");
            assert_eq!(seen[from].get(&sent), None, "frame {sent} where it came from");
        }
    }
}

/// ```text
///   q ──[ p  bonded  e0 ]────[ e0  upstream  p ]── q
///       [            e1 ]────[ e1              ]
/// ```
fn heals(bonded: Host, upstream: Host) {
    for wire in ["e0", "e1"] {
        bonded.ns.veth(wire, &upstream.ns, wire, 1500);
    }
    let mut sites = [Site::new(bonded, INSIDE), Site::new(upstream, OUTSIDE)];
    let [bonded, upstream] = &sites;
    // the bond first: two ports beside two ports would be a loop
    bonded.host.vsctl("add-bond br0 bond0 e0 e1 bond_mode=active-backup other_config:bond-primary=e0");
    upstream.host.vsctl("add-port br0 e0 -- add-port br0 e1");
    let mac = |wire| bonded.host.get("interface", wire, "mac_in_use");
    let macs = ["e0", "e1"].map(mac);
    bonded.host.wait_for("port", "bond0", "bond_active_slave", &macs[0]);
    each_hears_the_other(&mut sites, 100);
    for (first, at, wire, change) in [(200, 1, "e1", "down"), (300, 0, "e0", "up"), (400, 1, "e1", "down")] {
        let [bonded, upstream] = &sites;
        upstream.host.ns.sh(&format!("ip link set e0 {change}"));
        bonded.host.wait_for("port", "bond0", "bond_active_slave", &macs[at]);
        // without a word from the station itself
        upstream.knows(INSIDE, wire);
        each_hears_the_other(&mut sites, first);
    }
}

#[test]
fn a_bond_toward_open_vswitch_heals() {
    let (mut ours, real) = (Host::new("ours", 11), Host::new("real", 42));
    let _ovs = Ovs::start(&real);
    ours.start();
    heals(ours, real);
}

#[test]
fn open_vswitchs_bond_toward_us_heals() {
    let (mut ours, real) = (Host::new("ours", 11), Host::new("real", 42));
    let _ovs = Ovs::start(&real);
    ours.start();
    heals(real, ours);
}

/// Tunnels have no carrier; BFD says which of them leads somewhere.
#[test]
fn of_two_tunnels_the_one_that_works_is_active() {
    let hosts = two_switches(1500);
    for (host, remote) in hosts.iter().zip([UNDERLAY[1], UNDERLAY[0]]) {
        let tunnel = |name: &str, key: u8| {
            format!(
                "-- set interface {name} type=gre options:remote_ip={remote} options:key={key} \
                 bfd:enable=true bfd:min_rx=200 bfd:min_tx=200 "
            )
        };
        host.vsctl(&format!(
            "add-bond br0 bond0 t0 t1 other_config:bond-primary=t0 {}{}",
            tunnel("t0", 1),
            tunnel("t1", 2)
        ));
    }
    let active = |name: &str| {
        for host in &hosts {
            poll(&format!("{name} active"), || {
                let shown = host.appctl("bond/show bond0");
                shown.contains(&format!("member {name}: enabled\n  active member\n")).then_some(())
            });
        }
    };
    let [a, b] = &hosts;
    active("t0");
    reaches(a, &b.docker0());
    traffic::ping(a, &b.docker0(), 5);
    b.vsctl("set interface t0 options:key=9");
    active("t1");
    reaches(a, &b.docker0());
    traffic::ping(b, &a.docker0(), 5);
    b.vsctl("set interface t0 options:key=1");
    active("t0");
    reaches(a, &b.docker0());
    traffic::ping(a, &b.docker0(), 5);
}

/// Numbered datagrams both ways, while the operator and a cut wire change what is active.
#[test]
fn nothing_is_doubled_while_it_fails_over() {
    let mut hosts = [Host::new("hA", 11), Host::new("hB", 42)];
    for wire in ["e0", "e1"] {
        hosts[0].ns.veth(wire, &hosts[1].ns, wire, 1500);
    }
    for host in &mut hosts {
        host.start();
        host.overlay();
    }
    let [a, b] = &hosts;
    // else the kernel waits for up to a second before it tells of a wire that is cut after another
    a.vsctl(
        "add-bond br0 bond0 e0 e1 bond_mode=active-backup other_config:bond-detect-mode=miimon \
         other_config:bond-miimon-interval=20",
    );
    b.vsctl("add-port br0 e0 -- add-port br0 e1");
    let macs = ["e0", "e1"].map(|wire| a.get("interface", wire, "mac_in_use"));
    let active = |at: usize| a.wait_for("port", "bond0", "bond_active_slave", &macs[at]);
    active(0);
    reaches(a, &b.docker0());
    let flow = |from, to: &Host, port| {
        let flow = Flow { port, count: 3000, sizes: (64, 1200), rate: 1000 };
        Sequence::flow(from, to, &to.docker0(), flow)
    };
    let streams = [flow(a, b, 17001), flow(b, a, 17002)];
    for at in [1, 0] {
        a.appctl(&format!("bond/set-active-member bond0 e{at}"));
        active(at);
    }
    b.ns.sh("ip link set e0 down");
    active(1);
    b.ns.sh("ip link set e0 up");
    poll("e0 enabled", || a.appctl("bond/show").contains("member e0: enabled").then_some(()));
    b.ns.sh("ip link set e1 down");
    active(0);
    for stream in streams {
        let stream = stream.finish();
        println!("{stream:?}");
        assert_eq!((stream.duplicates, stream.corrupt), (0, 0), "{stream:?}");
        assert!(stream.received > 1500, "{stream:?}");
    }
}
