//! What `make demo` runs, from its first line to its last.

use std::process::{Command, Stdio};

use harness::{cli, daemon};

#[test]
fn says_hello_and_leaves_nothing() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/demo/run");
    let child = Command::new("timeout")
        .args(["--foreground", "280", script])
        .env("UNDERPASS", daemon::underpass())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let timeout = child.id();
    let mut script = None;
    while script.is_none() {
        let children = std::fs::read_to_string(format!("/proc/{timeout}/task/{timeout}/children")).unwrap();
        script = children.split_whitespace().next().map(str::to_owned);
    }
    let tag = format!("demo{}-", script.unwrap());
    let out = child.wait_with_output().unwrap();
    let (said, complaints) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{}\n{said}\n{complaints}", out.status);

    for line in [
        "hostA# ovs-vsctl add-br br0",
        "hostA# ovs-vsctl add-port br0 docker0",
        "hostB# ovs-vsctl add-port br0 gre0 -- set interface gre0 type=ipsec_gre options:remote_ip=192.0.2.1 options:psk=thisisnotagoodpsk",
        "Hello",
    ] {
        assert!(said.lines().any(|l| l == line), "no line {line:?} in\n{said}");
    }
    for part in [
        "3 packets received",
        "receiver",
        " port  VLAN  MAC",
        "Interface gre0",
        "packets of ESP, 0 of GRE",
        "Next header: Generic Routing Encapsulation",
        "[Checksum Status: Good]",
        "packets of ESP opened, 0 malformed",
        "ESTABLISHED",
        "AES_GCM_16-256",
    ] {
        assert!(said.contains(part), "no {part:?} in\n{said}");
    }
    assert!(!said.contains('\u{1b}'), "no colour but on a terminal");

    let left = cli::run(Command::new("sh").args([
        "-c",
        &format!("{{ ip netns list; cat /proc/mounts; find /sys/fs/cgroup -type d; ls /tmp; ps -e -o args; }} | grep -F {tag} | grep -v grep || true"),
    ]));
    assert_eq!(left, "", "left behind");
}
