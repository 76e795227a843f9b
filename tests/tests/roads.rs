//! Every road that a tunnel can travel, each forced by option, under a mixed load in both directions at once: numbered UDP
//! streams of several sizes, and TCP whose every byte is known. Inside a flow nothing comes twice or in another order, and
//! nothing is lost but what the kernel says it had no room for.

use std::time::{Duration, Instant};

use harness::topology::{UNDERLAY, reaches, two_hosts};
use harness::traffic::{self, Flow, Sequence, Transfer};
use harness::{Container, Host};

/// A road: its name, what a tunnel's row says, and `other_config:underlay-io`.
type Road = (&'static str, &'static str, &'static str);

const ROADS: [Road; 6] = [
    ("gre-raw", "", "raw"),
    ("gre-device", "", "device"),
    ("gre-udp", "options:encapsulation=udp", "raw"),
    ("esp-raw", "options:psk=thisisnotagoodpsk options:encapsulation=esp", "raw"),
    ("esp-device", "options:psk=thisisnotagoodpsk options:encapsulation=esp", "device"),
    ("esp-udp", "options:psk=thisisnotagoodpsk options:encapsulation=udp", "raw"),
];

/// With one worker; with two; and with so many that docker0 and the underlay are another one's each.
const WORKERS: [&str; 3] = ["1", "2", "3"];

/// UDP streams each way: payloads, and datagrams a second. The longest frames fit each road as they are, but for the last
/// stream's: its datagrams are fragments from the start, and these are cut once more.
const STREAMS: [((usize, usize), u64); 5] =
    [((8, 8), 2000), ((512, 512), 500), ((1380, 1380), 500), ((8, 1380), 1000), ((3000, 3000), 50)];

/// ```text
///   [ container ─ docker0 ═ br0 ─ gre0  hA ] ── the road ── [ hB  gre0 ─ br0 ═ docker0 ─ container ]
/// ```
/// ROADS_SECONDS is how long there is traffic in all, ROADS which roads it takes (all).
#[test]
fn mixed_load() {
    let chosen = std::env::var("ROADS").unwrap_or_default();
    let chosen: Vec<&str> = chosen.split([',', ' ']).filter(|name| !name.is_empty()).collect();
    let roads = ROADS.iter().filter(|(name, ..)| chosen.is_empty() || chosen.contains(name));
    let roads: Vec<&Road> = roads.collect();
    assert!(!roads.is_empty(), "no such road: {chosen:?}");
    let seconds = std::env::var("ROADS_SECONDS").ok().map_or(36, |s| s.parse().expect("a number of seconds"));
    let each = (seconds / (roads.len() * WORKERS.len()) as u64).max(1);

    let mut hosts = two_hosts(1500);
    for (host, remote) in hosts.iter_mut().zip([UNDERLAY[1], UNDERLAY[0]]) {
        host.start();
        host.join(&[remote]);
    }
    let containers = [hosts[0].container(), hosts[1].container()];
    for workers in WORKERS {
        for host in &mut hosts {
            host.stop();
            host.start_with(&["--workers", workers]);
        }
        for (name, options, io) in &roads {
            for (host, remote) in hosts.iter().zip([UNDERLAY[1], UNDERLAY[0]]) {
                host.vsctl(&format!(
                    "set Open_vSwitch . other_config:underlay-io={io} -- clear interface gre0 options \
                     -- set interface gre0 options:remote_ip={remote} {options}"
                ));
            }
            for host in &hosts {
                host.wait_for("interface", "gre0", "link_state", "up");
                host.wait_for("interface", "gre0", "error", "[]");
            }
            reaches(&containers[0], &containers[1].ip);
            reaches(&containers[1], &containers[0].ip);
            load(&format!("{name}, {workers} workers"), &hosts, &containers, each);
        }
    }
}

/// All streams both ways for that long.
#[track_caller]
fn load(what: &str, hosts: &[Host; 2], containers: &[Container; 2], seconds: u64) {
    let dropped = || {
        let hosts: u64 = hosts.iter().map(|host| traffic::dropped(host)).sum();
        hosts + containers.iter().map(|c| traffic::dropped(c)).sum::<u64>()
    };
    let [a, b] = containers;
    let (before, start) = (dropped(), Instant::now());
    let mut streams = Vec::new();
    for (from, to) in [(a, b), (b, a)] {
        for (i, (sizes, rate)) in STREAMS.iter().enumerate() {
            let flow = Flow { port: 17_100 + i as u16, sizes: *sizes, rate: *rate, count: rate * seconds };
            streams.push((flow, Sequence::flow(from, to, &to.ip, flow)));
        }
    }
    let transfers = [(a, b), (b, a)].map(|(from, to)| Transfer::lasting(from, to, &to.ip, 17_200, seconds));

    let bytes = transfers.map(Transfer::finish);
    let (mut sent, mut lost) = (0, 0);
    for (flow, stream) in streams {
        let s = stream.finish();
        assert_eq!((s.duplicates, s.reordered, s.corrupt), (0, 0, 0), "{what}: {flow:?}: {s:?}");
        sent += flow.count;
        lost += flow.count - s.received;
    }
    let dropped = dropped() - before;
    let speed = bytes.map(|n| n * 8 / 1_000_000 / seconds);
    println!(
        "{what}: {lost} of {sent} datagrams lost, {dropped} dropped by the kernel; TCP {speed:?} Mb/s; {:?}",
        start.elapsed().max(Duration::from_secs(seconds))
    );
    assert!(lost <= dropped, "{what}: {lost} of {sent} datagrams lost, and the kernel dropped {dropped}");
}
