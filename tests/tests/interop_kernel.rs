//! Tunnels with the kernel's own ends, in a guest: gretap, gretap in UDP, Geneve, and the kernel datapath of Open vSwitch.

use harness::guest::Guest;
use harness::topology::{Shell, UNDERLAY, UNDERLAY6, reaches};
use harness::{Capture, Container, Host, cli, traffic};

/// ```text
///   [ container ─ docker0 ═ br0 ─ gre0  hA ]── tap u0 192.0.2.1 ── 192.0.2.2 eth0 ──[ gretap g 10.0.42.1/16  guest ]
///              Underpass                                                                  Debian's kernel
/// ```
fn host() -> Host {
    let mut a = Host::with_engine("hA", 11);
    a.start();
    a
}

const FAR: &str = "10.0.42.1";

/// The guest's program for the far end of the transfers: an iperf3 server that stays.
const SERVE: &str = "iperf3 -s -D --logfile /run/iperf3.log";

/// Payloads of ICMP echoes, up to what must be fragmented before it enters the tunnel.
const SIZES: [u32; 5] = [0, 1000, 1434, 1472, 3000];

#[track_caller]
fn passes(c: &Container, guest: &Guest, sizes: &[u32]) {
    reaches(c, FAR);
    traffic::ping(c, FAR, 5);
    for size in sizes {
        traffic::answered(c, 2, &format!("-M dont -i0.1 -s {size} {FAR}"));
    }
    guest.sh(&format!("ping -c3 -i0.1 -W5 {}", c.ip));
    // TCP both ways; the guest's iperf3 answers
    for args in ["-n 4M", "-n 4M -R"] {
        let mut cmd = harness::topology::Place::cmd(c, "timeout");
        let out = cli::output(cmd.args(["60", "iperf3", "-J", "-c", FAR]).args(args.split_whitespace()));
        assert!(out.success(), "{out:?}");
    }
}

#[test]
fn gretap() {
    let a = host();
    let guest = Guest::boot(&a);
    a.join(&[UNDERLAY[1]]);
    let c = a.container();
    guest.sh(&format!("modprobe ip_gre; {SERVE}"));
    // what gretap is told, and what we are told
    for (kernel, options) in [
        ("", ""),
        ("key 5", "options:key=5"),
        ("key 0", "options:key=0"),
        ("ikey 7 okey 8", "options:in_key=8 options:out_key=7"),
        ("csum", "options:csum=true"),
        ("key 9 csum seq", "options:key=9 options:csum=true options:seq=true"),
        ("nopmtudisc ttl 64", "options:df_default=false"),
    ] {
        guest.sh(&format!(
            "ip link del g 2>/dev/null || true
             ip link add g type gretap local {} remote {} {kernel}
             ip link set g address 02:00:00:00:00:42 up
             ip addr add {FAR}/16 dev g",
            UNDERLAY[1], UNDERLAY[0]
        ));
        a.vsctl("clear interface gre0 options");
        a.vsctl(&format!("set interface gre0 options:remote_ip={} {options}", UNDERLAY[1]));
        println!("gretap {kernel:?}, underpass {options:?}");
        passes(&c, &guest, &SIZES);
    }
    // a key that only one side has: nothing passes
    a.vsctl("set interface gre0 options:key=1");
    assert!(!traffic::try_ping(&c, &format!("-c2 -i0.2 -W1 {FAR}")).success());
}

