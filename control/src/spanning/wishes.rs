//! What rows say of spanning trees. Pure: rows in, wishes out. Ranges and what becomes of values outside are Open vSwitch's.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

use ovsdb::{Database, Row, Uuid};
use rstp::{BridgeConfig, BridgeId, Times, Version};

use crate::devices::parse_mac;

/// Which of the two a bridge runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// `stp_enable`: 802.1D-1998.
    Stp,
    /// `rstp_enable`: 802.1D-2004.
    Rstp,
}

/// A bridge that shall have a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BridgeWish {
    /// Which protocol its columns speak of.
    pub mode: Mode,
    /// `rstp-address`, `stp-system-id`.
    pub address: Option<[u8; 6]>,
    /// Of the bridge identifier.
    pub priority: u16,
    /// What it tells the others as the root.
    pub times: Times,
    /// `rstp-force-protocol-version`.
    pub version: Version,
    /// `rstp-transmit-hold-count`.
    pub transmit_hold_count: u8,
    /// Who takes part, by interface name.
    pub ports: BTreeMap<String, PortWish>,
}

/// A port that shall take part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortWish {
    /// The Port's row.
    pub row: Uuid,
    /// `rstp-port-num`, `stp-port-num`.
    pub number: Option<u16>,
    /// `rstp-port-priority`, `stp-port-priority`.
    pub priority: u8,
    /// `rstp-path-cost`, `stp-path-cost`, or what the device's speed comes to.
    pub path_cost: u32,
    /// `rstp-port-admin-edge`.
    pub admin_edge: bool,
    /// `rstp-port-auto-edge`.
    pub auto_edge: bool,
    /// `rstp-admin-p2p-mac`.
    pub point_to_point: bool,
    /// `rstp-admin-port-state`.
    pub admin_up: bool,
    /// `rstp-port-mcheck`.
    pub mcheck: bool,
    /// `bpdu-guard`, ours: no bridge is to be behind it.
    pub guard: bool,
}

impl Mode {
    /// Whether a port takes part, as far as it says.
    pub fn wanted_by(self, port: &Row) -> bool {
        let key = match self {
            Mode::Stp => "stp-enable",
            Mode::Rstp => "rstp-enable",
        };
        port.map_get("other_config", key) != Some("false")
    }
}

impl std::fmt::Display for Mode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Mode::Stp => "STP",
            Mode::Rstp => "RSTP",
        })
    }
}

impl BridgeWish {
    /// For the engine of a bridge with that address.
    pub fn config(&self, address: [u8; 6]) -> BridgeConfig {
        BridgeConfig {
            id: BridgeId::new(self.priority, address),
            times: self.times,
            version: self.version,
            transmit_hold_count: self.transmit_hold_count,
        }
    }
}

/// Every bridge that asks for a tree, by name.
pub fn read(db: &Database) -> BTreeMap<String, BridgeWish> {
    let roots = db.rows("Open_vSwitch").flat_map(|(_, root)| root.refs("bridges"));
    let rows = roots.filter_map(|uuid| db.row("Bridge", uuid));
    rows.filter_map(|row| Some((row.str("name").to_owned(), bridge(db, row)?))).collect()
}

/// RSTP, if both are asked for.
pub fn mode(row: &Row) -> Option<Mode> {
    match (row.bool("rstp_enable"), row.bool("stp_enable")) {
        (true, _) => Some(Mode::Rstp),
        (false, true) => Some(Mode::Stp),
        (false, false) => None,
    }
}

fn bridge(db: &Database, row: &Row) -> Option<BridgeWish> {
    let mode = mode(row)?;
    let number = |key| number::<u64>(row, key);
    let mut wish = match mode {
        Mode::Rstp => BridgeWish {
            mode,
            address: mac(row, "rstp-address"),
            priority: number("rstp-priority").filter(|p| *p <= 61_440).map_or(0x8000, |p| p as u16 & 0xf000),
            times: Times::new(
                ranged(number("rstp-max-age"), 6, 20, 40),
                2,
                ranged(number("rstp-forward-delay"), 4, 15, 30),
            ),
            version: match number("rstp-force-protocol-version") {
                Some(0) => Version::Stp,
                _ => Version::Rstp,
            },
            transmit_hold_count: ranged(number("rstp-transmit-hold-count"), 1, 6, 10),
            ports: BTreeMap::new(),
        },
        Mode::Stp => BridgeWish {
            mode,
            address: mac(row, "stp-system-id"),
            priority: number("stp-priority").map_or(0x8000, |p| p.min(0xffff) as u16),
            times: Times::new(
                clamped(number("stp-max-age"), 6, 20, 40),
                clamped(number("stp-hello-time"), 1, 2, 10),
                clamped(number("stp-forward-delay"), 4, 15, 30),
            ),
            version: Version::Stp,
            transmit_hold_count: 6,
            ports: BTreeMap::new(),
        },
    };
    for port in row.refs("ports").into_iter().filter_map(|uuid| db.row("Port", uuid)) {
        // of bonds and internal ports none takes part, as in Open vSwitch
        let [interface] = port.refs("interfaces")[..] else { continue };
        let Some(interface) = db.row("Interface", interface) else { continue };
        let internal = interface.str("type") == "internal" || interface.str("name") == row.str("name");
        if !internal && let Some(read) = self::port(mode, port, interface.str("name")) {
            wish.ports.insert(interface.str("name").to_owned(), read);
        }
    }
    Some(wish)
}

