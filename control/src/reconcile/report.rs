//! What became of the rows' wishes: the columns that the switch writes back.

use std::collections::BTreeMap;

use datapath::snapshot::PortKind;
use datapath::sys::ethtool;
use ovsdb::{Database, Datum, RowUpdate, Uuid};

use super::actual::{Attachment, BridgeState, State};
use super::device::Choice;
use super::wanted::{Wanted, WantedBridge, WantedPort, What};
use crate::devices::netlink::{Link, Links};
use crate::devices::path::Path;
use crate::devices::{mac_for, mac_text};
use crate::ipsec::view::View;

/// Interface types that exist, as `iface_types` lists them.
const IFACE_TYPES: [&str; 9] =
    ["geneve", "gre", "internal", "ip6gre", "ipsec_gre", "patch", "system", "tap", "vxlan"];
/// Datapath types that bridges may name; they are all the same here.
const DATAPATH_TYPES: [&str; 2] = ["netdev", "system"];
/// Why a controller is not connected.
const NO_CONTROLLER: &str =
    "this version does not speak to OpenFlow controllers: the bridge learns and forwards by itself";
/// Why a manager is not connected.
const NO_MANAGER: &str = "this version speaks OVSDB on its unix socket alone";
/// What a bridge's own interface says when the bridge shall not forward by itself.
const FAIL_SECURE: &str = "fail_mode=secure has no effect: there are no flows and no controllers, and the bridge learns and forwards by itself";

/// The configuration's number, to be written as `cur_cfg` once it is in force.
pub fn next_cfg(db: &Database) -> i64 {
    db.rows("Open_vSwitch").next().map_or(0, |(_, row)| row.int("next_cfg"))
}

/// The configuration up to `next_cfg` is in force.
pub fn applied(db: &Database, next_cfg: i64) -> Option<RowUpdate> {
    let (row, _) = db.rows("Open_vSwitch").next()?;
    let columns = vec![
        ("cur_cfg", next_cfg.into()),
        ("iface_types", Datum::set(IFACE_TYPES)),
        ("datapath_types", Datum::set(DATAPATH_TYPES)),
        ("dpdk_initialized", false.into()),
        ("dpdk_version", Datum::optional(Some("none"))),
    ];
    Some(RowUpdate { table: "Open_vSwitch", row, columns })
}

/// The columns of every bridge and interface. `failures`: what does not work of interfaces that otherwise do, by name.
pub fn report(
    wanted: &Wanted,
    state: &State,
    links: &Links,
    failures: &BTreeMap<String, String>,
) -> Vec<RowUpdate> {
    let mut updates: Vec<RowUpdate> =
        wanted.managers.iter().map(|row| unconnected("Manager", *row, NO_MANAGER)).collect();
    for (name, bridge) in &wanted.bridges {
        let actual = state.bridges.get(name);
        updates.push(bridge_row(name, bridge, actual, links));
        updates.extend(bridge.controllers.iter().map(|row| unconnected("Controller", *row, NO_CONTROLLER)));
        for (port_name, port) in &bridge.ports {
            let Some(row) = port.row else { continue };
            let columns = interface(name, bridge, port_name, port, actual, links, failures);
            updates.push(RowUpdate { table: "Interface", row, columns });
        }
    }
    updates
}

/// A controller or a manager: the row says why there is no connection, where those who look for one look.
fn unconnected(table: &'static str, row: Uuid, why: &str) -> RowUpdate {
    let columns = vec![
        ("is_connected", false.into()),
        ("status", Datum::map([("last_error", why), ("state", "VOID")])),
    ];
    RowUpdate { table, row, columns }
}

/// Column `datapath_id`.
pub fn datapath_id(name: &str, wanted: &WantedBridge, actual: Option<&BridgeState>, links: &Links) -> String {
    let local = actual.and_then(|b| b.ports.get(name)).and_then(|p| device(&p.attachment, links));
    let mac = local.map(|l| l.mac).or(wanted.mac).unwrap_or_else(|| mac_for(&[name]));
    wanted.datapath_id.clone().unwrap_or_else(|| format!("0000{}", mac_text(mac).replace(':', "")))
}

fn bridge_row(name: &str, wanted: &WantedBridge, actual: Option<&BridgeState>, links: &Links) -> RowUpdate {
    let id = datapath_id(name, wanted, actual, links);
    let columns = vec![("datapath_id", Datum::optional(Some(id))), ("datapath_version", "<built-in>".into())];
    RowUpdate { table: "Bridge", row: wanted.row, columns }
}

