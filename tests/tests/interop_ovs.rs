//! GRE with the real Open vSwitch, its userspace datapath as the peer.

use harness::ovs::Ovs;
use harness::topology::{UNDERLAY, cable, reaches};
use harness::{Capture, Container, Host, traffic};

/// ```text
///   [ container ─ docker0 ═ br0 ─ gre0  hA ]── 192.0.2.1  192.0.2.2 ──[ br-phy, gre0 ─ br0 10.0.42.1/16  hB ]
///              Underpass                                                      Open vSwitch
/// ```
struct Lab {
    _ovs: Ovs,
    hosts: [Host; 2],
    container: Container,
}

/// The address of the far bridge's internal port.
const FAR: &str = "10.0.42.1";

fn lab() -> Lab {
    let mut hosts = [Host::with_engine("hA", 11), Host::new("ovs", 42)];
    cable(&hosts, 1500);
    let ovs = Ovs::start(&hosts[1]);
    ovs.underlay(&hosts[1], UNDERLAY[1], "10.0.42.1/16");
    hosts[1].gre("gre0", UNDERLAY[0], "");
    hosts[0].start();
    hosts[0].join(&[UNDERLAY[1]]);
    let container = hosts[0].container();
    let lab = Lab { _ovs: ovs, hosts, container };
    reaches(&lab.container, FAR);
    lab
}

impl Lab {
    /// Gives both ends the same options: ours in place, Open vSwitch's in a new port (it keeps half of the old ones).
    fn options(&self, line: &str) {
        let [a, b] = &self.hosts;
        a.vsctl("clear interface gre0 options");
        a.vsctl(&format!("set interface gre0 options:remote_ip={} {line}", UNDERLAY[1]));
        b.vsctl("del-port br0 gre0");
        b.gre("gre0", UNDERLAY[0], line);
    }

    /// Traffic of every kind that this peer can carry, both ways; gives what the wire showed.
    #[track_caller]
    fn passes(&self) -> harness::capture::Packets {
        let [a, b] = &self.hosts;
        reaches(&self.container, FAR);
        let capture = Capture::start(a, "u0", "ip proto 47");
        traffic::ping(&self.container, FAR, 5);
        traffic::ping(b, &self.container.ip, 5);
        // its own end segments nothing, so its port's MTU is 1400; ours fits what it sends to the path
        traffic::tcp(&self.container, b, FAR, 2_000_000);
        traffic::tcp(b, &self.container, &self.container.ip, 2_000_000);
        let s = traffic::udp(&self.container, b, FAR, 200, 1000, 400);
        assert_eq!((s.received, s.corrupt), (200, 0), "{s:?}");
        let seen = capture.stop();
        seen.assert_clean(1500);
        seen
    }
}

/// Outer headers of the pings' packets from one address: TTL, DF, TOS, GRE flags, protocol.
fn headers(seen: &harness::capture::Packets, from: &str) -> Vec<String> {
    let fields = ["ip.ttl", "ip.flags.df", "ip.dsfield", "gre.flags_and_version", "gre.proto", "gre.key"];
    let mut args = vec!["-T", "fields", "-E", "occurrence=f"];
    for f in fields {
        args.extend(["-e", f]);
    }
    let mut lines = seen.tshark(&format!("icmp and ip.src == {from}"), &args);
    lines.sort();
    lines.dedup();
    lines
}

#[test]
fn plain_key_checksum_sequence() {
    let lab = lab();
    for options in [
        "",
        "options:key=5",
        "options:key=0",
        "options:in_key=0xdeadbeef options:out_key=0xdeadbeef",
        "options:csum=true",
        "options:seq=true",
        // not csum with seq: Open vSwitch fills in the number after it has summed
        "options:key=4294967295 options:csum=true",
        "options:key=1 options:seq=true",
    ] {
        println!("{options:?}");
        lab.options(options);
        let seen = lab.passes();
        let [ours, theirs] = UNDERLAY.map(|ip| headers(&seen, ip));
        assert_eq!(ours, theirs, "our packets look as theirs do, with {options:?}");
        assert!(!ours.is_empty());
    }
}

#[test]
fn keys_that_differ() {
    let lab = lab();
    let [a, b] = &lab.hosts;
    lab.options("options:key=5");
    reaches(&lab.container, FAR);
    b.vsctl("set interface gre0 options:key=6");
    assert!(!traffic::try_ping(&lab.container, &format!("-c2 -i0.2 -W1 {FAR}")).success());
    assert!(!traffic::try_ping(b, &format!("-c2 -i0.2 -W1 {}", lab.container.ip)).success());
    // one key each way
    a.vsctl("remove interface gre0 options key -- set interface gre0 options:in_key=1 options:out_key=2");
    b.vsctl("remove interface gre0 options key -- set interface gre0 options:in_key=2 options:out_key=1");
    lab.passes();
    let drops = a.appctl("coverage/show");
    assert!(drops.contains("gre_no_tunnel"), "the refused packets are counted: {drops}");
}

#[test]
fn ttl_tos_and_ecn() {
    let lab = lab();
    let [a, _] = &lab.hosts;
    let outer = |ping: &str, field: &str| -> Vec<String> {
        reaches(&lab.container, FAR);
        let capture = Capture::start(a, "u0", "ip proto 47");
        let out = traffic::try_ping(&lab.container, &format!("-c2 -i0.1 -W5 {ping} {FAR}"));
        assert!(out.success(), "{out:?}");
        let seen = capture.stop();
        let filter = format!("icmp.type == 8 and ip.src == {}", UNDERLAY[0]);
        let mut v = seen.tshark(&filter, &["-T", "fields", "-E", "occurrence=f", "-e", field]);
        v.dedup();
        v
    };
    lab.options("options:ttl=9 options:tos=0x20");
    assert_eq!(outer("", "ip.ttl"), ["9"]);
    assert_eq!(outer("", "ip.dsfield"), ["0x20"]);
    lab.options("options:ttl=inherit options:tos=inherit");
    assert_eq!(outer("-t 33", "ip.ttl"), ["33"]);
    assert_eq!(outer("-Q 0x48", "ip.dsfield"), ["0x48"]);
    lab.options("options:tos=0x20");
    // RFC 6040: the ECN field is the inner packet's
    assert_eq!(outer("-Q 0x2", "ip.dsfield"), ["0x22"]);
    lab.options("options:df_default=false");
    assert_eq!(outer("", "ip.flags.df"), ["0"]);
    lab.passes();
}

/// What neither side may do with the other's packets: an unknown option is named, and nothing else changes.
#[test]
fn unknown_options_are_named() {
    let lab = lab();
    let [a, _] = &lab.hosts;
    a.vsctl("set interface gre0 options:colour=blue");
    harness::poll("a warning", || a.log().contains("colour").then_some(()));
    traffic::ping(&lab.container, FAR, 3);
    assert_eq!(a.get("interface", "gre0", "error"), "[]");
}
