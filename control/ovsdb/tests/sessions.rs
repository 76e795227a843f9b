//! Several clients at once: waits, locks, notifications and bad manners.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests are tests too

use ovsdb::{Database, MAX_DEPTH, MAX_MESSAGE, NoJournal, Server, SessionError, SessionId};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

struct Clients {
    server: Server,
    now: Instant,
}

impl Clients {
    fn new() -> Clients {
        Clients { server: Server::new(Database::open_vswitch(), Box::new(NoJournal)), now: Instant::now() }
    }

    fn connect(&mut self) -> SessionId {
        self.server.connect()
    }

    fn send(&mut self, session: SessionId, method: &str, params: Value, id: Value) {
        let request = json!({ "method": method, "params": params, "id": id }).to_string();
        self.server.receive(session, request.as_bytes(), self.now).unwrap();
    }

    fn transact(&mut self, session: SessionId, id: u32, mut operations: Value) {
        operations.as_array_mut().unwrap().insert(0, json!("Open_vSwitch"));
        self.send(session, "transact", operations, json!(id));
    }

    fn received(&mut self) -> Vec<(SessionId, Value)> {
        let messages = std::iter::from_fn(|| self.server.poll_transmit());
        messages.map(|message| (message.session, serde_json::from_slice(&message.bytes).unwrap())).collect()
    }

    fn pass(&mut self, ms: u64) {
        self.now += Duration::from_millis(ms);
        self.server.handle_timeout(self.now);
    }
}

fn wait_for_cur_cfg(value: i64, timeout: Option<u64>) -> Value {
    let mut wait = json!({ "op": "wait", "table": "Open_vSwitch", "where": [], "columns": ["cur_cfg"], "until": "==",
        "rows": [{ "cur_cfg": value }] });
    if let Some(timeout) = timeout {
        wait["timeout"] = json!(timeout);
    }
    wait
}

fn set_cur_cfg(value: i64) -> Value {
    json!({ "op": "update", "table": "Open_vSwitch", "where": [], "row": { "cur_cfg": value } })
}

fn result(id: u32, result: Value) -> Value {
    json!({ "id": id, "result": result, "error": null })
}

#[test]
fn a_wait_is_answered_when_its_rows_are_there() {
    let mut clients = Clients::new();
    let (waiting, other) = (clients.connect(), clients.connect());
    clients.transact(waiting, 1, json!([wait_for_cur_cfg(5, None), { "op": "comment", "comment": "" }]));
    clients.transact(waiting, 2, json!([]));
    assert_eq!(clients.received(), [(waiting, result(2, json!([])))], "later requests overtake a wait");
    assert_eq!(clients.server.poll_timeout(), None);
    clients.transact(other, 1, json!([set_cur_cfg(4)]));
    assert_eq!(clients.received(), [(other, result(1, json!([{ "count": 1 }])))]);
    clients.transact(other, 2, json!([set_cur_cfg(5)]));
    let expected = [(other, result(2, json!([{ "count": 1 }]))), (waiting, result(1, json!([{}, {}])))];
    assert_eq!(clients.received(), expected);
}

#[test]
fn waits_that_wait_for_each_other_all_end() {
    let mut clients = Clients::new();
    let session = clients.connect();
    for n in (1..5).rev() {
        clients.transact(session, n as u32, json!([wait_for_cur_cfg(n, None), set_cur_cfg(n + 1)]));
    }
    assert_eq!(clients.received(), []);
    clients.server.transact(&json!([set_cur_cfg(1)]), clients.now);
    let ids: Vec<Value> = clients.received().into_iter().map(|(_, reply)| reply["id"].clone()).collect();
    assert_eq!(ids, [1, 2, 3, 4]);
    assert_eq!(clients.server.db().rows("Open_vSwitch").next().unwrap().1.int("cur_cfg"), 5);
}

#[test]
fn a_wait_times_out_and_undoes_what_came_before_it() {
    let mut clients = Clients::new();
    let session = clients.connect();
    clients.transact(session, 1, json!([set_cur_cfg(9), wait_for_cur_cfg(5, Some(500))]));
    assert_eq!(clients.server.poll_timeout(), Some(clients.now + Duration::from_millis(500)));
    clients.pass(499);
    assert_eq!(clients.received(), []);
    clients.pass(1);
    let error = json!({ "error": "timed out", "details": "\"wait\" timed out after 500 ms" });
    assert_eq!(clients.received(), [(session, result(1, json!([{ "count": 1 }, error])))]);
    assert_eq!(clients.server.poll_timeout(), None);
    assert_eq!(clients.server.db().rows("Open_vSwitch").next().unwrap().1.int("cur_cfg"), 0);
}

