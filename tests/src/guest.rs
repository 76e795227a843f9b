//! A machine with a kernel of its own, for peers that the kernel under test may lack: gretap and kernel Open vSwitch.

use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::cli::{self, Out, poll};
use crate::netns::Netns;
use crate::topology::{Host, Place, UNDERLAY};

/// A booted guest on the far end of a host's `u0`. It ends when dropped.
/// ```text
///   [ host u0 192.0.2.1 ]──veth──[ w0 ─ bridge ─ tap0 ]──[ eth0 192.0.2.2 guest ]
/// ```
/// A TAP hands over superframes and unfinished checksums, as no wire does: the veth pair finishes them.
#[derive(Debug)]
pub struct Guest<'a> {
    vm: Child,
    host: &'a Host,
    _wire: Netns,
}

impl Guest<'_> {
    /// Boots a guest with `192.0.2.2` on its eth0, and gives `host` a `u0` with `192.0.2.1` to it.
    #[track_caller]
    pub fn boot(host: &Host) -> Guest<'_> {
        let run = Path::new(env!("CARGO_MANIFEST_DIR")).join("guest/run");
        cli::run(Command::new(&run).arg("prepare"));
        let wire = Netns::new("wire");
        host.ns.veth("u0", &wire, "w0", 1500);
        host.ns.nic("u0");
        host.ns.sh(&format!("ip addr add {}/24 dev u0", UNDERLAY[0]));
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
        poll("the guest", answers);
        Guest { vm, host, _wire: wire }
    }

    /// A shell script in the guest, whatever its status; what it says on either output is in `stdout`.
    #[track_caller]
    pub fn try_sh(&self, script: &str) -> Out {
        let mut nc = self
            .host
            .bound("timeout")
            .args(["60", "busybox", "nc", UNDERLAY[1], "7000"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("busybox nc");
        let mut stdin = nc.stdin.take().expect("its standard input");
        writeln!(stdin, "{{ ( set -e\n{script}\n) </dev/null 2>&1; echo \"status=$?\"; exit; }}")
            .expect("the guest reads");
        let text = nc.wait_with_output().expect("the guest's answer");
        drop(stdin);
        let text = String::from_utf8_lossy(&text.stdout).into_owned();
        let (stdout, code) = text.rsplit_once("status=").unwrap_or((&text, "255"));
        Out {
            line: script.to_owned(),
            code: code.trim().parse().unwrap_or(255),
            stdout: stdout.to_owned(),
            stderr: String::new(),
        }
    }

    /// A shell script in the guest; every line must succeed.
    #[track_caller]
    pub fn sh(&self, script: &str) -> String {
        self.try_sh(script).ok()
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
