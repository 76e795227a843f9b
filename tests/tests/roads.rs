//! Every road that a tunnel can travel, each forced by option, under a mixed load in both directions at once: numbered UDP
//! streams of several sizes, and TCP whose every byte is known. Inside a flow nothing comes twice or in another order. Nothing is
//! lost where there is room for all of it; beside TCP that takes all the room there is, no more than what the kernel says it
//! had none for.

use std::time::{Duration, Instant};

use harness::topology::{Shell, UNDERLAY, reaches, two_hosts, two_switches};
use harness::traffic::{self, Drops, Flow, Sequence, Stream, Transfer};
use harness::{Container, Host, poll};

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
/// ROADS_SECONDS is how long there is traffic in all, ROADS which roads it takes (all), ROADS_TCP_MBPS how much TCP there is at
/// most (as much as goes).
#[test]
fn mixed_load() {
    let chosen = std::env::var("ROADS").unwrap_or_default();
    let chosen: Vec<&str> = chosen.split([',', ' ']).filter(|name| !name.is_empty()).collect();
    let roads = ROADS.iter().filter(|(name, ..)| chosen.is_empty() || chosen.contains(name));
    let roads: Vec<&Road> = roads.collect();
    assert!(!roads.is_empty(), "no such road: {chosen:?}");
    let seconds = std::env::var("ROADS_SECONDS").ok().map_or(36, |s| s.parse().expect("a number of seconds"));
    let each = seconds / (roads.len() * WORKERS.len()) as u64;
    let mbps = std::env::var("ROADS_TCP_MBPS").ok().map(|n| n.parse().expect("megabits a second"));

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
            // for a quarter of the time, of a few seconds, UDP has the road to itself
            let alone = (each / 4).clamp(1, 5);
            load(&format!("{name}, {workers} workers"), &hosts, &containers, alone, Tcp::None);
            let tcp = mbps.map_or(Tcp::Unbounded, Tcp::Mbps);
            load(
                &format!("{name}, {workers} workers"),
                &hosts,
                &containers,
                each.saturating_sub(alone).max(1),
                tcp,
            );
        }
    }
}

/// How much TCP there is beside the streams, each way.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Tcp {
    None,
    Mbps(u64),
    Unbounded,
}

/// All streams both ways for that long.
#[track_caller]
fn load(what: &str, hosts: &[Host; 2], containers: &[Container; 2], seconds: u64, tcp: Tcp) {
    let look = || {
        let hosts = hosts.iter().map(traffic::drops_of_host);
        let containers = containers.iter().map(|c| traffic::drops(c));
        hosts.chain(containers).collect::<Vec<_>>()
    };
    let [a, b] = containers;
    let (before, start) = (look(), Instant::now());
    let mut streams = Vec::new();
    for (from, to) in [(a, b), (b, a)] {
        for (i, (sizes, rate)) in STREAMS.iter().enumerate() {
            let flow = Flow { port: 17_100 + i as u16, sizes: *sizes, rate: *rate, count: rate * seconds };
            streams.push((flow, Sequence::flow(from, to, &to.ip, flow)));
        }
    }
    let mbps = match tcp {
        Tcp::None => Some(0),
        Tcp::Mbps(n) => Some(n),
        Tcp::Unbounded => None,
    };
    let ways = [(a, b), (b, a)].into_iter().filter(|_| tcp != Tcp::None);
    let transfers: Vec<Transfer> =
        ways.map(|(from, to)| Transfer::lasting(from, to, &to.ip, 17_200, seconds, mbps)).collect();

    let bytes: Vec<u64> = transfers.into_iter().map(Transfer::finish).collect();
    let (mut sent, mut lost) = (0, 0);
    for (flow, stream) in streams {
        let s = stream.finish();
        assert_eq!((s.duplicates, s.reordered, s.corrupt), (0, 0, 0), "{what}: {flow:?}: {s:?}");
        sent += flow.count;
        lost += flow.count - s.received;
    }
    let queues: Vec<Drops> =
        before.iter().zip(look()).map(|(before, now)| traffic::dropped_since(before, &now)).collect();
    let dropped: u64 = queues.iter().flat_map(|q| q.values()).sum();
    let speed: Vec<u64> = bytes.iter().map(|n| n * 8 / 1_000_000 / seconds).collect();
    println!(
        "{what}: {lost} of {sent} datagrams lost, {dropped} dropped by the kernel; TCP {speed:?} Mb/s; {:?}",
        start.elapsed()
    );
    // TCP that takes all the room there is makes the queues overflow, which are the streams' as well. Else nothing may
    let excused = if tcp == Tcp::Unbounded { dropped } else { 0 };
    assert!(
        lost <= excused,
        "{what}: {lost} of {sent} datagrams lost; dropped at hA, hB and their containers: {queues:?}"
    );
}

