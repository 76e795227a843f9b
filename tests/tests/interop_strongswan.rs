//! strongSwan: its IKE natively, with every algorithm that both speak; in a guest with the kernel's ESP and gretap.

use harness::guest::Guest;
use harness::interop::{Auth, Connection, Peer, Scene};
use harness::pki::{Kind, Pki};
use harness::strongswan::Charon;
use harness::topology::{UNDERLAY, cable};
use harness::{Host, poll};

const PSK: &str = "thisisnotagoodpsk";

/// A connection as strongSwan's users would write it.
fn connection<'a>(auth: Auth<'a>) -> Connection<'a> {
    Connection {
        local: UNDERLAY[1],
        remote: UNDERLAY[0],
        auth,
        ike: "aes256gcm16-prfsha256-curve25519",
        esp: "aes256gcm16-esn-noesn",
        udp: false,
        trap: true,
        more: "",
    }
}

#[test]
fn kernel_esp_and_gretap() {
    let mut a = Host::new("hA", 11);
    a.start();
    a.overlay();
    let guest = Guest::boot(&a);
    let charon = Charon::in_guest(&guest);
    let scene = Scene { host: &a, guest: &guest };
    let pki = Pki::new();
    let ca = pki.authority("ca");
    let (ours, theirs) = (pki.issue(&ca, "a", Kind::P256), pki.issue(&ca, "b", Kind::Rsa));
    a.vsctl(&format!(
        "set Open_vSwitch . other_config:certificate={} other_config:private_key={} other_config:ca_cert={}",
        ours.cert.display(),
        ours.key.display(),
        ca.cert.display()
    ));
    let psk = (Auth::Psk(PSK), format!("type=ipsec_gre options:psk={PSK}"));
    let authority = (
        Auth::Authority { own: &theirs, authority: &ca, name: "a.test" },
        "type=gre options:remote_name=b.test".to_owned(),
    );
    let pinned = (
        Auth::Pinned { own: &theirs, other: &ours },
        format!("type=gre options:remote_cert={}", theirs.cert.display()),
    );
    let capture = scene.capture("src host 192.0.2.1");
    let mut first = true;
    for ((auth, words), udp, they_begin, rekeys) in [
        (&psk, false, true, true),
        (&psk, true, false, true),
        (&psk, false, false, false),
        (&psk, true, true, false),
        (&authority, false, true, false),
        (&authority, true, false, true),
        (&pinned, true, true, false),
        (&pinned, false, false, true),
    ] {
        println!("{auth:?} udp {udp} they begin {they_begin}");
        charon.load(&Connection { udp, ..connection(*auth) });
        if std::mem::take(&mut first) {
            scene.gretap();
        }
        a.only_answers(they_begin);
        let road = if udp { "udp" } else { "auto" };
        scene.tunnel(&format!("{words} options:encapsulation={road}"));
        if they_begin {
            charon.initiate();
        }
        scene.up(&charon);
        assert_eq!(charon.sas().contains("_i* "), they_begin, "{}", charon.sas());
        a.only_answers(false);
        scene.exchange(udp);
        let streams = if rekeys { scene.rekeys(&charon) } else { Default::default() };
        println!("{streams:?}");
        for s in streams {
            assert_eq!((s.lost, s.duplicates, s.corrupt), (0, 0, 0), "{streams:?}");
        }
        a.vsctl("del-port gre0");
        poll("the peer to lose its SAs", || (charon.children() == 0).then_some(()));
    }
    capture.stop().assert_protected();
}

/// What the host says of u0, and of what hangs on it.
fn underlay(a: &Host) -> String {
    a.ns.sh("ip -d link show dev u0")
}

