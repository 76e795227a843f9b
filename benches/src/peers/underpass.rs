//! Underpass itself: one daemon a host, docker0 and a GRE tunnel in one bridge, configured by its own command line.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::{Peer, Running};
use crate::process::{self, Job};
use crate::topo::{Host, Topology};

#[derive(Debug)]
pub struct Underpass {
    pub binary: PathBuf,
    pub road: &'static Road,
    /// None: its own default.
    pub workers: Option<u8>,
}

/// How its tunnels travel.
#[derive(Debug)]
pub struct Road {
    /// The peer's name.
    pub name: &'static str,
    /// Type and options of the tunnel's interface.
    pub interface: &'static str,
    /// Raw sockets, whatever else there is.
    pub raw: bool,
}

const fn road(name: &'static str, interface: &'static str, raw: bool) -> Road {
    Road { name, interface, raw }
}

const GRE: &str = "type=gre";
const ESP: &str = "type=ipsec_gre options:psk=underpass-bench options:encapsulation=esp";

/// Every road.
pub const ROADS: [Road; 6] = [
    road("underpass", GRE, false),
    road("underpass-raw", GRE, true),
    road("underpass-gre-udp", "type=gre options:encapsulation=udp", false),
    road("underpass-esp", ESP, false),
    road("underpass-esp-raw", ESP, true),
    road("underpass-udp", "type=ipsec_gre options:psk=underpass-bench options:encapsulation=udp", false),
];

impl Road {
    /// Whether it is encrypted.
    pub fn is_protected(&self) -> bool {
        self.interface.starts_with("type=ipsec_gre")
    }
}

impl Underpass {
    /// `auto` keeps from a veth underlay, since not every peer of ours could be at its other end. Here it is ourselves.
    fn underlay_io(&self) -> &'static str {
        if self.road.raw { "raw" } else { "device" }
    }
}

impl Peer for Underpass {
    fn name(&self) -> &'static str {
        self.road.name
    }

    fn about(&self) -> String {
        let version = process::output(&self.binary.to_string_lossy(), &["--version"]).unwrap_or_default();
        let io = format!(", other_config:underlay-io={}", self.underlay_io());
        let workers = self.workers.map(|n| format!(", {n} workers")).unwrap_or_default();
        format!("{}, {}{io}{workers}", version.lines().next().unwrap_or("underpass"), self.road.interface)
    }

    fn container_mtu(&self) -> u16 {
        1500 // Docker's default: the switch fits frames to the tunnel
    }

    fn missing(&self) -> Option<String> {
        (!self.binary.is_file()).then(|| {
            format!("{} is not there: cargo build --release -p underpass-control", self.binary.display())
        })
    }

    fn join(&self, hosts: &Topology, dir: &Path) -> Result<Running> {
        let mut running = Running::default();
        for (host, other) in hosts.pairs() {
            let workers = self.workers.map(|n| format!("--workers={n}"));
            let daemon = Daemon::start(&self.binary, host, dir, workers.as_deref())?;
            daemon.vsctl(&format!("set Open_vSwitch . other_config:underlay-io={}", self.underlay_io()))?;
            daemon.vsctl("add-br br0")?;
            daemon.vsctl("add-port br0 docker0")?;
            let (kind, remote) = (self.road.interface, other.underlay_ip);
            daemon.vsctl(&format!(
                "add-port br0 gre0 -- set interface gre0 {kind} options:remote_ip={remote}"
            ))?;
            running.switches.push(daemon.job);
        }
        Ok(running)
    }
}

/// A running `underpass vswitchd`.
#[derive(Debug)]
pub struct Daemon {
    pub job: Job,
    binary: String,
    rundir: PathBuf,
}

impl Daemon {
    /// Starts it on that host, with its files in a new directory below `dir`.
    pub fn start(binary: &Path, host: &Host, dir: &Path, option: Option<&str>) -> Result<Daemon> {
        let rundir = dir.join(host.letter);
        std::fs::create_dir(&rundir).with_context(|| format!("create {}", rundir.display()))?;
        Daemon::start_in(binary, host, rundir, option)
    }

    /// Starts it anew where it was, with what it was configured to be. It must have ended.
    pub fn start_again(&mut self, binary: &Path, host: &Host, dir: &Path) -> Result<()> {
        *self = Daemon::start_in(binary, host, dir.join(host.letter), None)?;
        Ok(())
    }

    fn start_in(binary: &Path, host: &Host, rundir: PathBuf, option: Option<&str>) -> Result<Daemon> {
        let mut command = Command::new(binary);
        command.arg("vswitchd").arg("--rundir").arg(&rundir).arg("--db").arg(rundir.join("conf.db"));
        command.args(option);
        let log = rundir.join("underpass.log");
        let mut job = host.ns.enter(|| Job::start(&mut command, &log))?;
        let socket = rundir.join("db.sock");
        // one that was killed leaves the file
        job.wait_until("its socket", || UnixStream::connect(&socket).is_ok())?;
        Ok(Daemon { job, binary: binary.to_string_lossy().into_owned(), rundir })
    }

    /// Its `vsctl`, arguments separated by blanks.
    pub fn vsctl(&self, args: &str) -> Result<()> {
        let db = format!("--db=unix:{}", self.rundir.join("db.sock").display());
        let mut all = vec!["vsctl", &db, "--timeout=60"];
        all.extend(args.split(' '));
        process::run(&self.binary, &all)
    }

    /// Its `appctl`, likewise; returns what it printed.
    pub fn appctl(&self, args: &str) -> Result<String> {
        let rundir = self.rundir.to_string_lossy();
        let pid = format!("{rundir}/ovs-vswitchd.{}.ctl", self.job.pid());
        let mut all = vec!["appctl", "-t", &pid];
        all.extend(args.split(' '));
        process::output(&self.binary, &all)
    }
}
