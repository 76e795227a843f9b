//! From rows to columns, on tunnels that lead nowhere.

use std::net::Ipv4Addr;

use datapath::fdb::Fdb;
use datapath::snapshot::{BridgeId, PortKind};
use datapath::tunnel::{Tunnel, TunnelConfig};
use ovsdb::Server;
use rstp::bpdu::{Bpdu, Flags, Message};
use rstp::{BridgeId as Id, PortId as Number, Priority, Times};
use serde_json::json;

use super::*;
use crate::reconcile::actual::PortState;
use crate::reconcile::testing::{add_br, add_port, database, map, row, set};

struct Lab {
    db: RefCell<Server>,
    spanning: Spanning,
}

impl Lab {
    /// br0 with two tunnels, both up.
    fn new(bridge: serde_json::Value) -> Lab {
        let db = database();
        add_br(&db, "br0", bridge);
        let state = State::default();
        let fdb = Arc::new(Fdb::new(16, 300));
        let mut br0 = BridgeState::new(BridgeId(0), fdb.clone(), false);
        for (i, name) in ["gre0", "gre1"].into_iter().enumerate() {
            let remote = Ipv4Addr::new(192, 0, 2, i as u8 + 1);
            add_port(&db, "br0", name, json!({"type": "gre"}), json!({}));
            let tunnel = Tunnel::new(TunnelConfig::to(remote.into()), None, 1500);
            let kind = PortKind::Tunnel(Arc::new(tunnel));
            let port = Port::new(PortId(i as u16), BridgeId(0), i as u16 + 1, name, kind);
            let port = PortState::new(Arc::new(port), Attachment::Tunnel, fdb.clone());
            br0.ports.insert(name.into(), port);
        }
        let state = Rc::new(RefCell::new(state));
        state.borrow_mut().bridges.insert("br0".into(), br0);
        let datapath = Rc::new(Datapath::start(1).unwrap());
        let lab = Lab { db, spanning: Spanning::new(datapath, state) };
        lab.follow();
        lab
    }

    fn follow(&self) {
        self.spanning.look(self.db.borrow().db());
        self.spanning.follow(&Links::default(), "host");
        let path = |name: &str| {
            let path =
                Path { source: None, mtu: 1500, ifindex: 1, link: "u0".into(), gateway: None, carrier: true };
            ("br0".to_owned(), name.to_owned(), Some(path))
        };
        self.spanning.hear(&Links::default(), &[path("gre0"), path("gre1")], &BTreeMap::new());
    }

    async fn carry_out(&self) {
        self.spanning.carry_out().await;
        let updates = self.spanning.columns(self.db.borrow().db());
        self.db.borrow_mut().update_rows(&updates, std::time::Instant::now()).unwrap();
    }

    fn states(&self) -> [StpState; 2] {
        let state = self.spanning.state.borrow();
        ["gre0", "gre1"].map(|name| state.bridges["br0"].ports[name].port.stp)
    }

    fn port(&self, name: &str, column: &str, key: &str) -> String {
        row(&self.db, "Port", name).map_get(column, key).unwrap_or_default().to_owned()
    }
}

/// What the port of a better bridge says.
fn better() -> Vec<u8> {
    let root = Id::new(0x1000, [2, 0, 0, 0, 0, 1]);
    let priority = Priority { root, cost: 0, bridge: root, port: Number(0x8001) };
    let flags = Flags { proposal: true, ..Flags::NONE };
    Bpdu::Rapid(Message { priority, times: Times::default(), flags }).encode()
}

#[tokio::test]
async fn a_proposal_is_agreed_to_and_seen() {
    use StpState::{Blocking, Forwarding};
    let lab = Lab::new(json!({"rstp_enable": true}));
    assert_eq!(lab.spanning.first_state("br0", "gre0"), Blocking);
    assert_eq!(lab.spanning.first_state("br0", "br0"), Forwarding);
    lab.carry_out().await;
    assert_eq!(lab.states(), [Blocking, Blocking]);
    assert!(lab.spanning.show(Mode::Rstp, None).unwrap().contains("This bridge is the root"));
    lab.spanning.deliver(PortId(1), &better());
    lab.carry_out().await;
    assert_eq!(lab.states(), [Blocking, Forwarding]);
    let shown = lab.spanning.show(Mode::Rstp, Some("br0")).unwrap();
    for line in [
        "  stp-priority    4096\n  stp-system-id   02:00:00:00:00:01\n",
        "  root-port       gre1\n  root-path-cost  2000\n",
        "  Interface  Role       State      Cost     Pri.Nbr \n  ---------- ---------- ---------- -------- -------\n",
        "  gre0       Designated Discarding 2000     128.1\n  gre1       Root       Forwarding 2000     128.2\n\n",
    ] {
        assert!(shown.contains(line), "{shown}");
    }
    assert_eq!(lab.port("gre1", "rstp_status", "rstp_designated_bridge_id"), "1.000.020000000001");
    assert_eq!(lab.port("gre1", "rstp_status", "rstp_port_id"), "8002");
    let bridge = row(&lab.db, "Bridge", "br0");
    assert_eq!(bridge.map_get("rstp_status", "rstp_bridge_port_id"), Some("8002"));
    assert_eq!(lab.spanning.show(Mode::Stp, Some("br0")), Err(view::NoTree(Mode::Stp)));

    set(&lab.db, "Bridge", "br0", json!({"rstp_enable": false}));
    lab.follow();
    lab.carry_out().await;
    assert_eq!(lab.states(), [Forwarding, Forwarding]);
    assert_eq!(lab.port("gre1", "rstp_status", "rstp_port_id"), "");
    assert_eq!(lab.spanning.show(Mode::Rstp, None), Ok(String::new()));
}

