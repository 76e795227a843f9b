//! A protected tunnel sends nothing in the clear and takes nothing that is not its peer's own, whatever happens.

use std::process::{Child, Stdio};

use harness::inject::{self, clear_gre, flipped, truncated, with_spi};
use harness::pcap::Packet;
use harness::topology::{UNDERLAY, reaches, two_switches};
use harness::traffic::{self, Sequence};
use harness::{Capture, Host, poll};

const PSK: &str = "thisisnotagoodpsk";

/// Pings from both hosts to each other, 50 a second, until dropped: something always wants to leave.
struct Pressing(Vec<Child>);

impl Pressing {
    fn start([a, b]: &[Host; 2]) -> Pressing {
        let ping = |from: &Host, to: &Host| {
            let mut c = from.ns.bound("ping");
            c.args(["-q", "-i", "0.02", &to.docker0()]).stdin(Stdio::null()).stdout(Stdio::null());
            c.spawn().unwrap()
        };
        Pressing(vec![ping(a, b), ping(b, a)])
    }
}

impl Drop for Pressing {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Nothing crosses.
#[track_caller]
fn closed(a: &Host, b: &Host, why: &str) {
    let out = traffic::try_ping(a, &format!("-c4 -i0.2 -W1 {}", b.docker0()));
    assert!(!out.success(), "{why}: {out:?}");
}

#[test]
fn nothing_leaves_in_the_clear() {
    let mut hosts = two_switches(1500);
    let capture = Capture::wire([&hosts[0], &hosts[1]], "u0", "");
    let pressing = Pressing::start(&hosts);
    {
        let [a, b] = &hosts;
        a.try_vsctl("add-port br0 gre0 -- set interface gre0 type=ipsec_gre");
        closed(a, b, "no remote_ip");
        for (words, why) in [
            ("type=ipsec_gre options:remote_ip=192.0.2.2", "no proof chosen"),
            ("options:psk=\"\"", "an empty PSK"),
            ("type=gre options:psk=\"\"", "an empty PSK, in the words of today"),
            ("options:psk_file=/nonexistent -- remove interface gre0 options psk", "no such file"),
            (
                "options:remote_cert=/nonexistent -- remove interface gre0 options psk_file",
                "no certificate of ours",
            ),
            (
                "options:ipsec_encapsulation=yes -- remove interface gre0 options remote_cert",
                "only an ipsec_ word",
            ),
        ] {
            a.try_vsctl(&format!("set interface gre0 {words}"));
            closed(a, b, why);
            assert_ne!(a.get("interface", "gre0", "error"), "[]", "{why}");
        }
        a.vsctl(&format!(
            "del-port gre0 -- add-port br0 gre0 -- set interface gre0 type=ipsec_gre options:remote_ip={} options:psk={PSK}",
            UNDERLAY[1]
        ));
        closed(a, b, "the peer is not configured");
        let to_a = format!("options:remote_ip={}", UNDERLAY[0]);
        b.vsctl(&format!("add-port br0 gre0 -- set interface gre0 type=gre {to_a} options:psk=wrong"));
        closed(a, b, "wrong PSK");
        b.vsctl(&format!("set interface gre0 options:psk={PSK}"));
        reaches(a, &b.docker0());
        // PSK and certificates exclude each other: then neither counts, and above all not plain GRE
        b.vsctl("set Open_vSwitch . other_config:certificate=/etc/x.pem other_config:private_key=/etc/x.key");
        closed(a, b, "PSK and certificate");
        b.vsctl("clear Open_vSwitch . other_config");
        reaches(a, &b.docker0());
        for (h, what) in [(a, "child"), (b, "ike"), (b, "child"), (a, "ike")] {
            h.appctl(&format!("ipsec/rekey gre0 {what}"));
            traffic::ping(a, &b.docker0(), 5);
        }
        a.appctl("ipsec/reauth gre0");
        reaches(a, &b.docker0());
    }
    for dies in [0, 1, 0] {
        hosts[dies].kill9();
        std::thread::sleep(std::time::Duration::from_millis(300));
        hosts[dies].start();
        hosts[dies]
            .ns
            .sh(&format!("ip addr replace {}/16 dev br0; ip link set br0 up", hosts[dies].docker0()));
        reaches(&hosts[0], &hosts[1].docker0());
    }
    hosts[0].stop();
    drop(pressing);
    capture.stop().assert_protected();
}

/// What hB counts.
const COUNTED: [&str; 7] = [
    "gre_unprotected",
    "esp_malformed",
    "esp_no_sa",
    "esp_replayed",
    "esp_too_old",
    "esp_icv",
    "esp_selector",
];

/// Asserts that since the last call exactly these events were counted more often.
struct Counts<'a> {
    host: &'a Host,
    last: [u64; COUNTED.len()],
}

