//! A port of somebody else's Linux bridge, such as docker0, without a trace in the host's own stack.
//!
//! A veth pair: the near end is a port of the bridge; the far end, which the datapath reads and writes by a packet
//! socket, lives in a network namespace that has no name and that only this process holds. So no second interface of
//! the host answers ARP or takes part in IPv6, and when the process dies, by whatever signal, the kernel removes the
//! namespace and with it the pair.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use datapath::port::LocalPort;
use nix::sched::{CloneFlags, setns, unshare};
use tokio::sync::oneshot;

use super::netlink::{Link, Links, Netlink, NewLink};
use super::stable_hash;

/// Name of the far end. Nobody sees it: its namespace has nothing else in it.
const FAR: &str = "far";
/// The longest interface name.
const NAME_MAX: usize = 15;
/// The far end takes what the near end lets through.
const FAR_MTU: u32 = 65535;

/// The pair behind a member port. Dropping it does not remove it; see [`Member::remove`].
#[derive(Debug, Clone)]
pub struct Member {
    /// Index of the bridge.
    pub bridge: u32,
    /// Index of the near end.
    pub near: u32,
    /// Keeps the far end's namespace; the port's socket does so too.
    _namespace: Arc<File>,
}

impl Member {
    /// Makes a pair, makes its near end a port of `bridge`, and opens the far end. `owner` tells our pairs from those
    /// of another daemon. Leaves nothing behind on an error.
    pub async fn attach(
        netlink: &Netlink,
        links: &Links,
        bridge: &Link,
        owner: &str,
    ) -> io::Result<(Member, LocalPort)> {
        let name = near_name(&bridge.name);
        if let Some(old) = links.by_name(&name) {
            if old.alias != alias(&bridge.name, owner) {
                let whose = format!(
                    "{name} exists and belongs to another program; remove it (ip link delete {name})"
                );
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, whose));
            }
            netlink.delete(old.index).await?;
        }
        let namespace = in_thread(new_namespace).await?;
        let near = NewLink { name: &name, mac: near_mac(links, bridge), mtu: wanted_mtu(links, bridge, 0) };
        let far = NewLink { name: FAR, mac: super::mac_for(&["far", owner, &name]), mtu: FAR_MTU };
        netlink.add_veth(&near, &far, namespace.as_fd()).await?;
        let made = async {
            let index = netlink.link(&name).await?.index;
            netlink.set_alias(index, &alias(&bridge.name, owner)).await?;
            without_ipv6(&name);
            netlink.set_master(index, bridge.index).await?;
            netlink.set_up(index, true).await?;
            let inside = namespace.try_clone()?;
            let port = in_thread(move || {
                setns(&inside, CloneFlags::CLONE_NEWNET)?;
                open_far()
            })
            .await?;
            port.set_mtu(near.mtu);
            Ok((index, port))
        };
        match made.await {
            Ok((near, port)) => {
                Ok((Member { bridge: bridge.index, near, _namespace: Arc::new(namespace) }, port))
            }
            Err(e) => {
                if let Ok(half) = netlink.link(&name).await {
                    netlink.delete(half.index).await?;
                }
                Err(e)
            }
        }
    }

    /// Puts right what others changed: the near end is up, a port of the bridge, and as wide as the bridge. True:
    /// something had to be done.
    pub async fn tend(&self, netlink: &Netlink, links: &Links, port: &LocalPort) -> io::Result<bool> {
        let (Some(near), Some(bridge)) = (links.by_index(self.near), links.by_index(self.bridge)) else {
            return Ok(false);
        };
        let mut acted = false;
        if near.master != bridge.index {
            netlink.set_master(near.index, bridge.index).await?;
            acted = true;
        }
        if !near.up {
            netlink.set_up(near.index, true).await?;
            acted = true;
        }
        let mtu = wanted_mtu(links, bridge, near.index);
        if near.mtu != mtu {
            netlink.set_mtu(near.index, mtu).await?;
            acted = true;
        }
        port.set_mtu(mtu);
        Ok(acted)
    }

    /// Removes the pair.
    pub async fn remove(&self, netlink: &Netlink) -> io::Result<()> {
        netlink.delete(self.near).await
    }
}

/// Removes pairs that an earlier run of the same owner left. The kernel may take a moment to do so by itself.
pub async fn remove_stale(netlink: &Netlink, owner: &str) -> io::Result<()> {
    for link in netlink.links().await?.iter() {
        if link.kind == "veth" && link.alias.starts_with(ALIAS) && link.alias.ends_with(&format!("({owner})"))
        {
            tracing::info!("removing {}, which an earlier run left", link.name);
            netlink.delete(link.index).await?;
        }
    }
    Ok(())
}

const ALIAS: &str = "underpass member of ";

