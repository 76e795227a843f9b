//! `underpass migrate`: from the real Open vSwitch to Underpass and back, while traffic runs.

use std::path::Path;

use harness::cli::{self, Out};
use harness::ovs::{self, Ovs};
use harness::topology::{Shell, UNDERLAY, cable, reaches};
use harness::traffic::Pings;
use harness::{Host, traffic};

/// A host with Open vSwitch, and one with Underpass, joined by a tunnel and a VLAN in it.
struct Scene {
    /// Ends before the host whose programs they are.
    strays: Strays,
    _ovs: Ovs,
    disk: Option<Full>,
    a: Host,
    b: Host,
}

/// What a migration has started, and nobody else would end.
struct Strays(std::path::PathBuf);

impl Drop for Strays {
    fn drop(&mut self) {
        for target in ["ovs-vswitchd", "ovsdb-server"] {
            let pid = std::fs::read_to_string(self.0.join(format!("{target}.pid"))).unwrap_or_default();
            if let Ok(pid) = pid.trim().parse::<u32>()
                && Path::new(&format!("/proc/{pid}")).exists()
            {
                let _ = cli::output(std::process::Command::new("kill").args(["-9", &pid.to_string()]));
            }
        }
    }
}

impl Scene {
    #[track_caller]
    fn new() -> Scene {
        Scene::on(|_| None)
    }

    #[track_caller]
    fn on(disk: impl FnOnce(&Host) -> Option<Full>) -> Scene {
        let hosts = [Host::new("ovs", 11), Host::new("hB", 42)];
        cable(&hosts, 1500);
        let disk = disk(&hosts[0]);
        let [a, mut b] = hosts;
        let ovs = Ovs::start(&a);
        // as ovs-ctl does
        a.vsctl("--no-wait set open_vswitch . ovs_version=3.1.0");
        ovs.underlay(&a, UNDERLAY[0], "10.0.11.1/16");
        b.start();
        b.overlay();
        for (host, remote, n) in [(&a, UNDERLAY[1], 1), (&b, UNDERLAY[0], 2)] {
            host.gre("gre0", remote, "");
            host.vsctl("add-port br0 v7 tag=7 -- set interface v7 type=internal");
            host.sh(&format!("ip addr add 10.7.0.{n}/24 dev v7; ip link set v7 mtu 1400 up"));
        }
        // routes of which one needs the other, whichever the kernel lists first; addresses of all kinds
        a.sh("ip route add 10.99.0.0/16 via 10.0.42.1 dev br0 metric 7
            sysctl -qw net.ipv4.conf.br0.rp_filter=2
            ip addr add 10.77.0.1/32 dev br0
            ip route add 10.77.0.254 dev br0 scope link
            ip route add default via 10.77.0.254 dev br0
            ip route add 10.98.0.0/16 via 203.0.113.9 dev br0 onlink
            ip addr add 10.1.1.5 peer 10.1.1.1/32 dev br0
            ip addr add fe80::1/64 dev v7 nodad
            ip addr add 10.7.9.1/24 dev v7 noprefixroute");
        reaches(&a, "10.0.42.1");
        reaches(&a, "10.7.0.2");
        Scene { strays: Strays(a.rundir().to_owned()), _ovs: ovs, disk, a, b }
    }

    fn migrate(&self, words: &str) -> Out {
        let out = self.a.underpass(&format!("migrate {words}"));
        println!("{out:?}");
        out
    }

    /// What neither way may change.
    #[track_caller]
    fn state(&self) -> String {
        let devices = "for d in br-phy br0 v7; do
                ip -o link show $d | sed 's/.*mtu \\([0-9]*\\).*ether \\([^ ]*\\).*/\\1 \\2/'
                ip -o addr show $d | sed 's/^[0-9]*: //; s/ brd [^ ]*//; s/valid_lft.*//'
                ip route show dev $d | sed 's/ *linkdown//' | sort
                cat /proc/sys/net/ipv4/conf/$d/rp_filter
            done";
        format!("{}\n{}", ovs::normalise(&self.a.vsctl("show"), &self.a), self.a.sh(devices))
    }

    #[track_caller]
    fn works(&self) {
        for ip in ["10.0.42.1", "10.7.0.2"] {
            reaches(&self.a, ip);
            traffic::ping(&self.a, ip, 5);
        }
        reaches(&self.b, "10.0.11.1");
    }

    /// One process is switch and database.
    fn runs_underpass(&self) -> bool {
        let pid =
            |target: &str| std::fs::read_to_string(self.strays.0.join(format!("{target}.pid"))).unwrap();
        pid("ovs-vswitchd") == pid("ovsdb-server")
    }

    /// Files beside the database whose names begin so.
    fn copies(&self, start: &str) -> usize {
        let files = std::fs::read_dir(self.strays.0.as_path()).unwrap().flatten();
        files.filter(|f| f.file_name().to_string_lossy().starts_with(start)).count()
    }
}

#[test]
fn there_and_back_again() {
    let scene = Scene::new();
    let before = scene.state();

    let report = scene.migrate("");
    assert!(report.success() && report.stdout.contains("All of it will work."), "{report:?}");
    assert!(!scene.runs_underpass(), "a report changes nothing");
    assert_eq!(scene.copies("conf.db.openvswitch-"), 0);

    let pings = Pings::start(&scene.a, "10.0.42.1");
    let taken = scene.migrate("--take-over");
    assert!(taken.success() && taken.stdout.contains("Underpass has taken over."), "{taken:?}");
    assert!(scene.runs_underpass());
    assert_eq!(scene.state(), before);
    scene.works();
    let (sent, answered) = pings.end();
    assert!(answered > 0 && sent - answered < 1000, "{answered} of {sent}");
    assert_eq!(scene.copies("conf.db.openvswitch-"), 2, "the database and the record");
    assert!(scene.migrate("").stderr.contains("Underpass runs"));

    // What is configured meanwhile goes along, back and forth
    scene.a.vsctl("set bridge br0 external_ids:since=underpass");
    let pings = Pings::start(&scene.a, "10.0.42.1");
    let db = scene.a.conf_db().display().to_string();
    // by a name that leads to it, as Debian has one
    let link = scene.a.rundir().join("link.db");
    std::os::unix::fs::symlink(&db, &link).unwrap();
    let back = scene.migrate(&format!("--back --db {}", link.display()));
    assert!(back.success() && back.stdout.contains("Open vSwitch runs again."), "{back:?}");
    assert!(!scene.runs_underpass());
    assert_eq!(scene.state(), before);
    assert_eq!(scene.a.get("bridge", "br0", "external_ids:since"), "underpass");
    scene.works();
    let (sent, answered) = pings.end();
    assert!(answered > 0 && sent - answered < 1000, "{answered} of {sent}");
    assert_eq!(scene.copies("conf.db.underpass-"), 1);

    // what is added and taken away meanwhile is none of the way back's business
    let taken = scene.migrate("--take-over");
    assert!(taken.success(), "{taken:?}");
    scene.a.vsctl("del-port v7 -- add-port br0 v8 -- set interface v8 type=internal");
    scene.a.sh("ip addr add 10.8.0.1/24 dev v8");
    let back = scene.migrate(&format!("--back --saved --db {db}"));
    assert!(back.success(), "{back:?}");
    assert_eq!(scene.state(), before);
    scene.works();

    let taken = scene.migrate("--take-over");
    assert!(taken.success(), "{taken:?}");
    scene.a.vsctl("del-port v7");
    let back = scene.migrate(&format!("--back --db {db}"));
    assert!(back.success() && !back.stdout.contains("v7"), "{back:?}");
    reaches(&scene.a, "10.0.42.1");
}

/// A file system that is full but for what the record of a migration takes.
struct Full(std::path::PathBuf);

impl Full {
    fn mount(at: &Path) -> Full {
        cli::run(std::process::Command::new("mount").args(["-t", "tmpfs", "-o", "size=4m", "tmpfs"]).arg(at));
        Full(at.to_owned())
    }

