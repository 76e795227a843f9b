//! Mirrors: what rows of table Mirror ask for, and what that is among the ports that there are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use datapath::counters::PortCounters;
use datapath::mirror::{Mirror, MirrorOutput, PortSet};
use datapath::snapshot::StpState;
use datapath::vlan::VlanSet;
use ovsdb::{Database, Datum, Row, RowUpdate, Uuid};

use super::actual::PortState;
use super::rules::vids;

/// A mirror that shall be there. Ports are named by their interfaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedMirror {
    /// Its row.
    pub row: Uuid,
    /// Its name.
    pub name: String,
    /// `select_all`: whatever comes in or leaves.
    pub all: bool,
    /// `select_src_port`.
    pub sources: BTreeSet<String>,
    /// `select_dst_port`.
    pub destinations: BTreeSet<String>,
    /// `select_vlan`. None: all.
    pub vlans: Option<Arc<VlanSet>>,
    /// `output_port`, `output_vlan`.
    pub output: Output,
    /// `snaplen`, in bytes.
    pub snaplen: Option<u32>,
}

/// Where copies shall go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// To that port; of a bond, to the member that forwards.
    Port(BTreeSet<String>),
    /// To that VLAN.
    Vlan(u16),
}

/// A mirror that is there, whether or not its ports are.
#[derive(Debug, Clone)]
pub struct MirrorState {
    /// As its row has it.
    pub wanted: WantedMirror,
    /// How much was copied.
    pub counters: Arc<PortCounters>,
}

/// The mirrors of a bridge.
pub fn read(db: &Database, bridge: &Row, warnings: &mut Vec<String>) -> Vec<WantedMirror> {
    let rows = bridge.refs("mirrors").into_iter().filter_map(|uuid| db.row("Mirror", uuid));
    rows.filter_map(|row| mirror(db, bridge, row, warnings)).collect()
}

fn mirror(db: &Database, bridge: &Row, row: &Row, warnings: &mut Vec<String>) -> Option<WantedMirror> {
    let name = row.str("name").to_owned();
    let vlan = row.opt_int("output_vlan").and_then(|vid| u16::try_from(vid).ok());
    let mut warn = |what| warnings.push(format!("bridge {}: mirror {name} {what}", bridge.str("name")));
    let output = match (Some(interfaces(db, row, "output_port")).filter(|names| !names.is_empty()), vlan) {
        (Some(port), both) => {
            if both.is_some() {
                warn("specifies both output_port and output_vlan; ignoring output_vlan");
            }
            Output::Port(port)
        }
        (None, Some(vid)) => Output::Vlan(vid),
        (None, None) => {
            warn("does not specify output; ignoring");
            return None;
        }
    };
    Some(WantedMirror {
        row: row.uuid(),
        all: row.bool("select_all"),
        sources: interfaces(db, row, "select_src_port"),
        destinations: interfaces(db, row, "select_dst_port"),
        vlans: vids(row, "select_vlan").map(Arc::new),
        output,
        snaplen: row.opt_int("snaplen").and_then(|len| u32::try_from(len).ok()),
        name,
    })
}

/// The interfaces of the ports that a column refers to.
fn interfaces(db: &Database, row: &Row, column: &str) -> BTreeSet<String> {
    let ports = row.refs(column).into_iter().filter_map(|uuid| db.row("Port", uuid));
    let interfaces = ports.flat_map(|port| port.refs("interfaces"));
    interfaces.filter_map(|uuid| db.row("Interface", uuid)).map(|row| row.str("name").to_owned()).collect()
}

/// Brings `standing` to what is wanted; what goes on counting keeps its counters. True: something is different.
pub fn follow(standing: &mut Vec<MirrorState>, wanted: &[WantedMirror]) -> bool {
    if standing.iter().map(|state| &state.wanted).eq(wanted) {
        return false;
    }
    let before: BTreeMap<Uuid, Arc<PortCounters>> =
        standing.drain(..).map(|state| (state.wanted.row, state.counters)).collect();
    standing.extend(wanted.iter().map(|wanted| MirrorState {
        wanted: wanted.clone(),
        counters: before.get(&wanted.row).cloned().unwrap_or_default(),
    }));
    true
}