fn alias(bridge: &str, owner: &str) -> String {
    format!("{ALIAS}{bridge} ({owner})")
}

/// Name of the near end: speaks for itself where the bridge's name leaves room.
pub fn near_name(bridge: &str) -> String {
    let plain = format!("up-{bridge}");
    if plain.len() <= NAME_MAX { plain } else { format!("up-{:012x}", stable_hash(&[bridge]) >> 16) }
}

/// An address that does not change the bridge's own, which is the lowest of its ports' unless somebody set it: a high
/// one beside other ports, the bridge's own where there are none.
fn near_mac(links: &Links, bridge: &Link) -> [u8; 6] {
    let alone = links.ports_of(bridge.index).next().is_none();
    let [first, ..] = bridge.mac;
    if alone && bridge.mac != [0; 6] && first & 1 == 0 {
        return bridge.mac;
    }
    let [_, b, c, d, e, f] = super::mac_for(&["near", &bridge.name, &super::mac_text(bridge.mac)]);
    [0xfe, b, c, d, e, f]
}

/// An MTU that never decides the bridge's, which is the least of its ports' unless somebody set it.
fn wanted_mtu(links: &Links, bridge: &Link, near: u32) -> u32 {
    let others = links.ports_of(bridge.index).filter(|l| l.index != near).map(|l| l.mtu);
    others.min().unwrap_or(0).max(bridge.mtu)
}

/// A thread may change its namespace, and then is of no more use: so one thread a job.
pub(super) async fn in_thread<T: Send + 'static>(
    job: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let (tell, told) = oneshot::channel();
    std::thread::Builder::new().name("namespace".into()).spawn(move || {
        // Nobody listens when the daemon is on its way out
        let _ = tell.send(job());
    })?;
    told.await.map_err(io::Error::other)?
}

pub(super) fn new_namespace() -> io::Result<File> {
    unshare(CloneFlags::CLONE_NEWNET)?;
    without_ipv6("all");
    without_ipv6("default");
    File::open("/proc/thread-self/ns/net")
}

/// Brings the far end up and opens it. The calling thread is in its namespace.
fn open_far() -> io::Result<LocalPort> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        let netlink = Netlink::open()?;
        netlink.set_up(netlink.link(FAR).await?.index, true).await
    })?;
    LocalPort::packet(FAR)
}

