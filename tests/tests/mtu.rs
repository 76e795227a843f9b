//! Full-size frames over an underlay with no room for them: nothing is lost in silence, nothing is fragmented outside.

use harness::topology::{UNDERLAY, reaches, two_hosts};
use harness::{Capture, Container, Host, Keys, poll, traffic};

/// Bytes that GRE over IPv4 takes from the underlay's MTU: outer IPv4 20, GRE 4, inner Ethernet 14.
const OVERHEAD: u32 = 38;

/// How the tunnel travels.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Road {
    Gre,
    GreInUdp,
    Esp,
    EspInUdp,
}

impl Road {
    fn options(self) -> &'static str {
        match self {
            Road::Gre => "",
            Road::GreInUdp => "options:encapsulation=udp",
            Road::Esp => "options:psk=thisisnotagoodpsk options:encapsulation=esp",
            Road::EspInUdp => "options:psk=thisisnotagoodpsk options:encapsulation=udp",
        }
    }

    /// The longest inner IP packet. In ESP what is sealed ends with two bytes at a multiple of four; around it are SPI,
    /// sequence number, IV and ICV.
    fn inner(self, mtu: u32) -> u32 {
        let sealed = |outer: u32| (mtu - outer - 8 - 8 - 16) / 4 * 4 - 2 - 4 - 14;
        match self {
            Road::Gre => mtu - OVERHEAD,
            Road::GreInUdp => mtu - OVERHEAD - 8,
            Road::Esp => sealed(20),
            Road::EspInUdp => sealed(20 + 8),
        }
    }
}

/// ```text
///   [ container mtu 1500 ─ docker0 hA ]── mtu 1500, 1400 or 9000 ──[ hB docker0 ─ container mtu 1500 ]
/// ```
fn joined(mtu: u32, road: Road) -> ([Host; 2], [Container; 2]) {
    let [mut a, mut b] = two_hosts(mtu);
    for (h, remote) in [(&mut a, UNDERLAY[1]), (&mut b, UNDERLAY[0])] {
        h.start();
        h.join(&[]);
        h.gre("gre0", remote, road.options());
    }
    let containers = [a.container(), b.container()];
    for (c, address) in containers.iter().zip(["fd00::11:2", "fd00::42:2"]) {
        c.sh(&format!(
            "sysctl -qw net.ipv6.conf.eth0.disable_ipv6=0; ip -6 addr add {address}/64 dev eth0 nodad"
        ));
    }
    reaches(&containers[0], &containers[1].ip);
    reaches(&containers[0], "fd00::42:2");
    ([a, b], containers)
}

#[test]
fn underlay_of_1500() {
    everything_passes(1500, Road::Gre);
}

#[test]
fn underlay_of_1400() {
    everything_passes(1400, Road::Gre);
}

#[test]
fn underlay_of_9000() {
    everything_passes(9000, Road::Gre);
}

#[test]
fn gre_in_udp_over_an_underlay_of_1500() {
    everything_passes(1500, Road::GreInUdp);
}

#[test]
fn esp_over_an_underlay_of_1500() {
    everything_passes(1500, Road::Esp);
}

#[test]
fn esp_in_udp_over_an_underlay_of_1401() {
    everything_passes(1401, Road::EspInUdp);
}

