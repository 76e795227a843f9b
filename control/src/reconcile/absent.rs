//! What rows ask for that Open vSwitch has and this switch has no use for: an operator who tunes it shall see that nothing comes of it.

use ovsdb::{Database, Row};

/// `other_config` of a table, and what is not heeded there. A key that ends with `-` stands for all that begin so.
const KEYS: [(&str, &[&str]); 4] = [
    (
        "Open_vSwitch",
        &[
            "ct-",
            "dpdk-",
            "emc-insert-inv-prob",
            "flow-limit",
            "flow-restore-wait",
            "hw-offload",
            "max-idle",
            "max-revalidator",
            "min-revalidate-pps",
            "n-handler-threads",
            "n-revalidator-threads",
            "offload-rebalance",
            "per-port-memory",
            "pmd-",
            "shared-mempool-config",
            "smc-enable",
            "tc-policy",
            "tx-flush-interval",
            "userspace-tso-enable",
            "vhost-",
        ],
    ),
    ("Bridge", &["disable-in-band", "in-band-queue"]),
    (
        "Port",
        &[
            "all-members-active",
            "all-slaves-active",
            "lacp-system-id",
            "lacp-system-priority",
            "lacp-time",
            "lb-output-action",
            "transient",
        ],
    ),
    (
        "Interface",
        &[
            "emc-enable",
            "lacp-aggregation-key",
            "lacp-port-id",
            "lacp-port-priority",
            "pmd-rxq-affinity",
            "tx-steering",
        ],
    ),
];

/// Columns that refer to rows of tables which nobody heeds, and what for.
const COLUMNS: [(&str, &str, &str); 4] = [
    ("Open_vSwitch", "ssl", "the database listens on its unix socket alone"),
    ("Open_vSwitch", "datapaths", "there is no connection tracking"),
    ("Bridge", "flow_tables", "there are no flows but one"),
    ("Port", "mac", "other_config:hwaddr of the bridge says its address"),
];

/// In words for the log.
pub fn warnings(db: &Database) -> Vec<String> {
    let mut warnings = Vec::new();
    for (table, keys) in KEYS {
        for (_, row) in db.rows(table) {
            let heeded =
                |key: &str| !keys.iter().any(|k| k == &key || k.ends_with('-') && key.starts_with(k));
            let set = row.map("other_config").filter(|(key, value)| !heeded(key) && *value != "false");
            warnings.extend(set.map(|(key, _)| {
                format!("{}: other_config:{key} has no effect in this version", name(table, row))
            }));
        }
    }
    for (table, column, why) in COLUMNS {
        let set = |row: &Row| row.get(column).is_some_and(|d| !d.atoms().is_empty() || !d.pairs().is_empty());
        let rows = db.rows(table).filter(|(_, row)| set(row));
        warnings.extend(rows.map(|(_, row)| {
            format!("{}: column {column} has no effect in this version: {why}", name(table, row))
        }));
    }
    if db.rows("Flow_Sample_Collector_Set").next().is_some() {
        warnings
            .push("table Flow_Sample_Collector_Set has no effect in this version: no flow samples".into());
    }
    warnings
}

fn name<'a>(table: &'a str, row: &'a Row) -> &'a str {
    if table == "Open_vSwitch" { table } else { row.str("name") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::reconcile::testing::{add_br, add_port, database, map, transact};

    #[test]
    fn what_nobody_heeds_is_named_and_nothing_else() {
        let db = database();
        let said = || warnings(db.borrow().db());
        let config = |pairs: &[(&str, &str)]| json!({"other_config": map(pairs)});
        add_br(&db, "br0", config(&[("hwaddr", "02:00:00:00:00:01"), ("mac-aging-time", "60")]));
        add_port(&db, "br0", "p0", config(&[("attach", "direct")]), config(&[("join-udp", "false")]));
        assert_eq!(said(), Vec::<String>::new());
        add_br(&db, "br1", config(&[("disable-in-band", "true")]));
        add_port(&db, "br1", "p1", config(&[("lacp-port-id", "1")]), config(&[("transient", "true")]));
        let root = config(&[("flow-limit", "9"), ("dpdk-init", "false"), ("pmd-cpu-mask", "3")]);
        transact(
            &db,
            json!([
                {"op": "update", "table": "Open_vSwitch", "where": [], "row": root},
                {"op": "insert", "table": "Flow_Table", "uuid-name": "f", "row": {}},
                {"op": "update", "table": "Bridge", "where": [["name", "==", "br1"]],
                 "row": {"flow_tables": ["map", [[0, ["named-uuid", "f"]]]]}},
                {"op": "update", "table": "Port", "where": [["name", "==", "p1"]], "row": {"mac": "x"}},
            ]),
        );
        let option =
            |row: &str, key: &str| format!("{row}: other_config:{key} has no effect in this version");
        let column = |row: &str, column: &str, why: &str| {
            format!("{row}: column {column} has no effect in this version: {why}")
        };
        assert_eq!(
            said(),
            [
                option("Open_vSwitch", "flow-limit"),
                option("Open_vSwitch", "pmd-cpu-mask"),
                option("br1", "disable-in-band"),
                option("p1", "transient"),
                option("p1", "lacp-port-id"),
                column("br1", "flow_tables", "there are no flows but one"),
                column("p1", "mac", "other_config:hwaddr of the bridge says its address"),
            ]
        );
    }
}
