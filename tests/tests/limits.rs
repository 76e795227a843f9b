//! What a bridge keeps apart or holds back: protected ports, ports without floods, policing, storms.

use std::collections::BTreeMap;
use std::time::Instant;

use harness::frames::{Frames, frame};
use harness::ovs::Ovs;
use harness::topology::wired;
use harness::{Host, Netns, cli};

const BROADCAST: [u8; 6] = [0xff; 6];
const PORTS: usize = 4;

/// A switch with ports p0 to p3, and the devices q0 to q3 at their far ends.
struct Bench {
    host: Host,
    frames: Frames,
    _ovs: Option<Ovs>,
    _far: Netns,
}

/// So many at each of these devices.
fn all(count: u32, devices: &[&str]) -> BTreeMap<String, u32> {
    devices.iter().map(|device| (device.to_string(), count)).collect()
}

fn station(port: usize) -> [u8; 6] {
    [2, 0, 0, 0, 1, port as u8]
}

impl Bench {
    fn new(real: bool) -> Bench {
        let (mut host, far) = wired("one", PORTS);
        let devices: Vec<String> = (0..PORTS).map(|i| format!("q{i}")).collect();
        let ovs = real.then(|| Ovs::start(&host));
        if !real {
            host.start();
        }
        host.vsctl("add-br br0 -- set bridge br0 datapath_type=netdev");
        for i in 0..PORTS {
            host.vsctl(&format!("add-port br0 p{i}"));
        }
        let frames = Frames::start(&far, &devices);
        Bench { host, frames, _ovs: ovs, _far: far }
    }

    /// Sends `count` frames out of a device, until all that arrives has; returns when it began.
    fn send(&mut self, port: usize, first: u32, count: u32, dst: [u8; 6], len: usize) -> Instant {
        let start = Instant::now();
        for number in first..first + count {
            let mut bytes = frame(number, dst, station(port), &[]);
            bytes.resize(len.max(bytes.len()), 0x5a);
            self.frames.send(&format!("q{port}"), &bytes);
        }
        self.frames.settled();
        start
    }

    /// How many of the frames from number `first` on arrived at each device.
    fn arrived(&self, first: u32) -> BTreeMap<String, u32> {
        let mut at = BTreeMap::new();
        for (device, _) in self.frames.settled().range(first..).flat_map(|(_, copies)| copies) {
            *at.entry(device.clone()).or_default() += 1;
        }
        at
    }

    /// Waits until all of those from number `first` on arrived where they are to, and nowhere else.
    #[track_caller]
    fn arrive(&self, first: u32, want: &BTreeMap<String, u32>) {
        cli::poll(&format!("{want:?}"), || (self.arrived(first) == *want).then_some(()));
    }

    /// How many arrived at `at` once the others are counted as dropped for that reason, and how many seconds that took from
    /// `start` on.
    #[track_caller]
    fn arrived_but(&self, start: Instant, first: u32, why: &str, sent: u32, at: &str) -> (u32, f64) {
        cli::poll(&format!("all of {sent} frames to be here or counted"), || {
            let arrived = self.arrived(first).get(at).copied().unwrap_or(0);
            (u64::from(sent - arrived) == self.host.count(why))
                .then(|| (arrived, start.elapsed().as_secs_f64()))
        })
    }
}

/// The same settings and frames under Open vSwitch and Underpass.
#[test]
fn ports_kept_apart_or_without_floods_as_in_open_vswitch() {
    let seen = [false, true].map(|real| {
        let mut bench = Bench::new(real);
        bench.host.vsctl("set port p0 protected=true -- set port p1 protected=true");
        cli::run(bench.host.tool("ovs-ofctl").args(["mod-port", "br0", "p3", "no-flood"]));
        let mut first = 0;
        // Open vSwitch goes by it a moment later
        cli::poll("protected, and no flood", || {
            first += 1;
            bench.send(0, first, 1, BROADCAST, 60);
            (bench.arrived(first) == all(1, &["q2"])).then_some(())
        });
        let mut sent = Vec::new();
        first = 1000;
        for dst in [BROADCAST, [1, 0, 0x5e, 1, 2, 3], station(1), station(3)] {
            for from in 0..PORTS {
                bench.send(from, first, 1, dst, 60);
                sent.push((first, from, dst));
                first += 1;
            }
        }
        let seen = bench.frames.settled();
        let devices = |number: u32| -> Vec<String> {
            seen.get(&number).into_iter().flatten().map(|(device, _)| device.clone()).collect()
        };
        sent.into_iter().map(|(number, from, dst)| (from, dst, devices(number))).collect::<Vec<_>>()
    });
    let [ours, theirs] = seen;
    assert_eq!(ours, theirs);
    // and it is not that nothing arrives anywhere
    assert_eq!(ours[2].2, ["q0", "q1"]);
}

#[test]
fn what_comes_in_is_held_to_a_rate() {
    let mut bench = Bench::new(false);
    bench.host.vsctl("set interface p0 ingress_policing_rate=800 ingress_policing_burst=80");
    let start = bench.send(0, 0, 1000, BROADCAST, 1000);
    let (arrived, took) = bench.arrived_but(start, 0, "drop_policed_rate", 1000, "q1");
    let most = (80_000.0 + 800_000.0 * took) / 8000.0 + 2.0;
    assert!((10..=most as u32).contains(&arrived), "{arrived} of 1000, {most} in {took} s");

    bench.host.vsctl("set interface p0 ingress_policing_rate=0");
    bench.host.vsctl("set interface p1 ingress_policing_kpkts_rate=1 ingress_policing_kpkts_burst=1");
    let start = bench.send(1, 10_000, 4000, BROADCAST, 60);
    let (arrived, took) = bench.arrived_but(start, 10_000, "drop_policed_kpkts", 4000, "q0");
    let most = 1000.0 + 1000.0 * took + 2.0;
    assert!((1000..=most as u32).contains(&arrived), "{arrived} of 4000, {most} in {took} s");

    // without a limit nothing is held back
    bench.send(0, 20_000, 500, BROADCAST, 1000);
    bench.arrive(20_000, &all(500, &["q1", "q2", "q3"]));
}

#[test]
fn a_storm_stays_at_its_port() {
    let mut bench = Bench::new(false);
    bench.host.vsctl(
        "set port p0 other_config:storm-control-broadcast-pps=200 \
         other_config:storm-control-unknown-unicast-pps=400",
    );
    bench.send(1, 0, 1, BROADCAST, 60);
    for (first, dst, pps, why) in [
        (10_000, BROADCAST, 200.0, "drop_storm_broadcast"),
        (20_000, [2, 9, 9, 9, 9, 9], 400.0, "drop_storm_unknown_unicast"),
    ] {
        let start = bench.send(0, first, 3000, dst, 60);
        let (arrived, took) = bench.arrived_but(start, first, why, 3000, "q2");
        let most = 40.0 + pps * took + 2.0;
        assert!((20..=most as u32).contains(&arrived), "{arrived} of 3000, {most} in {took} s");
    }
    // whoever is known gets everything, and other ports may flood
    bench.send(0, 30_000, 1000, station(1), 60);
    bench.arrive(30_000, &all(1000, &["q1"]));
    bench.send(3, 40_000, 1000, BROADCAST, 60);
    bench.arrive(40_000, &all(1000, &["q0", "q1", "q2"]));
}