fn everything_passes(mtu: u32, road: Road) {
    let ([a, b], [ca, cb]) = joined(mtu, road);
    let inner = road.inner(mtu);
    let capture = match road {
        Road::Gre => Capture::wire([&a, &b], "u0", "ip proto 47"),
        Road::GreInUdp => Capture::wire([&a, &b], "u0", "ip proto 47 or udp dst port 4754"),
        _ => Capture::wire([&a, &b], "u0", "ip proto 47 or ip proto 50 or udp port 4500"),
    };

    // TCP both ways, every byte checked, and at speed
    for (from, to, ip) in
        [(&ca, &cb, &*cb.ip), (&cb, &ca, &*ca.ip), (&ca, &cb, "fd00::42:2"), (&cb, &ca, "fd00::11:2")]
    {
        traffic::tcp(from, to, ip, 10_000_000);
    }
    for args in ["-n 20M", "-n 20M -R"] {
        let report = traffic::iperf3(&ca, &cb, &cb.ip, args);
        assert!(traffic::mbit(&report) > 1.0, "{report}");
    }

    // UDP of every size. A full datagram carries DF (Linux's default): the first meet an ICMP error, and the sender
    // then fragments by itself. Longer than the container's MTU it is fragments from the start. Those that are under
    // way before the error arrives are lost; on a busy machine that may be some.
    for size in [8, 100, 1400, 1472, 1473, 4000, 20000] {
        for ip in [&*cb.ip, "fd00::42:2"] {
            let s = traffic::udp(&ca, &cb, ip, 100, size, 200);
            assert!(s.received >= 80 && s.duplicates == 0 && s.corrupt == 0, "{size} bytes to {ip}: {s:?}");
        }
    }

    // ICMP without DF: fragmented inside
    for size in [0, 56, 1200, 1434, 1435, 1472, 3000] {
        traffic::answered(&ca, 3, &format!("-M dont -i 0.1 -s {size} {}", cb.ip));
    }
    // over IPv6 nobody on the way fragments: the first answer may meet an ICMPv6 error on its way back
    let out = traffic::try_ping(&ca, "-c 5 -w 20 -i 0.1 -s 3000 fd00::42:2");
    let answers = (1..=5).filter(|n| out.stdout.contains(&format!("icmp_seq={n} "))).count();
    assert!(answers >= 4, "{out:?}");

    // ICMP with DF: answered
    ca.sh("ip route flush cache; ip -6 route flush cache");
    df_is_answered(&ca, &cb.ip, "-s 1472", inner);
    df_is_answered(&ca, "fd00::42:2", "-s 1452", inner);

    let keys = matches!(road, Road::Esp | Road::EspInUdp).then(|| Keys::export(&a));
    let mut seen = capture.stop();
    // what XDP sends no capture sees
    let unseen = road == Road::Esp && std::env::var("UNDERLAY_IO").is_ok_and(|io| io == "device");
    match keys {
        Some(_) if unseen => assert_eq!(seen.outer("ip proto 47 or ip6 proto 47"), 0, "GRE in the clear"),
        None if road == Road::GreInUdp => seen.assert_clean_in_udp(mtu),
        None => seen.assert_clean(mtu),
        Some(keys) => {
            seen.open_with(keys);
            seen.assert_clean_within(mtu);
        }
    }
    for h in [&a, &b] {
        let counted = h.appctl("coverage/show");
        for why in ["drop_malformed", "drop_no_room", "drop_underlay_tx", "gre_", "esp_"] {
            // before there is an SA, protected tunnels send nothing
            let mut lines =
                counted.lines().filter(|l| l.starts_with(why) && !l.starts_with("esp_no_outbound_sa"));
            assert_eq!(lines.next(), None, "{counted}");
        }
    }
}

/// A ping of 1500 bytes with DF gets through, or gets the answer that says how much fits.
#[track_caller]
fn df_is_answered(from: &Container, ip: &str, size: &str, inner: u32) {
    let fits = inner.min(1500);
    if fits == 1500 {
        traffic::answered(from, 3, &format!("-M do -i 0.2 {size} {ip}"));
    } else {
        let out = traffic::try_ping(from, &format!("-M do -c 3 -i 0.2 -W 2 {size} {ip}"));
        let said = format!("{}{}", out.stdout, out.stderr);
        let answer = [format!("mtu = {fits}"), format!("mtu={fits}"), format!("mtu: {fits}")];
        assert!(answer.iter().any(|a| said.contains(a)), "no answer that {fits} bytes fit: {out:?}");
        assert!(!out.stdout.contains(" 3 received"), "{out:?}");
    }
}

