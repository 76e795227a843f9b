//! libreswan in a guest, with the kernel's ESP and gretap.

use harness::guest::Guest;
use harness::interop::{Auth, Connection, Peer, Scene};
use harness::libreswan::Libreswan;
use harness::pki::{Kind, Pki};
use harness::topology::UNDERLAY;
use harness::{Host, poll};

const PSK: &str = "thisisnotagoodpsk";

#[test]
fn kernel_esp_and_gretap() {
    let mut a = Host::new("hA", 11);
    a.start();
    a.overlay();
    let guest = Guest::boot(&a);
    let libreswan = Libreswan::start(&guest);
    let scene = Scene { host: &a, guest: &guest };
    let pki = Pki::new();
    let ca = pki.authority("ca");
    // what libreswan signs by, it wants the other end to sign by
    let pairs = [Kind::Rsa, Kind::P256].map(|kind| (pki.issue(&ca, "a", kind), pki.issue(&ca, "b", kind)));
    a.vsctl(&format!("set Open_vSwitch . other_config:ca_cert={}", ca.cert.display()));
    let psk = (None, format!("type=ipsec_gre options:psk={PSK}"));
    let [rsa, ecdsa] =
        pairs.each_ref().map(|pair| (Some(pair), "type=gre options:remote_name=b.test".to_owned()));
    // what ovs-monitor-ipsec writes for libreswan, and libreswan's own choice
    let algorithms = [("aes_gcm256-sha2_256", "aes_gcm256"), ("", "")];
    let capture = scene.capture("src host 192.0.2.1");
    let mut first = true;
    for ((pair, words), udp, they_begin, (ike, esp), rekeys) in [
        (&psk, false, true, algorithms[0], true),
        (&psk, true, false, algorithms[1], true),
        (&psk, false, false, algorithms[0], false),
        (&rsa, true, true, algorithms[1], false),
        (&rsa, false, false, algorithms[0], true),
        (&ecdsa, false, true, algorithms[0], false),
        (&ecdsa, true, false, algorithms[1], true),
    ] {
        println!("{words} udp {udp} they begin {they_begin} {ike}");
        let auth = pair.map_or(Auth::Psk(PSK), |(ours, theirs)| {
            a.vsctl(&format!(
                "set Open_vSwitch . other_config:certificate={} other_config:private_key={}",
                ours.cert.display(),
                ours.key.display()
            ));
            Auth::Authority { own: theirs, authority: &ca, name: "a.test" }
        });
        libreswan.load(&Connection {
            local: UNDERLAY[1],
            remote: UNDERLAY[0],
            auth,
            ike,
            esp,
            udp,
            trap: true,
            more: "",
        });
        if std::mem::take(&mut first) {
            scene.gretap();
        }
        a.only_answers(they_begin);
        let road = if udp { "udp" } else { "auto" };
        scene.tunnel(&format!("{words} options:encapsulation={road}"));
        if they_begin {
            libreswan.initiate();
        }
        scene.up(&libreswan);
        a.only_answers(false);
        scene.exchange(udp);
        let streams = if rekeys { scene.rekeys(&libreswan) } else { Default::default() };
        println!("{streams:?}");
        for s in streams {
            assert_eq!((s.duplicates, s.corrupt), (0, 0), "{streams:?}");
            // it sends by a new SA when it has answered, which may be before we have read the answer
            assert!(s.lost < 50, "{streams:?}");
        }
        a.vsctl("del-port gre0");
        poll("the peer to lose its SAs", || (libreswan.children() == 0).then_some(()));
    }
    capture.stop().assert_protected();
}