/// Superframes that our kernel cuts, in headers of ours: the guest's takes what arrives for its own kind, and so does tshark.
#[test]
fn gretap_by_the_device_road() {
    let a = host();
    let guest = Guest::boot(&a);
    a.join(&[UNDERLAY[1]]);
    a.vsctl("set open_vswitch . other_config:underlay-io=device");
    let c = a.container();
    guest.sh(&format!("modprobe -a ip_gre ip6_gre; {SERVE}"));
    // the host's own end of the wire finishes what it sends, as a network card does
    a.ns.sh("ethtool -K u0 tx off >/dev/null");
    let [[ours, theirs], [ours6, theirs6]] = [UNDERLAY, UNDERLAY6];
    for (kind, [here, there], kernel, options, device) in [
        ("gretap", [theirs, ours], "", "", true),
        ("gretap", [theirs, ours], "ikey 7 okey 8", "options:in_key=8 options:out_key=7", true),
        ("ip6gretap", [theirs6, ours6], "key 5", "options:key=5", true),
        ("gretap", [theirs, ours], "csum", "options:csum=true", false),
    ] {
        guest.sh(&format!(
            "ip link del g 2>/dev/null || true
             ip link add g mtu 1400 type {kind} local {here} remote {there} {kernel}
             ip link set g address 02:00:00:00:00:42 up
             ip addr add {FAR}/16 dev g"
        ));
        a.vsctl("--if-exists del-port gre0");
        a.gre("gre0", here, options);
        println!("{kind} {kernel:?}, underpass {options:?}");
        let error = a.get("interface", "gre0", "error");
        assert_eq!(error.contains("goes by a raw socket"), !device, "{error}");
        let capture = Capture::start(&a.ns, "u0", "proto 47");
        passes(&c, &guest, &SIZES);
        let seen = capture.stop();
        assert!(seen.count("gre and tcp.len > 1000 and eth.dst == 02:00:00:00:00:42") > 1000);
        seen.assert_clean(1500);
    }
}

/// GRE in UDP (RFC 8086) is what the kernel calls foo over UDP with GRE for foo. User Mode Linux is built to take it and not
/// to send it: what it sends goes through a second tunnel there, by IP alone.
#[test]
fn gretap_in_udp() {
    const MAC: &str = "02:00:00:00:00:42";
    let a = host();
    let guest = Guest::boot(&a);
    a.join(&[]);
    let c = a.container();
    let [ours, theirs] = UNDERLAY;
    let [ours6, theirs6] = UNDERLAY6;
    guest.sh(&format!(
        "modprobe -a fou fou6 ip_gre ip6_gre
         ip fou add port 4754 ipproto 47; ip -6 fou add port 4754 ipproto 47
         {SERVE}"
    ));
    // the guest would take unfinished checksums without a look
    guest.wire.sh("ethtool -K tap0 tx off >/dev/null");
    let encap = "encap fou encap-sport auto encap-dport 4754 encap-csum";
    let probe = format!("ip link add t type gretap local {theirs} remote {ours} {encap}; ip link del t");
    let encap = if guest.try_sh(&probe).success() { encap } else { "" };
    println!("the kernel sends GRE in UDP: {}", !encap.is_empty());
    for (kind, [here, there], kernel, options) in [
        ("gretap", [theirs, ours], "", ""),
        ("gretap", [theirs, ours], "key 9 csum seq", "options:key=9 options:csum=true options:seq=true"),
        ("gretap", [theirs, ours], "nopmtudisc ttl 64", "options:df_default=false"),
        ("ip6gretap", [theirs6, ours6], "", ""),
    ] {
        guest.sh(&format!(
            "ip link del g 2>/dev/null || true
             ip link add g mtu 1400 type {kind} local {here} remote {there} {kernel} {encap}
             ip link set g address {MAC} up
             ip addr add {FAR}/16 dev g"
        ));
        a.vsctl("--if-exists del-port gre0 -- --if-exists del-port gre1");
        a.gre("gre0", here, &format!("options:encapsulation=udp {options}"));
        if encap.is_empty() {
            a.gre("gre1", here, options);
            a.appctl(&format!("fdb/add br0 gre0 0 {MAC}"));
        }
        println!("{kind} {kernel:?}, underpass {options:?}");
        let capture = Capture::start(&guest.wire, "tap0", "udp dst port 4754");
        passes(&c, &guest, &SIZES);
        let seen = capture.stop();
        assert!(seen.count(&format!("gre and eth.dst == {MAC} and tcp")) > 0);
        assert_eq!(seen.count("udp.checksum.status == Bad"), 0, "the guest is given finished checksums");
    }
    if encap.is_empty() {
        // what comes in IP alone is not for a tunnel in UDP
        a.vsctl("del-port gre1");
        assert!(!traffic::try_ping(&c, &format!("-c2 -i0.2 -W1 {FAR}")).success());
    }
}

