//! `underpass attach docker0`: the bridge takes over a device's addresses, and gives them back.
//!
//! The rows are the interface: a port with `other_config:attach=direct` and `other_config:take-address=true` asks for it.
//! What was taken is remembered in the database (`external_ids` of the Open_vSwitch row) before anything moves, so that
//! it outlives this process: a new one gives it to the bridge again, or back to the device when the rows no longer ask.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::time::Instant;

use ovsdb::{Database, Datum, RowUpdate, Server};
use serde::{Deserialize, Serialize};

use crate::devices::firewall::Firewall;
use crate::devices::netlink::{Address, Link, Links, Netlink, Route};
use crate::devices::reason;

/// Begins the keys of `external_ids` under which what was taken is remembered; the device's name follows.
const KEY: &str = "underpass-taken-";

/// The `ovs-vsctl` command that asks for it: makes the bridge and the port where they are missing.
pub fn attach_command(device: &str, bridge: &str) -> Vec<String> {
    let words = [
        "--may-exist",
        "add-br",
        bridge,
        "--",
        "--may-exist",
        "add-port",
        bridge,
        device,
        "--",
        "set",
        "Interface",
        device,
        "other_config:attach=direct",
        "other_config:take-address=true",
    ];
    words.map(str::to_owned).to_vec()
}

/// The `ovs-vsctl` command that undoes it. The bridge stays, with its tunnels.
pub fn detach_command(device: &str) -> Vec<String> {
    ["--if-exists", "del-port", device].map(str::to_owned).to_vec()
}

/// Checks before `attach` that there is such a device. The error names those that there are.
pub fn check_device(device: &str) -> Result<(), String> {
    let all = pnet_datalink::interfaces();
    if all.iter().any(|i| i.name == device) {
        return Ok(());
    }
    let names: Vec<String> = all.into_iter().filter(|i| !i.is_loopback()).map(|i| i.name).collect();
    Err(format!("there is no network device {device} (there are: {})", names.join(", ")))
}

/// What a device had before the bridge took it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Taken {
    /// Who has it now.
    bridge: String,
    /// In CIDR notation.
    addresses: Vec<String>,
    /// Those that depend on the addresses; the kernel makes the direct ones itself.
    routes: Vec<Route>,
    /// The device's `arp_ignore`.
    arp_ignore: Option<String>,
    /// Index of the device: another one is another device, and has its own addresses.
    ifindex: u32,
    /// The same for the host's start.
    boot: String,
}

impl Taken {
    fn addresses(&self) -> impl Iterator<Item = Address> {
        self.addresses.iter().filter_map(|a| a.parse().ok())
    }

    /// Adds what the device has now.
    fn join(&mut self, addresses: &[Address], routes: Vec<Route>) {
        for address in addresses.iter().map(Address::to_string) {
            if !self.addresses.contains(&address) {
                self.addresses.push(address);
            }
        }
        for route in routes {
            if !self.routes.contains(&route) {
                self.routes.push(route);
            }
        }
    }
}

/// Moves addresses as the rows ask.
#[derive(Debug)]
pub struct Takeover {
    netlink: Netlink,
    boot: String,
    firewall: Firewall,
    /// What could not be moved, and why, by device.
    failures: BTreeMap<String, String>,
}

impl Takeover {
    /// Nothing is moved yet.
    pub fn new(netlink: Netlink) -> Takeover {
        Takeover::with_firewall(netlink, Firewall::new())
    }

    pub(crate) fn with_firewall(netlink: Netlink, firewall: Firewall) -> Takeover {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        Takeover { netlink, boot: boot.trim().to_owned(), firewall, failures: BTreeMap::new() }
    }

    /// What could not be moved when it was last tried, and why, by device.
    pub fn failures(&self) -> &BTreeMap<String, String> {
        &self.failures
    }

    /// Has the packet filter's rules put back where they are missing. `wanted`: device → bridge.
    pub fn repair(&mut self, wanted: &BTreeMap<String, String>) {
        wanted.iter().for_each(|(device, bridge)| self.firewall.open(device, bridge));
    }

    /// Waits until the packet filter is as it shall be, but not for ever.
    pub async fn finish(&mut self) {
        self.firewall.finish().await;
    }

