//! BFD on tunnels: between two Underpass, and with the real Open vSwitch.

use harness::cli::poll;
use harness::ovs::Ovs;
use harness::topology::{Shell, UNDERLAY, cable, two_switches};
use harness::{Host, traffic};

/// Joins both by a tunnel and has BFD watch it.
fn watch(hosts: &[Host; 2], kind: &str) {
    for (host, remote) in hosts.iter().zip([UNDERLAY[1], UNDERLAY[0]]) {
        host.vsctl(&format!(
            "add-port br0 t0 -- set interface t0 type={kind} options:remote_ip={remote} \
             bfd:enable=true bfd:min_rx=200 bfd:min_tx=200"
        ));
    }
}

#[track_caller]
fn states(hosts: &[Host; 2], want: &str) {
    for host in hosts {
        poll(&format!("BFD {want}"), || {
            (host.get("interface", "t0", "bfd_status:state") == want).then_some(())
        });
    }
}

/// The session comes up, notices a cut, and comes up again; what is no BFD passes as ever.
#[track_caller]
fn lives([a, b]: &[Host; 2]) {
    let hosts = [a, b];
    for host in hosts {
        // whoever is up first hears that the other one is, too, with that one's next packet; intervals settle after that
        host.wait_for("interface", "t0", "bfd_status:forwarding", "true");
        host.wait_for("interface", "t0", "bfd_status:remote_state", "up");
        poll("both up, each 200 ms", || {
            let shown = host.appctl("bfd/show t0");
            (shown.contains("Local Session State: up") && shown.contains("TX Interval: Approx 200ms"))
                .then_some(())
        });
    }
    traffic::ping(a, "10.0.42.1", 5);
}

#[test]
fn between_two() {
    let hosts = two_switches(1500);
    watch(&hosts, "gre");
    states(&hosts, "up");
    lives(&hosts);
    let [a, b] = &hosts;
    a.sh("ip link set u0 down");
    states(&hosts, "down");
    assert_eq!(b.get("interface", "t0", "bfd_status:forwarding"), "false");
    a.sh("ip link set u0 up");
    states(&hosts, "up");
    // a machine that is busy for 600 ms adds to it
    let flaps: u32 = b.get("interface", "t0", "bfd_status:flap_count").parse().expect("a number");
    assert!(flaps >= 3, "{flaps}");
    // taken away, it leaves nothing
    a.vsctl("set interface t0 bfd:enable=false");
    a.wait_for("interface", "t0", "bfd_status", "{}");
    assert_eq!(a.appctl("bfd/show"), "");
    b.wait_for("interface", "t0", "bfd_status:state", "down");
}

#[test]
fn open_vswitch() {
    let mut hosts = [Host::new("hA", 11), Host::new("ovs", 42)];
    cable(&hosts, 1500);
    let ovs = Ovs::start(&hosts[1]);
    ovs.underlay(&hosts[1], UNDERLAY[1], "10.0.42.1/16");
    hosts[0].start();
    hosts[0].overlay();
    for kind in ["gre", "geneve"] {
        watch(&hosts, kind);
        states(&hosts, "up");
        lives(&hosts);
        hosts[1].vsctl("set interface t0 bfd:cpath_down=true");
        hosts[0].wait_for("interface", "t0", "bfd_status:remote_diagnostic", "Concatenated Path Down");
        assert_eq!(hosts[0].get("interface", "t0", "bfd_status:forwarding"), "false");
        hosts[1].vsctl("set interface t0 bfd:cpath_down=false");
        hosts[0].wait_for("interface", "t0", "bfd_status:forwarding", "true");
        hosts[1].vsctl("del-port t0");
        hosts[0].wait_for("interface", "t0", "bfd_status:diagnostic", "Control Detection Time Expired");
        hosts[0].vsctl("del-port t0");
    }
}
