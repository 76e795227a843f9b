//! What operators see of spanning trees: columns, `stp/show`, `rstp/show`. Texts are Open vSwitch's.

use std::fmt::Write;

use ovsdb::{Database, Datum, RowUpdate};
use rstp::{BridgeId, BridgeStatus, PortStatus, Role, State, Times};

use super::wishes::Mode;
use super::{Member, Spanning, Tree};
use crate::devices::mac_text;

/// A bridge has no tree of that mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{}", match .0 { Mode::Stp => "no such stp object", Mode::Rstp => "No such RSTP object" })]
pub struct NoTree(pub Mode);

impl Spanning {
    /// The columns of every bridge and port; empty where there is no tree.
    pub fn columns(&self, db: &Database) -> Vec<RowUpdate> {
        let trees = self.trees.borrow();
        let mut updates = Vec::new();
        for (row, bridge) in db.rows("Bridge") {
            let tree = trees.get(bridge.str("name"));
            let [stp, rapid] = [Mode::Stp, Mode::Rstp].map(|mode| {
                let tree = tree.filter(|tree| tree.mode == mode);
                tree.map_or_else(Datum::empty_map, |tree| Datum::map(tree.bridge_column()))
            });
            let columns = vec![("status", stp), ("rstp_status", rapid)];
            updates.push(RowUpdate { table: "Bridge", row, columns });
        }
        let members =
            || trees.values().flat_map(|tree| tree.members.values().map(move |m| (m.row, (tree, m))));
        let members: std::collections::BTreeMap<_, _> = members().collect();
        for (row, _) in db.rows("Port") {
            let columns = match members.get(&row) {
                Some((tree, member)) => tree.port_columns(member),
                None => NO_COLUMNS.map(|name| (name, Datum::empty_map())).to_vec(),
            };
            updates.push(RowUpdate { table: "Port", row, columns });
        }
        updates
    }

    /// `stp/show [bridge]`, `rstp/show [bridge]`.
    ///
    /// # Errors
    /// The bridge has no tree of that mode.
    pub fn show(&self, mode: Mode, bridge: Option<&str>) -> Result<String, NoTree> {
        let trees = self.trees.borrow();
        let asked = trees.iter().filter(|(name, t)| t.mode == mode && bridge.is_none_or(|b| b == *name));
        let shown: Vec<String> = asked.map(|(name, tree)| tree.show(name)).collect();
        if shown.is_empty() && bridge.is_some() {
            return Err(NoTree(mode));
        }
        Ok(shown.concat())
    }
}

const NO_COLUMNS: [&str; 4] = ["status", "statistics", "rstp_status", "rstp_statistics"];

impl Tree {
    fn bridge_column(&self) -> Vec<(&'static str, String)> {
        let BridgeStatus { config, root, root_port, .. } = self.engine.status();
        match self.mode {
            Mode::Stp => vec![
                ("stp_bridge_id", stp_id(config.id)),
                ("stp_designated_root", stp_id(root.root)),
                ("stp_root_path_cost", root.cost.to_string()),
            ],
            Mode::Rstp => {
                let own = root_port.and_then(|key| self.engine.port(key)).map_or(0, |port| port.config.id.0);
                vec![
                    ("rstp_bridge_id", rapid_id(config.id)),
                    ("rstp_bridge_port_id", format!("{own:04x}")),
                    ("rstp_designated_id", rapid_id(root.bridge)),
                    ("rstp_designated_port_id", format!("{:04x}", root.port.0)),
                    ("rstp_root_id", rapid_id(root.root)),
                    ("rstp_root_path_cost", root.cost.to_string()),
                ]
            }
        }
    }

    fn port_columns(&self, member: &Member) -> Vec<(&'static str, Datum)> {
        let Some(port) = self.engine.port(member.id.0) else { return Vec::new() };
        let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        let counts = |names: [&'static str; 3]| {
            let [sent, received, errors] = names;
            vec![(sent, number(port.sent)), (received, number(port.received)), (errors, number(port.errors))]
        };
        let none = Datum::empty_map;
        // ours
        let guard = member.shut.then(|| ("bpdu_guard", "shut".to_owned()));
        let (stp, stp_counts, rapid, rapid_counts) = match self.mode {
            Mode::Stp => {
                let status = [
                    ("stp_port_id", port.config.id.0.to_string()),
                    ("stp_state", stp_state(&port).into()),
                    ("stp_sec_in_state", port.seconds_in_state.to_string()),
                    ("stp_role", stp_role(port.role).into()),
                ];
                let counts = counts(["stp_tx_count", "stp_rx_count", "stp_error_count"]);
                (Datum::map(status.into_iter().chain(guard)), Datum::map(counts), none(), none())
            }
            Mode::Rstp => {
                let status = [
                    ("rstp_port_id", format!("{:04x}", port.config.id.0)),
                    ("rstp_port_role", format!("{:?}", port.role)),
                    ("rstp_port_state", format!("{:?}", port.state)),
                    ("rstp_designated_bridge_id", rapid_id(port.priority.bridge)),
                    ("rstp_designated_port_id", format!("{:04x}", port.priority.port.0)),
                    ("rstp_designated_path_cost", port.priority.cost.to_string()),
                ];
                let mut counts = counts(["rstp_tx_count", "rstp_rx_count", "rstp_error_count"]);
                counts.push(("rstp_uptime", number(port.uptime)));
                (none(), none(), Datum::map(status.into_iter().chain(guard)), Datum::map(counts))
            }
        };
        NO_COLUMNS.into_iter().zip([stp, stp_counts, rapid, rapid_counts]).collect()
    }

