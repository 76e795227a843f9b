//! The switch between Docker hosts: both ways to attach docker0, floods, unknown addresses, devices that come and go,
//! hosts in a row, bridges with keys.

use std::time::Duration;

use harness::topology::{Place, UNDERLAY, UNDERLAY6, chain, reaches, two_hosts};
use harness::{Capture, Container, Host, Netns, cli, daemon, poll, traffic};

/// ```text
///   [ container ─ docker0 ═ veth ═ br0 ─ gre0  hA ] ── [ hB  gre0 ─ br0 ═ veth ═ docker0 ─ container ]
/// ```
#[test]
fn docker0_as_a_member() {
    let [mut a, mut b] = two_hosts(1500);
    let addresses = |h: &Host| h.ns.sh("ip -o -4 addr show docker0 | sed 's/valid_lft.*//'");
    let before = [addresses(&a), addresses(&b)];
    for (h, remote) in [(&mut a, UNDERLAY[1]), (&mut b, UNDERLAY[0])] {
        h.start();
        h.join(&[remote]);
    }
    as_on_one_switch(&a, &b);
    assert_eq!(before, [addresses(&a), addresses(&b)], "docker0 keeps its address");
    for h in [&mut a, &mut b] {
        h.stop();
    }
    assert_eq!(before, [addresses(&a), addresses(&b)], "docker0 keeps its address");
}

/// ```text
///   [ container ─ docker0 ═ br0 10.0.11.1/16 ─ gre0  hA ] ── [ hB  gre0 ─ br0 10.0.42.1/16 ═ docker0 ─ container ]
/// ```
#[test]
fn docker0_attached_directly() {
    let [mut a, mut b] = two_hosts(1500);
    let addresses =
        |h: &Host, dev: &str| h.ns.sh(&format!("ip -o -4 addr show {dev} | grep -o 'inet [^ ]*' || true"));
    for (h, remote) in [(&mut a, UNDERLAY[1]), (&mut b, UNDERLAY[0])] {
        let own = format!("inet {}/16", h.docker0());
        assert_eq!(addresses(h, "docker0"), own);
        h.start();
        h.underpass("attach docker0").ok();
        h.underpass("attach docker0").ok(); // again: no harm
        assert_eq!((addresses(h, "docker0"), addresses(h, "br0")), (String::new(), own));
        h.gre("gre0", remote, "");
    }
    as_on_one_switch(&a, &b);

    a.underpass("detach docker0").ok();
    assert_eq!(addresses(&a, "docker0"), "inet 10.0.11.1/16");
    a.underpass("detach docker0").ok(); // again: no harm
    b.stop();
    assert_eq!(addresses(&b, "docker0"), "inet 10.0.42.1/16", "a clean exit puts the address back");
    assert!(!b.ns.links().contains(&"br0".to_owned()), "{:?}", b.ns.links());
}

/// What must work between two joined hosts, whatever way docker0 is attached.
#[track_caller]
fn as_on_one_switch(a: &Host, b: &Host) {
    let (ca, cb) = (a.container(), b.container());
    // container to remote container, and the address that ARP found is the container's own
    reaches(&ca, &cb.ip);
    traffic::ping(&ca, &cb.ip, 5);
    traffic::ping(&cb, &ca.ip, 5);
    let neighbour = ca.sh(&format!("ip neigh show {}", cb.ip));
    assert!(neighbour.contains(&cb.mac), "{neighbour} is not {}", cb.mac);
    assert_eq!(traffic::hello(&ca, &cb), "Hello");
    traffic::tcp(&ca, &cb, &cb.ip, 20_000_000);
    traffic::tcp(&cb, &ca, &ca.ip, 20_000_000);
    let s = traffic::udp(&ca, &cb, &cb.ip, 400, 1200, 400);
    assert_eq!((s.received, s.lost, s.duplicates, s.corrupt), (400, 0, 0, 0), "{s:?}");

    // container to remote host, host to remote container, host to host
    for (from, host) in [(&ca as &dyn Place, b), (&cb, a), (a, b), (b, a)] {
        reaches(from, &host.docker0());
        traffic::tcp(from, host, &host.docker0(), 2_000_000);
    }
    for (host, to) in [(a, &cb), (b, &ca)] {
        traffic::ping(host, &to.ip, 3);
        traffic::tcp(host, to, &to.ip, 2_000_000);
    }

    ipv6(a, b, &ca, &cb);
    published_port_and_nat(a, b);
}

