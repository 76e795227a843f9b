//! VXLAN and Geneve in ESP: between two Underpass, beside GRE between the same two, and never in the clear.

use std::time::Duration;

use harness::pki::{Kind, Pki};
use harness::topology::{Shell, UNDERLAY, UNDERLAY6, reaches, two_switches};
use harness::traffic::{self, Sequence};
use harness::{Capture, Host, Keys, poll};

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
            traffic::answered(from, 2, &format!("-M dont -i0.1 -s {size} {to}"));
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

/// Each end signed its own certificate, or one authority signed both. Beside what has the same proofs; a third, with the wrong name,
/// stays down.
#[test]
fn by_certificates() {
    let hosts = two_switches(1500);
    let [a, b] = &hosts;
    second_bridge(&hosts);
    let pki = Pki::new();
    let ca = pki.authority("ca");
    let signed = [pki.issue(&ca, "a", Kind::P256), pki.issue(&ca, "b", Kind::Rsa)];
    let own = [pki.self_signed("a", Kind::Rsa), pki.self_signed("b", Kind::P256)];
    for (pairs, asked) in [
        (&own, [1, 0].map(|peer: usize| format!("options:remote_cert={}", own[peer].cert.display()))),
        (&signed, ["b", "a"].map(|peer| format!("options:remote_name={peer}.test"))),
    ] {
        let capture = Capture::wire([a, b], "u0", "");
        for (h, pair) in hosts.iter().zip(pairs) {
            h.vsctl(&format!(
                "set Open_vSwitch . other_config:certificate={} other_config:private_key={} other_config:ca_cert={}",
                pair.cert.display(),
                pair.key.display(),
                ca.cert.display()
            ));
        }
        for (bridge, name, kind) in [("br0", "t0", "vxlan"), ("br1", "t1", "geneve")] {
            for ((h, asked), remote) in hosts.iter().zip(&asked).zip([UNDERLAY[1], UNDERLAY[0]]) {
                h.vsctl(&format!(
                    "add-port {bridge} {name} -- set interface {name} type={kind} options:remote_ip={remote} {asked}"
                ));
            }
        }
        crossed(&hosts);
        reaches(a, SECOND[1]);
        let keys = Keys::export(a);
        let mut seen = capture.stop();
        seen.open_with(keys);
        seen.assert_clean_within(1500);
        for kind in ["vxlan", "geneve"] {
            assert!(seen.count(&format!("esp and {kind} and eth and icmp")) > 0, "no {kind}: {asked:?}");
        }
        // where both have begun at once the other one goes soon
        poll("one IKE SA with a child SA for each way of each kind", || {
            let status = a.appctl("ipsec/status");
            let count = |what: &str| status.matches(what).count();
            ((count("  IKE SA "), count("  Child SA ")) == (1, 4)).then_some(())
        });
        for h in &hosts {
            h.vsctl("del-port t0 -- del-port t1");
        }
    }
    tunnels(&hosts, "br0", "t0", UNDERLAY, "type=vxlan options:remote_name=c.test");
    poll("who it is, and who it ought to be", || {
        let error = a.get("interface", "t0", "error");
        ["b.test", "c.test"].iter().all(|name| error.contains(name)).then_some(())
    });
    assert!(!traffic::try_ping(a, &format!("-c2 -i0.2 -W1 {}", b.docker0())).success());
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

    // where both have begun at once the other one goes soon
    let status = poll("one IKE SA with three child SAs", || {
        let status = a.appctl("ipsec/status");
        let count = |what: &str| status.matches(what).count();
        ((count("  IKE SA "), count("  Child SA ")) == (1, 3)).then_some(status)
    });
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
    poll("the child SA of GRE alone", || {
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

/// The same packets by their selectors, and others by what is in them: what there were SAs for is not that any more.
#[test]
fn another_kind_at_the_same_port() {
    let hosts = two_switches(1500);
    let [a, b] = &hosts;
    tunnels(&hosts, "br0", "t0", UNDERLAY, &format!("type=vxlan options:dst_port=4790 {PSK}"));
    reaches(a, &b.docker0());
    for h in &hosts {
        h.vsctl("set interface t0 type=geneve");
    }
    reaches(a, &b.docker0());
}
