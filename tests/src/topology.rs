//! Hosts and how they are wired.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::cli::{self, LATEST, Out, poll};
use crate::daemon::Daemon;
use crate::engine::{self, Container, Engine};
use crate::netns::Netns;

/// Somewhere that a program can run: a host's namespace or a container's.
pub trait Place {
    /// `program` there; the pid is the program's own.
    fn cmd(&self, program: &str) -> Command;
    /// Like `cmd`, and killed when the test's thread ends.
    fn bound(&self, program: &str) -> Command;
}

/// Somewhere that runs shell scripts: a host or a guest.
pub trait Shell {
    /// A script, whatever its status; it ends at the first command that fails.
    fn try_sh(&self, script: &str) -> Out;

    /// A script; every line must succeed. Gives what it says.
    #[track_caller]
    fn sh(&self, script: &str) -> String {
        self.try_sh(script).ok()
    }

    /// Writes a text file, whose directories it makes. Nobody else may read it.
    #[track_caller]
    fn put(&self, path: &str, text: &str) {
        self.sh(&format!(
            "umask 077\nmkdir -p \"$(dirname {path})\"\ncat >{path} <<'END OF FILE'\n{text}\nEND OF FILE"
        ));
    }
}

impl Shell for Host {
    fn try_sh(&self, script: &str) -> Out {
        self.ns.try_sh(script)
    }
}

impl Place for Netns {
    fn cmd(&self, program: &str) -> Command {
        Netns::cmd(self, program)
    }
    fn bound(&self, program: &str) -> Command {
        Netns::bound(self, program)
    }
}

impl Place for Container {
    fn cmd(&self, program: &str) -> Command {
        Container::cmd(self, program)
    }
    fn bound(&self, program: &str) -> Command {
        Container::bound(self, program)
    }
}

impl Place for Host {
    fn cmd(&self, program: &str) -> Command {
        self.ns.cmd(program)
    }
    fn bound(&self, program: &str) -> Command {
        self.ns.bound(program)
    }
}

/// A host: its namespace, perhaps its engine, perhaps its running Underpass. Dropped in this order.
#[derive(Debug)]
pub struct Host {
    /// Underpass on it, when it runs.
    pub daemon: Option<Daemon>,
    /// Its Docker Engine.
    pub engine: Option<Engine>,
    /// Its network.
    pub ns: Netns,
    /// Which /24 of 10.0.0.0/16 is its own.
    pub subnet: u8,
    dir: tempfile::TempDir,
}

impl Host {
    /// A host with nothing on it yet.
    #[track_caller]
    pub fn new(name: &str, subnet: u8) -> Host {
        let dir = tempfile::Builder::new().prefix("up-host-").tempdir().expect("a temporary directory");
        Host { daemon: None, engine: None, ns: Netns::new(name), subnet, dir }
    }

    /// The same with a Docker Engine, whose docker0 is `10.0.<subnet>.1/16`.
    #[track_caller]
    pub fn with_engine(name: &str, subnet: u8) -> Host {
        let mut host = Host::new(name, subnet);
        host.engine = Some(Engine::start(&host.ns, &engine::subnet(subnet)));
        host
    }

    /// Its run directory, where Underpass keeps sockets, pid file and database.
    pub fn rundir(&self) -> &Path {
        self.dir.path()
    }

    /// Its configuration database.
    pub fn conf_db(&self) -> PathBuf {
        self.dir.path().join("conf.db")
    }

    /// Its docker0's address.
    pub fn docker0(&self) -> String {
        format!("10.0.{}.1", self.subnet)
    }

    /// Starts Underpass and waits until its database answers.
    #[track_caller]
    pub fn start(&mut self) {
        self.start_with(&[]);
    }

    /// The same with `args` on its command line.
    #[track_caller]
    pub fn start_with(&mut self, args: &[&str]) {
        assert!(self.daemon.is_none(), "already running");
        self.daemon = Some(Daemon::start(&self.ns, self.dir.path(), args));
        // any test can be run by another road
        if let Ok(io) = std::env::var("UNDERLAY_IO") {
            self.vsctl(&format!("set open_vswitch . other_config:underlay-io={io}"));
        }
    }

    /// Ends Underpass by SIGKILL.
    #[track_caller]
    pub fn kill9(&mut self) {
        self.daemon.take().expect("a running daemon").kill9();
    }

    /// Ends Underpass by SIGTERM; it must end by itself, with status 0.
    #[track_caller]
    pub fn stop(&mut self) {
        self.daemon.take().expect("a running daemon").stop();
    }

    /// A container of its engine.
    #[track_caller]
    pub fn container(&self) -> Container {
        self.engine.as_ref().expect("an engine").container(&[])
    }

    /// A program that finds the database and control sockets by OVS_RUNDIR.
    pub fn tool(&self, program: &str) -> Command {
        let mut c = self.ns.cmd("timeout");
        c.args(["20", program]).env("OVS_RUNDIR", self.rundir()).env("OVS_DBDIR", self.rundir());
        c
    }

