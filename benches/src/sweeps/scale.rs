//! One bridge with a thousand tunnels and a hundred thousand addresses: what it takes to configure, to hold and to start again.

use std::fmt::Write;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::traffic::{Traffic, mac};
use crate::measure::in_temporary_directory;
use crate::peers::underpass::Daemon;
use crate::syscalls::device_packets;
use crate::topo::Topology;
use crate::{interrupted, noise, process, say};

/// How `--sweeps` names it.
pub const NAME: &str = "scale";

const TUNNELS: usize = 1000;
const ADDRESSES: usize = 100_000;
/// Bytes of frame.
const SMALL: usize = 106;
/// Frames a second: few enough for every one to be forwarded.
const STEADY: f64 = 40_000.0;
/// How long processor time is looked at.
const LOOK: Duration = Duration::from_secs(5);
/// Within which a switch that was killed must forward again.
const PATIENCE: Duration = Duration::from_secs(20);

/// A figure: what, how much, in which unit.
type Figure = (String, f64, &'static str);

/// Every figure.
pub fn measure(binary: &Path) -> Result<Vec<Figure>> {
    in_temporary_directory(|dir| Scale::new(binary, dir)?.measure())
}

/// A table; empty without figures.
pub fn markdown(figures: &[Figure]) -> String {
    if figures.is_empty() {
        return String::new();
    }
    let mut t = format!("\n| {TUNNELS} tunnels and {ADDRESSES} addresses on one bridge | |\n|---|---|\n");
    for (what, value, unit) in figures {
        let digits = if *value < 10.0 { 2 } else { 0 };
        _ = writeln!(t, "| {what} | {value:.digits$} {unit} |");
    }
    t
}

struct Scale<'a> {
    binary: &'a Path,
    dir: &'a Path,
    daemon: Daemon,
    figures: Vec<Figure>,
    hosts: Topology,
}