#[test]
fn a_wait_can_be_canceled_and_dies_with_its_session() {
    let mut clients = Clients::new();
    let session = clients.connect();
    clients.transact(session, 1, json!([wait_for_cur_cfg(5, None)]));
    clients.transact(session, 1, json!([]));
    assert_eq!(clients.received(), [(session, json!({ "id": 1, "error": "duplicate request ID" }))]);
    clients.send(session, "cancel", json!([2]), Value::Null);
    clients.send(session, "cancel", json!([1]), Value::Null);
    assert_eq!(clients.received(), [(session, json!({ "id": 1, "error": "canceled" }))]);
    clients.transact(session, 1, json!([wait_for_cur_cfg(5, None), set_cur_cfg(6)]));
    clients.server.disconnect(session);
    clients.server.transact(&json!([set_cur_cfg(5)]), clients.now);
    assert_eq!(clients.received(), []);
    assert_eq!(clients.server.db().rows("Open_vSwitch").next().unwrap().1.int("cur_cfg"), 5);
}

#[test]
fn the_program_itself_never_waits() {
    let mut clients = Clients::new();
    let reply = clients.server.transact(&json!([wait_for_cur_cfg(5, None)]), clients.now);
    assert_eq!(reply, [json!({ "error": "timed out", "details": "\"where\" clause test failed" })]);
}

#[test]
fn locks_queue_move_on_and_are_stolen() {
    let mut clients = Clients::new();
    let (a, b, c) = (clients.connect(), clients.connect(), clients.connect());
    let locked = |locked: bool| result(1, json!({ "locked": locked }));
    let told = |method| json!({ "id": null, "method": method, "params": ["x"] });
    let assert_lock = json!([{ "op": "assert", "lock": "x" }]);
    clients.send(a, "lock", json!(["x"]), json!(1));
    clients.send(b, "lock", json!(["x"]), json!(1));
    assert_eq!(clients.received(), [(a, locked(true)), (b, locked(false))]);
    clients.send(c, "steal", json!(["x"]), json!(1));
    assert_eq!(clients.received(), [(a, told("stolen")), (c, locked(true))]);
    clients.transact(c, 2, assert_lock.clone());
    clients.transact(a, 2, assert_lock.clone());
    let refused = json!([{ "error": "not owner", "details": "Asserted lock x not held." }]);
    assert_eq!(clients.received(), [(c, result(2, json!([{}]))), (a, result(2, refused))]);
    // The victim is out of the queue, and has to say that it knows before it may queue again.
    clients.server.disconnect(c);
    assert_eq!(clients.received(), [(b, told("locked"))]);
    clients.send(a, "unlock", json!(["x"]), json!(3));
    clients.send(a, "lock", json!(["x"]), json!(1));
    assert_eq!(clients.received(), [(a, result(3, json!({}))), (a, locked(false))]);
    clients.send(b, "unlock", json!(["x"]), json!(3));
    assert_eq!(clients.received(), [(a, told("locked")), (b, result(3, json!({})))]);
}

#[test]
fn the_notification_comes_before_the_reply() {
    let mut clients = Clients::new();
    let (own, other) = (clients.connect(), clients.connect());
    for session in [own, other] {
        clients.send(
            session,
            "monitor",
            json!(["Open_vSwitch", null, { "Open_vSwitch": { "columns": ["cur_cfg"] } }]),
            json!(0),
        );
    }
    clients.received();
    clients.transact(own, 1, json!([set_cur_cfg(3)]));
    let kinds: Vec<(SessionId, bool)> =
        clients.received().into_iter().map(|(session, message)| (session, message["id"].is_null())).collect();
    assert_eq!(kinds, [(own, true), (other, true), (own, false)]);
}

