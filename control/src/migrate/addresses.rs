//! What internal ports have that is in no database, and goes with their devices: addresses, routes, settings. Read while they are
//! there, put back on the devices of the same names that the other switch makes.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::devices::netlink::{Lease, Link, Links, Netlink, Route};
use crate::devices::{mac_text, parse_mac, reason};

/// How long a device may take to appear when its switch is there.
const APPEARS: Duration = Duration::from_secs(5);

/// What a device has.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Kept {
    /// Its name.
    pub name: String,
    /// Its Ethernet address, as text.
    pub mac: String,
    mtu: u32,
    up: bool,
    /// The bridge or bond that it belongs to.
    master: Option<String>,
    addresses: Vec<Lease>,
    routes: Vec<Route>,
    /// Files of /proc/sys/net, as far as they differ from what a new device has.
    settings: BTreeMap<String, String>,
}

impl Kept {
    /// What of it comes back otherwise than it is, or may not stay, in words.
    pub fn doubts(&self) -> (Vec<String>, Vec<String>) {
        let lost = self.routes.iter().filter_map(|route| {
            let to = route.to.as_deref().unwrap_or("default");
            Some(format!("its route to {to} has {}, which is not kept", route.lacks.as_ref()?))
        });
        let leased = self.addresses.iter().filter(|l| l.seconds.is_some() && l.address.ip.is_ipv4());
        let words = leased.map(|lease| {
            format!(
                "{} is leased: a DHCP client that does not notice the new device is to be started again",
                lease.address
            )
        });
        (lost.collect(), words.collect())
    }
}

/// Reads what those of `names` have that are there; without the addresses in `but`.
pub async fn keep(
    netlink: &Netlink,
    names: &BTreeSet<String>,
    but: &BTreeSet<String>,
) -> io::Result<Vec<Kept>> {
    let links = netlink.links().await?;
    let mut kept = Vec::new();
    for link in names.iter().filter_map(|name| links.by_name(name)) {
        let mut addresses = netlink.leases(link.index).await?;
        addresses.retain(|lease| !but.contains(&lease.address.to_string()));
        kept.push(Kept {
            name: link.name.clone(),
            mac: mac_text(link.mac),
            mtu: link.mtu,
            up: link.up,
            master: links.by_index(link.master).map(|l| l.name.clone()).filter(|_| link.master != 0),
            addresses,
            routes: netlink.routes(link.index).await?,
            settings: settings(&link.name),
        });
    }
    Ok(kept)
}

/// Takes devices away.
pub async fn remove(netlink: &Netlink, which: impl Fn(&Link) -> bool) -> io::Result<()> {
    for link in netlink.links().await?.iter().filter(|link| which(link)) {
        netlink.delete(link.index).await?;
    }
    Ok(())
}

/// Whether this is a device that Open vSwitch makes for all tunnels of a type, and that stays when it ends: `gre_sys`,
/// `vxlan_sys_4789`. It has the UDP port.
pub fn is_tunnels_of_ovs(link: &Link) -> bool {
    const TYPES: [&str; 9] =
        ["gre", "erspan", "ip6gre", "ip6erspan", "vxlan", "genev", "gtp", "bareudp", "srv6"];
    let (kind, rest) = link.name.split_once("_sys").unwrap_or_default();
    TYPES.contains(&kind) && (rest.is_empty() || rest.starts_with('_')) && !link.kind.is_empty()
}

/// What could not be put back.
#[derive(Debug)]
pub struct Refused {
    /// What and why.
    pub words: String,
    /// The host cannot be reached without, or not as before: an address, a default route, a device.
    pub grave: bool,
}

