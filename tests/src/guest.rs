//! A machine with a kernel of its own, for peers that the kernel under test may lack: gretap, kernel Open vSwitch, ESP.

use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::cli::{self, Out, poll, poll_within};
use crate::netns::Netns;
use crate::topology::{Host, Place, Shell, UNDERLAY, UNDERLAY6};

/// Where a guest serves its shell.
const SHELL: &str = "192.0.2.2:7000";

/// The program that talks to it.
fn client() -> String {
    cli::helper("remote").to_str().expect("a path in UTF-8").to_owned()
}

/// A booted guest on the far end of a host's `u0`. It ends when dropped.
/// ```text
///   [ host u0 192.0.2.1 ]──veth──[ w0 ─ bridge ─ tap0 ]──[ eth0 192.0.2.2 guest ]
/// ```
/// A TAP hands over superframes and unfinished checksums, as no wire does: the veth pair finishes them.
#[derive(Debug)]
pub struct Guest<'a> {
    vm: Child,
    host: &'a Host,
    /// Between the two: `w0` there has each packet as it is on the wire.
    pub wire: Netns,
}

impl Guest<'_> {
    /// Boots a guest with `192.0.2.2` on its eth0, and gives `host` a `u0` with `192.0.2.1` to it.
    #[track_caller]
    pub fn boot(host: &Host) -> Guest<'_> {
        Guest::with_pid1(host, "")
    }

    /// The same with systemd as the guest's first process, and Open vSwitch as a service with its datapath in the kernel. Returns
    /// when that runs.
    #[track_caller]
    pub fn boot_systemd(host: &Host) -> Guest<'_> {
        let guest = Guest::with_pid1(host, "systemd");
        poll_within(Duration::from_secs(90), "Open vSwitch in the guest", || {
            guest.try_sh("systemctl -q is-active openvswitch-switch").success().then_some(())
        });
        guest
    }

    #[track_caller]
    fn with_pid1<'a>(host: &'a Host, pid1: &str) -> Guest<'a> {
        let run = Path::new(env!("CARGO_MANIFEST_DIR")).join("guest/run");
        cli::run(Command::new(&run).arg("prepare"));
        let wire = Netns::new("wire");
        host.ns.veth("u0", &wire, "w0", 1500);
        host.ns.nic("u0");
        host.ns.sh(&format!(
            "ip addr add {}/24 dev u0; ip -6 addr add {}/64 dev u0 nodad",
            UNDERLAY[0], UNDERLAY6[0]
        ));
        // User Mode Linux's TAP driver takes no superframes
        wire.sh("ethtool -K w0 tx off tso off gso off gro off >/dev/null
            ip tuntap add tap0 mode tap
            ip link set tap0 gso_max_segs 1 gso_max_size 1500
            ip link add b0 type bridge
            for d in w0 tap0; do ip link set $d master b0 up; done
            ip link set b0 up");
        let log = std::fs::File::create(host.rundir().join("guest.log")).expect("the guest's log");
        let mut vm = wire
            .bound(run.to_str().expect("a path in UTF-8"))
            .args(["tap0", &format!("{}/24", UNDERLAY[1])])
            .env("GUEST_PID1", pid1)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the guest's log"))
            .stderr(log)
            .spawn()
            .expect("guest/run");
        let answers = || {
            let log = || std::fs::read_to_string(host.rundir().join("guest.log")).unwrap_or_default();
            if let Ok(Some(status)) = vm.try_wait() {
                panic!("the guest ended with {status}\n{}", log());
            }
            cli::output(host.cmd("ping").args(["-c1", "-W1", UNDERLAY[1]])).success().then_some(())
        };
        poll_within(Duration::from_secs(120), "the guest", answers);
        let guest = Guest { vm, host, wire };
        poll("the guest's shell", || guest.try_sh("true").success().then_some(()));
        guest.sh(&format!("ip -6 addr add {}/64 dev eth0 nodad", UNDERLAY6[1]));
        guest
    }

    /// Unpacks a package in the guest that cannot be installed beside the host's own.
    #[track_caller]
    pub fn install(&self, package: &str) {
        let peer = Path::new(env!("CARGO_MANIFEST_DIR")).join("guest/peer");
        let dir = cli::run(Command::new(peer).arg(package));
        self.sh(&format!("tar -C {dir} -c . | tar -C / -x --keep-directory-symlink"));
    }

    /// What the kernel needs for ESP and GRE over either IP version, loaded before packets have to wait for it.
    pub fn load_esp(&self) {
        self.sh("modprobe -qa ip_gre ip6_gre esp4 esp6 xfrm_user seqiv gcm || true");
    }
}

impl Shell for Guest<'_> {
    /// What the script says on either output is in `stdout`.
    #[track_caller]
    fn try_sh(&self, script: &str) -> Out {
        let mut remote = self
            .host
            .bound(&client())
            .args([SHELL, "90"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program remote");
        let mut stdin = remote.stdin.take().expect("its standard input");
        stdin.write_all(script.as_bytes()).expect("it reads");
        drop(stdin);
        let out = remote.wait_with_output().expect("the guest's answer");
        Out {
            line: script.to_owned(),
            code: out.status.code().unwrap_or(255),
            stdout: String::from_utf8_lossy(&out.stdout).into_owned(),
            stderr: String::new(),
        }
    }
}

/// A program in the guest, by a client on the host. The words may hold nothing that a shell would take apart.
impl Place for Guest<'_> {
    fn cmd(&self, program: &str) -> Command {
        let mut c = self.host.cmd(&client());
        c.args([SHELL, "600", program]);
        c
    }
    fn bound(&self, program: &str) -> Command {
        let mut c = self.host.bound(&client());
        c.args([SHELL, "600", program]);
        c
    }
}

impl Drop for Guest<'_> {
    fn drop(&mut self) {
        let _ = self.vm.kill();
        let _ = self.vm.wait();
        if std::thread::panicking() {
            eprintln!("--- guest\n{}", crate::daemon::tail(&self.host.rundir().join("guest.log")));
        }
    }
}
