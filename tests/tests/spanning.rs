//! Spanning trees between hosts: full meshes of tunnels, beside Open vSwitch and the kernel's bridge, and shown as Open vSwitch
//! shows them.

use std::time::Duration;

use harness::ovs::Ovs;
use harness::topology::{Shell, link, reaches};
use harness::traffic::{Sequence, try_ping};
use harness::{Capture, Host, poll_within};

/// Longer than agreements take by far, and shorter than the forward delay (15 s) that a port waits twice without them.
const RAPID: Duration = Duration::from_secs(10);
/// To everybody on the overlay.
const EVERYBODY: &str = "10.0.255.255";

/// Role and state of a port, as its row has them; empty before it has.
fn port(host: &Host, name: &str) -> (String, String) {
    let get = |key| host.vsctl(&format!("--if-exists get port {name} rstp_status:rstp_port_{key}"));
    (get("role"), get("state"))
}

/// Waits until the ports that carry the tree forward and those that would close a circle do not: `blocked` of them.
#[track_caller]
fn settled(ports: &[(&Host, &str)], blocked: usize, within: Duration) {
    let mut seen = Vec::new();
    let what = "a tree";
    let done = || {
        seen = ports.iter().map(|(host, name)| port(host, name)).collect();
        let is = |role: &str, state: &str| {
            seen.iter().filter(|(r, s)| (r.as_str(), s.as_str()) == (role, state)).count()
        };
        let forwarding = is("Root", "Forwarding") + is("Designated", "Forwarding");
        let held = is("Alternate", "Discarding");
        (held == blocked && forwarding + held + is("Disabled", "Discarding") == seen.len()).then_some(())
    };
    poll_within(within, what, done);
}

/// One broadcast of `from` arrives once at each of the others.
#[track_caller]
fn arrives_once(from: &Host, others: &[&Host]) {
    let captures: Vec<Capture> =
        others.iter().map(|host| Capture::start(*host, "br0", "icmp[icmptype] = icmp-echo")).collect();
    let _ = try_ping(from, &format!("-b -c 1 -W 1 {EVERYBODY}"));
    for (host, capture) in others.iter().zip(captures) {
        let seen = capture.stop();
        assert_eq!(seen.outer("icmp"), 1, "{}", host.ns.name());
    }
}

/// A mesh with two links and two tunnels between any two hosts: what to type where.
const MESH: [(&str, usize, usize, &str, &str); 6] = [
    ("ab", 0, 1, "192.0.2.1", "192.0.2.2"),
    ("ab2", 0, 1, "192.0.3.1", "192.0.3.2"),
    ("ac", 0, 2, "198.51.100.1", "198.51.100.2"),
    ("ac2", 0, 2, "198.51.101.1", "198.51.101.2"),
    ("bc", 1, 2, "203.0.113.1", "203.0.113.2"),
    ("bc2", 1, 2, "203.0.114.1", "203.0.114.2"),
];

/// ```text
///        [ hA 10.0.11.1 br0 ]
///   gre ╱╱                  ╲╲ gre
/// [ hB 10.0.42.1 br0 ]═gre═[ hC 10.0.73.1 br0 ]
/// ```
#[test]
fn a_mesh_of_tunnels_heals_without_waiting() {
    let mut hosts = [Host::new("hA", 11), Host::new("hB", 42), Host::new("hC", 73)];
    for (name, one, other, here, there) in MESH {
        let device = format!("u-{name}");
        link((&hosts[one], &device, here), (&hosts[other], &device, there), 1500);
    }
    for host in &mut hosts {
        host.start();
        host.overlay();
        host.vsctl("set bridge br0 rstp_enable=true");
    }
    hosts[0].vsctl("set bridge br0 other_config:rstp-priority=4096");
    for (name, one, other, here, there) in MESH {
        hosts[one].gre(name, there, "");
        hosts[other].gre(name, here, "");
    }
    let [a, b, c] = &hosts;
    let ends =
        MESH.iter().flat_map(|(name, one, other, ..)| [(&hosts[*one], *name), (&hosts[*other], *name)]);
    let all: Vec<(&Host, &str)> = ends.collect();
    settled(&all, 4, RAPID);
    assert_eq!(port(b, "ab"), ("Root".into(), "Forwarding".into()));
    assert_eq!(port(b, "ab2"), ("Alternate".into(), "Discarding".into()));
    reaches(b, &c.docker0());
    arrives_once(a, &[b, c]);
    arrives_once(b, &[a, c]);

    // one link after the other is cut between B and the root, each time the next best way takes its place
    for (cut, root, blocked) in [("ab", "ab2", 3), ("ab2", "bc", 2)] {
        let stream = Sequence::start(b, a, &a.docker0(), 3000, 100, 1000);
        a.sh(&format!("ip link set u-{cut} down"));
        settled(&all, blocked, RAPID);
        assert_eq!(port(b, cut).0, "Disabled");
        reaches(b, &a.docker0());
        let seen = stream.finish();
        println!("{cut} cut: {} ms without a way, {} of 3000 lost", seen.gap_ms, seen.lost);
        assert_eq!((seen.duplicates, seen.corrupt), (0, 0));
        assert_eq!(port(b, root), ("Root".into(), "Forwarding".into()));
        arrives_once(b, &[a, c]);
    }
    for mended in ["ab", "ab2"] {
        a.sh(&format!("ip link set u-{mended} up"));
    }
    settled(&all, 4, RAPID);
    arrives_once(a, &[b, c]);
    assert_eq!(a.count("drop_bpdu_full"), 0);

    // without a tree nothing is held back, of one host's ports
    b.vsctl("set bridge br0 rstp_enable=false");
    b.wait_for("port", "ab", "rstp_status", "{}");
    assert_eq!(b.get("bridge", "br0", "rstp_status"), "{}");
}

