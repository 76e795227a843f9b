//! Two hosts for a sweep: each container's veth is a port of Underpass itself, and any number of tunnels lead from A to
//! addresses of B.

use std::fmt::Write;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::traffic::{BURST, Mac, Traffic, mac};
use crate::interrupted;
use crate::noise;
use crate::peers::underpass::{Daemon, Road};
use crate::syscalls::device_packets;
use crate::topo::{Host, Topology};

/// Offered while CPU time is measured: all of it must pass.
const STEADY: f64 = 40_000.0;
const TIME: Duration = Duration::from_secs(1);
/// Tunnels configured in one transaction.
const AT_ONCE: usize = 100;
/// Entries of a table unless told otherwise, and the most there may be.
const TABLE: usize = 8192;
const MOST_ENTRIES: usize = 1_000_000;
/// How long key exchanges with every address may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// What one point of a sweep gave.
#[derive(Debug, Clone, Copy, serde::Serialize)]
pub struct Cost {
    /// Thousand frames a second that arrived when as many as possible were sent.
    pub kpps: f64,
    /// CPU time of both switches for each frame that arrived, of a steady 40,000 a second, less what they take when idle; µs.
    pub us_per_frame: f64,
    /// CPU time that both take when idle, parts of a core.
    pub idle_cores: f64,
    /// Memory of the larger switch, 10^6 bytes.
    pub resident_mb: f64,
}

/// Both hosts, running.
#[derive(Debug)]
pub struct Scene {
    a: Daemon,
    b: Daemon,
    tunnels: usize,
    sources: usize,
    hosts: Topology,
}

/// Rows of addresses: sources behind A, destinations behind B.
const SOURCES: u8 = 1;
const DESTINATIONS: u8 = 2;

impl Scene {
    /// `tunnels` of that road, and tables that hold as many `sources` as well.
    pub fn new(binary: &Path, road: &Road, tunnels: usize, sources: usize, dir: &Path) -> Result<Scene> {
        let hosts = Topology::new(1500)?;
        let entries = (sources + tunnels).clamp(TABLE, MOST_ENTRIES);
        let a = start(binary, &hosts.a, entries, dir)?;
        let b = start(binary, &hosts.b, entries, dir)?;
        let mut addresses = String::new();
        (0..tunnels).for_each(|i| _ = writeln!(addresses, "address add {}/32 dev lo", address(i)));
        let batch = dir.join("addresses");
        std::fs::write(&batch, addresses)?;
        hosts.b.ns.run("ip", &["-batch", &batch.to_string_lossy()])?;
        hosts.a.ns.run("ip", &["route", "add", "10.77.0.0/16", "via", hosts.b.underlay_ip])?;
        for first in (0..tunnels).step_by(AT_ONCE) {
            let each = first..tunnels.min(first + AT_ONCE);
            let line = |i: usize, ends: String| {
                format!("-- add-port br0 gre{i} -- set interface gre{i} {} {ends}", road.interface)
            };
            let there = |i| line(i, format!("options:remote_ip={}", address(i)));
            let here = hosts.a.underlay_ip;
            let back = |i| line(i, format!("options:local_ip={} options:remote_ip={here}", address(i)));
            a.vsctl(&each.clone().map(there).collect::<Vec<_>>().join(" "))?;
            b.vsctl(&each.map(back).collect::<Vec<_>>().join(" "))?;
        }
        // what is too many for the table is left out, so that nobody is pushed out
        let sources = sources.min(entries - tunnels);
        let scene = Scene { a, b, tunnels, sources, hosts };
        scene.place_destinations()?;
        Ok(scene)
    }

