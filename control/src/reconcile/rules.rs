//! What a Port's row, or a Bridge's, says of which frames may pass, and with which tags.

use std::sync::Arc;

use datapath::police::{Limits, Policer, Rate};
use datapath::snapshot::{Groups, Port};
use datapath::vlan::{PriorityTags, VlanLimit, VlanMode, VlanPolicy, VlanSet};
use datapath::wire::ethernet;
use ovsdb::{Atom, Database, Row};

/// Packets that storm control lets through at once, at least.
const STORM_BURST: u64 = 32;

/// Of a port. What changes here changes in place; the device stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PortRules {
    /// `tag`, `trunks` and their fellows. None: a trunk of all VLANs.
    pub vlan: Option<Arc<VlanPolicy>>,
    /// `protected`, and `other_config:split-horizon` of port or interface.
    pub groups: Groups,
    /// Policing and storm control.
    pub limits: Limits,
    /// `other_config:join-udp=false`: UDP leaves one datagram a frame.
    pub lone_datagrams: bool,
}

/// Of a bridge.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BridgeRules {
    /// `flood_vlans`.
    pub flood_vlans: Option<Arc<VlanSet>>,
    /// `other_config:vlan-limit` of Open_vSwitch.
    pub vlan_limit: VlanLimit,
}

impl PortRules {
    /// Reads the rows.
    pub fn read(port: &Row, interface: &Row, warnings: &mut Vec<String>) -> PortRules {
        PortRules {
            vlan: vlan(port, warnings),
            groups: groups(port, interface),
            limits: limits(port, interface, warnings),
            lone_datagrams: port.map_get("other_config", "join-udp") == Some("false"),
        }
    }

    /// Whether `port` goes by them.
    pub fn hold(&self, port: &Port) -> bool {
        self.vlan == port.vlan
            && self.groups == port.groups
            && self.limits == held(port)
            && self.lone_datagrams == port.lone_datagrams
    }

    /// `port` with them.
    pub fn on(&self, port: Port) -> Port {
        // buckets that stay as they are go on as they are
        let policer = if self.limits == held(&port) {
            port.policer.clone()
        } else {
            Policer::new(self.limits).map(Arc::new)
        };
        let lone_datagrams = self.lone_datagrams;
        Port { vlan: self.vlan.clone(), groups: self.groups, policer, lone_datagrams, ..port }
    }
}

impl BridgeRules {
    /// Reads the row.
    pub fn read(db: &Database, bridge: &Row) -> BridgeRules {
        let root = db.rows("Open_vSwitch").next();
        let limit =
            root.and_then(|(_, root)| root.map_get("other_config", "vlan-limit")?.parse::<i64>().ok());
        BridgeRules {
            flood_vlans: vids(bridge, "flood_vlans").map(Arc::new),
            // 0 is no limit, of which there are two; and what is out of range is as if nothing were said
            vlan_limit: if matches!(limit, Some(0 | 2..)) { VlanLimit::Two } else { VlanLimit::One },
        }
    }
}

/// What the port makes of tags. Without `vlan_mode` one with `tag` is an access port, any other a trunk.
fn vlan(port: &Row, warnings: &mut Vec<String>) -> Option<Arc<VlanPolicy>> {
    let tag = port.opt_int("tag").and_then(|tag| u16::try_from(tag).ok());
    let (trunks, cvlans) = (vids(port, "trunks"), vids(port, "cvlans"));
    let mode = match port.opt_str("vlan_mode") {
        Some("access") => VlanMode::Access,
        Some("native-tagged") => VlanMode::NativeTagged,
        Some("native-untagged") => VlanMode::NativeUntagged,
        Some("dot1q-tunnel") => VlanMode::Dot1qTunnel,
        None if tag.is_some() => {
            if trunks.is_some() || cvlans.is_some() {
                let name = port.str("name");
                warnings.push(format!("port {name}: ignoring trunks in favor of implicit vlan"));
            }
            VlanMode::Access
        }
        _ => VlanMode::Trunk,
    };
    let config = |key| port.map_get("other_config", key);
    let vid = if mode == VlanMode::Trunk { 0 } else { tag.unwrap_or(0) };
    let trunks = trunks.filter(|_| !matches!(mode, VlanMode::Access | VlanMode::Dot1qTunnel));
    let cvlans = cvlans.filter(|_| mode == VlanMode::Dot1qTunnel);
    let tpid = if config("qinq-ethtype") == Some("802.1q") { ethernet::DOT1Q } else { ethernet::DOT1AD };
    let priority_tags = match config("priority-tags") {
        Some("if-nonzero" | "true") => PriorityTags::IfNonzero,
        Some("always") => PriorityTags::Always,
        _ => PriorityTags::Never,
    };
    VlanPolicy::new(mode, vid, trunks).with_customers(cvlans, tpid).with_priority_tags(priority_tags).shared()
}

