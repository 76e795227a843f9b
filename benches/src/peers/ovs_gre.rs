//! Open vSwitch's userspace datapath with a GRE port, its devices by packet sockets or by AF_XDP: one ovsdb-server and one ovs-vswitchd a host, each with its own
//! directories, nothing of the system's own Open vSwitch touched.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::{Peer, Running};
use crate::process::{self, Job};
use crate::topo::{Host, Topology};

const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";

#[derive(Debug)]
pub struct OvsGre {
    pub io: Io,
}

/// How it reads and writes its devices.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Io {
    /// By packet sockets.
    Packet,
    /// By AF_XDP, with a thread a host that polls all the time.
    AfXdp,
}

/// The files of one host's Open vSwitch.
struct Instance<'a> {
    host: &'a Host,
    dir: PathBuf,
    io: Io,
}

impl Peer for OvsGre {
    fn name(&self) -> &'static str {
        match self.io {
            Io::Packet => "ovs-gre",
            Io::AfXdp => "ovs-afxdp",
        }
    }

    fn about(&self) -> String {
        let version = process::output("ovs-vswitchd", &["--version"]).unwrap_or_default();
        let version = version.lines().next().and_then(|l| l.rsplit(' ').next()).unwrap_or("?");
        let io = match self.io {
            Io::Packet => "",
            Io::AfXdp => ", devices by AF_XDP, one core a host always busy",
        };
        format!("Open vSwitch {version} userspace datapath (netdev), type=gre{io}")
    }

    fn container_mtu(&self) -> u16 {
        1462 // 1500 - IPv4 20 - GRE 4 - Ethernet 14
    }

    fn missing(&self) -> Option<String> {
        let programs = ["ovs-vswitchd", "ovsdb-server", "ovsdb-tool", "ovs-vsctl"];
        let there = programs.iter().all(|p| process::find(p).is_some()) && Path::new(SCHEMA).exists();
        (!there).then(|| "apt-get install openvswitch-switch".into())
    }

    fn join(&self, hosts: &Topology, dir: &Path) -> Result<Running> {
        let mut running = Running::default();
        for (host, other) in hosts.pairs() {
            let ovs = Instance { host, dir: dir.join(host.letter), io: self.io };
            ovs.start(&mut running)?;
            ovs.configure(other, self.container_mtu())?;
        }
        // Tunnels resolve their next hop through the bridge with the underlay device; let it learn the neighbour now.
        let to = hosts.b.underlay_ip;
        let _ = hosts.a.ns.run("ping", &["-q", "-c", "5", "-i", "0.2", "-W", "1", to]);
        Ok(running)
    }
}

impl Instance<'_> {
    fn file(&self, name: &str) -> String {
        self.dir.join(name).to_string_lossy().into_owned()
    }

    fn command(&self, program: &str) -> Command {
        let mut c = Command::new(program);
        for var in ["OVS_RUNDIR", "OVS_DBDIR", "OVS_LOGDIR", "OVS_SYSCONFDIR"] {
            c.env(var, &self.dir);
        }
        c
    }

    fn start(&self, running: &mut Running) -> Result<()> {
        std::fs::create_dir(&self.dir).with_context(|| format!("create {}", self.dir.display()))?;
        let (db, sock) = (self.file("conf.db"), self.file("db.sock"));
        process::run("ovsdb-tool", &["create", &db, SCHEMA])?;
        let mut server = self.command("ovsdb-server");
        server.arg(&db).arg(format!("--remote=punix:{sock}"));
        server.arg(format!("--unixctl={}", self.file("db.ctl")));
        let mut server = self.start_job(&mut server, "ovsdb-server.log")?;
        server.wait_until("its socket", || Path::new(&sock).exists())?;
        running.helpers.push(server);
        self.vsctl("--no-wait init")?;
        if self.io == Io::AfXdp {
            let core = if self.host.letter == "A" { 1 } else { 2 };
            self.vsctl(&format!("--no-wait set Open_vSwitch . other_config:pmd-cpu-mask={core}"))?;
        }

        let mut switch = self.command("ovs-vswitchd");
        switch.arg(format!("unix:{sock}")).arg("--disable-system");
        switch.arg(format!("--unixctl={}", self.file("vswitchd.ctl")));
        running.switches.push(self.start_job(&mut switch, "ovs-vswitchd.log")?);
        Ok(())
    }

    fn start_job(&self, command: &mut Command, log: &str) -> Result<Job> {
        let log = self.dir.join(log);
        self.host.ns.enter(|| Job::start(command, &log))
    }

    fn vsctl(&self, args: &str) -> Result<()> {
        let db = format!("--db=unix:{}", self.file("db.sock"));
        let mut all = vec!["--timeout=15", &db];
        all.extend(args.split(' '));
        process::run("ovs-vsctl", &all)
    }

    fn add_device(&self, bridge: &str, dev: &str) -> Result<()> {
        let kind = match self.io {
            Io::Packet => String::new(),
            Io::AfXdp => format!(" -- set interface {dev} type=afxdp"),
        };
        self.vsctl(&format!("add-port {bridge} {dev}{kind}"))
    }

    /// The underlay device moves into a bridge that takes its address; docker0 is attached by a veth pair.
    fn configure(&self, other: &Host, mtu: u16) -> Result<()> {
        let h = self.host;
        let ip = |args: &str| h.ns.run("ip", &args.split(' ').collect::<Vec<_>>());
        ip(&format!("link add ov0 mtu {mtu} type veth peer name ov1 mtu {mtu}"))?;
        for dev in ["ov0", "ov1", "u0"] {
            h.no_offload(dev)?;
        }
        h.enslave("ov0")?;
        ip("link set ov1 up")?;
        let mac = h.mac("u0")?;
        self.vsctl(&format!(
            "add-br br-phy -- set bridge br-phy datapath_type=netdev fail_mode=standalone other_config:hwaddr={mac}"
        ))?;
        ip("addr flush dev u0")?;
        ip(&format!("addr add {}/24 dev br-phy", h.underlay_ip))?;
        ip("link set br-phy up")?;
        self.add_device("br-phy", "u0")?;
        self.vsctl("add-br br-int -- set bridge br-int datapath_type=netdev fail_mode=standalone")?;
        self.add_device("br-int", "ov1")?;
        self.vsctl(&format!(
            "add-port br-int gre0 -- set interface gre0 type=gre options:remote_ip={} options:local_ip={}",
            other.underlay_ip, h.underlay_ip
        ))?;
        ip("link set br-int up")
    }
}