/// Turns IPv6 off on a device of the calling thread's namespace, so that it neither gets addresses nor answers.
fn without_ipv6(device: &str) {
    let path = format!("/proc/sys/net/ipv6/conf/{device}/disable_ipv6");
    match std::fs::write(&path, "1") {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => {} // a kernel without IPv6
        Err(e) => tracing::warn!("{path}: {e}; the device may take part in IPv6"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devices::testing::{eventually, in_namespace, ip, pass};

    fn links(ports: &[(u32, u32)]) -> Links {
        let docker0 = Link {
            index: 3,
            name: "docker0".into(),
            mtu: 1500,
            mac: [2, 0x42, 1, 2, 3, 4],
            ..Link::default()
        };
        let port = |&(index, mtu): &(u32, u32)| Link { index, master: 3, mtu, ..Link::default() };
        ports.iter().map(port).chain([docker0]).collect()
    }

    #[test]
    fn a_member_never_decides_the_bridges_mtu() {
        for (docker0, others, want) in [
            (1500, vec![], 1500),
            (1500, vec![1500, 1500], 1500),
            // held down by the member alone
            (1500, vec![9000, 4000], 4000),
            // set by somebody
            (9000, vec![1500], 9000),
            (1400, vec![1400, 9000], 1400),
        ] {
            let ports: Vec<_> =
                others.iter().enumerate().map(|(i, m)| (10 + i as u32, *m)).chain([(7, 1500)]).collect();
            let links = links(&ports);
            let bridge = Link { index: 3, mtu: docker0, ..Link::default() };
            assert_eq!(wanted_mtu(&links, &bridge, 7), want, "{docker0} {others:?}");
        }
    }

    #[test]
    fn a_member_never_decides_the_bridges_address() {
        let empty = links(&[]);
        let docker0 = empty.by_name("docker0").unwrap();
        assert_eq!(near_mac(&empty, docker0), docker0.mac);
        let [first, ..] = near_mac(&links(&[(9, 1500)]), docker0);
        assert_eq!(first, 0xfe);
        let unset = Link { mac: [0; 6], ..docker0.clone() };
        let [first, ..] = near_mac(&empty, &unset);
        assert_eq!(first, 0xfe);
    }

    #[test]
    fn names_fit() {
        assert_eq!(near_name("docker0"), "up-docker0");
        assert_eq!(near_name("br-123456789"), "up-br-123456789");
        let long = near_name("br-1234567890ab");
        assert!(long.len() == NAME_MAX && long.starts_with("up-"), "{long}");
    }

    /// docker0 as a bridge with one container: a veth whose far end is c0 in the same namespace.
    const DOCKER0: &str = "
        link add docker0 address 02:42:01:02:03:04 type bridge
        link add v0 type veth peer name c0
        link set v0 master docker0
        addr add 10.0.11.1/24 dev docker0
        link set docker0 up
        link set v0 up
        link set c0 up";

    #[test]
    fn a_member_hears_the_bridge_and_leaves_no_trace() {
        in_namespace(async {
            ip(DOCKER0);
            let netlink = Netlink::open().unwrap();
            let links = netlink.links().await.unwrap();
            let before = links.by_name("docker0").unwrap().clone();
            let (member, port) = Member::attach(&netlink, &links, &before, "run").await.unwrap();

            let links = netlink.links().await.unwrap();
            let near = links.by_name("up-docker0").unwrap();
            assert_eq!((near.index, near.master, near.up, near.mtu), (member.near, before.index, true, 1500));
            assert_eq!(links.iter().count(), 5, "lo, docker0, v0, c0 and one more");
            let after = links.by_name("docker0").unwrap();
            assert_eq!((after.mac, after.mtu, after.up), (before.mac, before.mtu, before.up));
            let shown = ip("addr show dev up-docker0");
            assert!(!shown.contains("inet") && shown.contains("NOARP"), "{shown}");

            // what the container floods arrives, what the port sends reaches the container
            let container = LocalPort::packet("c0").unwrap();
            pass(&container, &port).await;
            pass(&port, &container).await;

            // nobody removes it, but its holder goes
            drop((member, port));
            eventually("the pair is gone", || !ip("link show").contains("up-docker0")).await;
        });
    }

    #[test]
    fn a_member_follows_the_bridge_and_is_put_right() {
        in_namespace(async {
            ip(DOCKER0);
            let netlink = Netlink::open().unwrap();
            let links = netlink.links().await.unwrap();
            let (member, port) =
                Member::attach(&netlink, &links, links.by_name("docker0").unwrap(), "run").await.unwrap();
            ip("link set v0 mtu 9000
                link set up-docker0 nomaster
                link set up-docker0 down");
            let links = netlink.links().await.unwrap();
            assert!(member.tend(&netlink, &links, &port).await.unwrap());
            let links = netlink.links().await.unwrap();
            let near = links.by_name("up-docker0").unwrap();
            let bridge = links.by_name("docker0").unwrap();
            assert_eq!((near.master, near.up), (bridge.index, true));
            member.tend(&netlink, &links, &port).await.unwrap();
            let links = netlink.links().await.unwrap();
            assert_eq!(links.by_name("docker0").unwrap().mtu, 9000, "as it would be without us");
            assert_eq!(port.mtu(), 9000);
            assert!(!member.tend(&netlink, &links, &port).await.unwrap(), "nothing left to do");
            member.remove(&netlink).await.unwrap();
            assert!(!ip("link show").contains("up-docker0"));
        });
    }

    #[test]
    fn only_our_own_leftovers_are_removed() {
        in_namespace(async {
            ip("link add docker0 type bridge
                link add up-docker0 type veth peer name x0
                link set up-docker0 alias 'underpass member of docker0 (mine)'
                link add up-br1 type veth peer name x1
                link set up-br1 alias 'underpass member of br1 (theirs)'
                link add up-br2 type veth peer name x2");
            let netlink = Netlink::open().unwrap();
            let links = netlink.links().await.unwrap();
            let docker0 = links.by_name("docker0").unwrap();
            let refused = Member::attach(&netlink, &links, docker0, "theirs").await.unwrap_err();
            assert!(
                refused.to_string().contains("up-docker0 exists and belongs to another program"),
                "{refused}"
            );
            remove_stale(&netlink, "mine").await.unwrap();
            let names: Vec<String> = netlink.links().await.unwrap().iter().map(|l| l.name.clone()).collect();
            assert!(!names.contains(&"up-docker0".to_owned()));
            assert!(names.contains(&"up-br1".to_owned()) && names.contains(&"up-br2".to_owned()));
        });
    }

    #[test]
    fn a_bridge_without_ports_keeps_its_address() {
        in_namespace(async {
            ip("link add docker0 type bridge
                link set docker0 up");
            let netlink = Netlink::open().unwrap();
            let links = netlink.links().await.unwrap();
            let before = links.by_name("docker0").unwrap().clone();
            let (member, _port) = Member::attach(&netlink, &links, &before, "run").await.unwrap();
            let after = netlink.link("docker0").await.unwrap();
            assert_eq!(after.mac, before.mac);
            ip("link add v0 type veth peer name c0
                link set v0 address 00:00:5e:00:53:01
                link set v0 master docker0");
            member.remove(&netlink).await.unwrap();
        });
    }
}