/// ```text
/// [ hA br0 ]──gre──[ hB br0 ]
///        └─ e0 ─[ far ]─ e0 ┘      two links to a bridge that is not ours
/// ```
fn circle() -> [Host; 3] {
    let mut hosts = [Host::new("hA", 11), Host::new("hB", 42), Host::new("far", 73)];
    let [a, b, far] = &mut hosts;
    link((a, "u0", "192.0.2.1"), (b, "u0", "192.0.2.2"), 1500);
    a.ns.veth("e0", &far.ns, "e0", 1500);
    b.ns.veth("e0", &far.ns, "e1", 1500);
    for (host, remote) in [(&mut *a, "192.0.2.2"), (&mut *b, "192.0.2.1")] {
        host.start();
        host.overlay();
        host.vsctl("set bridge br0 rstp_enable=true other_config:rstp-forward-delay=4");
        host.vsctl("add-port br0 e0");
        host.gre("gre0", remote, "");
    }
    a.vsctl("set bridge br0 other_config:rstp-priority=4096");
    hosts
}

#[test]
fn beside_open_vswitch() {
    let [a, b, far] = circle();
    let _ovs = Ovs::start(&far);
    far.vsctl("add-br br0 -- set bridge br0 datapath_type=netdev rstp_enable=true");
    far.vsctl("add-port br0 e0 -- add-port br0 e1");
    far.sh(&format!(
        "ip addr add {}/16 dev br0; ethtool -K br0 tx off >/dev/null 2>&1 || true; ip link set br0 up",
        far.docker0()
    ));
    settled(&[(&a, "e0"), (&a, "gre0"), (&b, "e0"), (&b, "gre0"), (&far, "e0"), (&far, "e1")], 1, 2 * RAPID);
    let root = a.get("bridge", "br0", "rstp_status:rstp_bridge_id");
    for host in [&b, &far] {
        assert_eq!(host.get("bridge", "br0", "rstp_status:rstp_root_id"), root);
    }
    reaches(&far, &a.docker0());
    reaches(&far, &b.docker0());
    arrives_once(&far, &[&a, &b]);
    a.sh("ip link set e0 down");
    settled(&[(&a, "gre0"), (&b, "e0"), (&b, "gre0"), (&far, "e1")], 0, RAPID);
    reaches(&far, &a.docker0());
}

/// It speaks 802.1D-1998 only, so there are forward delays to wait out, and our ports toward it speak that, too.
#[test]
fn beside_a_kernel_bridge() {
    let [a, b, far] = circle();
    far.sh(&format!(
        "ip link add br0 type bridge stp_state 1 forward_delay 400
         ip link set e0 master br0; ip link set e1 master br0
         ip addr add {}/16 dev br0; ip link set br0 up",
        far.docker0()
    ));
    let state = |port: &str| {
        far.sh(&format!(
            "cat /sys/class/net/{port}/brport/state 2>/dev/null || bridge -d link show dev {port}"
        ))
    };
    let limit = Duration::from_secs(30);
    settled_some(&[(&a, "e0"), (&a, "gre0"), (&b, "e0"), (&b, "gre0")], limit);
    poll_within(limit, "the kernel's bridge to forward", || {
        let text = state("e0");
        (text.contains("forwarding") || text.trim() == "3").then_some(())
    });
    reaches(&far, &a.docker0());
    reaches(&far, &b.docker0());
    arrives_once(&far, &[&a, &b]);
}

