//! One visit to one peer: build the hosts, join them, measure, tear down.

use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use serde::{Deserialize, Serialize};

use crate::iperf::{self, Tcp};
use crate::noise::{self, Idle, Usage};
use crate::peers::Peer;
use crate::topo::Topology;
use crate::udp::{self, RoundTrip};
use crate::{interrupted, leftovers, say};

/// What one visit gave. A measurement that failed is absent, and `errors` says why.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Sample {
    /// [`Peer::name`].
    pub peer: String,
    /// From 1.
    pub round: u32,
    /// One stream, A to B.
    pub one: Option<Tcp>,
    /// Four streams, A to B.
    pub four: Option<Tcp>,
    /// One stream each way at once, added up.
    pub both: Option<Tcp>,
    /// 64-byte packets a second with less than one per cent lost.
    pub packets_per_second: Option<f64>,
    /// On the idle link.
    pub round_trip: Option<RoundTrip>,
    /// Cores that the busier switch takes for a thousand small packets a second.
    #[serde(default)]
    pub trickle_cores: Option<f64>,
    /// What the switches of both hosts take when nothing happens.
    pub idle: Option<Idle>,
    /// See [`noise::calibrate`].
    pub calibration_ms: f64,
    /// What went wrong.
    pub errors: Vec<String>,
}

impl Sample {
    /// Of every TCP measurement.
    pub fn usages(&self) -> impl Iterator<Item = &Usage> {
        [&self.one, &self.four, &self.both].into_iter().flatten().map(|t| &t.usage)
    }
}

/// Something that a visit measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Step {
    /// One TCP stream.
    One,
    /// Four.
    Four,
    /// One each way.
    Both,
    /// Small packets.
    Udp,
    /// The round trip of an idle link.
    Rtt,
    /// A thousand packets a second.
    Trickle,
    /// Nothing.
    Idle,
}

/// Measures `peer` once: what `only` names, everything if that is empty.
pub fn visit(peer: &dyn Peer, round: u32, seconds: u32, quiet: Duration, only: &[Step]) -> Sample {
    let mut sample = Sample { peer: peer.name().into(), round, ..Sample::default() };
    noise::wait_for_quiet(quiet);
    sample.calibration_ms = noise::calibrate();
    if let Err(e) = in_temporary_directory(|dir| joined(peer, seconds, dir, &mut sample, only)) {
        say(&format!(" failed: {e:#}"));
        sample.errors.push(format!("{e:#}"));
    }
    sample
}

/// The directory is removed afterwards; before that, an error takes the ends of the logs in it along.
pub fn in_temporary_directory<T>(f: impl FnOnce(&Path) -> Result<T>) -> Result<T> {
    let dir =
        tempfile::Builder::new().prefix(&leftovers::name("")).tempdir().context("no temporary directory")?;
    f(dir.path()).map_err(|e| anyhow!("{e:#}{}", log_tails(dir.path())))
}

fn joined(peer: &dyn Peer, seconds: u32, dir: &Path, sample: &mut Sample, only: &[Step]) -> Result<()> {
    let hosts = Topology::new(peer.container_mtu())?;
    let running = peer.join(&hosts, dir)?;
    wait_for_ping(&hosts)?;
    let switches: Vec<u32> = running.switches.iter().map(|j| j.pid()).collect();
    let tcp = |seconds, options: &[&str]| iperf::tcp(&hosts, seconds, options, &switches);

    tcp(1, &[]).context("warm-up")?;
    let mut errors = Vec::new();
    let gbps = |t: &Tcp| format!("{:.2} Gb/s", t.gbps);
    let asked = |step| only.is_empty() || only.contains(&step);
    if asked(Step::One) {
        sample.one = step("1 stream", &mut errors, gbps, || tcp(seconds, &[]));
    }
    if asked(Step::Four) {
        sample.four = step("4 streams", &mut errors, gbps, || tcp(seconds, &["-P", "4"]));
    }
    if asked(Step::Both) {
        sample.both = step("both ways", &mut errors, gbps, || tcp(seconds, &[iperf::BOTH_WAYS]));
    }
    if asked(Step::Udp) {
        let kpps = |r: &f64| format!("{:.0} kpps", r / 1e3);
        sample.packets_per_second = step("udp", &mut errors, kpps, || udp::packet_rate(&hosts));
    }
    if asked(Step::Rtt) {
        let us = |r: &RoundTrip| {
            format!("{:.0} us, p99 {:.0}, {:.2} cores", r.median_us, r.p99_us, r.switch_cores)
        };
        sample.round_trip = step("rtt", &mut errors, us, || udp::round_trip(&hosts, &switches));
    }
    if asked(Step::Trickle) && !switches.is_empty() {
        let cores = |cores: &f64| format!("{:.2} % of a core", cores * 100.0);
        sample.trickle_cores = step("1000/s", &mut errors, cores, || udp::trickle(&hosts, &switches));
    }
    if asked(Step::Idle) && !switches.is_empty() {
        let idle = |i: &Idle| format!("{:.2} % of a core, {:.0} MB", i.cores * 100.0, i.resident_mb);
        sample.idle = step("idle", &mut errors, idle, || noise::idle(&switches));
    }
    sample.errors.append(&mut errors);
    Ok(())
}

fn step<T>(
    name: &str,
    errors: &mut Vec<String>,
    show: impl Fn(&T) -> String,
    measure: impl FnOnce() -> Result<T>,
) -> Option<T> {
    if interrupted() {
        return None;
    }
    match measure() {
        Ok(value) => {
            say(&format!(" | {name} {}", show(&value)));
            Some(value)
        }
        Err(e) => {
            say(&format!(" | {name} failed: {e:#}"));
            errors.push(format!("{name}: {e:#}"));
            None
        }
    }
}

/// The containers must reach each other within ten seconds, with full frames too.
pub fn wait_for_ping(hosts: &Topology) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(10);
    let to = hosts.b.container_ip;
    let ping = |size: &str| hosts.a.container.run("ping", &["-q", "-c", "1", "-W", "1", "-s", size, to]);
    while let Err(e) = ping("56") {
        if interrupted() || Instant::now() > end {
            bail!("the containers never reached each other: {e:#}");
        }
        sleep(Duration::from_millis(100));
    }
    ping("1472").or_else(|_| ping("1472")).context("a full-size ping does not come back")
}

fn log_tails(dir: &Path) -> String {
    let mut text = String::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(entries) = dirs.pop().and_then(|d| fs::read_dir(d).ok()) {
        for path in entries.filter_map(|e| Some(e.ok()?.path())) {
            if path.is_dir() {
                dirs.push(path);
            } else if path.extension().is_some_and(|x| x == "log") {
                let log = fs::read_to_string(&path).unwrap_or_default();
                let lines: Vec<_> = log.lines().collect();
                let tail = lines.get(lines.len().saturating_sub(10)..).unwrap_or_default();
                text += &format!("\n{}:\n{}", path.display(), tail.join("\n"));
            }
        }
    }
    text
}
