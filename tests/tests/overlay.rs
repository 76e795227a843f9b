//! VXLAN and Geneve: between two Underpass, with the real Open vSwitch, and with the kernel's own VXLAN device.

use std::time::Duration;

use harness::cli::poll_within;
use harness::ovs::Ovs;
use harness::topology::{Shell, UNDERLAY, UNDERLAY6, cable, reaches, two_switches};
use harness::{Capture, Host, traffic};

/// The overlay's address on the far host.
const FAR: &str = "10.0.42.1";

/// What carries them.
const FILTER: &str = "udp dst port 4789 or udp dst port 6081";

/// Payloads of ICMP echoes, up to what must be fragmented before it enters the tunnel.
const SIZES: [u32; 5] = [0, 1000, 1422, 1472, 3000];

#[track_caller]
fn tunnel(host: &Host, kind: &str, remote: &str, options: &str) {
    host.vsctl("--if-exists del-port t0");
    host.vsctl(&format!(
        "add-port br0 t0 -- set interface t0 type={kind} options:remote_ip={remote} {options}"
    ));
}

/// Frames of all sizes and TCP, both ways.
#[track_caller]
fn passes([a, b]: &[Host; 2], sizes: &[u32]) {
    reaches(a, FAR);
    for size in sizes {
        for (from, to) in [(a, FAR), (b, "10.0.11.1")] {
            traffic::answered(from, 2, &format!("-M dont -i0.1 -s {size} {to}"));
        }
    }
    traffic::tcp(a, b, FAR, 2_000_000);
    traffic::tcp(b, a, "10.0.11.1", 2_000_000);
}

#[test]
fn between_two() {
    let hosts = two_switches(1500);
    for (kind, remotes, options, checksums) in [
        ("vxlan", UNDERLAY, "", false),
        ("geneve", UNDERLAY, "options:key=0xffffff options:csum=true", true),
        ("vxlan", UNDERLAY6, "options:key=7", true),
        ("geneve", UNDERLAY, "options:key=9 options:df_default=false", false),
    ] {
        println!("{kind} {remotes:?} {options}");
        let [ours, theirs] = remotes;
        tunnel(&hosts[0], kind, theirs, options);
        tunnel(&hosts[1], kind, ours, options);
        let capture = Capture::wire([&hosts[0], &hosts[1]], "u0", FILTER);
        passes(&hosts, &SIZES);
        capture.stop().assert_clean_overlay(1500, checksums);
    }
    let [a, b] = &hosts;
    // another VNI is another network, and so is another port
    a.vsctl("set interface t0 options:key=8");
    assert!(!traffic::try_ping(a, &format!("-c2 -i0.2 -W1 {FAR}")).success());
    assert!(b.count("vni_no_tunnel") > 0);
    a.vsctl("set interface t0 options:key=9 options:dst_port=7000");
    b.vsctl("set interface t0 options:dst_port=7000");
    reaches(a, FAR);
    assert!(a.appctl("tnl/ports/show").contains("genev_sys_7000"));
}

