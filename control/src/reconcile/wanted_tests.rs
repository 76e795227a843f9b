use serde_json::{Value, json};

use super::*;
use crate::reconcile::testing::{add_br, add_port, database, map, set_interface};

fn what(interface: Value, port: Value) -> (Result<What, String>, Vec<String>) {
    let db = database();
    add_br(&db, "br0", json!({}));
    add_port(&db, "br0", "p0", interface, port);
    let mut wanted = Wanted::from_database(db.borrow().db());
    (wanted.bridges.get_mut("br0").unwrap().ports.remove("p0").unwrap().what, wanted.warnings)
}

#[test]
fn interface_types_and_what_becomes_of_them() {
    let system = |attach, take_address| Ok(What::System { attach, take_address });
    let direct = json!({"other_config": map(&[("attach", "direct")])});
    let take = json!({"other_config": map(&[("attach", "direct"), ("take-address", "true")])});
    let unsupported = |kind: &str| {
        Err(format!("could not open network device p0 (type '{kind}' is not supported by this version)"))
    };
    let tunnel = |protection| {
        let config = TunnelConfig::to("192.0.2.1".parse().unwrap());
        Ok(What::Tunnel(WantedTunnel { config, protection }))
    };
    for (interface, port, want) in [
        (json!({}), json!({}), system(Attach::Auto, false)),
        (json!({"type": "system"}), json!({}), system(Attach::Auto, false)),
        (direct.clone(), json!({}), system(Attach::Direct, false)),
        (json!({}), direct, system(Attach::Direct, false)),
        (take.clone(), json!({}), system(Attach::Direct, true)),
        (json!({}), take, system(Attach::Direct, true)),
        (json!({"other_config": map(&[("attach", "member")])}), json!({}), system(Attach::Auto, false)),
        (
            json!({"other_config": map(&[("attach", "bolted")])}),
            json!({}),
            Err("p0: other_config:attach 'bolted' is neither 'member' nor 'direct'".into()),
        ),
        (
            json!({"other_config": map(&[("take-address", "true")])}),
            json!({}),
            Err("p0: other_config:take-address needs other_config:attach=direct".into()),
        ),
        (json!({"type": "internal"}), json!({}), Ok(What::Internal { mac: None })),
        (
            json!({"type": "tap", "mac": "02:00:00:00:00:01"}),
            json!({}),
            Ok(What::Internal { mac: Some([2, 0, 0, 0, 0, 1]) }),
        ),
        (json!({"type": "gre"}), json!({}), Err("p0: gre type requires valid 'remote_ip' argument".into())),
        (json!({"type": "gre", "options": map(&[("remote_ip", "192.0.2.1")])}), json!({}), tunnel(None)),
        (
            json!({"type": "ipsec_gre", "options": map(&[("remote_ip", "192.0.2.1")])}),
            json!({}),
            tunnel(Some(Err("p0: IPsec requires a 'peer_cert' or 'psk' argument".into()))),
        ),
        (
            json!({"type": "gre", "options": map(&[("remote_ip", "192.0.2.1"), ("psk", "")])}),
            json!({}),
            tunnel(Some(Err("p0: must choose a authentication method".into()))),
        ),
        (
            json!({"type": "ipsec_gre", "options": map(&[("psk", "x")])}),
            json!({}),
            Err("p0: ipsec_gre type requires valid 'remote_ip' argument".into()),
        ),
        (
            json!({"type": "vxlan", "options": map(&[("remote_ip", "192.0.2.1")])}),
            json!({}),
            Ok(What::Tunnel(WantedTunnel {
                config: TunnelConfig {
                    in_udp: Some(datapath::port::InUdp::Vxlan(4789)),
                    ..TunnelConfig::to("192.0.2.1".parse().unwrap())
                },
                protection: None,
            })),
        ),
        (json!({"type": "stt"}), json!({}), unsupported("stt")),
        (json!({"type": "patch"}), json!({}), Err("p0: patch type requires valid 'peer' argument".into())),
        (
            json!({"type": "patch", "options": map(&[("peer", "p0")])}),
            json!({}),
            Err("p0: patch peer must not be self".into()),
        ),
        (
            json!({"type": "patch", "options": map(&[("peer", "p1")])}),
            json!({}),
            Ok(What::Patch { peer: "p1".into() }),
        ),
        (json!({"type": "nonsense"}), json!({}), unsupported("nonsense")),
        (json!({}), json!({"tag": 5}), system(Attach::Auto, false)),
    ] {
        assert_eq!(what(interface.clone(), port.clone()).0, want, "{interface} {port}");
    }
}

