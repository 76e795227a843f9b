//! A conf.db that Open vSwitch made, in Underpass, and back in Open vSwitch: the same ports, and of the same frames the same come
//! out, bit for bit. The tunnel that IPsec protects is Underpass's alone to carry: there Open vSwitch needs another daemon.
//! ```text
//!   far                 host                                   peer
//!   qt1 ─ t1  trunk of 10, 20 ┐                    ┌ gre0, PSK ════ gre0 [ br0 ] s ── qs
//!   qa1 ─ a1  access, 10      │                    │
//!   qb1 ─ b1  access, 20      ├──── [ br0 ] ───────┤
//!   qe0 ─ e0 ┐ bond0,         │                    │ p0 ─patch─ p1 [ br1 ] x1 ── qx1
//!   qe1 ─ e1 ┘ trunk of 10    │                    └ br0.10, a fake bridge: f1 ── qf1
//!   qw1 ─ w1  a mirror's ─────┘
//! ```

use std::collections::BTreeMap;

use harness::cli::{self, poll};
use harness::frames::{Frames, frame};
use harness::ovs::{Ovs, normalise};
use harness::topology::{UNDERLAY, cable};
use harness::{Capture, Host, Netns};

const BROADCAST: [u8; 6] = [0xff; 6];
/// Devices of the host, each with a far end whose name begins with `q`.
const DEVICES: [&str; 8] = ["t1", "a1", "b1", "e0", "e1", "w1", "x1", "f1"];

/// What an operator types into Open vSwitch, in this order.
const COMMANDS: [&str; 9] = [
    "add-br br0 -- set bridge br0 datapath_type=netdev other_config:hwaddr=02:00:00:00:00:aa",
    "add-port br0 t1 trunks=10,20",
    "add-port br0 a1 tag=10 -- add-port br0 b1 tag=20 -- add-port br0 w1",
    "add-bond br0 bond0 e0 e1 bond_mode=active-backup trunks=10 other_config:bond-primary=e0",
    "add-br br0.10 br0 10 -- add-port br0.10 f1",
    "add-br br1 -- set bridge br1 datapath_type=netdev other_config:hwaddr=02:00:00:00:00:bb -- add-port br1 x1",
    "add-port br0 p0 -- set interface p0 type=patch options:peer=p1 \
     -- add-port br1 p1 -- set interface p1 type=patch options:peer=p0",
    "--id=@a get port a1 -- --id=@w get port w1 -- --id=@bond get port bond0 \
     -- --id=@m create mirror name=m select_src_port=@a,@bond select_dst_port=@a output_port=@w \
     -- set bridge br0 mirrors=@m",
    "add-port br0 gre0 -- set interface gre0 type=gre options:remote_ip=192.0.2.2 options:psk=not_a_good_one \
     options:key=77",
];

/// What was sent, in words, and where it arrived, with which tags.
type Seen = BTreeMap<String, Vec<String>>;

fn ends(devices: &[&str]) -> Vec<String> {
    devices.iter().map(|device| format!("q{device}")).collect()
}

fn station(device: usize) -> [u8; 6] {
    [2, 0, 0, 0, 2, device as u8]
}

struct Scene {
    host: Host,
    far: Netns,
    frames: Frames,
    /// Numbers of frames begin anew at a higher one for each switch.
    first: u32,
}

impl Scene {
    fn new(host: Host) -> Scene {
        let far = Netns::new("far");
        [&host.ns, &far].into_iter().for_each(Netns::quiet);
        for (near, end) in DEVICES.iter().zip(ends(&DEVICES)) {
            host.ns.veth(near, &far, &end, 1500);
        }
        let frames = Frames::start(&far, &ends(&DEVICES));
        Scene { host, far, frames, first: 0 }
    }