    /// Every destination is behind its tunnel for A, and behind its container for B. Nothing is ever flooded: that would go
    /// round in circles where two tunnels join the same two switches.
    fn place_destinations(&self) -> Result<()> {
        for i in 0..self.tunnels {
            let [a, b, c, d, e, f] = destination(i);
            let mac = format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}");
            self.a.appctl(&format!("fdb/add br0 gre{i} 0 {mac}"))?;
            self.b.appctl(&format!("fdb/add br0 vc0 0 {mac}"))?;
        }
        Ok(())
    }

    /// Every source, spread over the tunnels, sends frames of `len` bytes in turn.
    pub fn measure(&self, len: usize) -> Result<Cost> {
        let sources = self.sources.max(self.tunnels);
        let pairs = (0..sources).map(|i| (mac(SOURCES, i), destination(i % self.tunnels))).collect();
        // between tunnels a burst each, as flows are; between addresses of one tunnel a frame each
        let row = if self.tunnels > 1 { BURST } else { 1 };
        let mut traffic = Traffic::new(&self.hosts.a.container, len, pairs, row)?;
        self.wait_for_tunnels(&mut traffic)?;

        let before = (self.cpu()?, Instant::now());
        sleep(TIME);
        let idle_cores = (self.cpu()? - before.0) / before.1.elapsed().as_secs_f64();

        let before = (self.cpu()?, self.arrived()?, Instant::now());
        let sent = traffic.send(STEADY, TIME)?;
        sleep(Duration::from_millis(100));
        let after = (self.cpu()?, self.arrived()?);
        let arrived = after.1 - before.1;
        if (arrived as f64) < 0.98 * sent as f64 {
            bail!("{arrived} of {sent} frames arrived at a steady {STEADY} a second");
        }
        let idle = idle_cores * before.2.elapsed().as_secs_f64();
        let us_per_frame = (after.0 - before.0 - idle) * 1e6 / arrived as f64;

        let before = self.arrived()?;
        traffic.send(f64::INFINITY, TIME)?;
        let kpps = (self.arrived()? - before) as f64 / TIME.as_secs_f64() / 1e3;
        let resident_mb = noise::resident_mb(self.a.job.pid())?.max(noise::resident_mb(self.b.job.pid())?);
        Ok(Cost { kpps, us_per_frame, idle_cores, resident_mb })
    }

    /// Sends from every source until everything arrives: sources are learned then, and keys are agreed on.
    fn wait_for_tunnels(&self, traffic: &mut Traffic) -> Result<()> {
        let end = Instant::now() + PATIENCE;
        let lap = traffic.lap() as u64;
        loop {
            let before = self.arrived()?;
            traffic.send_lap(STEADY)?;
            sleep(Duration::from_millis(100));
            let arrived = self.arrived()? - before;
            if arrived >= lap {
                return Ok(());
            }
            if interrupted() || Instant::now() > end {
                bail!("of {lap} frames through {} tunnels {arrived} arrived", self.tunnels);
            }
            sleep(Duration::from_millis(400));
        }
    }

    fn cpu(&self) -> Result<f64> {
        Ok(noise::run_time(self.a.job.pid())? + noise::run_time(self.b.job.pid())?)
    }

    fn arrived(&self) -> Result<u64> {
        Ok(device_packets(&self.hosts.b.container, "eth0")?.0)
    }
}

/// The daemon, with a bridge for so many addresses that the container's veth is a port of.
fn start(binary: &Path, host: &Host, entries: usize, dir: &Path) -> Result<Daemon> {
    host.ns.run("ip", &["link", "set", "vc0", "nomaster"])?;
    let daemon = Daemon::start(binary, host, dir, None)?;
    let size = format!("set bridge br0 other_config:mac-table-size={entries}");
    daemon.vsctl(&format!("add-br br0 -- {size} -- add-port br0 vc0")).context("configure the bridge")?;
    Ok(daemon)
}

fn destination(tunnel: usize) -> Mac {
    mac(DESTINATIONS, tunnel)
}

/// B's end of that tunnel.
fn address(tunnel: usize) -> String {
    format!("10.77.{}.{}", tunnel / 250, tunnel % 250 + 1)
}
