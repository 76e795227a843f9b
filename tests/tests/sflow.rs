//! sFlow: the same settings typed into Underpass and into Open vSwitch, the same frames sent into the ports of both, and what a
//! collector gets from each compared; and tunnels, rates, addresses of Underpass alone.

use std::process::Stdio;

use harness::frames::{Frames, frame};
use harness::ovs::Ovs;
use harness::sflow::{Collector, Flow, Records, find};
use harness::topology::{UNDERLAY, reaches, two_switches, wired};
use harness::{Host, Netns, poll};

/// What each port is told, in the language of `ovs-vsctl set port`.
const PORTS: [&str; 4] = ["", "tag=10", "trunks=10,20", "tag=10"];
const BROADCAST: [u8; 6] = [0xff; 6];
/// To nobody beyond its link.
const RESERVED: [u8; 6] = [1, 0x80, 0xc2, 0, 0, 0xe];

/// Formats of records.
const RAW_HEADER: u32 = 1;
const IF_COUNTERS: u32 = 1;
const EXTENDED_SWITCH: u32 = 1001;
const TUNNEL_EGRESS: u32 = 1023;
const TUNNEL_INGRESS: u32 = 1024;
const VNI_EGRESS: u32 = 1029;
const VNI_INGRESS: u32 = 1030;
const PORT_NAME: u32 = 1005;
/// The switch as a source.
const SWITCH: u32 = 0x0200_03e8;

/// A switch with a port for each of [`PORTS`], the devices at their far ends, and a collector on another wire.
struct Bench {
    host: Host,
    frames: Frames,
    collector: Collector,
    _far: Netns,
}

impl Bench {
    fn hosts(tag: &str) -> (Host, Netns) {
        let (host, far) = wired(tag, PORTS.len());
        host.ns.veth("m0", &far, "c0", 1500);
        host.ns.sh("ip addr add 192.0.2.1/24 dev m0");
        far.sh("ip addr add 192.0.2.2/24 dev c0");
        (host, far)
    }

    fn configured(host: Host, far: Netns) -> Bench {
        host.vsctl(
            "add-br br0 -- set bridge br0 datapath_type=netdev other_config:datapath-id=0000020000000abc",
        );
        for (i, settings) in PORTS.iter().enumerate() {
            let set =
                if settings.is_empty() { String::new() } else { format!("-- set port p{i} {settings}") };
            host.vsctl(&format!("add-port br0 p{i} {set}"));
        }
        let devices: Vec<String> = (0..PORTS.len()).map(|i| format!("q{i}")).collect();
        let (frames, collector) = (Frames::start(&far, &devices), Collector::start(&far, 6343));
        host.vsctl(
            "-- --id=@s create sflow agent=m0 target=\"192.0.2.2:6343\" header=64 sampling=1 polling=1 \
             -- set bridge br0 sflow=@s",
        );
        Bench { host, frames, collector, _far: far }
    }

    /// The name of the port with that index.
    fn port(&self, index: u32) -> String {
        let links = self.host.ns.sh("ip -o link show");
        let line = links.lines().find(|line| line.starts_with(&format!("{index}: ")));
        let name = line.and_then(|line| line.split([' ', '@', ':']).nth(2));
        name.unwrap_or_else(|| panic!("no device {index}: {links}")).to_owned()
    }

    fn output(&self, output: u32) -> String {
        match output >> 30 {
            0 => self.port(output),
            1 => format!("discarded {:#x}", output & 0x3fff_ffff),
            _ => format!("{} ports", output & 0x3fff_ffff),
        }
    }

    /// All that is told of a packet, devices by their names. Of several outputs Open vSwitch tells the VLAN of the last, in an
    /// order of its own.
    fn told(&self, flow: &Flow) -> (String, String, [u32; 5], Records) {
        let numbers = [flow.sequence, flow.source, flow.rate, flow.pool, flow.drops];
        let mut records = flow.records.clone();
        if flow.output >> 30 == 2
            && let Some((_, switch)) = records.iter_mut().find(|(format, _)| *format == EXTENDED_SWITCH)
        {
            switch[8..].fill(0);
        }
        (self.port(flow.input), self.output(flow.output), numbers, records)
    }

    /// What is told of each port: its name, and the records but for the index and what Open vSwitch has from the device.
    fn counters(&self) -> Vec<(String, Records)> {
        let sources = self.collector.counters.iter().filter(|(source, _)| **source != SWITCH);
        let mut all: Vec<_> = sources
            .map(|(source, (_, records))| {
                let name = find(records, PORT_NAME).expect("a name");
                let name = String::from_utf8_lossy(&name[4..]).trim_end_matches('\0').to_owned();
                assert_eq!(name, self.port(*source));
                let comparable = |(format, bytes): &(u32, Vec<u8>)| {
                    let mut bytes = bytes.clone();
                    if *format == IF_COUNTERS {
                        assert_eq!(bytes[..4], source.to_be_bytes());
                        bytes[..4].fill(0);
                        // multicast, discards; of the bridge's own port all that passed
                        bytes[36..40].fill(0);
                        bytes[44..48].fill(0);
                        if name == "br0" {
                            bytes[24..].fill(0);
                        }
                    }
                    (*format, bytes)
                };
                let records = records.iter().map(comparable).collect();
                (name, records)
            })
            .collect();
        all.sort();
        all
    }
}