impl<'a> Counts<'a> {
    fn new(host: &'a Host) -> Counts<'a> {
        Counts { host, last: COUNTED.map(|e| host.count(e)) }
    }

    #[track_caller]
    fn rose(&mut self, what: &str, by: &[(&str, u64)]) {
        let want = |e: &str| by.iter().find(|(b, _)| *b == e).map_or(0, |(_, n)| *n);
        let mut rise = Vec::new();
        let start = std::time::Instant::now();
        while start.elapsed() < harness::cli::LATEST {
            let now = COUNTED.map(|e| self.host.count(e));
            rise = COUNTED.iter().zip(now.iter().zip(&self.last)).map(|(e, (n, l))| (*e, n - l)).collect();
            if rise.iter().all(|(e, n)| *n == want(e)) {
                self.last = now;
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        panic!("{what}: {by:?} wanted, counted {rise:?}");
    }
}

/// ESP from hA as it was on the wire, whose road to hB is cut behind the capture.
/// ```text
///   [ hA ] ──> capture ──> nft drops ESP ──> [ hB ]
/// ```
fn undelivered(hosts: &[Host; 2], count: u64) -> (Sequence, Vec<Packet>) {
    let [a, b] = hosts;
    b.ns.sh("nft add table inet cut
        nft add chain inet cut in '{ type filter hook prerouting priority -400; }'
        nft add rule inet cut in meta l4proto esp drop
        nft add rule inet cut in udp dport 4500 @th,64,32 != 0 drop");
    let capture = Capture::wire([a, b], "u0", "src host 192.0.2.1 and (ip proto 50 or udp port 4500)");
    let stream = Sequence::start(a, b, &b.docker0(), count, 500, 2000);
    std::thread::sleep(std::time::Duration::from_millis(count / 2 + 1500));
    let packets = capture.stop().iter().filter(|p| p.esp().is_some()).map(|p| inject::again(&p)).collect();
    b.ns.sh("nft delete table inet cut");
    (stream, packets)
}

#[test]
fn only_what_the_peer_sealed_comes_in_and_only_once() {
    let hosts = two_switches(1500);
    let [a, b] = &hosts;
    for encapsulation in ["esp", "udp"] {
        for (h, remote) in [(a, UNDERLAY[1]), (b, UNDERLAY[0])] {
            h.vsctl("--if-exists del-port gre0");
            h.gre("gre0", remote, &format!("options:psk={PSK} options:encapsulation={encapsulation}"));
        }
        reaches(a, &b.docker0());
        // both know each other's address: nothing but the stream is sent below
        for (h, peer, dev) in [(a, b, "br0"), (b, a, "br0")] {
            let mac = peer.ns.sh("ip -o link show br0 | sed 's/.*link.ether \\([^ ]*\\) .*/\\1/'");
            h.ns.sh(&format!("ip neigh replace {} lladdr {mac} nud permanent dev {dev}", peer.docker0()));
        }
        let (stream, packets) = undelivered(&hosts, 300);
        // the stream's own packets, and behind them those that end it
        assert!(packets.len() >= 305, "{} packets, {encapsulation}", packets.len());
        let longest = packets.iter().map(|p| p.bytes.len()).max();
        let (body, last): (Vec<&Packet>, Vec<&Packet>) =
            packets.iter().partition(|p| Some(p.bytes.len()) == longest);
        assert_eq!(body.len(), 300);
        let mut counts = Counts::new(b);

        // not hA's doing, or not any more
        let sample = body[0];
        let n = 8;
        inject::send(a, &vec![clear_gre(sample, &[0xff; 60]); n]);
        counts.rose("GRE in the clear", &[("gre_unprotected", n as u64)]);
        inject::send(a, &vec![with_spi(sample, 0x00ff_00ff); n]);
        counts.rose("an SPI that is nobody's", &[("esp_no_sa", n as u64)]);
        let length = sample.bytes.len() - sample.esp_at().unwrap();
        let flips = [4, 7, 8, 15, 16, 40, length - 16, length - 1].map(|at| flipped(sample, at));
        inject::send(a, &flips);
        counts.rose("one bit changed", &[("esp_icv", flips.len() as u64)]);
        // shorter than SPI, number, IV, trailer and ICV can be; then whole in form, but with another ICV
        let udp = if encapsulation == "udp" { 8 } else { 0 };
        let shorts: Vec<Packet> = [9, 15, 16, 24, 32, 33].map(|left| truncated(sample, udp + left)).into();
        inject::send(a, &shorts);
        counts.rose("cut short", &[("esp_malformed", shorts.len() as u64)]);
        let cut: Vec<Packet> = [36, 64, length - 4].map(|left| truncated(sample, udp + left)).into();
        inject::send(a, &cut);
        counts.rose("cut to another length", &[("esp_icv", cut.len() as u64)]);

        // in reverse, which is as good as in order; then once more, which is not; forged ones before and after
        inject::send(a, body.iter().rev().copied());
        counts.rose("reordered", &[]);
        inject::send(a, body.iter().copied());
        counts.rose("replayed", &[("esp_replayed", 300)]);
        let forged: Vec<Packet> = body.iter().take(50).map(|p| flipped(p, 20)).collect();
        inject::send(a, &forged);
        poll("what was forged after the true ones came to be counted", || {
            let either = b.count("esp_icv") + b.count("esp_replayed") - counts.last[3] - counts.last[5];
            (either == 50).then_some(())
        });
        inject::send(a, last);
        let s = stream.finish();
        assert_eq!((s.received, s.lost, s.duplicates, s.corrupt), (300, 0, 0, 0), "{encapsulation}: {s:?}");
        // and the tunnel is as it was
        traffic::ping(a, &b.docker0(), 5);
    }
}