    /// Brings addresses to where they shall be. `wanted`: device → bridge. True: something moved.
    pub async fn run(
        &mut self,
        wanted: &BTreeMap<String, String>,
        links: &Links,
        db: &RefCell<Server>,
    ) -> bool {
        let mut moved = false;
        let mut owed = BTreeSet::new();
        let before = std::mem::take(&mut self.failures);
        let mut taken = remembered(db.borrow().db());
        let stale = |device: &String, t: &Taken| wanted.get(device) != Some(&t.bridge);
        let back: Vec<String> = taken.iter().filter(|(d, t)| stale(d, t)).map(|(d, _)| d.clone()).collect();
        for device in back {
            let Some(record) = taken.remove(&device) else { continue };
            match self.give_back(&device, &record, links).await {
                Ok(()) => {
                    remember(db, &device, None);
                    moved = true;
                }
                Err(e) => {
                    let error = format!("cannot give {device} its addresses back: {}", reason(&e));
                    self.fail(&before, &device, error);
                    owed.insert(device);
                }
            }
        }
        // What is still owed must not be forgotten over what the device has now
        for (device, bridge) in wanted.iter().filter(|(device, _)| !owed.contains(*device)) {
            let Some(from) = links.by_name(device) else { continue };
            let took = match links.by_name(bridge) {
                Some(to) => self.take(taken.remove(device), from, to, db).await,
                None => Err(io::Error::from_raw_os_error(libc::ENODEV)),
            };
            match took {
                Ok(news) => moved |= news,
                Err(e) => {
                    let error = format!("cannot move the addresses of {device} to {bridge}: {}", reason(&e));
                    self.fail(&before, device, error);
                }
            }
        }
        moved
    }

    async fn take(
        &mut self,
        old: Option<Taken>,
        from: &Link,
        to: &Link,
        db: &RefCell<Server>,
    ) -> io::Result<bool> {
        let same = |t: &Taken| t.ifindex == from.index && t.boot == self.boot;
        let mut record = old.clone().filter(same).unwrap_or_else(|| Taken {
            bridge: to.name.clone(),
            arp_ignore: arp_ignore(&from.name),
            ifindex: from.index,
            boot: self.boot.clone(),
            ..Taken::default()
        });
        let addresses = self.netlink.addresses(from.index).await?;
        // Nothing moves without an address, and to look through all the host's routes in each pass may take long
        if !addresses.is_empty() {
            record.join(&addresses, self.netlink.routes(from.index).await?);
        }
        if old.as_ref() != Some(&record) && !remember(db, &from.name, Some(&record)) {
            return Err(io::Error::other("the database did not take note of them"));
        }
        // Of a device that is no more
        for outdated in old.iter().flat_map(Taken::addresses).filter(|a| record.addresses().all(|b| b != *a))
        {
            self.netlink.delete_address(to.index, outdated).await?;
        }
        let there = self.netlink.addresses(to.index).await?;
        let complete = addresses.is_empty() && record.addresses().all(|a| there.contains(&a)) && to.up;
        if complete {
            return Ok(false);
        }
        self.netlink.set_up(to.index, true).await?;
        // Else the device would answer for addresses that it no longer has, as Linux does unless told otherwise
        set_arp_ignore(&from.name, "1");
        self.transfer(&record, Some(from.index), to.index).await?;
        self.firewall.open(&from.name, &to.name);
        tracing::info!("{} took {} from {}", to.name, record.addresses.join(" "), from.name);
        Ok(true)
    }

    /// Gives a device back what was taken. A device that is gone, or is another one by now, has no claim.
    async fn give_back(&mut self, device: &str, record: &Taken, links: &Links) -> io::Result<()> {
        let bridge = links.by_name(&record.bridge).map(|l| l.index);
        let claims = |l: &&Link| l.index == record.ifindex && record.boot == self.boot;
        self.firewall.close(device, &record.bridge);
        if let Some(link) = links.by_name(device).filter(claims) {
            self.transfer(record, bridge, link.index).await?;
            set_arp_ignore(device, record.arp_ignore.as_deref().unwrap_or("0"));
            tracing::info!("{device} has {} back", record.addresses.join(" "));
        } else if let Some(bridge) = bridge {
            for address in record.addresses() {
                self.netlink.delete_address(bridge, address).await?;
            }
        }
        Ok(())
    }

