//! What must hold for any value, any stream of bytes, any history of transactions.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests are tests too

use ovsdb::schema::{AtomType, ColumnType};
use ovsdb::{Atom, Database, Datum, Journal, NoJournal, Real, Server, SessionId, Uuid};
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;
use std::time::Instant;

fn atom(atom_type: AtomType) -> BoxedStrategy<Atom> {
    match atom_type {
        AtomType::Integer => prop_oneof![any::<i64>(), -3..4i64].prop_map(Atom::Integer).boxed(),
        AtomType::Real => any::<f64>().prop_filter_map("finite", Real::new).prop_map(Atom::Real).boxed(),
        AtomType::Boolean => any::<bool>().prop_map(Atom::Boolean).boxed(),
        AtomType::String => {
            prop_oneof!["[a-c]{0,2}", "[^\0]{0,20}"].prop_map(|s: String| Atom::from(s)).boxed()
        }
        AtomType::Uuid => {
            prop_oneof![any::<u128>(), 0..4u128].prop_map(|n| Atom::Uuid(Uuid::from_u128(n))).boxed()
        }
    }
}

fn atom_type() -> impl Strategy<Value = AtomType> {
    use AtomType::{Boolean, Integer, Real, String, Uuid};
    prop::sample::select(vec![Integer, Real, Boolean, String, Uuid])
}

/// A column type and two values of it.
fn column_and_values() -> impl Strategy<Value = (ColumnType, Datum, Datum)> {
    (atom_type(), prop::option::of(atom_type()), 0..3u32).prop_flat_map(|(key, value, size)| {
        let (min, max, range) = match size {
            0 => (1, 1, 1..=1),
            1 => (0, 1, 0..=1),
            _ => (0, u32::MAX, 0..=6),
        };
        let mut column = ColumnType { min, max, ..ColumnType::scalar(key) };
        column.value = value.map(|value| ColumnType::scalar(value).key);
        let datum = match value {
            None => vec(atom(key), range).prop_map(Datum::set).boxed(),
            Some(value) => vec((atom(key), atom(value)), range).prop_map(Datum::map).boxed(),
        };
        (Just(column), datum.clone(), datum)
    })
}

