//! Killed and started again, under traffic: what was configured stays, what was made goes, forwarding comes back.

use std::time::{Duration, Instant};

use harness::topology::{Shell, UNDERLAY, cable, reaches, two_hosts};
use harness::traffic::Sequence;
use harness::{Container, Host, cli, poll, traffic};

/// How often a daemon is killed.
const ROUNDS: usize = 50;

/// ```text
///   [ container ─ docker0 hA ]── gre ──[ hB docker0 ─ container ]        hA's daemon dies, again and again
/// ```
fn joined() -> ([Host; 2], [Container; 2]) {
    let [mut a, mut b] = two_hosts(1500);
    for (h, remote) in [(&mut a, UNDERLAY[1]), (&mut b, UNDERLAY[0])] {
        h.start();
        h.join(&[remote]);
    }
    let containers = [a.container(), b.container()];
    reaches(&containers[0], &containers[1].ip);
    ([a, b], containers)
}

/// What a restart must leave as it was.
fn state(h: &Host) -> String {
    let ports = h.vsctl("--columns=name,ofport,error,options,type -f csv --no-headings find interface");
    let mut ports: Vec<&str> = ports.lines().collect();
    ports.sort_unstable();
    let docker0 = h.ns.sh("ip -o -4 addr show docker0 | grep -o 'inet [^ ]*'; ip -o link show docker0 | grep -o 'link/ether [^ ]*'");
    format!("{}\n{}\n{docker0}", h.vsctl("list-ports br0"), ports.join("\n"))
}

/// The devices of a host, without the containers' own.
fn devices(h: &Host) -> Vec<String> {
    let master = h.ns.sh("ip -o link show type veth | grep -o 'link-netnsid' | wc -l");
    let mut links = h.ns.links();
    links.retain(|l| !l.starts_with("veth"));
    links.push(format!("{master} veth"));
    links
}

#[test]
fn killed_fifty_times_under_traffic() {
    let ([mut a, _b], [ca, cb]) = joined();
    let (config, links) = (state(&a), devices(&a));
    let mut slowest = Duration::ZERO;
    for round in 0..ROUNDS {
        // enough datagrams to be in flight from before the kill to after the return
        let stream = Sequence::start(&ca, &cb, &cb.ip, 400, 1000, 400);
        std::thread::sleep(Duration::from_millis(20 * (round as u64 % 10)));
        a.kill9();
        let left: Vec<String> = a.ns.links().into_iter().filter(|l| l == "br0").collect();
        assert!(left.is_empty(), "round {round}: {left:?} outlived the daemon");

        let start = Instant::now();
        a.start();
        poll("forwarding", || {
            cli::output(ca.cmd("ping").args(["-c1", "-W0.2", "-n", &cb.ip])).success().then_some(())
        });
        slowest = slowest.max(start.elapsed());
        assert_eq!(state(&a), config, "round {round}");
        assert_eq!(devices(&a), links, "round {round}");
        let s = stream.finish();
        assert_eq!((s.duplicates, s.corrupt), (0, 0), "round {round}: {s:?}");
    }
    println!("slowest return to forwarding in {ROUNDS} rounds: {slowest:?}");
    traffic::tcp(&ca, &cb, &cb.ip, 5_000_000);
}

#[test]
fn sigterm_removes_what_it_made() {
    let ([mut a, _b], [ca, cb]) = joined();
    let config = state(&a);
    let made = a.ns.links();
    a.stop();
    let left = a.ns.links();
    assert!(!left.contains(&"br0".to_owned()), "{left:?}");
    assert_eq!(left.len(), made.len() - 2, "br0 and docker0's extra port are gone: {left:?} of {made:?}");
    for file in std::fs::read_dir(a.rundir()).unwrap().flatten() {
        let name = file.file_name().into_string().unwrap();
        assert!(
            !name.ends_with(".sock") && !name.ends_with(".ctl") && !name.ends_with(".pid"),
            "{name} is left"
        );
    }
    a.start();
    reaches(&ca, &cb.ip);
    assert_eq!(state(&a), config);
}

