//! Passes over real devices and a real datapath, on a host of the test's own.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use datapath::snapshot::{PortId, StpState};
use ovsdb::Server;
use serde_json::json;

use super::testing::*;
use super::wanted::Wanted;
use crate::attach::Takeover;
use crate::devices::firewall::{Firewall, tests::Held};
use crate::devices::netlink::Netlink;
use crate::devices::testing::{in_namespace, ip};

fn ofport(db: &RefCell<Server>, name: &str) -> Option<i64> {
    row(db, "Interface", name).opt_int("ofport")
}

fn states(db: &RefCell<Server>, name: &str) -> (String, String) {
    let row = row(db, "Interface", name);
    (row.str("admin_state").to_owned(), row.str("link_state").to_owned())
}

fn in_force(db: &RefCell<Server>) -> bool {
    root(db).int("cur_cfg") == root(db).int("next_cfg")
}

#[test]
fn a_bridge_comes_and_goes() {
    in_namespace(async {
        let db = database();
        let mut reconciler = reconciler().await;
        add_br(&db, "br0", json!({"other_config": map(&[("hwaddr", "02:00:00:00:00:0b")])}));
        reconciler.run_once(&db).await;
        assert!(in_force(&db));
        assert_eq!(ofport(&db, "br0"), Some(65534));
        assert_eq!(error(&db, "br0"), "");
        let bridge = row(&db, "Bridge", "br0");
        assert_eq!(
            (bridge.str("datapath_id"), bridge.str("datapath_version")),
            ("000002000000000b", "<built-in>")
        );
        let local = row(&db, "Interface", "br0");
        assert_eq!((local.str("mac_in_use"), local.int("mtu")), ("02:00:00:00:00:0b", 1500));
        assert!(ip("link show dev br0").contains("02:00:00:00:00:0b"));
        assert!(root(&db).get("iface_types").unwrap().contains(&"gre".into()));

        transact(
            &db,
            json!([{"op": "update", "table": "Open_vSwitch", "where": [],
                    "row": {"bridges": ["set", []], "next_cfg": 9}}]),
        );
        reconciler.run_once(&db).await;
        assert!(in_force(&db));
        assert!(!ip("link show").contains("br0"));
        assert!(reconciler.state().borrow().bridges.is_empty());
    });
}