#[test]
fn geneve() {
    let a = host();
    let guest = Guest::boot(&a);
    a.join(&[]);
    let c = a.container();
    guest.sh(&format!("modprobe geneve; {SERVE}"));
    // the guest would take unfinished checksums without a look
    guest.wire.sh("ethtool -K tap0 tx off >/dev/null");
    for (kernel, [ours, theirs], options) in [
        ("id 0", UNDERLAY, ""),
        ("id 77 udpcsum", UNDERLAY, "options:key=77 options:csum=true"),
        ("id 5 udp6zerocsumrx", UNDERLAY6, "options:key=5"),
    ] {
        guest.sh(&format!(
            "ip link del g 2>/dev/null || true
             ip link add g type geneve {kernel} remote {ours} dstport 6081
             ip link set g address 02:00:00:00:00:42 mtu 1400 up
             ip addr add {FAR}/16 dev g"
        ));
        a.vsctl("--if-exists del-port g0");
        a.vsctl(&format!(
            "add-port br0 g0 -- set interface g0 type=geneve options:remote_ip={theirs} {options}"
        ));
        println!("{kernel:?}, {options:?}");
        let capture = Capture::start(&guest.wire, "tap0", "udp dst port 6081");
        passes(&c, &guest, &SIZES);
        assert!(capture.stop().count("geneve and eth.dst == 02:00:00:00:00:42 and tcp") > 0);
    }
}

#[test]
fn kernel_open_vswitch() {
    let a = host();
    let guest = Guest::boot(&a);
    a.join(&[UNDERLAY[1]]);
    let c = a.container();
    // ovs-vswitchd 3.1 counts no CPU, and starts no upcall handler, within 10 s of boot
    guest.sh(&format!(
        "modprobe openvswitch; modprobe vport-gre 2>/dev/null || true
         mkdir -p /run/openvswitch /run/ovs; export OVS_DBDIR=/run/ovs OVS_LOGDIR=/run/ovs
         ovsdb-tool create /run/ovs/conf.db /usr/share/openvswitch/vswitch.ovsschema
         ovsdb-server /run/ovs/conf.db --remote=punix:/run/openvswitch/db.sock --detach --pidfile
         ovs-vsctl --no-wait init
         while awk '{{exit !($1 < 10.5)}}' /proc/uptime; do sleep 0.2; done
         ovs-vswitchd --detach --pidfile 2>/dev/null || /usr/lib/openvswitch-switch/ovs-vswitchd --detach --pidfile
         ovs-vsctl -t 20 add-br br0 -- add-port br0 gre0 -- set interface gre0 type=gre options:remote_ip={}
         ip addr add {FAR}/16 dev br0; ip link set br0 up
         {SERVE}",
        UNDERLAY[0]
    ));
    // it sends checksums when asked to, but its gre_sys device refuses every packet that has one: then our packets,
    // which have none, may be 4 bytes longer than it takes
    for (theirs, ours, mtu, sizes) in [
        ("", "", 1462, &SIZES[..]),
        ("options:key=5", "options:key=5", 1458, &SIZES),
        ("options:csum=true", "", 1458, &[0, 1000, 1430]),
    ] {
        // it neither fragments nor answers: its own port must leave room for the tunnel's headers
        guest.sh(&format!(
            "ovs-vsctl -t 20 clear interface gre0 options -- set interface gre0 options:remote_ip={} {theirs}
             ip link set br0 mtu {mtu}",
            UNDERLAY[0]
        ));
        a.vsctl("clear interface gre0 options");
        a.vsctl(&format!("set interface gre0 options:remote_ip={} {ours}", UNDERLAY[1]));
        println!("kernel Open vSwitch {theirs:?}, underpass {ours:?}");
        passes(&c, &guest, sizes);
    }
}
