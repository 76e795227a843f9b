//! The changes that the commands have made so far: laid over the view for reading, turned into operations to commit.

use super::view::{Row, View};
use ovsdb::schema::TableSchema;
use ovsdb::{Atom, Datum, Schema, Uuid};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Changes that are not committed yet.
#[derive(Debug)]
pub struct Transaction<'v> {
    pub schema: &'v Schema,
    pub view: &'v View,
    /// By table and row.
    changes: BTreeMap<String, BTreeMap<Uuid, Change>>,
    /// Columns that must still hold what the view shows when the transaction commits.
    relied_on: BTreeSet<(String, Uuid, String)>,
    /// Tables that must still be empty.
    empty: BTreeSet<String>,
    /// Inserted rows that go by a name until the server gives them a UUID.
    named: BTreeSet<Uuid>,
}

#[derive(Debug)]
enum Change {
    /// `fixed`: the row's UUID is the user's choice.
    Insert {
        row: Row,
        fixed: bool,
    },
    Update(BTreeMap<String, Write>),
    Delete,
}

/// A new value for one column, and how to ask for it.
#[derive(Debug)]
struct Write {
    value: Datum,
    /// None: the whole value is written. Otherwise others' simultaneous changes to the same column stay.
    mutation: Option<Mutation>,
}

#[derive(Debug, Default, Clone)]
struct Mutation {
    removed_keys: BTreeSet<Atom>,
    inserted: BTreeMap<Atom, Option<Atom>>,
}

