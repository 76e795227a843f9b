//! CFM on tunnels and plain ports: between two Underpass, and with the real Open vSwitch.

use harness::cli::poll;
use harness::ovs::Ovs;
use harness::topology::{Shell, UNDERLAY, cable, reaches, two_switches};
use harness::{Host, traffic};

/// Maintenance points of the first and the second host.
const MPIDS: [&str; 2] = ["5", "9"];

/// Has both watch `interface` ten times a second.
fn watch(hosts: &[Host; 2], interface: &str) {
    for (host, mpid) in hosts.iter().zip(MPIDS) {
        host.vsctl(&format!("set interface {interface} cfm_mpid={mpid} other_config:cfm_interval=100"));
    }
}

fn tunnels(hosts: &[Host; 2]) {
    for (host, remote) in hosts.iter().zip([UNDERLAY[1], UNDERLAY[0]]) {
        host.vsctl(&format!("add-port br0 t0 -- set interface t0 type=gre options:remote_ip={remote}"));
    }
    watch(hosts, "t0");
}

/// No tunnel hears anything.
fn deafen(host: &Host) {
    host.sh("nft add table ip cut
        nft add chain ip cut in '{ type filter hook prerouting priority -300; }'
        nft add rule ip cut in ip protocol gre drop");
}

#[track_caller]
fn becomes(host: &Host, interface: &str, column: &str, want: &str) {
    poll(&format!("{interface} {column}={want}"), || {
        (host.get("interface", interface, column) == want).then_some(())
    });
}

/// Each hears the other, and little is lost.
#[track_caller]
fn well(hosts: &[Host; 2], interface: &str) {
    for (host, remote) in hosts.iter().zip([MPIDS[1], MPIDS[0]]) {
        becomes(host, interface, "cfm_remote_mpids", &format!("[{remote}]"));
        becomes(host, interface, "cfm_fault_status", "[]");
        becomes(host, interface, "cfm_fault", "false");
    }
    for host in hosts {
        // of a machine that is busy not everything leaves in time
        poll("health", || {
            host.get("interface", interface, "cfm_health").parse::<u8>().ok().filter(|percent| *percent >= 75)
        });
    }
}

#[test]
fn between_two() {
    let hosts = two_switches(1500);
    tunnels(&hosts);
    well(&hosts, "t0");
    let [a, b] = &hosts;
    // one way: who hears nobody tells the other so
    deafen(b);
    becomes(b, "t0", "cfm_fault_status", "[recv]");
    becomes(a, "t0", "cfm_fault_status", "[rdi]");
    becomes(b, "t0", "cfm_remote_mpids", "[]");
    a.vsctl("set bridge br0 rstp_enable=true");
    a.wait_for("port", "t0", "rstp_status:rstp_port_role", "Disabled");
    a.vsctl("set bridge br0 rstp_enable=false");
    becomes(a, "t0", "cfm_health", "0");
    b.sh("nft delete table ip cut");
    well(&hosts, "t0");
    for host in &hosts {
        assert!(host.get("interface", "t0", "cfm_flap_count").parse::<u32>().unwrap() >= 2);
    }
    // taken away, it leaves nothing
    a.vsctl("clear interface t0 cfm_mpid");
    for column in ["cfm_fault", "cfm_fault_status", "cfm_remote_mpids", "cfm_health", "cfm_flap_count"] {
        a.wait_for("interface", "t0", column, "[]");
    }
    assert_eq!(a.appctl("cfm/show"), "");
    becomes(b, "t0", "cfm_fault_status", "[recv]");
}

/// Either tells of the link in the same words, but for numbers.
#[track_caller]
fn same_words(hosts: &[Host; 2], interface: &str) {
    let words = |host: &Host| -> String {
        host.appctl(&format!("cfm/show {interface}")).chars().filter(|c| !c.is_ascii_digit()).collect()
    };
    poll("the same words", || {
        // whether something came since the last look varies
        let [ours, theirs] =
            [&hosts[0], &hosts[1]].map(|host| words(host).replace("check: false", "check: true"));
        (ours == theirs && ours.contains("Remote MPID")).then_some(())
    });
}

/// What one end is told, the other sees; and what is sent otherwise passes as ever.
#[track_caller]
fn with_the_real_one(hosts: &[Host; 2], interface: &str) {
    let [ours, theirs] = hosts;
    well(hosts, interface);
    same_words(hosts, interface);
    for (host, other) in [(ours, theirs), (theirs, ours)] {
        host.appctl(&format!("cfm/set-fault {interface} true"));
        becomes(host, interface, "cfm_fault_status", "[override]");
        reaches(ours, "10.0.42.1");
        traffic::ping(ours, "10.0.42.1", 3);
        // one that is set is told nobody; of a machine that is busy 350 ms of silence are soon over
        becomes(other, interface, "cfm_fault", "false");
        host.appctl("cfm/set-fault normal");
        becomes(host, interface, "cfm_fault", "false");
    }
    for forced in ["true", "false", "normal"] {
        for host in hosts {
            host.appctl(&format!("cfm/set-fault {forced}"));
        }
        same_words(hosts, interface);
    }
    // in extended mode any interval, any MPID, and a word about the other end
    for (host, mpid) in hosts.iter().zip(["4294967297", "70000"]) {
        host.vsctl(&format!(
            "set interface {interface} cfm_mpid={mpid} other_config:cfm_interval=150 other_config:cfm_extended=true \
             other_config:cfm_ccm_vlan=random other_config:cfm_ccm_pcp=5"
        ));
    }
    becomes(ours, interface, "cfm_remote_mpids", "[70000]");
    becomes(theirs, interface, "cfm_remote_mpids", "[4294967297]");
    for (host, other) in [(ours, theirs), (theirs, ours)] {
        becomes(other, interface, "cfm_remote_opstate", "up");
        host.vsctl(&format!("set interface {interface} other_config:cfm_opstate=down"));
        becomes(other, interface, "cfm_remote_opstate", "down");
        host.vsctl(&format!("remove interface {interface} other_config cfm_opstate"));
        becomes(other, interface, "cfm_remote_opstate", "up");
        same_words(hosts, interface);
    }
    for host in hosts {
        host.vsctl(&format!("clear interface {interface} other_config"));
    }
    watch(hosts, interface);
    well(hosts, interface);
}

#[test]
fn open_vswitch_by_a_tunnel() {
    let mut hosts = [Host::new("hA", 11), Host::new("ovs", 42)];
    cable(&hosts, 1500);
    let ovs = Ovs::start(&hosts[1]);
    ovs.underlay(&hosts[1], UNDERLAY[1], "10.0.42.1/16");
    hosts[0].start();
    hosts[0].overlay();
    tunnels(&hosts);
    with_the_real_one(&hosts, "t0");
    let [ours, theirs] = &hosts;
    deafen(ours);
    becomes(ours, "t0", "cfm_fault_status", "[recv]");
    becomes(theirs, "t0", "cfm_fault_status", "[rdi]");
    theirs.vsctl("set interface t0 other_config:cfm_interval=10");
    ours.sh("nft delete table ip cut");
    // one that is too slow for the other hears so; that intervals differ is told in the log alone, as over there
    becomes(ours, "t0", "cfm_fault_status", "[rdi]");
    poll("a word about the interval", || {
        ours.log().contains("t0: received a CCM with an unexpected interval (2) from RMP 9").then_some(())
    });
}

#[test]
fn open_vswitch_by_a_wire() {
    let (hosts, _ovs) = wired(&["e0"]);
    for host in &hosts {
        host.vsctl("add-port br0 e0");
        host.sh(&format!("ip addr add {}/16 dev br0; ip link set br0 up", host.docker0()));
        host.sh("ethtool -K br0 tx off tso off gso off >/dev/null 2>&1 || true");
    }
    watch(&hosts, "e0");
    with_the_real_one(&hosts, "e0");
    let [ours, theirs] = &hosts;
    theirs.sh("ip link set e0 down");
    for host in &hosts {
        becomes(host, "e0", "cfm_fault_status", "[recv]");
    }
    theirs.sh("ip link set e0 up");
    well(&hosts, "e0");
    // somebody with the same number
    ours.vsctl("set interface e0 cfm_mpid=9");
    for host in &hosts {
        becomes(host, "e0", "cfm_fault_status", "[loopback]");
    }
}

/// Two points of Open vSwitch with a switch of ours between them, which forwards what is not for itself.
#[test]
fn between_others() {
    let (hosts, _ovs) = wired(&["e0", "e1"]);
    let [ours, theirs] = &hosts;
    theirs.vsctl("add-br br1 -- set bridge br1 datapath_type=netdev");
    for (i, mpid) in MPIDS.into_iter().enumerate() {
        ours.vsctl(&format!("add-port br0 e{i}"));
        theirs.vsctl(&format!(
            "add-port br{i} e{i} -- set interface e{i} cfm_mpid={mpid} other_config:cfm_interval=100"
        ));
    }
    becomes(theirs, "e0", "cfm_remote_mpids", "[9]");
    becomes(theirs, "e1", "cfm_remote_mpids", "[5]");
    // with a point of its own on the way it takes them, and those of the other mode it forwards
    ours.vsctl("set interface e0 cfm_mpid=7 other_config:cfm_interval=100");
    becomes(theirs, "e0", "cfm_remote_mpids", "[7, 9]");
    becomes(theirs, "e1", "cfm_fault_status", "[recv]");
    becomes(ours, "e0", "cfm_remote_mpids", "[5]");
    ours.vsctl("set interface e0 other_config:cfm_extended=true");
    becomes(theirs, "e1", "cfm_remote_mpids", "[5]");
    becomes(ours, "e0", "cfm_fault_status", "[recv]");
}

/// Ours and Open vSwitch, each with a br0, and wires between them.
fn wired(wires: &[&str]) -> ([Host; 2], Ovs) {
    let mut hosts = [Host::new("hA", 11), Host::new("ovs", 42)];
    for wire in wires {
        hosts[0].ns.veth(wire, &hosts[1].ns, wire, 1500);
    }
    let ovs = Ovs::start(&hosts[1]);
    hosts[0].start();
    for host in &hosts {
        host.vsctl("add-br br0 -- set bridge br0 datapath_type=netdev");
    }
    (hosts, ovs)
}

/// Of two tunnels between the same bridges the one that works is active.
#[test]
fn a_bond_goes_by_it() {
    let hosts = two_switches(1500);
    for ((host, remote), mpid) in hosts.iter().zip([UNDERLAY[1], UNDERLAY[0]]).zip(MPIDS) {
        let tunnel = |name: &str, key: u8| {
            format!(
                "-- set interface {name} type=gre options:remote_ip={remote} options:key={key} cfm_mpid={mpid} \
                 other_config:cfm_interval=100 "
            )
        };
        host.vsctl(&format!(
            "add-bond br0 bond0 t0 t1 other_config:bond-primary=t0 {}{}",
            tunnel("t0", 1),
            tunnel("t1", 2)
        ));
    }
    let active = |name: &str| {
        for host in &hosts {
            poll(&format!("{name} active"), || {
                let shown = host.appctl("bond/show bond0");
                shown.contains(&format!("member {name}: enabled\n  active member\n")).then_some(())
            });
        }
        reaches(&hosts[0], &hosts[1].docker0());
    };
    active("t0");
    hosts[1].vsctl("set interface t0 options:key=9");
    active("t1");
    // BFD that works outweighs a fault that CFM finds
    hosts[1].vsctl("set interface t0 options:key=1");
    active("t0");
    for host in &hosts {
        host.vsctl("set interface t0 bfd:enable=true bfd:min_rx=200 bfd:min_tx=200");
    }
    for host in &hosts {
        becomes(host, "t0", "bfd_status:forwarding", "true");
        host.appctl("cfm/set-fault t0 true");
        becomes(host, "t0", "cfm_fault", "true");
    }
    active("t0");
    hosts[0].vsctl("set interface t0 bfd:enable=false");
    active("t1");
}