impl MirrorState {
    /// As workers go by it. None: there is no such port for its copies.
    pub fn among(&self, ports: &BTreeMap<String, PortState>) -> Option<Mirror> {
        let wanted = &self.wanted;
        let output = match &wanted.output {
            Output::Vlan(vid) => MirrorOutput::Vlan(*vid),
            Output::Port(names) => {
                let there = || names.iter().filter_map(|name| ports.get(name)).map(|state| &state.port);
                let forwards = there().find(|port| port.stp == StpState::Forwarding);
                MirrorOutput::Port(forwards.or_else(|| there().next())?.id)
            }
        };
        let chosen = |names: &BTreeSet<String>| -> PortSet {
            ports.iter().filter(|(n, _)| wanted.all || names.contains(*n)).map(|(_, p)| p.port.id).collect()
        };
        Some(Mirror {
            name: wanted.name.clone(),
            sources: chosen(&wanted.sources),
            destinations: chosen(&wanted.destinations),
            vlans: wanted.vlans.clone(),
            output,
            snaplen: wanted.snaplen,
            counters: self.counters.clone(),
        })
    }

    /// Column `statistics`.
    pub fn statistics(&self) -> RowUpdate {
        let sum = self.counters.sum();
        let pairs = [("tx_bytes", sum.tx_bytes), ("tx_packets", sum.tx_packets)];
        let pairs = pairs.map(|(key, n)| (key, i64::try_from(n).unwrap_or(i64::MAX)));
        RowUpdate { table: "Mirror", row: self.wanted.row, columns: vec![("statistics", Datum::map(pairs))] }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use ovsdb::Server;
    use serde_json::{Value, json};

    use super::*;
    use crate::reconcile::testing::{add_br, add_port, database, row, transact};

    fn read_one(columns: Value) -> (Vec<WantedMirror>, Vec<String>) {
        let db = database();
        add_br(&db, "br0", json!({}));
        for port in ["p0", "p1", "p2"] {
            add_port(&db, "br0", port, json!({}), json!({}));
        }
        let mut columns = columns;
        for key in ["select_src_port", "select_dst_port", "output_port"] {
            if let Some(name) = columns.get(key).and_then(Value::as_str).map(str::to_owned) {
                columns[key] = json!(["uuid", port(&db, &name)]);
            }
        }
        columns["name"] = "m".into();
        transact(
            &db,
            json!([
                {"op": "insert", "table": "Mirror", "uuid-name": "m", "row": columns},
                {"op": "update", "table": "Bridge", "where": [], "row": {"mirrors": ["named-uuid", "m"]}},
            ]),
        );
        let mut warnings = Vec::new();
        let wanted = read(db.borrow().db(), &row(&db, "Bridge", "br0"), &mut warnings);
        (wanted, warnings)
    }

    fn port(db: &RefCell<Server>, name: &str) -> String {
        row(db, "Port", name).uuid().to_string()
    }

    #[test]
    fn what_a_row_asks_for() {
        let (wanted, warnings) = read_one(json!({
            "select_src_port": "p0", "select_dst_port": "p1", "select_vlan": ["set", [5]],
            "output_port": "p2", "output_vlan": 7, "snaplen": 64,
        }));
        let names = |name: &str| BTreeSet::from([name.to_owned()]);
        let [mirror] = &wanted[..] else { panic!("{wanted:?}") };
        assert_eq!((&mirror.sources, &mirror.destinations), (&names("p0"), &names("p1")));
        assert!(mirror.vlans.as_ref().is_some_and(|set| set.contains(5) && !set.contains(6)));
        assert_eq!(
            (&mirror.output, mirror.snaplen, mirror.all),
            (&Output::Port(names("p2")), Some(64), false)
        );
        assert_eq!(
            warnings,
            ["bridge br0: mirror m specifies both output_port and output_vlan; ignoring output_vlan"]
        );
        let (wanted, warnings) = read_one(json!({"select_all": true, "output_vlan": 7}));
        assert!(wanted[0].all && wanted[0].output == Output::Vlan(7) && warnings.is_empty());
        let (wanted, warnings) = read_one(json!({"select_all": true}));
        assert!(wanted.is_empty());
        assert_eq!(warnings, ["bridge br0: mirror m does not specify output; ignoring"]);
    }

    #[test]
    fn counters_go_on_when_the_row_changes() {
        let (wanted, _) = read_one(json!({"select_all": true, "output_vlan": 7}));
        let mut standing = Vec::new();
        assert!(follow(&mut standing, &wanted));
        assert!(!follow(&mut standing, &wanted));
        let counters = standing[0].counters.clone();
        let changed = WantedMirror { snaplen: Some(100), ..wanted[0].clone() };
        assert!(follow(&mut standing, &[changed]));
        assert!(Arc::ptr_eq(&counters, &standing[0].counters));
        assert!(follow(&mut standing, &[]) && standing.is_empty());
    }
}