/// Neighbour discovery and TCP over IPv6, for addresses that the operator gives containers and hosts.
#[track_caller]
fn ipv6(a: &Host, b: &Host, ca: &Container, cb: &Container) {
    let give = |at: &dyn Place, dev: &str, address: &str| {
        let script = format!(
            "sysctl -qw net.ipv6.conf.{dev}.disable_ipv6=0; ip -6 addr add {address}/64 dev {dev} nodad"
        );
        cli::run(at.cmd("sh").args(["-ec", &script]));
    };
    let dev = |h: &Host| {
        let moved = h.ns.sh("ip -o -4 addr show docker0").is_empty();
        if moved { "br0" } else { "docker0" }
    };
    give(ca, "eth0", "fd00::11:2");
    give(cb, "eth0", "fd00::42:2");
    give(a, dev(a), "fd00::11:1");
    give(b, dev(b), "fd00::42:1");
    for (from, to) in
        [(ca as &dyn Place, "fd00::42:2"), (cb, "fd00::11:2"), (ca, "fd00::42:1"), (a, "fd00::42:2")]
    {
        reaches(from, to);
        traffic::ping(from, to, 3);
    }
    traffic::tcp(ca, cb, "fd00::42:2", 5_000_000);
    traffic::tcp(cb, ca, "fd00::11:2", 5_000_000);
}

/// hB is outside hA: it reaches a published port of hA by hA's underlay address, and sees hA's address when a container
/// of hA connects to it.
#[track_caller]
fn published_port_and_nat(a: &Host, b: &Host) {
    let server = a.engine.as_ref().unwrap().container(&["-p", "17002:17002"]);
    traffic::tcp(b, &server, UNDERLAY[0], 2_000_000);
    let capture = Capture::start(b, "u0", "tcp port 17002");
    traffic::tcp(&server, b, UNDERLAY[1], 100_000);
    let seen = capture.stop();
    assert!(seen.outer(&format!("src {} and dst {}", UNDERLAY[0], UNDERLAY[1])) > 0);
    assert_eq!(seen.outer("net 10.0.0.0/16"), 0, "masqueraded");
}

/// ```text
///   [ containers ─ hA ]──gre──[ hB ─ container ]──gre──[ hC ─ container ]
/// ```
#[test]
fn hosts_in_a_row() {
    let [mut a, mut b, mut c] = chain();
    for (h, remotes) in
        [(&mut a, &["192.0.2.2"][..]), (&mut b, &["192.0.2.1", "198.51.100.2"]), (&mut c, &["198.51.100.1"])]
    {
        h.start();
        h.join(remotes);
    }
    let (ca, cb, cc) = (a.container(), b.container(), c.container());
    reaches(&ca, &cc.ip);
    for (from, to) in [(&ca, &cb), (&cb, &cc), (&ca, &cc), (&cc, &ca)] {
        traffic::ping(from, &to.ip, 3);
    }
    assert_eq!(traffic::hello(&ca, &cc), "Hello");
    traffic::tcp(&ca, &cc, &cc.ip, 10_000_000);

    // a learned address: nobody else sees the frames
    let capture = Capture::start(&cc, "eth0", "icmp");
    traffic::ping(&ca, &cb.ip, 10);
    assert_eq!(capture.stop().outer(&format!("host {}", cb.ip)), 0, "frames for cb leaked to cc");

    // an unknown address and a broadcast: everybody sees each frame once
    ca.sh("ip neigh add 10.0.99.99 lladdr 02:00:00:00:00:99 dev eth0; ip neigh add 10.0.99.98 lladdr ff:ff:ff:ff:ff:ff dev eth0");
    for to in ["10.0.99.99", "10.0.99.98"] {
        let captures = [(&b, &cb), (&c, &cc)].map(|(_, k)| Capture::start(k, "eth0", &format!("host {to}")));
        let out = traffic::try_ping(&ca, &format!("-c 5 -i 0.1 -W 1 {to}"));
        assert!(out.stdout.contains("5 packets transmitted"), "{out:?}");
        for capture in captures {
            assert_eq!(capture.stop().outer("icmp"), 5, "copies of a frame to {to}");
        }
    }

    // what the switches know: in the middle, ca behind gre0, cc behind gre1
    let ofport = |p: &str| b.get("interface", p, "ofport");
    for (mac, port) in [(&ca.mac, ofport("gre0")), (&cc.mac, ofport("gre1")), (&cb.mac, ofport("docker0"))] {
        let table = b.appctl("fdb/show br0");
        let entry = table
            .lines()
            .find(|l| l.contains(mac.as_str()))
            .unwrap_or_else(|| panic!("no {mac} in\n{table}"));
        assert_eq!(entry.split_whitespace().next(), Some(port.as_str()), "{table}");
    }
    b.appctl("fdb/flush br0");
    traffic::ping(&ca, &cc.ip, 3);
}

