//! What rows say of bonds. Pure: rows in, wishes out.

use std::collections::BTreeSet;
use std::time::Duration;

use ovsdb::{Row, Uuid};

use super::engine::{Mac, Settings};
use crate::devices::parse_mac;

/// A port of several interfaces that shall be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedBond {
    /// The Port's row.
    pub row: Uuid,
    /// How its active member is chosen.
    pub settings: Settings,
    /// `bond_active_slave`: who was active in an earlier run; zero for nobody.
    pub last: Mac,
    /// How often links are looked at. None: the kernel tells of them.
    pub look: Option<Duration>,
    /// Its interfaces.
    pub members: BTreeSet<String>,
}

/// `bond-miimon-interval` in milliseconds where it is not said, and the least.
const MIIMON: (u64, u64) = (200, 10);

/// Reads the row of a bond. Err: it asks for what there is not, and doing less could close a loop or lose frames.
pub fn read(port: &Row, members: BTreeSet<String>, warnings: &mut Vec<String>) -> Result<WantedBond, String> {
    let name = port.str("name");
    let config = |key| port.map_get("other_config", key);
    let lacp = port.opt_str("lacp").filter(|mode| *mode != "off");
    let mode = port.opt_str("bond_mode").filter(|mode| *mode != "active-backup");
    let fallback = lacp.is_some() && config("lacp-fallback-ab") == Some("true");
    match (mode, lacp) {
        (_, Some(lacp)) if !fallback => {
            return Err(format!(
                "{name}: LACP (lacp={lacp}) is not supported by this version: \
                 set lacp=off, or other_config:lacp-fallback-ab=true for active-backup without it"
            ));
        }
        (Some(mode), None) => {
            return Err(format!(
                "{name}: bond_mode {mode} is not supported by this version: set bond_mode=active-backup"
            ));
        }
        (_, Some(_)) => warnings.push(format!(
            "port {name}: LACP is not in this version; by lacp-fallback-ab the bond works as active-backup"
        )),
        (None, None) => {}
    }
    let mut warn = |what: String| warnings.push(format!("port {name}: {what}"));
    let look = match config("bond-detect-mode") {
        None | Some("carrier") => None,
        Some("miimon") => {
            let interval = config("bond-miimon-interval").and_then(|text| text.parse().ok());
            let interval = interval.filter(|ms| *ms > 0).unwrap_or(MIIMON.0).max(MIIMON.1);
            Some(Duration::from_millis(interval))
        }
        Some(other) => {
            warn(format!("unsupported bond-detect-mode {other}, defaulting to carrier"));
            None
        }
    };
    if port.bool("bond_fake_iface") {
        warn("a device for the bond (bond_fake_iface) is not in this version; the bond works without".into());
    }
    let settings = Settings {
        updelay: port.int("bond_updelay").max(0),
        downdelay: port.int("bond_downdelay").max(0),
        primary: config("bond-primary").map(str::to_owned),
        // as OVS reads integers: what is none counts for nothing, what is negative from the other end
        hash_basis: config("bond-hash-basis").and_then(|text| text.parse::<i64>().ok()).unwrap_or(0) as u32,
        fallback,
    };
    let last = port.opt_str("bond_active_slave").and_then(parse_mac).unwrap_or_default();
    Ok(WantedBond { row: port.uuid(), settings, last, look, members })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::reconcile::testing::{add_br, add_port, database, map, row};

    fn read_one(columns: Value) -> (Result<WantedBond, String>, Vec<String>) {
        let db = database();
        add_br(&db, "br0", json!({}));
        add_port(&db, "br0", "bond0", json!({}), columns);
        let mut warnings = Vec::new();
        let members = BTreeSet::from(["a".to_owned(), "b".to_owned()]);
        (super::read(&row(&db, "Port", "bond0"), members, &mut warnings), warnings)
    }

    #[test]
    fn what_a_row_asks_for() {
        let (wanted, warnings) = read_one(json!({}));
        let wanted = wanted.unwrap();
        assert_eq!((&wanted.settings, wanted.last), (&Settings::default(), [0; 6]));
        assert!(warnings.is_empty() && wanted.members.len() == 2);
        let config =
            map(&[("bond-primary", "a"), ("bond-hash-basis", "-1"), ("bond-detect-mode", "carrier")]);
        let (wanted, warnings) = read_one(json!({
            "bond_mode": "active-backup", "lacp": "off", "bond_updelay": 300, "bond_downdelay": -5,
            "bond_active_slave": "02:00:00:00:00:01", "other_config": config,
        }));
        let wanted = wanted.unwrap();
        let want =
            Settings { updelay: 300, primary: Some("a".into()), hash_basis: u32::MAX, ..Settings::default() };
        assert_eq!((&wanted.settings, wanted.last), (&want, [2, 0, 0, 0, 0, 1]));
        assert!(warnings.is_empty());
    }

    #[test]
    fn what_there_is_not_is_refused_or_said() {
        let refused = |columns| read_one(columns).0.unwrap_err();
        let slb =
            "bond0: bond_mode balance-slb is not supported by this version: set bond_mode=active-backup";
        assert_eq!(refused(json!({"bond_mode": "balance-slb"})), slb);
        assert!(
            refused(json!({"bond_mode": "balance-tcp"})).starts_with("bond0: bond_mode balance-tcp is not")
        );
        for mode in ["active-backup", "balance-tcp"] {
            let why = refused(json!({"bond_mode": mode, "lacp": "passive"}));
            assert!(why.starts_with("bond0: LACP (lacp=passive) is not supported"), "{why}");
        }
        let fallback = map(&[("lacp-fallback-ab", "true")]);
        let (wanted, warnings) =
            read_one(json!({"bond_mode": "balance-tcp", "lacp": "active", "other_config": fallback}));
        assert!(wanted.unwrap().settings.fallback);
        assert_eq!(warnings.len(), 1);
        let config = map(&[("bond-detect-mode", "arp")]);
        let (wanted, warnings) = read_one(json!({"bond_fake_iface": true, "other_config": config}));
        assert!(wanted.is_ok_and(|wanted| wanted.look.is_none()));
        assert_eq!(warnings.len(), 2, "{warnings:?}");
    }

    #[test]
    fn how_often_links_are_looked_at() {
        for (interval, want) in [("", 200), ("-1", 200), ("0", 200), ("1", 10), ("500", 500)] {
            let config = map(&[("bond-detect-mode", "miimon"), ("bond-miimon-interval", interval)]);
            let (wanted, warnings) = read_one(json!({"other_config": config}));
            assert_eq!(wanted.unwrap().look, Some(Duration::from_millis(want)), "{interval}");
            assert!(warnings.is_empty());
        }
    }
}
