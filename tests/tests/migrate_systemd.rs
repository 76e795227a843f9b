//! `underpass migrate` where systemd is the first process and Open vSwitch's datapath is the kernel's: in a guest, with a peer
//! outside it.

use std::path::Path;
use std::time::Duration;

use harness::guest::Guest;
use harness::topology::{Shell, UNDERLAY, reaches};
use harness::traffic::{self, Pings};
use harness::{Host, poll_within};

/// Units of Open vSwitch's package, by whose names ours is to be found when it has taken over.
const NAMES: [&str; 3] = ["openvswitch-switch", "ovs-vswitchd", "ovsdb-server"];
/// br0 of the guest, and what stands for a container there.
const FAR: [&str; 2] = ["10.0.42.1", "10.0.42.9"];

/// ```text
///   [ br0 10.0.11.1 ─ gre0  hA ]── 192.0.2.1 ── 192.0.2.2 ──[ gre0 ─ br0 10.0.42.1 ─ c1h ─ c1 10.0.42.9 ]
///            Underpass                                            Open vSwitch, then Underpass
/// ```
struct Scene<'a> {
    host: &'a Host,
    guest: Guest<'a>,
}

impl Scene<'_> {
    #[track_caller]
    fn new(host: &Host) -> Scene<'_> {
        let guest = Guest::boot_systemd(host);
        host.overlay();
        host.gre("gre0", UNDERLAY[1], "");
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        guest.sh(&format!(
            "make -C {} -o all install
             systemctl daemon-reload
             ovs-vsctl add-br br0 -- add-port br0 gre0 -- set interface gre0 type=gre options:remote_ip={} \\
                 -- add-port br0 v7 tag=7 -- set interface v7 type=internal
             ip netns add c1
             ip link add c1h type veth peer name c1 netns c1
             ovs-vsctl add-port br0 c1h
             ip link set c1h up
             ip -n c1 addr add {}/16 dev c1
             ip -n c1 link set c1 up",
            root.display(),
            UNDERLAY[0],
            FAR[1],
        ));
        let scene = Scene { host, guest };
        scene.configure();
        scene.works();
        scene
    }

    /// What a host does when it boots.
    #[track_caller]
    fn configure(&self) {
        self.guest.sh(&format!(
            "ip addr add {}/16 dev br0; ip link set br0 up; ip route add 10.99.0.0/16 via 10.0.11.1
             ip addr add 10.7.0.2/24 dev v7; ip link set v7 up",
            FAR[0]
        ));
    }

    #[track_caller]
    fn works(&self) {
        for ip in FAR {
            reaches(self.host, ip);
            traffic::ping(self.host, ip, 5);
        }
    }

    #[track_caller]
    fn migrate(&self, words: &str) -> String {
        let out = self.guest.sh(&format!("underpass migrate {words}"));
        println!("{out}");
        out
    }

    /// What nothing of this may change.
    #[track_caller]
    fn state(&self) -> String {
        self.guest.sh("ovs-vsctl show | tail -n +2
             for d in br0 v7; do
                 ip -o link show $d | grep -o 'link/ether [^ ]*'
                 ip -o addr show $d | sed 's/^[0-9]*: //; s/ brd [^ ]*//; s/ tentative//; s/valid_lft.*//'
                 ip route show dev $d | sed 's/ *linkdown//' | sort
             done")
    }

    /// A property of a unit.
    #[track_caller]
    fn unit(&self, name: &str, property: &str) -> String {
        self.guest.sh(&format!("systemctl show --value -p {property} {name}"))
    }

    /// What systemd and the run directory say of who runs.
    #[track_caller]
    fn runs_underpass(&self) {
        for name in NAMES {
            let told = ["Id", "ActiveState", "UnitFileState"].map(|property| self.unit(name, property));
            assert_eq!(told, ["underpass.service", "active", "enabled"], "{name}");
        }
        let pid = self.unit("openvswitch-switch", "MainPID");
        assert_eq!(
            self.guest.sh("cat /run/openvswitch/ovs-vswitchd.pid /run/openvswitch/ovsdb-server.pid"),
            format!("{pid}\n{pid}")
        );
        self.guest.sh("systemctl -q is-active openvswitch-switch && systemctl status openvswitch-switch | grep -q underpass");
        let theirs = self.guest.try_sh("pgrep -x ovs-vswitchd; pgrep -x ovsdb-server");
        assert_eq!(theirs.stdout, "", "Open vSwitch runs, too");
    }

    #[track_caller]
    fn runs_ovs(&self) {
        for name in NAMES {
            assert_eq!(self.unit(name, "Id"), format!("{name}.service"));
            assert_eq!(self.unit(name, "ActiveState"), "active", "{name}");
        }
        assert_eq!(self.unit("openvswitch-switch", "UnitFileState"), "enabled");
        assert_ne!(self.unit("underpass", "ActiveState"), "active");
        assert_eq!(self.unit("underpass", "UnitFileState"), "disabled");
        assert!(self.guest.sh("ovs-dpctl show").contains("port 0: ovs-system (internal)"));
    }

    /// Another process than `before` runs, as systemd sees it.
    #[track_caller]
    fn other_than(&self, before: &str) -> String {
        poll_within(Duration::from_secs(30), "another process", || {
            let pid = self.unit("underpass", "MainPID");
            let other = self.unit("underpass", "ActiveState") == "active" && pid != before && pid != "0";
            other.then_some(pid)
        })
    }
}

