//! `underpass-bench`: joins the docker0 bridges of two hosts (network namespaces) with each peer in turn, measures TCP
//! throughput, small-packet rate, round trip, CPU time and memory, and prints a table of medians. With `--sweeps` it measures
//! how the cost of a frame through Underpass grows instead.
//!
//! Rounds are interleaved: every peer is visited once a round, on freshly built hosts, so that what changes on the
//! machine during the run falls on all of them alike. Needs root; leaves nothing behind.
#![forbid(unsafe_code)]

mod chart;
mod goals;
mod iperf;
mod leftovers;
mod measure;
mod netns;
mod noise;
mod peers;
mod plot;
mod process;
mod report;
mod stats;
mod sweeps;
mod syscalls;
mod topo;
mod udp;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Parser;

use crate::measure::Step;
use crate::peers::Peer;
use crate::report::Report;
use crate::syscalls::Syscalls;

/// Measure Underpass beside what a user would pick instead.
#[derive(Debug, Parser)]
struct Options {
    /// How often every peer is visited.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Length of each TCP measurement.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=3600))]
    seconds: u32,
    /// A look in a few minutes: one round, one second a measurement, the kernel's ways and our own.
    #[arg(long, conflicts_with_all = ["rounds", "seconds"])]
    quick: bool,
    /// Instead of visiting peers: how cost grows with frame size, MAC addresses, tunnels and SAs; all, or those named
    /// (size, macs, tunnels, sas, memory, workers, scale).
    #[arg(long, value_delimiter = ',', num_args = 0..)]
    sweeps: Option<Vec<String>>,
    /// Worker threads of underpass [default: its own].
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=16))]
    workers: Option<u8>,
    /// Which peers, separated by commas; all that are installed when absent.
    #[arg(long, value_delimiter = ',')]
    peers: Vec<String>,
    /// What to measure, separated by commas: one, four, both, udp, rtt, trickle, idle; all when absent.
    #[arg(long, value_delimiter = ',')]
    only: Vec<Step>,
    /// Where the JSON, Markdown and SVG files go.
    #[arg(long, default_value = "target/bench")]
    out: PathBuf,
    /// Seconds to wait, before each visit, for the rest of the machine to be quiet.
    #[arg(long, default_value_t = 5)]
    quiet: u64,
    /// The underpass binary [default: beside this program].
    #[arg(long)]
    underpass: Option<PathBuf>,
}

static INTERRUPTED: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

/// Whether a signal has asked to end. What waits must ask this.
fn interrupted() -> bool {
    INTERRUPTED.load(Relaxed)
}

impl Options {
    /// The binary to measure.
    fn underpass(&self) -> Result<PathBuf> {
        let beside = || Ok(std::env::current_exe()?.with_file_name("underpass"));
        self.underpass.clone().map_or_else(beside, Ok)
    }
}

/// Progress, on standard error, without ending the line.
fn say(text: &str) {
    eprint!("{text}");
    let _ = std::io::stderr().flush();
}

fn main() -> ExitCode {
    let mut options = Options::parse();
    if options.quick {
        (options.rounds, options.seconds) = (1, 1);
        if options.peers.is_empty() {
            options.peers = QUICK.map(str::to_owned).to_vec();
        }
    }
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("underpass-bench: {e:#}");
            ExitCode::FAILURE
        }
    }
}

/// What `--quick` visits.
const QUICK: [&str; 6] =
    ["none", "vxlan", "underpass", "underpass-gre-udp", "underpass-esp", "underpass-udp"];

