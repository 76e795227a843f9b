//! The stock `ovs-docker`, which gives a container a device, and makes the other end a port. The Docker Engine is a word in its place:
//! all that is asked of it is the container's process.
//! ```text
//!   [ eth1 192.0.2.1  container ]──veth──[ br0 ]──p0──[ q0 192.0.2.9  far ]
//! ```

use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use harness::{Host, Netns, cli};

#[test]
fn ovs_docker_adds_and_removes_ports() {
    let (mut host, far, container) = (Host::new("host", 11), Netns::new("far"), Netns::new("box"));
    host.ns.veth("p0", &far, "q0", 1500);
    far.sh("ip addr add 192.0.2.9/24 dev q0");
    host.start();
    host.vsctl("add-br br0 -- add-port br0 p0");
    let mut process = container.bound("sleep");
    let mut process = process.arg("600").stdin(Stdio::null()).spawn().expect("sleep");
    let docker = host.rundir().join("docker");
    std::fs::write(&docker, format!("#!/bin/sh\necho {}\n", process.id())).expect("a file");
    std::fs::set_permissions(&docker, std::fs::Permissions::from_mode(0o755)).expect("its mode");
    let path = format!("{}:{}", host.rundir().display(), std::env::var("PATH").unwrap_or_default());
    let tool = |line: &str| {
        let mut tool = host.tool("ovs-docker");
        cli::output(tool.env("PATH", &path).args(line.split_whitespace()))
    };

    tool("add-port br0 eth1 c1 --ipaddress=192.0.2.1/24 --macaddress=02:00:00:00:50:50 --mtu=1400").ok();
    let link = container.sh("ip link show eth1");
    assert!(link.contains("02:00:00:00:50:50") && link.contains("mtu 1400"), "{link}");
    let pings = |count: &str| far.try_sh("ping -c 3 -i 0.2 -W 1 192.0.2.1").stdout.contains(count);
    cli::poll("the container", || pings("3 received").then_some(()));
    assert!(!tool("add-port br0 eth1 c1").success(), "once is enough");
    tool("set-vlan br0 eth1 c1 5").ok();
    cli::poll("another VLAN", || pings(" 0 received").then_some(()));
    tool("del-port br0 eth1 c1").ok();
    assert_eq!(host.vsctl("list-ports br0").trim(), "p0");
    process.kill().expect("to end it");
    process.wait().expect("its end");
}