#[test]
fn a_host_with_systemd_and_the_datapath_in_the_kernel() {
    let mut host = Host::new("hA", 11);
    host.start();
    let scene = Scene::new(&host);
    let guest = &scene.guest;
    let before = scene.state();
    scene.runs_ovs();
    assert_eq!(guest.sh("systemd-analyze verify underpass.service"), "");

    let report = scene.migrate("");
    assert!(report.contains("run by systemd") && report.contains("All of it will work."), "{report}");
    let pings = Pings::start(&host, FAR[0]);
    let taken = scene.migrate("--take-over");
    assert!(taken.contains("Underpass has taken over."), "{taken}");
    scene.works();
    let (sent, answered) = pings.end();
    assert!(answered > 0 && sent - answered < 1000, "{answered} of {sent}");
    scene.runs_underpass();
    assert_eq!(scene.state(), before);
    assert_eq!(
        guest.sh("ls /sys/class/net | grep -E 'ovs-system|gre_sys' || true"),
        "",
        "the kernel forwards"
    );
    assert_eq!(guest.sh("ovs-dpctl show"), "");

    // restarted by Open vSwitch's name, by its package, and after a crash: addresses and containers' ports stay
    let mut pid = scene.unit("underpass", "MainPID");
    for (how, what) in [
        ("a restart", "systemctl restart openvswitch-switch"),
        (
            "an upgrade of the package",
            "DPKG_MAINTSCRIPT_PACKAGE=openvswitch-switch /var/lib/dpkg/info/openvswitch-switch.postinst configure 3.1.0",
        ),
        ("a crash", "kill -9 $(systemctl show --value -p MainPID underpass)"),
    ] {
        println!("{how}");
        let pings = Pings::start(&host, FAR[1]);
        guest.sh(what);
        pid = scene.other_than(&pid);
        scene.works();
        pings.end();
        scene.runs_underpass();
        assert_eq!(scene.state(), before, "after {how}");
    }

    // a reload reopens the log
    let log = "/var/log/openvswitch/ovs-vswitchd.log";
    guest.sh(&format!("mv {log} {log}.1; systemctl reload openvswitch-switch; test -e {log}"));
    assert_eq!(scene.unit("underpass", "MainPID"), pid);

    // as after a boot, but for what the host configures then
    guest.sh("systemctl isolate guest-down.target");
    assert_ne!(scene.unit("underpass", "ActiveState"), "active");
    guest.sh("ip link del br0; ip link del v7; rm -r /run/openvswitch; rmmod openvswitch || true; systemctl isolate default.target");
    scene.configure();
    scene.works();
    scene.runs_underpass();
    assert_eq!(scene.state(), before);

    let pings = Pings::start(&host, FAR[0]);
    let back = scene.migrate("--back");
    assert!(back.contains("Open vSwitch runs again."), "{back}");
    scene.works();
    pings.end();
    scene.runs_ovs();
    assert_eq!(scene.state(), before);
    assert_eq!(guest.sh("systemctl --failed --no-legend --plain"), "");
}