/// Every port either forwards or is an alternate, and the two ends of the tunnel both forward.
#[track_caller]
fn settled_some(ports: &[(&Host, &str)], within: Duration) {
    poll_within(within, "a tree", || {
        let rest = |(role, state): (String, String)| {
            matches!(
                (role.as_str(), state.as_str()),
                ("Root" | "Designated", "Forwarding") | ("Alternate", "Discarding")
            )
        };
        ports.iter().all(|(host, name)| rest(port(host, name))).then_some(())
    });
}

/// The same bridge with the same neighbours, once under Open vSwitch and once under Underpass.
#[test]
fn shown_as_open_vswitch_shows_it() {
    let show = |ovs: bool| -> Vec<String> {
        let mut host = Host::new("one", 11);
        let far = harness::Netns::new("far");
        for port in ["p0", "p1"] {
            host.ns.veth(port, &far, port, 1500);
        }
        let _ovs = ovs.then(|| Ovs::start(&host));
        if !ovs {
            host.start();
        }
        let config = "other_config:hwaddr=02:00:00:00:00:07";
        host.vsctl(&format!("add-br br0 -- set bridge br0 datapath_type=netdev {config}"));
        host.vsctl("add-port br0 p0 -- add-port br0 p1");
        let mut seen = Vec::new();
        for (mode, more) in [
            ("rstp", "br0 other_config:rstp-priority=5000 other_config:rstp-max-age=18"),
            ("stp", "br0 other_config:stp-priority=4097 other_config:stp-hello-time=1"),
        ] {
            let off = if mode == "stp" { "rstp" } else { "stp" };
            for (i, port) in ["p0", "p1"].iter().enumerate() {
                let (number, priority, cost) = (7 - i, 32 + 16 * i, 1000 + i);
                host.vsctl(&format!(
                    "set port {port} other_config:{mode}-port-num={number} \
                     other_config:{mode}-port-priority={priority} other_config:{mode}-path-cost={cost}"
                ));
            }
            host.vsctl(&format!("set bridge {more} {mode}_enable=true {off}_enable=false"));
            // Open vSwitch brings ports up a moment after the bridge
            let states = if mode == "rstp" { "Designated Forwarding" } else { "designated listening" };
            poll_within(RAPID, "both ports", || {
                (host.appctl(&format!("{mode}/show br0")).matches(states).count() == 2).then_some(())
            });
            let shown = host.appctl(&format!("{mode}/show"));
            let mut lines: Vec<&str> = shown.lines().collect();
            // Open vSwitch lists ports in the order of a hash
            if let Some(at) = lines.iter().position(|line| line.contains("----------")) {
                lines[at + 1..].sort_unstable();
            }
            seen.push(lines.join("\n"));
            let column = if mode == "rstp" { "rstp_status" } else { "status" };
            seen.push(host.get("bridge", "br0", column));
            for port in ["p0", "p1"] {
                // written a moment later
                let (key, word) = if mode == "rstp" { ("", "Forwarding") } else { (":stp_port_id", "") };
                seen.push(poll_within(RAPID, "its row", || {
                    let got = host.try_vsctl(&format!("get port {port} {column}{key}"));
                    (got.success() && got.stdout.contains(word)).then(|| got.ok())
                }));
            }
            for line in [format!("{off}/show"), format!("{mode}/tcn br0"), format!("{mode}/tcn")] {
                seen.push(host.appctl(&line));
            }
            for line in [format!("{off}/show br0"), format!("{off}/tcn br0"), format!("{mode}/show nope")] {
                let out = harness::cli::output(host.tool("ovs-appctl").args(line.split_whitespace()));
                seen.push(format!("{:?} {}", out.code, out.stderr.lines().next().unwrap_or_default()));
            }
        }
        seen
    };
    let (theirs, ours) = (show(true), show(false));
    for (theirs, ours) in theirs.iter().zip(&ours) {
        assert_eq!(theirs, ours);
    }
    assert_eq!(theirs.len(), ours.len());
}