fn bond(columns: Value, second: Value) -> Wanted {
    let db = database();
    add_br(&db, "br0", json!({"rstp_enable": true}));
    let mut port =
        json!({"name": "bond0", "interfaces": ["set", [["named-uuid", "a"], ["named-uuid", "b"]]]});
    port.as_object_mut().unwrap().extend(columns.as_object().unwrap().clone());
    let mut b = json!({"name": "b"});
    b.as_object_mut().unwrap().extend(second.as_object().unwrap().clone());
    crate::reconcile::testing::transact(
        &db,
        json!([
            {"op": "insert", "table": "Interface", "uuid-name": "a", "row": {"name": "a"}},
            {"op": "insert", "table": "Interface", "uuid-name": "b", "row": b},
            {"op": "insert", "table": "Port", "uuid-name": "p", "row": port},
            {"op": "mutate", "table": "Bridge", "where": [],
             "mutations": [["ports", "insert", ["named-uuid", "p"]]]},
        ]),
    );
    Wanted::from_database(db.borrow().db())
}

#[test]
fn bonds_and_those_that_stay_down_for_they_would_loop() {
    let wanted = bond(json!({}), json!({}));
    let br0 = &wanted.bridges["br0"];
    assert_eq!(br0.bonds["bond0"].members, ["a", "b"].map(str::to_owned).into());
    for name in ["a", "b"] {
        let port = &br0.ports[name];
        assert_eq!((port.bond.as_deref(), port.what.is_ok()), (Some("bond0"), true));
    }
    assert_eq!(wanted.warnings, ["port bond0: cannot enable RSTP on bonds, disabling"]);
    let wanted = bond(json!({"bond_mode": "balance-slb"}), json!({}));
    let br0 = &wanted.bridges["br0"];
    for name in ["a", "b"] {
        let what = br0.ports[name].what.clone();
        assert!(what.is_err_and(|why| why.starts_with("bond0: bond_mode balance-slb is not")), "{name}");
    }
    assert!(br0.bonds.is_empty());
    let patch = json!({"type": "patch", "options": map(&[("peer", "x")])});
    let wanted = bond(json!({}), patch);
    assert!(wanted.bridges["br0"].ports["a"].what.is_ok());
    assert!(wanted.bridges["br0"].ports["b"].what.is_err());
}

#[test]
fn a_bridge_has_a_port_of_its_own_even_without_a_row() {
    let db = database();
    crate::reconcile::testing::transact(
        &db,
        json!([
            {"op": "insert", "table": "Bridge", "uuid-name": "b", "row": {"name": "br0"}},
            {"op": "update", "table": "Open_vSwitch", "where": [], "row": {"bridges": ["named-uuid", "b"]}},
        ]),
    );
    let wanted = Wanted::from_database(db.borrow().db());
    let own = &wanted.bridges["br0"].ports["br0"];
    assert_eq!((own.row, own.what.clone()), (None, Ok(What::Internal { mac: None })));
}

#[test]
fn bridge_settings_and_their_limits() {
    for (config, age, size) in [
        (json!({}), 300, 8192),
        (map_of("mac-aging-time", "60"), 60, 8192),
        (map_of("mac-aging-time", "1"), 15, 8192),
        (map_of("mac-aging-time", "99999"), 3600, 8192),
        (map_of("mac-aging-time", "0"), 300, 8192),
        (map_of("mac-aging-time", "soon"), 300, 8192),
        (map_of("mac-table-size", "1"), 300, 10),
        (map_of("mac-table-size", "99999999999"), 300, 1_000_000),
    ] {
        let db = database();
        add_br(&db, "br0", config.clone());
        let bridge = Wanted::from_database(db.borrow().db()).bridges.remove("br0").unwrap();
        assert_eq!((bridge.max_age, bridge.max_entries), (age, size), "{config}");
    }
}

fn map_of(key: &str, value: &str) -> Value {
    json!({"other_config": map(&[(key, value)])})
}

