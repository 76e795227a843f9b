//! The harness itself: real engines, a capture, traffic and the guest, with no switch between the hosts.

use harness::topology::{Shell, reaches, two_hosts};
use harness::{Capture, Host, guest::Guest, traffic};

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