/// ```text
///   [ x ─ vx ] ═ br0 [ hA ] br0 ═ [ vy ─ y ]        vx, vy: veth ends as ports; y's comes and goes
/// ```
#[test]
fn devices_come_and_go() {
    let mut a = Host::new("hA", 11);
    let (x, y) = (Netns::new("x"), Netns::new("y"));
    a.start();
    a.vsctl("add-br br0");
    plug(&a, "vx", &x, "10.9.0.1");
    a.vsctl("add-port br0 vx");

    let out = a.try_vsctl("add-port br0 vy");
    assert_eq!(out.code, 0, "{out:?}");
    let error = "could not open network device vy (No such device)";
    assert!(out.stderr.contains(&format!("Error detected while setting up 'vy': {error}")), "{out:?}");
    assert_eq!(
        (a.get("interface", "vy", "ofport").as_str(), a.get("interface", "vy", "error").as_str()),
        ("-1", error)
    );

    let mut ofport = None;
    for _ in 0..3 {
        plug(&a, "vy", &y, "10.9.0.2");
        a.wait_for("interface", "vy", "error", "[]");
        x.sh("ip neigh flush dev eth0"); // the new device has another address
        reaches(&x, "10.9.0.2");
        traffic::tcp(&x, &y, "10.9.0.2", 5_000_000);
        let now = a.get("interface", "vy", "ofport");
        assert_eq!(*ofport.get_or_insert(now.clone()), now, "a port keeps its number");
        assert_eq!(a.get("interface", "vy", "link_state"), "up");
        a.ns.sh("ip link set vy down");
        a.wait_for("interface", "vy", "admin_state", "down");
        a.ns.sh("ip link set vy up");
        a.wait_for("interface", "vy", "admin_state", "up");
        reaches(&x, "10.9.0.2");
        a.ns.sh("ip link del vy");
        poll("vy to be missed", || (a.get("interface", "vy", "link_state") != "up").then_some(()));
        assert!(!traffic::try_ping(&x, "-c1 -W1 10.9.0.2").success());
    }
    a.vsctl("del-port br0 vx");
    assert!(a.ns.links().contains(&"vx".to_owned()), "a port's device is not ours to remove");
    a.vsctl("del-br br0");
    assert_eq!(a.ns.links(), ["vx"]);
}

/// A veth pair from a host to a namespace, whose end gets an address.
fn plug(host: &Host, dev: &str, to: &Netns, address: &str) {
    host.ns.veth(dev, to, "eth0", 1500);
    to.sh(&format!("ip addr add {address}/24 dev eth0"));
}

