//! Protected tunnels between Underpass hosts: every way to ask for one, what is then on the wire, and what is said of it.

use std::os::unix::fs::PermissionsExt;

use harness::pki::{Kind, Pair, Pki};
use harness::topology::{UNDERLAY, UNDERLAY6, reaches, two_hosts, two_switches};
use harness::traffic::{self, Sequence};
use harness::{Capture, Host, Keys, Packets, poll};

const PSK: &str = "thisisnotagoodpsk";

/// Makes gre0 on both anew; `words` are what is set of it besides remote_ip.
#[track_caller]
fn tunnels(hosts: &[Host; 2], remotes: [&str; 2], words: [&str; 2]) {
    apart(hosts);
    for (h, (remote, words)) in hosts.iter().zip(remotes.into_iter().zip(words)) {
        h.vsctl(&format!("add-port br0 gre0 -- set interface gre0 options:remote_ip={remote} {words}"));
    }
}

/// No tunnel between the hosts.
fn apart(hosts: &[Host; 2]) {
    for h in hosts {
        h.vsctl("--if-exists del-port gre0");
    }
}

/// Captures from before the first packet of the next tunnel, and after the last of the one before: its keys are gone.
fn on_the_wire(hosts: &[Host; 2]) -> Capture {
    apart(hosts);
    let [a, b] = hosts;
    Capture::wire([a, b], "u0", "")
}

/// Addresses of the far ends.
const REMOTES: [&str; 2] = [UNDERLAY[1], UNDERLAY[0]];

/// Everything on the wire while pings and TCP cross the tunnel both ways; then opened with the keys of hA.
#[track_caller]
fn crossed(hosts: &[Host; 2], capture: Capture) -> Packets {
    let [a, b] = hosts;
    reaches(a, &b.docker0());
    traffic::ping(b, &a.docker0(), 3);
    traffic::tcp(a, b, &b.docker0(), 1_000_000);
    traffic::tcp(b, a, &a.docker0(), 1_000_000);
    let keys = Keys::export(a);
    let mut seen = capture.stop();
    seen.open_with(keys);
    seen
}

/// The commands of the origin story, then those of today, letter for letter, with containers.
#[test]
fn psk_in_the_words_of_then_and_of_now() {
    let mut hosts = two_hosts(1500);
    for h in &mut hosts {
        h.start();
        h.vsctl("add-br br0");
        h.vsctl("add-port br0 docker0");
    }
    let [a, b] = &hosts;
    let (ca, cb) = (a.container(), b.container());
    for kind in ["ipsec_gre", "gre"] {
        let capture = on_the_wire(&hosts);
        for (h, remote_ip) in [(a, UNDERLAY[1]), (b, UNDERLAY[0])] {
            h.vsctl(&format!(
                "add-port br0 gre0 -- set interface gre0 type={kind} options:remote_ip={remote_ip} options:psk=thisisnotagoodpsk"
            ));
        }
        reaches(&ca, &cb.ip);
        assert_eq!(traffic::hello(&ca, &cb), "Hello");
        assert_eq!(traffic::hello(&cb, &ca), "Hello");
        traffic::ping(&ca, &cb.ip, 5);
        traffic::tcp(&ca, &cb, &cb.ip, 2_000_000);
        let keys = Keys::export(b);
        let mut seen = capture.stop();
        seen.open_with(keys);
        seen.assert_clean_within(1500);
        assert!(seen.count("esp and gre and eth and ip and tcp.port == 5000") > 0, "type={kind}: no Hello");
        for h in [a, b] {
            h.vsctl("del-port gre0");
        }
    }
}