    /// Stock ovs-vsctl with the words of `line`, whatever its status.
    #[track_caller]
    pub fn try_vsctl(&self, line: &str) -> Out {
        cli::output(self.tool("ovs-vsctl").args(line.split_whitespace()))
    }

    /// Stock ovs-vsctl; must succeed and say nothing on standard error.
    #[track_caller]
    pub fn vsctl(&self, line: &str) -> String {
        let out = self.try_vsctl(line);
        assert!(out.stderr.is_empty(), "{out:?}\n{}", self.log());
        out.ok()
    }

    /// Stock ovs-appctl; must succeed.
    #[track_caller]
    pub fn appctl(&self, line: &str) -> String {
        cli::run(self.tool("ovs-appctl").args(line.split_whitespace()))
    }

    /// One of the binary's own subcommands, with this host's run directory and database.
    #[track_caller]
    pub fn underpass(&self, line: &str) -> Out {
        let mut words = line.split_whitespace();
        let binary = crate::daemon::underpass();
        let mut c = self.tool(binary.to_str().expect("a path in UTF-8"));
        cli::output(c.args(words.next()).args(words).arg("--rundir").arg(self.rundir()))
    }

    /// One value of the database, quotes gone.
    #[track_caller]
    pub fn get(&self, table: &str, row: &str, column: &str) -> String {
        self.vsctl(&format!("get {table} {row} {column}")).trim_matches('"').to_owned()
    }

    /// How often something was counted, by its name in `coverage/show`. What never happened is 0.
    #[track_caller]
    pub fn count(&self, event: &str) -> u64 {
        let shown = self.appctl("coverage/show");
        let line = shown.lines().find(|l| l.split_whitespace().next() == Some(event));
        let total = |l: &str| l.rsplit_once("total: ")?.1.trim().parse().ok();
        line.map_or(0, |l| total(l).unwrap_or_else(|| panic!("no total in {l:?}")))
    }