/// Whom the port is kept apart from.
fn groups(port: &Row, interface: &Row) -> Groups {
    let splits =
        [port, interface].iter().any(|row| row.map_get("other_config", "split-horizon") == Some("true"));
    let protected = if port.bool("protected") { Groups::PROTECTED } else { Groups::NONE };
    protected.and(if splits { Groups::SPLIT_HORIZON } else { Groups::NONE })
}

/// What a port is held to now.
fn held(port: &Port) -> Limits {
    port.policer.as_ref().map(|policer| policer.limits).unwrap_or_default()
}

/// What the port shall be held to. Bursts that are not said are Open vSwitch's.
fn limits(port: &Row, interface: &Row, warnings: &mut Vec<String>) -> Limits {
    let column = |name| u64::try_from(interface.int(name)).ok().filter(|n| *n > 0);
    let policing = |rate, burst, default, unit: u64| {
        column(rate).map(|n| Rate {
            rate: n.saturating_mul(unit),
            burst: column(burst).unwrap_or(default).saturating_mul(unit),
        })
    };
    let mut storm = |key| {
        let text = port.map_get("other_config", key)?;
        let rate = text.parse::<u64>().ok().filter(|rate| *rate > 0);
        if rate.is_none() {
            let name = port.str("name");
            warnings.push(format!(
                "port {name}: other_config:{key} '{text}' is not a number of packets a second"
            ));
        }
        // a tenth of a second, and what a station that has just come up may well say at once
        rate.map(|rate| Rate { rate, burst: (rate / 10).max(STORM_BURST) })
    };
    Limits {
        broadcast: storm("storm-control-broadcast-pps"),
        multicast: storm("storm-control-multicast-pps"),
        unknown_unicast: storm("storm-control-unknown-unicast-pps"),
        bytes: policing("ingress_policing_rate", "ingress_policing_burst", 8000, 1000 / 8),
        packets: policing("ingress_policing_kpkts_rate", "ingress_policing_kpkts_burst", 16, 1000),
    }
}