#[test]
fn what_is_no_json_rpc_ends_the_session() {
    let deep = "[".repeat(100_000);
    let long = format!("{{\"a\":\"{}", "x".repeat(MAX_MESSAGE));
    for (bytes, complaint) in [
        ("[]", "does not begin with"),
        ("GET / HTTP/1.1\r\n", "does not begin with"),
        ("{]", "key must be a string"),
        ("{\"method\":5,\"params\":[],\"id\":1}", "not a string"),
        ("{\"method\":\"echo\",\"params\":{},\"id\":1}", "not an array"),
        ("{\"params\":[]}", "no \"method\""),
        ("{\"method\":\"echo\",\"params\":[\"\\ud800\"],\"id\":1}", "hex escape"),
        (&format!("{{\"a\":{deep}"), "levels deep"),
        (&long, "bytes"),
    ] {
        let mut server = Server::new(Database::open_vswitch(), Box::new(NoJournal));
        let session = server.connect();
        let error = server.receive(session, bytes.as_bytes(), Instant::now()).unwrap_err();
        assert!(error.to_string().contains(complaint), "{error}");
    }
}

#[test]
fn nesting_up_to_the_limit_is_read() {
    let mut clients = Clients::new();
    let session = clients.connect();
    let levels = MAX_DEPTH - 1;
    let request =
        format!("{{\"method\":\"echo\",\"id\":1,\"params\":{}{}}}", "[".repeat(levels), "]".repeat(levels));
    clients.server.receive(session, request.as_bytes(), clients.now).unwrap();
    assert_eq!(clients.received().len(), 1);
}

#[test]
fn one_session_cannot_hoard() {
    let mut clients = Clients::new();
    let session = clients.connect();
    for n in 0..1000 {
        clients.send(session, "monitor", json!(["Open_vSwitch", n, {}]), json!(n));
        clients.send(session, "lock", json!([format!("l{n}")]), json!(n));
        clients.transact(session, 5000 + n, json!([wait_for_cur_cfg(1, None)]));
    }
    let refused =
        clients.received().into_iter().filter(|(_, reply)| reply["error"]["error"] == "resources exhausted");
    assert_eq!(refused.count(), 3 * (1000 - 256));
}

#[test]
fn a_closed_session_is_unknown() {
    let mut clients = Clients::new();
    let session = clients.connect();
    clients.server.disconnect(session);
    let result = clients.server.receive(session, b"{}", clients.now);
    assert!(matches!(result, Err(SessionError::Unknown)));
}

/// What ovs-vsctl does for each of many tunnels, with one client listening; each costs what it touches.
#[test]
fn a_thousand_tunnels() {
    let mut clients = Clients::new();
    let listener = clients.connect();
    clients.send(
        listener,
        "monitor_cond",
        json!(["Open_vSwitch", 0, {
        "Bridge": [{ "columns": ["name", "ports"] }], "Interface": [{ "columns": ["name", "options"] }] }]),
        json!(0),
    );
    let session = clients.connect();
    clients.transact(
        session,
        0,
        json!([
        { "op": "insert", "table": "Bridge", "uuid-name": "b", "row": { "name": "br0" } },
        { "op": "update", "table": "Open_vSwitch", "where": [], "row": { "bridges": ["named-uuid", "b"] } }]),
    );
    clients.received();
    let (bridge, _) = clients.server.db().rows("Bridge").next().unwrap();
    for n in 1..=1000 {
        let name = format!("gre{n}");
        clients.transact(
            session,
            n,
            json!([
            { "op": "insert", "table": "Interface", "uuid-name": "i", "row": { "name": name, "type": "gre",
                "options": ["map", [["remote_ip", format!("10.0.{}.{}", n / 250, n % 250 + 1)]]] } },
            { "op": "insert", "table": "Port", "uuid-name": "p",
                "row": { "name": name, "interfaces": ["named-uuid", "i"] } },
            { "op": "mutate", "table": "Bridge", "where": [["_uuid", "==", ["uuid", bridge.to_string()]]],
                "mutations": [["ports", "insert", ["named-uuid", "p"]]] }]),
        );
        let messages = clients.received();
        assert_eq!(messages.len(), 2);
        assert!(messages[0].1.to_string().len() < 500, "an update tells the difference alone");
    }
    assert_eq!(clients.server.db().rows("Interface").count(), 1000);
    clients.transact(
        session,
        2000,
        json!([{ "op": "update", "table": "Open_vSwitch", "where": [],
        "row": { "bridges": ["set", []] } }]),
    );
    assert_eq!(clients.server.db().rows("Interface").count(), 0);
}