#[test]
fn what_is_not_there_is_said() {
    let db = database();
    let config = map(&[("hwaddr", "01:00:00:00:00:01")]);
    add_br(
        &db,
        "br0",
        json!({"stp_enable": true, "rstp_enable": true, "fail_mode": "secure", "other_config": config}),
    );
    let wanted = Wanted::from_database(db.borrow().db());
    assert_eq!(
        wanted.warnings,
        [
            "br0: RSTP and STP are mutually exclusive but both are configured; enabling RSTP",
            "br0: OpenFlow (fail_mode=secure) is not in this version; the bridge learns and forwards",
            "br0: hwaddr '01:00:00:00:00:01' is not a unicast Ethernet address",
        ]
    );
    let gre = map(&[("remote_ip", "192.0.2.1"), ("x", "1")]);
    let plain = |feature| format!("p0: {feature} is not in this version; the port works without");
    for (interface, port, want) in [
        (
            json!({"type": "gre", "options": gre, "mtu_request": 1400}),
            json!({}),
            vec!["p0: unknown gre argument 'x'".into(), plain("an MTU of a tunnel's own (mtu_request)")],
        ),
        (
            json!({"ingress_policing_rate": 1000, "lldp": map(&[("enable", "true")])}),
            json!({"lacp": "active"}),
            ["LLDP (lldp)", "LACP (lacp)"].map(plain).into(),
        ),
        (
            json!({"type": "internal", "mac": "01:00:5e:00:00:01"}),
            json!({}),
            vec!["p0: mac '01:00:5e:00:00:01' is not a unicast Ethernet address".into()],
        ),
    ] {
        let (what, warnings) = what(interface.clone(), port.clone());
        assert!(what.is_ok(), "{interface} {port}");
        assert_eq!(warnings, want, "{interface} {port}");
    }
}

#[test]
fn rows_of_other_tables_that_nobody_heeds_are_named() {
    let db = database();
    add_br(&db, "br0", json!({"datapath_type": "dpdk"}));
    add_port(&db, "br0", "p0", json!({}), json!({}));
    set_interface(&db, "br0", json!({"mac": "02:00:00:00:00:01"}));
    crate::reconcile::testing::transact(
        &db,
        json!([
            {"op": "insert", "table": "QoS", "uuid-name": "q", "row": {"type": "linux-htb"}},
            {"op": "update", "table": "Port", "where": [["name", "==", "p0"]],
             "row": {"qos": ["named-uuid", "q"]}},
            {"op": "insert", "table": "Manager", "uuid-name": "m", "row": {"target": "ptcp:6640"}},
            {"op": "update", "table": "Open_vSwitch", "where": [],
             "row": {"manager_options": ["named-uuid", "m"]}},
        ]),
    );
    let mut warnings = Wanted::from_database(db.borrow().db()).warnings;
    warnings.sort();
    let beginnings =
        ["br0: another datapath_type", "br0: the bridge's own port", "manager ptcp:6640:", "p0: QoS (qos)"];
    assert_eq!(warnings.len(), beginnings.len(), "{warnings:?}");
    for (warning, beginning) in warnings.iter().zip(beginnings) {
        assert!(warning.starts_with(beginning), "{warning}");
    }
}

#[test]
fn names_that_the_kernel_would_not_take() {
    for (name, good) in [
        ("eth0", true),
        ("fifteen-letters", true),
        ("sixteen-letters!", false),
        ("a/b", false),
        ("a b", false),
        ("..", false),
        ("", false),
    ] {
        assert_eq!(device_name(name).is_ok(), good, "{name}");
    }
}

#[test]
fn of_equal_tunnels_the_one_that_worked_stays() {
    let db = database();
    let gre = |pairs: &[(&str, &str)]| json!({"type": "gre", "options": map(pairs)});
    add_br(&db, "br0", json!({}));
    add_br(&db, "br1", json!({}));
    add_port(&db, "br0", "b", gre(&[("remote_ip", "192.0.2.1")]), json!({}));
    add_port(&db, "br1", "a", gre(&[("remote_ip", "192.0.2.1"), ("key", "0")]), json!({}));
    add_port(&db, "br1", "c", gre(&[("remote_ip", "192.0.2.1"), ("in_key", "1")]), json!({}));
    let works = |bridge: &str, name: &str| {
        let wanted = Wanted::from_database(db.borrow().db());
        wanted.bridges[bridge].ports[name].what.clone()
    };
    assert!(works("br1", "a").is_ok(), "first by name");
    assert_eq!(
        works("br0", "b"),
        Err("could not add network device b to ofproto (File exists): remote_ip, local_ip and key are those of a".into())
    );
    assert!(works("br1", "c").is_ok(), "another key");
    set_interface(&db, "a", json!({"ofport": -1}));
    set_interface(&db, "b", json!({"ofport": 4}));
    assert!(works("br0", "b").is_ok());
    assert!(works("br1", "a").is_err());
}
