//! Stock Open vSwitch with its IPsec in a guest: kernel datapath, `ovs-monitor-ipsec` and the strongSwan that this
//! configures. Used as its users do, by ovs-vsctl.

use crate::cli::{Out, poll};
use crate::guest::Guest;
use crate::interop::Peer;
use crate::topology::Shell;

/// A running Open vSwitch with a bridge `br0`. It ends with its guest.
#[derive(Debug)]
pub struct OvsIpsec<'a> {
    guest: &'a Guest<'a>,
}

impl<'a> OvsIpsec<'a> {
    /// Starts all its daemons; `br0` gets the address `overlay`.
    #[track_caller]
    pub fn start(guest: &'a Guest<'_>, overlay: &str) -> OvsIpsec<'a> {
        guest.load_esp();
        guest.install("openvswitch-ipsec");
        guest.put(
            "/etc/strongswan.d/log.conf",
            "charon {\n filelog {\n file {\n path = /run/charon.log\n flush_line = yes\n default = 1\n }\n }\n}",
        );
        // ovs-vswitchd 3.1 counts no CPU, and starts no upcall handler, within 10 s of boot
        guest.sh(&format!(
            "modprobe -qa openvswitch vport-gre af_key || true
             mkdir -p /run/openvswitch /run/ovs /run/lock; export OVS_DBDIR=/run/ovs OVS_LOGDIR=/run/ovs
             ovsdb-tool create /run/ovs/conf.db /usr/share/openvswitch/vswitch.ovsschema
             ovsdb-server /run/ovs/conf.db --remote=punix:/run/openvswitch/db.sock --detach --pidfile
             ovs-vsctl --no-wait init
             /usr/share/openvswitch/scripts/ovs-monitor-ipsec --pidfile --ike-daemon=strongswan \
                --log-file=/run/ovs/monitor.log --detach unix:/run/openvswitch/db.sock
             while awk '{{exit !($1 < 10.5)}}' /proc/uptime; do sleep 0.2; done
             ovs-vswitchd --detach --pidfile 2>/dev/null || /usr/lib/openvswitch-switch/ovs-vswitchd --detach --pidfile
             ovs-vsctl -t 20 add-br br0
             ip addr add {overlay} dev br0; ip link set br0 mtu 1400 up"
        ));
        OvsIpsec { guest }
    }

    /// `ovs-vsctl` with the words of `line`, whatever its status.
    #[track_caller]
    pub fn try_vsctl(&self, line: &str) -> Out {
        self.guest.try_sh(&format!("ovs-vsctl -t 20 {line}"))
    }

    /// `ovs-vsctl`, which must succeed.
    #[track_caller]
    pub fn vsctl(&self, line: &str) -> String {
        self.try_vsctl(line).ok()
    }

    /// Waits until its kernel lets GRE through protected only.
    #[track_caller]
    pub fn routed(&self) {
        poll("ovs-monitor-ipsec", || self.status().contains("ROUTED").then_some(()));
    }

    /// Loads certificates that it does not load itself: strongSwan takes no notice of the `ca` section that it writes.
    #[track_caller]
    pub fn trust(&self, ca_pem: &str) {
        self.guest.put("/etc/ipsec.d/cacerts/test.pem", ca_pem);
        self.guest.sh("ipsec rereadcacerts");
    }

    /// Waits until nothing of a tunnel is left.
    #[track_caller]
    pub fn unrouted(&self) {
        poll("ovs-monitor-ipsec", || (!self.status().contains("ROUTED")).then_some(()));
    }

    fn status(&self) -> String {
        self.guest.try_sh("ipsec status").stdout
    }

    /// What it calls a connection or SA that matches `shape` in its list.
    #[track_caller]
    fn name_of(&self, open: char) -> String {
        let status = self.status();
        let established = if open == '[' { "ESTABLISHED" } else { "INSTALLED" };
        let line = status.lines().rfind(|l| l.contains(established));
        let line = line.unwrap_or_else(|| panic!("nothing {established} in\n{status}"));
        line.split_once(':').expect("a name").0.trim().to_owned()
    }
}

impl Peer for OvsIpsec<'_> {
    #[track_caller]
    fn initiate(&self) {
        let conn =
            self.guest.sh("awk '$1 == \"conn\" && $2 != \"%default\" { print $2; exit }' /etc/ipsec.conf");
        let out = self.guest.try_sh(&format!("timeout 30 ipsec up {conn}"));
        assert!(out.success() && out.stdout.contains("established successfully"), "{out:?}");
    }

    #[track_caller]
    fn rekey_child(&self) {
        let name = self.name_of('{');
        self.guest.sh(&format!("ipsec stroke rekey '{name}'"));
    }

    /// By reauthentication, as its configuration asks.
    #[track_caller]
    fn rekey_ike(&self) {
        let name = self.name_of('[');
        self.guest.sh(&format!("ipsec stroke rekey '{name}'"));
    }

    #[track_caller]
    fn terminate(&self) {
        let name = self.name_of('[');
        self.guest.sh(&format!("timeout 30 ipsec down '{name}'"));
    }

    #[track_caller]
    fn children(&self) -> usize {
        self.status().lines().filter(|l| l.contains("INSTALLED, TRANSPORT")).count()
    }

    fn describe(&self) -> String {
        let script =
            "ipsec statusall; ip -s xfrm state; tail -n 60 /run/charon.log; tail /run/ovs/monitor.log";
        self.guest.try_sh(script).stdout
    }
}

impl Drop for OvsIpsec<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- Open vSwitch's IPsec\n{}", self.describe());
        }
    }
}