/// A port, an address, tags.
type Sent<'a> = (u8, [u8; 6], &'a [[u8; 4]]);

fn station(port: u8) -> [u8; 6] {
    [2, 0, 0, 0, 1, port]
}

#[test]
fn collectors_get_what_open_vswitch_sends() {
    let (mut ours, far) = Bench::hosts("ours");
    let (real, real_far) = Bench::hosts("real");
    let _ovs = Ovs::start(&real);
    ours.start();
    let mut both = [Bench::configured(ours, far), Bench::configured(real, real_far)];
    let tag = |vid: u8| [0x81, 0, 0x60, vid];
    let sent: &[Sent] = &[
        (0, BROADCAST, &[]),
        (0, station(9), &[tag(20)]),
        (2, BROADCAST, &[tag(20)]),
        (0, station(2), &[tag(20)]),
        (1, BROADCAST, &[]),
        (3, station(1), &[]),
        (2, BROADCAST, &[tag(10)]),
        (2, station(1), &[tag(10)]),
        (1, station(2), &[]),
        (1, station(1), &[]),
        (2, BROADCAST, &[tag(30)]),
        (1, BROADCAST, &[tag(30)]),
        (0, RESERVED, &[]),
        (0, station(9), &[[0x88, 0xa8, 0, 20], tag(7)]),
    ];
    for (number, (port, dst, tags)) in (0..).zip(sent) {
        let mut bytes = frame(number, *dst, station(*port), tags);
        bytes.resize(bytes.len() + 50 * number as usize, 0x33);
        for bench in &mut both {
            bench.frames.send(&format!("q{port}"), &bytes);
        }
        // what is learned at one port is known at the next
        both.iter().for_each(|bench| _ = bench.frames.settled());
    }
    for bench in &mut both {
        bench.collector.until("all samples", |c| c.flows.len() >= sent.len());
        // each has had its turn again
        let before = bench.collector.counters.clone();
        bench.collector.until("all counters", |c| {
            let newer = |(source, (n, _)): (&u32, &(u32, Records))| {
                before.get(source).is_none_or(|(first, _)| *n > first + 1)
            };
            c.counters.len() == PORTS.len() + 2 && c.counters.iter().all(newer)
        });
    }
    let [ours, real] = &both;
    for bench in &both {
        assert_eq!(bench.collector.flows.len(), sent.len());
        for (i, (agent, sub_agent, number)) in bench.collector.headers.iter().enumerate() {
            assert_eq!((&agent[..], *sub_agent, *number as usize), (&[192, 0, 2, 1][..], 0, i + 1));
        }
    }
    for (i, (got, want)) in ours.collector.flows.iter().zip(&real.collector.flows).enumerate() {
        assert_eq!(ours.told(got), real.told(want), "frame {i}, {:?}", sent[i]);
    }
    assert_eq!(ours.counters(), real.counters());
    let formats = |bench: &Bench| -> Vec<(u32, usize)> {
        let (_, records) = &bench.collector.counters[&SWITCH];
        records.iter().map(|(format, bytes)| (*format, bytes.len())).collect()
    };
    assert_eq!(formats(ours), formats(real), "of the switch");
}

/// Turns sFlow on for br0, to 127.0.0.1 on its own host.
fn sample(host: &Host, columns: &str) {
    host.vsctl(&format!("-- --id=@s create sflow {columns} -- set bridge br0 sflow=@s"));
}

