//! The changes that the commands have made so far: laid over the view for reading, turned into operations to commit.

use super::view::{Row, View};
use ovsdb::schema::TableSchema;
use ovsdb::{Atom, Datum, Schema, Uuid};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// A row by table and UUID.
pub type RowId = (String, Uuid);

/// Changes that are not committed yet.
#[derive(Debug)]
pub struct Transaction<'v> {
    pub schema: &'v Schema,
    pub view: &'v View,
    changes: BTreeMap<RowId, Change>,
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
        let range = (table.to_owned(), Uuid::nil())..=(table.to_owned(), Uuid::max());
        let inserted =
            self.changes.range(range).filter(|(_, change)| matches!(change, Change::Insert { .. }));
        stored.chain(inserted.map(|((_, uuid), _)| *uuid)).collect()
    }

    pub fn exists(&self, table: &str, uuid: Uuid) -> bool {
        match self.change(table, uuid) {
            Some(Change::Delete) => false,
            Some(Change::Insert { .. }) => true,
            Some(Change::Update(_)) | None => self.view.row(table, uuid).is_some(),
        }
    }

    /// A column's value with the changes so far; its default if the row does not have it.
    pub fn read(&self, table: &str, uuid: Uuid, column: &str) -> Datum {
        let changed = match self.change(table, uuid) {
            Some(Change::Insert { row, .. }) => row.get(column),
            Some(Change::Update(writes)) => writes.get(column).map(|write| &write.value),
            _ => None,
        };
        match changed.or_else(|| self.view.row(table, uuid)?.get(column)) {
            Some(datum) => datum.clone(),
            None => self.default_of(table, column),
        }
    }

    /// The string in a column that holds just one.
    pub fn read_str(&self, table: &str, uuid: Uuid, column: &str) -> String {
        self.read(table, uuid, column).one().and_then(Atom::as_str).unwrap_or_default().to_owned()
    }

    fn default_of(&self, table: &str, column: &str) -> Datum {
        let column = self.schema.table(table).and_then(|table| table.column(column));
        column.map_or_else(Datum::empty_set, |column| Datum::default_of(&column.column_type))
    }

    fn change(&self, table: &str, uuid: Uuid) -> Option<&Change> {
        self.changes.get(&(table.to_owned(), uuid))
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
        self.changes.insert((table.to_owned(), uuid), Change::Insert { row: Row::new(), fixed });
    }

    pub fn delete(&mut self, table: &str, uuid: Uuid) {
        let id = (table.to_owned(), uuid);
        match self.changes.get(&id) {
            Some(Change::Insert { .. }) => {
                self.named.remove(&uuid);
                self.changes.remove(&id);
            }
            _ => drop(self.changes.insert(id, Change::Delete)),
        }
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
        let id = (table.to_owned(), uuid);
        match self.changes.entry(id).or_insert_with(|| Change::Update(BTreeMap::new())) {
            Change::Insert { row, .. } => drop(row.insert(column.to_owned(), write.value)),
            Change::Update(writes) => drop(writes.insert(column.to_owned(), write)),
            Change::Delete => {}
        }
    }

    /// The operations that make these changes, or none if nothing would change.
    pub fn operations(&self) -> Vec<Value> {
        let changes: Vec<Value> =
            self.changes.iter().flat_map(|(id, change)| self.change_operations(id, change)).collect();
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

    fn change_operations(&self, (table, uuid): &RowId, change: &Change) -> Vec<Value> {
        let Some(schema) = self.schema.table(table) else { return Vec::new() };
        match change {
            Change::Insert { row, fixed } => vec![self.insert_operation(schema, *uuid, row, *fixed)],
            // Rows of other tables go by themselves when nothing refers to them any more.
            Change::Delete if !schema.is_root => Vec::new(),
            Change::Delete => {
                vec![json!({ "op": "delete", "table": table, "where": by_uuid(*uuid) })]
            }
            Change::Update(writes) => self.update_operations(schema, *uuid, writes),
        }
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