#[test]
fn every_road() {
    let hosts = two_switches(1500);
    let udp = "udp port 4500 and udp[8:4] != 0 and udp[4:2] > 9";
    for (words, raw) in [
        ("", false),
        ("options:encapsulation=auto", false),
        ("options:encapsulation=udp", false),
        ("options:ipsec_encapsulation=yes", false),
        ("options:encapsulation=esp", true),
    ] {
        let capture = on_the_wire(&hosts);
        let words = format!("type=gre options:psk={PSK} {words}");
        tunnels(&hosts, REMOTES, [&words, &words]);
        let seen = crossed(&hosts, capture);
        seen.assert_clean_within(1500);
        let counts = (seen.outer("ip proto 50"), seen.outer(udp));
        assert_eq!((counts.0 > 0, counts.1 > 0), (raw, !raw), "{words}: {counts:?}");
        let status = hosts[0].get("interface", "gre0", "status:ipsec_encapsulation");
        assert_eq!(status, if raw { "esp" } else { "udp" }, "{words}");
    }
    // one side forces it, the other leaves it open
    let capture = on_the_wire(&hosts);
    let words = format!("type=gre options:psk={PSK}");
    tunnels(&hosts, REMOTES, [&format!("{words} options:ipsec_encapsulation=yes"), &words]);
    let seen = crossed(&hosts, capture);
    seen.assert_clean_within(1500);
    assert_eq!(seen.outer("ip proto 50"), 0);
}

#[test]
fn over_ipv6() {
    let hosts = two_switches(1500);
    for encapsulation in ["esp", "udp"] {
        let capture = on_the_wire(&hosts);
        let words = format!("type=gre options:psk={PSK} options:encapsulation={encapsulation}");
        tunnels(&hosts, [UNDERLAY6[1], UNDERLAY6[0]], [&words, &words]);
        let seen = crossed(&hosts, capture);
        seen.assert_clean_within(1500);
        let raw = seen.outer("ip6 proto 50");
        assert_eq!(raw > 0, encapsulation == "esp", "{encapsulation}: {raw} of protocol 50");
    }
}

/// Whose name, key and certificate the host goes by.
#[track_caller]
fn goes_by(h: &Host, own: &Pair) {
    h.vsctl(&format!(
        "set Open_vSwitch . other_config:certificate={} other_config:private_key={}",
        own.cert.display(),
        own.key.display()
    ));
}

#[test]
fn certificates() {
    let hosts = two_switches(1500);
    let [a, b] = &hosts;
    let pki = Pki::new();
    let ca = pki.authority("ca");
    for (ka, kb) in Kind::ALL.into_iter().zip(Kind::ALL.into_iter().cycle().skip(1)) {
        // each signed its own, and is known by it
        let own = [pki.self_signed("a", ka), pki.self_signed("b", kb)];
        let capture = on_the_wire(&hosts);
        for (h, own) in [a, b].into_iter().zip(&own) {
            h.vsctl("clear Open_vSwitch . other_config");
            goes_by(h, own);
        }
        let pinned = [1, 0].map(|i: usize| format!("type=gre options:remote_cert={}", own[i].cert.display()));
        tunnels(&hosts, REMOTES, [&pinned[0], &pinned[1]]);
        crossed(&hosts, capture).assert_clean_within(1500);

        // one authority signed both, and names tell who is who
        let own = [pki.issue(&ca, "a", ka), pki.issue(&ca, "b", kb)];
        let capture = on_the_wire(&hosts);
        for (h, own) in [a, b].into_iter().zip(&own) {
            goes_by(h, own);
            h.vsctl(&format!("set Open_vSwitch . other_config:ca_cert={}", ca.cert.display()));
        }
        let named = ["type=gre options:remote_name=b.test", "type=gre options:remote_name=a.test"];
        tunnels(&hosts, REMOTES, named);
        crossed(&hosts, capture).assert_clean_within(1500);
        assert_eq!(a.get("interface", "gre0", "status:ipsec_peer"), "b.test");
    }
}

/// The words of OVS 2.6 and older: the peer's certificate stands in the row.
#[test]
fn certificates_in_the_words_of_then() {
    let hosts = two_switches(1500);
    let [a, b] = &hosts;
    let pki = Pki::new();
    let own = [pki.self_signed("a", Kind::Rsa), pki.self_signed("b", Kind::Rsa)];
    let capture = on_the_wire(&hosts);
    for (i, h) in [a, b].into_iter().enumerate() {
        let (mine, theirs) = (&own[i], &own[1 - i]);
        let mut c = h.tool("ovs-vsctl");
        c.args("add-port br0 gre0 -- set interface gre0 type=ipsec_gre".split(' '))
            .arg(format!("options:remote_ip={}", REMOTES[i]))
            .arg(format!("options:peer_cert=\"{}\"", theirs.cert_pem().replace('\n', "\\n")))
            .arg(format!("options:certificate={}", mine.cert.display()))
            .arg(format!("options:private_key={}", mine.key.display()));
        harness::cli::run(&mut c);
    }
    crossed(&hosts, capture).assert_clean_within(1500);
}