/// The roads of plain GRE and of ESP are changed under load, at one end and at the other. Nothing is lost or comes twice. By ESP's
/// trains packets are a moment longer under way than by a socket, and what comes in waits in two sockets: around a change
/// the last packets of one road may be overtaken by the first of the other, so some come late, and not many.
#[test]
fn roads_change_under_load() {
    const RATE: u64 = 2000;
    const SECONDS: u64 = 6;
    let hosts = two_switches(1500);
    for (host, remote) in hosts.iter().zip([UNDERLAY[1], UNDERLAY[0]]) {
        host.gre("gre0", remote, "");
    }
    let io = |host: &Host, io: &str| host.vsctl(&format!("set open_vswitch . other_config:underlay-io={io}"));
    for options in ["", "psk=thisisnotagoodpsk encapsulation=esp"] {
        for (host, remote) in hosts.iter().zip([UNDERLAY[1], UNDERLAY[0]]) {
            let options: Vec<String> = options.split_whitespace().map(|o| format!("options:{o}")).collect();
            host.vsctl(&format!(
                "clear interface gre0 options -- set interface gre0 options:remote_ip={remote} {}",
                options.join(" ")
            ));
            io(host, "raw");
        }
        let [a, b] = &hosts;
        for host in &hosts {
            host.wait_for("interface", "gre0", "link_state", "up");
        }
        reaches(a, &b.docker0());
        reaches(b, &a.docker0());
        let flow = Flow { port: 17_300, sizes: (8, 1300), rate: RATE, count: RATE * SECONDS };
        let streams = [(a, b), (b, a)].map(|(from, to)| Sequence::flow(from, to, &to.docker0(), flow));
        let (start, mut changes) = (Instant::now(), 0);
        for (host, road) in [(a, "device"), (b, "device"), (a, "raw"), (b, "raw")].into_iter().cycle() {
            std::thread::sleep(Duration::from_millis(600));
            if start.elapsed() > Duration::from_secs(SECONDS) {
                break;
            }
            io(host, road);
            changes += 1;
        }
        for stream in streams.map(Sequence::finish) {
            println!("'{options}', {changes} changes: {stream:?}");
            assert_eq!(stream, Stream { received: flow.count, ..stream }, "'{options}'");
            assert_eq!((stream.duplicates, stream.corrupt), (0, 0), "'{options}': {stream:?}");
            // plain GRE leaves by either road when it is told to: nothing overtakes anything
            let late = if options.is_empty() { 0 } else { changes * RATE / 50 };
            assert!(stream.reordered <= late, "'{options}', {changes} changes: {stream:?}");
        }
    }
    let log = std::fs::read_to_string(hosts[0].rundir().join("log")).expect("its log");
    for said in ["gre0: goes by the device road", "ESP to 192.0.2.2 leaves in trains"] {
        assert!(log.contains(said), "no '{said}' in the log:\n{log}");
    }
}

/// A protected tunnel that cannot have its packets in trains says so, and has them when it can.
#[test]
fn what_a_device_does_not_take_is_tried_again() {
    let hosts = two_switches(9000);
    for (host, remote) in hosts.iter().zip([UNDERLAY[1], UNDERLAY[0]]) {
        host.vsctl("set open_vswitch . other_config:underlay-io=device");
        host.gre("gre0", remote, "options:psk=thisisnotagoodpsk options:encapsulation=esp");
    }
    let [a, b] = &hosts;
    // more than XDP takes of a veth
    a.wait_for(
        "interface",
        "gre0",
        "error",
        "gre0: goes by a raw socket in spite of other_config:underlay-io: u0: its driver does not take XDP \
         (Numerical result out of range)",
    );
    assert_eq!(a.get("interface", "gre0", "link_state"), "up");
    reaches(a, &b.docker0());
    // a veth refuses for its far end's MTU as well, of which nothing is heard at this end
    for host in &hosts {
        host.sh("ip link set u0 mtu 1500; sleep 1");
    }
    for host in &hosts {
        host.wait_for("interface", "gre0", "error", "[]");
        poll("ESP in trains", || host.log().contains("u0: ESP is received in trains").then_some(()));
    }
    reaches(a, &b.docker0());
    a.vsctl("clear interface gre0 options -- set interface gre0 options:remote_ip=192.0.2.2");
    poll("a warning", || a.log().contains("WARN|gre0: asks for IPsec no more").then_some(()));
}