/// None: it is told to take no part.
fn port(mode: Mode, row: &Row, device: &str) -> Option<PortWish> {
    let flag = |key, default: bool| match row.map_get("other_config", key) {
        Some("true") => true,
        Some("false") => false,
        _ => default,
    };
    let wish = PortWish {
        row: row.uuid(),
        number: None,
        priority: 0x80,
        path_cost: 0,
        admin_edge: flag("rstp-port-admin-edge", false),
        auto_edge: flag("rstp-port-auto-edge", true),
        point_to_point: row.map_get("other_config", "rstp-admin-p2p-mac") != Some("0"),
        admin_up: flag("rstp-admin-port-state", true),
        mcheck: flag("rstp-port-mcheck", false),
        guard: flag("bpdu-guard", false),
    };
    let number = |key| number::<u64>(row, key);
    match mode {
        Mode::Rstp => flag("rstp-enable", true).then(|| PortWish {
            number: number("rstp-port-num").filter(|n| (1..=4095).contains(n)).map(|n| n as u16),
            priority: number("rstp-port-priority").filter(|p| *p <= 240).map_or(0x80, |p| p as u8 & 0xf0),
            path_cost: number("rstp-path-cost")
                .filter(|cost| (1..=200_000_000).contains(cost))
                .map_or_else(|| rstp_cost(speed(device)), |cost| cost as u32),
            ..wish
        }),
        Mode::Stp => flag("stp-enable", true).then(|| PortWish {
            number: number("stp-port-num").filter(|n| (1..=255).contains(n)).map(|n| n as u16),
            priority: number("stp-port-priority").filter(|p| *p <= 255).map_or(0x80, |p| p as u8),
            path_cost: number("stp-path-cost")
                .filter(|cost| *cost <= 65_535)
                .map_or_else(|| stp_cost(speed(device)), |cost| cost as u32),
            auto_edge: false,
            admin_edge: false,
            admin_up: true,
            mcheck: false,
            ..wish
        }),
    }
}

fn number<N: FromStr>(row: &Row, key: &str) -> Option<N> {
    row.map_get("other_config", key)?.trim().parse().ok()
}

fn mac(row: &Row, key: &str) -> Option<[u8; 6]> {
    row.map_get("other_config", key).and_then(parse_mac).filter(|mac| *mac != [0; 6])
}

/// A value out of range says nothing.
fn ranged(value: Option<u64>, least: u8, default: u8, most: u8) -> u8 {
    let within = |n: &u64| (u64::from(least)..=u64::from(most)).contains(n);
    value.filter(within).map_or(default, |n| n as u8)
}

/// A value out of range means the nearest end.
fn clamped(value: Option<u64>, least: u8, default: u8, most: u8) -> u8 {
    value.map_or(default, |n| n.clamp(least.into(), most.into()) as u8)
}

/// Mb/s of a device; tunnels and what is no hardware count as 10 Gb/s, as in Open vSwitch.
fn speed(device: &str) -> u64 {
    let told = std::fs::read_to_string(format!("/sys/class/net/{device}/speed")).ok();
    told.and_then(|text| text.trim().parse().ok()).filter(|speed| *speed > 0).unwrap_or(10_000)
}

/// IEEE 802.1D-2004 table 17-3.
fn rstp_cost(speed: u64) -> u32 {
    match speed {
        10_000_000.. => 2,
        1_000_000.. => 20,
        100_000.. => 200,
        10_000.. => 2000,
        1000.. => 20_000,
        100.. => 200_000,
        10.. => 2_000_000,
        _ => 20_000_000,
    }
}

/// IEEE 802.1D-1998 table 8-5.
fn stp_cost(speed: u64) -> u32 {
    match speed {
        10_000.. => 2,
        1000.. => 4,
        100.. => 19,
        16.. => 62,
        10.. => 100,
        _ => 250,
    }
}

/// Port numbers, each dealt to one port: those that rows ask for, else those of before, else the lowest that are free.
#[derive(Debug)]
pub struct Numbers<'a>(BTreeMap<&'a str, u16>);

