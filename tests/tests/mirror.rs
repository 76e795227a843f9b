//! The stock `ovs-tcpdump`, which makes a device, a port and a mirror, and takes them away.

use std::process::Stdio;
use std::time::Duration;

use harness::topology::{UNDERLAY, reaches, two_switches};
use harness::{cli, poll, traffic};

/// ```text
///   [ hA br0 ]──GRE──[ br0 hB ]      ovs-tcpdump -i gre0 on hA
/// ```
#[test]
fn ovs_tcpdump_shows_what_passes_a_tunnel() {
    let hosts = two_switches(1500);
    for (host, remote) in hosts.iter().zip([UNDERLAY[1], UNDERLAY[0]]) {
        host.gre("gre0", remote, "");
    }
    let [a, b] = &hosts;
    reaches(a, &b.docker0());
    let mut tool = a.tool("ovs-tcpdump");
    tool.args(["-i", "gre0", "-nn", "-e", "-c", "4", "icmp"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut dump = tool.spawn().expect("ovs-tcpdump");
    poll("a mirror", || a.try_vsctl("get mirror m_gre0 _uuid").success().then_some(()));
    let mut ended = None;
    poll("four packets", || {
        traffic::ping(a, &b.docker0(), 2);
        ended = cli::wait(&mut dump, Duration::from_millis(100));
        ended
    });
    let out = dump.wait_with_output().expect("its output");
    let shown = String::from_utf8_lossy(&out.stdout).into_owned();
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(ended.is_some_and(|status| status.success()), "{shown}{said}");
    for what in ["ICMP echo request", "ICMP echo reply"] {
        assert!(shown.contains(what), "{shown}{said}");
    }
    assert_eq!(a.vsctl("list-ports br0"), "gre0");
    assert_eq!(a.get("bridge", "br0", "mirrors"), "[]");
    assert_eq!(a.ns.links(), ["br0", "u0"]);
    traffic::ping(a, &b.docker0(), 2);
}

/// What a mirror copied is counted in its row.
#[test]
fn a_mirror_tells_how_much_it_copied() {
    let hosts = two_switches(1500);
    let [a, b] = &hosts;
    for (host, remote) in hosts.iter().zip([UNDERLAY[1], UNDERLAY[0]]) {
        host.gre("gre0", remote, "");
    }
    reaches(a, &b.docker0());
    a.ns.veth("watch", &b.ns, "watched", 1500);
    a.vsctl(
        "add-port br0 watch -- --id=@p get port watch -- --id=@m create mirror name=m select_all=true output_port=@p \
         -- set bridge br0 mirrors=@m",
    );
    traffic::ping(a, &b.docker0(), 5);
    poll("ten packets in its statistics", || {
        let copied = a.try_vsctl("--if-exists get mirror m statistics:tx_packets").stdout;
        (copied.trim().parse::<u64>().ok()? >= 10).then_some(())
    });
    // a weak reference: without the port there is nothing to copy to
    a.vsctl("del-port watch");
    assert_eq!(a.get("mirror", "m", "output_port"), "[]");
    traffic::ping(a, &b.docker0(), 2);
}