/// Reserved group addresses (IEEE 802.1D 7.12.6) stay on their segment; other groups are flooded.
/// ```text
///   [ x ] ═ br0 [ hA ] br0 ═ [ y ]
/// ```
#[test]
fn reserved_groups_are_not_forwarded() {
    let mut a = Host::new("hA", 11);
    let (x, y) = (Netns::new("x"), Netns::new("y"));
    a.start();
    a.vsctl("add-br br0");
    for (dev, to, address) in [("vx", &x, "10.9.0.1"), ("vy", &y, "10.9.0.2")] {
        plug(&a, dev, to, address);
        a.vsctl(&format!("add-port br0 {dev}"));
    }
    reaches(&x, "10.9.0.2");
    x.sh("ip neigh add 10.9.0.50 lladdr 01:80:c2:00:00:0e dev eth0; ip neigh add 10.9.0.51 lladdr 01:80:c2:00:00:10 dev eth0");
    let copies = |to: &str| {
        let capture = Capture::start(&y, "eth0", &format!("icmp and host {to}"));
        traffic::try_ping(&x, &format!("-c3 -i0.1 -W1 {to}"));
        capture.stop().outer("icmp")
    };
    assert_eq!(copies("10.9.0.50"), 0);
    assert_eq!(copies("10.9.0.51"), 3);
    a.vsctl("set bridge br0 other_config:forward-bpdu=true");
    assert_eq!(copies("10.9.0.50"), 3);
}

/// ```text
///   [ red  ] ═ red  br ─ key 1 ─┐                ┌─ key 1 ─ red  br ═ [ red  ]
///   [ blue ] ═ blue br ─ key 2 ─┤ hA ──────── hB ├─ key 2 ─ blue br ═ [ blue ]
///   [ grey ] ═ grey br ─ no key ┘                └─ no key ─ grey br ═ [ grey ]
/// ```
#[test]
fn bridges_are_kept_apart_by_keys() {
    let mut hosts = [Host::new("hA", 11), Host::new("hB", 42)];
    harness::topology::cable(&hosts, 1500);
    let colours = [("red", "options:key=1"), ("blue", "options:key=2"), ("grey", "")];
    let mut clients = Vec::new();
    for (i, h) in hosts.iter_mut().enumerate() {
        h.start();
        for (colour, key) in colours {
            let ns = Netns::new(colour);
            // the same addresses in each colour: only the keys tell them apart
            plug(h, &format!("v{colour}"), &ns, &format!("10.9.0.{}", i + 1));
            h.vsctl(&format!(
                "add-br {colour} -- add-port {colour} v{colour} -- add-port {colour} g{colour} \
                 -- set interface g{colour} type=gre options:remote_ip={} {key}",
                UNDERLAY[1 - i]
            ));
            clients.push(ns);
        }
    }
    for i in 0..3 {
        let (near, far) = (&clients[i], &clients[i + 3]);
        reaches(near, "10.9.0.2");
        traffic::tcp(near, far, "10.9.0.2", 2_000_000);
        let mac = far.sh(
            "cat /proc/net/arp >/dev/null; ip -o link show eth0 | sed 's/.*link.ether \\([^ ]*\\) .*/\\1/'",
        );
        assert!(near.sh("ip neigh show 10.9.0.2").contains(&mac), "another colour answered");
    }
    // a second tunnel with the same addresses and key
    let out = hosts[0].try_vsctl(&format!(
        "add-port red again -- set interface again type=gre options:remote_ip={} options:key=1",
        UNDERLAY[1]
    ));
    assert!(out.stderr.contains("Error detected while setting up 'again'"), "{out:?}");
    // the key changes on one side, then on the other
    hosts[0].vsctl("set interface gred options:key=7");
    assert!(!traffic::try_ping(&clients[0], "-c1 -W1 10.9.0.2").success());
    hosts[1].vsctl("set interface gred options:key=7");
    reaches(&clients[0], "10.9.0.2");
}

/// ```text
///   [ 10.9.0.1 br0 ─ gre0  hA 2001:db8::1 ]──────[ 2001:db8::2 hB  gre0 ─ br0 10.9.0.2 ]
/// ```
#[test]
fn over_an_ipv6_underlay() {
    let mut hosts = [Host::new("hA", 11), Host::new("hB", 42)];
    harness::topology::cable(&hosts, 1500);
    for (i, h) in hosts.iter_mut().enumerate() {
        h.start();
        h.vsctl("add-br br0");
        h.gre("gre0", UNDERLAY6[1 - i], "");
        // the bridge's internal port is a device that the host can use
        h.ns.sh(&format!("ip addr add 10.9.0.{}/24 dev br0; ip link set br0 up", i + 1));
    }
    let [a, b] = &hosts;
    reaches(a, "10.9.0.2");
    let capture = Capture::wire([a, b], "u0", "ip6");
    traffic::tcp(a, b, "10.9.0.2", 10_000_000);
    traffic::tcp(b, a, "10.9.0.1", 10_000_000);
    capture.stop().assert_clean(1500);
}