#[tokio::test]
async fn stp_listens_first() {
    let lab = Lab::new(json!({"stp_enable": true}));
    lab.carry_out().await;
    let shown = lab.spanning.show(Mode::Stp, None).unwrap();
    assert!(shown.contains("  gre0       designated listening  2     128.1\n"), "{shown}");
    assert_eq!(lab.port("gre1", "status", "stp_port_id"), "32770");
    assert_eq!(lab.port("gre1", "rstp_status", "rstp_port_id"), "");
}

#[tokio::test]
async fn a_guard_shuts_its_port_until_it_is_taken_away() {
    let lab = Lab::new(json!({"rstp_enable": true}));
    set(&lab.db, "Port", "gre1", json!({"other_config": map(&[("bpdu-guard", "true")])}));
    lab.follow();
    for port in [0, 1] {
        lab.spanning.deliver(PortId(port), &better());
    }
    lab.carry_out().await;
    assert_eq!(lab.states(), [StpState::Forwarding, StpState::Disabled]);
    assert_eq!(lab.port("gre1", "rstp_status", "bpdu_guard"), "shut");
    assert_eq!(lab.port("gre1", "rstp_status", "rstp_port_role"), "Disabled");
    // still so when rows are looked at again
    lab.follow();
    lab.carry_out().await;
    assert_eq!(lab.states()[1], StpState::Disabled);
    set(&lab.db, "Port", "gre1", json!({"other_config": map(&[])}));
    lab.follow();
    lab.carry_out().await;
    assert_eq!(lab.states()[1], StpState::Blocking);
    assert_eq!(lab.port("gre1", "rstp_status", "bpdu_guard"), "");
}

#[tokio::test]
async fn a_tunnel_with_another_far_end_begins_anew() {
    use StpState::{Blocking, Forwarding};
    let lab = Lab::new(json!({"rstp_enable": true}));
    lab.spanning.deliver(PortId(1), &better());
    lab.carry_out().await;
    assert_eq!(lab.states(), [Blocking, Forwarding]);
    lab.follow();
    assert_eq!(lab.states(), [Blocking, Forwarding]);
    let lead = |name: &str, remote: [u8; 4]| {
        let mut state = lab.spanning.state.borrow_mut();
        let port = state.bridges.get_mut("br0").unwrap().ports.get_mut(name).unwrap();
        let tunnel = Tunnel::new(TunnelConfig::to(Ipv4Addr::from(remote).into()), None, 1500);
        port.port = Arc::new(Port { kind: PortKind::Tunnel(Arc::new(tunnel)), ..Port::clone(&port.port) });
        port.leads_since = Instant::now();
    };
    lead("gre1", [192, 0, 2, 9]);
    lab.follow();
    assert_eq!(lab.states(), [Blocking, Blocking]);
    lab.carry_out().await;
    assert!(lab.spanning.show(Mode::Rstp, None).unwrap().contains("This bridge is the root"));

    // What the datapath cannot take up is said to nobody until it can
    lead("gre1", [192, 0, 2, 1]);
    lab.follow();
    lab.spanning.deliver(PortId(0), &better());
    lab.carry_out().await;
    assert!(lab.spanning.owed.get());
    let sent = |lab: &Lab| lab.spanning.trees.borrow_mut().get_mut("br0").unwrap().engine.poll();
    let first = sent(&lab).unwrap();
    assert!(!matches!(first, rstp::Action::State(..)), "{first:?}");
    lab.spanning.trees.borrow_mut().get_mut("br0").unwrap().engine.defer(first);
    lead("gre1", [192, 0, 2, 9]);
    lab.follow();
    lab.carry_out().await;
    assert!(!lab.spanning.owed.get());
    assert_eq!(sent(&lab), None);
}