#[test]
fn a_device_may_come_later_go_and_come_again() {
    in_namespace(async {
        let db = database();
        let mut reconciler = reconciler().await;
        add_br(&db, "br0", json!({}));
        add_port(&db, "br0", "eth1", json!({}), json!({}));
        reconciler.run_once(&db).await;
        assert_eq!(error(&db, "eth1"), "could not open network device eth1 (No such device)");
        assert_eq!(ofport(&db, "eth1"), Some(-1));
        assert!(in_force(&db), "a broken row does not hold up the others");

        for _ in 0..2 {
            ip("link add eth1 type veth peer name peer1
                link set eth1 up
                link set peer1 up");
            reconciler.run_once(&db).await;
            assert_eq!((error(&db, "eth1").as_str(), ofport(&db, "eth1")), ("", Some(1)));
            assert_eq!(states(&db, "eth1"), ("up".into(), "up".into()));
            ip("link set peer1 down");
            reconciler.run_once(&db).await;
            assert_eq!(states(&db, "eth1"), ("up".into(), "down".into()));
            ip("link del eth1");
            reconciler.run_once(&db).await;
            assert_eq!(error(&db, "eth1"), "could not open network device eth1 (No such device)");
            assert_eq!(ofport(&db, "eth1"), Some(1), "keeps its number");
            assert_eq!(states(&db, "eth1"), ("down".into(), "down".into()));
        }
        // another device may take its place, not its number
        ip("link add eth2 type veth peer name peer2");
        add_port(&db, "br0", "eth2", json!({}), json!({}));
        reconciler.run_once(&db).await;
        assert_eq!(ofport(&db, "eth2"), Some(2));
    });
}

#[test]
fn a_datapath_id_is_sixteen_digits() {
    in_namespace(async {
        let db = database();
        let mut reconciler = reconciler().await;
        add_br(&db, "br0", json!({}));
        for (text, want) in [
            ("00000000000000Ab", "00000000000000ab"),
            ("0x1234", "0000000000001234"),
            ("1234", "000002000000000b"),
            ("0000000000000000", "000002000000000b"),
            ("zz", "000002000000000b"),
        ] {
            let config = map(&[("hwaddr", "02:00:00:00:00:0b"), ("datapath-id", text)]);
            set(&db, "Bridge", "br0", json!({"other_config": config}));
            reconciler.run_once(&db).await;
            assert_eq!(row(&db, "Bridge", "br0").str("datapath_id"), want, "{text}");
        }
    });
}

#[test]
fn a_port_that_is_the_switchs_alone_lends_the_bridge_its_address() {
    in_namespace(async {
        ip("link add eth1 address 00:16:3e:00:00:02 type veth peer name peer1
            link add eth2 address 00:16:3e:00:00:01 type veth peer name peer2
            link add eth3 address 02:16:3e:00:00:00 type veth peer name peer3");
        let db = database();
        let mut reconciler = reconciler().await;
        add_br(&db, "br0", json!({}));
        reconciler.run_once(&db).await;
        let mac = || row(&db, "Interface", "br0").str("mac_in_use").to_owned();
        let own = mac();
        for port in ["eth1", "eth3"] {
            add_port(&db, "br0", port, json!({}), json!({}));
        }
        reconciler.run_once(&db).await;
        assert_eq!(mac(), "00:16:3e:00:00:02", "nobody gave eth3 its own");
        assert_eq!(row(&db, "Bridge", "br0").str("datapath_id"), "000000163e000002");
        add_port(&db, "br0", "eth2", json!({}), json!({}));
        reconciler.run_once(&db).await;
        assert_eq!(mac(), "00:16:3e:00:00:01", "the lowest");
        ip("addr add 192.0.2.1/24 dev eth2");
        reconciler.run_once(&db).await;
        assert_eq!(mac(), "00:16:3e:00:00:02", "the host needs that of eth2 itself");
        set_interface(&db, "eth1", json!({"other_config": map(&[("host-input", "true")])}));
        reconciler.run_once(&db).await;
        assert_eq!(mac(), own);
        set_interface(&db, "eth1", json!({"other_config": map(&[])}));
        set(&db, "Bridge", "br0", json!({"other_config": map(&[("hwaddr", "02:00:00:00:00:0b")])}));
        reconciler.run_once(&db).await;
        assert_eq!(mac(), "02:00:00:00:00:0b", "what is said is heeded");
        set(&db, "Bridge", "br0", json!({"other_config": map(&[])}));
        reconciler.run_once(&db).await;
        assert_eq!(mac(), "00:16:3e:00:00:02");
    });
}

#[test]
fn what_is_counted_is_counted_since_the_device_is_a_port() {
    in_namespace(async {
        ip("link add eth1 type veth peer name peer1
            link set eth1 up
            link set peer1 up");
        let db = database();
        let mut reconciler = reconciler().await;
        add_br(&db, "br0", json!({}));
        add_port(&db, "br0", "eth1", json!({}), json!({}));
        reconciler.run_once(&db).await;
        let resets = || row(&db, "Interface", "eth1").opt_int("link_resets");
        assert_eq!(resets(), Some(0));
        let counters = row(&db, "Interface", "eth1").get("statistics").unwrap().pairs().len();
        assert_eq!(counters, 14, "at once");
        ip("link set peer1 down");
        reconciler.run_once(&db).await;
        assert_eq!(resets(), Some(1));
    });
}

#[test]
fn numbers_survive_a_restart() {
    in_namespace(async {
        ip("link add name a type veth peer name b
            link add name c type veth peer name d");
        let db = database();
        let mut first = reconciler().await;
        add_br(&db, "br0", json!({}));
        add_port(&db, "br0", "c", json!({}), json!({}));
        add_port(&db, "br0", "a", json!({"ofport_request": 7}), json!({}));
        first.run_once(&db).await;
        let numbers = (ofport(&db, "c"), ofport(&db, "a"));
        assert_eq!(numbers, (Some(1), Some(7)));
        drop(first);
        let mut second = reconciler().await;
        add_port(&db, "br0", "b", json!({}), json!({}));
        second.run_once(&db).await;
        assert_eq!((ofport(&db, "c"), ofport(&db, "a")), numbers);
        assert_eq!(ofport(&db, "b"), Some(2));
        set_interface(&db, "b", json!({"ofport_request": 9}));
        second.run_once(&db).await;
        assert_eq!(ofport(&db, "b"), Some(9));
        set_interface(&db, "b", json!({"ofport_request": 7}));
        second.run_once(&db).await;
        assert_eq!(ofport(&db, "b"), Some(9), "7 is taken");
        // in a circle: each has what the next one asks for
        for (name, number) in [("a", 1), ("b", 7), ("c", 9)] {
            set_interface(&db, name, json!({"ofport_request": number}));
        }
        second.run_once(&db).await;
        assert_eq!(["a", "b", "c"].map(|name| ofport(&db, name)), [Some(1), Some(7), Some(9)]);
    });
}

#[test]
fn docker0_is_joined_through_a_member_and_joined_anew() {
    in_namespace(async {
        ip("link add docker0 address 02:42:01:02:03:04 type bridge
            addr add 10.0.11.1/24 dev docker0
            link set docker0 up");
        let db = database();
        let mut reconciler = reconciler().await;
        add_br(&db, "br0", json!({}));
        add_port(&db, "br0", "docker0", json!({}), json!({}));
        reconciler.run_once(&db).await;
        assert_eq!(error(&db, "docker0"), "");
        let interface = row(&db, "Interface", "docker0");
        assert_eq!((interface.str("mac_in_use"), interface.int("mtu")), ("02:42:01:02:03:04", 1500));
        assert_eq!(interface.map_get("status", "driver_name"), Some("bridge"));
        assert!(ip("link show master docker0").contains("up-docker0"));

        // as dockerd may do
        ip("link del docker0");
        reconciler.run_once(&db).await;
        assert_eq!(error(&db, "docker0"), "could not open network device docker0 (No such device)");
        assert!(!ip("link show").contains("up-docker0"));
        ip("link add docker0 type bridge");
        reconciler.run_once(&db).await;
        assert_eq!((error(&db, "docker0").as_str(), ofport(&db, "docker0")), ("", Some(1)));
        assert!(ip("link show master docker0").contains("up-docker0"));

        // the other attachment and back
        set_interface(&db, "docker0", json!({"other_config": map(&[("attach", "direct")])}));
        reconciler.run_once(&db).await;
        assert!(!ip("link show").contains("up-docker0"));
        assert_eq!((error(&db, "docker0").as_str(), ofport(&db, "docker0")), ("", Some(1)));
        set_interface(&db, "docker0", json!({"other_config": map(&[])}));
        reconciler.run_once(&db).await;
        assert!(ip("link show master docker0").contains("up-docker0"));
    });
}

#[test]
fn tunnels_know_their_path() {
    in_namespace(async {
        ip("link add eth0 type veth peer name peer0
            link set eth0 up mtu 1400
            link set peer0 up
            addr add 192.0.2.9/24 dev eth0");
        let db = database();
        let mut reconciler = reconciler().await;
        add_br(&db, "br0", json!({}));
        let options = map(&[("remote_ip", "192.0.2.1"), ("key", "5")]);
        add_port(&db, "br0", "gre0", json!({"type": "gre", "options": options}), json!({}));
        reconciler.run_once(&db).await;
        let gre0 = row(&db, "Interface", "gre0");
        assert_eq!(
            (error(&db, "gre0").as_str(), gre0.opt_int("ofport"), gre0.opt_int("mtu")),
            ("", Some(1), None)
        );
        assert_eq!(gre0.map_get("status", "tunnel_egress_iface"), Some("eth0"));
        assert_eq!(gre0.map_get("status", "tunnel_egress_iface_carrier"), Some("up"));
        let tunnel = reconciler.tunnel_of("br0", "gre0").unwrap();
        assert_eq!(tunnel.path_mtu.load(std::sync::atomic::Ordering::Relaxed), 1400);
        assert_eq!(tunnel.source, Some("192.0.2.9".parse().unwrap()));

        ip("link set eth0 mtu 1300");
        reconciler.run_once(&db).await;
        assert_eq!(tunnel.path_mtu.load(std::sync::atomic::Ordering::Relaxed), 1300);
        ip("route add 192.0.2.1 dev eth0 mtu 1280");
        reconciler.run_once(&db).await;
        assert_eq!(tunnel.path_mtu.load(std::sync::atomic::Ordering::Relaxed), 1280);

        // changed in place: same number; its twin is refused, and comes up when the tuple is free
        let port = |name: &str| reconciler.state().borrow().bridges["br0"].ports[name].port.id;
        let before = port("gre0");
        let options = map(&[("remote_ip", "192.0.2.2")]);
        add_port(&db, "br0", "a-twin", json!({"type": "gre", "options": options.clone()}), json!({}));
        reconciler.run_once(&db).await;
        assert_eq!(ofport(&db, "a-twin"), Some(2));
        set_interface(&db, "gre0", json!({"options": options}));
        reconciler.run_once(&db).await;
        assert!(error(&db, "gre0").contains("File exists") || error(&db, "a-twin").contains("File exists"));
        del_port(&db, "br0", "a-twin");
        reconciler.run_once(&db).await;
        assert_eq!((error(&db, "gre0").as_str(), ofport(&db, "gre0")), ("", Some(1)));
        let _ = before;
    });
}

#[test]
fn internal_ports_follow_the_least_mtu_until_told_otherwise() {
    in_namespace(async {
        ip("link add eth1 type veth peer name peer1
            link set eth1 mtu 1450");
        let db = database();
        let mut reconciler = reconciler().await;
        add_br(&db, "br0", json!({}));
        add_port(&db, "br0", "eth1", json!({}), json!({}));
        add_port(
            &db,
            "br0",
            "vi0",
            json!({"type": "internal", "mac": "02:00:00:00:00:05", "mtu_request": 1300}),
            json!({}),
        );
        reconciler.run_once(&db).await;
        let mtu = |name: &str| row(&db, "Interface", name).int("mtu");
        assert_eq!((mtu("br0"), mtu("vi0"), mtu("eth1")), (1450, 1300, 1450));
        assert_eq!(row(&db, "Interface", "vi0").str("mac_in_use"), "02:00:00:00:00:05");
        ip("link set eth1 mtu 9000");
        reconciler.run_once(&db).await;
        assert_eq!((mtu("br0"), mtu("vi0")), (9000, 1300));
        // set by hand: stands until there is news
        ip("link set br0 mtu 1400");
        reconciler.run_once(&db).await;
        assert_eq!(mtu("br0"), 1400);
        set_interface(&db, "vi0", json!({"mac": "02:00:00:00:00:06"}));
        reconciler.run_once(&db).await;
        assert_eq!(row(&db, "Interface", "vi0").str("mac_in_use"), "02:00:00:00:00:06");
    });
}

#[test]
fn the_end_leaves_nothing_but_the_rows() {
    in_namespace(async {
        ip("link add docker0 type bridge
            addr add 192.0.2.9/24 dev lo");
        let before = ip("-o link show");
        let db = database();
        let changed = tokio::sync::Notify::new();
        add_br(&db, "br0", json!({}));
        add_port(&db, "br0", "docker0", json!({}), json!({}));
        let options = map(&[("remote_ip", "192.0.2.1")]);
        add_port(&db, "br0", "gre0", json!({"type": "gre", "options": options}), json!({}));
        let reconciler = reconciler().await;
        changed.notify_one();
        let stop = async {
            while !in_force(&db) || root(&db).int("next_cfg") == 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            assert!(ip("link show").contains("up-docker0"));
        };
        tokio::time::timeout(Duration::from_secs(20), reconciler.run(&db, &changed, stop)).await.unwrap();
        assert_eq!(ip("-o link show").lines().count(), before.lines().count());
        assert_eq!(ofport(&db, "gre0"), Some(2));
    });
}

#[test]
fn run_follows_rows_devices_and_time() {
    in_namespace(async {
        let db = database();
        let changed = tokio::sync::Notify::new();
        let reconciler = reconciler().await;
        let script = async {
            let until = async |what: &str, so: &dyn Fn() -> bool| {
                for _ in 0..1000 {
                    if so() {
                        return;
                    }
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                panic!("never: {what}");
            };
            add_br(&db, "br0", json!({}));
            add_port(&db, "br0", "eth1", json!({}), json!({}));
            changed.notify_one();
            until("the rows are in force", &|| in_force(&db)).await;
            ip("link add eth1 type veth peer name peer1");
            until("the device is noticed", &|| ofport(&db, "eth1") == Some(1)).await;
            ip("link set eth1 up");
            until("its state is noticed", &|| states(&db, "eth1").0 == "up").await;
            ip("link del eth1");
            until("its end is noticed", &|| !error(&db, "eth1").is_empty()).await;
            until("statistics are written", &|| {
                !row(&db, "Interface", "br0").get("statistics").unwrap().is_empty()
            })
            .await;
        };
        tokio::time::timeout(Duration::from_secs(40), reconciler.run(&db, &changed, script)).await.unwrap();
    });
}

#[test]
fn a_device_gets_the_mtu_that_its_row_asks_for() {
    in_namespace(async {
        ip("link add docker0 type bridge
            link add v0 type veth peer name c0
            link set v0 master docker0
            link add eth1 type veth peer name peer1");
        let db = database();
        let mut reconciler = reconciler().await;
        add_br(&db, "br0", json!({}));
        for device in ["docker0", "eth1"] {
            add_port(&db, "br0", device, json!({"mtu_request": 1400}), json!({}));
        }
        for _ in 0..2 {
            reconciler.run_once(&db).await;
        }
        for device in ["docker0", "eth1"] {
            let shown = ip(&format!("link show dev {device}"));
            assert!(shown.contains("mtu 1400"), "{shown}");
        }
        assert_eq!(row(&db, "Interface", "docker0").int("mtu"), 1400);
    });
}

#[test]
fn what_old_frames_taught_of_a_tunnel_goes_once_it_leads_elsewhere() {
    in_namespace(async {
        let db = database();
        let mut reconciler = reconciler().await;
        add_br(&db, "br0", json!({}));
        let to = |remote: &str| json!({"type": "gre", "options": map(&[("remote_ip", remote)])});
        add_port(&db, "br0", "gre0", to("127.0.0.2"), json!({}));
        reconciler.run_once(&db).await;
        let (fdb, id) = {
            let state = reconciler.state();
            let port = &state.borrow().bridges["br0"].ports["gre0"];
            (port.fdb.clone(), port.port.id)
        };
        let mac = [2, 0, 0, 0, 0, 1];
        set_interface(&db, "gre0", to("127.0.0.3"));
        let wanted = Wanted::from_database(db.borrow().db());
        let plan = reconciler.protect(&wanted).await;
        reconciler.follow_tunnels(&wanted, &plan).await;
        // by a worker that goes by the snapshot of before
        fdb.learn(0, mac, id, 0);
        assert!(reconciler.settle().await);
        assert_eq!(fdb.lookup(0, mac, 0), None);
        fdb.learn(0, mac, id, 0);
        reconciler.run_once(&db).await;
        assert_eq!(fdb.lookup(0, mac, 0), Some(id), "once is enough");
    });
}

#[test]
fn a_held_lock_of_the_packet_filter_holds_up_no_configuration() {
    in_namespace(async {
        ip("link add docker0 type bridge
            addr add 10.0.11.1/24 dev docker0
            link set docker0 up");
        let filter = Arc::new(Held::default());
        filter.held.store(true, Relaxed);
        let mut reconciler = reconciler().await;
        let firewall = Firewall::with_tool(filter.clone());
        reconciler.takeover = Takeover::with_firewall(Netlink::open().unwrap(), firewall);
        let db = database();
        add_br(&db, "br0", json!({}));
        let config = map(&[("attach", "direct"), ("take-address", "true")]);
        add_port(&db, "br0", "docker0", json!({"other_config": config}), json!({}));
        let passes = async {
            reconciler.run_once(&db).await;
            reconciler.statistics_due = Instant::now();
            reconciler.tick(&db).await;
            assert!(in_force(&db));
            del_port(&db, "br0", "docker0");
            reconciler.run_once(&db).await;
        };
        tokio::time::timeout(Duration::from_secs(40), passes).await.expect("it waits for the packet filter");
        assert!(in_force(&db));
        assert!(ip("addr show dev docker0").contains("10.0.11.1"));
        filter.held.store(false, Relaxed);
    });
}

/// Which number in the datapath each port has, and whether it forwards.
fn numbers(reconciler: &super::Reconciler, names: &[&str]) -> Vec<Option<(u16, StpState)>> {
    let state = reconciler.state();
    let state = state.borrow();
    let port = |name: &&str| state.bridges["br0"].ports.get(*name).map(|p| (p.port.id.0, p.port.stp));
    names.iter().map(port).collect()
}

#[test]
fn a_bond_is_its_active_member() {
    use StpState::{Backup, Forwarding};
    in_namespace(async {
        let wires = ["a", "b", "c"].map(|d| {
            format!("link add name {d} type veth peer name {d}1\nlink set dev {d} up\nlink set dev {d}1 up\n")
        });
        ip(&wires.concat());
        let db = database();
        let mut reconciler = reconciler().await;
        add_br(&db, "br0", json!({}));
        add_bond(&db, "br0", "bond0", &["a", "b", "c"], json!({}));
        reconciler.run_once(&db).await;
        let before = numbers(&reconciler, &["a", "b", "c"]);
        let [Some((common, Forwarding)), Some((own, Backup)), Some((third, Backup))] = before[..] else {
            panic!("{before:?}")
        };
        assert_eq!(["a", "b", "c"].map(|name| ofport(&db, name)), [1, 2, 3].map(Some));
        let fdb = reconciler.state().borrow().bridges["br0"].fdb.clone();
        let station = [2, 0, 0, 0, 0, 9];
        fdb.learn(0, station, PortId(common), 0);
        let active = |name: &str| {
            let mac = row(&db, "Port", "bond0").str("bond_active_slave").to_owned();
            let link = ip(&format!("-o link show dev {name}"));
            assert!(link.contains(&mac) && !mac.is_empty(), "{mac} is not that of {name}: {link}");
        };
        active("a");

        // what was learned behind the bond is behind whoever is active
        ip("link set dev a1 down");
        reconciler.run_once(&db).await;
        let after = numbers(&reconciler, &["a", "b", "c"]);
        assert_eq!(after, [(own, Backup), (common, Forwarding), (third, Backup)].map(Some));
        active("b");
        // also when the active one goes altogether
        ip("link set dev a1 up\nlink del dev b");
        reconciler.run_once(&db).await;
        let after = numbers(&reconciler, &["a", "b", "c"]);
        let [Some((_, Backup)), None, Some((at, Forwarding))] = after[..] else { panic!("{after:?}") };
        assert_eq!((at, fdb.lookup(0, station, 0)), (common, Some(PortId(common))));
        active("c");
        ip("link add name b type veth peer name b1\nlink set dev b up\nlink set dev b1 up");
        reconciler.run_once(&db).await;
        assert!(matches!(numbers(&reconciler, &["b"])[..], [Some((_, Backup))]));
        assert_eq!(ofport(&db, "b"), Some(2));

        // no longer a bond: a port like any other
        let only = row(&db, "Interface", "c").uuid().to_string();
        set(&db, "Port", "bond0", json!({"interfaces": ["uuid", only]}));
        reconciler.run_once(&db).await;
        let after = numbers(&reconciler, &["a", "b", "c"]);
        let [None, None, Some((at, Forwarding))] = after[..] else { panic!("{after:?}") };
        assert_eq!(reconciler.state().borrow().bridges["br0"].ports["c"].bond, None);
        assert!(fdb.lookup(0, station, 0).is_none_or(|port| port.0 == at));
        // and a bond of what was a port
        let second = json!({"op": "insert", "table": "Interface", "uuid-name": "i", "row": {"name": "a"}});
        transact(
            &db,
            json!([second, {"op": "mutate", "table": "Port", "where": [["name", "==", "bond0"]],
                            "mutations": [["interfaces", "insert", ["named-uuid", "i"]]]}]),
        );
        fdb.learn(0, station, PortId(at), 0);
        reconciler.run_once(&db).await;
        let after = numbers(&reconciler, &["a", "c"]);
        assert_eq!(after.iter().flatten().filter(|(_, stp)| *stp == Forwarding).count(), 1, "{after:?}");
        assert_eq!(fdb.lookup(0, station, 0), None, "it was behind c alone");
    });
}

#[test]
fn a_bond_that_there_is_not_stays_down() {
    in_namespace(async {
        ip("link add name a type veth peer name b");
        let db = database();
        let mut reconciler = reconciler().await;
        add_br(&db, "br0", json!({}));
        add_bond(&db, "br0", "bond0", &["a", "b"], json!({"bond_mode": "balance-slb"}));
        reconciler.run_once(&db).await;
        for name in ["a", "b"] {
            assert!(error(&db, name).starts_with("bond0: bond_mode balance-slb is not supported"));
            assert_eq!(ofport(&db, name), Some(-1));
        }
        set(&db, "Port", "bond0", json!({"bond_mode": "active-backup"}));
        reconciler.run_once(&db).await;
        assert_eq!((error(&db, "a").as_str(), ofport(&db, "a").is_some_and(|n| n > 0)), ("", true));
    });
}
