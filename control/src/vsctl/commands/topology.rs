//! Bridges, ports and interfaces by name, with VLAN ("fake") bridges told apart from real ones.

use super::super::error::{Result, fatal};
use super::super::log;
use super::super::transaction::Transaction;
use super::Plan;
use ovsdb::{Atom, Datum, Uuid};
use std::collections::BTreeMap;

/// A bridge as users see it.
#[derive(Debug, Clone)]
pub struct Bridge {
    pub name: String,
    /// The row in table Bridge: of the parent, if this is a VLAN bridge.
    pub row: Uuid,
    /// For a VLAN bridge: its parent, its VLAN, and the row of the port that stands for it.
    pub vlan: Option<VlanBridge>,
}

#[derive(Debug, Clone)]
pub struct VlanBridge {
    pub parent: String,
    pub vlan: i64,
    pub port: Uuid,
}

#[derive(Debug, Clone)]
pub struct Port {
    pub name: String,
    pub row: Uuid,
    /// The bridge, real or VLAN, that the port is on.
    pub bridge: String,
}

#[derive(Debug, Clone)]
pub struct Interface {
    pub name: String,
    pub row: Uuid,
    pub port: String,
}

/// Everything that has a name.
#[derive(Debug, Default)]
pub struct Topology {
    pub bridges: BTreeMap<String, Bridge>,
    pub ports: BTreeMap<String, Port>,
    pub interfaces: BTreeMap<String, Interface>,
}

/// What `Topology::read` looks at.
const RESTS_ON: [(&str, &[&str]); 4] = [
    ("Open_vSwitch", &["bridges"]),
    ("Bridge", &["name", "ports"]),
    ("Port", &["name", "fake_bridge", "tag", "interfaces"]),
    ("Interface", &["name"]),
];

/// Asks for all of it, and for what tells whether a new interface works.
pub fn need(plan: &mut Plan<'_>) {
    for (table, columns) in RESTS_ON {
        plan.need(table, columns);
    }
    plan.need("Interface", &["ofport", "error"]);
}

/// Whether a change of this column can make a topology untrue.
pub fn rests_on(table: &str, column: &str) -> bool {
    RESTS_ON.iter().any(|(name, columns)| *name == table && columns.contains(&column))
}

impl Topology {
    pub fn read(txn: &mut Transaction<'_>, root: Uuid) -> Result<Topology> {
        let mut topology = Topology::default();
        txn.rely_on("Open_vSwitch", root, "bridges");
        for bridge in uuids(&txn.read("Open_vSwitch", root, "bridges")) {
            topology.read_bridge(txn, bridge);
        }
        Ok(topology)
    }

    fn read_bridge(&mut self, txn: &mut Transaction<'_>, row: Uuid) {
        let name = txn.read_str("Bridge", row, "name");
        if self.bridges.contains_key(&name) {
            return warn(&format!("{name}: database contains duplicate bridge name"));
        }
        self.bridges.insert(name.clone(), Bridge { name: name.clone(), row, vlan: None });
        txn.rely_on("Bridge", row, "ports");
        let ports = uuids(&txn.read("Bridge", row, "ports"));
        // VLAN bridges first, since other ports may be on them.
        for port in &ports {
            let Some(vlan) = fake_bridge_vlan(txn, *port) else { continue };
            let port_name = txn.read_str("Port", *port, "name");
            match self.vlan_bridge(&name, vlan) {
                Some(other) => warn(&format!(
                    "{name}: bridge has multiple VLAN bridges ({} and {port_name}) for VLAN {vlan}, but only one is \
                     allowed",
                    other.name
                )),
                None => self.add_vlan_bridge(port_name, row, &name, vlan, *port),
            }
        }
        for port in ports {
            self.read_port(txn, &name, port);
        }
    }

    fn read_port(&mut self, txn: &mut Transaction<'_>, real_bridge: &str, row: Uuid) {
        let name = txn.read_str("Port", row, "name");
        if let Some(other) = self.ports.get(&name) {
            return warn(&match other.row == row {
                true => format!("{name}: port is in multiple bridges ({} and {real_bridge})", other.bridge),
                false => format!("{name}: database contains duplicate port name"),
            });
        }
        let tag = txn.read("Port", row, "tag").one().and_then(Atom::as_int);
        let on_vlan =
            tag.and_then(|tag| self.vlan_bridge(real_bridge, tag)).map(|bridge| bridge.name.clone());
        let bridge = on_vlan.unwrap_or_else(|| real_bridge.to_owned());
        self.add_port(&name, row, &bridge);
        txn.rely_on("Port", row, "interfaces");
        for interface in uuids(&txn.read("Port", row, "interfaces")) {
            self.add_interface(txn.read_str("Interface", interface, "name"), interface, &name);
        }
    }