    /// Addresses exist on both sides for a moment rather than on none, so that connections live.
    async fn transfer(&self, record: &Taken, from: Option<u32>, to: u32) -> io::Result<()> {
        for address in record.addresses() {
            self.netlink.add_address(to, address).await?;
        }
        if let Some(from) = from {
            for route in &record.routes {
                self.netlink.delete_route(from, route).await?;
            }
            for address in record.addresses() {
                self.netlink.delete_address(from, address).await?;
            }
        }
        for route in &record.routes {
            if let Err(e) = self.netlink.add_route(to, route).await {
                tracing::warn!(
                    "cannot move the route to {}: {}",
                    route.to.as_deref().unwrap_or("default"),
                    reason(&e)
                );
            }
        }
        Ok(())
    }

    /// Complains once, however often it fails in the same way.
    fn fail(&mut self, before: &BTreeMap<String, String>, device: &str, error: String) {
        if before.get(device) != Some(&error) {
            tracing::error!("{error}");
        }
        self.failures.insert(device.to_owned(), error);
    }
}

/// Gives `device` back what an earlier daemon took, and takes it out of its bridge, with no daemon running: `db` is the
/// database file, opened by the caller. False: nothing was attached.
pub async fn detach_without_daemon(db: &RefCell<Server>, device: &str) -> io::Result<bool> {
    let mut takeover = Takeover::new(Netlink::open()?);
    let links = takeover.netlink.links().await?;
    let record = remembered(db.borrow().db()).remove(device);
    if let Some(record) = &record {
        let given = takeover.give_back(device, record, &links).await;
        takeover.finish().await;
        given?;
    }
    let removal = without_port(db.borrow().db(), device);
    let removed = match &removal {
        Some(update) => db
            .borrow_mut()
            .update_rows(std::slice::from_ref(update), Instant::now())
            .map_err(|e| io::Error::other(e.to_json().to_string()))?,
        None => false,
    };
    if record.is_some() && !remember(db, device, None) {
        return Err(io::Error::other("the database cannot be written"));
    }
    Ok(removed || record.is_some())
}

/// The bridge's row without the port.
fn without_port(db: &Database, name: &str) -> Option<RowUpdate> {
    let (port, _) = db.rows("Port").find(|(_, row)| row.str("name") == name)?;
    let (row, bridge) = db.rows("Bridge").find(|(_, row)| row.refs("ports").contains(&port))?;
    let rest = bridge.refs("ports").into_iter().filter(|p| *p != port);
    Some(RowUpdate { table: "Bridge", row, columns: vec![("ports", Datum::set(rest))] })
}

/// What the database remembers, by device. What cannot be read is passed over.
fn remembered(db: &Database) -> BTreeMap<String, Taken> {
    let Some((_, root)) = db.rows("Open_vSwitch").next() else { return BTreeMap::new() };
    let records = root.map("external_ids").filter_map(|(key, value)| {
        let device = key.strip_prefix(KEY)?;
        Some((device.to_owned(), serde_json::from_str(value).ok()?))
    });
    records.collect()
}

/// The addresses, in CIDR notation, that bridges have for devices: whoever ends gives them back.
pub fn taken_addresses(db: &Database) -> BTreeSet<String> {
    remembered(db).into_values().flat_map(|taken| taken.addresses).collect()
}

/// Writes down, durably, what was taken from `device`; None: nothing any more. False: it could not be written.
fn remember(db: &RefCell<Server>, device: &str, record: Option<&Taken>) -> bool {
    let key = format!("{KEY}{device}");
    let update = {
        let server = db.borrow();
        let Some((row, root)) = server.db().rows("Open_vSwitch").next() else { return false };
        let mut ids: BTreeMap<String, String> =
            root.map("external_ids").map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
        match record.map(serde_json::to_string) {
            None => drop(ids.remove(&key)),
            Some(Ok(text)) => drop(ids.insert(key, text)),
            Some(Err(_)) => return false,
        }
        RowUpdate { table: "Open_vSwitch", row, columns: vec![("external_ids", Datum::map(ids))] }
    };
    match db.borrow_mut().update_rows(&[update], Instant::now()) {
        Ok(_) => true,
        Err(e) => {
            tracing::error!("cannot remember the addresses of {device}: {}", e.to_json());
            false
        }
    }
}

fn arp_ignore_path(device: &str) -> String {
    format!("/proc/sys/net/ipv4/conf/{device}/arp_ignore")
}

fn arp_ignore(device: &str) -> Option<String> {
    std::fs::read_to_string(arp_ignore_path(device)).ok().map(|v| v.trim().to_owned())
}