impl<'v> Transaction<'v> {
    pub fn new(schema: &'v Schema, view: &'v View) -> Transaction<'v> {
        Transaction {
            schema,
            view,
            changes: BTreeMap::new(),
            relied_on: BTreeSet::new(),
            empty: BTreeSet::new(),
            named: BTreeSet::new(),
        }
    }

    /// The rows of `table`, those of the database first.
    pub fn rows(&self, table: &str) -> Vec<Uuid> {
        let kept = |uuid: &Uuid| !matches!(self.change(table, *uuid), Some(Change::Delete));
        let stored = self.view.rows(table).map(|(uuid, _)| uuid).filter(kept);
        let changes = self.changes.get(table).into_iter().flatten();
        let inserted = changes.filter(|(_, change)| matches!(change, Change::Insert { .. }));
        stored.chain(inserted.map(|(uuid, _)| *uuid)).collect()
    }

    pub fn exists(&self, table: &str, uuid: Uuid) -> bool {
        match self.change(table, uuid) {
            Some(Change::Delete) => false,
            Some(Change::Insert { .. }) => true,
            Some(Change::Update(_)) | None => self.view.row(table, uuid).is_some(),
        }
    }

    /// A column's value with the changes so far; None if the row does not have it.
    pub fn get(&self, table: &str, uuid: Uuid, column: &str) -> Option<&Datum> {
        let changed = match self.change(table, uuid) {
            Some(Change::Insert { row, .. }) => row.get(column),
            Some(Change::Update(writes)) => writes.get(column).map(|write| &write.value),
            _ => None,
        };
        changed.or_else(|| self.view.row(table, uuid)?.get(column))
    }

    /// Like `get`, with the default for what the row does not have.
    pub fn read(&self, table: &str, uuid: Uuid, column: &str) -> Datum {
        self.get(table, uuid, column).cloned().unwrap_or_else(|| self.default_of(table, column))
    }

    /// The string in a column that holds just one.
    pub fn read_str(&self, table: &str, uuid: Uuid, column: &str) -> String {
        self.get(table, uuid, column).and_then(|datum| datum.one()?.as_str()).unwrap_or_default().to_owned()
    }

    fn default_of(&self, table: &str, column: &str) -> Datum {
        let column = self.schema.table(table).and_then(|table| table.column(column));
        column.map_or_else(Datum::empty_set, |column| Datum::default_of(&column.column_type))
    }

    fn change(&self, table: &str, uuid: Uuid) -> Option<&Change> {
        self.changes.get(table)?.get(&uuid)
    }

    /// Commits only if this column is then what it is in the view: what was decided depends on it.
    pub fn rely_on(&mut self, table: &str, uuid: Uuid, column: &str) {
        if !matches!(self.change(table, uuid), Some(Change::Insert { .. })) {
            self.relied_on.insert((table.to_owned(), uuid, column.to_owned()));
        }
    }

    /// Commits only if `table` then has no row.
    pub fn rely_on_empty(&mut self, table: &str) {
        self.empty.insert(table.to_owned());
    }

    /// Makes a row. `fixed`: it gets this very UUID; otherwise the server chooses one at the commit.
    pub fn insert(&mut self, table: &str, uuid: Uuid, fixed: bool) {
        if !fixed {
            self.named.insert(uuid);
        }
        self.changes_of(table).insert(uuid, Change::Insert { row: Row::new(), fixed });
    }

    pub fn delete(&mut self, table: &str, uuid: Uuid) {
        let changes = self.changes_of(table);
        if matches!(changes.get(&uuid), Some(Change::Insert { .. })) {
            changes.remove(&uuid);
            self.named.remove(&uuid);
        } else {
            changes.insert(uuid, Change::Delete);
        }
    }

    fn changes_of(&mut self, table: &str) -> &mut BTreeMap<Uuid, Change> {
        self.changes.entry(table.to_owned()).or_default()
    }

    /// Replaces a column's whole value.
    pub fn write(&mut self, table: &str, uuid: Uuid, column: &str, value: Datum) {
        self.put(table, uuid, column, Write { value, mutation: None });
    }

    /// Sets or replaces one pair of a map and leaves the others alone.
    pub fn put_pair(&mut self, table: &str, uuid: Uuid, column: &str, key: Atom, value: Atom) {
        let old = self.read(table, uuid, column);
        if old.get(&key) == Some(&value) {
            return;
        }
        let mut mutation = self.mutation(table, uuid, column);
        if let Some(mutation) = &mut mutation {
            if old.get(&key).is_some() {
                mutation.removed_keys.insert(key.clone());
            }
            mutation.inserted.insert(key.clone(), Some(value.clone()));
        }
        let first = std::iter::once((key, value));
        let value = Datum::map(first.chain(old.pairs().iter().cloned()));
        self.put(table, uuid, column, Write { value, mutation });
    }

    /// Adds elements or pairs; a pair whose key is there already changes nothing.
    pub fn add(&mut self, table: &str, uuid: Uuid, column: &str, added: &Datum) {
        let old = self.read(table, uuid, column);
        let mut mutation = self.mutation(table, uuid, column);
        if let Some(mutation) = &mut mutation {
            let atoms = added.atoms().iter().filter(|atom| !old.contains(atom));
            let pairs = added.pairs().iter().filter(|(key, _)| old.get(key).is_none());
            mutation.inserted.extend(atoms.map(|atom| (atom.clone(), None)));
            mutation.inserted.extend(pairs.map(|(key, value)| (key.clone(), Some(value.clone()))));
        }
        let value = if old.is_map() {
            Datum::map(old.pairs().iter().chain(added.pairs()).cloned())
        } else {
            Datum::set(old.atoms().iter().chain(added.atoms()).cloned())
        };
        self.put(table, uuid, column, Write { value, mutation });
    }

    /// The mutation so far, unless the column is already written whole.
    fn mutation(&self, table: &str, uuid: Uuid, column: &str) -> Option<Mutation> {
        match self.change(table, uuid) {
            Some(Change::Update(writes)) => match writes.get(column) {
                Some(write) => write.mutation.clone(),
                None => Some(Mutation::default()),
            },
            _ => Some(Mutation::default()),
        }
    }

    fn put(&mut self, table: &str, uuid: Uuid, column: &str, write: Write) {
        let changes = self.changes_of(table);
        match changes.entry(uuid).or_insert_with(|| Change::Update(BTreeMap::new())) {
            Change::Insert { row, .. } => drop(row.insert(column.to_owned(), write.value)),
            Change::Update(writes) => drop(writes.insert(column.to_owned(), write)),
            Change::Delete => {}
        }
    }

    /// The operations that make these changes, or none if nothing would change.
    pub fn operations(&self) -> Vec<Value> {
        let changes: Vec<Value> =
            self.changes.iter().flat_map(|(table, changes)| self.table_operations(table, changes)).collect();
        if changes.is_empty() {
            return changes;
        }
        let waits = self.relied_on.iter().filter_map(|(table, uuid, column)| {
            let old = self.view.row(table, *uuid)?.get(column)?;
            Some(json!({
                "op": "wait", "table": table, "timeout": 0, "until": "==",
                "where": by_uuid(*uuid),
                "columns": [column], "rows": [{ column: old.to_json() }],
            }))
        });
        let empty = self.empty.iter().map(|table| {
            json!({ "op": "wait", "table": table, "timeout": 0, "until": "==", "where": [], "rows": [] })
        });
        waits.chain(empty).chain(changes).collect()
    }

    fn table_operations(&self, table: &str, changes: &BTreeMap<Uuid, Change>) -> Vec<Value> {
        let Some(schema) = self.schema.table(table) else { return Vec::new() };
        let operations = |(uuid, change): (&Uuid, &Change)| match change {
            Change::Insert { row, fixed } => vec![self.insert_operation(schema, *uuid, row, *fixed)],
            // Rows of other tables go by themselves when nothing refers to them any more.
            Change::Delete if !schema.is_root => Vec::new(),
            Change::Delete => vec![json!({ "op": "delete", "table": table, "where": by_uuid(*uuid) })],
            Change::Update(writes) => self.update_operations(schema, *uuid, writes),
        };
        changes.iter().flat_map(operations).collect()
    }

    fn insert_operation(&self, schema: &TableSchema, uuid: Uuid, row: &Row, fixed: bool) -> Value {
        let columns: Map<String, Value> = row
            .iter()
            .filter(|(name, datum)| **datum != self.default_of(&schema.name, name))
            .map(|(name, datum)| (name.clone(), self.datum_json(datum)))
            .collect();
        let mut insert = json!({ "op": "insert", "table": schema.name, "row": columns });
        match fixed {
            true => insert["uuid"] = json!(uuid.to_string()),
            false => insert["uuid-name"] = json!(uuid_name(uuid)),
        }
        insert
    }

    fn update_operations(
        &self,
        schema: &TableSchema,
        uuid: Uuid,
        writes: &BTreeMap<String, Write>,
    ) -> Vec<Value> {
        let old = self.view.row(&schema.name, uuid);
        let changed =
            writes.iter().filter(|(name, write)| old.and_then(|row| row.get(*name)) != Some(&write.value));
        let (mut whole, mut mutations) = (Map::new(), Vec::new());
        for (name, write) in changed {
            match &write.mutation {
                None => drop(whole.insert(name.clone(), self.datum_json(&write.value))),
                Some(mutation) => mutations.extend(self.mutations_json(name, mutation)),
            }
        }
        let target = by_uuid(uuid);
        let mut operations = Vec::new();
        if !whole.is_empty() {
            operations.push(json!({ "op": "update", "table": schema.name, "where": target, "row": whole }));
        }
        if !mutations.is_empty() {
            operations.push(
                json!({ "op": "mutate", "table": schema.name, "where": target, "mutations": mutations }),
            );
        }
        operations
    }

    fn mutations_json(&self, column: &str, mutation: &Mutation) -> Vec<Value> {
        let mut json = Vec::new();
        if !mutation.removed_keys.is_empty() {
            let keys: Vec<Value> = mutation.removed_keys.iter().map(|key| self.atom_json(key)).collect();
            json.push(json!([column, "delete", ["set", keys]]));
        }
        let elements = mutation.inserted.iter();
        let inserted: Vec<Value> = elements
            .clone()
            .map(|(key, value)| match value {
                None => self.atom_json(key),
                Some(value) => json!([self.atom_json(key), self.atom_json(value)]),
            })
            .collect();
        if !inserted.is_empty() {
            let kind = if elements.clone().any(|(_, value)| value.is_some()) { "map" } else { "set" };
            json.push(json!([column, "insert", [kind, inserted]]));
        }
        json
    }

    /// A row of this transaction has no UUID yet that the server would know.
    fn atom_json(&self, atom: &Atom) -> Value {
        match atom {
            Atom::Uuid(uuid) if self.named.contains(uuid) => json!(["named-uuid", uuid_name(*uuid)]),
            other => other.to_json(),
        }
    }

    fn datum_json(&self, datum: &Datum) -> Value {
        if datum.is_map() {
            let pair = |(key, value): &(Atom, Atom)| json!([self.atom_json(key), self.atom_json(value)]);
            return json!(["map", datum.pairs().iter().map(pair).collect::<Vec<_>>()]);
        }
        match datum.atoms() {
            [one] => self.atom_json(one),
            atoms => json!(["set", atoms.iter().map(|atom| self.atom_json(atom)).collect::<Vec<_>>()]),
        }
    }
}

