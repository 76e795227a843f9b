//! Databases for tests, and what is written back into them.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Instant;

use datapath::handle::Datapath;
use ovsdb::{Database, Journal, NoJournal, Row, Server};
use serde_json::{Value, json};

use super::Reconciler;
use crate::ipsec::Ipsec;
use crate::spanning::Spanning;

/// A database as it is when the switch has just started for the first time.
pub fn database() -> RefCell<Server> {
    database_with(Box::new(NoJournal))
}

/// The same, with a journal that a test looks into.
pub fn database_with(journal: Box<dyn Journal>) -> RefCell<Server> {
    let db = RefCell::new(Server::new(Database::new(ovsdb::open_vswitch::schema()), journal));
    let empty = db.borrow().db().rows("Open_vSwitch").next().is_none();
    if empty {
        transact(&db, json!([{"op": "insert", "table": "Open_vSwitch", "row": {}}]));
    }
    db
}

/// Runs a transaction that must succeed.
pub fn transact(db: &RefCell<Server>, ops: Value) {
    let reply = db.borrow_mut().transact(&ops, Instant::now());
    assert!(!reply.iter().any(|r| r.get("error").is_some()), "{ops}: {reply:?}");
}

/// `ovs-vsctl add-br`, with more columns.
pub fn add_br(db: &RefCell<Server>, name: &str, columns: Value) {
    let mut bridge = json!({"name": name, "ports": ["named-uuid", "p"]});
    bridge.as_object_mut().unwrap().extend(columns.as_object().unwrap().clone());
    transact(
        db,
        json!([
            {"op": "insert", "table": "Interface", "uuid-name": "i", "row": {"name": name, "type": "internal"}},
            {"op": "insert", "table": "Port", "uuid-name": "p",
             "row": {"name": name, "interfaces": ["named-uuid", "i"]}},
            {"op": "insert", "table": "Bridge", "uuid-name": "b", "row": bridge},
            {"op": "mutate", "table": "Open_vSwitch", "where": [],
             "mutations": [["bridges", "insert", ["named-uuid", "b"]], ["next_cfg", "+=", 1]]},
        ]),
    );
}

/// `ovs-vsctl add-port`, with columns of the interface and of the port.
pub fn add_port(db: &RefCell<Server>, bridge: &str, name: &str, interface: Value, port: Value) {
    let mut rows = [interface, port];
    rows[0]["name"] = name.into();
    rows[1]["name"] = name.into();
    rows[1]["interfaces"] = json!(["named-uuid", "i"]);
    let [interface, port] = rows;
    transact(
        db,
        json!([
            {"op": "insert", "table": "Interface", "uuid-name": "i", "row": interface},
            {"op": "insert", "table": "Port", "uuid-name": "p", "row": port},
            {"op": "mutate", "table": "Bridge", "where": [["name", "==", bridge]],
             "mutations": [["ports", "insert", ["named-uuid", "p"]]]},
            {"op": "mutate", "table": "Open_vSwitch", "where": [], "mutations": [["next_cfg", "+=", 1]]},
        ]),
    );
}

/// `ovs-vsctl add-bond`, with columns of the port.
pub fn add_bond(db: &RefCell<Server>, bridge: &str, name: &str, members: &[&str], mut port: Value) {
    let insert = |(i, name): (usize, &&str)| json!({"op": "insert", "table": "Interface", "uuid-name": format!("i{i}"), "row": {"name": name}});
    let mut ops: Vec<Value> = members.iter().enumerate().map(insert).collect();
    let interfaces: Vec<Value> = (0..members.len()).map(|i| json!(["named-uuid", format!("i{i}")])).collect();
    port["name"] = name.into();
    port["interfaces"] = json!(["set", interfaces]);
    ops.extend([
        json!({"op": "insert", "table": "Port", "uuid-name": "p", "row": port}),
        json!({"op": "mutate", "table": "Bridge", "where": [["name", "==", bridge]],
               "mutations": [["ports", "insert", ["named-uuid", "p"]]]}),
        json!({"op": "mutate", "table": "Open_vSwitch", "where": [], "mutations": [["next_cfg", "+=", 1]]}),
    ]);
    transact(db, ops.into());
}

/// `ovs-vsctl del-port`.
pub fn del_port(db: &RefCell<Server>, bridge: &str, name: &str) {
    let port = db.borrow().db().rows("Port").find(|(_, r)| r.str("name") == name).unwrap().0;
    transact(
        db,
        json!([
            {"op": "mutate", "table": "Bridge", "where": [["name", "==", bridge]],
             "mutations": [["ports", "delete", ["uuid", port.to_string()]]]},
            {"op": "mutate", "table": "Open_vSwitch", "where": [], "mutations": [["next_cfg", "+=", 1]]},
        ]),
    );
}

/// `ovs-vsctl set Interface`.
pub fn set_interface(db: &RefCell<Server>, name: &str, columns: Value) {
    set(db, "Interface", name, columns);
}

/// `ovs-vsctl set`, by name.
pub fn set(db: &RefCell<Server>, table: &str, name: &str, columns: Value) {
    transact(
        db,
        json!([
            {"op": "update", "table": table, "where": [["name", "==", name]], "row": columns},
            {"op": "mutate", "table": "Open_vSwitch", "where": [], "mutations": [["next_cfg", "+=", 1]]},
        ]),
    );
}

/// A map column as JSON has it.
pub fn map(pairs: &[(&str, &str)]) -> Value {
    json!(["map", pairs])
}

/// The row of that name.
pub fn row(db: &RefCell<Server>, table: &str, name: &str) -> Row {
    db.borrow().db().rows(table).find(|(_, r)| r.str("name") == name).unwrap().1.clone()
}

/// The Open_vSwitch row.
pub fn root(db: &RefCell<Server>) -> Row {
    db.borrow().db().rows("Open_vSwitch").next().unwrap().1.clone()
}

/// The `error` of an interface, "" when there is none.
pub fn error(db: &RefCell<Server>, name: &str) -> String {
    row(db, "Interface", name).str("error").to_owned()
}

/// A reconciler with a datapath of its own.
pub async fn reconciler() -> Reconciler {
    let datapath = Rc::new(Datapath::start(1).unwrap());
    let ipsec = Rc::new(Ipsec::new(datapath.clone()));
    let spanning = Rc::new(Spanning::new(datapath.clone(), ipsec.state()));
    Reconciler::new(datapath, ipsec, spanning, "test", "identity", Rc::default()).await.unwrap()
}
