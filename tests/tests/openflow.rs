//! What OpenFlow clients are told unasked: `ovs-ofctl monitor` beside Underpass and beside Open vSwitch while the same happens to
//! the ports of both.

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use harness::ovs::Ovs;
use harness::topology::{Place, Shell};
use harness::{Host, Netns, cli, poll};

/// Versions, as `ovs-ofctl` is told them.
const VERSIONS: [&str; 2] = ["OpenFlow10", "OpenFlow13"];

/// A bridge with p0, and p1 beside it, whose far ends are q0 and q1.
fn configure(host: &Host, far: &Netns) {
    for i in [0, 1] {
        host.ns.veth(&format!("p{i}"), far, &format!("q{i}"), 1500);
        host.sh(&format!("ip link set p{i} address 02:00:00:00:00:0{i}"));
    }
    host.vsctl(
        "add-br br0 -- set bridge br0 datapath_type=netdev other_config:hwaddr=02:00:00:00:00:aa -- add-port br0 p0",
    );
}

/// `ovs-ofctl monitor`, and how much of what it printed has been looked at.
struct Monitor {
    child: Child,
    log: std::path::PathBuf,
    seen: usize,
}

impl Monitor {
    fn start(host: &Host, name: &str, args: &str) -> Monitor {
        let log = host.rundir().join(name);
        let mut command = host.bound("ovs-ofctl");
        command.env("OVS_RUNDIR", host.rundir()).args(["-vvconn:file:dbg"]);
        command.arg(format!("--log-file={}.log", log.display())).args(args.split_whitespace());
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&log).expect("a file"))
            .spawn()
            .expect("ovs-ofctl");
        let monitor = Monitor { child, log, seen: 0 };
        // behind the last that it asks for before it listens
        let log = std::path::PathBuf::from(format!("{}.log", monitor.log.display()));
        poll("the monitor to listen", || {
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            let after = said.split_once("sent (Success): NXT_SET_PACKET_IN_FORMAT")?.1;
            after.contains("received: OFPT_BARRIER_REPLY").then_some(())
        });
        monitor
    }

    /// The messages since [`Monitor::done`]: of each whether a port came, went or changed, the port, and the rest.
    fn messages(&self) -> Vec<[String; 3]> {
        let said = std::fs::read_to_string(&self.log).unwrap();
        let new = said.get(self.seen..).unwrap_or_default();
        let whole = new.split("(xid=0x0): ").skip(1).filter(|m| m.contains("Mbps max\n"));
        let parts = whole.map(|m| {
            let m = m.split("OFPT").next().unwrap_or_default().trim_end();
            let (kind, rest) = m.split_once(": ").expect("a port");
            let (port, rest) = rest.split_once(": addr:").expect("its address");
            // of a tunnel each of the two makes one up
            let rest = if port.contains("(g0)") { &rest[17..] } else { rest };
            [kind, port, rest].map(str::to_owned)
        });
        parts.collect()
    }

    fn done(&mut self) {
        self.seen = std::fs::read_to_string(&self.log).unwrap().len();
    }

    /// Of each port what it came to. Open vSwitch says of some states that do not last: what comes up is down at first.
    fn outcome(&self) -> Vec<[String; 3]> {
        let mut outcome: Vec<[String; 3]> = Vec::new();
        for message in self.messages() {
            let before = outcome.iter_mut().rfind(|m| m[1] == message[1]);
            match (before, message[0].as_str()) {
                (Some(before), "MOD") if before[0] != "DEL" => before[2] = message[2].clone(),
                (Some(before), "DEL") if before[0] == "MOD" => *before = message,
                _ => outcome.push(message),
            }
        }
        outcome.sort();
        outcome
    }

    /// The same, as a step of the test says it: the address, speeds and kinds of the link left out.
    fn brief(&self) -> Vec<String> {
        let brief = |[kind, port, rest]: &[String; 3]| {
            let after = |what: &str| {
                let line = rest.lines().find_map(|line| line.trim().strip_prefix(what));
                line.unwrap_or_default().trim().to_owned()
            };
            format!("{kind}: {port} {} {}", after("config:"), after("state:"))
        };
        self.outcome().iter().map(brief).collect()
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn ports_as_open_vswitch_tells_of_them() {
    let (mut ours, far) = (Host::new("ours", 11), Netns::new("far"));
    let (real, real_far) = (Host::new("real", 11), Netns::new("far"));
    ours.start();
    let _ovs = Ovs::start(&real);
    let hosts = [(&ours, &far), (&real, &real_far)];
    let mut monitors = Vec::new();
    let mut silent = Vec::new();
    for (host, far) in hosts {
        configure(host, far);
        for version in VERSIONS {
            monitors.push(Monitor::start(host, version, &format!("-O {version} monitor br0 128")));
        }
        silent.push(Monitor::start(host, "nothing", "monitor br0"));
    }
    // what is done, and what 1.0 and 1.3 say of it
    let steps: [(&str, &[&str], &[&str]); 15] = [
        ("ovs-vsctl add-port br0 p1", &["ADD: 2(p1) 0 0"], &["ADD: 2(p1) 0 LIVE"]),
        ("far ip link set q1 down", &["MOD: 2(p1) 0 LINK_DOWN"], &["MOD: 2(p1) 0 LINK_DOWN"]),
        ("far ip link set q1 up", &["MOD: 2(p1) 0 0"], &["MOD: 2(p1) 0 LIVE"]),
        ("ovs-ofctl mod-port br0 p1 no-flood", &["MOD: 2(p1) NO_FLOOD 0"], &[]),
        (
            "ovs-ofctl mod-port br0 p1 no-packet-in",
            &["MOD: 2(p1) NO_FLOOD NO_PACKET_IN 0"],
            &["MOD: 2(p1) NO_PACKET_IN LIVE"],
        ),
        (
            "ovs-ofctl mod-port br0 p1 down",
            &["MOD: 2(p1) PORT_DOWN NO_FLOOD NO_PACKET_IN LINK_DOWN"],
            &["MOD: 2(p1) PORT_DOWN NO_PACKET_IN LINK_DOWN"],
        ),
        ("ip link set p1 up", &["MOD: 2(p1) NO_FLOOD NO_PACKET_IN 0"], &["MOD: 2(p1) NO_PACKET_IN LIVE"]),
        (
            "ip link set p1 address 02:00:00:00:00:77",
            &["MOD: 2(p1) NO_FLOOD NO_PACKET_IN 0"],
            &["MOD: 2(p1) NO_PACKET_IN LIVE"],
        ),
        (
            "ovs-vsctl add-port br0 g0 -- set interface g0 type=gre options:remote_ip=192.0.2.9",
            &["ADD: 3(g0) 0 0"],
            &["ADD: 3(g0) 0 LIVE"],
        ),
        ("ip link set br0 up", &["MOD: LOCAL(br0) 0 0"], &["MOD: LOCAL(br0) 0 LIVE"]),
        ("ovs-ofctl mod-port br0 p1 packet-in", &["MOD: 2(p1) NO_FLOOD 0"], &["MOD: 2(p1) 0 LIVE"]),
        ("ovs-ofctl mod-port br0 p1 flood", &["MOD: 2(p1) 0 0"], &[]),
        (
            "ovs-vsctl del-port g0 -- set interface p1 ofport_request=9",
            &["ADD: 9(p1) 0 0", "DEL: 2(p1) 0 0", "DEL: 3(g0) 0 0"],
            &["ADD: 9(p1) 0 LIVE", "DEL: 2(p1) 0 LIVE", "DEL: 3(g0) 0 LIVE"],
        ),
        ("ovs-vsctl del-port p1", &["DEL: 9(p1) 0 0"], &["DEL: 9(p1) 0 LIVE"]),
        (
            "ovs-vsctl add-port br0 p1 -- set interface p1 ofport_request=7",
            &["ADD: 7(p1) 0 0"],
            &["ADD: 7(p1) 0 LIVE"],
        ),
    ];
    // the way to the tunnel's far end; without one ours says that its link is down
    for (host, _) in hosts {
        host.sh("ip link set lo up; ip route add 192.0.2.0/24 dev lo");
    }
    for (what, v10, v13) in steps {
        for (host, far) in hosts {
            match what.split_once(' ').expect("a command") {
                ("far", command) => far.sh(command),
                ("ip", _) => host.sh(what),
                (program, rest) => {
                    let args = rest.split_whitespace();
                    cli::output(host.tool(program).args(args)).ok()
                }
            };
        }
        let deadline = Instant::now() + cli::LATEST;
        for (i, want) in [(0, v10), (1, v13), (2, v10), (3, v13)] {
            while monitors[i].brief() != want {
                let who = if i < 2 { "Underpass" } else { "Open vSwitch" };
                assert!(Instant::now() < deadline, "{what}: {who}: {:#?}", monitors[i].messages());
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        for i in [0, 1] {
            assert_eq!(monitors[i].outcome(), monitors[i + 2].outcome(), "{what}");
        }
        monitors.iter_mut().for_each(Monitor::done);
    }
    for monitor in &silent {
        assert!(monitor.messages().is_empty(), "who asks for nothing is told nothing");
    }
    // another datapath: who listens is let go, and asks again
    for (host, _) in hosts {
        host.vsctl("set bridge br0 other_config:datapath-id=00000000000000bb");
    }
    for monitor in &mut monitors {
        let ended = cli::wait(&mut monitor.child, cli::LATEST);
        assert!(ended.is_some(), "{:?}", monitor.messages());
    }
}