/// ESP in trains (`underlay-io=device`): on the wire and to the kernel's ESP nothing is different.
#[test]
fn kernel_esp_by_trains() {
    let mut a = Host::new("hA", 11);
    a.start();
    a.overlay();
    a.vsctl("set Open_vSwitch . other_config:underlay-io=device");
    let guest = Guest::boot(&a);
    guest.wire.sh("ethtool -K w0 gro on");
    let charon = Charon::in_guest(&guest);
    charon.load(&connection(Auth::Psk(PSK)));
    let scene = Scene { host: &a, guest: &guest };
    scene.gretap();
    scene.tunnel(&format!("type=ipsec_gre options:psk={PSK}"));
    scene.up(&charon);
    let told = |what: &str| poll(what, || a.log().contains(what).then_some(()));
    told("u0: ESP is received in trains, by XDP");
    told("ESP to 192.0.2.2 leaves in trains, by u0");
    assert!(underlay(&a).contains("prog/xdp"), "{}", underlay(&a));
    scene.exchange(false);
    let streams = scene.rekeys(&charon);
    for s in streams {
        assert_eq!((s.lost, s.duplicates, s.corrupt), (0, 0, 0), "{streams:?}");
    }
    scene.exchange(false);

    let gone = || poll("XDP to be off u0", || (!underlay(&a).contains("prog/xdp")).then_some(()));
    a.vsctl("set Open_vSwitch . other_config:underlay-io=raw");
    gone();
    scene.exchange(false);
    a.vsctl("set Open_vSwitch . other_config:underlay-io=device");
    poll("XDP to be on u0", || underlay(&a).contains("prog/xdp").then_some(()));
    scene.exchange(false);

    // down and up again: as before
    a.ns.sh("ip link set u0 down; sleep 2; ip link set u0 up");
    scene.up(&charon);
    scene.exchange(false);
}