impl<'a> Numbers<'a> {
    /// `before`: the numbers that ports have.
    pub fn deal(wish: &'a BridgeWish, before: &BTreeMap<&str, u16>) -> Numbers<'a> {
        let mut dealt: BTreeMap<&str, u16> = BTreeMap::new();
        let mut taken = BTreeSet::new();
        let asked = wish.ports.iter().filter_map(|(name, port)| Some((name.as_str(), port.number?)));
        let kept = wish.ports.keys().filter_map(|name| Some((name.as_str(), *before.get(name.as_str())?)));
        for (name, number) in asked.chain(kept) {
            if !dealt.contains_key(name) && taken.insert(number) {
                dealt.insert(name, number);
            }
        }
        let most = if wish.mode == Mode::Stp { 255 } else { 4095 };
        let mut free = (1..=most).filter(|number| !taken.contains(number));
        for name in wish.ports.keys() {
            if !dealt.contains_key(name.as_str())
                && let Some(number) = free.next()
            {
                dealt.insert(name, number);
            }
        }
        Numbers(dealt)
    }

    /// The number of a port; None: there are too many ports.
    pub fn of(&self, name: &str) -> Option<u16> {
        self.0.get(name).copied()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::reconcile::testing::{add_br, add_port, database, map};

    #[test]
    fn as_open_vswitch_takes_them() {
        let db = database();
        let config = map(&[
            ("rstp-priority", "5000"),
            ("rstp-max-age", "41"),
            ("rstp-forward-delay", "4"),
            ("rstp-transmit-hold-count", "10"),
            ("rstp-address", "02:00:00:00:00:09"),
            ("rstp-force-protocol-version", "0"),
        ]);
        add_br(&db, "br0", json!({"rstp_enable": true, "stp_enable": true, "other_config": config}));
        let config = map(&[("stp-priority", "99999"), ("stp-max-age", "41"), ("stp-hello-time", "0")]);
        add_br(&db, "br1", json!({"stp_enable": true, "other_config": config}));
        add_br(&db, "br2", json!({}));
        let port = |bridge: &str, name: &str, kind: &str, config: &[(&str, &str)]| {
            add_port(&db, bridge, name, json!({"type": kind}), json!({"other_config": map(config)}));
        };
        let all = [("rstp-port-priority", "67"), ("rstp-port-num", "77"), ("rstp-path-cost", "7")];
        port("br0", "a", "", &all);
        port("br0", "b", "gre", &[("rstp-port-admin-edge", "true"), ("rstp-admin-p2p-mac", "0")]);
        port("br0", "c", "internal", &[]);
        port("br0", "d", "", &[("rstp-enable", "false")]);
        port("br1", "e", "", &[("stp-port-priority", "67"), ("stp-path-cost", "0"), ("stp-port-num", "256")]);
        let wishes = read(db.borrow().db());
        assert_eq!(wishes.keys().collect::<Vec<_>>(), ["br0", "br1"]);
        let br0 = &wishes["br0"];
        assert_eq!((br0.mode, br0.version, br0.priority), (Mode::Rstp, Version::Stp, 4096));
        assert_eq!((br0.times, br0.transmit_hold_count), (Times::new(20, 2, 4), 10));
        assert_eq!(br0.address, Some([2, 0, 0, 0, 0, 9]));
        assert_eq!(br0.ports.keys().collect::<Vec<_>>(), ["a", "b"]);
        let (a, b) = (&br0.ports["a"], &br0.ports["b"]);
        assert_eq!((a.priority, a.number, a.path_cost), (0x40, Some(77), 7));
        assert_eq!((b.priority, b.number, b.path_cost), (0x80, None, 2000));
        assert_eq!((b.admin_edge, b.auto_edge, b.point_to_point, b.admin_up), (true, true, false, true));
        let br1 = &wishes["br1"];
        assert_eq!((br1.priority, br1.times), (0xffff, Times::new(40, 1, 15)));
        let e = &br1.ports["e"];
        assert_eq!((e.priority, e.number, e.path_cost), (67, None, 0));
    }

    #[test]
    fn numbers_are_asked_for_or_kept_or_free() {
        let db = database();
        add_br(&db, "br0", json!({"rstp_enable": true}));
        for (name, number) in [("a", ""), ("b", "2"), ("c", "2"), ("d", "")] {
            let config = map(&[("rstp-port-num", number)]);
            add_port(&db, "br0", name, json!({}), json!({"other_config": config}));
        }
        let wishes = read(db.borrow().db());
        let deal = |before: &[(&'static str, u16)]| {
            let numbers = Numbers::deal(&wishes["br0"], &before.iter().copied().collect());
            ["a", "b", "c", "d"].map(|name| numbers.of(name).unwrap())
        };
        assert_eq!(deal(&[]), [1, 2, 3, 4]);
        assert_eq!(deal(&[("d", 1), ("a", 2), ("c", 9)]), [3, 2, 9, 1]);
    }
}
