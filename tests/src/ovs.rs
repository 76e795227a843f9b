//! The real Open vSwitch: an ovsdb-server and an ovs-vswitchd with the userspace datapath, in a host's namespace.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::cli::{self, Out, poll};
use crate::daemon;
use crate::topology::Host;

/// Open vSwitch running on a host, in the host's run directory: [`Host::vsctl`] and its fellows talk to it.
#[derive(Debug)]
pub struct Ovs {
    server: Child,
    switch: Child,
}

impl Ovs {
    /// Starts both programs on `host`, with an empty database, and waits until they answer.
    #[track_caller]
    pub fn start(host: &Host) -> Ovs {
        let schema = "/usr/share/openvswitch/vswitch.ovsschema";
        cli::run(Command::new("ovsdb-tool").arg("create").arg(host.conf_db()).arg(schema));
        Ovs::resume(host)
    }

    /// The same with the database that is there.
    #[track_caller]
    pub fn resume(host: &Host) -> Ovs {
        let (dir, db) = (host.rundir(), host.conf_db());
        let sock = dir.join("db.sock");
        let mut server = Self::command(host, "ovsdb-server");
        server.arg(&db).arg(format!("--remote=punix:{}", sock.display()));
        let server = server.spawn().expect("ovsdb-server");
        poll("ovsdb-server", || daemon::answers(&sock).then_some(()));
        host.vsctl("--no-wait init");
        let mut switch = Self::command(host, vswitchd());
        switch.arg(format!("unix:{}", sock.display())).arg("--disable-system");
        let switch = switch.spawn().expect("ovs-vswitchd");
        let ovs = Ovs { server, switch };
        poll("ovs-vswitchd", || {
            let out = cli::output(host.tool("ovs-appctl").arg("version"));
            out.success().then_some(())
        });
        ovs
    }

    fn command(host: &Host, program: &str) -> Command {
        let dir = host.rundir();
        let mut c = host.ns.bound(program);
        let log =
            |n: &str| dir.join(format!("{}.{n}", Path::new(program).file_name().unwrap().to_string_lossy()));
        c.env("OVS_RUNDIR", dir)
            .env("OVS_DBDIR", dir)
            .env("OVS_LOGDIR", dir)
            .env("OVS_SYSCONFDIR", dir)
            .arg("--pidfile")
            .arg(format!("--log-file={}", log("log").display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(log("stderr")).expect("a file for its standard error"));
        c
    }

    /// Makes `br-phy` carry the underlay, as OVS's userspace tunnels need it: u0 becomes a port of it, and the host's
    /// underlay address moves to it. Then a bridge `br0` for the tunnels, with address `overlay`.
    #[track_caller]
    pub fn underlay(&self, host: &Host, address: &str, overlay: &str) {
        let mac = host.ns.sh("ip -o link show u0 | sed 's/.*link.ether \\([^ ]*\\) .*/\\1/'");
        host.vsctl(&format!(
            "add-br br-phy -- set bridge br-phy datapath_type=netdev other_config:hwaddr=\"{mac}\" -- add-port br-phy u0"
        ));
        // it finishes no checksums and cuts no superframes of others
        host.ns.sh(&format!(
            "ethtool -K u0 tx off tso off gso off gro off >/dev/null
             ip addr flush dev u0
             ip addr add {address}/24 dev br-phy
             ip link set br-phy up"
        ));
        host.vsctl("add-br br0 -- set bridge br0 datapath_type=netdev");
        host.ns.sh(&format!(
            "ip addr add {overlay} dev br0
             ethtool -K br0 tx off tso off gso off >/dev/null 2>&1 || true
             ip link set br0 mtu 1400 up"
        ));
    }
}

/// Where Debian puts it, or wherever PATH finds it.
fn vswitchd() -> &'static str {
    let debian = "/usr/lib/openvswitch-switch/ovs-vswitchd";
    if Path::new(debian).exists() { debian } else { "ovs-vswitchd" }
}

impl Drop for Ovs {
    fn drop(&mut self) {
        for child in [&mut self.switch, &mut self.server] {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A text in a form that two runs can be compared by: UUIDs, timestamps and the run directory replaced by words, lines
/// sorted (rows come in the order of their UUIDs, which are random).
pub fn normalise(text: &str, host: &Host) -> String {
    let text = text.replace(&host.rundir().display().to_string(), "<rundir>");
    let text = replace(&text, "########-####-####-####-############", "<uuid>");
    let text = replace(&text, "9999-99-99T99:99:99Z", "<time>");
    // of tunnels, which Open vSwitch makes up
    let text = replace(&text, "(gre9): addr:##:##:##:##:##:##", "(gre): addr:<mac>");
    let text = ["duration=", "idle_age="].iter().fold(text, |text, field| without_value(&text, field));
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines.join("\n")
}

/// `text` without what follows `field` up to a comma or the end of the word: it tells how long something has lasted.
fn without_value(text: &str, field: &str) -> String {
    let mut parts = text.split(field);
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| {
        let end = part.find([',', '\n', ' ']).unwrap_or(part.len());
        text + field + "<time>" + &part[end..]
    })
}

/// `text` with every match of `shape` replaced by `name`; `#` matches a hexadecimal digit, `9` a decimal one.
fn replace(text: &str, shape: &str, name: &str) -> String {
    let matches = |at: &[u8]| {
        at.len() >= shape.len()
            && shape.bytes().zip(at).all(|(s, b)| match s {
                b'#' => b.is_ascii_hexdigit(),
                b'9' => b.is_ascii_digit(),
                s => s == *b,
            })
    };
    let (mut out, mut rest) = (String::new(), text);
    while let Some(c) = rest.chars().next() {
        if matches(rest.as_bytes()) {
            out.push_str(name);
            rest = &rest[shape.len()..];
        } else {
            out.push(c);
            rest = &rest[c.len_utf8()..];
        }
    }
    out
}

/// Whether a program's outputs are the same, for the differential test.
pub fn same(a: &Out, b: &Out) -> bool {
    a.code == b.code && a.stdout == b.stdout && a.stderr == b.stderr
}