/// docker0's address is with br0 when the daemon dies, and goes with it: the next one restores it, or `detach` alone does.
/// ```text
///   [ container ─ docker0 ═ br0 10.0.11.1/16 ─ gre0  hA ] ── [ hB docker0 ─ container ]
/// ```
#[test]
fn killed_while_it_had_the_address_of_docker0() {
    let [mut a, mut b] = two_hosts(1500);
    b.start();
    b.join(&[UNDERLAY[0]]);
    a.start();
    a.underpass("attach docker0").ok();
    a.gre("gre0", UNDERLAY[1], "");
    let (ca, cb) = (a.container(), b.container());
    let address = |dev: &str| a.ns.try_sh(&format!("ip -o -4 addr show {dev} | grep -o 'inet [^ ]*'")).stdout;
    let has = "inet 10.0.11.1/16\n";
    reaches(&ca, &cb.ip);
    let daemon = a.daemon.take().unwrap();
    daemon.kill9();
    assert_eq!(address("docker0"), "", "it went with br0");

    let daemon = harness::Daemon::start(&a.ns, a.rundir(), &[]);
    reaches(&ca, &cb.ip);
    assert_eq!((address("docker0").as_str(), address("br0").as_str()), ("", has));
    reaches(&cb, &a.docker0());
    daemon.kill9();

    a.underpass("detach docker0").ok();
    assert_eq!(address("docker0"), has, "without a daemon");
    traffic::ping(&ca, &a.docker0(), 3);
    let _daemon = harness::Daemon::start(&a.ns, a.rundir(), &[]);
    assert_eq!(address("docker0"), has, "a new daemon knows that it is detached");
    assert_eq!(a.vsctl("list-ports br0"), "gre0");
}

/// The whole of a transaction is on disk when ovs-vsctl returns.
#[test]
fn what_was_answered_is_kept() {
    let mut a = Host::new("hA", 11);
    a.start();
    a.vsctl("add-br br0");
    for round in 0..10 {
        a.vsctl(&format!(
            "add-port br0 g{round} -- set interface g{round} type=gre options:remote_ip=192.0.2.{}",
            round + 10
        ));
        a.kill9();
        a.start();
        let ports = a.vsctl("list-ports br0");
        assert_eq!(ports.lines().count(), round + 1, "{ports}");
    }
    // and ovsdb-tool reads what we wrote
    let log = cli::run(a.tool("ovsdb-tool").arg("show-log").arg(a.conf_db()));
    assert!(log.contains("record 0: \"Open_vSwitch\" schema"), "{log}");
    assert!(log.contains("ovs-vsctl add-br br0\""), "with the comments of ovs-vsctl: {log}");
}

/// ```text
///   [ br0 10.0.11.1 ─ gre0  hA ]── gre ──[ hB gre0 ─ br0 10.0.42.1 ]        hA's daemon runs with --keep-ports
/// ```
#[test]
fn kept_ports_outlast_the_daemon_with_their_addresses() {
    let [mut a, mut b] = two_switches_of(&["--keep-ports"]);
    let device = |a: &Host| {
        a.ns.sh("ip -o link show br0 | grep -o '^[0-9]*\\|link/ether [^ ]*'; ip -o addr show br0; ip route show dev br0")
            .replace(" linkdown", "")
    };
    a.sh("ip route add 10.99.0.0/16 via 10.0.42.1 dev br0");
    a.vsctl("add-port br0 v7 -- set interface v7 type=internal");
    reaches(&a, "10.0.42.1");
    let before = device(&a);

    a.kill9();
    assert_eq!(device(&a), before, "killed");
    a.start_with(&["--keep-ports"]);
    reaches(&a, "10.0.42.1");
    assert_eq!(device(&a), before);
    a.stop();
    assert_eq!(device(&a), before, "ended");
    a.start_with(&["--keep-ports"]);
    reaches(&b, "10.0.11.1");

    // what is deleted goes, and all of it when that is asked for
    a.vsctl("del-port v7");
    assert!(!a.ns.links().contains(&"v7".to_owned()));
    a.appctl("exit --cleanup");
    poll("br0 to go", || (!a.ns.links().contains(&"br0".to_owned())).then_some(()));
    drop(a.daemon.take());
    b.stop();
}

fn two_switches_of(args: &[&str]) -> [Host; 2] {
    let mut hosts = [Host::new("hA", 11), Host::new("hB", 42)];
    cable(&hosts, 1500);
    for (host, remote) in hosts.iter_mut().zip([UNDERLAY[1], UNDERLAY[0]]) {
        host.start_with(args);
        host.overlay();
        host.gre("gre0", remote, "");
    }
    hosts
}