/// The underlay shrinks and grows under a running TCP stream.
#[test]
fn mtu_changes_while_running() {
    let ([a, b], [ca, cb]) = joined(1500, Road::Gre);
    let server = cb.bound("iperf3").args(["-s", "-1"]).stdout(std::process::Stdio::null()).spawn().unwrap();
    traffic::listening(&cb, "tcp", 5201);
    let mut client = ca
        .bound("iperf3")
        .args(["-J", "-t", "300", "-c", &cb.ip])
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let received = || -> u64 {
        let link: serde_json::Value = serde_json::from_str(&cb.sh("ip -s -j link show eth0")).unwrap();
        link[0]["stats64"]["rx"]["bytes"].as_u64().unwrap()
    };
    for mtu in [1400, 1500, 1300, 9000, 1500] {
        for h in [&a, &b] {
            h.ns.sh(&format!("ip link set u0 mtu {mtu}"));
        }
        let start = received();
        poll(&format!("TCP to go on at mtu {mtu}"), || (received() > start + 1_000_000).then_some(()));
        // the stream fills every queue on the way, so one of them may be lost
        let args = format!("-M dont -c1 -W2 -s 1472 {}", cb.ip);
        poll(&format!("a full-size ping at mtu {mtu}"), || {
            traffic::try_ping(&ca, &args).success().then_some(())
        });
    }
    assert!(client.try_wait().unwrap().is_none(), "the stream has broken off");
    for mut end in [client, server] {
        let _ = end.kill();
        let _ = end.wait();
    }
    df_is_answered(&ca, &cb.ip, "-s 1472", 1500 - OVERHEAD);
}

/// A router on the way has a smaller link: its ICMP errors reach the sender's kernel, and the tunnel follows.
/// ```text
///   [ container ─ docker0 hA ]── 1500 ──[ router ]── 1400 ──[ hB docker0 ─ container ]
/// ```
#[test]
fn a_smaller_link_further_on() {
    let mut a = Host::with_engine("hA", 11);
    let mut b = Host::with_engine("hB", 42);
    let r = harness::Netns::new("router");
    for (h, dev, net) in [(&a, "ra", "192.0.2"), (&b, "rb", "198.51.100")] {
        h.ns.veth("u0", &r, dev, if dev == "ra" { 1500 } else { 1400 });
        h.ns.nic("u0");
        r.nic(dev);
        h.ns.sh(&format!("ip addr add {net}.1/24 dev u0; ip route add default via {net}.254"));
        r.sh(&format!("ip addr add {net}.254/24 dev {dev}"));
    }
    r.sh("sysctl -qw net.ipv4.ip_forward=1");
    for (h, remote) in [(&mut a, "198.51.100.1"), (&mut b, "192.0.2.1")] {
        h.start();
        h.join(&[remote]);
    }
    let (ca, cb) = (a.container(), b.container());
    reaches(&ca, &cb.ip);
    traffic::tcp(&ca, &cb, &cb.ip, 10_000_000);
    traffic::tcp(&cb, &ca, &ca.ip, 10_000_000);
    // what fits hA's own link but not the router's: the router says so, to hA's kernel, and the answers follow
    poll("the path's MTU to be known", || {
        ca.sh("ip route flush cache");
        let out = traffic::try_ping(&ca, &format!("-M do -c 1 -W 1 -s 1434 {}", cb.ip));
        out.stdout.contains("mtu = 1362").then_some(())
    });
    ca.sh("ip route flush cache");
    df_is_answered(&ca, &cb.ip, "-s 1472", 1400 - OVERHEAD);
    let capture = Capture::wire([&a, &b], "u0", "ip proto 47");
    traffic::tcp(&ca, &cb, &cb.ip, 1_000_000);
    let s = traffic::udp(&ca, &cb, &cb.ip, 100, 1472, 200);
    assert!(s.received >= 80, "{s:?}");
    capture.stop().assert_clean(1400);
}