fn set_arp_ignore(device: &str, value: &str) {
    if let Err(e) = std::fs::write(arp_ignore_path(device), value) {
        tracing::warn!("cannot set arp_ignore of {device}: {e}; it may answer for addresses that it has not");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::devices::testing::{eventually, in_namespace, ip, sh};
    use crate::reconcile::testing::*;

    const DOCKER0: &str = "
        link add docker0 type bridge
        addr add 10.0.11.1/24 dev docker0
        addr add fd00:11::1/64 dev docker0 nodad
        link set docker0 up
        link add name v0 type veth peer name c0
        link set v0 master docker0 up
        link set c0 up
        route add 10.9.0.0/16 via 10.0.11.7 dev docker0 metric 5";

    fn attached() -> RefCell<Server> {
        let db = database();
        add_br(&db, "br0", json!({}));
        let config = map(&[("attach", "direct"), ("take-address", "true")]);
        add_port(&db, "br0", "docker0", json!({"other_config": config}), json!({}));
        db
    }

    fn addresses(device: &str) -> Vec<String> {
        let shown = ip(&format!("-o addr show dev {device} scope global"));
        let mut all: Vec<String> =
            shown.lines().filter_map(|l| l.split_whitespace().nth(3)).map(str::to_owned).collect();
        all.sort();
        all
    }

    fn route() -> String {
        ip("route show 10.9.0.0/16").trim().to_owned()
    }

    /// br0 has what docker0 had.
    async fn assert_taken() {
        assert_eq!(addresses("br0"), ["10.0.11.1/24", "fd00:11::1/64"]);
        assert_eq!(addresses("docker0"), [""; 0]);
        assert!(route().starts_with("10.9.0.0/16 via 10.0.11.7 dev br0 metric 5"), "{}", route());
        assert_eq!(arp_ignore("docker0").as_deref(), Some("1"));
        let open = || sh("iptables -S FORWARD").contains("-A FORWARD -i br0 -j ACCEPT");
        eventually("the packet filter lets br0 through", open).await;
        assert!(sh("iptables -t raw -S").contains("-A PREROUTING -i docker0 -j CT --notrack"));
    }

    /// docker0 is as it was.
    async fn assert_given_back() {
        assert_eq!(addresses("docker0"), ["10.0.11.1/24", "fd00:11::1/64"]);
        assert!(route().starts_with("10.9.0.0/16 via 10.0.11.7 dev docker0 metric 5"), "{}", route());
        assert_eq!(arp_ignore("docker0").as_deref(), Some("0"));
        eventually("the packet filter forgets br0", || !sh("iptables -S").contains("br0")).await;
        assert!(!sh("iptables -t raw -S").contains("docker0"));
    }

    #[test]
    fn addresses_move_stay_and_move_back() {
        in_namespace(async {
            ip(DOCKER0);
            let db = attached();
            let mut first = reconciler().await;
            first.run_once(&db).await;
            assert_taken().await;
            assert_eq!(error(&db, "docker0"), "");

            // again: nothing happens, once links have settled
            let mut serials = Vec::new();
            for _ in 0..10 {
                first.run_once(&db).await;
                serials.push(db.borrow().db().serial());
            }
            assert!(serials.ends_with(&[serials[9]; 2]), "{serials:?}");

            // dockerd starts anew and finds its address missing
            ip("addr add 10.0.11.1/24 dev docker0");
            first.run_once(&db).await;
            assert_taken().await;

            // kill -9: the kernel takes br0 away, and the next run makes it anew
            drop(first);
            // Another test's child may hold a copy of the TAP's descriptor between its fork and its exec.
            eventually("br0 is gone", || !ip("link show").contains("br0")).await;
            let mut second = reconciler().await;
            second.run_once(&db).await;
            assert_taken().await;

            del_port(&db, "br0", "docker0");
            second.run_once(&db).await;
            assert_given_back().await;
            assert!(remembered(db.borrow().db()).is_empty());
            assert_eq!(addresses("br0"), [""; 0]);
        });
    }

    #[test]
    fn a_clean_end_gives_back_and_a_new_start_takes_again() {
        in_namespace(async {
            ip(DOCKER0);
            let db = attached();
            let changed = tokio::sync::Notify::new();
            for _ in 0..2 {
                let mut daemon = reconciler().await;
                daemon.run_once(&db).await;
                assert_taken().await;
                daemon.run(&db, &changed, async {}).await;
                assert_given_back().await;
                eventually("br0 is gone", || !ip("link show").contains("br0")).await;
                assert!(remembered(db.borrow().db()).is_empty());
            }
        });
    }

    #[test]
    fn detaching_needs_no_daemon() {
        in_namespace(async {
            ip(DOCKER0);
            let db = attached();
            let mut daemon = reconciler().await;
            daemon.run_once(&db).await;
            drop(daemon); // kill -9
            assert!(detach_without_daemon(&db, "docker0").await.unwrap());
            assert_given_back().await;
            assert!(db.borrow().db().rows("Port").all(|(_, p)| p.str("name") != "docker0"));
            assert!(!detach_without_daemon(&db, "docker0").await.unwrap(), "nothing is attached any more");
        });
    }

    #[test]
    fn another_device_of_the_same_name_keeps_its_own_addresses() {
        in_namespace(async {
            ip(DOCKER0);
            let db = attached();
            let mut daemon = reconciler().await;
            daemon.run_once(&db).await;
            ip("link del docker0");
            daemon.run_once(&db).await;
            assert_eq!(addresses("br0"), ["10.0.11.1/24", "fd00:11::1/64"], "kept while docker0 is away");
            ip("link add docker0 type bridge
                addr add 10.0.42.1/24 dev docker0
                link set docker0 up");
            daemon.run_once(&db).await;
            assert_eq!(addresses("docker0"), [""; 0]);
            assert_eq!(addresses("br0"), ["10.0.42.1/24"], "what the other device had went with it");
            assert_eq!(remembered(db.borrow().db())["docker0"].addresses, ["10.0.42.1/24"]);
        });
    }

    #[test]
    fn what_could_not_be_given_back_is_not_forgotten() {
        in_namespace(async {
            ip(DOCKER0);
            let db = attached();
            let mut daemon = reconciler().await;
            daemon.run_once(&db).await;
            assert_taken().await;
            // docker0 refuses its IPv6 address, and goes over to another bridge
            sh("echo 1 > /proc/sys/net/ipv6/conf/docker0/disable_ipv6");
            del_port(&db, "br0", "docker0");
            add_br(&db, "br1", json!({}));
            let config = map(&[("attach", "direct"), ("take-address", "true")]);
            add_port(&db, "br1", "docker0", json!({"other_config": config}), json!({}));
            daemon.run_once(&db).await;
            let owed = remembered(db.borrow().db())["docker0"].clone();
            assert_eq!((owed.bridge.as_str(), owed.addresses.len()), ("br0", 2));
            let why = error(&db, "docker0");
            assert!(why.starts_with("cannot give docker0 its addresses back: "), "{why}");
            sh("echo 0 > /proc/sys/net/ipv6/conf/docker0/disable_ipv6");
            daemon.run_once(&db).await;
            assert_eq!(error(&db, "docker0"), "");
            assert_eq!(addresses("br1"), ["10.0.11.1/24", "fd00:11::1/64"]);
            assert_eq!(addresses("docker0"), [""; 0]);
            assert_eq!(addresses("br0"), [""; 0]);
        });
    }

    #[test]
    fn without_the_databases_word_nothing_moves() {
        #[derive(Debug)]
        struct Full;
        impl ovsdb::Journal for Full {
            fn append(&mut self, record: &serde_json::Value) -> std::io::Result<()> {
                if record.to_string().contains(KEY) {
                    Err(std::io::ErrorKind::StorageFull.into())
                } else {
                    Ok(())
                }
            }
            fn compact(&mut self, _: &serde_json::Value, _: &serde_json::Value) {}
        }
        in_namespace(async {
            ip(DOCKER0);
            let db = database_with(Box::new(Full));
            add_br(&db, "br0", json!({}));
            let config = map(&[("attach", "direct"), ("take-address", "true")]);
            add_port(&db, "br0", "docker0", json!({"other_config": config}), json!({}));
            reconciler().await.run_once(&db).await;
            assert_eq!(addresses("docker0"), ["10.0.11.1/24", "fd00:11::1/64"]);
            assert_eq!(
                error(&db, "docker0"),
                "cannot move the addresses of docker0 to br0: the database did not take note of them"
            );
        });
    }

    #[test]
    fn a_missing_device_is_named_among_those_that_are_there() {
        assert_eq!(check_device("lo"), Ok(()));
        let error = check_device("nosuch0").unwrap_err();
        assert!(error.starts_with("there is no network device nosuch0 (there are: "), "{error}");
    }
}
