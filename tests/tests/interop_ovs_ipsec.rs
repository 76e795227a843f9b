//! Stock Open vSwitch with its IPsec in a guest, configured by the same ovs-vsctl line as Underpass.

use harness::guest::Guest;
use harness::interop::{FAR, Peer, Scene};
use harness::ovs_ipsec::OvsIpsec;
use harness::pki::{Kind, Pair, Pki};
use harness::topology::{Shell, UNDERLAY, reaches};
use harness::{Host, poll};

const PSK: &str = "thisisnotagoodpsk";

/// Where the guest keeps key and certificate of `pair`, which must stand in files of its own.
fn put(guest: &Guest, pair: &Pair) -> (String, String) {
    let (cert, key) = (format!("/run/{}.pem", pair.name), format!("/run/{}.key", pair.name));
    guest.put(&cert, &pair.cert_pem());
    guest.put(&key, &pair.key_pem());
    (cert, key)
}

#[test]
fn configured_by_the_same_line() {
    let mut a = Host::new("hA", 11);
    a.start();
    a.overlay();
    let guest = Guest::boot(&a);
    let ovs = OvsIpsec::start(&guest, &format!("{FAR}/16"));
    let scene = Scene { host: &a, guest: &guest };
    let [ours, theirs] = UNDERLAY;

    // the line of the origin story, as each of the two knows it; both begin, whoever is first
    let line = |kind: &str, remote: &str, proof: &str| {
        format!("add-port br0 gre0 -- set interface gre0 type={kind} options:remote_ip={remote} {proof}")
    };
    for (kind, words, udp, they_begin) in [
        ("ipsec_gre", "", false, false),
        ("gre", "", false, true),
        ("gre", "options:ipsec_encapsulation=yes", true, false),
    ] {
        println!("psk, type={kind} {words} they begin {they_begin}");
        a.only_answers(they_begin);
        ovs.vsctl(&line("gre", ours, &format!("options:psk={PSK}")));
        ovs.routed();
        let capture = scene.capture("");
        a.vsctl(&line(kind, theirs, &format!("options:psk={PSK} {words}")));
        if they_begin {
            ovs.initiate();
        }
        scene.up(&ovs);
        a.only_answers(false);
        scene.exchange(udp);
        if !udp {
            let streams = scene.rekeys(&ovs);
            println!("{streams:?}");
            for s in streams {
                assert_eq!((s.duplicates, s.corrupt), (0, 0), "{streams:?}");
                assert!(s.received > 3000, "{streams:?}");
            }
        }
        capture.stop().assert_protected();
        gone(&a, &ovs);
    }

    // certificates: each signed its own; then one authority signed both
    let pki = Pki::new();
    let ca = pki.authority("ca");
    let settings = |cert: &str, key: &str| {
        format!("set Open_vSwitch . other_config:certificate={cert} other_config:private_key={key}")
    };
    for signed in [false, true] {
        println!("certificates, by an authority: {signed}");
        let pair =
            |host| if signed { pki.issue(&ca, host, Kind::Rsa) } else { pki.self_signed(host, Kind::Rsa) };
        let (mine, its) = (pair("a"), pair("b"));
        a.vsctl(&settings(&mine.cert.display().to_string(), &mine.key.display().to_string()));
        let (cert, key) = put(&guest, &its);
        ovs.vsctl(&settings(&cert, &key));
        let (ours_to_it, its_to_us) = if signed {
            guest.put("/run/ca.pem", &ca.cert_pem());
            ovs.vsctl("set Open_vSwitch . other_config:ca_cert=/run/ca.pem");
            a.vsctl(&format!("set Open_vSwitch . other_config:ca_cert={}", ca.cert.display()));
            ("options:remote_name=b.test".to_owned(), "options:remote_name=a.test".to_owned())
        } else {
            let (cert, _) = put(&guest, &mine);
            let remote = format!("options:remote_cert={}", its.cert.display());
            (remote, format!("options:remote_cert={cert}"))
        };
        a.only_answers(!signed);
        ovs.vsctl(&line("gre", ours, &its_to_us));
        ovs.routed();
        if signed {
            ovs.trust(&ca.cert_pem());
        }
        a.vsctl(&line("gre", theirs, &ours_to_it));
        if !signed {
            ovs.initiate();
        }
        scene.up(&ovs);
        a.only_answers(false);
        scene.exchange(false);
        gone(&a, &ovs);
    }
    reaches(&a, theirs);
}

/// The same line with another type: two connections there, `gre0-in` and `gre0-out`, and the child SAs of both.
#[test]
fn vxlan_and_geneve_by_the_same_line() {
    let mut a = Host::new("hA", 11);
    a.start();
    a.overlay();
    let guest = Guest::boot(&a);
    guest.sh("modprobe -qa vxlan geneve vport-vxlan vport-geneve || true");
    let ovs = OvsIpsec::start(&guest, &format!("{FAR}/16"));
    let scene = Scene { host: &a, guest: &guest };
    let [ours, theirs] = UNDERLAY;
    for (kind, words, udp, they_begin) in [
        ("vxlan", "", false, false),
        ("geneve", "options:key=7", false, true),
        ("vxlan", "options:ipsec_encapsulation=yes", true, true),
    ] {
        println!("type={kind} {words} they begin {they_begin}");
        let line = |remote: &str| {
            format!(
                "add-port br0 gre0 -- set interface gre0 type={kind} options:remote_ip={remote} options:psk={PSK} {words}"
            )
        };
        a.only_answers(they_begin);
        ovs.vsctl(&line(ours));
        ovs.routed();
        let capture = scene.capture("");
        a.vsctl(&line(theirs));
        if they_begin {
            ovs.initiate();
        }
        scene.up(&ovs);
        a.only_answers(false);
        scene.exchange(udp);
        if !udp {
            for s in scene.rekeys(&ovs) {
                assert_eq!((s.duplicates, s.corrupt), (0, 0), "{s:?}");
                assert!(s.received > 3000, "{s:?}");
            }
        }
        capture.stop().assert_protected();
        gone(&a, &ovs);
    }
}

/// Both sides take their port away.
#[track_caller]
fn gone(a: &Host, ovs: &OvsIpsec) {
    a.vsctl("del-port gre0");
    poll("the peer to lose its SAs", || (ovs.children() == 0).then_some(()));
    ovs.vsctl("del-port gre0");
    ovs.unrouted();
}
