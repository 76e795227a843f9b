//! Network namespaces: unique names, gone when dropped.

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::cli::{self, Out};

static COUNT: AtomicU32 = AtomicU32::new(0);

/// A network namespace with its loopback up. Dropping it removes it, and with it every device in it.
#[derive(Debug)]
pub struct Netns {
    name: String,
}

impl Netns {
    /// A new one; `tag` is what a reader of `ip netns list` sees of its role.
    #[track_caller]
    pub fn new(tag: &str) -> Netns {
        let name = format!("up{}-{}-{tag}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        cli::run(Command::new("ip").args(["netns", "add", &name]));
        let ns = Netns { name };
        ns.sh("ip link set lo up
            sysctl -qw net.ipv6.conf.default.accept_dad=0 net.ipv6.conf.all.accept_dad=0");
        ns
    }

    /// Its name, as `ip netns` knows it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its file, as `nsenter --net=` wants it.
    pub fn path(&self) -> String {
        format!("/run/netns/{}", self.name)
    }

    /// `program` inside it. The pid is the program's own.
    pub fn cmd(&self, program: &str) -> Command {
        enter(&self.path(), program)
    }

    /// Like [`Netns::cmd`], and killed when the test's thread ends.
    pub fn bound(&self, program: &str) -> Command {
        let mut c = cli::bound("nsenter");
        c.args([&format!("--net={}", self.path()), "--", program]);
        c
    }

    /// A shell script inside it; every line must succeed. Gives its standard output.
    #[track_caller]
    pub fn sh(&self, script: &str) -> String {
        self.try_sh(script).ok()
    }

    /// A shell script inside it, whatever its status.
    #[track_caller]
    pub fn try_sh(&self, script: &str) -> Out {
        cli::output(self.cmd("sh").args(["-ec", script]))
    }

    /// A veth pair between this namespace and another, both ends up.
    #[track_caller]
    pub fn veth(&self, dev: &str, peer: &Netns, peer_dev: &str, mtu: u32) {
        self.sh(&format!(
            "ip link add {dev} mtu {mtu} type veth peer name {peer_dev} netns {} mtu {mtu}
             ip link set {dev} up",
            peer.name
        ));
        peer.sh(&format!("ip link set {peer_dev} up"));
    }

    /// No frames but the test's: nobody here speaks IPv6 of his own accord.
    #[track_caller]
    pub fn quiet(&self) {
        self.sh("sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1");
    }

    /// Makes a veth end behave like a NIC without segmentation offload: no frame longer than the MTU crosses it, and
    /// what arrives may be coalesced. A bare veth would pass superframes and hide what a wire would show.
    #[track_caller]
    pub fn nic(&self, dev: &str) {
        self.sh(&format!(
            "ethtool -K {dev} tso off tx-udp-segmentation off tx-gre-segmentation off tx-gre-csum-segmentation off \
             tx-udp_tnl-segmentation off tx-udp_tnl-csum-segmentation off tx-ipxip4-segmentation off tx-gso-list off \
             gro on"
        ));
        // where the kernel cuts packets it leaves their checksums to the card, which this one does not have
        if std::env::var_os("UNDERLAY_IO").is_some() {
            self.sh(&format!("ethtool -K {dev} tx off >/dev/null"));
        }
    }

    /// Names of the devices in it, loopback aside, sorted.
    pub fn links(&self) -> Vec<String> {
        let text = self.sh("ip -o link show | cut -d: -f2 | cut -d@ -f1");
        let mut v: Vec<String> = text.lines().map(|l| l.trim().to_owned()).filter(|l| l != "lo").collect();
        v.sort();
        v
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).output();
    }
}

/// `program` in the network namespace behind `path`.
pub fn enter(path: &str, program: &str) -> Command {
    let mut c = Command::new("nsenter");
    c.args([&format!("--net={path}"), "--", program]);
    c
}