fn interface(
    bridge_name: &str,
    wanted_bridge: &WantedBridge,
    name: &str,
    wanted: &WantedPort,
    bridge: Option<&BridgeState>,
    links: &Links,
    failures: &BTreeMap<String, String>,
) -> Vec<(&'static str, Datum)> {
    let error = bridge.and_then(|b| b.failed.get(name)).cloned();
    let Some(port) = bridge.and_then(|b| b.ports.get(name)) else {
        return broken(wanted, error);
    };
    let mut columns = vec![("ofport", Datum::optional(Some(i64::from(port.port.ofport))))];
    // The rest of a tunnel's is written by `tunnels`
    let looped = port.looped.as_ref().map(|looped| looped.error.clone());
    if matches!(port.attachment, Attachment::Tunnel | Attachment::Patch) {
        let mac = mac_text(mac_for(&[bridge_name, name]));
        columns.extend([
            ("mac_in_use", Datum::optional(Some(mac))),
            ("mtu", Datum::empty_set()),
            ("ifindex", Datum::optional(Some(0))),
            ("admin_state", state_text(true)),
            ("link_resets", Datum::optional(Some(0))),
        ]);
        if let PortKind::Patch(patch) = &port.port.kind {
            let alone = patch.peer.is_none();
            let error = alone.then(|| {
                format!(
                    "No usable peer '{}' exists in '{}' datapath.",
                    patch.name, wanted_bridge.datapath_type
                )
            });
            columns.extend([("error", Datum::optional(error.or(looped))), ("link_state", state_text(true))]);
        }
        return columns;
    }
    let insecure = (name == bridge_name && wanted_bridge.fail_secure).then(|| FAIL_SECURE.to_owned());
    columns.push(("error", Datum::optional(failures.get(name).cloned().or(looped).or(insecure))));
    let Some(link) = device(&port.attachment, links) else {
        columns.extend([("admin_state", state_text(false)), ("link_state", state_text(false))]);
        return columns;
    };
    let resets = link.carrier_changes.saturating_sub(port.carrier_changes);
    columns.extend([
        ("mac_in_use", Datum::optional(Some(mac_text(link.mac)))),
        ("mtu", Datum::optional(Some(i64::from(link.mtu)))),
        ("ifindex", Datum::optional(Some(i64::from(link.index)))),
        ("admin_state", state_text(link.up)),
        ("link_state", state_text(link.carrier)),
        ("link_resets", Datum::optional(Some(i64::from(resets)))),
        ("status", driver(link)),
    ]);
    columns.extend(speed(link));
    columns
}

/// An interface that does not work. One that did, and whose device went, keeps its number and is down; one that never
/// did has -1, which is how `ovs-vsctl` sees that something is wrong.
fn broken(wanted: &WantedPort, error: Option<String>) -> Vec<(&'static str, Datum)> {
    let worked = wanted.ofport.is_some_and(|n| n > 0) && matches!(wanted.what, Ok(What::System { .. }));
    let ofport = if worked { wanted.ofport } else { Some(-1) };
    let down = if worked { state_text(false) } else { Datum::empty_set() };
    let mut columns = vec![
        ("ofport", Datum::optional(ofport)),
        ("error", Datum::optional(error)),
        ("admin_state", down.clone()),
        ("link_state", down),
        ("status", Datum::empty_map()),
        ("statistics", Datum::empty_map()),
    ];
    columns.extend(
        ["mac_in_use", "mtu", "ifindex", "link_resets", "duplex", "link_speed"]
            .map(|c| (c, Datum::empty_set())),
    );
    columns
}

/// What tunnels leave by, and how they are protected. `views` has the protected ones, by name; `choice` knows which of the others go
/// by a road that they shall not.
pub fn tunnels(
    state: &State,
    wanted: &Wanted,
    egress: &[(String, String, Option<Path>)],
    views: &BTreeMap<String, View>,
    choice: &Choice,
) -> Vec<RowUpdate> {
    let row = |bridge: &str, name: &str| -> Option<Uuid> { wanted.bridges.get(bridge)?.ports.get(name)?.row };
    let updates = egress.iter().filter_map(|(bridge, name, path)| {
        let row = row(bridge, name)?;
        let looped = state.bridges.get(bridge)?.ports.get(name)?.looped.as_ref();
        let error = looped.map(|looped| looped.error.as_str()).or(choice.error(name));
        let columns = tunnel(path.as_ref(), views.get(name), error);
        Some(RowUpdate { table: "Interface", row, columns })
    });
    updates.collect()
}

fn tunnel(path: Option<&Path>, view: Option<&View>, road: Option<&str>) -> Vec<(&'static str, Datum)> {
    let egress = path.map(|path| {
        let carrier = if path.carrier { "up" } else { "down" };
        [("tunnel_egress_iface", path.link.as_str()), ("tunnel_egress_iface_carrier", carrier)]
    });
    let protection = view.into_iter().flat_map(|view| view.status.iter().map(|(key, v)| (*key, v.as_str())));
    vec![
        ("status", Datum::map(egress.into_iter().flatten().chain(protection))),
        ("error", Datum::optional(view.and_then(|view| view.error.as_deref()).or(road))),
        ("link_state", state_text(view.is_none_or(|view| view.up))),
    ]
}

/// The device that a port shows to the operator: for a member, the bridge that it joins.
pub fn device<'a>(attachment: &Attachment, links: &'a Links) -> Option<&'a Link> {
    links.by_index(device_index(attachment)?)
}

/// Its index.
pub fn device_index(attachment: &Attachment) -> Option<u32> {
    match attachment {
        Attachment::Direct { ifindex } | Attachment::Tap { ifindex, .. } => Some(*ifindex),
        Attachment::Member(member) => Some(member.bridge),
        Attachment::Tunnel | Attachment::Patch => None,
    }
}

fn state_text(up: bool) -> Datum {
    Datum::optional(Some(if up { "up" } else { "down" }))
}

fn driver(link: &Link) -> Datum {
    match (ethtool::driver(&link.name), link.kind.as_str()) {
        (Ok(driver), _) => Datum::map([
            ("driver_name", driver.name),
            ("driver_version", driver.version),
            ("firmware_version", driver.firmware),
        ]),
        (Err(_), "") => Datum::empty_map(),
        (Err(_), kind) => Datum::map([("driver_name", kind)]),
    }
}

/// What the driver says of the link, if it says.
fn speed(link: &Link) -> [(&'static str, Datum); 2] {
    let running = ethtool::link(&link.name).ok();
    let duplex = running.and_then(|l| l.full_duplex).map(|full| if full { "full" } else { "half" });
    let speed = running.and_then(|l| l.speed).map(|mbps| i64::from(mbps) * 1_000_000);
    [("duplex", Datum::optional(duplex)), ("link_speed", Datum::optional(speed))]
}
