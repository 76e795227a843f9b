//! A disk that is slow, or fails: strace stands in for it, between the daemon and the kernel.

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use harness::Host;
use harness::cli::{self, poll};
use harness::topology::{UNDERLAY, two_switches};

/// What the disk does with a file's content, for as long as this lives.
struct Disk(Child);

impl Disk {
    /// `what`: how strace tampers with the system calls that wait for the disk.
    fn that(host: &Host, what: &str) -> Disk {
        let pid = host.daemon.as_ref().expect("a running daemon").pid();
        let calls = "fsync,fdatasync";
        let strace = cli::bound("strace")
            .args(["-qq", "-f", "-e", &format!("trace={calls}"), "-e", &format!("inject={calls}:{what}")])
            .args(["-o", "/dev/null", "-p", &pid.to_string()])
            .stdin(Stdio::null())
            .spawn()
            .expect("strace starts");
        let disk = Disk(strace);
        poll("each thread traced", || {
            let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).ok()?;
            let traced = |task: std::io::Result<std::fs::DirEntry>| {
                let status = std::fs::read_to_string(task.ok()?.path().join("status")).ok()?;
                Some(status.contains(&format!("TracerPid:\t{}\n", disk.0.id())))
            };
            tasks.map(traced).all(|traced| traced == Some(true)).then_some(())
        });
        assert_eq!(host.get("bridge", "br0", "name"), "br0", "it still runs");
        disk
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // By this signal it lets go of the daemon, and takes its tampering back
        cli::signal(self.0.id(), "TERM");
        let _ = self.0.wait();
    }
}

/// Who changes the configuration waits until it lasts, and longer where the file is written anew; BFD, which is to miss a
/// neighbour within 1.5 s, goes on.
#[test]
fn a_slow_disk_is_waited_for_by_nobody_else() {
    let hosts = two_switches(1500);
    for (host, remote) in hosts.iter().zip([UNDERLAY[1], UNDERLAY[0]]) {
        host.vsctl(&format!(
            "add-port br0 t0 -- set interface t0 type=gre options:remote_ip={remote} \
             bfd:enable=true bfd:min_rx=500 bfd:min_tx=500"
        ));
    }
    for host in &hosts {
        host.wait_for("interface", "t0", "bfd_status:remote_state", "up");
        poll("500 ms", || host.appctl("bfd/show t0").contains("TX Interval: Approx 500ms").then_some(()));
    }
    let [a, b] = &hosts;
    let delay = Duration::from_secs(3);
    let disk = Disk::that(a, &format!("delay_exit={}", delay.as_micros()));
    let begun = Instant::now();
    a.vsctl("set interface t0 external_ids:a=b");
    // so much that a snapshot takes the place of the file
    let much = "x".repeat(100_000);
    let each: Vec<String> = (0..11).map(|n| format!("external_ids:much{n}={much}")).collect();
    a.vsctl(&format!("set interface t0 {}", each.join(" ")));
    assert!(begun.elapsed() >= 2 * delay, "told of a change before the disk had it");
    let file = || std::fs::read_to_string(a.conf_db()).unwrap_or_default();
    poll("a snapshot", || file().contains("compacting database online").then_some(()));
    drop(disk);
    for host in [a, b] {
        assert_eq!(host.get("interface", "t0", "bfd_status:flap_count"), "1", "{}", host.log());
    }
}

/// A change that the disk refuses is reported, and so are those that follow, until it takes all of them.
#[test]
fn a_disk_that_fails_is_no_secret_and_may_recover() {
    let [mut a, _b] = two_switches(1500);
    let disk = Disk::that(&a, "error=EIO");
    let refused = a.try_vsctl("set bridge br0 external_ids:first=1");
    assert!(
        refused.stderr.contains("the disk did not take it: it is in force, but would be lost"),
        "{refused:?}"
    );
    assert_eq!(a.get("bridge", "br0", "external_ids"), "{first=\"1\"}");
    let refused = a.try_vsctl("set bridge br0 external_ids:second=2");
    assert!(refused.stderr.contains("the disk does not keep what was changed before"), "{refused:?}");
    assert!(
        a.log().contains("conf.db: the disk does not keep what was changed (Input/output error"),
        "{}",
        a.log()
    );
    drop(disk);
    poll("the disk works again", || a.log().contains("conf.db: the disk works again").then_some(()));
    a.vsctl("set bridge br0 external_ids:third=3");
    a.kill9();
    a.start();
    assert_eq!(a.get("bridge", "br0", "external_ids"), "{first=\"1\", third=\"3\"}");
}