    pub fn add_port(&mut self, name: &str, row: Uuid, bridge: &str) {
        self.ports.insert(name.to_owned(), Port { name: name.to_owned(), row, bridge: bridge.to_owned() });
    }

    pub fn add_interface(&mut self, name: String, row: Uuid, port: &str) {
        match self.interfaces.get(&name) {
            Some(other) if other.row == row => {
                warn(&format!("{name}: interface is in multiple ports ({} and {port})", other.port));
            }
            Some(_) => warn(&format!("{name}: database contains duplicate interface name")),
            None => {
                self.interfaces.insert(name.clone(), Interface { name, row, port: port.to_owned() });
            }
        }
    }

    pub fn add_vlan_bridge(&mut self, name: String, row: Uuid, parent: &str, vlan: i64, port: Uuid) {
        let vlan = Some(VlanBridge { parent: parent.to_owned(), vlan, port });
        self.bridges.insert(name.clone(), Bridge { name, row, vlan });
    }

    /// The VLAN bridge that `parent` has for `vlan`.
    pub fn vlan_bridge(&self, parent: &str, vlan: i64) -> Option<&Bridge> {
        let is_it = |bridge: &&Bridge| {
            bridge.vlan.as_ref().is_some_and(|this| this.parent == parent && this.vlan == vlan)
        };
        self.bridges.values().find(is_it)
    }

    pub fn bridge(&self, name: &str) -> Result<&Bridge> {
        match self.bridges.get(name) {
            Some(bridge) => Ok(bridge),
            None => fatal(format!("no bridge named {name}")),
        }
    }

    /// The port of this name, unless it is a bridge's own.
    pub fn port(&self, name: &str) -> Result<&Port> {
        match self.ports.get(name).filter(|port| !self.bridges.contains_key(&port.name)) {
            Some(port) => Ok(port),
            None => fatal(format!("no port named {name}")),
        }
    }

    pub fn interface(&self, name: &str) -> Result<&Interface> {
        match self.interfaces.get(name).filter(|interface| !self.bridges.contains_key(&interface.name)) {
            Some(interface) => Ok(interface),
            None => fatal(format!("no interface named {name}")),
        }
    }

    pub fn ports_on<'a>(&'a self, bridge: &'a str) -> impl Iterator<Item = &'a Port> {
        self.ports.values().filter(move |port| port.bridge == bridge)
    }

    pub fn interfaces_of<'a>(&'a self, port: &'a str) -> impl Iterator<Item = &'a Interface> {
        self.interfaces.values().filter(move |interface| interface.port == port)
    }

    /// Refuses a name that is taken. `intent` says what it was wanted for.
    pub fn check_free(&self, name: &str, intent: &str) -> Result<()> {
        if self.bridges.contains_key(name) {
            return fatal(format!("{intent} because a bridge named {name} already exists"));
        }
        if let Some(port) = self.ports.get(name) {
            return fatal(format!(
                "{intent} because a port named {name} already exists on bridge {}",
                port.bridge
            ));
        }
        if let Some(interface) = self.interfaces.get(name) {
            let bridge = self.ports.get(&interface.port).map_or("", |port| port.bridge.as_str());
            return fatal(format!(
                "{intent} because an interface named {name} already exists on bridge {bridge}"
            ));
        }
        Ok(())
    }

    pub fn remove_port(&mut self, name: &str) {
        self.ports.remove(name);
        self.interfaces.retain(|_, interface| interface.port != name);
        self.bridges.retain(|_, bridge| bridge.vlan.is_none() || bridge.name != name);
    }
}

/// The VLAN of a port that stands for a VLAN bridge.
fn fake_bridge_vlan(txn: &Transaction<'_>, port: Uuid) -> Option<i64> {
    let fake = txn.read("Port", port, "fake_bridge").one().and_then(Atom::as_bool);
    let tag = txn.read("Port", port, "tag").one().and_then(Atom::as_int);
    tag.filter(|tag| fake == Some(true) && (0..=4095).contains(tag))
}

pub fn uuids(datum: &Datum) -> Vec<Uuid> {
    datum.atoms().iter().filter_map(Atom::as_uuid).collect()
}

/// Changes a set of references by adding some and taking others away.
pub fn with(datum: &Datum, added: &[Uuid], removed: &[Uuid]) -> Datum {
    let kept = uuids(datum).into_iter().filter(|uuid| !removed.contains(uuid));
    Datum::set(kept.chain(added.iter().copied()))
}

fn warn(message: &str) {
    log::warn("vsctl", message);
}
