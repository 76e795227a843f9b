//! Underpass itself: one daemon a host, docker0 and a GRE tunnel in one bridge, configured by its own command line.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::{PLAIN, Peer, Running};
use crate::process::{self, Job};
use crate::topo::Topology;

#[derive(Debug)]
pub struct Underpass {
    pub binary: PathBuf,
    pub road: Road,
}

/// How its tunnels travel.
#[derive(Debug, Clone, Copy)]
pub enum Road {
    /// In the clear.
    Gre,
    /// In the clear, in UDP.
    GreUdp,
    /// In ESP by IP protocol 50.
    Esp,
    /// In ESP in UDP.
    Udp,
}

impl Road {
    /// Type and options of the tunnel's interface.
    fn interface(self) -> &'static str {
        match self {
            Road::Gre => "type=gre",
            Road::GreUdp => "type=gre options:encapsulation=udp",
            Road::Esp => "type=ipsec_gre options:psk=underpass-bench options:encapsulation=esp",
            Road::Udp => "type=ipsec_gre options:psk=underpass-bench options:encapsulation=udp",
        }
    }
}

impl Peer for Underpass {
    fn name(&self) -> &'static str {
        match self.road {
            Road::Gre => PLAIN,
            Road::GreUdp => "underpass-gre-udp",
            Road::Esp => "underpass-esp",
            Road::Udp => "underpass-udp",
        }
    }

    fn about(&self) -> String {
        let version = process::output(&self.binary.to_string_lossy(), &["--version"]).unwrap_or_default();
        format!("{}, {}", version.lines().next().unwrap_or("underpass"), self.road.interface())
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
            let rundir = dir.join(host.letter);
            std::fs::create_dir(&rundir).with_context(|| format!("create {}", rundir.display()))?;
            let mut daemon = Command::new(&self.binary);
            daemon.arg("vswitchd").arg("--rundir").arg(&rundir).arg("--db").arg(rundir.join("conf.db"));
            let log = rundir.join("underpass.log");
            let mut daemon = host.ns.enter(|| Job::start(&mut daemon, &log))?;
            let socket = rundir.join("db.sock");
            daemon.wait_until("its socket", || socket.exists())?;
            running.switches.push(daemon);

            let binary = self.binary.to_string_lossy();
            let db = format!("--db=unix:{}", socket.display());
            let vsctl = |args: &str| {
                let mut all = vec!["vsctl", &db, "--timeout=15"];
                all.extend(args.split(' '));
                process::run(&binary, &all)
            };
            vsctl("add-br br0")?;
            vsctl("add-port br0 docker0")?;
            let (kind, remote) = (self.road.interface(), other.underlay_ip);
            vsctl(&format!("add-port br0 gre0 -- set interface gre0 {kind} options:remote_ip={remote}"))?;
        }
        Ok(running)
    }
}