    /// Broadcasts and words to known stations from every port but the watcher's, with and without tags, by the active member of
    /// the bond and by the other; then the same with the bond's first wire cut.
    fn talk(&mut self) -> Seen {
        self.first += 1000;
        let mut sent = Vec::new();
        for cut in [false, true] {
            self.far.sh(&format!("ip link set qe0 {}", if cut { "down" } else { "up" }));
            let mac = self.host.get("interface", if cut { "e1" } else { "e0" }, "mac_in_use");
            self.host.wait_for("port", "bond0", "bond_active_slave", &mac);
            for dst in [None, Some("t1"), Some("a1"), Some("e0"), Some("x1"), Some("f1")] {
                let to = dst.and_then(|dst| DEVICES.iter().position(|device| *device == dst));
                for (at, device) in DEVICES.iter().enumerate() {
                    if *device == "w1" || (cut && *device == "e0") {
                        continue;
                    }
                    for tags in [&[][..], &[[0x81, 0, 0, 10]], &[[0x81, 0, 0x60, 20]], &[[0x81, 0, 0, 30]]] {
                        let dst = to.map_or(BROADCAST, station);
                        // whichever member is active, the station behind the bond is one
                        let src = station(if *device == "e1" { 3 } else { at });
                        let number = self.first + sent.len() as u32;
                        self.frames.send(&format!("q{device}"), &frame(number, dst, src, tags));
                        let to = to.map_or("all", |to| DEVICES[to]);
                        let cut = if cut { "e1" } else { "e0" };
                        sent.push(format!("{device} to {to} with tags {tags:02x?}, {cut} active"));
                    }
                }
                // who is where is known before the next are sent
                self.frames.settled();
            }
        }
        self.far.sh("ip link set qe0 up");
        let seen = self.frames.settled();
        let arrived = |(n, what): (usize, String)| {
            let copies = seen.get(&(self.first + n as u32)).into_iter().flatten();
            // from behind the addresses to the type that marks a test's frame, 88b5
            let tags = |bytes: &[u8]| {
                let tags = bytes[12..].chunks(4).take_while(|tag| tag[..2] != [0x88, 0xb5]);
                tags.map(|tag| format!(" {tag:02x?}")).collect::<String>()
            };
            (what, copies.map(|(device, bytes)| format!("{device}{}", tags(bytes))).collect())
        };
        sent.into_iter().enumerate().map(arrived).collect()
    }

    /// What there is, in the words of the tools.
    fn shown(&self) -> String {
        let shown = self.host.vsctl("show");
        let shown: Vec<&str> = shown.lines().filter(|line| !line.contains("ovs_version")).collect();
        let bonds = self.host.appctl("bond/list").replace("e1, e0", "e0, e1");
        let parent = self.host.vsctl("br-to-parent br0.10") + &self.host.vsctl("br-to-vlan br0.10");
        let columns = "name,tag,trunks,vlan_mode,bond_mode,other_config,fake_bridge";
        let ports = self.host.vsctl(&format!("--columns={columns} list port"));
        let mirror = self.host.vsctl("--columns=name,select_all,snaplen,output_vlan list mirror");
        normalise(
            &[&shown.join("\n"), &bonds, &parent, &ports, &mirror].map(|s| s.as_str()).join("\n"),
            &self.host,
        )
    }

    /// Every interface is a port, and nothing is wrong with any.
    #[track_caller]
    fn has_all(&self) {
        for name in DEVICES.iter().chain(&["br0", "br1", "br0.10", "p0", "p1", "gre0"]) {
            assert_eq!(self.host.get("interface", name, "error"), "[]", "{name}");
            let number: i64 = self.host.get("interface", name, "ofport").parse().expect("a number");
            assert!(number > 0, "{name}: {number}");
        }
    }
}

/// The far end of the tunnel, Underpass with a station in VLAN 10 and one in none.
struct Peer {
    host: Host,
    frames: Frames,
    _far: Netns,
}

impl Peer {
    fn new(mut host: Host) -> Peer {
        let far = Netns::new("peer-far");
        [&host.ns, &far].into_iter().for_each(Netns::quiet);
        host.ns.veth("s", &far, "qs", 1500);
        host.start();
        host.vsctl("add-br br0");
        host.vsctl("add-port br0 s tag=10");
        host.gre("gre0", UNDERLAY[0], "options:psk=not_a_good_one options:key=77");
        let frames = Frames::start(&far, &ends(&["s"]));
        Peer { host, frames, _far: far }
    }
}