/// Puts everything back, on the devices that appear within some seconds. Whatever is refused, the rest is done all the same.
pub async fn put_back(netlink: &Netlink, kept: &[Kept]) -> anyhow::Result<Vec<Refused>> {
    let mut refused = Vec::new();
    let links = appeared(netlink, kept).await?;
    let mut devices: Vec<(&Kept, &Link)> = Vec::new();
    for kept in kept {
        match links.by_name(&kept.name) {
            Some(link) => devices.push((kept, link)),
            None => refused.push(Refused { words: format!("there is no device {}", kept.name), grave: true }),
        }
    }
    for (kept, link) in &devices {
        let mut failed = |what: &str, grave: bool, done: io::Result<()>| {
            let words = |e| format!("{}: cannot set {what}: {}", kept.name, reason(&e));
            refused.extend(done.err().map(|e| Refused { words: words(e), grave }));
        };
        kept.settings.iter().for_each(|(file, value)| failed(file, false, set(&kept.name, file, value)));
        if let Some(mac) = parse_mac(&kept.mac).filter(|mac| *mac != link.mac) {
            failed("its Ethernet address", false, netlink.set_mac(link.index, mac).await);
        }
        if kept.mtu != link.mtu {
            failed("its MTU", false, netlink.set_mtu(link.index, kept.mtu).await);
        }
        if let Some(master) = kept.master.as_ref().and_then(|name| links.by_name(name)) {
            failed("its master", true, netlink.set_master(link.index, master.index).await);
        }
        failed(if kept.up { "it up" } else { "it down" }, true, netlink.set_up(link.index, kept.up).await);
        for lease in &kept.addresses {
            let what = format!("the address {}", lease.address);
            failed(&what, true, netlink.add_lease(link.index, lease).await);
        }
    }
    // By now gateways can be reached, whichever device they are behind; but for those that another route leads to
    let mut routes: Vec<(&Kept, &Link, &Route)> =
        devices.iter().flat_map(|(kept, link)| kept.routes.iter().map(|r| (*kept, *link, r))).collect();
    routes.retain(|(.., route)| route.is_usable());
    loop {
        let (before, mut left) = (routes.len(), Vec::new());
        for (kept, link, route) in std::mem::take(&mut routes) {
            if let Err(e) = netlink.add_route(link.index, route).await {
                left.push((kept, link, route, e));
            }
        }
        if left.is_empty() || left.len() == before {
            refused.extend(left.into_iter().map(|(kept, _, route, e)| {
                let to = route.to.as_deref().unwrap_or("default");
                let words = format!("{}: cannot set the route to {to}: {}", kept.name, reason(&e));
                Refused { words, grave: route.to.is_none() }
            }));
            return Ok(refused);
        }
        routes = left.into_iter().map(|(kept, link, route, _)| (kept, link, route)).collect();
    }
}

/// Waits until there is a device for everything that was kept, or long enough.
async fn appeared(netlink: &Netlink, kept: &[Kept]) -> anyhow::Result<Links> {
    let until = Instant::now() + APPEARS;
    loop {
        let links = netlink.links().await.context("cannot list the host's network devices")?;
        if kept.iter().all(|k| links.by_name(&k.name).is_some()) || Instant::now() >= until {
            return Ok(links);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Where settings of devices are.
const SETTINGS: [&str; 2] = ["ipv4/conf", "ipv6/conf"];
/// What tells the state rather than sets it, or acts when it is written.
const NO_SETTINGS: [&str; 2] = ["stable_secret", "mtu"];

/// The settings of a device that differ from what a new one has.
fn settings(device: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for family in SETTINGS {
        let root = Path::new("/proc/sys/net").join(family);
        let files = std::fs::read_dir(root.join(device)).into_iter().flatten().flatten();
        for name in files.filter_map(|file| file.file_name().into_string().ok()) {
            let value = |of: &str| std::fs::read_to_string(root.join(of).join(&name)).ok();
            let Some(ours) = value(device).filter(|_| !NO_SETTINGS.contains(&name.as_str())) else {
                continue;
            };
            if value("default").is_some_and(|new| new != ours) {
                found.insert(format!("{family}/{name}"), ours.trim().to_owned());
            }
        }
    }
    found
}

fn set(device: &str, file: &str, value: &str) -> io::Result<()> {
    let Some((family, name)) = file.rsplit_once('/') else { return Ok(()) };
    let path = Path::new("/proc/sys/net").join(family).join(device).join(name);
    match std::fs::read_to_string(&path) {
        Ok(now) if now.trim() == value => Ok(()),
        _ => std::fs::write(path, value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tunnel_devices_of_open_vswitch_are_told_from_others() {
        for (name, kind, is) in [
            ("gre_sys", "gretap", true),
            ("vxlan_sys_4789", "vxlan", true),
            ("genev_sys_6081", "geneve", true),
            ("gre0", "gre", false),
            ("vxlan_system", "vxlan", false),
            ("my_sys", "dummy", false),
            ("gre_sys", "", false),
        ] {
            let link = Link { name: name.to_owned(), kind: kind.to_owned(), ..Link::default() };
            assert_eq!(is_tunnels_of_ovs(&link), is, "{name} {kind}");
        }
    }
}