/// The same options at both ends give the same headers.
#[test]
fn open_vswitch() {
    let mut hosts = [Host::new("hA", 11), Host::new("ovs", 42)];
    cable(&hosts, 1500);
    let _ovs = Ovs::start(&hosts[1]);
    _ovs.underlay(&hosts[1], UNDERLAY[1], "10.0.42.1/16");
    hosts[0].start();
    hosts[0].overlay();
    let [a, b] = &hosts;
    // the host's own end of the wire finishes what it sends, as a network card does: the other looks at UDP checksums
    a.sh("ethtool -K u0 tx off >/dev/null");
    for (kind, options) in [
        ("vxlan", ""),
        ("vxlan", "options:key=0x123456 options:csum=true"),
        ("geneve", ""),
        ("geneve", "options:in_key=5 options:out_key=5 options:ttl=9 options:tos=0x20 options:csum=true"),
    ] {
        println!("{kind} {options}");
        tunnel(a, kind, UNDERLAY[1], options);
        tunnel(b, kind, UNDERLAY[0], options);
        reaches(a, FAR);
        let capture = Capture::start(a, "u0", FILTER);
        traffic::ping(a, FAR, 5);
        traffic::ping(b, "10.0.11.1", 5);
        // its own end segments nothing, so its port's MTU is 1400; ours fits what it sends to the path
        traffic::tcp(a, b, FAR, 2_000_000);
        traffic::tcp(b, a, "10.0.11.1", 2_000_000);
        let seen = capture.stop();
        seen.assert_clean_overlay(1500, options.contains("csum"));
        let headers = |from: &str| {
            let fields = [
                "ip.ttl",
                "ip.flags.df",
                "ip.dsfield",
                "udp.dstport",
                "vxlan.flags",
                "vxlan.vni",
                "geneve.version",
                "geneve.flags",
                "geneve.proto_type",
                "geneve.vni",
            ];
            let mut args = vec!["-T", "fields", "-E", "occurrence=f"];
            args.extend(fields.iter().flat_map(|f| ["-e", *f]));
            let mut lines = seen.tshark(&format!("(icmp or tcp) and ip.src == {from}"), &args);
            lines.sort();
            lines.dedup();
            lines
        };
        let [ours, theirs] = UNDERLAY.map(headers);
        assert!(!ours.is_empty());
        // tshark looks into those alone whose source port is not data to it (harness::capture)
        if !theirs.is_empty() {
            assert_eq!(ours, theirs, "our packets look as theirs do");
        }
    }
}

#[test]
fn kernel_vxlan() {
    let mut hosts = [Host::new("hA", 11), Host::new("kernel", 42)];
    cable(&hosts, 1500);
    hosts[0].start();
    hosts[0].overlay();
    let [a, b] = &hosts;
    for (kernel, [ours, theirs], options) in [
        ("id 0", UNDERLAY, ""),
        ("id 77 udpcsum", UNDERLAY, "options:key=77 options:csum=true"),
        ("id 77 noudpcsum", UNDERLAY, "options:key=77 options:csum=true"),
        ("id 5 udp6zerocsumtx udp6zerocsumrx", UNDERLAY6, "options:key=5"),
    ] {
        println!("{kernel:?}, {options:?}");
        b.sh(&format!(
            "ip link del v 2>/dev/null || true
             ip link add v type vxlan {kernel} local {theirs} remote {ours} dstport 4789 dev u0
             ip link set v address 02:00:00:00:00:42 up
             ip addr add {FAR}/16 dev v"
        ));
        tunnel(a, "vxlan", theirs, options);
        passes(&hosts, &SIZES);
    }
}

/// Datagrams of a flow are joined on their way to a port, and one by one for the socket that they are for; on the way to who reads
/// frames they are if the port says so.
#[test]
fn datagrams_are_joined_unless_the_port_says_no() {
    let [a, b] = two_switches(1500);
    for (host, remote) in [(&a, UNDERLAY[1]), (&b, UNDERLAY[0])] {
        tunnel(host, "gre", remote, "");
    }
    reaches(&a, "10.0.42.1");
    let frames_of_several = || {
        let capture = Capture::start(&b, "br0", "udp port 17001 and greater 500");
        let stream = traffic::udp(&a, &b, "10.0.42.1", 3000, 200, 100_000);
        assert!(stream.received > 0 && stream.corrupt == 0, "{stream:?}");
        capture.stop().outer("udp")
    };
    // as many as come at a time
    poll_within(Duration::from_secs(60), "datagrams in one frame", || {
        (frames_of_several() > 0).then_some(())
    });
    b.vsctl("set port br0 other_config:join-udp=false");
    assert_eq!(frames_of_several(), 0);
    b.vsctl("remove port br0 other_config join-udp");
    poll_within(Duration::from_secs(60), "datagrams in one frame", || {
        (frames_of_several() > 0).then_some(())
    });
}
