//! Loops of bridges without a spanning tree: found by probes that come back, opened at one port, and joined again when the loop
//! is gone. Nothing else closes a port.

use std::process::Stdio;
use std::time::Duration;

use harness::frames::{Frames, frame};
use harness::ovs::Ovs;
use harness::topology::{Shell, reaches};
use harness::traffic::try_ping;
use harness::{Host, Netns, cli, poll, poll_within};

/// What finding and opening a loop takes on a machine that frames go round on.
const SOON: Duration = Duration::from_secs(30);

fn error(host: &Host, interface: &str) -> String {
    host.get("interface", interface, "error")
}

/// Something that everybody hears: without it nothing goes round.
fn broadcast(from: &Host) {
    let _ = try_ping(from, "-b -c 3 -i 0.2 -W 1 10.0.255.255");
}

/// Frames that came in by a device.
fn came_in(host: &Host, device: &str) -> u64 {
    let seen = host.sh(&format!("sed -n 's/^ *{device}: *[0-9]* *\\([0-9]*\\) .*/\\1/p' /proc/net/dev"));
    seen.trim().parse().expect("a number")
}

/// Waits until frames do not go round any more.
fn calm(host: &Host, device: &str) {
    let mut before = came_in(host, device);
    poll_within(SOON, "the storm to be over", || {
        std::thread::sleep(Duration::from_millis(200));
        let now = came_in(host, device);
        let came = now - std::mem::replace(&mut before, now);
        (came < 20).then_some(())
    });
}

/// ```text
///   [ hA br0 ]══e0, e1══[ br0 hB ]
/// ```
#[test]
fn of_two_links_one_is_closed_until_the_other_fails() {
    let mut hosts = [Host::new("hA", 11), Host::new("hB", 42)];
    for device in ["e0", "e1"] {
        hosts[0].ns.veth(device, &hosts[1].ns, device, 1500);
    }
    for host in &mut hosts {
        host.ns.nic("e0");
        host.ns.nic("e1");
        // br0 alone answers for its address, not the devices beside it
        host.sh("sysctl -qw net.ipv4.conf.all.arp_ignore=1");
        host.start();
        host.overlay();
        host.vsctl("add-port br0 e0");
    }
    let [a, b] = &hosts;
    reaches(a, &b.docker0());
    for host in &hosts {
        host.vsctl("add-port br0 e1");
    }
    broadcast(a);
    // one of the two opens the loop, at the port added last
    let closed =
        |host: &Host| error(host, "e1").starts_with("is closed: what leaves by it comes back by e0;");
    poll_within(SOON, "a closed port", || (closed(a) || closed(b)).then_some(()));
    calm(a, "e0");
    assert!(closed(a) != closed(b), "{}\n{}", error(a, "e1"), error(b, "e1"));
    let (one, other) = if closed(a) { (a, b) } else { (b, a) };
    assert_eq!(
        (error(one, "e0"), error(other, "e0"), error(other, "e1")),
        ("[]".into(), "[]".into(), "[]".into())
    );
    assert!(one.log().contains("WARN|bridge br0: port e1 is closed"), "{}", one.log());
    assert!(one.vsctl("show").contains("is closed: what leaves by it comes back by e0"));
    reaches(a, &b.docker0());
    reaches(b, &a.docker0());
    broadcast(b);
    calm(b, "e0");
    assert!(closed(one) && !closed(other));
    // the link that is left fails, and the closed one takes its place; its bridge has forgotten who was where
    a.ns.sh("ip link set e0 down");
    poll_within(SOON, "the way by e1", || {
        cli::output(one.ns.cmd("ping").args(["-c1", "-W1", &other.docker0()])).success().then_some(())
    });
    one.wait_for("interface", "e1", "error", "[]");
    // where nobody is to look for loops none is found, and a port may be kept out of it
    one.vsctl("set port e1 other_config:loop-detection=false");
    other.vsctl("set bridge br0 other_config:loop-detection=false");
    a.ns.sh("ip link set e0 up");
    broadcast(a);
    poll_within(SOON, "another to be closed", || error(one, "e0").starts_with("is closed").then_some(()));
    assert_eq!((error(other, "e0"), error(other, "e1")), ("[]".into(), "[]".into()));
}

