//! Statistics: what has passed through each interface, written every few seconds.

use std::time::Duration;

use datapath::snapshot::PortKind;
use ovsdb::{Database, Datum, RowUpdate, Uuid};

use crate::devices::netlink::Links;
use crate::reconcile::actual::{PortState, State};
use crate::reconcile::mirrors::MirrorState;
use crate::reconcile::report::device;
use crate::reconcile::wanted::Wanted;

/// Least and default interval of `other_config:stats-update-interval`, in milliseconds.
const INTERVAL_MS: u64 = 5000;

/// How often statistics are written.
pub fn interval(db: &Database) -> Duration {
    let asked = db.rows("Open_vSwitch").next().and_then(|(_, row)| {
        row.map_get("other_config", "stats-update-interval").and_then(|text| text.parse().ok())
    });
    Duration::from_millis(asked.unwrap_or(INTERVAL_MS).max(INTERVAL_MS))
}

/// Column `statistics` of every interface that works, and of every mirror.
pub fn statistics(wanted: &Wanted, state: &State, links: &Links) -> Vec<RowUpdate> {
    let bridges = wanted.bridges.keys().filter_map(|name| state.bridges.get(name));
    let mirrors = bridges.flat_map(|bridge| bridge.mirrors.iter().map(MirrorState::statistics));
    mirrors.chain(of_interfaces(wanted, state, links, |_| true)).collect()
}

/// The same of interfaces that have none yet: whoever adds one may look at once.
pub fn first_statistics(db: &Database, wanted: &Wanted, state: &State, links: &Links) -> Vec<RowUpdate> {
    let none = |row| {
        let statistics = db.row("Interface", row).and_then(|row| row.get("statistics"));
        statistics.is_some_and(|pairs| pairs.pairs().is_empty())
    };
    of_interfaces(wanted, state, links, none)
}

fn of_interfaces(
    wanted: &Wanted,
    state: &State,
    links: &Links,
    asked: impl Fn(Uuid) -> bool,
) -> Vec<RowUpdate> {
    let mut updates = Vec::new();
    for (name, bridge) in &wanted.bridges {
        let Some(actual) = state.bridges.get(name) else { continue };
        for (port_name, port) in &bridge.ports {
            let Some(row) = port.row.filter(|row| asked(*row)) else { continue };
            let Some(port) = actual.ports.get(port_name) else { continue };
            let pairs = counters(port, links).into_iter();
            let pairs = pairs.map(|(key, n)| (key, i64::try_from(n).unwrap_or(i64::MAX)));
            let columns = vec![("statistics", Datum::map(pairs))];
            updates.push(RowUpdate { table: "Interface", row, columns });
        }
    }
    updates
}

/// From the switch's side: received is what came into the bridge by this port. What only the kernel knows of a device is
/// taken from there.
pub fn counters(state: &PortState, links: &Links) -> Vec<(&'static str, u64)> {
    let sum = state.port.counters.sum();
    let mut pairs = vec![
        ("rx_bytes", sum.rx_bytes),
        ("rx_packets", sum.rx_packets),
        ("tx_bytes", sum.tx_bytes),
        ("tx_packets", sum.tx_packets),
    ];
    if let PortKind::Local(local) = &state.port.kind {
        let kernel = device(&state.attachment, links).map(|l| l.stats).unwrap_or_default();
        pairs.extend([
            ("collisions", kernel.collisions),
            ("rx_crc_err", kernel.rx_crc_err),
            ("rx_dropped", sum.rx_dropped.saturating_add(local.lost())),
            ("rx_errors", kernel.rx_errors),
            ("rx_frame_err", kernel.rx_frame_err),
            ("rx_missed_errors", kernel.rx_missed_errors),
            ("rx_multicast_packets", sum.rx_multicast),
            ("rx_over_err", kernel.rx_over_err),
            ("tx_dropped", sum.tx_dropped),
            ("tx_errors", sum.tx_errors),
        ]);
    }
    pairs
}
