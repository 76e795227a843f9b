//! VXLAN and Geneve in ESP: between two Underpass, beside GRE between the same two, and never in the clear.

use std::time::Duration;

use harness::topology::{Shell, UNDERLAY, UNDERLAY6, reaches, two_switches};
use harness::traffic::{self, Sequence};
use harness::{Capture, Host, Keys, poll_within};

const PSK: &str = "options:psk=thisisnotagoodpsk";

/// Another bridge on both, whose hosts are 10.1.0.1 and 10.1.0.2.
const SECOND: [&str; 2] = ["10.1.0.1", "10.1.0.2"];

#[track_caller]
fn second_bridge(hosts: &[Host; 2]) {
    for (h, address) in hosts.iter().zip(SECOND) {
        h.vsctl("add-br br1");
        h.sh(&format!("ip addr add {address}/24 dev br1; ip link set br1 up"));
    }
}

/// A tunnel on both, anew.
#[track_caller]
fn tunnels(hosts: &[Host; 2], bridge: &str, name: &str, remotes: [&str; 2], words: &str) {
    for h in hosts {
        h.vsctl(&format!("--if-exists del-port {name}"));
    }
    for (h, remote) in hosts.iter().zip([remotes[1], remotes[0]]) {
        h.vsctl(&format!(
            "add-port {bridge} {name} -- set interface {name} options:remote_ip={remote} {words}"
        ));
    }
}

/// Frames of all sizes and TCP, both ways.
#[track_caller]
fn crossed(hosts: &[Host; 2]) {
    let [a, b] = hosts;
    reaches(a, &b.docker0());
    for size in [0, 1300, 1472, 3000] {
        for (from, to) in [(a, b.docker0()), (b, a.docker0())] {
            let out = traffic::try_ping(from, &format!("-M dont -c2 -i0.1 -W5 -s {size} {to}"));
            assert!(out.stdout.contains(" 2 received"), "{size} bytes to {to}: {out:?}");
        }
    }
    traffic::tcp(a, b, &b.docker0(), 1_000_000);
    traffic::tcp(b, a, &a.docker0(), 1_000_000);
}

#[test]
fn by_every_road() {
    let hosts = two_switches(1500);
    for (kind, remotes, words) in [
        ("vxlan", UNDERLAY, ""),
        ("geneve", UNDERLAY, "options:encapsulation=esp options:key=0xffffff"),
        ("vxlan", UNDERLAY6, "options:encapsulation=esp options:key=7"),
        ("vxlan", UNDERLAY, "options:encapsulation=esp options:csum=true"),
    ] {
        println!("{kind} {remotes:?} {words}");
        let capture = Capture::wire([&hosts[0], &hosts[1]], "u0", "");
        tunnels(&hosts, "br0", "t0", remotes, &format!("type={kind} {PSK} {words}"));
        crossed(&hosts);
        let keys = Keys::export(&hosts[0]);
        let mut seen = capture.stop();
        seen.open_with(keys);
        seen.assert_clean_within(1500);
        assert!(seen.count(&format!("esp and {kind} and eth and icmp")) > 0, "it is {kind}");
        let raw = seen.outer("ip proto 50 or ip6 proto 50");
        assert_eq!(raw > 0, words.contains("encapsulation=esp"), "{raw} of protocol 50");
        for h in &hosts {
            h.wait_for("interface", "t0", "status:ipsec", "up");
            assert_eq!(h.get("interface", "t0", "error"), "[]");
        }
        for h in &hosts {
            h.vsctl("del-port t0");
        }
    }
}

/// GRE, VXLAN and Geneve between the same two hosts, all of it rekeyed under load; one of them goes, the rest stays.
#[test]
fn beside_gre() {
    let hosts = two_switches(1500);
    let [a, b] = &hosts;
    second_bridge(&hosts);
    tunnels(&hosts, "br0", "gre0", UNDERLAY, &format!("type=gre {PSK}"));
    reaches(a, &b.docker0());
    tunnels(&hosts, "br1", "vx0", UNDERLAY, &format!("type=vxlan {PSK}"));
    reaches(a, SECOND[1]);

    let status = a.appctl("ipsec/status");
    assert_eq!(status.matches("  IKE SA ").count(), 1, "{status}");
    assert_eq!(status.matches("  Child SA ").count(), 3, "{status}");
    for selectors in ["[gre] - ", "[udp/4789] - ", "[udp] - "] {
        assert!(status.contains(selectors), "{status}");
    }
    let shown = a.appctl("-t ovs-monitor-ipsec tunnels/show");
    for line in ["Tunnel Type:    vxlan", "vx0-in-1{", "vx0-out-1{", "gre0-1{", "proto udp dport 4789"] {
        assert!(shown.contains(line), "{line} in {shown}");
    }

    let rate = 1000;
    let streams = [
        Sequence::start(a, b, &b.docker0(), 6 * rate, 500, rate),
        Sequence::start(b, a, SECOND[0], 6 * rate, 500, rate),
    ];
    for what in ["child", "ike", "child"] {
        for h in &hosts {
            std::thread::sleep(Duration::from_millis(700));
            h.appctl(&format!("ipsec/rekey vx0 {what}"));
        }
    }
    for s in streams.map(Sequence::finish) {
        assert_eq!((s.received, s.lost, s.duplicates, s.corrupt), (6 * rate, 0, 0, 0), "{s:?}");
    }

    for h in &hosts {
        h.vsctl("del-port vx0");
    }
    poll_within(Duration::from_secs(20), "the child SA of GRE alone", || {
        let status = a.appctl("ipsec/status");
        (status.matches("  Child SA ").count() == 1 && status.contains("[gre] - ")).then_some(())
    });
    traffic::ping(a, &b.docker0(), 3);
}

/// Without an SA nothing leaves; what comes in the clear from the very host that the tunnel leads to is not taken.
#[test]
fn never_in_the_clear() {
    let hosts = two_switches(1500);
    let [a, b] = &hosts;
    let capture = Capture::wire([a, b], "u0", "");
    a.vsctl(&format!(
        "add-port br0 t0 -- set interface t0 type=vxlan options:remote_ip={} {PSK}",
        UNDERLAY[1]
    ));
    b.vsctl(&format!("add-port br0 t0 -- set interface t0 type=vxlan options:remote_ip={}", UNDERLAY[0]));
    for (from, to) in [(a, b.docker0()), (b, a.docker0())] {
        assert!(!traffic::try_ping(from, &format!("-c3 -i0.2 -W1 {to}")).success());
    }
    assert!(a.count("gre_unprotected") > 0, "{}", a.appctl("coverage/show"));
    assert!(a.count("esp_no_outbound_sa") > 0, "{}", a.appctl("coverage/show"));
    let seen = capture.stop();
    let clear = |from: &str| seen.outer(&format!("udp dst port 4789 and src host {from}"));
    assert_eq!(clear(UNDERLAY[0]), 0);
    assert!(clear(UNDERLAY[1]) > 0, "the other one has sent some");
}
