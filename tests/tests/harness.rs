//! The harness itself: real engines, a capture, traffic and the guest, with no switch between the hosts.

use harness::topology::{Shell, UNDERLAY, behind_nat, cable, reaches, two_hosts};
use harness::{Capture, Host, Watch, cli, guest::Guest, inject, traffic};

/// ```text
///   [ container ─ docker0 hA ]  u0 ── u0  [ hB docker0 ─ container ]
/// ```
#[test]
fn engines_traffic_and_capture() {
    let [a, b] = two_hosts(1500);
    let (ca, ca2, cb) = (a.container(), a.container(), b.container());
    assert!(ca.ip.starts_with("10.0.11.") && cb.ip.starts_with("10.0.42."), "{} {}", ca.ip, cb.ip);
    assert!(
        !traffic::try_ping(&ca, &format!("-c1 -W1 {}", cb.ip)).success(),
        "nothing joins the bridges yet"
    );
    traffic::ping(&ca, &ca2.ip, 3);
    assert_eq!(traffic::hello(&ca, &ca2), "Hello");
    traffic::tcp(&ca, &ca2, &ca2.ip, 5_000_000);
    let s = traffic::udp(&ca, &ca2, &ca2.ip, 500, 1000, 5000);
    assert_eq!((s.received, s.lost, s.corrupt), (500, 0, 0), "{s:?}");
    let report = traffic::iperf3(&ca, &ca2, &ca2.ip, "-n 50M");
    assert!(traffic::mbit(&report) > 0.0);
    let capture = Capture::start(&a, "u0", "icmp");
    reaches(&a, "192.0.2.2");
    let seen = capture.stop();
    assert!(seen.outer("icmp") >= 2);
    assert!(seen.count("icmp.type == 8 and icmp.checksum.status == 1") >= 1);
}

/// ```text
///   [ hA u0 192.0.2.1 ] ── [ eth0 192.0.2.2 guest ]
/// ```
#[test]
fn guest_runs_scripts() {
    let a = Host::new("hA", 11);
    let guest = Guest::boot(&a);
    assert_eq!(guest.sh("hostname"), "guest");
    assert_eq!(guest.try_sh("echo no; false").code, 1);
    guest.sh("modprobe ip_gre && ip link add g type gretap local 192.0.2.2 remote 192.0.2.1");
}

/// ```text
///   [ hA u0 ] ── [ u0 hB ]
/// ```
#[test]
fn what_is_injected_is_seen() {
    let hosts = [Host::new("hA", 11), Host::new("hB", 42)];
    cable(&hosts, 1500);
    let [a, b] = &hosts;
    let watch = Watch::start(a, "u0");
    let wire = Capture::wire([a, b], "u0", "ip proto 50");
    let capture = Capture::start(b, "u0", "ip and not icmp");
    let esp = inject::esp(UNDERLAY[0], UNDERLAY[1], 0x1001, 7, 40);
    let forged = [inject::truncated(&esp, 12), inject::flipped(&esp, 30), inject::with_spi(&esp, 9)];
    inject::send(a, [&esp, &esp].into_iter().chain(&forged));
    inject::send(a, [&inject::clear_gre(&esp, &[0xab; 60])]);
    let seen = capture.stop();
    assert_eq!((seen.missed, seen.outer("ip proto 50"), seen.outer("ip proto 47")), (0, 5, 1));
    assert_eq!(wire.stop().iter().count(), 5);
    let (sequences, missed) = watch.stop();
    assert_eq!((sequences.packets, sequences.spis(), missed), (5, 2, 0));
    assert_eq!(sequences.repeated, (3, vec![(0x1001, 7); 3]));
    assert!(std::panic::catch_unwind(|| seen.assert_protected()).is_err());
    assert!(std::panic::catch_unwind(|| seen.assert_no_repeats()).is_err());

    // 28 bytes of IP and UDP header, then as many of an IKE header as the flood looks at
    let mut request = inject::esp(UNDERLAY[0], UNDERLAY[1], 0x01f4_01f4, 0x0030_0000, 60);
    request.bytes[9] = 17;
    let capture = Capture::start(b, "u0", "udp port 500");
    let mut flood = inject::flood(a, &request, 200, 2000, "198.18.0.0/15");
    assert!(cli::wait(&mut flood, std::time::Duration::from_secs(10)).expect("its end").success());
    let seen = capture.stop();
    assert_eq!(seen.outer("src net 198.18.0.0/15 and udp[6:2] = 0"), 200);
    let sources: std::collections::HashSet<_> = seen.iter().map(|p| p.src).collect();
    assert!(sources.len() > 150, "{} sources", sources.len());
}

/// ```text
///   [ hA 10.9.0.2 ] ── [ nat ] ── [ 192.0.2.2 hB ]
/// ```
#[test]
fn nat_gives_other_ports() {
    let ([a, b], _nat) = behind_nat();
    let capture = Capture::start(&b, "u0", "udp port 17001");
    let s = traffic::udp(&a, &b, UNDERLAY[1], 20, 100, 1000);
    assert_eq!((s.received, s.lost), (20, 0), "{s:?}");
    let seen = capture.stop();
    assert!(seen.outer("src 192.0.2.1 and udp src portrange 20000-29999") >= 20);
    assert_eq!(seen.outer("net 10.9.0.0/24"), 0);
}