    /// Leaves so many bytes.
    fn fill(&self, but: usize) {
        let room = std::fs::read(self.0.join("room"));
        assert!(room.is_err());
        let mut file = std::fs::File::create(self.0.join("fill")).unwrap();
        let _ = std::io::copy(&mut std::io::repeat(1), &mut file);
        file.set_len(file.metadata().unwrap().len() - but as u64).unwrap();
    }
}

impl Drop for Full {
    fn drop(&mut self) {
        let _ = cli::output(std::process::Command::new("umount").arg("-l").arg(&self.0));
    }
}

#[test]
fn a_full_disk_loses_nothing() {
    for left in [4096, 8192, 20480] {
        let scene = Scene::on(|a| Some(Full::mount(a.rundir())));
        let before = scene.state();
        let db = std::fs::read(scene.a.conf_db()).unwrap();
        scene.disk.as_ref().unwrap().fill(left);
        let failed = scene.migrate("--take-over");
        assert!(failed.code == 1, "{failed:?}");
        assert!(!scene.runs_underpass());
        assert!(std::fs::read(scene.a.conf_db()).unwrap().starts_with(&db), "{left} bytes were left");
        assert_eq!(scene.state(), before);
        scene.works();
    }
}

#[test]
fn what_fails_leaves_all_as_it_was() {
    let scene = Scene::new();
    let before = scene.state();

    // Underpass cannot start where its pid file should be
    let obstacle = scene.a.rundir().join("ovs-monitor-ipsec.pid");
    std::fs::create_dir(&obstacle).unwrap();
    let failed = scene.migrate("--take-over");
    assert!(failed.code == 1 && failed.stderr.contains("Open vSwitch runs again, as before"), "{failed:?}");
    assert!(!scene.runs_underpass());
    assert_eq!(scene.state(), before);
    assert_eq!(scene.a.get("bridge", "br0", "other_config"), "{}");
    scene.works();
    std::fs::remove_dir(&obstacle).unwrap();

    // What will not work is said, and wants a word more
    scene.a.vsctl(
        "--no-wait add-port br0 er0 -- set interface er0 type=erspan options:remote_ip=192.0.2.9 \
                   options:erspan_ver=1 options:erspan_idx=1",
    );
    let report = scene.migrate("");
    assert_eq!(report.code, 2, "{report:?}");
    assert!(report.stdout.contains("type 'erspan' is not supported"), "{report:?}");
    let refused = scene.migrate("--take-over");
    assert!(refused.code == 1 && refused.stderr.contains("--force"), "{refused:?}");
    assert!(!scene.runs_underpass());
    let forced = scene.migrate("--take-over --force");
    assert!(forced.success() && scene.runs_underpass(), "{forced:?}");
    scene.works();
}
