//! A bridge as OpenFlow sees it, from the datapath, the kernel's links and their drivers.

use std::cell::Cell;
use std::time::Instant;

use datapath::snapshot::{PortKind, Snapshot};
use datapath::sys::ethtool::{self, Medium};
use openflow::{Bridge, Features, Flow, Port, PortConfig, PortStats};
use ovsdb::Database;

use super::{Activity, Context, received};
use crate::cli::OVS_VERSION;
use crate::devices::mac_for;
use crate::devices::netlink::Links;
use crate::reconcile::actual::PortState;
use crate::reconcile::report::device;
use crate::status;

/// None: it is gone.
pub(super) async fn of(context: &Context, name: &str, activity: &Cell<Activity>) -> Option<Bridge> {
    let links = context.netlink.links().await.unwrap_or_default();
    let (state, snapshot, now) = (context.state.borrow(), context.datapath.snapshot(), Instant::now());
    let bridge = state.bridges.get(name)?;
    let faulty = |port: &String| state.works(port) == Some(false);
    let seen = |(p, seen)| Port { faulty: faulty(p), ..port(name, p, seen, &links, &snapshot, now) };
    let mut ports: Vec<Port> = bridge.ports.iter().map(seen).collect();
    ports.sort_by_key(|p| p.number);
    let mut active = activity.get();
    active.look(received(bridge), now);
    activity.set(active);
    let flow = Flow {
        age: now.duration_since(bridge.since),
        idle: Some(now.duration_since(active.at)),
        packets: active.packets,
        bytes: bridge.ports.values().map(|p| p.port.counters.sum().rx_bytes).sum(),
    };
    Some(Bridge { ports, flow, ..described(context.db.borrow().db(), name) })
}

/// What its row says.
fn described(db: &Database, name: &str) -> Bridge {
    let row = db.rows("Bridge").map(|(_, row)| row).find(|row| row.str("name") == name);
    let config = |key| row.and_then(|r| r.map_get("other_config", key)).unwrap_or("None").to_owned();
    let id = row.and_then(|r| r.opt_str("datapath_id"));
    Bridge {
        datapath_id: id.and_then(|id| u64::from_str_radix(id, 16).ok()).unwrap_or(0),
        software: OVS_VERSION.into(),
        serial: config("dp-sn"),
        description: config("dp-desc"),
        ..Bridge::default()
    }
}

fn port(
    bridge: &str,
    name: &str,
    state: &PortState,
    links: &Links,
    snapshot: &Snapshot,
    now: Instant,
) -> Port {
    let seen = Port {
        number: state.port.ofport,
        name: name.into(),
        config: state.config,
        stats: stats(state, links),
        age: now.duration_since(state.since),
        ..Port::default()
    };
    let link = device(&state.attachment, links);
    match (&state.port.kind, link) {
        (PortKind::Tunnel(tunnel), _) => {
            Port { mac: mac_for(&[bridge, name]), link_down: snapshot.way(tunnel).is_err(), ..seen }
        }
        (_, None) => Port { link_down: true, config: state.config.with(PortConfig::DOWN, true), ..seen },
        (_, Some(link)) => {
            let driver = ethtool::link(&link.name).ok();
            let bits = |which: fn(&ethtool::Link) -> u32| driver.as_ref().map(which).map_or(0, modes);
            Port {
                mac: link.mac,
                config: state.config.with(PortConfig::DOWN, !link.up),
                link_down: !link.carrier,
                current: driver.as_ref().map(running).unwrap_or_default(),
                advertised: Features(bits(|l| l.advertised)),
                supported: Features(bits(|l| l.supported)),
                peer: Features(bits(|l| l.peer)),
                ..seen
            }
        }
    }
}

/// What a link runs with now.
fn running(link: &ethtool::Link) -> Features {
    let speed = link.speed.map_or(0, |mbps| Features::speed(mbps, link.full_duplex == Some(true)));
    let medium = match link.medium {
        Medium::Copper => Features::COPPER,
        Medium::Fiber => Features::FIBER,
        Medium::Other => 0,
    };
    Features(speed | medium | if link.autoneg { Features::AUTONEG } else { 0 })
}

/// The kernel's bits for what a link can do (`SUPPORTED_…`), as OpenFlow 1.3 has them.
fn modes(kernel: u32) -> u32 {
    const SAME: u32 = 0x3f; // 10 Mb/s, half and full duplex, to 1 Gb/s
    let others = [
        (6, Features::AUTONEG),
        (7, Features::COPPER),
        (10, Features::FIBER),
        (12, 1 << 6), // 10 Gb/s
        (13, Features::PAUSE),
        (14, Features::PAUSE_ASYM),
    ];
    others.iter().filter(|(bit, _)| kernel & 1 << bit != 0).fold(kernel & SAME, |all, (_, one)| all | one)
}

fn stats(state: &PortState, links: &Links) -> PortStats {
    let pairs = status::counters(state, links);
    let get = |name| pairs.iter().find(|(key, _)| *key == name).map(|(_, n)| *n);
    PortStats {
        rx_packets: get("rx_packets"),
        tx_packets: get("tx_packets"),
        rx_bytes: get("rx_bytes"),
        tx_bytes: get("tx_bytes"),
        rx_dropped: get("rx_dropped"),
        tx_dropped: get("tx_dropped"),
        rx_errors: get("rx_errors"),
        tx_errors: get("tx_errors"),
        rx_frame_err: get("rx_frame_err"),
        rx_over_err: get("rx_over_err"),
        rx_crc_err: get("rx_crc_err"),
        collisions: get("collisions"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links() {
        let veth = ethtool::Link {
            speed: Some(10_000),
            full_duplex: Some(true),
            medium: Medium::Copper,
            autoneg: false,
            supported: 0,
            advertised: 0,
            peer: 0,
        };
        assert_eq!(running(&veth).0, 0x840);
        let nic = ethtool::Link { speed: Some(1000), autoneg: true, ..veth };
        assert_eq!(running(&nic).0, 1 << 5 | Features::COPPER | Features::AUTONEG);
        let down = ethtool::Link { speed: None, full_duplex: None, medium: Medium::Other, ..veth };
        assert_eq!(running(&down).0, 0);
        assert_eq!(modes(0x30ef), 0x2f | Features::AUTONEG | Features::COPPER | 1 << 6 | Features::PAUSE);
    }
}
