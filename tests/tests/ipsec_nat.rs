//! A NAT between the hosts: the tunnel comes up over UDP port 4500, stays up, and finds its way when the NAT forgets.

use harness::topology::{UNDERLAY, behind_nat, reaches};
use harness::{Capture, Keys, poll, poll_within, traffic};

/// ```text
///   [ container ─ hA 10.9.0.2 ]──[ nat ]──[ 192.0.2.2 hB ─ container ]
/// ```
#[test]
fn comes_up_and_stays_up() {
    let ([mut a, mut b], nat) = behind_nat();
    for (h, remote) in [(&mut a, UNDERLAY[1]), (&mut b, UNDERLAY[0])] {
        h.start();
        h.vsctl("add-br br0");
        h.vsctl("add-port br0 docker0");
        // hB knows hA by the NAT's address
        h.vsctl(&format!(
            "add-port br0 gre0 -- set interface gre0 type=ipsec_gre options:remote_ip={remote} options:psk=thisisnotagoodpsk"
        ));
    }
    let (ca, cb) = (a.container(), b.container());
    let capture = Capture::start(&nat, "n1", "");
    reaches(&ca, &cb.ip);
    reaches(&cb, &ca.ip);
    assert_eq!(traffic::hello(&ca, &cb), "Hello");
    traffic::tcp(&cb, &ca, &ca.ip, 2_000_000);
    let keys = Keys::export(&b);
    let mut seen = capture.stop();
    seen.open_with(keys);
    seen.assert_clean_within(1500);
    assert_eq!(seen.outer("ip proto 50"), 0, "a NAT has no port to change in these");
    let changed =
        "udp src portrange 20000-29999 and src host 192.0.2.1 and udp dst port 4500 and udp[8:4] != 0";
    assert!(seen.outer(changed) > 0);
    let status = a.appctl("ipsec/status gre0");
    assert!(status.contains("NAT before us"), "{status}");
    let status = b.appctl("ipsec/status gre0");
    assert!(status.contains("NAT before the peer"), "{status}");

    // the NAT forgets what has been idle for 25 s: keepalives prevent that, as only hB sends after the pause
    let capture = Capture::start(&a, "u0", "udp port 4500 and udp[4:2] = 9");
    std::thread::sleep(std::time::Duration::from_secs(45));
    traffic::ping(&cb, &ca.ip, 3);
    assert!(capture.stop().outer("src host 10.9.0.2") >= 1, "no keepalive");

    // rekeyed from either side, through the NAT
    for (h, what) in [(&a, "child"), (&b, "child"), (&b, "ike"), (&a, "ike"), (&b, "child")] {
        h.appctl(&format!("ipsec/rekey gre0 {what}"));
        traffic::ping(&ca, &cb.ip, 5);
        traffic::ping(&cb, &ca.ip, 5);
    }

    // the NAT starts anew: other ports from now on, which hB learns from the next packet that is authentic
    nat.sh("ip link set n1 down; ip addr flush dev n1; ip addr add 192.0.2.1/24 dev n1; ip link set n1 up");
    poll_within(std::time::Duration::from_secs(30), "an answer by the NAT's new port", || {
        harness::cli::output(ca.cmd("ping").args(["-c1", "-W1", &cb.ip])).success().then_some(())
    });
    traffic::ping(&cb, &ca.ip, 3);
    let entries = nat.sh("grep 'src=10.9.0.2 .*sport=4500' /proc/net/nf_conntrack");
    let port = entries.rsplit_once("dport=").unwrap().1.split(' ').next().unwrap();
    let place = format!("192.0.2.1:{port}");
    poll(&format!("hB to know the peer at {place}"), || {
        let status = b.appctl("ipsec/status gre0");
        (status.contains(&place) && status.contains(&format!("ESP in UDP 4500-{port}"))).then_some(())
    });
    // IKE finds the way as well
    for what in ["child", "ike"] {
        let before = current(&b);
        b.appctl(&format!("ipsec/rekey gre0 {what}"));
        poll(&format!("another {what} SA"), || (current(&b) != before).then_some(()));
        traffic::ping(&cb, &ca.ip, 3);
    }
}

/// The SAs in use.
fn current(h: &harness::Host) -> Vec<String> {
    let status = h.appctl("ipsec/status gre0");
    let used = |l: &&str| l.contains(" SA ") && (l.contains("established") || l.contains("sent by"));
    status.lines().filter(used).map(|l| l.split(':').take(2).collect()).collect()
}