/// Certificates of `underpass pki`, by its own advice.
#[test]
fn certificates_of_our_own_making() {
    let hosts = two_switches(1500);
    let [a, b] = &hosts;
    let dir = tempfile::tempdir().unwrap();
    let at = |file: &str| dir.path().join(file).display().to_string();
    let binary = harness::daemon::underpass();
    let pki = |words: &str| {
        let mut c = std::process::Command::new(&binary);
        harness::cli::run(c.arg("pki").args(words.split(' ')).args(["--dir", &at("")]))
    };
    pki("init");
    for (h, name, other) in [(a, "hosta", "hostb"), (b, "hostb", "hosta")] {
        pki(&format!("host {name}"));
        h.vsctl(&format!(
            "set Open_vSwitch . other_config:ca_cert={} other_config:certificate={} other_config:private_key={}",
            at("ca.pem"),
            at(&format!("{name}.pem")),
            at(&format!("{name}.key"))
        ));
        h.vsctl(&format!(
            "add-port br0 gre0 -- set interface gre0 type=gre options:remote_ip={} options:remote_name={other}",
            if name == "hosta" { UNDERLAY[1] } else { UNDERLAY[0] }
        ));
    }
    reaches(a, &b.docker0());
}

/// Waits for an error of hA's gre0 that has all these words in it, whatever their case.
#[track_caller]
fn complains(h: &Host, words: &[&str]) {
    let mut error = String::new();
    let start = std::time::Instant::now();
    while start.elapsed() < harness::cli::LATEST {
        error = h.get("interface", "gre0", "error").to_lowercase();
        if words.iter().all(|w| error.contains(&w.to_lowercase())) {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    panic!("error {error:?} lacks some of {words:?}\n{}", h.log());
}

/// The tunnel came up, and nothing is said against it any more.
#[track_caller]
fn content(hosts: &[Host; 2]) {
    reaches(&hosts[0], &hosts[1].docker0());
    for h in hosts {
        h.wait_for("interface", "gre0", "error", "[]");
        h.wait_for("interface", "gre0", "status:ipsec", "up");
    }
}

#[test]
fn what_is_wrong_is_said() {
    let hosts = two_switches(1500);
    let [a, b] = &hosts;
    let pki = Pki::new();
    let (ca, other) = (pki.authority("ca"), pki.authority("other"));
    let capture = on_the_wire(&hosts);

    // a key that only one of them has, on both sides
    let with = |psk: &str| format!("type=gre options:psk={psk}");
    tunnels(&hosts, REMOTES, [&with("wrong"), &with(PSK)]);
    complains(a, &["gre0", UNDERLAY[1], "psk"]);
    complains(b, &["gre0", UNDERLAY[0], "psk"]);
    a.vsctl(&format!("set interface gre0 options:psk={PSK}"));
    content(&hosts);

    // certificates of another authority, past their time, with another name, revoked
    let certificates = |own: &Pair| {
        goes_by(a, own);
        a.vsctl(&format!("set Open_vSwitch . other_config:ca_cert={}", ca.cert.display()));
    };
    let good = pki.issue(&ca, "a", Kind::P256);
    let theirs = pki.issue(&ca, "b", Kind::P256);
    goes_by(b, &theirs);
    b.vsctl(&format!("set Open_vSwitch . other_config:ca_cert={}", ca.cert.display()));
    let named = ["type=gre options:remote_name=b.test", "type=gre options:remote_name=a.test"];

    certificates(&pki.issue(&other, "a", Kind::P256));
    tunnels(&hosts, REMOTES, named);
    complains(b, &["gre0", UNDERLAY[0], "CA"]);
    certificates(&good);
    content(&hosts);

    certificates(&pki.issue_expired(&ca, "a", Kind::Rsa));
    tunnels(&hosts, REMOTES, named);
    complains(b, &["gre0", "a.test", "expired", "2021-01-02"]);
    certificates(&good);
    content(&hosts);

    certificates(&pki.issue(&ca, "c", Kind::P256));
    tunnels(&hosts, REMOTES, named);
    complains(b, &["gre0", "c.test", "a.test"]);
    certificates(&good);
    content(&hosts);

    let revoked = pki.issue(&ca, "a", Kind::P384);
    b.vsctl(&format!("set Open_vSwitch . other_config:crl={}", pki.revoke(&ca, &revoked).display()));
    certificates(&revoked);
    tunnels(&hosts, REMOTES, named);
    complains(b, &["gre0", "a.test", "revoked"]);
    certificates(&good);
    content(&hosts);

    capture.stop().assert_protected();
}

/// Keys are shown nowhere, unless they are asked for.
#[test]
fn secrets_are_masked() {
    let hosts = two_switches(1500);
    let [a, b] = &hosts;
    let words = format!("type=ipsec_gre options:psk={PSK}");
    tunnels(&hosts, REMOTES, [&words, &words]);
    content(&hosts);
    a.appctl("vlog/set dbg");
    b.appctl("ipsec/rekey gre0");
    traffic::ping(a, &b.docker0(), 3);

    let show = a.appctl("-t ovs-monitor-ipsec tunnels/show");
    for line in [
        "Interface name: gre0 v1 (CONFIGURED)",
        "  Tunnel Type:    gre",
        "  Local IP:       %defaultroute",
        &format!("  Remote IP:      {}", UNDERLAY[1]),
        "  Address Family: IPv4",
        "  SKB mark:       None",
        "  CA cert:        None",
        "  Custom Options: {}",
    ] {
        assert!(show.lines().any(|l| l == line), "no line {line:?} in\n{show}");
    }
    let psk = show.lines().find_map(|l| l.strip_prefix("  PSK:")).map(str::trim);
    assert!(psk.is_some_and(|p| !p.is_empty() && p != "None"), "{show}");
    let status = a.appctl("ipsec/status gre0");
    for part in ["State:", "up", "AES_GCM_16-256", "pre-shared key", UNDERLAY[1], "Rekey:"] {
        assert!(status.contains(part), "no {part:?} in\n{status}");
    }
    let keys = Keys::export(a);
    for file in ["esp_sa", "ikev2_decryption_table"] {
        let mode = keys.dir().join(file).metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    assert!(keys.esp().len() >= 2 && !keys.ike().is_empty(), "{keys:?}");

    let all_keys: Vec<String> =
        keys.esp().iter().map(|l| l.split('"').nth(11).unwrap()[2..].to_owned()).collect();
    let log = std::fs::read_to_string(a.rundir().join("log")).unwrap();
    assert!(log.contains("exported"), "no word of the export in the log");
    for (place, text) in [("tunnels/show", &show), ("ipsec/status", &status), ("the log", &log)] {
        assert!(!text.contains(PSK), "{place} has the PSK");
        for key in &all_keys {
            assert!(!text.to_lowercase().contains(&key.to_lowercase()), "{place} has a key of ESP");
        }
    }
}

#[test]
fn a_key_in_a_file() {
    let hosts = two_switches(1500);
    let [a, b] = &hosts;
    let file = a.rundir().join("psk");
    std::fs::write(&file, format!("{PSK}\n")).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let words = format!("type=gre options:psk_file={}", file.display());
    tunnels(&hosts, REMOTES, [&words, &format!("type=gre options:psk={PSK}")]);
    reaches(a, &b.docker0());
    assert!(!a.vsctl("list interface gre0").contains(PSK));
    a.vsctl(&format!("set interface gre0 options:psk_file={}", a.rundir().join("absent").display()));
    complains(a, &["gre0", "absent", "No such file"]);
    a.vsctl(&format!("set interface gre0 options:psk_file={}", file.display()));
    content(&hosts);
}

/// Tunnels between two hosts share their SAs, and must ask for the same.
/// ```text
///   [ hA  br0 ─ gre0 key 1, br1 ─ gre1 key 2 ] ═ one pair of SAs ═ [ hB ]
/// ```
#[test]
fn several_tunnels_to_one_host() {
    let hosts = two_switches(1500);
    for (h, remote) in hosts.iter().zip(REMOTES) {
        h.vsctl("add-br br1");
        h.ns.sh(&format!("ip addr add 10.1.{}.1/16 dev br1; ip link set br1 up", h.subnet));
        for (bridge, port, key) in [("br0", "gre0", 1), ("br1", "gre1", 2)] {
            h.vsctl(&format!(
                "add-port {bridge} {port} -- set interface {port} type=gre options:remote_ip={remote} options:psk={PSK} options:key={key}"
            ));
        }
    }
    let [a, b] = &hosts;
    let capture = Capture::wire([a, b], "u0", "");
    reaches(a, &b.docker0());
    reaches(a, "10.1.42.1");
    traffic::ping(b, "10.1.11.1", 3);
    // where both have begun at once the other one goes soon
    poll("one IKE SA", || (a.appctl("ipsec/status").matches("IKE SA ").count() == 1).then_some(()));
    // one that asks for something else is refused, and harms nobody
    a.try_vsctl(&format!(
        "add-port br1 gre2 -- set interface gre2 type=gre options:remote_ip={} options:key=3 options:psk=other",
        UNDERLAY[1]
    ));
    let error = a.get("interface", "gre2", "error");
    assert!(error.contains("gre2") && error.contains("gre0"), "{error}");
    // nor does one that asks for no protection carry anything
    a.vsctl(&format!(
        "set interface gre2 options={{}} -- set interface gre2 type=gre options:remote_ip={} options:key=4",
        UNDERLAY[1]
    ));
    traffic::ping(a, &b.docker0(), 3);
    capture.stop().assert_no_repeats();
}

/// A host between two others, each with a key of its own.
#[test]
fn a_key_for_each_peer() {
    let mut hosts = harness::topology::chain_of_switches();
    for h in &mut hosts {
        h.start();
        h.overlay();
    }
    let [a, b, c] = &hosts;
    let captures = [Capture::start(b, "u0", ""), Capture::start(b, "u1", "")];
    for (h, port, remote, psk) in [
        (a, "gre0", "192.0.2.2", "left"),
        (b, "gre0", "192.0.2.1", "left"),
        (b, "gre1", "198.51.100.2", "right"),
        (c, "gre0", "198.51.100.1", "right"),
    ] {
        h.vsctl(&format!(
            "add-port br0 {port} -- set interface {port} type=ipsec_gre options:remote_ip={remote} options:psk={psk}"
        ));
    }
    reaches(a, &b.docker0());
    reaches(b, &c.docker0());
    for capture in captures {
        capture.stop().assert_protected();
    }
}

/// `underlay-io=device` at both ends: ESP in trains all the way, rekeyed meanwhile, two tunnels by one SA.
#[test]
fn esp_by_trains() {
    let mut hosts = two_switches(1500);
    let [a, b] = &hosts;
    for h in &hosts {
        h.vsctl("set Open_vSwitch . other_config:underlay-io=device");
    }
    let words = format!("type=ipsec_gre options:psk={PSK} options:encapsulation=esp");
    tunnels(&hosts, REMOTES, [&format!("{words} options:key=1"); 2]);
    for (h, remote) in hosts.iter().zip(REMOTES) {
        h.vsctl("add-br br1");
        h.ns.sh(&format!("ip addr add 10.1.{}.1/16 dev br1; ip link set br1 up", h.subnet));
        h.vsctl(&format!(
            "add-port br1 gre1 -- set interface gre1 options:remote_ip={remote} {words} options:key=2"
        ));
    }
    reaches(a, &b.docker0());
    reaches(a, "10.1.42.1");
    for h in &hosts {
        for what in ["u0: ESP is received in trains, by XDP", "leaves in trains, by u0"] {
            poll(what, || h.log().contains(what).then_some(()));
        }
    }
    let stream = Sequence::start(a, b, "10.1.42.1", 4000, 1200, 1000);
    traffic::tcp(a, b, &b.docker0(), 50_000_000);
    a.appctl("ipsec/rekey gre0 child");
    traffic::tcp(b, a, &a.docker0(), 50_000_000);
    let stream = stream.finish();
    assert_eq!((stream.lost, stream.duplicates, stream.corrupt), (0, 0, 0), "{stream:?}");
    for h in &hosts {
        for event in ["esp_icv", "esp_malformed", "esp_replayed", "esp_selector"] {
            assert_eq!(h.count(event), 0, "{event}");
        }
    }
    let attached = |h: &Host| h.ns.sh("ip -d link show dev u0").contains("prog/xdp");
    assert!(attached(a));
    let [a, _] = &mut hosts;
    a.kill9();
    poll("XDP to be off u0", || (!attached(a)).then_some(()));
    assert_eq!(a.ns.links(), ["u0"]);
}