proptest! {
    #[test]
    fn a_datum_survives_json((column, datum, _) in column_and_values()) {
        let text = datum.to_json().to_string();
        let json: Value = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(Datum::from_json(&json, &column, None).unwrap(), datum.clone());
        if !column.is_map() {
            let spelled_out: Vec<Value> = datum.atoms().iter().map(Atom::to_json).collect();
            let again = Datum::from_json(&json!(["set", spelled_out]), &column, None);
            prop_assert_eq!(again.unwrap(), datum);
        }
    }

    #[test]
    fn a_difference_leads_from_old_to_new((column, old, new) in column_and_values()) {
        let diff = old.diff(&new, &column);
        let sent = Datum::from_json_unsized(&diff.to_json(), &column, None).unwrap();
        prop_assert_eq!(old.apply_diff(&sent, &column).unwrap(), new);
    }

    #[test]
    fn any_json_is_a_value_or_an_error(json in any_json(), (column, _, _) in column_and_values()) {
        if let Ok(datum) = Datum::from_json(&json, &column, None) {
            prop_assert_eq!(datum.check(&column), Ok(()));
        }
    }

    #[test]
    fn no_bytes_however_cut_upset_the_server(bytes in stream(), cuts in vec(any::<prop::sample::Index>(), 0..8)) {
        let whole = answers(&[&bytes]);
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        let pieces: Vec<&[u8]> = cuts.windows(2).map(|cut| &bytes[cut[0]..cut[1]]).collect();
        prop_assert_eq!(answers(&pieces), whole);
    }

    #[test]
    fn any_record_is_changes_or_an_error(operations in a_transaction(), spoilt in any_json()) {
        let memory = Memory::default();
        let mut server = Server::new(Database::open_vswitch(), Box::new(memory.clone()));
        server.transact(&json!(operations), Instant::now());
        let mut bytes = ovsdb::log::encode(&server.db().schema().to_json());
        bytes.extend(memory.0.borrow().iter());
        bytes.extend(ovsdb::log::encode(&json!({ "Bridge": { Uuid::from_u128(1).to_string(): { "ports": spoilt } } })));
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("conf.db");
        std::fs::write(&path, &bytes).unwrap();
        match ovsdb::open(&path, ovsdb::open_vswitch::schema()) {
            Ok((db, _)) => check_integrity(&db),
            Err(error) => prop_assert!(error.to_string().contains("does not fit the schema"), "{error}"),
        }
        prop_assert_eq!(std::fs::read(&path).unwrap(), bytes);
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let words = ["set", "map", "uuid", "named-uuid", "a", "00000000-0000-4000-8000-000000000001"];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-2..3i64).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        prop::sample::select(words.to_vec()).prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-c]", inner, 0..3)
                .prop_map(|members| Value::Object(members.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

/// Bytes that a client may send: requests, some of them spoilt.
fn stream() -> impl Strategy<Value = Vec<u8>> {
    let methods = [
        "transact",
        "monitor",
        "monitor_cond",
        "monitor_cond_since",
        "lock",
        "unlock",
        "steal",
        "echo",
        "monitor_cond_change",
        "monitor_cancel",
        "get_schema",
        "cancel",
        "set_db_change_aware",
    ];
    let operation = prop_oneof![any_json(), a_transaction().prop_map(|mut operations| operations.remove(0))];
    let params = vec(operation, 0..4).prop_map(|mut params| {
        params.insert(0, json!("Open_vSwitch"));
        params
    });
    let request =
        (prop::sample::select(methods.to_vec()), params, any_json()).prop_map(|(method, params, id)| {
            json!({ "id": id, "method": method, "params": params }).to_string().into_bytes()
        });
    let piece = prop_oneof![
        8 => request,
        1 => vec(any::<u8>(), 0..20),
        1 => any_json().prop_map(|json| json.to_string().into_bytes()),
        1 => Just(b" \n".to_vec()),
    ];
    vec(piece, 0..6).prop_map(|pieces| pieces.concat())
}

/// What a new server answers, up to its hanging up; without the UUIDs that it makes up.
fn answers(pieces: &[&[u8]]) -> Vec<String> {
    let mut server = Server::new(Database::open_vswitch(), Box::new(NoJournal));
    let session = server.connect();
    let mut answers = Vec::new();
    for piece in pieces {
        let result = server.receive(session, piece, Instant::now());
        answers.extend(
            std::iter::from_fn(|| server.poll_transmit()).map(|message| message.bytes.len().to_string()),
        );
        if let Err(error) = result {
            answers.push(error.to_string());
            break;
        }
    }
    answers
}

// Histories: transactions on a few tables with few names, so that they meet each other.

fn row_uuid(n: u128) -> Value {
    json!(["uuid", Uuid::from_u128(n).to_string()])
}

fn uuid_set() -> impl Strategy<Value = Value> {
    vec(0..6u128, 0..4).prop_map(|mut ns| {
        ns.sort_unstable();
        ns.dedup();
        json!(["set", ns.into_iter().map(row_uuid).collect::<Vec<_>>()])
    })
}

fn an_operation() -> impl Strategy<Value = Value> {
    let key = |n| prop::sample::select(vec!["a", "b", "c", "d", "e"][..n].to_vec());
    let strings = prop::collection::btree_map(key(3), key(3), 0..3)
        .prop_map(|pairs| json!(["map", pairs.into_iter().map(|(k, v)| json!([k, v])).collect::<Vec<_>>()]));
    let table = prop::sample::select(vec!["Bridge", "Port", "Interface", "Mirror"]);
    let row = (key(5), uuid_set(), uuid_set(), strings.clone(), prop::option::of(0..9i64)).prop_map(
        |(name, some, other, strings, number)| {
            let number = number.map_or(json!(["set", []]), |n| json!(n));
            json!({
                "Bridge": { "name": name, "ports": some, "mirrors": other, "other_config": strings },
                "Port": { "name": name, "interfaces": some, "trunks": ["set", [1, 2]], "tag": number },
                "Interface": { "name": name, "options": strings, "ofport": number, "mtu": number },
                "Mirror": { "name": name, "select_src_port": some, "output_port": other },
            })
        },
    );
    (0..6u8, table, 0..6u128, row, uuid_set(), strings).prop_map(|(kind, table, n, row, set, strings)| {
        let mut values = row[table].clone();
        let one_row = json!([["_uuid", "==", row_uuid(n)]]);
        match kind {
            0 => json!({ "op": "insert", "table": table, "uuid": Uuid::from_u128(n).to_string(), "row": values }),
            1 => {
                if table != "Mirror" {
                    values.as_object_mut().unwrap().remove("name");
                }
                json!({ "op": "update", "table": table, "where": one_row, "row": values })
            }
            2 => json!({ "op": "delete", "table": table, "where": one_row }),
            3 => json!({ "op": "update", "table": "Open_vSwitch", "where": [], "row": { "bridges": set } }),
            4 => json!({ "op": "mutate", "table": "Interface", "where": one_row, "mutations": [
                ["options", "delete", ["set", ["a"]]], ["options", "insert", strings], ["ofport", "+=", 1]] }),
            _ => json!({ "op": "mutate", "table": "Bridge", "where": [], "mutations": [
                ["ports", "insert", set], ["other_config", "insert", strings]] }),
        }
    })
}

fn a_transaction() -> impl Strategy<Value = Vec<Value>> {
    prop_oneof![1 => vec(an_operation(), 1..5), 2 => a_bridge()]
}

/// A bridge with a port that the root refers to: what survives garbage collection.
fn a_bridge() -> impl Strategy<Value = Vec<Value>> {
    (0..6u128, 0..6u128, prop::sample::select(vec!["a", "b", "c"]), 0..9i64).prop_map(
        |(bridge, port, name, tag)| {
            let insert = |table: &str, n, row| {
                json!({ "op": "insert", "table": table, "row": row,
            "uuid": Uuid::from_u128(n).to_string() })
            };
            vec![
                insert("Interface", port, json!({ "name": name, "mtu": tag })),
                insert("Port", port, json!({ "name": name, "interfaces": row_uuid(port), "tag": tag })),
                insert("Mirror", port, json!({ "name": name, "output_port": row_uuid(port) })),
                insert(
                    "Bridge",
                    bridge,
                    json!({ "name": name, "ports": row_uuid(port), "mirrors": row_uuid(port) }),
                ),
                json!({ "op": "mutate", "table": "Open_vSwitch", "where": [],
                "mutations": [["bridges", "insert", row_uuid(bridge)]] }),
            ]
        },
    )
}

/// A file in memory.
#[derive(Debug, Clone, Default)]
struct Memory(Rc<RefCell<Vec<u8>>>);

impl Journal for Memory {
    fn append(&mut self, record: &Value) -> io::Result<()> {
        self.0.borrow_mut().extend(ovsdb::log::encode(record));
        Ok(())
    }
    fn compact(&mut self, _schema: &Value, _snapshot: &Value) {}
}

/// The whole content, as far as the log keeps it, or all of it.
fn content(db: &Database, ephemeral: bool) -> BTreeMap<String, Value> {
    let mut content = BTreeMap::new();
    for table in db.schema().tables.values() {
        for (uuid, row) in db.rows(&table.name) {
            let columns = table.columns().iter().zip(row.data());
            let columns = columns.filter(|(column, _)| ephemeral || !column.ephemeral);
            let values = columns.map(|(column, datum)| (column.name.clone(), datum.to_json()));
            content.insert(format!("{} {uuid}", table.name), Value::Object(values.collect()));
        }
    }
    content
}

/// Every rule that holds between rows, looked up the slow way.
fn check_integrity(db: &Database) {
    let mut referred = std::collections::BTreeSet::new();
    for (name, table) in &db.schema().tables {
        assert!(db.rows(name).count() <= table.max_rows as usize);
        for (uuid, row) in db.rows(name) {
            for (column, datum) in table.columns().iter().zip(row.data()) {
                datum.check(&column.column_type).unwrap();
                let Some(reference) = column.column_type.key.reference() else { continue };
                for target in datum.atoms().iter().filter_map(Atom::as_uuid) {
                    assert!(db.row(&reference.table, target).is_some(), "{name} {uuid} refers to nothing");
                    if reference.strong {
                        referred.insert((reference.table.clone(), target));
                    }
                }
            }
        }
        for index in &table.indexes {
            let mut seen = std::collections::BTreeSet::new();
            for (_, row) in db.rows(name) {
                let values: Vec<Datum> = index.iter().map(|at| row.data()[*at].clone()).collect();
                assert!(seen.insert(values), "duplicate in an index of {name}");
            }
        }
    }
    for table in db.schema().tables.values().filter(|table| !table.is_root) {
        for (uuid, _) in db.rows(&table.name) {
            assert!(referred.contains(&(table.name.clone(), uuid)), "garbage: {} {uuid}", table.name);
        }
    }
}

/// What a client knows that listens to `update` (v1) or `update2`.
#[derive(Debug, Default)]
struct Replica(BTreeMap<String, Value>);

impl Replica {
    fn update(&mut self, db: &Database, updates: &Value) {
        for (table, rows) in updates.as_object().unwrap() {
            for (uuid, update) in rows.as_object().unwrap() {
                let key = format!("{table} {uuid}");
                match update.get("new") {
                    Some(new) => {
                        self.0.insert(key, new.clone());
                    }
                    None if update.get("old").is_some() => assert!(self.0.remove(&key).is_some()),
                    None => self.update2(db, table, key, update),
                }
            }
        }
    }

    fn update2(&mut self, db: &Database, table: &str, key: String, update: &Value) {
        let schema = db.schema().table(table).unwrap();
        let (kind, values) = update.as_object().unwrap().iter().next().unwrap();
        if kind == "delete" {
            assert!(self.0.remove(&key).is_some());
            return;
        }
        let mut row = match kind.as_str() {
            "modify" => self.0.remove(&key).unwrap(),
            _ => Value::Object(
                schema
                    .columns()
                    .iter()
                    .map(|column| (column.name.clone(), Datum::default_of(&column.column_type).to_json()))
                    .collect(),
            ),
        };
        for (name, value) in values.as_object().unwrap() {
            let column_type = &schema.column(name).unwrap().column_type;
            let diff = Datum::from_json_unsized(value, column_type, None).unwrap();
            let old = Datum::from_json(&row[name], column_type, None).unwrap();
            row[name] = match kind.as_str() {
                "modify" => old.apply_diff(&diff, column_type).unwrap().to_json(),
                _ => diff.to_json(),
            };
        }
        self.0.insert(key, row);
    }
}

fn monitor_all(server: &mut Server, method: &str) -> (SessionId, Replica) {
    let session = server.connect();
    let columns = |table: &ovsdb::schema::TableSchema| -> Vec<String> {
        table.columns().iter().map(|column| column.name.clone()).collect()
    };
    let requests: Map<String, Value> = server
        .db()
        .schema()
        .tables
        .iter()
        .map(|(name, table)| (name.clone(), json!([{ "columns": columns(table) }])))
        .collect();
    let request = json!({ "id": 0, "method": method, "params": ["Open_vSwitch", 0, requests] });
    server.receive(session, request.to_string().as_bytes(), Instant::now()).unwrap();
    let reply = server.poll_transmit().unwrap();
    let reply: Value = serde_json::from_slice(&reply.bytes).unwrap();
    let mut replica = Replica::default();
    replica.update(server.db(), &reply["result"]);
    (session, replica)
}

proptest! {
    /// After each transaction the rules hold, both kinds of monitor have told everything, and the log knows it.
    #[test]
    fn a_history_is_sound_told_and_kept(history in vec(a_transaction(), 1..16)) {
        let memory = Memory::default();
        let mut server = Server::new(Database::open_vswitch(), Box::new(memory.clone()));
        let mut listeners = [monitor_all(&mut server, "monitor"), monitor_all(&mut server, "monitor_cond")];
        for operations in history {
            let before = (server.db().serial(), content(server.db(), true));
            let reply = server.transact(&json!(operations), Instant::now());
            let failed = reply.iter().any(|result| result.get("error").is_some());
            let after = content(server.db(), true);
            prop_assert!(!failed || after == before.1, "a failed transaction changed something");
            prop_assert_eq!(server.db().serial() == before.0, after == before.1);
            check_integrity(server.db());
            while let Some(sent) = server.poll_transmit() {
                let message: Value = serde_json::from_slice(&sent.bytes).unwrap();
                let listener = listeners.iter_mut().find(|(id, _)| *id == sent.session).unwrap();
                listener.1.update(server.db(), &message["params"][1]);
            }
            for (_, replica) in &listeners {
                prop_assert_eq!(&replica.0, &after);
            }
        }
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("conf.db");
        let mut bytes = ovsdb::log::encode(&server.db().schema().to_json());
        bytes.extend(memory.0.borrow().iter());
        std::fs::write(&path, bytes).unwrap();
        let (db, _) = ovsdb::open(&path, ovsdb::open_vswitch::schema()).unwrap();
        prop_assert_eq!(content(&db, false), content(server.db(), false));
    }
}
