//! Networks of bridges as conformance folders: each file of `topologies/` is set up twice, with Open vSwitch's bridges and with
//! Underpass', and both must come to the same tree, say the same of it, and heal alike.
//!
//! A line is a bridge: the end of its address in hexadecimal, `@` and its priority if it has one, and the LANs it is on, each
//! with `:` and its path cost if that is not 10. `cut LAN` then takes a LAN away.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use harness::Host;
use harness::ovs::Ovs;

/// Forward delays of 4 s are waited out where there are no agreements.
const LIMIT: Duration = Duration::from_secs(60);

#[derive(Debug)]
struct Member {
    bridge: usize,
    port: String,
    cost: u32,
}

#[derive(Debug, Default)]
struct Topology {
    /// Address and priority.
    bridges: Vec<(u32, u32)>,
    lans: BTreeMap<String, Vec<Member>>,
    cuts: Vec<String>,
}

impl Topology {
    fn parse(text: &str) -> Topology {
        let mut topology = Topology::default();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (first, rest) = line.split_once(' ').expect("two words");
            if first == "cut" {
                topology.cuts.push(rest.to_owned());
                continue;
            }
            let (address, priority) = first.split_once('@').unwrap_or((first, "32768"));
            let address = u32::from_str_radix(address, 16).expect("an address");
            topology.bridges.push((address, priority.parse().expect("a priority")));
            for (n, lan) in rest.split(' ').enumerate() {
                let (lan, cost) = lan.split_once(':').unwrap_or((lan, "10"));
                let bridge = topology.bridges.len() - 1;
                let member = Member {
                    bridge,
                    port: format!("{lan}-{bridge}-{}", n + 1),
                    cost: cost.parse().expect("a cost"),
                };
                topology.lans.entry(lan.to_owned()).or_default().push(member);
            }
        }
        topology
    }

    /// The ports of each LAN with their far ends. A LAN of two is a cable; any other is a bridge that takes no part in the tree,
    /// and its ports.
    fn cables(&self) -> impl Iterator<Item = (&String, &Member, String)> {
        self.lans.iter().flat_map(|(lan, members)| {
            members.iter().enumerate().map(move |(n, member)| {
                let cable = members.len() == 2;
                let far = if cable { members[1 - n].port.clone() } else { format!("hub-{}", member.port) };
                (lan, member, far)
            })
        })
    }

    /// Makes the links.
    fn links(&self, host: &Host) {
        for (_, Member { port, .. }, far) in
            self.cables().filter(|(_, m, far)| far.starts_with("hub") || m.port < *far)
        {
            host.ns.sh(&format!(
                "ip link add {port} type veth peer name {far}; ip link set {port} up; ip link set {far} up"
            ));
        }
    }

    /// What to type.
    fn commands(&self) -> Vec<String> {
        let mut commands = Vec::new();
        for (n, (address, priority)) in self.bridges.iter().enumerate() {
            commands.push(format!(
                "add-br b{n} -- set bridge b{n} datapath_type=netdev rstp_enable=true \
                 other_config:hwaddr=02:00:00:00:{:02x}:{:02x} other_config:rstp-priority={priority} \
                 other_config:rstp-forward-delay=4 other_config:rstp-max-age=6",
                address >> 8,
                address & 0xff
            ));
        }
        for (lan, _) in self.lans.iter().filter(|(_, members)| members.len() != 2) {
            commands.push(format!(
                "add-br hub-{lan} -- set bridge hub-{lan} datapath_type=netdev other_config:forward-bpdu=true"
            ));
        }
        for (lan, Member { bridge, port, cost }, far) in self.cables() {
            let cable = !far.starts_with("hub");
            let number = port.rsplit('-').next().expect("a number");
            commands.push(format!(
                "add-port b{bridge} {port} -- set port {port} other_config:rstp-path-cost={cost} \
                 other_config:rstp-port-num={number} other_config:rstp-admin-p2p-mac={}",
                u8::from(cable)
            ));
            if !cable {
                commands.push(format!("add-port hub-{lan} {far}"));
            }
        }
        commands
    }
}

/// What each bridge says of the tree, once nothing in it is on its way.
fn shown(host: &Host, bridges: usize) -> Vec<String> {
    let show = |bridge: usize| {
        let text = host.appctl(&format!("rstp/show b{bridge}"));
        let mut lines: Vec<String> = text.lines().map(|l| l.trim_end().to_owned()).collect();
        // Open vSwitch lists ports in the order of a hash
        if let Some(at) = lines.iter().position(|line| line.contains("----------")) {
            lines[at + 1..].sort_unstable();
        }
        lines.join("\n")
    };
    (0..bridges).map(show).collect()
}

fn is_settled(shown: &[String]) -> bool {
    let passing = ["Learning", "learning", "listening"];
    let lines = || shown.iter().flat_map(|text| text.lines());
    lines().all(|line| {
        let waits = line.contains("Designated") && line.contains("Discarding");
        !waits && !passing.iter().any(|state| line.contains(state))
    })
}

fn compare(name: &str, text: &str) {
    let topology = Topology::parse(text);
    let hosts = [false, true].map(|real| {
        let mut host = Host::new("one", 11);
        let ovs = real.then(|| Ovs::start(&host));
        if !real {
            host.start();
        }
        topology.links(&host);
        // one transaction: both begin with everything
        host.vsctl(&topology.commands().join(" -- "));
        (host, ovs)
    });
    let [(ours, _), (real, _ovs)] = &hosts;
    let agree = |when: &str| {
        let start = Instant::now();
        let (mine, theirs) = loop {
            let [mine, theirs] = [ours, real].map(|host| shown(host, topology.bridges.len()));
            if is_settled(&mine) && is_settled(&theirs) && mine == theirs {
                return;
            }
            if start.elapsed() > LIMIT {
                break (mine, theirs);
            }
            std::thread::sleep(Duration::from_millis(200));
        };
        for (n, (mine, theirs)) in mine.iter().zip(&theirs).enumerate() {
            assert_eq!(theirs, mine, "{name}, {when}: bridge {n}");
        }
        panic!("{name}, {when}: no rest within {LIMIT:?}: {mine:#?}");
    };
    agree("at first");
    for cut in &topology.cuts {
        for (host, _) in &hosts {
            topology.lans[cut].iter().for_each(|m| drop(host.ns.sh(&format!("ip link set {} down", m.port))));
        }
        agree(&format!("without {cut}"));
    }
}

#[test]
fn rstp_comes_to_the_same_tree_as_open_vswitch() {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/topologies");
    let mut names: Vec<_> = std::fs::read_dir(dir).expect(dir).map(|e| e.expect("a file").path()).collect();
    names.sort();
    assert!(names.len() >= 6);
    for path in names {
        let text = std::fs::read_to_string(&path).expect("a topology");
        let start = Instant::now();
        compare(&path.file_stem().expect("a name").to_string_lossy(), &text);
        println!("{}: {:.1?}", path.display(), start.elapsed());
    }
}