/// A NAT before Underpass: strongSwan knows it by the NAT's address, in its selectors as well (RFC 7296 section 2.23.1).
/// ```text
///   [ br0 ─ gre0  hA 10.9.0.2 ]──[ 10.9.0.1  nat  192.0.2.1 ]──[ 192.0.2.2  kernel's ESP ─ gretap  guest ]
/// ```
#[test]
fn behind_a_nat() {
    let (mut a, nat) = (Host::new("hA", 11), Host::new("nat", 0));
    a.ns.veth("u0", &nat.ns, "n0", 1500);
    a.ns.nic("u0");
    a.ns.sh("ip addr add 10.9.0.2/24 dev u0; ip route add default via 10.9.0.1");
    let guest = Guest::boot(&nat);
    nat.ns.sh("ip addr add 10.9.0.1/24 dev n0
        sysctl -qw net.ipv4.ip_forward=1
        nft add table ip nat
        nft add chain ip nat out '{ type nat hook postrouting priority 100; }'
        nft add rule ip nat out oifname u0 meta l4proto udp masquerade to :20000-29999");
    a.start();
    a.overlay();
    let charon = Charon::in_guest(&guest);
    charon.load(&Connection { trap: false, ..connection(Auth::Psk(PSK)) });
    let scene = Scene { host: &a, guest: &guest };
    scene.gretap();
    scene.tunnel(&format!("type=ipsec_gre options:psk={PSK}"));
    scene.up(&charon);
    scene.exchange(true);
    let streams = scene.rekeys(&charon);
    for s in streams {
        assert_eq!((s.lost, s.duplicates, s.corrupt), (0, 0, 0), "{streams:?}");
    }
}

/// strongSwan on a host whose kernel may have no ESP: IKE SAs come up, child SAs need not.
/// ```text
///   [ hA  Underpass 192.0.2.1 ]── IKE ──[ 192.0.2.2 charon  hB ]
/// ```
#[test]
fn ike_natively() {
    let hosts = [Host::new("hA", 11), Host::new("hB", 42)];
    cable(&hosts, 1500);
    let [mut a, b] = hosts;
    a.start();
    a.overlay();
    let charon = Charon::native(&b);
    let pki = Pki::new();
    let ca = pki.authority("ca");
    a.vsctl(&format!("set Open_vSwitch . other_config:ca_cert={}", ca.cert.display()));
    let suites = [
        ("aes256gcm16-prfsha256-curve25519", "AES_GCM_16-256/PRF_HMAC_SHA2_256/CURVE_25519"),
        ("aes128gcm16-prfsha384-ecp256", "AES_GCM_16-128/PRF_HMAC_SHA2_384/ECP_256"),
        ("aes256gcm16-prfsha512-ecp384", "AES_GCM_16-256/PRF_HMAC_SHA2_512/ECP_384"),
        ("aes256-sha256-modp2048", "AES_CBC-256/HMAC_SHA2_256_128/PRF_HMAC_SHA2_256/MODP_2048"),
        ("aes128-sha256-prfsha512-modp3072", "AES_CBC-128/HMAC_SHA2_256_128/PRF_HMAC_SHA2_512/MODP_3072"),
        ("aes128gcm16-prfsha256-modp4096", "AES_GCM_16-128/PRF_HMAC_SHA2_256/MODP_4096"),
    ];
    let kinds = Kind::ALL;
    for (i, (ike, chosen)) in suites.into_iter().enumerate() {
        let (ours, theirs) = (kinds[i % 4], kinds[(i + 1) % 4]);
        let (ours, theirs) = (pki.issue(&ca, "a", ours), pki.issue(&ca, "b", theirs));
        let auth = [
            (Auth::Psk(PSK), format!("type=ipsec_gre options:psk={PSK}")),
            (
                Auth::Authority { own: &theirs, authority: &ca, name: "a.test" },
                "type=gre options:remote_name=b.test".to_owned(),
            ),
            (
                Auth::Pinned { own: &theirs, other: &ours },
                format!("type=gre options:remote_cert={}", theirs.cert.display()),
            ),
        ];
        a.vsctl(&format!(
            "set Open_vSwitch . other_config:certificate={} other_config:private_key={}",
            ours.cert.display(),
            ours.key.display()
        ));
        for (auth, words) in auth {
            for they_begin in [false, true] {
                println!("{ike} {auth:?} they begin {they_begin}");
                charon.load(&Connection { ike, trap: false, ..connection(auth) });
                a.only_answers(they_begin);
                a.vsctl("--if-exists del-port gre0");
                a.vsctl(&format!(
                    "add-port br0 gre0 -- set interface gre0 options:remote_ip={} {words}",
                    UNDERLAY[1]
                ));
                if they_begin {
                    // ends with the child SA's failure, where the kernel has no ESP
                    charon.swanctl("--initiate --child gre --timeout 10");
                }
                poll("an IKE SA at the peer", || {
                    let sas = charon.sas();
                    let up = sas.contains(", ESTABLISHED, IKEv2") && sas.contains(chosen);
                    (up && sas.contains("_i* ") == they_begin).then_some(())
                });
                assert_eq!(a.get("interface", "gre0", "status:ipsec_ike"), chosen);
                charon.rekey_ike();
                poll("one IKE SA, another one", || {
                    let sas = charon.sas();
                    (sas.matches("ESTABLISHED").count() == 1 && !sas.contains("gre: #1,")).then_some(())
                });
                a.vsctl("del-port gre0");
                poll("the peer to lose its IKE SA", || (!charon.sas().contains("ESTABLISHED")).then_some(()));
            }
        }
    }
    a.only_answers(false);
    // nothing in common: both sides of it are said
    charon.load(&Connection { ike: "aes256-sha512-modp8192", trap: false, ..connection(Auth::Psk(PSK)) });
    a.vsctl(&format!(
        "add-port br0 gre0 -- set interface gre0 type=ipsec_gre options:remote_ip={} options:psk={PSK}",
        UNDERLAY[1]
    ));
    charon.swanctl("--initiate --child gre --timeout 5");
    poll("an error with both proposals", || {
        let error = a.get("interface", "gre0", "error");
        (error.contains("MODP_8192") && error.contains("CURVE_25519")).then_some(())
    });
}