/// A column of VLANs. None when it is empty.
pub(super) fn vids(row: &Row, column: &str) -> Option<VlanSet> {
    let atoms = row.get(column)?.atoms();
    let vid = |atom: &Atom| u16::try_from(atom.as_int()?).ok();
    (!atoms.is_empty()).then(|| atoms.iter().filter_map(vid).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::reconcile::testing::{add_br, add_port, database, map, row, set, transact};

    fn read(columns: Value) -> (PortRules, Vec<String>) {
        let db = database();
        add_br(&db, "br0", json!({}));
        add_port(&db, "br0", "p0", json!({}), columns);
        let mut warnings = Vec::new();
        let rules = PortRules::read(&row(&db, "Port", "p0"), &row(&db, "Interface", "p0"), &mut warnings);
        (rules, warnings)
    }

    #[test]
    fn modes_that_are_said_and_those_that_follow() {
        let set = |vids: &[u16]| Some(vids.iter().copied().collect::<VlanSet>());
        let new = VlanPolicy::new;
        let five = json!(["set", [5, 6]]);
        for (columns, want) in [
            (json!({}), None),
            (json!({"tag": 0}), new(VlanMode::Access, 0, None).shared()),
            (json!({"tag": 5}), new(VlanMode::Access, 5, None).shared()),
            (json!({"trunks": five}), new(VlanMode::Trunk, 0, set(&[5, 6])).shared()),
            (json!({"vlan_mode": "trunk", "tag": 5}), None),
            (json!({"vlan_mode": "access"}), new(VlanMode::Access, 0, None).shared()),
            (
                json!({"vlan_mode": "native-tagged", "tag": 7, "trunks": five}),
                new(VlanMode::NativeTagged, 7, set(&[5, 6, 7])).shared(),
            ),
            (
                json!({"vlan_mode": "native-untagged", "tag": 7}),
                new(VlanMode::NativeUntagged, 7, None).shared(),
            ),
            (
                json!({"vlan_mode": "dot1q-tunnel", "tag": 9, "cvlans": five, "other_config": map(&[("qinq-ethtype", "802.1q")])}),
                new(VlanMode::Dot1qTunnel, 9, None).with_customers(set(&[5, 6]), 0x8100).shared(),
            ),
            (
                json!({"other_config": map(&[("priority-tags", "always")])}),
                new(VlanMode::Trunk, 0, None).with_priority_tags(PriorityTags::Always).shared(),
            ),
        ] {
            let (rules, warnings) = read(columns.clone());
            assert_eq!(rules, PortRules { vlan: want, ..PortRules::default() }, "{columns}");
            assert!(warnings.is_empty(), "{warnings:?}");
        }
        let (rules, warnings) = read(json!({"tag": 5, "trunks": five}));
        assert_eq!(rules.vlan, new(VlanMode::Access, 5, None).shared());
        assert_eq!(warnings, ["port p0: ignoring trunks in favor of implicit vlan"]);
    }

    #[test]
    fn who_is_kept_apart() {
        let split = json!({"other_config": map(&[("split-horizon", "true")])});
        let both = json!({"protected": true, "other_config": map(&[("split-horizon", "true")])});
        for (columns, want) in [
            (json!({"protected": true}), Groups::PROTECTED),
            (split, Groups::SPLIT_HORIZON),
            (both, Groups::PROTECTED.and(Groups::SPLIT_HORIZON)),
            (json!({"other_config": map(&[("split-horizon", "false")])}), Groups::NONE),
        ] {
            assert_eq!(read(columns.clone()).0.groups, want, "{columns}");
        }
        let db = database();
        add_br(&db, "br0", json!({}));
        add_port(&db, "br0", "p0", json!({"other_config": map(&[("split-horizon", "true")])}), json!({}));
        let rules = PortRules::read(&row(&db, "Port", "p0"), &row(&db, "Interface", "p0"), &mut Vec::new());
        assert_eq!(rules.groups, Groups::SPLIT_HORIZON);
    }

    #[test]
    fn datagrams_that_leave_one_by_one() {
        for (said, alone) in [("false", true), ("true", false), ("no", false)] {
            let rules = read(json!({"other_config": map(&[("join-udp", said)])})).0;
            assert_eq!(rules.lone_datagrams, alone, "{said}");
        }
        assert!(!read(json!({})).0.lone_datagrams);
    }

    #[test]
    fn what_a_port_is_held_to() {
        let db = database();
        add_br(&db, "br0", json!({}));
        let policing = json!({
            "ingress_policing_rate": 80, "ingress_policing_kpkts_rate": 2, "ingress_policing_kpkts_burst": 1,
        });
        let storm = map(&[("storm-control-broadcast-pps", "1000"), ("storm-control-multicast-pps", "many")]);
        add_port(&db, "br0", "p0", policing, json!({"other_config": storm}));
        let mut warnings = Vec::new();
        let rules = PortRules::read(&row(&db, "Port", "p0"), &row(&db, "Interface", "p0"), &mut warnings);
        let want = Limits {
            bytes: Some(Rate { rate: 10_000, burst: 1_000_000 }),
            packets: Some(Rate { rate: 2000, burst: 1000 }),
            broadcast: Some(Rate { rate: 1000, burst: 100 }),
            ..Limits::default()
        };
        assert_eq!(rules.limits, want);
        let key = "storm-control-multicast-pps";
        assert_eq!(
            warnings,
            [format!("port p0: other_config:{key} 'many' is not a number of packets a second")]
        );
    }

    #[test]
    fn what_bridges_say() {
        let db = database();
        add_br(&db, "br0", json!({}));
        let read = || BridgeRules::read(db.borrow().db(), &row(&db, "Bridge", "br0"));
        assert_eq!(read(), BridgeRules::default());
        set(&db, "Bridge", "br0", json!({"flood_vlans": ["set", [7]]}));
        assert!(read().flood_vlans.is_some_and(|set| set.contains(7) && !set.contains(8)));
        for (text, want) in [
            ("0", VlanLimit::Two),
            ("1", VlanLimit::One),
            ("2", VlanLimit::Two),
            ("-1", VlanLimit::One),
            ("x", VlanLimit::One),
        ] {
            let config = map(&[("vlan-limit", text)]);
            transact(
                &db,
                json!([{"op": "update", "table": "Open_vSwitch", "where": [], "row": {"other_config": config}}]),
            );
            assert_eq!(read().vlan_limit, want, "{text}");
        }
    }
}