    fn show(&self, name: &str) -> String {
        let BridgeStatus { config, root, times, root_port } = self.engine.status();
        let mut out = format!("---- {name} ----\nRoot ID:\n");
        self.show_id(&mut out, root.root, &times);
        let leads = |key| self.members.iter().find(|(_, member)| member.id.0 == key).map(|(name, _)| name);
        match root_port.and_then(leads) {
            None => out.push_str("  This bridge is the root\n"),
            Some(port) => {
                let _ = writeln!(out, "  root-port       {port}\n  root-path-cost  {}", root.cost);
            }
        }
        out.push_str("\nBridge ID:\n");
        self.show_id(&mut out, config.id, &config.times);
        let width = if self.mode == Mode::Stp { 5 } else { 8 };
        let _ = writeln!(out, "\n  Interface  Role       State      {:<width$} Pri.Nbr ", "Cost");
        let _ = writeln!(out, "  ---------- ---------- ---------- {:-<width$} -------", "");
        let mut members: Vec<_> = self.members.iter().collect();
        members.sort_by_key(|(_, member)| member.number);
        for (name, member) in members {
            let Some(port) = self.engine.port(member.id.0) else { continue };
            let id = port.config.id.0;
            let (role, state, number) = match self.mode {
                // those that are down are not shown
                Mode::Stp if !port.enabled => continue,
                Mode::Stp => (stp_role(port.role).to_owned(), stp_state(&port).to_owned(), id & 0xff),
                Mode::Rstp => (format!("{:?}", port.role), format!("{:?}", port.state), id & 0xfff),
            };
            let priority = match self.mode {
                Mode::Stp => id >> 8,
                Mode::Rstp => id >> 8 & 0xf0,
            };
            let name: String = name.chars().take(10).collect();
            let cost = port.config.path_cost;
            let _ = writeln!(out, "  {name:<10} {role:<10} {state:<10} {cost:<width$} {priority}.{number}");
        }
        out.push('\n');
        out
    }

    fn show_id(&self, out: &mut String, id: BridgeId, times: &Times) {
        let gap = if self.mode == Mode::Stp { "" } else { "  " };
        let _ = writeln!(
            out,
            "  stp-priority  {gap}{}\n  stp-system-id   {}\n  stp-hello-time  {}s\n  stp-max-age     {}s\n  stp-fwd-delay   {}s",
            id.priority(),
            mac_text(id.address()),
            times.hello_secs(),
            times.max_age_secs(),
            times.forward_delay_secs(),
        );
    }
}

/// `8.000.020000000001`.
fn rapid_id(id: BridgeId) -> String {
    let BridgeId(n) = id;
    format!("{:x}.{:03x}.{:012x}", n >> 60, n >> 48 & 0xfff, n & 0xffff_ffff_ffff)
}

/// `8000.020000000001`.
fn stp_id(id: BridgeId) -> String {
    let BridgeId(n) = id;
    format!("{:04x}.{:012x}", n >> 48, n & 0xffff_ffff_ffff)
}

/// As Open vSwitch has it, a port that is down keeps the role that it would have.
fn stp_role(role: Role) -> &'static str {
    match role {
        Role::Root => "root",
        Role::Designated | Role::Disabled => "designated",
        Role::Alternate | Role::Backup => "alternate",
    }
}

fn stp_state(port: &PortStatus) -> &'static str {
    match (port.enabled, port.role, port.state) {
        (false, ..) => "disabled",
        (_, _, State::Forwarding) => "forwarding",
        (_, _, State::Learning) => "learning",
        (_, Role::Alternate | Role::Backup, State::Discarding) => "blocking",
        (_, _, State::Discarding) => "listening",
    }
}