/// The other switch knows nothing of this, and its two links are in one VLAN of ours.
/// ```text
///   [ hA br0 ]══e0, e1 (tag 10)══[ bridge of the kernel ]──[ far ]
/// ```
#[test]
fn a_loop_through_a_switch_that_is_not_ours() {
    let (mut a, far) = (Host::new("hA", 11), Netns::new("far"));
    far.sh("ip link add sw type bridge; ip link set sw up; sysctl -qw net.ipv6.conf.all.disable_ipv6=1");
    for device in ["e0", "e1"] {
        a.ns.veth(device, &far, device, 1500);
        far.sh(&format!("ip link set {device} master sw"));
    }
    far.sh("ip addr add 10.10.0.2/16 dev sw");
    a.sh("sysctl -qw net.ipv4.conf.all.arp_ignore=1");
    a.start();
    a.vsctl("add-br br0 -- add-br br0.10 br0 10 -- add-port br0 e0 tag=10");
    a.sh("ip addr add 10.10.0.1/16 dev br0.10; ip link set br0.10 up");
    reaches(&a, "10.10.0.2");
    a.vsctl("add-port br0 e1 tag=10");
    let _ = try_ping(&a, "-b -c 3 -i 0.2 -W 1 10.10.255.255");
    poll_within(SOON, "a closed port", || {
        error(&a, "e1").starts_with("is closed: what leaves by it in VLAN 10 comes back by e0;").then_some(())
    });
    calm(&a, "e0");
    reaches(&a, "10.10.0.2");
    // the operator wants this one open whatever comes
    a.vsctl("set port e1 other_config:loop-detection=false");
    a.wait_for("interface", "e1", "error", "[]");
    let _ = try_ping(&a, "-b -c 3 -i 0.2 -W 1 10.10.255.255");
    poll_within(SOON, "the other to be closed", || error(&a, "e0").starts_with("is closed").then_some(()));
    // a spanning tree takes it over, and has no use for that
    a.vsctl("set bridge br0 rstp_enable=true");
    a.wait_for("interface", "e0", "error", "[]");
}

/// Open vSwitch lets frames go round, and knows nothing of probes.
/// ```text
///   [ hA br0 ]══e0, e1══[ br0 ovs ]
/// ```
#[test]
fn a_loop_through_open_vswitch() {
    let (mut a, other) = (Host::new("hA", 11), Host::new("ovs", 42));
    for device in ["e0", "e1"] {
        a.ns.veth(device, &other.ns, device, 1500);
    }
    a.sh("sysctl -qw net.ipv4.conf.all.arp_ignore=1");
    let _ovs = Ovs::start(&other);
    other.vsctl("add-br br0 -- set bridge br0 datapath_type=netdev -- add-port br0 e0 -- add-port br0 e1");
    other.sh("ip addr add 10.0.42.1/16 dev br0; ip link set br0 up");
    a.start();
    a.overlay();
    a.vsctl("add-port br0 e0");
    reaches(&a, "10.0.42.1");
    a.vsctl("add-port br0 e1");
    broadcast(&a);
    poll_within(SOON, "a closed port", || {
        error(&a, "e1").starts_with("is closed: what leaves by it comes back by e0;").then_some(())
    });
    calm(&a, "e0");
    assert_eq!(error(&a, "e0"), "[]");
    reaches(&a, "10.0.42.1");
    // there is a loop no more, and the port that is left opens
    other.vsctl("del-port br0 e0");
    a.wait_for("interface", "e1", "error", "[]");
    reaches(&a, "10.0.42.1");
}

/// A station that is heard on two ports in turn, as behind a bond that deals out frames: probes ask, and nothing is closed.
#[test]
fn a_station_in_two_places_closes_nothing() {
    let (mut a, far) = (Host::new("hA", 11), Netns::new("far"));
    far.sh("sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1");
    a.start();
    a.vsctl("add-br br0");
    let devices: Vec<String> = (0..3).map(|i| format!("q{i}")).collect();
    for (i, device) in devices.iter().enumerate() {
        a.ns.veth(&format!("p{i}"), &far, device, 1500);
        a.vsctl(&format!("add-port br0 p{i}"));
    }
    let mut frames = Frames::start(&far, &devices);
    let probes = |device: &str| {
        let mut command = far.bound("tcpdump");
        command.args(["-nn", "-c", "3", "-i", device, "-Q", "in", "ether", "proto", "0x9000"]);
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("tcpdump")
    };
    let mut asked = ["q0", "q1"].map(probes);
    let mut number = 0;
    poll_within(SOON, "probes", || {
        for _ in 0..30 {
            for device in ["q0", "q1"] {
                frames.send(device, &frame(number, [0xff; 6], [2, 0, 0, 0, 0, 9], &[]));
                number += 1;
            }
        }
        asked.iter_mut().all(|dump| cli::wait(dump, Duration::from_millis(50)).is_some()).then_some(())
    });
    for port in ["p0", "p1", "p2"] {
        assert_eq!(error(&a, port), "[]");
    }
    frames.send("q2", &frame(number, [2, 0, 0, 0, 0, 0x77], [2, 0, 0, 0, 0, 8], &[]));
    poll("a frame at both", || (frames.settled().get(&number)?.len() == 2).then_some(()));
    assert_eq!(a.count("drop_stp"), 0);
}
