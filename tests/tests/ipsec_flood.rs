//! A flood of IKE requests from nowhere: tunnels lose nothing, memory stays bounded, a true peer still gets in.

use std::time::Duration;

use harness::topology::{UNDERLAY, chain_of_switches, reaches};
use harness::traffic::{self, Sequence};
use harness::{Capture, Host, cli, inject};

const PSK: &str = "thisisnotagoodpsk";

/// Resident memory in KiB.
fn memory(h: &Host) -> u64 {
    let pid = h.daemon.as_ref().unwrap().pid();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap();
    line.trim_end_matches("kB").trim().parse().unwrap()
}

/// From addresses that nobody is known by, and from the very address of the peer that is to come. hB only answers.
/// ```text
///   [ hA, and the flood ] ── tunnel with a stream ── [ hB ] ── a peer that comes during the flood ── [ hC ]
/// ```
#[test]
fn spoofed_requests() {
    let mut hosts = chain_of_switches();
    for h in &mut hosts {
        h.start();
        h.overlay();
    }
    let [a, b, c] = &hosts;
    // what hB answers to spoofed addresses leaves by the wire that it came from
    b.ns.sh("ip route add 198.18.0.0/15 via 192.0.2.1");
    a.ns.sh("ip route add blackhole 198.18.0.0/15; ip route add 198.51.100.0/24 via 192.0.2.2");
    let capture = Capture::start(a, "u0", "udp port 500");
    b.only_answers(true);
    a.gre("gre0", UNDERLAY[1], &format!("options:psk={PSK}"));
    b.gre("gre0", UNDERLAY[0], &format!("options:psk={PSK}"));
    reaches(a, &b.docker0());
    let requests = capture.stop();
    // an honest IKE_SA_INIT request to hB: the responder's SPI is 0 in it
    let honest = requests.iter().find(|p| {
        p.dst.to_string() == UNDERLAY[1] && p.ike().is_some_and(|m| m.len() > 100 && m[8..16] == [0; 8])
    });
    let honest = honest.expect("hA's IKE_SA_INIT request");
    let before = memory(b);
    for (sources, destination, device) in
        [("198.18.0.0/15", [192, 0, 2, 2], "u0"), ("198.51.100.2/32", [198, 51, 100, 1], "u1")]
    {
        let mut request = honest.clone();
        request.bytes[16..20].copy_from_slice(&destination);
        let answers = Capture::start(b, device, &format!("udp src port 500 and dst net {sources}"));
        let (seconds, rate) = (8, 10_000);
        let stream = Sequence::start(a, b, &b.docker0(), 2000 * seconds, 800, 2000);
        b.gre("gre1", "198.51.100.2", &format!("options:psk={PSK}"));
        let mut flood = inject::flood(a, &request, rate * seconds, rate, sources);
        std::thread::sleep(Duration::from_secs(2));
        let began = std::time::Instant::now();
        c.gre("gre0", "198.51.100.1", &format!("options:psk={PSK}"));
        reaches(b, &c.docker0());
        let came_in = began.elapsed();
        assert!(flood.try_wait().unwrap().is_none(), "{sources}: the flood ended before the peer came in");
        traffic::ping(b, &c.docker0(), 3);
        // keys of others are replaced as ever
        b.appctl("ipsec/rekey gre0 child");
        a.appctl("ipsec/rekey gre0 ike");
        assert!(cli::wait(&mut flood, Duration::from_secs(60)).expect("its end").success());
        let s = stream.finish();
        assert_eq!((s.lost, s.duplicates, s.corrupt), (0, 0, 0), "{sources}: {s:?}");
        traffic::ping(a, &b.docker0(), 3);
        let (after, answers) = (memory(b), answers.stop().outer(""));
        println!(
            "{} requests from {sources}, {answers} answers, a peer let in after {came_in:?}, {before} KiB before, {after} after",
            rate * seconds
        );
        assert!(after < before + 16 * 1024, "{sources}: {before} KiB before, {after} KiB after");
        c.vsctl("del-port gre0");
        b.vsctl("del-port gre1");
    }
}