/// A condition that only this row of the database meets.
pub fn by_uuid(uuid: Uuid) -> Value {
    json!([["_uuid", "==", Atom::Uuid(uuid).to_json()]])
}

/// A condition that only this row of the same transaction meets.
pub fn by_name(uuid: Uuid) -> Value {
    json!([["_uuid", "==", ["named-uuid", uuid_name(uuid)]]])
}

/// What an inserted row is called until it has its UUID. An `<id>` must begin with a letter.
fn uuid_name(uuid: Uuid) -> String {
    format!("row{}", uuid.to_string().replace('-', "_"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BRIDGE: &str = "6c1b2b5e-7f4e-4f0e-9c1d-000000000001";
    const PORT: &str = "6c1b2b5e-7f4e-4f0e-9c1d-000000000002";

    fn uuid(text: &str) -> Uuid {
        ovsdb::parse_uuid_text(text).unwrap()
    }

    /// A bridge with one port and one external id.
    fn view(schema: &Schema) -> View {
        let mut view = View::new(schema.clone());
        let initial = json!({
            "Bridge": { BRIDGE: { "new": {
                "name": "br0", "ports": ["uuid", PORT], "external_ids": ["map", [["a", "b"]]],
            } } },
            "Port": { PORT: { "new": { "name": "p0", "tag": ["set", []], "trunks": ["set", [1, 2]] } } },
        });
        view.update(&initial).unwrap();
        view
    }

    fn operations(change: impl FnOnce(&mut Transaction<'_>)) -> Vec<Value> {
        let schema = ovsdb::open_vswitch::schema();
        let view = view(&schema);
        let mut txn = Transaction::new(&schema, &view);
        change(&mut txn);
        txn.operations()
    }

    #[test]
    fn what_is_the_same_is_not_sent() {
        let sent = operations(|txn| {
            txn.rely_on("Bridge", uuid(BRIDGE), "ports");
            txn.write("Port", uuid(PORT), "trunks", Datum::set([2, 1]));
            txn.put_pair("Bridge", uuid(BRIDGE), "external_ids", "a".into(), "b".into());
            txn.add("Port", uuid(PORT), "trunks", &Datum::set([2]));
        });
        assert_eq!(sent, Vec::<Value>::new());
    }

    #[test]
    fn a_pair_is_changed_without_touching_the_others() {
        let sent = operations(|txn| {
            txn.put_pair("Bridge", uuid(BRIDGE), "external_ids", "a".into(), "c".into());
            txn.put_pair("Bridge", uuid(BRIDGE), "external_ids", "d".into(), "e".into());
            assert_eq!(
                txn.read("Bridge", uuid(BRIDGE), "external_ids"),
                Datum::map([("a", "c"), ("d", "e")])
            );
        });
        let mutations = json!([
            ["external_ids", "delete", ["set", ["a"]]],
            ["external_ids", "insert", ["map", [["a", "c"], ["d", "e"]]]],
        ]);
        let mutate = json!({ "op": "mutate", "table": "Bridge", "where": by_uuid(uuid(BRIDGE)), "mutations": mutations });
        assert_eq!(sent, [mutate]);
    }

    #[test]
    fn a_column_once_written_whole_stays_so() {
        let sent = operations(|txn| {
            txn.write("Port", uuid(PORT), "trunks", Datum::set([7]));
            txn.add("Port", uuid(PORT), "trunks", &Datum::set([8]));
        });
        let row = json!({ "trunks": ["set", [7, 8]] });
        assert_eq!(
            sent,
            [json!({ "op": "update", "table": "Port", "where": by_uuid(uuid(PORT)), "row": row })]
        );
    }

    #[test]
    fn decisions_are_guarded_and_new_rows_go_by_name() {
        let new = Uuid::from_u128(9);
        let sent = operations(|txn| {
            txn.rely_on("Bridge", uuid(BRIDGE), "ports");
            txn.insert("Port", new, false);
            txn.write("Port", new, "name", Datum::scalar("p1"));
            txn.write("Port", new, "tag", Datum::empty_set());
            txn.rely_on("Port", new, "tag");
            txn.write("Bridge", uuid(BRIDGE), "ports", Datum::set([uuid(PORT), new]));
        });
        let name = "row00000000_0000_0000_0000_000000000009";
        let expected = [
            json!({
                "op": "wait", "table": "Bridge", "timeout": 0, "until": "==", "where": by_uuid(uuid(BRIDGE)),
                "columns": ["ports"], "rows": [{ "ports": ["uuid", PORT] }],
            }),
            json!({
                "op": "update", "table": "Bridge", "where": by_uuid(uuid(BRIDGE)),
                "row": { "ports": ["set", [["named-uuid", name], ["uuid", PORT]]] },
            }),
            json!({ "op": "insert", "table": "Port", "row": { "name": "p1" }, "uuid-name": name }),
        ];
        assert_eq!(sent, expected);
    }

    #[test]
    fn a_row_made_and_deleted_leaves_no_trace() {
        let new = Uuid::from_u128(9);
        let sent = operations(|txn| {
            txn.insert("QoS", new, false);
            assert!(txn.exists("QoS", new));
            txn.delete("QoS", new);
            assert!(!txn.exists("QoS", new));
            // Not a root: it goes when the last reference does.
            txn.delete("Port", uuid(PORT));
            assert!(txn.rows("Port").is_empty());
        });
        assert_eq!(sent, Vec::<Value>::new());
    }
}