fn run(options: &Options) -> Result<()> {
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP] {
        signal_hook::flag::register(signal, INTERRUPTED.clone())?;
    }
    check_tools()?;
    leftovers::remove();
    fs::create_dir_all(&options.out).with_context(|| format!("create {}", options.out.display()))?;

    if let Some(wanted) = &options.sweeps {
        return sweeps::run(&options.underpass()?, wanted, &options.out);
    }

    let report = measure_all(options)?;
    if interrupted() {
        bail!("interrupted; nothing was written");
    }
    let write = |name: &str, text: String| {
        let path = options.out.join(name);
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))
    };
    write("results.json", serde_json::to_string_pretty(&report)?)?;
    write("results.md", report.markdown())?;
    write("results.svg", plot::svg(&report))?;
    write("latency.svg", report.latency().svg())?;
    println!("{}", report.markdown());
    eprintln!("written: results.json, results.md, results.svg and latency.svg in {}", options.out.display());
    if report.has_errors() {
        bail!("some measurements failed; see the end of the table");
    }
    Ok(())
}

fn check_tools() -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("network namespaces need root: run it as root, or with sudo");
    }
    let tools = [("ip", "iproute2"), ("ping", "iputils-ping"), ("ethtool", "ethtool"), ("iperf3", "iperf3")];
    let missing: Vec<_> = tools.iter().filter(|(t, _)| process::find(t).is_none()).map(|(_, p)| *p).collect();
    if !missing.is_empty() {
        bail!("not installed: apt-get install {}", missing.join(" "));
    }
    Ok(())
}

fn measure_all(options: &Options) -> Result<Report> {
    let (peers, skipped) = chosen(options)?;
    let mut samples = Vec::new();
    for round in 0..options.rounds {
        // each round begins with another peer
        for i in 0..peers.len() {
            let Some(peer) = peers.get((i + round as usize) % peers.len()) else { continue };
            if interrupted() {
                break;
            }
            say(&format!("round {}/{} {:>18}", round + 1, options.rounds, peer.name()));
            let quiet = Duration::from_secs(options.quiet);
            samples.push(measure::visit(peer.as_ref(), round + 1, options.seconds, quiet, &options.only));
            say("\n");
        }
    }
    let about = peers.iter().map(|p| (p.name().into(), p.about(), p.container_mtu())).collect();
    let mut report = Report::new(options.rounds, options.seconds, about, skipped, samples);
    if !options.quick && options.only.is_empty() {
        report.syscalls = count_syscalls(&peers);
    }
    Ok(report)
}

/// Of every kind of Underpass; one that fails is left out.
fn count_syscalls(peers: &[Box<dyn Peer>]) -> BTreeMap<String, Syscalls> {
    let mut all = BTreeMap::new();
    if process::find("strace").is_none() {
        eprintln!("system calls are not counted: apt-get install strace");
        return all;
    }
    for peer in peers.iter().filter(|p| p.name().starts_with(peers::PLAIN)) {
        if interrupted() {
            break;
        }
        match syscalls::count(peer.as_ref()) {
            Ok(calls) => {
                say(&format!("{:>18} {:.3} system calls a frame\n", peer.name(), calls.per_frame()));
                all.insert(peer.name().into(), calls);
            }
            Err(e) => say(&format!("{:>18} system calls: failed: {e:#}\n", peer.name())),
        }
    }
    all
}

type Skipped = BTreeMap<String, String>;

/// The peers to visit, and why the others are not.
fn chosen(options: &Options) -> Result<(Vec<Box<dyn Peer>>, Skipped)> {
    let all = peers::all(&options.underpass()?, options.workers);
    let known = all.iter().map(|p| p.name()).collect::<Vec<_>>();
    if let Some(unknown) = options.peers.iter().find(|p| !known.contains(&p.as_str())) {
        bail!("there is no peer '{unknown}'; there are {}", known.join(", "));
    }
    let mut skipped = Skipped::new();
    let mut peers = Vec::new();
    for peer in all {
        let named = options.peers.iter().any(|p| p == peer.name());
        match peer.missing() {
            _ if !options.peers.is_empty() && !named => {}
            Some(how) => {
                eprintln!("{} is left out: {how}", peer.name());
                skipped.insert(peer.name().into(), how);
            }
            None => peers.push(peer),
        }
    }
    Ok((peers, skipped))
}