/// `underpass up` is the whole of it in one command, undone by Ctrl-C.
/// ```text
///   [ container ─ docker0 hA ] ── [ hB docker0 ─ container ]
/// ```
#[test]
fn up_in_one_command() {
    let [mut a, mut b] = two_hosts(1500);
    let links = [a.ns.links(), b.ns.links()];
    let (ca, cb) = (a.container(), b.container());
    let up = |h: &Host, remote: &str| {
        let mut c = h.bound(daemon::underpass().to_str().unwrap());
        c.args(["up", "docker0", "--remote", remote, "--rundir"]).arg(h.rundir());
        c.stdout(std::fs::File::create(h.rundir().join("up")).unwrap()).spawn().unwrap()
    };
    let mut running = [up(&a, UNDERLAY[1]), up(&b, UNDERLAY[0])];
    reaches(&ca, &cb.ip);
    assert_eq!(traffic::hello(&ca, &cb), "Hello");
    let said = std::fs::read_to_string(a.rundir().join("up")).unwrap();
    assert!(said.contains("docker0") && said.contains(UNDERLAY[1]), "it says what it set up: {said:?}");
    for child in &mut running {
        cli::signal(child.id(), "INT");
        let status = cli::wait(child, Duration::from_secs(10));
        assert!(status.is_some_and(|s| s.success()), "Ctrl-C: {status:?}");
    }
    assert!(!traffic::try_ping(&ca, &format!("-c1 -W1 {}", cb.ip)).success());
    for h in [&mut a, &mut b] {
        h.engine = None;
    }
    let docker0 = |v: &Vec<String>| v.iter().filter(|l| !l.starts_with("veth")).cloned().collect::<Vec<_>>();
    assert_eq!([docker0(&a.ns.links()), docker0(&b.ns.links())], links.each_ref().map(docker0));
}

/// ```text
///   far  q0 192.0.2.9 ── p0 [ br0 192.0.2.1, with p0's own address ]   and 192.0.2.77, the host's, elsewhere
/// ```
#[test]
fn a_port_is_the_switchs_alone() {
    let (mut host, far) = (Host::new("alone", 11), Netns::new("far"));
    host.ns.veth("p0", &far, "q0", 1500);
    far.sh("ip addr add 192.0.2.9/24 dev q0");
    host.ns.sh("ip link set p0 address 00:16:3e:00:00:03; ip addr add 192.0.2.77/32 dev lo");
    host.start();
    host.vsctl("add-br br0 -- add-port br0 p0");
    host.ns.sh("ip addr add 192.0.2.1/24 dev br0; ip link set br0 up");
    host.wait_for("interface", "br0", "mac_in_use", "00:16:3e:00:00:03");
    let ping = traffic::answered(&far, 3, "-i 0.2 192.0.2.1");
    assert!(!ping.contains("DUP"), "{ping}");
    // who is in another VLAN than the host does not reach it by its own device either
    host.vsctl("set port p0 tag=5");
    let answers = |to: &str| far.try_sh(&format!("busybox arping -c 1 -w 1 -I q0 {to}")).success();
    for to in ["192.0.2.1", "192.0.2.77"] {
        assert!(!answers(to), "{to}");
    }
    let until = |to: &str, heard: bool| poll(to, || (answers(to) == heard).then_some(()));
    host.vsctl("set interface p0 other_config:host-input=true");
    until("192.0.2.77", true);
    host.vsctl("remove interface p0 other_config host-input");
    until("192.0.2.77", false);
    // an address of its own is for the host to be reached by
    host.ns.sh("ip addr add 192.0.2.2/32 dev p0");
    until("192.0.2.2", true);
    host.ns.sh("ip addr del 192.0.2.2/32 dev p0");
    until("192.0.2.77", false);
    // nothing of it outlives the switch
    host.kill9();
    until("192.0.2.77", true);
}
