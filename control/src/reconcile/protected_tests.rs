//! Protected tunnels in the state and in their rows, before IKE has said anything.

use std::cell::RefCell;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use datapath::port::{InUdp, RxRoad};
use datapath::snapshot::{PortKind, Snapshot};
use ovsdb::Server;
use serde_json::{Value, json};

use super::Reconciler;
use super::testing::*;
use crate::devices::testing::{in_namespace, ip};

const FAR: &str = "192.0.2.1";

fn host() {
    ip("link add eth0 type veth peer name peer0
        link set eth0 up
        link set peer0 up
        addr add 192.0.2.9/24 dev eth0");
}

fn gre(kind: &str, more: &[(&str, &str)]) -> Value {
    let options: Vec<(&str, &str)> = [("remote_ip", FAR)].into_iter().chain(more.iter().copied()).collect();
    json!({"type": kind, "options": map(&options)})
}

/// (ofport, error, link_state, status:ipsec)
fn seen(db: &RefCell<Server>, name: &str) -> (Option<i64>, String, String, Option<String>) {
    let row = row(db, "Interface", name);
    let ipsec = row.map_get("status", "ipsec").map(str::to_owned);
    (row.opt_int("ofport"), row.str("error").to_owned(), row.str("link_state").to_owned(), ipsec)
}

/// The policies that tunnels refer to, and whether each of them is there with nothing to send by.
fn policies(snapshot: &Snapshot) -> Vec<(String, Option<(IpAddr, bool)>)> {
    let tunnels = snapshot.ports.iter().flatten().filter_map(|port| match &port.kind {
        PortKind::Tunnel(tunnel) => Some((port.name.clone(), tunnel.policy)),
        PortKind::Local(_) | PortKind::Patch(_) => None,
    });
    let policy = |id| {
        let policy = snapshot.policy(id).expect("a policy that a tunnel refers to is there");
        (policy.remote, policy.outbound.is_some() || policy.may_send_plain)
    };
    tunnels.map(|(name, id)| (name, id.map(policy))).collect()
}

fn published(reconciler: &Reconciler) -> Vec<(String, Option<(IpAddr, bool)>)> {
    policies(&reconciler.datapath.snapshot())
}

#[test]
fn a_tunnel_that_asks_is_protected_from_its_first_snapshot_on() {
    let far: IpAddr = FAR.parse().unwrap();
    let vxlan = RxRoad::InUdp(InUdp::Vxlan(4789));
    for (kind, plain, clear) in
        [("gre", "gre", RxRoad::Gre), ("ipsec_gre", "gre", RxRoad::Gre), ("vxlan", "vxlan", vxlan)]
    {
        in_namespace(async move {
            host();
            let db = database();
            let mut reconciler = reconciler().await;
            add_br(&db, "br0", json!({}));
            add_port(&db, "br0", "gre0", gre(kind, &[("psk", "swordfish")]), json!({}));
            reconciler.run_once(&db).await;
            assert_eq!(seen(&db, "gre0"), (Some(1), String::new(), "down".into(), Some("connecting".into())));
            assert_eq!(published(&reconciler), [("gre0".into(), Some((far, false)))]);
            let sockets = |reconciler: &Reconciler| {
                reconciler.state().borrow().underlays.iter().map(|u| u.road()).collect::<Vec<_>>()
            };
            assert_eq!(sockets(&reconciler), [clear, RxRoad::Esp, RxRoad::Udp]);

            // half of a row that is being changed
            set_interface(&db, "gre0", gre(kind, &[("psk", "")]));
            reconciler.run_once(&db).await;
            let (ofport, error, ..) = seen(&db, "gre0");
            assert_eq!(ofport, Some(-1));
            assert!(error.starts_with("gre0: "), "{error}");
            assert_eq!(published(&reconciler), []);

            // no more IPsec: only the row can say so
            set_interface(&db, "gre0", gre(plain, &[]));
            reconciler.run_once(&db).await;
            for _ in 0..100 {
                if !seen(&db, "gre0").1.contains("is taken") {
                    break;
                }
                // a program that another test starts meanwhile has a copy of every socket for a moment
                tokio::time::sleep(Duration::from_millis(50)).await;
                reconciler.run_once(&db).await;
            }
            assert_eq!(seen(&db, "gre0"), (Some(1), String::new(), "up".into(), None));
            assert_eq!(published(&reconciler), [("gre0".into(), None)]);

            // and in place back again
            set_interface(&db, "gre0", gre(kind, &[("psk", "x")]));
            reconciler.run_once(&db).await;
            assert_eq!(published(&reconciler), [("gre0".into(), Some((far, false)))]);
            del_port(&db, "br0", "gre0");
            reconciler.run_once(&db).await;
            assert_eq!(sockets(&reconciler), [RxRoad::Udp], "farewells are still to be sent");
        });
    }
}

#[test]
fn secrets_in_files_may_come_late_and_change() {
    in_namespace(async {
        host();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("psk");
        let file = path.to_str().unwrap();
        let db = database();
        let mut reconciler = reconciler().await;
        add_br(&db, "br0", json!({}));
        add_port(&db, "br0", "gre0", gre("gre", &[("psk_file", file)]), json!({}));
        // nor does it make way for a plain one to the same host
        add_port(&db, "br0", "gre1", gre("gre", &[]), json!({}));
        reconciler.run_once(&db).await;
        let absent = format!("gre0: cannot read {file}: No such file or directory");
        assert_eq!(seen(&db, "gre0"), (Some(-1), absent, String::new(), None));
        assert!(error(&db, "gre1").contains("File exists"));
        assert_eq!(published(&reconciler), []);

        std::fs::write(&path, "swordfish\n").unwrap();
        reconciler.tick(&db).await;
        assert_eq!(seen(&db, "gre0"), (Some(1), String::new(), "down".into(), Some("connecting".into())));

        std::fs::write(&path, "\n").unwrap();
        reconciler.follow_due = Instant::now();
        reconciler.tick(&db).await;
        let (ofport, error, ..) = seen(&db, "gre0");
        assert_eq!((ofport, error), (Some(1), format!("gre0: {file}: the pre-shared key is empty")));
        std::fs::write(&path, "haddock\n").unwrap();
        reconciler.follow_due = Instant::now();
        reconciler.tick(&db).await;
        assert_eq!(seen(&db, "gre0"), (Some(1), String::new(), "down".into(), Some("connecting".into())));
    });
}

#[test]
fn tunnels_between_two_hosts_share_a_policy_or_are_refused() {
    in_namespace(async {
        host();
        let db = database();
        let mut reconciler = reconciler().await;
        add_br(&db, "br0", json!({}));
        for (name, key, psk) in [("gre0", "1", "x"), ("gre1", "2", "x"), ("gre2", "3", "y")] {
            add_port(&db, "br0", name, gre("gre", &[("key", key), ("psk", psk)]), json!({}));
        }
        add_port(&db, "br0", "gre3", gre("gre", &[("key", "4")]), json!({}));
        for (name, kind) in [("vx0", "vxlan"), ("zn0", "geneve")] {
            add_port(&db, "br0", name, gre(kind, &[("psk", "x")]), json!({}));
        }
        reconciler.run_once(&db).await;
        assert_eq!(error(&db, "gre0") + &error(&db, "gre1") + &error(&db, "gre3"), "");
        assert!(error(&db, "gre2").starts_with("gre2: its IPsec options differ from those of gre0"));
        let policy = |name: &str| reconciler.tunnel_of("br0", name).unwrap().policy;
        assert_eq!((policy("gre0"), policy("gre3")), (policy("gre1"), None));

        let kinds = [policy("gre0"), policy("vx0"), policy("zn0")];
        let distinct: std::collections::BTreeSet<_> = kinds.iter().flatten().collect();
        assert_eq!(distinct.len(), 3, "each kind has SAs of its own");

        // the address that we leave by is another: another pair
        let before = policy("gre0");
        ip("addr add 192.0.2.10/24 dev eth0
            route replace 192.0.2.1 dev eth0 src 192.0.2.10");
        reconciler.run_once(&db).await;
        let policy = |name: &str| reconciler.tunnel_of("br0", name).unwrap().policy;
        assert_eq!(policy("gre0"), policy("gre1"));
        assert_ne!(policy("gre0"), before);
        let state = reconciler.state();
        let local = state.borrow().sas.pair(policy("gre0").unwrap()).unwrap().key.local;
        assert_eq!(local, Some("192.0.2.10".parse().unwrap()));
    });
}

/// Until a pass takes it away a tunnel may stand that has no row any more, and others may come meanwhile.
#[test]
fn a_tunnel_that_outlives_its_row_does_not_go_by_the_policy_of_another() {
    in_namespace(async {
        host();
        let db = database();
        let mut reconciler = reconciler().await;
        add_br(&db, "br0", json!({}));
        add_port(&db, "br0", "gre0", gre("gre", &[("psk", "x")]), json!({}));
        reconciler.run_once(&db).await;
        del_port(&db, "br0", "gre0");
        reconciler.follow_paths(&db).await;
        let careless = [("remote_ip", "192.0.2.2"), ("psk", "y"), ("plaintext", "allow")];
        add_port(&db, "br0", "gre1", json!({"type": "gre", "options": map(&careless)}), json!({}));
        reconciler.follow_paths(&db).await;
        let standing = reconciler.tunnel_of("br0", "gre0").unwrap();
        let snapshot = reconciler.datapath.snapshot();
        assert!(snapshot.policies.iter().flatten().any(|policy| policy.may_send_plain));
        assert!(snapshot.way(&standing).is_err());
    });
}

#[test]
fn another_ike_daemon_on_the_host_is_named() {
    for port in [500, 4500] {
        in_namespace(async move {
            host();
            let db = database();
            let mut reconciler = reconciler().await;
            add_br(&db, "br0", json!({}));
            let other = std::net::UdpSocket::bind(("0.0.0.0", port)).unwrap();
            add_port(&db, "br0", "gre0", gre("gre", &[("psk", "x")]), json!({}));
            reconciler.run_once(&db).await;
            let (ofport, error, link, _) = seen(&db, "gre0");
            assert!(ofport.is_some_and(|n| n > 0) && link == "down", "{ofport:?} {link}");
            assert!(error.contains(&format!("another program has UDP port {port}")), "{error}");
            drop(other);
            let deadline = Instant::now() + Duration::from_secs(20);
            while !self::error(&db, "gre0").is_empty() {
                assert!(Instant::now() < deadline, "{}", self::error(&db, "gre0"));
                reconciler.tick(&db).await;
            }
            del_port(&db, "br0", "gre0");
            reconciler.run_once(&db).await;
            let deadline = Instant::now() + Duration::from_secs(20);
            while !reconciler.state().borrow().underlays.is_empty() {
                assert!(Instant::now() < deadline, "sockets stay open");
                tokio::time::sleep(Duration::from_millis(100)).await;
                reconciler.tick(&db).await;
            }
        });
    }
}

#[test]
fn what_operators_see_of_a_tunnel_without_a_peer() {
    in_namespace(async {
        let db = database();
        let mut reconciler = reconciler().await;
        add_br(&db, "br0", json!({}));
        let shown = |reconciler: &Reconciler| reconciler.ipsec.tunnels_show(db.borrow().db());
        reconciler.run_once(&db).await;
        assert_eq!(shown(&reconciler), "No tunnels configured with IPsec");
        let options = [("psk", "swordfish"), ("ipsec_encapsulation", "yes"), ("ipsec_lifetime", "1h")];
        add_port(&db, "br0", "gre0", gre("ipsec_gre", &options), json!({}));
        reconciler.run_once(&db).await;
        assert_eq!(error(&db, "gre0"), "gre0: there is no route to 192.0.2.1");
        assert_eq!(
            shown(&reconciler),
            "Interface name: gre0 v1 (CONFIGURED)
  Tunnel Type:    gre
  Local IP:       %defaultroute
  Remote IP:      192.0.2.1
  Address Family: IPv4
  SKB mark:       None
  Local cert:     None
  Local name:     None
  Local key:      None
  Remote cert:    None
  Remote name:    None
  CA cert:        None
  PSK:            (hidden)
  Custom Options: {'encapsulation': 'yes', 'lifetime': '1h'}
  Ofport:         1
  CFM state:      Disabled
Kernel policies installed:
Kernel security associations installed:
IPsec connections that are active:

"
        );
        host();
        reconciler.run_once(&db).await;
        assert_eq!(seen(&db, "gre0"), (Some(1), String::new(), "down".into(), Some("connecting".into())));
        assert!(shown(&reconciler).contains("  src 192.0.2.9/32 dst 192.0.2.1/32 proto gre\n"));
        let status = reconciler.ipsec.status(None).unwrap();
        assert!(status.starts_with(
            "Tunnel gre0
  Hosts:          192.0.2.9 - 192.0.2.1
  State:          connecting
  Authentication: pre-shared key
  Last error:     none
  IKE SA "
        ));
        assert!(reconciler.ipsec.status(Some("gre1")).is_err());

        let more = [("psk", "swordfish"), ("remote_cert", "/x")];
        set_interface(&db, "gre0", gre("gre", &more));
        reconciler.run_once(&db).await;
        let why = ": 'certificate', 'private_key', 'ca_cert', 'remote_cert', and 'remote_name' must be unset with PSK";
        assert!(shown(&reconciler).starts_with(&format!("Interface name: gre0 v2 (INVALID{why})\n")));
        assert_eq!(error(&db, "gre0"), format!("gre0{why}"));
        assert_eq!(reconciler.ipsec.status(None).unwrap(), "No tunnel asks for IPsec");
    });
}

#[test]
fn gre_in_udp_is_a_plain_tunnel_with_sockets_of_its_own() {
    in_namespace(async {
        host();
        let db = database();
        let mut reconciler = reconciler().await;
        let sockets = |reconciler: &Reconciler| {
            reconciler.state().borrow().underlays.iter().map(|u| u.road()).collect::<Vec<_>>()
        };
        add_br(&db, "br0", json!({}));
        // another program has the port
        let taken = std::net::UdpSocket::bind(("0.0.0.0", 4754)).unwrap();
        add_port(&db, "br0", "gre0", gre("gre", &[("encapsulation", "udp")]), json!({}));
        reconciler.run_once(&db).await;
        assert_eq!(seen(&db, "gre0").0, Some(-1));
        assert!(error(&db, "gre0").contains("UDP port 4754 is taken"), "{}", error(&db, "gre0"));
        drop(taken);
        reconciler.tick(&db).await;
        assert_eq!(seen(&db, "gre0"), (Some(1), String::new(), "up".into(), None));
        assert_eq!(published(&reconciler), [("gre0".into(), None)]);
        assert_eq!(sockets(&reconciler), [RxRoad::InUdp(InUdp::Gre)]);

        // one beside it in IP alone
        add_port(&db, "br0", "gre1", gre("gre", &[]), json!({}));
        reconciler.run_once(&db).await;
        assert_eq!(seen(&db, "gre1"), (Some(2), String::new(), "up".into(), None));
        assert_eq!(sockets(&reconciler), [RxRoad::InUdp(InUdp::Gre), RxRoad::Gre]);
        del_port(&db, "br0", "gre1");

        // with IPsec it is how ESP travels
        let psk = [("encapsulation", "udp"), ("psk", "x")];
        set_interface(&db, "gre0", gre("gre", &psk));
        reconciler.run_once(&db).await;
        assert_eq!(published(&reconciler), [("gre0".into(), Some((FAR.parse().unwrap(), false)))]);
        assert_eq!(sockets(&reconciler), [RxRoad::Gre, RxRoad::Esp, RxRoad::Udp]);

        for (word, want) in
            [("esp", "must choose"), ("gue", "'encapsulation' 'gue' is none of 'esp', 'udp' and 'auto'")]
        {
            set_interface(&db, "gre0", gre("gre", &[("encapsulation", word)]));
            reconciler.run_once(&db).await;
            assert_eq!(seen(&db, "gre0").0, Some(-1));
            assert!(error(&db, "gre0").contains(want), "{}", error(&db, "gre0"));
        }
    });
}