    /// Waits until ovs-vsctl gives `want` for a column.
    #[track_caller]
    pub fn wait_for(&self, table: &str, row: &str, column: &str, want: &str) {
        let mut seen = String::new();
        let start = std::time::Instant::now();
        while start.elapsed() < LATEST {
            seen = self.get(table, row, column);
            if seen == want {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("{table} {row} {column} is {seen}, not {want}, after {LATEST:?}\n{}", self.log());
    }

    /// The commands of the main job: br0, docker0 in it, and a tunnel to each of `remotes`.
    #[track_caller]
    pub fn join(&self, remotes: &[&str]) {
        self.vsctl("add-br br0");
        self.vsctl("add-port br0 docker0");
        for (i, remote) in remotes.iter().enumerate() {
            self.gre(&format!("gre{i}"), remote, "");
        }
    }

    /// A br0 with the address that docker0 would have: for tests that need no containers.
    #[track_caller]
    pub fn overlay(&self) {
        self.vsctl("add-br br0");
        self.ns.sh(&format!("ip addr add {}/16 dev br0; ip link set br0 up", self.docker0()));
    }

    /// A GRE port in br0; `more` is further `options:…`.
    #[track_caller]
    pub fn gre(&self, port: &str, remote: &str, more: &str) {
        self.vsctl(&format!(
            "add-port br0 {port} -- set interface {port} type=gre options:remote_ip={remote} {more}"
        ));
    }

    /// From now on no IKE_SA_INIT request leaves it: others must begin. `false`: that ends.
    #[track_caller]
    pub fn only_answers(&self, only: bool) {
        self.ns.try_sh("nft delete table inet passive");
        if only {
            // in the first request the responder's SPI is 0, and of the flags only the initiator's is set
            self.ns.sh("nft add table inet passive
                nft add chain inet passive out '{ type filter hook output priority 0; }'
                nft add rule inet passive out udp dport 500 @th,128,64 0 @th,216,8 0x08 drop");
        }
    }

    /// The end of Underpass's log, for a failure's text.
    pub fn log(&self) -> String {
        crate::daemon::tail(&self.dir.path().join("log"))
    }
}

/// Addresses of the two hosts' underlay.
pub const UNDERLAY: [&str; 2] = ["192.0.2.1", "192.0.2.2"];
/// The same over IPv6.
pub const UNDERLAY6: [&str; 2] = ["2001:db8::1", "2001:db8::2"];

/// Two hosts on one wire:
/// ```text
///   [ hA  10.0.11.1/16 docker0 ]       [ docker0 10.0.42.1/16  hB ]
///   [             192.0.2.1 u0 ]───────[ u0 192.0.2.2             ]
/// ```
#[track_caller]
pub fn two_hosts(mtu: u32) -> [Host; 2] {
    let hosts = [Host::with_engine("hA", 11), Host::with_engine("hB", 42)];
    cable(&hosts, mtu);
    hosts
}

/// Wires two hosts as [`two_hosts`] does.
#[track_caller]
pub fn cable([a, b]: &[Host; 2], mtu: u32) {
    link((a, "u0", UNDERLAY[0]), (b, "u0", UNDERLAY[1]), mtu);
    a.ns.sh(&format!("ip -6 addr add {}/64 dev u0 nodad", UNDERLAY6[0]));
    b.ns.sh(&format!("ip -6 addr add {}/64 dev u0 nodad", UNDERLAY6[1]));
}

/// Two hosts on one wire without Docker, Underpass running on both. Traffic is between their own br0:
/// ```text
///   [ hA  10.0.11.1/16 br0 ]       [ br0 10.0.42.1/16  hB ]
///   [         192.0.2.1 u0 ]───────[ u0 192.0.2.2         ]
/// ```
#[track_caller]
pub fn two_switches(mtu: u32) -> [Host; 2] {
    let mut hosts = [Host::new("hA", 11), Host::new("hB", 42)];
    cable(&hosts, mtu);
    for host in &mut hosts {
        host.start();
        host.overlay();
    }
    hosts
}

/// A host with so many devices, and where a test holds the far ends of their wires. Nothing but its frames passes them.
/// ```text
///   [ p0 ]─── q0
///   [ p1 ]─── q1
/// ```
#[track_caller]
pub fn wired(name: &str, devices: usize) -> (Host, Netns) {
    let (host, far) = (Host::new(name, 11), Netns::new("far"));
    host.ns.quiet();
    far.quiet();
    for i in 0..devices {
        host.ns.veth(&format!("p{i}"), &far, &format!("q{i}"), 1500);
    }
    (host, far)
}

/// Three hosts in a row; hB has a tunnel to each side:
/// ```text
///   [ hA docker0 ]            [ hB docker0 ]             [ hC docker0 ]
///   [ u0 192.0.2.1 ]──────[ u0 .2   u1 198.51.100.1 ]──────[ u0 .2 ]
/// ```
#[track_caller]
pub fn chain() -> [Host; 3] {
    let hosts = [Host::with_engine("hA", 11), Host::with_engine("hB", 42), Host::with_engine("hC", 73)];
    wire_chain(&hosts);
    hosts
}

/// The same three without Docker, and without Underpass running.
#[track_caller]
pub fn chain_of_switches() -> [Host; 3] {
    let hosts = [Host::new("hA", 11), Host::new("hB", 42), Host::new("hC", 73)];
    wire_chain(&hosts);
    hosts
}

#[track_caller]
fn wire_chain([a, b, c]: &[Host; 3]) {
    link((a, "u0", "192.0.2.1"), (b, "u0", "192.0.2.2"), 1500);
    link((b, "u1", "198.51.100.1"), (c, "u0", "198.51.100.2"), 1500);
}

/// A wire between two hosts: each its device there and its address in a /24.
#[track_caller]
pub fn link((a, da, ia): (&Host, &str, &str), (b, db, ib): (&Host, &str, &str), mtu: u32) {
    a.ns.veth(da, &b.ns, db, mtu);
    a.ns.nic(da);
    b.ns.nic(db);
    a.ns.sh(&format!("ip addr add {ia}/24 dev {da}"));
    b.ns.sh(&format!("ip addr add {ib}/24 dev {db}"));
}

/// A host behind a NAT, which gives UDP other ports, and one with an address of its own:
/// ```text
///   [ hA docker0 ]             [ nat ]                 [ hB docker0 ]
///   [ u0 10.9.0.2 ]───[ n0 10.9.0.1   n1 192.0.2.1 ]───[ u0 192.0.2.2 ]
/// ```
/// An entry of the NAT that nothing uses is forgotten after 25 s.
#[track_caller]
pub fn behind_nat() -> ([Host; 2], Netns) {
    let hosts = [Host::with_engine("hA", 11), Host::with_engine("hB", 42)];
    let nat = Netns::new("nat");
    let [a, b] = &hosts;
    for (host, device, address, far) in
        [(a, "n0", "10.9.0.2/24", "10.9.0.1/24"), (b, "n1", "192.0.2.2/24", "192.0.2.1/24")]
    {
        host.ns.veth("u0", &nat, device, 1500);
        host.ns.nic("u0");
        host.ns.sh(&format!("ip addr add {address} dev u0"));
        nat.sh(&format!("ip addr add {far} dev {device}"));
    }
    a.ns.sh("ip route add 192.0.2.0/24 via 10.9.0.1");
    nat.sh("sysctl -qw net.ipv4.ip_forward=1
        nft add table ip nat
        nft add chain ip nat out '{ type nat hook postrouting priority 100; }'
        nft add rule ip nat out oifname n1 meta l4proto udp masquerade to :20000-29999
        nft add rule ip nat out oifname n1 masquerade
        for t in timeout timeout_stream; do sysctl -qw net.netfilter.nf_conntrack_udp_$t=25; done");
    (hosts, nat)
}

/// Waits until `from` reaches `ip`.
#[track_caller]
pub fn reaches(from: &dyn Place, ip: &str) {
    poll(&format!("an answer from {ip}"), || {
        cli::output(from.cmd("ping").args(["-c1", "-W1", ip])).success().then_some(())
    });
}