impl<'a> Scale<'a> {
    fn new(binary: &'a Path, dir: &'a Path) -> Result<Scale<'a>> {
        let hosts = Topology::new(1500)?;
        hosts.a.ns.run("ip", &["link", "set", "vc0", "nomaster"])?;
        hosts.a.ns.run("ip", &["route", "add", "10.77.0.0/16", "via", hosts.b.underlay_ip])?;
        let daemon = Daemon::start(binary, &hosts.a, dir, None)?;
        daemon.vsctl(&format!(
            "add-br br0 -- set bridge br0 other_config:mac-table-size={} -- add-port br0 vc0",
            2 * ADDRESSES
        ))?;
        Ok(Scale { binary, dir, daemon, figures: Vec::new(), hosts })
    }

    fn measure(mut self) -> Result<Vec<Figure>> {
        let empty = self.resident()?;
        self.configure()?;
        let tunnels = self.resident()?;
        self.note("memory of the tunnels, each", (tunnels - empty) * 1e3 / TUNNELS as f64, "kB");
        self.forward()?;
        let all = self.resident()?;
        self.note("memory of the addresses, each", (all - tunnels) * 1e6 / ADDRESSES as f64, "bytes");
        self.note("memory, all of it", all, "MB");
        self.look_on()?;
        self.start_again()?;
        Ok(self.figures)
    }

    /// Rows in, rows out.
    fn configure(&mut self) -> Result<()> {
        let start = Instant::now();
        let mut tenths = Vec::new();
        for tenth in 0..10 {
            let start = Instant::now();
            for i in 0..TUNNELS / 10 {
                self.daemon.vsctl(&add(tenth * TUNNELS / 10 + i))?;
            }
            tenths.push(start.elapsed().as_secs_f64() * 1e4 / TUNNELS as f64);
        }
        let seconds = start.elapsed().as_secs_f64();
        self.note("add them by a vsctl each", seconds, "s");
        self.note("the first hundred of these, each", tenths.first().copied().unwrap_or_default(), "ms");
        self.note("the last hundred, each", tenths.last().copied().unwrap_or_default(), "ms");
        let all = |line: fn(usize) -> String| (0..TUNNELS).map(line).collect::<Vec<_>>().join(" -- ");
        self.time("delete them in one transaction", &all(|i| format!("del-port t{i}")))?;
        self.time("add them in one transaction", &all(add))?;
        self.time("add one more", &add(TUNNELS))?;
        self.time("delete it", &format!("del-port t{TUNNELS}"))
    }

    /// Addresses in, and what a frame costs with few of them and with all.
    fn forward(&mut self) -> Result<()> {
        let there = mac(2, 0);
        let [a, b, c, d, e, f] = there;
        self.daemon.appctl(&format!("fdb/add br0 t0 0 {a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}"))?;
        for (what, sources) in
            [("a frame's processor time with 10 addresses", 10), ("with all of them", ADDRESSES)]
        {
            let pairs = (0..sources).map(|i| (mac(1, i), there)).collect();
            let mut traffic = Traffic::new(&self.hosts.a.container, SMALL, pairs, 1)?;
            traffic.send_lap(STEADY)?;
            let before = self.cpu()?;
            let sent = traffic.send(STEADY, Duration::from_secs(2))?;
            self.note(what, (self.cpu()? - before) * 1e6 / sent as f64, "µs");
        }
        let start = Instant::now();
        let shown = self.daemon.appctl("fdb/show br0")?.lines().count();
        self.note("fdb/show", start.elapsed().as_secs_f64() * 1e3, "ms");
        if shown < ADDRESSES {
            bail!("{shown} of {ADDRESSES} addresses were learned");
        }
        Ok(())
    }

    /// What it costs to be there.
    fn look_on(&mut self) -> Result<()> {
        self.idle("idle")?;
        self.time("set rstp_enable=true", "set bridge br0 rstp_enable=true")?;
        self.idle("idle with RSTP on all of them")?;
        self.daemon.vsctl("set bridge br0 rstp_enable=false")?;
        let watch = |i| format!("set interface t{i} bfd:enable=true");
        let lines: Vec<String> = (0..TUNNELS).map(watch).collect();
        self.time("set bfd:enable=true on each in one transaction", &lines.join(" -- "))?;
        self.idle("idle with BFD on all of them, a packet a second each")?;
        let lines: Vec<String> =
            (0..TUNNELS).map(|i| format!("set interface t{i} bfd:enable=false")).collect();
        self.daemon.vsctl(&lines.join(" -- "))
    }

    /// The configuration is there, the process is not.
    fn start_again(&mut self) -> Result<()> {
        process::kill(self.daemon.job.pid() as i32);
        self.daemon.job.wait_for_end()?;
        let pairs = (0..32).map(|i| (mac(1, i), mac(2, 0))).collect();
        let mut traffic = Traffic::new(&self.hosts.a.container, SMALL, pairs, 1)?;
        let start = Instant::now();
        self.daemon.start_again(self.binary, &self.hosts.a, self.dir)?;
        // To a station that is not known yet: each frame leaves by each tunnel
        let before = self.left()?;
        while self.left()? < before + TUNNELS as u64 {
            if interrupted() || start.elapsed() > PATIENCE {
                bail!("it does not forward {} s after it was killed and started again", PATIENCE.as_secs());
            }
            traffic.send(1e3, Duration::from_millis(2))?;
        }
        self.note(
            "kill -9, start, until frames leave by every tunnel",
            start.elapsed().as_secs_f64() * 1e3,
            "ms",
        );
        self.time("and until a transaction is done", "set bridge br0 external_ids:x=y")
    }

    fn idle(&mut self, what: &str) -> Result<()> {
        sleep(Duration::from_secs(2));
        let (before, start) = (self.cpu()?, Instant::now());
        sleep(LOOK);
        let cores = (self.cpu()? - before) / start.elapsed().as_secs_f64();
        self.note(what, cores * 100.0, "% of a core");
        Ok(())
    }

    fn time(&mut self, what: &str, line: &str) -> Result<()> {
        let start = Instant::now();
        self.daemon.vsctl(line)?;
        self.note(what, start.elapsed().as_secs_f64() * 1e3, "ms");
        Ok(())
    }

    fn note(&mut self, what: &str, value: f64, unit: &'static str) {
        say(&format!("{:>8} {what}: {value:.2} {unit}\n", NAME));
        self.figures.push((what.to_owned(), value, unit));
    }

    /// Packets that have left by the underlay.
    fn left(&self) -> Result<u64> {
        Ok(device_packets(&self.hosts.a.ns, "u0")?.1)
    }

    fn cpu(&self) -> Result<f64> {
        noise::run_time(self.daemon.job.pid())
    }

    fn resident(&self) -> Result<f64> {
        noise::resident_mb(self.daemon.job.pid())
    }
}

fn add(i: usize) -> String {
    let remote = format!("10.77.{}.{}", i / 250, i % 250 + 1);
    format!("add-port br0 t{i} -- set interface t{i} type=gre options:remote_ip={remote}")
}
