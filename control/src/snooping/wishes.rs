//! What rows say of multicast snooping. Pure: rows in, wishes out. Ranges are Open vSwitch's.

use std::collections::{BTreeMap, BTreeSet};

use datapath::snapshot::PortId;
use ovsdb::{Database, Row};

use super::table::Settings;
use crate::reconcile::actual::PortState;

/// Groups that a bridge remembers: least, default, most.
const TABLE_SIZE: (i64, i64, i64) = (10, 2048, 1_000_000);
/// Seconds for which a port hears a group that it has joined: least, default, most.
const MAX_AGE: (i64, i64, i64) = (15, 300, 3600);

/// A bridge that shall snoop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    max_groups: usize,
    max_age: u64,
    flood_unregistered: bool,
    /// Interfaces of ports with `mcast-snooping-flood`.
    flood: BTreeSet<String>,
    /// Of those with `mcast-snooping-flood-reports`.
    reports: BTreeSet<String>,
}

impl Wish {
    /// Reads a bridge's row, and those of its ports. None: it shall not.
    pub fn read(db: &Database, bridge: &Row) -> Option<Wish> {
        let number =
            |key| bridge.map_get("other_config", key).and_then(|text| text.trim().parse::<i64>().ok());
        let held = |key, (least, default, most): (i64, i64, i64)| {
            number(key).map_or(default, |n| n.clamp(least, most)).unsigned_abs()
        };
        let disabled = "mcast-snooping-disable-flood-unregistered";
        bridge.bool("mcast_snooping_enable").then(|| Wish {
            max_groups: held("mcast-snooping-table-size", TABLE_SIZE) as usize,
            max_age: held("mcast-snooping-aging-time", MAX_AGE),
            flood_unregistered: bridge.map_get("other_config", disabled) != Some("true"),
            flood: interfaces(db, bridge, "mcast-snooping-flood"),
            reports: interfaces(db, bridge, "mcast-snooping-flood-reports"),
        })
    }

    /// As it is to be done on the ports that there are.
    pub fn among(&self, ports: &BTreeMap<String, PortState>) -> Settings {
        let ids = |names: &BTreeSet<String>| -> BTreeSet<PortId> {
            names.iter().filter_map(|name| ports.get(name)).map(|port| port.port.id).collect()
        };
        Settings {
            max_groups: self.max_groups,
            max_age: self.max_age,
            flood_unregistered: self.flood_unregistered,
            flood: ids(&self.flood),
            reports: ids(&self.reports),
        }
    }
}

/// The interfaces of ports with a flag.
fn interfaces(db: &Database, bridge: &Row, flag: &str) -> BTreeSet<String> {
    let ports = bridge.refs("ports").into_iter().filter_map(|uuid| db.row("Port", uuid));
    let flagged = ports.filter(|port| port.map_get("other_config", flag) == Some("true"));
    let interfaces = flagged.flat_map(|port| port.refs("interfaces"));
    interfaces.filter_map(|uuid| db.row("Interface", uuid)).map(|row| row.str("name").to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::reconcile::testing::{add_br, add_port, database, map, row, set};

    #[test]
    fn as_open_vswitch_takes_them() {
        let db = database();
        add_br(&db, "br0", json!({}));
        add_port(
            &db,
            "br0",
            "p0",
            json!({}),
            json!({"other_config": map(&[("mcast-snooping-flood", "true")])}),
        );
        let reports = map(&[("mcast-snooping-flood-reports", "true"), ("mcast-snooping-flood", "no")]);
        add_port(&db, "br0", "p1", json!({}), json!({"other_config": reports}));
        let read = || Wish::read(db.borrow().db(), &row(&db, "Bridge", "br0"));
        assert_eq!(read(), None);
        set(&db, "Bridge", "br0", json!({"mcast_snooping_enable": true}));
        let usual = Wish {
            max_groups: 2048,
            max_age: 300,
            flood_unregistered: true,
            flood: BTreeSet::from(["p0".to_owned()]),
            reports: BTreeSet::from(["p1".to_owned()]),
        };
        assert_eq!(read(), Some(usual.clone()));
        let config = map(&[
            ("mcast-snooping-table-size", "0"),
            ("mcast-snooping-aging-time", "9999"),
            ("mcast-snooping-disable-flood-unregistered", "true"),
        ]);
        set(&db, "Bridge", "br0", json!({"other_config": config}));
        assert_eq!(read(), Some(Wish { max_groups: 10, max_age: 3600, flood_unregistered: false, ..usual }));
    }
}