#[test]
fn tunnels_and_what_tshark_reads() {
    let hosts = two_switches(1500);
    let [a, b] = &hosts;
    for (kind, protocol, port) in [("gre", 47, 0), ("vxlan", 17, 4789)] {
        for (host, remote) in hosts.iter().zip([UNDERLAY[1], UNDERLAY[0]]) {
            host.vsctl(&format!(
                "add-port br0 t0 -- set interface t0 type={kind} options:remote_ip={remote} options:key=77"
            ));
        }
        reaches(a, &b.docker0());
        let mut collector = Collector::start(&a.ns, 6343);
        sample(a, "target=127.0.0.1 agent=u0 sampling=1 polling=0");
        // the datapath goes by it before the command returns
        harness::traffic::ping(a, &b.docker0(), 3);
        let is_ping = |flow: &&Flow| {
            flow.record(RAW_HEADER)
                .is_some_and(|raw| raw.len() > 50 && raw[16 + 23] == 1 && raw[16 + 12] == 8)
        };
        collector.until("pings and answers", |c| c.flows.iter().filter(is_ping).count() >= 6);
        let addresses = |src: &str, dst: &str| {
            let ip = |text: &str| text.parse::<std::net::Ipv4Addr>().expect("an address").octets();
            let mut bytes = [0, 0, 0, 0, 0, 0, 0, protocol].to_vec();
            bytes.extend(ip(src));
            bytes.extend(ip(dst));
            bytes.extend([[0; 4], u32::from(port as u16).to_be_bytes(), [0; 4], [0; 4]].concat());
            bytes
        };
        let own: u32 = a.get("interface", "br0", "ifindex").parse().expect("an index");
        let mut seen = [0, 0];
        for flow in collector.flows.iter().filter(is_ping) {
            let out = flow.input == own;
            seen[usize::from(out)] += 1;
            let (vni, tunnel, want) = match out {
                true => (VNI_EGRESS, TUNNEL_EGRESS, addresses(UNDERLAY[0], UNDERLAY[1])),
                false => (VNI_INGRESS, TUNNEL_INGRESS, addresses(UNDERLAY[1], UNDERLAY[0])),
            };
            // a tunnel has no index, and so one that a packet leaves by is one of several
            let ports = if out { (own, 0x8000_0001) } else { (0, own) };
            assert_eq!((flow.input, flow.output), ports, "{flow:?}");
            assert_eq!(flow.record(vni), Some(&[0, 0, 0, 77][..]), "{kind} {flow:?}");
            assert_eq!(flow.record(tunnel), Some(&want[..]), "{kind} {flow:?}");
            assert_eq!(flow.record(EXTENDED_SWITCH), Some(&[0; 16][..]));
        }
        assert!(seen[0] >= 3 && seen[1] >= 3, "{kind}: {seen:?}");
        let fields = ["sflow_245.agent", "sflow.flow_sample.sampling_rate"];
        for line in collector.tshark(&fields) {
            assert!(line.starts_with("\t192.0.2.1\t1"), "{line}");
        }
        a.vsctl("clear bridge br0 sflow");
        hosts.iter().for_each(|host| _ = host.vsctl("del-port t0"));
    }
}

#[test]
fn one_in_ten_to_several_collectors_until_it_is_turned_off() {
    let hosts = two_switches(1500);
    let [a, b] = &hosts;
    for (host, remote) in hosts.iter().zip([UNDERLAY[1], UNDERLAY[0]]) {
        host.gre("gre0", remote, "");
    }
    reaches(a, &b.docker0());
    let mut collectors = [Collector::start(&a.ns, 6343), Collector::start(&a.ns, 7777)];
    // the last two are not there, and that stops nothing
    sample(
        a,
        "targets=[\"[::1]\",\"127.0.0.1:7777\",\"127.0.0.1:9\",\"collector.example:1\"] agent=\"::1\" sampling=10 polling=0",
    );
    // what is sent to a socket that nobody reads is lost: it is read meanwhile
    let mut ping = a.ns.bound("ping");
    let mut ping =
        ping.args(["-q", "-f", "-c1500", &b.docker0()]).stdout(Stdio::null()).spawn().expect("ping");
    // 3,000 packets give 300 samples, and the deviation is 10
    let seen = |c: &Collector| c.flows.len() >= 230;
    for collector in &mut collectors {
        collector.until("samples", seen);
        let last = collector.flows.last().expect("a sample");
        assert_eq!((last.rate, last.drops), (10, 0));
        let agent = &collector.headers[0].0;
        assert_eq!(agent[..], std::net::Ipv6Addr::LOCALHOST.octets());
    }
    poll("all that has passed in the pool", || {
        collectors[0].until("", |_| true);
        let last = collectors[0].flows.last().expect("a sample");
        // two workers, of which each has skipped less than twenty
        (last.pool > 2_900).then_some(())
    });
    let flows = &collectors[0].flows;
    let ratio = f64::from(flows.last().expect("a sample").pool) / flows.len() as f64;
    assert!((8.0..12.5).contains(&ratio), "one in {ratio}");
    assert!(flows.iter().zip(1..).all(|(flow, number)| flow.sequence == number));
    assert!(flows.windows(2).all(|two| two[0].pool < two[1].pool));
    assert!(ping.wait().expect("ping").success());
    let log = a.log();
    assert!(log.contains("sFlow target 'collector.example:1' is not ip:port"), "{log}");
    // other settings are another agent's, which goes by another address
    let before = collectors[1].headers.len();
    a.vsctl("set sflow . sampling=1 agent=u0 targets=\"127.0.0.1:7777\"");
    harness::traffic::ping(a, &b.docker0(), 2);
    collectors[1].until("the new agent", |c| {
        c.headers[before..].iter().any(|(agent, _, number)| (&agent[..], *number) == (&[192, 0, 2, 1][..], 1))
    });
    a.vsctl("clear bridge br0 sflow");
    collectors[1].until("what was under way", |_| true);
    let off = collectors[1].flows.len();
    harness::traffic::ping(a, &b.docker0(), 2);
    collectors[1].until("", |_| true);
    assert_eq!(collectors[1].flows.len(), off, "it is off");
}