#[test]
fn what_open_vswitch_wrote_works_and_what_we_wrote_works_there() {
    let hosts = [Host::new("host", 11), Host::new("peer", 42)];
    cable(&hosts, 1500);
    let [host, peer] = hosts;
    let mut scene = Scene::new(host);

    let ovs = Ovs::start(&scene.host);
    COMMANDS.iter().for_each(|line| _ = scene.host.vsctl(line));
    scene.has_all();
    let (typed, want) = (scene.shown(), scene.talk());
    drop(ovs);
    let somewhere = want.values().filter(|copies| !copies.is_empty()).count();
    assert!(somewhere > 60, "a good part went somewhere: {somewhere}");

    let mut peer = Peer::new(peer);
    let wire = Capture::wire([&scene.host, &peer.host], "u0", "");
    scene.host.start();
    scene.has_all();
    assert_eq!(scene.shown(), typed);
    same(&scene.talk(), &want);
    through_the_tunnel(&mut scene, &mut peer);
    let wire = wire.stop();
    assert_eq!((wire.count("gre"), wire.count("esp") > 0), (0, true), "in the clear, in ESP");

    // and something of our own goes back with it
    scene.host.vsctl(
        "set port a1 external_ids:seen-by=underpass -- remove port t1 trunks 20 -- add port t1 trunks 20",
    );
    scene.host.stop();
    let ovs = Ovs::resume(&scene.host);
    scene.has_all();
    assert_eq!(scene.host.get("port", "a1", "external_ids:seen-by"), "underpass");
    assert_eq!(scene.shown(), typed);
    same(&scene.talk(), &want);
    drop(ovs);
    let log = cli::run(
        std::process::Command::new("ovsdb-tool").args(["-mm", "show-log"]).arg(scene.host.conf_db()),
    );
    assert!(log.contains("seen-by"), "{log}");
}

/// Every frame has arrived where it shall, as it shall.
#[track_caller]
fn same(got: &Seen, want: &Seen) {
    let differ = want.iter().filter(|(what, copies)| got.get(*what) != Some(copies));
    let report: Vec<String> =
        differ.map(|(what, copies)| format!("{what}: {:?} and not {copies:?}", got.get(what))).collect();
    assert!(report.is_empty(), "{report:#?}");
}

/// What is in VLAN 10 passes the tunnel both ways, once.
#[track_caller]
fn through_the_tunnel(scene: &mut Scene, peer: &mut Peer) {
    const THERE: [u8; 6] = [2, 0, 0, 0, 3, 1];
    peer.host.wait_for("interface", "gre0", "status:ipsec", "up");
    scene.host.wait_for("interface", "gre0", "status:ipsec", "up");
    let mut number = 900_000;
    poll("a broadcast through the tunnel", || {
        number += 1;
        peer.frames.send("qs", &frame(number, BROADCAST, THERE, &[]));
        scene.frames.settled().contains_key(&number).then_some(())
    });
    // trunk, access, the bond's active member, the fake bridge, br1, and of what leaves by `a1` the watcher
    let seen = scene.frames.settled();
    let at: Vec<&str> = seen.get(&number).into_iter().flatten().map(|(device, _)| device.as_str()).collect();
    assert_eq!(at, ["qa1", "qe0", "qf1", "qt1", "qw1", "qx1"], "the broadcast");
    let replies: Vec<(u32, &str, &[[u8; 4]])> = vec![
        (1, "qa1", &[]),
        (2, "qt1", &[[0x81, 0, 0, 10]]),
        (3, "qe0", &[[0x81, 0, 0, 10]]),
        (4, "qf1", &[]),
    ];
    for (n, device, tags) in &replies {
        let at = DEVICES.iter().position(|d| device.strip_prefix('q') == Some(d)).expect("one of them");
        scene.frames.send(device, &frame(950_000 + n, THERE, station(at), tags));
    }
    // not of this VLAN
    scene.frames.send("qb1", &frame(950_009, THERE, station(2), &[]));
    poll("the answers", || {
        let seen = peer.frames.settled();
        replies.iter().all(|(n, ..)| seen.get(&(950_000 + n)).is_some_and(|at| at.len() == 1)).then_some(())
    });
    assert!(!peer.frames.settled().contains_key(&950_009));
}
