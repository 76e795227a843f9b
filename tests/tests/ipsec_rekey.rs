//! Keys are replaced under load: no frame is lost to it, none comes twice, no number is used twice.

use std::process::Stdio;
use std::time::{Duration, Instant};

use harness::topology::{UNDERLAY, reaches, two_switches};
use harness::traffic::{self, Sequence};
use harness::{Host, Watch, cli, poll};

/// What would be counted if a frame were lost to a change of keys.
const LOSSES: [&str; 7] = [
    "esp_no_sa",
    "esp_no_outbound_sa",
    "esp_icv",
    "esp_replayed",
    "esp_too_old",
    "esp_selector",
    "gre_unprotected",
];

/// How long under load; REKEY_SECONDS makes it longer.
fn duration() -> Duration {
    let seconds = std::env::var("REKEY_SECONDS").ok().map_or(40, |s| s.parse().expect("a number of seconds"));
    Duration::from_secs(seconds)
}

/// How many IKE and child SAs a host has had, by their SPIs in what `ipsec/status` says.
fn spis(h: &Host, seen: &mut [std::collections::BTreeSet<String>; 2]) {
    for line in h.appctl("ipsec/status gre0").lines() {
        for (kind, seen) in ["  IKE SA ", "  Child SA "].iter().zip(&mut *seen) {
            if let Some(rest) = line.strip_prefix(kind) {
                seen.extend(rest.split(':').next().map(|spi| spi.split(' ').next().unwrap().to_owned()));
            }
        }
    }
}

/// Both hosts at the same moment.
fn at_once(hosts: &[Host; 2], command: &str) {
    let children: Vec<_> = hosts
        .iter()
        .map(|h| h.tool("ovs-appctl").args(command.split(' ')).stdin(Stdio::null()).spawn().unwrap())
        .collect();
    for mut child in children {
        assert!(cli::wait(&mut child, cli::LATEST).expect("its end").success(), "{command}");
    }
}

/// ```text
///   [ hA ] <── streams both ways, every frame numbered; then as much TCP as there is room for ──> [ hB ]
/// ```
/// Every 5 s both rekey the child SA, and every 15 s the IKE SA, at the same moment; each lifetime is shorter than that,
/// so that either may be the first anyway.
fn nothing_is_lost_to_rekeying(encapsulation: &str) {
    let hosts = two_switches(1500);
    let [a, b] = &hosts;
    for (h, remote) in [(a, UNDERLAY[1]), (b, UNDERLAY[0])] {
        h.gre(
            "gre0",
            remote,
            &format!(
                "options:psk=thisisnotagoodpsk options:encapsulation={encapsulation} options:ipsec_lifetime=5 options:ipsec_ikelifetime=15"
            ),
        );
    }
    reaches(a, &b.docker0());
    let before: Vec<[u64; 7]> = hosts.iter().map(|h| LOSSES.map(|e| h.count(e))).collect();
    let watches = [Watch::start(a, "u0"), Watch::start(b, "u0")];
    let mut seen = Default::default();
    let half = duration() / 2;

    // numbered frames, as many as get through without a loss when nothing is rekeyed
    let rate = 4000;
    let count = half.as_secs() * rate;
    let streams = [
        Sequence::start(a, b, &b.docker0(), count, 800, rate),
        Sequence::start(b, a, &a.docker0(), count, 800, rate),
    ];
    rekeys(&hosts, half, &mut seen);
    for stream in streams {
        let s = stream.finish();
        assert_eq!(
            (s.received, s.lost, s.duplicates, s.corrupt),
            (count, 0, 0, 0),
            "{encapsulation}: {s:?}\n{}\n{}",
            a.appctl("coverage/show"),
            b.appctl("coverage/show")
        );
    }

    // full load, for as long again
    let start = Instant::now();
    while let left @ 1.. = half.saturating_sub(start.elapsed()).as_secs().min(50) {
        let report = std::thread::scope(|scope| {
            let args = format!("-t {left} --bidir");
            let load = scope.spawn(move || traffic::iperf3(a, b, &b.docker0(), &args));
            rekeys(&hosts, Duration::from_secs(left), &mut seen);
            load.join().expect("iperf3")
        });
        println!("{encapsulation}: {:.0} Mbit/s while rekeying", traffic::mbit(&report));
    }

    let after: Vec<[u64; 7]> = hosts.iter().map(|h| LOSSES.map(|e| h.count(e))).collect();
    assert_eq!(before, after, "{LOSSES:?}");
    for watch in watches {
        let (sequences, missed) = watch.stop();
        println!("{} packets in {} SAs watched, {missed} missed", sequences.packets, sequences.spis());
        assert_eq!(sequences.repeated, (0, vec![]), "numbers used twice");
        assert!(sequences.spis() as u64 >= duration().as_secs() / 5, "{} SAs", sequences.spis());
    }
    let [ike, children] = seen.map(|s: std::collections::BTreeSet<String>| s.len() as u64);
    println!("{ike} IKE SAs and {children} child SAs in {:?}", duration());
    assert!(ike > duration().as_secs() / 20 && children >= duration().as_secs() / 6, "{ike}, {children}");
    // what is over has gone
    poll("no more SAs than are being replaced", || {
        let status = a.appctl("ipsec/status gre0");
        let count = |what: &str| status.matches(what).count();
        (count("  Child SA ") <= 4 && count("  IKE SA ") <= 3).then_some(())
    });
}

#[test]
fn nothing_is_lost_to_rekeying_in_ip() {
    nothing_is_lost_to_rekeying("esp");
}

#[test]
fn nothing_is_lost_to_rekeying_in_udp() {
    nothing_is_lost_to_rekeying("udp");
}

fn rekeys(hosts: &[Host; 2], time: Duration, seen: &mut [std::collections::BTreeSet<String>; 2]) {
    let start = Instant::now();
    let mut round = 0u64;
    while start.elapsed() < time {
        let due = start + Duration::from_secs(round * 5);
        while Instant::now() < due && start.elapsed() < time {
            std::thread::sleep(Duration::from_millis(250));
            spis(&hosts[0], seen);
        }
        if start.elapsed() >= time {
            break;
        }
        at_once(hosts, "ipsec/rekey gre0 child");
        if round % 3 == 1 {
            at_once(hosts, "ipsec/rekey gre0 ike");
        }
        round += 1;
    }
}
